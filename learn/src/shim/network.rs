//! Perceptrons, and the losses and targets of their values: `native/mlp.h`, `native/td.h`.

use super::{List, ShimError, checked};
use std::ffi::{c_char, c_int, c_longlong};
use tch::Tensor;
use torch_sys::C_tensor;

unsafe extern "C" {
    fn rl_perceptron(
        x: *const C_tensor,
        joined: *const C_tensor,
        weights: List,
        biases: List,
        layers: usize,
        hidden: c_int,
        last: c_int,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn rl_td_loss(
        q: *const C_tensor,
        action: *const C_tensor,
        target: *const C_tensor,
        weight: *const C_tensor,
        huber: bool,
        loss: *mut *mut C_tensor,
        chosen: *mut *mut C_tensor,
        magnitude: *mut *mut C_tensor,
        mean: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn rl_bootstrap(
        reward: *const C_tensor,
        discount: *const C_tensor,
        q: *const C_tensor,
        chooser: *const C_tensor,
        target: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn rl_argmax(q: *const C_tensor, out: *mut c_longlong) -> *mut c_char;
}

fn raw(tensor: Option<&Tensor>) -> *const C_tensor {
    tensor.map_or(std::ptr::null(), Tensor::as_ptr)
}

/// A chain of linear layers, one place in the autograd graph; see native/mlp.h.
pub(crate) fn perceptron<'a>(
    x: &Tensor,
    joined: Option<&Tensor>,
    layers: impl Iterator<Item = (&'a Tensor, &'a Tensor)>,
    hidden: c_int,
    last: c_int,
) -> Result<Tensor, ShimError> {
    let pointer = |tensor: &Tensor| tensor.as_ptr().cast_mut();
    let (weights, biases): (Vec<_>, Vec<_>) = layers.map(|(w, b)| (pointer(w), pointer(b))).unzip();
    let mut out = std::ptr::null_mut();
    // SAFETY: the tensors are borrowed, and so alive, for the length of the call; on success `out` receives a new
    // at::Tensor that is ours. The shim checks shapes, dtypes and devices.
    unsafe {
        checked(rl_perceptron(
            x.as_ptr(),
            raw(joined),
            weights.as_ptr(),
            biases.as_ptr(),
            weights.len(),
            hidden,
            last,
            &mut out,
        ))?;
        Ok(Tensor::from_ptr(out))
    }
}

/// The loss of temporal-difference errors on the CPU, with the chosen values, |δ| and the values' mean; see native/td.h.
pub(crate) fn td_loss(
    q: &Tensor,
    action: Option<&Tensor>,
    target: &Tensor,
    weight: &Tensor,
    huber: bool,
) -> Result<[Tensor; 4], ShimError> {
    let mut out = [std::ptr::null_mut(); 4];
    let [loss, chosen, magnitude, mean] = &mut out;
    // SAFETY: live tensors for the length of the call, whose shapes, dtypes and device the shim checks; on success each of the
    // four receives a new at::Tensor that is ours.
    unsafe {
        let (target, weight) = (target.as_ptr(), weight.as_ptr());
        checked(rl_td_loss(q.as_ptr(), raw(action), target, weight, huber, loss, chosen, magnitude, mean))?;
        Ok(out.map(|tensor| Tensor::from_ptr(tensor)))
    }
}

/// reward + discount · q(·, argmax chooser) on the CPU; see native/td.h.
pub(crate) fn bootstrap(
    reward: &Tensor,
    discount: &Tensor,
    q: &Tensor,
    chooser: Option<&Tensor>,
) -> Result<Tensor, ShimError> {
    let mut target = std::ptr::null_mut();
    // SAFETY: as in `td_loss`.
    unsafe {
        checked(rl_bootstrap(reward.as_ptr(), discount.as_ptr(), q.as_ptr(), raw(chooser), &mut target))?;
        Ok(Tensor::from_ptr(target))
    }
}

/// The first of the largest of each row of `q`, f32 `[B, n]` on the CPU.
pub(crate) fn argmax(q: &Tensor) -> Result<Vec<i64>, ShimError> {
    let mut out = vec![0; q.size().first().map_or(0, |&rows| rows as usize)];
    // SAFETY: a live tensor, of which the shim checks that it is a CPU's; `out` has a place for each of its rows.
    checked(unsafe { rl_argmax(q.as_ptr(), out.as_mut_ptr()) })?;
    Ok(out)
}
