//! Pusher-v5: push a cylinder to its goal with a seven-jointed arm.
//!
//! Reference: <https://gymnasium.farama.org/environments/mujoco/pusher/>.

use super::kinds::{Kind, PUSHER};
use super::numpy::{norm, weighted_squares};
use super::physics::Physics;
use super::task::{Draws, Rules, View, Writer};

/// Where the cylinder starts, relative to the goal (m): x and y.
const STARTS: [[f64; 2]; 2] = [[-0.3, 0.0], [-0.2, 0.2]];
/// But not this near the goal (m).
const TOO_NEAR: f64 = 0.17;
/// Bound of the arm's first velocities (rad/s).
const SPEEDS: f64 = 0.005;
/// How many of the positions are the arm's.
const JOINTS: usize = 7;

/// An arm of seven joints over a table with a cylinder and a goal.
///
/// Observation, f32 `[23]`: the arm's angles (rad; 7) and velocities (7), and the places of the arm's tip, of the cylinder and of the goal
/// (m; 3 each). Action, f32 `[7]`: torques, ±2. Reward: less the distances from the cylinder to the goal and to the tip and the sum of
/// the squared actions after the step, each times its weight. Never terminates. A step takes 0.05 s. The cylinder has the weight that
/// version 5 gave it.
#[derive(Clone, Debug, PartialEq)]
pub struct Pusher {
    /// What a metre between cylinder and tip costs; 0.5.
    pub reward_near_weight: f64,
    /// What a metre between cylinder and goal costs; 1.
    pub reward_dist_weight: f64,
    /// What the sum of the squared actions costs; 0.1.
    pub reward_control_weight: f64,
}

impl Default for Pusher {
    fn default() -> Self {
        Self { reward_near_weight: 0.5, reward_dist_weight: 1.0, reward_control_weight: 0.1 }
    }
}

impl Rules for Pusher {
    const KIND: Kind = PUSHER;
    const FRAME_SKIP: usize = 5;
    const SIZES: [usize; 3] = [11, 11, 13];
    const BODIES: &'static [&'static str] = &["tips_arm", "object", "goal"];
    const VIEW: View =
        View { width: 2.4, height: 2.0, center: [0.1, -0.3, -0.2], elevation: 35.0, follows: None };

    fn start(&self, draws: &mut Draws<'_>, qpos: &mut [f64], qvel: &mut [f64]) {
        let cylinder = loop {
            let place = STARTS.map(|[low, high]| draws.uniform(low, high));
            if norm(place) > TOO_NEAR {
                break place;
            }
        };
        let objects = qpos.len() - 4;
        qpos[objects..][..2].copy_from_slice(&cylinder);
        qpos[objects + 2..].fill(0.0);
        draws.add_uniform(SPEEDS, &mut qvel[..objects]);
        qvel[objects..].fill(0.0);
    }

    fn observe(&self, physics: &Physics, obs: &mut Writer<'_>) {
        obs.put(&physics.qpos()[..JOINTS]);
        obs.put(&physics.qvel()[..JOINTS]);
        (0..3).for_each(|body| obs.put(physics.position(body)));
    }

    fn judge(&self, physics: &Physics, _: f64, action: &[f32]) -> (f64, bool) {
        let [tip, cylinder, goal] = [0, 1, 2].map(|body| *physics.position(body));
        let from_cylinder = |to: [f64; 3]| norm::<3>(std::array::from_fn(|axis| cylinder[axis] - to[axis]));
        let near = -from_cylinder(tip) * self.reward_near_weight;
        let distance = -from_cylinder(goal) * self.reward_dist_weight;
        (distance + weighted_squares(-1.0, action, self.reward_control_weight) + near, false)
    }
}
