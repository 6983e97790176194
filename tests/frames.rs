//! What is learned from is what was acted on: stacks that the replay buffer puts together from frames stored once are those that the agent
//! saw, across ends of episodes, truncations, n steps, several environments, the ring coming around, and resumption.

use rl_envs::{Action, Dtype, Env, EnvError, EnvSpec, ObsMut, Outcome, Scene, Space, VecEnv, make};
use rl_learn::{Device, Learner, MemoryState, Tensor};
use rl_replay::{Batch, Drawn, WhenLimited};
use rl_train::config::{Config, Layers, resolve};
use rl_train::replay::Buffer;
use rl_train::rollout::Rollout;
use rl_train::wiring::{Stream, rng, spaces};
use std::collections::HashMap;

const ENVS: usize = 3;
/// Of a frame, of two channels.
const SHAPE: [usize; 3] = [2, 3, 1];
const FRAME: usize = 6;

/// Shows frames that tell which environment they are of, how many it has shown, and which episode it is.
struct Pictures {
    spec: EnvSpec,
    number: u8,
    shown: u16,
    episode: u16,
    left: u16,
}

impl Pictures {
    fn new(number: u8) -> Self {
        let observation = Space::Box {
            dtype: Dtype::U8,
            low: vec![0.0; FRAME],
            high: vec![255.0; FRAME],
            shape: SHAPE.to_vec(),
        };
        let action = Space::Discrete { n: 1 << 20 };
        let spec = EnvSpec { observation, action, ..make("MinAtar/Breakout-v1").unwrap().spec().clone() };
        Self { spec, number, shown: 0, episode: 0, left: 0 }
    }

    fn show(&mut self, obs: ObsMut<'_>) {
        let ObsMut::U8(obs) = obs else { panic!("frames are bytes") };
        self.shown += 1;
        let ([a, b], [c, d]) = (self.shown.to_be_bytes(), self.episode.to_be_bytes());
        obs.copy_from_slice(&[self.number, a, b, c, d, 7]);
    }
}

impl Env for Pictures {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, _: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        self.episode += 1;
        self.left = 1 + (self.episode * 7 + u16::from(self.number) * 3) % 23;
        self.show(obs);
        Ok(())
    }

    fn step(&mut self, _: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        self.left -= 1;
        self.show(obs);
        let ended = self.left == 0;
        let terminated = ended && self.episode.is_multiple_of(3);
        // More than the cut, and less.
        let reward = if self.shown.is_multiple_of(2) { 5.0 } else { -0.25 };
        Ok(Outcome { reward, terminated, truncated: ended && !terminated })
    }

    fn save(&self) -> Vec<u8> {
        [self.shown, self.episode, self.left].iter().flat_map(|n| n.to_ne_bytes()).collect()
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        let mut numbers = bytes.chunks_exact(2).map(|n| u16::from_ne_bytes(n.try_into().unwrap()));
        [self.shown, self.episode, self.left] = [(); 3].map(|()| numbers.next().unwrap());
        Ok(())
    }

    fn scene(&self) -> Option<Scene> {
        None
    }
}

/// A frame's environment, its number there, and its episode.
fn read(frame: &[u8]) -> (u8, u16, u16) {
    (frame[0], u16::from_be_bytes([frame[1], frame[2]]), u16::from_be_bytes([frame[3], frame[4]]))
}

/// The stack that ends with the frame `shown` of an episode that began with the frame `first`, by the rule alone.
fn expected(k: usize, (number, shown, episode): (u8, u16, u16), first: u16) -> Vec<u8> {
    let frame = |back: u16| {
        let ([a, b], [c, d]) = (shown.saturating_sub(back).max(first).to_be_bytes(), episode.to_be_bytes());
        [number, a, b, c, d, 7]
    };
    (0..k as u16).rev().flat_map(frame).collect()
}

struct Run {
    config: Config,
    buffer: Buffer,
    rollout: Rollout,
    learner: Learner,
    /// Of each frame that was acted on, the action.
    actions: HashMap<(u8, u16), i64>,
    steps: i64,
}

/// What a batch holds: obs, next_obs, action, reward, discount.
type Row = (Vec<u8>, Vec<u8>, i64, f32, f32);

impl Run {
    fn new(config: &Config) -> Self {
        let mut envs = VecEnv::new((0..ENVS).map(|i| Pictures::new(i as u8)).collect()).unwrap();
        envs.reset(0).unwrap();
        let buffer = Buffer::new(config, &spaces(envs.spec()).unwrap()).unwrap();
        let rollout = Rollout::new(config, envs, &buffer).unwrap();
        let learner = buffer.learner(config, WhenLimited::Block, Device::Cpu).unwrap();
        let (config, actions) = (config.clone(), HashMap::new());
        Self { config, buffer, rollout, learner, actions, steps: 0 }
    }

    /// One step of every environment; what is acted on has to be as the rule says.
    fn step(&mut self, firsts: &mut HashMap<(u8, u16), u16>) {
        let k = self.config.frame_stack;
        let seen = self.rollout.observations();
        let shape: Vec<i64> = [ENVS, k].into_iter().chain(SHAPE).map(|n| n as i64).collect();
        assert_eq!(seen.size(), shape);
        let seen = Vec::<u8>::try_from(seen.reshape([-1])).unwrap();
        for (env, stack) in seen.chunks_exact(k * FRAME).enumerate() {
            let newest = read(&stack[(k - 1) * FRAME..]);
            // The first frame acted on of an episode is its first.
            let first = *firsts.entry((newest.0, newest.2)).or_insert(newest.1);
            assert_eq!(stack, expected(k, newest, first), "environment {env} acts on another stack");
            self.actions.insert((newest.0, newest.1), self.steps);
        }
        let actions = self.rollout.step(&Tensor::from_slice(&[self.steps; ENVS])).unwrap();
        self.rollout.insert(&actions, |_, (total, _)| assert!(total > 0.0 || total == -0.25)).unwrap();
        if let Some(replay) = self.learner.device_replay() {
            replay.take_in().unwrap();
        }
        self.steps += 1;
    }

    fn draw(&mut self, batches: usize) -> Vec<Row> {
        let rows = self.config.train.batch_size;
        let mut drawn = Vec::new();
        for seed in 0..batches as u64 {
            let columns: [Vec<u8>; 2];
            let (action, reward, discount): (Vec<i64>, Vec<f32>, Vec<f32>);
            if let Some(replay) = self.learner.device_replay() {
                let (_, batch) = replay.draw(1.0).unwrap();
                columns = ["obs", "next_obs"].map(|n| Vec::try_from(batch[n].reshape([-1])).unwrap());
                action = Vec::try_from(&batch["action"]).unwrap();
                [reward, discount] = ["reward", "discount"].map(|n| Vec::try_from(&batch[n]).unwrap());
            } else {
                let transitions = self.buffer.transitions().unwrap();
                let mut reader = transitions.sampler();
                let (mut batch, mut keys) = (Batch::new(transitions.schema(), rows), Drawn::default());
                let mut rng = rng(seed, Stream::Sampling);
                reader.sample_into(&mut rng, rows, &mut batch.view_mut(), &mut keys).unwrap();
                let views = reader.views();
                columns = [views.obs, views.next_obs]
                    .map(|view| view.rows::<u8>(&batch).unwrap().flatten().copied().collect());
                action = batch.typed::<i64>("action").unwrap().to_vec();
                [reward, discount] = ["reward", "discount"].map(|n| batch.typed::<f32>(n).unwrap().to_vec());
            }
            let bytes = self.config.frame_stack * FRAME;
            let [obs, next] = columns.map(|c| c.chunks_exact(bytes).map(<[u8]>::to_vec).collect::<Vec<_>>());
            drawn.extend(
                (0..rows).map(|i| (obs[i].clone(), next[i].clone(), action[i], reward[i], discount[i])),
            );
        }
        drawn
    }

    /// Every row has stacks as the rule says, the action that was taken there, and rewards that were cut.
    fn check(&mut self, firsts: &HashMap<(u8, u16), u16>) -> usize {
        let (k, n) = (self.config.frame_stack, self.config.replay.n_step as u16);
        let mut short = 0;
        for (obs, next, action, reward, discount) in self.draw(30) {
            let newest = |stack: &[u8]| read(&stack[(k - 1) * FRAME..]);
            let (from, to) = (newest(&obs), newest(&next));
            assert_eq!((from.0, from.2), (to.0, to.2), "a row goes from one episode into another");
            let first = firsts[&(from.0, from.2)];
            assert_eq!(obs, expected(k, from, first));
            assert_eq!(next, expected(k, to, first));
            assert_eq!(self.actions[&(from.0, from.1)], action);
            let length = 1 + (from.2 * 7 + u16::from(from.0) * 3) % 23;
            let last = first + length;
            assert_eq!(to.1, (from.1 + n).min(last));
            short += usize::from(to.1 - from.1 < n);
            let rewards = (from.1 + 1..=to.1).map(|shown| if shown.is_multiple_of(2) { 1.0 } else { -0.25 });
            let total: f64 = rewards.enumerate().map(|(i, r)| 0.5f64.powi(i as i32) * r).sum();
            assert!((f64::from(reward) - total).abs() < 1e-6, "{reward} and not {total}");
            let terminated = to.1 == last && from.2.is_multiple_of(3);
            let bootstrap = if terminated { 0.0 } else { 0.5f32.powi(i32::from(to.1 - from.1)) };
            assert_eq!(discount, bootstrap);
        }
        short
    }

    fn state(&mut self) -> MemoryState {
        MemoryState::save(|v| {
            rl_learn::scope(v, "buffer", |v| self.buffer.visit(v))?;
            rl_learn::scope(v, "learner", |v| self.learner.visit(v))?;
            self.rollout.visit_streams(v)?;
            self.rollout.visit_envs(v)
        })
        .unwrap()
    }

    fn resumed(&mut self) -> Self {
        let state = self.state();
        let mut run = Self::new(&self.config);
        (run.steps, run.actions) = (self.steps, self.actions.clone());
        state
            .load(|v| {
                rl_learn::scope(v, "buffer", |v| run.buffer.visit(v))?;
                rl_learn::scope(v, "learner", |v| run.learner.visit(v))?;
                run.rollout.visit_streams(v)?;
                run.rollout.visit_envs(v)
            })
            .unwrap();
        run
    }
}

fn config(settings: &[String]) -> Config {
    let fixed = [
        "algo='dqn'",
        "env='MinAtar/Breakout-v1'",
        "train.num_envs=3",
        "train.batch_size=16",
        "train.clip_reward=1.0",
        "replay.capacity=200",
        "replay.gamma=0.5",
        "replay.block_rows=1",
    ];
    let set: Vec<String> = fixed.iter().map(|s| s.to_string()).chain(settings.iter().cloned()).collect();
    resolve(&Layers { file: None, set: &set, flags: Vec::new() }).unwrap()
}

#[test]
fn what_is_drawn_is_what_was_acted_on() {
    for device in ["host", "learner"] {
        for (k, n, prioritized) in [(4, 1, false), (2, 3, true), (3, 1, true), (5, 4, false)] {
            let settings = [
                format!("frame_stack={k}"),
                format!("replay.n_step={n}"),
                format!("replay.prioritized={prioritized}"),
                format!("replay.device='{device}'"),
            ];
            let config = config(&settings);
            let (mut run, mut firsts, mut short) = (Run::new(&config), HashMap::new(), 0);
            for _ in 0..30 {
                (0..11).for_each(|_| run.step(&mut firsts));
                short += run.check(&firsts);
            }
            // 990 rows through a ring of 200.
            assert!(run.buffer.inserted() > 900);
            assert_eq!(short > 0, n > 1, "rows of fewer steps, at ends of episodes");
            // In the middle of episodes: what goes on is the same run, and draws the same.
            let mut resumed = run.resumed();
            assert_eq!(run.state().differences(&resumed.state()), Vec::<String>::new());
            for _ in 0..5 {
                for run in [&mut run, &mut resumed] {
                    (0..7).for_each(|_| run.step(&mut firsts));
                    run.check(&firsts);
                }
                assert_eq!(run.draw(3), resumed.draw(3));
                assert_eq!(run.state().differences(&resumed.state()), Vec::<String>::new());
            }
        }
    }
}

/// A frame is there once, not 2k times; and what would not fit is refused in a line that says so.
#[test]
fn a_frame_takes_its_memory_once() {
    let spec = make("MinAtar/Breakout-v1").unwrap().spec().clone();
    let spaces = spaces(&spec).unwrap();
    let bytes = |stack: usize| {
        let config = config(&[format!("frame_stack={stack}"), "replay.capacity=100000".to_string()]);
        Buffer::new(&config, &spaces).unwrap().bytes() as f64
    };
    // 400 bytes a frame; a row names five frames with 4 bytes each, and has 16 bytes of action, reward and discount.
    let per_row = bytes(4) / 1e5;
    assert!((436.0..470.0).contains(&per_row), "{per_row} bytes a row");
    assert!(bytes(1) / 1e5 > 800.0);
    let config = config(&["frame_stack=4".to_string(), "replay.capacity=2000000000".to_string()]);
    let error = Buffer::new(&config, &spaces).unwrap_err().to_string();
    assert!(
        error.starts_with("replay: a buffer of 2000000000 rows needs ")
            && error.contains("lower the capacity")
    );
    assert!(!error.contains('\n'), "{error}");
}
