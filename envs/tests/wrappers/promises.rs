//! What every wrapper promises: what it keeps is saved, what does not fit moves nothing, and what it cannot wrap it refuses.

use crate::images::image;
use crate::script::{Playing, Script, boxed, play};
use rl_envs::{
    Action, CartPole, ClipReward, Dtype, Env, EnvError, EpisodeStatistics, EpisodicLife, FireReset,
    FlattenObservation, FrameStack, Grayscale, MaxAndSkip, NoopReset, NormalizeObservation, NormalizeReward,
    Obs, ObsMut, Outcome, Padding, Pendulum, RescaleAction, Resize, Space, TimeLimit,
};

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
