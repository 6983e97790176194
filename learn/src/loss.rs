//! Losses of value functions. Each takes predictions and targets `[B]` (one shape: `[B]` beside `[B, 1]` would broadcast to `[B, B]`, so it
//! panics) and gives one loss a row, `[B]`; [`weighted_mean`] makes the scalar, with the importance weight
//! multiplying the whole term, outside the square or Huber function (Schaul et al. 2016, algorithm 1).

use crate::shim::{self, ShimError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Reduction, Tensor, no_grad};

/// The function of the temporal-difference error that is minimized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// Huber's loss with threshold 1: δ²/2 where |δ| ≤ 1, |δ| − 1/2 beyond (Mnih et al. 2015 clip the error like this).
    Huber,
    /// The squared error δ².
    Mse,
}

impl Loss {
    /// The loss of each row, for `prediction` and `target` of one shape.
    pub fn each(self, prediction: &Tensor, target: &Tensor) -> Tensor {
        match self {
            Loss::Huber => huber(prediction, target),
            Loss::Mse => mse(prediction, target),
        }
    }
}

/// Huber's loss with threshold 1, elementwise.
pub fn huber(prediction: &Tensor, target: &Tensor) -> Tensor {
    same_shape(prediction, target);
    prediction.huber_loss(target, Reduction::None, 1.0)
}

/// The squared error, elementwise.
pub fn mse(prediction: &Tensor, target: &Tensor) -> Tensor {
    same_shape(prediction, target);
    prediction.mse_loss(target, Reduction::None)
}

/// mean(weight · loss) over the rows of `[B]` tensors, a scalar.
pub fn weighted_mean(each: &Tensor, weight: &Tensor) -> Tensor {
    same_shape(each, weight);
    (each * weight).mean(each.kind())
}

/// What [`td_loss`] gives. All but `loss` is outside the graph.
#[derive(Debug)]
pub struct TdLoss {
    /// mean(weight · ℓ(δ)), a scalar in the graph of the values.
    pub loss: Tensor,
    /// The value of each row's action, `[B]`.
    pub q: Tensor,
    /// |δ| of each row, `[B]`.
    pub td_error: Tensor,
    /// The mean of `q`, a scalar.
    pub q_mean: Tensor,
}

/// The loss of temporal-difference errors δ = target − q: mean over the rows of weight · ℓ(δ), Schaul et al. 2016, algorithm 1.
///
/// `q` is `[B, n]` with `action` i64 `[B]` saying which value of each row is meant, or `[B]` without one; `target` and `weight` are
/// `[B]`, and nothing flows back into them. On a CPU, f32 takes one pass forward and one backward; anything else is made of
/// libtorch's operators, with the same numbers up to rounding.
///
/// # Errors
/// When shapes or dtypes do not fit, or an action is none of the n.
pub fn td_loss(
    loss: Loss,
    q: &Tensor,
    action: Option<&Tensor>,
    target: &Tensor,
    weight: &Tensor,
) -> Result<TdLoss, ShimError> {
    if on_host([q, target, weight]) {
        let [loss, q, td_error, q_mean] = shim::td_loss(q, action, target, weight, loss == Loss::Huber)?;
        return Ok(TdLoss { loss, q, td_error, q_mean });
    }
    let q = match action {
        Some(action) => q.f_gather(1, &action.f_unsqueeze(1)?, false)?.f_squeeze_dim(1)?,
        None => q.shallow_clone(),
    };
    let loss = weighted_mean(&loss.each(&q, target), weight);
    let q = q.detach();
    let (td_error, q_mean) = no_grad(|| ((target - &q).abs_(), q.mean(q.kind())));
    Ok(TdLoss { loss, q, td_error, q_mean })
}

/// The target y = reward + discount · q(·, a), where a maximizes `chooser`'s row: the online network's values for double
/// Q-learning (van Hasselt et al. 2016), or `q`'s own for `None` (Mnih et al. 2015). `q` and `chooser` are `[B, n]`, or `[B]` for a single value
/// a row; the others `[B]`. Outside any graph. One pass for f32 on a CPU, else libtorch's operators.
///
/// # Errors
/// When shapes or dtypes do not fit.
pub fn bootstrap(
    reward: &Tensor,
    discount: &Tensor,
    q: &Tensor,
    chooser: Option<&Tensor>,
) -> Result<Tensor, ShimError> {
    if on_host([reward, discount, q]) && chooser.is_none_or(|chooser| on_host([chooser])) {
        return shim::bootstrap(reward, discount, q, chooser);
    }
    no_grad(|| {
        let best = match chooser {
            _ if q.dim() == 1 => q.shallow_clone(),
            Some(chooser) => q.f_gather(1, &chooser.f_argmax(1, true)?, false)?.f_squeeze_dim(1)?,
            None => q.f_amax([1i64].as_slice(), false)?,
        };
        Ok(reward.f_add(&discount.f_mul(&best)?)?)
    })
}

/// The number of the largest of each row of `q`, `[B, n]`, on the host: greedy actions. Of equal ones the first, and NaN is larger than all, as
/// in torch's `argmax`.
///
/// # Errors
/// When `q` is not a matrix, or has no columns.
pub fn argmax(q: &Tensor) -> Result<Vec<i64>, ShimError> {
    if on_host([q]) && q.dim() == 2 {
        return shim::argmax(q);
    }
    Ok(Vec::<i64>::try_from(q.f_argmax(1, false)?.f_to_device(Device::Cpu)?)?)
}

/// Whether all are f32 in the CPU's memory.
fn on_host<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> bool {
    tensors.into_iter().all(|tensor| tensor.device() == Device::Cpu && tensor.kind() == Kind::Float)
}

fn same_shape(a: &Tensor, b: &Tensor) {
    assert_eq!(a.size(), b.size(), "a loss is taken between tensors of one shape");
}
