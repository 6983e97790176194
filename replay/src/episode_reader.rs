//! Drawing whole episodes, and windows inside episodes.

use crate::episode::positions;
use crate::episode_index::{Episode, EpisodeIndex};
use crate::{Key, Pinned, Reader, Replay, ReplayError};
use rand::RngExt;
use rl_minibatch::{Batch, BatchMut, Drawn, Rng};
use std::sync::atomic::Ordering;

/// Rows looked at under one pin while an index is made, so that a long walk does not hold up writers.
const LOOK_ROWS: usize = 4096;

/// Episodes, or windows of them, that an [`EpisodeReader`] drew. Reused from batch to batch, so that drawing allocates
/// nothing in the steady state (for rows of up to eight fields; see [`Batch::view_mut`]).
#[derive(Clone, Debug, Default)]
pub struct DrawnEpisodes {
    /// In `rows` the key of the first row of each; the probability with which each was drawn; and how many episodes, or
    /// windows, there were to draw from.
    pub starts: Drawn,
    /// The steps of each; the rest of its rows is padding. Of windows the length asked for.
    pub lengths: Vec<usize>,
    /// `[B, T]`: 1 for a step, 0 for padding, so that it multiplies a loss as it is.
    pub mask: Vec<f32>,
}

/// Draws whole episodes, or windows inside them, that [`EpisodeWriter`](crate::EpisodeWriter)s stored. `Send`; each
/// thread has its own.
///
/// Rows are copied while they are pinned, as by [`Reader::sample_into`], so an episode that is drawn is whole whatever
/// writers do meanwhile. Only episodes that were stored when the call began are drawn.
///
/// The batch's rows are `[B, T]`: those of the b-th episode or window are `b·T .. (b + 1)·T`, so a column is
/// `[B, T, shape...]`.
///
/// Which episodes are live it finds out by itself, and keeps in 16 bytes for each. The first draw reads one row of every
/// live episode, later ones one of every new episode. There is no state to save: after a buffer was loaded, under an old
/// reader or a new one, the draws that follow are those that would have followed in the saved one.
pub struct EpisodeReader {
    replay: Replay,
    reader: Reader,
    index: EpisodeIndex,
    /// How often the buffer had been loaded when the index was begun.
    loads: u64,
    /// Room for the one row that is looked at.
    head: Batch,
    /// Where `episode_step` and `episode_left` are in a row.
    positions: [usize; 2],
    /// Scratch: what is being drawn, and its rows.
    chosen: Vec<Episode>,
    keys: Vec<Key>,
}

impl EpisodeReader {
    /// A reader of `replay`.
    ///
    /// # Errors
    /// [`ReplayError::NotEpisodes`] when its rows do not tell where in their episode they are.
    pub fn new(replay: &Replay) -> Result<Self, ReplayError> {
        Ok(Self {
            positions: positions(replay.schema())?,
            reader: replay.sampler(),
            index: EpisodeIndex::default(),
            loads: replay.shared.loads.load(Ordering::Acquire),
            head: Batch::new(replay.schema(), 1),
            chosen: Vec::new(),
            keys: Vec::new(),
            replay: replay.clone(),
        })
    }

    /// How many whole episodes are live.
    ///
    /// # Errors
    /// None but those of a buffer whose rows were not all inserted by [`EpisodeWriter`](crate::EpisodeWriter)s.
    pub fn episodes(&mut self) -> Result<usize, ReplayError> {
        if self.replay.is_empty() {
            return Ok(0);
        }
        let pinned =
            catch_up(&mut self.reader, &self.replay, &mut self.index, &mut self.loads, &mut self.head)?;
        Ok(self.index.whole(pinned.live().start).len())
    }

    /// Draws `count` whole episodes, each with the same probability and with replacement, and copies each into `length`
    /// rows of `batch`, filled up with zeros. Episodes of which the first rows have been overwritten are not drawn.
    ///
    /// Cost: O(1) to draw one; `length` row copies, padding included.
    ///
    /// # Errors
    /// [`ReplayError::Batch`] when the batch is for another schema or has less than `count · length` rows;
    /// [`ReplayError::Setting`] when `length` is 0; [`ReplayError::Sample`] when the buffer is empty,
    /// [`ReplayError::NoEpisode`] when it has no whole episode; [`ReplayError::EpisodeTooLong`] when one that was drawn
    /// is longer than `length`; `batch` is untouched then. [`ReplayError::NotEpisodes`] when rows were inserted by
    /// anything but an [`EpisodeWriter`](crate::EpisodeWriter). `drawn` is as it was whatever the error.
    pub fn sample_episodes(
        &mut self,
        rng: &mut Rng,
        count: usize,
        length: usize,
        batch: &mut BatchMut<'_>,
        drawn: &mut DrawnEpisodes,
    ) -> Result<(), ReplayError> {
        self.check(count, length, batch)?;
        let mut pinned =
            catch_up(&mut self.reader, &self.replay, &mut self.index, &mut self.loads, &mut self.head)?;
        let whole = self.index.whole(pinned.live().start);
        if whole.is_empty() {
            return Err(ReplayError::NoEpisode);
        }
        self.chosen.clear();
        for _ in 0..count {
            let episode = self.index.get(rng.random_range(whole.clone()));
            let steps = episode.steps as usize;
            if steps > length {
                return Err(ReplayError::EpisodeTooLong { start: episode.start, steps, length });
            }
            self.chosen.push(episode);
        }
        let population = whole.len() as u64;
        gather(&mut pinned, &self.chosen, length, &mut self.keys, batch)?;
        drop(pinned);
        self.verify(length, false, batch)?;
        self.describe(population, length, batch, drawn);
        Ok(())
    }

    /// Draws `count` windows of `length` consecutive rows of one episode, with replacement, each window that is live with
    /// the same probability: so an episode of n steps comes up in proportion to n − `length` + 1, and one that is shorter
    /// than a window never does.
    ///
    /// Cost: O(log episodes) to draw one, O(episodes) where few rows begin a window; `length` row copies.
    ///
    /// # Errors
    /// As [`sample_episodes`](Self::sample_episodes), with [`ReplayError::NoWindow`] when no episode is live over
    /// `length` rows.
    pub fn sample_windows(
        &mut self,
        rng: &mut Rng,
        count: usize,
        length: usize,
        batch: &mut BatchMut<'_>,
        drawn: &mut DrawnEpisodes,
    ) -> Result<(), ReplayError> {
        self.check(count, length, batch)?;
        let mut pinned =
            catch_up(&mut self.reader, &self.replay, &mut self.index, &mut self.loads, &mut self.head)?;
        let oldest = pinned.live().start;
        let population = self.index.windows(length as u64, oldest);
        let steps = u32::try_from(length).ok().filter(|_| population > 0);
        let Some(steps) = steps else {
            return Err(ReplayError::NoWindow { length });
        };
        self.chosen.clear();
        for _ in 0..count {
            let start = self.index.draw_window(rng, u64::from(steps), oldest);
            self.chosen.push(Episode { start, steps });
        }
        gather(&mut pinned, &self.chosen, length, &mut self.keys, batch)?;
        drop(pinned);
        self.verify(length, true, batch)?;
        self.describe(population, length, batch, drawn);
        Ok(())
    }

    fn check(&self, count: usize, length: usize, batch: &BatchMut<'_>) -> Result<(), ReplayError> {
        if length == 0 {
            return Err(ReplayError::Setting { name: "length", value: 0.0, expected: "at least 1" });
        }
        batch.check(self.replay.schema(), count.saturating_mul(length))?;
        Ok(())
    }

    /// Checks that the rows that were gathered are each time those of one episode.
    fn verify(&self, length: usize, windows: bool, batch: &mut BatchMut<'_>) -> Result<(), ReplayError> {
        for (place, episode) in self.chosen.iter().enumerate() {
            let mut at = |step: u32| {
                self.positions.map(|position| {
                    let cell = batch.cell_mut(position, place * length + step as usize);
                    i32::from_ne_bytes(cell.try_into().expect("an i32 has four bytes"))
                })
            };
            let [first, left] = at(0).map(i64::from);
            let whole = first == 0 && left + 1 == i64::from(episode.steps);
            let follows =
                |step: u32| at(step).map(i64::from) == [first + i64::from(step), left - i64::from(step)];
            if !((windows || whole) && (1..episode.steps).all(follows)) {
                let (start, last) = (episode.start, episode.end() - 1);
                let why = format!(
                    "rows {start} to {last} are not those of an episode; insert by `EpisodeWriter` alone"
                );
                return Err(ReplayError::NotEpisodes { why });
            }
        }
        Ok(())
    }

    /// Zeroes the padding, and tells what was drawn.
    fn describe(&self, population: u64, length: usize, batch: &mut BatchMut<'_>, drawn: &mut DrawnEpisodes) {
        let DrawnEpisodes { starts, lengths, mask } = drawn;
        starts.population = population;
        starts.rows.clear();
        starts.rows.extend(self.chosen.iter().map(|episode| episode.start));
        starts.probabilities.clear();
        starts.probabilities.resize(self.chosen.len(), 1.0 / population as f64);
        lengths.clear();
        lengths.extend(self.chosen.iter().map(|episode| episode.steps as usize));
        mask.clear();
        mask.resize(self.chosen.len() * length, 0.0);
        for (place, steps) in lengths.iter().enumerate() {
            mask[place * length..][..*steps].fill(1.0);
            for row in place * length + steps..(place + 1) * length {
                for position in 0..self.replay.schema().fields().len() {
                    batch.cell_mut(position, row).fill(0);
                }
            }
        }
    }
}

impl std::fmt::Debug for EpisodeReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EpisodeReader").field("replay", &self.replay).finish_non_exhaustive()
    }
}

/// Pins what is live, and has the index agree with that.
fn catch_up<'a>(
    reader: &'a mut Reader,
    replay: &Replay,
    index: &mut EpisodeIndex,
    loads: &mut u64,
    head: &mut Batch,
) -> Result<Pinned<'a>, ReplayError> {
    let mut refresh = |pinned: &Pinned<'_>, budget: usize| {
        // Loading waits until nobody has a pin, so this cannot change before the pin is dropped.
        let now = replay.shared.loads.load(Ordering::Acquire);
        if now != *loads {
            (*index, *loads) = (EpisodeIndex::default(), now);
        }
        index.refresh(pinned.live(), budget, |key| {
            pinned.gather(&[key], &mut head.view_mut())?;
            let one = |name: &str| Ok::<i32, ReplayError>(head.typed::<i32>(name)?[0]);
            Ok::<[i32; 2], ReplayError>([one(crate::EPISODE_STEP)?, one(crate::EPISODE_LEFT)?])
        })
    };
    while !refresh(&reader.pin()?, LOOK_ROWS)? {}
    // What has come since then is little.
    let pinned = reader.pin()?;
    refresh(&pinned, usize::MAX)?;
    Ok(pinned)
}

/// Copies the rows of `chosen` into `batch`, each filled up to `length` rows, and counts them as drawn.
fn gather(
    pinned: &mut Pinned<'_>,
    chosen: &[Episode],
    length: usize,
    keys: &mut Vec<Key>,
    batch: &mut BatchMut<'_>,
) -> Result<(), ReplayError> {
    keys.clear();
    for episode in chosen {
        // A batch takes its rows in one go, so padding is a row that was just read, and zeroed afterwards.
        let padding = std::iter::repeat_n(episode.end() - 1, length - episode.steps as usize);
        keys.extend((episode.start..episode.end()).chain(padding));
    }
    pinned.gather(keys, batch)?;
    chosen.iter().for_each(|episode| pinned.count(episode.start..episode.end()));
    Ok(())
}
