//! Collated batches as tensors: sequences padded and packed, graphs united and sampled.
//!
//! Each `to` copies once into a tensor, and once more to a device that is not the CPU. What names places (lengths, batch sizes) stays on the
//! CPU where PyTorch wants it there.

use crate::rnn::{Rnn, RnnError, RnnOutput, RnnState};
use crate::state::kind_of;
use rl_minibatch::{
    BatchError, Block, CollateError, Dtype, Field, GraphBatch, GraphError, Neighborhood, Packed, Padded,
    Part, SequenceLayout,
};
use std::ops::Index;
use tch::{Device, TchError, Tensor};

/// Why a collated batch did not become tensors.
#[derive(Debug, thiserror::Error)]
pub enum TensorsError {
    /// There is no such column or axis.
    #[error(transparent)]
    Collate(#[from] CollateError),
    /// The graphs have no such column.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The features have no such column.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// libtorch refused: no memory left, most likely.
    #[error("a batch does not become tensors: {}", crate::first_line(.0))]
    Torch(#[from] TchError),
}

/// Tensors by name.
#[derive(Debug, Default)]
struct Named(Vec<(String, Tensor)>);

impl Named {
    fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, tensor)| tensor)
    }

    fn expect(&self, what: &str, name: &str) -> &Tensor {
        self.get(name).unwrap_or_else(|| {
            let known: Vec<_> = self.0.iter().map(|(known, _)| known).collect();
            panic!("the batch has no {what} '{name}'; it has {known:?}")
        })
    }
}

/// A tensor of `shape` with a copy of `bytes`, which fill it.
fn tensor(bytes: &[u8], shape: &[usize], dtype: Dtype, device: Device) -> Result<Tensor, TchError> {
    let shape: Vec<i64> = shape.iter().map(|size| *size as i64).collect();
    Tensor::f_from_data_size(bytes, &shape, kind_of(dtype))?.f_to_device(device)
}

fn numbers(values: &[i64], device: Device) -> Result<Tensor, TchError> {
    Tensor::f_from_slice(values)?.f_to_device(device)
}

/// `rows` followed by the shape of a row.
fn under(rows: usize, field: &Field) -> Vec<usize> {
    std::iter::once(rows).chain(field.shape.iter().copied()).collect()
}

/// A [`Padded`] batch on a device: `[B, T, …]` or `[T, B, …]` a ragged column, `[B, …]` a fixed one.
#[derive(Debug)]
pub struct PaddedTensors {
    columns: Named,
    masks: Named,
    lengths: Vec<(String, Tensor)>,
    layout: SequenceLayout,
}

impl PaddedTensors {
    /// All columns, masks and lengths of `batch` on `device`.
    ///
    /// # Errors
    /// [`TensorsError::Torch`].
    pub fn to(batch: &Padded, device: Device) -> Result<Self, TensorsError> {
        let (mut columns, mut masks, mut lengths) = (Named::default(), Named::default(), Vec::new());
        for (position, field) in batch.schema().fields().iter().enumerate() {
            let values = tensor(batch.column(position), batch.shape(&field.name)?, field.dtype, device)?;
            columns.0.push((field.name.clone(), values));
        }
        for axis in batch.axes() {
            let (rows, steps) = (batch.rows(), batch.steps(axis)?);
            let shape = match batch.layout() {
                SequenceLayout::BatchFirst => [rows, steps],
                SequenceLayout::SequenceFirst => [steps, rows],
            };
            masks.0.push((axis.clone(), tensor(batch.mask(axis)?, &shape, Dtype::Bool, device)?));
            lengths.push((axis.clone(), Tensor::f_from_slice(batch.lengths(axis)?)?));
        }
        Ok(Self { columns, masks, lengths, layout: batch.layout() })
    }

    /// The column called `name`, if there is one.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.columns.get(name)
    }

    /// Where there is data along `axis`: bool `[B, T]` or `[T, B]`, true for a step of the row.
    ///
    /// # Panics
    /// When there is no such axis.
    pub fn mask(&self, axis: &str) -> &Tensor {
        self.masks.expect("axis", axis)
    }

    /// The steps of each row along `axis`: i64 `[B]` on the CPU, as PyTorch's packing takes them.
    ///
    /// # Panics
    /// When there is no such axis.
    pub fn lengths(&self, axis: &str) -> &Tensor {
        let known = self.lengths.iter().find(|(known, _)| known == axis);
        &known.unwrap_or_else(|| panic!("the batch has no axis '{axis}'")).1
    }

    /// The order of the leading dimensions.
    pub fn layout(&self) -> SequenceLayout {
        self.layout
    }

    /// Runs `rnn` over the column called `name`, whose steps are `[inputs]`, along `axis`. The output is `[T, B, …]` in either layout,
    /// the states are in the order of the batch.
    ///
    /// # Errors
    /// Those of [`Rnn::forward_padded`].
    ///
    /// # Panics
    /// When there is no such column or axis.
    pub fn run(&self, rnn: &Rnn, name: &str, axis: &str) -> Result<RnnOutput, RnnError> {
        let lengths: Vec<i64> = Vec::try_from(self.lengths(axis)).map_err(RnnError::from)?;
        match self.layout {
            SequenceLayout::SequenceFirst => rnn.forward_padded(&self[name], &lengths, None),
            SequenceLayout::BatchFirst => rnn.forward_padded(&self[name].transpose(0, 1), &lengths, None),
        }
    }
}

impl Index<&str> for PaddedTensors {
    type Output = Tensor;

    /// # Panics
    /// When there is no such column.
    fn index(&self, name: &str) -> &Tensor {
        self.columns.expect("column", name)
    }
}

/// A [`Packed`] batch on a device, for an [`Rnn`]: PyTorch's `PackedSequence`, for each column along the axis.
#[derive(Debug)]
pub struct PackedTensors {
    columns: Named,
    batch_sizes: Tensor,
    sorted: Tensor,
    unsorted: Tensor,
}

impl PackedTensors {
    /// The columns along the batch's axis, `[total, …]`, and the fixed ones, `[B, …]`, on `device`.
    ///
    /// # Errors
    /// [`TensorsError::Torch`].
    pub fn to(batch: &Packed, device: Device) -> Result<Self, TensorsError> {
        let mut columns = Named::default();
        for (position, field) in batch.schema().fields().iter().enumerate() {
            let Some(bytes) = batch.column(position) else { continue };
            let rows = bytes.len() / field.row_bytes().max(1);
            columns.0.push((field.name.clone(), tensor(bytes, &under(rows, field), field.dtype, device)?));
        }
        let packing = batch.packing();
        Ok(Self {
            columns,
            batch_sizes: Tensor::f_from_slice(packing.batch_sizes())?,
            sorted: numbers(packing.sorted_indices(), device)?,
            unsorted: numbers(packing.unsorted_indices(), device)?,
        })
    }

    /// The column called `name`, if there is one.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.columns.get(name)
    }

    /// How many sequences have each step: i64 `[T]` on the CPU.
    pub fn batch_sizes(&self) -> &Tensor {
        &self.batch_sizes
    }

    /// The places of the sequences by falling length, i64 `[B]`.
    pub fn sorted_indices(&self) -> &Tensor {
        &self.sorted
    }

    /// The inverse of [`sorted_indices`](Self::sorted_indices).
    pub fn unsorted_indices(&self) -> &Tensor {
        &self.unsorted
    }

    /// Runs `rnn` over the column called `name`, whose steps are `[inputs]`. The output is packed, `[total, …]`; `state` and the
    /// final states, `[layers, B, hidden]`, are in the order of the batch.
    ///
    /// # Errors
    /// Those of [`Rnn::forward_packed`].
    ///
    /// # Panics
    /// When there is no such column.
    pub fn run(&self, rnn: &Rnn, name: &str, state: Option<&RnnState>) -> Result<RnnOutput, RnnError> {
        let permuted = |state: &RnnState, order: &Tensor| RnnState {
            hidden: state.hidden.index_select(1, order),
            cell: state.cell.as_ref().map(|cell| cell.index_select(1, order)),
        };
        let sorted = state.map(|state| permuted(state, &self.sorted));
        let out = rnn.forward_packed(&self[name], &self.batch_sizes, sorted.as_ref())?;
        Ok(RnnOutput { state: permuted(&out.state, &self.unsorted), ..out })
    }
}

impl Index<&str> for PackedTensors {
    type Output = Tensor;

    /// # Panics
    /// When there is no such column.
    fn index(&self, name: &str) -> &Tensor {
        self.columns.expect("column", name)
    }
}

/// A [`GraphBatch`] on a device, as PyTorch Geometric has it.
#[derive(Debug)]
pub struct GraphTensors {
    /// Sources and targets of the edges: i64 `[2, E]`.
    pub edge_index: Tensor,
    /// The place in the batch of each node's graph: i64 `[N]`.
    pub batch: Tensor,
    /// Where each graph's nodes begin, and where the last one's end: i64 `[G + 1]`.
    pub ptr: Tensor,
    parts: [Named; 3],
}

impl GraphTensors {
    /// Nodes, edges and columns of `batch` on `device`.
    ///
    /// # Errors
    /// [`TensorsError::Torch`].
    pub fn to(batch: &GraphBatch, device: Device) -> Result<Self, TensorsError> {
        let mut parts: [Named; 3] = Default::default();
        for (part, rows) in
            [(Part::Node, batch.nodes()), (Part::Edge, batch.edges()), (Part::Graph, batch.graphs())]
        {
            for (position, field) in batch.schema(part).map_or(&[][..], |s| s.fields()).iter().enumerate() {
                let bytes = batch.column(part, position);
                let values = tensor(bytes, &under(rows, field), field.dtype, device)?;
                parts[part as usize].0.push((field.name.clone(), values));
            }
        }
        Ok(Self {
            edge_index: numbers(batch.edge_index(), device)?.f_reshape([2, batch.edges() as i64])?,
            batch: numbers(batch.batch(), device)?,
            ptr: numbers(batch.ptr(), device)?,
            parts,
        })
    }

    /// The column of `part` called `name`, with a row a node, an edge or a graph; if there is one.
    pub fn get(&self, part: Part, name: &str) -> Option<&Tensor> {
        self.parts[part as usize].get(name)
    }
}

/// What one layer over a sampled neighbourhood computes; see [`Block`].
#[derive(Debug)]
pub struct BlockTensors {
    /// Nodes whose values go in.
    pub source_nodes: i64,
    /// Nodes whose values come out, the first of those.
    pub target_nodes: i64,
    /// Where each edge begins: i64 `[E]`.
    pub sources: Tensor,
    /// Where it ends, below `target_nodes` and never falling: i64 `[E]`.
    pub targets: Tensor,
}

impl BlockTensors {
    /// The edges of `block` on `device`.
    ///
    /// # Errors
    /// [`TensorsError::Torch`].
    pub fn to(block: Block<'_>, device: Device) -> Result<Self, TensorsError> {
        Ok(Self {
            source_nodes: block.source_nodes as i64,
            target_nodes: block.target_nodes as i64,
            sources: numbers(block.sources, device)?,
            targets: numbers(block.targets, device)?,
        })
    }

    /// The sum over incoming edges of the values at their sources: `[source_nodes, F]` → `[target_nodes, F]`, zeros where there are none.
    ///
    /// # Panics
    /// When `values` has fewer rows.
    pub fn sum(&self, values: &Tensor) -> Tensor {
        let zeros = Tensor::zeros([self.target_nodes, values.size()[1]], (values.kind(), values.device()));
        zeros.index_add(0, &self.targets, &values.index_select(0, &self.sources))
    }

    /// The mean over incoming edges, 0 where there are none: GraphSAGE's aggregator (Hamilton, Ying and Leskovec 2017).
    ///
    /// # Panics
    /// When `values` has fewer rows.
    pub fn mean(&self, values: &Tensor) -> Tensor {
        let counts = self.targets.bincount::<Tensor>(None, self.target_nodes).clamp_min(1).unsqueeze(1);
        self.sum(values) / counts.to_kind(values.kind())
    }
}

/// A [`Neighborhood`] on a device: a block a layer, and the features of all nodes.
#[derive(Debug)]
pub struct NeighborhoodTensors {
    /// In the order in which they are computed.
    pub blocks: Vec<BlockTensors>,
    /// The local number of each row of the batch: i64 `[B]`. The last layer's output at these is the batch's.
    pub seeds: Tensor,
    features: Named,
}

impl NeighborhoodTensors {
    /// Blocks, seeds and features of `part` on `device`.
    ///
    /// # Errors
    /// [`TensorsError::Torch`].
    pub fn to(part: &Neighborhood, device: Device) -> Result<Self, TensorsError> {
        let (mut features, nodes) = (Named::default(), part.subgraph().nodes().len());
        for (position, field) in part.features().map_or(&[][..], |f| f.schema().fields()).iter().enumerate() {
            let whole = part.features().map_or(&[][..], |features| features.column(position));
            let values =
                tensor(&whole[..nodes * field.row_bytes()], &under(nodes, field), field.dtype, device)?;
            features.0.push((field.name.clone(), values));
        }
        let blocks = part.subgraph().blocks().map(|block| BlockTensors::to(block, device));
        Ok(Self {
            blocks: blocks.collect::<Result<_, _>>()?,
            seeds: numbers(part.subgraph().seeds(), device)?,
            features,
        })
    }

    /// The features called `name`, `[nodes, …]`, if there are such.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.features.get(name)
    }
}

impl Index<&str> for NeighborhoodTensors {
    type Output = Tensor;

    /// # Panics
    /// When there are no such features.
    fn index(&self, name: &str) -> &Tensor {
        self.features.expect("features", name)
    }
}
