//! Snapshots while writers and samplers go on: each is a buffer as it was at one serial number.

use rand::SeedableRng;
use rl_replay::{
    Batch, Drawn, Dtype, Field, Key, Prioritized, Replay, Rng, Schema, SnapshotOptions, SnapshotSeries,
    Writer,
};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::tempdir;

const WORDS: usize = 24;
/// The writer of the rows that are there at first.
const FILLER: u64 = 200;

fn schema() -> Schema {
    Schema::new(vec![
        Field::new("writer", Dtype::I64, []),
        Field::new("number", Dtype::I64, []),
        Field::new("payload", Dtype::I64, [WORDS]),
    ])
    .unwrap()
}

fn build(capacity: usize, reserve: usize) -> Replay {
    let settings = Prioritized { alpha: 1.0, epsilon: 0.0 };
    Replay::builder(schema()).capacity(capacity).reserve(reserve).prioritized(settings).build().unwrap()
}

/// Words that depend on the writer, its row's number, and their place (splitmix64).
fn payload(writer: u64, number: u64) -> [u64; WORDS] {
    std::array::from_fn(|place| {
        let mut x = (writer << 56) ^ (number << 8) ^ place as u64;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    })
}

fn push(writer: &mut Writer, id: u64, number: u64) -> Key {
    let words = payload(id, number);
    writer.push(&[&id.to_ne_bytes(), &number.to_ne_bytes(), bytemuck::cast_slice(&words)]).unwrap()
}

/// Loads a snapshot and checks that its rows are whole, and of each writer all that it inserted from some row on, in its
/// order. Returns the rows of each key.
fn check(path: &Path, capacity: usize) -> Vec<(u64, (u64, u64))> {
    let replay = build(capacity, 1);
    let saved = replay.load(path).unwrap();
    let keys: Vec<u64> = saved.live.collect();
    assert_eq!(replay.live(), keys[0]..keys[0] + keys.len() as u64);
    let mut batch = Batch::new(&schema(), keys.len());
    replay.sampler().pin().unwrap().gather(&keys, &mut batch.view_mut()).unwrap();
    let (writers, numbers) = (batch.typed::<u64>("writer").unwrap(), batch.typed::<u64>("number").unwrap());
    let mut next: HashMap<u64, u64> = HashMap::new();
    for ((writer, number), words) in
        writers.iter().zip(numbers).zip(batch.typed::<u64>("payload").unwrap().chunks(WORDS))
    {
        assert_eq!(words, payload(*writer, *number), "row {number} of writer {writer} is torn");
        let expected = next.insert(*writer, number + 1).unwrap_or(*number);
        assert_eq!(*number, expected, "a row of writer {writer} is missing");
    }
    keys.into_iter().zip(writers.iter().copied().zip(numbers.iter().copied())).collect()
}

/// Stops the other threads, also when this one fails: they would go on for ever.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// `writers` threads insert and two draw and send priorities, while snapshots are taken and loaded for `for_how_long`.
fn stress(writers: u64, capacity: usize, reserve: usize, for_how_long: Duration) {
    let folder = tempdir().unwrap();
    let replay = build(capacity, reserve);
    // Full from the start, so that every row that goes in overwrites one.
    let filled: Vec<_> = (0..capacity as u64).map(|number| (number, (FILLER, number))).collect();
    let mut filler = replay.writer();
    for (key, (writer, number)) in &filled {
        assert_eq!(push(&mut filler, *writer, *number), *key);
    }
    let stop = AtomicBool::new(false);
    let (mut inserted, snapshots) = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..writers)
            .map(|id| {
                let (mut writer, stop) = (replay.writer(), &stop);
                scope.spawn(move || {
                    let mut keys = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let number = keys.len() as u64;
                        keys.push((push(&mut writer, id, number), (id, number)));
                        if number.is_multiple_of(64) {
                            std::thread::yield_now();
                        }
                    }
                    keys
                })
            })
            .collect();
        for id in 0..2 {
            let (mut sampler, stop) = (replay.sampler(), &stop);
            scope.spawn(move || {
                let mut rng = Rng::seed_from_u64(id);
                let (mut batch, mut drawn) = (Batch::new(&schema(), 32), Drawn::default());
                while !stop.load(Ordering::Relaxed) {
                    sampler.sample_into(&mut rng, 32, &mut batch.view_mut(), &mut drawn).unwrap();
                    sampler.update_priorities(&drawn.rows, &[0.5; 32]).unwrap();
                }
            });
        }
        let stopper = Stop(&stop);
        let options = SnapshotOptions { block_bytes: 2_000, ..Default::default() };
        let mut series = SnapshotSeries::open(folder.path(), options).unwrap();
        let mut snapshots = Vec::new();
        // As long as was asked for, and on a busy machine as long as it takes.
        let begun = Instant::now();
        let enough = |snapshots: usize| snapshots > 3 && replay.inserted() > 10 * capacity as u64;
        while begun.elapsed() < for_how_long || !enough(snapshots.len()) {
            assert!(begun.elapsed() < for_how_long + Duration::from_secs(60), "somebody waits for ever");
            let saved = series.save(&replay).unwrap();
            snapshots.push(check(&saved.path, capacity + 5));
        }
        drop(stopper);
        let inserted: HashMap<_, _> = writers.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        (inserted, snapshots)
    });
    inserted.extend(filled);
    // Under each key every snapshot has the row that was acknowledged with it.
    assert!(snapshots.windows(2).all(|two| two[0][0].0 <= two[1][0].0));
    for (key, row) in snapshots.iter().flatten() {
        assert_eq!(inserted.get(key), Some(row), "key {key}");
    }
    assert_eq!(inserted.len() as u64, replay.inserted(), "no key twice, and none missing");
}

#[test]
fn one_writer_and_a_ring_with_room() {
    stress(1, 3_000, 64, Duration::from_millis(1_500));
}

#[test]
fn three_writers_and_hardly_any_room() {
    stress(3, 400, 3, Duration::from_millis(1_500));
}
