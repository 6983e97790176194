//! Many graphs as one: their disjoint union.

use super::buffer::Buffer;
use super::{Graph, GraphError, Part};
use crate::{Element, Schema, batch::typed_position};

/// A batch of graphs: one graph whose components they are, as PyTorch Geometric's `Batch`. Message passing over it is message
/// passing over each graph by itself, because no edge joins two of them; pooling goes by [`batch`](Self::batch).
///
/// The nodes of graph g are `ptr[g]..ptr[g + 1]`, and its edges name them so. Reused from batch to batch.
///
/// ```
/// use rl_minibatch::{Dtype, Field, Graph, GraphBatch, Part, Schema};
/// let features = Schema::new(vec![Field::new("x", Dtype::F32, [])])?;
/// let path = Graph::new(2, &[0, 1])?.with(Part::Node, &features, &[bytemuck::cast_slice(&[1.0f32, 2.0])])?;
/// let ring = Graph::new(3, &[0, 1, 2, 1, 2, 0])?
///     .with(Part::Node, &features, &[bytemuck::cast_slice(&[3.0f32, 4.0, 5.0])])?;
/// let graphs = [path, ring];
///
/// let mut batch = GraphBatch::new();
/// let drawn = [1u64, 0]; // as a sampler draws them
/// batch.union(drawn.iter().map(|row| &graphs[*row as usize]))?;
/// assert_eq!(batch.edge_index(), [0, 1, 2, 3, 1, 2, 0, 4]);
/// assert_eq!(batch.batch(), [0, 0, 0, 1, 1]);
/// assert_eq!(batch.ptr(), [0, 3, 5]);
/// assert_eq!(batch.typed::<f32>(Part::Node, "x")?, [3.0, 4.0, 5.0, 1.0, 2.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct GraphBatch {
    edge_index: Vec<i64>,
    batch: Vec<i64>,
    ptr: Vec<i64>,
    edge_ptr: Vec<i64>,
    parts: [PartColumns; 3],
}

#[derive(Clone, Debug, Default)]
struct PartColumns {
    schema: Option<Schema>,
    columns: Vec<Buffer>,
}

impl Default for GraphBatch {
    fn default() -> Self {
        let (edge_index, batch) = (Vec::new(), Vec::new());
        Self { edge_index, batch, ptr: vec![0], edge_ptr: vec![0], parts: Default::default() }
    }
}

impl GraphBatch {
    /// A batch of no graphs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes this the union of `graphs`, in their order, and of nothing else; a graph may come more than once. All have the
    /// same columns. O(bytes copied); allocates only when a batch is larger than all before it.
    ///
    /// # Errors
    /// [`GraphError::Differs`]; the batch is then as it was.
    pub fn union<'a, I>(&mut self, graphs: I) -> Result<(), GraphError>
    where
        I: IntoIterator<Item = &'a Graph>,
        I::IntoIter: Clone,
    {
        let graphs = graphs.into_iter();
        let first = graphs.clone().next();
        let schema = |graph: &'a Graph, part| graph.table(part).map(|table| table.schema());
        for (position, graph) in graphs.clone().enumerate() {
            for part in Part::ALL {
                if schema(graph, part) != first.and_then(|first| schema(first, part)) {
                    return Err(GraphError::Differs { position, part });
                }
            }
        }
        self.ptr.truncate(1);
        self.edge_ptr.truncate(1);
        self.batch.clear();
        let (mut nodes, mut edges) = (0, 0);
        for (position, graph) in graphs.clone().enumerate() {
            nodes += graph.nodes();
            edges += graph.edges();
            self.batch.resize(nodes, position as i64);
            self.ptr.push(nodes as i64);
            self.edge_ptr.push(edges as i64);
        }
        self.edge_index.clear();
        for ends in [Graph::sources, Graph::targets] {
            for (graph, offset) in graphs.clone().zip(&self.ptr) {
                self.edge_index.extend(ends(graph).iter().map(|node| node + offset));
            }
        }
        for part in Part::ALL {
            let to = &mut self.parts[part as usize];
            to.schema = first.and_then(|first| schema(first, part)).cloned();
            let fields = to.schema.as_ref().map_or(&[][..], Schema::fields);
            if to.columns.len() != fields.len() {
                to.columns.resize(fields.len(), Buffer::default());
            }
            let rows = [nodes, edges, self.ptr.len() - 1][part as usize];
            for (position, (field, to)) in fields.iter().zip(&mut to.columns).enumerate() {
                to.resize(rows * field.row_bytes());
                let mut rest = to.bytes_mut();
                for table in graphs.clone().filter_map(|graph| graph.table(part)) {
                    let from = table.columns().column(position);
                    let (now, later) = rest.split_at_mut(from.len());
                    now.copy_from_slice(from);
                    rest = later;
                }
            }
        }
        Ok(())
    }

    /// Graphs in the batch.
    pub fn graphs(&self) -> usize {
        self.ptr.len() - 1
    }

    /// Nodes of all graphs.
    pub fn nodes(&self) -> usize {
        self.batch.len()
    }

    /// Edges of all graphs.
    pub fn edges(&self) -> usize {
        self.edge_index.len() / 2
    }

    /// All sources, then all targets: i64 `[2, E]`.
    pub fn edge_index(&self) -> &[i64] {
        &self.edge_index
    }

    /// The place in the batch of the graph that each node belongs to, never falling: i64 `[N]`.
    pub fn batch(&self) -> &[i64] {
        &self.batch
    }

    /// Where the nodes of each graph begin, and at the end N: i64 `[graphs + 1]`.
    pub fn ptr(&self) -> &[i64] {
        &self.ptr
    }

    /// Where the edges of each graph begin, and at the end E: i64 `[graphs + 1]`.
    pub fn edge_ptr(&self) -> &[i64] {
        &self.edge_ptr
    }

    /// The columns of a part; `None` when the graphs have none.
    pub fn schema(&self, part: Part) -> Option<&Schema> {
        self.parts[part as usize].schema.as_ref()
    }

    /// The elements of a column: `[N, shape...]`, `[E, shape...]` or `[graphs, shape...]`. A `bool` column is read as `u8`.
    ///
    /// # Errors
    /// [`GraphError::NoColumns`], and [`GraphError::Columns`] when there is no such column or it holds other elements.
    pub fn typed<T: Element>(&self, part: Part, name: &str) -> Result<&[T], GraphError> {
        let of = &self.parts[part as usize];
        let schema = of.schema.as_ref().ok_or(GraphError::NoColumns { part })?;
        let position = typed_position::<T>(schema, name).map_err(|why| GraphError::Columns { part, why })?;
        Ok(bytemuck::cast_slice(of.columns[position].bytes()))
    }

    /// The bytes of the column at `position` in the part's schema.
    ///
    /// # Panics
    /// When there is no such column.
    pub fn column(&self, part: Part, position: usize) -> &[u8] {
        self.parts[part as usize].columns[position].bytes()
    }

    /// Graph number `place` of the batch, taken out again: the graph that went in. `None` when there are not so many.
    pub fn graph(&self, place: usize) -> Option<Graph> {
        let end = *self.ptr.get(place + 1)?;
        let start = self.ptr[place];
        let edges = self.edge_ptr[place] as usize..self.edge_ptr[place + 1] as usize;
        let ends = [&self.edge_index[..self.edges()], &self.edge_index[self.edges()..]];
        let edge_index: Vec<i64> =
            ends.iter().flat_map(|ends| &ends[edges.clone()]).map(|node| node - start).collect();
        let mut graph = Graph::new((end - start) as usize, &edge_index).ok()?;
        for part in Part::ALL {
            let PartColumns { schema: Some(schema), columns } = &self.parts[part as usize] else { continue };
            let rows = match part {
                Part::Node => start as usize..end as usize,
                Part::Edge => edges.clone(),
                Part::Graph => place..place + 1,
            };
            let slices: Vec<&[u8]> = schema
                .fields()
                .iter()
                .zip(columns)
                .map(|(field, column)| {
                    &column.bytes()[rows.start * field.row_bytes()..rows.end * field.row_bytes()]
                })
                .collect();
            graph = graph.with(part, schema, &slices).ok()?;
        }
        Some(graph)
    }
}
