//! Throughput, measured: `rl-train bench`.

mod buffer;
mod gather;
pub mod learner;
mod measure;
pub mod peers;
pub mod replay;
mod work;
