//! Mini-batches, for replay and for supervised data alike.

mod dtype;
mod sampler;
mod schema;
mod state;

pub use dtype::Dtype;
pub use sampler::{Drawn, Priorities, SampleError, Sampler, Updated};
pub use schema::{Field, Schema, SchemaError};
pub use state::{Element, StateError, StateVisitor, scalar, scope, slice, value};

/// The generator used everywhere: Xoshiro256++, whose stream is fixed by its definition and not by a crate's version.
pub type Rng = rand_xoshiro::Xoshiro256PlusPlus;
