//! Optimizers whose whole state is ours: it saves, loads, and stays on the device.
//!
//! [`OptimizerConfig`] says which optimizer, [`ParamGroups`] which parameters get which learning rate and weight decay, [`Optimizer`] steps,
//! [`clip_norm`] and [`clip_value`] bound the gradients before, and [`Ema`] averages the weights after.

mod clip;
mod config;
mod ema;
mod error;
mod groups;
mod optimizer;

pub use clip::{clip_norm, clip_value};
pub use config::OptimizerConfig;
pub use ema::Ema;
pub use error::OptimizerError;
pub use groups::{ParamGroup, ParamGroups, no_decay_on_biases_and_norms};
pub use optimizer::Optimizer;
