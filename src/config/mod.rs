//! The configuration of a run: one TOML document whose every key is documented by its field's comment here or in the
//! algorithm's own file.
//!
//! Layers, each over the one before: defaults of the fields, the preset of the algorithm and environment (`configs/`), a file, `--set`,
//! flags. See [`resolve`].

mod document;
mod layers;
mod presets;

pub use document::to_toml;
pub use layers::{Layers, from_run, resolve, without_env};
pub use presets::presets;

use crate::error::{Result, usage};
use rl_learn::capture::CudaGraph;
use rl_learn::{Precision, Schedule};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Everything a run is made from.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Algorithm; `rl-train list algos` names them.
    pub algo: String,
    /// Environment; `rl-train list envs` names them.
    pub env: String,
    /// Observations that the agent sees at once, stacked with the oldest first; before an episode's first one that one stands again. 1 for
    /// the observation alone. Environments give single ones, and the replay buffer stores each once.
    #[serde(default = "one")]
    pub frame_stack: usize,
    /// Seed of everything random in the run.
    pub seed: u64,
    /// Environment steps to train for, over all environments together.
    pub env_steps: u64,
    /// Where the learner computes: "auto", "cpu", "cuda" or "cuda:N".
    pub device: String,
    /// Threads that one operation may use; more than 1 pays only for large networks and batches. 0 chooses by size: one for each 32
    /// million multiplications in a forward pass of a batch (agent.hidden, train.batch_size), at most one a core.
    pub threads: u32,
    /// How acting and learning go on, in step or at once.
    pub train: TrainConfig,
    /// The replay buffer.
    pub replay: ReplayConfig,
    /// How updates are computed.
    pub learner: LearnerConfig,
    /// The algorithm's own keys.
    pub agent: serde_json::Value,
    /// Evaluation, on environments and seeds of its own, always greedy.
    pub eval: EvalConfig,
}

/// Whether acting and learning take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrainMode {
    /// They take turns on one thread; a run is reproducible bit for bit on a CPU.
    InStep,
    /// Actors act on threads of their own while one learner learns; what comes first is up to the machine.
    Async,
}

/// How acting and learning go together.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// "in_step": acting and learning take turns on one thread, and a run is reproducible bit for bit on a CPU. "async": actors on threads
    /// of their own act while the learner learns; no two runs are the same, and a resumed run is not the same run.
    pub mode: TrainMode,
    /// In async mode: threads that act, with the environments split among them.
    pub actors: usize,
    /// In async mode: updates between two snapshots of the weights for the actors.
    pub publish_every: u64,
    /// In async mode: how many mini-batches drawing may be ahead or behind of batch_size x updates_per_train / train_every rows drawn for
    /// each one inserted; beyond that one side waits for the other.
    pub ratio_error: u64,
    /// Environments stepped side by side.
    pub num_envs: usize,
    /// Threads that step them, the one that learns included, in evaluations too. The results are the same with any number; more than 1
    /// pays for costly environments only.
    #[serde(default = "one")]
    pub env_threads: usize,
    /// Rewards are cut to plus or minus this before they are learned from; 0 for no cut. Returns, of training episodes and of evaluations,
    /// are of the rewards that the environment gave.
    #[serde(default)]
    pub clip_reward: f64,
    /// Environment steps with random actions before learning begins.
    pub random_steps: u64,
    /// Environment steps between two rounds of updates.
    pub train_every: u64,
    /// Updates in a round.
    pub updates_per_train: u64,
    /// Transitions in a mini-batch.
    pub batch_size: usize,
    /// Environment steps between two lines of metrics.
    pub log_every: u64,
    /// Environment steps between two checkpoints; one is also written at the end. 0 for the end alone.
    pub checkpoint_every: u64,
}

/// What is remembered and how it is drawn.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayConfig {
    /// Transitions kept.
    pub capacity: usize,
    /// Discount factor per environment step.
    pub gamma: f64,
    /// Rewards summed before bootstrapping.
    pub n_step: usize,
    /// Whether batches are drawn by priority and not uniformly (Schaul et al. 2016).
    pub prioritized: bool,
    /// Exponent of the priorities: 0 is uniform, 1 proportional to the error.
    pub alpha: f64,
    /// Exponent of the importance weights over environment steps: a number or a schedule such as { kind = "linear", start = X, end = Y, steps = N }.
    pub beta: Schedule,
    /// Added to the magnitude of each temporal-difference error, so that no transition is never drawn again.
    pub priority_epsilon: f64,
    /// Where the buffer is: "host" (the computer's memory) or "learner" (the learner's device, where drawing is a part of the update).
    pub device: ReplayDevice,
    /// Transitions that go to the learner's device at once, with device = "learner"; until a block is full they are not drawn.
    pub block_rows: usize,
}

/// Where the replay buffer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReplayDevice {
    /// In the computer's memory.
    #[default]
    Host,
    /// On the learner's device.
    Learner,
}

/// How updates are computed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LearnerConfig {
    /// Whether updates on a GPU are captured as CUDA graphs: "auto", "on" (an error where there can be none) or "off".
    pub cuda_graph: CudaGraph,
    /// What networks compute in during updates: "f32", "tf32" (NVIDIA GPUs) or "bf16"; parameters stay f32.
    pub precision: Precision,
}

/// How a policy is judged.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    /// Environment steps between two evaluations; 0 for one at the end alone.
    pub every: u64,
    /// Episodes of each evaluation during training.
    pub episodes: usize,
    /// Episodes of the evaluation at the end.
    pub final_episodes: usize,
    /// Seed of the evaluation's environments.
    pub seed: u64,
}

/// For configurations of runs from before there was this key.
fn one() -> usize {
    1
}

impl Config {
    /// The defaults of `algo` on `env`, before any preset.
    fn defaults(algo: &rl_agents::Algo, env: &str) -> Self {
        Self {
            algo: algo.name.to_string(),
            env: env.to_string(),
            frame_stack: 1,
            seed: 1,
            env_steps: 100_000,
            device: "auto".to_string(),
            threads: 1,
            train: TrainConfig {
                mode: TrainMode::InStep,
                actors: 1,
                publish_every: 10,
                ratio_error: 4,
                num_envs: 1,
                env_threads: 1,
                clip_reward: 0.0,
                random_steps: 1_000,
                train_every: 1,
                updates_per_train: 1,
                batch_size: 64,
                log_every: 1_000,
                checkpoint_every: 10_000,
            },
            replay: ReplayConfig {
                capacity: 100_000,
                gamma: 0.99,
                n_step: 1,
                prioritized: false,
                alpha: 0.6,
                beta: Schedule::linear(0.4, 1.0, 100_000),
                priority_epsilon: 1e-6,
                device: ReplayDevice::Host,
                block_rows: 64,
            },
            learner: LearnerConfig { cuda_graph: CudaGraph::Auto, precision: Precision::F32 },
            agent: algo.defaults(),
            eval: EvalConfig { every: 10_000, episodes: 10, final_episodes: 100, seed: 1_000_000_007 },
        }
    }

    /// The number of intra-op threads that `threads` stands for.
    pub fn intra_op_threads(&self) -> u32 {
        if self.threads > 0 {
            return self.threads;
        }
        // Input and output are small beside the hidden layers, and not known before there is an environment.
        let hidden: Vec<i64> = self.agent["hidden"]
            .as_array()
            .map(|widths| widths.iter().filter_map(serde_json::Value::as_i64).collect())
            .unwrap_or_default();
        rl_learn::device::threads_for(&hidden, self.train.batch_size)
    }

    /// Checks what the types cannot say.
    fn check(&self) -> Result<()> {
        let at_least_one = [
            ("frame_stack", self.frame_stack as u64),
            ("env_steps", self.env_steps),
            ("train.actors", self.train.actors as u64),
            ("train.publish_every", self.train.publish_every),
            ("train.ratio_error", self.train.ratio_error),
            ("train.num_envs", self.train.num_envs as u64),
            ("train.env_threads", self.train.env_threads as u64),
            ("train.train_every", self.train.train_every),
            ("train.batch_size", self.train.batch_size as u64),
            ("train.log_every", self.train.log_every),
            ("replay.capacity", self.replay.capacity as u64),
            ("replay.n_step", self.replay.n_step as u64),
            ("replay.block_rows", self.replay.block_rows as u64),
            ("eval.episodes", self.eval.episodes as u64),
            ("eval.final_episodes", self.eval.final_episodes as u64),
        ];
        for (key, value) in at_least_one {
            if value == 0 {
                return usage(format!("{key} is 0; it must be at least 1"));
            }
        }
        // Beyond these something is mistyped, and memory would be asked for that no machine has.
        let at_most = [
            ("frame_stack", self.frame_stack as u64, 1_024),
            ("threads", u64::from(self.threads), 1_024),
            ("train.actors", self.train.actors as u64, 1_024),
            ("train.ratio_error", self.train.ratio_error, 1 << 24),
            ("train.num_envs", self.train.num_envs as u64, 65_536),
            ("train.env_threads", self.train.env_threads as u64, 1_024),
            ("train.batch_size", self.train.batch_size as u64, 1 << 24),
            ("replay.n_step", self.replay.n_step as u64, 4_096),
            ("eval.episodes", self.eval.episodes as u64, 1_000_000),
            ("eval.final_episodes", self.eval.final_episodes as u64, 1_000_000),
        ];
        for (key, value, most) in at_most {
            if value > most {
                return usage(format!("{key} is {value}; it can be at most {most}"));
            }
        }
        let within = [("replay.gamma", self.replay.gamma), ("replay.alpha", self.replay.alpha)];
        for (key, value) in within {
            if !(0.0..=1.0).contains(&value) {
                return usage(format!("{key} is {value}; it must lie between 0 and 1"));
            }
        }
        if !(self.train.clip_reward >= 0.0 && self.train.clip_reward.is_finite()) {
            return usage(format!(
                "train.clip_reward is {}; it must be finite and at least 0",
                self.train.clip_reward
            ));
        }
        if !(self.replay.priority_epsilon >= 0.0 && self.replay.priority_epsilon.is_finite()) {
            return usage(format!(
                "replay.priority_epsilon is {}; it must be finite and at least 0",
                self.replay.priority_epsilon
            ));
        }
        if self.replay.device == ReplayDevice::Learner {
            if self.replay.block_rows > self.replay.capacity {
                return usage(format!(
                    "replay.block_rows is {}, more than the buffer keeps (replay.capacity = {}); make it smaller",
                    self.replay.block_rows, self.replay.capacity
                ));
            }
            if self.replay.prioritized && self.replay.priority_epsilon == 0.0 {
                return usage(
                    "replay.priority_epsilon is 0; with replay.device = \"learner\" it must be above 0",
                );
            }
        }
        if self.replay.capacity < self.train.batch_size {
            return usage(format!(
                "replay.capacity is {}, less than one batch (train.batch_size = {}); make it larger",
                self.replay.capacity, self.train.batch_size
            ));
        }
        if self.train.mode == TrainMode::Async {
            self.check_async()?;
        }
        self.replay.beta.check("replay.beta", 0.0, 1.0).or_else(usage)
    }

    /// Checks what acting and learning at once asks for.
    fn check_async(&self) -> Result<()> {
        if self.replay.device == ReplayDevice::Learner {
            return usage(
                "replay.device = \"learner\" goes with train.mode = \"in_step\"; set one of the two otherwise",
            );
        }
        let TrainConfig { actors, num_envs, random_steps, updates_per_train, .. } = self.train;
        if num_envs < actors {
            return usage(format!(
                "train.num_envs is {num_envs}; in async mode each of the {actors} actors needs one (train.actors)"
            ));
        }
        if updates_per_train == 0 {
            return usage("train.updates_per_train is 0; async mode needs at least 1");
        }
        if random_steps > self.replay.capacity as u64 {
            return usage(format!(
                "train.random_steps is {random_steps}; in async mode it can be at most replay.capacity ({})",
                self.replay.capacity
            ));
        }
        Ok(())
    }
}
