//! What can be wrong with rows that are to be stacked, padded or packed.

use crate::{BatchError, Dtype, SchemaError};

/// Why rows were not collated, or a ragged table not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CollateError {
    /// The columns make no schema.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// A batch does not fit, or a column cannot be read.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A row to stack has another number of columns.
    #[error("row {position} has {got} columns; the schema has {expected}")]
    RowColumns {
        /// The row's place in the batch.
        position: usize,
        /// Fields of the schema.
        expected: usize,
        /// Slices given.
        got: usize,
    },
    /// A row to stack has a column of another size.
    #[error("row {position} has {got} bytes in column '{column}', where the schema has {expected}")]
    RowBytes {
        /// The row's place in the batch.
        position: usize,
        /// The column.
        column: String,
        /// Bytes that the schema says.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// An axis has not one offset more than there are rows.
    #[error("axis '{axis}' has {got} offsets; {rows} rows need one more than rows")]
    OffsetsCount {
        /// The axis.
        axis: String,
        /// Rows of the table.
        rows: usize,
        /// Offsets given.
        got: usize,
    },
    /// The offsets of an axis do not begin at 0.
    #[error("the offsets of axis '{axis}' begin with {got}; they must begin with 0")]
    OffsetsStart {
        /// The axis.
        axis: String,
        /// The first offset.
        got: u64,
    },
    /// The offsets of an axis fall.
    #[error(
        "the offsets of axis '{axis}' fall from {previous} to {got} at position {position}; each must be at least the one before"
    )]
    Offsets {
        /// The axis.
        axis: String,
        /// The position of the offset that is smaller than the one before it.
        position: usize,
        /// The offset before it.
        previous: u64,
        /// The offset.
        got: u64,
    },
    /// The values of a column do not fill its rows.
    #[error(
        "column '{column}' has {got} bytes of values; its {steps} steps of {step_bytes} bytes take {expected}"
    )]
    Values {
        /// The column.
        column: String,
        /// Steps of all rows together, or rows for a fixed column.
        steps: u64,
        /// Bytes of one step, or of one row of a fixed column.
        step_bytes: usize,
        /// Bytes that they take.
        expected: u64,
        /// Bytes given.
        got: usize,
    },
    /// Two axes have one name.
    #[error("two axes are called '{axis}'; give each a name of its own")]
    RepeatedAxis {
        /// The name.
        axis: String,
    },
    /// No axis of that name.
    #[error("there is no axis '{axis}'; there are {known:?}")]
    NoAxis {
        /// The name asked for.
        axis: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// A row that the table does not have.
    #[error("row {row} was asked for as number {position} of the batch; the table has {rows}")]
    NoRow {
        /// Its place in the batch.
        position: usize,
        /// The row.
        row: u64,
        /// Rows of the table.
        rows: usize,
    },
    /// A row is longer than allowed.
    #[error(
        "row {row} (number {position} of the batch) has {length} steps on axis '{axis}' and at most {limit} are allowed; \
         truncate with Truncate::KeepFirst or KeepLast, or raise the limit"
    )]
    TooLong {
        /// The axis.
        axis: String,
        /// Its place in the batch.
        position: usize,
        /// The row.
        row: u64,
        /// Its steps.
        length: u64,
        /// Steps allowed.
        limit: usize,
    },
    /// A length cannot be rounded up to a multiple of 0.
    #[error("lengths cannot be rounded up to a multiple of 0; use 1 for no rounding")]
    Multiple,
    /// A pad value has another element type than its column.
    #[error("the pad value of column '{column}' is {got}; the column holds {expected}")]
    PadDtype {
        /// The column.
        column: String,
        /// Its element type.
        expected: Dtype,
        /// That of the pad value.
        got: Dtype,
    },
    /// A pad value of a boolean column is neither 0 nor 1.
    #[error("the pad value of the bool column '{column}' is {got}; it must be 0 or 1")]
    PadBool {
        /// The column.
        column: String,
        /// The value.
        got: u8,
    },
    /// A pad value was given for a column whose rows all have one shape.
    #[error("column '{column}' is not ragged, so nothing of it is padded; drop its pad value")]
    NotRagged {
        /// The column.
        column: String,
    },
    /// The output was made for a table with other columns.
    #[error("the output was made for a table with other columns or axes; make one for this table")]
    OtherTable,
    /// A batch is larger than any memory.
    #[error("{rows} rows padded to {steps} steps in '{name}' are larger than any memory")]
    TooLarge {
        /// The column, or the axis whose mask it is.
        name: String,
        /// Rows of the batch.
        rows: usize,
        /// Steps of the padded batch.
        steps: usize,
    },
    /// Nothing can be packed.
    #[error("a packed batch needs at least one sequence")]
    NoSequences,
    /// A sequence without steps cannot be packed.
    #[error(
        "sequence {position} of the batch has length {length}; a packed sequence needs at least one step"
    )]
    EmptySequence {
        /// Its place in the batch.
        position: usize,
        /// Its length.
        length: i64,
    },
    /// A slice does not have the size that its shape says.
    #[error(
        "{what} has {got} elements; {expected} are needed for {sequences} sequences, {steps} steps and {step} elements a step"
    )]
    Elements {
        /// Which slice.
        what: &'static str,
        /// Elements needed.
        expected: usize,
        /// Elements given.
        got: usize,
        /// Sequences.
        sequences: usize,
        /// Steps (of all sequences together where they are packed).
        steps: usize,
        /// Elements of one step.
        step: usize,
    },
    /// Padded steps are fewer than the longest sequence has.
    #[error("{steps} steps are too few for the longest sequence, which has {longest}")]
    Steps {
        /// Steps of the padded form.
        steps: usize,
        /// Steps of the longest sequence.
        longest: usize,
    },
}

impl CollateError {
    /// The place in the batch of the row that is at fault, where it is one row's.
    pub fn position(&self) -> Option<usize> {
        match self {
            Self::RowColumns { position, .. }
            | Self::RowBytes { position, .. }
            | Self::NoRow { position, .. }
            | Self::TooLong { position, .. }
            | Self::EmptySequence { position, .. } => Some(*position),
            _ => None,
        }
    }
}
