//! LunarLander-v3 and LunarLanderContinuous-v3: set a craft down between two flags, by three engines.
//!
//! Reference: <https://gymnasium.farama.org/environments/box2d/lunar_lander/>, by Oleg Klimov. The physics is Box2D 2.3.1's,
//! which is what the feature `box2d` brings; what is known of the environments beforehand is here and needs no feature.

#[cfg(feature = "box2d")]
mod craft;
#[cfg(feature = "box2d")]
mod engines;
#[cfg(feature = "box2d")]
mod environment;
#[cfg(feature = "box2d")]
mod flight;
#[cfg(all(test, feature = "box2d"))]
mod golden;
#[cfg(feature = "box2d")]
mod scene;
#[cfg(feature = "box2d")]
mod terrain;
#[cfg(feature = "box2d")]
mod wind;

#[cfg(feature = "box2d")]
pub use environment::LunarLander;

use crate::{EnvSpec, Space};
use serde::{Deserialize, Serialize};
use std::f32::consts::TAU;

/// What the engines are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Control {
    /// One of four: no engine, the left, the main, the right one, at full power.
    Discrete,
    /// Throttles of the main engine and of the side engines.
    Continuous,
}

impl Control {
    /// The Gymnasium id of the environment with this control.
    pub(crate) const fn id(self) -> &'static str {
        match self {
            Control::Discrete => "LunarLander-v3",
            Control::Continuous => "LunarLanderContinuous-v3",
        }
    }

    /// What is known of that environment.
    pub(crate) fn spec(self) -> EnvSpec {
        // Position, velocity, angle and its velocity; the contacts of the legs are 0 or 1, from −0 in the reference, too.
        let low = [-2.5, -2.5, -10.0, -10.0, -TAU, -10.0, -0.0, -0.0];
        let high = [2.5, 2.5, 10.0, 10.0, TAU, 10.0, 1.0, 1.0];
        EnvSpec {
            id: self.id().to_string(),
            observation: Space::vector(low, high),
            action: match self {
                Control::Discrete => Space::Discrete { n: 4 },
                Control::Continuous => Space::vector([-1.0; 2], [1.0; 2]),
            },
            max_episode_steps: Some(1000),
            reward_threshold: Some(200.0),
        }
    }
}
