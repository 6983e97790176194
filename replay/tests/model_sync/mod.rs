//! The primitives of `src/sync.rs`, from shuttle.
#![allow(dead_code, unused_imports, reason = "each model uses a part of it")]

pub(crate) use shuttle::sync::atomic::{AtomicU64, AtomicUsize};
pub(crate) use shuttle::sync::{Condvar, MutexGuard};
use std::time::Duration;

/// Looking more often would only make schedules longer.
pub(crate) const SPINS: usize = 1;

#[derive(Debug)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }
}

pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap()
}

pub(crate) fn wait_for<'a, T>(_: &Condvar, _: MutexGuard<'a, T>, _: Duration) -> MutexGuard<'a, T> {
    unreachable!("no model waits by the clock, which the scheduler has not")
}

pub(crate) fn midway() {
    // Touching one of shuttle's atomics lets its scheduler choose who goes on.
    shuttle::sync::atomic::AtomicBool::new(false).load(std::sync::atomic::Ordering::SeqCst);
}

/// Tries as many interleavings with each of two kinds of scheduler. One in which all threads wait is a failure too.
pub(crate) fn explore(schedules: usize, model: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(model.clone(), schedules);
    shuttle::check_pct(model, schedules, 3);
}
