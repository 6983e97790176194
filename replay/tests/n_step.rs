//! n-step rows against direct evaluation over whole episodes.

use proptest::prelude::*;
use rand::SeedableRng;
use rl_replay::{
    Batch, Drawn, Dtype, MemoryState, NStep, Piece, Replay, ReplayError, Rng, Sampler, Schema, Step, Writer,
};
use std::ops::Range;

fn schema() -> Schema {
    Schema::transition((Dtype::F32, &[2]), (Dtype::I64, &[])).unwrap()
}

/// Draws every row once, in order.
struct InOrder;

impl Sampler for InOrder {
    fn draw(
        &mut self,
        _: &mut Rng,
        live: Range<u64>,
        count: usize,
        drawn: &mut Drawn,
    ) -> Result<(), rl_replay::SampleError> {
        drawn.rows = live.take(count).collect();
        drawn.probabilities = vec![1.0; count];
        Ok(())
    }

    fn priorities(&mut self) -> Option<&mut dyn rl_minibatch::Priorities> {
        None
    }

    fn visit(
        &mut self,
        _: Range<u64>,
        _: &mut dyn rl_replay::StateVisitor,
    ) -> Result<(), rl_replay::StateError> {
        Ok(())
    }
}

fn buffer() -> Replay {
    Replay::builder(schema()).capacity(10_000).sampler(Box::new(InOrder)).build().unwrap()
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Row {
    obs: [f32; 2],
    action: i64,
    reward: f32,
    discount: f32,
    next_obs: [f32; 2],
}

fn rows(replay: &Replay) -> Vec<Row> {
    let count = replay.len();
    if count == 0 {
        return Vec::new();
    }
    let mut batch = Batch::new(&schema(), count);
    let mut rng = Rng::seed_from_u64(0);
    replay.sampler().sample_into(&mut rng, count, &mut batch.view_mut(), &mut Drawn::default()).unwrap();
    let pair = |name: &str, row: usize| {
        let column = batch.typed::<f32>(name).unwrap();
        [column[2 * row], column[2 * row + 1]]
    };
    let one = |name: &str, row: usize| batch.typed::<f32>(name).unwrap()[row];
    (0..count)
        .map(|row| Row {
            obs: pair("obs", row),
            action: batch.typed::<i64>("action").unwrap()[row],
            reward: one("reward", row),
            discount: one("discount", row),
            next_obs: pair("next_obs", row),
        })
        .collect()
}

/// How a step leaves its episode.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    GoesOn,
    Terminated,
    Truncated,
    Both,
}

/// An observation that says where it is from: the episode, and the step in it.
fn obs(episode: usize, t: usize) -> [f32; 2] {
    [episode as f32, t as f32]
}

fn push(n_step: &mut NStep, writer: &mut Writer, episode: usize, t: usize, reward: f32, end: End) -> usize {
    let (obs, next_obs) = (obs(episode, t), obs(episode, t + 1));
    let step = Step {
        obs: bytemuck::cast_slice(&obs),
        action: &(t as i64).to_ne_bytes(),
        reward,
        next_obs: bytemuck::cast_slice(&next_obs),
        terminated: matches!(end, End::Terminated | End::Both),
        truncated: matches!(end, End::Truncated | End::Both),
    };
    n_step.push(step, writer).unwrap()
}

/// The definition, evaluated for each step of each finished episode, and for each step of an unfinished one that has n
/// successors.
fn direct(episodes: &[(Vec<f32>, End)], n: usize, gamma: f64) -> Vec<Row> {
    let mut rows = Vec::new();
    for (episode, (rewards, end)) in episodes.iter().enumerate() {
        for t in 0..rewards.len() {
            let k = n.min(rewards.len() - t);
            if *end == End::GoesOn && k < n {
                continue;
            }
            let mut reward = 0.0;
            for i in 0..k {
                reward += gamma.powi(i as i32) * f64::from(rewards[t + i]);
            }
            let terminated = t + k == rewards.len() && matches!(end, End::Terminated | End::Both);
            rows.push(Row {
                obs: obs(episode, t),
                action: t as i64,
                reward: reward as f32,
                discount: if terminated { 0.0 } else { gamma.powi(k as i32) as f32 },
                next_obs: obs(episode, t + k),
            });
        }
    }
    rows
}

fn episodes() -> impl Strategy<Value = Vec<(Vec<f32>, End)>> {
    let end = prop_oneof![Just(End::Terminated), Just(End::Truncated), Just(End::Both)];
    let episode = (prop::collection::vec(-5.0f32..5.0, 1..15), end);
    let unfinished = prop::collection::vec(-5.0f32..5.0, 0..15);
    (prop::collection::vec(episode, 0..6), unfinished).prop_map(|(mut episodes, rewards)| {
        episodes.push((rewards, End::GoesOn));
        episodes
    })
}

proptest! {
    #[test]
    fn rows_are_what_the_definition_says(
        episodes in episodes(),
        n in 1usize..8,
        gamma in prop_oneof![Just(0.0), Just(1.0), Just(0.99), 0.0..1.0f64],
        restart_at in 0usize..60,
    ) {
        let replay = buffer();
        let mut writer = replay.writer();
        let mut n_step = NStep::new(n, gamma, &schema()).unwrap();
        let (mut emitted, mut steps) = (0, 0);
        for (episode, (rewards, end)) in episodes.iter().enumerate() {
            for (t, reward) in rewards.iter().enumerate() {
                let end = if t + 1 == rewards.len() { *end } else { End::GoesOn };
                emitted += push(&mut n_step, &mut writer, episode, t, *reward, end);
                prop_assert!(n_step.open_steps() < n);
                if steps == restart_at {
                    let saved = MemoryState::save(|v| n_step.visit(v)).unwrap();
                    n_step = NStep::new(n, gamma, &schema()).unwrap();
                    saved.load(|v| n_step.visit(v)).unwrap();
                }
                steps += 1;
            }
        }
        let (found, expected) = (rows(&replay), direct(&episodes, n, gamma));
        prop_assert_eq!(found.len(), emitted);
        prop_assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            prop_assert!((found.reward - expected.reward).abs() <= 1e-5, "{:?} {:?}", found, expected);
            prop_assert!((found.discount - expected.discount).abs() <= 1e-6, "{:?} {:?}", found, expected);
            prop_assert_eq!(Row { reward: 0.0, discount: 0.0, ..*found }, Row { reward: 0.0, discount: 0.0, ..*expected });
        }
    }
}

#[test]
fn a_truncated_tail_by_hand() {
    let replay = buffer();
    let mut n_step = NStep::new(3, 0.5, &schema()).unwrap();
    let mut writer = replay.writer();
    for (t, end) in [End::GoesOn, End::GoesOn, End::GoesOn, End::Truncated].into_iter().enumerate() {
        push(&mut n_step, &mut writer, 0, t, 1.0 + t as f32, end);
    }
    let summary: Vec<_> =
        rows(&replay).iter().map(|r| (r.obs[1], r.reward, r.discount, r.next_obs[1])).collect();
    let expected = [
        (0.0, 1.0 + 0.5 * 2.0 + 0.25 * 3.0, 0.125, 3.0),
        (1.0, 2.0 + 0.5 * 3.0 + 0.25 * 4.0, 0.125, 4.0),
        (2.0, 3.0 + 0.5 * 4.0, 0.25, 4.0),
        (3.0, 4.0, 0.5, 4.0),
    ];
    assert_eq!(summary, expected);
}

#[test]
fn what_is_refused_changes_neither_the_buffer_nor_the_open_steps() {
    let replay = buffer();
    let mut writer = replay.writer();
    let mut n_step = NStep::new(2, 1.0, &schema()).unwrap();
    push(&mut n_step, &mut writer, 0, 0, f32::MAX, End::GoesOn);
    let obs = [0u8; 8];
    let good =
        Step { obs: &obs, action: &obs, reward: 1.0, next_obs: &obs, terminated: true, truncated: false };
    let nan = [f32::NAN.to_ne_bytes(), [0; 4]].concat();
    let before = MemoryState::save(|v| n_step.visit(v)).unwrap();
    for (bad, part) in [
        (Step { reward: f32::NAN, ..good }, "'reward'"),
        (Step { reward: f32::MAX, ..good }, "'reward'"), // the sum is beyond f32
        (Step { obs: &nan, ..good }, "'obs'"),
        (Step { next_obs: &nan, ..good }, "'next_obs'"),
        (Step { action: &obs[..4], ..good }, "'action'"),
        (Step { next_obs: &obs[..4], ..good }, "'next_obs'"),
    ] {
        let message = n_step.push(bad, &mut writer).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
        assert_eq!(MemoryState::save(|v| n_step.visit(v)).unwrap(), before);
        assert!(replay.is_empty());
    }
    let other = Schema::transition((Dtype::F32, &[2]), (Dtype::U8, &[8])).unwrap();
    let elsewhere = Replay::builder(other).capacity(5).build().unwrap();
    let error = n_step.push(good, &mut elsewhere.writer()).unwrap_err();
    assert!(matches!(error, ReplayError::NotTransition { .. }), "{error}");
    assert_eq!(n_step.push(good, &mut writer).unwrap(), 2);
}

#[test]
fn settings_and_states_that_make_no_sense() {
    let message = |n, gamma, schema: &Schema| NStep::new(n, gamma, schema).unwrap_err().to_string();
    assert!(message(0, 0.9, &schema()).contains("n_step is 0"));
    assert!(message(1, 1.1, &schema()).contains("gamma is 1.1"));
    assert!(message(1, f64::NAN, &schema()).contains("gamma is NaN"));
    let fields = schema().fields().to_vec();
    assert!(message(1, 0.9, &Schema::new(fields[..4].to_vec()).unwrap()).contains("Schema::transition"));
    let mut wide = fields.clone();
    wide[2].shape = vec![2];
    assert!(message(1, 0.9, &Schema::new(wide).unwrap()).contains("'reward' is f32 [2]"));

    let mut n_step = NStep::new(3, 0.9, &schema()).unwrap();
    let mut saved = MemoryState::save(|v| n_step.visit(v)).unwrap();
    assert!(saved.load(|v| NStep::new(4, 0.9, &schema()).unwrap().visit(v)).is_err(), "n differs");
    let Some(Piece::Array { bytes, .. }) = saved.get_mut("open") else { panic!() };
    bytes[0] = 3;
    assert!(saved.load(|v| n_step.visit(v)).unwrap_err().to_string().contains("3 open steps"));
    assert_eq!(n_step.open_steps(), 0);
}

#[test]
fn clearing_forgets_the_open_steps() {
    let replay = buffer();
    let mut writer = replay.writer();
    let mut n_step = NStep::new(3, 0.9, &schema()).unwrap();
    push(&mut n_step, &mut writer, 0, 0, 1.0, End::GoesOn);
    n_step.clear();
    push(&mut n_step, &mut writer, 1, 0, 5.0, End::Terminated);
    assert_eq!(rows(&replay).iter().map(|row| row.obs).collect::<Vec<_>>(), [obs(1, 0)]);
}
