//! Rows of unequal lengths on the loader's threads: padded, or packed.

use super::{Collate, LoadError, Selection};
use crate::{CollateError, Packed, PadOptions, Padded, RaggedTable, Truncate};
use std::sync::Arc;

/// Pads rows of a [`RaggedTable`]; see [`RaggedTable::pad_into`].
///
/// ```
/// use rl_minibatch::{
///     BatchSize, Batches, Dtype, Field, LengthBucketed, Loader, PadCollate, PadOptions, RaggedTable,
/// };
/// let values = [0.0f32, 0.1, 1.0, 2.0, 2.1, 2.2];
/// let table = RaggedTable::builder(3)
///     .axis_of_lengths("time", &[2, 1, 3])
///     .ragged("time", Field::new("x", Dtype::F32, []), bytemuck::cast_slice(&values))
///     .build()?;
/// let sampler = LengthBucketed::new(&[2, 1, 3], 2, 2)?;
/// let batches = Batches::builder(sampler, 3, BatchSize::Fixed(2)).build()?;
/// let mut loader = Loader::collating(PadCollate::new(table, &PadOptions::new())?, batches).workers(1).build()?;
/// for batch in loader.epoch() {
///     let batch = batch?;
///     assert_eq!(batch.host().shape("x")?[0], batch.rows());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct PadCollate {
    table: Arc<RaggedTable>,
    /// A batch of no rows, which others are made after.
    empty: Padded,
}

impl PadCollate {
    /// Rows of `table` (to keep it for other uses, give an `Arc`), padded as `options` say.
    ///
    /// # Errors
    /// Those of [`Padded::new`].
    pub fn new(table: impl Into<Arc<RaggedTable>>, options: &PadOptions) -> Result<Self, CollateError> {
        let table = table.into();
        let empty = Padded::new(&table, options)?;
        Ok(Self { table, empty })
    }
}

impl Collate for PadCollate {
    type Output = Padded;

    fn rows(&self) -> u64 {
        self.table.rows()
    }

    fn collate(&self, drawn: &Selection<'_>, out: &mut Option<Padded>) -> Result<(), LoadError> {
        let padded = self.table.pad_into(drawn.rows, out.get_or_insert_with(|| self.empty.clone()));
        padded.map_err(|cause| LoadError::collate(drawn, cause.position(), cause))
    }
}

/// Packs rows of a [`RaggedTable`] for an LSTM or GRU; see [`RaggedTable::pack_into`].
#[derive(Clone, Debug)]
pub struct PackCollate {
    table: Arc<RaggedTable>,
    empty: Packed,
}

impl PackCollate {
    /// Rows of `table` (to keep it for other uses, give an `Arc`), packed along `axis`.
    ///
    /// # Errors
    /// Those of [`Packed::new`].
    pub fn new(
        table: impl Into<Arc<RaggedTable>>,
        axis: &str,
        truncate: Truncate,
    ) -> Result<Self, CollateError> {
        let table = table.into();
        let empty = Packed::new(&table, axis, truncate)?;
        Ok(Self { table, empty })
    }
}

impl Collate for PackCollate {
    type Output = Packed;

    fn rows(&self) -> u64 {
        self.table.rows()
    }

    fn collate(&self, drawn: &Selection<'_>, out: &mut Option<Packed>) -> Result<(), LoadError> {
        let packed = self.table.pack_into(drawn.rows, out.get_or_insert_with(|| self.empty.clone()));
        packed.map_err(|cause| LoadError::collate(drawn, cause.position(), cause))
    }
}
