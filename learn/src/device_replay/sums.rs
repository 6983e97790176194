//! Prefix sums over many weights on the device: a search by prefix sums alone, or through a tree of tensors.

use super::random::BELOW_ONE;
use crate::visit_tensor;
use rl_minibatch::{StateError, StateVisitor};
use std::ops::Range;
use tch::{Device, IndexOp, Kind, Tensor, no_grad};

/// Weights at the leaves, and above them the sum of every `width` nodes of the level below.
///
/// The top level is searched by its prefix sums, which are made anew for each search. With height 1 that level is the leaves: one pass over all weights a
/// batch. With height 2 or more a search goes down, each level being one gathered matrix of `batch × width` nodes: more operations,
/// each of them small. A sum is always made anew from its children and never corrected by a difference, so sums do not drift.
#[derive(Debug)]
pub(super) struct Sums {
    leaves: i64,
    width: i64,
    /// Level 0 holds the leaves. All but the last are `[blocks, width]`, filled up with zeros; the last is `[nodes]`.
    levels: Vec<Tensor>,
    /// `[nodes + 1]` of the top level: 0, and its prefix sums.
    prefix: Tensor,
}

impl Sums {
    /// What the tree takes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<f64>() * (self.prefix.numel() + self.levels.iter().map(Tensor::numel).sum::<usize>())
    }

    /// `leaves` weights, all 0, in a tree of `height` levels, at least 1.
    pub(super) fn new(leaves: usize, height: u32, device: Device) -> Self {
        let leaves = leaves as i64;
        // Height 2 balances one pass over the top level with `batch` passes over a block, for batches around 64; beyond that the levels
        // share the depth evenly.
        let bits = (leaves.max(2) as f64).log2();
        let width = match height {
            0..=2 => (bits / 2.0 - 3.0).round().clamp(1.0, 12.0),
            _ => (bits / f64::from(height)).ceil().max(1.0),
        };
        let width = (width as u32).min(20);
        let width = 1i64 << width;
        let options = (Kind::Double, device);
        let (mut nodes, mut levels) = (leaves, Vec::new());
        for _ in 1..height {
            let blocks = (nodes + width - 1) / width;
            levels.push(Tensor::zeros([blocks, width], options));
            nodes = blocks;
        }
        levels.push(Tensor::zeros([nodes], options));
        Self { leaves, width, levels, prefix: Tensor::zeros([nodes + 1], options) }
    }

    fn flat(&self) -> Tensor {
        self.levels[0].view([-1])
    }

    /// The weights of leaves that follow each other.
    pub(super) fn range(&self, range: Range<i64>) -> Tensor {
        self.flat().narrow(0, range.start, range.end - range.start)
    }

    /// The leaf in whose part of the running sum each of `shares` of the total lies. `shares`: `[B]`, f64 in [0, 1), ascending; the leaves are
    /// `[B]`, i64, ascending. A leaf of weight 0 is never found. The total must be above 0.
    pub(super) fn find(&self, shares: &Tensor) -> Tensor {
        let top = self.levels.last().expect("there is a level");
        let nodes = top.size()[0];
        let sums = self.prefix.narrow(0, 1, nodes);
        let _ = top.cumsum_out(&sums, 0, Kind::Double);
        // A share below 1 of the total rounds to less than the total, so there is always a node beyond.
        let mass = shares * self.prefix.narrow(0, nodes, 1);
        let mut node = search(&sums, &mass);
        let mut rest = None;
        for level in self.levels[..self.levels.len() - 1].iter().rev() {
            let rest_here = match rest {
                None => &mass - self.prefix.index_select(0, &node),
                Some(rest) => rest,
            };
            let children = level.index_select(0, &node);
            let sums = children.cumsum(1, Kind::Double);
            // What rounding leaves beyond the block's last weight belongs to that.
            let most = sums.i((.., self.width - 1)) * BELOW_ONE;
            let rest_here = rest_here.minimum(&most).unsqueeze(1);
            let child = search(&sums, &rest_here);
            let before = sums.gather(1, &child, false) - children.gather(1, &child, false);
            rest = Some((rest_here - before).clamp_min(0.0).squeeze_dim(1));
            node = node * self.width + child.squeeze_dim(1);
        }
        node
    }

    /// The weights of `leaves`.
    pub(super) fn get(&self, leaves: &Tensor) -> Tensor {
        self.flat().index_select(0, leaves)
    }

    /// Sets the weights of `leaves`, ascending; of one that comes more than once the last weight wins, everywhere in its run, so that it does not
    /// matter in which order a device writes.
    pub(super) fn set(&self, leaves: &Tensor, weights: &Tensor) {
        let last = search(leaves, leaves) - 1;
        let _ = self.flat().index_copy_(0, leaves, &weights.index_select(0, &last));
        let mut nodes = leaves.shallow_clone();
        for (level, above) in self.levels.iter().zip(&self.levels[1..]) {
            nodes = nodes.floor_divide_scalar(self.width);
            let sums = level.index_select(0, &nodes).sum_dim_intlist(1, false, Kind::Double);
            let _ = above.view([-1]).index_copy_(0, &nodes, &sums);
        }
    }

    /// Sets the weights of leaves that follow each other to `weight`, a scalar tensor.
    pub(super) fn fill(&self, leaves: Range<i64>, weight: &Tensor) {
        if leaves.is_empty() {
            return;
        }
        self.range(leaves.clone()).copy_(&weight.expand([leaves.end - leaves.start], false));
        let (mut first, mut last) = (leaves.start, leaves.end - 1);
        for (level, above) in self.levels.iter().zip(&self.levels[1..]) {
            (first, last) = (first / self.width, last / self.width);
            let sums = level.narrow(0, first, last - first + 1).sum_dim_intlist(1, false, Kind::Double);
            above.view([-1]).narrow(0, first, last - first + 1).copy_(&sums);
        }
    }

    /// Shows every level: sums made anew from their children could round otherwise where a device sums many blocks in another way than few.
    pub(super) fn visit(&self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        no_grad(|| {
            visit_tensor(visitor, "priorities", &self.flat().narrow(0, 0, self.leaves))?;
            for (height, level) in self.levels.iter().enumerate().skip(1) {
                visit_tensor(visitor, &format!("sums.{height}"), level)?;
            }
            Ok(())
        })
    }
}

/// For each value the position of the first of `sums` that is larger, along the last dimension.
fn search(sums: &Tensor, values: &Tensor) -> Tensor {
    values.searchsorted(sums, false, true, "right", None::<Tensor>)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sums(weights: &[f64], height: u32) -> Sums {
        let sums = Sums::new(weights.len(), height, Device::Cpu);
        let leaves = Tensor::arange(weights.len() as i64, (Kind::Int64, Device::Cpu));
        sums.set(&leaves, &Tensor::from_slice(weights));
        sums
    }

    proptest! {
        /// A plain running sum over integers, which are exact in any order.
        #[test]
        fn finds_what_a_running_sum_finds(
            weights in prop::collection::vec(0u8..5, 1..300),
            height in 1u32..4,
            mut shares in prop::collection::vec(0.0f64..1.0, 1..20),
        ) {
            prop_assume!(weights.iter().any(|w| *w > 0));
            shares.push(BELOW_ONE);
            shares.push(0.0);
            shares.sort_by(f64::total_cmp);
            let weights: Vec<f64> = weights.into_iter().map(f64::from).collect();
            let sums = sums(&weights, height);
            let found = Vec::<i64>::try_from(sums.find(&Tensor::from_slice(&shares))).unwrap();
            let total: f64 = weights.iter().sum();
            for (share, found) in shares.iter().zip(found) {
                let (mut leaf, mut sum) = (0, weights[0]);
                while sum <= share * total {
                    leaf += 1;
                    sum += weights[leaf];
                }
                prop_assert_eq!(leaf as i64, found, "share {}", share);
            }
        }

        /// Weights of any size: what is found has a weight, and sums are those of the leaves.
        #[test]
        fn changes_reach_every_level(
            weights in prop::collection::vec(prop::sample::select(vec![0.0, 1e-9, 0.1, 1.0, 1e6]), 2..400),
            changes in prop::collection::vec((0usize..400, 0.0f64..3.0), 1..30),
            height in 1u32..4,
            fill in 0usize..400,
        ) {
            let mut plain = weights.clone();
            let sums = sums(&weights, height);
            let mut changes: Vec<_> = changes.into_iter().map(|(leaf, w)| (leaf % weights.len(), w)).collect();
            changes.sort_by_key(|(leaf, _)| *leaf);
            for (leaf, weight) in &changes {
                plain[*leaf] = *weight;
            }
            let (leaves, values): (Vec<i64>, Vec<f64>) = changes.iter().map(|(l, w)| (*l as i64, *w)).unzip();
            sums.set(&Tensor::from_slice(&leaves), &Tensor::from_slice(&values));
            let from = fill % weights.len();
            plain[from..].fill(0.5);
            sums.fill(from as i64..weights.len() as i64, &Tensor::from(0.5f64));

            let leaves = Vec::<f64>::try_from(sums.range(0..weights.len() as i64)).unwrap();
            prop_assert_eq!(&leaves, &plain);
            for level in &sums.levels {
                let total = level.sum(Kind::Double).double_value(&[]);
                prop_assert!((total / plain.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            }
            let shares: Vec<f64> = (0..64).map(|i| f64::from(i) / 64.0).chain([BELOW_ONE]).collect();
            let found = Vec::<i64>::try_from(sums.find(&Tensor::from_slice(&shares))).unwrap();
            prop_assert!(found.is_sorted());
            prop_assert!(found.iter().all(|leaf| plain[*leaf as usize] > 0.0));
        }
    }
}
