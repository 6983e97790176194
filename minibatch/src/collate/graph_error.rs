//! What can be wrong with graphs.

use crate::BatchError;

/// Why a graph was refused, or none were collated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// An edge index has an odd number of elements.
    #[error("the edge index has {got} elements; it must be [2, E], all sources and then all targets")]
    EdgeIndex {
        /// Elements given.
        got: usize,
    },
    /// An edge begins or ends at a node that is not there.
    #[error("the {end} of edge {edge} is node {node}; the graph has nodes 0 to {nodes} (exclusive)")]
    Endpoint {
        /// The edge's position.
        edge: usize,
        /// `"source"` or `"target"`.
        end: &'static str,
        /// The node it names.
        node: i64,
        /// Nodes of the graph.
        nodes: usize,
    },
    /// Features or labels do not fit.
    #[error("the {part} columns do not fit: {why}")]
    Columns {
        /// Which part of the graph they belong to.
        part: super::Part,
        /// What is wrong.
        why: BatchError,
    },
    /// Graphs of one batch have different columns.
    #[error(
        "graph {position} of the batch has other {part} columns than the first; give all graphs the same"
    )]
    Differs {
        /// Its place in the batch.
        position: usize,
        /// The part in which they differ.
        part: super::Part,
    },
    /// A column was asked for, and the graphs have none of that part.
    #[error("the graphs of the batch have no {part} columns")]
    NoColumns {
        /// The part.
        part: super::Part,
    },
    /// There are too many nodes for 32-bit numbers.
    #[error("{nodes} nodes are too many; a neighbour list holds fewer than 2^32")]
    TooManyNodes {
        /// Nodes given.
        nodes: usize,
    },
    /// There is no offset at all.
    #[error("a neighbour list needs one offset more than nodes; none was given")]
    NoOffsets,
    /// The offsets do not begin at 0.
    #[error("the offsets begin with {got}; they must begin with 0")]
    OffsetsStart {
        /// The first offset.
        got: u64,
    },
    /// The offsets fall.
    #[error(
        "the offsets fall from {previous} to {got} at position {position}; each must be at least the one before"
    )]
    Offsets {
        /// The position of the offset that is smaller than the one before it.
        position: usize,
        /// The offset before it.
        previous: u64,
        /// The offset.
        got: u64,
    },
    /// The last offset is not the number of neighbours.
    #[error("the last offset is {expected} and {got} neighbours were given; they must be equal")]
    Neighbors {
        /// The last offset.
        expected: u64,
        /// Neighbours given.
        got: usize,
    },
    /// No fanout was given.
    #[error("at least one fanout is needed, one a layer")]
    NoFanouts,
    /// A fanout makes no sense.
    #[error("the fanout of hop {hop} is {got}; it must be a number of neighbours, or -1 for all")]
    Fanout {
        /// The hop, from the seeds outwards.
        hop: usize,
        /// What was given.
        got: i64,
    },
    /// A seed is not in the graph.
    #[error("seed {position} of the batch is node {node}; the graph has {nodes}")]
    Seed {
        /// Its place among the seeds.
        position: usize,
        /// The node it names.
        node: u64,
        /// Nodes of the graph.
        nodes: usize,
    },
    /// A table of node features has not a row for each node.
    #[error("the node features have {rows} rows and the graph has {nodes} nodes; give one row a node")]
    NodeRows {
        /// Rows of the features.
        rows: u64,
        /// Nodes of the graph.
        nodes: usize,
    },
}

impl GraphError {
    /// The place in the batch of the graph or node that is at fault, where it is one's.
    pub fn position(&self) -> Option<usize> {
        match self {
            Self::Differs { position, .. } | Self::Seed { position, .. } => Some(*position),
            _ => None,
        }
    }
}
