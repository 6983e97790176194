//! Rewards cut to an interval.

use super::refused;
use crate::episode::{decode, encode};
use crate::{Action, Env, EnvError, EnvSpec, ObsMut, Outcome, Scene};

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

    /// The environment inside.
    pub fn inner(&self) -> &E {
        &self.env
    }

    /// The environment inside, to be changed.
    pub fn inner_mut(&mut self) -> &mut E {
        &mut self.env
    }
}

impl<E: Env> Env for ClipReward<E> {
    fn spec(&self) -> &EnvSpec {
        self.env.spec()
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        self.env.reset(seed, obs)
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        let outcome = self.env.step(action, obs)?;
        Ok(Outcome { reward: outcome.reward.clamp(self.low, self.high), ..outcome })
    }

    fn save(&self) -> Vec<u8> {
        encode(self.spec(), &self.env.save())
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        let inner: Vec<u8> = decode(self.spec(), bytes)?;
        self.env.load(&inner)
    }

    fn scene(&self) -> Option<Scene> {
        self.env.scene()
    }
}
