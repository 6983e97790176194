//! Sequences of unequal lengths as one rectangle, with a mask.

use super::buffer::{Buffer, copy_cell, sized};
use super::ragged::Kinds;
use super::{CollateError, PadOptions, RaggedTable, SequenceLayout, Truncate};
use crate::{Element, Schema, batch::typed_position};
use smallvec::SmallVec;
use std::sync::Arc;

/// A padded batch, made by [`RaggedTable::pad_into`] and reused from batch to batch.
///
/// A ragged column is `[B, T, shape...]` or `[T, B, shape...]` (see [`SequenceLayout`]), a fixed one `[B, shape...]`. Each axis
/// has its T, its lengths `[B]` and its mask, `[B, T]` or `[T, B]` like the columns.
#[derive(Clone, Debug)]
pub struct Padded {
    kinds: Arc<Kinds>,
    options: PadOptions,
    truncate: Vec<Truncate>,
    pad: Vec<[u8; 8]>,
    rows: usize,
    axes: Vec<PaddedAxis>,
    columns: Vec<PaddedColumn>,
}

#[derive(Clone, Debug, Default)]
struct PaddedAxis {
    steps: usize,
    truncated: usize,
    lengths: Vec<i64>,
    mask: Buffer,
}

#[derive(Clone, Debug)]
struct PaddedColumn {
    values: Buffer,
    shape: Vec<usize>,
}

impl Padded {
    /// An empty batch for rows of `table`, or of any other table with the same columns and axes.
    ///
    /// # Errors
    /// [`CollateError::Multiple`], [`CollateError::NoAxis`], [`CollateError::Batch`] when a pad value is for a column that is not
    /// there, [`CollateError::NotRagged`], [`CollateError::PadDtype`] and [`CollateError::PadBool`].
    pub fn new(table: &RaggedTable, options: &PadOptions) -> Result<Self, CollateError> {
        let kinds = table.kinds.clone();
        let (truncate, pad) = options.resolve(&kinds)?;
        let column = |(field, axis): (&crate::Field, &Option<usize>)| {
            let leading = if axis.is_some() { 2 } else { 1 };
            let shape = std::iter::repeat_n(0, leading).chain(field.shape.iter().copied()).collect();
            PaddedColumn { values: Buffer::default(), shape }
        };
        let columns = kinds.schema.fields().iter().zip(&kinds.axis_of).map(column).collect();
        let axes = vec![PaddedAxis::default(); kinds.axes.len()];
        Ok(Self { kinds, options: options.clone(), truncate, pad, rows: 0, axes, columns })
    }

    /// B, the rows of the batch.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The columns, as in the table: the shapes are without the leading dimensions.
    pub fn schema(&self) -> &Schema {
        &self.kinds.schema
    }

    /// The names of the axes, as in the table.
    pub fn axes(&self) -> &[String] {
        &self.kinds.axes
    }

    /// The order of the leading dimensions.
    pub fn layout(&self) -> SequenceLayout {
        self.options.layout
    }

    /// T, the steps along `axis`, padding included.
    ///
    /// # Errors
    /// [`CollateError::NoAxis`].
    pub fn steps(&self, axis: &str) -> Result<usize, CollateError> {
        Ok(self.axis(axis)?.steps)
    }

    /// The steps of each row along `axis` after truncation: i64 `[B]`, as PyTorch's packing takes it.
    ///
    /// # Errors
    /// [`CollateError::NoAxis`].
    pub fn lengths(&self, axis: &str) -> Result<&[i64], CollateError> {
        Ok(&self.axis(axis)?.lengths)
    }

    /// Where there is data: bool `[B, T]` or `[T, B]`, one byte each, 1 for a step of the row and 0 for padding. (The
    /// `key_padding_mask` of PyTorch's attention is its opposite.)
    ///
    /// # Errors
    /// [`CollateError::NoAxis`].
    pub fn mask(&self, axis: &str) -> Result<&[u8], CollateError> {
        Ok(self.axis(axis)?.mask.bytes())
    }

    /// How many rows of the batch lost steps to truncation.
    ///
    /// # Errors
    /// [`CollateError::NoAxis`].
    pub fn truncated(&self, axis: &str) -> Result<usize, CollateError> {
        Ok(self.axis(axis)?.truncated)
    }

    /// The whole shape of a column, with the leading dimensions.
    ///
    /// # Errors
    /// [`CollateError::Batch`] when there is no such column.
    pub fn shape(&self, name: &str) -> Result<&[usize], CollateError> {
        let no_column = || crate::BatchError::NoColumn { name: name.to_string() };
        Ok(&self.columns[self.kinds.schema.position(name).ok_or_else(no_column)?].shape)
    }

    /// The bytes of the column at `position` in the table's schema, in native byte order.
    ///
    /// # Panics
    /// When the schema has no field at `position`.
    pub fn column(&self, position: usize) -> &[u8] {
        self.columns[position].values.bytes()
    }

    /// The elements of the column called `name`. A `bool` column is read as `u8`.
    ///
    /// # Errors
    /// [`CollateError::Batch`] when there is no such column or it holds other elements.
    pub fn typed<T: Element>(&self, name: &str) -> Result<&[T], CollateError> {
        Ok(bytemuck::cast_slice(self.column(typed_position::<T>(&self.kinds.schema, name)?)))
    }

    fn axis(&self, name: &str) -> Result<&PaddedAxis, CollateError> {
        Ok(&self.axes[self.kinds.axis(name)?])
    }
}

impl RaggedTable {
    /// Pads `rows`, in that order, to the longest of them: `out` then holds this batch and nothing of the one before. O(bytes
    /// written); allocates only when a batch is larger than all before it.
    ///
    /// # Errors
    /// [`CollateError::OtherTable`], [`CollateError::NoRow`], [`CollateError::TooLong`], and [`CollateError::TooLarge`] for a
    /// batch that cannot be counted in bytes; `out` is then untouched.
    pub fn pad_into(&self, rows: &[u64], out: &mut Padded) -> Result<(), CollateError> {
        if !Arc::ptr_eq(&self.kinds, &out.kinds) && self.kinds != out.kinds {
            return Err(CollateError::OtherTable);
        }
        self.check_rows(rows)?;
        for axis in 0..self.axes.len() {
            self.check_lengths(rows, axis, out.truncate[axis])?;
        }
        // Counted before anything is written: T of each axis, its mask, and each column.
        let fits = |name: &str, steps: Option<usize>, bytes: usize| {
            let total = steps.and_then(|steps| steps.checked_mul(rows.len())?.checked_mul(bytes));
            match (steps, total) {
                (Some(steps), Some(total)) if total <= isize::MAX as usize => Ok(steps),
                _ => Err(CollateError::TooLarge {
                    name: name.to_string(),
                    rows: rows.len(),
                    steps: steps.unwrap_or(usize::MAX),
                }),
            }
        };
        let mut steps = SmallVec::<[usize; 4]>::new();
        for ((axis, name), truncate) in self.axes.iter().zip(&self.kinds.axes).zip(&out.truncate) {
            let longest = rows.iter().map(|row| axis.steps(*row, *truncate).len()).max().unwrap_or(0);
            steps.push(fits(name, out.options.steps(longest), 1)?);
        }
        for (field, axis) in self.schema().fields().iter().zip(&self.kinds.axis_of) {
            fits(&field.name, Some(axis.map_or(1, |axis| steps[axis])), field.row_bytes())?;
        }
        for axis in 0..self.axes.len() {
            let steps = steps[axis];
            let (from, truncate, to) = (&self.axes[axis], out.truncate[axis], &mut out.axes[axis]);
            to.steps = steps;
            to.lengths.clear();
            to.lengths.extend(rows.iter().map(|row| from.steps(*row, truncate).len() as i64));
            let cut = |(row, length): (&u64, &i64)| from.length(*row) > *length as u64;
            to.truncated = rows.iter().zip(&to.lengths).filter(|pair| cut(*pair)).count();
            write_mask(out.options.layout, steps, &to.lengths, &mut to.mask);
        }
        out.rows = rows.len();
        for column in 0..self.columns.len() {
            let to = &mut out.columns[column];
            match self.kinds.axis_of[column] {
                None => {
                    to.shape[0] = rows.len();
                    self.gather_fixed(column, rows, &mut to.values);
                }
                Some(axis) => {
                    let steps = out.axes[axis].steps;
                    (to.shape[0], to.shape[1]) = match out.options.layout {
                        SequenceLayout::BatchFirst => (rows.len(), steps),
                        SequenceLayout::SequenceFirst => (steps, rows.len()),
                    };
                    let pad = &out.pad[column][..self.schema().fields()[column].dtype.size_bytes()];
                    let (layout, truncate) = (out.options.layout, out.truncate[axis]);
                    self.pad_column(
                        column,
                        axis,
                        rows,
                        Shape { layout, steps, truncate },
                        pad,
                        &mut to.values,
                    );
                }
            }
        }
        Ok(())
    }

    fn pad_column(
        &self,
        column: usize,
        axis: usize,
        rows: &[u64],
        shape: Shape,
        pad: &[u8],
        out: &mut Buffer,
    ) {
        let Shape { layout, steps, truncate } = shape;
        let (axis, from) = (&self.axes[axis], self.columns[column].bytes());
        let bytes = self.schema().fields()[column].row_bytes();
        out.resize(rows.len() * steps * bytes);
        let to = out.bytes_mut();
        match layout {
            SequenceLayout::BatchFirst => {
                for (place, &row) in rows.iter().enumerate() {
                    let range = axis.steps(row, truncate);
                    let to = &mut to[place * steps * bytes..][..steps * bytes];
                    let (data, rest) = to.split_at_mut(range.len() * bytes);
                    data.copy_from_slice(&from[range.start * bytes..range.end * bytes]);
                    fill(rest, pad);
                }
            }
            // Along the steps, so that what is written lies together; each row is read forwards.
            SequenceLayout::SequenceFirst => sized!(bytes => {
                for step in 0..steps {
                    for (place, &row) in rows.iter().enumerate() {
                        let range = axis.steps(row, truncate);
                        let cell = step * rows.len() + place;
                        if step < range.len() {
                            copy_cell(to, cell, from, range.start + step, bytes);
                        } else {
                            fill(&mut to[cell * bytes..][..bytes], pad);
                        }
                    }
                }
            }),
        }
    }
}

#[derive(Clone, Copy)]
struct Shape {
    layout: SequenceLayout,
    steps: usize,
    truncate: Truncate,
}

fn write_mask(layout: SequenceLayout, steps: usize, lengths: &[i64], mask: &mut Buffer) {
    mask.resize(lengths.len() * steps);
    let mask = mask.bytes_mut();
    if mask.is_empty() {
        return;
    }
    match layout {
        SequenceLayout::BatchFirst => {
            for (row, length) in mask.chunks_exact_mut(steps).zip(lengths) {
                let (data, rest) = row.split_at_mut(*length as usize);
                data.fill(1);
                rest.fill(0);
            }
        }
        SequenceLayout::SequenceFirst => {
            for (step, row) in mask.chunks_exact_mut(lengths.len()).enumerate() {
                for (cell, length) in row.iter_mut().zip(lengths) {
                    *cell = u8::from((step as i64) < *length);
                }
            }
        }
    }
}

/// Repeats one element over `to`.
pub(super) fn fill(to: &mut [u8], element: &[u8]) {
    if element.iter().all(|byte| *byte == element[0]) {
        return to.fill(element[0]);
    }
    for cell in to.chunks_exact_mut(element.len()) {
        cell.copy_from_slice(element);
    }
}
