//! One call for many tensors.

use super::{List, ShimError, checked, pointers, same_length};
use std::ffi::c_char;
use tch::Tensor;
use torch_sys::C_tensor;

unsafe extern "C" {
    fn rl_foreach_clip_value(grads: List, n: usize, bound: f64) -> *mut c_char;
    fn rl_foreach_swap(first: List, second: List, n: usize) -> *mut c_char;
    fn rl_foreach_lerp(targets: List, sources: List, n: usize, weight: f64) -> *mut c_char;
    fn rl_foreach_copy(targets: List, sources: List, n: usize) -> *mut c_char;
    fn rl_foreach_clip_norm(grads: List, n: usize, max_norm: f64, norm: *mut *mut C_tensor) -> *mut c_char;
    fn rl_foreach_add(targets: List, sources: List, n: usize, alpha: f64) -> *mut c_char;
    fn rl_accumulate(sums: List, terms: List, n: usize) -> *mut c_char;
    fn rl_squared_norm(tensors: List, n: usize, norm2: *mut *mut C_tensor) -> *mut c_char;
}

/// Clamps `grads` to ±`bound` in place; nothing for none.
pub(crate) fn foreach_clip_value(grads: &[Tensor], bound: f64) -> Result<(), ShimError> {
    if grads.is_empty() {
        return Ok(());
    }
    // SAFETY: the array holds `grads.len()` live tensor pointers for the length of the call.
    checked(unsafe { rl_foreach_clip_value(pointers(grads).as_ptr(), grads.len(), bound) })
}

/// Exchanges the values of `first` and `second`, whose memory stays where it is; nothing for none.
pub(crate) fn foreach_swap(first: &[Tensor], second: &[Tensor]) -> Result<(), ShimError> {
    same_length(first, &[second]);
    if first.is_empty() {
        return Ok(());
    }
    // SAFETY: as in `foreach_clip_value`, both arrays.
    checked(unsafe { rl_foreach_swap(pointers(first).as_ptr(), pointers(second).as_ptr(), first.len()) })
}

/// `targets += weight · (sources − targets)`, one kernel call for all.
pub(crate) fn foreach_lerp(targets: &[Tensor], sources: &[Tensor], weight: f64) -> Result<(), ShimError> {
    same_length(targets, &[sources]);
    // SAFETY: as in `foreach_clip_value`.
    checked(unsafe {
        rl_foreach_lerp(pointers(targets).as_ptr(), pointers(sources).as_ptr(), targets.len(), weight)
    })
}

/// `targets = sources`, one call for all; nothing for none, which libtorch itself would refuse.
pub(crate) fn foreach_copy(targets: &[Tensor], sources: &[Tensor]) -> Result<(), ShimError> {
    same_length(targets, &[sources]);
    if targets.is_empty() {
        return Ok(());
    }
    // SAFETY: as in `foreach_clip_value`.
    checked(unsafe { rl_foreach_copy(pointers(targets).as_ptr(), pointers(sources).as_ptr(), targets.len()) })
}

/// Scales `grads` in place to a joint 2-norm of at most `max_norm`; gives the norm before, still on the device.
pub(crate) fn foreach_clip_norm(grads: &[Tensor], max_norm: f64) -> Result<Tensor, ShimError> {
    let mut norm = std::ptr::null_mut();
    // SAFETY: as in `foreach_clip_value`; on success `norm` receives a new at::Tensor that is ours.
    unsafe {
        checked(rl_foreach_clip_norm(pointers(grads).as_ptr(), grads.len(), max_norm, &mut norm))?;
        Ok(Tensor::from_ptr(norm))
    }
}

/// `targets += alpha · sources`, one kernel call for all; nothing for none.
pub(crate) fn foreach_add(targets: &[Tensor], sources: &[Tensor], alpha: f64) -> Result<(), ShimError> {
    same_length(targets, &[sources]);
    if targets.is_empty() {
        return Ok(());
    }
    // SAFETY: an array of live tensor pointers for the length of the call.
    checked(unsafe {
        rl_foreach_add(pointers(targets).as_ptr(), pointers(sources).as_ptr(), targets.len(), alpha)
    })
}

/// `sums += terms`, one kernel call for all.
pub(crate) fn accumulate(sums: &[Tensor], terms: &[Tensor]) -> Result<(), ShimError> {
    same_length(sums, &[terms]);
    // SAFETY: an array of live tensor pointers for the length of the call.
    checked(unsafe { rl_accumulate(pointers(sums).as_ptr(), pointers(terms).as_ptr(), sums.len()) })
}

/// The joint squared 2-norm of `tensors`, at least one, as a scalar on their device.
pub(crate) fn squared_norm(tensors: &[Tensor]) -> Result<Tensor, ShimError> {
    let mut norm2 = std::ptr::null_mut();
    // SAFETY: an array of live tensor pointers for the length of the call; on success `norm2` receives a new at::Tensor that is ours.
    unsafe {
        checked(rl_squared_norm(pointers(tensors).as_ptr(), tensors.len(), &mut norm2))?;
        Ok(Tensor::from_ptr(norm2))
    }
}
