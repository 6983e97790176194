//! Random damage to snapshot files, with an eye for their structure: whatever the bytes are, loading them gives an error or
//! a sound buffer, never a panic, and takes no memory that the file does not account for.
//!
//! `SNAPSHOT_FUZZ_SECONDS=600 cargo test --release -p rl-replay --test snapshot_fuzz -- --nocapture` looks for as long as
//! one likes; by default it is two seconds. The seed is fixed: the same seconds try the same files, and more of them.

mod frames_world;
mod snapshot_layout;

use frames_world::{Case, default_case};
use rand::{Rng as _, RngExt, SeedableRng};
use rl_replay::{
    Batch, Drawn, Durable, FrameReplay, FrameStep, MemoryState, Replay, ReplayError, Rng, SnapshotOptions,
};
use snapshot_layout::{Block, Parts, build, differences, insert, schema, state};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

/// Peak memory that the whole run may take: buffers here are some kilobytes, and a block that says it unpacks to the
/// most that a block may (64 MiB) is as much as a reader ever takes at once.
const PEAK_KB: u64 = 400_000;

/// A buffer to load into.
trait Subject: Durable {
    /// Room for 16 rows.
    fn empty() -> Self;
    /// Inserts and draws; whatever was loaded, that must not panic.
    fn work(&self, rows: usize, rng: &mut Rng);
    fn state(&self) -> MemoryState;
    /// The rows that it has, drawable or not, by its capacity at most.
    fn rows(&self) -> Range<u64>;
}

impl Subject for Replay {
    fn empty() -> Self {
        build(&schema(), 16, true)
    }

    fn work(&self, rows: usize, rng: &mut Rng) {
        insert(self, rows, rng);
    }

    fn state(&self) -> MemoryState {
        state(self)
    }

    fn rows(&self) -> Range<u64> {
        self.live()
    }
}

fn frames_case() -> Case {
    let case = Case { k: 2, n: 2, capacity: 16, extra: Some(4), history: Some(2), ..default_case() };
    Case { prioritized: true, zero: true, streams: 2, ..case }
}

impl Subject for FrameReplay {
    fn empty() -> Self {
        frames_case().build()
    }

    fn work(&self, rows: usize, rng: &mut Rng) {
        let mut stream = self.stream();
        stream.begin(&[1; 12]).unwrap();
        let (mut reader, mut drawn) = (self.sampler(), Drawn::default());
        let mut batch = Batch::new(self.schema(), 8);
        for _ in 0..rows {
            let (action, reward, next_frame) = (&[0; 8], 1.0, &[2; 12]);
            stream
                .step(FrameStep { action, reward, next_frame, terminated: false, truncated: false })
                .unwrap();
            match reader.sample_into(rng, 8, &mut batch.view_mut(), &mut drawn) {
                Ok(()) => {
                    reader.update_priorities(&drawn.rows, &[rng.random::<f32>(); 8]).unwrap();
                }
                // Rows may refer to any frame.
                Err(error) => {
                    assert!(matches!(error, ReplayError::NotFrames { .. } | ReplayError::Sample(_)))
                }
            }
        }
    }

    fn state(&self) -> MemoryState {
        MemoryState::save(|v| self.visit(v)).unwrap()
    }

    fn rows(&self) -> Range<u64> {
        // Those that can be drawn are among them.
        self.inserted().saturating_sub(16)..self.inserted()
    }
}

#[test]
fn damaged_files_are_refused_or_sound() {
    look::<Replay>();
}

#[test]
fn damaged_files_of_frames_are_refused_or_sound() {
    look::<FrameReplay>();
}

fn look<B: Subject>() {
    let seconds = std::env::var("SNAPSHOT_FUZZ_SECONDS").map_or(2, |seconds| seconds.parse().unwrap());
    let mut rng = Rng::seed_from_u64(2026);
    let folder = snapshot_layout::folder();
    // Files of the other kind, too: a piece of one may come into the other.
    let seeds = [seeds::<Replay>(folder.path()), seeds::<B>(folder.path())].concat();
    let path = folder.path().join("b");
    let used = B::empty();
    used.work(20, &mut rng);
    let before = used.state();
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut tried, mut refused) = (0u64, 0u64);
    while Instant::now() < end {
        let bytes = damage(&seeds, &mut rng);
        std::fs::write(&path, &bytes).unwrap();
        let empty = B::empty();
        match empty.load(&path) {
            Err(error) => {
                assert!(!error.to_string().is_empty());
                assert_eq!((empty.rows(), empty.bulk()), (0..0, 0..0), "{error}");
                refused += 1;
                if tried.is_multiple_of(64) {
                    used.load(&path).unwrap_err();
                    assert_eq!(used.state().differences(&before), [""; 0], "{error}");
                }
            }
            Ok(saved) => {
                assert_eq!(saved.live.end, empty.rows().end);
                assert!(saved.live.end - saved.live.start <= 16);
                goes_on(&empty, &mut rng);
            }
        }
        tried += 1;
    }
    let peak = peak_kb();
    println!("{tried} files, {refused} refused; peak memory {peak:?} kB");
    assert!(tried > 50 && refused > tried / 2 && refused < tried);
    assert!(peak.is_none_or(|peak| peak < PEAK_KB), "{peak:?} kB");
}

/// A buffer that came from strange bytes can be used, saved and loaded.
fn goes_on<B: Subject>(replay: &B, rng: &mut Rng) {
    replay.work(5, rng);
    let folder = snapshot_layout::folder();
    let saved = replay.save_with(&folder.path().join("again"), &SnapshotOptions::default()).unwrap();
    let other = B::empty();
    other.load(&saved.path).unwrap();
    assert_eq!(differences(&other.state(), &replay.state()), [""; 0]);
}

/// Valid files: small and larger blocks, compressed and not, a full one "a" and increments on it.
fn seeds<B: Subject>(folder: &Path) -> Vec<Parts> {
    let mut rng = Rng::seed_from_u64(1);
    let replay = B::empty();
    replay.work(21, &mut rng);
    let mut options = vec![
        SnapshotOptions { block_bytes: 64, ..Default::default() },
        SnapshotOptions { block_bytes: 300, ..Default::default() },
        SnapshotOptions::default(),
    ];
    #[cfg(feature = "lz4")]
    options.push(SnapshotOptions { compression: rl_replay::Compression::Lz4, ..Default::default() });
    #[cfg(feature = "zstd")]
    options.push(SnapshotOptions { compression: rl_replay::Compression::Zstd(1), ..Default::default() });
    let (base, path) = (folder.join("a"), folder.join("b"));
    let mut seeds = Vec::new();
    for options in &options {
        replay.save_with(&path, options).unwrap();
        seeds.push(Parts::of(&std::fs::read(&path).unwrap()));
    }
    replay.save_with(&base, &options[1]).unwrap();
    replay.work(5, &mut rng);
    for options in &options {
        replay.save_increment(&base, &path, options).unwrap();
        seeds.push(Parts::of(&std::fs::read(&path).unwrap()));
    }
    seeds
}

/// One of the seeds with one to four changes, most of them with checksums that fit, so that they get far.
fn damage(seeds: &[Parts], rng: &mut Rng) -> Vec<u8> {
    let mut parts = seeds[rng.random_range(0..seeds.len())].clone();
    for _ in 0..rng.random_range(1..=4) {
        let block = rng.random_range(0..parts.blocks.len().max(1));
        match rng.random_range(0..14) {
            0 => change(&mut parts.meta, rng),
            1 if !parts.blocks.is_empty() => drop(parts.blocks.remove(block)),
            2 if !parts.blocks.is_empty() => parts.blocks.insert(block, parts.blocks[block].clone()),
            3 if parts.blocks.len() > block + 1 => parts.blocks.swap(block, block + 1),
            4 if !parts.blocks.is_empty() => {
                let lengths = [0, 1, 64, 1 << 10, 1 << 20, 1 << 26, u32::MAX, rng.random_range(0..2_000)];
                parts.blocks[block].raw = lengths[rng.random_range(0..lengths.len())];
            }
            // The stream cut into other blocks, or with another's blocks after it.
            5 => recut(&mut parts, rng),
            6 => {
                let other = &seeds[rng.random_range(0..seeds.len())];
                parts.blocks.truncate(block);
                parts.blocks.extend(other.blocks.iter().skip(block).cloned());
            }
            _ if !parts.blocks.is_empty() => {
                let Block { stored, raw, .. } = &mut parts.blocks[block];
                let plain = *raw as usize == stored.len();
                change(stored, rng);
                if plain {
                    *raw = stored.len() as u32;
                }
            }
            _ => {}
        }
    }
    if rng.random_bool(0.9) {
        (0..).zip(&mut parts.blocks).for_each(|(index, block)| block.index = index);
    }
    let mut bytes = parts.bytes();
    if rng.random_bool(0.1) {
        change(&mut bytes, rng);
    }
    bytes
}

/// Some bytes changed, removed, added, or overwritten with numbers that tend to hurt.
fn change(bytes: &mut Vec<u8>, rng: &mut Rng) {
    if bytes.is_empty() {
        return bytes.push(rng.random());
    }
    let at = rng.random_range(0..bytes.len());
    match rng.random_range(0..6) {
        0 => bytes[at] ^= 1 << rng.random_range(0..8),
        1 => bytes[at] = rng.random(),
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..(at + rng.random_range(0..16)).min(bytes.len()))),
        4 => {
            let mut more = vec![0; rng.random_range(0..64)];
            rng.fill_bytes(&mut more);
            bytes.splice(at..at, more);
        }
        _ => {
            let numbers = [0, 1, 0x7f, 0xff, 0xffff, 1 << 31, u64::from(u32::MAX), 1 << 63, u64::MAX];
            let number = numbers[rng.random_range(0..numbers.len())].to_le_bytes();
            let end = (at + rng.random_range(1..=8)).min(bytes.len());
            bytes[at..end].copy_from_slice(&number[..end - at]);
        }
    }
}

/// Joins the stored bytes of all blocks and cuts them anew.
fn recut(parts: &mut Parts, rng: &mut Rng) {
    let stream: Vec<u8> = parts.blocks.iter().flat_map(|block| block.stored.clone()).collect();
    let length = rng.random_range(1..400);
    let cut = stream.chunks(length).zip(0..);
    parts.blocks =
        cut.map(|(chunk, index)| Block { index, raw: chunk.len() as u32, stored: chunk.to_vec() }).collect();
}

/// The most memory that this process has had, where the system tells.
fn peak_kb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
