//! A buffer and its model, to which the same is done.

use super::kinds::{Kind, Law};
use super::ops::{BadPriority, BadRow};
use super::rows::{Typed, columns, nan, row, slices};
use super::{Model, close};
use rl_replay::{
    Batch, Drawn, MemoryState, Phases, Piece, Replay, ReplayError, Rng, Row, SampleError, Schema,
};
use std::ops::Range;

pub struct Pair {
    pub replay: Replay,
    pub phases: Option<Phases>,
    pub model: Model,
}

impl Pair {
    pub fn new(schema: &Schema, kind: &Kind, capacity: u64, reserve: u64) -> Self {
        let model = Model::new(schema, kind, capacity, reserve);
        let builder = Replay::builder(schema.clone()).capacity(capacity as usize).reserve(reserve as usize);
        let (builder, phases) = match kind {
            Kind::Uniform { own: false } => (builder.uniform(), None),
            Kind::Proportional { settings, stratified: true, own: false } => {
                (builder.prioritized(*settings), None)
            }
            Kind::RankBased { alpha, stratified: true, own: false } => (builder.rank_based(*alpha), None),
            kind => {
                let (sampler, phases) = kind.sampler(capacity);
                (builder.sampler(sampler), phases)
            }
        };
        Self { replay: builder.build().unwrap(), phases, model }
    }

    pub fn state(&self) -> MemoryState {
        MemoryState::save(|v| self.replay.visit(v)).unwrap()
    }

    /// Another, with room for so many more rows.
    pub fn another(&self, capacity: u64, reserve: u64) -> Self {
        Self::new(&self.model.schema, &self.model.kind, capacity, reserve)
    }

    /// `rows` more rows, in one call if there are several or `together`. `content` is counted up.
    pub fn push(&mut self, rows: usize, together: bool, content: &mut u64) {
        let contents: Vec<u64> = (*content..*content + rows as u64).collect();
        *content += rows as u64;
        let schema = &self.model.schema;
        let mut writer = self.replay.writer();
        if together {
            writer.push_rows(rows, &slices(&columns(schema, &contents))).unwrap();
        } else if schema == Typed::schema() {
            assert_eq!(writer.push_row(&Typed::of(contents[0])).unwrap(), self.model.inserted());
        } else {
            let row = row(schema, contents[0]);
            assert_eq!(writer.push(&slices(&row)).unwrap(), self.model.inserted());
        }
        self.model.insert(&contents);
    }

    pub fn push_bad(&mut self, bad: BadRow) {
        let (schema, before, rows) = (&self.model.schema, self.state(), 5);
        let mut writer = self.replay.writer();
        let mut all = columns(schema, &[u64::MAX; 5]);
        match bad {
            BadRow::Columns => {
                all.push(vec![]);
                let error = writer.push_rows(rows, &slices(&all)).unwrap_err();
                assert!(matches!(error, ReplayError::Columns { expected, got } if expected + 1 == got));
            }
            BadRow::Bytes => {
                all.last_mut().unwrap().pop();
                let error = writer.push_rows(rows, &slices(&all)).unwrap_err();
                let last = schema.fields().last().unwrap();
                assert!(matches!(error, ReplayError::Bytes { column, got, expected, .. }
                    if column == last.name && expected == got + 1 && expected == rows * last.row_bytes()));
            }
            BadRow::NaN(number) => {
                let floats =
                    schema.fields().iter().enumerate().filter_map(|(at, f)| Some((at, nan(f.dtype)?)));
                let floats: Vec<_> = floats.collect();
                if floats.is_empty() {
                    return;
                }
                let (at, nan) = &floats[number % floats.len()];
                let field = &schema.fields()[*at];
                let element = number % (rows * field.elements());
                all[*at][element * nan.len()..][..nan.len()].copy_from_slice(nan);
                let error = writer.push_rows(rows, &slices(&all)).unwrap_err();
                let place = (element / field.elements(), element % field.elements());
                assert!(matches!(error, ReplayError::NotFinite { row, column, element }
                    if column == field.name && (row, element) == place));
            }
            BadRow::Struct if schema == Typed::schema() => {}
            BadRow::Struct => {
                let error = writer.push_row(&Typed::of(0)).unwrap_err();
                assert!(matches!(error, ReplayError::OtherRow { .. }), "{error}");
            }
        }
        assert_eq!(self.state(), before);
    }

    /// Draws and compares. Where the model says that nothing can be drawn, so must the buffer, and change nothing.
    pub fn draw(&mut self, rng: &mut Rng, count: usize, batch: &mut Batch) {
        let (mut drawn, before, noise) = (Drawn::default(), batch.column(0).to_vec(), rng.clone());
        let result = self.replay.sampler().sample_into(rng, count, &mut batch.view_mut(), &mut drawn);
        match self.model.law(self.model.live(), count) {
            Ok(law) => {
                result.unwrap();
                obeys(&drawn, &law, count);
                self.holds(&drawn.rows, batch, 0);
            }
            Err(expected) => {
                assert!(matches!(result, Err(ReplayError::Sample(error)) if error == expected));
                assert!(batch.column(0) == before && *rng == noise && drawn.rows.is_empty());
            }
        }
    }

    pub fn draw_too_many(&mut self, rng: &mut Rng, count: usize) {
        let (before, noise) = (self.state(), rng.clone());
        let mut batch = Batch::new(&self.model.schema, count);
        let result =
            self.replay.sampler().sample_into(rng, count + 1, &mut batch.view_mut(), &mut Drawn::default());
        assert!(matches!(result, Err(ReplayError::Batch(_))), "{result:?}");
        assert!(self.state() == before && *rng == noise);
    }

    pub fn gather(&mut self, back: &[u64], batch: &mut Batch) {
        let keys: Vec<u64> = back.iter().map(|back| self.model.inserted().saturating_sub(*back)).collect();
        let live = self.model.live();
        let mut reader = self.replay.sampler();
        let pinned = match reader.pin() {
            Ok(pinned) => pinned,
            Err(error) => {
                assert!(live.is_empty() && matches!(error, ReplayError::Sample(SampleError::Empty)));
                return;
            }
        };
        assert_eq!(pinned.live(), live);
        let before = batch.column(0).to_vec();
        let result = pinned.gather(&keys, &mut batch.view_mut());
        match keys.iter().find(|key| !live.contains(key)) {
            None => {
                result.unwrap();
                self.holds(&keys, batch, 0);
            }
            Some(&gone) => {
                assert!(matches!(result, Err(ReplayError::NotLive { key, start, end })
                    if key == gone && (start..end) == live));
                assert_eq!(batch.column(0), before);
            }
        }
    }

    /// Pins what is live, inserts as far as the slack goes, and reads what was pinned, much of which is not live any more.
    pub fn pin(&mut self, rng: &mut Rng, rows: usize, count: usize, content: &mut u64, batch: &mut Batch) {
        let old = self.model.live();
        if old.is_empty() {
            return;
        }
        let mut reader = self.replay.sampler();
        let mut pinned = reader.pin().unwrap();
        // More would wait for the pin for ever.
        let rows = rows.min(2 * self.model.reserve as usize);
        let contents: Vec<u64> = (*content..*content + rows as u64).collect();
        *content += rows as u64;
        let more = columns(&self.model.schema, &contents);
        self.replay.writer().push_rows(rows, &slices(&more)).unwrap();
        self.model.insert(&contents);

        let keys: Vec<u64> = old.clone().collect();
        for keys in keys.chunks(batch.rows()) {
            pinned.gather(keys, &mut batch.view_mut()).unwrap();
            self.holds(keys, batch, 0);
        }
        // Uniform draws without a lock go on from what was pinned.
        let from =
            if matches!(self.model.kind, Kind::Uniform { own: false }) { old } else { self.model.live() };
        let mut drawn = Drawn::default();
        let result = pinned.draw(rng, count, &mut drawn);
        match self.model.law(from.clone(), count) {
            Ok(law) => {
                result.unwrap();
                assert_eq!(pinned.live(), from);
                obeys(&drawn, &law, count);
                pinned.gather(&drawn.rows, &mut batch.view_mut()).unwrap();
                self.holds(&drawn.rows, batch, 0);
            }
            Err(expected) => {
                assert!(matches!(result, Err(ReplayError::Sample(error)) if error == expected));
            }
        }
    }

    pub fn update(&mut self, priorities: &[(u64, f32)]) {
        let key = |back: &u64| self.model.inserted().saturating_sub(*back);
        let keys: Vec<u64> = priorities.iter().map(|(back, _)| key(back)).collect();
        let magnitudes: Vec<f32> = priorities.iter().map(|(_, magnitude)| *magnitude).collect();
        let result = self.replay.sampler().update_priorities(&keys, &magnitudes);
        match self.model.update(&keys, &magnitudes) {
            Ok(expected) => {
                let updated = result.unwrap();
                assert_eq!((updated.applied, updated.stale), expected);
            }
            Err(expected) => {
                assert!(matches!(result, Err(ReplayError::Sample(error)) if error == expected));
            }
        }
    }

    pub fn update_bad(&mut self, bad: BadPriority) {
        let before = self.state();
        let last = self.model.inserted().saturating_sub(1);
        let (keys, magnitudes) = match bad {
            BadPriority::Length => (vec![last, last], vec![1.0]),
            BadPriority::Value(value) => (vec![last, last], vec![2.0, value]),
        };
        let error = self.replay.sampler().update_priorities(&keys, &magnitudes).unwrap_err();
        let expected = self.model.update(&keys, &magnitudes).unwrap_err();
        // By their texts, for NaN is not equal to itself.
        assert_eq!(error.to_string(), ReplayError::Sample(expected).to_string());
        assert_eq!(self.state(), before);
    }

    pub fn begin_phase(&mut self, updates: u64) {
        let Some(phases) = &self.phases else { return };
        assert_eq!(phases.begin(updates).is_ok(), updates > 0);
        if updates > 0 {
            (self.model.updates, self.model.done) = (updates, 0);
        }
    }

    /// Whether the batch holds these rows from its row `first` on.
    pub fn holds(&self, keys: &[u64], batch: &Batch, first: usize) {
        for (place, &key) in keys.iter().enumerate() {
            for (position, cell) in
                row(&self.model.schema, self.model.contents[key as usize]).iter().enumerate()
            {
                let found = &batch.column(position)[(first + place) * cell.len()..][..cell.len()];
                assert_eq!(found, cell.as_slice(), "row {key}, field {position}");
            }
        }
    }

    /// Everything at once: what the buffer says of itself, all its rows, all its priorities.
    pub fn agrees_in_full(&mut self) {
        self.model.agrees(&self.replay);
        let keys: Vec<u64> = self.model.live().collect();
        let mut batch = Batch::new(&self.model.schema, keys.len());
        if !keys.is_empty() {
            self.replay.sampler().pin().unwrap().gather(&keys, &mut batch.view_mut()).unwrap();
            self.holds(&keys, &batch, 0);
        }
        let Range { start, end } = self.model.live();
        let (start, end) = (start as usize, end as usize);
        for (path, piece) in self.state().pieces() {
            let Piece::Array { bytes, .. } = piece else { continue };
            if path.starts_with("sampler") && path.ends_with(".priorities") {
                let kept: Vec<f64> = bytemuck::pod_collect_to_vec(bytes);
                let expected = &self.model.priorities[start..end];
                assert!(kept.len() == keys.len() && kept.iter().zip(expected).all(|(a, b)| close(*a, *b)));
            } else if path.starts_with("sampler") && path.ends_with(".magnitudes") {
                let kept: Vec<f32> = bytemuck::pod_collect_to_vec(bytes);
                assert_eq!(kept, self.model.magnitudes[start..end]);
            }
        }
    }
}

/// Whether a batch is what it was to be.
pub fn obeys(drawn: &Drawn, law: &Law, count: usize) {
    assert_eq!((drawn.rows.len(), drawn.probabilities.len()), (count, count));
    assert_eq!(drawn.population, law.population);
    match (drawn.lowest, law.lowest) {
        (Some(a), Some(b)) => assert!(close(a, b), "lowest is {a} and should be {b}"),
        (a, b) => assert_eq!(a, b),
    }
    for (place, (&key, &probability)) in drawn.rows.iter().zip(&drawn.probabilities).enumerate() {
        let at = key.checked_sub(law.start).map(|at| at as usize);
        let Some(at) = at.filter(|at| *at < law.probabilities.len()) else { panic!("row {key} is not live") };
        let expected = law.probabilities[at];
        assert!(expected > 0.0, "row {key} cannot be drawn");
        assert!(close(probability, expected), "row {key} has {probability} and should have {expected}");
        if let Some(strata) = &law.strata {
            let (from, to) = (place as f64 / count as f64, (place + 1) as f64 / count as f64);
            let Range { start, end } = strata[at];
            assert!(start <= to + 1e-9 && end >= from - 1e-9, "row {key} is not of stratum {place}");
        }
    }
    let (others, last) = drawn.rows.split_at(count - law.last.len());
    assert_eq!(last, law.last);
    let mut sorted = others.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    assert!(!law.distinct || sorted.len() == others.len(), "{others:?} differ");
}
