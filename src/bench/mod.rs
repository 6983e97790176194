//! Throughput, measured: `rl-train bench`.

mod measure;
pub mod replay;
