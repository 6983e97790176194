//! Captured updates beside eager ones: the same networks, moments, running statistics and priorities.
//!
//! Where there is no GPU, a stand-in runs the captured path's code: it records nothing, runs the step at each replay and writes its outputs over
//! those of the replay before, as a graph does.

use rand::{RngExt, SeedableRng};
use rl_agents::algo;
use rl_learn::capture::{CudaGraph, StandIn, WARM_UPS};
use rl_learn::device_replay::{DeviceReplay, DeviceReplaySettings};
use rl_learn::{
    ActionSpace, Agent, Device, Dtype, Learner, LearnerSettings, MemoryState, Piece, Precision, Rng, Schema,
    Spaces, device,
};
use rl_replay::{Prioritized, Replay, TransitionReader};
use serde_json::json;

const ROWS: usize = 16;
const UPDATES: usize = 40;

fn spaces(name: &str) -> Spaces {
    let action = match name {
        "dqn" => ActionSpace::Discrete { n: 3 },
        _ => ActionSpace::Continuous { low: vec![-1.0, -2.0], high: vec![1.0, 3.0] },
    };
    Spaces { obs_dtype: Dtype::F32, obs_shape: vec![4], action }
}

/// Rates that change with each update, statistics that run, and a hard target update now and then.
fn agent(name: &str, device: Device) -> Box<dyn Agent> {
    let rate = json!({ "kind": "linear", "start": 1e-2, "end": 1e-3, "steps": UPDATES });
    let changes = match name {
        "dqn" => json!({ "hidden": [16, 16], "learning_rate": rate, "target_update_every": 6 }),
        _ => {
            json!({ "hidden": [16, 16], "batch_norm": true, "actor_learning_rate": rate, "critic_learning_rate": rate,
            "max_grad_norm": 1.0 })
        }
    };
    let algo = algo(name).unwrap();
    let mut config = algo.defaults();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    algo.build(config, &spaces(name), Rng::seed_from_u64(1), device).unwrap()
}

fn fill(replay: &Replay, name: &str, rows: usize, seed: u64) {
    let mut rng = Rng::seed_from_u64(seed);
    let mut writer = replay.writer();
    for _ in 0..rows {
        let mut draw = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.random_range(-1.0..1.0)).collect() };
        let (obs, next, reward, action) = (draw(4), draw(4), draw(1), draw(2));
        let index = ((action[0] + 1.0) * 1.49) as i64;
        let action: &[u8] =
            if name == "dqn" { bytemuck::bytes_of(&index) } else { bytemuck::cast_slice(&action) };
        let row: [&[u8]; 5] = [
            bytemuck::cast_slice(&obs),
            action,
            bytemuck::cast_slice(&reward),
            bytemuck::bytes_of(&0.99f32),
            bytemuck::cast_slice(&next),
        ];
        writer.push(&row).unwrap();
    }
}

fn schema(name: &str) -> Schema {
    let (dtype, shape) = spaces(name).action_layout();
    Schema::transition((Dtype::F32, &[4]), (dtype, &shape)).unwrap()
}

struct Run {
    agent: Box<dyn Agent>,
    learner: Learner,
    replay: Replay,
    scalars: Vec<f64>,
}

impl Run {
    fn new(name: &str, on_device: bool, device: Device, settings: &LearnerSettings) -> Self {
        let prioritized = Prioritized { alpha: 0.6, epsilon: 1e-6 };
        let builder = Replay::builder(schema(name)).capacity(256);
        let replay =
            if on_device { builder.uniform() } else { builder.prioritized(prioritized) }.build().unwrap();
        let mut rng = Rng::seed_from_u64(3);
        let learner = if on_device {
            let settings = DeviceReplaySettings {
                capacity: 200,
                batch_rows: ROWS,
                block_rows: 1,
                prioritized: Some(prioritized),
                tree_height: Some(2),
            };
            Learner::on_device(DeviceReplay::new(&settings, &replay, &mut rng, device).unwrap())
        } else {
            Learner::new(TransitionReader::of_rows(replay.sampler()).unwrap(), ROWS, true, rng, device)
        };
        let learner = learner.with(settings).unwrap();
        fill(&replay, name, 150, 0);
        Self { agent: agent(name, device), learner, replay, scalars: Vec::new() }
    }

    fn updates(&mut self, name: &str, updates: std::ops::Range<usize>) {
        for i in updates {
            fill(&self.replay, name, 3, i as u64);
            let beta = 0.4 + 0.01 * i as f64;
            let update = self.learner.update(&mut *self.agent, beta).unwrap();
            self.scalars.extend(update.scalars.iter().map(|(_, tensor)| tensor.double_value(&[])));
        }
    }

    fn states(&mut self) -> [MemoryState; 3] {
        [
            MemoryState::save(|v| self.agent.visit(v)).unwrap(),
            MemoryState::save(|v| self.learner.visit(v)).unwrap(),
            MemoryState::save(|v| self.replay.visit(v)).unwrap(),
        ]
    }
}

#[test]
fn the_captured_paths_code_and_eager_updates_agree_bit_for_bit() {
    for name in ["dqn", "ddpg"] {
        for on_device in [false, true] {
            for prefetch in [false, true] {
                let settings = LearnerSettings { prefetch: Some(prefetch), ..LearnerSettings::default() };
                let mut eager = Run::new(name, on_device, Device::Cpu, &settings);
                let mut captured = Run::new(name, on_device, Device::Cpu, &settings);
                captured.learner = captured.learner.with_recorder(Box::new(StandIn::default()));
                for run in [&mut eager, &mut captured] {
                    run.updates(name, 0..UPDATES);
                }
                assert_eq!(eager.learner.step().replays(), 0);
                // Each variant and lane warms up by itself; ddpg has one variant and dqn two, of which one comes every sixth time.
                let replays = captured.learner.step().replays();
                assert!(
                    replays >= UPDATES as u64 - 12 - WARM_UPS as u64 && replays < UPDATES as u64,
                    "{replays} replays"
                );
                assert_eq!(eager.scalars, captured.scalars, "{name}, on the device: {on_device}");
                for (a, b) in eager.states().iter().zip(&captured.states()) {
                    assert_eq!(a.differences(b), Vec::<String>::new(), "{name}, on the device: {on_device}");
                }
            }
        }
    }
}

#[test]
fn a_failed_capture_changes_nothing() {
    let settings = LearnerSettings::default();
    let mut eager = Run::new("dqn", false, Device::Cpu, &settings);
    let mut failing = Run::new("dqn", false, Device::Cpu, &settings);
    failing.learner = failing.learner.with_recorder(Box::new(StandIn::refusing("no")));
    for run in [&mut eager, &mut failing] {
        run.updates("dqn", 0..UPDATES);
    }
    assert!(failing.learner.take_warning().unwrap().contains("no"));
    for (a, b) in eager.states().iter().zip(&failing.states()) {
        assert_eq!(a.differences(b), Vec::<String>::new());
    }
}

/// A batch that was drawn ahead is a part of the state, also after its rows have left the ring.
#[test]
fn a_prefetching_run_resumes_bit_for_bit() {
    let settings = LearnerSettings { prefetch: Some(true), ..LearnerSettings::default() };
    let mut whole = Run::new("dqn", false, Device::Cpu, &settings);
    whole.updates("dqn", 0..25);
    fill(&whole.replay, "dqn", 300, 77);
    let saved = whole.states();
    let mut resumed = Run::new("dqn", false, Device::Cpu, &settings);
    saved[0].load(|v| resumed.agent.visit(v)).unwrap();
    saved[1].load(|v| resumed.learner.visit(v)).unwrap();
    saved[2].load(|v| resumed.replay.visit(v)).unwrap();
    whole.scalars.clear();
    for run in [&mut whole, &mut resumed] {
        run.updates("dqn", 25..50);
    }
    assert_eq!(whole.scalars, resumed.scalars);
    for (a, b) in whole.states().iter().zip(&resumed.states()) {
        assert_eq!(a.differences(b), Vec::<String>::new());
    }
}

#[test]
fn bf16_learns_nearly_the_same_and_keeps_f32_state() {
    for name in ["dqn", "ddpg"] {
        let mut runs = [Precision::F32, Precision::Bf16].map(|precision| {
            let settings = LearnerSettings { precision, ..LearnerSettings::default() };
            let mut run = Run::new(name, false, Device::Cpu, &settings);
            run.updates(name, 0..UPDATES);
            run
        });
        let [full, half] = [0, 1].map(|i| runs[i].scalars.clone());
        // The first loss is of the same parameters and rows: 8 bits of mantissa through three layers. Later ones are of runs that part.
        assert_ne!(full[0], half[0], "{name}: nothing was computed in bf16");
        assert!((half[0] / full[0] - 1.0).abs() < 0.02, "{name}: {} and not {}", half[0], full[0]);
        assert!(half.iter().all(|scalar| scalar.is_finite()));
        for (path, piece) in runs[1].states()[0].pieces() {
            assert!(!matches!(piece, Piece::Array { dtype: Dtype::Bf16, .. }), "{path}");
        }
    }
}

#[test]
fn tf32_is_refused_on_a_cpu() {
    let replay = Replay::builder(schema("dqn")).capacity(8).build().unwrap();
    let learner = Learner::new(
        TransitionReader::of_rows(replay.sampler()).unwrap(),
        4,
        false,
        Rng::seed_from_u64(0),
        Device::Cpu,
    );
    let settings = LearnerSettings { precision: Precision::Tf32, ..LearnerSettings::default() };
    let why = learner.with(&settings).unwrap_err();
    assert!(why.contains("tf32") && !why.contains('\n'), "{why}");
}

/// Graphs beside eager updates, on a GPU; says that it did nothing where there is none.
#[test]
fn graphs_and_eager_updates_agree_to_rounding() {
    let device = match device::choose("cuda") {
        Ok(device) => device,
        Err(why) => return println!("skipped: {why}"),
    };
    for name in ["dqn", "ddpg"] {
        for on_device in [false, true] {
            let run = |cuda_graph| {
                let settings = LearnerSettings { cuda_graph, ..LearnerSettings::default() };
                let mut run = Run::new(name, on_device, device, &settings);
                run.updates(name, 0..UPDATES);
                run
            };
            let (mut eager, mut graphed) = (run(CudaGraph::Off), run(CudaGraph::On));
            assert_eq!(graphed.learner.take_warning(), None);
            assert!(graphed.learner.step().replays() > UPDATES as u64 / 2);
            for (a, b) in eager.states().iter().zip(&graphed.states()) {
                for (path, piece) in a.pieces() {
                    match (piece, b.get(path)) {
                        (
                            Piece::Array { dtype: Dtype::F32, bytes: a, .. },
                            Some(Piece::Array { bytes: b, .. }),
                        ) => {
                            let [a, b] = [a, b].map(|bytes| -> Vec<f32> {
                                bytes.as_chunks::<4>().0.iter().map(|b| f32::from_ne_bytes(*b)).collect()
                            });
                            let close =
                                a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-4 * (1.0 + a.abs()));
                            assert!(close, "{name}, on the device: {on_device}: {path}");
                        }
                        (_, other) => assert!(other.is_some(), "{path}"),
                    }
                }
            }
        }
    }
}
