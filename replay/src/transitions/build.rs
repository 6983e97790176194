//! How transitions are stored, and the choice of it.

use super::{ObsView, ObsViews, Storage, Transitions};
use crate::builder::Choice;
use crate::{
    Builder, FrameBuilder, FramePadding, FrameReplay, NStep, Prioritized, RateLimiter, Replay, ReplayError,
};
use rl_minibatch::{BatchError, Dtype, Field, Sampler, Schema};

/// How the observation that follows a step is stored.
///
/// *Stored*, a row has both of its observations side by side, and is read from one place. *Derived*, each observation is
/// stored once, for it is `next_obs` of one step and `obs` of the following one, and rows refer to them.
///
/// Measured with batches of 256 drawn uniformly, of 256 MiB of observations but at most a million, episodes of 1,000
/// steps, one thread (`cargo run --release -p rl-replay --example next_obs 256 15`; two cores that others used too, so look
/// at the ratio, of pairs of draws that took turns: its range over four runs):
///
/// | bytes of an observation | stored: bytes a row | drawn/s | steps/s | derived: bytes a row | drawn/s | steps/s | drawn, derived : stored |
/// |---|---|---|---|---|---|---|---|
/// | 64 | 192 | 62.5M | 8.9M | 88 | 30.2M | 6.5M | 0.41 to 0.53 |
/// | 256 | 577 | 16.1M | 14.2M | 282 | 17.7M | 6.5M | 0.96 to 1.19 |
/// | 1,024 | 2,128 | 5.3M | 4.8M | 1,056 | 4.9M | 3.4M | 0.89 to 0.93 |
/// | 2,048 | 4,223 | 3.1M | 4.1M | 2,090 | 3.0M | 5.5M | 0.90 and more |
/// | 4,096 | 8,383 | 1.7M | 1.8M | 4,161 | 1.8M | 2.8M | 1.03 to 1.19 |
/// | 16,384 | 33,340 | 0.57M | 0.77M | 16,675 | 0.61M | 1.2M | 1.07 to 1.10 |
/// | 28,224 | 57,391 | 0.33M | 0.49M | 28,874 | 0.39M | 0.82M | 1.11 to 1.19 |
///
/// The trade: derived takes half the memory. Its draws look a row up before they find its observations, which is half the
/// rate for the smallest ones, costs a tenth up to 2 KiB, and from 4 KiB on is nothing beside the copying. On the other
/// side its streams take turns, where stored ones take no lock, and with short episodes it keeps fewer rows than the
/// capacity (see [`Transitions`]). So `Auto` derives from 4 KiB on; where memory is short, ask for it from 256 bytes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NextObs {
    /// Derived for stacks, and for observations of at least [`DERIVED_FROM_BYTES`](Self::DERIVED_FROM_BYTES); else stored.
    #[default]
    Auto,
    /// In each row, beside `obs`. Not for stacks.
    Stored,
    /// From the row's successor in its episode; see [`FrameReplay`].
    Derived,
}

impl NextObs {
    /// The least bytes of an observation for which [`Auto`](Self::Auto) derives the next one: where that costs no draws, as
    /// the table above shows.
    pub const DERIVED_FROM_BYTES: usize = 4096;
}

/// Describes [`Transitions`] before they are made.
pub struct TransitionsBuilder {
    obs: Field,
    action: Field,
    next_obs: NextObs,
    capacity: usize,
    stack: usize,
    n: usize,
    gamma: f64,
    padding: FramePadding,
    extra: Option<usize>,
    reserve: Option<usize>,
    choice: Choice,
    limiter: Option<RateLimiter>,
}

impl TransitionsBuilder {
    pub(super) fn new(obs: (Dtype, &[usize]), action: (Dtype, &[usize])) -> Self {
        Self {
            obs: Field::new("obs", obs.0, obs.1),
            action: Field::new("action", action.0, action.1),
            next_obs: NextObs::Auto,
            capacity: 0,
            stack: 1,
            n: 1,
            gamma: 0.99,
            padding: FramePadding::default(),
            extra: None,
            reserve: None,
            choice: Choice::Uniform,
            limiter: None,
        }
    }

    /// Keeps the newest `rows` rows; at most 2³¹ where next_obs is derived. Has to be set.
    pub fn capacity(mut self, rows: usize) -> Self {
        self.capacity = rows;
        self
    }

    /// k, the frames of an observation: 1 by default, for observations that are not stacked. Streams are given frames, and
    /// each is stored once.
    pub fn stack(mut self, frames: usize) -> Self {
        self.stack = frames;
        self
    }

    /// Rows of up to `n` steps, at most 4,096, discounted by `gamma` a step, as [`NStep`] makes them. By default n is 1 and
    /// γ 0.99.
    pub fn n_step(mut self, n: usize, gamma: f64) -> Self {
        (self.n, self.gamma) = (n, gamma);
        self
    }

    /// How next_obs is stored; by its size unless this says otherwise.
    pub fn next_obs(mut self, next_obs: NextObs) -> Self {
        self.next_obs = next_obs;
        self
    }

    /// What stands in a stack for the frames before an episode's first one; the first one by default.
    pub fn padding(mut self, padding: FramePadding) -> Self {
        self.padding = padding;
        self
    }

    /// Where next_obs is derived, observations that are kept beyond the capacity in rows: one for each episode, and k + n
    /// for each stream; see [`FrameBuilder::extra_frames`]. For episodes of T steps capacity / T and some more keep all rows.
    pub fn extra_frames(mut self, frames: usize) -> Self {
        self.extra = Some(frames);
        self
    }

    /// How far writers may run ahead of the slowest reader that is copying; see [`Builder::reserve`] and
    /// [`FrameBuilder::reserve`].
    pub fn reserve(mut self, rows: usize) -> Self {
        self.reserve = Some(rows);
        self
    }

    /// Draws every row with the same probability, with replacement. The default.
    pub fn uniform(mut self) -> Self {
        self.choice = Choice::Uniform;
        self
    }

    /// Draws rows in proportion to their priorities; see [`Proportional`](crate::Proportional).
    pub fn prioritized(mut self, settings: Prioritized) -> Self {
        self.choice = Choice::Prioritized(settings);
        self
    }

    /// Draws rows by the rank of their priorities; see [`RankBased`](crate::RankBased).
    pub fn rank_based(mut self, alpha: f64) -> Self {
        self.choice = Choice::RankBased(alpha);
        self
    }

    /// Draws by a sampler of your own; see [`Builder::sampler`].
    pub fn sampler(mut self, sampler: Box<dyn Sampler>) -> Self {
        self.choice = Choice::Other(sampler);
        self
    }

    /// Holds inserting and drawing to a ratio; see [`RateLimiter`] and [`FrameBuilder::rate_limiter`].
    pub fn rate_limiter(mut self, limiter: RateLimiter) -> Self {
        self.limiter = Some(limiter);
        self
    }

    /// Bytes that the buffer takes when it is full, in the storage that is going to be used: observations and rows with
    /// their padding and slack, bookkeeping, and what the sampler keeps for each row. Nothing is allocated. O(1).
    ///
    /// ```
    /// use rl_replay::{Dtype, NextObs, Transitions};
    /// let images = || Transitions::builder((Dtype::U8, &[96, 96, 3]), (Dtype::F32, &[3])).capacity(100_000);
    /// let stored = images().next_obs(NextObs::Stored).memory_bytes()?;
    /// assert!((1.98..2.0).contains(&(stored as f64 / images().memory_bytes()? as f64)));
    /// # Ok::<(), rl_replay::ReplayError>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`build`](Self::build) for settings that make no sense.
    pub fn memory_bytes(&self) -> Result<u128, ReplayError> {
        let of_sampler = |rows: u64| self.choice.bytes_for(rows, self.capacity);
        match self.plan()? {
            Plan::Stored(builder, _) => Ok(builder.memory_bytes() + of_sampler(self.capacity as u64)),
            Plan::Derived(builder) => Ok(builder.memory_bytes()? + of_sampler(self.capacity as u64)),
        }
    }

    /// Makes the buffer. Its memory is reserved and not touched yet. One that would not fit once it is full is refused, as
    /// by [`Builder::build`].
    ///
    /// # Errors
    /// [`ReplayError::NoCapacity`]; [`ReplayError::TooLarge`] and [`ReplayError::Memory`] when the memory cannot be had;
    /// [`ReplayError::Setting`] when a setting is out of range, or the stack is not 1 where next_obs is to be stored;
    /// [`ReplayError::Schema`] and [`ReplayError::NotFrames`] when an observation or an action has no bytes or too many.
    pub fn build(self) -> Result<Transitions, ReplayError> {
        let k = self.stack;
        match self.plan()? {
            Plan::Stored(builder, n_step) => {
                let mut builder = builder.choice(self.choice);
                if let Some(limiter) = self.limiter {
                    builder = builder.rate_limiter(limiter);
                }
                let replay = builder.build()?;
                let (schema, views) = stored_views(replay.schema())?;
                Ok(Transitions { schema, views, storage: Storage::Stored { replay, n_step } })
            }
            Plan::Derived(builder) => {
                let mut builder = builder.choice(self.choice);
                if let Some(limiter) = self.limiter {
                    builder = builder.rate_limiter(limiter);
                }
                let frames = builder.build()?;
                let (schema, window) = (frames.schema().clone(), frames.window());
                let view = |start| ObsView { field: 0, of: window, start, len: k };
                let views = ObsViews { obs: view(0), next_obs: view(window - k) };
                Ok(Transitions { schema, views, storage: Storage::Derived(frames) })
            }
        }
    }

    /// Whether next_obs is going to be derived.
    fn derives(&self) -> Result<bool, ReplayError> {
        let setting =
            |expected| Err(ReplayError::Setting { name: "stack", value: self.stack as f64, expected });
        match (self.next_obs, self.stack) {
            (_, 0) => setting("at least 1"),
            (NextObs::Stored, 1) => Ok(false),
            (NextObs::Stored, _) => {
                setting("1 where next_obs is stored; take NextObs::Auto or Derived for stacks")
            }
            (NextObs::Auto, 1) => Ok(self.obs.row_bytes() >= NextObs::DERIVED_FROM_BYTES),
            (NextObs::Auto | NextObs::Derived, _) => Ok(true),
        }
    }

    /// The buffer that is going to do it, but for its sampler and rate limiter.
    fn plan(&self) -> Result<Plan, ReplayError> {
        if self.capacity == 0 {
            return Err(ReplayError::NoCapacity);
        }
        let (obs, action) = (&self.obs, &self.action);
        // Refuses what has no bytes, or too many to count, so it comes first.
        let schema = Schema::transition((obs.dtype, &obs.shape), (action.dtype, &action.shape))?;
        if self.derives()? {
            let mut builder = FrameReplay::builder((obs.dtype, &obs.shape), (action.dtype, &action.shape))
                .capacity(self.capacity)
                .stack(self.stack)
                .n_step(self.n, self.gamma)
                .padding(self.padding);
            if let Some(frames) = self.extra {
                builder = builder.extra_frames(frames);
            }
            if let Some(frames) = self.reserve {
                builder = builder.reserve(frames);
            }
            return Ok(Plan::Derived(builder));
        }
        if self.n > MAX_STEPS {
            let value = self.n as f64;
            return Err(ReplayError::Setting { name: "n_step", value, expected: "in 1..=4096" });
        }
        let n_step = NStep::new(self.n, self.gamma, &schema)?;
        let mut builder = Replay::builder(schema).capacity(self.capacity);
        if let Some(rows) = self.reserve {
            builder = builder.reserve(rows);
        }
        Ok(Plan::Stored(builder, n_step))
    }
}

/// The schema of rows that hold both observations, with the leading dimension that views speak of (the bytes are the same), and the
/// views.
pub(super) fn stored_views(rows: &Schema) -> Result<(Schema, ObsViews), ReplayError> {
    let mut fields = rows.fields().to_vec();
    let mut view = |name: &str| {
        let field = fields.iter().position(|field| field.name == name);
        let field = field.ok_or_else(|| BatchError::NoColumn { name: name.to_string() })?;
        fields[field].shape.insert(0, 1);
        Ok::<_, ReplayError>(ObsView { field, of: 1, start: 0, len: 1 })
    };
    let views = ObsViews { obs: view("obs")?, next_obs: view("next_obs")? };
    Ok((Schema::new(fields)?, views))
}

enum Plan {
    Stored(Builder, NStep),
    Derived(FrameBuilder),
}

/// As many as a row of frames may span, so that a setting does not depend on the storage.
const MAX_STEPS: usize = 4096;
