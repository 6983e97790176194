//! The kinds of buffers that can be held as they are at one moment, to be written to a file.

use super::error::SnapshotError;
use super::format::Section;
use super::open::Opened;
use crate::frames::FrameMoment;
use crate::snapshot::Moment;
use crate::{FrameReplay, Replay};
use rl_minibatch::{StateError, StateVisitor};
use std::ops::Range;

/// Which snapshots a buffer continues: those that were saved of it since it was made or loaded, and the one it was loaded
/// from. Only to these can an increment add.
pub(crate) struct Lineage {
    /// Drawn at random, and anew with every load.
    own: u64,
    loaded: Option<u64>,
}

impl Lineage {
    /// Of a buffer that is new, or was just loaded from the snapshot with this id.
    pub(crate) fn new(loaded: Option<u64>) -> Self {
        Self { own: rand::random(), loaded }
    }

    /// What the snapshots of this buffer are marked with.
    pub(crate) fn own(&self) -> u64 {
        self.own
    }

    pub(super) fn continues(&self, base: &Opened) -> bool {
        base.meta.lineage == self.own || self.loaded == Some(base.footer.id)
    }

    /// From which row on, and which frame if there are any, what is live is new since `base`.
    fn new_since(
        &self,
        base: Option<&Opened>,
        rows: &Range<u64>,
        frames: Option<&Range<u64>>,
    ) -> Result<(u64, u64), SnapshotError> {
        let frames_live = frames.cloned().unwrap_or(0..0);
        let Some(base) = base else { return Ok((rows.start, frames_live.start)) };
        let base_rows = base.meta.rows.live.end;
        let base_frames = base.meta.frames.as_ref().map(|section| section.live.end);
        let known = base_frames.is_some() == frames.is_some()
            && base_rows <= rows.end
            && base_frames.unwrap_or(0) <= frames_live.end;
        if !known || !self.continues(base) {
            return Err(SnapshotError::Unrelated { base: base.path.clone() });
        }
        Ok((base_rows, base_frames.unwrap_or(0)))
    }
}

/// A buffer that can be held as it is at one moment.
pub(super) trait Hold {
    type Held<'a>: Held
    where
        Self: 'a;

    /// Takes hold of the present state, and is going to show what is new since `base`.
    fn hold(&self, base: Option<&Opened>) -> Result<Self::Held<'_>, SnapshotError>;
}

/// The state of a buffer at one moment.
pub(super) trait Held {
    /// Its rows, and its frames if it has some.
    fn sections(&self) -> (Section, Option<Section>);

    /// See [`Lineage::own`].
    fn lineage(&self) -> u64;

    /// Shows it, with rows in blocks of about `block_bytes`.
    fn show(self, visitor: &mut dyn StateVisitor, block_bytes: usize) -> Result<(), StateError>;
}

impl Hold for Replay {
    type Held<'a> = Moment<'a>;

    fn hold(&self, base: Option<&Opened>) -> Result<Moment<'_>, SnapshotError> {
        self.moment(|lineage, live| Ok(lineage.new_since(base, &live, None)?.0))
    }
}

impl Held for Moment<'_> {
    fn sections(&self) -> (Section, Option<Section>) {
        (self.section(), None)
    }

    fn lineage(&self) -> u64 {
        self.lineage()
    }

    fn show(self, visitor: &mut dyn StateVisitor, block_bytes: usize) -> Result<(), StateError> {
        self.show(visitor, block_bytes)
    }
}

impl Hold for FrameReplay {
    type Held<'a> = FrameMoment<'a>;

    fn hold(&self, base: Option<&Opened>) -> Result<FrameMoment<'_>, SnapshotError> {
        self.moment(|lineage, rows, frames| lineage.new_since(base, rows, Some(frames)))
    }
}

impl Held for FrameMoment<'_> {
    fn sections(&self) -> (Section, Option<Section>) {
        let (rows, frames) = self.both_sections();
        (rows, Some(frames))
    }

    fn lineage(&self) -> u64 {
        self.rows_lineage()
    }

    fn show(self, visitor: &mut dyn StateVisitor, block_bytes: usize) -> Result<(), StateError> {
        self.show_both(visitor, block_bytes)
    }
}
