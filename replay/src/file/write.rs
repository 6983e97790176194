//! Writing: a visitor that turns pieces into a stream, and the stream into blocks.

use super::codec::Compressor;
use super::error::SnapshotPart;
use super::format::{BlockHeader, FOOTER_BYTES, Footer, Meta, encode_header};
use super::pieces::{MAX_RECORD_BYTES, Record, Scope, stored_shape};
use rl_minibatch::{Dtype, StateError, StateVisitor};
use std::io::{self, Write};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

/// Bytes of this length and more go to the file from where they are; shorter ones are collected first.
const DIRECT_BYTES: usize = 32 << 10;

/// Cuts a stream of bytes into blocks and writes them.
struct BlockWriter<'a> {
    out: &'a mut dyn Write,
    compressor: Compressor,
    block_bytes: usize,
    pending: Vec<u8>,
    offset: u64,
    blocks: u64,
    id: Xxh3Default,
}

impl<'a> BlockWriter<'a> {
    fn new(out: &'a mut dyn Write, meta: &Meta, compressor: Compressor) -> io::Result<Self> {
        let header = encode_header(meta).map_err(io::Error::other)?;
        let mut id = Xxh3Default::new();
        id.update(&header);
        out.write_all(&header)?;
        let (block_bytes, offset) = (meta.block_bytes as usize, header.len() as u64);
        let pending = Vec::with_capacity(DIRECT_BYTES.min(block_bytes));
        Ok(Self { out, compressor, block_bytes, pending, offset, blocks: 0, id })
    }

    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let full = DIRECT_BYTES.min(self.block_bytes);
        if bytes.len() >= full {
            self.flush()?;
            return bytes.chunks(self.block_bytes).try_for_each(|chunk| self.block(chunk));
        }
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(full - self.pending.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            if self.pending.len() == full {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut pending = std::mem::take(&mut self.pending);
        self.block(&pending)?;
        pending.clear();
        self.pending = pending;
        Ok(())
    }

    fn block(&mut self, raw: &[u8]) -> io::Result<()> {
        let stored = self.compressor.compress(raw)?;
        let header = BlockHeader {
            index: self.blocks,
            stored: stored.len() as u32,
            raw: raw.len() as u32,
            sum: xxh3_64(stored),
        };
        let header = header.encode();
        self.id.update(&header);
        self.out.write_all(&header)?;
        self.out.write_all(stored)?;
        self.offset += (header.len() + stored.len()) as u64;
        self.blocks += 1;
        Ok(())
    }

    fn finish(&mut self) -> io::Result<Footer> {
        self.flush()?;
        let (blocks, id) = (self.blocks, self.id.digest());
        let footer = Footer { blocks, file_bytes: self.offset + FOOTER_BYTES as u64, id };
        self.out.write_all(&footer.encode())?;
        self.out.flush()?;
        Ok(footer)
    }
}

/// Writes every piece that it is shown.
pub(super) struct Saver<'a> {
    blocks: BlockWriter<'a>,
    scope: Scope,
    failure: Option<io::Error>,
}

impl<'a> Saver<'a> {
    /// Begins a file.
    pub(super) fn new(out: &'a mut dyn Write, meta: &Meta, compressor: Compressor) -> io::Result<Self> {
        let blocks = BlockWriter::new(out, meta, compressor)?;
        Ok(Self { blocks, scope: Scope::default(), failure: None })
    }

    /// The block in hand.
    pub(super) fn part(&self) -> SnapshotPart {
        SnapshotPart::Block { index: self.blocks.blocks, offset: self.blocks.offset }
    }

    /// What the medium refused, if that is why the visit failed.
    pub(super) fn failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// Ends the file.
    pub(super) fn finish(&mut self) -> io::Result<Footer> {
        self.blocks.put(&0u32.to_le_bytes())?;
        self.blocks.finish()
    }

    fn piece(
        &mut self,
        name: &str,
        array: Option<(Dtype, Vec<u64>)>,
        bytes: &[u8],
    ) -> Result<(), StateError> {
        let path = self.scope.path(name);
        let invalid = |path: &str, why: String| StateError::Invalid { path: path.to_string(), why };
        let record = Record { path, array, bytes: bytes.len() as u64 };
        let encoded = postcard::to_stdvec(&record).map_err(|e| invalid(&record.path, e.to_string()))?;
        if encoded.len() > MAX_RECORD_BYTES {
            let why = format!("its name and shape take more than {MAX_RECORD_BYTES} bytes");
            return Err(invalid(&record.path.chars().take(40).collect::<String>(), why));
        }
        let length = (encoded.len() as u32).to_le_bytes();
        [&length, &encoded[..], bytes].into_iter().try_for_each(|part| self.blocks.put(part)).map_err(
            |error| {
                let failed = invalid(&record.path, error.to_string());
                self.failure = Some(error);
                failed
            },
        )
    }
}

impl StateVisitor for Saver<'_> {
    fn loading(&self) -> bool {
        false
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
        self.piece(name, Some((dtype, stored_shape(shape))), bytes)
    }

    fn bytes(&mut self, name: &str, value: &mut Vec<u8>) -> Result<(), StateError> {
        self.piece(name, None, value)
    }
}
