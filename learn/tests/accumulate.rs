//! Micro-batches against the one big batch that they make up.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rl_learn::{
    AccumulateError, Accumulator, Device, Kind, Linear, MemoryState, Module, Optimizer, OptimizerConfig, Rng,
    Role, Tensor, gradients, loss, no_grad, parameters, walk_under,
};
use rl_minibatch::NoiseScale;
use std::ops::Range;

/// Two layers; in f64 too, where 1e-6 is far from rounding even behind Adam's division by √v.
struct Net(Linear, Linear);

impl Net {
    fn new(kind: Kind) -> Self {
        let mut rng = Rng::seed_from_u64(5);
        Self(Linear::new(6, 16, &mut rng, kind, Device::Cpu), Linear::new(16, 2, &mut rng, kind, Device::Cpu))
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.1.forward(&self.0.forward(x).tanh())
    }
}

impl Module for Net {
    fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
        walk_under(&self.0, "0", show);
        walk_under(&self.1, "1", show);
    }
}

struct Rows {
    x: Tensor,
    y: Tensor,
    weight: Tensor,
}

fn rows(n: usize, kind: Kind) -> Rows {
    let mut rng = Rng::seed_from_u64(n as u64);
    let mut draw = |shape: &[i64], low: f64| {
        let count = shape.iter().product::<i64>();
        let values: Vec<f64> = (0..count).map(|_| rng.random_range(low..2.0)).collect();
        Tensor::from_slice(&values).reshape(shape).to_kind(kind)
    };
    let n = n as i64;
    Rows { x: draw(&[n, 6], -2.0), y: draw(&[n, 2], -2.0), weight: draw(&[n], 0.1) }
}

/// How losses of rows become one.
#[derive(Clone, Copy, Debug)]
enum Mean {
    /// 1/n·Σl
    Plain,
    /// 1/n·Σw·l, as with importance weights
    Weighted,
    /// Σw·l/Σw, as with class weights
    Normalized,
}

impl Mean {
    fn of(self, net: &Net, rows: &Rows, range: Range<usize>) -> Tensor {
        let part = |t: &Tensor| t.narrow(0, range.start as i64, range.len() as i64);
        let each = loss::huber(&net.forward(&part(&rows.x)), &part(&rows.y)).sum_dim_intlist(1, false, None);
        let weight = part(&rows.weight);
        match self {
            Mean::Plain => each.mean(None),
            Mean::Weighted => (each * weight).mean(None),
            Mean::Normalized => (each * &weight).sum(None) / weight.sum(None),
        }
    }

    /// The pieces of at most `most` of `n` rows, with their shares.
    fn pieces(self, rows: &Rows, most: usize) -> Vec<(Range<usize>, f64)> {
        let n = rows.x.size()[0] as usize;
        let sum = |range: &Range<usize>| match self {
            Mean::Normalized => rows
                .weight
                .narrow(0, range.start as i64, range.len() as i64)
                .sum(Kind::Double)
                .double_value(&[]),
            _ => range.len() as f64,
        };
        let whole = sum(&(0..n));
        (0..n.div_ceil(most))
            .map(|i| i * most..((i + 1) * most).min(n))
            .map(|r| (r.clone(), sum(&r) / whole))
            .collect()
    }
}

/// Five steps over `n` rows in micro-batches of at most `most`.
fn trained(config: &OptimizerConfig, kind: Kind, mean: Mean, n: usize, most: usize) -> Vec<Tensor> {
    let net = Net::new(kind);
    let mut optimizer = Optimizer::new(config.clone(), parameters(&net));
    optimizer.set_learning_rate(0.03125);
    let mut accumulator = Accumulator::new(parameters(&net));
    for step in 0..5 {
        // Batches of one and of several by turns: what is kept from one must not reach the next.
        let rows = rows(if step == 2 { most } else { n }, kind);
        let whole = accumulator
            .batch(mean.pieces(&rows, most), |range| Ok::<_, AccumulateError>(mean.of(&net, &rows, range)))
            .unwrap();
        optimizer.step(whole.gradients()).unwrap();
    }
    parameters(&net)
}

/// The same with no accumulator.
fn trained_whole(config: &OptimizerConfig, kind: Kind, mean: Mean, n: usize, most: usize) -> Vec<Tensor> {
    let net = Net::new(kind);
    let mut optimizer = Optimizer::new(config.clone(), parameters(&net));
    optimizer.set_learning_rate(0.03125);
    for step in 0..5 {
        let count = if step == 2 { most } else { n };
        let rows = rows(count, kind);
        let gradients = gradients(&mean.of(&net, &rows, 0..count), optimizer.parameters());
        optimizer.step(&gradients).unwrap();
    }
    parameters(&net)
}

/// The largest difference of an element. In f64 relative to the element or, near zero, to a thousandth of its tensor's largest; in f32,
/// whose numbers keep 1e-7 of the largest term that went into a sum, relative to the tensor's largest.
fn difference(found: &[Tensor], expected: &[Tensor]) -> f64 {
    let pairs = found.iter().zip(expected).map(|(found, expected)| {
        let near_zero = if expected.kind() == Kind::Double { 1e-3 } else { 1.0 };
        let (found, expected) =
            (found.detach().to_kind(Kind::Double), expected.detach().to_kind(Kind::Double));
        let floor = expected.abs().max().double_value(&[]) * near_zero;
        ((found - &expected).abs() / expected.abs().clamp_min(floor)).max().double_value(&[])
    });
    pairs.fold(0.0, f64::max)
}

/// k micro-batches, for k dividing and not dividing N, with and without loss weights, give the parameters of the one big batch.
#[test]
fn micro_batches_train_like_the_batch_they_make_up() {
    let sgd = OptimizerConfig::Sgd { momentum: 0.9, dampening: 0.0, weight_decay: 0.01, nesterov: true };
    for (config, kind) in
        [(sgd.clone(), Kind::Float), (sgd, Kind::Double), (OptimizerConfig::adam(), Kind::Double)]
    {
        let mut largest = 0.0f64;
        for mean in [Mean::Plain, Mean::Weighted, Mean::Normalized] {
            for (n, most) in [(24, 24), (24, 12), (24, 8), (24, 1), (24, 7), (24, 23), (31, 4), (1, 1)] {
                let expected = trained_whole(&config, kind, mean, n, most);
                let found = trained(&config, kind, mean, n, most);
                let difference = difference(&found, &expected);
                largest = largest.max(difference);
                assert!(difference <= 1e-6, "{kind:?} {mean:?} {n} in {most}s: {difference:e}");
                if most == n {
                    let bits = |t: &[Tensor]| t.iter().map(|t| t.to_kind(Kind::Double)).collect::<Vec<_>>();
                    assert_eq!(bits(&found), bits(&expected), "one micro-batch is the batch itself");
                }
            }
        }
        println!("{config:?} in {kind:?}: largest relative difference {largest:e}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 40, ..ProptestConfig::default() })]
    /// Pieces of any sizes, whatever they are.
    #[test]
    fn any_partition_gives_the_gradient_of_the_whole(sizes in prop::collection::vec(1usize..9, 1..7)) {
        let net = Net::new(Kind::Double);
        let n: usize = sizes.iter().sum();
        let rows = rows(n, Kind::Double);
        let mut accumulator = Accumulator::new(parameters(&net));
        let mut start = 0;
        for size in &sizes {
            accumulator.add(&Mean::Plain.of(&net, &rows, start..start + size), *size as f64 / n as f64).unwrap();
            start += size;
        }
        let expected = gradients(&Mean::Plain.of(&net, &rows, 0..n), &parameters(&net));
        prop_assert!(difference(accumulator.finish().unwrap().gradients(), &expected) < 1e-10);
    }
}

#[test]
fn norms_of_the_parts_and_of_the_whole_are_those_of_their_gradients() {
    let net = Net::new(Kind::Double);
    let rows = rows(10, Kind::Double);
    let norm2 = |range: Range<usize>| {
        let all = gradients(&Mean::Plain.of(&net, &rows, range), &parameters(&net));
        all.iter().map(|g| g.square().sum(Kind::Double).double_value(&[])).sum::<f64>()
    };
    let mut accumulator = Accumulator::new(parameters(&net));
    let of = |range| Ok::<_, AccumulateError>(Mean::Plain.of(&net, &rows, range));
    assert!(accumulator.batch(Mean::Plain.pieces(&rows, 4), of).unwrap().norms().is_none(), "not asked for");
    accumulator.measure(true);
    for _ in 0..2 {
        let whole = accumulator.batch(Mean::Plain.pieces(&rows, 4), of).unwrap();
        let norms = whole.norms().expect("three micro-batches");
        let micro = 0.4 * norm2(0..4) + 0.4 * norm2(4..8) + 0.2 * norm2(8..10);
        assert!((norms.micro.double_value(&[]) / micro - 1.0).abs() < 1e-12);
        assert!((norms.whole.double_value(&[]) / norm2(0..10) - 1.0).abs() < 1e-12);
        assert_eq!(norms.micro_batches, 3);
    }
    let one = accumulator.batch([(0..10, 1.0)], of).unwrap();
    assert!(one.norms().is_none(), "one micro-batch tells nothing of noise");
}

/// Gradients of rows that are normal around G = (1, …, 1) with variance 4 in 8 dimensions: |G|² = 8 and tr Σ = 32. With unequal micro-batches
/// the measured norms are without bias those of n/K and n rows. 4,000 batches of 10 rows; the standard error of each mean is estimated
/// from the batches, and 5 of them are exceeded once in 1.7 million tries.
#[test]
fn norms_of_unequal_parts_have_the_expectation_of_their_mean_size() {
    use rand_distr::{Distribution, Normal};
    let (batches, n) = (4_000, 10);
    let mut rng = Rng::seed_from_u64(8);
    let normal = Normal::new(1.0f64, 2.0).unwrap();
    let weight = Tensor::zeros([8], (Kind::Double, Device::Cpu)).set_requires_grad(true);
    let mut accumulator = Accumulator::new(vec![weight.shallow_clone()]);
    accumulator.measure(true);
    let (mut micro, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..batches {
        let values: Vec<f64> = (0..n * 8).map(|_| normal.sample(&mut rng)).collect();
        let rows = Tensor::from_slice(&values).reshape([n, 8]);
        let pieces = [(0, 5), (5, 4), (9, 1)].map(|(first, count)| ((first, count), count as f64 / n as f64));
        let batch = accumulator
            .batch(pieces, |(first, count)| {
                Ok::<_, AccumulateError>(rows.narrow(0, first, count).matmul(&weight).mean(None))
            })
            .unwrap();
        let norms = batch.norms().unwrap();
        micro.push(norms.micro.double_value(&[]));
        whole.push(norms.whole.double_value(&[]));
    }
    for (values, expected) in [(micro, 8.0 + 32.0 * 3.0 / 10.0), (whole, 8.0 + 32.0 / 10.0)] {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (count - 1.0);
        assert!((mean - expected).abs() < 5.0 * (variance / count).sqrt(), "{mean} and not {expected}");
    }
}

/// The gradients of the test above have B_simple = 32/8 = 4 rows. Micro-batches of 5, 4 and 1 rows; the standard error of one batch's tr Σ and
/// |G|² is estimated from the batches, and 5 of the means' are exceeded once in 1.7 million tries.
#[test]
fn the_noise_scale_is_fed_with_the_true_rows_of_unequal_parts() {
    use rand_distr::{Distribution, Normal};
    let (batches, n) = (4_000, 10);
    let mut rng = Rng::seed_from_u64(9);
    let normal = Normal::new(1.0f64, 2.0).unwrap();
    let weight = Tensor::zeros([8], (Kind::Double, Device::Cpu)).set_requires_grad(true);
    let mut accumulator = Accumulator::new(vec![weight.shallow_clone()]);
    assert!(accumulator.noise_scale().is_none());
    // An average over so many that it is a mean.
    accumulator.measure_noise(Some(NoiseScale::new(0.999_999_9).unwrap()));
    let mut by_hand = NoiseScale::new(0.999_999_9).unwrap();
    let (mut traces, mut squares) = (Vec::new(), Vec::new());
    for batch in 0..batches {
        let values: Vec<f64> = (0..n * 8).map(|_| normal.sample(&mut rng)).collect();
        let rows = Tensor::from_slice(&values).reshape([n, 8]);
        for (first, count) in [(0, 5), (5, 4), (9, 1)] {
            let loss = rows.narrow(0, first, count).matmul(&weight).mean(None);
            accumulator.add(&loss, count as f64 / n as f64).unwrap();
        }
        let whole = accumulator.finish_batch(n as u64).unwrap();
        let norms = whole.norms().unwrap();
        let (micro, whole) = (norms.micro.double_value(&[]), norms.whole.double_value(&[]));
        by_hand.observe((10.0 / 3.0, micro), (10.0, whole)).unwrap();
        traces.push((micro - whole) / (0.3 - 0.1));
        squares.push((10.0 * whole - 10.0 / 3.0 * micro) / (10.0 - 10.0 / 3.0));
        assert_eq!(accumulator.noise_scale().unwrap(), &by_hand, "the latest batch is included, {batch}");
    }
    let found = accumulator.noise_scale().unwrap().estimate().unwrap();
    for (values, found, expected) in [(traces, found.trace, 32.0), (squares, found.gradient2, 8.0)] {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (count - 1.0);
        assert!((found - expected).abs() < 5.0 * (variance / count).sqrt(), "{found} and not {expected}");
    }
    assert_eq!(found.batch_size(64), 4);
}

#[test]
fn the_noise_scale_passes_over_what_tells_nothing_and_is_saved() {
    let net = Net::new(Kind::Double);
    let rows = rows(10, Kind::Double);
    let mut accumulator = Accumulator::new(parameters(&net));
    let add = |accumulator: &mut Accumulator, pieces: usize, factor: f64| {
        for (range, share) in Mean::Plain.pieces(&rows, pieces) {
            accumulator.add(&(Mean::Plain.of(&net, &rows, range) * factor), share).unwrap();
        }
    };
    let observed = |accumulator: &mut Accumulator| accumulator.noise_scale().unwrap().observations();
    accumulator.measure_noise(Some(NoiseScale::new(0.9).unwrap()));
    add(&mut accumulator, 10, 1.0);
    assert!(accumulator.finish_batch(10).unwrap().norms().is_none());
    assert_eq!(observed(&mut accumulator), 0, "one micro-batch tells nothing");
    add(&mut accumulator, 4, 1.0);
    accumulator.finish().unwrap();
    assert_eq!(observed(&mut accumulator), 0, "nobody said of how many rows");
    add(&mut accumulator, 4, f64::INFINITY);
    accumulator.finish_batch(10).unwrap();
    assert_eq!(observed(&mut accumulator), 0, "a batch that overflowed");
    add(&mut accumulator, 4, 1.0);
    let error = accumulator.finish_batch(2).unwrap_err();
    assert!(matches!(error, AccumulateError::Rows { rows: 2, micro_batches: 3 }));
    add(&mut accumulator, 4, 1.0);
    accumulator.finish_batch(10).unwrap();
    // Not read yet, but saved.
    let saved = MemoryState::save(|v| accumulator.visit(v)).unwrap();
    assert_eq!(observed(&mut accumulator), 1);
    let mut other = Accumulator::new(parameters(&net));
    other.measure_noise(Some(NoiseScale::new(0.9).unwrap()));
    saved.load(|v| other.visit(v)).unwrap();
    assert_eq!(other.noise_scale(), accumulator.noise_scale());
    // A scaled loss has another tr Σ and |G|², and the same ratio.
    let mut scaled = Accumulator::new(parameters(&net));
    scaled.measure_noise(Some(NoiseScale::new(0.9).unwrap()));
    add(&mut scaled, 4, 8.0);
    scaled.finish_batch(10).unwrap();
    let estimate = |accumulator: &mut Accumulator| accumulator.noise_scale().unwrap().estimate().unwrap();
    let (plain, scaled) = (estimate(&mut accumulator), estimate(&mut scaled));
    assert!((scaled.trace / plain.trace - 64.0).abs() < 1e-9);
    assert!(plain.rows == scaled.rows || (scaled.rows / plain.rows - 1.0).abs() < 1e-9);
    accumulator.measure_noise(None);
    assert!(accumulator.noise_scale().is_none());
}

/// Autograd gives a sum's gradient as one number seen many times over, and two summands' gradients as one tensor.
#[test]
fn gradients_that_share_memory_are_added_apart() {
    let make = || Tensor::zeros([3], (Kind::Double, Device::Cpu)).set_requires_grad(true);
    let (a, b) = (make(), make());
    let mut accumulator = Accumulator::new(vec![a.shallow_clone(), b.shallow_clone()]);
    for share in [0.25, 0.25, 0.5] {
        accumulator.add(&(&a + &b).sum(Kind::Double), share).unwrap();
    }
    let whole = accumulator.finish().unwrap();
    let _ = no_grad(|| whole.gradients()[0].shallow_clone().g_mul_scalar_(3.0));
    let floats: Vec<Vec<f64>> = whole.gradients().iter().map(|g| g.try_into().unwrap()).collect();
    assert_eq!(floats, [vec![3.0; 3], vec![1.0; 3]]);
}

#[test]
fn batches_that_are_not_whole_are_refused_and_given_up() {
    let weight = Tensor::ones([2], (Kind::Double, Device::Cpu)).set_requires_grad(true);
    let mut accumulator = Accumulator::new(vec![weight.shallow_clone()]);
    let loss = || weight.sum(Kind::Double);
    let error = accumulator.finish().unwrap_err();
    assert_eq!(error.to_string(), "0 micro-batches make up 0 of their batch; their shares must add up to 1");
    accumulator.add(&loss(), 0.25).unwrap();
    accumulator.add(&loss(), 0.25).unwrap();
    let error = accumulator.finish().unwrap_err();
    assert_eq!(
        error.to_string(),
        "2 micro-batches make up 0.5 of their batch; their shares must add up to 1"
    );
    for _ in 0..2 {
        accumulator.add(&loss(), 1.0).unwrap();
        accumulator
            .finish()
            .expect("a batch begins anew behind one that was refused, and behind a whole one");
    }
    for share in [0.0, -0.5, 1.5, f64::NAN] {
        let error = accumulator.add(&loss(), share).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("a micro-batch's share of its batch is {share}; it must")),
            "{error}"
        );
    }
    // What cannot be differentiated: each an error, and the half batch before it is gone.
    let other = Tensor::ones([], (Kind::Double, Device::Cpu)).set_requires_grad(true);
    let bad = [
        (Tensor::ones([], (Kind::Double, Device::Cpu)), "does not depend on parameter 0"),
        (no_grad(loss), "does not depend on parameter 0"),
        (&other * 2.0, "does not depend on parameter 0"),
        (&weight * 2.0, "has shape [2]; it must be a scalar"),
    ];
    for (bad, expected) in bad {
        accumulator.add(&loss(), 0.5).unwrap();
        let error = accumulator.add(&bad, 0.5).unwrap_err().to_string();
        assert!(error.contains(expected) && error.lines().count() == 1, "{error}");
        accumulator.add(&loss(), 1.0).unwrap();
        assert_eq!(Vec::<f64>::try_from(&accumulator.finish().unwrap().gradients()[0]).unwrap(), [1.0, 1.0]);
    }
    // A graph that was freed: autograd's own error, in one line.
    let used = loss().exp();
    accumulator.add(&used, 0.5).unwrap();
    let error = accumulator.add(&used, 0.5).unwrap_err();
    assert!(matches!(error, AccumulateError::Gradient(_)), "{error}");
    assert_eq!(error.to_string().lines().count(), 1, "{error}");
    // An error of the caller's own ends the batch as well.
    let stopped = accumulator.batch([(1, 0.5), (2, 0.5)], |piece| match piece {
        1 => Ok(loss()),
        _ => Err(AccumulateError::Share { share: 7.0 }),
    });
    assert!(stopped.is_err());
    accumulator.batch([((), 1.0)], |()| Ok::<_, AccumulateError>(loss())).unwrap();
}

/// Accumulated gradients of a scaled loss, unscaled after the last micro-batch, are those of the plain loss.
#[test]
fn a_scaled_loss_accumulates_and_an_overflow_in_one_part_skips_the_step() {
    use rl_learn::amp::{GradScaler, GradScalerConfig};
    let net = Net::new(Kind::Float);
    let rows = rows(10, Kind::Float);
    let mut scaler = GradScaler::new(GradScalerConfig::default(), Device::Cpu);
    let mut optimizer = Optimizer::new(OptimizerConfig::adam(), parameters(&net));
    optimizer.set_learning_rate(0.1);
    let mut accumulator = Accumulator::new(parameters(&net));
    let expected = gradients(&Mean::Plain.of(&net, &rows, 0..10), &parameters(&net));
    let state = |optimizer: &mut Optimizer| MemoryState::save(|v| optimizer.visit(v)).unwrap();
    let before = state(&mut optimizer);
    for overflow in [true, false] {
        let whole = accumulator
            .batch(Mean::Plain.pieces(&rows, 4), |range| {
                let factor = if overflow && range.start == 4 { f64::INFINITY } else { 1.0 };
                Ok::<_, AccumulateError>(scaler.scale(&Mean::Plain.of(&net, &rows, range)) * factor)
            })
            .unwrap();
        let unscaled = scaler.unscale(whole.gradients()).unwrap();
        if !overflow {
            assert!(difference(whole.gradients(), &expected) < 1e-6);
        }
        optimizer.step_unscaled(whole.gradients(), &unscaled).unwrap();
        scaler.update().unwrap();
        assert_eq!(state(&mut optimizer).differences(&before) == ["updates"], overflow);
    }
    assert_eq!(scaler.skipped().int64_value(&[]), 1);
}
