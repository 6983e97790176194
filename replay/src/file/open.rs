//! Opening a snapshot file: its header, its footer, and if that is not there, where the file breaks off.

use super::codec;
use super::error::{SnapshotError, SnapshotPart};
use super::format::{
    BLOCK_HEADER_BYTES, BlockHeader, END_MAGIC, FOOTER_BYTES, Footer, MAGIC, MAX_BLOCK_BYTES, MAX_META_BYTES,
    Meta, PREFIX_BYTES, SUM_BYTES, Section, VERSION, VERSIONS,
};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

/// A file whose header and footer are whole; it stands at its first block.
pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) header: Vec<u8>,
    pub(super) meta: Meta,
    pub(super) footer: Footer,
}

impl Opened {
    /// # Errors
    /// All of [`SnapshotError`] that a look at the file's two ends can show.
    pub(super) fn open(path: &Path) -> Result<Self, SnapshotError> {
        let mut part = SnapshotPart::Header;
        Self::examine(path, &mut part).map_err(|source| SnapshotError::Read {
            path: path.to_path_buf(),
            part,
            source,
        })?
    }

    /// Where the blocks end.
    pub(super) fn footer_offset(&self) -> u64 {
        self.footer.file_bytes - FOOTER_BYTES as u64
    }

    pub(super) fn damaged(&self, part: SnapshotPart, why: &str) -> SnapshotError {
        damaged(&self.path, part, why)
    }

    pub(super) fn truncated(&self, part: SnapshotPart, bytes: u64) -> SnapshotError {
        SnapshotError::Truncated { path: self.path.clone(), part, bytes }
    }

    fn examine(path: &Path, part: &mut SnapshotPart) -> io::Result<Result<Self, SnapshotError>> {
        // Asked before it is opened, for opening a pipe would wait.
        if std::fs::metadata(path)?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        let mut file = File::open(path)?;
        let file_bytes = file.metadata()?.len();
        let (header, meta) = match read_header(path, &mut file, file_bytes)? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };

        let (blocks_at, footer_len) = (header.len() as u64, FOOTER_BYTES as u64);
        if file_bytes >= blocks_at + footer_len {
            let offset = file_bytes - footer_len;
            *part = SnapshotPart::Footer { offset };
            let mut bytes = [0; FOOTER_BYTES];
            file.seek(SeekFrom::Start(offset))?;
            file.read_exact(&mut bytes)?;
            if let Some(footer) = Footer::decode(&bytes).filter(|footer| footer.file_bytes == file_bytes) {
                file.seek(SeekFrom::Start(blocks_at))?;
                return Ok(Ok(Self { path: path.to_path_buf(), file, header, meta, footer }));
            }
        }
        Ok(Err(find_break(path, &mut file, blocks_at, file_bytes, part)?))
    }
}

fn damaged(path: &Path, part: SnapshotPart, why: &str) -> SnapshotError {
    SnapshotError::Damaged { path: path.to_path_buf(), part, why: why.to_string() }
}

fn read_header(
    path: &Path,
    file: &mut File,
    file_bytes: u64,
) -> io::Result<Result<(Vec<u8>, Meta), SnapshotError>> {
    let damaged = |why: &str| Ok(Err(damaged(path, SnapshotPart::Header, why)));
    let path = path.to_path_buf();
    let part = SnapshotPart::Header;
    let mut header = vec![0; (PREFIX_BYTES as u64).min(file_bytes) as usize];
    file.read_exact(&mut header)?;
    let magic = header.len().min(MAGIC.len());
    if header[..magic] != MAGIC[..magic] {
        return Ok(Err(SnapshotError::Foreign { path, why: "does not begin with 'rlreplay'" }));
    }
    let Some(prefix) = header.first_chunk::<PREFIX_BYTES>() else {
        return Ok(Err(SnapshotError::Truncated { path, part, bytes: file_bytes }));
    };
    let word = |at: usize| u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]]);
    // Before the checksum, because another version may take that over other bytes.
    let (version, length) = (word(8), word(12));
    if !VERSIONS.contains(&version) {
        return Ok(Err(SnapshotError::Version { path, found: version, expected: VERSION }));
    }
    if length > MAX_META_BYTES {
        return damaged("it has an impossible length");
    }
    let rest = length as usize + SUM_BYTES;
    if file_bytes < (PREFIX_BYTES + rest) as u64 {
        return Ok(Err(SnapshotError::Truncated { path, part, bytes: file_bytes }));
    }
    header.resize(PREFIX_BYTES + rest, 0);
    file.read_exact(&mut header[PREFIX_BYTES..])?;
    let (covered, sum) = header.split_at(PREFIX_BYTES + length as usize);
    if xxh3_64(covered).to_le_bytes() != sum {
        return damaged("its checksum does not fit");
    }
    let meta: Meta = match Meta::decode(version, &covered[PREFIX_BYTES..]) {
        Ok(meta) => meta,
        Err(error) => return damaged(&format!("it does not decode: {error}")),
    };
    if let Err(why) = check(&meta) {
        return damaged(&why);
    }
    if !codec::known(meta.codec) {
        return Ok(Err(SnapshotError::Codec { path, codec: meta.codec.name() }));
    }
    Ok(Ok((header, meta)))
}

/// Whether what a header says can be.
fn check(meta: &Meta) -> Result<(), String> {
    let base = &meta.base;
    if meta.little_endian != cfg!(target_endian = "little") {
        return Err("it comes from a machine with another order of bytes".to_string());
    }
    if !(1..=MAX_BLOCK_BYTES as u32).contains(&meta.block_bytes) {
        return Err(format!("blocks of {} bytes are not possible", meta.block_bytes));
    }
    for Section { live, here } in meta.sections() {
        let ordered = live.start <= here.start && here.start <= here.end && here.end == live.end;
        if !ordered || (base.is_none() && here.start != live.start) {
            return Err(format!("{here:?} of the live {live:?} are not possible"));
        }
    }
    if let Some(base) = base
        && Path::new(&base.name).file_name().is_none_or(|name| name != base.name.as_str())
    {
        return Err("the name of its base is no file name".to_string());
    }
    Ok(())
}

/// Says which part of a file without a footer at its end is not whole.
fn find_break(
    path: &Path,
    file: &mut File,
    mut offset: u64,
    file_bytes: u64,
    part: &mut SnapshotPart,
) -> io::Result<SnapshotError> {
    let truncated = |part| SnapshotError::Truncated { path: path.to_path_buf(), part, bytes: file_bytes };
    let mut index = 0;
    loop {
        let block = SnapshotPart::Block { index, offset };
        let footer = SnapshotPart::Footer { offset };
        *part = block;
        let left = file_bytes - offset;
        let mut bytes = vec![0; left.min(FOOTER_BYTES as u64) as usize];
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(&mut bytes)?;
        let header = bytes.first_chunk::<BLOCK_HEADER_BYTES>().and_then(BlockHeader::decode);
        if let Some(header) = header.filter(|header| header.index == index) {
            let end = offset + BLOCK_HEADER_BYTES as u64 + u64::from(header.stored);
            if end > file_bytes {
                return Ok(truncated(block));
            }
            offset = end;
            index += 1;
            continue;
        }
        let magic = bytes.len().min(END_MAGIC.len());
        // Where nothing follows, nobody knows whether a block should have.
        let is_footer = magic > 0 && bytes[..magic] == END_MAGIC[..magic];
        return Ok(if is_footer && left < FOOTER_BYTES as u64 {
            truncated(footer)
        } else if left == FOOTER_BYTES as u64 {
            damaged(path, footer, "its checksum does not fit")
        } else if is_footer {
            damaged(path, footer, "it is not the end of the file")
        } else if left < BLOCK_HEADER_BYTES as u64 {
            truncated(block)
        } else {
            damaged(path, block, "the checksum of its header does not fit")
        });
    }
}
