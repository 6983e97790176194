//! Sums over ranks: the one seam through which several learners work on one model.
//!
//! A *rank* is one of `world` learners, each with its own copy of the model and its own rows. Whatever has to know of the others'
//! rows goes through a [`Reducer`]: the gradients ([`GradientBuckets`](crate::GradientBuckets)) and the batch statistics
//! ([`SyncBatchNorm`](crate::SyncBatchNorm)). How ranks reach each other is the reducer's affair: [`Alone`] has nobody to reach, [`Threads`] are
//! ranks in one process, and a transport over a network is one more implementation.

mod threads;

pub use threads::{Rank, Threads, ThreadsError};

use crate::module::Module;
use tch::{Tensor, no_grad};

/// A sum over ranks did not come about. Ranks that fail leave the others nothing to wait for, so the group is at an end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sum over ranks failed: {0}")]
pub struct ReduceError(pub String);

/// Sums of tensors over ranks.
///
/// All ranks make the same calls in the same order with lists of the same shapes, dtypes and length: a call is a meeting, and returns when
/// all have come. Implementations promise that every rank receives bitwise the same values (else the copies of a model
/// drift apart), and that a rank that fails ends the calls of the others with an error and not with a hang.
pub trait Reducer: Send + Sync {
    /// This learner's number, below [`world`](Self::world).
    fn rank(&self) -> usize;

    /// The number of learners.
    fn world(&self) -> usize;

    /// Replaces each tensor by its sum over the ranks, in place; gradients do not flow through. Any shape, also empty; of any
    /// numeric dtype, in which the sum is made.
    ///
    /// # Errors
    /// When another rank failed or left, or came with other tensors; the tensors are unspecified then.
    fn sum(&self, tensors: &[Tensor]) -> Result<(), ReduceError>;

    /// Replaces each tensor by that of rank `root`, in place. Here as a sum to which the others add zeros; a transport with a
    /// broadcast of its own should use it.
    ///
    /// # Errors
    /// As [`sum`](Self::sum); and when there is no rank `root`.
    fn broadcast(&self, tensors: &[Tensor], root: usize) -> Result<(), ReduceError> {
        if root >= self.world() {
            let why = format!("there is no rank {root} to broadcast from, the world is {}", self.world());
            return Err(ReduceError(why));
        }
        if self.rank() != root {
            no_grad(|| tensors.iter().for_each(|tensor| drop(tensor.shallow_clone().zero_())));
        }
        self.sum(tensors)
    }
}

/// The reducer of a single learner: a sum over one rank is what it was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Reducer for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn sum(&self, _: &[Tensor]) -> Result<(), ReduceError> {
        Ok(())
    }
}

/// Makes every parameter and buffer of `module` that of rank `root`: what data parallel training begins with. One call of the reducer.
///
/// # Errors
/// Those of [`Reducer::broadcast`].
pub fn broadcast_module(reducer: &dyn Reducer, module: &dyn Module, root: usize) -> Result<(), ReduceError> {
    let mut tensors = Vec::new();
    module.walk(&mut |_, tensor, _| tensors.push(tensor.detach()));
    reducer.broadcast(&tensors, root)
}
