//! Counting operator calls: `native/calls.h`.

use super::{ShimError, checked};
use std::ffi::{CStr, c_char, c_void};

unsafe extern "C" {
    fn rl_calls_begin(counting: *mut *mut c_void) -> *mut c_char;
    fn rl_calls_end(
        counting: *mut c_void,
        tell: unsafe extern "C" fn(*mut c_void, *const c_char, u64),
        context: *mut c_void,
        syncs: *mut u64,
    ) -> *mut c_char;
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
