//! What all samplers with epochs share: where they are in one.

use crate::{Drawn, Epoch, SampleError, StateError, StateVisitor, scalar};
use std::ops::Range;

/// The way through an epoch of a fixed number of rows.
#[derive(Clone, Debug)]
pub(super) struct Course {
    epoch: Epoch,
    /// Rows of the data set, which may be more than those of an epoch.
    population: u64,
}

impl Course {
    /// At the beginning of the first epoch, which has all of `rows`.
    pub fn new(rows: u64) -> Self {
        Self::of_part(rows, rows)
    }

    /// At the beginning of the first epoch, of `rows` out of `population`.
    pub fn of_part(rows: u64, population: u64) -> Self {
        Self { epoch: Epoch { number: 0, drawn: 0, rows }, population }
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Refuses to draw from rows other than those that the sampler was made for.
    pub fn check(&self, live: &Range<u64>) -> Result<(), SampleError> {
        check_rows(self.population, live)
    }

    /// Whether a draw that gives rows is to begin an epoch first.
    pub fn is_at_end(&self) -> bool {
        self.epoch.drawn == 0 || self.epoch.drawn == self.epoch.rows
    }

    /// Begins an epoch: the first, or the next.
    pub fn begin(&mut self) {
        self.epoch.number += u64::from(self.epoch.drawn > 0);
        self.epoch.drawn = 0;
    }

    /// The next places of the epoch, up to `count` of them, which are then behind.
    pub fn take(&mut self, count: usize) -> Range<u64> {
        let from = self.epoch.drawn;
        self.epoch.drawn += self.next(count);
        from..self.epoch.drawn
    }

    /// How many places [`take`](Self::take) would give.
    pub fn next(&self, count: usize) -> u64 {
        (count as u64).min(self.epoch.rows - self.epoch.drawn)
    }

    /// Visits a copy, which is valid when there is no error.
    pub fn visited(&self, visitor: &mut dyn StateVisitor) -> Result<Self, StateError> {
        let (mut epoch, mut population) = (self.epoch, self.population);
        scalar(visitor, "epoch", &mut epoch.number)?;
        scalar(visitor, "drawn", &mut epoch.drawn)?;
        scalar(visitor, "epoch_rows", &mut epoch.rows)?;
        scalar(visitor, "rows", &mut population)?;
        let invalid = |path: &str, why| Err(StateError::Invalid { path: path.into(), why });
        if population != self.population {
            let why = format!("it was saved with {population} rows and there are {}", self.population);
            return invalid("rows", why);
        }
        if epoch.rows != self.epoch.rows {
            let (saved, here) = (epoch.rows, self.epoch.rows);
            return invalid("epoch_rows", format!("an epoch had {saved} rows when saved and has {here}"));
        }
        if epoch.drawn > epoch.rows {
            return invalid(
                "drawn",
                format!("{} of {} rows cannot have been drawn", epoch.drawn, epoch.rows),
            );
        }
        Ok(Self { epoch, population })
    }
}

/// Refuses to draw from rows other than the `rows` that a sampler was made for.
pub(super) fn check_rows(rows: u64, live: &Range<u64>) -> Result<(), SampleError> {
    if live.is_empty() {
        return Err(SampleError::Empty);
    }
    match live.end - live.start {
        found if found == rows => Ok(()),
        found => Err(SampleError::Rows { expected: rows, found }),
    }
}

/// States the same probability for each of the drawn rows.
pub(super) fn state_evenly(rows: u64, drawn: &mut Drawn) {
    let probability = 1.0 / rows as f64;
    drawn.population = rows;
    drawn.lowest = Some(probability);
    drawn.probabilities.clear();
    drawn.probabilities.resize(drawn.rows.len(), probability);
}
