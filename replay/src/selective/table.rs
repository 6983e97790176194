//! The rows, and the orders in which they are drawn and removed: all that the lock guards.

use super::heap::Heap;
use super::key_index::KeyIndex;
use super::{Removal, Selection, SelectiveStatistics};
use crate::copy::prefetch;
use crate::sum_tree::SumTree;
use crate::{Key, Prioritized, ReplayError};
use rand::RngExt;
use rl_minibatch::{Drawn, Rng, SampleError, Updated, check_magnitudes, powers};
use std::sync::Arc;

/// A row's bytes, all fields side by side.
pub(super) type Row = Arc<[u8]>;

/// No slot.
const NONE: u32 = u32::MAX;

/// What a table does with its rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) capacity: usize,
    pub(super) selection: Selection,
    pub(super) removal: Removal,
    pub(super) expire_after: Option<u32>,
}

impl Rules {
    /// Where rows are kept by priority: lowest first, highest first.
    fn heaps(&self) -> (bool, bool) {
        let lowest = self.selection == Selection::LowestPriority || self.removal == Removal::LowestPriority;
        let highest =
            self.selection == Selection::HighestPriority || self.removal == Removal::HighestPriority;
        (lowest, highest)
    }

    /// Whether a priority makes a difference.
    pub(super) fn use_priorities(&self) -> bool {
        let (lowest, highest) = self.heaps();
        lowest || highest || matches!(self.selection, Selection::Proportional(_))
    }

    /// Slots: a row comes in before another one goes.
    fn slots(&self) -> usize {
        self.capacity + 1
    }

    /// Bytes of the bookkeeping for a table of `capacity` rows.
    pub(super) fn bytes_for(&self, capacity: u64) -> u128 {
        let slots = capacity.saturating_add(1);
        let (lowest, highest) = self.heaps();
        let heaps = usize::from(lowest) + usize::from(highest);
        let tree = match self.selection {
            Selection::Proportional(_) => SumTree::bytes_for(slots),
            _ => 0,
        };
        u128::from(slots) * (size_of::<Slot>() + heaps * Heap::SLOT_BYTES) as u128
            + u128::from(KeyIndex::bytes_for(slots))
            + u128::from(tree)
    }

    /// The most draws that a full table has left.
    pub(super) fn most_draws(&self) -> u64 {
        self.expire_after.map_or(u64::MAX, |draws| u64::from(draws) * self.capacity as u64)
    }
}

/// A row and what is known of it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) row: Row,
    pub(super) key: Key,
    /// |δ| or whatever the user goes by; 0 is never negative.
    pub(super) magnitude: f32,
    /// How often it was drawn.
    pub(super) draws: u32,
    /// The next rows by age.
    older: u32,
    newer: u32,
}

/// Draws by priority.
#[derive(Debug)]
struct Weights {
    settings: Prioritized,
    /// A leaf for each slot, (magnitude + ε)^α, and 0 beyond.
    tree: SumTree,
    masses: Vec<f64>,
}

impl Weights {
    fn of(&self, magnitude: f32) -> f64 {
        let mut weight = [f64::from(magnitude) + self.settings.epsilon];
        powers(&mut weight, self.settings.alpha);
        weight[0]
    }
}

/// The slots are 0..n without gaps: where a row goes, the last one takes its place. So a uniform draw is a random
/// number, and the order of the slots is all there is to save.
#[derive(Debug)]
pub(super) struct Table {
    rules: Rules,
    slots: Vec<Slot>,
    index: KeyIndex,
    oldest: u32,
    newest: u32,
    lowest: Option<Heap>,
    highest: Option<Heap>,
    weights: Option<Weights>,
    /// For random removal.
    pub(super) rng: Rng,
    /// The largest magnitude there has been, and 1 at first.
    pub(super) largest: f32,
    /// Draws that the rows have left before they expire, of those rows that can be drawn; if rows expire.
    left: u64,
    pub(super) counts: SelectiveStatistics,
}

impl Table {
    pub(super) fn new(rules: Rules, rng: Rng) -> Result<Self, ReplayError> {
        let slots = rules.slots();
        let no_memory = || ReplayError::Memory {
            rows: rules.capacity as u64,
            bytes: rules.bytes_for(rules.capacity as u64),
            source: std::io::ErrorKind::OutOfMemory.into(),
        };
        let heap = |wanted: bool| wanted.then(|| Heap::new(slots)).transpose().map_err(|_| no_memory());
        let (lowest, highest) = rules.heaps();
        let weights = match rules.selection {
            Selection::Proportional(settings) => {
                Some(Weights { settings, tree: SumTree::new(slots)?, masses: Vec::new() })
            }
            _ => None,
        };
        let mut rows = Vec::new();
        rows.try_reserve_exact(slots).map_err(|_| no_memory())?;
        Ok(Self {
            rules,
            slots: rows,
            index: KeyIndex::new(slots).ok_or_else(no_memory)?,
            oldest: NONE,
            newest: NONE,
            lowest: heap(lowest)?,
            highest: heap(highest)?,
            weights,
            rng,
            largest: 1.0,
            left: 0,
            counts: SelectiveStatistics::default(),
        })
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Draws that can still be made without inserting.
    pub(super) fn left(&self) -> u64 {
        if self.rules.expire_after.is_some() { self.left } else { u64::MAX }
    }

    /// The slot of a key.
    pub(super) fn find(&self, key: Key) -> Option<usize> {
        self.index.get(key, |slot| self.slots[slot as usize].key).map(|slot| slot as usize)
    }

    /// The keys, the oldest first.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        let slot = |slot: u32| self.slots.get(slot as usize);
        std::iter::successors(slot(self.oldest), move |row| slot(row.newer)).map(|row| row.key)
    }

    /// Inserts a row, with the largest magnitude there has been unless another is given. Returns its key, and the row that
    /// had to go.
    pub(super) fn insert(&mut self, row: Row, magnitude: Option<f32>) -> (Key, Option<Row>) {
        let key = self.counts.inserted;
        self.counts.inserted += 1;
        // 0 is added so that -0 is 0.
        let magnitude = magnitude.map_or(self.largest, |magnitude| magnitude + 0.0);
        self.largest = self.largest.max(magnitude);
        self.add(row, key, magnitude, 0);
        if self.slots.len() <= self.rules.capacity {
            return (key, None);
        }
        let victim = match self.rules.removal {
            Removal::OldestFirst => self.oldest,
            Removal::NewestFirst => self.newest,
            Removal::LowestPriority => first(&self.lowest),
            Removal::HighestPriority => first(&self.highest),
            Removal::Uniform { .. } => self.rng.random_range(0..self.slots.len() as u32),
        };
        self.counts.removed_for_room += 1;
        (key, Some(self.remove(victim)))
    }

    /// Adds a row as the newest one.
    pub(super) fn add(&mut self, row: Row, key: Key, magnitude: f32, draws: u32) {
        let slot = self.slots.len() as u32;
        // Its own slot is not looked at, for it is not noted yet.
        self.index.set(key, slot, |slot| self.slots[slot as usize].key);
        self.slots.push(Slot { row, key, magnitude, draws, older: self.newest, newer: NONE });
        match self.slots.get_mut(self.newest as usize) {
            Some(before) => before.newer = slot,
            None => self.oldest = slot,
        }
        self.newest = slot;
        if let Some(heap) = &mut self.lowest {
            heap.push(magnitude, key);
        }
        if let Some(heap) = &mut self.highest {
            heap.push(-magnitude, key);
        }
        if let Some(weights) = &mut self.weights {
            let weight = weights.of(magnitude);
            weights.tree.set_all([(slot as usize, weight)].into_iter());
        }
        self.left += self.draws_left(slot);
        self.counts.times_sampled[times_bin(draws)] += 1;
    }

    /// Puts rows that were added in another order into that of their keys.
    pub(super) fn sort_by_age(&mut self) {
        let mut order: Vec<u32> = (0..self.slots.len() as u32).collect();
        order.sort_unstable_by_key(|slot| self.slots[*slot as usize].key);
        let mut before = NONE;
        for slot in order {
            self.join(before, slot);
            before = slot;
        }
        self.join(before, NONE);
    }

    /// Draws that a row has left before it expires; none if it cannot be drawn.
    fn draws_left(&self, slot: u32) -> u64 {
        let Slot { magnitude, draws, .. } = self.slots[slot as usize];
        let drawable = match self.rules.selection {
            // Only 0 has the power 0, unless α is 0.
            Selection::Proportional(Prioritized { alpha, epsilon }) => {
                alpha == 0.0 || f64::from(magnitude) + epsilon > 0.0
            }
            _ => true,
        };
        match self.rules.expire_after {
            Some(most) if drawable => u64::from(most - draws),
            _ => 0,
        }
    }

    fn remove(&mut self, slot: u32) -> Row {
        self.left -= self.draws_left(slot);
        let (at, last) = (slot as usize, self.slots.len() - 1);
        let Slot { key, draws, older, newer, .. } = self.slots[at];
        self.counts.times_sampled[times_bin(draws)] -= 1;
        let key_of = |slot: u32| self.slots[slot as usize].key;
        self.index.remove(key, key_of);
        if at < last {
            self.index.set(self.slots[last].key, slot, key_of);
        }
        self.join(older, newer);
        if let Some(heap) = &mut self.lowest {
            heap.swap_remove(slot);
        }
        if let Some(heap) = &mut self.highest {
            heap.swap_remove(slot);
        }
        if let Some(Weights { tree, .. }) = &mut self.weights {
            // Of one and the same slot the later weight counts.
            let moved = tree.get(last);
            tree.set_all([(at, moved), (last, 0.0)].into_iter());
        }
        let Slot { row, .. } = self.slots.swap_remove(at);
        if let Some(&Slot { older, newer, .. }) = self.slots.get(at) {
            self.join(older, slot);
            self.join(slot, newer);
        }
        row
    }

    /// Makes two slots neighbours by age; `NONE` is the end.
    fn join(&mut self, older: u32, newer: u32) {
        match self.slots.get_mut(older as usize) {
            Some(row) => row.newer = newer,
            None => self.oldest = newer,
        }
        match self.slots.get_mut(newer as usize) {
            Some(row) => row.older = older,
            None => self.newest = older,
        }
    }

    /// Draws rows one after the other; each one that has been drawn often enough goes before the next draw.
    pub(super) fn draw(
        &mut self,
        rng: &mut Rng,
        count: usize,
        drawn: &mut Drawn,
        rows: &mut Vec<Row>,
    ) -> Result<(), ReplayError> {
        if self.slots.is_empty() {
            return Err(SampleError::Empty.into());
        }
        if self.weights.as_ref().is_some_and(|weights| weights.tree.total() <= 0.0) {
            return Err(SampleError::NoMass.into());
        }
        if self.left() < count as u64 {
            let (left, most) = (self.left, self.rules.most_draws());
            return Err(ReplayError::DrawsLeft { asked: count, left, most });
        }
        let population = self.slots.len() as u64;
        drawn.population = population;
        drawn.lowest = (self.rules.selection == Selection::Uniform).then(|| 1.0 / population as f64);
        drawn.rows.clear();
        drawn.probabilities.clear();
        rows.clear();
        // Up to where a row goes all draws are alike, so they are made together, and what was drawn behind that place is
        // forgotten. Rows that go after n draws go about once in n draws, so about half of the work is kept at the worst.
        let together = self.rules.expire_after.map_or(count, |draws| count.min(draws as usize));
        while rows.len() < count {
            self.choose(rng, together.min(count - rows.len()), drawn);
            self.take_all(drawn, rows);
            drawn.rows.truncate(rows.len());
            drawn.probabilities.truncate(rows.len());
        }
        Ok(())
    }

    /// Appends `count` slots to `drawn.rows`, as they are drawn from the rows that are there now, and their probabilities.
    fn choose(&mut self, rng: &mut Rng, count: usize, drawn: &mut Drawn) {
        let only = match (self.rules.selection, &mut self.weights) {
            (Selection::Proportional(_), Some(Weights { tree, masses, .. })) => {
                let total = tree.total();
                masses.clear();
                masses.extend((0..count).map(|_| rng.random::<f64>() * total));
                tree.find_all(masses, |_, slot| {
                    drawn.rows.push(slot as u64);
                    drawn.probabilities.push(tree.get(slot) / total);
                });
                return;
            }
            // A proportional table has weights.
            (Selection::Uniform | Selection::Proportional(_), _) => {
                let there = self.slots.len();
                drawn.rows.extend((0..count).map(|_| u64::from(rng.random_range(0..there as u32))));
                drawn.probabilities.extend(std::iter::repeat_n(1.0 / there as f64, count));
                return;
            }
            (Selection::OldestFirst, _) => self.oldest,
            (Selection::NewestFirst, _) => self.newest,
            (Selection::LowestPriority, _) => first(&self.lowest),
            (Selection::HighestPriority, _) => first(&self.highest),
        };
        drawn.rows.extend(std::iter::repeat_n(u64::from(only), count));
        drawn.probabilities.extend(std::iter::repeat_n(1.0, count));
    }

    /// Takes the rows of those slots in `drawn.rows` that are not in `rows` yet, up to the first that is removed by it. The
    /// slots of those taken become keys.
    fn take_all(&mut self, drawn: &mut Drawn, rows: &mut Vec<Row>) {
        let slots = &mut drawn.rows[rows.len()..];
        // Slots first, then what they refer to: so the cache misses of a batch overlap.
        for slot in slots.iter() {
            prefetch(std::ptr::from_ref(&self.slots[*slot as usize]).cast(), size_of::<Slot>());
        }
        for slot in slots.iter() {
            let row = &self.slots[*slot as usize].row;
            // The count of those who hold it lies before the bytes.
            let holders = 2 * size_of::<usize>();
            prefetch(row.as_ptr().wrapping_sub(holders), holders + row.len());
        }
        let there = self.slots.len();
        for slot in slots {
            let at = *slot as u32;
            *slot = self.slots[at as usize].key;
            rows.push(self.take(at));
            if self.slots.len() < there {
                return;
            }
        }
    }

    /// Counts a draw of `slot`, and removes it if that was its last one.
    fn take(&mut self, slot: u32) -> Row {
        let row = &mut self.slots[slot as usize];
        let before = row.draws;
        row.draws = before.saturating_add(1);
        let draws = row.draws;
        self.counts.sampled += 1;
        if draws.is_power_of_two() && draws > before {
            self.counts.times_sampled[times_bin(before)] -= 1;
            self.counts.times_sampled[times_bin(draws)] += 1;
        }
        if let Some(most) = self.rules.expire_after {
            self.left -= 1;
            if draws == most {
                self.counts.removed_expired += 1;
                return self.remove(slot);
            }
        }
        self.slots[slot as usize].row.clone()
    }

    /// Sets the magnitudes of rows; those that are gone are dropped and counted.
    pub(super) fn update(&mut self, keys: &[Key], magnitudes: &[f32]) -> Result<Updated, SampleError> {
        if !self.rules.use_priorities() {
            return Err(SampleError::NoPriorities);
        }
        check_magnitudes(keys, magnitudes)?;
        let rows = keys.iter().copied().zip(magnitudes.iter().copied());
        let mut applied = 0;
        let mut apply = |table: &mut Self, key: Key, magnitude: f32| {
            let at = table.find(key)?;
            table.set_magnitude(at, magnitude);
            applied += 1;
            Some(at)
        };
        // Taken out, so that the tree can ask for one row after the other.
        let mut weights = self.weights.take();
        match &mut weights {
            None => rows.for_each(|(key, magnitude)| {
                apply(self, key, magnitude);
            }),
            Some(Weights { settings, tree, masses }) => {
                masses.clear();
                masses.extend(magnitudes.iter().map(|magnitude| f64::from(*magnitude) + settings.epsilon));
                powers(masses, settings.alpha);
                let weighed = rows.zip(masses.iter());
                tree.set_all(
                    weighed.filter_map(|((key, magnitude), weight)| {
                        Some((apply(self, key, magnitude)?, *weight))
                    }),
                );
            }
        }
        self.weights = weights;
        let updated = Updated { applied, stale: keys.len() - applied };
        self.counts.stale_priorities += updated.stale as u64;
        Ok(updated)
    }

    /// Everything but the weight, which is set for a whole batch.
    fn set_magnitude(&mut self, at: usize, magnitude: f32) {
        let magnitude = magnitude + 0.0;
        self.largest = self.largest.max(magnitude);
        self.left -= self.draws_left(at as u32);
        self.slots[at].magnitude = magnitude;
        self.left += self.draws_left(at as u32);
        if let Some(heap) = &mut self.lowest {
            heap.set(at as u32, magnitude);
        }
        if let Some(heap) = &mut self.highest {
            heap.set(at as u32, -magnitude);
        }
    }
}

/// The slot that comes first in a heap that there is, of rows that there are.
fn first(heap: &Option<Heap>) -> u32 {
    heap.as_ref().and_then(Heap::first).expect("made with the table, and rows are in it")
}

/// Where in [`SelectiveStatistics::times_sampled`] a row is counted.
fn times_bin(draws: u32) -> usize {
    (u32::BITS - draws.leading_zeros()) as usize
}
