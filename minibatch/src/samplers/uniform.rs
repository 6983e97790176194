//! Every row with the same probability.

use crate::{Drawn, Priorities, Rng, SampleError, Sampler, StateError, StateVisitor};
use rand::distr::{Distribution, Uniform as Between};
use std::ops::Range;

/// Draws with replacement, each row with probability 1/N. Serves fixed tables and rings; it has no state of its own.
///
/// Cost: O(1) a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uniform;

impl Sampler for Uniform {
    fn draw(
        &mut self,
        rng: &mut Rng,
        live: Range<u64>,
        count: usize,
        drawn: &mut Drawn,
    ) -> Result<(), SampleError> {
        let rows = Between::try_from(live.clone()).map_err(|_| SampleError::Empty)?;
        let population = live.end - live.start;
        drawn.population = population;
        drawn.rows.clear();
        drawn.rows.extend((0..count).map(|_| rows.sample(rng)));
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

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn every_row_comes_equally_often() {
        let (cells, draws) = (50u64, 500_000usize);
        let mut rng = Rng::seed_from_u64(11);
        let mut drawn = Drawn::default();
        let mut counts = vec![0u64; cells as usize];
        for _ in 0..draws / 1000 {
            Uniform.draw(&mut rng, 1_000..1_000 + cells, 1000, &mut drawn).unwrap();
            assert!(drawn.probabilities.iter().all(|p| *p == 1.0 / cells as f64));
            assert_eq!(drawn.population, cells);
            for row in &drawn.rows {
                counts[(row - 1_000) as usize] += 1;
            }
        }
        let expected = draws as f64 / cells as f64;
        let chi2: f64 = counts.iter().map(|c| (*c as f64 - expected).powi(2) / expected).sum();
        // 49 degrees of freedom: exceeded by a correct sampler with probability 1e-6 (the seed is fixed, so it is once and for all).
        assert!(chi2 < 107.0, "χ² = {chi2}");
    }

    #[test]
    fn nothing_to_draw_from_is_an_error_and_changes_nothing() {
        let mut rng = Rng::seed_from_u64(1);
        let mut drawn = Drawn { rows: vec![7], probabilities: vec![0.5], population: 2, lowest: None };
        assert_eq!(Uniform.draw(&mut rng, 5..5, 3, &mut drawn), Err(SampleError::Empty));
        assert_eq!(drawn.rows, [7]);
        Uniform.draw(&mut rng, 5..6, 0, &mut drawn).unwrap();
        assert!(drawn.rows.is_empty() && drawn.probabilities.is_empty());
    }
}
