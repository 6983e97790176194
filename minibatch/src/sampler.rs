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
    pub probabilities: Vec<f64>,
    /// N, the number of rows that could have been drawn.
    pub population: u64,
}

/// Chooses rows. It knows row numbers and never data, so it serves fixed tables and rings alike.
pub trait Sampler: Send {
    /// Draws `count` rows out of `live` (0..N for a fixed table, the keys still stored for a ring) into `drawn`,
    /// replacing what it held.
    ///
    /// # Errors
    /// [`SampleError::Empty`] when `live` is empty, [`SampleError::NoMass`] when every row in it has priority 0. `drawn` is
    /// then left as it was.
    fn draw(
        &mut self,
        rng: &mut Rng,
        live: Range<u64>,
        count: usize,
        drawn: &mut Drawn,
    ) -> Result<(), SampleError>;

    /// The priorities this sampler draws by; `None` for one that has none.
    fn priorities(&mut self) -> Option<&mut dyn Priorities>;

    /// Shows every piece of the sampler's state to `visitor`: what it keeps of the rows in `live` in the order of their
    /// numbers, and nothing of others, so that what was saved also fits a ring of another capacity.
    ///
    /// # Errors
    /// Those of the visitor.
    fn visit(&mut self, live: Range<u64>, visitor: &mut dyn StateVisitor) -> Result<(), StateError>;
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
