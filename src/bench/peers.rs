//! Replay buffers of other libraries, measured in turn with ours.
//!
//! Each is a process of its own, started with the task in its arguments: `benches/peers/peer.py` for the Python
//! libraries, `benches/peers/rust` for the Rust crates. It fills its buffer and says `ready VERSION`, or
//! `cannot REASON`. Then each line `window SECONDS` makes it measure that long and answer with transitions a second. In
//! between it sleeps, so that it costs the others nothing but memory.

#[cfg(test)]
mod tests;

use super::replay::{Op, Workload};
use serde::Serialize;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The environment variable that names the folder of the peers.
pub const FOLDER_VARIABLE: &str = "RL_TRAIN_PEERS";

/// How long a peer may take to fill its buffer.
const START_SECONDS: u64 = 300;
/// How much longer than asked for a window may take.
const WINDOW_SECONDS: u64 = 60;

/// What runs a peer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Runner {
    /// Python in this virtual environment.
    Python(&'static str),
    /// The program of the Rust crates.
    Rust,
}

/// All peers there are. Reverb wants versions of its own of what the others want as well.
const KNOWN: [(&str, Runner); 9] = [
    ("cpprb", Runner::Python(".venv")),
    ("tianshou", Runner::Python(".venv")),
    ("flashbax", Runner::Python(".venv")),
    ("torchrl", Runner::Python(".venv")),
    ("sb3", Runner::Python(".venv")),
    ("reverb", Runner::Python(".venv-reverb")),
    ("border", Runner::Rust),
    ("rlox", Runner::Rust),
    ("thrust", Runner::Rust),
];

/// Why peers cannot be measured.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum PeerError {
    /// There is no folder with the peers' programs.
    #[error(
        "the peers are not here: run this in a checkout of the repository after `make bench-peers` (or `make setup-peers`, which only installs), or name its benches/peers with --peers-dir"
    )]
    NoFolder,
    /// The folder is not one.
    #[error("{} has no peer.py; --peers-dir is the folder benches/peers of a checkout", .0.display())]
    NotTheFolder(PathBuf),
    /// No peer is called that.
    #[error("{found:?} is no peer; there are {expected}")]
    Unknown {
        /// What came.
        found: String,
        /// What there is.
        expected: String,
    },
    /// A peer that was asked for is not installed.
    #[error(
        "not installed: {names}; run `make bench-peers` (or `make setup-peers`, which only installs){more}"
    )]
    NotInstalled {
        /// The peers' names.
        names: String,
        /// What else to do.
        more: &'static str,
    },
}

/// A peer that is installed.
#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    /// What it is called.
    pub name: &'static str,
    program: Vec<PathBuf>,
}

/// The folder of the peers: `given`, else what [`FOLDER_VARIABLE`] names, else `benches/peers` of the checkout that the
/// current folder or the program lies in.
///
/// # Errors
/// When it is not there.
pub fn folder(given: Option<&Path>) -> Result<PathBuf, PeerError> {
    let named = given.map(Path::to_path_buf).or_else(|| std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from));
    if let Some(folder) = named {
        return if folder.join("peer.py").is_file() {
            Ok(folder)
        } else {
            Err(PeerError::NotTheFolder(folder))
        };
    }
    let starts = [std::env::current_dir(), std::env::current_exe()];
    let above = |start: &PathBuf| -> Option<PathBuf> {
        let mut folders = start.ancestors().map(|folder| folder.join("benches/peers"));
        folders.find(|folder| folder.join("peer.py").is_file())
    };
    starts.iter().flatten().find_map(above).ok_or(PeerError::NoFolder)
}

/// The peers of `names`, or with the single name `all` those that are installed, in the order of [`folder`]'s list.
///
/// # Errors
/// When a name is not known, one of them is not installed, or none is.
pub fn choose(folder: &Path, names: &[String]) -> Result<Vec<Peer>, PeerError> {
    let all = names == ["all"];
    if let Some(found) = names.iter().find(|name| !all && !KNOWN.iter().any(|(known, _)| known == name)) {
        let expected = KNOWN.map(|(name, _)| name).join(", ");
        return Err(PeerError::Unknown { found: found.clone(), expected });
    }
    let (mut peers, mut missing) = (Vec::new(), Vec::new());
    for (name, runner) in KNOWN.iter().filter(|(name, _)| all || names.iter().any(|n| n == name)) {
        let program = match runner {
            Runner::Python(venv) => vec![folder.join(venv).join("bin/python"), folder.join("peer.py")],
            Runner::Rust => vec![folder.join("rust/target/release/peers")],
        };
        if program.iter().all(|file| file.is_file()) {
            peers.push(Peer { name, program });
        } else {
            missing.push(*name);
        }
    }
    if peers.is_empty() || !(all || missing.is_empty()) {
        let more = if missing == ["reverb"] { " with REVERB=1 in the environment" } else { "" };
        return Err(PeerError::NotInstalled { names: missing.join(", "), more });
    }
    Ok(peers)
}

/// What a peer is to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    pub(super) workload: Workload,
    pub(super) op: Op,
    pub(super) batch: usize,
    pub(super) capacity: usize,
}

/// What was measured of a peer: the line that `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct PeerReport {
    /// What it is called.
    pub peer: &'static str,
    /// The version of the library.
    pub version: Option<String>,
    /// What the rows look like.
    pub workload: Workload,
    /// What was measured.
    pub op: Op,
    /// Rows a draw, or an insert of `add-batch`.
    pub batch: usize,
    /// Rows kept.
    pub capacity: usize,
    /// Transitions a second, the median of its windows.
    pub transitions_per_s: Option<f64>,
    /// Our rate by its rate, the median of the rounds: both of a round are measured within seconds.
    pub ratio: Option<f64>,
    /// Why there is no rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_measured: Option<String>,
}

/// A peer's process, waiting to be told to measure.
pub(super) struct Running {
    child: Child,
    orders: ChildStdin,
    answers: Receiver<String>,
    /// The last line of its standard error.
    complaint: Arc<Mutex<String>>,
    pub(super) version: String,
}

impl Peer {
    /// Starts it and waits until its buffer is full; in words why that did not work.
    pub(super) fn start(&self, task: Task) -> Result<Running, String> {
        let mut command = Command::new(&self.program[0]);
        command.args(&self.program[1..]).args(["--peer", self.name]);
        command.args(["--workload", &kebab(&task.workload), "--op", &kebab(&task.op)]);
        command.args(["--batch", &task.batch.to_string(), "--capacity", &task.capacity.to_string()]);
        // One thread, as ours is, and no GPU.
        for pool in ["OMP", "MKL", "OPENBLAS", "NUMBA"] {
            command.env(format!("{pool}_NUM_THREADS"), "1");
        }
        command.env("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1");
        command.envs([("JAX_PLATFORMS", "cpu"), ("CUDA_VISIBLE_DEVICES", ""), ("TF_CPP_MIN_LOG_LEVEL", "3")]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("{}: {e}", self.program[0].display()))?;

        let orders = child.stdin.take().expect("a pipe was asked for");
        let (said, answers) = channel();
        let out = BufReader::new(child.stdout.take().expect("a pipe was asked for"));
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
        let complaint = Arc::new(Mutex::new(String::new()));
        let (err, last) =
            (BufReader::new(child.stderr.take().expect("a pipe was asked for")), complaint.clone());
        std::thread::spawn(move || {
            for line in err.lines().map_while(Result::ok).filter(|line| !line.trim().is_empty()) {
                *last.lock().unwrap_or_else(PoisonError::into_inner) = line.trim().to_string();
            }
        });

        let mut running = Running { child, orders, answers, complaint, version: String::new() };
        let answer = running.answer(Duration::from_secs(START_SECONDS))?;
        match answer.split_once(' ') {
            Some(("ready", version)) => running.version = version.to_string(),
            Some(("cannot", reason)) => return Err(reason.to_string()),
            _ => return Err(format!("it said {answer:?} instead of being ready")),
        }
        Ok(running)
    }
}

impl Running {
    /// Transitions a second during `window`; in words why there are none.
    pub(super) fn window(&mut self, window: Duration) -> Result<f64, String> {
        // That it has gone shows when the answer is read.
        let _ = writeln!(self.orders, "window {}", window.as_secs_f64()).and_then(|()| self.orders.flush());
        let answer = self.answer(window + Duration::from_secs(WINDOW_SECONDS))?;
        match answer.parse::<f64>() {
            Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
            _ => Err(format!("it answered {answer:?} instead of a rate")),
        }
    }

    fn answer(&mut self, limit: Duration) -> Result<String, String> {
        self.answers.recv_timeout(limit).map_err(|reason| match reason {
            RecvTimeoutError::Timeout => format!("it said nothing for {} s", limit.as_secs()),
            RecvTimeoutError::Disconnected => {
                // Both pipes close as it ends; its last words may still be on their way.
                std::thread::sleep(Duration::from_millis(50));
                let last = self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
                format!("it ended: {}", if last.is_empty() { "without a word" } else { &last })
            }
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many peers may hold full buffers at the same time: each takes `bytes` for its rows and some for its libraries.
pub(super) fn at_once(available: Option<usize>, bytes: usize) -> usize {
    const LIBRARIES: usize = 700 << 20;
    let Some(available) = available else { return 1 };
    // A fifth stays free, and some buffers pad their rows.
    (available / 5 * 4 / (bytes / 4).saturating_mul(5).saturating_add(LIBRARIES)).max(1)
}

/// The table for people, with ours first.
pub fn table(ours_per_s: f64, peers: &[PeerReport]) -> String {
    let mut text = "| buffer | version | transitions/s | ours by it |\n|---|---|---:|---:|\n".to_string();
    text += &format!("| rl-replay | {} | {} | 1 |\n", env!("CARGO_PKG_VERSION"), rate(ours_per_s));
    for peer in peers {
        let version = peer.version.as_deref().unwrap_or("");
        text += &match (peer.transitions_per_s, peer.ratio, &peer.not_measured) {
            (Some(per_s), Some(ratio), None) => {
                format!("| {} | {version} | {} | {ratio:.2} |\n", peer.peer, rate(per_s))
            }
            (_, _, reason) => {
                format!("| {} | {version} | {} | |\n", peer.peer, reason.as_deref().unwrap_or("not measured"))
            }
        };
    }
    text
}

/// A rate with three digits and a unit.
fn rate(per_s: f64) -> String {
    let (value, unit) = if per_s >= 1e6 { (per_s / 1e6, "M") } else { (per_s / 1e3, "k") };
    let digits = if value >= 100.0 { 0 } else { usize::from(value < 10.0) + 1 };
    format!("{value:.digits$} {unit}")
}

/// As the command line spells it.
fn kebab(value: &impl clap::ValueEnum) -> String {
    value.to_possible_value().expect("no variant is skipped").get_name().to_string()
}
