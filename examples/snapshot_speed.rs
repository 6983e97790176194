//! How fast a buffer is saved and loaded, beside plain writes and reads of the same bytes in the same run.
//!
//! `cargo run --release -p rl-replay --example snapshot_speed -- /dev/shm 5 [none|lz4] [rounds] [rows]` saves 5 GB there;
//! `rows` is `small`, `mujoco` or `atari`, and without it all three are measured.
//!
//! Plain writing is write() of 1 MiB at a time out of one buffer, then fsync. Plain reading is read() of 1 MiB at a time
//! into memory for the whole file that is as new as the loaded buffer's: taking it from the system is most of the time.
//! Rounds alternate between the two, because a shared machine's speed drifts. On a disk the file is read out of the
//! page cache where that is large enough, by both.

use rl_replay::{Compression, Dtype, Prioritized, Replay, Schema, SnapshotOptions};
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
            builder.prioritized(Prioritized::default()).build()
        };
        for round in 0..rounds {
            let replay = build()?;
            fill(&replay, &schema, capacity)?;
            let path = Path::new(&folder).join("snapshot_speed.replay");
            let options = SnapshotOptions { compression, ..Default::default() };
            let start = Instant::now();
            let saved = replay.save_with(&path, &options)?;
            let save = start.elapsed().as_secs_f64();
            drop(replay);
            let plain_path = Path::new(&folder).join("snapshot_speed.plain");
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
