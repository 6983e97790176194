//! Which optimizer, with its numbers: what a configuration file says.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// LARS, layer-wise adaptive rate scaling (You, Gitman and Ginsburg 2017): each tensor's step is in proportion to the tensor. With
    /// d = g + λ·θ and r = η·‖θ‖/(‖g‖ + λ·‖θ‖ + ε): b ← μ·b + r·d, θ ← θ − lr·b (or lr·(r·d + μ·b) with Nesterov). As in PyTorch's SGD, and
    /// unlike the paper, lr stands outside the momentum, so that a change of it acts at once.
    Lars {
        /// μ
        #[serde(default = "defaults::lars_momentum")]
        momentum: f64,
        /// λ
        #[serde(default)]
        weight_decay: f64,
        /// η, the trust coefficient.
        #[serde(default = "defaults::trust_coefficient")]
        trust_coefficient: f64,
        /// ε
        #[serde(default = "defaults::eps")]
        eps: f64,
        /// Whether to look ahead along the momentum.
        #[serde(default)]
        nesterov: bool,
        /// Whether lr·r is bounded by lr, as in LARC: r ← min(r/lr, 1).
        #[serde(default)]
        clip: bool,
    },
    /// LAMB (You et al. 2020, algorithm 2): Adam's step u = m̂/(√v̂ + ε) + λ·θ with a norm in proportion to the tensor's:
    /// θ ← θ − lr·min(‖θ‖/‖u‖, bound)·u.
    Lamb {
        /// β₁
        #[serde(default = "defaults::beta1")]
        beta1: f64,
        /// β₂
        #[serde(default = "defaults::beta2")]
        beta2: f64,
        /// ε
        #[serde(default = "defaults::lamb_eps")]
        eps: f64,
        /// λ
        #[serde(default = "defaults::adamw_weight_decay")]
        weight_decay: f64,
        /// Whether m̂ = m/(1 − β₁ᵗ) and v̂ = v/(1 − β₂ᵗ); otherwise they are m and v.
        #[serde(default = "defaults::yes")]
        bias_correction: bool,
        /// The bound of the trust ratio ‖θ‖/‖u‖; none if left out.
        #[serde(default)]
        max_trust_ratio: Option<f64>,
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
    pub fn lars_momentum() -> f64 {
        0.9
    }
    pub fn trust_coefficient() -> f64 {
        0.001
    }
    pub fn lamb_eps() -> f64 {
        1e-6
    }
    pub fn yes() -> bool {
        true
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

    /// LARS with momentum 0.9, trust coefficient 0.001 and the given weight decay.
    pub fn lars(weight_decay: f64) -> Self {
        Self::Lars {
            momentum: defaults::lars_momentum(),
            weight_decay,
            trust_coefficient: defaults::trust_coefficient(),
            eps: defaults::eps(),
            nesterov: false,
            clip: false,
        }
    }

    /// LAMB with the paper's numbers (β 0.9 and 0.999, ε 1e-6) and the given weight decay.
    pub fn lamb(weight_decay: f64) -> Self {
        Self::Lamb {
            beta1: defaults::beta1(),
            beta2: defaults::beta2(),
            eps: defaults::lamb_eps(),
            weight_decay,
            bias_correction: true,
            max_trust_ratio: None,
        }
    }

    /// λ, which a parameter group may replace by its own.
    pub fn weight_decay(&self) -> f64 {
        match *self {
            Self::Sgd { weight_decay, .. }
            | Self::RmsProp { weight_decay, .. }
            | Self::Adam { weight_decay, .. }
            | Self::AdamW { weight_decay, .. }
            | Self::Lars { weight_decay, .. }
            | Self::Lamb { weight_decay, .. } => weight_decay,
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
        let positive = |name: &str, value: f64| match value > 0.0 && value.is_finite() {
            true => Ok(()),
            false => Err(format!("{key}.{name} is {value}; it must be finite and above 0")),
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
            Self::Lars { momentum, weight_decay, trust_coefficient, eps, nesterov, .. } => {
                not_negative("momentum", momentum)?;
                not_negative("weight_decay", weight_decay)?;
                not_negative("eps", eps)?;
                if nesterov && momentum == 0.0 {
                    return Err(format!("{key}.nesterov needs a momentum above 0"));
                }
                positive("trust_coefficient", trust_coefficient)
            }
            Self::Lamb { beta1, beta2, eps, weight_decay, max_trust_ratio, .. } => {
                fraction("beta1", beta1)?;
                fraction("beta2", beta2)?;
                not_negative("eps", eps)?;
                not_negative("weight_decay", weight_decay)?;
                max_trust_ratio.map_or(Ok(()), |bound| positive("max_trust_ratio", bound))
            }
        }
    }
}
