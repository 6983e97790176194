//! Rows that NumPy and PyArrow have written (`tests/golden/data.py`, through `make golden`) are read value for value, and
//! what is exported is byte for byte what that script has read with NumPy and PyArrow.

mod offline;

use offline::{ROWS, buffer, bytes, data, expected_rows, fields, golden, rows};
use rl_replay::data::arrow::{self, Arrow};
use rl_replay::data::npz::{self, Compression, Npz};
use rl_replay::data::{Cast, Column, DataError, Stored};
use rl_replay::{Dtype, Field, Schema};
use std::path::PathBuf;

#[test]
fn rows_of_numpy_and_pyarrow_are_read() {
    let schema = Schema::new(fields()).unwrap();
    for name in ["rows.npz", "rows_compressed.npz"] {
        let npz = Npz::open(data(name)).unwrap();
        assert_eq!(npz.schema().unwrap(), schema, "{name}");
        let replay = buffer(&schema);
        assert_eq!(npz.import(&mut replay.writer(), Cast::Widen).unwrap(), ROWS as u64);
        assert_eq!(rows(&replay), expected_rows(schema.fields()), "{name}");
        let from_memory = buffer(&schema);
        let npz = Npz::from_bytes(std::fs::read(data(name)).unwrap()).unwrap();
        npz.import(&mut from_memory.writer(), Cast::Widen).unwrap();
        assert_eq!(rows(&from_memory), rows(&replay));
    }
    // A file of batches of three rows, and a stream of batches of four.
    for name in ["rows.arrow", "rows.arrows"] {
        let replay = buffer(&schema);
        let arrow = Arrow::open(data(name)).unwrap();
        assert_eq!(arrow.import(&mut replay.writer(), Cast::Widen).unwrap(), ROWS as u64);
        assert_eq!(rows(&replay), expected_rows(schema.fields()), "{name}");
        let tensor = arrow.columns().iter().find(|column| column.name == "frame").unwrap();
        assert_eq!(*tensor, Column { name: "frame".into(), stored: Stored::U8, shape: vec![4, 2, 1] });
    }
}

#[test]
fn columns_are_picked_converted_and_reshaped_as_asked() {
    // Lists in lists; and a list for a field of two dimensions.
    let schema = Schema::new(vec![Field::new("obs", Dtype::F64, [2, 3])]).unwrap();
    let replay = buffer(&schema);
    let arrow = Arrow::open(data("rows.arrow")).unwrap();
    assert_eq!(arrow.import(&mut replay.writer(), Cast::Widen).unwrap(), ROWS as u64);
    for (row, cells) in rows(&replay).iter().enumerate() {
        assert_eq!(cells[0], bytes(0, row, Dtype::F64, 6));
    }
    let nested = buffer(&Schema::new(vec![Field::new("nested", Dtype::F32, [2, 3])]).unwrap());
    arrow.import(&mut nested.writer(), Cast::Widen).unwrap();
    assert_eq!(rows(&nested)[3][0], bytes(0, 3, Dtype::F32, 6));
    let square = buffer(&Schema::new(vec![Field::new("half", Dtype::F16, [5, 1])]).unwrap());
    arrow.import(&mut square.writer(), Cast::Widen).unwrap();
    assert_eq!(rows(&square)[3][0], bytes(1, 3, Dtype::F16, 5));

    // Big-endian doubles into floats, [N, 1] into a scalar, int16 into i64, uint64 into u8.
    let fields = vec![
        Field::new("obs", Dtype::F32, [2, 3]),
        Field::new("reward", Dtype::F32, []),
        Field::new("small", Dtype::I64, []),
        Field::new("unsigned", Dtype::U8, []),
    ];
    let replay = buffer(&Schema::new(fields).unwrap());
    let odd = Npz::open(data("odd.npz")).unwrap();
    let refused = odd.import(&mut replay.writer(), Cast::Widen).unwrap_err();
    assert!(matches!(&refused, DataError::Type { column, .. } if column == "obs"), "{refused}");
    assert!(refused.to_string().contains("'obs' holds float64, which f32 cannot hold"), "{refused}");
    assert_eq!(odd.import(&mut replay.writer(), Cast::Round).unwrap(), ROWS as u64);
    for (row, cells) in rows(&replay).iter().enumerate() {
        assert_eq!(cells[0], bytes(0, row, Dtype::F32, 6));
        assert_eq!(cells[1], bytes(2, row, Dtype::F32, 1));
        assert_eq!(cells[2], bytes(4, row, Dtype::I64, 1));
        assert_eq!(cells[3], bytes(5, row, Dtype::U8, 1));
    }
}

#[test]
fn what_is_not_read_is_named() {
    let message = |field: Field, arrow: bool| {
        let replay = buffer(&Schema::new(vec![field]).unwrap());
        let mut writer = replay.writer();
        let error = match arrow {
            true => Arrow::open(data("rows.arrow")).unwrap().import(&mut writer, Cast::Round).unwrap_err(),
            false => Npz::open(data("odd.npz")).unwrap().import(&mut writer, Cast::Round).unwrap_err(),
        };
        assert!(replay.is_empty());
        error.to_string()
    };
    let x = |name: &str| Field::new(name, Dtype::F32, []);
    for (name, words) in [
        ("objects", "'|O'"),
        ("words", "'<U4'"),
        ("fortran", "Fortran"),
        ("nothing", "has no 'nothing'; it has [\"obs\", \"reward\", \"small\", \"unsigned\", \"short\"]"),
        ("obs", "have the shape [2, 3], where the buffer has []"),
    ] {
        let text = message(x(name), false);
        assert!(text.contains(words) && text.contains("odd.npz") && text.contains(name), "{text}");
    }
    for (name, words) in
        [("holes", "null"), ("ragged", "any length"), ("words", "Utf8"), ("action2", "has no")]
    {
        let text = message(x(name), true);
        assert!(text.contains(words) && text.contains("rows.arrow") && text.contains(name), "{text}");
    }
    let text = message(Field::new("frame", Dtype::U8, [2, 4]), true);
    assert!(text.contains("[4, 2, 1]"), "{text}");

    let both = Schema::new(vec![Field::new("reward", Dtype::F64, []), x("short")]).unwrap();
    let odd = Npz::open(data("odd.npz")).unwrap();
    let error = odd.import(&mut buffer(&both).writer(), Cast::Round).unwrap_err();
    assert!(matches!(error, DataError::Rows { expected: 7, found: 6, .. }), "{error}");

    let replay = buffer(&Schema::new(fields()).unwrap());
    let packed = Arrow::open(data("packed.arrow")).unwrap();
    let error = packed.import(&mut replay.writer(), Cast::Widen).unwrap_err();
    assert!(error.to_string().contains("compressed"), "{error}");
}

/// The exported files, and `brain` beside the other columns, which only a buffer has a type for.
#[test]
fn exported_bytes_are_those_that_numpy_and_pyarrow_have_read() {
    let mut fields = fields();
    fields.push(Field::new("brain", Dtype::Bf16, [2]));
    let schema = Schema::new(fields).unwrap();
    let replay = buffer(&schema);
    for row in expected_rows(schema.fields()) {
        replay.writer().push(&row.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    }
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let [zip, file] = ["exported.npz", "exported.arrow"].map(|name| folder.join(name));
    assert_eq!(npz::export(&replay, &zip, Compression::Stored).unwrap(), ROWS as u64);
    assert_eq!(arrow::export(&replay, &file).unwrap(), ROWS as u64);
    let mut stream = Vec::new();
    assert_eq!(arrow::write_stream(&replay, &mut stream).unwrap(), ROWS as u64);
    for (name, written) in [
        ("exported.npz", std::fs::read(zip).unwrap()),
        ("exported.arrow", std::fs::read(file).unwrap()),
        ("exported.arrows", stream),
    ] {
        if std::env::var_os("RL_REPLAY_WRITE_EXPORTED").is_some() {
            std::fs::write(golden(name), &written).unwrap();
        }
        let expected = std::fs::read(golden(name)).unwrap();
        assert!(
            written == expected,
            "{name} differs; write it anew with RL_REPLAY_WRITE_EXPORTED=1 and let `make golden` read it"
        );
    }
}
