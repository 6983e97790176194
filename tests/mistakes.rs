//! What the user did wrong, or the machine would not do, is one line and an exit code, and harms no earlier checkpoint.

mod binary;

use binary::{DQN, bytes, checkpoints, latest, rl_train, run, succeed, text, train};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use xxhash_rust::xxh3::xxh3_128;

/// A small finished run, made once; each test spoils a copy of its own.
static RUN: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    train(folder.path(), DQN, &["--out=run", "--env-steps=600"]);
    folder
});

/// A temporary folder with a copy of that run, called `run`.
fn with_run() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    copy(&RUN.path().join("run"), &folder.path().join("run"));
    folder
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("makes a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("copies");
        }
    }
}

/// The exit code is `code`, and standard error has one line that says what happened. Gives that line.
#[track_caller]
fn one_line(output: &Output, code: i32) -> String {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{}: {said}", output.status);
    assert!(said.starts_with("error: ") && said.ends_with('\n'), "{said:?}");
    let line = said.trim_end_matches('\n');
    assert!(line.len() > "error: ".len() && !line.contains('\n') && !line.contains('\r'), "{said:?}");
    for word in ["panicked", "backtrace", "error: error", "0x"] {
        assert!(!line.contains(word), "{line}");
    }
    line.to_string()
}

/// The program refuses `arguments` as the user's mistake, in one line with all of `words` in it, and touches no
/// checkpoint of the folder `run`.
#[track_caller]
fn refused(at: &Path, arguments: &[&str], words: &[&str]) {
    let before = checkpoints(&at.join("run"));
    let output = run(at, arguments);
    let line = one_line(&output, 2);
    for word in words {
        assert!(line.contains(word), "{arguments:?}: no '{word}' in: {line}");
    }
    assert_eq!(text(&output.stdout), "", "{arguments:?}");
    assert!(checkpoints(&at.join("run")) == before, "{arguments:?}: a checkpoint has changed");
}

/// What a new run is refused for.
#[track_caller]
fn new_run_refused(arguments: &[&str], words: &[&str]) {
    let folder = with_run();
    refused(folder.path(), &[&["train", "--quiet", "--out=new"], arguments].concat(), words);
    assert!(!folder.path().join("new").exists(), "{arguments:?}: a folder for nothing");
}

/// What uses the checkpoint of `run`.
const USES: [&[&str]; 3] = [
    &["eval", "--run=run"],
    &["play", "--run=run", "--gif=x.gif"],
    &["train", "--resume=run", "--env-steps=700", "--quiet"],
];

#[test]
fn names_that_there_are_not() {
    new_run_refused(&["--algo=dqn", "--env=CartPool-v1"], &["CartPool-v1", "CartPole-v1"]);
    new_run_refused(&["--algo=ppo", "--env=CartPole-v1"], &["ppo", "dqn", "ddpg"]);
    new_run_refused(&["--algo=dqn"], &["--env"]);
    new_run_refused(&["--env=CartPole-v1"], &["--algo"]);
    new_run_refused(&["--algo=dqn", "--env=CartPole-v1", "--config=nowhere.toml"], &["nowhere.toml"]);
    new_run_refused(
        &["--algo=dqn", "--env=CartPole-v1", "--device=gpu"],
        &["gpu", "auto, cpu, cuda or cuda:N"],
    );
    new_run_refused(
        &["--algo=dqn", "--env=CartPole-v1", "--device=cuda:x"],
        &["cuda:x", "auto, cpu, cuda or cuda:N"],
    );
    new_run_refused(&["--algo=dqn", "--env=CartPole-v1", "--device=cuda:99"], &["cuda:99"]);
    new_run_refused(&["--algo=dqn", "--env=CartPole-v1", "--set=device=\"tpu\""], &["tpu"]);
}

#[test]
fn keys_and_values_that_are_wrong() {
    for (set, words) in [
        ("agent.learning_rat=1", ["agent.learning_rat", "did you mean 'agent.learning_rate'?"]),
        ("n_steps=3", ["n_steps", "did you mean 'replay.n_step'?"]),
        ("replay=3", ["replay", "section"]),
        ("seed", ["seed", "KEY=VALUE"]),
        ("seed=\"x\"", ["seed", "expected u64"]),
        ("seed=1.5", ["seed", "expected u64"]),
        ("train.batch_size=-1", ["batch_size", "-1"]),
        ("train.batch_size=0", ["batch_size", "at least 1"]),
        ("agent.hidden=3", ["agent.hidden", "sequence"]),
        ("agent.hidden=[0]", ["agent.hidden", "between 1"]),
        ("agent.hidden=[4000000000000000000]", ["agent.hidden", "65536"]),
        ("threads=3000000000", ["threads", "at most"]),
        ("train.num_envs=1000000000000", ["train.num_envs", "at most"]),
        ("replay.n_step=4000000000000000000", ["replay.n_step", "at most"]),
        ("eval.final_episodes=4000000000000000000", ["eval.final_episodes", "at most"]),
        ("agent.learning_rate=-1", ["agent.learning_rate", "finite and at least 0"]),
        ("agent.double=2", ["agent.double", "boolean"]),
        ("agent.activation=\"gelu\"", ["agent.activation", "relu"]),
        ("agent.optimizer={kind=\"lion\"}", ["agent.optimizer", "adam"]),
        ("agent.epsilon=2", ["agent.epsilon", "1"]),
        ("replay.gamma=1.5", ["replay.gamma", "between 0 and 1"]),
        ("replay.gamma=nan", ["replay.gamma", "between 0 and 1"]),
        ("replay.beta={kind=\"cubic\"}", ["replay.beta", "linear"]),
        ("replay.capacity=10", ["replay.capacity", "batch"]),
        ("replay.capacity=99999999999999", ["capacity", "lower"]),
        ("env_steps=0", ["env_steps", "at least 1"]),
    ] {
        new_run_refused(&["--algo=dqn", "--env=CartPole-v1", "--device=cpu", "--set", set], &words);
    }
    new_run_refused(&["--algo=dqn", "--env=MinAtar/*"], &["'MinAtar/*' stands for several", "--env"]);
}

#[test]
fn files_that_are_wrong() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (contents, words) in [
        ("seeds = 1\n", ["x.toml", "did you mean 'seed'?"]),
        ("[agent]\nlearning_rat = 1\n", ["x.toml", "did you mean 'agent.learning_rate'?"]),
        ("[trian]\nbatch_size = 1\n", ["x.toml", "trian"]),
        ("seed = \n", ["x.toml", "not valid TOML"]),
        ("seed = 1\nseed = 2\n", ["x.toml", "not valid TOML"]),
        ("[agent\n", ["x.toml", "not valid TOML"]),
        ("\u{0}", ["x.toml", "not valid TOML"]),
        ("seed = \"one\"\n", ["seed", "expected u64"]),
        ("[train]\nnum_envs = 1.5\n", ["num_envs", "expected usize"]),
    ] {
        let path = folder.path().join("x.toml");
        std::fs::write(&path, contents).expect("writes");
        new_run_refused(
            &["--algo=dqn", "--env=CartPole-v1", "--config", path.to_str().expect("UTF-8")],
            &words,
        );
    }
    let path = folder.path().join("x.toml");
    std::fs::write(&path, b"seed = 1 # \xff\n").expect("writes");
    new_run_refused(
        &["--algo=dqn", "--env=CartPole-v1", "--config", path.to_str().expect("UTF-8")],
        &["x.toml"],
    );
    let path = folder.path();
    new_run_refused(
        &["--algo=dqn", "--env=CartPole-v1", "--config", path.to_str().expect("UTF-8")],
        &["folder"],
    );
}

#[test]
fn algorithms_and_environments_that_do_not_suit() {
    new_run_refused(&["--algo=dqn", "--env=Pendulum-v1"], &["dqn", "discrete", "--algo ddpg"]);
    new_run_refused(&["--algo=ddpg", "--env=CartPole-v1"], &["ddpg", "continuous", "--algo dqn"]);
    let folder = with_run();
    refused(folder.path(), &["config", "--algo=dqn", "--env=Pendulum-v1"], &["discrete"]);
}

#[test]
fn folders_that_are_wrong() {
    let folder = with_run();
    let at = folder.path();
    refused(at, &["eval", "--run=nowhere"], &["nowhere"]);
    refused(at, &["play", "--run=nowhere"], &["nowhere"]);
    refused(at, &["train", "--resume=nowhere"], &["nowhere"]);
    refused(at, &["report", "nowhere"], &["nowhere"]);
    refused(at, &["play", "--run=run", "--gif=nowhere/x.gif"], &["nowhere"]);
    refused(at, &["train", "--algo=dqn", "--env=CartPole-v1", "--out=run", "--quiet"], &["run", "--resume"]);
    let below_a_file = "--out=run/config.toml/new";
    refused(at, &["train", "--algo=dqn", "--env=CartPole-v1", below_a_file, "--quiet"], &["run/config.toml"]);
    assert!(!at.join("nowhere").exists());

    // A run that is complete, and one that is to become another.
    refused(at, &["train", "--resume=run"], &["--env-steps"]);
    refused(at, &["train", "--resume=run", "--env-steps=500"], &["--env-steps"]);
    refused(at, &["train", "--resume=run", "--env-steps=700", "--seed=2"], &["seed"]);
    refused(at, &["train", "--resume=run", "--env-steps=700", "--env=Acrobot-v1"], &["env"]);
    refused(at, &["train", "--resume=run", "--env-steps=700", "--set=replay.n_step=1"], &["--set"]);
    refused(at, &["train", "--resume=run", "--env-steps=700", "--device=gpu"], &["gpu"]);

    // A run without its checkpoint.
    std::fs::remove_file(latest(&at.join("run"))).expect("removes");
    for arguments in USES {
        refused(at, arguments, &["no checkpoint", "latest.safetensors"]);
    }
}

#[test]
fn command_lines_that_are_wrong() {
    let folder = with_run();
    let at = folder.path();
    refused(at, &["trian"], &["trian", "train"]);
    refused(at, &["train", "--quite"], &["--quite", "--quiet"]);
    refused(at, &["train", "--seed=x"], &["--seed"]);
    refused(at, &["train", "--seed"], &["--seed"]);
    refused(at, &["train", "--env-steps=-5"], &["--env-steps"]);
    refused(at, &["train", "--algo=dqn", "--algo=ddpg"], &["--algo"]);
    refused(at, &["eval"], &["--run"]);
    refused(at, &["eval", "--run=run", "--episodes=0"], &["--episodes"]);
    refused(at, &["eval", "--run=run", "--checkpoint=first"], &["first", "latest", "best"]);
    refused(at, &["play", "--run=run", "--gif=x.gif", "--terminal"], &["--terminal"]);
    refused(at, &["list", "everything"], &["everything", "envs", "algos"]);
    // Help is no mistake.
    assert!(succeed(at, &["--help"]).contains("train"));
    assert!(succeed(at, &["train", "--help"]).contains("--env-steps"));
    assert!(succeed(at, &["--version"]).starts_with("rl-train "));
}

/// Puts `contents` in the place of the run's last checkpoint and lets `uses` find it.
#[track_caller]
fn checkpoint_refused(at: &Path, contents: &[u8], uses: &[&[&str]], words: &[&str]) {
    std::fs::write(latest(&at.join("run")), contents).expect("writes");
    let config = bytes(&at.join("run/config.toml"));
    let metrics = bytes(&at.join("run/metrics.jsonl"));
    for arguments in uses {
        refused(at, arguments, &[words, &["latest.safetensors"]].concat());
    }
    assert!(!at.join("x.gif").exists());
    assert!(bytes(&at.join("run/config.toml")) == config && bytes(&at.join("run/metrics.jsonl")) == metrics);
}

#[test]
fn a_checkpoint_with_a_flipped_byte() {
    let folder = with_run();
    let at = folder.path();
    let good = bytes(&latest(&at.join("run")));
    let header = 8 + u64::from_le_bytes(good[..8].try_into().expect("eight bytes")) as usize;
    let end = good.len();
    let find =
        |what: &str| good.windows(what.len()).position(|w| w == what.as_bytes()).expect("is in the header");
    // The header's length, its text, the state and the checksum, both ends of each; and what a reader would use.
    let mut positions = vec![0, 3, 7, 8, header - 1, header, end - 17, end - 16, end - 1];
    positions.extend([
        find("rl-train 1") + 2,
        find("rl-train 1") + 9,
        find("CartPole-v1"),
        find("data_offsets") + 16,
    ]);
    positions.extend((1..6).map(|i| header + (end - header) * i / 6));
    for (i, position) in positions.into_iter().enumerate() {
        let mut bad = good.clone();
        bad[position] ^= [0x01, 0x80, 0xff][i % 3];
        checkpoint_refused(at, &bad, &[USES[i % 3]], &[]);
    }
    std::fs::write(latest(&at.join("run")), &good).expect("writes");
    succeed(at, USES[0]);
    succeed(at, USES[2]);
}

#[test]
fn a_checkpoint_that_is_cut_short_or_too_long() {
    let folder = with_run();
    let at = folder.path();
    let good = bytes(&latest(&at.join("run")));
    for (i, length) in [0, 5, 8, 9, 1000, good.len() / 2, good.len() - 1].into_iter().enumerate() {
        checkpoint_refused(at, &good[..length], &[USES[i % 3]], &["cut short"]);
    }
    checkpoint_refused(at, &[&good[..], b"x"].concat(), &USES, &[]);
    checkpoint_refused(at, b"not a checkpoint at all, but some text", &USES, &[]);
}

/// `checkpoint` with something else in the place of `what` in its header, of the same length, and a checksum to match.
fn rewritten(checkpoint: &[u8], what: &str, with: &str) -> Vec<u8> {
    assert_eq!(what.len(), with.len());
    let at = checkpoint.windows(what.len()).position(|w| w == what.as_bytes()).expect("is in the header");
    let mut new = checkpoint.to_vec();
    new[at..at + with.len()].copy_from_slice(with.as_bytes());
    let covered = new.len() - 16;
    let checksum = xxh3_128(&new[..covered]).to_be_bytes();
    new[covered..].copy_from_slice(&checksum);
    new
}

#[test]
fn a_checkpoint_of_another_version_or_kind() {
    let folder = with_run();
    let at = folder.path();
    let good = bytes(&latest(&at.join("run")));
    // The checksum is made right: an unchanged file passes.
    std::fs::write(latest(&at.join("run")), rewritten(&good, "rl-train 1", "rl-train 1")).expect("writes");
    succeed(at, USES[0]);
    checkpoint_refused(
        at,
        &rewritten(&good, "rl-train 1", "rl-train 2"),
        &USES,
        &["'rl-train 2'", "'rl-train 1'"],
    );
    checkpoint_refused(at, &rewritten(&good, "\"format\"", "\"former\""), &USES[..1], &["not a checkpoint"]);
    checkpoint_refused(at, &rewritten(&good, "agent.online", "agent.inline"), &USES, &["agent.online"]);
    checkpoint_refused(
        at,
        &rewritten(&good, "trainer.recent", "trainer.decent"),
        &USES[2..],
        &["trainer.recent"],
    );
}

#[test]
fn a_checkpoint_of_another_run() {
    let folder = with_run();
    let at = folder.path();
    let from_steps = |out: &str, settings: &[&str], steps: u32| {
        train(at, settings, &[&format!("--out={out}"), &format!("--env-steps={steps}")]);
        bytes(&latest(&at.join(out)))
    };
    let from = |out: &str, settings: &[&str]| from_steps(out, settings, 40);
    let small = &["--set=agent.hidden=[16]", "--set=eval.final_episodes=1"];
    let other = from("acrobot", &[&["--algo=dqn", "--env=Acrobot-v1"], &small[..]].concat());
    checkpoint_refused(at, &other, &USES, &["Acrobot-v1", "CartPole-v1"]);
    let other = from("pendulum", &[&["--algo=ddpg", "--env=Pendulum-v1"], &small[..]].concat());
    checkpoint_refused(at, &other, &USES, &["ddpg", "dqn"]);
    let other = from("wider", &[DQN, &["--set=agent.hidden=[17]"]].concat());
    checkpoint_refused(at, &other, &USES, &["does not fit"]);
    // These differ in what only training needs.
    let other = from_steps("larger", &[DQN, &["--set=replay.capacity=900"]].concat(), 600);
    checkpoint_refused(at, &other, &USES[2..], &["does not fit", "room for 400"]);
    let other = from("uniform", &[DQN, &["--set=replay.prioritized=false"]].concat());
    checkpoint_refused(at, &other, &USES[2..], &["does not fit"]);
    let other = from("fewer", &[DQN, &["--set=train.num_envs=2"]].concat());
    checkpoint_refused(at, &other, &USES[2..], &["does not fit"]);
}

#[test]
fn a_disk_that_takes_no_more() {
    let folder = with_run();
    let at = folder.path();
    let before = checkpoints(&at.join("run"));
    assert!(
        before["latest.safetensors"].len() > 24 * 1024
            && bytes(&at.join("run/metrics.jsonl")).len() < 8 * 1024
    );
    // A limit on the length of files, in blocks of 1024 bytes, is a disk that no checkpoint fits on, for anybody and on
    // any machine. The system sends a signal with it, which is to be ignored: a full disk sends none.
    let limited = |arguments: &str| {
        let script = format!(r#"trap "" XFSZ; ulimit -f 16; exec "$0" {arguments}"#);
        let mut command = Command::new("bash");
        command
            .args(["-c", &script, env!("CARGO_BIN_EXE_rl-train")])
            .current_dir(at)
            .env("RUST_BACKTRACE", "1");
        command.output().expect("bash runs")
    };
    let line = one_line(&limited("train --quiet --resume=run --env-steps=900"), 1);
    assert!(line.contains("cannot write checkpoint") && line.contains("safetensors"), "{line}");
    assert!(checkpoints(&at.join("run")) == before, "{:?}", checkpoints(&at.join("run")).keys());

    // Room again: it goes on, and ends where it would have ended.
    succeed(at, &["train", "--quiet", "--resume=run", "--env-steps=900"]);
    train(at, DQN, &["--out=whole", "--env-steps=900"]);
    assert!(bytes(&latest(&at.join("run"))) == bytes(&latest(&at.join("whole"))));

    // A new run's empty beginning fits, and what comes after it does not: the beginning stays, and can be gone on with.
    let line = one_line(
        &limited(&format!("train --quiet --device=cpu --out=new {} --env-steps=600", quoted(DQN))),
        1,
    );
    assert!(line.contains("cannot write checkpoint"), "{line}");
    assert!(checkpoints(&at.join("new")).keys().eq(["latest.safetensors"]));
    succeed(at, &["train", "--quiet", "--resume=new", "--env-steps=600"]);
}

fn quoted(arguments: &[&str]) -> String {
    arguments.iter().map(|argument| format!("'{argument}'")).collect::<Vec<_>>().join(" ")
}

/// `/dev/full` is a disk with no room, to everybody who writes to it.
#[test]
#[cfg(target_os = "linux")]
fn output_that_goes_nowhere() {
    let folder = with_run();
    let at = folder.path();
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has /dev/full");
    for arguments in [
        &["list"][..],
        &["config", "--algo=dqn", "--env=CartPole-v1"],
        &["eval", "--run=run", "--episodes=1", "--json"],
        &["eval", "--run=run", "--episodes=1"],
        &["play", "--run=run", "--terminal"],
        &["report", "run"],
        &["train", "--quiet", "--resume=run", "--env-steps=650"],
    ] {
        let output =
            rl_train(at).args(arguments).stdout(full()).stderr(Stdio::piped()).output().expect("runs");
        let line = one_line(&output, 1);
        assert!(line.contains("No space left"), "{arguments:?}: {line}");
    }
    let line = one_line(&run(at, &["play", "--run=run", "--gif=/dev/full"]), 1);
    assert!(line.contains("No space left"), "{line}");

    // Metrics that cannot be written end the run; the checkpoint from before stays, whole.
    std::fs::create_dir(at.join("new")).expect("makes a folder");
    std::os::unix::fs::symlink("/dev/full", at.join("new/metrics.jsonl")).expect("links");
    let arguments = ["train", "--quiet", "--device=cpu", "--out=new", "--set=train.checkpoint_every=100"];
    let line = one_line(&run(at, &[&arguments[..], DQN].concat()), 1);
    assert!(line.contains("metrics") && line.contains("No space left"), "{line}");
    succeed(at, &["eval", "--run=new", "--episodes=1"]);
}

/// Batch normalization cannot train on one row.
#[test]
fn a_batch_that_is_too_small_for_its_agent() {
    let ddpg = ["--algo=ddpg", "--env=Pendulum-v1", "--device=cpu", "--set=agent.batch_norm=true"];
    new_run_refused(
        &[&ddpg[..], &["--set=train.batch_size=1"]].concat(),
        &["train.batch_size", "at least 2"],
    );
}

#[test]
fn a_run_that_diverges_says_so() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (algo, env, set) in [
        ("dqn", "CartPole-v1", "agent.learning_rate=1e30"),
        ("dqn", "CartPole-v1", "replay.prioritized=true"),
        ("ddpg", "Pendulum-v1", "agent.actor_learning_rate=1e30"),
    ] {
        let out = format!("{algo}-{}", set.len());
        let arguments = [
            &["train", "--quiet", "--device=cpu", "--env-steps=1500", "--set=train.log_every=100"][..],
            &["--set=agent.hidden=[8]", "--set=agent.max_grad_norm=0", "--set=agent.loss=\"mse\""],
            &["--out", &out, "--algo", algo, "--env", env, "--set", set],
            if algo == "dqn" {
                &["--set=agent.learning_rate=1e30"]
            } else {
                &["--set=agent.critic_learning_rate=1e30"]
            },
        ];
        let output = run(folder.path(), &arguments.concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("error: training has diverged: ") && said.lines().count() == 1, "{said}");
    }
}
