//! How sequences are padded.

use super::CollateError;
use super::ragged::{Kinds, element_bytes};
use crate::{Dtype, Element};

/// The order of the two leading dimensions of a padded column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SequenceLayout {
    /// `[B, T, ...]`: PyTorch's `batch_first=True`. A row's steps lie together.
    #[default]
    BatchFirst,
    /// `[T, B, ...]`: what PyTorch's LSTM and GRU take by default. A step of all rows lies together.
    SequenceFirst,
}

/// What becomes of rows that are long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Truncate {
    /// Rows of any length are taken whole.
    #[default]
    Whole,
    /// At most this many steps, the first ones.
    KeepFirst(usize),
    /// At most this many steps, the last ones: for a forecast, what came just before.
    KeepLast(usize),
    /// A row of more steps than this is an error, [`CollateError::TooLong`].
    Refuse(usize),
}

/// How [`RaggedTable::pad_into`](super::RaggedTable::pad_into) pads: layout, the number of steps, truncation, pad values.
///
/// The steps of a batch along an axis are T = ⌈max(longest row after truncation, [`at_least`](Self::at_least)) / m⌉ · m with
/// m = [`multiple_of`](Self::multiple_of).
#[derive(Clone, Debug)]
pub struct PadOptions {
    pub(super) layout: SequenceLayout,
    multiple: usize,
    at_least: usize,
    truncate: Truncate,
    truncate_axis: Vec<(String, Truncate)>,
    values: Vec<(String, Dtype, [u8; 8])>,
}

impl Default for PadOptions {
    fn default() -> Self {
        Self {
            layout: SequenceLayout::BatchFirst,
            multiple: 1,
            at_least: 0,
            truncate: Truncate::Whole,
            truncate_axis: Vec::new(),
            values: Vec::new(),
        }
    }
}

impl PadOptions {
    /// Batch first, to the longest row of the batch, nothing truncated, padded with zeros.
    pub fn new() -> Self {
        Self::default()
    }

    /// The order of the leading dimensions.
    pub fn layout(mut self, layout: SequenceLayout) -> Self {
        self.layout = layout;
        self
    }

    /// Rounds T up to a multiple of `steps`. Matrix products on tensor cores want dimensions that are multiples of 8 in half
    /// precision (NVIDIA, "Matrix Multiplication Background User's Guide"), and fewer different shapes are compiled and cached.
    pub fn multiple_of(mut self, steps: usize) -> Self {
        self.multiple = steps;
        self
    }

    /// T is never below `steps`. With [`Truncate::KeepFirst`] of as many, every batch has the same shape.
    pub fn at_least(mut self, steps: usize) -> Self {
        self.at_least = steps;
        self
    }

    /// What becomes of long rows, on every axis that [`truncate_axis`](Self::truncate_axis) does not name.
    pub fn truncate(mut self, truncate: Truncate) -> Self {
        self.truncate = truncate;
        self
    }

    /// What becomes of long rows along one axis. The last call for an axis counts.
    pub fn truncate_axis(mut self, axis: impl Into<String>, truncate: Truncate) -> Self {
        self.truncate_axis.push((axis.into(), truncate));
        self
    }

    /// The value of every element of `column` beyond a row's end, 0 if it is not said; for a bool column 0u8 or 1u8. The last
    /// call for a column counts.
    pub fn value<T: Element>(mut self, column: impl Into<String>, value: T) -> Self {
        let (dtype, bytes) = element_bytes(value);
        self.values.push((column.into(), dtype, bytes));
        self
    }

    /// T for a batch whose longest row has `longest` steps; `None` where it cannot be counted.
    pub(super) fn steps(&self, longest: usize) -> Option<usize> {
        longest.max(self.at_least).checked_next_multiple_of(self.multiple)
    }

    /// The truncation of each axis and the pad value of each column, checked.
    pub(super) fn resolve(&self, kinds: &Kinds) -> Result<(Vec<Truncate>, Vec<[u8; 8]>), CollateError> {
        if self.multiple == 0 {
            return Err(CollateError::Multiple);
        }
        let mut truncate = vec![self.truncate; kinds.axes.len()];
        for (axis, rule) in &self.truncate_axis {
            truncate[kinds.axis(axis)?] = *rule;
        }
        let fields = kinds.schema.fields();
        let mut values = vec![[0; 8]; fields.len()];
        for (name, got, bytes) in &self.values {
            let column = || name.clone();
            let position =
                kinds.schema.position(name).ok_or_else(|| crate::BatchError::NoColumn { name: column() })?;
            let expected = fields[position].dtype;
            if kinds.axis_of[position].is_none() {
                return Err(CollateError::NotRagged { column: column() });
            }
            if expected == Dtype::Bool && *got == Dtype::U8 {
                if bytes[0] > 1 {
                    return Err(CollateError::PadBool { column: column(), got: bytes[0] });
                }
            } else if expected != *got {
                return Err(CollateError::PadDtype { column: column(), expected, got: *got });
            }
            values[position] = *bytes;
        }
        Ok((truncate, values))
    }
}
