//! Statistics of a buffer against a plain model, and under threads.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rl_replay::{
    Batch, Combined, Drawn, DrawnEpisodes, Dtype, EpisodeReader, EpisodeWriter, Field, FrameReplay,
    FrameStep, Hindsight, HindsightSpec, Histogram, MemoryState, Mixed, Mixture, Prioritized, Proportional,
    Reader, Replay, Rng, Schema, Statistics, Uniform,
};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn schema() -> Schema {
    Schema::new(vec![Field::new("key", Dtype::I64, [])]).unwrap()
}

fn push(replay: &Replay, rows: usize) {
    replay.writer().push_rows(rows, &[&vec![0; 8 * rows]]).unwrap();
}

/// A histogram made by looking for the first of 0, 1, 2, 4, 8, … that is not below each number.
fn histogram(values: impl IntoIterator<Item = u64>) -> Histogram {
    let mut histogram = Histogram::default();
    for value in values {
        let bounds = [0].into_iter().chain((0..63).map(|bit| 1u64 << bit));
        let position = bounds.take_while(|bound| *bound < value).count();
        let length = histogram.counts.len().max(position + 1);
        histogram.counts.resize(length, 0);
        histogram.counts[position] += 1;
        histogram.sum += value as f64;
    }
    histogram
}

#[derive(Clone, Debug)]
enum Op {
    Push,
    PushRows(usize),
    /// By one of three readers, which may be made anew first.
    Draw(usize, usize, bool),
    /// Draws without copying, then copies rows of its own choice.
    DrawPinned(usize),
    /// Keys, counted back from the next one to be inserted.
    Update(Vec<u64>),
    /// Saved, and loaded into this or into another buffer.
    Restart(bool),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => Just(Op::Push),
        2 => (1usize..40).prop_map(Op::PushRows),
        6 => (0usize..3, 0usize..20, any::<bool>()).prop_map(|(reader, count, anew)| Op::Draw(reader, count, anew)),
        1 => (0usize..20).prop_map(Op::DrawPinned),
        2 => prop::collection::vec(0u64..80, 0..10).prop_map(Op::Update),
        1 => any::<bool>().prop_map(Op::Restart),
    ];
    prop::collection::vec(op, 1..80)
}

/// What was counted, in plain lists.
#[derive(Default)]
struct Model {
    inserted: u64,
    stale: u64,
    ages: Vec<u64>,
    /// Of each row ever inserted.
    draws: Vec<u64>,
    /// The oldest row that a loaded state had.
    first: u64,
}

impl Model {
    fn insert(&mut self, rows: u64) {
        self.inserted += rows;
        self.draws.resize(self.inserted as usize, 0);
    }

    fn drawn(&mut self, keys: &[u64]) {
        for &key in keys {
            self.ages.push(self.inserted - 1 - key);
            self.draws[key as usize] += 1;
        }
    }

    fn check(&self, statistics: &Statistics, capacity: u64, count_draws: bool) -> Result<(), TestCaseError> {
        let oldest = self.inserted.saturating_sub(capacity);
        prop_assert_eq!(statistics.capacity, capacity);
        prop_assert_eq!(statistics.len, self.inserted - oldest);
        prop_assert_eq!(statistics.inserted, self.inserted);
        prop_assert_eq!(statistics.overwritten, oldest);
        prop_assert_eq!(statistics.sampled, self.ages.len() as u64);
        prop_assert_eq!(statistics.stale_priorities, self.stale);
        prop_assert_eq!(statistics.ages.total(), statistics.sampled);
        prop_assert_eq!(statistics.ages_exact, count_draws);
        prop_assert_eq!(statistics.times_sampled.is_some(), count_draws);
        if let Some(times) = &statistics.times_sampled {
            prop_assert_eq!(&statistics.ages, &histogram(self.ages.iter().copied()));
            let of = |keys: Range<u64>| histogram(keys.map(|key| self.draws[key as usize]));
            prop_assert_eq!(&times.live, &of(oldest..self.inserted));
            prop_assert_eq!(&times.overwritten, &of(self.first..oldest));
            prop_assert_eq!(times.live.sum + times.overwritten.sum, statistics.sampled as f64);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn what_is_counted_is_what_happened(
        capacity in 1usize..50,
        reserve in 1usize..8,
        count_draws: bool,
        prioritized: bool,
        ops in ops(),
        seed: u64,
    ) {
        let build = || {
            let builder = Replay::builder(schema()).capacity(capacity).reserve(reserve);
            let builder = if prioritized { builder.prioritized(Prioritized::default()) } else { builder };
            if count_draws { builder.count_draws() } else { builder }.build().unwrap()
        };
        let mut replay = build();
        let mut readers: [Reader; 3] = std::array::from_fn(|_| replay.sampler());
        let mut model = Model::default();
        let mut rng = Rng::seed_from_u64(seed);
        let (mut batch, mut drawn) = (Batch::new(&schema(), 20), Drawn::default());
        for op in ops {
            match op {
                Op::Push => {
                    replay.writer().push(&[&[0; 8]]).unwrap();
                    model.insert(1);
                }
                Op::PushRows(rows) => {
                    push(&replay, rows);
                    model.insert(rows as u64);
                }
                Op::Draw(reader, count, anew) => {
                    if anew {
                        readers[reader] = replay.sampler();
                    }
                    let result = readers[reader].sample_into(&mut rng, count, &mut batch.view_mut(), &mut drawn);
                    if result.is_ok() {
                        model.drawn(&drawn.rows);
                    }
                    prop_assert_eq!(result.is_ok(), model.inserted > 0);
                }
                Op::DrawPinned(count) if model.inserted > 0 => {
                    let mut pinned = readers[0].pin().unwrap();
                    let live: Vec<u64> = pinned.live().collect();
                    pinned.gather(&live[..live.len().min(20)], &mut batch.view_mut()).unwrap();
                    pinned.draw(&mut rng, count, &mut drawn).unwrap();
                    model.drawn(&drawn.rows);
                }
                Op::DrawPinned(_) => {}
                Op::Update(back) => {
                    let keys: Vec<u64> = back.iter().map(|back| model.inserted.saturating_sub(*back)).collect();
                    let result = readers[1].update_priorities(&keys, &vec![1.0; keys.len()]);
                    prop_assert_eq!(result.is_ok(), prioritized);
                    if prioritized {
                        let live = replay.live();
                        model.stale += keys.iter().filter(|key| !live.contains(key)).count() as u64;
                    }
                }
                Op::Restart(into_another) => {
                    let saved = MemoryState::save(|v| replay.visit(v)).unwrap();
                    if into_another {
                        replay = build();
                        readers = std::array::from_fn(|_| replay.sampler());
                    }
                    saved.load(|v| replay.visit(v)).unwrap();
                    model.ages.clear();
                    model.draws.fill(0);
                    model.first = model.inserted.saturating_sub(capacity as u64);
                }
            }
            model.check(&replay.statistics(), capacity as u64, count_draws)?;
        }
    }
}

/// The value that χ² of this many degrees of freedom exceeds with probability 1e-6 (Wilson and Hilferty 1931).
fn chi2_limit(degrees: f64) -> f64 {
    let (z, spread) = (4.753_424, 2.0 / (9.0 * degrees));
    degrees * (1.0 - spread + z * spread.sqrt()).powi(3)
}

/// One row of each batch tells the ages of all of them, where the place in the batch says much about the age: the newest
/// rows last, or each place a stratum of its own, the ring moving on with every batch by just as much as a stratum.
#[test]
fn ages_are_estimated_without_bias() {
    const BATCH: usize = 64;
    const STEP: usize = 16;
    const ROWS: usize = BATCH * STEP;
    const BATCHES: u64 = 20_000;
    let proportional = || Proportional::new(ROWS as u64, Prioritized::default()).unwrap();
    let replays = [
        Replay::builder(schema()).capacity(ROWS).uniform(),
        Replay::builder(schema()).capacity(ROWS).sampler(Box::new(proportional())),
        Replay::builder(schema())
            .capacity(ROWS)
            .sampler(Box::new(Combined::new(Box::new(Uniform), 8).unwrap())),
    ];
    for (number, builder) in replays.into_iter().enumerate() {
        let replay = builder.build().unwrap();
        push(&replay, ROWS);
        let (mut reader, mut rng) = (replay.sampler(), Rng::seed_from_u64(3));
        let (mut batch, mut drawn) = (Batch::new(&schema(), BATCH), Drawn::default());
        let mut ages = Vec::new();
        for _ in 0..BATCHES {
            reader.sample_into(&mut rng, BATCH, &mut batch.view_mut(), &mut drawn).unwrap();
            ages.extend(drawn.rows.iter().map(|key| replay.inserted() - 1 - key));
            push(&replay, STEP);
        }
        let (truth, told) = (histogram(ages), replay.statistics().ages);
        assert_eq!((truth.total(), truth.counts.len()), (told.total(), told.counts.len()));
        // Of each batch one row was counted, as often as there are rows in it. Small buckets go together.
        let pairs = truth.counts.iter().zip(&told.counts).map(|(all, told)| {
            assert_eq!(told % BATCH as u64, 0);
            (*all as f64 / BATCH as f64, (told / BATCH as u64) as f64)
        });
        let (small, mut large): (Vec<_>, Vec<_>) = pairs.partition(|(expected, _)| *expected < 50.0);
        large.push(small.iter().fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1)));
        large.retain(|(expected, _)| *expected > 0.0);
        let chi2: f64 = large.iter().map(|(expected, seen)| (seen - expected).powi(2) / expected).sum();
        let limit = chi2_limit(large.len() as f64 - 1.0);
        assert!(chi2 < limit, "sampler {number}: χ² = {chi2:.1}, and {limit:.1} is allowed: {truth} {told}");
        assert!((told.mean().unwrap() / truth.mean().unwrap() - 1.0).abs() < 0.03);
    }
}

/// Batches of several sizes count by their size.
#[test]
fn a_large_batch_counts_for_more() {
    let replay = Replay::builder(schema()).capacity(10).build().unwrap();
    let (mut reader, mut rng) = (replay.sampler(), Rng::seed_from_u64(3));
    let (mut batch, mut drawn) = (Batch::new(&schema(), 90), Drawn::default());
    push(&replay, 1);
    reader.sample_into(&mut rng, 90, &mut batch.view_mut(), &mut drawn).unwrap();
    reader.sample_into(&mut rng, 0, &mut batch.view_mut(), &mut drawn).unwrap();
    push(&replay, 10);
    reader.sample_into(&mut rng, 10, &mut batch.view_mut(), &mut drawn).unwrap();
    let ages = replay.statistics().ages;
    assert!(ages.counts[0] == 90 || ages.counts[0] == 100, "{ages}");
    assert_eq!(ages.total(), 100);
    assert!(replay.sampler().sample_into(&mut rng, 91, &mut batch.view_mut(), &mut drawn).is_err());
    assert_eq!(replay.statistics().sampled, 100);
}

/// Writers lap a small ring while readers draw and statistics are read: at the end every draw is found at its row.
#[test]
fn no_draw_is_lost_or_counted_for_another_row() {
    for (capacity, reserve) in [(7, 1), (64, 4), (1_000, 32)] {
        let replay =
            Replay::builder(schema()).capacity(capacity).reserve(reserve).count_draws().build().unwrap();
        let stop = AtomicBool::new(false);
        let (inserted, drawn) = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..3).map(|_| scope.spawn(|| write(&replay, &stop))).collect();
            let readers: Vec<_> = (0..3)
                .map(|seed| {
                    let (replay, stop) = (&replay, &stop);
                    scope.spawn(move || read(replay, stop, seed))
                })
                .collect();
            watch(&replay, Duration::from_millis(200));
            stop.store(true, Ordering::Relaxed);
            let inserted: u64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
            let drawn: Vec<u64> = readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect();
            (inserted, drawn)
        });
        let (statistics, live) = (replay.statistics(), replay.live());
        assert!(drawn.len() > 1_000);
        assert_eq!((statistics.inserted, statistics.sampled), (inserted, drawn.len() as u64));
        let mut draws = vec![0; inserted as usize];
        drawn.iter().for_each(|key| draws[*key as usize] += 1);
        let of = |keys: Range<u64>| histogram(keys.map(|key| draws[key as usize]));
        let times = statistics.times_sampled.unwrap();
        assert_eq!(times.live, of(live.clone()));
        assert_eq!(times.overwritten, of(0..live.start));
        assert_eq!(times.live.sum + times.overwritten.sum, drawn.len() as f64);
    }
}

/// Inserts rows, some at once, with handles that come and go; returns how many.
fn write(replay: &Replay, stop: &AtomicBool) -> u64 {
    let mut inserted = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut writer = replay.writer();
        for round in 0..500 {
            let rows = 1 + round % 5;
            writer.push_rows(rows, &[&[0; 40][..8 * rows]]).unwrap();
            inserted += rows as u64;
        }
    }
    inserted
}

/// Draws batches, with readers that come and go; returns the keys of all rows drawn.
fn read(replay: &Replay, stop: &AtomicBool, seed: u64) -> Vec<u64> {
    let mut rng = Rng::seed_from_u64(seed);
    let (mut batch, mut drawn) = (Batch::new(&schema(), 32), Drawn::default());
    let (mut keys, mut reader) = (Vec::new(), replay.sampler());
    while !stop.load(Ordering::Relaxed) {
        if rng.random_bool(0.01) {
            reader = replay.sampler();
        }
        let count = rng.random_range(0..=32);
        if reader.sample_into(&mut rng, count, &mut batch.view_mut(), &mut drawn).is_ok() {
            keys.extend_from_slice(&drawn.rows);
        }
    }
    keys
}

/// Reads statistics while others go on.
fn watch(replay: &Replay, for_how_long: Duration) {
    let (begin, mut before) = (Instant::now(), replay.statistics());
    while begin.elapsed() < for_how_long || before.sampled < 2_000 {
        let now = replay.statistics();
        assert_eq!(now.len + now.overwritten, now.inserted);
        assert!(now.inserted >= before.inserted && now.sampled >= before.sampled);
        let times = now.times_sampled.as_ref().unwrap();
        assert_eq!((now.ages.total(), times.live.total()), (now.sampled, now.len));
        before = now;
    }
}

fn episodes(count: usize) -> (Replay, Schema) {
    let f32s = |name: &str| Field::new(name, Dtype::F32, [1]);
    let scalar = |name: &str, dtype| Field::new(name, dtype, []);
    let step = [f32s("obs"), scalar("reward", Dtype::F32), f32s("next_achieved_goal"), f32s("desired_goal")];
    let rows = EpisodeWriter::schema(&Schema::new(step.to_vec()).unwrap()).unwrap();
    let replay = Replay::builder(rows.clone()).capacity(100).reserve(20).count_draws().build().unwrap();
    let mut writer = EpisodeWriter::new(&replay, 20).unwrap();
    for t in 0..10 * count {
        writer.push(&[&[0; 4], &[0; 4], &[0; 4], &[0; 4]], t % 10 == 9).unwrap();
    }
    (replay, rows)
}

/// The steps of episodes are counted, and neither padding nor the rows that were only looked at.
#[test]
fn episodes_and_windows_count_by_their_steps() {
    let (replay, rows) = episodes(12);
    let mut reader = EpisodeReader::new(&replay).unwrap();
    let (mut batch, mut drawn) = (Batch::new(&rows, 60), DrawnEpisodes::default());
    let mut rng = Rng::seed_from_u64(1);
    assert_eq!(reader.episodes().unwrap(), 10);
    assert_eq!(replay.statistics().sampled, 0);
    let mut ages = Vec::new();
    for windows in [false, true, true] {
        if windows {
            reader.sample_windows(&mut rng, 7, 3, &mut batch.view_mut(), &mut drawn).unwrap();
        } else {
            reader.sample_episodes(&mut rng, 4, 15, &mut batch.view_mut(), &mut drawn).unwrap();
        }
        for (start, length) in drawn.starts.rows.iter().zip(&drawn.lengths) {
            ages.extend((*start..start + *length as u64).map(|key| 119 - key));
        }
    }
    assert_eq!(ages.len(), 4 * 10 + 2 * 7 * 3);
    let statistics = replay.statistics();
    assert_eq!(statistics.ages, histogram(ages.iter().copied()));
    assert_eq!(statistics.times_sampled.unwrap().live.sum, ages.len() as f64);
}

/// A relabelled row is drawn once, and the row that it has its goal from is not.
#[test]
fn hindsight_counts_what_the_sampler_drew() {
    let (replay, rows) = episodes(12);
    let mut hindsight = Hindsight::new(HindsightSpec::default(), &rows, |_, _| 0.0).unwrap();
    let (mut batch, mut drawn) = (Batch::new(&rows, 60), Drawn::default());
    let (mut reader, mut rng) = (replay.sampler(), Rng::seed_from_u64(1));
    let relabelled =
        hindsight.sample_into(&mut reader, &mut rng, 60, &mut batch.view_mut(), &mut drawn).unwrap();
    assert!(relabelled > 30);
    let ages = histogram(drawn.rows.iter().map(|key| 119 - key));
    assert_eq!(replay.statistics().ages, ages);
}

/// Each buffer of a mixture counts its own share.
#[test]
fn a_mixture_counts_in_its_buffers() {
    let replays = [(); 2].map(|()| Replay::builder(schema()).capacity(9).count_draws().build().unwrap());
    replays.iter().for_each(|replay| push(replay, 9));
    let mut mixture = Mixture::new([(replays[0].sampler(), 1.0), (replays[1].sampler(), 3.0)]).unwrap();
    let (mut batch, mut mixed) = (Batch::new(&schema(), 20), Mixed::default());
    mixture.sample_into(&mut Rng::seed_from_u64(0), 20, &mut batch.view_mut(), &mut mixed).unwrap();
    for (replay, part) in replays.iter().zip(mixed.parts()) {
        let ages = histogram(part.drawn().rows.iter().map(|key| 8 - key));
        assert_eq!(replay.statistics().ages, ages);
    }
    assert_eq!(replays.each_ref().map(|replay| replay.statistics().sampled), [5, 15]);
    drop(mixture);
    assert_eq!(replays.map(|replay| replay.statistics().sampled), [5, 15]);
}

/// A buffer of frames counts its rows; those without their frames are gone.
#[test]
fn frames_count_their_rows() {
    let replay = FrameReplay::builder((Dtype::U8, &[2]), (Dtype::U8, &[]))
        .stack(2)
        .capacity(300)
        .extra_frames(0)
        .history(4)
        .count_draws()
        .build()
        .unwrap();
    assert!(replay.memory_bytes() >= 300 * 4);
    let mut stream = replay.stream();
    let (mut reader, mut rng) = (replay.sampler(), Rng::seed_from_u64(0));
    let (mut batch, mut drawn) = (Batch::new(replay.schema(), 16), Drawn::default());
    let mut draws = HashMap::new();
    for t in 0..2_000u32 {
        if t % 4 == 0 {
            stream.begin(&[0; 2]).unwrap();
        }
        let terminated = t % 4 == 3;
        stream
            .step(FrameStep { action: &[0], reward: 0.0, next_frame: &[0; 2], terminated, truncated: false })
            .unwrap();
        reader.sample_into(&mut rng, 16, &mut batch.view_mut(), &mut drawn).unwrap();
        drawn.rows.iter().for_each(|key| *draws.entry(*key).or_insert(0) += 1);
    }
    let (statistics, live) = (replay.statistics(), replay.live());
    assert!(replay.len() < 280 && statistics.len == replay.len() as u64, "frames go first");
    assert_eq!((statistics.inserted, statistics.overwritten), (2_000, live.start));
    assert_eq!(statistics.sampled, 16 * 2_000);
    let times = statistics.times_sampled.unwrap();
    let of = |key: u64| draws.get(&key).copied().unwrap_or(0);
    assert_eq!(times.live, histogram(live.clone().map(of)));
    assert_eq!(times.overwritten, histogram((0..live.start).map(of)));
}
