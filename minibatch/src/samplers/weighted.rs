//! Rows by given weights, each draw for itself.

use super::SamplerError;
use super::course::check_rows;
use crate::{Drawn, Priorities, Rng, SampleError, Sampler, StateError, StateVisitor};
use rand::{Rng as _, RngExt};
use std::ops::Range;

/// Draws with replacement, row i with probability wᵢ/Σw: `torch.utils.data.WeightedRandomSampler` with replacement.
///
/// By the alias method (Walker 1977, built as in Vose, *A Linear Algorithm for Generating Random Numbers with a Given
/// Distribution*, 1991): the mass of each row is 1/N after each light row has been filled up with a part of one heavier
/// row. O(1) a row whatever N is, two lines of memory; 24 bytes a row. The weights are fixed; for weights that change, as
/// priorities do, the crate `rl-replay` has a sum tree.
///
/// Rows of weight 0 are never drawn and do not count in `drawn.population`. It has no epochs and no state of its own.
#[derive(Clone, Debug)]
pub struct Weighted {
    cells: Vec<Cell>,
    probabilities: Vec<f64>,
    /// Rows with a weight above 0.
    population: u64,
    lowest: f64,
}

/// One of N equal parts of the mass.
#[derive(Clone, Copy, Debug)]
struct Cell {
    /// The part of it that is the row's own.
    own: f64,
    /// Whose the rest is.
    other: u64,
}

impl Weighted {
    /// Draws row i in proportion to `weights[i]`. They need not sum to 1. O(N).
    ///
    /// ```
    /// use rand::SeedableRng;
    /// use rl_minibatch::{Drawn, Rng, Sampler, Weighted};
    /// let mut sampler = Weighted::new(&[1.0, 0.0, 3.0])?;
    /// let mut drawn = Drawn::default();
    /// sampler.draw(&mut Rng::seed_from_u64(0), 0..3, 100, &mut drawn)?;
    /// for (row, probability) in drawn.rows.iter().zip(&drawn.probabilities) {
    ///     assert_eq!(*probability, [0.25, 0.0, 0.75][*row as usize]);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SamplerError::Empty`], [`SamplerError::Weight`] for the first that is negative, NaN or infinite, and
    /// [`SamplerError::NoWeight`] when all are 0.
    pub fn new(weights: &[f64]) -> Result<Self, SamplerError> {
        let mut probabilities = relative(weights)?;
        let sum: f64 = probabilities.iter().sum();
        probabilities.iter_mut().for_each(|p| *p /= sum);
        let positive = || probabilities.iter().copied().filter(|p| *p > 0.0);
        let (population, lowest) = (positive().count() as u64, positive().fold(1.0, f64::min));
        Ok(Self { cells: cells(&probabilities), probabilities, population, lowest })
    }
}

/// Weights over the largest of them, so that sums stay finite; checked.
pub(super) fn relative(weights: &[f64]) -> Result<Vec<f64>, SamplerError> {
    if weights.is_empty() {
        return Err(SamplerError::Empty);
    }
    if let Some(row) = weights.iter().position(|w| !(w.is_finite() && *w >= 0.0)) {
        return Err(SamplerError::Weight { row: row as u64, value: weights[row] });
    }
    let largest = weights.iter().copied().fold(0.0, f64::max);
    if largest == 0.0 {
        return Err(SamplerError::NoWeight { rows: weights.len() as u64 });
    }
    Ok(weights.iter().map(|w| w / largest).collect())
}

fn cells(probabilities: &[f64]) -> Vec<Cell> {
    let rows = probabilities.len();
    // A row without mass must not be drawn even where rounding leaves its cell unfilled, so the heaviest has the rest.
    let heaviest = (0..rows).max_by(|a, b| probabilities[*a].total_cmp(&probabilities[*b])).unwrap_or(0);
    let mut cells: Vec<Cell> =
        probabilities.iter().map(|p| Cell { own: p * rows as f64, other: heaviest as u64 }).collect();
    let (mut light, mut heavy): (Vec<usize>, Vec<usize>) = (0..rows).partition(|row| cells[*row].own < 1.0);
    while let (Some(&from), Some(filled)) = (heavy.last(), light.pop()) {
        cells[filled].other = from as u64;
        cells[from].own -= 1.0 - cells[filled].own;
        if cells[from].own < 1.0 {
            heavy.pop();
            light.push(from);
        }
    }
    // What is left would be filled exactly but for rounding.
    for row in light.into_iter().chain(heavy) {
        if probabilities[row] > 0.0 {
            cells[row].own = 1.0;
        }
    }
    cells
}

impl Sampler for Weighted {
    fn draw(
        &mut self,
        rng: &mut Rng,
        live: Range<u64>,
        count: usize,
        drawn: &mut Drawn,
    ) -> Result<(), SampleError> {
        let rows = self.cells.len();
        check_rows(rows as u64, &live)?;
        drawn.population = self.population;
        drawn.lowest = Some(self.lowest);
        drawn.rows.clear();
        drawn.probabilities.clear();
        for _ in 0..count {
            let row = rng.random_range(0..rows);
            let Cell { own, other } = self.cells[row];
            let row = if unit(rng) < own { row } else { other as usize };
            drawn.rows.push(live.start + row as u64);
            drawn.probabilities.push(self.probabilities[row]);
        }
        Ok(())
    }

    fn priorities(&mut self) -> Option<&mut dyn Priorities> {
        None
    }

    fn memory_bytes(&self) -> u64 {
        (size_of::<Cell>() + size_of::<f64>()) as u64 * self.cells.len() as u64
    }

    fn visit(&mut self, _live: Range<u64>, _visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        Ok(())
    }
}

/// A multiple of 2⁻⁵³ in [0, 1).
fn unit(rng: &mut Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What the cells give each row, added up, is its probability.
        #[test]
        fn the_cells_hold_the_probabilities(
            weights in prop::collection::vec(prop_oneof![Just(0.0), Just(1.0), 1e-12f64..1e12], 1..200),
        ) {
            prop_assume!(weights.iter().any(|w| *w > 0.0));
            let sampler = Weighted::new(&weights).unwrap();
            let (rows, sum) = (weights.len(), weights.iter().sum::<f64>());
            let mut mass = vec![0.0; rows];
            for (row, Cell { own, other }) in sampler.cells.iter().enumerate() {
                prop_assert!((0.0..1.0 + 1e-9).contains(own), "{own}");
                mass[row] += own.min(1.0) / rows as f64;
                mass[*other as usize] += (1.0 - own).max(0.0) / rows as f64;
            }
            for row in 0..rows {
                prop_assert!((mass[row] - weights[row] / sum).abs() < 1e-13, "{} of {weights:?}", mass[row]);
                prop_assert!((sampler.probabilities[row] - weights[row] / sum).abs() < 1e-15);
                prop_assert!(weights[row] > 0.0 || mass[row] == 0.0);
            }
            prop_assert_eq!(sampler.population, weights.iter().filter(|w| **w > 0.0).count() as u64);
        }
    }

    #[test]
    fn weights_near_the_largest_number_add_up() {
        let sampler = Weighted::new(&[f64::MAX, f64::MAX, 0.0, f64::MAX / 2.0]).unwrap();
        assert_eq!(sampler.probabilities, [0.4, 0.4, 0.0, 0.2]);
    }
}
