//! What the kinds of buffers that are saved to files have in common.

use super::open::Opened;
use super::{Snapshot, SnapshotError, SnapshotOptions};
use crate::{FrameReplay, Replay};
use std::ops::Range;
use std::path::Path;

/// A buffer that is saved to files: a [`Replay`] or a [`FrameReplay`]. Both have these methods themselves; the trait is
/// for what works with either, as [`SnapshotSeries`](crate::SnapshotSeries) does. It cannot be implemented elsewhere.
pub trait Durable: sealed::Sealed {
    /// As [`Replay::save_with`] and [`FrameReplay::save_with`].
    ///
    /// # Errors
    /// As there.
    fn save_with(&self, path: &Path, options: &SnapshotOptions) -> Result<Snapshot, SnapshotError>;

    /// As [`Replay::save_increment`] and [`FrameReplay::save_increment`].
    ///
    /// # Errors
    /// As there.
    fn save_increment(
        &self,
        base: &Path,
        path: &Path,
        options: &SnapshotOptions,
    ) -> Result<Snapshot, SnapshotError>;

    /// As [`Replay::load`] and [`FrameReplay::load`].
    ///
    /// # Errors
    /// As there.
    fn load(&self, path: &Path) -> Result<Snapshot, SnapshotError>;

    /// Makes sure that the buffer continues `snapshot`, so that an increment can add to it.
    ///
    /// # Errors
    /// [`SnapshotError::Unrelated`] if it does not; those of [`Snapshot::read`].
    fn check_continues(&self, snapshot: &Snapshot) -> Result<(), SnapshotError>;

    /// The serials of what takes the room in a file: of the rows that are live, or of the frames if there are any.
    fn bulk(&self) -> Range<u64>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::Replay {}
    impl Sealed for crate::FrameReplay {}
}

/// The methods that are the buffer's own.
macro_rules! own {
    () => {
        fn save_with(&self, path: &Path, options: &SnapshotOptions) -> Result<Snapshot, SnapshotError> {
            self.save_with(path, options)
        }

        fn save_increment(
            &self,
            base: &Path,
            path: &Path,
            options: &SnapshotOptions,
        ) -> Result<Snapshot, SnapshotError> {
            self.save_increment(base, path, options)
        }

        fn load(&self, path: &Path) -> Result<Snapshot, SnapshotError> {
            self.load(path)
        }
    };
}

impl Durable for Replay {
    own!();

    fn check_continues(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let opened = Opened::open(&snapshot.path)?;
        let (keeper, _) = self.shared.keeper();
        if keeper.lineage.continues(&opened) {
            return Ok(());
        }
        Err(SnapshotError::Unrelated { base: opened.path })
    }

    fn bulk(&self) -> Range<u64> {
        self.live()
    }
}

impl Durable for FrameReplay {
    own!();

    fn check_continues(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        self.store.rows.check_continues(snapshot)
    }

    fn bulk(&self) -> Range<u64> {
        self.store.frames.live()
    }
}
