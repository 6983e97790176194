//! What the tests of the binary have in common: how to run it, and how to look into what it leaves behind.
#![allow(dead_code, reason = "each test program uses its own part of this")]

use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Settings of a small DQN run on CartPole-v1 that uses all that a checkpoint has to hold: prioritized 3-step replay
/// that wraps around, dueling and double Q-learning, three environments side by side.
pub const DQN: &[&str] = &[
    "--algo=dqn",
    "--env=CartPole-v1",
    "--set=agent.hidden=[16]",
    "--set=agent.dueling=true",
    "--set=agent.double=true",
    "--set=agent.target_update_every=30",
    "--set=agent.tau=1",
    "--set=train.num_envs=3",
    "--set=train.random_steps=100",
    "--set=train.train_every=4",
    "--set=train.updates_per_train=2",
    "--set=train.batch_size=16",
    "--set=train.log_every=250",
    "--set=replay.n_step=3",
    "--set=replay.prioritized=true",
    "--set=replay.capacity=400",
    "--set=eval.every=300",
    "--set=eval.episodes=2",
    "--set=eval.final_episodes=2",
];

/// Settings of a small DDPG run on Pendulum-v1 with batch normalization and noise that remembers.
pub const DDPG: &[&str] = &[
    "--algo=ddpg",
    "--env=Pendulum-v1",
    "--set=agent.hidden=[16,16]",
    "--set=agent.batch_norm=true",
    "--set=agent.noise={kind=\"ornstein-uhlenbeck\",sigma=0.2,theta=0.15}",
    "--set=train.random_steps=100",
    "--set=train.batch_size=16",
    "--set=train.log_every=150",
    "--set=replay.capacity=300",
    "--set=eval.every=200",
    "--set=eval.episodes=2",
    "--set=eval.final_episodes=2",
];

/// Settings of a small DQN run on stacks of MinAtar's frames, with prioritized 2-step replay that wraps around.
pub const STACKED: &[&str] = &[
    "--algo=dqn",
    "--env=MinAtar/Breakout-v1",
    "--set=frame_stack=3",
    "--set=agent.hidden=[16]",
    "--set=agent.target_update_every=30",
    "--set=train.num_envs=2",
    "--set=train.random_steps=60",
    "--set=train.train_every=4",
    "--set=train.batch_size=8",
    "--set=train.log_every=100",
    "--set=train.clip_reward=0.5",
    "--set=replay.n_step=2",
    "--set=replay.prioritized=true",
    "--set=replay.capacity=150",
    "--set=eval.every=200",
    "--set=eval.episodes=2",
    "--set=eval.final_episodes=2",
];

/// The binary, to be run in the folder `at`.
pub fn rl_train(at: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rl-train"));
    // With a backtrace wanted, one that should not be there shows.
    command.current_dir(at).env("RUST_BACKTRACE", "1");
    command
}

/// Runs the binary to its end.
pub fn run<S: AsRef<OsStr>>(at: &Path, arguments: &[S]) -> Output {
    rl_train(at).args(arguments).output().expect("the binary starts")
}

/// Runs the binary, which has to succeed; gives its standard output.
pub fn succeed<S: AsRef<OsStr>>(at: &Path, arguments: &[S]) -> String {
    let output = run(at, arguments);
    assert!(output.status.success(), "{}: {}", output.status, text(&output.stderr));
    text(&output.stdout)
}

/// Runs `rl-train train --quiet` with `settings` and `more`, which has to succeed.
pub fn train(at: &Path, settings: &[&str], more: &[&str]) {
    succeed(at, &[&["train", "--quiet", "--device=cpu"], settings, more].concat());
}

/// Goes on with the run in the folder `name`, up to `env_steps`.
pub fn resume(at: &Path, name: &str, env_steps: u64) {
    let env_steps = format!("--env-steps={env_steps}");
    succeed(at, &["train", "--quiet", "--resume", name, &env_steps]);
}

/// What was printed.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the program prints UTF-8")
}

/// A file's bytes.
pub fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A run's last checkpoint.
pub fn latest(run: &Path) -> PathBuf {
    run.join("checkpoints/latest.safetensors")
}

/// A run's best checkpoint.
pub fn best(run: &Path) -> PathBuf {
    run.join("checkpoints/best.safetensors")
}

/// Everything in the folder of a run's checkpoints, by name, temporary files included.
pub fn checkpoints(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let folder = run.join("checkpoints");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let entry = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.expect("an entry of the folder");
        (entry.file_name().to_string_lossy().into_owned(), bytes(&entry.path()))
    };
    entries.map(entry).collect()
}

/// The state in a checkpoint, piece by piece; the configuration beside it and the checksum over both are left out.
pub fn state(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = bytes(path);
    let tensors = SafeTensors::deserialize(&file).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let pieces = tensors.tensors().into_iter().filter(|(name, _)| name != "checksum");
    pieces.map(|(name, tensor)| (name, tensor.data().to_vec())).collect()
}

/// Fails with the names of the pieces in which two checkpoints differ, if there are any.
pub fn assert_same_state(found: &Path, expected: &Path) {
    let (found, expected) = (state(found), state(expected));
    let names = |state: &BTreeMap<String, Vec<u8>>| state.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected));
    let differ: Vec<&String> = found.keys().filter(|name| found[*name] != expected[*name]).collect();
    assert!(differ.is_empty(), "these pieces of state differ: {differ:?}");
}

/// The lines of a run's metrics.jsonl.
pub fn metrics(run: &Path) -> Vec<Value> {
    let lines = std::fs::read_to_string(run.join("metrics.jsonl")).expect("metrics.jsonl is there");
    lines.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// The lines of metrics.jsonl without what the clock says.
pub fn metrics_without_clock(run: &Path) -> Vec<Value> {
    let mut lines = metrics(run);
    for line in &mut lines {
        let values = line.as_object_mut().expect("a line is an object");
        values.retain(|name, _| name != "wall_s" && !name.starts_with("speed/"));
    }
    lines
}

/// Python with what tests/requirements.txt lists.
pub fn python() -> Command {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv-test/bin/python");
    assert!(python.exists(), "run scripts/setup-tests");
    Command::new(python)
}

/// A file under tests/.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}
