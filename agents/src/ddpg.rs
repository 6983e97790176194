//! Deep deterministic policy gradient (Lillicrap et al. 2015, "Continuous control with deep reinforcement learning").
//!
//! A critic Q(s, a) learns from targets of slowly following copies, y = r + discount · Q′(s′, μ′(s′)); an actor μ(s) climbs
//! Q(s, μ(s)). The action enters the critic at its second layer, output layers start within ±3·10⁻³, and batch normalization,
//! where switched on, stands on the observation, on all layers of the actor, and on the critic's layers before the
//! action (section 7 of the paper). In an update every network, targets too, normalizes with its batch; the running statistics are
//! for acting alone. A target that used running statistics would be another function than the one being trained, and bootstrapping would
//! feed that difference back: on Pendulum-v1 such a policy is found and lost again. (The critic's statistics are kept and saved, and
//! nothing reads them.) The noise of small batches' statistics goes into the critic's targets, so switch it on with batches of 128 and
//! more.

use crate::noise::NoiseState;
use crate::{AlgoConfig, Noise, check_hidden, copy_weights, refuse, weights};
use rand::RngExt;
use rl_learn::loss::{Loss, bootstrap, td_loss};
use rl_learn::perceptron::perceptron;
use rl_learn::target::TargetPair;
use rl_learn::{
    ActionSpace, Activation, Agent, AgentError, BatchNorm1d, Device, Dtype, Kind, Linear, MiniBatch, Mlp,
    MlpConfig, Mode, Module, Optimizer, OptimizerConfig, Phase, Policy, Rng, Role, Schedule, Spaces,
    StateError, StateVisitor, Tensor, Update, Variant, no_grad, parameters, scalar, scope, value,
    visit_module, walk_under,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bound of the output layers' uniform initialisation (section 7 of the paper).
const OUTPUT_BOUND: f64 = 3e-3;

/// DDPG's keys.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DdpgConfig {
    /// Width of each hidden layer, of the actor and of the critic; the critic needs at least one.
    pub hidden: Vec<i64>,
    /// Whether batch normalization stands where the paper has it.
    pub batch_norm: bool,
    /// Learning rate of the actor over updates: a number or a schedule such as { kind = "linear", start = X, end = Y, steps = N }; kinds are
    /// linear, exponential, polynomial, cosine, cosine_restarts, step, multi_step, one_cycle, cyclic, warmup, sequence, product and scaled.
    pub actor_learning_rate: Schedule,
    /// Learning rate of the critic over updates, with the same choices.
    pub critic_learning_rate: Schedule,
    /// Optimizer of the actor: { kind = "adam" or "adamw", beta1, beta2, eps, weight_decay }, { kind = "rmsprop", alpha, eps, weight_decay,
    /// momentum, centered }, { kind = "sgd", momentum, dampening, weight_decay, nesterov }, { kind = "lars", momentum, weight_decay,
    /// trust_coefficient, eps, nesterov, clip } or { kind = "lamb", beta1, beta2, eps, weight_decay, bias_correction, max_trust_ratio };
    /// what is left out is as in PyTorch, or as in the papers of the last two.
    pub actor_optimizer: OptimizerConfig,
    /// Optimizer of the critic, with the same choices (the paper adds weight_decay = 0.01).
    pub critic_optimizer: OptimizerConfig,
    /// Function of the critic's temporal-difference error: "mse" or "huber".
    pub loss: Loss,
    /// Largest 2-norm of each network's gradient; 0 for no limit.
    pub max_grad_norm: f64,
    /// Part of the way that the target networks go to the online ones at each update.
    pub tau: f64,
    /// Exploration: { kind = "gaussian", sigma = S } or { kind = "ornstein-uhlenbeck", sigma = S, theta = T }, in units of
    /// half the action's range.
    pub noise: Noise,
}

impl Default for DdpgConfig {
    fn default() -> Self {
        Self {
            hidden: vec![400, 300],
            batch_norm: false,
            actor_learning_rate: Schedule::Constant(1e-3),
            critic_learning_rate: Schedule::Constant(1e-3),
            actor_optimizer: OptimizerConfig::adam(),
            critic_optimizer: OptimizerConfig::adam(),
            loss: Loss::Mse,
            max_grad_norm: 0.0,
            tau: 0.005,
            noise: Noise::Gaussian { sigma: 0.1 },
        }
    }
}

/// μ(s), in units of half the action's range: `[B, O]` → `[B, A]` within ±1.
struct Actor {
    mlp: Mlp,
    batch_norm: bool,
}

impl Actor {
    fn new(config: &DdpgConfig, inputs: i64, actions: i64, rng: &mut Rng, device: Device) -> Self {
        let mlp = MlpConfig {
            inputs,
            hidden: config.hidden.clone(),
            outputs: actions,
            activation: Activation::Relu,
            batch_norm: config.batch_norm,
            output_bound: Some(OUTPUT_BOUND),
        };
        Self { mlp: Mlp::new(&mlp, rng, device), batch_norm: config.batch_norm }
    }

    fn forward(&self, obs: &Tensor, phase: Phase) -> Result<Tensor, AgentError> {
        if self.batch_norm {
            return Ok(self.mlp.forward(obs, phase).tanh());
        }
        let (relu, tanh) = (Activation::Relu, Activation::Tanh);
        Ok(perceptron(&self.mlp.layers(), relu, Some(tanh), obs, None)?)
    }
}

impl Module for Actor {
    fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
        self.mlp.walk(show);
    }
}

/// Q(s, a), the action in units of half its range.
struct Critic {
    /// Normalization of the observation and of the first layer's output.
    norms: Option<(BatchNorm1d, BatchNorm1d)>,
    first: Linear,
    rest: Mlp,
}

impl Critic {
    fn new(config: &DdpgConfig, inputs: i64, actions: i64, rng: &mut Rng, device: Device) -> Self {
        let (first, rest) = config.hidden.split_first().expect("checked: the critic has a hidden layer");
        let norm = |features| BatchNorm1d::new(features, Kind::Float, device);
        let rest = MlpConfig {
            inputs: first + actions,
            hidden: rest.to_vec(),
            outputs: 1,
            activation: Activation::Relu,
            batch_norm: false,
            output_bound: Some(OUTPUT_BOUND),
        };
        Self {
            norms: config.batch_norm.then(|| (norm(inputs), norm(*first))),
            first: Linear::new(inputs, *first, rng, Kind::Float, device),
            rest: Mlp::new(&rest, rng, device),
        }
    }

    /// `[B, O]`, `[B, A]` → `[B]`.
    fn forward(&self, obs: &Tensor, action: &Tensor, phase: Phase) -> Result<Tensor, AgentError> {
        let q = match &self.norms {
            Some((of_obs, of_hidden)) => {
                let first = self.first.forward(&of_obs.forward(obs, phase));
                let hidden = of_hidden.forward(&first, phase).relu();
                self.rest.forward(&Tensor::cat(&[&hidden, action], 1), phase)
            }
            None => {
                let layers: Vec<&Linear> = [&self.first].into_iter().chain(self.rest.layers()).collect();
                perceptron(&layers, Activation::Relu, None, obs, Some(action))?
            }
        };
        Ok(q.squeeze_dim(1))
    }
}

impl Module for Critic {
    fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
        if let Some((of_obs, of_hidden)) = &self.norms {
            walk_under(of_obs, "input_norm", show);
            walk_under(of_hidden, "first_norm", show);
        }
        walk_under(&self.first, "first", show);
        walk_under(&self.rest, "rest", show);
    }
}

/// An action's range: half of it and its middle, `[A]`, so that action = scale · μ + bias. Bounds may be asymmetric.
struct Range {
    scale: Tensor,
    bias: Tensor,
}

impl Range {
    fn to_device(&self, device: Device) -> Self {
        Self { scale: self.scale.to_device(device), bias: self.bias.to_device(device) }
    }
}

/// Acting with noise: what it takes beside the network.
struct Noisy {
    noise: NoiseState,
    rng: Rng,
}

/// Stacks of vectors `[B, k, O]` as vectors `[B, k · O]`; vectors as they are.
fn vectors(obs: &Tensor) -> Tensor {
    if obs.dim() == 2 { obs.shallow_clone() } else { obs.flatten(1, -1) }
}

impl Noisy {
    /// Actions for `obs` `[E, O]` or `[E, k, O]`: f32 `[E, A]` on the CPU. `actor` and `range` are on `device`.
    fn act(
        &mut self,
        actor: &Actor,
        range: &Range,
        device: Device,
        obs: &Tensor,
        mode: Mode,
    ) -> Result<Tensor, AgentError> {
        let obs = &vectors(obs);
        let (rows, dimensions) = (obs.size()[0] as usize, range.scale.size()[0]);
        let shape = [rows as i64, dimensions];
        let unit = match mode {
            Mode::Random => {
                let draw: Vec<f32> =
                    (0..shape[0] * shape[1]).map(|_| self.rng.random_range(-1.0f32..=1.0)).collect();
                Tensor::from_slice(&draw).reshape(shape).to_device(device)
            }
            // Acting is evaluation: running statistics normalize, also a single observation.
            Mode::Greedy => no_grad(|| actor.forward(&obs.to_device(device), Phase::Eval))?,
            Mode::Explore { .. } => {
                let noise: Vec<f64> = (0..rows).flat_map(|env| self.noise.next(env, &mut self.rng)).collect();
                let noise = Tensor::from_slice(&noise).to_kind(Kind::Float).reshape(shape).to_device(device);
                let unit = no_grad(|| actor.forward(&obs.to_device(device), Phase::Eval))?;
                (unit + noise).clamp(-1.0, 1.0)
            }
        };
        Ok((unit * &range.scale + &range.bias).to_device(Device::Cpu))
    }
}

/// The acting half, with a copy of the actor on the CPU.
struct DdpgPolicy {
    actor: Actor,
    range: Range,
    acting: Noisy,
}

impl Policy for DdpgPolicy {
    fn act(&mut self, obs: &Tensor, mode: Mode) -> Result<Tensor, AgentError> {
        self.acting.act(&self.actor, &self.range, Device::Cpu, obs, mode)
    }

    fn begin_episode(&mut self, env: usize) {
        self.acting.noise.begin_episode(env);
    }

    fn weights(&self) -> Vec<Tensor> {
        weights(&self.actor)
    }

    fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        self.acting.noise.visit(visitor)?;
        value(visitor, "rng", &mut self.acting.rng)
    }
}

/// The agent.
pub struct Ddpg {
    config: DdpgConfig,
    inputs: i64,
    device: Device,
    range: Range,
    actor: Actor,
    critic: Critic,
    target_actor: Actor,
    target_critic: Critic,
    actors: TargetPair,
    critics: TargetPair,
    actor_optimizer: Optimizer,
    critic_optimizer: Optimizer,
    acting: Noisy,
    updates: u64,
}

impl AlgoConfig for DdpgConfig {
    const NAME: &'static str = "ddpg";
    const SUMMARY: &'static str =
        "deep deterministic policy gradient for continuous actions (Lillicrap et al. 2015)";

    fn build(self, spaces: &Spaces, mut rng: Rng, device: Device) -> Result<Box<dyn Agent>, AgentError> {
        let ActionSpace::Continuous { low, high } = &spaces.action else {
            return refuse(
                "ddpg needs continuous actions and this environment's are discrete; use --algo dqn",
            );
        };
        if low.iter().chain(high).any(|bound| !bound.is_finite()) {
            return refuse("ddpg needs bounded actions and this environment's have an infinite bound");
        }
        // A stack of vectors is a longer one.
        if spaces.obs_dtype != Dtype::F32 || !(1..=2).contains(&spaces.obs_shape.len()) {
            return refuse(
                "ddpg needs vectors of f32 as observations and this environment's are others; use --algo dqn",
            );
        }
        if self.hidden.is_empty() {
            return refuse("agent.hidden is empty; ddpg needs at least one hidden layer");
        }
        check_hidden(&self.hidden)?;
        let checks = [
            self.actor_learning_rate.check("agent.actor_learning_rate", 0.0, f64::MAX),
            self.critic_learning_rate.check("agent.critic_learning_rate", 0.0, f64::MAX),
            self.actor_optimizer.check("agent.actor_optimizer"),
            self.critic_optimizer.check("agent.critic_optimizer"),
            self.noise.check(),
        ];
        checks.into_iter().collect::<Result<(), String>>().or_else(refuse)?;
        if !(self.tau > 0.0 && self.tau <= 1.0) {
            return refuse(format!("agent.tau is {}; it must lie above 0 and be at most 1", self.tau));
        }
        if self.max_grad_norm.is_nan() || self.max_grad_norm < 0.0 {
            return refuse(format!("agent.max_grad_norm is {}; it must be at least 0", self.max_grad_norm));
        }
        let (inputs, actions) = (spaces.obs_elements() as i64, low.len() as i64);
        let (low, high) = (Tensor::from_slice(low), Tensor::from_slice(high));
        let actor = Actor::new(&self, inputs, actions, &mut rng, device);
        let critic = Critic::new(&self, inputs, actions, &mut rng, device);
        let target_actor = Actor::new(&self, inputs, actions, &mut rng, device);
        let target_critic = Critic::new(&self, inputs, actions, &mut rng, device);
        Ok(Box::new(Ddpg {
            device,
            inputs,
            range: Range { scale: (&high - &low) / 2.0, bias: (high + low) / 2.0 }.to_device(device),
            actors: TargetPair::new(&actor, &target_actor)?,
            critics: TargetPair::new(&critic, &target_critic)?,
            actor_optimizer: Optimizer::new(self.actor_optimizer.clone(), parameters(&actor)),
            critic_optimizer: Optimizer::new(self.critic_optimizer.clone(), parameters(&critic)),
            acting: Noisy { noise: NoiseState::new(self.noise.clone(), actions as usize), rng },
            actor,
            critic,
            target_actor,
            target_critic,
            updates: 0,
            config: self,
        }))
    }
}

impl Agent for Ddpg {
    fn act(&mut self, obs: &Tensor, mode: Mode) -> Result<Tensor, AgentError> {
        self.acting.act(&self.actor, &self.range, self.device, obs, mode)
    }

    fn begin_update(&mut self) -> Variant {
        self.critic_optimizer.begin(self.config.critic_learning_rate.at(self.updates));
        self.actor_optimizer.begin(self.config.actor_learning_rate.at(self.updates));
        self.updates += 1;
        Variant::default()
    }

    fn update(&self, batch: &MiniBatch, _: Variant) -> Result<Update, AgentError> {
        let (obs, next_obs) = (&vectors(&batch["obs"]), &vectors(&batch["next_obs"]));
        let action = (&batch["action"] - &self.range.bias) / &self.range.scale;

        // Critic: minimize the weighted loss of y − Q(s, a), with y = r + discount · Q′(s′, μ′(s′)). Targets ask for no gradients.
        let next_action = self.target_actor.forward(next_obs, Phase::Train)?;
        let next_q = self.target_critic.forward(next_obs, &next_action, Phase::Train)?;
        let target = bootstrap(&batch["reward"], &batch["discount"], &next_q, None)?;
        let q = self.critic.forward(obs, &action, Phase::Train)?;
        let critic = td_loss(self.config.loss, &q, None, &target, batch.weight())?;
        self.critic_optimizer.descend(&critic.loss, self.config.max_grad_norm)?;

        // Actor: climb Q(s, μ(s)).
        let own_action = self.actor.forward(obs, Phase::Train)?;
        let actor_loss = -self.critic.forward(obs, &own_action, Phase::Train)?.mean(Kind::Float);
        self.actor_optimizer.descend(&actor_loss, self.config.max_grad_norm)?;

        self.actors.polyak_update(self.config.tau)?;
        self.critics.polyak_update(self.config.tau)?;
        Ok(critic.update().with("actor_loss", &actor_loss))
    }

    fn smallest_batch(&self) -> usize {
        if self.config.batch_norm { 2 } else { 1 }
    }

    fn begin_episode(&mut self, env: usize) {
        self.acting.noise.begin_episode(env);
    }

    fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        scope(visitor, "actor", |v| visit_module(v, &self.actor))?;
        scope(visitor, "critic", |v| visit_module(v, &self.critic))?;
        scope(visitor, "target_actor", |v| visit_module(v, &self.target_actor))?;
        scope(visitor, "target_critic", |v| visit_module(v, &self.target_critic))?;
        scope(visitor, "actor_optimizer", |v| self.actor_optimizer.visit(v))?;
        scope(visitor, "critic_optimizer", |v| self.critic_optimizer.visit(v))?;
        self.acting.noise.visit(visitor)?;
        scalar(visitor, "updates", &mut self.updates)?;
        value(visitor, "rng", &mut self.acting.rng)
    }

    fn schedules(&self, _env_steps: u64) -> Vec<(&'static str, f64)> {
        vec![
            ("actor_learning_rate", self.config.actor_learning_rate.at(self.updates)),
            ("critic_learning_rate", self.config.critic_learning_rate.at(self.updates)),
        ]
    }

    fn policy(&self, rng: Rng) -> Result<Box<dyn Policy>, AgentError> {
        let range = self.range.to_device(Device::Cpu);
        let actions = range.scale.size()[0];
        // Its weights are drawn here and overwritten below.
        let actor = Actor::new(&self.config, self.inputs, actions, &mut rng.clone(), Device::Cpu);
        copy_weights(&self.actor, &actor)?;
        let noise = NoiseState::new(self.config.noise.clone(), actions as usize);
        Ok(Box::new(DdpgPolicy { actor, range, acting: Noisy { noise, rng } }))
    }

    fn acting_weights(&self) -> Vec<Tensor> {
        weights(&self.actor)
    }
}
