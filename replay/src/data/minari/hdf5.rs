//! The HDF5 flavour: one file with a group for each episode.

use crate::data::rows::Wanted;
use crate::data::{Column, DataError, Stored};
use hdf5_reader::error::Error;
use hdf5_reader::group::Group;
use hdf5_reader::{Dataset, Datatype, Hdf5File, OpenOptions};
use std::collections::HashMap;
use std::path::PathBuf;

/// Deflate makes at most 1,032 bytes of one (zlib's *Technical Details*), and no other filter here makes more. So
/// what an array claims beyond that many times the file's bytes is not in the file, and no memory is taken for it.
const MOST_OF_A_BYTE: u64 = 1032;
/// Dictionaries within each other.
const DEEPEST: usize = 16;

pub(super) struct Main {
    file: String,
    episodes: HashMap<u64, Group>,
    /// The most bytes that an array can have.
    most: u64,
}

impl std::fmt::Debug for Main {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Main").field("file", &self.file).field("episodes", &self.episodes.len()).finish()
    }
}

impl Main {
    /// Opens the file and finds its episodes, once, so that finding one again costs nothing.
    pub(super) fn open(path: PathBuf) -> Result<Self, DataError> {
        let file = path.display().to_string();
        let bytes =
            std::fs::metadata(&path).map_err(|source| DataError::Io { file: file.clone(), source })?.len();
        let most = bytes.saturating_mul(MOST_OF_A_BYTE);
        let limit = usize::try_from(most).unwrap_or(usize::MAX);
        let options = OpenOptions::default()
            .with_max_read_bytes(limit)
            .with_max_chunk_bytes(limit.min(hdf5_reader::DEFAULT_MAX_CHUNK_BYTES));
        let groups = Hdf5File::open_with_options(&path, options)
            .and_then(|opened| opened.root_group()?.groups())
            .map_err(|error| refused(&file, "", error))?;
        let mut episodes = HashMap::new();
        for group in groups {
            if let Some(number) = group.name().strip_prefix("episode_").and_then(|n| n.parse().ok()) {
                episodes.insert(number, group);
            }
        }
        Ok(Self { file, episodes, most })
    }

    /// How many episodes there are.
    pub(super) fn count(&self) -> u64 {
        self.episodes.len() as u64
    }

    pub(super) fn episode(&self, number: u64) -> Result<Arrays, DataError> {
        let file = format!("{}, episode_{number}", self.file);
        let Some(group) = self.episodes.get(&number) else {
            let why = "the metadata count this episode, and it is not there".to_string();
            return Err(DataError::Damaged { file, why });
        };
        let mut arrays = Arrays { file, most: self.most, columns: Vec::new(), sets: Vec::new() };
        arrays.find(group, "", 0)?;
        Ok(arrays)
    }
}

fn refused(file: &str, column: &str, error: Error) -> DataError {
    let place = if column.is_empty() { String::new() } else { format!("'{column}': ") };
    DataError::damaged(file, format!("{place}{error}"))
}

/// An episode.
pub(super) struct Arrays {
    pub(super) file: String,
    most: u64,
    pub(super) columns: Vec<Column>,
    /// Of each column its array.
    sets: Vec<Dataset>,
}

impl Arrays {
    fn find(&mut self, group: &Group, prefix: &str, depth: usize) -> Result<(), DataError> {
        if depth > DEEPEST {
            let why = format!("'{prefix}' lies {depth} groups deep");
            return Err(DataError::Damaged { file: self.file.clone(), why });
        }
        let (groups, sets) = group.members().map_err(|error| refused(&self.file, prefix, error))?;
        for set in sets {
            // Episodes hold more than is needed; what is no array of numbers is not offered.
            if let (Some(stored), Some(shape)) = (stored(set.dtype()), shape(set.shape())) {
                self.columns.push(Column { name: format!("{prefix}{}", set.name()), stored, shape });
                self.sets.push(set);
            }
        }
        for group in groups.iter().filter(|group| !(depth == 0 && group.name() == "infos")) {
            self.find(group, &format!("{prefix}{}/", group.name()), depth + 1)?;
        }
        Ok(())
    }

    /// The whole of each column, and its rows.
    pub(super) fn read(&self, wanted: &[Wanted]) -> Result<Vec<(u64, Vec<u8>)>, DataError> {
        let read = |want: &Wanted| {
            let position = self.columns.iter().position(|column| column.name == want.name);
            let Some(position) = position else {
                let there = self.columns.iter().map(|column| column.name.clone()).collect();
                let (file, name) = (self.file.clone(), want.name.clone());
                return Err(DataError::NoColumn { file, name, there });
            };
            let (column, set) = (&self.columns[position], &self.sets[position]);
            want.check(&self.file, column)?;
            let refused = |error| refused(&self.file, &want.name, error);
            let bytes = set.raw_byte_len().map_err(refused)? as u64;
            if bytes > self.most {
                let why = format!("'{}' claims {bytes} bytes, more than can be in the file", want.name);
                return Err(DataError::Damaged { file: self.file.clone(), why });
            }
            let raw = set.read_native_bytes().map_err(refused)?;
            let rows = set.shape().first().copied().unwrap_or(0);
            if raw.len() as u64 != rows * (want.elements() * column.stored.size_bytes()) as u64 {
                let why = format!("'{}' is not as long as it claims", want.name);
                return Err(DataError::Damaged { file: self.file.clone(), why });
            }
            let mut converted = Vec::new();
            want.convert(&self.file, column.stored, &raw, 0, &mut converted)?;
            Ok((rows, converted))
        };
        wanted.iter().map(read).collect()
    }
}

/// The shape of a row; none for a single value.
fn shape(of: &[u64]) -> Option<Vec<usize>> {
    of.split_first()?.1.iter().map(|dim| usize::try_from(*dim).ok()).collect()
}

fn stored(datatype: &Datatype) -> Option<Stored> {
    Some(match datatype {
        Datatype::FixedPoint { size: 1, signed: true, .. } => Stored::I8,
        Datatype::FixedPoint { size: 1, signed: false, .. } => Stored::U8,
        Datatype::FixedPoint { size: 2, signed: true, .. } => Stored::I16,
        Datatype::FixedPoint { size: 2, signed: false, .. } => Stored::U16,
        Datatype::FixedPoint { size: 4, signed: true, .. } => Stored::I32,
        Datatype::FixedPoint { size: 4, signed: false, .. } => Stored::U32,
        Datatype::FixedPoint { size: 8, signed: true, .. } => Stored::I64,
        Datatype::FixedPoint { size: 8, signed: false, .. } => Stored::U64,
        Datatype::FloatingPoint { size: 2, .. } => Stored::F16,
        Datatype::FloatingPoint { size: 4, .. } => Stored::F32,
        Datatype::FloatingPoint { size: 8, .. } => Stored::F64,
        // h5py's bool: FALSE and TRUE of one byte.
        Datatype::Enum { base, members } if members.len() == 2 => {
            matches!(**base, Datatype::FixedPoint { size: 1, .. }).then_some(Stored::Bool)?
        }
        _ => return None,
    })
}
