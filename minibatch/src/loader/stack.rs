//! Rows of one shape, one under the other, in memory of the caller's choice.

use super::memory::{BatchMemory, HostMemory, PlainMemory};
use super::{Collate, LoadError, Rows, Selection};
use crate::Schema;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Stacks [`Rows`] into the memory that a [`BatchMemory`] gives. A batch's memory may have room for more rows than it has.
pub struct StackCollate<M = PlainMemory> {
    source: Arc<dyn Rows>,
    memory: M,
    /// Rows of the largest batch so far, at least 1.
    largest: AtomicUsize,
}

impl StackCollate {
    /// `rows` stacked in plain memory.
    pub fn new(rows: impl Rows + 'static) -> Self {
        Self { source: Arc::new(rows), memory: PlainMemory, largest: AtomicUsize::new(1) }
    }
}

impl<M: BatchMemory> StackCollate<M> {
    /// The same rows in other memory.
    pub fn memory<N: BatchMemory>(self, memory: N) -> StackCollate<N> {
        StackCollate { source: self.source, memory, largest: self.largest }
    }

    /// What a row holds.
    pub fn schema(&self) -> &Schema {
        self.source.schema()
    }
}

impl<M: BatchMemory> Collate for StackCollate<M> {
    type Output = M::Host;

    fn rows(&self) -> u64 {
        self.source.rows()
    }

    fn collate(&self, drawn: &Selection<'_>, out: &mut Option<M::Host>) -> Result<(), LoadError> {
        let (rows, schema) = (drawn.rows.len(), self.source.schema());
        let fill = |host: &mut M::Host| -> Result<bool, LoadError> {
            let mut view = host.view_mut();
            if view.rows() < rows {
                return Ok(false);
            }
            view.check(schema, rows)?;
            self.source.gather(drawn.rows, drawn.passes, &mut view.rows_mut(0..rows))?;
            Ok(true)
        };
        if let Some(host) = out
            && fill(host)?
        {
            return Ok(());
        }
        // The old memory goes first, so that both need not fit.
        *out = None;
        // As for the largest so far, so that memory made for a small last batch need not be made again.
        let room = self.largest.fetch_max(rows, Ordering::Relaxed).max(rows);
        let host = out.insert(self.memory.allocate(schema, room)?);
        if fill(host)? {
            return Ok(());
        }
        let why = format!("the provider gave memory for fewer than the {room} rows asked for");
        Err(LoadError::Memory { rows, why })
    }
}

impl<M> std::fmt::Debug for StackCollate<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StackCollate")
            .field("schema", self.source.schema())
            .field("rows", &self.source.rows())
            .finish_non_exhaustive()
    }
}
