//! Choosing the rows of fixed data sets: `cargo bench -p rl-minibatch --bench epochs`.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::SeedableRng;
use rl_minibatch::{
    ClassBalanced, Drawn, LengthBucketed, Rng, Sampler, Sequential, Shuffled, Stratified, Uniform, Weighted,
    WeightedWithoutReplacement,
};

const BATCH: usize = 256;

/// A million rows when measuring; few when `cargo test --benches` only wants to see everything run once.
fn rows() -> u64 {
    if std::env::args().any(|argument| argument == "--bench") { 1_000_000 } else { 4_096 }
}

type Make = fn(u64) -> Box<dyn Sampler>;

/// A number that looks random, below `below`.
fn scattered(row: u64, below: u64) -> u64 {
    (row.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % below
}

fn labels(rows: u64, classes: u64) -> Vec<u32> {
    (0..rows).map(|row| scattered(row, classes) as u32).collect()
}

const KINDS: [(&str, Make); 11] = [
    ("uniform", |_| Box::new(Uniform)),
    ("sequential", |rows| Box::new(Sequential::new(rows).unwrap())),
    ("shuffled", |rows| Box::new(Shuffled::new(rows).unwrap())),
    ("shuffled, computed", |rows| Box::new(Shuffled::new(rows.max(100_000_000)).unwrap())),
    ("weighted", |rows| {
        let weights: Vec<f64> = (0..rows).map(|row| scattered(row, 1000) as f64).collect();
        Box::new(Weighted::new(&weights).unwrap())
    }),
    ("weighted, half without replacement", |rows| {
        let weights: Vec<f64> = (0..rows).map(|row| scattered(row, 1000) as f64).collect();
        Box::new(WeightedWithoutReplacement::new(&weights, rows as usize / 2).unwrap())
    }),
    ("stratified, 10 classes", |rows| Box::new(Stratified::new(&labels(rows, 10), 10).unwrap())),
    ("stratified, 1000 classes", |rows| Box::new(Stratified::new(&labels(rows, 1000), 1000).unwrap())),
    ("class-balanced, 10 classes", |rows| Box::new(ClassBalanced::new(&labels(rows, 10), 10).unwrap())),
    ("class-balanced, 1000 classes", |rows| Box::new(ClassBalanced::new(&labels(rows, 1000), 1000).unwrap())),
    ("length-bucketed", |rows| Box::new(LengthBucketed::new(&labels(rows, 500), BATCH, 50 * BATCH).unwrap())),
];

fn epochs(c: &mut Criterion) {
    for (name, make) in KINDS {
        let rows = if name == "shuffled, computed" { rows().max(100_000_000) } else { rows() };
        let (mut sampler, mut rng, mut drawn) = (make(rows), Rng::seed_from_u64(1), Drawn::default());
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(BATCH as u64));
        // Epochs that begin on the way count in.
        group.bench_function(BenchmarkId::new("draw", rows), |b| {
            b.iter(|| sampler.draw(&mut rng, 0..rows, BATCH, &mut drawn).unwrap());
        });
        if sampler.epoch().is_some() {
            group.throughput(Throughput::Elements(rows));
            group.bench_function(BenchmarkId::new("begin an epoch", rows), |b| {
                b.iter_batched_ref(
                    || make(rows),
                    |sampler| sampler.draw(&mut rng, 0..rows, 1, &mut drawn).unwrap(),
                    BatchSize::PerIteration,
                );
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(std::time::Duration::from_secs(2)).warm_up_time(std::time::Duration::from_millis(500)).sample_size(10);
    targets = epochs
}
criterion_main!(benches);
