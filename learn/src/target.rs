//! Target networks: slow copies that learners bootstrap from.

use crate::module::{Module, buffers, parameters};
use crate::shim::{self, ShimError};
use tch::{Tensor, no_grad};

/// An online network paired with its target. Running statistics of batch normalization go the way of the parameters: they describe the
/// features of the network they stand in, so a slow copy of the weights with the fast one's statistics would be a function that nobody
/// trained.
#[derive(Debug)]
pub struct TargetPair {
    /// (target, online) of everything that can be averaged.
    averaged: (Vec<Tensor>, Vec<Tensor>),
    /// (target, online) of counters, which can only be copied.
    counters: (Vec<Tensor>, Vec<Tensor>),
}

impl TargetPair {
    /// Pairs two modules of one architecture and makes `target` equal to `online`. The target's parameters stop asking for
    /// gradients.
    ///
    /// # Errors
    /// When libtorch cannot copy one into the other.
    ///
    /// # Panics
    /// When they have different numbers of tensors.
    pub fn new(online: &dyn Module, target: &dyn Module) -> Result<Self, ShimError> {
        for parameter in parameters(target) {
            let _ = no_grad(|| parameter.set_requires_grad(false));
        }
        let split = |module: &dyn Module| -> (Vec<Tensor>, Vec<Tensor>) {
            let all = parameters(module).into_iter().chain(buffers(module));
            all.partition(|tensor| tensor.is_floating_point())
        };
        let ((target, target_counters), (online, online_counters)) = (split(target), split(online));
        let pair = Self { averaged: (target, online), counters: (target_counters, online_counters) };
        pair.hard_update()?;
        Ok(pair)
    }

    /// θ′ ← θ, buffers too.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn hard_update(&self) -> Result<(), ShimError> {
        shim::foreach_copy(&self.averaged.0, &self.averaged.1)?;
        shim::foreach_copy(&self.counters.0, &self.counters.1)
    }

    /// Polyak averaging, θ′ ← θ′ + τ·(θ − θ′), running statistics too; counters are copied. One kernel call for all that is averaged.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn polyak_update(&self, tau: f64) -> Result<(), ShimError> {
        shim::foreach_lerp(&self.averaged.0, &self.averaged.1, tau)?;
        shim::foreach_copy(&self.counters.0, &self.counters.1)
    }
}
