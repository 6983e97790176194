//! Rows that go one by one, against a plain model: all ways to draw, to remove and to expire.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rl_replay::{
    Batch, Drawn, Dtype, Field, MemoryState, Piece, Prioritized, Removal, ReplayError, Rng, SampleError,
    Schema, Selection, SelectiveReader, SelectiveReplay, SelectiveWriter,
};

fn schema() -> Schema {
    Schema::new(vec![Field::new("x", Dtype::I64, []), Field::new("y", Dtype::U8, [3])]).unwrap()
}

/// What belongs to a key.
fn cells(key: u64) -> ([u8; 8], [u8; 3]) {
    let x = key.wrapping_mul(0x1234_5678_9ABC_DEF1);
    (x.to_ne_bytes(), [key as u8, x as u8, (x >> 13) as u8])
}

const SELECTIONS: [Selection; 7] = [
    Selection::Uniform,
    Selection::Proportional(Prioritized { alpha: 0.6, epsilon: 0.01 }),
    Selection::Proportional(Prioritized { alpha: 1.0, epsilon: 0.0 }),
    Selection::OldestFirst,
    Selection::NewestFirst,
    Selection::HighestPriority,
    Selection::LowestPriority,
];
const REMOVALS: [Removal; 5] = [
    Removal::OldestFirst,
    Removal::NewestFirst,
    Removal::LowestPriority,
    Removal::HighestPriority,
    Removal::Uniform { seed: 7 },
];

#[derive(Clone, Debug)]
struct ModelRow {
    key: u64,
    priority: f32,
    draws: u32,
}

/// Rows from the oldest to the newest, and loops.
struct Model {
    capacity: usize,
    selection: Selection,
    removal: Removal,
    expire_after: Option<u32>,
    rows: Vec<ModelRow>,
    inserted: u64,
    largest: f32,
    sampled: u64,
    for_room: u64,
    expired: u64,
    stale: u64,
}

impl Model {
    fn use_priorities(&self) -> bool {
        use Selection::{HighestPriority, LowestPriority, Proportional};
        matches!(self.selection, Proportional(_) | HighestPriority | LowestPriority)
            || matches!(self.removal, Removal::LowestPriority | Removal::HighestPriority)
    }

    fn weight(&self, row: &ModelRow) -> f64 {
        match self.selection {
            Selection::Proportional(Prioritized { alpha, epsilon }) => {
                (f64::from(row.priority) + epsilon).powf(alpha)
            }
            _ => 1.0,
        }
    }

    /// The first of the rows with the lowest rank.
    fn least(&self, rank: impl Fn(&ModelRow) -> f32) -> usize {
        (0..self.rows.len()).min_by(|a, b| rank(&self.rows[*a]).total_cmp(&rank(&self.rows[*b]))).unwrap()
    }

    /// `there` are the keys that the buffer has afterwards: only where chance removes a row is it looked at.
    fn insert(&mut self, priority: Option<f32>, there: &[u64]) {
        let priority = priority.unwrap_or(self.largest);
        self.largest = self.largest.max(priority);
        self.rows.push(ModelRow { key: self.inserted, priority, draws: 0 });
        self.inserted += 1;
        if self.rows.len() > self.capacity {
            let victim = match self.removal {
                Removal::OldestFirst => 0,
                Removal::NewestFirst => self.rows.len() - 1,
                Removal::LowestPriority => self.least(|row| row.priority),
                Removal::HighestPriority => self.least(|row| -row.priority),
                Removal::Uniform { .. } => {
                    self.rows.iter().position(|row| !there.contains(&row.key)).expect("a row has gone")
                }
            };
            self.rows.remove(victim);
            self.for_room += 1;
        }
    }

    fn left(&self) -> u64 {
        let Some(most) = self.expire_after else { return u64::MAX };
        let drawable = self.rows.iter().filter(|row| self.weight(row) > 0.0);
        drawable.map(|row| u64::from(most - row.draws)).sum()
    }

    /// Follows one draw, which has to be allowed.
    fn draw(&mut self, key: u64, probability: f64) {
        let at = self.rows.iter().position(|row| row.key == key).expect("a live row is drawn");
        let only = match self.selection {
            Selection::Uniform | Selection::Proportional(_) => None,
            Selection::OldestFirst => Some(0),
            Selection::NewestFirst => Some(self.rows.len() - 1),
            Selection::HighestPriority => Some(self.least(|row| -row.priority)),
            Selection::LowestPriority => Some(self.least(|row| row.priority)),
        };
        let expected = match only {
            Some(only) => {
                assert_eq!(at, only);
                1.0
            }
            None => self.weight(&self.rows[at]) / self.rows.iter().map(|row| self.weight(row)).sum::<f64>(),
        };
        assert!(probability > 0.0 && (probability - expected).abs() < 1e-9, "{probability} for {expected}");
        self.sampled += 1;
        self.rows[at].draws += 1;
        if Some(self.rows[at].draws) == self.expire_after {
            self.rows.remove(at);
            self.expired += 1;
        }
    }
}

struct Pair {
    replay: SelectiveReplay,
    writer: SelectiveWriter,
    reader: SelectiveReader,
    model: Model,
    rng: Rng,
}

fn build(model: &Model, capacity: usize) -> SelectiveReplay {
    let builder = SelectiveReplay::builder(schema()).capacity(capacity).draw(model.selection);
    let builder = builder.remove(model.removal);
    match model.expire_after {
        Some(draws) => builder.expire_after(draws).build().unwrap(),
        None => builder.build().unwrap(),
    }
}

#[derive(Clone, Debug)]
enum Op {
    Push(Option<u8>),
    PushRows(Vec<u8>, bool),
    Draw(usize),
    Update(Vec<(u64, u8)>),
    SaveAndLoad,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => prop::option::of(0u8..5).prop_map(Op::Push),
        1 => (prop::collection::vec(0u8..5, 0..100), any::<bool>()).prop_map(|(p, own)| Op::PushRows(p, own)),
        5 => (0usize..20).prop_map(Op::Draw),
        3 => prop::collection::vec((0u64..40, 0u8..5), 0..12).prop_map(Op::Update),
        1 => Just(Op::SaveAndLoad),
    ]
}

impl Pair {
    fn new(capacity: usize, selection: Selection, removal: Removal, expire_after: Option<u32>) -> Self {
        let model = Model {
            capacity,
            selection,
            removal,
            expire_after,
            rows: vec![],
            inserted: 0,
            largest: 1.0,
            sampled: 0,
            for_room: 0,
            expired: 0,
            stale: 0,
        };
        let replay = build(&model, capacity);
        let (writer, reader) = (replay.writer(), replay.sampler());
        Self { replay, writer, reader, model, rng: Rng::seed_from_u64(1) }
    }

    fn apply(&mut self, op: &Op) {
        let model = &mut self.model;
        match op {
            Op::Push(priority) => {
                let (x, y) = cells(model.inserted);
                let priority = priority.map(f32::from).filter(|_| model.use_priorities());
                let key = match priority {
                    None => self.writer.push(&[&x, &y]),
                    Some(priority) => self.writer.push_with_priority(&[&x, &y], priority),
                };
                assert_eq!(key.unwrap(), model.inserted);
                model.insert(priority, &self.replay.keys());
            }
            Op::PushRows(priorities, own) => {
                // Chance would remove more than one of them.
                let rows =
                    if matches!(model.removal, Removal::Uniform { .. }) { 1 } else { priorities.len() };
                let priorities: Vec<f32> = priorities.iter().take(rows).copied().map(f32::from).collect();
                let own = *own && model.use_priorities();
                let (mut xs, mut ys) = (vec![], vec![]);
                for key in model.inserted..model.inserted + priorities.len() as u64 {
                    let (x, y) = cells(key);
                    xs.extend(x);
                    ys.extend(y);
                }
                let (rows, columns) = (priorities.len(), [&xs[..], &ys]);
                if own {
                    self.writer.push_rows_with_priorities(rows, &columns, &priorities).unwrap();
                } else {
                    self.writer.push_rows(rows, &columns).unwrap();
                }
                for priority in priorities {
                    model.insert(own.then_some(priority), &self.replay.keys());
                }
            }
            Op::Draw(count) => self.draw(*count),
            Op::Update(updates) => {
                // Keys around those that are there, some of them gone and some never seen.
                let first = model.inserted.saturating_sub(30);
                let keys: Vec<u64> = updates.iter().map(|(key, _)| first + key).collect();
                let values: Vec<f32> = updates.iter().map(|(_, value)| f32::from(*value)).collect();
                let result = self.reader.update_priorities(&keys, &values);
                if !model.use_priorities() {
                    assert!(matches!(result, Err(ReplayError::Sample(SampleError::NoPriorities))));
                    return;
                }
                let mut stale = 0;
                for (key, value) in keys.iter().zip(&values) {
                    match model.rows.iter_mut().find(|row| row.key == *key) {
                        Some(row) => {
                            row.priority = *value;
                            model.largest = model.largest.max(*value);
                        }
                        None => stale += 1,
                    }
                }
                model.stale += stale as u64;
                let updated = result.unwrap();
                assert_eq!((updated.applied, updated.stale), (keys.len() - stale, stale));
            }
            Op::SaveAndLoad => {
                let saved = MemoryState::save(|v| self.replay.visit(v)).unwrap();
                self.replay = build(model, model.capacity);
                saved.load(|v| self.replay.visit(v)).unwrap();
                (self.writer, self.reader) = (self.replay.writer(), self.replay.sampler());
                assert_eq!(MemoryState::save(|v| self.replay.visit(v)).unwrap(), saved);
            }
        }
    }

    fn draw(&mut self, count: usize) {
        let model = &mut self.model;
        let (mut batch, mut drawn) = (Batch::new(&schema(), count), Drawn::default());
        let before = self.rng.clone();
        let result = self.reader.sample_into(&mut self.rng, count, &mut batch.view_mut(), &mut drawn);
        let most = model.expire_after.map_or(u64::MAX, |draws| u64::from(draws) * model.capacity as u64);
        let expected_error = if count as u64 > most {
            Some("draws were asked for")
        } else if model.rows.is_empty() {
            Some("no row to draw from")
        } else if model.rows.iter().all(|row| model.weight(row) == 0.0) {
            Some("priority 0")
        } else if model.left() < count as u64 {
            Some("draws were asked for")
        } else {
            None
        };
        if let Some(text) = expected_error {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
            assert!(drawn.rows.is_empty() && self.rng == before);
            return;
        }
        result.unwrap();
        assert_eq!((drawn.rows.len(), drawn.probabilities.len()), (count, count));
        assert_eq!(drawn.population, model.rows.len() as u64);
        for (at, (key, probability)) in drawn.rows.iter().zip(&drawn.probabilities).enumerate() {
            model.draw(*key, *probability);
            let (x, y) = cells(*key);
            assert_eq!((&batch.column(0)[at * 8..][..8], &batch.column(1)[at * 3..][..3]), (&x[..], &y[..]));
        }
    }

    /// Every row with all that is known of it, and every count.
    fn compare(&self) {
        let (model, counts) = (&self.model, self.replay.statistics());
        let keys: Vec<u64> = model.rows.iter().map(|row| row.key).collect();
        assert_eq!(self.replay.keys(), keys);
        assert_eq!((self.replay.len(), self.replay.inserted()), (keys.len(), model.inserted));
        assert_eq!(self.replay.draws_left(), model.expire_after.map(|_| model.left()));
        assert_eq!(
            [counts.inserted, counts.sampled, counts.removed_for_room, counts.removed_expired],
            [model.inserted, model.sampled, model.for_room, model.expired]
        );
        assert_eq!(counts.stale_priorities, model.stale);
        let mut times = [0; 33];
        for row in &model.rows {
            times[(0..).find(|class| row.draws < 1 << class).unwrap()] += 1;
        }
        assert_eq!(counts.times_sampled, times);

        let saved = MemoryState::save(|v| self.replay.visit(v)).unwrap();
        let bytes = |path: &str| match saved.get(path) {
            Some(Piece::Array { bytes, .. }) => &bytes[..],
            _ => &[],
        };
        let mut stored = vec![];
        for (at, key) in bytes("keys").as_chunks().0.iter().enumerate() {
            let priority = f32::from_ne_bytes(*bytes("priorities")[at * 4..].first_chunk().unwrap());
            let draws = u64::from_ne_bytes(*bytes("draws")[at * 8..].first_chunk().unwrap());
            let key = u64::from_ne_bytes(*key);
            let (x, y) = cells(key);
            assert_eq!(bytes("rows.0.x")[at * 8..][..8], x);
            assert_eq!(bytes("rows.0.y")[at * 3..][..3], y);
            stored.push((key, priority, draws as u32));
        }
        stored.sort_by_key(|row| row.0);
        let expected: Vec<_> = model.rows.iter().map(|row| (row.key, row.priority, row.draws)).collect();
        assert_eq!(stored, expected);
    }
}

fn expiry() -> impl Strategy<Value = Option<u32>> {
    prop::sample::select(vec![None, Some(1), Some(2), Some(5)])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn does_what_the_model_does(
        ops in prop::collection::vec(op(), 1..60),
        capacity in 1usize..24,
        selection in prop::sample::select(&SELECTIONS[..]),
        removal in prop::sample::select(&REMOVALS[..]),
        expire_after in expiry(),
    ) {
        let mut pair = Pair::new(capacity, selection, removal, expire_after);
        for op in &ops {
            pair.apply(op);
            pair.compare();
        }
    }

    /// What was loaded goes on as what was saved would have, chance included; also with more room.
    #[test]
    fn a_loaded_buffer_has_the_same_future(
        before in prop::collection::vec(op(), 1..40),
        after in prop::collection::vec((0u8..5, 0usize..12), 1..30),
        selection in prop::sample::select(&SELECTIONS[..]),
        removal in prop::sample::select(&REMOVALS[..]),
        expire_after in expiry(),
        room in 0usize..400,
    ) {
        let mut pair = Pair::new(12, selection, removal, expire_after);
        before.iter().for_each(|op| pair.apply(op));
        let (one, other) = (pair.replay, build(&pair.model, 12 + room));
        let saved = MemoryState::save(|v| one.visit(v)).unwrap();
        saved.load(|v| other.visit(v)).unwrap();
        let mut rngs = [Rng::seed_from_u64(5), Rng::seed_from_u64(5)];
        // With more room nothing has to go, so only drawing is alike.
        let inserts = if room == 0 { after.len() } else { 0 };
        for (step, (priority, count)) in after.into_iter().enumerate() {
            let mut results = vec![];
            for (replay, rng) in [&one, &other].into_iter().zip(&mut rngs) {
                if step < inserts {
                    let (x, y) = cells(replay.inserted());
                    replay.writer().push(&[&x, &y]).unwrap();
                }
                let (mut batch, mut drawn) = (Batch::new(&schema(), count), Drawn::default());
                let result = replay.sampler().sample_into(rng, count, &mut batch.view_mut(), &mut drawn);
                let _ = replay.sampler().update_priorities(&drawn.rows, &vec![priority.into(); drawn.rows.len()]);
                let told = result.map_err(|error| error.to_string().split(" (a full").next().unwrap().to_owned());
                results.push((told.is_ok(), drawn.rows, drawn.probabilities, batch.column(0).to_vec()));
            }
            prop_assert_eq!(&results[0], &results[1]);
        }
        let [one, other] = [&one, &other].map(|replay| MemoryState::save(|v| replay.visit(v)).unwrap());
        prop_assert_eq!(one.differences(&other), Vec::<String>::new());
    }
}

#[test]
fn what_is_refused_changes_nothing() {
    let builder = || SelectiveReplay::builder(schema()).capacity(4);
    let error = |builder: rl_replay::SelectiveBuilder| builder.build().unwrap_err().to_string();
    assert!(error(builder().capacity(0)).contains("the capacity is 0"));
    assert!(error(builder().capacity(u32::MAX as usize)).contains("at most 4294967293"));
    assert!(error(builder().expire_after(0)).contains("expire_after is 0; it must be at least 1"));
    let bad = Prioritized { alpha: 1.5, epsilon: 0.0 };
    assert!(error(builder().draw(Selection::Proportional(bad))).contains("alpha is 1.5"));

    let replay = builder().remove(Removal::LowestPriority).expire_after(2).build().unwrap();
    let mut writer = replay.writer();
    writer.push(&[&[0; 8], &[0; 3]]).unwrap();
    let before = MemoryState::save(|v| replay.visit(v)).unwrap();
    let (x, y) = ([0u8; 16], [0u8; 6]);
    assert!(matches!(writer.push(&[&x[..8]]), Err(ReplayError::Columns { .. })));
    assert!(matches!(writer.push(&[&x[..7], &y[..3]]), Err(ReplayError::Bytes { .. })));
    for bad in [f32::NAN, -1.0, f32::INFINITY] {
        let priority = writer.push_with_priority(&[&x[..8], &y[..3]], bad).unwrap_err();
        assert!(matches!(priority, ReplayError::Sample(SampleError::Priority { .. })));
        let error = writer.push_rows_with_priorities(2, &[&x, &y], &[1.0, bad]).unwrap_err().to_string();
        assert!(error.contains("row 1 (number 1 of the batch)"), "{error}");
        assert!(replay.sampler().update_priorities(&[0], &[bad]).is_err());
    }
    let error = writer.push_rows_with_priorities(2, &[&x, &y], &[1.0]).unwrap_err();
    assert!(matches!(error, ReplayError::Elements { .. }));
    let mut batch = Batch::new(&schema(), 9);
    for count in [3, 9] {
        let (mut rng, mut drawn) = (Rng::seed_from_u64(0), Drawn::default());
        let error = replay.sampler().sample_into(&mut rng, count, &mut batch.view_mut(), &mut drawn);
        assert!(matches!(error, Err(ReplayError::DrawsLeft { left: 2, most: 8, .. })), "{error:?}");
    }
    assert_eq!(MemoryState::save(|v| replay.visit(v)).unwrap(), before);
}

#[test]
fn a_damaged_state_is_refused_and_the_buffer_is_as_it_was() {
    let build = || {
        let builder = SelectiveReplay::builder(schema()).capacity(8).draw(SELECTIONS[1]).expire_after(3);
        let replay = builder.build().unwrap();
        for key in 0..5 {
            let (x, y) = cells(key);
            replay.writer().push(&[&x, &y]).unwrap();
        }
        replay
    };
    let saved = MemoryState::save(|v| build().visit(v)).unwrap();
    let damage = |path: &str, at: usize, with: &[u8]| {
        let mut damaged = saved.clone();
        let Some(Piece::Array { bytes, .. }) = damaged.get_mut(path) else { panic!("{path}") };
        bytes[at..at + with.len()].copy_from_slice(with);
        let replay = build();
        let error = damaged.load(|v| replay.visit(v)).unwrap_err().to_string();
        assert!(error.contains(&format!("'{path}'")), "{path}: {error}");
        assert_eq!(MemoryState::save(|v| replay.visit(v)).unwrap(), saved);
    };
    damage("row_count", 0, &9u64.to_ne_bytes());
    damage("inserted", 0, &4u64.to_ne_bytes());
    damage("inserted", 0, &u64::MAX.to_ne_bytes());
    damage("sampled", 0, &u64::MAX.to_ne_bytes());
    damage("keys", 8, &0u64.to_ne_bytes());
    damage("keys", 8, &5u64.to_ne_bytes());
    damage("draws", 0, &3u64.to_ne_bytes());
    damage("priorities", 4, &f32::NAN.to_ne_bytes());
    damage("priorities", 4, &2f32.to_ne_bytes());
    damage("largest", 0, &f32::INFINITY.to_ne_bytes());
    let mut short = saved.clone();
    short.remove("rows.0.y");
    let replay = build();
    assert!(short.load(|v| replay.visit(v)).unwrap_err().to_string().contains("'rows.0.y' is missing"));
    assert_eq!(MemoryState::save(|v| replay.visit(v)).unwrap(), saved);
}

/// Rows kept by random priorities are a uniform sample of all that came.
#[test]
fn random_priorities_make_a_reservoir() {
    let (capacity, rows, rounds) = (20, 100u64, 2_000);
    let mut rng = Rng::seed_from_u64(21);
    let mut counts = vec![0u32; rows as usize];
    for _ in 0..rounds {
        let builder = SelectiveReplay::builder(schema()).capacity(capacity);
        let replay = builder.remove(Removal::LowestPriority).build().unwrap();
        let mut writer = replay.writer();
        for _ in 0..rows {
            writer.push_with_priority(&[&[0; 8], &[0; 3]], rng.random()).unwrap();
        }
        replay.keys().into_iter().for_each(|key| counts[key as usize] += 1);
    }
    let expected = rounds as f64 * capacity as f64 / rows as f64;
    // A round takes 20 different rows, so a count's variance is that of rows 1 − 20/100 as large, and the sum of
    // squares is scaled to a χ² of 99 degrees of freedom (see Cochran 1977, §2.6, for the finite population).
    let variance = expected * (1.0 - capacity as f64 / rows as f64) * rows as f64 / (rows - 1) as f64;
    let chi2: f64 = counts.iter().map(|c| (f64::from(*c) - expected).powi(2) / variance).sum();
    // Exceeded by a correct one with probability 1e-6.
    assert!(chi2 < 178.0, "χ² = {chi2}");
}
