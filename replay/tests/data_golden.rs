//! Files that NumPy, PyArrow and Minari have written (`tests/golden/data.py`, through `make golden`) are read value
//! for value, and what is exported is byte for byte what that script has read with NumPy and PyArrow.

use rl_replay::data::arrow::{self, Arrow};
use rl_replay::data::minari::Minari;
use rl_replay::data::npz::{self, Compression, Npz};
use rl_replay::data::{Cast, Column, DataError, Imported, StepNames, Stored};
use rl_replay::{Batch, Dtype, Field, Key, NStep, Replay, Schema};
use std::path::PathBuf;

const ROWS: usize = 7;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn data(name: &str) -> PathBuf {
    golden("data").join(name)
}

/// Row `row` of the column `seed`: the formula of tests/golden/data.py.
fn element(seed: usize, row: usize, elements: usize) -> Vec<f64> {
    (0..elements).map(|place| ((16 * row + place + seed) % 256) as f64 / 8.0).collect()
}

/// The same as bytes of `dtype`.
fn bytes(seed: usize, row: usize, dtype: Dtype, elements: usize) -> Vec<u8> {
    let eighths = |value: f64| (value * 8.0) as i64;
    let one = |value: f64| match dtype {
        Dtype::Bool => vec![u8::from(eighths(value) % 3 == 0)],
        Dtype::U8 => vec![eighths(value) as u8],
        Dtype::I32 => (eighths(value) as i32).to_ne_bytes().to_vec(),
        Dtype::I64 => eighths(value).to_ne_bytes().to_vec(),
        Dtype::F16 => half::f16::from_f64(value).to_ne_bytes().to_vec(),
        Dtype::Bf16 => half::bf16::from_f64(value).to_ne_bytes().to_vec(),
        Dtype::F32 => (value as f32).to_ne_bytes().to_vec(),
        Dtype::F64 => value.to_ne_bytes().to_vec(),
    };
    element(seed, row, elements).into_iter().flat_map(one).collect()
}

/// One column of each type; the position is the seed.
fn fields() -> Vec<Field> {
    vec![
        Field::new("obs", Dtype::F32, [2, 3]),
        Field::new("half", Dtype::F16, [5]),
        Field::new("double", Dtype::F64, []),
        Field::new("frame", Dtype::U8, [4, 2, 1]),
        Field::new("index", Dtype::I32, []),
        Field::new("action", Dtype::I64, []),
        Field::new("flag", Dtype::Bool, [3]),
    ]
}

fn buffer(schema: &Schema) -> Replay {
    Replay::builder(schema.clone()).capacity(100).build().unwrap()
}

/// All live rows: for each, the bytes of each field.
fn rows(replay: &Replay) -> Vec<Vec<Vec<u8>>> {
    let count = replay.len();
    if count == 0 {
        return Vec::new();
    }
    let mut batch = Batch::new(replay.schema(), count);
    let keys: Vec<Key> = replay.live().collect();
    replay.sampler().pin().unwrap().gather(&keys, &mut batch.view_mut()).unwrap();
    let row = |row: usize| {
        let fields = replay.schema().fields().iter().enumerate();
        fields.map(|(at, f)| batch.column(at)[row * f.row_bytes()..][..f.row_bytes()].to_vec()).collect()
    };
    (0..count).map(row).collect()
}

fn expected_rows(fields: &[Field]) -> Vec<Vec<Vec<u8>>> {
    let row = |row| {
        let cell = |(seed, field): (usize, &Field)| bytes(seed, row, field.dtype, field.elements());
        fields.iter().enumerate().map(cell).collect()
    };
    (0..ROWS).map(row).collect()
}

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

/// A step as a file has it: episode's end apart, everything follows from row numbers.
struct Taken {
    row: usize,
    next: NextObs,
    terminated: bool,
    ended: bool,
}

#[derive(Clone, Copy)]
enum NextObs {
    Row(usize),
    Column { seed: usize, row: usize },
}

/// The rows that `steps` make, by the definition of n-step returns and nothing else.
fn folded(
    steps: &[Taken],
    n: usize,
    gamma: f64,
    obs: impl Fn(NextObs) -> Vec<u8>,
    action: impl Fn(usize) -> Vec<u8>,
) -> Vec<Vec<Vec<u8>>> {
    let row = |first: usize| {
        let mut last = first;
        while last - first + 1 < n && !steps[last].ended {
            last += 1;
        }
        let span = &steps[first..=last];
        let reward: f64 =
            span.iter().enumerate().map(|(i, s)| gamma.powi(i as i32) * element(2, s.row, 1)[0]).sum();
        let discount = if steps[last].terminated { 0.0 } else { gamma.powi(span.len() as i32) };
        let masked = steps[last].terminated;
        let next = if masked { Vec::new() } else { obs(steps[last].next) };
        vec![
            obs(NextObs::Row(steps[first].row)),
            action(steps[first].row),
            (reward as f32).to_ne_bytes().to_vec(),
            (discount as f32).to_ne_bytes().to_vec(),
            next,
        ]
    };
    (0..steps.len()).map(row).collect()
}

/// What follows a terminal step does not matter, so it is not compared.
fn compared(replay: &Replay) -> Vec<Vec<Vec<u8>>> {
    let mut all = rows(replay);
    for row in &mut all {
        if row[3] == 0f32.to_ne_bytes() {
            row[4].clear();
        }
    }
    all
}

#[test]
fn steps_of_d4rl_become_rows() {
    let obs_of = |at: NextObs| match at {
        NextObs::Row(row) => bytes(0, row, Dtype::F32, 3),
        NextObs::Column { seed, row } => bytes(seed, row, Dtype::F32, 3),
    };
    let action_of = |row: usize| bytes(1, row, Dtype::F32, 2);
    let schema = Schema::transition((Dtype::F32, &[3]), (Dtype::F32, &[2])).unwrap();
    // γ is a power of two, so that every sum is exact in whatever order.
    for n in 1..=5 {
        // 4 steps and terminal, 3 and cut, 2 and the end. What followed rows 6 and 8 is not in the file without
        // next_observations.
        let plain: Vec<Taken> = [0, 1, 2, 3, 4, 5, 7]
            .map(|row| Taken {
                row,
                next: NextObs::Row(row + 1),
                terminated: row == 3,
                ended: [3, 5, 7].contains(&row),
            })
            .into();
        let full: Vec<Taken> = (0..9)
            .map(|row| Taken {
                row,
                next: NextObs::Column { seed: 3, row },
                terminated: row == 3,
                ended: [3, 6, 8].contains(&row),
            })
            .collect();
        for (name, steps, dropped) in [("d4rl.npz", plain, 2), ("d4rl_next.npz", full, 0)] {
            let npz = Npz::open(data(name)).unwrap();
            let names = StepNames::d4rl(npz.columns());
            let replay = buffer(&schema);
            let mut n_step = NStep::new(n, 0.5, &schema).unwrap();
            let imported = npz.import_steps(&names, &mut n_step, &mut replay.writer(), Cast::Widen).unwrap();
            assert_eq!(compared(&replay), folded(&steps, n, 0.5, obs_of, action_of), "{name}, n = {n}");
            assert_eq!((imported.steps, imported.rows), (steps.len() as u64, steps.len() as u64));
            assert_eq!((imported.episodes, imported.dropped), (3, dropped), "{name}");
            assert_eq!(n_step.open_steps(), 0);
        }
    }

    // Without timeouts an episode is cut where the next observation is not the one that followed: here everywhere.
    let npz = Npz::open(data("d4rl_next.npz")).unwrap();
    let names = StepNames { truncated: None, ..StepNames::d4rl(npz.columns()) };
    let replay = buffer(&schema);
    let mut n_step = NStep::new(3, 0.5, &schema).unwrap();
    let imported = npz.import_steps(&names, &mut n_step, &mut replay.writer(), Cast::Widen).unwrap();
    assert_eq!((imported.steps, imported.episodes), (9, 9));

    // Not into the middle of an episode, and not without a column.
    let mut open = NStep::new(3, 0.5, &schema).unwrap();
    let (obs, action) = ([0; 12], [0; 8]);
    let step = rl_replay::Step {
        obs: &obs,
        action: &action,
        reward: 0.0,
        next_obs: &obs,
        terminated: false,
        truncated: false,
    };
    open.push(step, &mut replay.writer()).unwrap();
    let error = npz.import_steps(&names, &mut open, &mut replay.writer(), Cast::Widen).unwrap_err();
    assert!(matches!(error, DataError::OpenSteps { steps: 1 }), "{error}");
    let names = StepNames { reward: "reward".into(), ..names };
    let error = npz.import_steps(&names, &mut n_step, &mut replay.writer(), Cast::Widen).unwrap_err();
    assert!(error.to_string().contains("has no 'reward'"), "{error}");
    assert_eq!(replay.len(), 9, "the buffer is as it was");
}

/// Two episodes from rows 0 and 10: 4 steps, terminated, and 3, truncated; the second's last observation is row 13's.
fn minari_steps(episodes: &[usize]) -> Vec<Taken> {
    let step = |first: usize, t: usize, length: usize, terminal: bool| Taken {
        row: first + t,
        next: NextObs::Row(first + t + 1),
        terminated: terminal && t == length - 1,
        ended: t == length - 1,
    };
    let episode = |e: &usize| {
        let (first, length) = [(0, 4), (10, 3)][*e];
        (0..length).map(move |t| step(first, t, length, first == 0))
    };
    episodes.iter().flat_map(episode).collect()
}

fn row_of(at: NextObs) -> usize {
    match at {
        NextObs::Row(row) | NextObs::Column { row, .. } => row,
    }
}

fn import(data: &Minari, schema: &Schema, n: usize, cast: Cast) -> (Replay, Imported) {
    let replay = buffer(schema);
    let mut n_step = NStep::new(n, 0.5, schema).unwrap();
    let imported = data.import(&mut n_step, &mut replay.writer(), cast).unwrap();
    (replay, imported)
}

#[test]
fn minari_boxes_are_read_in_every_layout() {
    for name in ["minari-box", "minari-repacked", "minari-box-arrow"] {
        let minari = Minari::open(data(name)).unwrap();
        assert_eq!((minari.total_episodes(), minari.total_steps().unwrap()), (2, 7));
        let schema = minari.schema(Cast::Widen).unwrap();
        assert_eq!(schema, Schema::transition((Dtype::F64, &[3]), (Dtype::I64, &[])).unwrap(), "{name}");
        let rounded = minari.schema(Cast::Round).unwrap();
        assert_eq!(rounded, Schema::transition((Dtype::F32, &[3]), (Dtype::I64, &[])).unwrap(), "{name}");
        for (schema, cast, dtype) in [(schema, Cast::Widen, Dtype::F64), (rounded, Cast::Round, Dtype::F32)] {
            for n in 1..=5 {
                let (replay, imported) = import(&minari, &schema, n, cast);
                let obs = |at| bytes(0, row_of(at), dtype, 3);
                let action = |row| bytes(1, row, Dtype::I64, 1);
                let expected = folded(&minari_steps(&[0, 1]), n, 0.5, obs, action);
                assert_eq!(compared(&replay), expected, "{name}, n = {n}");
                assert_eq!((imported.steps, imported.rows, imported.episodes), (7, 7, 2));
            }
        }
        let second = Minari::open(data(name).join("data")).unwrap().episodes(1..9);
        let schema = second.schema(Cast::Widen).unwrap();
        let (replay, imported) = import(&second, &schema, 2, Cast::Widen);
        let obs = |at| bytes(0, row_of(at), Dtype::F64, 3);
        let expected = folded(&minari_steps(&[1]), 2, 0.5, obs, |row| bytes(1, row, Dtype::I64, 1));
        assert_eq!((compared(&replay), imported.episodes), (expected, 1));
    }
}

#[test]
fn minari_dictionaries_are_picked_from() {
    for name in ["minari-dict", "minari-dict-arrow"] {
        let minari = Minari::open(data(name)).unwrap();
        let text = minari.schema(Cast::Widen).unwrap_err().to_string();
        assert!(text.contains("achieved_goal") && text.contains(".observations("), "{text}");

        // One entry keeps its shape.
        let minari = minari.observations(["observation"]);
        let schema = minari.schema(Cast::Widen).unwrap();
        assert_eq!(schema, Schema::transition((Dtype::F32, &[2, 2]), (Dtype::F32, &[2])).unwrap());
        let (replay, _) = import(&minari, &schema, 1, Cast::Widen);
        assert_eq!(rows(&replay)[5][0], bytes(0, 11, Dtype::F32, 4));

        // Several are joined, f32 and f64 as f64.
        let minari = minari.observations(["desired_goal", "observation"]);
        let schema = minari.schema(Cast::Widen).unwrap();
        assert_eq!(schema, Schema::transition((Dtype::F64, &[6]), (Dtype::F32, &[2])).unwrap());
        let (replay, _) = import(&minari, &schema, 3, Cast::Widen);
        let obs = |at| [bytes(4, row_of(at), Dtype::F64, 2), bytes(0, row_of(at), Dtype::F64, 4)].concat();
        let expected = folded(&minari_steps(&[0, 1]), 3, 0.5, obs, |row| bytes(1, row, Dtype::F32, 2));
        assert_eq!(compared(&replay), expected, "{name}");
        let floats = minari.schema(Cast::Round).unwrap();
        let (replay, _) = import(&minari, &floats, 1, Cast::Round);
        assert_eq!(rows(&replay)[0][0], [bytes(4, 0, Dtype::F32, 2), bytes(0, 0, Dtype::F32, 4)].concat());

        let text = minari.observations(["goal"]).schema(Cast::Widen).unwrap_err().to_string();
        assert!(text.contains("no 'observations/goal'") && text.contains("desired_goal"), "{text}");
        let wrong = Schema::transition((Dtype::F64, &[7]), (Dtype::F32, &[2])).unwrap();
        let minari = Minari::open(data(name)).unwrap().observations(["desired_goal", "observation"]);
        let mut n_step = NStep::new(1, 0.5, &wrong).unwrap();
        let error = minari.import(&mut n_step, &mut buffer(&wrong).writer(), Cast::Widen).unwrap_err();
        assert!(error.to_string().contains("have the shape [6], where the buffer has [7]"), "{error}");
    }
}

#[test]
fn minari_frames_are_read_and_jpeg_is_refused() {
    let minari = Minari::open(data("minari-frames")).unwrap();
    let schema = minari.schema(Cast::Widen).unwrap();
    assert_eq!(schema, Schema::transition((Dtype::U8, &[32, 33]), (Dtype::I64, &[])).unwrap());
    let (replay, _) = import(&minari, &schema, 1, Cast::Widen);
    assert_eq!(rows(&replay)[2][4], bytes(0, 3, Dtype::U8, 32 * 33));
    let text = Minari::open(data("minari-jpeg")).unwrap().schema(Cast::Widen).unwrap_err().to_string();
    assert!(text.contains("jpeg_encoding=False"), "{text}");
    let error = Minari::open(data("nowhere")).unwrap_err();
    assert!(matches!(error, DataError::Io { .. }), "{error}");
}

/// The first episode's file without metadata, as Minari kept it before version 0.5; and metadata that promise more.
#[test]
fn minari_metadata_may_be_missing_and_must_not_be_wrong() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("minari-metadata");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let whole = data("minari-box/data");
    std::fs::copy(whole.join("main_data.hdf5"), folder.join("main_data.hdf5")).unwrap();
    let minari = Minari::open(&folder).unwrap();
    let schema = minari.schema(Cast::Widen).unwrap();
    assert_eq!(minari.total_episodes(), 2);
    assert!(minari.total_steps().unwrap_err().to_string().contains("total_steps"));
    let (replay, imported) = import(&minari, &schema, 1, Cast::Widen);
    assert_eq!((replay.len(), imported.episodes), (7, 2));

    let metadata = std::fs::read_to_string(whole.join("metadata.json")).unwrap();
    for (wrong, words) in [
        (metadata.replace("\"total_episodes\": 2", "\"total_episodes\": 3"), "episode_2"),
        (metadata.replace("hdf5", "parquet"), "'parquet'"),
        (metadata.replace("hdf5", "arrow"), "No such file"),
        (metadata.replace('}', ""), "metadata.json"),
    ] {
        std::fs::write(folder.join("metadata.json"), &wrong).unwrap();
        let replay = buffer(&schema);
        let mut n_step = NStep::new(2, 0.5, &schema).unwrap();
        let error = Minari::open(&folder)
            .and_then(|minari| minari.import(&mut n_step, &mut replay.writer(), Cast::Widen))
            .unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!((replay.inserted(), n_step.open_steps()), (0, 0));
    }
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
