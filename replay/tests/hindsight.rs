//! Hindsight relabelling against the episodes that were stored, and the distributions of its strategies.

use proptest::prelude::*;
use rand::SeedableRng;
use rl_replay::{
    Batch, Drawn, Dtype, EpisodeWriter, Field, Goals, Hindsight, HindsightSpec, HindsightStrategy, Key,
    MemoryState, Prioritized, Replay, ReplayError, Rng, Schema,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use HindsightStrategy::{Episode, Final, Future};

fn step_schema() -> Schema {
    let f32s = |name: &str, shape: &[usize]| Field::new(name, Dtype::F32, shape);
    Schema::new(vec![
        f32s("obs", &[3]),
        Field::new("action", Dtype::I64, []),
        f32s("reward", &[]),
        f32s("discount", &[]),
        f32s("next_obs", &[3]),
        f32s("achieved_goal", &[2]),
        f32s("desired_goal", &[2]),
        f32s("next_achieved_goal", &[2]),
    ])
    .unwrap()
}

fn schema() -> Schema {
    EpisodeWriter::schema(&step_schema()).unwrap()
}

/// The goal that the row at `key` achieves. A goal tells its row.
fn achieved(key: u64) -> [f32; 2] {
    [key as f32, -1.0 - key as f32]
}

/// The bytes of the stored row at `key`, at `step` of an episode of `steps` steps.
fn row(key: u64, step: usize, steps: usize) -> Vec<Vec<u8>> {
    let f32s = |values: &[f32]| values.iter().flat_map(|x| x.to_ne_bytes()).collect::<Vec<u8>>();
    let x = key as f32;
    vec![
        f32s(&[x, 0.5, step as f32]),
        (key as i64).to_ne_bytes().to_vec(),
        f32s(&[-7.0]),
        f32s(&[0.75]),
        f32s(&[x + 1.0, 0.5, step as f32 + 1.0]),
        f32s(&[x - 0.5, 0.25]),
        f32s(&[1e6 + x, 2e6]),
        f32s(&achieved(key)),
        (step as i32).to_ne_bytes().to_vec(),
        ((steps - 1 - step) as i32).to_ne_bytes().to_vec(),
    ]
}

/// A buffer of episodes of these lengths, and of each row its step and its episode's steps.
fn filled(capacity: usize, prioritized: bool, lengths: &[usize]) -> (Replay, Vec<(usize, usize)>) {
    let builder = Replay::builder(schema()).capacity(capacity).reserve(16);
    let settings = Prioritized { alpha: 1.0, epsilon: 0.0 };
    let replay = if prioritized { builder.prioritized(settings) } else { builder }.build().unwrap();
    let mut writer = EpisodeWriter::new(&replay, 16.min(capacity)).unwrap();
    let mut rows = Vec::new();
    for &steps in lengths {
        for step in 0..steps {
            let cells = row(rows.len() as u64, step, steps);
            let cells: Vec<&[u8]> = cells[..8].iter().map(Vec::as_slice).collect();
            writer.push(&cells, step + 1 == steps).unwrap();
            rows.push((step, steps));
        }
    }
    (replay, rows)
}

/// A reward that tells its arguments.
fn reward(achieved: &[f32], desired: &[f32]) -> f32 {
    achieved[0] * 0.5 + desired[0] * 2.0 + desired[1]
}

fn terminated(achieved: &[f32], desired: &[f32]) -> bool {
    achieved == desired
}

fn cells(batch: &Batch, row: usize) -> Vec<Vec<u8>> {
    let fields = batch.schema().fields().iter().enumerate();
    fields
        .map(|(at, field)| batch.column(at)[row * field.row_bytes()..][..field.row_bytes()].to_vec())
        .collect()
}

/// The keys whose goals a row may get.
fn allowed(strategy: HindsightStrategy, key: Key, (step, steps): (usize, usize), oldest: Key) -> Vec<Key> {
    let first = key - step as u64;
    let end = first + steps as u64;
    match strategy {
        Future => (key..end).collect(),
        Final => vec![end - 1],
        Episode => (first.max(oldest)..end).collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn rows_are_relabelled_as_the_definition_says(
        capacity in 12usize..60,
        prioritized: bool,
        lengths in prop::collection::vec(1usize..=12, 1..20),
        strategy in prop_oneof![Just(Future), Just(Final), Just(Episode)],
        k in prop_oneof![Just(0.0), Just(4.0), Just(1e9), 0.0..10.0f64],
        ends: bool,
        counts in prop::collection::vec(0usize..40, 1..4),
        seed: u64,
    ) {
        let (replay, rows) = filled(capacity, prioritized, &lengths);
        let before = MemoryState::save(|v| replay.visit(v)).unwrap();
        let mut hindsight = Hindsight::new(HindsightSpec { strategy, k }, &schema(), reward).unwrap();
        if ends {
            hindsight = hindsight.terminated(0.5, terminated).unwrap();
        }
        let (mut reader, mut rng, mut drawn) = (replay.sampler(), Rng::seed_from_u64(seed), Drawn::default());
        for count in counts {
            let mut batch = Batch::new(&schema(), count);
            let relabelled =
                hindsight.sample_into(&mut reader, &mut rng, count, &mut batch.view_mut(), &mut drawn).unwrap();
            prop_assert_eq!(drawn.rows.len(), count);
            prop_assert_eq!(hindsight.sources().len(), count);
            prop_assert_eq!(hindsight.sources().iter().flatten().count(), relabelled);
            prop_assert!(k > 0.0 || relabelled == 0);
            prop_assert!(k < 1e9 || relabelled == count);
            for (place, (&key, source)) in drawn.rows.iter().zip(hindsight.sources()).enumerate() {
                let (step, steps) = rows[key as usize];
                let mut expected = row(key, step, steps);
                if let Some(source) = *source {
                    let oldest = replay.live().start;
                    prop_assert!(allowed(strategy, key, (step, steps), oldest).contains(&source));
                    let goal = achieved(source);
                    expected[6] = goal.iter().flat_map(|x| x.to_ne_bytes()).collect();
                    expected[2] = reward(&achieved(key), &goal).to_ne_bytes().to_vec();
                    if ends {
                        let discount = if key == source { 0.0f32 } else { 0.5 };
                        expected[3] = discount.to_ne_bytes().to_vec();
                    }
                }
                prop_assert_eq!(cells(&batch, place), expected);
            }
        }
        prop_assert_eq!(MemoryState::save(|v| replay.visit(v)).unwrap(), before, "the buffer is as it was");
    }
}

/// The value that χ² of this many degrees of freedom exceeds with probability 1e-6 (Wilson and Hilferty 1931).
fn chi2_limit(degrees: f64) -> f64 {
    let (z, spread) = (4.753_424, 2.0 / (9.0 * degrees));
    degrees * (1.0 - spread + z * spread.sqrt()).powi(3)
}

/// Seeds are fixed; a correct implementation with a fresh seed would fail each of the checks here one time in a million.
#[test]
fn strategies_choose_as_often_as_they_should() {
    for (strategy, k) in [(Future, 4.0), (Final, 1.0), (Episode, 4.0)] {
        // Capacity 60: the first episode is partly overwritten.
        let (replay, rows) = filled(60, false, &[16, 9, 1, 16, 5, 7, 2, 13]);
        let live = replay.live();
        assert_eq!(live, 9..69);
        let mut hindsight = Hindsight::new(HindsightSpec { strategy, k }, &schema(), reward).unwrap();
        let (mut reader, mut rng, mut drawn) = (replay.sampler(), Rng::seed_from_u64(41), Drawn::default());
        let mut batch = Batch::new(&schema(), 500);
        let mut counts = vec![[0u64; 69]; 69];
        let (mut relabelled, batches) = (0, 1_000);
        for _ in 0..batches {
            relabelled +=
                hindsight.sample_into(&mut reader, &mut rng, 500, &mut batch.view_mut(), &mut drawn).unwrap();
            for (key, source) in drawn.rows.iter().zip(hindsight.sources()) {
                if let Some(source) = source {
                    counts[*key as usize][*source as usize] += 1;
                }
            }
        }
        // How many are relabelled: k / (1 + k) of them.
        let (draws, p) = (500.0 * f64::from(batches), k / (1.0 + k));
        let error = (relabelled as f64 - draws * p) / (draws * p * (1.0 - p)).sqrt();
        assert!(error.abs() < 4.9, "{strategy:?}: {relabelled} of {draws} were relabelled");
        // Given the row, each allowed source equally often.
        let (mut chi2, mut degrees) = (0.0, 0.0);
        for key in live.clone() {
            let counts = &counts[key as usize];
            let of_row = allowed(strategy, key, rows[key as usize], live.start);
            let total: u64 = counts.iter().sum();
            let mean = total as f64 / of_row.len() as f64;
            assert_eq!(of_row.iter().map(|source| counts[*source as usize]).sum::<u64>(), total);
            assert!(mean > 100.0);
            chi2 += of_row.iter().map(|s| (counts[*s as usize] as f64 - mean).powi(2) / mean).sum::<f64>();
            degrees += of_row.len() as f64 - 1.0;
        }
        if strategy == Final {
            assert_eq!(degrees, 0.0);
        } else {
            assert!(chi2 < chi2_limit(degrees), "{strategy:?}: χ² = {chi2} of {degrees} degrees of freedom");
        }
    }
}

#[test]
fn prioritized_draws_stay_prioritized() {
    let (replay, _) = filled(60, true, &[16, 9, 1, 16, 5, 7, 2, 13]);
    let live = replay.live();
    let mut reader = replay.sampler();
    let keys: Vec<Key> = live.clone().collect();
    let magnitudes: Vec<f32> = keys.iter().map(|key| 1.0 + (key % 5) as f32).collect();
    assert_eq!(reader.update_priorities(&keys, &magnitudes).unwrap().applied, 60);
    let total: f32 = magnitudes.iter().sum();
    let mut hindsight = Hindsight::new(HindsightSpec::default(), &schema(), reward).unwrap();
    let (mut rng, mut drawn, mut batch) =
        (Rng::seed_from_u64(42), Drawn::default(), Batch::new(&schema(), 500));
    let mut counts = [0u64; 60];
    for _ in 0..400 {
        hindsight.sample_into(&mut reader, &mut rng, 500, &mut batch.view_mut(), &mut drawn).unwrap();
        for (key, probability) in drawn.rows.iter().zip(&drawn.probabilities) {
            let row = (key - live.start) as usize;
            counts[row] += 1;
            assert!((probability - f64::from(magnitudes[row] / total)).abs() < 1e-6);
        }
    }
    let expected = |row: usize| 200_000.0 * f64::from(magnitudes[row] / total);
    let chi2: f64 = (0..60).map(|row| (counts[row] as f64 - expected(row)).powi(2) / expected(row)).sum();
    assert!(chi2 < chi2_limit(59.0), "χ² = {chi2}");
}

#[test]
fn a_reward_for_a_whole_batch_is_the_same_and_called_once() {
    let (replay, _) = filled(60, false, &[16, 9, 13]);
    let names = Goals { reward: "reward".into(), ..Goals::default() };
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let of_batch = move |achieved: &[f32], desired: &[f32], rewards: &mut [f32]| {
        counted.fetch_add(1, Ordering::Relaxed);
        assert_eq!((achieved.len(), desired.len()), (2 * rewards.len(), 2 * rewards.len()));
        for (row, out) in rewards.iter_mut().enumerate() {
            *out = reward(&achieved[2 * row..][..2], &desired[2 * row..][..2]);
        }
    };
    let spec = HindsightSpec::default();
    let mut each = Hindsight::new(spec, &schema(), reward).unwrap();
    let mut batched = Hindsight::batched(spec, &schema(), &names, of_batch).unwrap();
    let mut drawn = Drawn::default();
    let [mut a, mut b] = [(); 2].map(|()| Batch::new(&schema(), 64));
    for seed in 0..5 {
        for (hindsight, batch) in [(&mut each, &mut a), (&mut batched, &mut b)] {
            let mut rng = Rng::seed_from_u64(seed);
            hindsight
                .sample_into(&mut replay.sampler(), &mut rng, 64, &mut batch.view_mut(), &mut drawn)
                .unwrap();
        }
        assert!((0..64).all(|row| cells(&a, row) == cells(&b, row)));
    }
    assert_eq!(calls.load(Ordering::Relaxed), 5);
}

#[test]
fn after_a_restore_the_draws_are_the_same() {
    let lengths = [16, 9, 1, 16, 5, 7, 2, 13];
    let (replay, _) = filled(60, true, &lengths);
    let (other, _) = filled(60, true, &lengths[3..]);
    let saved = MemoryState::save(|v| replay.visit(v)).unwrap();
    saved.load(|v| other.visit(v)).unwrap();
    let draw = |replay: &Replay| {
        let spec = HindsightSpec { strategy: Episode, k: 4.0 };
        let mut hindsight = Hindsight::new(spec, &schema(), reward).unwrap();
        let (mut rng, mut drawn) = (Rng::seed_from_u64(5), Drawn::default());
        let mut batch = Batch::new(&schema(), 200);
        hindsight
            .sample_into(&mut replay.sampler(), &mut rng, 200, &mut batch.view_mut(), &mut drawn)
            .unwrap();
        (drawn.rows, (0..200).map(|row| cells(&batch, row)).collect::<Vec<_>>())
    };
    assert_eq!(draw(&replay), draw(&other));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let spec = HindsightSpec::default();
    let text = |result: Result<Hindsight, ReplayError>| result.unwrap_err().to_string();
    for k in [-1.0, f64::NAN, f64::INFINITY] {
        let message = text(Hindsight::new(HindsightSpec { k, ..spec }, &schema(), reward));
        assert!(message.contains(&format!("k is {k}")), "{message}");
    }
    assert!(text(Hindsight::new(spec, &step_schema(), reward)).contains("no 'episode_step'"));
    let with = |change: &dyn Fn(&mut Vec<Field>)| {
        let mut fields = schema().fields().to_vec();
        change(&mut fields);
        Schema::new(fields).unwrap()
    };
    let new = |schema: &Schema| text(Hindsight::new(spec, schema, reward));
    assert!(new(&with(&|f| f[6].name = "goal".into())).contains("there is no 'desired_goal'"));
    assert!(new(&with(&|f| f[6].dtype = Dtype::F64)).contains("'desired_goal' is f64 [2] and not f32"));
    assert!(new(&with(&|f| f[2].shape = vec![2])).contains("'reward' is f32 [2] and not one f32"));
    assert!(new(&with(&|f| f[7].shape = vec![3])).contains("2 element(s) and 'next_achieved_goal' 3"));
    let named = Goals { desired: "goal".into(), ..Goals::default() };
    let renamed = with(&|f| f[6].name = "goal".into());
    assert!(Hindsight::batched(spec, &renamed, &named, |_, _, _| ()).is_ok());
    // A discount is needed only if it is to be computed.
    let no_discount = with(&|f| drop(f.remove(3)));
    let hindsight = Hindsight::new(spec, &no_discount, reward).unwrap();
    assert!(text(hindsight.terminated(0.9, terminated)).contains("no discount"));
    let hindsight = Hindsight::new(spec, &schema(), reward).unwrap();
    assert!(text(hindsight.terminated(1.5, terminated)).contains("gamma is 1.5"));

    let (replay, _) = filled(60, false, &[16, 9, 1]);
    let (mut reader, mut rng, mut drawn) = (replay.sampler(), Rng::seed_from_u64(5), Drawn::default());
    let mut batch = Batch::new(&schema(), 20);
    let mut message = |hindsight: &mut Hindsight, count| {
        let result = hindsight.sample_into(&mut reader, &mut rng, count, &mut batch.view_mut(), &mut drawn);
        result.unwrap_err().to_string()
    };
    let mut nan = Hindsight::new(spec, &schema(), |_, _| f32::NAN).unwrap();
    assert!(message(&mut nan, 20).contains("the reward function gave NaN for row"));
    let mut hindsight = Hindsight::new(spec, &schema(), reward).unwrap();
    assert!(message(&mut hindsight, 21).contains("21 rows do not fit"));
    let mut elsewhere = Hindsight::batched(spec, &renamed, &named, |_, _, _| ()).unwrap();
    assert!(message(&mut elsewhere, 20).contains("another schema"));

    // Rows that no episode writer wrote.
    let stray = Replay::builder(schema()).capacity(60).build().unwrap();
    for (step, steps) in [(3, 5), (3, 5), (0, 1)] {
        let cells = row(stray.inserted(), step, steps);
        stray.writer().push(&cells.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    }
    let spec = HindsightSpec { strategy: Episode, k: 4.0 };
    let mut hindsight = Hindsight::new(spec, &schema(), reward).unwrap();
    let error = hindsight
        .sample_into(&mut stray.sampler(), &mut rng, 20, &mut batch.view_mut(), &mut drawn)
        .unwrap_err();
    assert!(error.to_string().contains("should be of the same episode"), "{error}");
}
