//! Offline data: rows and steps brought in from files, and rows taken out to them. Behind the cargo features `npz`,
//! `arrow` and `minari`; none is on by default.
//!
//! | format | feature | in | out |
//! |---|---|---|---|
//! | NumPy's `.npz`, compressed or not | `npz` | [`npz::Npz`] | [`npz::export`] |
//! | Arrow IPC, files and streams | `arrow` | [`arrow::Arrow`] | [`arrow::export`] |
//! | Minari data sets, HDF5 and Arrow | `minari` | [`minari::Minari`] | |
//!
//! What comes in is either *rows*, columns with the names of the schema's fields, or *steps* of episodes, which go
//! through [`NStep`] like those of an environment. Then `reward` and `discount` are right for any n and γ: a
//! terminal step masks the bootstrap, a truncated one bootstraps from the observation that truly followed.
//!
//! # What holds for every format
//!
//! * **All or nothing.** A file is read twice: first everything is checked, then everything is inserted. An error leaves
//!   the buffer as it was. (Only a file that changes meanwhile can be inserted in part.)
//! * **In pieces.** Memory is taken for a block of some megabytes, an Arrow record batch, or an episode of Minari's, not for
//!   the file. No size that a file claims is believed before it is compared with the file's own.
//! * **Types** are converted as [`Cast`] says; by default only where no value can change.
//! * **Shapes** have to agree. A dimension of 1 does not count, so that `[N, 1]` rewards are scalars.
//! * More rows than the buffer's capacity are accepted: the newest are kept, as ever.
//!
//! ```no_run
//! # #[cfg(feature = "minari")] {
//! use rl_replay::{NStep, Replay, data::{Cast, minari::Minari}};
//!
//! let data = Minari::local("D4RL/pointmaze/umaze-v2")?.observations(["observation", "desired_goal"]);
//! let schema = data.schema(Cast::Round)?;
//! let replay = Replay::builder(schema.clone()).capacity(1_000_000).build()?;
//! let mut n_step = NStep::new(3, 0.99, &schema)?;
//! let imported = data.import(&mut n_step, &mut replay.writer(), Cast::Round)?;
//! println!("{} steps of {} episodes", imported.steps, imported.episodes);
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/offline.rs` learns from such data.

#[cfg(doc)]
use crate::NStep;

mod cast;
mod error;
mod file;
mod rows;
mod steps;

#[cfg(feature = "arrow")]
pub mod arrow;
#[cfg(feature = "minari")]
pub mod minari;
#[cfg(feature = "npz")]
pub mod npz;

pub use cast::{Cast, Stored};
pub use error::DataError;
pub use rows::Column;
pub use steps::{Imported, StepNames};

/// Blocks of about this size are read and written at a time.
const BLOCK_BYTES: usize = 4 << 20;
