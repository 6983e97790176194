//! Sequences against direct evaluation over whole episodes.

use proptest::prelude::*;
use rl_replay::{
    Batch, Dtype, Field, Key, MemoryState, Piece, Replay, ReplayError, Schema, SequenceEnd, SequenceSpec,
    Sequences, sequence_priority,
};
use std::collections::VecDeque;
use std::ops::Range;

const STATES: [&str; 2] = ["hidden", "cell"];

/// A state before, between and after what is stored for each step.
fn step_schema() -> Schema {
    Schema::new(vec![
        Field::new("hidden", Dtype::F32, [2]),
        Field::new("obs", Dtype::F32, [3]),
        Field::new("cell", Dtype::F64, []),
        Field::new("action", Dtype::U8, []),
    ])
    .unwrap()
}

/// A step that says where it is from, no byte of it zero where a padded one's is.
fn step(environment: usize, episode: usize, t: usize) -> [Vec<u8>; 4] {
    let f32s = |values: &[f32]| values.iter().flat_map(|x| x.to_ne_bytes()).collect::<Vec<u8>>();
    let (e, p, t) = (environment as f32 + 1.0, episode as f32 + 1.0, t as f32 + 1.0);
    let cell = f64::from(e) * 1e6 + f64::from(p) * 1e3 + f64::from(t);
    [f32s(&[p, -t]), f32s(&[e, p, t]), cell.to_ne_bytes().to_vec(), vec![t as u8]]
}

/// The row over the steps `steps` of an episode, by definition.
fn row(spec: SequenceSpec, environment: usize, episode: usize, steps: Range<usize>) -> Vec<Vec<u8>> {
    let mut columns = vec![Vec::new(); 5];
    for t in 0..spec.length {
        let real = steps.start + t < steps.end;
        let cells = step(environment, episode, steps.start + t);
        for (field, cell) in cells.into_iter().enumerate() {
            let once = field == 0 || field == 2;
            if !once {
                columns[field].extend(if real { cell } else { vec![0; cell.len()] });
            } else if t == 0 {
                columns[field] = cell;
            }
        }
        columns[4].extend(f32::from(real).to_ne_bytes());
    }
    columns
}

/// Which steps of an episode are its rows, by definition.
fn cut(spec: SequenceSpec, steps: usize, ended: bool) -> Vec<Range<usize>> {
    let (length, stride) = (spec.length, spec.length - spec.overlap);
    let mut rows: Vec<Range<usize>> = Vec::new();
    for first in (0..).step_by(stride) {
        if first + length <= steps {
            rows.push(first..first + length);
            continue;
        }
        let covered = rows.last().map_or(0, |row| row.end);
        if ended && covered < steps {
            let clipped = spec.ends == SequenceEnd::Clip && steps >= length;
            rows.push(if clipped { steps - length..steps } else { first..steps });
        }
        break;
    }
    rows.retain(|row| row.len() > spec.burn_in);
    rows
}

fn live_rows(replay: &Replay) -> Vec<Vec<Vec<u8>>> {
    if replay.is_empty() {
        return Vec::new();
    }
    let keys: Vec<Key> = replay.live().collect();
    let mut batch = Batch::new(replay.schema(), keys.len());
    replay.sampler().pin().unwrap().gather(&keys, &mut batch.view_mut()).unwrap();
    let fields = replay.schema().fields();
    let cell = |row: usize, position: usize| {
        let bytes = fields[position].row_bytes();
        batch.column(position)[row * bytes..][..bytes].to_vec()
    };
    (0..keys.len()).map(|row| (0..fields.len()).map(|position| cell(row, position)).collect()).collect()
}

fn specs() -> impl Strategy<Value = SequenceSpec> {
    let ends = prop_oneof![Just(SequenceEnd::Pad), Just(SequenceEnd::Clip)];
    (1usize..9).prop_flat_map(move |length| {
        (Just(length), 0..length, 0..length, ends.clone())
            .prop_map(|(length, overlap, burn_in, ends)| SequenceSpec { length, overlap, burn_in, ends })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn rows_are_what_the_definition_says(
        spec in specs(),
        // For each environment the lengths of its episodes; the last one does not end.
        lengths in prop::collection::vec(prop::collection::vec(1usize..40, 1..6), 1..4),
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..50),
        capacity in 1usize..40,
        restart_at in 0usize..200,
    ) {
        let schema = Sequences::schema(spec, &step_schema(), &STATES).unwrap();
        let replay = Replay::builder(schema).capacity(capacity).build().unwrap();
        let mut writer = replay.writer();
        let mut accumulators: Vec<Sequences> =
            lengths.iter().map(|_| Sequences::new(spec, &step_schema(), &STATES).unwrap()).collect();
        // Steps and expected rows of each environment, in order.
        let mut steps: Vec<VecDeque<_>> = Vec::new();
        let mut rows: Vec<VecDeque<_>> = Vec::new();
        for (environment, lengths) in lengths.iter().enumerate() {
            let (mut of_steps, mut of_rows) = (VecDeque::new(), VecDeque::new());
            for (episode, &length) in lengths.iter().enumerate() {
                let ends = episode + 1 < lengths.len();
                of_steps.extend((0..length).map(|t| (episode, t, ends && t + 1 == length)));
                of_rows.extend(cut(spec, length, ends).into_iter().map(|steps| row(spec, environment, episode, steps)));
            }
            steps.push(of_steps);
            rows.push(of_rows);
        }
        let (mut expected, mut turn) = (Vec::new(), 0);
        loop {
            let open: Vec<usize> = (0..steps.len()).filter(|e| !steps[*e].is_empty()).collect();
            if open.is_empty() { break }
            let environment = *order[turn % order.len()].get(&open);
            let (episode, t, ended) = steps[environment].pop_front().unwrap();
            if turn == restart_at {
                for sequences in &mut accumulators {
                    let saved = MemoryState::save(|v| sequences.visit(v)).unwrap();
                    *sequences = Sequences::new(spec, &step_schema(), &STATES).unwrap();
                    saved.load(|v| sequences.visit(v)).unwrap();
                    prop_assert_eq!(&MemoryState::save(|v| sequences.visit(v)).unwrap(), &saved);
                }
            }
            let cells = step(environment, episode, t);
            let written = accumulators[environment]
                .push(&cells.each_ref().map(Vec::as_slice), ended, &mut writer).unwrap();
            prop_assert!(accumulators[environment].open_steps() < spec.length);
            for _ in 0..written {
                expected.push(rows[environment].pop_front());
            }
            turn += 1;
        }
        prop_assert!(rows.iter().all(VecDeque::is_empty), "some rows were not written");
        prop_assert_eq!(replay.inserted(), expected.len() as u64);
        let oldest = expected.len().saturating_sub(capacity);
        let expected: Vec<_> = expected.into_iter().skip(oldest).map(Option::unwrap).collect();
        prop_assert_eq!(live_rows(&replay), expected);
    }

    #[test]
    fn priorities_are_what_the_formula_says(
        length in 1usize..12,
        rows in prop::collection::vec(prop::collection::vec((-9.0f32..9.0, any::<bool>()), 12), 0..6),
        burn_in in 0usize..14,
        eta in prop_oneof![Just(0.0), Just(1.0), Just(0.9), 0.0..=1.0f64],
    ) {
        let rows: Vec<&[(f32, bool)]> = rows.iter().map(|row| &row[..length]).collect();
        let errors: Vec<f32> = rows.iter().flat_map(|row| row.iter().map(|step| step.0)).collect();
        let mask: Vec<f32> = rows.iter().flat_map(|row| row.iter().map(|step| f32::from(step.1))).collect();
        let mut out = vec![-1f32; rows.len()];
        sequence_priority(&errors, &mask, burn_in, eta, &mut out).unwrap();
        for (row, out) in rows.iter().zip(&out) {
            let trained: Vec<f64> =
                row.iter().skip(burn_in).filter(|step| step.1).map(|step| f64::from(step.0.abs())).collect();
            let largest = trained.iter().copied().fold(0.0, f64::max);
            let mean = trained.iter().sum::<f64>() / trained.len().max(1) as f64;
            prop_assert!((f64::from(*out) - (eta * largest + (1.0 - eta) * mean)).abs() < 1e-5);
        }
    }
}

#[test]
#[allow(clippy::single_range_in_vec_init)] // one row over these steps
fn ends_by_hand() {
    let spec = SequenceSpec { length: 4, overlap: 2, burn_in: 1, ends: SequenceEnd::Pad };
    let clip = SequenceSpec { ends: SequenceEnd::Clip, ..spec };
    for (steps, padded, clipped) in [
        (1, vec![], vec![]), // nothing but burn-in
        (2, vec![0..2], vec![0..2]),
        (4, vec![0..4], vec![0..4]),
        (5, vec![0..4, 2..5], vec![0..4, 1..5]),
        (6, vec![0..4, 2..6], vec![0..4, 2..6]),
        (7, vec![0..4, 2..6, 4..7], vec![0..4, 2..6, 3..7]),
    ] {
        for (spec, expected) in [(spec, &padded), (clip, &clipped)] {
            assert_eq!(cut(spec, steps, true), *expected);
            let schema = Sequences::schema(spec, &step_schema(), &STATES).unwrap();
            let replay = Replay::builder(schema).capacity(10).build().unwrap();
            let mut sequences = Sequences::new(spec, &step_schema(), &STATES).unwrap();
            for t in 0..steps {
                let cells = step(0, 0, t);
                let cells = cells.each_ref().map(Vec::as_slice);
                sequences.push(&cells, t + 1 == steps, &mut replay.writer()).unwrap();
            }
            let expected: Vec<_> = expected.iter().map(|steps| row(spec, 0, 0, steps.clone())).collect();
            assert_eq!(live_rows(&replay), expected, "{steps} steps, {:?}", spec.ends);
        }
    }
    assert_eq!(spec.trained(), 1..4);
    assert_eq!(SequenceSpec::R2D2.trained(), 40..80);
}

#[test]
fn a_priority_by_hand() {
    let errors = [9.0, -2.0, 1.0, 9.0, 7.0, 1.0, 3.0, 5.0, 9.0, 9.0, 9.0, 9.0];
    let mask = [1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0];
    let mut out = [0.0; 3];
    sequence_priority(&errors, &mask, 1, 0.9, &mut out).unwrap();
    // 0.9·2 + 0.1·1.5, 0.9·5 + 0.1·3, and a sequence with nothing but burn-in.
    assert_eq!(out, [1.95, 4.8, 0.0]);
    // What is no number shows, unless it is not trained on.
    let errors = [f32::NAN, 1.0, 1.0, f32::NAN, 1.0, f32::NAN, 1.0, 1.0, f32::INFINITY, 1.0, 1.0, 1.0];
    sequence_priority(&errors, &mask, 1, 1.0, &mut out).unwrap();
    assert_eq!((out[0], out[1].is_nan(), out[2]), (1.0, true, 0.0));

    let message = |errors: &[f32], mask: &[f32], eta, out: &mut [f32]| {
        sequence_priority(errors, mask, 0, eta, out).unwrap_err().to_string()
    };
    assert!(message(&errors, &mask, 1.5, &mut out).contains("eta is 1.5"));
    assert!(message(&errors, &mask, f64::NAN, &mut out).contains("eta is NaN"));
    assert!(message(&errors, &mask[1..], 0.9, &mut out).contains("mask has 11 elements, where 12"));
    assert!(message(&errors[1..], &mask[1..], 0.9, &mut out).contains("td_errors has 11 elements, where 9"));
    assert!(message(&errors, &mask, 0.9, &mut []).contains("td_errors has 12 elements, where 0"));
    assert_eq!((out[0], out[1].is_nan(), out[2]), (1.0, true, 0.0), "as it was");
}

#[test]
fn what_is_refused_changes_neither_the_buffer_nor_the_open_steps() {
    let spec = SequenceSpec { length: 3, overlap: 1, burn_in: 0, ends: SequenceEnd::Pad };
    let schema = Sequences::schema(spec, &step_schema(), &STATES).unwrap();
    let replay = Replay::builder(schema).capacity(5).build().unwrap();
    let mut writer = replay.writer();
    let mut sequences = Sequences::new(spec, &step_schema(), &STATES).unwrap();
    let good = step(0, 0, 0);
    let [hidden, obs, cell, action] = good.each_ref().map(Vec::as_slice);
    for _ in 0..2 {
        sequences.push(&[hidden, obs, cell, action], false, &mut writer).unwrap();
    }
    let before = MemoryState::save(|v| sequences.visit(v)).unwrap();
    let nan = f64::NAN.to_ne_bytes();
    let bad: [(&[&[u8]], &str); 3] = [
        (&[hidden, obs, &nan, action], "'cell'"),
        (&[hidden, &obs[4..], cell, action], "'obs' was given 8 bytes"),
        (&[hidden, obs, cell], "3 columns"),
    ];
    for (step, part) in bad {
        let message = sequences.push(step, true, &mut writer).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
        assert_eq!(MemoryState::save(|v| sequences.visit(v)).unwrap(), before);
    }
    let elsewhere = Replay::builder(step_schema()).capacity(5).build().unwrap();
    let error = sequences.push(&[hidden, obs, cell, action], true, &mut elsewhere.writer()).unwrap_err();
    assert!(matches!(error, ReplayError::NotSequence { .. }), "{error}");
    assert!(replay.is_empty() && elsewhere.is_empty());
    assert_eq!(sequences.push(&[hidden, obs, cell, action], true, &mut writer).unwrap(), 1);

    // Forgotten steps are in no row.
    sequences.push(&[hidden, obs, cell, action], false, &mut writer).unwrap();
    sequences.clear();
    assert_eq!(sequences.push(&[hidden, obs, cell, action], true, &mut writer).unwrap(), 1);
    assert_eq!(live_rows(&replay)[1], row(spec, 0, 0, 0..1));
}

#[test]
fn specs_and_states_that_make_no_sense() {
    let spec = SequenceSpec { length: 4, overlap: 2, burn_in: 1, ends: SequenceEnd::Pad };
    let message =
        |spec, states: &[&str]| Sequences::new(spec, &step_schema(), states).unwrap_err().to_string();
    assert!(message(SequenceSpec { length: 0, ..spec }, &[]).contains("length is 0"));
    assert!(message(SequenceSpec { overlap: 4, ..spec }, &[]).contains("overlap is 4"));
    assert!(message(SequenceSpec { burn_in: 4, ..spec }, &[]).contains("burn_in is 4"));
    assert!(message(SequenceSpec { length: usize::MAX, ..spec }, &[]).contains("larger than any memory"));
    assert!(message(SequenceSpec { length: 1 << 55, ..spec }, &[]).contains("cannot be had"));
    assert!(message(spec, &["hiden"]).contains("'hiden' is none of a step's fields"));
    assert!(message(spec, &["hidden", "obs", "cell", "action"]).contains("every field"));
    let masked = Schema::new(vec![Field::new("mask", Dtype::F32, [])]).unwrap();
    let twice = Sequences::schema(spec, &masked, &[]).unwrap_err().to_string();
    assert!(twice.contains("two fields are called 'mask'"), "{twice}");

    let mut sequences = Sequences::new(spec, &step_schema(), &STATES).unwrap();
    let saved = MemoryState::save(|v| sequences.visit(v)).unwrap();
    let other = SequenceSpec { length: 5, ..spec };
    assert!(saved.load(|v| Sequences::new(other, &step_schema(), &STATES).unwrap().visit(v)).is_err());
    for (path, value) in [("held", 4), ("fresh", 1)] {
        let mut damaged = saved.clone();
        let Some(Piece::Array { bytes, .. }) = damaged.get_mut(path) else { panic!() };
        bytes[0] = value;
        assert!(damaged.load(|v| sequences.visit(v)).unwrap_err().to_string().contains("are open"), "{path}");
        assert_eq!(sequences.open_steps(), 0);
    }
}
