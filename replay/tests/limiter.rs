//! The rate limiter, against a plain model and among threads.

use proptest::prelude::*;
use rand::SeedableRng;
use rl_replay::{
    Batch, Drawn, Dtype, Field, MemoryState, NStep, Prioritized, RateLimiter, Reader, Replay, ReplayError,
    Rng, Schema, Step, WhenLimited, Writer,
};
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::time::{Duration, Instant};

fn schema() -> Schema {
    Schema::new(vec![Field::new("x", Dtype::I64, [])]).unwrap()
}

fn limited(capacity: usize, min_size: usize, samples_per_insert: f64, error_buffer: f64) -> Replay {
    let limiter = RateLimiter { min_size, samples_per_insert, error_buffer };
    Replay::builder(schema()).capacity(capacity).rate_limiter(limiter).build().unwrap()
}

fn push(writer: &mut Writer, rows: usize) -> Result<(), ReplayError> {
    let values = vec![0u8; rows * 8];
    if rows == 1 { writer.push(&[&values]).map(drop) } else { writer.push_rows(rows, &[&values]) }
}

fn draw(reader: &mut Reader, rows: usize) -> Result<(), ReplayError> {
    let mut batch = Batch::new(&schema(), rows);
    reader.sample_into(&mut Rng::seed_from_u64(0), rows, &mut batch.view_mut(), &mut Drawn::default())
}

/// The rules in whole numbers: everything in quarters of a row.
struct Model {
    capacity: i64,
    min_size: i64,
    quarters_per_insert: i64,
    buffer_quarters: i64,
    inserts: i64,
    samples: i64,
}

impl Model {
    fn insert(&mut self, rows: i64) -> bool {
        let size = self.inserts.min(self.capacity);
        let ahead = (self.inserts + rows) * self.quarters_per_insert - 4 * self.samples;
        let bound = self.min_size * self.quarters_per_insert + self.buffer_quarters;
        let allowed = size + rows <= self.min_size || ahead <= bound;
        self.inserts += if allowed { rows } else { 0 };
        allowed
    }

    fn draw(&mut self, rows: i64) -> bool {
        let size = self.inserts.min(self.capacity);
        let ahead = self.inserts * self.quarters_per_insert - 4 * (self.samples + rows);
        let bound = self.min_size * self.quarters_per_insert - self.buffer_quarters;
        let allowed = size >= self.min_size && ahead >= bound;
        self.samples += if allowed { rows } else { 0 };
        allowed
    }
}

#[derive(Clone, Debug)]
enum Op {
    Insert(usize),
    Draw(usize),
    SaveAndLoad,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (1usize..6).prop_map(Op::Insert),
        8 => (1usize..12).prop_map(Op::Draw),
        1 => Just(Op::SaveAndLoad),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn allows_what_the_model_allows(
        ops in prop::collection::vec(op(), 1..200),
        min_size in 1i64..9,
        quarters_per_insert in 1i64..20,
        extra_quarters in 0i64..60,
        prioritized: bool,
    ) {
        let buffer_quarters = quarters_per_insert.max(4) + extra_quarters;
        let (spi, buffer) = (quarters_per_insert as f64 / 4.0, buffer_quarters as f64 / 4.0);
        let build = || {
            let limiter =
                RateLimiter { min_size: min_size as usize, samples_per_insert: spi, error_buffer: buffer };
            let builder = Replay::builder(schema()).capacity(10).rate_limiter(limiter);
            let builder = if prioritized { builder.prioritized(Prioritized::default()) } else { builder };
            builder.build().unwrap()
        };
        let mut model =
            Model { capacity: 10, min_size, quarters_per_insert, buffer_quarters, inserts: 0, samples: 0 };
        let mut replay = build();
        let handles = |replay: &Replay| (
            replay.writer().when_limited(WhenLimited::Refuse),
            replay.sampler().when_limited(WhenLimited::Refuse),
        );
        let (mut writer, mut reader) = handles(&replay);
        for op in ops {
            match op {
                Op::Insert(rows) => {
                    let result = push(&mut writer, rows);
                    prop_assert_eq!(result.is_ok(), model.insert(rows as i64), "{:?}", result);
                    let limited = matches!(
                        result,
                        Ok(()) | Err(ReplayError::Limited { .. } | ReplayError::LimiterRows { .. })
                    );
                    prop_assert!(limited, "{:?}", result);
                }
                Op::Draw(rows) => {
                    let result = draw(&mut reader, rows);
                    prop_assert_eq!(result.is_ok(), model.draw(rows as i64), "{:?}", result);
                }
                Op::SaveAndLoad => {
                    let saved = MemoryState::save(|v| replay.visit(v)).unwrap();
                    replay = build();
                    saved.load(|v| replay.visit(v)).unwrap();
                    (writer, reader) = handles(&replay);
                }
            }
            prop_assert_eq!(replay.inserted() as i64, model.inserts);
        }
    }
}

struct CloseAtLast(Replay);

impl Drop for CloseAtLast {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The bounds hold at every moment, as seen after each call, and nobody is locked out.
#[test]
fn threads_stay_within_the_bounds() {
    let (min_size, spi, buffer) = (20, 4, 40);
    let replay = limited(100, min_size as usize, spi as f64, buffer as f64);
    let [begun_in, done_in, begun_out, done_out] = [const { AtomicI64::new(0) }; 4];
    let (writers, rows_each, batch) = (3i64, 5_000i64, 8i64);
    // Each thread looks after each of its calls.
    let look = || {
        // What is done is read before what is begun, so that the true difference lies between.
        let inserts = done_in.load(SeqCst);
        let samples = begun_out.load(SeqCst);
        assert!(inserts * spi - samples <= min_size * spi + buffer, "too far ahead");
        let samples = done_out.load(SeqCst);
        let inserts = begun_in.load(SeqCst);
        assert!(samples == 0 || inserts * spi - samples >= min_size * spi - buffer, "too far behind");
    };
    std::thread::scope(|scope| {
        // A failure ends the others too.
        let close_at_last = CloseAtLast(replay.clone());
        let actors: Vec<_> = (0..writers)
            .map(|id| {
                let mut writer = replay.writer();
                let (begun, done) = (&begun_in, &done_in);
                scope.spawn(move || {
                    let rows = if id == 0 { 5 } else { 1 };
                    for _ in 0..rows_each / rows {
                        begun.fetch_add(rows, SeqCst);
                        push(&mut writer, rows as usize).unwrap();
                        done.fetch_add(rows, SeqCst);
                        look();
                    }
                })
            })
            .collect();
        let learners = [(); 2].map(|()| {
            let mut reader = replay.sampler();
            let (begun, done) = (&begun_out, &done_out);
            scope.spawn(move || {
                loop {
                    begun.fetch_add(batch, SeqCst);
                    match draw(&mut reader, batch as usize) {
                        Ok(()) => done.fetch_add(batch, SeqCst),
                        Err(ReplayError::Closed { call: "drawing" }) => break,
                        Err(error) => panic!("{error}"),
                    };
                    look();
                }
            })
        });
        for actor in actors {
            actor.join().unwrap();
        }
        // The learners catch up as far as they may.
        let most = writers * rows_each * spi - min_size * spi + buffer;
        let deadline = Instant::now() + Duration::from_secs(20);
        while done_out.load(SeqCst) + batch <= most && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert!(done_out.load(SeqCst) <= most && done_out.load(SeqCst) + batch > most);
        drop(close_at_last);
        for learner in learners {
            learner.join().unwrap();
        }
    });
    assert_eq!(replay.inserted() as i64, writers * rows_each);
}

#[test]
fn closing_wakes_all_that_wait() {
    let replay = limited(10, 2, 1.0, 1.0);
    let mut writer = replay.writer();
    push(&mut writer, 3).unwrap();
    let (mut waiting_writer, empty) = (replay.writer(), limited(10, 2, 1.0, 1.0));
    std::thread::scope(|scope| {
        let waits = scope.spawn(move || push(&mut waiting_writer, 1));
        let other = empty.clone();
        let draws = scope.spawn(move || draw(&mut other.sampler(), 1));
        std::thread::sleep(Duration::from_millis(30));
        assert!(!waits.is_finished() && !draws.is_finished(), "nothing allows them");
        replay.close();
        empty.close();
        assert!(matches!(waits.join().unwrap(), Err(ReplayError::Closed { call: "inserting" })));
        assert!(matches!(draws.join().unwrap(), Err(ReplayError::Closed { call: "drawing" })));
    });
    assert!(matches!(draw(&mut replay.sampler(), 1), Err(ReplayError::Closed { .. })));
    assert_eq!(replay.inserted(), 3);
    // Without a limiter there is nothing to close.
    let free = Replay::builder(schema()).capacity(4).build().unwrap();
    free.close();
    push(&mut free.writer(), 3).unwrap();
    draw(&mut free.sampler(), 100).unwrap();
}

#[test]
fn waiting_has_an_end() {
    let replay = limited(10, 2, 1.0, 2.0);
    let limit = Duration::from_millis(40);
    let mut writer = replay.writer().when_limited(WhenLimited::Timeout(limit)).clone();
    let mut reader = replay.sampler().when_limited(WhenLimited::Timeout(limit)).clone();
    let began = Instant::now();
    let error = draw(&mut reader, 1).unwrap_err();
    assert!(began.elapsed() >= limit);
    assert_eq!(
        error.to_string(),
        "drawing 1 row(s) was not allowed by the rate limiter within 40ms: 0 rows are live and min_size is 2"
    );
    push(&mut writer, 4).unwrap();
    let error = push(&mut writer, 1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "inserting 1 row(s) was not allowed by the rate limiter within 40ms: \
         inserts × samples_per_insert − samples would be 5, above 4; draw first"
    );
    draw(&mut reader, 1).unwrap();
    push(&mut writer, 1).unwrap();
    // More at once than the two bounds are apart is an error and no wait.
    let mut forever = replay.sampler();
    assert!(matches!(draw(&mut forever, 5), Err(ReplayError::LimiterRows { rows: 5, most: 4, .. })));
    assert!(matches!(
        push(&mut replay.writer(), 5),
        Err(ReplayError::LimiterRows { call: "inserting", rows: 5, most: 4 })
    ));
    // What holds rows does not wait, and is counted.
    let mut rng = Rng::seed_from_u64(0);
    let mut drawn = Drawn::default();
    let mut pinned = forever.pin().unwrap();
    pinned.draw(&mut rng, 4, &mut drawn).unwrap();
    assert!(matches!(
        pinned.draw(&mut rng, 1, &mut drawn),
        Err(ReplayError::Limited { call: "drawing", rows: 1, .. })
    ));
}

/// Who waits for somebody that is gone is told so.
#[test]
fn nobody_waits_for_those_who_are_gone() {
    // All readers, and no writer that could be made any more.
    let replay = limited(10, 2, 1.0, 2.0);
    let (mut reader, mut second) = (replay.sampler(), replay.sampler());
    let writer = replay.writer();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || draw(&mut reader, 1));
        std::thread::sleep(Duration::from_millis(30));
        assert!(!waiting.is_finished());
        drop(replay);
        std::thread::sleep(Duration::from_millis(30));
        assert!(!waiting.is_finished(), "the writer may still insert");
        drop(writer);
        assert!(matches!(waiting.join().unwrap(), Err(ReplayError::Abandoned { call: "drawing", .. })));
    });
    assert!(matches!(draw(&mut second, 1), Err(ReplayError::Abandoned { .. })));

    // Both sides, each waiting for the other, because a batch and a block do not go together.
    let replay = limited(100, 1, 1.0, 5.0);
    let (mut reader, mut writer) = (replay.sampler(), replay.writer());
    drop(replay);
    let results = std::thread::scope(|scope| {
        let inserts = scope.spawn(move || (0..100).try_for_each(|_| push(&mut writer, 4)));
        let draws = scope.spawn(move || (0..100).try_for_each(|_| draw(&mut reader, 9)));
        [inserts.join().unwrap(), draws.join().unwrap()]
    });
    for result in results {
        assert!(matches!(result, Err(ReplayError::Abandoned { .. })), "{result:?}");
    }
}

/// A step that is refused may be pushed again.
#[test]
fn n_step_returns_go_in_as_a_whole_or_not_at_all() {
    let schema = Schema::transition((Dtype::F32, &[1]), (Dtype::I64, &[])).unwrap();
    let limiter = RateLimiter { min_size: 1, samples_per_insert: 1.0, error_buffer: 2.0 };
    let replay = Replay::builder(schema.clone()).capacity(10).rate_limiter(limiter).build().unwrap();
    let mut writer = replay.writer().when_limited(WhenLimited::Refuse);
    let mut n_step = NStep::new(2, 0.5, &schema).unwrap();
    let mut step = |at: f32, terminated| {
        let (obs, next_obs) = (at.to_ne_bytes(), (at + 1.0).to_ne_bytes());
        let action = 0i64.to_ne_bytes();
        let step = Step {
            obs: &obs,
            action: &action,
            reward: at,
            next_obs: &next_obs,
            terminated,
            truncated: false,
        };
        n_step.push(step, &mut writer)
    };
    assert_eq!(step(0.0, false).unwrap(), 0);
    assert_eq!(step(1.0, false).unwrap(), 1);
    assert_eq!(step(2.0, false).unwrap(), 1);
    assert!(matches!(step(3.0, true), Err(ReplayError::Limited { rows: 2, .. })), "one of the two would fit");
    assert_eq!(replay.inserted(), 2);
    let (mut reader, mut batch) = (replay.sampler(), Batch::new(&schema, 1));
    reader.sample_into(&mut Rng::seed_from_u64(0), 1, &mut batch.view_mut(), &mut Drawn::default()).unwrap();
    assert_eq!(step(3.0, true).unwrap(), 2);
    let mut batch = Batch::new(&schema, 4);
    reader.pin().unwrap().gather(&[0, 1, 2, 3], &mut batch.view_mut()).unwrap();
    assert_eq!(batch.typed::<f32>("reward").unwrap(), [0.5, 2.0, 3.5, 3.0]);
}

#[test]
fn settings_that_would_lock_are_refused() {
    let build = |min_size, samples_per_insert, error_buffer| {
        let limiter = RateLimiter { min_size, samples_per_insert, error_buffer };
        Replay::builder(schema()).capacity(10).rate_limiter(limiter).build().map(drop)
    };
    build(10, 4.0, 4.0).unwrap();
    build(1, 0.25, 1.0).unwrap();
    for (bad, settings) in [
        ("min_size", (0, 1.0, 2.0)),
        ("min_size", (11, 1.0, 2.0)),
        ("samples_per_insert", (5, 0.0, 2.0)),
        ("samples_per_insert", (5, f64::NAN, 2.0)),
        ("error_buffer", (5, 4.0, 3.9)),
        ("error_buffer", (5, 0.25, 0.9)),
        ("error_buffer", (5, 1.0, f64::NAN)),
        ("error_buffer", (5, 1.0, f64::INFINITY)),
    ] {
        let error = build(settings.0, settings.1, settings.2).unwrap_err();
        assert!(matches!(error, ReplayError::Setting { name, .. } if name == bad), "{error}");
    }
}

/// Rows that are allowed and still wait for their slots count against further ones.
#[test]
fn rows_under_way_count() {
    let limiter = RateLimiter { min_size: 1, samples_per_insert: 1.0, error_buffer: 6.0 };
    let replay = Replay::builder(schema()).capacity(2).reserve(1).rate_limiter(limiter).build().unwrap();
    let (mut writer, mut reader) = (replay.writer(), replay.sampler());
    push(&mut writer, 1).unwrap();
    // It keeps key 0, whose slot is that of key 4: 2 rows and twice the reserve.
    let pinned = reader.pin().unwrap();
    push(&mut writer, 3).unwrap();
    let mut other = replay.writer().when_limited(WhenLimited::Refuse);
    std::thread::scope(|scope| {
        let waits = scope.spawn(move || push(&mut writer, 1));
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(replay.inserted(), 4);
        // Five of the seven that the bound allows are taken, so three more are too many.
        let refused = scope.spawn(move || push(&mut other, 3));
        std::thread::sleep(Duration::from_millis(50));
        drop(pinned);
        assert!(matches!(refused.join().unwrap(), Err(ReplayError::Limited { rows: 3, .. })));
        waits.join().unwrap().unwrap();
    });
    assert_eq!(replay.inserted(), 5);
}
