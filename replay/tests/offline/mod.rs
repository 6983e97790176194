//! What the golden files hold, and how to compare with it. Each test uses a part of this.
#![allow(dead_code)]

use rl_replay::{Batch, Dtype, Field, Key, Replay, Schema};
use std::path::PathBuf;

pub const ROWS: usize = 7;

pub fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

pub fn data(name: &str) -> PathBuf {
    golden("data").join(name)
}

/// Row `row` of the column `seed`: the formula of tests/golden/data.py.
pub fn element(seed: usize, row: usize, elements: usize) -> Vec<f64> {
    (0..elements).map(|place| ((16 * row + place + seed) % 256) as f64 / 8.0).collect()
}

/// The same as bytes of `dtype`.
pub fn bytes(seed: usize, row: usize, dtype: Dtype, elements: usize) -> Vec<u8> {
    let eighths = |value: f64| (value * 8.0) as i64;
    let one = |value: f64| match dtype {
        Dtype::Bool => vec![u8::from(eighths(value) % 3 == 0)],
        Dtype::U8 => vec![eighths(value) as u8],
        Dtype::I32 => (eighths(value) as i32).to_ne_bytes().to_vec(),
        Dtype::I64 => eighths(value).to_ne_bytes().to_vec(),
        Dtype::F16 => half::f16::from_f64(value).to_ne_bytes().to_vec(),
        Dtype::Bf16 => half::bf16::from_f64(value).to_ne_bytes().to_vec(),
        Dtype::F32 => (value as f32).to_ne_bytes().to_vec(),
        Dtype::F64 => value.to_ne_bytes().to_vec(),
    };
    element(seed, row, elements).into_iter().flat_map(one).collect()
}

/// One column of each type; the position is the seed.
pub fn fields() -> Vec<Field> {
    vec![
        Field::new("obs", Dtype::F32, [2, 3]),
        Field::new("half", Dtype::F16, [5]),
        Field::new("double", Dtype::F64, []),
        Field::new("frame", Dtype::U8, [4, 2, 1]),
        Field::new("index", Dtype::I32, []),
        Field::new("action", Dtype::I64, []),
        Field::new("flag", Dtype::Bool, [3]),
    ]
}

pub fn buffer(schema: &Schema) -> Replay {
    Replay::builder(schema.clone()).capacity(100).build().unwrap()
}

/// All live rows: for each, the bytes of each field.
pub fn rows(replay: &Replay) -> Vec<Vec<Vec<u8>>> {
    let count = replay.len();
    if count == 0 {
        return Vec::new();
    }
    let mut batch = Batch::new(replay.schema(), count);
    let keys: Vec<Key> = replay.live().collect();
    replay.sampler().pin().unwrap().gather(&keys, &mut batch.view_mut()).unwrap();
    let row = |row: usize| {
        let fields = replay.schema().fields().iter().enumerate();
        fields.map(|(at, f)| batch.column(at)[row * f.row_bytes()..][..f.row_bytes()].to_vec()).collect()
    };
    (0..count).map(row).collect()
}

pub fn expected_rows(fields: &[Field]) -> Vec<Vec<Vec<u8>>> {
    let row = |row| {
        let cell = |(seed, field): (usize, &Field)| bytes(seed, row, field.dtype, field.elements());
        fields.iter().enumerate().map(cell).collect()
    };
    (0..ROWS).map(row).collect()
}

/// A step as a file has it: episode's end apart, everything follows from row numbers.
pub struct Taken {
    pub row: usize,
    pub next: NextObs,
    pub terminated: bool,
    pub ended: bool,
}

#[derive(Clone, Copy)]
pub enum NextObs {
    Row(usize),
    Column { seed: usize, row: usize },
}

/// The rows that `steps` make, by the definition of n-step returns and nothing else.
pub fn folded(
    steps: &[Taken],
    n: usize,
    gamma: f64,
    obs: impl Fn(NextObs) -> Vec<u8>,
    action: impl Fn(usize) -> Vec<u8>,
) -> Vec<Vec<Vec<u8>>> {
    let row = |first: usize| {
        let mut last = first;
        while last - first + 1 < n && !steps[last].ended {
            last += 1;
        }
        let span = &steps[first..=last];
        let reward: f64 =
            span.iter().enumerate().map(|(i, s)| gamma.powi(i as i32) * element(2, s.row, 1)[0]).sum();
        let discount = if steps[last].terminated { 0.0 } else { gamma.powi(span.len() as i32) };
        let masked = steps[last].terminated;
        let next = if masked { Vec::new() } else { obs(steps[last].next) };
        vec![
            obs(NextObs::Row(steps[first].row)),
            action(steps[first].row),
            (reward as f32).to_ne_bytes().to_vec(),
            (discount as f32).to_ne_bytes().to_vec(),
            next,
        ]
    };
    (0..steps.len()).map(row).collect()
}

/// What follows a terminal step does not matter, so it is not compared.
pub fn compared(replay: &Replay) -> Vec<Vec<Vec<u8>>> {
    let mut all = rows(replay);
    for row in &mut all {
        if row[3] == 0f32.to_ne_bytes() {
            row[4].clear();
        }
    }
    all
}
