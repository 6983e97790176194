//! Where the live episodes begin: what drawing uniformly over episodes, or over windows of them, needs to know.
//!
//! Each reader has an index of its own and learns of new episodes by hopping from head to head: the first row of an
//! episode says how long it is, and the next one begins behind it. So the writers keep nothing, there is nothing to be
//! saved, and after a restore, or for a reader made late, the same walk over all the rows makes the same index.
//! The alternatives: rejection through the rows alone reads, for each episode drawn, as many rows as an episode is
//! long; an index kept by the writers would be one more thing under a lock that they share.
//!
//! Cost: 16 bytes a live episode; one row read for each new one, the first time anything is drawn after it came.

use crate::Key;
use rand::RngExt;
use rl_minibatch::Rng;
use std::collections::VecDeque;
use std::ops::Range;

/// Draws of a window that are tried before all windows are counted through. Trying takes O(log episodes), and more than
/// this are needed only where few rows begin a window.
const TRIES: usize = 64;

/// An episode of which at least one row is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Episode {
    /// Key of its first row, which may have been overwritten.
    pub(crate) start: Key,
    pub(crate) steps: u32,
}

impl Episode {
    pub(crate) fn end(self) -> Key {
        self.start + u64::from(self.steps)
    }

    /// The rows at which a window of `length` steps may begin, in an episode whose rows from `oldest` on are live.
    fn window_starts(self, length: u64, oldest: Key) -> Range<Key> {
        let first = self.start.max(oldest);
        first..(self.end() + 1).saturating_sub(length).max(first)
    }
}

/// The episodes that are live, wholly or from some row on.
#[derive(Clone, Debug, Default)]
pub(crate) struct EpisodeIndex {
    /// By key. Their rows do not overlap, so at most the first is partly overwritten.
    episodes: VecDeque<Episode>,
    /// The first row that has not been looked at.
    next: Key,
    /// The window for which `window_starts` is known, 0 for none, and in how many rows one may begin, had none of the
    /// first episode's been overwritten.
    window: u64,
    window_starts: u64,
}

impl EpisodeIndex {
    /// Forgets the rows that are not in `live` any more and looks at the new ones, at most `budget` of them. `read` gives
    /// a row's `episode_step` and `episode_left`. Returns whether it is through.
    pub(crate) fn refresh<E>(
        &mut self,
        live: Range<Key>,
        budget: usize,
        mut read: impl FnMut(Key) -> Result<[i32; 2], E>,
    ) -> Result<bool, E> {
        while let Some(first) = self.episodes.front().copied().filter(|first| first.end() <= live.start) {
            self.window_starts -= self.starts_of(first);
            self.episodes.pop_front();
        }
        self.next = self.next.max(live.start);
        for _ in 0..budget {
            if self.next >= live.end {
                return Ok(true);
            }
            let [step, left] = read(self.next)?;
            let (Ok(step), Ok(left)) = (u32::try_from(step), u32::try_from(left)) else {
                self.next += 1;
                continue;
            };
            // In the middle of an episode only where its first rows have been overwritten. Anywhere else it is a row
            // that was not written as part of one, and belongs to none.
            let headless = step > 0 && (self.next > live.start || u64::from(step) > self.next);
            if headless {
                self.next += 1;
                continue;
            }
            // Both come from an i32, so their sum fits.
            let episode = Episode { start: self.next - u64::from(step), steps: step + left + 1 };
            if episode.end() > live.end {
                // Its rows are coming to life just now.
                return Ok(true);
            }
            self.window_starts += self.starts_of(episode);
            self.next = episode.end();
            self.episodes.push_back(episode);
        }
        Ok(self.next >= live.end)
    }

    pub(crate) fn get(&self, position: usize) -> Episode {
        self.episodes[position]
    }

    /// The positions of the episodes whose every row is live.
    pub(crate) fn whole(&self, oldest: Key) -> Range<usize> {
        let first = self.episodes.front().is_some_and(|first| first.start < oldest);
        usize::from(first)..self.episodes.len()
    }

    /// In how many rows a window of `length` steps may begin. O(1), but O(episodes) when the length is another than the
    /// last time.
    pub(crate) fn windows(&mut self, length: u64, oldest: Key) -> u64 {
        if self.window != length {
            self.window = length;
            self.window_starts = self.episodes.iter().map(|episode| self.starts_of(*episode)).sum();
        }
        let Some(first) = self.episodes.front() else { return 0 };
        let live = first.window_starts(length, oldest);
        self.window_starts - (self.starts_of(*first) - (live.end - live.start))
    }

    /// A row at which a window of `length` steps begins, each such row with the same probability. There must be one.
    pub(crate) fn draw_window(&mut self, rng: &mut Rng, length: u64, oldest: Key) -> Key {
        let count = self.windows(length, oldest);
        // Any row of an episode with the same probability, until one is drawn that may begin a window. The episodes
        // follow each other but for rows that belong to none, so a row is found in them by bisection.
        for _ in 0..TRIES {
            let key = rng.random_range(oldest..self.next);
            let after = self.episodes.partition_point(|episode| episode.start <= key);
            let episode = after.checked_sub(1).map(|position| self.episodes[position]);
            if episode.is_some_and(|episode| episode.window_starts(length, oldest).contains(&key)) {
                return key;
            }
        }
        // They are rare: draw the one to take, and count up to it.
        let mut nth = rng.random_range(0..count);
        for episode in &self.episodes {
            let starts = episode.window_starts(length, oldest);
            let count = starts.end - starts.start;
            if nth < count {
                return starts.start + nth;
            }
            nth -= count;
        }
        unreachable!("there are {count} windows")
    }

    fn starts_of(&self, episode: Episode) -> u64 {
        if self.window == 0 {
            return 0;
        }
        (u64::from(episode.steps) + 1).saturating_sub(self.window)
    }
}
