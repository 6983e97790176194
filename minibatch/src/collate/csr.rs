//! One large graph as neighbour lists.

use super::GraphError;
use super::graph::check_edges;
use std::ops::Range;

/// A directed graph as the list of neighbours of each node, in compressed sparse rows: the neighbours of node v are
/// `neighbors[offsets[v]..offsets[v + 1]]`.
///
/// The neighbours of a node here are where its messages come *from*: the sources of the edges that end at it, as
/// neighbourhood sampling needs them (row v of the transposed adjacency matrix; PyTorch Geometric's CSC). Memory: 8 bytes a
/// node, 4 an edge, and 8 more an edge when made by [`incoming`](Self::incoming), which remembers the edges' numbers.
///
/// ```
/// use rl_minibatch::Csr;
/// // 0 → 2, 1 → 2, 2 → 0.
/// let graph = Csr::incoming(3, &[0, 1, 2, 2, 2, 0])?;
/// assert_eq!(graph.neighbors(2), [0, 1]);
/// assert_eq!((graph.degree(0), graph.degree(1)), (1, 0));
/// assert_eq!(graph.edge_number(graph.slots(0).start), 2);
/// # Ok::<(), rl_minibatch::GraphError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csr {
    offsets: Vec<u64>,
    neighbors: Vec<u32>,
    /// The number of the edge in each slot; `None` where it is the slot's own.
    edge_numbers: Option<Vec<u64>>,
}

impl Csr {
    /// A graph from its neighbour lists. Edge numbers are positions in `neighbors`.
    ///
    /// # Errors
    /// [`GraphError::NoOffsets`], [`GraphError::OffsetsStart`], [`GraphError::Offsets`] with the position where they fall,
    /// [`GraphError::Neighbors`], [`GraphError::TooManyNodes`], and [`GraphError::Endpoint`] for a neighbour that is not there.
    pub fn new(offsets: Vec<u64>, neighbors: Vec<u32>) -> Result<Self, GraphError> {
        let Some(nodes) = offsets.len().checked_sub(1) else { return Err(GraphError::NoOffsets) };
        check_nodes(nodes)?;
        if offsets[0] != 0 {
            return Err(GraphError::OffsetsStart { got: offsets[0] });
        }
        if let Some(before) = offsets.windows(2).position(|pair| pair[1] < pair[0]) {
            let (previous, got) = (offsets[before], offsets[before + 1]);
            return Err(GraphError::Offsets { position: before + 1, previous, got });
        }
        if offsets[nodes] != neighbors.len() as u64 {
            return Err(GraphError::Neighbors { expected: offsets[nodes], got: neighbors.len() });
        }
        if let Some(edge) = neighbors.iter().position(|node| *node as usize >= nodes) {
            return Err(GraphError::Endpoint {
                edge,
                end: "source",
                node: i64::from(neighbors[edge]),
                nodes,
            });
        }
        Ok(Self { offsets, neighbors, edge_numbers: None })
    }

    /// A graph from an edge index (i64 `[2, E]`: all sources, then all targets): for each node the sources of its incoming
    /// edges, in the order of the edges, which keep their numbers. O(N + E). For an undirected graph give each edge in both
    /// directions.
    ///
    /// # Errors
    /// [`GraphError::EdgeIndex`], [`GraphError::TooManyNodes`], and [`GraphError::Endpoint`] for the first edge that leaves the
    /// graph.
    pub fn incoming(nodes: usize, edge_index: &[i64]) -> Result<Self, GraphError> {
        check_nodes(nodes)?;
        check_edges(nodes, edge_index)?;
        let (sources, targets) = edge_index.split_at(edge_index.len() / 2);
        // A counting sort by target. After the second pass `offsets[v]` is where v's list ends, which is where v + 1's begins.
        let mut offsets = vec![0u64; nodes + 1];
        for target in targets {
            offsets[*target as usize + 1] += 1;
        }
        for node in 0..nodes {
            offsets[node + 1] += offsets[node];
        }
        let (mut neighbors, mut edge_numbers) = (vec![0; sources.len()], vec![0; sources.len()]);
        for (edge, (source, target)) in sources.iter().zip(targets).enumerate() {
            let slot = &mut offsets[*target as usize];
            neighbors[*slot as usize] = *source as u32;
            edge_numbers[*slot as usize] = edge as u64;
            *slot += 1;
        }
        offsets.copy_within(..nodes, 1);
        offsets[0] = 0;
        Ok(Self { offsets, neighbors, edge_numbers: Some(edge_numbers) })
    }

    /// Nodes.
    pub fn nodes(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Edges.
    pub fn edges(&self) -> usize {
        self.neighbors.len()
    }

    /// How many edges end at `node`.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn degree(&self, node: usize) -> usize {
        self.slots(node).len()
    }

    /// The sources of the edges that end at `node`.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn neighbors(&self, node: usize) -> &[u32] {
        &self.neighbors[self.slots(node)]
    }

    /// Where the neighbours of `node` lie among those of all nodes.
    ///
    /// # Panics
    /// When there is no such node.
    #[inline]
    pub fn slots(&self, node: usize) -> Range<usize> {
        self.offsets[node] as usize..self.offsets[node + 1] as usize
    }

    /// The source of the edge in a slot.
    #[inline]
    pub(super) fn neighbor(&self, slot: usize) -> u32 {
        self.neighbors[slot]
    }

    /// The number of the edge in a slot: its position in the edge index that the graph was made of, so that its features are
    /// found; the slot itself where it was made of lists.
    ///
    /// # Panics
    /// When there is no such slot.
    #[inline]
    pub fn edge_number(&self, slot: usize) -> u64 {
        self.edge_numbers.as_ref().map_or(slot as u64, |numbers| numbers[slot])
    }

    /// All edges in the order of the lists: i64 `[2, E]`, sources and then targets.
    pub fn edge_index(&self) -> Vec<i64> {
        let sources = self.neighbors.iter().map(|source| i64::from(*source));
        let targets = (0..self.nodes()).flat_map(|node| std::iter::repeat_n(node as i64, self.degree(node)));
        sources.chain(targets).collect()
    }
}

/// Nodes are stored, and numbered in batches, in 32 bits.
fn check_nodes(nodes: usize) -> Result<(), GraphError> {
    if nodes > u32::MAX as usize { Err(GraphError::TooManyNodes { nodes }) } else { Ok(()) }
}
