//! What can be wrong with a checkpoint, and what to do about it.

use super::FORMAT;
use rl_minibatch::StateError;
use std::io;
use std::path::PathBuf;

/// Why a checkpoint could not be written or read. Each is one line, with the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// There is no such file.
    #[error("there is no checkpoint {}; name the folder of a run that has saved one", path.display())]
    Missing {
        /// The file asked for.
        path: PathBuf,
    },
    /// The file ends before its contents do.
    #[error(
        "checkpoint {} is cut short: {found} of {expected} bytes are there; use another one or train anew",
        path.display()
    )]
    Truncated {
        /// The damaged file.
        path: PathBuf,
        /// Bytes that it should have at least.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// The file's bytes are not those that were written.
    #[error("checkpoint {} is damaged ({why}); use another one or train anew", path.display())]
    Corrupted {
        /// The damaged file.
        path: PathBuf,
        /// What gave it away.
        why: String,
    },
    /// The file is something else.
    #[error("{} is not a checkpoint of rl-train ({why})", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What gave it away.
        why: String,
    },
    /// The file was written in another version of the format.
    #[error(
        "checkpoint {} has the format '{found}', and this rl-train reads '{FORMAT}'; use the rl-train that wrote it",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The format that it names.
        found: String,
    },
    /// The file belongs to another algorithm or environment.
    #[error("checkpoint {} is of {what} '{found}', not '{expected}'; name the {what} '{found}'", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// `algorithm` or `environment`.
        what: &'static str,
        /// What the run is to use.
        expected: String,
        /// What the checkpoint was made with.
        found: String,
    },
    /// The state in the file does not fit the run that should take it.
    #[error("checkpoint {} does not fit this run: {source}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// The piece that does not fit.
        source: StateError,
    },
    /// The file holds state that the run has no place for.
    #[error(
        "checkpoint {} does not fit this run: nothing takes {}; it was made by another configuration",
        path.display(),
        names_in_short(names)
    )]
    Leftover {
        /// The file.
        path: PathBuf,
        /// Dotted paths of the pieces left over, in order.
        names: Vec<String>,
    },
    /// The state could not be put together for saving.
    #[error("the state cannot be saved to {}: {source}", path.display())]
    Collect {
        /// The file that was to be written.
        path: PathBuf,
        /// The piece at fault.
        source: StateError,
    },
    /// The file system took no more: a full disk, a missing permission.
    #[error("cannot write checkpoint {}: {source}; the one before it is untouched", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// The file system gave nothing: a failing disk, a missing permission.
    #[error("cannot read checkpoint {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
}

impl CheckpointError {
    /// Whether naming another file or another configuration mends it (exit code 2); otherwise the machine or the
    /// program failed (exit code 1).
    pub fn is_users_mistake(&self) -> bool {
        !matches!(self, Self::Collect { .. } | Self::Write { .. } | Self::Read { .. })
    }
}

/// The first few of many names.
fn names_in_short(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let mut text: Vec<String> = names.iter().take(SHOWN).map(|name| format!("'{name}'")).collect();
    if names.len() > SHOWN {
        text.push(format!("and {} more", names.len() - SHOWN));
    }
    text.join(", ")
}
