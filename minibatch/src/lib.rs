//! Mini-batches, for replay and for supervised data alike.
//!
//! Four ideas, shared by both:
//!
//! * what a row holds: a [`Schema`] of [`Field`]s, each with a [`Dtype`] and a shape;
//! * which rows come next, and with what probability: a [`Sampler`], such as [`Uniform`], which knows row numbers and
//!   never data;
//! * where rows come together: a [`Batch`] of owned memory, or a [`BatchMut`] over the caller's;
//! * what has to survive a restart: everything with state shows it to a [`StateVisitor`], once.
//!
//! A fixed [`Table`] holds supervised data; the ring that holds transitions is the crate `rl-replay`.
//!
//! ```
//! use rand::SeedableRng;
//! use rl_minibatch::{Batch, Drawn, Dtype, Field, Rng, Sampler, Schema, Table, Uniform};
//!
//! let schema = Schema::new(vec![Field::new("x", Dtype::F32, [2]), Field::new("label", Dtype::I64, [])])?;
//! let (x, label) = ([0.0f32, 0.1, 1.0, 1.1, 2.0, 2.1], [0i64, 1, 2]);
//! let table = Table::new(&schema, 3, &[bytemuck::cast_slice(&x), bytemuck::cast_slice(&label)])?;
//!
//! let mut rng = Rng::seed_from_u64(0);
//! let (mut drawn, mut batch) = (Drawn::default(), Batch::new(&schema, 8));
//! Uniform.draw(&mut rng, 0..table.rows(), 8, &mut drawn)?;
//! table.gather_into(&drawn.rows, &mut batch.view_mut())?;
//! for (x, label) in batch.typed::<f32>("x")?.chunks(2).zip(batch.typed::<i64>("label")?) {
//!     assert_eq!(x[0], *label as f32);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod batch;
mod batch_size;
mod batches;
mod collate;
mod dtype;
mod gather;
mod loader;
mod memory_state;
mod micro;
mod noise_scale;
mod plan;
mod power;
mod row;
mod sampler;
mod samplers;
mod schema;
mod state;
mod stream;
mod table;
mod weights;

pub use batch::{Batch, BatchError, BatchMut};
pub use batch_size::{BatchSize, BatchSizeError, Budget};
pub use batches::{Batches, BatchesBuilder, BatchesError, LastBatch};
pub use collate::{
    Block, CollateError, Csr, Expand, Graph, GraphBatch, GraphError, NeighborSampler, Packed, Packing,
    PadOptions, Padded, Part, RaggedBuilder, RaggedTable, SequenceLayout, Subgraph, Truncate, stack_into,
    stack_rows_into,
};
pub use dtype::Dtype;
#[cfg(feature = "progress")]
pub use loader::EpochBar;
pub use loader::{
    At, BatchMemory, Collate, FnCollate, FnRows, HostMemory, LoadError, Loaded, Loader, LoaderBuilder,
    MapRows, NeighborCollate, Neighborhood, PackCollate, PadCollate, Pieces, PiecesCollate, PlainMemory,
    Progress, RowCause, RowMut, RowRef, Rows, Selection, StackCollate, UnionCollate,
};
pub use memory_state::{MemoryState, Piece};
pub use micro::{Micro, MicroError, micro_batches, micro_batches_weighted};
pub use noise_scale::{NoiseError, NoiseEstimate, NoiseScale};
pub use plan::Plan;
pub use power::powers;
pub use row::{Row, RowField};
pub use sampler::{Drawn, Epoch, Priorities, SampleError, Sampler, Updated, check_magnitudes};
pub use samplers::{
    ClassBalanced, LengthBucketed, Permutation, SamplerError, Sequential, Shuffled, Stratified, Uniform,
    Weighted, WeightedWithoutReplacement, WithoutReplacement,
};
pub use schema::{Field, Schema, SchemaError};
pub use state::{Element, StateError, StateVisitor, scalar, scope, slice, value};
pub use stream::{Online, Over, Shuffle};
pub use table::Table;
pub use weights::{WeightNorm, importance_weights};

/// The generator used everywhere: Xoshiro256++, whose stream is fixed by its definition and not by a crate's version.
pub type Rng = rand_xoshiro::Xoshiro256PlusPlus;
