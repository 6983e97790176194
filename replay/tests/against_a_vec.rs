//! The buffer and a plain model, a `Vec` of everything ever inserted, driven by the same random operations.

use proptest::prelude::*;
use rand::SeedableRng;
use rl_replay::{
    Batch, Drawn, Dtype, Field, MemoryState, Prioritized, Replay, Rng, SampleError, Schema, Uniform,
};

/// Fields of odd sizes, whose contents all follow from the row's key.
fn schema() -> Schema {
    Schema::new(vec![
        Field::new("pixels", Dtype::U8, [3, 1]),
        Field::new("id", Dtype::I64, []),
        Field::new("x", Dtype::F32, [2]),
        Field::new("flag", Dtype::Bool, []),
    ])
    .unwrap()
}

fn row(key: u64) -> [Vec<u8>; 4] {
    let x = [key as f32, -0.5 * key as f32];
    [
        vec![key as u8, (key >> 8) as u8, 7],
        (key as i64).to_ne_bytes().to_vec(),
        x.iter().flat_map(|x| x.to_ne_bytes()).collect(),
        vec![(key % 2) as u8],
    ]
}

/// The rows from `first` on as columns.
fn rows(first: u64, count: u64) -> [Vec<u8>; 4] {
    let mut columns: [Vec<u8>; 4] = Default::default();
    for key in first..first + count {
        for (column, cell) in columns.iter_mut().zip(row(key)) {
            column.extend(cell);
        }
    }
    columns
}

#[derive(Clone, Debug)]
enum Op {
    Push,
    PushRows(u64),
    Draw(usize),
    /// Priorities for keys this far behind the newest, some of them overwritten long ago.
    Update(Vec<(u64, f32)>),
    Restart,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let magnitude = prop_oneof![Just(0.0f32), 0.0f32..10.0, Just(1e30f32)];
    let op = prop_oneof![
        4 => Just(Op::Push),
        2 => (0u64..40).prop_map(Op::PushRows),
        3 => (0usize..20).prop_map(Op::Draw),
        3 => prop::collection::vec((1u64..60, magnitude), 0..12).prop_map(Op::Update),
        1 => Just(Op::Restart),
    ];
    prop::collection::vec(op, 1..60)
}

/// What the buffer should be.
struct Model {
    capacity: u64,
    inserted: u64,
    settings: Option<Prioritized>,
    /// By key; of live rows only.
    priorities: Vec<f64>,
    largest: f64,
    stale: u64,
}

impl Model {
    fn oldest(&self) -> u64 {
        self.inserted.saturating_sub(self.capacity)
    }

    fn insert(&mut self, count: u64) {
        self.inserted += count;
        self.priorities.resize(self.inserted as usize, self.largest);
    }

    fn probability(&self, key: u64) -> f64 {
        let live = &self.priorities[self.oldest() as usize..];
        match self.settings {
            Some(_) => self.priorities[key as usize] / live.iter().sum::<f64>(),
            None => 1.0 / live.len() as f64,
        }
    }
}

fn build(capacity: usize, reserve: usize, settings: Option<Prioritized>) -> Replay {
    let builder = Replay::builder(schema()).capacity(capacity).reserve(reserve);
    match settings {
        Some(settings) => builder.prioritized(settings).build().unwrap(),
        None => builder.sampler(Box::new(Uniform)).build().unwrap(),
    }
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-12 * a.abs().max(b.abs())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn the_buffer_does_what_the_model_does(
        capacity in 1usize..50,
        reserve in 1usize..8,
        settings in prop::option::of((prop_oneof![Just(0.0), Just(1.0), 0.0..1.0f64], prop_oneof![Just(0.0), Just(0.01)])),
        ops in ops(),
        seed: u64,
    ) {
        let settings = settings.map(|(alpha, epsilon)| Prioritized { alpha, epsilon });
        let mut replay = build(capacity, reserve, settings);
        let mut model = Model {
            capacity: capacity as u64, inserted: 0, settings, priorities: vec![], largest: 1.0, stale: 0,
        };
        let mut rng = Rng::seed_from_u64(seed);
        let mut drawn = Drawn::default();
        let mut batch = Batch::new(&schema(), 20);
        for op in ops {
            match op {
                Op::Push => {
                    let row = row(model.inserted);
                    let key = replay.writer().push(&row.each_ref().map(Vec::as_slice)).unwrap();
                    prop_assert_eq!(key, model.inserted);
                    model.insert(1);
                }
                Op::PushRows(count) => {
                    let columns = rows(model.inserted, count);
                    replay.writer().push_rows(count as usize, &columns.each_ref().map(Vec::as_slice)).unwrap();
                    model.insert(count);
                }
                Op::Draw(count) => {
                    let result = replay.sampler().sample_into(&mut rng, count, &mut batch.view_mut(), &mut drawn);
                    let live = &model.priorities[model.oldest() as usize..];
                    if live.is_empty() || (settings.is_some() && live.iter().sum::<f64>() == 0.0) {
                        prop_assert!(result.is_err());
                        continue;
                    }
                    result.unwrap();
                    prop_assert_eq!(drawn.rows.len(), count);
                    prop_assert_eq!(drawn.population, live.len() as u64);
                    for (place, &key) in drawn.rows.iter().enumerate() {
                        prop_assert!((model.oldest()..model.inserted).contains(&key));
                        let expected = model.probability(key);
                        prop_assert!(expected > 0.0, "row {} cannot be drawn", key);
                        prop_assert!(close(drawn.probabilities[place], expected));
                        for (position, cell) in row(key).iter().enumerate() {
                            let column = batch.column(position);
                            prop_assert_eq!(&column[place * cell.len()..][..cell.len()], cell.as_slice());
                        }
                    }
                }
                Op::Update(priorities) => {
                    let keys: Vec<u64> =
                        priorities.iter().map(|(back, _)| model.inserted.saturating_sub(*back)).collect();
                    let magnitudes: Vec<f32> = priorities.iter().map(|(_, magnitude)| *magnitude).collect();
                    let result = replay.sampler().update_priorities(&keys, &magnitudes);
                    let Some(Prioritized { alpha, epsilon }) = settings else {
                        prop_assert!(result.is_err());
                        continue;
                    };
                    let mut stale = 0;
                    for (&key, &magnitude) in keys.iter().zip(&magnitudes) {
                        if key < model.oldest() || key >= model.inserted {
                            stale += 1;
                        } else {
                            let priority = (f64::from(magnitude) + epsilon).powf(alpha);
                            model.priorities[key as usize] = priority;
                            model.largest = model.largest.max(priority);
                        }
                    }
                    let updated = result.unwrap();
                    prop_assert_eq!((updated.applied, updated.stale), (keys.len() - stale, stale));
                    model.stale += stale as u64;
                }
                Op::Restart => {
                    // What was saved and loaded goes on as if nothing had happened; the reserve may differ.
                    let saved = MemoryState::save(|v| replay.visit(v)).unwrap();
                    let other = build(capacity, reserve + 1, settings);
                    saved.load(|v| other.visit(v)).unwrap();
                    prop_assert_eq!(&MemoryState::save(|v| other.visit(v)).unwrap(), &saved);
                    replay = other;
                }
            }
            prop_assert_eq!(replay.live(), model.oldest()..model.inserted);
            prop_assert_eq!(replay.len() as u64, model.inserted - model.oldest());
            prop_assert_eq!(replay.inserted(), model.inserted);
            prop_assert_eq!(replay.stale_priorities(), model.stale);
        }
    }
}

#[test]
fn an_empty_buffer_draws_nothing() {
    let replay = build(3, 1, None);
    let mut batch = Batch::new(&schema(), 1);
    let error = replay
        .sampler()
        .sample_into(&mut Rng::seed_from_u64(0), 1, &mut batch.view_mut(), &mut Drawn::default())
        .unwrap_err();
    assert!(matches!(error, rl_replay::ReplayError::Sample(SampleError::Empty)), "{error}");
}
