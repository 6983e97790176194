//! A folder of snapshots that is kept small and in order.

use super::error::SnapshotError;
use super::{Durable, Snapshot, SnapshotOptions};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Files that one snapshot stands on at most, so that loading does not open too many.
const MAX_INCREMENTS: usize = 256;
const EXTENSION: &str = "snapshot";

/// Saves a buffer, a [`Replay`](crate::Replay) or a [`FrameReplay`](crate::FrameReplay), again and again into one folder, writing only what is new where that is worth it.
///
/// A snapshot is a *full* file, or an *increment* that adds the rows inserted since the one before it. An increment is
/// written while the rows of all the files that it stands on are at most twice those that are live, and the files not
/// more than 256 (of a buffer of frames, frames are counted); so each row is written about twice in its life at most, and the folder holds about two buffers, three
/// while a full file is written. Once a full file is on the disk, those before it are removed.
///
/// Files are called `00000017.snapshot`, counted up; other files in the folder are left alone. One process at a time may
/// use the folder.
///
/// ```
/// # use rl_replay::{Dtype, Replay, Schema};
/// use rl_replay::{SnapshotOptions, SnapshotSeries};
/// # let folder = tempfile::tempdir()?;
/// # let folder = folder.path().join("replay");
/// # let schema = Schema::transition((Dtype::F32, &[4]), (Dtype::I64, &[]))?;
/// # let replay = Replay::builder(schema.clone()).capacity(1_000).build()?;
/// let mut series = SnapshotSeries::open(&folder, SnapshotOptions::default())?;
/// series.load(&replay)?; // goes on where an earlier run left off, if there was one
/// for _ in 0..3 {
///     // … act and learn …
///     replay.writer().push(&[&[0; 16], &[0; 8], &[0; 4], &[0; 4], &[0; 16]])?;
///     series.save(&replay)?;
/// }
/// assert_eq!(series.newest().unwrap().live, 0..3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SnapshotSeries {
    folder: PathBuf,
    options: SnapshotOptions,
    /// A full file and the increments after it, each of which adds to the one before; the newest last.
    chain: Vec<Snapshot>,
    /// The number of the next file.
    next: u64,
}

impl SnapshotSeries {
    /// Opens the folder, which is made if it is not there, and looks at what it holds.
    ///
    /// # Errors
    /// [`SnapshotError::Folder`]; those of [`Snapshot::read`] when a file of the newest chain cannot be used. The message
    /// names it; what was saved before it can still be loaded with [`Replay::load`](crate::Replay::load).
    pub fn open(folder: impl AsRef<Path>, options: SnapshotOptions) -> Result<Self, SnapshotError> {
        options.check()?;
        let folder = folder.as_ref().to_path_buf();
        std::fs::create_dir_all(&folder).map_err(|source| SnapshotError::Folder {
            action: "make the folder",
            path: folder.clone(),
            source,
        })?;
        let newest = numbered(&folder)?.pop();
        let next = newest.as_ref().map_or(0, |(number, _)| number + 1);
        let mut chain = Vec::new();
        let mut path = newest.map(|(_, path)| path);
        while let Some(below) = path.filter(|_| chain.len() <= MAX_INCREMENTS) {
            let snapshot = Snapshot::read(below)?;
            path = snapshot.base.clone();
            chain.push(snapshot);
        }
        chain.reverse();
        Ok(Self { folder, options, chain, next })
    }

    /// The newest snapshot.
    pub fn newest(&self) -> Option<&Snapshot> {
        self.chain.last()
    }

    /// The newest snapshot last, and before it those that it stands on. Each can be loaded with [`Replay::load`](crate::Replay::load).
    pub fn snapshots(&self) -> &[Snapshot] {
        &self.chain
    }

    /// Loads the newest snapshot into `replay`; `None` when there is none yet, and the buffer stays as it is.
    ///
    /// # Errors
    /// Those of [`Replay::load`](crate::Replay::load).
    pub fn load(&self, replay: &impl Durable) -> Result<Option<Snapshot>, SnapshotError> {
        self.newest().map(|newest| replay.load(&newest.path)).transpose()
    }

    /// Saves `replay` as the next snapshot, in full or as an increment.
    ///
    /// # Errors
    /// Those of [`Replay::save_with`](crate::Replay::save_with). [`SnapshotError::Unrelated`] when the folder holds snapshots and `replay` does not
    /// continue the newest of them, so that nobody's snapshots are lost by mistake: [`load`](Self::load) it first, or
    /// say [`save_full`](Self::save_full). And those of [`Snapshot::read`] for the newest.
    pub fn save(&mut self, replay: &impl Durable) -> Result<Snapshot, SnapshotError> {
        let Some(newest) = self.newest() else { return self.save_full(replay) };
        // Asked before a full one, too, for it replaces the others.
        replay.check_continues(newest)?;
        let live = replay.bulk();
        let stored: u64 = self.chain.iter().map(bulk).map(|here| here.end - here.start).sum();
        let new = live.end.saturating_sub(bulk(newest).end);
        if stored + new > 2 * (live.end - live.start) || self.chain.len() > MAX_INCREMENTS {
            return self.save_full(replay);
        }
        let saved = replay.save_increment(&newest.path, &self.next_path(), &self.options)?;
        Ok(self.append(saved))
    }

    /// Saves `replay` in full, and removes what was in the folder before, whatever buffer it was of. A file that cannot
    /// be removed is no error; the next full snapshot tries again.
    ///
    /// # Errors
    /// Those of [`Replay::save_with`](crate::Replay::save_with).
    pub fn save_full(&mut self, replay: &impl Durable) -> Result<Snapshot, SnapshotError> {
        let saved = replay.save_with(&self.next_path(), &self.options)?;
        Ok(self.append(saved))
    }

    fn next_path(&self) -> PathBuf {
        self.folder.join(format!("{:08}.{EXTENSION}", self.next))
    }

    fn append(&mut self, saved: Snapshot) -> Snapshot {
        // An increment stands alone, too, when nothing that was saved before is live any more.
        if saved.base.is_none() {
            let files = numbered(&self.folder).unwrap_or_default();
            for (_, obsolete) in files.into_iter().filter(|(number, _)| *number < self.next) {
                let _ = std::fs::remove_file(obsolete);
            }
            self.chain.clear();
        }
        self.next += 1;
        self.chain.push(saved.clone());
        saved
    }
}

/// What a file has of [`Durable::bulk`].
fn bulk(snapshot: &Snapshot) -> &Range<u64> {
    snapshot.frames.as_ref().unwrap_or(&snapshot.rows)
}

/// The snapshots in a folder, in the order of their numbers.
fn numbered(folder: &Path) -> Result<Vec<(u64, PathBuf)>, SnapshotError> {
    let list = || -> io::Result<Vec<(u64, PathBuf)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).filter(|stem| stem.len() >= 8);
            if let Some(number) = stem.and_then(|stem| stem.parse().ok())
                && path.extension().is_some_and(|extension| extension == EXTENSION)
            {
                files.push((number, path));
            }
        }
        files.sort();
        Ok(files)
    };
    list().map_err(|source| SnapshotError::Folder { action: "look into", path: folder.to_path_buf(), source })
}
