//! The memory of the rows, and the only unsafe code of the crate.
//!
//! [`Ring`] puts together a [`Control`], which decides who may touch which slot, and the memory. Copying happens under
//! one of three tokens:
//!
//! * a [`Claim`]: the serials of one writer, whose slots it alone may write until it publishes them;
//! * a [`Pin`]: serials that one reader may read, and which no writer overwrites until the pin is dropped;
//! * [`Exclusive`]: the whole ring in one thread's hands.
//!
//! All check every serial against the range that they were given, so their methods are safe to call, and give back what
//! they hold when they are dropped, unwinding included.
//!
//! # Speed
//!
//! Rows are read in random order, so what counts is how many cache misses are under way at once. A batch is therefore
//! gathered in blocks of [`BLOCK`] rows: all lines of the next block are prefetched, then the present one is copied
//! field by field, each field by a loop made for its size. A field that slots hold as 16-bit floats is converted there,
//! cell by cell on its way between slot and column.

use crate::control::{Control, Journal, PinCell};
use crate::copy::{gather_column, gather_halves, prefetch, scatter_column, scatter_halves};
use crate::layout::{Layout, Span};
use crate::{sync, zeroed};
use memmap2::MmapRaw;
use rl_minibatch::BatchMut;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Rows whose cache misses overlap. A block of rows and its columns fit into the first-level cache.
const BLOCK: usize = 32;

/// Rows in a ring of slots, shared by any number of writers and readers.
pub(crate) struct Ring {
    layout: Layout,
    /// The most rows that one claim may ask for. The ring has twice as many slots beside its capacity, so that such a
    /// claim need not wait until no other is under way.
    reserve: u64,
    memory: MmapRaw,
    control: Control,
}

impl Ring {
    /// An empty ring. The memory is reserved and zero; pages are taken when rows are first written.
    pub(crate) fn new(layout: Layout, capacity: u64, reserve: u64) -> io::Result<Self> {
        let bytes = layout
            .ring_bytes(capacity, reserve)
            .ok_or_else(|| io::Error::new(io::ErrorKind::OutOfMemory, "more than can be addressed"))?;
        let memory = zeroed::map(bytes)?;
        let control = Control::new(capacity, 2 * reserve)?;
        Ok(Self { layout, reserve, memory: memory.into(), control })
    }

    /// A ring whose slots are in `memory`, a mapping of a file that nobody else writes to. Its rows `live` are there
    /// already. The journal is told of them, and of everything from then on.
    ///
    /// # Errors
    /// When there is no memory for the bookkeeping.
    ///
    /// # Panics
    /// When the mapping has another size than the slots.
    pub(crate) fn over(
        memory: MmapRaw,
        journal: Arc<dyn Journal>,
        layout: Layout,
        (capacity, reserve): (u64, u64),
        live: Range<u64>,
    ) -> io::Result<Self> {
        assert_eq!(Some(memory.len()), layout.ring_bytes(capacity, reserve));
        // A miss brings one page in and not those around it, which are as likely to be wanted as any others.
        #[cfg(unix)]
        let _ = memory.advise(memmap2::Advice::Random);
        let mut control = Control::new(capacity, 2 * reserve)?;
        control.keep_journal(journal);
        let ring = Self { layout, reserve, memory, control };
        ring.exclusive().restore(live);
        Ok(ring)
    }

    /// Brings the slots to the disk, if a file holds them: all rows that were live when it was called.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.memory.flush()
    }

    /// Waits until every row is live that anyone has claimed so far.
    pub(crate) fn catch_up(&self) {
        self.control.catch_up();
    }

    /// Has the journal, if there is one, note what is live now.
    pub(crate) fn note(&self) {
        self.control.note();
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.control.capacity()
    }

    /// The most rows that one claim may ask for.
    pub(crate) fn reserve(&self) -> u64 {
        self.reserve
    }

    /// How a row lies in its slot.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Bytes of the slots.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory.len()
    }

    /// The serials that may be drawn.
    pub(crate) fn live(&self) -> Range<u64> {
        self.control.live()
    }

    /// A cell for a reader to pin with, to be given back by [`withdraw`](Self::withdraw).
    pub(crate) fn cell(&self) -> PinCell {
        self.control.cell()
    }

    /// Takes a cell back.
    pub(crate) fn withdraw(&self, cell: &PinCell) {
        self.control.withdraw(cell);
    }

    /// Keeps all rows that are live, and those that come to life from now on, from being overwritten; `None` when there
    /// are none.
    pub(crate) fn pin<'a>(&'a self, cell: &'a PinCell) -> Option<Pin<'a>> {
        let keys = self.control.pin(cell)?;
        Some(Pin { ring: self, cell: Held::Lent(cell), oldest: keys.start })
    }

    /// As [`pin`](Self::pin), with a cell of its own.
    pub(crate) fn pin_alone(&self) -> Option<Pin<'_>> {
        let mut pin = Pin { ring: self, cell: Held::Own(self.cell()), oldest: 0 };
        // Should nothing be live, dropping the pin withdraws the cell.
        pin.oldest = self.control.pin(pin.cell.get())?.start;
        Some(pin)
    }

    /// Claims `rows` serials, at most [`reserve`](Self::reserve), waiting while their slots are in use.
    #[inline]
    pub(crate) fn claim(&self, rows: u64) -> Claim<'_> {
        assert!(rows <= self.reserve);
        let keys = self.control.claim(rows);
        Claim { ring: self, keys, written: false, ended: false }
    }

    /// Waits until nobody copies, then keeps everybody out until the result is dropped.
    pub(crate) fn exclusive(&self) -> Exclusive<'_> {
        self.control.close();
        Exclusive { ring: self }
    }

    /// Where the slot of `serial` begins: `stride` bytes inside the mapping from there.
    #[inline]
    fn offset(&self, serial: u64) -> usize {
        (serial % self.control.slots()) as usize * self.layout.stride
    }

    /// Writes `rows` rows of `columns`, from row `first` on, into the slots of `serial` and those that follow.
    ///
    /// # Safety
    /// Nobody else touches these slots.
    #[inline]
    unsafe fn write(&self, serial: u64, first: usize, rows: usize, columns: &[&[u8]]) {
        // Apart, so that a ring that rounds nothing asks once and not for each field.
        // SAFETY: the caller's promise.
        unsafe {
            if self.layout.rounds {
                self.write_as::<true>(serial, first, rows, columns);
            } else {
                self.write_as::<false>(serial, first, rows, columns);
            }
        }
    }

    /// [`write`](Self::write), where `ROUNDS` says whether there are fields that slots hold as 16-bit floats.
    ///
    /// # Safety
    /// As there.
    unsafe fn write_as<const ROUNDS: bool>(&self, serial: u64, first: usize, rows: usize, columns: &[&[u8]]) {
        assert_eq!(columns.len(), self.layout.fields.len());
        let (stride, slots) = (self.layout.stride, self.control.slots());
        let mut done = 0;
        while done < rows {
            let slot = (serial + done as u64) % slots;
            // Up to the ring's end, and few enough to stay in the cache from field to field.
            let run = (rows - done).min((slots - slot) as usize).min(BLOCK);
            // SAFETY: slot < slots, and the mapping has slots · stride bytes (see `new`).
            let slot = unsafe { self.memory.as_mut_ptr().add(slot as usize * stride) };
            for (span, column) in self.layout.fields.iter().zip(columns) {
                let Span { offset, bytes, .. } = *span;
                let (half, row_bytes) = if ROUNDS { (span.half, span.row_bytes()) } else { (None, bytes) };
                let cells = &column[(first + done) * row_bytes..][..run * row_bytes];
                // SAFETY: the field lies inside each of `run` slots that follow each other in the mapping; the caller
                // has them to itself, and safe code has no reference into the mapping that `cells` could be.
                unsafe {
                    match half {
                        None => scatter_column(cells, bytes, slot.add(offset), stride),
                        Some(half) => scatter_halves(half, cells, bytes, slot.add(offset), stride),
                    }
                }
                sync::midway();
            }
            done += run;
        }
    }

    /// Copies the row of a slot that begins at `from` into the slot of `to`.
    ///
    /// # Safety
    /// `from` is readable for a slot's `stride` bytes and nobody writes them; nobody else touches the slot of `to`.
    unsafe fn copy_slot(&self, from: *const u8, to: u64) {
        // SAFETY: the caller's promise; the slot lies in the mapping; two slots are the same or do not overlap, and
        // `copy` allows either.
        unsafe { std::ptr::copy(from, self.memory.as_mut_ptr().add(self.offset(to)), self.layout.stride) }
    }
}

/// Serials that one writer fills.
pub(crate) struct Claim<'a> {
    ring: &'a Ring,
    keys: Range<u64>,
    written: bool,
    ended: bool,
}

impl Claim<'_> {
    pub(crate) fn keys(&self) -> Range<u64> {
        self.keys.clone()
    }

    /// Fills the claim with as many rows of `columns` (columns of rows, one a field), from row `first` on.
    ///
    /// # Panics
    /// When the columns are not as the layout says.
    #[inline]
    pub(crate) fn write(&mut self, first: usize, columns: &[&[u8]]) {
        let rows = (self.keys.end - self.keys.start) as usize;
        // SAFETY: the serials are claimed and not published, so by the invariants of `Control` their slots are this
        // claim's alone; `&mut self` keeps the claim to one thread.
        unsafe { self.ring.write(self.keys.start, first, rows, columns) };
        self.written = true;
    }

    /// Ends the claim: its rows come to life, once those before them have.
    ///
    /// # Panics
    /// When it was not written.
    #[inline]
    pub(crate) fn publish(mut self) {
        assert!(self.written, "the rows of the claim were not written");
        self.ended = true;
        self.ring.control.publish(self.keys.clone());
    }
}

impl Drop for Claim<'_> {
    /// Not published: the thread is unwinding, in the middle of a row perhaps. Others must not wait for this claim for
    /// ever, and no garbage may be drawn. So each of its rows becomes a copy of the row before it; if there is none, the
    /// live range begins after the claim.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let Range { start, end } = self.keys.clone();
        let control = &self.ring.control;
        control.wait_for_turn(start);
        if control.live().is_empty() {
            control.begin_at(end);
        } else {
            for serial in start..end {
                // SAFETY: the row before the claim is live. Its slot is claimed by nobody: that would be a serial of
                // at least start − 1 + slots, and none is given out from published + slack = start + slack on. The
                // claim's own slots are nobody else's.
                unsafe {
                    let before = self.ring.memory.as_ptr().add(self.ring.offset(serial - 1));
                    self.ring.copy_slot(before, serial);
                }
            }
        }
        control.publish(start..end);
    }
}

/// Serials that one reader copies.
pub(crate) struct Pin<'a> {
    ring: &'a Ring,
    cell: Held<'a>,
    oldest: u64,
}

enum Held<'a> {
    Lent(&'a PinCell),
    Own(PinCell),
}

impl Held<'_> {
    fn get(&self) -> &PinCell {
        match self {
            Held::Lent(cell) => cell,
            Held::Own(cell) => cell,
        }
    }
}

impl Pin<'_> {
    /// The rows that may be read and drawn: those live now. Rows that have left the live range since the pin was made
    /// may be read too.
    pub(crate) fn live(&self) -> Range<u64> {
        let live = self.ring.live();
        live.start.max(self.oldest)..live.end
    }

    /// The oldest row that may be read.
    pub(crate) fn oldest(&self) -> u64 {
        self.oldest
    }

    /// Copies the rows `keys` into the first rows of `out`.
    ///
    /// # Panics
    /// When one of them is not pinned or not live yet, or `out` is not as the layout says or has too few rows.
    #[inline]
    pub(crate) fn gather(&self, keys: impl Iterator<Item = u64>, out: &mut BatchMut<'_>) {
        if self.ring.layout.rounds {
            self.gather_as::<true>(keys, out);
        } else {
            self.gather_as::<false>(keys, out);
        }
    }

    /// [`gather`](Self::gather), where `ROUNDS` says whether there are fields that slots hold as 16-bit floats.
    #[inline]
    fn gather_as<const ROUNDS: bool>(&self, mut keys: impl Iterator<Item = u64>, out: &mut BatchMut<'_>) {
        let ring = self.ring;
        let (stride, slots) = (ring.layout.stride, ring.control.slots());
        let pinned = self.oldest..ring.live().end;
        let first_slot = self.oldest % slots;
        // Slots of the next keys, and the beginning of their way into the cache.
        let mut next_block = |offsets: &mut [usize; BLOCK]| {
            let mut rows = 0;
            for offset in offsets.iter_mut() {
                let Some(key) = keys.next() else { break };
                assert!(pinned.contains(&key), "the row is not pinned");
                // Less than two rings ahead, so the slot is found without a division.
                let slot = first_slot + (key - pinned.start);
                let slot = if slot < slots { slot } else { slot - slots };
                *offset = slot as usize * stride;
                prefetch(ring.memory.as_ptr().wrapping_add(*offset), stride);
                rows += 1;
            }
            rows
        };
        let (mut offsets, mut next) = ([0; BLOCK], [0; BLOCK]);
        let mut rows = next_block(&mut offsets);
        let mut done = 0;
        while rows > 0 {
            let next_rows = next_block(&mut next);
            for (position, span) in ring.layout.fields.iter().enumerate() {
                let Span { offset, bytes, .. } = *span;
                let (half, row_bytes) = if ROUNDS { (span.half, span.row_bytes()) } else { (None, bytes) };
                let cells = &mut out.column_mut(position)[done * row_bytes..][..rows * row_bytes];
                // SAFETY: each serial was live when it was pinned or has come to life since, so its row is whole, and
                // by the invariants of `Control` its slot is claimed by nobody until the pin is dropped. Every offset
                // is that of a slot inside the mapping, which is initialised (it begins as zeros), and the field lies
                // inside the slot. `cells` is no part of the mapping.
                unsafe {
                    let from = ring.memory.as_ptr().add(offset);
                    match half {
                        None => gather_column(from, &offsets[..rows], bytes, cells),
                        Some(half) => gather_halves(half, from, &offsets[..rows], bytes, cells),
                    }
                }
                sync::midway();
            }
            done += rows;
            (offsets, rows) = (next, next_rows);
        }
    }

    /// Lets go of the rows before `oldest`, so that writers may overwrite them; the others stay pinned.
    ///
    /// # Panics
    /// When `oldest` is not pinned.
    pub(crate) fn release_before(&mut self, oldest: u64) {
        assert!(oldest >= self.oldest, "the row is not pinned");
        self.ring.control.move_pin(self.cell.get(), oldest);
        self.oldest = oldest;
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.ring.control.unpin(self.cell.get());
        if let Held::Own(cell) = &self.cell {
            self.ring.withdraw(cell);
        }
    }
}

/// The whole ring, in one thread's hands.
pub(crate) struct Exclusive<'a> {
    ring: &'a Ring,
}

impl Exclusive<'_> {
    pub(crate) fn live(&self) -> Range<u64> {
        self.ring.live()
    }

    /// Writes the slots of `keys`, whatever is there, from row `first` of `columns` on.
    pub(crate) fn write(&mut self, keys: Range<u64>, first: usize, columns: &[&[u8]]) {
        let rows = (keys.end - keys.start) as usize;
        // SAFETY: nobody copies (see `Ring::exclusive`) and nobody can begin to while this is held.
        unsafe { self.ring.write(keys.start, first, rows, columns) };
    }

    /// Copies the rows `keys` of a ring with the same layout.
    pub(crate) fn copy_from(&mut self, other: &Exclusive<'_>, keys: Range<u64>) {
        assert_eq!(self.ring.layout, other.ring.layout);
        for key in keys {
            // SAFETY: nobody else copies in either ring; both have slots of one stride.
            unsafe {
                let from = other.ring.memory.as_ptr().add(other.ring.offset(key));
                self.ring.copy_slot(from, key);
            }
        }
    }

    /// Makes `live` the live rows. They must have been written.
    pub(crate) fn restore(&mut self, live: Range<u64>) {
        self.ring.control.restore(live);
    }
}

impl Drop for Exclusive<'_> {
    fn drop(&mut self) {
        self.ring.control.open();
    }
}
