//! A fixed table whose rows have lengths of their own.

use super::buffer::Buffer;
use super::{CollateError, Truncate};
use crate::{Dtype, Element, Field, Schema, batch::typed_position};
use std::ops::Range;
use std::sync::Arc;

/// Rows of unequal lengths that do not change: sentences, series, episodes. What [`Table`](crate::Table) is to rows of one
/// shape; the same samplers draw from both.
///
/// An *axis* is a length that each row has, and steps along it: `offsets[r]..offsets[r + 1]` are the steps of row `r`. A
/// *ragged* column lies along an axis; its values are `[steps of all rows, shape...]`, rows back to back. Several columns may
/// lie along one axis (words and their tags), and there may be several axes (source and target of a translation). A *fixed*
/// column has one value of its shape a row (a label). This is Arrow's list layout with the offsets shared.
///
/// ```
/// use rl_minibatch::{Dtype, Field, PadOptions, Padded, RaggedTable};
/// // Three series of 2, 0 and 3 steps, and a label each.
/// let (values, labels) = ([0.0f32, 0.1, 2.0, 2.1, 2.2], [7i64, 8, 9]);
/// let table = RaggedTable::builder(3)
///     .axis("time", &[0, 2, 2, 5])
///     .ragged("time", Field::new("x", Dtype::F32, []), bytemuck::cast_slice(&values))
///     .fixed(Field::new("label", Dtype::I64, []), bytemuck::cast_slice(&labels))
///     .build()?;
/// assert_eq!(table.lengths("time")?.collect::<Vec<_>>(), [2, 0, 3]);
/// assert_eq!(table.row::<f32>("x", 2)?, [2.0, 2.1, 2.2]);
///
/// let mut batch = Padded::new(&table, &PadOptions::new().value("x", -1.0f32))?;
/// table.pad_into(&[2, 0], &mut batch)?;
/// assert_eq!(batch.shape("x")?, [2, 3]);
/// assert_eq!(batch.typed::<f32>("x")?, [2.0, 2.1, 2.2, 0.0, 0.1, -1.0]);
/// assert_eq!(batch.mask("time")?, [1, 1, 1, 1, 1, 0]);
/// assert_eq!(batch.lengths("time")?, [3, 2]);
/// assert_eq!(batch.typed::<i64>("label")?, [9, 7]);
/// # Ok::<(), rl_minibatch::CollateError>(())
/// ```
#[derive(Clone, Debug)]
pub struct RaggedTable {
    pub(super) kinds: Arc<Kinds>,
    pub(super) axes: Vec<Axis>,
    pub(super) columns: Vec<Buffer>,
    rows: usize,
}

/// What columns there are and how they lie: what a table and the batches made for it have in common.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kinds {
    pub schema: Schema,
    pub axes: Vec<String>,
    /// For each field the axis it lies along; `None` for a fixed one.
    pub axis_of: Vec<Option<usize>>,
}

impl Kinds {
    pub fn axis(&self, name: &str) -> Result<usize, CollateError> {
        self.axes
            .iter()
            .position(|axis| axis == name)
            .ok_or_else(|| CollateError::NoAxis { axis: name.to_string(), known: self.axes.clone() })
    }
}

/// The offsets of one axis, checked: one more than rows, from 0, never falling.
#[derive(Clone, Debug)]
pub(super) struct Axis(Vec<u64>);

impl Axis {
    /// The steps of `row` that are left after truncation.
    pub fn steps(&self, row: u64, truncate: Truncate) -> Range<usize> {
        let (start, end) = (self.0[row as usize] as usize, self.0[row as usize + 1] as usize);
        match truncate {
            Truncate::Whole | Truncate::Refuse(_) => start..end,
            Truncate::KeepFirst(limit) => start..end.min(start.saturating_add(limit)),
            Truncate::KeepLast(limit) => start.max(end.saturating_sub(limit))..end,
        }
    }

    pub fn length(&self, row: u64) -> u64 {
        self.0[row as usize + 1] - self.0[row as usize]
    }

    fn total(&self) -> u64 {
        self.0.last().copied().unwrap_or(0)
    }
}

impl RaggedTable {
    /// Begins a table of `rows` rows.
    pub fn builder<'a>(rows: usize) -> RaggedBuilder<'a> {
        RaggedBuilder { rows, axes: Vec::new(), columns: Vec::new() }
    }

    /// The number of rows.
    pub fn rows(&self) -> u64 {
        self.rows as u64
    }

    /// The columns, in the order in which they were given. The shape of a ragged one is that of a step.
    pub fn schema(&self) -> &Schema {
        &self.kinds.schema
    }

    /// The names of the axes, in the order in which they were given.
    pub fn axes(&self) -> &[String] {
        &self.kinds.axes
    }

    /// The length of each row along `axis`, in steps: what a length-bucketed sampler and a token budget go by.
    ///
    /// # Errors
    /// [`CollateError::NoAxis`].
    pub fn lengths(&self, axis: &str) -> Result<impl ExactSizeIterator<Item = u64> + '_, CollateError> {
        let axis = &self.axes[self.kinds.axis(axis)?];
        Ok(axis.0.windows(2).map(|pair| pair[1] - pair[0]))
    }

    /// The values of one row in the column called `name`: `[length, shape...]`, or `[shape...]` of a fixed column.
    ///
    /// # Errors
    /// [`CollateError::Batch`] when there is no such column or it holds other elements, and [`CollateError::NoRow`].
    pub fn row<T: Element>(&self, name: &str, row: u64) -> Result<&[T], CollateError> {
        let column = typed_position::<T>(self.schema(), name)?;
        self.check_rows(&[row])?;
        let bytes = self.schema().fields()[column].row_bytes();
        let cells = match self.kinds.axis_of[column] {
            Some(axis) => self.axes[axis].steps(row, Truncate::Whole),
            None => row as usize..row as usize + 1,
        };
        Ok(bytemuck::cast_slice(&self.columns[column].bytes()[cells.start * bytes..cells.end * bytes]))
    }

    pub(super) fn check_rows(&self, rows: &[u64]) -> Result<(), CollateError> {
        match rows.iter().position(|row| *row >= self.rows as u64) {
            Some(position) => Err(CollateError::NoRow { position, row: rows[position], rows: self.rows }),
            None => Ok(()),
        }
    }

    /// Refuses rows that are longer than [`Truncate::Refuse`] allows.
    pub(super) fn check_lengths(
        &self,
        rows: &[u64],
        axis: usize,
        truncate: Truncate,
    ) -> Result<(), CollateError> {
        let Truncate::Refuse(limit) = truncate else { return Ok(()) };
        match rows.iter().position(|row| self.axes[axis].length(*row) > limit as u64) {
            None => Ok(()),
            Some(position) => Err(CollateError::TooLong {
                axis: self.kinds.axes[axis].clone(),
                position,
                row: rows[position],
                length: self.axes[axis].length(rows[position]),
                limit,
            }),
        }
    }

    /// Copies the rows of a fixed column into `out`, which then holds just them.
    pub(super) fn gather_fixed(&self, column: usize, rows: &[u64], out: &mut Buffer) {
        let bytes = self.schema().fields()[column].row_bytes();
        let from = self.columns[column].bytes();
        out.resize(rows.len() * bytes);
        for (to, &row) in out.bytes_mut().chunks_exact_mut(bytes).zip(rows) {
            to.copy_from_slice(&from[row as usize * bytes..][..bytes]);
        }
    }
}

/// Puts a [`RaggedTable`] together. Everything is checked by [`build`](Self::build).
#[derive(Clone, Debug)]
pub struct RaggedBuilder<'a> {
    rows: usize,
    axes: Vec<(String, Vec<u64>)>,
    columns: Vec<(Field, Option<String>, &'a [u8])>,
}

impl<'a> RaggedBuilder<'a> {
    /// An axis with the steps `offsets[r]..offsets[r + 1]` of each row `r`; the offsets begin with 0 and are one more than rows.
    pub fn axis(mut self, name: impl Into<String>, offsets: &[u64]) -> Self {
        self.axes.push((name.into(), offsets.to_vec()));
        self
    }

    /// An axis from the length of each row.
    pub fn axis_of_lengths(mut self, name: impl Into<String>, lengths: &[u64]) -> Self {
        // A sum beyond u64 stops at its end; no values can fill that, so `build` refuses the column.
        let sums = lengths.iter().scan(0u64, |sum, length| {
            *sum = sum.saturating_add(*length);
            Some(*sum)
        });
        self.axes.push((name.into(), std::iter::once(0).chain(sums).collect()));
        self
    }

    /// A column along `axis`: `field` has the shape of one step, `values` the steps of all rows back to back, in native byte
    /// order.
    pub fn ragged(mut self, axis: impl Into<String>, field: Field, values: &'a [u8]) -> Self {
        self.columns.push((field, Some(axis.into()), values));
        self
    }

    /// A column with one value of the field's shape a row.
    pub fn fixed(mut self, field: Field, values: &'a [u8]) -> Self {
        self.columns.push((field, None, values));
        self
    }

    /// The table. O(bytes): the values are copied.
    ///
    /// # Errors
    /// [`CollateError::Schema`] when the columns make no schema, [`CollateError::RepeatedAxis`], [`CollateError::NoAxis`],
    /// [`CollateError::OffsetsCount`], [`CollateError::OffsetsStart`], [`CollateError::Offsets`] with the position where they
    /// fall, and [`CollateError::Values`] when a column's values do not fill its rows.
    pub fn build(self) -> Result<RaggedTable, CollateError> {
        let Self { rows, axes, columns } = self;
        for (i, (axis, offsets)) in axes.iter().enumerate() {
            check_offsets(rows, axis, offsets)?;
            if axes[..i].iter().any(|(other, _)| other == axis) {
                return Err(CollateError::RepeatedAxis { axis: axis.clone() });
            }
        }
        let schema = Schema::new(columns.iter().map(|(field, ..)| field.clone()).collect())?;
        let (names, axes): (Vec<_>, Vec<_>) =
            axes.into_iter().map(|(name, offsets)| (name, Axis(offsets))).unzip();
        let mut kinds = Kinds { schema, axes: names, axis_of: Vec::with_capacity(columns.len()) };
        let mut stored = Vec::with_capacity(columns.len());
        for (field, axis, values) in columns {
            let axis = axis.map(|axis| kinds.axis(&axis)).transpose()?;
            let steps = axis.map_or(rows as u64, |axis| axes[axis].total());
            let step_bytes = field.row_bytes();
            let expected = steps.saturating_mul(step_bytes as u64);
            if expected != values.len() as u64 {
                let got = values.len();
                return Err(CollateError::Values { column: field.name, steps, step_bytes, expected, got });
            }
            kinds.axis_of.push(axis);
            stored.push(Buffer::copied(values));
        }
        Ok(RaggedTable { kinds: Arc::new(kinds), axes, columns: stored, rows })
    }
}

fn check_offsets(rows: usize, axis: &str, offsets: &[u64]) -> Result<(), CollateError> {
    let axis = || axis.to_string();
    if offsets.len() != rows + 1 {
        return Err(CollateError::OffsetsCount { axis: axis(), rows, got: offsets.len() });
    }
    if offsets[0] != 0 {
        return Err(CollateError::OffsetsStart { axis: axis(), got: offsets[0] });
    }
    match offsets.windows(2).position(|pair| pair[1] < pair[0]) {
        None => Ok(()),
        Some(before) => {
            let (previous, got) = (offsets[before], offsets[before + 1]);
            Err(CollateError::Offsets { axis: axis(), position: before + 1, previous, got })
        }
    }
}

/// The bytes of a pad value, and its type.
pub(super) fn element_bytes<T: Element>(value: T) -> (Dtype, [u8; 8]) {
    let mut bytes = [0; 8];
    bytes[..size_of::<T>()].copy_from_slice(bytemuck::bytes_of(&value));
    (T::DTYPE, bytes)
}
