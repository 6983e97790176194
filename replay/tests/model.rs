//! The ring's protocol under a scheduler that tries one interleaving after the other (shuttle).
//!
//! The very sources are included here, standing on shuttle's locks instead of parking_lot's, and with a switch of
//! threads between any two fields of a row that is being copied. Serials are written as the rows' contents, so a row
//! that is torn, overwritten too early, or read too soon does not hold the number that it should.

#![allow(dead_code, reason = "the included sources offer more than the models use")]

#[path = "../src/control.rs"]
mod control;
#[path = "../src/layout.rs"]
mod layout;
#[path = "../src/ring.rs"]
mod ring;

/// The primitives of `src/sync.rs`, from shuttle.
mod sync {
    pub(crate) use shuttle::sync::{Condvar, MutexGuard};

    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }

    pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        condvar.wait(guard).unwrap()
    }

    pub(crate) fn midway() {
        // Touching one of shuttle's atomics lets its scheduler choose who goes on.
        shuttle::sync::atomic::AtomicBool::new(false).load(std::sync::atomic::Ordering::SeqCst);
    }
}

use layout::Layout;
use ring::{Companion, Ring};
use rl_minibatch::{Batch, Dtype, Field, Priorities, Schema};
use rl_replay::{Prioritized, Proportional};
use shuttle::thread;
use std::ops::Range;
use std::sync::Arc;

/// Interleavings tried for each model and kind of scheduler.
const SCHEDULES: usize = 2_000;

fn explore(model: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(model.clone(), SCHEDULES);
    shuttle::check_pct(model, SCHEDULES, 3);
}

/// Three fields, so that a row can be caught with one of them new and another old.
fn schema() -> Schema {
    Schema::new(["a", "b", "c"].map(|name| Field::new(name, Dtype::I64, [])).to_vec()).unwrap()
}

/// Notes what came alive, and keeps real priorities beside the rows.
struct Notes {
    alive: u64,
    empty: bool,
    proportional: Proportional,
    stale: usize,
}

impl Companion for Notes {
    fn came_alive(&mut self, keys: Range<u64>) {
        // Only before the first row of all may serials be missing, those that were given up.
        let expected = if self.empty { self.alive..keys.start + 1 } else { self.alive..self.alive + 1 };
        assert!(expected.contains(&keys.start), "rows come alive in order, none twice and none left out");
        self.empty = false;
        self.alive = keys.end;
        self.proportional.inserted(keys);
    }
}

const CAPACITY: u64 = 2;

fn new_ring(reserve: u64) -> Arc<Ring<Notes>> {
    let proportional = Proportional::new(CAPACITY, Prioritized { alpha: 1.0, epsilon: 0.0 }).unwrap();
    let notes = Notes { alive: 0, empty: true, proportional, stale: 0 };
    Arc::new(Ring::new(Layout::new(&schema()), CAPACITY, reserve, notes).unwrap())
}

/// Inserts a claim of `rows` rows, each holding its own serial.
fn insert(ring: &Ring<Notes>, rows: u64) -> Range<u64> {
    let mut claim = ring.claim(rows);
    let keys = claim.keys();
    for key in keys.clone() {
        let bytes = key.to_ne_bytes();
        claim.write(0, &[&bytes, &bytes, &bytes]);
    }
    claim.publish();
    keys
}

/// Reads every live row as one batch, and checks each against its serial.
fn read_all(ring: &Ring<Notes>, holds: impl Fn(u64, [i64; 3]) -> bool) -> Range<u64> {
    let locked = ring.lock();
    let live = locked.live();
    assert!(live.end - live.start <= CAPACITY);
    if live.is_empty() {
        return live;
    }
    let pin = locked.pin(live.start);
    let mut batch = Batch::new(&schema(), CAPACITY as usize);
    for (row, key) in live.clone().enumerate() {
        pin.read(key, row, &mut batch.view_mut());
    }
    drop(pin);
    for (row, key) in live.clone().enumerate() {
        let found = ["a", "b", "c"].map(|name| batch.typed::<i64>(name).unwrap()[row]);
        assert!(holds(key, found), "row {key} holds {found:?}");
    }
    live
}

fn is_its_own(key: u64, found: [i64; 3]) -> bool {
    found == [key as i64; 3]
}

#[test]
fn writers_lap_the_ring_while_rows_are_read() {
    explore(|| {
        let ring = new_ring(1);
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let ring = ring.clone();
                thread::spawn(move || {
                    for _ in 0..3 {
                        insert(&ring, 1);
                    }
                })
            })
            .collect();
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let ring = ring.clone();
                thread::spawn(move || {
                    let mut seen = 0;
                    for _ in 0..2 {
                        let live = read_all(&ring, is_its_own);
                        assert!(live.end >= seen, "rows do not unhappen");
                        seen = live.end;
                    }
                })
            })
            .collect();
        for thread in writers.into_iter().chain(readers) {
            thread.join().unwrap();
        }
        assert_eq!(ring.lock().companion().alive, 6, "every acknowledged row came alive");
        assert_eq!(read_all(&ring, is_its_own), 4..6);
    });
}

#[test]
fn claims_of_several_rows_wrap_too() {
    explore(|| {
        let ring = new_ring(3);
        let threads = [3, 2].map(|rows| {
            let ring = ring.clone();
            thread::spawn(move || {
                for _ in 0..2 {
                    insert(&ring, rows);
                    read_all(&ring, is_its_own);
                }
            })
        });
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(read_all(&ring, is_its_own), 8..10);
    });
}

#[test]
fn a_pinned_row_outlives_any_number_of_writers() {
    explore(|| {
        let ring = new_ring(1);
        insert(&ring, 1);
        let pin = ring.lock().pin(0);
        let writers = [(); 2].map(|()| {
            let ring = ring.clone();
            thread::spawn(move || {
                for _ in 0..3 {
                    insert(&ring, 1);
                }
            })
        });
        let mut batch = Batch::new(&schema(), 1);
        for _ in 0..3 {
            pin.read(0, 0, &mut batch.view_mut());
            assert_eq!(["a", "b", "c"].map(|name| batch.typed::<i64>(name).unwrap()[0]), [0; 3]);
            thread::yield_now();
        }
        assert!(ring.lock().live().end <= CAPACITY + 1, "nobody went into the pinned slot");
        drop(pin);
        for writer in writers {
            writer.join().unwrap();
        }
        assert_eq!(read_all(&ring, is_its_own), 5..7);
    });
}

#[test]
fn a_snapshot_lets_go_of_rows_as_it_goes() {
    explore(|| {
        let ring = new_ring(1);
        insert(&ring, 1);
        insert(&ring, 1);
        let writers = [(); 2].map(|()| {
            let ring = ring.clone();
            thread::spawn(move || {
                for _ in 0..2 {
                    insert(&ring, 1);
                }
            })
        });
        let locked = ring.lock();
        let live = locked.live();
        let mut pin = locked.pin(live.start);
        let mut batch = Batch::new(&schema(), 1);
        for key in live.clone() {
            pin.read(key, 0, &mut batch.view_mut());
            let found = ["a", "b", "c"].map(|name| batch.typed::<i64>(name).unwrap()[0]);
            assert!(is_its_own(key, found), "row {key} holds {found:?}");
            if key + 1 < live.end {
                pin.release_before(key + 1);
            }
        }
        drop(pin);
        for writer in writers {
            writer.join().unwrap();
        }
        assert_eq!(read_all(&ring, is_its_own), 4..6);
    });
}

#[test]
fn a_priority_reaches_its_own_row_or_none() {
    explore(|| {
        let ring = new_ring(1);
        let writers = [(); 2].map(|()| {
            let ring = ring.clone();
            thread::spawn(move || {
                for _ in 0..3 {
                    insert(&ring, 1);
                }
            })
        });
        let updater = {
            let ring = ring.clone();
            thread::spawn(move || {
                let mut sent = 0;
                for _ in 0..3 {
                    // The row's priority says which row it was meant for.
                    let keys: Vec<u64> = read_all(&ring, is_its_own).collect();
                    let magnitudes: Vec<f32> = keys.iter().map(|key| 100.0 + *key as f32).collect();
                    let mut locked = ring.lock();
                    let live = locked.live();
                    let notes = locked.companion();
                    let updated = notes.proportional.update(live, &keys, &magnitudes).unwrap();
                    notes.stale += updated.stale;
                    sent += updated.applied + updated.stale;
                    assert_eq!(updated.applied + updated.stale, keys.len());
                }
                sent
            })
        };
        for writer in writers {
            writer.join().unwrap();
        }
        assert!(updater.join().unwrap() >= ring.lock().companion().stale);
        let mut locked = ring.lock();
        for key in locked.live() {
            let priority = locked.companion().proportional.priority(key);
            // Its own, or, as a new row, the largest there had been: one sent before it was there.
            assert!(priority < 101.0 + key as f64, "row {key} has the priority {priority} of another");
        }
    });
}

#[test]
fn a_claim_that_is_given_up_stops_nobody() {
    explore(|| {
        let ring = new_ring(4);
        let quitter = {
            let ring = ring.clone();
            thread::spawn(move || {
                let mut claim = ring.claim(2);
                let bytes = (-1i64).to_ne_bytes();
                claim.write(0, &[&bytes, &bytes, &bytes]);
                // Dropped here, as it would be by a panic.
            })
        };
        let writers = [(); 2].map(|()| {
            let ring = ring.clone();
            thread::spawn(move || {
                for _ in 0..3 {
                    insert(&ring, 1);
                }
            })
        });
        // A serial given up repeats an earlier row, whole; what it had half written is never seen.
        let holds =
            |key: u64, found: [i64; 3]| found == [found[0]; 3] && (0..=key as i64).contains(&found[0]);
        for _ in 0..2 {
            read_all(&ring, holds);
        }
        quitter.join().unwrap();
        for writer in writers {
            writer.join().unwrap();
        }
        let live = read_all(&ring, holds);
        assert!((6..=8).contains(&live.end), "the six acknowledged rows, and at most two that were given up");
    });
}

#[test]
fn loading_has_the_ring_to_itself() {
    explore(|| {
        let ring = new_ring(1);
        let others = [(); 2].map(|()| {
            let ring = ring.clone();
            thread::spawn(move || {
                for _ in 0..2 {
                    insert(&ring, 1);
                    read_all(&ring, is_its_own);
                }
            })
        });
        {
            let mut all = ring.exclusive();
            for key in [10u64, 11] {
                let bytes = key.to_ne_bytes();
                all.write(key, 0, &[&bytes, &bytes, &bytes]);
            }
            all.companion().alive = 12;
            all.restore(10..12);
        }
        for thread in others {
            thread.join().unwrap();
        }
        let live = read_all(&ring, is_its_own);
        assert!((12..=16).contains(&live.end));
    });
}
