//! Episodes kept together: rows that tell where in their episode they are, stored next to each other, and drawn as
//! whole episodes or as windows of them.
//!
//! An [`EpisodeWriter`] holds the steps of one environment back until the episode ends, and stores them under one claim,
//! so that their keys follow each other however many other writers there are. Each row carries its position from the
//! start and from the end of the episode. A row at `key` therefore tells the keys of all its neighbours,
//! `key − episode_step ..= key + episode_left`; those after it are live whenever it is, those before it unless they have
//! been overwritten. [`EpisodeReader`] and [`Hindsight`](crate::Hindsight) draw by that.
//!
//! ```
//! use rand::SeedableRng;
//! use rl_replay::{Batch, DrawnEpisodes, Dtype, EpisodeReader, EpisodeWriter, Field, Replay, Rng, Schema};
//!
//! let step = Schema::new(vec![Field::new("obs", Dtype::F32, [3]), Field::new("reward", Dtype::F32, [])])?;
//! let rows = EpisodeWriter::schema(&step)?; // with `episode_step` and `episode_left`
//! // Episodes of at most 200 steps, each under one claim.
//! let replay = Replay::builder(rows.clone()).capacity(10_000).reserve(200).build()?;
//!
//! // One for each environment, on any thread.
//! let mut writer = EpisodeWriter::new(&replay, 200)?;
//! for steps in [5, 1, 7] {
//!     for t in 0..steps {
//!         let obs = [t as f32; 3];
//!         writer.push(&[bytemuck::cast_slice(&obs), &1f32.to_ne_bytes()], t + 1 == steps)?;
//!     }
//! }
//!
//! let (mut reader, mut rng) = (EpisodeReader::new(&replay)?, Rng::seed_from_u64(0));
//! let (mut batch, mut drawn) = (Batch::new(&rows, 4 * 8), DrawnEpisodes::default());
//! // Four whole episodes, each filled up to 8 steps: [B, T, 3].
//! reader.sample_episodes(&mut rng, 4, 8, &mut batch.view_mut(), &mut drawn)?;
//! let rewards = batch.typed::<f32>("reward")?;
//! let returns: Vec<f32> = rewards.chunks(8).map(|episode| episode.iter().sum()).collect();
//! let lengths: Vec<f32> = drawn.lengths.iter().map(|steps| *steps as f32).collect();
//! assert_eq!(returns, lengths);
//! // Eight windows of 4 steps, each inside an episode.
//! reader.sample_windows(&mut rng, 8, 4, &mut batch.view_mut(), &mut drawn)?;
//! for window in batch.typed::<f32>("obs")?.chunks(4 * 3) {
//!     assert_eq!(window[3 * 3], window[0] + 3.0);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::{Replay, ReplayError, Writer};
use rl_minibatch::{Dtype, Field, Schema, StateError, StateVisitor, scalar};

/// The name of the field with a row's position in its episode, an i32 scalar counted from 0.
pub const EPISODE_STEP: &str = "episode_step";
/// The name of the field with the number of steps from a row to its episode's last one, an i32 scalar, 0 for the last.
pub const EPISODE_LEFT: &str = "episode_left";

/// Stores the episodes of one environment, each in one piece. `Send`; use one for each environment.
///
/// Steps can be drawn once their episode has ended, and not before. An episode that goes on beyond `max_steps` is stored
/// in several pieces, each of which counts as an episode: as if it had been truncated and gone on from there. Nothing
/// in the steps themselves is changed by that, so a learner that bootstraps from their `next_obs` is right either way.
///
/// Memory: the open steps, at most `max_steps`.
#[derive(Clone, Debug)]
pub struct EpisodeWriter {
    writer: Writer,
    step_schema: Schema,
    max_steps: usize,
    steps: usize,
    /// The open steps, a column for each field of a step, with room for `max_steps`.
    columns: Vec<Vec<u8>>,
    /// Scratch: the two positions of each row.
    positions: [Vec<i32>; 2],
}

impl EpisodeWriter {
    /// What a row holds: the fields of a step, and after them [`EPISODE_STEP`] and [`EPISODE_LEFT`].
    ///
    /// # Errors
    /// [`ReplayError::NotEpisodes`] when a step has a field of one of these names.
    pub fn schema(step_schema: &Schema) -> Result<Schema, ReplayError> {
        let positions = [EPISODE_STEP, EPISODE_LEFT].map(|name| Field::new(name, Dtype::I32, []));
        Schema::new(step_schema.fields().iter().cloned().chain(positions).collect()).map_err(|error| {
            ReplayError::NotEpisodes { why: format!("no row can be made of such steps: {error}") }
        })
    }

    /// A writer to `replay`, whose rows are as [`schema`](Self::schema) says, of episodes of at most `max_steps` steps.
    ///
    /// # Errors
    /// [`ReplayError::NotEpisodes`] when the buffer's rows are others; [`ReplayError::EpisodeRoom`] when the buffer's
    /// reserve or its capacity is less than `max_steps`; [`ReplayError::Setting`] when `max_steps` is 0 or no i32.
    pub fn new(replay: &Replay, max_steps: usize) -> Result<Self, ReplayError> {
        let fields = replay.schema().fields();
        let [step, left] = positions(replay.schema())?;
        if (step, left + 1) != (fields.len().saturating_sub(2), fields.len()) || step == 0 {
            let why = "the last two fields of a row must be 'episode_step' and 'episode_left', with those of a step \
                       before them; build the buffer with `EpisodeWriter::schema`";
            return Err(ReplayError::NotEpisodes { why: why.into() });
        }
        if max_steps == 0 || i32::try_from(max_steps).is_err() {
            let (value, expected) = (max_steps as f64, "at least 1 and at most 2147483647");
            return Err(ReplayError::Setting { name: "max_steps", value, expected });
        }
        let room = replay.reserve().min(replay.capacity());
        if max_steps > room {
            return Err(ReplayError::EpisodeRoom { max_steps, room });
        }
        let step_schema = Schema::new(fields[..step].to_vec()).expect("a part of a schema is one");
        Ok(Self {
            writer: replay.writer(),
            columns: step_schema
                .fields()
                .iter()
                .map(|f| Vec::with_capacity(max_steps * f.row_bytes()))
                .collect(),
            step_schema,
            max_steps,
            steps: 0,
            positions: [(); 2].map(|()| Vec::with_capacity(max_steps)),
        })
    }

    /// What storing does that the buffer's rate limiter does not allow: wait, unless this says otherwise. An episode is
    /// stored by one call.
    pub fn when_limited(mut self, when: crate::WhenLimited) -> Self {
        self.writer = self.writer.when_limited(when);
        self
    }

    /// Takes one step, a slice for each field of a step. `ended`: the episode is over with it, terminated or truncated.
    /// When it is, or when there are `max_steps` of them, the steps are stored. Returns the rows stored: 0, or all that
    /// were open.
    ///
    /// Cost: two copies of the step. Storing waits as [`Writer::push_rows`] does.
    ///
    /// # Errors
    /// [`ReplayError::Columns`], [`ReplayError::Bytes`], [`ReplayError::NotFinite`], [`ReplayError::OutOfRange`]; neither the buffer nor the open
    /// steps have changed then.
    pub fn push(&mut self, step: &[&[u8]], ended: bool) -> Result<usize, ReplayError> {
        self.writer.check(&self.step_schema, 1, step)?;
        for (column, cell) in self.columns.iter_mut().zip(step) {
            column.extend_from_slice(cell);
        }
        self.steps += 1;
        if !ended && self.steps < self.max_steps {
            return Ok(0);
        }
        self.store().inspect_err(|_| {
            self.steps -= 1;
            for (column, cell) in self.columns.iter_mut().zip(step) {
                column.truncate(column.len() - cell.len());
            }
        })
    }

    /// Stores the open steps as an episode of their own, for an environment that is reset in the middle of one whose
    /// steps are worth keeping. Returns how many there were.
    ///
    /// # Errors
    /// Those of [`Writer::push_rows`]; the steps are still open then.
    pub fn finish(&mut self) -> Result<usize, ReplayError> {
        if self.steps == 0 { Ok(0) } else { self.store() }
    }

    /// Steps of the episode that is not stored yet.
    pub fn open_steps(&self) -> usize {
        self.steps
    }

    /// Forgets the open steps without storing them.
    pub fn clear(&mut self) {
        self.steps = 0;
        self.columns.iter_mut().for_each(Vec::clear);
    }

    /// Shows the open steps to `visitor`.
    ///
    /// # Errors
    /// Those of the visitor, and [`StateError::Invalid`] when there are more open steps than `max_steps` allows;
    /// nothing has changed then.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let mut steps = self.steps as u64;
        scalar(visitor, "open", &mut steps)?;
        if steps >= self.max_steps as u64 {
            let why = format!("{steps} open steps, where an episode has at most {}", self.max_steps);
            return Err(StateError::Invalid { path: "open".into(), why });
        }
        let steps = steps as usize;
        let mut columns = self.columns.clone();
        for (field, column) in self.step_schema.fields().iter().zip(&mut columns) {
            let shape: Vec<usize> = [steps].into_iter().chain(field.shape.iter().copied()).collect();
            column.resize(steps * field.row_bytes(), 0);
            visitor.array(&field.name, field.dtype, &shape, column)?;
        }
        if visitor.loading() {
            self.clear();
            self.steps = steps;
            for (column, loaded) in self.columns.iter_mut().zip(&columns) {
                column.extend_from_slice(loaded);
            }
        }
        Ok(())
    }

    fn store(&mut self) -> Result<usize, ReplayError> {
        let steps = self.steps;
        let count = steps as i32; // at most `max_steps`, which is one
        let [step, left] = &mut self.positions;
        step.clear();
        step.extend(0..count);
        left.clear();
        left.extend((0..count).rev());
        let mut columns: Vec<&[u8]> = Vec::with_capacity(self.columns.len() + 2);
        columns.extend(self.columns.iter().map(Vec::as_slice));
        columns.extend([bytemuck::cast_slice(step), bytemuck::cast_slice(left)]);
        self.writer.push_rows(steps, &columns)?;
        self.clear();
        Ok(steps)
    }
}

/// Where [`EPISODE_STEP`] and [`EPISODE_LEFT`] are in a schema.
///
/// # Errors
/// [`ReplayError::NotEpisodes`] when one is missing or not an i32 scalar.
pub(crate) fn positions(schema: &Schema) -> Result<[usize; 2], ReplayError> {
    let find = |name: &str| {
        let found = schema.position(name).filter(|position| {
            let field = &schema.fields()[*position];
            field.dtype == Dtype::I32 && field.elements() == 1
        });
        found.ok_or_else(|| ReplayError::NotEpisodes {
            why: format!(
                "the buffer's rows have no '{name}' that is one i32; build it with `EpisodeWriter::schema` \
                 and insert with an `EpisodeWriter`"
            ),
        })
    };
    Ok([find(EPISODE_STEP)?, find(EPISODE_LEFT)?])
}
