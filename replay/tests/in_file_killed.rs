//! A process with a buffer in a file is killed (SIGKILL) at random moments, many times: no row is torn, and none is lost
//! that was acknowledged before the last flush, unless as many newer ones are there.
#![cfg(unix)]

use rand::{RngExt, SeedableRng};
use rl_replay::{Batch, Drawn, Dtype, Field, Prioritized, Replay, Rng, Schema};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

const CAPACITY: usize = 2_000;
/// Small, so that much is written down and little may be lost.
const RESERVE: usize = 8;
const WRITERS: usize = 2;
const KILLS: u64 = 60;
const FILLING: usize = 30;

fn build(path: &Path) -> Replay {
    let schema = Schema::new(vec![
        Field::new("key", Dtype::I64, []),
        Field::new("session", Dtype::I64, []),
        Field::new("filling", Dtype::I64, [FILLING]),
        Field::new("sum", Dtype::I64, []),
    ])
    .unwrap();
    Replay::builder(schema)
        .capacity(CAPACITY)
        .reserve(RESERVE)
        .in_file(path)
        .prioritized(Prioritized::default())
        .build()
        .unwrap()
}

fn sum(session: i64, filling: &[i64]) -> i64 {
    let numbers: Vec<i64> = [session].iter().chain(filling).copied().collect();
    xxh3_64(bytemuck::cast_slice(&numbers)) as i64
}

/// All live rows, each whole; their sessions.
fn check(replay: &Replay) -> Vec<i64> {
    let keys: Vec<u64> = replay.live().collect();
    if keys.is_empty() {
        return Vec::new();
    }
    let mut batch = Batch::new(replay.schema(), keys.len());
    replay.sampler().pin().unwrap().gather(&keys, &mut batch.view_mut()).unwrap();
    check_batch(&batch, keys.len())
}

fn check_batch(batch: &Batch, rows: usize) -> Vec<i64> {
    let [sessions, filling, sums] =
        ["session", "filling", "sum"].map(|name| batch.typed::<i64>(name).unwrap());
    for row in 0..rows {
        let filling = &filling[row * FILLING..][..FILLING];
        assert_eq!(sum(sessions[row], filling), sums[row], "place {row}: torn");
    }
    sessions[..rows].to_vec()
}

struct Session(Child, BufReader<std::process::ChildStdout>);

impl Session {
    fn begin(path: &Path, session: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "works_until_it_is_killed", "--ignored", "--nocapture"])
            .env("BUFFER_PATH", path)
            .env("BUFFER_SESSION", session.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self(child, output)
    }

    /// Kills it, and returns what it said: how many rows there were, and the end of the rows known to be flushed.
    fn kill(mut self) -> (Option<u64>, Option<u64>) {
        self.0.kill().unwrap();
        let status = self.0.wait().unwrap();
        assert_eq!(status.code(), None, "it ended by itself: {status}");
        let (mut opened, mut flushed) = (None, None);
        for line in self.1.lines() {
            let line = line.unwrap();
            // A last line may have been cut.
            let number = |name: &str| line.strip_prefix(name)?.strip_suffix('.')?.parse().ok();
            opened = number("opened ").or(opened);
            flushed = number("flushed ").or(flushed);
        }
        (opened, flushed)
    }
}

/// In memory, where flushing is quick, many times; on a disk some times.
#[test]
fn killed_at_any_moment() {
    let mut builder = tempfile::Builder::new();
    builder.prefix("file-");
    if let Ok(folder) = builder.tempdir_in("/dev/shm") {
        kill_again_and_again(folder.path(), KILLS, 60_000);
    }
    kill_again_and_again(builder.tempdir().unwrap().path(), KILLS / 6, 500_000);
}

fn kill_again_and_again(folder: &Path, kills: u64, most_micros: u64) {
    let path = folder.join("buffer");
    let mut rng = Rng::seed_from_u64(11);
    let mut end = 0;
    let (mut flushes, mut laps, mut beyond) = (0, 0, 0);
    for session in 1..=kills {
        let child = Session::begin(&path, session);
        // Now and then while it is being opened.
        let micros = if rng.random_bool(0.15) { 10_000 } else { most_micros };
        std::thread::sleep(Duration::from_micros(rng.random_range(500..micros)));
        let (opened, flushed) = child.kill();
        let replay = build(&path);
        let live = replay.live();
        let sessions = check(&replay);
        assert!(live.end >= end, "session {session}: rows up to {end} had been there, now {live:?}");
        assert!(opened.is_none_or(|opened| opened == end));
        assert_eq!(live.start, live.end.saturating_sub(CAPACITY as u64), "rows are missing");
        if let Some(flushed) = flushed {
            assert!(live.end >= flushed, "session {session}: flushed up to {flushed}, there are {live:?}");
            (flushes, beyond) = (flushes + 1, beyond + u64::from(live.end > flushed));
        }
        laps += u64::from(live.end - end > CAPACITY as u64);
        for (key, of) in live.clone().zip(sessions) {
            let expected = if key >= end { of == session as i64 } else { of < session as i64 };
            assert!(expected, "session {session} began at {end}, and row {key} is of session {of}");
        }
        // Priorities of all of them can be drawn by.
        let (mut batch, mut drawn) = (Batch::new(replay.schema(), 64), Drawn::default());
        if !live.is_empty() {
            replay.sampler().sample_into(&mut rng, 64, &mut batch.view_mut(), &mut drawn).unwrap();
            check_batch(&batch, 64);
        }
        end = live.end;
    }
    println!(
        "{kills} kills, {flushes} after a flush, {laps} after a lap, {beyond} with more than was flushed"
    );
    assert!(flushes > kills / 4 && laps > kills / 4, "{flushes} flushes, {laps} laps: the test shows little");
}

#[test]
#[ignore = "the child process of the test above"]
fn works_until_it_is_killed() {
    let Some(path) = std::env::var_os("BUFFER_PATH") else { return };
    let session: i64 = std::env::var("BUFFER_SESSION").unwrap().parse().unwrap();
    let replay = build(Path::new(&path));
    check(&replay);
    println!("opened {}.", replay.inserted());
    let acknowledged = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for number in 0..WRITERS as u64 {
            let (mut writer, acknowledged) = (replay.writer(), &acknowledged);
            let mut rng = Rng::seed_from_u64(session as u64 * 100 + number);
            scope.spawn(move || {
                loop {
                    let filling: [i64; FILLING] = std::array::from_fn(|_| rng.random());
                    let sum = sum(session, &filling).to_ne_bytes();
                    let row: [&[u8]; 4] =
                        [&[0; 8], &session.to_ne_bytes(), bytemuck::cast_slice(&filling), &sum];
                    let key = writer.push(&row).unwrap();
                    acknowledged.fetch_max(key + 1, SeqCst);
                }
            });
        }
        scope.spawn(|| {
            let (mut sampler, mut rng) = (replay.sampler(), Rng::seed_from_u64(5));
            let (mut batch, mut drawn) = (Batch::new(replay.schema(), 32), Drawn::default());
            loop {
                if sampler.sample_into(&mut rng, 32, &mut batch.view_mut(), &mut drawn).is_ok() {
                    check_batch(&batch, 32);
                    sampler.update_priorities(&drawn.rows, &[0.5; 32]).unwrap();
                }
            }
        });
        loop {
            let before = acknowledged.load(SeqCst);
            replay.flush().unwrap();
            // Standard output is a pipe, which outlives this process, and is written to line by line.
            println!("flushed {before}.");
        }
    });
}
