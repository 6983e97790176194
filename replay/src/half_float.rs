//! f32 values held as 16-bit floats: rounding, widening back, and which values there is no room for.
//!
//! Both types round to the nearest value, of two equally near ones to that with an even last bit (IEEE 754-2019, §4.3.1).
//! Whole slices are converted by the `half` crate, which uses the processor's own instructions where it has them.

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};
use rl_minibatch::Dtype;
use std::cell::RefCell;

/// A 16-bit float in whose place a caller sees an f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HalfFloat {
    F16,
    Bf16,
}

/// Bytes of one.
pub(crate) const HALF_BYTES: usize = 2;
/// Bytes of the f32 in its place.
pub(crate) const FLOAT_BYTES: usize = 4;
/// So many are converted at once. They and what they become fit into the first-level cache beside a block of rows.
const AT_ONCE: usize = 1024;

/// Aligned memory to convert in: cells of a slot, and slices that a caller gives, may begin at any byte.
struct Scratch {
    halves: [u16; AT_ONCE],
    floats: [f32; AT_ONCE],
}

thread_local! {
    // Made once for each thread: clearing it anew would cost more than converting a row. Nothing is allocated.
    static SCRATCH: RefCell<Scratch> =
        const { RefCell::new(Scratch { halves: [0; AT_ONCE], floats: [0.0; AT_ONCE] }) };
}

impl HalfFloat {
    /// The type that holds values of `dtype`, if it is one.
    pub(crate) fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F16 => Some(Self::F16),
            Dtype::Bf16 => Some(Self::Bf16),
            _ => None,
        }
    }

    pub(crate) fn dtype(self) -> Dtype {
        match self {
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::Bf16,
        }
    }

    /// The largest finite value.
    pub(crate) fn largest(self) -> f32 {
        match self {
            Self::F16 => f16::MAX.to_f32(),
            Self::Bf16 => bf16::MAX.to_f32(),
        }
    }

    /// The bits of the least positive f32 that becomes infinite: it lies halfway between the largest value and what would
    /// be the next one, which is even.
    fn too_large(self) -> u32 {
        match self {
            Self::F16 => 65_520f32.to_bits(),
            Self::Bf16 => 0x7f7f_8000,
        }
    }

    /// The position in `floats` (f32 in native byte order) of the first one, and its value, that would not be finite,
    /// counted in elements.
    pub(crate) fn first_not_finite(self, floats: &[u8]) -> Option<(usize, f32)> {
        let (floats, least) = (floats.as_chunks::<FLOAT_BYTES>().0, self.too_large() as i32);
        // Bits of positive floats, NaN above infinity, are in the order of their values.
        let bad = |float: [u8; FLOAT_BYTES]| i32::from_ne_bytes(float) & i32::MAX >= least;
        // Without a way out on the way, so that it runs on several at once. Nearly always nothing is found.
        if !floats.iter().fold(false, |found, float| found | bad(*float)) {
            return None;
        }
        let position = floats.iter().position(|float| bad(*float))?;
        Some((position, f32::from_ne_bytes(floats[position])))
    }

    /// Has `fill` write the bytes of as many as there is room for in `floats`, no more than a [piece](pieces), where they
    /// become f32.
    pub(crate) fn widen(self, floats: &mut [u8], fill: impl FnOnce(&mut [u8])) {
        SCRATCH.with_borrow_mut(|scratch| {
            let count = floats.len() / FLOAT_BYTES;
            let halves = &mut scratch.halves[..count];
            fill(bytemuck::cast_slice_mut(halves));
            match bytemuck::try_cast_slice_mut(floats) {
                Ok(floats) => self.to_floats(halves, floats),
                Err(_) => {
                    let aligned = &mut scratch.floats[..count];
                    self.to_floats(halves, aligned);
                    floats.copy_from_slice(bytemuck::cast_slice(aligned));
                }
            }
        });
    }

    /// Rounds the f32 in `floats`, no more than a [piece](pieces), and hands the bytes of the result to `take`.
    pub(crate) fn round(self, floats: &[u8], take: impl FnOnce(&[u8])) {
        SCRATCH.with_borrow_mut(|scratch| {
            let count = floats.len() / FLOAT_BYTES;
            let halves = &mut scratch.halves[..count];
            match bytemuck::try_cast_slice(floats) {
                Ok(floats) => self.of_floats(floats, halves),
                Err(_) => {
                    let aligned = &mut scratch.floats[..count];
                    bytemuck::cast_slice_mut(aligned).copy_from_slice(floats);
                    self.of_floats(aligned, halves);
                }
            }
            take(bytemuck::cast_slice(halves));
        });
    }

    fn to_floats(self, halves: &[u16], floats: &mut [f32]) {
        match self {
            Self::F16 => halves.reinterpret_cast::<f16>().convert_to_f32_slice(floats),
            Self::Bf16 => halves.reinterpret_cast::<bf16>().convert_to_f32_slice(floats),
        }
    }

    fn of_floats(self, floats: &[f32], halves: &mut [u16]) {
        match self {
            Self::F16 => halves.reinterpret_cast_mut::<f16>().convert_from_f32_slice(floats),
            Self::Bf16 => halves.reinterpret_cast_mut::<bf16>().convert_from_f32_slice(floats),
        }
    }
}

/// How cells of `bytes` bytes each, as they lie in slots, are cut up: so many cells at once, so many bytes of each.
pub(crate) fn pieces(bytes: usize) -> (usize, usize) {
    let most = AT_ONCE * HALF_BYTES;
    ((most / bytes).max(1), bytes.min(most))
}
