//! One graph among many: a molecule, a scene, a program.

use super::{Csr, GraphError};
use crate::{Schema, Table};

/// What columns of a graph belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// A row for each node: PyTorch Geometric's `x`, `pos`.
    Node,
    /// A row for each edge: `edge_attr`, `edge_weight`.
    Edge,
    /// One row for the graph: `y`.
    Graph,
}

impl Part {
    pub(super) const ALL: [Part; 3] = [Part::Node, Part::Edge, Part::Graph];
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Part::Node => "node",
            Part::Edge => "edge",
            Part::Graph => "graph",
        })
    }
}

/// A directed graph: nodes 0 to N, edges as PyTorch Geometric has them (`edge_index`: i64 `[2, E]`, all sources, then all
/// targets), and columns for nodes, for edges and for the graph, each part with a schema of its own or none. An undirected
/// graph has each edge in both directions. Loops and parallel edges are allowed.
///
/// ```
/// use rl_minibatch::{Dtype, Field, Graph, Part, Schema};
/// let features = Schema::new(vec![Field::new("x", Dtype::F32, [2])])?;
/// let label = Schema::new(vec![Field::new("y", Dtype::I64, [])])?;
/// // 0 → 1 → 2, two features a node, one label.
/// let graph = Graph::new(3, &[0, 1, 1, 2])?
///     .with(Part::Node, &features, &[bytemuck::cast_slice(&[0.0f32, 0.1, 1.0, 1.1, 2.0, 2.1])])?
///     .with(Part::Graph, &label, &[bytemuck::cast_slice(&[7i64])])?;
/// assert_eq!((graph.nodes(), graph.edges()), (3, 2));
/// assert_eq!((graph.sources(), graph.targets()), (&[0, 1][..], &[1, 2][..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Graph {
    nodes: usize,
    edge_index: Vec<i64>,
    tables: [Option<Table>; 3],
}

impl Graph {
    /// A graph of `nodes` nodes without columns. O(E).
    ///
    /// # Errors
    /// [`GraphError::EdgeIndex`], and [`GraphError::Endpoint`] for the first edge that leaves the graph.
    pub fn new(nodes: usize, edge_index: &[i64]) -> Result<Self, GraphError> {
        check_edges(nodes, edge_index)?;
        Ok(Self { nodes, edge_index: edge_index.to_vec(), tables: [const { None }; 3] })
    }

    /// The same graph from neighbour lists, with its edges in the order of the lists.
    pub fn from_csr(csr: &Csr) -> Self {
        Self { nodes: csr.nodes(), edge_index: csr.edge_index(), tables: [const { None }; 3] }
    }

    /// Gives the graph the columns of a part, replacing those it had: one slice a field of `schema` in native byte order, with
    /// a row a node, a row an edge, or one row.
    ///
    /// # Errors
    /// [`GraphError::Columns`].
    pub fn with(mut self, part: Part, schema: &Schema, columns: &[&[u8]]) -> Result<Self, GraphError> {
        let table = Table::new(schema, self.rows(part), columns);
        self.tables[part as usize] = Some(table.map_err(|why| GraphError::Columns { part, why })?);
        Ok(self)
    }

    /// Nodes.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// Edges.
    pub fn edges(&self) -> usize {
        self.edge_index.len() / 2
    }

    /// All sources, then all targets: i64 `[2, E]`.
    pub fn edge_index(&self) -> &[i64] {
        &self.edge_index
    }

    /// The node at which each edge begins: i64 `[E]`.
    pub fn sources(&self) -> &[i64] {
        &self.edge_index[..self.edges()]
    }

    /// The node at which each edge ends: i64 `[E]`.
    pub fn targets(&self) -> &[i64] {
        &self.edge_index[self.edges()..]
    }

    /// The columns of a part; `None` when it has none.
    pub fn table(&self, part: Part) -> Option<&Table> {
        self.tables[part as usize].as_ref()
    }

    fn rows(&self, part: Part) -> usize {
        match part {
            Part::Node => self.nodes,
            Part::Edge => self.edges(),
            Part::Graph => 1,
        }
    }
}

/// Checks that an edge index is `[2, E]` and stays within `nodes` nodes.
pub(super) fn check_edges(nodes: usize, edge_index: &[i64]) -> Result<(), GraphError> {
    if !edge_index.len().is_multiple_of(2) {
        return Err(GraphError::EdgeIndex { got: edge_index.len() });
    }
    let edges = edge_index.len() / 2;
    // Negative numbers are larger than any node as u64.
    match edge_index.iter().position(|node| *node as u64 >= nodes as u64) {
        None => Ok(()),
        Some(position) => {
            let (edge, end) =
                if position < edges { (position, "source") } else { (position - edges, "target") };
            Err(GraphError::Endpoint { edge, end, node: edge_index[position], nodes })
        }
    }
}
