//! Rows that go one by one: how often each is drawn, what is allocated, who waits, and what threads see.

use allocation_counter::measure;
use rand::{RngExt, SeedableRng};
use rl_replay::{
    Batch, Drawn, Dtype, Field, MemoryState, Prioritized, RateLimiter, Removal, ReplayError, Rng, Schema,
    Selection, SelectiveBuilder, SelectiveReplay, SelectiveWriter, WeightNorm, WhenLimited,
    importance_weights,
};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

fn schema() -> Schema {
    Schema::new(vec![Field::new("x", Dtype::I64, []), Field::new("sum", Dtype::I64, [7])]).unwrap()
}

/// A row that shows whether it is whole.
fn row(x: u64) -> ([u8; 8], [u8; 56]) {
    let sums: Vec<u8> = (1..8u64).flat_map(|i| x.wrapping_mul(0x9E37_79B9 * i).to_ne_bytes()).collect();
    (x.to_ne_bytes(), sums.try_into().unwrap())
}

fn builder(capacity: usize) -> SelectiveBuilder {
    SelectiveReplay::builder(schema()).capacity(capacity)
}

fn fill(replay: &SelectiveReplay, rows: u64) {
    let mut writer = replay.writer();
    for x in 0..rows {
        let (x, sum) = row(x);
        writer.push(&[&x, &sum]).unwrap();
    }
}

/// Σ (observed − expected)² / expected.
fn chi2(counts: &[u64], expected: impl Fn(usize) -> f64) -> f64 {
    counts.iter().enumerate().map(|(i, c)| (*c as f64 - expected(i)).powi(2) / expected(i)).sum()
}

/// Each bound below is exceeded by a correct buffer with probability 1e-6, once and for all, for the seeds are fixed.
const CHI2_49: f64 = 107.0;

#[test]
fn rows_are_drawn_as_often_as_is_stated() {
    let settings = Prioritized { alpha: 0.7, epsilon: 0.01 };
    for selection in [Selection::Uniform, Selection::Proportional(settings)] {
        let replay = builder(50).draw(selection).build().unwrap();
        // More rows than stay, so that slots have been given to others.
        fill(&replay, 130);
        let mut reader = replay.sampler();
        let keys = replay.keys();
        let magnitudes: Vec<f32> = (0..50).map(|i| (i % 7) as f32).collect();
        let weights: Vec<f64> = match selection {
            Selection::Proportional(_) => {
                reader.update_priorities(&keys, &magnitudes).unwrap();
                magnitudes.iter().map(|m| (f64::from(*m) + 0.01).powf(0.7)).collect()
            }
            _ => vec![1.0; 50],
        };
        let (mut batch, mut drawn) = (Batch::new(&schema(), 500), Drawn::default());
        let (mut rng, mut counts, rounds) = (Rng::seed_from_u64(17), vec![0; 50], 1_000);
        for _ in 0..rounds {
            reader.sample_into(&mut rng, 500, &mut batch.view_mut(), &mut drawn).unwrap();
            for (key, probability) in drawn.rows.iter().zip(&drawn.probabilities) {
                let at = (key - keys[0]) as usize;
                counts[at] += 1;
                assert!((probability - weights[at] / weights.iter().sum::<f64>()).abs() < 1e-12);
            }
        }
        let total: f64 = weights.iter().sum();
        let chi2 = chi2(&counts, |i| rounds as f64 * 500.0 * weights[i] / total);
        assert!(chi2 < CHI2_49, "{selection:?}: χ² = {chi2}");
        assert_eq!(replay.statistics().sampled, 500 * rounds);
    }
}

/// Rows that expire within a batch: what is drawn last depends on what went before. All orders of three rows that are each
/// drawn once, against the product of the probabilities that the draws have one after the other.
#[test]
fn draws_within_a_batch_follow_each_other() {
    let settings = Prioritized { alpha: 1.0, epsilon: 0.0 };
    for (selection, weights) in
        [(Selection::Uniform, [1.0f64; 3]), (Selection::Proportional(settings), [1.0, 2.0, 5.0])]
    {
        let replay = builder(3).draw(selection).expire_after(1).build().unwrap();
        let (mut writer, mut reader, mut rng) = (replay.writer(), replay.sampler(), Rng::seed_from_u64(3));
        let (mut batch, mut drawn) = (Batch::new(&schema(), 3), Drawn::default());
        let (mut counts, rounds) = ([0u64; 27], 60_000u64);
        for round in 0..rounds {
            for (i, weight) in (0..).zip(weights) {
                let (x, sum) = row(i);
                match selection {
                    Selection::Uniform => writer.push(&[&x, &sum]).unwrap(),
                    _ => writer.push_with_priority(&[&x, &sum], weight as f32).unwrap(),
                };
            }
            reader.sample_into(&mut rng, 3, &mut batch.view_mut(), &mut drawn).unwrap();
            let [a, b, c] = [0, 1, 2].map(|i| (drawn.rows[i] - 3 * round) as usize);
            counts[a * 9 + b * 3 + c] += 1;
            let left = [8.0, 8.0 - weights[a], 8.0 - weights[a] - weights[b]].map(|left| match selection {
                Selection::Uniform => left - 5.0,
                _ => left,
            });
            for ((at, left), probability) in [a, b, c].into_iter().zip(left).zip(&drawn.probabilities) {
                assert!((probability - weights[at] / left).abs() < 1e-12);
            }
        }
        let total: f64 = weights.iter().sum();
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let observed = orders.map(|[a, b, c]| counts[a * 9 + b * 3 + c]);
        assert_eq!(observed.iter().sum::<u64>(), rounds, "each row comes once");
        let chi2 = chi2(&observed, |i| {
            let [a, b, _] = orders[i];
            rounds as f64 * weights[a] / total * weights[b] / (total - weights[a])
        });
        // 5 degrees of freedom, 1e-6.
        assert!(chi2 < 36.0, "{selection:?}: χ² = {chi2}");
    }
}

#[test]
fn random_removal_takes_every_row_equally_often() {
    let mut counts = vec![0; 50];
    for seed in 0..5_000 {
        let replay = builder(49).remove(Removal::Uniform { seed }).build().unwrap();
        let mut writer = replay.writer();
        writer.push_rows(50, &[&[0; 400], &[0; 2800]]).unwrap();
        let keys = replay.keys();
        counts[(0..50).find(|key| !keys.contains(key)).unwrap() as usize] += 1;
    }
    let chi2 = chi2(&counts, |_| 100.0);
    assert!(chi2 < CHI2_49, "χ² = {chi2}");
}

#[test]
fn drawing_allocates_nothing() {
    for selection in [
        Selection::Uniform,
        Selection::Proportional(Prioritized::default()),
        Selection::OldestFirst,
        Selection::NewestFirst,
        Selection::HighestPriority,
        Selection::LowestPriority,
    ] {
        for expire_after in [u32::MAX, 1_000, 3] {
            let builder = builder(4_000).draw(selection).remove(Removal::LowestPriority);
            let replay = builder.expire_after(expire_after).build().unwrap();
            fill(&replay, 9_000);
            let (mut reader, mut rng) = (replay.sampler(), Rng::seed_from_u64(1));
            let (mut batch, mut drawn) = (Batch::new(&schema(), 64), Drawn::default());
            let magnitudes: Vec<f32> = (0..64).map(|i| i as f32).collect();
            let mut weights = [0.0; 64];
            let mut step = || {
                reader.sample_into(&mut rng, 64, &mut batch.view_mut(), &mut drawn).unwrap();
                importance_weights(&drawn, 0.5, WeightNorm::BatchMax, &mut weights);
                reader.update_priorities(&drawn.rows, &magnitudes).unwrap();
            };
            (0..50).for_each(|_| step());
            let info = measure(|| (0..100).for_each(|_| step()));
            assert_eq!((info.count_total, info.bytes_total), (0, 0), "{selection:?}, {expire_after}");
        }
    }
    // A full buffer whose rows nobody reads: the memory of the row that goes is that of the next one.
    let replay = builder(100).build().unwrap();
    let (mut writer, (x, sum)) = (replay.writer(), row(1));
    let push = |writer: &mut SelectiveWriter| {
        for _ in 0..300 {
            writer.push(&[&x, &sum]).unwrap();
        }
    };
    push(&mut writer);
    let info = measure(|| push(&mut writer));
    assert_eq!((info.count_total, info.bytes_total), (0, 0), "push");
    // One that fills allocates a row for each.
    let replay = builder(1_000).build().unwrap();
    let mut writer = replay.writer();
    writer.push(&[&x, &sum]).unwrap();
    let info = measure(|| push(&mut writer));
    assert_eq!(info.count_total, 300);
}

/// What is stated is at least what is taken, and not much more.
#[test]
fn memory_is_stated_before_it_is_taken() {
    for (selection, removal) in [
        (Selection::Uniform, Removal::OldestFirst),
        (Selection::Proportional(Prioritized::default()), Removal::LowestPriority),
        (Selection::HighestPriority, Removal::LowestPriority),
    ] {
        let builder = builder(1 << 15).draw(selection).remove(removal);
        let stated = builder.memory_bytes();
        let mut replay = None;
        let info = measure(|| {
            let built = builder.build().unwrap();
            fill(&built, 1 << 15);
            replay = Some(built);
        });
        let taken = info.bytes_current as f64;
        assert_eq!(replay.unwrap().memory_bytes(), stated);
        // What the allocator adds (8 bytes a row, rounding) is stated and cannot be seen here.
        assert!((0.85..1.0).contains(&(taken / stated as f64)), "{taken} of {stated} bytes");
    }
}

#[test]
fn the_limiter_waits_for_draws_that_are_left() {
    let limiter = RateLimiter { min_size: 1, samples_per_insert: 1.0, error_buffer: 100.0 };
    let replay = builder(100).expire_after(2).rate_limiter(limiter).build().unwrap();
    let (mut batch, mut drawn, mut rng) =
        (Batch::new(&schema(), 300), Drawn::default(), Rng::seed_from_u64(0));
    fill(&replay, 3);
    let mut refusing = replay.sampler().when_limited(WhenLimited::Refuse);
    let mut draw = |reader: &mut rl_replay::SelectiveReader, count| {
        reader.sample_into(&mut rng, count, &mut batch.view_mut(), &mut drawn)
    };
    let error = draw(&mut refusing, 7).unwrap_err();
    assert!(error.to_string().contains("the rows have 6 draws left until they expire"), "{error}");
    assert!(matches!(draw(&mut refusing, 201), Err(ReplayError::DrawsLeft { left: 6, most: 200, .. })));
    draw(&mut refusing, 4).unwrap();
    let mut patient = replay.sampler().when_limited(WhenLimited::Timeout(Duration::from_millis(20)));
    assert!(matches!(draw(&mut patient, 3), Err(ReplayError::TimedOut { .. })));
    let writer = thread::spawn({
        let replay = replay.clone();
        move || {
            thread::sleep(Duration::from_millis(30));
            fill(&replay, 1);
        }
    });
    draw(&mut replay.sampler(), 4).unwrap();
    writer.join().unwrap();
    assert_eq!((replay.len(), replay.statistics().removed_expired), (0, 4));
    drop((refusing, patient));
    // What the limiter has counted is a part of the state.
    let saved = MemoryState::save(|v| replay.visit(v)).unwrap();
    let tight = RateLimiter { error_buffer: 3.0, ..limiter };
    let other = builder(100).expire_after(2).rate_limiter(tight).build().unwrap();
    saved.load(|v| other.visit(v)).unwrap();
    fill(&other, 1);
    // 5 inserted, 8 drawn: D = −3, and min_diff is −2.
    let mut reader = other.sampler().when_limited(WhenLimited::Refuse);
    let error = draw(&mut reader, 1).unwrap_err();
    assert!(error.to_string().contains("would be -4, below -2"), "{error}");
    other.close();
    assert!(matches!(draw(&mut other.sampler(), 1), Err(ReplayError::Closed { .. })));
}

/// Nothing is drawn where all priorities are 0; when one rises, who waited goes on.
#[test]
fn a_priority_that_rises_wakes_who_waits() {
    let limiter = RateLimiter { min_size: 1, samples_per_insert: 1.0, error_buffer: 100.0 };
    let zero = Prioritized { alpha: 1.0, epsilon: 0.0 };
    let builder = builder(100).draw(Selection::Proportional(zero)).expire_after(2).rate_limiter(limiter);
    let replay = builder.build().unwrap();
    let (x, sum) = row(0);
    replay.writer().push_with_priority(&[&x, &sum], 0.0).unwrap();
    assert_eq!(replay.draws_left(), Some(0));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let (mut batch, mut drawn) = (Batch::new(&schema(), 2), Drawn::default());
            replay.sampler().sample_into(&mut Rng::seed_from_u64(0), 2, &mut batch.view_mut(), &mut drawn)
        });
        thread::sleep(Duration::from_millis(30));
        assert!(!waiting.is_finished());
        replay.sampler().update_priorities(&[0], &[1.0]).unwrap();
        waiting.join().unwrap().unwrap();
    });
    assert!(replay.is_empty());
}

/// Two writers, three readers: every row comes out of the queue once, whole, in its writer's order, and none is lost.
#[test]
fn a_queue_among_threads_loses_nothing() {
    const EACH: u64 = 20_000;
    let replay = builder(37).queue().build().unwrap();
    let taken = Mutex::new(vec![0u8; 2 * EACH as usize]);
    thread::scope(|scope| {
        for writer in 0..2 {
            let mut handle = replay.writer();
            scope.spawn(move || {
                let mut next = 0;
                while next < EACH {
                    // Singly, and in blocks.
                    let rows = if next % 3 == 0 { 1 } else { (EACH - next).min(9) };
                    let (mut xs, mut sums) = (vec![], vec![]);
                    for x in next..next + rows {
                        let (x, sum) = row(2 * x + writer);
                        xs.extend(x);
                        sums.extend(sum);
                    }
                    handle.push_rows(rows as usize, &[&xs, &sums]).unwrap();
                    next += rows;
                }
            });
        }
        for reader in 0..3 {
            let (mut handle, taken) = (replay.sampler(), &taken);
            scope.spawn(move || {
                let count = [1, 5, 10][reader];
                let (mut batch, mut drawn) = (Batch::new(&schema(), count), Drawn::default());
                let (mut rng, mut last) = (Rng::seed_from_u64(0), [0; 2]);
                loop {
                    match handle.sample_into(&mut rng, count, &mut batch.view_mut(), &mut drawn) {
                        Ok(()) => {}
                        // The writers are gone, and a larger batch is not to come.
                        Err(ReplayError::Abandoned { .. }) => return,
                        Err(error) => panic!("{error}"),
                    }
                    let sums = batch.column(1).as_chunks::<56>().0;
                    let xs = batch.typed::<i64>("x").unwrap();
                    for ((x, sum), key) in xs.iter().zip(sums).zip(&drawn.rows) {
                        assert_eq!(row(*x as u64).1, *sum, "a row is whole");
                        let last = &mut last[(x % 2) as usize];
                        assert!(*last == 0 || last < &mut (key + 1), "the oldest comes first");
                        *last = key + 1;
                        taken.lock().unwrap()[*x as usize] += 1;
                    }
                }
            });
        }
        let owner = replay;
        // The last handle that is on neither side goes; what the readers' batches leave over stays in their hands.
        drop(owner);
    });
    let taken = taken.into_inner().unwrap();
    assert!(taken.iter().all(|times| *times <= 1), "no row comes twice");
    let lost = taken.iter().filter(|times| **times == 0).count();
    assert_eq!(lost, 0, "who draws one row at a time takes the last ones");
}

/// Rows that are removed while others copy them: each comes out whole, none more often than it may, and the counts agree.
#[test]
fn rows_are_whole_and_expire_among_threads() {
    const ROWS: u64 = 30_000;
    const MOST: u32 = 3;
    for (selection, removal) in [
        (Selection::Uniform, Removal::OldestFirst),
        (Selection::Proportional(Prioritized::default()), Removal::LowestPriority),
        (Selection::HighestPriority, Removal::Uniform { seed: 1 }),
    ] {
        let builder = builder(200).draw(selection).remove(removal).expire_after(MOST);
        let replay = builder.build().unwrap();
        let times = Mutex::new(vec![0u32; 2 * ROWS as usize]);
        let drawn_rows = Mutex::new(0u64);
        thread::scope(|scope| {
            for writer in 0..2u64 {
                let mut handle = replay.writer();
                scope.spawn(move || {
                    for x in 0..ROWS {
                        let (x, sum) = row(2 * x + writer);
                        handle.push(&[&x, &sum]).unwrap();
                    }
                });
            }
            for reader in 0..2 {
                let (mut handle, times, drawn_rows, replay) =
                    (replay.sampler(), &times, &drawn_rows, &replay);
                scope.spawn(move || {
                    let (mut batch, mut drawn) = (Batch::new(&schema(), 32), Drawn::default());
                    let mut rng = Rng::seed_from_u64(reader);
                    let mut idle = 0;
                    while idle < 1_000 {
                        match handle.sample_into(&mut rng, 32, &mut batch.view_mut(), &mut drawn) {
                            Ok(()) => idle = 0,
                            Err(ReplayError::DrawsLeft { .. } | ReplayError::Sample(_)) => {
                                idle += u32::from(replay.inserted() == 2 * ROWS);
                                thread::yield_now();
                                continue;
                            }
                            Err(error) => panic!("{error}"),
                        }
                        let sums = batch.column(1).as_chunks::<56>().0;
                        let xs = batch.typed::<i64>("x").unwrap();
                        let mut times = times.lock().unwrap();
                        for ((x, sum), key) in xs.iter().zip(sums).zip(&drawn.rows) {
                            assert_eq!(row(*x as u64).1, *sum, "a row is whole");
                            times[*key as usize] += 1;
                        }
                        *drawn_rows.lock().unwrap() += 32;
                        if selection != Selection::Uniform {
                            let magnitudes: Vec<f32> = (0..32).map(|_| rng.random()).collect();
                            handle.update_priorities(&drawn.rows, &magnitudes).unwrap();
                        }
                    }
                });
            }
        });
        let (times, drawn_rows) = (times.into_inner().unwrap(), drawn_rows.into_inner().unwrap());
        assert!(times.iter().all(|times| *times <= MOST), "a row was drawn too often");
        let counts = replay.statistics();
        let expired = times.iter().filter(|times| **times == MOST).count() as u64;
        assert_eq!((counts.sampled, counts.removed_expired), (drawn_rows, expired));
        assert_eq!(counts.inserted, 2 * ROWS);
        assert_eq!(counts.removed_for_room + counts.removed_expired + replay.len() as u64, counts.inserted);
        assert_eq!(times.iter().map(|times| u64::from(*times)).sum::<u64>(), drawn_rows);
    }
}
