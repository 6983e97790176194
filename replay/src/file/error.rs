//! What can go wrong with a snapshot file, and where in it.

use rl_minibatch::StateError;
use std::path::PathBuf;

/// A part of a snapshot file, with the offset of its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotPart {
    /// What the file says about itself, at byte 0.
    Header,
    /// A block of state.
    Block {
        /// Counted from 0.
        index: u64,
        /// Bytes of the file before it.
        offset: u64,
    },
    /// The end marker.
    Footer {
        /// Bytes of the file before it.
        offset: u64,
    },
}

impl std::fmt::Display for SnapshotPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header => write!(f, "header (at byte 0)"),
            Self::Block { index, offset } => write!(f, "block {index} (at byte {offset})"),
            Self::Footer { offset } => write!(f, "footer (at byte {offset})"),
        }
    }
}

/// Why a snapshot was not saved, or not loaded. The buffer is then as it was, and so is an earlier file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// A folder or file could not be made, renamed or removed.
    #[error("cannot {action} '{path}': {source}")]
    Folder {
        /// What was attempted.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file could not be written.
    #[error("cannot write {part} of snapshot '{path}': {source}; an earlier file of that name is untouched")]
    Write {
        /// The snapshot.
        path: PathBuf,
        /// The part in hand.
        part: SnapshotPart,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file could not be read.
    #[error("cannot read {part} of snapshot '{path}': {source}")]
    Read {
        /// The snapshot.
        path: PathBuf,
        /// The part in hand.
        part: SnapshotPart,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is none of this kind.
    #[error("'{path}' is no snapshot of a replay buffer: its header (at byte 0) {why}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it lacks.
        why: &'static str,
    },
    /// The file is of the other kind of buffer.
    #[error("snapshot '{path}' is of a {found}, and this is a {expected}; load it into a {found}")]
    Kind {
        /// The snapshot.
        path: PathBuf,
        /// What it was saved from.
        found: &'static str,
        /// What it was to be loaded into.
        expected: &'static str,
    },
    /// The file is of another version.
    #[error(
        "the header (at byte 0) of snapshot '{path}' says version {found}, and this build reads up to {expected}; \
         load it with the build that saved it"
    )]
    Version {
        /// The snapshot.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest that is known here.
        expected: u32,
    },
    /// Bytes are not those that were written.
    #[error("{part} of snapshot '{path}' is damaged: {why}; load an earlier snapshot")]
    Damaged {
        /// The snapshot.
        path: PathBuf,
        /// Where.
        part: SnapshotPart,
        /// What shows it.
        why: String,
    },
    /// The file breaks off.
    #[error("snapshot '{path}' breaks off after {bytes} bytes, in {part}; load an earlier snapshot")]
    Truncated {
        /// The snapshot.
        path: PathBuf,
        /// Where.
        part: SnapshotPart,
        /// Bytes that there are.
        bytes: u64,
    },
    /// The blocks are compressed in a way that this build does not know.
    #[error("snapshot '{path}' is compressed with {codec}; build rl-replay with its feature '{codec}'")]
    Codec {
        /// The snapshot.
        path: PathBuf,
        /// How it is compressed.
        codec: &'static str,
    },
    /// An increment cannot stand on its base.
    #[error("snapshot '{path}' adds to '{base}', {why}")]
    Base {
        /// The increment.
        path: PathBuf,
        /// What it adds to.
        base: PathBuf,
        /// What is wrong with that.
        why: String,
    },
    /// The buffer does not continue the snapshot that an increment was to add to.
    #[error(
        "this buffer does not continue snapshot '{base}': it was neither saved there nor loaded from it as it \
         is now; load that snapshot first, or save a full one"
    )]
    Unrelated {
        /// The base that was asked for.
        base: PathBuf,
    },
    /// A setting is out of its range.
    #[error("{name} is {value}; it must be {expected}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What came.
        value: u64,
        /// What it may be.
        expected: &'static str,
    },
    /// The sampler's state could not be shown.
    #[error("the buffer's state cannot be saved: {0}")]
    Collect(#[from] StateError),
    /// The state in the file does not fit this buffer.
    #[error("snapshot '{path}', up to {part}, does not fit this buffer: {source}")]
    State {
        /// The snapshot.
        path: PathBuf,
        /// The last part that was read.
        part: SnapshotPart,
        /// What is different.
        source: StateError,
    },
}
