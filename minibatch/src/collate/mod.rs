//! Collation: how drawn rows become one batch.
//!
//! | data | held as | collated by | into |
//! |---|---|---|---|
//! | rows of one shape | [`Table`](crate::Table) | [`Table::gather_into`](crate::Table::gather_into) ("stack") | [`Batch`](crate::Batch) |
//! | rows that lie anywhere, of one shape | slices, or structs | [`stack_into`], [`stack_rows_into`] | [`Batch`](crate::Batch) |
//! | sequences of unequal lengths | [`RaggedTable`] | [`RaggedTable::pad_into`] | [`Padded`]: `[B, T, …]`, mask, lengths |
//! | the same, for an LSTM or GRU | [`RaggedTable`] | [`RaggedTable::pack_into`] | [`Packed`]: PyTorch's `PackedSequence` |
//! | many small graphs | [`Graph`] each | [`GraphBatch::union`] | [`GraphBatch`]: one graph of several components |
//! | one large graph | [`Csr`] | [`NeighborSampler::sample`] | [`Subgraph`]: a [`Block`] a layer |
//!
//! Samplers say which rows; everything here only copies. Every output is memory that is kept from batch to batch: it grows
//! to the largest batch seen and then allocates nothing.

mod buffer;
mod csr;
mod error;
mod graph;
mod graph_batch;
mod graph_error;
mod neighbor;
mod packed;
mod packing;
mod pad;
mod pad_options;
mod ragged;
mod stack;
mod subgraph;

pub use csr::Csr;
pub use error::CollateError;
pub use graph::{Graph, Part};
pub use graph_batch::GraphBatch;
pub use graph_error::GraphError;
pub use neighbor::{Expand, NeighborSampler};
pub use packed::Packed;
pub use packing::Packing;
pub use pad::Padded;
pub use pad_options::{PadOptions, SequenceLayout, Truncate};
pub use ragged::{RaggedBuilder, RaggedTable};
pub use stack::{stack_into, stack_rows_into};
pub use subgraph::{Block, Subgraph};
