//! What can go wrong, with what was expected and what to do.

use rl_minibatch::{BatchError, SampleError};

/// Why a buffer was not made, a row not stored, or a batch not drawn. The buffer is then as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A buffer of no rows.
    #[error("the capacity is 0; set `capacity` to the number of rows to keep")]
    NoCapacity,
    /// The memory cannot be had.
    #[error(
        "a buffer of {rows} rows needs {bytes} bytes, which cannot be had ({source}); lower the capacity"
    )]
    Memory {
        /// Rows asked for.
        rows: u64,
        /// Bytes that they take, or as many as can be counted.
        bytes: u128,
        /// What the system said.
        source: std::io::Error,
    },
    /// A setting is out of its range.
    #[error("{name} is {value}; it must be {expected}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What came.
        value: f64,
        /// What it may be.
        expected: &'static str,
    },
    /// A slice for each field is needed.
    #[error("a row was given as {got} columns; the schema has {expected} fields")]
    Columns {
        /// Fields of the schema.
        expected: usize,
        /// Slices given.
        got: usize,
    },
    /// A field's slice is of the wrong size.
    #[error("column '{column}' was given {got} bytes; {rows} row(s) of it take {expected}")]
    Bytes {
        /// The column.
        column: String,
        /// Rows given.
        rows: usize,
        /// Bytes that they take.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// A float is NaN or infinite.
    #[error("row {row}, column '{column}', element {element} is NaN or infinite; such a row is not stored")]
    NotFinite {
        /// The row, counted from 0 in what was given.
        row: usize,
        /// The column.
        column: String,
        /// The element, counted from 0 in that row.
        element: usize,
    },
    /// The schema is not one of transitions.
    #[error("n-step returns need the fields of `Schema::transition`; {why}")]
    NotTransition {
        /// What is different.
        why: String,
    },
    /// The buffers of a mixture hold different rows.
    #[error(
        "buffer {position} of the mixture holds other rows than buffer 0: {why}; mix buffers of one schema"
    )]
    Schemas {
        /// The buffer, counted from 0 in the order given.
        position: usize,
        /// What is different.
        why: String,
    },
    /// A buffer of a mixture gave no rows, or took no priorities.
    #[error("buffer {position} of the mixture: {source}")]
    InMixture {
        /// The buffer, counted from 0 in the order given.
        position: usize,
        /// What it said.
        source: Box<ReplayError>,
    },
    /// The sampler drew what is not there.
    #[error("the sampler {why}; it was given the live rows {start}..{end}")]
    BadDraw {
        /// What it did.
        why: String,
        /// Key of the oldest live row.
        start: u64,
        /// Key after the newest live row.
        end: u64,
    },
    /// A row that is not there, or not any more.
    #[error("row {key} is not live; the live rows are {start}..{end}")]
    NotLive {
        /// The key asked for.
        key: u64,
        /// Key of the oldest live row.
        start: u64,
        /// Key after the newest live row.
        end: u64,
    },
    /// Nothing could be drawn, or a priority not be stored.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// The rows do not go into the batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
}
