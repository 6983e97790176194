//! Loaded batches on the learner's device.

use crate::staging::{HostTensors, MiniBatch, column_shape};
use crate::state::kind_of;
use rl_minibatch::{
    BatchMemory, BatchMut, HostMemory, LoadError, Loader, LoaderBuilder, Plan, Progress, Schema,
    StackCollate, StateError, StateVisitor,
};
use tch::{Device, Kind, Tensor, no_grad};

/// Memory that a [`Loader`] loads into: CPU tensors, pinned if the batches go to a GPU, so that a copy there needs no other.
#[derive(Clone, Copy, Debug)]
pub struct PinnedMemory {
    device: Device,
}

impl PinnedMemory {
    /// Memory for batches that go to `device`; on the CPU it is not pinned.
    pub fn new(device: Device) -> Self {
        Self { device }
    }
}

/// One batch's [`PinnedMemory`].
#[derive(Debug)]
pub struct PinnedBatch(HostTensors);

impl HostMemory for PinnedBatch {
    fn view_mut(&mut self) -> BatchMut<'_> {
        self.0.view_mut()
    }
}

impl BatchMemory for PinnedMemory {
    type Host = PinnedBatch;

    fn allocate(&self, schema: &Schema, rows: usize) -> Result<PinnedBatch, LoadError> {
        let why = |error: tch::TchError| crate::first_line(&error);
        let tensors = HostTensors::new(schema, rows, self.device);
        tensors.map(PinnedBatch).map_err(|error| LoadError::Memory { rows, why: why(error) })
    }
}

/// A [`Loader`] whose batches come as tensors on a device: workers fill pinned memory, and [`next`](Self::next) copies the batch that
/// is ready to the device and gives the memory back at once.
///
/// The [`MiniBatch`]'s weights are 1 for rows that count and 0 for padding. Its tensors are the same memory batch after batch while
/// batches have as many rows, and a part of it when they have fewer.
#[derive(Debug)]
pub struct DeviceLoader {
    loader: Loader<StackCollate<PinnedMemory>>,
    device: Device,
    plan: Plan,
    /// Rows that `columns` and `weight` have room for.
    room: usize,
    columns: Vec<Tensor>,
    weight: Tensor,
    /// How many rows of `batch` count.
    real: usize,
    batch: MiniBatch,
}

impl DeviceLoader {
    /// The loader that `builder` describes, for `device`. The builder's memory is replaced by [`PinnedMemory`].
    ///
    /// # Errors
    /// Those of [`LoaderBuilder::build`].
    pub fn new<M: BatchMemory + 'static>(
        builder: LoaderBuilder<StackCollate<M>>,
        device: Device,
    ) -> Result<Self, LoadError> {
        let loader = builder.memory(PinnedMemory::new(device)).build()?;
        let weight = Tensor::ones([0], (Kind::Float, device));
        let batch = MiniBatch::new(Vec::new(), weight.shallow_clone());
        Ok(Self { loader, device, plan: Plan::new(), room: 0, columns: Vec::new(), weight, real: 0, batch })
    }

    /// The next batch. A rank that has no rows of it gets one of 0 rows.
    ///
    /// # Errors
    /// Those of [`Loader::next`], and [`LoadError::Memory`] when the device has none left. The batch is then passed over.
    #[expect(clippy::should_implement_trait, reason = "the batch is lent, and there is no end")]
    pub fn next(&mut self) -> Result<&MiniBatch, LoadError> {
        let loaded = self.loader.next()?;
        let (rows, real) = (loaded.rows(), loaded.plan().real);
        let why = |e: tch::TchError| LoadError::Memory { rows, why: crate::first_line(&e) };
        let grown = rows > self.room;
        if grown {
            self.grow(rows).map_err(why)?;
        }
        if grown || rows != self.batch.rows() {
            self.lend(rows);
            self.real = usize::MAX;
        }
        no_grad(|| -> Result<(), tch::TchError> {
            let first = |tensor: &Tensor| tensor.f_narrow(0, 0, rows as i64);
            for (device, host) in self.columns.iter().zip(loaded.host().0.columns()) {
                first(device)?.f_copy_(&first(host)?)?;
            }
            if real != self.real {
                let mut mask = vec![0.0; rows];
                loaded.plan().mask_into(&mut mask);
                first(&self.weight)?.f_copy_(&Tensor::from_slice(&mask))?;
            }
            Ok(())
        })
        .map_err(why)?;
        self.real = real;
        self.plan.clone_from(loaded.plan());
        Ok(&self.batch)
    }

    /// The batches that are left in the present epoch: up to the one that [ends it](Plan::ends_epoch), or up to the first error. With a
    /// sampler that has no epochs it does not end.
    ///
    /// ```
    /// use rl_learn::{Device, DeviceLoader, Kind};
    /// use rl_minibatch::{BatchSize, Batches, Dtype, Field, Loader, Schema, Shuffled, Table};
    /// let table = Table::new(&Schema::new(vec![Field::new("x", Dtype::U8, [])])?, 5, &[&[0, 1, 2, 3, 4]])?;
    /// let batches = Batches::builder(Shuffled::new(5)?, 5, BatchSize::Fixed(2)).build()?;
    /// let mut loader = DeviceLoader::new(Loader::builder(table, batches), Device::Cpu)?;
    /// for _ in 0..3 {
    ///     let (mut epoch, mut sum) = (loader.epoch(), 0);
    ///     while let Some(batch) = epoch.next() {
    ///         sum += batch?["x"].sum(Kind::Int64).int64_value(&[]);
    ///     }
    ///     assert_eq!(sum, 10);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn epoch(&mut self) -> DeviceEpoch<'_> {
        DeviceEpoch { loader: self, ended: false }
    }

    /// Row numbers, epoch and number of the batch that [`next`](Self::next) gave last; empty before.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How far the caller is.
    pub fn progress(&self) -> Progress {
        self.loader.progress()
    }

    /// Shows the position, as [`Loader::visit`] does.
    ///
    /// # Errors
    /// Those of [`Loader::visit`].
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        self.loader.visit(visitor)
    }

    fn grow(&mut self, rows: usize) -> Result<(), tch::TchError> {
        // What there was goes first, so that both need not fit.
        self.room = 0;
        self.columns.clear();
        self.batch = MiniBatch::new(Vec::new(), self.weight.shallow_clone());
        for field in self.loader.schema().fields() {
            self.columns
                .push(Tensor::f_zeros(column_shape(field, rows), (kind_of(field.dtype), self.device))?);
        }
        self.weight = Tensor::f_ones([rows as i64], (Kind::Float, self.device))?;
        self.room = rows;
        Ok(())
    }

    /// Makes `batch` of the first `rows` rows.
    fn lend(&mut self, rows: usize) {
        let first = |tensor: &Tensor| tensor.narrow(0, 0, rows as i64);
        let names = self.loader.schema().fields().iter().map(|field| field.name.clone());
        self.batch = MiniBatch::new(names.zip(self.columns.iter().map(first)).collect(), first(&self.weight));
    }
}

/// The rest of an epoch of a [`DeviceLoader`]. Its batches are lent, so it is gone through with `while let` and not with `for`.
#[derive(Debug)]
pub struct DeviceEpoch<'a> {
    loader: &'a mut DeviceLoader,
    ended: bool,
}

impl DeviceEpoch<'_> {
    /// The next batch of the epoch; `None` when it is over, and after an error.
    ///
    /// # Errors
    /// Those of [`DeviceLoader::next`].
    #[expect(clippy::should_implement_trait, reason = "the batch is lent")]
    pub fn next(&mut self) -> Option<Result<&MiniBatch, LoadError>> {
        if self.ended {
            return None;
        }
        if let Err(error) = self.loader.next() {
            self.ended = true;
            return Some(Err(error));
        }
        self.ended = self.loader.plan.ends_epoch;
        Some(Ok(&self.loader.batch))
    }

    /// Row numbers, epoch and number of the batch that [`next`](Self::next) gave last.
    pub fn plan(&self) -> &Plan {
        self.loader.plan()
    }
}
