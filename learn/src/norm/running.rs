//! Running statistics: what training leaves for evaluation.

use crate::module::Role;
use crate::norm::Moments;
use std::cell::RefCell;
use tch::{Device, Kind, Tensor, no_grad};

/// How a batch's statistics move the running ones: running ← (1 − f)·running + f·batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Average {
    /// f is this number: an exponential average. PyTorch's `momentum`, by default 0.1 (TensorFlow and flax call 1 − f so, 0.9 here).
    Momentum(f64),
    /// f = 1/(number of batches): the plain mean over all batches since the start. PyTorch's `momentum=None`.
    Cumulative,
}

/// The running statistics of a batch normalization layer, with PyTorch's names.
#[derive(Debug)]
pub(super) struct Running {
    pub mean: Tensor,
    /// Of the unbiased variances.
    pub var: Tensor,
    /// Batches that moved them, an i64 scalar on the device.
    pub batches: Tensor,
    /// What [`Phase::Recompute`](crate::Phase::Recompute) has seen so far. Not state: without the batches counter, which says whether it
    /// still holds, it is void.
    seen: RefCell<Option<Moments>>,
}

impl Running {
    pub fn new(features: i64, kind: Kind, device: Device) -> Self {
        Self {
            mean: Tensor::zeros([features], (kind, device)),
            var: Tensor::ones([features], (kind, device)),
            batches: Tensor::zeros([], (Kind::Int64, device)),
            seen: RefCell::new(None),
        }
    }

    pub fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
        show("running_mean", &self.mean, Role::Buffer);
        show("running_var", &self.var, Role::Buffer);
        show("num_batches_tracked", &self.batches, Role::Buffer);
    }

    pub fn count_batch(&self) {
        let _ = no_grad(|| self.batches.shallow_clone().g_add_scalar_(1));
    }

    /// Moves the statistics to those of one more batch, which has been counted; `var` is the unbiased variance.
    pub fn follow(&self, mean: &Tensor, var: &Tensor, average: Average) {
        no_grad(|| {
            for (running, batch) in [(&self.mean, mean), (&self.var, var)] {
                let batch = batch.to_kind(running.kind());
                let mut running = running.shallow_clone();
                let _ = match average {
                    Average::Momentum(factor) => running.lerp_(&batch, factor),
                    // The counter stays on the device, so the factor is a tensor too.
                    Average::Cumulative => {
                        let factor = self.batches.to_kind(running.kind()).reciprocal();
                        running.lerp_tensor_(&batch, &factor)
                    }
                };
            }
        });
    }

    /// Takes one more sample into the statistics of all samples since the counter was reset.
    pub fn absorb(&self, sample: Moments) {
        no_grad(|| {
            let goes_on = self.batches.ne(0);
            let mut seen = self.seen.borrow_mut();
            let all = match seen.take() {
                Some(before) => before.only_if(&goes_on).merge(&sample),
                None => sample,
            };
            self.mean.shallow_clone().copy_(all.mean());
            self.var.shallow_clone().copy_(&all.unbiased_variance());
            *seen = Some(all);
        });
        self.count_batch();
    }
}
