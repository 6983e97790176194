//! The memory of loaded batches, and the pool that it goes back to.

use super::LoadError;
use crate::{Batch, BatchError, BatchMut, Element, Plan, Schema};
use parking_lot::Mutex;
use std::sync::Arc;

/// Memory that a batch is loaded into.
pub trait HostMemory: Send {
    /// All of it, lent for writing.
    fn view_mut(&mut self) -> BatchMut<'_>;
}

impl HostMemory for Batch {
    fn view_mut(&mut self) -> BatchMut<'_> {
        self.view_mut()
    }
}

/// Gives the memory that batches are loaded into: plain ([`PlainMemory`]), or another library's, pinned for a device for instance.
///
/// A loader asks for as many batches as are prefetched, in work and in the caller's hands at once, and uses them again
/// and again. It is asked on the worker threads.
pub trait BatchMemory: Send + Sync {
    /// What a batch lies in.
    type Host: HostMemory;

    /// Memory for `rows` rows of `schema`.
    ///
    /// # Errors
    /// [`LoadError::Memory`] when there is none.
    fn allocate(&self, schema: &Schema, rows: usize) -> Result<Self::Host, LoadError>;
}

/// Plain memory of the process: a [`Batch`].
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainMemory;

impl BatchMemory for PlainMemory {
    type Host = Batch;

    fn allocate(&self, schema: &Schema, rows: usize) -> Result<Batch, LoadError> {
        Ok(Batch::new(schema, rows))
    }
}

/// What travels from the pool to a worker, to the caller and back.
pub(super) struct Slot<H> {
    pub(super) plan: Plan,
    /// The memory; none until a batch has been collated into it.
    pub(super) host: Option<H>,
}

/// Slots that nobody uses.
pub(super) struct Pool<H> {
    spare: Mutex<Vec<Slot<H>>>,
}

impl<H> Pool<H> {
    /// A pool for `ahead` slots and some in the caller's hands. For more it grows.
    pub(super) fn new(ahead: usize) -> Arc<Self> {
        const IN_HANDS: usize = 8;
        const MOST: usize = 1024;
        Arc::new(Self { spare: Mutex::new(Vec::with_capacity(ahead.min(MOST) + IN_HANDS)) })
    }

    /// The slot that was given back last, whose memory is the likeliest to be in the cache; a new one if there is none.
    pub(super) fn take(&self) -> Slot<H> {
        self.spare.lock().pop().unwrap_or_else(|| Slot { plan: Plan::new(), host: None })
    }

    pub(super) fn give(&self, slot: Slot<H>) {
        self.spare.lock().push(slot);
    }
}

/// A loaded batch. Dropped, it gives its memory back to the loader, which fills it anew; it may outlive the loader.
pub struct Loaded<H> {
    slot: Option<Slot<H>>,
    pool: Arc<Pool<H>>,
}

impl<H> Loaded<H> {
    pub(super) fn new(slot: Slot<H>, pool: Arc<Pool<H>>) -> Self {
        debug_assert!(slot.host.is_some(), "a slot has memory once it is filled");
        Self { slot: Some(slot), pool }
    }

    fn slot(&self) -> &Slot<H> {
        self.slot.as_ref().expect("only drop takes it")
    }

    /// Row numbers, mask, epoch and number of the batch.
    pub fn plan(&self) -> &Plan {
        &self.slot().plan
    }

    /// Rows of the batch, padding included.
    pub fn rows(&self) -> usize {
        self.slot().plan.rows.len()
    }

    /// What was collated, in host memory. Of stacked rows the first [`rows`](Self::rows) are the batch; there may be room for more.
    pub fn host(&self) -> &H {
        self.slot().host.as_ref().expect("a loaded batch has memory")
    }

    /// The same, to write to.
    pub fn host_mut(&mut self) -> &mut H {
        let slot = self.slot.as_mut().expect("only drop takes it");
        slot.host.as_mut().expect("a loaded batch has memory")
    }
}

impl Loaded<Batch> {
    /// The bytes of the column at `position` in the schema, of the batch's rows and no more.
    ///
    /// # Panics
    /// When the schema has no field at `position`.
    pub fn column(&self, position: usize) -> &[u8] {
        let bytes = self.host().schema().fields()[position].row_bytes() * self.rows();
        &self.host().column(position)[..bytes]
    }

    /// The elements of the column called `name`, of the batch's rows and no more. A `bool` column is read as `u8`.
    ///
    /// # Errors
    /// [`BatchError::NoColumn`] and [`BatchError::Dtype`].
    pub fn typed<T: Element>(&self, name: &str) -> Result<&[T], BatchError> {
        let whole = self.host().typed::<T>(name)?;
        Ok(&whole[..whole.len() / self.host().rows() * self.rows()])
    }
}

impl<H> Drop for Loaded<H> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.pool.give(slot);
        }
    }
}

impl<H> std::fmt::Debug for Loaded<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("plan", self.plan()).finish_non_exhaustive()
    }
}
