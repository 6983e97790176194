//! Pendulum-v1: swing a pendulum up and hold it there with too little torque.
//!
//! Reference: <https://gymnasium.farama.org/environments/classic_control/pendulum/>.

use crate::episode::{Episode, decode, encode, state_of};
use crate::{Action, Env, EnvError, EnvSpec, ObsMut, Outcome, Rgb, Scene, Shape, Space};
use std::f64::consts::PI;

/// Speed limit, rad/s.
const MAX_SPEED: f64 = 8.0;
/// Torque limit, N·m.
const MAX_TORQUE: f32 = 2.0;
/// Seconds a step.
const DT: f64 = 0.05;
/// m/s².
const GRAVITY: f64 = 10.0;
/// kg.
const MASS: f64 = 1.0;
/// m.
const LENGTH: f64 = 1.0;
/// Angle and speed start uniformly within ± these, rad and rad/s.
const START: [f64; 2] = [PI, 1.0];

/// A rod that hangs from a motor.
///
/// Observation, f32 `[3]`: cos θ, sin θ, angular velocity (rad/s); θ is 0 upright and grows counter-clockwise. Action, f32
/// `[1]`: torque (N·m), clipped to ±2. Reward: −(θ² + 0.1·velocity² + 0.001·torque²) of the state before the step, with θ
/// in ±π; at best 0, at worst about −16.27. Never terminates.
#[derive(Clone, Debug)]
pub struct Pendulum {
    spec: EnvSpec,
    episode: Episode,
    /// θ, not wrapped, and its velocity, in f64; observations are rounded to f32.
    state: [f64; 2],
    /// sin θ of the state: computed for the observation, and needed once more by the step after it.
    sin: f64,
    /// The last step's torque after clipping, for the drawing.
    torque: Option<f32>,
}

impl Pendulum {
    /// Its Gymnasium id.
    pub const ID: &str = "Pendulum-v1";

    /// A pendulum that waits for its first reset. Without a time limit of its own: [`make`](crate::make) adds that.
    pub fn new() -> Self {
        Self { spec: Self::spec(), episode: Episode::new(), state: [0.0; 2], sin: 0.0, torque: None }
    }

    /// What is known of it.
    pub fn spec() -> EnvSpec {
        let high = [1.0, 1.0, MAX_SPEED as f32];
        EnvSpec {
            id: Self::ID.to_string(),
            observation: Space::vector(high.map(|bound| -bound), high),
            action: Space::vector([-MAX_TORQUE], [MAX_TORQUE]),
            max_episode_steps: Some(200),
            reward_threshold: None,
        }
    }

    /// Begins an episode in `state`: angle (rad), angular velocity (rad/s).
    ///
    /// # Errors
    /// [`EnvError::State`] unless it is two finite numbers.
    pub fn set_state(&mut self, state: &[f64]) -> Result<(), EnvError> {
        self.state = state_of(&self.spec, state)?;
        self.sin = self.state[0].sin();
        self.torque = None;
        self.episode.begin(None);
        Ok(())
    }

    /// Goes to `state` and observes it.
    ///
    /// On its own, so that the compiler sees sine and cosine side by side and takes them from one call.
    #[inline(never)]
    fn enter(&mut self, state: [f64; 2]) -> [f32; 3] {
        let (sin, cos) = state[0].sin_cos();
        (self.state, self.sin) = (state, sin);
        [cos, sin, state[1]].map(|value| value as f32)
    }
}

/// The angle in −π to π: ((θ + π) mod 2π) − π.
fn wrapped(theta: f64) -> f64 {
    const TURN: f64 = 2.0 * PI;
    let turned = theta + PI;
    // Near the middle the remainder is a sum or difference, to the last bit: a difference of numbers that are at most a
    // factor of two apart is exact. The general remainder takes as long as a sine.
    let remainder = if (0.0..TURN).contains(&turned) {
        turned
    } else if (TURN..2.0 * TURN).contains(&turned) {
        turned - TURN
    } else {
        turned.rem_euclid(TURN)
    };
    remainder - PI
}

impl Default for Pendulum {
    fn default() -> Self {
        Self::new()
    }
}

impl Env for Pendulum {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        let obs = obs.f32(&self.spec)?;
        self.episode.begin(seed);
        let state = START.map(|bound| self.episode.uniform(-bound, bound));
        self.torque = None;
        obs.copy_from_slice(&self.enter(state));
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        self.episode.check(&self.spec)?;
        let torque = action.values(&self.spec)?[0].clamp(-MAX_TORQUE, MAX_TORQUE);
        let obs = obs.f32(&self.spec)?;

        let [theta, speed] = self.state;
        let angle = wrapped(theta);
        // The torque is an f32 in NumPy, and what a Python number makes of it stays one.
        let effort = 0.001 * (torque * torque);
        let cost = angle * angle + 0.1 * (speed * speed) + f64::from(effort);
        let push = (3.0 / (MASS * (LENGTH * LENGTH))) as f32 * torque;

        let acceleration = 3.0 * GRAVITY / (2.0 * LENGTH) * self.sin + f64::from(push);
        let speed = (speed + acceleration * DT).clamp(-MAX_SPEED, MAX_SPEED);
        self.torque = Some(torque);

        obs.copy_from_slice(&self.enter([theta + speed * DT, speed]));
        Ok(Outcome { reward: -cost, terminated: false, truncated: false })
    }

    fn save(&self) -> Vec<u8> {
        encode(&self.spec, &(&self.episode, self.state, self.torque))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        (self.episode, self.state, self.torque) = decode(&self.spec, bytes)?;
        self.sin = self.state[0].sin();
        Ok(())
    }

    fn scene(&self) -> Option<Scene> {
        let size = 500.0;
        let scale = size / (2.0 * 2.2);
        let middle = [size / 2.0; 2];
        let (rod, half) = (LENGTH as f32 * scale, 0.1 * scale);
        let red = Rgb(204, 77, 77);
        // Angle 0 stands up.
        let angle = (self.state[0] + PI / 2.0) as f32;
        let tip = [middle[0] + rod * angle.cos(), middle[1] + rod * angle.sin()];
        let mut shapes = vec![
            Shape::bar(middle, angle, 0.0, rod, half, red),
            Shape::Circle { center: middle, radius: half, color: red },
            Shape::Circle { center: tip, radius: half, color: red },
        ];
        if let Some(torque) = self.torque.filter(|torque| *torque != 0.0) {
            shapes.extend(torque_arrow(middle, torque / MAX_TORQUE, 0.5 * scale));
        }
        shapes.push(Shape::Circle { center: middle, radius: 0.05 * scale, color: Rgb(0, 0, 0) });
        Some(Scene { width: size, height: size, background: Rgb(255, 255, 255), shapes })
    }
}

/// A bent arrow about `center` that goes the way the torque turns; `share` of the greatest torque, in ±1, sets its size.
fn torque_arrow(center: [f32; 2], share: f32, radius: f32) -> [Shape; 2] {
    const SEGMENTS: usize = 24;
    let color = Rgb(60, 60, 60);
    let radius = radius * share.abs();
    let at = |angle: f32, radius: f32| [center[0] + radius * angle.cos(), center[1] + radius * angle.sin()];
    // Three quarters of a circle, open to the right.
    let (start, sweep) = (share.signum() * 0.25 * PI as f32, share.signum() * 1.5 * PI as f32);
    let arc = (0..=SEGMENTS).map(|i| at(start + sweep * i as f32 / SEGMENTS as f32, radius)).collect();
    let end = start + sweep;
    let tip = at(end + share.signum() * 0.35, radius);
    [
        Shape::Line { points: arc, width: 0.08 * radius, color },
        Shape::Polygon { points: vec![at(end, 0.82 * radius), at(end, 1.18 * radius), tip], color },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortcuts_change_no_bit() {
        let mut theta = -60.0;
        while theta < 60.0 {
            let plain = (theta + PI).rem_euclid(2.0 * PI) - PI;
            assert_eq!(wrapped(theta).to_bits(), plain.to_bits(), "{theta}");
            assert_eq!(theta.sin_cos().0.to_bits(), theta.sin().to_bits(), "{theta}");
            theta += 1e-4;
        }
        for theta in [-PI, PI, 3.0 * PI, -3.0 * PI] {
            assert_eq!(wrapped(theta).to_bits(), ((theta + PI).rem_euclid(2.0 * PI) - PI).to_bits());
        }
    }
}
