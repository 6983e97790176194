//! Element types a column can hold.

use serde::{Deserialize, Serialize};

/// The element type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned 8-bit integer: image frames.
    U8,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer: discrete actions, as libtorch's `gather` wants them.
    I64,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// Single precision: the usual observation, action and reward.
    F32,
    /// Double precision.
    F64,
}

impl Dtype {
    /// Bytes of one element.
    #[inline]
    pub const fn size_bytes(self) -> usize {
        match self {
            Dtype::Bool | Dtype::U8 => 1,
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::I32 | Dtype::F32 => 4,
            Dtype::I64 | Dtype::F64 => 8,
        }
    }

    /// The position in `bytes` (a whole number of elements) of the first NaN or infinity, counted in elements.
    /// `None` for integer types, which cannot hold one.
    #[inline]
    pub fn first_non_finite(self, bytes: &[u8]) -> Option<usize> {
        #[inline(always)]
        fn scan<const N: usize>(bytes: &[u8], finite: impl Fn([u8; N]) -> bool) -> Option<usize> {
            bytes.as_chunks::<N>().0.iter().position(|element| !finite(*element))
        }
        match self {
            Dtype::Bool | Dtype::U8 | Dtype::I32 | Dtype::I64 => None,
            Dtype::F16 => scan(bytes, |b| half::f16::from_ne_bytes(b).is_finite()),
            Dtype::Bf16 => scan(bytes, |b| half::bf16::from_ne_bytes(b).is_finite()),
            Dtype::F32 => scan(bytes, |b| f32::from_ne_bytes(b).is_finite()),
            Dtype::F64 => scan(bytes, |b| f64::from_ne_bytes(b).is_finite()),
        }
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Dtype::Bool => "bool",
            Dtype::U8 => "u8",
            Dtype::I32 => "i32",
            Dtype::I64 => "i64",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
            Dtype::F32 => "f32",
            Dtype::F64 => "f64",
        })
    }
}
