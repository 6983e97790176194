//! A chain of linear layers as one place in the autograd graph.

use crate::mlp::{Activation, Linear};
use crate::shim::{self, ShimError};
use tch::{Device, Kind, Tensor};

/// `layers` one after the other, with `hidden` after each but the last and `last`, if any, after that one: `[B, inputs]` → `[B, outputs]`.
/// The columns of `joined` `[B, A]`, if there, follow those of the first layer's result as the second layer's input (where a critic's action
/// enters).
///
/// It is one node of the autograd graph, which computes the gradients that are asked for and no others: where the actor's loss goes
/// through a critic, none is made for the critic's weights. On a CPU with AVX-512 the products of f32 are this crate's own, with bias and
/// ReLU folded in and up to twice as fast as MKL's on AMD's processors; elsewhere, and on a GPU, they are libtorch's. With several intra-op threads
/// large products are shared out by rows, which changes no bit of the result.
///
/// Under autocast, and for other dtypes than f32 and f64, it is [`composed`], operator by operator.
///
/// # Errors
/// When shapes, dtypes or devices do not fit, in one line. The backward pass fails when it is to be differentiated again (take [`composed`]), when
/// the graph was freed, and when a weight, `x` or `joined` has been written to since.
pub fn perceptron(
    layers: &[&Linear],
    hidden: Activation,
    last: Option<Activation>,
    x: &Tensor,
    joined: Option<&Tensor>,
) -> Result<Tensor, ShimError> {
    if !takes(x) {
        return composed(layers, hidden, last, x, joined);
    }
    let tensors = layers.iter().map(|layer| layer.tensors());
    shim::perceptron(x, joined, tensors, number(Some(hidden)), number(last))
}

/// The same as [`perceptron`], operator by operator as autograd knows them: for second derivatives, and as what it is compared with.
///
/// # Errors
/// When shapes, dtypes or devices do not fit.
pub fn composed(
    layers: &[&Linear],
    hidden: Activation,
    last: Option<Activation>,
    x: &Tensor,
    joined: Option<&Tensor>,
) -> Result<Tensor, ShimError> {
    let Some((output, before)) = layers.split_last() else {
        return Err(ShimError("a perceptron has at least one layer".to_string()));
    };
    let linear = |layer: &Linear, x: &Tensor| {
        let (weight, bias) = layer.tensors();
        x.f_linear(weight, Some(bias))
    };
    let mut x = x.shallow_clone();
    for (i, layer) in before.iter().enumerate() {
        x = hidden.apply(&linear(layer, &x)?);
        if let (0, Some(joined)) = (i, joined) {
            x = Tensor::f_cat(&[&x, joined], 1)?;
        }
    }
    let out = linear(output, &x)?;
    Ok(last.map_or_else(|| out.shallow_clone(), |last| last.apply(&out)))
}

/// Whether the shim has a kernel for `x`.
fn takes(x: &Tensor) -> bool {
    let cuda = match x.device() {
        Device::Cpu => false,
        Device::Cuda(_) => true,
        _ => return false,
    };
    matches!(x.kind(), Kind::Float | Kind::Double) && !shim::autocast_now(cuda).enabled
}

/// `RlActivation` of native/mlp.h.
fn number(activation: Option<Activation>) -> i32 {
    match activation {
        None => 0,
        Some(Activation::Relu) => 1,
        Some(Activation::Tanh) => 2,
    }
}
