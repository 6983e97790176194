//! Target networks: slow copies that learners bootstrap from.

use crate::module::{Module, buffers, parameters};
use crate::shim::{self, ShimError};
use tch::{Tensor, no_grad};

/// An online network's tensors paired with its target's. Running statistics of batch normalization are copied along with the
/// parameters: a target that normalized with statistics of its own would be another function.
#[derive(Debug)]
pub struct TargetPair {
    online: Vec<Tensor>,
    target: Vec<Tensor>,
    online_buffers: Vec<Tensor>,
    target_buffers: Vec<Tensor>,
}

impl TargetPair {
    /// Pairs two modules of one architecture and makes `target` equal to `online`. The target's parameters stop asking for
    /// gradients.
    ///
    /// # Errors
    /// When libtorch cannot copy one into the other.
    pub fn new(online: &dyn Module, target: &dyn Module) -> Result<Self, ShimError> {
        for parameter in parameters(target) {
            let _ = no_grad(|| parameter.set_requires_grad(false));
        }
        let pair = Self {
            online: parameters(online),
            target: parameters(target),
            online_buffers: buffers(online),
            target_buffers: buffers(target),
        };
        pair.hard_update()?;
        Ok(pair)
    }

    /// θ′ ← θ, buffers too.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn hard_update(&self) -> Result<(), ShimError> {
        shim::foreach_copy(&self.target, &self.online)?;
        shim::foreach_copy(&self.target_buffers, &self.online_buffers)
    }

    /// Polyak averaging, θ′ ← θ′ + τ·(θ − θ′); buffers are copied whole. One kernel call for all parameters.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn polyak_update(&self, tau: f64) -> Result<(), ShimError> {
        shim::foreach_lerp(&self.target, &self.online, tau)?;
        shim::foreach_copy(&self.target_buffers, &self.online_buffers)
    }
}
