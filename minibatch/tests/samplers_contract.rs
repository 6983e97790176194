//! What every sampler of a fixed set promises, tried on all of them: the list is [`kinds`].
//!
//! Seeds are fixed, so a test passes for ever or fails for ever. The thresholds are such that a correct sampler with a
//! fresh seed would exceed one of them one time in a million.

use allocation_counter::measure;
use proptest::prelude::*;
use rand::SeedableRng;
use rl_minibatch::{
    ClassBalanced, Drawn, LengthBucketed, MemoryState, Piece, Rng, SampleError, Sampler, Sequential,
    Shuffled, Stratified, Uniform, WeightNorm, Weighted, WeightedWithoutReplacement, WithoutReplacement,
    importance_weights,
};

struct Kind {
    name: &'static str,
    make: fn(u64) -> Box<dyn Sampler>,
    /// How many of N rows an epoch has; `None` without epochs.
    epoch_rows: Option<fn(u64) -> u64>,
    /// Whether another seed gives other rows.
    random: bool,
    /// Whether the probabilities stay as they are from epoch to epoch.
    steady: bool,
    /// Whether it was made for N rows.
    fixed: bool,
    /// Whether rows can have weight 0.
    weighted: bool,
}

/// Of six rows each, three are of class 0, two of class 1 and one of class 2.
fn label(row: u64) -> u32 {
    [0, 0, 1, 0, 1, 2][(row % 6) as usize]
}

fn labels(rows: u64) -> Vec<u32> {
    (0..rows).map(label).collect()
}

/// Every fifth row has none.
fn weight(row: u64) -> f64 {
    if row % 5 == 3 { 0.0 } else { 1.0 + (row % 7) as f64 * 0.5 }
}

fn weights(rows: u64) -> Vec<f64> {
    (0..rows).map(weight).collect()
}

fn positive(rows: u64) -> u64 {
    (0..rows).filter(|row| weight(*row) > 0.0).count() as u64
}

fn lengths(rows: u64) -> Vec<u32> {
    (0..rows).map(|row| (row * row % 23) as u32).collect()
}

fn classes(rows: u64) -> usize {
    labels(rows).iter().max().map_or(1, |label| *label as usize + 1)
}

fn some_of(rows: u64) -> u64 {
    (positive(rows) * 2 / 3).max(1)
}

fn kinds() -> Vec<Kind> {
    let plain = |name, make| Kind {
        name,
        make,
        epoch_rows: Some(|rows| rows),
        random: true,
        steady: true,
        fixed: true,
        weighted: false,
    };
    vec![
        Kind { random: false, ..plain("sequential", |rows| Box::new(Sequential::new(rows).unwrap())) },
        plain("shuffled", |rows| Box::new(Shuffled::new(rows).unwrap())),
        plain("stratified", |rows| Box::new(Stratified::new(&labels(rows), classes(rows)).unwrap())),
        plain("length-bucketed", |rows| Box::new(LengthBucketed::new(&lengths(rows), 12, 24).unwrap())),
        Kind {
            weighted: true,
            epoch_rows: Some(some_of),
            steady: false,
            ..plain("weighted without replacement", |rows| {
                let sampler = WeightedWithoutReplacement::new(&weights(rows), some_of(rows) as usize);
                Box::new(sampler.unwrap())
            })
        },
        Kind {
            weighted: true,
            epoch_rows: Some(positive),
            ..plain("weighted without replacement, all rows", |rows| {
                let sampler = WeightedWithoutReplacement::new(&weights(rows), positive(rows) as usize);
                Box::new(sampler.unwrap())
            })
        },
        Kind {
            weighted: true,
            epoch_rows: None,
            ..plain("weighted", |rows| Box::new(Weighted::new(&weights(rows)).unwrap()))
        },
        Kind {
            epoch_rows: None,
            ..plain("class-balanced", |rows| {
                Box::new(ClassBalanced::new(&labels(rows), classes(rows)).unwrap())
            })
        },
        Kind { epoch_rows: None, fixed: false, ..plain("uniform", |_| Box::new(Uniform)) },
        Kind {
            epoch_rows: None,
            fixed: false,
            ..plain("without replacement", |_| Box::new(WithoutReplacement::new()))
        },
    ]
}

fn with_epochs() -> impl Iterator<Item = (Kind, fn(u64) -> u64)> {
    kinds().into_iter().filter_map(|kind| kind.epoch_rows.map(|rows| (kind, rows)))
}

/// Only rings' [`WithoutReplacement`] refuses more rows than there are.
fn at_most(kind: &Kind, count: usize, rows: u64) -> usize {
    if kind.name == "without replacement" { count.min(rows as usize) } else { count }
}

fn state(sampler: &mut dyn Sampler, rows: u64) -> MemoryState {
    MemoryState::save(|v| sampler.visit(0..rows, v)).unwrap()
}

/// What no draw may leave behind.
fn garbage() -> Drawn {
    Drawn { rows: vec![99_999; 5], probabilities: vec![7.0; 3], population: 12_345, lowest: Some(-1.0) }
}

fn draw(sampler: &mut dyn Sampler, rng: &mut Rng, rows: u64, count: usize) -> Drawn {
    let mut drawn = garbage();
    sampler.draw(rng, 0..rows, count, &mut drawn).unwrap();
    drawn
}

fn assert_same(a: &Drawn, b: &Drawn, about: &str) {
    assert_eq!(a.rows, b.rows, "{about}");
    assert_eq!(a.probabilities, b.probabilities, "{about}");
    assert_eq!((a.population, a.lowest), (b.population, b.lowest), "{about}");
}

/// The value that χ² of this many degrees of freedom exceeds with probability 1e-6 (Wilson and Hilferty 1931).
fn chi2_limit(degrees: f64) -> f64 {
    let (z, spread) = (4.753_424, 2.0 / (9.0 * degrees));
    degrees * (1.0 - spread + z * spread.sqrt()).powi(3)
}

/// Goes through `epochs` epochs and checks each: what is drawn when, and how often each row comes.
fn go_through(
    kind: &Kind,
    epoch_rows: u64,
    rows: u64,
    epochs: u64,
    mut count: impl FnMut() -> usize,
) -> Vec<Vec<u64>> {
    let about = format!("{}, {rows} rows", kind.name);
    let (mut sampler, mut rng) = ((kind.make)(rows), Rng::seed_from_u64(rows));
    let mut orders = Vec::new();
    for number in 0..epochs {
        let mut order = Vec::new();
        while (order.len() as u64) < epoch_rows {
            let count = count();
            let before = sampler.epoch().unwrap();
            assert_eq!(before.rows, epoch_rows, "{about}");
            let drawn = draw(&mut *sampler, &mut rng, rows, count);
            let left = epoch_rows as usize - order.len();
            assert_eq!(drawn.rows.len(), count.min(left), "{about}: fewer only at the end, never none");
            assert_eq!(drawn.probabilities.len(), drawn.rows.len(), "{about}");
            order.extend(&drawn.rows);
            let after = sampler.epoch().unwrap();
            assert_eq!((after.number, after.drawn), (number, order.len() as u64), "{about}");
        }
        let mut sorted = order.clone();
        sorted.sort_unstable();
        if epoch_rows == rows {
            assert_eq!(sorted, Vec::from_iter(0..rows), "{about}: each row once");
        } else {
            sorted.dedup();
            assert_eq!(sorted.len() as u64, epoch_rows, "{about}: no row twice");
            assert!(sorted.iter().all(|row| *row < rows && weight(*row) > 0.0), "{about}");
        }
        orders.push(order);
    }
    orders
}

#[test]
fn an_epoch_has_each_row_once_whatever_is_drawn_at_a_time() {
    for (kind, epoch_rows) in with_epochs() {
        for rows in [1, 2, 3, 11, 12, 13, 60, 100] {
            for count in [1, 2, 7, 12, rows as usize, rows as usize + 3, 10 * rows as usize] {
                let orders = go_through(&kind, epoch_rows(rows), rows, 4, || count);
                let different = orders.iter().any(|order| *order != orders[0]);
                assert!(rows < 10 || different == kind.random, "{}: the order of each epoch", kind.name);
            }
        }
    }
}

proptest! {
    #[test]
    fn an_epoch_has_each_row_once_whatever_is_drawn_when(
        rows in 1u64..200,
        counts in prop::collection::vec(1usize..50, 1..10),
    ) {
        for (kind, epoch_rows) in with_epochs() {
            let mut next = counts.iter().cycle();
            go_through(&kind, epoch_rows(rows), rows, 3, || *next.next().unwrap());
        }
    }
}

#[test]
fn those_without_epochs_give_as_many_rows_as_asked_for() {
    for kind in kinds().iter().filter(|kind| kind.epoch_rows.is_none()) {
        for rows in [1, 3, 60] {
            let (mut sampler, mut rng) = ((kind.make)(rows), Rng::seed_from_u64(1));
            for count in [1, rows as usize, rows as usize + 3, 500, 1] {
                let count = at_most(kind, count, rows);
                let drawn = draw(&mut *sampler, &mut rng, rows, count);
                assert_eq!((drawn.rows.len(), drawn.probabilities.len()), (count, count), "{}", kind.name);
                assert!(drawn.rows.iter().all(|row| *row < rows));
                assert_eq!(sampler.epoch(), None);
            }
        }
    }
}

#[test]
fn a_draw_of_no_rows_gives_none_and_changes_nothing() {
    for kind in kinds() {
        let (mut sampler, mut rng) = ((kind.make)(60), Rng::seed_from_u64(1));
        // At the beginning, in the middle and at the end of an epoch.
        for rounds in 0..8 {
            let before = (state(&mut *sampler, 60), rng.clone(), sampler.epoch());
            let drawn = draw(&mut *sampler, &mut rng, 60, 0);
            assert!(drawn.rows.is_empty() && drawn.probabilities.is_empty(), "{}", kind.name);
            assert_eq!((state(&mut *sampler, 60), rng.clone(), sampler.epoch()), before, "{}", kind.name);
            draw(&mut *sampler, &mut rng, 60, [1, 11, 48][rounds % 3]);
        }
    }
}

#[test]
fn errors_leave_everything_as_it_was() {
    for kind in kinds() {
        let (mut sampler, mut rng) = ((kind.make)(60), Rng::seed_from_u64(1));
        for rounds in 0..4 {
            let before = (state(&mut *sampler, 60), rng.clone(), sampler.epoch());
            let mut check = |live: std::ops::Range<u64>, expected: SampleError| {
                let mut drawn = garbage();
                let error = sampler.draw(&mut rng, live, 5, &mut drawn).unwrap_err();
                assert_eq!(error, expected, "{}", kind.name);
                assert_same(&drawn, &garbage(), kind.name);
                let now = (state(&mut *sampler, 60), rng.clone(), sampler.epoch());
                assert_eq!(now, before, "{}", kind.name);
            };
            check(0..0, SampleError::Empty);
            check(60..60, SampleError::Empty);
            if kind.fixed {
                check(0..61, SampleError::Rows { expected: 60, found: 61 });
                check(0..59, SampleError::Rows { expected: 60, found: 59 });
                check(5..60, SampleError::Rows { expected: 60, found: 55 });
            }
            draw(&mut *sampler, &mut rng, 60, [20, 40, 60, 7][rounds]);
        }
        assert!(sampler.priorities().is_none());
    }
    let message = SampleError::Rows { expected: 60, found: 61 }.to_string();
    assert_eq!(
        message,
        "the sampler was made for 60 rows and is to draw from 61; make one for this data set"
    );
}

#[test]
fn rows_need_not_begin_at_0() {
    for kind in kinds() {
        let (mut here, mut there) = ((kind.make)(60), (kind.make)(60));
        let (mut rng, mut other) = (Rng::seed_from_u64(1), Rng::seed_from_u64(1));
        for _ in 0..20 {
            let a = draw(&mut *here, &mut rng, 60, 13);
            let mut b = garbage();
            there.draw(&mut other, 1_000..1_060, 13, &mut b).unwrap();
            b.rows.iter_mut().for_each(|row| *row -= 1_000);
            assert_same(&a, &b, kind.name);
        }
    }
}

#[test]
fn one_seed_gives_the_same_draws_and_another_does_not() {
    for kind in kinds() {
        let run = |seed| {
            let (mut sampler, mut rng) = ((kind.make)(60), Rng::seed_from_u64(seed));
            Vec::from_iter((0..30).map(|_| draw(&mut *sampler, &mut rng, 60, 13).rows))
        };
        assert_eq!(run(2), run(2), "{}", kind.name);
        assert_eq!(run(2) != run(3), kind.random, "{}", kind.name);
    }
}

/// From every place in two epochs: what was saved there goes on as the sampler did that was never saved.
#[test]
fn what_was_saved_goes_on_as_if_nothing_had_been() {
    for kind in kinds() {
        for rows in [1, 5, 61] {
            for count in [1, 7, 61] {
                let count = at_most(&kind, count, rows);
                let about = format!("{}, {rows} rows, {count} at a time", kind.name);
                let (mut sampler, mut rng) = ((kind.make)(rows), Rng::seed_from_u64(51));
                let (mut saved, mut expected) = (Vec::new(), Vec::new());
                let rounds = 4 * (rows as usize).div_ceil(count);
                for _ in 0..rounds {
                    saved.push((state(&mut *sampler, rows), rng.clone(), sampler.epoch()));
                    expected.push(draw(&mut *sampler, &mut rng, rows, count));
                }
                for (round, (saved, rng, epoch)) in saved.iter().enumerate().take(rounds / 2) {
                    // Into a new one, and into one that is elsewhere.
                    for used in [0, 3] {
                        let (mut other, mut unlike) = ((kind.make)(rows), Rng::seed_from_u64(7));
                        (0..used).for_each(|_| _ = draw(&mut *other, &mut unlike, rows, count));
                        saved.load(|v| other.visit(0..rows, v)).unwrap();
                        assert_eq!(state(&mut *other, rows).differences(saved), [""; 0], "{about}");
                        assert_eq!(other.epoch(), *epoch, "{about}");
                        let mut rng = rng.clone();
                        for expected in &expected[round..] {
                            let drawn = draw(&mut *other, &mut rng, rows, count);
                            assert_same(&drawn, expected, &format!("{about}, saved in round {round}"));
                        }
                    }
                }
            }
        }
    }
}

/// A state that is damaged or another data set's is refused, and nothing has changed then.
#[test]
fn a_state_that_does_not_fit_is_refused() {
    let number = |n: u64| Piece::Array {
        dtype: rl_minibatch::Dtype::I64,
        shape: vec![1],
        bytes: n.to_ne_bytes().to_vec(),
    };
    let check = |sampler: &mut dyn Sampler, damaged: &MemoryState, message: &str| {
        let before = state(sampler, 60);
        let error = damaged.load(|v| sampler.visit(0..60, v)).unwrap_err().to_string();
        assert!(error.contains(message), "{error}, where {message} was expected");
        assert_eq!(state(sampler, 60), before);
        draw(sampler, &mut Rng::seed_from_u64(3), 60, 50);
    };
    for (kind, epoch_rows) in with_epochs() {
        let (mut sampler, mut rng) = ((kind.make)(60), Rng::seed_from_u64(1));
        draw(&mut *sampler, &mut rng, 60, 20);
        let saved = state(&mut *sampler, 60);
        let mut other = (kind.make)(54);
        check(&mut *sampler, &state(&mut *other, 54), "was saved with 54 rows and there are 60");
        for (piece, value, message) in [
            ("drawn", 61, format!("61 of {} rows cannot have been drawn", epoch_rows(60))),
            ("epoch_rows", 3, format!("an epoch had 3 rows when saved and has {}", epoch_rows(60))),
        ] {
            let mut damaged = saved.clone();
            *damaged.get_mut(piece).unwrap() = number(value);
            check(&mut *sampler, &damaged, &message);
        }
        let mut damaged = saved.clone();
        damaged.remove("drawn");
        check(&mut *sampler, &damaged, "'drawn' is missing");
    }
    let three = |numbers: [u64; 3]| Piece::Array {
        dtype: rl_minibatch::Dtype::I64,
        shape: vec![3],
        bytes: bytemuck::cast_slice(&numbers).to_vec(),
    };
    let mut stratified = Stratified::new(&labels(60), 3).unwrap();
    draw(&mut stratified, &mut Rng::seed_from_u64(1), 60, 12);
    let mut damaged = state(&mut stratified, 60);
    *damaged.get_mut("taken").unwrap() = three([31, 0, 0]);
    check(&mut stratified, &damaged, "31 rows of class 0 cannot have been drawn, which has 30");
    *damaged.get_mut("taken").unwrap() = three([6, 4, 3]);
    check(
        &mut stratified,
        &damaged,
        "13 rows of all classes and 12 of the epoch cannot both have been drawn",
    );
    let mut balanced = ClassBalanced::new(&labels(60), 3).unwrap();
    draw(&mut balanced, &mut Rng::seed_from_u64(1), 60, 20);
    let mut damaged = state(&mut balanced, 60);
    *damaged.get_mut("come").unwrap() = number(4);
    check(&mut balanced, &damaged, "4 of 3 classes cannot have come");
    let mut damaged = state(&mut balanced, 60);
    *damaged.get_mut("taken").unwrap() = three([1, 21, 1]);
    check(&mut balanced, &damaged, "21 of 20 rows of class 1 cannot have come");
}

/// The first batch of an epoch, many times. 12 of 60 rows are whole rows of each class, so that no rounding favours one.
fn first_batches(kind: &Kind, batches: usize, mut look: impl FnMut(&Drawn)) {
    let (mut sampler, mut rng) = ((kind.make)(60), Rng::seed_from_u64(41));
    for _ in 0..batches {
        look(&draw(&mut *sampler, &mut rng, 60, 12));
        while sampler.epoch().is_some_and(|epoch| epoch.drawn < epoch.rows) {
            draw(&mut *sampler, &mut rng, 60, 100);
        }
    }
}

#[test]
fn rows_come_as_often_as_stated() {
    for kind in kinds().iter().filter(|kind| kind.random && kind.steady) {
        let (batches, mut counts, mut stated) = (10_000, [0u64; 60], [0f64; 60]);
        first_batches(kind, batches, |drawn| {
            for (row, probability) in drawn.rows.iter().zip(&drawn.probabilities) {
                counts[*row as usize] += 1;
                let before = std::mem::replace(&mut stated[*row as usize], *probability);
                assert!(before == 0.0 || before == *probability, "{}", kind.name);
            }
            let could_be = if kind.weighted { positive(60) } else { 60 };
            assert_eq!(drawn.population, could_be, "{}", kind.name);
        });
        let could_be = || stated.iter().copied().filter(|p| *p > 0.0);
        let sum: f64 = could_be().sum();
        assert!((sum - 1.0).abs() < 1e-12, "{}: probabilities sum to {sum}", kind.name);
        let lowest = draw(&mut *(kind.make)(60), &mut Rng::seed_from_u64(1), 60, 1).lowest.unwrap();
        assert_eq!(lowest, could_be().fold(1.0, f64::min), "{}", kind.name);
        // Rows that do not repeat and classes in turn only make counts more even.
        let draws = (batches * 12) as f64;
        let term = |(count, p): (&u64, &f64)| (*count as f64 - draws * p).powi(2) / (draws * p);
        let chi2: f64 = counts.iter().zip(&stated).filter(|(_, p)| **p > 0.0).map(term).sum();
        let degrees = could_be().count() as f64 - 1.0;
        assert!(chi2 < chi2_limit(degrees), "{}: χ² = {chi2} of {degrees} degrees", kind.name);
    }
}

/// What importance weights are for: with β = 1 the weighted mean over a batch is that of all rows, on average.
#[test]
fn weights_give_the_mean_over_all_rows() {
    for kind in kinds().iter().filter(|kind| kind.random) {
        let could_be = |row: &u64| !kind.weighted || weight(*row) > 0.0;
        // Rows of more weight have larger values, and others, so that wrong weights show.
        let value = |row: u64| weight(row) * 10.0 + row as f64 / 10.0;
        let rows: Vec<f64> = (0..60).filter(could_be).map(value).collect();
        let expected = rows.iter().sum::<f64>() / rows.len() as f64;
        let (batches, mut sum, mut squares) = (20_000, 0.0, 0.0);
        let mut weights = [0f32; 12];
        first_batches(kind, batches, |drawn| {
            importance_weights(drawn, 1.0, WeightNorm::None, &mut weights);
            let terms = drawn.rows.iter().zip(&weights).map(|(row, w)| value(*row) * f64::from(*w));
            let mean = terms.sum::<f64>() / 12.0;
            (sum, squares) = (sum + mean, squares + mean * mean);
            importance_weights(drawn, 0.5, WeightNorm::PopulationMax, &mut weights);
            assert!(weights.iter().all(|w| *w <= 1.0), "{}", kind.name);
        });
        let mean = sum / batches as f64;
        let error = ((squares / batches as f64 - mean * mean) / batches as f64).sqrt();
        let away = (mean - expected).abs() / error;
        // Two-sided, one in a million.
        assert!(away < 4.9, "{}: {mean} for {expected}, {away} standard errors", kind.name);
    }
}

#[test]
fn nothing_is_allocated_in_the_steady_state() {
    for kind in kinds() {
        let (mut sampler, mut rng, mut drawn) = ((kind.make)(600), Rng::seed_from_u64(1), Drawn::default());
        let mut rounds = |count| {
            for _ in 0..count {
                sampler.draw(&mut rng, 0..600, 64, &mut drawn).unwrap();
            }
        };
        rounds(30);
        // With the beginnings of several epochs.
        let info = measure(|| rounds(100));
        assert_eq!((info.count_total, info.bytes_total), (0, 0), "{}", kind.name);
    }
}
