//! Wrappers of observations, rewards and actions come out as Gymnasium's do.

use crate::recorded::{golden, list, numbers};
use crate::script::{Playing, Script, boxed, play};
use rl_envs::{
    Action, ClipReward, Dtype, Env, EpisodeRecord, EpisodeStatistics, FrameStack, MaxAndSkip,
    NormalizeObservation, NormalizeReward, ObsMut, Padding, RescaleAction, RunningMeanStd, Space,
};
use serde_json::Value;

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
