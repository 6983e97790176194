//! However a run is killed, it leaves a checkpoint that loads, and goes on from there as if nothing had been.

mod binary;

use binary::{assert_same_state, latest, metrics_without_clock, resume, rl_train, succeed, text, train};
use rand::RngExt;
use rl_train::checkpoint;
use rl_train::config::from_run;
use rl_train::training::begin;
use rl_train::wiring::{Stream, rng};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

const KILLS: usize = 50;
const SIGKILL: i32 = 9;

/// A checkpoint of a megabyte after every step, so that most moments are in the middle of writing one.
const SETTINGS: &[&str] = &[
    "--algo=dqn",
    "--env=CartPole-v1",
    "--set=agent.hidden=[256,256]",
    "--set=train.num_envs=2",
    "--set=train.random_steps=20",
    "--set=train.train_every=2",
    "--set=train.updates_per_train=1",
    "--set=train.batch_size=16",
    "--set=train.log_every=10",
    "--set=replay.n_step=3",
    "--set=replay.prioritized=true",
    "--set=replay.capacity=1000",
    "--set=eval.every=20",
    "--set=eval.episodes=1",
    "--set=eval.final_episodes=2",
];

#[test]
fn fifty_kills_in_a_row_leave_a_checkpoint_that_loads() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (at, run) = (folder.path(), folder.path().join("run"));
    // Which moments are random, but the same in each run of the test, as far as the machine lets them be.
    let mut rng = rng(2, Stream::Sampling);
    let mut reached = 0;
    let (mut unfinished, mut anew) = (0, 0);
    for kill in 0..KILLS {
        let mut command = rl_train(at);
        if latest(&run).exists() {
            command.args(["train", "--quiet", "--resume=run"]);
        } else {
            // Killed before its first checkpoint: there is nothing to go on with.
            anew += 1;
            let _ = std::fs::remove_dir_all(&run);
            command
                .args(["train", "--quiet", "--device=cpu", "--out=run", "--env-steps=1000000"])
                .args(SETTINGS);
            command.arg("--set=train.checkpoint_every=1");
        }
        let before = written(&run);
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        // One in five dies at some moment of its start, the others some time after their first checkpoint.
        if kill % 5 == 0 {
            std::thread::sleep(Duration::from_millis(rng.random_range(0..400)));
        } else {
            let began = Instant::now();
            while written(&run) == before && child.try_wait().expect("the child is ours").is_none() {
                assert!(began.elapsed() < Duration::from_secs(60), "no checkpoint after a minute");
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_micros(rng.random_range(0..100_000)));
        }
        child.kill().expect("kills");
        let output = child.wait_with_output().expect("the binary ends");
        let said = text(&output.stderr);
        assert_eq!(output.status.signal(), Some(SIGKILL), "it ended by itself, kill {kill}: {said}");

        let names =
            std::fs::read_dir(run.join("checkpoints")).map(|entries| entries.flatten().collect::<Vec<_>>());
        let names = names.unwrap_or_default().into_iter().map(|entry| entry.file_name());
        unfinished += usize::from(names.into_iter().any(|name| name.to_string_lossy().ends_with(".tmp")));
        if before.is_some() || latest(&run).exists() {
            let now = loads(&run).unwrap_or_else(|e| panic!("after kill {kill}: {e}"));
            assert!(now >= reached, "at {now} env steps after kill {kill}, and was at {reached}");
            reached = now;
        }
    }
    // The moments were the bad ones.
    assert!(unfinished > 0, "no kill fell into the writing of a checkpoint");
    assert!(reached > 100, "it hardly came from the spot: {reached} env steps");

    // The binary itself finds the checkpoint good, and goes on to the end.
    succeed(at, &["eval", "--run=run", "--episodes=1"]);
    let end = reached + 20;
    resume(at, "run", end);
    let left = std::fs::read_dir(run.join("checkpoints")).expect("the folder").flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "left behind: {left:?}");

    // Nothing was lost and nothing happened twice: it is the run that was never killed.
    train(at, SETTINGS, &["--out=whole", &format!("--env-steps={end}"), "--set=train.checkpoint_every=0"]);
    assert_same_state(&latest(&run), &latest(&at.join("whole")));
    assert_eq!(metrics_without_clock(&run), metrics_without_clock(&at.join("whole")));
    println!("{unfinished} of {KILLS} kills while writing, {anew} starts anew, {reached} env steps reached");
}

/// Loads all of the run's last checkpoint; gives the environment steps that it is at.
fn loads(run: &Path) -> Result<u64, Box<dyn std::error::Error>> {
    let config = from_run(run, Vec::new())?;
    let mut trainer = begin(config, rl_learn::Device::Cpu)?;
    checkpoint::open(&latest(run))?.load(|visitor| trainer.visit(visitor))?;
    Ok(trainer.env_steps())
}

/// When the run's last checkpoint was written, if there is one.
fn written(run: &Path) -> Option<SystemTime> {
    std::fs::metadata(latest(run)).ok()?.modified().ok()
}
