//! TensorBoard's own reader reads the events of a run. `make test` brings it, as `scripts/setup-tests` alone does.

use rl_train::metrics::{LogPoint, Metrics};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// The scalars of the events in `folder`.
fn read_events(folder: &Path) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".venv-test/bin/python");
    assert!(python.exists(), "{} is missing; run scripts/setup-tests", python.display());
    let output = Command::new(python)
        .arg(root.join("tests/read_events.py"))
        .arg(folder)
        .output()
        .expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the script prints JSON")
}

fn point(env_steps: u64) -> LogPoint {
    LogPoint { env_steps, updates: env_steps / 4, wall_s: env_steps as f64 / 1000.0 }
}

#[test]
fn tensorboard_reads_the_events() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut metrics = Metrics::create(folder.path()).expect("creates");
    metrics.log(point(100), &[("train/return", 21.5), ("train/loss", 0.125)]).expect("logs");
    metrics.log(point(1_000_000), &[("train/return", -200.0)]).expect("logs");
    metrics.log(point(5_000_000_000), &[("ε", 0.0)]).expect("logs");
    assert_eq!(
        read_events(folder.path()),
        json!({
            "train/return": [[100, 21.5], [1_000_000, -200.0]],
            "train/loss": [[100, 0.125]],
            "ε": [[5_000_000_000_u64, 0.0]],
        })
    );
}

#[test]
fn tensorboard_forgets_what_a_resumed_run_repeats() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut first = Metrics::create(folder.path()).expect("creates");
    for env_steps in [100, 200, 300] {
        first.log(point(env_steps), &[("loss", 1.0)]).expect("logs");
    }
    let mut second = Metrics::resume(folder.path(), 200).expect("resumes");
    for env_steps in [300, 400] {
        second.log(point(env_steps), &[("loss", 2.0)]).expect("logs");
    }
    assert_eq!(
        read_events(folder.path()),
        json!({ "loss": [[100, 1.0], [200, 1.0], [300, 2.0], [400, 2.0]] })
    );
}
