//! Environments of [gymnasium-rs](https://crates.io/crates/gymnasium-rs) as environments of rl-envs.
//!
//! [`Adapted`] makes an [`rl_envs::Env`] of any [`gymnasium_rs::core::Env`]; one line registers it, and from then on it is an
//! environment like the others, by its id:
//!
//! ```
//! use rl_envs::VecEnv;
//! use rl_envs_gymnasium_rs::{Adapted, cart_pole};
//!
//! // The one environment that comes with gymnasium-rs.
//! rl_envs_gymnasium_rs::register()?;
//! let mut envs = VecEnv::make(rl_envs_gymnasium_rs::CART_POLE, 8)?;
//! envs.reset(1)?;
//!
//! // One of your own, of any type that implements its trait: a constructor and an id.
//! # use gymnasium_rs::envs::cartpole::CartPole as Mine;
//! rl_envs::register("Mine/Pole-v0", || {
//!     let env = Adapted::new("Mine/Pole-v0", Mine::new).expect("its spaces make sense");
//!     Box::new(env.with_time_limit(200))
//! })?;
//! assert_eq!(VecEnv::make("Mine/Pole-v0", 2)?.spec().max_episode_steps, Some(200));
//! # Ok::<(), rl_envs::EnvError>(())
//! ```
//!
//! # What is different there
//!
//! * **Seeds** are i32. Every episode is reset with a seed of its own, drawn by the adapter; the first one after a reset with a
//!   seed from 0 to 2³¹ − 1 has that very seed, so `reset(Some(7))` is their `reset_seed(7)`. Larger seeds are mixed down to 31 bits.
//! * **State** cannot be read. What is saved is the episode's seed and its actions, and loading takes these steps again, in an
//!   environment made anew: exact for every environment whose episode is determined by seed and actions, which loading checks
//!   as far as the last observation shows it. Saving and loading take as long as the episode has steps.
//! * **Pictures** are pixels where rl-envs has shapes, so there is no [scene](rl_envs::Env::scene). `info` is dropped.
//! * **Wrappers** of gymnasium-rs borrow what they wrap and cannot be adapted. Those of rl-envs go around [`Adapted`].
//! * **CartPole** is not Gymnasium's; see [`cart_pole`].

mod adapted;
mod cart_pole;
mod convert;
mod record;

pub use adapted::Adapted;
pub use cart_pole::{CART_POLE, cart_pole, register};
pub use convert::{FromAction, ToObs};
