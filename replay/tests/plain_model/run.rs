//! Two buffers at once, their files and a mixture of them.

use super::kinds::Law;
use super::ops::{Op, Target};
use super::pair::{Pair, obeys};
use super::{Model, close};
use proptest::prelude::*;
use rl_replay::{
    Batch, Compression, MemoryState, Mixed, Mixture, ReplayError, Rng, SampleError, Snapshot, SnapshotError,
    SnapshotOptions,
};
use std::path::PathBuf;

/// A file, and the buffer as it was.
pub struct Saved {
    pub side: usize,
    pub path: PathBuf,
    pub id: u64,
    pub state: MemoryState,
    pub model: Model,
}

pub struct Run {
    pub pairs: [Pair; 2],
    pub folder: tempfile::TempDir,
    pub saved: Vec<Saved>,
    /// Of each buffer the files that it continues.
    pub bases: [Vec<usize>; 2],
    pub ratios: [i64; 2],
    pub owed: [i64; 2],
    /// What the mixture drew last, and which rows.
    pub mixed: Mixed,
    pub mixture_state: Option<MemoryState>,
    /// What the next row is made of.
    pub content: u64,
    pub rng: Rng,
}

impl Run {
    pub fn step(&mut self, side: usize, op: Op, batch: &mut Batch) {
        let Self { pairs, rng, content, .. } = self;
        let pair = &mut pairs[side];
        match op {
            Op::Push => pair.push(1, false, content),
            Op::PushRows(rows) => pair.push(rows, true, content),
            Op::PushBad(bad) => pair.push_bad(bad),
            Op::Draw(count) => pair.draw(rng, count, batch),
            Op::DrawTooMany(count) => pair.draw_too_many(rng, count),
            Op::Gather(back) => pair.gather(&back, batch),
            Op::Pin { rows, count } => pair.pin(rng, rows, count, content, batch),
            Op::Update(priorities) => pair.update(&priorities),
            Op::UpdateBad(bad) => pair.update_bad(bad),
            Op::Phase(updates) => pair.begin_phase(updates),
            Op::Restart { more, reserve } => {
                let mut other = pair.another(pair.model.capacity + more, reserve);
                let saved = pair.state();
                saved.load(|v| other.replay.visit(v)).unwrap();
                other.model = pair.model.clone().loaded(other.model.capacity, reserve);
                self.now(side, other, vec![]);
            }
            Op::Save { increment, zip } => self.save(side, increment, zip),
            Op::Load { file, into } => self.load(side, file, into),
            Op::Mix(count) => self.mix(count, batch),
            Op::UpdateMixed(magnitude) => self.update_mixed(magnitude),
        }
        self.pairs[side].model.agrees(&self.pairs[side].replay);
    }

    /// Another buffer goes on in the place of one.
    fn now(&mut self, side: usize, mut pair: Pair, bases: Vec<usize>) {
        pair.agrees_in_full();
        self.pairs[side] = pair;
        self.bases[side] = bases;
        // Keys of before may name other rows now.
        self.mixed = Mixed::default();
    }

    fn save(&mut self, side: usize, increment: Option<prop::sample::Index>, zip: bool) {
        let Pair { replay, model, .. } = &self.pairs[side];
        let path = self.folder.path().join(self.saved.len().to_string());
        let compression = if zip { Compression::Lz4 } else { Compression::None };
        let options = SnapshotOptions { compression, block_bytes: 256 };
        let base = increment.filter(|_| !self.saved.is_empty()).map(|i| i.index(self.saved.len()));
        let live = model.live();
        let saved = match base {
            None => {
                let saved = replay.save_with(&path, &options).unwrap();
                assert_eq!((&saved.rows, &saved.base), (&live, &None));
                saved
            }
            // Of two files that hold the same one is as good as the other.
            Some(base) if !self.bases[side].iter().any(|i| self.saved[*i].id == self.saved[base].id) => {
                let error = replay.save_increment(&self.saved[base].path, &path, &options).unwrap_err();
                assert!(matches!(error, SnapshotError::Unrelated { .. }) && !path.exists(), "{error}");
                return;
            }
            Some(base) => {
                let Saved { path: below, model: earlier, .. } = &self.saved[base];
                let saved = replay.save_increment(below, &path, &options).unwrap();
                // What the base has not, and nothing else; alone if all of the base is gone.
                let first = earlier.inserted().max(live.start);
                assert_eq!(saved.rows, first..live.end);
                assert_eq!(saved.base, (first > live.start).then(|| below.clone()));
                saved
            }
        };
        assert_eq!(saved.live, live);
        assert_eq!(Snapshot::read(&path).unwrap(), saved);
        self.bases[side].push(self.saved.len());
        let (state, model) = (self.pairs[side].state(), model.clone());
        self.saved.push(Saved { side, path, id: saved.id, state, model });
    }

    fn load(&mut self, side: usize, file: prop::sample::Index, target: Target) {
        let files: Vec<usize> = (0..self.saved.len()).filter(|i| self.saved[*i].side == side).collect();
        if files.is_empty() {
            return;
        }
        let file = *file.get(&files);
        let Saved { path, state, model, .. } = &self.saved[file];
        let pair = &mut self.pairs[side];
        let rows = model.live().end - model.live().start;
        match target {
            Target::Itself => {
                // It may be smaller or larger than the one that was saved, but not too small.
                assert!(rows <= pair.model.capacity);
                pair.replay.load(path).unwrap();
                pair.model = model.clone().loaded(pair.model.capacity, pair.model.reserve);
                pair.agrees_in_full();
                self.bases[side] = vec![file];
                self.mixed = Mixed::default();
            }
            Target::Larger(more) => {
                let mut other = pair.another(rows.max(1) + more, 3);
                other.replay.load(path).unwrap();
                // All but the capacity is as it was saved.
                let differences = other.state().differences(state);
                assert!(differences.iter().all(|path| path == "capacity"), "{differences:?}");
                other.model = model.clone().loaded(other.model.capacity, 3);
                // A buffer of fewer rows could not take the other files.
                if other.model.capacity >= pair.model.capacity {
                    self.now(side, other, vec![file]);
                } else {
                    other.agrees_in_full();
                }
            }
            Target::Smaller if rows > 1 => {
                let mut small = pair.another(rows - 1, 2);
                let mut other_rows = 1 << 40;
                small.push(1, true, &mut other_rows);
                let before = small.state();
                let error = small.replay.load(path).unwrap_err();
                assert!(matches!(error, SnapshotError::State { .. }), "{error}");
                assert_eq!(small.state(), before);
                small.agrees_in_full();
            }
            Target::Smaller => {}
        }
    }

    fn mixture(&self) -> Mixture {
        let readers = [0, 1].map(|side| (self.pairs[side].replay.sampler(), self.ratios[side] as f64));
        let mut mixture = Mixture::new(readers).unwrap();
        if let Some(state) = &self.mixture_state {
            state.load(|v| mixture.visit(v)).unwrap();
        }
        mixture
    }

    fn mix(&mut self, count: usize, batch: &mut Batch) {
        let mut mixture = self.mixture();
        let (before, noise) = (batch.column(0).to_vec(), self.rng.clone());
        let result = mixture.sample_into(&mut self.rng, count, &mut batch.view_mut(), &mut self.mixed);
        // Whole rows are due at once; those left go to whom most is owed.
        let mut owed = self.owed;
        let mut places = [0; 2];
        for side in 0..2 {
            let due = count as i64 * self.ratios[side];
            (places[side], owed[side]) = ((due / 16) as usize, owed[side] + due % 16);
        }
        while places[0] + places[1] < count {
            let side = usize::from(owed[1] > owed[0]);
            places[side] += 1;
            owed[side] -= 16;
        }
        let mut laws: [Option<Law>; 2] = [None, None];
        let mut refused = None;
        for side in 0..2 {
            let model = &mut self.pairs[side].model;
            match model.law(model.live(), places[side]) {
                Ok(law) => laws[side] = Some(law),
                Err(_) if places[side] == 0 => {}
                Err(error) => {
                    refused = Some((side, error));
                    break;
                }
            }
        }
        if let Some((side, expected)) = refused {
            let Err(ReplayError::InMixture { position, source }) = result else { panic!("{result:?}") };
            assert!(position == side && matches!(*source, ReplayError::Sample(error) if error == expected));
            assert!(batch.column(0) == before && self.rng == noise);
            return;
        }
        result.unwrap();
        self.owed = owed;
        self.mixture_state = Some(MemoryState::save(|v| mixture.visit(v)).unwrap());
        let (all, mut place, mut population, mut lowest) = (self.mixed.drawn(), 0, 0, Some(1.0f64));
        for side in 0..2 {
            let part = &self.mixed.parts()[side];
            assert_eq!(part.places(), place..place + places[side]);
            let drawn = part.drawn();
            let Some(law) = &laws[side] else {
                assert!(drawn.rows.is_empty() && drawn.population == 0);
                continue;
            };
            obeys(drawn, law, places[side]);
            self.pairs[side].holds(&drawn.rows, batch, place);
            let ratio = self.ratios[side] as f64 / 16.0;
            assert_eq!(all.rows[part.places()], drawn.rows);
            let stated = all.probabilities[part.places()].iter().zip(&drawn.probabilities);
            stated.for_each(|(all, part)| assert!(close(*all, ratio * part)));
            place += places[side];
            population += law.population;
            lowest = lowest.zip(law.lowest).map(|(all, part)| all.min(ratio * part));
        }
        assert_eq!((all.rows.len(), all.population), (count, population));
        assert!(all.lowest.is_some() == lowest.is_some());
        assert!(all.lowest.zip(lowest).is_none_or(|(a, b)| close(a, b)));
    }

    fn update_mixed(&mut self, magnitude: f32) {
        if self.mixed.parts().is_empty() {
            return;
        }
        let magnitudes: Vec<f32> = (0..self.mixed.drawn().rows.len()).map(|i| magnitude + i as f32).collect();
        let result = self.mixture().update_priorities(&self.mixed, &magnitudes);
        let mut expected = None;
        for side in 0..2 {
            let part = &self.mixed.parts()[side];
            let range = part.places();
            let model = &mut self.pairs[side].model;
            if let Ok((applied, stale)) = model.update(&part.drawn().rows, &magnitudes[range]) {
                let (a, s) = expected.unwrap_or((0, 0));
                expected = Some((a + applied, s + stale));
            }
        }
        match expected {
            Some(expected) => {
                let updated = result.unwrap();
                assert_eq!((updated.applied, updated.stale), expected);
            }
            None => assert!(matches!(result, Err(ReplayError::Sample(SampleError::NoPriorities)))),
        }
    }
}
