//! The bytes of a snapshot file, taken apart and put together again as `src/file/format.rs` describes them, by code of
//! the tests' own; and small buffers to make such files from.
#![allow(dead_code, reason = "each test uses a part of it")]

use rand::{Rng as _, RngExt};
use rl_replay::{Dtype, Field, MemoryState, Prioritized, Replay, Rng, Schema};
use std::ops::Range;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// A file in its parts. [`bytes`](Self::bytes) makes every checksum fit again.
#[derive(Clone)]
pub struct Parts {
    pub version: u32,
    pub meta: Vec<u8>,
    pub blocks: Vec<Block>,
}

#[derive(Clone)]
pub struct Block {
    pub index: u64,
    pub raw: u32,
    pub stored: Vec<u8>,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

impl Parts {
    pub fn of(file: &[u8]) -> Self {
        assert_eq!(&file[..8], b"rlreplay");
        let length = u32_at(file, 12) as usize;
        let meta = file[16..16 + length].to_vec();
        let mut at = 16 + length + 8;
        let mut blocks = Vec::new();
        while at + 40 < file.len() {
            let stored = u32_at(file, at + 8) as usize;
            blocks.push(Block {
                index: u64_at(file, at),
                raw: u32_at(file, at + 12),
                stored: file[at + 32..][..stored].to_vec(),
            });
            at += 32 + stored;
        }
        let parts = Self { version: u32_at(file, 8), meta, blocks };
        assert_eq!(parts.bytes(), file, "the description of the format is that of the file");
        parts
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut file = b"rlreplay".to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend((self.meta.len() as u32).to_le_bytes());
        file.extend(&self.meta);
        file.extend(xxh3_64(&file).to_le_bytes());
        let mut id = Xxh3::new();
        id.update(&file);
        for block in &self.blocks {
            let mut header = block.index.to_le_bytes().to_vec();
            header.extend((block.stored.len() as u32).to_le_bytes());
            header.extend(block.raw.to_le_bytes());
            header.extend(xxh3_64(&block.stored).to_le_bytes());
            header.extend(xxh3_64(&header).to_le_bytes());
            id.update(&header);
            file.extend(header);
            file.extend(&block.stored);
        }
        let mut footer = b"endrepla".to_vec();
        footer.extend((self.blocks.len() as u64).to_le_bytes());
        footer.extend((file.len() as u64 + 40).to_le_bytes());
        footer.extend(id.digest().to_le_bytes());
        footer.extend(xxh3_64(&footer).to_le_bytes());
        file.extend(footer);
        file
    }

    /// For each part of the file its bytes, and how an error names it.
    pub fn places(&self) -> Vec<(Range<usize>, String)> {
        let mut at = 16 + self.meta.len() + 8;
        let mut places = vec![(0..at, "header (at byte 0)".to_string())];
        for (index, block) in self.blocks.iter().enumerate() {
            let end = at + 32 + block.stored.len();
            places.push((at..end, format!("block {index} (at byte {at})")));
            at = end;
        }
        places.push((at..at + 40, format!("footer (at byte {at})")));
        places
    }
}

/// A folder in memory where there is such a thing: a test that writes thousands of files would wait for a disk.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub fn schema() -> Schema {
    Schema::transition((Dtype::F32, &[3]), (Dtype::I64, &[])).unwrap()
}

pub fn build(schema: &Schema, capacity: usize, prioritized: bool) -> Replay {
    let builder = Replay::builder(schema.clone()).capacity(capacity).reserve(2);
    let settings = Prioritized { alpha: 1.0, epsilon: 0.0 };
    let builder = if prioritized { builder.prioritized(settings) } else { builder.uniform() };
    builder.build().unwrap()
}

/// Inserts `rows` random rows, and gives some of them priorities.
pub fn insert(replay: &Replay, rows: usize, rng: &mut Rng) {
    let mut writer = replay.writer();
    let fields: Vec<Field> = replay.schema().fields().to_vec();
    for _ in 0..rows {
        let row: Vec<Vec<u8>> = fields.iter().map(|field| random_cell(field, rng)).collect();
        let key = writer.push(&row.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        if rng.random_bool(0.5) {
            // A uniform buffer refuses; that is all right.
            let _ = replay.sampler().update_priorities(&[key / 2, key], &[rng.random::<f32>() * 9.0, 0.25]);
        }
    }
}

/// Bytes of one row of a field: any numbers, but finite ones. The second half are zeros, so that long ones compress.
fn random_cell(field: &Field, rng: &mut Rng) -> Vec<u8> {
    loop {
        let mut bytes = vec![0; field.row_bytes()];
        rng.fill_bytes(&mut bytes);
        let half = bytes.len() / 2;
        bytes[half..].fill(0);
        if field.dtype == Dtype::Bool {
            bytes.iter_mut().for_each(|byte| *byte &= 1);
        }
        if field.dtype.first_non_finite(&bytes).is_none() {
            return bytes;
        }
    }
}

pub fn state(replay: &Replay) -> MemoryState {
    MemoryState::save(|v| replay.visit(v)).unwrap()
}

/// The paths at which two buffers differ, their capacities aside.
pub fn differences(a: &MemoryState, b: &MemoryState) -> Vec<String> {
    a.differences(b).into_iter().filter(|path| path != "capacity").collect()
}
