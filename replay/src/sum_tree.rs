//! Prefix sums over many weights, of which any may change: O(log₁₆ n) to change one or to find one.

use crate::ReplayError;
use crate::copy::prefetch;
use crate::zeroed::Zeroed;
use std::ops::Range;

/// Children of a node.
const WIDTH: usize = 16;
/// Walks down the tree that go together.
const LOCKSTEP: usize = 32;

/// Weights at the leaves, and above them the sum of every 16 nodes of the level below.
///
/// A sum is always computed anew from its children and never corrected by a difference, so sums do not drift however
/// many updates there are: each is what adding its children gives, and the tree's state is a function of its leaves.
#[derive(Clone, Debug)]
pub(crate) struct SumTree {
    leaves: usize,
    /// Level 0 holds the leaves, the last level at most `WIDTH` nodes; each is filled up with zeros to whole groups. A
    /// group begins on a cache line, so that reading one touches two lines and not three.
    levels: Vec<Zeroed<f64>>,
    /// Scratch: the nodes of a level whose sums change.
    touched: Vec<usize>,
}

impl SumTree {
    /// `leaves` weights, all 0. Their memory is taken when they are first set.
    ///
    /// # Errors
    /// [`ReplayError::Memory`].
    pub(crate) fn new(leaves: usize) -> Result<Self, ReplayError> {
        let mut levels = Vec::new();
        let mut nodes = leaves;
        loop {
            let padded = nodes.checked_next_multiple_of(WIDTH).unwrap_or(usize::MAX);
            levels.push(Zeroed::new(padded).map_err(|source| ReplayError::Memory {
                rows: leaves as u64,
                bytes: padded as u128 * size_of::<f64>() as u128,
                source,
            })?);
            if nodes <= WIDTH {
                return Ok(Self { leaves, levels, touched: Vec::new() });
            }
            nodes = nodes.div_ceil(WIDTH);
        }
    }

    /// Bytes of a tree of so many leaves.
    pub(crate) fn bytes_for(leaves: u64) -> u64 {
        let (mut nodes, mut bytes) = (leaves, 0u64);
        loop {
            let padded = nodes.checked_next_multiple_of(WIDTH as u64).unwrap_or(u64::MAX);
            bytes = bytes.saturating_add(padded.saturating_mul(size_of::<f64>() as u64));
            if nodes <= WIDTH as u64 {
                return bytes;
            }
            nodes = nodes.div_ceil(WIDTH as u64);
        }
    }

    /// The number of weights.
    pub(crate) fn leaves(&self) -> usize {
        self.leaves
    }

    /// The sum of all weights.
    pub(crate) fn total(&self) -> f64 {
        sum(group(self.levels.last().expect("a tree has a level"), 0))
    }

    /// The weight at `leaf`.
    pub(crate) fn get(&self, leaf: usize) -> f64 {
        self.levels[0][leaf]
    }

    /// Sets one weight, finite and at least 0, and the sums above it.
    #[cfg(test)]
    pub(crate) fn set(&mut self, leaf: usize, weight: f64) {
        self.set_all(std::iter::once((leaf, weight)));
    }

    /// Sets weights, each finite and at least 0; of a leaf that comes more than once the last wins. Then the sums above
    /// them, level by level: leaves next to each other share most of that work.
    pub(crate) fn set_all(&mut self, weights: impl Iterator<Item = (usize, f64)>) {
        let Self { leaves, levels, touched } = self;
        touched.clear();
        let weights_there: &mut [f64] = &mut levels[0];
        for (leaf, weight) in weights {
            debug_assert!(leaf < *leaves && weight.is_finite() && weight >= 0.0);
            weights_there[leaf] = weight;
            touched.push(leaf);
        }
        for level in 1..levels.len() {
            let (below, above) = levels.split_at_mut(level);
            let (below, above): (&[f64], &mut [f64]) = (&below[level - 1], &mut above[0]);
            touched.iter_mut().for_each(|node| *node /= WIDTH);
            touched.dedup();
            for &node in touched.iter() {
                above[node] = sum(group(below, node * WIDTH));
            }
        }
    }

    /// Sets the weights of leaves that follow each other.
    pub(crate) fn fill(&mut self, leaves: Range<usize>, weight: f64) {
        if leaves.is_empty() {
            return;
        }
        self.levels[0][leaves.clone()].fill(weight);
        let (mut first, mut last) = (leaves.start, leaves.end - 1);
        for level in 1..self.levels.len() {
            let (below, above) = self.levels.split_at_mut(level);
            let (below, above): (&[f64], &mut [f64]) = (&below[level - 1], &mut above[0]);
            (first, last) = (first / WIDTH, last / WIDTH);
            for (node, above) in (first..=last).zip(&mut above[first..]) {
                *above = sum(group(below, node * WIDTH));
            }
        }
    }

    /// The leaf in whose share of the running sum `mass` lies: the first one whose prefix sum exceeds it.
    ///
    /// A leaf of weight 0 is never found, whatever rounding does to `mass`: where it runs over the end of a group, the
    /// last leaf there with a weight is taken. The total must be above 0, and `mass` in 0..total.
    pub(crate) fn find(&self, mass: f64) -> usize {
        let mut leaf = 0;
        self.find_all(&mut [mass], |_, found| leaf = found);
        leaf
    }

    /// Finds the leaf of each of `masses`, which are overwritten, and tells `found` its place and the leaf, in order.
    ///
    /// A few walks go down level by level together, so that their cache misses overlap.
    pub(crate) fn find_all(&self, masses: &mut [f64], mut found: impl FnMut(usize, usize)) {
        for (block, masses) in masses.chunks_mut(LOCKSTEP).enumerate() {
            let mut nodes = [0; LOCKSTEP];
            let nodes = &mut nodes[..masses.len()];
            for (height, level) in self.levels.iter().enumerate().rev() {
                let level: &[f64] = level;
                let below = height.checked_sub(1).map(|below| &self.levels[below][..]);
                for (node, mass) in nodes.iter_mut().zip(masses.iter_mut()) {
                    let first = *node * WIDTH;
                    let (child, rest) = pick(group(level, first), *mass);
                    *node = first + child;
                    *mass = rest;
                    if let Some(below) = below {
                        let next = below.as_ptr().wrapping_add(*node * WIDTH);
                        prefetch(next.cast(), WIDTH * size_of::<f64>());
                    }
                }
            }
            for (place, &leaf) in nodes.iter().enumerate() {
                found(block * LOCKSTEP + place, leaf);
            }
        }
    }

    /// All weights, to be read or overwritten as a whole; [`rebuild`](Self::rebuild) must follow a change.
    pub(crate) fn leaves_mut(&mut self) -> &mut [f64] {
        let leaves = self.leaves;
        &mut self.levels[0][..leaves]
    }

    /// Computes every sum anew. O(n).
    pub(crate) fn rebuild(&mut self) {
        for level in 1..self.levels.len() {
            let (below, above) = self.levels.split_at_mut(level);
            for (group, node) in below[level - 1].as_chunks().0.iter().zip(above[0].iter_mut()) {
                *node = sum(group);
            }
        }
    }
}

#[inline(always)]
fn group(level: &[f64], first: usize) -> &[f64; WIDTH] {
    level[first..].first_chunk().expect("levels are filled up to whole groups")
}

/// The sum of a group, by quarters, so that one addition need not wait for the one before it.
#[inline(always)]
fn sum(group: &[f64; WIDTH]) -> f64 {
    let [a, b, c, d] = quarters(group);
    (a + b) + (c + d)
}

#[inline(always)]
fn quarters(group: &[f64; WIDTH]) -> [f64; 4] {
    let (quarters, _) = group.as_chunks::<4>();
    [0, 1, 2, 3].map(|i: usize| {
        let [a, b, c, d] = quarters[i];
        (a + b) + (c + d)
    })
}

/// The child in whose share `mass` lies, and what is left of `mass` there: first the quarter, then the child in it.
#[inline(always)]
fn pick(group: &[f64; WIDTH], mass: f64) -> (usize, f64) {
    let (quarter, rest) = pick_of_four(quarters(group), mass);
    let (within, rest) = pick_of_four(group.as_chunks::<4>().0[quarter], rest);
    let child = quarter * 4 + within;
    if group[child] > 0.0 { (child, rest) } else { pick_weighted(group, mass) }
}

/// Without a branch, for it would be foretold wrong most of the time. The last one if `mass` exceeds the sum.
#[inline(always)]
fn pick_of_four([a, b, c, _]: [f64; 4], mass: f64) -> (usize, f64) {
    let (ab, abc) = (a + b, a + b + c);
    let chosen = usize::from(mass >= a) + usize::from(mass >= ab) + usize::from(mass >= abc);
    (chosen, mass - [0.0, a, ab, abc][chosen])
}

/// Where rounding led to a child without weight: the first child whose prefix sum exceeds `mass`, or the last that has a
/// weight. A group whose sum is above 0 has one, and only such groups are entered.
#[cold]
fn pick_weighted(group: &[f64; WIDTH], mass: f64) -> (usize, f64) {
    let (mut chosen, mut before, mut prefix) = (None, 0.0, 0.0);
    for (child, weight) in group.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        chosen = Some(child);
        before = prefix;
        prefix += weight;
        if mass < prefix {
            break;
        }
    }
    (chosen.expect("the total is above 0"), mass - before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rl_minibatch::Rng;

    /// The same by a loop over all weights.
    fn find_by_loop(weights: &[f64], mass: f64) -> usize {
        let mut prefix = 0.0;
        for (leaf, weight) in weights.iter().enumerate() {
            prefix += weight;
            if mass < prefix {
                return leaf;
            }
        }
        weights.iter().rposition(|weight| *weight > 0.0).unwrap()
    }

    proptest! {
        /// Small whole numbers add up without rounding, so that the tree and the loop must agree exactly.
        #[test]
        fn finds_what_a_loop_finds(
            leaves in 1usize..600,
            sets in prop::collection::vec((any::<prop::sample::Index>(), 0u32..4), 1..300),
            masses in prop::collection::vec(0.0f64..1.0, 1..30),
        ) {
            let mut tree = SumTree::new(leaves).unwrap();
            let mut weights = vec![0.0; leaves];
            for (leaf, weight) in sets {
                let leaf = leaf.index(leaves);
                tree.set(leaf, f64::from(weight));
                weights[leaf] = f64::from(weight);
            }
            let total: f64 = weights.iter().sum();
            prop_assert_eq!(tree.total(), total);
            if total > 0.0 {
                for mass in masses {
                    prop_assert_eq!(tree.find(mass * total), find_by_loop(&weights, mass * total));
                }
            }
        }

        /// With weights of very different sizes rounding is all over the place; what is found must have a weight.
        #[test]
        fn never_finds_a_leaf_without_weight(
            exponents in prop::collection::vec(prop::option::weighted(0.3, -60i32..60), 1..400),
            mass in 0.0f64..=1.0,
        ) {
            prop_assume!(exponents.iter().any(Option::is_some));
            let mut tree = SumTree::new(exponents.len()).unwrap();
            for (leaf, exponent) in exponents.iter().enumerate() {
                tree.set(leaf, exponent.map_or(0.0, |e| 3f64.powi(e)));
            }
            for mass in [mass * tree.total(), tree.total(), tree.total().next_down(), 0.0] {
                let leaf = tree.find(mass);
                prop_assert!(leaf < exponents.len() && exponents[leaf].is_some());
            }
        }
    }

    #[test]
    fn its_bytes_are_known_before_it_is_made() {
        for leaves in [1, 15, 16, 17, 256, 257, 100_000] {
            let tree = SumTree::new(leaves).unwrap();
            let bytes: usize = tree.levels.iter().map(|level| size_of_val(&level[..])).sum();
            assert_eq!(SumTree::bytes_for(leaves as u64), bytes as u64);
        }
        assert_eq!(SumTree::bytes_for(u64::MAX), u64::MAX);
    }

    #[test]
    fn sums_do_not_drift() {
        let mut rng = Rng::seed_from_u64(3);
        let mut tree = SumTree::new(1000).unwrap();
        for _ in 0..1_000_000 {
            tree.set(rng.random_range(0..1000), rng.random::<f64>() * 1e6);
        }
        for leaf in 0..1000 {
            tree.set(leaf, 0.1);
        }
        let mut fresh = tree.clone();
        fresh.rebuild();
        assert_eq!(tree.levels, fresh.levels);
        assert!((tree.total() - 100.0).abs() < 1e-9);
    }
}
