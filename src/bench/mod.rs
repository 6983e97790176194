//! Throughput, measured: `rl-train bench`.

mod buffer;
pub mod env;
mod gather;
pub mod learner;
mod measure;
pub mod peers;
pub mod replay;
mod work;
