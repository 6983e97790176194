//! Powers of many numbers at once. `f64::powf` takes one at a time, which makes it a large part of a prioritized step.

/// √2, where the mantissa is folded so that it lies around 1.
const FOLD: f64 = std::f64::consts::SQRT_2;
/// 2⁵²: what is added to it as an integer shows in the lowest bits.
const SHIFT: f64 = 4_503_599_627_370_496.0;
/// 1.5 · 2⁵²: adding it rounds to an integer, negative ones too.
const ROUND: f64 = 6_755_399_441_055_744.0;
/// Of 2^f = Σ (f ln 2)ⁿ / n!, the coefficients from n = 10 down to 1. |f| ≤ ½, so what is left out is below 3·10⁻¹³.
const EXP2: [f64; 10] = {
    let mut coefficients = [0.0; 10];
    let (mut n, mut term) = (1, 1.0);
    while n <= 10 {
        term *= std::f64::consts::LN_2 / n as f64;
        coefficients[10 - n] = term;
        n += 1;
    }
    coefficients
};

/// Replaces each x of `values` by x to the power of `exponent`, with a relative error below 10⁻¹² (exponents within ±1).
///
/// Each x must be 0, or positive and neither infinite nor subnormal; 0 to the power of 0 is 1. Without a branch or a
/// call in the loop, so the compiler works on several values at a time; and from additions and multiplications alone, so
/// that it gives the same bits on every machine.
///
/// ```
/// let mut values = [0.0, 0.25, 2.0];
/// rl_minibatch::powers(&mut values, 0.5);
/// assert_eq!(values[0], 0.0);
/// assert!((values[1] - 0.5).abs() < 1e-12 && (values[2] - 2f64.sqrt()).abs() < 1e-12);
/// ```
pub fn powers(values: &mut [f64], exponent: f64) {
    let at_zero = if exponent == 0.0 { 1.0 } else { 0.0 };
    for value in values {
        let power = exp2((exponent * log2(*value)).clamp(-1022.0, 1023.0));
        *value = if *value == 0.0 { at_zero } else { power };
    }
}

/// log₂ x = e + 2/ln 2 · artanh((m − 1)/(m + 1)) for x = m·2ᵉ.
#[inline(always)]
pub(crate) fn log2(x: f64) -> f64 {
    let bits = x.to_bits();
    let exponent = f64::from_bits((bits >> 52) | SHIFT.to_bits()) - SHIFT - 1023.0;
    let mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | 1f64.to_bits());
    let large = mantissa > FOLD;
    let mantissa = if large { 0.5 * mantissa } else { mantissa };
    let exponent = if large { exponent + 1.0 } else { exponent };
    // |t| ≤ 0.1716, so the first term left out, t¹⁴/15, is below 2·10⁻¹².
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let square = t * t;
    let mut series = 1.0 / 13.0;
    for n in [11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        series = series * square + 1.0 / n;
    }
    exponent + (2.0 * std::f64::consts::LOG2_E) * t * series
}

/// 2^y for −1022 ≤ y ≤ 1023: the integer next to y goes into the exponent, the rest through a series.
#[inline(always)]
fn exp2(y: f64) -> f64 {
    let rounded = y + ROUND;
    let fraction = y - (rounded - ROUND);
    let scale = f64::from_bits((rounded.to_bits() << 52).wrapping_add(1023 << 52));
    let mut series = 0.0;
    for coefficient in EXP2 {
        series = (series + coefficient) * fraction;
    }
    scale * (series + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agree_with_powf() {
        for exponent in [-1.0, -0.4, 0.0, 0.3, 0.6, 1.0] {
            // From the smallest subnormal f32 to beyond its largest number, and around the fold.
            let xs: Vec<f64> = (-1500..1300).map(|n| 1.07f64.powi(n)).collect();
            let mut values = xs.clone();
            powers(&mut values, exponent);
            for (x, value) in xs.iter().zip(&values) {
                let expected = x.powf(exponent);
                assert!(((value - expected) / expected).abs() < 1e-12, "{x} ^ {exponent} = {value}");
            }
        }
    }

    #[test]
    fn zero_is_as_powf_has_it() {
        for exponent in [0.0, 0.6, 1.0] {
            let mut values = [0.0];
            powers(&mut values, exponent);
            assert_eq!(values[0], 0f64.powf(exponent));
        }
    }

    #[test]
    fn larger_numbers_have_larger_powers() {
        let mut values: Vec<f64> = (1..10_000).map(|n| f64::from(n) / 777.0).collect();
        powers(&mut values, 0.6);
        assert!(values.is_sorted());
    }
}
