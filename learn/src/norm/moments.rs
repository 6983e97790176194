//! Count, mean and sum of squared deviations of each channel, and how those of parts make those of the whole.

use crate::norm::{reduced_dims, values_per_channel};
use crate::reduce::{ReduceError, Reducer};
use tch::{Kind, Tensor, no_grad};

/// The moments of a sample, a channel: n, μ = Σx/n and M₂ = Σ(x − μ)², in f64 on the sample's device.
///
/// Two of them merge without cancellation (Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for
/// computing sample variances"): with δ = μ_b − μ_a,
///
/// n = n_a + n_b, μ = μ_a + δ·n_b/n, M₂ = M₂ₐ + M₂_b + δ²·n_a·n_b/n.
#[derive(Debug)]
pub struct Moments {
    /// n, a scalar; the same for all channels.
    count: Tensor,
    /// μ, `[C]`.
    mean: Tensor,
    /// M₂, `[C]`.
    m2: Tensor,
}

impl Moments {
    /// The moments of `x`, `[B, C, …]`, over everything but dimension 1; zeros for an empty one. One pass over `x`, in its dtype (f32 for
    /// f16 and bf16), outside autograd.
    ///
    /// # Panics
    /// When `x` has fewer than two dimensions or is not of floating point.
    pub fn of(x: &Tensor) -> Self {
        no_grad(|| {
            let x = match x.kind() {
                Kind::Half | Kind::BFloat16 => x.to_kind(Kind::Float),
                _ => x.detach(),
            };
            let n = values_per_channel(&x);
            let (device, channels) = (x.device(), x.size()[1]);
            let count = Tensor::full([], n as f64, (Kind::Double, device));
            if n == 0 {
                let zeros = || Tensor::zeros([channels], (Kind::Double, device));
                return Self { count, mean: zeros(), m2: zeros() };
            }
            let (variance, mean) = x.var_mean_correction(reduced_dims(&x), 0, false);
            let m2 = variance.to_kind(Kind::Double) * n as f64;
            Self { count, mean: mean.to_kind(Kind::Double), m2 }
        })
    }

    /// n, a scalar.
    pub fn count(&self) -> &Tensor {
        &self.count
    }

    /// μ, `[C]`.
    pub fn mean(&self) -> &Tensor {
        &self.mean
    }

    /// σ² = M₂/n, `[C]`; 0 for an empty sample.
    pub fn variance(&self) -> Tensor {
        no_grad(|| &self.m2 / self.count.clamp_min(1.0))
    }

    /// M₂/(n − 1), `[C]`; 0 for a single value, of which it is not defined.
    pub fn unbiased_variance(&self) -> Tensor {
        no_grad(|| &self.m2 / (&self.count - 1.0).clamp_min(1.0))
    }

    /// The moments of both samples together.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        no_grad(|| {
            let count = &self.count + &other.count;
            let share = &other.count / count.clamp_min(1.0);
            let delta = &other.mean - &self.mean;
            let mean = &self.mean + &delta * &share;
            let m2 = &self.m2 + &other.m2 + delta.square() * (&self.count * share);
            Self { count, mean, m2 }
        })
    }

    /// The moments of all ranks' samples together, the same bits on every rank: one sum of `world`·(2C + 1) numbers, in which each rank fills
    /// its own row.
    ///
    /// # Errors
    /// Those of the reducer.
    pub fn joint(self, reducer: &dyn Reducer) -> Result<Self, ReduceError> {
        if reducer.world() == 1 {
            return Ok(self);
        }
        no_grad(|| {
            let channels = self.mean.size()[0];
            let own = Tensor::cat(&[&self.count.reshape([1]), &self.mean, &self.m2], 0);
            let options = (Kind::Double, own.device());
            let rows = Tensor::zeros([reducer.world() as i64, 2 * channels + 1], options);
            rows.get(reducer.rank() as i64).copy_(&own);
            reducer.sum(std::slice::from_ref(&rows))?;
            let part = |rank: i64| {
                let row = rows.get(rank);
                Self {
                    count: row.get(0),
                    mean: row.narrow(0, 1, channels),
                    m2: row.narrow(0, 1 + channels, channels),
                }
            };
            Ok((1..reducer.world() as i64).fold(part(0), |merged, rank| merged.merge(&part(rank))))
        })
    }

    /// This sample where `keep`, a scalar of bool on the device, is true, and an empty one otherwise; so nobody has to read it.
    pub(super) fn only_if(&self, keep: &Tensor) -> Self {
        let or_zero = |values: &Tensor| values.where_self(keep, &values.zeros_like());
        no_grad(|| Self { count: or_zero(&self.count), mean: or_zero(&self.mean), m2: or_zero(&self.m2) })
    }
}
