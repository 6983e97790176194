//! Losses: of value functions, and of classes.
//!
//! A loss gives one number a row, `[B]`, and a mean makes the scalar of them: [`weighted_mean`] for importance weights, [`normalized_mean`] for
//! loss weights and masks.
//!
//! Those of value functions take predictions and targets `[B]` (one shape: `[B]` beside `[B, 1]` would broadcast to `[B, B]`, so it
//! panics); in [`weighted_mean`] the importance weight
//! multiplies the whole term, outside the square or Huber function (Schaul et al. 2016, algorithm 1).

use crate::agent::Update;
use crate::shim::{self, ShimError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Reduction, TchError, Tensor, no_grad};

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

/// Σ weightᵢ·lossᵢ / Σ weightᵢ over the rows of `[B]` tensors, a scalar: a mean in which a row of weight 2 counts as two rows, and one of
/// weight 0 (padding) not at all. All weights 0 give NaN. A [`MiniBatch`](crate::MiniBatch) of a [`DeviceLoader`](crate::DeviceLoader)
/// has such weights. In micro-batches its share is that of the weights (`rl_minibatch::micro_batches_weighted`).
pub fn normalized_mean(each: &Tensor, weight: &Tensor) -> Tensor {
    same_shape(each, weight);
    let weight = weight.to_kind(each.kind());
    (each * &weight).sum(each.kind()) / weight.sum(each.kind())
}

/// The cross-entropy of each row, `[B]`, with the class's label smoothed by ε = `smoothing` (Szegedy et al. 2016, section 7):
///
/// ```text
/// lossᵢ = −(1 − ε)·log pᵢ(yᵢ) − ε/C · Σ_c log pᵢ(c),   pᵢ = softmax(logitsᵢ)
/// ```
///
/// as PyTorch's `cross_entropy(logits, classes, reduction="none", label_smoothing=ε)`. `logits` are floats `[B, C]`; `classes` `[B]` are of
/// any integer dtype, from 0 to C − 1, or −100 for a row whose loss is 0. On a GPU libtorch tells of other classes only later, by an
/// assertion of the device.
///
/// ```
/// use rl_learn::{Tensor, loss};
/// let logits = Tensor::from_slice(&[2.0f32, 0.0, 0.0, 3.0]).reshape([2, 2]);
/// let each = loss::cross_entropy(&logits, &Tensor::from_slice(&[0u8, 1]), 0.1)?;
/// let weight = Tensor::from_slice(&[1.0f32, 0.0]); // the second row is padding
/// let mean = loss::normalized_mean(&each, &weight);
/// assert_eq!(mean.double_value(&[]), each.double_value(&[0]));
/// # Ok::<(), loss::LossError>(())
/// ```
///
/// # Errors
/// [`LossError`].
pub fn cross_entropy(logits: &Tensor, classes: &Tensor, smoothing: f64) -> Result<Tensor, LossError> {
    let (of_logits, of_classes) = (logits.size(), classes.size());
    if of_logits.len() != 2 || of_classes.len() != 1 || of_logits[0] != of_classes[0] {
        return Err(LossError::Shapes { logits: of_logits, classes: of_classes });
    }
    if !(0.0..=1.0).contains(&smoothing) {
        return Err(LossError::Smoothing { smoothing });
    }
    if classes.is_floating_point() {
        return Err(LossError::Classes { kind: classes.kind() });
    }
    let classes = classes.to_kind(Kind::Int64);
    Ok(logits.f_cross_entropy_loss::<Tensor>(&classes, None, Reduction::None, -100, smoothing)?)
}

/// Why there is no loss.
#[derive(Debug, thiserror::Error)]
pub enum LossError {
    /// Logits and classes that do not belong together.
    #[error("logits {logits:?} and classes {classes:?} came to a cross-entropy; it takes [B, C] and [B]")]
    Shapes {
        /// Shape of the logits.
        logits: Vec<i64>,
        /// Shape of the classes.
        classes: Vec<i64>,
    },
    /// Labels cannot be smoothed so much.
    #[error("the label smoothing is {smoothing}; it must lie between 0 and 1")]
    Smoothing {
        /// What came.
        smoothing: f64,
    },
    /// Classes that are no numbers of classes.
    #[error("the classes are {kind:?}; they must be whole numbers, one a row")]
    Classes {
        /// What they are.
        kind: Kind,
    },
    /// libtorch refused: a class that is not there, most likely.
    #[error("no cross-entropy: {}", crate::first_line(.0))]
    Torch(#[from] TchError),
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

impl TdLoss {
    /// What an update on this loss yields: |δ|, and `loss` and `q_mean` for the log.
    pub fn update(self) -> Update {
        Update {
            td_error: self.td_error,
            scalars: vec![("loss", self.loss.detach()), ("q_mean", self.q_mean)],
        }
    }
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
