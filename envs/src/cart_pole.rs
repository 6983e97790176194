//! CartPole-v1: keep a pole upright by pushing the cart that it stands on.
//!
//! Reference: <https://gymnasium.farama.org/environments/classic_control/cart_pole/>, after Barto, Sutton and Anderson
//! (1983).

use crate::episode::{Episode, decode, encode, state_of};
use crate::{Action, Env, EnvError, EnvSpec, ObsMut, Outcome, Rgb, Scene, Shape, Space};
use std::f64::consts::PI;

/// m/s².
const GRAVITY: f64 = 9.8;
/// kg.
const CART_MASS: f64 = 1.0;
/// kg.
const POLE_MASS: f64 = 0.1;
/// kg.
const TOTAL_MASS: f64 = POLE_MASS + CART_MASS;
/// Half of the pole's length, m.
const HALF_POLE: f64 = 0.5;
/// kg·m.
const POLE_MOMENT: f64 = POLE_MASS * HALF_POLE;
/// N.
const FORCE: f64 = 10.0;
/// Seconds a step.
const TAU: f64 = 0.02;
/// The episode ends when the cart is farther than this from the middle, m.
const X_LIMIT: f64 = 2.4;
/// The episode ends when the pole leans more than this: 12 degrees, in rad.
const ANGLE_LIMIT: f64 = 12.0 * 2.0 * PI / 360.0;
/// Each variable starts uniformly within ± this.
const START: f64 = 0.05;

/// A cart on a track with a pole hinged to it.
///
/// Observation, f32 `[4]`: cart position (m), cart velocity (m/s), pole angle (rad, clockwise from upright), pole angular
/// velocity (rad/s). Action: 0 pushes left, 1 pushes right, with 10 N. Reward: 1 each step, the terminal one included.
/// Terminates when the cart leaves ±2.4 m or the pole ±12°.
#[derive(Clone, Debug)]
pub struct CartPole {
    spec: EnvSpec,
    episode: Episode,
    /// x, ẋ, θ, θ̇, in f64 as the reference holds them; observations are rounded to f32.
    state: [f64; 4],
}

impl CartPole {
    /// Its Gymnasium id.
    pub const ID: &str = "CartPole-v1";

    /// A cart-pole that waits for its first reset. Without a time limit of its own: [`make`](crate::make) adds that.
    pub fn new() -> Self {
        Self { spec: Self::spec(), episode: Episode::new(), state: [0.0; 4] }
    }

    /// What is known of it.
    pub fn spec() -> EnvSpec {
        // The observation's bounds are twice those of the episode, so that the terminal observation lies inside.
        let high = [(X_LIMIT * 2.0) as f32, f32::INFINITY, (ANGLE_LIMIT * 2.0) as f32, f32::INFINITY];
        EnvSpec {
            id: Self::ID.to_string(),
            observation: Space::vector(high.map(|bound| -bound), high),
            action: Space::Discrete { n: 2 },
            max_episode_steps: Some(500),
            reward_threshold: Some(475.0),
        }
    }

    /// Begins an episode in `state`: position, velocity, angle, angular velocity.
    ///
    /// # Errors
    /// [`EnvError::State`] unless it is four finite numbers.
    pub fn set_state(&mut self, state: &[f64]) -> Result<(), EnvError> {
        self.state = state_of(&self.spec, state)?;
        self.episode.begin(None);
        Ok(())
    }
}

impl Default for CartPole {
    fn default() -> Self {
        Self::new()
    }
}

impl Env for CartPole {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        let obs = obs.f32(&self.spec)?;
        self.episode.begin(seed);
        self.state = std::array::from_fn(|_| self.episode.uniform(-START, START));
        obs.copy_from_slice(&self.state.map(|value| value as f32));
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        self.episode.check(&self.spec)?;
        let force = if action.discrete(&self.spec)? == 1 { FORCE } else { -FORCE };
        let obs = obs.f32(&self.spec)?;

        // https://coneural.org/florian/papers/05_cart_pole.pdf, without friction.
        let [x, x_dot, theta, theta_dot] = self.state;
        let (sin, cos) = (theta.sin(), theta.cos());
        let temp = (force + POLE_MOMENT * (theta_dot * theta_dot) * sin) / TOTAL_MASS;
        let theta_acc =
            (GRAVITY * sin - cos * temp) / (HALF_POLE * (4.0 / 3.0 - POLE_MASS * (cos * cos) / TOTAL_MASS));
        let x_acc = temp - POLE_MOMENT * theta_acc * cos / TOTAL_MASS;
        // Explicit Euler: positions move with the velocities from before the step.
        self.state =
            [x + TAU * x_dot, x_dot + TAU * x_acc, theta + TAU * theta_dot, theta_dot + TAU * theta_acc];

        let terminated = self.state[0].abs() > X_LIMIT || self.state[2].abs() > ANGLE_LIMIT;
        self.episode.advance(terminated);
        obs.copy_from_slice(&self.state.map(|value| value as f32));
        Ok(Outcome { reward: 1.0, terminated, truncated: false })
    }

    fn save(&self) -> Vec<u8> {
        encode(&self.spec, &(&self.episode, self.state))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        (self.episode, self.state) = decode(&self.spec, bytes)?;
        Ok(())
    }

    fn scene(&self) -> Option<Scene> {
        const TRACK: f32 = 100.0;
        let (width, height) = (600.0, 400.0);
        let scale = width / (2.0 * X_LIMIT as f32);
        let black = Rgb(0, 0, 0);
        let x = self.state[0] as f32 * scale + width / 2.0;
        let axle = [x, TRACK + 7.5];
        // A bar lies along x at angle 0; the pole stands up and leans clockwise.
        let lean = (PI / 2.0 - self.state[2]) as f32;
        let pole = 2.0 * HALF_POLE as f32 * scale;
        Some(Scene {
            width,
            height,
            background: Rgb(255, 255, 255),
            shapes: vec![
                Shape::Line { points: vec![[0.0, TRACK], [width, TRACK]], width: 1.0, color: black },
                Shape::bar([x, TRACK], 0.0, -25.0, 25.0, 15.0, black),
                Shape::bar(axle, lean, -5.0, pole - 5.0, 5.0, Rgb(202, 152, 101)),
                Shape::Circle { center: axle, radius: 5.0, color: Rgb(129, 132, 203) },
            ],
        })
    }
}
