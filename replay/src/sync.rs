//! The primitives that the ring's protocol, the rate limiter and the buffer of frames stand on, in one place, so that the
//! model tests (`tests/model*.rs`) can run the very same sources on a scheduler of their own.

pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

/// How often a condition is looked at before its thread goes to sleep. A row is copied in well under a microsecond.
pub(crate) const SPINS: usize = 200;

/// Gives up `guard` until `condvar` is notified, then takes the lock again.
pub(crate) fn wait<'a, T>(condvar: &Condvar, mut guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(&mut guard);
    guard
}

/// As [`wait`], but no longer than `limit`.
pub(crate) fn wait_for<'a, T>(
    condvar: &Condvar,
    mut guard: MutexGuard<'a, T>,
    limit: Duration,
) -> MutexGuard<'a, T> {
    condvar.wait_for(&mut guard, limit);
    guard
}

/// Called between two fields of a row that is being copied. Here it is nothing; the model lets other threads run, so
/// that a row read half-written would show.
#[inline(always)]
pub(crate) fn midway() {}
