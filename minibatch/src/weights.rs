//! Importance weights, made in this one place from the probabilities that a sampler reports.

use crate::{Drawn, powers};

/// Weights made at a time.
const BLOCK: usize = 64;

/// What importance weights are divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightNorm {
    /// The largest weight of the batch, so that weights only ever scale an update down (Schaul et al. 2016, §3.4).
    #[default]
    BatchMax,
    /// The largest weight that any of the N rows would have, drawn or not: `(N · min P)^−β`, as OpenAI Baselines does.
    /// Unlike [`BatchMax`](Self::BatchMax) it gives a row the same weight whatever else is in its batch. It needs a sampler
    /// that knows the smallest probability (`drawn.lowest`); with one that does not it is the same as `BatchMax`.
    PopulationMax,
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
    let weight = |probability: f64| {
        let mut value = [rows * probability];
        powers(&mut value, -beta);
        value[0]
    };
    // The rarest row has the largest weight.
    let rarest_drawn = || drawn.probabilities.iter().copied().fold(f64::INFINITY, f64::min);
    let scale = match norm {
        WeightNorm::BatchMax => 1.0 / weight(rarest_drawn()),
        // A sampler rounds the smallest probability apart from the drawn ones; no weight is to come out above 1 by that.
        WeightNorm::PopulationMax => {
            let rarest = rarest_drawn();
            1.0 / weight(drawn.lowest.map_or(rarest, |lowest| lowest.min(rarest)))
        }
        WeightNorm::None => 1.0,
    };
    let mut block = [0.0; BLOCK];
    for (out, probabilities) in out.chunks_mut(BLOCK).zip(drawn.probabilities.chunks(BLOCK)) {
        let block = &mut block[..out.len()];
        for (value, probability) in block.iter_mut().zip(probabilities) {
            *value = rows * probability;
        }
        powers(block, -beta);
        for (out, value) in out.iter_mut().zip(block) {
            *out = (*value * scale) as f32;
        }
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
            lowest: None,
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
    fn the_rarest_row_of_all_sets_the_scale_if_it_is_known() {
        let mut drawn = drawn(&[0.1, 0.4, 0.025]);
        let mut out = [0.0; 3];
        importance_weights(&drawn, 0.5, WeightNorm::PopulationMax, &mut out);
        assert_eq!(out, [0.5, 0.25, 1.0], "not known: the batch's own");
        // (10·0.00625)^-½ = 4.
        drawn.lowest = Some(0.00625);
        importance_weights(&drawn, 0.5, WeightNorm::PopulationMax, &mut out);
        assert_eq!(out, [0.25, 0.125, 0.5]);
        importance_weights(&drawn, 0.5, WeightNorm::BatchMax, &mut out);
        assert_eq!(out, [0.5, 0.25, 1.0]);
        importance_weights(&drawn, 0.5, WeightNorm::None, &mut out);
        assert_eq!(out, [1.0, 0.5, 2.0]);
    }

    #[test]
    fn uniform_draws_weigh_one_and_empty_ones_nothing() {
        let mut out = [0.0; 4];
        importance_weights(&drawn(&[0.1; 4]), 0.7, WeightNorm::BatchMax, &mut out);
        assert_eq!(out, [1.0; 4]);
        importance_weights(&drawn(&[]), 0.7, WeightNorm::BatchMax, &mut []);
    }
}
