//! Observations without a shape.

use super::{inner, pass_on};
use crate::{Action, Dtype, Env, EnvError, EnvSpec, ObsMut, Outcome, Space};

/// Observations as vectors: a box of any shape as its elements in row-major order, of the same element type; one of `n`
/// numbers as `n` f32, of which one is 1; switches as bytes, 0 or 1.
///
/// As Gymnasium's `FlattenObservation`, which writes a number as integers where this writes f32.
#[derive(Clone, Debug)]
pub struct FlattenObservation<E> {
    env: E,
    spec: EnvSpec,
}

impl<E: Env> FlattenObservation<E> {
    /// `env` with observations `[n]`.
    pub fn new(env: E) -> Self {
        let unit =
            |dtype, n: usize| Space::Box { dtype, low: vec![0.0; n], high: vec![1.0; n], shape: vec![n] };
        let observation = match &env.spec().observation {
            Space::Box { dtype, low, high, .. } => {
                Space::Box { dtype: *dtype, low: low.clone(), high: high.clone(), shape: vec![low.len()] }
            }
            Space::Discrete { n } => unit(Dtype::F32, *n),
            Space::MultiBinary { n } => unit(Dtype::U8, *n),
        };
        let spec = EnvSpec { observation, ..env.spec().clone() };
        Self { env, spec }
    }

    inner!("The environment inside.", "The environment inside, to be changed.");

    /// Has `write` observe into `obs`, flattened.
    fn flat<T>(
        &mut self,
        obs: ObsMut<'_>,
        write: impl FnOnce(&mut E, ObsMut<'_>) -> Result<T, EnvError>,
    ) -> Result<T, EnvError> {
        if !matches!(self.env.spec().observation, Space::Discrete { .. }) {
            // The same elements in the same order: only the shape is another.
            return write(&mut self.env, obs);
        }
        let out = obs.f32(&self.spec)?;
        let mut number = [0.0];
        let written = write(&mut self.env, ObsMut::F32(&mut number))?;
        out.fill(0.0);
        if let Some(place) = out.get_mut(number[0] as usize) {
            *place = 1.0;
        }
        Ok(written)
    }
}

impl<E: Env> Env for FlattenObservation<E> {
    pass_on!(state, scene);

    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        self.flat(obs, |env, obs| env.reset(seed, obs))
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        self.flat(obs, |env, obs| env.step(action, obs))
    }
}
