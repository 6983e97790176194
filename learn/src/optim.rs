//! Optimizers whose whole state is ours: it saves, loads, and stays on the device.

use crate::amp::Unscaled;
use crate::shim::{self, ShimError};
use crate::visit_tensor;
use rl_minibatch::{StateError, StateVisitor, scalar};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

/// Which optimizer, with its numbers; each defaults to PyTorch's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum OptimizerConfig {
    /// Stochastic gradient descent: b ← μ·b + (1 − dampening)·g, θ ← θ − lr·b (or lr·(g + μ·b) with Nesterov).
    Sgd {
        /// μ
        #[serde(default)]
        momentum: f64,
        /// Part of the gradient kept out of the momentum.
        #[serde(default)]
        dampening: f64,
        /// λ, added to the gradient as λ·θ.
        #[serde(default)]
        weight_decay: f64,
        /// Whether to look ahead along the momentum.
        #[serde(default)]
        nesterov: bool,
    },
    /// RMSprop (Hinton 2012): v ← α·v + (1 − α)·g², θ ← θ − lr·g/(√v + ε); centered subtracts the mean's square from v.
    RmsProp {
        /// α
        #[serde(default = "defaults::rms_alpha")]
        alpha: f64,
        /// ε
        #[serde(default = "defaults::eps")]
        eps: f64,
        /// λ, added to the gradient as λ·θ.
        #[serde(default)]
        weight_decay: f64,
        /// Momentum over the scaled gradients.
        #[serde(default)]
        momentum: f64,
        /// Whether v estimates the variance and not the second moment.
        #[serde(default)]
        centered: bool,
    },
    /// Adam (Kingma and Ba 2015): θ ← θ − lr·m̂/(√v̂ + ε).
    Adam {
        /// β₁
        #[serde(default = "defaults::beta1")]
        beta1: f64,
        /// β₂
        #[serde(default = "defaults::beta2")]
        beta2: f64,
        /// ε
        #[serde(default = "defaults::eps")]
        eps: f64,
        /// λ, added to the gradient as λ·θ.
        #[serde(default)]
        weight_decay: f64,
    },
    /// AdamW (Loshchilov and Hutter 2019): Adam with θ ← θ − lr·λ·θ apart from the gradient.
    AdamW {
        /// β₁
        #[serde(default = "defaults::beta1")]
        beta1: f64,
        /// β₂
        #[serde(default = "defaults::beta2")]
        beta2: f64,
        /// ε
        #[serde(default = "defaults::eps")]
        eps: f64,
        /// λ
        #[serde(default = "defaults::adamw_weight_decay")]
        weight_decay: f64,
    },
}

mod defaults {
    pub fn rms_alpha() -> f64 {
        0.99
    }
    pub fn eps() -> f64 {
        1e-8
    }
    pub fn beta1() -> f64 {
        0.9
    }
    pub fn beta2() -> f64 {
        0.999
    }
    pub fn adamw_weight_decay() -> f64 {
        0.01
    }
}

impl OptimizerConfig {
    /// Adam with PyTorch's numbers.
    pub fn adam() -> Self {
        Self::Adam {
            beta1: defaults::beta1(),
            beta2: defaults::beta2(),
            eps: defaults::eps(),
            weight_decay: 0.0,
        }
    }

    /// Checks that every number is in its range.
    ///
    /// # Errors
    /// One line naming `key` and the number.
    pub fn check(&self, key: &str) -> Result<(), String> {
        let fraction = |name: &str, value: f64| match (0.0..1.0).contains(&value) {
            true => Ok(()),
            false => Err(format!("{key}.{name} is {value}; it must be at least 0 and below 1")),
        };
        let not_negative = |name: &str, value: f64| match value >= 0.0 && value.is_finite() {
            true => Ok(()),
            false => Err(format!("{key}.{name} is {value}; it must be finite and at least 0")),
        };
        match *self {
            Self::Sgd { momentum, dampening, weight_decay, nesterov } => {
                not_negative("momentum", momentum)?;
                not_negative("weight_decay", weight_decay)?;
                if nesterov && (momentum == 0.0 || dampening != 0.0) {
                    return Err(format!("{key}.nesterov needs a momentum above 0 and a dampening of 0"));
                }
                not_negative("dampening", dampening)
            }
            Self::RmsProp { alpha, eps, weight_decay, momentum, .. } => {
                fraction("alpha", alpha)?;
                not_negative("eps", eps)?;
                not_negative("momentum", momentum)?;
                not_negative("weight_decay", weight_decay)
            }
            Self::Adam { beta1, beta2, eps, weight_decay }
            | Self::AdamW { beta1, beta2, eps, weight_decay } => {
                fraction("beta1", beta1)?;
                fraction("beta2", beta2)?;
                not_negative("eps", eps)?;
                not_negative("weight_decay", weight_decay)
            }
        }
    }
}

/// An optimizer over a fixed list of parameters. One kernel call a step for SGD, Adam and AdamW, a handful of foreach calls for
/// RMSprop, whatever the number of parameters.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    parameters: Vec<Tensor>,
    /// A scalar on the parameters' device, so that a captured step follows its changes.
    learning_rate: Tensor,
    current_rate: f64,
    /// Named lists of one tensor a parameter: moments, momenta, step counts.
    slots: Vec<(&'static str, Vec<Tensor>)>,
    updates: u64,
}

impl Optimizer {
    /// An optimizer of `parameters` (handles: they share the network's memory) with learning rate 0 until
    /// [`set_learning_rate`](Self::set_learning_rate).
    ///
    /// # Panics
    /// When `parameters` is empty.
    pub fn new(config: OptimizerConfig, parameters: Vec<Tensor>) -> Self {
        assert!(!parameters.is_empty(), "an optimizer needs a parameter");
        let zeros = || -> Vec<Tensor> { parameters.iter().map(|p| p.detach().zeros_like()).collect() };
        let device = parameters[0].device();
        let counts = || -> Vec<Tensor> {
            parameters.iter().map(|_| Tensor::zeros([], (Kind::Float, device))).collect()
        };
        let slots = match &config {
            OptimizerConfig::Sgd { momentum, .. } => {
                if *momentum > 0.0 {
                    vec![("momentum", zeros())]
                } else {
                    vec![]
                }
            }
            OptimizerConfig::RmsProp { momentum, centered, .. } => {
                let mut slots = vec![("square_avg", zeros())];
                if *centered {
                    slots.push(("grad_avg", zeros()));
                }
                if *momentum > 0.0 {
                    slots.push(("momentum", zeros()));
                }
                slots
            }
            OptimizerConfig::Adam { .. } | OptimizerConfig::AdamW { .. } => {
                vec![("exp_avg", zeros()), ("exp_avg_sq", zeros()), ("step", counts())]
            }
        };
        let learning_rate = Tensor::zeros([], (Kind::Float, device));
        Self { config, parameters, learning_rate, current_rate: 0.0, slots, updates: 0 }
    }

    /// The trained tensors, in the order in which gradients are to come.
    pub fn parameters(&self) -> &[Tensor] {
        &self.parameters
    }

    /// Steps taken, those of [`step_unscaled`](Self::step_unscaled) included that the device skipped.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Sets the learning rate of the steps to come; written to the device only when it changed.
    pub fn set_learning_rate(&mut self, rate: f64) {
        if rate != self.current_rate {
            self.current_rate = rate;
            let _ = no_grad(|| self.learning_rate.fill_(rate));
        }
    }

    /// One step along `gradients`, one a parameter in their order.
    ///
    /// # Errors
    /// When libtorch refuses the tensors (another dtype or device).
    ///
    /// # Panics
    /// When the number of gradients is not that of the parameters.
    pub fn step(&mut self, gradients: &[Tensor]) -> Result<(), ShimError> {
        self.advance(gradients, None)
    }

    /// One step along gradients that a [`GradScaler`](crate::amp::GradScaler) has unscaled; nothing at all, the moments and the
    /// rule's own step count included, when one of them was not finite. That is decided on the device.
    ///
    /// [`updates`](Self::updates) counts a skipped step too: the host does not know of it. For RMSprop the parameters and moments are
    /// copied before the step; SGD with momentum and dampening reads the decision back until its first step is taken, as the first
    /// momentum is the whole gradient.
    ///
    /// # Errors
    /// When libtorch refuses the tensors (another dtype or device).
    ///
    /// # Panics
    /// When the number of gradients is not that of the parameters.
    pub fn step_unscaled(&mut self, gradients: &[Tensor], unscaled: &Unscaled) -> Result<(), ShimError> {
        let found_inf = unscaled.found_inf();
        match self.config {
            OptimizerConfig::Sgd { momentum, dampening, .. }
                if self.updates == 0 && momentum > 0.0 && dampening != 0.0 =>
            {
                if found_inf.double_value(&[]) != 0.0 {
                    return Ok(());
                }
                self.advance(gradients, None)
            }
            OptimizerConfig::RmsProp { .. } => {
                let moments = self.slots.iter().flat_map(|(_, tensors)| tensors);
                let state: Vec<Tensor> = self.parameters.iter().chain(moments).map(|t| t.detach()).collect();
                let kept: Vec<Tensor> = state.iter().map(Tensor::copy).collect();
                self.advance(gradients, None)?;
                shim::restore_if(&state, &kept, found_inf)
            }
            _ => self.advance(gradients, Some(found_inf)),
        }
    }

    fn advance(&mut self, gradients: &[Tensor], found_inf: Option<&Tensor>) -> Result<(), ShimError> {
        let (p, lr) = (&self.parameters, &self.learning_rate);
        let slot = |name: &str| -> &[Tensor] {
            self.slots.iter().find(|(n, _)| *n == name).map_or(&[], |(_, tensors)| tensors)
        };
        match self.config {
            OptimizerConfig::Sgd { momentum, dampening, weight_decay, nesterov } => {
                let first = self.updates == 0;
                let sgd = shim::Sgd { momentum, dampening, weight_decay, nesterov, first, found_inf };
                shim::fused_sgd(p, gradients, slot("momentum"), lr, &sgd)?;
            }
            OptimizerConfig::RmsProp { alpha, eps, weight_decay, momentum, .. } => {
                let rms = shim::RmsProp { alpha, eps, weight_decay, momentum };
                let (square_avg, grad_avg) = (slot("square_avg"), slot("grad_avg"));
                shim::foreach_rmsprop(p, gradients, square_avg, grad_avg, slot("momentum"), lr, &rms)?;
            }
            OptimizerConfig::Adam { beta1, beta2, eps, weight_decay }
            | OptimizerConfig::AdamW { beta1, beta2, eps, weight_decay } => {
                let decoupled = matches!(self.config, OptimizerConfig::AdamW { .. });
                let adam = shim::Adam { beta1, beta2, weight_decay, eps, decoupled, found_inf };
                let (m, v, steps) = (slot("exp_avg"), slot("exp_avg_sq"), slot("step"));
                shim::fused_adam(p, gradients, m, v, steps, lr, &adam)?;
            }
        }
        self.updates += 1;
        Ok(())
    }

    /// Shows moments, step counts and the learning rate. The parameters themselves belong to their network.
    ///
    /// # Errors
    /// Those of the visitor.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        scalar(visitor, "updates", &mut self.updates)?;
        scalar(visitor, "learning_rate", &mut self.current_rate)?;
        if visitor.loading() {
            let _ = no_grad(|| self.learning_rate.fill_(self.current_rate));
        }
        for (name, tensors) in &self.slots {
            for (i, tensor) in tensors.iter().enumerate() {
                visit_tensor(visitor, &format!("{name}.{i}"), tensor)?;
            }
        }
        Ok(())
    }
}

/// Scales `gradients` in place so that their joint 2-norm is at most `max_norm`, without reading it back; gives the norm before as
/// a scalar on the device. As PyTorch's `clip_grad_norm_`: factor min(1, max_norm/(norm + 1e-6)).
///
/// # Errors
/// When libtorch refuses the tensors.
pub fn clip_norm(gradients: &[Tensor], max_norm: f64) -> Result<Tensor, ShimError> {
    shim::foreach_clip_norm(gradients, max_norm)
}
