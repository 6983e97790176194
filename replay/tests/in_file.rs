//! A buffer in a file and a plain model, driven by the same random operations: closed and opened again, and left as by a
//! kill, which is a copy of the files at a moment when nobody writes. And what is refused.

use proptest::prelude::*;
use rand::SeedableRng;
use rl_replay::{
    Batch, BufferFileError, Drawn, Dtype, Field, MemoryState, Prioritized, Replay, ReplayError, Rng, Schema,
    StateError, StateVisitor,
};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Slots of 64 bytes, or of more than a page.
fn schema(large: bool) -> Schema {
    let pixels = if large { 5_000 } else { 3 };
    Schema::new(vec![Field::new("pixels", Dtype::U8, [pixels]), Field::new("id", Dtype::I64, [])]).unwrap()
}

fn folder() -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("file-");
    builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir()).unwrap()
}

#[derive(Clone, Debug)]
enum Op {
    PushRows(u64),
    Draw(usize),
    Update(Vec<(u64, f32)>),
    Flush,
    Reopen,
    Kill,
    SaveAndLoad,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (0u64..40).prop_map(Op::PushRows),
        3 => (1usize..20).prop_map(Op::Draw),
        3 => prop::collection::vec((1u64..60, 0.0f32..10.0), 0..12).prop_map(Op::Update),
        2 => Just(Op::Flush),
        2 => Just(Op::Reopen),
        3 => Just(Op::Kill),
        1 => Just(Op::SaveAndLoad),
    ];
    prop::collection::vec(op, 1..50)
}

/// What the buffer should be. Rows are told apart by their ids, for keys of lost rows come again.
#[derive(Clone, Default)]
struct Model {
    ids: Vec<i64>,
    /// By key; of live rows only.
    priorities: Vec<f64>,
    largest: f64,
}

impl Model {
    fn oldest(&self, capacity: usize) -> usize {
        self.ids.len().saturating_sub(capacity)
    }
}

struct Case {
    folder: tempfile::TempDir,
    path: PathBuf,
    copies: usize,
    schema: Schema,
    capacity: usize,
    reserve: usize,
    settings: Option<Prioritized>,
}

impl Case {
    fn build(&self) -> Replay {
        let builder = Replay::builder(self.schema.clone()).capacity(self.capacity).reserve(self.reserve);
        let builder = builder.in_file(&self.path);
        match self.settings {
            Some(settings) => builder.prioritized(settings),
            None => builder,
        }
        .build()
        .unwrap()
    }

    /// What a process that is killed now leaves behind.
    fn kill(&mut self) {
        self.copies += 1;
        let path = self.folder.path().join(format!("buffer{}", self.copies));
        copy(&self.path, &path);
        self.path = path;
    }
}

fn beside(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.sampler", path.display()))
}

fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap();
    let _ = std::fs::copy(beside(from), beside(to));
}

fn check_rows(replay: &Replay, model: &Model) {
    let keys: Vec<u64> = replay.live().collect();
    if keys.is_empty() {
        return;
    }
    let mut batch = Batch::new(replay.schema(), keys.len());
    replay.sampler().pin().unwrap().gather(&keys, &mut batch.view_mut()).unwrap();
    let pixels = replay.schema().fields()[0].row_bytes();
    for (row, key) in keys.iter().enumerate() {
        let id = model.ids[*key as usize];
        assert_eq!(batch.typed::<i64>("id").unwrap()[row], id, "row {key}");
        assert!(batch.column(0)[row * pixels..][..pixels].iter().all(|byte| *byte == id as u8), "row {key}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]
    #[test]
    fn the_buffer_does_what_the_model_does(
        large in prop::bool::weighted(0.2),
        capacity in 1usize..50,
        reserve in 1usize..8,
        prioritized: bool,
        ops in ops(),
        seed: u64,
    ) {
        let settings = prioritized.then_some(Prioritized { alpha: 0.5, epsilon: 0.01 });
        let folder = folder();
        let path = folder.path().join("buffer");
        let schema = schema(large);
        let mut case = Case { folder, path, copies: 0, schema: schema.clone(), capacity, reserve, settings };
        let mut replay = case.build();
        let mut model = Model { largest: 1.0, ..Default::default() };
        // As it was flushed last.
        let mut flushed = model.clone();
        let mut next_id = 0i64;
        let mut rng = Rng::seed_from_u64(seed);
        let (mut drawn, mut batch) = (Drawn::default(), Batch::new(&schema, 20));
        for op in ops {
            match op {
                Op::PushRows(count) => {
                    let ids: Vec<i64> = (next_id..next_id + count as i64).collect();
                    next_id += count as i64;
                    let pixels: Vec<u8> =
                        ids.iter().flat_map(|id| vec![*id as u8; schema.fields()[0].row_bytes()]).collect();
                    let columns: [&[u8]; 2] = [&pixels, bytemuck::cast_slice(&ids)];
                    replay.writer().push_rows(count as usize, &columns).unwrap();
                    model.ids.extend(ids);
                    model.priorities.resize(model.ids.len(), model.largest);
                }
                Op::Draw(count) => {
                    let result = replay.sampler().sample_into(&mut rng, count, &mut batch.view_mut(), &mut drawn);
                    if model.ids.is_empty() {
                        prop_assert!(result.is_err());
                        continue;
                    }
                    result.unwrap();
                    let oldest = model.oldest(capacity);
                    let total: f64 = model.priorities[oldest..].iter().sum();
                    let ids = batch.typed::<i64>("id").unwrap();
                    for (place, key) in drawn.rows.iter().enumerate() {
                        prop_assert!((oldest..model.ids.len()).contains(&(*key as usize)));
                        prop_assert_eq!(ids[place], model.ids[*key as usize]);
                        let expected = if prioritized {
                            model.priorities[*key as usize] / total
                        } else {
                            1.0 / (model.ids.len() - oldest) as f64
                        };
                        prop_assert!((drawn.probabilities[place] - expected).abs() <= 1e-9 * expected);
                    }
                }
                Op::Update(updates) => {
                    let Some(settings) = settings else { continue };
                    let end = model.ids.len() as u64;
                    let keys: Vec<u64> = updates.iter().map(|(back, _)| end.saturating_sub(*back)).collect();
                    let magnitudes: Vec<f32> = updates.iter().map(|(_, magnitude)| *magnitude).collect();
                    replay.sampler().update_priorities(&keys, &magnitudes).unwrap();
                    let oldest = model.oldest(capacity) as u64;
                    for (key, magnitude) in keys.iter().zip(magnitudes) {
                        if (oldest..end).contains(key) {
                            let priority = (f64::from(magnitude) + settings.epsilon).powf(settings.alpha);
                            model.priorities[*key as usize] = priority;
                            model.largest = model.largest.max(priority);
                        }
                    }
                }
                Op::Flush => {
                    replay.flush().unwrap();
                    flushed = model.clone();
                }
                Op::Reopen => {
                    drop(replay);
                    replay = case.build();
                    flushed = model.clone();
                    prop_assert_eq!(replay.live(), model.oldest(capacity) as u64..model.ids.len() as u64);
                    check_rows(&replay, &model);
                }
                Op::Kill => {
                    case.kill();
                    drop(replay);
                    replay = case.build();
                    let live = replay.live();
                    let kept = live.end as usize;
                    prop_assert!(kept >= flushed.ids.len(), "flushed {}, kept {}", flushed.ids.len(), kept);
                    prop_assert!(kept <= model.ids.len() && kept + 2 * reserve >= model.ids.len());
                    model.ids.truncate(kept);
                    prop_assert_eq!(live.start as usize, model.oldest(capacity));
                    check_rows(&replay, &model);
                    model.priorities = flushed.priorities.clone();
                    model.largest = flushed.largest;
                    model.priorities.resize(kept, model.largest);
                }
                Op::SaveAndLoad => {
                    // Into another file, whose rows it replaces.
                    let snapshot = case.folder.path().join("snapshot");
                    replay.save(&snapshot).unwrap();
                    let state = MemoryState::save(|v| replay.visit(v)).unwrap();
                    drop(replay);
                    case.copies += 1;
                    case.path = case.folder.path().join(format!("buffer{}", case.copies));
                    replay = case.build();
                    let zeros = schema.fields().iter().map(|field| vec![0; field.row_bytes()]).collect::<Vec<_>>();
                    for _ in 0..seed % 100 {
                        replay.writer().push(&zeros.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
                    }
                    replay.load(&snapshot).unwrap();
                    prop_assert_eq!(MemoryState::save(|v| replay.visit(v)).unwrap(), state);
                    replay.flush().unwrap();
                    flushed = model.clone();
                }
            }
        }
        prop_assert_eq!(replay.live(), model.oldest(capacity) as u64..model.ids.len() as u64);
        check_rows(&replay, &model);
    }
}

fn open(path: &Path, capacity: usize) -> Result<Replay, ReplayError> {
    Replay::builder(schema(false)).capacity(capacity).reserve(4).in_file(path).build()
}

fn push(replay: &Replay, ids: std::ops::Range<i64>) {
    let mut writer = replay.writer();
    for id in ids {
        writer.push(&[&[id as u8; 3], &id.to_ne_bytes()]).unwrap();
    }
}

/// Wants an error with all of `parts`, in one line, and the file as it was.
fn refused(path: &Path, parts: &[&str], build: impl FnOnce() -> Result<Replay, ReplayError>) {
    let before = std::fs::read(path).ok();
    let error = build().map(drop).unwrap_err();
    assert!(matches!(error, ReplayError::File(_)), "{error:?}");
    let message = error.to_string();
    for part in parts.iter().chain(&[path.to_str().unwrap()]) {
        assert!(message.contains(part), "'{message}' lacks '{part}'");
    }
    assert!(!message.contains('\n'), "{message}");
    assert!(std::fs::read(path).ok() == before, "the file was touched: {message}");
}

#[test]
fn the_file_of_another_buffer() {
    let folder = folder();
    let path = folder.path().join("it");
    push(&open(&path, 20).unwrap(), 0..30);
    refused(&path, &["its capacity is 20 and was to be 21"], || open(&path, 21));
    let builder = || Replay::builder(schema(false)).capacity(20).in_file(&path);
    refused(&path, &["its reserve is 4 and was to be 5"], || builder().reserve(5).build());
    refused(&path, &["pixels: u8 [3], id: i64 []", "(pixels: u8 [5000], id: i64 [])"], || {
        Replay::builder(schema(true)).capacity(20).reserve(4).in_file(&path).build()
    });
    assert_eq!(open(&path, 20).unwrap().live(), 10..30);
}

#[test]
fn what_is_no_buffer_file() {
    let folder = folder();
    let path = folder.path().join("it");
    for text in ["", "notes", "rlreplay and so on"] {
        std::fs::write(&path, text).unwrap();
        refused(&path, &["no buffer file"], || open(&path, 20));
    }
    std::fs::write(&path, vec![0; 100_000]).unwrap();
    refused(&path, &["no buffer file"], || open(&path, 20));
    let inside = folder.path().join("missing/it");
    refused(&inside, &["cannot make", "No such file"], || open(&inside, 20));
    let here = folder.path().to_path_buf();
    refused(&here, &["no regular file"], || open(&here, 20));
}

#[test]
fn one_buffer_at_a_time() {
    let folder = folder();
    let path = folder.path().join("it");
    let replay = open(&path, 20).unwrap();
    push(&replay, 0..5);
    let (writer, _reader) = (replay.writer(), replay.sampler());
    refused(&path, &["in use by another buffer"], || open(&path, 20));
    drop((replay, _reader));
    refused(&path, &["in use by another buffer"], || open(&path, 20));
    drop(writer);
    assert_eq!(open(&path, 20).unwrap().live(), 0..5);
    // Made by many at once: one of them has it.
    let path = folder.path().join("other");
    let opened = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| open(&path, 20))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let refusals = opened.iter().filter_map(|opened| opened.as_ref().err());
    let in_use = |error: &ReplayError| matches!(error, ReplayError::File(BufferFileError::InUse { .. }));
    let refusals: Vec<_> = refusals.collect();
    assert!(refusals.len() == 7 && refusals.iter().all(|error| in_use(error)), "{refusals:?}");
    drop(opened);
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "no temporary file remains: {names:?}");
}

#[test]
fn a_file_cut_short_or_grown() {
    let folder = folder();
    let path = folder.path().join("it");
    push(&open(&path, 20).unwrap(), 0..30);
    let good = std::fs::read(&path).unwrap();
    for length in [8, 15, 100, 4095, 4096, 4100, 65_536, good.len() - 1] {
        std::fs::write(&path, &good[..length]).unwrap();
        refused(&path, &["damaged"], || open(&path, 20));
    }
    std::fs::write(&path, [&good[..], &[0]].concat()).unwrap();
    refused(&path, &["damaged"], || open(&path, 20));
    std::fs::write(&path, &good).unwrap();
    assert_eq!(open(&path, 20).unwrap().live(), 10..30);
}

#[test]
fn a_sampler_s_state_that_does_not_fit() {
    let folder = folder();
    let path = folder.path().join("it");
    let builder = || Replay::builder(schema(false)).capacity(20).in_file(&path);
    let settings = Prioritized { alpha: 1.0, epsilon: 0.0 };
    let replay = builder().prioritized(settings).build().unwrap();
    push(&replay, 0..30);
    replay.sampler().update_priorities(&[15], &[7.0]).unwrap();
    drop(replay);
    // Of another sampler, or damaged.
    refused(&path, &["sampler", "without that file every row gets the same priority"], || {
        builder().rank_based(0.7).build()
    });
    let good = std::fs::read(beside(&path)).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    std::fs::write(beside(&path), bad).unwrap();
    refused(&path, &["damaged"], || builder().prioritized(settings).build());
    std::fs::write(beside(&path), good).unwrap();
    let priorities = |replay: &Replay| {
        let state = MemoryState::save(|v| replay.visit(v)).unwrap();
        let Some(rl_replay::Piece::Array { bytes, .. }) = state.get("sampler.priorities") else { panic!() };
        bytes.as_chunks::<8>().0.iter().map(|bytes| f64::from_ne_bytes(*bytes)).collect::<Vec<_>>()
    };
    let replay = builder().prioritized(settings).build().unwrap();
    assert_eq!(priorities(&replay)[5], 7.0);
    // Uniform in between, with rows that the priorities' file knows nothing of.
    drop(replay);
    push(&builder().build().unwrap(), 30..32);
    let replay = builder().prioritized(settings).build().unwrap();
    let expected: Vec<f64> = (12..32).map(|key| if key == 15 || key >= 30 { 7.0 } else { 1.0 }).collect();
    assert_eq!(priorities(&replay), expected);
    // Another sampler goes on without it.
    drop(replay);
    std::fs::remove_file(beside(&path)).unwrap();
    assert_eq!(builder().rank_based(0.7).build().unwrap().live(), 12..32);
}

/// Gives back a state, and copies the buffer's file when the last of the rows come.
struct CopyMeanwhile<'a> {
    inner: &'a mut dyn StateVisitor,
    from: &'a Path,
    to: &'a Path,
}

impl StateVisitor for CopyMeanwhile<'_> {
    fn loading(&self) -> bool {
        true
    }

    fn enter(&mut self, name: &str) {
        self.inner.enter(name);
    }

    fn leave(&mut self) {
        self.inner.leave();
    }

    fn array(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        bytes: &mut [u8],
    ) -> Result<(), StateError> {
        copy(self.from, self.to);
        self.inner.array(name, dtype, shape, bytes)
    }

    fn bytes(&mut self, name: &str, value: &mut Vec<u8>) -> Result<(), StateError> {
        self.inner.bytes(name, value)
    }
}

#[test]
fn a_state_that_is_loaded_replaces_the_file() {
    let folder = folder();
    let [path, killed, other] = ["it", "killed", "other"].map(|name| folder.path().join(name));
    let saved = open(&other, 20).unwrap();
    push(&saved, 0..7);
    let state = MemoryState::save(|v| saved.visit(v)).unwrap();
    for before in [0, 50] {
        let replay = open(&path, 20).unwrap();
        push(&replay, 0..before);
        replay.flush().unwrap();
        // Killed while it is read: as before, for the slots that are written hold no rows.
        state.load(|inner| replay.visit(&mut CopyMeanwhile { inner, from: &path, to: &killed })).unwrap();
        let live = open(&killed, 20).unwrap().live();
        assert_eq!(live.end - live.start, if before == 0 { 0 } else { 20 });
        // Killed right after it: as loaded, and on from there.
        std::fs::remove_file(&killed).unwrap();
        copy(&path, &killed);
        let after = open(&killed, 20).unwrap();
        assert_eq!(after.live(), 0..7);
        push(&after, 7..60);
        drop(after);
        let after = open(&killed, 20).unwrap();
        assert_eq!(after.live(), 40..60);
        check_rows(&after, &Model { ids: (0..60).collect(), ..Default::default() });
        // A state that is refused changes nothing.
        let mut bad = state.clone();
        bad.remove("stale").unwrap();
        bad.load(|v| replay.visit(v)).unwrap_err();
        assert_eq!(replay.live(), 0..7);
        push(&replay, 7..9);
        drop(replay);
        assert_eq!(open(&path, 20).unwrap().live(), 0..9);
        for path in [&path, &killed] {
            std::fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn more_than_the_disk_has() {
    let folder = folder();
    let path = folder.path().join("it");
    for capacity in [1 << 44, usize::MAX / 8, usize::MAX] {
        refused(&path, &["needs", "bytes and", "are free there"], || {
            Replay::builder(schema(false)).capacity(capacity).reserve(4).in_file(&path).build()
        });
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// No file may be larger than a limit. Going beyond it would end the process with a signal, so it is seen before.
#[test]
#[cfg(target_os = "linux")]
fn a_limit_on_the_size_of_files() {
    let folder = folder();
    let path = folder.path().join("it");
    let script = "ulimit -f 100; exec \"$0\" --exact makes_too_large_a_file --ignored --nocapture";
    let child = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env("BUFFER_PATH", &path)
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && output.contains("1 passed"), "{}: {output}", child.status);
    assert!(output.contains("was refused: the buffer file"), "{output}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
#[ignore = "the child process of the test above"]
fn makes_too_large_a_file() {
    let Some(path) = std::env::var_os("BUFFER_PATH") else { return };
    let error = open(Path::new(&path), 100_000).unwrap_err();
    assert!(matches!(error, ReplayError::File(BufferFileError::NoRoom { .. })), "{error}");
    println!("was refused: {error}");
}

#[test]
fn memory_is_asked_for_the_sampler_alone() {
    let folder = folder();
    let builder = || Replay::builder(schema(false)).capacity(1 << 16).reserve(4);
    let in_file = || builder().in_file(folder.path().join("it"));
    assert_eq!(in_file().memory_bytes(), 8 * 8);
    let settings = Prioritized::default();
    let rows = builder().memory_bytes() - in_file().memory_bytes();
    assert_eq!(
        builder().prioritized(settings).memory_bytes() - rows,
        in_file().prioritized(settings).memory_bytes()
    );
    assert_eq!(in_file().build().unwrap().memory_bytes() as u128, rows);
    // What is left by a closed buffer of rows in memory needs no flush, and flushing it is no error.
    builder().build().unwrap().flush().unwrap();
}
