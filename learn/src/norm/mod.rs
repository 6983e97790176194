//! Normalization layers, one file each; all of them keep dimension 1 as the channels (`[B, C]`, `[B, C, L]`, `[B, C, H, W]`, …) but
//! [`LayerNorm`], which normalizes the last dimensions.
//!
//! * [`BatchNorm1d`], [`BatchNorm2d`]: the statistics of the batch at hand in training, running ones otherwise;
//! * [`GhostBatchNorm`]: the statistics of small parts of a large batch;
//! * [`SyncBatchNorm`]: the statistics of the batches of all ranks together;
//! * [`BatchRenorm`]: the batch's, corrected towards the running ones;
//! * [`LayerNorm`]: each row's own, so it knows neither phases nor batches;
//! * [`recompute_statistics`]: running statistics of a finished network, exactly over given rows.
//!
//! Nothing of a forward pass is read back from the device: counters, limits and averages are tensors there. The layers' whole state is
//! shown by their [`Module`](crate::Module) walk under PyTorch's names.

mod batch;
mod batch_renorm;
mod ghost;
mod layer;
mod moments;
mod recompute;
mod running;
mod sync;

pub use batch::{BatchNorm1d, BatchNorm2d, BatchNormConfig};
pub use batch_renorm::{BatchRenorm, RenormConfig};
pub use ghost::GhostBatchNorm;
pub use layer::LayerNorm;
pub use moments::Moments;
pub use recompute::{recompute_statistics, reset_statistics};
pub use running::Average;
pub use sync::SyncBatchNorm;

/// Whether a forward pass trains or is used. Always an argument, so that nobody can forget to switch back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Batch statistics normalize, and the running statistics move.
    Train,
    /// The running statistics normalize, and nothing changes.
    Eval,
    /// Batch statistics normalize, and the running statistics become those of all rows since [`reset_statistics`]; see
    /// [`recompute_statistics`]. Layers without running statistics do as in [`Phase::Eval`].
    Recompute,
}

/// All dimensions of `x` but the channels'.
fn reduced_dims(x: &tch::Tensor) -> Vec<i64> {
    (0..x.dim() as i64).filter(|&d| d != 1).collect()
}

/// `[C]` as it broadcasts against `x`, `[B, C, …]`.
fn per_channel(values: &tch::Tensor, x: &tch::Tensor) -> tch::Tensor {
    let mut shape = vec![1; x.dim()];
    shape[1] = -1;
    values.reshape(shape)
}

/// Values a channel in `x`, `[B, C, …]`.
fn values_per_channel(x: &tch::Tensor) -> i64 {
    x.size().iter().enumerate().filter(|&(d, _)| d != 1).map(|(_, n)| n).product()
}
