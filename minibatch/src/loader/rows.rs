//! Where rows come from: a table, a function, or another source's rows transformed.

use super::error::{LoadError, RowCause, guarded};
use crate::{BatchError, BatchMut, Element, Rng, Schema, Table};
use rand::SeedableRng;
use std::ops::Range;
use std::sync::Arc;

/// Which row is read, and in which pass over the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The row's number.
    pub row: u64,
    /// The pass: the epoch, or the step with a sampler that has no epochs. See [`Plan::passes`](crate::Plan::passes).
    pub pass: u64,
}

impl At {
    /// A generator for what is random about the row in this pass (augmentation). It depends on the arguments and on
    /// nothing else: not on the worker, nor on what is read before.
    pub fn rng(self, seed: u64) -> Rng {
        // The mixing function of SplitMix64 (Steele, Lea and Flood 2014) between the three, so that neighbours differ in all bits.
        let mix = |x: u64| {
            let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        };
        let add = |sum: u64, x: u64| mix(sum.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_add(x));
        Rng::seed_from_u64(add(add(mix(seed), self.pass), self.row))
    }
}

/// Rows that a [`Loader`](super::Loader) can load: it reads several at once, on several threads.
///
/// [`read`](Self::read) is enough to be one; a source that copies blocks faster than row by row has a
/// [`gather`](Self::gather) of its own. What is read may depend on [`At`] and on nothing that changes, so that batches are
/// the same however many workers there are.
///
/// ```
/// use rl_minibatch::{At, Dtype, Field, RowCause, RowMut, Rows, Schema};
/// /// Files of raw pixels that are called 0.bin, 1.bin, ...
/// struct Files { schema: Schema, folder: std::path::PathBuf, rows: u64 }
/// impl Rows for Files {
///     fn schema(&self) -> &Schema { &self.schema }
///     fn rows(&self) -> u64 { self.rows }
///     fn read(&self, at: At, cells: &mut RowMut<'_>) -> Result<(), RowCause> {
///         cells.write(0, &std::fs::read(self.folder.join(format!("{}.bin", at.row)))?)?;
///         Ok(())
///     }
/// }
/// ```
pub trait Rows: Send + Sync {
    /// What a row holds.
    fn schema(&self) -> &Schema;

    /// How many there are; numbers go from 0.
    fn rows(&self) -> u64;

    /// Writes one row into `cells`, all of its columns: memory is reused and holds another row before.
    ///
    /// # Errors
    /// The row's own; the loader reports it with the row's number.
    fn read(&self, at: At, cells: &mut RowMut<'_>) -> Result<(), RowCause>;

    /// Writes `rows`, in that order, into the first rows of `out`; `passes` has the pass of each.
    ///
    /// # Errors
    /// [`LoadError`] of the first row that cannot be read, panics included.
    fn gather(&self, rows: &[u64], passes: &[u64], out: &mut BatchMut<'_>) -> Result<(), LoadError> {
        for (place, (&row, &pass)) in rows.iter().zip(passes).enumerate() {
            let at = At { row, pass };
            guarded(row, || self.read(at, &mut RowMut::of(out, place)))?;
        }
        Ok(())
    }

    /// These rows sent through `map`, one by one, to rows of `schema`: decoding, normalizing, augmentation. It gets the row as it was,
    /// a generator seeded with `seed`, the pass and the row's number, and the cells to write.
    ///
    /// ```
    /// use rl_minibatch::{Dtype, Field, Rows, Schema, Table};
    /// use rand::RngExt;
    /// let pixels = Schema::new(vec![Field::new("image", Dtype::U8, [4])])?;
    /// let table = Table::new(&pixels, 2, &[&[0, 1, 2, 3, 4, 5, 6, 7]])?;
    /// // To floats between 0 and 1, mirrored in half of all passes.
    /// let floats = Schema::new(vec![Field::new("image", Dtype::F32, [4])])?;
    /// let augmented = table.map(floats, 7, |image, rng, out| {
    ///     let mut values: Vec<f32> = image.cell(0).iter().map(|v| f32::from(*v) / 255.0).collect();
    ///     if rng.random() { values.reverse(); }
    ///     out.write(0, &values)?;
    ///     Ok(())
    /// });
    /// assert_eq!(augmented.rows(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn map<F>(self, schema: Schema, seed: u64, map: F) -> super::MapRows<Self, F>
    where
        Self: Sized,
        F: Fn(super::RowRef<'_>, &mut Rng, &mut RowMut<'_>) -> Result<(), RowCause> + Send + Sync,
    {
        super::MapRows::new(self, schema, seed, map)
    }
}

impl<R: Rows + ?Sized> Rows for Arc<R> {
    fn schema(&self) -> &Schema {
        (**self).schema()
    }

    fn rows(&self) -> u64 {
        (**self).rows()
    }

    fn read(&self, at: At, cells: &mut RowMut<'_>) -> Result<(), RowCause> {
        (**self).read(at, cells)
    }

    fn gather(&self, rows: &[u64], passes: &[u64], out: &mut BatchMut<'_>) -> Result<(), LoadError> {
        (**self).gather(rows, passes, out)
    }
}

impl Rows for Table {
    fn schema(&self) -> &Schema {
        self.schema()
    }

    fn rows(&self) -> u64 {
        self.rows()
    }

    fn read(&self, at: At, cells: &mut RowMut<'_>) -> Result<(), RowCause> {
        Ok(self.gather_into(&[at.row], &mut cells.0)?)
    }

    fn gather(&self, rows: &[u64], _passes: &[u64], out: &mut BatchMut<'_>) -> Result<(), LoadError> {
        Ok(self.gather_into(rows, out)?)
    }
}

/// Rows that a function makes.
#[derive(Clone, Debug)]
pub struct FnRows<F> {
    schema: Schema,
    rows: u64,
    read: F,
}

impl<F> FnRows<F>
where
    F: Fn(At, &mut RowMut<'_>) -> Result<(), RowCause> + Send + Sync,
{
    /// `rows` rows of `schema`, which `read` writes.
    pub fn new(schema: Schema, rows: u64, read: F) -> Self {
        Self { schema, rows, read }
    }
}

impl<F> Rows for FnRows<F>
where
    F: Fn(At, &mut RowMut<'_>) -> Result<(), RowCause> + Send + Sync,
{
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn read(&self, at: At, cells: &mut RowMut<'_>) -> Result<(), RowCause> {
        (self.read)(at, cells)
    }
}

/// One row of a batch, to be written.
#[derive(Debug)]
pub struct RowMut<'a>(BatchMut<'a>);

impl<'a> RowMut<'a> {
    /// Row `row` of `batch`.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn of(batch: &'a mut BatchMut<'_>, row: usize) -> Self {
        let Range { start, end } = row..row + 1;
        Self(batch.rows_mut(start..end))
    }

    /// The row's bytes in the column at `position` of the schema.
    ///
    /// # Panics
    /// When there is no such column.
    pub fn cell_mut(&mut self, position: usize) -> &mut [u8] {
        self.0.column_mut(position)
    }

    /// Writes the row's elements in the column at `position`: all of them, in native byte order.
    ///
    /// # Errors
    /// [`BatchError::Bytes`] when they do not fill the cell.
    ///
    /// # Panics
    /// When there is no such column.
    pub fn write<T: Element>(&mut self, position: usize, elements: &[T]) -> Result<(), BatchError> {
        let (cell, bytes): (_, &[u8]) = (self.cell_mut(position), bytemuck::cast_slice(elements));
        if cell.len() != bytes.len() {
            let column = format!("number {position}");
            return Err(BatchError::Bytes { column, expected: cell.len(), got: bytes.len() });
        }
        cell.copy_from_slice(bytes);
        Ok(())
    }
}
