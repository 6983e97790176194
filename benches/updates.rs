//! One update and one action of DQN and DDPG on one thread, a fixed batch, nothing around them:
//! `cargo bench -p rl-agents --bench updates [-- --threads N] [FILTER]`.
//!
//! Each figure is the median of single calls, and beside it their tenth percentile, which other processes on the machine disturb least.

use rand::SeedableRng;
use rl_agents::algo;
use rl_learn::{
    ActionSpace, Agent, Device, Dtype, Kind, MiniBatch, Mode, Rng, Spaces, Tensor, device, keep_freed_memory,
};
use serde_json::{Value, json};
use std::time::Instant;

/// As in gymnasium's HalfCheetah: 17 numbers an observation, 6 actions or dimensions of one.
const OBS: usize = 17;
const ACTIONS: usize = 6;

struct Case {
    name: &'static str,
    algo: &'static str,
    batch: usize,
    config: Value,
}

fn cases() -> Vec<Case> {
    let dqn = |name, hidden: [i64; 2], batch, double: bool| Case {
        name,
        algo: "dqn",
        batch,
        config: json!({ "hidden": hidden, "double": double, "target_update_every": 1_000_000 }),
    };
    vec![
        dqn("dqn [64,64] b64", [64, 64], 64, false),
        dqn("dqn [64,64] b64 double", [64, 64], 64, true),
        dqn("dqn [256,256] b64", [256, 256], 64, false),
        dqn("dqn [256,256] b64 double", [256, 256], 64, true),
        dqn("dqn [256,256] b256", [256, 256], 256, false),
        dqn("dqn [256,256] b256 double", [256, 256], 256, true),
        dqn("dqn [256,256] b4096 double", [256, 256], 4096, true),
        Case { name: "ddpg [400,300] b256", algo: "ddpg", batch: 256, config: json!({}) },
        Case { name: "ddpg [64,64] b64", algo: "ddpg", batch: 64, config: json!({ "hidden": [64, 64] }) },
    ]
}

fn build(case: &Case) -> Box<dyn Agent> {
    let action = match case.algo {
        "dqn" => ActionSpace::Discrete { n: ACTIONS },
        _ => ActionSpace::Continuous { low: vec![-1.0; ACTIONS], high: vec![1.0; ACTIONS] },
    };
    let spaces = Spaces { obs_dtype: Dtype::F32, obs_shape: vec![OBS], action };
    let algo = algo(case.algo).expect("known");
    let mut config = algo.defaults();
    for (key, value) in case.config.as_object().expect("an object") {
        config[key] = value.clone();
    }
    algo.build(config, &spaces, Rng::seed_from_u64(1), Device::Cpu).expect("a good configuration")
}

fn batch(case: &Case) -> MiniBatch {
    let rows = case.batch as i64;
    let float = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
    let action = match case.algo {
        "dqn" => Tensor::randint(ACTIONS as i64, [rows], (Kind::Int64, Device::Cpu)),
        _ => float(&[rows, ACTIONS as i64]).clamp(-1.0, 1.0),
    };
    let columns = [
        ("obs", float(&[rows, OBS as i64])),
        ("action", action),
        ("reward", float(&[rows])),
        ("discount", Tensor::full([rows], 0.99, (Kind::Float, Device::Cpu))),
        ("next_obs", float(&[rows, OBS as i64])),
    ];
    let columns = columns.into_iter().map(|(name, column)| (name.to_string(), column)).collect();
    MiniBatch::new(columns, Tensor::ones([rows], (Kind::Float, Device::Cpu)))
}

/// Median and tenth percentile, in µs, of calls for about `seconds`.
fn time(seconds: f64, mut call: impl FnMut()) -> (f64, f64) {
    for _ in 0..20 {
        call();
    }
    let (begin, mut times) = (Instant::now(), Vec::new());
    while begin.elapsed().as_secs_f64() < seconds || times.len() < 20 {
        let start = Instant::now();
        call();
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() / 10])
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let mut threads = 1;
    let mut filter = String::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--threads" => {
                threads = arguments.next().and_then(|n| n.parse().ok()).expect("--threads takes a number")
            }
            other => filter = other.to_string(),
        }
    }
    keep_freed_memory();
    device::set_threads(threads);
    println!(
        "{:<28} {:>10} {:>10}   median and tenth percentile, µs; {threads} thread(s)",
        "", "median", "p10"
    );
    for case in cases().iter().filter(|case| case.name.contains(&filter)) {
        let (mut agent, batch) = (build(case), batch(case));
        let (median, p10) = time(1.0, || drop(agent.learn(&batch).expect("an update")));
        println!("{:<28} {median:>10.1} {p10:>10.1}", case.name);
        for rows in [1i64, 8] {
            let obs = Tensor::randn([rows, OBS as i64], (Kind::Float, Device::Cpu));
            let (median, p10) = time(0.2, || drop(agent.act(&obs, Mode::Greedy).expect("actions")));
            println!("{:<28} {median:>10.1} {p10:>10.1}", format!("  act, {rows} row(s)"));
        }
    }
}
