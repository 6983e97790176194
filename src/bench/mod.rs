//! Throughput, measured: `rl-train bench`.

mod buffer;
pub mod env;
mod gather;
mod measure;
pub mod peers;
pub mod replay;
mod work;
