//! Walker2d-v5: walk on two legs in a plane.
//!
//! Reference: <https://gymnasium.farama.org/environments/mujoco/walker2d/>, after Erez, Tassa and Todorov (2011).

use super::kinds::{Kind, WALKER2D};
use super::numpy::control_cost;
use super::physics::Physics;
use super::task::{Draws, MAX_SPEED, Rules, View, Writer, inside};

/// Two legs of thigh, shin and foot under a torso, in a plane.
///
/// Observation, f32 `[17]`: positions without x (m, rad; 8), velocities clipped to ±10 (9). Action, f32 `[6]`: torques as
/// parts of the greatest, of thigh, leg and foot, right and then left. Reward: forward velocity (m/s) times its weight and the
/// healthy reward, less the control cost. Terminates when unhealthy: height or angle of the torso out of its range, whose bounds
/// are out. A step takes 0.008 s. The feet are alike, as version 5 has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Walker2d {
    /// What a metre a second is worth; 1.
    pub forward_reward_weight: f64,
    /// What the sum of the squared actions costs; 0.001.
    pub ctrl_cost_weight: f64,
    /// What a step in a healthy state is worth; 1.
    pub healthy_reward: f64,
    /// Whether an unhealthy state ends the episode; yes.
    pub terminate_when_unhealthy: bool,
    /// Where the torso's height (m) has to be; 0.8 to 2.
    pub healthy_z_range: [f64; 2],
    /// Where the torso's angle (rad) has to be; ±1.
    pub healthy_angle_range: [f64; 2],
    /// Bound of the uniform noise of the first positions and velocities; 0.005.
    pub reset_noise_scale: f64,
}

impl Default for Walker2d {
    fn default() -> Self {
        Self {
            forward_reward_weight: 1.0,
            ctrl_cost_weight: 1e-3,
            healthy_reward: 1.0,
            terminate_when_unhealthy: true,
            healthy_z_range: [0.8, 2.0],
            healthy_angle_range: [-1.0, 1.0],
            reset_noise_scale: 5e-3,
        }
    }
}

impl Rules for Walker2d {
    const KIND: Kind = WALKER2D;
    const FRAME_SKIP: usize = 4;
    const SIZES: [usize; 3] = [9, 9, 8];
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
        let qpos = physics.qpos();
        let healthy = inside(qpos[1], self.healthy_z_range) && inside(qpos[2], self.healthy_angle_range);
        let gain = self.forward_reward_weight * velocity + if healthy { self.healthy_reward } else { 0.0 };
        (gain - control_cost(self.ctrl_cost_weight, action), !healthy && self.terminate_when_unhealthy)
    }
}
