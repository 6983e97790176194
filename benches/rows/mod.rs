//! Full buffers of rows of zeros, for the benches.
#![allow(dead_code, reason = "each bench uses a part of it")]

use criterion::Criterion;
use rl_replay::{Builder, Dtype, Prioritized, Replay, Schema};
use std::time::Duration;

/// Whether this is `cargo bench`; `cargo test --benches` only wants to see everything run once.
pub fn measuring() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// A million rows when measuring; few otherwise.
pub fn capacity() -> usize {
    if measuring() { 1_000_000 } else { 4_096 }
}

/// So short that all benches together take less than four minutes.
pub fn config() -> Criterion {
    let criterion = Criterion::default().sample_size(20);
    criterion.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1))
}

pub fn workloads() -> [(&'static str, Schema); 2] {
    [
        ("small", Schema::transition((Dtype::F32, &[4]), (Dtype::I64, &[])).unwrap()),
        ("mujoco", Schema::transition((Dtype::F32, &[17]), (Dtype::F32, &[6])).unwrap()),
    ]
}

/// `count` rows of zeros, as columns.
pub fn zeros(schema: &Schema, count: usize) -> Vec<Vec<u8>> {
    schema.fields().iter().map(|field| vec![0; field.row_bytes() * count]).collect()
}

pub fn slices(columns: &[Vec<u8>]) -> Vec<&[u8]> {
    columns.iter().map(Vec::as_slice).collect()
}

pub fn full(schema: &Schema, prioritized: bool) -> Replay {
    let builder = Replay::builder(schema.clone());
    filled(if prioritized { builder.prioritized(Prioritized::default()) } else { builder.uniform() })
}

pub fn filled(builder: Builder) -> Replay {
    let replay = builder.capacity(capacity()).build().unwrap();
    fill(&replay, replay.capacity());
    replay
}

/// Inserts `rows` rows of zeros.
pub fn fill(replay: &Replay, rows: usize) {
    let schema = replay.schema();
    replay.writer().push_rows(rows, &slices(&zeros(schema, rows))).unwrap();
}
