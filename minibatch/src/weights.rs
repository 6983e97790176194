//! Importance weights, made in this one place from the probabilities that a sampler reports.

use crate::Drawn;

/// What importance weights are divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightNorm {
    /// The largest weight of the batch, so that weights only ever scale an update down (Schaul et al. 2016, §3.4).
    #[default]
    BatchMax,
    /// Nothing: the plain (N·P)^−β, whose expectation corrects the bias exactly at β = 1.
    None,
}

/// Writes the importance weight of each drawn row to `out`: `wᵢ = (N·P(i))^−β`, divided by what `norm` says
/// (Schaul, Quan, Antonoglou and Silver, *Prioritized Experience Replay*, ICLR 2016, §3.4 and Algorithm 1, line 10).
///
/// N is `drawn.population`, P(i) is `drawn.probabilities[i]`. β is 0 for no correction and 1 for a full one. The weight
/// belongs before the loss term, outside its square. Uniform draws give 1 for every row. O(rows), without allocation.
///
/// # Panics
/// When `out` and `drawn` differ in length.
pub fn importance_weights(drawn: &Drawn, beta: f64, norm: WeightNorm, out: &mut [f32]) {
    assert_eq!(drawn.probabilities.len(), out.len(), "one weight for each drawn row");
    let rows = drawn.population as f64;
    let weight = |probability: f64| (rows * probability).powf(-beta);
    let scale = match norm {
        // The rarest row of the batch has its largest weight.
        WeightNorm::BatchMax => {
            let rarest = drawn.probabilities.iter().copied().fold(f64::INFINITY, f64::min);
            1.0 / weight(rarest)
        }
        WeightNorm::None => 1.0,
    };
    for (out, probability) in out.iter_mut().zip(&drawn.probabilities) {
        *out = (weight(*probability) * scale) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(probabilities: &[f64]) -> Drawn {
        Drawn {
            rows: (0..probabilities.len() as u64).collect(),
            probabilities: probabilities.to_vec(),
            population: 10,
        }
    }

    #[test]
    fn follow_the_formula() {
        let drawn = drawn(&[0.1, 0.4, 0.025]);
        let mut out = [0.0; 3];
        importance_weights(&drawn, 0.5, WeightNorm::None, &mut out);
        // (10·0.1)^-½ = 1, (10·0.4)^-½ = ½, (10·0.025)^-½ = 2.
        assert_eq!(out, [1.0, 0.5, 2.0]);
        importance_weights(&drawn, 0.5, WeightNorm::BatchMax, &mut out);
        assert_eq!(out, [0.5, 0.25, 1.0]);
        importance_weights(&drawn, 1.0, WeightNorm::None, &mut out);
        assert_eq!(out, [1.0, 0.25, 4.0]);
        importance_weights(&drawn, 0.0, WeightNorm::BatchMax, &mut out);
        assert_eq!(out, [1.0; 3]);
    }

    #[test]
    fn uniform_draws_weigh_one_and_empty_ones_nothing() {
        let mut out = [0.0; 4];
        importance_weights(&drawn(&[0.1; 4]), 0.7, WeightNorm::BatchMax, &mut out);
        assert_eq!(out, [1.0; 4]);
        importance_weights(&drawn(&[]), 0.7, WeightNorm::BatchMax, &mut []);
    }
}
