//! rl-train: trains DQN- and DDPG-family agents from a shared replay buffer, through libtorch.
//!
//! The binary is a thin command line over this library; `ARCHITECTURE.md` tells how the crates below fit together. The way of a run:
//! [`config`] → [`wiring`] → [`training`] ([`trainer`] or [`async_trainer`]) → [`train`], which writes a [`run`] folder ([`checkpoint`], [`metrics`]).

pub mod async_trainer;
pub mod bench;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod evaluation;
pub mod metrics;
pub mod play;
pub mod progress;
pub mod render;
pub mod report;
pub mod rollout;
pub mod run;
pub mod signals;
pub mod train;
pub mod trainer;
pub mod training;
pub mod wiring;
