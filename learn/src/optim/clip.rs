//! Bounds on gradients, on the device.

use crate::shim::{self, ShimError};
use tch::Tensor;

/// Scales `gradients` in place so that their joint 2-norm is at most `max_norm`, without reading it back; gives the norm before as
/// a scalar on the device. As PyTorch's `clip_grad_norm_`: factor min(1, max_norm/(norm + 1e-6)).
///
/// # Errors
/// When libtorch refuses the tensors.
pub fn clip_norm(gradients: &[Tensor], max_norm: f64) -> Result<Tensor, ShimError> {
    shim::foreach_clip_norm(gradients, max_norm)
}

/// Clamps every element of `gradients` to ±`bound` in place, as PyTorch's `clip_grad_value_`; NaN stays NaN. Two foreach calls.
///
/// # Errors
/// When libtorch refuses the tensors.
pub fn clip_value(gradients: &[Tensor], bound: f64) -> Result<(), ShimError> {
    shim::foreach_clip_value(gradients, bound)
}
