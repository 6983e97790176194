//! What every registered environment promises, whichever it is.

use proptest::prelude::*;
use rl_envs::{Action, Dtype, Env, EnvError, EnvSpec, Obs, ObsMut, Outcome, Space, make};

/// Those with observations of f32 that are always there; tests/minatar.rs has those of bytes, and features have tests of their own.
fn specs() -> impl Iterator<Item = EnvSpec> {
    let own = rl_envs::listings().into_iter().filter(|listing| listing.feature.is_none());
    own.map(|listing| listing.spec).filter(|spec| spec.observation.dtype() == Dtype::F32)
}

/// An action for any environment here, from a number in 0..1; a box action reaches half as far again as its bounds.
fn act<'a>(space: &Space, share: f64, values: &'a mut Vec<f32>) -> Action<'a> {
    match space {
        Space::Discrete { n } => Action::Discrete(((share * *n as f64) as usize).min(n - 1)),
        Space::Box { low, high, .. } => {
            let value = |(low, high): (&f32, &f32)| 1.5 * (low + (high - low) * share as f32);
            *values = low.iter().zip(high).map(value).collect();
            Action::Box(values)
        }
        Space::MultiBinary { .. } => unreachable!("no environment here has switches"),
    }
}

/// Some numbers in 0..1 without a generator: multiples of the golden ratio.
fn shares(count: usize) -> impl Iterator<Item = f64> {
    (1..=count).map(|i| (i as f64 * 0.618_033_988_749_895).fract())
}

/// Steps `env` to its end or until the shares run out; every observation and outcome on the way.
fn run(env: &mut dyn Env, shares: impl Iterator<Item = f64>) -> Vec<(Vec<f32>, Outcome)> {
    let spec = env.spec().clone();
    let (mut obs, mut values) = (vec![0.0; spec.observation.elements()], Vec::new());
    let mut steps = Vec::new();
    for share in shares {
        let outcome = env.step(act(&spec.action, share, &mut values), ObsMut::F32(&mut obs)).unwrap();
        steps.push((obs.clone(), outcome));
        if outcome.ended() {
            break;
        }
    }
    steps
}

fn reset(env: &mut dyn Env, seed: Option<u64>) -> Vec<f32> {
    let mut obs = vec![f32::NAN; env.spec().observation.elements()];
    env.reset(seed, ObsMut::F32(&mut obs)).unwrap();
    obs
}

#[test]
fn a_saved_state_resumes_bit_for_bit() {
    for spec in specs() {
        let mut env = make(&spec.id).unwrap();
        reset(&mut *env, Some(3));
        run(&mut *env, shares(7));
        let saved = env.save();
        let expected = run(&mut *env, shares(1000));
        // The generator is part of the state: the next episode starts the same, too.
        let next = reset(&mut *env, None);

        let mut other = make(&spec.id).unwrap();
        other.load(&saved).unwrap();
        assert_eq!(other.save(), saved, "{}", spec.id);
        let limit = spec.max_episode_steps.unwrap() as usize;
        assert!(expected.len() == limit - 7 || expected.last().unwrap().1.terminated, "{}", spec.id);
        assert_eq!(run(&mut *other, shares(1000)), expected, "{}: the time limit's count included", spec.id);
        assert_eq!(reset(&mut *other, None), next, "{}", spec.id);
    }
}

#[test]
fn a_state_after_the_end_or_before_the_start_is_saved_as_such() {
    for spec in specs() {
        let mut env = make(&spec.id).unwrap();
        let fresh = env.save();
        reset(&mut *env, Some(3));
        run(&mut *env, shares(1000));
        let ended = env.save();
        let (mut obs, mut values) = (vec![0.0; spec.observation.elements()], Vec::new());
        for (saved, expected) in [
            (ended, EnvError::Ended { env: spec.id.clone() }),
            (fresh, EnvError::NotReset { env: spec.id.clone() }),
        ] {
            env.load(&saved).unwrap();
            let step = env.step(act(&spec.action, 0.5, &mut values), ObsMut::F32(&mut obs));
            assert_eq!(step, Err(expected));
        }
    }
}

#[test]
fn bytes_of_another_kind_are_refused_and_change_nothing() {
    for spec in specs() {
        let mut env = make(&spec.id).unwrap();
        reset(&mut *env, Some(3));
        let saved = env.save();
        let other = specs().find(|other| other.id != spec.id).unwrap();
        let mut longer = saved.clone();
        longer.push(0);
        for bytes in
            [&make(&other.id).unwrap().save()[..], &saved[..saved.len() - 1], &longer, b"", b"nonsense"]
        {
            let error = env.load(bytes).unwrap_err();
            assert!(matches!(error, EnvError::Saved { .. }), "{error}");
            assert_eq!(env.save(), saved, "{} after {error}", spec.id);
        }
    }
}

#[test]
fn a_step_before_the_reset_or_after_the_end_is_an_error() {
    for spec in specs() {
        let mut env = make(&spec.id).unwrap();
        let (mut obs, mut values) = (vec![0.0; spec.observation.elements()], Vec::new());
        let early = env.step(act(&spec.action, 0.5, &mut values), ObsMut::F32(&mut obs));
        assert_eq!(early, Err(EnvError::NotReset { env: spec.id.clone() }));
        reset(&mut *env, Some(1));
        let steps = run(&mut *env, shares(1000));
        assert!(steps.last().unwrap().1.ended());
        for _ in 0..2 {
            let late = env.step(act(&spec.action, 0.5, &mut values), ObsMut::F32(&mut obs));
            assert_eq!(late, Err(EnvError::Ended { env: spec.id.clone() }));
        }
        reset(&mut *env, None);
        env.step(act(&spec.action, 0.5, &mut values), ObsMut::F32(&mut obs)).unwrap();
    }
}

#[test]
fn an_invalid_action_is_an_error_that_says_so_and_moves_nothing() {
    for spec in specs() {
        let mut env = make(&spec.id).unwrap();
        let mut obs = reset(&mut *env, Some(1));
        let before = (env.save(), obs.clone());
        let wrong: &[(Action<'_>, &str)] = match spec.action {
            Space::Discrete { n: 2 } => &[(Action::Discrete(2), "0 to 1"), (Action::Box(&[1.0]), "[1.0]")],
            Space::Discrete { .. } => {
                &[(Action::Discrete(3), "0 to 2"), (Action::MultiBinary(&[true]), "[true]")]
            }
            _ => &[
                (Action::Discrete(0), "1 finite f32"),
                (Action::Box(&[]), "[]"),
                (Action::Box(&[0.0, 0.0]), "[0.0, 0.0]"),
                (Action::Box(&[f32::NAN]), "NaN"),
                (Action::Box(&[f32::INFINITY]), "inf"),
            ],
        };
        for (action, part) in wrong {
            let error = env.step(*action, ObsMut::F32(&mut obs)).unwrap_err();
            assert!(matches!(error, EnvError::Action { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains(part) && text.contains(&spec.id) && !text.contains('\n'), "{text}");
            assert_eq!((env.save(), obs.clone()), before, "{text}");
        }
    }
}

#[test]
fn memory_that_does_not_fit_is_an_error_and_moves_nothing() {
    for spec in specs() {
        let mut env = make(&spec.id).unwrap();
        let elements = spec.observation.elements();
        reset(&mut *env, Some(1));
        let before = env.save();
        let (mut short, mut bytes, mut values) = (vec![0.0; elements - 1], vec![0; elements], Vec::new());
        let action = act(&spec.action, 0.5, &mut values);
        for result in [
            env.reset(None, ObsMut::F32(&mut short)),
            env.reset(None, ObsMut::U8(&mut bytes)),
            env.step(action, ObsMut::F32(&mut short)).map(drop),
            env.step(action, ObsMut::U8(&mut bytes)).map(drop),
        ] {
            assert!(matches!(result, Err(EnvError::Buffer { .. })), "{result:?}");
        }
        assert_eq!(env.save(), before, "{}", spec.id);
    }
}

#[test]
fn a_seed_is_an_episode_and_its_successors() {
    for spec in specs() {
        let (mut a, mut b) = (make(&spec.id).unwrap(), make(&spec.id).unwrap());
        for round in 0..3 {
            let seed = (round == 0).then_some(11);
            assert_eq!(reset(&mut *a, seed), reset(&mut *b, seed), "{}, episode {round}", spec.id);
            assert_eq!(
                run(&mut *a, shares(1000)),
                run(&mut *b, shares(1000)),
                "{}, episode {round}",
                spec.id
            );
        }
        let first = reset(&mut *a, Some(11));
        assert_ne!(reset(&mut *a, None), first, "{}: the generator goes on", spec.id);
        assert_ne!(reset(&mut *a, Some(12)), first, "{}: another seed", spec.id);
        assert_eq!(reset(&mut *a, Some(11)), first, "{}: the same seed again", spec.id);
        let (mut c, mut d) = (make(&spec.id).unwrap(), make(&spec.id).unwrap());
        assert_ne!(
            reset(&mut *c, None),
            reset(&mut *d, None),
            "{}: without a seed, not twice the same",
            spec.id
        );
    }
}

#[test]
fn every_environment_here_can_be_drawn() {
    for spec in specs() {
        let mut env = make(&spec.id).unwrap();
        reset(&mut *env, Some(1));
        let before = env.scene().unwrap();
        assert!(before.shapes.len() >= 3, "{}", spec.id);
        run(&mut *env, std::iter::repeat_n(0.99, 5));
        assert_ne!(env.scene().unwrap(), before, "{}: the drawing follows the state", spec.id);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is done, observations lie in their space, which no NaN does, and rewards are finite.
    #[test]
    fn observations_stay_in_their_space(
        seed: u64,
        which in 0..specs().count(),
        shares in prop::collection::vec(0.0..1.0f64, 1..600),
    ) {
        let spec = specs().nth(which).unwrap();
        let mut env = make(&spec.id).unwrap();
        let first = reset(&mut *env, Some(seed));
        prop_assert_eq!(spec.observation.dtype(), Dtype::F32);
        prop_assert!(spec.observation.contains_obs(Obs::F32(&first)), "{}: {first:?}", spec.id);
        for (t, (obs, outcome)) in run(&mut *env, shares.into_iter()).into_iter().enumerate() {
            prop_assert!(spec.observation.contains_obs(Obs::F32(&obs)), "{}, step {t}: {obs:?}", spec.id);
            prop_assert!(outcome.reward.is_finite(), "{}, step {t}", spec.id);
            prop_assert_eq!(outcome.truncated, t + 1 == spec.max_episode_steps.unwrap() as usize);
        }
    }
}
