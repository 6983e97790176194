//! Taking a file's blocks before they are written, so that a full disk is an error and no signal.

use super::error::BufferFileError;
use std::fs::File;
use std::io;
use std::path::Path;

/// Makes `file`, which is to lie at `path`, `bytes` long, with all its blocks taken. What is in it stays.
pub(super) fn take(file: &File, path: &Path, bytes: u64) -> Result<(), BufferFileError> {
    let present = file.metadata().map_or(0, |metadata| metadata.len());
    let no_room = |available| BufferFileError::NoRoom { path: path.to_path_buf(), bytes, available };
    let free = free(file);
    if let Some(available) = free
        && bytes > present
        && bytes - present > available
    {
        return Err(no_room(available));
    }
    allocate(file, present, bytes).map_err(|source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            no_room(free.unwrap_or(0))
        }
        _ => BufferFileError::Io { action: "take the room for", path: path.to_path_buf(), source },
    })
}

/// Bytes that a file may grow by, where it is told: what is free on its disk, or what the process may still write.
#[cfg(target_os = "linux")]
fn free(file: &File) -> Option<u64> {
    let disk = rustix::fs::fstatvfs(file).ok()?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    // The limit on file sizes (RLIMIT_FSIZE). Who goes beyond it gets a signal.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    Some(limit.map_or(free, |limit| limit.min(free)))
}

#[cfg(not(target_os = "linux"))]
fn free(_: &File) -> Option<u64> {
    None
}

#[cfg(target_os = "linux")]
fn allocate(file: &File, present: u64, bytes: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, present, bytes),
        done => Ok(done?),
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(file: &File, present: u64, bytes: u64) -> io::Result<()> {
    write_zeros(file, present, bytes)
}

/// Where the system offers no other way.
fn write_zeros(file: &File, present: u64, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut at = present;
    while at < bytes {
        let now = (bytes - at).min(zeros.len() as u64);
        super::write_at(file, &zeros[..now as usize], at)?;
        at += now;
    }
    Ok(())
}
