//! Trajectories recorded from Gymnasium 1.4.0, replayed: tests/golden/envs.py of the workspace wrote them.

use rl_envs::{
    Acrobot, Action, CartPole, Dtype, Env, EnvError, MountainCar, MountainCarContinuous, ObsMut, Pendulum,
    Space, TimeLimit, make,
};
use serde_json::Value;
use std::collections::BTreeMap;

/// How far a number may be from the recorded one, relative to it. With the C library of the recording there is no
/// difference at all in f32; the room is for others, whose sine may differ in its last bit, and for what a swinging
/// acrobot makes of that.
const RELATIVE: f64 = 1e-6;
/// How far it may be at least, for observations that pass through zero.
const ABSOLUTE: f64 = 1e-7;

fn fixture(id: &str) -> Value {
    let path = format!("{}/tests/golden/{id}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[track_caller]
fn assert_close(what: &str, got: f64, expected: f64) {
    let allowed = ABSOLUTE.max(RELATIVE * expected.abs());
    assert!((got - expected).abs() <= allowed, "{what}: {got} and not {expected}");
}

/// Replays every episode of `id` in the environment that `new` makes, started where `set_state` puts it.
fn replay<E: Env>(id: &str, new: fn() -> E, set_state: fn(&mut E, &[f64]) -> Result<(), EnvError>) {
    let fixture = fixture(id);
    let limit = fixture["max_episode_steps"].as_u64().unwrap() as u32;
    let episodes = fixture["episodes"].as_array().unwrap();
    assert!(episodes.len() >= 20);
    let mut ends = BTreeMap::new();
    for (number, episode) in episodes.iter().enumerate() {
        let mut env = TimeLimit::new(new(), limit);
        let mut obs = vec![0.0f32; env.spec().observation.elements()];
        env.reset(Some(0), ObsMut::F32(&mut obs)).unwrap();
        set_state(env.inner_mut(), &numbers(&episode["state"])).unwrap();

        let flags = episode["flags"].as_str().unwrap();
        let steps = episode["observations"].as_array().unwrap();
        let rewards = numbers(&episode["rewards"]);
        for (t, flag) in flags.chars().enumerate() {
            let values = [episode["actions"][t].as_f64().unwrap() as f32];
            let action = match env.spec().action {
                Space::Discrete { .. } => Action::Discrete(values[0] as usize),
                _ => Action::Box(&values),
            };
            let outcome = env.step(action, ObsMut::F32(&mut obs)).unwrap();
            let at = format!("{id}, episode {number}, step {t}");
            for (i, expected) in numbers(&steps[t]).into_iter().enumerate() {
                // Recorded as the shortest decimals of f32 values.
                let expected = f64::from(expected as f32);
                assert_close(&format!("{at}, observation {i}"), f64::from(obs[i]), expected);
            }
            assert_close(&format!("{at}, reward"), outcome.reward, rewards[t]);
            let expected = match flag {
                '-' => (false, false),
                't' => (true, false),
                'u' => (false, true),
                'b' => (true, true),
                other => panic!("no such flag: {other}"),
            };
            assert_eq!((outcome.terminated, outcome.truncated), expected, "{at}");
        }
        *ends.entry(flags.chars().last().unwrap()).or_insert(0) += 1;
    }
    // The recording is only worth something if it has the ends in it.
    assert!(ends.contains_key(&'u'), "{id}: no episode was truncated in {ends:?}");
    assert_eq!(ends.contains_key(&'t'), id != Pendulum::ID, "{id}: {ends:?}");
}

#[test]
fn cart_pole() {
    replay(CartPole::ID, CartPole::new, CartPole::set_state);
}

#[test]
fn mountain_car() {
    replay(MountainCar::ID, MountainCar::new, MountainCar::set_state);
}

#[test]
fn mountain_car_continuous() {
    replay(MountainCarContinuous::ID, MountainCarContinuous::new, MountainCarContinuous::set_state);
}

#[test]
fn acrobot() {
    replay(Acrobot::ID, Acrobot::new, Acrobot::set_state);
}

#[test]
fn pendulum() {
    replay(Pendulum::ID, Pendulum::new, Pendulum::set_state);
}

fn space(value: &Value) -> Space {
    if let Some(n) = value.get("n") {
        return Space::Discrete { n: n.as_u64().unwrap() as usize };
    }
    assert_eq!(value["dtype"], "float32");
    let bounds = |key: &str, infinity: f32| {
        value[key].as_array().unwrap().iter().map(|v| v.as_f64().map_or(infinity, |v| v as f32)).collect()
    };
    Space::Box {
        dtype: Dtype::F32,
        low: bounds("low", f32::NEG_INFINITY),
        high: bounds("high", f32::INFINITY),
        shape: value["shape"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect(),
    }
}

#[test]
fn specs_are_gymnasiums() {
    let mut count = 0;
    // MinAtar's have a recording of their own, and so have MuJoCo's.
    let own = rl_envs::listings()
        .into_iter()
        .filter(|listing| listing.built_in && listing.feature != Some("mujoco"));
    for spec in own.map(|listing| listing.spec).filter(|spec| !spec.id.starts_with("MinAtar/")) {
        let fixture = fixture(&spec.id);
        assert_eq!(spec.observation, space(&fixture["observation"]), "{}", spec.id);
        assert_eq!(spec.action, space(&fixture["action"]), "{}", spec.id);
        assert_eq!(
            spec.max_episode_steps.map(u64::from),
            fixture["max_episode_steps"].as_u64(),
            "{}",
            spec.id
        );
        assert_eq!(spec.reward_threshold, fixture["reward_threshold"].as_f64(), "{}", spec.id);
        assert_eq!(*make(&spec.id).unwrap().spec(), spec);
        count += 1;
    }
    assert_eq!(count, if cfg!(feature = "box2d") { 7 } else { 5 });
}
