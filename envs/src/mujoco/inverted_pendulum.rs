//! InvertedPendulum-v5: balance a pole on a cart.
//!
//! Reference: <https://gymnasium.farama.org/environments/mujoco/inverted_pendulum/>, after Barto, Sutton and Anderson (1983).

use super::kinds::{INVERTED_PENDULUM, Kind};
use super::physics::Physics;
use super::task::{Draws, Rules, View, Writer};

/// The pole's angle (rad) from which on it has fallen.
const FALLEN: f64 = 0.2;

/// A pole on a cart on a rail.
///
/// Observation, f32 `[4]`: cart (m), pole (rad), their velocities. Action, f32 `[1]`: force on the cart, ±3 of the actuator's
/// units of 100 N. Reward: 1 a step, 0 in the one that terminates. Terminates when the pole leans more than 0.2 rad, or a number is not
/// finite. A step takes 0.04 s.
#[derive(Clone, Debug, PartialEq)]
pub struct InvertedPendulum {
    /// Bound of the uniform noise of the first positions and velocities; 0.01.
    pub reset_noise_scale: f64,
}

impl Default for InvertedPendulum {
    fn default() -> Self {
        Self { reset_noise_scale: 0.01 }
    }
}

impl Rules for InvertedPendulum {
    const KIND: Kind = INVERTED_PENDULUM;
    const FRAME_SKIP: usize = 2;
    const SIZES: [usize; 3] = [2, 2, 3];
    const VIEW: View = View { width: 2.4, height: 1.2, center: [0.0, 0.0, 0.3], follows: None, ..View::SIDE };

    fn start(&self, draws: &mut Draws<'_>, qpos: &mut [f64], qvel: &mut [f64]) {
        draws.add_uniform(self.reset_noise_scale, qpos);
        draws.add_uniform(self.reset_noise_scale, qvel);
    }

    fn observe(&self, physics: &Physics, obs: &mut Writer<'_>) {
        obs.put(physics.qpos());
        obs.put(physics.qvel());
    }

    fn judge(&self, physics: &Physics, _: f64, _: &[f32]) -> (f64, bool) {
        let (qpos, qvel) = (physics.qpos(), physics.qvel());
        let finite = qpos.iter().chain(qvel).all(|value| value.is_finite());
        let terminated = !finite || qpos[1].abs() > FALLEN;
        (if terminated { 0.0 } else { 1.0 }, terminated)
    }
}
