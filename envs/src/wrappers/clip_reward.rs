//! Rewards cut to an interval.

use super::{inner, pass_on, refused};
use crate::{Action, Env, EnvError, ObsMut, Outcome};

/// Cuts each reward to an interval. With −1 and 1 this is what Mnih et al. (2015) do on Atari, whose rewards are whole numbers.
///
/// As Gymnasium's `ClipReward`; a bound that is infinite is none.
#[derive(Clone, Debug)]
pub struct ClipReward<E> {
    env: E,
    low: f64,
    high: f64,
}

impl<E: Env> ClipReward<E> {
    /// `env` with rewards in `low` to `high`.
    ///
    /// # Errors
    /// [`EnvError::Wrapper`] unless `low` is at most `high`; NaN is neither.
    pub fn new(env: E, low: f64, high: f64) -> Result<Self, EnvError> {
        if low <= high {
            Ok(Self { env, low, high })
        } else {
            Err(refused("ClipReward", env.spec(), format!("{low} to {high} is no interval")))
        }
    }

    inner!("The environment inside.", "The environment inside, to be changed.");
}

impl<E: Env> Env for ClipReward<E> {
    pass_on!(spec, reset, state, scene);

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        let outcome = self.env.step(action, obs)?;
        Ok(Outcome { reward: outcome.reward.clamp(self.low, self.high), ..outcome })
    }
}
