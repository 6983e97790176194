//! Inserting rows.

use super::SelectiveReplay;
use super::table::Row as Bytes;
use crate::limiter::Side;
use crate::writer::{check_rows, difference};
use crate::{Key, ReplayError, WhenLimited};
use rl_minibatch::{Row, SampleError, Schema, check_magnitudes};

/// Rows that go in while the lock is held once.
const BLOCK_ROWS: usize = 64;

/// Inserts rows into a [`SelectiveReplay`]. `Send`; each thread has its own.
///
/// A row is copied before the lock is taken, into an allocation of its own, or into that of the row which the last call
/// removed, if nobody reads that any more. Memory is given back without the lock, too.
#[derive(Debug)]
pub struct SelectiveWriter {
    replay: SelectiveReplay,
    when_limited: WhenLimited,
    /// A row, all fields side by side.
    bytes: Vec<u8>,
    /// Rows on their way in, and those that were removed for them.
    coming: Vec<Bytes>,
    gone: Vec<Bytes>,
    /// A removed row, for its memory.
    spare: Option<Bytes>,
}

impl Clone for SelectiveWriter {
    fn clone(&self) -> Self {
        Self::new(self.replay.clone()).when_limited(self.when_limited)
    }
}

impl Drop for SelectiveWriter {
    fn drop(&mut self) {
        if let Some(limiter) = &self.replay.shared.limiter {
            limiter.of_side(Side::Insert, false);
        }
    }
}

impl SelectiveWriter {
    pub(super) fn new(replay: SelectiveReplay) -> Self {
        if let Some(limiter) = &replay.shared.limiter {
            limiter.of_side(Side::Insert, true);
        }
        Self {
            replay,
            when_limited: WhenLimited::Block,
            bytes: Vec::new(),
            coming: Vec::new(),
            gone: Vec::new(),
            spare: None,
        }
    }

    /// What a call does that the buffer's rate limiter does not allow: wait, unless this says otherwise.
    pub fn when_limited(mut self, when: WhenLimited) -> Self {
        self.when_limited = when;
        self
    }

    /// What a row holds.
    pub fn schema(&self) -> &Schema {
        self.replay.schema()
    }

    /// Inserts one row: for each field of the schema, in its order, the bytes of its elements in native byte order.
    /// Returns the row's key. Its priority is the largest there has been, and 1 at first.
    ///
    /// When the buffer is full a row goes as [`Removal`](super::Removal) says; it may be the very one that has come, and
    /// its key is then that of a removed row. Cost: a copy and an allocation, then O(log capacity) under the lock.
    ///
    /// # Errors
    /// [`ReplayError::Columns`], [`ReplayError::Bytes`], [`ReplayError::NotFinite`], and with a rate limiter
    /// [`ReplayError::Limited`], [`ReplayError::TimedOut`], [`ReplayError::Closed`], [`ReplayError::Abandoned`] and
    /// [`ReplayError::LimiterRows`]; nothing is stored then.
    pub fn push(&mut self, row: &[&[u8]]) -> Result<Key, ReplayError> {
        check_rows(self.schema(), 1, row)?;
        self.push_one(row, None)
    }

    /// As [`push`](Self::push), with a priority of the caller's: any measure of how much the row is worth, such as |δ|, the
    /// return of its episode, or a random number.
    ///
    /// # Errors
    /// Those of [`push`](Self::push), and [`ReplayError::Sample`] for a priority that is negative, NaN or infinite, or in a
    /// buffer that neither draws nor removes by priority.
    pub fn push_with_priority(&mut self, row: &[&[u8]], priority: f32) -> Result<Key, ReplayError> {
        check_rows(self.schema(), 1, row)?;
        self.check_priorities(&[priority])?;
        self.push_one(row, Some(priority))
    }

    /// As [`push`](Self::push), for a struct that [`row!`](crate::row) declared.
    ///
    /// # Errors
    /// [`ReplayError::OtherRow`] when the buffer's schema is another one, and those of [`push`](Self::push).
    pub fn push_row<R: Row>(&mut self, row: &R) -> Result<Key, ReplayError> {
        if self.schema() != R::schema() {
            let why = difference(R::schema(), self.schema());
            return Err(ReplayError::OtherRow { why });
        }
        row.with_columns(|columns| self.push(columns))
    }

    /// Inserts `rows` rows: for each field of the schema a slice of `rows` × its `row_bytes` bytes, row after row. The lock
    /// is taken once for 64 of them; between those, rows of other writers may come.
    ///
    /// # Errors
    /// Those of [`push`](Self::push), the rate limiter taking all rows or none; nothing is stored then, of no row.
    pub fn push_rows(&mut self, rows: usize, columns: &[&[u8]]) -> Result<(), ReplayError> {
        check_rows(self.schema(), rows, columns)?;
        self.push_blocks(rows, columns, None)
    }

    /// As [`push_rows`](Self::push_rows), with a priority for each row.
    ///
    /// # Errors
    /// Those of [`push_rows`](Self::push_rows) and [`push_with_priority`](Self::push_with_priority), and
    /// [`ReplayError::Elements`] when there is not one priority for each row.
    pub fn push_rows_with_priorities(
        &mut self,
        rows: usize,
        columns: &[&[u8]],
        priorities: &[f32],
    ) -> Result<(), ReplayError> {
        check_rows(self.schema(), rows, columns)?;
        if priorities.len() != rows {
            let got = priorities.len();
            return Err(ReplayError::Elements { what: "priorities", expected: rows, got });
        }
        self.check_priorities(priorities)?;
        self.push_blocks(rows, columns, Some(priorities))
    }

    fn check_priorities(&self, priorities: &[f32]) -> Result<(), ReplayError> {
        if !self.replay.shared.use_priorities {
            return Err(SampleError::NoPriorities.into());
        }
        for (row, priority) in priorities.iter().enumerate() {
            check_magnitudes(&[row as u64], &[*priority]).map_err(|error| match error {
                // Its place is that among all of them.
                SampleError::Priority { row, value, .. } => {
                    SampleError::Priority { row, position: row as usize, value }
                }
                other => other,
            })?;
        }
        Ok(())
    }

    fn push_one(&mut self, row: &[&[u8]], magnitude: Option<f32>) -> Result<Key, ReplayError> {
        let bytes = self.packed(0, row);
        let admitted = self.replay.shared.admit(Side::Insert, 1, self.when_limited)?;
        let (key, gone) = self.replay.shared.table.lock().insert(bytes, magnitude);
        drop(admitted);
        self.spare = gone.or(self.spare.take());
        Ok(key)
    }

    fn push_blocks(
        &mut self,
        rows: usize,
        columns: &[&[u8]],
        magnitudes: Option<&[f32]>,
    ) -> Result<(), ReplayError> {
        let shared = self.replay.shared.clone();
        let mut admitted = shared.admit(Side::Insert, rows, self.when_limited)?;
        for first in (0..rows).step_by(BLOCK_ROWS) {
            let block = first..rows.min(first + BLOCK_ROWS);
            for row in block.clone() {
                let bytes = self.packed(row, columns);
                self.coming.push(bytes);
            }
            let mut table = shared.table.lock();
            for (row, bytes) in block.clone().zip(self.coming.drain(..)) {
                let (_, gone) = table.insert(bytes, magnitudes.map(|magnitudes| magnitudes[row]));
                self.gone.extend(gone);
            }
            drop(table);
            self.spare = self.gone.pop().or(self.spare.take());
            self.gone.clear();
            if let Some(admitted) = &mut admitted {
                admitted.done(block.len());
            }
        }
        Ok(())
    }

    /// Row `row` of `columns` as bytes side by side.
    fn packed(&mut self, row: usize, columns: &[&[u8]]) -> Bytes {
        let fields = self.replay.shared.schema.fields().iter().zip(columns);
        let cells = fields.map(|(field, column)| &column[row * field.row_bytes()..][..field.row_bytes()]);
        if let Some(mut spare) = self.spare.take()
            && let Some(bytes) = Bytes::get_mut(&mut spare)
        {
            let mut rest = bytes;
            for cell in cells {
                let (here, after) = rest.split_at_mut(cell.len());
                here.copy_from_slice(cell);
                rest = after;
            }
            return spare;
        }
        self.bytes.clear();
        cells.for_each(|cell| self.bytes.extend_from_slice(cell));
        Bytes::from(&self.bytes[..])
    }
}
