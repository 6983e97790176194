//! Batch renormalization.

use crate::module::{Module, Role};
use crate::norm::{Moments, Phase, reduced_dims, values_per_channel};
use std::cell::RefCell;
use tch::{Device, Kind, Tensor, no_grad};

/// The numbers of a batch renormalization layer; the default is the paper's (§4, for ImageNet; its α is 0.01).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RenormConfig {
    /// ε, added to the batch's variance.
    pub eps: f64,
    /// α, with which the running statistics follow the batches'.
    pub momentum: f64,
    /// Whether the layer ends with trained γ and β.
    pub affine: bool,
    /// Batches of plain batch normalization at the start, r_max = 1 and d_max = 0, while the running statistics find their place.
    pub warmup_batches: u64,
    /// The r_max that is reached in the end, at least 1.
    pub r_max: f64,
    /// The batch at which it is; r_max grows linearly from 1 on the way.
    pub r_max_at: u64,
    /// The d_max that is reached in the end, at least 0.
    pub d_max: f64,
    /// The batch at which it is; d_max grows linearly from 0 on the way.
    pub d_max_at: u64,
}

impl Default for RenormConfig {
    fn default() -> Self {
        Self {
            eps: 1e-5,
            momentum: 0.01,
            affine: true,
            warmup_batches: 5_000,
            r_max: 3.0,
            r_max_at: 40_000,
            d_max: 5.0,
            d_max_at: 25_000,
        }
    }
}

/// Batch renormalization (Ioffe 2017, "Batch Renormalization: Towards Reducing Minibatch Dependence in Batch-Normalized Models",
/// algorithm 1), for small batches and batches whose rows are alike, where a batch's own statistics are noise:
///
/// y = γ·((x − μ_B)/σ_B·r + d) + β with r = clip(σ_B/σ, 1/r_max, r_max) and d = clip((μ_B − μ)/σ, −d_max, d_max), both taken as
/// constants in the backward pass; σ_B = √(ε + biased variance). Then μ ← μ + α·(μ_B − μ) and σ ← σ + α·(σ_B − σ).
///
/// While neither limit is met, training computes just what evaluation does, γ·(x − μ)/σ + β. The running σ is of standard deviations, as in
/// the paper, and `num_batches_tracked` is the place on the way of the limits. All of it is state.
///
/// Costs one pass over `x` more than batch normalization.
#[derive(Debug)]
pub struct BatchRenorm {
    affine: Option<(Tensor, Tensor)>,
    running_mean: Tensor,
    running_std: Tensor,
    num_batches_tracked: Tensor,
    config: RenormConfig,
    /// As in batch normalization's running statistics: not state.
    seen: RefCell<Option<Moments>>,
}

impl BatchRenorm {
    /// A layer for `features` channels with γ = 1 and β = 0, of `kind` on `device`.
    ///
    /// # Panics
    /// When `r_max` is below 1 or `d_max` below 0.
    pub fn new(features: i64, config: RenormConfig, kind: Kind, device: Device) -> Self {
        assert!(config.r_max >= 1.0, "r_max is at least 1, not {}", config.r_max);
        assert!(config.d_max >= 0.0, "d_max is at least 0, not {}", config.d_max);
        let options = (kind, device);
        let affine = || {
            let weight = Tensor::ones([features], options).set_requires_grad(true);
            (weight, Tensor::zeros([features], options).set_requires_grad(true))
        };
        Self {
            affine: config.affine.then(affine),
            running_mean: Tensor::zeros([features], options),
            running_std: Tensor::ones([features], options),
            num_batches_tracked: Tensor::zeros([], (Kind::Int64, device)),
            config,
            seen: RefCell::new(None),
        }
    }

    /// Normalizes `x`, `[B, C, …]`. In [`Phase::Train`] the running statistics change, also under `no_grad`.
    ///
    /// # Panics
    /// When `x` has another number of channels, or in [`Phase::Train`] a single value a channel.
    pub fn forward(&self, x: &Tensor, phase: Phase) -> Tensor {
        let (weight, bias) = match &self.affine {
            Some((weight, bias)) => (Some(weight), Some(bias)),
            None => (None, None),
        };
        let none: Option<&Tensor> = None;
        if phase == Phase::Eval {
            // σ holds ε already.
            let var = no_grad(|| self.running_std.square());
            return x.batch_norm(weight, bias, Some(&self.running_mean), Some(&var), false, 0.0, 0.0, true);
        }
        assert!(values_per_channel(x) > 1, "batch renormalization needs more than one row to train on");
        let eps = self.config.eps;
        if phase == Phase::Recompute {
            self.absorb(Moments::of(x));
            return x.batch_norm(weight, bias, none, none, true, 0.0, eps, true);
        }
        let (r, d) = no_grad(|| self.correct_and_follow(x));
        // γ·(x̂·r + d) + β = x̂·(γ·r) + (γ·d + β): one batch normalization, whose gradients reach γ and β through the two factors.
        let (scale, shift) = match &self.affine {
            Some((weight, bias)) => (weight * r, weight * d + bias),
            None => (r, d),
        };
        x.batch_norm(Some(&scale), Some(&shift), none, none, true, 0.0, eps, true)
    }

    /// r and d of this batch; then the running statistics follow it, and it is counted.
    fn correct_and_follow(&self, x: &Tensor) -> (Tensor, Tensor) {
        let kind = self.running_mean.kind();
        // As the paper's algorithm: the biased variance, of f32 at least.
        let wide = match x.kind() {
            Kind::Half | Kind::BFloat16 => x.to_kind(Kind::Float),
            _ => x.detach(),
        };
        let (var, mean) = wide.var_mean_correction(reduced_dims(&wide), 0, false);
        let (mean, std) = (mean.to_kind(kind), (var.to_kind(kind) + self.config.eps).sqrt());
        let (r_max, d_max) = self.limits();
        let r = (&std / &self.running_std).clamp_tensor(Some(&r_max.reciprocal()), Some(&r_max));
        let d =
            ((&mean - &self.running_mean) / &self.running_std).clamp_tensor(Some(&d_max.neg()), Some(&d_max));
        let _ = self.running_mean.shallow_clone().lerp_(&mean, self.config.momentum);
        let _ = self.running_std.shallow_clone().lerp_(&std, self.config.momentum);
        let _ = self.num_batches_tracked.shallow_clone().g_add_scalar_(1);
        (r, d)
    }

    /// r_max and d_max at the present batch, as scalars on the device, where the counter is.
    fn limits(&self) -> (Tensor, Tensor) {
        let config = &self.config;
        let way = |until: u64| {
            let from = config.warmup_batches as f64;
            let length = (until as f64 - from).max(1.0);
            ((self.num_batches_tracked.to_kind(self.running_mean.kind()) - from) / length).clamp(0.0, 1.0)
        };
        (way(config.r_max_at) * (config.r_max - 1.0) + 1.0, way(config.d_max_at) * config.d_max)
    }

    /// Takes one more sample into the statistics of all samples since the counter was reset.
    fn absorb(&self, sample: Moments) {
        no_grad(|| {
            let mut seen = self.seen.borrow_mut();
            let all = match seen.take() {
                Some(before) => before.only_if(&self.num_batches_tracked.ne(0)).merge(&sample),
                None => sample,
            };
            self.running_mean.shallow_clone().copy_(all.mean());
            self.running_std.shallow_clone().copy_(&(all.variance() + self.config.eps).sqrt());
            *seen = Some(all);
            let _ = self.num_batches_tracked.shallow_clone().g_add_scalar_(1);
        });
    }
}

impl Module for BatchRenorm {
    fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
        if let Some((weight, bias)) = &self.affine {
            show("weight", weight, Role::Parameter);
            show("bias", bias, Role::Parameter);
        }
        show("running_mean", &self.running_mean, Role::Buffer);
        show("running_std", &self.running_std, Role::Buffer);
        show("num_batches_tracked", &self.num_batches_tracked, Role::Buffer);
    }
}
