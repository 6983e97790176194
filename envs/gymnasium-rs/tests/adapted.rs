//! What gymnasium-rs does comes out the same through the adapter, and the adapter keeps to the rules of rl-envs.

use gymnasium_rs::core::{self, Env as _, Info, Options, Reward};
use gymnasium_rs::envs::cartpole::CartPole;
use ndarray::{Array1, Array2, Array3, array};
use rl_envs::{Action, Dtype, Env, EnvError, Obs, ObsMut, Space, check, make, specs};
use rl_envs_gymnasium_rs::{Adapted, CART_POLE, cart_pole, register};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

fn reset(env: &mut dyn Env, seed: Option<u64>) -> [f32; 4] {
    let mut obs = [f32::NAN; 4];
    env.reset(seed, ObsMut::F32(&mut obs)).unwrap();
    obs
}

/// What a policy that falls late would do, and now and then the opposite.
fn choose(obs: &[f32], t: u32) -> usize {
    usize::from((obs[2] + 0.5 * obs[3] > 0.0) ^ t.is_multiple_of(5))
}

#[test]
fn episodes_are_those_of_gymnasium_rs_to_the_bit() {
    let (mut ours, mut theirs) = (cart_pole(), CartPole::new());
    let mut lengths = 0;
    for seed in [0, 1, 7, i32::MAX] {
        let mut obs = reset(&mut ours, Some(seed as u64));
        assert_eq!(obs.to_vec(), theirs.reset_seed(seed).0.to_vec());
        for t in 0.. {
            let action = choose(&obs, t);
            let outcome = ours.step(Action::Discrete(action), ObsMut::F32(&mut obs)).unwrap();
            let (expected, reward, terminated, truncated, _) = theirs.step(action as i32);
            assert_eq!(obs.to_vec(), expected.to_vec(), "seed {seed}, step {t}");
            let got = (outcome.reward, outcome.terminated, outcome.truncated);
            assert_eq!(got, (reward.into(), terminated, truncated), "seed {seed}, step {t}");
            lengths += 1;
            if terminated {
                break;
            }
        }
    }
    assert!(lengths > 100, "{lengths}");
}

#[test]
fn cart_pole_keeps_to_the_rules() {
    let mut env = rl_envs::TimeLimit::new(cart_pole(), 500);
    check(&mut env, 10_000, 0).unwrap_or_else(|e| panic!("{e}"));
}

/// Why [`cart_pole`] has another observation space than gymnasium-rs says.
#[test]
fn its_own_space_leaves_out_last_observations() {
    let mut env = Adapted::new("As/Is-v0", CartPole::new).unwrap();
    let error = check(&mut env, 1_000, 0).unwrap_err().to_string();
    assert!(error.contains("at element 2 is not of Box"), "{error}");
}

#[test]
fn its_cart_pole_is_not_that_of_gymnasium() {
    let (mut theirs, mut ours) = (cart_pole(), rl_envs::CartPole::new());
    let start = reset(&mut theirs, Some(3));
    reset(&mut ours, Some(3));
    ours.set_state(&start.map(f64::from)).unwrap();
    let ([mut a, mut b], push) = ([[0.0; 4]; 2], Action::Discrete(1));
    theirs.step(push, ObsMut::F32(&mut a)).unwrap();
    ours.step(push, ObsMut::F32(&mut b)).unwrap();
    // The same speeds move both; the same force makes it nearly twice as fast.
    assert!((a[0] - b[0]).abs() < 1e-6 && (a[2] - b[2]).abs() < 1e-6, "{a:?} {b:?}");
    let faster = (a[1] - start[1]) / (b[1] - start[1]);
    assert!((1.8..1.9).contains(&faster), "{faster}");
    let last = loop {
        let outcome = theirs.step(push, ObsMut::F32(&mut a)).unwrap();
        if outcome.terminated {
            break outcome.reward;
        }
        assert_eq!(outcome.reward, 1.0);
    };
    assert_eq!(last, 0.0);
}

#[test]
fn it_is_made_by_its_id() {
    register().unwrap();
    assert_eq!(register(), Err(EnvError::Taken { id: CART_POLE.into() }));
    assert_eq!(specs().last().unwrap().max_episode_steps, Some(500));
    let mut env = make(CART_POLE).unwrap();
    check(&mut *env, 2_000, 1).unwrap_or_else(|e| panic!("{e}"));
    let mut some = rl_envs::VecEnv::make(CART_POLE, 3).unwrap().with_threads(2).unwrap();
    some.reset(1).unwrap();
    for _ in 0..300 {
        some.step(rl_envs::Actions::Discrete(&[0, 1, 1])).unwrap();
    }
}

#[test]
fn every_seed_is_some_seed_of_theirs() {
    let mut env = cart_pole();
    // Beyond 31 bits they are mixed: neighbours differ, and so do those that are alike in their lower half.
    let large = [1u64 << 31, (1 << 31) + 1, 7 + (1 << 32), u64::MAX, u64::MAX - 1];
    let mut starts: Vec<_> = large.map(|seed| reset(&mut env, Some(seed))).to_vec();
    starts.push(reset(&mut env, Some(7)));
    for (i, start) in starts.iter().enumerate() {
        assert!(!starts[..i].contains(start), "{starts:?}");
        assert!(i == 5 || *start == reset(&mut env, Some(large[i])));
    }
    // The episodes after a seeded one are the same again, and all differ.
    let mut after = |seed| {
        reset(&mut env, Some(seed));
        [reset(&mut env, None), reset(&mut env, None)]
    };
    let [first, second] = after(7);
    assert_eq!((after(7), first == second), ([first, second], false));
    assert_ne!(after(8), [first, second]);
}

/// A walk with boxes of actions: where it was pushed, and how often. Ends at 3 steps or beyond 10.
struct Walk {
    at: Array1<f32>,
    steps: i32,
    /// The observation grows in this step.
    grows_at: i32,
}

impl Walk {
    fn new() -> Self {
        Walk { at: array![0.0, 0.0], steps: 0, grows_at: -1 }
    }
}

static CLOSED: AtomicUsize = AtomicUsize::new(0);

impl core::Env<Array2<f32>, Array1<f32>> for Walk {
    fn observation_space(&self) -> core::Space {
        core::Space::Box {
            low: Array1::from_elem(2, f32::NEG_INFINITY),
            high: Array1::from_elem(2, f32::INFINITY),
        }
    }

    fn action_space(&self) -> core::Space {
        core::Space::Box { low: array![-1.0, -1.0], high: array![1.0, 1.0] }
    }

    fn reset(&mut self, seed: Option<i32>, options: Options) -> (Array2<f32>, Info) {
        let start = options.get("start").and_then(serde_json::Value::as_f64).unwrap_or(0.0);
        (self.at, self.steps) = (array![start as f32, (seed.unwrap() % 3) as f32], 0);
        (self.at.clone().insert_axis(ndarray::Axis(0)), HashMap::new())
    }

    fn step(&mut self, action: Array1<f32>) -> (Array2<f32>, Reward, bool, bool, Info) {
        self.at = &self.at + &action;
        self.steps += 1;
        let rows = if self.steps == self.grows_at { 2 } else { 1 };
        let observed = Array2::from_shape_fn((rows, 2), |(_, i)| self.at[i]);
        (observed, self.at.sum(), self.at[0].abs() > 10.0, self.steps == 3, HashMap::new())
    }

    fn render(&self) -> Option<Array3<u8>> {
        None
    }

    fn close(&mut self) {
        CLOSED.fetch_add(1, Ordering::Relaxed);
    }
}

fn walk(new: impl Fn() -> Walk + Send + 'static) -> Adapted<Array2<f32>, Array1<f32>> {
    Adapted::new("Test/Walk-v0", new).unwrap()
}

#[test]
fn boxes_go_in_and_ends_come_out() {
    let options = HashMap::from([("start".to_string(), 4.5.into())]);
    let mut env = walk(Walk::new).with_options(options).with_reward_threshold(2.0);
    assert_eq!(env.spec().action.to_string(), "Box(-1.0, 1.0, (2,), float32)");
    assert_eq!(env.spec().reward_threshold, Some(2.0));
    let mut obs = [0.0; 2];
    let mut step = |env: &mut Adapted<_, _>, action: [f32; 2], expected: [f32; 2]| {
        let outcome = env.step(Action::Box(&action), ObsMut::F32(&mut obs)).unwrap();
        assert_eq!(obs, expected);
        assert_eq!(outcome.reward, f64::from(expected[0] + expected[1]));
        (outcome.terminated, outcome.truncated)
    };
    env.reset(Some(4), ObsMut::F32(&mut [0.0; 2])).unwrap();
    assert_eq!(step(&mut env, [1.0, 0.5], [5.5, 1.5]), (false, false));
    // Out of bounds: what is done with it is the environment's affair.
    assert_eq!(step(&mut env, [3.0, 0.0], [8.5, 1.5]), (false, false));
    assert_eq!(step(&mut env, [0.0, 0.0], [8.5, 1.5]), (false, true));
    let late = env.step(Action::Box(&[0.0; 2]), ObsMut::F32(&mut [0.0; 2]));
    assert_eq!(late, Err(EnvError::Ended { env: "Test/Walk-v0".into() }));
    env.reset(Some(4), ObsMut::F32(&mut [0.0; 2])).unwrap();
    assert_eq!(step(&mut env, [6.0, 0.0], [10.5, 1.0]), (true, false));
    check(&mut walk(Walk::new), 2_000, 5).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn shapes_are_those_that_are_given() {
    let space = Space::Box { dtype: Dtype::F32, low: vec![-20.0; 2], high: vec![20.0; 2], shape: vec![1, 2] };
    let env = walk(Walk::new).with_observation_space(space.clone());
    assert_eq!(env.spec().observation, space);
    let mut env = walk(Walk::new).with_observation_space(Space::Box {
        dtype: Dtype::U8,
        low: vec![0.0; 2],
        high: vec![255.0; 2],
        shape: vec![2],
    });
    let error = env.reset(None, ObsMut::U8(&mut [0; 2])).unwrap_err().to_string();
    assert!(error.contains("an observation is not of as many elements") && !error.contains('\n'), "{error}");
}

#[test]
fn a_call_that_fails_leaves_it_where_it_was() {
    let mut env = walk(|| Walk { grows_at: 2, ..Walk::new() });
    let mut obs = [0.0; 2];
    env.reset(Some(1), ObsMut::F32(&mut obs)).unwrap();
    env.step(Action::Box(&[0.25, 0.0]), ObsMut::F32(&mut obs)).unwrap();
    let before = env.save();
    for _ in 0..2 {
        let error = env.step(Action::Box(&[0.25, 0.0]), ObsMut::F32(&mut obs)).unwrap_err();
        assert!(matches!(error, EnvError::Wrapper { .. }), "{error}");
        assert_eq!((env.save(), obs), (before.clone(), [0.25, 1.0]));
    }
}

#[test]
fn what_is_saved_goes_on_and_nothing_else_is_taken() {
    let play = |env: &mut Adapted<Array1<f32>, i32>, mut obs: [f32; 4]| -> Vec<[f32; 4]> {
        let mut seen = Vec::new();
        for t in 0..200 {
            let outcome = env.step(Action::Discrete(choose(&obs, t)), ObsMut::F32(&mut obs)).unwrap();
            if outcome.ended() {
                obs = reset(env, None);
            }
            seen.push(obs);
        }
        seen
    };
    let mut env = cart_pole();
    let new = env.save();
    let obs = reset(&mut env, Some(11));
    let obs = *play(&mut env, obs).last().unwrap();
    let (saved, expected) = (env.save(), play(&mut env, obs));
    let mut other = cart_pole();
    other.load(&saved).unwrap();
    assert_eq!(other.save(), saved);
    assert_eq!(play(&mut other, obs), expected);
    // Back to before the first reset, whose random numbers are saved too.
    env.load(&new).unwrap();
    assert_eq!(
        env.step(Action::Discrete(0), ObsMut::F32(&mut [0.0; 4])),
        Err(EnvError::NotReset { env: CART_POLE.into() })
    );
    let first = reset(&mut env, None);
    env.load(&new).unwrap();
    assert_eq!(reset(&mut env, None), first);

    let before = other.save();
    let mut cut = saved.clone();
    cut.pop();
    let foreign = walk(Walk::new).save();
    let refused: [(&[u8], &str); 4] =
        [(&cut, ""), (b"", ""), (b"nonsense", ""), (&foreign, "they are of \"Test/Walk-v0\"")];
    for (bytes, why) in refused {
        let Err(EnvError::Saved { why: got, .. }) = other.load(bytes) else { panic!("{bytes:?} was taken") };
        assert!(got.contains(why), "{got}");
        assert_eq!(other.save(), before);
    }
    // Actions that the space does not have, which this environment would take: 0 and 1 become 2 and 3.
    let mut no_actions = 0;
    for i in 0..saved.len() {
        let mut changed = saved.clone();
        changed[i] ^= 2;
        let refused = other.load(&changed).err().map(|error| error.to_string());
        no_actions += usize::from(refused.is_some_and(|why| why.contains("do not go together")));
    }
    assert!(no_actions > 20, "{no_actions}");
    // Every byte changed: an error, or a state that is one.
    for i in 0..saved.len() {
        let mut changed = saved.clone();
        changed[i] ^= 1;
        match other.load(&changed) {
            Ok(()) => {
                let again = other.save();
                assert_eq!(other.load(&again), Ok(()));
                assert_eq!(other.save(), again);
            }
            Err(error) => assert!(matches!(error, EnvError::Saved { .. }), "{error}"),
        }
    }
}

#[test]
fn an_environment_that_is_not_its_seed_and_actions_is_found_out() {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let options = |start: f64| HashMap::from([("start".to_string(), start.into())]);
    let mut env = walk(Walk::new).with_options(options(1.0));
    env.reset(Some(1), ObsMut::F32(&mut [0.0; 2])).unwrap();
    env.step(Action::Box(&[0.5, 0.5]), ObsMut::F32(&mut [0.0; 2])).unwrap();
    let saved = env.save();
    let why = |env: &mut Adapted<_, _>, saved: &[u8]| match env.load(saved) {
        Err(EnvError::Saved { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    // Another start, and an end where there was none.
    let other = why(&mut walk(Walk::new).with_options(options(2.0)), &saved);
    assert_eq!(other, "the same actions from the same seed lead to another observation");
    let other = why(&mut walk(Walk::new).with_options(options(11.0)), &saved);
    assert_eq!(other, "the same actions from the same seed end the episode otherwise at step 1");
    // Each made anew differs.
    let mut env = walk(|| {
        let made = MADE.fetch_add(1, Ordering::Relaxed) as i32;
        Walk { grows_at: if made == 0 { -1 } else { 1 }, ..Walk::new() }
    });
    env.reset(Some(1), ObsMut::F32(&mut [0.0; 2])).unwrap();
    env.step(Action::Box(&[0.5, 0.5]), ObsMut::F32(&mut [0.0; 2])).unwrap();
    let saved = env.save();
    assert!(why(&mut env, &saved).contains("another observation"));
    assert_eq!(env.save(), saved);
}

#[test]
fn what_is_no_environment_is_refused_in_a_line() {
    struct Spaces(core::Space, core::Space);
    impl core::Env<i32, i32> for Spaces {
        fn observation_space(&self) -> core::Space {
            self.0.clone()
        }
        fn action_space(&self) -> core::Space {
            self.1.clone()
        }
        fn reset(&mut self, _: Option<i32>, _: Options) -> (i32, Info) {
            (2, HashMap::new())
        }
        fn step(&mut self, action: i32) -> (i32, Reward, bool, bool, Info) {
            (action, 0.0, false, true, HashMap::new())
        }
        fn render(&self) -> Option<Array3<u8>> {
            None
        }
        fn close(&mut self) {}
    }
    let spaces = |observation: core::Space, action: core::Space| {
        Adapted::new("Test/Spaces-v0", move || Spaces(observation.clone(), action.clone()))
    };
    let (three, range) = (core::Space::Discrete(3), |low, high| core::Space::Box { low, high });
    let errors = [
        (core::Space::Discrete(0), three.clone(), "its observation space is Discrete(0)"),
        (three.clone(), core::Space::Discrete(-1), "its action space is Discrete(-1)"),
        (range(array![], array![]), three.clone(), "0 lower and 0 upper bounds"),
        (range(array![0.0], array![1.0, 2.0]), three.clone(), "1 lower and 2 upper bounds"),
        (range(array![1.0], array![0.0]), three.clone(), "element 0 is from 1 to 0"),
        (range(array![f32::NAN], array![0.0]), three.clone(), "element 0 is from NaN to 0"),
        (
            three.clone(),
            range(array![0.0], array![1.0]),
            "its actions are of type i32, and its action space is Box",
        ),
    ];
    for (observation, action, expected) in errors {
        let error = spaces(observation, action).err().unwrap().to_string();
        assert!(
            error.contains(expected) && error.contains("Test/Spaces-v0") && !error.contains('\n'),
            "{error}"
        );
    }
    // Whole numbers to whole numbers.
    let mut env = spaces(three.clone(), three).unwrap();
    let mut obs = [0.0];
    env.reset(None, ObsMut::F32(&mut obs)).unwrap();
    assert!(env.spec().observation.contains_obs(Obs::F32(&obs)) && obs == [2.0]);
    assert!(env.step(Action::Discrete(1), ObsMut::F32(&mut obs)).unwrap().truncated && obs == [1.0]);
    check(&mut env, 500, 0).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn each_is_closed_when_it_goes() {
    // Other tests close walks at the same time, so at least.
    let before = CLOSED.load(Ordering::Relaxed);
    let env = walk(Walk::new);
    assert!(env.inner().render().is_none());
    drop(env);
    assert!(CLOSED.load(Ordering::Relaxed) > before);
}
