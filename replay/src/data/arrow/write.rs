//! Writing files and streams.

use super::{DTYPE, EXTENSION, EXTENSION_METADATA, TENSOR};
use crate::data::rows::with_live;
use crate::data::{DataError, file};
use crate::{Batch, Dtype, Field, Replay};
use arrow_array::{ArrayRef, BooleanArray, FixedSizeListArray, RecordBatch, make_array};
use arrow_buffer::{BooleanBuffer, Buffer};
use arrow_data::ArrayData;
use arrow_ipc::writer::{FileWriter, StreamWriter};
use arrow_schema::{ArrowError, DataType, Field as ArrowField, Schema as ArrowSchema, SchemaRef};
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Writes the live rows of `replay` to an Arrow IPC file at `path`, the oldest row first, in record batches of some
/// megabytes. Returns how many rows. The file appears, or takes an older one's place, when it is whole and on the
/// disk.
///
/// The rows are those of one moment. Others may use the buffer meanwhile, but a writer waits if it would overwrite
/// one of them. Cost: a copy of each row; memory for one record batch.
///
/// # Errors
/// [`DataError::Io`], and [`DataError::Unsupported`] for a field of more than 2³¹ elements, which Arrow has no list for.
pub fn export(replay: &Replay, path: impl AsRef<Path>) -> Result<u64, DataError> {
    let path = path.as_ref();
    file::replace(path, |out| file_as(replay, out, &path.display().to_string()))
}

/// As [`export`], to any writer.
///
/// # Errors
/// As [`export`].
pub fn write_file(replay: &Replay, out: impl Write) -> Result<u64, DataError> {
    file_as(replay, out, "the file")
}

/// As [`export`], to any writer, as an Arrow IPC stream: for a pipe or a socket.
///
/// # Errors
/// As [`export`].
pub fn write_stream(replay: &Replay, out: impl Write) -> Result<u64, DataError> {
    let name = "the stream";
    let refused = |error| refused(name, error);
    let schema = schema_of(replay, name)?;
    let mut writer = StreamWriter::try_new(out, &schema).map_err(refused)?;
    let rows = batches(replay, &schema, name, |batch| writer.write(batch))?;
    writer.finish().map_err(refused)?;
    Ok(rows)
}

fn file_as(replay: &Replay, out: impl Write, name: &str) -> Result<u64, DataError> {
    let refused = |error| refused(name, error);
    let schema = schema_of(replay, name)?;
    let mut writer = FileWriter::try_new(out, &schema).map_err(refused)?;
    let rows = batches(replay, &schema, name, |batch| writer.write(batch))?;
    writer.finish().map_err(refused)?;
    Ok(rows)
}

fn batches(
    replay: &Replay,
    schema: &SchemaRef,
    name: &str,
    mut write: impl FnMut(&RecordBatch) -> Result<(), ArrowError>,
) -> Result<u64, DataError> {
    with_live(replay, name, |live| {
        live.blocks(name, |rows, batch| {
            let columns = (0..schema.fields().len()).map(|position| array(batch, position, rows, schema));
            columns
                .collect::<Result<Vec<_>, _>>()
                .and_then(|columns| RecordBatch::try_new(schema.clone(), columns))
                .and_then(|batch| write(&batch))
                .map_err(|error| refused(name, error))
        })?;
        Ok(live.rows())
    })
}

fn refused(name: &str, error: ArrowError) -> DataError {
    let source = match error {
        ArrowError::IoError(_, source) => source,
        other => std::io::Error::other(other),
    };
    DataError::Io { file: name.to_string(), source }
}

fn schema_of(replay: &Replay, name: &str) -> Result<SchemaRef, DataError> {
    let fields = replay.schema().fields().iter().map(|field| {
        field_of(field).ok_or_else(|| DataError::Unsupported {
            file: name.to_string(),
            what: format!(
                "rows of '{}' have too many elements for Arrow's lists; split the field",
                field.name
            ),
        })
    });
    Ok(Arc::new(ArrowSchema::new(fields.collect::<Result<Vec<_>, _>>()?)))
}

fn field_of(field: &Field) -> Option<ArrowField> {
    let mut metadata = HashMap::new();
    let item = match field.dtype {
        Dtype::Bool => DataType::Boolean,
        Dtype::U8 => DataType::UInt8,
        Dtype::I32 => DataType::Int32,
        Dtype::I64 => DataType::Int64,
        Dtype::F16 => DataType::Float16,
        Dtype::F32 => DataType::Float32,
        Dtype::F64 => DataType::Float64,
        Dtype::Bf16 => {
            metadata.insert(DTYPE.to_string(), "bf16".to_string());
            DataType::UInt16
        }
    };
    let data_type = if field.shape.is_empty() {
        item
    } else {
        let item = ArrowField::new_list_field(item, false);
        DataType::FixedSizeList(Arc::new(item), i32::try_from(field.elements()).ok()?)
    };
    if field.shape.len() > 1 {
        let dims: Vec<String> = field.shape.iter().map(usize::to_string).collect();
        metadata.insert(EXTENSION.to_string(), TENSOR.to_string());
        metadata.insert(EXTENSION_METADATA.to_string(), format!("{{\"shape\":[{}]}}", dims.join(",")));
    }
    Some(ArrowField::new(&field.name, data_type, false).with_metadata(metadata))
}

/// The first `rows` rows of a column.
fn array(batch: &Batch, position: usize, rows: usize, schema: &SchemaRef) -> Result<ArrayRef, ArrowError> {
    let field = &batch.schema().fields()[position];
    let bytes = &batch.column(position)[..rows * field.row_bytes()];
    let data_type = schema.field(position).data_type();
    let (item, size) = match data_type {
        DataType::FixedSizeList(item, size) => (item.data_type(), Some((item, *size))),
        other => (other, None),
    };
    let values = match item {
        DataType::Boolean => {
            let bits = BooleanBuffer::collect_bool(bytes.len(), |bit| bytes[bit] != 0);
            Arc::new(BooleanArray::new(bits, None)) as ArrayRef
        }
        _ => make_array(
            ArrayData::builder(item.clone())
                .len(rows * field.elements())
                .add_buffer(Buffer::from(bytes))
                .build()?,
        ),
    };
    match size {
        None => Ok(values),
        Some((item, size)) => Ok(Arc::new(FixedSizeListArray::try_new(item.clone(), size, values, None)?)),
    }
}
