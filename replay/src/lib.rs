//! An experience-replay buffer that threads share, without libtorch.
mod buffer;
mod control;
mod error;
mod layout;
mod nstep;
mod proportional;
mod reader;
mod ring;
mod snapshot;
mod sum_tree;
mod sync;
mod writer;

pub use buffer::{Builder, Replay};
pub use error::ReplayError;
pub use nstep::{NStep, Step};
pub use proportional::{Prioritized, Proportional};
pub use reader::Reader;
pub use rl_minibatch::{
    Batch, BatchError, BatchMut, Drawn, Dtype, Element, Field, MemoryState, Piece, Priorities, Rng,
    SampleError, Sampler, Schema, SchemaError, StateError, StateVisitor, Uniform, Updated, WeightNorm,
    importance_weights, scalar, scope, slice, value,
};
pub use writer::Writer;

/// The key of a row: its insertion serial, counted from 0. Keys never repeat, so a priority that comes for a row that
/// has been overwritten is recognised.
pub type Key = u64;
