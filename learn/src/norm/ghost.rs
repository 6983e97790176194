//! Ghost batch normalization: a large batch normalized in small parts.

use crate::module::{Module, Role};
use crate::norm::batch::BatchNorm;
use crate::norm::{BatchNormConfig, Phase};
use tch::{Device, Kind, Tensor};

/// Batch normalization over parts of the batch, each with statistics of its own, so that a large batch keeps the noise of small ones
/// (Hoffer, Hubara and Soudry 2017, "Train longer, generalize better", algorithm 1).
///
/// The parts, *ghost batches*, are runs of rows as they come. A batch of B rows makes ⌈B/`ghost_rows`⌉ of them, their sizes differing by one row
/// at most, so that no part is ever left with too few rows; B ≤ `ghost_rows` is plain batch normalization. The running statistics follow each
/// ghost batch in turn, as if they had come one after the other, which is the paper's weighted sum; `num_batches_tracked` counts ghost batches.
/// Evaluation is that of batch normalization.
///
/// Costs one kernel call a ghost batch and one copy of the output.
#[derive(Debug)]
pub struct GhostBatchNorm {
    norm: BatchNorm,
    ghost_rows: i64,
}

impl GhostBatchNorm {
    /// A layer for `features` channels in parts of at most `ghost_rows` rows.
    ///
    /// # Panics
    /// When `ghost_rows` is below 2: a single row has no variance.
    pub fn new(features: i64, ghost_rows: i64, config: BatchNormConfig, kind: Kind, device: Device) -> Self {
        assert!(ghost_rows > 1, "a ghost batch needs more than one row, not {ghost_rows}");
        Self { norm: BatchNorm::new(features, config, kind, device), ghost_rows }
    }

    /// Normalizes `x`, `[B, C, …]`. In [`Phase::Train`] the running statistics change, also under `no_grad`.
    ///
    /// # Panics
    /// When `x` has another number of channels, or when training a part with a single value a channel.
    pub fn forward(&self, x: &Tensor, phase: Phase) -> Tensor {
        let rows = x.size()[0];
        if phase == Phase::Eval || rows <= self.ghost_rows {
            return self.norm.forward(x, phase);
        }
        let parts = (rows + self.ghost_rows - 1) / self.ghost_rows;
        let mut first = 0;
        let normalized: Vec<Tensor> = (0..parts)
            .map(|part| {
                let count = rows / parts + i64::from(part < rows % parts);
                let y = self.norm.forward(&x.narrow(0, first, count), phase);
                first += count;
                y
            })
            .collect();
        Tensor::cat(&normalized, 0)
    }
}

impl Module for GhostBatchNorm {
    fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
        self.norm.walk(show);
    }
}
