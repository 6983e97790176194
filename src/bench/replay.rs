//! `rl-train bench replay`: how many transitions a second go into the buffer and come out of it.
//!
//! Threads insert and draw as fast as they can during a window; that is repeated, and the repeat with the median rate
//! is reported. Beside it stands the rate at which this machine copied memory between the repeats, because hosts that
//! are shared with others differ from minute to minute: compare ratios, not numbers of two days.

use super::measure::{Copier, Durations, median_by, resident_bytes};
use clap::ValueEnum;
use rand::{Rng as _, RngExt, SeedableRng};
use rl_replay::{
    Batch, Drawn, Dtype, Prioritized, Replay, ReplayError, Rng, Schema, WeightNorm, importance_weights,
};
use serde::Serialize;
use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Windows measured; the one with the median rate is reported.
const REPEATS: usize = 5;
/// α and β of the prioritized operations, the values of Schaul et al. (2016) for the proportional variant.
const ALPHA: f64 = 0.6;
const BETA: f64 = 0.4;
/// Different rows that writers insert in turn, so that they do not copy one row out of the nearest cache for ever.
const ROWS_IN_TURN: usize = 256;
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
    /// Seconds of all windows together.
    pub seconds: f64,
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
    /// Median duration of a call of the operation.
    pub p50_us: f64,
    /// 99th percentile of the duration of a call of the operation.
    pub p99_us: f64,
    /// Resident memory that the full buffer takes, for each row of its capacity.
    pub bytes_per_transition: f64,
    /// Gigabytes a second that one thread copies from memory to memory, measured between the repeats.
    pub memcpy_gb_per_s: f64,
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
}

impl ReplayBench {
    /// Fills a buffer and measures. `progress` is told in words what is going on.
    ///
    /// # Errors
    /// [`BenchError::Setting`] for a batch of 0 or a duration that is none, and [`BenchError::Replay`] when the buffer
    /// does not fit into memory.
    pub fn run(&self, mut progress: impl FnMut(&str)) -> Result<Report, BenchError> {
        if self.batch == 0 {
            return Err(BenchError::Setting { name: "batch", value: 0.0, expected: "at least 1" });
        }
        if !(self.seconds > 0.0 && self.seconds <= 86_400.0) {
            let expected = "above 0 and at most a day";
            return Err(BenchError::Setting { name: "seconds", value: self.seconds, expected });
        }
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

        let window = Duration::from_secs_f64(self.seconds / REPEATS as f64);
        let mut copier = Copier::new();
        self.window(&replay, &rows, writers, samplers, window / 10)?;
        let mut repeats = Vec::with_capacity(REPEATS);
        let mut copied = Vec::with_capacity(REPEATS);
        for repeat in 1..=REPEATS {
            progress(&format!("measuring, {repeat} of {REPEATS}"));
            copied.push(copier.gb_per_s());
            repeats.push(self.window(&replay, &rows, writers, samplers, window)?);
        }
        let median = median_by(repeats, |repeat| repeat.transitions_per_s);
        Ok(Report {
            workload: self.workload,
            op: self.op,
            batch: self.batch,
            writers,
            samplers,
            capacity,
            row_bytes: schema.row_bytes(),
            transitions_per_s: median.transitions_per_s,
            inserted_per_s: median.inserted_per_s,
            p50_us: median.durations.quantile_us(0.5),
            p99_us: median.durations.quantile_us(0.99),
            bytes_per_transition: resident as f64 / capacity as f64,
            memcpy_gb_per_s: median_by(copied, |gb_per_s| *gb_per_s),
            threads: writers + samplers,
        })
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
            let (inserted, drawn) = (join(writers)?, join(samplers)?);
            let operation = if self.op.inserts() { &inserted } else { &drawn };
            Ok(Repeat {
                transitions_per_s: operation.rows_per_s,
                inserted_per_s: inserted.rows_per_s,
                durations: operation.durations.clone(),
            })
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
        work(stop, 1, TIMED_PUSHES, || {
            next = (next + 1) % singles.len();
            writer.push(&singles[next]).map(drop)
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
    transitions_per_s: f64,
    inserted_per_s: f64,
    durations: Durations,
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

    #[test]
    fn every_operation_reports_the_contracts_fields() {
        for op in Op::value_variants() {
            for (writers, samplers) in [(0, 0), (2, 2)] {
                let bench = ReplayBench {
                    workload: Workload::Small,
                    op: *op,
                    batch: 32,
                    writers,
                    samplers,
                    capacity: Some(2_000),
                    seconds: 0.05,
                };
                let report = bench.run(|_| ()).unwrap();
                assert!(report.transitions_per_s > 0.0 && report.p50_us <= report.p99_us, "{report:?}");
                assert_eq!(report.inserted_per_s > 0.0, op.inserts() || writers > 0, "{report:?}");
                assert_eq!(report.threads, report.writers + report.samplers);
                let json = serde_json::to_string(&report).unwrap();
                let keys: Vec<&str> =
                    json.split('"').skip(1).step_by(2).filter(|k| k.contains('_')).collect();
                let expected = [
                    "row_bytes",
                    "transitions_per_s",
                    "inserted_per_s",
                    "p50_us",
                    "p99_us",
                    "bytes_per_transition",
                    "memcpy_gb_per_s",
                ];
                assert_eq!(keys, expected, "{json}");
            }
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let bench = ReplayBench {
            workload: Workload::Small,
            op: Op::Uniform,
            batch: 32,
            writers: 0,
            samplers: 1,
            capacity: Some(100),
            seconds: 0.05,
        };
        assert!(ReplayBench { batch: 0, ..bench.clone() }.run(|_| ()).is_err());
        assert!(ReplayBench { seconds: f64::NAN, ..bench.clone() }.run(|_| ()).is_err());
        assert!(ReplayBench { capacity: Some(0), ..bench }.run(|_| ()).is_err());
    }
}
