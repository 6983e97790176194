//! The rl-train binary.
fn main() {}
