//! What a row holds: its fields, their element types and shapes.

use crate::Dtype;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// One column: a name, an element type, and the shape that each row has in it (empty for a scalar).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// The column's name, unique in its schema.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Shape of one row, without the batch dimension; empty for a scalar.
    pub shape: Vec<usize>,
}

impl Field {
    /// A field named `name` of `dtype` whose rows have `shape`.
    pub fn new(name: impl Into<String>, dtype: Dtype, shape: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), dtype, shape: shape.into() }
    }

    /// Elements in one row: the product of the shape, 1 for a scalar.
    #[inline]
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of one row.
    #[inline]
    pub fn row_bytes(&self) -> usize {
        self.elements() * self.dtype.size_bytes()
    }
}

/// The fields of a row, in order. A row travels as one byte slice a field, in this order.
///
/// Cloning is cheap, and so is comparing with a clone: both share the fields.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Vec<Field>", into = "Vec<Field>")]
pub struct Schema {
    fields: Arc<[Field]>,
    /// [`Field::row_bytes`] of each, which is a product that a writer would have to make for every row.
    bytes: Arc<[usize]>,
    row_bytes: usize,
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        // A writer asks this for every row.
        Arc::ptr_eq(&self.fields, &other.fields) || self.fields == other.fields
    }
}

impl Eq for Schema {}

impl Schema {
    /// A schema of `fields`.
    ///
    /// # Errors
    /// [`SchemaError`] when there is no field, when two share a name, or when a field has no bytes or too many to count.
    pub fn new(fields: Vec<Field>) -> Result<Self, SchemaError> {
        if fields.is_empty() {
            return Err(SchemaError::Empty);
        }
        let mut total = 0usize;
        for (i, field) in fields.iter().enumerate() {
            let bytes = field.shape.iter().try_fold(field.dtype.size_bytes(), |n, d| n.checked_mul(*d));
            total = bytes.and_then(|bytes| total.checked_add(bytes)).ok_or_else(|| {
                SchemaError::TooLarge { name: field.name.clone(), shape: field.shape.clone() }
            })?;
            if fields[..i].iter().any(|other| other.name == field.name) {
                return Err(SchemaError::Repeated { name: field.name.clone() });
            }
            if field.row_bytes() == 0 {
                return Err(SchemaError::NoBytes { name: field.name.clone(), shape: field.shape.clone() });
            }
        }
        let bytes = fields.iter().map(Field::row_bytes).collect();
        Ok(Self { fields: fields.into(), bytes, row_bytes: total })
    }

    /// The row of one (possibly n-step) transition, in the order `obs`, `action`, `reward`, `discount`, `next_obs`.
    ///
    /// `obs` and `action` are (dtype, shape of one row). `reward` is the n-step return Σ γⁱ rᵢ and `discount` is
    /// γᵏ·(1 − terminated), both f32 scalars, so that a learner's target is `reward + discount · V(next_obs)` without
    /// its knowing n, or how the episode ended.
    ///
    /// # Errors
    /// [`SchemaError::NoBytes`] when a shape has a zero in it.
    pub fn transition(obs: (Dtype, &[usize]), action: (Dtype, &[usize])) -> Result<Self, SchemaError> {
        Self::new(vec![
            Field::new("obs", obs.0, obs.1),
            Field::new("action", action.0, action.1),
            Field::new("reward", Dtype::F32, []),
            Field::new("discount", Dtype::F32, []),
            Field::new("next_obs", obs.0, obs.1),
        ])
    }

    /// The fields, in the order in which a row's slices are given.
    #[inline]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// [`Field::row_bytes`] of each field, in the same order; it is not computed anew.
    #[inline]
    pub fn field_bytes(&self) -> &[usize] {
        &self.bytes
    }

    /// The position of the field called `name`.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// Bytes of one row, all fields together, without padding.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Bytes from one row to the next where rows lie side by side in one piece of memory, as a replay buffer keeps them:
    /// [`row_bytes`](Self::row_bytes) and padding, so that a row never lies across one cache line more than it has to. Up
    /// to a line of 64 bytes it is the next power of two, beyond it whole lines. `usize::MAX` where it cannot be counted.
    pub fn stride_bytes(&self) -> usize {
        if self.row_bytes <= LINE_BYTES {
            self.row_bytes.next_power_of_two()
        } else {
            self.row_bytes.checked_next_multiple_of(LINE_BYTES).unwrap_or(usize::MAX)
        }
    }

    /// Bytes that `rows` rows take side by side, padding included: `rows` × [`stride_bytes`](Self::stride_bytes). It says
    /// before anything is made what the rows of a replay buffer of this capacity will come to; the buffer's builder adds
    /// what comes on top. Exact for any number of rows.
    ///
    /// ```
    /// use rl_minibatch::{Dtype, Schema};
    /// let atari = Schema::transition((Dtype::U8, &[4, 84, 84]), (Dtype::I64, &[]))?;
    /// assert_eq!((atari.row_bytes(), atari.stride_bytes()), (56_464, 56_512));
    /// assert_eq!(atari.bytes_for(1_000_000), 56_512_000_000);
    /// # Ok::<(), rl_minibatch::SchemaError>(())
    /// ```
    pub fn bytes_for(&self, rows: u64) -> u128 {
        u128::from(rows) * self.stride_bytes() as u128
    }
}

impl TryFrom<Vec<Field>> for Schema {
    type Error = SchemaError;

    fn try_from(fields: Vec<Field>) -> Result<Self, SchemaError> {
        Self::new(fields)
    }
}

impl From<Schema> for Vec<Field> {
    fn from(schema: Schema) -> Self {
        schema.fields.to_vec()
    }
}

/// Why a schema was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// No field was given.
    #[error("a schema needs at least one field")]
    Empty,
    /// Two fields have one name.
    #[error("two fields are called '{name}'; give each a name of its own")]
    Repeated {
        /// The name.
        name: String,
    },
    /// A field's rows would hold nothing.
    #[error("field '{name}' of shape {shape:?} holds no element; every dimension must be at least 1")]
    NoBytes {
        /// The field's name.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// The bytes of a row cannot be counted in a `usize`.
    #[error("with field '{name}' of shape {shape:?} a row is larger than any memory")]
    TooLarge {
        /// The field's name.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transition_has_its_five_fields() {
        let schema = Schema::transition((Dtype::U8, &[4, 84, 84]), (Dtype::I64, &[])).unwrap();
        let names: Vec<_> = schema.fields().iter().map(|f| f.name.as_str()).collect();
        assert_eq!(names, ["obs", "action", "reward", "discount", "next_obs"]);
        assert_eq!(schema.row_bytes(), 2 * 28_224 + 8 + 4 + 4);
        assert_eq!(schema.position("reward"), Some(2));
        assert_eq!(schema.position("done"), None);
    }

    #[test]
    fn rows_side_by_side_share_lines_or_begin_on_one() {
        let schema = |bytes: usize| Schema::new(vec![Field::new("x", Dtype::U8, [bytes])]).unwrap();
        for (bytes, stride) in [(1, 1), (3, 4), (17, 32), (33, 64), (64, 64), (65, 128), (129, 192)] {
            assert_eq!(schema(bytes).stride_bytes(), stride, "{bytes} bytes");
        }
        assert_eq!(schema(17).bytes_for(0), 0);
        assert_eq!(schema(17).bytes_for(u64::MAX), u128::from(u64::MAX) * 32);
        let huge = schema(usize::MAX - 3);
        assert_eq!(huge.stride_bytes(), usize::MAX);
        assert_eq!(huge.bytes_for(u64::MAX), u128::from(u64::MAX) * usize::MAX as u128);
    }

    #[test]
    fn schemas_that_make_no_sense_are_refused() {
        assert_eq!(Schema::new(vec![]), Err(SchemaError::Empty));
        let x = || Field::new("x", Dtype::F32, []);
        assert_eq!(Schema::new(vec![x(), x()]), Err(SchemaError::Repeated { name: "x".into() }));
        let none = Schema::new(vec![Field::new("x", Dtype::F32, [3, 0])]);
        assert_eq!(none, Err(SchemaError::NoBytes { name: "x".into(), shape: vec![3, 0] }));
        let huge = Schema::new(vec![x(), Field::new("y", Dtype::F32, [usize::MAX / 4])]);
        assert_eq!(huge, Err(SchemaError::TooLarge { name: "y".into(), shape: vec![usize::MAX / 4] }));
    }

    #[test]
    fn a_stored_schema_is_checked_when_it_is_read() {
        let schema = Schema::transition((Dtype::F32, &[4]), (Dtype::I64, &[])).unwrap();
        let stored = postcard::to_stdvec(&schema).unwrap();
        assert_eq!(postcard::from_bytes::<Schema>(&stored).unwrap(), schema);
        let stored = postcard::to_stdvec(&Vec::<Field>::new()).unwrap();
        assert!(postcard::from_bytes::<Schema>(&stored).is_err());
    }
}
