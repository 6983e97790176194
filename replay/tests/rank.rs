//! Rank-based sampling against ranks found by sorting.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rl_replay::{Drawn, MemoryState, Piece, Priorities, RankBased, Replay, Rng, Sampler, Schema};
use rl_replay::{Dtype, Field, SampleError};
use std::ops::Range;

/// The probability of each row by the definition: sort, give each rank its k^−α, let equal rows share.
fn by_sorting(magnitudes: &[f32], alpha: f64) -> Vec<f64> {
    let of_rank = |rank: usize| ((rank + 1) as f64).powf(-alpha);
    let total: f64 = (0..magnitudes.len()).map(of_rank).sum();
    let probability = |magnitude: &f32| {
        let above = magnitudes.iter().filter(|other| *other > magnitude).count();
        let equal = magnitudes.iter().filter(|other| *other == magnitude).count();
        (above..above + equal).map(of_rank).sum::<f64>() / equal as f64 / total
    };
    magnitudes.iter().map(probability).collect()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u64),
    Update(Vec<(u64, f32)>),
    Draw(usize),
    Restart,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    // Few values, so that many are equal.
    let magnitude = prop_oneof![
        Just(0.0f32),
        Just(-0.0f32),
        Just(0.5),
        Just(1.0),
        0.0f32..3.0,
        Just(1e-40),
        Just(f32::MAX)
    ];
    let op = prop_oneof![
        3 => (0u64..30).prop_map(Op::Insert),
        4 => prop::collection::vec((1u64..60, magnitude), 0..20).prop_map(Op::Update),
        3 => (1usize..25).prop_map(Op::Draw),
        1 => Just(Op::Restart),
    ];
    prop::collection::vec(op, 1..50)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn probabilities_are_those_of_the_exact_ranks(
        capacity in 1u64..50,
        alpha in prop_oneof![Just(0.0), Just(1.0), 0.0..1.0f64],
        stratified: bool,
        ops in ops(),
        seed: u64,
    ) {
        let make = || {
            let sampler = RankBased::new(capacity, alpha).unwrap();
            if stratified { sampler } else { sampler.independent() }
        };
        let mut sampler = make();
        let (mut rng, mut drawn) = (Rng::seed_from_u64(seed), Drawn::default());
        let (mut all, mut largest): (Vec<f32>, f32) = (Vec::new(), 1.0);
        let live = |all: &[f32]| -> Range<u64> {
            (all.len() as u64).saturating_sub(capacity)..all.len() as u64
        };
        for op in ops {
            match op {
                Op::Insert(count) => {
                    let from = all.len() as u64;
                    all.resize(all.len() + count as usize, largest);
                    sampler.inserted(from..all.len() as u64);
                }
                Op::Update(priorities) => {
                    let rows: Vec<u64> =
                        priorities.iter().map(|(back, _)| (all.len() as u64).saturating_sub(*back)).collect();
                    let magnitudes: Vec<f32> = priorities.iter().map(|(_, magnitude)| *magnitude).collect();
                    let updated = sampler.update(live(&all), &rows, &magnitudes).unwrap();
                    let mut applied = 0;
                    for (row, magnitude) in rows.iter().zip(magnitudes) {
                        if live(&all).contains(row) {
                            all[*row as usize] = magnitude;
                            largest = largest.max(magnitude);
                            applied += 1;
                        }
                    }
                    prop_assert_eq!((updated.applied, updated.stale), (applied, rows.len() - applied));
                }
                Op::Draw(count) => {
                    let result = sampler.draw(&mut rng, live(&all), count, &mut drawn);
                    if all.is_empty() {
                        prop_assert_eq!(result, Err(SampleError::Empty));
                        continue;
                    }
                    result.unwrap();
                    let first = live(&all).start;
                    let expected = by_sorting(&all[first as usize..], alpha);
                    for (row, p) in drawn.rows.iter().zip(&drawn.probabilities) {
                        prop_assert!(close(*p, expected[(row - first) as usize]));
                    }
                    let least = expected.iter().copied().fold(1.0, f64::min);
                    prop_assert!(close(drawn.lowest.unwrap(), least));
                    if stratified {
                        // Draw i comes from the i-th part of the probability, the largest magnitudes first.
                        let magnitudes = &all[first as usize..];
                        for (i, row) in drawn.rows.iter().enumerate() {
                            let magnitude = magnitudes[(row - first) as usize];
                            let sum = |keep: &dyn Fn(f32) -> bool| -> f64 {
                                magnitudes.iter().zip(&expected).filter(|(m, _)| keep(**m)).map(|(_, p)| p).sum()
                            };
                            let (from, to) = (sum(&|m| m > magnitude), sum(&|m| m >= magnitude));
                            let (low, high) = (i as f64 / count as f64, (i + 1) as f64 / count as f64);
                            prop_assert!(from < high + 1e-9 && to > low - 1e-9, "draw {} left its stratum", i);
                        }
                    }
                }
                Op::Restart => {
                    let saved = MemoryState::save(|v| sampler.visit(live(&all), v)).unwrap();
                    sampler = make();
                    saved.load(|v| sampler.visit(live(&all), v)).unwrap();
                }
            }
            let first = live(&all).start;
            let expected = by_sorting(&all[first as usize..], alpha);
            for (key, magnitude) in all.iter().enumerate() {
                let key = key as u64;
                let is_live = key >= first;
                prop_assert_eq!(sampler.magnitude(key), is_live.then_some(*magnitude));
                let expected = if is_live { expected[(key - first) as usize] } else { 0.0 };
                prop_assert!(close(sampler.probability(key), expected), "row {}", key);
            }
        }
    }
}

/// Over many blocks of the order, after two million changes.
#[test]
fn ranks_stay_exact() {
    let (capacity, alpha) = (20_000, 0.7);
    let mut rng = Rng::seed_from_u64(81);
    let mut sampler = RankBased::new(capacity, alpha).unwrap();
    sampler.inserted(0..capacity);
    let mut end = capacity;
    for round in 0..20_000 {
        let live = end - capacity..end;
        let rows: Vec<u64> = (0..100).map(|_| rng.random_range(live.clone())).collect();
        // A scale that wanders, so that the order is stirred from end to end.
        let scale = (f64::from(round) / 500.0).sin() * 3.0;
        let magnitudes: Vec<f32> =
            rows.iter().map(|_| 10f64.powf(scale + rng.random::<f64>() * 4.0) as f32).collect();
        sampler.update(live, &rows, &magnitudes).unwrap();
        sampler.inserted(end..end + 3);
        end += 3;
    }
    let magnitudes: Vec<f32> = (end - capacity..end).map(|key| sampler.magnitude(key).unwrap()).collect();
    let mut order: Vec<usize> = (0..magnitudes.len()).collect();
    order.sort_by(|a, b| magnitudes[*b].total_cmp(&magnitudes[*a]));
    let of_rank = |rank: usize| ((rank + 1) as f64).powf(-alpha);
    let total: f64 = (0..order.len()).map(of_rank).sum();
    for (rank, row) in order.iter().enumerate() {
        let magnitude = magnitudes[*row];
        let tied = |other: Option<&usize>| other.is_some_and(|other| magnitudes[*other] == magnitude);
        if !tied(order.get(rank + 1)) && !tied(rank.checked_sub(1).and_then(|before| order.get(before))) {
            let expected = of_rank(rank) / total;
            assert!(close(sampler.probability(end - capacity + *row as u64), expected), "rank {rank}");
        }
    }
}

#[test]
fn settings_and_states_that_make_no_sense() {
    for alpha in [-0.1, 1.1, f64::NAN] {
        let message = RankBased::new(10, alpha).unwrap_err().to_string();
        assert!(message.starts_with("alpha is ") && message.contains("must be in 0..=1"), "{message}");
    }
    assert!(RankBased::new(0, 0.7).unwrap_err().to_string().contains("capacity is 0"));
    for capacity in [1 << 34, u64::MAX] {
        assert!(RankBased::new(capacity, 0.7).unwrap_err().to_string().contains("lower the capacity"));
    }
    let schema = Schema::new(vec![Field::new("x", Dtype::U8, [])]).unwrap();
    assert!(Replay::builder(schema.clone()).capacity(10).rank_based(2.0).build().is_err());
    let replay = Replay::builder(schema).capacity(10).rank_based(0.7).build().unwrap();
    replay.writer().push_rows(25, &[&[1; 25]]).unwrap();
    replay.sampler().update_priorities(&[20, 24], &[0.0, 7.0]).unwrap();
    let saved = MemoryState::save(|v| replay.visit(v)).unwrap();
    for (piece, value) in
        [("largest", -1.0f32), ("largest", 0.0), ("magnitudes", -2.0), ("magnitudes", f32::NAN)]
    {
        let mut damaged = saved.clone();
        let path = format!("sampler.{piece}");
        let Some(Piece::Array { bytes, .. }) = damaged.get_mut(&path) else { panic!("{path} is not there") };
        bytes[..4].copy_from_slice(&value.to_ne_bytes());
        let message = damaged.load(|v| replay.visit(v)).unwrap_err().to_string();
        assert!(message.contains(piece) && message.contains("cannot be"), "{message}");
        assert_eq!(MemoryState::save(|v| replay.visit(v)).unwrap(), saved);
    }
    let mut small = RankBased::new(4, 0.7).unwrap();
    let mut sampler = RankBased::new(10, 0.7).unwrap();
    sampler.inserted(0..10);
    let state = MemoryState::save(|v| sampler.visit(0..10, v)).unwrap();
    let message = state.load(|v| small.visit(0..10, v)).unwrap_err().to_string();
    assert!(message.contains("10 rows do not fit into a capacity of 4"), "{message}");
}
