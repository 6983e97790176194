//! The replay buffer of a run: how it stores, where it is, and the streams that environments insert through.

use crate::config::{Config, ReplayDevice, TrainMode};
use crate::error::{CommandError, Result};
use crate::wiring::{Stream as Draws, rng};
use rl_learn::device_replay::{DeviceReplay, DeviceReplayError, DeviceReplaySettings, FrameRows, FrameStore};
use rl_learn::{Device, Learner, LearnerSettings, Spaces, StateError, StateVisitor, scope};
use rl_replay::{
    FramePadding, FrameStep, NextObs, Prioritized, RateLimiter, Replay, ReplayError, TransitionStep,
    TransitionStream, Transitions, WhenLimited,
};

/// What stands in a stack before an episode's first observation; [`Stacks`](crate::stacks::Stacks) has the same.
const PADDING: FramePadding = FramePadding::Repeat;

/// The buffer, or what leads to it where it is on the learner's device.
///
/// How rows are stored goes by the observations: stacks, and observations from [`NextObs::DERIVED_FROM_BYTES`] on, are stored once each and
/// rows refer to them; smaller ones stand in each row twice, as obs and next_obs.
#[derive(Clone, Debug)]
pub struct Buffer {
    parts: Parts,
    /// See [`bytes`](Self::bytes).
    bytes: u128,
}

#[derive(Clone, Debug)]
enum Parts {
    /// The buffer; or, where rows go to the learner's device whole, their inlet.
    Transitions(Box<Transitions>),
    /// The inlets of a buffer on the learner's device that stores each observation once.
    Inlets { frames: Replay, rows: Replay },
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

fn prioritized(config: &Config) -> Prioritized {
    Prioritized { alpha: config.replay.alpha, epsilon: config.replay.priority_epsilon }
}

/// Observations kept beyond one a row, where each is stored once: for episodes of 32 steps and more no row is lost for want of its last
/// one, and every environment's newest ones are among those that new rows may refer to.
fn extra_frames(config: &Config) -> usize {
    let newest = config.train.num_envs * (config.frame_stack + config.replay.n_step);
    config.replay.capacity / 32 + 9 * newest
}

impl Buffer {
    /// The configured buffer, empty, for single observations and actions of `spaces`. In async mode it has the [`rate_limiter`].
    ///
    /// # Errors
    /// [`CommandError::Usage`] when its settings are refused or it does not fit into memory.
    pub fn new(config: &Config, spaces: &Spaces) -> Result<Self> {
        let refused = |e: ReplayError| CommandError::Usage(format!("replay: {e}"));
        let settings = &config.replay;
        let (action_dtype, action_shape) = spaces.action_layout();
        let (obs, action) = ((spaces.obs_dtype, &spaces.obs_shape[..]), (action_dtype, &action_shape[..]));
        let stack = config.frame_stack;
        let transitions = Transitions::builder(obs, action)
            .n_step(settings.n_step, settings.gamma)
            .stack(stack)
            .padding(PADDING);
        let builder = match settings.device {
            ReplayDevice::Host => {
                let builder = transitions.capacity(settings.capacity).extra_frames(extra_frames(config));
                let builder = match settings.prioritized {
                    true => builder.prioritized(prioritized(config)),
                    false => builder.uniform(),
                };
                match config.train.mode {
                    TrainMode::InStep => builder,
                    TrainMode::Async => builder.rate_limiter(rate_limiter(config)),
                }
            }
            ReplayDevice::Learner => {
                // A block, and what one step of all environments may complete: n rows each, where episodes end.
                let rows = settings.block_rows + config.train.num_envs * settings.n_step;
                let each = spaces.obs_elements() * spaces.obs_dtype.size_bytes();
                if stack > 1 || each >= NextObs::DERIVED_FROM_BYTES {
                    return Self::inlets(config, obs, action, rows).map_err(refused);
                }
                transitions.capacity(rows.next_power_of_two()).next_obs(NextObs::Stored)
            }
        };
        let bytes = builder.memory_bytes().map_err(refused)?;
        Ok(Self { parts: Parts::Transitions(Box::new(builder.build().map_err(refused)?)), bytes })
    }

    fn inlets(
        config: &Config,
        obs: (rl_learn::Dtype, &[usize]),
        action: (rl_learn::Dtype, &[usize]),
        rows: usize,
    ) -> std::result::Result<Self, ReplayError> {
        // In one step an environment gives the observation that followed, and the first one of its next episode; before the first step, and once
        // more where a resumed run begins episodes anew, a first observation each. 64 go to the device at once.
        let frames = (4 * config.train.num_envs).max(64);
        let inlet = |schema, capacity: usize| Replay::builder(schema).capacity(capacity.next_power_of_two());
        let frames = inlet(FrameStore::frame_schema(obs)?, frames);
        let rows = inlet(FrameStore::row_schema(config.frame_stack, action)?, rows);
        let bytes = frames.memory_bytes() + rows.memory_bytes();
        Ok(Self { parts: Parts::Inlets { frames: frames.build()?, rows: rows.build()? }, bytes })
    }

    /// A handle for one environment to insert with.
    ///
    /// # Errors
    /// [`CommandError::Usage`] when the n-step settings are refused.
    pub fn stream(&self, config: &Config) -> Result<Stream> {
        Ok(match &self.parts {
            Parts::Transitions(transitions) => Stream::Host(transitions.stream()),
            Parts::Inlets { frames, rows } => {
                let n_step = (config.replay.n_step, config.replay.gamma);
                let stream = FrameRows::new(frames, rows, n_step, PADDING, config.frame_stack);
                Stream::Device(stream.map_err(|e| CommandError::Usage(format!("replay: {e}")))?)
            }
        })
    }

    /// The configured learner from this buffer. `when_limited` says what it does when the rate limiter holds it back.
    ///
    /// # Errors
    /// [`CommandError::Usage`] when something is asked for that the device does not have.
    pub fn learner(&self, config: &Config, when_limited: WhenLimited, device: Device) -> Result<Learner> {
        let mut draws = rng(config.seed, Draws::Sampling);
        let batch = config.train.batch_size;
        let learner = match (config.replay.device, &self.parts) {
            (ReplayDevice::Host, Parts::Transitions(transitions)) => {
                let reader = transitions.sampler().when_limited(when_limited);
                Learner::new(reader, batch, config.replay.prioritized, draws, device)
            }
            _ => {
                let settings = DeviceReplaySettings {
                    capacity: config.replay.capacity,
                    batch_rows: batch,
                    block_rows: config.replay.block_rows,
                    prioritized: config.replay.prioritized.then(|| prioritized(config)),
                    tree_height: None,
                };
                let on_device = self.on_device(config, &settings, &mut draws, device);
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

    fn on_device(
        &self,
        config: &Config,
        settings: &DeviceReplaySettings,
        draws: &mut rl_learn::Rng,
        device: Device,
    ) -> std::result::Result<DeviceReplay, DeviceReplayError> {
        match &self.parts {
            Parts::Transitions(transitions) => {
                let rows = transitions.as_stored().expect("the inlet of rows that are stored whole");
                DeviceReplay::new(settings, rows, draws, device)
            }
            Parts::Inlets { frames, rows } => {
                let kept = settings.capacity + extra_frames(config);
                let store = FrameStore::new(kept, frames, device)?;
                DeviceReplay::new(settings, rows, draws, device)?.with_frames(store)
            }
        }
    }

    /// The buffer where it is on the host, or the inlet of whole rows.
    pub fn transitions(&self) -> Option<&Transitions> {
        match &self.parts {
            Parts::Transitions(transitions) => Some(transitions),
            Parts::Inlets { .. } => None,
        }
    }

    /// Rows that can be drawn now; of an inlet, those that are in it.
    pub fn len(&self) -> usize {
        match &self.parts {
            Parts::Transitions(transitions) => transitions.len(),
            Parts::Inlets { rows, .. } => rows.len(),
        }
    }

    /// Whether there is no such row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows inserted so far.
    pub fn inserted(&self) -> u64 {
        match &self.parts {
            Parts::Transitions(transitions) => transitions.inserted(),
            Parts::Inlets { rows, .. } => rows.inserted(),
        }
    }

    /// Bytes that it takes on the host once it is full, its sampler's among them.
    pub fn bytes(&self) -> u128 {
        self.bytes
    }

    /// Ends all inserting and drawing.
    pub fn close(&self) {
        match &self.parts {
            Parts::Transitions(transitions) => transitions.close(),
            Parts::Inlets { frames, rows } => [frames, rows].into_iter().for_each(Replay::close),
        }
    }

    /// Shows the buffer. One on the learner's device is the learner's to show, but for what is in its inlets.
    ///
    /// # Errors
    /// Those of the visitor, and of the buffer for a state of another kind.
    pub fn visit(&self, visitor: &mut dyn StateVisitor) -> std::result::Result<(), StateError> {
        match &self.parts {
            Parts::Transitions(transitions) => transitions.visit(visitor),
            Parts::Inlets { frames, rows } => {
                scope(visitor, "frames", |v| frames.visit(v))?;
                scope(visitor, "rows", |v| rows.visit(v))
            }
        }
    }
}

/// Inserts the episodes of one environment, folded over n steps.
#[derive(Debug)]
pub enum Stream {
    /// Into the buffer on the host, or the inlet of whole rows.
    Host(TransitionStream),
    /// Into the inlets of a buffer on the learner's device.
    Device(FrameRows),
}

impl Stream {
    /// Begins an episode with its first observation.
    ///
    /// # Errors
    /// When the buffer refuses the observation.
    pub fn begin(&mut self, first: &[u8]) -> std::result::Result<(), ReplayError> {
        match self {
            Stream::Host(stream) => stream.begin(first),
            Stream::Device(stream) => stream.begin(first),
        }
    }

    /// Takes one step, and inserts the rows that it completes. Waits where the rate limiter says so.
    ///
    /// # Errors
    /// When the buffer refuses the step, or is closed.
    pub fn step(&mut self, step: TransitionStep<'_>) -> std::result::Result<(), ReplayError> {
        let TransitionStep { action, reward, next_obs, terminated, truncated } = step;
        match self {
            Stream::Host(stream) => stream.step(step).map(drop),
            Stream::Device(stream) => {
                stream.step(FrameStep { action, reward, next_frame: next_obs, terminated, truncated })
            }
        }
    }

    /// Steps that wait for their n-th successor.
    pub fn open_steps(&self) -> usize {
        match self {
            Stream::Host(stream) => stream.open_steps(),
            Stream::Device(stream) => stream.open_steps(),
        }
    }

    /// Shows the episode in progress: its newest observations and its open steps.
    ///
    /// # Errors
    /// Those of the visitor.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> std::result::Result<(), StateError> {
        match self {
            Stream::Host(stream) => stream.visit(visitor),
            Stream::Device(stream) => stream.visit(visitor),
        }
    }
}
