//! Safe calls into `native/shim.cc`. All of this crate's foreign functions are here.

use std::ffi::{CStr, c_char, c_int, c_longlong};
use tch::Tensor;
use torch_sys::C_tensor;

/// An operation of libtorch failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("libtorch: {0}")]
pub struct ShimError(pub(crate) String);

type List = *const *mut C_tensor;

unsafe extern "C" {
    fn rl_free(message: *mut c_char);
    fn rl_keep_freed_memory();
    fn rl_open_cuda() -> *mut c_char;
    fn rl_fused_adam(
        params: List,
        grads: List,
        exp_avgs: List,
        exp_avg_sqs: List,
        steps: List,
        n: usize,
        lr: *const C_tensor,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
        decoupled: bool,
        found_inf: *const C_tensor,
    ) -> *mut c_char;
    fn rl_fused_sgd(
        params: List,
        grads: List,
        momenta: List,
        n: usize,
        lr: *const C_tensor,
        momentum: f64,
        dampening: f64,
        weight_decay: f64,
        nesterov: bool,
        first: bool,
        found_inf: *const C_tensor,
    ) -> *mut c_char;
    fn rl_foreach_rmsprop(
        params: List,
        grads: List,
        square_avgs: List,
        grad_avgs: List,
        momenta: List,
        n: usize,
        lr: *const C_tensor,
        alpha: f64,
        eps: f64,
        weight_decay: f64,
        momentum: f64,
    ) -> *mut c_char;
    fn rl_foreach_lerp(targets: List, sources: List, n: usize, weight: f64) -> *mut c_char;
    fn rl_foreach_copy(targets: List, sources: List, n: usize) -> *mut c_char;
    fn rl_foreach_clip_norm(grads: List, n: usize, max_norm: f64, norm: *mut *mut C_tensor) -> *mut c_char;
}

/// Turns a message of the shim's into a `Result`, freeing it.
fn checked(message: *mut c_char) -> Result<(), ShimError> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the shim returns null or a NUL-terminated string made by strdup, which is ours to free exactly once.
    let text = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        rl_free(message);
        text
    };
    Err(ShimError(text))
}

/// The `at::Tensor*` of each tensor. They stay valid while `tensors` is borrowed; the array must outlive the call.
fn pointers(tensors: &[Tensor]) -> Vec<*mut C_tensor> {
    tensors.iter().map(|tensor| tensor.as_ptr().cast_mut()).collect()
}

fn same_length(first: &[Tensor], others: &[&[Tensor]]) {
    for other in others {
        assert_eq!(first.len(), other.len(), "tensor lists of one kernel call must have one length");
    }
}

/// Tells the C allocator to keep freed blocks (glibc; elsewhere nothing). Worth a third of a small update's time. Call once,
/// at the start of a program that trains.
pub fn keep_freed_memory() {
    // SAFETY: sets options of the allocator; no memory is passed.
    unsafe { rl_keep_freed_memory() }
}

/// Makes CUDA known to libtorch.
pub(crate) fn open_cuda() -> Result<(), ShimError> {
    // SAFETY: opens a shared library whose initialisers are libtorch's own; no memory is passed.
    checked(unsafe { rl_open_cuda() })
}

/// The numbers of one Adam step.
pub(crate) struct Adam<'a> {
    pub beta1: f64,
    pub beta2: f64,
    pub weight_decay: f64,
    pub eps: f64,
    pub decoupled: bool,
    /// An f32 scalar on the parameters' device; a step for which it is 1 does nothing.
    pub found_inf: Option<&'a Tensor>,
}

pub(crate) fn fused_adam(
    params: &[Tensor],
    grads: &[Tensor],
    exp_avgs: &[Tensor],
    exp_avg_sqs: &[Tensor],
    steps: &[Tensor],
    lr: &Tensor,
    adam: &Adam<'_>,
) -> Result<(), ShimError> {
    same_length(params, &[grads, exp_avgs, exp_avg_sqs, steps]);
    // SAFETY: each array holds `params.len()` live tensor pointers for the length of the call; the shim only reads the
    // arrays and writes through the tensors, which libtorch checks for shape and dtype.
    checked(unsafe {
        rl_fused_adam(
            pointers(params).as_ptr(),
            pointers(grads).as_ptr(),
            pointers(exp_avgs).as_ptr(),
            pointers(exp_avg_sqs).as_ptr(),
            pointers(steps).as_ptr(),
            params.len(),
            lr.as_ptr(),
            adam.beta1,
            adam.beta2,
            adam.weight_decay,
            adam.eps,
            adam.decoupled,
            pointer_or_null(adam.found_inf),
        )
    })
}

/// The numbers of one SGD step.
pub(crate) struct Sgd<'a> {
    pub momentum: f64,
    pub dampening: f64,
    pub weight_decay: f64,
    pub nesterov: bool,
    pub first: bool,
    /// An f32 scalar on the parameters' device; a step for which it is 1 does nothing.
    pub found_inf: Option<&'a Tensor>,
}

/// `momenta` is empty when the momentum is 0.
pub(crate) fn fused_sgd(
    params: &[Tensor],
    grads: &[Tensor],
    momenta: &[Tensor],
    lr: &Tensor,
    sgd: &Sgd<'_>,
) -> Result<(), ShimError> {
    same_length(params, &[grads]);
    let momenta_pointers = optional(params, momenta);
    // SAFETY: as in `fused_adam`; a null list is what the shim takes for "none".
    checked(unsafe {
        rl_fused_sgd(
            pointers(params).as_ptr(),
            pointers(grads).as_ptr(),
            null_or(&momenta_pointers),
            params.len(),
            lr.as_ptr(),
            sgd.momentum,
            sgd.dampening,
            sgd.weight_decay,
            sgd.nesterov,
            sgd.first,
            pointer_or_null(sgd.found_inf),
        )
    })
}

/// The numbers of one RMSprop step.
pub(crate) struct RmsProp {
    pub alpha: f64,
    pub eps: f64,
    pub weight_decay: f64,
    pub momentum: f64,
}

/// `grad_avgs` is empty when not centered, `momenta` when the momentum is 0.
pub(crate) fn foreach_rmsprop(
    params: &[Tensor],
    grads: &[Tensor],
    square_avgs: &[Tensor],
    grad_avgs: &[Tensor],
    momenta: &[Tensor],
    lr: &Tensor,
    rms: &RmsProp,
) -> Result<(), ShimError> {
    same_length(params, &[grads, square_avgs]);
    let (grad_avgs, momenta) = (optional(params, grad_avgs), optional(params, momenta));
    // SAFETY: as in `fused_sgd`.
    checked(unsafe {
        rl_foreach_rmsprop(
            pointers(params).as_ptr(),
            pointers(grads).as_ptr(),
            pointers(square_avgs).as_ptr(),
            null_or(&grad_avgs),
            null_or(&momenta),
            params.len(),
            lr.as_ptr(),
            rms.alpha,
            rms.eps,
            rms.weight_decay,
            rms.momentum,
        )
    })
}

/// `targets += weight · (sources − targets)`, one kernel call for all.
pub(crate) fn foreach_lerp(targets: &[Tensor], sources: &[Tensor], weight: f64) -> Result<(), ShimError> {
    same_length(targets, &[sources]);
    // SAFETY: as in `fused_adam`.
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
    // SAFETY: as in `fused_adam`.
    checked(unsafe { rl_foreach_copy(pointers(targets).as_ptr(), pointers(sources).as_ptr(), targets.len()) })
}

/// Scales `grads` in place to a joint 2-norm of at most `max_norm`; gives the norm before, still on the device.
pub(crate) fn foreach_clip_norm(grads: &[Tensor], max_norm: f64) -> Result<Tensor, ShimError> {
    let mut norm = std::ptr::null_mut();
    // SAFETY: as in `fused_adam`; on success `norm` receives a new at::Tensor that is ours.
    unsafe {
        checked(rl_foreach_clip_norm(pointers(grads).as_ptr(), grads.len(), max_norm, &mut norm))?;
        Ok(Tensor::from_ptr(norm))
    }
}

fn optional(params: &[Tensor], list: &[Tensor]) -> Vec<*mut C_tensor> {
    assert!(
        list.is_empty() || list.len() == params.len(),
        "an optional list is empty or as long as the parameters"
    );
    pointers(list)
}

fn null_or(list: &[*mut C_tensor]) -> List {
    if list.is_empty() { std::ptr::null() } else { list.as_ptr() }
}

fn pointer_or_null(tensor: Option<&Tensor>) -> *const C_tensor {
    tensor.map_or(std::ptr::null(), Tensor::as_ptr)
}

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
    fn rl_restore_if(targets: List, kept: List, n: usize, found_inf: *const C_tensor) -> *mut c_char;
    fn rl_accumulate(sums: List, terms: List, n: usize) -> *mut c_char;
    fn rl_squared_norm(tensors: List, n: usize, norm2: *mut *mut C_tensor) -> *mut c_char;
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
    // SAFETY: as in `fused_adam`; on success `found_inf` receives a new at::Tensor that is ours.
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

/// `targets = kept` where `found_inf` is not 0.
pub(crate) fn restore_if(targets: &[Tensor], kept: &[Tensor], found_inf: &Tensor) -> Result<(), ShimError> {
    same_length(targets, &[kept]);
    let n = targets.len();
    // SAFETY: as in `fused_adam`.
    checked(unsafe {
        rl_restore_if(pointers(targets).as_ptr(), pointers(kept).as_ptr(), n, found_inf.as_ptr())
    })
}

/// `sums += terms`, one kernel call for all.
pub(crate) fn accumulate(sums: &[Tensor], terms: &[Tensor]) -> Result<(), ShimError> {
    same_length(sums, &[terms]);
    // SAFETY: as in `fused_adam`.
    checked(unsafe { rl_accumulate(pointers(sums).as_ptr(), pointers(terms).as_ptr(), sums.len()) })
}

/// The joint squared 2-norm of `tensors`, at least one, as a scalar on their device.
pub(crate) fn squared_norm(tensors: &[Tensor]) -> Result<Tensor, ShimError> {
    let mut norm2 = std::ptr::null_mut();
    // SAFETY: as in `fused_adam`; on success `norm2` receives a new at::Tensor that is ours.
    unsafe {
        checked(rl_squared_norm(pointers(tensors).as_ptr(), tensors.len(), &mut norm2))?;
        Ok(Tensor::from_ptr(norm2))
    }
}
