//! The configuration of a run: one TOML document whose every key is documented by its field's comment here or in the
//! algorithm's own file.
//!
//! Layers, each over the one before: defaults of the fields, the preset of the algorithm and environment (`configs/`), a file, `--set`,
//! flags. See [`resolve`].

mod document;
mod layers;
mod presets;

pub use document::to_toml;
pub use layers::{Layers, from_run, resolve};
pub use presets::presets;

use crate::error::{Result, usage};
use rl_learn::Schedule;
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
    /// Seed of everything random in the run.
    pub seed: u64,
    /// Environment steps to train for, over all environments together.
    pub env_steps: u64,
    /// Where the learner computes: "auto", "cpu", "cuda" or "cuda:N".
    pub device: String,
    /// Threads that libtorch may use inside one operation; more than 1 pays only for large networks and batches.
    pub threads: u32,
    /// Acting and learning in step.
    pub train: TrainConfig,
    /// The replay buffer.
    pub replay: ReplayConfig,
    /// The algorithm's own keys.
    pub agent: serde_json::Value,
    /// Evaluation, on environments and seeds of its own, always greedy.
    pub eval: EvalConfig,
}

/// How acting and learning alternate.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Environments stepped side by side.
    pub num_envs: usize,
    /// Threads that step them, the one that learns included. The results are the same with any number; more than 1 pays for
    /// costly environments only.
    #[serde(default = "one")]
    pub env_threads: usize,
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
    /// Exponent of the importance weights over environment steps: a number or { kind = "linear" or "exponential", start = X, end = Y, steps = N }.
    pub beta: Schedule,
    /// Added to the magnitude of each temporal-difference error, so that no transition is never drawn again.
    pub priority_epsilon: f64,
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
            seed: 1,
            env_steps: 100_000,
            device: "auto".to_string(),
            threads: 1,
            train: TrainConfig {
                num_envs: 1,
                env_threads: 1,
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
            },
            agent: algo.defaults(),
            eval: EvalConfig { every: 10_000, episodes: 10, final_episodes: 100, seed: 1_000_000_007 },
        }
    }

    /// Checks what the types cannot say.
    fn check(&self) -> Result<()> {
        let at_least_one = [
            ("env_steps", self.env_steps),
            ("threads", u64::from(self.threads)),
            ("train.num_envs", self.train.num_envs as u64),
            ("train.env_threads", self.train.env_threads as u64),
            ("train.train_every", self.train.train_every),
            ("train.batch_size", self.train.batch_size as u64),
            ("train.log_every", self.train.log_every),
            ("replay.capacity", self.replay.capacity as u64),
            ("replay.n_step", self.replay.n_step as u64),
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
            ("threads", u64::from(self.threads), 1_024),
            ("train.num_envs", self.train.num_envs as u64, 65_536),
            ("train.env_threads", self.train.env_threads as u64, 1_024),
            ("train.batch_size", self.train.batch_size as u64, 1 << 24),
            ("replay.n_step", self.replay.n_step as u64, 10_000),
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
        if !(self.replay.priority_epsilon >= 0.0 && self.replay.priority_epsilon.is_finite()) {
            return usage(format!(
                "replay.priority_epsilon is {}; it must be finite and at least 0",
                self.replay.priority_epsilon
            ));
        }
        if self.replay.capacity < self.train.batch_size {
            return usage(format!(
                "replay.capacity is {}, less than one batch (train.batch_size = {}); make it larger",
                self.replay.capacity, self.train.batch_size
            ));
        }
        self.replay.beta.check("replay.beta", 0.0, 1.0).or_else(usage)
    }
}
