//! A fixed table: the rows of a supervised data set.

use crate::gather::gather_column;
use crate::{Batch, BatchError, BatchMut, Schema};

/// Rows that do not change, kept as columns: what a ring of transitions is to replay, a table is to supervised data.
/// The same samplers draw from both; here row numbers run from 0 to `rows`.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Batch,
}

impl Table {
    /// A table of `rows` rows, copied from `columns`: one slice of `rows` × `row_bytes` bytes for each field of
    /// `schema`, in its order and in native byte order.
    ///
    /// # Errors
    /// [`BatchError::Columns`] and [`BatchError::Bytes`].
    pub fn new(schema: &Schema, rows: usize, columns: &[&[u8]]) -> Result<Self, BatchError> {
        let fields = schema.fields();
        if columns.len() != fields.len() {
            return Err(BatchError::Columns { expected: fields.len(), got: columns.len() });
        }
        for (field, column) in fields.iter().zip(columns) {
            if field.row_bytes().checked_mul(rows) != Some(column.len()) {
                let expected = field.row_bytes().saturating_mul(rows);
                return Err(BatchError::Bytes { column: field.name.clone(), expected, got: column.len() });
            }
        }
        let mut owned = Batch::new(schema, rows);
        for (position, column) in columns.iter().enumerate() {
            owned.column_mut(position).copy_from_slice(column);
        }
        Ok(Self { columns: owned })
    }

    /// What a row holds.
    pub fn schema(&self) -> &Schema {
        self.columns.schema()
    }

    /// The number of rows.
    pub fn rows(&self) -> u64 {
        self.columns.rows() as u64
    }

    /// All rows, in order, as one batch that nobody can write to.
    pub fn columns(&self) -> &Batch {
        &self.columns
    }

    /// Copies `rows`, in that order, into the first rows of `out`: the collation called "stack". O(bytes copied), without allocation.
    ///
    /// # Errors
    /// [`BatchError::NoRow`] for a row number past the end, and those of [`BatchMut::check`]; `out` is then untouched.
    pub fn gather_into(&self, rows: &[u64], out: &mut BatchMut<'_>) -> Result<(), BatchError> {
        out.check(self.schema(), rows.len())?;
        if let Some(&row) = rows.iter().find(|row| **row >= self.rows()) {
            return Err(BatchError::NoRow { row, rows: self.rows() });
        }
        for (position, field) in self.schema().fields().iter().enumerate() {
            let row_bytes = field.row_bytes();
            let cells = &mut out.column_mut(position)[..rows.len() * row_bytes];
            gather_column(self.columns.column(position), rows, row_bytes, cells);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dtype, Field};

    #[test]
    fn gathers_rows_in_the_order_asked() {
        let schema =
            Schema::new(vec![Field::new("x", Dtype::F32, [2]), Field::new("label", Dtype::I64, [])]).unwrap();
        let x = [0.0f32, 0.5, 1.0, 1.5, 2.0, 2.5];
        let labels = [10i64, 11, 12];
        let table =
            Table::new(&schema, 3, &[bytemuck::cast_slice(&x), bytemuck::cast_slice(&labels)]).unwrap();
        let mut batch = Batch::new(&schema, 4);
        table.gather_into(&[2, 0, 2], &mut batch.view_mut()).unwrap();
        assert_eq!(batch.typed::<f32>("x").unwrap(), [2.0, 2.5, 0.0, 0.5, 2.0, 2.5, 0.0, 0.0]);
        assert_eq!(batch.typed::<i64>("label").unwrap(), [12, 10, 12, 0]);

        let before = batch.column(0).to_vec();
        let error = table.gather_into(&[1, 3], &mut batch.view_mut()).unwrap_err();
        assert_eq!(error, BatchError::NoRow { row: 3, rows: 3 });
        assert_eq!(batch.column(0), before);
        let error = table.gather_into(&[0; 5], &mut batch.view_mut()).unwrap_err();
        assert_eq!(error, BatchError::Rows { asked: 5, room: 4 });
    }

    #[test]
    fn refuses_columns_of_the_wrong_length() {
        let schema = Schema::new(vec![Field::new("x", Dtype::F32, [2])]).unwrap();
        let error = Table::new(&schema, 3, &[&[0; 20]]).unwrap_err();
        assert_eq!(error, BatchError::Bytes { column: "x".into(), expected: 24, got: 20 });
        assert_eq!(Table::new(&schema, 3, &[]).unwrap_err(), BatchError::Columns { expected: 1, got: 0 });
    }
}
