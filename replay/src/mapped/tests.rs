//! What only the header's own words can show: a power loss, and every byte of it damaged.

use super::header::{COMMITS_AT, Commit, NO_CEILING, NOTE_AT, Note};
use crate::{Batch, BufferFileError, Dtype, Field, Key, Replay, ReplayError, Rng, Schema};
use rand::{RngExt, SeedableRng};
use std::ops::Range;
use std::path::Path;

const CAPACITY: usize = 64;
const RESERVE: usize = 2;
/// Three slots touch each page, and most slots two pages.
const ELEMENTS: usize = 300;

fn open(path: &Path) -> Result<Replay, ReplayError> {
    let schema = Schema::new(vec![Field::new("x", Dtype::I64, [ELEMENTS])]).unwrap();
    Replay::builder(schema).capacity(CAPACITY).reserve(RESERVE).in_file(path).build()
}

/// Inserts rows that are full of their own key.
fn push(replay: &Replay, rows: usize) {
    for _ in 0..rows {
        let row = [replay.inserted(); ELEMENTS];
        replay.writer().push(&[bytemuck::cast_slice(&row)]).unwrap();
    }
}

/// The live rows, all of them whole.
fn check(replay: &Replay) -> Range<Key> {
    let live = replay.live();
    let keys: Vec<u64> = live.clone().collect();
    if !keys.is_empty() {
        let mut batch = Batch::new(replay.schema(), keys.len());
        replay.sampler().pin().unwrap().gather(&keys, &mut batch.view_mut()).unwrap();
        let expected: Vec<u64> = keys.iter().flat_map(|key| [*key; ELEMENTS]).collect();
        assert!(batch.typed::<u64>("x").unwrap() == expected, "rows of {live:?} are torn");
    }
    live
}

fn commits(file: &[u8]) -> Vec<Commit> {
    COMMITS_AT.iter().filter_map(|at| Commit::decode(&file[*at as usize..][..Commit::BYTES])).collect()
}

fn newest(file: &[u8]) -> Commit {
    commits(file).into_iter().max_by_key(|commit| commit.sequence).unwrap()
}

/// The file after the system was started anew.
fn rebooted(mut file: Vec<u8>) -> Vec<u8> {
    for mut commit in commits(&file) {
        commit.boot ^= 1;
        file[commit.at() as usize..][..Commit::BYTES].copy_from_slice(&commit.encode());
    }
    file
}

/// Some sectors of the header and pages of the slots as they are, the others as they were.
fn mixed(before: &[u8], now: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut file = before.to_vec();
    let mut at = 0;
    while at < file.len() {
        let bytes = if at < 4096 { 512 } else { 4096 };
        let part = at..(at + bytes).min(file.len());
        if rng.random() {
            file[part.clone()].copy_from_slice(&now[part]);
        }
        at += bytes;
    }
    file
}

#[test]
fn after_a_power_loss_rows_are_whole_or_refused() {
    let folder = folder();
    let [path, lost] = ["it", "lost"].map(|name| folder.path().join(name));
    let mut rng = Rng::seed_from_u64(21);
    let (mut recovered, mut refused) = (0, 0);
    for _ in 0..150 {
        let _ = std::fs::remove_file(&path);
        let replay = open(&path).unwrap();
        push(&replay, rng.random_range(0..200));
        replay.flush().unwrap();
        let flushed = replay.live();
        let on_disk = std::fs::read(&path).unwrap();
        push(&replay, rng.random_range(0..40));
        let now = std::fs::read(&path).unwrap();
        // A commit that took the promise back was brought to the disk, and all before it.
        let taken_back = newest(&now).ceiling == NO_CEILING;
        for _ in 0..4 {
            let mut file = mixed(&on_disk, &now, &mut rng);
            if taken_back {
                file[COMMITS_AT[0] as usize..2048].copy_from_slice(&now[COMMITS_AT[0] as usize..2048]);
            }
            std::fs::write(&lost, rebooted(file)).unwrap();
            match open(&lost) {
                Ok(replay) => {
                    let live = check(&replay);
                    assert_eq!(live.end, flushed.end);
                    let given_up = (CAPACITY / 8 + 2 * RESERVE) as u64;
                    assert!(
                        (flushed.start..=flushed.start + given_up).contains(&live.start),
                        "{live:?} {flushed:?}"
                    );
                    recovered += 1;
                    // And on.
                    push(&replay, 100);
                    check(&replay);
                }
                Err(ReplayError::File(BufferFileError::PowerLoss { .. })) => {
                    assert!(taken_back);
                    refused += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        drop(replay);
        // Closed: nothing is lost.
        std::fs::write(&lost, rebooted(std::fs::read(&path).unwrap())).unwrap();
        check(&open(&lost).unwrap());
    }
    assert!(recovered > 50 && refused > 50, "{recovered} recovered, {refused} refused");
}

#[test]
fn an_open_file_is_refused_after_a_power_loss_until_it_is_flushed() {
    let folder = folder();
    let [path, lost] = ["it", "lost"].map(|name| folder.path().join(name));
    drop(open(&path).unwrap());
    let replay = open(&path).unwrap();
    let power_loss = || {
        std::fs::write(&lost, rebooted(std::fs::read(&path).unwrap())).unwrap();
        open(&lost).map(|replay| check(&replay))
    };
    push(&replay, 10);
    let error = power_loss().unwrap_err().to_string();
    assert!(error.contains("the system went down while") && error.contains("load a snapshot"), "{error}");
    replay.flush().unwrap();
    assert_eq!(power_loss().unwrap(), 0..10);
    // Up to the ceiling, which is an eighth of the capacity beyond the limit, and then no more.
    push(&replay, 4);
    assert_eq!(power_loss().unwrap(), 0..10);
    push(&replay, 40);
    assert!(matches!(power_loss(), Err(ReplayError::File(BufferFileError::PowerLoss { .. }))));
    push(&replay, 60);
    replay.flush().unwrap();
    push(&replay, 1);
    let live = power_loss().unwrap();
    assert!(live.end == 114 && (50 + 1..=50 + 12).contains(&live.start), "{live:?}");
}

#[test]
fn every_byte_of_the_header_that_is_damaged_is_noticed() {
    let folder = folder();
    let path = folder.path().join("it");
    let replay = open(&path).unwrap();
    push(&replay, 100);
    replay.flush().unwrap();
    push(&replay, 20);
    let killed = std::fs::read(&path).unwrap();
    drop(replay);
    let closed = std::fs::read(&path).unwrap();
    let encoded = u32::from_le_bytes(killed[12..16].try_into().unwrap()) as usize + 8;
    let records = [
        0..16,
        NOTE_AT as usize..NOTE_AT as usize + Note::BYTES,
        COMMITS_AT[0] as usize..COMMITS_AT[0] as usize + Commit::BYTES,
        COMMITS_AT[1] as usize..COMMITS_AT[1] as usize + Commit::BYTES,
        4096..4096 + encoded,
    ];
    for file in [killed, closed] {
        for at in records.iter().cloned().flatten() {
            let mut bad = file.clone();
            bad[at] ^= 1 << (at % 8);
            std::fs::write(&path, &bad).unwrap();
            let error = open(&path).map(drop).unwrap_err();
            let ReplayError::File(error) = error else { panic!("byte {at}: {error}") };
            use BufferFileError::{Damaged, Foreign, Version};
            assert!(matches!(error, Damaged { .. } | Foreign { .. } | Version { .. }), "byte {at}: {error}");
            assert!(std::fs::read(&path).unwrap() == bad, "byte {at}: the file was touched");
        }
        // As it was.
        std::fs::write(&path, &file).unwrap();
        assert!(check(&open(&path).unwrap()).end >= 100);
    }
}

#[test]
fn a_newer_commit_that_is_gone_is_noticed() {
    let folder = folder();
    let path = folder.path().join("it");
    drop(open(&path).unwrap());
    let closed = std::fs::read(&path).unwrap();
    let replay = open(&path).unwrap();
    push(&replay, 200);
    let mut file = std::fs::read(&path).unwrap();
    drop(replay);
    // The header says "closed and whole" again, though rows have been written since.
    let records = COMMITS_AT[0] as usize..2048;
    file[records.clone()].copy_from_slice(&closed[records]);
    std::fs::write(&path, &file).unwrap();
    let error = open(&path).map(drop).unwrap_err().to_string();
    assert!(error.contains("is damaged: what it says of its rows is older than the rows"), "{error}");
}

fn folder() -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("file-");
    builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir()).unwrap()
}
