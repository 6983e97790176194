//! The bytes of a snapshot file.
//!
//! All numbers are little-endian. A *sum* is the XXH3-64 hash of the bytes it follows.
//!
//! ```text
//! header   "rlreplay" · version: u32 · length: u32 · length bytes of Meta in postcard · sum of all that
//! block    index: u64 · stored: u32 · raw: u32 · sum of the stored bytes · sum of these 24 bytes · stored bytes
//! …        blocks, counted from 0
//! footer   "endrepla" · blocks: u64 · bytes of the file: u64 · id: u64 · sum of these 32 bytes
//! ```
//!
//! A block holds `raw` bytes; where `stored` is less, they are compressed. One after the other the blocks make a stream of
//! *pieces* (see `pieces.rs`), which begin and end anywhere in a block. `id` is the XXH3-64 hash of the header and of
//! every block's 32 bytes before its stored ones, so it stands for all that is in the file: an increment names its base
//! by it.

use serde::{Deserialize, Serialize};
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;

pub(crate) const MAGIC: [u8; 8] = *b"rlreplay";
pub(crate) const END_MAGIC: [u8; 8] = *b"endrepla";
pub(crate) const VERSION: u32 = 2;
/// The versions that are read. In version 1 [`Meta`] ended before `frames`.
pub(crate) const VERSIONS: std::ops::RangeInclusive<u32> = 1..=VERSION;
/// Bytes before [`Meta`].
pub(crate) const PREFIX_BYTES: usize = 16;
/// A header is some tens of bytes and two names; more is damage.
pub(crate) const MAX_META_BYTES: u32 = 1 << 16;
pub(crate) const BLOCK_HEADER_BYTES: usize = 32;
pub(crate) const FOOTER_BYTES: usize = 40;
/// The most that a block may hold. What a reader takes of memory at once is bounded by it.
pub(crate) const MAX_BLOCK_BYTES: usize = 64 << 20;
pub(crate) const SUM_BYTES: usize = 8;

/// What a file says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// Rows are stored as they lie in memory.
    pub(crate) little_endian: bool,
    pub(crate) codec: Codec,
    /// Rows and frames come in pieces of about this size, and no block holds more.
    pub(crate) block_bytes: u32,
    /// See [`Lineage`](super::Lineage).
    pub(crate) lineage: u64,
    /// The rows.
    pub(crate) rows: Section,
    /// Where the rows and frames are that are not here.
    pub(crate) base: Option<Base>,
    /// The frames that the rows refer to, if it is a buffer of frames.
    pub(crate) frames: Option<Section>,
}

impl Meta {
    /// # Errors
    /// When the bytes are none, or of a version that is not in [`VERSIONS`].
    pub(crate) fn decode(version: u32, bytes: &[u8]) -> Result<Self, postcard::Error> {
        match version {
            // A byte of 0 is postcard's `None`.
            1 => postcard::from_bytes(&[bytes, &[0]].concat()),
            _ => postcard::from_bytes(bytes),
        }
    }

    /// Both kinds of sections, those that there are.
    pub(crate) fn sections(&self) -> impl Iterator<Item = &Section> {
        [Some(&self.rows), self.frames.as_ref()].into_iter().flatten()
    }
}

/// Rows, or frames, by serial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Section {
    /// Those that were live.
    pub(crate) live: Range<u64>,
    /// Those that are in this file: the newest of `live`, all of them if there is no base.
    pub(crate) here: Range<u64>,
}

/// The file that an increment adds to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Base {
    /// Its name in the same folder.
    pub(crate) name: String,
    pub(crate) id: u64,
}

/// How blocks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Codec {
    None,
    Lz4,
    Zstd,
}

impl Codec {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }
}

/// What stands before a block's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub(crate) index: u64,
    pub(crate) stored: u32,
    pub(crate) raw: u32,
    pub(crate) sum: u64,
}

impl BlockHeader {
    pub(crate) fn encode(&self) -> [u8; BLOCK_HEADER_BYTES] {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        bytes[..8].copy_from_slice(&self.index.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.stored.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.raw.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sum.to_le_bytes());
        seal(bytes)
    }

    /// `None` when the sum does not fit.
    pub(crate) fn decode(bytes: &[u8; BLOCK_HEADER_BYTES]) -> Option<Self> {
        let [index, lengths, sum] = sealed::<_, 3>(bytes)?;
        Some(Self { index, stored: lengths as u32, raw: (lengths >> 32) as u32, sum })
    }
}

/// What a file ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) blocks: u64,
    pub(crate) file_bytes: u64,
    pub(crate) id: u64,
}

impl Footer {
    pub(crate) fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut bytes = [0; FOOTER_BYTES];
        let words = [u64::from_le_bytes(END_MAGIC), self.blocks, self.file_bytes, self.id];
        for (word, place) in words.iter().zip(bytes.chunks_exact_mut(8)) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        seal(bytes)
    }

    /// `None` when these bytes are no footer.
    pub(crate) fn decode(bytes: &[u8; FOOTER_BYTES]) -> Option<Self> {
        let [magic, blocks, file_bytes, id] = sealed::<_, 4>(bytes)?;
        (magic == u64::from_le_bytes(END_MAGIC)).then_some(Self { blocks, file_bytes, id })
    }
}

/// Puts the sum of the bytes before them into the last eight.
fn seal<const N: usize>(mut bytes: [u8; N]) -> [u8; N] {
    let (covered, sum) = bytes.split_at_mut(N - SUM_BYTES);
    sum.copy_from_slice(&xxh3_64(covered).to_le_bytes());
    bytes
}

/// The `W` words before the sum, if that fits.
fn sealed<const N: usize, const W: usize>(bytes: &[u8; N]) -> Option<[u64; W]> {
    let words = bytes.as_chunks::<8>().0;
    let word = |at: usize| u64::from_le_bytes(words[at]);
    (word(W) == xxh3_64(&bytes[..W * 8])).then(|| std::array::from_fn(word))
}

/// The header of a file with this `meta`.
pub(crate) fn encode_header(meta: &Meta) -> Result<Vec<u8>, postcard::Error> {
    let encoded = postcard::to_stdvec(meta)?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(encoded.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&encoded);
    bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
    Ok(bytes)
}
