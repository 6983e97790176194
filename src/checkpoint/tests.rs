use super::*;
use proptest::prelude::*;
use rl_minibatch::{scalar, scope, slice, value};
use std::process::{Command, Stdio};

/// A little of everything that a run has.
#[derive(Clone, Debug, PartialEq)]
struct State {
    weights: Vec<f32>,
    moments: Vec<f64>,
    pixels: Vec<u8>,
    actions: Vec<i64>,
    steps: u64,
    noise: Vec<u8>,
    queue: Vec<(u32, String)>,
}

impl State {
    fn new(seed: u64) -> Self {
        State {
            weights: (0..6).map(|i| seed as f32 + i as f32 / 7.0).collect(),
            moments: vec![0.5; 3],
            pixels: vec![7, 8, 9],
            actions: vec![-1, 2],
            steps: seed,
            noise: vec![1; 4],
            queue: vec![(3, "three".to_string())],
        }
    }

    /// Room of the right sizes, with nothing of the state in it.
    fn room(&self) -> Self {
        State {
            weights: vec![0.0; self.weights.len()],
            moments: vec![0.0; self.moments.len()],
            pixels: vec![0; self.pixels.len()],
            actions: vec![0; self.actions.len()],
            steps: 0,
            noise: Vec::new(),
            queue: Vec::new(),
        }
    }

    fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        scalar(visitor, "steps", &mut self.steps)?;
        scope(visitor, "policy", |visitor| {
            scope(visitor, "layer0", |visitor| {
                let shape = [self.weights.len() / 2, 2];
                let bytes = bytemuck::cast_slice_mut(&mut self.weights);
                visitor.array("weight", Dtype::F32, &shape, bytes)
            })?;
            slice(visitor, "moments", &mut self.moments)
        })?;
        slice(visitor, "pixels", &mut self.pixels)?;
        slice(visitor, "actions", &mut self.actions)?;
        visitor.bytes("noise", &mut self.noise)?;
        value(visitor, "queue", &mut self.queue)
    }

    fn save(&self, path: &Path) -> Result<(), CheckpointError> {
        save(path, &meta(), |visitor| self.clone().visit(visitor))
    }
}

fn meta() -> Meta {
    Meta { algo: "dqn".to_string(), env: "CartPole-v1".to_string(), config: "gamma = 0.99\n".to_string() }
}

/// A folder with one checkpoint in it.
fn saved() -> (tempfile::TempDir, PathBuf, State) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("latest.safetensors");
    let state = State::new(4);
    state.save(&path).expect("saved");
    (folder, path, state)
}

fn load(path: &Path, like: &State) -> Result<State, CheckpointError> {
    let mut state = like.room();
    open(path)?.load(|visitor| state.visit(visitor))?;
    Ok(state)
}

fn file_names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn assert_one_line(error: &CheckpointError, path: &Path) {
    let text = error.to_string();
    assert!(!text.contains('\n') && text.contains(&*path.to_string_lossy()), "{text}");
}

#[test]
fn what_is_saved_is_loaded() {
    let (_folder, path, state) = saved();
    assert_eq!(load(&path, &state).expect("loads"), state);
    assert_eq!(*open(&path).expect("opens").meta(), meta());
}

#[test]
fn any_reader_of_safetensors_reads_it() {
    let (_folder, path, state) = saved();
    let file = std::fs::read(&path).expect("reads");
    let tensors = safetensors::SafeTensors::deserialize(&file).expect("a safetensors file");
    let weight = tensors.tensor("policy.layer0.weight").expect("the weight");
    assert_eq!(weight.shape(), [3, 2]);
    assert_eq!(weight.data(), bytemuck::cast_slice::<f32, u8>(&state.weights));
    for (name, tensor) in tensors.iter() {
        let start = tensor.data().as_ptr() as usize - file.as_ptr() as usize;
        assert_eq!(start % (tensor.dtype().bitsize() / 8), 0, "{name} is not aligned");
    }
}

#[test]
fn the_same_state_gives_the_same_bytes() {
    let (folder, path, state) = saved();
    let again = folder.path().join("again");
    save(&again, &meta(), |visitor| {
        // In another order: it is the names that count.
        let mut state = state.clone();
        value(visitor, "queue", &mut state.queue)?;
        visitor.bytes("noise", &mut state.noise)?;
        slice(visitor, "actions", &mut state.actions)?;
        slice(visitor, "pixels", &mut state.pixels)?;
        scope(visitor, "policy", |visitor| {
            slice(visitor, "moments", &mut state.moments)?;
            let bytes = bytemuck::cast_slice_mut(&mut state.weights);
            visitor.array("layer0.weight", Dtype::F32, &[3, 2], bytes)
        })?;
        scalar(visitor, "steps", &mut state.steps)
    })
    .expect("saved");
    assert!(std::fs::read(path).expect("reads") == std::fs::read(again).expect("reads"));
}

#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    let (_folder, path, _) = saved();
    let whole = std::fs::read(&path).expect("reads");
    for position in 0..whole.len() {
        for mask in [0x01, 0x02, 0x10, 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[position] ^= mask;
            std::fs::write(&path, damaged).expect("writes");
            let error = open(&path).expect_err("a damaged byte passed");
            assert!(error.is_users_mistake(), "{error}");
            assert_one_line(&error, &path);
        }
    }
}

#[test]
fn a_file_cut_at_any_length_is_noticed() {
    let (_folder, path, _) = saved();
    let whole = std::fs::read(&path).expect("reads");
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).expect("writes");
        let error = open(&path).expect_err("a short file passed");
        assert!(
            matches!(error, CheckpointError::Truncated { found, .. } if found == length as u64),
            "{error}"
        );
        assert_one_line(&error, &path);
    }
    let mut longer = whole;
    longer.push(0);
    std::fs::write(&path, longer).expect("writes");
    assert!(open(&path).expect_err("a long file passed").to_string().contains("behind its end"));
}

#[test]
fn another_version_is_named() {
    let (_folder, path, _) = saved();
    let mut file = std::fs::read(&path).expect("reads");
    let at = file.windows(FORMAT.len()).position(|bytes| bytes == FORMAT.as_bytes()).expect("the format");
    file[at + FORMAT.len() - 1] = b'7';
    std::fs::write(&path, file).expect("writes");
    let error = open(&path).expect_err("another version passed");
    assert!(matches!(&error, CheckpointError::Version { found, .. } if found == "rl-train 7"), "{error}");
    assert_one_line(&error, &path);
    assert!(error.is_users_mistake());
}

#[test]
fn what_is_no_checkpoint_is_refused() {
    let (folder, path, _) = saved();
    let missing = folder.path().join("nothing");
    assert!(matches!(open(&missing), Err(CheckpointError::Missing { .. })));
    assert!(matches!(open(folder.path()), Err(CheckpointError::Foreign { .. })));
    let none: [(&str, safetensors::tensor::TensorView<'_>); 0] = [];
    std::fs::write(&path, safetensors::serialize(none, None).expect("serializes")).expect("writes");
    assert!(matches!(open(&path), Err(CheckpointError::Foreign { .. })));
    std::fs::write(&path, "gamma = 0.99\nlearning_rate = 1e-3\n").expect("writes");
    assert!(matches!(open(&path), Err(CheckpointError::Corrupted { .. })));
}

#[test]
fn another_algorithm_or_environment_is_named() {
    let (_folder, path, _) = saved();
    let checkpoint = open(&path).expect("opens");
    checkpoint.expect("dqn", "CartPole-v1").expect("fits");
    for (algo, env, names) in
        [("ddpg", "CartPole-v1", ["ddpg", "dqn"]), ("dqn", "Acrobot-v1", ["Acrobot-v1", "CartPole-v1"])]
    {
        let error = checkpoint.expect(algo, env).expect_err("does not fit");
        assert!(names.iter().all(|name| error.to_string().contains(name)), "{error}");
        assert!(error.is_users_mistake());
    }
}

#[test]
fn state_that_does_not_fit_is_named() {
    let (_folder, path, state) = saved();
    let checkpoint = open(&path).expect("opens");

    let mut missing = 0_u64;
    let error = checkpoint.load(|visitor| scope(visitor, "policy", |v| scalar(v, "beta", &mut missing)));
    assert!(error.expect_err("missing").to_string().contains("'policy.beta' is missing"));

    for wrong in
        [State { actions: vec![0; 3], ..state.room() }, State { weights: vec![0.0; 4], ..state.room() }]
    {
        let mut wrong = wrong;
        let error = checkpoint.load(|visitor| wrong.visit(visitor)).expect_err("another shape");
        assert!(
            matches!(&error, CheckpointError::State { source: StateError::Mismatch { .. }, .. }),
            "{error}"
        );
    }
    let mut dtype = vec![0_i32; 6];
    let error = checkpoint.load(|visitor| slice(visitor, "policy.moments", &mut dtype)).expect_err("dtype");
    assert!(error.to_string().contains("should be i32 [6] and is f64 [3]"), "{error}");
    let mut flat = vec![0.0_f32; 6];
    let error =
        checkpoint.load(|visitor| slice(visitor, "policy.layer0.weight", &mut flat)).expect_err("shape");
    assert!(error.to_string().contains("should be f32 [6] and is f32 [3, 2]"), "{error}");
    let mut bytes = Vec::new();
    checkpoint.load(|visitor| visitor.bytes("actions", &mut bytes)).expect_err("an array is no opaque bytes");

    let mut steps = 0_u64;
    let left = checkpoint.load_part(|visitor| scalar(visitor, "steps", &mut steps)).expect("loads");
    assert_eq!(steps, state.steps);
    assert_eq!(left, ["actions", "noise", "pixels", "policy.layer0.weight", "policy.moments", "queue"]);
    let error = checkpoint.load(|visitor| scalar(visitor, "steps", &mut steps)).expect_err("leftovers");
    assert!(error.to_string().contains("'actions', 'noise', 'pixels', and 3 more"), "{error}");
}

#[test]
fn two_pieces_of_one_name_are_not_saved() {
    let (folder, path, state) = saved();
    for names in [["a", "a"], ["b", CHECKSUM], ["c", "__metadata__"]] {
        let error =
            save(&path, &meta(), |visitor| names.iter().try_for_each(|n| scalar(visitor, n, &mut 1_u64)));
        assert!(!error.expect_err("one name twice").is_users_mistake());
    }
    assert_eq!(load(&path, &state).expect("the earlier one"), state);
    assert_eq!(file_names(folder.path()), ["latest.safetensors"]);
}

/// Takes a number of bytes and then no more, as a disk that fills up.
struct Filling<'a> {
    disk: &'a mut dyn Write,
    room: usize,
}

impl Write for Filling<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let taken = self.disk.write(&bytes[..bytes.len().min(self.room)])?;
        self.room -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.disk.flush()
    }
}

#[test]
fn a_disk_that_fills_up_leaves_the_earlier_checkpoint() {
    let (folder, path, state) = saved();
    let size_bytes = std::fs::metadata(&path).expect("a file").len() as usize;
    let next = MemoryState::save(|v| State::new(5).visit(v)).expect("collects");
    for room in 0..size_bytes {
        let error = write_to_disk(&path, |out| write(&meta(), &next, &mut Filling { disk: out, room }));
        assert_eq!(error.expect_err("no room").kind(), io::ErrorKind::StorageFull);
        assert_eq!(file_names(folder.path()), ["latest.safetensors"]);
    }
    assert_eq!(load(&path, &state).expect("the earlier one"), state);
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    let (folder, _, state) = saved();
    let error = state.save(&folder.path().join("nowhere").join("latest")).expect_err("no folder");
    assert!(!error.is_users_mistake());
    assert_one_line(&error, &folder.path().join("nowhere").join("latest"));
}

// The following run a part of themselves in a process of its own: the variable tells which, and where to save.
const CHILD: &str = "RL_TRAIN_TEST_CHECKPOINT";

/// A run of the one test `name` in a process of its own, behind a line of shell.
#[cfg(unix)]
fn child(name: &str, path: &Path, shell: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{shell} exec \"$0\" \"$@\"")]);
    command.arg(std::env::current_exe().expect("the test program"));
    // The names of tests begin with the modules that lead here.
    let module = module_path!().split_once("::").expect("a module").1;
    command.args(["--exact", &format!("{module}::{name}"), "--nocapture"]);
    command.env(CHILD, path).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// More than a megabyte, so that it does not fit under the limit set below.
fn large(seed: u64) -> State {
    State { noise: vec![seed as u8; 3 << 20], ..State::new(seed) }
}

#[test]
fn child_that_saves_once() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let error = large(5).save(Path::new(&path)).expect_err("the file may not grow so large");
    assert!(!error.is_users_mistake());
    assert_eq!(file_names(Path::new(&path).parent().expect("a folder")), ["latest.safetensors"]);
    // Something that the parent can tell from a failed assertion and from a test that never ran.
    std::process::exit(86);
}

#[test]
#[cfg(unix)]
fn a_write_that_the_system_refuses_leaves_the_earlier_checkpoint() {
    let (folder, path, state) = saved();
    // The limit on a file's size holds for everyone, root too; with its signal ignored, the write fails.
    let status = child("child_that_saves_once", &path, "trap '' XFSZ; ulimit -f 1024;").status();
    assert_eq!(status.expect("runs").code(), Some(86));
    assert_eq!(load(&path, &state).expect("the earlier one"), state);
    assert_eq!(file_names(folder.path()), ["latest.safetensors"]);
}

#[test]
fn child_that_saves_again_and_again() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    for seed in 0.. {
        large(seed).save(Path::new(&path)).expect("saved");
    }
}

#[test]
#[cfg(unix)]
fn a_process_killed_while_it_saves_leaves_a_checkpoint_that_loads() {
    let (folder, path, state) = saved();
    for round in 0..10 {
        state.save(&path).expect("saved");
        let mut process = child("child_that_saves_again_and_again", &path, "").spawn().expect("starts");
        let started = std::time::Instant::now();
        while std::fs::metadata(&path).expect("a file").len() < 1 << 20 {
            assert!(started.elapsed().as_secs() < 60, "the child saves nothing");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        std::thread::sleep(std::time::Duration::from_micros(1700 * round));
        process.kill().expect("killed");
        process.wait().expect("waits");
        let loaded = load(&path, &state).expect("loads");
        assert!(loaded == large(loaded.steps));
    }
    // A certain leftover, beside those that chance may have left.
    std::fs::write(folder.path().join(".latest.safetensors.x1y2z3.tmp"), "half").expect("writes");
    std::fs::write(folder.path().join(".best.safetensors.x1y2z3.tmp"), "another's").expect("writes");
    state.save(&path).expect("saved");
    assert_eq!(file_names(folder.path()), [".best.safetensors.x1y2z3.tmp", "latest.safetensors"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_state_comes_back(
        weights in prop::collection::vec(any::<[f32; 2]>(), 0..20),
        moments in prop::collection::vec(prop::num::f64::NORMAL, 0..20),
        pixels in prop::collection::vec(any::<u8>(), 0..20),
        actions in prop::collection::vec(any::<i64>(), 0..20),
        steps in any::<u64>(),
        noise in prop::collection::vec(any::<u8>(), 0..50),
        queue in prop::collection::vec((any::<u32>(), ".{0,8}"), 0..5),
        config in ".{0,40}",
    ) {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("best");
        let state = State { weights: weights.concat(), moments, pixels, actions, steps, noise, queue };
        let meta = Meta { config, ..meta() };
        save(&path, &meta, |visitor| state.clone().visit(visitor))?;
        let mut loaded = state.room();
        let checkpoint = open(&path)?;
        checkpoint.load(|visitor| loaded.visit(visitor))?;
        prop_assert_eq!(loaded, state);
        prop_assert_eq!(checkpoint.meta(), &meta);
    }
}
