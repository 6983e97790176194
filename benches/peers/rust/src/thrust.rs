//! thrust-rl's `ReplayBuffer`, `ContinuousReplayBuffer` and `PrioritizedReplayBuffer`. None of them inserts several rows
//! with one call: there it is a loop. The prioritized one stores a discrete action, with mujoco's observations too.

use crate::{ALPHA, BETA, Cannot, Numbers, Op, POOL, Step, Task, Workload};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::hint::black_box;
use thrust_rl::buffer::replay::{
    ContinuousReplayBuffer, PrioritizedReplayBuffer, ReplayBuffer, sample, sample_continuous,
};

pub fn step(task: Task) -> Result<Step, Cannot> {
    let Task { op, batch, capacity, .. } = task;
    let (d, e) = task.widths();
    let mut rng = SmallRng::seed_from_u64(1);
    match task.workload {
        Workload::Atari => Err("it stores f32 observations only"),
        _ if op.prioritized() => {
            let mut buffer = PrioritizedReplayBuffer::new(capacity, d, ALPHA, 1e-6);
            let mut insert = inserts(d, e, |buffer: &mut PrioritizedReplayBuffer, row, _, next, ended| {
                buffer.push(row, 1, 1.0, next, ended);
            });
            insert(&mut buffer, capacity);
            let magnitudes = task.magnitudes();
            buffer.update_priorities(&(0..capacity).collect::<Vec<_>>(), &magnitudes);
            Ok(Step::new(batch, move || {
                let drawn = buffer.sample(batch, BETA, &mut rng);
                if op == Op::PrioritizedUpdate {
                    buffer.update_priorities(&drawn.indices, &magnitudes[..batch]);
                }
                black_box(&drawn);
            }))
        }
        Workload::Small => Ok(plain(
            task,
            ReplayBuffer::new(capacity, d),
            inserts(d, e, |buffer: &mut ReplayBuffer, row, _, next, ended| {
                buffer.push(row, 1, 1.0, next, ended)
            }),
            move |buffer| drop(black_box(sample(buffer, batch, &mut rng))),
        )),
        Workload::Mujoco => Ok(plain(
            task,
            ContinuousReplayBuffer::new(capacity, d, e),
            inserts(d, e, |buffer: &mut ContinuousReplayBuffer, row, act, next, ended| {
                buffer.push(row, act, 1.0, next, ended);
            }),
            move |buffer| drop(black_box(sample_continuous(buffer, batch, &mut rng))),
        )),
    }
}

/// Inserts as many rows as it is told to, out of a pool.
fn inserts<B>(
    d: usize,
    e: usize,
    push: impl Fn(&mut B, &[f32], &[f32], &[f32], bool),
) -> impl FnMut(&mut B, usize) {
    let obs: Vec<f32> = Numbers(7).take((POOL + 1) * d).collect();
    let act: Vec<f32> = Numbers(8).take(POOL * e).collect();
    let mut k = 0;
    move |buffer, count| {
        for _ in 0..count {
            let i = k % POOL;
            k += 1;
            push(buffer, &obs[i * d..][..d], &act[i * e..][..e], &obs[(i + 1) * d..][..d], i % 256 == 255);
        }
    }
}

fn plain<B: 'static>(
    task: Task,
    mut buffer: B,
    mut insert: impl FnMut(&mut B, usize) + 'static,
    mut draw: impl FnMut(&B) + 'static,
) -> Step {
    insert(&mut buffer, task.capacity);
    match task.op {
        Op::Add => Step::new(1, move || insert(&mut buffer, 1)),
        Op::AddBatch => Step::new(task.batch, move || insert(&mut buffer, task.batch)),
        _ => Step::new(task.batch, move || draw(&buffer)),
    }
}
