//! Calls into the CUDA half of the shim (`native/cuda`): graphs, streams and events.
//!
//! That half is a library of its own, as it needs `libtorch_cuda.so`, which a CPU's libtorch lacks. The program carries its bytes and opens it when
//! a GPU is first used, so one file runs everywhere and nothing has to lie beside it.

use super::{ShimError, checked};
use std::ffi::{c_char, c_int, c_uchar};
use std::ptr::{NonNull, null_mut};
use std::sync::OnceLock;
use tch::Tensor;
use torch_sys::C_tensor;

macro_rules! opaque {
    ($($name:ident),*) => {$(
        #[repr(C)]
        struct $name { _opaque: [u8; 0] }
    )*};
}
opaque!(RawGraph, RawStream, RawEvent);

type Message = *mut c_char;

/// `RlCudaFunctions` of `native/cuda/functions.h`.
#[repr(C)]
struct Functions {
    pool_new: unsafe extern "C" fn(*mut u64) -> Message,
    graph_new: unsafe extern "C" fn(*const u64, *mut *mut RawGraph) -> Message,
    graph_free: unsafe extern "C" fn(*mut RawGraph),
    capture_begin: unsafe extern "C" fn(*mut RawGraph) -> Message,
    capture_end: unsafe extern "C" fn(*mut RawGraph) -> Message,
    graph_replay: unsafe extern "C" fn(*mut RawGraph) -> Message,
    graph_reset: unsafe extern "C" fn(*mut RawGraph) -> Message,
    stream_new: unsafe extern "C" fn(c_int, *mut *mut RawStream) -> Message,
    stream_current: unsafe extern "C" fn(c_int, *mut *mut RawStream) -> Message,
    stream_free: unsafe extern "C" fn(*mut RawStream),
    stream_set: unsafe extern "C" fn(*const RawStream) -> Message,
    stream_synchronize: unsafe extern "C" fn(*const RawStream) -> Message,
    event_new: unsafe extern "C" fn(bool, *mut *mut RawEvent) -> Message,
    event_free: unsafe extern "C" fn(*mut RawEvent),
    event_record: unsafe extern "C" fn(*mut RawEvent, *const RawStream) -> Message,
    event_wait: unsafe extern "C" fn(*const RawEvent, *const RawStream) -> Message,
    event_query: unsafe extern "C" fn(*const RawEvent, *mut bool) -> Message,
    event_synchronize: unsafe extern "C" fn(*const RawEvent) -> Message,
    event_elapsed: unsafe extern "C" fn(*const RawEvent, *const RawEvent, *mut f32) -> Message,
}

unsafe extern "C" {
    fn rl_open_cuda_half(bytes: *const c_uchar, n: usize, out: *mut *const Functions) -> Message;
    fn rl_copy_async(target: *const C_tensor, source: *const C_tensor) -> Message;
    fn rl_allow_tf32(allow: bool) -> Message;
}

/// The library's file, where there was what it is compiled against when this was built.
#[cfg(rl_cuda_half)]
const LIBRARY: Result<&[u8], &str> =
    Ok(include_bytes!(concat!(env!("OUT_DIR"), "/librl_learn_cuda.so")).as_slice());
#[cfg(not(rl_cuda_half))]
const LIBRARY: Result<&[u8], &str> = Err(env!("RL_CUDA_HALF_WHY"));

/// The functions of the CUDA half, or why there are none. Opened once a process.
fn functions() -> Result<&'static Functions, ShimError> {
    static OPENED: OnceLock<Result<&'static Functions, ShimError>> = OnceLock::new();
    let open = || {
        let bytes = LIBRARY.map_err(|why| ShimError(why.to_string()))?;
        super::open_cuda()?;
        let mut functions = std::ptr::null();
        // SAFETY: the bytes live as long as the program and are only read; on success `functions` receives a table that is never
        // unloaded, whose layout is that of `Functions`.
        unsafe {
            checked(rl_open_cuda_half(bytes.as_ptr(), bytes.len(), &mut functions))?;
            functions.as_ref().ok_or_else(|| ShimError("no functions were given".to_string()))
        }
    };
    OPENED.get_or_init(open).clone()
}

/// Whether this program carries the CUDA half of the shim, and it opens here.
///
/// # Errors
/// Why not, in one line.
pub fn available() -> Result<(), ShimError> {
    functions().map(|_| ())
}

/// Something of the CUDA half's that is freed with its handle.
macro_rules! owned {
    ($(#[$doc:meta])* $name:ident, $raw:ident, $free:ident) => {
        $(#[$doc])*
        pub struct $name {
            raw: NonNull<$raw>,
            functions: &'static Functions,
        }
        // SAFETY: nobody else holds the object, and none of its functions depends on the thread that made it.
        unsafe impl Send for $name {}

        impl $name {
            fn made(make: impl FnOnce(&'static Functions, *mut *mut $raw) -> Message) -> Result<Self, ShimError> {
                let functions = functions()?;
                let mut raw = null_mut();
                checked(make(functions, &mut raw))?;
                let raw = NonNull::new(raw).ok_or_else(|| ShimError("nothing was made".to_string()))?;
                Ok(Self { raw, functions })
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: made by the library and freed exactly once, here.
                unsafe { (self.functions.$free)(self.raw.as_ptr()) }
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    };
}

owned! {
    /// A captured graph.
    Graph, RawGraph, graph_free
}
owned! {
    /// A handle to a stream; streams themselves belong to libtorch's pool.
    Stream, RawStream, stream_free
}
owned! {
    /// A moment in a stream.
    Event, RawEvent, event_free
}

/// The name of a memory pool that graphs share.
#[derive(Clone, Copy, Debug)]
pub struct Pool([u64; 2]);

impl Pool {
    /// A pool that no other graph uses.
    ///
    /// # Errors
    /// CUDA's, and why the CUDA half is not there.
    pub fn new() -> Result<Self, ShimError> {
        let mut pool = [0; 2];
        // SAFETY: room for two numbers.
        checked(unsafe { (functions()?.pool_new)(pool.as_mut_ptr()) })?;
        Ok(Self(pool))
    }
}

// In all that follows the raw pointers are live objects of the library's, borrowed for the length of the call.
impl Graph {
    /// An empty graph whose memory comes from `pool`.
    ///
    /// # Errors
    /// CUDA's, and why the CUDA half is not there.
    pub fn new(pool: Pool) -> Result<Self, ShimError> {
        // SAFETY: two numbers to read, one pointer to write.
        Self::made(|f, out| unsafe { (f.graph_new)(pool.0.as_ptr(), out) })
    }

    /// From here on what this thread launches on its current stream, not the default one, is recorded instead of run.
    ///
    /// # Errors
    /// CUDA's, and why the CUDA half is not there.
    pub fn begin(&mut self) -> Result<(), ShimError> {
        // SAFETY: see above.
        checked(unsafe { (self.functions.capture_begin)(self.raw.as_ptr()) })
    }

    /// Ends what [`begin`](Self::begin) began; has to follow whatever happened between.
    ///
    /// # Errors
    /// CUDA's, and why the CUDA half is not there.
    pub fn end(&mut self) -> Result<(), ShimError> {
        // SAFETY: see above.
        checked(unsafe { (self.functions.capture_end)(self.raw.as_ptr()) })
    }

    /// Launches what was recorded on the current stream.
    ///
    /// # Errors
    /// CUDA's, and why the CUDA half is not there.
    pub fn replay(&mut self) -> Result<(), ShimError> {
        // SAFETY: see above.
        checked(unsafe { (self.functions.graph_replay)(self.raw.as_ptr()) })
    }

    /// Forgets what was recorded.
    ///
    /// # Errors
    /// CUDA's, and why the CUDA half is not there.
    pub fn reset(&mut self) -> Result<(), ShimError> {
        // SAFETY: see above.
        checked(unsafe { (self.functions.graph_reset)(self.raw.as_ptr()) })
    }
}

impl Stream {
    /// A stream of device `device`'s pool, beside the default one.
    ///
    /// # Errors
    /// CUDA's, and why the CUDA half is not there.
    pub fn new(device: usize) -> Result<Self, ShimError> {
        // SAFETY: one pointer to write.
        Self::made(|f, out| unsafe { (f.stream_new)(device as c_int, out) })
    }

    /// The stream that this thread launches on.
    ///
    /// # Errors
    /// CUDA's, and why the CUDA half is not there.
    pub fn current(device: usize) -> Result<Self, ShimError> {
        // SAFETY: as in `new`.
        Self::made(|f, out| unsafe { (f.stream_current)(device as c_int, out) })
    }

    /// Has this thread launch on it.
    ///
    /// # Errors
    /// CUDA's, and why the CUDA half is not there.
    pub fn set(&self) -> Result<(), ShimError> {
        // SAFETY: see above.
        checked(unsafe { (self.functions.stream_set)(self.raw.as_ptr()) })
    }

    /// Waits on the host for all that was launched on it.
    ///
    /// # Errors
    /// CUDA's, and why the CUDA half is not there.
    pub fn synchronize(&self) -> Result<(), ShimError> {
        // SAFETY: see above.
        checked(unsafe { (self.functions.stream_synchronize)(self.raw.as_ptr()) })
    }
}

impl Event {
    /// An event, which can tell times only if `timing`.
    ///
    /// # Errors
    /// CUDA's, and why the CUDA half is not there.
    pub fn new(timing: bool) -> Result<Self, ShimError> {
        // SAFETY: one pointer to write.
        Self::made(|f, out| unsafe { (f.event_new)(timing, out) })
    }

    /// Stands for what was launched on `stream` up to now.
    ///
    /// # Errors
    /// CUDA's, and why the CUDA half is not there.
    pub fn record(&mut self, stream: &Stream) -> Result<(), ShimError> {
        // SAFETY: see above.
        checked(unsafe { (self.functions.event_record)(self.raw.as_ptr(), stream.raw.as_ptr()) })
    }

    /// Has `stream` wait for it before what is launched there from now on.
    ///
    /// # Errors
    /// CUDA's, and why the CUDA half is not there.
    pub fn hold(&self, stream: &Stream) -> Result<(), ShimError> {
        // SAFETY: see above.
        checked(unsafe { (self.functions.event_wait)(self.raw.as_ptr(), stream.raw.as_ptr()) })
    }

    /// Whether it is over.
    ///
    /// # Errors
    /// CUDA's, and why the CUDA half is not there.
    pub fn is_over(&self) -> Result<bool, ShimError> {
        let mut over = false;
        // SAFETY: see above; one flag to write.
        checked(unsafe { (self.functions.event_query)(self.raw.as_ptr(), &mut over) })?;
        Ok(over)
    }

    /// Waits for it on the host.
    ///
    /// # Errors
    /// CUDA's, and why the CUDA half is not there.
    pub fn synchronize(&self) -> Result<(), ShimError> {
        // SAFETY: see above.
        checked(unsafe { (self.functions.event_synchronize)(self.raw.as_ptr()) })
    }

    /// Milliseconds from it to `later`; both made to tell times, recorded and over.
    ///
    /// # Errors
    /// CUDA's, and why the CUDA half is not there.
    pub fn milliseconds_to(&self, later: &Event) -> Result<f32, ShimError> {
        let mut milliseconds = 0.0;
        let (from, to) = (self.raw.as_ptr(), later.raw.as_ptr());
        // SAFETY: see above; one number to write.
        checked(unsafe { (self.functions.event_elapsed)(from, to, &mut milliseconds) })?;
        Ok(milliseconds)
    }
}

/// `target = source`; where one is pinned memory and the other a GPU's, without waiting for it.
pub(crate) fn copy_async(target: &Tensor, source: &Tensor) -> Result<(), ShimError> {
    // SAFETY: two live tensors for the length of the call; libtorch checks them. The allocators of pinned and of device memory keep a
    // tensor's memory until copies that were launched are over.
    checked(unsafe { rl_copy_async(target.as_ptr(), source.as_ptr()) })
}

/// Whether f32 matrix products and convolutions on CUDA may round their inputs to TF32; for the whole process.
pub(crate) fn allow_tf32(allow: bool) -> Result<(), ShimError> {
    // SAFETY: sets flags of libtorch's; no memory is passed.
    checked(unsafe { rl_allow_tf32(allow) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_in_one_line() {
        if let Err(ShimError(why)) = available() {
            println!("{why}");
            assert!(!why.is_empty() && !why.contains('\n'), "{why}");
        }
    }

    #[test]
    fn the_carried_library_is_one() {
        let Ok(bytes) = LIBRARY else { return println!("not built: {}", LIBRARY.unwrap_err()) };
        assert_eq!(bytes[..4], *b"\x7fELF");
        let has = |name: &[u8]| bytes.windows(name.len()).any(|window| window == name);
        assert!(has(b"rl_cuda_functions\0") && has(b"libtorch_cuda.so\0"));
    }
}
