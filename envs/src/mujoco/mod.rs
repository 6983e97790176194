//! MuJoCo's ten locomotion and control tasks, in their version 5 of Gymnasium 1.4.0; feature `mujoco`.
//!
//! | id | what it does |
//! |---|---|
//! | `Hopper-v5` | hops on one leg |
//! | `HalfCheetah-v5` | runs in a plane |
//! | `Walker2d-v5` | walks on two legs in a plane |
//! | `Ant-v5` | walks on four legs |
//! | `Humanoid-v5` | walks upright |
//! | `Swimmer-v5` | swims with three links |
//! | `Reacher-v5` | touches a target with an arm |
//! | `Pusher-v5` | pushes a cylinder to its goal |
//! | `InvertedPendulum-v5` | balances a pole on a cart |
//! | `InvertedDoublePendulum-v5` | balances two poles |
//!
//! The physics is MuJoCo's own library, 3.17.0, and the models are the files of Gymnasium 1.4.0; `make setup-mujoco` brings both from PyPI,
//! and the variable `RL_TRAIN_MUJOCO_ASSETS` names another folder of models. From the same positions and velocities episodes are
//! Gymnasium's to the last bit: the tests replay recorded ones. Only the random stream of resets is our own (Xoshiro256++), drawn from
//! the same distributions.
//!
//! Rewards, ranges and noise are settings of each environment with Gymnasium's names and defaults. Settings that change what an
//! observation holds (`exclude_current_positions_from_observation` and the `include_…` ones) and other models are not there.
//!
//! Drawings ([`Env::scene`](crate::Env::scene)) are parallel projections of the models' shapes. Frames of MuJoCo's own renderer are
//! not there: it draws with OpenGL, which a machine for training need not have.
//!
//! A simulation that becomes unstable is set back to the model's first state by MuJoCo, in the middle of an episode; Gymnasium's are, too.

pub(crate) mod kinds;

#[cfg(feature = "mujoco")]
mod ant;
#[cfg(feature = "mujoco")]
mod drawing;
#[cfg(feature = "mujoco")]
mod half_cheetah;
#[cfg(feature = "mujoco")]
mod hopper;
#[cfg(feature = "mujoco")]
mod humanoid;
#[cfg(feature = "mujoco")]
mod inverted_double_pendulum;
#[cfg(feature = "mujoco")]
mod inverted_pendulum;
#[cfg(feature = "mujoco")]
mod numpy;
#[cfg(feature = "mujoco")]
mod physics;
#[cfg(feature = "mujoco")]
mod pusher;
#[cfg(feature = "mujoco")]
mod reacher;
#[cfg(feature = "mujoco")]
mod swimmer;
#[cfg(feature = "mujoco")]
mod task;
#[cfg(feature = "mujoco")]
mod walker2d;

#[cfg(feature = "mujoco")]
pub use {
    ant::Ant, half_cheetah::HalfCheetah, hopper::Hopper, humanoid::Humanoid,
    inverted_double_pendulum::InvertedDoublePendulum, inverted_pendulum::InvertedPendulum, pusher::Pusher,
    reacher::Reacher, swimmer::Swimmer, task::Mujoco, task::Task, walker2d::Walker2d,
};
