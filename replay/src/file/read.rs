//! Reading: blocks are checked, joined to the stream that they were cut from, and given out by a visitor.

use super::codec;
use super::error::{SnapshotError, SnapshotPart};
use super::format::{BLOCK_HEADER_BYTES, BlockHeader, Codec};
use super::open::Opened;
use super::pieces::{MAX_RECORD_BYTES, Record, Scope, stored_shape};
use rl_minibatch::{Dtype, StateError, StateVisitor};
use std::io::{self, Read};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

/// Opaque bytes are taken in steps of this size, so that a length that lies costs no memory.
const STEP_BYTES: u64 = 1 << 20;

/// The stream of bytes that was cut into a file's blocks.
struct BlockReader {
    opened: Opened,
    /// Bytes of the file read so far.
    offset: u64,
    next: u64,
    /// The block read last.
    part: SnapshotPart,
    stored: Vec<u8>,
    raw: Vec<u8>,
    /// Bytes of `raw` given out.
    given: usize,
    id: Xxh3Default,
}

impl BlockReader {
    fn new(opened: Opened) -> Self {
        let mut id = Xxh3Default::new();
        id.update(&opened.header);
        Self {
            offset: opened.header.len() as u64,
            opened,
            next: 0,
            part: SnapshotPart::Header,
            stored: Vec::new(),
            raw: Vec::new(),
            given: 0,
            id,
        }
    }

    /// Fills `out` with the stream's next bytes.
    fn get(&mut self, mut out: &mut [u8]) -> Result<(), SnapshotError> {
        while !out.is_empty() {
            if self.given == self.raw.len() {
                let header = self.next_header()?;
                let raw = header.raw as usize;
                if header.stored == header.raw && raw <= out.len() {
                    // Straight to where it belongs.
                    let (now, later) = out.split_at_mut(raw);
                    self.read_stored(&header, now)?;
                    out = later;
                    continue;
                }
                self.fill(&header)?;
            }
            let now = out.len().min(self.raw.len() - self.given);
            let (place, later) = out.split_at_mut(now);
            place.copy_from_slice(&self.raw[self.given..][..now]);
            self.given += now;
            out = later;
        }
        Ok(())
    }

    /// Passes over the stream's next bytes; the blocks that they are in are checked all the same.
    fn skip(&mut self, mut bytes: u64) -> Result<(), SnapshotError> {
        while bytes > 0 {
            if self.given == self.raw.len() {
                let header = self.next_header()?;
                if u64::from(header.raw) <= bytes {
                    let mut stored = std::mem::take(&mut self.stored);
                    stored.resize(header.stored as usize, 0);
                    let read = self.read_stored(&header, &mut stored);
                    self.stored = stored;
                    read?;
                    bytes -= u64::from(header.raw);
                    continue;
                }
                self.fill(&header)?;
            }
            let now = bytes.min((self.raw.len() - self.given) as u64);
            self.given += now as usize;
            bytes -= now;
        }
        Ok(())
    }

    /// The header of the next block. The lengths in it are such that the file can hold them.
    fn next_header(&mut self) -> Result<BlockHeader, SnapshotError> {
        let end = self.opened.footer_offset();
        self.part = SnapshotPart::Block { index: self.next, offset: self.offset };
        let left = end - self.offset;
        if left < BLOCK_HEADER_BYTES as u64 {
            let why = if left == 0 { "the state needs another block" } else { "it has no room for a header" };
            return Err(self.damaged(why));
        }
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        self.read(&mut bytes)?;
        let Some(header) = BlockHeader::decode(&bytes) else {
            return Err(self.damaged("the checksum of its header does not fit"));
        };
        let (stored, raw) = (header.stored as usize, header.raw as usize);
        if header.index != self.next {
            return Err(self.damaged(&format!("it says that it is block {}", header.index)));
        }
        let meta = &self.opened.meta;
        let least = if stored == raw { raw } else { codec::least_stored(meta.codec, raw) };
        let possible = (1..=meta.block_bytes).contains(&header.raw) && (least..=raw).contains(&stored);
        if !possible || stored == 0 || stored as u64 > left - BLOCK_HEADER_BYTES as u64 {
            return Err(self.damaged(&format!("{raw} bytes in {stored} are not possible here")));
        }
        self.id.update(&bytes);
        self.next += 1;
        Ok(header)
    }

    /// Reads a block's stored bytes into `place`, which they fill, and checks them.
    fn read_stored(&mut self, header: &BlockHeader, place: &mut [u8]) -> Result<(), SnapshotError> {
        self.read(place)?;
        if xxh3_64(place) != header.sum {
            return Err(self.damaged("its checksum does not fit"));
        }
        Ok(())
    }

    /// Reads a block into `raw`.
    fn fill(&mut self, header: &BlockHeader) -> Result<(), SnapshotError> {
        let plain = header.stored == header.raw;
        let mut stored = std::mem::take(if plain { &mut self.raw } else { &mut self.stored });
        stored.resize(header.stored as usize, 0);
        self.read_stored(header, &mut stored)?;
        if plain {
            self.raw = stored;
        } else {
            let codec = self.opened.meta.codec;
            debug_assert_ne!(codec, Codec::None);
            self.raw.resize(header.raw as usize, 0);
            codec::decompress(codec, &stored, &mut self.raw).map_err(|why| self.damaged(&why))?;
            self.stored = stored;
        }
        self.given = 0;
        Ok(())
    }

    fn read(&mut self, place: &mut [u8]) -> Result<(), SnapshotError> {
        let read = self.opened.file.read_exact(place);
        read.map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => self.opened.truncated(self.part, self.offset),
            _ => SnapshotError::Read { path: self.opened.path.clone(), part: self.part, source },
        })?;
        self.offset += place.len() as u64;
        Ok(())
    }

    /// Makes sure that the stream ends here, and that all its blocks were those that the footer stands for.
    fn finish(&mut self) -> Result<(), SnapshotError> {
        let offset = self.opened.footer_offset();
        if self.given < self.raw.len() || self.offset < offset {
            self.part = SnapshotPart::Block { index: self.next, offset: self.offset };
            return Err(self.damaged("the state ends before it"));
        }
        self.part = SnapshotPart::Footer { offset };
        let footer = self.opened.footer;
        if footer.blocks != self.next {
            return Err(
                self.damaged(&format!("it says {} blocks, and there are {}", footer.blocks, self.next))
            );
        }
        if footer.id != self.id.digest() {
            return Err(self.damaged("the blocks before it are not those that were written"));
        }
        Ok(())
    }

    fn damaged(&self, why: &str) -> SnapshotError {
        self.opened.damaged(self.part, why)
    }
}

/// Gives back the pieces of a file.
pub(super) struct Loader {
    blocks: BlockReader,
    scope: Scope,
    failure: Option<SnapshotError>,
    ended: bool,
}

impl Loader {
    pub(super) fn new(opened: Opened) -> Self {
        Self { blocks: BlockReader::new(opened), scope: Scope::default(), failure: None, ended: false }
    }

    pub(super) fn opened(&self) -> &Opened {
        &self.blocks.opened
    }

    /// What failed: the file, or else the buffer, which found `error` in it.
    pub(super) fn failure(&mut self, error: StateError) -> SnapshotError {
        let (path, part) = (self.opened().path.clone(), self.blocks.part);
        self.failure.take().unwrap_or(SnapshotError::State { path, part, source: error })
    }

    /// Passes over what has not been asked for, and makes sure that the file is whole.
    pub(super) fn finish(&mut self) -> Result<(), StateError> {
        let rest = (|| {
            while let Some(record) = self.next_record()? {
                self.blocks.skip(record.bytes)?;
            }
            self.blocks.finish()
        })();
        rest.map_err(|error| self.note("its end", error))
    }

    fn note(&mut self, path: &str, error: SnapshotError) -> StateError {
        let why = error.to_string();
        self.failure = Some(error);
        StateError::Invalid { path: path.to_string(), why }
    }

    /// `None` at the end of the stream.
    fn next_record(&mut self) -> Result<Option<Record>, SnapshotError> {
        if self.ended {
            return Ok(None);
        }
        let mut length = [0; 4];
        self.blocks.get(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length == 0 {
            self.ended = true;
            return Ok(None);
        }
        if length > MAX_RECORD_BYTES {
            return Err(self.blocks.damaged(&format!("a name and shape cannot take {length} bytes")));
        }
        let mut encoded = vec![0; length];
        self.blocks.get(&mut encoded)?;
        let record = postcard::from_bytes(&encoded)
            .map_err(|error| self.blocks.damaged(&format!("a name and shape do not decode: {error}")))?;
        Ok(Some(record))
    }

    fn find(&mut self, path: &str) -> Result<Record, StateError> {
        loop {
            match self.next_record() {
                Ok(Some(record)) if record.path == path => return Ok(record),
                Ok(Some(record)) => {
                    self.blocks.skip(record.bytes).map_err(|error| self.note(path, error))?;
                }
                Ok(None) => return Err(StateError::Missing { path: path.to_string() }),
                Err(error) => return Err(self.note(path, error)),
            }
        }
    }
}

impl StateVisitor for Loader {
    fn loading(&self) -> bool {
        true
    }

    fn enter(&mut self, name: &str) {
        self.scope.enter(name);
    }

    fn leave(&mut self) {
        self.scope.leave();
    }

    fn array(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        bytes: &mut [u8],
    ) -> Result<(), StateError> {
        let path = self.scope.path(name);
        let found = self.find(&path)?;
        let expected = Record { array: Some((dtype, stored_shape(shape))), bytes: bytes.len() as u64, path };
        if found != expected {
            let (expected, found) = (expected.describe(), found.describe());
            return Err(StateError::Mismatch { path: self.scope.path(name), expected, found });
        }
        self.blocks.get(bytes).map_err(|error| self.note(&found.path, error))
    }

    fn bytes(&mut self, name: &str, value: &mut Vec<u8>) -> Result<(), StateError> {
        let path = self.scope.path(name);
        let record = self.find(&path)?;
        if record.array.is_some() {
            let (expected, found) = ("opaque bytes".to_string(), record.describe());
            return Err(StateError::Mismatch { path, expected, found });
        }
        let mut taken = Vec::new();
        let mut left = record.bytes;
        while left > 0 {
            let (start, step) = (taken.len(), left.min(STEP_BYTES));
            taken.resize(start + step as usize, 0);
            self.blocks.get(&mut taken[start..]).map_err(|error| self.note(&path, error))?;
            left -= step;
        }
        *value = taken;
        Ok(())
    }
}
