//! Probabilities, weights and sums after very many updates. Seeds are fixed, so a test passes for ever or fails for ever;
//! a correct sampler with a fresh seed would fail one time in a million.

use rand::{RngExt, SeedableRng};
use rl_replay::{
    Batch, Drawn, Dtype, Field, Priorities, Prioritized, Proportional, RankBased, Replay, Rng, Sampler,
    Schema, WeightNorm, importance_weights,
};

const SETTINGS: Prioritized = Prioritized { alpha: 0.6, epsilon: 0.01 };

/// The value that χ² of this many degrees of freedom exceeds with probability 1e-6 (Wilson and Hilferty 1931).
fn chi2_limit(degrees: f64) -> f64 {
    let (z, spread) = (4.753_424, 2.0 / (9.0 * degrees));
    degrees * (1.0 - spread + z * spread.sqrt()).powi(3)
}

fn schema() -> Schema {
    Schema::new(vec![Field::new("x", Dtype::U8, [])]).unwrap()
}

/// pᵢ / Σ p by the paper's equation 1, from the priorities themselves.
fn shares(priorities: &[f64]) -> Vec<f64> {
    let total: f64 = priorities.iter().sum();
    priorities.iter().map(|priority| priority / total).collect()
}

/// A buffer whose rows come and go while 10⁷ priorities change, some of them of rows that have gone, and beside it a list
/// of the same magnitudes. Then rows are drawn: each comes as often as the list says.
#[test]
fn draws_match_after_ten_million_updates() {
    const CAPACITY: usize = 2_000;
    const BATCH: usize = 250;
    let replay = Replay::builder(schema()).capacity(CAPACITY).prioritized(SETTINGS).build().unwrap();
    let (mut writer, mut reader, mut rng) = (replay.writer(), replay.sampler(), Rng::seed_from_u64(31));
    let priority = |magnitude: f32| (f64::from(magnitude) + SETTINGS.epsilon).powf(SETTINGS.alpha);
    // By key mod capacity.
    let (mut model, mut largest) = (vec![0.0; CAPACITY], 1f64);
    let (mut keys, mut magnitudes) = (vec![0; BATCH], vec![0f32; BATCH]);
    let mut stale = 0;
    for round in 0..10_000_000 / BATCH {
        let new = if round == 0 { CAPACITY } else { round % 3 };
        let before = replay.inserted();
        writer.push_rows(new, &[&vec![0; new]]).unwrap();
        (before..replay.inserted()).for_each(|key| model[key as usize % CAPACITY] = largest);
        let live = replay.live();
        keys.fill_with(|| rng.random_range(live.start.saturating_sub(20)..live.end));
        magnitudes.fill_with(|| 10f32.powf(rng.random_range(-1.0..1.0)));
        for (key, magnitude) in keys.iter().zip(&magnitudes).filter(|(key, _)| live.contains(key)) {
            model[*key as usize % CAPACITY] = priority(*magnitude);
            largest = largest.max(priority(*magnitude));
        }
        stale += reader.update_priorities(&keys, &magnitudes).unwrap().stale;
    }
    assert!(stale > 10_000 && replay.stale_priorities() == stale as u64);

    let expected = shares(&model);
    let (mut batch, mut drawn) = (Batch::new(replay.schema(), BATCH), Drawn::default());
    let mut counts = vec![0u64; CAPACITY];
    let batches = 8_000;
    for _ in 0..batches {
        reader.sample_into(&mut rng, BATCH, &mut batch.view_mut(), &mut drawn).unwrap();
        for (key, stated) in drawn.rows.iter().zip(&drawn.probabilities) {
            let slot = *key as usize % CAPACITY;
            counts[slot] += 1;
            assert!(
                (stated / expected[slot] - 1.0).abs() < 1e-11,
                "{stated} is stated for {}",
                expected[slot]
            );
        }
    }
    let draws = (batches * BATCH) as f64;
    let term = |(count, p): (&u64, &f64)| (*count as f64 - draws * p).powi(2) / (draws * p);
    let chi2: f64 = counts.iter().zip(&expected).map(term).sum();
    // Strata only lessen the variance of a count, so the limit of independent draws holds.
    assert!(chi2 < chi2_limit(CAPACITY as f64 - 1.0), "χ² = {chi2}");
    // Were the newest updates lost, it would show: the list before the last of them is far away.
    let uniform: f64 = counts.iter().map(|count| term((count, &(1.0 / CAPACITY as f64)))).sum();
    assert!(uniform > 100.0 * chi2_limit(CAPACITY as f64 - 1.0), "χ² = {uniform} against equal shares");
}

/// `wᵢ = (1/N · 1/P(i))^β / maxⱼ wⱼ` (§3.4 of the paper), worked out from the magnitudes and not from what the sampler says.
#[test]
fn weights_follow_the_papers_formula() {
    const ROWS: u64 = 777;
    let mut rng = Rng::seed_from_u64(32);
    let magnitudes: Vec<f32> = (0..ROWS).map(|_| 10f32.powf(rng.random_range(-3.0..3.0))).collect();
    let keys: Vec<u64> = (0..ROWS).collect();
    let proportional: Vec<f64> =
        magnitudes.iter().map(|m| (f64::from(*m) + SETTINGS.epsilon).powf(SETTINGS.alpha)).collect();
    let rank = |m: &f32| magnitudes.iter().filter(|other| *other >= m).count() as f64;
    let by_rank: Vec<f64> = magnitudes.iter().map(|m| (1.0 / rank(m)).powf(0.7)).collect();
    let samplers: [(Box<dyn Sampler>, Vec<f64>, bool); 2] = [
        (Box::new(Proportional::new(ROWS, SETTINGS).unwrap()), shares(&proportional), false),
        (Box::new(RankBased::new(ROWS, 0.7).unwrap()), shares(&by_rank), true),
    ];
    for (mut sampler, shares, knows_lowest) in samplers {
        sampler.priorities().unwrap().inserted(0..ROWS);
        sampler.priorities().unwrap().update(0..ROWS, &keys, &magnitudes).unwrap();
        let (mut drawn, mut weights) = (Drawn::default(), [0f32; 64]);
        for beta in [0.0, 0.4, 0.7, 1.0] {
            sampler.draw(&mut rng, 0..ROWS, weights.len(), &mut drawn).unwrap();
            let weight = |share: f64| (1.0 / ROWS as f64 * (1.0 / share)).powf(beta);
            let plain: Vec<f64> = drawn.rows.iter().map(|key| weight(shares[*key as usize])).collect();
            let of_batch = plain.iter().copied().fold(0.0, f64::max);
            let of_all = shares.iter().map(|share| weight(*share)).fold(0.0, f64::max);
            let of_all = if knows_lowest { of_all } else { of_batch };
            for (norm, largest) in [
                (WeightNorm::None, 1.0),
                (WeightNorm::BatchMax, of_batch),
                (WeightNorm::PopulationMax, of_all),
            ] {
                importance_weights(&drawn, beta, norm, &mut weights);
                for (weight, plain) in weights.iter().zip(&plain) {
                    let expected = plain / largest;
                    assert!((f64::from(*weight) / expected - 1.0).abs() < 1e-6, "{weight}, not {expected}");
                }
            }
        }
    }
}

/// How far the sum of all priorities, as draws see it, is from adding them up, relative to it, after so many updates over
/// eight orders of magnitude.
fn drift(updates: usize) -> f64 {
    const CAPACITY: u64 = 1 << 17;
    const BATCH: usize = 1_000;
    let mut sampler = Proportional::new(CAPACITY, Prioritized { alpha: 0.9, epsilon: 1e-6 }).unwrap();
    sampler.inserted(0..CAPACITY);
    let mut rng = Rng::seed_from_u64(33);
    let (mut keys, mut magnitudes) = (vec![0; BATCH], vec![0f32; BATCH]);
    for _ in 0..updates / BATCH {
        keys.fill_with(|| rng.random_range(0..CAPACITY));
        // Mostly small, sometimes huge: what a sum kept by differences would lose, it would have lost here.
        magnitudes.fill_with(|| rng.random::<f32>() * if rng.random_ratio(1, 100) { 1e6 } else { 1e-2 });
        sampler.update(0..CAPACITY, &keys, &magnitudes).unwrap();
    }
    // In the end all are small, so that what is left of the huge ones would show.
    let all: Vec<u64> = (0..CAPACITY).collect();
    magnitudes.resize(all.len(), 0.0);
    magnitudes.fill_with(|| rng.random::<f32>() * 1e-2);
    sampler.update(0..CAPACITY, &all, &magnitudes).unwrap();
    let exact = sum(&all.iter().map(|key| sampler.priority(*key)).collect::<Vec<_>>());
    let mut drawn = Drawn::default();
    sampler.draw(&mut rng, 0..CAPACITY, 100, &mut drawn).unwrap();
    let off = |(key, probability): (&u64, &f64)| (sampler.priority(*key) / probability / exact - 1.0).abs();
    drawn.rows.iter().zip(&drawn.probabilities).map(off).fold(0.0, f64::max)
}

/// With the rounding errors carried along (Kahan 1965).
fn sum(values: &[f64]) -> f64 {
    let (mut sum, mut lost) = (0.0, 0.0);
    for value in values {
        let value = value - lost;
        let next = sum + value;
        lost = (next - sum) - value;
        sum = next;
    }
    sum
}

#[test]
fn sums_do_not_drift_in_a_million_updates() {
    let drift = drift(1_000_000);
    assert!(drift < 1e-12, "{drift}");
}

#[test]
fn sums_do_not_drift_in_a_hundred_million_updates() {
    let drift = drift(100_000_000);
    println!("relative drift after 10⁸ updates: {drift:e}");
    assert!(drift < 1e-9, "{drift}");
}
