//! Wind and turbulence, off by default.

use super::craft::Craft;
use super::flight::Chance;
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// How hard it blows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct WindPower {
    /// The greatest sideways force, N.
    pub(super) wind: f64,
    /// The greatest torque, N·m.
    pub(super) turbulence: f64,
}

/// Wind of one episode: two gusts, each somewhere on a curve that never repeats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wind {
    power: WindPower,
    /// Steps since the curve's origin, of the force and of the torque.
    at: [i64; 2],
}

impl Wind {
    /// Wind that starts anywhere.
    pub(super) fn draw(power: WindPower, chance: &mut impl Chance) -> Self {
        Self { power, at: [(); 2].map(|()| chance.whole(-9999, 9999)) }
    }

    /// Blows for a step.
    pub(super) fn blow(&mut self, craft: &mut Craft) {
        let [force, torque] = self.at.map(gust);
        craft.push([force * self.power.wind, 0.0]);
        craft.turn(torque * self.power.turbulence);
        self.at = self.at.map(|at| at + 1);
    }
}

/// tanh(sin(2kt) + sin(πkt)) with k = 0.01.
fn gust(at: i64) -> f64 {
    let at = at as f64;
    ((0.02 * at).sin() + (PI * 0.01 * at).sin()).tanh()
}
