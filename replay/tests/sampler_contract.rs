//! What every sampler promises, tried on all of them: the list is [`kinds`].
//!
//! Seeds are fixed, so a test passes for ever or fails for ever. The thresholds are such that a correct sampler with a
//! fresh seed would exceed one of them one time in a million.

use rand::{RngExt, SeedableRng};
use rl_replay::{
    Batch, Combined, Drawn, Dtype, Field, MemoryState, Prioritized, Proportional, RankBased, Recent,
    RecentSettings, Replay, ReplayError, Rng, SampleError, Sampler, Schema, Uniform, WeightNorm,
    WithoutReplacement, importance_weights,
};
use std::ops::Range;

struct Kind {
    name: &'static str,
    make: fn(u64) -> Box<dyn Sampler>,
    prioritized: bool,
    /// Whether the probabilities stay as they are from draw to draw.
    steady: bool,
    /// Whether rows are found in the order of their keys, and not of slots, which another capacity changes.
    by_key: bool,
}

const SETTINGS: Prioritized = Prioritized { alpha: 0.7, epsilon: 0.01 };

fn proportional(capacity: u64) -> Box<dyn Sampler> {
    Box::new(Proportional::new(capacity, SETTINGS).unwrap())
}

fn ranked(capacity: u64) -> Box<dyn Sampler> {
    Box::new(RankBased::new(capacity, 0.7).unwrap())
}

fn recent(updates: u64) -> Box<dyn Sampler> {
    let settings = RecentSettings { eta: 0.9995, eta_end: 0.9998, anneal_draws: 100, updates, min_rows: 10 };
    // Without annealing where the probabilities are to be steady.
    let anneal_draws = if updates == 1 { 0 } else { 100 };
    Box::new(Recent::new(RecentSettings { anneal_draws, ..settings }).unwrap())
}

fn combined(inner: Box<dyn Sampler>, newest: usize) -> Box<dyn Sampler> {
    Box::new(Combined::new(inner, newest).unwrap())
}

fn kinds() -> Vec<Kind> {
    let plain = |name, make| Kind { name, make, prioritized: false, steady: true, by_key: true };
    vec![
        plain("uniform", |_| Box::new(Uniform)),
        plain("without replacement", |_| Box::new(WithoutReplacement::new())),
        Kind { prioritized: true, by_key: false, ..plain("proportional", proportional) },
        Kind {
            prioritized: true,
            by_key: false,
            ..plain("proportional, independent", |capacity| {
                Box::new(Proportional::new(capacity, SETTINGS).unwrap().independent())
            })
        },
        Kind { prioritized: true, ..plain("rank-based", ranked) },
        Kind {
            prioritized: true,
            ..plain("rank-based, independent", |capacity| {
                Box::new(RankBased::new(capacity, 1.0).unwrap().independent())
            })
        },
        plain("recent", |_| recent(1)),
        Kind { steady: false, ..plain("recent, in phases", |_| recent(7)) },
        plain("combined with uniform", |_| combined(Box::new(Uniform), 1)),
        plain("combined without replacement", |_| combined(Box::new(WithoutReplacement::new()), 2)),
        Kind {
            prioritized: true,
            by_key: false,
            ..plain("combined with proportional", |capacity| combined(proportional(capacity), 1))
        },
        Kind {
            prioritized: true,
            ..plain("combined with rank-based", |capacity| combined(ranked(capacity), 3))
        },
        plain("combined with recent", |_| combined(recent(1), 2)),
        plain("combined twice", |_| combined(combined(Box::new(Uniform), 1), 2)),
    ]
}

const CAPACITY: u64 = 60;

fn live(end: u64) -> Range<u64> {
    end.saturating_sub(CAPACITY)..end
}

fn inserted(sampler: &mut dyn Sampler, rows: Range<u64>) {
    if let Some(priorities) = sampler.priorities() {
        priorities.inserted(rows);
    }
}

/// Random priorities, small ones and large ones, equal ones and zeros, some for rows that are gone.
fn update(sampler: &mut dyn Sampler, live: Range<u64>, rng: &mut Rng, count: usize) {
    let rows: Vec<u64> =
        (0..count).map(|_| rng.random_range(live.start.saturating_sub(5)..live.end)).collect();
    let magnitude = |rng: &mut Rng| match rng.random_range(0..8) {
        0 => 0.0,
        1 => 0.5,
        _ => 10f32.powf(rng.random_range(-2.0..2.0)),
    };
    let magnitudes: Vec<f32> = rows.iter().map(|_| magnitude(rng)).collect();
    if let Some(priorities) = sampler.priorities() {
        let updated = priorities.update(live.clone(), &rows, &magnitudes).unwrap();
        let applied = rows.iter().filter(|row| live.contains(row)).count();
        assert_eq!((updated.applied, updated.stale), (applied, count - applied));
    }
}

/// A sampler after rows up to `end` came and priorities changed `updates` times.
fn after(kind: &Kind, end: u64, updates: usize, rng: &mut Rng) -> Box<dyn Sampler> {
    let mut sampler = (kind.make)(CAPACITY);
    let (steps, mut told) = (100, 0);
    for step in 1..=steps {
        let now = end * step / steps;
        inserted(&mut *sampler, told..now);
        told = now;
        if now > 0 {
            update(&mut *sampler, live(now), rng, updates / steps as usize);
        }
    }
    sampler
}

fn state(sampler: &mut dyn Sampler, live: Range<u64>) -> MemoryState {
    MemoryState::save(|v| sampler.visit(live, v)).unwrap()
}

/// The value that χ² of this many degrees of freedom exceeds with probability 1e-6 (Wilson and Hilferty 1931).
fn chi2_limit(degrees: f64) -> f64 {
    let (z, spread) = (4.753_424, 2.0 / (9.0 * degrees));
    degrees * (1.0 - spread + z * spread.sqrt()).powi(3)
}

/// What rows a sampler may have been told of (up to `told`) and which it is to draw from.
struct Case {
    what: &'static str,
    told: u64,
    live: Range<u64>,
}

fn cases() -> [Case; 6] {
    let case = |what, told, live| Case { what, told, live };
    [
        case("a full ring", 1_000, live(1_000)),
        case("a growing ring", 40, live(40)),
        case("a part of a full ring", 1_000, 943..990),
        case("a full ring as it was seven rows ago", 1_000, live(993)),
        case("a full ring as it was when all of its rows were others", 1_000, live(900)),
        case("a growing ring as it was seven rows ago", 47, live(40)),
    ]
}

#[test]
fn rows_come_as_often_as_stated() {
    for kind in kinds().iter().filter(|kind| kind.steady) {
        for Case { what, told, live } in cases() {
            let about = format!("{}, {what}", kind.name);
            let mut rng = Rng::seed_from_u64(41);
            let mut sampler = after(kind, told, 200_000, &mut rng);
            let (batches, batch, mut drawn) = (6_000, 20, Drawn::default());
            let (mut counts, mut stated) = ([0u64; CAPACITY as usize], [0f64; CAPACITY as usize]);
            for _ in 0..batches {
                sampler.draw(&mut rng, live.clone(), batch, &mut drawn).unwrap();
                assert_eq!((drawn.rows.len(), drawn.probabilities.len()), (batch, batch), "{about}");
                for (row, probability) in drawn.rows.iter().zip(&drawn.probabilities) {
                    assert!(live.contains(row), "{about}: row {row} is not live");
                    let row = (row - live.start) as usize;
                    counts[row] += 1;
                    let before = std::mem::replace(&mut stated[row], *probability);
                    assert!(before == 0.0 || (before / probability - 1.0).abs() < 1e-9, "{about}");
                }
            }
            let draws = (batches * batch) as f64;
            let rest = 1.0 - stated.iter().sum::<f64>();
            assert!(rest.abs() * draws < 20.0, "{about}: {rest} of the probability is with rows never drawn");
            let could_be = stated.iter().filter(|p| **p > 0.0);
            if rest.abs() < 1e-9 {
                assert_eq!(drawn.population, could_be.clone().count() as u64, "{about}");
            }
            if let Some(lowest) = drawn.lowest {
                let least = could_be.clone().copied().fold(1.0, f64::min);
                assert!(lowest < least * (1.0 + 1e-9) && lowest > 0.0, "{about}: {lowest} and {least}");
                assert!(rest > 1e-9 || lowest > least * (1.0 - 1e-9), "{about}: {lowest} and {least}");
            }
            // Strata, rows that do not repeat and rows that are always there only make counts more even.
            let term = |(count, p): (&u64, &f64)| (*count as f64 - draws * p).powi(2) / (draws * p);
            let chi2: f64 = counts.iter().zip(&stated).filter(|(_, p)| **p > 0.0).map(term).sum();
            let degrees = could_be.count() as f64 - 1.0;
            assert!(chi2 < chi2_limit(degrees), "{about}: χ² = {chi2} of {degrees} degrees");
        }
    }
}

/// What importance weights are for: with β = 1 the weighted mean over a batch is that of all rows, on average.
#[test]
fn weights_give_the_mean_over_all_rows() {
    for kind in kinds().iter().filter(|kind| kind.steady) {
        for Case { what, told, live } in cases() {
            let mut rng = Rng::seed_from_u64(42);
            let mut sampler = after(kind, told, 10_000, &mut rng);
            let (batches, batch, mut drawn) = (4_000, 15, Drawn::default());
            let mut weights = vec![0f32; batch];
            let (mut sum, mut squares, mut population) = (0.0, 0.0, 0);
            for _ in 0..batches {
                sampler.draw(&mut rng, live.clone(), batch, &mut drawn).unwrap();
                importance_weights(&drawn, 1.0, WeightNorm::None, &mut weights);
                let value = |row: &u64| (live.end - row) as f64;
                let mean =
                    drawn.rows.iter().zip(&weights).map(|(row, w)| value(row) * f64::from(*w)).sum::<f64>()
                        / batch as f64;
                (sum, squares, population) = (sum + mean, squares + mean * mean, drawn.population);
            }
            let (mean, expected) = (sum / f64::from(batches), (population + 1) as f64 / 2.0);
            let error = ((squares / f64::from(batches) - mean * mean) / f64::from(batches)).sqrt();
            // Two-sided, one in a million.
            let away = (mean - expected).abs() / error;
            assert!(away < 4.9, "{}, {what}: {mean} for {expected}, {away} standard errors", kind.name);
            if drawn.lowest.is_some() {
                importance_weights(&drawn, 0.5, WeightNorm::PopulationMax, &mut weights);
                assert!(weights.iter().all(|w| *w <= 1.0), "{}", kind.name);
            }
        }
    }
}

/// Rounds of inserting, drawing and sending priorities back; everything drawn.
fn go_on(sampler: &mut dyn Sampler, rng: &mut Rng, mut end: u64, rounds: usize) -> Vec<Drawn> {
    let mut all = Vec::new();
    for round in 0..rounds {
        if round % 3 == 0 {
            let now = end + rng.random_range(0..4);
            inserted(sampler, end..now);
            end = now;
        }
        let mut drawn = Drawn::default();
        let count = 8.min(live(end).count());
        sampler.draw(rng, live(end), count, &mut drawn).unwrap();
        update(sampler, live(end), rng, 5);
        all.push(drawn);
    }
    all
}

fn assert_same(a: &[Drawn], b: &[Drawn], about: &str) {
    for (round, (a, b)) in a.iter().zip(b).enumerate() {
        assert_eq!(a.rows, b.rows, "{about}, round {round}");
        assert_eq!(a.probabilities, b.probabilities, "{about}, round {round}");
        assert_eq!((a.population, a.lowest), (b.population, b.lowest), "{about}, round {round}");
    }
}

#[test]
fn one_seed_gives_the_same_draws_and_another_does_not() {
    for kind in kinds() {
        let run = |seed| {
            let mut sampler = after(&kind, 500, 1_000, &mut Rng::seed_from_u64(1));
            go_on(&mut *sampler, &mut Rng::seed_from_u64(seed), 500, 100)
        };
        let (first, same, other) = (run(2), run(2), run(3));
        assert_same(&first, &same, kind.name);
        assert_ne!(first[0].rows, other[0].rows, "{}", kind.name);
    }
}

#[test]
fn what_was_saved_goes_on_as_if_nothing_had_been() {
    for kind in kinds() {
        for end in [0, 1, 40, 60, 500] {
            let about = format!("{}, {end} rows", kind.name);
            let mut rng = Rng::seed_from_u64(51);
            let mut sampler = after(&kind, end, 1_000, &mut rng);
            if end > 0 {
                go_on(&mut *sampler, &mut rng.clone(), end, 2);
            }
            // Up to here rows came in `go_on` too; look at those that are there now.
            let end = end + 10;
            inserted(&mut *sampler, end - 10..end);
            let saved = state(&mut *sampler, live(end));
            // Into one that is new, and one that holds other rows.
            for used in [0, 3_000] {
                let mut other = after(&kind, used, 1_000, &mut rng.clone());
                saved.load(|v| other.visit(live(end), v)).unwrap();
                assert_eq!(state(&mut *other, live(end)).differences(&saved), [""; 0], "{about}");
                let mut original = (kind.make)(CAPACITY);
                saved.load(|v| original.visit(live(end), v)).unwrap();
                let future = go_on(&mut *original, &mut rng.clone(), end, 200);
                assert_same(&future, &go_on(&mut *other, &mut rng.clone(), end, 200), &about);
            }
            let mut original = (kind.make)(CAPACITY);
            saved.load(|v| original.visit(live(end), v)).unwrap();
            let future = go_on(&mut *original, &mut rng.clone(), end, 200);
            assert_same(&go_on(&mut *sampler, &mut rng.clone(), end, 200), &future, &about);
        }
    }
}

#[test]
fn what_was_saved_fits_a_larger_ring() {
    for kind in kinds() {
        let (mut rng, end) = (Rng::seed_from_u64(52), 500);
        let mut small = after(&kind, end, 1_000, &mut rng);
        let saved = state(&mut *small, live(end));
        let mut large = (kind.make)(CAPACITY + 37);
        saved.load(|v| large.visit(live(end), v)).unwrap();
        for round in 0..100 {
            let about = format!("{}, round {round}", kind.name);
            let (mut a, mut b) = (Drawn::default(), Drawn::default());
            small.draw(&mut rng.clone(), live(end), 8, &mut a).unwrap();
            large.draw(&mut rng.clone(), live(end), 8, &mut b).unwrap();
            if kind.by_key {
                assert_same(&[a], &[b], &about);
            }
            update(&mut *small, live(end), &mut rng.clone(), 5);
            update(&mut *large, live(end), &mut rng, 5);
            assert_eq!(state(&mut *large, live(end)), state(&mut *small, live(end)), "{about}");
        }
        // Now there is room for more rows: 37 more come and none goes.
        let live = live(end).start..end + 37;
        inserted(&mut *large, end..live.end);
        let mut seen = std::collections::BTreeSet::new();
        let mut drawn = Drawn::default();
        for _ in 0..3_000 {
            large.draw(&mut rng, live.clone(), 10, &mut drawn).unwrap();
            seen.extend(drawn.rows.iter().copied());
        }
        assert!(seen.iter().all(|row| live.contains(row)));
        assert!(seen.len() as u64 >= drawn.population * 9 / 10, "{}: {} rows", kind.name, seen.len());
    }
}

#[test]
fn nothing_to_draw_from_and_nothing_to_draw() {
    for kind in kinds() {
        let mut rng = Rng::seed_from_u64(61);
        let mut sampler = after(&kind, 500, 1_000, &mut rng);
        let (before, rng_before) = (state(&mut *sampler, live(500)), rng.clone());
        let mut drawn = Drawn { rows: vec![3], probabilities: vec![0.5], population: 9, lowest: Some(0.25) };
        assert_eq!(sampler.draw(&mut rng, 500..500, 4, &mut drawn), Err(SampleError::Empty), "{}", kind.name);
        assert_eq!((&drawn.rows[..], &drawn.probabilities[..]), (&[3][..], &[0.5][..]), "{}", kind.name);
        assert_eq!((drawn.population, drawn.lowest), (9, Some(0.25)), "{}", kind.name);
        assert_eq!(rng, rng_before, "{}", kind.name);
        assert_eq!(state(&mut *sampler, live(500)), before, "{}", kind.name);

        sampler.draw(&mut rng, live(500), 0, &mut drawn).unwrap();
        assert!(drawn.rows.is_empty() && drawn.probabilities.is_empty(), "{}", kind.name);
        assert!((1..=CAPACITY).contains(&drawn.population), "{}", kind.name);
        assert!(drawn.lowest.is_none_or(|lowest| lowest > 0.0 && lowest < 1.0), "{}", kind.name);

        // A ring's first row, and a batch of one.
        let mut sampler = (kind.make)(CAPACITY);
        inserted(&mut *sampler, 0..1);
        sampler.draw(&mut rng, 0..1, 1, &mut drawn).unwrap();
        assert_eq!((&drawn.rows[..], &drawn.probabilities[..]), (&[0][..], &[1.0][..]), "{}", kind.name);
        inserted(&mut *sampler, 1..3);
        sampler.draw(&mut rng, 0..3, 1, &mut drawn).unwrap();
        assert_eq!(drawn.rows.len(), 1, "{}", kind.name);
    }
}

#[test]
fn what_is_refused_changes_nothing() {
    for kind in kinds() {
        let mut rng = Rng::seed_from_u64(62);
        let mut sampler = after(&kind, 500, 1_000, &mut rng);
        let before = state(&mut *sampler, live(500));
        let Some(priorities) = sampler.priorities() else {
            assert!(!kind.prioritized, "{}", kind.name);
            continue;
        };
        for bad in [-0.5, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1e-45] {
            let error = priorities.update(live(500), &[498, 499, 470], &[0.1, bad, 0.3]).unwrap_err();
            let SampleError::Priority { row: 499, position: 1, value } = error else { panic!("{error}") };
            assert_eq!(value.to_bits(), bad.to_bits());
        }
        let error = priorities.update(live(500), &[499], &[0.1, 0.2]);
        assert_eq!(error, Err(SampleError::Lengths { rows: 1, magnitudes: 2 }));
        // Rows that are gone or not there yet are no error and no change.
        let updated = priorities.update(live(500), &[439, 0, 500, u64::MAX], &[9e9; 4]).unwrap();
        assert_eq!((updated.applied, updated.stale), (0, 4), "{}", kind.name);
        assert_eq!(state(&mut *sampler, live(500)), before, "{}", kind.name);
    }
}

#[test]
fn of_a_row_that_comes_twice_the_last_wins() {
    for kind in kinds().iter().filter(|kind| kind.prioritized) {
        let mut rng = Rng::seed_from_u64(63);
        let [mut twice, mut once] = [(); 2].map(|()| after(kind, 500, 1_000, &mut rng.clone()));
        let sampler = twice.priorities().unwrap();
        let updated =
            sampler.update(live(500), &[450, 460, 450, 460, 450], &[9.0, 2.0, 3.0, 0.0, 0.5]).unwrap();
        assert_eq!((updated.applied, updated.stale), (5, 0));
        once.priorities().unwrap().update(live(500), &[460, 450], &[-0.0, 0.5]).unwrap();
        assert_eq!(state(&mut *twice, live(500)), state(&mut *once, live(500)), "{}", kind.name);
        // A zero with a sign is a zero.
        let (mut a, mut b) = (Drawn::default(), Drawn::default());
        for _ in 0..100 {
            twice.draw(&mut rng.clone(), live(500), 10, &mut a).unwrap();
            once.draw(&mut rng, live(500), 10, &mut b).unwrap();
            assert_same(&[a.clone()], &[b.clone()], kind.name);
        }
    }
}

#[test]
fn rows_may_be_told_of_late_and_all_at_once() {
    let end = 1 << 50;
    for kind in kinds() {
        let mut rng = Rng::seed_from_u64(64);
        let mut one_by_one = after(&kind, 30, 1_000, &mut rng.clone());
        let mut late = after(&kind, 30, 1_000, &mut rng.clone());
        for key in 30..200 {
            inserted(&mut *one_by_one, key..key + 1);
        }
        inserted(&mut *late, 30..200);
        inserted(&mut *late, 200..200);
        assert_eq!(state(&mut *late, live(200)), state(&mut *one_by_one, live(200)), "{}", kind.name);

        // All rows of a run, in one call; and those of a ring that begins late.
        inserted(&mut *late, 200..end);
        let mut fresh = (kind.make)(CAPACITY);
        inserted(&mut *fresh, end - CAPACITY..end);
        update(&mut *late, live(end), &mut rng.clone(), 50);
        update(&mut *fresh, live(end), &mut rng.clone(), 50);
        // The largest priority there had been is another, and with it that of rows without a new one.
        let mut drawn = Drawn::default();
        for sampler in [&mut late, &mut fresh] {
            for _ in 0..100 {
                sampler.draw(&mut rng, live(end), 10, &mut drawn).unwrap();
                assert!(drawn.rows.iter().all(|row| live(end).contains(row)), "{}", kind.name);
            }
        }
    }
}

#[test]
fn new_rows_are_likely() {
    for kind in kinds().iter().filter(|kind| kind.prioritized) {
        let mut sampler = (kind.make)(CAPACITY);
        inserted(&mut *sampler, 0..50);
        let rows: Vec<u64> = (0..50).collect();
        let magnitudes: Vec<f32> = rows.iter().map(|row| if *row == 7 { 30.0 } else { 0.1 }).collect();
        sampler.priorities().unwrap().update(0..50, &rows, &magnitudes).unwrap();
        sampler.priorities().unwrap().update(0..50, &[7], &[0.1]).unwrap();
        inserted(&mut *sampler, 50..51);
        // Row 55 is there so that no combined sampler has row 50 among the newest.
        inserted(&mut *sampler, 51..56);
        let quiet: Vec<u64> = (51..56).collect();
        sampler.priorities().unwrap().update(0..56, &quiet, &[0.1; 5]).unwrap();
        let (mut rng, mut drawn, mut found) = (Rng::seed_from_u64(65), Drawn::default(), 0);
        for _ in 0..500 {
            sampler.draw(&mut rng, 0..56, 20, &mut drawn).unwrap();
            found += drawn.rows.iter().filter(|row| **row == 50).count();
        }
        // Evenly it would be 179 of 10,000.
        assert!(found > 600, "{}: {found}", kind.name);
    }
}

#[test]
fn rows_without_mass() {
    let settings = Prioritized { alpha: 1.0, epsilon: 0.0 };
    let make = || Proportional::new(CAPACITY, settings).unwrap();
    let samplers: [Box<dyn Sampler>; 3] =
        [Box::new(make()), Box::new(make().independent()), combined(Box::new(make()), 2)];
    for (mut sampler, live) in samplers.into_iter().zip([0..2, 0..2, 0..4]) {
        let (mut rng, mut drawn) = (Rng::seed_from_u64(66), Drawn::default());
        assert_eq!(sampler.draw(&mut rng, 0..4, 3, &mut drawn), Err(SampleError::NoMass), "none was told of");
        inserted(&mut *sampler, 0..4);
        // The last two have all the mass, and are out, or those that are always there.
        sampler.priorities().unwrap().update(0..4, &[0, 1], &[0.0; 2]).unwrap();
        let before = rng.clone();
        assert_eq!(sampler.draw(&mut rng, live.clone(), 3, &mut drawn), Err(SampleError::NoMass));
        assert!(drawn.rows.is_empty() && rng == before);
        // With a billionth of the mass the rest is drawn all the same, exactly as stated.
        sampler.priorities().unwrap().update(0..4, &[0, 1], &[1e-9, 3e-9]).unwrap();
        let mut counts = [0; 2];
        for _ in 0..4_000 {
            sampler.draw(&mut rng, live.clone(), 3, &mut drawn).unwrap();
            let rest = drawn.rows.iter().zip(&drawn.probabilities).filter(|(row, _)| **row < 2);
            let share = if live.end == 4 { 1.0 / 3.0 } else { 1.0 };
            for (row, probability) in rest {
                counts[*row as usize] += 1;
                let stated = [0.25, 0.75][*row as usize] * share;
                assert!((probability - stated).abs() < 1e-6, "{probability} for {stated}");
            }
        }
        let (found, draws) = (counts[1] as f64, counts.iter().sum::<i32>() as f64);
        let away = (found - 0.75 * draws).abs() / (draws * 0.1875).sqrt();
        assert!(draws >= 4_000.0 && away < 4.9, "{counts:?}");
    }
    let mut sampler = combined(Box::new(WithoutReplacement::new()), 2);
    let (mut rng, mut drawn) = (Rng::seed_from_u64(67), Drawn::default());
    let error = sampler.draw(&mut rng, 10..15, 6, &mut drawn);
    assert_eq!(error, Err(SampleError::TooFew { asked: 4, rows: 3 }));
    sampler.draw(&mut rng, 10..15, 5, &mut drawn).unwrap();
    drawn.rows[..3].sort_unstable();
    assert_eq!(drawn.rows, [10, 11, 12, 13, 14]);
    for (live, count, rows) in
        [(10..12, 5, &[11, 10, 11, 10, 11][..]), (10..15, 2, &[13, 14]), (9..10, 3, &[9; 3])]
    {
        sampler.draw(&mut rng, live, count, &mut drawn).unwrap();
        assert_eq!(drawn.rows, rows, "the newest alone");
    }
}

#[test]
fn every_sampler_serves_a_buffer() {
    let schema = Schema::new(vec![Field::new("key", Dtype::I64, [])]).unwrap();
    for kind in kinds() {
        let build = || {
            let builder = Replay::builder(schema.clone()).capacity(CAPACITY as usize).reserve(16);
            builder.sampler((kind.make)(CAPACITY)).build().unwrap()
        };
        let replay = build();
        let run = |replay: &Replay, rng: &mut Rng, rounds: usize| {
            let (mut writer, mut reader) = (replay.writer(), replay.sampler());
            let mut batch = Batch::new(&schema, 9);
            let mut all = Vec::new();
            for _ in 0..rounds {
                for _ in 0..rng.random_range(1..4) {
                    writer.push(&[&replay.inserted().to_ne_bytes()]).unwrap();
                }
                let mut drawn = Drawn::default();
                let count = if replay.len() < 9 { 1 } else { 9 };
                reader.sample_into(rng, count, &mut batch.view_mut(), &mut drawn).unwrap();
                let keys = &batch.typed::<i64>("key").unwrap()[..count];
                assert!(drawn.rows.iter().zip(keys).all(|(row, key)| *row == *key as u64), "{}", kind.name);
                let magnitudes: Vec<f32> = drawn.rows.iter().map(|_| rng.random::<f32>() * 2.0).collect();
                match reader.update_priorities(&drawn.rows, &magnitudes) {
                    Ok(updated) => assert_eq!((updated.applied, kind.prioritized), (count, true)),
                    Err(ReplayError::Sample(SampleError::NoPriorities)) => assert!(!kind.prioritized),
                    Err(error) => panic!("{error}"),
                }
                all.push(drawn);
            }
            all
        };
        let mut rng = Rng::seed_from_u64(71);
        run(&replay, &mut rng, 300);
        let saved = MemoryState::save(|v| replay.visit(v)).unwrap();
        let other = build();
        saved.load(|v| other.visit(v)).unwrap();
        let future = run(&replay, &mut rng.clone(), 300);
        assert_same(&future, &run(&other, &mut rng, 300), kind.name);

        // Rows that come while a reader holds on to those that were there.
        let replay = build();
        replay.writer().push_rows(20, &[&[0; 160]]).unwrap();
        let (mut reader, mut writer) = (replay.sampler(), replay.writer());
        let mut drawn = Drawn::default();
        let mut pinned = reader.pin().unwrap();
        writer.push_rows(15, &[&[0; 120]]).unwrap();
        for _ in 0..50 {
            pinned.draw(&mut rng, 9, &mut drawn).unwrap();
        }
    }
}
