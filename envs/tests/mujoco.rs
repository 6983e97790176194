//! MuJoCo's environments: recorded episodes of Gymnasium 1.4.0 (tests/golden/mujoco_tasks.py of the workspace wrote them), saved states,
//! threads, and the rules of every environment.
#![cfg(feature = "mujoco")]

use rl_envs::mujoco::{
    Ant, HalfCheetah, Hopper, Humanoid, InvertedDoublePendulum, InvertedPendulum, Mujoco, Pusher, Reacher,
    Swimmer, Task, Walker2d,
};
use rl_envs::{Action, Actions, Env, EnvError, ObsMut, Outcome, Shape, Space, TimeLimit, VecEnv, make};
use serde_json::Value;

const IDS: [&str; 10] = [
    Mujoco::<Hopper>::ID,
    Mujoco::<HalfCheetah>::ID,
    Mujoco::<Walker2d>::ID,
    Mujoco::<Ant>::ID,
    Mujoco::<Humanoid>::ID,
    Mujoco::<Swimmer>::ID,
    Mujoco::<Reacher>::ID,
    Mujoco::<Pusher>::ID,
    Mujoco::<InvertedPendulum>::ID,
    Mujoco::<InvertedDoublePendulum>::ID,
];

/// The generator of the recording's actions.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An action up to a quarter out of bounds.
    fn action(&mut self, space: &Space) -> Vec<f32> {
        let Space::Box { high, .. } = space else { panic!("actions are boxes") };
        let share = |n: u64| n as f32 / (1 << 23) as f32 - 1.0;
        high.iter().map(|high| share(self.next() >> 40) * 1.25 * high).collect()
    }
}

fn checksum(obs: &[f32], outcome: &Outcome) -> u32 {
    let reward = outcome.reward.to_bits();
    let words = obs.iter().map(|value| value.to_bits());
    let words = words.chain([reward as u32, (reward >> 32) as u32, u32::from(outcome.terminated)]);
    words.fold(0x811c_9dc5, |total, word| (total ^ word).wrapping_mul(0x0100_0193))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// Recorded as the shortest decimals of f32 values.
fn singles(value: &Value) -> Vec<f32> {
    numbers(value).into_iter().map(|v| v as f32).collect()
}

fn fixture(id: &str) -> Value {
    let path = format!("{}/tests/golden/{id}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Replays every recorded episode of `T` and expects the same bits: observations as f32, rewards and the last state as f64.
fn replay<T: Task>() {
    let id = Mujoco::<T>::ID;
    let fixture = fixture(id);
    let spec = Mujoco::<T>::spec();
    let Space::Box { shape, low, high, .. } = &spec.action else { panic!("{id}") };
    assert_eq!(fixture["action"], serde_json::json!(shape), "{id}");
    let bound = singles(&fixture["action_bounds"][1])[0];
    assert!(high.iter().all(|high| *high == bound) && low.iter().all(|low| *low == -bound), "{id}");
    assert_eq!(fixture["observation"], serde_json::json!([spec.observation.elements()]), "{id}");
    assert_eq!(fixture["max_episode_steps"].as_u64(), spec.max_episode_steps.map(u64::from), "{id}");
    assert_eq!(fixture["reward_threshold"].as_f64(), spec.reward_threshold, "{id}");

    let episodes = fixture["episodes"].as_array().unwrap();
    assert!(episodes.len() >= 20, "{id}");
    let mut env = TimeLimit::new(Mujoco::<T>::new().unwrap(), spec.max_episode_steps.unwrap());
    let mut obs = vec![0.0f32; spec.observation.elements()];
    for (number, episode) in episodes.iter().enumerate() {
        env.reset(Some(0), ObsMut::F32(&mut obs)).unwrap();
        env.inner_mut().set_state(&numbers(&episode["qpos"]), &numbers(&episode["qvel"])).unwrap();
        let mut generator = SplitMix64(episode["seed"].as_u64().unwrap());
        let sums = episode["sums"].as_str().unwrap();
        let mut shown = episode["shown"].as_array().unwrap().iter();
        let mut next = shown.next();
        let mut outcome = Outcome::default();
        for step in 0..sums.len() / 8 {
            let action = generator.action(&spec.action);
            outcome = env.step(Action::Box(&action), ObsMut::F32(&mut obs)).unwrap();
            let at = format!("{id}, episode {number}, step {step}");
            if let Some(values) = next.filter(|values| values[0].as_u64() == Some(step as u64)) {
                for (i, expected) in singles(&values[2]).into_iter().enumerate() {
                    assert_eq!(obs[i].to_bits(), expected.to_bits(), "{at}, {i}: {} not {expected}", obs[i]);
                }
                let expected = values[1].as_f64().unwrap();
                assert_eq!(
                    outcome.reward.to_bits(),
                    expected.to_bits(),
                    "{at}: {} not {expected}",
                    outcome.reward
                );
                next = shown.next();
            }
            let expected = u32::from_str_radix(&sums[8 * step..][..8], 16).unwrap();
            assert_eq!(checksum(&obs, &outcome), expected, "{at}: {obs:?} and {outcome:?}");
        }
        assert_eq!(outcome.terminated, episode["terminated"].as_bool().unwrap(), "{id}, episode {number}");
        assert_eq!(outcome.truncated, episode["truncated"].as_bool().unwrap(), "{id}, episode {number}");
        let (qpos, qvel) = env.inner().state();
        let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(qpos), bits(&numbers(&episode["last"][0])), "{id}, episode {number}");
        assert_eq!(bits(qvel), bits(&numbers(&episode["last"][1])), "{id}, episode {number}");
    }
}

#[test]
fn hopper_is_gymnasiums() {
    replay::<Hopper>();
}

#[test]
fn half_cheetah_is_gymnasiums() {
    replay::<HalfCheetah>();
}

#[test]
fn walker2d_is_gymnasiums() {
    replay::<Walker2d>();
}

#[test]
fn ant_is_gymnasiums() {
    replay::<Ant>();
}

#[test]
fn humanoid_is_gymnasiums() {
    replay::<Humanoid>();
}

#[test]
fn swimmer_is_gymnasiums() {
    replay::<Swimmer>();
}

#[test]
fn reacher_is_gymnasiums() {
    replay::<Reacher>();
}

#[test]
fn pusher_is_gymnasiums() {
    replay::<Pusher>();
}

#[test]
fn inverted_pendulum_is_gymnasiums() {
    replay::<InvertedPendulum>();
}

#[test]
fn inverted_double_pendulum_is_gymnasiums() {
    replay::<InvertedDoublePendulum>();
}

/// Steps `env` with the actions of `seed`, over the ends of episodes.
fn run(env: &mut dyn Env, steps: usize, seed: u64) -> Vec<(Vec<f32>, Outcome)> {
    let (space, mut generator) = (env.spec().action.clone(), SplitMix64(seed));
    let mut obs = vec![0.0f32; env.spec().observation.elements()];
    let step = |_| {
        let outcome = env.step(Action::Box(&generator.action(&space)), ObsMut::F32(&mut obs)).unwrap();
        let seen = (obs.clone(), outcome);
        if outcome.ended() {
            env.reset(None, ObsMut::F32(&mut obs)).unwrap();
        }
        seen
    };
    (0..steps).map(step).collect()
}

fn reset(env: &mut dyn Env, seed: Option<u64>) -> Vec<f32> {
    let mut obs = vec![f32::NAN; env.spec().observation.elements()];
    env.reset(seed, ObsMut::F32(&mut obs)).unwrap();
    obs
}

#[test]
fn a_saved_state_resumes_bit_for_bit_in_another_environment() {
    for id in IDS {
        let mut env = make(id).unwrap();
        reset(&mut *env, Some(3));
        for steps in [0, 1, 11, 30] {
            run(&mut *env, steps, 5);
            let saved = env.save();
            let expected = run(&mut *env, 120, 9);
            // One that has been elsewhere, whose solver has other things to start from.
            let mut other = make(id).unwrap();
            reset(&mut *other, Some(77));
            run(&mut *other, 25, 6);
            other.load(&saved).unwrap();
            assert_eq!(other.save(), saved, "{id}");
            assert_eq!(run(&mut *other, 120, 9), expected, "{id} after {steps} steps");
        }
    }
}

#[test]
fn bytes_of_another_kind_are_refused_and_change_nothing() {
    for (id, other) in IDS.iter().zip(IDS.iter().cycle().skip(1)) {
        let mut env = make(id).unwrap();
        reset(&mut *env, Some(3));
        let saved = env.save();
        for bytes in [&make(other).unwrap().save()[..], &saved[..saved.len() - 1], b"", b"nonsense"] {
            let error = env.load(bytes).unwrap_err();
            assert!(matches!(error, EnvError::Saved { .. }), "{error}");
            assert_eq!(env.save(), saved, "{id} after {error}");
        }
    }
}

/// 2,000 steps of each here; `every_environment_conforms_for_long` takes the 100,000.
#[test]
fn a_vector_environment_is_the_same_with_any_number_of_threads() {
    for id in IDS {
        let run = |threads: usize| {
            let mut envs = VecEnv::make(id, 5).unwrap().with_threads(threads).unwrap();
            envs.reset(11).unwrap();
            let mut generator = SplitMix64(4);
            let mut seen = Vec::new();
            for _ in 0..40 {
                let space = envs.spec().action.clone();
                let actions: Vec<f32> = (0..5).flat_map(|_| generator.action(&space)).collect();
                envs.step(Actions::Box(&actions)).unwrap();
                seen.push((envs.obs().to_vec(), envs.outcomes().to_vec()));
            }
            seen
        };
        assert_eq!(run(1), run(3), "{id}");
    }
}

#[test]
fn a_start_is_drawn_from_gymnasiums_distribution() {
    // Mean and deviation of the first velocities' noise over many resets, and the bounds of the first positions'.
    let mut env = Mujoco::<HalfCheetah>::new().unwrap();
    let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
    let mut extremes = [0.0f64; 2];
    for seed in 0..500 {
        reset(&mut env, (seed == 0).then_some(1));
        let (qpos, qvel) = env.state();
        for v in qvel {
            (sum, squares, count) = (sum + v, squares + v * v, count + 1.0);
        }
        extremes = qpos.iter().fold(extremes, |[low, high], q| [low.min(*q), high.max(*q)]);
    }
    let (mean, deviation) = (sum / count, f64::sqrt(squares / count));
    assert!(mean.abs() < 0.1 * 4.0 / f64::sqrt(count), "{mean}");
    assert!((deviation - 0.1).abs() < 0.1 * 4.0 / f64::sqrt(2.0 * count), "{deviation}");
    assert!((-0.1..-0.0995).contains(&extremes[0]) && (0.0995..0.1).contains(&extremes[1]), "{extremes:?}");

    let mut env = Mujoco::<Pusher>::new().unwrap();
    let mut reacher = Mujoco::<Reacher>::new().unwrap();
    for seed in 0..300 {
        reset(&mut env, Some(seed));
        let (qpos, qvel) = env.state();
        let [x, y] = [qpos[7], qpos[8]];
        assert!((-0.3..0.0).contains(&x) && (-0.2..0.2).contains(&y) && x.hypot(y) > 0.17, "{x} {y}");
        assert!(qpos[9..] == [0.0; 2] && qvel[7..] == [0.0; 4], "{qpos:?} {qvel:?}");
        assert!(
            qpos[..7].iter().all(|q| *q == 0.0) && qvel[..7].iter().all(|v| v.abs() < 0.005 && *v != 0.0)
        );
        reset(&mut reacher, Some(seed));
        let (qpos, qvel) = reacher.state();
        assert!(qpos[2].hypot(qpos[3]) < 0.2 && qpos[..2].iter().all(|q| q.abs() < 0.1), "{qpos:?}");
        assert!(qvel[2..] == [0.0; 2] && qvel[..2].iter().all(|v| v.abs() < 0.005), "{qvel:?}");
    }
}

#[test]
fn settings_change_what_they_say() {
    let reward = |task: Hopper| {
        let mut env = Mujoco::with(task).unwrap();
        reset(&mut env, Some(1));
        let mut obs = [0.0; 11];
        env.step(Action::Box(&[1.0, 0.0, 0.0]), ObsMut::F32(&mut obs)).unwrap()
    };
    let usual = reward(Hopper::default()).reward;
    let healthier = reward(Hopper { healthy_reward: 3.0, ..Hopper::default() }).reward;
    assert!((healthier - usual - 2.0).abs() < 1e-12);
    let dearer = reward(Hopper { ctrl_cost_weight: 1.001, ..Hopper::default() }).reward;
    assert!((usual - dearer - 1.0).abs() < 1e-6);
    let ill = Hopper { healthy_z_range: [5.0, 6.0], ..Hopper::default() };
    assert!(reward(ill.clone()).terminated);
    let outcome = reward(Hopper { terminate_when_unhealthy: false, ..ill });
    assert!(!outcome.terminated && (usual - outcome.reward - 1.0).abs() < 1e-12);
}

#[test]
fn a_state_that_is_none_is_refused() {
    let mut env = Mujoco::<Hopper>::new().unwrap();
    for (qpos, qvel) in [(&[0.0; 5][..], &[0.0; 6][..]), (&[0.0; 6], &[f64::NAN; 6]), (&[0.0; 6], &[])] {
        let error = env.set_state(qpos, qvel).unwrap_err();
        assert!(error.to_string().contains("give 6 and 6 finite numbers"), "{error}");
    }
    let error = env.step(Action::Box(&[0.0; 3]), ObsMut::F32(&mut [0.0; 11])).unwrap_err();
    assert_eq!(error, EnvError::NotReset { env: "Hopper-v5".to_string() });
}

#[test]
fn every_environment_can_be_drawn_and_stays_in_the_picture() {
    for id in IDS {
        let mut env = make(id).unwrap();
        reset(&mut *env, Some(1));
        let before = env.scene().unwrap();
        run(&mut *env, 20, 1);
        let scene = env.scene().unwrap();
        assert_ne!(scene, before, "{id}: the drawing follows the state");
        // What is last is what is in front: the bodies.
        let inside = |[x, y]: [f32; 2]| (0.0..scene.width).contains(&x) && (0.0..scene.height).contains(&y);
        let seen = scene.shapes.iter().rev().take(3).filter(|shape| match shape {
            Shape::Line { points, .. } | Shape::Polygon { points, .. } => points.iter().all(|p| inside(*p)),
            Shape::Circle { center, .. } => inside(*center),
            Shape::Picture { .. } => false,
        });
        assert!(seen.count() >= 2, "{id}: {:?}", scene.shapes);
    }
}

/// What a process of its own that looks for the models in `folder` says when it makes a hopper.
fn hopper_with_models_in(folder: &std::path::Path) -> String {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_hopper_is_made", "--nocapture", "--ignored"])
        .env("RL_TRAIN_MUJOCO_ASSETS", folder)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "run by `a_missing_or_wrong_model_is_an_error_of_one_line`"]
fn a_hopper_is_made() {
    match make("Hopper-v5") {
        Ok(_) => println!("made"),
        Err(error) => println!("\nrefused: {error}"),
    }
}

#[test]
fn a_missing_or_wrong_model_is_an_error_of_one_line() {
    let folder = std::env::temp_dir().join(format!("rl-envs-models-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let line = |text: &str| text.lines().find(|line| line.starts_with("refused: ")).map(str::to_string);

    let missing = line(&hopper_with_models_in(&folder)).unwrap();
    assert!(
        missing.contains("hopper.xml; `make setup-mujoco` brings it, or set RL_TRAIN_MUJOCO_ASSETS"),
        "{missing}"
    );
    // A model that is not the one that the environment reads.
    let other = "<mujoco><worldbody><body><joint type='hinge'/><geom size='1'/></body></worldbody></mujoco>";
    std::fs::write(folder.join("hopper.xml"), other).unwrap();
    let wrong = line(&hopper_with_models_in(&folder)).unwrap();
    assert!(
        wrong.contains("has [1, 1, 2, 0] positions, velocities, bodies and actuators where [6, 6, 5, 3]"),
        "{wrong}"
    );
    std::fs::write(folder.join("hopper.xml"), "no model").unwrap();
    let nonsense = line(&hopper_with_models_in(&folder)).unwrap();
    assert!(nonsense.starts_with("refused: Hopper-v5 cannot be made: MuJoCo does not take "), "{nonsense}");
    std::fs::remove_dir_all(&folder).unwrap();
}
