//! Synchronized batch normalization: the statistics of all ranks' rows together.

use crate::module::{Module, Role};
use crate::norm::batch::BatchNorm;
use crate::norm::{BatchNormConfig, Moments, Phase, per_channel, reduced_dims, values_per_channel};
use crate::reduce::{ReduceError, Reducer};
use crate::shim;
use std::fmt;
use std::sync::Arc;
use tch::{Device, Kind, Tensor, no_grad};

/// Batch normalization whose batch is that of all ranks together, as PyTorch's `SyncBatchNorm`: what the ranks compute is what one process would
/// on the joined rows, in the forward and in the backward pass, however unequal the ranks' shares (a rank may also have no rows).
///
/// Forward: each rank's count, mean and sum of squared deviations are merged by Chan's formula ([`Moments::joint`]).
///
/// Backward: a row reaches the losses of all ranks through the joint statistics. With N the joint count, x̂ = (x − μ)/σ and sums over all
/// ranks' rows, for the sum of all ranks' losses
///
/// ∂L/∂x = γ/σ·(g − Σg/N − x̂·Σ(g·x̂)/N),
///
/// where g = ∂L/∂y. The two sums are one more meeting of the ranks, inside the backward pass; the gradients of γ and β
/// remain each rank's own, as all parameters' do until [`GradientBuckets`](crate::GradientBuckets) sums them.
///
/// What is differentiated is the *sum* of the ranks' losses. For the mean over all rows each rank therefore multiplies its mean loss by its share of
/// the rows ([`row_share`](crate::row_share)) before the backward pass, and gradients are summed. PyTorch's DDP, which averages
/// gradients instead, is exact for equal shares only.
///
/// All ranks must go through the same layers in the same order, forward and backward, and `x` must ask for gradients on all or on none: where it is
/// data, the backward pass needs no meeting. A rank that fails elsewhere ends the others' passes
/// with an error; in the backward pass that is an error of [`try_gradients`](crate::try_gradients) and a panic of
/// [`gradients`](crate::gradients).
pub struct SyncBatchNorm {
    norm: BatchNorm,
    reducer: Arc<dyn Reducer>,
}

impl SyncBatchNorm {
    /// A layer for `features` channels with γ = 1, β = 0, of `kind` on `device`, whose ranks are those of `reducer`.
    pub fn new(
        features: i64,
        config: BatchNormConfig,
        reducer: Arc<dyn Reducer>,
        kind: Kind,
        device: Device,
    ) -> Self {
        Self { norm: BatchNorm::new(features, config, kind, device), reducer }
    }

    /// Normalizes this rank's rows `x`, `[B, C, …]`, B ≥ 0. In [`Phase::Train`] and [`Phase::Recompute`] all ranks meet, and the running
    /// statistics of all move in the same way, also under `no_grad`.
    ///
    /// When all ranks together have one value a channel, it is normalized to β; nobody would know without reading from the device.
    ///
    /// # Errors
    /// Those of the reducer.
    ///
    /// # Panics
    /// When `x` has another number of channels; when there is one rank only, with a single value a channel, in [`Phase::Train`].
    pub fn forward(&self, x: &Tensor, phase: Phase) -> Result<Tensor, ReduceError> {
        if phase == Phase::Eval {
            return Ok(self.norm.evaluate(x));
        }
        assert!(
            self.reducer.world() > 1 || values_per_channel(x) > 1,
            "batch normalization needs more than one row to train on"
        );
        let joint = Moments::of(x).joint(&*self.reducer)?;
        let y = self.normalize(x, &joint);
        if phase == Phase::Recompute {
            self.norm.running.absorb(joint);
        } else {
            self.norm.running.count_batch();
            self.norm.running.follow(joint.mean(), &joint.unbiased_variance(), self.norm.config.average);
        }
        y
    }

    fn normalize(&self, x: &Tensor, joint: &Moments) -> Result<Tensor, ReduceError> {
        // The parameters' dtype; that of a layer without any is its running statistics'.
        let kind = self.norm.running.mean.kind();
        let (mean, var) = (joint.mean().to_kind(kind), joint.variance().to_kind(kind));
        let (weight, bias, eps) = (self.norm.weight(), self.norm.bias(), self.norm.config.eps);
        let y = no_grad(|| match values_per_channel(x) {
            0 => x.zeros_like(),
            _ => x.batch_norm(weight, bias, Some(&mean), Some(&var), false, 0.0, eps, true),
        });
        let inv_std = no_grad(|| (joint.variance() + eps).rsqrt());
        let (mean, count) = (joint.mean().copy(), joint.count().copy());
        let (reducer, wants_x) = (Arc::clone(&self.reducer), x.requires_grad());
        let affine = weight.is_some();
        let backward: shim::Backward = Box::new(move |grad, saved| {
            let x = &saved[0];
            // f16 and bf16 are summed in f32, everything tiny is f64.
            let wide = if matches!(x.kind(), Kind::Half | Kind::BFloat16) { Kind::Float } else { x.kind() };
            let channelwise = |values: &Tensor| per_channel(&values.to_kind(wide), x);
            let grad = grad.to_kind(wide);
            let x_hat = (x.to_kind(wide) - channelwise(&mean)) * channelwise(&inv_std);
            let dims = reduced_dims(x);
            let sum_grad = grad.sum_dim_intlist(&dims[..], false, wide).to_kind(Kind::Double);
            let sum_grad_x_hat =
                (&grad * &x_hat).sum_dim_intlist(&dims[..], false, wide).to_kind(Kind::Double);
            let mut found = vec![None];
            if affine {
                found.push(Some(sum_grad_x_hat.to_kind(kind)));
                found.push(Some(sum_grad.to_kind(kind)));
            }
            if wants_x {
                let joint = Tensor::stack(&[&sum_grad, &sum_grad_x_hat], 0);
                reducer.sum(std::slice::from_ref(&joint)).map_err(|e| e.to_string())?;
                let means = joint / &count;
                let scale = if affine { &inv_std * &saved[1] } else { inv_std.shallow_clone() };
                let dx = (grad - channelwise(&means.get(0)) - x_hat * channelwise(&means.get(1)))
                    * channelwise(&scale);
                found[0] = Some(dx.to_kind(x.kind()));
            }
            Ok(found)
        });
        let (inputs, saved) = match (weight, bias) {
            (Some(weight), Some(bias)) => (vec![x, weight, bias], vec![x, weight]),
            _ => (vec![x], vec![x]),
        };
        shim::with_backward(&y, &inputs, &saved, backward).map_err(|e| ReduceError(e.to_string()))
    }
}

impl Module for SyncBatchNorm {
    fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
        self.norm.walk(show);
    }
}

impl fmt::Debug for SyncBatchNorm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranks = (self.reducer.rank(), self.reducer.world());
        f.debug_struct("SyncBatchNorm").field("norm", &self.norm).field("rank_of_world", &ranks).finish()
    }
}
