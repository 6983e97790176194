//! Measures one operation of one crate's replay buffer, one window at a time, when it is told to. It speaks what
//! `../peer.py` says at its top.

mod border;
mod rlox;
mod thrust;

use std::io::{BufRead, Write};
use std::time::Instant;

const ALPHA: f32 = 0.6;
const BETA: f32 = 0.4;
/// Rows that inserts take in turn.
const POOL: usize = 4096;

/// What is measured: one call handles `rows` transitions.
pub struct Step {
    rows: usize,
    call: Box<dyn FnMut()>,
}

impl Step {
    fn new(rows: usize, call: impl FnMut() + 'static) -> Self {
        Self { rows, call: Box::new(call) }
    }
}

/// A crate has no such operation; the reason.
pub type Cannot = &'static str;

#[derive(Clone, Copy, PartialEq)]
pub enum Op {
    Add,
    AddBatch,
    Uniform,
    Prioritized,
    PrioritizedUpdate,
}

impl Op {
    fn prioritized(self) -> bool {
        matches!(self, Op::Prioritized | Op::PrioritizedUpdate)
    }
}

#[derive(Clone, Copy, PartialEq)]
pub enum Workload {
    Small,
    Mujoco,
    Atari,
}

/// The task: what a row holds, how many are kept, what is done and with how many at once.
#[derive(Clone, Copy)]
pub struct Task {
    workload: Workload,
    op: Op,
    batch: usize,
    capacity: usize,
}

impl Task {
    /// Numbers in an observation, and in an action.
    fn widths(&self) -> (usize, usize) {
        match self.workload {
            Workload::Small => (4, 1),
            Workload::Mujoco => (17, 6),
            Workload::Atari => (4 * 84 * 84, 1),
        }
    }

    /// |δ| for every row kept.
    fn magnitudes(&self) -> Vec<f32> {
        Numbers(3).take(self.capacity).map(|number| number + 1e-3).collect()
    }
}

/// Numbers from 0 to 1 that look random: SplitMix64.
pub struct Numbers(u64);

impl Iterator for Numbers {
    type Item = f32;

    fn next(&mut self) -> Option<f32> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some(((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 24) as f32)
    }
}

/// Transitions a second during a window. The clock is read about once in 2 ms.
fn window(step: &mut Step, seconds: f64) -> f64 {
    let begin = Instant::now();
    (step.call)();
    let between = ((0.002 / begin.elapsed().as_secs_f64().max(1e-9)) as u64).clamp(1, 10_000);
    let (mut calls, begin) = (0, Instant::now());
    loop {
        for _ in 0..between {
            (step.call)();
        }
        calls += between;
        let elapsed = begin.elapsed().as_secs_f64();
        if elapsed >= seconds {
            return (calls * step.rows as u64) as f64 / elapsed;
        }
    }
}

fn main() {
    let mut settings = std::collections::HashMap::new();
    let mut arguments = std::env::args().skip(1);
    while let (Some(name), Some(value)) = (arguments.next(), arguments.next()) {
        settings.insert(name, value);
    }
    let setting = |name: &str| settings.get(name).map(String::as_str).unwrap_or_default();
    let number = |name: &str| setting(name).parse::<usize>().ok();
    let workload = match setting("--workload") {
        "small" => Workload::Small,
        "mujoco" => Workload::Mujoco,
        "atari" => Workload::Atari,
        other => panic!("--workload is {other:?}"),
    };
    let op = match setting("--op") {
        "add" => Op::Add,
        "add-batch" => Op::AddBatch,
        "uniform" => Op::Uniform,
        "prioritized" => Op::Prioritized,
        "prioritized-update" => Op::PrioritizedUpdate,
        other => panic!("--op is {other:?}"),
    };
    let default = if workload == Workload::Atari { 50_000 } else { 1_000_000 };
    let task = Task {
        workload,
        op,
        batch: number("--batch").expect("--batch N"),
        capacity: number("--capacity").unwrap_or(default),
    };
    let (version, step) = match setting("--peer") {
        "border" => ("0.0.8", border::step(task)),
        "rlox" => ("0.3.0", rlox::step(task)),
        "thrust" => ("0.4.0", thrust::step(task)),
        other => panic!("--peer is {other:?}"),
    };
    let mut out = std::io::stdout();
    let mut say =
        |line: String| writeln!(out, "{line}").and_then(|()| out.flush()).expect("somebody listens");
    let mut step = match step {
        Ok(step) => step,
        Err(reason) => return say(format!("cannot {reason}")),
    };
    say(format!("ready {version}"));
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let seconds = line.split_whitespace().nth(1).and_then(|seconds| seconds.parse().ok());
        say(window(&mut step, seconds.expect("window SECONDS")).to_string());
    }
}
