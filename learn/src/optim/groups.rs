//! Which parameters share a learning rate and a weight decay.

use super::OptimizerError;
use crate::module::{Module, Role};
use tch::Tensor;

/// What sets one group of parameters apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ParamGroup {
    /// The group's learning rate is this times the optimizer's: one schedule moves all groups.
    pub rate_factor: f64,
    /// λ; `None` takes the one of [`OptimizerConfig`](super::OptimizerConfig).
    pub weight_decay: Option<f64>,
    /// Whether LARS and LAMB scale a tensor's step by its norm; the other optimizers have nothing to adapt.
    pub adapt: bool,
}

impl Default for ParamGroup {
    /// The optimizer's own learning rate and weight decay, adapted.
    fn default() -> Self {
        Self { rate_factor: 1.0, weight_decay: None, adapt: true }
    }
}

impl ParamGroup {
    pub(super) fn check(&self, index: usize) -> Result<(), OptimizerError> {
        for (name, value) in
            [("rate_factor", self.rate_factor), ("weight_decay", self.weight_decay.unwrap_or(0.0))]
        {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(OptimizerError::Group { index, name, value });
            }
        }
        Ok(())
    }
}

/// The usual rule for [`ParamGroups::split`]: tensors of at most one dimension (biases, the γ and β of norms) are neither decayed nor
/// adapted, all others are (Goyal et al. 2017, section 5.3; You et al. 2017 leave them out of LARS likewise).
pub fn no_decay_on_biases_and_norms(_name: &str, tensor: &Tensor) -> ParamGroup {
    match tensor.dim() {
        0 | 1 => ParamGroup { weight_decay: Some(0.0), adapt: false, ..ParamGroup::default() },
        _ => ParamGroup::default(),
    }
}

/// The parameters of an optimizer, each in a group. The parameters keep their order, whatever their groups: gradients come in it.
#[derive(Debug, Default)]
pub struct ParamGroups {
    pub(super) parameters: Vec<Tensor>,
    pub(super) group_of: Vec<usize>,
    pub(super) groups: Vec<ParamGroup>,
}

impl ParamGroups {
    /// All in one group with the optimizer's own learning rate and weight decay.
    pub fn one(parameters: Vec<Tensor>) -> Self {
        Self::default().with(ParamGroup::default(), parameters)
    }

    /// The parameters of `module` in walking order; `rule` sees the name and the tensor of each and says its group, or `None` to leave it
    /// out (frozen). Those with equal groups are together, and groups are numbered as they come up.
    ///
    /// ```
    /// # use rand::SeedableRng;
    /// # use rl_learn::{Activation, Device, Mlp, MlpConfig, ParamGroup, ParamGroups, Rng};
    /// # let config = MlpConfig { inputs: 4, hidden: vec![8], outputs: 2, activation: Activation::Relu, batch_norm: false, output_bound: None };
    /// # let net = Mlp::new(&config, &mut Rng::seed_from_u64(0), Device::Cpu);
    /// let groups = ParamGroups::split(&net, |name, tensor| ParamGroup {
    ///     rate_factor: if name.starts_with("layers.0.") { 0.1 } else { 1.0 },
    ///     weight_decay: (tensor.dim() == 1).then_some(0.0),
    ///     ..ParamGroup::default()
    /// });
    /// assert_eq!(groups.groups().len(), 4);
    /// ```
    pub fn split<G: Into<Option<ParamGroup>>>(
        module: &dyn Module,
        mut rule: impl FnMut(&str, &Tensor) -> G,
    ) -> Self {
        let mut out = Self::default();
        module.walk(&mut |name, tensor, role| {
            if role == Role::Parameter
                && let Some(group) = rule(name, tensor).into()
            {
                out.push(group, tensor.shallow_clone());
            }
        });
        out
    }

    /// These and `parameters`, after the others and in `group`; it joins an equal group.
    pub fn with(mut self, group: ParamGroup, parameters: Vec<Tensor>) -> Self {
        for parameter in parameters {
            self.push(group, parameter);
        }
        self
    }

    fn push(&mut self, group: ParamGroup, parameter: Tensor) {
        let index = self.groups.iter().position(|known| *known == group).unwrap_or_else(|| {
            self.groups.push(group);
            self.groups.len() - 1
        });
        self.parameters.push(parameter);
        self.group_of.push(index);
    }

    /// What sets each group apart.
    pub fn groups(&self) -> &[ParamGroup] {
        &self.groups
    }

    /// The group's number of each parameter.
    pub fn group_of(&self) -> &[usize] {
        &self.group_of
    }
}
