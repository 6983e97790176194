//! Exponential moving average of weights.

use crate::module::{Module, Role};
use crate::shim::{self, ShimError};
use crate::visit_tensor;
use rl_minibatch::{StateError, StateVisitor, scalar, scope};
use tch::Tensor;

/// A slow copy of a network's weights, θ̄ ← θ̄ + (1 − d)·(θ − θ̄), which often does better on held-out data than the weights themselves
/// (Polyak and Juditsky 1992; with warm-up as in TensorFlow's `ExponentialMovingAverage`, d = min(decay, (1 + t)/(10 + t)) after t
/// updates, so that the first weights are soon forgotten). Buffers are copied: they describe the data, and are averages already.
///
/// One foreach call an update for the parameters and one for the buffers. Needs the network's memory once more, and once more again while
/// exchanging.
#[derive(Debug)]
pub struct Ema {
    names: Vec<String>,
    /// (average, network)
    parameters: (Vec<Tensor>, Vec<Tensor>),
    /// (copy, network)
    buffers: (Vec<Tensor>, Vec<Tensor>),
    decay: f64,
    warm_up: bool,
    updates: u64,
    swapped: bool,
}

impl Ema {
    /// An average that begins as `module` is now. `decay` is d, usually 0.99 to 0.9999; `warm_up` lets it grow from 0.1.
    ///
    /// # Errors
    /// One line when `decay` is not within 0 to 1.
    pub fn new(module: &dyn Module, decay: f64, warm_up: bool) -> Result<Self, String> {
        if !(0.0..=1.0).contains(&decay) {
            return Err(format!("the decay of a moving average is {decay}; it must lie between 0 and 1"));
        }
        let (mut names, mut buffer_names) = (Vec::new(), Vec::new());
        let (mut parameters, mut buffers) = ((vec![], vec![]), (vec![], vec![]));
        module.walk(&mut |name, tensor, role| {
            let (to, names) = match role {
                Role::Parameter => (&mut parameters, &mut names),
                Role::Buffer => (&mut buffers, &mut buffer_names),
            };
            to.0.push(tensor.detach().copy());
            to.1.push(tensor.shallow_clone());
            names.push(name.to_string());
        });
        names.append(&mut buffer_names);
        Ok(Self { names, parameters, buffers, decay, warm_up, updates: 0, swapped: false })
    }

    /// Moves the average towards the network's weights; to be called after every optimizer step.
    ///
    /// # Errors
    /// When the average is swapped in, and when libtorch fails.
    pub fn update(&mut self) -> Result<(), ShimError> {
        if self.swapped {
            return Err(ShimError(
                "the average stands in the network; swap it out before the next update".to_string(),
            ));
        }
        shim::foreach_lerp(&self.parameters.0, &self.parameters.1, 1.0 - self.decay())?;
        shim::foreach_copy(&self.buffers.0, &self.buffers.1)?;
        self.updates += 1;
        Ok(())
    }

    /// d of the next update.
    pub fn decay(&self) -> f64 {
        let t = self.updates as f64;
        if self.warm_up { self.decay.min((1.0 + t) / (10.0 + t)) } else { self.decay }
    }

    /// Updates made.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Whether the average stands in the network now.
    pub fn swapped(&self) -> bool {
        self.swapped
    }

    /// Exchanges the average and the network's values, in their memory: the first call puts the average into the network, the next takes it out.
    /// [`evaluate`](Self::evaluate) does both.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn swap(&mut self) -> Result<(), ShimError> {
        shim::foreach_swap(&self.parameters.0, &self.parameters.1)?;
        shim::foreach_swap(&self.buffers.0, &self.buffers.1)?;
        self.swapped = !self.swapped;
        Ok(())
    }

    /// What `work` gives while the average stands in the network; the network has its own weights again afterwards, also after a panic.
    ///
    /// # Errors
    /// When the average is swapped in already, and when libtorch fails.
    pub fn evaluate<T>(&mut self, work: impl FnOnce() -> T) -> Result<T, ShimError> {
        struct Back<'a>(&'a mut Ema);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                // Only while unwinding: otherwise it is swapped already, and its error was given to the caller.
                if self.0.swapped {
                    let _ = self.0.swap();
                }
            }
        }
        if self.swapped {
            return Err(ShimError("the average stands in the network already".to_string()));
        }
        self.swap()?;
        let back = Back(self);
        let result = work();
        back.0.swap()?;
        Ok(result)
    }

    /// Overwrites the network's weights and buffers with the average, for good.
    ///
    /// # Errors
    /// When the average is swapped in, and when libtorch fails.
    pub fn copy_to_network(&self) -> Result<(), ShimError> {
        if self.swapped {
            return Err(ShimError("the average stands in the network already".to_string()));
        }
        shim::foreach_copy(&self.parameters.1, &self.parameters.0)?;
        shim::foreach_copy(&self.buffers.1, &self.buffers.0)
    }

    /// Shows the count and the averages, under the network's names.
    ///
    /// # Errors
    /// When the average is swapped in, and those of the visitor.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        if self.swapped {
            return Err(StateError::Invalid {
                path: "average".to_string(),
                why: "it stands in the network; swap it out first".to_string(),
            });
        }
        scalar(visitor, "updates", &mut self.updates)?;
        scope(visitor, "average", |v| {
            let tensors = self.parameters.0.iter().chain(&self.buffers.0);
            self.names.iter().zip(tensors).try_for_each(|(name, tensor)| visit_tensor(v, name, tensor))
        })
    }
}
