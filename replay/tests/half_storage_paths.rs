//! Columns held as 16-bit floats, by every way in and out. A buffer that rounds is compared with its twin, a plain one that
//! is given values rounded before: nothing else may differ.

use half::{bf16, f16};
use rand::{RngExt, SeedableRng};
use rl_replay::{
    Batch, Drawn, Dtype, EpisodeWriter, Field, Hindsight, HindsightSpec, MemoryState, Mixed, Mixture, NStep,
    Prioritized, Replay, ReplayError, Rng, Schema, SequenceEnd, SequenceSpec, Sequences, SnapshotOptions,
    StateError, Step,
};

type Stores = [(&'static str, Dtype)];

const OBS: &Stores = &[("obs", Dtype::F16), ("next_obs", Dtype::Bf16)];

fn build(schema: &Schema, capacity: usize, stores: &Stores) -> Replay {
    let builder = Replay::builder(schema.clone()).capacity(capacity).reserve(20);
    let builder = stores.iter().fold(builder, |builder, (column, dtype)| builder.store(column, *dtype));
    builder.prioritized(Prioritized::default()).build().unwrap()
}

fn transition() -> Schema {
    Schema::transition((Dtype::F32, &[5]), (Dtype::F32, &[2])).unwrap()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

fn random(rng: &mut Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| (rng.random::<f32>() - 0.5) * 1e4).collect()
}

/// The cell as it is held.
fn rounded(cell: &[u8], dtype: Option<Dtype>) -> Vec<u8> {
    let floats = cell.as_chunks::<4>().0.iter().map(|bytes| f32::from_ne_bytes(*bytes));
    let floats = floats.map(|value| match dtype {
        None => value,
        Some(Dtype::F16) => f16::from_f32_const(value).to_f32_const(),
        Some(_) => bf16::from_f32_const(value).to_f32_const(),
    });
    bytes(&floats.collect::<Vec<f32>>())
}

/// A step's cells, rounded where `stores` says so.
fn rounded_step(schema: &Schema, cells: &[Vec<u8>], stores: &Stores) -> Vec<Vec<u8>> {
    let of = |name: &str| stores.iter().find(|(column, _)| *column == name).map(|(_, dtype)| *dtype);
    let pairs = schema.fields().iter().zip(cells);
    pairs
        .map(|(f, cell)| if f.dtype == Dtype::F32 { rounded(cell, of(&f.name)) } else { cell.clone() })
        .collect()
}

fn slices(cells: &[Vec<u8>]) -> Vec<&[u8]> {
    cells.iter().map(Vec::as_slice).collect()
}

fn state(replay: &Replay) -> MemoryState {
    MemoryState::save(|v| replay.visit(v)).unwrap()
}

/// What a number of draws give.
fn draws(replay: &Replay, seed: u64) -> Vec<Vec<u8>> {
    let (mut reader, mut rng) = (replay.sampler(), Rng::seed_from_u64(seed));
    let (mut batch, mut drawn) = (Batch::new(replay.schema(), 40), Drawn::default());
    reader.sample_into(&mut rng, 40, &mut batch.view_mut(), &mut drawn).unwrap();
    (0..replay.schema().fields().len()).map(|position| batch.column(position).to_vec()).collect()
}

fn alike(rounding: &Replay, plain: &Replay) {
    assert!(rounding.memory_bytes() < plain.memory_bytes());
    assert!(plain.len() > 30);
    assert!(state(rounding) == state(plain));
    assert!(draws(rounding, 7) == draws(plain, 7));
}

#[test]
fn n_step_returns() {
    let stores: &Stores = &[OBS, &[("reward", Dtype::F16)]].concat();
    let (rounding, plain) = (build(&transition(), 100, stores), build(&transition(), 100, &[]));
    let mut folders = [(); 2].map(|()| NStep::new(3, 0.9, &transition()).unwrap());
    let mut rng = Rng::seed_from_u64(1);
    for t in 0..150 {
        let [obs, next_obs] = [(); 2].map(|()| bytes(&random(&mut rng, 5)));
        let (action, reward) = (bytes(&random(&mut rng, 2)), rng.random::<f32>());
        let push = |folder: &mut NStep, replay: &Replay, obs: &[u8], next_obs: &[u8]| {
            let (terminated, truncated) = (t % 11 == 0, t % 17 == 0);
            let step = Step { obs, action: &action, reward, next_obs, terminated, truncated };
            folder.push(step, &mut replay.writer()).unwrap();
        };
        push(&mut folders[0], &rounding, &obs, &next_obs);
        let (obs, next_obs) = (rounded(&obs, Some(Dtype::F16)), rounded(&next_obs, Some(Dtype::Bf16)));
        push(&mut folders[1], &plain, &obs, &next_obs);
    }
    // The plain twin's returns are rounded here.
    let (of_rounding, mut of_plain) = (draws(&rounding, 3), draws(&plain, 3));
    assert_ne!(of_rounding[2], of_plain[2]);
    of_plain[2] = rounded(&of_plain[2], Some(Dtype::F16));
    assert!(of_rounding == of_plain);
}

#[test]
fn sequences() {
    let steps = Schema::new(vec![
        Field::new("hidden", Dtype::F32, [4]),
        Field::new("obs", Dtype::F32, [3]),
        Field::new("action", Dtype::U8, []),
    ])
    .unwrap();
    let spec = SequenceSpec { length: 7, overlap: 3, burn_in: 1, ends: SequenceEnd::Pad };
    let schema = Sequences::schema(spec, &steps, &["hidden"]).unwrap();
    let stores: &Stores = &[("hidden", Dtype::Bf16), ("obs", Dtype::F16), ("mask", Dtype::F16)];
    let (rounding, plain) = (build(&schema, 50, stores), build(&schema, 50, &[]));
    let mut cutters = [(); 2].map(|()| Sequences::new(spec, &steps, &["hidden"]).unwrap());
    let mut rng = Rng::seed_from_u64(2);
    for t in 0..400 {
        let cells = [bytes(&random(&mut rng, 4)), bytes(&random(&mut rng, 3)), vec![t as u8]];
        cutters[0].push(&slices(&cells), t % 23 == 0, &mut rounding.writer()).unwrap();
        let cells = rounded_step(&steps, &cells, stores);
        cutters[1].push(&slices(&cells), t % 23 == 0, &mut plain.writer()).unwrap();
    }
    alike(&rounding, &plain);
    // A step that does not fit changes nothing, and the next one goes on.
    let before = state(&rounding);
    let open = cutters[0].open_steps();
    let cells = [bytes(&[0.0; 4]), bytes(&[0.0, 1e5, 0.0]), vec![1]];
    let error = cutters[0].push(&slices(&cells), true, &mut rounding.writer()).unwrap_err();
    assert!(matches!(error, ReplayError::OutOfRange { row: 0, element: 1, .. }), "{error}");
    assert_eq!((state(&rounding), cutters[0].open_steps()), (before, open));
}

fn goal_steps() -> Schema {
    let floats = |name: &str, shape: &[usize]| Field::new(name, Dtype::F32, shape);
    Schema::new(vec![
        floats("obs", &[9]),
        floats("reward", &[]),
        floats("desired_goal", &[3]),
        floats("next_achieved_goal", &[3]),
    ])
    .unwrap()
}

#[test]
fn episodes_and_goals() {
    let schema = EpisodeWriter::schema(&goal_steps()).unwrap();
    let stores: &Stores =
        &[("obs", Dtype::F16), ("desired_goal", Dtype::F16), ("next_achieved_goal", Dtype::F16)];
    let twins = [build(&schema, 200, stores), build(&schema, 200, &[])];
    let mut writers = twins.each_ref().map(|replay| EpisodeWriter::new(replay, 12).unwrap());
    let mut rng = Rng::seed_from_u64(3);
    for t in 1..500 {
        let cells: Vec<Vec<u8>> = [9, 1, 3, 3].iter().map(|count| bytes(&random(&mut rng, *count))).collect();
        writers[0].push(&slices(&cells), t % 9 == 0).unwrap();
        writers[1].push(&slices(&rounded_step(&goal_steps(), &cells, stores)), t % 9 == 0).unwrap();
    }
    let [rounding, plain] = &twins;
    alike(rounding, plain);
    let relabelled = twins.each_ref().map(|replay| {
        let reward = |achieved: &[f32], desired: &[f32]| achieved[0] - 2.0 * desired[1];
        let mut hindsight = Hindsight::new(HindsightSpec::default(), replay.schema(), reward).unwrap();
        let (mut batch, mut drawn) = (Batch::new(replay.schema(), 64), Drawn::default());
        let mut rng = Rng::seed_from_u64(4);
        let count = hindsight
            .sample_into(&mut replay.sampler(), &mut rng, 64, &mut batch.view_mut(), &mut drawn)
            .unwrap();
        assert!(count > 20);
        (0..6).map(|position| batch.column(position).to_vec()).collect::<Vec<_>>()
    });
    assert!(relabelled[0] == relabelled[1]);

    let before = state(rounding);
    let cells = [bytes(&[0.0; 9]), bytes(&[1e9]), bytes(&[0.0, 0.0, -7e4]), bytes(&[0.0; 3])];
    let open = writers[0].open_steps();
    let message = writers[0].push(&slices(&cells), true).unwrap_err().to_string();
    assert!(message.contains("'desired_goal', element 2 is -70000.0"), "{message}");
    assert_eq!((state(rounding), writers[0].open_steps()), (before, open));
}

/// Rows whose values all follow from `x`, some that are rounded.
fn fill(replay: &Replay, rows: usize, x: f32) {
    for row in 0..rows {
        let value = x + row as f32 * 1.000_3;
        let obs = bytes(&[value; 5]);
        replay.writer().push(&[&obs, &bytes(&[1.0; 2]), &bytes(&[value]), &bytes(&[0.9]), &obs]).unwrap();
    }
}

#[test]
fn mixtures_of_buffers_that_hold_rows_differently() {
    let (rounding, plain) = (build(&transition(), 40, OBS), build(&transition(), 40, &[]));
    fill(&rounding, 60, 1.0);
    fill(&plain, 60, 1000.0);
    let mut mixture = Mixture::new([(rounding.sampler(), 1.0), (plain.sampler(), 1.0)]).unwrap();
    let (mut batch, mut mixed) = (Batch::new(&transition(), 30), Mixed::default());
    mixture.sample_into(&mut Rng::seed_from_u64(5), 30, &mut batch.view_mut(), &mut mixed).unwrap();
    for (place, value) in batch.typed::<f32>("reward").unwrap().iter().enumerate() {
        let value = bytes(&[*value; 5]);
        let [obs, next_obs] = [0, 4].map(|position| &batch.column(position)[place * 20..][..20]);
        if mixed.parts()[0].places().contains(&place) {
            assert_eq!(obs, rounded(&value, Some(Dtype::F16)));
            assert_eq!(next_obs, rounded(&value, Some(Dtype::Bf16)));
        } else {
            assert_eq!((obs, next_obs), (&value[..], &value[..]));
        }
    }
    assert_eq!(mixed.parts()[0].places().len(), 15);
}

/// Files hold the schema's own f32. Who loads one rounds by his own types.
#[test]
fn snapshots() {
    let folder = tempfile::Builder::new().prefix("half").tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let options = SnapshotOptions { block_bytes: 300, ..Default::default() };
    let rounding = build(&transition(), 40, OBS);
    fill(&rounding, 30, 1.0);
    rounding.save_with(path("0"), &options).unwrap();
    fill(&rounding, 25, 300.0);
    rounding.save_increment(path("0"), path("1"), &options).unwrap();

    let same = build(&transition(), 40, OBS);
    same.load(path("1")).unwrap();
    assert!(draws(&same, 1) == draws(&rounding, 1));
    let plain = build(&transition(), 40, &[]);
    plain.load(path("1")).unwrap();
    assert_eq!(state(&plain), state(&rounding));
    assert!(draws(&plain, 1) == draws(&rounding, 1));
    // Into a buffer that holds rows already, through one beside it.
    fill(&same, 3, 9.0);
    same.load(path("1")).unwrap();
    assert!(draws(&same, 1) == draws(&rounding, 1));
    let coarser = build(&transition(), 40, &[("obs", Dtype::Bf16)]);
    coarser.load(path("1")).unwrap();
    let (mut expected, got) = (draws(&rounding, 1), draws(&coarser, 1));
    assert_ne!(expected, got);
    expected[0] = rounded(&expected[0], Some(Dtype::Bf16));
    assert!(expected == got);
}

#[test]
fn states_with_values_that_do_not_fit_are_refused() {
    let folder = tempfile::Builder::new().prefix("half").tempdir().unwrap();
    let path = folder.path().join("large");
    let plain = build(&transition(), 60, &[]);
    fill(&plain, 45, 1.0);
    fill(&plain, 1, 65_520.0);
    fill(&plain, 5, 1.0);
    plain.save_with(&path, &SnapshotOptions { block_bytes: 400, ..Default::default() }).unwrap();
    for rows in [0, 10] {
        let rounding = build(&transition(), 60, OBS);
        fill(&rounding, rows, 3.0);
        let before = state(&rounding);
        let message = rounding.load(&path).unwrap_err().to_string();
        assert!(message.contains("'obs', element 0 is 65520.0") && message.contains("Bf16"), "{message}");
        assert_eq!((state(&rounding), rounding.len()), (before, rows));
        let error = MemoryState::save(|v| plain.visit(v)).unwrap().load(|v| rounding.visit(v)).unwrap_err();
        assert!(matches!(&error, StateError::Invalid { why, .. } if why.contains("65520.0")), "{error}");
        fill(&rounding, 5, 2.0);
        assert_eq!(rounding.inserted(), rows as u64 + 5);
    }
    // Once that row is gone it fits.
    fill(&plain, 60, 5.0);
    plain.save(&path).unwrap();
    let rounding = build(&transition(), 60, OBS);
    rounding.load(&path).unwrap();
    assert_eq!(rounding.live(), plain.live());
}

#[test]
fn rows_that_do_not_fit_are_refused_before_anything_is_stored() {
    let replay = build(&transition(), 40, OBS);
    fill(&replay, 50, 1.0);
    let before = state(&replay);
    let (zeros, one) = ([0u8; 20 * 30], bytes(&[1.0; 30]));
    let mut writer = replay.writer();
    // As large as f32 can be where nothing is rounded.
    let action = bytes(&[f32::MAX; 60]);
    let mut obs = vec![0.5f32; 150];
    obs[5 * 22 + 3] = -66_000.0;
    let error = writer.push_rows(30, &[&bytes(&obs), &action, &one, &one, &zeros]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "row 22, column 'obs', element 3 is -66000.0, which does not fit into f16 (at most 65504.0); store the column \
         as Bf16, or scale it"
    );
    let mut next_obs = [1e38f32; 5];
    next_obs[4] = f32::MAX;
    let error =
        writer.push(&[&zeros[..20], &action[..8], &one[..4], &one[..4], &bytes(&next_obs)]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "row 0, column 'next_obs', element 4 is 3.4028235e38, which does not fit into bf16 (at most 3.3895314e38); \
         leave out `store` for the column, or scale it"
    );
    let nan = bytes(&[f32::NAN; 5]);
    let error = writer.push(&[&nan, &action[..8], &one[..4], &one[..4], &zeros[..20]]).unwrap_err();
    assert!(matches!(error, ReplayError::NotFinite { .. }), "{error}");
    assert_eq!(state(&replay), before);
}

#[test]
fn returns_that_do_not_fit() {
    let replay = build(&transition(), 40, &[("reward", Dtype::F16), ("obs", Dtype::F16)]);
    let mut n_step = NStep::new(2, 1.0, &transition()).unwrap();
    let zeros = [0u8; 20];
    let push = |n_step: &mut NStep, replay: &Replay, obs: f32, reward: f32| {
        let obs = bytes(&[obs; 5]);
        let step = Step {
            obs: &obs,
            action: &zeros[..8],
            reward,
            next_obs: &zeros,
            terminated: false,
            truncated: false,
        };
        n_step.push(step, &mut replay.writer())
    };
    assert!(push(&mut n_step, &replay, 1e5, 0.0).unwrap_err().to_string().contains("'obs'"));
    assert!(push(&mut n_step, &replay, 0.0, 1e5).unwrap_err().to_string().contains("'reward'"));
    assert_eq!(push(&mut n_step, &replay, 0.0, 40_000.0).unwrap(), 0);
    let before = (state(&replay), n_step.open_steps());
    let message = push(&mut n_step, &replay, 0.0, 40_000.0).unwrap_err().to_string();
    assert!(message.contains("'reward', element 0 is 80000.0"), "{message}");
    assert_eq!((state(&replay), n_step.open_steps()), before);
    assert_eq!(push(&mut n_step, &replay, 0.0, 20_000.0).unwrap(), 1);
    // A step that came with the writer of a buffer that rounds nothing.
    n_step.clear();
    assert_eq!(push(&mut n_step, &build(&transition(), 40, &[]), 1e5, 0.0).unwrap(), 0);
    let before = (state(&replay), n_step.open_steps());
    let error = push(&mut n_step, &replay, 0.0, 0.0).unwrap_err();
    assert!(matches!(error, ReplayError::OutOfRange { value: 1e5, .. }), "{error}");
    assert_eq!((state(&replay), n_step.open_steps()), before);
}

#[test]
fn what_cannot_be_stored_so_is_refused_at_build() {
    let schema = Schema::transition((Dtype::F32, &[5]), (Dtype::I64, &[])).unwrap();
    for (column, dtype, parts) in [
        ("observation", Dtype::F16, ["'observation'", "no such column", "\"next_obs\""]),
        ("action", Dtype::F16, ["'action'", "i64 in the schema", "only f32"]),
        ("obs", Dtype::F32, ["'obs'", "as f32", "f16 or bf16"]),
        ("obs", Dtype::U8, ["'obs'", "as u8", "f16 or bf16"]),
    ] {
        let builder = Replay::builder(schema.clone()).capacity(10).store(column, dtype);
        let error = builder.store("next_obs", Dtype::F16).build().unwrap_err();
        assert!(matches!(error, ReplayError::Store { .. }));
        for part in parts {
            assert!(error.to_string().contains(part), "'{error}' lacks '{part}'");
        }
    }
    // Of two the first is told.
    let builder = Replay::builder(schema).capacity(10).store("a", Dtype::F16).store("b", Dtype::F16);
    assert!(builder.build().unwrap_err().to_string().contains("'a'"));
    let halves = Schema::new(vec![Field::new("x", Dtype::F16, [3])]).unwrap();
    let error = Replay::builder(halves).capacity(10).store("x", Dtype::F16).build().unwrap_err();
    assert!(error.to_string().contains("f16 in the schema"), "{error}");
}
