//! Frame stacks that are put together on the device, from frames that lie there once.
//!
//! An observation of k frames is k serials of frames; a row of the buffer holds such observations, `obs` and `next_obs`, and
//! [`NStep`] folds them as it folds any. What is drawn is gathered twice: the row, and the frames that it names.

use super::DeviceReplayError;
use super::intake::runs;
use crate::shim::cuda::{self, Event, Stream};
use crate::staging::HostTensors;
use crate::state::{kind_of, visit_tensor};
use rl_minibatch::{Dtype, Field, Schema, SchemaError, StateError, StateVisitor, scalar, scope, value};
use rl_replay::{FramePadding, FrameStep, NStep, Reader, Replay, ReplayError, Step, Writer};
use std::collections::VecDeque;
use std::ops::Range;
use tch::{Device, Tensor, no_grad};

/// Stands for a frame of zeros in a stack.
const ZEROS: i64 = -1;

/// The newest frames of all environments, each once, on the learner's device; they come through an inlet as rows do.
///
/// A row can be drawn while all its frames are there: with `capacity` frames about as many rows, less one for each episode and some for each
/// environment. [`DeviceReplay::live`](super::DeviceReplay::live) tells.
#[derive(Debug)]
pub struct FrameStore {
    inlet: Replay,
    reader: Reader,
    device: Device,
    capacity: u64,
    /// Frames taken from the inlet: the next frame's serial.
    taken: u64,
    /// `[capacity + 1, …]`: frame s lies at s mod capacity, and zeros after the last.
    frames: Tensor,
    host: HostTensors,
    block: usize,
    copied: Option<Event>,
    /// Rows by key with the serial of their oldest frame, both ascending: of rows that follow one whose oldest frame is older, none is here.
    oldest: VecDeque<(u64, u64)>,
}

impl FrameStore {
    /// What an inlet of frames of this element type and shape holds.
    ///
    /// # Errors
    /// When a frame has no bytes or too many.
    pub fn frame_schema(frame: (Dtype, &[usize])) -> Result<Schema, SchemaError> {
        Schema::new(vec![Field::new("frame", frame.0, frame.1)])
    }

    /// What an inlet of rows with stacks of `stack` frames holds: `obs` and `next_obs` are serials.
    ///
    /// # Errors
    /// When the stack is empty, or an action has no bytes.
    pub fn row_schema(stack: usize, action: (Dtype, &[usize])) -> Result<Schema, SchemaError> {
        Schema::transition((Dtype::I64, &[stack]), action)
    }

    /// Room for `capacity` frames on `device`, which come through `inlet`.
    ///
    /// # Errors
    /// [`DeviceReplayError::Setting`] when the capacity is 0 or the inlet is not one of single frames; libtorch's when the memory cannot be had.
    pub fn new(capacity: usize, inlet: &Replay, device: Device) -> Result<Self, DeviceReplayError> {
        let refuse = |text: String| Err(DeviceReplayError::Setting(text));
        let [field] = inlet.schema().fields() else {
            return refuse("an inlet of frames has one field, the frame".to_string());
        };
        if capacity == 0 || capacity > 1 << 31 {
            return refuse(format!(
                "the capacity in frames is {capacity}; it must lie between 1 and 2147483648"
            ));
        }
        let shape: Vec<i64> =
            std::iter::once(capacity as i64 + 1).chain(field.shape.iter().map(|&d| d as i64)).collect();
        let block = inlet.capacity().min(capacity).min(64);
        Ok(Self {
            inlet: inlet.clone(),
            reader: inlet.sampler(),
            device,
            capacity: capacity as u64,
            taken: 0,
            frames: Tensor::f_zeros(&shape, (kind_of(field.dtype), device))?,
            host: HostTensors::new(inlet.schema(), block, device)?,
            block,
            copied: if device == Device::Cpu { None } else { Some(Event::new(false)?) },
            oldest: VecDeque::new(),
        })
    }

    /// Frames taken from the inlet so far.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.frames.numel() * self.frames.kind().elt_size_in_bytes()
    }

    fn field(&self) -> &Field {
        &self.inlet.schema().fields()[0]
    }

    /// Takes all frames from the inlet, and gives the first serial that is still there.
    pub(super) fn take_in(&mut self) -> Result<u64, DeviceReplayError> {
        while self.taken < self.inlet.inserted() {
            let n = (self.inlet.inserted() - self.taken).min(self.block as u64);
            if let Some(copied) = &self.copied {
                copied.synchronize()?;
            }
            let serials: Vec<u64> = (self.taken..self.taken + n).collect();
            self.reader.pin()?.gather(&serials, &mut self.host.view_mut()).map_err(|e| match e {
                ReplayError::NotLive { end, .. } => DeviceReplayError::Overrun {
                    inserted: end,
                    taken: self.taken,
                    capacity: self.inlet.capacity(),
                },
                other => other.into(),
            })?;
            let mut done = 0;
            for slots in runs(self.taken..self.taken + n, self.capacity) {
                let count = slots.end - slots.start;
                let from = self.host.columns()[0].narrow(0, done, count);
                cuda::copy_async(&self.frames.narrow(0, slots.start, count), &from)?;
                done += count;
            }
            if let (Some(copied), Device::Cuda(device)) = (&mut self.copied, self.device) {
                copied.record(&Stream::current(device)?)?;
            }
            self.taken += n;
        }
        Ok(self.taken.saturating_sub(self.capacity))
    }

    /// Notes the row `key`, whose stacks name these serials.
    pub(super) fn note(&mut self, key: u64, serials: impl Iterator<Item = i64>) {
        let Some(oldest) = serials.filter(|serial| *serial >= 0).min() else { return };
        while self.oldest.back().is_some_and(|(_, other)| *other >= oldest as u64) {
            self.oldest.pop_back();
        }
        self.oldest.push_back((key, oldest as u64));
    }

    /// The first row that has no frame before `first`, as far as rows were noted; `None` if that is all of them.
    pub(super) fn drawable_from(&mut self, first: u64) -> Option<u64> {
        let mut from = None;
        while let Some((key, oldest)) = self.oldest.front()
            && *oldest < first
        {
            from = Some(*key + 1);
            self.oldest.pop_front();
        }
        from
    }

    /// Where stacks of `rows` rows of `k` frames are gathered to.
    pub(super) fn stacks(&self, rows: usize, k: i64) -> Tensor {
        let shape: Vec<i64> =
            [rows as i64, k].into_iter().chain(self.frames.size()[1..].iter().copied()).collect();
        Tensor::zeros(&shape, (self.frames.kind(), self.device))
    }

    /// Gathers the frames of `serials`, `[B, k]`, into `out`, `[B, k, …]`.
    pub(super) fn gather(&self, serials: &Tensor, out: &Tensor) -> Result<(), tch::TchError> {
        let serials = serials.reshape([-1]);
        let slots = serials
            .remainder(self.capacity as i64)
            .f_masked_fill(&serials.eq(ZEROS), self.capacity as i64)?;
        let shape: Vec<i64> = std::iter::once(-1).chain(self.frames.size()[1..].iter().copied()).collect();
        let _ = self.frames.f_index_select_out(&out.f_view(shape.as_slice())?, 0, &slots)?;
        Ok(())
    }

    pub(super) fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let (mut capacity, mut taken) = (self.capacity, self.taken);
        scalar(visitor, "capacity", &mut capacity)?;
        scalar(visitor, "taken", &mut taken)?;
        let mut oldest: Vec<(u64, u64)> = self.oldest.iter().copied().collect();
        value(visitor, "oldest", &mut oldest)?;
        if visitor.loading() {
            if capacity != self.capacity {
                let why = format!("{capacity} frames were kept and now {}", self.capacity);
                return Err(StateError::Invalid { path: "capacity".to_string(), why });
            }
            self.taken = taken;
            self.oldest = oldest.into();
        }
        let live: Range<i64> = 0..self.taken.min(self.capacity) as i64;
        if live.is_empty() {
            return Ok(());
        }
        no_grad(|| visit_tensor(visitor, &self.field().name.clone(), &self.frames.narrow(0, 0, live.end)))
    }
}

/// Inserts the episodes of one environment whose observations are stacks of frames: frames into one inlet, rows that name them into another. As
/// [`FrameStream`](rl_replay::FrameStream) does for a buffer on the host.
#[derive(Debug)]
pub struct FrameRows {
    frames: Writer,
    rows: Writer,
    n_step: NStep,
    padding: FramePadding,
    /// Serials of the newest observation, oldest first; empty before an episode.
    stack: Vec<i64>,
    k: usize,
}

impl FrameRows {
    /// For stacks of `k` frames, and rows of up to `n` steps discounted by `gamma`; `padding` stands before an episode's first frame.
    ///
    /// # Errors
    /// Those of [`NStep::new`]; [`ReplayError::NotFrames`] when the inlet's rows are not of [`FrameStore::row_schema`] for this k.
    pub fn new(
        frames: &Replay,
        rows: &Replay,
        (n, gamma): (usize, f64),
        padding: FramePadding,
        k: usize,
    ) -> Result<Self, ReplayError> {
        let obs = &rows.schema().fields()[0];
        if obs.dtype != Dtype::I64 || obs.shape != [k] {
            let why = format!(
                "rows of stacks hold {k} serials as i64, and these {:?} of {:?}",
                obs.shape, obs.dtype
            );
            return Err(ReplayError::NotFrames { why });
        }
        let n_step = NStep::new(n, gamma, rows.schema())?;
        Ok(Self { frames: frames.writer(), rows: rows.writer(), n_step, padding, stack: Vec::new(), k })
    }

    /// Begins an episode with its first frame.
    ///
    /// # Errors
    /// Those of [`Writer::push`].
    pub fn begin(&mut self, first_frame: &[u8]) -> Result<(), ReplayError> {
        let serial = self.frames.push(&[first_frame])? as i64;
        let before = match self.padding {
            FramePadding::Repeat => serial,
            FramePadding::Zero => ZEROS,
        };
        // Of an episode that was left without an end.
        self.n_step.clear();
        self.stack.clear();
        self.stack.resize(self.k - 1, before);
        self.stack.push(serial);
        Ok(())
    }

    /// Takes one step, and inserts its frame and the rows that it completes.
    ///
    /// # Errors
    /// [`ReplayError::NotFrames`] when no episode was begun; those of [`NStep::push`]. The episode is then as it was, with a frame in the inlet
    /// that no row names.
    pub fn step(&mut self, step: FrameStep<'_>) -> Result<(), ReplayError> {
        if self.stack.is_empty() {
            let why =
                "a step came where an episode has to begin; call `begin` with its first frame".to_string();
            return Err(ReplayError::NotFrames { why });
        }
        let serial = self.frames.push(&[step.next_frame])? as i64;
        let next: Vec<i64> = self.stack[1..].iter().copied().chain([serial]).collect();
        let row = Step {
            obs: bytemuck::cast_slice(&self.stack),
            action: step.action,
            reward: step.reward,
            next_obs: bytemuck::cast_slice(&next),
            terminated: step.terminated,
            truncated: step.truncated,
        };
        self.n_step.push(row, &mut self.rows)?;
        self.stack = if step.terminated || step.truncated { Vec::new() } else { next };
        Ok(())
    }

    /// Steps that wait for their n-th successor.
    pub fn open_steps(&self) -> usize {
        self.n_step.open_steps()
    }

    /// Shows the stack and the open steps of the episode in progress. The inlets are their owners' to show.
    ///
    /// # Errors
    /// Those of the visitor; [`StateError::Invalid`] for a stack of another length.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let mut stack = self.stack.clone();
        value(visitor, "stack", &mut stack)?;
        if visitor.loading() {
            if !(stack.is_empty() || stack.len() == self.k) {
                let why = format!("a stack of {} frames, where observations have {}", stack.len(), self.k);
                return Err(StateError::Invalid { path: "stack".to_string(), why });
            }
            self.stack = stack;
        }
        scope(visitor, "n_step", |v| self.n_step.visit(v))
    }
}
