//! Once it is warm a loader allocates nothing: neither for batches, nor for plans, nor in its queue, on any thread.

mod common;

use common::Epochs;
use rl_minibatch::{
    Batch, BatchMemory, BatchSize, Batches, Dtype, Field, LastBatch, LoadError, Loader, PlainMemory, Rows,
    Schema, Table,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn source(rows: usize) -> impl Rows {
    let bytes = Schema::new(vec![Field::new("x", Dtype::U8, [256])]).unwrap();
    let floats = Schema::new(vec![Field::new("x", Dtype::F32, [256])]).unwrap();
    let table = Table::new(&bytes, rows, &[&vec![7u8; rows * 256]]).unwrap();
    table.map(floats, 0, |cells, _, out| {
        for (to, from) in out.cell_mut(0).as_chunks_mut::<4>().0.iter_mut().zip(cells.cell(0)) {
            *to = f32::from(*from).to_ne_bytes();
        }
        Ok(())
    })
}

fn batches(rows: u64) -> Batches {
    let size = BatchSize::Steps(vec![(0, 64), (3, 48)]);
    Batches::builder(Epochs::shuffled(), rows, size).last(LastBatch::Keep).build().unwrap()
}

/// Counts what it gives.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicUsize>);

impl BatchMemory for Counting {
    type Host = Batch;
    fn allocate(&self, schema: &Schema, rows: usize) -> Result<Batch, LoadError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        PlainMemory.allocate(schema, rows)
    }
}

#[test]
fn nothing_is_allocated_on_the_callers_thread() {
    for workers in [0, 1, 2] {
        let mut loader = Loader::builder(source(500), batches(500)).workers(workers).build().unwrap();
        (0..100).for_each(|_| drop(loader.next().unwrap()));
        let info = allocation_counter::measure(|| (0..200).for_each(|_| drop(loader.next().unwrap())));
        assert_eq!((info.count_total, info.bytes_total), (0, 0), "{workers} workers");
    }
}

#[test]
fn as_many_batches_are_made_as_are_in_use_at_once_and_no_more() {
    for (workers, prefetch, held) in [(0, 1, 1), (0, 1, 4), (1, 2, 1), (2, 4, 1), (2, 4, 3), (4, 2, 1)] {
        let made = Counting::default();
        let mut loader = Loader::builder(source(500), batches(500))
            .workers(workers)
            .prefetch(prefetch)
            .memory(made.clone())
            .build()
            .unwrap();
        let mut places = BTreeSet::new();
        for _ in 0..100 {
            let batches: Vec<_> = (0..held).map(|_| loader.next().unwrap()).collect();
            places.extend(batches.iter().map(|batch| batch.column(0).as_ptr() as usize));
        }
        let ahead = if workers == 0 { 0 } else { prefetch };
        let (made, places) = (made.0.load(Ordering::Relaxed), places.len());
        assert!(made <= ahead + held, "{made} for {workers} workers, {prefetch} ahead, {held} held");
        assert!(places <= made && places >= held, "{places} of {made}");
    }
}
