//! Who may touch which row: the ring's bookkeeping, without the rows' memory.
//!
//! Every row has a *serial*, counted from 0 in the order of claiming; it is the row's key for ever. The ring has
//! `slots = capacity + slack` slots, and serial s lives in slot s mod `slots`. Two counters cut the serials:
//!
//! ```text
//!   0 ……………… live.start ………………………… published ………… claimed
//!   overwritten │ live: may be drawn │ being copied │ not yet given out
//! ```
//!
//! # States of a serial
//!
//! 1. *claimed* by one writer ([`try_claim`](Control::try_claim)), which alone may write its slot;
//! 2. *ready* once that writer has copied its row and called [`publish`](Control::publish);
//! 3. *live* once every serial before it is ready as well: rows come to life in the order of their serials, so the live
//!    rows are one range, `published − capacity .. published`;
//! 4. *overwritten*, in two steps: it leaves the live range when `capacity` newer rows live, and its slot is claimed
//!    anew only `slack` rows later.
//!
//! A reader *pins* the oldest serial that it may touch ([`pin`](Control::pin)), in a cell of its own.
//!
//! # Invariants, on which the safety of the memory rests
//!
//! * **A slot has one writer at a time, and never a writer and a reader.** Serial s shares its slot with s − slots. It is
//!   given out only below `limit`, and `limit ≤ published + slack` and `limit ≤ p + slots` for every pin p. By the first,
//!   s − slots lies before the live range, so it is not being written and cannot be pinned afresh; by the second no
//!   reader is still copying it.
//! * **A limit once found holds for ever.** It was made from `published` = P and from the pins seen after that. A pin that
//!   was not seen was stored later, so its reader read `published` later still and got at least P; it touches nothing
//!   before P − capacity, and P − capacity + slots = P + slack ≥ `limit`. Hence writers look at the pins only once in
//!   about `slack` rows, and `limit` only grows.
//! * **No live row is lost**: the live range shrinks only by growing at its other end.
//! * **Whatever is ready becomes live without anybody waiting.** A writer that is not next leaves its claim's end in
//!   `window`; who moves `published` to the beginning of that claim finds it there.
//!
//! # Memory orderings
//!
//! Four pairs of threads must not miss each other, each of the form "store mine, then load yours" on both sides; they
//! need the single order of `SeqCst`, on the store and on the load:
//!
//! * reader stores its pin, loads `published` — writer loads `published`, loads the pins;
//! * writer X leaves its end in `window`, loads `published` — writer Y stores `published`, loads `window`;
//! * reader stores its pin, loads the closed bit of `claimed` — [`close`](Control::close) sets it, loads the pins;
//! * a waiter adds itself to `waiting`, loads what it waits for — the other side stores that, loads `waiting`; and so with
//!   `starved` and `wanted` for writers without slots.
//!
//! For the rest release and acquire are enough: `published` (stored after the rows were copied, loaded before they are
//! read), `limit` (stored after the pins were seen to be gone, loaded before their rows are overwritten).
//!
//! # Waiting
//!
//! A writer waits only for a slot that a reader began to copy at least `slack` rows ago, or when as many rows are in the
//! hands of other writers. Those who hold claims or pins never wait for anything here, so every wait ends.

use crate::sync::{self, AtomicU64, AtomicUsize, Condvar, Mutex};
use crossbeam_utils::CachePadded;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};

/// In `claimed`: no claim is given out and no pin kept.
const CLOSED: u64 = 1 << 63;
/// In a pin's cell: nothing is pinned.
const NOTHING: u64 = u64::MAX;

/// Writes down what must be known of a ring whose slots outlive the process, so that after a crash its whole rows can be
/// told from others. Calls come one at a time.
pub(crate) trait Journal: std::fmt::Debug + Send + Sync {
    /// The rows `live` have come to life, and serials below `limit` are going to be given out: none of those that were
    /// not before has been yet.
    fn note(&self, limit: u64, live: Range<u64>);

    /// Nobody copies, and whatever the slots held before, now they hold the rows `live`.
    fn settled(&self, limit: u64, live: Range<u64>);
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Control {
    capacity: u64,
    slack: u64,
    claimed: CachePadded<AtomicU64>,
    published: CachePadded<AtomicU64>,
    limit: CachePadded<AtomicU64>,
    /// Nothing before it was ever live here: 0, or where a restored buffer began. Stored before `published`.
    floor: AtomicU64,
    /// For claims that were published before their turn: at the first serial mod the length, the claim's end. An entry
    /// of an earlier lap is not larger than the serial that looks it up.
    window: Box<[AtomicU64]>,
    cells: Mutex<Vec<Arc<Cell>>>,
    waiting: CachePadded<AtomicUsize>,
    /// Writers that wait for slots, and the least limit that would help one of them.
    starved: CachePadded<AtomicUsize>,
    wanted: CachePadded<AtomicU64>,
    gate: Mutex<()>,
    moved: Condvar,
    /// Asked only where a new limit is found, so without one there is nothing to pay for.
    journal: Option<Arc<dyn Journal>>,
}

/// Where one reader says what it may touch.
type Cell = CachePadded<AtomicU64>;

/// A reader's cell, to pin with. Dropping it withdraws it.
#[derive(Debug)]
pub(crate) struct PinCell(Arc<Cell>);

impl Control {
    /// An empty ring of `capacity` rows and `slack` more slots, both at least 1.
    pub(crate) fn new(capacity: u64, slack: u64) -> io::Result<Self> {
        assert!(capacity > 0 && slack > 0);
        let places = Self::window_bytes(slack) / size_of::<AtomicU64>() as u128;
        let refused = || io::Error::from(io::ErrorKind::OutOfMemory);
        let places = usize::try_from(places).map_err(|_| refused())?;
        let mut window = Vec::new();
        window.try_reserve_exact(places).map_err(|_| refused())?;
        window.extend((0..places).map(|_| AtomicU64::new(0)));
        Ok(Self {
            capacity,
            slack,
            claimed: CachePadded::new(AtomicU64::new(0)),
            published: CachePadded::new(AtomicU64::new(0)),
            limit: CachePadded::new(AtomicU64::new(slack)),
            floor: AtomicU64::new(0),
            window: window.into(),
            cells: Mutex::new(Vec::new()),
            waiting: CachePadded::new(AtomicUsize::new(0)),
            starved: CachePadded::new(AtomicUsize::new(0)),
            wanted: CachePadded::new(AtomicU64::new(u64::MAX)),
            gate: Mutex::new(()),
            moved: Condvar::new(),
            journal: None,
        })
    }

    /// Has every limit written down before it holds. To be called before anything else; the journal hears nothing yet.
    pub(crate) fn keep_journal(&mut self, journal: Arc<dyn Journal>) {
        self.journal = Some(journal);
    }

    /// Bytes of the bookkeeping that grow with `slack`.
    pub(crate) fn window_bytes(slack: u64) -> u128 {
        u128::from(slack).next_power_of_two() * size_of::<AtomicU64>() as u128
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    pub(crate) fn slots(&self) -> u64 {
        self.capacity + self.slack
    }

    /// The serials that may be drawn.
    pub(crate) fn live(&self) -> Range<u64> {
        let published = self.published.load(SeqCst);
        // Loaded after `published`, so that it is at least what it was when those rows came to life.
        let floor = self.floor.load(Acquire).min(published);
        floor.max(published.saturating_sub(self.capacity))..published
    }

    /// Claims the next `rows` serials, at most `slack`, waiting while their slots are in use.
    pub(crate) fn claim(&self, rows: u64) -> Range<u64> {
        debug_assert!(rows <= self.slack, "a larger claim would wait for ever");
        if let Some(keys) = self.try_claim(rows) {
            return keys;
        }
        self.claim_when_free(rows)
    }

    #[cold]
    fn claim_when_free(&self, rows: u64) -> Range<u64> {
        for _ in 0..sync::SPINS {
            if let Some(keys) = self.try_claim(rows) {
                return keys;
            }
            std::hint::spin_loop();
        }
        let mut gate = self.gate.lock();
        self.starved.fetch_add(1, SeqCst);
        let keys = loop {
            // Said before it is looked for, so that who makes room sees it, or is seen.
            let end = (self.claimed.load(SeqCst) & !CLOSED) + rows;
            self.wanted.fetch_min(end, SeqCst);
            if let Some(keys) = self.try_claim(rows) {
                break keys;
            }
            gate = sync::wait(&self.moved, gate);
        };
        self.starved.fetch_sub(1, SeqCst);
        keys
    }

    /// Claims the next `rows` serials if their slots are free.
    #[inline]
    pub(crate) fn try_claim(&self, rows: u64) -> Option<Range<u64>> {
        let mut first = self.claimed.load(Relaxed);
        loop {
            let end = first + rows;
            if first & CLOSED != 0 || (end > self.limit.load(Acquire) && end > self.find_limit()) {
                return None;
            }
            match self.claimed.compare_exchange_weak(first, end, AcqRel, Relaxed) {
                Ok(_) => return Some(first..end),
                Err(now) => first = now,
            }
        }
    }

    /// Looks at `published` and at the pins, in this order, and gives the new limit.
    #[cold]
    fn find_limit(&self) -> u64 {
        let cells = self.cells.lock();
        let live = self.live();
        let by_published = live.end + self.slack;
        let by_pins = cells.iter().map(|cell| cell.load(SeqCst).saturating_add(self.slots())).min();
        let limit = by_pins.map_or(by_published, |by_pins| by_pins.min(by_published));
        if let Some(journal) = &self.journal
            && limit > self.limit.load(Relaxed)
        {
            journal.note(limit, live);
        }
        self.limit.fetch_max(limit, AcqRel).max(limit)
    }

    /// The rows of a claim are copied: they come to life, once those before them have.
    #[inline]
    pub(crate) fn publish(&self, keys: Range<u64>) {
        if self.published.load(Acquire) == keys.start {
            // It is this claim's turn, and without an entry in the window nobody else can move `published` past it.
            self.published.store(keys.end, SeqCst);
        } else {
            self.window[self.place(keys.start)].store(keys.end, SeqCst);
        }
        self.advance();
        self.notify();
    }

    /// Brings to life what others left in the window.
    #[inline]
    fn advance(&self) {
        let mut published = self.published.load(SeqCst);
        loop {
            let end = self.window[self.place(published)].load(SeqCst);
            if end <= published {
                return;
            }
            match self.published.compare_exchange(published, end, SeqCst, SeqCst) {
                Ok(_) => published = end,
                Err(now) => published = now,
            }
        }
    }

    #[inline]
    fn place(&self, serial: u64) -> usize {
        (serial & (self.window.len() as u64 - 1)) as usize
    }

    /// Waits until every serial before `serial` is live.
    pub(crate) fn wait_for_turn(&self, serial: u64) {
        self.wait_until(|| self.published.load(SeqCst) == serial);
    }

    /// Waits until every row is live that anyone has claimed so far.
    pub(crate) fn catch_up(&self) {
        let claimed = self.claimed.load(SeqCst) & !CLOSED;
        self.wait_until(|| {
            let published = self.published.load(SeqCst);
            // A restore may have put the counters back.
            published >= claimed || published == self.claimed.load(SeqCst) & !CLOSED
        });
    }

    /// Has the journal note what is live now.
    pub(crate) fn note(&self) {
        if let Some(journal) = &self.journal {
            let _cells = self.cells.lock();
            journal.note(self.limit.load(Relaxed), self.live());
        }
    }

    /// The live range is to begin at `serial`, which is claimed and next to come to life: there is no row before it.
    pub(crate) fn begin_at(&self, serial: u64) {
        self.floor.store(serial, SeqCst);
    }

    /// A cell to pin with.
    pub(crate) fn cell(&self) -> PinCell {
        let cell = Arc::new(CachePadded::new(AtomicU64::new(NOTHING)));
        self.cells.lock().push(cell.clone());
        PinCell(cell)
    }

    /// Withdraws a cell.
    pub(crate) fn withdraw(&self, cell: &PinCell) {
        self.cells.lock().retain(|other| !Arc::ptr_eq(other, &cell.0));
    }

    /// A reader begins. It may touch the serials that are returned, and all that come to life after them, until
    /// [`unpin`](Self::unpin); `None` when nothing is live, and then nothing is pinned.
    #[inline]
    pub(crate) fn pin(&self, cell: &PinCell) -> Option<Range<u64>> {
        loop {
            let guess = self.live();
            if guess.is_empty() {
                return None;
            }
            cell.0.store(guess.start, SeqCst);
            if self.claimed.load(SeqCst) & CLOSED == 0 {
                // From here on nobody closes. Loaded anew: rows may have left the live range before the pin was seen. The
                // pin then lies before what is returned, which holds up a writer a little sooner than it has to and does
                // no harm. Had another state been loaded meanwhile, it might lie after that, and would be none.
                let live = self.live();
                if guess.start <= live.start && !live.is_empty() {
                    return Some(live);
                }
            }
            self.unpin(cell);
            self.wait_until(|| self.claimed.load(SeqCst) & CLOSED == 0);
        }
    }

    /// What is pinned in the cell is done with up to `oldest`, which must not be before it.
    pub(crate) fn move_pin(&self, cell: &PinCell, oldest: u64) {
        debug_assert!(cell.0.load(Relaxed) <= oldest);
        cell.0.store(oldest, SeqCst);
        self.notify();
    }

    /// The reader is done.
    #[inline]
    pub(crate) fn unpin(&self, cell: &PinCell) {
        // Release for what was read; SeqCst for those who wait.
        cell.0.store(NOTHING, SeqCst);
        self.notify();
    }

    /// Gives out no claim and no pin any more, and waits until all that were given out have been handed back.
    pub(crate) fn close(&self) {
        self.wait_until(|| self.claimed.fetch_or(CLOSED, SeqCst) & CLOSED == 0);
        self.wait_until(|| {
            self.published.load(SeqCst) == self.claimed.load(SeqCst) & !CLOSED
                && self.cells.lock().iter().all(|cell| cell.load(SeqCst) == NOTHING)
        });
    }

    /// Undoes [`close`](Self::close).
    pub(crate) fn open(&self) {
        if let Some(journal) = &self.journal {
            let _cells = self.cells.lock();
            journal.settled(self.limit.load(Relaxed), self.live());
        }
        self.claimed.fetch_and(!CLOSED, SeqCst);
        // The counters may have been set back, so what writers said they wait for means nothing.
        self.wake();
    }

    /// Puts the counters to where `live` says. Only while closed; `live` must not exceed the capacity.
    pub(crate) fn restore(&self, live: Range<u64>) {
        assert!(live.start <= live.end && live.end - live.start <= self.capacity);
        for entry in &self.window {
            entry.store(0, Relaxed);
        }
        // Who looks for a limit meanwhile must not make one of the counters as they were.
        let _cells = self.cells.lock();
        self.floor.store(live.start, SeqCst);
        self.published.store(live.end, SeqCst);
        self.limit.store(live.end + self.slack, SeqCst);
        self.claimed.store(live.end | CLOSED, SeqCst);
    }

    /// Waits for what `done` says. It is asked again whenever something was published, unpinned or opened.
    fn wait_until(&self, mut done: impl FnMut() -> bool) {
        for _ in 0..sync::SPINS {
            if done() {
                return;
            }
            std::hint::spin_loop();
        }
        let mut gate = self.gate.lock();
        self.waiting.fetch_add(1, SeqCst);
        while !done() {
            gate = sync::wait(&self.moved, gate);
        }
        self.waiting.fetch_sub(1, SeqCst);
    }

    #[inline]
    fn notify(&self) {
        // A system call is left out when there is nobody. Whoever comes now sees what was stored before.
        if self.waiting.load(SeqCst) > 0 {
            self.wake();
        } else if self.starved.load(SeqCst) > 0 {
            self.wake_starved();
        }
    }

    /// Wakes the writers that wait for slots if one of them would find its own now. Waking them in vain, with every row and
    /// every batch, would take a good part of the machine when more threads insert and draw than there are cores.
    #[cold]
    fn wake_starved(&self) {
        if self.find_limit() >= self.wanted.load(SeqCst) {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        // Under the gate, so that it is not between a waiter's last look and its sleep.
        let _gate = self.gate.lock();
        // Who goes on waiting says anew what for.
        self.wanted.store(u64::MAX, SeqCst);
        self.moved.notify_all();
    }
}
