//! What only a medium of one's own can show: each failing write, and what writers may do between two blocks.

use super::{SnapshotError, SnapshotOptions, save};
use crate::{Dtype, Field, FrameReplay, FrameStep, MemoryState, Prioritized, Replay, Schema};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::tempdir;

const BLOCK_BYTES: usize = 128;

fn build(capacity: usize) -> Replay {
    let schema =
        Schema::new(vec![Field::new("a", Dtype::I64, []), Field::new("b", Dtype::I64, [2])]).unwrap();
    let settings = Prioritized::default();
    Replay::builder(schema).capacity(capacity).reserve(1).prioritized(settings).build().unwrap()
}

/// Inserts the next `rows` rows, each of which holds its key.
fn insert(replay: &Replay, rows: usize) {
    for key in replay.inserted()..replay.inserted() + rows as u64 {
        replay.writer().push(&[&key.to_ne_bytes(), &[key.to_ne_bytes(); 2].concat()]).unwrap();
    }
}

fn save_through(
    replay: &impl super::Hold,
    path: &Path,
    medium: impl FnOnce(File) -> Box<dyn Write>,
) -> Result<super::Snapshot, SnapshotError> {
    let options = SnapshotOptions { block_bytes: BLOCK_BYTES, ..Default::default() };
    save(replay, path, &options, None, medium)
}

fn state(replay: &Replay) -> MemoryState {
    MemoryState::save(|v| replay.visit(v)).unwrap()
}

/// A disk that is full after some bytes.
struct Full {
    file: File,
    left: usize,
}

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.left);
        if taken == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.left -= taken;
        self.file.write(&bytes[..taken])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[test]
fn a_full_disk_leaves_the_old_file_wherever_it_strikes() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("it");
    let replay = build(20);
    insert(&replay, 13);
    let old = replay.save(&path).unwrap();
    let good = std::fs::read(&path).unwrap();
    insert(&replay, 13);
    let before = state(&replay);

    let whole = save_through(&replay, &folder.path().join("whole"), |file| Box::new(file)).unwrap();
    std::fs::remove_file(&whole.path).unwrap();
    for left in 0..whole.file_bytes as usize {
        let error = save_through(&replay, &path, |file| Box::new(Full { file, left })).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, SnapshotError::Write { .. }), "{message}");
        assert!(message.contains("header") || message.contains("block"), "{message}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "after {left} bytes: no other file");
        assert_eq!(std::fs::read(&path).unwrap(), good);
    }
    assert_eq!(super::Snapshot::read(&path).unwrap(), old);
    // Nothing stays pinned, and nothing has changed.
    assert_eq!(state(&replay), before);
    insert(&replay, 50);
}

#[test]
fn a_full_disk_leaves_the_old_file_of_frames() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("it");
    let builder = FrameReplay::builder((Dtype::I64, &[]), (Dtype::I64, &[])).stack(2).history(4).reserve(1);
    let replay = builder.capacity(10).prioritized(Prioritized::default()).build().unwrap();
    let mut stream = replay.stream();
    let mut steps = |from: i64, to: i64| {
        stream.begin(&from.to_ne_bytes()).unwrap();
        for t in from..to {
            let (action, next_frame) = (&t.to_ne_bytes(), &(t + 1).to_ne_bytes());
            stream
                .step(FrameStep { action, reward: 0.0, next_frame, terminated: false, truncated: false })
                .unwrap();
        }
    };
    steps(0, 30);
    let old = replay.save(&path).unwrap();
    let good = std::fs::read(&path).unwrap();
    steps(50, 60);
    let before = MemoryState::save(|v| replay.visit(v)).unwrap();
    let whole = save_through(&replay, &folder.path().join("whole"), |file| Box::new(file)).unwrap();
    std::fs::remove_file(&whole.path).unwrap();
    for left in 0..whole.file_bytes as usize {
        let error = save_through(&replay, &path, |file| Box::new(Full { file, left })).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, SnapshotError::Write { .. }), "{message}");
        assert!(message.contains("header") || message.contains("block"), "{message}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "after {left} bytes: no other file");
        assert_eq!(std::fs::read(&path).unwrap(), good);
    }
    assert_eq!(super::Snapshot::read(&path).unwrap(), old);
    // Nothing stays pinned, and nothing has changed.
    assert_eq!(MemoryState::save(|v| replay.visit(v)).unwrap(), before);
    steps(0, 50);
}

/// Waits after half of the file until the ring has gone on.
struct Waiting {
    file: File,
    replay: Replay,
    written: u64,
    half: u64,
    until: u64,
}

impl Write for Waiting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let end = Instant::now() + Duration::from_secs(20);
        while self.written > self.half && self.replay.inserted() < self.until {
            if Instant::now() > end {
                return Err(io::Error::other("the writer is held up by rows that were saved long ago"));
            }
            std::thread::yield_now();
        }
        self.written += bytes.len() as u64;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[test]
fn writers_follow_the_saver() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("it");
    let replay = build(1_000);
    insert(&replay, 1_500);
    // 24 bytes a row of 32, priorities last: at half of the file two thirds of the rows are copied, more or less.
    let half = replay.save(&path).unwrap().file_bytes / 2;
    let saved = std::thread::scope(|scope| {
        let writer = scope.spawn(|| insert(&replay, 2_000));
        let saved = save_through(&replay, &path, |file| {
            let until = replay.inserted() + 400;
            Box::new(Waiting { file, replay: replay.clone(), written: 0, half, until })
        });
        writer.join().unwrap();
        saved.unwrap()
    });
    assert_eq!((replay.inserted(), saved.live.end - saved.live.start), (3_500, 1_000));
    // It is as it was when it was begun, row by row.
    let other = build(1_000);
    other.load(&path).unwrap();
    assert_eq!(other.live(), saved.live);
    let keys: Vec<u64> = saved.live.clone().collect();
    let mut batch = crate::Batch::new(other.schema(), keys.len());
    other.sampler().pin().unwrap().gather(&keys, &mut batch.view_mut()).unwrap();
    assert_eq!(batch.typed::<u64>("a").unwrap(), keys);
    assert_eq!(batch.typed::<u64>("b").unwrap(), keys.iter().flat_map(|key| [*key; 2]).collect::<Vec<_>>());
}

#[test]
fn a_sampler_that_refuses_is_named() {
    struct Mute;
    impl crate::Sampler for Mute {
        fn draw(
            &mut self,
            _: &mut crate::Rng,
            _: std::ops::Range<u64>,
            _: usize,
            _: &mut crate::Drawn,
        ) -> Result<(), crate::SampleError> {
            Err(crate::SampleError::Empty)
        }

        fn priorities(&mut self) -> Option<&mut dyn crate::Priorities> {
            None
        }

        fn visit(
            &mut self,
            _: std::ops::Range<u64>,
            visitor: &mut dyn crate::StateVisitor,
        ) -> Result<(), crate::StateError> {
            // A name that is longer than any.
            crate::scalar(visitor, &"x".repeat(70_000), &mut 1u8)
        }
    }
    let folder = tempdir().unwrap();
    let schema = Schema::new(vec![Field::new("a", Dtype::I64, [])]).unwrap();
    let replay = Replay::builder(schema).capacity(3).sampler(Box::new(Mute)).build().unwrap();
    let error = replay.save(folder.path().join("it")).unwrap_err();
    assert!(matches!(error, SnapshotError::Collect(_)), "{error}");
    assert!(error.to_string().contains("'sampler.xxxx") && error.to_string().len() < 300, "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
