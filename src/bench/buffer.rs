//! The buffer that is measured, and what is done with it: rows stored whole, or frames stored once.

use super::replay::{Op, ReplayBench, Workload};
use super::work::{Shift, Work};
use rand::{Rng as _, RngExt, SeedableRng};
use rl_replay::{
    Batch, Drawn, Dtype, Field, FrameReplay, FrameStep, NStep, Prioritized, Replay, ReplayError, Rng, Schema,
    Step, WeightNorm, importance_weights,
};
use std::hint::black_box;

/// α and β of the prioritized operations, the values of Schaul et al. (2016) for the proportional variant.
const ALPHA: f64 = 0.6;
const BETA: f64 = 0.4;
/// Different rows that writers insert in turn, so that they do not copy one row out of the nearest cache for ever.
const ROWS_IN_TURN: usize = 256;
/// Steps of an episode, and the discount, where steps are folded or frames stacked.
const EPISODE: usize = 256;
const GAMMA: f64 = 0.99;
/// Of single inserts one in so many is timed, since reading the clock takes as long as the insert.
const TIMED_PUSHES: u64 = 32;
/// One Atari frame.
const FRAME: [usize; 2] = [84, 84];
const STACK: usize = 4;
const DISCRETE: (Dtype, &[usize]) = (Dtype::I64, &[]);

impl Workload {
    /// What goes in: whole rows, or one frame and one action a step.
    fn inserted(self) -> Schema {
        match self {
            Workload::Small => Schema::transition((Dtype::F32, &[4]), DISCRETE),
            Workload::Mujoco => Schema::transition((Dtype::F32, &[17]), (Dtype::F32, &[6])),
            Workload::Atari => {
                Schema::new(vec![Field::new("frame", Dtype::U8, FRAME), Field::new("action", Dtype::I64, [])])
            }
        }
        .expect("the shapes have no zero")
    }
}

/// A buffer with rows to insert.
pub(super) struct Buffer {
    op: Op,
    batch: usize,
    n_step: usize,
    kind: Kind,
    rows: Rows,
}

enum Kind {
    Whole(Replay),
    Frames(FrameReplay),
}

impl Buffer {
    /// An empty buffer of `capacity` rows, into which `rows` are to go.
    pub(super) fn new(bench: &ReplayBench, capacity: usize, rows: Rows) -> Result<Self, ReplayError> {
        let ReplayBench { workload, op, batch, n_step, .. } = *bench;
        let prioritized = Prioritized { alpha: ALPHA, ..Prioritized::default() };
        let kind = if workload == Workload::Atari {
            let builder = FrameReplay::builder((Dtype::U8, &FRAME), DISCRETE).stack(STACK).capacity(capacity);
            let builder = if n_step > 1 { builder.n_step(n_step, GAMMA) } else { builder };
            let builder = if op.is_prioritized() { builder.prioritized(prioritized) } else { builder };
            Kind::Frames(builder.build()?)
        } else {
            let builder = Replay::builder(workload.inserted()).capacity(capacity);
            let builder = if op.is_prioritized() { builder.prioritized(prioritized) } else { builder };
            Kind::Whole(builder.build()?)
        };
        Ok(Self { op, batch, n_step, kind, rows })
    }

    /// What a row of a batch holds.
    pub(super) fn schema(&self) -> &Schema {
        match &self.kind {
            Kind::Whole(replay) => replay.schema(),
            Kind::Frames(replay) => replay.schema(),
        }
    }

    /// Bytes reserved.
    pub(super) fn memory_bytes(&self) -> usize {
        match &self.kind {
            Kind::Whole(replay) => replay.memory_bytes(),
            Kind::Frames(replay) => replay.memory_bytes(),
        }
    }

    /// Fills the buffer, and gives its rows different priorities if it keeps any.
    pub(super) fn fill(&self) -> Result<(), ReplayError> {
        let mut rng = Rng::seed_from_u64(1);
        let mut magnitudes = |keys: &[u64]| -> Vec<f32> { keys.iter().map(|_| rng.random()).collect() };
        match &self.kind {
            Kind::Whole(replay) => {
                let (mut writer, mut sampler) = (replay.writer(), replay.sampler());
                while replay.len() < replay.capacity() {
                    let count = self.rows.count.min(replay.capacity() - replay.len());
                    writer.push_rows(count, &self.rows.first(count))?;
                    if self.op.is_prioritized() {
                        let keys: Vec<u64> = (replay.inserted() - count as u64..replay.inserted()).collect();
                        sampler.update_priorities(&keys, &magnitudes(&keys))?;
                    }
                }
            }
            Kind::Frames(replay) => {
                let mut steps = Steps::new(replay, &self.rows, 0)?;
                let mut sampler = replay.sampler();
                // Until every slot was written: there is room for more frames than rows.
                while replay.inserted_frames() < 2 * replay.capacity() as u64 {
                    let inserted = replay.inserted();
                    (0..EPISODE).try_for_each(|_| steps.insert())?;
                    if self.op.is_prioritized() {
                        let keys: Vec<u64> = (inserted..replay.inserted()).collect();
                        sampler.update_priorities(&keys, &magnitudes(&keys))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Inserts as the operation says, or one row a call beside one that draws.
    pub(super) fn insert(&self, thread: usize, shift: Shift<'_>) -> Result<Work, ReplayError> {
        let replay = match &self.kind {
            Kind::Whole(replay) => replay,
            Kind::Frames(replay) => {
                let mut steps = Steps::new(replay, &self.rows, thread * 17)?;
                if self.op == Op::AddBatch {
                    return shift.work(self.batch, 1, || (0..self.batch).try_for_each(|_| steps.insert()));
                }
                return shift.work(1, TIMED_PUSHES, || steps.insert());
            }
        };
        let mut writer = replay.writer();
        if self.op == Op::AddBatch {
            let batch = self.rows.first(self.batch);
            return shift.work(self.batch, 1, || writer.push_rows(self.batch, &batch));
        }
        let singles = self.rows.singles();
        let mut next = thread * 17;
        if self.n_step == 1 {
            return shift.work(1, TIMED_PUSHES, || {
                next = (next + 1) % singles.len();
                writer.push(&singles[next]).map(drop)
            });
        }
        let mut n_step = NStep::new(self.n_step, GAMMA, replay.schema())?;
        let mut step = 0;
        shift.work(1, TIMED_PUSHES, || {
            (next, step) = ((next + 1) % singles.len(), (step + 1) % EPISODE);
            let (row, terminated) = (&singles[next], step == 0);
            let (obs, action, next_obs) = (row[0], row[1], row[4]);
            let step = Step { obs, action, reward: 1.0, next_obs, terminated, truncated: false };
            n_step.push(step, &mut writer).map(drop)
        })
    }

    /// Draws as the operation says, or uniformly beside one that inserts.
    pub(super) fn draw(&self, thread: usize, shift: Shift<'_>) -> Result<Work, ReplayError> {
        let mut rng = Rng::seed_from_u64(thread as u64);
        let (mut batch, mut drawn) = (Batch::new(self.schema(), self.batch), Drawn::default());
        let mut weights = vec![0f32; self.batch];
        let magnitudes: Vec<f32> = (0..self.batch).map(|_| rng.random()).collect();
        // A macro, for the two readers have the same calls and no type in common.
        macro_rules! draw {
            ($sampler:expr) => {{
                let mut sampler = $sampler;
                shift.work(self.batch, 1, || {
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
            }};
        }
        match &self.kind {
            Kind::Whole(replay) => draw!(replay.sampler()),
            Kind::Frames(replay) => draw!(replay.sampler()),
        }
    }
}

/// One environment that steps for ever.
struct Steps<'a> {
    stream: rl_replay::FrameStream,
    rows: Vec<Vec<&'a [u8]>>,
    next: usize,
    step: usize,
}

impl<'a> Steps<'a> {
    fn new(replay: &FrameReplay, rows: &'a Rows, first: usize) -> Result<Self, ReplayError> {
        let (mut stream, rows) = (replay.stream(), rows.singles());
        let next = first % rows.len();
        stream.begin(rows[next][0])?;
        Ok(Self { stream, rows, next, step: 0 })
    }

    #[inline]
    fn insert(&mut self) -> Result<(), ReplayError> {
        self.next = (self.next + 1) % self.rows.len();
        self.step += 1;
        let (frame, action) = (self.rows[self.next][0], self.rows[self.next][1]);
        let terminated = self.step == EPISODE;
        self.stream.step(FrameStep {
            action,
            reward: 1.0,
            next_frame: frame,
            terminated,
            truncated: false,
        })?;
        if terminated {
            self.step = 0;
            self.stream.begin(frame)?;
        }
        Ok(())
    }
}

/// Rows of random numbers, as columns.
pub(super) struct Rows {
    count: usize,
    columns: Vec<Vec<u8>>,
    row_bytes: Vec<usize>,
}

impl Rows {
    /// What the threads of a bench insert in turn.
    pub(super) fn new(bench: &ReplayBench) -> Self {
        let batch = if bench.op == Op::AddBatch { bench.batch } else { 0 };
        let (schema, count) = (bench.workload.inserted(), ROWS_IN_TURN.max(batch));
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

    fn singles(&self) -> Vec<Vec<&[u8]>> {
        (0..self.count).map(|row| self.one(row)).collect()
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
