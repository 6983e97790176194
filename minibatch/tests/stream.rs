//! Streams: shuffled in a buffer, and put together in batches as they come.

use allocation_counter::measure;
use proptest::prelude::*;
use rl_minibatch::{MemoryState, Online, Piece, Row, Shuffle, StateError, StateVisitor, row};

row! {
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Sample {
        x: [f32; 3],
        label: i64,
        valid: bool,
    }
}

fn sample(number: usize) -> Sample {
    let x = number as f32;
    Sample { x: [x, x + 0.25, -x], label: number as i64, valid: number.is_multiple_of(3) }
}

proptest! {
    #[test]
    fn what_comes_in_goes_out_once_and_not_too_early(items in 0usize..300, capacity in 1usize..60, seed in any::<u64>()) {
        let mut shuffle = Shuffle::new(capacity, seed).unwrap();
        let out: Vec<usize> = shuffle.over(0..items).collect();
        for (place, item) in out.iter().enumerate() {
            prop_assert!(*item < place + capacity, "{item} at {place}");
        }
        let mut sorted = out;
        sorted.sort_unstable();
        prop_assert_eq!(sorted, Vec::from_iter(0..items));
        prop_assert!(shuffle.is_empty());
        prop_assert_eq!(shuffle.pushed(), items as u64);
    }

    /// Saved at any place, into a new buffer and a used one.
    #[test]
    fn a_resumed_stream_goes_on_as_if_nothing_had_been(
        items in 1usize..100, capacity in 1usize..30, seed in any::<u64>(), stop in 0usize..100,
    ) {
        let stop = stop.min(items);
        let mut shuffle = Shuffle::new(capacity, seed).unwrap();
        (0..stop).for_each(|number| _ = shuffle.push(sample(number)));
        let saved = MemoryState::save(|v| shuffle.visit(v)).unwrap();
        let values = MemoryState::save(|v| shuffle.visit_with(v, numbers)).unwrap();
        let expected: Vec<Sample> = shuffle.over((stop..items).map(sample)).collect();
        for used in [0, 17] {
            let mut other = Shuffle::new(capacity, 1).unwrap();
            (0..used).for_each(|number| _ = other.push(sample(number)));
            saved.load(|v| other.visit(v)).unwrap();
            prop_assert_eq!(MemoryState::save(|v| other.visit(v)).unwrap().differences(&saved), [""; 0]);
            prop_assert_eq!(other.pushed(), stop as u64);
            let mut by_number = other.clone();
            let source = (0..items).skip(other.pushed() as usize).map(sample);
            prop_assert_eq!(&other.over(source).collect::<Vec<_>>(), &expected);
            values.load(|v| by_number.visit_with(v, numbers)).unwrap();
            prop_assert_eq!(&by_number.over((stop..items).map(sample)).collect::<Vec<_>>(), &expected);
        }
    }

    #[test]
    fn batches_hold_what_came_in_its_order(items in 0usize..100, batch in 1usize..20) {
        let mut online = Online::new(batch).unwrap();
        let mut all = Vec::new();
        for number in 0..items {
            prop_assert_eq!(online.waiting(), number % batch);
            match online.push(number) {
                Some(full) => {
                    prop_assert_eq!(full.len(), batch);
                    all.extend_from_slice(full);
                }
                None => prop_assert!((number + 1) % batch != 0),
            }
        }
        prop_assert_eq!(online.waiting(), items % batch);
        match online.flush() {
            Some(rest) => all.extend_from_slice(rest),
            None => prop_assert_eq!(items % batch, 0),
        }
        prop_assert_eq!(online.flush(), None);
        prop_assert_eq!(all, Vec::from_iter(0..items));
    }
}

/// A walk of the user's own: only the numbers of the samples are stored.
fn numbers(visitor: &mut dyn StateVisitor, items: &mut Vec<Sample>) -> Result<(), StateError> {
    let mut numbers: Vec<i64> = items.iter().map(|item| item.label).collect();
    rl_minibatch::value(visitor, "numbers", &mut numbers)?;
    items.clear();
    items.extend(numbers.iter().map(|number| sample(*number as usize)));
    Ok(())
}

#[test]
fn a_buffer_of_one_does_not_shuffle() {
    let mut shuffle = Shuffle::new(1, 3).unwrap();
    assert_eq!(Vec::from_iter(shuffle.over(0..50)), Vec::from_iter(0..50));
}

/// All 120 orders of five items, from a buffer that holds them all; of tf.data's shuffle the same.
#[test]
fn a_buffer_for_all_items_makes_all_orders_equally_likely() {
    let mut counts = std::collections::HashMap::<Vec<u32>, u32>::new();
    let mut shuffle = Shuffle::new(5, 4).unwrap();
    let rounds = 120_000;
    for _ in 0..rounds {
        *counts.entry(shuffle.over(0..5).collect()).or_default() += 1;
    }
    let expected = f64::from(rounds) / 120.0;
    let chi2: f64 = counts.values().map(|c| (f64::from(*c) - expected).powi(2) / expected).sum();
    assert_eq!(counts.len(), 120);
    // 119 degrees of freedom: exceeded by a correct shuffle with probability 1e-6.
    assert!(chi2 < 204.0, "χ² = {chi2}");
}

/// Three items in a buffer of two: item 0 or 1 comes first, then either that is left, each with probability 1/2.
#[test]
fn a_small_buffer_gives_the_orders_of_tf_data() {
    let mut counts = std::collections::BTreeMap::<Vec<u32>, u32>::new();
    let mut shuffle = Shuffle::new(2, 5).unwrap();
    for _ in 0..40_000 {
        *counts.entry(shuffle.over(0..3).collect()).or_default() += 1;
    }
    let orders: Vec<_> = counts.keys().cloned().collect();
    assert_eq!(orders, [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0]]);
    // Five standard deviations of 10,000 expected.
    assert!(counts.values().all(|count| count.abs_diff(10_000) < 433), "{counts:?}");
}

#[test]
fn two_seeds_give_two_orders() {
    let order = |seed| Vec::from_iter(Shuffle::new(20, seed).unwrap().over(0..100));
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
}

#[test]
fn what_waits_for_a_batch_is_saved() {
    let mut online = Online::new(4).unwrap();
    (0..6).for_each(|number| _ = online.push(sample(number)));
    let saved = MemoryState::save(|v| online.visit(v)).unwrap();
    assert_eq!(
        saved.get("waiting.columns.x").map(|piece| match piece {
            Piece::Array { shape, .. } => shape.clone(),
            Piece::Bytes(_) => vec![],
        }),
        Some(vec![2, 3])
    );
    let mut other = Online::new(4).unwrap();
    other.push(sample(99));
    saved.load(|v| other.visit(v)).unwrap();
    assert_eq!(other.waiting(), 2);
    assert_eq!(other.push(sample(6)), None);
    assert_eq!(other.push(sample(7)), Some(&[4, 5, 6, 7].map(sample)[..]));
    // A batch that was given out waits no more.
    let saved = MemoryState::save(|v| other.visit(v)).unwrap();
    saved.load(|v| online.visit(v)).unwrap();
    assert_eq!(online.flush(), None);
    let mut words = Online::new(3).unwrap();
    words.push("a word".to_string());
    let saved = MemoryState::save(|v| words.visit_values(v)).unwrap();
    let mut other = Online::new(3).unwrap();
    saved.load(|v| other.visit_values(v)).unwrap();
    assert_eq!(other.flush(), Some(&["a word".to_string()][..]));
    let mut smaller = Online::<String>::new(1).unwrap();
    let error = saved.load(|v| smaller.visit_values(v)).unwrap_err().to_string();
    assert!(error.contains("1 items cannot wait for a batch of 1"), "{error}");
}

#[test]
fn a_state_that_does_not_fit_is_refused() {
    let mut large = Shuffle::new(10, 1).unwrap();
    (0..10).for_each(|number| _ = large.push(sample(number)));
    let saved = MemoryState::save(|v| large.visit(v)).unwrap();
    let mut small = Shuffle::new(9, 1).unwrap();
    small.push(sample(3));
    let before = MemoryState::save(|v| small.visit(v)).unwrap();
    let error = saved.load(|v| small.visit(v)).unwrap_err().to_string();
    assert!(error.contains("10 rows were saved and there is room for 9"), "{error}");
    let mut damaged = saved.clone();
    if let Some(Piece::Array { bytes, .. }) = damaged.get_mut("items.rows") {
        bytes.copy_from_slice(&u64::MAX.to_ne_bytes());
    }
    let error = damaged.load(|v| small.visit(v)).unwrap_err().to_string();
    assert!(error.contains("18446744073709551615 rows were saved"), "{error}");
    let mut damaged = saved;
    damaged.remove("items.columns.label");
    assert!(damaged.load(|v| large.visit(v)).unwrap_err().to_string().contains("'items.columns.label'"));
    assert_eq!(MemoryState::save(|v| small.visit(v)).unwrap(), before);
    let values = MemoryState::save(|v| large.visit_with(v, numbers)).unwrap();
    let error = values.load(|v| small.visit_with(v, numbers)).unwrap_err().to_string();
    assert!(error.contains("10 items after 10 were pushed do not fit into a buffer of 9"), "{error}");
    assert_eq!(MemoryState::save(|v| small.visit(v)).unwrap(), before);
}

#[test]
fn a_buffer_has_room_for_an_item() {
    let message = Shuffle::<u8>::new(0, 1).unwrap_err().to_string();
    assert_eq!(message, "the capacity of the shuffle buffer is 0; it must be at least 1");
    let message = Online::<u8>::new(0).unwrap_err().to_string();
    assert_eq!(message, "the batch size is 0; it must be at least 1");
}

#[test]
fn nothing_is_allocated_from_item_to_item() {
    let mut shuffle = Shuffle::new(50, 1).unwrap();
    let mut online = Online::new(7).unwrap();
    let mut sum = 0;
    let info = measure(|| {
        for number in 0..1_000 {
            if let Some(out) = shuffle.push(sample(number))
                && let Some(batch) = online.push(out)
            {
                sum += batch.iter().map(|sample| sample.label).sum::<i64>();
            }
        }
        while let Some(out) = shuffle.pop() {
            if let Some(batch) = online.push(out) {
                sum += batch.iter().map(|sample| sample.label).sum::<i64>();
            }
        }
        sum += online.flush().map_or(0, |batch| batch.iter().map(|sample| sample.label).sum());
    });
    assert_eq!((info.count_total, sum), (0, 999 * 500));
    assert_eq!(Sample::schema().fields().len(), 3);
}
