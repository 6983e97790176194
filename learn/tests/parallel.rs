//! Ranks as threads and gradients in buckets, against one process with one model. All in f64, 1e-10 relative at most.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rl_learn::{
    Alone, BatchNorm1d, BatchNormConfig, BucketError, Device, GradientBuckets, Kind, Linear, MemoryState,
    Module, Optimizer, OptimizerConfig, Phase, ReduceError, Reducer, Rng, Role, SyncBatchNorm, Tensor,
    Threads, broadcast_module, buffers, gradients, no_grad, parameters, row_share, visit_module, walk_under,
};
use std::sync::Arc;

const CPU: Device = Device::Cpu;

fn values(shape: &[i64], seed: u64) -> Tensor {
    let mut rng = Rng::seed_from_u64(seed);
    let numbers: Vec<f64> = (0..shape.iter().product::<i64>()).map(|_| rng.random_range(-2.0..2.0)).collect();
    Tensor::from_slice(&numbers).reshape(shape)
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(tensor.detach().to_kind(Kind::Double).contiguous().reshape([-1])).unwrap()
}

fn apart(found: &[Tensor], expected: &[Tensor]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let worst = found.iter().zip(expected).map(|(found, expected)| {
        assert_eq!(found.size(), expected.size());
        let (found, expected) = (found.detach(), expected.detach());
        let scale = expected.abs().max().double_value(&[]).max(1e-6);
        (&found - &expected).abs().max().double_value(&[]) / scale
    });
    worst.fold(0.0, f64::max)
}

fn saved(module: &dyn Module) -> MemoryState {
    MemoryState::save(|v| visit_module(v, module)).unwrap()
}

// --- the reducer ---

#[test]
fn a_sum_gives_every_rank_the_same_bits_in_place() {
    let sums = Threads::run(3, |rank| {
        let a = values(&[4, 2], rank.rank() as u64);
        let b = Tensor::from_slice(&[rank.rank() as i64 + 1]);
        let empty = Tensor::zeros([0], (Kind::Float, CPU));
        let address = a.data_ptr() as usize;
        for _ in 0..50 {
            let once = a.copy();
            rank.sum(&[once, b.shallow_clone(), empty.shallow_clone()])?;
            assert_eq!(b.int64_value(&[0]), 6, "one in, 1 + 2 + 3 out");
            let _ = b.shallow_clone().fill_(rank.rank() as i64 + 1);
        }
        rank.sum(&[a.shallow_clone()])?;
        assert_eq!(a.data_ptr() as usize, address);
        Ok::<_, ReduceError>(floats(&a))
    })
    .unwrap();
    let expected = floats(&(values(&[4, 2], 0) + values(&[4, 2], 1) + values(&[4, 2], 2)));
    assert_eq!(sums, vec![expected; 3]);
}

#[test]
fn one_ranks_failure_is_everyones_and_the_first_is_told() {
    let ones = || Tensor::ones([2], (Kind::Double, CPU));
    let error = Threads::run(3, |rank| {
        rank.sum(&[ones()]).map_err(|e| e.to_string())?;
        if rank.rank() == 1 {
            return Err("the disk is full".to_string());
        }
        loop {
            rank.sum(&[ones()]).map_err(|e| e.to_string())?;
        }
        #[allow(unreachable_code)]
        Ok(())
    })
    .unwrap_err();
    assert_eq!((error.rank, error.to_string().as_str()), (1, "rank 1: the disk is full"));

    let error = Threads::run(3, |rank| -> Result<(), ReduceError> {
        assert!(rank.rank() != 2, "a wrong turn");
        rank.sum(&[ones()])?;
        Ok(())
    })
    .unwrap_err();
    assert_eq!((error.rank, error.to_string().as_str()), (2, "rank 2: panicked: a wrong turn"));

    // A rank that simply stops while others wait.
    let error = Threads::run(2, |rank| match rank.rank() {
        0 => Ok(()),
        _ => rank.sum(&[ones()]),
    })
    .unwrap_err();
    assert!(error.rank == 0 && error.why.contains("others wait for it in a sum"), "{error}");
}

#[test]
fn sums_of_different_lists_are_refused() {
    let shapes = |error: rl_learn::ThreadsError| error.to_string();
    let error =
        Threads::run(2, |rank| rank.sum(&[Tensor::zeros([1 + rank.rank() as i64], (Kind::Double, CPU))]));
    assert!(shapes(error.unwrap_err()).contains("all ranks must sum the same shapes"));
    let error = Threads::run(2, |rank| {
        let one = |_| Tensor::zeros([1], (Kind::Double, CPU));
        rank.sum(&(0..=rank.rank()).map(one).collect::<Vec<_>>())
    });
    assert!(shapes(error.unwrap_err()).contains("rank 1 came to sum 2 tensors where rank 0 has 1"));
    let error = Threads::run(2, |rank| {
        let kind = if rank.rank() == 0 { Kind::Float } else { Kind::Double };
        rank.sum(&[Tensor::zeros([1], (kind, CPU))])
    });
    assert!(shapes(error.unwrap_err()).contains("all ranks must sum the same shapes"));
}

/// A perceptron of f64 with batch normalization between its layers, synchronized or not.
struct Net<N> {
    first: Linear,
    norm: N,
    second: Linear,
}

impl<N: Module> Net<N> {
    fn new(norm: N, seed: u64) -> Self {
        let rng = &mut Rng::seed_from_u64(seed);
        Self {
            first: Linear::new(3, 8, rng, Kind::Double, CPU),
            norm,
            second: Linear::new(8, 2, rng, Kind::Double, CPU),
        }
    }
}

impl<N: Module> Module for Net<N> {
    fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
        walk_under(&self.first, "first", show);
        walk_under(&self.norm, "norm", show);
        walk_under(&self.second, "second", show);
    }
}

/// Stands where a layer could.
struct Nothing;

impl Module for Nothing {
    fn walk(&self, _: &mut dyn FnMut(&str, &Tensor, Role)) {}
}

#[test]
fn broadcasting_makes_models_alike_buffers_too() {
    let states = Threads::run(3, |rank| {
        let net = Net::new(BatchNorm1d::new(8, Kind::Double, CPU), rank.rank() as u64);
        let _ = net.norm.forward(&values(&[5, 8], rank.rank() as u64), Phase::Train);
        if rank.rank() != 1 {
            // What was there before does not count, whatever it is.
            no_grad(|| drop(buffers(&net)[0].shallow_clone().fill_(f64::NAN)));
        }
        let before = saved(&net);
        broadcast_module(rank, &net, 1)?;
        Ok::<_, ReduceError>((before, saved(&net)))
    })
    .unwrap();
    for (before, after) in &states {
        assert_eq!(*after, states[1].0);
        assert!(before == after || *before != states[1].0);
    }
    let error = Alone.broadcast(&[values(&[1], 0)], 3).unwrap_err().to_string();
    assert!(error.contains("no rank 3 to broadcast from, the world is 1"), "{error}");
}

// --- data parallel ---

fn mean_loss(y: &Tensor, target: &Tensor) -> Tensor {
    (y - target).square().mean(Kind::Double)
}

/// Six steps on 12 rows: one process on all of them against ranks with shares, each in micro-batches.
fn data_parallel_is_one_process(shares: &[i64], micro_batches: i64) {
    let (steps, rows) = (6, 12);
    assert_eq!(shares.iter().sum::<i64>(), rows);
    let batch = |step: u64| (values(&[rows, 3], 10 + step), values(&[rows, 2], 30 + step));
    let forward = |net: &Net<Nothing>, x: &Tensor| net.second.forward(&net.first.forward(x).tanh());
    let adam = |net: &Net<Nothing>| {
        let mut adam = Optimizer::new(OptimizerConfig::adam(), parameters(net));
        adam.set_learning_rate(0.01);
        adam
    };
    let whole = Net::new(Nothing, 7);
    let mut optimizer = adam(&whole);
    for step in 0..steps {
        let (x, target) = batch(step);
        let loss = mean_loss(&forward(&whole, &x), &target);
        let found = gradients(&loss, optimizer.parameters());
        optimizer.step(&found).unwrap();
    }
    let found = Threads::run(shares.len(), |rank| {
        let (own, reducer) = (rank.rank(), rank.reducer());
        let net = Net::new(Nothing, if own == 0 { 7 } else { 1000 + own as u64 });
        broadcast_module(rank, &net, 0).map_err(|e| e.to_string())?;
        let mut optimizer = adam(&net);
        // 200 bytes: three buckets, so that their order matters.
        let mut buckets = GradientBuckets::new(optimizer.parameters(), 200, reducer);
        assert_eq!(buckets.buckets(), 3);
        for step in 0..steps {
            let (x, target) = batch(step);
            let first: i64 = shares[..own].iter().sum();
            let mut at = 0;
            for part in 0..micro_batches {
                let count = shares[own] / micro_batches + i64::from(part < shares[own] % micro_batches);
                let cut = |t: &Tensor| t.narrow(0, first + at, count);
                let loss = mean_loss(&forward(&net, &cut(&x)), &cut(&target));
                let own = gradients(&loss, optimizer.parameters());
                buckets.add(&own, count as f64).map_err(|e| e.to_string())?;
                at += count;
            }
            let found = buckets.average().map_err(|e| e.to_string())?;
            optimizer.step(found).map_err(|e| e.to_string())?;
        }
        Ok::<_, String>((parameters(&net), saved(&net)))
    })
    .unwrap();
    for (parameters_of_rank, state) in &found {
        let error = apart(parameters_of_rank, &parameters(&whole));
        assert!(error < 1e-10, "{shares:?}, {micro_batches} micro-batches: {error:e}");
        assert_eq!(*state, found[0].1, "the copies are bitwise alike");
    }
}

#[test]
fn data_parallel_training_is_that_of_one_process_on_the_joined_batch() {
    data_parallel_is_one_process(&[12], 1);
    data_parallel_is_one_process(&[12], 5);
    data_parallel_is_one_process(&[6, 6], 1);
    data_parallel_is_one_process(&[7, 1, 4], 1);
    data_parallel_is_one_process(&[7, 0, 5], 3);
    data_parallel_is_one_process(&[2, 10], 2);
}

#[test]
fn synchronized_layers_and_unequal_shares_train_as_one_process() {
    let shares = [5, 2, 1];
    let batch = |step: u64| (values(&[8, 3], 10 + step), values(&[8, 2], 30 + step));
    let config = BatchNormConfig::default();
    let make = |reducer| Net::new(SyncBatchNorm::new(8, config, reducer, Kind::Double, CPU), 5);
    let train = |net: &Net<SyncBatchNorm>, first: i64, count: i64, reducer: Arc<dyn Reducer>| {
        let mut sgd = Optimizer::new(
            OptimizerConfig::Sgd { momentum: 0.9, dampening: 0.0, weight_decay: 0.0, nesterov: false },
            parameters(net),
        );
        sgd.set_learning_rate(0.05);
        let mut buckets = GradientBuckets::new(sgd.parameters(), 1 << 20, Arc::clone(&reducer));
        for step in 0..5 {
            let (x, target) = batch(step);
            let cut = |t: &Tensor| t.narrow(0, first, count);
            let inner = net.norm.forward(&net.first.forward(&cut(&x)), Phase::Train)?;
            let loss = mean_loss(&net.second.forward(&inner.relu()), &cut(&target));
            // The backward pass of the layer joins the losses, so each has its share before.
            let loss = loss * row_share(&*reducer, count as u64, CPU)?;
            buckets.add(&gradients(&loss, sgd.parameters()), 1.0)?;
            sgd.step(buckets.sum()?).unwrap();
        }
        Ok::<_, BucketError>(saved(net))
    };
    let whole = make(Arc::new(Alone));
    train(&whole, 0, 8, Arc::new(Alone)).unwrap();
    let found = Threads::run(3, |rank| {
        let net = make(rank.reducer());
        let state = train(&net, shares[..rank.rank()].iter().sum(), shares[rank.rank()], rank.reducer())?;
        Ok::<_, BucketError>((parameters(&net), buffers(&net), state))
    })
    .unwrap();
    for (parameters_of_rank, buffers_of_rank, state) in &found {
        assert!(apart(parameters_of_rank, &parameters(&whole)) < 1e-10);
        assert!(apart(buffers_of_rank, &buffers(&whole)) < 1e-10);
        assert_eq!(*state, found[0].2);
    }
}

#[test]
fn buckets_refuse_gradients_that_are_not_the_parameters() {
    let parameters = [values(&[2, 3], 0), values(&[4], 1)];
    let mut buckets = GradientBuckets::new(&parameters, 1, Arc::new(Alone));
    let message = |result: Result<(), BucketError>| result.unwrap_err().to_string();
    assert!(message(buckets.add(&[values(&[2, 3], 0)], 1.0)).contains("1 gradients came for 2 parameters"));
    let wrong = [values(&[3, 2], 0), values(&[4], 1)];
    assert!(message(buckets.add(&wrong, 1.0)).contains("the gradient of parameter 0 is (Double, [3, 2])"));
    let missing = [values(&[2, 3], 0), Tensor::new()];
    assert!(message(buckets.add(&missing, 1.0)).contains("the gradient of parameter 1 is undefined"));
    // Refused means not added; and a rank without rows brings nothing, not even NaN.
    let nan = [Tensor::full([2, 3], f64::NAN, (Kind::Double, CPU)), values(&[4], 1)];
    buckets.add(&nan, 0.0).unwrap();
    assert!(buckets.average().unwrap().iter().all(|g| floats(g).iter().all(|&v| v == 0.0)));
    buckets.add(&parameters, 3.0).unwrap();
    assert!(apart(buckets.average().unwrap(), &parameters) < 1e-15);
    buckets.add(&parameters, 2.0).unwrap();
    assert!(apart(buckets.sum().unwrap(), &parameters.map(|p| p * 2.0)) < 1e-15);
}

#[test]
fn buckets_are_of_one_dtype_and_in_reverse_order() {
    let f32s = |n: i64| Tensor::zeros([n], (Kind::Float, CPU));
    let f64s = |n: i64| Tensor::zeros([n], (Kind::Double, CPU));
    // From the back, at most 40 bytes: f32 [3 + 5], f64 [4], and [20] alone for it is larger, [2].
    let parameters = [f32s(2), f32s(20), f64s(4), f32s(5), f32s(3)];
    let mut buckets = GradientBuckets::new(&parameters, 40, Arc::new(Alone));
    assert_eq!(buckets.buckets(), 4);
    assert!(format!("{buckets:?}").contains("buckets: [8, 4, 20, 2]"), "{buckets:?}");
    let ones: Vec<Tensor> = parameters.iter().map(Tensor::ones_like).collect();
    buckets.add(&ones, 0.5).unwrap();
    for (sum, parameter) in buckets.sum().unwrap().iter().zip(&parameters) {
        assert_eq!((sum.kind(), sum.size()), (parameter.kind(), parameter.size()));
        assert!(floats(sum).iter().all(|&v| v == 0.5));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Any shares among any number of ranks: the gradient of the mean over all rows.
    #[test]
    fn averages_weigh_every_row_alike(
        shares in prop::collection::vec(prop::collection::vec(0i64..6, 1..4), 1..4), seed in 0u64..1000,
    ) {
        let total: i64 = shares.iter().flatten().sum();
        prop_assume!(total > 0);
        let expected = values(&[total, 3], seed).mean_dim(0, false, Kind::Double);
        let found = Threads::run(shares.len(), |rank| {
            let rows = values(&[total, 3], seed);
            let mut first: i64 = shares[..rank.rank()].iter().flatten().sum();
            let parameter = [Tensor::zeros([3], (Kind::Double, CPU))];
            let mut buckets = GradientBuckets::new(&parameter, 1 << 10, rank.reducer());
            for &count in &shares[rank.rank()] {
                let own = rows.narrow(0, first, count);
                buckets.add(&[own.mean_dim(0, false, Kind::Double)], count as f64)?;
                first += count;
            }
            Ok::<_, BucketError>(buckets.average()?[0].copy())
        }).unwrap();
        for average in found {
            prop_assert!((average - &expected).abs().max().double_value(&[]) < 1e-12);
        }
    }
}
