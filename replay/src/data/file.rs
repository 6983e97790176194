//! Files that are read, and files that are written aside and then renamed.

use super::DataError;
use std::fs::File;
use std::io::{BufReader, BufWriter, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a file's bytes are. It is opened anew for each pass over it.
#[derive(Clone, Debug)]
pub(super) enum Bytes {
    Path(PathBuf),
    Memory(Arc<[u8]>),
}

pub(super) trait ReadSeek: Read + Seek {}
impl<T: Read + Seek> ReadSeek for T {}

impl Bytes {
    /// How messages call it.
    pub(super) fn name(&self) -> String {
        match self {
            Bytes::Path(path) => path.display().to_string(),
            Bytes::Memory(_) => "the data".to_string(),
        }
    }

    /// A reader at its beginning, and its length.
    pub(super) fn open(&self) -> Result<(Box<dyn ReadSeek + '_>, u64), DataError> {
        match self {
            Bytes::Path(path) => {
                let refused = |source| DataError::Io { file: self.name(), source };
                let mut file = File::open(path).map_err(refused)?;
                let bytes = file.seek(SeekFrom::End(0)).map_err(refused)?;
                file.rewind().map_err(refused)?;
                Ok((Box::new(BufReader::with_capacity(1 << 16, file)), bytes))
            }
            Bytes::Memory(bytes) => Ok((Box::new(Cursor::new(&bytes[..])), bytes.len() as u64)),
        }
    }
}

/// Writes `path` through `write`, into a file beside it which takes its place once all is on the disk.
pub(super) fn replace<T>(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<T, DataError>,
) -> Result<T, DataError> {
    let refused = |source| DataError::Io { file: path.display().to_string(), source };
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.partial", std::process::id()));
    let aside = path.with_file_name(name);
    let written = (|| {
        let mut file = BufWriter::with_capacity(1 << 16, File::create(&aside).map_err(refused)?);
        let written = write(&mut file)?;
        file.flush().map_err(refused)?;
        file.get_ref().sync_all().map_err(refused)?;
        std::fs::rename(&aside, path).map_err(refused)?;
        Ok(written)
    })();
    if written.is_err() {
        // The error at hand is the one to tell; that nothing is there to remove is no news.
        let _ = std::fs::remove_file(&aside);
    }
    written
}
