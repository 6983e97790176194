//! Snapshots in files: whole ones and increments, checked byte for byte.
//!
//! * `format.rs` and `pieces.rs` say what the bytes are;
//! * `write.rs` and `read.rs` are visitors of the buffer's state that stand on blocks of a file;
//! * `open.rs` looks at a file's ends, `chain.rs` joins an increment with the files that it adds to;
//! * `disk.rs` makes files appear only when they are complete;
//! * `hold.rs` says what can be saved, a buffer of rows or one of frames, whose methods are in `frames.rs`;
//! * `series.rs` keeps a folder of snapshots of either;
//! * `state.rs` saves a state that has no rows.

mod chain;
mod codec;
mod disk;
mod durable;
mod error;
mod format;
mod frames;
mod hold;
mod open;
mod pieces;
mod read;
mod series;
mod state;
#[cfg(test)]
mod tests;
mod write;

pub use codec::Compression;
pub use durable::Durable;
pub use error::{SnapshotError, SnapshotPart};
pub(crate) use format::Section;
pub(crate) use hold::Lineage;
pub use series::SnapshotSeries;
pub(crate) use state::{load_state, save_state};

use crate::snapshot::Source;
use crate::{Key, Replay};
use chain::{Chain, Schemas};
use codec::Compressor;
use format::{Base, MAX_BLOCK_BYTES, Meta};
use hold::{Held, Hold};
use open::Opened;
use rl_minibatch::StateError;
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use write::Saver;

/// Bytes of a block unless the caller says otherwise: what is copied, summed and written is still in the cache then.
const BLOCK_BYTES: usize = 1 << 20;

/// How a snapshot is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotOptions {
    /// Whether blocks are compressed. Not by default.
    pub compression: Compression,
    /// The most bytes that a block holds, 64..=67,108,864; 1 MiB by default. Each block has a checksum of its own, and
    /// what is saved or loaded is copied through memory of about this size (a row at least).
    pub block_bytes: usize,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        Self { compression: Compression::None, block_bytes: BLOCK_BYTES }
    }
}

impl SnapshotOptions {
    fn check(&self) -> Result<(), SnapshotError> {
        if !(64..=MAX_BLOCK_BYTES).contains(&self.block_bytes) {
            let (value, expected) = (self.block_bytes as u64, "in 64..=67108864");
            return Err(SnapshotError::Setting { name: "block_bytes", value, expected });
        }
        Ok(())
    }
}

/// What a snapshot file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The file.
    pub path: PathBuf,
    /// The rows that were live; of a [`FrameReplay`](crate::FrameReplay) also those that have lost their frames.
    pub live: Range<Key>,
    /// The rows that are in this file, the newest of [`live`](Self::live). The others are in its base and further down.
    pub rows: Range<Key>,
    /// For a [`FrameReplay`](crate::FrameReplay) the frames that are in this file, the newest of those that were live, by
    /// the serial numbers of their insertion.
    pub frames: Option<Range<u64>>,
    /// The file that it adds to; `None` for one that stands alone.
    pub base: Option<PathBuf>,
    /// Bytes of this file.
    pub file_bytes: u64,
    /// A hash of all that is in the file, by which others refer to it.
    pub id: u64,
}

impl Snapshot {
    /// Looks at the header and the footer of a file. The blocks between are checked when they are loaded.
    ///
    /// # Errors
    /// Those of [`Replay::load`] that a look at the two ends can show.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, SnapshotError> {
        Ok(Self::of(&Opened::open(path.as_ref())?))
    }

    fn of(opened: &Opened) -> Self {
        Self::new(&opened.path, &opened.meta, opened.footer)
    }

    fn new(path: &Path, meta: &Meta, footer: format::Footer) -> Self {
        let base = meta.base.as_ref().map(|base| disk::folder(path).join(&base.name));
        let Section { live, here: rows } = meta.rows.clone();
        let frames = meta.frames.as_ref().map(|frames| frames.here.clone());
        let (path, file_bytes, id) = (path.to_path_buf(), footer.file_bytes, footer.id);
        Self { path, live, rows, frames, base, file_bytes, id }
    }
}

impl Replay {
    /// Saves the buffer as it is now to one file: rows, counters, priorities and what else the sampler keeps. As
    /// [`save_with`](Self::save_with) with default options.
    ///
    /// ```
    /// # use rl_replay::{Dtype, Replay, Schema};
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("replay.snapshot");
    /// let schema = Schema::transition((Dtype::F32, &[4]), (Dtype::I64, &[]))?;
    /// let replay = Replay::builder(schema.clone()).capacity(1_000).build()?;
    /// replay.writer().push(&[&[0; 16], &[0; 8], &[0; 4], &[0; 4], &[0; 16]])?;
    /// replay.save(&path)?;
    ///
    /// let larger = Replay::builder(schema).capacity(2_000).build()?;
    /// larger.load(&path)?;
    /// assert_eq!(larger.live(), 0..1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`save_with`](Self::save_with).
    pub fn save(&self, path: impl AsRef<Path>) -> Result<Snapshot, SnapshotError> {
        self.save_with(path, &SnapshotOptions::default())
    }

    /// Saves the buffer as it is now to one file.
    ///
    /// The file is written beside `path` under another name, brought to the disk, and renamed; so `path` is always
    /// either the earlier snapshot or this one. Left-overs of a killed process that saved to the same `path` are
    /// removed first; two threads or processes must not save to one path at once.
    ///
    /// The snapshot is the buffer at one serial number. Others go on meanwhile:
    ///
    /// * everybody waits while the sampler's state is copied, under the lock: 8 bytes a row for priorities, nothing
    ///   for uniform draws;
    /// * samplers never wait for rows;
    /// * a writer waits only where it is about to overwrite a row that has not been copied yet. Rows are copied oldest
    ///   first and let go of block by block, so in a ring that is full a writer may run the
    ///   [reserve](crate::Builder::reserve) ahead of the saver, and with the saver from then on: it inserts at least
    ///   as fast as the disk takes rows, and waits for a block at a time. Once the last row is copied, which is before
    ///   the file is brought to the disk, it is free.
    ///
    /// Cost: the live rows once through memory and a checksum; memory of a block, and of the sampler's state.
    ///
    /// # Errors
    /// [`SnapshotError::Write`] names the part that could not be written (a full disk shows here), and
    /// [`SnapshotError::Folder`] a file that could not be made or renamed; [`SnapshotError::Setting`];
    /// [`SnapshotError::Collect`] when a sampler of your own refuses. An earlier file is untouched then, and no temporary
    /// file remains.
    pub fn save_with(
        &self,
        path: impl AsRef<Path>,
        options: &SnapshotOptions,
    ) -> Result<Snapshot, SnapshotError> {
        save(self, path.as_ref(), options, None, |file| Box::new(file))
    }

    /// Saves what is new since the snapshot `base`: the rows inserted since, and all counters and priorities. `path` must
    /// lie in the folder of `base`, which may be an increment itself; to load it, `base` and all that it adds to must
    /// still be there under their names. Where no row of `base` is live any more the file stands alone.
    ///
    /// [`SnapshotSeries`] keeps such files in order.
    ///
    /// # Errors
    /// As [`save_with`](Self::save_with). Also [`SnapshotError::Unrelated`] unless `base` was saved from this buffer, or
    /// loaded into it, and nothing has been loaded since; [`SnapshotError::Base`] when `base` lies elsewhere; and
    /// those of [`Snapshot::read`] for `base`.
    pub fn save_increment(
        &self,
        base: impl AsRef<Path>,
        path: impl AsRef<Path>,
        options: &SnapshotOptions,
    ) -> Result<Snapshot, SnapshotError> {
        save(self, path.as_ref(), options, Some(base.as_ref()), |file| Box::new(file))
    }

    /// Replaces the buffer's state by the snapshot `path`, together with those that it adds to. Draws, keys and
    /// priorities go on as they would have in the buffer that was saved.
    ///
    /// The capacity may be another than the saved one, as long as the live rows fit. Everything is read and checked,
    /// older files too. Others are kept out meanwhile. An empty buffer is loaded in place; one that holds rows
    /// keeps them until all has come, which takes the memory of both.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`] and [`SnapshotError::Truncated`] name the part of the file that is not as it was
    /// written; [`SnapshotError::State`] says what does not fit this buffer (another schema, a capacity too small, another
    /// sampler), [`SnapshotError::Kind`] that it is of a [`FrameReplay`](crate::FrameReplay); the others as they say. The
    /// buffer is then as it was.
    pub fn load(&self, path: impl AsRef<Path>) -> Result<Snapshot, SnapshotError> {
        let schemas = Schemas { rows: self.schema(), frames: None };
        load(path.as_ref(), schemas, |source| self.load_from(source))
    }
}

/// Loads `path` and the files that it stands on into what `into` gives them to.
fn load(
    path: &Path,
    schemas: Schemas<'_>,
    into: impl FnOnce(&mut dyn Source) -> Result<(), StateError>,
) -> Result<Snapshot, SnapshotError> {
    let mut chain = Chain::open(path, schemas)?;
    into(&mut chain).map_err(|error| chain.failure(error))?;
    Ok(Snapshot::of(chain.newest()))
}

/// Saves to `path`; `medium` is what the bytes go through on their way to the file.
fn save(
    replay: &impl Hold,
    path: &Path,
    options: &SnapshotOptions,
    base: Option<&Path>,
    medium: impl FnOnce(File) -> Box<dyn Write>,
) -> Result<Snapshot, SnapshotError> {
    options.check()?;
    let base = base.map(|base| open_base(base, path)).transpose()?;
    let failed =
        |part: SnapshotPart| move |source| SnapshotError::Write { path: path.to_path_buf(), part, source };
    let header = SnapshotPart::Header;
    let compressor = Compressor::new(options.compression).map_err(failed(header))?;
    let file = disk::aside(path)?;
    let mut out = medium(file.as_file().try_clone().map_err(failed(header))?);

    let moment = replay.hold(base.as_ref())?;
    let (rows, frames) = moment.sections();
    let complete = |section: &Section| section.here.start == section.live.start;
    let alone = complete(&rows) && frames.as_ref().is_none_or(complete);
    let meta = Meta {
        little_endian: cfg!(target_endian = "little"),
        codec: compressor.codec(),
        block_bytes: options.block_bytes as u32,
        lineage: moment.lineage(),
        base: base.filter(|_| !alone).map(|base| {
            let name = base.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Base { name, id: base.footer.id }
        }),
        rows,
        frames,
    };
    let mut saver = Saver::new(&mut *out, &meta, compressor).map_err(failed(header))?;
    if let Err(error) = moment.show(&mut saver, options.block_bytes) {
        let failed = failed(saver.part());
        return Err(saver.failure().map_or(SnapshotError::Collect(error), failed));
    }
    let footer = saver.finish().map_err(|source| failed(saver.part())(source))?;
    drop(saver);
    drop(out);
    let offset = footer.file_bytes - format::FOOTER_BYTES as u64;
    file.as_file().sync_all().map_err(failed(SnapshotPart::Footer { offset }))?;
    disk::put_in_place(file, path)?;
    Ok(Snapshot::new(path, &meta, footer))
}

/// Opens what the increment `path` is to add to.
fn open_base(base: &Path, path: &Path) -> Result<Opened, SnapshotError> {
    let refuse = |why: &str| {
        let (path, base) = (path.to_path_buf(), base.to_path_buf());
        SnapshotError::Base { path, base, why: why.to_string() }
    };
    let folder_of = |path: &Path| {
        disk::folder(path).canonicalize().map_err(|source| {
            let path = disk::folder(path).to_path_buf();
            SnapshotError::Folder { action: "find", path, source }
        })
    };
    if folder_of(base)? != folder_of(path)? {
        return Err(refuse("which lies in another folder; save beside it"));
    }
    if base.file_name().is_none_or(|name| name.to_str().is_none()) {
        return Err(refuse("whose name is not UTF-8; rename it"));
    }
    if base.file_name() == path.file_name() {
        return Err(refuse("which is itself; save under another name"));
    }
    Opened::open(base)
}
