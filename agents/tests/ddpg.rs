//! DDPG: what its switches do, its bounds, its noise and its state.

use rand::{RngExt, SeedableRng};
use rl_agents::algo;
use rl_learn::{
    ActionSpace, Agent, Device, Dtype, Kind, MemoryState, MiniBatch, Mode, Piece, Rng, Spaces, Tensor,
    clip_norm, gradients,
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

/// Weights and biases of a network's layers, in their order.
fn layers(state: &MemoryState, net: &str) -> Vec<Tensor> {
    let names = match net.ends_with("actor") {
        true => ["layers.0", "layers.1", "layers.2"],
        false => ["first", "rest.layers.0", "rest.layers.1"],
    };
    let of = |path: String| match state.get(&path) {
        Some(Piece::Array { bytes, shape, .. }) => {
            let shape: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
            Tensor::from_data_size(bytes, &shape, Kind::Float).set_requires_grad(true)
        }
        other => panic!("{path}: {other:?}"),
    };
    names.iter().flat_map(|n| [of(format!("{net}.{n}.weight")), of(format!("{net}.{n}.bias"))]).collect()
}

fn mu(p: &[Tensor], obs: &Tensor) -> Tensor {
    let first = obs.linear(&p[0], Some(&p[1])).relu();
    first.linear(&p[2], Some(&p[3])).relu().linear(&p[4], Some(&p[5])).tanh()
}

fn q(p: &[Tensor], obs: &Tensor, action: &Tensor) -> Tensor {
    let first = obs.linear(&p[0], Some(&p[1])).relu();
    let second = Tensor::cat(&[&first, action], 1).linear(&p[2], Some(&p[3])).relu();
    second.linear(&p[4], Some(&p[5])).squeeze_dim(1)
}

fn close(what: &str, found: &Tensor, expected: &Tensor) {
    let off = (found - expected).abs().max().double_value(&[]);
    // Parameters are below 1; errors are of sums of a dozen larger terms.
    let most = if what == "|δ|" { 1e-5 } else { 1e-6 };
    assert!(off < most, "{what}: off by {off:e}");
}

/// Two updates beside the equations in plain operators (Lillicrap et al. 2015, algorithm 1), with weights, a bound on each gradient, and rates
/// that differ from network to network and from one update to the next.
#[test]
fn updates_follow_the_equations() {
    let rates = |update: i32| (0.5 - 0.25 * f64::from(update), 2.0 - f64::from(update));
    let (tau, bound) = (0.25, 0.005);
    let linear = |start: f64, end: f64| json!({ "kind": "linear", "start": start, "end": end, "steps": 1 });
    let config = json!({
        "actor_optimizer": { "kind": "sgd" }, "critic_optimizer": { "kind": "sgd" }, "tau": tau, "max_grad_norm": bound,
        "actor_learning_rate": linear(0.5, 0.25), "critic_learning_rate": linear(2.0, 1.0), "loss": "mse",
    });
    let mut agent = agent(config, 9);
    let mut start = state(&mut *agent);
    let paths: Vec<String> = start.pieces().map(|(path, _)| path.to_string()).collect();
    // All networks with outputs that matter, and targets other than what they follow.
    for path in paths.iter().filter(|path| path.ends_with("weight") || path.ends_with("bias")) {
        let Some(Piece::Array { bytes, .. }) = start.get_mut(path) else { panic!("{path}") };
        let factor = if path.starts_with("target_") { -1.5 } else { 1.2 };
        let last = path.contains("layers.2.") || path.contains("rest.layers.1.");
        for chunk in bytes.as_chunks_mut::<4>().0 {
            let value = f32::from_ne_bytes(*chunk) * if last { 60.0 * factor } else { factor };
            *chunk = value.to_ne_bytes();
        }
    }
    start.load(|v| agent.visit(v)).unwrap();
    for update in 0..2 {
        let before = state(&mut *agent);
        let rows = batch(update as u64);
        let weight = Tensor::from_slice(&(0..ROWS).map(|i| 1.0 / (1.0 + i as f32)).collect::<Vec<_>>());
        let discount: Vec<f32> = (0..ROWS).map(|i| [0.0, 0.9, 0.81][i as usize % 3]).collect();
        let names = ["obs", "action", "reward", "next_obs"];
        let mut columns: Vec<(String, Tensor)> =
            names.iter().map(|name| (name.to_string(), rows[name].shallow_clone())).collect();
        columns.push(("discount".to_string(), Tensor::from_slice(&discount)));
        let rows = MiniBatch::new(columns, weight.shallow_clone());
        let found = agent.learn(&rows).unwrap();
        let after = state(&mut *agent);
        let (actor_rate, critic_rate) = rates(update);

        let unit = |i: usize| (HIGH[i] - LOW[i]) / 2.0;
        let (middle, half) = ([(HIGH[0] + LOW[0]) / 2.0, (HIGH[1] + LOW[1]) / 2.0], [unit(0), unit(1)]);
        let action = (&rows["action"] - Tensor::from_slice(&middle)) / Tensor::from_slice(&half);
        let (obs, next_obs) = (&rows["obs"], &rows["next_obs"]);
        let next = mu(&layers(&before, "target_actor"), next_obs);
        let y = &rows["reward"] + &rows["discount"] * q(&layers(&before, "target_critic"), next_obs, &next);
        let of_critic = layers(&before, "critic");
        let delta = y.detach() - q(&of_critic, obs, &action);
        close("|δ|", &found.td_error, &delta.abs().detach());
        let of_actor = layers(&before, "actor");
        let step = |net: &str, loss: &Tensor, parameters: &[Tensor], rate: f64| {
            let slopes = gradients(loss, parameters);
            let norm = clip_norm(&slopes, bound).unwrap().double_value(&[]);
            assert!(norm > 2.0 * bound, "{net}: the bound is not reached by {norm}");
            for (i, (parameter, slope)) in parameters.iter().zip(&slopes).enumerate() {
                close(
                    &format!("{net} {i}"),
                    &layers(&after, net)[i].detach(),
                    &(parameter - slope * rate).detach(),
                );
            }
        };
        step("critic", &(&weight * delta.square()).mean(Kind::Float), &of_critic, critic_rate);
        // The actor climbs the critic that has just been updated.
        let value = q(&layers(&after, "critic"), obs, &mu(&of_actor, obs));
        step("actor", &-value.mean(Kind::Float), &of_actor, actor_rate);
        for net in ["actor", "critic"] {
            let target = format!("target_{net}");
            let (old, online) = (layers(&before, &target), layers(&after, net));
            for (i, found) in layers(&after, &target).iter().enumerate() {
                let expected = &old[i] * (1.0 - tau) + &online[i] * tau;
                close(&format!("{target} {i}"), &found.detach(), &expected.detach());
            }
        }
    }
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
