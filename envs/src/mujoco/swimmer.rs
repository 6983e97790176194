//! Swimmer-v5: swim forward with three links.
//!
//! Reference: <https://gymnasium.farama.org/environments/mujoco/swimmer/>, after Coulom (2002).

use super::kinds::{Kind, SWIMMER};
use super::numpy::control_cost;
use super::physics::Physics;
use super::task::{Draws, Rules, View, Writer};

/// Three links in a row in a viscous fluid, seen from above.
///
/// Observation, f32 `[8]`: three angles (rad), velocities (m/s, rad/s; 5). Action, f32 `[2]`: torques at the two joints as parts of
/// the greatest. Reward: velocity in x (m/s) times its weight, less the control cost. Never terminates. A step takes 0.04 s.
#[derive(Clone, Debug, PartialEq)]
pub struct Swimmer {
    /// What a metre a second is worth; 1.
    pub forward_reward_weight: f64,
    /// What the sum of the squared actions costs; 0.0001.
    pub ctrl_cost_weight: f64,
    /// Bound of the uniform noise of the first positions and velocities; 0.1.
    pub reset_noise_scale: f64,
}

impl Default for Swimmer {
    fn default() -> Self {
        Self { forward_reward_weight: 1.0, ctrl_cost_weight: 1e-4, reset_noise_scale: 0.1 }
    }
}

impl Rules for Swimmer {
    const KIND: Kind = SWIMMER;
    const FRAME_SKIP: usize = 4;
    const SIZES: [usize; 3] = [5, 5, 4];
    const VIEW: View = View { width: 8.0, height: 5.0, ..View::TOP };

    fn start(&self, draws: &mut Draws<'_>, qpos: &mut [f64], qvel: &mut [f64]) {
        draws.add_uniform(self.reset_noise_scale, qpos);
        draws.add_uniform(self.reset_noise_scale, qvel);
    }

    fn place(&self, physics: &Physics) -> f64 {
        physics.qpos()[0]
    }

    fn observe(&self, physics: &Physics, obs: &mut Writer<'_>) {
        obs.put(&physics.qpos()[2..]);
        obs.put(physics.qvel());
    }

    fn judge(&self, _: &Physics, velocity: f64, action: &[f32]) -> (f64, bool) {
        (self.forward_reward_weight * velocity - control_cost(self.ctrl_cost_weight, action), false)
    }
}
