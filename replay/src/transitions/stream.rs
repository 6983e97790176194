//! Inserting the steps of one environment.

use super::{NextObs, visit_kind};
use crate::writer::check_rows;
use crate::{FrameStep, FrameStream, NStep, ReplayError, Step, WhenLimited, Writer};
use rl_minibatch::{Schema, StateError, StateVisitor, scalar, scope};

/// One step of an environment, as bytes in native byte order. The observation that was acted on is the last one given.
#[derive(Clone, Copy, Debug)]
pub struct TransitionStep<'a> {
    /// The action.
    pub action: &'a [u8],
    /// The reward that followed.
    pub reward: f32,
    /// The observation that followed, of stacked ones the new frame; at the end of an episode its true last one, not the
    /// first of the next episode.
    pub next_obs: &'a [u8],
    /// The episode ended in a terminal state, whose value is 0.
    pub terminated: bool,
    /// The episode was cut short, by a time limit for instance; its last observation still has a value.
    pub truncated: bool,
}

/// Inserts the episodes of one environment into [`Transitions`](crate::Transitions). `Send`; use one for each environment.
///
/// [`begin`](Self::begin) with an episode's first observation, then [`step`](Self::step) until it ends. Each observation
/// is given once: the stream remembers it as the one that the next step acts on.
///
/// Memory: the newest n + 1 observations where next_obs is stored, the newest k + n frames where it is derived.
#[derive(Debug)]
pub struct TransitionStream {
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    Stored(Stored),
    Derived(FrameStream),
}

/// Rows folded as by anybody, and what is remembered from step to step.
#[derive(Debug)]
struct Stored {
    writer: Writer,
    n_step: NStep,
    /// Of one observation.
    schema: Schema,
    begun: bool,
    /// The newest observation of the episode.
    obs: Vec<u8>,
}

impl TransitionStream {
    pub(super) fn stored(writer: Writer, n_step: NStep) -> Self {
        let obs = writer.schema().fields()[0].clone();
        let bytes = obs.row_bytes();
        let schema = Schema::new(vec![obs]).expect("a field of a schema is one by itself");
        Self { inner: Inner::Stored(Stored { writer, n_step, schema, begun: false, obs: vec![0; bytes] }) }
    }

    pub(super) fn derived(stream: FrameStream) -> Self {
        Self { inner: Inner::Derived(stream) }
    }

    /// What a step does that the buffer's rate limiter does not allow: wait, unless this says otherwise.
    pub fn when_limited(mut self, when: WhenLimited) -> Self {
        self.inner = match self.inner {
            Inner::Stored(Stored { writer, n_step, schema, begun, obs }) => {
                Inner::Stored(Stored { writer: writer.when_limited(when), n_step, schema, begun, obs })
            }
            Inner::Derived(stream) => Inner::Derived(stream.when_limited(when)),
        };
        self
    }

    /// Begins an episode with its first observation. Steps that were still open are forgotten, as for an environment that
    /// is reset in the middle of an episode. Nothing is inserted before the first step.
    ///
    /// # Errors
    /// [`ReplayError::Bytes`] for an observation of the wrong size, [`ReplayError::NotFinite`]; nothing has changed then.
    pub fn begin(&mut self, first_obs: &[u8]) -> Result<(), ReplayError> {
        match &mut self.inner {
            Inner::Stored(Stored { n_step, schema, begun, obs, .. }) => {
                check_rows(schema, 1, &[first_obs])?;
                obs.copy_from_slice(first_obs);
                n_step.clear();
                *begun = true;
                Ok(())
            }
            Inner::Derived(stream) => stream.begin(first_obs).map_err(|error| named(error, "obs")),
        }
    }

    /// Takes one step, and inserts the rows that it completes: none while the first n steps fill, then one, and at an
    /// episode's end one for each step that is still open. Returns how many rows. After an episode's end
    /// [`begin`](Self::begin) has to come next.
    ///
    /// Cost: up to three copies of an observation. Where next_obs is derived, one of them is made under
    /// a lock that streams share, and readers do not. Waits as [`Writer::push`] does.
    ///
    /// # Errors
    /// [`ReplayError::NotBegun`]; [`ReplayError::Bytes`] for a slice of the wrong size; [`ReplayError::NotFinite`] for a NaN
    /// or infinite observation, action or reward, or a return beyond f32; those of a rate limiter (see [`Writer::push`]).
    /// Neither the buffer nor the stream has changed then, and the step can be given again.
    pub fn step(&mut self, step: TransitionStep<'_>) -> Result<usize, ReplayError> {
        if !self.in_episode() {
            return Err(ReplayError::NotBegun);
        }
        let TransitionStep { action, reward, next_obs, terminated, truncated } = step;
        match &mut self.inner {
            Inner::Stored(Stored { writer, n_step, begun, obs, .. }) => {
                let rows =
                    n_step.push(Step { obs, action, reward, next_obs, terminated, truncated }, writer)?;
                obs.copy_from_slice(next_obs);
                *begun = !(terminated || truncated);
                Ok(rows)
            }
            Inner::Derived(stream) => stream
                .step(FrameStep { action, reward, next_frame: next_obs, terminated, truncated })
                .map_err(|error| named(error, "next_obs")),
        }
    }

    /// Ends the episode where it is without a row for the steps that are still open, for an environment that broke off.
    /// [`begin`](Self::begin) has to come next. An episode that was cut short and has a true last observation ends with a
    /// step that is `truncated` instead.
    pub fn discontinue(&mut self) {
        match &mut self.inner {
            Inner::Stored(Stored { n_step, begun, .. }) => {
                n_step.clear();
                *begun = false;
            }
            Inner::Derived(stream) => stream.discontinue(),
        }
    }

    /// Whether an episode was begun and has not ended.
    pub fn in_episode(&self) -> bool {
        match &self.inner {
            Inner::Stored(Stored { begun, .. }) => *begun,
            Inner::Derived(stream) => stream.in_episode(),
        }
    }

    /// Steps that wait for their n-th successor.
    pub fn open_steps(&self) -> usize {
        match &self.inner {
            Inner::Stored(Stored { n_step, .. }) => n_step.open_steps(),
            Inner::Derived(stream) => stream.open_steps(),
        }
    }

    /// Shows the visitor the episode in progress: its newest observations and its open steps.
    ///
    /// # Errors
    /// Those of the visitor. When loading also [`StateError::Mismatch`] for a stream of the other storage, and
    /// [`StateError::Invalid`] when it makes no sense; the stream is then as it was.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        match &mut self.inner {
            Inner::Stored(stored) => {
                visit_kind(visitor, NextObs::Stored)?;
                scope(visitor, "stored", |visitor| stored.visit(visitor))
            }
            Inner::Derived(stream) => {
                visit_kind(visitor, NextObs::Derived)?;
                scope(visitor, "derived", |visitor| stream.visit(visitor))
            }
        }
    }
}

impl Stored {
    fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        if !self.begun {
            // Left from the last episode, and no part of the state.
            self.obs.fill(0);
        }
        let (mut begun, mut obs, mut n_step) = (u64::from(self.begun), self.obs.clone(), self.n_step.clone());
        scalar(visitor, "begun", &mut begun)?;
        let field = &self.schema.fields()[0];
        visitor.array("obs", field.dtype, &field.shape, &mut obs)?;
        scope(visitor, "n_step", |visitor| n_step.visit(visitor))?;
        if begun > 1 || (begun == 0 && n_step.open_steps() > 0) {
            let why = format!("{begun}, with {} open steps", n_step.open_steps());
            return Err(StateError::Invalid { path: "begun".into(), why });
        }
        (self.begun, self.obs, self.n_step) = (begun == 1, obs, n_step);
        Ok(())
    }
}

/// What is a frame there is an observation here.
fn named(mut error: ReplayError, name: &str) -> ReplayError {
    if let ReplayError::Bytes { column, .. } | ReplayError::NotFinite { column, .. } = &mut error
        && column == "frame"
    {
        *column = name.to_string();
    }
    error
}
