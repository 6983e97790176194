//! Any rows of any schema come back from every format as they went out.

use proptest::prelude::*;
use rl_replay::data::arrow::{self, Arrow};
use rl_replay::data::npz::{self, Compression, Npz};
use rl_replay::data::{Cast, DataError};
use rl_replay::{Batch, Dtype, Field, Key, Replay, Schema};
use std::io::Cursor;

const DTYPES: [Dtype; 8] =
    [Dtype::Bool, Dtype::U8, Dtype::I32, Dtype::I64, Dtype::F16, Dtype::Bf16, Dtype::F32, Dtype::F64];

/// A row of a field, as random bytes that are values of its type and finite.
fn cell(field: &Field, mut random: impl FnMut() -> u8) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..field.row_bytes()).map(|_| random()).collect();
    if field.dtype == Dtype::Bool {
        bytes.iter_mut().for_each(|byte| *byte &= 1);
    }
    while let Some(element) = field.dtype.first_non_finite(&bytes) {
        let size = field.dtype.size_bytes();
        bytes[element * size..][..size].fill(0x11);
    }
    bytes
}

fn field() -> impl Strategy<Value = (usize, Vec<usize>)> {
    (0..DTYPES.len(), proptest::collection::vec(1usize..4, 0..4))
}

fn content(replay: &Replay) -> Vec<Vec<u8>> {
    let mut batch = Batch::new(replay.schema(), replay.len());
    let keys: Vec<Key> = replay.live().collect();
    if !keys.is_empty() {
        replay.sampler().pin().unwrap().gather(&keys, &mut batch.view_mut()).unwrap();
    }
    (0..replay.schema().fields().len()).map(|position| batch.column(position).to_vec()).collect()
}

fn filled(schema: &Schema, capacity: usize, rows: usize, seed: u64) -> Replay {
    let replay = Replay::builder(schema.clone()).capacity(capacity).reserve(3).build().unwrap();
    let mut state = seed | 1;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let mut writer = replay.writer();
    for _ in 0..rows {
        let row: Vec<Vec<u8>> = schema.fields().iter().map(|field| cell(field, &mut random)).collect();
        writer.push(&row.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    }
    replay
}

fn empty(schema: &Schema, capacity: usize) -> Replay {
    Replay::builder(schema.clone()).capacity(capacity).build().unwrap()
}

fn npz_bytes(replay: &Replay, compression: Compression) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    assert_eq!(npz::write(replay, &mut out, compression).unwrap(), replay.len() as u64);
    out.into_inner()
}

fn arrow_bytes(replay: &Replay, is_stream: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let rows =
        if is_stream { arrow::write_stream(replay, &mut out) } else { arrow::write_file(replay, &mut out) };
    assert_eq!(rows.unwrap(), replay.len() as u64);
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn rows_come_back(
        fields in proptest::collection::vec(field(), 1..5),
        rows in 0usize..40,
        capacity in 1usize..30,
        seed: u64,
    ) {
        let fields = fields.into_iter().enumerate();
        let fields = fields.map(|(i, (dtype, shape))| Field::new(format!("f{i} é"), DTYPES[dtype], shape));
        let schema = Schema::new(fields.collect()).unwrap();
        let replay = filled(&schema, capacity, rows, seed);
        let expected = content(&replay);
        for compression in [Compression::Stored, Compression::Deflate] {
            let npz = Npz::from_bytes(npz_bytes(&replay, compression)).unwrap();
            prop_assert_eq!(npz.schema().unwrap(), schema.clone());
            let again = empty(&schema, capacity);
            prop_assert_eq!(npz.import(&mut again.writer(), Cast::Widen).unwrap(), replay.len() as u64);
            prop_assert_eq!(&content(&again), &expected);
        }
        for is_stream in [false, true] {
            let arrow = Arrow::from_bytes(arrow_bytes(&replay, is_stream)).unwrap();
            prop_assert_eq!(arrow.schema().unwrap(), schema.clone());
            let again = empty(&schema, capacity);
            prop_assert_eq!(arrow.import(&mut again.writer(), Cast::Widen).unwrap(), replay.len() as u64);
            prop_assert_eq!(&content(&again), &expected);
        }
    }
}

/// More than a block, of a ring that has wrapped.
#[test]
fn many_blocks_come_back() {
    let fields = vec![Field::new("frame", Dtype::U8, [84, 84]), Field::new("step", Dtype::I64, [])];
    let schema = Schema::new(fields).unwrap();
    let replay = filled(&schema, 2000, 2300, 5);
    let expected = content(&replay);
    assert!(expected[0].len() > 3 * (4 << 20));
    let again = empty(&schema, 2000);
    let npz = Npz::from_bytes(npz_bytes(&replay, Compression::Stored)).unwrap();
    npz.import(&mut again.writer(), Cast::Widen).unwrap();
    assert!(content(&again) == expected);
    let again = empty(&schema, 2000);
    let arrow = Arrow::from_bytes(arrow_bytes(&replay, false)).unwrap();
    arrow.import(&mut again.writer(), Cast::Widen).unwrap();
    assert!(content(&again) == expected);
    // The newest rows are kept where not all of them fit.
    let few = empty(&schema, 10);
    assert_eq!(npz.import(&mut few.writer(), Cast::Widen).unwrap(), 2000);
    assert!(content(&few)[0] == expected[0][1990 * 84 * 84..]);
}

/// Whatever a field is called, its column is called the same.
#[test]
fn names_are_kept() {
    let names = [
        "a/b",
        "../up",
        "/root",
        "back\\slash",
        "dots..npy",
        "x.npy",
        "with space",
        "'quoted'",
        "数",
        "x.bf16",
    ];
    let fields = names.map(|name| Field::new(name, Dtype::U8, [2]));
    let schema = Schema::new(fields.to_vec()).unwrap();
    let replay = filled(&schema, 5, 5, 9);
    let npz = Npz::from_bytes(npz_bytes(&replay, Compression::Stored)).unwrap();
    assert_eq!(npz.schema().unwrap(), schema);
    let arrow = Arrow::from_bytes(arrow_bytes(&replay, false)).unwrap();
    assert_eq!(arrow.schema().unwrap(), schema);
}

/// The first value that is refused is far into the file, and the buffer is as it was.
#[test]
fn a_bad_value_is_found_before_anything_is_inserted() {
    let wide = Schema::new(vec![Field::new("x", Dtype::F64, [1000])]).unwrap();
    let replay = empty(&wide, 5000);
    let mut row = vec![1.0f64; 1000];
    for i in 0..2000 {
        row[7] = if i == 1777 { 1e300 } else { i as f64 };
        replay.writer().push(&[bytemuck::cast_slice(&row)]).unwrap();
    }
    let narrow = Schema::new(vec![Field::new("x", Dtype::F32, [1000])]).unwrap();
    let target = filled(&narrow, 3, 2, 1);
    let before = content(&target);
    let npz = Npz::from_bytes(npz_bytes(&replay, Compression::Deflate)).unwrap();
    let arrow = Arrow::from_bytes(arrow_bytes(&replay, true)).unwrap();
    for error in [
        npz.import(&mut target.writer(), Cast::Round).unwrap_err(),
        arrow.import(&mut target.writer(), Cast::Round).unwrap_err(),
    ] {
        assert!(matches!(error, DataError::Value { row: 1777, element: 7, .. }), "{error}");
    }
    assert_eq!((content(&target), target.inserted()), (before, 2));
}

/// A file appears whole or not at all.
#[test]
fn a_failed_export_leaves_the_old_file() {
    let schema = Schema::new(vec![Field::new("x", Dtype::F32, [])]).unwrap();
    let replay = filled(&schema, 9, 9, 2);
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("failed-export");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    // A folder is in the way, so that the last step, renaming, fails.
    let taken = folder.join("rows.npz");
    std::fs::create_dir(&taken).unwrap();
    let error = npz::export(&replay, &taken, Compression::Stored).unwrap_err();
    assert!(matches!(error, DataError::Io { .. }) && error.to_string().contains("rows.npz"), "{error}");
    let error = arrow::export(&replay, &taken).unwrap_err();
    assert!(matches!(error, DataError::Io { .. }), "{error}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside it");
    let error = arrow::export(&replay, folder.join("no/such/folder.arrow")).unwrap_err();
    assert!(matches!(error, DataError::Io { .. }), "{error}");
}

/// A writer of the outside fails in the middle.
#[test]
fn a_full_disk_is_an_error() {
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    impl std::io::Seek for Full {
        fn seek(&mut self, _: std::io::SeekFrom) -> std::io::Result<u64> {
            Ok(0)
        }
    }
    let schema = Schema::new(vec![Field::new("x", Dtype::F32, [100])]).unwrap();
    let replay = filled(&schema, 100, 100, 3);
    let full = |error: DataError| match error {
        DataError::Io { source, .. } => assert_eq!(source.kind(), std::io::ErrorKind::StorageFull),
        other => panic!("{other}"),
    };
    for room in [0, 100, 20_000] {
        full(npz::write(&replay, Full(room), Compression::Stored).unwrap_err());
        full(arrow::write_stream(&replay, Full(room)).unwrap_err());
        full(arrow::write_file(&replay, Full(room)).unwrap_err());
    }
}
