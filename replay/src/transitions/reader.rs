//! Drawing transitions.

use super::ObsViews;
use super::build::stored_views;
use crate::{FrameReader, Key, Reader, ReplayError, WhenLimited};
use rl_minibatch::{BatchMut, Drawn, Rng, Schema, Updated};

/// Draws rows from [`Transitions`](crate::Transitions), made by their [`sampler`](crate::Transitions::sampler). `Send`;
/// each thread has its own, and they do not wait for each other while they copy.
#[derive(Clone, Debug)]
pub struct TransitionReader {
    reader: Inner,
    schema: Schema,
    views: ObsViews,
}

#[derive(Clone, Debug)]
enum Inner {
    Stored(Reader),
    Derived(FrameReader),
}

impl TransitionReader {
    /// A reader of any buffer of rows that have `obs` and `next_obs` side by side, as those of
    /// [`Schema::transition`] do: one with a sampler of your own, say, or one that hindsight fills.
    ///
    /// # Errors
    /// [`ReplayError::Batch`] when a row lacks one of the two.
    pub fn of_rows(reader: Reader) -> Result<Self, ReplayError> {
        let (schema, views) = stored_views(reader.schema())?;
        Ok(Self::stored(reader, schema, views))
    }

    pub(super) fn stored(reader: Reader, schema: Schema, views: ObsViews) -> Self {
        Self { reader: Inner::Stored(reader), schema, views }
    }

    pub(super) fn derived(reader: FrameReader, schema: Schema, views: ObsViews) -> Self {
        Self { reader: Inner::Derived(reader), schema, views }
    }

    /// What a draw does that the buffer's rate limiter does not allow: wait, unless this says otherwise.
    pub fn when_limited(mut self, when: WhenLimited) -> Self {
        self.reader = match self.reader {
            Inner::Stored(reader) => Inner::Stored(reader.when_limited(when)),
            Inner::Derived(reader) => Inner::Derived(reader.when_limited(when)),
        };
        self
    }

    /// What a row of a batch holds; see [`Transitions::schema`](crate::Transitions::schema).
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Where a batch holds obs and next_obs.
    pub fn views(&self) -> ObsViews {
        self.views
    }

    /// Draws `count` rows by the buffer's sampler and copies them into the first rows of `batch`. `drawn` tells which:
    /// their keys, the probability of each, and how many rows there were.
    ///
    /// Allocates nothing once `drawn` and the reader have grown to `count`. Cost: that of [`Reader::sample_into`] or
    /// [`FrameReader::sample_into`]; see [`NextObs`](crate::NextObs) for what it comes to.
    ///
    /// # Errors
    /// Those of [`Reader::sample_into`] and [`FrameReader::sample_into`]; the batch is then untouched.
    pub fn sample_into(
        &mut self,
        rng: &mut Rng,
        count: usize,
        batch: &mut BatchMut<'_>,
        drawn: &mut Drawn,
    ) -> Result<(), ReplayError> {
        match &mut self.reader {
            Inner::Stored(reader) => reader.sample_into(rng, count, batch, drawn),
            Inner::Derived(reader) => reader.sample_into(rng, count, batch, drawn),
        }
    }

    /// Sets the priorities of rows from magnitudes such as |δ|; see [`Reader::update_priorities`].
    ///
    /// # Errors
    /// As [`Reader::update_priorities`].
    pub fn update_priorities(&mut self, keys: &[Key], magnitudes: &[f32]) -> Result<Updated, ReplayError> {
        match &mut self.reader {
            Inner::Stored(reader) => reader.update_priorities(keys, magnitudes),
            Inner::Derived(reader) => reader.update_priorities(keys, magnitudes),
        }
    }
}
