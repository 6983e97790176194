//! A state without rows, in a file of its own.

use super::codec::Compressor;
use super::error::{SnapshotError, SnapshotPart};
use super::format::{FOOTER_BYTES, Meta, Section};
use super::open::Opened;
use super::read::Loader;
use super::write::Saver;
use super::{BLOCK_BYTES, Compression, disk};
use rl_minibatch::{StateError, StateVisitor};
use std::path::Path;

/// Saves what `visit` shows. The file is written aside, brought to the disk and renamed.
pub(crate) fn save_state(
    path: &Path,
    visit: impl FnOnce(&mut dyn StateVisitor) -> Result<(), StateError>,
) -> Result<(), SnapshotError> {
    let failed =
        |part: SnapshotPart| move |source| SnapshotError::Write { path: path.to_path_buf(), part, source };
    let header = SnapshotPart::Header;
    let compressor = Compressor::new(Compression::None).map_err(failed(header))?;
    let file = disk::aside(path)?;
    let mut out = file.as_file();
    let meta = Meta {
        little_endian: cfg!(target_endian = "little"),
        codec: compressor.codec(),
        block_bytes: BLOCK_BYTES as u32,
        lineage: 0,
        rows: Section { live: 0..0, here: 0..0 },
        base: None,
        frames: None,
    };
    let mut saver = Saver::new(&mut out, &meta, compressor).map_err(failed(header))?;
    if let Err(error) = visit(&mut saver) {
        let failed = failed(saver.part());
        return Err(saver.failure().map_or(SnapshotError::Collect(error), failed));
    }
    let footer = saver.finish().map_err(|source| failed(saver.part())(source))?;
    drop(saver);
    let offset = footer.file_bytes - FOOTER_BYTES as u64;
    file.as_file().sync_all().map_err(failed(SnapshotPart::Footer { offset }))?;
    disk::put_in_place(file, path)
}

/// Gives `visit` what was saved, and makes sure that all of the file is whole, whatever it asks for.
pub(crate) fn load_state<T>(
    path: &Path,
    visit: impl FnOnce(&mut dyn StateVisitor) -> Result<T, StateError>,
) -> Result<T, SnapshotError> {
    let mut loader = Loader::new(Opened::open(path)?);
    let loaded = visit(&mut loader).and_then(|value| loader.finish().map(|()| value));
    loaded.map_err(|error| loader.failure(error))
}
