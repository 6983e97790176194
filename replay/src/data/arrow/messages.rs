//! The messages that a file or stream consists of, read one by one, with every size compared with what is there before
//! memory is taken for it. (Arrow's columnar format, *Serialization and Interprocess Communication*.)
//!
//! A file is a stream between a magic word and a footer, so both are read alike and the footer is not needed.

use crate::data::DataError;
use crate::data::file::{Bytes, ReadSeek};
use arrow_buffer::{Buffer, MutableBuffer};
use arrow_ipc::{Message, MessageHeader, RecordBatch, root_as_message};
use std::io::{Read, Seek, SeekFrom};

const MAGIC: &[u8; 6] = b"ARROW1";
/// Between the magic word and the first message of a file.
const PADDED_MAGIC: u64 = 8;
/// Before the length of a message, since version 0.15 of the format.
const CONTINUATION: u32 = u32::MAX;

pub(super) struct Messages<'a> {
    reader: Box<dyn ReadSeek + 'a>,
    file: String,
    /// Bytes that have not been read.
    left: u64,
}

/// One message: its metadata, which are a verified flatbuffer, and its body.
pub(super) struct Parts {
    metadata: Vec<u8>,
    pub(super) body: Buffer,
}

impl Parts {
    /// # Panics
    /// Never: it was verified when it was read.
    pub(super) fn message(&self) -> Message<'_> {
        root_as_message(&self.metadata).expect("verified")
    }
}

impl<'a> Messages<'a> {
    pub(super) fn open(bytes: &'a Bytes) -> Result<Self, DataError> {
        let file = bytes.name();
        let refused = |source| DataError::Io { file: file.clone(), source };
        let (mut reader, length) = bytes.open()?;
        let mut start = [0u8; MAGIC.len()];
        let is_file = length >= PADDED_MAGIC && {
            reader.read_exact(&mut start).map_err(refused)?;
            &start == MAGIC
        };
        let mut left = length;
        if is_file {
            // Without this a file cut off between two messages would pass for a whole one.
            reader.seek(SeekFrom::End(-(MAGIC.len() as i64))).map_err(refused)?;
            reader.read_exact(&mut start).map_err(refused)?;
            if &start != MAGIC {
                return Err(DataError::Damaged { file, why: "its end is missing".to_string() });
            }
            left -= PADDED_MAGIC;
        }
        reader.seek(SeekFrom::Start(length - left)).map_err(refused)?;
        // Some writers pad with zeros to where they like messages to begin.
        while is_file && left >= 4 {
            let mut word = [0u8; 4];
            reader.read_exact(&mut word).map_err(refused)?;
            if word != [0; 4] {
                reader.seek(SeekFrom::Start(length - left)).map_err(refused)?;
                break;
            }
            left -= 4;
        }
        Ok(Self { reader, file, left })
    }

    /// The next message, `None` when there is no more.
    pub(super) fn next(&mut self) -> Result<Option<Parts>, DataError> {
        // A stream may just end; a writer that can says so with a length of 0.
        if self.left == 0 {
            return Ok(None);
        }
        let mut length = self.word()?;
        if length == CONTINUATION {
            length = self.word()?;
        }
        if length == 0 {
            return Ok(None);
        }
        self.room(u64::from(length), "metadata")?;
        let mut metadata = vec![0u8; length as usize];
        self.fill(&mut metadata)?;
        let message = root_as_message(&metadata).map_err(|error| self.damaged(format!("{error}")))?;
        let body_bytes = u64::try_from(message.bodyLength())
            .map_err(|_| self.damaged("a body has a negative length".to_string()))?;
        self.room(body_bytes, "a body")?;
        let mut body = MutableBuffer::from_len_zeroed(body_bytes as usize);
        self.fill(&mut body)?;
        let parts = Parts { metadata, body: body.into() };
        if parts.message().header_type() == MessageHeader::RecordBatch {
            let batch = parts.message().header_as_record_batch();
            let batch = batch.ok_or_else(|| self.damaged("a batch has no header".to_string()))?;
            self.check(&batch, body_bytes)?;
        }
        Ok(Some(parts))
    }

    /// Whether what the batch says of its body can be true; the decoder takes it for granted.
    fn check(&self, batch: &RecordBatch<'_>, body_bytes: u64) -> Result<(), DataError> {
        if batch.compression().is_some() {
            let what = "its batches are compressed; write them without compression \
                        (pyarrow: `IpcWriteOptions(compression=None)`, or `write_feather(…, compression=\"uncompressed\")`)";
            return Err(DataError::Unsupported { file: self.file.clone(), what: what.to_string() });
        }
        // No count in a file can be larger, and none of what is computed from these overflows.
        let count = 0..=1i64 << 40;
        for buffer in batch.buffers().into_iter().flatten() {
            let end = u64::try_from(buffer.offset())
                .ok()
                .zip(u64::try_from(buffer.length()).ok())
                .and_then(|(offset, length)| offset.checked_add(length));
            if end.is_none_or(|end| end > body_bytes) {
                return Err(self.damaged("a buffer lies outside of its batch".to_string()));
            }
        }
        for node in batch.nodes().into_iter().flatten() {
            if !count.contains(&node.length()) || !(0..=node.length()).contains(&node.null_count()) {
                return Err(self.damaged("a column's length makes no sense".to_string()));
            }
        }
        if !count.contains(&batch.length()) {
            return Err(self.damaged("a batch's length makes no sense".to_string()));
        }
        Ok(())
    }

    pub(super) fn damaged(&self, why: String) -> DataError {
        DataError::damaged(&self.file, why)
    }

    fn word(&mut self) -> Result<u32, DataError> {
        self.room(4, "a message")?;
        let mut word = [0u8; 4];
        self.fill(&mut word)?;
        Ok(u32::from_le_bytes(word))
    }

    fn room(&self, bytes: u64, what: &str) -> Result<(), DataError> {
        if bytes <= self.left {
            return Ok(());
        }
        Err(self.damaged(format!("{what} of {bytes} bytes should follow, and {} are left", self.left)))
    }

    fn fill(&mut self, into: &mut [u8]) -> Result<(), DataError> {
        self.reader.read_exact(into).map_err(|source| DataError::Io { file: self.file.clone(), source })?;
        self.left -= into.len() as u64;
        Ok(())
    }
}
