//! Where a batch holds the observations.

use rl_minibatch::{Batch, BatchError, Element};

/// The two observations of a row; from [`Transitions::views`](crate::Transitions::views).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObsViews {
    /// The observations that were acted on.
    pub obs: ObsView,
    /// Those that followed.
    pub next_obs: ObsView,
}

/// A part of a column: obs or next_obs of a batch of transitions, without a copy.
///
/// The column of field `field` is a tensor of shape `[rows, of, obs...]`. The observation is its part `start..start + len`
/// in dimension 1, of shape `[rows, k, obs...]` with the oldest frame first; k = `len` is 1 where frames are not stacked:
///
/// | | stored | derived, k = 1 | derived, k = 4, one step | derived, k = 4, n steps |
/// |---|---|---|---|---|
/// | obs | field 0, 0..1 of 1 | field 0, 0..1 of 2 | field 0, 0..4 of 5 | field 0, 0..4 of 8 |
/// | next_obs | field 4, 0..1 of 1 | field 0, 1..2 of 2 | field 0, 1..5 of 5 | field 0, 4..8 of 8 |
///
/// A tensor library makes a view of it: `columns[field].narrow(1, start, len)` with tch and PyTorch,
/// `column[:, start:start + len]` with NumPy. For k = 1 a `.squeeze(1)` makes it `[rows, obs...]`, which is a view as well.
/// On the device the same holds, so that of overlapping stacks each frame is transferred once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObsView {
    /// Position of the field in [`Transitions::schema`](crate::Transitions::schema).
    pub field: usize,
    /// The length of the field's first dimension.
    pub of: usize,
    /// Where the observation begins in that dimension.
    pub start: usize,
    /// k, how far it goes.
    pub len: usize,
}

impl ObsView {
    /// The observations of a batch, one slice of k · (elements of a frame) for each of its rows, rows beyond those drawn
    /// included. They are borrowed from the batch. A `bool` column is read as `u8`.
    ///
    /// # Errors
    /// [`BatchError::Dtype`] for another element type; [`BatchError::NoColumn`] and [`BatchError::Shape`] for a batch that
    /// was not made with [`Transitions::schema`](crate::Transitions::schema).
    pub fn rows<T: Element>(
        self,
        batch: &Batch,
    ) -> Result<impl ExactSizeIterator<Item = &[T]> + Clone, BatchError> {
        let Some(field) = batch.schema().fields().get(self.field) else {
            return Err(BatchError::NoColumn { name: format!("of position {}", self.field) });
        };
        let end = self.start.checked_add(self.len).filter(|end| *end <= self.of);
        let (Some(end), true) = (end, field.shape.first() == Some(&self.of)) else {
            let rest = field.shape.get(1..).unwrap_or_default();
            let asked = [&[self.of], rest].concat();
            return Err(BatchError::Shape { column: field.name.clone(), stored: field.shape.clone(), asked });
        };
        let (row, start) = (field.elements(), self.start);
        let frame = row / self.of;
        let elements = batch.typed::<T>(&field.name)?;
        Ok(elements.chunks_exact(row).map(move |row| &row[start * frame..end * frame]))
    }
}
