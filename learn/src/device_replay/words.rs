//! A row as whole words of 8 bytes, so that it is gathered in one operation whatever its columns are.

use crate::staging::column_shape;
use crate::state::kind_of;
use rl_minibatch::Schema;
use tch::Tensor;

const WORD: usize = 8;

/// Where each field of a row lies in its words. Fields begin on whole words, which suits every element type.
#[derive(Debug)]
pub(super) struct Words {
    schema: Schema,
    /// First word of each field.
    places: Vec<usize>,
    words: usize,
}

impl Words {
    pub(super) fn new(schema: &Schema) -> Self {
        let mut words = 0;
        let place = |bytes: &usize| {
            let at = words;
            words += bytes.div_ceil(WORD);
            at
        };
        let places = schema.field_bytes().iter().map(place).collect();
        Self { schema: schema.clone(), places, words }
    }

    /// Words of a row.
    pub(super) fn count(&self) -> usize {
        self.words
    }

    /// The column of field `field` in `rows`, `[n, words]` i64: a view, whose rows lie apart.
    pub(super) fn column(&self, rows: &Tensor, field: usize) -> Tensor {
        let description = &self.schema.fields()[field];
        let kind = kind_of(description.dtype);
        let (bytes, elements) = (description.row_bytes(), description.elements() as i64);
        let n = rows.size()[0];
        let words = rows.narrow(1, self.places[field] as i64, bytes.div_ceil(WORD) as i64);
        let column = if words.kind() == kind { words } else { words.view_dtype(kind) }.narrow(1, 0, elements);
        column.view(column_shape(description, n as usize).as_slice())
    }

    /// Writes columns, each with `n` rows' bytes, as rows of words into `out`.
    pub(super) fn pack(&self, columns: &[&[u8]], n: usize, out: &mut [u8]) {
        for (column, (&bytes, &place)) in
            columns.iter().zip(self.schema.field_bytes().iter().zip(&self.places))
        {
            let rows = column.chunks_exact(bytes).zip(out.chunks_exact_mut(WORD * self.words)).take(n);
            for (from, to) in rows {
                to[WORD * place..][..bytes].copy_from_slice(from);
            }
        }
    }
}
