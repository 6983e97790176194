//! Games that stand still until a button is pressed.

use super::{Arcade, inner, pass_on, refused};
use crate::{Action, Env, EnvError, ObsMut};

/// Presses FIRE, and then the button after it, when an episode starts, for games in which nothing happens before.
///
/// As `FireResetEnv` of OpenAI Baselines and Stable-Baselines3: action 1, then action 2; should the episode end with one of
/// these, it is reset and the next button is pressed.
#[derive(Clone, Debug)]
pub struct FireReset<E> {
    env: E,
}

impl<E: Arcade> FireReset<E> {
    /// `env`, started by pressing FIRE.
    ///
    /// # Errors
    /// [`EnvError::Wrapper`] unless action 1 is FIRE and there are at least three actions.
    pub fn new(env: E) -> Result<Self, EnvError> {
        let meanings = env.action_meanings();
        if meanings.len() >= 3 && meanings[1] == "FIRE" {
            return Ok(Self { env });
        }
        let why = format!("action 1 must be FIRE, of at least 3 actions; they are {}", meanings.join(", "));
        Err(refused("FireReset", env.spec(), why))
    }

    inner!("The game inside.", "The game inside, to be changed.");
}

impl<E: Arcade> Env for FireReset<E> {
    pass_on!(spec, step, state, scene);

    fn reset(&mut self, seed: Option<u64>, mut obs: ObsMut<'_>) -> Result<(), EnvError> {
        self.env.reset(seed, obs.reborrow())?;
        for button in [1, 2] {
            if self.env.step(Action::Discrete(button), obs.reborrow())?.ended() {
                self.env.reset(None, obs.reborrow())?;
            }
        }
        Ok(())
    }
}
