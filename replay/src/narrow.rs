//! Drawing from some of the rows that a sampler knows.

use rl_minibatch::{Drawn, SampleError};
use std::ops::Range;

/// Draws tried for a place before all rows are looked through.
const TRIES: usize = 64;

/// Among the keys that share a slot of a ring of `capacity` slots with `key`, the first one from `start` on.
pub(crate) fn in_ring_from(start: u64, key: u64, capacity: u64) -> u64 {
    let ahead =
        if key >= start { (key - start) % capacity } else { (capacity - 1) - (start - key - 1) % capacity };
    start + ahead
}

/// How a sampler with a slot for each row of a ring draws from the rows in `live`, if these are not all that it knows.
///
/// A reader that looked at the ring a moment ago may draw from rows that have left it since. A newer row, which has the
/// slot now, then stands for the older one; the reader never hears of it. What stands for no live row must not be
/// drawn: the sampler draws from all it knows, and a row that is out is replaced by drawing again, alone, until one is
/// in. If a row's expected share of the batch was P(i), it is then `P(i) + P(out)·P(i)/P(in) = P(i)/P(in)`, in strata or
/// not: its share among the rows in `live`.
pub(crate) struct Narrow {
    live: Range<u64>,
    /// P(in).
    share: f64,
}

impl Narrow {
    /// `None` when nothing known is out. `probability` tells that of the slot of a key. O(rows known and not live), and
    /// O(live) if those have nearly all of the mass.
    ///
    /// # Errors
    /// [`SampleError::NoMass`] when no live row can be drawn.
    pub(crate) fn new(
        known: Range<u64>,
        live: Range<u64>,
        capacity: u64,
        probability: impl Fn(u64) -> f64,
    ) -> Result<Option<Self>, SampleError> {
        if live.start <= known.start && known.end <= live.end {
            return Ok(None);
        }
        let before = known.start..live.start.min(known.end);
        let after = live.end.max(known.start)..known.end;
        let is_out = |key: &u64| !live.contains(&in_ring_from(live.start, *key, capacity));
        let out: f64 = before.chain(after).filter(is_out).map(&probability).sum();
        if out <= 0.0 {
            return Ok(None);
        }
        // Of a difference that is small little is right; the sum itself is.
        let share = if out < 0.999 { 1.0 - out } else { live.clone().map(&probability).sum() };
        if share <= 0.0 {
            return Err(SampleError::NoMass);
        }
        Ok(Some(Self { live, share }))
    }

    /// Replaces the rows drawn that are not live, and puts all probabilities right, those drawn and the lowest. `again`
    /// finds the row at a share, in 0..1, of the probability of all that are known, and its own part of it. `random`
    /// gives such shares.
    pub(crate) fn settle(
        &self,
        drawn: &mut Drawn,
        probability: impl Fn(u64) -> f64,
        mut random: impl FnMut() -> f64,
        again: impl Fn(f64) -> (u64, f64),
    ) {
        for (row, of_row) in drawn.rows.iter_mut().zip(&mut drawn.probabilities) {
            let mut tries = 0;
            while !self.live.contains(row) {
                (*row, *of_row) =
                    if tries < TRIES { again(random()) } else { self.walk(random(), &probability) };
                tries += 1;
            }
            *of_row /= self.share;
        }
        if let Some(lowest) = &mut drawn.lowest {
            *lowest /= self.share;
        }
    }

    /// What drawing again would come to in the end, for rows that hardly ever come.
    fn walk(&self, random: f64, probability: impl Fn(u64) -> f64) -> (u64, f64) {
        let (mut left, mut last) = (random * self.share, (self.live.start, 0.0));
        for row in self.live.clone() {
            let p = probability(row);
            if p > 0.0 {
                last = (row, p);
                if left < p {
                    break;
                }
                left -= p;
            }
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stands_for_another_of_its_slot() {
        for start in 0..25 {
            for key in 0..60 {
                let found = in_ring_from(start, key, 7);
                assert!((start..start + 7).contains(&found) && found % 7 == key % 7);
            }
        }
    }

    #[test]
    fn what_is_out_gives_its_mass_to_what_is_in() {
        let probability = |key: u64| [0.1, 0.2, 0.3, 0.4][(key % 4) as usize];
        let share = |known, live| {
            Narrow::new(known, live, 4, probability).unwrap().map(|narrow: Narrow| narrow.share)
        };
        assert_eq!(share(0..4, 0..4), None);
        assert_eq!(share(0..4, 0..5), None);
        assert!((share(0..4, 0..3).unwrap() - 0.6).abs() < 1e-15);
        assert!((share(0..4, 1..4).unwrap() - 0.9).abs() < 1e-15);
        assert!((share(2..6, 3..5).unwrap() - 0.5).abs() < 1e-15);
        // Newer rows stand for the older ones of their slots, which are all there.
        assert_eq!(share(2..6, 0..4), None);
        assert_eq!(share(90..94, 0..4), None);
        assert!(matches!(Narrow::new(0..4, 0..2, 4, |key| f64::from(key == 3)), Err(SampleError::NoMass)));
    }
}
