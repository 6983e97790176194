//! rl-train.
