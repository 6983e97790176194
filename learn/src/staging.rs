//! One batch in fixed memory: gathered into on the host, copied to the device, handed out as tensors.

use crate::state::kind_of;
use rl_minibatch::{BatchMut, Schema};
use std::ops::Index;
use tch::{Device, Kind, Tensor, no_grad};

/// A batch on the learner's device: one tensor `[B, …]` a column, and the importance weights `[B]`, f32.
///
/// Its tensors are the same memory batch after batch, so a captured step can read them where they are.
#[derive(Debug)]
pub struct MiniBatch {
    names: Vec<String>,
    columns: Vec<Tensor>,
    weight: Tensor,
}

impl MiniBatch {
    /// A batch of `columns` (name and tensor, all with B rows) and `weight` `[B]`.
    ///
    /// # Panics
    /// When a column has another number of rows than `weight`.
    pub fn new(columns: Vec<(String, Tensor)>, weight: Tensor) -> Self {
        for (name, column) in &columns {
            assert_eq!(
                column.size().first(),
                weight.size().first(),
                "column '{name}' has another number of rows"
            );
        }
        let (names, columns) = columns.into_iter().unzip();
        Self { names, columns, weight }
    }

    /// The column called `name`, if there is one.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.names.iter().position(|n| n == name).map(|i| &self.columns[i])
    }

    /// The importance weights `[B]`; ones where rows were drawn uniformly.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// B.
    pub fn rows(&self) -> usize {
        self.weight.size()[0] as usize
    }
}

impl Index<&str> for MiniBatch {
    type Output = Tensor;

    /// # Panics
    /// When there is no such column: an algorithm and its schema disagree.
    fn index(&self, name: &str) -> &Tensor {
        self.get(name).unwrap_or_else(|| panic!("the batch has no column '{name}'; it has {:?}", self.names))
    }
}

/// Host memory to gather into, and the batch on the device that it becomes.
///
/// On the CPU both are the same memory and [`upload`](Self::upload) moves nothing. For a GPU the host side is pinned and an upload is
/// one copy a column.
#[derive(Debug)]
pub struct Staging {
    schema: Schema,
    rows: usize,
    /// One tensor a field; empty on the CPU, where the batch itself is the host memory.
    pinned: Vec<Tensor>,
    pinned_weight: Option<Tensor>,
    batch: MiniBatch,
}

impl Staging {
    /// Memory for batches of `rows` rows of `schema` on `device`; twice that for a GPU, once of it pinned.
    ///
    /// # Panics
    /// When the memory cannot be had.
    pub fn new(schema: &Schema, rows: usize, device: Device) -> Self {
        let shape = |field: &rl_minibatch::Field| column_shape(field, rows);
        let zeros = |on: Device| -> Vec<Tensor> {
            schema.fields().iter().map(|f| Tensor::zeros(shape(f), (kind_of(f.dtype), on))).collect()
        };
        let ones = |on: Device| Tensor::ones([rows as i64], (Kind::Float, on));
        let (pinned, pinned_weight) = match device {
            Device::Cpu => (Vec::new(), None),
            _ => (
                zeros(Device::Cpu).iter().map(|t| t.pin_memory(device)).collect(),
                Some(ones(Device::Cpu).pin_memory(device)),
            ),
        };
        let names = schema.fields().iter().map(|f| f.name.clone());
        let batch = MiniBatch::new(names.zip(zeros(device)).collect(), ones(device));
        Self { schema: schema.clone(), rows, pinned, pinned_weight, batch }
    }

    /// Rows of a batch.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The host memory of the columns and of the weights, to be written by a gather.
    pub fn host_mut(&mut self) -> (BatchMut<'_>, &mut [f32]) {
        let columns = if self.pinned.is_empty() { &mut self.batch.columns } else { &mut self.pinned };
        let columns = columns.iter_mut().zip(self.schema.fields()).map(|(tensor, field)| {
            // SAFETY: the tensor is contiguous CPU memory of exactly rows × row_bytes bytes, made in `new` and never
            // resized; it is borrowed mutably through `self` for as long as the slice lives.
            unsafe { host_bytes(tensor, self.rows * field.row_bytes()) }
        });
        let columns =
            BatchMut::new(&self.schema, self.rows, columns).expect("staging is made for its schema");
        let weight = self.pinned_weight.as_mut().unwrap_or(&mut self.batch.weight);
        // SAFETY: as above, `rows` f32.
        let weight = unsafe { host_bytes(weight, self.rows * size_of::<f32>()) };
        (columns, bytemuck::cast_slice_mut(weight))
    }

    /// Copies what the host memory holds to the device, and gives the batch there.
    pub fn upload(&mut self) -> &MiniBatch {
        no_grad(|| {
            for (device, host) in self.batch.columns.iter_mut().zip(&self.pinned) {
                device.copy_(host);
            }
            if let Some(host) = &self.pinned_weight {
                self.batch.weight.copy_(host);
            }
        });
        &self.batch
    }
}

/// Rows of a schema in CPU tensors, pinned where they are to go to a GPU.
#[derive(Debug)]
pub(crate) struct HostTensors {
    schema: Schema,
    rows: usize,
    columns: Vec<Tensor>,
}

impl HostTensors {
    /// Memory for `rows` rows of `schema`, pinned unless `device` is the CPU.
    ///
    /// # Errors
    /// libtorch's, when the memory cannot be had.
    pub(crate) fn new(schema: &Schema, rows: usize, device: Device) -> Result<Self, tch::TchError> {
        let column = |field: &rl_minibatch::Field| {
            let tensor = Tensor::f_zeros(column_shape(field, rows), (kind_of(field.dtype), Device::Cpu))?;
            if device == Device::Cpu { Ok(tensor) } else { tensor.f_pin_memory(device) }
        };
        let columns = schema.fields().iter().map(column).collect::<Result<_, _>>()?;
        Ok(Self { schema: schema.clone(), rows, columns })
    }

    pub(crate) fn columns(&self) -> &[Tensor] {
        &self.columns
    }

    pub(crate) fn view_mut(&mut self) -> BatchMut<'_> {
        let columns = self.columns.iter_mut().zip(self.schema.fields()).map(|(tensor, field)| {
            // SAFETY: the tensor is contiguous CPU memory of exactly rows × row_bytes bytes, made in `new` and never
            // resized; `columns` lends it only shared, and this borrows `self` mutably for as long as the slice lives.
            // Nobody clones it: copies are made of it and no views are kept.
            unsafe { host_bytes(tensor, self.rows * field.row_bytes()) }
        });
        BatchMut::new(&self.schema, self.rows, columns).expect("the tensors are made for the schema")
    }
}

/// The shape of a column of `rows` rows.
pub(crate) fn column_shape(field: &rl_minibatch::Field, rows: usize) -> Vec<i64> {
    std::iter::once(rows as i64).chain(field.shape.iter().map(|&d| d as i64)).collect()
}

/// The memory of a CPU tensor.
///
/// # Safety
/// `tensor` is contiguous, on the CPU, at least `bytes` long, not resized during `'a`, and nothing else reads or writes
/// its memory during `'a`.
unsafe fn host_bytes<'a>(tensor: &mut Tensor, bytes: usize) -> &'a mut [u8] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<u8>(), bytes) }
}
