//! HalfCheetah-v5: run with a body of half a cheetah.
//!
//! Reference: <https://gymnasium.farama.org/environments/mujoco/half_cheetah/>, after Wawrzyński (2009).

use super::kinds::{HALF_CHEETAH, Kind};
use super::numpy::control_cost;
use super::physics::Physics;
use super::task::{Draws, Rules, View, Writer};

/// A runner in a plane with two legs of three joints each.
///
/// Observation, f32 `[17]`: positions without x (m, rad; 8), velocities (9). Action, f32 `[6]`: torques as parts of the
/// greatest, back thigh, shin and foot, then front. Reward: forward velocity (m/s) times its weight, less the control cost.
/// Never terminates. A step takes 0.05 s.
#[derive(Clone, Debug, PartialEq)]
pub struct HalfCheetah {
    /// What a metre a second is worth; 1.
    pub forward_reward_weight: f64,
    /// What the sum of the squared actions costs; 0.1.
    pub ctrl_cost_weight: f64,
    /// Bound of the uniform noise of the first positions and deviation of the normal noise of the first velocities; 0.1.
    pub reset_noise_scale: f64,
}

impl Default for HalfCheetah {
    fn default() -> Self {
        Self { forward_reward_weight: 1.0, ctrl_cost_weight: 0.1, reset_noise_scale: 0.1 }
    }
}

impl Rules for HalfCheetah {
    const KIND: Kind = HALF_CHEETAH;
    const FRAME_SKIP: usize = 5;
    const SIZES: [usize; 3] = [9, 9, 8];
    const VIEW: View = View { width: 6.0, height: 2.4, center: [0.0, 0.0, 0.8], ..View::SIDE };

    fn start(&self, draws: &mut Draws<'_>, qpos: &mut [f64], qvel: &mut [f64]) {
        draws.add_uniform(self.reset_noise_scale, qpos);
        draws.add_normal(self.reset_noise_scale, qvel);
    }

    fn place(&self, physics: &Physics) -> f64 {
        physics.qpos()[0]
    }

    fn observe(&self, physics: &Physics, obs: &mut Writer<'_>) {
        obs.put(&physics.qpos()[1..]);
        obs.put(physics.qvel());
    }

    fn judge(&self, _: &Physics, velocity: f64, action: &[f32]) -> (f64, bool) {
        (self.forward_reward_weight * velocity - control_cost(self.ctrl_cost_weight, action), false)
    }
}
