//! What a script can rely on: the commands' output and the files of a run's folder.

mod binary;

use binary::{
    DDPG, DQN, assert_same_state, best, bytes, checkpoints, latest, metrics, python, resume, run, script,
    succeed, text, train,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The keys of an object, sorted.
fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn sorted<const N: usize>(mut names: [&str; N]) -> Vec<&str> {
    names.sort_unstable();
    names.to_vec()
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

const EVALUATION: [&str; 6] =
    ["episodes", "mean_return", "std_return", "min_return", "max_return", "mean_length"];

fn assert_is_evaluation(eval: &Value, episodes: u64) {
    assert_eq!(keys(eval), sorted(EVALUATION));
    assert_eq!(eval["episodes"], episodes);
    let number = |key: &str| eval[key].as_f64().expect("a number");
    assert!(number("min_return") <= number("mean_return") && number("mean_return") <= number("max_return"));
    assert!(number("std_return") >= 0.0);
}

#[test]
fn the_files_of_a_run() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (at, run_folder) = (folder.path(), folder.path().join("deep/run"));
    let arguments =
        [&["train", "--device=cpu", "--out=deep/run", "--env-steps=900", "--seed=3"], DQN].concat();
    let output = run(at, &arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    // The last lines say what was reached, and where the files are.
    let said = text(&output.stdout);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[lines.len() - 1], "run: deep/run");
    assert!(lines[lines.len() - 2].starts_with("greedy evaluation over 2 episodes: "), "{said}");
    // Progress goes to standard error, a line each time where that is no terminal.
    let said = text(&output.stderr);
    assert!(said.contains("evaluation") && said.contains("env steps/s") && !said.contains('\x1b'), "{said}");

    let names = names_in(&run_folder);
    let events: Vec<&String> = names.iter().filter(|name| name.starts_with("events.out.tfevents.")).collect();
    assert_eq!(events.len(), 1);
    let others: Vec<&String> =
        names.iter().filter(|name| !name.starts_with("events.out.tfevents.")).collect();
    assert_eq!(others, ["checkpoints", "config.toml", "metrics.jsonl", "summary.json"]);
    assert_eq!(names_in(&run_folder.join("checkpoints")), ["best.safetensors", "latest.safetensors"]);

    let summary: Value = serde_json::from_slice(&bytes(&run_folder.join("summary.json"))).expect("JSON");
    let expected = [
        "algo",
        "env",
        "seed",
        "device",
        "env_steps",
        "updates",
        "episodes",
        "wall_s",
        "env_steps_per_s",
        "updates_per_s",
        "eval",
        "version",
        "git",
    ];
    assert_eq!(keys(&summary), sorted(expected));
    assert_eq!((&summary["algo"], &summary["env"]), (&"dqn".into(), &"CartPole-v1".into()));
    assert_eq!(
        (&summary["seed"], &summary["env_steps"], &summary["device"]),
        (&3.into(), &900.into(), &"cpu".into())
    );
    assert_eq!(summary["version"], env!("CARGO_PKG_VERSION"));
    let speed =
        summary["updates"].as_f64().expect("a number") / summary["wall_s"].as_f64().expect("a number");
    assert!((summary["updates_per_s"].as_f64().expect("a number") / speed - 1.0).abs() < 1e-9);
    assert_is_evaluation(&summary["eval"], 2);

    let lines = metrics(&run_folder);
    for line in &lines {
        for key in ["env_steps", "updates", "wall_s"] {
            assert!(line[key].is_number(), "{line}");
        }
        assert!(line.as_object().expect("an object").values().all(Value::is_number), "{line}");
    }
    let at_steps = |name: &str| -> Vec<u64> {
        let with = lines.iter().filter(|line| line.get(name).is_some());
        with.map(|line| line["env_steps"].as_u64().expect("a number")).collect()
    };
    // Three environments side by side pass these multiples.
    assert_eq!(at_steps("train/return"), [252, 501, 750]);
    assert_eq!(at_steps("learn/loss"), [252, 501, 750]);
    assert_eq!(at_steps("eval/return"), [300, 600, 900]);

    // What was trained last is what is evaluated, on the episodes that the summary has.
    let eval: Value =
        serde_json::from_str(&succeed(at, &["eval", "--run=deep/run", "--episodes=2", "--json"]))
            .expect("JSON");
    assert_eq!(eval, summary["eval"]);
}

#[test]
fn tensorboard_shows_what_metrics_jsonl_has() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    train(at, DQN, &["--out=run", "--env-steps=600"]);
    resume(at, "run", 900);
    // TensorBoard has single precision.
    let mut expected: BTreeMap<String, Vec<(u64, f32)>> = BTreeMap::new();
    for line in metrics(&at.join("run")) {
        let step = line["env_steps"].as_u64().expect("a number");
        for (name, value) in
            line.as_object().expect("an object").iter().filter(|(name, _)| name.contains('/'))
        {
            let value = value.as_f64().expect("a number") as f32;
            expected.entry(name.clone()).or_default().push((step, value));
        }
    }
    let output = python().arg(script("read_events.py")).arg(at.join("run")).output().expect("python runs");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown: BTreeMap<String, Vec<(u64, f32)>> = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(shown, expected);
}

#[test]
fn a_runs_configuration_runs_it_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    for (name, settings) in [("dqn", DQN), ("ddpg", DDPG)] {
        train(at, settings, &[&format!("--out={name}"), "--env-steps=600", "--seed=5"]);
        let (config, again) = (format!("--config={name}/config.toml"), format!("--out={name}-again"));
        succeed(at, &["train", "--quiet", &config, &again]);
        let (first, second) = (at.join(name), at.join(format!("{name}-again")));
        assert!(bytes(&latest(&first)) == bytes(&latest(&second)), "{name}");
        assert!(bytes(&best(&first)) == bytes(&best(&second)), "{name}");
        assert!(bytes(&first.join("config.toml")) == bytes(&second.join("config.toml")), "{name}");

        // Another seed is another run, in everything that is drawn.
        let other = format!("--out={name}-other");
        succeed(at, &["train", "--quiet", &config, &other, "--seed=6"]);
        assert_ne!(binary::state(&latest(&at.join(format!("{name}-other")))), binary::state(&latest(&first)));
    }
}

#[test]
fn a_run_without_a_name_gets_one_of_its_own() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    for name in ["dqn-CartPole-v1-seed4", "dqn-CartPole-v1-seed4-2", "dqn-CartPole-v1-seed4-3"] {
        let arguments = [&["train", "--quiet", "--seed=4", "--env-steps=30"], DQN].concat();
        assert!(succeed(at, &arguments).ends_with(&format!("run: runs/{name}\n")));
        assert!(at.join("runs").join(name).join("summary.json").exists());
    }
}

#[test]
fn evaluation_is_one_line_of_json() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    train(at, DQN, &["--out=run", "--env-steps=600"]);
    let before = checkpoints(&at.join("run"));
    let eval = |more: &[&str]| -> Value {
        let printed = succeed(at, &[&["eval", "--run=run", "--json", "--episodes=20"], more].concat());
        assert_eq!(printed.matches('\n').count(), 1, "{printed}");
        serde_json::from_str(&printed).expect("JSON")
    };
    let one = eval(&[]);
    assert_is_evaluation(&one, 20);
    assert_eq!(eval(&[]), one);
    assert_ne!(eval(&["--seed=8"]), one);
    assert_is_evaluation(&eval(&["--checkpoint=best"]), 20);
    // The folder has all that is needed, wherever it is.
    std::fs::rename(at.join("run"), at.join("moved")).expect("renames");
    let moved = succeed(at, &["eval", "--run=moved", "--json", "--episodes=20"]);
    assert_eq!(serde_json::from_str::<Value>(&moved).expect("JSON"), one);
    assert!(checkpoints(&at.join("moved")) == before);
}

#[test]
fn lists_and_configurations() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let first_words = |printed: &str| -> Vec<String> {
        printed.lines().filter_map(|line| line.split_whitespace().next()).map(String::from).collect()
    };
    let envs = first_words(&succeed(at, &["list", "envs"]));
    for env in ["CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Acrobot-v1", "Pendulum-v1"] {
        assert!(envs.iter().any(|name| name == env), "{env} is not in {envs:?}");
    }
    // Spaces, time limit, and whether it is there.
    let pendulum = succeed(at, &["list", "envs"]);
    let pendulum = pendulum.lines().find(|line| line.starts_with("Pendulum-v1")).expect("it is listed");
    for part in ["200 steps", "obs Box([-1.0 -1.0 -8.0]", "action Box(-2.0, 2.0, (1,), float32)", "built in"]
    {
        assert!(pendulum.contains(part), "{part} is not in {pendulum}");
    }
    let algos = first_words(&succeed(at, &["list", "algos"]));
    assert!(["dqn", "ddpg"].iter().all(|algo| algos.iter().any(|name| name == algo)), "{algos:?}");
    let all = first_words(&succeed(at, &["list"]));
    assert!(envs.iter().chain(&algos).all(|name| all.contains(name)));

    // What `config` prints is a configuration, that of a run with the same flags, and each key has its doc above it.
    for (algo, env) in [("dqn", "CartPole-v1"), ("ddpg", "Pendulum-v1"), ("dqn", "Acrobot-v1")] {
        let (algo, env) = (format!("--algo={algo}"), format!("--env={env}"));
        let printed = succeed(at, &["config", &algo, &env, "--set=replay.n_step=2"]);
        let lines: Vec<&str> = printed.lines().collect();
        for (above, line) in lines.iter().zip(&lines[1..]) {
            let is_key = !line.starts_with('#') && !line.is_empty();
            assert!(!is_key || above.starts_with("# "), "no doc above: {line}");
        }
        assert!(printed.contains("\nn_step = 2\n"));
        std::fs::write(at.join("x.toml"), &printed).expect("writes");
        assert_eq!(succeed(at, &["config", "--config=x.toml"]), printed);
    }
    let printed = succeed(at, &["config", "--algo=dqn", "--env=CartPole-v1", "--seed=9", "--env-steps=77"]);
    assert!(printed.contains("\nseed = 9\n") && printed.contains("\nenv_steps = 77\n"));
    // Flags override --set, which overrides the file, which overrides the defaults.
    std::fs::write(at.join("y.toml"), "seed = 1\nenv_steps = 1\n[replay]\nn_step = 11\n").expect("writes");
    let layers = ["--config=y.toml", "--set=seed=22", "--set=env_steps=22", "--env-steps=33"];
    let printed = succeed(at, &[&["config", "--algo=dqn", "--env=CartPole-v1"], &layers[..]].concat());
    assert!(
        ["\nn_step = 11\n", "\nseed = 22\n", "\nenv_steps = 33\n"].iter().all(|line| printed.contains(line))
    );
}

#[test]
fn episodes_are_drawn() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    // An untrained policy, whose episode is short: the terminal shows it at the speed of life.
    train(at, DQN, &["--out=run", "--env-steps=30"]);
    let played = succeed(at, &["play", "--run=run", "--gif=x.gif"]);
    let length: usize = played.split_whitespace().nth(2).and_then(|word| word.parse().ok()).expect("steps");
    assert_eq!(played, format!("one episode: {length} steps, return {length}.0\n"));
    let gif = bytes(&at.join("x.gif"));
    assert_eq!((&gif[..6], gif.last()), (&b"GIF89a"[..], Some(&0x3b)));
    // Each frame comes with an extension of four bytes that says how long it is shown.
    let frames = gif.windows(3).filter(|bytes| *bytes == [0x21, 0xf9, 0x04]).count();
    assert!(frames > 1 && frames >= length / 2, "{frames} frames of {length} steps");

    let drawn = succeed(at, &["play", "--run=run", "--terminal"]);
    assert!(drawn.ends_with(&played), "the same episode");
    assert_eq!(drawn.matches("\x1b[H").count(), length + 1, "a picture for each state");
    assert!(drawn.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "dots in braille");
    assert!(drawn.contains("\x1b[?25h"), "the cursor comes back");
}

#[test]
fn quiet_is_quiet() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let output = run(at, &[&["train", "--quiet", "--out=run", "--env-steps=600"], DQN].concat());
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    let output = run(at, &["train", "--quiet", "--resume=run", "--env-steps=700"]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn the_replay_benchmark_prints_its_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    const KEYS: [&str; 14] = [
        "workload",
        "op",
        "batch",
        "writers",
        "samplers",
        "capacity",
        "row_bytes",
        "transitions_per_s",
        "inserted_per_s",
        "p50_us",
        "p99_us",
        "bytes_per_transition",
        "memcpy_gb_per_s",
        "threads",
    ];
    let short = ["bench", "replay", "--json", "--batch=32"];
    for workload in ["small", "mujoco", "atari"] {
        let capacity = if workload == "atari" { "--capacity=64" } else { "--capacity=2000" };
        for op in ["add", "add-batch", "uniform", "prioritized", "prioritized-update"] {
            // Four threads each need a turn in a window, on a busy machine too.
            for threads in [&["--seconds=0.05"][..], &["--writers=2", "--samplers=2", "--seconds=0.5"]] {
                let settings = [&["--workload", workload, "--op", op, capacity], threads].concat();
                let printed = succeed(folder.path(), &[&short[..], &settings].concat());
                assert_eq!(printed.lines().count(), 1, "{printed}");
                let line: Value = serde_json::from_str(&printed).expect("JSON");
                let keys: Vec<&str> =
                    line.as_object().expect("an object").keys().map(String::as_str).collect();
                let mut expected = KEYS.to_vec();
                // The line may grow; what CONTRACT.md names stays.
                expected.retain(|key| !keys.contains(key));
                assert!(expected.is_empty(), "{expected:?} lack in {printed}");
                assert_eq!((&line["workload"], &line["op"]), (&workload.into(), &op.into()));
                assert!(line["transitions_per_s"].as_f64().is_some_and(|rate| rate > 0.0), "{printed}");
                if threads.len() > 1 {
                    assert_eq!(
                        (&line["writers"], &line["samplers"], &line["threads"]),
                        (&2.into(), &2.into(), &4.into())
                    );
                    assert!(line["inserted_per_s"].as_f64().is_some_and(|rate| rate > 0.0), "{printed}");
                }
            }
        }
    }
}

#[test]
fn the_environment_benchmark_prints_its_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (env, threads) in [("CartPole-v1", 1), ("Pendulum-v1", 2)] {
        let (env_flag, threads_flag) = (format!("--env={env}"), format!("--threads={threads}"));
        let short = ["bench", "env", &env_flag, "--envs=4", &threads_flag, "--seconds=0.05", "--json"];
        let printed = succeed(folder.path(), &short);
        assert_eq!(printed.lines().count(), 1, "{printed}");
        let line: Value = serde_json::from_str(&printed).expect("JSON");
        assert_eq!(
            (&line["env"], &line["envs"], &line["threads"]),
            (&env.into(), &4.into(), &threads.into())
        );
        for key in ["steps_per_s", "p50_us"] {
            assert!(line[key].as_f64().is_some_and(|value| value > 0.0), "{key} in {printed}");
        }
    }
    let output = run(folder.path(), &["bench", "env", "--env=CartPole-v2"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("did you mean 'CartPole-v1'"));
}

#[test]
fn the_number_of_threads_that_step_environments_changes_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let few = ["--env-steps=900"];
    train(at, DQN, &[&few[..], &["--out=one"]].concat());
    train(at, DQN, &[&few[..], &["--out=three", "--set=train.env_threads=3"]].concat());
    let summary = |run: &str| -> Value {
        let file = std::fs::read_to_string(at.join(run).join("summary.json")).expect("a summary");
        serde_json::from_str(&file).expect("JSON")
    };
    assert_eq!(summary("one")["eval"], summary("three")["eval"]);
    assert_same_state(&latest(&at.join("one")), &latest(&at.join("three")));
}

#[test]
fn the_replay_benchmark_takes_turns_with_peers() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let small =
        ["bench", "replay", "--capacity=2000", "--batch=32", "--seconds=0.05", "--peers-dir=installed"];
    let fails = |more: &[&str], expected: &str| {
        let output = run(at, &[&small[..], more].concat());
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
        assert!(said.contains(expected), "{said}");
    };
    fails(&["--peers"], "installed has no peer.py");
    std::fs::create_dir_all(at.join("installed/.venv/bin")).expect("a folder");
    std::fs::write(at.join("installed/peer.py"), "").expect("a file");
    fails(&["--peers"], "run `make bench-peers`");

    // A script that stands for Python, and knows one of the libraries.
    let python = at.join("installed/.venv/bin/python");
    let script = "#!/bin/sh\n[ $3 = cpprb ] || { echo cannot do that; exit; }\necho ready 1.2; while read w; do echo 500; done";
    std::fs::write(&python, script).expect("a file");
    std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    fails(&["--peers=cpprb,reverb"], "not installed: reverb");
    fails(&["--peers=nobody"], "\"nobody\" is no peer");
    fails(&["--peers", "--samplers=2"], "one thread");
    fails(&["--repeats=4", "--peers"], "--repeats");

    let printed = succeed(at, &[&small[..], &["--peers", "--json"]].concat());
    let lines: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 1 + 5, "{printed}");
    assert!(
        lines[0].get("peer").is_none() && lines[0]["gather_limit_per_s"].as_f64() > Some(0.0),
        "{printed}"
    );
    let ours = lines[0]["transitions_per_s"].as_f64().expect("a rate");
    assert_eq!((&lines[1]["peer"], &lines[1]["transitions_per_s"]), (&"cpprb".into(), &500.0.into()));
    let ratio = lines[1]["ratio"].as_f64().expect("a ratio");
    assert!((ratio / (ours / 500.0) - 1.0).abs() < 0.01, "every round has one rate of theirs: {printed}");
    assert_eq!((&lines[2]["peer"], &lines[2]["not_measured"]), (&"tianshou".into(), &"do that".into()));

    let printed = succeed(at, &[&small[..], &["--peers=cpprb"]].concat());
    assert!(printed.contains("| cpprb | 1.2 | 0.50 k | "), "{printed}");
}

#[test]
fn the_table_of_the_benchmarks_is_written() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    let ours = r#"{"workload":"small","op":"uniform","batch":256,"transitions_per_s":60e6,"gather_limit_per_s":96e6,"gather_row_bytes":64,"memcpy_gb_per_s":19.26}"#;
    let peers = r#"{"peer":"cpprb","version":"11.0.0","workload":"small","op":"uniform","transitions_per_s":5e6,"ratio":12.04}
{"peer":"border","version":"0.0.8","workload":"small","op":"uniform","transitions_per_s":16.94e6,"ratio":3.541}
{"peer":"reverb","version":null,"workload":"small","op":"uniform","transitions_per_s":null,"ratio":null,"not_measured":"it hung"}"#;
    let lines = file("lines", &format!("{ours}\n{peers}\n"));
    const BEGIN: &str = "<!-- begin: written by scripts/bench-peers -->";
    let document = file("document.md", &format!("before\n{BEGIN}\nold\n<!-- end -->\nafter\n"));
    let table = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/table.py");
    for _ in 0..2 {
        let mut command = binary::python();
        command.arg(&table).arg(&lines).arg(&document).args(["7 windows of 0.25 s", "0.1"]);
        assert!(command.status().expect("Python starts").success());
        let written = std::fs::read_to_string(&document).expect("the document");
        for expected in [
            "before\n<!-- begin",
            "<!-- end -->\nafter\n",
            "7 windows of 0.25 s for each figure; load average 0.1 before",
            "\n|  | small, 256 |\n| --- | ---: |\n| **rl-replay** | **60.0 M** |\n| cpprb 11.0.0 | 5.00 M (12.0) |\n",
            "| border 0.0.8 | *16.9 M (3.54)* |\n| gather limit | 96.0 M of 64 B |\n| our share of it | 0.62 |\n",
            "* reverb, uniform, small: it hung\n",
        ] {
            assert!(written.contains(expected), "{expected:?} lacks in:\n{written}");
        }
        assert!(!written.contains("old") && !written.contains("busy"), "{written}");
        assert_eq!(written.matches("rl-replay").count(), 1, "{written}");
    }
}
