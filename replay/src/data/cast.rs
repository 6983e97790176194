//! Element types of files, and how they become those of a buffer.

use crate::Dtype;

/// The element type of a column in a file: more than a buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // Their names say it.
pub enum Stored {
    Bool,
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F16,
    Bf16,
    F32,
    F64,
}

impl Stored {
    /// Bytes of one element in memory.
    pub const fn size_bytes(self) -> usize {
        match self {
            Stored::Bool | Stored::I8 | Stored::U8 => 1,
            Stored::I16 | Stored::U16 | Stored::F16 | Stored::Bf16 => 2,
            Stored::I32 | Stored::U32 | Stored::F32 => 4,
            Stored::I64 | Stored::U64 | Stored::F64 => 8,
        }
    }

    /// The buffer's type that holds such elements: the same where there is one, else the smallest integer type that all
    /// of them fit into. For u64 that is i64, which needs [`Cast::Round`].
    pub const fn dtype(self) -> Dtype {
        match self {
            Stored::Bool => Dtype::Bool,
            Stored::U8 => Dtype::U8,
            Stored::I8 | Stored::I16 | Stored::U16 | Stored::I32 => Dtype::I32,
            Stored::U32 | Stored::I64 | Stored::U64 => Dtype::I64,
            Stored::F16 => Dtype::F16,
            Stored::Bf16 => Dtype::Bf16,
            Stored::F32 => Dtype::F32,
            Stored::F64 => Dtype::F64,
        }
    }

    /// Whether `self` and `dtype` have the same bytes.
    fn is(self, dtype: Dtype) -> bool {
        self.dtype() == dtype && self.size_bytes() == dtype.size_bytes() && self != Stored::U64
    }

    /// Whether every value of `self` is one of `dtype`'s.
    fn widens_to(self, dtype: Dtype) -> bool {
        use Stored::*;
        self.is(dtype)
            || match dtype {
                Dtype::Bool => false,
                Dtype::U8 => self == Bool,
                Dtype::I32 => matches!(self, Bool | I8 | U8 | I16 | U16),
                Dtype::I64 => matches!(self, Bool | I8 | U8 | I16 | U16 | I32 | U32),
                // Significands of 11, 8, 24 and 53 bits.
                Dtype::F16 | Dtype::Bf16 => matches!(self, Bool | I8 | U8),
                Dtype::F32 => matches!(self, Bool | I8 | U8 | I16 | U16 | F16 | Bf16),
                Dtype::F64 => !matches!(self, I64 | U64),
            }
    }
}

impl std::fmt::Display for Stored {
    /// As NumPy calls it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Stored::Bool => "bool",
            Stored::I8 => "int8",
            Stored::U8 => "uint8",
            Stored::I16 => "int16",
            Stored::U16 => "uint16",
            Stored::I32 => "int32",
            Stored::U32 => "uint32",
            Stored::I64 => "int64",
            Stored::U64 => "uint64",
            Stored::F16 => "float16",
            Stored::Bf16 => "bfloat16",
            Stored::F32 => "float32",
            Stored::F64 => "float64",
        })
    }
}

/// How elements of a file's type become those of a buffer's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cast {
    /// Only where every value of the one type is a value of the other: u8 → i64, f32 → f64. Anything else is refused.
    #[default]
    Widen,
    /// Any type to any other, value by value. To a float: the nearest one, f64 → f32 for instance; a finite value
    /// that would become infinite is refused. To an integer: a value that is whole and in range; others are refused.
    /// To a bool: 0 and 1.
    Round,
}

impl Cast {
    /// Whether it converts `stored` to `dtype` at all.
    pub fn allows(self, stored: Stored, dtype: Dtype) -> bool {
        self == Cast::Round || stored.widens_to(dtype)
    }
}

/// Appends to `out` the elements in `from`, native bytes of `stored`, as native bytes of `to`. On a value that `to`
/// does not have it stops with that element's position.
pub(super) fn convert(stored: Stored, from: &[u8], to: Dtype, out: &mut Vec<u8>) -> Result<(), usize> {
    if stored.is(to) && stored != Stored::Bool {
        out.extend_from_slice(from);
        return Ok(());
    }
    match stored {
        // A byte of a bool may be anything in a file.
        Stored::Bool => whole(from, to, out, |[b]: [u8; 1]| (b < 2).then_some(b.into())),
        Stored::I8 => whole(from, to, out, |b| Some(i8::from_ne_bytes(b).into())),
        Stored::U8 => whole(from, to, out, |b| Some(u8::from_ne_bytes(b).into())),
        Stored::I16 => whole(from, to, out, |b| Some(i16::from_ne_bytes(b).into())),
        Stored::U16 => whole(from, to, out, |b| Some(u16::from_ne_bytes(b).into())),
        Stored::I32 => whole(from, to, out, |b| Some(i32::from_ne_bytes(b).into())),
        Stored::U32 => whole(from, to, out, |b| Some(u32::from_ne_bytes(b).into())),
        Stored::I64 => whole(from, to, out, |b| Some(i64::from_ne_bytes(b).into())),
        Stored::U64 => whole(from, to, out, |b| Some(u64::from_ne_bytes(b).into())),
        Stored::F16 => float(from, to, out, |b| half::f16::from_ne_bytes(b).to_f64()),
        Stored::Bf16 => float(from, to, out, |b| half::bf16::from_ne_bytes(b).to_f64()),
        Stored::F32 => float(from, to, out, |b| f32::from_ne_bytes(b).into()),
        Stored::F64 => float(from, to, out, f64::from_ne_bytes),
    }
}

fn whole<const N: usize>(
    from: &[u8],
    to: Dtype,
    out: &mut Vec<u8>,
    read: impl Fn([u8; N]) -> Option<i128>,
) -> Result<(), usize> {
    match to {
        Dtype::Bool => {
            each(from, out, |b| u8::try_from(read(b)?).ok().filter(|b| *b < 2).map(u8::to_ne_bytes))
        }
        Dtype::U8 => each(from, out, |b| u8::try_from(read(b)?).ok().map(u8::to_ne_bytes)),
        Dtype::I32 => each(from, out, |b| i32::try_from(read(b)?).ok().map(i32::to_ne_bytes)),
        Dtype::I64 => each(from, out, |b| i64::try_from(read(b)?).ok().map(i64::to_ne_bytes)),
        Dtype::F16 => each(from, out, |b| to_f16(read(b)? as f64)),
        Dtype::Bf16 => each(from, out, |b| to_bf16(read(b)? as f64)),
        Dtype::F32 => each(from, out, |b| Some((read(b)? as f32).to_ne_bytes())),
        Dtype::F64 => each(from, out, |b| Some((read(b)? as f64).to_ne_bytes())),
    }
}

fn float<const N: usize>(
    from: &[u8],
    to: Dtype,
    out: &mut Vec<u8>,
    read: impl Fn([u8; N]) -> f64,
) -> Result<(), usize> {
    // Beyond every integer type, and exact in an i128.
    let integer = |value: f64| (value.fract() == 0.0 && value.abs() < 1e30).then_some(value as i128);
    match to {
        Dtype::Bool => {
            each(from, out, |b| u8::try_from(integer(read(b))?).ok().filter(|b| *b < 2).map(u8::to_ne_bytes))
        }
        Dtype::U8 => each(from, out, |b| u8::try_from(integer(read(b))?).ok().map(u8::to_ne_bytes)),
        Dtype::I32 => each(from, out, |b| i32::try_from(integer(read(b))?).ok().map(i32::to_ne_bytes)),
        Dtype::I64 => each(from, out, |b| i64::try_from(integer(read(b))?).ok().map(i64::to_ne_bytes)),
        Dtype::F16 => each(from, out, |b| to_f16(read(b))),
        Dtype::Bf16 => each(from, out, |b| to_bf16(read(b))),
        Dtype::F32 => each(from, out, |b| {
            let value = read(b);
            let near = value as f32;
            kept(value, near.is_finite()).then_some(near.to_ne_bytes())
        }),
        Dtype::F64 => each(from, out, |b| Some(read(b).to_ne_bytes())),
    }
}

fn to_f16(value: f64) -> Option<[u8; 2]> {
    let near = half::f16::from_f64(value);
    kept(value, near.is_finite()).then_some(near.to_ne_bytes())
}

fn to_bf16(value: f64) -> Option<[u8; 2]> {
    let near = half::bf16::from_f64(value);
    kept(value, near.is_finite()).then_some(near.to_ne_bytes())
}

/// NaN and infinity go through: the buffer refuses them with a message of its own.
fn kept(value: f64, near_is_finite: bool) -> bool {
    near_is_finite || !value.is_finite()
}

fn each<const A: usize, const B: usize>(
    from: &[u8],
    out: &mut Vec<u8>,
    convert: impl Fn([u8; A]) -> Option<[u8; B]>,
) -> Result<(), usize> {
    let elements = from.as_chunks::<A>().0;
    out.reserve(elements.len() * B);
    for (position, element) in elements.iter().enumerate() {
        out.extend_from_slice(&convert(*element).ok_or(position)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: [Stored; 13] = [
        Stored::Bool,
        Stored::I8,
        Stored::U8,
        Stored::I16,
        Stored::U16,
        Stored::I32,
        Stored::U32,
        Stored::I64,
        Stored::U64,
        Stored::F16,
        Stored::Bf16,
        Stored::F32,
        Stored::F64,
    ];
    const DTYPES: [Dtype; 8] =
        [Dtype::Bool, Dtype::U8, Dtype::I32, Dtype::I64, Dtype::F16, Dtype::Bf16, Dtype::F32, Dtype::F64];

    /// The outermost values of each type and some between them, as bytes.
    fn extremes(stored: Stored) -> Vec<Vec<u8>> {
        macro_rules! of {
            ($type:ty) => {
                [<$type>::MIN, <$type>::MAX, 0 as $type, 1 as $type, <$type>::MAX / (3 as $type)]
                    .map(|v| v.to_ne_bytes().to_vec())
                    .to_vec()
            };
        }
        let half = |bits: [u16; 4]| bits.map(|b| b.to_ne_bytes().to_vec()).to_vec();
        match stored {
            Stored::Bool => vec![vec![0], vec![1]],
            Stored::I8 => of!(i8),
            Stored::U8 => of!(u8),
            Stored::I16 => of!(i16),
            Stored::U16 => of!(u16),
            Stored::I32 => of!(i32),
            Stored::U32 => of!(u32),
            Stored::I64 => of!(i64),
            Stored::U64 => of!(u64),
            Stored::F16 => half([0xfbff, 0x7bff, 0x0001, 0x3555]),
            Stored::Bf16 => half([0xff7f, 0x7f7f, 0x0001, 0x3eab]),
            Stored::F32 => of!(f32),
            Stored::F64 => of!(f64),
        }
    }

    #[test]
    fn whatever_widens_comes_back_unchanged() {
        let stored_as = |dtype: Dtype| STORED.into_iter().find(|stored| stored.is(dtype)).unwrap();
        let mut pairs = 0;
        for stored in STORED {
            for dtype in DTYPES.into_iter().filter(|dtype| stored.widens_to(*dtype)) {
                pairs += 1;
                for bytes in extremes(stored) {
                    let mut wide = Vec::new();
                    convert(stored, &bytes, dtype, &mut wide).unwrap();
                    assert_eq!(wide.len(), dtype.size_bytes());
                    // Through f64, which holds all that these two can have in common.
                    let (mut a, mut b) = (Vec::new(), Vec::new());
                    convert(stored, &bytes, Dtype::F64, &mut a).unwrap();
                    convert(stored_as(dtype), &wide, Dtype::F64, &mut b).unwrap();
                    assert_eq!(a, b, "{stored} to {dtype}: {bytes:?}");
                }
            }
        }
        assert_eq!(pairs, 44);
    }

    #[test]
    fn rounding_refuses_what_is_out_of_range() {
        let round = |stored, bytes: &[u8], to| {
            let mut out = Vec::new();
            convert(stored, bytes, to, &mut out).map(|()| out)
        };
        let f64s = |values: &[f64]| values.iter().flat_map(|v| v.to_ne_bytes()).collect::<Vec<u8>>();
        assert_eq!(round(Stored::F64, &f64s(&[0.1]), Dtype::F32), Ok(0.1f32.to_ne_bytes().to_vec()));
        assert_eq!(round(Stored::F64, &f64s(&[0.0, 1e39]), Dtype::F32), Err(1));
        assert_eq!(round(Stored::F64, &f64s(&[65504.0, 70000.0]), Dtype::F16), Err(1));
        assert_eq!(round(Stored::F64, &f64s(&[3.0, 1.5]), Dtype::I64), Err(1));
        assert_eq!(round(Stored::F64, &f64s(&[255.0, 256.0]), Dtype::U8), Err(1));
        assert_eq!(round(Stored::F64, &f64s(&[1.0, 2.0]), Dtype::Bool), Err(1));
        assert_eq!(round(Stored::F64, &f64s(&[f64::NAN]), Dtype::I32), Err(0));
        assert_eq!(round(Stored::I8, &[255], Dtype::U8), Err(0));
        assert_eq!(round(Stored::U64, &u64::MAX.to_ne_bytes(), Dtype::I64), Err(0));
        assert_eq!(round(Stored::Bool, &[1, 2], Dtype::Bool), Err(1));
        // The buffer says what it thinks of these.
        let infinite = round(Stored::F64, &f64s(&[f64::INFINITY]), Dtype::F32).unwrap();
        assert_eq!(infinite, f32::INFINITY.to_ne_bytes());
        assert!(!Cast::Widen.allows(Stored::F64, Dtype::F32) && Cast::Round.allows(Stored::F64, Dtype::F32));
    }
}
