//! The ring's protocol under a scheduler that tries one interleaving after the other (shuttle).
//!
//! The very sources are included here, standing on shuttle's atomics and locks, and with a switch of
//! threads between any two fields of a row that is being copied. Serials are written as the rows' contents, so a row
//! that is torn, overwritten too early, or read too soon does not hold the number that it should.

#![allow(dead_code, reason = "the included sources offer more than the models use")]

#[path = "../src/control.rs"]
mod control;
#[path = "../src/copy.rs"]
mod copy;
#[path = "../src/half_float.rs"]
mod half_float;
#[path = "../src/layout.rs"]
mod layout;
#[path = "../src/ring.rs"]
mod ring;
#[path = "model_sync/mod.rs"]
mod sync;
#[path = "../src/zeroed.rs"]
mod zeroed;

use control::Journal;
use layout::Layout;
use ring::Ring;
use rl_minibatch::{Batch, Dtype, Field, Priorities, Schema};
use rl_replay::{Prioritized, Proportional};
use shuttle::thread;
use std::ops::Range;
use std::sync::Arc;
use sync::explore;

/// Interleavings tried for each model and kind of scheduler.
const SCHEDULES: usize = 20_000;

/// Three fields, so that a row can be caught with one of them new and another old.
fn schema() -> Schema {
    Schema::new(["a", "b", "c"].map(|name| Field::new(name, Dtype::I64, [])).to_vec()).unwrap()
}

const CAPACITY: u64 = 2;

fn new_ring(reserve: u64) -> Arc<Ring> {
    Arc::new(Ring::new(Layout::new(&schema()), CAPACITY, reserve).unwrap())
}

/// Inserts a claim of `rows` rows, each holding its own serial.
fn insert(ring: &Ring, rows: u64) -> Range<u64> {
    let mut claim = ring.claim(rows);
    let keys = claim.keys();
    let serials: Vec<i64> = keys.clone().map(|key| key as i64).collect();
    claim.write(0, &[bytemuck::cast_slice(&serials); 3]);
    claim.publish();
    keys
}

/// Reads every live row as one batch, and checks each against its serial.
fn read_all(ring: &Ring, holds: impl Fn(u64, [i64; 3]) -> bool) -> Range<u64> {
    let Some(pin) = ring.pin_alone() else { return 0..0 };
    let live = pin.live();
    assert!(live.end - live.start <= CAPACITY);
    let mut batch = Batch::new(&schema(), CAPACITY as usize);
    pin.gather(live.clone(), &mut batch.view_mut());
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
    explore(SCHEDULES, || {
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
        assert_eq!(ring.live().end, 6, "every acknowledged row came alive");
        assert_eq!(read_all(&ring, is_its_own), 4..6);
    });
}

#[test]
fn claims_of_several_rows_wrap_too() {
    explore(SCHEDULES, || {
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
    explore(SCHEDULES, || {
        let ring = new_ring(1);
        insert(&ring, 1);
        let pin = ring.pin_alone().unwrap();
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
            pin.gather(0..1, &mut batch.view_mut());
            assert_eq!(["a", "b", "c"].map(|name| batch.typed::<i64>(name).unwrap()[0]), [0; 3]);
            thread::yield_now();
        }
        assert!(ring.live().end <= CAPACITY + 2, "nobody went into the pinned slot");
        drop(pin);
        for writer in writers {
            writer.join().unwrap();
        }
        assert_eq!(read_all(&ring, is_its_own), 5..7);
    });
}

#[test]
fn a_snapshot_lets_go_of_rows_as_it_goes() {
    explore(SCHEDULES, || {
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
        let mut pin = ring.pin_alone().unwrap();
        let live = pin.live();
        let mut batch = Batch::new(&schema(), 1);
        for key in live.clone() {
            pin.gather(key..key + 1, &mut batch.view_mut());
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

/// What would be in a file's header when the process is killed.
#[derive(Debug)]
struct Noted(sync::Mutex<(u64, Range<u64>)>);

impl Journal for Noted {
    fn note(&self, limit: u64, live: Range<u64>) {
        let mut noted = self.0.lock();
        assert!(limit >= noted.0 && live.end >= noted.1.end, "it goes backwards");
        *noted = (limit, live);
    }

    fn settled(&self, limit: u64, live: Range<u64>) {
        *self.0.lock() = (limit, live);
    }
}

#[test]
fn nothing_is_given_out_that_was_not_noted() {
    explore(SCHEDULES, || {
        let layout = Layout::new(&schema());
        let bytes = layout.ring_bytes(CAPACITY, 1).unwrap();
        let memory = memmap2::MmapOptions::new().len(bytes).map_anon().unwrap();
        let noted = Arc::new(Noted(sync::Mutex::new((0, 0..0))));
        let ring = Ring::over(memory.into(), noted.clone(), layout, (CAPACITY, 1), 0..0).unwrap();
        let ring = Arc::new(ring);
        let threads = [(); 2].map(|()| {
            let (ring, noted) = (ring.clone(), noted.clone());
            thread::spawn(move || {
                for _ in 0..3 {
                    let keys = insert(&ring, 1);
                    let (limit, live) = noted.0.lock().clone();
                    assert!(keys.end <= limit, "{keys:?} was given out below {limit}");
                    // What recovery relies on: no live row may be in a slot that is written.
                    let oldest_whole = limit.saturating_sub(CAPACITY + 2);
                    assert!(oldest_whole <= live.end.saturating_sub(CAPACITY), "{live:?} with {limit}");
                    ring.note();
                }
            })
        });
        let holder = ring.pin_alone();
        thread::yield_now();
        drop(holder);
        ring.catch_up();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(read_all(&ring, is_its_own), 4..6);
    });
}

/// Priorities behind a lock that writers never take, as in `src/buffer.rs`.
struct Keeper {
    proportional: Proportional,
    told: u64,
}

#[test]
fn a_priority_reaches_its_own_row_or_none() {
    explore(SCHEDULES, || {
        let ring = new_ring(1);
        let proportional = Proportional::new(CAPACITY, Prioritized { alpha: 1.0, epsilon: 0.0 }).unwrap();
        let keeper = Arc::new(sync::Mutex::new(Keeper { proportional, told: 0 }));
        let catch_up = |keeper: &mut Keeper, ring: &Ring| {
            let live = ring.live();
            keeper.proportional.inserted(keeper.told.max(live.start)..live.end);
            keeper.told = live.end;
            live
        };
        let writers = [(); 2].map(|()| {
            let ring = ring.clone();
            thread::spawn(move || {
                for _ in 0..3 {
                    insert(&ring, 1);
                }
            })
        });
        let updaters = [(); 2].map(|()| {
            let (ring, keeper) = (ring.clone(), keeper.clone());
            thread::spawn(move || {
                for _ in 0..2 {
                    // The row's priority says which row it was meant for.
                    let keys: Vec<u64> = read_all(&ring, is_its_own).collect();
                    let magnitudes: Vec<f32> = keys.iter().map(|key| 100.0 + *key as f32).collect();
                    let mut keeper = keeper.lock();
                    let live = catch_up(&mut keeper, &ring);
                    let updated = keeper.proportional.update(live, &keys, &magnitudes).unwrap();
                    assert_eq!(updated.applied + updated.stale, keys.len());
                }
            })
        });
        for thread in writers.into_iter().chain(updaters) {
            thread.join().unwrap();
        }
        let mut keeper = keeper.lock();
        for key in catch_up(&mut keeper, &ring) {
            let priority = keeper.proportional.priority(key);
            // Its own, or, as a new row, the largest there had been: one sent before it was there.
            assert!(priority < 101.0 + key as f64, "row {key} has the priority {priority} of another");
        }
    });
}

#[test]
fn a_claim_that_is_given_up_stops_nobody() {
    explore(SCHEDULES, || {
        let ring = new_ring(4);
        let quitter = {
            let ring = ring.clone();
            thread::spawn(move || {
                let mut claim = ring.claim(2);
                claim.write(0, &[bytemuck::cast_slice(&[-1i64; 2]); 3]);
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
    explore(SCHEDULES, || {
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
            all.write(10..12, 0, &[bytemuck::cast_slice(&[10i64, 11]); 3]);
            all.restore(10..12);
        }
        for thread in others {
            thread.join().unwrap();
        }
        let live = read_all(&ring, is_its_own);
        assert!((12..=16).contains(&live.end));
    });
}
