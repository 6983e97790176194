//! Apart from `newest.rs`, which the model test includes.

use crate::newest::{Publisher, newest};

fn publish(to: &mut Publisher<u64>, value: u64) -> u64 {
    let published = to.publish(|slot| {
        *slot = value;
        Ok::<_, ()>(())
    });
    published.unwrap()
}

#[test]
fn readers_get_the_newest_once() {
    let (mut to, mut readers) = newest(vec![7, 0, 0, 0]);
    assert_eq!(readers.len(), 2);
    assert_eq!(readers[0].newer(|number, value| (number, *value)), Some((0, 7)));
    assert_eq!(readers[0].newer(|_, _| ()), None);
    for value in 1..=20 {
        assert_eq!(publish(&mut to, value), value);
    }
    for reader in &mut readers {
        assert_eq!(reader.newer(|number, value| (number, *value)), Some((20, 20)));
        assert_eq!(reader.newer(|_, _| ()), None);
    }
}

#[test]
fn what_failed_half_way_is_not_published() {
    let (mut to, mut readers) = newest(vec![1, 2, 3]);
    for _ in 0..10 {
        let failed = to.publish(|slot| {
            *slot = 99;
            Err("no")
        });
        assert_eq!(failed, Err("no"));
    }
    assert_eq!(readers[0].newer(|number, value| (number, *value)), Some((0, 1)));
}

/// All readers are in the middle of a value each, and publishing goes on.
#[test]
fn readers_that_take_their_time_hold_nobody_up() {
    let (mut to, mut readers) = newest(vec![0; 4]);
    let [first, second] = &mut readers[..] else { panic!("two readers") };
    first.newer(|_, a| {
        assert_eq!(publish(&mut to, 1), 1);
        second.newer(|_, b| {
            for value in 2..50 {
                assert_eq!(publish(&mut to, value), value);
            }
            assert_eq!((*a, *b), (0, 1));
        })
    });
    assert_eq!(first.newer(|_, value| *value), Some(49));
}
