//! What neighbourhood sampling gives: nodes, and edges layer by layer.

use super::Expand;

/// A sampled neighbourhood of some seeds, made by [`NeighborSampler::sample`](super::NeighborSampler::sample) and reused from
/// batch to batch.
///
/// [`nodes`](Self::nodes) are the graph's nodes in it, the seeds first, then hop by hop what was found; everything else counts
/// positions in that list (*local* numbers). A network of L layers is computed from [`block(0)`](Self::block) to
/// `block(L - 1)`: each layer takes the values of the block's `source_nodes` first nodes to those of its `target_nodes` first
/// nodes, so every layer is narrower than the one before and the last leaves the seeds only.
#[derive(Clone, Debug, Default)]
pub struct Subgraph {
    pub(super) expand: Expand,
    pub(super) nodes: Vec<u64>,
    pub(super) seeds: Vec<i64>,
    pub(super) sources: Vec<i64>,
    pub(super) targets: Vec<i64>,
    pub(super) edges: Vec<u64>,
    /// Nodes after 0, 1, … hops.
    pub(super) hop_nodes: Vec<usize>,
    /// Edges after 0, 1, … hops.
    pub(super) hop_edges: Vec<usize>,
}

/// What one layer of a network computes: messages along edges from `source_nodes` nodes to the first `target_nodes` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// Nodes whose values go in: the first of [`Subgraph::nodes`].
    pub source_nodes: usize,
    /// Nodes whose values come out, the first of those.
    pub target_nodes: usize,
    /// The local number of the node at which each edge begins, below `source_nodes`: i64 `[E]`.
    pub sources: &'a [i64],
    /// The local number of the node at which it ends, below `target_nodes` and never falling: i64 `[E]`.
    pub targets: &'a [i64],
    /// Its number in the large graph (see [`Csr::edge_number`](super::Csr::edge_number)): the rows of an edge table.
    pub edges: &'a [u64],
}

impl Subgraph {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The large graph's nodes, each once: seeds first, in the order given. They are the rows of a node table, for
    /// [`Table::gather_into`](crate::Table::gather_into).
    pub fn nodes(&self) -> &[u64] {
        &self.nodes
    }

    /// The local number of each seed given: 0, 1, 2, …, unless a seed was given twice; it then has the number of its first
    /// coming. The last layer's output at these numbers is the batch's, in order.
    pub fn seeds(&self) -> &[i64] {
        &self.seeds
    }

    /// How many different seeds there are: the target nodes of the last layer.
    pub fn seed_nodes(&self) -> usize {
        self.hop_nodes.first().copied().unwrap_or(0)
    }

    /// Layers of the network that the subgraph is for, which is the number of hops; 0 before the first sample.
    pub fn layers(&self) -> usize {
        self.hop_nodes.len().saturating_sub(1)
    }

    /// The edges sampled in all hops, as a block from all nodes to all but those of the last hop.
    pub fn all(&self) -> Block<'_> {
        let targets = self.layers().checked_sub(1).map_or(0, |hop| self.hop_nodes[hop]);
        Block {
            source_nodes: self.nodes.len(),
            target_nodes: targets,
            sources: &self.sources,
            targets: &self.targets,
            edges: &self.edges,
        }
    }

    /// What layer `layer` computes; layer 0 is the first to be computed, and the widest.
    ///
    /// # Panics
    /// When there are not so many layers.
    pub fn block(&self, layer: usize) -> Block<'_> {
        let layers = self.layers();
        assert!(layer < layers, "layer {layer} of a subgraph for {layers}");
        let hop = layers - 1 - layer;
        let edges = match self.expand {
            Expand::New => 0..self.hop_edges[hop + 1],
            Expand::All => self.hop_edges[hop]..self.hop_edges[hop + 1],
        };
        Block {
            source_nodes: self.hop_nodes[hop + 1],
            target_nodes: self.hop_nodes[hop],
            sources: &self.sources[edges.clone()],
            targets: &self.targets[edges.clone()],
            edges: &self.edges[edges],
        }
    }

    /// The blocks in the order in which they are computed.
    pub fn blocks(&self) -> impl ExactSizeIterator<Item = Block<'_>> {
        (0..self.layers()).map(|layer| self.block(layer))
    }
}
