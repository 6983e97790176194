//! Inserting rows.

use crate::counters::Tally;
use crate::layout::{Layout, Span};
use crate::limiter::{Admitted, Side};
use crate::ring::Claim;
use crate::{Key, Replay, ReplayError, WhenLimited};
use rl_minibatch::{Field, Row, Schema};
use std::sync::Arc;

/// Inserts rows into a [`Replay`] buffer. `Send`; each thread has its own.
///
/// It takes no lock. It waits only if it is about to overwrite a row that a reader began to copy a whole reserve of rows
/// ago (see [`Builder::reserve`](crate::Builder::reserve)), or if as many rows are being copied by other writers. With a
/// [rate limiter](crate::Builder::rate_limiter) it also waits until inserting is allowed.
#[derive(Debug)]
pub struct Writer {
    replay: Replay,
    /// How often the rows that it overwrites had been drawn, if that is counted.
    retired: Option<Arc<Tally>>,
    when_limited: WhenLimited,
}

impl Clone for Writer {
    fn clone(&self) -> Self {
        Self::new(self.replay.clone()).when_limited(self.when_limited)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.replay.shared.counters.withdraw_writer(&self.retired);
        if let Some(limiter) = &self.replay.shared.limiter {
            limiter.of_side(Side::Insert, false);
        }
    }
}

impl Writer {
    pub(crate) fn new(replay: Replay) -> Self {
        if let Some(limiter) = &replay.shared.limiter {
            limiter.of_side(Side::Insert, true);
        }
        Self { retired: replay.shared.counters.writer(), replay, when_limited: WhenLimited::Block }
    }

    /// What a call does that the buffer's rate limiter does not allow: wait, unless this says otherwise.
    pub fn when_limited(mut self, when: WhenLimited) -> Self {
        self.when_limited = when;
        self
    }

    /// Waits until `rows` rows may be inserted.
    #[inline]
    pub(crate) fn admit(&self, rows: usize) -> Result<Option<Admitted<'_>>, ReplayError> {
        self.replay.shared.admit(Side::Insert, rows, self.when_limited)
    }

    /// What a row holds.
    pub fn schema(&self) -> &Schema {
        self.replay.schema()
    }

    /// Inserts one row: for each field of the schema, in its order, the bytes of its elements in native byte order.
    /// Returns the row's key. When the buffer is full the oldest row goes.
    ///
    /// The row can be drawn when this returns, unless another writer has claimed an earlier key and is still copying; it
    /// then becomes live together with that one. Cost: one copy and a few atomic operations; no lock is taken. Its
    /// priority is stored by the next draw.
    ///
    /// # Errors
    /// [`ReplayError::Columns`], [`ReplayError::Bytes`], [`ReplayError::NotFinite`],
    /// [`ReplayError::OutOfRange`] for a column that is [stored](crate::Builder::store) as another type, and with a rate limiter
    /// [`ReplayError::Limited`], [`ReplayError::TimedOut`], [`ReplayError::Closed`], [`ReplayError::Abandoned`] and
    /// [`ReplayError::LimiterRows`]; nothing is stored then.
    pub fn push(&mut self, row: &[&[u8]]) -> Result<Key, ReplayError> {
        self.check(self.schema(), 1, row)?;
        if self.replay.shared.limiter.is_some() {
            return self.push_limited(row);
        }
        Ok(self.push_checked(row))
    }

    /// Inserts one row given as a struct that [`row!`](crate::row) declared. As [`push`](Self::push), whose checks it makes
    /// too; comparing the schemas costs next to nothing when the buffer was built with a clone of `R::schema()`.
    ///
    /// ```
    /// use rand::SeedableRng;
    /// use rl_replay::{Batch, Drawn, Replay, Rng, Row, row};
    ///
    /// row! {
    ///     pub struct Step {
    ///         pub obs: [f32; 4],
    ///         pub action: i64,
    ///         pub reward: f32,
    ///         pub terminated: bool,
    ///     }
    /// }
    ///
    /// let replay = Replay::builder(Step::schema().clone()).capacity(1_000).build()?;
    /// let mut writer = replay.writer();
    /// for t in 0..10 {
    ///     writer.push_row(&Step { obs: [t as f32; 4], action: t % 2, reward: 1.0, terminated: t == 9 })?;
    /// }
    ///
    /// let (mut batch, mut drawn) = (Batch::new(replay.schema(), 32), Drawn::default());
    /// replay.sampler().sample_into(&mut Rng::seed_from_u64(0), 32, &mut batch.view_mut(), &mut drawn)?;
    /// let columns = Step::columns(&batch)?;
    /// for (key, (obs, action)) in drawn.rows.iter().zip(columns.obs.iter().zip(columns.action)) {
    ///     assert_eq!((*obs, *action), ([*key as f32; 4], (key % 2) as i64));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ReplayError::OtherRow`] when the buffer's schema is another one, [`ReplayError::NotFinite`],
    /// [`ReplayError::OutOfRange`]; nothing is stored then.
    pub fn push_row<R: Row>(&mut self, row: &R) -> Result<Key, ReplayError> {
        if self.schema() != R::schema() {
            let why = difference(R::schema(), self.schema());
            return Err(ReplayError::OtherRow { why });
        }
        row.with_columns(|columns| self.push(columns))
    }

    /// Checks that `columns` are `rows` rows of `schema` which can be stored. The fields of `schema` are the first ones of
    /// the buffer's, but need not be of their shape.
    #[inline]
    pub(crate) fn check(&self, schema: &Schema, rows: usize, columns: &[&[u8]]) -> Result<(), ReplayError> {
        check_rows(schema, rows, columns)?;
        if self.rounds() {
            return check_range(self.replay.shared.ring.layout(), schema, columns);
        }
        Ok(())
    }

    /// Whether there may be values that the buffer does not take although they are finite.
    #[inline]
    pub(crate) fn rounds(&self) -> bool {
        self.replay.shared.ring.layout().rounds
    }

    /// Checks that the buffer takes the values of `column` in its field at `position`.
    pub(crate) fn check_column(&self, position: usize, column: &[u8]) -> Result<(), ReplayError> {
        let (layout, field) = (self.replay.shared.ring.layout(), &self.schema().fields()[position]);
        check_column_range(&layout.fields[position], field, column)
    }

    /// The buffer.
    #[cfg(any(feature = "npz", feature = "arrow", feature = "minari"))]
    pub(crate) fn replay(&self) -> &Replay {
        &self.replay
    }

    /// Apart, so that a buffer without a rate limiter pays for one comparison and no more.
    #[cold]
    #[inline(never)]
    fn push_limited(&self, row: &[&[u8]]) -> Result<Key, ReplayError> {
        let _admitted = self.admit(1)?;
        Ok(self.push_checked(row))
    }

    /// Claims the next `rows` serials. What was counted for the rows before in their slots is done with at once, so that
    /// it is even if the thread unwinds in the middle of a row.
    #[inline]
    fn claim(&self, rows: u64) -> Claim<'_> {
        let claim = self.replay.shared.ring.claim(rows);
        if let Some(tally) = &self.retired {
            self.replay.shared.counters.retire(claim.keys(), tally);
        }
        claim
    }

    /// As [`push`](Self::push), for a row that has been checked and admitted.
    pub(crate) fn push_checked(&self, row: &[&[u8]]) -> Key {
        let mut claim = self.claim(1);
        let key = claim.keys().start;
        claim.write(0, row);
        claim.publish();
        key
    }

    /// Inserts `rows` rows: for each field of the schema a slice of `rows` × its `row_bytes` bytes, row after row.
    ///
    /// Cheaper than as many calls of [`push`](Self::push): there is one claim for up to a
    /// [reserve](crate::Builder::reserve) of rows. Up to that many rows have keys that follow each other; between
    /// larger pieces those of other writers may come.
    ///
    /// # Errors
    /// Those of [`push`](Self::push), the rate limiter taking all rows or none; nothing is stored then, of no row.
    pub fn push_rows(&mut self, rows: usize, columns: &[&[u8]]) -> Result<(), ReplayError> {
        self.check(self.schema(), rows, columns)?;
        if self.replay.shared.limiter.is_some() {
            return self.push_rows_limited(rows, columns);
        }
        self.insert(rows, columns, |_| ());
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn push_rows_limited(&self, rows: usize, columns: &[&[u8]]) -> Result<(), ReplayError> {
        let mut admitted = self.admit(rows)?;
        self.insert(rows, columns, |rows| {
            if let Some(admitted) = &mut admitted {
                admitted.done(rows);
            }
        });
        Ok(())
    }

    /// Inserts rows that have been checked and admitted; `done` hears of each piece.
    #[inline]
    fn insert(&self, rows: usize, columns: &[&[u8]], mut done: impl FnMut(usize)) {
        let ring = &self.replay.shared.ring;
        let mut row = 0;
        while row < rows {
            let piece = ring.reserve().min((rows - row) as u64);
            let mut claim = self.claim(piece);
            claim.write(row, columns);
            claim.publish();
            done(piece as usize);
            row += piece as usize;
        }
    }
}

/// Checks that `columns` are `rows` rows of `schema`, every float among them finite.
pub(crate) fn check_rows(schema: &Schema, rows: usize, columns: &[&[u8]]) -> Result<(), ReplayError> {
    let fields = schema.fields();
    if columns.len() != fields.len() {
        return Err(ReplayError::Columns { expected: fields.len(), got: columns.len() });
    }
    for (position, (&row_bytes, column)) in schema.field_bytes().iter().zip(columns).enumerate() {
        let got = column.len();
        if row_bytes.checked_mul(rows) != Some(got) {
            let (column, expected) = (fields[position].name.clone(), row_bytes.saturating_mul(rows));
            return Err(ReplayError::Bytes { column, rows, expected, got });
        }
    }
    for (field, column) in fields.iter().zip(columns) {
        if let Some(position) = field.dtype.first_non_finite(column) {
            let (row, element) = (position / field.elements(), position % field.elements());
            return Err(ReplayError::NotFinite { row, column: field.name.clone(), element });
        }
    }
    Ok(())
}

/// Checks that every value of `columns` is finite as slots of this layout hold it; they are of the first fields there.
#[inline(never)]
pub(crate) fn check_range(layout: &Layout, schema: &Schema, columns: &[&[u8]]) -> Result<(), ReplayError> {
    let fields = layout.fields.iter().zip(schema.fields()).zip(columns);
    fields.into_iter().try_for_each(|((span, field), column)| check_column_range(span, field, column))
}

fn check_column_range(span: &Span, field: &Field, column: &[u8]) -> Result<(), ReplayError> {
    let Some(half) = span.half else { return Ok(()) };
    match half.first_not_finite(column) {
        None => Ok(()),
        Some((position, value)) => {
            let (row, element) = (position / field.elements(), position % field.elements());
            let (column, dtype) = (field.name.clone(), half.dtype());
            Err(ReplayError::OutOfRange { row, column, element, value, dtype })
        }
    }
}

/// In which field a row differs from what the buffer holds.
pub(crate) fn difference(row: &Schema, buffer: &Schema) -> String {
    let describe = |field: Option<&Field>| match field {
        Some(Field { name, dtype, shape }) => format!("'{name}: {dtype} {shape:?}'"),
        None => "missing".to_string(),
    };
    let fields = row.fields().len().max(buffer.fields().len());
    let pairs =
        (0..fields).map(|position| (position, row.fields().get(position), buffer.fields().get(position)));
    let different = pairs.into_iter().find(|(_, here, there)| here != there);
    different.map_or_else(String::new, |(position, here, there)| {
        let (here, there) = (describe(here), describe(there));
        format!("its field {position} is {here}, and the buffer's is {there}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rl_minibatch::Dtype;

    /// A thread that unwinds in the middle of a row leaves a copy of the row before, which nobody has drawn.
    #[test]
    fn a_claim_given_up_has_no_draws() {
        let schema = Schema::new(vec![Field::new("x", Dtype::U8, [])]).unwrap();
        let replay = Replay::builder(schema).capacity(2).reserve(1).count_draws().build().unwrap();
        let (mut writer, mut reader) = (replay.writer(), replay.sampler());
        let (mut rng, mut drawn) = (rand::SeedableRng::seed_from_u64(0), Default::default());
        for _ in 0..4 {
            writer.push(&[&[1]]).unwrap();
            reader.pin().unwrap().draw(&mut rng, 10, &mut drawn).unwrap();
        }
        drop(writer.claim(1));
        let times = replay.statistics().times_sampled.unwrap();
        assert_eq!((replay.live(), times.live.counts[0], times.overwritten.total()), (3..5, 1, 3));
        assert_eq!(times.live.sum + times.overwritten.sum, 40.0);
    }
}
