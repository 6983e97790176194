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
mod choice;
mod error;
mod frames;
mod intake;
mod random;
mod state;
mod sums;
mod words;

pub use error::DeviceReplayError;
pub use frames::{FrameRows, FrameStore};

use crate::shim::cuda::Event;
use crate::staging::{HostWords, MiniBatch};
use choice::{Choice, Proportional, tree_height};
use intake::Block;
use rand::Rng as _;
use random::Random;
use rl_minibatch::{Batch, Dtype, Rng, Schema};
use rl_replay::{Prioritized, Reader, Replay};
use std::ops::Range;
use sums::Sums;
use tch::{Device, Kind, Tensor};
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
    /// Rows taken, and the first drawable one, when `draw` was called; `None` if something else was drawn since.
    drawn_of: Option<(u64, u64)>,
}

/// Observations that are stacks of frames.
#[derive(Debug)]
struct Stacks {
    store: FrameStore,
    /// The columns of serials in the gathered row, and where the stacks go: of `obs` and `next_obs`.
    columns: [(Tensor, Tensor); 2],
}

impl DeviceReplay {
    /// A buffer on `device` of rows that come through `inlet`. `rng` gives the seed of the draws.
    ///
    /// Memory on the device: the row's bytes, each field filled up to 8, and 8.5 to 16 bytes a row for priorities, 16 up to 20,000 rows.
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
            drawn_of: None,
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
            Choice::Proportional(p) => p.sums.bytes(),
        };
        let frames = self.stacks.as_ref().map_or(0, |stacks| stacks.store.memory_bytes());
        self.storage.numel() * size_of::<i64>() + priorities + frames
    }
}
