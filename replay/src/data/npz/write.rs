//! Writing archives.

use super::BF16;
use super::npy::Header;
use crate::Dtype;
use crate::Replay;
use crate::data::rows::with_live;
use crate::data::{DataError, Stored, file};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// How arrays are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As they are, like `numpy.savez`. The same rows make the same file, byte for byte.
    #[default]
    Stored,
    /// Deflated, like `numpy.savez_compressed`.
    Deflate,
}

/// Writes the live rows of `replay` to an `.npz` file at `path`, one array a column, called as its field, of shape
/// `[rows, field's shape...]`, the oldest row first. Returns how many rows. The file appears, or takes an older one's
/// place, when it is whole and on the disk.
///
/// The rows are those of one moment. Others may use the buffer meanwhile, but a writer waits if it would overwrite
/// one of them. Cost: the arrays lie one behind the other, so the buffer is walked over once for each field; memory
/// is taken for a block of some megabytes.
///
/// # Errors
/// [`DataError::Io`].
pub fn export(replay: &Replay, path: impl AsRef<Path>, compression: Compression) -> Result<u64, DataError> {
    let path = path.as_ref();
    file::replace(path, |out| write_as(replay, out, compression, &path.display().to_string()))
}

/// As [`export`], to any writer that seeks.
///
/// # Errors
/// [`DataError::Io`].
pub fn write(replay: &Replay, out: impl Write + Seek, compression: Compression) -> Result<u64, DataError> {
    write_as(replay, out, compression, "the archive")
}

fn write_as(
    replay: &Replay,
    out: impl Write + Seek,
    compression: Compression,
    name: &str,
) -> Result<u64, DataError> {
    let refused = |source| DataError::Io { file: name.to_string(), source };
    let mut archive = ZipWriter::new(Silenced { out, failed: false });
    with_live(replay, name, |live| {
        for (position, field) in replay.schema().fields().iter().enumerate() {
            let (stored, suffix) = match field.dtype {
                Dtype::Bool => (Stored::Bool, ""),
                Dtype::U8 => (Stored::U8, ""),
                Dtype::I32 => (Stored::I32, ""),
                Dtype::I64 => (Stored::I64, ""),
                Dtype::F16 => (Stored::F16, ""),
                Dtype::Bf16 => (Stored::Bf16, BF16),
                Dtype::F32 => (Stored::F32, ""),
                Dtype::F64 => (Stored::F64, ""),
            };
            let bytes = live.rows() * field.row_bytes() as u64;
            let method = match compression {
                Compression::Stored => CompressionMethod::Stored,
                Compression::Deflate => CompressionMethod::Deflated,
            };
            // The room for 64-bit sizes has to be asked for in advance; a header and deflate's own bytes come on top.
            let options = SimpleFileOptions::default()
                .compression_method(method)
                .large_file(bytes + bytes / 1000 + (1 << 20) > u64::from(u32::MAX));
            archive
                .start_file(format!("{}{suffix}.npy", field.name), options)
                .map_err(|error| refused(error.into()))?;
            archive.write_all(&Header::write(stored, live.rows(), &field.shape)).map_err(refused)?;
            live.blocks(name, |rows, batch| {
                archive.write_all(&batch.column(position)[..rows * field.row_bytes()]).map_err(refused)
            })?;
        }
        Ok(live.rows())
    })
    .and_then(|rows| {
        archive.finish().map_err(|error| refused(error.into()))?;
        Ok(rows)
    })
}

/// After its first error, takes everything and does nothing: a `ZipWriter` that is dropped tries once more to end its
/// archive, and would complain on standard error.
struct Silenced<W> {
    out: W,
    failed: bool,
}

impl<W> Silenced<W> {
    fn attempt<T>(&mut self, otherwise: T, act: impl FnOnce(&mut W) -> io::Result<T>) -> io::Result<T> {
        if self.failed {
            return Ok(otherwise);
        }
        let result = act(&mut self.out);
        // One that was interrupted is tried again by whoever called.
        self.failed = result.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted);
        result
    }
}

impl<W: Write> Write for Silenced<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.attempt(bytes.len(), |out| out.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.attempt((), W::flush)
    }
}

impl<W: Seek> Seek for Silenced<W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.attempt(0, |out| out.seek(to))
    }
}
