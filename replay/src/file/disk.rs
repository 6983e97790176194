//! Files that appear under their name only when they are complete and on the disk.

use super::error::SnapshotError;
use std::fs::File;
use std::io;
use std::path::Path;
use tempfile::NamedTempFile;

/// What the names of files that are not complete yet end with.
const TEMPORARY: &str = ".tmp";

/// The folder that `path` lies in.
pub(super) fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A temporary file beside `path`, which is removed when it is dropped.
pub(super) fn aside(path: &Path) -> Result<NamedTempFile, SnapshotError> {
    let make = || {
        let name =
            path.file_name().ok_or(io::Error::new(io::ErrorKind::InvalidInput, "it has no file name"))?;
        let prefix = format!(".{}.", name.to_string_lossy());
        remove_stale(folder(path), &prefix)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(TEMPORARY);
        // The user's umask decides who may read it, as for any file; a temporary file would be private.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        builder.tempfile_in(folder(path))
    };
    make().map_err(|source| SnapshotError::Folder {
        action: "make a temporary file for",
        path: path.to_path_buf(),
        source,
    })
}

/// Gives a complete file, whose bytes are on the disk, its name.
pub(super) fn put_in_place(file: NamedTempFile, path: &Path) -> Result<(), SnapshotError> {
    let named = || {
        file.persist(path).map_err(|error| error.error)?;
        // The name is an entry of the folder, and that too must reach the disk.
        #[cfg(unix)]
        File::open(folder(path))?.sync_all()?;
        Ok(())
    };
    named().map_err(|source| SnapshotError::Folder { action: "rename to", path: path.to_path_buf(), source })
}

/// Removes the temporary files of processes that were killed while they wrote.
fn remove_stale(folder: &Path, prefix: &str) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(prefix) && name.ends_with(TEMPORARY) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
