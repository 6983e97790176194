//! How fast a buffer is saved and loaded, beside plain writes and reads of the same bytes in the same run.
//!
//! `cargo run --release -p rl-replay --example snapshot_speed -- /dev/shm 5 [none|lz4] [rounds] [rows]` saves 5 GB there;
//! `rows` is `small`, `mujoco`, `atari`, or `frames`, and without it all four are measured. `frames` are those of Atari in a
//! `FrameReplay`, 7,056 bytes each, with rows that refer to them.
//!
//! Plain writing is write() of 1 MiB at a time out of one buffer, then fsync. Plain reading is read() of 1 MiB at a time
//! into memory for the whole file that is as new as the loaded buffer's: taking it from the system is most of the time.
//! Rounds alternate between the two, because a shared machine's speed drifts. On a disk the file is read out of the
//! page cache where that is large enough, by both.

use rl_replay::{
    Compression, Dtype, Durable, FrameReplay, FrameStep, Prioritized, Replay, Schema, SnapshotOptions,
};
use std::error::Error;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

const CHUNK: usize = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |at: usize, default: &str| arguments.get(at).map_or(default.to_string(), String::clone);
    let folder = argument(0, "/dev/shm");
    let bytes = (argument(1, "1").parse::<f64>()? * 1e9) as u64;
    let compression = match argument(2, "none").as_str() {
        "none" => Compression::None,
        #[cfg(feature = "lz4")]
        "lz4" => Compression::Lz4,
        #[cfg(feature = "zstd")]
        "zstd" => Compression::Zstd(1),
        other => return Err(format!("unknown compression '{other}'").into()),
    };
    let rounds: usize = argument(3, "3").parse()?;
    let schemas = [
        ("small, 48 B", Schema::transition((Dtype::F32, &[4]), (Dtype::I64, &[]))?),
        ("mujoco, 168 B", Schema::transition((Dtype::F32, &[17]), (Dtype::F32, &[6]))?),
        ("atari, 56 KB", Schema::transition((Dtype::U8, &[4, 84, 84]), (Dtype::I64, &[]))?),
    ];
    let only = argument(4, "");
    for (name, schema) in schemas.into_iter().filter(|(name, _)| name.starts_with(&only)) {
        let capacity = (bytes / schema.row_bytes() as u64) as usize;
        let build = || {
            let builder = Replay::builder(schema.clone()).capacity(capacity);
            Ok(builder.prioritized(Prioritized::default()).build()?)
        };
        let fill = |replay: &Replay| fill(replay, &schema, capacity);
        measure(name, Path::new(&folder), compression, rounds, build, fill)?;
    }
    if "frames".starts_with(&only) {
        let capacity = (bytes / FRAME_BYTES as u64) as usize;
        let build = || {
            let builder = FrameReplay::builder((Dtype::U8, &[84, 84]), (Dtype::I64, &[]));
            Ok(builder.capacity(capacity).prioritized(Prioritized::default()).build()?)
        };
        let fill = |replay: &FrameReplay| fill_frames(replay, capacity);
        measure("frames, 7 KB", Path::new(&folder), compression, rounds, build, fill)?;
    }
    Ok(())
}

fn measure<B: Durable>(
    name: &str,
    folder: &Path,
    compression: Compression,
    rounds: usize,
    build: impl Fn() -> Result<B, Box<dyn Error>>,
    fill: impl Fn(&B) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    for round in 0..rounds {
        let replay = build()?;
        fill(&replay)?;
        let path = folder.join("snapshot_speed.replay");
        let options = SnapshotOptions { compression, ..Default::default() };
        let start = Instant::now();
        let saved = replay.save_with(&path, &options)?;
        let save = start.elapsed().as_secs_f64();
        drop(replay);
        let plain_path = folder.join("snapshot_speed.plain");
        let plain_write = plain_write(&plain_path, saved.file_bytes)?;
        std::fs::remove_file(&plain_path)?;

        let replay = build()?;
        let start = Instant::now();
        replay.load(&path)?;
        let load = start.elapsed().as_secs_f64();
        drop(replay);
        let plain_read = plain_read(&path)?;
        std::fs::remove_file(&path)?;
        let gb = saved.file_bytes as f64 / 1e9;
        println!(
            "{name}, round {round}: {gb:.2} GB; save {save:.2} s, plain write+fsync {plain_write:.2} s ({:.2} of its \
             speed); load {load:.2} s, plain read {plain_read:.2} s ({:.2})",
            plain_write / save,
            plain_read / load
        );
    }
    Ok(())
}

const FRAME_BYTES: usize = 84 * 84;

/// Episodes of 1,000 steps, whose frames differ.
fn fill_frames(replay: &FrameReplay, steps: usize) -> Result<(), Box<dyn Error>> {
    let (mut frame, mut number) = (vec![0u8; FRAME_BYTES], 0u32);
    let mut stream = replay.stream();
    for step in 0..steps {
        if step % 1_000 == 0 {
            stream.begin(&frame)?;
        }
        for pixel in frame.iter_mut().step_by(8) {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *pixel = (number >> 24) as u8;
        }
        let action = &(step as i64).to_ne_bytes();
        stream.step(FrameStep {
            action,
            reward: 1.0,
            next_frame: &frame,
            terminated: step % 1_000 == 999,
            truncated: false,
        })?;
    }
    Ok(())
}

/// Rows of numbers that differ, a batch at a time.
fn fill(replay: &Replay, schema: &Schema, rows: usize) -> Result<(), Box<dyn Error>> {
    let batch = (CHUNK / schema.row_bytes()).max(1);
    let mut writer = replay.writer();
    let mut number = 0u32;
    let mut columns: Vec<Vec<u8>> = schema.fields().iter().map(|f| vec![0; f.row_bytes() * batch]).collect();
    for start in (0..rows).step_by(batch) {
        let rows = batch.min(rows - start);
        for (column, field) in columns.iter_mut().zip(schema.fields()) {
            // Small whole numbers in every eighth element: finite as floats, and neither all alike nor all different.
            for cell in column.chunks_exact_mut(4).step_by(8) {
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                cell.copy_from_slice(&((number >> 24) as f32).to_ne_bytes());
            }
            column.truncate(field.row_bytes() * rows);
        }
        writer.push_rows(rows, &columns.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
    }
    Ok(())
}

fn plain_write(path: &Path, bytes: u64) -> Result<f64, Box<dyn Error>> {
    let chunk = vec![7u8; CHUNK];
    let start = Instant::now();
    let mut file = File::create(path)?;
    let mut left = bytes as usize;
    while left > 0 {
        let now = left.min(CHUNK);
        file.write_all(&chunk[..now])?;
        left -= now;
    }
    file.sync_all()?;
    Ok(start.elapsed().as_secs_f64())
}

fn plain_read(path: &Path) -> Result<f64, Box<dyn Error>> {
    let start = Instant::now();
    let mut file = File::open(path)?;
    let bytes = file.metadata()?.len() as usize;
    let mut memory = vec![0u8; bytes];
    for chunk in memory.chunks_mut(CHUNK) {
        file.read_exact(chunk)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    std::hint::black_box(&memory);
    Ok(seconds)
}
