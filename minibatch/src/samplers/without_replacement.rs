//! Every row with the same probability, and none twice in a batch.

use crate::{Drawn, Priorities, Rng, SampleError, Sampler, StateError, StateVisitor};
use rand::RngExt;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

/// Draws batches of different rows: every ordered choice of `count` of the N live rows is equally likely, so every subset
/// is, and so is every order of it. Batches are independent of each other.
///
/// The stated probability is 1/N, with which each place of the batch holds a given row. A row is in the batch with
/// probability count/N. Importance weights are 1 as for [`Uniform`](crate::Uniform): the mean over a batch has the same
/// expectation, and a smaller variance.
///
/// Cost: O(1) a row, whatever N is; memory for `count` rows, which is kept from batch to batch. It serves fixed tables and
/// rings; it has no state that outlives a batch.
#[derive(Clone, Debug, Default)]
pub struct WithoutReplacement {
    /// Of the shuffled sequence of rows, what is not at its own place.
    displaced: HashMap<u64, u64, BuildHasherDefault<Fibonacci>>,
}

impl WithoutReplacement {
    /// A sampler without replacement.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Sampler for WithoutReplacement {
    fn draw(
        &mut self,
        rng: &mut Rng,
        live: Range<u64>,
        count: usize,
        drawn: &mut Drawn,
    ) -> Result<(), SampleError> {
        if live.is_empty() {
            return Err(SampleError::Empty);
        }
        let population = live.end - live.start;
        if count as u64 > population {
            return Err(SampleError::TooFew { asked: count, rows: population });
        }
        drawn.population = population;
        drawn.rows.clear();
        self.displaced.clear();
        self.displaced.reserve(count);
        // The first `count` steps of a Fisher-Yates shuffle (Knuth, The Art of Computer Programming 2, algorithm P) of
        // 0..N, of which only what has moved is stored. Place i is never looked at again after step i.
        for place in 0..count as u64 {
            let chosen = rng.random_range(place..population);
            let moved = self.displaced.get(&place).copied().unwrap_or(place);
            let row =
                if chosen == place { moved } else { self.displaced.insert(chosen, moved).unwrap_or(chosen) };
            drawn.rows.push(live.start + row);
        }
        drawn.probabilities.clear();
        drawn.probabilities.resize(count, 1.0 / population as f64);
        drawn.lowest = Some(1.0 / population as f64);
        Ok(())
    }

    fn priorities(&mut self) -> Option<&mut dyn Priorities> {
        None
    }

    fn visit(&mut self, _live: Range<u64>, _visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        Ok(())
    }
}

/// Multiplicative hashing by 2⁶⁴ over the golden ratio (Knuth 3, section 6.4): a good spread of numbers that no
/// adversary chose, at the cost of a product. The result is the same on every run, as are the draws with any hash.
#[derive(Clone, Copy, Debug, Default)]
struct Fibonacci(u64);

impl Hasher for Fibonacci {
    fn finish(&self) -> u64 {
        // The upper bits of the product are the mixed ones; the table uses the lower bits too.
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    /// All 60 ordered choices of 3 rows out of 5.
    #[test]
    fn every_order_of_every_subset_comes_equally_often() {
        let (mut sampler, mut rng) = (WithoutReplacement::new(), Rng::seed_from_u64(5));
        let mut drawn = Drawn::default();
        let mut counts = HashMap::<Vec<u64>, u64>::new();
        let draws = 120_000;
        for _ in 0..draws {
            sampler.draw(&mut rng, 10..15, 3, &mut drawn).unwrap();
            *counts.entry(drawn.rows.clone()).or_default() += 1;
        }
        let differ = |rows: &Vec<u64>| rows[0] != rows[1] && rows[0] != rows[2] && rows[1] != rows[2];
        assert!(counts.len() == 60 && counts.keys().all(differ));
        let expected = f64::from(draws) / 60.0;
        let chi2: f64 = counts.values().map(|c| (*c as f64 - expected).powi(2) / expected).sum();
        // 59 degrees of freedom: exceeded by a correct sampler with probability 1e-6.
        assert!(chi2 < 121.7, "χ² = {chi2}");
    }

    #[test]
    fn no_row_comes_twice_up_to_a_whole_permutation() {
        let (mut sampler, mut rng) = (WithoutReplacement::new(), Rng::seed_from_u64(6));
        let mut drawn = Drawn::default();
        for (rows, count) in [(1, 0), (1, 1), (7, 7), (1000, 1000), (1000, 999), (u64::MAX - 3, 500)] {
            sampler.draw(&mut rng, 3..3 + rows, count, &mut drawn).unwrap();
            assert!(drawn.rows.iter().all(|row| (3..3 + rows).contains(row)));
            assert!(drawn.probabilities.iter().all(|p| *p == 1.0 / rows as f64));
            let mut sorted = drawn.rows.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!((drawn.rows.len(), sorted.len(), drawn.population), (count, count, rows));
        }
    }

    #[test]
    fn more_rows_than_there_are_is_an_error_and_changes_nothing() {
        let (mut sampler, mut rng) = (WithoutReplacement::new(), Rng::seed_from_u64(7));
        let mut drawn = Drawn::default();
        sampler.draw(&mut rng, 0..9, 4, &mut drawn).unwrap();
        let before = (drawn.rows.clone(), rng.clone());
        let error = sampler.draw(&mut rng, 0..9, 10, &mut drawn);
        assert_eq!(error, Err(SampleError::TooFew { asked: 10, rows: 9 }));
        assert_eq!(sampler.draw(&mut rng, 9..9, 0, &mut drawn), Err(SampleError::Empty));
        assert_eq!((drawn.rows, rng), before);
    }
}
