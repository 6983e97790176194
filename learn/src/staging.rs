//! One batch in fixed memory: gathered into on the host, copied to the device, handed out as tensors.

use crate::state::kind_of;
use rl_minibatch::{BatchMut, Schema};
use rl_replay::{ObsView, ObsViews};
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
/// On the CPU both are the same memory and [`upload`](Self::upload) moves nothing. For a GPU the host side is pinned, all columns lie in one piece of
/// memory on either side, and an upload is one copy.
#[derive(Debug)]
pub struct Staging {
    schema: Schema,
    rows: usize,
    /// Pinned; `None` on the CPU, where the batch itself is the host memory.
    host: Option<Columns>,
    /// The bytes of `columns` and `weight`.
    whole: Tensor,
    /// As the schema has them.
    columns: Vec<Tensor>,
    weight: Tensor,
    /// The same memory, as an algorithm sees it.
    batch: MiniBatch,
}

/// The columns of a batch and its weights, as views into one tensor of bytes.
#[derive(Debug)]
struct Columns {
    whole: Tensor,
    columns: Vec<Tensor>,
    weight: Tensor,
}

/// Where columns may begin: a cache line, which suits vector instructions and a GPU's wide loads too.
const ALIGN: usize = 64;

impl Columns {
    /// Zeros, and weights of 1, on `device`; pinned for `pinned_for`, if that is given.
    fn new(schema: &Schema, rows: usize, device: Device, pinned_for: Option<Device>) -> Self {
        let mut bytes = 0;
        let mut place = |row_bytes: usize| {
            let at = bytes;
            bytes += (rows * row_bytes).next_multiple_of(ALIGN);
            at as i64
        };
        let places: Vec<i64> = schema.field_bytes().iter().map(|&row_bytes| place(row_bytes)).collect();
        let weights_at = place(size_of::<f32>());
        let mut whole = Tensor::zeros([bytes as i64], (Kind::Uint8, device));
        if let Some(gpu) = pinned_for {
            whole = whole.pin_memory(gpu);
        }
        let view = |at: i64, row_bytes: usize, kind: Kind, shape: &[i64]| {
            whole.narrow(0, at, (rows * row_bytes) as i64).view_dtype(kind).view(shape)
        };
        let columns = schema.fields().iter().zip(&places);
        let columns = columns
            .map(|(f, &at)| view(at, f.row_bytes(), kind_of(f.dtype), &column_shape(f, rows)))
            .collect();
        let weight = view(weights_at, size_of::<f32>(), Kind::Float, &[rows as i64]);
        let _ = weight.shallow_clone().fill_(1.0);
        Self { whole, columns, weight }
    }
}

impl Staging {
    /// Memory for batches of `rows` rows of `schema` on `device`; twice that for a GPU, once of it pinned.
    ///
    /// # Panics
    /// When the memory cannot be had.
    pub fn new(schema: &Schema, rows: usize, device: Device) -> Self {
        Self::seen_as(schema, rows, device, |columns| {
            let columns = columns.iter().map(Tensor::shallow_clone);
            schema.fields().iter().map(|f| f.name.clone()).zip(columns).collect()
        })
    }

    /// As [`new`](Self::new), for batches of transitions, however they are stored: the batch has `obs` and `next_obs`, which are parts of the
    /// columns that `views` tell, `[B, k, …]` of stacks of k observations and `[B, …]` else. Where the two overlap the memory is shared.
    ///
    /// # Panics
    /// When the memory cannot be had, or the views are not of this schema.
    pub fn of_transitions(schema: &Schema, views: ObsViews, rows: usize, device: Device) -> Self {
        Self::seen_as(schema, rows, device, |columns| {
            let others = schema.fields().iter().zip(columns).enumerate();
            let others = others
                .filter(|(i, _)| *i != views.obs.field && *i != views.next_obs.field)
                .map(|(_, (f, column))| (f.name.clone(), column.shallow_clone()));
            let observed = [("obs", views.obs), ("next_obs", views.next_obs)]
                .map(|(name, view)| (name.to_string(), observations(&columns[view.field], view)));
            observed.into_iter().chain(others).collect()
        })
    }

    fn seen_as(
        schema: &Schema,
        rows: usize,
        device: Device,
        see: impl FnOnce(&[Tensor]) -> Vec<(String, Tensor)>,
    ) -> Self {
        let host = (device != Device::Cpu).then(|| Columns::new(schema, rows, Device::Cpu, Some(device)));
        let Columns { whole, columns, weight } = Columns::new(schema, rows, device, None);
        let batch = MiniBatch::new(see(&columns), weight.shallow_clone());
        Self { schema: schema.clone(), rows, host, whole, columns, weight, batch }
    }

    /// Rows of a batch.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// What a row holds.
    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The host memory of the columns and of the weights, to be written by a gather.
    pub fn host_mut(&mut self) -> (BatchMut<'_>, &mut [f32]) {
        let (columns, weight) = match &mut self.host {
            Some(host) => (&mut host.columns, &mut host.weight),
            None => (&mut self.columns, &mut self.weight),
        };
        let columns = columns.iter_mut().zip(self.schema.fields()).map(|(tensor, field)| {
            // SAFETY: the tensor is contiguous CPU memory of exactly rows × row_bytes bytes, a part of `whole` that no other
            // column overlaps, made in `new` and never resized; it is borrowed mutably through `self` for as long as the slice lives.
            unsafe { host_bytes(tensor, self.rows * field.row_bytes()) }
        });
        let columns =
            BatchMut::new(&self.schema, self.rows, columns).expect("staging is made for its schema");
        // SAFETY: as above, `rows` f32.
        let weight = unsafe { host_bytes(weight, self.rows * size_of::<f32>()) };
        (columns, bytemuck::cast_slice_mut(weight))
    }

    /// Copies what the host memory holds to the device, and gives the batch there.
    pub fn upload(&mut self) -> &MiniBatch {
        if let Some(host) = &self.host {
            no_grad(|| self.whole.copy_(&host.whole));
        }
        &self.batch
    }

    /// As [`upload`](Self::upload), on the current stream and without waiting for it: the host memory must stay as it is until the copy is over.
    pub(crate) fn upload_async(&mut self) -> Result<(), crate::ShimError> {
        match &self.host {
            Some(host) => crate::shim::cuda::copy_async(&self.whole, &host.whole),
            None => Ok(()),
        }
    }

    /// The batch as it was uploaded last.
    pub(crate) fn batch(&self) -> &MiniBatch {
        &self.batch
    }
}

/// The part of a column that `view` tells; without the dimension of the stack where there is none.
fn observations(column: &Tensor, view: ObsView) -> Tensor {
    assert_eq!(column.size()[1], view.of as i64, "the views are of another schema");
    let part = column.narrow(1, view.start as i64, view.len as i64);
    if view.len == 1 { part.squeeze_dim(1) } else { part }
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

/// Rows of 8-byte words in a CPU tensor, pinned where they are to go to a GPU.
#[derive(Debug)]
pub(crate) struct HostWords {
    /// `[rows, words]`, i64.
    tensor: Tensor,
}

impl HostWords {
    pub(crate) fn new(rows: usize, words: usize, device: Device) -> Result<Self, tch::TchError> {
        let tensor = Tensor::f_zeros([rows as i64, words as i64], (Kind::Int64, Device::Cpu))?;
        let tensor = if device == Device::Cpu { tensor } else { tensor.f_pin_memory(device)? };
        Ok(Self { tensor })
    }

    /// To be copied from; a copy on a GPU's stream must be over before the bytes are written anew.
    pub(crate) fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let bytes = self.tensor.numel() * size_of::<i64>();
        // SAFETY: the tensor is contiguous CPU memory of exactly so many bytes, made in `new` and never resized; `tensor` lends it only
        // shared, and this borrows `self` mutably for as long as the slice lives. No views of it are kept.
        unsafe { host_bytes(&mut self.tensor, bytes) }
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
