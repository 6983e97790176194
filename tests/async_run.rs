//! The whole program acting and learning at once: its files, and that it goes on after it was stopped or killed.

mod binary;

use binary::{DDPG, DQN, latest, metrics, resume, rl_train, run, succeed, text, train};
use rand::RngExt;
use rl_train::checkpoint;
use rl_train::config::from_run;
use rl_train::replay::rate_limiter;
use rl_train::training::begin;
use rl_train::wiring::{Stream, rng};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

const ASYNC: &[&str] = &["--set=train.mode=async", "--set=train.actors=2"];

/// What a run's last checkpoint says: environment steps, updates. Loading it checks that no step is missing or there twice; here the draws
/// are, too.
fn loads(run: &Path) -> (u64, u64) {
    let config = from_run(run, Vec::new()).expect("a configuration");
    let mut training = begin(config.clone(), rl_learn::Device::Cpu).expect("a run");
    let checkpoint = checkpoint::open(&latest(run)).unwrap_or_else(|e| panic!("{e}"));
    checkpoint.load(|visitor| training.visit(visitor)).unwrap_or_else(|e| panic!("{e}"));
    let state = binary::state(&latest(run));
    let count = |name: &str| u64::from_le_bytes(state[name][..].try_into().expect("one number"));
    let (inserted, sampled) = (count("replay.stored.inserted"), count("replay.stored.limiter.sampled"));
    assert_eq!(sampled, training.updates() * config.train.batch_size as u64);
    let limiter = rate_limiter(&config);
    let due = inserted.saturating_sub(limiter.min_size as u64) as f64 * limiter.samples_per_insert;
    assert!((due - sampled as f64).abs() <= limiter.error_buffer, "{due} due, {sampled} drawn");
    (training.env_steps(), training.updates())
}

/// Metrics come in the order of environment steps, none twice.
fn check_metrics(run: &Path) {
    for name in ["learn/loss", "eval/return", "async/staleness", "async/staleness_max"] {
        let steps: Vec<u64> = metrics(run)
            .iter()
            .filter(|line| line.get(name).is_some())
            .map(|line| line["env_steps"].as_u64().expect("a number"))
            .collect();
        assert!(!steps.is_empty() && steps.is_sorted_by(|a, b| a < b), "{name}: {steps:?}");
    }
}

fn spawn(at: &Path, arguments: &[&str]) -> Child {
    let mut command = rl_train(at);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts")
}

fn written(run: &Path) -> Option<SystemTime> {
    std::fs::metadata(latest(run)).ok()?.modified().ok()
}

#[test]
fn both_algorithms_run_and_go_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    for (name, settings) in [("dqn", DQN), ("ddpg", DDPG)] {
        let run = at.join(name);
        let settings =
            [settings, ASYNC, &["--set=train.num_envs=3", "--set=train.checkpoint_every=300"]].concat();
        train(at, &settings, &[&format!("--out={name}"), "--env-steps=1000"]);
        let (env_steps, updates) = loads(&run);
        // The last actor to begin has at most two environments.
        assert!((1000..1002).contains(&env_steps) && updates > 100, "{env_steps} {updates}");
        resume(at, name, 2000);
        let (env_steps, more) = loads(&run);
        assert!((2000..2002).contains(&env_steps) && more > updates, "{env_steps} {more}");
        check_metrics(&run);
        let summary: serde_json::Value =
            serde_json::from_slice(&binary::bytes(&run.join("summary.json"))).expect("JSON");
        assert_eq!(summary["env_steps"], env_steps);
        succeed(at, &["eval", &format!("--run={name}"), "--episodes=1", "--checkpoint=best"]);
    }
}

#[test]
fn kills_lose_nothing_that_was_saved() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (at, run) = (folder.path(), folder.path().join("run"));
    let mut rng = rng(3, Stream::Sampling);
    let (mut reached, mut learned) = (0, 0);
    train(at, DQN, &[ASYNC, &["--out=run", "--env-steps=300", "--set=train.checkpoint_every=20"]].concat());
    for kill in 0..25 {
        let before = written(&run);
        let mut child = spawn(at, &["train", "--quiet", "--resume=run", "--env-steps=1000000"]);
        let began = Instant::now();
        while kill % 5 > 0 && written(&run) == before && child.try_wait().expect("ours").is_none() {
            assert!(began.elapsed() < Duration::from_secs(60), "no checkpoint after a minute");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(rng.random_range(0..100_000)));
        child.kill().expect("kills");
        let output = child.wait_with_output().expect("the binary ends");
        assert_eq!(output.status.signal(), Some(9), "it ended by itself: {}", text(&output.stderr));
        let (env_steps, updates) = loads(&run);
        assert!(env_steps >= reached && updates >= learned, "kill {kill}: {env_steps} after {reached}");
        (reached, learned) = (env_steps, updates);
    }
    assert!(reached > 1_000, "it hardly came from the spot: {reached} env steps");
    resume(at, "run", reached + 100);
    let (env_steps, _) = loads(&run);
    // The second actor has one of the three environments.
    assert!((reached + 100..reached + 102).contains(&env_steps));
    check_metrics(&run);
    println!("{reached} env steps reached, {learned} updates");
}

#[test]
fn an_interrupted_run_saves_and_goes_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (at, run_folder) = (folder.path(), folder.path().join("run"));
    let arguments = [&["train", "--device=cpu", "--out=run", "--env-steps=1000000"], DQN, ASYNC].concat();
    let mut child = spawn(at, &arguments);
    let began = Instant::now();
    let lines =
        || std::fs::read_to_string(run_folder.join("metrics.jsonl")).unwrap_or_default().lines().count();
    while lines() < 3 {
        assert!(began.elapsed() < Duration::from_secs(60), "no metrics after a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
    let logged = metrics(&run_folder).last().expect("a line")["env_steps"].as_u64().expect("a number");
    let interrupt = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status();
    assert!(interrupt.expect("sh runs").success());
    let status = child.wait().expect("the binary ends");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().expect("piped"), &mut said).expect("UTF-8");
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(said.contains("rl-train train --resume run"), "{said}");
    let (env_steps, _) = loads(&run_folder);
    assert!(env_steps >= logged, "{env_steps} saved, {logged} logged");
    resume(at, "run", env_steps + 500);
    check_metrics(&run_folder);
}

/// Something breaks while actors act: one line, exit code 1, and no thread that keeps the process alive.
#[test]
fn a_run_that_diverges_ends() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings = ["train", "--quiet", "--device=cpu", "--out=run", "--env-steps=1000000"];
    let wild = ["--set=agent.learning_rate=1e30", "--set=agent.max_grad_norm=0"];
    let output = run(folder.path(), &[&settings, DQN, ASYNC, &wild].concat());
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.starts_with("error: ") && said.contains("diverged") && said.lines().count() == 1, "{said}");
}
