//! The buffer, and how it is made.

use crate::counters::Counters;
use crate::file::Lineage;
use crate::limiter::{Admitted, Limiter, Side, Stock};
use crate::mapped::Stored;
use crate::ring::Ring;
use crate::sync::{Mutex, MutexGuard};
use crate::{Builder, Key, Reader, ReplayError, Statistics, WhenLimited, Writer};
use rl_minibatch::{Sampler, Schema};
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

pub(crate) struct Shared {
    pub(crate) schema: Schema,
    pub(crate) ring: Ring,
    /// Rows are drawn uniformly, which needs no state and so no lock.
    pub(crate) uniform: bool,
    /// To be locked by [`keeper`](Self::keeper).
    pub(crate) keeper: Mutex<Keeper>,
    /// How often a state was loaded, so that a reader can tell that its rows are not those it knew.
    pub(crate) loads: AtomicU64,
    pub(crate) limiter: Option<Limiter>,
    /// Where the rows are, if they are in a file.
    pub(crate) stored: Option<Stored>,
    pub(crate) counters: Counters,
}

/// Everything beside the rows, behind one lock. Writers never take it: what they inserted is told to the sampler when
/// it is needed next.
pub(crate) struct Keeper {
    pub(crate) sampler: Box<dyn Sampler>,
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
            Some(limiter) => limiter.admit(|| Stock::of_live(self.ring.live()), side, rows, when).map(Some),
        }
    }

    /// Takes the lock without telling the sampler anything: what it guards is going to be replaced.
    pub(crate) fn keeper_untold(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock()
    }
}

impl Keeper {
    /// Beside no rows yet.
    pub(crate) fn new(sampler: Box<dyn Sampler>) -> Self {
        Self { sampler, lineage: Lineage::new(None), told: 0 }
    }

    /// What was loaded knows of the rows before `told`.
    pub(crate) fn loaded(&mut self, told: u64) {
        self.told = told;
    }
}

impl Replay {
    /// Begins a buffer of rows as `schema` describes them; see [`Builder`].
    pub fn builder(schema: Schema) -> Builder {
        Builder::new(schema)
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
        self.shared.counters.stale()
    }

    /// What the buffer has counted: rows inserted, drawn and overwritten, and how old and how often drawn rows are.
    ///
    /// Nobody waits for it: no lock is taken that inserting, drawing or sending priorities back ever takes. Counting costs
    /// a batch a few nanoseconds. Counted as drawn are the rows that the buffer's sampler chose, for whomever, those of a
    /// [`Mixture`](crate::Mixture) and of [`Hindsight`](crate::Hindsight) included, and the steps of the episodes and
    /// windows of an [`EpisodeReader`](crate::EpisodeReader), without padding. Rows gathered by their keys are not.
    ///
    /// Cost: O(readers); with [`Builder::count_draws`] also a look at each row's counter, O(capacity): about a millisecond
    /// for a million rows.
    ///
    /// ```
    /// # use rand::SeedableRng;
    /// # use rl_replay::{Batch, Drawn, Dtype, Replay, Rng, Schema};
    /// let schema = Schema::transition((Dtype::F32, &[1]), (Dtype::I64, &[]))?;
    /// let replay = Replay::builder(schema.clone()).capacity(100).count_draws().build()?;
    /// replay.writer().push_rows(150, &[&[0; 600], &[0; 1200], &[0; 600], &[0; 600], &[0; 600]])?;
    /// let (mut batch, mut drawn) = (Batch::new(&schema, 32), Drawn::default());
    /// replay.sampler().sample_into(&mut Rng::seed_from_u64(0), 32, &mut batch.view_mut(), &mut drawn)?;
    ///
    /// let statistics = replay.statistics();
    /// assert_eq!((statistics.inserted, statistics.overwritten, statistics.sampled), (150, 50, 32));
    /// let times = statistics.times_sampled.as_ref().expect("draws are counted");
    /// assert_eq!((times.live.total(), times.live.sum), (100, 32.0));
    /// println!("{statistics}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn statistics(&self) -> Statistics {
        self.statistics_of(self.live())
    }

    /// The same where only the rows `live` can be drawn.
    pub(crate) fn statistics_of(&self, live: Range<Key>) -> Statistics {
        self.shared.counters.statistics(self.shared.ring.capacity(), live)
    }

    /// Bytes reserved for rows: slots × the distance between them. They become resident as rows are first written.
    /// With [`Builder::count_draws`] the counters are included. A sampler's own memory comes on top. Of a buffer
    /// [in a file](Builder::in_file) rows are bytes of that file.
    pub fn memory_bytes(&self) -> usize {
        self.shared.ring.memory_bytes() + self.shared.counters.memory_bytes()
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
    /// Has the rate limiter not count a handle that a larger buffer keeps of its rows; `back` undoes it, before the handle
    /// is dropped.
    pub(crate) fn uncounted(&self, back: bool) {
        if let Some(limiter) = &self.shared.limiter {
            limiter.handle(back);
        }
    }

    pub(crate) fn of(shared: Arc<Shared>) -> Self {
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
