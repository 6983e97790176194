//! Choosing rows, without copying them, and sending priorities back: `cargo bench -p rl-replay --bench samplers`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rl_replay::{
    Combined, Drawn, Prioritized, Proportional, RankBased, Recent, RecentSettings, Rng, Sampler, Uniform,
    WithoutReplacement,
};

const BATCH: usize = 256;

/// A million rows and ten million when measuring; few when `cargo test --benches` only wants to see everything run once.
fn capacities() -> Vec<u64> {
    if std::env::args().any(|argument| argument == "--bench") {
        vec![1_000_000, 10_000_000]
    } else {
        vec![4_096]
    }
}

type Make = fn(u64) -> Box<dyn Sampler>;

const KINDS: [(&str, Make); 6] = [
    ("uniform", |_| Box::new(Uniform)),
    ("without replacement", |_| Box::new(WithoutReplacement::new())),
    ("recent", |_| Box::new(Recent::new(RecentSettings::default()).unwrap())),
    ("proportional", |capacity| Box::new(Proportional::new(capacity, Prioritized::default()).unwrap())),
    ("rank-based", |capacity| Box::new(RankBased::new(capacity, 0.7).unwrap())),
    ("combined, rank-based", |capacity| {
        Box::new(Combined::new(Box::new(RankBased::new(capacity, 0.7).unwrap()), 1).unwrap())
    }),
];

fn samplers(c: &mut Criterion) {
    for capacity in capacities() {
        for (name, make) in KINDS {
            let (mut sampler, mut rng, mut drawn) = (make(capacity), Rng::seed_from_u64(1), Drawn::default());
            let mut end = capacity;
            if let Some(priorities) = sampler.priorities() {
                priorities.inserted(0..end);
                let magnitude = |_| rng.random::<f32>();
                let magnitudes: Vec<f32> = (0..capacity).map(magnitude).collect();
                priorities.update(0..end, &(0..end).collect::<Vec<_>>(), &magnitudes).unwrap();
            }
            let magnitudes: Vec<f32> = (0..BATCH).map(|_| rng.random()).collect();
            let mut group = c.benchmark_group(name);
            group.throughput(Throughput::Elements(BATCH as u64));
            group.bench_function(BenchmarkId::new("draw", capacity), |b| {
                b.iter(|| sampler.draw(&mut rng, end - capacity..end, BATCH, &mut drawn).unwrap());
            });
            if sampler.priorities().is_none() {
                continue;
            }
            group.bench_function(BenchmarkId::new("draw and update", capacity), |b| {
                b.iter(|| {
                    sampler.draw(&mut rng, end - capacity..end, BATCH, &mut drawn).unwrap();
                    let priorities = sampler.priorities().unwrap();
                    priorities.update(end - capacity..end, &drawn.rows, &magnitudes).unwrap()
                });
            });
            group.bench_function(BenchmarkId::new("insert", capacity), |b| {
                b.iter(|| {
                    sampler.priorities().unwrap().inserted(end..end + BATCH as u64);
                    end += BATCH as u64;
                });
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(std::time::Duration::from_secs(1)).warm_up_time(std::time::Duration::from_millis(300)).sample_size(20);
    targets = samplers
}
criterion_main!(benches);
