//! Random damage to snapshot files, with an eye for their structure: whatever the bytes are, loading them gives an error or
//! a sound buffer, never a panic, and takes no memory that the file does not account for.
//!
//! `SNAPSHOT_FUZZ_SECONDS=600 cargo test --release -p rl-replay --test snapshot_fuzz -- --nocapture` looks for as long as
//! one likes; by default it is two seconds. The seed is fixed: the same seconds try the same files, and more of them.

mod snapshot_layout;

use rand::{Rng as _, RngExt, SeedableRng};
use rl_replay::{Replay, Rng, SnapshotOptions};
use snapshot_layout::{Block, Parts, build, differences, insert, schema, state};
use std::path::Path;
use std::time::{Duration, Instant};

/// Peak memory that the whole run may take: buffers here are some kilobytes, and a block that says it unpacks to the
/// most that a block may (64 MiB) is as much as a reader ever takes at once.
const PEAK_KB: u64 = 400_000;

#[test]
fn damaged_files_are_refused_or_sound() {
    let seconds = std::env::var("SNAPSHOT_FUZZ_SECONDS").map_or(2, |seconds| seconds.parse().unwrap());
    let mut rng = Rng::seed_from_u64(2026);
    let folder = snapshot_layout::folder();
    let seeds = seeds(folder.path());
    let path = folder.path().join("b");
    let used = build(&schema(), 16, true);
    insert(&used, 20, &mut rng);
    let before = state(&used);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut tried, mut refused) = (0u64, 0u64);
    while Instant::now() < end {
        let bytes = damage(&seeds, &mut rng);
        std::fs::write(&path, &bytes).unwrap();
        let empty = build(&schema(), 16, true);
        match empty.load(&path) {
            Err(error) => {
                assert!(!error.to_string().is_empty());
                assert!(empty.is_empty() && empty.inserted() == 0, "{error}");
                refused += 1;
                if tried.is_multiple_of(64) {
                    used.load(&path).unwrap_err();
                    assert_eq!(state(&used).differences(&before), [""; 0], "{error}");
                }
            }
            Ok(saved) => {
                assert_eq!(saved.live, empty.live());
                assert!(empty.len() <= 16);
                goes_on(&empty, &mut rng);
            }
        }
        tried += 1;
    }
    let peak = peak_kb();
    println!("{tried} files, {refused} refused; peak memory {peak:?} kB");
    assert!(tried > 50 && refused > tried / 2);
    assert!(peak.is_none_or(|peak| peak < PEAK_KB), "{peak:?} kB");
}

/// A buffer that came from strange bytes can be used, saved and loaded.
fn goes_on(replay: &Replay, rng: &mut Rng) {
    insert(replay, 5, rng);
    let folder = snapshot_layout::folder();
    let saved = replay.save(folder.path().join("again")).unwrap();
    let other = build(&schema(), 16, true);
    other.load(&saved.path).unwrap();
    assert_eq!(differences(&state(&other), &state(replay)), [""; 0]);
}

/// Valid files: small and larger blocks, compressed and not, a full one "a" and increments on it.
fn seeds(folder: &Path) -> Vec<Parts> {
    let mut rng = Rng::seed_from_u64(1);
    let replay = build(&schema(), 12, true);
    insert(&replay, 17, &mut rng);
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
    insert(&replay, 5, &mut rng);
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
