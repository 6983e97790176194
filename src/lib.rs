//! rl-train: trains DQN- and DDPG-family agents from a shared replay buffer, through libtorch.
//!
//! The binary is [`main`] of this library and nothing else, so that a program with environments of its own is `rl-train` with them; `ARCHITECTURE.md` tells how the crates below fit together. The way of a run:
//! [`config`] → [`wiring`] → [`training`] ([`trainer`] or [`async_trainer`]) → [`train`], which writes a [`run`] folder ([`checkpoint`], [`metrics`]).

pub mod async_trainer;
pub mod bench;
pub mod checkpoint;
mod cli;
mod commands;
pub mod config;
pub mod error;
pub mod evaluation;
pub mod metrics;
pub mod play;
pub mod progress;
pub mod render;
pub mod replay;
pub mod report;
pub mod rollout;
pub mod run;
pub mod signals;
pub mod stacks;
pub mod train;
pub mod trainer;
pub mod training;
pub mod wiring;

pub use commands::main;
/// Environments: what a program needs to write and register its own.
pub use rl_envs;
