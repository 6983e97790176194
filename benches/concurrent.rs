//! Writers and samplers on threads of their own, and sequences: `cargo bench -p rl-replay --bench concurrent`.
//!
//! Of writers and samplers that go on at once one side is timed: `sampled` is the rate of all samplers together, `inserted`
//! that of all writers. `rl-train bench replay` measures both in one run, and how long single calls take.

mod rows;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::SeedableRng;
use rl_replay::{
    Batch, Drawn, Dtype, Field, RateLimiter, Replay, ReplayError, Rng, Schema, SequenceSpec, Sequences,
};
use rows::{capacity, config, fill, full, measuring, slices, workloads, zeros};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Rows of a batch.
const BATCH: usize = 256;

/// Rows inserted one by one between two looks at the clock's flag.
const BLOCK: usize = 64;

#[derive(Clone, Copy, PartialEq)]
enum Timed {
    Sampled,
    Inserted,
}

/// Lets so many threads of each side go on until those that are timed have done `units` pieces of work together: batches
/// drawn, or blocks inserted.
fn run(replay: &Replay, writers: usize, samplers: usize, timed: Timed, units: u64) -> Duration {
    let (left, done) = (AtomicU64::new(units), AtomicBool::new(false));
    // Whether there is more to do for a side.
    let more = |side: Timed| {
        if side != timed {
            return !done.load(Relaxed);
        }
        left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    };
    let row = zeros(replay.schema(), 1);
    let inserting = |mut writer: rl_replay::Writer| {
        let row = slices(&row);
        while more(Timed::Inserted) {
            for _ in 0..BLOCK {
                match writer.push(&row) {
                    Ok(_) => {}
                    Err(ReplayError::Closed { .. }) => return,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    };
    let drawing = |mut sampler: rl_replay::Reader, seed: u64| {
        let mut rng = Rng::seed_from_u64(seed);
        let (mut batch, mut drawn) = (Batch::new(sampler.schema(), BATCH), Drawn::default());
        while more(Timed::Sampled) {
            sampler.sample_into(&mut rng, BATCH, &mut batch.view_mut(), &mut drawn).unwrap();
        }
    };
    let (inserting, drawing) = (&inserting, &drawing);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let inserts: Vec<_> =
            (0..writers).map(|_| replay.writer()).map(|w| scope.spawn(move || inserting(w))).collect();
        let draws: Vec<_> = (0..samplers as u64)
            .map(|seed| (replay.sampler(), seed))
            .map(|(sampler, seed)| scope.spawn(move || drawing(sampler, seed)))
            .collect();
        let (first, last) = if timed == Timed::Sampled { (draws, inserts) } else { (inserts, draws) };
        first.into_iter().for_each(|thread| thread.join().unwrap());
        let took = began.elapsed();
        done.store(true, Relaxed);
        // Writers that wait for a rate limiter would wait for ever.
        replay.close();
        last.into_iter().for_each(|thread| thread.join().unwrap());
        took
    })
}

fn concurrent(c: &mut Criterion) {
    let mut group = c.benchmark_group("concurrent");
    let (name, schema) = &workloads()[1];
    for prioritized in [false, true] {
        let replay = full(schema, prioritized);
        let kind = if prioritized { format!("{name}, prioritized") } else { (*name).to_string() };
        for (writers, samplers) in [(1, 1), (4, 2)] {
            for (timed, what, rows) in
                [(Timed::Sampled, "sampled", BATCH), (Timed::Inserted, "inserted", BLOCK)]
            {
                group.throughput(Throughput::Elements(rows as u64));
                let id = BenchmarkId::new(format!("{kind}, {writers}+{samplers}"), what);
                group.bench_function(id, |b| {
                    b.iter_custom(|units| run(&replay, writers, samplers, timed, units));
                });
            }
        }
    }
    // Eight draws a row, so a batch is drawn for each 32 rows, and both sides wait for each other all the time.
    let limiter = RateLimiter { min_size: 1_000, samples_per_insert: 8.0, error_buffer: 1_024.0 };
    for (writers, samplers) in [(1, 1), (4, 2)] {
        group.throughput(Throughput::Elements(BATCH as u64));
        let id = BenchmarkId::new(format!("{name}, {writers}+{samplers}"), "rate-limited");
        group.bench_function(id, |b| {
            b.iter_custom(|units| {
                // A buffer that was closed stays so.
                let builder = Replay::builder(schema.clone()).capacity(4_096).rate_limiter(limiter);
                let replay = builder.build().unwrap();
                fill(&replay, 1_000);
                run(&replay, writers, samplers, Timed::Sampled, units)
            });
        });
    }
}

/// R2D2's sequences of 80 steps that overlap by 40, of one environment's steps and its recurrent state.
fn sequences(c: &mut Criterion) {
    let step = Schema::new(vec![
        Field::new("obs", Dtype::F32, [17]),
        Field::new("action", Dtype::F32, [6]),
        Field::new("reward", Dtype::F32, []),
        Field::new("discount", Dtype::F32, []),
        Field::new("state", Dtype::F32, [64]),
    ]);
    let (step, spec) = (step.unwrap(), SequenceSpec::R2D2);
    let schema = Sequences::schema(spec, &step, &["state"]).unwrap();
    let replay = Replay::builder(schema.clone()).capacity(capacity() / 100).build().unwrap();
    let mut sequences = Sequences::new(spec, &step, &["state"]).unwrap();
    let (mut writer, columns, mut t) = (replay.writer(), zeros(&step, 1), 0u64);
    let columns = slices(&columns);
    let mut push = || {
        t += 1;
        sequences.push(&columns, t.is_multiple_of(1_000), &mut writer).unwrap();
    };
    (0..if measuring() { 40 * capacity() / 100 } else { 200 }).for_each(|_| push());
    let mut group = c.benchmark_group("sequences");
    group.throughput(Throughput::Elements(1));
    group.bench_function("insert, a step", |b| b.iter(&mut push));
    for rows in [32, 256] {
        let (mut sampler, mut rng) = (replay.sampler(), Rng::seed_from_u64(0));
        let (mut batch, mut drawn) = (Batch::new(&schema, rows), Drawn::default());
        group.throughput(Throughput::Bytes((rows * schema.row_bytes()) as u64));
        group.bench_function(BenchmarkId::new("uniform", rows), |b| {
            b.iter(|| sampler.sample_into(&mut rng, rows, &mut batch.view_mut(), &mut drawn).unwrap());
        });
    }
}

criterion_group! {
    name = benches;
    config = config();
    targets = sequences, concurrent
}
criterion_main!(benches);
