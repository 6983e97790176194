//! `rl-train bench replay`: how many transitions a second go into the buffer and come out of it.
//!
//! Threads insert and draw as fast as they can during a window; that is repeated, and the repeat with the median rate
//! is reported. Beside it stand the rates at which this machine copied memory and gathered rows of this size between the
//! repeats, because hosts that are shared with others differ from minute to minute: compare ratios, not numbers of two
//! days. For the same reason the [peers](super::peers) take turns with ours, a window each.

use super::gather::GatherLimit;
use super::measure::{Copier, Durations, available_bytes, median_by, resident_bytes};
use super::peers::{Peer, PeerError, PeerReport, Running, Task, at_once};
use clap::ValueEnum;
use rand::{Rng as _, RngExt, SeedableRng};
use rl_replay::{
    Batch, Drawn, Dtype, NStep, Prioritized, Replay, ReplayError, Rng, Schema, Step, WeightNorm,
    importance_weights,
};
use serde::Serialize;
use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The fewest windows to be measured.
pub const MIN_REPEATS: usize = 5;
/// α and β of the prioritized operations, the values of Schaul et al. (2016) for the proportional variant.
const ALPHA: f64 = 0.6;
const BETA: f64 = 0.4;
/// Different rows that writers insert in turn, so that they do not copy one row out of the nearest cache for ever.
const ROWS_IN_TURN: usize = 256;
/// Steps of an episode, and the discount, when n-step returns are folded.
const EPISODE: usize = 256;
const GAMMA: f64 = 0.99;
/// A gather limit is measured no longer than this a time: it has warmed up within a millisecond.
const GATHER_WINDOW: Duration = Duration::from_millis(100);
/// Of single inserts one in so many is timed, since reading the clock takes as long as the insert.
const TIMED_PUSHES: u64 = 32;

/// What the rows look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Observation 4 × f32, discrete action: CartPole.
    Small,
    /// Observation 17 × f32, action 6 × f32: HalfCheetah.
    Mujoco,
    /// Observation 4 × 84 × 84 u8, discrete action; observation and next observation both stored.
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

    fn schema(self) -> Schema {
        let discrete: (Dtype, &[usize]) = (Dtype::I64, &[]);
        match self {
            Workload::Small => Schema::transition((Dtype::F32, &[4]), discrete),
            Workload::Mujoco => Schema::transition((Dtype::F32, &[17]), (Dtype::F32, &[6])),
            Workload::Atari => Schema::transition((Dtype::U8, &[4, 84, 84]), discrete),
        }
        .expect("the shapes have no zero")
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
    fn inserts(self) -> bool {
        matches!(self, Op::Add | Op::AddBatch)
    }

    fn is_prioritized(self) -> bool {
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
        let schema = self.workload.schema();
        let rows = Rows::new(&schema, ROWS_IN_TURN.max(if self.op == Op::AddBatch { self.batch } else { 0 }));
        let resident_before = resident_bytes();
        let replay = self.build(&schema, capacity)?;
        fill(&replay, &rows, self.op.is_prioritized())?;
        let resident = match (resident_before, resident_bytes()) {
            (Some(before), Some(after)) => after.saturating_sub(before),
            _ => replay.memory_bytes(),
        };
        let mut copier = Copier::new();
        let mut limit = GatherLimit::new(schema.row_bytes(), capacity, self.batch)?;

        let window = Duration::from_secs_f64(self.seconds / self.repeats as f64);
        self.window(&replay, &rows, writers, samplers, window / 10)?;
        let task = Task { workload: self.workload, op: self.op, batch: self.batch, capacity };
        let together = at_once(available_bytes(), capacity.saturating_mul(schema.row_bytes()));
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
                let ours = self.window(&replay, &rows, writers, samplers, window)?;
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
            row_bytes: schema.row_bytes(),
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

    fn build(&self, schema: &Schema, capacity: usize) -> Result<Replay, ReplayError> {
        let builder = Replay::builder(schema.clone()).capacity(capacity);
        if self.op.is_prioritized() {
            builder.prioritized(Prioritized { alpha: ALPHA, ..Prioritized::default() }).build()
        } else {
            builder.uniform().build()
        }
    }

    /// Lets all threads run for `window`.
    fn window(
        &self,
        replay: &Replay,
        rows: &Rows,
        writers: usize,
        samplers: usize,
        window: Duration,
    ) -> Result<Repeat, ReplayError> {
        let stop = AtomicBool::new(false);
        let start = Barrier::new(writers + samplers + 1);
        let (stop, start) = (&stop, &start);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..writers)
                .map(|thread| scope.spawn(move || self.insert(replay, rows, thread, start, stop)))
                .collect();
            let samplers: Vec<_> = (0..samplers)
                .map(|thread| scope.spawn(move || self.draw(replay, thread, start, stop)))
                .collect();
            start.wait();
            std::thread::sleep(window);
            stop.store(true, Ordering::Relaxed);
            let join = |threads: Vec<std::thread::ScopedJoinHandle<'_, _>>| -> Result<Work, ReplayError> {
                let mut sum = Work::default();
                for thread in threads {
                    let work: Result<Work, ReplayError> =
                        thread.join().expect("a thread of the bench panicked");
                    sum.add(&work?);
                }
                Ok(sum)
            };
            Ok(Repeat { inserted: join(writers)?, drawn: join(samplers)? })
        })
    }

    fn insert(
        &self,
        replay: &Replay,
        rows: &Rows,
        thread: usize,
        start: &Barrier,
        stop: &AtomicBool,
    ) -> Result<Work, ReplayError> {
        let mut writer = replay.writer();
        let batch = rows.first(self.batch.min(rows.count));
        let singles: Vec<Vec<&[u8]>> = (0..rows.count).map(|row| rows.one(row)).collect();
        let mut next = thread * 17;
        start.wait();
        if self.op == Op::AddBatch {
            return work(stop, self.batch, 1, || writer.push_rows(self.batch, &batch));
        }
        if self.n_step == 1 {
            return work(stop, 1, TIMED_PUSHES, || {
                next = (next + 1) % singles.len();
                writer.push(&singles[next]).map(drop)
            });
        }
        let mut n_step = NStep::new(self.n_step, GAMMA, replay.schema())?;
        let mut step = 0;
        work(stop, 1, TIMED_PUSHES, || {
            (next, step) = ((next + 1) % singles.len(), (step + 1) % EPISODE);
            let (row, terminated) = (&singles[next], step == 0);
            let (obs, action, next_obs) = (row[0], row[1], row[4]);
            let step = Step { obs, action, reward: 1.0, next_obs, terminated, truncated: false };
            n_step.push(step, &mut writer).map(drop)
        })
    }

    fn draw(
        &self,
        replay: &Replay,
        thread: usize,
        start: &Barrier,
        stop: &AtomicBool,
    ) -> Result<Work, ReplayError> {
        let mut sampler = replay.sampler();
        let mut rng = Rng::seed_from_u64(thread as u64);
        let (mut batch, mut drawn) = (Batch::new(replay.schema(), self.batch), Drawn::default());
        let mut weights = vec![0f32; self.batch];
        let magnitudes: Vec<f32> = (0..self.batch).map(|_| rng.random()).collect();
        start.wait();
        work(stop, self.batch, 1, || {
            sampler.sample_into(&mut rng, self.batch, &mut batch.view_mut(), &mut drawn)?;
            if self.op.is_prioritized() {
                importance_weights(&drawn, BETA, WeightNorm::BatchMax, &mut weights);
                black_box(&weights);
            }
            if self.op == Op::PrioritizedUpdate {
                sampler.update_priorities(&drawn.rows, &magnitudes)?;
            }
            black_box(&batch);
            Ok(())
        })
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

/// What threads did during a window.
#[derive(Default)]
struct Work {
    rows_per_s: f64,
    durations: Durations,
}

impl Work {
    fn add(&mut self, other: &Self) {
        self.rows_per_s += other.rows_per_s;
        self.durations.add(&other.durations);
    }
}

/// Calls `operation`, which handles `rows` rows, until told to stop, and times one call in `timed`.
fn work(
    stop: &AtomicBool,
    rows: usize,
    timed: u64,
    mut operation: impl FnMut() -> Result<(), ReplayError>,
) -> Result<Work, ReplayError> {
    let mut durations = Durations::default();
    let mut calls = 0u64;
    let begin = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let call = Instant::now();
        operation()?;
        durations.record(call.elapsed());
        for _ in 1..timed {
            operation()?;
        }
        calls += timed;
    }
    let rows_per_s = (calls * rows as u64) as f64 / begin.elapsed().as_secs_f64();
    Ok(Work { rows_per_s, durations })
}

/// Rows of random numbers, as columns.
struct Rows {
    count: usize,
    columns: Vec<Vec<u8>>,
    row_bytes: Vec<usize>,
}

impl Rows {
    fn new(schema: &Schema, count: usize) -> Self {
        let mut rng = Rng::seed_from_u64(0);
        let mut column = |dtype: Dtype, elements: usize| -> Vec<u8> {
            match dtype {
                Dtype::F32 => (0..elements).flat_map(|_| rng.random::<f32>().to_ne_bytes()).collect(),
                Dtype::I64 => (0..elements).flat_map(|_| rng.random_range(0..6i64).to_ne_bytes()).collect(),
                _ => {
                    let mut bytes = vec![0; elements * dtype.size_bytes()];
                    rng.fill_bytes(&mut bytes);
                    bytes
                }
            }
        };
        let fields = schema.fields();
        Self {
            count,
            columns: fields.iter().map(|field| column(field.dtype, field.elements() * count)).collect(),
            row_bytes: fields.iter().map(|field| field.row_bytes()).collect(),
        }
    }

    fn one(&self, row: usize) -> Vec<&[u8]> {
        self.columns
            .iter()
            .zip(&self.row_bytes)
            .map(|(column, bytes)| &column[row * bytes..][..*bytes])
            .collect()
    }

    fn first(&self, rows: usize) -> Vec<&[u8]> {
        self.columns.iter().zip(&self.row_bytes).map(|(column, bytes)| &column[..rows * bytes]).collect()
    }
}

/// Fills the buffer, and gives its rows different priorities.
fn fill(replay: &Replay, rows: &Rows, prioritized: bool) -> Result<(), ReplayError> {
    let (mut writer, mut sampler) = (replay.writer(), replay.sampler());
    let mut rng = Rng::seed_from_u64(1);
    while replay.len() < replay.capacity() {
        let count = rows.count.min(replay.capacity() - replay.len());
        writer.push_rows(count, &rows.first(count))?;
        if prioritized {
            let inserted = replay.inserted();
            let keys: Vec<u64> = (inserted - count as u64..inserted).collect();
            let magnitudes: Vec<f32> = keys.iter().map(|_| rng.random()).collect();
            sampler.update_priorities(&keys, &magnitudes)?;
        }
    }
    Ok(())
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
