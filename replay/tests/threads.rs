//! Real threads, a small ring, rows with checksums: nothing torn, nothing lost, nothing held up.

use rand::SeedableRng;
use rl_replay::{Batch, Drawn, Dtype, Field, MemoryState, Prioritized, Replay, Rng, Schema};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const WRITERS: u64 = 3;
const WORDS: usize = 24;

fn schema() -> Schema {
    Schema::new(vec![
        Field::new("writer", Dtype::I64, []),
        Field::new("number", Dtype::I64, []),
        Field::new("payload", Dtype::I64, [WORDS]),
    ])
    .unwrap()
}

fn build(capacity: usize, reserve: usize) -> Replay {
    let settings = Prioritized::default();
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

/// The rows of a batch by key, each checked to be whole.
fn whole_rows<'a>(batch: &'a Batch, keys: &'a [u64]) -> impl Iterator<Item = (u64, (u64, u64))> + 'a {
    keys.iter().enumerate().map(|(row, key)| {
        let writer = batch.typed::<u64>("writer").unwrap()[row];
        let number = batch.typed::<u64>("number").unwrap()[row];
        let words = &batch.typed::<u64>("payload").unwrap()[row * WORDS..][..WORDS];
        assert_eq!(words, payload(writer, number), "row {key} is torn");
        (*key, (writer, number))
    })
}

fn stress(capacity: usize, reserve: usize, for_how_long: Duration) {
    let replay = build(capacity, reserve);
    let stop = AtomicBool::new(false);
    let (inserted, seen) = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|id| {
                let mut writer = replay.writer();
                let stop = &stop;
                scope.spawn(move || {
                    let mut keys = Vec::new();
                    let mut number = 0;
                    while !stop.load(Ordering::Relaxed) {
                        if number % 16 == 0 {
                            // A few at once; their keys follow each other, but which they are is not told.
                            let rows: Vec<_> = (0..3).map(|ahead| payload(id, number + ahead)).collect();
                            let (ids, numbers) = ([id; 3], [number, number + 1, number + 2]);
                            let columns = [
                                bytemuck::cast_slice(&ids),
                                bytemuck::cast_slice(&numbers),
                                bytemuck::cast_slice(&rows),
                            ];
                            writer.push_rows(3, &columns).unwrap();
                            number += 3;
                        } else {
                            let words = payload(id, number);
                            let row =
                                [&id.to_ne_bytes()[..], &number.to_ne_bytes(), bytemuck::cast_slice(&words)];
                            keys.push((writer.push(&row).unwrap(), (id, number)));
                            number += 1;
                        }
                    }
                    (number, keys)
                })
            })
            .collect();
        let samplers: Vec<_> = (0..2)
            .map(|id| {
                let mut sampler = replay.sampler();
                let (replay, stop) = (&replay, &stop);
                scope.spawn(move || {
                    let mut rng = Rng::seed_from_u64(id);
                    let (mut batch, mut drawn) = (Batch::new(&schema(), 32), Drawn::default());
                    let mut seen = HashMap::new();
                    let mut stale = 0;
                    while !stop.load(Ordering::Relaxed) {
                        if replay.is_empty() {
                            std::thread::yield_now();
                            continue;
                        }
                        sampler.sample_into(&mut rng, 32, &mut batch.view_mut(), &mut drawn).unwrap();
                        for (key, row) in whole_rows(&batch, &drawn.rows) {
                            assert_eq!(*seen.entry(key).or_insert(row), row, "row {key} has changed");
                        }
                        stale += sampler.update_priorities(&drawn.rows, &[0.5; 32]).unwrap().stale as u64;
                    }
                    (seen, stale)
                })
            })
            .collect();
        let end = Instant::now() + for_how_long;
        while Instant::now() < end {
            // Snapshots meanwhile: each is a buffer whose every row is whole.
            let saved = MemoryState::save(|v| replay.visit(v)).unwrap();
            let copy = build(capacity, 1);
            saved.load(|v| copy.visit(v)).unwrap();
            check_live(&copy);
        }
        stop.store(true, Ordering::Relaxed);
        let inserted: Vec<_> = writers.into_iter().map(|thread| thread.join().unwrap()).collect();
        let seen: Vec<_> = samplers.into_iter().map(|thread| thread.join().unwrap()).collect();
        (inserted, seen)
    });

    // Every acknowledged row has a key of its own, and there are no others.
    assert_eq!(replay.inserted(), inserted.iter().map(|(rows, _)| rows).sum::<u64>());
    let mut acknowledged = HashMap::new();
    for (key, row) in inserted.iter().flat_map(|(_, keys)| keys) {
        assert!(*key < replay.inserted());
        assert_eq!(acknowledged.insert(*key, *row), None, "key {key} was given out twice");
    }
    // Under its key each was found as it was inserted.
    for (key, row) in seen.iter().flat_map(|(seen, _)| seen) {
        assert!(acknowledged.get(key).is_none_or(|inserted| inserted == row), "key {key}");
    }
    assert_eq!(seen.iter().map(|(_, stale)| stale).sum::<u64>(), replay.stale_priorities());
    check_live(&replay);
    assert!(replay.inserted() > 10 * capacity as u64, "the ring was meant to go around many times");
}

/// Every live row is whole.
fn check_live(replay: &Replay) {
    let saved = MemoryState::save(|v| replay.visit(v)).unwrap();
    let Some(rl_replay::Piece::Array { bytes, shape, .. }) = saved.get("rows.0.payload") else { return };
    let column = |name: &str| match saved.get(&format!("rows.0.{name}")) {
        Some(rl_replay::Piece::Array { bytes, .. }) => bytemuck::pod_collect_to_vec::<u8, u64>(bytes),
        _ => panic!("no {name}"),
    };
    assert_eq!(shape[0], replay.len());
    let words: Vec<u64> = bytemuck::pod_collect_to_vec(bytes);
    for ((words, writer), number) in words.chunks(WORDS).zip(column("writer")).zip(column("number")) {
        assert_eq!(words, payload(writer, number));
    }
}

#[test]
fn a_ring_with_room_to_spare() {
    stress(1_000, 64, Duration::from_millis(1_500));
}

#[test]
fn a_ring_with_hardly_any() {
    stress(40, 3, Duration::from_millis(1_500));
}

#[test]
fn the_smallest_ring() {
    stress(1, 1, Duration::from_millis(1_000));
}
