//! Increments, and a folder of them.

mod snapshot_layout;

use proptest::prelude::*;
use rand::SeedableRng;
use rl_replay::{MemoryState, Replay, Rng, SnapshotError, SnapshotOptions, SnapshotSeries};
use snapshot_layout::{Parts, build, differences, insert, schema, state};
use std::path::{Path, PathBuf};

fn options() -> SnapshotOptions {
    SnapshotOptions { block_bytes: 200, ..Default::default() }
}

fn loads_as(path: &Path, capacity: usize, expected: &MemoryState) {
    let other = build(&schema(), capacity, true);
    other.load(path).unwrap();
    assert_eq!(differences(&state(&other), expected), [""; 0], "{}", path.display());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Each file of a chain gives the buffer as it was when that file was written.
    #[test]
    fn a_chain_gives_what_was_saved(
        capacity in 1usize..40,
        steps in prop::collection::vec(0usize..30, 1..8),
        room in 0usize..20,
        seed: u64,
    ) {
        let mut rng = Rng::seed_from_u64(seed);
        let folder = snapshot_layout::folder();
        let replay = build(&schema(), capacity, true);
        let path = |number: usize| folder.path().join(format!("{number}"));
        let mut states = Vec::new();
        for (number, rows) in steps.iter().enumerate() {
            insert(&replay, *rows, &mut rng);
            let saved = if number == 0 {
                replay.save_with(path(0), &options()).unwrap()
            } else {
                replay.save_increment(path(number - 1), path(number), &options()).unwrap()
            };
            if number > 0 && saved.base.is_some() {
                prop_assert_eq!(saved.rows.end - saved.rows.start, *rows as u64, "only what is new");
            } else {
                prop_assert_eq!(&saved.rows, &saved.live);
            }
            states.push(state(&replay));
        }
        for (number, expected) in states.iter().enumerate() {
            loads_as(&path(number), capacity + room, expected);
        }
    }
}

/// Full, increment, increment.
fn three(folder: &Path) -> (Replay, [PathBuf; 3]) {
    let mut rng = Rng::seed_from_u64(6);
    let replay = build(&schema(), 20, true);
    let paths = ["a", "b", "c"].map(|name| folder.join(name));
    insert(&replay, 25, &mut rng);
    replay.save_with(&paths[0], &options()).unwrap();
    for number in [1, 2] {
        insert(&replay, 4, &mut rng);
        let saved = replay.save_increment(&paths[number - 1], &paths[number], &options()).unwrap();
        assert_eq!(saved.base.as_ref(), Some(&paths[number - 1]));
    }
    (replay, paths)
}

#[test]
fn a_base_that_is_not_the_right_one() {
    let folder = snapshot_layout::folder();
    let (replay, [a, b, c]) = three(folder.path());
    let expected = state(&replay);
    let target = build(&schema(), 20, true);
    insert(&target, 5, &mut Rng::seed_from_u64(1));
    let before = state(&target);
    let refused = |part: &str| {
        let message = target.load(&c).unwrap_err().to_string();
        assert!(message.contains(part), "'{message}' lacks '{part}'");
        assert_eq!(state(&target), before);
    };
    let good = std::fs::read(&a).unwrap();
    std::fs::remove_file(&a).unwrap();
    refused(&format!("'{}' adds to '{}', which cannot be used", b.display(), a.display()));
    // Another snapshot, of the same rows even.
    replay.save_with(&a, &options()).unwrap();
    refused("that is not the file it was");
    // Bytes anywhere in the base, from which no more than its rows is wanted.
    for at in (0..good.len()).step_by(3) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(&a, &bad).unwrap();
        refused(&a.display().to_string());
    }
    // Changed with all its checksums made to fit: then it has another id.
    let mut parts = Parts::of(&good);
    let last = parts.blocks.len() - 1;
    *parts.blocks[last].stored.last_mut().unwrap() ^= 1;
    std::fs::write(&a, parts.bytes()).unwrap();
    refused("that is not the file it was");
    for length in (0..good.len()).step_by(7) {
        std::fs::write(&a, &good[..length]).unwrap();
        refused(&a.display().to_string());
    }
    std::fs::write(&a, good).unwrap();
    loads_as(&c, 20, &expected);
}

#[test]
fn an_increment_of_another_buffer_is_refused() {
    let folder = snapshot_layout::folder();
    let (replay, [_, b, c]) = three(folder.path());
    let mut rng = Rng::seed_from_u64(7);
    let next = folder.path().join("d");
    let unrelated = |replay: &Replay, base: &Path| {
        let error = replay.save_increment(base, &next, &options()).unwrap_err();
        assert!(matches!(error, SnapshotError::Unrelated { .. }), "{error}");
        assert!(!next.exists());
    };
    // A buffer of its own, though it has as many rows.
    let other = build(&schema(), 20, true);
    insert(&other, 40, &mut rng);
    unrelated(&other, &c);
    // One that was loaded from the file may add to it, and to no other.
    other.load(&b).unwrap();
    unrelated(&other, &c);
    insert(&other, 1, &mut rng);
    other.save_increment(&b, &next, &options()).unwrap();
    loads_as(&next, 20, &state(&other));
    std::fs::remove_file(&next).unwrap();
    // The first buffer has gone on meanwhile in another way, and still knows its own.
    insert(&replay, 1, &mut rng);
    replay.save_increment(&b, &next, &options()).unwrap();
    loads_as(&next, 20, &state(&replay));
    std::fs::remove_file(&next).unwrap();
    // What was loaded by a visitor continues no file.
    let saved = state(&replay);
    saved.load(|v| replay.visit(v)).unwrap();
    unrelated(&replay, &c);
    // A load that failed changes nothing.
    other.load(&c).unwrap();
    let wrong = folder.path().join("wrong");
    std::fs::write(&wrong, "x").unwrap();
    other.load(&wrong).unwrap_err();
    other.save_increment(&c, &next, &options()).unwrap();
}

#[test]
fn increments_lie_beside_their_base() {
    let folder = snapshot_layout::folder();
    let (replay, [_, _, c]) = three(folder.path());
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    let error = replay.save_increment(&c, folder.path().join("sub/d"), &options()).unwrap_err().to_string();
    assert!(error.contains("lies in another folder"), "{error}");
    let error = replay.save_increment(&c, &c, &options()).unwrap_err().to_string();
    assert!(error.contains("which is itself"), "{error}");
    // Together they can be moved.
    let moved = folder.path().join("sub/moved");
    std::fs::create_dir(&moved).unwrap();
    for name in ["a", "b", "c"] {
        std::fs::rename(folder.path().join(name), moved.join(name)).unwrap();
    }
    loads_as(&moved.join("c"), 30, &state(&replay));
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_series_stays_small_and_goes_on_after_a_restart() {
    let folder = snapshot_layout::folder();
    let folder = folder.path().join("series");
    let mut rng = Rng::seed_from_u64(5);
    let mut replay = build(&schema(), 100, true);
    let mut series = SnapshotSeries::open(&folder, options()).unwrap();
    assert_eq!(series.load(&replay).unwrap(), None);
    let (mut written, mut full) = (0, 0);
    for round in 0..60 {
        insert(&replay, 10, &mut rng);
        let saved = series.save(&replay).unwrap();
        written += saved.rows.end - saved.rows.start;
        full += u64::from(saved.base.is_none());
        assert_eq!(series.newest(), Some(&saved));
        assert_eq!(files(&folder).len(), series.snapshots().len(), "nothing but what is needed");
        let stored: u64 = series.snapshots().iter().map(|s| s.rows.end - s.rows.start).sum();
        assert!(stored <= 200.max(saved.live.end), "two buffers at most, and not {stored} rows");
        if round % 7 == 3 {
            // Another process, with a larger buffer the second time.
            let before = state(&replay);
            replay = build(&schema(), 100, true);
            series = SnapshotSeries::open(&folder, options()).unwrap();
            assert_eq!(series.load(&replay).unwrap(), Some(saved));
            assert_eq!(differences(&state(&replay), &before), [""; 0]);
        }
    }
    assert!(written <= 3 * 600 && full < 15, "{written} rows of 600 in {full} full files");
}

#[test]
fn a_series_is_not_overwritten_by_mistake() {
    let folder = snapshot_layout::folder();
    let mut rng = Rng::seed_from_u64(5);
    let replay = build(&schema(), 10, true);
    insert(&replay, 12, &mut rng);
    SnapshotSeries::open(folder.path(), options()).unwrap().save(&replay).unwrap();
    std::fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    let other = build(&schema(), 10, true);
    insert(&other, 100, &mut rng);
    let mut series = SnapshotSeries::open(folder.path(), options()).unwrap();
    let error = series.save(&other).unwrap_err();
    assert!(matches!(error, SnapshotError::Unrelated { .. }), "{error}");
    assert_eq!(files(folder.path()), ["00000000.snapshot", "notes.txt"]);
    // Unless one says so.
    series.save_full(&other).unwrap();
    assert_eq!(files(folder.path()), ["00000001.snapshot", "notes.txt"]);
    series.save(&other).unwrap();
    assert_eq!(series.snapshots().len(), 2);
    loads_as(&folder.path().join("00000002.snapshot"), 10, &state(&other));
}
