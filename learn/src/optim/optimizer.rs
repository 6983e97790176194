//! The optimizer: parameters, their state, and the step.

use super::{OptimizerConfig, ParamGroup, ParamGroups, clip_norm, no_decay_on_biases_and_norms};
use crate::amp::Unscaled;
use crate::module::{Module, gradients};
use crate::shim::{self, ShimError, TensorList};
use crate::visit_tensor;
use rl_minibatch::{StateError, StateVisitor, scalar, scope};
use tch::{Device, Kind, Tensor, no_grad};

/// An optimizer over a fixed list of parameters in groups. A step is one call a group (and dtype and device, if the parameters have several),
/// whatever the number of parameters: libtorch's fused kernels for SGD, Adam and AdamW, its foreach kernels for RMSprop, LARS and LAMB. On a
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
    pub fn for_module(config: OptimizerConfig, module: &dyn Module) -> Result<Self, String> {
        Self::with_groups(config, ParamGroups::split(module, no_decay_on_biases_and_norms))
    }

    /// An optimizer of parameters in groups, with learning rate 0 until [`set_learning_rate`](Self::set_learning_rate).
    ///
    /// # Errors
    /// One line: there is no parameter, a group's number is out of range, or a parameter is a view with gaps.
    pub fn with_groups(config: OptimizerConfig, groups: ParamGroups) -> Result<Self, String> {
        let ParamGroups { parameters, group_of, groups } = groups;
        if parameters.is_empty() {
            return Err("an optimizer needs a parameter; the groups have none".to_string());
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
        let buckets = buckets.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
        Ok(Self { config, parameters, groups, buckets, slots, rate: 0.0, updates: 0 })
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

    /// Replaces a group's learning-rate factor, weight decay and adaptation from the next step on (a group is unfrozen, say).
    ///
    /// # Errors
    /// One line: there is no such group, or a number is out of range.
    pub fn set_group(&mut self, index: usize, group: ParamGroup) -> Result<(), String> {
        group.check(index)?;
        let count = self.groups.len();
        let place = self.groups.get_mut(index);
        *place.ok_or_else(|| {
            format!("there is no parameter group {index}; the optimizer has {count}, numbered from 0")
        })? = group;
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
        self.advance(gradients, None, self.updates == 0)?;
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
            return self.advance_within(&gradients, None, false, max_norm);
        }
        if max_norm > 0.0 {
            let _ = clip_norm(&gradients, max_norm)?;
        }
        self.advance(&gradients, None, self.updates <= 1)
    }

    /// One step along gradients that a [`GradScaler`](crate::amp::GradScaler) has unscaled; nothing at all, the moments and the
    /// rule's own step count included, when one of them was not finite. That is decided on the device.
    ///
    /// [`updates`](Self::updates) counts a skipped step too: the host does not know of it. For RMSprop, LARS and LAMB the parameters and
    /// moments are copied before the step; SGD with momentum and dampening reads the decision back until its first step is
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
                self.advance(gradients, None, true)?;
            }
            _ => self.advance(gradients, Some(found_inf), self.updates == 0)?,
        }
        self.updates += 1;
        Ok(())
    }

    /// `first` says whether no step was taken before.
    fn advance(
        &self,
        gradients: &[Tensor],
        found_inf: Option<&Tensor>,
        first: bool,
    ) -> Result<(), ShimError> {
        self.advance_within(gradients, found_inf, first, 0.0)
    }

    /// `max_norm`, if above 0, bounds the gradients' joint 2-norm; for Adam alone, with one bucket.
    fn advance_within(
        &self,
        gradients: &[Tensor],
        found_inf: Option<&Tensor>,
        first: bool,
        max_norm: f64,
    ) -> Result<(), ShimError> {
        assert_eq!(gradients.len(), self.parameters.len(), "an optimizer takes one gradient a parameter");
        for bucket in &self.buckets {
            let group = &self.groups[bucket.group];
            bucket.step(&self.config, group, gradients, found_inf, first, max_norm)?;
        }
        Ok(())
    }

    /// Shows moments, step counts, the learning rate and the groups' numbers. The parameters themselves belong to their network. Names do not
    /// depend on the groups, but `groups` does: a state fits an optimizer with as many.
    ///
    /// # Errors
    /// Those of the visitor.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        scalar(visitor, "updates", &mut self.updates)?;
        scalar(visitor, "learning_rate", &mut self.rate)?;
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
        gradients: &[Tensor],
        found_inf: Option<&Tensor>,
        first: bool,
        max_norm: f64,
    ) -> Result<(), ShimError> {
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
            OptimizerConfig::Sgd { momentum, dampening, nesterov, .. } => {
                let rule = shim::Sgd { momentum, dampening, weight_decay, nesterov, first };
                shim::step(&lists, &gradients, &rule)
            }
            OptimizerConfig::RmsProp { alpha, eps, momentum, .. } => {
                shim::step(&lists, &gradients, &shim::RmsProp { alpha, eps, weight_decay, momentum })
            }
            OptimizerConfig::Adam { beta1, beta2, eps, .. }
            | OptimizerConfig::AdamW { beta1, beta2, eps, .. } => {
                let decoupled = matches!(config, OptimizerConfig::AdamW { .. });
                let rule = shim::Adam { beta1, beta2, weight_decay, eps, decoupled };
                shim::step(&lists, &gradients, &rule)
            }
            OptimizerConfig::Lars { momentum, trust_coefficient, eps, nesterov, clip, .. } => {
                let rule =
                    shim::Lars { momentum, weight_decay, trust_coefficient, eps, nesterov, adapt, clip };
                shim::step(&lists, &gradients, &rule)
            }
            OptimizerConfig::Lamb { beta1, beta2, eps, bias_correction, max_trust_ratio, .. } => {
                let max_ratio = max_trust_ratio.unwrap_or(f64::INFINITY);
                let rule = shim::Lamb { beta1, beta2, weight_decay, eps, max_ratio, bias_correction, adapt };
                shim::step(&lists, &gradients, &rule)
            }
        }
    }
}
