//! How a buffer is described and made.

use crate::buffer::{Keeper, Shared};
use crate::control::Control;
use crate::counters::Counters;
use crate::half_float::HalfFloat;
use crate::layout::Layout;
use crate::limiter::Limiter;
use crate::mapped::{self, Opened, Stored};
use crate::memory;
use crate::ring::Ring;
use crate::sync::Mutex;
use crate::{Prioritized, Proportional, RankBased, RateLimiter, Replay, ReplayError};
use rl_minibatch::{Dtype, Field, Sampler, Schema, Uniform};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Bounds of the reserve that is taken unless the user says otherwise, in rows, and what they may take in bytes.
const MIN_RESERVE: u64 = 64;
const MAX_RESERVE: u64 = 1024;
const RESERVE_BYTES: u64 = 4 << 20;

/// Describes a buffer before it is made.
///
/// ```
/// use rl_replay::{Dtype, Prioritized, Replay, Schema};
/// let schema = Schema::transition((Dtype::F32, &[4]), (Dtype::I64, &[]))?;
/// let replay = Replay::builder(schema)
///     .capacity(100_000)
///     .prioritized(Prioritized { alpha: 0.6, epsilon: 1e-6 })
///     .build()?;
/// assert_eq!((replay.len(), replay.capacity()), (0, 100_000));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Builder {
    schema: Schema,
    /// The same fields, with the types that slots hold.
    slots: Schema,
    /// The first thing that cannot be stored as it was said.
    refused: Option<ReplayError>,
    capacity: usize,
    reserve: Option<usize>,
    packed: bool,
    choice: Choice,
    limiter: Option<RateLimiter>,
    path: Option<PathBuf>,
    count_draws: bool,
}

/// How rows are to be drawn.
pub(crate) enum Choice {
    Uniform,
    Prioritized(Prioritized),
    RankBased(f64),
    Other(Box<dyn Sampler>),
}

impl Choice {
    /// Bytes of the sampler's state for so many rows, where the buffer is to be made for `made_for`.
    pub(crate) fn bytes_for(&self, capacity: u64, made_for: usize) -> u128 {
        match self {
            Choice::Uniform => 0,
            Choice::Prioritized(_) => Proportional::bytes_for(capacity).into(),
            Choice::RankBased(_) => RankBased::bytes_for(capacity).into(),
            // It was made for this buffer's capacity, and for another it would be larger or smaller in proportion.
            Choice::Other(sampler) => {
                u128::from(sampler.memory_bytes()) * u128::from(capacity) / (made_for as u128).max(1)
            }
        }
    }
}

impl Builder {
    pub(crate) fn new(schema: Schema) -> Self {
        Self {
            slots: schema.clone(),
            schema,
            refused: None,
            capacity: 0,
            reserve: None,
            packed: false,
            choice: Choice::Uniform,
            limiter: None,
            path: None,
            count_draws: false,
        }
    }

    /// Keeps the newest `rows` rows. Has to be set.
    pub fn capacity(mut self, rows: usize) -> Self {
        self.capacity = rows;
        self
    }

    /// The most rows that go in under one claim, at least 1. There are twice as many slots beside the capacity, so that
    /// writers go on while rows about to be overwritten are still being copied: the more, the further they may run ahead
    /// of the slowest reader. By default a sixteenth of the capacity, but at most 1,024 and at most 4 MiB of rows, and at
    /// least 64.
    pub fn reserve(mut self, rows: usize) -> Self {
        self.reserve = Some(rows);
        self
    }

    /// Has the column `column`, f32 in the schema, held as `dtype`, [`Dtype::F16`] or [`Dtype::Bf16`], in half the memory and
    /// half the cache lines. The schema stays as it is: rows go in and come out as f32, and everything that inserts or
    /// draws works as before. For each column one call; of more the last one counts.
    ///
    /// | held as | significant bits | finite up to | for |
    /// |---|---|---|---|
    /// | `F16` | 11 | 65504 | observations that are scaled; below 6.1e-5 fewer bits, down to 6.0e-8 |
    /// | `Bf16` | 8 | 3.39e38 | values of any size |
    ///
    /// Values are rounded to the nearest one, of two equally near ones to that with an even last bit; what is drawn is
    /// the rounded value, exactly. One that would become infinite is refused with [`ReplayError::OutOfRange`] before
    /// anything is stored. Keep `discount` and anything that a learner compares or counts as f32.
    ///
    /// Snapshots and other states hold the schema's own f32, so a buffer takes them whatever it holds its columns as: it
    /// rounds what it loads, and refuses a state with a value that is out of range. Loaded with the same types a buffer
    /// gives what the saved one would have given, bit for bit.
    ///
    /// Cost: a conversion of each value on its way in and out, by the processor's own instructions for `F16` where it
    /// has them (F16C); nothing for other columns.
    ///
    /// ```
    /// use rl_replay::{Dtype, Replay, Schema};
    /// let schema = Schema::transition((Dtype::F32, &[17]), (Dtype::F32, &[6]))?;
    /// let plain = Replay::builder(schema.clone()).capacity(100_000);
    /// let halved = Replay::builder(schema)
    ///     .capacity(100_000)
    ///     .store("obs", Dtype::F16)
    ///     .store("next_obs", Dtype::Bf16);
    /// // 168 bytes a row in three cache lines, and 100 in two.
    /// assert!(halved.memory_bytes() * 100 < plain.memory_bytes() * 67);
    /// let replay = halved.build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`build`](Self::build) gives [`ReplayError::Store`] when the schema has no such column, when it is not f32, and for
    /// any other type.
    pub fn store(mut self, column: &str, dtype: Dtype) -> Self {
        match stored(&self.schema, &self.slots, column, dtype) {
            Ok(slots) => self.slots = slots,
            Err(why) => {
                let refused = ReplayError::Store { column: column.to_string(), dtype, why };
                self.refused.get_or_insert(refused);
            }
        }
        self
    }

    /// Holds rows as `replay` does, which must have the same schema.
    #[cfg(any(feature = "npz", feature = "arrow", feature = "minari"))]
    pub(crate) fn store_as(self, replay: &Replay) -> Self {
        let spans = replay.shared.ring.layout().fields.iter();
        spans.zip(replay.schema().fields()).fold(self, |builder, (span, field)| match span.half {
            None => builder,
            Some(half) => builder.store(&field.name, half.dtype()),
        })
    }

    /// Leaves no more than seven bytes between rows: for rows that only refer to larger ones.
    pub(crate) fn packed(mut self) -> Self {
        self.packed = true;
        self
    }

    /// Draws in the way that was chosen elsewhere.
    pub(crate) fn choice(mut self, choice: Choice) -> Self {
        self.choice = choice;
        self
    }

    /// Draws every row with the same probability, with replacement. The default.
    pub fn uniform(mut self) -> Self {
        self.choice = Choice::Uniform;
        self
    }

    /// Draws rows in proportion to their priorities; see [`Proportional`].
    pub fn prioritized(mut self, settings: Prioritized) -> Self {
        self.choice = Choice::Prioritized(settings);
        self
    }

    /// Draws rows by the rank of their priorities, with this α (0.7 in the paper); see [`RankBased`].
    pub fn rank_based(mut self, alpha: f64) -> Self {
        self.choice = Choice::RankBased(alpha);
        self
    }

    /// Draws by a sampler of your own. It must be new, made for this capacity if it depends on one, and it must draw
    /// only from the live rows that it is given: keys outside of them are refused with [`ReplayError::BadDraw`].
    pub fn sampler(mut self, sampler: Box<dyn Sampler>) -> Self {
        self.choice = Choice::Other(sampler);
        self
    }

    /// Holds inserting and drawing to a ratio; see [`RateLimiter`]. Without one, the default, neither waits for the other.
    ///
    /// It counts the rows of [`Writer`](crate::Writer)s and of all that inserts through one, and the rows that [`Reader::sample_into`](crate::Reader::sample_into),
    /// [`Hindsight`](crate::Hindsight) and [`Pinned::draw`](crate::Pinned::draw) draw, including those of a
    /// [`Mixture`](crate::Mixture). Episodes of an [`EpisodeReader`](crate::EpisodeReader) and rows gathered by their keys
    /// are not counted. The counts are a part of the state that is saved.
    pub fn rate_limiter(mut self, limiter: RateLimiter) -> Self {
        self.limiter = Some(limiter);
        self
    }

    /// Keeps the rows in the file `path`, mapped into memory, so that the capacity is bounded by the disk and not by
    /// memory, and rows outlive the process. Everything else is as in memory, [saving](Replay::save) included.
    ///
    /// A file that is there is opened, and the buffer goes on with the rows in it: their keys, and for a prioritized
    /// sampler their priorities as of the last [flush](Replay::flush), which are in a file beside it, `path` with
    /// `.sampler` at its end. Rows that came later have the priority of new ones. Schema, capacity and reserve must be
    /// those that it was made with; the sampler may be another, if that file is removed. Where there is none it is made,
    /// in full size, so that a full disk shows now and not later. While any handle to the buffer is alive the file
    /// is locked; nobody else may write to it.
    ///
    /// # What survives
    ///
    /// * Dropping the last handle flushes: everything is there when the file is opened again, on any machine with the
    ///   same order of bytes.
    /// * After the end of the process, however it came (SIGKILL included), every row acknowledged before the last flush
    ///   is there unless `capacity` newer ones are, and those inserted since but for the newest (at most about twice the
    ///   [reserve](Self::reserve)). No row is torn. Keys go on after the newest row that is there, so those of rows that
    ///   were lost are given out again.
    /// * After the end of the system (a power loss, or a reboot before the file was closed or opened again) the rows of
    ///   the last flush are there but for the oldest, an eighth of the capacity or a little more; and if so many rows
    ///   came since that flush that they might be mixed, the file is refused with
    ///   [`BufferFileError::PowerLoss`](crate::BufferFileError::PowerLoss). This rests on the disk doing what it is told.
    /// * Not after a kill while a state was being [loaded](Replay::load): the buffer is then empty.
    ///
    /// # Cost
    ///
    /// What fits into the page cache is inserted and drawn as in memory, with pages of 4 KiB; beyond that a row that is
    /// drawn costs a read of the disk, and the rows that are inserted go to the disk at its speed. Writing down how far
    /// rows are given out is one small write into the page cache for about twice the reserve of rows.
    /// If more than an eighth of the capacity is inserted after a flush, one writer once waits for the disk.
    ///
    /// ```
    /// use rl_replay::{Dtype, Replay, Schema};
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("steps.buffer");
    /// let schema = Schema::transition((Dtype::F32, &[4]), (Dtype::I64, &[]))?;
    /// let build = || Replay::builder(schema.clone()).capacity(10_000).in_file(&path).build();
    ///
    /// let replay = build()?;
    /// replay.writer().push(&[&[0; 16], &[0; 8], &[0; 4], &[0; 4], &[0; 16]])?;
    /// replay.flush()?;
    /// drop(replay);
    /// // Another day.
    /// assert_eq!(build()?.live(), 0..1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn in_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Counts how often each row is drawn, for [`Statistics::times_sampled`](crate::Statistics::times_sampled), and the age of every row drawn, for
    /// [`Statistics::ages`](crate::Statistics::ages). Not done unless asked for.
    ///
    /// It takes 4 bytes a slot, which [`memory_bytes`](Self::memory_bytes) includes; an atomic addition for each row drawn, 6
    /// to 10 ns, by which uniform batches of small rows take nearly twice as long; and for each row inserted a look at the
    /// counter of the one that it overwrites, 2 ns.
    pub fn count_draws(mut self) -> Self {
        self.count_draws = true;
        self
    }

    /// Bytes that the buffer takes when it is full: rows and slack with their padding, bookkeeping, and what the sampler
    /// keeps for each row. For a sampler of your own it is what that one [says](Sampler::memory_bytes). Handles, and what
    /// a sampler keeps for each row of a batch, are not counted; they are small. Nothing is allocated. O(1).
    ///
    /// Rows [in a file](Self::in_file) are not counted: the system gives up their pages when it needs them.
    ///
    /// ```
    /// use rl_replay::{Dtype, Prioritized, Replay, Schema};
    /// let schema = Schema::transition((Dtype::F32, &[4]), (Dtype::I64, &[]))?;
    /// let rows = schema.bytes_for(1_000_000);
    /// let builder = Replay::builder(schema).capacity(1_000_000).prioritized(Prioritized::default());
    /// assert_eq!(rows, 64_000_000);
    /// assert!((72_500_000..72_800_000).contains(&builder.memory_bytes()));
    /// # Ok::<(), rl_replay::SchemaError>(())
    /// ```
    pub fn memory_bytes(&self) -> u128 {
        self.bytes_for(self.capacity as u64)
    }

    /// The same for another capacity.
    pub(crate) fn bytes_for(&self, capacity: u64) -> u128 {
        let slack = 2 * u128::from(self.reserve_for(capacity));
        let slots = u128::from(capacity) + slack;
        let rows = slots * self.layout().stride as u128;
        let draws = if self.count_draws { Counters::bytes_for(slots) } else { 0 };
        // More slack than can be counted has no window; its slots alone are too many.
        let window = u64::try_from(slack).map_or(0, Control::window_bytes);
        let sampler = self.choice.bytes_for(capacity, self.capacity);
        // In a file they are no memory that must be there.
        let rows = if self.path.is_some() { 0 } else { rows };
        rows.saturating_add(draws).saturating_add(window).saturating_add(sampler)
    }

    fn layout(&self) -> Layout {
        let layout = if self.packed { Layout::packed(&self.slots) } else { Layout::new(&self.slots) };
        layout.converting(&self.slots, &self.schema)
    }

    fn reserve_for(&self, capacity: u64) -> u64 {
        let of_memory = RESERVE_BYTES / self.layout().stride as u64;
        let default = (capacity / 16).clamp(MIN_RESERVE, MAX_RESERVE).min(of_memory.max(MIN_RESERVE));
        self.reserve.map_or(default, |rows| rows as u64)
    }

    /// Refuses what does not fit into `available` bytes.
    pub(crate) fn check_room(&self, available: u64) -> Result<(), ReplayError> {
        check_room(self.capacity as u64, available, |capacity| self.bytes_for(capacity))
    }

    /// Makes the buffer. Its memory is reserved and not touched yet.
    ///
    /// On Linux a buffer is refused that would not fit once it is full: its [bytes](Self::memory_bytes) are compared with
    /// `MemAvailable`, and with what is left of the limits that control groups (v1 or v2, a container's for instance)
    /// set. What others take afterwards cannot be foreseen. Elsewhere it is refused when the system does not reserve it.
    ///
    /// # Errors
    /// [`ReplayError::NoCapacity`]; [`ReplayError::TooLarge`] when it would not fit, with the largest capacity that does;
    /// [`ReplayError::Memory`] when the memory cannot be had; [`ReplayError::Setting`] when α or ε is out of range, or the
    /// reserve 0, or a setting of the rate limiter out of range; [`ReplayError::Store`] for a column that cannot be held
    /// as [`store`](Self::store) was told; [`ReplayError::File`] when the file of [`in_file`](Self::in_file) cannot be made
    /// or is not that of such a buffer, which leaves it as it was.
    pub fn build(mut self) -> Result<Replay, ReplayError> {
        if let Some(error) = self.refused.take() {
            return Err(error);
        }
        if self.capacity == 0 {
            return Err(ReplayError::NoCapacity);
        }
        if self.reserve == Some(0) {
            return Err(ReplayError::Setting { name: "reserve", value: 0.0, expected: "at least 1" });
        }
        if let Some(available) = memory::available() {
            self.check_room(available)?;
        }
        let (capacity, reserve) = (self.capacity as u64, self.reserve_for(self.capacity as u64));
        let layout = self.layout();
        let Self { schema, slots: in_slots, choice, limiter, path, count_draws, .. } = self;
        let bytes = layout.ring_bytes_wide(capacity, reserve);
        let limiter = limiter.map(|settings| Limiter::new(settings, capacity)).transpose()?;
        let uniform = matches!(choice, Choice::Uniform);
        let sampler: Box<dyn Sampler> = match choice {
            Choice::Uniform => Box::new(Uniform),
            Choice::Prioritized(settings) => Box::new(Proportional::new(capacity, settings)?),
            Choice::RankBased(alpha) => Box::new(RankBased::new(capacity, alpha)?),
            Choice::Other(sampler) => sampler,
        };
        let mut keeper = Keeper::new(sampler);
        let counters = Counters::new(capacity + 2 * reserve, count_draws)?;
        let memory = |source| ReplayError::Memory { rows: capacity, bytes, source };
        let (ring, stored) = match path {
            None => (Ring::new(layout, capacity, reserve).map_err(memory)?, None),
            Some(path) => {
                let Opened { file, memory: slots, live } =
                    mapped::open(&path, &in_slots, &layout, capacity, reserve)?;
                let mut stale = 0;
                if !uniform || limiter.is_some() {
                    stale = mapped::load_sampler(&path, file.mark(), &live, &mut keeper, limiter.as_ref())?;
                }
                counters.loaded(live.start, stale);
                let file = Arc::new(file);
                let ring = Ring::over(slots, file.clone(), layout, (capacity, reserve), live);
                file.begin()?;
                (ring.map_err(memory)?, Some(Stored::new(file)))
            }
        };
        let keeper = Mutex::new(keeper);
        let loads = AtomicU64::new(0);
        Ok(Replay::of(Arc::new(Shared { schema, ring, uniform, keeper, loads, limiter, stored, counters })))
    }
}

/// Refuses `rows` rows when `bytes_for` them are more than `available`, and says how many would fit.
pub(crate) fn check_room(
    rows: u64,
    available: u64,
    bytes_for: impl Fn(u64) -> u128,
) -> Result<(), ReplayError> {
    let bytes = bytes_for(rows);
    if bytes <= u128::from(available) {
        return Ok(());
    }
    let (mut fits, mut too_many) = (0, rows);
    while fits + 1 < too_many {
        let middle = fits + (too_many - fits) / 2;
        if bytes_for(middle) <= u128::from(available) {
            fits = middle;
        } else {
            too_many = middle;
        }
    }
    Err(ReplayError::TooLarge { rows, bytes, available, fits })
}

/// `slots` with `column` held as `dtype`, or why that cannot be.
fn stored(schema: &Schema, slots: &Schema, column: &str, dtype: Dtype) -> Result<Schema, String> {
    let Some(position) = schema.position(column) else {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name.as_str()).collect();
        return Err(format!("there is no such column; the schema has {names:?}"));
    };
    let given = schema.fields()[position].dtype;
    if given != Dtype::F32 {
        return Err(format!("it is {given} in the schema, and only f32 can be held as another type"));
    }
    if HalfFloat::of(dtype).is_none() {
        return Err("f32 can be held as f16 or bf16; leave `store` out for anything else".to_string());
    }
    let mut fields: Vec<Field> = slots.fields().to_vec();
    fields[position].dtype = dtype;
    Schema::new(fields).map_err(|error| error.to_string())
}
