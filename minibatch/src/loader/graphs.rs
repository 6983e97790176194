//! Graphs on the loader's threads: unions of small ones, and sampled neighbourhoods of a large one.

use super::{Collate, LoadError, Rows, Selection};
use crate::{Batch, BatchError, Csr, Element, Graph, GraphBatch, GraphError, NeighborSampler, Subgraph};
use parking_lot::Mutex;
use std::sync::Arc;

/// Unites graphs; see [`GraphBatch::union`].
#[derive(Clone, Debug)]
pub struct UnionCollate {
    graphs: Arc<[Graph]>,
}

impl UnionCollate {
    /// Row r is `graphs[r]`. To keep them for other uses, give an `Arc`.
    pub fn new(graphs: impl Into<Arc<[Graph]>>) -> Self {
        Self { graphs: graphs.into() }
    }
}

impl Collate for UnionCollate {
    type Output = GraphBatch;

    fn rows(&self) -> u64 {
        self.graphs.len() as u64
    }

    fn collate(&self, drawn: &Selection<'_>, out: &mut Option<GraphBatch>) -> Result<(), LoadError> {
        let graphs = drawn.rows.iter().map(|row| &self.graphs[*row as usize]);
        let united = out.get_or_insert_default().union(graphs);
        united.map_err(|cause| LoadError::collate(drawn, cause.position(), cause))
    }
}

/// Samples the neighbourhood of a batch's nodes in one large graph, and gathers the features of all nodes in it: mini-batches as
/// GraphSAGE trains on them (Hamilton, Ying and Leskovec 2017).
///
/// Neighbours are drawn with a generator of their batch's own ([`Selection::rng`]), so they do not depend on the worker and are
/// drawn anew in every epoch. Each worker has a sampler: memory of 8 bytes a node of the graph.
///
/// ```
/// use rl_minibatch::{
///     BatchSize, Batches, Csr, Dtype, Field, Loader, NeighborCollate, NeighborSampler, Schema, Shuffled, Table,
/// };
/// // 1, 2 and 3 send to 0, and 0 to 3; rows are the nodes 0 and 3.
/// let graph = Csr::incoming(4, &[1, 2, 3, 0, 0, 0, 0, 3])?;
/// let schema = Schema::new(vec![Field::new("x", Dtype::F32, [])])?;
/// let features = Table::new(&schema, 4, &[bytemuck::cast_slice(&[0.0f32, 1.0, 2.0, 3.0])])?;
/// let collate = NeighborCollate::new(graph, NeighborSampler::new(&[2])?, 7)
///     .seeds([0, 3])?
///     .features(features)?;
///
/// let batches = Batches::builder(Shuffled::new(2)?, 2, BatchSize::Fixed(1)).build()?;
/// let mut loader = Loader::collating(collate, batches).workers(1).build()?;
/// let batch = loader.next()?;
/// let part = batch.host();
/// assert_eq!(part.subgraph().nodes()[0], part.seed_nodes()[0]);
/// for (node, x) in part.subgraph().nodes().iter().zip(part.typed::<f32>("x")?) {
///     assert_eq!(*node as f32, *x);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct NeighborCollate {
    graph: Arc<Csr>,
    sampler: NeighborSampler,
    seed: u64,
    seeds: Option<Arc<[u64]>>,
    features: Option<Arc<dyn Rows>>,
    /// Samplers that no thread uses.
    spare: Mutex<Vec<NeighborSampler>>,
}

impl NeighborCollate {
    /// Rows are the nodes of `graph`, whose neighbours `sampler` draws. To keep the graph for other uses, give an `Arc`.
    pub fn new(graph: impl Into<Arc<Csr>>, sampler: NeighborSampler, seed: u64) -> Self {
        let spare = Mutex::new(Vec::new());
        Self { graph: graph.into(), sampler, seed, seeds: None, features: None, spare }
    }

    /// Row r is the node `nodes[r]`, and others are not drawn: the labelled part of the graph.
    ///
    /// # Errors
    /// [`GraphError::Seed`] for a node that is not in the graph.
    pub fn seeds(mut self, nodes: impl Into<Arc<[u64]>>) -> Result<Self, GraphError> {
        let (nodes, all) = (nodes.into(), self.graph.nodes());
        if let Some(position) = nodes.iter().position(|node| *node >= all as u64) {
            return Err(GraphError::Seed { position, node: nodes[position], nodes: all });
        }
        self.seeds = Some(nodes);
        Ok(self)
    }

    /// Gathers the rows of `features` of all nodes of a neighbourhood; row v is node v's.
    ///
    /// # Errors
    /// [`GraphError::NodeRows`] when they are not as many as the graph's nodes.
    pub fn features(mut self, features: impl Rows + 'static) -> Result<Self, GraphError> {
        let (rows, nodes) = (features.rows(), self.graph.nodes());
        if rows != nodes as u64 {
            return Err(GraphError::NodeRows { rows, nodes });
        }
        self.features = Some(Arc::new(features));
        Ok(self)
    }
}

impl Collate for NeighborCollate {
    type Output = Neighborhood;

    fn rows(&self) -> u64 {
        self.seeds.as_ref().map_or(self.graph.nodes() as u64, |seeds| seeds.len() as u64)
    }

    fn collate(&self, drawn: &Selection<'_>, out: &mut Option<Neighborhood>) -> Result<(), LoadError> {
        let out = out.get_or_insert_default();
        out.seed_nodes.clear();
        match &self.seeds {
            Some(nodes) => out.seed_nodes.extend(drawn.rows.iter().map(|row| nodes[*row as usize])),
            None => out.seed_nodes.extend_from_slice(drawn.rows),
        }
        let spare = self.spare.lock().pop();
        let mut sampler = spare.unwrap_or_else(|| self.sampler.clone());
        let sampled =
            sampler.sample(&mut drawn.rng(self.seed), &self.graph, &out.seed_nodes, &mut out.subgraph);
        self.spare.lock().push(sampler);
        sampled.map_err(|cause| LoadError::collate(drawn, cause.position(), cause))?;
        let Some(source) = &self.features else { return Ok(()) };
        let nodes = out.subgraph.nodes();
        out.passes.clear();
        out.passes.resize(nodes.len(), drawn.passes.first().copied().unwrap_or(0));
        if out.features.as_ref().is_none_or(|features| features.rows() < nodes.len()) {
            // Neighbourhoods are of many sizes: an eighth more, so that not every new largest one is made room for.
            let room = (nodes.len() + nodes.len() / 8).max(1);
            out.features = None;
            out.features = Some(Batch::new(source.schema(), room));
        }
        let features = out.features.as_mut().expect("made above");
        source.gather(nodes, &out.passes, &mut features.view_mut().rows_mut(0..nodes.len()))
    }
}

impl std::fmt::Debug for NeighborCollate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NeighborCollate")
            .field("nodes", &self.graph.nodes())
            .field("edges", &self.graph.edges())
            .field("rows", &self.rows())
            .finish_non_exhaustive()
    }
}

/// A sampled neighbourhood, with the features of its nodes.
#[derive(Debug, Default)]
pub struct Neighborhood {
    subgraph: Subgraph,
    seed_nodes: Vec<u64>,
    passes: Vec<u64>,
    features: Option<Batch>,
}

impl Neighborhood {
    /// Nodes and edges.
    pub fn subgraph(&self) -> &Subgraph {
        &self.subgraph
    }

    /// The node of each row of the batch, in order. [`Subgraph::seeds`] has their local numbers.
    pub fn seed_nodes(&self) -> &[u64] {
        &self.seed_nodes
    }

    /// The features, in the order of [`Subgraph::nodes`]: the first rows are those of the neighbourhood, and there may be more. `None`
    /// when none are gathered.
    pub fn features(&self) -> Option<&Batch> {
        self.features.as_ref()
    }

    /// The elements of the column of features called `name`, of the neighbourhood's nodes and no more. A `bool` column is read as `u8`.
    ///
    /// # Errors
    /// [`BatchError::NoColumn`], also when no features are gathered, and [`BatchError::Dtype`].
    pub fn typed<T: Element>(&self, name: &str) -> Result<&[T], BatchError> {
        let Some(features) = &self.features else {
            return Err(BatchError::NoColumn { name: name.to_string() });
        };
        let whole = features.typed::<T>(name)?;
        Ok(&whole[..whole.len() / features.rows() * self.subgraph.nodes().len()])
    }
}
