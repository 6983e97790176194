//! Sums and powers in the order and precision of NumPy, so that rewards are Gymnasium's to the last bit.

use std::ops::Add;

/// How NumPy adds: short runs one by one, longer ones in eight lanes that are then added pairwise, very long ones in halves.
fn pairwise<T: Copy + Default + Add<Output = T>>(start: usize, len: usize, at: &impl Fn(usize) -> T) -> T {
    const LANES: usize = 8;
    const BLOCK: usize = 128;
    if len < LANES {
        return (start..start + len).fold(T::default(), |total, i| total + at(i));
    }
    if len > BLOCK {
        let half = len / 2 - len / 2 % LANES;
        return pairwise(start, half, at) + pairwise(start + half, len - half, at);
    }
    let mut lanes: [T; LANES] = std::array::from_fn(|lane| at(start + lane));
    let whole = len - len % LANES;
    for i in (LANES..whole).step_by(LANES) {
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total = *total + at(start + i + lane);
        }
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    let total = ((a + b) + (c + d)) + ((e + f) + (g + h));
    (whole..len).fold(total, |total, i| total + at(start + i))
}

/// `np.sum` of `len` numbers.
pub(super) fn sum(len: usize, at: impl Fn(usize) -> f64) -> f64 {
    pairwise(0, len, &at)
}

/// `np.sum(np.square(...))` of `len` numbers.
pub(super) fn sum_of_squares(len: usize, at: impl Fn(usize) -> f64) -> f64 {
    pairwise(0, len, &|i| at(i) * at(i))
}

/// `sign * np.square(action).sum() * weight`: in f32, as actions are, in which a Python number beside them is rounded to f32, too.
pub(super) fn weighted_squares(sign: f32, action: &[f32], weight: f64) -> f64 {
    let total: f32 = pairwise(0, action.len(), &|i| action[i] * action[i]);
    f64::from(sign * total * weight as f32)
}

/// `weight * np.sum(np.square(action))`, in f32 likewise.
pub(super) fn control_cost(weight: f64, action: &[f32]) -> f64 {
    weighted_squares(1.0, action, weight)
}

/// `x ** 2` of a NumPy number.
pub(super) fn square(x: f64) -> f64 {
    x * x
}

/// `np.linalg.norm`: the root of a dot product.
pub(super) fn norm<const N: usize>(vector: [f64; N]) -> f64 {
    vector.iter().fold(0.0, |total, x| total + x * x).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_rounded_where_numpy_rounds() {
        // np.sum(1 / np.arange(1, n + 1)) of NumPy 2.4.6.
        let harmonic = |n: usize| sum(n, |i| 1.0 / (i + 1) as f64);
        for (n, expected) in HARMONIC {
            assert_eq!(harmonic(n).to_bits(), expected, "{n}");
        }
    }

    /// Number of summands and the bits of the sum.
    const HARMONIC: [(usize, u64); 5] = [
        (6, 0x4003_9999_9999_9999),
        (17, 0x400b_8434_1cec_ee4c),
        (84, 0x4014_0e4e_f27a_45c7),
        (200, 0x4017_831a_8b7c_3adb),
        (1003, 0x401d_f430_22d5_231a),
    ];
}
