//! Sequences as rows: fixed-length pieces of an episode for recurrent learners (Kapturowski et al., *Recurrent Experience
//! Replay in Distributed Reinforcement Learning* (R2D2), ICLR 2019, §2.3 and §3).
//!
//! One row is one sequence, so everything that is there for rows, priorities above all, is there for sequences. The
//! price is that a step in an overlap is stored once for each sequence that it is in: length / (length − overlap) times.
//! Where that is too much, store steps once with an [`EpisodeWriter`](crate::EpisodeWriter), recurrent states among
//! their fields, and draw windows.
//!
//! ```
//! use rand::SeedableRng;
//! use rl_replay::{
//!     Batch, Drawn, Dtype, Field, Prioritized, Replay, Rng, Schema, SequenceEnd, SequenceSpec, Sequences,
//!     sequence_priority,
//! };
//!
//! // A step: what was seen, done and got, and the recurrent state with which the step was begun.
//! let step = Schema::new(vec![
//!     Field::new("obs", Dtype::F32, [3]),
//!     Field::new("action", Dtype::I64, []),
//!     Field::new("reward", Dtype::F32, []),
//!     Field::new("discount", Dtype::F32, []),
//!     Field::new("hidden", Dtype::F32, [16]),
//! ])?;
//! // Eight steps a sequence, each sharing four with the one before it; the first two only warm the network up.
//! let spec = SequenceSpec { length: 8, overlap: 4, burn_in: 2, ends: SequenceEnd::Pad };
//! let rows = Sequences::schema(spec, &step, &["hidden"])?;
//! let replay = Replay::builder(rows.clone()).capacity(1_000).prioritized(Prioritized::default()).build()?;
//!
//! // One accumulator for each environment.
//! let (mut sequences, mut writer) = (Sequences::new(spec, &step, &["hidden"])?, replay.writer());
//! for t in 0..11i64 {
//!     let (obs, hidden) = ([t as f32; 3], [0.1 * t as f32; 16]);
//!     let discount = if t == 10 { 0f32 } else { 0.99 }; // terminated at t = 10
//!     let step: [&[u8]; 5] = [
//!         bytemuck::cast_slice(&obs),
//!         &t.to_ne_bytes(),
//!         &1f32.to_ne_bytes(),
//!         &discount.to_ne_bytes(),
//!         bytemuck::cast_slice(&hidden),
//!     ];
//!     sequences.push(&step, t == 10, &mut writer)?;
//! }
//! assert_eq!(replay.len(), 2); // steps 0..8, and 4..11 with one step of padding
//!
//! let (mut reader, mut rng) = (replay.sampler(), Rng::seed_from_u64(0));
//! let (mut batch, mut drawn) = (Batch::new(&rows, 32), Drawn::default());
//! reader.sample_into(&mut rng, 32, &mut batch.view_mut(), &mut drawn)?;
//! assert_eq!(batch.typed::<f32>("obs")?.len(), 32 * 8 * 3); // [B, T, 3]
//! assert_eq!(batch.typed::<f32>("hidden")?.len(), 32 * 16); // [B, 16]: of the first step
//! // Here the learner unrolls its network and makes a TD error for each step, [B, T].
//! let td_errors = [0.5f32; 32 * 8];
//! let mut priorities = [0f32; 32];
//! sequence_priority(&td_errors, batch.typed::<f32>("mask")?, spec.burn_in, 0.9, &mut priorities)?;
//! reader.update_priorities(&drawn.rows, &priorities)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::{ReplayError, Writer};
use rl_minibatch::{Dtype, Field, Schema, StateError, StateVisitor, scalar};
use std::ops::Range;

/// The name of the field that says which steps of a sequence are real.
const MASK: &str = "mask";

/// How the steps of an episode are cut into sequences. Counts are in steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceSpec {
    /// Steps of a sequence, T; at least 1.
    pub length: usize,
    /// Steps that a sequence shares with the one before it in the episode; less than `length`. At least `burn_in`, or
    /// some steps will be in no sequence's trained part.
    pub overlap: usize,
    /// Steps at the front that only bring the recurrent state up to date and are not trained on; less than `length`.
    /// It is the same for every row and therefore no field. [`sequence_priority`] leaves these steps out, and a
    /// sequence that would have no other real steps is not written.
    pub burn_in: usize,
    /// What becomes of the last sequence of an episode.
    pub ends: SequenceEnd,
}

/// What becomes of an episode's last sequence where the episode does not fill it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SequenceEnd {
    /// It begins where it would, and is filled up with zeros, whose mask is 0.
    #[default]
    Pad,
    /// It is moved back until it is full and ends with the episode, so that it shares more steps with the one before.
    /// An episode shorter than a sequence is padded.
    Clip,
}

impl SequenceSpec {
    /// As in the paper: 80 steps that overlap by 40, and 40 of burn-in.
    pub const R2D2: Self = Self { length: 80, overlap: 40, burn_in: 40, ends: SequenceEnd::Pad };

    /// The steps of a sequence that are trained on: `burn_in..length`.
    pub fn trained(&self) -> Range<usize> {
        self.burn_in..self.length
    }

    fn check(&self) -> Result<(), ReplayError> {
        let setting =
            |name, value: usize, expected| Err(ReplayError::Setting { name, value: value as f64, expected });
        if self.length == 0 {
            return setting("length", 0, "at least 1");
        }
        if self.overlap >= self.length {
            return setting("overlap", self.overlap, "less than the length of a sequence");
        }
        if self.burn_in >= self.length {
            return setting("burn_in", self.burn_in, "less than the length of a sequence");
        }
        Ok(())
    }
}

/// Turns the steps of one environment into rows that are sequences.
///
/// A step is what `step_schema` says, so it is up to you what a learner finds in it. To bootstrap beyond a sequence's
/// last step, either have a `next_obs` in it, or leave the last steps of each sequence to the targets alone, as R2D2
/// does; in that case push, at an episode's end, its true last observation as a step of its own with discount 0.
///
/// The k-th sequence of an episode begins at its step k·(length − overlap). None reaches into another episode.
///
/// Use one for each environment. Memory: 2·length steps.
#[derive(Clone, Debug)]
pub struct Sequences {
    spec: SequenceSpec,
    step_schema: Schema,
    row_schema: Schema,
    /// Which fields of a step are stored once for each sequence.
    once: Vec<bool>,
    /// For each field of a step room for 2·length of them. What is in use ends at `end`; when there is no more room, the
    /// steps that are still needed go to the front. So every sequence lies in one piece.
    columns: Vec<Vec<u8>>,
    end: usize,
    /// Steps before `end` that are of this episode: all, or at least the newest length − 1.
    held: usize,
    /// The newest of them that are in no row yet.
    fresh: usize,
    mask: Vec<f32>,
}

impl Sequences {
    /// What a row holds: for each field of a step, in their order, `[length, shape...]` of the same name and type, and
    /// for one named in `states` the plain `shape`: its value at the sequence's first step. After them `mask`, f32
    /// `[length]`: 1 for a step, 0 for padding, so that it multiplies a loss as it is.
    ///
    /// # Errors
    /// [`ReplayError::Setting`] when the spec makes no sense; [`ReplayError::NotSequence`] when a state is no field of
    /// the step, when nothing but states is, or when a field is called `mask`.
    pub fn schema(spec: SequenceSpec, step_schema: &Schema, states: &[&str]) -> Result<Schema, ReplayError> {
        spec.check()?;
        let refuse = |why: String| Err(ReplayError::NotSequence { why });
        if let Some(state) = states.iter().find(|name| step_schema.position(name).is_none()) {
            let names: Vec<&str> = step_schema.fields().iter().map(|field| field.name.as_str()).collect();
            return refuse(format!("the state '{state}' is none of a step's fields {names:?}"));
        }
        let is_state = |field: &Field| states.contains(&field.name.as_str());
        if step_schema.fields().iter().all(is_state) {
            return refuse("every field of a step is a state; leave one to be stored for each step".into());
        }
        let in_time = |field: &Field| {
            let shape: Vec<usize> = [spec.length].into_iter().chain(field.shape.iter().copied()).collect();
            Field::new(&field.name, field.dtype, shape)
        };
        let of_step = |field: &Field| if is_state(field) { field.clone() } else { in_time(field) };
        let fields = step_schema.fields().iter().map(of_step);
        let mask = Field::new(MASK, Dtype::F32, [spec.length]);
        Schema::new(fields.chain([mask]).collect())
            .or_else(|error| refuse(format!("no row can be made of such steps: {error}")))
    }

    /// An accumulator of steps as `step_schema` describes them, with the fields named in `states` stored once for each
    /// sequence.
    ///
    /// # Errors
    /// Those of [`schema`](Self::schema), and [`ReplayError::Memory`] when the steps of two sequences cannot be held.
    pub fn new(spec: SequenceSpec, step_schema: &Schema, states: &[&str]) -> Result<Self, ReplayError> {
        let row_schema = Self::schema(spec, step_schema, states)?;
        let fields = step_schema.fields();
        let zeroed = |elements: usize, bytes: u128| {
            bytemuck::allocation::try_zeroed_vec(elements).map_err(|()| ReplayError::Memory {
                rows: spec.length as u64,
                bytes,
                source: std::io::ErrorKind::OutOfMemory.into(),
            })
        };
        let columns = fields.iter().map(|field| {
            let bytes = 2 * spec.length as u128 * field.row_bytes() as u128;
            zeroed(usize::try_from(bytes).unwrap_or(usize::MAX), bytes)
        });
        Ok(Self {
            spec,
            once: fields.iter().map(|field| states.contains(&field.name.as_str())).collect(),
            columns: columns.collect::<Result<_, _>>()?,
            step_schema: step_schema.clone(),
            row_schema,
            end: 0,
            held: 0,
            fresh: 0,
            mask: vec![0.0; spec.length],
        })
    }

    /// How sequences are cut.
    pub fn spec(&self) -> SequenceSpec {
        self.spec
    }

    /// Takes one step, a slice for each field of the step's schema, and writes the sequence that it completes, if any.
    /// `ended`: the episode is over with this step, terminated or truncated. Returns the rows written, 0 or 1.
    ///
    /// Cost: the step is copied, on average, twice; and a row of the buffer every `length − overlap` steps.
    ///
    /// # Errors
    /// [`ReplayError::NotSequence`] when the writer's buffer has other rows than [`schema`](Self::schema) says;
    /// [`ReplayError::Columns`], [`ReplayError::Bytes`], [`ReplayError::NotFinite`] and [`ReplayError::OutOfRange`] for the step. Neither the buffer
    /// nor the open steps have changed then.
    pub fn push(&mut self, step: &[&[u8]], ended: bool, writer: &mut Writer) -> Result<usize, ReplayError> {
        if *writer.schema() != self.row_schema {
            let why = "the writer's buffer has another schema; build it with `Sequences::schema`".into();
            return Err(ReplayError::NotSequence { why });
        }
        writer.check(&self.step_schema, 1, step)?;
        self.take(step);
        let due = self.due(ended);
        if let Some(steps) = due {
            if let Err(error) = self.write(steps, writer) {
                (self.end, self.held, self.fresh) = (self.end - 1, self.held - 1, self.fresh - 1);
                return Err(error);
            }
            self.fresh = 0;
        }
        if ended {
            self.clear();
        }
        Ok(usize::from(due.is_some()))
    }

    /// Steps that are in no row yet.
    pub fn open_steps(&self) -> usize {
        self.fresh
    }

    /// Forgets the open steps without writing them, for an environment that is reset in the middle of an episode.
    pub fn clear(&mut self) {
        (self.end, self.held, self.fresh) = (0, 0, 0);
    }

    /// Shows the steps that sequences to come may need to `visitor`.
    ///
    /// # Errors
    /// Those of the visitor, and [`StateError::Invalid`] for counts that make no sense; nothing has changed then.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        if !visitor.loading() {
            self.keep_newest(self.spec.length - 1);
            // What lies behind is left from earlier steps, and no part of the state.
            self.zero_from(self.end);
        }
        let mut loaded = self.clone();
        loaded.visit_parts(visitor)?;
        let (held, fresh, length) = (loaded.held, loaded.fresh, self.spec.length);
        if held >= length || fresh > held {
            let why = format!("{fresh} of {held} steps are open, where sequences have {length}");
            return Err(StateError::Invalid { path: "held".into(), why });
        }
        *self = loaded;
        Ok(())
    }

    fn visit_parts(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let [mut held, mut fresh] = [self.held, self.fresh].map(|count| count as u64);
        scalar(visitor, "held", &mut held)?;
        scalar(visitor, "fresh", &mut fresh)?;
        [self.held, self.fresh] = [held, fresh].map(|count| usize::try_from(count).unwrap_or(usize::MAX - 1));
        self.end = self.held;
        let length = self.spec.length;
        for (field, column) in self.step_schema.fields().iter().zip(&mut self.columns) {
            let shape: Vec<usize> = [length].into_iter().chain(field.shape.iter().copied()).collect();
            let bytes = &mut column[..length * field.row_bytes()];
            visitor.array(&field.name, field.dtype, &shape, bytes)?;
        }
        Ok(())
    }

    fn take(&mut self, step: &[&[u8]]) {
        let length = self.spec.length;
        if self.end == 2 * length {
            self.keep_newest(length - 1);
        }
        for (column, cell) in self.columns.iter_mut().zip(step) {
            column[self.end * cell.len()..][..cell.len()].copy_from_slice(cell);
        }
        (self.end, self.held, self.fresh) = (self.end + 1, self.held + 1, self.fresh + 1);
    }

    /// How many of the newest steps are a row now.
    fn due(&self, ended: bool) -> Option<usize> {
        let SequenceSpec { length, overlap, burn_in, ends } = self.spec;
        // Before an episode's first row all steps are fresh, and there is nothing to overlap with.
        let open = self.held.min(self.fresh + overlap);
        let due = if open == length {
            Some(length)
        } else if !ended {
            None
        } else if ends == SequenceEnd::Clip && self.held >= length {
            Some(length)
        } else {
            Some(open)
        };
        due.filter(|steps| *steps > burn_in)
    }

    /// Writes the newest `steps` steps as a row.
    fn write(&mut self, steps: usize, writer: &mut Writer) -> Result<(), ReplayError> {
        let length = self.spec.length;
        if steps < length {
            // Only at an episode's end, so that no other step will be asked for.
            self.keep_newest(steps);
            self.zero_from(steps);
        }
        let first = self.end - steps;
        self.mask[..steps].fill(1.0);
        self.mask[steps..].fill(0.0);
        let fields = self.step_schema.fields().iter().zip(&self.once).zip(&self.columns);
        let mut row: Vec<&[u8]> = Vec::with_capacity(self.columns.len() + 1);
        row.extend(fields.map(|((field, once), column)| {
            let bytes = field.row_bytes();
            &column[first * bytes..][..if *once { bytes } else { length * bytes }]
        }));
        row.push(bytemuck::cast_slice(&self.mask));
        writer.push(&row).map(drop)
    }

    /// Moves the newest steps, at most `keep`, to the front, and forgets the others.
    fn keep_newest(&mut self, keep: usize) {
        let kept = self.held.min(keep);
        for (field, column) in self.step_schema.fields().iter().zip(&mut self.columns) {
            let bytes = field.row_bytes();
            column.copy_within((self.end - kept) * bytes..self.end * bytes, 0);
        }
        (self.end, self.held) = (kept, kept);
    }

    /// Zeroes the steps from `step` up to the length of a sequence.
    fn zero_from(&mut self, step: usize) {
        for (field, column) in self.step_schema.fields().iter().zip(&mut self.columns) {
            let bytes = field.row_bytes();
            column[step * bytes..self.spec.length * bytes].fill(0);
        }
    }
}

/// Writes the priority of each sequence to `out`: η·max|δ| + (1 − η)·mean|δ| over its trained steps, those behind the
/// burn-in whose mask is not 0 (Kapturowski et al. 2019, §2.3, where η is 0.9). A sequence without such a step gets 0.
///
/// `td_errors` and `mask` are `[B, T]`, row-major, with B the length of `out`. A NaN or infinite δ of a trained step
/// gives a priority that is not finite, which [`update_priorities`](crate::Reader::update_priorities) refuses with the
/// row's key. O(B·T), without allocation.
///
/// # Errors
/// [`ReplayError::Setting`] when η is outside 0..=1; [`ReplayError::Elements`] when the slices do not fit together.
/// `out` is then untouched.
pub fn sequence_priority(
    td_errors: &[f32],
    mask: &[f32],
    burn_in: usize,
    eta: f64,
    out: &mut [f32],
) -> Result<(), ReplayError> {
    if !(0.0..=1.0).contains(&eta) {
        return Err(ReplayError::Setting { name: "eta", value: eta, expected: "in 0..=1" });
    }
    if mask.len() != td_errors.len() {
        let (expected, got) = (td_errors.len(), mask.len());
        return Err(ReplayError::Elements { what: "mask", expected, got });
    }
    let length = td_errors.len().checked_div(out.len()).unwrap_or(0);
    if length * out.len() != td_errors.len() {
        let (expected, got) = (length * out.len(), td_errors.len());
        return Err(ReplayError::Elements { what: "td_errors", expected, got });
    }
    for (row, out) in out.iter_mut().enumerate() {
        let steps = (row * length + burn_in.min(length))..(row + 1) * length;
        let (mut largest, mut sum, mut count) = (0f32, 0f64, 0u32);
        for (error, mask) in td_errors[steps.clone()].iter().zip(&mask[steps]) {
            if *mask != 0.0 {
                // `max` would pass over a NaN, but the sum does not.
                largest = largest.max(error.abs());
                sum += f64::from(error.abs());
                count += 1;
            }
        }
        let mean = if count == 0 { 0.0 } else { sum / f64::from(count) };
        *out = (eta * f64::from(largest) + (1.0 - eta) * mean) as f32;
    }
    Ok(())
}
