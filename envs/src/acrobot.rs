//! Acrobot-v1: swing a two-link chain above a line by a motor in its elbow.
//!
//! Reference: <https://gymnasium.farama.org/environments/classic_control/acrobot/>, after Sutton (1996), with the dynamics
//! of Sutton and Barto's book.

use crate::episode::{Episode, decode, encode, state_of};
use crate::{Action, Env, EnvError, EnvSpec, ObsMut, Outcome, Rgb, Scene, Shape, Space};
use std::f64::consts::PI;

/// Seconds a step.
const DT: f64 = 0.2;
/// m/s².
const GRAVITY: f64 = 9.8;
/// Length of the upper link, m; the lower one's appears only in the drawing.
const LENGTH: f64 = 1.0;
/// Mass of either link, kg.
const MASS: f64 = 1.0;
/// Distance of either link's center of mass from its upper joint, m.
const CENTER: f64 = 0.5;
/// Moment of inertia of either link, kg·m².
const INERTIA: f64 = 1.0;
/// Speed limits of the two joints, rad/s.
const MAX_SPEEDS: [f64; 2] = [4.0 * PI, 9.0 * PI];
/// Each variable starts uniformly within ± this.
const START: f64 = 0.1;

/// Two links, the upper one hung up, the joint between them driven.
///
/// Observation, f32 `[6]`: cos θ₁, sin θ₁, cos θ₂, sin θ₂, and the two angular velocities (rad/s); θ₁ is the upper link's
/// angle from hanging down, θ₂ the lower link's from the upper. Action: 0, 1, 2 apply −1, 0, 1 N·m at the elbow. Reward: −1
/// each step, 0 on the terminal one. Terminates when the free end is more than 1 m above the fixed joint.
#[derive(Clone, Debug)]
pub struct Acrobot {
    spec: EnvSpec,
    episode: Episode,
    /// θ₁, θ₂ in ±π and their velocities, in f64; observations are rounded to f32.
    state: [f64; 4],
}

impl Acrobot {
    /// Its Gymnasium id.
    pub const ID: &str = "Acrobot-v1";

    /// An acrobot that waits for its first reset. Without a time limit of its own: [`make`](crate::make) adds that.
    pub fn new() -> Self {
        Self { spec: Self::spec(), episode: Episode::new(), state: [0.0; 4] }
    }

    /// What is known of it.
    pub fn spec() -> EnvSpec {
        let [first, second] = MAX_SPEEDS.map(|speed| speed as f32);
        let high = [1.0, 1.0, 1.0, 1.0, first, second];
        EnvSpec {
            id: Self::ID.to_string(),
            observation: Space::vector(high.map(|bound| -bound), high),
            action: Space::Discrete { n: 3 },
            max_episode_steps: Some(500),
            reward_threshold: Some(-100.0),
        }
    }

    /// Begins an episode in `state`: θ₁, θ₂ (rad) and their velocities (rad/s).
    ///
    /// # Errors
    /// [`EnvError::State`] unless it is four finite numbers.
    pub fn set_state(&mut self, state: &[f64]) -> Result<(), EnvError> {
        self.state = state_of(&self.spec, state)?;
        self.episode.begin(None);
        Ok(())
    }

    fn obs(&self) -> [f32; 6] {
        let [theta1, theta2, speed1, speed2] = self.state;
        [theta1.cos(), theta1.sin(), theta2.cos(), theta2.sin(), speed1, speed2].map(|value| value as f32)
    }
}

impl Default for Acrobot {
    fn default() -> Self {
        Self::new()
    }
}

/// The time derivative of the state under `torque`.
fn derivative([theta1, theta2, speed1, speed2]: [f64; 4], torque: f64) -> [f64; 4] {
    let (sin2, cos2) = (theta2.sin(), theta2.cos());
    let reach = MASS * LENGTH * CENTER;
    let d1 = MASS * (CENTER * CENTER)
        + MASS * (LENGTH * LENGTH + CENTER * CENTER + 2.0 * LENGTH * CENTER * cos2)
        + INERTIA
        + INERTIA;
    let d2 = MASS * (CENTER * CENTER + LENGTH * CENTER * cos2) + INERTIA;
    let phi2 = MASS * CENTER * GRAVITY * (theta1 + theta2 - PI / 2.0).cos();
    let phi1 = -reach * (speed2 * speed2) * sin2 - 2.0 * reach * speed2 * speed1 * sin2
        + (MASS * CENTER + MASS * LENGTH) * GRAVITY * (theta1 - PI / 2.0).cos()
        + phi2;
    // With the term in speed1² that the book has and the paper of 1996 leaves out.
    let acc2 = (torque + d2 / d1 * phi1 - reach * (speed1 * speed1) * sin2 - phi2)
        / (MASS * (CENTER * CENTER) + INERTIA - d2 * d2 / d1);
    let acc1 = -(d2 * acc2 + phi1) / d1;
    [speed1, speed2, acc1, acc2]
}

/// One step of the classical Runge-Kutta method of fourth order, the torque being constant.
fn runge_kutta(state: [f64; 4], torque: f64) -> [f64; 4] {
    let at = |k: [f64; 4], dt: f64| std::array::from_fn(|i| state[i] + dt * k[i]);
    let k1 = derivative(state, torque);
    let k2 = derivative(at(k1, DT / 2.0), torque);
    let k3 = derivative(at(k2, DT / 2.0), torque);
    let k4 = derivative(at(k3, DT), torque);
    std::array::from_fn(|i| state[i] + DT / 6.0 * (k1[i] + 2.0 * k2[i] + 2.0 * k3[i] + k4[i]))
}

/// The angle in ±π, by whole turns. A turn at a time, as the reference does it, for the same rounding; the speed limits
/// keep a step below two.
fn wrap(mut angle: f64) -> f64 {
    while angle > PI {
        angle -= 2.0 * PI;
    }
    while angle < -PI {
        angle += 2.0 * PI;
    }
    angle
}

impl Env for Acrobot {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        let obs = obs.f32(&self.spec)?;
        self.episode.begin(seed);
        // The reference's reset rounds the state to f32; its steps keep f64.
        self.state = std::array::from_fn(|_| f64::from(self.episode.uniform(-START, START) as f32));
        obs.copy_from_slice(&self.obs());
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        self.episode.check(&self.spec)?;
        let torque = action.discrete(&self.spec)? as f64 - 1.0;
        let obs = obs.f32(&self.spec)?;

        let [theta1, theta2, speed1, speed2] = runge_kutta(self.state, torque);
        let [max1, max2] = MAX_SPEEDS;
        self.state = [wrap(theta1), wrap(theta2), speed1.clamp(-max1, max1), speed2.clamp(-max2, max2)];

        let [theta1, theta2, ..] = self.state;
        let terminated = -theta1.cos() - (theta2 + theta1).cos() > 1.0;
        self.episode.advance(terminated);
        obs.copy_from_slice(&self.obs());
        Ok(Outcome { reward: if terminated { 0.0 } else { -1.0 }, terminated, truncated: false })
    }

    fn save(&self) -> Vec<u8> {
        encode(&self.spec, &(&self.episode, self.state))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        (self.episode, self.state) = decode(&self.spec, bytes)?;
        Ok(())
    }

    fn scene(&self) -> Option<Scene> {
        let size = 500.0;
        let scale = size / (2.0 * 2.2);
        let middle = size / 2.0;
        let (link, half) = (LENGTH as f32 * scale, 0.1 * scale);
        let (cyan, yellow) = (Rgb(0, 204, 204), Rgb(204, 204, 0));
        // Angle 0 hangs down.
        let upper = (self.state[0] - PI / 2.0) as f32;
        let lower = (self.state[0] + self.state[1] - PI / 2.0) as f32;
        let shoulder = [middle, middle];
        let elbow = [middle + link * upper.cos(), middle + link * upper.sin()];
        let line = middle + link;
        Some(Scene {
            width: size,
            height: size,
            background: Rgb(255, 255, 255),
            shapes: vec![
                Shape::Line { points: vec![[0.0, line], [size, line]], width: 1.0, color: Rgb(0, 0, 0) },
                Shape::bar(shoulder, upper, 0.0, link, half, cyan),
                Shape::Circle { center: shoulder, radius: half, color: yellow },
                Shape::bar(elbow, lower, 0.0, link, half, cyan),
                Shape::Circle { center: elbow, radius: half, color: yellow },
            ],
        })
    }
}
