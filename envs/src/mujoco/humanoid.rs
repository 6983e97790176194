//! Humanoid-v5: walk upright.
//!
//! Reference: <https://gymnasium.farama.org/environments/mujoco/humanoid/>, after Tassa, Erez and Todorov (2012).

use super::kinds::{HUMANOID, Kind};
use super::numpy::{sum, sum_of_squares};
use super::physics::Physics;
use super::task::{Draws, Rules, View, Writer, inside};

/// How many velocities the free root has; the actuated joints' come after them.
const ROOT: usize = 6;

/// A torso with a head, a waist, two legs and two arms; 17 actuated joints.
///
/// Observation, f32 `[348]`: positions without x and y (22), velocities (23), and of each body but the world: mass and inertia (13 ×
/// 10), velocity about the centre of mass (13 × 6); the actuators' forces on the joints (17); external forces and torques on each body but
/// the world (13 × 6). Action, f32 `[17]`: torques, ±0.4. Reward: velocity of the centre of mass in x (m/s) times its weight and the
/// healthy reward, less the control cost, less the contact cost within its range. Terminates when unhealthy: the torso's height out of its
/// range, whose bounds are out. A step takes 0.015 s.
#[derive(Clone, Debug, PartialEq)]
pub struct Humanoid {
    /// What a metre a second is worth; 1.25.
    pub forward_reward_weight: f64,
    /// What the sum of the squared actions costs; 0.1.
    pub ctrl_cost_weight: f64,
    /// What the sum of the squared contact forces costs; 5e-7.
    pub contact_cost_weight: f64,
    /// Where the contact cost is kept; at most 10.
    pub contact_cost_range: [f64; 2],
    /// What a step in a healthy state is worth; 5.
    pub healthy_reward: f64,
    /// Whether an unhealthy state ends the episode; yes.
    pub terminate_when_unhealthy: bool,
    /// Where the torso's height (m) has to be; 1 to 2.
    pub healthy_z_range: [f64; 2],
    /// Bound of the uniform noise of the first positions and velocities; 0.01.
    pub reset_noise_scale: f64,
}

impl Default for Humanoid {
    fn default() -> Self {
        Self {
            forward_reward_weight: 1.25,
            ctrl_cost_weight: 0.1,
            contact_cost_weight: 5e-7,
            contact_cost_range: [f64::NEG_INFINITY, 10.0],
            healthy_reward: 5.0,
            terminate_when_unhealthy: true,
            healthy_z_range: [1.0, 2.0],
            reset_noise_scale: 1e-2,
        }
    }
}

impl Rules for Humanoid {
    const KIND: Kind = HUMANOID;
    const FRAME_SKIP: usize = 5;
    const SIZES: [usize; 3] = [24, 23, 14];
    const CONTACT_FORCES: bool = true;
    const VIEW: View =
        View { width: 4.0, height: 2.6, center: [0.0, 0.0, 0.9], elevation: 15.0, ..View::SIDE };

    fn start(&self, draws: &mut Draws<'_>, qpos: &mut [f64], qvel: &mut [f64]) {
        draws.add_uniform(self.reset_noise_scale, qpos);
        draws.add_uniform(self.reset_noise_scale, qvel);
    }

    /// The centre of mass.
    fn place(&self, physics: &Physics) -> f64 {
        let (masses, centers) = (physics.masses(), physics.centers());
        // In the order of einsum, body by body.
        let moment = masses.iter().zip(centers).fold(0.0, |total, (mass, center)| total + mass * center[0]);
        moment / sum(masses.len(), |body| masses[body])
    }

    fn observe(&self, physics: &Physics, obs: &mut Writer<'_>) {
        obs.put(&physics.qpos()[2..]);
        obs.put(physics.qvel());
        obs.put(physics.inertias()[1..].as_flattened());
        obs.put(physics.velocities()[1..].as_flattened());
        obs.put(&physics.qfrc_actuator()[ROOT..]);
        obs.put(physics.contact_forces()[1..].as_flattened());
    }

    fn judge(&self, physics: &Physics, velocity: f64, action: &[f32]) -> (f64, bool) {
        let healthy = inside(physics.qpos()[2], self.healthy_z_range);
        let gain = self.forward_reward_weight * velocity + if healthy { self.healthy_reward } else { 0.0 };
        // Of the f64 controls, not of the f32 actions as elsewhere.
        let control = self.ctrl_cost_weight * sum_of_squares(action.len(), |i| f64::from(action[i]));
        let forces = physics.contact_forces().as_flattened();
        let [low, high] = self.contact_cost_range;
        let contact = self.contact_cost_weight * sum_of_squares(forces.len(), |i| forces[i]);
        let cost = control + contact.max(low).min(high);
        (gain - cost, !healthy && self.terminate_when_unhealthy)
    }
}
