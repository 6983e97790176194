//! Throughput, measured: `rl-train bench`.

mod gather;
mod measure;
pub mod peers;
pub mod replay;
