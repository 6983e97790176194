//! A buffer from which rows go one by one, in any order: kept by priority, used up after some draws, or a queue.
//!
//! [`Replay`](crate::Replay) overwrites the oldest row, which is what makes it fast. Here every row is memory of its own,
//! known by its key; `table.rs` has the orders in which rows are drawn and removed, and is all that the lock guards.

mod builder;
mod heap;
mod key_index;
mod reader;
mod state;
mod table;
mod writer;

pub use builder::SelectiveBuilder;
pub use reader::SelectiveReader;
pub use writer::SelectiveWriter;

use crate::limiter::{Admitted, Limiter, Side, Stock};
use crate::sync::Mutex;
use crate::{Key, Prioritized, ReplayError, WhenLimited};
use rl_minibatch::Schema;
use std::sync::Arc;
use table::Table;

/// Which row is drawn next, for [`SelectiveBuilder::draw`]. Cost of a draw: O(1), but O(log₁₆ capacity) for
/// `Proportional`, and O(log capacity) more wherever a row is removed after it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Selection {
    /// Every row with the same probability, with replacement. Reverb's `Uniform`.
    #[default]
    Uniform,
    /// In proportion to (priority + ε)^α, each draw independent of the others (Schaul et al. 2016, *Prioritized Experience
    /// Replay*, equation 1). Reverb's `Prioritized`. A row of weight 0, which only ε = 0 makes, is not drawn.
    Proportional(Prioritized),
    /// The row that has been there the longest, again and again until it goes. Reverb's `Fifo`.
    OldestFirst,
    /// The row that came last. Reverb's `Lifo`.
    NewestFirst,
    /// The row of the highest priority; of equal ones the oldest. Reverb's `MaxHeap`.
    HighestPriority,
    /// The row of the lowest priority; of equal ones the oldest. Reverb's `MinHeap`.
    LowestPriority,
}

/// Which row goes when one comes into a full buffer, for [`SelectiveBuilder::remove`].
///
/// It is one of all rows, the one that has just come included, as in Reverb. Cost: O(log capacity) at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Removal {
    /// The row that has been there the longest.
    #[default]
    OldestFirst,
    /// The row that has just come: a full buffer takes nothing more, unless rows expire.
    NewestFirst,
    /// The row of the lowest priority; of equal ones the oldest. The buffer holds the rows of the highest priorities of all
    /// that came, in so far as these do not change. With random numbers as priorities it holds a uniform sample of all
    /// rows that ever came (reservoir sampling; "distribution matching" in Isele and Cosgun 2018).
    LowestPriority,
    /// The row of the highest priority; of equal ones the oldest.
    HighestPriority,
    /// Every row with the same probability, by a generator of the buffer's own that begins with this seed and is part of
    /// the state.
    Uniform {
        /// Where the generator begins.
        seed: u64,
    },
}

/// An experience-replay buffer from which rows go one by one, in any order: what a table is in Reverb, with its selector,
/// remover, `max_times_sampled`, `max_size` and rate limiter.
///
/// It is for those who keep the best rows and not the newest (Isele and Cosgun 2018, *Selective Experience Replay for
/// Lifelong Learning*), use every row a limited number of times, or need a queue. Who keeps the newest rows should take
/// [`Replay`](crate::Replay), which is several times faster: here each row is an allocation, and one lock is taken to insert
/// and to draw. Rows are copied without it, in and out. A row that is removed while it is being copied lives until that is
/// done.
///
/// This is a handle; cloning it is cheap and gives another handle to the same buffer. Keys are insertion serials and never
/// repeat.
///
/// ```
/// use rand::SeedableRng;
/// use rl_replay::{Batch, Drawn, Dtype, Field, Removal, Rng, Schema, Selection, SelectiveReplay};
///
/// // The two rows of the highest priorities are kept, and each is drawn three times.
/// let schema = Schema::new(vec![Field::new("x", Dtype::U8, [])])?;
/// let replay = SelectiveReplay::builder(schema.clone())
///     .capacity(2)
///     .remove(Removal::LowestPriority)
///     .expire_after(3)
///     .draw(Selection::Uniform)
///     .build()?;
/// let mut writer = replay.writer();
/// for (x, priority) in [(10, 0.5), (11, 9.0), (12, 2.0), (13, 0.1)] {
///     writer.push_with_priority(&[&[x]], priority)?;
/// }
/// assert_eq!(replay.keys(), [1, 2]);
///
/// let (mut batch, mut drawn) = (Batch::new(&schema, 6), Drawn::default());
/// replay.sampler().sample_into(&mut Rng::seed_from_u64(0), 6, &mut batch.view_mut(), &mut drawn)?;
/// let mut values = batch.typed::<u8>("x")?.to_vec();
/// values.sort();
/// assert_eq!(values, [11, 11, 11, 12, 12, 12]);
/// assert!(replay.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SelectiveReplay {
    shared: Arc<Shared>,
}

struct Shared {
    schema: Schema,
    /// Bytes when it is full.
    memory_bytes: u128,
    use_priorities: bool,
    most_draws: u64,
    capacity: usize,
    table: Mutex<Table>,
    limiter: Option<Limiter>,
}

impl Shared {
    /// Waits until the rate limiter allows a call, if there is one. The table must not be locked.
    fn admit(&self, side: Side, rows: usize, when: WhenLimited) -> Result<Option<Admitted<'_>>, ReplayError> {
        let Some(limiter) = &self.limiter else { return Ok(None) };
        let stock = || {
            let table = self.table.lock();
            Stock { size: table.len() as u64, inserted: table.counts.inserted, left: table.left() }
        };
        limiter.admit(stock, side, rows, when).map(Some)
    }
}

impl SelectiveReplay {
    /// Begins a buffer of rows as `schema` describes them; see [`SelectiveBuilder`].
    pub fn builder(schema: Schema) -> SelectiveBuilder {
        SelectiveBuilder::new(schema)
    }

    /// A handle to insert rows with. Each thread takes one of its own.
    pub fn writer(&self) -> SelectiveWriter {
        SelectiveWriter::new(self.clone())
    }

    /// A handle to draw rows with, and to send their priorities back. Each thread takes one of its own.
    pub fn sampler(&self) -> SelectiveReader {
        SelectiveReader::new(self.clone())
    }

    /// As [`Replay::close`](crate::Replay::close): ends all inserting and drawing of a buffer with a rate limiter.
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
        self.shared.capacity
    }

    /// Rows that can be drawn now.
    pub fn len(&self) -> usize {
        self.shared.table.lock().len()
    }

    /// Whether there is no row to draw.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows inserted since the buffer was made, those removed since included.
    pub fn inserted(&self) -> u64 {
        self.shared.table.lock().counts.inserted
    }

    /// The keys of the rows that can be drawn now, the oldest first. O(rows) under the lock.
    pub fn keys(&self) -> Vec<Key> {
        self.shared.table.lock().keys().collect()
    }

    /// Draws that can be made before more is inserted: of each row that can be drawn, what is left until it expires.
    /// `None` when rows do not expire. O(1).
    pub fn draws_left(&self) -> Option<u64> {
        let table = self.shared.table.lock();
        table.rules().expire_after.map(|_| table.left())
    }

    /// Bytes that the buffer takes when it is full; see [`SelectiveBuilder::memory_bytes`].
    pub fn memory_bytes(&self) -> u128 {
        self.shared.memory_bytes
    }

    /// What has happened so far. O(1), under the lock.
    pub fn statistics(&self) -> SelectiveStatistics {
        self.shared.table.lock().counts.clone()
    }

    /// Refuses a batch that could be waited for until the end of days.
    fn check_ever(&self, count: usize) -> Result<(), ReplayError> {
        let most = self.shared.most_draws;
        if count as u64 > most {
            let left = self.shared.table.lock().left();
            return Err(ReplayError::DrawsLeft { asked: count, left, most });
        }
        Ok(())
    }

    fn of(shared: Arc<Shared>) -> Self {
        if let Some(limiter) = &shared.limiter {
            limiter.handle(true);
        }
        Self { shared }
    }
}

impl Clone for SelectiveReplay {
    fn clone(&self) -> Self {
        Self::of(self.shared.clone())
    }
}

impl Drop for SelectiveReplay {
    fn drop(&mut self) {
        if let Some(limiter) = &self.shared.limiter {
            limiter.handle(false);
        }
    }
}

impl std::fmt::Debug for SelectiveReplay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SelectiveReplay")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

/// Classes of rows by how often they were drawn: never, 1, 2 to 3, 4 to 7, and so on.
const TIMES_CLASSES: usize = 33;

/// What has happened in a [`SelectiveReplay`], made by [`SelectiveReplay::statistics`]. At every moment `inserted` is
/// `removed_for_room + removed_expired` and the rows that are there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SelectiveStatistics {
    /// Rows inserted.
    pub inserted: u64,
    /// Rows drawn; one that was drawn twice counts twice.
    pub sampled: u64,
    /// Rows removed because one came and the buffer was full.
    pub removed_for_room: u64,
    /// Rows removed because they were drawn as often as they may be.
    pub removed_expired: u64,
    /// Priorities dropped because their row had been removed.
    pub stale_priorities: u64,
    /// How many of the rows that are there were drawn how often: the first number counts those never drawn, and number i,
    /// counted from 0, those drawn 2^(i−1) to 2^i − 1 times.
    pub times_sampled: [u64; TIMES_CLASSES],
}

impl Default for SelectiveStatistics {
    /// Nothing has happened.
    fn default() -> Self {
        Self {
            inserted: 0,
            sampled: 0,
            removed_for_room: 0,
            removed_expired: 0,
            stale_priorities: 0,
            times_sampled: [0; TIMES_CLASSES],
        }
    }
}
