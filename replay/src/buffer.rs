//! The buffer, and how it is made.

use crate::file::Lineage;
use crate::layout::Layout;
use crate::ring::Ring;
use crate::sync::{Mutex, MutexGuard};
use crate::{Key, Prioritized, Proportional, RankBased, Reader, ReplayError, Writer};
use rl_minibatch::{Sampler, Schema, Uniform};
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
#[derive(Clone)]
pub struct Replay {
    pub(crate) shared: Arc<Shared>,
}

/// Bounds of the reserve that is taken unless the user says otherwise, in rows, and what they may take in bytes.
const MIN_RESERVE: usize = 64;
const MAX_RESERVE: usize = 1024;
const RESERVE_BYTES: usize = 4 << 20;

pub(crate) struct Shared {
    pub(crate) schema: Schema,
    pub(crate) ring: Ring,
    /// Rows are drawn uniformly, which needs no state and so no lock.
    pub(crate) uniform: bool,
    keeper: Mutex<Keeper>,
    /// How often a state was loaded, so that a reader can tell that its rows are not those it knew.
    pub(crate) loads: AtomicU64,
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
        Builder { schema, capacity: 0, reserve: None, packed: false, choice: Choice::Uniform }
    }

    /// A handle to insert rows with. Each thread takes one of its own.
    pub fn writer(&self) -> Writer {
        Writer::new(self.clone())
    }

    /// A handle to draw rows with, and to send their priorities back. Each thread takes one of its own.
    pub fn sampler(&self) -> Reader {
        Reader::new(self.clone())
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
    capacity: usize,
    reserve: Option<usize>,
    packed: bool,
    choice: Choice,
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

    /// Makes the buffer. Its memory is reserved and not touched yet.
    ///
    /// # Errors
    /// [`ReplayError::NoCapacity`]; [`ReplayError::Memory`] when the memory cannot be had; [`ReplayError::Setting`] when
    /// α or ε is out of range, or the reserve 0.
    pub fn build(self) -> Result<Replay, ReplayError> {
        let Self { schema, capacity, reserve, packed, choice } = self;
        if capacity == 0 {
            return Err(ReplayError::NoCapacity);
        }
        let layout = if packed { Layout::packed(&schema) } else { Layout::new(&schema) };
        let default_reserve = || {
            (capacity / 16)
                .clamp(MIN_RESERVE, MAX_RESERVE)
                .min((RESERVE_BYTES / layout.stride).max(MIN_RESERVE))
        };
        let reserve = reserve.unwrap_or_else(default_reserve) as u64;
        if reserve == 0 {
            return Err(ReplayError::Setting { name: "reserve", value: 0.0, expected: "at least 1" });
        }
        let capacity = capacity as u64;
        let bytes = layout.ring_bytes_wide(capacity, reserve);
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
        Ok(Replay { shared: Arc::new(Shared { schema, ring, uniform, keeper, loads: AtomicU64::new(0) }) })
    }
}
