//! Safe calls into `native/shim.cc`. All of this crate's foreign functions are here.

use std::any::Any;
use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
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
pub(crate) struct Adam {
    pub beta1: f64,
    pub beta2: f64,
    pub weight_decay: f64,
    pub eps: f64,
    pub decoupled: bool,
}

pub(crate) fn fused_adam(
    params: &[Tensor],
    grads: &[Tensor],
    exp_avgs: &[Tensor],
    exp_avg_sqs: &[Tensor],
    steps: &[Tensor],
    lr: &Tensor,
    adam: &Adam,
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
        )
    })
}

/// The numbers of one SGD step.
pub(crate) struct Sgd {
    pub momentum: f64,
    pub dampening: f64,
    pub weight_decay: f64,
    pub nesterov: bool,
    pub first: bool,
}

/// `momenta` is empty when the momentum is 0.
pub(crate) fn fused_sgd(
    params: &[Tensor],
    grads: &[Tensor],
    momenta: &[Tensor],
    lr: &Tensor,
    sgd: &Sgd,
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

unsafe extern "C" {
    fn rl_message(text: *const c_char) -> *mut c_char;
    fn rl_with_backward(
        output: *const C_tensor,
        inputs: List,
        n_inputs: usize,
        saved: List,
        n_saved: usize,
        context: *mut c_void,
        call: CallBackward,
        drop: unsafe extern "C" fn(*mut c_void),
        result: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn rl_backward(
        outputs: List,
        grads: List,
        n_outputs: usize,
        inputs: List,
        n_inputs: usize,
        results: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn rl_foreach_add(targets: List, sources: List, n: usize, alpha: f64) -> *mut c_char;
}

type CallBackward = unsafe extern "C" fn(
    *mut c_void,
    *mut C_tensor,
    *mut *mut C_tensor,
    usize,
    *mut *mut C_tensor,
    usize,
) -> *mut c_char;

/// A backward pass: from the gradient of the output and the saved tensors to the gradient of each input, `None` where none is wanted.
/// It runs without autograd, on the thread that called the backward pass (for CUDA tensors: on libtorch's thread of that device).
pub(crate) type Backward = Box<dyn FnMut(&Tensor, &[Tensor]) -> Result<Vec<Option<Tensor>>, String> + Send>;

/// What a panic said.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_string()
}

unsafe extern "C" fn call_backward(
    context: *mut c_void,
    grad: *mut C_tensor,
    saved: *mut *mut C_tensor,
    n_saved: usize,
    results: *mut *mut C_tensor,
    n_inputs: usize,
) -> *mut c_char {
    // SAFETY: the node passes the context of `with_backward`, a `Box<Backward>` that it alone holds and calls under its
    // mutex; every tensor pointer is a new at::Tensor that is ours; `results` has room for `n_inputs`.
    let answer = catch_unwind(AssertUnwindSafe(|| unsafe {
        let grad = Tensor::from_ptr(grad);
        let saved: Vec<Tensor> = (0..n_saved).map(|i| Tensor::from_ptr(*saved.add(i))).collect();
        let backward = &mut *context.cast::<Backward>();
        let found = backward(&grad, &saved)?;
        if found.len() != n_inputs {
            return Err(format!("a backward pass gave {} gradients for {n_inputs} inputs", found.len()));
        }
        for (i, gradient) in found.into_iter().enumerate() {
            if let Some(gradient) = gradient {
                // The handle's at::Tensor goes over to the node.
                *results.add(i) = std::mem::ManuallyDrop::new(gradient).as_mut_ptr();
            }
        }
        Ok(())
    }));
    let text = match answer {
        Ok(Ok(())) => return std::ptr::null_mut(),
        Ok(Err(text)) => text,
        Err(payload) => panic_text(&*payload),
    };
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    // SAFETY: a NUL-terminated string, which is copied.
    unsafe { rl_message(text.as_ptr()) }
}

unsafe extern "C" fn drop_backward(context: *mut c_void) {
    // SAFETY: the node ends its context once; it came from `Box::into_raw`.
    drop(unsafe { Box::from_raw(context.cast::<Backward>()) });
}

/// `output` as the value of a function of `inputs` with a backward pass of our own. `saved` reaches it through the graph, which
/// frees them with itself and refuses when somebody wrote into them in the meantime; `output` itself must not be among them. When no
/// input asks for gradients, or autograd is off, it is `output` outside the graph.
pub(crate) fn with_backward(
    output: &Tensor,
    inputs: &[&Tensor],
    saved: &[&Tensor],
    backward: Backward,
) -> Result<Tensor, ShimError> {
    let pointers =
        |list: &[&Tensor]| -> Vec<*mut C_tensor> { list.iter().map(|t| t.as_ptr().cast_mut()).collect() };
    let (inputs, saved) = (pointers(inputs), pointers(saved));
    let context = Box::into_raw(Box::new(backward)).cast::<c_void>();
    let mut result = std::ptr::null_mut();
    // SAFETY: the pointers are valid while the slices are borrowed; the context goes over to the graph, which calls it and ends it
    // through the two functions given; on success `result` receives a new at::Tensor that is ours.
    unsafe {
        checked(rl_with_backward(
            output.as_ptr(),
            inputs.as_ptr(),
            inputs.len(),
            saved.as_ptr(),
            saved.len(),
            context,
            call_backward,
            drop_backward,
            &mut result,
        ))?;
        Ok(Tensor::from_ptr(result))
    }
}

/// Σₖ gradsₖ·∂outputsₖ/∂inputᵢ for each input, `None` where no output depends on it. The graph is freed.
pub(crate) fn backward(
    outputs: &[Tensor],
    grads: &[Tensor],
    inputs: &[Tensor],
) -> Result<Vec<Option<Tensor>>, ShimError> {
    same_length(outputs, &[grads]);
    let mut results = vec![std::ptr::null_mut(); inputs.len()];
    // SAFETY: as in `fused_adam`; on success each result is null or a new at::Tensor that is ours.
    unsafe {
        checked(rl_backward(
            pointers(outputs).as_ptr(),
            pointers(grads).as_ptr(),
            outputs.len(),
            pointers(inputs).as_ptr(),
            inputs.len(),
            results.as_mut_ptr(),
        ))?;
        Ok(results.into_iter().map(|p| (!p.is_null()).then(|| Tensor::from_ptr(p))).collect())
    }
}

/// `targets += alpha · sources`, one kernel call for all; nothing for none.
pub(crate) fn foreach_add(targets: &[Tensor], sources: &[Tensor], alpha: f64) -> Result<(), ShimError> {
    same_length(targets, &[sources]);
    if targets.is_empty() {
        return Ok(());
    }
    // SAFETY: as in `fused_adam`.
    checked(unsafe {
        rl_foreach_add(pointers(targets).as_ptr(), pointers(sources).as_ptr(), targets.len(), alpha)
    })
}
