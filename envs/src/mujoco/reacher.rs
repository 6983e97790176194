//! Reacher-v5: touch a target with a two-jointed arm.
//!
//! Reference: <https://gymnasium.farama.org/environments/mujoco/reacher/>.

use super::kinds::{Kind, REACHER};
use super::numpy::{norm, weighted_squares};
use super::physics::Physics;
use super::task::{Draws, Rules, View, Writer};

/// Bound of the first angles (rad).
const ANGLES: f64 = 0.1;
/// The target is anywhere within this distance of the middle (m), with equal probability.
const TARGETS: f64 = 0.2;
/// Bound of the first angular velocities (rad/s).
const SPEEDS: f64 = 0.005;

/// An arm of two links on a table, and a target, seen from above.
///
/// Observation, f32 `[10]`: cosines and then sines of the two angles, the target's place relative to where the model has it
/// (m; 2), the angular velocities (2), x and y from the target to the fingertip (m). Action, f32 `[2]`: torques as parts of the greatest.
/// Reward: less the distance of the fingertip from the target after the step (m), less the sum of the squared actions, each times its
/// weight. Never terminates. A step takes 0.02 s.
#[derive(Clone, Debug, PartialEq)]
pub struct Reacher {
    /// What a metre of distance costs; 1.
    pub reward_dist_weight: f64,
    /// What the sum of the squared actions costs; 1.
    pub reward_control_weight: f64,
}

impl Default for Reacher {
    fn default() -> Self {
        Self { reward_dist_weight: 1.0, reward_control_weight: 1.0 }
    }
}

/// From the target to the fingertip.
fn reach(physics: &Physics) -> [f64; 3] {
    let (tip, target) = (physics.position(0), physics.position(1));
    std::array::from_fn(|axis| tip[axis] - target[axis])
}

impl Rules for Reacher {
    const KIND: Kind = REACHER;
    const FRAME_SKIP: usize = 2;
    const SIZES: [usize; 3] = [4, 4, 5];
    const BODIES: &'static [&'static str] = &["fingertip", "target"];
    const VIEW: View = View { width: 0.7, height: 0.7, follows: None, ..View::TOP };

    fn start(&self, draws: &mut Draws<'_>, qpos: &mut [f64], qvel: &mut [f64]) {
        draws.add_uniform(ANGLES, qpos);
        let target = loop {
            let target = [draws.uniform(-TARGETS, TARGETS), draws.uniform(-TARGETS, TARGETS)];
            if norm(target) < TARGETS {
                break target;
            }
        };
        qpos[2..].copy_from_slice(&target);
        draws.add_uniform(SPEEDS, &mut qvel[..2]);
        qvel[2..].fill(0.0);
    }

    fn observe(&self, physics: &Physics, obs: &mut Writer<'_>) {
        let (qpos, qvel) = (physics.qpos(), physics.qvel());
        obs.put(&[qpos[0].cos(), qpos[1].cos()]);
        obs.put(&[qpos[0].sin(), qpos[1].sin()]);
        obs.put(&qpos[2..]);
        obs.put(&qvel[..2]);
        obs.put(&reach(physics)[..2]);
    }

    fn judge(&self, physics: &Physics, _: f64, action: &[f32]) -> (f64, bool) {
        let distance = -norm(reach(physics)) * self.reward_dist_weight;
        (distance + weighted_squares(-1.0, action, self.reward_control_weight), false)
    }
}
