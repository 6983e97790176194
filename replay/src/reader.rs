//! Drawing rows, and sending their priorities back.

use crate::{Key, Replay, ReplayError};
use rl_minibatch::{BatchMut, Drawn, Rng, SampleError, Schema, Updated};

/// Draws rows from a [`Replay`] buffer, made by [`Replay::sampler`]. `Send`; each thread has its own, and they do not
/// wait for each other while they copy.
#[derive(Clone, Debug)]
pub struct Reader {
    replay: Replay,
}

impl Reader {
    pub(crate) fn new(replay: Replay) -> Self {
        Self { replay }
    }

    /// What a row holds.
    pub fn schema(&self) -> &Schema {
        self.replay.schema()
    }

    /// Draws `count` rows by the buffer's sampler and copies them into the first rows of `batch`, field by field in
    /// the schema's order. `drawn` tells which: their keys, the probability of each, and how many rows there were.
    ///
    /// Allocates nothing once `drawn` has grown to `count`. Cost: O(count · log capacity) under the lock for a
    /// prioritized draw, O(count) for a uniform one; the copying is done without it.
    ///
    /// # Errors
    /// [`ReplayError::Batch`] when the batch is for another schema or too small; [`ReplayError::Sample`] when there is
    /// nothing to draw from; [`ReplayError::BadDraw`] when a sampler of your own drew what is not there. The batch is
    /// then untouched.
    pub fn sample_into(
        &mut self,
        rng: &mut Rng,
        count: usize,
        batch: &mut BatchMut<'_>,
        drawn: &mut Drawn,
    ) -> Result<(), ReplayError> {
        batch.check(self.schema(), count)?;
        let mut locked = self.replay.shared.ring.lock();
        let live = locked.live();
        if live.is_empty() {
            return Err(SampleError::Empty.into());
        }
        locked.companion().sampler.draw(rng, live.clone(), count, drawn)?;
        // The rows are about to be read from memory that only live rows may be read from: trust no sampler blindly.
        let bad = |why| Err(ReplayError::BadDraw { why, start: live.start, end: live.end });
        if drawn.rows.len() != count || drawn.probabilities.len() != count {
            let (rows, probabilities) = (drawn.rows.len(), drawn.probabilities.len());
            return bad(format!(
                "drew {rows} rows and {probabilities} probabilities where {count} were asked for"
            ));
        }
        if let Some(key) = drawn.rows.iter().find(|key| !live.contains(key)) {
            return bad(format!("drew row {key}"));
        }
        let Some(&oldest) = drawn.rows.iter().min() else {
            return Ok(());
        };
        let pin = locked.pin(oldest);
        for (row, &key) in drawn.rows.iter().enumerate() {
            pin.read(key, row, batch);
        }
        Ok(())
    }

    /// Sets the priorities of rows from magnitudes such as |δ|, one for each of `keys`. Of a key that comes more than
    /// once the last wins. Rows that have been overwritten are dropped and counted, here and in
    /// [`Replay::stale_priorities`]. O(keys · log capacity), under the lock.
    ///
    /// # Errors
    /// [`ReplayError::Sample`] when the buffer keeps no priorities, when the slices differ in length, or when a
    /// magnitude is negative, NaN or infinite; no priority has changed then.
    pub fn update_priorities(&mut self, keys: &[Key], magnitudes: &[f32]) -> Result<Updated, ReplayError> {
        let mut locked = self.replay.shared.ring.lock();
        let live = locked.live();
        let keeper = locked.companion();
        let priorities = keeper.sampler.priorities().ok_or(SampleError::NoPriorities)?;
        let updated = priorities.update(live, keys, magnitudes)?;
        keeper.stale += updated.stale as u64;
        Ok(updated)
    }
}
