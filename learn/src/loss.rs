//! Losses: of value functions, and of classes.
//!
//! A loss gives one number a row, `[B]`, and a mean makes the scalar of them: [`weighted_mean`] for importance weights, [`normalized_mean`] for
//! loss weights and masks.
//!
//! Those of value functions take predictions and targets `[B]` (one shape: `[B]` beside `[B, 1]` would broadcast to `[B, B]`, so it
//! panics); in [`weighted_mean`] the importance weight
//! multiplies the whole term, outside the square or Huber function (Schaul et al. 2016, algorithm 1).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, TchError, Tensor};

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

fn same_shape(a: &Tensor, b: &Tensor) {
    assert_eq!(a.size(), b.size(), "a loss is taken between tensors of one shape");
}
