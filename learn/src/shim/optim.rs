//! Optimizer steps: `native/optim.h`.

use super::{List, ShimError, checked, pointers};
use std::ffi::c_char;
use std::ptr::NonNull;
use tch::Tensor;
use torch_sys::C_tensor;

unsafe extern "C" {
    fn rl_list_new(tensors: List, n: usize, out: *mut *mut RawList) -> *mut c_char;
    fn rl_list_free(list: *mut RawList);
    fn rl_adam(group: *const RawGroup, rule: *const Adam) -> *mut c_char;
    fn rl_sgd(group: *const RawGroup, rule: *const Sgd) -> *mut c_char;
    fn rl_rmsprop(group: *const RawGroup, rule: *const RmsProp) -> *mut c_char;
    fn rl_lars(group: *const RawGroup, rule: *const Lars) -> *mut c_char;
    fn rl_lamb(group: *const RawGroup, rule: *const Lamb) -> *mut c_char;
}

/// A `std::vector<at::Tensor>` of the shim's.
#[repr(C)]
struct RawList {
    _opaque: [u8; 0],
}

/// Handles to tensors, put together once and used in every step: making the list anew costs more than a small kernel.
#[derive(Debug)]
pub(crate) struct TensorList {
    raw: NonNull<RawList>,
    len: usize,
}

// SAFETY: the list is a vector of reference-counted handles that nobody else holds; their counts are atomic, and tch declares its tensors,
// the same handles, `Send` as well.
unsafe impl Send for TensorList {}

impl TensorList {
    pub(crate) fn new(tensors: &[Tensor]) -> Result<Self, ShimError> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: the array holds `tensors.len()` live tensor pointers for the length of the call; the list copies the handles.
        checked(unsafe { rl_list_new(pointers(tensors).as_ptr(), tensors.len(), &mut raw) })?;
        let raw = NonNull::new(raw).ok_or_else(|| ShimError("no list was made".to_string()))?;
        Ok(Self { raw, len: tensors.len() })
    }
}

impl Drop for TensorList {
    fn drop(&mut self) {
        // SAFETY: made by rl_list_new and freed exactly once, here.
        unsafe { rl_list_free(self.raw.as_ptr()) }
    }
}

/// `Group` of native/optim.h.
#[repr(C)]
pub(crate) struct RawGroup {
    params: *const RawList,
    grads: List,
    slots: [*const RawList; 3],
    steps: *const RawList,
    lr: *const C_tensor,
    found_inf: *const C_tensor,
    max_norm: f64,
}

/// The lists that one step of one group works on; all that are there are as long as `params`.
pub(crate) struct Group<'a> {
    pub params: &'a TensorList,
    pub slots: [Option<&'a TensorList>; 3],
    pub steps: Option<&'a TensorList>,
    pub lr: &'a Tensor,
    /// Not 0 where the step is to do nothing.
    pub found_inf: Option<&'a Tensor>,
    /// For Adam: if above 0, the gradients' joint 2-norm is bounded by it, and they may be written to.
    pub max_norm: f64,
}

type Step<R> = unsafe extern "C" fn(*const RawGroup, *const R) -> *mut c_char;

/// The numbers of an optimizer's step, laid out as native/optim.h has them.
///
/// # Safety
/// `STEP` must be the function whose rule has this layout, and the type `repr(C)`.
pub(crate) unsafe trait Rule: Sized {
    const STEP: Step<Self>;
    /// How many of the first slots the function reads without asking whether they are there.
    const SLOTS: usize;
    /// Whether it counts its steps.
    const COUNTS: bool;
}

macro_rules! rule {
    ($(#[$doc:meta])* $name:ident, $step:ident, $slots:literal, $counts:literal, { $($field:ident: $type:ty),* }) => {
        $(#[$doc])*
        #[repr(C)]
        pub(crate) struct $name { $(pub $field: $type),* }
        // SAFETY: the fields stand in native/optim.h in this order, with these types.
        unsafe impl Rule for $name {
            const STEP: Step<Self> = $step;
            const SLOTS: usize = $slots;
            const COUNTS: bool = $counts;
        }
    };
}

rule!(Adam, rl_adam, 2, true, { beta1: f64, beta2: f64, weight_decay: f64, eps: f64, decoupled: bool });
rule!(Sgd, rl_sgd, 0, false, { momentum: f64, dampening: f64, weight_decay: f64, nesterov: bool, first: bool });
rule!(RmsProp, rl_rmsprop, 1, false, { alpha: f64, eps: f64, weight_decay: f64, momentum: f64 });
rule!(Lars, rl_lars, 0, false, {
    momentum: f64, weight_decay: f64, trust_coefficient: f64, eps: f64, nesterov: bool, adapt: bool, clip: bool
});
rule!(Lamb, rl_lamb, 2, true, {
    beta1: f64, beta2: f64, weight_decay: f64, eps: f64, max_ratio: f64, bias_correction: bool, adapt: bool
});

/// One step of `group` along `grads`, in a number of calls that does not depend on how many parameters there are. `grads` is a scratch of
/// pointers to one live tensor a parameter.
pub(crate) fn step<R: Rule>(group: &Group, grads: &[&Tensor], rule: &R) -> Result<(), ShimError> {
    let lists = group.slots.iter().copied().chain([group.steps]).flatten();
    assert!(
        grads.len() == group.params.len && lists.into_iter().all(|list| list.len == group.params.len),
        "tensor lists of one kernel call must have one length"
    );
    let present =
        group.slots[..R::SLOTS].iter().all(Option::is_some) && (group.steps.is_some() || !R::COUNTS);
    assert!(present && group.params.len > 0, "the rule's state is there, and so is a parameter");
    let raw =
        |list: Option<&TensorList>| list.map_or(std::ptr::null(), |list| list.raw.as_ptr().cast_const());
    let grads: Vec<_> = grads.iter().map(|grad| grad.as_ptr().cast_mut()).collect();
    let group = RawGroup {
        params: raw(Some(group.params)),
        grads: grads.as_ptr(),
        slots: group.slots.map(raw),
        steps: raw(group.steps),
        lr: group.lr.as_ptr(),
        found_inf: group.found_inf.map_or(std::ptr::null(), Tensor::as_ptr),
        max_norm: group.max_norm,
    };
    // SAFETY: `group` and `rule` have the layouts of native/optim.h; lists and gradients are alive for the length of the call and as long as
    // checked above, and lists that may be missing are null. libtorch checks shapes and dtypes.
    checked(unsafe { R::STEP(&group, rule) })
}
