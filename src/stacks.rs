//! What agents see of environments: the last observations of each, stacked.

use rl_envs::{EnvSpec, Obs, Space, VecEnv};
use rl_learn::{Dtype, Kind, StateError, StateVisitor, Tensor};

/// The last k observations of each of some environments, the oldest first. Before an episode's first one stands that one again, as in
/// Gymnasium's `FrameStackObservation`, and as [`FramePadding::Repeat`](rl_replay::FramePadding) has it in the replay buffer, which puts
/// stacks together anew from observations stored once.
///
/// With k = 1 nothing is kept: an observation is what the environment shows.
#[derive(Debug)]
pub struct Stacks {
    k: usize,
    kind: Kind,
    /// `[E, k, …]`, or `[E, …]` where k is 1.
    shape: Vec<i64>,
    /// Bytes of one observation.
    each: usize,
    /// All stacks, where k is more than 1.
    bytes: Vec<u8>,
}

impl Stacks {
    /// For `envs` environments of `spec`, zeros until they [begin](Self::begin).
    pub fn new(spec: &EnvSpec, envs: usize, k: usize) -> Self {
        let kind = match spec.observation.dtype() {
            rl_envs::Dtype::F32 => Kind::Float,
            rl_envs::Dtype::U8 => Kind::Uint8,
        };
        let mut shape = vec![envs as i64];
        shape.extend((k > 1).then_some(k as i64));
        if let Space::Box { shape: each, .. } = &spec.observation {
            shape.extend(each.iter().map(|&d| d as i64));
        }
        let each = spec.observation.elements() * kind.elt_size_in_bytes();
        let bytes = if k > 1 { vec![0; envs * k * each] } else { Vec::new() };
        Self { k, kind, shape, each, bytes }
    }

    /// Environment `env` has begun an episode with the observation `first`.
    pub fn begin(&mut self, env: usize, first: &[u8]) {
        self.of(env).chunks_exact_mut(first.len()).for_each(|place| place.copy_from_slice(first));
    }

    /// Environment `env` has shown the observation `next` after those that it has shown.
    pub fn push(&mut self, env: usize, next: &[u8]) {
        let stack = self.of(env);
        if let Some(last) = stack.len().checked_sub(next.len()) {
            stack.copy_within(next.len().., 0);
            stack[last..].copy_from_slice(next);
        }
    }

    /// All of `envs` have been reset.
    pub fn begin_all(&mut self, envs: &VecEnv) {
        (0..envs.len()).for_each(|env| self.begin(env, row(envs.observations(), env, self.each)));
    }

    /// All of `envs` have made a step, and those that ended an episode with it have begun the next.
    pub fn follow(&mut self, envs: &VecEnv) {
        for (env, outcome) in envs.outcomes().iter().enumerate() {
            let shown = row(envs.observations(), env, self.each);
            let begins = outcome.ended() || envs.skipped(env);
            if begins { self.begin(env, shown) } else { self.push(env, shown) }
        }
    }

    /// What to act on, `[E, k, …]`, or `[E, …]` where k is 1, on the CPU. `shown` is what all environments show now.
    pub fn observations(&self, shown: Obs<'_>) -> Tensor {
        let bytes = if self.k == 1 { bytes(shown) } else { &self.bytes };
        Tensor::from_data_size(bytes, &self.shape, self.kind)
    }

    /// Shows the stacks; nothing where k is 1.
    ///
    /// # Errors
    /// Those of the visitor.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        if self.k == 1 {
            return Ok(());
        }
        let dtype = if self.kind == Kind::Float { Dtype::F32 } else { Dtype::U8 };
        let shape: Vec<usize> = self.shape.iter().map(|&d| d as usize).collect();
        visitor.array("stacks", dtype, &shape, &mut self.bytes)
    }

    /// The stack of one environment; empty where k is 1.
    fn of(&mut self, env: usize) -> &mut [u8] {
        let stack = if self.k == 1 { 0 } else { self.k * self.each };
        &mut self.bytes[env * stack..][..stack]
    }
}

/// Observations as bytes, in native byte order.
pub fn bytes(obs: Obs<'_>) -> &[u8] {
    match obs {
        Obs::F32(values) => bytemuck::cast_slice(values),
        Obs::U8(values) => values,
    }
}

/// The observation of environment `env` among those of all, of `each` bytes.
pub fn row(obs: Obs<'_>, env: usize, each: usize) -> &[u8] {
    &bytes(obs)[env * each..][..each]
}
