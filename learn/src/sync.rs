//! The primitives that handing weights over stands on, in one place, so that the model test (`tests/model_newest.rs`) can run the
//! very same source on a scheduler of its own.

pub(crate) use parking_lot::Mutex;
pub(crate) use std::sync::atomic::AtomicU64;

/// Called when whoever publishes found every slot taken, which the argument in `newest.rs` excludes. The model fails here.
pub(crate) fn all_taken() {
    std::thread::yield_now();
}
