//! Steps in the layout of D4RL, and those that Minari has written (`tests/golden/data.py`, through `make golden`), become the rows
//! that the definition of n-step returns asks for.

mod offline;

use offline::{NextObs, Taken, buffer, bytes, compared, data, folded, rows};
use rl_replay::data::minari::Minari;
use rl_replay::data::npz::Npz;
use rl_replay::data::{Cast, DataError, Imported, StepNames};
use rl_replay::{Dtype, NStep, Replay, Schema};
use std::path::PathBuf;

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
