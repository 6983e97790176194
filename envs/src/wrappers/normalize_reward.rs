//! Rewards scaled by the spread of returns.

use super::{RunningMeanStd, inner, pass_on, refused};
use crate::episode::{decode, encode};
use crate::{Action, Env, EnvError, ObsMut, Outcome};

/// Divides rewards by the standard deviation of a running discounted return.
///
/// As Gymnasium's `NormalizeReward`, in all: the return R ← γ·R·(1 − terminated) + reward goes into the running variance with
/// every step, before the step's reward is divided by √(variance + ε); nothing is subtracted. R is carried on over truncated
/// episodes. Each wrapped environment has statistics of its own.
///
/// The statistics are part of what is [saved](Env::save). [Freeze](Self::set_frozen) them for an evaluation, or evaluate without this
/// wrapper: returns then mean what they say.
#[derive(Clone, Debug)]
pub struct NormalizeReward<E> {
    env: E,
    gamma: f64,
    epsilon: f64,
    running: RunningMeanStd,
    discounted: f64,
    frozen: bool,
}

impl<E: Env> NormalizeReward<E> {
    /// `env` with rewards scaled by the spread of returns discounted with `gamma` (Gymnasium's is 0.99); `epsilon`
    /// (Gymnasium's is 10⁻⁸) is added to the variance.
    ///
    /// # Errors
    /// [`EnvError::Wrapper`] unless `gamma` is from 0 to 1 and `epsilon` greater than 0.
    pub fn new(env: E, gamma: f64, epsilon: f64) -> Result<Self, EnvError> {
        if !(0.0..=1.0).contains(&gamma) || epsilon.is_nan() || epsilon <= 0.0 {
            let why = format!(
                "gamma must be from 0 to 1 and epsilon greater than 0; {gamma} and {epsilon} were given"
            );
            return Err(refused("NormalizeReward", env.spec(), why));
        }
        Ok(Self { env, gamma, epsilon, running: RunningMeanStd::new(1), discounted: 0.0, frozen: false })
    }

    /// Whether the statistics stay as they are.
    pub fn frozen(&self) -> bool {
        self.frozen
    }

    /// Lets the statistics stay as they are, as an evaluation should, or go on.
    pub fn set_frozen(&mut self, frozen: bool) {
        self.frozen = frozen;
    }

    /// The statistics of the discounted return.
    pub fn running(&self) -> &RunningMeanStd {
        &self.running
    }

    /// Goes on with these statistics.
    ///
    /// # Panics
    /// When they are not of single numbers.
    pub fn set_running(&mut self, running: RunningMeanStd) {
        assert_eq!(running.mean().len(), 1, "statistics of single numbers are expected");
        self.running = running;
    }

    inner!("The environment inside, whose rewards are raw.", "The environment inside, to be changed.");
}

impl<E: Env> Env for NormalizeReward<E> {
    pass_on!(spec, reset, scene);

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        let outcome = self.env.step(action, obs)?;
        let carried = if outcome.terminated { 0.0 } else { self.discounted * self.gamma };
        self.discounted = carried + outcome.reward;
        if !self.frozen {
            self.running.update(&[self.discounted]);
        }
        let reward = outcome.reward / (self.running.variance()[0] + self.epsilon).sqrt();
        Ok(Outcome { reward, ..outcome })
    }

    fn save(&self) -> Vec<u8> {
        encode(self.spec(), &(&self.running, self.discounted, self.frozen, self.env.save()))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        let (running, discounted, frozen, inner): (RunningMeanStd, f64, bool, Vec<u8>) =
            decode(self.spec(), bytes)?;
        if running.mean().len() != 1 {
            let why = "the statistics are not of a return".to_string();
            return Err(EnvError::Saved { env: self.spec().id.clone(), len: bytes.len(), why });
        }
        self.env.load(&inner)?;
        (self.running, self.discounted, self.frozen) = (running, discounted, frozen);
        Ok(())
    }
}
