//! Observations made of frames, each frame stored once.
//!
//! An Atari agent sees stacks of the last k frames (Mnih et al., *Human-level control through deep reinforcement
//! learning*, Nature 2015, Methods). Stored as whole observations each frame is there 2k times: in k stacks, and in as
//! many next ones. A [`FrameReplay`] stores it once, and rows that refer to frames; a batch puts the stacks together
//! again. With k = 1 it does the same for any large observation: `next_obs` of a step is `obs` of the next one, and is
//! not stored again.
//!
//! ```
//! use rand::SeedableRng;
//! use rl_replay::{Batch, Drawn, Dtype, FrameReplay, FrameStep, Rng};
//!
//! let replay = FrameReplay::builder((Dtype::U8, &[84, 84]), (Dtype::I64, &[])).stack(4).capacity(1_000).build()?;
//!
//! // One for each environment, on any thread.
//! let mut stream = replay.stream();
//! stream.begin(&[0; 84 * 84])?;
//! for t in 1..=100u8 {
//!     let frame = [t; 84 * 84];
//!     let action = 1i64.to_ne_bytes();
//!     stream.step(FrameStep { action: &action, reward: 1.0, next_frame: &frame, terminated: t == 100, truncated: false })?;
//! }
//!
//! let (mut reader, mut rng) = (replay.sampler(), Rng::seed_from_u64(0));
//! let (mut batch, mut drawn) = (Batch::new(replay.schema(), 32), Drawn::default());
//! reader.sample_into(&mut rng, 32, &mut batch.view_mut(), &mut drawn)?;
//! // frames: [32, 5, 84, 84], of which obs is [:, :4] and next_obs [:, 1:].
//! let frames = batch.typed::<u8>("frames")?;
//! assert_eq!((replay.window(), frames.len()), (5, 32 * 5 * 84 * 84));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Inside
//!
//! Two rings: one of frames, and a [`Replay`] of rows, which refer to frames by serial. A frame's slot has no padding
//! to whole cache lines. See `store.rs` for what keeps a row from being drawn without its frames.

mod reader;
mod state;
mod store;
mod stream;

pub use reader::FrameReader;
pub(crate) use state::FrameMoment;
pub use stream::{FrameStep, FrameStream};

use crate::builder::{Choice, check_room};
use crate::control::Control;
use crate::layout::Layout;
use crate::ring::Ring;
use crate::{Key, Prioritized, RateLimiter, Replay, ReplayError, Statistics, memory};
use rl_minibatch::{Dtype, Field, Sampler, Schema, SchemaError};
use std::ops::Range;
use std::sync::Arc;
use store::{PER_MARK, Store};

/// What stands in a stack for the frames before an episode's first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FramePadding {
    /// The first frame again, as Gymnasium's `FrameStackObservation` does by default.
    #[default]
    Repeat,
    /// Zeros.
    Zero,
}

/// A replay buffer of stacked frames, in which each frame is stored once. It is a handle; cloning it is cheap.
///
/// Environments insert through [`FrameStream`]s, one for each; learners draw through [`FrameReader`]s. All of them may be
/// on threads of their own. Streams take turns: a step holds a lock while its frame is copied. Readers never take it.
///
/// # Rows drawn
///
/// Of a row are drawn, in this order ([`schema`](Self::schema)):
///
/// | field | shape | |
/// |---|---|---|
/// | `frames` | `[W, frame...]` | `obs` is `[:k]`, `next_obs` is `[W − k:]`, both oldest frame first |
/// | `action` | as given | |
/// | `reward` | `[]` f32 | Σ γⁱ·r(t+i) over the s steps of the row |
/// | `discount` | `[]` f32 | γˢ · (1 − terminated) |
///
/// W is k + 1 for one-step transitions, whose two stacks overlap in all but one frame, and 2k for n-step ones: at an
/// episode's end there are rows of fewer than n steps, and their stacks overlap otherwise than those of whole rows.
///
/// # How many rows can be drawn
///
/// A row can be drawn while it is live and all its frames are. An episode of T steps has T + 1 frames, and the ring of
/// frames has room for some more than the capacity in rows ([`FrameBuilder::extra_frames`]). With short episodes that
/// is less than what all rows need, and about (frames − m·(k + n)) / (1 + 1/T) of the newest rows can be drawn, where
/// m streams insert in turn. [`len`](Self::len) tells how many.
#[derive(Clone)]
pub struct FrameReplay {
    pub(crate) store: Arc<Store>,
    /// For the rate limiter, which counts handles.
    rows: Replay,
}

impl FrameReplay {
    /// Begins a buffer of frames and actions of these element types and shapes (of one frame, of one action).
    pub fn builder(frame: (Dtype, &[usize]), action: (Dtype, &[usize])) -> FrameBuilder {
        FrameBuilder {
            frame: Field::new("frame", frame.0, frame.1),
            action: Field::new("action", action.0, action.1),
            stack: 4,
            n: 1,
            gamma: 0.99,
            padding: FramePadding::default(),
            capacity: 0,
            extra: None,
            history: None,
            reserve: None,
            choice: Choice::Uniform,
            limiter: None,
            count_draws: false,
        }
    }

    /// A handle for one environment to insert with.
    pub fn stream(&self) -> FrameStream {
        FrameStream::new(self.store.clone())
    }

    /// A handle to draw rows with. Each thread takes one of its own.
    pub fn sampler(&self) -> FrameReader {
        FrameReader::new(self.store.clone())
    }

    /// What a row of a batch holds: `frames`, `action`, `reward`, `discount`.
    pub fn schema(&self) -> &Schema {
        &self.store.batch_schema
    }

    /// k, the frames of an observation.
    pub fn stack(&self) -> usize {
        self.store.stack
    }

    /// W, the frames of a row of a batch; `obs` is the first k of them and `next_obs` the last k.
    pub fn window(&self) -> usize {
        self.store.window()
    }

    /// The most rows that are kept.
    pub fn capacity(&self) -> usize {
        self.store.rows.capacity()
    }

    /// The keys of the rows that can be drawn now.
    pub fn live(&self) -> Range<Key> {
        let from = self.store.drawable_from();
        let live = self.store.rows.live();
        live.start.max(from).min(live.end)..live.end
    }

    /// Rows that can be drawn now.
    pub fn len(&self) -> usize {
        let live = self.live();
        (live.end - live.start) as usize
    }

    /// Whether there is no row to draw.
    pub fn is_empty(&self) -> bool {
        self.live().is_empty()
    }

    /// Ends all inserting and drawing of a buffer with a rate limiter; see [`Replay::close`].
    pub fn close(&self) {
        self.rows.close();
    }

    /// Rows inserted since the buffer was made.
    pub fn inserted(&self) -> u64 {
        self.store.rows.inserted()
    }

    /// Frames inserted since the buffer was made, those that a stream inserted anew included.
    pub fn inserted_frames(&self) -> u64 {
        self.store.frames.live().end
    }

    /// Priorities that were dropped because their row had been overwritten.
    pub fn stale_priorities(&self) -> u64 {
        self.store.rows.stale_priorities()
    }

    /// What the buffer has counted of its rows; see [`Replay::statistics`]. A row that can be drawn no more because its
    /// frames have gone counts as overwritten.
    pub fn statistics(&self) -> Statistics {
        self.store.rows.statistics_of(self.live())
    }

    /// Bytes reserved for frames and rows, and for the counters of [`FrameBuilder::count_draws`]. They become resident as they are first written. A sampler's own memory comes
    /// on top.
    pub fn memory_bytes(&self) -> usize {
        self.store.frames.memory_bytes() + self.store.rows.memory_bytes()
    }
}

impl std::fmt::Debug for FrameReplay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameReplay")
            .field("live", &self.live())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

/// Describes a [`FrameReplay`] before it is made.
///
/// Frames and actions are held as they are given. There is no [`store`](crate::Builder::store) here: to hold frames as
/// 16-bit floats, have them [`Dtype::F16`] or [`Dtype::Bf16`] in the schema and convert them before they are inserted.
pub struct FrameBuilder {
    frame: Field,
    action: Field,
    stack: usize,
    n: usize,
    gamma: f64,
    padding: FramePadding,
    capacity: usize,
    extra: Option<usize>,
    history: Option<usize>,
    reserve: Option<usize>,
    choice: Choice,
    limiter: Option<RateLimiter>,
    count_draws: bool,
}

impl FrameBuilder {
    /// Keeps the newest `rows` rows, at most 2³¹. Has to be set.
    pub fn capacity(mut self, rows: usize) -> Self {
        self.capacity = rows;
        self
    }

    /// k, the frames of an observation: 4 by default, 1 for observations that are not stacked.
    pub fn stack(mut self, frames: usize) -> Self {
        self.stack = frames;
        self
    }

    /// Rows of up to `n` steps, discounted by `gamma` a step, as [`NStep`](crate::NStep) makes them. By default n is 1
    /// and γ 0.99.
    pub fn n_step(mut self, n: usize, gamma: f64) -> Self {
        (self.n, self.gamma) = (n, gamma);
        self
    }

    /// What stands for the frames before an episode's first one; the first one by default.
    pub fn padding(mut self, padding: FramePadding) -> Self {
        self.padding = padding;
        self
    }

    /// Frames that are kept beyond the capacity in rows: for each episode one, and k + n for each stream. By default
    /// a 128th of the capacity, enough for episodes of 200 steps and more, and 4·(k + n).
    pub fn extra_frames(mut self, frames: usize) -> Self {
        self.extra = Some(frames);
        self
    }

    /// How many frames may have been inserted since one that a new row refers to. A stream that has been silent for
    /// longer inserts the frames that it needs anew, k + n of them at most. The more, the more rows may go out of reach at
    /// once after a silence; the fewer, the more streams insert twice: let it be above streams · (k + n). At least
    /// k + n + 1, which is also the least default; else an eighth of all frames.
    pub fn history(mut self, frames: usize) -> Self {
        self.history = Some(frames);
        self
    }

    /// How far, in pairs of frames, writers may run ahead of the slowest reader that is copying; see
    /// [`Builder::reserve`](crate::Builder::reserve). 64 by default.
    pub fn reserve(mut self, frames: usize) -> Self {
        self.reserve = Some(frames);
        self
    }

    /// Counts how often each row is drawn, and the age of every row drawn; see
    /// [`Builder::count_draws`](crate::Builder::count_draws).
    pub fn count_draws(mut self) -> Self {
        self.count_draws = true;
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

    /// Draws by a sampler of your own; see [`Builder::sampler`](crate::Builder::sampler).
    pub fn sampler(mut self, sampler: Box<dyn Sampler>) -> Self {
        self.choice = Choice::Other(sampler);
        self
    }

    /// Holds inserting and drawing to a ratio; see [`RateLimiter`]. It counts rows, and a row as live even when its frames
    /// are gone: with many short episodes fewer rows than `min_size` can be drawn.
    pub fn rate_limiter(mut self, limiter: RateLimiter) -> Self {
        self.limiter = Some(limiter);
        self
    }

    /// Draws in the way that was chosen elsewhere.
    pub(crate) fn choice(mut self, choice: Choice) -> Self {
        self.choice = choice;
        self
    }

    /// Bytes that the buffer takes when it is full: frames, rows, and what the sampler keeps for each row; as
    /// [`Builder::memory_bytes`](crate::Builder::memory_bytes). Nothing is allocated.
    ///
    /// # Errors
    /// Those of [`build`](Self::build) for settings that make no sense.
    pub fn memory_bytes(&self) -> Result<u128, ReplayError> {
        self.check()?;
        Ok(self.bytes_for(&self.schemas()?, self.capacity as u64))
    }

    /// The same for another capacity.
    fn bytes_for(&self, [_, row, frame]: &[Schema; 3], capacity: u64) -> u128 {
        let capacity_rows = usize::try_from(capacity).unwrap_or(usize::MAX);
        let rows = Replay::builder(row.clone()).capacity(capacity_rows).packed();
        let rows = if self.count_draws { rows.count_draws() } else { rows }.memory_bytes();
        let reserve = self.reserve_frames() as u64;
        let frames = Layout::packed(frame).ring_bytes_wide(self.rings(capacity_rows).frames, reserve);
        let bookkeeping = Control::window_bytes(2 * reserve);
        let sampler = self.choice.bytes_for(capacity, self.capacity);
        rows.saturating_add(frames).saturating_add(bookkeeping).saturating_add(sampler)
    }

    /// What a buffer of `capacity` rows has of frames.
    fn rings(&self, capacity: usize) -> Rings {
        let (stack, n) = (self.stack, self.n);
        // A stream inserts this many frames at once at most, and needs as many.
        let span = stack + n + 1;
        let extra = self.extra.unwrap_or(capacity / 128 + 4 * (stack + n));
        let kept = capacity.saturating_add(extra);
        let history = self.history.unwrap_or_else(|| (kept / 8).max(span));
        // Beyond the history so many that marks need not be finer.
        let frames = kept.max(history.saturating_add(2 * PER_MARK as usize));
        Rings { span, extra, history, frames: frames as u64 }
    }

    fn reserve_frames(&self) -> usize {
        self.reserve.unwrap_or(64)
    }

    /// Refuses settings out of range.
    fn check(&self) -> Result<(), ReplayError> {
        let (capacity, most) = (self.capacity, 1 << 31);
        if capacity == 0 {
            return Err(ReplayError::NoCapacity);
        }
        within("capacity", capacity, 1..=most, "at most 2147483648")?;
        within("stack", self.stack, 1..=MAX_WINDOW, "in 1..=4096")?;
        within("n_step", self.n, 1..=MAX_WINDOW, "in 1..=4096")?;
        if !(0.0..=1.0).contains(&self.gamma) {
            return Err(ReplayError::Setting { name: "gamma", value: self.gamma, expected: "in 0..=1" });
        }
        let Rings { span, extra, history, .. } = self.rings(capacity);
        within("extra_frames", extra, 0..=most, "at most 2147483648")?;
        within("reserve", self.reserve_frames(), 1..=1 << 20, "in 1..=1048576")?;
        within("history", history, span..=most, "at least stack + n_step + 1")
    }

    /// Of a row of a batch, a row as it is stored, and a frame.
    fn schemas(&self) -> Result<[Schema; 3], ReplayError> {
        let window = window(self.stack, self.n);
        let refuse = |error: SchemaError| ReplayError::NotFrames { why: error.to_string() };
        let scalar = |name: &str| Field::new(name, Dtype::F32, []);
        let row = |first: &[Field], last: &[Field]| {
            let middle = [self.action.clone(), scalar("reward"), scalar("discount")];
            Schema::new([first, &middle, last].concat()).map_err(refuse)
        };
        let shape: Vec<usize> = [window].into_iter().chain(self.frame.shape.iter().copied()).collect();
        Ok([
            row(&[Field::new("frames", self.frame.dtype, shape)], &[])?,
            row(&[], &[Field::new("references", Dtype::U8, [4 * window])])?,
            Schema::new(vec![self.frame.clone()]).map_err(refuse)?,
        ])
    }

    /// Makes the buffer. Its memory is reserved and not touched yet. One that would not fit once it is full is refused, as
    /// by [`Builder::build`](crate::Builder::build).
    ///
    /// # Errors
    /// [`ReplayError::NoCapacity`]; [`ReplayError::TooLarge`] and [`ReplayError::Memory`] when the memory cannot be had;
    /// [`ReplayError::Setting`] when a setting is out of range; [`ReplayError::NotFrames`] when a frame or an action has no
    /// bytes or too many.
    pub fn build(self) -> Result<FrameReplay, ReplayError> {
        self.check()?;
        let schemas = self.schemas()?;
        if let Some(available) = memory::available() {
            check_room(self.capacity as u64, available, |capacity| self.bytes_for(&schemas, capacity))?;
        }
        let [batch_schema, row_schema, frame_schema] = schemas;
        let Rings { history, frames, .. } = self.rings(self.capacity);
        let reserve = self.reserve_frames() as u64;
        let Self { stack, n, gamma, padding, capacity, choice, limiter, count_draws, .. } = self;

        let mut rows = Replay::builder(row_schema).capacity(capacity).packed().choice(choice);
        if let Some(limiter) = limiter {
            rows = rows.rate_limiter(limiter);
        }
        let rows = if count_draws { rows.count_draws() } else { rows }.build()?;
        let layout = Layout::packed(&frame_schema);
        let bytes = layout.ring_bytes_wide(frames, reserve);
        let frames = Ring::new(layout, frames, reserve).map_err(|source| ReplayError::Memory {
            rows: frames,
            bytes,
            source,
        })?;
        let history = history as u64;
        let handle = rows.clone();
        let store = Store::new(rows, frames, frame_schema, batch_schema, (stack, n, gamma, padding), history);
        Ok(FrameReplay { store: Arc::new(store), rows: handle })
    }
}

/// What a buffer has of frames: those that one insertion of a stream may need, those beyond the capacity in rows, those
/// that a new row may refer to, and all.
struct Rings {
    span: usize,
    extra: usize,
    history: usize,
    frames: u64,
}

/// Frames of a row: its two stacks, overlapping where they do so in every row.
fn window(stack: usize, n: usize) -> usize {
    if n == 1 { stack + 1 } else { 2 * stack }
}

/// Bounds of k and n: a row's window is copied for each row of a batch.
const MAX_WINDOW: usize = 4096;

fn within(
    name: &'static str,
    value: usize,
    range: std::ops::RangeInclusive<usize>,
    expected: &'static str,
) -> Result<(), ReplayError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(ReplayError::Setting { name, value: value as f64, expected })
}
