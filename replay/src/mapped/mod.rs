//! A buffer whose slots are in a file, mapped into memory.
//!
//! * `header.rs` says what the bytes before the slots are, `recover.rs` which rows they prove to be whole;
//! * `open.rs` opens a file or makes it, `room.rs` takes its blocks beforehand;
//! * `journal.rs` is the file in use;
//! * `sampler.rs` keeps the sampler's state beside it.
//!
//! # After a kill
//!
//! What a process stored into a shared mapping or wrote to a file is in the system's page cache, and survives the process
//! however it ends. What is missing is which slots were being written. So before the ring raises its limit, below which
//! it gives out serials, the new limit is written into the header together with the rows live by then ([`Note`]). That is
//! once in about a slack of rows, where the ring looks at its pins anyway; on the way of a row nothing is added. A row
//! is lost if it came to life after the last note and the last flush.
//!
//! # After a power loss
//!
//! Then the disk has some pages as they were and some as they are, of the header as well. A flush first brings the rows
//! to the disk and then a [`Commit`] that names them and a *ceiling*, an eighth of the capacity further on. Serials from
//! the ceiling on are not given out before a newer commit is on the disk: that of the next flush, or one that takes
//! the promise back. So either the rows of the last flush are whole but for the slots of an eighth, or the file is refused.
//!
//! # The mapping
//!
//! Nobody else may write to the file or shorten it while it is mapped: the lock keeps other buffers out, and not other
//! programs. Any bytes are valid rows, so a file that was changed gives wrong rows and breaks nothing else.

mod error;
mod header;
mod journal;
mod open;
mod recover;
mod room;
mod sampler;
#[cfg(test)]
mod tests;

pub use error::BufferFileError;
pub(crate) use journal::BufferFile;
pub(crate) use open::{Opened, open};
pub(crate) use sampler::load as load_sampler;

use crate::buffer::Shared;
use crate::sync::{Mutex, MutexGuard};
use crate::{Replay, ReplayError};
#[cfg(doc)]
use header::{Commit, Note};
use rl_minibatch::StateError;
use sampler::SamplerState;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// The file that a buffer is in.
pub(crate) struct Stored {
    pub(crate) file: Arc<BufferFile>,
    /// Held while the file is flushed or loaded into, which must not happen at once.
    alone: Mutex<()>,
}

impl Stored {
    pub(crate) fn new(file: Arc<BufferFile>) -> Self {
        Self { file, alone: Mutex::new(()) }
    }

    /// Keeps flushes out.
    pub(crate) fn alone(&self) -> MutexGuard<'_, ()> {
        self.alone.lock()
    }

    /// The slots are about to be written by the state that is loaded.
    pub(crate) fn begin_rewrite(&self) -> Result<(), StateError> {
        self.file.begin_rewrite().map_err(|error| {
            let why = format!(
                "the header of the buffer file '{}' cannot be written: {error}",
                self.file.path().display()
            );
            StateError::Invalid { path: "rows".into(), why }
        })
    }
}

impl Replay {
    /// Brings a buffer that is [in a file](crate::Builder::in_file) to the disk: every row that was acknowledged before
    /// the call, and what the sampler keeps. A buffer in memory has nothing to flush.
    ///
    /// Others go on meanwhile. It waits for rows that are being copied, and everybody waits while the sampler's state is
    /// copied, as for a [snapshot](Replay::save). Dropping the last handle flushes too, and hides errors; so flush
    /// before, to see them.
    ///
    /// Cost: what was written since the last flush goes to the disk, and with it all of the sampler's state (8 bytes a
    /// row for priorities, beside which memory for two copies of it is taken).
    ///
    /// # Errors
    /// [`ReplayError::File`] when the disk fails, now or in what was noted since the last flush. The rows are where they were.
    pub fn flush(&self) -> Result<(), ReplayError> {
        self.shared.flush(false)
    }
}

impl Shared {
    fn flush(&self, closing: bool) -> Result<(), ReplayError> {
        let Some(stored) = &self.stored else { return Ok(()) };
        let _alone = stored.alone();
        let (file, limiter) = (&stored.file, self.limiter.as_ref());
        self.ring.catch_up();
        let (live, state) = if self.keeps_state() {
            let (mut keeper, live) = self.keeper();
            let state = SamplerState::of(&mut keeper, self.counters.stale(), limiter, live.clone());
            (live, Some(state.map_err(|error| BufferFileError::Sampler { source: Box::new(error.into()) })?))
        } else {
            (self.ring.live(), None)
        };
        // So that no saved priority is of a row that is not there.
        self.ring.note();
        if let Some(state) = state {
            state.save(file.path(), file.mark())?;
        }
        let path = file.path().to_path_buf();
        self.ring.sync().map_err(|source| BufferFileError::Io { action: "flush", path, source })?;
        file.commit(live, closing)?;
        Ok(())
    }

    /// Whether there is anything to be saved beside the rows.
    pub(crate) fn keeps_state(&self) -> bool {
        !self.uniform || self.limiter.is_some()
    }
}

impl Drop for Shared {
    /// The last handle is gone: nobody copies.
    fn drop(&mut self) {
        // There is nobody to tell. Should it fail, the file is as one after a kill.
        let _ = self.flush(true);
    }
}

/// Writes all of `bytes` at that place.
fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::write_all_at(file, bytes, at);
    #[cfg(not(unix))]
    {
        use std::io::{Seek, SeekFrom, Write};
        let mut file = file;
        file.seek(SeekFrom::Start(at))?;
        file.write_all(bytes)
    }
}
