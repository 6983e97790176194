//! Rows of a ragged table, packed without padding them first.

use super::buffer::{Buffer, copy_cell, sized};
use super::ragged::Kinds;
use super::{CollateError, Packing, RaggedTable, Truncate};
use crate::{BatchError, Element, Schema, batch::typed_position};
use std::sync::Arc;

/// A packed batch, made by [`RaggedTable::pack_into`] and reused from batch to batch: PyTorch's `PackedSequence`, what an LSTM
/// or GRU runs through without computing padding.
///
/// A column along the axis is `[total, shape...]`, its steps in the order of [`Packing`]. A fixed column is `[B, shape...]`
/// in the order of the batch, which is that of a final hidden state after `unsorted_indices`. Columns along other axes are left
/// out.
///
/// ```
/// use rl_minibatch::{Dtype, Field, Packed, RaggedTable, Truncate};
/// let table = RaggedTable::builder(3)
///     .axis_of_lengths("time", &[2, 3, 1])
///     .ragged("time", Field::new("x", Dtype::I32, []), bytemuck::cast_slice(&[10i32, 11, 20, 21, 22, 30]))
///     .fixed(Field::new("label", Dtype::I32, []), bytemuck::cast_slice(&[1i32, 2, 3]))
///     .build()?;
/// let mut batch = Packed::new(&table, "time", Truncate::Whole)?;
/// table.pack_into(&[0, 1, 2], &mut batch)?;
/// assert_eq!(batch.typed::<i32>("x")?, [20, 10, 30, 21, 11, 22]);
/// assert_eq!(batch.packing().batch_sizes(), [3, 2, 1]);
/// assert_eq!(batch.packing().unsorted_indices(), [1, 0, 2]);
/// assert_eq!(batch.typed::<i32>("label")?, [1, 2, 3]);
/// # Ok::<(), rl_minibatch::CollateError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Packed {
    kinds: Arc<Kinds>,
    axis: usize,
    truncate: Truncate,
    packing: Packing,
    lengths: Vec<i64>,
    columns: Vec<Buffer>,
}

impl Packed {
    /// An empty batch for rows of `table`, or of any other table with the same columns and axes, packed along `axis`.
    ///
    /// # Errors
    /// [`CollateError::NoAxis`].
    pub fn new(table: &RaggedTable, axis: &str, truncate: Truncate) -> Result<Self, CollateError> {
        let kinds = table.kinds.clone();
        let axis = kinds.axis(axis)?;
        let columns = vec![Buffer::default(); kinds.axis_of.len()];
        Ok(Self { kinds, axis, truncate, packing: Packing::new(), lengths: Vec::new(), columns })
    }

    /// The order of the steps: batch sizes, sorted and unsorted indices, lengths.
    pub fn packing(&self) -> &Packing {
        &self.packing
    }

    /// The columns, as in the table: the shapes are without the leading dimension. Those along other axes are listed too.
    pub fn schema(&self) -> &Schema {
        &self.kinds.schema
    }

    /// B, the rows of the batch.
    pub fn rows(&self) -> usize {
        self.packing.lengths().len()
    }

    /// The elements of the column called `name`. A `bool` column is read as `u8`.
    ///
    /// # Errors
    /// [`CollateError::Batch`] when there is no such column here or it holds other elements.
    pub fn typed<T: Element>(&self, name: &str) -> Result<&[T], CollateError> {
        let position = typed_position::<T>(&self.kinds.schema, name)?;
        if !self.holds(position) {
            return Err(BatchError::NoColumn { name: name.to_string() }.into());
        }
        Ok(bytemuck::cast_slice(self.columns[position].bytes()))
    }

    /// The bytes of the column at `position` in the table's schema; `None` for one that lies along another axis.
    ///
    /// # Panics
    /// When the schema has no field at `position`.
    pub fn column(&self, position: usize) -> Option<&[u8]> {
        self.holds(position).then(|| self.columns[position].bytes())
    }

    fn holds(&self, position: usize) -> bool {
        self.kinds.axis_of[position].is_none_or(|axis| axis == self.axis)
    }
}

impl RaggedTable {
    /// Packs `rows` along the axis of `out`, straight from the table. `out` then holds this batch and nothing of the one before.
    /// O(B log B + bytes written); allocates only when a batch is larger than all before it.
    ///
    /// # Errors
    /// [`CollateError::OtherTable`], [`CollateError::NoRow`], [`CollateError::TooLong`], [`CollateError::NoSequences`], and
    /// [`CollateError::EmptySequence`] for a row without steps; `out` is then untouched.
    pub fn pack_into(&self, rows: &[u64], out: &mut Packed) -> Result<(), CollateError> {
        if !Arc::ptr_eq(&self.kinds, &out.kinds) && self.kinds != out.kinds {
            return Err(CollateError::OtherTable);
        }
        self.check_rows(rows)?;
        self.check_lengths(rows, out.axis, out.truncate)?;
        let (axis, truncate) = (&self.axes[out.axis], out.truncate);
        out.lengths.clear();
        out.lengths.extend(rows.iter().map(|row| axis.steps(*row, truncate).len() as i64));
        out.packing.plan(&out.lengths)?;
        let packing = &out.packing;
        for (column, to) in out.columns.iter_mut().enumerate() {
            match self.kinds.axis_of[column] {
                None => self.gather_fixed(column, rows, to),
                Some(along) if along != out.axis => {}
                Some(_) => {
                    let bytes = self.schema().fields()[column].row_bytes();
                    let from = self.columns[column].bytes();
                    to.resize(packing.total() * bytes);
                    let to = to.bytes_mut();
                    let mut cell = 0;
                    sized!(bytes => {
                        for (time, &size) in packing.batch_sizes().iter().enumerate() {
                            for &place in &packing.sorted_indices()[..size as usize] {
                                let start = axis.steps(rows[place as usize], truncate).start;
                                copy_cell(to, cell, from, start + time, bytes);
                                cell += 1;
                            }
                        }
                    });
                }
            }
        }
        Ok(())
    }
}
