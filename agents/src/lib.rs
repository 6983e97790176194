//! Reinforcement-learning algorithms, one file each. Every file reads like its paper: configuration, networks, update.
//!
//! To add one: write its file, and add its line to [`ALGOS`].

mod ddpg;
mod dqn;
mod noise;

pub use ddpg::{Ddpg, DdpgConfig};
pub use dqn::{Dqn, DqnConfig};
pub use noise::Noise;

use rl_learn::target::TargetPair;
use rl_learn::{Agent, AgentError, Device, Module, Rng, Spaces, Tensor, buffers, parameters};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// All algorithms.
pub const ALGOS: &[Algo] = &[Algo::of::<DqnConfig>(), Algo::of::<DdpgConfig>()];

/// The algorithm called `name`, if there is one.
pub fn algo(name: &str) -> Option<&'static Algo> {
    ALGOS.iter().find(|algo| algo.name == name)
}

/// What an algorithm's configuration provides: the keys (its fields, documented), their defaults (`Default`), and the agent.
pub trait AlgoConfig: Serialize + DeserializeOwned + JsonSchema + Default {
    /// The name on the command line.
    const NAME: &'static str;
    /// One line for lists: what it is and its paper.
    const SUMMARY: &'static str;

    /// An agent for `spaces` on `device`; its networks and its exploration are drawn from `rng`.
    ///
    /// # Errors
    /// [`AgentError::Config`] in one line when a value is out of range or the algorithm cannot act in `spaces`.
    fn build(self, spaces: &Spaces, rng: Rng, device: Device) -> Result<Box<dyn Agent>, AgentError>;
}

/// An algorithm, seen from outside: its name, its keys and how to build it.
pub struct Algo {
    /// The name on the command line.
    pub name: &'static str,
    /// One line for lists.
    pub summary: &'static str,
    schema: fn() -> Value,
    defaults: fn() -> Value,
    build: Build,
}

type Build = fn(Value, &Spaces, Rng, Device) -> Result<Box<dyn Agent>, AgentError>;

impl Algo {
    /// The entry of the algorithm configured by `C`.
    const fn of<C: AlgoConfig>() -> Self {
        Self {
            name: C::NAME,
            summary: C::SUMMARY,
            schema: || schemars::schema_for!(C).to_value(),
            defaults: || serde_json::to_value(C::default()).expect("a configuration is plain data"),
            build: |config, spaces, rng, device| {
                let config: C = serde_path_to_error::deserialize(config)
                    .map_err(|e| AgentError::Config(format!("agent.{}: {}", e.path(), e.inner())))?;
                config.build(spaces, rng, device)
            },
        }
    }

    /// The JSON schema of its configuration: keys in order, each with its documentation.
    pub fn schema(&self) -> Value {
        (self.schema)()
    }

    /// Its configuration where nobody said otherwise.
    pub fn defaults(&self) -> Value {
        (self.defaults)()
    }

    /// An agent; `config` has the keys of [`schema`](Self::schema).
    ///
    /// # Errors
    /// [`AgentError::Config`] as in [`AlgoConfig::build`], also when `config` has another form.
    pub fn build(
        &self,
        config: Value,
        spaces: &Spaces,
        rng: Rng,
        device: Device,
    ) -> Result<Box<dyn Agent>, AgentError> {
        (self.build)(config, spaces, rng, device)
    }
}

/// Refuses a configuration in one line.
fn refuse<T>(why: impl Into<String>) -> Result<T, AgentError> {
    Err(AgentError::Config(why.into()))
}

/// Checks the widths of hidden layers.
fn check_hidden(hidden: &[i64]) -> Result<(), AgentError> {
    match hidden.iter().find(|width| !(1..=65_536).contains(*width)) {
        Some(width) => {
            refuse(format!("agent.hidden has a layer of width {width}; each must lie between 1 and 65536"))
        }
        None => Ok(()),
    }
}

/// Handles to all tensors of `network`, parameters first.
fn weights(network: &dyn Module) -> Vec<Tensor> {
    parameters(network).into_iter().chain(buffers(network)).collect()
}

/// Makes `to`, which acts and is never trained, equal to `from`.
fn copy_weights(from: &dyn Module, to: &dyn Module) -> Result<(), AgentError> {
    // A network that follows another one is what a target is.
    Ok(TargetPair::new(from, to).map(drop)?)
}
