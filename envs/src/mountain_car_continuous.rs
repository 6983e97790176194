//! MountainCarContinuous-v0: rock an underpowered car out of a valley, with a throttle.
//!
//! Reference: <https://gymnasium.farama.org/environments/classic_control/mountain_car_continuous/>, after Moore (1990).

use crate::episode::{Episode, decode, encode, state_of};
use crate::mountain_car::valley;
use crate::{Action, Env, EnvError, EnvSpec, ObsMut, Outcome, Scene, Space};
use serde::{Deserialize, Serialize};

/// The left wall and the right end of the world.
const POSITIONS: [f64; 2] = [-1.2, 0.6];
/// Speed limit, position units a step.
const MAX_SPEED: f64 = 0.07;
/// Where the flag stands: not where MountainCar-v0 has it.
const GOAL: f64 = 0.45;
/// The engine's acceleration at full throttle, a step².
const POWER: f64 = 0.0015;
/// The hill's greatest acceleration, a step².
const GRAVITY: f64 = 0.0025;
/// Where the car starts, uniformly, at rest.
const START: [f64; 2] = [-0.6, -0.4];

/// A car in a valley whose engine is weaker than the slope.
///
/// Observation, f32 `[2]`: position, velocity (position units a step). Action, f32 `[1]`: throttle, clipped to ±1. Reward:
/// −0.1·action² each step, of the action before clipping, and 100 more at the flag. Terminates at the flag, position 0.45.
/// The left wall stops the car.
#[derive(Clone, Debug)]
pub struct MountainCarContinuous {
    spec: EnvSpec,
    episode: Episode,
    state: State,
}

/// Position and velocity. The reference computes the first step of an episode in double precision, because its reset
/// leaves f64 values, and every later one in single precision, because its step stores f32 values.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum State {
    Fresh([f64; 2]),
    Stepped([f32; 2]),
}

impl State {
    fn obs(self) -> [f32; 2] {
        match self {
            State::Fresh(state) => state.map(|value| value as f32),
            State::Stepped(state) => state,
        }
    }
}

impl MountainCarContinuous {
    /// Its Gymnasium id.
    pub const ID: &str = "MountainCarContinuous-v0";

    /// A car that waits for its first reset. Without a time limit of its own: [`make`](crate::make) adds that.
    pub fn new() -> Self {
        Self { spec: Self::spec(), episode: Episode::new(), state: State::Fresh([0.0; 2]) }
    }

    /// What is known of it.
    pub fn spec() -> EnvSpec {
        let [low, high] = POSITIONS.map(|bound| bound as f32);
        EnvSpec {
            id: Self::ID.to_string(),
            observation: Space::vector([low, -MAX_SPEED as f32], [high, MAX_SPEED as f32]),
            action: Space::vector([-1.0], [1.0]),
            max_episode_steps: Some(999),
            reward_threshold: Some(90.0),
        }
    }

    /// Begins an episode in `state`: position, velocity. As after a reset, the first step is taken in double precision.
    ///
    /// # Errors
    /// [`EnvError::State`] unless it is two finite numbers.
    pub fn set_state(&mut self, state: &[f64]) -> Result<(), EnvError> {
        self.state = State::Fresh(state_of(&self.spec, state)?);
        self.episode.begin(None);
        Ok(())
    }
}

impl Default for MountainCarContinuous {
    fn default() -> Self {
        Self::new()
    }
}

/// The step from f64 values: everything in double precision but the product of an unclipped f32 action.
fn first_step([position, velocity]: [f64; 2], action: f32) -> [f32; 2] {
    let hill = GRAVITY * (3.0 * position).cos();
    let velocity = (velocity + acceleration(action, hill)).clamp(-MAX_SPEED, MAX_SPEED);
    let position = (position + velocity).clamp(POSITIONS[0], POSITIONS[1]);
    let velocity = if position == POSITIONS[0] && velocity < 0.0 { 0.0 } else { velocity };
    [position as f32, velocity as f32]
}

/// The step from f32 values: single precision but for the cosine.
fn later_step([position, velocity]: [f32; 2], action: f32) -> [f32; 2] {
    let [low, high] = POSITIONS.map(|bound| bound as f32);
    let max_speed = MAX_SPEED as f32;
    let hill = GRAVITY * f64::from(3.0 * position).cos();
    let velocity = (velocity + acceleration(action, hill) as f32).clamp(-max_speed, max_speed);
    let position = (position + velocity).clamp(low, high);
    let velocity = if position == low && velocity < 0.0 { 0.0 } else { velocity };
    [position, velocity]
}

/// Engine less hill. NumPy multiplies and subtracts in the f32 of an action within bounds, while a clipped action is one of
/// the bounds, a Python float, and then everything stays f64.
fn acceleration(action: f32, hill: f64) -> f64 {
    if action.abs() <= 1.0 {
        f64::from(action * POWER as f32 - hill as f32)
    } else {
        f64::from(action.signum()) * POWER - hill
    }
}

impl Env for MountainCarContinuous {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        let obs = obs.f32(&self.spec)?;
        self.episode.begin(seed);
        self.state = State::Fresh([self.episode.uniform(START[0], START[1]), 0.0]);
        obs.copy_from_slice(&self.state.obs());
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        self.episode.check(&self.spec)?;
        let action = action.values(&self.spec)?[0];
        let obs = obs.f32(&self.spec)?;

        let state = match self.state {
            State::Fresh(state) => first_step(state, action),
            State::Stepped(state) => later_step(state, action),
        };
        self.state = State::Stepped(state);

        let terminated = state[0] >= GOAL as f32 && state[1] >= 0.0;
        let fuel = f64::from(action) * f64::from(action) * 0.1;
        let reward = if terminated { 100.0 - fuel } else { -fuel };
        self.episode.advance(terminated);
        obs.copy_from_slice(&state);
        Ok(Outcome { reward, terminated, truncated: false })
    }

    fn save(&self) -> Vec<u8> {
        encode(&self.spec, &(&self.episode, self.state))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        (self.episode, self.state) = decode(&self.spec, bytes)?;
        Ok(())
    }

    fn scene(&self) -> Option<Scene> {
        Some(valley(self.state.obs()[0], GOAL as f32))
    }
}
