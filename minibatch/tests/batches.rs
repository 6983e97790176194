//! Batches against plain models: what each rule promises, sizes by policy, shards, and resuming anywhere.

mod common;

use common::Epochs;
use proptest::prelude::*;
use rl_minibatch::{
    BatchSize, BatchSizeError, Batches, BatchesError, Budget, LastBatch, MemoryState, Plan, SampleError,
    Uniform, WithoutReplacement,
};

fn batches(shuffle: bool, rows: u64, size: BatchSize, last: LastBatch, shard: (usize, usize)) -> Batches {
    let sampler = if shuffle { Epochs::shuffled() } else { Epochs::sequential() };
    Batches::builder(sampler, rows, size).seed(3).last(last).shard(shard.0, shard.1).build().unwrap()
}

fn next(batches: &mut Batches) -> Plan {
    let mut plan = Plan::new();
    batches.next(&mut plan).unwrap();
    plan
}

const RULES: [LastBatch; 4] = [LastBatch::Keep, LastBatch::Drop, LastBatch::Pad, LastBatch::Wrap];

/// The real rows of `count` batches, with their epochs, of a sequential pass over `rows` rows in batches of `size`.
fn model(rows: u64, size: usize, last: LastBatch, count: usize) -> Vec<Vec<(u64, u64)>> {
    let epoch = |number: u64| (0..rows).map(move |row| (row, number));
    match last {
        LastBatch::Wrap => {
            let mut stream = (0..).flat_map(epoch);
            (0..count).map(|_| stream.by_ref().take(size).collect()).collect()
        }
        _ => (0..)
            .flat_map(|number| {
                let all: Vec<_> = epoch(number).collect();
                all.chunks(size).map(<[_]>::to_vec).collect::<Vec<_>>()
            })
            .filter(|batch| last != LastBatch::Drop || batch.len() == size)
            .take(count)
            .collect(),
    }
}

proptest! {
    #[test]
    fn each_rule_gives_exactly_its_batches(
        rows in 1u64..40, size in 1usize..50, rule in 0usize..4, world in 1usize..5,
    ) {
        let last = RULES[rule];
        prop_assume!(last != LastBatch::Drop || size as u64 <= rows);
        let mut ranks: Vec<_> =
            (0..world).map(|rank| batches(false, rows, BatchSize::Fixed(size), last, (rank, world))).collect();
        let (mut number_in_epoch, mut before) = (0, None);
        let expected = model(rows, size, last, 40);
        for (step, expected) in expected.iter().enumerate() {
            let parts: Vec<Plan> = ranks.iter_mut().map(next).collect();
            let padded = if last == LastBatch::Pad { size } else { expected.len() };
            let mut whole = Vec::new();
            for place in 0..padded {
                let (part, at) = (&parts[place % world], place / world);
                prop_assert_eq!(at < part.real, place < expected.len(), "what counts is real");
                whole.push((part.rows[at], part.passes[at]));
            }
            prop_assert_eq!(parts.iter().map(|p| p.rows.len()).sum::<usize>(), padded);
            prop_assert_eq!(parts.iter().map(|p| p.probabilities.len()).sum::<usize>(), padded);
            prop_assert_eq!(&whole[..expected.len()], &expected[..]);
            prop_assert!(whole[expected.len()..].iter().all(|row| expected.contains(row)), "padding is the batch's own");
            let share: f64 = parts.iter().map(Plan::share).sum();
            prop_assert!((share - 1.0).abs() < 1e-12);
            let epoch = expected[0].1;
            number_in_epoch = if before == Some(epoch) { number_in_epoch + 1 } else { 0 };
            let begins_in = |step: usize| model(rows, size, last, step + 1)[step][0].1;
            for part in &parts {
                prop_assert_eq!((part.epoch, part.batch, part.step), (epoch, number_in_epoch, step as u64));
                prop_assert_eq!((part.total, part.epoch_rows), (expected.len(), Some(rows)));
                // A batch that fills the epoch to its last row ends it under any rule; a wrapped one also does if it goes beyond.
                prop_assert_eq!(part.ends_epoch, begins_in(step + 1) > epoch);
                let mut mask = vec![0.5; part.rows.len()];
                part.mask_into(&mut mask);
                prop_assert_eq!(mask.iter().sum::<f32>(), part.real as f32);
            }
            before = Some(epoch);
        }
    }

    #[test]
    fn every_row_comes_once_an_epoch_over_all_shards(
        rows in 1u64..60, size in 1usize..20, world in 1usize..5, padded in any::<bool>(),
    ) {
        let last = if padded { LastBatch::Pad } else { LastBatch::Keep };
        let mut ranks: Vec<_> =
            (0..world).map(|rank| batches(true, rows, BatchSize::Fixed(size), last, (rank, world))).collect();
        let mut orders = Vec::new();
        for epoch in 0..3 {
            let mut seen = Vec::new();
            loop {
                let parts: Vec<Plan> = ranks.iter_mut().map(next).collect();
                let lengths: Vec<usize> = parts.iter().map(|part| part.real).collect();
                prop_assert!(lengths.iter().max().unwrap() - lengths.iter().min().unwrap() <= 1);
                for part in &parts {
                    prop_assert_eq!(part.epoch, epoch);
                    seen.extend_from_slice(&part.rows[..part.real]);
                }
                if parts[0].ends_epoch {
                    break;
                }
            }
            orders.push(seen.clone());
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..rows).collect::<Vec<_>>());
        }
        prop_assert!(rows < 20 || orders[0] != orders[1], "shuffled anew");
    }

    #[test]
    fn a_budget_is_never_exceeded_and_never_left_unused(
        lengths in prop::collection::vec(0u32..30, 1..60), most in 30u64..120, padded in any::<bool>(),
        wrap in any::<bool>(), most_rows in 1usize..12,
    ) {
        let last = if wrap { LastBatch::Wrap } else { LastBatch::Keep };
        let budget = if padded { Budget::padded(lengths.clone(), most) } else { Budget::sum(lengths.clone(), most) };
        let rows = lengths.len() as u64;
        let size = BatchSize::Budget(budget.at_most_rows(most_rows));
        let mut batches = batches(true, rows, size, last, (0, 1));
        let cost = |rows: &[u64]| {
            let of = rows.iter().map(|row| u64::from(lengths[*row as usize]));
            if padded { of.max().unwrap_or(0) * rows.len() as u64 } else { of.sum() }
        };
        let plans: Vec<Plan> = (0..4 * rows).map(|_| next(&mut batches)).collect();
        let mut stream = Vec::new();
        for pair in plans.windows(2) {
            let (plan, after) = (&pair[0], &pair[1]);
            prop_assert!(!plan.rows.is_empty() && plan.rows.len() <= most_rows && cost(&plan.rows) <= most);
            let with_next: Vec<u64> = plan.rows.iter().chain(&after.rows[..1]).copied().collect();
            let full = cost(&with_next) > most || plan.rows.len() == most_rows || plan.rows.len() as u64 == rows;
            prop_assert!(full || (!wrap && plan.ends_epoch), "{:?} then {:?}", plan, after);
            prop_assert!(wrap || plan.passes.iter().all(|pass| *pass == plan.epoch));
            prop_assert_eq!(plan.ends_epoch, after.epoch > plan.epoch, "{:?} then {:?}", plan, after);
            stream.extend(plan.rows.iter().copied().zip(plan.passes.iter().copied()));
        }
        for epoch in stream.chunks_exact(rows as usize) {
            let mut seen: Vec<u64> = epoch.iter().map(|(row, _)| *row).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..rows).collect::<Vec<_>>());
            prop_assert!(epoch.iter().all(|(_, pass)| *pass == epoch[0].1));
        }
    }

    #[test]
    fn resuming_anywhere_gives_the_batches_that_would_have_come(
        rows in 5u64..40, size in 1usize..9, rule in 0usize..5, after in 0usize..30, rank in 0usize..2,
    ) {
        let make = |shard| {
            let (size, last) = match RULES.get(rule) {
                Some(last) => (BatchSize::Steps(vec![(0, size.min(5)), (7, size.div_ceil(2).min(5))]), *last),
                None => {
                    let lengths: Vec<u32> = (0..rows).map(|row| 1 + (row * 7 % 5) as u32).collect();
                    (BatchSize::Budget(Budget::padded(lengths, 4 + size as u64)), LastBatch::Keep)
                }
            };
            batches(true, rows, size, last, shard)
        };
        // Saved on one rank, loaded on another.
        let (mut saver, mut whole) = (make((1 - rank, 2)), make((rank, 2)));
        for _ in 0..after {
            next(&mut saver);
            next(&mut whole);
        }
        let saved = MemoryState::save(|v| saver.visit(v)).unwrap();
        let mut resumed = make((rank, 2));
        for _ in 0..3 {
            next(&mut resumed);
        }
        saved.load(|v| resumed.visit(v)).unwrap();
        for _ in 0..30 {
            prop_assert_eq!(next(&mut resumed), next(&mut whole));
        }
    }
}

#[test]
fn sizes_follow_their_schedule() {
    let sizes = |size: BatchSize, count| -> Vec<usize> {
        let mut batches = batches(true, 10, size, LastBatch::Keep, (0, 1));
        (0..count).map(|_| next(&mut batches).rows.len()).collect()
    };
    assert_eq!(sizes(BatchSize::Steps(vec![(0, 2), (3, 6)]), 6), [2, 2, 2, 4, 6, 4]);
    assert_eq!(sizes(BatchSize::growing(2, 2.0, &[1, 2], 6), 10), [2, 2, 2, 2, 2, 4, 4, 2, 6, 4]);
    assert_eq!(sizes(BatchSize::Full, 3), [10; 3]);
    assert_eq!(sizes(BatchSize::Fixed(1), 3), [1; 3]);
    // Dropping looks at the size that the next batch would have had.
    let mut dropping = batches(false, 10, BatchSize::Epochs(vec![(0, 4), (1, 7)]), LastBatch::Drop, (0, 1));
    let plans: Vec<Plan> = (0..4).map(|_| next(&mut dropping)).collect();
    let found: Vec<_> =
        plans.iter().map(|p| (p.rows[0], p.rows.len(), p.epoch, p.batch, p.ends_epoch)).collect();
    assert_eq!(found, [(0, 4, 0, 0, false), (4, 4, 0, 1, true), (0, 7, 1, 0, true), (0, 7, 2, 0, true)]);
}

#[test]
fn samplers_without_epochs_have_batches_without_end() {
    for last in RULES {
        let mut batches = Batches::builder(Uniform, 10, BatchSize::Fixed(4)).last(last).build().unwrap();
        for step in 0..20 {
            let plan = next(&mut batches);
            assert_eq!((plan.rows.len(), plan.real, plan.step, plan.batch), (4, 4, step, step));
            assert_eq!((plan.epoch, plan.epoch_rows, plan.ends_epoch), (0, None, false));
            assert!(plan.passes.iter().all(|pass| *pass == step), "so that what is random differs");
        }
    }
}

#[test]
fn a_rank_without_rows_has_no_share() {
    let mut last = batches(false, 5, BatchSize::Fixed(4), LastBatch::Keep, (1, 4));
    next(&mut last);
    let plan = next(&mut last);
    assert_eq!((plan.rows.len(), plan.total, plan.share()), (0, 1, 0.0));
    assert_eq!(plan.micro_batches(3).len(), 0);
}

#[test]
fn what_gives_no_batches_is_refused() {
    let build = |rows, size, last, shard: (usize, usize)| {
        let built =
            Batches::builder(Epochs::sequential(), rows, size).last(last).shard(shard.0, shard.1).build();
        built.expect_err("refused")
    };
    let (fixed, keep) = (|| BatchSize::Fixed(2), LastBatch::Keep);
    assert_eq!(build(0, fixed(), keep, (0, 1)), BatchesError::NoData);
    assert_eq!(build(5, fixed(), keep, (2, 2)), BatchesError::Rank { rank: 2, world: 2 });
    assert_eq!(build(5, fixed(), keep, (0, 0)), BatchesError::Rank { rank: 0, world: 0 });
    assert_eq!(build(5, BatchSize::Fixed(0), keep, (0, 1)), BatchSizeError::NoRows.into());
    assert_eq!(build(5, BatchSize::Steps(vec![]), keep, (0, 1)), BatchSizeError::NoFirst.into());
    assert_eq!(build(5, BatchSize::Steps(vec![(1, 4)]), keep, (0, 1)), BatchSizeError::NoFirst.into());
    let order = BatchSizeError::Order { before: 3, after: 3 };
    assert_eq!(build(5, BatchSize::Epochs(vec![(0, 4), (3, 4), (3, 5)]), keep, (0, 1)), order.into());
    let budget = |most| BatchSize::Budget(Budget::sum(vec![1, 2, 9], most));
    assert_eq!(
        build(3, budget(8), keep, (0, 1)),
        BatchSizeError::TooLong { row: 2, length: 9, budget: 8 }.into()
    );
    assert_eq!(build(4, budget(9), keep, (0, 1)), BatchSizeError::Lengths { lengths: 3, rows: 4 }.into());
    for last in [LastBatch::Drop, LastBatch::Pad] {
        assert_eq!(build(3, budget(9), last, (0, 1)), BatchesError::LastOfBudget { last });
    }

    let mut never = batches(true, 5, BatchSize::Fixed(6), LastBatch::Drop, (0, 1));
    let error = never.next(&mut Plan::new()).unwrap_err();
    assert_eq!(error, BatchesError::NeverFull { size: 6, rows: 5 });
    let mut few = Batches::builder(WithoutReplacement::new(), 5, BatchSize::Fixed(6)).build().unwrap();
    let error = few.next(&mut Plan::new()).unwrap_err();
    assert_eq!(error, SampleError::TooFew { asked: 6, rows: 5 }.into());

    let saved = MemoryState::save(|v| batches(true, 5, fixed(), keep, (0, 1)).visit(v)).unwrap();
    let error = saved.load(|v| batches(true, 6, fixed(), keep, (0, 1)).visit(v)).unwrap_err();
    assert!(error.to_string().contains("a data set of 5 rows, and this one has 6"), "{error}");
}

/// The samplers of this crate through batches: every row once an epoch where that is promised, and resuming in the middle of one.
#[test]
fn every_sampler_makes_batches() {
    use rl_minibatch::{ClassBalanced, LengthBucketed, Sampler, Sequential, Shuffled, Stratified};
    type Make<'a> = Box<dyn Fn() -> Box<dyn Sampler> + 'a>;
    const ROWS: usize = 103;
    let labels: Vec<u32> = (0..ROWS as u32).map(|row| row % 3).collect();
    let lengths: Vec<u32> = (0..ROWS as u32).map(|row| 1 + row * 7 % 20).collect();
    let samplers: [(&str, bool, Make<'_>); 5] = [
        ("sequential", true, Box::new(|| Box::new(Sequential::new(ROWS as u64).unwrap()))),
        ("shuffled", true, Box::new(|| Box::new(Shuffled::new(ROWS as u64).unwrap()))),
        ("stratified", true, Box::new(|| Box::new(Stratified::new(&labels, 3).unwrap()))),
        ("bucketed", true, Box::new(|| Box::new(LengthBucketed::new(&lengths, 8, 32).unwrap()))),
        // With replacement, so without epochs.
        ("balanced", false, Box::new(|| Box::new(ClassBalanced::new(&labels, 3).unwrap()))),
    ];
    for (name, each_row_once, sampler) in &samplers {
        for budget in [false, true] {
            let size = || match budget {
                true => BatchSize::Budget(Budget::padded(lengths.clone(), 100)),
                false => BatchSize::Fixed(8),
            };
            let make = || Batches::builder_of(sampler(), ROWS as u64, size()).seed(5).build().unwrap();
            let mut whole = make();
            let mut rows = Vec::new();
            while if *each_row_once { whole.epoch() < 2 } else { rows.len() < 2 * ROWS } {
                rows.extend(next(&mut whole).rows);
            }
            if *each_row_once {
                for epoch in rows.chunks(ROWS) {
                    let mut sorted = epoch.to_vec();
                    sorted.sort_unstable();
                    assert_eq!(sorted, (0..ROWS as u64).collect::<Vec<_>>(), "{name}");
                }
            }
            (0..5).for_each(|_| drop(next(&mut whole)));
            let saved = MemoryState::save(|v| whole.visit(v)).unwrap();
            let mut resumed = make();
            saved.load(|v| resumed.visit(v)).unwrap();
            for _ in 0..40 {
                assert_eq!(next(&mut resumed), next(&mut whole), "{name}");
            }
        }
    }
}
