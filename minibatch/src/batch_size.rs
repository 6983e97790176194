//! How many rows a batch has.

use std::sync::Arc;

/// How many rows a batch has: a policy, asked before each batch. Over all ranks together.
#[derive(Clone, Debug, PartialEq)]
pub enum BatchSize {
    /// Always as many. 1 is stochastic gradient descent in its first sense.
    Fixed(usize),
    /// All rows there are: full-batch descent.
    Full,
    /// By step: pairs of a step and the size from that step on. The first is for step 0.
    Steps(Vec<(u64, usize)>),
    /// By epoch: pairs of an epoch and the size from that epoch on. The first is for epoch 0. See [`growing`](Self::growing).
    Epochs(Vec<(u64, usize)>),
    /// By what rows take, for rows of unequal length.
    Budget(Budget),
}

impl BatchSize {
    /// A batch that grows as training goes: `first` rows, and `factor` times as many from each of `epochs` on, `most` at most.
    ///
    /// Smith, Kindermans, Ying and Le, *Don't Decay the Learning Rate, Increase the Batch Size* (ICLR 2018): where a schedule
    /// would divide the learning rate by `factor`, multiplying the batch by it leaves the noise of the gradient the same
    /// (g ≈ ε·N/B, their section 2) and takes fewer steps. Once `most` is reached, decay the learning rate.
    ///
    /// ```
    /// use rl_minibatch::BatchSize;
    /// let size = BatchSize::growing(128, 5.0, &[60, 120, 160], 5120);
    /// assert_eq!(size, BatchSize::Epochs(vec![(0, 128), (60, 640), (120, 3200), (160, 5120)]));
    /// ```
    pub fn growing(first: usize, factor: f64, epochs: &[u64], most: usize) -> Self {
        let grown =
            |times: usize| (first as f64 * factor.powi(times as i32)).round().min(most as f64) as usize;
        let later = epochs.iter().enumerate().map(|(i, epoch)| (*epoch, grown(i + 1)));
        Self::Epochs(std::iter::once((0, first)).chain(later).collect())
    }

    /// The rows asked for at `step` in `epoch`, out of `rows`; `None` under a budget, whose batches are as long as they come.
    /// O(pairs).
    pub fn rows_at(&self, step: u64, epoch: u64, rows: u64) -> Option<usize> {
        let last = |pairs: &[(u64, usize)], now: u64| {
            pairs.iter().take_while(|(from, _)| *from <= now).last().map(|(_, size)| *size)
        };
        match self {
            Self::Fixed(size) => Some(*size),
            Self::Full => Some(usize::try_from(rows).unwrap_or(usize::MAX)),
            Self::Steps(pairs) => last(pairs, step),
            Self::Epochs(pairs) => last(pairs, epoch),
            Self::Budget(_) => None,
        }
    }

    /// Refuses what gives no batch, for a data set of `rows` rows.
    pub(crate) fn check(&self, rows: u64) -> Result<(), BatchSizeError> {
        match self {
            Self::Fixed(0) => Err(BatchSizeError::NoRows),
            Self::Fixed(_) | Self::Full => Ok(()),
            Self::Steps(pairs) | Self::Epochs(pairs) => {
                if pairs.first().map(|pair| pair.0) != Some(0) {
                    return Err(BatchSizeError::NoFirst);
                }
                if let Some(pair) = pairs.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
                    return Err(BatchSizeError::Order { before: pair[0].0, after: pair[1].0 });
                }
                if pairs.iter().any(|pair| pair.1 == 0) { Err(BatchSizeError::NoRows) } else { Ok(()) }
            }
            Self::Budget(budget) => budget.check(rows),
        }
    }
}

/// A bound on what the rows of a batch take together, for rows of unequal length: tokens, frames or bytes, whatever the
/// lengths count. Used with a sampler that puts rows of like length next to each other little of it is padding.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    lengths: Arc<[u32]>,
    most: u64,
    padded: bool,
    most_rows: usize,
}

impl Budget {
    /// Batches whose rows' lengths sum to at most `most`; `lengths` has one for each row of the data set. That is the cost of
    /// rows laid end to end (packed sequences, graphs).
    pub fn sum(lengths: impl Into<Arc<[u32]>>, most: u64) -> Self {
        Self { lengths: lengths.into(), most, padded: false, most_rows: usize::MAX }
    }

    /// Batches of which rows × longest row is at most `most`. That is the cost of rows padded to the longest.
    pub fn padded(lengths: impl Into<Arc<[u32]>>, most: u64) -> Self {
        Self { padded: true, ..Self::sum(lengths, most) }
    }

    /// Also bounds the number of rows.
    pub fn at_most_rows(self, rows: usize) -> Self {
        Self { most_rows: rows, ..self }
    }

    fn check(&self, rows: u64) -> Result<(), BatchSizeError> {
        if self.lengths.len() as u64 != rows {
            return Err(BatchSizeError::Lengths { lengths: self.lengths.len(), rows });
        }
        if self.most_rows == 0 {
            return Err(BatchSizeError::NoRows);
        }
        match self.lengths.iter().position(|length| u64::from(*length) > self.most) {
            Some(row) => Err(BatchSizeError::TooLong { row, length: self.lengths[row], budget: self.most }),
            None => Ok(()),
        }
    }
}

/// What a batch under a budget holds so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filled {
    rows: usize,
    sum: u64,
    longest: u64,
}

impl Filled {
    /// Takes `row` in if it fits.
    pub(crate) fn take(&mut self, budget: &Budget, row: u64) -> bool {
        let length = u64::from(budget.lengths[row as usize]);
        let with = Self { rows: self.rows + 1, sum: self.sum + length, longest: self.longest.max(length) };
        let cost = if budget.padded { with.longest.saturating_mul(with.rows as u64) } else { with.sum };
        let fits = cost <= budget.most && with.rows <= budget.most_rows;
        if fits {
            *self = with;
        }
        fits
    }
}

/// Why a batch-size policy was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchSizeError {
    /// Batches of no rows.
    #[error("batches of 0 rows were asked for; a batch holds at least one")]
    NoRows,
    /// A schedule without a beginning.
    #[error("the schedule of batch sizes says nothing about step or epoch 0; begin it with (0, size)")]
    NoFirst,
    /// A schedule out of order.
    #[error("the schedule of batch sizes has {after} after {before}; give steps or epochs in rising order")]
    Order {
        /// The step or epoch that comes first.
        before: u64,
        /// The one behind it.
        after: u64,
    },
    /// Lengths for another data set.
    #[error("{lengths} lengths were given for {rows} rows; a budget needs the length of each row")]
    Lengths {
        /// Lengths given.
        lengths: usize,
        /// Rows of the data set.
        rows: u64,
    },
    /// A row that fits into no batch.
    #[error(
        "row {row} has length {length}, more than the budget of {budget} a batch; raise the budget, or cut or drop the row"
    )]
    TooLong {
        /// The row.
        row: usize,
        /// Its length.
        length: u32,
        /// The budget.
        budget: u64,
    },
}
