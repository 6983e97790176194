//! Wrappers: what Gymnasium's make of the same observations, recorded by tests/golden/wrappers.py of the workspace, and what
//! they promise beyond.

use rl_envs::{
    Action, Arcade, CartPole, ClipReward, Dtype, Env, EnvError, EnvSpec, EpisodeRecord, EpisodeStatistics,
    EpisodicLife, FireReset, FlattenObservation, FrameStack, Grayscale, MaxAndSkip, NoopReset,
    NormalizeObservation, NormalizeReward, Obs, ObsMut, Outcome, Padding, Pendulum, RescaleAction, Resize,
    RunningMeanStd, Scene, Space, TimeLimit,
};
use serde_json::Value;

fn golden() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/wrappers.json");
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

#[derive(Clone, Debug, Default)]
struct Playing {
    observations: Vec<Vec<f64>>,
    rewards: Vec<f64>,
    terminates: bool,
    /// Lives left after each step; none are counted where it is empty.
    lives: Vec<u32>,
}

/// Plays given episodes, one after the other and round again. Its state is where it stands.
#[derive(Clone, Debug)]
struct Script {
    spec: EnvSpec,
    episodes: Vec<Playing>,
    meanings: Vec<&'static str>,
    episode: usize,
    t: Option<usize>,
    resets: usize,
    actions: Vec<Vec<f32>>,
}

impl Script {
    fn new(observation: Space, action: Space, episodes: Vec<Playing>) -> Self {
        let id = "Script-v0".to_string();
        let spec = EnvSpec { id, observation, action, max_episode_steps: None, reward_threshold: None };
        let meanings = vec!["NOOP", "FIRE", "UP"];
        Self { spec, episodes, meanings, episode: usize::MAX, t: None, resets: 0, actions: Vec::new() }
    }

    fn playing(&self) -> &Playing {
        &self.episodes[self.episode % self.episodes.len()]
    }

    fn observe(&self, obs: ObsMut<'_>) {
        let values = &self.playing().observations[self.t.unwrap()];
        match obs {
            ObsMut::F32(obs) => obs.iter_mut().zip(values).for_each(|(o, v)| *o = *v as f32),
            ObsMut::U8(obs) => obs.iter_mut().zip(values).for_each(|(o, v)| *o = *v as u8),
        }
    }
}

impl Env for Script {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        self.episode = if seed.is_some() { 0 } else { self.episode.wrapping_add(1) };
        self.t = Some(0);
        self.resets += 1;
        self.observe(obs);
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        let t = self.t.ok_or(EnvError::NotReset { env: self.spec.id.clone() })?;
        action.check(&self.spec)?;
        self.actions.push(match action {
            Action::Box(values) => values.to_vec(),
            Action::Discrete(action) => vec![action as f32],
            Action::MultiBinary(_) => unreachable!(),
        });
        let steps = self.playing().rewards.len();
        if t == steps {
            return Err(EnvError::Ended { env: self.spec.id.clone() });
        }
        self.t = Some(t + 1);
        self.observe(obs);
        let (reward, last, terminates) =
            (self.playing().rewards[t], t + 1 == steps, self.playing().terminates);
        Ok(Outcome { reward, terminated: last && terminates, truncated: last && !terminates })
    }

    fn save(&self) -> Vec<u8> {
        let t = self.t.map_or(255, |t| t as u8);
        vec![self.episode as u8, t]
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        let &[episode, t] = bytes else {
            return Err(EnvError::Saved { env: self.spec.id.clone(), len: bytes.len(), why: "two".into() });
        };
        self.episode = if episode == 255 { usize::MAX } else { episode.into() };
        self.t = (t != 255).then_some(t.into());
        Ok(())
    }

    fn scene(&self) -> Option<Scene> {
        None
    }
}

impl Arcade for Script {
    fn lives(&self) -> u32 {
        self.t.filter(|t| *t > 0).map_or(3, |t| self.playing().lives.get(t - 1).copied().unwrap_or(3))
    }

    fn action_meanings(&self) -> &[&str] {
        &self.meanings
    }
}

/// All that is seen of `episodes` episodes under action 0, reset observations first.
fn play(env: &mut dyn Env, episodes: usize) -> Vec<(Vec<Vec<f64>>, Vec<f64>)> {
    let spec = env.spec().clone();
    let (mut floats, mut small) =
        (vec![0f32; spec.observation.elements()], vec![0u8; spec.observation.elements()]);
    let mut call = |env: &mut dyn Env, reset: bool| {
        let obs = match spec.observation.dtype() {
            Dtype::F32 => ObsMut::F32(&mut floats),
            Dtype::U8 => ObsMut::U8(&mut small),
        };
        let outcome = match reset {
            true => env.reset(None, obs).map(|()| Outcome::default()),
            false => env.step(Action::Discrete(0), obs),
        };
        let seen: Vec<f64> = match spec.observation.dtype() {
            Dtype::F32 => floats.iter().map(|v| f64::from(*v)).collect(),
            Dtype::U8 => small.iter().map(|v| f64::from(*v)).collect(),
        };
        (seen, outcome.unwrap())
    };
    let mut all = Vec::new();
    for _ in 0..episodes {
        let (mut observations, mut rewards) = (vec![call(env, true).0], Vec::new());
        loop {
            let (seen, outcome) = call(env, false);
            observations.push(seen);
            rewards.push(outcome.reward);
            if outcome.ended() {
                break;
            }
        }
        all.push((observations, rewards));
    }
    all
}

fn boxed(dtype: Dtype, shape: &[usize]) -> Space {
    let n = shape.iter().product();
    let (low, high) = match dtype {
        Dtype::F32 => (f32::NEG_INFINITY, f32::INFINITY),
        Dtype::U8 => (0.0, 255.0),
    };
    Space::Box { dtype, low: vec![low; n], high: vec![high; n], shape: shape.to_vec() }
}

fn scripted(case: &Value) -> Script {
    let dtype = if case["dtype"] == "uint8" { Dtype::U8 } else { Dtype::F32 };
    let playing = |episode: &Value| Playing {
        observations: list(&episode["observations"]).iter().map(numbers).collect(),
        rewards: numbers(&episode["rewards"]),
        terminates: episode["end"] == "t",
        lives: Vec::new(),
    };
    let episodes = list(&case["script"]).iter().map(playing).collect();
    Script::new(boxed(dtype, &[3]), Space::Discrete { n: 2 }, episodes)
}

#[track_caller]
fn assert_seen(what: &str, env: &mut dyn Env, seen: &Value, tolerance: f64) {
    let close = |got: f64, expected: f64| (got - expected).abs() <= tolerance * expected.abs().max(1.0);
    let played = play(env, 3);
    for (episode, ((observations, rewards), expected)) in played.iter().zip(list(seen)).enumerate() {
        assert_eq!(observations.len(), list(&expected["observations"]).len(), "{what}, episode {episode}");
        for (t, (got, expected)) in observations.iter().zip(list(&expected["observations"])).enumerate() {
            // Recorded as the shortest decimals of f32 values, but for bytes.
            let expected = numbers(expected).into_iter().map(|v| f64::from(v as f32));
            for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
                assert!(
                    close(*got, expected),
                    "{what}, {episode}, step {t}, value {i}: {got}, not {expected}"
                );
            }
        }
        for (t, (got, expected)) in rewards.iter().zip(numbers(&expected["rewards"])).enumerate() {
            let close = (got - expected).abs() <= 1e-12 * expected.abs().max(1.0);
            assert!(close, "{what}, {episode}, reward {t}: {got}, not {expected}");
        }
    }
}

#[test]
fn scripts_come_out_as_gymnasium_has_them() {
    for case in list(&golden()["scripted"]) {
        let (new, seen) = (|| scripted(case), &case["seen"]);
        let stacked = |padding| FrameStack::new(new(), 4, padding).unwrap();
        assert_seen("first", &mut stacked(Padding::First), &seen["frame_stack_first"], 0.0);
        assert_seen("zero", &mut stacked(Padding::Zero), &seen["frame_stack_zero"], 0.0);
        // Gymnasium's statistics are f32.
        let mut normalized = NormalizeObservation::new(new(), 1e-8).unwrap();
        assert_seen("normalized", &mut normalized, &seen["normalize_observation"], 2e-3);
        let mut rewards = NormalizeReward::new(new(), 0.99, 1e-8).unwrap();
        assert_seen("rewards", &mut rewards, &seen["normalize_reward"], 0.0);
        let mut rewards = NormalizeReward::new(new(), 0.5, 0.1).unwrap();
        assert_seen("rewards, 0.5", &mut rewards, &seen["normalize_reward_half"], 0.0);
        assert_seen("clip", &mut ClipReward::new(new(), -1.0, 1.0).unwrap(), &seen["clip_reward"], 0.0);
        let mut below = ClipReward::new(new(), -0.5, f64::INFINITY).unwrap();
        assert_seen("clip below", &mut below, &seen["clip_reward_below"], 0.0);
        assert_seen_but_ends(&mut MaxAndSkip::new(new(), 3).unwrap(), &seen["max_and_skip_3"]);

        let mut statistics = EpisodeStatistics::with_room(new(), 2);
        play(&mut statistics, 3);
        let (returns, lengths) = (numbers(&case["returns"]), numbers(&case["lengths"]));
        let expected =
            returns.iter().zip(lengths).map(|(r, l)| EpisodeRecord { total: *r, length: l as u64 });
        assert_eq!(statistics.episodes().collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        assert_eq!(statistics.count(), 3);
    }
}

/// Compares all but the last observation of an episode that ends amid the skipped frames, where Gymnasium shows the maximum of
/// frames of the step before, and this one that of the episode's own last two.
#[track_caller]
fn assert_seen_but_ends(env: &mut MaxAndSkip<Script>, seen: &Value) {
    let script = env.inner().clone();
    for (episode, ((observations, rewards), expected)) in play(env, 3).iter().zip(list(seen)).enumerate() {
        assert_eq!(observations.len(), list(&expected["observations"]).len());
        for (t, (got, expected)) in observations.iter().zip(list(&expected["observations"])).enumerate() {
            let expected: Vec<f64> = numbers(expected).into_iter().map(|v| f64::from(v as f32)).collect();
            let frames = &script.episodes[episode].observations;
            if 3 * t < frames.len() {
                assert_eq!(*got, expected, "episode {episode}, step {t}");
            } else {
                let [.., before, last] = &frames[..] else { panic!("two frames") };
                // A step of one frame shows that frame.
                let alone = (frames.len() - 1) % 3 == 1;
                let greatest = before.iter().zip(last).map(|(b, l)| if alone { *l } else { b.max(*l) });
                assert_eq!(*got, greatest.map(|v| f64::from(v as f32)).collect::<Vec<_>>());
            }
        }
        for (got, expected) in rewards.iter().zip(numbers(&expected["rewards"])) {
            assert!((got - expected).abs() <= 1e-12 * expected.abs().max(1.0));
        }
    }
}

#[test]
fn actions_are_rescaled_to_the_bit() {
    for case in list(&golden()["rescaled"]) {
        let bounds = |key: &str| -> Vec<f32> { numbers(&case[key]).iter().map(|v| *v as f32).collect() };
        let (low, high) = (bounds("low"), bounds("high"));
        let shape = vec![low.len()];
        let space = Space::Box { dtype: Dtype::F32, low, high, shape };
        let given: Vec<Vec<f32>> =
            list(&case["given"]).iter().map(|v| numbers(v).iter().map(|v| *v as f32).collect()).collect();
        let playing =
            Playing { observations: vec![vec![0.0]; 99], rewards: vec![0.0; 98], ..Playing::default() };
        let script = Script::new(boxed(Dtype::F32, &[1]), space, vec![playing]);
        let new = numbers(&case["new"]);
        let mut env = RescaleAction::new(script, new[0] as f32, new[1] as f32).unwrap();
        let mut obs = [0.0];
        env.reset(None, ObsMut::F32(&mut obs)).unwrap();
        for action in &given {
            env.step(Action::Box(action), ObsMut::F32(&mut obs)).unwrap();
        }
        for (t, (got, expected)) in env.inner().actions.iter().zip(list(&case["mapped"])).enumerate() {
            let expected: Vec<f32> = numbers(expected).iter().map(|v| *v as f32).collect();
            assert_eq!(*got, expected, "action {t} of {:?}", case["low"]);
        }
    }
}

/// The formula of tests/golden/wrappers.py.
fn image(shape: &[usize], flavor: u64) -> Vec<f64> {
    let n = shape.iter().product::<usize>() as u64;
    let pixel = |i: u64| {
        let mixed = ((i * 2_654_435_761 + flavor) % (1 << 32)) >> 13;
        match flavor {
            1 if mixed.is_multiple_of(3) => 255,
            1 => 0,
            2 => i * 255 / (n - 1).max(1),
            _ => mixed % 256,
        }
    };
    (0..n).map(|i| pixel(i) as f64).collect()
}

fn shown(shape: &[usize], image: Vec<f64>) -> Script {
    let playing = Playing { observations: vec![image], ..Playing::default() };
    Script::new(boxed(Dtype::U8, shape), Space::Discrete { n: 1 }, vec![playing])
}

fn first_frame(env: &mut dyn Env) -> Vec<u8> {
    let mut obs = vec![0; env.spec().observation.elements()];
    env.reset(None, ObsMut::U8(&mut obs)).unwrap();
    obs
}

fn sizes(value: &Value) -> Vec<usize> {
    numbers(value).iter().map(|v| *v as usize).collect()
}

#[test]
fn frames_are_resized_as_opencv_does() {
    for case in list(&golden()["images"]) {
        let (shape, size, flavor) =
            (sizes(&case["shape"]), sizes(&case["size"]), case["flavor"].as_u64().unwrap());
        let mut env = Resize::new(shown(&shape, image(&shape, flavor)), size[0], size[1]).unwrap();
        let (got, expected) = (first_frame(&mut env), bytes(&case["small"]));
        let wrong = got.iter().zip(&expected).filter(|(g, e)| g != e).count();
        let first = got.iter().zip(&expected).position(|(g, e)| g != e);
        assert_eq!(
            wrong,
            0,
            "{shape:?} to {size:?}, flavor {flavor}: the first at {first:?} of {}",
            got.len()
        );
        assert_eq!(got.len(), expected.len());
    }
}

#[test]
fn colors_become_the_grays_of_gymnasium() {
    for case in list(&golden()["grays"]) {
        let (shape, flavor) = (sizes(&case["shape"]), case["flavor"].as_u64().unwrap());
        let colors = match flavor {
            2 => (0..256).flat_map(|v| [f64::from(v); 3]).collect(),
            _ => image(&shape, flavor),
        };
        let mut env = Grayscale::new(shown(&shape, colors)).unwrap();
        assert_eq!(first_frame(&mut env), bytes(&case["gray"]), "{shape:?}, flavor {flavor}");
    }
}

#[test]
fn moments_of_batches_are_those_of_gymnasium() {
    let mut running = RunningMeanStd::new(2);
    for step in list(&golden()["moments"]) {
        running.update(&numbers(&step["batch"]));
        for (got, expected) in [(running.mean(), &step["mean"]), (running.variance(), &step["variance"])] {
            for (got, expected) in got.iter().zip(numbers(expected)) {
                assert!((got - expected).abs() <= 1e-9 * expected.abs(), "{got} and not {expected}");
            }
        }
    }
}
