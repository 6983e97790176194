//! What can go wrong with a buffer's file.

use crate::SnapshotError;
use std::path::PathBuf;

/// Why a buffer was not opened in a file, or not flushed to it. A file that was there is then as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BufferFileError {
    /// The system refused.
    #[error("cannot {action} the buffer file '{path}': {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no room for it.
    #[error(
        "the buffer file '{path}' needs {bytes} bytes and {available} are free there; lower the capacity, or put it on \
         another disk"
    )]
    NoRoom {
        /// The file.
        path: PathBuf,
        /// Bytes that it takes.
        bytes: u64,
        /// Bytes that may be taken there.
        available: u64,
    },
    /// Another buffer is in it.
    #[error(
        "the buffer file '{path}' is in use by another buffer, of this process or another; drop that one first"
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is none of this kind.
    #[error("'{path}' is there and is no buffer file: it {why}; give another path")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it lacks.
        why: &'static str,
    },
    /// The file is of another version.
    #[error(
        "the buffer file '{path}' is of version {found}, and this build knows {expected}; use the build that made it"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The one that is known here.
        expected: u32,
    },
    /// It is the file of another buffer.
    #[error(
        "the buffer file '{path}' is that of another buffer: {why}; build that one, or give another path"
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// What is different.
        why: String,
    },
    /// Bytes are not those that were written, or are missing.
    #[error("the buffer file '{path}' is damaged: {why}; remove it and load a snapshot")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What shows it.
        why: String,
    },
    /// The system went down while rows were written that no flush has brought to the disk.
    #[error(
        "the system went down while the buffer file '{path}' was written to, and what is on the disk may be mixed; \
         remove it and load a snapshot"
    )]
    PowerLoss {
        /// The file.
        path: PathBuf,
    },
    /// The sampler's state beside the file was not saved or does not fit.
    #[error(
        "the sampler's state beside the buffer file: {source}; without that file every row gets the same priority"
    )]
    Sampler {
        /// What is wrong with it.
        source: Box<SnapshotError>,
    },
}
