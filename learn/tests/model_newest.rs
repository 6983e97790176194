//! Handing over the newest weights, under a scheduler that tries one interleaving after the other (shuttle): the very source, with a switch
//! of threads between the two halves of a value.

#[path = "../src/newest.rs"]
mod newest;
#[path = "model_sync/mod.rs"]
mod sync;

use newest::{Publisher, Subscriber, newest};
use shuttle::thread;

/// Interleavings tried for each model and kind of scheduler.
const SCHEDULES: usize = 20_000;

/// Two halves that are always equal in what was published.
type Value = (u64, u64);

fn explore(model: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(model.clone(), SCHEDULES);
    shuttle::check_pct(model, SCHEDULES, 3);
}

fn midway() {
    thread::yield_now();
}

/// Publishes `count` values, each its own number, half by half. Where no slot is free, `all_taken` fails the model.
fn publish(to: &mut Publisher<Value>, count: u64) {
    for value in 1..=count {
        let number = to.publish(|slot| {
            slot.0 = value;
            midway();
            slot.1 = value;
            Ok::<_, ()>(())
        });
        assert_eq!(number, Ok(value));
    }
}

/// Reads `count` times. What is read is whole, has its number only once, and never goes back.
fn read(from: &mut Subscriber<Value>, count: usize) {
    let mut last = None;
    for _ in 0..count {
        let found = from.newer(|number, value| {
            let first = value.0;
            midway();
            assert_eq!((first, value.1), (number, number), "not the value that was published");
            number
        });
        if let Some(number) = found {
            assert!(last < Some(number), "{number} came after {last:?}");
            last = Some(number);
        }
    }
    assert!(last.is_some(), "there is always a value");
}

/// One thread publishes and `readers` threads read, each at its own pace; the publisher is never out of slots.
fn model(readers: usize, published: u64, reads: usize) {
    let (mut to, from) = newest(vec![(0, 0); readers + 2]);
    let threads = from.into_iter().map(|mut from| {
        thread::spawn(move || {
            read(&mut from, reads);
            from
        })
    });
    let threads: Vec<_> = threads.collect();
    publish(&mut to, published);
    for thread in threads {
        let mut from = thread.join().unwrap();
        // Whoever looks when all is quiet has the last one.
        from.newer(|number, _| assert_eq!(number, published));
        assert!(from.newer(|_, _| ()).is_none());
    }
}

#[test]
fn one_reader() {
    explore(|| model(1, 4, 3));
}

#[test]
fn two_readers() {
    explore(|| model(2, 5, 3));
}

#[test]
fn three_readers() {
    explore(|| model(3, 6, 2));
}

/// A value that could be filled only half-way is never read, also by those who are on their way to its slot.
#[test]
fn failures_half_way() {
    explore(|| {
        let (mut to, from) = newest(vec![(0, 0); 3]);
        let reader = from.into_iter().map(|mut from| thread::spawn(move || read(&mut from, 4)));
        let reader: Vec<_> = reader.collect();
        for number in 1..=3 {
            let failed = to.publish(|value| {
                value.0 = 99;
                midway();
                Err(())
            });
            assert_eq!(failed, Err(()));
            let whole = to.publish(|value| {
                value.0 = number;
                midway();
                value.1 = number;
                Ok::<_, ()>(())
            });
            assert_eq!(whole, Ok(number));
        }
        reader.into_iter().for_each(|reader| reader.join().unwrap());
    });
}
