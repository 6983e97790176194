//! What can go wrong, with what was expected and what to do.

use crate::BufferFileError;
use crate::half_float::HalfFloat;
use rl_minibatch::{BatchError, Dtype, SampleError, SchemaError};

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
    /// There is less memory than the buffer may come to take.
    #[error(
        "a buffer of {rows} rows needs {bytes} bytes and {available} are available; \
         lower the capacity to at most {fits} rows"
    )]
    TooLarge {
        /// Rows asked for.
        rows: u64,
        /// Bytes that the buffer takes when it is full; see [`Builder::memory_bytes`](crate::Builder::memory_bytes).
        bytes: u128,
        /// Bytes that the system has left, or the limit of this process's group.
        available: u64,
        /// The largest capacity that fits, with the other settings as they are.
        fits: u64,
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
    /// A column cannot be held as [`Builder::store`](crate::Builder::store) was told.
    #[error("column '{column}' cannot be stored as {dtype}: {why}")]
    Store {
        /// The column.
        column: String,
        /// The type asked for.
        dtype: Dtype,
        /// What is wrong, and what to do.
        why: String,
    },
    /// A float is too large for the type that its column is held as; see [`Builder::store`](crate::Builder::store).
    #[error(
        "row {row}, column '{column}', element {element} is {value:?}, which does not fit into {dtype} (at most {:?}); {}",
        largest(*dtype), remedy(*dtype)
    )]
    OutOfRange {
        /// The row, counted from 0 in what was given.
        row: usize,
        /// The column.
        column: String,
        /// The element, counted from 0 in that row.
        element: usize,
        /// What came.
        value: f32,
        /// What the column is held as.
        dtype: Dtype,
    },
    /// The struct is a row of another schema.
    #[error("the row does not go into this buffer: {why}; build the buffer with the row's own `schema()`")]
    OtherRow {
        /// What is different.
        why: String,
    },
    /// The schema is not one of transitions.
    #[error("n-step returns need the fields of `Schema::transition`; {why}")]
    NotTransition {
        /// What is different.
        why: String,
    },
    /// The schema does not go with sequences.
    #[error("sequences of steps: {why}")]
    NotSequence {
        /// What is wrong, and what to do.
        why: String,
    },
    /// Rows do not tell where in their episode they are.
    #[error("whole episodes: {why}")]
    NotEpisodes {
        /// What is wrong, and what to do.
        why: String,
    },
    /// An episode might not go in at once.
    #[error(
        "episodes of up to {max_steps} steps have to be stored in one piece, and this buffer takes {room} rows at once; \
         build it with a `reserve` and a `capacity` of at least {max_steps}, or lower max_steps"
    )]
    EpisodeRoom {
        /// The longest episode, in steps.
        max_steps: usize,
        /// Rows that the buffer takes at once: its reserve, or its capacity if that is less.
        room: usize,
    },
    /// No whole episode can be drawn.
    #[error("no episode is live as a whole; store more of them first, or use a larger capacity")]
    NoEpisode,
    /// No window can be drawn.
    #[error("no episode is live over {length} consecutive steps; store longer ones, or draw shorter windows")]
    NoWindow {
        /// Steps of the window asked for.
        length: usize,
    },
    /// An episode does not go into a batch.
    #[error(
        "the episode at row {start} has {steps} steps, and the batch has {length} for each; make them more"
    )]
    EpisodeTooLong {
        /// Key of its first row.
        start: u64,
        /// Its steps.
        steps: usize,
        /// Steps that the batch has for each episode.
        length: usize,
    },
    /// The rate limiter does not allow a call now, and it was not to wait.
    #[error("{call} {rows} row(s) is not allowed by the rate limiter now: {why}")]
    Limited {
        /// "inserting" or "drawing".
        call: &'static str,
        /// Rows of the call.
        rows: usize,
        /// What is missing.
        why: String,
    },
    /// The rate limiter did not allow a call in time.
    #[error("{call} {rows} row(s) was not allowed by the rate limiter within {limit:?}: {why}")]
    TimedOut {
        /// "inserting" or "drawing".
        call: &'static str,
        /// Rows of the call.
        rows: usize,
        /// How long it was to wait.
        limit: std::time::Duration,
        /// What is missing.
        why: String,
    },
    /// The buffer was closed.
    #[error("{call} is over: the buffer was closed by `close`")]
    Closed {
        /// "inserting" or "drawing".
        call: &'static str,
    },
    /// A call would wait for the rate limiter for ever: nobody is left who could let it go on.
    #[error(
        "{call} {rows} row(s) would wait for ever, for every other handle to the buffer is gone or waits too: {why}"
    )]
    Abandoned {
        /// "inserting" or "drawing".
        call: &'static str,
        /// Rows of the call.
        rows: usize,
        /// What is missing.
        why: String,
    },
    /// A call is larger than the rate limiter can ever allow.
    #[error(
        "{call} {rows} rows at once can never be allowed by the rate limiter, which takes at most {most}; \
         ask for fewer, or raise error_buffer"
    )]
    LimiterRows {
        /// "inserting" or "drawing".
        call: &'static str,
        /// Rows of the call.
        rows: usize,
        /// The most rows of one call.
        most: u64,
    },
    /// A step came between episodes.
    #[error("a step came where an episode has to begin; call `begin` with its first observation")]
    NotBegun,
    /// The fields do not make a row.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The rows would expire before a batch is full.
    #[error(
        "{asked} draws were asked for and the rows have {left} left until they expire (a full buffer has {most}); \
         insert first, or ask for fewer"
    )]
    DrawsLeft {
        /// Draws asked for.
        asked: usize,
        /// Draws that the rows have left.
        left: u64,
        /// Draws that as many new rows as the capacity have.
        most: u64,
    },
    /// A stream of frames was used out of turn.
    #[error("stream of frames: {why}")]
    NotFrames {
        /// What is wrong, and what to do.
        why: String,
    },
    /// Goals cannot be relabelled.
    #[error("hindsight relabelling: {why}")]
    Hindsight {
        /// What is wrong, and what to do.
        why: String,
    },
    /// A slice has the wrong number of elements.
    #[error("{what} has {got} elements, where {expected} go with the other slices")]
    Elements {
        /// The slice.
        what: &'static str,
        /// Elements that it should have.
        expected: usize,
        /// Elements given.
        got: usize,
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
    /// The buffer's file cannot be used.
    #[error(transparent)]
    File(#[from] BufferFileError),
}

fn largest(dtype: Dtype) -> f32 {
    HalfFloat::of(dtype).map_or(f32::MAX, HalfFloat::largest)
}

fn remedy(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F16 => "store the column as Bf16, or scale it",
        _ => "leave out `store` for the column, or scale it",
    }
}
