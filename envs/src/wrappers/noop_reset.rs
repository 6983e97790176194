//! Starts that differ.

use super::{Arcade, inner, pass_on, refused};
use crate::{Action, Env, EnvError, ObsMut};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// Does nothing for a random number of frames when an episode starts, so that games that always start alike do not.
///
/// After Mnih et al. (2015), as in Gymnasium's `AtariPreprocessing`: from 1 to `max` frames, uniformly, 30 at most by custom.
/// Should the episode end meanwhile, it is reset and the rest of the frames follow. A seed of
/// [`reset`](Env::reset) also starts the generator of these numbers anew.
#[derive(Clone, Debug)]
pub struct NoopReset<E> {
    env: E,
    max: u32,
    generator: Xoshiro256PlusPlus,
}

/// Keeps the numbers here apart from those that the game draws from the same seed.
const STREAM: u64 = 0x6e6f_6f70;

impl<E: Arcade> NoopReset<E> {
    /// `env`, started with 1 to `max` frames without a button pressed.
    ///
    /// # Errors
    /// [`EnvError::Wrapper`] when `max` is 0, or action 0 is not NOOP.
    pub fn new(env: E, max: u32) -> Result<Self, EnvError> {
        if max == 0 {
            return Err(refused("NoopReset", env.spec(), "it needs at least 1 frame; 0 were given"));
        }
        if env.action_meanings().first() != Some(&"NOOP") {
            let why = format!("action 0 must be NOOP; they are {}", env.action_meanings().join(", "));
            return Err(refused("NoopReset", env.spec(), why));
        }
        Ok(Self { env, max, generator: rand::make_rng() })
    }

    inner!("The game inside.", "The game inside, to be changed.");
}

impl<E: Arcade> Env for NoopReset<E> {
    pass_on!(spec, step, scene);
    pass_on!(state with generator);

    fn reset(&mut self, seed: Option<u64>, mut obs: ObsMut<'_>) -> Result<(), EnvError> {
        self.env.reset(seed, obs.reborrow())?;
        if let Some(seed) = seed {
            self.generator = Xoshiro256PlusPlus::seed_from_u64(seed ^ STREAM);
        }
        for _ in 0..self.generator.random_range(1..=self.max) {
            if self.env.step(Action::Discrete(0), obs.reborrow())?.ended() {
                self.env.reset(None, obs.reborrow())?;
            }
        }
        Ok(())
    }
}
