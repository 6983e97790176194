//! The buffer, and how it is made.

use crate::control::Control;
use crate::file::Lineage;
use crate::half_float::HalfFloat;
use crate::layout::Layout;
use crate::limiter::{Admitted, Limiter, Side};
use crate::memory;
use crate::ring::Ring;
use crate::sync::{Mutex, MutexGuard};
use crate::{
    Key, Prioritized, Proportional, RankBased, RateLimiter, Reader, ReplayError, WhenLimited, Writer,
};
use rl_minibatch::{Dtype, Field, Sampler, Schema, Uniform};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// An experience-replay buffer: the newest `capacity` rows of a schema, shared by threads.
///
/// This is a handle; cloning it is cheap and gives another handle to the same buffer. Threads insert through
/// [`writer`](Self::writer)s and draw through [`sampler`](Self::sampler)s.
///
/// Rows are copied in and out without holding a lock, and inserting takes none at all. The one lock guards the sampler's
/// state, and is held while rows are chosen and priorities stored; uniform draws do without it.
pub struct Replay {
    pub(crate) shared: Arc<Shared>,
}

/// Bounds of the reserve that is taken unless the user says otherwise, in rows, and what they may take in bytes.
const MIN_RESERVE: u64 = 64;
const MAX_RESERVE: u64 = 1024;
const RESERVE_BYTES: u64 = 4 << 20;

pub(crate) struct Shared {
    pub(crate) schema: Schema,
    pub(crate) ring: Ring,
    /// Rows are drawn uniformly, which needs no state and so no lock.
    pub(crate) uniform: bool,
    keeper: Mutex<Keeper>,
    /// How often a state was loaded, so that a reader can tell that its rows are not those it knew.
    pub(crate) loads: AtomicU64,
    pub(crate) limiter: Option<Limiter>,
}

/// Everything beside the rows, behind one lock. Writers never take it: what they inserted is told to the sampler when
/// it is needed next.
pub(crate) struct Keeper {
    pub(crate) sampler: Box<dyn Sampler>,
    /// Priorities that came for rows already overwritten.
    pub(crate) stale: u64,
    /// Which snapshots this buffer continues.
    pub(crate) lineage: Lineage,
    /// The sampler has been told of the rows before this one.
    told: u64,
}

impl Shared {
    /// Takes the lock and tells the sampler of the rows inserted since. Returns the rows that are live by what the
    /// sampler knows now; more may have come to life.
    pub(crate) fn keeper(&self) -> (MutexGuard<'_, Keeper>, Range<u64>) {
        let mut keeper = self.keeper.lock();
        // Looked at under the lock, so that it never goes backwards.
        let live = self.ring.live();
        if live.end > keeper.told {
            let new = keeper.told.max(live.start)..live.end;
            keeper.told = live.end;
            if let Some(priorities) = keeper.sampler.priorities() {
                priorities.inserted(new);
            }
        }
        (keeper, live)
    }

    /// Waits until the rate limiter allows a call, if there is one.
    #[inline]
    pub(crate) fn admit(
        &self,
        side: Side,
        rows: usize,
        when: WhenLimited,
    ) -> Result<Option<Admitted<'_>>, ReplayError> {
        match &self.limiter {
            None => Ok(None),
            Some(limiter) => limiter.admit(&self.ring, side, rows, when).map(Some),
        }
    }

    /// Takes the lock as it is, to replace what it guards.
    pub(crate) fn keeper_to_load(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock()
    }
}

impl Keeper {
    /// What was loaded knows of the rows before `told`.
    pub(crate) fn loaded(&mut self, told: u64) {
        self.told = told;
    }
}

impl Replay {
    /// Begins a buffer of rows as `schema` describes them; see [`Builder`].
    pub fn builder(schema: Schema) -> Builder {
        Builder {
            slots: schema.clone(),
            schema,
            refused: None,
            capacity: 0,
            reserve: None,
            packed: false,
            choice: Choice::Uniform,
            limiter: None,
        }
    }

    /// A handle to insert rows with. Each thread takes one of its own.
    pub fn writer(&self) -> Writer {
        Writer::new(self.clone())
    }

    /// A handle to draw rows with, and to send their priorities back. Each thread takes one of its own.
    pub fn sampler(&self) -> Reader {
        Reader::new(self.clone())
    }

    /// Ends all inserting and drawing of a buffer with a [rate limiter](Builder::rate_limiter): calls that wait give
    /// [`ReplayError::Closed`] now, and later ones at once. Rows stay, and can still be looked at and saved. A buffer
    /// without one has no calls that wait for others, and closing it does nothing.
    pub fn close(&self) {
        if let Some(limiter) = &self.shared.limiter {
            limiter.close();
        }
    }

    /// What a row holds.
    pub fn schema(&self) -> &Schema {
        &self.shared.schema
    }

    /// The most rows that are kept.
    pub fn capacity(&self) -> usize {
        self.shared.ring.capacity() as usize
    }

    /// The most rows that go in under one claim, with keys that follow each other; see [`Builder::reserve`].
    pub fn reserve(&self) -> usize {
        self.shared.ring.reserve() as usize
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

    /// Rows inserted since the buffer was made, those overwritten since included.
    pub fn inserted(&self) -> u64 {
        self.live().end
    }

    /// The keys of the rows that can be drawn now, the oldest first.
    pub fn live(&self) -> Range<Key> {
        self.shared.ring.live()
    }

    /// Priorities that were dropped because their row had been overwritten.
    pub fn stale_priorities(&self) -> u64 {
        self.shared.keeper_to_load().stale
    }

    /// Bytes reserved for rows: slots × the distance between them. They become resident as rows are first written.
    /// A sampler's own memory comes on top.
    pub fn memory_bytes(&self) -> usize {
        self.shared.ring.memory_bytes()
    }
}

impl Clone for Replay {
    fn clone(&self) -> Self {
        Self::of(self.shared.clone())
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        if let Some(limiter) = &self.shared.limiter {
            limiter.handle(false);
        }
    }
}

impl Replay {
    fn of(shared: Arc<Shared>) -> Self {
        if let Some(limiter) = &shared.limiter {
            limiter.handle(true);
        }
        Self { shared }
    }
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay")
            .field("live", &self.live())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

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
}

enum Choice {
    Uniform,
    Prioritized(Prioritized),
    RankBased(f64),
    Other(Box<dyn Sampler>),
}

impl Builder {
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
    /// It counts the rows of [`Writer`]s and of all that inserts through one, and the rows that [`Reader::sample_into`],
    /// [`Hindsight`](crate::Hindsight) and [`Pinned::draw`](crate::Pinned::draw) draw, including those of a
    /// [`Mixture`](crate::Mixture). Episodes of an [`EpisodeReader`](crate::EpisodeReader) and rows gathered by their keys
    /// are not counted. The counts are a part of the state that is saved.
    pub fn rate_limiter(mut self, limiter: RateLimiter) -> Self {
        self.limiter = Some(limiter);
        self
    }

    /// Bytes that the buffer takes when it is full: rows and slack with their padding, bookkeeping, and what the sampler
    /// keeps for each row. For a sampler of your own it is what that one [says](Sampler::memory_bytes). Handles, and what
    /// a sampler keeps for each row of a batch, are not counted; they are small. Nothing is allocated. O(1).
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
    fn bytes_for(&self, capacity: u64) -> u128 {
        let slack = 2 * u128::from(self.reserve_for(capacity));
        let slots = (u128::from(capacity) + slack) * self.layout().stride as u128;
        // More slack than can be counted has no window; its slots alone are too many.
        let window = u64::try_from(slack).map_or(0, Control::window_bytes);
        let sampler = match &self.choice {
            Choice::Uniform => 0,
            Choice::Prioritized(_) => Proportional::bytes_for(capacity).into(),
            Choice::RankBased(_) => RankBased::bytes_for(capacity).into(),
            // It was made for this buffer's capacity, and for another it would be larger or smaller in proportion.
            Choice::Other(sampler) => {
                u128::from(sampler.memory_bytes()) * u128::from(capacity) / (self.capacity as u128).max(1)
            }
        };
        slots.saturating_add(window).saturating_add(sampler)
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

    /// The largest capacity, at most the present one, that takes no more than so many bytes.
    fn fits(&self, bytes: u64) -> u64 {
        let (mut fits, mut too_many) = (0, self.capacity as u64);
        while fits + 1 < too_many {
            let middle = fits + (too_many - fits) / 2;
            if self.bytes_for(middle) <= u128::from(bytes) {
                fits = middle;
            } else {
                too_many = middle;
            }
        }
        fits
    }

    /// Refuses what does not fit into `available` bytes.
    fn check_room(&self, available: u64) -> Result<(), ReplayError> {
        let bytes = self.memory_bytes();
        if bytes > u128::from(available) {
            let (rows, fits) = (self.capacity as u64, self.fits(available));
            return Err(ReplayError::TooLarge { rows, bytes, available, fits });
        }
        Ok(())
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
    /// as [`store`](Self::store) was told.
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
        let Self { schema, choice, limiter, .. } = self;
        let bytes = layout.ring_bytes_wide(capacity, reserve);
        let limiter = limiter.map(|settings| Limiter::new(settings, capacity)).transpose()?;
        let uniform = matches!(choice, Choice::Uniform);
        let sampler: Box<dyn Sampler> = match choice {
            Choice::Uniform => Box::new(Uniform),
            Choice::Prioritized(settings) => Box::new(Proportional::new(capacity, settings)?),
            Choice::RankBased(alpha) => Box::new(RankBased::new(capacity, alpha)?),
            Choice::Other(sampler) => sampler,
        };
        let ring = Ring::new(layout, capacity, reserve).map_err(|source| ReplayError::Memory {
            rows: capacity,
            bytes,
            source,
        })?;
        let keeper = Keeper { sampler, stale: 0, lineage: Lineage::new(None), told: 0 };
        let keeper = Mutex::new(keeper);
        let loads = AtomicU64::new(0);
        Ok(Replay::of(Arc::new(Shared { schema, ring, uniform, keeper, loads, limiter })))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn builders(capacity: usize) -> [Builder; 4] {
        let schema = Schema::transition((Dtype::F32, &[4]), (Dtype::I64, &[])).unwrap();
        let builder = || Replay::builder(schema.clone()).capacity(capacity);
        let settings = Prioritized::default();
        let own = Proportional::new(capacity as u64, settings).unwrap();
        [
            builder(),
            builder().prioritized(settings),
            builder().rank_based(0.7).reserve(5),
            builder().sampler(Box::new(own)),
        ]
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_most_that_does() {
        for (number, builder) in builders(100_000).into_iter().enumerate() {
            let bytes = builder.memory_bytes();
            let bytes = u64::try_from(bytes).unwrap();
            builder.check_room(bytes).unwrap();
            for available in [bytes - 1, bytes / 2, 200_000, 1_000, 0] {
                let error = builder.check_room(available).unwrap_err();
                let ReplayError::TooLarge { rows: 100_000, bytes: needed, available: told, fits } = error
                else {
                    panic!("{error}");
                };
                assert_eq!((needed, told), (bytes.into(), available));
                assert!(fits < 100_000 && (fits == 0 || builder.bytes_for(fits) <= available.into()));
                assert!(builder.bytes_for(fits + 1) > available.into(), "builder {number}: {fits} rows");
            }
        }
    }

    #[test]
    fn what_was_stated_is_what_is_reserved() {
        let [uniform, prioritized, ranked, own] = builders(1 << 16);
        // 65,536 rows and twice 1,024 of 64 bytes, and 2,048 window places of 8.
        assert_eq!(uniform.memory_bytes(), (65_536 + 2_048) * 64 + 2_048 * 8);
        let leaves = (65_536 + 4_096 + 256 + 16) * 8;
        assert_eq!(prioritized.memory_bytes(), uniform.memory_bytes() + leaves);
        assert_eq!(own.memory_bytes(), prioritized.memory_bytes());
        assert_eq!(ranked.memory_bytes(), 65_546 * 64 + 16 * 8 + 65_536 * 24);
        assert_eq!(uniform.build().unwrap().memory_bytes(), (65_536 + 2_048) * 64);
    }

    #[test]
    fn what_is_rounded_is_stated_and_reserved_as_such() {
        let schema = Schema::transition((Dtype::F32, &[17]), (Dtype::F32, &[6])).unwrap();
        let builder = || {
            let builder = Replay::builder(schema.clone()).capacity(100_000);
            builder.store("obs", Dtype::F16).store("next_obs", Dtype::Bf16)
        };
        // 34 + 24 + 4 + 4 + 34 bytes, in two lines.
        let slots = (100_000 + 2_048) * 128;
        let bytes = builder().memory_bytes();
        assert_eq!(bytes, slots + 2_048 * 8);
        assert_eq!(builder().build().unwrap().memory_bytes() as u128, slots);
        let bytes = u64::try_from(bytes).unwrap();
        builder().check_room(bytes).unwrap();
        let error = builder().check_room(bytes - 1).unwrap_err();
        let ReplayError::TooLarge { bytes: needed, fits, .. } = error else { panic!("{error}") };
        assert_eq!((needed, fits), (bytes.into(), 99_999));
        // A type said twice, and one said in vain, which is told at the end.
        assert_eq!(builder().store("obs", Dtype::Bf16).memory_bytes(), bytes.into());
        assert_eq!(builder().store("observation", Dtype::F16).memory_bytes(), bytes.into());
    }
}
