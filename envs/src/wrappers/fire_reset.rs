//! Games that stand still until a button is pressed.

use super::{Arcade, refused};
use crate::episode::{decode, encode};
use crate::{Action, Env, EnvError, EnvSpec, ObsMut, Outcome, Scene};

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

    /// The game inside.
    pub fn inner(&self) -> &E {
        &self.env
    }

    /// The game inside, to be changed.
    pub fn inner_mut(&mut self) -> &mut E {
        &mut self.env
    }
}

impl<E: Arcade> Env for FireReset<E> {
    fn spec(&self) -> &EnvSpec {
        self.env.spec()
    }

    fn reset(&mut self, seed: Option<u64>, mut obs: ObsMut<'_>) -> Result<(), EnvError> {
        self.env.reset(seed, obs.reborrow())?;
        for button in [1, 2] {
            if self.env.step(Action::Discrete(button), obs.reborrow())?.ended() {
                self.env.reset(None, obs.reborrow())?;
            }
        }
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        self.env.step(action, obs)
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

impl<E: Arcade> Arcade for FireReset<E> {
    fn lives(&self) -> u32 {
        self.env.lives()
    }

    fn action_meanings(&self) -> &[&str] {
        self.env.action_meanings()
    }
}
