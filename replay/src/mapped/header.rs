//! The bytes before the slots of a buffer file.
//!
//! All numbers are little-endian. A *sum* is the XXH3-64 hash of the bytes it follows.
//!
//! ```text
//! 0       "rlbuffer" · version: u32 · length: u32
//! 512     Note: epoch · limit · oldest · end · sum
//! 1024    Commit, of an even sequence: sequence · epoch · era · oldest · end · ceiling · boot · sum
//! 1536    Commit, of an odd sequence
//! 4096    length bytes of Identity in postcard · sum of the first 16 bytes and of these
//! slots   from the next multiple of 65,536 on, up to the end of the file
//! ```
//!
//! Records begin on sectors of their own, which a disk writes as a whole. One that is all zeros was never written.

use crate::layout::Layout;
use rl_minibatch::Schema;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

pub(super) const MAGIC: [u8; 8] = *b"rlbuffer";
pub(super) const VERSION: u32 = 1;
pub(super) const PREFIX_BYTES: usize = 16;
pub(super) const NOTE_AT: u64 = 512;
pub(super) const COMMITS_AT: [u64; 2] = [1024, 1536];
pub(super) const IDENTITY_AT: u64 = 4096;
/// Slots begin on a page, however large pages are.
const ALIGNMENT: u64 = 64 << 10;
/// Room for some thousands of fields; more is damage.
pub(super) const MAX_IDENTITY_BYTES: u32 = 1 << 20;
pub(super) const SUM_BYTES: usize = 8;

/// What the slots are, for the whole life of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) little_endian: bool,
    pub(super) schema: Schema,
    pub(super) stride: u64,
    pub(super) capacity: u64,
    pub(super) reserve: u64,
    /// Drawn at random, to know the sampler's state by that lies beside the file.
    pub(super) id: u64,
}

impl Identity {
    pub(super) fn new(schema: &Schema, layout: &Layout, capacity: u64, reserve: u64) -> Self {
        let (schema, stride) = (schema.clone(), layout.stride as u64);
        let little_endian = cfg!(target_endian = "little");
        Self { little_endian, schema, stride, capacity, reserve, id: rand::random() }
    }

    /// The prefix, and what stands at [`IDENTITY_AT`].
    pub(super) fn encode(&self) -> Result<(Vec<u8>, Vec<u8>), postcard::Error> {
        let mut encoded = postcard::to_stdvec(self)?;
        let mut prefix = MAGIC.to_vec();
        prefix.extend_from_slice(&VERSION.to_le_bytes());
        prefix.extend_from_slice(&(encoded.len() as u32).to_le_bytes());
        encoded.extend_from_slice(&Self::sum(&prefix, &encoded).to_le_bytes());
        Ok((prefix, encoded))
    }

    pub(super) fn sum(prefix: &[u8], encoded: &[u8]) -> u64 {
        let mut sum = Xxh3Default::new();
        sum.update(prefix);
        sum.update(encoded);
        sum.digest()
    }

    /// In what another file differs, in words; `None` when a buffer of this kind can go on with it.
    pub(super) fn difference(&self, found: &Self) -> Option<String> {
        let fields = |schema: &Schema| {
            let each = schema.fields().iter().map(|f| format!("{}: {} {:?}", f.name, f.dtype, f.shape));
            each.collect::<Vec<_>>().join(", ")
        };
        if self.little_endian != found.little_endian {
            return Some("it comes from a machine with another order of bytes".into());
        }
        if self.schema != found.schema {
            let [expected, found] = [&self.schema, &found.schema].map(fields);
            return Some(format!("its rows are ({found}) and were to be ({expected})"));
        }
        let numbers = [
            ("capacity", self.capacity, found.capacity),
            ("reserve", self.reserve, found.reserve),
            ("distance from row to row in bytes", self.stride, found.stride),
        ];
        let (what, expected, found) = numbers.into_iter().find(|(_, expected, found)| expected != found)?;
        Some(format!("its {what} is {found} and was to be {expected}"))
    }
}

/// Where the slots begin behind an identity that is encoded in so many bytes, its sum included.
pub(super) fn slots_at(identity_bytes: usize) -> u64 {
    (IDENTITY_AT + identity_bytes as u64).next_multiple_of(ALIGNMENT)
}

/// Written before a new limit holds: what a process that was killed had come to at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) epoch: u64,
    /// Only serials below it can have been given out.
    pub(super) limit: u64,
    /// Rows that were live then.
    pub(super) live: Range<u64>,
}

impl Note {
    pub(super) const BYTES: usize = 5 * 8;

    pub(super) fn encode(&self) -> Vec<u8> {
        seal(&[self.epoch, self.limit, self.live.start, self.live.end])
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let [epoch, limit, start, end] = sealed(bytes)?;
        Some(Self { epoch, limit, live: start..end })
    }
}

/// No promise; see [`Commit::ceiling`].
pub(super) const NO_CEILING: u64 = u64::MAX;

/// Written when the file is opened, flushed, loaded into, and closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    /// Counts commits; the higher one holds.
    pub(super) sequence: u64,
    /// Counts openings, and when the slots were written anew: notes of an earlier epoch say nothing any more.
    pub(super) epoch: u64,
    /// The epoch in which the keys last began anew, and with them the sampler's state.
    pub(super) era: u64,
    /// These rows were live, and were on the disk unless there is no ceiling.
    pub(super) live: Range<u64>,
    /// While this commit is the newest no serial from here on is given out. [`NO_CEILING`] promises nothing.
    pub(super) ceiling: u64,
    /// Which boot of the system this is; 0 where it is not told.
    pub(super) boot: u64,
}

impl Commit {
    pub(super) const BYTES: usize = 8 * 8;

    pub(super) fn encode(&self) -> Vec<u8> {
        let Range { start, end } = self.live;
        seal(&[self.sequence, self.epoch, self.era, start, end, self.ceiling, self.boot])
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let [sequence, epoch, era, start, end, ceiling, boot] = sealed(bytes)?;
        Some(Self { sequence, epoch, era, live: start..end, ceiling, boot })
    }

    /// Where it belongs. Two alternate, so that the one before is whole while this is written.
    pub(super) fn at(&self) -> u64 {
        COMMITS_AT[(self.sequence % 2) as usize]
    }
}

fn seal(words: &[u64]) -> Vec<u8> {
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
    bytes
}

/// The `W` words before the sum, if that fits.
fn sealed<const W: usize>(bytes: &[u8]) -> Option<[u64; W]> {
    let words = bytes.as_chunks::<8>().0;
    let word = |at: usize| u64::from_le_bytes(words[at]);
    (words.len() == W + 1 && word(W) == xxh3_64(&bytes[..W * 8])).then(|| std::array::from_fn(word))
}
