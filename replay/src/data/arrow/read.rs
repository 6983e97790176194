//! Reading files and streams.

use super::columns::{Columns, elements};
use super::messages::Messages;
use crate::data::file::Bytes;
use crate::data::rows::{self, Column, Sink, Source, Wanted};
use crate::data::steps::{self, Imported, StepNames};
use crate::data::{BLOCK_BYTES, Cast, DataError};
use crate::{NStep, Schema, Writer};
use arrow_ipc::MessageHeader;
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::RecordBatchDecoder;
use arrow_schema::SchemaRef;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// An Arrow IPC file or stream whose schema has been read; which of the two, its first bytes tell.
///
/// Columns of numbers, bools, lists of one length of them (nested or not), and tensors can be read; those inside
/// structs too, under names like `observations/desired_goal`. Others are passed over, and named when they are asked
/// for. Compressed batches are not read, and neither are nulls. A record batch at a time is in memory.
#[derive(Clone, Debug)]
pub struct Arrow {
    bytes: Bytes,
    schema: SchemaRef,
    columns: Columns,
}

impl Arrow {
    /// Reads the schema of the file or stream at `path`.
    ///
    /// # Errors
    /// [`DataError::Io`], and [`DataError::Damaged`] when it is neither.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DataError> {
        Self::of(Bytes::Path(path.as_ref().to_path_buf()))
    }

    /// As [`open`](Self::open), of a file or stream that is in memory.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(bytes: impl Into<Arc<[u8]>>) -> Result<Self, DataError> {
        Self::of(Bytes::Memory(bytes.into()))
    }

    /// The columns that can be read.
    pub fn columns(&self) -> &[Column] {
        &self.columns.columns
    }

    /// A schema with a field for each column, of the type nearest to its own: for files of rows. (One of steps is
    /// made by
    /// [`Schema::transition`].)
    ///
    /// # Errors
    /// [`DataError::Unsupported`] when there is no column, or two of one name.
    pub fn schema(&self) -> Result<Schema, DataError> {
        rows::schema_of(&self.file(), self.columns())
    }

    /// Inserts all rows: for each field of the buffer's schema the column of its name. A list may fill a field of any
    /// shape with as many elements; a tensor has to have the field's shape. Columns without a field are passed over.
    /// Returns how many rows. The file is read twice; see the [module](crate::data).
    ///
    /// # Errors
    /// A [`DataError`] that names the file and the column; the buffer is then as it was.
    pub fn import(&self, writer: &mut Writer, cast: Cast) -> Result<u64, DataError> {
        rows::import(self, writer, cast)
    }

    /// Inserts steps, folded by `n_step`. Their columns are `names`; `next_obs` and `truncated` among them say what
    /// is done where a file lacks them. The data's end ends its last episode, as a truncation. The file is read
    /// twice.
    ///
    /// # Errors
    /// A [`DataError`] that names the file and the column; the buffer is then as it was, and `n_step` without open
    /// steps.
    pub fn import_steps(
        &self,
        names: &StepNames,
        n_step: &mut NStep,
        writer: &mut Writer,
        cast: Cast,
    ) -> Result<Imported, DataError> {
        steps::import(self, names, n_step, writer, cast)
    }

    fn of(bytes: Bytes) -> Result<Self, DataError> {
        let mut messages = Messages::open(&bytes)?;
        let no_schema = "it does not begin with a schema, so it is no Arrow IPC file or stream";
        let first = messages.next()?.ok_or_else(|| messages.damaged(no_schema.to_string()))?;
        let message = first.message();
        let schema = message.header_as_schema().ok_or_else(|| messages.damaged(no_schema.to_string()))?;
        if !schema.endianness().equals_to_target_endianness() {
            let what = "its numbers are in the other byte order; write it on a machine like this one";
            return Err(DataError::Unsupported { file: bytes.name(), what: what.to_string() });
        }
        let schema = try_fb_to_schema(schema).map_err(|error| messages.damaged(error.to_string()))?;
        let columns = Columns::of(schema.fields());
        drop(messages);
        Ok(Self { bytes, schema: Arc::new(schema), columns })
    }
}

impl Source for Arrow {
    fn file(&self) -> String {
        self.bytes.name()
    }

    fn columns(&self) -> &[Column] {
        &self.columns.columns
    }

    fn blocks(&self, wanted: &[Wanted], sink: &mut Sink<'_>) -> Result<(), DataError> {
        let file = self.file();
        let mut places = Vec::with_capacity(wanted.len());
        let mut roots: Vec<usize> = Vec::new();
        for want in wanted {
            if let Some((_, why)) = self.columns.others.iter().find(|(name, _)| *name == want.name) {
                return Err(DataError::Unsupported { file, what: format!("'{}' {why}", want.name) });
            }
            let position = self.find(want)?;
            let (column, place) = (&self.columns.columns[position], &self.columns.places[position]);
            if place.is_flat && column.shape[0] == want.elements() {
                let shape = want.shape.clone();
                want.check(&file, &Column { shape, ..column.clone() })?;
            } else {
                want.check(&file, column)?;
            }
            if !roots.contains(&place.root) {
                roots.push(place.root);
            }
            places.push((place, column.stored));
        }

        let mut messages = Messages::open(&self.bytes)?;
        let (mut first_row, mut raw) = (0u64, Vec::new());
        let mut columns = vec![Vec::new(); wanted.len()];
        while let Some(parts) = messages.next()? {
            let message = parts.message();
            match message.header_type() {
                MessageHeader::RecordBatch => {}
                // The first one; and dictionaries, which no column here needs.
                MessageHeader::Schema | MessageHeader::DictionaryBatch | MessageHeader::NONE => continue,
                other => return Err(messages.damaged(format!("it has a message of kind {other:?}"))),
            }
            let header = message
                .header_as_record_batch()
                .ok_or_else(|| messages.damaged("a batch has no header".to_string()))?;
            let (no_dictionaries, version) = (HashMap::new(), message.version());
            let batch = RecordBatchDecoder::try_new(
                &parts.body,
                header,
                self.schema.clone(),
                &no_dictionaries,
                &version,
            )
            .and_then(|decoder| decoder.with_projection(Some(&roots)).read_record_batch())
            .map_err(|error| messages.damaged(error.to_string()))?;

            let rows = batch.num_rows();
            for ((want, (place, stored)), column) in wanted.iter().zip(&places).zip(&mut columns) {
                raw.clear();
                let at = roots.iter().position(|root| *root == place.root).unwrap_or(usize::MAX);
                elements(&batch, at, place, &mut raw).map_err(|why| DataError::Unsupported {
                    file: file.clone(),
                    what: format!("'{}' {why}", want.name),
                })?;
                if rows.checked_mul(want.elements() * stored.size_bytes()) != Some(raw.len()) {
                    return Err(messages.damaged(format!("'{}' is not as long as its batch", want.name)));
                }
                column.clear();
                want.convert(&file, *stored, &raw, first_row, column)?;
            }
            sink(rows, &columns)?;
            // A batch may be large; what it took is not kept for ever.
            if raw.capacity() > 2 * BLOCK_BYTES {
                raw = Vec::new();
            }
            first_row += rows as u64;
        }
        Ok(())
    }
}
