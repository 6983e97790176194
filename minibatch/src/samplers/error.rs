//! Why a sampler was not made.

/// What a sampler cannot be made of.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SamplerError {
    /// There are no rows.
    #[error("a sampler needs at least one row; the data set is empty")]
    Empty,
    /// More rows than the sampler can number.
    #[error("{rows} rows are more than this sampler can number, which is {most}; split the data set")]
    TooManyRows {
        /// Rows given.
        rows: u64,
        /// The most there may be.
        most: u64,
    },
    /// A number that must be at least 1 is 0.
    #[error("{name} is 0; it must be at least 1")]
    Zero {
        /// What is 0.
        name: &'static str,
    },
    /// A weight is no weight.
    #[error("the weight of row {row} is {value}; it must be finite and at least 0")]
    Weight {
        /// The row.
        row: u64,
        /// Its weight.
        value: f64,
    },
    /// All weights are 0.
    #[error("all {rows} weights are 0, so no row can be drawn; give at least one a weight above 0")]
    NoWeight {
        /// Rows given.
        rows: u64,
    },
    /// More different rows than have a weight above 0.
    #[error(
        "{asked} different rows an epoch were asked for, and {rows} have a weight above 0; ask for fewer"
    )]
    TooFew {
        /// Rows asked for.
        asked: u64,
        /// Rows with a weight above 0.
        rows: u64,
    },
    /// A label names no class.
    #[error("the label of row {row} is {label}; with {classes} classes it must be below {classes}")]
    Label {
        /// The row.
        row: u64,
        /// Its label.
        label: u32,
        /// The number of classes.
        classes: usize,
    },
    /// A class that is to be drawn has no rows.
    #[error(
        "class {class} has no row, so it cannot be drawn as often as the others; number the classes without it"
    )]
    EmptyClass {
        /// The class.
        class: usize,
    },
    /// Too few rows are put in the order of their lengths.
    #[error("a pool of {pool} rows is smaller than a batch of {batch}; 50 to 100 batches are usual")]
    Pool {
        /// Rows of a pool.
        pool: usize,
        /// Rows of a batch.
        batch: usize,
    },
}
