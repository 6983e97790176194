//! Mixed precision (Micikevicius et al. 2018): 16-bit arithmetic where it pays, over parameters that stay f32.
//!
//! * [`autocast`] runs a closure in which libtorch takes matrix products and convolutions in bf16 or f16, and what needs the range
//!   (norms, losses, softmax) in f32. The forward pass and the loss belong inside, the backward pass follows the types of the forward one.
//! * [`GradScaler`] keeps small gradients from vanishing in f16, whose smallest number is 6e-8: the loss is multiplied by a scale, the
//!   gradients are divided by it, and steps whose gradients have overflown are skipped. bf16 has the range of f32 and needs none.
//!
//! ```
//! use rl_learn::amp::{GradScaler, GradScalerConfig, Precision, autocast};
//! use rl_learn::{Device, Kind, Optimizer, OptimizerConfig, Tensor, clip_norm, gradients};
//!
//! let weight = Tensor::ones([1, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
//! let mut optimizer = Optimizer::new(OptimizerConfig::adam(), vec![weight.shallow_clone()]);
//! optimizer.set_learning_rate(1e-2);
//! let mut scaler = GradScaler::new(GradScalerConfig::default(), Device::Cpu);
//! let x = Tensor::ones([8, 4], (Kind::Float, Device::Cpu));
//!
//! let loss = autocast(Precision::F16, Device::Cpu, || x.linear::<Tensor>(&weight, None).square().mean(Kind::Float));
//! let gradients = gradients(&scaler.scale(&loss), optimizer.parameters());
//! let unscaled = scaler.unscale(&gradients)?;
//! clip_norm(&gradients, 1.0)?; // clipping sees the true gradients
//! optimizer.step_unscaled(&gradients, &unscaled)?;
//! scaler.update()?;
//! # Ok::<(), rl_learn::ShimError>(())
//! ```

use crate::optim::Optimizer;
use crate::shim::{self, Autocast, ShimError};
use crate::visit_tensor;
use rl_minibatch::{StateError, StateVisitor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

/// The type in which autocast takes matrix products and convolutions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// No autocast: everything in the types of the tensors.
    #[default]
    F32,
    /// 8 bits of exponent and 8 of precision: the range of f32, no scaler needed.
    Bf16,
    /// 5 bits of exponent and 11 of precision: up to 65,504; gradients need a [`GradScaler`].
    F16,
}

impl Precision {
    /// The tensor type of this precision.
    pub fn kind(self) -> Kind {
        match self {
            Precision::F32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
            Precision::F16 => Kind::Half,
        }
    }
}

/// Runs `body` with autocast to `precision` for operations on `device` in this thread, and puts back what was before, also when `body`
/// panics. Scopes nest, and [`Precision::F32`] switches autocast off within one. On devices other than the CPU and CUDA `body` runs as
/// it is.
///
/// Casts of parameters are not kept from one use to the next, as `torch.autocast` keeps them until its scope ends: an optimizer's step or a
/// target update inside the scope would leave casts of the old values. A parameter that is used k times is cast k times.
pub fn autocast<T>(precision: Precision, device: Device, body: impl FnOnce() -> T) -> T {
    let cuda = match device {
        Device::Cpu => false,
        Device::Cuda(_) => true,
        _ => return body(),
    };
    let before = shim::autocast_now(cuda);
    let now = match precision {
        Precision::F32 => Autocast { enabled: false, ..before },
        _ => Autocast { enabled: true, cached: false, dtype: number(precision) },
    };
    let _scope = Scope { cuda, before: shim::set_autocast(cuda, now) };
    body()
}

/// libtorch's number of the type; `native/amp.cc` asserts them.
fn number(precision: Precision) -> i32 {
    match precision {
        Precision::F32 => 6,
        Precision::Bf16 => 15,
        Precision::F16 => 5,
    }
}

/// Puts back, when it goes, what was in force.
struct Scope {
    cuda: bool,
    before: Autocast,
}

impl Drop for Scope {
    fn drop(&mut self) {
        shim::set_autocast(self.cuda, self.before);
    }
}

/// The numbers of a [`GradScaler`]; each defaults to PyTorch's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GradScalerConfig {
    /// Scale of the first step.
    pub init_scale: f64,
    /// What the scale is multiplied by after `growth_interval` updates without an overflow.
    pub growth_factor: f64,
    /// What the scale is multiplied by after an overflow.
    pub backoff_factor: f64,
    /// Updates in a row without an overflow before the scale grows.
    pub growth_interval: u32,
}

impl Default for GradScalerConfig {
    fn default() -> Self {
        Self { init_scale: 65536.0, growth_factor: 2.0, backoff_factor: 0.5, growth_interval: 2000 }
    }
}

impl GradScalerConfig {
    /// Checks that every number is in its range.
    ///
    /// # Errors
    /// One line naming `key` and the number.
    pub fn check(&self, key: &str) -> Result<(), String> {
        let must = |holds: bool, name: &str, value: f64, what: &str| match holds {
            true => Ok(()),
            false => Err(format!("{key}.{name} is {value}; it must {what}")),
        };
        let (scale, growth, backoff) = (self.init_scale, self.growth_factor, self.backoff_factor);
        let fits = scale > 0.0 && scale <= f64::from(f32::MAX);
        must(fits, "init_scale", scale, "lie above 0 and be finite in f32")?;
        must(growth > 1.0 && growth.is_finite(), "growth_factor", growth, "be finite and above 1")?;
        must(backoff > 0.0 && backoff < 1.0, "backoff_factor", backoff, "lie between 0 and 1")?;
        let interval = self.growth_interval;
        let fits = interval >= 1 && interval <= i32::MAX as u32;
        must(fits, "growth_interval", f64::from(interval), "be at least 1 and fit into 31 bits")
    }
}

/// What is known of gradients that were divided by the scale; see [`GradScaler::unscale`].
#[derive(Debug)]
pub struct Unscaled {
    found_inf: Tensor,
}

impl Unscaled {
    /// An f32 scalar on the gradients' device: 1 when one of their elements is not finite, else 0.
    pub fn found_inf(&self) -> &Tensor {
        &self.found_inf
    }
}

/// Scales losses so that f16 gradients neither vanish nor overflow, as `torch.amp.GradScaler`.
///
/// The scale s multiplies the loss. When a gradient of it is not finite, that step is skipped and s ← s·backoff; after
/// `growth_interval` updates in a row without one, s ← s·growth. s, the count towards growth and the decision to skip live on the
/// device: nothing here waits for it.
///
/// One update is: [`scale`](Self::scale) each loss; [`unscale`](Self::unscale) each optimizer's gradients (after the last micro-batch
/// and after ranks have reduced them, so that all skip together); [`Optimizer::step_unscaled`]; [`update`](Self::update) once.
#[derive(Debug)]
pub struct GradScaler {
    config: GradScalerConfig,
    /// f32 scalar.
    scale: Tensor,
    /// i32 scalar: updates since the last overflow or growth.
    growth_tracker: Tensor,
    /// f32 scalar: whether an overflow was found since the last update.
    found_inf: Tensor,
    /// i64 scalar.
    skipped: Tensor,
}

impl GradScaler {
    /// A scaler of losses on `device`. `config` should have passed [`GradScalerConfig::check`].
    pub fn new(config: GradScalerConfig, device: Device) -> Self {
        let zero = |kind| Tensor::zeros([], (kind, device));
        let scale = Tensor::full([] as [i64; 0], config.init_scale, (Kind::Float, device));
        let (growth_tracker, found_inf) = (zero(Kind::Int), zero(Kind::Float));
        Self { config, scale, growth_tracker, found_inf, skipped: zero(Kind::Int64) }
    }

    /// `loss` times the scale, to be differentiated in its place.
    pub fn scale(&self, loss: &Tensor) -> Tensor {
        loss * &self.scale
    }

    /// Divides `gradients`, those of a scaled loss, by the scale in place, and looks for elements that are not finite. All of them, once.
    ///
    /// # Errors
    /// When libtorch refuses the tensors (another device than the scaler's).
    pub fn unscale(&mut self, gradients: &[Tensor]) -> Result<Unscaled, ShimError> {
        let found_inf = shim::unscale(gradients, &self.scale)?;
        self.found_inf = self.found_inf.maximum(&found_inf);
        Ok(Unscaled { found_inf })
    }

    /// [`unscale`](Self::unscale) and [`Optimizer::step_unscaled`], for when nothing happens between the two.
    ///
    /// # Errors
    /// When libtorch refuses the tensors.
    pub fn step(&mut self, optimizer: &mut Optimizer, gradients: &[Tensor]) -> Result<(), ShimError> {
        let unscaled = self.unscale(gradients)?;
        optimizer.step_unscaled(gradients, &unscaled)
    }

    /// Ends an update: the scale backs off or grows, and an update with an overflow is counted as skipped.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn update(&mut self) -> Result<(), ShimError> {
        let GradScalerConfig { growth_factor, backoff_factor, growth_interval, .. } = self.config;
        let (growth, backoff) = (growth_factor, backoff_factor);
        let interval = i64::from(growth_interval);
        shim::update_scale(&self.scale, &self.growth_tracker, &self.found_inf, growth, backoff, interval)?;
        no_grad(|| {
            let _ = self.skipped.g_add_(&self.found_inf.to_kind(Kind::Int64));
            let _ = self.found_inf.zero_();
        });
        Ok(())
    }

    /// The scale, an f32 scalar on the device.
    pub fn current_scale(&self) -> &Tensor {
        &self.scale
    }

    /// Updates with an overflow, an i64 scalar on the device.
    pub fn skipped(&self) -> &Tensor {
        &self.skipped
    }

    /// Shows the scale, the count towards its growth, an overflow not yet acted on, and the skipped updates.
    ///
    /// # Errors
    /// Those of the visitor.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        visit_tensor(visitor, "scale", &self.scale)?;
        visit_tensor(visitor, "growth_tracker", &self.growth_tracker)?;
        visit_tensor(visitor, "found_inf", &self.found_inf)?;
        visit_tensor(visitor, "skipped", &self.skipped)
    }
}
