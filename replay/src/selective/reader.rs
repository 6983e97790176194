//! Drawing rows, and sending their priorities back.

use super::SelectiveReplay;
use super::table::Row;
use crate::layout::{Layout, Span};
use crate::limiter::Side;
use crate::{Key, ReplayError, WhenLimited};
use rl_minibatch::{BatchMut, Drawn, Rng, Schema, Updated};

/// Rows that are copied field by field, few enough to stay in the first-level cache.
const BLOCK: usize = 32;

/// Draws rows from a [`SelectiveReplay`]. `Send`; each thread has its own.
#[derive(Debug)]
pub struct SelectiveReader {
    replay: SelectiveReplay,
    when_limited: WhenLimited,
    layout: Layout,
    /// The rows of a batch, between choosing and copying.
    rows: Vec<Row>,
}

impl Clone for SelectiveReader {
    fn clone(&self) -> Self {
        Self::new(self.replay.clone()).when_limited(self.when_limited)
    }
}

impl Drop for SelectiveReader {
    fn drop(&mut self) {
        if let Some(limiter) = &self.replay.shared.limiter {
            limiter.of_side(Side::Draw, false);
        }
    }
}

impl SelectiveReader {
    pub(super) fn new(replay: SelectiveReplay) -> Self {
        if let Some(limiter) = &replay.shared.limiter {
            limiter.of_side(Side::Draw, true);
        }
        let layout = Layout::new(replay.schema());
        Self { replay, when_limited: WhenLimited::Block, layout, rows: Vec::new() }
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

    /// Draws `count` rows and copies them into the first rows of `batch`, field by field in the schema's order. `drawn`
    /// tells which: their keys, the probability of each, and how many rows there were when the batch began.
    ///
    /// The rows of a batch are drawn one after the other, as `count` batches of one would be if nobody came in between. A
    /// row that was drawn as often as [`expire_after`](super::SelectiveBuilder::expire_after) allows is removed before the
    /// next draw; so no row is ever drawn more often, and the next is chosen among what is left. `drawn.probabilities` has
    /// for each draw the probability that this row had in that very draw, given those before it: 1 / (rows there then) for
    /// a uniform draw, weight / (sum of the weights there then) for a proportional one, 1 where there is no choice. Where no
    /// row expires within the batch all draws are alike, and these are the probabilities of independent draws from the rows
    /// there were.
    ///
    /// Allocates nothing once `drawn` and the handle have grown to `count`. Cost: under the lock O(count · log capacity) at
    /// most, and a count of holders raised for each row; the copying is done without it. Memory of rows removed is given
    /// back without it, too.
    ///
    /// # Errors
    /// [`ReplayError::Batch`] when the batch is for another schema or too small; [`ReplayError::Sample`] when there is
    /// nothing to draw from; [`ReplayError::DrawsLeft`] when the rows would expire before the batch is full, which with a
    /// rate limiter is waited for; with a rate limiter [`ReplayError::Limited`], [`ReplayError::TimedOut`],
    /// [`ReplayError::Closed`], [`ReplayError::Abandoned`] and [`ReplayError::LimiterRows`]. The batch is then untouched,
    /// nothing was drawn, and the rate limiter has counted nothing.
    pub fn sample_into(
        &mut self,
        rng: &mut Rng,
        count: usize,
        batch: &mut BatchMut<'_>,
        drawn: &mut Drawn,
    ) -> Result<(), ReplayError> {
        batch.check(self.schema(), count)?;
        let shared = &self.replay.shared;
        self.replay.check_ever(count)?;
        loop {
            let admitted = shared.admit(Side::Draw, count, self.when_limited)?;
            let result = shared.table.lock().draw(rng, count, drawn, &mut self.rows);
            match (result, admitted) {
                (Ok(()), admitted) => {
                    if let Some(mut admitted) = admitted {
                        admitted.done(count);
                    }
                    break;
                }
                // Priorities of 0, or a state that was loaded, have come between: the limiter waits once more.
                (Err(ReplayError::DrawsLeft { .. }), Some(_)) => {}
                (Err(error), _) => return Err(error),
            }
        }
        self.copy(batch);
        // Those that were removed meanwhile are gone with this.
        self.rows.clear();
        Ok(())
    }

    fn copy(&self, batch: &mut BatchMut<'_>) {
        for (block, rows) in self.rows.chunks(BLOCK).enumerate() {
            for (position, &Span { offset, bytes, .. }) in self.layout.fields.iter().enumerate() {
                let cells = &mut batch.column_mut(position)[block * BLOCK * bytes..][..rows.len() * bytes];
                match bytes {
                    1 => copy_cells::<1>(rows, offset, cells),
                    4 => copy_cells::<4>(rows, offset, cells),
                    8 => copy_cells::<8>(rows, offset, cells),
                    16 => copy_cells::<16>(rows, offset, cells),
                    _ => {
                        for (cell, row) in cells.chunks_exact_mut(bytes).zip(rows) {
                            cell.copy_from_slice(&row[offset..][..bytes]);
                        }
                    }
                }
            }
        }
    }

    /// Sets the priorities of rows, one for each of `keys`, such as |δ|. Of a key that comes more than once the last wins.
    /// Rows that have been removed are dropped and counted, here and in
    /// [`SelectiveStatistics::stale_priorities`](super::SelectiveStatistics::stale_priorities). O(keys · log capacity),
    /// under the lock.
    ///
    /// # Errors
    /// [`ReplayError::Sample`] when the buffer neither draws nor removes by priority, when the slices differ in length, or
    /// when a priority is negative, NaN or infinite; no priority has changed then.
    pub fn update_priorities(&mut self, keys: &[Key], magnitudes: &[f32]) -> Result<Updated, ReplayError> {
        let shared = &self.replay.shared;
        let mut table = shared.table.lock();
        let before = table.left();
        let updated = table.update(keys, magnitudes)?;
        let more = table.left() > before;
        drop(table);
        if let Some(limiter) = &shared.limiter
            && more
        {
            limiter.look_again();
        }
        Ok(updated)
    }
}

/// Copies the field at `offset` of each row, a loop made for its size.
fn copy_cells<const N: usize>(rows: &[Row], offset: usize, cells: &mut [u8]) {
    for (cell, row) in cells.as_chunks_mut::<N>().0.iter_mut().zip(rows) {
        cell.copy_from_slice(&row[offset..][..N]);
    }
}
