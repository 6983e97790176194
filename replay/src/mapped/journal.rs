//! A buffer's file while it is in use: what is written to its header, and when.

use super::error::BufferFileError;
use super::header::{Commit, NO_CEILING, NOTE_AT, Note};
use super::write_at;
use crate::control::Journal;
use parking_lot::Mutex;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The file, which stays locked as long as this lives.
#[derive(Debug)]
pub(crate) struct BufferFile {
    path: PathBuf,
    file: File,
    /// See [`Identity`](super::header::Identity).
    id: u64,
    capacity: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The commit written last.
    newest: Commit,
    /// The epoch that notes are of. It is behind that of the commit while the slots are written anew, so that
    /// nothing noted meanwhile counts.
    noted: u64,
    /// The limit noted last.
    limit: u64,
    /// What must not be passed without a commit that takes the promise back.
    ceiling: u64,
    /// What the system refused when it could not be told.
    trouble: Option<io::Error>,
}

impl BufferFile {
    /// Goes on from `found` in an epoch of its own.
    pub(super) fn new(path: PathBuf, file: File, id: u64, capacity: u64, found: Commit, boot: u64) -> Self {
        let noted = found.epoch;
        let newest = Commit { epoch: noted + 1, ceiling: NO_CEILING, boot, ..found };
        let state = State { newest, noted, limit: 0, ceiling: NO_CEILING, trouble: None };
        Self { path, file, id, capacity, state: Mutex::new(state) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What marks a state of the sampler as one of these rows.
    pub(crate) fn mark(&self) -> [u64; 2] {
        [self.id, self.state.lock().newest.era]
    }

    /// The ring has been made over the slots and its journal settled: now that must be on the disk before anything is
    /// given out.
    pub(crate) fn begin(&self) -> Result<(), BufferFileError> {
        self.checked("open", self.sync())
    }

    /// The rows `live` are on the disk: says so there. When `closing`, nothing is given out after them.
    pub(crate) fn commit(&self, live: Range<u64>, closing: bool) -> Result<(), BufferFileError> {
        let mut state = self.state.lock();
        // Room to go on, for which the oldest rows are given up should the system go down.
        let room = if closing { 0 } else { (self.capacity / 8).max(1) };
        let ceiling = if closing { live.end } else { state.limit.max(live.end) + room };
        let commit = Commit { live, ceiling, ..state.newest.clone() };
        // The promise binds from now on, but what it replaces does until it is on the disk.
        state.ceiling = state.ceiling.min(ceiling);
        let written = self.put(&mut state, commit);
        let sequence = state.newest.sequence;
        drop(state);
        self.checked("write the header of", written.and_then(|()| self.sync()))?;
        let mut state = self.state.lock();
        if state.newest.sequence == sequence {
            state.ceiling = ceiling;
        }
        Ok(())
    }

    /// The slots are about to be written, whatever was in them: from now on the file holds no row, until the journal
    /// hears that all is settled.
    pub(crate) fn begin_rewrite(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        let (end, epoch) = (state.newest.live.end, state.newest.epoch + 1);
        let commit =
            Commit { epoch, era: epoch, live: end..end, ceiling: NO_CEILING, ..state.newest.clone() };
        state.ceiling = NO_CEILING;
        self.put(&mut state, commit)?;
        self.sync()
    }

    /// Writes a commit, which becomes the newest.
    fn put(&self, state: &mut State, commit: Commit) -> io::Result<()> {
        let commit = Commit { sequence: state.newest.sequence + 1, ..commit };
        write_at(&self.file, &commit.encode(), commit.at())?;
        state.newest = commit;
        Ok(())
    }

    fn put_note(&self, state: &mut State, limit: u64, live: Range<u64>) -> io::Result<()> {
        state.limit = limit;
        if limit > state.ceiling {
            // Further than the last flush allows: taken back first, so that nobody relies on it.
            let commit = Commit { ceiling: NO_CEILING, ..state.newest.clone() };
            self.put(state, commit)?;
            self.sync()?;
            state.ceiling = NO_CEILING;
        }
        write_at(&self.file, &Note { epoch: state.noted, limit, live }.encode(), NOTE_AT)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// What went wrong now, or earlier where it could not be told.
    fn checked(&self, action: &'static str, result: io::Result<()>) -> Result<(), BufferFileError> {
        let earlier = self.state.lock().trouble.take();
        result.and(earlier.map_or(Ok(()), Err)).map_err(|source| BufferFileError::Io {
            action,
            path: self.path.clone(),
            source,
        })
    }
}

impl Journal for BufferFile {
    fn note(&self, limit: u64, live: Range<u64>) {
        let mut state = self.state.lock();
        if let Err(error) = self.put_note(&mut state, limit, live) {
            state.trouble = Some(error);
        }
    }

    fn settled(&self, limit: u64, live: Range<u64>) {
        let mut state = self.state.lock();
        if state.noted == state.newest.epoch {
            // Nothing was written anew after all.
            return;
        }
        let commit = Commit { live: live.clone(), ..state.newest.clone() };
        let done = self.put(&mut state, commit).and_then(|()| {
            state.noted = state.newest.epoch;
            self.put_note(&mut state, limit, live)
        });
        if let Err(error) = done {
            state.trouble = Some(error);
        }
    }
}
