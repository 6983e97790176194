//! The primitives of `src/sync.rs`, from shuttle.

pub(crate) use shuttle::sync::atomic::AtomicU64;
use shuttle::sync::{MutexGuard, TryLockError};

pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(_)) => panic!("a thread panicked with the lock"),
        }
    }
}

pub(crate) fn all_taken() {
    panic!("the publisher found no slot that was free");
}
