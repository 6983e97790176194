//! border-core's `SimpleReplayBuffer`. It leaves the storage of rows to its user; the one here is a plain `Vec`.

use crate::{ALPHA, BETA, Cannot, Op, Step, Task, Workload};
use border_core::generic_replay_buffer::{
    BatchBase, GenericTransitionBatch, PerConfig, SimpleReplayBuffer, SimpleReplayBufferConfig,
    WeightNormalizer,
};
use border_core::{ExperienceBufferBase, ReplayBufferBase};
use std::hint::black_box;

pub fn step(task: Task) -> Result<Step, Cannot> {
    Ok(match task.workload {
        Workload::Small => of::<f32, i64, 4, 1>(task),
        Workload::Mujoco => of::<f32, f32, 17, 6>(task),
        Workload::Atari => of::<u8, i64, { 4 * 84 * 84 }, 1>(task),
    })
}

/// Rows of `D` numbers, one after the other.
struct Rows<T, const D: usize>(Vec<T>);

impl<T: Copy + Default, const D: usize> BatchBase for Rows<T, D> {
    fn new(capacity: usize) -> Self {
        Self(vec![T::default(); capacity * D])
    }

    fn push(&mut self, at: usize, data: Self) {
        let capacity = self.0.len() / D;
        for (row, values) in data.0.chunks_exact(D).enumerate() {
            self.0[(at + row) % capacity * D..][..D].copy_from_slice(values);
        }
    }

    fn sample(&self, rows: &Vec<usize>) -> Self {
        let mut values = Vec::with_capacity(rows.len() * D);
        rows.iter().for_each(|row| values.extend_from_slice(&self.0[row * D..][..D]));
        Self(values)
    }
}

fn of<O, A, const D: usize, const E: usize>(task: Task) -> Step
where
    O: Copy + Default + From<u8> + 'static,
    A: Copy + Default + From<u8> + 'static,
{
    let Task { op, batch, capacity, .. } = task;
    // What an insert takes is given away, so that making it is part of the insert.
    let rows = |count: usize| GenericTransitionBatch::<Rows<O, D>, Rows<A, E>> {
        obs: Rows(vec![O::from(1); count * D]),
        act: Rows(vec![A::from(1); count * E]),
        next_obs: Rows(vec![O::from(1); count * D]),
        reward: vec![1.0; count],
        is_terminated: vec![0; count],
        is_truncated: vec![0; count],
        weight: None,
        ix_sample: None,
    };
    let mut config = SimpleReplayBufferConfig::default().capacity(capacity).seed(1);
    if op.prioritized() {
        let beta = PerConfig::default().alpha(ALPHA).beta_0(BETA).beta_final(BETA).n_opts_final(1);
        config = config.per_config(Some(beta.normalize(WeightNormalizer::All)));
    }
    let mut buffer = SimpleReplayBuffer::<Rows<O, D>, Rows<A, E>>::build(&config);
    let chunk = if D > 1000 { 64 } else { 4096 };
    for start in (0..capacity).step_by(chunk) {
        buffer.push(rows(chunk.min(capacity - start))).expect("there is room");
    }
    if op.prioritized() {
        buffer.update_priority(&Some((0..capacity).collect()), &Some(task.magnitudes()));
    }
    let magnitudes = Some(task.magnitudes()[..batch.min(capacity)].to_vec());
    match op {
        Op::Add => Step::new(1, move || buffer.push(rows(1)).expect("there is room")),
        Op::AddBatch => Step::new(batch, move || buffer.push(rows(batch)).expect("there is room")),
        Op::Uniform | Op::Prioritized => Step::new(batch, move || {
            black_box(buffer.batch(batch).expect("it is full"));
        }),
        Op::PrioritizedUpdate => Step::new(batch, move || {
            let drawn = buffer.batch(batch).expect("it is full");
            buffer.update_priority(&drawn.ix_sample, &magnitudes);
            black_box(&drawn); // all of it, or the compiler leaves out what nobody reads
        }),
    }
}
