//! Reinforcement-learning environments.
//!
//! An [`Env`] is one world: [`reset`](Env::reset) starts an episode, [`step`](Env::step) advances it, and both write the
//! observation where the caller says. [`make`] builds a registered one by its Gymnasium id, with its time limit applied;
//! [`VecEnv`] steps several of one kind and starts new episodes by itself.
//!
//! ```
//! use rl_envs::{Actions, VecEnv};
//!
//! let mut envs = VecEnv::make("CartPole-v1", 2)?;
//! envs.reset(7)?;
//! for _ in 0..100 {
//!     let actions: Vec<i64> = envs.obs().chunks(4).map(|obs| i64::from(obs[2] > 0.0)).collect();
//!     envs.step(Actions::Discrete(&actions))?;
//!     for (i, outcome) in envs.outcomes().iter().enumerate() {
//!         // The transition's next observation, which is the episode's last one when it ended: never the one after the reset.
//!         let next = envs.next_obs(i);
//!         assert!(next[2].abs() < 0.42 && outcome.reward == 1.0);
//!     }
//! }
//! # Ok::<(), rl_envs::EnvError>(())
//! ```
//!
//! The environments here follow Gymnasium 1.4.0 number for number: constants, integrators, the order of operations and
//! the float types of state, observation and reward. Only the random stream of resets is our own (Xoshiro256++), drawn
//! from the same distributions. Trajectories recorded from Gymnasium are replayed by the tests. Likewise the games of
//! [`minatar`] are those of the package of that name, and the tasks of [`mujoco`], with the feature of that name, Gymnasium's.
//!
//! To add an environment, write its file (a type that implements [`Env`]), name it with a `mod` line below, and give it a
//! line in the list of `registry.rs`.

mod acrobot;
mod action;
mod batch;
mod cart_pole;
mod conformance;
mod env;
mod episode;
mod error;
mod lunar_lander;
pub mod minatar;
mod mountain_car;
mod mountain_car_continuous;
pub mod mujoco;
mod observation;
mod pendulum;
#[cfg(feature = "python")]
mod python;
mod registry;
mod rows;
mod scene;
mod space;
mod time_limit;
mod vector;
mod workers;
mod wrappers;

pub use acrobot::Acrobot;
pub use action::{Action, Actions};
pub use cart_pole::CartPole;
pub use conformance::{ConformanceError, check};
pub use env::{Env, EnvSpec, Outcome};
pub use error::EnvError;
#[cfg(feature = "box2d")]
pub use lunar_lander::LunarLander;
pub use mountain_car::MountainCar;
pub use mountain_car_continuous::MountainCarContinuous;
pub use observation::{Obs, ObsMut};
pub use pendulum::Pendulum;
pub use registry::{Listing, PYTHON, listings, make, make_drawn, register, specs};
pub use scene::{Rgb, Scene, Shape};
pub use space::{Dtype, Space};
pub use time_limit::TimeLimit;
pub use vector::{VecEnv, env_seeds};
pub use wrappers::{
    Arcade, ClipReward, EpisodeRecord, EpisodeStatistics, EpisodicLife, FireReset, FlattenObservation,
    FrameStack, Grayscale, MaxAndSkip, NoopReset, NormalizeObservation, NormalizeReward, Padding,
    RescaleAction, Resize, RunningMeanStd,
};
