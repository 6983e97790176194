use super::*;
use crate::bench::replay::{MIN_REPEATS, ReplayBench};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

/// A folder as `make setup-peers` leaves it, in which a shell script stands for the Python of `.venv`, and for the Rust
/// crates if `rust` says so. It is given peer.py, --peer and the name first.
fn installed(script: &str, rust: bool) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("peer.py"), "").unwrap();
    let write = |file: PathBuf, text: &str| {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    };
    write(at.join(".venv/bin/python"), &format!("#!/bin/sh\n{script}"));
    if rust {
        write(at.join("rust/target/release/peers"), &format!("#!/bin/sh\nset -- rust \"$@\"\n{script}"));
    }
    folder
}

/// A peer with ten transitions a second more in each window, which notes what it was asked for.
const GOOD: &str = r#"
echo "$@" >> "$(dirname "$0")/asked"
echo noise >&2
echo ready 1.2.3
rate=1000
while read word seconds; do
  echo "$word $seconds" >> "$(dirname "$0")/asked"
  rate=$((rate + 10)); echo $rate
done"#;

fn names(peers: &[Peer]) -> Vec<&str> {
    peers.iter().map(|peer| peer.name).collect()
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

fn bench() -> ReplayBench {
    ReplayBench {
        workload: Workload::Small,
        op: Op::AddBatch,
        batch: 16,
        writers: 0,
        samplers: 0,
        capacity: Some(1_000),
        n_step: 1,
        seconds: 0.05,
        repeats: MIN_REPEATS,
    }
}

#[test]
fn what_is_installed_is_chosen() {
    let folder = installed(GOOD, false);
    let choose = |names: &[&str]| choose(folder.path(), &owned(names));
    assert_eq!(names(&choose(&["all"]).unwrap()), ["cpprb", "tianshou", "flashbax", "torchrl", "sb3"]);
    assert_eq!(names(&choose(&["sb3", "cpprb"]).unwrap()), ["cpprb", "sb3"]);
    let message = |names: &[&str]| choose(names).unwrap_err().to_string();
    assert_eq!(
        message(&["cpprb", "border", "rlox"]),
        "not installed: border, rlox; run `make bench-peers` (or `make setup-peers`, which only installs)"
    );
    assert!(message(&["reverb"]).ends_with("with REVERB=1 in the environment"));
    assert!(message(&["cprb"]).starts_with("\"cprb\" is no peer; there are cpprb, tianshou, "));
    assert!(message(&["all", "cpprb"]).starts_with("\"all\" is no peer"));
    let with_rust = installed(GOOD, true);
    assert_eq!(super::choose(with_rust.path(), &owned(&["all"])).unwrap().len(), 8);
}

#[test]
fn without_peers_there_is_one_line_that_says_what_to_do() {
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(folder(Some(empty.path())), Err(PeerError::NotTheFolder(empty.path().into())));
    fs::write(empty.path().join("peer.py"), "").unwrap();
    assert_eq!(folder(Some(empty.path())).as_deref(), Ok(empty.path()));
    let none = choose(empty.path(), &owned(&["all"])).unwrap_err().to_string();
    assert!(none.starts_with("not installed: cpprb, ") && none.contains("make bench-peers"), "{none}");
    assert_eq!(none.lines().count(), 1);
}

#[test]
fn a_peer_takes_turns_and_is_compared() {
    let folder = installed(GOOD, true);
    let peers = choose(folder.path(), &owned(&["cpprb", "rlox"])).unwrap();
    let (ours, reports) = bench().run(&peers, |_| ()).unwrap();
    for (report, name) in reports.iter().zip(["cpprb", "rlox"]) {
        assert_eq!((report.peer, report.version.as_deref()), (name, Some("1.2.3")));
        assert_eq!(report.transitions_per_s, Some(1030.0), "the median of five");
        let ratio = report.ratio.unwrap();
        assert!((ratio / (ours.transitions_per_s / 1030.0) - 1.0).abs() < 0.9, "{ratio}, {ours:?}");
    }
    let asked = |file: &str| fs::read_to_string(folder.path().join(file)).unwrap();
    let task = "--workload small --op add-batch --batch 16 --capacity 1000";
    let windows = "window 0.01\n".repeat(MIN_REPEATS);
    let peer_py = folder.path().join("peer.py");
    let expected = format!("{} --peer cpprb {task}\n{windows}", peer_py.display());
    assert_eq!(asked(".venv/bin/asked"), expected);
    assert_eq!(asked("rust/target/release/asked"), format!("rust --peer rlox {task}\n{windows}"));

    let line = serde_json::to_value(&reports[0]).unwrap();
    let expected = ["batch", "capacity", "op", "peer", "ratio", "transitions_per_s", "version", "workload"];
    let mut keys: Vec<&String> = line.as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, expected);
}

#[test]
fn what_goes_wrong_with_one_is_said_and_the_others_go_on() {
    let script = r#"
case $3 in
  cpprb) echo cannot it has no such thing; exit ;;
  tianshou) echo "Traceback" >&2; echo "MemoryError: none left" >&2; exit 1 ;;
  flashbax) echo hello ;;
  torchrl) echo ready 1; read line; echo nan ;;
  sb3) echo ready 1; read line; echo 5; read line; echo "died of it" >&2; exit 1 ;;
  rlox) echo ready 1; while read line; do echo 7; done ;;
esac
exec sleep 60"#;
    let folder = installed(script, true);
    let named = ["cpprb", "tianshou", "flashbax", "torchrl", "sb3", "rlox"];
    let peers = choose(folder.path(), &owned(&named)).unwrap();
    let (ours, reports) = bench().run(&peers, |_| ()).unwrap();
    let reasons: Vec<_> = reports.iter().map(|report| report.not_measured.as_deref().unwrap_or("")).collect();
    let expected = [
        "it has no such thing",
        "it ended: MemoryError: none left",
        "it said \"hello\" instead of being ready",
        "it answered \"nan\" instead of a rate",
        "it ended: died of it",
        "",
    ];
    assert_eq!(reasons, expected);
    assert!(reports[..5].iter().all(|report| report.transitions_per_s.is_none() && report.ratio.is_none()));

    let table = table(ours.transitions_per_s, &reports);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2 + 1 + 6);
    assert!(lines.iter().all(|line| line.matches('|').count() == 5), "{table}");
    assert_eq!(lines[3], "| cpprb |  | it has no such thing | |");
    assert!(lines[8].starts_with("| rlox | 1 | 0.01 k | "), "{table}");
}

#[test]
fn a_peer_is_ended_with_its_run() {
    let folder = installed("echo ready 1; echo $$ > \"$0.pid\"; exec sleep 60", false);
    let peer = choose(folder.path(), &owned(&["cpprb"])).unwrap().remove(0);
    let task = Task { workload: Workload::Atari, op: Op::PrioritizedUpdate, batch: 1, capacity: 1 };
    let running = peer.start(task).unwrap();
    let process = Path::new("/proc").join(running.child.id().to_string());
    assert!(process.exists());
    drop(running);
    assert!(!process.exists());
}

#[test]
fn memory_decides_how_many_run_at_once() {
    const GIB: usize = 1 << 30;
    assert_eq!(at_once(None, GIB), 1);
    assert_eq!(at_once(Some(GIB / 2), GIB), 1, "one has to run");
    // 50,000 rows of frames are 2.6 GiB: with its libraries nearly 4, and a fifth of the memory stays free.
    assert_eq!(at_once(Some(21 * GIB), 50_000 * 56_472), 4);
    assert!(at_once(Some(21 * GIB), 48_000_000) >= 9);
    assert_eq!(at_once(Some(GIB), usize::MAX), 1);
}

#[test]
fn rates_have_three_digits() {
    for (per_s, expected) in
        [(130e6, "130 M"), (16.94e6, "16.9 M"), (1.8e6, "1.80 M"), (286_000.0, "286 k"), (7_100.0, "7.10 k")]
    {
        assert_eq!(rate(per_s), expected);
    }
}
