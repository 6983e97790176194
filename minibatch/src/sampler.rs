//! Which rows come next, and with what probability.

use crate::{Rng, StateError, StateVisitor};
use std::ops::Range;

/// Rows that a sampler drew, with the probability of each draw.
///
/// Reused from batch to batch, so that drawing allocates nothing in the steady state.
#[derive(Clone, Debug, Default)]
pub struct Drawn {
    /// Row numbers. In a replay buffer these are keys: insertion serials, which never repeat.
    pub rows: Vec<u64>,
    /// The probability with which each of `rows` was drawn; for a uniform draw 1/N.
    ///
    /// Where the rows of a batch are not drawn independently of each other (in strata, without replacement, the newest
    /// always among them), it is the row's expected share of the batch: how often it comes into a batch on average,
    /// divided by the batch's size. For independent draws the two are the same.
    pub probabilities: Vec<f64>,
    /// N, the number of rows that could have been drawn.
    pub population: u64,
    /// The smallest probability that any of the N rows had, drawn or not; `None` from a sampler that does not know it.
    pub lowest: Option<f64>,
}

/// Chooses rows. It knows row numbers and never data, so it serves fixed tables and rings alike.
pub trait Sampler: Send {
    /// Draws `count` rows out of `live` (0..N for a fixed table, the keys still stored for a ring) into `drawn`,
    /// replacing everything it held.
    ///
    /// `live` may be narrower than what the sampler was told of as inserted: the caller may have looked at the ring a
    /// moment ago, or keep some rows for itself. Rows outside of it are not drawn, and the probabilities are those among
    /// the rows in it. A sampler made for a fixed set of N rows wants the same N rows each time; they need not begin at 0,
    /// so that a part of a table can be drawn from.
    ///
    /// A sampler with an [`epoch`](Self::epoch) gives fewer rows at the end of one, and never none: the draw after the last
    /// row begins the next epoch.
    ///
    /// # Errors
    /// [`SampleError::Empty`] when `live` is empty, [`SampleError::NoMass`] when every row in it has priority 0,
    /// [`SampleError::TooFew`] when it has not as many rows as must be different, [`SampleError::Rows`] from a sampler
    /// made for a fixed set when there are more or fewer. `drawn`, `rng` and the sampler are then
    /// left as they were.
    fn draw(
        &mut self,
        rng: &mut Rng,
        live: Range<u64>,
        count: usize,
        drawn: &mut Drawn,
    ) -> Result<(), SampleError>;

    /// The priorities this sampler draws by; `None` for one that has none.
    fn priorities(&mut self) -> Option<&mut dyn Priorities>;

    /// Where the sampler is in its epoch; `None` from one that has no epochs, because it draws with replacement or from
    /// rows that come and go.
    fn epoch(&self) -> Option<Epoch> {
        None
    }

    /// Bytes that the sampler takes, or comes to take as rows are inserted, so that a buffer can be refused before its
    /// memory is taken. 0 unless it says otherwise, for one whose memory does not grow with the rows.
    fn memory_bytes(&self) -> u64 {
        0
    }

    /// Shows every piece of the sampler's state to `visitor`: what it keeps of the rows in `live` in the order of their
    /// numbers, and nothing of others, so that what was saved also fits a ring of another capacity.
    ///
    /// # Errors
    /// Those of the visitor.
    fn visit(&mut self, live: Range<u64>, visitor: &mut dyn StateVisitor) -> Result<(), StateError>;
}

/// How far a sampler has come in going through its rows.
///
/// A draw gives fewer rows than asked for at the end of an epoch only. Then `drawn` is `rows`, until the draw after it
/// begins the next epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epoch {
    /// The epochs that were gone through before this one: 0 for the first.
    pub number: u64,
    /// Rows drawn in this epoch so far.
    pub drawn: u64,
    /// Rows of a whole epoch.
    pub rows: u64,
}

/// Priorities of rows, kept by a sampler.
pub trait Priorities {
    /// Tells of rows that are new: each gets the largest priority seen so far, so that it is drawn soon.
    fn inserted(&mut self, rows: Range<u64>);

    /// Sets the priorities of `rows` from magnitudes such as |δ|. Of a row that comes more than once the last wins. Rows not
    /// in `live` any more are dropped and counted.
    ///
    /// # Errors
    /// [`SampleError::Priority`] when a magnitude is negative, NaN or infinite, and [`SampleError::Lengths`] when the slices
    /// differ in length; nothing has changed then.
    fn update(&mut self, live: Range<u64>, rows: &[u64], magnitudes: &[f32]) -> Result<Updated, SampleError>;
}

/// Checks what [`Priorities::update`] has to refuse, before it changes anything. O(rows).
///
/// # Errors
/// [`SampleError::Lengths`], and [`SampleError::Priority`] for the first magnitude that is negative, NaN or infinite.
pub fn check_magnitudes(rows: &[u64], magnitudes: &[f32]) -> Result<(), SampleError> {
    if rows.len() != magnitudes.len() {
        return Err(SampleError::Lengths { rows: rows.len(), magnitudes: magnitudes.len() });
    }
    let bad = |value: &f32| !(value.is_finite() && *value >= 0.0);
    match magnitudes.iter().position(bad) {
        Some(position) => {
            Err(SampleError::Priority { row: rows[position], position, value: magnitudes[position] })
        }
        None => Ok(()),
    }
}

/// What became of a batch of new priorities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Updated {
    /// Priorities stored.
    pub applied: usize,
    /// Priorities dropped, because their row had been overwritten.
    pub stale: usize,
}

/// Why no batch was drawn, or no priority stored.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SampleError {
    /// There is nothing to draw from.
    #[error("there is no row to draw from; insert first")]
    Empty,
    /// There are rows, and none that can be drawn.
    #[error("every row has priority 0, so none can be drawn; use an epsilon above 0")]
    NoMass,
    /// A batch of different rows is larger than what there is.
    #[error(
        "{asked} different rows were asked for and there are {rows}; insert more, ask for fewer, or draw with replacement"
    )]
    TooFew {
        /// Rows asked for.
        asked: usize,
        /// Rows there are.
        rows: u64,
    },
    /// The rows are not those that the sampler was made for.
    #[error(
        "the sampler was made for {expected} rows and is to draw from {found}; make one for this data set"
    )]
    Rows {
        /// Rows that the sampler was made for.
        expected: u64,
        /// Rows there are.
        found: u64,
    },
    /// A magnitude cannot be a priority.
    #[error(
        "the priority of row {row} (number {position} of the batch) is {value}; it must be finite and at least 0"
    )]
    Priority {
        /// The row's number or key.
        row: u64,
        /// Its place in the batch.
        position: usize,
        /// What came.
        value: f32,
    },
    /// Rows and magnitudes are not of one length.
    #[error("{rows} rows and {magnitudes} priorities were given; one priority a row is needed")]
    Lengths {
        /// Rows given.
        rows: usize,
        /// Magnitudes given.
        magnitudes: usize,
    },
    /// The sampler keeps no priorities.
    #[error("this sampler keeps no priorities; build the buffer with a prioritized one")]
    NoPriorities,
}
