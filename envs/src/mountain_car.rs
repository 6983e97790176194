//! MountainCar-v0: rock an underpowered car out of a valley, with three actions.
//!
//! Reference: <https://gymnasium.farama.org/environments/classic_control/mountain_car/>, after Moore (1990).

use crate::episode::{Episode, decode, encode, state_of};
use crate::{Action, Env, EnvError, EnvSpec, ObsMut, Outcome, Rgb, Scene, Shape, Space};

/// The left wall and the right end of the world.
const POSITIONS: [f64; 2] = [-1.2, 0.6];
/// Speed limit, position units a step.
const MAX_SPEED: f64 = 0.07;
/// Where the flag stands.
const GOAL: f64 = 0.5;
/// The engine's acceleration, a step².
const FORCE: f64 = 0.001;
/// The hill's greatest acceleration, a step².
const GRAVITY: f64 = 0.0025;
/// Where the car starts, uniformly, at rest.
const START: [f64; 2] = [-0.6, -0.4];

/// A car in a valley whose engine is weaker than the slope.
///
/// Observation, f32 `[2]`: position, velocity (position units a step). Action: 0 accelerates left, 1 coasts, 2 accelerates
/// right. Reward: −1 each step. Terminates at the flag, position 0.5. The left wall stops the car.
#[derive(Clone, Debug)]
pub struct MountainCar {
    spec: EnvSpec,
    episode: Episode,
    /// Position and velocity, in f64 as the reference holds them; observations are rounded to f32.
    state: [f64; 2],
}

impl MountainCar {
    /// Its Gymnasium id.
    pub const ID: &str = "MountainCar-v0";

    /// A car that waits for its first reset. Without a time limit of its own: [`make`](crate::make) adds that.
    pub fn new() -> Self {
        Self { spec: Self::spec(), episode: Episode::new(), state: [0.0; 2] }
    }

    /// What is known of it.
    pub fn spec() -> EnvSpec {
        let [low, high] = POSITIONS.map(|bound| bound as f32);
        EnvSpec {
            id: Self::ID.to_string(),
            observation: Space::vector([low, -MAX_SPEED as f32], [high, MAX_SPEED as f32]),
            action: Space::Discrete { n: 3 },
            max_episode_steps: Some(200),
            reward_threshold: Some(-110.0),
        }
    }

    /// Begins an episode in `state`: position, velocity.
    ///
    /// # Errors
    /// [`EnvError::State`] unless it is two finite numbers.
    pub fn set_state(&mut self, state: &[f64]) -> Result<(), EnvError> {
        self.state = state_of(&self.spec, state)?;
        self.episode.begin(None);
        Ok(())
    }
}

impl Default for MountainCar {
    fn default() -> Self {
        Self::new()
    }
}

impl Env for MountainCar {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        let obs = obs.f32(&self.spec)?;
        self.episode.begin(seed);
        self.state = [self.episode.uniform(START[0], START[1]), 0.0];
        obs.copy_from_slice(&self.state.map(|value| value as f32));
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        self.episode.check(&self.spec)?;
        let push = action.discrete(&self.spec)? as f64 - 1.0;
        let obs = obs.f32(&self.spec)?;

        let [mut position, mut velocity] = self.state;
        velocity += push * FORCE + (3.0 * position).cos() * -GRAVITY;
        velocity = velocity.clamp(-MAX_SPEED, MAX_SPEED);
        position = (position + velocity).clamp(POSITIONS[0], POSITIONS[1]);
        if position == POSITIONS[0] && velocity < 0.0 {
            velocity = 0.0;
        }
        self.state = [position, velocity];

        let terminated = position >= GOAL && velocity >= 0.0;
        self.episode.advance(terminated);
        obs.copy_from_slice(&self.state.map(|value| value as f32));
        Ok(Outcome { reward: -1.0, terminated, truncated: false })
    }

    fn save(&self) -> Vec<u8> {
        encode(&self.spec, &(&self.episode, self.state))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        (self.episode, self.state) = decode(&self.spec, bytes)?;
        Ok(())
    }

    fn scene(&self) -> Option<Scene> {
        Some(valley(self.state[0] as f32, GOAL as f32))
    }
}

/// The drawing of both mountain cars: the hills, the car at `position`, and the flag at `goal`.
pub(crate) fn valley(position: f32, goal: f32) -> Scene {
    const SEGMENTS: usize = 100;
    let (width, height) = (600.0, 400.0);
    let [left, right] = POSITIONS.map(|bound| bound as f32);
    let scale = width / (right - left);
    let place = |x: f32| [(x - left) * scale, ((3.0 * x).sin() * 0.45 + 0.55) * scale];
    let (black, gray) = (Rgb(0, 0, 0), Rgb(128, 128, 128));

    let hills = (0..=SEGMENTS).map(|i| place(left + (right - left) * i as f32 / SEGMENTS as f32)).collect();
    // The reference tilts the car by the cosine itself and not by the slope's angle; it looks right, and is kept.
    let tilt = (3.0 * position).cos();
    let (sin, cos) = tilt.sin_cos();
    let [x, y] = place(position);
    let ground = [x, y + 10.0];
    let body = Shape::bar([ground[0] - 10.0 * sin, ground[1] + 10.0 * cos], tilt, -20.0, 20.0, 10.0, black);
    let wheel = |along: f32| Shape::Circle {
        center: [ground[0] + along * cos, ground[1] + along * sin],
        radius: 8.0,
        color: gray,
    };
    let [flag, foot] = place(goal);
    let top = foot + 50.0;
    Scene {
        width,
        height,
        background: Rgb(255, 255, 255),
        shapes: vec![
            Shape::Line { points: hills, width: 2.0, color: black },
            body,
            wheel(10.0),
            wheel(-10.0),
            Shape::Line { points: vec![[flag, foot], [flag, top]], width: 1.0, color: black },
            Shape::Polygon {
                points: vec![[flag, top], [flag, top - 10.0], [flag + 25.0, top - 5.0]],
                color: Rgb(204, 204, 0),
            },
        ],
    }
}
