//! Counting operator calls.

use crate::shim::{CallCount, ShimError};

/// What libtorch's dispatcher was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallCounts {
    /// Operator calls, those that operators make of each other included.
    pub calls: u64,
    /// Calls that read a number of a tensor to the host (`_local_scalar_dense`, below `item`, `double_value` and the like), or copied from a device
    /// to the host's memory.
    pub host_syncs: u64,
    /// Calls of each operator, `aten::mm` and so on, by name.
    pub by_name: Vec<(String, u64)>,
}

/// Runs `work` and counts its operator calls: those of this thread and of the backward passes that it begins. What this crate's own kernels do is in
/// no operator, and so not counted. Slows each operator down a little meanwhile; otherwise counting costs nothing.
///
/// # Errors
/// When a count is under way already, in this thread or another: there is one at a time in a process.
pub fn count_calls<T>(work: impl FnOnce() -> T) -> Result<(T, CallCounts), ShimError> {
    let count = CallCount::begin()?;
    let result = work();
    let (by_name, host_syncs) = count.end()?;
    let calls = by_name.iter().map(|(_, calls)| calls).sum();
    Ok((result, CallCounts { calls, host_syncs, by_name }))
}
