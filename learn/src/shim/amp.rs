//! Mixed precision: `native/amp.h`.

use super::{List, ShimError, checked, pointers};
use std::ffi::{c_char, c_int, c_longlong};
use tch::Tensor;
use torch_sys::C_tensor;

/// `Autocast` of `native/amp.h`: what autocast does on one kind of device, in this thread.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Autocast {
    pub enabled: bool,
    /// Whether casts of parameters are kept for the next use.
    pub cached: bool,
    /// libtorch's number of the type.
    pub dtype: c_int,
}

unsafe extern "C" {
    fn rl_autocast(cuda: bool, now: Autocast) -> Autocast;
    fn rl_autocast_now(cuda: bool) -> Autocast;
    fn rl_unscale(
        grads: List,
        n: usize,
        scale: *const C_tensor,
        found_inf: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn rl_update_scale(
        scale: *const C_tensor,
        growth_tracker: *const C_tensor,
        found_inf: *const C_tensor,
        growth: f64,
        backoff: f64,
        interval: c_longlong,
    ) -> *mut c_char;
}

/// Puts `now` in force in this thread, and gives what was before.
pub(crate) fn set_autocast(cuda: bool, now: Autocast) -> Autocast {
    // SAFETY: sets and reads thread-local numbers of libtorch's; `dtype` is one that libtorch gave or that tch names.
    unsafe { rl_autocast(cuda, now) }
}

/// What autocast does in this thread.
pub(crate) fn autocast_now(cuda: bool) -> Autocast {
    // SAFETY: reads thread-local numbers of libtorch's.
    unsafe { rl_autocast_now(cuda) }
}

/// Multiplies `grads` by 1/`scale` in place; gives an f32 scalar, 1 when an element was not finite, else 0.
pub(crate) fn unscale(grads: &[Tensor], scale: &Tensor) -> Result<Tensor, ShimError> {
    let mut found_inf = std::ptr::null_mut();
    // SAFETY: an array of live tensor pointers for the length of the call; on success `found_inf` receives a new at::Tensor that is ours.
    unsafe {
        checked(rl_unscale(pointers(grads).as_ptr(), grads.len(), scale.as_ptr(), &mut found_inf))?;
        Ok(Tensor::from_ptr(found_inf))
    }
}

/// One update of a gradient scaler's `scale` (f32) and `growth_tracker` (i32) in place.
pub(crate) fn update_scale(
    scale: &Tensor,
    growth_tracker: &Tensor,
    found_inf: &Tensor,
    growth: f64,
    backoff: f64,
    interval: i64,
) -> Result<(), ShimError> {
    let (scale, tracker, found_inf) = (scale.as_ptr(), growth_tracker.as_ptr(), found_inf.as_ptr());
    // SAFETY: three live tensors for the length of the call, which libtorch checks for dtype.
    checked(unsafe { rl_update_scale(scale, tracker, found_inf, growth, backoff, interval) })
}
