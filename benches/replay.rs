//! Inserting and drawing, one thread, for rows of two sizes: `cargo bench -p rl-replay`.
//!
//! `benches/concurrent.rs` and `rl-train bench replay` measure several threads at once.

mod rows;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rl_replay::{
    Batch, Drawn, Dtype, FrameReplay, FrameStep, MemoryState, NStep, Prioritized, Replay, Rng, Step,
    WeightNorm, importance_weights,
};
use rows::{capacity, config, filled, full, slices, workloads, zeros};

const BATCHES: [usize; 3] = [32, 256, 2048];

fn insert(c: &mut Criterion) {
    let mut group = c.benchmark_group("insert");
    for (name, schema) in workloads() {
        for prioritized in [false, true] {
            let replay = full(&schema, prioritized);
            let mut writer = replay.writer();
            let kind = format!("{name}{}", if prioritized { ", prioritized" } else { "" });
            for rows in [1, 64] {
                let columns = zeros(&schema, rows);
                let columns = slices(&columns);
                group.throughput(Throughput::Elements(rows as u64));
                group.bench_function(BenchmarkId::new(&kind, rows), |b| {
                    b.iter(|| writer.push_rows(rows, &columns).unwrap());
                });
            }
        }
        let replay = full(&schema, false);
        let (mut writer, mut n_step) = (replay.writer(), NStep::new(3, 0.99, &schema).unwrap());
        let row = zeros(&schema, 1);
        let step = Step {
            obs: &row[0],
            action: &row[1],
            reward: 1.0,
            next_obs: &row[4],
            terminated: false,
            truncated: false,
        };
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new(name, "3-step"), |b| {
            b.iter(|| n_step.push(step, &mut writer).unwrap());
        });
    }
}

fn uniform(c: &mut Criterion) {
    let mut group = c.benchmark_group("uniform");
    for (name, schema) in workloads() {
        let mut sampler = full(&schema, false).sampler();
        for rows in BATCHES {
            let (mut batch, mut drawn) = (Batch::new(&schema, rows), Drawn::default());
            let mut rng = Rng::seed_from_u64(0);
            group.throughput(Throughput::Elements(rows as u64));
            group.bench_function(BenchmarkId::new(name, rows), |b| {
                b.iter(|| sampler.sample_into(&mut rng, rows, &mut batch.view_mut(), &mut drawn).unwrap());
            });
        }
    }
}

/// With the draws of each row counted: drawing, and inserting over rows that were drawn; and the counters read.
fn draws_counted(c: &mut Criterion) {
    let mut group = c.benchmark_group("draws-counted");
    for (name, schema) in workloads() {
        let replay = filled(Replay::builder(schema.clone()).count_draws());
        let (mut sampler, mut writer) = (replay.sampler(), replay.writer());
        let (mut batch, mut drawn) = (Batch::new(&schema, 256), Drawn::default());
        let mut rng = Rng::seed_from_u64(0);
        group.throughput(Throughput::Elements(256));
        group.bench_function(BenchmarkId::new(format!("uniform, {name}"), 256), |b| {
            b.iter(|| sampler.sample_into(&mut rng, 256, &mut batch.view_mut(), &mut drawn).unwrap());
        });
        let columns = zeros(&schema, 1);
        let columns = slices(&columns);
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new(format!("insert, {name}"), 1), |b| {
            b.iter(|| writer.push_rows(1, &columns).unwrap());
        });
        group.throughput(Throughput::Elements(capacity() as u64));
        group.bench_function(format!("statistics, {name}"), |b| b.iter(|| replay.statistics()));
    }
}

/// Rows of two observations of 17 numbers, held as f32 and as 16-bit floats; zeros, for values cost the same.
fn stored(c: &mut Criterion) {
    let (_, schema) = &workloads()[1];
    let mut group = c.benchmark_group("stored");
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        let builder = Replay::builder(schema.clone());
        let builder = match dtype {
            Dtype::F32 => builder,
            dtype => builder.store("obs", dtype).store("next_obs", dtype),
        };
        let replay = filled(builder);
        println!("{dtype}: {} bytes for {} rows", replay.memory_bytes(), capacity());
        let mut writer = replay.writer();
        for rows in [1, 64] {
            let columns = zeros(schema, rows);
            let columns = slices(&columns);
            group.throughput(Throughput::Elements(rows as u64));
            group.bench_function(BenchmarkId::new(format!("insert {dtype}"), rows), |b| {
                b.iter(|| writer.push_rows(rows, &columns).unwrap());
            });
        }
        let (mut sampler, mut rng) = (replay.sampler(), Rng::seed_from_u64(0));
        let (mut batch, mut drawn) = (Batch::new(schema, 256), Drawn::default());
        group.throughput(Throughput::Elements(256));
        group.bench_function(BenchmarkId::new(format!("uniform {dtype}"), 256), |b| {
            b.iter(|| sampler.sample_into(&mut rng, 256, &mut batch.view_mut(), &mut drawn).unwrap());
        });
    }
}

/// The whole step: draw, gather, weigh, write new priorities back.
fn prioritized_update(c: &mut Criterion) {
    let mut group = c.benchmark_group("prioritized-update");
    for (name, schema) in workloads() {
        let mut sampler = full(&schema, true).sampler();
        for rows in BATCHES {
            let (mut batch, mut drawn) = (Batch::new(&schema, rows), Drawn::default());
            let mut rng = Rng::seed_from_u64(0);
            let magnitudes: Vec<f32> = (0..rows).map(|_| rng.random()).collect();
            let mut weights = vec![0f32; rows];
            group.throughput(Throughput::Elements(rows as u64));
            group.bench_function(BenchmarkId::new(name, rows), |b| {
                b.iter(|| {
                    sampler.sample_into(&mut rng, rows, &mut batch.view_mut(), &mut drawn).unwrap();
                    importance_weights(&drawn, 0.4, WeightNorm::BatchMax, &mut weights);
                    sampler.update_priorities(&drawn.rows, &magnitudes).unwrap();
                });
            });
        }
    }
}

fn save(c: &mut Criterion) {
    let mut group = c.benchmark_group("save");
    let (name, schema) = &workloads()[0];
    let replay = full(schema, true);
    group.sample_size(10).throughput(Throughput::Bytes((capacity() * schema.row_bytes()) as u64));
    group.bench_function(*name, |b| {
        b.iter_batched(|| (), |()| MemoryState::save(|v| replay.visit(v)).unwrap(), BatchSize::PerIteration);
    });
}

/// To a file and back, in memory where there is such a folder. `examples/snapshot_speed.rs` does it with gigabytes.
fn snapshot(c: &mut Criterion) {
    let mut group = c.benchmark_group("snapshot");
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let path = folder.path().join("replay");
    let (name, schema) = &workloads()[1];
    let replay = full(schema, true);
    group.sample_size(10).throughput(Throughput::Bytes((capacity() * schema.row_bytes()) as u64));
    group.bench_function(BenchmarkId::new("save", name), |b| b.iter(|| replay.save(&path).unwrap()));
    let empty = || {
        let builder = Replay::builder(schema.clone()).capacity(capacity());
        builder.prioritized(Prioritized::default()).build().unwrap()
    };
    group.bench_function(BenchmarkId::new("load", name), |b| {
        b.iter_batched(empty, |replay| replay.load(&path).unwrap(), BatchSize::PerIteration);
    });
}

/// Atari's stacks of four frames of 84 × 84, each frame stored once; episodes of 1,000 steps. `memcpy` copies rows of as
/// many bytes, W frames each, from all over as much memory: the limit.
fn frames(c: &mut Criterion) {
    const FRAME: usize = 84 * 84;
    let capacity = capacity().min(50_000);
    let replay = FrameReplay::builder((Dtype::U8, &[84, 84]), (Dtype::I64, &[]));
    let replay = replay.capacity(capacity).build().unwrap();
    let (mut stream, mut t) = (replay.stream(), 0u64);
    let mut frame = vec![0u8; FRAME];
    let mut step = || {
        frame[..8].copy_from_slice(&t.to_ne_bytes());
        if t.is_multiple_of(1000) {
            stream.begin(&frame).unwrap();
        }
        t += 1;
        let terminated = t.is_multiple_of(1000);
        let step =
            FrameStep { action: &[0; 8], reward: 1.0, next_frame: &frame, terminated, truncated: false };
        stream.step(step).unwrap();
    };
    (0..capacity + 1000).for_each(|_| step());
    let mut group = c.benchmark_group("frames");
    group.throughput(Throughput::Bytes(FRAME as u64));
    group.bench_function("insert", |b| b.iter(&mut step));
    let row_bytes = replay.schema().row_bytes();
    let memory = vec![1u8; capacity * FRAME];
    for rows in [32, 256] {
        group.throughput(Throughput::Bytes((rows * row_bytes) as u64));
        let (mut reader, mut rng) = (replay.sampler(), Rng::seed_from_u64(0));
        let (mut batch, mut drawn) = (Batch::new(replay.schema(), rows), Drawn::default());
        group.bench_function(BenchmarkId::new("uniform", rows), |b| {
            b.iter(|| reader.sample_into(&mut rng, rows, &mut batch.view_mut(), &mut drawn).unwrap());
        });
        let bytes = replay.window() * FRAME;
        group.bench_function(BenchmarkId::new("memcpy", rows), |b| {
            b.iter(|| {
                for cell in batch.column_mut(0).chunks_exact_mut(bytes) {
                    let from = rng.random_range(0..=memory.len() - bytes);
                    cell.copy_from_slice(&memory[from..][..bytes]);
                }
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = config();
    targets = insert, uniform, draws_counted, stored, prioritized_update, save, snapshot, frames
}
criterion_main!(benches);
