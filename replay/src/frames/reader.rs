//! Drawing rows together with their frames.

use super::store::Store;
use crate::control::PinCell;
use crate::{Key, Reader, ReplayError, WhenLimited};
use rl_minibatch::{Batch, BatchMut, Drawn, Rng, Schema, Updated};
use std::sync::Arc;

/// Draws rows from a [`FrameReplay`](crate::FrameReplay), made by its
/// [`sampler`](crate::FrameReplay::sampler). `Send`; each thread has its own, and they do not
/// wait for each other while they copy.
pub struct FrameReader {
    store: Arc<Store>,
    rows: Reader,
    cell: PinCell,
    /// Scratch: the rows as they are stored, and the serials of their frames.
    stored: Batch,
    serials: Vec<u64>,
    /// Scratch: which frames of the batch are zeros.
    zeros: Vec<usize>,
}

impl Clone for FrameReader {
    fn clone(&self) -> Self {
        Self::with(self.store.clone(), self.rows.clone())
    }
}

impl Drop for FrameReader {
    fn drop(&mut self) {
        self.store.frames.withdraw(&self.cell);
    }
}

/// Positions in a batch and in a stored row.
const FRAMES: usize = 0;
const REFERENCES: usize = 3;

impl FrameReader {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        let rows = store.rows.sampler();
        Self::with(store, rows)
    }

    fn with(store: Arc<Store>, rows: Reader) -> Self {
        Self {
            rows,
            cell: store.frames.cell(),
            stored: Batch::new(store.rows.schema(), 0),
            serials: Vec::new(),
            zeros: Vec::new(),
            store,
        }
    }

    /// As [`Reader::when_limited`]: what a draw does that the buffer's rate limiter does not allow.
    pub fn when_limited(self, when: WhenLimited) -> Self {
        Self::with(self.store.clone(), self.rows.clone().when_limited(when))
    }

    /// What a row of a batch holds; see [`FrameReplay`](crate::FrameReplay).
    pub fn schema(&self) -> &Schema {
        &self.store.batch_schema
    }

    /// Draws `count` rows by the buffer's sampler and copies them, with their frames, into the first rows of `batch`. Only
    /// rows of which every frame is there are drawn, and the probabilities in `drawn` are those among these.
    ///
    /// Allocates nothing once `drawn` and the reader have grown to `count`. Cost: the draw, as
    /// [`Reader::sample_into`]'s, and one copy of W frames for each row; no lock is held while they are copied.
    ///
    /// # Errors
    /// [`ReplayError::Batch`] when the batch is for another schema or too small; [`ReplayError::Sample`] when there is
    /// nothing to draw from; [`ReplayError::BadDraw`] when a sampler of your own drew what is not there;
    /// [`ReplayError::NotFrames`] when a damaged state was loaded; with a rate limiter those of
    /// [`Reader::sample_into`]. The batch is then untouched.
    pub fn sample_into(
        &mut self,
        rng: &mut Rng,
        count: usize,
        batch: &mut BatchMut<'_>,
        drawn: &mut Drawn,
    ) -> Result<(), ReplayError> {
        let store = &*self.store;
        batch.check(&store.batch_schema, count)?;
        if self.stored.rows() < count {
            self.stored = Batch::new(store.rows.schema(), count);
        }
        // In this order; see `store.rs`. A rate limiter is waited for before anything is pinned.
        let pin_frames = || store.frames.pin(&self.cell).map(|frames| (frames, store.drawable_from()));
        let ((frames, from), mut rows) = self.rows.pin_for_after(count, pin_frames)?;
        rows.narrow(from);
        rows.draw(rng, count, drawn)?;
        rows.gather(&drawn.rows, &mut self.stored.view_mut())?;
        drop(rows);

        let window = store.window();
        self.serials.clear();
        self.zeros.clear();
        let references = &self.stored.column(REFERENCES)[..4 * window * count];
        for row in references.as_chunks::<4>().0.chunks_exact(window) {
            let newest = u32::from_ne_bytes(row[window - 1]);
            for reference in row {
                let reference = u32::from_ne_bytes(*reference);
                let mut frame = reference;
                if reference == newest.wrapping_add(1) {
                    self.zeros.push(self.serials.len());
                    frame = newest;
                }
                // Fewer than 2³² frames are pinned, so the low half of a serial tells which.
                let ahead = frame.wrapping_sub(frames.oldest() as u32);
                self.serials.push(frames.oldest() + u64::from(ahead));
            }
        }
        let kept = frames.oldest()..frames.live().end;
        if let Some(at) = self.serials.iter().position(|serial| !kept.contains(serial)) {
            // The store sees to it that this cannot be, but a state that was loaded may say anything.
            let (row, frame) = (drawn.rows[at / window], self.serials[at]);
            let why = format!(
                "row {row} refers to frame {frame}, and {kept:?} are kept; a damaged state was loaded, load another"
            );
            return Err(ReplayError::NotFrames { why });
        }
        let bytes = store.frame_schema.row_bytes();
        let column = &mut batch.column_mut(FRAMES)[..bytes * window * count];
        let mut cells = BatchMut::new(&store.frame_schema, window * count, [column])?;
        frames.gather(self.serials.iter().copied(), &mut cells);
        drop(frames);
        for &zero in &self.zeros {
            cells.cell_mut(0, zero).fill(0);
        }
        drop(cells);
        for position in 0..REFERENCES {
            let bytes = store.rows.schema().fields()[position].row_bytes() * count;
            batch.column_mut(position + 1)[..bytes].copy_from_slice(&self.stored.column(position)[..bytes]);
        }
        Ok(())
    }

    /// Sets the priorities of rows from magnitudes such as |δ|; see [`Reader::update_priorities`]. A row that is live but
    /// has lost its frames takes its priority, and is not drawn.
    ///
    /// # Errors
    /// As [`Reader::update_priorities`].
    pub fn update_priorities(&mut self, keys: &[Key], magnitudes: &[f32]) -> Result<Updated, ReplayError> {
        self.rows.update_priorities(keys, magnitudes)
    }
}

impl std::fmt::Debug for FrameReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameReader").field("rows", &self.rows).finish_non_exhaustive()
    }
}
