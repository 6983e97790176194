//! Damaged files are refused, whatever is wrong with them: golden files with bytes changed, cut out, put in and cut
//! off, by a seeded generator. An import of one either ends with an error and leaves the buffer as it was, or is one
//! of a file that is whole by luck.
//!
//! `RL_REPLAY_FUZZ_SECONDS=600 cargo test --release -p rl-replay --features npz,arrow,minari --test data_damaged`
//! goes on for so long, from a seed of the clock's, which it prints.

use rand::{RngExt, SeedableRng};
use rl_replay::data::arrow::Arrow;
use rl_replay::data::minari::Minari;
use rl_replay::data::npz::Npz;
use rl_replay::data::{Cast, DataError, StepNames};
use rl_replay::{Dtype, Field, NStep, Replay, Rng, Schema};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data").join(name)
}

fn buffer(schema: &Schema) -> Replay {
    Replay::builder(schema.clone()).capacity(50).build().unwrap()
}

/// Columns of rows.npz and rows.arrow.
fn rows() -> Schema {
    Schema::new(vec![
        Field::new("obs", Dtype::F32, [2, 3]),
        Field::new("half", Dtype::F16, [5]),
        Field::new("double", Dtype::F64, []),
        Field::new("frame", Dtype::U8, [4, 2, 1]),
        Field::new("index", Dtype::I32, []),
        Field::new("action", Dtype::I64, []),
        Field::new("flag", Dtype::Bool, [3]),
    ])
    .unwrap()
}

/// `Ok` with the rows inserted, or the error; the buffer has what it should have in either case.
fn checked<T>(
    replay: &Replay,
    imported: Result<T, DataError>,
    rows: impl Fn(&T) -> u64,
) -> Result<u64, DataError> {
    match imported {
        Ok(imported) => {
            assert_eq!(rows(&imported), replay.inserted());
            Ok(rows(&imported))
        }
        Err(error) => {
            assert_eq!(replay.inserted(), 0, "{error}");
            let text = error.to_string();
            assert!(!text.is_empty() && !text.contains('\n'), "{text}");
            Err(error)
        }
    }
}

fn npz(bytes: &[u8]) -> Result<u64, DataError> {
    let (schema, file) = (rows(), Npz::from_bytes(bytes)?);
    let _ = file.schema();
    let replay = buffer(&schema);
    checked(&replay, file.import(&mut replay.writer(), Cast::Round), |rows| *rows)
}

fn d4rl(bytes: &[u8]) -> Result<u64, DataError> {
    let file = Npz::from_bytes(bytes)?;
    let schema = Schema::transition((Dtype::F32, &[3]), (Dtype::F32, &[2])).unwrap();
    let replay = buffer(&schema);
    let mut n_step = NStep::new(2, 0.9, &schema).unwrap();
    let names = StepNames::d4rl(file.columns());
    let imported = file.import_steps(&names, &mut n_step, &mut replay.writer(), Cast::Round);
    assert_eq!(n_step.open_steps(), 0);
    checked(&replay, imported, |imported| imported.rows)
}

fn arrow(bytes: &[u8]) -> Result<u64, DataError> {
    let (schema, file) = (rows(), Arrow::from_bytes(bytes)?);
    let _ = file.schema();
    let replay = buffer(&schema);
    checked(&replay, file.import(&mut replay.writer(), Cast::Round), |rows| *rows)
}

/// Every column that the file itself says it has.
fn whole_arrow(bytes: &[u8]) -> Result<u64, DataError> {
    let file = Arrow::from_bytes(bytes)?;
    let schema = file.schema()?;
    // Whoever makes a buffer of a schema out of a file looks at what it takes.
    if schema.row_bytes() > 1 << 20 {
        return Ok(0);
    }
    let replay = buffer(&schema);
    checked(&replay, file.import(&mut replay.writer(), Cast::Round), |rows| *rows)
}

/// A Minari data set with one file of it replaced.
fn minari(set: &str, part: &str, keys: &[&str], bytes: &[u8]) -> Result<u64, DataError> {
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("damaged-{set}-{:?}", std::thread::current().id()));
    if !copy.exists() {
        copy_folder(&golden(set), &copy);
    }
    let original = std::fs::read(golden(set).join(part)).unwrap();
    std::fs::write(copy.join(part), bytes).unwrap();
    let result = minari_import(&copy, keys);
    std::fs::write(copy.join(part), original).unwrap();
    result
}

fn minari_import(folder: &Path, keys: &[&str]) -> Result<u64, DataError> {
    let data = Minari::open(folder)?.observations(keys.iter().copied());
    let _ = (data.columns(), data.total_steps());
    let schema = data.schema(Cast::Widen)?;
    if schema.row_bytes() > 1 << 20 {
        return Ok(0);
    }
    let replay = buffer(&schema);
    let mut n_step = NStep::new(2, 0.9, &schema).unwrap();
    let imported = data.import(&mut n_step, &mut replay.writer(), Cast::Widen);
    assert_eq!(n_step.open_steps(), 0);
    checked(&replay, imported, |imported| imported.rows)
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

type Import = Box<dyn Fn(&[u8]) -> Result<u64, DataError>>;

/// Name, file, import, and how many rows the undamaged file has.
fn targets() -> Vec<(String, PathBuf, Import, u64)> {
    let mut targets: Vec<(String, PathBuf, Import, u64)> = vec![
        ("npz".into(), golden("rows.npz"), Box::new(npz), 7),
        ("compressed npz".into(), golden("rows_compressed.npz"), Box::new(npz), 7),
        ("d4rl".into(), golden("d4rl.npz"), Box::new(d4rl), 7),
        ("d4rl with next".into(), golden("d4rl_next.npz"), Box::new(d4rl), 9),
        ("arrow file".into(), golden("rows.arrow"), Box::new(arrow), 7),
        ("arrow stream".into(), golden("rows.arrows"), Box::new(arrow), 7),
        ("our arrow".into(), golden("../exported.arrow"), Box::new(whole_arrow), 7),
    ];
    let goals: &[&str] = &["desired_goal", "observation"];
    for (set, part, keys) in [
        ("minari-box", "data/main_data.hdf5", &[][..]),
        ("minari-repacked", "data/main_data.hdf5", &[]),
        ("minari-dict", "data/main_data.hdf5", goals),
        ("minari-dict", "data/metadata.json", goals),
        ("minari-dict-arrow", "data/0/part-0.arrow", goals),
        ("minari-dict-arrow", "data/metadata.json", goals),
    ] {
        let import: Import = Box::new(move |bytes: &[u8]| minari(set, part, keys, bytes));
        targets.push((format!("{set}/{part}"), golden(set).join(part), import, 7));
    }
    targets
}

/// Changes a few things of `bytes`.
fn damage(bytes: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..rng.random_range(1..=4) {
        if bytes.is_empty() {
            return;
        }
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..8) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.random_range(0..5)],
            2 => bytes[at] = rng.random(),
            // A number of 2, 4 or 8 bytes: those are sizes and addresses.
            3 | 4 => {
                let width = [2, 4, 8][rng.random_range(0..3)].min(bytes.len() - at);
                let value =
                    [0, 1, u64::MAX, u64::MAX >> 1, 1 << 31, 1 << 40, bytes.len() as u64, rng.random()];
                let value: u64 = value[rng.random_range(0..8)];
                bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
            }
            5 => bytes.truncate(at),
            6 => {
                let end = (at + rng.random_range(1..64)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let from = rng.random_range(0..bytes.len());
                let end = (from + rng.random_range(1..64)).min(bytes.len());
                let piece = bytes[from..end].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
}

#[test]
fn damaged_files_are_refused_and_nothing_else_happens() {
    let seconds = std::env::var("RL_REPLAY_FUZZ_SECONDS").ok().map(|s| s.parse().expect("seconds"));
    let seed = match seconds {
        Some::<u64>(_) => std::time::UNIX_EPOCH.elapsed().unwrap().as_secs(),
        None => 1,
    };
    println!("seed {seed}");
    let targets = targets();
    for (name, file, import, rows) in &targets {
        let whole = import(&std::fs::read(file).unwrap());
        assert_eq!(whole.unwrap_or_else(|error| panic!("{name}: {error}")), *rows, "{name}");
    }
    let (begun, mut round) = (Instant::now(), 0u64);
    let mut counts = vec![[0u64; 2]; targets.len()];
    let mut longest = Duration::ZERO;
    loop {
        match seconds {
            Some(seconds) if begun.elapsed() >= Duration::from_secs(seconds) => break,
            None if round == 400 => break,
            _ => {}
        }
        for ((name, file, import, _), counts) in targets.iter().zip(&mut counts) {
            // Kept where it can be looked at if the process dies of it.
            let mut rng = Rng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(round));
            let mut bytes = std::fs::read(file).unwrap();
            damage(&mut bytes, &mut rng);
            let started = Instant::now();
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| import(&bytes)));
            longest = longest.max(started.elapsed());
            match result {
                Ok(result) => counts[usize::from(result.is_err())] += 1,
                Err(_) => panic!("{name} panicked on round {round} of seed {seed}"),
            }
        }
        round += 1;
    }
    for ((name, ..), [whole, refused]) in targets.iter().zip(&counts) {
        println!("{name}: {refused} refused, {whole} read");
        assert!(*refused > 0, "{name}: no damage was noticed");
    }
    println!("{round} rounds, the longest import {longest:?}");
}

/// A file that is cut off anywhere, or has one byte changed in its data, is never taken for whole.
#[test]
fn every_truncation_is_noticed() {
    for (name, file, import, rows) in targets() {
        let whole = std::fs::read(&file).unwrap();
        if name.contains("hdf5") || name.contains("json") {
            continue;
        }
        for length in 0..whole.len() {
            match import(&whole[..length]) {
                Err(_) => {}
                // A stream says that it is over with eight bytes that a writer may leave out.
                Ok(found) => {
                    assert!(
                        name == "arrow stream" && (found < rows || length + 8 >= whole.len()),
                        "{name} cut off at {length}"
                    );
                }
            }
        }
    }
}

/// What is in memory is never believed to be larger than it is.
#[test]
fn claimed_sizes_are_compared_with_the_file() {
    let whole = std::fs::read(golden("rows.npz")).unwrap();
    let at = whole.windows(4).position(|window| window == b"(7, ").unwrap();
    let mut claims = whole;
    claims[at + 1] = b'9';
    let text = Npz::from_bytes(claims).unwrap_err().to_string();
    assert!(text.contains("claims the shape [9, "), "{text}");
    // Metadata of two gigabytes.
    let claims = [&[0xff; 4][..], &0x7fff_ffffu32.to_le_bytes(), &[0; 100]].concat();
    let text = Arrow::from_bytes(claims).unwrap_err().to_string();
    assert!(text.contains("2147483647 bytes should follow, and 100 are left"), "{text}");
}
