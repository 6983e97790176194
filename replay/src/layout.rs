//! How a row lies in its slot.

use crate::half_float::{FLOAT_BYTES, HALF_BYTES, HalfFloat};
use rl_minibatch::Schema;

/// All fields of a row side by side, so that reading a small row touches as few cache lines as can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// For each field of the schema where its bytes begin, and how many they are.
    pub(crate) fields: Vec<Span>,
    /// Distance from slot to slot.
    pub(crate) stride: usize,
    /// Whether any field is rounded.
    pub(crate) rounds: bool,
}

/// Where a field lies in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
    /// The slot holds such floats where a row given or asked for has f32.
    pub(crate) half: Option<HalfFloat>,
}

impl Span {
    /// Bytes of the field in a row that is given or asked for.
    #[inline]
    pub(crate) fn row_bytes(&self) -> usize {
        match self.half {
            None => self.bytes,
            Some(_) => self.bytes / HALF_BYTES * FLOAT_BYTES,
        }
    }
}

impl Layout {
    /// Slots that hold rows as `schema` has them: fields in the schema's order without gaps; slots as far apart as [`Schema::stride_bytes`] says.
    pub(crate) fn new(schema: &Schema) -> Self {
        // A schema's rows can be counted in a `usize`, so this sum does not overflow.
        let mut row_bytes = 0;
        let mut fields = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            fields.push(Span { offset: row_bytes, bytes: field.row_bytes(), half: None });
            row_bytes += field.row_bytes();
        }
        Self { fields, stride: schema.stride_bytes(), rounds: false }
    }

    /// As [`new`](Self::new), with slots as close to each other as eight bytes allow: for rows that are so many cache lines
    /// long that a line more does not matter, or that are read beside such rows.
    pub(crate) fn packed(schema: &Schema) -> Self {
        let stride = schema.row_bytes().checked_next_multiple_of(8).unwrap_or(usize::MAX);
        Self { stride, ..Self::new(schema) }
    }

    /// The same slots, for rows that are given and asked for as `schema` says: where its field is f32 and that of `slots`,
    /// the schema that this layout was made for, a 16-bit float, values are rounded on their way in and widened on their
    /// way out. All other fields must be equal.
    pub(crate) fn converting(mut self, slots: &Schema, schema: &Schema) -> Self {
        let fields = slots.fields().iter().zip(schema.fields());
        for (span, (slot, field)) in self.fields.iter_mut().zip(fields) {
            span.half = HalfFloat::of(slot.dtype).filter(|_| slot.dtype != field.dtype);
            debug_assert_eq!(span.row_bytes(), field.row_bytes());
            self.rounds |= span.half.is_some();
        }
        self
    }

    /// Bytes of a ring with `capacity` + 2 · `reserve` slots; `None` when they cannot be addressed.
    pub(crate) fn ring_bytes(&self, capacity: u64, reserve: u64) -> Option<usize> {
        usize::try_from(self.ring_bytes_wide(capacity, reserve))
            .ok()
            .filter(|bytes| *bytes <= isize::MAX as usize)
    }

    /// The same, however many there are.
    pub(crate) fn ring_bytes_wide(&self, capacity: u64, reserve: u64) -> u128 {
        (u128::from(capacity) + 2 * u128::from(reserve)) * self.stride as u128
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rl_minibatch::Dtype;

    #[test]
    fn small_rows_share_lines_and_larger_ones_begin_on_one() {
        let stride = |obs: usize, action: (Dtype, &[usize])| {
            Layout::new(&Schema::transition((Dtype::F32, &[obs]), action).unwrap()).stride
        };
        assert_eq!(stride(1, (Dtype::U8, &[])), 32); // 17 bytes
        assert_eq!(stride(4, (Dtype::I64, &[])), 64); // 48 bytes
        assert_eq!(stride(17, (Dtype::F32, &[6])), 192); // 168 bytes
        let schema = Schema::transition((Dtype::F32, &[4]), (Dtype::I64, &[])).unwrap();
        let offsets: Vec<_> = Layout::new(&schema).fields.iter().map(|span| span.offset).collect();
        assert_eq!(offsets, [0, 16, 24, 28, 32]);
        assert_eq!(Layout::packed(&schema).stride, 48);
    }

    #[test]
    fn rounded_fields_take_half_their_bytes() {
        let field = |name: &str, dtype| rl_minibatch::Field::new(name, dtype, [3]);
        let schema =
            |x| Schema::new(vec![field("x", x), field("y", Dtype::F16), field("z", Dtype::F32)]).unwrap();
        let layout = Layout::new(&schema(Dtype::Bf16)).converting(&schema(Dtype::Bf16), &schema(Dtype::F32));
        let spans: Vec<_> =
            layout.fields.iter().map(|s| (s.offset, s.bytes, s.row_bytes(), s.half)).collect();
        assert_eq!(spans, [(0, 6, 12, Some(HalfFloat::Bf16)), (6, 6, 6, None), (12, 12, 12, None)]);
        assert_eq!((layout.stride, layout.rounds), (32, true));
        let plain = Layout::new(&schema(Dtype::F32));
        assert_eq!(plain.clone().converting(&schema(Dtype::F32), &schema(Dtype::F32)), plain);
        assert!(!plain.rounds && plain != layout);
    }
}
