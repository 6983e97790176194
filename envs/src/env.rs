//! What an environment is.

use crate::{Action, EnvError, ObsMut, Scene, Space};
use serde::{Deserialize, Serialize};

/// What is known of an environment before it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct EnvSpec {
    /// Name and version, as in Gymnasium: `CartPole-v1`.
    pub id: String,
    /// What observations look like.
    pub observation: Space,
    /// What actions look like.
    pub action: Space,
    /// Steps after which [`make`](crate::make) truncates an episode; `None` for no limit.
    pub max_episode_steps: Option<u32>,
    /// The undiscounted return, averaged over episodes, at which the task counts as solved; `None` where nobody set one.
    pub reward_threshold: Option<f64>,
}

/// What a step brought, besides the observation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The reward. In f64, as environments compute it, so that returns of long episodes add up without rounding; a
    /// learner rounds it to f32 when it stores it.
    pub reward: f64,
    /// The episode ended in a state without a future: the value after it is zero.
    pub terminated: bool,
    /// The episode was cut off, by a time limit for example: the value after it is that of the final observation. A step
    /// can be both, when the last allowed one terminates.
    pub truncated: bool,
}

impl Outcome {
    /// Whether the episode is over, either way.
    pub fn ended(&self) -> bool {
        self.terminated || self.truncated
    }
}

/// A world with episodes.
///
/// The order of calls is reset, then steps until one [ended](Outcome::ended), then reset again. Observations go to
/// memory of the caller's, which must have the dtype and element count of `spec().observation`. A call that fails leaves
/// the environment as it was.
pub trait Env: Send {
    /// Name, spaces and limits.
    fn spec(&self) -> &EnvSpec;

    /// Starts an episode and writes its first observation to `obs`.
    ///
    /// With a seed the random generator starts anew from it, and the episodes that follow are the same every time. With
    /// `None` it goes on as it is; that of a new environment is seeded by the operating system.
    ///
    /// # Errors
    /// [`EnvError::Buffer`] when `obs` does not fit.
    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError>;

    /// Advances the episode by one step of the agent's and writes the observation it leads to into `obs`, also when the
    /// episode ends with it.
    ///
    /// # Errors
    /// [`EnvError::Action`] for an action that [`Action::check`] refuses, [`EnvError::NotReset`] before the first reset,
    /// [`EnvError::Ended`] after the episode's end, and [`EnvError::Buffer`] when `obs` does not fit.
    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError>;

    /// The whole state as bytes: physics, random generator, and how far the episode has come. What is
    /// [loaded](Env::load) from it continues bit for bit.
    fn save(&self) -> Vec<u8>;

    /// Goes back to a saved state.
    ///
    /// # Errors
    /// [`EnvError::Saved`] when the bytes are not from [`save`](Env::save) of the same kind of environment.
    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError>;

    /// A drawing of the present state; `None` when the environment cannot be drawn.
    fn scene(&self) -> Option<Scene>;

    /// The same drawing, or why there is none.
    ///
    /// # Errors
    /// [`EnvError::NoDrawing`]; of a Python environment what it says.
    fn draw(&self) -> Result<Scene, EnvError> {
        self.scene().ok_or_else(|| EnvError::NoDrawing { env: self.spec().id.clone() })
    }
}

/// A boxed environment is an environment, so that wrappers also go around those of [`make`](crate::make).
impl<E: Env + ?Sized> Env for Box<E> {
    fn spec(&self) -> &EnvSpec {
        (**self).spec()
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        (**self).reset(seed, obs)
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        (**self).step(action, obs)
    }

    fn save(&self) -> Vec<u8> {
        (**self).save()
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        (**self).load(bytes)
    }

    fn scene(&self) -> Option<Scene> {
        (**self).scene()
    }

    fn draw(&self) -> Result<Scene, EnvError> {
        (**self).draw()
    }
}
