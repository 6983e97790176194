//! Buffers of frames in files: what is saved at any moment is what is loaded, by direct evaluation over whole episodes.

mod frames_world;
mod snapshot_layout;

use frames_world::{Case, World, cases, default_case, state};
use proptest::prelude::*;
use rl_replay::{FrameReplay, MemoryState, SnapshotError, SnapshotOptions, SnapshotSeries};
use snapshot_layout::{Parts, build, differences, folder, insert, schema};
use std::path::{Path, PathBuf};

fn options() -> SnapshotOptions {
    SnapshotOptions { block_bytes: 200, ..Default::default() }
}

/// A buffer of this case, or a larger one, empty or in use, with what is in the file.
fn loaded(case: Case, room: usize, used: bool, path: &Path) -> FrameReplay {
    let mut world = World::new(Case { capacity: case.capacity + room, seed: 99, ..case });
    for _ in 0..if used { 50 } else { 0 } {
        world.step(0, 5);
    }
    world.replay.load(path).unwrap();
    world.replay
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// At each of some moments a file is written, and the environments go on in the same process or in a new one.
    #[test]
    fn each_file_is_the_buffer_at_its_moment(
        case in cases(),
        runs in prop::collection::vec((0usize..250, any::<bool>(), 0usize..50, any::<[bool; 2]>()), 1..7),
        lengths in 1usize..30,
    ) {
        let folder = folder();
        let mut world = World::new(case);
        let mut saved: Vec<(PathBuf, MemoryState)> = Vec::new();
        for (number, (steps, full, room, [used, restart])) in runs.into_iter().enumerate() {
            for step in 0..steps {
                world.step(step % case.streams, lengths);
                if step % 9 == 0 {
                    world.draw();
                }
            }
            let path = folder.path().join(format!("{number}"));
            let snapshot = match saved.last().filter(|_| !full) {
                None => world.replay.save_with(&path, &options()).unwrap(),
                Some((base, _)) => world.replay.save_increment(base, &path, &options()).unwrap(),
            };
            let live = snapshot.live.clone();
            prop_assert_eq!(live.end, world.replay.inserted());
            prop_assert_eq!(snapshot.frames.unwrap().end, world.replay.inserted_frames());
            prop_assert!(snapshot.base.is_some() || snapshot.rows == live);
            saved.push((path, world.state()));
            let (path, expected) = saved.last().unwrap();
            let other = loaded(world.case, room, used, path);
            prop_assert_eq!(differences(&state(&other), expected), [""; 0]);
            if restart {
                // A larger buffer than the one before from here on; draws are still those of the model.
                world.case.capacity += room;
                world.restart_in(other);
            }
            for _ in 0..4 {
                world.draw();
            }
        }
        // Nothing that was written later has changed them.
        for (path, expected) in &saved {
            let other = loaded(world.case, 3, false, path);
            prop_assert_eq!(differences(&state(&other), expected), [""; 0]);
        }
    }
}

fn filled(case: Case, steps: usize) -> World {
    let mut world = World::new(case);
    for step in 0..steps {
        world.step(step % case.streams, 9);
    }
    world
}

fn small() -> Case {
    Case { capacity: 60, streams: 2, n: 2, prioritized: true, ..default_case() }
}

#[test]
fn an_increment_holds_what_is_new() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let mut world = filled(small(), 100);
    let a = world.replay.save_with(path("a"), &options()).unwrap();
    assert_eq!((a.base, &a.rows), (None, &a.live));
    for step in 0..10 {
        world.step(step % 2, 9);
    }
    let b = world.replay.save_increment(path("a"), path("b"), &options()).unwrap();
    assert_eq!((b.rows.start, b.frames.as_ref().unwrap().start), (a.live.end, a.frames.unwrap().end));
    assert!(b.file_bytes < a.file_bytes / 2, "{} after {}", b.file_bytes, a.file_bytes);
    // The same as in full, also from a folder to which they were moved.
    let full = world.replay.save_with(path("full"), &options()).unwrap();
    std::fs::create_dir(path("moved")).unwrap();
    for name in ["a", "b"] {
        std::fs::rename(path(name), path("moved").join(name)).unwrap();
    }
    let [chained, alone] = [path("moved/b"), full.path].map(|path| state(&loaded(small(), 0, true, &path)));
    assert_eq!(chained.differences(&alone), [""; 0]);
    assert_eq!(chained.differences(&world.state()), [""; 0]);
    // Once nothing is left of it the file stands alone.
    for step in 0..300 {
        world.step(step % 2, 9);
    }
    let later = world.replay.save_increment(path("moved/a"), path("moved/c"), &options()).unwrap();
    assert_eq!((later.base, &later.rows), (None, &later.live));
    // A base that is gone, damaged, or another buffer's.
    let target = loaded(small(), 0, false, &path("full"));
    let before = state(&target);
    let good = std::fs::read(path("moved/a")).unwrap();
    for at in (0..good.len()).step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(path("moved/a"), bad).unwrap();
        let message = target.load(path("moved/b")).unwrap_err().to_string();
        assert!(message.contains("moved/a"), "byte {at}: {message}");
        assert_eq!(state(&target).differences(&before), [""; 0]);
    }
    std::fs::remove_file(path("moved/a")).unwrap();
    target.load(path("moved/b")).unwrap_err();
    let error = world.replay.save_increment(path("moved/b"), path("moved/b"), &options()).unwrap_err();
    assert!(error.to_string().contains("which is itself"), "{error}");
    let error = filled(small(), 400).replay.save_increment(path("full"), path("d"), &options()).unwrap_err();
    assert!(matches!(error, SnapshotError::Unrelated { .. }), "{error}");
}

#[test]
fn a_series_of_frames_stays_small_and_goes_on_after_a_restart() {
    let folder = folder();
    let open = || SnapshotSeries::open(folder.path(), options()).unwrap();
    let (mut world, mut series) = (World::new(small()), open());
    assert_eq!(series.load(&world.replay).unwrap(), None);
    let (mut increments, mut most) = (0, 0);
    for round in 0..40 {
        for step in 0..12 {
            world.step(step % 2, 3);
        }
        let saved = series.save(&world.replay).unwrap();
        increments += usize::from(saved.base.is_some());
        let frames = series.snapshots().iter().map(|s| s.frames.clone().unwrap());
        most = most.max(frames.map(|here| here.end - here.start).sum());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), series.snapshots().len());
        if round % 7 == 3 {
            let other = world.case.build();
            series = open();
            assert_eq!(series.load(&other).unwrap(), Some(saved));
            assert_eq!(state(&other).differences(&world.state()), [""; 0]);
            world.restart_in(other);
        }
        world.draw();
    }
    // 84 frames are live when all are.
    assert!(increments > 25 && most <= 2 * 84, "{increments} increments, {most} frames");
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let folder = folder();
    let path = folder.path().join("it");
    let case = small();
    filled(case, 100).replay.save(&path).unwrap();
    for (other, part) in [
        (Case { capacity: 40, ..case }, "build one for"),
        // Room for the rows, and not for their frames.
        (Case { extra: Some(5), ..case }, "build one for more"),
        (Case { k: 3, ..case }, "'stack' should be 3 and is 4"),
        (Case { n: 1, ..case }, "'window' should be 5 and is 8"),
        (Case { zero: true, ..case }, "'zero_padding' should be 1 and is 0"),
        (Case { prioritized: false, ..case }, ""),
    ] {
        for steps in [0, 30] {
            let world = filled(other, steps);
            let before = world.state();
            match world.replay.load(&path) {
                // Uniform draws need none of the priorities.
                Ok(_) => assert!(!other.prioritized),
                Err(error) => {
                    assert!(error.to_string().contains(part) && !part.is_empty(), "{error}");
                    assert_eq!(world.state().differences(&before), [""; 0]);
                }
            }
        }
    }
}

#[test]
fn the_two_kinds_of_buffers_refuse_each_others_files() {
    let folder = folder();
    let (rows, frames) = (folder.path().join("rows"), folder.path().join("frames"));
    let mut rng = rand::SeedableRng::seed_from_u64(3);
    let replay = build(&schema(), 60, true);
    insert(&replay, 70, &mut rng);
    let world = filled(small(), 100);
    replay.save(&rows).unwrap();
    world.replay.save(&frames).unwrap();
    let before = (snapshot_layout::state(&replay), world.state());
    let message = replay.load(&frames).unwrap_err().to_string();
    assert!(
        message.contains("is of a FrameReplay, and this is a Replay; load it into a FrameReplay"),
        "{message}"
    );
    let message = world.replay.load(&rows).unwrap_err().to_string();
    assert!(
        message.contains("is of a Replay, and this is a FrameReplay; load it into a Replay"),
        "{message}"
    );
    let next = folder.path().join("next");
    let error = replay.save_increment(&frames, &next, &options()).unwrap_err();
    assert!(matches!(error, SnapshotError::Unrelated { .. }), "{error}");
    let error = world.replay.save_increment(&rows, &next, &options()).unwrap_err();
    assert!(matches!(error, SnapshotError::Unrelated { .. }), "{error}");
    assert!(before == (snapshot_layout::state(&replay), world.state()) && !next.exists());
}

#[test]
fn files_of_version_1_are_read() {
    let folder = folder();
    let path = folder.path().join("it");
    let mut rng = rand::SeedableRng::seed_from_u64(3);
    let replay = build(&schema(), 60, true);
    insert(&replay, 70, &mut rng);
    replay.save(&path).unwrap();
    let mut parts = Parts::of(&std::fs::read(&path).unwrap());
    // What says that there are no frames came with version 2.
    assert_eq!((parts.version, parts.meta.pop()), (2, Some(0)));
    parts.version = 1;
    std::fs::write(&path, parts.bytes()).unwrap();
    let other = build(&schema(), 60, true);
    assert_eq!(other.load(&path).unwrap().live, replay.live());
    assert_eq!(snapshot_layout::state(&other), snapshot_layout::state(&replay));
    // An increment of this version adds to it.
    insert(&other, 5, &mut rng);
    let next = folder.path().join("next");
    assert!(other.save_increment(&path, &next, &options()).unwrap().base.is_some());
    replay.load(&next).unwrap();
    assert_eq!(snapshot_layout::state(&other), snapshot_layout::state(&replay));
}
