//! Gradient accumulation: a batch in pieces, each with its true share.

use std::ops::Range;

/// A piece of a batch, for gradient accumulation.
#[derive(Clone, Debug, PartialEq)]
pub struct Micro {
    /// Places in the batch, from 0.
    pub rows: Range<usize>,
    /// The piece's share of the batch. The weights of a batch's pieces sum to 1 (to rounding).
    pub weight: f64,
    /// Whether it is the batch's last piece, after which the optimizer steps and ranks reduce their gradients.
    pub last: bool,
}

/// Splits a batch of `rows` rows into pieces of at most `most`, of which only the last may be smaller.
///
/// The mean loss of the batch is `Σᵢ weightᵢ · meanᵢ` over the pieces, with weightᵢ = nᵢ/n, so is its gradient: running each
/// piece's mean loss times its weight backward adds up to the gradient of the one big batch. Dividing by the number of pieces
/// instead gives the rows of a smaller last piece too much weight.
///
/// That is for a loss that is a mean over rows, `1/n · Σ lⱼ` (or `1/n · Σ wⱼ lⱼ`, as with importance weights). For one
/// that is divided by the sum of its weights, `Σ wⱼ lⱼ / Σ wⱼ`, take [`micro_batches_weighted`]. A batch of no rows has no
/// pieces.
///
/// ```
/// let pieces: Vec<_> = rl_minibatch::micro_batches(10, 4).map(|m| (m.rows, m.weight)).collect();
/// assert_eq!(pieces, [(0..4, 0.4), (4..8, 0.4), (8..10, 0.2)]);
/// ```
///
/// # Panics
/// When `most` is 0.
pub fn micro_batches(rows: usize, most: usize) -> impl ExactSizeIterator<Item = Micro> {
    assert!(most > 0, "a micro-batch holds at least one row");
    (0..rows.div_ceil(most)).map(move |i| {
        let piece = i * most..((i + 1).saturating_mul(most)).min(rows);
        let weight = piece.len() as f64 / rows as f64;
        Micro { weight, last: piece.end == rows, rows: piece }
    })
}

/// As [`micro_batches`], for a loss divided by the sum of its weights, `Σ wⱼ lⱼ / Σ wⱼ` (class weights, masks): a piece's
/// share is its part of the sum of the weights, so that `Σᵢ weightᵢ · meanᵢ`, each meanᵢ divided by its own piece's weights,
/// is the loss of the batch.
///
/// A piece whose weights are all 0 has share 0. Its own mean would be 0/0, so leave such a piece out. Sums are made in f64.
///
/// # Errors
/// [`MicroError`] when `most` is 0, when a weight is negative or not finite, or when all are 0.
pub fn micro_batches_weighted(
    weights: &[f32],
    most: usize,
) -> Result<impl ExactSizeIterator<Item = Micro>, MicroError> {
    if most == 0 {
        return Err(MicroError::NoRows);
    }
    if let Some(place) = weights.iter().position(|w| !(w.is_finite() && *w >= 0.0)) {
        return Err(MicroError::Weight { place, value: weights[place] });
    }
    let sum = |part: &[f32]| part.iter().map(|w| f64::from(*w)).sum::<f64>();
    let total = sum(weights);
    if total == 0.0 && !weights.is_empty() {
        return Err(MicroError::NoWeight { rows: weights.len() });
    }
    Ok(micro_batches(weights.len(), most)
        .map(move |micro| Micro { weight: sum(&weights[micro.rows.clone()]) / total, ..micro }))
}

/// Why a batch cannot be split by its loss weights.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MicroError {
    /// Micro-batches of no rows.
    #[error("micro-batches of 0 rows were asked for; a micro-batch holds at least one")]
    NoRows,
    /// A weight that is none.
    #[error("the loss weight at place {place} of the batch is {value}; it must be finite and at least 0")]
    Weight {
        /// Its place in the batch.
        place: usize,
        /// What came.
        value: f32,
    },
    /// Weights without a mean.
    #[error("all {rows} loss weights of the batch are 0, so it has no mean loss; leave the batch out")]
    NoWeight {
        /// Rows of the batch.
        rows: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_cover_the_batch_and_their_means_make_its_mean(
            batch in prop::collection::vec((-5.0f32..5.0, 0.0f32..3.0), 1..200),
            most in 1usize..70,
        ) {
            let losses: Vec<f64> = batch.iter().map(|b| f64::from(b.0)).collect();
            let weights: Vec<f32> = batch.iter().map(|b| b.1 + 0.01).collect();
            let (mut place, mut mean, mut sum) = (0, 0.0, 0.0);
            for piece in micro_batches(losses.len(), most) {
                prop_assert_eq!(piece.rows.start, place);
                prop_assert!(!piece.rows.is_empty() && piece.rows.len() <= most);
                place = piece.rows.end;
                prop_assert_eq!(piece.last, place == losses.len());
                let part = &losses[piece.rows];
                mean += piece.weight * part.iter().sum::<f64>() / part.len() as f64;
                sum += piece.weight;
            }
            prop_assert_eq!(place, losses.len());
            prop_assert!((sum - 1.0).abs() < 1e-12);
            prop_assert!((mean - losses.iter().sum::<f64>() / losses.len() as f64).abs() < 1e-12);

            let weighted = |range: Range<usize>| {
                let terms = losses[range.clone()].iter().zip(&weights[range.clone()]);
                let total: f64 = weights[range].iter().map(|w| f64::from(*w)).sum();
                terms.map(|(l, w)| l * f64::from(*w)).sum::<f64>() / total
            };
            let pieces = micro_batches_weighted(&weights, most).unwrap();
            let (mean, sum) = pieces.fold((0.0, 0.0), |(mean, sum), piece| {
                (mean + piece.weight * weighted(piece.rows), sum + piece.weight)
            });
            prop_assert!((sum - 1.0).abs() < 1e-12);
            prop_assert!((mean - weighted(0..losses.len())).abs() < 1e-12);
        }
    }

    #[test]
    fn weights_that_have_no_mean_are_refused() {
        let refused = |weights: &[f32], most| micro_batches_weighted(weights, most).err().expect("refused");
        assert_eq!(refused(&[1.0], 0), MicroError::NoRows);
        assert_eq!(refused(&[1.0, -0.5], 1), MicroError::Weight { place: 1, value: -0.5 });
        assert!(refused(&[f32::NAN], 1).to_string().contains("place 0 of the batch is NaN"));
        assert_eq!(refused(&[0.0, 0.0], 1), MicroError::NoWeight { rows: 2 });
        assert_eq!(micro_batches_weighted(&[], 3).unwrap().len(), 0);
        assert_eq!(micro_batches(0, 3).len(), 0);
        let shares: Vec<f64> =
            micro_batches_weighted(&[0.0, 0.0, 3.0], 2).unwrap().map(|m| m.weight).collect();
        assert_eq!(shares, [0.0, 1.0]);
    }
}
