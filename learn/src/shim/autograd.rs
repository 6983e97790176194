//! Functions with a backward pass of our own, and backward passes from several outputs: `native/autograd.h`.

use super::{List, ShimError, checked, pointers, same_length};
use std::any::Any;
use std::ffi::{CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tch::Tensor;
use torch_sys::C_tensor;

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
    // SAFETY: an array of live tensor pointers for the length of the call; on success each result is null or a new at::Tensor that is ours.
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
