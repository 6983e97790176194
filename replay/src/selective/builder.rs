//! How a buffer is described before it is made.

use super::table::{Rules, Table};
use super::{Removal, Selection, SelectiveReplay, Shared};
use crate::limiter::Limiter;
use crate::sync::Mutex;
use crate::{Proportional, RateLimiter, ReplayError, memory};
use rand::SeedableRng;
use rl_minibatch::{Rng, Schema};
use std::sync::Arc;

/// The most rows; a slot has a number of 32 bits, and two are needed beside them.
const MAX_CAPACITY: usize = u32::MAX as usize - 2;
/// What an allocation takes beside its bytes, and to what it is rounded up (glibc's malloc).
const ALLOCATION_BYTES: u128 = 8;
const ALLOCATION_UNIT: u128 = 16;

/// Describes a [`SelectiveReplay`] before it is made.
///
/// ```
/// use rl_replay::{Dtype, Prioritized, RateLimiter, Removal, Schema, Selection, SelectiveReplay};
/// let schema = Schema::transition((Dtype::F32, &[4]), (Dtype::I64, &[]))?;
/// let replay = SelectiveReplay::builder(schema)
///     .capacity(100_000)
///     .remove(Removal::LowestPriority)
///     .expire_after(8)
///     .draw(Selection::Proportional(Prioritized::default()))
///     .rate_limiter(RateLimiter { min_size: 1_000, samples_per_insert: 4.0, error_buffer: 1_000.0 })
///     .build()?;
/// assert_eq!((replay.len(), replay.capacity()), (0, 100_000));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SelectiveBuilder {
    schema: Schema,
    capacity: usize,
    selection: Selection,
    removal: Removal,
    expire_after: Option<u32>,
    limits: Limits,
}

enum Limits {
    None,
    Ratio(RateLimiter),
    Queue,
}

impl SelectiveBuilder {
    pub(super) fn new(schema: Schema) -> Self {
        Self {
            schema,
            capacity: 0,
            selection: Selection::default(),
            removal: Removal::default(),
            expire_after: None,
            limits: Limits::None,
        }
    }

    /// Keeps at most `rows` rows. Has to be set.
    pub fn capacity(mut self, rows: usize) -> Self {
        self.capacity = rows;
        self
    }

    /// How rows are drawn; uniformly unless it is said.
    pub fn draw(mut self, selection: Selection) -> Self {
        self.selection = selection;
        self
    }

    /// Which row goes when one comes into a full buffer; the oldest unless it is said.
    pub fn remove(mut self, removal: Removal) -> Self {
        self.removal = removal;
        self
    }

    /// Removes each row as soon as it was drawn `draws` times, at least 1. Reverb's `max_times_sampled`. Without it rows
    /// are drawn as often as it happens.
    pub fn expire_after(mut self, draws: u32) -> Self {
        self.expire_after = Some(draws);
        self
    }

    /// Holds inserting and drawing to a ratio; see [`RateLimiter`], whose `min_size` is looked at when a call begins. Where
    /// rows expire, drawing also waits until as many draws are left as are asked for.
    pub fn rate_limiter(mut self, limiter: RateLimiter) -> Self {
        self.limits = Limits::Ratio(limiter);
        self
    }

    /// A queue: rows are drawn the oldest first, each of them once, and none is lost. Inserting waits for room and drawing
    /// for rows, as many as it asks for. The same as `draw(Selection::OldestFirst)`, `expire_after(1)`, and Reverb's
    /// `Queue` rate limiter.
    ///
    /// ```
    /// use rand::SeedableRng;
    /// use rl_replay::{Batch, Drawn, Dtype, Field, Rng, Schema, SelectiveReplay};
    /// let schema = Schema::new(vec![Field::new("x", Dtype::I64, [])])?;
    /// let queue = SelectiveReplay::builder(schema.clone()).capacity(10).queue().build()?;
    /// let mut writer = queue.writer();
    /// let actor = std::thread::spawn(move || {
    ///     (0..1_000i64).try_for_each(|x| writer.push(&[&x.to_ne_bytes()]).map(drop))
    /// });
    /// let (mut reader, mut rng) = (queue.sampler(), Rng::seed_from_u64(0));
    /// let (mut batch, mut drawn) = (Batch::new(&schema, 8), Drawn::default());
    /// for first in (0..1_000).step_by(8) {
    ///     reader.sample_into(&mut rng, 8, &mut batch.view_mut(), &mut drawn)?;
    ///     assert!(batch.typed::<i64>("x")?.iter().copied().eq(first..first + 8));
    /// }
    /// actor.join().unwrap()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn queue(mut self) -> Self {
        self.limits = Limits::Queue;
        self.draw(Selection::OldestFirst).expire_after(1)
    }

    fn rules(&self) -> Rules {
        let Self { capacity, selection, removal, expire_after, .. } = *self;
        Rules { capacity, selection, removal, expire_after }
    }

    /// Bytes that the buffer takes when it is full: each row as an allocation of its own (its bytes, 16 for the count of
    /// those who hold it, and what the allocator adds), and the bookkeeping: 40 bytes a row, 8 to 16 to find it by its key,
    /// 20 for each order by priority, 8.5 for proportional draws. Handles, and rows that were removed and are still being
    /// copied, are not counted. Nothing is allocated. O(1).
    pub fn memory_bytes(&self) -> u128 {
        self.bytes_for(self.capacity as u64)
    }

    fn bytes_for(&self, capacity: u64) -> u128 {
        let row = self.schema.row_bytes() as u128 + 2 * size_of::<usize>() as u128 + ALLOCATION_BYTES;
        let rows = (u128::from(capacity) + 1) * row.next_multiple_of(ALLOCATION_UNIT);
        rows + self.rules().bytes_for(capacity)
    }

    /// The largest capacity, below the present one, that takes no more than so many bytes.
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

    fn check_room(&self, available: u64) -> Result<(), ReplayError> {
        let bytes = self.memory_bytes();
        if bytes > u128::from(available) {
            let (rows, fits) = (self.capacity as u64, self.fits(available));
            return Err(ReplayError::TooLarge { rows, bytes, available, fits });
        }
        Ok(())
    }

    /// Makes the buffer. Memory of the bookkeeping is reserved, and that of a row taken when it comes.
    ///
    /// On Linux a buffer is refused that would not fit once it is full, as by [`Builder::build`](crate::Builder::build).
    ///
    /// # Errors
    /// [`ReplayError::NoCapacity`]; [`ReplayError::TooLarge`] when it would not fit, with the largest capacity that does;
    /// [`ReplayError::Memory`] when the memory cannot be had; [`ReplayError::Setting`] for a capacity beyond 2³² − 3, for an
    /// expiry after 0 draws, and when α, ε or a setting of the rate limiter is out of range.
    pub fn build(self) -> Result<SelectiveReplay, ReplayError> {
        let rules = self.rules();
        if rules.capacity == 0 {
            return Err(ReplayError::NoCapacity);
        }
        if rules.capacity > MAX_CAPACITY {
            let (value, expected) = (rules.capacity as f64, "at most 4294967293");
            return Err(ReplayError::Setting { name: "capacity", value, expected });
        }
        if rules.expire_after == Some(0) {
            return Err(ReplayError::Setting { name: "expire_after", value: 0.0, expected: "at least 1" });
        }
        if let Selection::Proportional(settings) = rules.selection {
            // It says which α and ε may be.
            Proportional::new(1, settings)?;
        }
        let capacity = rules.capacity as u64;
        let limiter = match self.limits {
            Limits::None => None,
            Limits::Ratio(settings) => Some(Limiter::new(settings, capacity)?),
            Limits::Queue => Some(Limiter::queue(capacity)),
        };
        if let Some(available) = memory::available() {
            self.check_room(available)?;
        }
        let seed = match rules.removal {
            Removal::Uniform { seed } => seed,
            _ => 0,
        };
        let table = Mutex::new(Table::new(rules, Rng::seed_from_u64(seed))?);
        let (memory_bytes, schema) = (self.memory_bytes(), self.schema);
        Ok(SelectiveReplay::of(Arc::new(Shared {
            schema,
            memory_bytes,
            use_priorities: rules.use_priorities(),
            most_draws: rules.most_draws(),
            capacity: rules.capacity,
            table,
            limiter,
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rl_minibatch::Dtype;

    #[test]
    fn what_does_not_fit_is_refused_with_the_most_that_does() {
        let schema = Schema::transition((Dtype::F32, &[4]), (Dtype::I64, &[])).unwrap();
        let builder = SelectiveReplay::builder(schema).capacity(1_000_000).remove(Removal::LowestPriority);
        let bytes = u64::try_from(builder.memory_bytes()).unwrap();
        // 48 bytes of row and 24 beside them take 80; a slot 40, a place in the heap 20, and 2²² cells 4 each.
        assert_eq!(bytes, 1_000_001 * (80 + 40 + 20) + (1 << 21) * 4);
        builder.check_room(bytes).unwrap();
        for available in [bytes - 1, bytes / 2, 10_000, 0] {
            let Err(ReplayError::TooLarge { fits, .. }) = builder.check_room(available) else { panic!() };
            assert!(fits == 0 || builder.bytes_for(fits) <= available.into());
            assert!(builder.bytes_for(fits + 1) > available.into());
        }
    }
}
