//! Memory that a batch is gathered into: owned ([`Batch`]) or lent by the caller ([`BatchMut`]).

use crate::{Dtype, Element, Field, Schema};
use smallvec::SmallVec;
use std::ops::Range;

/// Fields that a borrowed batch describes without allocating.
const INLINE_FIELDS: usize = 8;

/// One cache line: the unit in which [`Batch`] allocates, so that every column starts on a line of its own.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u8; 64]);

/// Owned host memory for rows of a schema: one contiguous, 64-byte-aligned buffer a field, row-major, zero at first.
///
/// Column `i` has shape `[rows, field i's shape...]`. Make one and reuse it: filling fresh memory costs a page fault
/// every 4 KiB, which for large batches is dearer than the rows themselves.
///
/// ```
/// use rl_minibatch::{Batch, Dtype, Schema};
/// let schema = Schema::transition((Dtype::F32, &[4]), (Dtype::I64, &[]))?;
/// let mut batch = Batch::new(&schema, 32);
/// assert_eq!(batch.typed::<f32>("obs")?.len(), 32 * 4);
/// assert_eq!(batch.view_mut().rows(), 32);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Batch {
    schema: Schema,
    rows: usize,
    columns: Vec<Vec<Line>>,
}

impl Batch {
    /// Room for `rows` rows of `schema`, all zero.
    ///
    /// # Panics
    /// When the bytes of a column overflow `usize`.
    pub fn new(schema: &Schema, rows: usize) -> Self {
        let column = |field: &Field| {
            let bytes = field.row_bytes().checked_mul(rows).expect("a batch fits in the address space");
            vec![Line([0; 64]); bytes.div_ceil(64)]
        };
        Self { schema: schema.clone(), rows, columns: schema.fields().iter().map(column).collect() }
    }

    /// What a row holds.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Rows there is room for.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The bytes of the column at `position` in the schema: `rows` × the field's `row_bytes`, in native byte order.
    ///
    /// # Panics
    /// When the schema has no field at `position`.
    pub fn column(&self, position: usize) -> &[u8] {
        let bytes = self.schema.fields()[position].row_bytes() * self.rows;
        &bytemuck::cast_slice(&self.columns[position])[..bytes]
    }

    /// As [`column`](Self::column), to write to.
    ///
    /// # Panics
    /// When the schema has no field at `position`.
    pub fn column_mut(&mut self, position: usize) -> &mut [u8] {
        let bytes = self.schema.fields()[position].row_bytes() * self.rows;
        &mut bytemuck::cast_slice_mut(&mut self.columns[position])[..bytes]
    }

    /// The elements of the column called `name`, `rows` × the product of the field's shape. A `bool` column is read
    /// as `u8`.
    ///
    /// # Errors
    /// [`BatchError::NoColumn`] and [`BatchError::Dtype`].
    pub fn typed<T: Element>(&self, name: &str) -> Result<&[T], BatchError> {
        Ok(bytemuck::cast_slice(self.column(self.find::<T>(name)?)))
    }

    /// As [`typed`](Self::typed), to write to.
    ///
    /// # Errors
    /// [`BatchError::NoColumn`] and [`BatchError::Dtype`].
    pub fn typed_mut<T: Element>(&mut self, name: &str) -> Result<&mut [T], BatchError> {
        let position = self.find::<T>(name)?;
        Ok(bytemuck::cast_slice_mut(self.column_mut(position)))
    }

    /// The whole batch, lent for gathering into. Allocates nothing for up to eight fields.
    pub fn view_mut(&mut self) -> BatchMut<'_> {
        let mut columns = SmallVec::new();
        for (lines, field) in self.columns.iter_mut().zip(self.schema.fields()) {
            let row_bytes = field.row_bytes();
            let bytes = &mut bytemuck::cast_slice_mut(lines)[..row_bytes * self.rows];
            columns.push(ColumnMut { bytes, row_bytes });
        }
        BatchMut { rows: self.rows, columns }
    }

    fn find<T: Element>(&self, name: &str) -> Result<usize, BatchError> {
        typed_position::<T>(&self.schema, name)
    }
}

/// The position of the column called `name`, if it can be read as `T`s: its dtype is `T`'s, or it is a `bool` read as `u8`.
pub(crate) fn typed_position<T: Element>(schema: &Schema, name: &str) -> Result<usize, BatchError> {
    let position = schema.position(name).ok_or_else(|| BatchError::NoColumn { name: name.to_string() })?;
    let dtype = schema.fields()[position].dtype;
    if dtype != T::DTYPE && !(dtype == Dtype::Bool && T::DTYPE == Dtype::U8) {
        return Err(BatchError::Dtype { column: name.to_string(), stored: dtype, asked: T::DTYPE });
    }
    Ok(position)
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("schema", &self.schema)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct ColumnMut<'a> {
    bytes: &'a mut [u8],
    row_bytes: usize,
}

/// Borrowed memory for rows of a schema: one byte slice a field. Rows are gathered straight into it, so it may well be
/// memory of another library's, pinned for a device for instance.
#[derive(Debug)]
pub struct BatchMut<'a> {
    rows: usize,
    columns: SmallVec<[ColumnMut<'a>; INLINE_FIELDS]>,
}

impl<'a> BatchMut<'a> {
    /// A batch of `rows` rows over `columns`, one slice of `rows` × `row_bytes` bytes for each field of `schema`, in
    /// its order.
    ///
    /// # Errors
    /// [`BatchError::Columns`] and [`BatchError::Bytes`].
    pub fn new(
        schema: &Schema,
        rows: usize,
        columns: impl IntoIterator<Item = &'a mut [u8]>,
    ) -> Result<Self, BatchError> {
        let fields = schema.fields();
        let mut lent: SmallVec<[ColumnMut<'a>; INLINE_FIELDS]> = SmallVec::new();
        let mut got = 0;
        for bytes in columns {
            if let Some(field) = fields.get(got) {
                let row_bytes = field.row_bytes();
                if row_bytes.checked_mul(rows) != Some(bytes.len()) {
                    let expected = row_bytes.saturating_mul(rows);
                    return Err(BatchError::Bytes { column: field.name.clone(), expected, got: bytes.len() });
                }
                lent.push(ColumnMut { bytes, row_bytes });
            }
            got += 1;
        }
        if got != fields.len() {
            return Err(BatchError::Columns { expected: fields.len(), got });
        }
        Ok(Self { rows, columns: lent })
    }

    /// Rows there is room for.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The bytes of the column at `position`.
    ///
    /// # Panics
    /// When there is no column at `position`.
    pub fn column_mut(&mut self, position: usize) -> &mut [u8] {
        self.columns[position].bytes
    }

    /// The bytes of row `row` in the column at `position`.
    ///
    /// # Panics
    /// When there is no such row or column.
    #[inline]
    pub fn cell_mut(&mut self, position: usize, row: usize) -> &mut [u8] {
        let column = &mut self.columns[position];
        &mut column.bytes[row * column.row_bytes..][..column.row_bytes]
    }

    /// The rows `range` of the batch as a batch of their own, so that several sources each fill a part of one. The columns
    /// stay where they are. O(fields); allocates nothing for up to eight fields.
    ///
    /// ```
    /// use rl_minibatch::{Batch, Dtype, Field, Schema};
    /// let mut batch = Batch::new(&Schema::new(vec![Field::new("x", Dtype::U8, [2])])?, 5);
    /// batch.view_mut().rows_mut(3..5).cell_mut(0, 1).copy_from_slice(&[7, 8]);
    /// assert_eq!(batch.typed::<u8>("x")?, [0, 0, 0, 0, 0, 0, 0, 0, 7, 8]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// When `range` ends before it begins or beyond the last row, as slicing does.
    pub fn rows_mut(&mut self, range: Range<usize>) -> BatchMut<'_> {
        let Range { start, end } = range;
        assert!(start <= end && end <= self.rows, "rows {start}..{end} of a batch of {}", self.rows);
        let mut columns = SmallVec::new();
        for ColumnMut { bytes, row_bytes } in &mut self.columns {
            let row_bytes = *row_bytes;
            columns.push(ColumnMut { bytes: &mut bytes[start * row_bytes..end * row_bytes], row_bytes });
        }
        BatchMut { rows: end - start, columns }
    }

    /// Checks that `count` rows of `schema` can be written here, columns of the same row sizes in the same order.
    ///
    /// # Errors
    /// [`BatchError::Columns`], [`BatchError::RowBytes`] and [`BatchError::Rows`].
    pub fn check(&self, schema: &Schema, count: usize) -> Result<(), BatchError> {
        let fields = schema.fields();
        if fields.len() != self.columns.len() {
            return Err(BatchError::Columns { expected: fields.len(), got: self.columns.len() });
        }
        for (field, column) in fields.iter().zip(&self.columns) {
            let (expected, got) = (field.row_bytes(), column.row_bytes);
            if expected != got {
                return Err(BatchError::RowBytes { column: field.name.clone(), expected, got });
            }
        }
        if count > self.rows {
            return Err(BatchError::Rows { asked: count, room: self.rows });
        }
        Ok(())
    }
}

/// Why memory cannot be used as a batch, or a column not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// No column of that name.
    #[error("the batch has no column '{name}'")]
    NoColumn {
        /// The name asked for.
        name: String,
    },
    /// The column holds another element type.
    #[error("column '{column}' holds {stored} and was read as {asked}")]
    Dtype {
        /// The column.
        column: String,
        /// Its element type.
        stored: Dtype,
        /// The one asked for.
        asked: Dtype,
    },
    /// The column's rows have another shape.
    #[error("column '{column}' has rows of shape {stored:?} and was read as {asked:?}")]
    Shape {
        /// The column.
        column: String,
        /// The shape of its rows.
        stored: Vec<usize>,
        /// The one asked for.
        asked: Vec<usize>,
    },
    /// A slice for each field is needed.
    #[error("{got} columns were given; the schema has {expected}")]
    Columns {
        /// Fields of the schema.
        expected: usize,
        /// Columns given.
        got: usize,
    },
    /// A column's slice is of the wrong size.
    #[error("column '{column}' has {got} bytes of memory; its rows take {expected}")]
    Bytes {
        /// The column.
        column: String,
        /// Bytes that the rows take.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// The batch was made for another schema.
    #[error("the batch has {got} bytes a row in column '{column}', where the schema has {expected}")]
    RowBytes {
        /// The column.
        column: String,
        /// Bytes of a row in the schema.
        expected: usize,
        /// Bytes of a row in the batch.
        got: usize,
    },
    /// More rows than there is room for.
    #[error("{asked} rows do not fit into a batch of {room}; make a larger batch")]
    Rows {
        /// Rows to write.
        asked: usize,
        /// Rows there is room for.
        room: usize,
    },
    /// A row that a table does not have.
    #[error("row {row} was asked for; the table has {rows}")]
    NoRow {
        /// The row.
        row: u64,
        /// Rows of the table.
        rows: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Schema {
        Schema::new(vec![Field::new("x", Dtype::F32, [3]), Field::new("flag", Dtype::Bool, [])]).unwrap()
    }

    #[test]
    fn columns_are_aligned_and_typed() {
        let mut batch = Batch::new(&schema(), 5);
        for position in 0..2 {
            assert_eq!(batch.column(position).as_ptr() as usize % 64, 0);
        }
        batch.typed_mut::<f32>("x").unwrap()[14] = 2.5;
        assert_eq!(batch.column(0)[56..60], 2.5f32.to_ne_bytes());
        assert_eq!(batch.typed::<u8>("flag").unwrap().len(), 5);
        assert_eq!(batch.typed::<f32>("y"), Err(BatchError::NoColumn { name: "y".into() }));
        let wrong = BatchError::Dtype { column: "x".into(), stored: Dtype::F32, asked: Dtype::I64 };
        assert_eq!(batch.typed::<i64>("x"), Err(wrong));
    }

    #[test]
    fn an_empty_batch_has_empty_columns() {
        assert_eq!(Batch::new(&schema(), 0).column(0), &[] as &[u8]);
    }

    #[test]
    fn a_part_of_a_batch_is_a_batch() {
        let mut batch = Batch::new(&schema(), 5);
        let mut whole = batch.view_mut();
        let mut part = whole.rows_mut(1..4);
        assert_eq!(part.rows(), 3);
        assert_eq!(part.check(&schema(), 4), Err(BatchError::Rows { asked: 4, room: 3 }));
        assert_eq!((part.column_mut(0).len(), part.column_mut(1).len()), (36, 3));
        part.rows_mut(2..3).column_mut(1)[0] = 9;
        part.cell_mut(0, 0).fill(1);
        drop(part);
        assert_eq!(whole.rows_mut(5..5).rows(), 0);
        drop(whole);
        assert_eq!(batch.typed::<u8>("flag").unwrap(), [0, 0, 0, 9, 0]);
        let ones: Vec<usize> = (0..60).filter(|byte| batch.column(0)[*byte] == 1).collect();
        assert_eq!(ones, (12..24).collect::<Vec<_>>());
    }

    #[test]
    #[should_panic(expected = "rows 3..6 of a batch of 5")]
    fn a_part_lies_within_its_batch() {
        Batch::new(&schema(), 5).view_mut().rows_mut(3..6);
    }

    #[test]
    fn lent_memory_is_checked() {
        let (mut x, mut flag, mut more) = ([0u8; 24], [0u8; 2], [0u8; 2]);
        let batch = BatchMut::new(&schema(), 2, [&mut x[..], &mut flag[..]]).unwrap();
        assert_eq!(batch.check(&schema(), 2), Ok(()));
        assert_eq!(batch.check(&schema(), 3), Err(BatchError::Rows { asked: 3, room: 2 }));
        let other =
            Schema::new(vec![Field::new("x", Dtype::F64, [3]), Field::new("f", Dtype::U8, [])]).unwrap();
        let wrong = BatchError::RowBytes { column: "x".into(), expected: 24, got: 12 };
        assert_eq!(batch.check(&other, 1), Err(wrong));
        drop(batch);
        let short = BatchMut::new(&schema(), 2, [&mut x[..23], &mut flag[..]]).unwrap_err();
        assert_eq!(short, BatchError::Bytes { column: "x".into(), expected: 24, got: 23 });
        let few = BatchMut::new(&schema(), 2, [&mut x[..]]).unwrap_err();
        assert_eq!(few, BatchError::Columns { expected: 2, got: 1 });
        let many = BatchMut::new(&schema(), 2, [&mut x[..], &mut flag[..], &mut more[..]]).unwrap_err();
        assert_eq!(many, BatchError::Columns { expected: 2, got: 3 });
    }
}
