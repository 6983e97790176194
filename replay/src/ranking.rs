//! Numbers in order, of which any may come and go, and which are found by their place in the order.

use crate::ReplayError;

/// Numbers in a block, at most. A full block is split, a small one joined to its neighbour.
const BLOCK: usize = 512;

/// Blocks in a group, at most. Groups are split and joined as blocks are.
const GROUP: usize = 256;

/// A set of numbers, kept in ascending order in blocks of at most 512, and these in groups of at most 256: a tree with
/// wide nodes and three levels.
///
/// Finding a number takes O(log n); finding the one at a place, or the place of one, also adds up the lengths of the
/// groups and of the blocks of one group, side by side in memory: n / 50,000 and 256 additions. Adding or removing a
/// number moves at most 4 KiB within its block; what splitting and joining moves is less than that for each change.
/// Blocks are kept for later use, so that memory stops growing; it is at most 64 bytes a number and commonly 12.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranking {
    /// In ascending order; none is empty.
    groups: Vec<Group>,
    /// The first number of each group, side by side to be searched.
    firsts: Vec<u64>,
    /// How many numbers each group has.
    lens: Vec<usize>,
    len: usize,
    spare: Vec<Vec<u64>>,
}

#[derive(Clone, Debug, Default)]
struct Group {
    /// In ascending order; none is empty.
    blocks: Vec<Vec<u64>>,
    firsts: Vec<u64>,
    lens: Vec<usize>,
}

impl Ranking {
    /// How many numbers there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Takes everything out.
    pub(crate) fn clear(&mut self) {
        for mut group in self.groups.drain(..) {
            self.spare.append(&mut group.blocks);
        }
        self.firsts.clear();
        self.lens.clear();
        self.len = 0;
    }

    /// Replaces everything by `numbers`, which must ascend. O(n).
    ///
    /// # Errors
    /// [`ReplayError::Memory`]; nothing has changed then.
    pub(crate) fn fill(&mut self, numbers: &[u64]) -> Result<(), ReplayError> {
        debug_assert!(numbers.is_sorted());
        let mut fresh = Self { len: numbers.len(), ..Self::default() };
        // Three quarters full, so that the next changes find room.
        let room = BLOCK * 3 / 4;
        for part in numbers.chunks(GROUP * 3 / 4 * room) {
            let mut group = Group::default();
            for part in part.chunks(room) {
                let mut block = Vec::new();
                block.try_reserve_exact(BLOCK).map_err(|_| ReplayError::Memory {
                    rows: numbers.len() as u64,
                    bytes: numbers.len() as u128 * 12,
                    source: std::io::ErrorKind::OutOfMemory.into(),
                })?;
                block.extend_from_slice(part);
                group.push(block);
            }
            fresh.firsts.push(part[0]);
            fresh.lens.push(part.len());
            fresh.groups.push(group);
        }
        *self = fresh;
        Ok(())
    }

    /// Adds a number that is not there yet.
    pub(crate) fn insert(&mut self, number: u64) {
        let (mut of_group, mut at) = self.find(number);
        if self.groups.is_empty() {
            let mut group = Group::default();
            let mut block = spare_block(&mut self.spare);
            block.push(number);
            group.push(block);
            self.groups.push(group);
            self.firsts.push(number);
            self.lens.push(1);
            self.len = 1;
            return;
        }
        if self.groups[of_group].lens[at] == BLOCK {
            if self.groups[of_group].blocks.len() == GROUP {
                self.split_group(of_group);
                (of_group, at) = self.find(number);
            }
            let last = of_group + 1 == self.groups.len();
            let upper = spare_block(&mut self.spare);
            self.groups[of_group].split(at, upper, last);
            (of_group, at) = self.find(number);
        }
        let group = &mut self.groups[of_group];
        let block = &mut group.blocks[at];
        let place = block.partition_point(|other| *other < number);
        debug_assert!(block.get(place) != Some(&number), "a number comes once");
        block.insert(place, number);
        group.firsts[at] = block[0];
        group.lens[at] += 1;
        self.firsts[of_group] = group.firsts[0];
        self.lens[of_group] += 1;
        self.len += 1;
    }

    /// Takes a number out; whether it was there.
    pub(crate) fn remove(&mut self, number: u64) -> bool {
        let (of_group, at) = self.find(number);
        let Some(group) = self.groups.get_mut(of_group) else { return false };
        let block = &mut group.blocks[at];
        let Ok(place) = block.binary_search(&number) else { return false };
        block.remove(place);
        group.lens[at] -= 1;
        self.lens[of_group] -= 1;
        self.len -= 1;
        if let Some(first) = block.first() {
            group.firsts[at] = *first;
        }
        if block.len() < BLOCK / 4
            && let Some(empty) = group.join(at)
        {
            self.spare.push(empty);
        }
        match self.groups[of_group].firsts.first() {
            Some(first) => self.firsts[of_group] = *first,
            None => {
                self.groups.remove(of_group);
                self.firsts.remove(of_group);
                self.lens.remove(of_group);
                return true;
            }
        }
        if self.groups[of_group].blocks.len() < GROUP / 4 {
            self.join_groups(of_group);
        }
        true
    }

    /// The number at `place`, counted from 0 in ascending order, and its neighbours on either side where they are at
    /// hand: in another block they are not.
    ///
    /// # Panics
    /// When there are not so many.
    pub(crate) fn get(&self, place: usize) -> (Option<u64>, u64, Option<u64>) {
        let (of_group, left) = skip(&self.lens, place);
        let group = &self.groups[of_group];
        let (at, left) = skip(&group.lens, left);
        let block = &group.blocks[at];
        (left.checked_sub(1).map(|i| block[i]), block[left], block.get(left + 1).copied())
    }

    /// How many numbers are less than `number`.
    pub(crate) fn below(&self, number: u64) -> usize {
        let (of_group, at) = self.find(number);
        let Some(group) = self.groups.get(of_group) else { return 0 };
        let before = self.lens[..of_group].iter().sum::<usize>() + group.lens[..at].iter().sum::<usize>();
        before + group.blocks[at].partition_point(|other| *other < number)
    }

    /// The group and the block of it that hold `number`, or would.
    fn find(&self, number: u64) -> (usize, usize) {
        let last_from = |firsts: &[u64]| firsts.partition_point(|first| *first <= number).saturating_sub(1);
        let of_group = last_from(&self.firsts);
        (of_group, self.groups.get(of_group).map_or(0, |group| last_from(&group.firsts)))
    }

    fn split_group(&mut self, of_group: usize) {
        let group = &mut self.groups[of_group];
        let keep = group.blocks.len() / 2;
        let upper = Group {
            blocks: group.blocks.split_off(keep),
            firsts: group.firsts.split_off(keep),
            lens: group.lens.split_off(keep),
        };
        let moved = upper.lens.iter().sum::<usize>();
        self.lens[of_group] -= moved;
        self.lens.insert(of_group + 1, moved);
        self.firsts.insert(of_group + 1, upper.firsts[0]);
        self.groups.insert(of_group + 1, upper);
    }

    /// Joins a small group to a neighbour, if both go into three quarters of a group.
    fn join_groups(&mut self, of_group: usize) {
        let blocks = |at: usize| self.groups.get(at).map_or(GROUP, |group| group.blocks.len());
        let fits = |lower: usize| blocks(lower) + blocks(lower + 1) <= GROUP * 3 / 4;
        let Some(lower) =
            [Some(of_group), of_group.checked_sub(1)].into_iter().flatten().find(|at| fits(*at))
        else {
            return;
        };
        let mut upper = self.groups.remove(lower + 1);
        self.firsts.remove(lower + 1);
        self.lens[lower] += self.lens.remove(lower + 1);
        let group = &mut self.groups[lower];
        group.blocks.append(&mut upper.blocks);
        group.firsts.append(&mut upper.firsts);
        group.lens.append(&mut upper.lens);
    }
}

impl Group {
    fn push(&mut self, block: Vec<u64>) {
        self.firsts.push(block[0]);
        self.lens.push(block.len());
        self.blocks.push(block);
    }

    /// Moves the upper part of a full block to `upper`. `last` tells whether no group comes after this one.
    fn split(&mut self, at: usize, mut upper: Vec<u64>, last: bool) {
        // At the end, where new rows come in ascending order, a block stays full instead of half empty for ever.
        let keep = if last && at + 1 == self.blocks.len() { BLOCK * 7 / 8 } else { BLOCK / 2 };
        upper.extend(self.blocks[at].drain(keep..));
        self.lens[at] = keep;
        self.firsts.insert(at + 1, upper[0]);
        self.lens.insert(at + 1, upper.len());
        self.blocks.insert(at + 1, upper);
    }

    /// Joins a small block to a neighbour, if both go into three quarters of a block, and returns one for later use.
    fn join(&mut self, at: usize) -> Option<Vec<u64>> {
        let len = |at: usize| self.lens.get(at).copied().unwrap_or(BLOCK);
        let fits = |lower: usize| len(lower) + len(lower + 1) <= BLOCK * 3 / 4;
        let neighbours = [Some(at), at.checked_sub(1)].into_iter().flatten();
        // An empty block that fits to none, being alone or between full ones, goes too.
        let lower = neighbours.clone().find(|at| fits(*at));
        if lower.is_none() && self.lens[at] > 0 {
            return None;
        }
        let gone = lower.map_or(at, |lower| lower + 1);
        let mut block = self.blocks.remove(gone);
        self.firsts.remove(gone);
        let moved = self.lens.remove(gone);
        if let Some(lower) = lower {
            self.blocks[lower].append(&mut block);
            self.lens[lower] += moved;
            self.firsts[lower] = self.blocks[lower][0];
        }
        Some(block)
    }
}

/// In which of the parts of these lengths a place lies, and where in it.
fn skip(lens: &[usize], mut place: usize) -> (usize, usize) {
    let is_here = |len: &usize| {
        let here = place < *len;
        if !here {
            place -= len;
        }
        here
    };
    let at = lens.iter().position(is_here).expect("there are as many numbers");
    (at, place)
}

fn spare_block(spare: &mut Vec<Vec<u64>>) -> Vec<u64> {
    let mut block = spare.pop().unwrap_or_else(|| Vec::with_capacity(BLOCK));
    block.clear();
    block
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
        let (mut blocks, mut len) = (0, 0);
        for (at, group) in ranking.groups.iter().enumerate() {
            let lens: Vec<usize> = group.blocks.iter().map(Vec::len).collect();
            let firsts: Vec<u64> = group.blocks.iter().map(|block| block[0]).collect();
            assert!(lens.iter().all(|len| *len <= BLOCK) && (1..=GROUP).contains(&lens.len()));
            assert_eq!((&lens, &firsts), (&group.lens, &group.firsts));
            assert_eq!((ranking.lens[at], ranking.firsts[at]), (lens.iter().sum(), firsts[0]));
            blocks += lens.len();
            len += ranking.lens[at];
        }
        assert_eq!(
            (len, ranking.lens.len(), ranking.firsts.len()),
            (ranking.len, ranking.groups.len(), ranking.groups.len())
        );
        assert!(blocks <= 1 + ranking.groups.len() + sorted.len() / (BLOCK / 8), "blocks are not too empty");
        assert!(ranking.groups.len() <= 1 + sorted.len() / (BLOCK / 8 * GROUP / 8), "nor are groups");
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

    /// So many that groups are split, and so few afterwards that they are joined.
    #[test]
    fn groups_come_and_go() {
        let mut rng = Rng::seed_from_u64(18);
        let (mut ranking, mut model) = (Ranking::default(), BTreeSet::new());
        for _ in 0..400_000 {
            let number = rng.random_range(0..1 << 40);
            if model.insert(number) {
                ranking.insert(number);
            }
        }
        assert!(ranking.groups.len() > 4);
        agree(&ranking, &model, 1 << 39);
        for (index, number) in model.clone().into_iter().enumerate() {
            if index % 200 != 0 {
                assert!(ranking.remove(number) && model.remove(&number));
            }
        }
        agree(&ranking, &model, 1 << 38);
        let sorted: Vec<u64> = (0..300_000).map(|i| i * 3).collect();
        ranking.fill(&sorted).unwrap();
        ranking.insert(1);
        agree(&ranking, &sorted.iter().copied().chain([1]).collect(), 1000);
        assert!(!ranking.remove(2));
        for number in sorted.iter().chain(&[1]) {
            assert!(ranking.remove(*number));
        }
        agree(&ranking, &BTreeSet::new(), 0);
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
