//! InvertedDoublePendulum-v5: balance two poles, one on the other, on a cart.
//!
//! Reference: <https://gymnasium.farama.org/environments/mujoco/inverted_double_pendulum/>.

use super::kinds::{INVERTED_DOUBLE_PENDULUM, Kind};
use super::numpy::square;
use super::physics::Physics;
use super::task::{Draws, MAX_SPEED, Rules, View, Writer};

/// The tip's height (m) down to which the poles stand.
const FALLEN: f64 = 1.0;
/// The tip's height (m) when both stand straight, nearly.
const UPRIGHT: f64 = 2.0;

/// Two poles on a cart on a rail.
///
/// Observation, f32 `[9]`: cart (m), sines and then cosines of the two angles, three velocities clipped to ±10, the constraint
/// force on the cart clipped to ±10. Action, f32 `[1]`: force on the cart as part of the greatest. Reward: the healthy reward (0
/// in the step that terminates, as version 5 has it) less what the tip's distance from its upright place and the poles' speeds cost.
/// Terminates when the tip is at 1 m or below. A step takes 0.05 s.
#[derive(Clone, Debug, PartialEq)]
pub struct InvertedDoublePendulum {
    /// What a step is worth that does not terminate; 10.
    pub healthy_reward: f64,
    /// Bound of the uniform noise of the first positions and deviation of the normal noise of the first velocities; 0.1.
    pub reset_noise_scale: f64,
}

impl Default for InvertedDoublePendulum {
    fn default() -> Self {
        Self { healthy_reward: 10.0, reset_noise_scale: 0.1 }
    }
}

impl Rules for InvertedDoublePendulum {
    const KIND: Kind = INVERTED_DOUBLE_PENDULUM;
    const FRAME_SKIP: usize = 5;
    const SIZES: [usize; 3] = [3, 3, 4];
    const VIEW: View = View { width: 3.2, height: 2.0, center: [0.0, 0.0, 0.6], follows: None, ..View::SIDE };

    fn start(&self, draws: &mut Draws<'_>, qpos: &mut [f64], qvel: &mut [f64]) {
        draws.add_uniform(self.reset_noise_scale, qpos);
        draws.add_normal(self.reset_noise_scale, qvel);
    }

    fn observe(&self, physics: &Physics, obs: &mut Writer<'_>) {
        let qpos = physics.qpos();
        obs.put(&qpos[..1]);
        obs.put(&[qpos[1].sin(), qpos[2].sin()]);
        obs.put(&[qpos[1].cos(), qpos[2].cos()]);
        obs.put_clipped(physics.qvel(), MAX_SPEED);
        obs.put_clipped(&physics.qfrc_constraint()[..1], MAX_SPEED);
    }

    fn judge(&self, physics: &Physics, _: f64, _: &[f32]) -> (f64, bool) {
        let [x, _, y] = physics.tip();
        let terminated = y <= FALLEN;
        let distance = 0.01 * square(x) + square(y - UPRIGHT);
        let speed = 1e-3 * square(physics.qvel()[1]) + 5e-3 * square(physics.qvel()[2]);
        let healthy = if terminated { 0.0 } else { self.healthy_reward };
        (healthy - distance - speed, terminated)
    }
}
