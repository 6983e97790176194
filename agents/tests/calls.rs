//! How many operators libtorch is asked for in one update: what a small network's update costs. And that none reads back.

use rand::SeedableRng;
use rl_agents::algo;
use rl_learn::{
    ActionSpace, Agent, CallCounts, Device, Dtype, Kind, MiniBatch, Mode, Rng, Spaces, Tensor, count_calls,
};
use serde_json::json;

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

fn agent(name: &str) -> Box<dyn Agent> {
    let action = match name {
        "dqn" => ActionSpace::Discrete { n: 6 },
        _ => ActionSpace::Continuous { low: vec![-1.0; 6], high: vec![2.0; 6] },
    };
    let spaces = Spaces { obs_dtype: Dtype::F32, obs_shape: vec![17], action };
    let algo = algo(name).unwrap();
    let mut config = algo.defaults();
    config["hidden"] = json!([64, 64]);
    algo.build(config, &spaces, Rng::seed_from_u64(1), Device::Cpu).unwrap()
}

fn batch(name: &str) -> MiniBatch {
    let action = match name {
        "dqn" => Tensor::randint(6, [32], (Kind::Int64, Device::Cpu)),
        _ => Tensor::randn([32, 6], F32),
    };
    let columns = [
        ("obs", Tensor::randn([32, 17], F32)),
        ("action", action),
        ("reward", Tensor::randn([32], F32)),
        ("discount", Tensor::ones([32], F32)),
        ("next_obs", Tensor::randn([32, 17], F32)),
    ];
    let columns = columns.into_iter().map(|(name, column)| (name.to_string(), column)).collect();
    MiniBatch::new(columns, Tensor::ones([32], F32))
}

/// The calls of the third update: the first ones may set things up.
fn update(name: &str) -> CallCounts {
    let (mut agent, batch) = (agent(name), batch(name));
    for _ in 0..2 {
        agent.learn(&batch).unwrap();
    }
    let (result, counts) = count_calls(|| agent.learn(&batch)).unwrap();
    result.unwrap();
    println!("{name}: {} operator calls\n{:#?}", counts.calls, counts.by_name);
    counts
}

/// One test, as there is one count at a time.
#[test]
fn operator_calls_of_an_update() {
    let (dqn, ddpg) = (update("dqn"), update("ddpg"));
    assert_eq!((dqn.host_syncs, ddpg.host_syncs), (0, 0));

    let (value, counts) = count_calls(|| Tensor::ones([2], F32).sum(Kind::Float).double_value(&[])).unwrap();
    assert_eq!((value, counts.host_syncs), (2.0, 1));
    let refused = count_calls(|| count_calls(|| ()).err()).unwrap().0.expect("one count at a time");
    assert!(refused.to_string().contains("counted already"), "{refused}");

    let mut acting = agent("dqn");
    let obs = Tensor::randn([1, 17], F32);
    let (_, act) = count_calls(|| acting.act(&obs, Mode::Greedy).unwrap()).unwrap();
    println!("acting: {act:?}");

    // Where rl-learn has no product of its own, libtorch's are among them.
    if dqn.by_name.iter().any(|(name, _)| name.contains("addmm")) {
        return;
    }
    // Of DQN's, 24 allocate a result and 4 make the gradient of the loss by itself.
    assert_eq!((dqn.calls, ddpg.calls, act.calls), (29, 122, 7));
}
