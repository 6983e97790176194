//! Columns of a file to rows of a buffer, and back, block by block.

use super::{BLOCK_BYTES, Cast, DataError, Stored, cast};
use crate::{Batch, Dtype, Field, Key, Pinned, Replay, ReplayError, SampleError, Schema, Writer};

/// One column of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name. Of a column inside another (an Arrow struct, a Minari dictionary) the names on the way, with `/`
    /// between.
    pub name: String,
    /// Its element type in the file.
    pub stored: Stored,
    /// The shape of a row of it, empty for a scalar.
    pub shape: Vec<usize>,
}

/// A column as somebody wants to have it.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) cast: Cast,
}

impl Wanted {
    pub(super) fn field(field: &Field, cast: Cast) -> Self {
        Self::new(&field.name, field.dtype, &field.shape, cast)
    }

    pub(super) fn new(name: &str, dtype: Dtype, shape: &[usize], cast: Cast) -> Self {
        Self { name: name.to_string(), dtype, shape: shape.to_vec(), cast }
    }

    pub(super) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    pub(super) fn row_bytes(&self) -> usize {
        self.elements() * self.dtype.size_bytes()
    }

    /// Whether `column` can be had so.
    pub(super) fn check(&self, file: &str, column: &Column) -> Result<(), DataError> {
        let plain = |shape: &[usize]| shape.iter().copied().filter(|d| *d != 1).collect::<Vec<_>>();
        if plain(&column.shape) != plain(&self.shape) {
            return Err(DataError::Shape {
                file: file.to_string(),
                column: self.name.clone(),
                expected: self.shape.clone(),
                found: column.shape.clone(),
            });
        }
        if !self.cast.allows(column.stored, self.dtype) {
            return Err(DataError::Type {
                file: file.to_string(),
                column: self.name.clone(),
                expected: self.dtype,
                found: column.stored,
            });
        }
        Ok(())
    }

    /// Appends elements as they are wanted; `first_row` is the number of the first, for messages.
    pub(super) fn convert(
        &self,
        file: &str,
        stored: Stored,
        from: &[u8],
        first_row: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), DataError> {
        cast::convert(stored, from, self.dtype, out).map_err(|position| DataError::Value {
            file: file.to_string(),
            column: self.name.clone(),
            row: first_row + (position / self.elements()) as u64,
            element: position % self.elements(),
            expected: self.dtype,
        })
    }
}

/// Takes a block: rows, and the bytes of each wanted column.
pub(super) type Sink<'a> = dyn FnMut(usize, &[Vec<u8>]) -> Result<(), DataError> + 'a;

/// A file whose columns are read side by side.
pub(super) trait Source {
    /// How messages call it.
    fn file(&self) -> String;

    /// The columns that can be read.
    fn columns(&self) -> &[Column];

    /// Gives `sink` the rows in order, block by block, the columns as `wanted` has them.
    fn blocks(&self, wanted: &[Wanted], sink: &mut Sink<'_>) -> Result<(), DataError>;

    /// The position of the column that is wanted.
    fn find(&self, wanted: &Wanted) -> Result<usize, DataError> {
        self.columns().iter().position(|column| column.name == wanted.name).ok_or_else(|| {
            DataError::NoColumn {
                file: self.file(),
                name: wanted.name.clone(),
                there: self.columns().iter().map(|column| column.name.clone()).collect(),
            }
        })
    }
}

/// The schema with a field for each column, of the type nearest to its own.
pub(super) fn schema_of(file: &str, columns: &[Column]) -> Result<Schema, DataError> {
    let field = |column: &Column| Field::new(&column.name, column.stored.dtype(), column.shape.clone());
    Schema::new(columns.iter().map(field).collect())
        .map_err(|why| DataError::Unsupported { file: file.to_string(), what: format!("{why}") })
}

/// Inserts all rows of `source`, after a look at all of them. Returns how many.
pub(super) fn import(source: &dyn Source, writer: &mut Writer, cast: Cast) -> Result<u64, DataError> {
    let schema = writer.schema().clone();
    let wanted: Vec<Wanted> = schema.fields().iter().map(|field| Wanted::field(field, cast)).collect();
    pass(source, &wanted, |rows, columns| writer.check(&schema, rows, columns))?;
    pass(source, &wanted, |rows, columns| writer.push_rows(rows, columns))
}

fn pass(
    source: &dyn Source,
    wanted: &[Wanted],
    mut take: impl FnMut(usize, &[&[u8]]) -> Result<(), ReplayError>,
) -> Result<u64, DataError> {
    let mut done = 0u64;
    source.blocks(wanted, &mut |rows, columns| {
        let columns: Vec<&[u8]> = columns.iter().map(Vec::as_slice).collect();
        take(rows, &columns).map_err(|error| refused(source.file(), done, error))?;
        done += rows as u64;
        Ok(())
    })?;
    Ok(done)
}

/// What the buffer says of a block that began at row `first`, with the file's own row numbers.
pub(super) fn refused(file: String, first: u64, error: ReplayError) -> DataError {
    match error {
        ReplayError::NotFinite { row, column, element } => {
            DataError::NotFinite { file, column, row: first + row as u64, element }
        }
        ReplayError::OutOfRange { row, column, element, value, dtype } => {
            let source = ReplayError::OutOfRange {
                row: row.saturating_add(first as usize),
                column,
                element,
                value,
                dtype,
            };
            DataError::Replay { file, source }
        }
        source => DataError::Replay { file, source },
    }
}

/// The live rows of a buffer as they were at one moment, to be walked over more than once.
pub(super) struct Live<'a> {
    pinned: Option<Pinned<'a>>,
    batch: Batch,
}

/// Calls `write` with the live rows of `replay`.
pub(super) fn with_live<T>(
    replay: &Replay,
    file: &str,
    write: impl FnOnce(&mut Live<'_>) -> Result<T, DataError>,
) -> Result<T, DataError> {
    let mut reader = replay.sampler();
    let pinned = match reader.pin() {
        Ok(pinned) => Some(pinned),
        Err(ReplayError::Sample(SampleError::Empty)) => None,
        Err(source) => return Err(DataError::Replay { file: file.to_string(), source }),
    };
    let schema = replay.schema();
    let rows = pinned.as_ref().map_or(0, |pinned| (pinned.live().end - pinned.live().start) as usize);
    let block = (BLOCK_BYTES / schema.row_bytes()).max(1).min(rows);
    write(&mut Live { pinned, batch: Batch::new(schema, block) })
}

impl Live<'_> {
    /// How many there are.
    pub(super) fn rows(&self) -> u64 {
        self.pinned.as_ref().map_or(0, |pinned| pinned.live().end - pinned.live().start)
    }

    /// Gives `write` all rows, oldest first: how many lie in the batch, and the batch.
    pub(super) fn blocks(
        &mut self,
        file: &str,
        mut write: impl FnMut(usize, &Batch) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        let Some(pinned) = &self.pinned else { return Ok(()) };
        let mut keys: Vec<Key> = Vec::with_capacity(self.batch.rows());
        let mut next = pinned.live().start;
        while next < pinned.live().end {
            let end = pinned.live().end.min(next + self.batch.rows() as u64);
            keys.clear();
            keys.extend(next..end);
            pinned
                .gather(&keys, &mut self.batch.view_mut())
                .map_err(|source| DataError::Replay { file: file.to_string(), source })?;
            write(keys.len(), &self.batch)?;
            next = end;
        }
        Ok(())
    }
}
