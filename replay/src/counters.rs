//! Counting for [`Statistics`] beside everything else, without holding it up.
//!
//! Each handle that counts has a [`Tally`] of its own, in cache lines of its own, to which it alone adds: so adding is a
//! load and a store, and no atomic read-modify-write. The tallies are registered, as a reader's pin is, and what a
//! handle counted that is gone was added to a total. Reading sums them up. The one lock on the way is the registry's,
//! which is taken only to make and to drop handles: nobody who inserts, draws or sends priorities back ever waits for a
//! statistic being read.
//!
//! # Draws of each row
//!
//! [`DrawCounts`] has a counter for each slot of the ring, if that was asked for. It stands under the ring's protocol
//! (`control.rs`), though it needs none of it to be sound:
//!
//! * a reader adds to the counter of a row only while it has that row pinned, so before the row's slot can be claimed;
//! * a writer reads the counter of the slot's last row and sets it to 0 when it has claimed the slot, so after all
//!   readers of the last row and before any of its own, which see the row only when it is published.
//!
//! So no draw is lost, and none is counted for the row that comes after. The orderings that make the row's bytes safe
//! order these accesses as well; they themselves are relaxed. Readers of one row may meet, so they add atomically.

use crate::copy::prefetch;
use crate::statistics::{BUCKETS, Histogram, Statistics, TimesSampled, bucket};
use crate::sync::Mutex;
use crate::{Key, ReplayError};
use crossbeam_utils::CachePadded;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// How often one row's draws are counted: so far below what the counter holds that all readers together cannot have it
/// begin at 0 again.
const MOST_DRAWS: u32 = 1 << 31;
/// Rows ahead whose counters are brought into the cache.
const AHEAD: usize = 32;

/// All that a buffer counts.
pub(crate) struct Counters {
    /// Ages of rows drawn; of each reader.
    ages: Registry,
    /// Draws of rows overwritten; of each writer. Only if draws are counted.
    retired: Registry,
    stale: CachePadded<AtomicU64>,
    draws: Option<DrawCounts>,
}

impl Counters {
    /// For a ring of `slots` slots, of which the draws of each are counted if `count_draws` says so.
    pub(crate) fn new(slots: u64, count_draws: bool) -> Result<Self, ReplayError> {
        let draws = if count_draws { Some(DrawCounts::new(slots)?) } else { None };
        Ok(Self {
            ages: Registry::default(),
            retired: Registry::default(),
            stale: CachePadded::default(),
            draws,
        })
    }

    /// Bytes that grow with the slots, if draws are counted.
    pub(crate) fn bytes_for(slots: u128) -> u128 {
        slots.saturating_mul(size_of::<AtomicU32>() as u128)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.draws.as_ref().map_or(0, |draws| size_of_val(&*draws.slots))
    }

    pub(crate) fn stale(&self) -> u64 {
        self.stale.load(Relaxed)
    }

    pub(crate) fn add_stale(&self, rows: usize) {
        if rows > 0 {
            self.stale.fetch_add(rows as u64, Relaxed);
        }
    }

    /// Counting for one reader, to be given back by [`withdraw_reader`](Self::withdraw_reader).
    pub(crate) fn reader(&self) -> Drawing {
        Drawing { ages: self.ages.tally(), turn: 0 }
    }

    pub(crate) fn withdraw_reader(&self, drawing: &Drawing) {
        self.ages.withdraw(&drawing.ages);
    }

    /// A tally for one writer if it is to count, to be given back by [`withdraw_writer`](Self::withdraw_writer).
    pub(crate) fn writer(&self) -> Option<Arc<Tally>> {
        self.draws.as_ref().map(|_| self.retired.tally())
    }

    pub(crate) fn withdraw_writer(&self, tally: &Option<Arc<Tally>>) {
        if let Some(tally) = tally {
            self.retired.withdraw(tally);
        }
    }

    /// The slots of `keys` were claimed: the rows that they held are counted, and those to come were drawn 0 times.
    pub(crate) fn retire(&self, keys: Range<Key>, tally: &Tally) {
        if let Some(draws) = &self.draws {
            draws.retire(keys, tally);
        }
    }

    /// A state was loaded whose rows begin at `first`; nobody inserts or draws. Everything starts anew but what is a part
    /// of that state.
    pub(crate) fn loaded(&self, first: Key, stale: u64) {
        self.stale.store(stale, Relaxed);
        self.ages.clear();
        self.retired.clear();
        if let Some(draws) = &self.draws {
            draws.first.store(first, Relaxed);
            draws.slots.iter().for_each(|draws| draws.store(0, Relaxed));
        }
    }

    /// With `live` as the rows that can be drawn.
    pub(crate) fn statistics(&self, capacity: u64, live: Range<Key>) -> Statistics {
        let ages = self.ages.sum().histogram();
        Statistics {
            capacity,
            len: live.end - live.start,
            inserted: live.end,
            overwritten: live.start,
            sampled: ages.total(),
            stale_priorities: self.stale(),
            ages,
            ages_exact: self.draws.is_some(),
            times_sampled: self.draws.as_ref().map(|draws| draws.times(live, self.retired.sum())),
        }
    }
}

/// What one reader counts with.
#[derive(Debug)]
pub(crate) struct Drawing {
    ages: Arc<Tally>,
    /// Batches counted.
    turn: u64,
}

impl Drawing {
    /// Counts `rows` rows drawn, `keys`, of those that are `live` and pinned.
    #[inline]
    pub(crate) fn count(
        &mut self,
        counters: &Counters,
        live: &Range<Key>,
        rows: usize,
        mut keys: impl Iterator<Item = Key> + Clone,
    ) {
        let age = |key: Key| live.end - 1 - key;
        match &counters.draws {
            // One row stands for all: counting each took a uniform batch of 256 small rows 9 percent longer.
            None => {
                if let Some(key) = keys.nth(self.place(rows)) {
                    self.ages.add(age(key), rows as u64);
                }
            }
            Some(draws) => {
                draws.add(live.start, keys.clone());
                self.ages.add_each(keys.map(age));
            }
        }
    }

    /// The place in the next batch that is looked at. Each comes as often as any other, and by no rule that a sampler, a
    /// ring and a learner in step could share: the next number of a splitmix64 generator (Steele, Lea and Flood, *Fast
    /// Splittable Pseudorandom Number Generators*, 2014), with a generator of its own so that no run depends on it.
    #[inline]
    fn place(&mut self, rows: usize) -> usize {
        self.turn = self.turn.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.turn;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        ((u128::from(x) * rows as u128) >> 64) as usize
    }
}

/// Draws by slot; see the module's documentation.
struct DrawCounts {
    slots: Box<[AtomicU32]>,
    /// No row before it was ever in a slot.
    first: AtomicU64,
}

impl DrawCounts {
    fn new(slots: u64) -> Result<Self, ReplayError> {
        let counts = usize::try_from(slots)
            .ok()
            .and_then(|slots| bytemuck::allocation::try_zeroed_slice_box(slots).ok())
            .ok_or_else(|| ReplayError::Memory {
                rows: slots,
                bytes: Counters::bytes_for(slots.into()),
                source: io::Error::from(io::ErrorKind::OutOfMemory),
            })?;
        Ok(Self { slots: counts, first: AtomicU64::new(0) })
    }

    /// The slot of `key`, which lies less than a lap after `oldest`, whose slot is `first`: found without a division.
    #[inline]
    fn slot(&self, first: usize, oldest: Key, key: Key) -> usize {
        let slot = first + (key - oldest) as usize;
        if slot < self.slots.len() { slot } else { slot - self.slots.len() }
    }

    #[inline]
    fn first_slot(&self, oldest: Key) -> usize {
        (oldest % self.slots.len() as u64) as usize
    }

    /// Counts a draw of each of `keys`, which are pinned and not before `oldest`.
    #[inline]
    fn add(&self, oldest: Key, keys: impl Iterator<Item = Key> + Clone) {
        let first = self.first_slot(oldest);
        let fetch = |key: Key| {
            let draws: *const AtomicU32 = &self.slots[self.slot(first, oldest, key)];
            prefetch(draws.cast(), size_of::<AtomicU32>());
        };
        let mut ahead = keys.clone();
        ahead.by_ref().take(AHEAD).for_each(fetch);
        for key in keys {
            if let Some(key) = ahead.next() {
                fetch(key);
            }
            let draws = &self.slots[self.slot(first, oldest, key)];
            if draws.fetch_add(1, Relaxed) >= MOST_DRAWS {
                draws.store(MOST_DRAWS, Relaxed);
            }
        }
    }

    fn retire(&self, keys: Range<Key>, tally: &Tally) {
        // The row before in the slot of `key` was the one a lap before.
        let second_lap = self.first.load(Relaxed) + self.slots.len() as u64;
        let (oldest, first) = (keys.start, self.first_slot(keys.start));
        for key in keys.start.max(second_lap)..keys.end {
            let draws = &self.slots[self.slot(first, oldest, key)];
            tally.add(draws.load(Relaxed).into(), 1);
            draws.store(0, Relaxed);
        }
    }

    /// Of the rows `live`, and of all before them: those `retired`, and those that are still in their slots.
    fn times(&self, live: Range<Key>, retired: Sum) -> TimesSampled {
        let left = live.end.saturating_sub(self.slots.len() as u64).max(self.first.load(Relaxed));
        let left = left.min(live.start)..live.start;
        let (oldest, first) = (left.start, self.first_slot(left.start));
        let of = |keys: Range<Key>, mut sum: Sum| {
            for key in keys {
                sum.add(self.slots[self.slot(first, oldest, key)].load(Relaxed).into());
            }
            sum.histogram()
        };
        TimesSampled { live: of(live, Sum::default()), overwritten: of(left, retired) }
    }
}

/// A histogram to which one handle adds, and that others read.
pub(crate) struct Tally(CachePadded<Buckets>);

struct Buckets {
    counts: [AtomicU64; BUCKETS],
    /// The sum of what was counted, as the bits of an f64: ages times draws do not fit into 64 bits for long.
    sum: AtomicU64,
}

impl Tally {
    /// Counts `value` so many times. Only the handle that has the tally may call this.
    #[inline]
    fn add(&self, value: u64, times: u64) {
        self.add_to_bucket(value, times);
        self.add_to_sum(value as f64 * times as f64);
    }

    /// Counts each of `values` once; as [`add`](Self::add).
    #[inline]
    fn add_each(&self, values: impl Iterator<Item = u64>) {
        // Of a batch, so it fits. Floats would have to wait for each other.
        let mut sum = 0;
        for value in values {
            self.add_to_bucket(value, 1);
            sum += value;
        }
        self.add_to_sum(sum as f64);
    }

    #[inline]
    fn add_to_bucket(&self, value: u64, times: u64) {
        let count = &self.0.counts[bucket(value)];
        count.store(count.load(Relaxed) + times, Relaxed);
    }

    #[inline]
    fn add_to_sum(&self, sum: f64) {
        let before = f64::from_bits(self.0.sum.load(Relaxed));
        self.0.sum.store((before + sum).to_bits(), Relaxed);
    }

    /// Only while no handle adds.
    fn clear(&self) {
        self.0.counts.iter().chain([&self.0.sum]).for_each(|cell| cell.store(0, Relaxed));
    }
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tally").finish_non_exhaustive()
    }
}

/// The tallies of one kind of handle.
#[derive(Default)]
struct Registry(Mutex<Registered>);

#[derive(Default)]
struct Registered {
    present: Vec<Arc<Tally>>,
    gone: Sum,
}

impl Registry {
    fn tally(&self) -> Arc<Tally> {
        let counts = std::array::from_fn(|_| AtomicU64::new(0));
        let tally = Arc::new(Tally(CachePadded::new(Buckets { counts, sum: AtomicU64::new(0) })));
        self.0.lock().present.push(tally.clone());
        tally
    }

    /// Keeps what was counted in a tally whose handle adds no more.
    fn withdraw(&self, tally: &Arc<Tally>) {
        let Registered { present, gone } = &mut *self.0.lock();
        present.retain(|other| !Arc::ptr_eq(other, tally));
        gone.add_all(tally);
    }

    fn clear(&self) {
        let Registered { present, gone } = &mut *self.0.lock();
        *gone = Sum::default();
        present.iter().for_each(|tally| tally.clear());
    }

    /// What all handles counted.
    fn sum(&self) -> Sum {
        let Registered { present, gone } = &*self.0.lock();
        let mut sum = gone.clone();
        present.iter().for_each(|tally| sum.add_all(tally));
        sum
    }
}

/// A tally of a thread's own.
#[derive(Clone)]
struct Sum {
    counts: [u64; BUCKETS],
    sum: f64,
}

impl Default for Sum {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], sum: 0.0 }
    }
}

impl Sum {
    #[inline]
    fn add(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.sum += value as f64;
    }

    fn add_all(&mut self, tally: &Tally) {
        for (count, more) in self.counts.iter_mut().zip(&tally.0.counts) {
            *count += more.load(Relaxed);
        }
        self.sum += f64::from_bits(tally.0.sum.load(Relaxed));
    }

    fn histogram(&self) -> Histogram {
        Histogram::from_buckets(&self.counts, self.sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_stops_before_it_begins_anew() {
        let draws = DrawCounts::new(3).unwrap();
        draws.slots[1].store(MOST_DRAWS - 1, Relaxed);
        for _ in 0..5 {
            draws.add(4, [4, 5].into_iter());
        }
        let counts: Vec<u32> = draws.slots.iter().map(|draws| draws.load(Relaxed)).collect();
        assert_eq!(counts, [0, MOST_DRAWS, 5]);
    }

    #[test]
    fn places_come_equally_often() {
        let counters = Counters::new(1, false).unwrap();
        let mut drawing = counters.reader();
        let mut counts = [0u32; 7];
        (0..70_000).for_each(|_| counts[drawing.place(7)] += 1);
        // Five standard deviations, of 93.
        assert!(counts.iter().all(|count| count.abs_diff(10_000) < 465), "{counts:?}");
    }
}
