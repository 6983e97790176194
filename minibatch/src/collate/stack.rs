//! Rows of one shape, one under the other.

use super::CollateError;
use crate::{BatchMut, Row, Schema};

/// Copies rows given as slices, one byte slice a field in native byte order, into the first rows of `out`, and says how many
/// there were. This is for rows that lie in no [`Table`](crate::Table): read from files one by one, made as they are needed.
/// For rows of a table [`Table::gather_into`](crate::Table::gather_into) does the same from row numbers.
///
/// O(bytes copied), without allocation.
///
/// ```
/// use rl_minibatch::{Batch, Dtype, Field, Schema, stack_into};
/// let schema = Schema::new(vec![Field::new("x", Dtype::U8, [2]), Field::new("label", Dtype::U8, [])])?;
/// let mut batch = Batch::new(&schema, 4);
/// let rows: [[&[u8]; 2]; 3] = [[&[1, 2], &[0]], [&[3, 4], &[1]], [&[5, 6], &[0]]];
/// assert_eq!(stack_into(&schema, &rows, &mut batch.view_mut())?, 3);
/// assert_eq!(batch.typed::<u8>("x")?, [1, 2, 3, 4, 5, 6, 0, 0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`CollateError::RowColumns`] and [`CollateError::RowBytes`] with the row's place, and those of [`BatchMut::check`];
/// `out` is then untouched.
pub fn stack_into<'a, R: AsRef<[&'a [u8]]>>(
    schema: &Schema,
    rows: &[R],
    out: &mut BatchMut<'_>,
) -> Result<usize, CollateError> {
    out.check(schema, rows.len())?;
    let fields = schema.fields();
    for (position, row) in rows.iter().enumerate() {
        let row = row.as_ref();
        if row.len() != fields.len() {
            return Err(CollateError::RowColumns { position, expected: fields.len(), got: row.len() });
        }
        for (field, cell) in fields.iter().zip(row) {
            let (expected, got) = (field.row_bytes(), cell.len());
            if expected != got {
                return Err(CollateError::RowBytes { position, column: field.name.clone(), expected, got });
            }
        }
    }
    for column in 0..fields.len() {
        for (position, row) in rows.iter().enumerate() {
            out.cell_mut(column, position).copy_from_slice(row.as_ref()[column]);
        }
    }
    Ok(rows.len())
}

/// As [`stack_into`], for rows that are structs made by [`row!`](crate::row).
///
/// ```
/// use rl_minibatch::{Batch, Row, row, stack_rows_into};
/// row! {
///     struct Example { x: [f32; 2], label: i64 }
/// }
/// let mut batch = Batch::new(Example::schema(), 2);
/// let rows = [Example { x: [0.5, 1.0], label: 3 }, Example { x: [1.5, 2.0], label: 4 }];
/// stack_rows_into(&rows, &mut batch.view_mut())?;
/// assert_eq!(batch.typed::<i64>("label")?, [3, 4]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Those of [`BatchMut::check`]; `out` is then untouched.
pub fn stack_rows_into<R: Row>(rows: &[R], out: &mut BatchMut<'_>) -> Result<usize, CollateError> {
    out.check(R::schema(), rows.len())?;
    for (position, row) in rows.iter().enumerate() {
        row.with_columns(|cells| {
            for (column, cell) in cells.iter().enumerate() {
                out.cell_mut(column, position).copy_from_slice(cell);
            }
        });
    }
    Ok(rows.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, BatchError, Dtype, Field};

    #[test]
    fn rows_that_do_not_fit_are_named_and_nothing_is_written() {
        let schema =
            Schema::new(vec![Field::new("x", Dtype::U8, [2]), Field::new("y", Dtype::F32, [])]).unwrap();
        let mut batch = Batch::new(&schema, 2);
        let (good, y): (&[u8], &[u8]) = (&[1, 2], &[0; 4]);
        let mut stack = |rows: &[Vec<&[u8]>]| stack_into(&schema, rows, &mut batch.view_mut()).unwrap_err();
        let error = stack(&[vec![good, y], vec![good, &y[..3]]]);
        let wrong = CollateError::RowBytes { position: 1, column: "y".into(), expected: 4, got: 3 };
        assert_eq!(error, wrong);
        let error = stack(&[vec![good, y], vec![good]]);
        assert_eq!(error, CollateError::RowColumns { position: 1, expected: 2, got: 1 });
        let error = stack(&[vec![good, y], vec![good, y], vec![good, y]]);
        assert_eq!(error, CollateError::Batch(BatchError::Rows { asked: 3, room: 2 }));
        assert_eq!(batch.typed::<u8>("x").unwrap(), [0; 4]);
    }
}
