//! The rows of one batch, before anything is loaded.

use crate::{Micro, micro_batches};

/// What one batch is made of: row numbers, what of them is padding, and where in the training it stands.
///
/// [`Batches::next`](crate::Batches::next) fills it; used again it allocates nothing in the steady state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Row numbers of this rank's part of the batch, in order; padding comes last.
    pub rows: Vec<u64>,
    /// The probability with which each of [`rows`](Self::rows) was drawn, as [`Drawn`](crate::Drawn) has it. Importance
    /// weights are made of it.
    pub probabilities: Vec<f64>,
    /// For each row the pass over the data that it belongs to: its epoch, or, of a sampler without epochs, the step. A row's
    /// augmentation is seeded with it, so that it differs from pass to pass and on nothing else.
    pub passes: Vec<u64>,
    /// How many of the rows count; those behind are padding ([`LastBatch::Pad`](crate::LastBatch::Pad)).
    pub real: usize,
    /// Rows of the whole batch that count, over all ranks.
    pub total: usize,
    /// Number of rows that could have been drawn (N), as [`Drawn`](crate::Drawn) has it.
    pub population: u64,
    /// The epoch in which the batch begins, from 0; always 0 with a sampler that has no epochs.
    pub epoch: u64,
    /// The batch's number in that epoch, from 0.
    pub batch: u64,
    /// The batch's number since training began, from 0.
    pub step: u64,
    /// Whether no batch of this epoch comes after it.
    pub ends_epoch: bool,
    /// Rows of the epoch that have been drawn, this batch included, over all ranks.
    pub epoch_drawn: u64,
    /// Rows that the epoch has; `None` with a sampler that has no epochs.
    pub epoch_rows: Option<u64>,
}

impl Plan {
    /// A plan without rows, to be filled.
    pub fn new() -> Self {
        Self::default()
    }

    /// This rank's share of the batch: its rows that count over those of all ranks. With ranks whose parts are of unequal
    /// size, the sum over ranks of share × gradient of the rank's mean loss is the gradient of the batch's mean loss.
    pub fn share(&self) -> f64 {
        if self.total == 0 { 0.0 } else { self.real as f64 / self.total as f64 }
    }

    /// Writes the mask, 1 for a row that counts and 0 for padding, over `out`. As loss weights it takes padding out of a
    /// mean that is divided by the sum of the weights.
    ///
    /// # Panics
    /// When `out` has another length than [`rows`](Self::rows).
    pub fn mask_into(&self, out: &mut [f32]) {
        assert_eq!(out.len(), self.rows.len(), "one place for each row of the plan");
        out[..self.real].fill(1.0);
        out[self.real..].fill(0.0);
    }

    /// The batch in pieces of at most `most` rows, for gradient accumulation: see [`micro_batches`]. Padding is in none.
    ///
    /// # Panics
    /// When `most` is 0.
    pub fn micro_batches(&self, most: usize) -> impl ExactSizeIterator<Item = Micro> + use<> {
        micro_batches(self.real, most)
    }

    pub(crate) fn clear(&mut self) {
        let Self { rows, probabilities, passes, .. } = self;
        rows.clear();
        probabilities.clear();
        passes.clear();
        *self = Self {
            rows: std::mem::take(rows),
            probabilities: std::mem::take(probabilities),
            passes: std::mem::take(passes),
            ..Self::default()
        };
    }
}
