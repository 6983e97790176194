//! A policy acts as its agent does, on a thread of its own, and follows it through published weights.

use rand::{RngExt, SeedableRng};
use rl_agents::algo;
use rl_learn::{
    ActionSpace, Agent, Device, Dtype, Kind, MemoryState, MiniBatch, Mode, Policy, Rng, Spaces, Tensor,
    publish_weights,
};
use serde_json::{Value, json};
use std::thread;

const ROWS: i64 = 32;

fn discrete() -> (&'static str, ActionSpace, Value) {
    ("dqn", ActionSpace::Discrete { n: 4 }, json!({ "hidden": [16], "dueling": true }))
}

/// With everything that acting depends on: running statistics, and noise with a memory.
fn continuous() -> (&'static str, ActionSpace, Value) {
    let config = json!({
        "hidden": [16, 8],
        "batch_norm": true,
        "noise": { "kind": "ornstein-uhlenbeck", "sigma": 0.2, "theta": 0.15 },
    });
    ("ddpg", ActionSpace::Continuous { low: vec![-1.0, 0.0], high: vec![3.0, 0.5] }, config)
}

fn agent((name, action, config): (&str, ActionSpace, Value)) -> Box<dyn Agent> {
    let spaces = Spaces { obs_dtype: Dtype::F32, obs_shape: vec![3], action };
    let algo = algo(name).unwrap();
    let mut full = algo.defaults();
    for (key, value) in config.as_object().unwrap() {
        full[key] = value.clone();
    }
    algo.build(full, &spaces, Rng::seed_from_u64(1), Device::Cpu).unwrap()
}

fn uniform(rng: &mut Rng, shape: &[i64], low: f32, high: f32) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(low..high)).collect();
    Tensor::from_slice(&values).reshape(shape)
}

fn obs(seed: u64) -> Tensor {
    uniform(&mut Rng::seed_from_u64(seed), &[ROWS, 3], -5.0, 9.0)
}

fn batch(seed: u64, discrete: bool) -> MiniBatch {
    let mut rng = Rng::seed_from_u64(seed);
    let action = match discrete {
        true => Tensor::from_slice(&(0..ROWS).map(|i| i % 4).collect::<Vec<_>>()),
        false => uniform(&mut rng, &[ROWS, 2], 0.0, 0.5),
    };
    let columns = vec![
        ("obs".to_string(), uniform(&mut rng, &[ROWS, 3], -5.0, 9.0)),
        ("action".to_string(), action),
        ("reward".to_string(), uniform(&mut rng, &[ROWS], -1.0, 1.0)),
        ("discount".to_string(), Tensor::full([ROWS], 0.9, (Kind::Float, Device::Cpu))),
        ("next_obs".to_string(), uniform(&mut rng, &[ROWS, 3], -5.0, 9.0)),
    ];
    MiniBatch::new(columns, Tensor::ones([ROWS], (Kind::Float, Device::Cpu)))
}

fn same(a: &Tensor, b: &Tensor) -> bool {
    a.equal(b)
}

#[test]
fn a_policy_is_its_agent_until_the_agent_learns_and_again_with_new_weights() {
    for (kind, is_discrete) in [(discrete(), true), (continuous(), false)] {
        let mut agent = agent(kind);
        let policy = agent.policy(Rng::seed_from_u64(5)).unwrap();
        assert!(policy.weights().iter().all(|tensor| !tensor.requires_grad()));
        let (mut publisher, mut readers) =
            publish_weights(agent.acting_weights(), vec![policy.weights()], 0).unwrap();
        // On a thread of its own, as actors are.
        let greedy = move |mut policy: Box<dyn Policy>| {
            let act = thread::spawn(move || (policy.act(&obs(2), Mode::Greedy).unwrap(), policy));
            act.join().unwrap()
        };
        let (actions, mut again) = greedy(policy);
        assert!(same(&actions, &agent.act(&obs(2), Mode::Greedy).unwrap()));

        let batch = batch(3, is_discrete);
        for _ in 0..200 {
            agent.learn(&batch).unwrap();
        }
        let learned = agent.act(&obs(2), Mode::Greedy).unwrap();
        assert!(!same(&again.act(&obs(2), Mode::Greedy).unwrap(), &learned), "nothing was learned");
        publisher.publish(200).unwrap();
        assert_eq!(readers[0].refresh().unwrap().updates, 200);
        assert!(same(&greedy(again).0, &learned));
    }
}

/// From its state and the weights a policy goes on exactly, and its exploration is not the agent's.
#[test]
fn a_policy_explores_by_itself_and_its_state_is_whole() {
    for kind in [discrete(), continuous()] {
        let mut agent = agent(kind);
        let mut policy = agent.policy(Rng::seed_from_u64(5)).unwrap();
        let explore = Mode::Explore { env_steps: 100 };
        let before = MemoryState::save(|v| agent.visit(v)).unwrap();
        for mode in [explore, Mode::Random, explore] {
            let _ = policy.act(&obs(4), mode).unwrap();
        }
        policy.begin_episode(3);
        let after = MemoryState::save(|v| agent.visit(v)).unwrap();
        assert!(before.pieces().eq(after.pieces()), "acting apart has changed the agent");

        let state = MemoryState::save(|v| policy.visit(v)).unwrap();
        let mut resumed = agent.policy(Rng::seed_from_u64(99)).unwrap();
        assert!(!same(&resumed.act(&obs(4), explore).unwrap(), &policy.act(&obs(4), explore).unwrap()));
        for policy in [&mut policy, &mut resumed] {
            state.load(|v| policy.visit(v)).unwrap();
        }
        for mode in [explore, Mode::Random, explore] {
            let (a, b) = (policy.act(&obs(6), mode).unwrap(), resumed.act(&obs(6), mode).unwrap());
            assert!(same(&a, &b));
        }
    }
}
