//! Each row once an epoch, and the classes' shares in each batch.

use super::SamplerError;
use super::classes::Classes;
use super::course::{Course, state_evenly};
use super::fair::Fair;
use crate::{Drawn, Epoch, Priorities, Rng, SampleError, Sampler, StateError, StateVisitor, scalar, slice};
use rand::seq::SliceRandom;
use rand::{Rng as _, SeedableRng};
use std::ops::Range;

/// Goes through the rows in random order, without replacement, such that each batch has the ratio of the classes that the
/// data set has.
///
/// With n of N rows in a class, a batch of k has k·n/N of them, off by less than one row; and the first t rows of the epoch
/// have t·n/N of them, off by less than one row, for rounding errors are carried over from batch to batch. Each row comes
/// exactly once. That is proved for batches of any one size, of which the last may be smaller. Where the size changes in
/// mid-epoch it cannot always be kept: of 40,000 epochs of random sizes, 16 had a batch that was off by more, at most by 1.4
/// rows, and 66 an error of more than a row carried over, at most of 1.1.
/// With [`LastBatch::Wrap`](crate::LastBatch::Wrap) the batch in which an epoch begins has rows of two epochs, the rest of one and a smaller first
/// batch of the next. Each part is off by less than a row, but for those rare cases, and so the batch by less than two.
///
/// Which class is rounded up in which batch is chosen at random among classes of one size, and follows from the sizes
/// otherwise. Rows are in random order within the batch, and each class goes through its rows in random order. The
/// stated probability is 1/N, a row's share of an epoch.
///
/// The state is the key of the epoch's order and the number of rows that each class gave. Cost: O(1) a row and
/// O(classes) a batch; O(N) for an epoch to begin and for a state to load, about 10 ns a row; 8 bytes a row.
#[derive(Clone, Debug)]
pub struct Stratified {
    course: Course,
    /// What this epoch's order follows from.
    key: u64,
    classes: Classes,
    fair: Fair,
}

impl Stratified {
    /// Row i is of class `labels[i]`, one of 0..`classes`. A class may be without rows. O(N).
    ///
    /// # Errors
    /// [`SamplerError::Empty`], [`SamplerError::Label`] for the first label out of range, and
    /// [`SamplerError::TooManyRows`] above 2³².
    pub fn new(labels: &[u32], classes: usize) -> Result<Self, SamplerError> {
        let classes = Classes::new(labels, classes)?;
        let sizes = (0..classes.len()).map(|class| classes.size(class) as u64).collect();
        Ok(Self { course: Course::new(classes.rows()), key: 0, classes, fair: Fair::new(sizes) })
    }

    /// Puts rows and classes into the order of the epoch that `key` names.
    fn shuffle(&mut self, key: u64) {
        let mut rng = Rng::seed_from_u64(key);
        let rank = self.fair.rank_mut();
        rank.iter_mut().zip(0..).for_each(|(rank, class)| *rank = class);
        rank.shuffle(&mut rng);
        (0..self.classes.len()).for_each(|class| self.classes.shuffle(class, &mut rng));
    }
}

impl Sampler for Stratified {
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
            self.shuffle(self.key);
            self.fair.begin();
            self.course.begin();
        }
        drawn.rows.clear();
        let places = self.course.take(count);
        if !places.is_empty() {
            self.fair.split(places.end - places.start);
            for (class, (share, taken)) in self.fair.share().iter().zip(self.fair.taken()).enumerate() {
                let rows = &self.classes.of(class)[(taken - share) as usize..*taken as usize];
                drawn.rows.extend(rows.iter().map(|row| live.start + u64::from(*row)));
            }
            drawn.rows.shuffle(rng);
        }
        state_evenly(self.classes.rows(), drawn);
        Ok(())
    }

    fn priorities(&mut self) -> Option<&mut dyn Priorities> {
        None
    }

    fn epoch(&self) -> Option<Epoch> {
        Some(self.course.epoch())
    }

    fn memory_bytes(&self) -> u64 {
        self.classes.memory_bytes()
    }

    fn visit(&mut self, _live: Range<u64>, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let course = self.course.visited(visitor)?;
        let mut key = self.key;
        scalar(visitor, "key", &mut key)?;
        if !visitor.loading() {
            return slice(visitor, "taken", self.fair.taken_mut());
        }
        let mut fair = self.fair.clone();
        slice(visitor, "taken", fair.taken_mut())?;
        let invalid = |why| StateError::Invalid { path: "taken".into(), why };
        fair.resume(course.epoch().drawn).map_err(invalid)?;
        (self.course, self.key, self.fair) = (course, key, fair);
        self.shuffle(key);
        Ok(())
    }
}
