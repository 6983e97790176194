//! The rate limiter under a scheduler that tries one interleaving after the other (shuttle): the very source, beside the
//! ring whose rows it counts. Where a wake-up is lost all threads wait in the end, which shuttle reports as a deadlock.

#![allow(dead_code, reason = "the included sources offer more than the models use")]

#[path = "../src/control.rs"]
mod control;
#[path = "../src/copy.rs"]
mod copy;
#[path = "../src/half_float.rs"]
mod half_float;
#[path = "../src/layout.rs"]
mod layout;
#[path = "../src/limiter.rs"]
mod limiter;
#[path = "../src/ring.rs"]
mod ring;
#[path = "model_sync/mod.rs"]
mod sync;
#[path = "../src/zeroed.rs"]
mod zeroed;

use layout::Layout;
use limiter::{Limiter, RateLimiter, Side, Stock, WhenLimited};
use ring::Ring;
use rl_minibatch::{Dtype, Field, Schema};
use rl_replay::ReplayError;
use shuttle::thread;
use std::sync::Arc;
// Not shuttle's: looking at what was counted is no step of its own.
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use sync::explore;

const SCHEDULES: usize = 5_000;
const CAPACITY: u64 = 4;

/// A buffer as `src/buffer.rs` puts it together, as far as the limiter is concerned.
struct Shared {
    ring: Ring,
    limiter: Limiter,
    settings: RateLimiter,
    /// Rows whose drawing has begun, and ended.
    begun: AtomicI64,
    ended: AtomicI64,
}

/// A handle: a `Replay`, or a `Writer` or `Reader` with the one that each of these has.
struct Handle {
    shared: Arc<Shared>,
    side: Option<Side>,
}

impl Handle {
    fn new(settings: RateLimiter) -> Self {
        let schema = Schema::new(vec![Field::new("x", Dtype::I64, [])]).unwrap();
        let shared = Shared {
            ring: Ring::new(Layout::new(&schema), CAPACITY, CAPACITY).unwrap(),
            limiter: Limiter::new(settings, CAPACITY).unwrap(),
            settings,
            begun: AtomicI64::new(0),
            ended: AtomicI64::new(0),
        };
        shared.limiter.handle(true);
        Self { shared: Arc::new(shared), side: None }
    }

    fn of_side(&self, side: Side) -> Self {
        self.shared.limiter.handle(true);
        self.shared.limiter.of_side(side, true);
        Self { shared: self.shared.clone(), side: Some(side) }
    }

    fn writer(&self) -> Self {
        self.of_side(Side::Insert)
    }

    fn reader(&self) -> Self {
        self.of_side(Side::Draw)
    }

    /// As `Writer::push_rows`.
    fn insert(&self, rows: usize) -> Result<(), ReplayError> {
        let Shared { ring, limiter, .. } = &*self.shared;
        let mut admitted =
            limiter.admit(|| Stock::of_live(ring.live()), Side::Insert, rows, WhenLimited::Block)?;
        self.within();
        let mut claim = ring.claim(rows as u64);
        claim.write(0, &[&vec![0; 8 * rows]]);
        claim.publish();
        self.within();
        admitted.done(rows);
        Ok(())
    }

    /// As `Reader::sample_into`.
    fn draw(&self, rows: usize) -> Result<(), ReplayError> {
        let Shared { ring, limiter, settings, begun, ended } = &*self.shared;
        let mut admitted =
            limiter.admit(|| Stock::of_live(ring.live()), Side::Draw, rows, WhenLimited::Block)?;
        let live = ring.live();
        assert!(live.end - live.start >= settings.min_size as u64, "drawn from {live:?}");
        begun.fetch_add(rows as i64, SeqCst);
        self.within();
        admitted.done(rows);
        ended.fetch_add(rows as i64, SeqCst);
        self.within();
        Ok(())
    }

    /// The bounds hold now. What is looked at first may have gone on; the true difference lies between.
    fn within(&self) {
        let Shared { ring, settings, begun, ended, .. } = &*self.shared;
        let RateLimiter { min_size, samples_per_insert, error_buffer } = *settings;
        let middle = min_size as f64 * samples_per_insert;
        let inserted = ring.live().end as f64;
        let most = inserted * samples_per_insert - begun.load(SeqCst) as f64;
        assert!(inserted <= min_size as f64 || most <= middle + error_buffer, "too far ahead: {most}");
        let drawn = ended.load(SeqCst) as f64;
        let least = ring.live().end as f64 * samples_per_insert - drawn;
        assert!(drawn == 0.0 || least >= middle - error_buffer, "too far behind: {least}");
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(side) = self.side {
            self.shared.limiter.of_side(side, false);
        }
        self.shared.limiter.handle(false);
    }
}

fn settings(min_size: usize, samples_per_insert: f64, error_buffer: f64) -> RateLimiter {
    RateLimiter { min_size, samples_per_insert, error_buffer }
}

/// Each thread makes its calls; all are made in the end, and the bounds hold all the while.
fn all_get_through(settings: RateLimiter, writers: [&'static [usize]; 2], readers: [&'static [usize]; 2]) {
    explore(SCHEDULES, move || {
        let replay = Handle::new(settings);
        let mut threads = Vec::new();
        for calls in writers {
            let writer = replay.writer();
            threads.push(thread::spawn(move || calls.iter().for_each(|rows| writer.insert(*rows).unwrap())));
        }
        for calls in readers {
            let reader = replay.reader();
            threads.push(thread::spawn(move || calls.iter().for_each(|rows| reader.draw(*rows).unwrap())));
        }
        for thread in threads {
            thread.join().unwrap();
        }
        let rows = |calls: [&[usize]; 2]| calls.concat().iter().sum::<usize>();
        assert_eq!(replay.shared.ring.live().end, rows(writers) as u64);
        assert_eq!(replay.shared.limiter.sampled(), rows(readers) as u64);
    });
}

#[test]
fn no_wake_up_is_lost_where_the_bounds_are_tight() {
    // Between 0 and 2: each call leaves room for one or two of the other side.
    all_get_through(settings(1, 1.0, 1.0), [&[1, 1], &[1, 1]], [&[1, 1], &[1, 1]]);
}

#[test]
fn blocks_and_batches_go_through_as_a_whole() {
    // The error buffer is half of a batch and a block.
    all_get_through(settings(1, 2.0, 3.5), [&[1, 1], &[2]], [&[3], &[2, 1]]);
}

#[test]
fn few_draws_an_insert() {
    all_get_through(settings(2, 0.5, 1.0), [&[1, 1], &[2, 1]], [&[1], &[1]]);
}

#[test]
fn closing_wakes_everybody() {
    explore(SCHEDULES, || {
        let replay = Handle::new(settings(1, 1.0, 1.0));
        let other = Handle::new(settings(1, 1.0, 1.0));
        // Two more than are allowed, and two draws of rows that never come.
        let writers = [(); 2].map(|()| {
            let writer = replay.writer();
            thread::spawn(move || (0..2).try_for_each(|_| writer.insert(1)))
        });
        let readers = [(); 2].map(|()| {
            let reader = other.reader();
            thread::spawn(move || reader.draw(1))
        });
        replay.shared.limiter.close();
        other.shared.limiter.close();
        let results = readers.map(|thread| thread.join().unwrap());
        assert!(results.iter().all(|result| matches!(result, Err(ReplayError::Closed { call: "drawing" }))));
        let refused = writers.map(|thread| thread.join().unwrap()).into_iter().filter(Result::is_err);
        let refused: Vec<_> = refused.collect();
        assert!(
            refused.iter().all(|result| matches!(result, Err(ReplayError::Closed { call: "inserting" })))
        );
        assert!(!refused.is_empty() && replay.shared.ring.live().end <= 2);
    });
}

#[test]
fn waiting_ends_when_the_other_side_is_gone() {
    explore(SCHEDULES, || {
        let replay = Handle::new(settings(1, 1.0, 1.0));
        let readers = [(); 2].map(|()| {
            let reader = replay.reader();
            thread::spawn(move || (0..3).map(|_| reader.draw(1)).take_while(Result::is_ok).count())
        });
        // A handle goes from thread to thread, and a writer is made of it late: nobody may give up before.
        let late = thread::spawn(move || {
            let writer = replay.writer();
            drop(replay);
            writer.insert(1).unwrap();
            writer.insert(1).unwrap();
        });
        late.join().unwrap();
        let drawn: usize = readers.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(drawn, 2, "both rows are drawn, and then nobody waits");
    });
}

#[test]
fn two_sides_that_wait_for_each_other_are_told() {
    explore(SCHEDULES, || {
        // Blocks of two and batches of two do not go together with so small an error buffer.
        let replay = Handle::new(settings(1, 1.0, 1.0));
        let (writer, reader) = (replay.writer(), replay.reader());
        drop(replay);
        writer.insert(1).unwrap();
        let inserts = thread::spawn(move || writer.insert(2));
        let draws = thread::spawn(move || reader.draw(2));
        let results = [inserts.join().unwrap(), draws.join().unwrap()];
        for result in results {
            assert!(matches!(result, Err(ReplayError::Abandoned { .. })), "{result:?}");
        }
    });
}
