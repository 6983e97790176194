//! Environments around environments: each changes one thing of the one inside and passes on the rest.
//!
//! What a wrapper keeps (frames, statistics, counts) is part of what it saves. A wrapper that cannot go around an
//! environment says so when it is made.

mod arcade;
mod clip_reward;
mod episode_statistics;
mod episodic_life;
mod fire_reset;
mod flatten_observation;
mod frame_stack;
mod grayscale;
mod image;
mod max_and_skip;
mod noop_reset;
mod normalize_observation;
mod normalize_reward;
mod pass_on;
mod rescale_action;
mod resize;
mod running;

pub use arcade::Arcade;
pub use clip_reward::ClipReward;
pub use episode_statistics::{EpisodeRecord, EpisodeStatistics};
pub use episodic_life::EpisodicLife;
pub use fire_reset::FireReset;
pub use flatten_observation::FlattenObservation;
pub use frame_stack::{FrameStack, Padding};
pub use grayscale::Grayscale;
pub use max_and_skip::MaxAndSkip;
pub use noop_reset::NoopReset;
pub use normalize_observation::NormalizeObservation;
pub use normalize_reward::NormalizeReward;
pub use rescale_action::RescaleAction;
pub use resize::Resize;
pub use running::RunningMeanStd;

pub(crate) use pass_on::{inner, pass_on};

use crate::{EnvError, EnvSpec};

/// That `wrapper` does not go around the environment of `spec`.
#[cold]
fn refused(wrapper: &str, spec: &EnvSpec, why: impl Into<String>) -> EnvError {
    EnvError::Wrapper { wrapper: wrapper.to_string(), env: spec.id.clone(), why: why.into() }
}
