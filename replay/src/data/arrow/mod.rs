//! Arrow IPC: files (`.arrow`, Feather version 2) and streams (`.arrows`).
//!
//! A field of a scalar is a column of its type. A shaped one is a `FixedSizeList`, of rank 2 and more with the
//! metadata that make it a `arrow.fixed_shape_tensor`, so that PyArrow's `to_numpy_ndarray` has the shape. Arrow has
//! no bfloat16: such a column is uint16 with the same bits, and the field's metadata `rl_replay.dtype` is `bf16`.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use rl_replay::{Dtype, Replay, Schema, data::{Cast, arrow::{self, Arrow}}};
//!
//! let schema = Schema::transition((Dtype::U8, &[4, 84, 84]), (Dtype::I64, &[]))?;
//! let replay = Replay::builder(schema).capacity(1_000).build()?;
//! let mut stream = Vec::new();
//! arrow::write_stream(&replay, &mut stream)?;
//!
//! let arrow = Arrow::from_bytes(stream)?;
//! let again = Replay::builder(arrow.schema()?).capacity(1_000).build()?;
//! assert_eq!(arrow.import(&mut again.writer(), Cast::Widen)?, replay.len() as u64);
//! # Ok(()) }
//! ```

mod columns;
mod messages;
mod read;
mod write;

pub use read::Arrow;
pub use write::{export, write_file, write_stream};

/// The metadata keys of extension types, and the type of tensors (Arrow's columnar format, *Canonical Extension
/// Types*).
const EXTENSION: &str = "ARROW:extension:name";
const EXTENSION_METADATA: &str = "ARROW:extension:metadata";
const TENSOR: &str = "arrow.fixed_shape_tensor";
/// Of a column that is uint16 for want of a better type.
const DTYPE: &str = "rl_replay.dtype";
