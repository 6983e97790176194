//! The newest value of something, handed from one thread to several. Who publishes never waits for those who read; values are
//! recycled and never allocated anew.
//!
//! For R readers there are R + 2 slots, each under a lock of its own. `newest` names the slot that was published last, and a reader
//! reads under that slot's lock. The publisher writes into any other slot whose lock is free *now* (`try_lock`), and then names
//! that one:
//!
//! * The slot that is named is never written, so what a reader finds there under the lock, after it has looked at the name again, is
//!   whole and is what was published.
//! * While the publisher looks for a slot the name stays as it is. A reader that lets go of a slot goes on to the one that is named, so
//!   each keeps at most one other slot from the publisher: R of R + 1, and one is free.
//!
//! The name carries the number of the publication, so that a reader knows without a lock whether there is something new.

use crate::sync::{AtomicU64, Mutex, all_taken};
use std::sync::Arc;
use std::sync::atomic::Ordering;

struct Shared<T> {
    slots: Box<[Mutex<T>]>,
    /// Number of the last publication × slots + its slot.
    newest: AtomicU64,
}

impl<T> Shared<T> {
    /// The number and the slot that `name` stands for.
    fn parts(&self, name: u64) -> (u64, usize) {
        let slots = self.slots.len() as u64;
        (name / slots, (name % slots) as usize)
    }
}

/// The one end that publishes.
pub(crate) struct Publisher<T>(Arc<Shared<T>>);

/// An end that reads. Not `Clone`: the number of slots counts on how many there are.
pub(crate) struct Subscriber<T> {
    shared: Arc<Shared<T>>,
    /// The name of what was read last.
    seen: Option<u64>,
}

/// The ends of a channel through `values`, one slot each; the first is published, as number 0. There are two readers fewer than values.
///
/// # Panics
/// With fewer than three values.
pub(crate) fn newest<T>(values: Vec<T>) -> (Publisher<T>, Vec<Subscriber<T>>) {
    assert!(values.len() >= 3, "a reader needs three slots");
    let readers = values.len() - 2;
    let slots = values.into_iter().map(Mutex::new).collect();
    let shared = Arc::new(Shared { slots, newest: AtomicU64::new(0) });
    let reader = |_| Subscriber { shared: Arc::clone(&shared), seen: None };
    let readers = (0..readers).map(reader).collect();
    (Publisher(shared), readers)
}

impl<T> Publisher<T> {
    /// Lets `write` fill an old value, and publishes it. Returns its number. Never waits for a reader.
    ///
    /// # Errors
    /// What `write` returns; nothing is published then.
    pub(crate) fn publish<E>(&mut self, write: impl FnOnce(&mut T) -> Result<(), E>) -> Result<u64, E> {
        // Nobody else stores it.
        let name = self.0.newest.load(Ordering::Relaxed);
        let (number, current) = self.0.parts(name);
        let slots = self.0.slots.len();
        loop {
            for step in 1..slots {
                let slot = (current + step) % slots;
                let Some(mut value) = self.0.slots[slot].try_lock() else { continue };
                write(&mut value)?;
                drop(value);
                // Release: who sees the name sees that the lock was let go.
                self.0.newest.store((number + 1) * slots as u64 + slot as u64, Ordering::Release);
                return Ok(number + 1);
            }
            all_taken();
        }
    }
}

impl<T> Subscriber<T> {
    /// Shows the newest value and its number to `read` if there is one that it has not been shown.
    ///
    /// Waits only for other readers of the same value, and where the publisher has come round to its slot, until that has been filled.
    pub(crate) fn newer<R>(&mut self, read: impl FnOnce(u64, &T) -> R) -> Option<R> {
        loop {
            let name = self.shared.newest.load(Ordering::Acquire);
            if self.seen == Some(name) {
                return None;
            }
            let (number, slot) = self.shared.parts(name);
            let value = self.shared.slots[slot].lock();
            // Otherwise the publisher may have been here since, and even have failed half-way.
            if self.shared.newest.load(Ordering::Acquire) == name {
                self.seen = Some(name);
                return Some(read(number, &value));
            }
        }
    }
}
