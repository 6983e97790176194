//! Episodes cut off after a number of steps.

use crate::wrappers::{inner, pass_on};
use crate::{Action, Env, EnvError, EnvSpec, ObsMut, Outcome};

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

    inner!(
        "The environment inside.",
        "The environment inside, to change its state. Steps taken there are not counted."
    );
}

impl<E: Env> Env for TimeLimit<E> {
    pass_on!(scene);
    pass_on!(state with elapsed);

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
}
