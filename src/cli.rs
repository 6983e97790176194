//! The command line: what can be asked for. `commands.rs` does it.

use crate::bench::learner::{self, NetworkKind};
use crate::bench::replay::{MIN_REPEATS, Op, Workload};
use crate::error::{CommandError, Result};
use crate::run::Which;
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use toml::Value;

/// Trains reinforcement-learning agents from a shared replay buffer, through libtorch.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Train an agent, or go on with a run
    Train(Train),
    /// Evaluate a trained policy, greedily
    Eval(Eval),
    /// Watch a trained policy play one episode
    Play(Play),
    /// Measure throughput
    #[command(subcommand)]
    Bench(Bench),
    /// Show the environments and algorithms there are
    List {
        /// Only these
        what: Option<Listed>,
    },
    /// Print the resolved configuration of an algorithm on an environment, each key with its documentation
    Config {
        #[command(flatten)]
        keys: Keys,
    },
    /// Summarize runs of several seeds: their final evaluations, and their learning curves as a picture
    Report {
        /// Folders of runs that have ended
        #[arg(required = true)]
        runs: Vec<PathBuf>,
        /// Draw the learning curves into this SVG file
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
}

/// Flags that stand for configuration keys, and the layers below them.
#[derive(Args)]
pub struct Keys {
    /// Algorithm
    #[arg(long, value_name = "NAME")]
    pub algo: Option<String>,
    /// Environment
    #[arg(long, value_name = "ID")]
    pub env: Option<String>,
    /// TOML file over the defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one key, for example replay.n_step=3; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Seed of everything random
    #[arg(long, value_name = "N", value_parser = toml_integer())]
    pub seed: Option<i64>,
    /// Environment steps to train for
    #[arg(long, value_name = "N", value_parser = toml_integer())]
    pub env_steps: Option<i64>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long)]
    pub device: Option<String>,
}

/// TOML's integers end at 2⁶³ − 1, and no key here is negative.
fn toml_integer() -> clap::builder::RangedI64ValueParser {
    clap::value_parser!(i64).range(0..)
}

impl Keys {
    pub fn flags(&self) -> Vec<(&'static str, Value)> {
        let text = |key, value: &Option<String>| value.clone().map(|v| (key, Value::String(v)));
        let number = |key, value: Option<i64>| value.map(|v| (key, Value::Integer(v)));
        [
            text("algo", &self.algo),
            text("env", &self.env),
            number("seed", self.seed),
            number("env_steps", self.env_steps),
            text("device", &self.device),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

#[derive(Args)]
pub struct Train {
    #[command(flatten)]
    pub keys: Keys,
    /// Folder for the run's files [default: runs/ALGO-ENV-seedN]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Go on with the run in this folder
    #[arg(long, value_name = "DIR")]
    pub resume: Option<PathBuf>,
    /// Print nothing while training
    #[arg(long)]
    pub quiet: bool,
    /// Write where the time goes into FILE, as a trace for chrome://tracing or ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
}

#[derive(Args)]
pub struct Eval {
    /// Folder of the run
    #[arg(long, value_name = "DIR")]
    pub run: PathBuf,
    /// Episodes to play
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub episodes: u32,
    /// Seed of the environments [default: the run's eval.seed]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Which of the run's checkpoints
    #[arg(long, default_value = "latest")]
    pub checkpoint: Which,
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Play {
    /// Folder of the run
    #[arg(long, value_name = "DIR")]
    pub run: PathBuf,
    /// Write a GIF file
    #[arg(long, value_name = "FILE", conflicts_with = "terminal")]
    pub gif: Option<PathBuf>,
    /// Draw in the terminal (the default)
    #[arg(long)]
    pub terminal: bool,
    /// Seed of the environment [default: the run's eval.seed]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Which of the run's checkpoints
    #[arg(long, default_value = "latest")]
    pub checkpoint: Which,
}

#[derive(Subcommand)]
pub enum Bench {
    /// The replay buffer: transitions inserted, drawn and updated a second
    Replay(BenchReplay),
    /// A learner: updates a second from a full buffer
    Learner(BenchLearner),
    /// Environments: steps a second under random actions
    Env(BenchEnv),
}

#[derive(Args)]
pub struct BenchEnv {
    /// Environment
    #[arg(long, value_name = "ID")]
    pub env: String,
    /// Environments stepped together
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub envs: u32,
    /// Threads that step them, the calling one included; 0 is one a core
    #[arg(long, value_name = "T", default_value_t = 1)]
    pub threads: u16,
    /// Length of the measurement, all repeats together
    #[arg(long, default_value_t = 2.5)]
    pub seconds: f64,
    /// Windows measured; the one with the median rate is reported
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(MIN_REPEATS as i64..))]
    pub repeats: u32,
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Wait for lines 'window SECONDS' and answer each with steps a second and the median µs of a step of all, to take turns
    /// with others
    #[arg(long, conflicts_with = "json")]
    pub serve: bool,
}

#[derive(Args)]
pub struct BenchReplay {
    /// What a row holds
    #[arg(long, default_value = "small")]
    pub workload: Workload,
    /// What is measured
    #[arg(long, default_value = "uniform")]
    pub op: Op,
    /// Rows in one call
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
    /// Threads that insert; add and add-batch have at least one
    #[arg(long, default_value_t = 0)]
    pub writers: u16,
    /// Threads that draw; the other operations have at least one
    #[arg(long, default_value_t = 0)]
    pub samplers: u16,
    /// Transitions kept [default: 1,000,000; 50,000 for atari]
    #[arg(long)]
    pub capacity: Option<usize>,
    /// Steps folded into a row by add
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub n_step: u16,
    /// Length of the measurement, all repeats together
    #[arg(long, default_value_t = 2.5)]
    pub seconds: f64,
    /// Windows measured; the one with the median rate is reported
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(MIN_REPEATS as i64..))]
    pub repeats: u32,
    /// Measure other libraries' buffers in turn with ours: NAME,NAME,... or without a value those that are installed
    #[arg(long, value_name = "NAMES", num_args = 0..=1, default_missing_value = "all", value_delimiter = ',')]
    pub peers: Option<Vec<String>>,
    /// Folder that the peers are installed in [default: benches/peers of the checkout; RL_TRAIN_PEERS]
    #[arg(long, value_name = "DIR", requires = "peers")]
    pub peers_dir: Option<PathBuf>,
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct BenchLearner {
    /// Algorithm
    #[arg(long, value_name = "NAME")]
    pub algo: String,
    /// Rows of a mini-batch
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
    /// Width of each hidden layer [default: the algorithm's]
    #[arg(long, value_name = "N,N,...", value_delimiter = ',')]
    pub hidden: Option<Vec<i64>>,
    /// Elements of an observation
    #[arg(long, value_name = "N", default_value_t = 17)]
    pub obs: usize,
    /// Discrete actions to choose from, or elements of a continuous one
    #[arg(long, value_name = "N", default_value_t = 6)]
    pub actions: usize,
    /// auto, cpu, cuda or cuda:N
    #[arg(long)]
    pub device: Option<String>,
    /// What the algorithm sees through
    #[arg(long, default_value = "mlp")]
    pub network: NetworkKind,
    /// Threads that libtorch may use inside one operation
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub threads: u32,
    /// Draw by priority, and write priorities back
    #[arg(long)]
    pub prioritized: bool,
    /// Transitions in the buffer [default: 100,000; 10,000 for nature-cnn]
    #[arg(long, value_name = "N")]
    pub capacity: Option<usize>,
    /// Set another key, for example agent.double=false; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Length of the measurement, all repeats together
    #[arg(long, value_name = "S", default_value_t = 2.5)]
    pub seconds: f64,
    /// Windows measured; the one with the median rate is reported
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(learner::MIN_REPEATS as i64..))]
    pub repeats: u32,
    /// Take turns with others: measure whenever a line `window SECONDS` comes on standard input
    #[arg(long, conflicts_with_all = ["seconds", "repeats"])]
    pub serve: bool,
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

impl BenchLearner {
    /// The flags that stand for configuration keys.
    pub fn flags(&self) -> Vec<(&'static str, Value)> {
        let images = self.network == NetworkKind::NatureCnn;
        let capacity = self.capacity.unwrap_or(if images { 10_000 } else { 100_000 });
        let mut flags = vec![
            ("train.batch_size", Value::Integer(self.batch.into())),
            ("threads", Value::Integer(self.threads.into())),
            ("replay.capacity", Value::Integer(capacity.max(self.batch as usize) as i64)),
            ("replay.prioritized", Value::Boolean(self.prioritized)),
        ];
        flags.extend(self.device.clone().map(|device| ("device", Value::String(device))));
        let widths = |hidden: &Vec<i64>| hidden.iter().map(|&width| Value::Integer(width)).collect();
        flags.extend(self.hidden.as_ref().map(|hidden| ("agent.hidden", Value::Array(widths(hidden)))));
        flags
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Listed {
    Envs,
    Algos,
}

/// The command line; a mistake in it is one line, as any other. Help is printed, and ends the program.
pub fn parse() -> Result<Cli> {
    Cli::try_parse().map_err(|e| {
        if !e.use_stderr() || e.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            e.exit();
        }
        // A paragraph each: what is wrong, tips, the usage, where help is.
        let text = e.render().to_string();
        let paragraphs = text.split("\n\n").map(|p| p.split_whitespace().collect::<Vec<_>>().join(" "));
        let said: Vec<String> = paragraphs.filter(|p| !p.starts_with("Usage:")).collect();
        CommandError::Usage(said.join("; ").trim_start_matches("error: ").to_string())
    })
}
