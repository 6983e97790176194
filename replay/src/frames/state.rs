//! The state of a buffer of frames: frames first, then rows.

use super::store::PER_MARK;
use super::{FramePadding, FrameReplay};
use crate::file::{Lineage, Section};
use crate::recording::Recording;
use crate::ring::{Pin, Ring};
use crate::snapshot::{BLOCK_BYTES, Moment, Plain, Put, RowSet, Source, room_for, show_rows};
use rl_minibatch::{StateError, StateVisitor, scalar, scope, slice};
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
        if visitor.loading() {
            return self.load_from(&mut Plain(visitor));
        }
        let everything = |_: &Lineage, rows: &Range<u64>, frames: &Range<u64>| {
            Ok::<_, StateError>((rows.start, frames.start))
        };
        self.moment(everything)?.show_both(visitor, BLOCK_BYTES)
    }

    /// Takes hold of the present state. `first` says from which row and which frame on they are going to be shown.
    pub(crate) fn moment<E: From<StateError>>(
        &self,
        first: impl FnOnce(&Lineage, &Range<u64>, &Range<u64>) -> Result<(u64, u64), E>,
    ) -> Result<FrameMoment<'_>, E> {
        let store = &*self.store;
        // No frame or row comes while this is held, so rows and frames are of one moment.
        let mut turn = store.turn();
        let pin = store.frames.pin_alone();
        let head = turn.head();
        let live = pin.as_ref().map_or(head..head, |pin| pin.live());
        let mut header = Header::new(self, live.clone());
        header.drawable_from = store.drawable_from();
        // A mark that D has passed says nothing any more; it may be what an earlier block left.
        let says = |mark: u64| if mark > header.drawable_from { mark } else { 0 };
        header.marks = blocks(&live).map(|block| says(*turn.ledger.mark(block))).collect();
        let mut first_frame = live.start;
        let rows = store.rows.moment(|lineage, rows| {
            let (row, frame) = first(lineage, &rows, &live)?;
            first_frame = frame;
            Ok::<_, E>(row)
        })?;
        Ok(FrameMoment { header, frames: first_frame.clamp(live.start, live.end)..live.end, pin, rows })
    }

    /// Replaces the state by what `source` gives.
    pub(crate) fn load_from(&self, source: &mut dyn Source) -> Result<(), StateError> {
        let store = &*self.store;
        let mut turn = store.turn();
        let mut frames = store.frames.exclusive();
        let mut header = Header::new(self, 0..0);
        let mut aside = None;
        within(source, RowSet::Frames, |source| {
            header.visit(source.visitor())?;
            let live = header.live.clone();
            // Frames go into their slots at once if there is none to be lost, else aside until the rows have come.
            if !frames.live().is_empty() {
                aside = Some(room_for(&store.frames, &live)?);
            }
            let schema = &store.frame_schema;
            // Frames lie in their slots as they come, so nothing is refused.
            let mut put = Put { layout: store.frames.layout(), live: &live, refused: None };
            match aside.as_ref().map(Ring::exclusive) {
                None => source.rows(RowSet::Frames, schema, &live, &mut |keys, batch| {
                    put.rows(&mut frames, keys, batch);
                }),
                Some(mut aside) => source.rows(RowSet::Frames, schema, &live, &mut |keys, batch| {
                    put.rows(&mut aside, keys, batch);
                }),
            }
        })?;
        // All or nothing; nobody draws them before the frames are open.
        within(source, RowSet::Rows, |source| store.rows.load_from(source))?;
        let Header { live, drawable_from, marks, .. } = header;
        if let Some(aside) = &aside {
            frames.copy_from(&aside.exclusive(), live.clone());
        }
        // Rows to come can be drawn, whatever a damaged state says.
        let inserted = store.rows.inserted();
        turn.ledger.marks.fill(0);
        for (block, mark) in blocks(&live).zip(marks) {
            *turn.ledger.mark(block) = mark.min(inserted);
        }
        turn.ledger.loads += 1;
        store.restore_drawable(drawable_from.min(inserted));
        frames.restore(live);
        Ok(())
    }
}

/// As [`scope`], for a source of both sets.
fn within(
    source: &mut dyn Source,
    set: RowSet,
    inside: impl FnOnce(&mut dyn Source) -> Result<(), StateError>,
) -> Result<(), StateError> {
    source.visitor().enter(set.scope());
    let result = inside(source);
    source.visitor().leave();
    result
}

/// The buffer as it was at one moment, while others go on.
pub(crate) struct FrameMoment<'a> {
    header: Header<'a>,
    /// Those that are shown, the newest of the live ones.
    frames: Range<u64>,
    pin: Option<Pin<'a>>,
    rows: Moment<'a>,
}

impl FrameMoment<'_> {
    /// The rows and the frames.
    pub(crate) fn both_sections(&self) -> (Section, Section) {
        let frames = Section { live: self.header.live.clone(), here: self.frames.clone() };
        (self.rows.section(), frames)
    }

    /// The lineage of the rows is that of all.
    pub(crate) fn rows_lineage(&self) -> u64 {
        self.rows.lineage()
    }

    /// Shows it, with frames and rows in blocks of about `block_bytes`. Rows, which are small, are copied first and let go
    /// of, frames as soon as they are copied.
    pub(crate) fn show_both(
        self,
        visitor: &mut dyn StateVisitor,
        block_bytes: usize,
    ) -> Result<(), StateError> {
        let Self { mut header, frames, pin, rows } = self;
        let mut copied = Recording::default();
        rows.show(&mut copied, block_bytes)?;
        scope(visitor, RowSet::Frames.scope(), |visitor| {
            header.visit(visitor)?;
            show_rows(visitor, &header.replay.store.frame_schema, frames, block_bytes, pin)
        })?;
        scope(visitor, RowSet::Rows.scope(), |visitor| copied.show(visitor))
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
