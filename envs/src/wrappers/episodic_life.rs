//! A life as an episode.

use super::{Arcade, inner, pass_on};
use crate::{Action, Env, EnvError, ObsMut, Outcome};
use serde::{Deserialize, Serialize};

/// Ends the episode when a life is lost, so that its value does not reach beyond; the game goes on with the next one.
///
/// As `EpisodicLifeEnv` of OpenAI Baselines and Stable-Baselines3: a step that costs a life, but not the last one, is
/// `terminated`. The reset after it does nothing for one frame and goes on from there. A reset with a seed always starts the
/// game anew, for it promises the same episode every time. Mean returns are then those of lives and not of games: evaluate
/// without it.
#[derive(Clone, Debug)]
pub struct EpisodicLife<E> {
    env: E,
    state: State,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct State {
    lives: u32,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// The game is over, or was never begun.
    Over,
    Running,
    /// A life was lost with the last step.
    Lost,
}

impl<E: Arcade> EpisodicLife<E> {
    /// `env` with an episode a life.
    pub fn new(env: E) -> Self {
        Self { env, state: State { lives: 0, phase: Phase::Over } }
    }

    inner!("The game inside.", "The game inside, to be changed.");
}

impl<E: Arcade> Env for EpisodicLife<E> {
    pass_on!(spec, scene);
    pass_on!(state with state);

    fn reset(&mut self, seed: Option<u64>, mut obs: ObsMut<'_>) -> Result<(), EnvError> {
        let mut over = seed.is_some() || self.state.phase == Phase::Over;
        if !over {
            over = self.env.step(Action::Discrete(0), obs.reborrow())?.ended();
        }
        if over {
            self.env.reset(seed, obs)?;
        }
        self.state = State { lives: self.env.lives(), phase: Phase::Running };
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        if self.state.phase == Phase::Lost {
            return Err(EnvError::Ended { env: self.spec().id.clone() });
        }
        let mut outcome = self.env.step(action, obs)?;
        let lives = self.env.lives();
        let lost = 0 < lives && lives < self.state.lives;
        self.state = State {
            lives,
            phase: match (outcome.ended(), lost) {
                (true, _) => Phase::Over,
                (false, true) => Phase::Lost,
                (false, false) => Phase::Running,
            },
        };
        outcome.terminated |= lost;
        Ok(outcome)
    }
}
