//! Transitions of any size: the next observation stored beside the observation, or derived from the step that follows.
//!
//! `mod.rs` is the buffer, `build.rs` decides how it stores, `stream.rs` inserts, `reader.rs` draws, `views.rs` finds the
//! observations in a batch. Nothing is stored here: a [`Replay`] or a [`FrameReplay`] does it.

mod build;
mod reader;
mod stream;
mod views;

pub use build::{NextObs, TransitionsBuilder};
pub use reader::TransitionReader;
pub use stream::{TransitionStep, TransitionStream};
pub use views::{ObsView, ObsViews};

use crate::{FrameReplay, Key, NStep, Replay, Statistics};
use rl_minibatch::{Dtype, Schema, StateError, StateVisitor, scalar, scope};
use std::ops::Range;

/// A replay buffer of (n-step) transitions that stores observations in the way that goes with their size.
///
/// Agents of both kinds of environment use it in one way: environments insert through [`TransitionStream`]s, one for each,
/// learners draw through [`TransitionReader`]s. How `next_obs` is stored, [whole or derived](NextObs), shows only in where
/// a batch holds the observations, which [`views`](Self::views) tells. It is a handle; cloning it is cheap.
///
/// # Rows
///
/// The same steps give the same rows under the same [`Key`]s in either storage. A row is folded over n steps as [`NStep`]
/// does: `reward` = Σ γⁱ·r(t+i) and `discount` = γˢ·(1 − terminated) over its s ≤ n steps, with `next_obs` at t + s. A
/// truncated episode bootstraps from its true last observation, the shorter rows of an episode's last steps are inserted
/// too, and no row reaches from one episode into the next.
///
/// What differs is which of them are there. Stored, they are the newest `capacity` rows. Derived, a row also needs its
/// observations, of which there are T + 1 in an episode of T steps: with episodes much shorter than 128 steps fewer rows
/// can be drawn, unless [`extra_frames`](TransitionsBuilder::extra_frames) makes room for more; see
/// [`FrameReplay`](FrameReplay#how-many-rows-can-be-drawn).
///
/// # Example
///
/// ```
/// use rand::SeedableRng;
/// use rl_replay::{Batch, Drawn, Dtype, NextObs, Prioritized, Rng, TransitionStep, Transitions};
///
/// // Four floats, so each row has its next observation; [3, 96, 96] of u8 would be stored once.
/// let transitions = Transitions::builder((Dtype::F32, &[4]), (Dtype::I64, &[]))
///     .capacity(10_000)
///     .n_step(3, 0.99)
///     .prioritized(Prioritized::default())
///     .build()?;
/// assert_eq!(transitions.next_obs(), NextObs::Stored);
///
/// // One for each environment, on any thread.
/// let mut stream = transitions.stream();
/// stream.begin(bytemuck::cast_slice(&[0f32; 4]))?;
/// for t in 1..=100i64 {
///     stream.step(TransitionStep {
///         action: &(t % 2).to_ne_bytes(),
///         reward: 1.0,
///         next_obs: bytemuck::cast_slice(&[t as f32; 4]),
///         terminated: false,
///         truncated: t == 100,
///     })?;
/// }
/// assert_eq!(transitions.len(), 100);
///
/// let (mut reader, mut rng) = (transitions.sampler(), Rng::seed_from_u64(0));
/// let (mut batch, mut drawn) = (Batch::new(transitions.schema(), 32), Drawn::default());
/// reader.sample_into(&mut rng, 32, &mut batch.view_mut(), &mut drawn)?;
///
/// // The same for both storages; a tensor library narrows the columns instead, see `ObsView`.
/// let views = transitions.views();
/// for (obs, next_obs) in views.obs.rows::<f32>(&batch)?.zip(views.next_obs.rows::<f32>(&batch)?) {
///     assert!(next_obs[0] - obs[0] <= 3.0);
/// }
/// reader.update_priorities(&drawn.rows, &[0.5; 32])?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Transitions {
    storage: Storage,
    schema: Schema,
    views: ObsViews,
}

/// What does the work.
#[derive(Clone)]
enum Storage {
    /// Streams begin with clones of `n_step`, whose settings have been checked.
    Stored {
        replay: Replay,
        n_step: NStep,
    },
    Derived(FrameReplay),
}

impl Transitions {
    /// Begins a buffer of observations and actions of these element types and shapes: of one observation (or of one frame,
    /// when [stacked](TransitionsBuilder::stack)), and of one action.
    pub fn builder(obs: (Dtype, &[usize]), action: (Dtype, &[usize])) -> TransitionsBuilder {
        TransitionsBuilder::new(obs, action)
    }

    /// A handle for one environment to insert with.
    pub fn stream(&self) -> TransitionStream {
        match &self.storage {
            Storage::Stored { replay, n_step } => TransitionStream::stored(replay.writer(), n_step.clone()),
            Storage::Derived(frames) => TransitionStream::derived(frames.stream()),
        }
    }

    /// A handle to draw rows with, and to send their priorities back. Each thread takes one of its own.
    pub fn sampler(&self) -> TransitionReader {
        let (schema, views) = (self.schema.clone(), self.views);
        match &self.storage {
            Storage::Stored { replay, .. } => TransitionReader::stored(replay.sampler(), schema, views),
            Storage::Derived(frames) => TransitionReader::derived(frames.sampler(), schema, views),
        }
    }

    /// What a row of a batch holds; make a [`Batch`](crate::Batch) with it.
    ///
    /// Stored: `obs: [1, obs...]`, `action`, `reward`, `discount`, `next_obs: [1, obs...]`. Derived: `frames: [W, obs...]`,
    /// `action`, `reward`, `discount`. `reward` and `discount` are f32 scalars. Look observations up by
    /// [`views`](Self::views) and the others by their names, and it does not matter which.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Where a batch holds obs and next_obs.
    pub fn views(&self) -> ObsViews {
        self.views
    }

    /// How next_obs is stored: never [`NextObs::Auto`].
    pub fn next_obs(&self) -> NextObs {
        match &self.storage {
            Storage::Stored { .. } => NextObs::Stored,
            Storage::Derived(_) => NextObs::Derived,
        }
    }

    /// The buffer of rows that are stored whole, for what only it offers: files, hindsight relabelling, mixtures. Its
    /// schema is that of [`Schema::transition`].
    pub fn as_stored(&self) -> Option<&Replay> {
        match &self.storage {
            Storage::Stored { replay, .. } => Some(replay),
            Storage::Derived(_) => None,
        }
    }

    /// The buffer of observations stored once.
    pub fn as_derived(&self) -> Option<&FrameReplay> {
        match &self.storage {
            Storage::Stored { .. } => None,
            Storage::Derived(frames) => Some(frames),
        }
    }

    /// k, the frames of an observation; 1 when they are not stacked.
    pub fn stack(&self) -> usize {
        self.views.obs.len
    }

    /// The most rows that are kept.
    pub fn capacity(&self) -> usize {
        match &self.storage {
            Storage::Stored { replay, .. } => replay.capacity(),
            Storage::Derived(frames) => frames.capacity(),
        }
    }

    /// The keys of the rows that can be drawn now, the oldest first.
    pub fn live(&self) -> Range<Key> {
        match &self.storage {
            Storage::Stored { replay, .. } => replay.live(),
            Storage::Derived(frames) => frames.live(),
        }
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

    /// Rows inserted since the buffer was made, those overwritten since included.
    pub fn inserted(&self) -> u64 {
        match &self.storage {
            Storage::Stored { replay, .. } => replay.inserted(),
            Storage::Derived(frames) => frames.inserted(),
        }
    }

    /// Priorities that were dropped because their row had been overwritten.
    pub fn stale_priorities(&self) -> u64 {
        match &self.storage {
            Storage::Stored { replay, .. } => replay.stale_priorities(),
            Storage::Derived(frames) => frames.stale_priorities(),
        }
    }

    /// What the buffer has counted of its rows; see [`Replay::statistics`] and [`FrameReplay::statistics`].
    pub fn statistics(&self) -> Statistics {
        match &self.storage {
            Storage::Stored { replay, .. } => replay.statistics(),
            Storage::Derived(frames) => frames.statistics(),
        }
    }

    /// Bytes reserved for observations and rows. They become resident as they are first written. A sampler's own memory
    /// comes on top.
    pub fn memory_bytes(&self) -> usize {
        match &self.storage {
            Storage::Stored { replay, .. } => replay.memory_bytes(),
            Storage::Derived(frames) => frames.memory_bytes(),
        }
    }

    /// Ends all inserting and drawing of a buffer with a rate limiter; see [`Replay::close`].
    pub fn close(&self) {
        match &self.storage {
            Storage::Stored { replay, .. } => replay.close(),
            Storage::Derived(frames) => frames.close(),
        }
    }

    /// Shows the visitor everything the buffer's future depends on, as [`Replay::visit`] and [`FrameReplay::visit`] do, and
    /// which of the two it is. Streams have [a state of their own](TransitionStream::visit). A buffer and streams that were
    /// loaded go on bit for bit as the saved ones do, in the middle of episodes too; save them at one moment, between steps.
    ///
    /// # Errors
    /// Those of the visitor. When loading also [`StateError::Mismatch`] for a state of the other storage, and those of the
    /// two; the buffer is then as it was.
    pub fn visit(&self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        visit_kind(visitor, self.next_obs())?;
        match &self.storage {
            Storage::Stored { replay, .. } => scope(visitor, "stored", |visitor| replay.visit(visitor)),
            Storage::Derived(frames) => scope(visitor, "derived", |visitor| frames.visit(visitor)),
        }
    }
}

/// Refuses the state of the other storage.
fn visit_kind(visitor: &mut dyn StateVisitor, here: NextObs) -> Result<(), StateError> {
    let name = |derived: bool| if derived { "next_obs derived" } else { "next_obs stored" }.to_string();
    let here = here == NextObs::Derived;
    let mut found = u64::from(here);
    scalar(visitor, "next_obs_derived", &mut found)?;
    if found != u64::from(here) {
        let (expected, found) = (name(here), name(found != 0));
        return Err(StateError::Mismatch { path: "next_obs_derived".into(), expected, found });
    }
    Ok(())
}

impl std::fmt::Debug for Transitions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transitions")
            .field("next_obs", &self.next_obs())
            .field("live", &self.live())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}
