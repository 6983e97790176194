//! Several environments at once.

use rl_envs::{
    Action, Actions, CartPole, Dtype, Env, EnvError, EnvSpec, Obs, ObsMut, Outcome, Scene, Space, TimeLimit,
    VecEnv, env_seeds, make,
};

/// Those with observations of f32 that are always there.
fn specs() -> impl Iterator<Item = EnvSpec> {
    let own = rl_envs::listings().into_iter().filter(|listing| listing.feature.is_none());
    own.map(|listing| listing.spec).filter(|spec| spec.observation.dtype() == Dtype::F32)
}

/// Actions for `envs` in step `t`, all different in time.
fn actions(envs: &VecEnv, t: usize) -> (Vec<i64>, Vec<f32>) {
    let share = |i: usize| ((t * 7 + i * 3) as f64 * 0.618_033_988_749_895).fract();
    match &envs.spec().action {
        Space::Discrete { n } => {
            ((0..envs.len()).map(|i| (share(i) * *n as f64) as i64).collect(), Vec::new())
        }
        _ => (Vec::new(), (0..envs.len()).map(|i| 2.0 * share(i) as f32 - 1.0).collect()),
    }
}

fn step(envs: &mut VecEnv, t: usize) {
    let (discrete, values) = actions(envs, t);
    let chosen = if values.is_empty() { Actions::Discrete(&discrete) } else { Actions::Box(&values) };
    envs.step(chosen).unwrap();
}

#[test]
fn each_environment_runs_as_it_would_alone_and_no_final_observation_is_lost() {
    for spec in specs() {
        const E: usize = 3;
        let mut envs = VecEnv::make(&spec.id, E).unwrap();
        envs.reset(5).unwrap();
        let mut alone: Vec<_> = (0..E).map(|_| make(&spec.id).unwrap()).collect();
        let elements = spec.observation.elements();
        let mut current = vec![vec![0.0f32; elements]; E];
        for ((env, obs), seed) in alone.iter_mut().zip(&mut current).zip(env_seeds(5)) {
            env.reset(Some(seed), ObsMut::F32(obs)).unwrap();
        }
        assert_eq!(envs.obs(), current.concat());

        let mut ended = 0;
        for t in 0..1100 {
            let (discrete, values) = actions(&envs, t);
            step(&mut envs, t);
            for i in 0..E {
                let action = match discrete.get(i) {
                    Some(action) => Action::Discrete(*action as usize),
                    None => Action::Box(&values[i..=i]),
                };
                let outcome = alone[i].step(action, ObsMut::F32(&mut current[i])).unwrap();
                assert_eq!(envs.outcomes()[i], outcome);
                assert_eq!(envs.next_obs(i), current[i], "{}, step {t}: what the step led to", spec.id);
                assert_eq!(envs.final_obs(i), outcome.ended().then_some(&current[i][..]));
                if outcome.ended() {
                    ended += 1;
                    let last = current[i].clone();
                    alone[i].reset(None, ObsMut::F32(&mut current[i])).unwrap();
                    assert_ne!(last, current[i]);
                }
                assert_eq!(
                    envs.obs()[i * elements..][..elements],
                    current[i],
                    "{}, step {t}: to act on",
                    spec.id
                );
            }
        }
        assert!(ended >= E, "{}: {ended} episodes ended", spec.id);
    }
}

#[test]
fn a_terminal_observation_is_outside_and_the_next_first_one_inside() {
    let mut envs = VecEnv::make(CartPole::ID, 1).unwrap();
    envs.reset(0).unwrap();
    while !envs.outcomes()[0].ended() {
        assert_eq!(envs.final_obs(0), None);
        envs.step(Actions::Discrete(&[1])).unwrap();
    }
    assert!(envs.outcomes()[0].terminated);
    assert!(envs.final_obs(0).unwrap()[2].abs() > 0.2);
    assert!(envs.obs()[2].abs() <= 0.05);
}

#[test]
fn seeds_are_reproducible_and_differ_between_environments() {
    let first = |seed, n| {
        let mut envs = VecEnv::make(CartPole::ID, n).unwrap();
        envs.reset(seed).unwrap();
        envs.obs().to_vec()
    };
    assert_eq!(first(1, 8), first(1, 8));
    assert_eq!(first(1, 8)[..16], first(1, 4), "an environment's seed does not depend on their number");
    assert_ne!(first(1, 8), first(2, 8));
    let obs = first(1, 8);
    for i in 0..8 {
        for j in 0..i {
            assert_ne!(obs[i * 4..][..4], obs[j * 4..][..4], "environments {i} and {j}");
        }
    }
    // The published first outputs of SplitMix64 from 1234567.
    let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
    assert_eq!(env_seeds(1_234_567).take(3).collect::<Vec<_>>(), expected);
}

#[test]
fn a_saved_state_goes_on_exactly() {
    for spec in specs() {
        let mut envs = VecEnv::make(&spec.id, 3).unwrap();
        envs.reset(9).unwrap();
        // Up to a step that ended an episode, so that a final observation is part of the state.
        let mut t = 0;
        while t < 30 || !envs.outcomes().iter().any(Outcome::ended) {
            step(&mut envs, t);
            t += 1;
        }
        let saved = envs.save();
        let mut other = VecEnv::make(&spec.id, 3).unwrap();
        other.load(&saved).unwrap();
        for t in t..t + 300 {
            assert_eq!(envs.obs(), other.obs());
            assert_eq!(envs.outcomes(), other.outcomes());
            for i in 0..3 {
                assert_eq!(envs.next_obs(i), other.next_obs(i));
            }
            step(&mut envs, t);
            step(&mut other, t);
        }
        assert_eq!(envs.save(), other.save());
    }
}

#[test]
fn bytes_of_other_environments_are_refused_and_change_nothing() {
    let mut envs = VecEnv::make(CartPole::ID, 2).unwrap();
    envs.reset(1).unwrap();
    let saved = envs.save();
    let three = VecEnv::make(CartPole::ID, 3).unwrap().save();
    let cars = VecEnv::make("MountainCar-v0", 2).unwrap().save();
    for bytes in [&three[..], &cars, &saved[1..], b""] {
        let error = envs.load(bytes).unwrap_err();
        assert!(matches!(error, EnvError::Saved { .. }), "{error}");
        assert_eq!(envs.save(), saved);
    }
}

#[test]
fn wrong_actions_move_no_environment() {
    let mut envs = VecEnv::make(CartPole::ID, 3).unwrap();
    assert_eq!(
        envs.step(Actions::Discrete(&[0; 3])).unwrap_err().to_string(),
        "environment 0: CartPole-v1 was stepped before any reset; call reset first"
    );
    envs.reset(1).unwrap();
    let before = envs.save();
    for (actions, part) in [
        (Actions::Discrete(&[0, 1]), "2 were given"),
        (Actions::Discrete(&[0, 1, 2]), "environment 2: CartPole-v1 cannot take the action 2"),
        (Actions::Discrete(&[0, -1, 0]), "environment 1: CartPole-v1 cannot take the action -1"),
        (Actions::Box(&[0.0, 0.0, 0.0]), "environment 0"),
    ] {
        let text = envs.step(actions).unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
        assert_eq!(envs.save(), before);
    }
}

#[test]
fn only_one_kind_goes_together() {
    assert_eq!(VecEnv::make(CartPole::ID, 0).unwrap_err(), EnvError::NoEnvs);
    assert!(matches!(VecEnv::make("cartpole", 2), Err(EnvError::Unknown { .. })));
    let mixed = VecEnv::new(vec![make(CartPole::ID).unwrap(), make("Acrobot-v1").unwrap()]);
    assert!(matches!(mixed, Err(EnvError::Mixed { index: 1, .. })), "{mixed:?}");
    let limits: Vec<Box<dyn Env>> =
        vec![Box::new(TimeLimit::new(CartPole::new(), 10)), Box::new(TimeLimit::new(CartPole::new(), 20))];
    assert!(matches!(VecEnv::new(limits), Err(EnvError::Mixed { index: 1, .. })));
}

/// Counts the steps with its first switch off in a frame of two bytes, and ends with the third.
struct Frames {
    spec: EnvSpec,
    steps: u8,
}

impl Frames {
    fn boxed() -> Box<dyn Env> {
        let frame =
            Space::Box { dtype: Dtype::U8, low: vec![0.0; 2], high: vec![255.0; 2], shape: vec![1, 2] };
        let spec = EnvSpec {
            id: "Frames-v0".to_string(),
            observation: frame,
            action: Space::MultiBinary { n: 2 },
            max_episode_steps: None,
            reward_threshold: None,
        };
        Box::new(Frames { spec, steps: 0 })
    }
}

impl Env for Frames {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, _seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        self.steps = 0;
        obs.u8(&self.spec)?.fill(0);
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        let switches = action.switches(&self.spec)?;
        let obs = obs.u8(&self.spec)?;
        self.steps += u8::from(!switches[0]);
        obs.copy_from_slice(&[self.steps, u8::from(switches[1])]);
        Ok(Outcome { reward: 0.5, terminated: self.steps == 3, truncated: false })
    }

    fn save(&self) -> Vec<u8> {
        vec![self.steps]
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        if bytes == [2] {
            let why = "no state with two steps is ever taken back".to_string();
            return Err(EnvError::Saved { env: self.spec.id.clone(), len: 1, why });
        }
        self.steps = bytes[0];
        Ok(())
    }

    fn scene(&self) -> Option<Scene> {
        None
    }
}

#[test]
fn frames_of_bytes_and_switches_work_like_the_rest() {
    let mut envs = VecEnv::new(vec![Frames::boxed(), Frames::boxed()]).unwrap();
    envs.reset(0).unwrap();
    assert_eq!((envs.obs_elements(), envs.action_elements()), (2, 2));
    let actions = [false, true, false, false];
    for _ in 0..2 {
        envs.step(Actions::MultiBinary(&actions)).unwrap();
        assert_eq!(envs.next_observation(0), Obs::U8(&envs_row(&envs, 0)));
    }
    assert_eq!(envs.observations(), Obs::U8(&[2, 1, 2, 0]));
    envs.step(Actions::MultiBinary(&actions)).unwrap();
    assert_eq!(envs.observations(), Obs::U8(&[0, 0, 0, 0]));
    assert_eq!(envs.next_observation(0), Obs::U8(&[3, 1]));
    assert_eq!(envs.next_observation(1), Obs::U8(&[3, 0]));
    let mut other = VecEnv::new(vec![Frames::boxed(), Frames::boxed()]).unwrap();
    other.load(&envs.save()).unwrap();
    assert_eq!(other.next_observation(0), Obs::U8(&[3, 1]));
}

#[test]
fn a_load_that_fails_half_way_changes_nothing() {
    let mut envs = VecEnv::new(vec![Frames::boxed(), Frames::boxed()]).unwrap();
    envs.reset(0).unwrap();
    let before = envs.save();
    envs.step(Actions::MultiBinary(&[false; 4])).unwrap();
    envs.step(Actions::MultiBinary(&[true, false, false, false])).unwrap();
    assert_eq!(envs.observations(), Obs::U8(&[1, 0, 2, 0]));
    let saved = envs.save();
    envs.load(&before).unwrap();
    let error = envs.load(&saved).unwrap_err();
    assert!(matches!(error, EnvError::At { index: 1, .. }), "{error}");
    assert_eq!(envs.save(), before);
}

fn envs_row(envs: &VecEnv, row: usize) -> Vec<u8> {
    let Obs::U8(bytes) = envs.observations() else { panic!("bytes were expected") };
    bytes[row * envs.obs_elements()..][..envs.obs_elements()].to_vec()
}

#[test]
#[should_panic(expected = "observations()")]
fn bytes_are_not_read_as_floats() {
    VecEnv::new(vec![Frames::boxed()]).unwrap().obs();
}
