//! Drawn frequencies against stated probabilities. Seeds are fixed, so a test passes for ever or fails for ever; the
//! thresholds are such that a correct sampler with a fresh seed would fail one time in a million.

use rand::{RngExt, SeedableRng};
use rl_replay::{
    Batch, Drawn, Dtype, Field, Priorities, Prioritized, Proportional, Replay, Rng, Sampler, Schema,
    WeightNorm, importance_weights,
};

/// The value that χ² of this many degrees of freedom exceeds with probability 1e-6 (Wilson and Hilferty 1931).
fn chi2_limit(degrees: f64) -> f64 {
    let (z, spread) = (4.753_424, 2.0 / (9.0 * degrees));
    degrees * (1.0 - spread + z * spread.sqrt()).powi(3)
}

fn chi2(counts: &[u64], probabilities: &[f64]) -> f64 {
    let draws = counts.iter().sum::<u64>() as f64;
    let term = |(count, p): (&u64, &f64)| (*count as f64 - draws * p).powi(2) / (draws * p);
    counts.iter().zip(probabilities).filter(|(_, p)| **p > 0.0).map(term).sum()
}

const CAPACITY: u64 = 300;
const LIVE: std::ops::Range<u64> = 1_000..1_000 + CAPACITY;
const SETTINGS: Prioritized = Prioritized { alpha: 0.7, epsilon: 0.01 };

/// Rows whose magnitudes span four orders, after `updates` others; with the probabilities that they should have.
fn after_updates(updates: usize, rng: &mut Rng) -> (Proportional, Vec<f64>) {
    let mut sampler = Proportional::new(CAPACITY, SETTINGS).unwrap();
    sampler.inserted(0..LIVE.end);
    for _ in 0..updates / 100 {
        let keys: Vec<u64> = (0..100).map(|_| rng.random_range(LIVE)).collect();
        let magnitudes: Vec<f32> = keys.iter().map(|_| rng.random::<f32>() * 1e4).collect();
        sampler.update(LIVE, &keys, &magnitudes).unwrap();
    }
    let keys: Vec<u64> = LIVE.collect();
    let magnitudes: Vec<f32> = keys.iter().map(|_| 10f32.powf(rng.random_range(-2.0..2.0))).collect();
    sampler.update(LIVE, &keys, &magnitudes).unwrap();
    let priorities: Vec<f64> =
        magnitudes.iter().map(|m| (f64::from(*m) + SETTINGS.epsilon).powf(SETTINGS.alpha)).collect();
    let total: f64 = priorities.iter().sum();
    (sampler, priorities.iter().map(|p| p / total).collect())
}

fn count(
    sampler: &mut Proportional,
    batches: usize,
    batch: usize,
    rng: &mut Rng,
    expected: &[f64],
) -> Vec<u64> {
    let mut counts = vec![0u64; CAPACITY as usize];
    let mut drawn = Drawn::default();
    for _ in 0..batches {
        sampler.draw(rng, LIVE, batch, &mut drawn).unwrap();
        for (key, probability) in drawn.rows.iter().zip(&drawn.probabilities) {
            let row = (key - LIVE.start) as usize;
            counts[row] += 1;
            assert!(
                (probability / expected[row] - 1.0).abs() < 1e-12,
                "the stated probability is the true one"
            );
        }
    }
    counts
}

#[test]
fn independent_draws_come_as_often_as_their_priorities_say() {
    for updates in [0, 300_000] {
        let mut rng = Rng::seed_from_u64(21);
        let (sampler, expected) = after_updates(updates, &mut rng);
        let counts = count(&mut sampler.independent(), 4_000, 100, &mut rng, &expected);
        let chi2 = chi2(&counts, &expected);
        assert!(chi2 < chi2_limit(CAPACITY as f64 - 1.0), "χ² = {chi2} after {updates} updates");
    }
}

#[test]
fn stratified_draws_come_as_often_too_and_more_evenly() {
    for updates in [0, 300_000] {
        let mut rng = Rng::seed_from_u64(22);
        let (mut sampler, expected) = after_updates(updates, &mut rng);
        let (batches, batch) = (4_000, 100);
        let counts = count(&mut sampler, batches, batch, &mut rng, &expected);
        // Each row's count has the mean of an independent draw and at most its variance, so the same limit holds.
        let chi2 = chi2(&counts, &expected);
        assert!(chi2 < chi2_limit(CAPACITY as f64 - 1.0), "χ² = {chi2} after {updates} updates");
        assert!(chi2 < 0.9 * CAPACITY as f64, "no more even than independent draws: χ² = {chi2}");
        // And draw i comes from the i-th part of the mass.
        let mut drawn = Drawn::default();
        sampler.draw(&mut rng, LIVE, batch, &mut drawn).unwrap();
        let by_leaf =
            |leaf: u64| (LIVE.start..LIVE.end).find(|key| key % CAPACITY == leaf).unwrap() - LIVE.start;
        let mut ends = vec![0.0];
        for leaf in 0..CAPACITY {
            ends.push(ends.last().unwrap() + expected[by_leaf(leaf) as usize]);
        }
        for (i, key) in drawn.rows.iter().enumerate() {
            let leaf = (key % CAPACITY) as usize;
            let (low, high) = (i as f64 / batch as f64, (i + 1) as f64 / batch as f64);
            assert!(ends[leaf] < high + 1e-9 && ends[leaf + 1] > low - 1e-9, "draw {i} left its stratum");
        }
    }
}

#[test]
fn a_buffer_draws_uniformly_over_its_live_rows() {
    let schema = Schema::new(vec![Field::new("x", Dtype::U8, [])]).unwrap();
    let replay = Replay::builder(schema.clone()).capacity(100).uniform().build().unwrap();
    replay.writer().push_rows(250, &[&[0; 250]]).unwrap();
    let mut rng = Rng::seed_from_u64(23);
    let (mut batch, mut drawn, mut counts) = (Batch::new(&schema, 50), Drawn::default(), vec![0u64; 100]);
    for _ in 0..4_000 {
        replay.sampler().sample_into(&mut rng, 50, &mut batch.view_mut(), &mut drawn).unwrap();
        drawn.rows.iter().for_each(|key| counts[(key - 150) as usize] += 1);
    }
    let chi2 = chi2(&counts, &[0.01; 100]);
    assert!(chi2 < chi2_limit(99.0), "χ² = {chi2}");
}

/// What importance weights are for: with β = 1 the weighted mean over prioritized draws is the plain mean.
#[test]
fn weights_undo_the_priorities() {
    let mut rng = Rng::seed_from_u64(24);
    let (sampler, expected) = after_updates(0, &mut rng);
    let mut sampler = sampler.independent();
    let value = |key: u64| (key - LIVE.start) as f64;
    let (mut drawn, mut weights) = (Drawn::default(), vec![0f32; 100]);
    let (mut sum, batches) = (0.0, 10_000);
    for _ in 0..batches {
        sampler.draw(&mut rng, LIVE, 100, &mut drawn).unwrap();
        importance_weights(&drawn, 1.0, WeightNorm::None, &mut weights);
        sum += drawn.rows.iter().zip(&weights).map(|(key, w)| value(*key) * f64::from(*w)).sum::<f64>();
    }
    let draws = (100 * batches) as f64;
    let rows = CAPACITY as f64;
    let mean = (rows - 1.0) / 2.0;
    let second: f64 =
        LIVE.zip(&expected).map(|(key, p)| p * (value(key) / (rows * p)).powi(2)).sum::<f64>() - mean * mean;
    let error = (sum / draws - mean).abs() / (second / draws).sqrt();
    assert!(error < 4.9, "{error} standard errors away"); // two-sided, one in a million
}
