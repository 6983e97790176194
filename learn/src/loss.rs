//! Losses of value functions. Each takes predictions and targets `[B]` (one shape: `[B]` beside `[B, 1]` would broadcast to `[B, B]`, so it
//! panics) and gives one loss a row, `[B]`; [`weighted_mean`] makes the scalar, with the importance weight
//! multiplying the whole term, outside the square or Huber function (Schaul et al. 2016, algorithm 1).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Reduction, Tensor};

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

fn same_shape(a: &Tensor, b: &Tensor) {
    assert_eq!(a.size(), b.size(), "a loss is taken between tensors of one shape");
}
