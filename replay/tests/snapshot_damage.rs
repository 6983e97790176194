//! Whatever happens to a file or to the disk: an error that says where, and nothing is lost.

mod frames_world;
mod snapshot_layout;

use frames_world::{Case, World, default_case};
use rand::SeedableRng;
use rl_replay::{Durable, FrameReplay, MemoryState, Replay, Rng, Snapshot, SnapshotError, SnapshotOptions};
use snapshot_layout::{Parts, build, insert, schema, state};
use std::path::Path;
use std::process::Command;

/// A file of some blocks, in which each kind of state is present.
fn small_file(path: &Path, compressed: bool) -> Vec<u8> {
    let replay = build(&schema(), 9, true);
    insert(&replay, 14, &mut Rng::seed_from_u64(8));
    let mut options = SnapshotOptions { block_bytes: 100, ..Default::default() };
    if compressed {
        #[cfg(feature = "lz4")]
        (options.compression = rl_replay::Compression::Lz4);
    }
    replay.save_with(path, &options).unwrap();
    std::fs::read(path).unwrap()
}

/// An empty buffer and one in use, into which nothing damaged may come.
fn targets() -> [Replay; 2] {
    let used = build(&schema(), 12, true);
    insert(&used, 20, &mut Rng::seed_from_u64(9));
    [build(&schema(), 12, true), used]
}

/// A buffer of frames with something in it.
fn frames(steps: usize) -> FrameReplay {
    let case = Case { k: 2, n: 2, capacity: 12, extra: Some(4), history: Some(2), ..default_case() };
    let mut world = World::new(Case { prioritized: true, zero: true, streams: 2, ..case });
    for step in 0..steps {
        world.step(step % 2, 5);
    }
    world.draw();
    world.replay
}

/// As [`small_file`], of frames.
fn small_frames_file(path: &Path) -> Vec<u8> {
    let options = SnapshotOptions { block_bytes: 150, ..Default::default() };
    frames(30).save_with(path, &options).unwrap();
    std::fs::read(path).unwrap()
}

/// What can be loaded, and compared afterwards.
trait Target: Durable {
    fn state(&self) -> MemoryState;
}

impl Target for Replay {
    fn state(&self) -> MemoryState {
        state(self)
    }
}

impl Target for FrameReplay {
    fn state(&self) -> MemoryState {
        MemoryState::save(|v| self.visit(v)).unwrap()
    }
}

/// Wants an error that names `place`, and both targets as they were.
fn refused(targets: &[impl Target], path: &Path, place: &str, what: &str) -> String {
    let mut message = String::new();
    for target in targets {
        let before = target.state();
        message = target.load(path).map(drop).expect_err(what).to_string();
        assert!(message.contains(place), "{what}: '{message}' does not name {place}");
        assert_eq!(target.state().differences(&before), [""; 0], "{what}: '{message}'");
    }
    message
}

#[test]
fn every_byte_flipped_is_noticed_and_named() {
    let folder = snapshot_layout::folder();
    let path = folder.path().join("it");
    for compressed in [false, true] {
        let good = small_file(&path, compressed);
        flip_every_byte(&good, &targets(), &path);
    }
}

#[test]
fn every_byte_flipped_in_a_file_of_frames() {
    let folder = snapshot_layout::folder();
    let path = folder.path().join("it");
    let good = small_frames_file(&path);
    let targets = [frames(0), frames(40)];
    flip_every_byte(&good, &targets, &path);
    assert_eq!(targets[0].state(), frames(30).state());
}

/// The file `good` is loaded in the end.
fn flip_every_byte(good: &[u8], targets: &[impl Target], path: &Path) {
    let places = Parts::of(good).places();
    assert!(places.len() > 12, "several blocks: {}", places.len());
    for (range, place) in places {
        for at in range {
            let mask = if at % 3 == 0 { 0xff } else { 1u8 << (at % 8) };
            let mut bad = good.to_vec();
            bad[at] ^= mask;
            std::fs::write(path, &bad).unwrap();
            // One that holds rows is slower to try, for it takes memory to load them aside.
            let targets = if at % 5 == 0 { targets } else { &targets[..1] };
            refused(targets, path, &place, &format!("byte {at} xor {mask:#x}"));
        }
    }
    std::fs::write(path, good).unwrap();
    let saved = Snapshot::read(path).unwrap();
    targets.iter().for_each(|target| assert_eq!(target.load(path).unwrap(), saved));
}

#[test]
fn every_truncation_is_noticed_and_named() {
    let folder = snapshot_layout::folder();
    let path = folder.path().join("it");
    truncate_everywhere(&small_frames_file(&path), &[frames(0), frames(40)], &path);
    truncate_everywhere(&small_file(&path, false), &targets(), &path);
}

fn truncate_everywhere(good: &[u8], targets: &[impl Target], path: &Path) {
    let parts = Parts::of(good);
    for (range, place) in parts.places() {
        for length in range.clone() {
            std::fs::write(path, &good[..length]).unwrap();
            // Where nothing of the footer is there, it might have been a block as well.
            let no_footer = place.starts_with("footer") && length == range.start;
            let block = format!("block {} (at byte {length})", parts.blocks.len());
            let place = if no_footer { &block } else { &place };
            let targets = if length % 5 == 0 { targets } else { &targets[..1] };
            let message = refused(targets, path, place, &format!("{length} bytes"));
            assert!(message.contains(&format!("breaks off after {length} bytes")), "{message}");
        }
    }
    for more in [1, 39, 40, 41, 1000] {
        std::fs::write(path, [good, &vec![0; more]].concat()).unwrap();
        refused(targets, path, "footer (at byte", &format!("{more} more bytes"));
    }
    // Even if they are a footer.
    std::fs::write(path, [good, &good[good.len() - 40..]].concat()).unwrap();
    refused(targets, path, "footer (at byte", "a footer more");
}

#[test]
fn blocks_in_another_order_or_number() {
    let folder = snapshot_layout::folder();
    let path = folder.path().join("it");
    let parts = Parts::of(&small_file(&path, false));
    let targets = targets();
    let refuse = |change: &dyn Fn(&mut Parts), place: &str| {
        let mut parts = parts.clone();
        change(&mut parts);
        std::fs::write(&path, parts.bytes()).unwrap();
        refused(&targets, &path, place, place)
    };
    refuse(&|parts| parts.blocks.swap(2, 3), "block 2 (at byte");
    refuse(&|parts| drop(parts.blocks.remove(2)), "block 2 (at byte");
    refuse(&|parts| parts.blocks.insert(2, parts.blocks[1].clone()), "block 2 (at byte");
    let last = parts.blocks.len() - 1;
    refuse(&|parts| drop(parts.blocks.pop()), &format!("block {last} (at byte"));
    let more = &|parts: &mut Parts| {
        let mut block = parts.blocks[last].clone();
        block.index += 1;
        parts.blocks.push(block);
    };
    refuse(more, &format!("block {} (at byte", last + 1));
    // A block may claim to hold more than its bytes can.
    for raw in [u32::MAX, 1 << 26, 101, 0] {
        let message = refuse(&|parts| parts.blocks[1].raw = raw, "block 1 (at byte");
        assert!(message.contains("are not possible here"), "{message}");
    }
}

#[test]
fn files_of_another_kind() {
    let folder = snapshot_layout::folder();
    let path = folder.path().join("it");
    let targets = targets();
    assert!(refused(&targets, &path, "header (at byte 0)", "missing").contains("No such file"));
    assert!(refused(&targets, folder.path(), "header (at byte 0)", "a folder").contains("directory"));
    std::fs::write(&path, "some notes").unwrap();
    assert!(
        refused(&targets, &path, "header (at byte 0)", "text").contains("no snapshot of a replay buffer")
    );
    let mut parts = Parts::of(&small_file(&path, false));
    parts.version = 3;
    std::fs::write(&path, parts.bytes()).unwrap();
    let message = refused(&targets, &path, "header (at byte 0)", "version");
    assert!(message.contains("says version 3, and this build reads up to 2"), "{message}");
}

/// Files in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The disk takes no more: here because the system allows no larger files.
#[test]
#[cfg(unix)]
fn a_file_that_may_not_grow_leaves_the_old_one() {
    let folder = snapshot_layout::folder();
    let path = folder.path().join("it");
    let good = small_file(&path, false);
    // Two units of 512 or 1,024 bytes, as the shell has it; the signal that would end the process is turned off.
    let script =
        "trap '' XFSZ; ulimit -f 2; exec \"$0\" --exact saves_into_too_small_a_file --ignored --nocapture";
    let child = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env("SNAPSHOT_PATH", &path)
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && output.contains("1 passed"), "{output}");
    assert!(output.contains("was refused: cannot write block"), "{output}");
    assert_eq!(names(folder.path()), ["it"], "the temporary file is gone");
    assert_eq!(std::fs::read(&path).unwrap(), good);
}

#[test]
#[ignore = "the child process of the test above"]
fn saves_into_too_small_a_file() {
    let Some(path) = std::env::var_os("SNAPSHOT_PATH") else { return };
    let replay = build(&schema(), 500, true);
    insert(&replay, 700, &mut Rng::seed_from_u64(3));
    let error = replay.save(path).unwrap_err();
    assert!(matches!(error, SnapshotError::Write { .. }), "{error}");
    println!("was refused: {error}");
    insert(&replay, 1_100, &mut Rng::seed_from_u64(4));
}

#[test]
fn a_place_that_cannot_be_written() {
    let folder = snapshot_layout::folder();
    let replay = build(&schema(), 9, false);
    let missing = folder.path().join("missing/it");
    let error = replay.save(&missing).unwrap_err().to_string();
    assert!(error.contains("cannot make a temporary file for") && error.contains("missing/it"), "{error}");
    // A folder of that name cannot be replaced.
    let taken = folder.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    let error = replay.save(&taken).unwrap_err().to_string();
    assert!(error.contains("cannot rename to"), "{error}");
    assert_eq!(names(folder.path()), ["taken"]);
    // What a killed process left behind goes with the next save, and nothing else does.
    let path = folder.path().join("it");
    for name in [".it.a1B2c3.tmp", ".it2.a1B2c3.tmp", "it.tmp"] {
        std::fs::write(folder.path().join(name), "x").unwrap();
    }
    replay.save(&path).unwrap();
    assert_eq!(names(folder.path()), [".it2.a1B2c3.tmp", "it", "it.tmp", "taken"]);
    assert!(Snapshot::read(&path).unwrap().live.is_empty());
}
