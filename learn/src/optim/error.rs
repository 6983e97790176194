//! Why there is no such optimizer.

use crate::shim::ShimError;

/// Why an optimizer was not made, or a setting of it not changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OptimizerError {
    /// Nothing to train.
    #[error("an optimizer needs a parameter; the groups have none")]
    NoParameters,
    /// A group's number that is out of range.
    #[error("{name} of parameter group {index} is {value}; it must be finite and at least 0")]
    Group {
        /// Which group.
        index: usize,
        /// Which of its numbers.
        name: &'static str,
        /// What came.
        value: f64,
    },
    /// A group that is not there.
    #[error("there is no parameter group {index}; the optimizer has {count}, numbered from 0")]
    NoGroup {
        /// Which was asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// A momentum that is none.
    #[error("a momentum (β₁ of Adam, AdamW and LAMB) is {value}; it must lie above 0 and below 1")]
    Momentum {
        /// What came.
        value: f64,
    },
    /// An optimizer that keeps no momentum.
    #[error(
        "this optimizer was made without momentum and keeps none; configure one above 0 to change it in training"
    )]
    NoMomentum,
    /// Parameters that no kernel takes: a view with gaps.
    #[error("the optimizer cannot take these parameters: {0}")]
    Kernel(#[from] ShimError),
}
