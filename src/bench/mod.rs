//! Throughput, measured: `rl-train bench`.

mod buffer;
mod gather;
mod measure;
pub mod peers;
pub mod replay;
mod work;
