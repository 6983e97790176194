//! The replay buffer on the learner's device, on CPU tensors: beside the host's buffer, whose rows, priorities and weights it has to have.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rl_learn::device_replay::{DeviceReplay, DeviceReplaySettings, FrameRows, FrameStore};
use rl_learn::{
    Agent, AgentError, Device, Dtype, Kind, Learner, MemoryState, MiniBatch, Mode, Rng, Schema, StateError,
    StateVisitor, Tensor, Update, Variant, scope,
};
use rl_minibatch::{Batch, Drawn, Priorities, WeightNorm, importance_weights};
use rl_replay::{FramePadding, FrameStep, NStep, Prioritized, Proportional, Replay, Step};

fn schema() -> Schema {
    Schema::transition((Dtype::F32, &[3]), (Dtype::I64, &[])).unwrap()
}

fn inlet(capacity: usize) -> Replay {
    Replay::builder(schema()).capacity(capacity).build().unwrap()
}

fn settings(capacity: usize, batch_rows: usize, block_rows: usize) -> DeviceReplaySettings {
    DeviceReplaySettings { capacity, batch_rows, block_rows, prioritized: None, tree_height: None }
}

fn prioritized(capacity: usize, batch_rows: usize, height: u32) -> DeviceReplaySettings {
    let prioritized = Some(Prioritized { alpha: 0.6, epsilon: 1e-3 });
    DeviceReplaySettings { prioritized, tree_height: Some(height), ..settings(capacity, batch_rows, 1) }
}

fn device(settings: &DeviceReplaySettings, inlet: &Replay) -> DeviceReplay {
    DeviceReplay::new(settings, inlet, &mut Rng::seed_from_u64(7), Device::Cpu).unwrap()
}

/// Row `i`, all of whose fields tell i.
fn push(replay: &Replay, i: u64) {
    let f = i as f32;
    let (obs, action, reward, next) = ([f, f + 0.25, f + 0.5], i as i64, 2.0 * f, [f + 1.0; 3]);
    let mut writer = replay.writer();
    let row: [&[u8]; 5] = [
        bytemuck::bytes_of(&obs),
        bytemuck::bytes_of(&action),
        bytemuck::bytes_of(&reward),
        bytemuck::bytes_of(&0.99f32),
        bytemuck::bytes_of(&next),
    ];
    writer.push(&row).unwrap();
}

fn fill(replay: &mut DeviceReplay, inlet: &Replay, rows: std::ops::Range<u64>) {
    for i in rows {
        push(inlet, i);
        replay.take_in().unwrap();
    }
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    Vec::<f32>::try_from(tensor.to_kind(Kind::Float).contiguous().view([-1])).unwrap()
}

#[test]
fn n_step_rows_are_those_of_a_buffer_on_the_host() {
    for (capacity, block) in [(64, 1), (50, 7), (1000, 16)] {
        let (inlet, host) = (inlet(64), Replay::builder(schema()).capacity(capacity).build().unwrap());
        let mut replay = device(&settings(capacity, 32, block), &inlet);
        let (mut to_inlet, mut to_host) = (inlet.writer(), host.writer());
        let mut n_step = [(); 2].map(|()| NStep::new(3, 0.9, &schema()).unwrap());
        let mut rng = Rng::seed_from_u64(1);
        for t in 0..400u64 {
            let obs: [f32; 3] = std::array::from_fn(|_| rng.random());
            let next: [f32; 3] = std::array::from_fn(|_| rng.random());
            let (action, end) = (rng.random_range(0..4i64), rng.random_range(0..12));
            let step = Step {
                obs: bytemuck::bytes_of(&obs),
                action: bytemuck::bytes_of(&action),
                reward: t as f32,
                next_obs: bytemuck::bytes_of(&next),
                terminated: end == 0,
                truncated: end == 1,
            };
            n_step[0].push(step, &mut to_inlet).unwrap();
            n_step[1].push(step, &mut to_host).unwrap();
            replay.take_in().unwrap();
            if replay.len() < 32 || host.live().start > replay.live().start {
                continue;
            }
            let (keys, batch) = replay.draw(1.0).unwrap();
            let mut expected = Batch::new(&schema(), 32);
            let mut reader = host.sampler();
            reader.pin().unwrap().gather(&keys, &mut expected.view_mut()).unwrap();
            for name in ["obs", "reward", "discount", "next_obs"] {
                assert_eq!(floats(&batch[name]), expected.typed::<f32>(name).unwrap(), "{name} at {t}");
            }
            let actions = Vec::<i64>::try_from(batch["action"].contiguous()).unwrap();
            assert_eq!(actions, expected.typed::<i64>("action").unwrap());
        }
        assert!(replay.live().end > 300 && host.inserted() - replay.live().end < block as u64);
    }
}

/// χ² with 63 degrees of freedom exceeds 63 + 6·√126 with a probability below 10⁻⁵.
#[test]
fn uniform_draws_are_uniform_over_the_live_rows() {
    for (inserted, live) in [(64, 0..64u64), (100, 0..100), (700, 600..700)] {
        let inlet = inlet(16);
        let mut replay = device(&settings(100, 256, 1), &inlet);
        fill(&mut replay, &inlet, 0..inserted);
        replay.forget_before(live.end - 64);
        let live = live.end - 64..live.end;
        assert_eq!(replay.live(), live);
        let mut counts = [0u32; 64];
        for _ in 0..250 {
            for key in replay.draw(1.0).unwrap().0 {
                counts[(key - live.start) as usize] += 1;
            }
        }
        let expected = 250.0 * 256.0 / 64.0;
        let chi2: f64 = counts.iter().map(|c| (f64::from(*c) - expected).powi(2) / expected).sum();
        assert!(chi2 < 63.0 + 6.0 * 126f64.sqrt(), "χ² {chi2} after {inserted} rows");
    }
}

/// A row's part of the mass covers L = B·P strata: at least L − 2 whole ones, and it touches fewer than L + 2. Over many batches the
/// share is P; the mean of 400 batches of a count whose variance is below 1 has a standard error below 0.05, and 6 of them are exceeded
/// by one of 100 rows in one of 3 · 10⁶ tries.
#[test]
fn priorities_decide_the_shares_in_strata() {
    for height in [1, 2, 3] {
        let inlet = inlet(16);
        let mut replay = device(&prioritized(100, 64, height), &inlet);
        fill(&mut replay, &inlet, 0..130);
        for _ in 0..200 {
            // |δ| of a row is its key's, so that it does not matter when it was drawn.
            let (keys, _) = replay.draw(0.4).unwrap();
            let delta: Vec<f32> = keys.iter().map(|key| (key % 7) as f32).collect();
            replay.update_priorities(&Tensor::from_slice(&delta)).unwrap();
        }
        let priorities = replay.priorities().unwrap();
        let total: f64 = priorities.iter().sum();
        let mut counts = [0.0f64; 100];
        for _ in 0..400 {
            let mut here = [0.0f64; 100];
            replay.draw(0.4).unwrap().0.iter().for_each(|key| here[(key - 30) as usize] += 1.0);
            for (i, (count, priority)) in here.iter().zip(&priorities).enumerate() {
                assert!((count - 64.0 * priority / total).abs() < 2.0, "row {i} came {count} times");
                counts[i] += count / 400.0;
            }
        }
        for (count, priority) in counts.iter().zip(&priorities) {
            let expected = 64.0 * priority / total;
            assert!((count - expected).abs() < 0.3, "height {height}: {count} and not {expected}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// The host's sampler is told the same rows and the same |δ|; weights are made by the host's function.
    #[test]
    fn priorities_and_weights_are_the_hosts(
        capacity in 5usize..80,
        height in 1u32..4,
        rounds in prop::collection::vec((0u64..20, 0.0f64..1.0, 0u64..1000), 1..30),
    ) {
        let inlet = inlet(32);
        let mut replay = device(&prioritized(capacity, 8, height), &inlet);
        let mut host = Proportional::new(capacity as u64, Prioritized { alpha: 0.6, epsilon: 1e-3 }).unwrap();
        let mut inserted = 0;
        for (rows, beta, seed) in [(8, 0.5, 0)].into_iter().chain(rounds) {
            fill(&mut replay, &inlet, inserted..inserted + rows);
            host.inserted(inserted..inserted + rows);
            inserted += rows;
            let (keys, batch) = replay.draw(beta).unwrap();
            let weights = floats(batch.weight());
            let live = replay.live();
            prop_assert!(keys.iter().all(|key| live.contains(key)));
            let total: f64 = live.clone().map(|key| host.priority(key)).sum();
            let drawn = Drawn {
                probabilities: keys.iter().map(|key| host.priority(*key) / total).collect(),
                population: live.end - live.start,
                rows: keys.clone(),
                ..Drawn::default()
            };
            let mut expected = vec![0.0; 8];
            importance_weights(&drawn, beta, WeightNorm::BatchMax, &mut expected);
            for (a, b) in weights.iter().zip(&expected) {
                prop_assert!((a - b).abs() < 1e-5, "{:?} and not {:?}", weights, expected);
            }
            let mut rng = Rng::seed_from_u64(seed);
            let delta: Vec<f32> = (0..8).map(|_| rng.random_range(0.0..4.0)).collect();
            replay.update_priorities(&Tensor::from_slice(&delta)).unwrap();
            host.update(live.clone(), &keys, &delta).unwrap();
            for (key, priority) in live.zip(replay.priorities().unwrap()) {
                prop_assert!((priority / host.priority(key) - 1.0).abs() < 1e-9, "row {}", key);
            }
        }
    }
}

/// |δ| is |obs| of the row, a little changed from update to update; keeps what it saw.
#[derive(Default)]
struct Known {
    seen: std::cell::RefCell<Vec<Vec<f32>>>,
}

impl Agent for Known {
    fn act(&mut self, obs: &Tensor, _: Mode) -> Result<Tensor, AgentError> {
        Ok(obs.copy())
    }
    fn begin_update(&mut self) -> Variant {
        Variant::default()
    }
    fn update(&self, batch: &MiniBatch, _: Variant) -> Result<Update, AgentError> {
        self.seen.borrow_mut().push([floats(&batch["obs"]), floats(batch.weight())].concat());
        Ok(Update {
            td_error: batch["obs"].sum_dim_intlist(1, false, Kind::Float).sin().abs(),
            scalars: vec![],
        })
    }
    fn visit(&mut self, _: &mut dyn StateVisitor) -> Result<(), StateError> {
        Ok(())
    }
    fn schedules(&self, _: u64) -> Vec<(&'static str, f64)> {
        vec![]
    }
}

#[test]
fn a_saved_learner_goes_on_bit_for_bit() {
    for settings in [settings(50, 8, 3), DeviceReplaySettings { block_rows: 3, ..prioritized(50, 8, 2) }] {
        let new = || {
            let inlet = inlet(16);
            (Learner::on_device(device(&settings, &inlet)), inlet, Known::default())
        };
        let run = |learner: &mut Learner, inlet: &Replay, agent: &mut Known, rows: std::ops::Range<u64>| {
            for i in rows {
                push(inlet, i);
                if i > 20 {
                    learner.update(agent, 0.4 + i as f64 / 1000.0).unwrap();
                } else {
                    learner.device_replay().unwrap().take_in().unwrap();
                }
            }
        };
        let (mut whole, inlet, mut agent) = new();
        run(&mut whole, &inlet, &mut agent, 0..91);
        let saved = MemoryState::save(|v| whole.visit(v)).unwrap();
        let saved_inlet = MemoryState::save(|v| inlet.visit(v)).unwrap();
        let (mut resumed, other_inlet, mut other) = new();
        saved.load(|v| resumed.visit(v)).unwrap();
        saved_inlet.load(|v| other_inlet.visit(v)).unwrap();
        let before = agent.seen.borrow().len();
        run(&mut whole, &inlet, &mut agent, 91..400);
        run(&mut resumed, &other_inlet, &mut other, 91..400);
        assert_eq!(agent.seen.borrow()[before..], other.seen.borrow()[..]);
        let states = [&mut whole, &mut resumed].map(|l| MemoryState::save(|v| l.visit(v)).unwrap());
        assert_eq!(states[0].differences(&states[1]), Vec::<String>::new());
        assert!(saved.get("replay.rows.obs").is_some());
    }
}

#[test]
fn stacks_are_those_of_the_episode() {
    for (padding, n, frames_kept) in
        [(FramePadding::Repeat, 1, 400), (FramePadding::Zero, 1, 60), (FramePadding::Repeat, 3, 45)]
    {
        const K: usize = 4;
        let frames = Replay::builder(FrameStore::frame_schema((Dtype::U8, &[2, 3])).unwrap())
            .capacity(64)
            .build()
            .unwrap();
        let rows = Replay::builder(FrameStore::row_schema(K, (Dtype::I64, &[])).unwrap())
            .capacity(64)
            .build()
            .unwrap();
        let store = FrameStore::new(frames_kept, &frames, Device::Cpu).unwrap();
        let mut replay = device(&settings(50, 64, 1), &rows).with_frames(store).unwrap();
        let mut streams = [(); 2].map(|()| FrameRows::new(&frames, &rows, (n, 0.5), padding, K).unwrap());
        // Of each environment: the episode's frames, and the steps that no row was made of yet.
        let mut open: [(Vec<u8>, usize); 2] = Default::default();
        // Of each row the stacks that it has to have, as one number a frame.
        let mut expected: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut rng = Rng::seed_from_u64(4);
        let stack = |episode: &[u8], end: usize| -> Vec<u8> {
            let pad = if padding == FramePadding::Zero { 0 } else { episode[0] };
            (0..K).map(|i| (end + i + 1).checked_sub(K).map_or(pad, |at| episode[at])).collect()
        };
        for t in 0..1500 {
            // The second environment is silent for long times.
            let env = usize::from(t % 100 > 80 && rng.random_bool(0.5));
            let (episode, done) = &mut open[env];
            let frame = rng.random_range(1..=255u8);
            if episode.is_empty() {
                episode.push(frame);
                streams[env].begin(&[frame; 6]).unwrap();
                continue;
            }
            episode.push(frame);
            let end = rng.random_bool(0.08);
            let action = 0i64;
            let step = FrameStep {
                action: bytemuck::bytes_of(&action),
                reward: 1.0,
                next_frame: &[frame; 6],
                terminated: end,
                truncated: false,
            };
            streams[env].step(step).unwrap();
            let last = episode.len() - 1;
            while *done < last && (end || last - *done >= n) {
                expected.push((stack(episode, *done), stack(episode, last)));
                *done += 1;
            }
            if end {
                (*episode, *done) = (Vec::new(), 0);
            }
            replay.take_in().unwrap();
            assert_eq!(replay.live().end, expected.len() as u64);
            if replay.is_empty() {
                continue;
            }
            let (keys, batch) = replay.draw(1.0).unwrap();
            for name in ["obs", "next_obs"] {
                assert_eq!(batch[name].size(), [64, K as i64, 2, 3]);
                let all = Vec::<u8>::try_from(batch[name].reshape([-1])).unwrap();
                for (key, stack) in keys.iter().zip(all.chunks(K * 6)) {
                    let (obs, next_obs) = &expected[*key as usize];
                    let expected = if name == "obs" { obs } else { next_obs };
                    let expected: Vec<u8> = expected.iter().flat_map(|value| [*value; 6]).collect();
                    assert_eq!(stack, expected, "{name} of row {key} at {t}");
                }
            }
        }
        if frames_kept == 400 {
            // Frames enough: no row went before its time, but for the silent environment's.
            assert!(replay.len() > 40, "{} rows", replay.len());
        }
    }
}

/// Nothing is read back that could be refused.
#[test]
fn an_error_that_is_not_finite_counts_as_none() {
    let inlet = inlet(16);
    let mut replay = device(&prioritized(100, 8, 2), &inlet);
    fill(&mut replay, &inlet, 0..50);
    let (keys, _) = replay.draw(1.0).unwrap();
    let delta = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, 0.5, 2.0, 1.0, f32::NAN];
    replay.update_priorities(&Tensor::from_slice(&delta)).unwrap();
    let mut expected = vec![1.0; 50];
    for (key, delta) in keys.iter().zip(delta) {
        let magnitude = if delta.is_finite() { f64::from(delta) } else { 0.0 };
        expected[*key as usize] = (magnitude + 1e-3).powf(0.6);
    }
    fill(&mut replay, &inlet, 50..51);
    // The running maximum is that of a row that may have come twice.
    expected.push(2.001f64.powf(0.6));
    for (found, expected) in replay.priorities().unwrap().iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-9, "{found} and not {expected}");
    }
    assert!(floats(replay.draw(1.0).unwrap().1.weight()).iter().all(|weight| weight.is_finite()));
}

/// A buffer of stacks with all that goes with it, and one environment.
struct Stacked {
    frames: Replay,
    rows: Replay,
    replay: DeviceReplay,
    stream: FrameRows,
    open: bool,
}

impl Stacked {
    fn new() -> Self {
        let frames = FrameStore::frame_schema((Dtype::U8, &[2])).unwrap();
        let frames = Replay::builder(frames).capacity(16).build().unwrap();
        let rows = FrameStore::row_schema(3, (Dtype::I64, &[])).unwrap();
        let rows = Replay::builder(rows).capacity(16).build().unwrap();
        let store = FrameStore::new(30, &frames, Device::Cpu).unwrap();
        let replay = device(&prioritized(50, 8, 2), &rows).with_frames(store).unwrap();
        let stream = FrameRows::new(&frames, &rows, (2, 0.9), FramePadding::Zero, 3).unwrap();
        Self { frames, rows, replay, stream, open: false }
    }

    /// A step, and what is drawn after it.
    fn step(&mut self, rng: &mut Rng) -> (std::ops::Range<u64>, Vec<u64>, Vec<f32>) {
        let frame = [rng.random_range(1..=255u8); 2];
        let terminated = rng.random_bool(0.1);
        if !self.open {
            self.stream.begin(&frame).unwrap();
            self.open = true;
        }
        let action = 0i64;
        let step = FrameStep {
            action: bytemuck::bytes_of(&action),
            reward: 1.0,
            next_frame: &frame,
            terminated,
            truncated: false,
        };
        self.stream.step(step).unwrap();
        self.open = !terminated;
        self.replay.take_in().unwrap();
        if self.replay.is_empty() {
            return Default::default();
        }
        let (keys, batch) = self.replay.draw(0.5).unwrap();
        let drawn = [&batch["obs"], &batch["next_obs"], batch.weight()].map(floats).concat();
        let delta: Vec<f32> = keys.iter().map(|key| (key % 5) as f32).collect();
        self.replay.update_priorities(&Tensor::from_slice(&delta)).unwrap();
        (self.replay.live(), keys, drawn)
    }

    fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        scope(visitor, "replay", |v| self.replay.visit(v))?;
        scope(visitor, "frames", |v| self.frames.visit(v))?;
        scope(visitor, "rows", |v| self.rows.visit(v))?;
        scope(visitor, "stream", |v| self.stream.visit(v))
    }
}

/// As after resuming with environments that cannot be saved: no row leads from the one episode to the other.
#[test]
fn an_episode_that_is_left_without_an_end_leaves_no_open_steps() {
    let mut buffer = Stacked::new();
    let action = 0i64;
    let step = |frame: &'static [u8; 2]| FrameStep {
        action: bytemuck::bytes_of(&action),
        reward: 1.0,
        next_frame: frame,
        terminated: false,
        truncated: false,
    };
    buffer.stream.begin(&[1; 2]).unwrap();
    buffer.stream.step(step(&[2; 2])).unwrap();
    assert_eq!((buffer.stream.open_steps(), buffer.rows.inserted()), (1, 0));
    buffer.stream.begin(&[3; 2]).unwrap();
    assert_eq!(buffer.stream.open_steps(), 0);
    buffer.stream.step(step(&[4; 2])).unwrap();
    assert_eq!((buffer.stream.open_steps(), buffer.rows.inserted()), (1, 0));
}

#[test]
fn stacks_go_on_from_a_saved_buffer() {
    let (mut whole, mut rng) = (Stacked::new(), Rng::seed_from_u64(4));
    for steps in [40, 7, 100] {
        (0..steps).for_each(|_| drop(whole.step(&mut rng)));
        // Not with an episode at its beginning, where there is no stack to go on with.
        while !whole.open {
            whole.step(&mut rng);
        }
        let saved = MemoryState::save(|v| whole.visit(v)).unwrap();
        let mut resumed = Stacked::new();
        saved.load(|v| resumed.visit(v)).unwrap();
        resumed.open = true;
        assert!(resumed.replay.live().start > 0 && resumed.replay.live() == whole.replay.live());
        let mut same = rng.clone();
        for step in 0..80 {
            assert_eq!(whole.step(&mut rng), resumed.step(&mut same), "step {step} after {steps}");
        }
    }
}

#[test]
fn mistakes_are_one_line() {
    let inlet = inlet(16);
    let refused = |settings: DeviceReplaySettings| {
        let text = DeviceReplay::new(&settings, &inlet, &mut Rng::seed_from_u64(0), Device::Cpu)
            .unwrap_err()
            .to_string();
        assert!(!text.contains('\n'), "{text}");
        text
    };
    assert!(refused(settings(0, 8, 1)).contains("capacity is 0"));
    assert!(refused(settings(100, 8, 17)).contains("block_rows is 17"));
    let none = Some(Prioritized { alpha: 0.6, epsilon: 0.0 });
    assert!(
        refused(DeviceReplaySettings { prioritized: none, ..settings(100, 8, 1) }).contains("epsilon is 0")
    );

    let mut replay = device(&settings(100, 8, 1), &inlet);
    assert!(replay.draw(1.0).unwrap_err().to_string().contains("no row") || replay.is_empty());
    (0..40).for_each(|i| push(&inlet, i));
    let text = replay.take_in().unwrap_err().to_string();
    assert!(text.contains("take_in") && text.contains("16 rows"), "{text}");

    let (inlet, other) = (self::inlet(16), self::inlet(16));
    let mut replay = device(&prioritized(100, 8, 1), &inlet);
    fill(&mut replay, &inlet, 0..50);
    let saved = MemoryState::save(|v| replay.visit(v)).unwrap();
    // Rows came in after the draw: a row's place may be another's.
    replay.draw(1.0).unwrap();
    fill(&mut replay, &inlet, 50..51);
    let before = replay.priorities();
    let text = replay
        .update_priorities(&Tensor::full([8], 9.0, (Kind::Float, Device::Cpu)))
        .unwrap_err()
        .to_string();
    assert!(text.contains("since the batch was drawn") && !text.contains('\n'), "{text}");
    assert_eq!(replay.priorities(), before);
    // The buffer's state without its inlet's.
    let mut resumed = device(&prioritized(100, 8, 1), &other);
    saved.load(|v| resumed.visit(v)).unwrap();
    let text = resumed.take_in().unwrap_err().to_string();
    assert!(text.contains("load the inlet's state") && !text.contains('\n'), "{text}");
}

/// What a tree of each height costs on this machine; prints a table for docs/benchmarks.md.
#[test]
#[ignore = "measures; takes a minute"]
fn heights_measured() {
    for capacity in [100_000usize, 1_000_000, 10_000_000] {
        for batch in [64, 256] {
            let small = Schema::transition((Dtype::F32, &[1]), (Dtype::I64, &[])).unwrap();
            let inlet = Replay::builder(small).capacity(65_536).build().unwrap();
            let mut replays: Vec<DeviceReplay> = (1..=3)
                .map(|height| {
                    let settings =
                        DeviceReplaySettings { block_rows: 50_000, ..prioritized(capacity, batch, height) };
                    device(&settings, &inlet)
                })
                .collect();
            let rows = vec![0u8; 50_000 * 8];
            for _ in 0..capacity / 50_000 {
                inlet
                    .writer()
                    .push_rows(
                        50_000,
                        &[&rows[..200_000], &rows, &rows[..200_000], &rows[..200_000], &rows[..200_000]],
                    )
                    .unwrap();
                replays.iter_mut().for_each(|replay| replay.take_in().unwrap());
            }
            let delta = Tensor::rand([batch as i64], (Kind::Float, Device::Cpu));
            let mut times = vec![Vec::new(); 3];
            for _ in 0..15 {
                for (replay, times) in replays.iter_mut().zip(&mut times) {
                    let started = std::time::Instant::now();
                    for _ in 0..4 {
                        replay.draw(0.4).unwrap();
                        replay.update_priorities(&delta).unwrap();
                    }
                    times.push(started.elapsed().as_secs_f64() / 4.0 * 1e6);
                }
            }
            let median = |times: &mut Vec<f64>| {
                times.sort_by(f64::total_cmp);
                times[times.len() / 2]
            };
            let medians: Vec<String> = times.iter_mut().map(|t| format!("{:.0}", median(t))).collect();
            println!("{capacity} rows, batch {batch}: heights 1, 2, 3: {} µs", medians.join(", "));
        }
    }
}
