//! What an algorithm is to the rest: something that acts, learns from a batch, and shows its state.

use crate::shim::ShimError;
use crate::staging::MiniBatch;
use rl_minibatch::{Dtype, Rng, StateError, StateVisitor};
use tch::Tensor;

/// How an agent chooses actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Uniformly at random, before learning has begun.
    Random,
    /// The policy with its exploration, as far as it has annealed after so many environment steps.
    Explore {
        /// Environment steps taken so far.
        env_steps: u64,
    },
    /// The policy as it is, without noise: evaluation.
    Greedy,
}

/// What an environment offers and takes, as an algorithm needs to know it.
#[derive(Clone, Debug, PartialEq)]
pub struct Spaces {
    /// Element type of an observation.
    pub obs_dtype: Dtype,
    /// Shape of one observation.
    pub obs_shape: Vec<usize>,
    /// The actions.
    pub action: ActionSpace,
}

/// The actions an environment takes.
#[derive(Clone, Debug, PartialEq)]
pub enum ActionSpace {
    /// One of `n` choices, numbered from 0.
    Discrete {
        /// How many.
        n: usize,
    },
    /// A vector within bounds, one pair a dimension.
    Continuous {
        /// Lower bounds.
        low: Vec<f32>,
        /// Upper bounds.
        high: Vec<f32>,
    },
}

impl Spaces {
    /// Elements of one observation.
    pub fn obs_elements(&self) -> usize {
        self.obs_shape.iter().product()
    }

    /// How one action is stored: i64 scalar if discrete, f32 `[A]` if continuous.
    pub fn action_layout(&self) -> (Dtype, Vec<usize>) {
        match &self.action {
            ActionSpace::Discrete { .. } => (Dtype::I64, vec![]),
            ActionSpace::Continuous { low, .. } => (Dtype::F32, vec![low.len()]),
        }
    }
}

/// What one update yields. Everything is detached and on the device; reading it is the logger's choice.
#[derive(Debug)]
pub struct Update {
    /// |δ| of each row, `[B]`: the new priorities' magnitudes.
    pub td_error: Tensor,
    /// Named scalars for the log, such as `loss` and `q_mean`.
    pub scalars: Vec<(&'static str, Tensor)>,
}

impl Update {
    /// With one more scalar for the log, detached.
    #[must_use]
    pub fn with(mut self, name: &'static str, scalar: &Tensor) -> Self {
        self.scalars.push((name, scalar.detach()));
        self
    }
}

/// Which of an algorithm's update steps: those that launch the same operations have the same number, counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Variant(pub u8);

/// An algorithm.
pub trait Agent: Send {
    /// Actions for observations `[E, …]`: i64 `[E]` if discrete, f32 `[E, A]` within the bounds if continuous, on the CPU.
    ///
    /// # Errors
    /// When libtorch fails.
    fn act(&mut self, obs: &Tensor, mode: Mode) -> Result<Tensor, AgentError>;

    /// The host's half of the next update: counts it, writes to the device what changes from one to the next (learning rates),
    /// and says which of the algorithm's steps it is. [`update`](Self::update) has to follow.
    fn begin_update(&mut self) -> Variant;

    /// The device's half of the update that was begun: a learning step on `batch` (columns of
    /// [`Schema::transition`](rl_minibatch::Schema::transition)), at least [`smallest_batch`](Self::smallest_batch) rows.
    ///
    /// Reads nothing back and changes nothing on the host, so what it launches for a `variant` is the same every time, and a captured
    /// graph of it may be replayed in its stead.
    ///
    /// # Errors
    /// When libtorch fails.
    ///
    /// # Panics
    /// When a column is missing: the algorithm and the schema disagree.
    fn update(&self, batch: &MiniBatch, variant: Variant) -> Result<Update, AgentError>;

    /// A whole update on `batch`: both halves.
    ///
    /// # Errors
    /// Those of [`update`](Self::update).
    fn learn(&mut self, batch: &MiniBatch) -> Result<Update, AgentError> {
        let variant = self.begin_update();
        self.update(batch, variant)
    }

    /// Shows every piece of state that acting and learning depend on: networks, targets, running statistics, optimizers, counters,
    /// noise and generators.
    ///
    /// # Errors
    /// Those of the visitor.
    fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError>;

    /// Told when environment `env` begins a new episode: noise that has a memory starts anew.
    fn begin_episode(&mut self, env: usize) {
        let _ = env;
    }

    /// The fewest rows that [`update`](Self::update) can learn from: 1, or 2 where batch normalization needs a variance.
    fn smallest_batch(&self) -> usize {
        1
    }

    /// Current values of what anneals (ε, learning rate), for the progress bar and the log.
    fn schedules(&self, env_steps: u64) -> Vec<(&'static str, f64)>;

    /// Something that acts as this agent does, on the CPU, on a thread of its own and with weights of its own, which are a copy of this
    /// agent's as they are now. `rng` is for its exploration, and noise with a memory begins anew.
    ///
    /// # Errors
    /// [`AgentError::Config`] for an agent that acts in step only, as it is unless it says otherwise; else when libtorch fails.
    fn policy(&self, rng: Rng) -> Result<Box<dyn Policy>, AgentError> {
        let _ = rng;
        Err(AgentError::Config(
            "this agent cannot act on threads of its own; use train.mode = \"in_step\"".to_string(),
        ))
    }

    /// Handles to the tensors that acting depends on, parameters and running statistics, in the order of
    /// [`Policy::weights`]; they share the agent's memory. None for an agent that acts in step only.
    fn acting_weights(&self) -> Vec<Tensor> {
        Vec::new()
    }
}

/// The acting half of an [`Agent`]: what a thread needs to act while another one learns.
pub trait Policy: Send {
    /// As [`Agent::act`].
    ///
    /// # Errors
    /// When libtorch fails.
    fn act(&mut self, obs: &Tensor, mode: Mode) -> Result<Tensor, AgentError>;

    /// As [`Agent::begin_episode`], of the environments that this policy acts in.
    fn begin_episode(&mut self, env: usize) {
        let _ = env;
    }

    /// Handles to the policy's weights, to be overwritten between two calls of [`act`](Self::act); see
    /// [`publish_weights`](crate::publish_weights).
    fn weights(&self) -> Vec<Tensor>;

    /// Shows what acting depends on beside the weights: generators and noise. The weights are the learner's to show.
    ///
    /// # Errors
    /// Those of the visitor.
    fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError>;
}

/// Why an agent could not act or learn.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A kernel failed.
    #[error(transparent)]
    Kernel(#[from] ShimError),
    /// An operation of tch's failed.
    #[error("libtorch: {}", first_line(.0))]
    Tch(#[from] tch::TchError),
    /// The configuration makes no sense for this environment.
    #[error("{0}")]
    Config(String),
}

/// What went wrong inside libtorch, in one line: its messages carry a C++ backtrace below their first.
pub fn first_line(error: &tch::TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_string()
}
