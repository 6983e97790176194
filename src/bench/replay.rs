//! `rl-train bench replay`: how many transitions a second go into the buffer and come out of it.
//!
//! Threads insert and draw as fast as they can during a window; that is repeated, and the repeat with the median rate
//! is reported. Beside it stand the rates at which this machine copied memory and gathered rows of this size between the
//! repeats, because hosts that are shared with others differ from minute to minute: compare ratios, not numbers of two
//! days. For the same reason the [peers](super::peers) take turns with ours, a window each.

use super::buffer::{Buffer, Rows};
use super::gather::GatherLimit;
use super::measure::{Copier, available_bytes, median_by, resident_bytes};
use super::peers::{Peer, PeerError, PeerReport, Running, Task, at_once};
use super::work::{self, Shift, Work};
use clap::ValueEnum;
use rl_replay::ReplayError;
use serde::Serialize;
use std::time::Duration;

/// The fewest windows to be measured.
pub const MIN_REPEATS: usize = 5;
/// A gather limit is measured no longer than this a time: it has warmed up within a millisecond.
const GATHER_WINDOW: Duration = Duration::from_millis(100);

/// What the rows look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Observation 4 × f32, discrete action: CartPole.
    Small,
    /// Observation 17 × f32, action 6 × f32: HalfCheetah.
    Mujoco,
    /// Observation 4 × 84 × 84 u8, discrete action; each frame stored once, and drawn as windows of 5.
    Atari,
}

impl Workload {
    /// Rows kept unless the user says otherwise.
    pub fn default_capacity(self) -> usize {
        match self {
            Workload::Small | Workload::Mujoco => 1_000_000,
            Workload::Atari => 50_000,
        }
    }

    /// Bytes of a row as the peers keep it: observation and next observation whole.
    fn whole_row_bytes(self) -> usize {
        match self {
            Workload::Small => 2 * 4 * 4 + 16,
            Workload::Mujoco => 2 * 17 * 4 + 6 * 4 + 8,
            Workload::Atari => 2 * 4 * 84 * 84 + 16,
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// Insert one row a call.
    Add,
    /// Insert a batch of rows a call.
    AddBatch,
    /// Draw a batch uniformly and gather it.
    Uniform,
    /// Draw a batch by priority, gather it, make its importance weights.
    Prioritized,
    /// As `prioritized`, and write new priorities for the batch.
    PrioritizedUpdate,
}

impl Op {
    pub(super) fn inserts(self) -> bool {
        matches!(self, Op::Add | Op::AddBatch)
    }

    pub(super) fn is_prioritized(self) -> bool {
        matches!(self, Op::Prioritized | Op::PrioritizedUpdate)
    }
}

/// One measurement to be made.
#[derive(Clone, Debug)]
pub struct ReplayBench {
    /// What the rows look like.
    pub workload: Workload,
    /// What is measured.
    pub op: Op,
    /// Rows a draw, and an insert of `add-batch`.
    pub batch: usize,
    /// Threads that insert; at least one for the inserting operations. Beside a drawing operation they insert one row
    /// a call.
    pub writers: usize,
    /// Threads that draw; at least one for the drawing operations. Beside an inserting operation they draw uniformly.
    pub samplers: usize,
    /// Rows kept; the workload's own capacity when `None`.
    pub capacity: Option<usize>,
    /// Steps that a row spans; only [`Op::Add`] folds more than one.
    pub n_step: usize,
    /// Seconds of all windows together.
    pub seconds: f64,
    /// Windows measured, at least [`MIN_REPEATS`]; the one with the median rate is reported.
    pub repeats: usize,
}

/// What was measured: the line that `--json` prints, field by field.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What the rows look like.
    pub workload: Workload,
    /// What was measured.
    pub op: Op,
    /// Rows a draw.
    pub batch: usize,
    /// Threads that inserted.
    pub writers: usize,
    /// Threads that drew.
    pub samplers: usize,
    /// Rows kept.
    pub capacity: usize,
    /// Bytes of one row, without padding.
    pub row_bytes: usize,
    /// Rows a second of the operation: drawn, or for the inserting ones inserted, by all threads together.
    pub transitions_per_s: f64,
    /// Rows a second inserted by all threads together.
    pub inserted_per_s: f64,
    /// Rows a second drawn by all threads together.
    pub drawn_per_s: f64,
    /// Median duration of a call of the operation.
    pub p50_us: f64,
    /// 99th percentile of the duration of a call of the operation.
    pub p99_us: f64,
    /// 99.99th percentile of the duration of an insert, 0 without one.
    pub insert_p9999_us: f64,
    /// 99.99th percentile of the duration of a draw, with the write-back if there is one; 0 without one.
    pub draw_p9999_us: f64,
    /// Resident memory that the full buffer takes, for each row of its capacity.
    pub bytes_per_transition: f64,
    /// Gigabytes a second that one thread copies from memory to memory, measured between the repeats.
    pub memcpy_gb_per_s: f64,
    /// Rows of `gather_row_bytes` bytes a second that one thread copies from random places, measured between the repeats:
    /// what memory allows a draw.
    pub gather_limit_per_s: f64,
    /// Bytes of a row, in whole cache lines.
    pub gather_row_bytes: usize,
    /// Threads at work.
    pub threads: usize,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A setting makes no sense.
    #[error("--{name} is {value}; it must be {expected}")]
    Setting {
        /// The flag.
        name: &'static str,
        /// What came.
        value: f64,
        /// What it may be.
        expected: &'static str,
    },
    /// The buffer could not be made or used.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// There is no memory for what is measured beside the buffer.
    #[error("no memory for the rows that the gather limit is measured with: {0}; ask for a smaller --batch")]
    Memory(#[from] std::io::Error),
    /// The peers are not there.
    #[error(transparent)]
    Peers(#[from] PeerError),
}

impl ReplayBench {
    /// Fills a buffer and measures; `peers` take turns with it. `progress` is told in words what is going on.
    ///
    /// # Errors
    /// [`BenchError::Setting`] for settings that make no sense, and [`BenchError::Replay`] or [`BenchError::Memory`] when
    /// something does not fit into memory. What goes wrong with a peer is in its report.
    pub fn run(
        &self,
        peers: &[Peer],
        mut progress: impl FnMut(&str),
    ) -> Result<(Report, Vec<PeerReport>), BenchError> {
        self.check(!peers.is_empty())?;
        let writers = self.writers.max(usize::from(self.op.inserts()));
        let samplers = self.samplers.max(usize::from(!self.op.inserts()));
        let capacity = self.capacity.unwrap_or_else(|| self.workload.default_capacity());

        progress(&format!("filling {capacity} rows"));
        let rows = Rows::new(self);
        let resident_before = resident_bytes();
        let buffer = Buffer::new(self, capacity, rows)?;
        buffer.fill()?;
        let resident = match (resident_before, resident_bytes()) {
            (Some(before), Some(after)) => after.saturating_sub(before),
            _ => buffer.memory_bytes(),
        };
        let row_bytes = buffer.schema().row_bytes();
        let mut copier = Copier::new();
        let mut limit = GatherLimit::new(row_bytes, capacity, self.batch)?;

        let window = Duration::from_secs_f64(self.seconds / self.repeats as f64);
        let measure = |time| -> Result<Repeat, ReplayError> {
            let insert = |thread, shift: Shift<'_>| buffer.insert(thread, shift);
            let draw = |thread, shift: Shift<'_>| buffer.draw(thread, shift);
            let (inserted, drawn) = work::window((writers, samplers), time, insert, draw)?;
            Ok(Repeat { inserted, drawn })
        };
        measure(window / 10)?;
        let task = Task { workload: self.workload, op: self.op, batch: self.batch, capacity };
        let together = at_once(available_bytes(), capacity.saturating_mul(self.workload.whole_row_bytes()));
        // Without peers there is one group, an empty one.
        let groups = peers.chunks(together).chain(peers.is_empty().then_some(peers));
        let (mut repeats, mut copied, mut gathered, mut reports) = (vec![], vec![], vec![], vec![]);
        for group in groups {
            let mut turns: Vec<Turns> = Vec::with_capacity(group.len());
            for peer in group {
                progress(&format!("starting {}", peer.name));
                turns.push(Turns { peer, running: peer.start(task), rates: vec![], ratios: vec![] });
            }
            for repeat in 1..=self.repeats {
                progress(&format!("measuring, {repeat} of {}", self.repeats));
                copied.push(copier.gb_per_s());
                gathered.push(limit.rows_per_s(window.min(GATHER_WINDOW)));
                let ours = measure(window)?;
                let per_s = ours.operation(self.op).rows_per_s;
                turns.iter_mut().for_each(|turns| turns.take(window, per_s));
                repeats.push(ours);
            }
            reports.extend(turns.into_iter().map(|turns| turns.report(task)));
        }

        let median = median_by(repeats, |repeat| repeat.operation(self.op).rows_per_s);
        let operation = median.operation(self.op);
        let report = Report {
            workload: self.workload,
            op: self.op,
            batch: self.batch,
            writers,
            samplers,
            capacity,
            row_bytes,
            transitions_per_s: operation.rows_per_s,
            inserted_per_s: median.inserted.rows_per_s,
            drawn_per_s: median.drawn.rows_per_s,
            p50_us: operation.durations.quantile_us(0.5),
            p99_us: operation.durations.quantile_us(0.99),
            insert_p9999_us: median.inserted.durations.quantile_us(0.9999),
            draw_p9999_us: median.drawn.durations.quantile_us(0.9999),
            bytes_per_transition: resident as f64 / capacity as f64,
            memcpy_gb_per_s: median_by(copied, |gb_per_s| *gb_per_s),
            gather_limit_per_s: median_by(gathered, |per_s| *per_s),
            gather_row_bytes: limit.row_bytes(),
            threads: writers + samplers,
        };
        Ok((report, reports))
    }

    /// Refuses settings that make no sense, together or alone.
    fn check(&self, with_peers: bool) -> Result<(), BenchError> {
        let refuse = |name, value, expected| Err(BenchError::Setting { name, value, expected });
        if self.batch == 0 {
            return refuse("batch", 0.0, "at least 1");
        }
        if !(self.seconds > 0.0 && self.seconds <= 86_400.0) {
            return refuse("seconds", self.seconds, "above 0 and at most a day");
        }
        if self.repeats < MIN_REPEATS {
            return refuse("repeats", self.repeats as f64, "at least 5");
        }
        if self.n_step == 0 {
            return refuse("n-step", 0.0, "at least 1");
        }
        if self.n_step > 1 && (self.op != Op::Add || with_peers) {
            return refuse("n-step", self.n_step as f64, "1 unless --op is add, without --peers");
        }
        if with_peers && self.writers + self.samplers > 1 {
            let threads = (self.writers + self.samplers) as f64;
            return refuse(
                "writers and --samplers",
                threads,
                "one thread beside --peers, which have one each",
            );
        }
        let capacity = self.capacity.unwrap_or_else(|| self.workload.default_capacity());
        if with_peers && self.batch > capacity {
            return refuse("batch", self.batch as f64, "no more than --capacity beside --peers");
        }
        Ok(())
    }
}

/// What one window gave.
struct Repeat {
    inserted: Work,
    drawn: Work,
}

impl Repeat {
    /// The part that is measured, where the other is only there beside it.
    fn operation(&self, op: Op) -> &Work {
        if op.inserts() { &self.inserted } else { &self.drawn }
    }
}

/// A peer in the rounds of a run.
struct Turns<'a> {
    peer: &'a Peer,
    running: Result<Running, String>,
    rates: Vec<f64>,
    /// Our rate of the same round by its rate.
    ratios: Vec<f64>,
}

impl Turns<'_> {
    /// Its window of a round in which we had the rate `ours`. One that fails is not asked again.
    fn take(&mut self, window: Duration, ours: f64) {
        let Ok(running) = &mut self.running else { return };
        match running.window(window) {
            Ok(rate) => {
                self.rates.push(rate);
                self.ratios.push(ours / rate);
            }
            Err(reason) => self.running = Err(reason),
        }
    }

    fn report(self, task: Task) -> PeerReport {
        let Task { workload, op, batch, capacity } = task;
        let measured = self.running.is_ok();
        let median = |values: Vec<f64>| measured.then(|| median_by(values, |value| *value));
        PeerReport {
            peer: self.peer.name,
            workload,
            op,
            batch,
            capacity,
            transitions_per_s: median(self.rates),
            ratio: median(self.ratios),
            version: self.running.as_ref().ok().map(|running| running.version.clone()),
            not_measured: self.running.err(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(op: Op) -> ReplayBench {
        ReplayBench {
            workload: Workload::Small,
            op,
            batch: 32,
            writers: 0,
            samplers: 0,
            capacity: Some(2_000),
            n_step: 1,
            seconds: 0.05,
            repeats: MIN_REPEATS,
        }
    }

    #[test]
    fn every_operation_reports_what_it_did() {
        for op in Op::value_variants() {
            for (writers, samplers) in [(0, 0), (2, 2)] {
                let bench = ReplayBench { writers, samplers, ..small(*op) };
                let (report, peers) = bench.run(&[], |_| ()).unwrap();
                assert!(report.transitions_per_s > 0.0 && report.p50_us <= report.p99_us, "{report:?}");
                assert_eq!(report.inserted_per_s > 0.0, op.inserts() || writers > 0, "{report:?}");
                assert_eq!(report.drawn_per_s > 0.0, !op.inserts() || samplers > 0, "{report:?}");
                assert_eq!(report.insert_p9999_us > 0.0, op.inserts() || writers > 0, "{report:?}");
                assert_eq!(report.draw_p9999_us > 0.0, !op.inserts() || samplers > 0, "{report:?}");
                assert_eq!(report.threads, report.writers + report.samplers);
                assert!(report.gather_limit_per_s > 0.0 && report.gather_row_bytes == 64, "{report:?}");
                assert!(peers.is_empty());
            }
        }
    }

    #[test]
    fn steps_are_folded_on_the_way_in() {
        for writers in [1, 2] {
            let bench = ReplayBench { n_step: 3, writers, ..small(Op::Add) };
            assert!(bench.run(&[], |_| ()).unwrap().0.inserted_per_s > 0.0);
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let bench = small(Op::Uniform);
        for bench in [
            ReplayBench { batch: 0, ..bench.clone() },
            ReplayBench { seconds: f64::NAN, ..bench.clone() },
            ReplayBench { repeats: 4, ..bench.clone() },
            ReplayBench { n_step: 0, ..bench.clone() },
            ReplayBench { n_step: 3, ..bench.clone() },
            ReplayBench { capacity: Some(0), ..bench.clone() },
        ] {
            assert!(bench.run(&[], |_| ()).is_err(), "{bench:?}");
        }
        assert!(bench.check(true).is_ok());
        for bench in [
            ReplayBench { writers: 1, samplers: 1, ..bench.clone() },
            ReplayBench { n_step: 3, op: Op::Add, ..bench.clone() },
            ReplayBench { capacity: Some(31), ..bench },
        ] {
            assert!(bench.check(false).is_ok() && bench.check(true).is_err(), "{bench:?}");
        }
    }
}
