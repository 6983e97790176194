//! rlox-core's `ReplayBuffer` and `PrioritizedReplayBuffer`.

use crate::{ALPHA, BETA, Cannot, Numbers, Op, POOL, Step, Task, Workload};
use rlox_core::buffer::priority::PrioritizedReplayBuffer;
use rlox_core::buffer::ringbuf::ReplayBuffer;
use std::hint::black_box;

pub fn step(task: Task) -> Result<Step, Cannot> {
    if task.workload == Workload::Atari {
        return Err("it stores f32 observations only");
    }
    Ok(if task.op.prioritized() { prioritized(task) } else { plain(task) })
}

/// Rows to insert: some in a row out of a pool, the next observation of each being the observation of the one after it.
struct Pool {
    obs: Vec<f32>,
    act: Vec<f32>,
    widths: (usize, usize),
    at: usize,
}

impl Pool {
    fn new(task: Task) -> Self {
        let (d, e) = task.widths();
        let obs = Numbers(7).take((POOL + task.batch + 1) * d).collect();
        Self { obs, act: Numbers(8).take((POOL + task.batch) * e).collect(), widths: (d, e), at: 0 }
    }

    /// Observations, next observations and actions of the next `count` rows.
    fn turn(&mut self, count: usize) -> (&[f32], &[f32], &[f32]) {
        let (i, (d, e)) = (self.at % POOL, self.widths);
        self.at += count;
        (
            &self.obs[i * d..][..count * d],
            &self.obs[(i + 1) * d..][..count * d],
            &self.act[i * e..][..count * e],
        )
    }
}

fn prioritized(task: Task) -> Step {
    let Task { op, batch, capacity, .. } = task;
    let (d, e) = task.widths();
    let mut pool = Pool::new(task);
    let mut buffer = PrioritizedReplayBuffer::new(capacity, d, e, f64::from(ALPHA), f64::from(BETA));
    let magnitudes: Vec<f64> = task.magnitudes().into_iter().map(f64::from).collect();
    for magnitude in &magnitudes {
        let (row, next, act) = pool.turn(1);
        buffer.push_slices(row, next, act, 1.0, false, false, *magnitude).expect("the widths fit");
    }
    let mut seed = 0;
    Step::new(batch, move || {
        seed += 1;
        let drawn = buffer.sample(batch, seed).expect("it is full");
        if op == Op::PrioritizedUpdate {
            buffer.update_priorities(&drawn.indices, &magnitudes[..batch]).expect("they exist");
        }
        black_box(&drawn);
    })
}

fn plain(task: Task) -> Step {
    let Task { op, batch, capacity, .. } = task;
    let (d, e) = task.widths();
    let mut pool = Pool::new(task);
    let mut buffer = ReplayBuffer::new(capacity, d, e);
    let mut push = move |buffer: &mut ReplayBuffer| {
        let (row, next, act) = pool.turn(1);
        buffer.push_slices(row, next, act, 1.0, false, false).expect("the widths fit");
    };
    for _ in 0..capacity {
        push(&mut buffer);
    }
    match op {
        Op::Add => Step::new(1, move || push(&mut buffer)),
        Op::AddBatch => {
            let (mut pool, rewards, ended) = (Pool::new(task), vec![1.0; batch], vec![false; batch]);
            Step::new(batch, move || {
                let (rows, next, act) = pool.turn(batch);
                buffer.push_batch(rows, next, act, &rewards, &ended, &ended).expect("the widths fit");
            })
        }
        _ => {
            let mut seed = 0;
            Step::new(batch, move || {
                seed += 1;
                black_box(buffer.sample(batch, seed).expect("it is full"));
            })
        }
    }
}
