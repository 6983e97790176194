//! Deep Q-network (Mnih et al. 2015, "Human-level control through deep reinforcement learning"), with, each as a switch,
//! double Q-learning (van Hasselt et al. 2016) and the dueling architecture (Wang et al. 2016). n-step returns and prioritized
//! replay come with the batch: `reward` is already Σ γⁱ rᵢ, `discount` is γᵏ or 0, and `weight` is the importance weight.

use crate::{AlgoConfig, check_hidden, copy_weights, refuse, weights};
use rand::RngExt;
use rl_learn::loss::{Loss, argmax, bootstrap, td_loss};
use rl_learn::target::TargetPair;
use rl_learn::{
    ActionSpace, Activation, Agent, AgentError, ConvNet, ConvNetConfig, Device, Dtype, Kind, MiniBatch, Mlp,
    MlpConfig, Mode, Module, Optimizer, OptimizerConfig, Phase, Policy, Rng, Role, Schedule, Spaces,
    StateError, StateVisitor, Tensor, Update, Variant, no_grad, parameters, scalar, scope, value,
    visit_module, walk_under,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An update that leaves the target network alone, and one that updates it.
const PLAIN: Variant = Variant(0);
const WITH_TARGET: Variant = Variant(1);

/// DQN's keys.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DqnConfig {
    /// What stands before the hidden layers: "mlp" (nothing), or the convolutions of "nature-cnn" (images [C, H, W] of bytes; Mnih et
    /// al. 2015) or of "minatar-cnn" (images [H, W, C] of zeros and ones; Young and Tian 2019), or of stacks of such images. "auto" is
    /// "nature-cnn" for 84 x 84 images of bytes, "minatar-cnn" for 10 x 10 ones, and "mlp" otherwise.
    pub network: Network,
    /// Width of each hidden layer of the Q-network.
    pub hidden: Vec<i64>,
    /// Function after each hidden layer: "relu" or "tanh".
    pub activation: Activation,
    /// Whether the network has the dueling form Q = V + A - mean(A).
    pub dueling: bool,
    /// Whether the online network chooses the next action and the target network values it (double Q-learning).
    pub double: bool,
    /// Learning rate over updates: a number or a schedule such as { kind = "linear", start = X, end = Y, steps = N }; kinds are linear,
    /// exponential, polynomial, cosine, cosine_restarts, step, multi_step, one_cycle, cyclic, warmup, sequence, product and scaled.
    pub learning_rate: Schedule,
    /// Optimizer: { kind = "adam" or "adamw", beta1, beta2, eps, weight_decay }, { kind = "rmsprop", alpha, eps, weight_decay,
    /// momentum, centered }, { kind = "sgd", momentum, dampening, weight_decay, nesterov }, { kind = "lars", momentum, weight_decay,
    /// trust_coefficient, eps, nesterov, clip } or { kind = "lamb", beta1, beta2, eps, weight_decay, bias_correction, max_trust_ratio };
    /// what is left out is as in PyTorch, or as in the papers of the last two.
    pub optimizer: OptimizerConfig,
    /// Function of the temporal-difference error: "huber" or "mse".
    pub loss: Loss,
    /// Largest 2-norm of the gradient; 0 for no limit.
    pub max_grad_norm: f64,
    /// Updates between two updates of the target network.
    pub target_update_every: u64,
    /// Part of the way that the target network goes to the online one at each of its updates; 1 copies it.
    pub tau: f64,
    /// Probability of a random action over environment steps: a number or a schedule, of the kinds that learning_rate takes.
    pub epsilon: Schedule,
}

/// What stands before the hidden layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// What goes with the observations' shape.
    Auto,
    /// Nothing: observations are vectors, or are flattened.
    Mlp,
    /// Three convolutions over stacked frames.
    NatureCnn,
    /// One convolution over MinAtar's grid.
    MinatarCnn,
}

impl Network {
    /// The network that is meant for observations of `spaces`.
    fn choose(self, spaces: &Spaces) -> Self {
        match (self, &spaces.obs_shape[..]) {
            // [C, H, W], or a stack of such.
            (Network::Auto, [_, 84, 84] | [_, _, 84, 84]) if spaces.obs_dtype == Dtype::U8 => {
                Network::NatureCnn
            }
            // [H, W, C], or a stack of such.
            (Network::Auto, [10, 10, _] | [_, 10, 10, _]) => Network::MinatarCnn,
            (Network::Auto, _) => Network::Mlp,
            (chosen, _) => chosen,
        }
    }

    /// The convolutions over observations of `spaces`, if there are any.
    fn convolutions(self, spaces: &Spaces) -> Result<Option<ConvNetConfig>, String> {
        let (make, name): (fn([i64; 3]) -> ConvNetConfig, _) = match self.choose(spaces) {
            Network::Auto | Network::Mlp => return Ok(None),
            Network::NatureCnn => (ConvNetConfig::nature, "nature-cnn"),
            Network::MinatarCnn => (ConvNetConfig::minatar, "minatar-cnn"),
        };
        let (stack, [a, b, c]) = match spaces.obs_shape[..] {
            [a, b, c] => (1, [a, b, c]),
            [stack, a, b, c] => (stack, [a, b, c]),
            _ => {
                return Err(format!(
                    "agent.network is \"{name}\", which looks at images, and observations are {:?}; use \"mlp\"",
                    spaces.obs_shape
                ));
            }
        };
        let config = make([a as i64, b as i64, c as i64]).stacked(stack as i64);
        match config.features() {
            Ok(_) => Ok(Some(config)),
            Err(why) => Err(format!("agent.network is \"{name}\": {why}")),
        }
    }
}

impl Default for DqnConfig {
    fn default() -> Self {
        Self {
            network: Network::Auto,
            hidden: vec![256, 256],
            activation: Activation::Relu,
            dueling: false,
            double: true,
            learning_rate: Schedule::Constant(1e-3),
            optimizer: OptimizerConfig::adam(),
            loss: Loss::Huber,
            max_grad_norm: 10.0,
            target_update_every: 500,
            tau: 1.0,
            epsilon: Schedule::linear(1.0, 0.05, 10_000),
        }
    }
}

/// Q(s, ·) for all actions at once.
struct QNetwork {
    convolutions: Option<ConvNet>,
    mlp: Mlp,
    dueling: bool,
}

impl QNetwork {
    fn new(
        config: &DqnConfig,
        spaces: &Spaces,
        actions: i64,
        rng: &mut Rng,
        device: Device,
    ) -> Result<Self, String> {
        let convolutions = config.network.convolutions(spaces)?;
        let inputs = match &convolutions {
            Some(convolutions) => convolutions.features()?,
            None => spaces.obs_elements() as i64,
        };
        let convolutions = convolutions.map(|config| ConvNet::new(config, rng, device)).transpose()?;
        let mlp = MlpConfig {
            inputs,
            hidden: config.hidden.clone(),
            // The value and the advantages are one linear layer's columns: the same function as two layers.
            outputs: if config.dueling { 1 + actions } else { actions },
            activation: config.activation,
            batch_norm: false,
            output_bound: None,
        };
        Ok(Self { convolutions, mlp: Mlp::new(&mlp, rng, device), dueling: config.dueling })
    }

    /// `[B, …]` → `[B, n]`.
    fn forward(&self, obs: &Tensor) -> Tensor {
        self.values(&self.see(obs))
    }

    /// Observations as the first layer takes them, the same for every network of one configuration.
    fn see(&self, obs: &Tensor) -> Tensor {
        match &self.convolutions {
            Some(convolutions) => convolutions.images(obs),
            // A cast to the same type is a call all the same.
            None if obs.dim() == 2 && obs.kind() == Kind::Float => obs.shallow_clone(),
            None => obs.flatten(1, -1).to_kind(Kind::Float),
        }
    }

    /// Q of what was [seen](Self::see): `[B, n]`.
    fn values(&self, seen: &Tensor) -> Tensor {
        let out = match &self.convolutions {
            Some(convolutions) => self.mlp.forward(&convolutions.features(seen), Phase::Train),
            None => self.mlp.forward(seen, Phase::Train),
        };
        if !self.dueling {
            return out;
        }
        let (value, advantage) = (out.narrow(1, 0, 1), out.narrow(1, 1, out.size()[1] - 1));
        // Wang et al. 2016, equation 9.
        value + &advantage - advantage.mean_dim(1, true, advantage.kind())
    }
}

impl Module for QNetwork {
    fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
        if let Some(convolutions) = &self.convolutions {
            walk_under(convolutions, "convolutions", show);
        }
        self.mlp.walk(show);
    }
}

/// ε-greedy acting: what it takes beside the network.
struct EpsilonGreedy {
    epsilon: Schedule,
    actions: i64,
    rng: Rng,
}

impl EpsilonGreedy {
    /// Actions for `obs` `[E, O]`: i64 `[E]` on the CPU. `network` is on `device`.
    fn act(
        &mut self,
        network: &QNetwork,
        device: Device,
        obs: &Tensor,
        mode: Mode,
    ) -> Result<Tensor, AgentError> {
        let rows = obs.size()[0] as usize;
        let epsilon = match mode {
            Mode::Random => 1.0,
            Mode::Explore { env_steps } => self.epsilon.at(env_steps),
            Mode::Greedy => 0.0,
        };
        // One draw decides for each environment apart, so that they do not explore in step.
        let random: Vec<Option<i64>> = (0..rows)
            .map(|_| {
                (epsilon > 0.0 && self.rng.random_bool(epsilon))
                    .then(|| self.rng.random_range(0..self.actions))
            })
            .collect();
        if let Some(random) = random.iter().copied().collect::<Option<Vec<i64>>>() {
            return Ok(Tensor::from_slice(&random));
        }
        let mut actions = argmax(&no_grad(|| network.forward(&obs.to_device(device))))?;
        for (action, random) in actions.iter_mut().zip(random) {
            *action = random.unwrap_or(*action);
        }
        Ok(Tensor::from_slice(&actions))
    }
}

/// The acting half, with a copy of the online network on the CPU.
struct DqnPolicy {
    network: QNetwork,
    acting: EpsilonGreedy,
}

impl Policy for DqnPolicy {
    fn act(&mut self, obs: &Tensor, mode: Mode) -> Result<Tensor, AgentError> {
        self.acting.act(&self.network, Device::Cpu, obs, mode)
    }

    fn weights(&self) -> Vec<Tensor> {
        weights(&self.network)
    }

    fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        value(visitor, "rng", &mut self.acting.rng)
    }
}

/// The agent.
pub struct Dqn {
    config: DqnConfig,
    spaces: Spaces,
    acting: EpsilonGreedy,
    device: Device,
    online: QNetwork,
    target: QNetwork,
    pair: TargetPair,
    optimizer: Optimizer,
    updates: u64,
}

impl AlgoConfig for DqnConfig {
    const NAME: &'static str = "dqn";
    const SUMMARY: &'static str =
        "deep Q-network for discrete actions (Mnih et al. 2015), double and dueling as switches";

    fn build(self, spaces: &Spaces, mut rng: Rng, device: Device) -> Result<Box<dyn Agent>, AgentError> {
        let ActionSpace::Discrete { n } = spaces.action else {
            return refuse(
                "dqn needs discrete actions and this environment's are continuous; use --algo ddpg",
            );
        };
        check_hidden(&self.hidden)?;
        let checks = [
            self.learning_rate.check("agent.learning_rate", 0.0, f64::MAX),
            self.epsilon.check("agent.epsilon", 0.0, 1.0),
            self.optimizer.check("agent.optimizer"),
        ];
        checks.into_iter().collect::<Result<(), String>>().or_else(refuse)?;
        if !(self.tau > 0.0 && self.tau <= 1.0) {
            return refuse(format!("agent.tau is {}; it must lie above 0 and be at most 1", self.tau));
        }
        if self.target_update_every == 0 {
            return refuse("agent.target_update_every is 0; it must be at least 1");
        }
        if self.max_grad_norm.is_nan() || self.max_grad_norm < 0.0 {
            return refuse(format!("agent.max_grad_norm is {}; it must be at least 0", self.max_grad_norm));
        }
        let actions = n as i64;
        let online = QNetwork::new(&self, spaces, actions, &mut rng, device).or_else(refuse)?;
        let target = QNetwork::new(&self, spaces, actions, &mut rng, device).or_else(refuse)?;
        let pair = TargetPair::new(&online, &target)?;
        let optimizer = Optimizer::new(self.optimizer.clone(), parameters(&online));
        let acting = EpsilonGreedy { epsilon: self.epsilon.clone(), actions, rng };
        let config = self;
        Ok(Box::new(Dqn {
            config,
            spaces: spaces.clone(),
            acting,
            device,
            online,
            target,
            pair,
            optimizer,
            updates: 0,
        }))
    }
}

impl Agent for Dqn {
    fn act(&mut self, obs: &Tensor, mode: Mode) -> Result<Tensor, AgentError> {
        self.acting.act(&self.online, self.device, obs, mode)
    }

    fn begin_update(&mut self) -> Variant {
        self.optimizer.begin(self.config.learning_rate.at(self.updates));
        self.updates += 1;
        if self.updates.is_multiple_of(self.config.target_update_every) { WITH_TARGET } else { PLAIN }
    }

    fn update(&self, batch: &MiniBatch, variant: Variant) -> Result<Update, AgentError> {
        // y = r + discount · Q′(s′, a*), where a* maximizes Q′, or Q for double Q-learning.
        let target = no_grad(|| {
            let next = self.online.see(&batch["next_obs"]);
            let chooser = self.config.double.then(|| self.online.values(&next));
            let next_q = self.target.values(&next);
            bootstrap(&batch["reward"], &batch["discount"], &next_q, chooser.as_ref())
        })?;
        let q = self.online.forward(&batch["obs"]);
        let td = td_loss(self.config.loss, &q, Some(&batch["action"]), &target, batch.weight())?;
        self.optimizer.descend(&td.loss, self.config.max_grad_norm)?;
        if variant == WITH_TARGET {
            if self.config.tau < 1.0 {
                self.pair.polyak_update(self.config.tau)?;
            } else {
                self.pair.hard_update()?;
            }
        }
        Ok(td.update())
    }

    fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        scope(visitor, "online", |v| visit_module(v, &self.online))?;
        scope(visitor, "target", |v| visit_module(v, &self.target))?;
        scope(visitor, "optimizer", |v| self.optimizer.visit(v))?;
        scalar(visitor, "updates", &mut self.updates)?;
        value(visitor, "rng", &mut self.acting.rng)
    }

    fn schedules(&self, env_steps: u64) -> Vec<(&'static str, f64)> {
        vec![
            ("epsilon", self.config.epsilon.at(env_steps)),
            ("learning_rate", self.config.learning_rate.at(self.updates)),
        ]
    }

    fn policy(&self, rng: Rng) -> Result<Box<dyn Policy>, AgentError> {
        let EpsilonGreedy { epsilon, actions, .. } = &self.acting;
        // Its weights are drawn here and overwritten below.
        let network = QNetwork::new(&self.config, &self.spaces, *actions, &mut rng.clone(), Device::Cpu)
            .or_else(refuse)?;
        copy_weights(&self.online, &network)?;
        let acting = EpsilonGreedy { epsilon: epsilon.clone(), actions: *actions, rng };
        Ok(Box::new(DqnPolicy { network, acting }))
    }

    fn acting_weights(&self) -> Vec<Tensor> {
        weights(&self.online)
    }
}
