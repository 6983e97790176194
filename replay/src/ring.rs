//! The memory of the rows, and the only unsafe code of the crate.
//!
//! [`Ring`] puts together a [`Control`], which decides who may touch which slot, a lock around it, and the memory.
//! Copying happens outside the lock, under one of two tokens that the lock hands out:
//!
//! * a [`Claim`]: the serials of one writer, whose slots it alone may write until it publishes them;
//! * a [`Pin`]: live serials that one reader may read, and which no writer overwrites until the pin is dropped.
//!
//! Both check every serial against the range that they were given, so their methods are safe to call. Both give back
//! what they hold when they are dropped, unwinding included.
//!
//! What a writer wrote is seen by every later reader because it publishes under the lock after it has copied, and the
//! reader finds the row live under the same lock before it copies. What a reader reads cannot change because it unpins
//! under the lock after it has copied, and a writer is given the slot under the lock only then. No other ordering is
//! needed, so there are no atomics here.
//!
//! A writer whose claim is refused waits until rows are published or a pin is dropped. Those who hold tokens never wait
//! for anything while they hold them, so every wait ends.

use crate::control::Control;
use crate::layout::{Layout, Span};
use crate::sync::{self, Condvar, Mutex, MutexGuard};
use memmap2::{MmapOptions, MmapRaw};
use rl_minibatch::BatchMut;
use std::io;
use std::ops::Range;

/// What lies beside the rows under the same lock.
pub(crate) trait Companion {
    /// Rows that may be drawn from now on.
    fn came_alive(&mut self, keys: Range<u64>);
}

/// Rows in a ring of slots, shared by any number of writers and readers, and beside them a companion `S` (samplers and
/// counts) that the same lock guards.
pub(crate) struct Ring<S> {
    layout: Layout,
    capacity: u64,
    reserve: u64,
    memory: MmapRaw,
    shared: Mutex<Shared<S>>,
    /// Notified when a claim that was refused may now succeed.
    moved: Condvar,
}

struct Shared<S> {
    control: Control,
    /// Threads waiting on `moved`; notifying costs a system call, so it is left out when there are none.
    waiting: usize,
    companion: S,
}

impl<S: Companion> Ring<S> {
    /// An empty ring. The memory is reserved and zero; pages are taken when rows are first written.
    pub(crate) fn new(layout: Layout, capacity: u64, reserve: u64, companion: S) -> io::Result<Self> {
        let bytes = layout
            .ring_bytes(capacity, reserve)
            .ok_or_else(|| io::Error::new(io::ErrorKind::OutOfMemory, "more than can be addressed"))?;
        let memory = MmapOptions::new().len(bytes).map_anon()?;
        // Rows are read in random order: with huge pages most of the misses of the address translation go away. Where
        // the kernel does not offer them the buffer works all the same.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        Ok(Self {
            layout,
            capacity,
            reserve,
            memory: memory.into(),
            shared: Mutex::new(Shared { control: Control::new(capacity, reserve), waiting: 0, companion }),
            moved: Condvar::new(),
        })
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The most rows that one claim may ask for.
    pub(crate) fn reserve(&self) -> u64 {
        self.reserve
    }

    /// Bytes of the slots.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory.len()
    }

    /// Takes the lock, for as short as can be.
    pub(crate) fn lock(&self) -> Locked<'_, S> {
        Locked { ring: self, shared: self.shared.lock() }
    }

    /// Claims `rows` serials (at most [`reserve`](Self::reserve)), waiting while their slots are in use.
    pub(crate) fn claim(&self, rows: u64) -> Claim<'_, S> {
        assert!(rows <= self.reserve);
        let mut shared = self.shared.lock();
        loop {
            if let Some(keys) = shared.control.try_claim(rows) {
                return Claim { ring: self, written: keys.start, keys, ended: false };
            }
            shared = self.wait(shared);
        }
    }

    /// Waits until nobody copies, then keeps everybody out until the result is dropped.
    pub(crate) fn exclusive(&self) -> Exclusive<'_, S> {
        let mut shared = self.shared.lock();
        while !shared.control.is_quiet() {
            shared = self.wait(shared);
        }
        Exclusive { ring: self, shared }
    }

    fn wait<'a>(&self, mut shared: MutexGuard<'a, Shared<S>>) -> MutexGuard<'a, Shared<S>> {
        shared.waiting += 1;
        let mut shared = sync::wait(&self.moved, shared);
        shared.waiting -= 1;
        shared
    }

    fn notify(&self, shared: &Shared<S>) {
        if shared.waiting > 0 {
            self.moved.notify_all();
        }
    }

    /// Brings ready rows to life and wakes those who wait.
    fn advance(&self, shared: &mut Shared<S>) {
        let alive = shared.control.advance(|serial| {
            // SAFETY: the serial was given up, so its writer is done with the slot, and it is not live, so nobody reads
            // it; nobody else claims the slot while the lock is held. Its predecessor is live, so nobody writes it.
            unsafe { self.copy_slot(self.slot(serial - 1), serial) }
        });
        self.notify(shared);
        if !alive.is_empty() {
            shared.companion.came_alive(alive);
        }
    }

    /// The slot of `serial`: `stride` bytes inside the mapping.
    fn slot(&self, serial: u64) -> *mut u8 {
        let slot = (serial % (self.capacity + self.reserve)) as usize;
        // SAFETY: slot < capacity + reserve, and the mapping has (capacity + reserve) · stride bytes (see `new`).
        unsafe { self.memory.as_mut_ptr().add(slot * self.layout.stride) }
    }

    /// # Safety
    /// `from` is readable for a slot's `stride` bytes and nobody writes them; nobody else touches the slot of `to`.
    unsafe fn copy_slot(&self, from: *const u8, to: u64) {
        // SAFETY: the caller's promise; two slots are the same or do not overlap, and `copy` allows either.
        unsafe { std::ptr::copy(from, self.slot(to), self.layout.stride) }
    }

    /// Writes row `row` of `columns` (columns of rows, one a field) into the slot of `serial`.
    ///
    /// # Safety
    /// Nobody else touches the slot.
    unsafe fn write(&self, serial: u64, row: usize, columns: &[&[u8]]) {
        assert_eq!(columns.len(), self.layout.fields.len());
        let slot = self.slot(serial);
        for (&Span { offset, bytes }, column) in self.layout.fields.iter().zip(columns) {
            let cell = &column[row * bytes..][..bytes];
            // SAFETY: `cell` has `bytes` bytes; the field lies inside the slot; the caller has the slot to itself, and
            // safe code has no reference into the mapping that `cell` could be.
            unsafe { std::ptr::copy_nonoverlapping(cell.as_ptr(), slot.add(offset), bytes) };
            sync::midway();
        }
    }

    /// Reads the row in the slot of `serial` into row `row` of `out`.
    ///
    /// # Safety
    /// Nobody writes the slot.
    unsafe fn read(&self, serial: u64, row: usize, out: &mut BatchMut<'_>) {
        let slot = self.slot(serial);
        for (position, &Span { offset, bytes }) in self.layout.fields.iter().enumerate() {
            let cell = out.cell_mut(position, row);
            assert_eq!(cell.len(), bytes);
            // SAFETY: the field lies inside the slot, which is initialised (the mapping begins as zeros) and not being
            // written; `cell` has `bytes` bytes and is no part of the mapping.
            unsafe { std::ptr::copy_nonoverlapping(slot.add(offset), cell.as_mut_ptr(), bytes) };
            sync::midway();
        }
    }
}

/// The lock on a ring, held.
pub(crate) struct Locked<'a, S> {
    ring: &'a Ring<S>,
    shared: MutexGuard<'a, Shared<S>>,
}

impl<'a, S: Companion> Locked<'a, S> {
    /// The serials that may be drawn.
    pub(crate) fn live(&self) -> Range<u64> {
        self.shared.control.live()
    }

    pub(crate) fn companion(&mut self) -> &mut S {
        &mut self.shared.companion
    }

    /// Lets go of the lock and keeps the live rows from `oldest` on from being overwritten.
    ///
    /// # Panics
    /// When `oldest` is not live.
    pub(crate) fn pin(mut self, oldest: u64) -> Pin<'a, S> {
        let live = self.live();
        assert!(live.contains(&oldest), "only live rows can be pinned");
        self.shared.control.pin(oldest);
        Pin { ring: self.ring, keys: oldest..live.end }
    }
}

/// Serials that one writer fills.
pub(crate) struct Claim<'a, S: Companion> {
    ring: &'a Ring<S>,
    keys: Range<u64>,
    /// The first of `keys` that has not been written.
    written: u64,
    ended: bool,
}

impl<S: Companion> Claim<'_, S> {
    pub(crate) fn keys(&self) -> Range<u64> {
        self.keys.clone()
    }

    /// Copies row `row` of `columns` into the claim's next serial.
    ///
    /// # Panics
    /// When the claim is full, or the columns are not as the layout says.
    pub(crate) fn write(&mut self, row: usize, columns: &[&[u8]]) {
        assert!(self.written < self.keys.end, "the claim is full");
        // SAFETY: the serial is claimed and not published, so by the invariants of `Control` its slot is this claim's
        // alone; `&mut self` keeps the claim to one thread.
        unsafe { self.ring.write(self.written, row, columns) };
        self.written += 1;
    }

    /// Ends the claim: its rows come to life, once those before them have.
    ///
    /// # Panics
    /// When not every serial was written.
    pub(crate) fn publish(mut self) {
        assert_eq!(self.written, self.keys.end, "a row of the claim was not written");
        let mut shared = self.ring.shared.lock();
        self.ended = true;
        shared.control.publish(self.keys.clone());
        self.ring.advance(&mut shared);
    }
}

impl<S: Companion> Drop for Claim<'_, S> {
    fn drop(&mut self) {
        // Not published: the thread is unwinding. Others must not wait for this claim for ever.
        if !self.ended {
            let mut shared = self.ring.shared.lock();
            shared.control.give_up(self.keys.clone());
            self.ring.advance(&mut shared);
        }
    }
}

/// Live serials that one reader copies.
pub(crate) struct Pin<'a, S: Companion> {
    ring: &'a Ring<S>,
    keys: Range<u64>,
}

impl<S: Companion> Pin<'_, S> {
    /// Copies the row of `serial` into row `row` of `out`.
    ///
    /// # Panics
    /// When `serial` is not pinned, or `out` is not as the layout says.
    #[inline]
    pub(crate) fn read(&self, serial: u64, row: usize, out: &mut BatchMut<'_>) {
        assert!(self.keys.contains(&serial), "the row is not pinned");
        // SAFETY: the serial was live when it was pinned, so its row is whole, and by the invariants of `Control` its
        // slot is claimed by nobody until the pin is dropped.
        unsafe { self.ring.read(serial, row, out) };
    }

    /// Lets go of the rows before `oldest`, so that writers may overwrite them; the others stay pinned.
    ///
    /// # Panics
    /// When `oldest` is not pinned.
    pub(crate) fn release_before(&mut self, oldest: u64) {
        assert!(self.keys.contains(&oldest), "the row is not pinned");
        let mut shared = self.ring.shared.lock();
        shared.control.move_pin(self.keys.start, oldest);
        self.keys.start = oldest;
        self.ring.notify(&shared);
    }
}

impl<S: Companion> Drop for Pin<'_, S> {
    fn drop(&mut self) {
        let mut shared = self.ring.shared.lock();
        shared.control.unpin(self.keys.start);
        self.ring.notify(&shared);
    }
}

/// The whole ring, in one thread's hands.
pub(crate) struct Exclusive<'a, S> {
    ring: &'a Ring<S>,
    shared: MutexGuard<'a, Shared<S>>,
}

impl<S: Companion> Exclusive<'_, S> {
    pub(crate) fn live(&self) -> Range<u64> {
        self.shared.control.live()
    }

    pub(crate) fn companion(&mut self) -> &mut S {
        &mut self.shared.companion
    }

    /// Writes the slot of `serial`, whatever is there.
    pub(crate) fn write(&mut self, serial: u64, row: usize, columns: &[&[u8]]) {
        // SAFETY: nobody copies (see `Ring::exclusive`) and nobody can begin to, for the lock is held.
        unsafe { self.ring.write(serial, row, columns) };
    }

    /// Copies the rows `keys` of a ring with the same layout.
    pub(crate) fn copy_from<T: Companion>(&mut self, other: &Exclusive<'_, T>, keys: Range<u64>) {
        assert_eq!(self.ring.layout, other.ring.layout);
        for key in keys {
            // SAFETY: nobody else copies in either ring; both have slots of one stride.
            unsafe { self.ring.copy_slot(other.ring.slot(key), key) };
        }
    }

    /// Makes `live` the live rows. They must have been written.
    pub(crate) fn restore(&mut self, live: Range<u64>) {
        self.shared.control.restore(live);
    }
}
