//! Why a buffer on the device refuses.

use crate::shim::ShimError;
use rl_minibatch::SampleError;
use rl_replay::ReplayError;

/// Why a buffer on the device refused.
#[derive(Debug, thiserror::Error)]
pub enum DeviceReplayError {
    /// A setting makes no sense.
    #[error("{0}")]
    Setting(String),
    /// Nobody took rows from the inlet in time.
    #[error(
        "{inserted} rows were inserted and {taken} of them taken before the inlet of {capacity} rows came around; call `take_in` more often, or make the inlet larger"
    )]
    Overrun {
        /// Rows inserted into the inlet.
        inserted: u64,
        /// Rows taken.
        taken: u64,
        /// The inlet's capacity.
        capacity: usize,
    },
    /// There is no row to draw.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// The inlet refused.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// libtorch failed; on a GPU the memory did not suffice, for instance.
    #[error("libtorch: {}", crate::first_line(.0))]
    Tch(#[from] tch::TchError),
    /// A copy failed.
    #[error(transparent)]
    Kernel(#[from] ShimError),
}
