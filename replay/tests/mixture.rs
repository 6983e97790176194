//! Batches of several buffers.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rl_replay::{
    Batch, Dtype, Field, MemoryState, Mixed, Mixture, Piece, Prioritized, Recent, RecentSettings, Replay,
    ReplayError, Rng, Schema, WeightNorm, importance_weights,
};

fn schema() -> Schema {
    Schema::new(vec![Field::new("buffer", Dtype::U8, []), Field::new("key", Dtype::I64, [])]).unwrap()
}

/// A buffer of 50 rows that say which buffer and row they are, `rows` of them inserted.
fn buffer(id: u8, rows: u64, prioritized: bool) -> Replay {
    let builder = Replay::builder(schema()).capacity(50);
    let builder = if prioritized { builder.rank_based(0.7) } else { builder.uniform() };
    let replay = builder.build().unwrap();
    for key in 0..rows {
        replay.writer().push(&[&[id], &key.to_ne_bytes()]).unwrap();
    }
    replay
}

fn mixture(parts: &[(&Replay, f64)]) -> Mixture {
    Mixture::new(parts.iter().map(|(replay, ratio)| (replay.sampler(), *ratio))).unwrap()
}

fn state(mixture: &mut Mixture) -> MemoryState {
    MemoryState::save(|v| mixture.visit(v)).unwrap()
}

proptest! {
    /// However batches vary in size, each buffer has given its ratio of the rows to within the number of buffers, and
    /// the rows are where they are said to be.
    #[test]
    fn ratios_are_kept(
        ratios in prop::collection::vec(0.01f64..5.0, 1..6),
        counts in prop::collection::vec(0usize..40, 1..200),
    ) {
        let buffers: Vec<Replay> = (0..ratios.len()).map(|id| buffer(id as u8, 70, id % 2 == 0)).collect();
        let mut mixture = mixture(&buffers.iter().zip(ratios.iter().copied()).collect::<Vec<_>>());
        let (mut rng, mut batch) = (Rng::seed_from_u64(1), Batch::new(&schema(), 40));
        let mut mixed = Mixed::default();
        let (mut given, mut all) = (vec![0usize; ratios.len()], 0);
        for count in counts {
            mixture.sample_into(&mut rng, count, &mut batch.view_mut(), &mut mixed).unwrap();
            all += count;
            let (ids, keys) = (batch.typed::<u8>("buffer").unwrap(), batch.typed::<i64>("key").unwrap());
            prop_assert_eq!(mixed.drawn().rows.len(), count);
            let mut place = 0;
            for (id, part) in mixed.parts().iter().enumerate() {
                prop_assert_eq!(part.places().start, place);
                prop_assert_eq!(part.places().len(), part.drawn().rows.len());
                let ratio = ratios[id] / ratios.iter().sum::<f64>();
                for (row, probability) in part.drawn().rows.iter().zip(&part.drawn().probabilities) {
                    let stated = mixed.drawn().probabilities[place];
                    prop_assert!((stated / (ratio * probability) - 1.0).abs() < 1e-9);
                    prop_assert_eq!((ids[place], keys[place] as u64), (id as u8, *row));
                    prop_assert_eq!(mixed.drawn().rows[place], *row);
                    place += 1;
                }
                given[id] += part.places().len();
            }
            prop_assert_eq!(place, count);
            for (given, ratio) in given.iter().zip(&ratios) {
                let due = all as f64 * ratio / ratios.iter().sum::<f64>();
                prop_assert!((*given as f64 - due).abs() < ratios.len() as f64 + 1e-6);
            }
        }
    }
}

#[test]
fn a_ratio_is_exact_in_the_long_run() {
    let (online, offline) = (buffer(0, 9, false), buffer(1, 9, false));
    let mut mixture = mixture(&[(&online, 1.0), (&offline, 2.0)]);
    let (mut rng, mut batch, mut mixed) = (Rng::seed_from_u64(1), Batch::new(&schema(), 1), Mixed::default());
    let mut given = [0; 2];
    for round in 1..=300_000 {
        mixture.sample_into(&mut rng, 1, &mut batch.view_mut(), &mut mixed).unwrap();
        given[usize::from(batch.typed::<u8>("buffer").unwrap()[0])] += 1;
        if round % 3 == 0 {
            assert_eq!(given, [round / 3, round / 3 * 2], "round {round}");
        }
    }
}

#[test]
fn priorities_go_back_to_their_buffers() {
    let buffers = [buffer(0, 50, true), buffer(1, 50, false), buffer(2, 120, true)];
    let mut mixture = mixture(&[(&buffers[0], 1.0), (&buffers[1], 1.0), (&buffers[2], 1.0)]);
    let (mut rng, mut batch, mut mixed) =
        (Rng::seed_from_u64(2), Batch::new(&schema(), 31), Mixed::default());
    mixture.sample_into(&mut rng, 31, &mut batch.view_mut(), &mut mixed).unwrap();
    let magnitudes: Vec<f32> = (0..31).map(|place| 2.0 + place as f32).collect();
    // One buffer moves on by ten rows meanwhile.
    for key in 120..130u64 {
        buffers[2].writer().push(&[&[2], &key.to_ne_bytes()]).unwrap();
    }
    let part = mixed.parts()[2].clone();
    let stale = part.drawn().rows.iter().filter(|row| **row < 80).count();
    let updated = mixture.update_priorities(&mixed, &magnitudes).unwrap();
    let sent = mixed.parts()[0].places().len() + part.places().len();
    assert_eq!((updated.applied, updated.stale), (sent - stale, stale));
    assert_eq!(buffers[2].stale_priorities(), stale as u64);
    for id in [0, 2] {
        let saved = MemoryState::save(|v| buffers[id].visit(v)).unwrap();
        let Some(Piece::Array { bytes, .. }) = saved.get("sampler.magnitudes") else {
            panic!("no magnitudes")
        };
        let stored: Vec<f32> = bytes.chunks(4).map(|b| f32::from_ne_bytes(b.try_into().unwrap())).collect();
        let mut expected = [1.0f32; 50];
        let first = buffers[id].live().start;
        let part = &mixed.parts()[id];
        for (row, place) in part.drawn().rows.iter().zip(part.places()) {
            if *row >= first {
                expected[(row - first) as usize] = magnitudes[place];
            }
        }
        assert_eq!(stored, expected, "buffer {id}");
    }

    // What is refused changes no buffer.
    let all = || buffers.each_ref().map(|replay| MemoryState::save(|v| replay.visit(v)).unwrap());
    let before = all();
    let mut bad = magnitudes.clone();
    bad[30] = f32::NAN;
    let message = mixture.update_priorities(&mixed, &bad).unwrap_err().to_string();
    assert!(message.contains("number 30 of the batch") && message.contains("NaN"), "{message}");
    let message = mixture.update_priorities(&mixed, &magnitudes[1..]).unwrap_err().to_string();
    assert!(message.contains("31 rows and 30 priorities"), "{message}");
    let message = mixture.update_priorities(&Mixed::default(), &[]).unwrap_err().to_string();
    assert!(message.contains("number of buffers"), "{message}");
    assert_eq!(all(), before);
    let plain = buffer(0, 9, false);
    let mut none = self::mixture(&[(&plain, 1.0)]);
    none.sample_into(&mut rng, 4, &mut batch.view_mut(), &mut mixed).unwrap();
    let message = none.update_priorities(&mixed, &[0.5; 4]).unwrap_err().to_string();
    assert!(message.contains("keeps no priorities"), "{message}");
}

#[test]
fn a_buffer_without_rows_is_named_and_nothing_changes() {
    let (online, offline) = (buffer(0, 20, false), buffer(1, 0, true));
    let mut mixture = mixture(&[(&online, 3.0), (&offline, 1.0)]);
    let (mut rng, mut batch, mut mixed) = (Rng::seed_from_u64(3), Batch::new(&schema(), 8), Mixed::default());
    // A row in four is due from the empty one, and rounding spares it first.
    mixture.sample_into(&mut rng, 1, &mut batch.view_mut(), &mut mixed).unwrap();
    assert_eq!((mixed.parts()[1].places(), mixed.drawn().population), (1..1, 20));
    assert!((mixed.drawn().lowest.unwrap() - 0.75 / 20.0).abs() < 1e-15);
    let before = (state(&mut mixture), rng.clone(), batch.column(1).to_vec(), mixed.drawn().rows.clone());
    let error = mixture.sample_into(&mut rng, 8, &mut batch.view_mut(), &mut mixed).unwrap_err();
    assert!(matches!(error, ReplayError::InMixture { position: 1, .. }));
    assert_eq!(error.to_string(), "buffer 1 of the mixture: there is no row to draw from; insert first");
    let error = mixture.sample_into(&mut rng, 9, &mut batch.view_mut(), &mut mixed).unwrap_err().to_string();
    assert!(error.contains("9 rows do not fit into a batch of 8"), "{error}");
    let after = (state(&mut mixture), rng.clone(), batch.column(1).to_vec(), mixed.drawn().rows.clone());
    assert_eq!(after, before);
}

#[test]
fn mixtures_that_make_no_sense() {
    let one = buffer(0, 1, false);
    let refused = |parts: &[(&Replay, f64)]| {
        Mixture::new(parts.iter().map(|(replay, ratio)| (replay.sampler(), *ratio))).unwrap_err().to_string()
    };
    assert!(refused(&[]).contains("number of buffers in a mixture is 0"));
    for ratio in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(refused(&[(&one, 1.0), (&one, ratio)]).contains("it must be finite and above 0"));
    }
    assert!(refused(&[(&one, f64::MAX), (&one, 1.0)]).contains("of all ratios together"));
    Mixture::new([(one.sampler(), f64::MAX), (one.sampler(), f64::MAX)]).unwrap();
    let other = |fields| Replay::builder(Schema::new(fields).unwrap()).capacity(5).build().unwrap();
    let fewer = other(vec![Field::new("buffer", Dtype::U8, [])]);
    assert_eq!(
        refused(&[(&one, 1.0), (&one, 1.0), (&fewer, 1.0)]),
        "buffer 2 of the mixture holds other rows than buffer 0: its field 1 is missing, and that of buffer 0 is \
         'key: i64 []'; mix buffers of one schema"
    );
    let wider = other(vec![Field::new("buffer", Dtype::U8, [2]), Field::new("key", Dtype::I64, [])]);
    assert!(refused(&[(&one, 1.0), (&wider, 1.0)]).contains("'buffer: u8 [2]'"));
}

#[test]
fn what_is_carried_over_is_saved() {
    let buffers = [buffer(0, 20, false), buffer(1, 20, true), buffer(2, 20, false)];
    let make = || mixture(&[(&buffers[0], 0.5), (&buffers[1], 0.3), (&buffers[2], 0.2)]);
    let (mut rng, mut batch, mut mixed) = (Rng::seed_from_u64(4), Batch::new(&schema(), 9), Mixed::default());
    let mut mixture = make();
    for _ in 0..7 {
        let count = rng.random_range(0..9);
        mixture.sample_into(&mut rng, count, &mut batch.view_mut(), &mut mixed).unwrap();
    }
    let saved = state(&mut mixture);
    let mut other = make();
    saved.load(|v| other.visit(v)).unwrap();
    let mut fresh = make();
    let mut differs = false;
    for _ in 0..50 {
        let places = [&mut mixture, &mut other, &mut fresh].map(|mixture| {
            mixture.sample_into(&mut rng.clone(), 4, &mut batch.view_mut(), &mut mixed).unwrap();
            (mixed.parts().iter().map(|part| part.places()).collect::<Vec<_>>(), mixed.drawn().rows.clone())
        });
        assert_eq!(places[0], places[1]);
        differs |= places[0].0 != places[2].0;
    }
    assert!(differs, "there was something to carry over");
    let mut damaged = saved.clone();
    let Some(Piece::Array { bytes, .. }) = damaged.get_mut("owed") else { panic!("owed is not there") };
    bytes[0] ^= 1;
    let before = state(&mut other);
    assert!(damaged.load(|v| other.visit(v)).unwrap_err().to_string().contains("does not add up"));
    assert_eq!(state(&mut other), before);
}

/// With β = 1 the weighted mean is that of all rows of all buffers; with the weights of each part alone it is the mean of
/// the buffers' means by their ratios.
#[test]
fn weights_undo_the_ratios_or_keep_them() {
    let buffers = [buffer(0, 40, true), buffer(1, 90, false), buffer(2, 10, true)];
    let ratios = [0.25, 0.45, 0.3];
    for id in [0, 2] {
        let live = buffers[id].live();
        let magnitudes: Vec<f32> = live.clone().map(|key| 0.1 + (key * 7 % 13) as f32).collect();
        buffers[id].sampler().update_priorities(&live.collect::<Vec<_>>(), &magnitudes).unwrap();
    }
    let mut mixture =
        mixture(&[(&buffers[0], ratios[0]), (&buffers[1], ratios[1]), (&buffers[2], ratios[2])]);
    let (mut rng, mut batch, mut mixed) =
        (Rng::seed_from_u64(5), Batch::new(&schema(), 10), Mixed::default());
    let mut weights = [0f32; 10];
    // The value of a row is its buffer's times ten, and its key.
    let (mut sums, mut squares, rounds) = ([0.0; 2], [0.0; 2], 20_000);
    for _ in 0..rounds {
        // Two batches with the fractions of both, so that rounds are alike.
        let mut means = [0.0; 2];
        for _ in 0..2 {
            mixture.sample_into(&mut rng, 10, &mut batch.view_mut(), &mut mixed).unwrap();
            let (ids, keys) = (batch.typed::<u8>("buffer").unwrap(), batch.typed::<i64>("key").unwrap());
            let values: Vec<f64> =
                ids.iter().zip(keys).map(|(id, key)| f64::from(*id) * 10.0 + *key as f64).collect();
            let weighted = |weights: &[f32]| -> f64 {
                weights.iter().zip(&values).map(|(w, value)| f64::from(*w) * value).sum::<f64>() / 20.0
            };
            importance_weights(mixed.drawn(), 1.0, WeightNorm::None, &mut weights);
            means[0] += weighted(&weights);
            for part in mixed.parts() {
                importance_weights(part.drawn(), 1.0, WeightNorm::None, &mut weights[part.places()]);
            }
            means[1] += weighted(&weights);
        }
        for i in 0..2 {
            sums[i] += means[i];
            squares[i] += means[i] * means[i];
        }
    }
    let of_buffer = |id: usize| {
        let live = buffers[id].live();
        let rows = live.end - live.start;
        (rows as f64, id as f64 * 10.0 + (live.start + live.end - 1) as f64 / 2.0)
    };
    let parts = [0, 1, 2].map(of_buffer);
    let union = parts.iter().map(|(rows, mean)| rows * mean).sum::<f64>() / 100.0;
    let kept = parts.iter().zip(ratios).map(|((_, mean), ratio)| ratio * mean).sum::<f64>();
    assert_eq!(mixed.drawn().population, 100);
    for (i, expected) in [union, kept].into_iter().enumerate() {
        let mean = sums[i] / f64::from(rounds);
        let error = ((squares[i] / f64::from(rounds) - mean * mean) / f64::from(rounds)).sqrt();
        // Two-sided, one in a million.
        assert!((mean - expected).abs() < 4.9 * error, "{mean} for {expected}, ± {error}");
    }
}

/// Each update of the learner is one of each buffer's sampler, also of one that gives no row to it.
#[test]
fn every_buffer_counts_every_batch() {
    let recent =
        Recent::new(RecentSettings { updates: 100, min_rows: 1, ..RecentSettings::default() }).unwrap();
    let replay = Replay::builder(schema()).capacity(50).sampler(Box::new(recent)).build().unwrap();
    for key in 0..50u64 {
        replay.writer().push(&[&[0], &key.to_ne_bytes()]).unwrap();
    }
    let other = Replay::builder(schema()).capacity(50).prioritized(Prioritized::default()).build().unwrap();
    other.writer().push(&[&[1], &[0; 8]]).unwrap();
    let mut mixture = mixture(&[(&other, 0.999), (&replay, 0.001)]);
    let (mut rng, mut batch, mut mixed) = (Rng::seed_from_u64(6), Batch::new(&schema(), 1), Mixed::default());
    let mut before = 51;
    for _ in 0..10 {
        mixture.sample_into(&mut rng, 1, &mut batch.view_mut(), &mut mixed).unwrap();
        let now = mixed.parts()[1].drawn().population;
        assert!(mixed.parts()[1].places().is_empty() && now < before);
        assert_eq!((mixed.drawn().population, mixed.drawn().lowest), (1 + now, None));
        before = now;
    }
}
