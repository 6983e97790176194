//! What can be wrong with a file, with what was expected and what to do.

use super::Stored;
use crate::{Dtype, ReplayError};

/// Why data was not imported or exported. After a failed import the buffer is as it was; a failed export leaves no
/// file, and an older one of that name as it was.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The system refused to read or write.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not what its format asks for.
    #[error("{file} cannot be read: {why}; fetch it or write it anew")]
    Damaged {
        /// The file.
        file: String,
        /// What was expected, and what is there.
        why: String,
    },
    /// The file is well, but has something that is not read or written here.
    #[error("{file}: {what}")]
    Unsupported {
        /// The file.
        file: String,
        /// What it is, and what to do instead.
        what: String,
    },
    /// A column is missing.
    #[error("{file} has no '{name}'; it has {there:?}")]
    NoColumn {
        /// The file.
        file: String,
        /// The column that was wanted.
        name: String,
        /// Those that can be read.
        there: Vec<String>,
    },
    /// Rows of a column have another shape.
    #[error(
        "{file}: rows of '{column}' have the shape {found:?}, where the buffer has {expected:?}; make the buffer's schema from the file, or reshape the column"
    )]
    Shape {
        /// The file.
        file: String,
        /// The column.
        column: String,
        /// The shape of a row in the buffer.
        expected: Vec<usize>,
        /// The one in the file.
        found: Vec<usize>,
    },
    /// A column's type is not converted.
    #[error(
        "{file}: '{column}' holds {found}, which {expected} cannot hold without loss; ask for `Cast::Round`, or give the buffer another type"
    )]
    Type {
        /// The file.
        file: String,
        /// The column.
        column: String,
        /// The element type in the buffer.
        expected: Dtype,
        /// The one in the file.
        found: Stored,
    },
    /// A value has no counterpart in the buffer's type.
    #[error(
        "{file}: row {row} of '{column}', element {element}, has a value that {expected} does not; give the buffer another type"
    )]
    Value {
        /// The file.
        file: String,
        /// The column.
        column: String,
        /// The row, counted from 0.
        row: u64,
        /// The element, counted from 0 in that row.
        element: usize,
        /// The element type in the buffer.
        expected: Dtype,
    },
    /// Columns that belong together differ in length.
    #[error("{file}: '{column}' has {found} rows, where {expected} were expected")]
    Rows {
        /// The file.
        file: String,
        /// The column.
        column: String,
        /// Rows that it should have.
        expected: u64,
        /// Rows that it has.
        found: u64,
    },
    /// A float is NaN or infinite.
    #[error(
        "{file}: row {row} of '{column}', element {element}, is NaN or infinite; leave such rows out of the file"
    )]
    NotFinite {
        /// The file.
        file: String,
        /// The column.
        column: String,
        /// The row, counted from 0.
        row: u64,
        /// The element, counted from 0 in that row.
        element: usize,
    },
    /// Steps were given to an [`NStep`](crate::NStep) in the middle of an episode.
    #[error("the NStep holds {steps} open steps of another episode; end that episode, or call its `clear`")]
    OpenSteps {
        /// Steps that wait for their n-th successor.
        steps: usize,
    },
    /// The buffer does not take such rows, or could not be read.
    #[error("{file}: {source}")]
    Replay {
        /// The file.
        file: String,
        /// What the buffer said.
        source: ReplayError,
    },
}

impl DataError {
    /// [`Damaged`](Self::Damaged), the reason on one line, whatever library it comes from.
    pub(super) fn damaged(file: impl Into<String>, why: impl std::fmt::Display) -> Self {
        let why = why.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        DataError::Damaged { file: file.into(), why }
    }
}
