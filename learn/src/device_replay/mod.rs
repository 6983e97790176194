//! A replay buffer on the learner's device: rows, priorities and sampling are tensors there, and drawing a batch, gathering it and writing its
//! priorities are a part of the update, which can be captured with them.
//!
//! Rows come through an inlet, a small [`Replay`] in the host's memory that any thread may write to and that
//! [`NStep`](rl_replay::NStep) folds into as it does everywhere. The learner takes them from there in blocks, one copy a block.
//!
//! # What is different from a buffer on the host
//!
//! * Rows reach the learner when a block of [`block_rows`](DeviceReplaySettings::block_rows) is full, so the newest fewer than that are not drawn yet.
//! * Priorities are written inside the update that made them, and not one update late; a row cannot be overwritten between the two, so
//!   there are no stale priorities.
//! * The random numbers are others: a stream of their own, counted on the device. A |δ| that is not finite becomes a priority as if it were 0, since
//!   nothing is read back that could be refused; the loss in the log shows it.
//!
//! Probabilities, importance weights, the running maximum for new rows, and the rows themselves are those of the host's buffer.

mod frames;
mod random;
mod sums;
mod words;

pub use frames::{FrameRows, FrameStore};

use crate::shim::ShimError;
use crate::shim::cuda::{self, Event, Stream};
use crate::staging::{HostWords, MiniBatch};
use crate::state::visit_tensor;
use rand::Rng as _;
use random::Random;
use rl_minibatch::{Batch, Dtype, Rng, SampleError, Schema, StateError, StateVisitor, scalar, scope};
use rl_replay::{Prioritized, Reader, Replay, ReplayError};
use std::ops::Range;
use sums::Sums;
use tch::{Device, Kind, Tensor, no_grad};
use words::Words;

/// How a [`DeviceReplay`] is made.
#[derive(Clone, Debug)]
pub struct DeviceReplaySettings {
    /// Rows kept.
    pub capacity: usize,
    /// Rows of a batch.
    pub batch_rows: usize,
    /// Rows that are taken from the inlet at once.
    pub block_rows: usize,
    /// Draws by priority, with an ε above 0; `None` draws uniformly.
    pub prioritized: Option<Prioritized>,
    /// Levels of the tree of priorities, 1 being prefix sums alone; `None` takes what measured fastest for the capacity.
    pub tree_height: Option<u32>,
}

/// The buffer; see the [module](self).
#[derive(Debug)]
pub struct DeviceReplay {
    schema: Schema,
    words: Words,
    device: Device,
    capacity: u64,
    block_rows: usize,
    inlet: Reader,
    inlet_handle: Replay,
    block: Block,
    /// Rows taken from the inlet since the buffer was made: the next row's key.
    taken: u64,
    /// Rows before this key are not drawn.
    from: u64,
    /// `[capacity, words]`, i64; the row with key k lies at k mod capacity.
    storage: Tensor,
    random: Random,
    choice: Choice,
    /// `[B]`: where the rows of the batch in hand lie; written by `sample`.
    slots: Tensor,
    /// `[B, words]`, of which the batch's columns are views.
    gathered: Tensor,
    batch: MiniBatch,
    batch_rows: usize,
    stacks: Option<Stacks>,
}

/// Observations that are stacks of frames.
#[derive(Debug)]
struct Stacks {
    store: FrameStore,
    /// The columns of serials in the gathered row, and where the stacks go: of `obs` and `next_obs`.
    columns: [(Tensor, Tensor); 2],
}

#[derive(Debug)]
enum Choice {
    /// `[1]` each: the first drawable slot, i64, and how many there are, f64.
    Uniform {
        first: Tensor,
        count: Tensor,
        written: (u64, u64),
    },
    Proportional(Box<Proportional>),
}

#[derive(Debug)]
struct Proportional {
    sums: Sums,
    alpha: f64,
    epsilon: f64,
    /// The largest priority there has been, a scalar, f64.
    largest: Tensor,
    /// −β, a scalar, f64, and what was written to it last.
    exponent: Tensor,
    written: f64,
}

/// Host memory through which rows go, and the end of the copy out of it.
#[derive(Debug)]
struct Block {
    columns: Batch,
    packed: HostWords,
    copied: Option<Event>,
}

/// Why a buffer on the device refused.
#[derive(Debug, thiserror::Error)]
pub enum DeviceReplayError {
    /// A setting makes no sense.
    #[error("{0}")]
    Setting(String),
    /// Nobody took rows from the inlet in time.
    #[error(
        "{inserted} rows were inserted and {taken} of them taken before the inlet of {capacity} rows came around; call `take_in` more often, or make the inlet larger"
    )]
    Overrun {
        /// Rows inserted into the inlet.
        inserted: u64,
        /// Rows taken.
        taken: u64,
        /// The inlet's capacity.
        capacity: usize,
    },
    /// There is no row to draw.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// The inlet refused.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// libtorch failed; on a GPU the memory did not suffice, for instance.
    #[error("libtorch: {}", crate::first_line(.0))]
    Tch(#[from] tch::TchError),
    /// A copy failed.
    #[error(transparent)]
    Kernel(#[from] ShimError),
}

/// Levels of the tree of priorities that measured fastest for so many rows on a CPU (`heights_measured` in `tests/device_replay.rs`; the table is in
/// `docs/gpu.md`). On a GPU, where a pass over many rows is cheap and an operation is dear, not measured yet.
fn tree_height(capacity: usize, _device: Device) -> u32 {
    match capacity {
        0..=20_000 => 1,
        20_001..=5_000_000 => 2,
        _ => 3,
    }
}

impl DeviceReplay {
    /// A buffer on `device` of rows that come through `inlet`. `rng` gives the seed of the draws.
    ///
    /// Memory on the device: the row's bytes, each field filled up to 8, and 8.5 bytes a row for priorities.
    ///
    /// # Errors
    /// [`DeviceReplayError::Setting`]; [`DeviceReplayError::Tch`] when the memory cannot be had.
    pub fn new(
        settings: &DeviceReplaySettings,
        inlet: &Replay,
        rng: &mut Rng,
        device: Device,
    ) -> Result<Self, DeviceReplayError> {
        let &DeviceReplaySettings { capacity, batch_rows, block_rows, prioritized, tree_height: height } =
            settings;
        let refuse = |text: String| Err(DeviceReplayError::Setting(text));
        for (name, value) in [("capacity", capacity), ("batch_rows", batch_rows), ("block_rows", block_rows)]
        {
            if value == 0 {
                return refuse(format!("{name} is 0; it must be at least 1"));
            }
        }
        if capacity > 1 << 31 {
            return refuse(format!("capacity is {capacity}; it can be at most 2147483648"));
        }
        if block_rows > inlet.capacity() || block_rows > capacity {
            let inlet = inlet.capacity();
            return refuse(format!(
                "block_rows is {block_rows}; it can be at most the capacity ({capacity}) and the inlet's ({inlet})"
            ));
        }
        let schema = inlet.schema().clone();
        let words = Words::new(&schema);
        let rows =
            |n: usize, on: Device| Tensor::f_zeros([n as i64, words.count() as i64], (Kind::Int64, on));
        let storage = rows(capacity, device)?;
        let gathered = rows(batch_rows, device)?;
        let names = schema.fields().iter().enumerate();
        let columns = names.map(|(i, field)| (field.name.clone(), words.column(&gathered, i))).collect();
        let batch = MiniBatch::new(columns, Tensor::ones([batch_rows as i64], (Kind::Float, device)));
        let one = |kind| Tensor::zeros([1], (kind, device));
        let choice = match prioritized {
            None => Choice::Uniform { first: one(Kind::Int64), count: one(Kind::Double), written: (0, 0) },
            Some(Prioritized { alpha, epsilon }) => {
                if !(0.0..=1.0).contains(&alpha) {
                    return refuse(format!("alpha is {alpha}; it must lie between 0 and 1"));
                }
                if !(epsilon > 0.0 && epsilon <= 1e6) {
                    return refuse(format!(
                        "epsilon is {epsilon}; with a buffer on the device it must be above 0 and at most 1000000, so that every row can be drawn"
                    ));
                }
                let height = height.unwrap_or_else(|| tree_height(capacity, device)).clamp(1, 8);
                Choice::Proportional(Box::new(Proportional {
                    sums: Sums::new(capacity, height, device),
                    alpha,
                    epsilon,
                    largest: Tensor::ones([], (Kind::Double, device)),
                    exponent: Tensor::zeros([], (Kind::Double, device)),
                    written: 0.0,
                }))
            }
        };
        let copied = if device == Device::Cpu { None } else { Some(Event::new(false)?) };
        Ok(Self {
            block: Block {
                columns: Batch::new(&schema, block_rows),
                packed: HostWords::new(block_rows, words.count(), device)?,
                copied,
            },
            random: Random::new(rng.next_u64(), batch_rows, prioritized.is_some(), device),
            slots: Tensor::zeros([batch_rows as i64], (Kind::Int64, device)),
            capacity: capacity as u64,
            inlet: inlet.sampler(),
            inlet_handle: inlet.clone(),
            taken: 0,
            from: 0,
            schema,
            words,
            device,
            block_rows,
            storage,
            choice,
            gathered,
            batch,
            batch_rows,
            stacks: None,
        })
    }

    /// The buffer with observations that are stacks of frames from `store`: its rows are those of [`FrameStore::row_schema`], and a batch has
    /// `obs` and `next_obs` as `[B, k, …]`, or `[B, …]` where k is 1. Before rows come in.
    ///
    /// # Errors
    /// [`DeviceReplayError::Setting`] when rows are not of that schema.
    pub fn with_frames(mut self, store: FrameStore) -> Result<Self, DeviceReplayError> {
        let fields = self.schema.fields();
        let serials = |name: &str| {
            fields.iter().position(|f| f.name == name && f.dtype == Dtype::I64 && f.shape.len() == 1)
        };
        let (Some(obs), Some(next_obs)) = (serials("obs"), serials("next_obs")) else {
            return Err(DeviceReplayError::Setting(
                "the rows' obs and next_obs are not serials of frames".to_string(),
            ));
        };
        let stack = |field: usize| store.stacks(self.batch_rows, fields[field].shape[0] as i64);
        let columns = [obs, next_obs].map(|field| (self.words.column(&self.gathered, field), stack(field)));
        let seen = |stacks: &Tensor| {
            if stacks.size()[1] == 1 { stacks.squeeze_dim(1) } else { stacks.shallow_clone() }
        };
        let named = fields.iter().enumerate().map(|(i, field)| {
            let column = match i {
                _ if i == obs => seen(&columns[0].1),
                _ if i == next_obs => seen(&columns[1].1),
                _ => self.words.column(&self.gathered, i),
            };
            (field.name.clone(), column)
        });
        self.batch = MiniBatch::new(named.collect(), self.batch.weight().shallow_clone());
        self.stacks = Some(Stacks { store, columns });
        Ok(self)
    }

    /// Where it is.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What a row holds.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The most rows that are kept.
    pub fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// The keys of the rows that can be drawn now.
    pub fn live(&self) -> Range<u64> {
        self.from.max(self.taken.saturating_sub(self.capacity))..self.taken
    }

    /// Rows that can be drawn now.
    pub fn len(&self) -> usize {
        let live = self.live();
        (live.end - live.start) as usize
    }

    /// Whether there is no row to draw.
    pub fn is_empty(&self) -> bool {
        self.live().is_empty()
    }

    /// Bytes on the device: rows, frames, priorities. The inlets are on the host and come on top.
    pub fn memory_bytes(&self) -> usize {
        let priorities = match &self.choice {
            Choice::Uniform { .. } => 0,
            // See `new`.
            Choice::Proportional(_) => self.capacity() * 17 / 2,
        };
        let frames = self.stacks.as_ref().map_or(0, |stacks| stacks.store.memory_bytes());
        self.storage.numel() * size_of::<i64>() + priorities + frames
    }

    /// Has rows before `key` not be drawn any more: of a [`FrameStore`], those whose frames are gone.
    pub fn forget_before(&mut self, key: u64) {
        let live = self.live();
        let key = key.min(live.end);
        if key <= live.start {
            return;
        }
        if let Choice::Proportional(p) = &self.choice {
            let zero = Tensor::zeros([], (Kind::Double, self.device));
            no_grad(|| runs(live.start..key, self.capacity).for_each(|slots| p.sums.fill(slots, &zero)));
        }
        self.from = key;
    }

    /// Takes whole blocks of rows from the inlet, as many as there are. To be called before the inlet comes around: it has to hold a block and
    /// what is inserted between two calls. Between updates only; the learner calls it before each.
    ///
    /// # Errors
    /// [`DeviceReplayError::Overrun`] when it was called too late; libtorch's.
    pub fn take_in(&mut self) -> Result<(), DeviceReplayError> {
        // Before frames are taken: a row that is in its inlet has its frames in theirs.
        let inserted = self.inlet_handle.inserted();
        let frames = self.stacks.as_mut().map(|stacks| stacks.store.take_in()).transpose()?;
        while inserted - self.taken >= self.block_rows as u64 {
            self.take_block()?;
        }
        if let (Some(first), Some(stacks)) = (frames, &mut self.stacks)
            && let Some(from) = stacks.store.drawable_from(first)
        {
            self.forget_before(from);
        }
        Ok(())
    }

    fn take_block(&mut self) -> Result<(), DeviceReplayError> {
        let n = self.block_rows;
        let keys: Vec<u64> = (self.taken..self.taken + n as u64).collect();
        self.inlet.pin()?.gather(&keys, &mut self.block.columns.view_mut()).map_err(|e| match e {
            ReplayError::NotLive { end, .. } => DeviceReplayError::Overrun {
                inserted: end,
                taken: self.taken,
                capacity: self.inlet_handle.capacity(),
            },
            other => other.into(),
        })?;
        if let Some(copied) = &self.block.copied {
            copied.synchronize()?; // the block before: long over
        }
        if let Some(stacks) = &mut self.stacks {
            let serials = |name: &str| self.block.columns.typed::<i64>(name).expect("checked by with_frames");
            let (obs, next_obs) = (serials("obs"), serials("next_obs"));
            for (row, &key) in keys.iter().enumerate() {
                let stack = |serials: &[i64]| {
                    serials.chunks_exact(serials.len() / n).nth(row).unwrap_or_default().to_vec()
                };
                stacks.store.note(key, stack(obs).into_iter().chain(stack(next_obs)));
            }
        }
        let columns: Vec<&[u8]> =
            (0..self.schema.fields().len()).map(|i| self.block.columns.column(i)).collect();
        self.words.pack(&columns, n, self.block.packed.bytes_mut());
        let keys = self.taken..self.taken + n as u64;
        let mut done = 0;
        no_grad(|| {
            for slots in runs(keys, self.capacity) {
                let (rows, to) = (slots.end - slots.start, slots.start);
                let from = self.block.packed.tensor().narrow(0, done, rows);
                cuda::copy_async(&self.storage.narrow(0, to, rows), &from)?;
                if let Choice::Proportional(p) = &self.choice {
                    p.sums.fill(slots, &p.largest);
                }
                done += rows;
            }
            Ok::<_, ShimError>(())
        })?;
        if let (Some(copied), Device::Cuda(device)) = (&mut self.block.copied, self.device) {
            copied.record(&Stream::current(device)?)?;
        }
        self.taken += n as u64;
        Ok(())
    }

    /// The host's half of a draw, before [`sample`](Self::sample): takes rows in, writes what has changed to the device.
    pub(crate) fn begin(&mut self, beta: f64) -> Result<(), DeviceReplayError> {
        self.take_in()?;
        let live = self.live();
        if live.is_empty() {
            return Err(SampleError::Empty.into());
        }
        self.random.begin();
        let capacity = self.capacity;
        no_grad(|| match &mut self.choice {
            Choice::Uniform { first, count, written } => {
                let (number, oldest) = (live.end - live.start, live.start % capacity);
                // Of a ring of which every slot is drawn it does not matter which is the first.
                let now = (if number == capacity { 0 } else { oldest }, number);
                if *written != now {
                    *written = now;
                    let _ = first.fill_(now.0 as i64);
                    let _ = count.fill_(now.1 as f64);
                }
            }
            Choice::Proportional(p) => {
                if p.written != -beta {
                    p.written = -beta;
                    let _ = p.exponent.fill_(-beta);
                }
            }
        });
        Ok(())
    }

    /// The device's half: draws and gathers the batch. Reads nothing back and changes nothing on the host.
    pub(crate) fn sample(&self) -> Result<&MiniBatch, tch::TchError> {
        no_grad(|| {
            let shares = self.random.next();
            let mut slots = self.slots.shallow_clone();
            match &self.choice {
                Choice::Uniform { first, count, .. } => {
                    let offset = (shares * count).to_kind(Kind::Int64);
                    slots.f_copy_(&(offset + first).remainder(self.capacity as i64))?;
                }
                Choice::Proportional(p) => {
                    let found = p.sums.find(&shares);
                    // wᵢ = (N·P(i))^−β / maxⱼ wⱼ = (pᵢ / minⱼ pⱼ)^−β: N and Σp cancel.
                    let priorities = p.sums.get(&found);
                    let weights = (&priorities / priorities.amin([0i64].as_slice(), false)).pow(&p.exponent);
                    self.batch.weight().shallow_clone().f_copy_(&weights)?;
                    slots.f_copy_(&found)?;
                }
            }
            let _ = self.storage.f_index_select_out(&self.gathered, 0, &self.slots)?;
            if let Some(stacks) = &self.stacks {
                for (serials, out) in &stacks.columns {
                    stacks.store.gather(serials, out)?;
                }
            }
            Ok(&self.batch)
        })
    }

    /// Writes |δ| of the batch that was drawn last as its rows' priorities, p = (|δ| + ε)^α. Nothing where rows are drawn uniformly.
    pub(crate) fn write_back(&self, td_error: &Tensor) -> Result<(), tch::TchError> {
        let Choice::Proportional(p) = &self.choice else { return Ok(()) };
        no_grad(|| {
            let magnitudes = td_error.to_kind(Kind::Double).nan_to_num(0.0, 0.0, 0.0).abs();
            let priorities = magnitudes.g_add_scalar(p.epsilon).pow_tensor_scalar(p.alpha);
            p.sums.set(&self.slots, &priorities);
            let largest = priorities.amax([0i64].as_slice(), false);
            p.largest.shallow_clone().f_copy_(&p.largest.maximum(&largest))
        })
    }

    /// Draws a batch outside an update, and gives the keys of its rows: for tests and for looking at a buffer. Reads the keys back.
    ///
    /// # Errors
    /// Those of an update's draw.
    pub fn draw(&mut self, beta: f64) -> Result<(Vec<u64>, &MiniBatch), DeviceReplayError> {
        self.begin(beta)?;
        self.sample()?;
        let slots = Vec::<i64>::try_from(self.slots.to_device(Device::Cpu))?;
        let newest = self.taken - 1;
        // Of the keys of a slot, the newest one taken.
        let key = |slot: i64| newest - (newest % self.capacity + self.capacity - slot as u64) % self.capacity;
        Ok((slots.into_iter().map(key).collect(), &self.batch))
    }

    /// Writes |δ| of the batch that [`draw`](Self::draw) gave last.
    ///
    /// # Errors
    /// libtorch's.
    ///
    /// # Panics
    /// When there are not as many as rows in a batch.
    pub fn update_priorities(&mut self, td_error: &Tensor) -> Result<(), DeviceReplayError> {
        assert_eq!(td_error.size(), [self.batch_rows as i64], "one |δ| for each row of the batch");
        Ok(self.write_back(td_error)?)
    }

    /// The priorities of the live rows, oldest first; `None` where rows are drawn uniformly. Reads them back.
    pub fn priorities(&self) -> Option<Vec<f64>> {
        let Choice::Proportional(p) = &self.choice else { return None };
        let slots = runs(self.live(), self.capacity);
        let values = slots.map(|slots| p.sums.range(slots).to_device(Device::Cpu)).collect::<Vec<_>>();
        Some(values.iter().flat_map(|v| Vec::<f64>::try_from(v).expect("f64 on the CPU")).collect())
    }

    /// Shows everything that future draws depend on: the live rows, column by column, oldest first; priorities and their sums; the
    /// random numbers' count. The inlet, with rows not taken yet, is its owner's to show. A state goes with a buffer of the same
    /// capacity, schema and settings.
    ///
    /// # Errors
    /// Those of the visitor; [`StateError::Invalid`] for counters that make no sense.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let (mut capacity, mut taken, mut from) = (self.capacity, self.taken, self.from);
        scalar(visitor, "capacity", &mut capacity)?;
        scalar(visitor, "taken", &mut taken)?;
        scalar(visitor, "from", &mut from)?;
        if visitor.loading() {
            let invalid = |path: &str, why: String| Err(StateError::Invalid { path: path.to_string(), why });
            if capacity != self.capacity {
                let why = format!(
                    "{capacity} rows were kept and now {}; a buffer on the device resumes with the same capacity",
                    self.capacity
                );
                return invalid("capacity", why);
            }
            if from > taken || taken > u64::MAX / 2 {
                return invalid("taken", format!("{taken} rows, drawn from row {from} on"));
            }
            (self.taken, self.from) = (taken, from);
        }
        let live = self.live();
        let slots: Vec<Range<i64>> = runs(live, self.capacity).collect();
        scope(visitor, "rows", |v| {
            for (i, field) in self.schema.fields().iter().enumerate() {
                let column = |slots: &Range<i64>| {
                    let rows = self.storage.narrow(0, slots.start, slots.end - slots.start);
                    self.words.column(&rows, i)
                };
                let parts: Vec<Tensor> = slots.iter().map(column).collect();
                if parts.is_empty() {
                    continue;
                }
                let whole = Tensor::cat(&parts, 0);
                visit_tensor(v, &field.name, &whole)?;
                if v.loading() {
                    let mut done = 0;
                    for mut part in parts {
                        let n = part.size()[0];
                        part.copy_(&whole.narrow(0, done, n));
                        done += n;
                    }
                }
            }
            Ok(())
        })?;
        if let Some(stacks) = &mut self.stacks {
            scope(visitor, "frames", |v| stacks.store.visit(v))?;
        }
        scope(visitor, "random", |v| self.random.visit(v))?;
        scope(visitor, "sampler", |v| match &mut self.choice {
            Choice::Uniform { .. } => Ok(()),
            Choice::Proportional(p) => {
                visit_tensor(v, "largest", &p.largest)?;
                p.sums.visit(v)
            }
        })
    }
}

/// The slots of keys that follow each other, at most once around the ring: one run or two.
fn runs(keys: Range<u64>, capacity: u64) -> impl Iterator<Item = Range<i64>> {
    let (first, count) = (keys.start % capacity, keys.end - keys.start);
    debug_assert!(count <= capacity);
    let before = count.min(capacity - first);
    let run = |from: u64, n: u64| from as i64..(from + n) as i64;
    [run(first, before), run(0, count - before)].into_iter().filter(|run| !run.is_empty())
}
