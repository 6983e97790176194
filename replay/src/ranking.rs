//! Numbers in order, of which any may come and go, and which are found by their place in the order.

use crate::ReplayError;

/// Numbers in a block, at most. A full block is split, a small one joined to its neighbour.
const BLOCK: usize = 512;

/// A set of numbers, kept in ascending order in blocks of at most 512, with counts over the blocks.
///
/// Finding a number, or the one at a place, takes O(log n). Adding or removing one also moves at most 4 KiB within
/// its block. A block is split or joined once in 128 changes at most, which costs O(n / 512): up to 10⁸ numbers less than
/// the change itself. Blocks are kept for later use, so that memory stops growing; it is at most 64 bytes a number
/// and commonly 12.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranking {
    /// In ascending order; none is empty.
    blocks: Vec<Vec<u64>>,
    /// The first number of each block, side by side to be searched.
    firsts: Vec<u64>,
    /// Fenwick's tree over the lengths of the blocks: entry i covers the lowest set bit of i + 1 blocks up to block i
    /// (Fenwick, *A New Data Structure for Cumulative Frequency Tables*, 1994).
    counts: Vec<usize>,
    len: usize,
    spare: Vec<Vec<u64>>,
}

impl Ranking {
    /// How many numbers there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Takes everything out.
    pub(crate) fn clear(&mut self) {
        self.spare.append(&mut self.blocks);
        self.firsts.clear();
        self.counts.clear();
        self.len = 0;
    }

    /// Replaces everything by `numbers`, which must ascend. O(n).
    ///
    /// # Errors
    /// [`ReplayError::Memory`]; nothing has changed then.
    pub(crate) fn fill(&mut self, numbers: &[u64]) -> Result<(), ReplayError> {
        debug_assert!(numbers.is_sorted());
        let mut fresh = Self::default();
        // Three quarters full, so that the next changes find room.
        for part in numbers.chunks(BLOCK * 3 / 4) {
            let mut block = Vec::new();
            block.try_reserve_exact(BLOCK).map_err(|_| ReplayError::Memory {
                rows: numbers.len() as u64,
                bytes: numbers.len() as u128 * 12,
                source: std::io::ErrorKind::OutOfMemory.into(),
            })?;
            block.extend_from_slice(part);
            fresh.firsts.push(part[0]);
            fresh.blocks.push(block);
        }
        fresh.len = numbers.len();
        fresh.recount(0);
        *self = fresh;
        Ok(())
    }

    /// Adds a number that is not there yet.
    pub(crate) fn insert(&mut self, number: u64) {
        if self.blocks.is_empty() {
            let block = self.spare_block();
            self.blocks.push(block);
            self.firsts.push(number);
            self.counts.push(0);
        }
        let mut at = self.block_of(number);
        if self.blocks[at].len() == BLOCK {
            self.split(at);
            at = self.block_of(number);
        }
        let block = &mut self.blocks[at];
        let place = block.partition_point(|other| *other < number);
        debug_assert!(block.get(place) != Some(&number), "a number comes once");
        block.insert(place, number);
        self.firsts[at] = block[0];
        self.count(at, 1);
        self.len += 1;
    }

    /// Takes a number out; whether it was there.
    pub(crate) fn remove(&mut self, number: u64) -> bool {
        if self.blocks.is_empty() {
            return false;
        }
        let at = self.block_of(number);
        let block = &mut self.blocks[at];
        let Ok(place) = block.binary_search(&number) else { return false };
        block.remove(place);
        self.count(at, usize::MAX); // minus one, wrapping
        self.len -= 1;
        if let Some(first) = self.blocks[at].first() {
            self.firsts[at] = *first;
        }
        if self.blocks[at].len() < BLOCK / 4 {
            self.join(at);
        }
        true
    }

    /// The number at `place`, counted from 0 in ascending order, and its neighbours on either side where they are at
    /// hand: in another block they are not.
    ///
    /// # Panics
    /// When there are not so many.
    pub(crate) fn get(&self, place: usize) -> (Option<u64>, u64, Option<u64>) {
        assert!(place < self.len);
        let (mut at, mut left) = (0, place);
        let mut step = (self.counts.len() + 1).next_power_of_two() / 2;
        while step > 0 {
            if let Some(count) = self.counts.get(at + step - 1)
                && *count <= left
            {
                left -= count;
                at += step;
            }
            step /= 2;
        }
        let block = &self.blocks[at];
        (left.checked_sub(1).map(|i| block[i]), block[left], block.get(left + 1).copied())
    }

    /// How many numbers are less than `number`.
    pub(crate) fn below(&self, number: u64) -> usize {
        if self.blocks.is_empty() {
            return 0;
        }
        let at = self.block_of(number);
        let (mut sum, mut node) = (self.blocks[at].partition_point(|other| *other < number), at);
        while node > 0 {
            sum += self.counts[node - 1];
            node &= node - 1;
        }
        sum
    }

    /// The block that holds `number`, or would.
    fn block_of(&self, number: u64) -> usize {
        self.firsts.partition_point(|first| *first <= number).saturating_sub(1)
    }

    /// Adds to the count of a block.
    fn count(&mut self, at: usize, change: usize) {
        let mut node = at + 1;
        while let Some(count) = self.counts.get_mut(node - 1) {
            *count = count.wrapping_add(change);
            node += node & node.wrapping_neg();
        }
    }

    /// Computes the counts anew, from block `from` on. O(blocks).
    fn recount(&mut self, from: usize) {
        self.counts.resize(self.blocks.len(), 0);
        for at in from..self.blocks.len() {
            // What a node covers: its own block, and the nodes below it, which lie before it.
            let (mut sum, mut below) = (self.blocks[at].len(), at);
            let covered_from = (at + 1) & at;
            while below > covered_from {
                sum += self.counts[below - 1];
                below &= below - 1;
            }
            self.counts[at] = sum;
        }
    }

    fn spare_block(&mut self) -> Vec<u64> {
        self.spare.pop().map_or_else(
            || Vec::with_capacity(BLOCK),
            |mut block| {
                block.clear();
                block
            },
        )
    }

    fn split(&mut self, at: usize) {
        let mut upper = self.spare_block();
        // At the end, where new rows come in ascending order, a block stays full instead of half empty for ever.
        let keep = if at + 1 == self.blocks.len() { BLOCK * 7 / 8 } else { BLOCK / 2 };
        upper.extend(self.blocks[at].drain(keep..));
        self.firsts.insert(at + 1, upper[0]);
        self.blocks.insert(at + 1, upper);
        self.recount(at);
    }

    /// Joins a small block to a neighbour, if both go into three quarters of a block.
    fn join(&mut self, at: usize) {
        let fits = |lower: usize| {
            lower + 1 < self.blocks.len()
                && self.blocks[lower].len() + self.blocks[lower + 1].len() <= BLOCK * 3 / 4
        };
        let lower = if fits(at) {
            at
        } else if at > 0 && fits(at - 1) {
            at - 1
        } else if self.blocks[at].is_empty() {
            // The last one of all, or between two full ones.
            let block = self.blocks.remove(at);
            self.spare.push(block);
            self.firsts.remove(at);
            self.recount(at);
            return;
        } else {
            return;
        };
        let mut upper = self.blocks.remove(lower + 1);
        self.firsts.remove(lower + 1);
        self.blocks[lower].append(&mut upper);
        self.spare.push(upper);
        self.firsts[lower] = self.blocks[lower][0];
        self.recount(lower);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rl_minibatch::Rng;
    use std::collections::BTreeSet;

    fn agree(ranking: &Ranking, model: &BTreeSet<u64>, asked: u64) {
        assert_eq!(ranking.len(), model.len());
        assert_eq!(ranking.below(asked), model.range(..asked).count());
        let sorted: Vec<u64> = model.iter().copied().collect();
        for place in 0..sorted.len() {
            let (before, number, after) = ranking.get(place);
            assert_eq!(number, sorted[place]);
            assert!(before.is_none_or(|before| before == sorted[place - 1]));
            assert!(after.is_none_or(|after| after == sorted[place + 1]));
        }
        assert!(ranking.blocks.iter().all(|block| !block.is_empty() && block.len() <= BLOCK));
        assert!(ranking.blocks.len() <= 1 + sorted.len() / (BLOCK / 8), "blocks are not too empty");
    }

    /// Growing, shrinking and growing again, against a set of the standard library's.
    #[test]
    fn places_are_those_of_a_sorted_set() {
        let mut rng = Rng::seed_from_u64(17);
        let (mut ranking, mut model) = (Ranking::default(), BTreeSet::new());
        for (rounds, insertions) in [(6_000, 0.9), (9_000, 0.1), (3_000, 0.0), (5_000, 0.7), (9_000, 0.45)] {
            for round in 0..rounds {
                let number = rng.random_range(0..20_000);
                if rng.random_bool(insertions) {
                    if model.insert(number) {
                        ranking.insert(number);
                    }
                } else {
                    // Mostly one that is there.
                    let number = model.range(number..).next().copied().unwrap_or(number);
                    assert_eq!(ranking.remove(number), model.remove(&number));
                }
                if round % 500 == 0 {
                    agree(&ranking, &model, number);
                }
            }
            agree(&ranking, &model, 10_000);
        }
        let sorted: Vec<u64> = model.iter().copied().collect();
        ranking.clear();
        agree(&ranking, &BTreeSet::new(), 3);
        ranking.fill(&sorted).unwrap();
        agree(&ranking, &model, 10_000);
    }

    proptest! {
        #[test]
        fn small_sets_too(ops in prop::collection::vec((any::<bool>(), 0u64..12), 0..60)) {
            let (mut ranking, mut model) = (Ranking::default(), BTreeSet::new());
            for (insert, number) in ops {
                if !insert {
                    prop_assert_eq!(ranking.remove(number), model.remove(&number));
                } else if model.insert(number) {
                    ranking.insert(number);
                }
                agree(&ranking, &model, number);
            }
        }
    }
}
