//! DQN against its equations written out in plain Rust, for a linear Q-function whose weights are read from the agent's state.

use rand::{RngExt, SeedableRng};
use rl_agents::algo;
use rl_learn::{
    ActionSpace, Agent, Device, Dtype, Kind, MemoryState, MiniBatch, Mode, Piece, Rng, Spaces, Tensor,
};
use serde_json::json;

const OBS: usize = 3;
const ACTIONS: usize = 4;
const ROWS: usize = 16;

fn agent(config: serde_json::Value) -> Box<dyn Agent> {
    let spaces =
        Spaces { obs_dtype: Dtype::F32, obs_shape: vec![OBS], action: ActionSpace::Discrete { n: ACTIONS } };
    let dqn = algo("dqn").unwrap();
    let mut full = dqn.defaults();
    full["hidden"] = json!([]);
    for (key, value) in config.as_object().unwrap() {
        full[key] = value.clone();
    }
    dqn.build(full, &spaces, Rng::seed_from_u64(1), Device::Cpu).unwrap()
}

fn state(agent: &mut dyn Agent) -> MemoryState {
    MemoryState::save(|v| agent.visit(v)).unwrap()
}

fn numbers(state: &MemoryState, path: &str) -> Vec<f32> {
    match state.get(path) {
        Some(Piece::Array { bytes, .. }) => {
            bytes.as_chunks::<4>().0.iter().map(|b| f32::from_ne_bytes(*b)).collect()
        }
        other => panic!("{path}: {other:?}"),
    }
}

/// Gives the target network other weights than the online one, so that it matters which of them is asked.
fn scramble_target(agent: &mut dyn Agent) {
    let mut state = state(agent);
    for name in ["weight", "bias"] {
        let Some(Piece::Array { bytes, .. }) = state.get_mut(&format!("target.layers.0.{name}")) else {
            panic!()
        };
        for chunk in bytes.as_chunks_mut::<4>().0 {
            *chunk = (-1.5 * f32::from_ne_bytes(*chunk) + 0.1).to_ne_bytes();
        }
    }
    state.load(|v| agent.visit(v)).unwrap();
}

struct Rows {
    obs: Vec<[f32; OBS]>,
    action: Vec<i64>,
    reward: Vec<f32>,
    discount: Vec<f32>,
    next_obs: Vec<[f32; OBS]>,
    weight: Vec<f32>,
}

impl Rows {
    fn random() -> Self {
        let mut rng = Rng::seed_from_u64(2);
        let mut obs = || -> Vec<[f32; OBS]> {
            (0..ROWS).map(|_| std::array::from_fn(|_| rng.random_range(-2.0..2.0))).collect()
        };
        let (obs, next_obs) = (obs(), obs());
        Self {
            obs,
            next_obs,
            action: (0..ROWS).map(|i| (i % ACTIONS) as i64).collect(),
            reward: (0..ROWS).map(|i| i as f32 * 0.3 - 2.0).collect(),
            // Terminal, one-step and three-step rows.
            discount: (0..ROWS).map(|i| [0.0, 0.99, 0.970299][i % 3]).collect(),
            weight: (0..ROWS).map(|i| 1.0 / (1.0 + i as f32)).collect(),
        }
    }

    fn batch(&self) -> MiniBatch {
        let matrix =
            |rows: &[[f32; OBS]]| Tensor::from_slice(rows.as_flattened()).reshape([ROWS as i64, OBS as i64]);
        let columns = vec![
            ("obs".to_string(), matrix(&self.obs)),
            ("action".to_string(), Tensor::from_slice(&self.action)),
            ("reward".to_string(), Tensor::from_slice(&self.reward)),
            ("discount".to_string(), Tensor::from_slice(&self.discount)),
            ("next_obs".to_string(), matrix(&self.next_obs)),
        ];
        MiniBatch::new(columns, Tensor::from_slice(&self.weight))
    }
}

/// Q(s, ·) of one linear layer; with the dueling form its first output is V.
fn q(state: &MemoryState, net: &str, dueling: bool, obs: &[f32; OBS]) -> Vec<f64> {
    let (weight, bias) =
        (numbers(state, &format!("{net}.layers.0.weight")), numbers(state, &format!("{net}.layers.0.bias")));
    let out: Vec<f64> = bias
        .iter()
        .zip(weight.chunks(OBS))
        .map(|(b, w)| {
            f64::from(*b) + w.iter().zip(obs).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>()
        })
        .collect();
    if !dueling {
        return out;
    }
    let mean = out[1..].iter().sum::<f64>() / ACTIONS as f64;
    out[1..].iter().map(|advantage| out[0] + advantage - mean).collect()
}

fn argmax(values: &[f64]) -> usize {
    (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap()
}

#[test]
fn errors_and_loss_follow_the_equations() {
    for (double, dueling, loss) in
        [(false, false, "huber"), (true, false, "huber"), (false, true, "mse"), (true, true, "mse")]
    {
        let mut agent = agent(json!({ "double": double, "dueling": dueling, "loss": loss }));
        scramble_target(&mut *agent);
        let state = state(&mut *agent);
        let rows = Rows::random();
        let update = agent.learn(&rows.batch()).unwrap();

        let found: Vec<f32> = Vec::try_from(&update.td_error).unwrap();
        let mut expected_loss = 0.0;
        for (i, found) in found.into_iter().enumerate() {
            let target_q = q(&state, "target", dueling, &rows.next_obs[i]);
            let chooser =
                if double { q(&state, "online", dueling, &rows.next_obs[i]) } else { target_q.clone() };
            let y = f64::from(rows.reward[i]) + f64::from(rows.discount[i]) * target_q[argmax(&chooser)];
            let delta = y - q(&state, "online", dueling, &rows.obs[i])[rows.action[i] as usize];
            assert!((f64::from(found) - delta.abs()).abs() < 1e-5, "row {i}: {} and {}", found, delta.abs());
            let each = match loss {
                "mse" => delta * delta,
                _ if delta.abs() <= 1.0 => delta * delta / 2.0,
                _ => delta.abs() - 0.5,
            };
            expected_loss += f64::from(rows.weight[i]) * each / ROWS as f64;
        }
        let (name, found_loss) = &update.scalars[0];
        assert_eq!(*name, "loss");
        assert!((found_loss.double_value(&[]) - expected_loss).abs() < 1e-5 * expected_loss.max(1.0));
    }
}

#[test]
fn the_target_network_follows_when_it_is_due_and_not_before() {
    let mut agent = agent(json!({ "target_update_every": 3 }));
    let target = |agent: &mut dyn Agent| numbers(&state(agent), "target.layers.0.weight");
    let online = |agent: &mut dyn Agent| numbers(&state(agent), "online.layers.0.weight");
    let (rows, start) = (Rows::random(), target(&mut *agent));
    for _ in 0..2 {
        agent.learn(&rows.batch()).unwrap();
        assert_eq!(target(&mut *agent), start);
        assert_ne!(online(&mut *agent), start);
    }
    agent.learn(&rows.batch()).unwrap();
    assert_eq!(target(&mut *agent), online(&mut *agent));
}

/// Plain gradient steps show the rate of each update; and a soft target update goes a part of the way.
#[test]
fn each_update_has_the_rate_of_its_number() {
    let rate = json!({ "kind": "linear", "start": 0.5, "end": 0.125, "steps": 3 });
    let config = json!({
        "optimizer": { "kind": "sgd" }, "learning_rate": rate, "max_grad_norm": 1e-2, "tau": 0.25, "target_update_every": 1,
    });
    let mut agent = agent(config);
    scramble_target(&mut *agent);
    let all = |agent: &mut dyn Agent, net: &str| -> Vec<f32> {
        let state = state(agent);
        ["weight", "bias"].iter().flat_map(|n| numbers(&state, &format!("{net}.layers.0.{n}"))).collect()
    };
    for rate in [0.5, 0.375, 0.25, 0.125, 0.125] {
        let (before, target) = (all(&mut *agent, "online"), all(&mut *agent, "target"));
        agent.learn(&Rows::random().batch()).unwrap();
        let (after, followed) = (all(&mut *agent, "online"), all(&mut *agent, "target"));
        // Every gradient here is longer than the bound, to which it is cut.
        let length = before.iter().zip(&after).map(|(a, b)| f64::from(b - a).powi(2)).sum::<f64>().sqrt();
        assert!((length / (rate * 1e-2) - 1.0).abs() < 1e-3, "{length} at rate {rate}");
        for ((old, online), new) in target.iter().zip(&after).zip(&followed) {
            assert!((old + 0.25 * (online - old) - new).abs() < 1e-6);
        }
    }
}

/// Of 20,000 random actions a fraction ε·(n − 1)/n differs from the greedy one; 5 standard errors.
#[test]
fn exploration_is_as_frequent_as_epsilon_says_and_greedy_has_none() {
    let mut agent = agent(json!({ "epsilon": { "kind": "linear", "start": 1.0, "end": 0.2, "steps": 100 } }));
    let obs = Tensor::from_slice(&[0.3f32, -0.2, 0.9]).reshape([1, OBS as i64]).repeat([20_000, 1]);
    let actions = |agent: &mut dyn Agent, mode| Vec::<i64>::try_from(agent.act(&obs, mode).unwrap()).unwrap();
    let greedy = actions(&mut *agent, Mode::Greedy);
    assert!(greedy.iter().all(|a| *a == greedy[0]));
    for (mode, epsilon) in [
        (Mode::Random, 1.0),
        (Mode::Explore { env_steps: 50 }, 0.6),
        (Mode::Explore { env_steps: 1_000 }, 0.2),
    ] {
        let chosen = actions(&mut *agent, mode);
        assert!(chosen.iter().all(|a| (0..ACTIONS as i64).contains(a)));
        let differing = chosen.iter().filter(|a| **a != greedy[0]).count() as f64 / 20_000.0;
        let expected = epsilon * (ACTIONS - 1) as f64 / ACTIONS as f64;
        let error = (expected * (1.0 - expected) / 20_000.0).sqrt();
        assert!((differing - expected).abs() < 5.0 * error, "{mode:?}: {differing}, expected {expected}");
    }
}

#[test]
fn bad_settings_are_one_line_that_names_the_key() {
    let spaces = |action| Spaces { obs_dtype: Dtype::F32, obs_shape: vec![OBS], action };
    let dqn = algo("dqn").unwrap();
    let refused = |key: &str, value: serde_json::Value, action| {
        let mut config = dqn.defaults();
        config[key] = value;
        let error = dqn.build(config, &spaces(action), Rng::seed_from_u64(1), Device::Cpu).err();
        let text = error.unwrap_or_else(|| panic!("{key} was taken")).to_string();
        assert!(!text.contains('\n'));
        text
    };
    let discrete = || ActionSpace::Discrete { n: 2 };
    for (key, value) in [
        ("tau", json!(0.0)),
        ("tau", json!("x")),
        ("hidden", json!([0])),
        ("epsilon", json!(1.5)),
        ("learning_rate", json!(-1.0)),
        ("learning_rate", json!({ "kind": "linear", "start": 1.0, "end": 0.0, "stps": 5 })),
        ("optimizer", json!({ "kind": "adam", "beta1": 1.0 })),
        ("optimizer", json!({ "kind": "adagrad" })),
        ("loss", json!("l1")),
        ("max_grad_norm", json!(-1.0)),
        ("target_update_every", json!(0)),
    ] {
        assert!(refused(key, value, discrete()).contains(&format!("agent.{key}")), "{key}");
    }
    let continuous = ActionSpace::Continuous { low: vec![-1.0], high: vec![1.0] };
    assert!(refused("tau", json!(1.0), continuous).contains("--algo ddpg"));
}

/// An agent that looks at images, and a batch of `ROWS` of them.
fn sees(network: &str, obs_dtype: Dtype, shape: [usize; 3]) -> (Result<Box<dyn Agent>, String>, MiniBatch) {
    let spaces =
        Spaces { obs_dtype, obs_shape: shape.to_vec(), action: ActionSpace::Discrete { n: ACTIONS } };
    let dqn = algo("dqn").unwrap();
    let mut config = dqn.defaults();
    (config["network"], config["hidden"]) = (json!(network), json!([32]));
    let agent = dqn.build(config, &spaces, Rng::seed_from_u64(1), Device::Cpu).map_err(|e| e.to_string());
    let rows = Rows::random();
    let size: Vec<i64> = std::iter::once(ROWS).chain(shape).map(|n| n as i64).collect();
    // Frames are bright from 0 to 255, MinAtar's cells are 0 or 1.
    let bright = if network == "nature-cnn" { 255 } else { 1 };
    let images = |seed: u64| {
        let mut rng = Rng::seed_from_u64(seed);
        let count = size.iter().product::<i64>() as usize;
        let bytes: Vec<u8> = (0..count).map(|_| bright * rng.random_range(0..2)).collect();
        Tensor::from_slice(&bytes).reshape(&size)
    };
    let columns = vec![
        ("obs".to_string(), images(1)),
        ("action".to_string(), Tensor::from_slice(&rows.action)),
        ("reward".to_string(), Tensor::from_slice(&rows.reward)),
        ("discount".to_string(), Tensor::from_slice(&rows.discount).zeros_like()),
        ("next_obs".to_string(), images(2)),
    ];
    (agent, MiniBatch::new(columns, Tensor::from_slice(&rows.weight)))
}

/// With no discount the targets are the rewards, which a network that sees the images can learn by heart.
#[test]
fn networks_of_images_learn() {
    for (network, shape) in [("minatar-cnn", [10, 10, 4]), ("nature-cnn", [4, 36, 36]), ("mlp", [2, 5, 5])] {
        let (agent, batch) = sees(network, Dtype::U8, shape);
        let mut agent = agent.unwrap();
        let loss = |update: rl_learn::Update| update.scalars[0].1.double_value(&[]);
        let first = loss(agent.learn(&batch).unwrap());
        (0..100).for_each(|_| drop(agent.learn(&batch).unwrap()));
        let last = loss(agent.learn(&batch).unwrap());
        assert!(last < 0.05 * first, "{network}: {first} became {last}");
        let actions = agent.act(&batch["obs"], Mode::Greedy).unwrap();
        assert_eq!(actions.size(), [ROWS as i64]);
        let names: Vec<String> = state(&mut *agent).pieces().map(|(path, _)| path.to_string()).collect();
        assert_eq!(names.iter().any(|name| name == "target.convolutions.0.weight"), network != "mlp");
    }
}

/// "auto" looks at images of the two known sizes, and at stacks of them.
#[test]
fn the_network_goes_with_the_observations() {
    let first_layer = |dtype: Dtype, shape: &[usize]| {
        let action = ActionSpace::Discrete { n: ACTIONS };
        let spaces = Spaces { obs_dtype: dtype, obs_shape: shape.to_vec(), action };
        let dqn = algo("dqn").unwrap();
        let mut agent = dqn.build(dqn.defaults(), &spaces, Rng::seed_from_u64(1), Device::Cpu).unwrap();
        let obs = Tensor::zeros(
            [&[2], shape].concat().iter().map(|&n| n as i64).collect::<Vec<_>>(),
            (if dtype == Dtype::U8 { Kind::Uint8 } else { Kind::Float }, Device::Cpu),
        );
        assert_eq!(agent.act(&obs, Mode::Greedy).unwrap().size(), [2]);
        let state = state(&mut *agent);
        let shape = |name: &str| match state.get(name) {
            Some(rl_learn::Piece::Array { shape, .. }) => Some(shape.clone()),
            _ => None,
        };
        shape("online.convolutions.0.weight")
    };
    assert_eq!(first_layer(Dtype::U8, &[4, 84, 84]), Some(vec![32, 4, 8, 8]));
    assert_eq!(first_layer(Dtype::U8, &[4, 1, 84, 84]), Some(vec![32, 4, 8, 8]));
    assert_eq!(first_layer(Dtype::U8, &[2, 3, 84, 84]), Some(vec![32, 6, 8, 8]));
    assert_eq!(first_layer(Dtype::U8, &[10, 10, 6]), Some(vec![16, 6, 3, 3]));
    assert_eq!(first_layer(Dtype::U8, &[3, 10, 10, 4]), Some(vec![16, 12, 3, 3]));
    // No images, or none of bytes, which alone are scaled rightly.
    assert_eq!(first_layer(Dtype::F32, &[1, 84, 84]), None);
    assert_eq!(first_layer(Dtype::F32, &[4]), None);
    assert_eq!(first_layer(Dtype::F32, &[4, 10]), None);
}

#[test]
fn a_network_of_images_says_what_it_cannot_see() {
    let refused = |network, shape| sees(network, Dtype::U8, shape).0.err().unwrap();
    assert!(refused("nature-cnn", [4, 10, 10]).contains("too small"));
    let spaces = Spaces { obs_dtype: Dtype::F32, obs_shape: vec![4], action: ActionSpace::Discrete { n: 2 } };
    let dqn = algo("dqn").unwrap();
    let mut config = dqn.defaults();
    config["network"] = json!("minatar-cnn");
    let error = dqn.build(config, &spaces, Rng::seed_from_u64(1), Device::Cpu).err().unwrap().to_string();
    assert_eq!(
        error,
        "agent.network is \"minatar-cnn\", which looks at images, and observations are [4]; use \"mlp\""
    );
}
