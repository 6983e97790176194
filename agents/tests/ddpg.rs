//! DDPG: what its switches do, its bounds, its noise and its state.

use rand::{RngExt, SeedableRng};
use rl_agents::algo;
use rl_learn::{
    ActionSpace, Agent, Device, Dtype, Kind, MemoryState, MiniBatch, Mode, Piece, Rng, Spaces, Tensor,
};
use serde_json::json;

const ROWS: i64 = 32;
const LOW: [f32; 2] = [-1.0, 0.0];
const HIGH: [f32; 2] = [3.0, 0.5];

fn agent(config: serde_json::Value, seed: u64) -> Box<dyn Agent> {
    let spaces = Spaces {
        obs_dtype: Dtype::F32,
        obs_shape: vec![3],
        action: ActionSpace::Continuous { low: LOW.to_vec(), high: HIGH.to_vec() },
    };
    let ddpg = algo("ddpg").unwrap();
    let mut full = ddpg.defaults();
    full["hidden"] = json!([16, 8]);
    for (key, value) in config.as_object().unwrap() {
        full[key] = value.clone();
    }
    ddpg.build(full, &spaces, Rng::seed_from_u64(seed), Device::Cpu).unwrap()
}

fn state(agent: &mut dyn Agent) -> MemoryState {
    MemoryState::save(|v| agent.visit(v)).unwrap()
}

fn uniform(rng: &mut Rng, shape: &[i64], low: f32, high: f32) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(low..high)).collect();
    Tensor::from_slice(&values).reshape(shape)
}

fn batch(seed: u64) -> MiniBatch {
    let mut rng = Rng::seed_from_u64(seed);
    let columns = vec![
        ("obs".to_string(), uniform(&mut rng, &[ROWS, 3], -5.0, 9.0)),
        ("action".to_string(), uniform(&mut rng, &[ROWS, 2], 0.0, 0.5)),
        ("reward".to_string(), uniform(&mut rng, &[ROWS], -1.0, 1.0)),
        ("discount".to_string(), Tensor::full([ROWS], 0.9, (Kind::Float, Device::Cpu))),
        ("next_obs".to_string(), uniform(&mut rng, &[ROWS, 3], -5.0, 9.0)),
    ];
    MiniBatch::new(columns, Tensor::ones([ROWS], (Kind::Float, Device::Cpu)))
}

#[test]
fn batch_normalization_stands_where_the_paper_has_it_and_learns_statistics() {
    let mut plain = agent(json!({}), 1);
    assert!(state(&mut *plain).pieces().all(|(path, _)| !path.contains("running")));

    let mut agent = agent(json!({ "batch_norm": true }), 1);
    let before = state(&mut *agent);
    let of = |net: &str| -> Vec<String> {
        let prefix = format!("{net}.");
        before
            .pieces()
            .filter_map(|(path, _)| {
                path.strip_prefix(&prefix)?.strip_suffix(".running_mean").map(String::from)
            })
            .collect()
    };
    assert_eq!(of("actor"), ["input_norm", "norms.0", "norms.1"]);
    assert_eq!(of("critic"), ["first_norm", "input_norm"], "none at or behind the action");

    // Acting is evaluation, also for one observation: no statistic moves.
    let one = uniform(&mut Rng::seed_from_u64(1), &[1, 3], -5.0, 9.0);
    for mode in [Mode::Greedy, Mode::Explore { env_steps: 0 }] {
        let _ = agent.act(&one, mode).unwrap();
    }
    let changed = state(&mut *agent).differences(&before);
    assert_eq!(changed, ["rng"], "only the noise's generator moved");

    agent.learn(&batch(1)).unwrap();
    let after = state(&mut *agent);
    let changed = after.differences(&before);
    for net in ["actor", "critic"] {
        for norm in of(net) {
            for statistic in ["running_mean", "running_var", "num_batches_tracked"] {
                let path = format!("{net}.{norm}.{statistic}");
                assert!(changed.contains(&path), "{path} did not move");
                assert!(changed.contains(&format!("target_{path}")), "the target does not follow {path}");
            }
        }
    }

    // It changes what is computed: without it the same seed gives other actions for shifted observations.
    let far = one * 100.0;
    let mut normalized = agent;
    for seed in 2..50 {
        normalized.learn(&batch(seed)).unwrap();
        plain.learn(&batch(seed)).unwrap();
    }
    let actions =
        |agent: &mut dyn Agent| Vec::<f32>::try_from(agent.act(&far, Mode::Greedy).unwrap().reshape([-1]));
    assert_ne!(actions(&mut *normalized).unwrap(), actions(&mut *plain).unwrap());
}

#[test]
fn actions_keep_to_asymmetric_bounds_and_reach_into_all_of_them() {
    let mut agent = agent(json!({ "noise": { "kind": "gaussian", "sigma": 2.0 } }), 3);
    let obs = uniform(&mut Rng::seed_from_u64(3), &[500, 3], -1.0, 1.0);
    for mode in [Mode::Random, Mode::Explore { env_steps: 0 }] {
        let actions = agent.act(&obs, mode).unwrap();
        assert_eq!((actions.size(), actions.kind()), (vec![500, 2], Kind::Float));
        for (dimension, (low, high)) in LOW.into_iter().zip(HIGH).enumerate() {
            let column = Vec::<f32>::try_from(actions.select(1, dimension as i64)).unwrap();
            assert!(column.iter().all(|a| (low..=high).contains(a)), "{mode:?}");
            let width = high - low;
            assert!(
                column.iter().any(|a| *a < low + 0.05 * width)
                    && column.iter().any(|a| *a > high - 0.05 * width)
            );
        }
    }
    // A new actor's output is near 0 (±3·10⁻³ in its last layer), which is the middle of the range.
    let greedy = Vec::<f32>::try_from(agent.act(&obs, Mode::Greedy).unwrap().reshape([-1])).unwrap();
    for pair in greedy.chunks(2) {
        assert!((pair[0] - 1.0).abs() < 0.1 && (pair[1] - 0.25).abs() < 0.02, "{pair:?}");
    }
}

#[test]
fn ornstein_uhlenbeck_noise_starts_anew_with_the_episode_and_is_part_of_the_state() {
    let ou = json!({ "noise": { "kind": "ornstein-uhlenbeck", "sigma": 0.05, "theta": 0.0 } });
    let mut agent = agent(ou, 4);
    let obs = uniform(&mut Rng::seed_from_u64(4), &[2, 3], -1.0, 1.0);
    let explore = Mode::Explore { env_steps: 0 };
    (0..20).for_each(|_| drop(agent.act(&obs, explore).unwrap()));
    let walked = state(&mut *agent);
    agent.begin_episode(1);
    assert_eq!(state(&mut *agent).differences(&walked), ["noise"]);
    walked.load(|v| agent.visit(v)).unwrap();
    assert!(state(&mut *agent).differences(&walked).is_empty());
}

#[test]
fn a_saved_agent_goes_on_as_if_it_had_not_been() {
    let mut whole = agent(json!({ "batch_norm": true }), 5);
    (0..3).for_each(|seed| drop(whole.learn(&batch(seed)).unwrap()));
    let saved = state(&mut *whole);
    let mut resumed = agent(json!({ "batch_norm": true }), 6);
    saved.load(|v| resumed.visit(v)).unwrap();
    for seed in 3..6 {
        whole.learn(&batch(seed)).unwrap();
        resumed.learn(&batch(seed)).unwrap();
    }
    assert!(state(&mut *whole).differences(&state(&mut *resumed)).is_empty());
}

/// A bandit with reward −(a − 2)² for the first action. The actor first runs into its bound (a new critic only knows that larger is
/// better) and comes back to the best action as the critic learns the curve.
#[test]
fn it_climbs_to_the_best_action_of_a_bandit() {
    for batch_norm in [false, true] {
        let mut agent = agent(
            json!({ "hidden": [64, 64], "batch_norm": batch_norm, "actor_learning_rate": 5e-4, "critic_learning_rate": 5e-3 }),
            7,
        );
        let mut rng = Rng::seed_from_u64(7);
        for _ in 0..2_500 {
            let obs = uniform(&mut rng, &[ROWS, 3], -1.0, 1.0);
            let action = Tensor::cat(
                &[
                    uniform(&mut rng, &[ROWS, 1], LOW[0], HIGH[0]),
                    uniform(&mut rng, &[ROWS, 1], LOW[1], HIGH[1]),
                ],
                1,
            );
            let reward = -(action.select(1, 0) - 2.0).square();
            let columns = vec![
                ("obs".to_string(), obs.copy()),
                ("action".to_string(), action),
                ("reward".to_string(), reward),
                ("discount".to_string(), Tensor::zeros([ROWS], (Kind::Float, Device::Cpu))),
                ("next_obs".to_string(), obs),
            ];
            agent.learn(&MiniBatch::new(columns, Tensor::ones([ROWS], (Kind::Float, Device::Cpu)))).unwrap();
        }
        let obs = uniform(&mut rng, &[64, 3], -1.0, 1.0);
        let mean = agent.act(&obs, Mode::Greedy).unwrap().select(1, 0).mean(Kind::Float).double_value(&[]);
        assert!((mean - 2.0).abs() < 0.3, "batch_norm {batch_norm}: mean action {mean}, best is 2");
    }
}

/// Bootstrapping through running statistics would compare the critic with another function than the one being trained.
#[test]
fn an_update_normalizes_with_its_batch_and_not_with_running_statistics() {
    let mut agent = agent(json!({ "batch_norm": true }), 8);
    let plain = state(&mut *agent);
    let mut moved = plain.clone();
    let paths: Vec<String> = plain.pieces().map(|(path, _)| path.to_string()).collect();
    for path in paths.iter().filter(|path| path.ends_with("running_mean")) {
        let Some(Piece::Array { bytes, .. }) = moved.get_mut(path) else { panic!("{path}") };
        bytes.as_chunks_mut::<4>().0.fill(3f32.to_ne_bytes());
    }
    let td_error = |agent: &mut dyn Agent, from: &MemoryState| -> Vec<f32> {
        from.load(|v| agent.visit(v)).unwrap();
        Vec::try_from(agent.learn(&batch(8)).unwrap().td_error).unwrap()
    };
    assert_eq!(td_error(&mut *agent, &plain), td_error(&mut *agent, &moved));
}
