//! One row after the other.

use super::SamplerError;
use super::course::{Course, state_evenly};
use crate::{Drawn, Epoch, Priorities, Rng, SampleError, Sampler, StateError, StateVisitor};
use std::ops::Range;

/// Goes through the rows in their order, epoch after epoch: for evaluation, and for data whose order is already random.
///
/// Takes nothing from the generator. The stated probability is 1/N, a row's share of an epoch. Cost: O(1) a row.
#[derive(Clone, Debug)]
pub struct Sequential {
    course: Course,
}

impl Sequential {
    /// For a data set of `rows` rows.
    ///
    /// # Errors
    /// [`SamplerError::Empty`].
    pub fn new(rows: u64) -> Result<Self, SamplerError> {
        if rows == 0 {
            return Err(SamplerError::Empty);
        }
        Ok(Self { course: Course::new(rows) })
    }
}

impl Sampler for Sequential {
    fn draw(
        &mut self,
        _rng: &mut Rng,
        live: Range<u64>,
        count: usize,
        drawn: &mut Drawn,
    ) -> Result<(), SampleError> {
        self.course.check(&live)?;
        if count > 0 && self.course.is_at_end() {
            self.course.begin();
        }
        drawn.rows.clear();
        drawn.rows.extend(self.course.take(count).map(|place| live.start + place));
        state_evenly(self.course.epoch().rows, drawn);
        Ok(())
    }

    fn priorities(&mut self) -> Option<&mut dyn Priorities> {
        None
    }

    fn epoch(&self) -> Option<Epoch> {
        Some(self.course.epoch())
    }

    fn visit(&mut self, _live: Range<u64>, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        self.course = self.course.visited(visitor)?;
        Ok(())
    }
}
