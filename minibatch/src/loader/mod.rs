//! Batches loaded ahead of need, on worker threads, into memory that is used again and again.

mod collate;
mod error;
mod graphs;
mod map;
mod memory;
#[cfg(feature = "progress")]
mod progress_bar;
mod queue;
mod ragged;
mod rows;
mod stack;

pub use collate::{Collate, FnCollate, Pieces, PiecesCollate, Selection};
pub use error::{LoadError, RowCause};
pub use graphs::{NeighborCollate, Neighborhood, UnionCollate};
pub use map::{MapRows, RowRef};
pub use memory::{BatchMemory, HostMemory, Loaded, PlainMemory};
#[cfg(feature = "progress")]
pub use progress_bar::EpochBar;
pub use ragged::{PackCollate, PadCollate};
pub use rows::{At, FnRows, RowMut, Rows};
pub use stack::StackCollate;

use crate::{Batches, StateError, StateVisitor};
use queue::Shared;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Loads the batches that [`Batches`] draws: from a source of [`Rows`], which are stacked, or as any [`Collate`] makes them.
///
/// * With 0 workers (the default) a batch is loaded when it is asked for, on the caller's thread. Where rows are copied out
///   of memory that is the fastest: a small batch is copied in less time than a thread takes to wake up.
/// * With workers each of them loads whole batches, ahead of need, [`prefetch`](LoaderBuilder::prefetch) of them at most. That
///   is for rows that are decoded or augmented or come from a disk, and for a caller whose time is better spent.
/// * Batches come in the order of `Batches`, with the same contents, whatever the number of workers.
/// * An error or panic while a row is read comes out of [`next`](Self::next) in its batch's place, with the row's number. The next call gives
///   the next batch.
/// * Dropping the loader ends and joins its threads; a row being read is read to its end first.
///
/// ```
/// use rl_minibatch::{Batches, BatchSize, Dtype, Field, Loader, Schema, Table, Uniform};
/// let schema = Schema::new(vec![Field::new("x", Dtype::F32, [2])])?;
/// let x = [0.0f32, 0.1, 1.0, 1.1, 2.0, 2.1];
/// let table = Table::new(&schema, 3, &[bytemuck::cast_slice(&x)])?;
///
/// let batches = Batches::builder(Uniform, table.rows(), BatchSize::Fixed(8)).seed(1).build()?;
/// let mut loader = Loader::builder(table, batches).workers(1).build()?;
/// for _ in 0..100 {
///     let batch = loader.next()?;
///     for (x, row) in batch.typed::<f32>("x")?.chunks(2).zip(&batch.plan().rows) {
///         assert_eq!(x[0], *row as f32);
///     }
/// } // each batch gives its memory back here
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Loader<C: Collate + 'static = StackCollate> {
    shared: Arc<Shared<C>>,
    threads: Vec<JoinHandle<()>>,
    progress: Progress,
    show: Option<Show>,
}

type Show = Box<dyn FnMut(&Progress) + Send>;

/// How far a loader is, counted in batches that the caller took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The epoch of the batch taken last.
    pub epoch: u64,
    /// Rows of that epoch taken, over all ranks.
    pub epoch_drawn: u64,
    /// Rows that the epoch has; `None` where there are no epochs.
    pub epoch_rows: Option<u64>,
    /// Batches of that epoch, up to the one taken last.
    pub epoch_batches: u64,
    /// Batches taken since training began.
    pub batches: u64,
    /// Rows that this loader has handed out, without padding.
    pub rows: u64,
}

/// Settings of a [`Loader`].
pub struct LoaderBuilder<C = StackCollate> {
    collate: C,
    batches: Batches,
    workers: usize,
    prefetch: Option<usize>,
    show: Option<Show>,
}

impl<C: Collate + 'static> LoaderBuilder<C> {
    /// Threads that load; 0 if not given, for the caller's own.
    pub fn workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }

    /// Batches that are loaded or being loaded ahead of the caller at most, at least 1; two a worker if not given. With 0 workers
    /// there are none.
    pub fn prefetch(self, batches: usize) -> Self {
        Self { prefetch: Some(batches.max(1)), ..self }
    }

    /// Calls `show` with each batch that the caller takes, on the caller's thread. The last call counts.
    pub fn on_progress(self, show: impl FnMut(&Progress) + Send + 'static) -> Self {
        Self { show: Some(Box::new(show)), ..self }
    }

    /// Shows each batch that the caller takes on `bar`, in place of [`on_progress`](Self::on_progress).
    #[cfg(feature = "progress")]
    pub fn progress_bar(self, bar: &EpochBar) -> Self {
        let bar = bar.clone();
        self.on_progress(move |progress| bar.show(progress))
    }

    /// The loader; its workers start at once.
    ///
    /// # Errors
    /// [`LoadError::Rows`] when batches and source have not the same number of rows, [`LoadError::Spawn`].
    pub fn build(self) -> Result<Loader<C>, LoadError> {
        let Self { collate, batches, workers, prefetch, show } = self;
        if batches.rows() != collate.rows() {
            return Err(LoadError::Rows { batches: batches.rows(), source_rows: collate.rows() });
        }
        let prefetch = prefetch.unwrap_or(workers.saturating_mul(2));
        let shared = Arc::new(Shared::new(collate, batches, prefetch));
        let progress = Progress::default();
        // Dropped in an early return, it joins what has been started.
        let mut loader = Loader { shared, threads: Vec::new(), progress, show };
        for worker in 0..workers {
            let shared = Arc::clone(&loader.shared);
            let thread = std::thread::Builder::new().name(format!("rl-loader-{worker}"));
            let started = thread.spawn(move || shared.work());
            loader.threads.push(started.map_err(|e| LoadError::Spawn { worker, why: e.to_string() })?);
        }
        Ok(loader)
    }
}

impl<M: BatchMemory + 'static> LoaderBuilder<StackCollate<M>> {
    /// Memory that batches are loaded into; [`PlainMemory`] if not given.
    pub fn memory<N: BatchMemory + 'static>(self, memory: N) -> LoaderBuilder<StackCollate<N>> {
        let Self { collate, batches, workers, prefetch, show } = self;
        LoaderBuilder { collate: collate.memory(memory), batches, workers, prefetch, show }
    }
}

impl Loader {
    /// A loader of `rows` of one shape, stacked, in the order of `batches`. To keep the rows for other uses too, give an `Arc` of them.
    pub fn builder(rows: impl Rows + 'static, batches: Batches) -> LoaderBuilder {
        Loader::collating(StackCollate::new(rows), batches)
    }
}

impl<M: BatchMemory + 'static> Loader<StackCollate<M>> {
    /// What a row holds.
    pub fn schema(&self) -> &crate::Schema {
        self.shared.collate().schema()
    }
}

impl<C: Collate + 'static> Loader<C> {
    /// A loader of what `collate` makes of the rows of `batches`.
    pub fn collating(collate: C, batches: Batches) -> LoaderBuilder<C> {
        LoaderBuilder { collate, batches, workers: 0, prefetch: None, show: None }
    }

    /// The next batch, waiting for it if need be. There is always one: epochs follow each other, see [`epoch`](Self::epoch).
    ///
    /// # Errors
    /// [`LoadError`]. The batch is then passed over, and the next call gives the one behind it.
    #[expect(clippy::should_implement_trait, reason = "it never ends, and its items are errors too")]
    pub fn next(&mut self) -> Result<Loaded<C::Output>, LoadError> {
        let slot = if self.threads.is_empty() { self.shared.load_here() } else { self.shared.take() }?;
        let plan = &slot.plan;
        self.progress = Progress {
            epoch: plan.epoch,
            epoch_drawn: plan.epoch_drawn,
            epoch_rows: plan.epoch_rows,
            epoch_batches: plan.batch + 1,
            batches: plan.step + 1,
            rows: self.progress.rows + plan.real as u64,
        };
        if let Some(show) = &mut self.show {
            show(&self.progress);
        }
        Ok(Loaded::new(slot, Arc::clone(self.shared.pool())))
    }

    /// The batches that are left in the present epoch: up to the one that [ends it](crate::Plan::ends_epoch), or up to the first error.
    /// With a sampler that has no epochs it does not end.
    ///
    /// ```ignore
    /// for epoch in 0..10 {
    ///     for batch in loader.epoch() {
    ///         train(&batch?);
    ///     }
    /// }
    /// ```
    pub fn epoch(&mut self) -> impl Iterator<Item = Result<Loaded<C::Output>, LoadError>> + '_ {
        let mut ended = false;
        std::iter::from_fn(move || {
            if ended {
                return None;
            }
            let batch = self.next();
            ended = batch.as_ref().map_or(true, |batch| batch.plan().ends_epoch);
            Some(batch)
        })
    }

    /// How far the caller is.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Shows the position to `visitor`: that of the batch the caller took last, not of those loaded ahead. What is loaded goes on with
    /// the batch behind it; batches loaded ahead before are given up.
    ///
    /// With workers, saving draws anew what was drawn since it was last saved or loaded: O(rows drawn since), nothing of
    /// it read. It changes nothing.
    ///
    /// # Errors
    /// Those of [`Batches::visit`]. A loader into which a state was not loaded whole has no position; build it anew.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        if visitor.loading() { self.shared.restore(visitor) } else { self.shared.save(visitor) }
    }
}

impl<C: Collate + 'static> Drop for Loader<C> {
    fn drop(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            // What a worker runs catches panics, so there is nothing to hear of.
            let _ = thread.join();
        }
    }
}

impl<C: Collate + 'static> std::fmt::Debug for Loader<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader")
            .field("workers", &self.threads.len())
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}
