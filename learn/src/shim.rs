//! Safe calls into `native/`. All of this crate's foreign functions are here and in `shim/`.

pub(crate) mod cuda;

use std::any::Any;
use std::ffi::{CStr, CString, c_char, c_int, c_longlong, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
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
    fn rl_list_new(tensors: List, n: usize, out: *mut *mut RawList) -> *mut c_char;
    fn rl_list_free(list: *mut RawList);
    fn rl_adam(group: *const RawGroup, rule: *const Adam) -> *mut c_char;
    fn rl_sgd(group: *const RawGroup, rule: *const Sgd) -> *mut c_char;
    fn rl_rmsprop(group: *const RawGroup, rule: *const RmsProp) -> *mut c_char;
    fn rl_lars(group: *const RawGroup, rule: *const Lars) -> *mut c_char;
    fn rl_lamb(group: *const RawGroup, rule: *const Lamb) -> *mut c_char;
    fn rl_foreach_clip_value(grads: List, n: usize, bound: f64) -> *mut c_char;
    fn rl_foreach_swap(first: List, second: List, n: usize) -> *mut c_char;
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
    fn rl_calls_begin(counting: *mut *mut c_void) -> *mut c_char;
    fn rl_calls_end(
        counting: *mut c_void,
        tell: unsafe extern "C" fn(*mut c_void, *const c_char, u64),
        context: *mut c_void,
        syncs: *mut u64,
    ) -> *mut c_char;
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

unsafe extern "C" fn tell_calls(context: *mut c_void, name: *const c_char, calls: u64) {
    // SAFETY: the context is the vector of `CallCount::end`, which waits for the call; the name is a C string that lives as long.
    unsafe {
        let names = &mut *context.cast::<Vec<(String, u64)>>();
        names.push((CStr::from_ptr(name).to_string_lossy().into_owned(), calls));
    }
}

/// A count of operator calls under way in this thread.
#[derive(Debug)]
pub(crate) struct CallCount(*mut c_void);

impl CallCount {
    pub(crate) fn begin() -> Result<Self, ShimError> {
        let mut counting = std::ptr::null_mut();
        // SAFETY: `counting` receives a token that only `rl_calls_end` reads, as a number.
        checked(unsafe { rl_calls_begin(&mut counting) })?;
        Ok(Self(counting))
    }

    /// Calls of each name, and how many were reads back to the host.
    pub(crate) fn end(self) -> Result<(Vec<(String, u64)>, u64), ShimError> {
        let counting = std::mem::ManuallyDrop::new(self).0;
        Self::stop(counting)
    }

    fn stop(counting: *mut c_void) -> Result<(Vec<(String, u64)>, u64), ShimError> {
        let (mut names, mut syncs) = (Vec::<(String, u64)>::new(), 0);
        // SAFETY: the token of `rl_calls_begin`; `tell_calls` gets the vector, which outlives the call.
        checked(unsafe { rl_calls_end(counting, tell_calls, (&raw mut names).cast(), &mut syncs) })?;
        Ok((names, syncs))
    }
}

impl Drop for CallCount {
    fn drop(&mut self) {
        let _ = Self::stop(self.0);
    }
}
