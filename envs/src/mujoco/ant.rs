//! Ant-v5: walk on four legs.
//!
//! Reference: <https://gymnasium.farama.org/environments/mujoco/ant/>, after Schulman et al. (2015).

use super::kinds::{ANT, Kind};
use super::numpy::{control_cost, sum_of_squares};
use super::physics::Physics;
use super::task::{Draws, Rules, View, Writer};

/// A torso with four legs of two joints each.
///
/// Observation, f32 `[105]`: positions without x and y (z, orientation as a quaternion, joints; 13), velocities (14), the external
/// forces and torques on each body but the world, clipped to ±1 (13 × 6). Action, f32 `[8]`: torques as parts of the greatest. Reward:
/// velocity in x (m/s) times its weight and the healthy reward, less the control cost, less the contact cost (of all bodies, the world
/// among them, as version 5 has it). Terminates when unhealthy: a number is not finite, or the torso's height is out of its range, whose
/// bounds are in. A step takes 0.05 s.
#[derive(Clone, Debug, PartialEq)]
pub struct Ant {
    /// What a metre a second is worth; 1.
    pub forward_reward_weight: f64,
    /// What the sum of the squared actions costs; 0.5.
    pub ctrl_cost_weight: f64,
    /// What the sum of the squared clipped contact forces costs; 0.0005.
    pub contact_cost_weight: f64,
    /// What a step in a healthy state is worth; 1.
    pub healthy_reward: f64,
    /// Whether an unhealthy state ends the episode; yes.
    pub terminate_when_unhealthy: bool,
    /// Where the torso's height (m) has to be; 0.2 to 1.
    pub healthy_z_range: [f64; 2],
    /// To what contact forces are clipped; ±1.
    pub contact_force_range: [f64; 2],
    /// Bound of the uniform noise of the first positions and deviation of the normal noise of the first velocities; 0.1.
    pub reset_noise_scale: f64,
}

impl Default for Ant {
    fn default() -> Self {
        Self {
            forward_reward_weight: 1.0,
            ctrl_cost_weight: 0.5,
            contact_cost_weight: 5e-4,
            healthy_reward: 1.0,
            terminate_when_unhealthy: true,
            healthy_z_range: [0.2, 1.0],
            contact_force_range: [-1.0, 1.0],
            reset_noise_scale: 0.1,
        }
    }
}

impl Ant {
    fn clipped(&self, force: f64) -> f64 {
        let [low, high] = self.contact_force_range;
        force.max(low).min(high)
    }

    fn is_healthy(&self, physics: &Physics) -> bool {
        let (qpos, qvel) = (physics.qpos(), physics.qvel());
        let [low, high] = self.healthy_z_range;
        qpos.iter().chain(qvel).all(|value| value.is_finite()) && (low..=high).contains(&qpos[2])
    }
}

impl Rules for Ant {
    const KIND: Kind = ANT;
    const FRAME_SKIP: usize = 5;
    const SIZES: [usize; 3] = [15, 14, 14];
    const CONTACT_FORCES: bool = true;
    const BODIES: &'static [&'static str] = &["torso"];
    const VIEW: View =
        View { width: 5.0, height: 3.0, center: [0.0, 0.0, 0.5], elevation: 30.0, ..View::SIDE };

    fn start(&self, draws: &mut Draws<'_>, qpos: &mut [f64], qvel: &mut [f64]) {
        draws.add_uniform(self.reset_noise_scale, qpos);
        draws.add_normal(self.reset_noise_scale, qvel);
    }

    fn place(&self, physics: &Physics) -> f64 {
        physics.position(0)[0]
    }

    fn observe(&self, physics: &Physics, obs: &mut Writer<'_>) {
        obs.put(&physics.qpos()[2..]);
        obs.put(physics.qvel());
        obs.put_with(physics.contact_forces()[1..].as_flattened(), |force| self.clipped(force));
    }

    fn judge(&self, physics: &Physics, velocity: f64, action: &[f32]) -> (f64, bool) {
        let healthy = self.is_healthy(physics);
        let gain = velocity * self.forward_reward_weight + if healthy { self.healthy_reward } else { 0.0 };
        let forces = physics.contact_forces().as_flattened();
        let contact = self.contact_cost_weight * sum_of_squares(forces.len(), |i| self.clipped(forces[i]));
        let cost = control_cost(self.ctrl_cost_weight, action) + contact;
        (gain - cost, !healthy && self.terminate_when_unhealthy)
    }
}
