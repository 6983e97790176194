//! Actions between bounds of one's own.

use super::{inner, pass_on, refused};
use crate::{Action, Dtype, Env, EnvError, EnvSpec, ObsMut, Outcome, Space};

/// Takes actions between other bounds and maps them linearly to those of the environment.
///
/// As Gymnasium's `RescaleAction`, with its arithmetic in f32: action′ = (action − intercept) / gradient, both rounded once.
/// What lies outside the bounds is mapped to outside.
#[derive(Clone, Debug)]
pub struct RescaleAction<E> {
    env: E,
    spec: EnvSpec,
    gradient: Vec<f32>,
    intercept: Vec<f32>,
    /// The mapped action.
    mapped: Vec<f32>,
}

impl<E: Env> RescaleAction<E> {
    /// `env` with every action value in `low` to `high`.
    ///
    /// # Errors
    /// [`EnvError::Wrapper`] unless the environment's actions are a box with finite bounds, and `low` is less than `high` and
    /// both are finite.
    pub fn new(env: E, low: f32, high: f32) -> Result<Self, EnvError> {
        let refused = |why: String| refused("RescaleAction", env.spec(), why);
        if !(low < high && low.is_finite() && high.is_finite()) {
            return Err(refused(format!("{low} to {high} is no range to rescale from")));
        }
        let Space::Box { low: inner_low, high: inner_high, shape, .. } = &env.spec().action else {
            return Err(refused(format!("it rescales boxes, not {}", env.spec().action)));
        };
        let bounds = inner_low.iter().zip(inner_high);
        if let Some((from, to)) = bounds.clone().find(|(from, to)| !(from < to && (*to - *from).is_finite()))
        {
            return Err(refused(format!("an action value from {from} to {to} cannot be rescaled")));
        }
        let [wide_low, wide_high] = [low, high].map(f64::from);
        let gradient: Vec<f32> = bounds
            .map(|(from, to)| ((wide_high - wide_low) / (f64::from(*to) - f64::from(*from))) as f32)
            .collect();
        // The product in f32 and the sum in f64, as NumPy's promotion has it there.
        let intercept = gradient
            .iter()
            .zip(inner_low)
            .map(|(gradient, from)| (f64::from(gradient * -from) + wide_low) as f32)
            .collect();
        let elements = gradient.len();
        let action = Space::Box {
            dtype: Dtype::F32,
            low: vec![low; elements],
            high: vec![high; elements],
            shape: shape.clone(),
        };
        let spec = EnvSpec { action, ..env.spec().clone() };
        Ok(Self { env, spec, gradient, intercept, mapped: vec![0.0; elements] })
    }

    inner!("The environment inside.", "The environment inside, to be changed.");
}

impl<E: Env> Env for RescaleAction<E> {
    pass_on!(reset, state, scene);

    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        let values = action.values(&self.spec)?;
        let maps = self.intercept.iter().zip(&self.gradient);
        for ((mapped, value), (intercept, gradient)) in self.mapped.iter_mut().zip(values).zip(maps) {
            *mapped = (value - intercept) / gradient;
        }
        self.env.step(Action::Box(&self.mapped), obs)
    }
}
