//! The primitives that the ring's protocol stands on, in one place, so that the model test (`tests/model.rs`) can run
//! the very same protocol on a scheduler of its own.

pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize};

/// How often a condition is looked at before its thread goes to sleep. A row is copied in well under a microsecond.
pub(crate) const SPINS: usize = 200;

/// Gives up `guard` until `condvar` is notified, then takes the lock again.
pub(crate) fn wait<'a, T>(condvar: &Condvar, mut guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(&mut guard);
    guard
}

/// Called between two fields of a row that is being copied. Here it is nothing; the model lets other threads run, so
/// that a row read half-written would show.
#[inline(always)]
pub(crate) fn midway() {}
