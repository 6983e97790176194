//! Drawing rows, and sending their priorities back.

use crate::control::PinCell;
use crate::counters::Drawing;
use crate::limiter::{Admitted, Side};
use crate::ring::Pin;
use crate::{Key, Replay, ReplayError, WhenLimited};
use rl_minibatch::{BatchMut, Drawn, Rng, SampleError, Sampler, Schema, Uniform, Updated};
use std::ops::Range;

/// Draws rows from a [`Replay`] buffer, made by [`Replay::sampler`]. `Send`; each thread has its own, and they do not
/// wait for each other while they copy.
#[derive(Debug)]
pub struct Reader {
    replay: Replay,
    cell: PinCell,
    drawing: Drawing,
    when_limited: WhenLimited,
}

impl Clone for Reader {
    fn clone(&self) -> Self {
        Self::new(self.replay.clone()).when_limited(self.when_limited)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.replay.shared.ring.withdraw(&self.cell);
        self.replay.shared.counters.withdraw_reader(&self.drawing);
        if let Some(limiter) = &self.replay.shared.limiter {
            limiter.of_side(Side::Draw, false);
        }
    }
}

impl Reader {
    pub(crate) fn new(replay: Replay) -> Self {
        let (cell, drawing) = (replay.shared.ring.cell(), replay.shared.counters.reader());
        if let Some(limiter) = &replay.shared.limiter {
            limiter.of_side(Side::Draw, true);
        }
        Self { replay, cell, drawing, when_limited: WhenLimited::Block }
    }

    /// What [`sample_into`](Self::sample_into) does when the buffer's rate limiter does not allow it: wait, unless this
    /// says otherwise.
    pub fn when_limited(mut self, when: WhenLimited) -> Self {
        self.when_limited = when;
        self
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
    /// nothing to draw from; [`ReplayError::BadDraw`] when a sampler of your own drew what is not there; with a
    /// rate limiter [`ReplayError::Limited`], [`ReplayError::TimedOut`], [`ReplayError::Closed`],
    /// [`ReplayError::Abandoned`] and [`ReplayError::LimiterRows`]. The batch is then untouched, and the rate limiter
    /// has counted nothing.
    pub fn sample_into(
        &mut self,
        rng: &mut Rng,
        count: usize,
        batch: &mut BatchMut<'_>,
        drawn: &mut Drawn,
    ) -> Result<(), ReplayError> {
        batch.check(self.schema(), count)?;
        let mut pinned = self.pin_for(count)?;
        pinned.draw(rng, count, drawn)?;
        pinned.pin.gather(drawn.rows.iter().copied(), batch);
        Ok(())
    }

    /// Keeps every row that is live now from being overwritten until the result is dropped, to look at rows that belong
    /// together: draw some, then gather those and their neighbours.
    ///
    /// Writers go on meanwhile, as far as the [reserve](crate::Builder::reserve) goes; so drop it soon.
    ///
    /// # Errors
    /// [`ReplayError::Sample`] when there is no row.
    pub fn pin(&mut self) -> Result<Pinned<'_>, ReplayError> {
        match self.replay.shared.ring.pin(&self.cell) {
            Some(pin) => {
                let (replay, drawing, live) = (&self.replay, &mut self.drawing, pin.live());
                Ok(Pinned { replay, live, from: 0, pin, drawing, admitted: None })
            }
            None => Err(SampleError::Empty.into()),
        }
    }

    /// As [`pin`](Self::pin), when the rate limiter allows `count` rows to be drawn. It is waited for without a pin, which
    /// would hold up the very writers that are waited for.
    pub(crate) fn pin_for(&mut self, count: usize) -> Result<Pinned<'_>, ReplayError> {
        self.pin_for_after(count, || Some(())).map(|((), pinned)| pinned)
    }

    /// As [`pin_for`](Self::pin_for), with something else to be pinned between the waiting and these rows; `None` when
    /// there is nothing of that.
    pub(crate) fn pin_for_after<T>(
        &mut self,
        count: usize,
        first: impl FnOnce() -> Option<T>,
    ) -> Result<(T, Pinned<'_>), ReplayError> {
        let Self { replay, cell, drawing, when_limited } = self;
        let admitted = replay.shared.admit(Side::Draw, count, *when_limited)?;
        let first = first().ok_or(SampleError::Empty)?;
        match replay.shared.ring.pin(cell) {
            Some(pin) => Ok((first, Pinned { replay, live: pin.live(), from: 0, pin, drawing, admitted })),
            None => Err(SampleError::Empty.into()),
        }
    }

    /// Sets the priorities of rows from magnitudes such as |δ|, one for each of `keys`. Of a key that comes more than
    /// once the last wins. Rows that have been overwritten are dropped and counted, here and in
    /// [`Replay::stale_priorities`]. O(keys · log capacity), under the lock.
    ///
    /// # Errors
    /// [`ReplayError::Sample`] when the buffer keeps no priorities, when the slices differ in length, or when a
    /// magnitude is negative, NaN or infinite; no priority has changed then.
    pub fn update_priorities(&mut self, keys: &[Key], magnitudes: &[f32]) -> Result<Updated, ReplayError> {
        let (mut keeper, live) = self.replay.shared.keeper();
        let priorities = keeper.sampler.priorities().ok_or(SampleError::NoPriorities)?;
        let updated = priorities.update(live, keys, magnitudes)?;
        // Under the lock, so that a state that is saved has the count that goes with its priorities.
        self.replay.shared.counters.add_stale(updated.stale);
        Ok(updated)
    }
}

/// Rows that stay where they are; see [`Reader::pin`].
pub struct Pinned<'a> {
    replay: &'a Replay,
    pin: Pin<'a>,
    live: Range<Key>,
    drawing: &'a mut Drawing,
    /// The rate limiter's leave for the next draw.
    admitted: Option<Admitted<'a>>,
    /// Rows before this one are not drawn, though they may be live.
    from: Key,
}

impl Pinned<'_> {
    /// The keys of the rows that can be drawn and gathered. A [`draw`](Self::draw) by a sampler that has to be told of new rows
    /// may add those that have come.
    pub fn live(&self) -> Range<Key> {
        self.live.clone()
    }

    /// Has rows before `from` neither drawn nor gathered.
    pub(crate) fn narrow(&mut self, from: Key) {
        self.from = from;
        self.live.start = self.live.start.max(from).min(self.live.end);
    }

    /// Draws `count` of the rows live now by the buffer's sampler, without copying them.
    ///
    /// # Errors
    /// [`ReplayError::Sample`] when no row can be drawn; [`ReplayError::BadDraw`] when a sampler of your own drew what
    /// is not there. With a rate limiter, [`ReplayError::Limited`] when it does not allow the draw now: who holds rows
    /// does not wait.
    pub fn draw(&mut self, rng: &mut Rng, count: usize, drawn: &mut Drawn) -> Result<(), ReplayError> {
        let shared = &self.replay.shared;
        let mut admitted = match self.admitted.take() {
            None => shared.admit(Side::Draw, count, WhenLimited::Refuse)?,
            admitted => admitted,
        };
        if shared.uniform {
            Uniform.draw(rng, self.live.clone(), count, drawn)?;
        } else {
            let (mut keeper, live) = shared.keeper();
            // Live when the sampler was told, and kept since the pin was made: no row of it goes away.
            self.live = live.start.max(self.pin.oldest()).max(self.from).min(live.end)..live.end;
            keeper.sampler.draw(rng, self.live.clone(), count, drawn)?;
        }
        // Only kept rows may be read: trust no sampler blindly.
        let bad = |why| Err(ReplayError::BadDraw { why, start: self.live.start, end: self.live.end });
        if drawn.rows.len() != count || drawn.probabilities.len() != count {
            let (rows, probabilities) = (drawn.rows.len(), drawn.probabilities.len());
            return bad(format!(
                "drew {rows} rows and {probabilities} probabilities where {count} were asked for"
            ));
        }
        if let Some(key) = drawn.rows.iter().find(|key| !self.live.contains(key)) {
            return bad(format!("drew row {key}"));
        }
        self.drawing.count(&shared.counters, &self.live, count, drawn.rows.iter().copied());
        if let Some(admitted) = &mut admitted {
            admitted.done(count);
        }
        Ok(())
    }

    /// Counts rows as drawn that were chosen otherwise than by [`draw`](Self::draw). They must be live.
    pub(crate) fn count(&mut self, rows: Range<Key>) {
        let count = (rows.end - rows.start) as usize;
        self.drawing.count(&self.replay.shared.counters, &self.live, count, rows);
    }

    /// Copies the rows `keys`, in that order, into the first rows of `batch`, field by field in the schema's order.
    /// A key may come more than once.
    ///
    /// # Errors
    /// [`ReplayError::Batch`] when the batch is for another schema or too small, [`ReplayError::NotLive`] for a key that
    /// is not kept; the batch is then untouched.
    pub fn gather(&self, keys: &[Key], batch: &mut BatchMut<'_>) -> Result<(), ReplayError> {
        batch.check(self.replay.schema(), keys.len())?;
        if let Some(&key) = keys.iter().find(|key| !self.live.contains(key)) {
            return Err(ReplayError::NotLive { key, start: self.live.start, end: self.live.end });
        }
        self.pin.gather(keys.iter().copied(), batch);
        Ok(())
    }
}
