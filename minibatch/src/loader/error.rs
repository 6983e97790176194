//! What goes wrong while rows are loaded, with the row's number.

use crate::{BatchError, BatchesError};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why one row cannot be read, in the words of its source.
pub type RowCause = Box<dyn std::error::Error + Send + Sync>;

/// Why a batch was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A row cannot be read.
    #[error("row {row} cannot be read: {cause}")]
    Row {
        /// The row's number.
        row: u64,
        /// What its source says.
        cause: RowCause,
    },
    /// The code that reads rows panicked.
    #[error("reading row {row} panicked: {message}")]
    Panicked {
        /// The row's number.
        row: u64,
        /// What the panic says.
        message: String,
    },
    /// The code that gathers rows or draws them panicked, and not for one row.
    #[error("loading batch {step} panicked: {message}")]
    BatchPanicked {
        /// The batch's number since training began.
        step: u64,
        /// What the panic says.
        message: String,
    },
    /// The rows of a batch cannot be collated, and it is not the fault of one of them.
    #[error("batch {step} cannot be collated: {cause}")]
    Collate {
        /// The batch's number since training began.
        step: u64,
        /// Why not.
        cause: RowCause,
    },
    /// The rows do not fit the batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// There is no next batch.
    #[error(transparent)]
    Batches(#[from] BatchesError),
    /// Batches of another data set.
    #[error(
        "the batches are of {batches} rows and the source has {source_rows}; make them for the same data set"
    )]
    Rows {
        /// Rows that batches are drawn from.
        batches: u64,
        /// Rows of the source.
        source_rows: u64,
    },
    /// No memory for a batch.
    #[error("no memory for a batch of {rows} rows: {why}")]
    Memory {
        /// Rows of the batch.
        rows: usize,
        /// What the memory's provider says.
        why: String,
    },
    /// A worker thread that does not start.
    #[error("worker thread {worker} does not start: {why}; ask for fewer workers")]
    Spawn {
        /// Its number.
        worker: usize,
        /// What the system says.
        why: String,
    },
}

/// Runs what reads `row`; errors and panics become one with the row's number.
pub(super) fn guarded(row: u64, read: impl FnOnce() -> Result<(), RowCause>) -> Result<(), LoadError> {
    // What a panic leaves half-written is a batch's memory: numbers, which the next batch overwrites.
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(cause)) => Err(LoadError::Row { row, cause }),
        Err(panic) => Err(LoadError::Panicked { row, message: message(&*panic) }),
    }
}

/// What a panic said.
pub(super) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".into())
}
