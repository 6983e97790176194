//! Reading archives.

use super::BF16;
use super::npy::{Header, Refusal};
use crate::data::file::{Bytes, ReadSeek};
use crate::data::rows::{self, Column, Sink, Source, Wanted};
use crate::data::steps::{self, Imported, StepNames};
use crate::data::{BLOCK_BYTES, Cast, DataError, Stored};
use crate::{NStep, Schema, Writer};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use zip::ZipArchive;

/// An `.npz` file whose headers have been read.
///
/// Arrays of numbers and bools up to 8 bytes, in either byte order, compressed with deflate or not, are its columns.
/// Others (objects, strings, records, Fortran's order) are passed over, and named when they are asked for.
#[derive(Clone, Debug)]
pub struct Npz {
    bytes: Bytes,
    columns: Vec<Column>,
    /// Of each column: its place in the archive, and its array.
    arrays: Vec<(usize, Header)>,
    /// Arrays that cannot be columns, and why.
    others: Vec<(String, String)>,
}

impl Npz {
    /// Reads the headers of the file at `path`.
    ///
    /// # Errors
    /// [`DataError::Io`], and [`DataError::Damaged`] when it is no such archive, or an array is not as long as it claims.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DataError> {
        Self::of(Bytes::Path(path.as_ref().to_path_buf()))
    }

    /// As [`open`](Self::open), of a file that is in memory.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(bytes: impl Into<Arc<[u8]>>) -> Result<Self, DataError> {
        Self::of(Bytes::Memory(bytes.into()))
    }

    /// The columns, in the archive's order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// A schema with a field for each column, of the type nearest to its own: for files of rows. (One of steps is
    /// made by
    /// [`Schema::transition`].)
    ///
    /// # Errors
    /// [`DataError::Unsupported`] when there is no column, or one without elements.
    pub fn schema(&self) -> Result<Schema, DataError> {
        rows::schema_of(&self.file(), &self.columns)
    }

    /// Inserts all rows: for each field of the buffer's schema the column of its name. Columns without a field are
    /// passed over. Returns how many. The file is read twice; see the [module](crate::data).
    ///
    /// # Errors
    /// A [`DataError`] that names the file and the column; the buffer is then as it was.
    pub fn import(&self, writer: &mut Writer, cast: Cast) -> Result<u64, DataError> {
        rows::import(self, writer, cast)
    }

    /// Inserts steps, folded by `n_step`: for files such as D4RL's. Their columns are `names`; `next_obs` and
    /// `truncated` among them say what is done where a file lacks them. The data's end ends its last episode, as a
    /// truncation. The file is read twice.
    ///
    /// # Errors
    /// A [`DataError`] that names the file and the column; the buffer is then as it was, and `n_step` without open
    /// steps.
    pub fn import_steps(
        &self,
        names: &StepNames,
        n_step: &mut NStep,
        writer: &mut Writer,
        cast: Cast,
    ) -> Result<Imported, DataError> {
        steps::import(self, names, n_step, writer, cast)
    }

    fn of(bytes: Bytes) -> Result<Self, DataError> {
        let file = bytes.name();
        let damaged = |why: String| DataError::damaged(&file, why);
        let mut archive = archive(&bytes)?;
        let (mut columns, mut arrays, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for position in 0..archive.len() {
            let mut entry = archive.by_index(position).map_err(|error| damaged(error.to_string()))?;
            let size = entry.size();
            let name = entry.name().map_err(|error| damaged(error.to_string()))?.into_owned();
            let Some(name) = name.strip_suffix(".npy").map(str::to_string) else {
                others.push((name, "is no .npy array".to_string()));
                continue;
            };
            let mut header = match Header::read(&mut entry) {
                Ok(header) => header,
                Err(Refusal::Damaged(why)) => return Err(damaged(format!("array '{name}': {why}"))),
                Err(Refusal::Unsupported(why)) => {
                    others.push((name, why));
                    continue;
                }
            };
            let elements = header.shape.iter().try_fold(1usize, |n, dim| n.checked_mul(*dim));
            let expected = elements
                .and_then(|n| (n as u64).checked_mul(header.stored.size_bytes() as u64))
                .and_then(|n| n.checked_add(header.bytes));
            if expected != Some(size) {
                let why = format!("array '{name}' claims the shape {:?} and has {size} bytes", header.shape);
                return Err(damaged(why));
            }
            if header.shape.is_empty() {
                others.push((name, "is a single value and not an array of rows".to_string()));
                continue;
            }
            let shape = header.shape[1..].to_vec();
            let name = match name.strip_suffix(BF16) {
                Some(plain) if header.stored == Stored::U16 => {
                    header.stored = Stored::Bf16;
                    plain.to_string()
                }
                _ => name,
            };
            columns.push(Column { name, stored: header.stored, shape });
            arrays.push((position, header));
        }
        drop(archive);
        Ok(Self { bytes, columns, arrays, others })
    }
}

fn archive(bytes: &Bytes) -> Result<ZipArchive<Box<dyn ReadSeek + '_>>, DataError> {
    let (reader, _) = bytes.open()?;
    ZipArchive::new(reader).map_err(|error| DataError::damaged(bytes.name(), error))
}

impl Source for Npz {
    fn file(&self) -> String {
        self.bytes.name()
    }

    fn columns(&self) -> &[Column] {
        &self.columns
    }

    fn blocks(&self, wanted: &[Wanted], sink: &mut Sink<'_>) -> Result<(), DataError> {
        let file = self.file();
        let mut positions = Vec::with_capacity(wanted.len());
        for column in wanted {
            if let Some((_, why)) = self.others.iter().find(|(name, _)| *name == column.name) {
                return Err(DataError::Unsupported { file, what: format!("'{}' {why}", column.name) });
            }
            let position = self.find(column)?;
            column.check(&file, &self.columns[position])?;
            positions.push(position);
        }
        let rows_of = |position: usize| self.arrays[position].1.shape[0];
        let rows = positions.first().map_or(0, |position| rows_of(*position));
        for (column, &position) in wanted.iter().zip(&positions) {
            let (expected, found) = (rows as u64, rows_of(position) as u64);
            if expected != found {
                return Err(DataError::Rows { file, column: column.name.clone(), expected, found });
            }
        }

        // The arrays lie one behind the other, so each is read through a reader of its own.
        let damaged = |column: &Wanted, why: String| {
            DataError::damaged(&file, format!("array '{}': {why}", column.name))
        };
        let mut archives = Vec::with_capacity(wanted.len());
        for _ in wanted {
            archives.push(archive(&self.bytes)?);
        }
        let mut entries = Vec::with_capacity(wanted.len());
        for ((archive, &position), column) in archives.iter_mut().zip(&positions).zip(wanted) {
            let (entry, header) = &self.arrays[position];
            let mut entry = archive.by_index(*entry).map_err(|error| damaged(column, error.to_string()))?;
            let again = Header::read(&mut entry);
            if again.as_ref().map(|again| (&again.shape, again.bytes)) != Ok((&header.shape, header.bytes)) {
                return Err(damaged(column, "it has changed since it was opened".to_string()));
            }
            entries.push(entry);
        }
        let row_bytes: usize = positions
            .iter()
            .map(|position| self.columns[*position].stored.size_bytes())
            .zip(wanted)
            .map(|(size, column)| size * column.elements())
            .sum();
        let block = (BLOCK_BYTES / row_bytes.max(1)).max(1);
        let mut raw = Vec::new();
        let mut columns = vec![Vec::new(); wanted.len()];
        let mut row = 0;
        while row < rows {
            let count = block.min(rows - row);
            for (at, (entry, column)) in entries.iter_mut().zip(wanted).enumerate() {
                let header = &self.arrays[positions[at]].1;
                let size = header.stored.size_bytes();
                raw.resize(count * column.elements() * size, 0);
                entry.read_exact(&mut raw).map_err(|error| damaged(column, error.to_string()))?;
                if header.swapped {
                    raw.chunks_exact_mut(size).for_each(<[u8]>::reverse);
                }
                columns[at].clear();
                column.convert(&file, header.stored, &raw, row as u64, &mut columns[at])?;
            }
            sink(count, &columns)?;
            row += count;
        }
        // Reading to the end is what compares the checksum.
        for (entry, column) in entries.iter_mut().zip(wanted) {
            let rest = std::io::copy(entry, &mut std::io::sink());
            rest.map_err(|error| damaged(column, error.to_string()))?;
        }
        Ok(())
    }
}
