//! The optimizer: parameters, their state, and the step.

use super::{
    OptimizerConfig, OptimizerError, ParamGroup, ParamGroups, clip_norm, no_decay_on_biases_and_norms,
};
use crate::amp::Unscaled;
use crate::module::{Module, gradients};
use crate::shim::{self, ShimError, TensorList};
use crate::visit_tensor;
use rl_minibatch::{StateError, StateVisitor, scalar, scope};
use tch::{Device, Kind, Tensor, no_grad};

/// An optimizer over a fixed list of parameters in groups. A step is one call a group (and dtype and device, if the parameters have several),
/// whatever the number of parameters: libtorch's fused kernels for SGD, Adam and AdamW, a fused one of this crate for RMSprop of f32 on a
/// CPU (not centered), libtorch's foreach kernels for other RMSprop, LARS and LAMB. On a
/// GPU nothing is read back; where foreach kernels scale each tensor by its own trust ratio, libtorch launches one kernel a tensor.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    parameters: Vec<Tensor>,
    groups: Vec<ParamGroup>,
    buckets: Vec<Bucket>,
    /// Named lists of one tensor a parameter, in the parameters' order: moments, momenta.
    slots: Vec<(&'static str, Vec<Tensor>)>,
    rate: f64,
    /// μ or β₁ of the steps to come; `None` where none is kept.
    momentum: Option<f64>,
    updates: u64,
}

/// Parameters of one group, dtype and device, which one kernel call can take.
#[derive(Debug)]
struct Bucket {
    group: usize,
    /// Which of the optimizer's parameters.
    members: Vec<usize>,
    params: TensorList,
    slots: [Option<TensorList>; 3],
    /// Steps taken, f32 on the device, for the rules that correct a bias; and as many handles to it as parameters.
    step: Option<(Tensor, TensorList)>,
    /// A scalar on the parameters' device, so that a captured step follows its changes.
    learning_rate: Tensor,
    /// What was written to it last.
    written: f64,
}

/// What sets a step apart from an ordinary one.
#[derive(Clone, Copy, Default)]
struct How<'a> {
    /// Nonzero on the device where the step is to do nothing.
    found_inf: Option<&'a Tensor>,
    /// No step was taken before.
    first: bool,
    /// Bounds the gradients' joint 2-norm if above 0; for Adam alone, with one bucket.
    max_norm: f64,
}

/// The state of a rule: a name for each of the shim's slots, empty where the slot is not used; and whether it counts steps.
fn state_of(config: &OptimizerConfig) -> ([&'static str; 3], bool) {
    let when = |used: bool, name| if used { name } else { "" };
    match *config {
        OptimizerConfig::Sgd { momentum, .. } | OptimizerConfig::Lars { momentum, .. } => {
            ([when(momentum > 0.0, "momentum"), "", ""], false)
        }
        OptimizerConfig::RmsProp { momentum, centered, .. } => {
            (["square_avg", when(centered, "grad_avg"), when(momentum > 0.0, "momentum")], false)
        }
        OptimizerConfig::Adam { .. } | OptimizerConfig::AdamW { .. } | OptimizerConfig::Lamb { .. } => {
            (["exp_avg", "exp_avg_sq", ""], true)
        }
    }
}

/// The momentum that a rule keeps, or the β₁ that does its work.
fn momentum_of(config: &OptimizerConfig) -> Option<f64> {
    match *config {
        OptimizerConfig::Sgd { momentum, .. }
        | OptimizerConfig::RmsProp { momentum, .. }
        | OptimizerConfig::Lars { momentum, .. } => (momentum > 0.0).then_some(momentum),
        OptimizerConfig::Adam { beta1, .. }
        | OptimizerConfig::AdamW { beta1, .. }
        | OptimizerConfig::Lamb { beta1, .. } => Some(beta1),
    }
}

impl Optimizer {
    /// An optimizer of `parameters` (handles: they share the network's memory) in one group, with learning rate 0 until
    /// [`set_learning_rate`](Self::set_learning_rate). Biases and norms are decayed like the rest; [`for_module`](Self::for_module) spares them.
    ///
    /// # Panics
    /// When `parameters` is empty, or one of them is a view with gaps.
    pub fn new(config: OptimizerConfig, parameters: Vec<Tensor>) -> Self {
        match Self::with_groups(config, ParamGroups::one(parameters)) {
            Ok(optimizer) => optimizer,
            Err(why) => panic!("{why}"),
        }
    }

    /// An optimizer of all parameters of `module`, without decay and adaptation of biases and norms
    /// ([`no_decay_on_biases_and_norms`]).
    ///
    /// # Errors
    /// Those of [`with_groups`](Self::with_groups).
    pub fn for_module(config: OptimizerConfig, module: &dyn Module) -> Result<Self, OptimizerError> {
        Self::with_groups(config, ParamGroups::split(module, no_decay_on_biases_and_norms))
    }

    /// An optimizer of parameters in groups, with learning rate 0 until [`set_learning_rate`](Self::set_learning_rate).
    ///
    /// # Errors
    /// [`OptimizerError::NoParameters`], [`OptimizerError::Group`] for a number out of range, and [`OptimizerError::Kernel`] for a parameter that is
    /// a view with gaps.
    pub fn with_groups(config: OptimizerConfig, groups: ParamGroups) -> Result<Self, OptimizerError> {
        let ParamGroups { parameters, group_of, groups } = groups;
        if parameters.is_empty() {
            return Err(OptimizerError::NoParameters);
        }
        for (index, group) in groups.iter().enumerate() {
            group.check(index)?;
        }
        let (names, counts) = state_of(&config);
        let zeros = || -> Vec<Tensor> { parameters.iter().map(|p| p.detach().zeros_like()).collect() };
        let slots: Vec<_> =
            names.iter().filter(|name| !name.is_empty()).map(|&name| (name, zeros())).collect();

        let mut kinds: Vec<((usize, Device, Kind), Vec<usize>)> = Vec::new();
        for (index, (parameter, &group)) in parameters.iter().zip(&group_of).enumerate() {
            let key = (group, parameter.device(), parameter.kind());
            match kinds.iter_mut().find(|(known, _)| *known == key) {
                Some((_, members)) => members.push(index),
                None => kinds.push((key, vec![index])),
            }
        }
        let buckets = kinds.into_iter().map(|((group, device, _), members)| -> Result<Bucket, ShimError> {
            let list = |of: &[Tensor]| {
                TensorList::new(&members.iter().map(|&i| of[i].shallow_clone()).collect::<Vec<_>>())
            };
            let slot =
                |name: &str| slots.iter().find(|(n, _)| *n == name).map(|(_, of)| list(of)).transpose();
            let zero = || Tensor::zeros([], (Kind::Float, device));
            let step = counts.then(zero);
            let step = step.map(|step| {
                let handles: Vec<Tensor> = members.iter().map(|_| step.shallow_clone()).collect();
                TensorList::new(&handles).map(|handles| (step, handles))
            });
            Ok(Bucket {
                group,
                params: list(&parameters)?,
                slots: [slot(names[0])?, slot(names[1])?, slot(names[2])?],
                step: step.transpose()?,
                learning_rate: zero(),
                written: 0.0,
                members,
            })
        });
        let buckets = buckets.collect::<Result<Vec<_>, _>>()?;
        let momentum = momentum_of(&config);
        Ok(Self { config, parameters, groups, buckets, slots, rate: 0.0, momentum, updates: 0 })
    }

    /// The trained tensors, in the order in which gradients are to come.
    pub fn parameters(&self) -> &[Tensor] {
        &self.parameters
    }

    /// What sets each group of parameters apart.
    pub fn groups(&self) -> &[ParamGroup] {
        &self.groups
    }

    /// Steps taken, those of [`step_unscaled`](Self::step_unscaled) included that the device skipped.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The learning rate of the steps to come, before the groups' factors.
    pub fn learning_rate(&self) -> f64 {
        self.rate
    }

    /// Sets the learning rate of the steps to come, of each group times its factor; written to the device only where it changed.
    pub fn set_learning_rate(&mut self, rate: f64) {
        self.rate = rate;
        for bucket in &mut self.buckets {
            bucket.write_rate(rate * self.groups[bucket.group].rate_factor);
        }
    }

    /// The momentum of the steps to come: μ of SGD, RMSprop and LARS, β₁ of Adam, AdamW and LAMB. `None` where none is kept.
    pub fn momentum(&self) -> Option<f64> {
        self.momentum
    }

    /// Sets the momentum of the steps to come, for a cycle of it ([`Schedule::cycled_momentum`](crate::Schedule::cycled_momentum)). As in PyTorch,
    /// Adam's bias is corrected with the β₁ of the step, 1 − β₁ᵗ.
    ///
    /// Unlike the learning rate it is a number of the call: libtorch's fused kernels take it no other way. So a captured CUDA graph
    /// goes on with the momentum it was captured with.
    ///
    /// # Errors
    /// [`OptimizerError::Momentum`] unless 0 < `momentum` < 1, [`OptimizerError::NoMomentum`] for a rule that was configured without.
    pub fn set_momentum(&mut self, momentum: f64) -> Result<(), OptimizerError> {
        if !(momentum > 0.0 && momentum < 1.0) {
            return Err(OptimizerError::Momentum { value: momentum });
        }
        *self.momentum.as_mut().ok_or(OptimizerError::NoMomentum)? = momentum;
        Ok(())
    }

    /// Replaces a group's learning-rate factor, weight decay and adaptation from the next step on (a group is unfrozen, say).
    ///
    /// # Errors
    /// [`OptimizerError::NoGroup`], and [`OptimizerError::Group`] for a number out of range.
    pub fn set_group(&mut self, index: usize, group: ParamGroup) -> Result<(), OptimizerError> {
        group.check(index)?;
        let count = self.groups.len();
        let place = self.groups.get_mut(index);
        *place.ok_or(OptimizerError::NoGroup { index, count })? = group;
        self.set_learning_rate(self.rate);
        Ok(())
    }

    /// One step along `gradients`, one a parameter in their order. The gradients are not changed.
    ///
    /// # Errors
    /// When a gradient has another shape, dtype or device than its parameter.
    ///
    /// # Panics
    /// When the number of gradients is not that of the parameters.
    pub fn step(&mut self, gradients: &[Tensor]) -> Result<(), ShimError> {
        self.advance(gradients, How { first: self.updates == 0, ..How::default() })?;
        self.updates += 1;
        Ok(())
    }

    /// The host's half of an update: counts it, and sets its learning rate. [`descend`](Self::descend) is the device's half.
    pub fn begin(&mut self, rate: f64) {
        self.set_learning_rate(rate);
        self.updates += 1;
    }

    /// The device's half of an update that [`begin`](Self::begin) has begun: the gradients of `loss`, clipped to a joint 2-norm of
    /// `max_norm` if that is above 0, and a step along them. Nothing changes on the host, so a captured graph of this may be replayed
    /// in its stead. Accumulated, reduced or scaled gradients take these steps one by one, with [`step`](Self::step) as the last.
    ///
    /// # Errors
    /// Those of [`step`](Self::step).
    ///
    /// # Panics
    /// Those of [`gradients`].
    pub fn descend(&self, loss: &Tensor, max_norm: f64) -> Result<(), ShimError> {
        let gradients = gradients(loss, &self.parameters);
        let adam = matches!(self.config, OptimizerConfig::Adam { .. } | OptimizerConfig::AdamW { .. });
        if adam && self.buckets.len() == 1 {
            // The same factor, within the step's own pass over the gradients.
            return self.advance(&gradients, How { max_norm, ..How::default() });
        }
        if max_norm > 0.0 {
            let _ = clip_norm(&gradients, max_norm)?;
        }
        self.advance(&gradients, How { first: self.updates <= 1, ..How::default() })
    }

    /// One step along gradients that a [`GradScaler`](crate::amp::GradScaler) has unscaled; nothing at all, the moments and the
    /// rule's own step count included, when one of them was not finite. That is decided on the device.
    ///
    /// [`updates`](Self::updates) counts a skipped step too: the host does not know of it. For foreach kernels (most RMSprop, LARS,
    /// LAMB) the parameters and moments are copied before the step; SGD with momentum and dampening reads the decision back until its first step is
    /// taken, as the first momentum is the whole gradient.
    ///
    /// # Errors
    /// Those of [`step`](Self::step).
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
                self.advance(gradients, How { first: true, ..How::default() })?;
            }
            _ => {
                let first = self.updates == 0;
                self.advance(gradients, How { found_inf: Some(found_inf), first, ..How::default() })?;
            }
        }
        self.updates += 1;
        Ok(())
    }

    fn advance(&self, gradients: &[Tensor], how: How<'_>) -> Result<(), ShimError> {
        assert_eq!(gradients.len(), self.parameters.len(), "an optimizer takes one gradient a parameter");
        for bucket in &self.buckets {
            let group = &self.groups[bucket.group];
            bucket.step(&self.config, group, self.momentum.unwrap_or(0.0), gradients, how)?;
        }
        Ok(())
    }

    /// Shows moments, step counts, the learning rate, the momentum and the groups' numbers. The parameters themselves belong to their network. Names do not
    /// depend on the groups, but `groups` does: a state fits an optimizer with as many.
    ///
    /// # Errors
    /// Those of the visitor.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        scalar(visitor, "updates", &mut self.updates)?;
        scalar(visitor, "learning_rate", &mut self.rate)?;
        if let Some(momentum) = &mut self.momentum {
            scalar(visitor, "momentum", momentum)?;
        }
        let default_decay = self.config.weight_decay();
        for (index, group) in self.groups.iter_mut().enumerate() {
            scope(visitor, &format!("groups.{index}"), |v| {
                scalar(v, "rate_factor", &mut group.rate_factor)?;
                // As a number and not as "the configuration's", which the loading side may have changed.
                let mut decay = group.weight_decay.unwrap_or(default_decay);
                scalar(v, "weight_decay", &mut decay)?;
                let mut adapt = u8::from(group.adapt);
                scalar(v, "adapt", &mut adapt)?;
                if v.loading() {
                    group.weight_decay = Some(decay);
                    group.adapt = adapt != 0;
                }
                Ok(())
            })?;
        }
        if visitor.loading() {
            self.set_learning_rate(self.rate);
        }
        // All buckets have made the same steps: one number stands for them.
        let mut counts = self.buckets.iter().filter_map(|bucket| bucket.step.as_ref().map(|(step, _)| step));
        if let Some(first) = counts.next() {
            visit_tensor(visitor, "step", first)?;
            if visitor.loading() {
                no_grad(|| counts.for_each(|other| other.shallow_clone().copy_(first)));
            }
        }
        for (name, tensors) in &self.slots {
            for (i, tensor) in tensors.iter().enumerate() {
                visit_tensor(visitor, &format!("{name}.{i}"), tensor)?;
            }
        }
        Ok(())
    }
}

impl Bucket {
    fn write_rate(&mut self, rate: f64) {
        if rate != self.written {
            self.written = rate;
            let _ = no_grad(|| self.learning_rate.fill_(rate));
        }
    }

    fn step(
        &self,
        config: &OptimizerConfig,
        group: &ParamGroup,
        momentum: f64,
        gradients: &[Tensor],
        how: How<'_>,
    ) -> Result<(), ShimError> {
        let How { found_inf, first, max_norm } = how;
        let weight_decay = group.weight_decay.unwrap_or(config.weight_decay());
        let adapt = group.adapt;
        let gradients: Vec<&Tensor> = self.members.iter().map(|&i| &gradients[i]).collect();
        let lists = shim::Group {
            params: &self.params,
            slots: self.slots.each_ref().map(Option::as_ref),
            steps: self.step.as_ref().map(|(_, handles)| handles),
            lr: &self.learning_rate,
            found_inf,
            max_norm,
        };
        match *config {
            OptimizerConfig::Sgd { dampening, nesterov, .. } => {
                let rule = shim::Sgd { momentum, dampening, weight_decay, nesterov, first };
                shim::step(&lists, &gradients, &rule)
            }
            OptimizerConfig::RmsProp { alpha, eps, .. } => {
                shim::step(&lists, &gradients, &shim::RmsProp { alpha, eps, weight_decay, momentum })
            }
            OptimizerConfig::Adam { beta2, eps, .. } | OptimizerConfig::AdamW { beta2, eps, .. } => {
                let decoupled = matches!(config, OptimizerConfig::AdamW { .. });
                let rule = shim::Adam { beta1: momentum, beta2, weight_decay, eps, decoupled };
                shim::step(&lists, &gradients, &rule)
            }
            OptimizerConfig::Lars { trust_coefficient, eps, nesterov, clip, .. } => {
                let rule =
                    shim::Lars { momentum, weight_decay, trust_coefficient, eps, nesterov, adapt, clip };
                shim::step(&lists, &gradients, &rule)
            }
            OptimizerConfig::Lamb { beta2, eps, bias_correction, max_trust_ratio, .. } => {
                let max_ratio = max_trust_ratio.unwrap_or(f64::INFINITY);
                let beta1 = momentum;
                let rule = shim::Lamb { beta1, beta2, weight_decay, eps, max_ratio, bias_correction, adapt };
                shim::step(&lists, &gradients, &rule)
            }
        }
    }
}
