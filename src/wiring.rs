//! From a configuration to the parts of a run. Here environments and replay buffers meet.

use crate::config::{Config, ReplayDevice, TrainMode};
use crate::error::{CommandError, Result, usage};
use rand::SeedableRng;
use rl_envs::{EnvSpec, Space};
use rl_learn::device_replay::{DeviceReplay, DeviceReplaySettings};
use rl_learn::{ActionSpace, Agent, Device, Dtype, Learner, LearnerSettings, Rng, Schema, Spaces};
use rl_replay::{Prioritized, RateLimiter, Reader, Replay};

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
    let env = rl_envs::make(id).map_err(|e| CommandError::Usage(e.to_string()))?;
    Ok(env.spec().clone())
}

/// The observations and actions of `spec`, as algorithms see them.
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

/// What a transition of these spaces holds.
///
/// # Errors
/// [`CommandError::Usage`] when a space is empty.
pub fn schema(spaces: &Spaces) -> Result<Schema> {
    let (dtype, shape) = spaces.action_layout();
    Schema::transition((spaces.obs_dtype, &spaces.obs_shape), (dtype, &shape))
        .map_err(|e| CommandError::Usage(e.to_string()))
}

/// The configured agent, new.
///
/// # Errors
/// [`CommandError::Usage`] when its configuration is refused or it does not suit the environment.
pub fn build_agent(config: &Config, device: Device) -> Result<Box<dyn Agent>> {
    let algo = rl_agents::algo(&config.algo)
        .ok_or_else(|| CommandError::Usage(format!("unknown algorithm '{}'", config.algo)))?;
    Ok(algo.build(
        config.agent.clone(),
        &spaces(&env_spec(&config.env)?)?,
        rng(config.seed, Stream::Agent),
        device,
    )?)
}

/// How many rows are drawn for each one inserted in async mode: as many as in step, where `updates_per_train` mini-batches are drawn for
/// `train_every` environment steps once the random ones are over. The error allowed is `ratio_error` mini-batches and what the end
/// of an episode inserts at once, so one of the two sides can always go on.
pub fn rate_limiter(config: &Config) -> RateLimiter {
    let train = &config.train;
    let batch = train.batch_size as f64;
    let samples_per_insert = batch * train.updates_per_train as f64 / train.train_every as f64;
    RateLimiter {
        min_size: (train.random_steps as usize).max(train.batch_size),
        samples_per_insert,
        error_buffer: train.ratio_error as f64 * batch + config.replay.n_step as f64 * samples_per_insert,
    }
}

/// The configured replay buffer, empty; where the buffer is on the learner's device, its inlet. In async mode it has the [`rate_limiter`].
///
/// # Errors
/// [`CommandError::Usage`] when its settings are refused or it does not fit into memory.
pub fn build_replay(config: &Config, schema: Schema) -> Result<Replay> {
    let replay = &config.replay;
    let builder = Replay::builder(schema);
    let builder = match replay.device {
        ReplayDevice::Host => builder.capacity(replay.capacity),
        // A block, and what one step of all environments may complete: n rows each, where episodes end.
        ReplayDevice::Learner => {
            builder.capacity((replay.block_rows + config.train.num_envs * replay.n_step).next_power_of_two())
        }
    };
    let builder = match config.train.mode {
        TrainMode::InStep => builder,
        TrainMode::Async => builder.rate_limiter(rate_limiter(config)),
    };
    let builder = if replay.prioritized && replay.device == ReplayDevice::Host {
        builder.prioritized(prioritized(config))
    } else {
        builder.uniform()
    };
    builder.build().map_err(|e| CommandError::Usage(format!("replay: {e}")))
}

fn prioritized(config: &Config) -> Prioritized {
    Prioritized { alpha: config.replay.alpha, epsilon: config.replay.priority_epsilon }
}

/// The configured learner from `replay`, which [`build_replay`] made.
///
/// # Errors
/// [`CommandError::Usage`] when something is asked for that the device does not have.
pub fn build_learner(config: &Config, replay: &Replay, reader: Reader, device: Device) -> Result<Learner> {
    let mut draws = rng(config.seed, Stream::Sampling);
    let learner = match config.replay.device {
        ReplayDevice::Host => {
            Learner::new(reader, config.train.batch_size, config.replay.prioritized, draws, device)
        }
        ReplayDevice::Learner => {
            let settings = DeviceReplaySettings {
                capacity: config.replay.capacity,
                batch_rows: config.train.batch_size,
                block_rows: config.replay.block_rows,
                prioritized: config.replay.prioritized.then(|| prioritized(config)),
                tree_height: None,
            };
            let on_device = DeviceReplay::new(&settings, replay, &mut draws, device);
            Learner::on_device(on_device.map_err(|e| CommandError::Usage(format!("replay: {e}")))?)
        }
    };
    let settings = LearnerSettings {
        cuda_graph: config.learner.cuda_graph,
        precision: config.learner.precision,
        // At once with actors every batch that is drawn is counted against what they insert, so none is drawn ahead.
        prefetch: (config.train.mode == TrainMode::Async).then_some(false),
    };
    learner.with(&settings).map_err(CommandError::Usage)
}
