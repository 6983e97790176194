//! Hopper-v5: hop on one leg.
//!
//! Reference: <https://gymnasium.farama.org/environments/mujoco/hopper/>, after Erez, Tassa and Todorov (2011).

use super::kinds::{HOPPER, Kind};
use super::numpy::control_cost;
use super::physics::Physics;
use super::task::{Draws, MAX_SPEED, Rules, View, Writer, inside};

/// A leg of thigh, shin and foot under a torso, in a plane.
///
/// Observation, f32 `[11]`: positions without x (m, rad; 5), velocities clipped to ±10 (6). Action, f32 `[3]`: torques as
/// parts of the greatest, of thigh, leg and foot. Reward: forward velocity (m/s) times its weight and the healthy reward, less
/// the control cost. Terminates when unhealthy: height or angle of the torso or any other number out of its range, whose
/// bounds are out. A step takes 0.008 s.
#[derive(Clone, Debug, PartialEq)]
pub struct Hopper {
    /// What a metre a second is worth; 1.
    pub forward_reward_weight: f64,
    /// What the sum of the squared actions costs; 0.001.
    pub ctrl_cost_weight: f64,
    /// What a step in a healthy state is worth; 1.
    pub healthy_reward: f64,
    /// Whether an unhealthy state ends the episode; yes.
    pub terminate_when_unhealthy: bool,
    /// Where all positions from the angle on and all velocities have to be; −100 to 100.
    pub healthy_state_range: [f64; 2],
    /// Where the torso's height (m) has to be; 0.7 and up.
    pub healthy_z_range: [f64; 2],
    /// Where the torso's angle (rad) has to be; ±0.2.
    pub healthy_angle_range: [f64; 2],
    /// Bound of the uniform noise of the first positions and velocities; 0.005.
    pub reset_noise_scale: f64,
}

impl Default for Hopper {
    fn default() -> Self {
        Self {
            forward_reward_weight: 1.0,
            ctrl_cost_weight: 1e-3,
            healthy_reward: 1.0,
            terminate_when_unhealthy: true,
            healthy_state_range: [-100.0, 100.0],
            healthy_z_range: [0.7, f64::INFINITY],
            healthy_angle_range: [-0.2, 0.2],
            reset_noise_scale: 5e-3,
        }
    }
}

impl Hopper {
    fn is_healthy(&self, physics: &Physics) -> bool {
        let (qpos, qvel) = (physics.qpos(), physics.qvel());
        qpos[2..].iter().chain(qvel).all(|value| inside(*value, self.healthy_state_range))
            && inside(qpos[1], self.healthy_z_range)
            && inside(qpos[2], self.healthy_angle_range)
    }
}

impl Rules for Hopper {
    const KIND: Kind = HOPPER;
    const FRAME_SKIP: usize = 4;
    const SIZES: [usize; 3] = [6, 6, 5];
    const VIEW: View = View { width: 4.0, height: 2.4, center: [0.0, 0.0, 0.9], ..View::SIDE };

    fn start(&self, draws: &mut Draws<'_>, qpos: &mut [f64], qvel: &mut [f64]) {
        draws.add_uniform(self.reset_noise_scale, qpos);
        draws.add_uniform(self.reset_noise_scale, qvel);
    }

    fn place(&self, physics: &Physics) -> f64 {
        physics.qpos()[0]
    }

    fn observe(&self, physics: &Physics, obs: &mut Writer<'_>) {
        obs.put(&physics.qpos()[1..]);
        obs.put_clipped(physics.qvel(), MAX_SPEED);
    }

    fn judge(&self, physics: &Physics, velocity: f64, action: &[f32]) -> (f64, bool) {
        let healthy = self.is_healthy(physics);
        let gain = self.forward_reward_weight * velocity + if healthy { self.healthy_reward } else { 0.0 };
        (gain - control_cost(self.ctrl_cost_weight, action), !healthy && self.terminate_when_unhealthy)
    }
}
