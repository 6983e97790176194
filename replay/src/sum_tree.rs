//! Prefix sums over many weights, of which any may change: O(log₁₆ n) to change one or to find one.

use crate::ReplayError;

/// Children of a node.
const WIDTH: usize = 16;

/// Weights at the leaves, and above them the sum of every 16 nodes of the level below.
///
/// A sum is always computed anew from its children and never corrected by a difference, so sums do not drift however
/// many updates there are: each is what adding its children gives, and the tree's state is a function of its leaves.
#[derive(Clone, Debug)]
pub(crate) struct SumTree {
    leaves: usize,
    /// Level 0 holds the leaves, the last level at most `WIDTH` nodes; each is filled up with zeros to whole groups.
    levels: Vec<Box<[f64]>>,
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
            let level =
                bytemuck::allocation::try_zeroed_slice_box(padded).map_err(|()| ReplayError::Memory {
                    rows: leaves as u64,
                    bytes: padded as u128 * size_of::<f64>() as u128,
                    source: std::io::ErrorKind::OutOfMemory.into(),
                })?;
            levels.push(level);
            if nodes <= WIDTH {
                return Ok(Self { leaves, levels });
            }
            nodes = nodes.div_ceil(WIDTH);
        }
    }

    /// The number of weights.
    pub(crate) fn leaves(&self) -> usize {
        self.leaves
    }

    /// The sum of all weights.
    pub(crate) fn total(&self) -> f64 {
        sum(self.levels.last().expect("a tree has a level"))
    }

    /// The weight at `leaf`.
    pub(crate) fn get(&self, leaf: usize) -> f64 {
        self.levels[0][leaf]
    }

    /// Sets one weight, finite and at least 0, and the sums above it.
    pub(crate) fn set(&mut self, leaf: usize, weight: f64) {
        debug_assert!(leaf < self.leaves && weight.is_finite() && weight >= 0.0);
        self.levels[0][leaf] = weight;
        let mut node = leaf;
        for level in 1..self.levels.len() {
            node /= WIDTH;
            let (below, above) = self.levels.split_at_mut(level);
            above[0][node] = sum(&below[level - 1][node * WIDTH..][..WIDTH]);
        }
    }

    /// The leaf in whose share of the running sum `mass` lies: the first one whose prefix sum exceeds it.
    ///
    /// A leaf of weight 0 is never found, whatever rounding does to `mass`: where it runs over the end of a group, the
    /// last leaf there with a weight is taken. The total must be above 0, and `mass` in 0..total.
    pub(crate) fn find(&self, mut mass: f64) -> usize {
        let mut node = 0;
        for (height, level) in self.levels.iter().enumerate().rev() {
            let first = if height + 1 == self.levels.len() { 0 } else { node * WIDTH };
            let group = &level[first..][..WIDTH];
            let (mut chosen, mut before, mut prefix) = (None, 0.0, 0.0);
            for (child, weight) in group.iter().enumerate() {
                if *weight > 0.0 {
                    chosen = Some(child);
                    before = prefix;
                    prefix += weight;
                    if mass < prefix {
                        break;
                    }
                }
            }
            // A group whose sum is above 0 has a child above 0, and only such groups are entered.
            node = first + chosen.expect("the total is above 0");
            mass -= before;
        }
        node
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
            for (group, node) in below[level - 1].chunks(WIDTH).zip(above[0].iter_mut()) {
                *node = sum(group);
            }
        }
    }
}

/// The sum of a group, in four running sums, so that one addition need not wait for the one before it.
fn sum(group: &[f64]) -> f64 {
    let mut lanes = [0.0; 4];
    for part in group.chunks_exact(4) {
        for (lane, weight) in lanes.iter_mut().zip(part) {
            *lane += weight;
        }
    }
    (lanes[0] + lanes[1]) + (lanes[2] + lanes[3])
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
