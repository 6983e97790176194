//! First observations have the distributions that Gymnasium documents.
//!
//! A Kolmogorov-Smirnov test a variable: the greatest distance between the empirical and the stated distribution function
//! of N resets exceeds `CRITICAL` with a probability of about 2·exp(−2·N·CRITICAL²) = 1e-9 when they are the same, and
//! there are 12 of them. The seed is fixed, so the answer is always the same one.

use rl_envs::{ObsMut, make};
use std::f64::consts::PI;

const N: usize = 20_000;
/// √(ln(2 / 1e-9) / 2N).
const CRITICAL: f64 = 0.0231;

/// The observations of `N` resets, one column an element.
fn columns<const O: usize>(id: &str) -> [Vec<f64>; O] {
    let mut env = make(id).unwrap();
    let mut columns = std::array::from_fn(|_| Vec::with_capacity(N));
    for i in 0..N {
        let mut obs = [0.0f32; O];
        env.reset((i == 0).then_some(2024), ObsMut::F32(&mut obs)).unwrap();
        for (column, value) in columns.iter_mut().zip(obs) {
            column.push(f64::from(value));
        }
    }
    columns
}

/// The greatest distance between the distribution function of `sample` and that of the uniform one on low..high.
fn distance(mut sample: Vec<f64>, low: f64, high: f64) -> f64 {
    sample.sort_by(f64::total_cmp);
    let n = sample.len() as f64;
    let steps = sample.iter().enumerate().map(|(i, value)| {
        let expected = ((value - low) / (high - low)).clamp(0.0, 1.0);
        (expected - i as f64 / n).abs().max(((i + 1) as f64 / n - expected).abs())
    });
    steps.fold(0.0, f64::max)
}

#[track_caller]
fn assert_uniform(what: &str, sample: Vec<f64>, low: f64, high: f64) {
    // Rounding to f32 may carry a value just over a bound.
    let slack = 1e-6 * (high - low);
    assert!(sample.iter().all(|v| (low - slack..=high + slack).contains(v)), "{what} leaves {low}..{high}");
    let distance = distance(sample, low, high);
    assert!(distance < CRITICAL, "{what} is {distance} away from uniform on {low}..{high}");
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (ma, mb) = (mean(a), mean(b));
    let cross = |x: &[f64], mx: f64, y: &[f64], my: f64| -> f64 {
        x.iter().zip(y).map(|(x, y)| (x - mx) * (y - my)).sum()
    };
    cross(a, ma, b, mb) / (cross(a, ma, a, ma) * cross(b, mb, b, mb)).sqrt()
}

#[test]
fn cart_pole() {
    let columns: [Vec<f64>; 4] = columns("CartPole-v1");
    for (i, a) in columns.iter().enumerate() {
        for (j, b) in columns.iter().enumerate().skip(i + 1) {
            // Normal with deviation 1/√N when independent: six deviations, 2e-9 a pair.
            let bound = 6.0 / (N as f64).sqrt();
            assert!(correlation(a, b).abs() < bound, "variables {i} and {j} hang together");
        }
        assert_uniform(&format!("variable {i}"), a.clone(), -0.05, 0.05);
    }
}

#[test]
fn both_mountain_cars() {
    for id in ["MountainCar-v0", "MountainCarContinuous-v0"] {
        let [position, velocity] = columns(id);
        assert_uniform(id, position, -0.6, -0.4);
        assert!(velocity.iter().all(|v| *v == 0.0), "{id} starts at rest");
    }
}

#[test]
fn acrobot() {
    let [cos1, sin1, cos2, sin2, speed1, speed2] = columns("Acrobot-v1");
    let angle =
        |sin: Vec<f64>, cos: Vec<f64>| sin.into_iter().zip(cos).map(|(sin, cos)| sin.atan2(cos)).collect();
    assert_uniform("theta1", angle(sin1, cos1), -0.1, 0.1);
    assert_uniform("theta2", angle(sin2, cos2), -0.1, 0.1);
    assert_uniform("speed1", speed1, -0.1, 0.1);
    assert_uniform("speed2", speed2, -0.1, 0.1);
}

#[test]
fn pendulum() {
    let [cos, sin, speed] = columns("Pendulum-v1");
    let angles = sin.into_iter().zip(cos).map(|(sin, cos)| sin.atan2(cos)).collect();
    assert_uniform("theta", angles, -PI, PI);
    assert_uniform("speed", speed, -1.0, 1.0);
}

#[test]
fn the_test_tells_a_wrong_distribution() {
    // Against 10 % wider bounds the distance is about 0.045.
    let [position, _] = columns("MountainCar-v0");
    assert!(distance(position, -0.61, -0.39) > CRITICAL);
}
