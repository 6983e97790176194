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

fn lives(rewards: &[f64], lives: &[u32]) -> Playing {
    let observations = (0..=rewards.len()).map(|t| vec![t as f64]).collect();
    Playing { observations, rewards: rewards.to_vec(), terminates: true, lives: lives.to_vec() }
}

fn game(episodes: Vec<Playing>) -> Script {
    Script::new(boxed(Dtype::F32, &[1]), Space::Discrete { n: 3 }, episodes)
}

fn step(env: &mut dyn Env) -> (f32, Outcome) {
    let mut obs = [f32::NAN];
    let outcome = env.step(Action::Discrete(0), ObsMut::F32(&mut obs)).unwrap();
    (obs[0], outcome)
}

fn reset(env: &mut dyn Env, seed: Option<u64>) -> f32 {
    let mut obs = [f32::NAN];
    env.reset(seed, ObsMut::F32(&mut obs)).unwrap();
    obs[0]
}

#[test]
fn a_lost_life_ends_the_episode_and_not_the_game() {
    let mut env = EpisodicLife::new(game(vec![lives(&[1.0; 6], &[3, 2, 2, 2, 0, 0])]));
    assert_eq!(reset(&mut env, None), 0.0);
    assert!(!step(&mut env).1.ended());
    assert_eq!(step(&mut env), (2.0, Outcome { reward: 1.0, terminated: true, truncated: false }));
    let late = env.step(Action::Discrete(0), ObsMut::F32(&mut [0.0]));
    assert_eq!(late, Err(EnvError::Ended { env: "Script-v0".into() }));
    // One frame of nothing, and on it goes.
    assert_eq!((reset(&mut env, None), env.inner().resets), (3.0, 1));
    assert!(!step(&mut env).1.ended());
    // The last life: some games count it lost frames before they end, which is no end of an episode of its own.
    assert!(!step(&mut env).1.ended());
    assert!(step(&mut env).1.terminated);
    assert_eq!((reset(&mut env, None), env.inner().resets), (0.0, 2));
    // With a seed it is always a new game.
    step(&mut env);
    assert!(step(&mut env).1.terminated);
    assert_eq!((reset(&mut env, Some(1)), env.inner().resets), (0.0, 3));
    // The frame of nothing ends the game.
    let mut env = EpisodicLife::new(game(vec![lives(&[1.0; 2], &[2, 2])]));
    reset(&mut env, None);
    assert!(step(&mut env).1.terminated);
    assert_eq!((reset(&mut env, None), env.inner().resets), (0.0, 2));
}

#[test]
fn fire_is_pressed_and_the_button_after_it() {
    let mut env = FireReset::new(game(vec![lives(&[1.0; 9], &[])])).unwrap();
    assert_eq!(reset(&mut env, None), 2.0);
    assert_eq!(env.inner().actions, [[1.0], [2.0]]);
    // An episode that ends with FIRE: the other button follows the reset.
    let mut env = FireReset::new(game(vec![lives(&[1.0], &[]), lives(&[1.0; 9], &[])])).unwrap();
    assert_eq!((reset(&mut env, None), env.inner().resets), (1.0, 2));
    let mut still = game(vec![lives(&[1.0], &[])]);
    still.meanings = vec!["NOOP", "UP", "FIRE"];
    let error = FireReset::new(still).unwrap_err().to_string();
    assert!(error.contains("action 1 must be FIRE") && error.contains("NOOP, UP, FIRE"), "{error}");
}

#[test]
fn starts_are_put_off_by_every_number_of_frames_alike() {
    const MAX: u32 = 5;
    let mut env = NoopReset::new(game(vec![lives(&[1.0; 9], &[])]), MAX).unwrap();
    let first = reset(&mut env, Some(4));
    let after: Vec<f32> = (0..20).map(|_| reset(&mut env, None)).collect();
    assert_eq!(reset(&mut env, Some(4)), first);
    assert_eq!((0..20).map(|_| reset(&mut env, None)).collect::<Vec<_>>(), after);
    let mut counts = [0; MAX as usize];
    for _ in 0..5000 {
        counts[reset(&mut env, None) as usize - 1] += 1;
    }
    // Six deviations of a binomial count.
    assert!(counts.iter().all(|count| (1000 - 170..1000 + 170).contains(count)), "{counts:?}");
    // Episodes shorter than that are reset on the way.
    let mut short = NoopReset::new(game(vec![lives(&[1.0; 2], &[])]), 30).unwrap();
    assert!((0..50).all(|_| reset(&mut short, None) < 2.0));
    assert!(NoopReset::new(game(vec![]), 0).is_err());
}

#[test]
fn flat_observations_have_the_same_elements() {
    let playing = Playing { observations: vec![vec![3.0]; 3], rewards: vec![0.0; 2], ..Playing::default() };
    let script = |space, values: &[f64]| {
        let playing = Playing { observations: vec![values.to_vec(); 3], ..playing.clone() };
        FlattenObservation::new(Script::new(space, Space::Discrete { n: 1 }, vec![playing]))
    };
    let mut one_hot = script(Space::Discrete { n: 5 }, &[3.0]);
    assert_eq!(one_hot.spec().observation.to_string(), "Box(0.0, 1.0, (5,), float32)");
    assert_eq!(play(&mut one_hot, 1)[0].0, vec![vec![0.0, 0.0, 0.0, 1.0, 0.0]; 3]);
    let mut grid = script(boxed(Dtype::U8, &[2, 2]), &[1.0, 2.0, 3.0, 4.0]);
    assert_eq!(grid.spec().observation.to_string(), "Box(0, 255, (4,), uint8)");
    assert_eq!(play(&mut grid, 1)[0].0[2], [1.0, 2.0, 3.0, 4.0]);
    let mut switches = script(Space::MultiBinary { n: 2 }, &[1.0, 0.0]);
    assert_eq!(switches.spec().observation.to_string(), "Box(0, 1, (2,), uint8)");
    assert_eq!(play(&mut switches, 1)[0].0[0], [1.0, 0.0]);
}

/// Makes an environment.
type New = Box<dyn Fn() -> Box<dyn Env>>;

/// Every wrapper around something that it goes around.
fn every_wrapper() -> Vec<(&'static str, New)> {
    fn colors() -> Script {
        let frame = |t: u64| image(&[6, 8, 3], t + 3);
        let playing = |lives: &[u32]| Playing {
            observations: (0..30).map(frame).collect(),
            rewards: (0..29).map(f64::from).collect(),
            terminates: true,
            lives: lives.to_vec(),
        };
        Script::new(
            boxed(Dtype::U8, &[6, 8, 3]),
            Space::Discrete { n: 3 },
            vec![playing(&[3; 29]), playing(&[[3; 9].as_slice(), &[2; 20]].concat())],
        )
    }
    let pole = || TimeLimit::new(CartPole::new(), 40);
    vec![
        ("ClipReward", Box::new(move || Box::new(ClipReward::new(pole(), -1.0, 0.5).unwrap()))),
        ("EpisodeStatistics", Box::new(move || Box::new(EpisodeStatistics::with_room(pole(), 3)))),
        ("FlattenObservation", Box::new(|| Box::new(FlattenObservation::new(colors())))),
        ("FrameStack", Box::new(move || Box::new(FrameStack::new(pole(), 3, Padding::First).unwrap()))),
        ("FrameStack of bytes", Box::new(|| Box::new(FrameStack::new(colors(), 2, Padding::Zero).unwrap()))),
        (
            "NormalizeObservation",
            Box::new(move || Box::new(NormalizeObservation::new(pole(), 1e-8).unwrap())),
        ),
        ("NormalizeReward", Box::new(move || Box::new(NormalizeReward::new(pole(), 0.9, 1e-8).unwrap()))),
        ("EpisodicLife", Box::new(|| Box::new(EpisodicLife::new(colors())))),
        ("FireReset", Box::new(|| Box::new(FireReset::new(colors()).unwrap()))),
        ("NoopReset", Box::new(|| Box::new(NoopReset::new(colors(), 6).unwrap()))),
        ("MaxAndSkip", Box::new(move || Box::new(MaxAndSkip::new(pole(), 2).unwrap()))),
        ("Grayscale", Box::new(|| Box::new(Grayscale::new(colors()).unwrap()))),
        ("Resize", Box::new(|| Box::new(Resize::new(colors(), 4, 3).unwrap()))),
        (
            "RescaleAction",
            Box::new(|| {
                let env = TimeLimit::new(Pendulum::new(), 50);
                Box::new(RescaleAction::new(env, -1.0, 1.0).unwrap())
            }),
        ),
        (
            "the lot for Atari",
            Box::new(|| {
                let env = NoopReset::new(colors(), 4).unwrap();
                let env = MaxAndSkip::new(env, 4).unwrap();
                let env = FireReset::new(EpisodicLife::new(env)).unwrap();
                let env = Resize::new(Grayscale::new(env).unwrap(), 3, 5).unwrap();
                let env = ClipReward::new(env, -1.0, 1.0).unwrap();
                Box::new(FrameStack::new(env, 4, Padding::First).unwrap())
            }),
        ),
    ]
}

/// 200 steps with their resets: every observation and outcome.
fn run(env: &mut dyn Env, begin: bool) -> Vec<(Vec<f32>, Outcome)> {
    let (spec, mut seen, mut over) = (env.spec().clone(), Vec::new(), begin);
    let n = spec.observation.elements();
    for t in 0..200 {
        let (mut floats, mut small) = (vec![0.0; n], vec![0; n]);
        let obs = match spec.observation.dtype() {
            Dtype::F32 => ObsMut::F32(&mut floats),
            Dtype::U8 => ObsMut::U8(&mut small),
        };
        let value = [(f64::from(t) * 0.618).fract() as f32];
        let action = match &spec.action {
            Space::Discrete { n } => Action::Discrete(t as usize * 7 % n),
            _ => Action::Box(&value),
        };
        let outcome = match over {
            true => env.reset((t == 0).then_some(1), obs).map(|()| Outcome::default()),
            false => env.step(action, obs),
        };
        over = outcome.as_ref().unwrap().ended();
        let view = match spec.observation.dtype() {
            Dtype::F32 => Obs::F32(&floats),
            Dtype::U8 => Obs::U8(&small),
        };
        assert!(spec.observation.contains_obs(view), "{}: {view:?}", spec.id);
        seen.push((floats.into_iter().chain(small.into_iter().map(f32::from)).collect(), outcome.unwrap()));
    }
    seen
}

#[test]
fn what_a_wrapper_keeps_is_saved() {
    for (name, new) in every_wrapper() {
        let mut env = new();
        let mut first = run(&mut *env, true);
        // To the middle of an episode.
        while first.pop().unwrap().1.ended() {
            reset_any(&mut *env);
        }
        let saved = env.save();
        let expected = run(&mut *env, false);
        let mut other = new();
        other.load(&saved).unwrap();
        assert_eq!(other.save(), saved, "{name}");
        assert!(run(&mut *other, false) == expected, "{name} goes on otherwise");
        // A seed makes the same again, but for statistics, which go on.
        for bytes in [&saved[..saved.len() - 1], b"", b"nonsense"] {
            let before = other.save();
            assert!(matches!(other.load(bytes), Err(EnvError::Saved { .. })), "{name}");
            assert_eq!(other.save(), before, "{name}");
        }
    }
}

fn reset_any(env: &mut dyn Env) {
    let n = env.spec().observation.elements();
    match env.spec().observation.dtype() {
        Dtype::F32 => env.reset(None, ObsMut::F32(&mut vec![0.0; n])).unwrap(),
        Dtype::U8 => env.reset(None, ObsMut::U8(&mut vec![0; n])).unwrap(),
    }
}

#[test]
fn memory_that_does_not_fit_moves_nothing() {
    for (name, new) in every_wrapper() {
        let mut env = new();
        reset_any(&mut *env);
        let before = env.save();
        let n = env.spec().observation.elements();
        let (mut floats, mut small) = (vec![0.0; n + 1], vec![0; n + 1]);
        for obs in [ObsMut::F32(&mut floats), ObsMut::U8(&mut small)] {
            // The script does not look, so that the wrapper has to; wrappers that change no observation leave it to it.
            if name == "FrameStack of bytes"
                || name.contains("Normalize")
                || name == "Grayscale"
                || name == "Resize"
            {
                let error = env.reset(None, obs).unwrap_err();
                assert!(matches!(error, EnvError::Buffer { .. }), "{name}: {error}");
            }
        }
        assert_eq!(env.save(), before, "{name}");
    }
}

#[test]
fn frozen_statistics_stay() {
    let mut env = NormalizeObservation::new(TimeLimit::new(CartPole::new(), 9), 1e-8).unwrap();
    run(&mut env, true);
    let learned = env.running().clone();
    let mut evaluation = NormalizeObservation::new(TimeLimit::new(CartPole::new(), 9), 1e-8).unwrap();
    evaluation.set_running(learned.clone());
    evaluation.set_frozen(true);
    let mut obs = [0.0; 4];
    evaluation.reset(Some(3), ObsMut::F32(&mut obs)).unwrap();
    let mut raw = [0.0; 4];
    CartPole::new().reset(Some(3), ObsMut::F32(&mut raw)).unwrap();
    let mut expected = [0.0; 4];
    learned.normalize(&raw, 1e-8, &mut expected);
    assert_eq!((obs, evaluation.running()), (expected, &learned));

    let mut env = NormalizeReward::new(TimeLimit::new(Pendulum::new(), 9), 0.99, 1e-8).unwrap();
    run(&mut env, true);
    env.set_frozen(true);
    let learned = env.running().clone();
    run(&mut env, true);
    assert_eq!((env.running(), env.frozen()), (&learned, true));
}

#[test]
fn what_cannot_be_wrapped_is_refused_in_a_line() {
    let discrete = || Script::new(Space::Discrete { n: 2 }, Space::Discrete { n: 2 }, vec![]);
    let gray = || Script::new(boxed(Dtype::U8, &[6, 8]), Space::Discrete { n: 2 }, vec![]);
    let errors = [
        ClipReward::new(CartPole::new(), 1.0, -1.0).err(),
        ClipReward::new(CartPole::new(), f64::NAN, 1.0).err(),
        FrameStack::new(CartPole::new(), 0, Padding::First).err(),
        FrameStack::new(discrete(), 2, Padding::First).err(),
        NormalizeObservation::new(discrete(), 1e-8).err(),
        NormalizeObservation::new(CartPole::new(), 0.0).err(),
        NormalizeReward::new(CartPole::new(), 1.1, 1e-8).err(),
        NormalizeReward::new(CartPole::new(), 0.9, f64::NAN).err(),
        RescaleAction::new(CartPole::new(), -1.0, 1.0).err(),
        RescaleAction::new(Pendulum::new(), 1.0, 1.0).err(),
        MaxAndSkip::new(CartPole::new(), 1).err(),
        MaxAndSkip::new(discrete(), 2).err(),
        Grayscale::new(gray()).err(),
        Resize::new(gray(), 7, 8).err(),
        Resize::new(gray(), 0, 8).err(),
        Resize::new(CartPole::new(), 1, 1).err(),
    ];
    for (i, error) in errors.into_iter().enumerate() {
        let Some(EnvError::Wrapper { .. }) = &error else { panic!("number {i}: {error:?}") };
        let text = error.unwrap().to_string();
        assert!(text.contains(" cannot wrap ") && !text.contains('\n'), "{text}");
    }
}
