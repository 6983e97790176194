//! Safe calls into `native/`. All of this crate's foreign functions are here and in `shim/`, a file for each theme.

mod amp;
mod autograd;
mod calls;
pub(crate) mod cuda;
mod foreach;
mod network;
mod optim;

pub(crate) use amp::{Autocast, autocast_now, set_autocast, unscale, update_scale};
pub(crate) use autograd::{Backward, backward, panic_text, with_backward};
pub(crate) use calls::CallCount;
pub(crate) use foreach::{
    accumulate, foreach_add, foreach_clip_norm, foreach_clip_value, foreach_copy, foreach_lerp, foreach_swap,
    squared_norm,
};
pub(crate) use network::{argmax, bootstrap, perceptron, td_loss};
pub(crate) use optim::{Adam, Group, Lamb, Lars, RmsProp, Sgd, TensorList, step};

use std::ffi::{CStr, c_char};
use tch::Tensor;
use torch_sys::C_tensor;

/// An operation of libtorch failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("libtorch: {0}")]
pub struct ShimError(pub(crate) String);

impl From<tch::TchError> for ShimError {
    fn from(error: tch::TchError) -> Self {
        Self(crate::first_line(&error))
    }
}

type List = *const *mut C_tensor;

unsafe extern "C" {
    fn rl_free(message: *mut c_char);
    fn rl_keep_freed_memory();
    fn rl_open_cuda() -> *mut c_char;
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
