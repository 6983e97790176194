//! A run that is stopped and goes on ends exactly like one that was never stopped: bit for bit the same checkpoint.

mod binary;

use binary::{
    DDPG, DQN, STACKED, assert_same_state, best, bytes, latest, metrics, metrics_without_clock, resume,
    rl_train, state, succeed, text, train,
};
use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Two runs of one configuration, one of them stopped on its way, have to end the same.
fn assert_same_run(found: &Path, expected: &Path) {
    // The state first, because its failure says what differs.
    assert_same_state(&latest(found), &latest(expected));
    assert!(bytes(&latest(found)) == bytes(&latest(expected)), "the checkpoints' descriptions differ");
    // The best one may be from before the stop, and then names the env_steps that were configured at that time.
    assert_same_state(&best(found), &best(expected));
    assert_eq!(metrics_without_clock(found), metrics_without_clock(expected));
    assert_each_logged_once(found);
    let without_clock = |run: &Path| {
        let mut summary: serde_json::Value =
            serde_json::from_slice(&bytes(&run.join("summary.json"))).expect("JSON");
        for key in ["wall_s", "env_steps_per_s", "updates_per_s"] {
            assert!(summary.as_object_mut().expect("an object").remove(key).is_some());
        }
        summary
    };
    assert_eq!(without_clock(found), without_clock(expected));
}

/// Each metric has its points in the order of the environment steps, and no step twice.
fn assert_each_logged_once(run: &Path) {
    let mut last: HashMap<String, u64> = HashMap::new();
    let mut wall_s = 0.0;
    for line in metrics(run) {
        let at = line["env_steps"].as_u64().expect("a number of steps");
        for name in line.as_object().expect("an object").keys().filter(|name| name.contains('/')) {
            if let Some(before) = last.insert(name.clone(), at) {
                assert!(before < at, "{name} has a value at {at} after one at {before}");
            }
        }
        let now = line["wall_s"].as_f64().expect("seconds");
        assert!(now >= wall_s, "time runs backwards: {now} after {wall_s}");
        wall_s = now;
    }
}

/// Trains once without a stop and once with a stop after each of `stops`.
fn assert_resumes(settings: &[&str], env_steps: u64, stops: &[u64]) -> (tempfile::TempDir, Vec<bool>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    train(at, settings, &["--out=whole", &format!("--env-steps={env_steps}")]);
    let (first, others) = stops.split_first().expect("a stop");
    train(at, settings, &["--out=parts", &format!("--env-steps={first}")]);
    let mut in_mid_episode = vec![mid_episode(&at.join("parts"))];
    for &stop in others {
        resume(at, "parts", stop);
        in_mid_episode.push(mid_episode(&at.join("parts")));
    }
    // The stopped run has not got there by itself.
    assert_ne!(state(&latest(&at.join("parts"))), state(&latest(&at.join("whole"))));
    resume(at, "parts", env_steps);
    assert_same_run(&at.join("parts"), &at.join("whole"));
    (folder, in_mid_episode)
}

/// Whether some environment's episode was in progress, returns of 0 counting as none.
fn mid_episode(run: &Path) -> bool {
    // A length and (return, length) pairs; all bytes but the length are 0 where every episode has just begun.
    state(&latest(run))["trainer.open"][1..].iter().any(|byte| *byte != 0)
}

#[test]
fn dqn_goes_on_as_if_it_had_never_stopped() {
    let (folder, in_mid_episode) = assert_resumes(DQN, 3000, &[1500]);
    assert!(in_mid_episode[0]);
    // What the test is to cover was there: a buffer that went round several times, and learning.
    let state = state(&latest(&folder.path().join("whole")));
    let count = |name: &str| i64::from_le_bytes(state[name][..].try_into().expect("one number"));
    assert!(count("replay.stored.inserted") > 5 * count("replay.stored.capacity"));
    assert!(count("learner.updates") > 1000);
    assert!(
        state.contains_key("stream.2.stored.n_step.open")
            && state.contains_key("replay.stored.sampler.priorities")
    );
}

#[test]
fn ddpg_goes_on_as_if_it_had_never_stopped() {
    // Pendulum's episodes have 200 steps: 700 is in the middle of one.
    let (folder, in_mid_episode) = assert_resumes(DDPG, 1400, &[700]);
    assert!(in_mid_episode[0]);
    let state = state(&latest(&folder.path().join("whole")));
    assert!(state.keys().any(|name| name.contains("running_mean")), "{:?}", state.keys());
    // And at the end of one; nobody has to care which it is.
    let (_, in_mid_episode) = assert_resumes(DDPG, 600, &[400]);
    assert!(!in_mid_episode[0]);
}

#[test]
fn dqn_stops_more_than_once_at_odd_moments() {
    // Before learning began, with half a batch of n-step transitions open, between two rounds of updates, and off every
    // multiple: three environments never meet 700, and end above it.
    assert_resumes(DQN, 1300, &[1, 97, 301, 304, 700]);
}

#[test]
fn stacks_of_frames_go_on_where_they_were() {
    let (folder, in_mid_episode) = assert_resumes(STACKED, 500, &[1, 61, 302]);
    assert!(in_mid_episode[2]);
    let state = state(&latest(&folder.path().join("whole")));
    assert!(state.keys().any(|name| name == "replay.derived.frames.rows.0.frame"), "{:?}", state.keys());
    // A frame is there once, and 2 x 3 times only in the stacks that are acted on.
    assert!(state.contains_key("trainer.stacks") && state.contains_key("stream.1.derived.open"));
    let (folder, _) = assert_resumes(
        &[STACKED, &["--set=replay.device=learner", "--set=replay.block_rows=5"]].concat(),
        400,
        &[151],
    );
    let state = binary::state(&latest(&folder.path().join("whole")));
    assert!(state.contains_key("learner.replay.frames.frame"), "{:?}", state.keys());
}

#[test]
fn a_metric_of_the_last_update_survives_a_stop() {
    // A line of metrics falls due after the stop and before the next update.
    assert_resumes(
        &[DQN, &["--set=train.train_every=200", "--set=train.log_every=50"]].concat(),
        700,
        &[440],
    );
}

#[test]
fn an_interrupted_run_goes_on_to_where_it_was_going() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let settings = [DQN, &["--env-steps=6000"]].concat();
    train(at, &settings, &["--out=whole"]);

    let mut child = rl_train(at)
        .args(["train", "--device=cpu", "--out=parts"])
        .args(&settings)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // It listens for signals from before its first line of metrics on; some moment after that is as good as any.
    let began = Instant::now();
    let lines =
        || std::fs::read_to_string(at.join("parts/metrics.jsonl")).unwrap_or_default().lines().count();
    while lines() < 3 {
        assert!(began.elapsed() < Duration::from_secs(60), "no metrics after a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
    let interrupt = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status();
    assert!(interrupt.expect("sh runs").success());
    let status = child.wait().expect("the binary ends");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().expect("piped"), &mut said).expect("UTF-8");
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(said.contains("rl-train train --resume parts"), "{said}");
    assert!(!at.join("parts/summary.json").exists(), "it has not ended");

    succeed(at, &["train", "--quiet", "--resume=parts"]);
    assert_same_run(&at.join("parts"), &at.join("whole"));
}

#[test]
fn a_run_stopped_after_its_last_step_still_gets_its_summary() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    train(at, DQN, &["--out=run", "--env-steps=300"]);
    // As a power cut during the final evaluation leaves it.
    std::fs::remove_file(at.join("run/summary.json")).expect("removes");
    let before = bytes(&latest(&at.join("run")));
    succeed(at, &["train", "--quiet", "--resume=run"]);
    assert!(at.join("run/summary.json").exists());
    assert!(bytes(&latest(&at.join("run"))) == before, "nothing was left to train");

    // With its summary it is complete, and there is nothing to go on with.
    let output = binary::run(at, &["train", "--quiet", "--resume=run"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--env-steps"), "{}", text(&output.stderr));
}
