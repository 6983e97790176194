//! From a configuration to the parts of a run; its replay buffer is in [`replay`](crate::replay).

use crate::config::Config;
use crate::error::{CommandError, Result, usage};
use rand::SeedableRng;
use rl_envs::{EnvSpec, Space, VecEnv};
use rl_learn::{ActionSpace, Agent, Device, Dtype, Rng, Spaces};

/// What each random generator of a run is for. Each has a stream of its own, so that a change in how one is used leaves the
/// others as they were.
#[derive(Clone, Copy, Debug)]
pub enum Stream {
    /// Initial weights, exploration.
    Agent,
    /// Which transitions are drawn.
    Sampling,
    /// Resets of the training environments.
    Envs,
    /// Exploration of the actors in async mode, each with a stream of its own: this one's, and those that follow.
    Actor(u32),
}

impl Stream {
    fn number(self) -> u32 {
        match self {
            Stream::Agent => 0,
            Stream::Sampling => 1,
            Stream::Envs => 2,
            Stream::Actor(actor) => 3 + actor,
        }
    }
}

/// The generator of `stream` in a run seeded with `seed`.
pub fn rng(seed: u64, stream: Stream) -> Rng {
    // seed_from_u64 mixes with SplitMix64; neighbouring seeds give unrelated streams, which the jumps then keep apart.
    let mut rng = Rng::seed_from_u64(seed);
    (0..stream.number()).for_each(|_| rng.jump());
    rng
}

/// What the environment called `id` is.
///
/// # Errors
/// [`CommandError::Usage`] with the nearest known name when there is none.
pub fn env_spec(id: &str) -> Result<EnvSpec> {
    if id.ends_with('*') {
        return usage(format!("'{id}' stands for several environments; choose one with --env"));
    }
    let env = rl_envs::make(id).map_err(|e| CommandError::Usage(e.to_string()))?;
    Ok(env.spec().clone())
}

/// Single observations and the actions of `spec`, as algorithms know them.
///
/// # Errors
/// [`CommandError::Usage`] for spaces that no algorithm here can use.
pub fn spaces(spec: &EnvSpec) -> Result<Spaces> {
    let (obs_dtype, obs_shape) = match &spec.observation {
        Space::Box { dtype: rl_envs::Dtype::F32, shape, .. } => (Dtype::F32, shape.clone()),
        Space::Box { dtype: rl_envs::Dtype::U8, shape, .. } => (Dtype::U8, shape.clone()),
        other => {
            return usage(format!("{} has observations {other}; boxes can be learned from", spec.id));
        }
    };
    let action = match &spec.action {
        Space::Discrete { n } => ActionSpace::Discrete { n: *n },
        Space::Box { low, high, .. } => ActionSpace::Continuous { low: low.clone(), high: high.clone() },
        other => return usage(format!("{} takes actions {other}; no algorithm here gives those", spec.id)),
    };
    Ok(Spaces { obs_dtype, obs_shape, action })
}

/// What the agent sees of single observations of `spaces`: these, or stacks of them.
pub fn seen(config: &Config, spaces: &Spaces) -> Spaces {
    let stack = (config.frame_stack > 1).then_some(config.frame_stack);
    let obs_shape = stack.into_iter().chain(spaces.obs_shape.iter().copied()).collect();
    Spaces { obs_shape, ..spaces.clone() }
}

/// `n` of the configured environments, on as many threads as are configured. They wait for their reset.
///
/// # Errors
/// [`CommandError::Usage`] when there is no such environment or no thread.
pub fn make_envs(config: &Config, n: usize) -> Result<VecEnv> {
    VecEnv::make(&config.env, n)
        .and_then(|envs| envs.with_threads(config.train.env_threads))
        .map_err(|e| CommandError::Usage(e.to_string()))
}

/// The configured agent, new.
///
/// # Errors
/// [`CommandError::Usage`] when its configuration is refused or it does not suit the environment.
pub fn build_agent(config: &Config, device: Device) -> Result<Box<dyn Agent>> {
    build_agent_for(config, &spaces(&env_spec(&config.env)?)?, device)
}

/// The configured agent, new, for environments whose single observations and actions are of `spaces`.
///
/// # Errors
/// As [`build_agent`].
pub fn build_agent_for(config: &Config, spaces: &Spaces, device: Device) -> Result<Box<dyn Agent>> {
    let algo = rl_agents::algo(&config.algo)
        .ok_or_else(|| CommandError::Usage(format!("unknown algorithm '{}'", config.algo)))?;
    let rng = rng(config.seed, Stream::Agent);
    Ok(algo.build(config.agent.clone(), &seen(config, spaces), rng, device)?)
}
