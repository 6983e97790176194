//! What measures learners and runs: `bench learner`, the scripts around it, and `train --profile`.

mod binary;

use binary::{DQN, rl_train, run, succeed, text};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

const SMALL: [&str; 7] =
    ["bench", "learner", "--hidden=8,8", "--batch=8", "--obs=3", "--capacity=200", "--seconds=0.05"];

#[test]
fn the_learner_benchmark_prints_its_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (algo, prioritized) in [("dqn", false), ("ddpg", true)] {
        let mut arguments = [&SMALL[..], &["--algo", algo, "--json", "--threads=2", "--device=cpu"]].concat();
        arguments.extend(prioritized.then_some("--prioritized"));
        let printed = succeed(folder.path(), &arguments);
        assert_eq!(printed.lines().count(), 1, "{printed}");
        let line: Value = serde_json::from_str(&printed).expect("JSON");
        for (key, expected) in [
            ("algo", Value::from(algo)),
            ("network", "mlp".into()),
            ("batch", 8.into()),
            ("hidden", vec![8, 8].into()),
            ("obs", 3.into()),
            ("actions", 6.into()),
            ("device", "cpu".into()),
            ("threads", 2.into()),
            ("prioritized", prioritized.into()),
            ("mode", "eager".into()),
            ("cuda_graph", false.into()),
            ("replay_device", "host".into()),
        ] {
            assert_eq!(line[key], expected, "{key}: {printed}");
        }
        for key in [
            "updates_per_s",
            "update_us",
            "p99_us",
            "act_us",
            "gflop_per_update",
            "gflop_per_s",
            "matmul_gflop_per_s",
        ] {
            assert!(line[key].as_f64().is_some_and(|value| value > 0.0), "{key}: {printed}");
        }
        // There, though nobody may have counted.
        assert!(line.get("kernel_calls").is_some() && line.get("host_syncs").is_some(), "{printed}");
    }
    let printed = succeed(folder.path(), &[&SMALL[..], &["--algo=dqn", "--device=cpu"]].concat());
    assert!(printed.contains(" updates/s; an update ") && printed.contains("GFLOP/s"), "{printed}");
}

#[test]
fn what_the_learner_benchmark_cannot_do_is_one_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (more, expected) in [
        (&["--algo=dqm"][..], "did you mean 'dqn'"),
        (&[], "--algo"),
        (&["--algo=dqn", "--repeats=4"], "--repeats"),
        (&["--algo=ddpg", "--network=nature-cnn"], "use --network mlp"),
        (&["--algo=dqn", "--network=rnn"], "nature-cnn"),
        (&["--algo=dqn", "--set=agent.doubel=true"], "agent.double"),
        (&["--algo=dqn", "--device=tpu"], "unknown device 'tpu'"),
        (&["--algo=dqn", "--serve"], "cannot be used with"),
    ] {
        let output = run(folder.path(), &[&SMALL[..], more].concat());
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{more:?}: {said}");
        assert!(said.contains(expected), "{more:?}: {said}");
    }
}

/// Runs one of the Python programs of benches/learner, which need no packages.
fn python(at: &Path, program: &str, arguments: &[&str]) -> String {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/learner").join(program);
    let output =
        Command::new("python3").arg(program).args(arguments).current_dir(at).output().expect("python3");
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// A shell script in `at` that can be run.
fn script(at: &Path, name: &str, lines: &str) -> String {
    let file = at.join(name);
    std::fs::write(&file, format!("#!/bin/sh\n{lines}")).expect("a file");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    file.display().to_string()
}

#[test]
fn learners_take_turns_and_a_table_is_written() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    // It stands for Python with every library: one is twice as slow, one says no, one dies, one talks nonsense.
    let peers = script(
        at,
        "python",
        "case $3 in sbx) echo cannot it has no such thing; exit;; sb3) echo 'Traceback' >&2; echo 'MemoryError: none' >&2; exit 1;;
         torch-compile) echo hello; exec sleep 60;; esac
         echo ready 9.9; while read word seconds; do echo 50; done",
    );
    let report = r#"{"update_us": 10.0, "p99_us": 20.0, "act_us": 5.0, "gflop_per_s": 3.0, "matmul_gflop_per_s": 6.0, "kernel_calls": 77}"#;
    let ours = script(
        at,
        "ours",
        &format!("echo ready 0.1; while read word seconds; do echo 100; done; echo '{report}'"),
    );
    let document = at.join("document.md");
    let (begin, end) = ("<!-- begin: written by scripts/bench-learner -->", "<!-- end: bench-learner -->");
    std::fs::write(&document, format!("before\n{begin}\nold\n{end}\nafter\n")).expect("a file");
    let arguments = [
        "--ours",
        &ours,
        "--python",
        &peers,
        "--rounds=2",
        "--seconds=0.01",
        "--peers=torch,torch-compile,sb3,sbx",
        "--document=document.md",
        "--lines=lines.json",
    ];
    python(at, "compare.py", &arguments);
    let written = std::fs::read_to_string(&document).expect("the document");
    assert!(
        written.starts_with(&format!("before\n{begin}\n")) && written.ends_with(&format!("{end}\nafter\n")),
        "{written}"
    );
    assert!(!written.contains("old"), "{written}");
    for expected in [
        "| updates/s (ours by it) | DQN [64, 64], batch 64 | DQN [256, 256], batch 64 | DQN [256, 256], batch 256 | DDPG [400, 300], batch 256 |",
        "| **ours** | 100 | 100 | 100 | 100 |",
        "| PyTorch 9.9, eager, fused Adam | 50.0 (2.00) | 50.0 (2.00) | 50.0 (2.00) | 50.0 (2.00) |",
        "| our share of it | 0.50 | 0.50 | 0.50 | 0.50 |",
        "| ours: operator calls an update | 77 | 77 | 77 | 77 |",
        "* sbx, DQN [64, 64], batch 64: it has no such thing",
        "* sb3, DQN [64, 64], batch 64: MemoryError: none",
        "* torch-compile, DQN [64, 64], batch 64: it said 'hello' instead of being ready",
    ] {
        assert!(written.contains(expected), "{expected}\nis missing in\n{written}");
    }
    let lines = std::fs::read_to_string(at.join("lines.json")).expect("lines");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 4 * 5);
    assert_eq!((&lines[1]["learner"], &lines[1]["ours_by_it"]), (&"torch".into(), &2.0.into()));
}

#[test]
fn our_side_takes_turns() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let peers = script(at, "python", "echo cannot do that");
    let arguments = [
        "--ours",
        env!("CARGO_BIN_EXE_rl-train"),
        "--python",
        &peers,
        "--cases=tiny",
        "--device=cpu",
        "--rounds=1",
        "--seconds=0.05",
    ];
    let table = python(at, "compare.py", &arguments);
    assert!(
        table.contains("| updates/s (ours by it) | DQN [8, 8], batch 8 | DDPG [8, 8], batch 8 |"),
        "{table}"
    );
    assert!(table.contains("our share of it"), "{table}");
}

/// The spans of a trace: name, thread, begin and end in microseconds.
fn spans(file: &Path) -> Vec<(String, u64, f64, f64)> {
    let text = std::fs::read_to_string(file).expect("the trace");
    let events: Vec<Value> = serde_json::from_str(&text).expect("whole JSON");
    let number = |event: &Value, key: &str| event[key].as_f64().expect("a number");
    let whole = events.iter().filter(|event| event["ph"] == "X");
    whole
        .map(|event| {
            let (ts, dur) = (number(event, "ts"), number(event, "dur"));
            let name = event["name"].as_str().expect("a name").to_string();
            (name, event["tid"].as_u64().expect("a thread"), ts, ts + dur)
        })
        .collect()
}

/// Of two spans of one thread one is within the other, or they are apart.
fn assert_nested(spans: &[(String, u64, f64, f64)]) {
    let mut sorted = spans.to_vec();
    sorted.sort_by(|a, b| (a.1, a.2, -a.3).partial_cmp(&(b.1, b.2, -b.3)).expect("numbers"));
    let mut open: Vec<&(String, u64, f64, f64)> = Vec::new();
    for span in &sorted {
        while open.last().is_some_and(|last| last.1 != span.1 || last.3 <= span.2) {
            open.pop();
        }
        assert!(
            open.last().is_none_or(|outer| span.3 <= outer.3 + 1e-3),
            "{span:?} leaves {:?}",
            open.last()
        );
        open.push(span);
    }
}

#[test]
fn a_profile_has_the_parts_of_a_step() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let arguments =
        [&["train", "--quiet", "--device=cpu", "--out=run", "--env-steps=600", "--profile=trace.json"], DQN]
            .concat();
    succeed(at, &arguments);
    let found = spans(&at.join("trace.json"));
    let count = |name: &str| found.iter().filter(|span| span.0 == name).count();
    // Three environments a step; two updates each fourth environment step, once 100 were random.
    for name in ["act", "env", "insert"] {
        assert_eq!(count(name), 200, "{name}");
    }
    let updates = count("update");
    assert!(
        updates > 200 && ["sample", "stage", "write-back"].iter().all(|name| count(name) == updates),
        "{updates}"
    );
    assert_eq!((count("evaluate"), count("log")), (2, 2));
    assert_nested(&found);

    let output = run(at, &[&["train", "--out=other", "--profile=no/such/trace.json"], DQN].concat());
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("cannot write the profile") && !at.join("other").exists(), "{said}");
}

#[test]
fn a_profile_is_whole_after_ctrl_c() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    for signal in ["-INT", "-KILL"] {
        let trace = at.join(format!("trace{signal}.json"));
        let out = format!("--out=run{signal}");
        let profile = format!("--profile={}", trace.display());
        let arguments =
            [&["train", "--quiet", "--device=cpu", &out, "--env-steps=100000000", &profile], DQN].concat();
        let mut command = rl_train(at);
        let mut child = command.args(arguments).stdout(Stdio::null()).spawn().expect("the binary starts");
        // Until a chunk of spans is on the disk.
        let begun = std::time::Instant::now();
        while std::fs::metadata(&trace).map_or(0, |file| file.len()) < 100_000 {
            assert!(begun.elapsed().as_secs() < 120 && child.try_wait().expect("a child").is_none());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let id = child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().expect("kill").success());
        let status = child.wait().expect("it ends");
        if signal == "-INT" {
            assert_eq!(status.code(), Some(130));
        }
        let found = spans(&trace);
        assert!(found.len() > 1_000 && found.iter().any(|span| span.0 == "update"), "{}", found.len());
        assert_nested(&found);
    }
}
