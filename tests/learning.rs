//! The whole path learns: environment → replay → mini-batch → libtorch → priorities → a better policy. Short runs with small networks and wide
//! margins; what the defaults reach over five seeds is in docs/results.md.

mod binary;

use serde_json::Value;

/// Trains with `arguments` and gives the mean return of the final greedy evaluation.
fn reached(arguments: &[&str]) -> f64 {
    let folder = tempfile::tempdir().expect("a folder");
    binary::train(
        folder.path(),
        &["--out=run", "--set=eval.every=0", "--set=eval.final_episodes=20"],
        arguments,
    );
    let summary = binary::bytes(&folder.path().join("run/summary.json"));
    let summary: Value = serde_json::from_slice(&summary).expect("JSON");
    summary["eval"]["mean_return"].as_f64().expect("a number")
}

/// A random policy holds the pole for about 22 steps.
#[test]
fn dqn_with_everything_switched_on_learns_to_balance() {
    let mean = reached(&[
        "--algo=dqn",
        "--env=CartPole-v1",
        "--env-steps=12000",
        "--set=agent.hidden=[64,64]",
        "--set=agent.dueling=true",
        "--set=replay.prioritized=true",
        "--set=train.num_envs=2",
        "--set=agent.epsilon={kind=\"linear\",start=1.0,end=0.05,steps=4000}",
    ]);
    assert!(mean > 100.0, "DQN reached {mean}");
}

/// A random policy gets about −1,200.
#[test]
fn ddpg_learns_to_swing_up() {
    let mean = reached(&[
        "--algo=ddpg",
        "--env=Pendulum-v1",
        "--env-steps=8000",
        "--set=agent.hidden=[64,64]",
        "--set=train.batch_size=64",
    ]);
    assert!(mean > -500.0, "DDPG reached {mean}");
}
