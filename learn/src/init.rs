//! Initial values of parameters.

use rand::RngExt;
use rl_minibatch::Rng;
use tch::{Device, Kind, Tensor};

/// A parameter of `shape`, uniform in ±`bound`, row by row from `rng` and not from libtorch's generator, so that it is the same on every device.
pub(crate) fn uniform(shape: &[i64], bound: f64, rng: &mut Rng, kind: Kind, device: Device) -> Tensor {
    let count = shape.iter().product::<i64>() as usize;
    let values: Vec<f64> = (0..count).map(|_| rng.random_range(-bound..bound)).collect();
    Tensor::from_slice(&values).reshape(shape).to_kind(kind).to_device(device).set_requires_grad(true)
}
