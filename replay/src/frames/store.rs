//! The two rings, and what keeps a row from being drawn without its frames.
//!
//! # Order of insertion
//!
//! Frames and rows are inserted under one lock, copying included, so all insertions of all streams are in one order,
//! and whoever sees a row sees its frames and every frame before them.
//!
//! # Which rows may be drawn
//!
//! `drawable_from` is a row key D of which holds: **every live row from D on has only frames that are live.** It is
//! moved just before a frame leaves the live range. For that, `marks` keeps for each block of [`PER_MARK`] frames how far
//! the rows reach whose *oldest* frame lies in the block: when the block's first frame leaves, D becomes the key after the
//! last of those rows. A row's oldest frame goes first, so no other frame of it needs a mark. No row comes to refer to a
//! block after D was moved past it: a new row's oldest frame is one of the newest `history`, and there are at least two
//! blocks of live frames beyond these.
//!
//! `history` also bounds what a silence costs: when a row's oldest frame is h frames old at its insertion, and leaves,
//! the `frames − h` frames after it have been inserted since, and the rows that came with these stay.
//!
//! # What a reader does
//!
//! 1. It pins the frames; let L be the oldest that it may read.
//! 2. It loads D.
//! 3. It pins the rows, and draws from those that are not before D.
//!
//! D was moved before L became the oldest live frame (the store comes before the frame is published, the load after the
//! pin), so those rows have no frame before L; and by the order of insertion none that is not live yet. There is one: the
//! newest row is never before D, and the rows are pinned after D was loaded. In the order 3, 2 a reader that is held up
//! between the two could find D beyond all that it pinned.
//!
//! # No circle of waiting
//!
//! Everybody takes what it holds in one order: the lock, then frames, then rows. An inserting stream has the lock and
//! one claim at a time, which it publishes before the next; a reader has pins on frames, then on rows, and never takes
//! the lock; saving takes the lock, pins both, and gives the lock back; loading takes the lock, closes the frames, then
//! the rows.

use super::FramePadding;
use crate::ring::Ring;
use crate::sync::{AtomicU64, Mutex, MutexGuard};
use crate::{Key, Replay, Writer};
use rl_minibatch::Schema;
use std::sync::atomic::Ordering::SeqCst;

/// Frames that share a mark.
pub(crate) const PER_MARK: u64 = 16;

/// See the module's documentation.
pub(crate) struct Store {
    pub(crate) rows: Replay,
    pub(crate) frames: Ring,
    pub(crate) frame_schema: Schema,
    pub(crate) batch_schema: Schema,
    pub(crate) stack: usize,
    pub(crate) n: usize,
    pub(crate) gamma: f64,
    pub(crate) padding: FramePadding,
    /// A new row refers to no frame that is not among so many newest ones.
    pub(crate) history: u64,
    drawable_from: AtomicU64,
    ledger: Mutex<Ledger>,
}

/// What the lock guards.
pub(crate) struct Ledger {
    /// For the block of a frame, the key after the last row whose oldest frame lies in it; 0 for none. As many blocks as
    /// can be live, and one more at either end. What an earlier block has left there does no harm: D is past it.
    pub(crate) marks: Vec<u64>,
    /// How often a state was loaded. Serials from before mean nothing any more.
    pub(crate) loads: u64,
}

impl Ledger {
    pub(crate) fn mark(&mut self, block: u64) -> &mut u64 {
        let blocks = self.marks.len() as u64;
        &mut self.marks[(block % blocks) as usize]
    }
}

impl Store {
    pub(crate) fn new(
        rows: Replay,
        frames: Ring,
        frame_schema: Schema,
        batch_schema: Schema,
        (stack, n, gamma, padding): (usize, usize, f64, FramePadding),
        history: u64,
    ) -> Self {
        let blocks = frames.capacity() / PER_MARK + 3;
        let ledger = Ledger { marks: vec![0; blocks as usize], loads: 0 };
        // Only handles that somebody inserts or draws with, or may yet take such from, let others go on.
        rows.uncounted(false);
        Self {
            rows,
            frames,
            frame_schema,
            batch_schema,
            stack,
            n,
            gamma,
            padding,
            history,
            drawable_from: AtomicU64::new(0),
            ledger: Mutex::new(ledger),
        }
    }

    /// Frames of a row: its two stacks, overlapping where they do so in every row.
    pub(crate) fn window(&self) -> usize {
        super::window(self.stack, self.n)
    }

    /// D.
    pub(crate) fn drawable_from(&self) -> Key {
        self.drawable_from.load(SeqCst)
    }

    /// Puts D to where a loaded state has it; the rings must be closed.
    pub(crate) fn restore_drawable(&self, from: Key) {
        self.drawable_from.store(from, SeqCst);
    }

    /// Waits for its turn to insert.
    pub(crate) fn turn(&self) -> Turn<'_> {
        Turn { store: self, ledger: self.ledger.lock() }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.rows.uncounted(true);
    }
}

/// The right to insert, in one thread's hands.
pub(crate) struct Turn<'a> {
    store: &'a Store,
    pub(crate) ledger: MutexGuard<'a, Ledger>,
}

impl Turn<'_> {
    /// The serial of the next frame.
    pub(crate) fn head(&self) -> u64 {
        self.store.frames.live().end
    }

    /// Inserts a frame and returns its serial.
    pub(crate) fn insert_frame(&mut self, frame: &[u8]) -> u64 {
        let frames = &self.store.frames;
        let mut claim = frames.claim(1);
        let serial = claim.keys().start;
        claim.write(0, &[frame]);
        // Before the frame that leaves is seen to have left.
        if let Some(leaving) = serial.checked_sub(frames.capacity()) {
            let from = *self.ledger.mark(leaving / PER_MARK);
            self.store.drawable_from.fetch_max(from, SeqCst);
        }
        claim.publish();
        serial
    }

    /// Inserts a checked and admitted row whose oldest frame is `oldest`.
    pub(crate) fn insert_row(&mut self, writer: &Writer, oldest: u64, row: &[&[u8]]) {
        debug_assert!(oldest + self.store.history >= self.head());
        let key = writer.push_checked(row);
        *self.ledger.mark(oldest / PER_MARK) = key + 1;
    }
}
