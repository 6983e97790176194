//! Rows of similar length together, so that little is padded.

use super::SamplerError;
use super::course::{Course, state_evenly};
use crate::{Drawn, Epoch, Priorities, Rng, SampleError, Sampler, StateError, StateVisitor, scalar};
use rand::seq::SliceRandom;
use rand::{Rng as _, RngExt, SeedableRng};
use std::ops::Range;

/// Goes through the rows without replacement such that the rows of a batch have similar lengths, and padding each batch
/// to its longest row costs little.
///
/// In each epoch the rows are shuffled and cut into pools of nearly one size; each pool is put in the order of its lengths
/// (rows of one length in random order) and cut into batches; then the batches of all pools are put in random order, and
/// so are the rows of each batch, for a part of a batch (a shard, a micro-batch) to be like its other parts. It is what
/// `group_by_length` of Hugging Face's transformers does with pools of 50 batches, except that there batches stay in
/// the order of their pools. A pool of all rows pads least, and then rows of one length are each other's only company; a pool
/// of one batch is plain shuffling. `bucket_by_sequence_length` of tf.data has fixed bounds instead, and drops or pads
/// what does not fill a batch; here the one batch that is not full is the last of the epoch, and its rows may be of any
/// length.
///
/// Of 10,000 rows of log-normal lengths in batches of 32, 75 % of all steps are padding when they are shuffled, 11 % with
/// pools of 50 batches, and 3 % with one pool (`cargo test -p rl-minibatch --test samplers -- --nocapture padding`).
///
/// The stated probability is 1/N, a row's share of an epoch. The state is the place in the epoch and the key of its
/// order. Cost: O(1) a row; O(N·log pool) for an epoch to begin and for a state to load, about 80 ns a row; 8 bytes a row, and
/// 8 more for each row of a pool.
#[derive(Clone, Debug)]
pub struct LengthBucketed {
    course: Course,
    /// What this epoch's order follows from.
    key: u64,
    lengths: Vec<u32>,
    batch: usize,
    pools: usize,
    /// Rows in the order of this epoch, before batches change places.
    order: Vec<u32>,
    /// Which batches come when; the one that is not full is not among them.
    batches: Vec<u32>,
    /// For the rows of a pool, their lengths and places.
    sorting: Vec<u64>,
}

impl LengthBucketed {
    /// Row i has `lengths[i]` steps (tokens, frames). Batches of `batch` rows, which is what should be drawn at a time: other
    /// numbers of rows are drawn from the same order, and span batches. Out of pools of `pool` rows or more, up to all rows.
    ///
    /// # Errors
    /// [`SamplerError::Empty`], [`SamplerError::TooManyRows`] above 2³², [`SamplerError::Zero`] for a batch of 0, and
    /// [`SamplerError::Pool`] for a pool smaller than a batch.
    pub fn new(lengths: &[u32], batch: usize, pool: usize) -> Result<Self, SamplerError> {
        let (rows, most) = (lengths.len() as u64, u64::from(u32::MAX));
        if rows == 0 {
            return Err(SamplerError::Empty);
        }
        if rows > most {
            return Err(SamplerError::TooManyRows { rows, most });
        }
        if batch == 0 {
            return Err(SamplerError::Zero { name: "batch" });
        }
        if pool < batch {
            return Err(SamplerError::Pool { pool, batch });
        }
        let batches = lengths.len() / batch;
        // Pools differ by a batch at most, so that none is small and holds together rows that are not alike.
        let pools = (batches / (pool / batch)).max(1);
        let largest = (batches.div_ceil(pools) + 1) * batch;
        Ok(Self {
            course: Course::new(rows),
            key: 0,
            lengths: lengths.to_vec(),
            batch,
            pools,
            order: (0..rows as u32).collect(),
            sorting: Vec::with_capacity(largest.min(lengths.len())),
            batches: (0..batches as u32).collect(),
        })
    }

    /// Makes the order of the epoch that `key` names.
    fn arrange(&mut self, key: u64) {
        let mut rng = Rng::seed_from_u64(key);
        self.order.iter_mut().zip(0..).for_each(|(place, row)| *place = row);
        self.order.shuffle(&mut rng);
        let batches = self.batches.len();
        for pool in 0..self.pools {
            let from = pool * batches / self.pools * self.batch;
            let next = (pool + 1) * batches / self.pools * self.batch;
            let pool = &mut self.order[from..if pool + 1 < self.pools { next } else { self.lengths.len() }];
            // The place comes after the length, so that rows of one length stay in the random order they are in.
            self.sorting.clear();
            let length = |row: u32| u64::from(self.lengths[row as usize]);
            self.sorting.extend((0..).zip(&*pool).map(|(place, row): (u64, _)| length(*row) << 32 | place));
            self.sorting.sort_unstable();
            for key in &mut self.sorting {
                *key = u64::from(pool[*key as u32 as usize]);
            }
            pool.iter_mut().zip(&self.sorting).for_each(|(row, sorted)| *row = *sorted as u32);
            // The batch that is not full is the last. Rows of any length are to be in it, for it may be dropped.
            let rest = pool.len() % self.batch;
            if rest > 0 {
                let from = rng.random_range(0..(pool.len() - rest) as u64 + 1) as usize;
                pool[from..].rotate_left(rest);
            }
        }
        self.order.chunks_mut(self.batch).for_each(|batch| batch.shuffle(&mut rng));
        self.batches.iter_mut().zip(0..).for_each(|(place, batch)| *place = batch);
        self.batches.shuffle(&mut rng);
    }

    /// The row at a place of the epoch.
    fn at(&self, place: u64) -> u32 {
        let place = place as usize;
        match self.batches.get(place / self.batch) {
            Some(batch) => self.order[*batch as usize * self.batch + place % self.batch],
            None => self.order[place],
        }
    }
}

impl Sampler for LengthBucketed {
    fn draw(
        &mut self,
        rng: &mut Rng,
        live: Range<u64>,
        count: usize,
        drawn: &mut Drawn,
    ) -> Result<(), SampleError> {
        self.course.check(&live)?;
        if count > 0 && self.course.is_at_end() {
            self.key = rng.next_u64();
            self.arrange(self.key);
            self.course.begin();
        }
        drawn.rows.clear();
        let places = self.course.take(count);
        drawn.rows.extend(places.map(|place| live.start + u64::from(self.at(place))));
        state_evenly(self.lengths.len() as u64, drawn);
        Ok(())
    }

    fn priorities(&mut self) -> Option<&mut dyn Priorities> {
        None
    }

    fn epoch(&self) -> Option<Epoch> {
        Some(self.course.epoch())
    }

    fn memory_bytes(&self) -> u64 {
        4 * (2 * self.lengths.len() + self.batches.len() + 2 * self.sorting.capacity()) as u64
    }

    fn visit(&mut self, _live: Range<u64>, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let course = self.course.visited(visitor)?;
        let mut key = self.key;
        scalar(visitor, "key", &mut key)?;
        if visitor.loading() {
            (self.course, self.key) = (course, key);
            self.arrange(key);
        }
        Ok(())
    }
}
