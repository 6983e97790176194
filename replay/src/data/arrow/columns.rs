//! What of an Arrow schema can be a column, and the bytes of one.

use super::{DTYPE, EXTENSION, EXTENSION_METADATA, TENSOR};
use crate::data::{Column, Stored};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Fields};

/// Where a column is: the field of the schema, and in it the fields of structs.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) root: usize,
    inner: Vec<usize>,
    /// Whether the shape is just the number of elements in a list, for want of anything that says more.
    pub(super) is_flat: bool,
}

/// The columns in `fields`, and the other fields with why they are none.
#[derive(Clone, Debug, Default)]
pub(super) struct Columns {
    pub(super) columns: Vec<Column>,
    pub(super) places: Vec<Place>,
    pub(super) others: Vec<(String, String)>,
}

impl Columns {
    pub(super) fn of(fields: &Fields) -> Self {
        let mut found = Self::default();
        for (root, field) in fields.iter().enumerate() {
            found.add(field, "", root, &[]);
        }
        found
    }

    /// Structs lie in each other only as deep as Arrow's verifier of schemas allows, which is 64 levels.
    fn add(&mut self, field: &Field, prefix: &str, root: usize, inner: &[usize]) {
        let name = format!("{prefix}{}", field.name());
        if let DataType::Struct(fields) = field.data_type() {
            for (position, field) in fields.iter().enumerate() {
                let inner: Vec<usize> = inner.iter().copied().chain([position]).collect();
                self.add(field, &format!("{name}/"), root, &inner);
            }
            return;
        }
        match column(field) {
            Ok((stored, shape, is_flat)) => {
                self.columns.push(Column { name, stored, shape });
                self.places.push(Place { root, inner: inner.to_vec(), is_flat });
            }
            Err(why) => self.others.push((name, why)),
        }
    }
}

/// Element type and shape of a field, and whether the shape is that of a list only.
fn column(field: &Field) -> Result<(Stored, Vec<usize>, bool), String> {
    let (mut shape, mut data_type) = (Vec::new(), field.data_type());
    while let DataType::FixedSizeList(inner, size) = data_type {
        shape.push(usize::try_from(*size).ok().filter(|size| *size > 0).ok_or("is a list of nothing")?);
        data_type = inner.data_type();
    }
    let stored = match data_type {
        DataType::Boolean => Stored::Bool,
        DataType::Int8 => Stored::I8,
        DataType::UInt8 => Stored::U8,
        DataType::Int16 => Stored::I16,
        DataType::UInt16 if field.metadata().get(DTYPE).is_some_and(|dtype| dtype == "bf16") => Stored::Bf16,
        DataType::UInt16 => Stored::U16,
        DataType::Int32 => Stored::I32,
        DataType::UInt32 => Stored::U32,
        DataType::Int64 => Stored::I64,
        DataType::UInt64 => Stored::U64,
        DataType::Float16 => Stored::F16,
        DataType::Float32 => Stored::F32,
        DataType::Float64 => Stored::F64,
        DataType::List(_) | DataType::LargeList(_) => {
            return Err("holds lists of any length; cast it to lists of one length (pyarrow: `pa.list_(pa.float32(), 4)`)".into());
        }
        other => return Err(format!("is of type {other}, and not of numbers or bools")),
    };
    let elements = shape.iter().try_fold(1usize, |n, dim| n.checked_mul(*dim)).ok_or("is too large")?;
    if field.metadata().get(EXTENSION).is_none_or(|name| name != TENSOR) {
        let is_flat = shape.len() == 1;
        return Ok((stored, shape, is_flat));
    }
    let told = field.metadata().get(EXTENSION_METADATA).ok_or("is a tensor without a shape")?;
    let told = tensor_shape(told)?;
    if told.iter().try_fold(1usize, |n, dim| n.checked_mul(*dim)) != Some(elements) {
        return Err(format!("claims the shape {told:?} for {elements} elements"));
    }
    Ok((stored, told, false))
}

/// The shape in a tensor's metadata, `{"shape":[2,3]}`, with `"permutation":[0,1]` if its writer likes.
fn tensor_shape(text: &str) -> Result<Vec<usize>, String> {
    let list = |key: &str| {
        let (_, after) = text.split_once(key)?;
        let inside = after.trim_start().strip_prefix(':')?.trim_start().strip_prefix('[')?.split_once(']')?.0;
        inside.split(',').map(|dim| dim.trim().parse::<usize>().ok()).collect::<Option<Vec<_>>>()
    };
    let shape = list("\"shape\"").ok_or_else(|| format!("is a tensor without a shape ({text})"))?;
    match list("\"permutation\"") {
        Some(order) if !order.iter().copied().eq(0..shape.len()) => {
            Err("is a tensor whose dimensions are in another order; make it contiguous before it is written"
                .into())
        }
        _ => Ok(shape),
    }
}

/// Appends the elements of the column at `place`, which comes as the field `at` of `batch`, as native bytes.
pub(super) fn elements(
    batch: &RecordBatch,
    at: usize,
    place: &Place,
    out: &mut Vec<u8>,
) -> Result<(), &'static str> {
    let nulls = "has rows that are null; fill them before it is written";
    let mut array: ArrayRef = batch.columns().get(at).ok_or("is missing in a batch")?.clone();
    for &position in &place.inner {
        if array.null_count() != 0 {
            return Err(nulls);
        }
        let fields = array.as_struct_opt().ok_or("is no struct")?;
        array = fields.columns().get(position).ok_or("is missing in a batch")?.clone();
    }
    while let Some(list) = array.as_fixed_size_list_opt() {
        if list.null_count() != 0 {
            return Err(nulls);
        }
        // Batches come whole, so a list's values begin with its first row.
        let count = usize::try_from(list.value_length()).ok().and_then(|size| size.checked_mul(list.len()));
        let count =
            count.filter(|count| *count <= list.values().len()).ok_or("has lists that are too short")?;
        array = list.values().slice(0, count);
    }
    if array.null_count() != 0 {
        return Err(nulls);
    }
    if let Some(bits) = array.as_boolean_opt() {
        out.extend(bits.values().iter().map(u8::from));
        return Ok(());
    }
    let data = array.to_data();
    let width = data.data_type().primitive_width().ok_or("is not of numbers")?;
    let bytes = data.buffers().first().and_then(|buffer| {
        buffer.as_slice().get(data.offset().checked_mul(width)?..)?.get(..data.len().checked_mul(width)?)
    });
    out.extend_from_slice(bytes.ok_or("is shorter than its batch")?);
    Ok(())
}
