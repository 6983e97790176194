//! Observations of several environments in one block of memory that can be cut into pieces for threads.

use crate::{Dtype, Obs, ObsMut};
use bytes::{Buf as _, BytesMut};
use serde::{Deserialize, Serialize};

/// One row an environment, one after the other.
///
/// A block is cut with [`split_off`](Rows::split_off), each piece is moved to the thread that fills it, and
/// [`unsplit`](Rows::unsplit) puts neighbours together again: no copy, no allocation, and no unsafe code here, because the
/// pieces are owned ranges of one counted allocation (crate bytes).
#[derive(Debug)]
pub(crate) struct Rows {
    dtype: Dtype,
    bytes: BytesMut,
}

/// Where a block starts: a cache line, which also suits any element type.
const ALIGNMENT: usize = 64;

impl Rows {
    /// `elements` zeros.
    pub(crate) fn new(dtype: Dtype, elements: usize) -> Self {
        let len = elements * size_of_element(dtype);
        let mut bytes = BytesMut::zeroed(len + ALIGNMENT);
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        bytes.advance(start);
        // Cut and not truncated: from the first cut on the pieces share a counter, which is allocated here and not in a step.
        drop(bytes.split_off(len));
        Self { dtype, bytes }
    }

    /// A block of nothing, which takes no memory.
    pub(crate) fn empty(dtype: Dtype) -> Self {
        Self { dtype, bytes: BytesMut::new() }
    }

    /// Elements in all rows together.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() / size_of_element(self.dtype)
    }

    /// All elements.
    pub(crate) fn view(&self) -> Obs<'_> {
        match self.dtype {
            Dtype::F32 => Obs::F32(bytemuck::cast_slice(&self.bytes)),
            Dtype::U8 => Obs::U8(&self.bytes),
        }
    }

    /// All elements, to be written.
    pub(crate) fn view_mut(&mut self) -> ObsMut<'_> {
        match self.dtype {
            Dtype::F32 => ObsMut::F32(bytemuck::cast_slice_mut(&mut self.bytes)),
            Dtype::U8 => ObsMut::U8(&mut self.bytes),
        }
    }

    /// Row number `row` of rows of `elements`.
    pub(crate) fn row(&self, row: usize, elements: usize) -> Obs<'_> {
        let range = row * elements..(row + 1) * elements;
        match self.view() {
            Obs::F32(values) => Obs::F32(&values[range]),
            Obs::U8(values) => Obs::U8(&values[range]),
        }
    }

    /// The same, to be written.
    pub(crate) fn row_mut(&mut self, row: usize, elements: usize) -> ObsMut<'_> {
        let range = row * elements..(row + 1) * elements;
        match self.view_mut() {
            ObsMut::F32(values) => ObsMut::F32(&mut values[range]),
            ObsMut::U8(values) => ObsMut::U8(&mut values[range]),
        }
    }

    /// Cuts off everything from `element` on.
    pub(crate) fn split_off(&mut self, element: usize) -> Self {
        Self { dtype: self.dtype, bytes: self.bytes.split_off(element * size_of_element(self.dtype)) }
    }

    /// Puts back the piece that was cut off last.
    pub(crate) fn unsplit(&mut self, piece: Self) {
        self.bytes.unsplit(piece.bytes);
    }
}

/// A block of observations as it is saved.
#[derive(Serialize, Deserialize)]
pub(crate) enum SavedRows {
    F32(Vec<f32>),
    U8(Vec<u8>),
}

impl From<Obs<'_>> for SavedRows {
    fn from(obs: Obs<'_>) -> Self {
        match obs {
            Obs::F32(values) => SavedRows::F32(values.to_vec()),
            Obs::U8(values) => SavedRows::U8(values.to_vec()),
        }
    }
}

impl SavedRows {
    pub(crate) fn len(&self) -> usize {
        match self {
            SavedRows::F32(values) => values.len(),
            SavedRows::U8(values) => values.len(),
        }
    }

    /// Whether `other` has the same bits.
    pub(crate) fn same(&self, other: &SavedRows) -> bool {
        match (self, other) {
            (SavedRows::F32(values), SavedRows::F32(other)) => {
                values.iter().map(|v| v.to_bits()).eq(other.iter().map(|v| v.to_bits()))
            }
            (SavedRows::U8(values), SavedRows::U8(other)) => values == other,
            _ => false,
        }
    }

    /// Its first values, as text.
    pub(crate) fn start(&self) -> String {
        const SHOWN: usize = 8;
        match self {
            SavedRows::F32(values) => format!("{:?}", &values[..values.len().min(SHOWN)]),
            SavedRows::U8(values) => format!("{:?}", &values[..values.len().min(SHOWN)]),
        }
    }

    /// Whether it has the element type and length of `obs`.
    pub(crate) fn fits(&self, obs: Obs<'_>) -> bool {
        match (self, obs) {
            (SavedRows::F32(values), Obs::F32(obs)) => values.len() == obs.len(),
            (SavedRows::U8(values), Obs::U8(obs)) => values.len() == obs.len(),
            _ => false,
        }
    }

    /// Copies it to memory that it [fits](SavedRows::fits).
    pub(crate) fn copy_to(&self, obs: ObsMut<'_>) {
        match (self, obs) {
            (SavedRows::F32(values), ObsMut::F32(obs)) => obs.copy_from_slice(values),
            (SavedRows::U8(values), ObsMut::U8(obs)) => obs.copy_from_slice(values),
            _ => unreachable!("the element types were compared"),
        }
    }
}

fn size_of_element(dtype: Dtype) -> usize {
    match dtype {
        Dtype::F32 => 4,
        Dtype::U8 => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_written_in_place() {
        let mut rows = Rows::new(Dtype::F32, 12);
        let (place, Obs::F32(values)) = (rows.bytes.as_ptr(), rows.view()) else { panic!("f32") };
        assert_eq!((values, place.align_offset(ALIGNMENT)), (&[0.0; 12][..], 0));
        let mut last = rows.split_off(8);
        let mut middle = rows.split_off(4);
        for (piece, value) in [(&mut rows, 1.0), (&mut middle, 2.0), (&mut last, 3.0)] {
            let ObsMut::F32(values) = piece.view_mut() else { panic!("f32") };
            values.fill(value);
        }
        rows.unsplit(middle);
        rows.unsplit(last);
        assert_eq!(rows.bytes.as_ptr(), place);
        assert_eq!(rows.row(1, 4), Obs::F32(&[2.0; 4]));
        assert_eq!(rows.row(2, 4), Obs::F32(&[3.0; 4]));
        assert_eq!(rows.len(), 12);
    }
}
