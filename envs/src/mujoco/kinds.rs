//! What is known of the MuJoCo environments without MuJoCo: ids, spaces and limits.

use crate::{Dtype, EnvSpec, Space};

/// One of the environments.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its Gymnasium id.
    pub(crate) id: &'static str,
    /// The file of its model, in the folder of the models.
    #[cfg_attr(not(feature = "mujoco"), allow(dead_code))]
    pub(crate) model: &'static str,
    /// Numbers in an observation.
    pub(crate) observation: usize,
    /// How many actuators there are.
    pub(crate) actuators: usize,
    /// Each takes from minus this to this.
    pub(crate) bound: f32,
    /// Steps after which an episode is truncated.
    pub(crate) limit: u32,
    /// The return at which Gymnasium counts it as solved.
    pub(crate) threshold: Option<f64>,
}

impl Kind {
    /// The spec.
    pub(crate) fn spec(&self) -> EnvSpec {
        let space = |bound: f32, elements: usize| Space::Box {
            dtype: Dtype::F32,
            low: vec![-bound; elements],
            high: vec![bound; elements],
            shape: vec![elements],
        };
        EnvSpec {
            id: self.id.to_string(),
            observation: space(f32::INFINITY, self.observation),
            action: space(self.bound, self.actuators),
            max_episode_steps: Some(self.limit),
            reward_threshold: self.threshold,
        }
    }
}

pub(crate) const HOPPER: Kind = Kind {
    id: "Hopper-v5",
    model: "hopper.xml",
    observation: 11,
    actuators: 3,
    bound: 1.0,
    limit: 1000,
    threshold: Some(3800.0),
};

pub(crate) const HALF_CHEETAH: Kind = Kind {
    id: "HalfCheetah-v5",
    model: "half_cheetah.xml",
    observation: 17,
    actuators: 6,
    bound: 1.0,
    limit: 1000,
    threshold: Some(4800.0),
};

pub(crate) const WALKER2D: Kind = Kind {
    id: "Walker2d-v5",
    model: "walker2d_v5.xml",
    observation: 17,
    actuators: 6,
    bound: 1.0,
    limit: 1000,
    threshold: None,
};

pub(crate) const ANT: Kind = Kind {
    id: "Ant-v5",
    model: "ant.xml",
    observation: 105,
    actuators: 8,
    bound: 1.0,
    limit: 1000,
    threshold: Some(6000.0),
};

pub(crate) const HUMANOID: Kind = Kind {
    id: "Humanoid-v5",
    model: "humanoid.xml",
    observation: 348,
    actuators: 17,
    bound: 0.4,
    limit: 1000,
    threshold: None,
};

pub(crate) const SWIMMER: Kind = Kind {
    id: "Swimmer-v5",
    model: "swimmer.xml",
    observation: 8,
    actuators: 2,
    bound: 1.0,
    limit: 1000,
    threshold: Some(360.0),
};

pub(crate) const REACHER: Kind = Kind {
    id: "Reacher-v5",
    model: "reacher.xml",
    observation: 10,
    actuators: 2,
    bound: 1.0,
    limit: 50,
    threshold: Some(-3.75),
};

pub(crate) const PUSHER: Kind = Kind {
    id: "Pusher-v5",
    model: "pusher_v5.xml",
    observation: 23,
    actuators: 7,
    bound: 2.0,
    limit: 100,
    threshold: Some(0.0),
};

pub(crate) const INVERTED_PENDULUM: Kind = Kind {
    id: "InvertedPendulum-v5",
    model: "inverted_pendulum.xml",
    observation: 4,
    actuators: 1,
    bound: 3.0,
    limit: 1000,
    threshold: Some(950.0),
};

pub(crate) const INVERTED_DOUBLE_PENDULUM: Kind = Kind {
    id: "InvertedDoublePendulum-v5",
    model: "inverted_double_pendulum.xml",
    observation: 9,
    actuators: 1,
    bound: 1.0,
    limit: 1000,
    threshold: Some(9100.0),
};
