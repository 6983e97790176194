//! `rl-train bench learner`: how many updates a second an algorithm makes, and how long it takes to act.
//!
//! An update is all of it: draw, gather, what the algorithm computes, and, where rows are drawn by priority, writing the new
//! priorities back. The buffer is full of random rows. Beside the rate stands that of one large matrix product on the same
//! device and threads, measured between the repeats: no update that consists of matrix products is faster, and a machine that
//! others use shows in both.
//!
//! Other libraries take turns with ours in windows; `scripts/bench-learner` conducts, and [`LearnerBench::serve`] is our side.

mod arithmetic;
mod task;

use super::measure::{Durations, median_by};
use crate::config::Config;
use crate::error::{CommandError, Result, io, usage};
use arithmetic::{MatMul, Network};
use clap::ValueEnum;
use rl_learn::device;
use serde::Serialize;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};
use task::Task;

/// The fewest windows to be measured.
pub const MIN_REPEATS: usize = 5;
/// Observations acted on between two windows, one at a time.
const ACTS: usize = 200;
/// On a GPU the host waits for the device only now and then, and an update's duration is the mean of so many.
const UPDATES_BETWEEN_WAITS: u64 = 32;

/// What an algorithm sees through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkKind {
    /// A perceptron on a vector of f32.
    #[default]
    Mlp,
    /// The convolutions of Mnih et al. (2015) on 4 × 84 × 84 u8, where the algorithm offers them.
    NatureCnn,
}

/// One measurement to be made.
#[derive(Clone, Debug)]
pub struct LearnerBench {
    /// The algorithm with all its keys; `train.batch_size`, `replay`, `threads` and `device` count too.
    pub config: Config,
    /// What it sees through.
    pub network: NetworkKind,
    /// Elements of an observation; a [`NetworkKind::NatureCnn`] has its own.
    pub obs: usize,
    /// Discrete actions to choose from, or elements of a continuous one.
    pub actions: usize,
    /// Seconds of all windows together.
    pub seconds: f64,
    /// Windows measured, at least [`MIN_REPEATS`]; the one with the median rate is reported.
    pub repeats: usize,
}

/// What was measured: the line that `--json` prints, field by field. What is null was not measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The algorithm.
    pub algo: String,
    /// What it saw through.
    pub network: NetworkKind,
    /// Rows of a mini-batch.
    pub batch: usize,
    /// Width of each hidden layer.
    pub hidden: Vec<i64>,
    /// Elements of an observation.
    pub obs: usize,
    /// Discrete actions, or elements of a continuous one.
    pub actions: usize,
    /// Where it was computed: `cpu` or `cuda:N`.
    pub device: String,
    /// Threads that libtorch could use inside an operation.
    pub threads: u32,
    /// Whether rows were drawn by priority.
    pub prioritized: bool,
    /// Rows in the buffer.
    pub capacity: usize,
    /// How an update was launched: `eager`, operation by operation, or `graph`, a captured CUDA graph.
    pub mode: &'static str,
    /// Where the buffer's rows were: `host`, or the name of a device.
    pub replay_device: String,
    /// Whether a captured CUDA graph was replayed.
    pub cuda_graph: bool,
    /// Updates a second.
    pub updates_per_s: f64,
    /// Median duration of an update; on a GPU of the mean of 32 in a row.
    pub update_us: f64,
    /// 99th percentile of the same.
    pub p99_us: f64,
    /// Median duration of acting greedily on one observation.
    pub act_us: f64,
    /// Floating-point operations of the matrix products (and convolutions) that an update cannot do without, in 10⁹.
    pub gflop_per_update: f64,
    /// The same times the rate.
    pub gflop_per_s: f64,
    /// What one large f32 matrix product reached, between the windows.
    pub matmul_gflop_per_s: f64,
    /// Operator calls of one update.
    pub kernel_calls: u64,
    /// Times that an update made the host wait for the device.
    pub host_syncs: u64,
}

/// What one window gave.
struct Window {
    updates_per_s: f64,
    durations: Durations,
    act_us: f64,
    matmul_gflop_per_s: f64,
}

/// A learner that is ready to be measured, and what was measured so far.
struct Measuring {
    task: Task,
    matmul: MatMul,
    windows: Vec<Window>,
}

impl LearnerBench {
    /// Fills a buffer and measures. `progress` is told in words what is going on.
    ///
    /// # Errors
    /// [`CommandError::Usage`] for settings that make no sense or that the algorithm does not offer.
    pub fn run(&self, mut progress: impl FnMut(&str)) -> Result<Report> {
        if !(self.seconds > 0.0 && self.seconds <= 86_400.0) {
            return usage(format!("--seconds is {}; it must be above 0 and at most a day", self.seconds));
        }
        if self.repeats < MIN_REPEATS {
            return usage(format!("--repeats is {}; it must be at least {MIN_REPEATS}", self.repeats));
        }
        let mut measuring = self.prepare()?;
        let window = Duration::from_secs_f64(self.seconds / self.repeats as f64);
        for repeat in 1..=self.repeats {
            progress(&format!("measuring, {repeat} of {}", self.repeats));
            measuring.window(window)?;
        }
        self.report(measuring)
    }

    /// Takes turns with others: says `ready VERSION` when the buffer is full, then for each line `window SECONDS` of `orders` measures
    /// that long and answers with updates a second. The report of all windows when `orders` end; `None` when there was no window.
    ///
    /// # Errors
    /// As [`run`](Self::run), and when an order is not understood or nobody reads the answers.
    pub fn serve(&self, orders: impl BufRead, mut answers: impl Write) -> Result<Option<Report>> {
        let mut measuring = self.prepare()?;
        let mut say = |text: String| {
            let said = writeln!(answers, "{text}").and_then(|()| answers.flush());
            said.map_err(io("cannot answer the program that conducts"))
        };
        say(format!("ready {}", env!("CARGO_PKG_VERSION")))?;
        for order in orders.lines() {
            let order = order.unwrap_or_default();
            let seconds = order.strip_prefix("window ").and_then(|s| s.trim().parse::<f64>().ok());
            let Some(seconds) = seconds.filter(|s| *s > 0.0 && *s <= 86_400.0) else {
                return usage(format!("an order is {order:?}; it must be `window SECONDS`"));
            };
            let rate = measuring.window(Duration::from_secs_f64(seconds))?;
            say(rate.to_string())?;
        }
        if measuring.windows.is_empty() { Ok(None) } else { self.report(measuring).map(Some) }
    }

    fn capacity(&self) -> usize {
        self.config.replay.capacity
    }

    fn prepare(&self) -> Result<Measuring> {
        let device = device::choose(&self.config.device)?;
        device::set_threads(self.config.threads);
        let mut task = Task::new(self, device)?;
        // What is made at the first update (optimizer state, kernels' choices, a captured graph) is not measured.
        task.update_for(Duration::from_millis(200), &mut Durations::default())?;
        Ok(Measuring { task, matmul: MatMul::new(device), windows: Vec::new() })
    }

    fn report(&self, mut measuring: Measuring) -> Result<Report> {
        let counts = measuring.task.counts()?;
        let Measuring { mut task, windows, .. } = measuring;
        let median = |of: fn(&Window) -> f64| median_by(windows.iter().map(of).collect(), |value| *value);
        let (act_us, matmul_gflop_per_s) = (median(|w| w.act_us), median(|w| w.matmul_gflop_per_s));
        let middle = median_by(windows, |window| window.updates_per_s);
        let network = Network::new(self, task.hidden());
        let gflop_per_update = network.gflop_per_update()?;
        Ok(Report {
            algo: self.config.algo.clone(),
            network: self.network,
            batch: self.config.train.batch_size,
            hidden: task.hidden().to_vec(),
            obs: task.obs_elements(),
            actions: self.actions,
            device: device::name(task.device()),
            threads: self.config.threads,
            prioritized: self.config.replay.prioritized,
            capacity: self.capacity(),
            mode: if task.replays_graph() { "graph" } else { "eager" },
            replay_device: task.replay_device(),
            cuda_graph: task.replays_graph(),
            updates_per_s: middle.updates_per_s,
            update_us: middle.durations.quantile_us(0.5),
            p99_us: middle.durations.quantile_us(0.99),
            act_us,
            gflop_per_update,
            gflop_per_s: gflop_per_update * middle.updates_per_s,
            matmul_gflop_per_s,
            kernel_calls: counts.kernel_calls,
            host_syncs: counts.host_syncs,
        })
    }
}

impl Measuring {
    /// Measures during `window`, and returns updates a second. Everything else is measured before it begins, so that nothing of
    /// ours runs when the next one's window does.
    fn window(&mut self, window: Duration) -> Result<f64> {
        let matmul_gflop_per_s = self.matmul.gflop_per_s();
        let act_us = self.task.act_us(ACTS)?;
        let mut durations = Durations::default();
        let updates_per_s = self.task.update_for(window, &mut durations)?;
        self.windows.push(Window { updates_per_s, durations, act_us, matmul_gflop_per_s });
        Ok(updates_per_s)
    }
}

/// The error of a learner.
fn failed(error: impl std::fmt::Display) -> CommandError {
    CommandError::Failed(error.to_string())
}

/// How long `work` takes.
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begin = Instant::now();
    let out = work();
    (out, begin.elapsed())
}

#[cfg(test)]
mod tests;
