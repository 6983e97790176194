//! Normalization layers.

use crate::module::{Module, Role};
use tch::{Device, Kind, Tensor, no_grad};

/// Whether a forward pass trains or is used. Always an argument, so that nobody can forget to switch back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Batch statistics normalize, and the running statistics move.
    Train,
    /// The running statistics normalize, and nothing changes.
    Eval,
}

/// Batch normalization over the rows of a `[B, C]` tensor (Ioffe and Szegedy 2015), as PyTorch's `BatchNorm1d`:
///
/// y = γ·(x − μ)/√(σ² + ε) + β, with the batch's mean and biased variance in training and the running ones otherwise;
/// running ← (1 − momentum)·running + momentum·batch, where the variance tracked is the unbiased one.
#[derive(Debug)]
pub struct BatchNorm1d {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    num_batches_tracked: Tensor,
    momentum: f64,
    eps: f64,
}

impl BatchNorm1d {
    /// A layer for `features` columns with γ = 1, β = 0, momentum 0.1 and ε = 1e-5, all of `kind` on `device`.
    pub fn new(features: i64, kind: Kind, device: Device) -> Self {
        let options = (kind, device);
        Self {
            weight: Tensor::ones([features], options).set_requires_grad(true),
            bias: Tensor::zeros([features], options).set_requires_grad(true),
            running_mean: Tensor::zeros([features], options),
            running_var: Tensor::ones([features], options),
            num_batches_tracked: Tensor::zeros([], (Kind::Int64, device)),
            momentum: 0.1,
            eps: 1e-5,
        }
    }

    /// Normalizes `x`, `[B, C]`. In [`Phase::Train`] the running statistics change, also under `no_grad`.
    ///
    /// # Panics
    /// When `x` has another number of columns, or a single row in [`Phase::Train`] (its variance is undefined).
    pub fn forward(&self, x: &Tensor, phase: Phase) -> Tensor {
        let training = phase == Phase::Train;
        if training {
            assert!(x.size()[0] > 1, "batch normalization needs more than one row to train on");
            let _ = no_grad(|| self.num_batches_tracked.shallow_clone().g_add_scalar_(1));
        }
        x.batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            Some(&self.running_mean),
            Some(&self.running_var),
            training,
            self.momentum,
            self.eps,
            true,
        )
    }
}

impl Module for BatchNorm1d {
    fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
        show("weight", &self.weight, Role::Parameter);
        show("bias", &self.bias, Role::Parameter);
        show("running_mean", &self.running_mean, Role::Buffer);
        show("running_var", &self.running_var, Role::Buffer);
        show("num_batches_tracked", &self.num_batches_tracked, Role::Buffer);
    }
}
