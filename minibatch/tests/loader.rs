//! The loader: the same batches with any number of workers, rows that fail named, threads joined, positions resumed.

mod common;

use common::Epochs;
use parking_lot::Mutex;
use proptest::prelude::*;
use rand::RngExt;
use rl_minibatch::{
    At, BatchSize, Batches, Dtype, Field, FnRows, LastBatch, LoadError, Loader, MemoryState, Plan, RowCause,
    RowMut, Rows, Schema, Table, Uniform,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Threads are counted, so these tests take turns.
static TURN: Mutex<()> = Mutex::new(());

fn schema() -> Schema {
    Schema::new(vec![Field::new("x", Dtype::F32, [3]), Field::new("row", Dtype::I64, [])]).unwrap()
}

fn table(rows: u64) -> Table {
    let x: Vec<f32> = (0..3 * rows).map(|i| i as f32).collect();
    let numbers: Vec<i64> = (0..rows as i64).collect();
    Table::new(&schema(), rows as usize, &[bytemuck::cast_slice(&x), bytemuck::cast_slice(&numbers)]).unwrap()
}

fn batches(rows: u64, size: usize, last: LastBatch) -> Batches {
    Batches::builder(Epochs::shuffled(), rows, BatchSize::Fixed(size)).seed(9).last(last).build().unwrap()
}

/// Rows that take unequal times, so that workers overtake each other, with a random number to each.
fn augmented(rows: u64) -> impl Rows {
    table(rows).map(schema(), 11, |cells, rng, out| {
        let (x, number) = (cells.typed::<f32>("x")?, cells.typed::<i64>("row")?);
        std::thread::sleep(Duration::from_micros(number[0] as u64 % 5 * 20));
        let noise = rng.random::<f32>();
        out.write(0, &[x[0] + noise, x[1] * noise, x[2]])?;
        out.write(1, number)?;
        Ok(())
    })
}

type Taken = (Plan, Vec<f32>, Vec<i64>);

fn take(loader: &mut Loader) -> Taken {
    let batch = loader.next().unwrap();
    let (x, numbers) = (batch.typed::<f32>("x").unwrap(), batch.typed::<i64>("row").unwrap());
    assert_eq!(batch.column(1), bytemuck::cast_slice::<i64, u8>(numbers));
    (batch.plan().clone(), x.to_vec(), numbers.to_vec())
}

/// Threads of this process that a loader started and that are not gone.
fn loader_threads() -> usize {
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    };
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks.filter_map(name).filter(|name| name.starts_with("rl-loader-")).count()
}

/// Waits until `count` threads are there: a thread names itself once it runs, and one that was joined shows for a moment longer.
fn wait_for_threads(count: usize) {
    let start = Instant::now();
    while loader_threads() != count {
        assert!(start.elapsed() < Duration::from_secs(20), "{} threads, not {count}", loader_threads());
        std::thread::yield_now();
    }
}

#[test]
fn batches_are_the_same_with_any_number_of_workers() {
    let _turn = TURN.lock();
    let run = |workers: usize, prefetch: usize| -> Vec<Taken> {
        let batches = batches(103, 8, LastBatch::Keep);
        let builder = Loader::builder(augmented(103), batches).workers(workers).prefetch(prefetch);
        let mut loader = builder.build().unwrap();
        (0..40).map(|_| take(&mut loader)).collect()
    };
    let expected = run(0, 1);
    let mut rows_of = batches(103, 8, LastBatch::Keep);
    for (plan, x, numbers) in &expected {
        let mut drawn = Plan::new();
        rows_of.next(&mut drawn).unwrap();
        assert_eq!(*plan, drawn);
        assert_eq!(numbers.len(), drawn.rows.len());
        assert!(numbers.iter().zip(&drawn.rows).all(|(number, row)| *number as u64 == *row));
        assert!(x.chunks(3).zip(&drawn.rows).all(|(x, row)| x[2] == (3 * row + 2) as f32));
    }
    for (workers, prefetch) in [(1, 1), (1, 3), (2, 1), (2, 4), (4, 2), (4, 16)] {
        assert_eq!(run(workers, prefetch), expected, "{workers} workers, {prefetch} ahead");
    }
}

#[test]
fn augmentation_differs_from_pass_to_pass_and_row_to_row() {
    let mut loader = Loader::builder(augmented(20), batches(20, 20, LastBatch::Keep)).build().unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let (_, x, numbers) = take(&mut loader);
        seen.extend(x.chunks(3).zip(numbers).map(|(x, row)| (x[0] - (3 * row) as f32).to_bits()));
    }
    seen.sort_unstable();
    seen.dedup();
    // Numbers in [0, 1) rounded at 64 have 2¹⁷ values: two of 60 agree with probability 0.014; the seed is fixed.
    assert_eq!(seen.len(), 60);
    let draw = |row, pass, seed| At { row, pass }.rng(seed).random::<u64>();
    assert_eq!(draw(1, 2, 3), draw(1, 2, 3));
    let others = [draw(2, 1, 3), draw(1, 3, 2), draw(3, 2, 1), draw(0, 2, 3), draw(1, 2, 4), draw(1, 1, 3)];
    assert!(others.iter().all(|other| *other != draw(1, 2, 3)));
}

#[test]
fn a_row_that_fails_is_named_in_its_batch_and_the_rest_comes() {
    let _turn = TURN.lock();
    for workers in [0, 1, 2, 4] {
        let source = FnRows::new(schema(), 100, |at: At, cells: &mut RowMut<'_>| -> Result<(), RowCause> {
            match at.row {
                17 => Err("the file is truncated".into()),
                42 => panic!("index {} is out of bounds", 7),
                row => Ok(cells.write(1, &[row as i64])?),
            }
        });
        let sequential = Batches::builder(Epochs::sequential(), 100, BatchSize::Fixed(10)).build().unwrap();
        let mut loader = Loader::builder(source, sequential).workers(workers).build().unwrap();
        for batch in 0..25u64 {
            match (batch % 10, loader.next()) {
                (1, Err(error @ LoadError::Row { row: 17, .. })) => {
                    assert_eq!(error.to_string(), "row 17 cannot be read: the file is truncated");
                }
                (4, Err(error @ LoadError::Panicked { row: 42, .. })) => {
                    assert_eq!(error.to_string(), "reading row 42 panicked: index 7 is out of bounds");
                }
                (_, Ok(found)) => assert_eq!(found.plan().rows[0], batch % 10 * 10),
                (_, other) => panic!("batch {batch} with {workers} workers: {other:?}"),
            }
        }
        assert_eq!(loader.epoch().count(), 5, "up to the end of the epoch");
        let counts: Vec<_> = (0..3).map(|_| loader.epoch().map(|b| b.is_ok()).collect::<Vec<_>>()).collect();
        assert_eq!(counts, [vec![true, false], vec![true, true, false], vec![true; 5]]);
    }
}

#[test]
fn a_panic_in_a_map_or_a_gather_and_a_draw_that_fails_are_errors_too() {
    let _turn = TURN.lock();
    struct Gathers(Table);
    impl Rows for Gathers {
        fn schema(&self) -> &Schema {
            self.0.schema()
        }
        fn rows(&self) -> u64 {
            self.0.rows()
        }
        fn read(&self, at: At, cells: &mut RowMut<'_>) -> Result<(), RowCause> {
            self.0.read(at, cells)
        }
        fn gather(
            &self,
            rows: &[u64],
            _: &[u64],
            _: &mut rl_minibatch::BatchMut<'_>,
        ) -> Result<(), LoadError> {
            panic!("{} rows are too many", rows.len())
        }
    }
    for workers in [0, 2] {
        let build = |source: Arc<dyn Rows>| {
            Loader::builder(source, batches(50, 10, LastBatch::Keep)).workers(workers).build().unwrap()
        };
        let mut gathers = build(Arc::new(Gathers(table(50))));
        gathers.next().unwrap_err();
        let error = gathers.next().unwrap_err().to_string();
        assert_eq!(error, "loading batch 1 panicked: 10 rows are too many");
        let mapped = table(50).map(schema(), 0, |cells, _, _| match cells.typed::<i64>("row")?[0] {
            33 => panic!("not this one"),
            _ => Ok(()),
        });
        let mut mapped = build(Arc::new(mapped));
        let errors: Vec<_> = (0..5).filter_map(|_| mapped.next().err()).map(|e| e.to_string()).collect();
        assert_eq!(errors, ["reading row 33 panicked: not this one"]);

        let few = rl_minibatch::WithoutReplacement::new();
        let few = Batches::builder(few, 50, BatchSize::Fixed(60)).build().unwrap();
        let mut few = Loader::builder(table(50), few).workers(workers).build().unwrap();
        for _ in 0..3 {
            assert!(matches!(few.next(), Err(LoadError::Batches(_))));
        }
    }
    let other = Loader::builder(table(50), batches(51, 10, LastBatch::Keep)).build();
    assert!(matches!(other, Err(LoadError::Rows { batches: 51, source_rows: 50 })));
}

#[test]
fn dropped_midway_it_leaves_no_thread_and_its_batches_live_on() {
    let _turn = TURN.lock();
    wait_for_threads(0);
    for taken in [0, 1, 7] {
        let batches = batches(103, 8, LastBatch::Wrap);
        let mut loader = Loader::builder(augmented(103), batches).workers(4).build().unwrap();
        let held: Vec<_> = (0..taken).map(|_| loader.next().unwrap()).collect();
        wait_for_threads(4);
        drop(loader);
        wait_for_threads(0);
        for batch in held {
            assert!(
                batch
                    .typed::<i64>("row")
                    .unwrap()
                    .iter()
                    .zip(&batch.plan().rows)
                    .all(|(n, r)| *n as u64 == *r)
            );
        }
    }
}

#[test]
fn no_more_is_loaded_than_the_queue_holds_and_batches_may_be_kept() {
    let _turn = TURN.lock();
    let read = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&read);
    let source = FnRows::new(schema(), 1000, move |at: At, cells: &mut RowMut<'_>| {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(cells.write(1, &[at.row as i64])?)
    });
    let builder = Loader::builder(source, batches(1000, 10, LastBatch::Keep)).workers(2).prefetch(3);
    let mut loader = builder.build().unwrap();
    let settle = || {
        std::thread::sleep(Duration::from_millis(100));
        read.load(Ordering::Relaxed)
    };
    assert_eq!(settle(), 30);
    let held: Vec<_> = (0..20).map(|_| loader.next().unwrap()).collect();
    let loaded = settle();
    assert!((200..=230).contains(&loaded), "{loaded}");
    for batch in &held {
        let numbers = batch.typed::<i64>("row").unwrap();
        assert!(numbers.iter().zip(&batch.plan().rows).all(|(number, row)| *number as u64 == *row));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn saved_with_batches_ahead_it_resumes_behind_the_last_one_taken(
        rows in 20u64..60, size in 1usize..9, taken in 0usize..30, workers in 0usize..4, prefetch in 1usize..9,
        saves in 1usize..4, wrap in any::<bool>(),
    ) {
        let _turn = TURN.lock();
        let last = if wrap { LastBatch::Wrap } else { LastBatch::Keep };
        let build = |workers| {
            let builder = Loader::builder(table(rows), batches(rows, size, last)).workers(workers);
            builder.prefetch(prefetch).build().unwrap()
        };
        let (mut loader, mut plain) = (build(workers), build(0));
        let mut saved = MemoryState::default();
        for _ in 0..saves {
            for _ in 0..taken {
                prop_assert_eq!(take(&mut loader), take(&mut plain));
            }
            saved = MemoryState::save(|v| loader.visit(v)).unwrap();
            // Saved is the position of the caller, whatever the workers did meanwhile.
            let expected = MemoryState::save(|v| plain.visit(v)).unwrap();
            prop_assert!(saved == expected, "{:?} differ", saved.differences(&expected));
        }
        // Into loaders that are somewhere else, and into itself after going on.
        for mut other in [build(2), build(workers)] {
            take(&mut other);
            saved.load(|v| other.visit(v)).unwrap();
            let mut expected = build(0);
            saved.load(|v| expected.visit(v)).unwrap();
            for _ in 0..20 {
                prop_assert_eq!(take(&mut other), take(&mut expected));
            }
        }
        let after: Vec<Taken> = (0..10).map(|_| take(&mut loader)).collect();
        saved.load(|v| loader.visit(v)).unwrap();
        let again: Vec<Taken> = (0..10).map(|_| take(&mut loader)).collect();
        prop_assert_eq!(&after, &again);
        prop_assert_eq!(after, (0..10).map(|_| take(&mut plain)).collect::<Vec<_>>());
    }
}

#[test]
fn progress_counts_what_the_caller_took() {
    let _turn = TURN.lock();
    let shown = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&shown);
    let builder = Loader::builder(table(25), batches(25, 10, LastBatch::Pad)).workers(2);
    let mut loader = builder.on_progress(move |progress| sink.lock().push(*progress)).build().unwrap();
    assert_eq!(loader.progress(), Default::default());
    assert_eq!(loader.epoch().map(|batch| batch.unwrap().rows()).sum::<usize>(), 30);
    loader.next().unwrap();
    let shown: Vec<_> =
        shown.lock().iter().map(|p| (p.epoch, p.epoch_drawn, p.epoch_rows, p.batches, p.rows)).collect();
    let all = Some(25);
    assert_eq!(shown, [(0, 10, all, 1, 10), (0, 20, all, 2, 20), (0, 25, all, 3, 25), (1, 10, all, 4, 35)]);
    assert_eq!(loader.progress().rows, 35);
}

#[test]
fn with_replacement_there_is_no_end() {
    let _turn = TURN.lock();
    let uniform = Batches::builder(Uniform, 30, BatchSize::Fixed(64)).build().unwrap();
    let mut loader = Loader::builder(augmented(30), uniform).workers(1).build().unwrap();
    assert_eq!(loader.epoch().take(10).filter(Result::is_ok).count(), 10);
}
