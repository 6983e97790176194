//! Checkpoints: the whole state of a run in one file, complete in itself.
//!
//! A checkpoint is a plain safetensors file, so that any reader of that format gets at the arrays in it; a policy's
//! weights need nothing else. Each piece of state that a `visit` names is one tensor under its dotted path; opaque
//! bytes are one-dimensional `U8` tensors. `__metadata__` says the format's version, the algorithm, the environment
//! and the configuration. The last tensor, `checksum`, is the last 16 bytes of the file: the XXH3-128 hash (most
//! significant byte first) of every byte before them, header included, so that no damage goes unnoticed.
//!
//! The same state gives the same bytes. A file appears under its name only when it is complete and on the disk: a
//! process that dies while it saves, or a disk that is full, leaves the earlier checkpoint as it was.

mod error;
#[cfg(test)]
mod tests;

pub use error::CheckpointError;

use rl_minibatch::{Dtype, MemoryState, Piece, StateError, StateVisitor};
use safetensors::tensor::{Metadata, TensorInfo};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3Default;

// Arrays are stored as they lie in memory, and safetensors says little-endian.
#[cfg(target_endian = "big")]
compile_error!("checkpoints are written and read on little-endian machines only");

/// What `__metadata__.format` says of files that this build writes and reads.
const FORMAT: &str = "rl-train 1";
/// What the formats of all versions begin with.
const FORMAT_FAMILY: &str = "rl-train ";
/// The tensor that holds the checksum.
const CHECKSUM: &str = "checksum";
/// Names that no piece of state may have.
const RESERVED: [&str; 2] = [CHECKSUM, "__metadata__"];
const CHECKSUM_BYTES: usize = 16;
/// What the names of files that are not complete yet end with.
const TEMPORARY: &str = ".tmp";
/// The header's length, which is the first thing in the file.
const LENGTH_BYTES: usize = 8;
/// More than this is no header of ours (10,000 pieces of state take 1 MB), but damage.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// What a checkpoint says about itself beside the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Name of the algorithm, as on the command line.
    pub algo: String,
    /// Name of the environment, as on the command line.
    pub env: String,
    /// The resolved configuration, as TOML.
    pub config: String,
}

/// Saves what `collect` shows to the visitor as the checkpoint `path`, replacing an earlier one in one step.
///
/// When this returns, the file is on the disk under its name. Temporary files that a killed process left behind for
/// this `path` are removed first; so two processes must not save to the same `path` at once. The state is copied once
/// into memory before any of it is written.
///
/// # Errors
/// [`CheckpointError::Collect`] with what `collect` returned, or when two pieces have one name;
/// [`CheckpointError::Write`] when the file cannot be written. An earlier checkpoint is untouched then, and no temporary
/// file remains.
pub fn save(
    path: &Path,
    meta: &Meta,
    collect: impl FnOnce(&mut dyn StateVisitor) -> Result<(), StateError>,
) -> Result<(), CheckpointError> {
    let state = MemoryState::save(collect)
        .and_then(|state| match RESERVED.iter().find(|name| state.get(name).is_some()) {
            None => Ok(state),
            Some(name) => {
                let why = "the name belongs to the file format".to_string();
                Err(StateError::Invalid { path: name.to_string(), why })
            }
        })
        .map_err(|source| CheckpointError::Collect { path: path.to_path_buf(), source })?;
    write_to_disk(path, |out| write(meta, &state, out))
        .map_err(|source| CheckpointError::Write { path: path.to_path_buf(), source })
}

/// Lets `write` fill a temporary file beside `path`, brings it to the disk and gives it its name.
pub(crate) fn write_to_disk(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let file_name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let prefix = format!(".{}.", file_name.to_string_lossy());
    remove_stale(folder, &prefix)?;

    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(TEMPORARY);
    // The user's umask decides who may read it, as for any file; a temporary file would be private.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let file = builder.tempfile_in(folder)?;

    // From here on every early return drops `file`, which removes it.
    let mut out = BufWriter::with_capacity(1 << 20, file.as_file());
    write(&mut out)?;
    out.flush()?;
    drop(out);
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    // The name is an entry of the folder, and that too must reach the disk.
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
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

/// Where in the state a visitor is.
#[derive(Default)]
struct Scope(Vec<String>);

impl Scope {
    fn path(&self, name: &str) -> String {
        self.0.iter().map(|part| part.as_str()).chain([name]).collect::<Vec<_>>().join(".")
    }
}

/// One array of the file: its name, element type, shape and bytes.
type Array<'a> = (&'a str, Dtype, Vec<usize>, &'a [u8]);

/// Writes the file, front to back.
fn write(meta: &Meta, state: &MemoryState, out: &mut dyn Write) -> io::Result<()> {
    // Widest elements first: each array is aligned then, for readers that map the file. The order is otherwise that of the
    // names, and nothing but the state decides the bytes.
    let mut arrays: Vec<Array<'_>> = state
        .pieces()
        .map(|(name, piece)| match piece {
            Piece::Array { dtype, shape, bytes } => (name, *dtype, shape.clone(), bytes.as_slice()),
            Piece::Bytes(bytes) => (name, Dtype::U8, vec![bytes.len()], bytes.as_slice()),
        })
        .collect();
    arrays.sort_by_key(|(_, dtype, ..)| std::cmp::Reverse(dtype.size_bytes()));

    let mut header = serde_json::Map::new();
    header.insert(
        "__metadata__".to_string(),
        serde_json::json!({ "algo": meta.algo, "config": meta.config, "env": meta.env, "format": FORMAT }),
    );
    let mut end = 0;
    let checksum: Array<'_> = (CHECKSUM, Dtype::U8, vec![CHECKSUM_BYTES], &[0; CHECKSUM_BYTES]);
    for (name, dtype, shape, bytes) in arrays.iter().chain([&checksum]) {
        let data_offsets = (end, end + bytes.len());
        end += bytes.len();
        let info = TensorInfo { dtype: stored_dtype(*dtype), shape: shape.clone(), data_offsets };
        header.insert(name.to_string(), serde_json::to_value(info)?);
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(LENGTH_BYTES), b' ');

    let mut hash = Xxh3Default::new();
    let mut put = |bytes: &[u8]| {
        hash.update(bytes);
        out.write_all(bytes)
    };
    put(&(header.len() as u64).to_le_bytes())?;
    put(&header)?;
    for (.., bytes) in &arrays {
        put(bytes)?;
    }
    out.write_all(&hash.digest128().to_be_bytes())
}

/// A checkpoint that was read and found whole.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    meta: Meta,
    tensors: Metadata,
    file: Vec<u8>,
    /// Where in `file` the arrays begin.
    data_start: usize,
}

/// Reads the checkpoint `path` into memory and makes sure that every byte of it is as it was written.
///
/// # Errors
/// [`CheckpointError::Missing`], [`Truncated`](CheckpointError::Truncated),
/// [`Corrupted`](CheckpointError::Corrupted), [`Foreign`](CheckpointError::Foreign) and
/// [`Version`](CheckpointError::Version) as they say; [`CheckpointError::Read`] when the file cannot be.
pub fn open(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let file = std::fs::read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => CheckpointError::Missing { path: path.to_path_buf() },
        io::ErrorKind::IsADirectory => {
            CheckpointError::Foreign { path: path.to_path_buf(), why: "it is a folder".to_string() }
        }
        _ => CheckpointError::Read { path: path.to_path_buf(), source },
    })?;
    let corrupted = |why: &str| CheckpointError::Corrupted { path: path.to_path_buf(), why: why.to_string() };
    let foreign = |why: &str| CheckpointError::Foreign { path: path.to_path_buf(), why: why.to_string() };
    let found = file.len() as u64;
    let truncated = |expected: u64| CheckpointError::Truncated { path: path.to_path_buf(), expected, found };

    let Some((length, rest)) = file.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(truncated(LENGTH_BYTES as u64 + 1));
    };
    let header_bytes = u64::from_le_bytes(*length);
    if header_bytes > MAX_HEADER_BYTES {
        return Err(corrupted("its header has an impossible length"));
    }
    let data_start = LENGTH_BYTES as u64 + header_bytes;
    let Some(header) = rest.get(..header_bytes as usize) else {
        return Err(truncated(data_start));
    };
    let tensors: Metadata = serde_json::from_slice(header)
        .map_err(|_| corrupted("its header is not that of a safetensors file"))?;

    let no_entries = Default::default();
    let entries = tensors.metadata().as_ref().unwrap_or(&no_entries);
    let entry = |name: &str| entries.get(name).map(String::as_str);
    // Before the checksum, because another version may take that over other bytes.
    match entry("format") {
        Some(FORMAT) => {}
        Some(other) if other.strip_prefix(FORMAT_FAMILY).is_some_and(|n| n.parse::<u32>().is_ok()) => {
            return Err(CheckpointError::Version { path: path.to_path_buf(), found: other.to_string() });
        }
        Some(_) => return Err(corrupted("the name of its format is not one")),
        None => return Err(foreign("it is a safetensors file of something else")),
    }

    let expected = data_start + tensors.data_len() as u64;
    if found < expected {
        return Err(truncated(expected));
    }
    if found > expected {
        return Err(corrupted("there is something behind its end"));
    }
    let Some((covered, checksum)) = file.split_last_chunk::<CHECKSUM_BYTES>() else {
        return Err(corrupted("it has no checksum"));
    };
    let mut hash = Xxh3Default::new();
    hash.update(covered);
    if hash.digest128().to_be_bytes() != *checksum {
        return Err(corrupted("its checksum does not match"));
    }

    let meta = match (entry("algo"), entry("env"), entry("config")) {
        (Some(algo), Some(env), Some(config)) => {
            Meta { algo: algo.to_string(), env: env.to_string(), config: config.to_string() }
        }
        _ => return Err(foreign("it does not say its algorithm, environment and configuration")),
    };
    Ok(Checkpoint { path: path.to_path_buf(), meta, tensors, data_start: data_start as usize, file })
}

impl Checkpoint {
    /// What it says about itself.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Makes sure that it was made by this algorithm on this environment.
    ///
    /// # Errors
    /// [`CheckpointError::Other`] when it was not.
    pub fn expect(&self, algo: &str, env: &str) -> Result<(), CheckpointError> {
        for (what, expected, found) in
            [("algorithm", algo, &self.meta.algo), ("environment", env, &self.meta.env)]
        {
            if expected != found {
                return Err(CheckpointError::Other {
                    path: self.path.clone(),
                    what,
                    expected: expected.to_string(),
                    found: found.clone(),
                });
            }
        }
        Ok(())
    }

    /// Gives all of the state to what `visit` shows to the visitor: every piece must find its place.
    ///
    /// # Errors
    /// [`CheckpointError::State`] with what `visit` returned, for a piece that is missing or has another dtype or shape;
    /// [`CheckpointError::Leftover`] when pieces are left that nothing asked for. What was visited before the error
    /// has its new values then.
    pub fn load(
        &self,
        visit: impl FnOnce(&mut dyn StateVisitor) -> Result<(), StateError>,
    ) -> Result<(), CheckpointError> {
        let names = self.load_part(visit)?;
        if names.is_empty() {
            Ok(())
        } else {
            Err(CheckpointError::Leftover { path: self.path.clone(), names })
        }
    }

    /// Gives some of the state to what `visit` shows to the visitor, and returns the dotted paths of the pieces that
    /// nothing asked for, in order. Evaluation wants a policy, and not the replay buffer it was trained from.
    ///
    /// # Errors
    /// [`CheckpointError::State`], as [`Checkpoint::load`].
    pub fn load_part(
        &self,
        visit: impl FnOnce(&mut dyn StateVisitor) -> Result<(), StateError>,
    ) -> Result<Vec<String>, CheckpointError> {
        let mut loader = Loader { checkpoint: self, scope: Scope::default(), read: BTreeSet::new() };
        visit(&mut loader).map_err(|source| CheckpointError::State { path: self.path.clone(), source })?;
        let mut names: Vec<String> = self.tensors.tensors().into_keys().collect();
        names.retain(|name| name != CHECKSUM && !loader.read.contains(name));
        names.sort();
        Ok(names)
    }
}

/// Hands the state out again.
struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    scope: Scope,
    read: BTreeSet<String>,
}

impl<'a> Loader<'a> {
    fn find(&mut self, name: &str) -> Result<(String, &'a TensorInfo, &'a [u8]), StateError> {
        let path = self.scope.path(name);
        let info = match self.checkpoint.tensors.info(&path) {
            Some(info) if path != CHECKSUM => info,
            _ => return Err(StateError::Missing { path }),
        };
        self.read.insert(path.clone());
        let (start, end) = info.data_offsets;
        Ok((path, info, &self.checkpoint.file[self.checkpoint.data_start..][start..end]))
    }
}

impl StateVisitor for Loader<'_> {
    fn loading(&self) -> bool {
        true
    }

    fn enter(&mut self, name: &str) {
        self.scope.0.push(name.to_string());
    }

    fn leave(&mut self) {
        self.scope.0.pop();
    }

    fn array(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        bytes: &mut [u8],
    ) -> Result<(), StateError> {
        let (path, info, stored) = self.find(name)?;
        if info.dtype != stored_dtype(dtype) || info.shape != shape || stored.len() != bytes.len() {
            return Err(StateError::Mismatch {
                path,
                expected: format!("{dtype} {shape:?}"),
                found: format!("{} {:?}", info.dtype.to_string().to_lowercase(), info.shape),
            });
        }
        bytes.copy_from_slice(stored);
        Ok(())
    }

    fn bytes(&mut self, name: &str, value: &mut Vec<u8>) -> Result<(), StateError> {
        let (path, info, stored) = self.find(name)?;
        if info.dtype != stored_dtype(Dtype::U8) || info.shape.len() != 1 {
            return Err(StateError::Mismatch {
                path,
                expected: "u8 of one dimension".to_string(),
                found: format!("{} {:?}", info.dtype.to_string().to_lowercase(), info.shape),
            });
        }
        value.clear();
        value.extend_from_slice(stored);
        Ok(())
    }
}

/// What safetensors calls an element type.
fn stored_dtype(dtype: Dtype) -> safetensors::Dtype {
    match dtype {
        Dtype::Bool => safetensors::Dtype::BOOL,
        Dtype::U8 => safetensors::Dtype::U8,
        Dtype::I32 => safetensors::Dtype::I32,
        Dtype::I64 => safetensors::Dtype::I64,
        Dtype::F16 => safetensors::Dtype::F16,
        Dtype::Bf16 => safetensors::Dtype::BF16,
        Dtype::F32 => safetensors::Dtype::F32,
        Dtype::F64 => safetensors::Dtype::F64,
    }
}
