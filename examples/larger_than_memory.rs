//! A buffer in a file that is larger than the memory that is free, and how fast it is.
//!
//! `cargo run --release -p rl-replay --example larger_than_memory -- --rows 100000000 --path /tmp/steps.buffer`
//!
//! Rows have 64 bytes. Options: `--rows N`; `--path FILE`, which is made and removed at the end, unless it was there
//! before; `--seconds S` for each kind of sampling; `--ballast GiB`, memory that is taken first, so that less is free than
//! the buffer has; `--prioritized`, which keeps 8.5 bytes a row in memory.
//!
//! Rows are inserted in batches of 256 up to the capacity, from one thread, and drawn in batches of 256. A row that is
//! drawn and not in the page cache is one read of the disk, so several threads may draw more than one; `--threads T`.

use rand::SeedableRng;
use rl_replay::{Batch, Drawn, Dtype, Field, Prioritized, Replay, Rng, Schema};
use std::error::Error;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const BATCH: usize = 256;
const WORDS: usize = 8;

struct Options {
    rows: usize,
    path: PathBuf,
    seconds: f64,
    ballast: f64,
    threads: u64,
    prioritized: bool,
}

fn options() -> Result<Options, Box<dyn Error>> {
    let path = std::env::temp_dir().join("larger_than_memory.buffer");
    let mut options =
        Options { rows: 10_000_000, path, seconds: 5.0, ballast: 0.0, threads: 1, prioritized: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--prioritized" {
            options.prioritized = true;
            continue;
        }
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        match name.as_str() {
            "--rows" => options.rows = value.parse()?,
            "--path" => options.path = value.into(),
            "--seconds" => options.seconds = value.parse()?,
            "--ballast" => options.ballast = value.parse()?,
            "--threads" => options.threads = value.parse()?,
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    Ok(options)
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let ballast = vec![1u8; (options.ballast * (1u64 << 30) as f64) as usize];
    let new = !options.path.exists();
    let schema = Schema::new(vec![Field::new("x", Dtype::I64, [WORDS])])?;
    let builder = Replay::builder(schema).capacity(options.rows).in_file(&options.path);
    let builder = if options.prioritized { builder.prioritized(Prioritized::default()) } else { builder };
    let start = Instant::now();
    let replay = builder.build()?;
    let free = memory("MemAvailable:");
    println!(
        "{} rows, {:.2} GB in {}; ready after {:.2} s with {} rows; {:.2} GB of memory are available",
        options.rows,
        replay.memory_bytes() as f64 / 1e9,
        options.path.display(),
        start.elapsed().as_secs_f64(),
        replay.len(),
        free,
    );

    let start = Instant::now();
    let mut writer = replay.writer();
    let mut rows = [[0u64; WORDS]; BATCH];
    for batch in 0..options.rows.div_ceil(BATCH) {
        let first = replay.inserted();
        for (row, key) in rows.iter_mut().zip(first..) {
            *row = row_of(key);
        }
        let now = BATCH.min(options.rows - batch * BATCH);
        writer.push_rows(now, &[bytemuck::cast_slice(&rows[..now])])?;
    }
    report("inserted", options.rows as u64, start);
    let start = Instant::now();
    replay.flush()?;
    println!("flushed in {:.2} s", start.elapsed().as_secs_f64());

    let what =
        if options.prioritized { "drawn by priority, priorities sent back" } else { "drawn uniformly" };
    let end = Instant::now() + Duration::from_secs_f64(options.seconds);
    let (start, total) = (Instant::now(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let draw = |thread: u64| -> Result<(), rl_replay::ReplayError> {
            let mut sampler = replay.sampler();
            let mut rng = Rng::seed_from_u64(thread);
            let (mut batch, mut drawn) = (Batch::new(replay.schema(), BATCH), Drawn::default());
            while Instant::now() < end {
                sampler.sample_into(&mut rng, BATCH, &mut batch.view_mut(), &mut drawn)?;
                let words = batch.typed::<u64>("x").expect("the schema's column");
                for (key, row) in drawn.rows.iter().zip(words.as_chunks::<WORDS>().0) {
                    assert_eq!(*row, row_of(*key), "row {key}");
                }
                if options.prioritized {
                    sampler.update_priorities(&drawn.rows, &[1.0; BATCH])?;
                }
                total.fetch_add(BATCH as u64, Relaxed);
            }
            Ok(())
        };
        let threads: Vec<_> = (0..options.threads).map(|thread| scope.spawn(move || draw(thread))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    report(what, total.into_inner(), start);

    drop((writer, replay));
    if new {
        std::fs::remove_file(&options.path)?;
        let _ = std::fs::remove_file(format!("{}.sampler", options.path.display()));
    }
    drop(std::hint::black_box(ballast));
    Ok(())
}

/// What the row with this key holds.
fn row_of(key: u64) -> [u64; WORDS] {
    std::array::from_fn(|word| key.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(word as u64))
}

fn report(what: &str, rows: u64, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{what}: {rows} rows in {seconds:.2} s, {:.3} M/s; {:.2} GB of memory are available",
        rows as f64 / seconds / 1e6,
        memory("MemAvailable:")
    );
}

/// A line of /proc/meminfo in GB; NaN where there is none. What the page cache holds counts as available.
fn memory(name: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<f64>().ok());
    line.map_or(f64::NAN, |kib| kib * 1024.0 / 1e9)
}
