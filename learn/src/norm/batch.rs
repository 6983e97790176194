//! Batch normalization over one batch: `BatchNorm1d` and `BatchNorm2d`.

use crate::module::{Module, Role};
use crate::norm::running::Running;
use crate::norm::{Average, Moments, Phase, values_per_channel};
use tch::{Device, Kind, Tensor};

/// The numbers of a batch normalization layer; the default is PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNormConfig {
    /// ε, added to the variance.
    pub eps: f64,
    /// How the running statistics follow the batches'.
    pub average: Average,
    /// Whether the layer ends with trained γ and β. Without them it has no parameters.
    pub affine: bool,
}

impl Default for BatchNormConfig {
    fn default() -> Self {
        Self { eps: 1e-5, average: Average::Momentum(0.1), affine: true }
    }
}

/// What all kinds of batch normalization are made of: γ, β and the running statistics.
#[derive(Debug)]
pub(super) struct BatchNorm {
    pub affine: Option<(Tensor, Tensor)>,
    pub running: Running,
    pub config: BatchNormConfig,
}

impl BatchNorm {
    pub fn new(features: i64, config: BatchNormConfig, kind: Kind, device: Device) -> Self {
        let options = (kind, device);
        let affine = || {
            let weight = Tensor::ones([features], options).set_requires_grad(true);
            (weight, Tensor::zeros([features], options).set_requires_grad(true))
        };
        Self { affine: config.affine.then(affine), running: Running::new(features, kind, device), config }
    }

    pub fn weight(&self) -> Option<&Tensor> {
        self.affine.as_ref().map(|(weight, _)| weight)
    }

    pub fn bias(&self) -> Option<&Tensor> {
        self.affine.as_ref().map(|(_, bias)| bias)
    }

    /// Normalizes with given statistics, or with the batch's own, which then move `mean` and `var` by `momentum`.
    fn apply(&self, x: &Tensor, mean: &Tensor, var: &Tensor, training: bool, momentum: f64) -> Tensor {
        let (weight, bias) = (self.weight(), self.bias());
        x.batch_norm(weight, bias, Some(mean), Some(var), training, momentum, self.config.eps, true)
    }

    pub fn evaluate(&self, x: &Tensor) -> Tensor {
        self.apply(x, &self.running.mean, &self.running.var, false, 0.0)
    }

    pub fn forward(&self, x: &Tensor, phase: Phase) -> Tensor {
        if phase == Phase::Eval {
            return self.evaluate(x);
        }
        assert!(values_per_channel(x) > 1, "batch normalization needs more than one row to train on");
        let running = &self.running;
        if phase == Phase::Recompute {
            let y = self.apply(x, &running.mean.zeros_like(), &running.var.zeros_like(), true, 1.0);
            running.absorb(Moments::of(x));
            return y;
        }
        running.count_batch();
        match self.config.average {
            Average::Momentum(momentum) => self.apply(x, &running.mean, &running.var, true, momentum),
            Average::Cumulative => {
                // libtorch takes the factor as a number of the host's, and the counter is on the device. So it is asked for the
                // batch's statistics alone, momentum 1, and they are averaged in afterwards.
                let (mean, var) = (running.mean.zeros_like(), running.var.zeros_like());
                let y = self.apply(x, &mean, &var, true, 1.0);
                running.follow(&mean, &var, Average::Cumulative);
                y
            }
        }
    }
}

impl Module for BatchNorm {
    fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
        if let Some((weight, bias)) = &self.affine {
            show("weight", weight, Role::Parameter);
            show("bias", bias, Role::Parameter);
        }
        self.running.walk(show);
    }
}

/// Batch normalization over the rows of a `[B, C]` tensor, or over rows and positions of `[B, C, L]` (Ioffe and Szegedy 2015), as
/// PyTorch's `BatchNorm1d`:
///
/// y = γ·(x − μ)/√(σ² + ε) + β, with the batch's mean and biased variance in training and the running ones otherwise;
/// running ← (1 − momentum)·running + momentum·batch, where the variance tracked is the unbiased one.
#[derive(Debug)]
pub struct BatchNorm1d(BatchNorm);

impl BatchNorm1d {
    /// A layer for `features` columns with γ = 1, β = 0, momentum 0.1 and ε = 1e-5, all of `kind` on `device`.
    pub fn new(features: i64, kind: Kind, device: Device) -> Self {
        Self::with(features, BatchNormConfig::default(), kind, device)
    }

    /// As [`new`](Self::new), with numbers of its own.
    pub fn with(features: i64, config: BatchNormConfig, kind: Kind, device: Device) -> Self {
        Self(BatchNorm::new(features, config, kind, device))
    }

    /// Normalizes `x`, `[B, C]` or `[B, C, L]`. In [`Phase::Train`] the running statistics change, also under `no_grad`.
    ///
    /// # Panics
    /// When `x` has another number of columns, or in [`Phase::Train`] a single value a column (its variance is undefined).
    pub fn forward(&self, x: &Tensor, phase: Phase) -> Tensor {
        assert!(matches!(x.dim(), 2 | 3), "BatchNorm1d takes [B, C] or [B, C, L], not {:?}", x.size());
        self.0.forward(x, phase)
    }
}

impl Module for BatchNorm1d {
    fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
        self.0.walk(show);
    }
}

/// Batch normalization of images, `[B, C, H, W]`: each channel over rows and pixels, as PyTorch's `BatchNorm2d`. Everything else is as in
/// [`BatchNorm1d`].
#[derive(Debug)]
pub struct BatchNorm2d(BatchNorm);

impl BatchNorm2d {
    /// A layer for `channels` channels with γ = 1, β = 0, momentum 0.1 and ε = 1e-5, all of `kind` on `device`.
    pub fn new(channels: i64, kind: Kind, device: Device) -> Self {
        Self::with(channels, BatchNormConfig::default(), kind, device)
    }

    /// As [`new`](Self::new), with numbers of its own.
    pub fn with(channels: i64, config: BatchNormConfig, kind: Kind, device: Device) -> Self {
        Self(BatchNorm::new(channels, config, kind, device))
    }

    /// Normalizes `x`, `[B, C, H, W]`. In [`Phase::Train`] the running statistics change, also under `no_grad`.
    ///
    /// # Panics
    /// When `x` has another shape, or in [`Phase::Train`] a single value a channel (its variance is undefined).
    pub fn forward(&self, x: &Tensor, phase: Phase) -> Tensor {
        assert!(x.dim() == 4, "BatchNorm2d takes [B, C, H, W], not {:?}", x.size());
        self.0.forward(x, phase)
    }
}

impl Module for BatchNorm2d {
    fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
        self.0.walk(show);
    }
}
