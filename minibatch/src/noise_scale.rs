//! The gradient noise scale: how large a batch is worth its rows.

use crate::{StateError, StateVisitor, scalar};

/// Measures the simple noise scale of gradients, `B_simple = tr(Σ)/|G|²`, G being the true gradient and Σ the covariance of
/// the gradients of single rows: about the batch size beyond which more rows a step no longer save as many steps.
///
/// McCandlish, Kaplan, Amodei and the OpenAI Dota Team, *An Empirical Model of Large-Batch Training* (2018), appendix A.1. The
/// squared norm of the mean gradient of B rows has expectation |G|² + tr(Σ)/B, so from norms at two batch sizes
///
/// ```text
/// |G|²  ≈ (B_big · |G_big|² − B_small · |G_small|²) / (B_big − B_small)
/// tr(Σ) ≈ (|G_small|² − |G_big|²) / (1/B_small − 1/B_big)
/// ```
///
/// without bias. A ratio of the two would be biased and wild, so each is averaged over steps, exponentially, and the ratio
/// is of the averages. Micro-batches of gradient accumulation, or the parts of data-parallel ranks, give small batches for free:
/// the mean of their squared norms is `small`, that of the accumulated gradient is `big`. No tensor comes here, only norms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseScale {
    decay: f64,
    observations: u64,
    /// Averages as they are summed, from 0; their common correction cancels in the ratio.
    gradient2: f64,
    trace: f64,
}

/// What a [`NoiseScale`] has found so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseEstimate {
    /// |G|²: the squared norm of the true gradient. Without bias, so it may come out negative where noise hides it.
    pub gradient2: f64,
    /// tr(Σ): the summed variance of the gradient of one row.
    pub trace: f64,
    /// B_simple in rows: their ratio; infinite where |G|² is not above 0, when any batch is mostly noise.
    pub rows: f64,
}

impl NoiseEstimate {
    /// B_simple as a batch size: rounded, at least 1 and at most `most`.
    pub fn batch_size(&self, most: usize) -> usize {
        // A float too large for usize becomes its maximum.
        (self.rows.max(1.0).round() as usize).min(most.max(1))
    }
}

impl NoiseScale {
    /// Averages over about 1/(1 − `decay`) observations, such as 100 for 0.99. The noise scale grows in the course of training,
    /// so the average is to forget.
    ///
    /// # Errors
    /// [`NoiseError::Decay`] unless 0 ≤ `decay` < 1.
    pub fn new(decay: f64) -> Result<Self, NoiseError> {
        if !(0.0..1.0).contains(&decay) {
            return Err(NoiseError::Decay { decay });
        }
        Ok(Self { decay, observations: 0, gradient2: 0.0, trace: 0.0 })
    }

    /// Takes in one step: rows and squared norm of the mean gradient, of a small batch and of a big one at the same parameters.
    /// The small batches may be parts of the big one.
    ///
    /// Of K small batches of n₁ … n_K rows, the norm is Σ (nₖ/n)·|gₖ|² with n = Σ nₖ, and the rows are n/K, which need not be whole: that norm
    /// has the expectation Σ (nₖ/n)·(|G|² + tr(Σ)/nₖ) = |G|² + tr(Σ)/(n/K). Where they are of one size it is the mean of their squared norms.
    ///
    /// # Errors
    /// [`NoiseError::Rows`] unless 0 < small rows < big rows, [`NoiseError::Norm`] for a norm that is negative or not finite
    /// (a step that overflowed); nothing is taken in then.
    pub fn observe(&mut self, small: (f64, f64), big: (f64, f64)) -> Result<(), NoiseError> {
        // Written so that NaN is refused too.
        if !(small.0 > 0.0 && small.0 < big.0 && big.0.is_finite()) {
            return Err(NoiseError::Rows { small: small.0, big: big.0 });
        }
        if let Some(norm2) = [small.1, big.1].into_iter().find(|n| !(n.is_finite() && *n >= 0.0)) {
            return Err(NoiseError::Norm { norm2 });
        }
        let (small_rows, big_rows) = (small.0, big.0);
        let gradient2 = (big_rows * big.1 - small_rows * small.1) / (big_rows - small_rows);
        let trace = (small.1 - big.1) / (1.0 / small_rows - 1.0 / big_rows);
        let keep = self.decay;
        self.gradient2 = keep * self.gradient2 + (1.0 - keep) * gradient2;
        self.trace = keep * self.trace + (1.0 - keep) * trace;
        self.observations += 1;
        Ok(())
    }

    /// Steps taken in.
    pub fn observations(&self) -> u64 {
        self.observations
    }

    /// The estimate so far; `None` before the first observation.
    pub fn estimate(&self) -> Option<NoiseEstimate> {
        if self.observations == 0 {
            return None;
        }
        // An average that began at 0 has this much weight in it (Kingma and Ba 2015, section 3).
        let weight = 1.0 - self.decay.powf(self.observations as f64);
        let (gradient2, trace) = (self.gradient2 / weight, (self.trace / weight).max(0.0));
        let rows = if gradient2 > 0.0 { trace / gradient2 } else { f64::INFINITY };
        Some(NoiseEstimate { gradient2, trace, rows })
    }

    /// Shows the averages to `visitor`; the decay is a setting and not in it.
    ///
    /// # Errors
    /// Those of the visitor.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        scalar(visitor, "observations", &mut self.observations)?;
        scalar(visitor, "gradient2", &mut self.gradient2)?;
        scalar(visitor, "trace", &mut self.trace)
    }
}

/// Why an observation was refused.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum NoiseError {
    /// A decay that averages nothing.
    #[error("the decay of the noise scale is {decay}; it must be at least 0 and below 1")]
    Decay {
        /// What came.
        decay: f64,
    },
    /// Batches that cannot be compared.
    #[error(
        "batches of {small} and {big} rows were given; the small one needs more than 0 and fewer than the big one"
    )]
    Rows {
        /// Rows of the small batch.
        small: f64,
        /// Rows of the big one.
        big: f64,
    },
    /// No norm.
    #[error("a squared gradient norm is {norm2}; it must be finite and at least 0, so leave this step out")]
    Norm {
        /// What came.
        norm2: f64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryState, Rng};
    use rand::{RngExt, SeedableRng};

    /// A standard normal number, by Box and Muller (1958).
    fn normal(rng: &mut Rng) -> f64 {
        let (radius, angle) = (1.0 - rng.random::<f64>(), rng.random::<f64>());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }

    /// Gradients of rows are G + σᵢ·normal in 20 dimensions, |G|² = 5, tr(Σ) = Σσᵢ² = 28.7, so B_simple = 5.74. Eight
    /// micro-batches of 4 rows make a batch of 32.
    #[test]
    fn gaussian_gradients_have_the_noise_scale_they_were_made_with() {
        let (dims, steps) = (20, 4000);
        let sigma: Vec<f64> = (0..dims).map(|i| 0.1 * (i + 1) as f64).collect();
        let trace: f64 = sigma.iter().map(|s| s * s).sum();
        assert!((trace - 28.7).abs() < 1e-9);
        let mut rng = Rng::seed_from_u64(2018);
        let mut noise = NoiseScale::new(0.9999).unwrap();
        for _ in 0..steps {
            let (mut small2, mut big) = (0.0, vec![0.0; dims]);
            for _ in 0..8 {
                let mut small = vec![0.0; dims];
                for _ in 0..4 {
                    for (sum, sigma) in small.iter_mut().zip(&sigma) {
                        *sum += 0.5 + sigma * normal(&mut rng);
                    }
                }
                small2 += small.iter().map(|sum| (sum / 4.0).powi(2)).sum::<f64>() / 8.0;
                big.iter_mut().zip(&small).for_each(|(big, small)| *big += small / 32.0);
            }
            noise.observe((4.0, small2), (32.0, big.iter().map(|g| g * g).sum())).unwrap();
        }
        // One step's tr(Σ) is the unbiased variance of 8 means times 4: its own variance is 2·Σσᵢ⁴/7. One step's |G|² has, with
        // independent mean and variance of the eight, variance 4·ΣGᵢ²σᵢ²/32 + 2·Σσᵢ⁴/32²·(1 + 1/7). Over 4000 steps with almost equal weights
        // the standard errors are a 63rd of that, times 1.02 for the weights; five of them are missed with probability 6e-7.
        let fourth: f64 = sigma.iter().map(|s| s.powi(4)).sum();
        let of_trace = (2.0 * fourth / 7.0).sqrt() / 4000f64.sqrt() * 1.02;
        let of_gradient =
            (4.0 * 0.25 * trace / 32.0 + 2.0 * fourth / 1024.0 * (8.0 / 7.0)).sqrt() / 4000f64.sqrt() * 1.02;
        let found = noise.estimate().unwrap();
        assert!((found.trace - trace).abs() < 5.0 * of_trace, "tr Σ = {} ± {of_trace}", found.trace);
        assert!(
            (found.gradient2 - 5.0).abs() < 5.0 * of_gradient,
            "|G|² = {} ± {of_gradient}",
            found.gradient2
        );
        let relative = of_trace / trace + of_gradient / 5.0;
        assert!((found.rows / (trace / 5.0) - 1.0).abs() < 5.0 * relative, "B = {}", found.rows);
        assert_eq!((found.batch_size(1000), found.batch_size(3)), (6, 3));
    }

    #[test]
    fn exact_norms_give_the_exact_scale_from_the_first_step_on() {
        let mut noise = NoiseScale::new(0.9).unwrap();
        assert_eq!(noise.estimate(), None);
        for _ in 0..3 {
            // |G|² = 2, tr(Σ) = 24.
            noise.observe((4.0, 2.0 + 24.0 / 4.0), (12.0, 2.0 + 24.0 / 12.0)).unwrap();
            let found = noise.estimate().unwrap();
            assert!((found.rows - 12.0).abs() < 1e-9 && (found.trace - 24.0).abs() < 1e-9);
        }
    }

    #[test]
    fn what_is_no_observation_changes_nothing() {
        let mut noise = NoiseScale::new(0.5).unwrap();
        assert!(matches!(NoiseScale::new(1.0), Err(NoiseError::Decay { .. })));
        assert_eq!(noise.observe((4.0, 1.0), (4.0, 1.0)), Err(NoiseError::Rows { small: 4.0, big: 4.0 }));
        assert_eq!(noise.observe((0.0, 1.0), (4.0, 1.0)), Err(NoiseError::Rows { small: 0.0, big: 4.0 }));
        assert!(matches!(noise.observe((1.0, f64::INFINITY), (4.0, 1.0)), Err(NoiseError::Norm { .. })));
        assert_eq!(noise.observations(), 0);
        assert!(matches!(noise.observe((f64::NAN, 1.0), (4.0, 1.0)), Err(NoiseError::Rows { .. })));
        assert!(matches!(noise.observe((1.0, 1.0), (f64::INFINITY, 1.0)), Err(NoiseError::Rows { .. })));
        noise.observe((1.0, 1.0), (4.0, 1.0)).unwrap();
        noise.observe((1.0, 1.0), (4.0, 0.1)).unwrap();
        assert_eq!(noise.estimate().unwrap().batch_size(64), 4);
        let mut lost = NoiseScale::new(0.5).unwrap();
        lost.observe((1.0, 4.0), (4.0, 0.5)).unwrap();
        assert_eq!(lost.estimate().unwrap().batch_size(64), 64, "|G|² is below 0: all noise");
        let saved = MemoryState::save(|v| noise.visit(v)).unwrap();
        saved.load(|v| lost.visit(v)).unwrap();
        assert_eq!(lost, noise);
    }
}
