//! Episodes cut off after a number of steps.

use crate::episode::{decode, encode};
use crate::{Action, Env, EnvError, EnvSpec, ObsMut, Outcome, Scene};

/// Truncates an environment's episodes after a number of steps.
///
/// As in Gymnasium the last allowed step is truncated whether or not it also terminates.
#[derive(Clone, Debug)]
pub struct TimeLimit<E> {
    env: E,
    spec: EnvSpec,
    limit: u32,
    elapsed: u32,
}

impl<E: Env> TimeLimit<E> {
    /// `env` with episodes of at most `limit` steps, and a spec that says so.
    ///
    /// # Panics
    /// When `limit` is 0: there is no episode without a step.
    pub fn new(env: E, limit: u32) -> Self {
        assert!(limit > 0, "an episode of {} needs at least one step; the limit given is 0", env.spec().id);
        let spec = EnvSpec { max_episode_steps: Some(limit), ..env.spec().clone() };
        Self { env, spec, limit, elapsed: 0 }
    }

    /// Steps taken since the last reset.
    pub fn elapsed(&self) -> u32 {
        self.elapsed
    }

    /// The environment inside.
    pub fn inner(&self) -> &E {
        &self.env
    }

    /// The environment inside, to change its state. Steps taken there are not counted.
    pub fn inner_mut(&mut self) -> &mut E {
        &mut self.env
    }
}

impl<E: Env> Env for TimeLimit<E> {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        self.env.reset(seed, obs)?;
        self.elapsed = 0;
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        // The environment inside knows of its own end, but not of this one.
        if self.elapsed >= self.limit {
            return Err(EnvError::Ended { env: self.spec.id.clone() });
        }
        let mut outcome = self.env.step(action, obs)?;
        self.elapsed += 1;
        outcome.truncated |= self.elapsed >= self.limit;
        Ok(outcome)
    }

    fn save(&self) -> Vec<u8> {
        encode(&self.spec, &(self.elapsed, self.env.save()))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        let (elapsed, inner): (u32, Vec<u8>) = decode(&self.spec, bytes)?;
        self.env.load(&inner)?;
        self.elapsed = elapsed;
        Ok(())
    }

    fn scene(&self) -> Option<Scene> {
        self.env.scene()
    }
}
