//! Instructions of one call of each inner loop, on a full buffer, counted by callgrind: `make bench-instructions`.
//!
//! They are the same on a busy machine and on an idle one. What they do not show is memory: a loop with fewer
//! instructions that misses more caches is slower, so a change is judged by `cargo bench -p rl-replay` as well.

use gungraun::prelude::*;
use rand::{RngExt, SeedableRng};
use rl_replay::{
    Batch, Drawn, Dtype, NStep, Prioritized, Reader, Replay, Rng, Schema, Step, WeightNorm, Writer,
    importance_weights,
};
use std::hint::black_box;

/// Rows kept: enough for a tree of three levels of 16, few enough for valgrind to fill it quickly.
const CAPACITY: usize = 1 << 16;

/// What a row holds.
fn schema(workload: &str) -> Schema {
    let (obs, action): (&[usize], (Dtype, &[usize])) = match workload {
        "small" => (&[4], (Dtype::I64, &[])),
        _ => (&[17], (Dtype::F32, &[6])),
    };
    Schema::transition((Dtype::F32, obs), action).unwrap()
}

/// A full buffer, and all that one call needs.
struct Setting {
    reader: Reader,
    writer: Writer,
    n_step: NStep,
    columns: Vec<Vec<u8>>,
    rows: usize,
    rng: Rng,
    batch: Batch,
    drawn: Drawn,
    weights: Vec<f32>,
    magnitudes: Vec<f32>,
}

/// In a box, since moving it would be counted; after a few calls of everything, so that memory which is made at the first call is there.
fn setting(workload: &str, prioritized: bool, rows: usize) -> Box<Setting> {
    let schema = schema(workload);
    let builder = Replay::builder(schema.clone()).capacity(CAPACITY);
    let replay = if prioritized { builder.prioritized(Prioritized::default()) } else { builder.uniform() };
    let replay = replay.build().unwrap();
    let column = |bytes: usize, rows: usize| vec![0; bytes * rows];
    let columns =
        |rows| schema.fields().iter().map(|field| column(field.row_bytes(), rows)).collect::<Vec<_>>();
    let mut rng = Rng::seed_from_u64(0);
    let mut setting = Setting {
        reader: replay.sampler(),
        writer: replay.writer(),
        n_step: NStep::new(3, 0.99, &schema).unwrap(),
        columns: columns(rows),
        rows,
        batch: Batch::new(&schema, rows),
        drawn: Drawn::default(),
        weights: vec![0.0; rows],
        magnitudes: (0..rows).map(|_| rng.random()).collect(),
        rng,
    };
    let all = columns(CAPACITY);
    setting.writer.push_rows(CAPACITY, &slices(&all)).unwrap();
    for _ in 0..3 {
        setting.draw();
        if prioritized {
            setting.write_back();
        }
        setting.insert();
        setting.step();
    }
    setting.draw();
    Box::new(setting)
}

fn slices(columns: &[Vec<u8>]) -> Vec<&[u8]> {
    columns.iter().map(Vec::as_slice).collect()
}

impl Setting {
    fn insert(&mut self) {
        // Five pointers on the stack: collecting them would be counted, too.
        let columns: [&[u8]; 5] = std::array::from_fn(|field| self.columns[field].as_slice());
        self.writer.push_rows(self.rows, &columns).unwrap();
    }

    fn step(&mut self) {
        let [obs, action] = [0, 1].map(|field| {
            let column = &self.columns[field];
            &column[..column.len() / self.rows]
        });
        let step = Step { obs, action, reward: 1.0, next_obs: obs, terminated: false, truncated: false };
        self.n_step.push(step, &mut self.writer).unwrap();
    }

    fn draw(&mut self) {
        let Self { reader, rng, rows, batch, drawn, .. } = self;
        reader.sample_into(rng, *rows, &mut batch.view_mut(), drawn).unwrap();
    }

    fn write_back(&mut self) {
        self.reader.update_priorities(&self.drawn.rows, &self.magnitudes).unwrap();
    }
}

// What is made before stays until after the count: it is handed back, and dropped outside.

#[library_benchmark(setup = setting)]
#[bench::small_1("small", false, 1)]
#[bench::small_64("small", false, 64)]
#[bench::mujoco_64("mujoco", false, 64)]
#[bench::small_prioritized_64("small", true, 64)]
fn insert(mut setting: Box<Setting>) -> Box<Setting> {
    setting.insert();
    black_box(setting)
}

#[library_benchmark(setup = setting)]
#[bench::small("small", false, 1)]
fn n_step_3(mut setting: Box<Setting>) -> Box<Setting> {
    setting.step();
    black_box(setting)
}

#[library_benchmark(setup = setting)]
#[bench::small_256("small", false, 256)]
#[bench::mujoco_256("mujoco", false, 256)]
#[bench::small_prioritized_256("small", true, 256)]
fn draw(mut setting: Box<Setting>) -> Box<Setting> {
    setting.draw();
    black_box(setting)
}

#[library_benchmark(setup = setting)]
#[bench::of_256("small", true, 256)]
fn weigh(mut setting: Box<Setting>) -> Box<Setting> {
    importance_weights(&setting.drawn, 0.4, WeightNorm::BatchMax, &mut setting.weights);
    black_box(setting)
}

#[library_benchmark(setup = setting)]
#[bench::of_32("small", true, 32)]
#[bench::of_256("small", true, 256)]
fn write_priorities_back(mut setting: Box<Setting>) -> Box<Setting> {
    setting.write_back();
    black_box(setting)
}

library_benchmark_group!(
    name = inner_loops,
    benchmarks = [insert, n_step_3, draw, weigh, write_priorities_back]
);
main!(library_benchmark_groups = inner_loops);
