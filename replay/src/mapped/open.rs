//! Opening a buffer's file, or making it.

use super::error::BufferFileError;
use super::header::{
    COMMITS_AT, Commit, IDENTITY_AT, Identity, MAGIC, MAX_IDENTITY_BYTES, NOTE_AT, Note, PREFIX_BYTES,
    SUM_BYTES, VERSION, slots_at,
};
use super::journal::BufferFile;
use super::recover::{Refusal, recover};
use super::{room, write_at};
use crate::layout::Layout;
use memmap2::{MmapOptions, MmapRaw};
use rl_minibatch::Schema;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// What the names of files end with that are being made.
const TEMPORARY: &str = ".tmp";
/// A file of such a name that is neither locked nor younger than this belongs to nobody any more.
const STALE_AFTER: Duration = Duration::from_secs(60);

/// A file that is locked and fits; nothing in it has changed yet.
pub(crate) struct Opened {
    pub(crate) file: BufferFile,
    /// The slots.
    pub(crate) memory: MmapRaw,
    /// The rows that are in them.
    pub(crate) live: Range<u64>,
}

/// Opens the file of a buffer, or makes it where there is none.
pub(crate) fn open(
    path: &Path,
    schema: &Schema,
    layout: &Layout,
    capacity: u64,
    reserve: u64,
) -> Result<Opened, BufferFileError> {
    let wanted = Wanted {
        path,
        slot_bytes: layout.ring_bytes_wide(capacity, reserve),
        identity: Identity::new(schema, layout, capacity, reserve),
    };
    match std::fs::metadata(path) {
        // Asked before it is opened, for opening a pipe or a device is not for us.
        Ok(metadata) if !metadata.is_file() => Err(wanted.foreign("is no regular file")),
        Ok(_) => wanted.examine(wanted.lock_present()?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match wanted.make()? {
            Some(file) => wanted.examine(file),
            None => wanted.examine(wanted.lock_present()?),
        },
        Err(error) => Err(wanted.failed("look for")(error)),
    }
}

struct Wanted<'a> {
    path: &'a Path,
    identity: Identity,
    slot_bytes: u128,
}

impl Wanted<'_> {
    fn failed(&self, action: &'static str) -> impl Fn(io::Error) -> BufferFileError {
        let path = self.path.to_path_buf();
        move |source| BufferFileError::Io { action, path: path.clone(), source }
    }

    fn foreign(&self, why: &'static str) -> BufferFileError {
        BufferFileError::Foreign { path: self.path.to_path_buf(), why }
    }

    fn damaged(&self, why: &str) -> BufferFileError {
        BufferFileError::Damaged { path: self.path.to_path_buf(), why: why.to_string() }
    }

    fn lock_present(&self) -> Result<File, BufferFileError> {
        let file = OpenOptions::new().read(true).write(true).open(self.path).map_err(self.failed("open"))?;
        self.lock(&file)?;
        Ok(file)
    }

    fn lock(&self, file: &File) -> Result<(), BufferFileError> {
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => BufferFileError::InUse { path: self.path.to_path_buf() },
            TryLockError::Error(error) => self.failed("lock")(error),
        })
    }

    /// Makes the file, under another name until it is complete; `None` when somebody else was faster.
    fn make(&self) -> Result<Option<File>, BufferFileError> {
        let failed = self.failed("make");
        let name = self.path.file_name().ok_or_else(|| self.foreign("has no file name"))?;
        let prefix = format!(".{}.", name.to_string_lossy());
        let folder = folder(self.path);
        remove_stale(folder, &prefix).map_err(&failed)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(TEMPORARY);
        // The user's umask decides who may read it, as for any file; a temporary file would be private.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let made = builder.tempfile_in(folder).map_err(&failed)?;
        let file = made.as_file();
        self.lock(file)?;

        let (prefix, encoded) = self.identity.encode().map_err(|error| failed(io::Error::other(error)))?;
        if encoded.len() > MAX_IDENTITY_BYTES as usize {
            let why = format!("a schema of {} bytes has no room in its header", encoded.len());
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, why)));
        }
        let slots_at = slots_at(encoded.len());
        let bytes = self.file_bytes(slots_at)?;
        room::take(file, self.path, bytes)?;
        let commit = Commit { sequence: 0, epoch: 0, era: 0, live: 0..0, ceiling: 0, boot: boot() };
        let note = Note { epoch: 0, limit: 0, live: 0..0 };
        let write = || {
            write_at(file, &encoded, IDENTITY_AT)?;
            write_at(file, &commit.encode(), commit.at())?;
            write_at(file, &note.encode(), NOTE_AT)?;
            write_at(file, &prefix, 0)?;
            file.sync_all()
        };
        write().map_err(&failed)?;
        let file = match made.persist_noclobber(self.path) {
            Ok(file) => file,
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            Err(error) => return Err(failed(error.error)),
        };
        // The name is an entry of the folder, and that too must reach the disk.
        #[cfg(unix)]
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(&failed)?;
        Ok(Some(file))
    }

    /// Bytes of a file whose slots begin there.
    fn file_bytes(&self, slots_at: u64) -> Result<u64, BufferFileError> {
        let bytes = self.slot_bytes + u128::from(slots_at);
        if bytes > i64::MAX as u128 {
            let (path, bytes) = (self.path.to_path_buf(), u64::try_from(bytes).unwrap_or(u64::MAX));
            return Err(BufferFileError::NoRoom { path, bytes, available: i64::MAX as u64 });
        }
        Ok(bytes as u64)
    }

    /// Looks at the header of a file that is locked, and maps its slots.
    fn examine(&self, file: File) -> Result<Opened, BufferFileError> {
        let failed = self.failed("read");
        let present = file.metadata().map_err(&failed)?.len();
        let mut reader = &file;
        let mut head = vec![0; IDENTITY_AT.min(present) as usize];
        reader.read_exact(&mut head).map_err(&failed)?;
        if head.len() < MAGIC.len() || head[..MAGIC.len()] != MAGIC {
            return Err(self.foreign("does not begin with 'rlbuffer'"));
        }
        if present < IDENTITY_AT {
            return Err(self.damaged(&format!("it breaks off after {present} bytes, in its header")));
        }
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        // Before the sum, because another version may take that over other bytes.
        let (version, length) = (word(8), word(12));
        if version != VERSION {
            let path = self.path.to_path_buf();
            return Err(BufferFileError::Version { path, found: version, expected: VERSION });
        }
        if length > MAX_IDENTITY_BYTES {
            return Err(self.damaged("its header has an impossible length"));
        }
        let identity_bytes = length as usize + SUM_BYTES;
        if present < IDENTITY_AT + identity_bytes as u64 {
            return Err(self.damaged(&format!("it breaks off after {present} bytes, in its header")));
        }
        let mut encoded = vec![0; identity_bytes];
        reader.read_exact(&mut encoded).map_err(&failed)?;
        let (encoded, sum) = encoded.split_at(length as usize);
        if Identity::sum(&head[..PREFIX_BYTES], encoded).to_le_bytes() != sum {
            return Err(self.damaged("the checksum of its header does not fit"));
        }
        let found: Identity = postcard::from_bytes(encoded)
            .map_err(|error| self.damaged(&format!("its header does not decode: {error}")))?;
        if let Some(why) = self.identity.difference(&found) {
            return Err(BufferFileError::Other { path: self.path.to_path_buf(), why });
        }
        let slots_at = slots_at(identity_bytes);
        let bytes = self.file_bytes(slots_at)?;
        if present != bytes {
            return Err(self.damaged(&format!("it has {present} bytes, and {bytes} were written")));
        }
        let (commit, note) = self.records(&head)?;
        let boot = boot();
        let sizes = (found.capacity, found.capacity + 2 * found.reserve);
        let live = recover(&commit, &note, sizes, boot).map_err(|refusal| match refusal {
            Refusal::Damaged(why) => self.damaged(why),
            Refusal::PowerLoss => BufferFileError::PowerLoss { path: self.path.to_path_buf() },
        })?;
        // Again: a copy of the file may have holes.
        room::take(&file, self.path, bytes)?;
        let memory = MmapOptions::new()
            .offset(slots_at)
            .len((bytes - slots_at) as usize)
            .map_raw(&file)
            .map_err(self.failed("map"))?;
        let file = BufferFile::new(self.path.to_path_buf(), file, found.id, found.capacity, commit, boot);
        Ok(Opened { file, memory, live })
    }

    /// The newest commit and the note. Records that were written are whole, or nothing in the file is believed: what
    /// is damaged might have been the newer one.
    fn records(&self, head: &[u8]) -> Result<(Commit, Note), BufferFileError> {
        let at = |at: u64, bytes: usize| &head[at as usize..][..bytes];
        let damaged = || self.damaged("the checksum of what it says of its rows does not fit");
        let mut newest: Option<Commit> = None;
        for place in COMMITS_AT {
            let bytes = at(place, Commit::BYTES);
            if bytes.iter().all(|byte| *byte == 0) {
                continue;
            }
            let commit = Commit::decode(bytes).ok_or_else(damaged)?;
            if newest.as_ref().is_none_or(|newest| newest.sequence < commit.sequence) {
                newest = Some(commit);
            }
        }
        let note = Note::decode(at(NOTE_AT, Note::BYTES)).ok_or_else(damaged)?;
        Ok((newest.ok_or_else(damaged)?, note))
    }
}

/// Which boot of the system this is; 0 where it is not told.
fn boot() -> u64 {
    #[cfg(target_os = "linux")]
    return std::fs::read("/proc/sys/kernel/random/boot_id").map_or(0, |id| xxh3_64(&id).max(1));
    #[cfg(not(target_os = "linux"))]
    return 0;
}

/// The folder that `path` lies in.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Removes files that processes were making when they were killed.
fn remove_stale(folder: &Path, prefix: &str) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path: PathBuf = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with(prefix) || !name.ends_with(TEMPORARY) {
            continue;
        }
        // Somebody else may be removing it, or making another one.
        let Ok(file) = File::open(&path) else { continue };
        let age = file.metadata().and_then(|metadata| metadata.modified()).map(|at| at.elapsed());
        let stale = matches!(age, Ok(Ok(age)) if age > STALE_AFTER);
        if stale && file.try_lock().is_ok() {
            let _ = std::fs::remove_file(&path);
        }
    }
    Ok(())
}
