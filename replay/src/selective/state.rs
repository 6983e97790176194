//! The buffer's state, shown piece by piece: saved, and restored bit for bit.

use super::table::{Row, Rules, Table};
use super::{SelectiveReplay, SelectiveStatistics};
use crate::snapshot::{BLOCK_BYTES, check_schema, visit_rows};
use rand::SeedableRng;
use rl_minibatch::{Rng, StateError, StateVisitor, scalar, slice, value};
use std::sync::Arc;

/// All but the rows, and what they are held by.
struct Parts {
    counts: SelectiveStatistics,
    largest: f32,
    rng: Rng,
    keys: Vec<u64>,
    magnitudes: Vec<f32>,
    draws: Vec<u64>,
    rows: Vec<Row>,
}

impl SelectiveReplay {
    /// Shows the visitor everything the buffer's future depends on: the counters, the rows in blocks of some megabytes with
    /// an array for each field, their keys, priorities and counts of draws. A buffer that was loaded draws and removes what
    /// the saved one would have drawn and removed, if it was built with the same settings.
    ///
    /// Saving sees the buffer as it was at one moment: others wait while what is known of the rows is copied (32 bytes a
    /// row), and go on while the rows are shown. Loading makes the new rows beside the old ones, which stay until all of the
    /// state has come. The capacity need not be the one that was saved.
    ///
    /// The visitor must not use the buffer.
    ///
    /// # Errors
    /// Those of the visitor. When loading also [`StateError::Mismatch`] for another schema, and [`StateError::Invalid`] for
    /// more rows than the capacity, a row that would have expired here, and numbers that make no sense; the buffer is then
    /// as it was.
    pub fn visit(&self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        check_schema(visitor, self.schema())?;
        if !visitor.loading() {
            let mut parts = Parts::of(&self.shared.table.lock());
            parts.visit(visitor, usize::MAX)?;
            return parts.visit_rows(visitor, self);
        }
        let rules = *self.shared.table.lock().rules();
        let mut parts = Parts::empty();
        parts.visit(visitor, rules.capacity)?;
        parts.check(&rules)?;
        parts.visit_rows(visitor, self)?;
        let sampled = parts.counts.sampled;
        let table = parts.into_table(rules)?;
        let before = std::mem::replace(&mut *self.shared.table.lock(), table);
        drop(before);
        if let Some(limiter) = &self.shared.limiter {
            limiter.loaded(sampled);
        }
        Ok(())
    }
}

impl Parts {
    fn empty() -> Self {
        Self {
            counts: SelectiveStatistics::default(),
            largest: 0.0,
            rng: Rng::seed_from_u64(0),
            keys: Vec::new(),
            magnitudes: Vec::new(),
            draws: Vec::new(),
            rows: Vec::new(),
        }
    }

    fn of(table: &Table) -> Self {
        let slots = table.slots();
        Self {
            counts: table.counts.clone(),
            largest: table.largest,
            rng: table.rng.clone(),
            keys: slots.iter().map(|slot| slot.key).collect(),
            magnitudes: slots.iter().map(|slot| slot.magnitude).collect(),
            draws: slots.iter().map(|slot| slot.draws.into()).collect(),
            rows: slots.iter().map(|slot| slot.row.clone()).collect(),
        }
    }

    /// Everything but the rows themselves, of which there is room for `room`.
    fn visit(&mut self, visitor: &mut dyn StateVisitor, room: usize) -> Result<(), StateError> {
        let mut rows = self.keys.len() as u64;
        scalar(visitor, "row_count", &mut rows)?;
        if rows > room as u64 {
            let why =
                format!("it has {rows} rows and this buffer room for {room}; build one for {rows} or more");
            return Err(StateError::Invalid { path: "row_count".into(), why });
        }
        let counts = &mut self.counts;
        scalar(visitor, "inserted", &mut counts.inserted)?;
        scalar(visitor, "sampled", &mut counts.sampled)?;
        scalar(visitor, "removed_for_room", &mut counts.removed_for_room)?;
        scalar(visitor, "removed_expired", &mut counts.removed_expired)?;
        scalar(visitor, "stale", &mut counts.stale_priorities)?;
        scalar(visitor, "largest", &mut self.largest)?;
        value(visitor, "rng", &mut self.rng)?;
        self.keys.resize(rows as usize, 0);
        self.magnitudes.resize(rows as usize, 0.0);
        self.draws.resize(rows as usize, 0);
        slice(visitor, "keys", &mut self.keys)?;
        slice(visitor, "priorities", &mut self.magnitudes)?;
        slice(visitor, "draws", &mut self.draws)
    }

    /// Refuses what no buffer with these rules can have come to.
    fn check(&self, rules: &Rules) -> Result<(), StateError> {
        let invalid = |path: &str, why: String| Err(StateError::Invalid { path: path.to_string(), why });
        let SelectiveStatistics { inserted, sampled, removed_for_room, removed_expired, .. } = self.counts;
        let removed = removed_for_room.checked_add(removed_expired);
        if inserted > u64::MAX / 2
            || removed.and_then(|n| n.checked_add(self.keys.len() as u64)) != Some(inserted)
        {
            let why = format!("{inserted} rows cannot have been inserted, with so many removed and there");
            return invalid("inserted", why);
        }
        if sampled > u64::MAX / 2 {
            return invalid("sampled", format!("{sampled} rows cannot have been drawn"));
        }
        let mut sorted = self.keys.clone();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return invalid("keys", format!("key {} comes twice", pair[0]));
        }
        if let Some(key) = sorted.last().filter(|key| **key >= inserted) {
            return invalid("keys", format!("row {key} cannot be there, with {inserted} rows inserted"));
        }
        let bad = |value: f32| !(value.is_finite() && value >= 0.0);
        if let Some(value) = self.magnitudes.iter().find(|value| bad(**value) || **value > self.largest) {
            return invalid("priorities", format!("{value} cannot be a priority"));
        }
        if bad(self.largest) || self.largest < 1.0 {
            return invalid("largest", format!("{} cannot be the largest priority", self.largest));
        }
        let most = rules.expire_after.map_or(u64::from(u32::MAX), |draws| u64::from(draws - 1));
        if let Some(draws) = self.draws.iter().find(|draws| **draws > most) {
            let why = format!(
                "a row was drawn {draws} times, and in this buffer none stays that was drawn more than {most} times"
            );
            return invalid("draws", why);
        }
        Ok(())
    }

    fn visit_rows(
        &mut self,
        visitor: &mut dyn StateVisitor,
        replay: &SelectiveReplay,
    ) -> Result<(), StateError> {
        let (schema, loading, rows) = (replay.schema(), visitor.loading(), &mut self.rows);
        let mut bytes = vec![0; schema.row_bytes()];
        let count = self.keys.len() as u64;
        visit_rows(visitor, schema, 0..count, BLOCK_BYTES, |positions, batch| {
            let mut batch = batch.view_mut();
            for (at, row) in (0..).zip(positions) {
                let mut offset = 0;
                for (position, field) in schema.fields().iter().enumerate() {
                    let cell = batch.cell_mut(position, at);
                    let span = offset..offset + field.row_bytes();
                    offset = span.end;
                    if loading {
                        bytes[span].copy_from_slice(cell);
                    } else {
                        cell.copy_from_slice(&rows[row as usize][span]);
                    }
                }
                if loading {
                    rows.push(Arc::from(&bytes[..]));
                }
            }
        })
    }

    fn into_table(self, rules: Rules) -> Result<Table, StateError> {
        let no_memory = |error: crate::ReplayError| StateError::Invalid {
            path: "rows".into(),
            why: format!("there is no memory to load them beside those that are there: {error}"),
        };
        let mut table = Table::new(rules, self.rng).map_err(no_memory)?;
        let known = self.keys.into_iter().zip(self.magnitudes).zip(self.draws);
        for (row, ((key, magnitude), draws)) in self.rows.into_iter().zip(known) {
            table.add(row, key, magnitude, draws as u32);
        }
        table.sort_by_age();
        table.counts = SelectiveStatistics { times_sampled: table.counts.times_sampled, ..self.counts };
        table.largest = self.largest;
        Ok(table)
    }
}
