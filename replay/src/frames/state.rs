//! The state of a buffer of frames: frames first, then rows.

use super::store::PER_MARK;
use super::{FramePadding, FrameReplay};
use crate::recording::Recording;
use crate::ring::Ring;
use crate::snapshot::{BLOCK_BYTES, visit_rows};
use rl_minibatch::{Batch, StateError, StateVisitor, scalar, scope, slice};
use std::ops::Range;

impl FrameReplay {
    /// Shows the visitor everything the buffer's future depends on: the live frames, in blocks of some megabytes, then the
    /// rows and the sampler as [`Replay::visit`](crate::Replay::visit) does. A buffer that was loaded draws what the saved
    /// one would have drawn. Streams have [a state of their own](super::FrameStream::visit).
    ///
    /// Saving sees the buffer as it was at one moment, and others go on meanwhile: the rows, without frames, are copied
    /// at once, and frames are let go of block by block.
    ///
    /// Loading waits until nobody copies, and keeps everybody out. The capacity need not be the one that was saved if
    /// there is room for all live frames and rows. Loading into a buffer that holds frames takes memory for the new
    /// ones beside them. Streams that go on afterwards insert the frames of their stacks anew.
    ///
    /// The visitor must not use the buffer.
    ///
    /// # Errors
    /// Those of the visitor. When loading also [`StateError::Mismatch`] for another frame, k or W, and
    /// [`StateError::Invalid`] for more frames or rows than there is room for and for counters that make no sense; the
    /// buffer is then as it was.
    pub fn visit(&self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        if visitor.loading() { self.load(visitor) } else { self.save(visitor) }
    }

    fn save(&self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let store = &*self.store;
        let mut turn = store.turn();
        let mut pin = store.frames.pin_alone();
        let head = turn.head();
        let live = pin.as_ref().map_or(head..head, |pin| pin.live());
        let mut header = Header::new(self, live.clone());
        header.drawable_from = store.drawable_from();
        // A mark that D has passed says nothing any more; it may be what an earlier block left.
        let says = |mark: u64| if mark > header.drawable_from { mark } else { 0 };
        header.marks = blocks(&live).map(|block| says(*turn.ledger.mark(block))).collect();
        let mut rows = Recording::default();
        let moment = store.rows.moment(|_, live| Ok::<_, StateError>(live.start))?;
        drop(turn);
        moment.show(&mut rows, BLOCK_BYTES)?;
        scope(visitor, "frames", |visitor| {
            header.visit(visitor)?;
            visit_rows(visitor, &store.frame_schema, live.clone(), BLOCK_BYTES, |keys, batch| {
                let pinned = pin.as_mut().expect("there are frames, so they are pinned");
                pinned.gather(keys.clone(), &mut batch.view_mut());
                if keys.end < live.end {
                    pinned.release_before(keys.end);
                } else {
                    pin = None;
                }
            })
        })?;
        scope(visitor, "transitions", |visitor| rows.show(visitor))
    }

    fn load(&self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let store = &*self.store;
        let mut turn = store.turn();
        let mut frames = store.frames.exclusive();
        let mut header = Header::new(self, 0..0);
        let mut aside = None;
        scope(visitor, "frames", |visitor| {
            header.visit(visitor)?;
            let live = header.live.clone();
            // Frames go into their slots at once if there is none to be lost, else aside until the rows have come.
            if !frames.live().is_empty() {
                aside = Some(self.room_for(&live)?);
            }
            visit_rows(
                visitor,
                &store.frame_schema,
                live,
                BLOCK_BYTES,
                |keys, batch: &mut Batch| match &aside {
                    None => frames.write(keys, 0, &[batch.column(0)]),
                    Some(aside) => aside.exclusive().write(keys, 0, &[batch.column(0)]),
                },
            )
        })?;
        // All or nothing; nobody draws them before the frames are open.
        scope(visitor, "transitions", |visitor| store.rows.visit(visitor))?;
        let Header { live, drawable_from, marks, .. } = header;
        if let Some(aside) = &aside {
            frames.copy_from(&aside.exclusive(), live.clone());
        }
        turn.ledger.marks.fill(0);
        for (block, mark) in blocks(&live).zip(marks) {
            *turn.ledger.mark(block) = mark;
        }
        turn.ledger.loads += 1;
        store.restore_drawable(drawable_from);
        frames.restore(live);
        Ok(())
    }

    fn room_for(&self, live: &Range<u64>) -> Result<Ring, StateError> {
        let rows = (live.end - live.start).max(1);
        Ring::new(self.store.frames.layout().clone(), rows, 1).map_err(|error| {
            let why =
                format!("there is no memory to load {rows} frames beside those that are there: {error}");
            StateError::Invalid { path: "rows".into(), why }
        })
    }
}

/// The blocks with a mark that live frames lie in.
fn blocks(live: &Range<u64>) -> Range<u64> {
    live.start / PER_MARK..live.end.div_ceil(PER_MARK)
}

/// What has to agree before frames are looked at.
struct Header<'a> {
    replay: &'a FrameReplay,
    live: Range<u64>,
    drawable_from: u64,
    marks: Vec<u64>,
}

impl<'a> Header<'a> {
    fn new(replay: &'a FrameReplay, live: Range<u64>) -> Self {
        Self { replay, live, drawable_from: 0, marks: Vec::new() }
    }

    fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let store = &*self.replay.store;
        // The stack and the length of a row are all that stored rows depend on; n itself is not.
        for (name, here) in [
            ("stack", store.stack as u64),
            ("window", store.window() as u64),
            ("frame_bytes", store.frame_schema.row_bytes() as u64),
            ("zero_padding", u64::from(store.padding == FramePadding::Zero)),
        ] {
            let mut found = here;
            scalar(visitor, name, &mut found)?;
            if found != here {
                let (expected, found) = (here.to_string(), found.to_string());
                return Err(StateError::Mismatch { path: name.into(), expected, found });
            }
        }
        scalar(visitor, "oldest", &mut self.live.start)?;
        scalar(visitor, "inserted", &mut self.live.end)?;
        scalar(visitor, "drawable_from", &mut self.drawable_from)?;
        let (live, room) = (&self.live, store.frames.capacity());
        if live.end > u64::MAX / 2 || live.start > live.end || live.end - live.start > room {
            let why = format!(
                "it has frames {} to {} and this buffer room for {room}; build one for more",
                live.start, live.end
            );
            return Err(StateError::Invalid { path: "inserted".into(), why });
        }
        let blocks = blocks(live);
        self.marks.resize((blocks.end - blocks.start) as usize, 0);
        if !self.marks.is_empty() {
            slice(visitor, "marks", &mut self.marks)?;
        }
        Ok(())
    }
}
