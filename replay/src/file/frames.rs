//! Snapshots of buffers of frames: both rings in one file.

use super::chain::Schemas;
use super::{Snapshot, SnapshotError, SnapshotOptions, load, save};
use crate::FrameReplay;
use std::path::Path;

impl FrameReplay {
    /// Saves the buffer as it is now to one file: frames, rows, counters, priorities and what else the sampler keeps. As
    /// [`save_with`](Self::save_with) with default options.
    ///
    /// ```
    /// # use rl_replay::{Dtype, FrameReplay, FrameStep};
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("replay.snapshot");
    /// let builder = || FrameReplay::builder((Dtype::U8, &[84, 84]), (Dtype::I64, &[])).stack(4);
    /// let replay = builder().capacity(1_000).build()?;
    /// let mut stream = replay.stream();
    /// stream.begin(&[0; 84 * 84])?;
    /// let next_frame = &[1; 84 * 84];
    /// stream.step(FrameStep { action: &[0; 8], reward: 1.0, next_frame, terminated: false, truncated: false })?;
    /// replay.save(&path)?;
    ///
    /// let larger = builder().capacity(2_000).build()?;
    /// larger.load(&path)?;
    /// assert_eq!(larger.live(), 0..1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`save_with`](Self::save_with).
    pub fn save(&self, path: impl AsRef<Path>) -> Result<Snapshot, SnapshotError> {
        self.save_with(path, &SnapshotOptions::default())
    }

    /// Saves the buffer as it is now to one file, as [`Replay::save_with`](crate::Replay::save_with) does: written aside,
    /// brought to the disk and renamed, with every block checksummed.
    ///
    /// The file has the frames and the rows that refer to them, of one moment: every row that could be drawn then has
    /// all its frames in the file. Others go on meanwhile:
    ///
    /// * readers never wait for rows or frames;
    /// * streams wait while the sampler's state is copied (8 bytes a row for priorities), and where one is about to
    ///   overwrite a frame that has not been copied yet, or a row. Rows are copied to memory first; then frames are
    ///   copied to the file, oldest first, and let go of block by block.
    ///
    /// What a stream holds that is in no row yet is not saved: the steps that wait for their n-th successor, and where
    /// its environment is. That is [a state of the stream's own](crate::FrameStream::visit).
    ///
    /// Cost: the live frames and rows once through memory and a checksum; memory of a block, of the rows without their
    /// frames, and of the sampler's state.
    ///
    /// # Errors
    /// Those of [`Replay::save_with`](crate::Replay::save_with).
    pub fn save_with(
        &self,
        path: impl AsRef<Path>,
        options: &SnapshotOptions,
    ) -> Result<Snapshot, SnapshotError> {
        save(self, path.as_ref(), options, None, |file| Box::new(file))
    }

    /// Saves what is new since the snapshot `base`, as [`Replay::save_increment`](crate::Replay::save_increment) does: the
    /// frames and rows inserted since, and all counters and priorities. Where neither a row nor a frame of `base` is live
    /// any more the file stands alone.
    ///
    /// # Errors
    /// Those of [`Replay::save_increment`](crate::Replay::save_increment).
    pub fn save_increment(
        &self,
        base: impl AsRef<Path>,
        path: impl AsRef<Path>,
        options: &SnapshotOptions,
    ) -> Result<Snapshot, SnapshotError> {
        save(self, path.as_ref(), options, Some(base.as_ref()), |file| Box::new(file))
    }

    /// Replaces the buffer's state by the snapshot `path`, together with those that it adds to. Draws, keys and
    /// priorities go on as they would have in the buffer that was saved.
    ///
    /// The capacity may be another than the saved one, as long as the live rows and the live frames fit. Everything is
    /// read and checked, older files too. Others are kept out meanwhile. An empty buffer is loaded in place; one
    /// that holds frames keeps them until all has come, which takes the memory of both. Rows of older files, without their
    /// frames, are held in memory until the newest file's have come.
    ///
    /// Episodes that were under way when the file was saved end with their last row: streams of a new process begin
    /// new episodes, unless [their own state](crate::FrameStream::visit) was kept and is loaded, too. Rows that are
    /// loaded are drawn as before, and no stack reaches across the gap. Streams of this very buffer go on with the episode
    /// that they are in, and insert the frames of its newest stack anew.
    ///
    /// # Errors
    /// Those of [`Replay::load`](crate::Replay::load); [`SnapshotError::State`] also for another frame, k, W or padding.
    /// The buffer is then as it was.
    pub fn load(&self, path: impl AsRef<Path>) -> Result<Snapshot, SnapshotError> {
        let store = &*self.store;
        let schemas = Schemas { rows: store.rows.schema(), frames: Some(&store.frame_schema) };
        load(path.as_ref(), schemas, |source| self.load_from(source))
    }
}
