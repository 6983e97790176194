//! Rows that are another source's, transformed.

use super::error::{LoadError, RowCause, guarded};
use super::{At, RowMut, Rows};
use crate::{Batch, BatchError, BatchMut, Element, Rng, Schema};
use parking_lot::Mutex;

/// Rows taken from the source at a time: few, so that they are still in the cache when they are transformed.
const BLOCK: usize = 8;

/// The rows of `S` sent through a function; see [`Rows::map`].
pub struct MapRows<S, F> {
    source: S,
    schema: Schema,
    seed: u64,
    map: F,
    /// Memory for a block of the source's rows, one for each thread that is reading.
    scratch: Mutex<Vec<Batch>>,
}

impl<S, F> MapRows<S, F>
where
    S: Rows,
    F: Fn(RowRef<'_>, &mut Rng, &mut RowMut<'_>) -> Result<(), RowCause> + Send + Sync,
{
    pub(super) fn new(source: S, schema: Schema, seed: u64, map: F) -> Self {
        Self { source, schema, seed, map, scratch: Mutex::new(Vec::new()) }
    }

    fn with_scratch<R>(&self, run: impl FnOnce(&mut Batch) -> R) -> R {
        let spare = self.scratch.lock().pop();
        let mut block = spare.unwrap_or_else(|| Batch::new(self.source.schema(), BLOCK));
        let result = run(&mut block);
        self.scratch.lock().push(block);
        result
    }

    fn apply(&self, at: At, block: &Batch, place: usize, cells: &mut RowMut<'_>) -> Result<(), RowCause> {
        (self.map)(RowRef { batch: block, row: place }, &mut at.rng(self.seed), cells)
    }
}

impl<S, F> Rows for MapRows<S, F>
where
    S: Rows,
    F: Fn(RowRef<'_>, &mut Rng, &mut RowMut<'_>) -> Result<(), RowCause> + Send + Sync,
{
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn rows(&self) -> u64 {
        self.source.rows()
    }

    fn read(&self, at: At, cells: &mut RowMut<'_>) -> Result<(), RowCause> {
        self.with_scratch(|block| {
            self.source.read(at, &mut RowMut::of(&mut block.view_mut(), 0))?;
            self.apply(at, block, 0, cells)
        })
    }

    fn gather(&self, rows: &[u64], passes: &[u64], out: &mut BatchMut<'_>) -> Result<(), LoadError> {
        self.with_scratch(|block| {
            for (number, (rows, passes)) in rows.chunks(BLOCK).zip(passes.chunks(BLOCK)).enumerate() {
                self.source.gather(rows, passes, &mut block.view_mut())?;
                for (place, (&row, &pass)) in rows.iter().zip(passes).enumerate() {
                    let mut cells = RowMut::of(out, number * BLOCK + place);
                    guarded(row, || self.apply(At { row, pass }, block, place, &mut cells))?;
                }
            }
            Ok(())
        })
    }
}

impl<S: Rows, F> std::fmt::Debug for MapRows<S, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MapRows")
            .field("schema", &self.schema)
            .field("rows", &self.source.rows())
            .finish_non_exhaustive()
    }
}

/// One row of a batch, to be read.
#[derive(Clone, Copy, Debug)]
pub struct RowRef<'a> {
    batch: &'a Batch,
    row: usize,
}

impl<'a> RowRef<'a> {
    /// What the row holds.
    pub fn schema(&self) -> &'a Schema {
        self.batch.schema()
    }

    /// The row's bytes in the column at `position` of the schema.
    ///
    /// # Panics
    /// When there is no such column.
    pub fn cell(&self, position: usize) -> &'a [u8] {
        let bytes = self.schema().fields()[position].row_bytes();
        &self.batch.column(position)[self.row * bytes..][..bytes]
    }

    /// The row's elements in the column called `name`; of `bool` as `u8`.
    ///
    /// # Errors
    /// [`BatchError::NoColumn`] and [`BatchError::Dtype`].
    pub fn typed<T: Element>(&self, name: &str) -> Result<&'a [T], BatchError> {
        let column = self.batch.typed::<T>(name)?;
        let elements = column.len() / self.batch.rows();
        Ok(&column[self.row * elements..][..elements])
    }
}
