//! NumPy's `.npz`: a zip archive with an array for each column, its name the column's.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use rl_replay::{Dtype, Replay, Schema, data::{Cast, npz::{self, Compression, Npz}}};
//!
//! let schema = Schema::transition((Dtype::F32, &[4]), (Dtype::I64, &[]))?;
//! let replay = Replay::builder(schema).capacity(1_000).build()?;
//! let path = std::env::temp_dir().join(format!("rl-replay-doc-{}.npz", std::process::id()));
//! npz::export(&replay, &path, Compression::Stored)?;      // numpy.load(path)["obs"].shape == (rows, 4)
//!
//! let npz = Npz::open(&path)?;
//! let again = Replay::builder(npz.schema()?).capacity(1_000).build()?;
//! assert_eq!(npz.import(&mut again.writer(), Cast::Widen)?, replay.len() as u64);
//! # std::fs::remove_file(path)?;
//! # Ok(()) }
//! ```
//!
//! NumPy has no bfloat16. Such a column is stored as uint16 with the same bits, under its name with `.bf16` after it,
//! and read back from there: `(a.astype("uint32") << 16).view("float32")` are its values.

mod npy;
mod read;
mod write;

pub use read::Npz;
pub use write::{Compression, export, write};

/// Marks the bits of a bfloat16 column.
const BF16: &str = ".bf16";
