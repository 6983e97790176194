//! Each class equally often.

use super::SamplerError;
use super::classes::Classes;
use super::course::check_rows;
use crate::{Drawn, Priorities, Rng, SampleError, Sampler, StateError, StateVisitor, scalar, slice};
use rand::seq::SliceRandom;
use rand::{Rng as _, SeedableRng};
use std::ops::Range;

/// Draws each class equally often, however rare it is: the classes come in rounds, each once a round, in another random
/// order each time. So the classes of a batch differ by at most one row when it holds whole rounds, and by two at most.
///
/// Within its class, a row comes once before any comes twice, in another random order each time. Rows of rare classes thus
/// repeat, while of a large class not all may have come yet.
///
/// # Probability
/// A row of a class of n rows has 1/(C·n) with C classes, which is stated. That is weighting by inverse frequency: the
/// same, row by row, as [`Weighted`](crate::Weighted) with 1/n, and steadier, as nothing is left to chance but the order.
/// Importance weights made of it with β = 1 take the balance back.
///
/// It has no epochs. The state is a key and a place for the round and for each class. Cost: O(1) a row on average; a class
/// whose rows have all come is shuffled at once, about 2 ns a row. 8 bytes a row.
#[derive(Clone, Debug)]
pub struct ClassBalanced {
    classes: Classes,
    /// Classes in the order of this round.
    round: Vec<u32>,
    /// What this round's order follows from.
    round_key: u64,
    /// How many classes of this round have come.
    come: u64,
    /// What the present order of each class follows from.
    keys: Vec<u64>,
    /// How many rows of that order have come.
    taken: Vec<u64>,
}

impl ClassBalanced {
    /// Row i is of class `labels[i]`, one of 0..`classes`, each of which must have a row. O(N).
    ///
    /// # Errors
    /// [`SamplerError::Empty`], [`SamplerError::Label`] for the first label out of range, [`SamplerError::EmptyClass`] for
    /// the first class without rows, and [`SamplerError::TooManyRows`] above 2³².
    pub fn new(labels: &[u32], classes: usize) -> Result<Self, SamplerError> {
        let classes = Classes::new(labels, classes)?;
        let count = classes.len();
        if let Some(class) = (0..count).find(|class| classes.size(*class) == 0) {
            return Err(SamplerError::EmptyClass { class });
        }
        // All have come, so that the first draw begins a round, and each class.
        let taken = (0..count).map(|class| classes.size(class) as u64).collect();
        let round = (0..count as u32).collect();
        Ok(Self { classes, round, round_key: 0, come: count as u64, keys: vec![0; count], taken })
    }

    fn shuffle_round(&mut self) {
        self.round.iter_mut().zip(0..).for_each(|(place, class)| *place = class);
        self.round.shuffle(&mut Rng::seed_from_u64(self.round_key));
    }

    fn next(&mut self, rng: &mut Rng) -> (usize, u64) {
        if self.come == self.round.len() as u64 {
            (self.round_key, self.come) = (rng.next_u64(), 0);
            self.shuffle_round();
        }
        let class = self.round[self.come as usize] as usize;
        self.come += 1;
        if self.taken[class] == self.classes.size(class) as u64 {
            (self.keys[class], self.taken[class]) = (rng.next_u64(), 0);
            self.classes.shuffle_by(class, self.keys[class]);
        }
        let row = self.classes.of(class)[self.taken[class] as usize];
        self.taken[class] += 1;
        (class, u64::from(row))
    }

    fn probability(&self, class: usize) -> f64 {
        1.0 / (self.round.len() as f64 * self.classes.size(class) as f64)
    }
}

impl Sampler for ClassBalanced {
    fn draw(
        &mut self,
        rng: &mut Rng,
        live: Range<u64>,
        count: usize,
        drawn: &mut Drawn,
    ) -> Result<(), SampleError> {
        check_rows(self.classes.rows(), &live)?;
        drawn.rows.clear();
        drawn.probabilities.clear();
        for _ in 0..count {
            let (class, row) = self.next(rng);
            drawn.rows.push(live.start + row);
            drawn.probabilities.push(self.probability(class));
        }
        drawn.population = self.classes.rows();
        drawn.lowest = (0..self.round.len()).map(|class| self.probability(class)).min_by(f64::total_cmp);
        Ok(())
    }

    fn priorities(&mut self) -> Option<&mut dyn Priorities> {
        None
    }

    fn memory_bytes(&self) -> u64 {
        self.classes.memory_bytes() + 20 * self.round.len() as u64
    }

    fn visit(&mut self, _live: Range<u64>, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        if !visitor.loading() {
            return visit_places(
                visitor,
                &mut self.round_key,
                &mut self.come,
                &mut self.keys,
                &mut self.taken,
            );
        }
        let (mut round_key, mut come) = (0, 0);
        let (mut keys, mut taken) = (self.keys.clone(), self.taken.clone());
        visit_places(visitor, &mut round_key, &mut come, &mut keys, &mut taken)?;
        let invalid = |path: &str, why| Err(StateError::Invalid { path: path.into(), why });
        if come > self.round.len() as u64 {
            return invalid("come", format!("{come} of {} classes cannot have come", self.round.len()));
        }
        for (class, taken) in taken.iter().enumerate() {
            let size = self.classes.size(class);
            if *taken > size as u64 {
                return invalid("taken", format!("{taken} of {size} rows of class {class} cannot have come"));
            }
        }
        (self.round_key, self.come, self.keys, self.taken) = (round_key, come, keys, taken);
        self.shuffle_round();
        for class in 0..self.round.len() {
            self.classes.shuffle_by(class, self.keys[class]);
        }
        Ok(())
    }
}

fn visit_places(
    visitor: &mut dyn StateVisitor,
    round_key: &mut u64,
    come: &mut u64,
    keys: &mut [u64],
    taken: &mut [u64],
) -> Result<(), StateError> {
    scalar(visitor, "round_key", round_key)?;
    scalar(visitor, "come", come)?;
    slice(visitor, "keys", keys)?;
    slice(visitor, "taken", taken)
}
