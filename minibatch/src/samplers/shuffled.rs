//! Each row once an epoch, in random order.

use super::course::{Course, state_evenly};
use super::{Permutation, SamplerError};
use crate::{Drawn, Epoch, Priorities, Rng, SampleError, Sampler, StateError, StateVisitor, scalar};
use rand::{Rng as _, RngExt, SeedableRng};
use std::ops::Range;

/// Up to here rows are shuffled in memory, 4 bytes a row; beyond, where each row comes is computed.
const MOST_IN_MEMORY: u64 = 1 << 20;

/// Goes through the rows in a random order, without replacement, with another order in each epoch: the usual sampler of
/// training.
///
/// Up to 2²⁰ rows the order is a Fisher-Yates shuffle (Knuth, The Art of Computer Programming 2, algorithm P), made as rows
/// are drawn, so that all orders are equally likely. Beyond, it is a [`Permutation`], which needs no memory at all: at 10⁸
/// rows it is as fast as shuffling a table of 400 MB, which waits for memory at every row, and an epoch begins at once.
///
/// The stated probability is 1/N, a row's share of an epoch. The state is the place in the epoch and the key of its
/// order, which is taken from the generator when the epoch begins. Cost: O(1) a row, about 2 to 30 ns; in memory O(N), at
/// about 0.3 ns a row, to begin an epoch, and to load a state as long as drawing up to there.
#[derive(Clone, Debug)]
pub struct Shuffled {
    course: Course,
    /// What this epoch's order follows from.
    key: u64,
    order: Order,
}

#[derive(Clone, Debug)]
enum Order {
    /// Rows not drawn yet come after those that were.
    Table {
        rows: Vec<u32>,
        rng: Rng,
    },
    Computed(Permutation),
}

impl Shuffled {
    /// For a data set of `rows` rows.
    ///
    /// # Errors
    /// [`SamplerError::Empty`], and [`SamplerError::TooManyRows`] above 2⁶².
    pub fn new(rows: u64) -> Result<Self, SamplerError> {
        if rows == 0 {
            return Err(SamplerError::Empty);
        }
        if rows > Permutation::MOST_ROWS {
            return Err(SamplerError::TooManyRows { rows, most: Permutation::MOST_ROWS });
        }
        let order = if rows <= MOST_IN_MEMORY {
            Order::Table { rows: (0..rows as u32).collect(), rng: Rng::seed_from_u64(0) }
        } else {
            Order::Computed(Permutation::new(rows, 0))
        };
        Ok(Self { course: Course::new(rows), key: 0, order })
    }
}

impl Order {
    fn begin(&mut self, all: u64, key: u64) {
        match self {
            Order::Table { rows, rng } => {
                rows.iter_mut().zip(0..).for_each(|(row, number)| *row = number);
                *rng = Rng::seed_from_u64(key);
            }
            Order::Computed(permutation) => *permutation = Permutation::new(all, key),
        }
    }

    /// Gives the rows at `places`, which follow those of the call before.
    fn take(&mut self, places: Range<u64>, mut give: impl FnMut(u64)) {
        match self {
            Order::Table { rows, rng } => {
                let all = rows.len();
                for place in places.start as usize..places.end as usize {
                    let chosen = rng.random_range(place as u32..all as u32);
                    rows.swap(place, chosen as usize);
                    give(u64::from(rows[place]));
                }
            }
            Order::Computed(permutation) => places.for_each(|place| give(permutation.at(place))),
        }
    }
}

impl Sampler for Shuffled {
    fn draw(
        &mut self,
        rng: &mut Rng,
        live: Range<u64>,
        count: usize,
        drawn: &mut Drawn,
    ) -> Result<(), SampleError> {
        self.course.check(&live)?;
        let rows = self.course.epoch().rows;
        if count > 0 && self.course.is_at_end() {
            self.key = rng.next_u64();
            self.order.begin(rows, self.key);
            self.course.begin();
        }
        drawn.rows.clear();
        self.order.take(self.course.take(count), |row| drawn.rows.push(live.start + row));
        state_evenly(rows, drawn);
        Ok(())
    }

    fn priorities(&mut self) -> Option<&mut dyn Priorities> {
        None
    }

    fn epoch(&self) -> Option<Epoch> {
        Some(self.course.epoch())
    }

    fn memory_bytes(&self) -> u64 {
        match &self.order {
            Order::Table { rows, .. } => 4 * rows.len() as u64,
            Order::Computed(_) => 0,
        }
    }

    fn visit(&mut self, _live: Range<u64>, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let course = self.course.visited(visitor)?;
        let mut key = self.key;
        scalar(visitor, "key", &mut key)?;
        if visitor.loading() {
            let Epoch { drawn, rows, .. } = course.epoch();
            (self.course, self.key) = (course, key);
            self.order.begin(rows, key);
            // A computed order has nothing to catch up with.
            if matches!(self.order, Order::Table { .. }) {
                self.order.take(0..drawn, |_| ());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn all_orders_of_few_rows_are_equally_likely() {
        let (mut sampler, mut rng) = (Shuffled::new(5).unwrap(), Rng::seed_from_u64(3));
        let (mut drawn, mut counts) = (Drawn::default(), HashMap::<Vec<u64>, u64>::new());
        let epochs = 120_000;
        for _ in 0..epochs {
            sampler.draw(&mut rng, 0..5, 7, &mut drawn).unwrap();
            *counts.entry(drawn.rows.clone()).or_default() += 1;
        }
        let expected = f64::from(epochs) / 120.0;
        let chi2: f64 = counts.values().map(|c| (*c as f64 - expected).powi(2) / expected).sum();
        assert_eq!(counts.len(), 120);
        // 119 degrees of freedom: exceeded by a correct sampler with probability 1e-6.
        assert!(chi2 < 204.0, "χ² = {chi2}");
    }

    #[test]
    fn a_hundred_million_rows_take_no_memory_and_go_on_where_they_were() {
        const ROWS: u64 = 100_000_000;
        let (mut sampler, mut rng) = (Shuffled::new(ROWS).unwrap(), Rng::seed_from_u64(4));
        assert_eq!(sampler.memory_bytes(), 0);
        let mut drawn = Drawn::default();
        sampler.draw(&mut rng, 0..ROWS, 50_000, &mut drawn).unwrap();
        let mut all = drawn.rows.clone();
        let saved = crate::MemoryState::save(|v| sampler.visit(0..ROWS, v)).unwrap();
        let mut other = Shuffled::new(ROWS).unwrap();
        saved.load(|v| other.visit(0..ROWS, v)).unwrap();
        let mut resumed = Drawn::default();
        for _ in 0..10 {
            sampler.draw(&mut rng, 0..ROWS, 5_000, &mut drawn).unwrap();
            other.draw(&mut rng, 0..ROWS, 5_000, &mut resumed).unwrap();
            assert_eq!(drawn.rows, resumed.rows);
            all.extend(&drawn.rows);
        }
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 100_000);
    }

    #[test]
    fn an_epoch_beyond_the_table_has_each_row_once() {
        const ROWS: u64 = MOST_IN_MEMORY + 1;
        let (mut sampler, mut rng) = (Shuffled::new(ROWS).unwrap(), Rng::seed_from_u64(5));
        let (mut drawn, mut seen) = (Drawn::default(), vec![false; ROWS as usize]);
        while sampler.epoch().is_some_and(|epoch| epoch.drawn < ROWS) {
            sampler.draw(&mut rng, 0..ROWS, 1 << 16, &mut drawn).unwrap();
            for row in &drawn.rows {
                assert!(!std::mem::replace(&mut seen[*row as usize], true));
            }
        }
        assert!(seen.iter().all(|seen| *seen));
    }
}
