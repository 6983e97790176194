//! Synchronized batch normalization, with threads as ranks, against batch normalization of the joined batch. All in f64; "close" is
//! 1e-10 of the largest value.

use rand::{RngExt, SeedableRng};
use rl_learn::{
    Alone, Average, BatchNormConfig, Device, GhostBatchNorm, Kind, MemoryState, Module, Phase, ReduceError,
    Reducer, Rng, SyncBatchNorm, Tensor, Threads, buffers, gradients, no_grad, parameters, visit_module,
};
use std::sync::Arc;

const CPU: Device = Device::Cpu;

fn values(shape: &[i64], seed: u64) -> Tensor {
    let mut rng = Rng::seed_from_u64(seed);
    let numbers: Vec<f64> = (0..shape.iter().product::<i64>()).map(|_| rng.random_range(-1.0..3.0)).collect();
    Tensor::from_slice(&numbers).reshape(shape)
}

fn close(found: &Tensor, expected: &Tensor, what: &str) {
    assert_eq!(found.size(), expected.size(), "{what}: shape");
    if expected.numel() == 0 {
        return;
    }
    let (found, expected) = (found.detach().to_kind(Kind::Double), expected.detach().to_kind(Kind::Double));
    let scale = expected.abs().max().double_value(&[]).max(1e-3);
    let error = (&found - &expected).abs().max().double_value(&[]) / scale;
    assert!(error <= 1e-10, "{what}: {error:e}\nfound {found:?}\nexpected {expected:?}");
}

/// Parameters that are not those of a new layer.
fn set_affine(module: &dyn Module) {
    for (i, parameter) in parameters(module).iter().enumerate() {
        no_grad(|| parameter.shallow_clone().copy_(&values(&parameter.size(), 100 + i as u64)));
    }
}

/// Output, and gradients of a loss that weighs every element, of x and of the parameters.
fn both_ways(
    module: &dyn Module,
    x: &Tensor,
    out_weight: &Tensor,
    forward: impl FnOnce(&Tensor) -> Tensor,
) -> Vec<Tensor> {
    let x = x.copy().set_requires_grad(true);
    let y = forward(&x);
    let mut wanted = vec![x];
    wanted.extend(parameters(module));
    let mut all = gradients(&(y.tanh() * out_weight).sum(Kind::Double), &wanted);
    all.insert(0, y.detach());
    all
}

fn all_close(found: &[Tensor], expected: &[Tensor], what: &str) {
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        close(found, expected, &format!("{what} {i}"));
    }
}

fn saved(module: &dyn Module) -> MemoryState {
    MemoryState::save(|v| visit_module(v, module)).unwrap()
}

/// What the ranks compute on their shares against one batch normalization on the joined rows, over three batches.
fn synchronized_is_joined(shares: &[i64], tail: &[i64], average: Average, affine: bool) {
    let config = BatchNormConfig { average, affine, ..BatchNormConfig::default() };
    let rows: i64 = shares.iter().sum();
    let mut shape = vec![rows, 3];
    shape.extend(tail);
    let batch = |step: u64| (values(&shape, 10 + step) * 4.0 + 100.0, values(&shape, 20 + step));
    let plain = GhostBatchNorm::new(3, i64::MAX / 2, config, Kind::Double, CPU);
    set_affine(&plain);
    let expected: Vec<Vec<Tensor>> = (0..3)
        .map(|step| {
            let (x, w) = batch(step);
            both_ways(&plain, &x, &w, |x| plain.forward(x, Phase::Train))
        })
        .collect();
    let first_of = |rank: usize| shares[..rank].iter().sum::<i64>();
    let found = Threads::run(shares.len(), |rank| {
        let layer = SyncBatchNorm::new(3, config, rank.reducer(), Kind::Double, CPU);
        set_affine(&layer);
        let mut steps = Vec::new();
        for step in 0..3 {
            let (x, w) = batch(step);
            let own = |t: &Tensor| t.narrow(0, first_of(rank.rank()), shares[rank.rank()]);
            let mut all = both_ways(&layer, &own(&x), &own(&w), |x| layer.forward(x, Phase::Train).unwrap());
            // The parameters' gradients are each rank's own until they are summed.
            rank.sum(&all[2..])?;
            all.push(layer.forward(&own(&x), Phase::Eval)?);
            steps.push(all);
        }
        Ok::<_, ReduceError>((steps, saved(&layer), buffers(&layer)))
    })
    .unwrap();
    for step in 0..3 {
        for i in 0..2 {
            let parts: Vec<&Tensor> = found.iter().map(|(steps, ..)| &steps[step][i]).collect();
            close(&Tensor::cat(&parts, 0), &expected[step][i], &format!("step {step}, {i}"));
        }
        for (steps, ..) in &found {
            let affine = steps[step].len() - 1;
            all_close(&steps[step][2..affine], &expected[step][2..], &format!("step {step}, parameters"));
        }
    }
    let joined = batch(2).0;
    let parts: Vec<&Tensor> = found.iter().map(|(steps, ..)| steps[2].last().unwrap()).collect();
    close(&Tensor::cat(&parts, 0), &plain.forward(&joined, Phase::Eval), "evaluation");
    for (_, state, statistics) in &found {
        assert_eq!(*state, found[0].1, "the same bits on every rank");
        all_close(statistics, &buffers(&plain), "running statistics");
    }
}

#[test]
fn synchronized_batch_norm_is_batch_norm_over_the_joined_batch() {
    let momentum = Average::Momentum(0.1);
    synchronized_is_joined(&[8], &[], momentum, true);
    synchronized_is_joined(&[4, 4], &[], momentum, true);
    synchronized_is_joined(&[7, 2, 3], &[], momentum, true);
    synchronized_is_joined(&[1, 5, 1], &[], Average::Cumulative, true);
    synchronized_is_joined(&[3, 0, 2], &[], momentum, true);
    synchronized_is_joined(&[2, 3], &[4, 2], momentum, false);
    synchronized_is_joined(&[1, 1, 3], &[5], momentum, true);
}

#[test]
fn ranks_take_part_in_the_backward_pass_of_layers_upon_layers() {
    // Two synchronized layers with a product between them; the gradient of the input against the joined computation.
    // Tensors do not go between threads by reference, so each makes its own.
    let batch = || (values(&[6, 3], 1), values(&[6, 3], 2));
    let config = BatchNormConfig::default();
    let make = |reducer: Arc<dyn Reducer>| {
        let layer = |reducer| SyncBatchNorm::new(3, config, reducer, Kind::Double, CPU);
        (layer(Arc::clone(&reducer)), layer(reducer))
    };
    let run = |(first, second): &(SyncBatchNorm, SyncBatchNorm), x: &Tensor, w: &Tensor| {
        let x = x.copy().set_requires_grad(true);
        let inner = first.forward(&x, Phase::Train)?;
        let y = second.forward(&(inner.sigmoid() * &x), Phase::Train)?;
        Ok::<_, ReduceError>(gradients(&(y.tanh() * w).sum(Kind::Double), &[x]).remove(0))
    };
    let (x, w) = batch();
    let expected = run(&make(Arc::new(Alone)), &x, &w).unwrap();
    let found = Threads::run(2, |rank| {
        let (x, w) = batch();
        let own = |t: &Tensor| if rank.rank() == 0 { t.narrow(0, 0, 4) } else { t.narrow(0, 4, 2) };
        run(&make(rank.reducer()), &own(&x), &own(&w))
    })
    .unwrap();
    close(&Tensor::cat(&found, 0), &expected, "two layers");
}

#[test]
fn a_rank_that_fails_before_its_backward_pass_ends_that_of_the_others() {
    let error = Threads::run(2, |rank| {
        let layer = SyncBatchNorm::new(3, BatchNormConfig::default(), rank.reducer(), Kind::Double, CPU);
        let x = values(&[4, 3], 1).set_requires_grad(true);
        let y = layer.forward(&x, Phase::Train).map_err(|e| e.to_string())?;
        if rank.rank() == 1 {
            return Err("no more rows".to_string());
        }
        let failed = rl_learn::try_gradients(&y.sum(Kind::Double), &[x]).unwrap_err().to_string();
        assert!(failed.contains("rank 1: no more rows"), "{failed}");
        Ok(())
    })
    .unwrap_err();
    assert_eq!(error.to_string(), "rank 1: no more rows");
}

#[test]
fn a_synchronized_graph_refuses_what_it_cannot_differentiate() {
    let layer = SyncBatchNorm::new(3, BatchNormConfig::default(), Arc::new(Alone), Kind::Double, CPU);
    let x = values(&[4, 3], 1).set_requires_grad(true);
    let mut input = &x * 1.0;
    let y = layer.forward(&input, Phase::Train).unwrap();
    let _ = no_grad(|| input.g_add_scalar_(1.0));
    let error = rl_learn::try_gradients(&y.sum(Kind::Double), &[x.shallow_clone()]).unwrap_err().to_string();
    assert!(error.contains("modified by an inplace operation"), "{error}");
    let y = layer.forward(&x, Phase::Train).unwrap();
    let twice = Tensor::f_run_backward(&[y.sum(Kind::Double)], &[&x], true, true).unwrap_err().to_string();
    assert!(twice.contains("cannot be differentiated twice"), "{twice}");
    assert!(!no_grad(|| layer.forward(&x, Phase::Train).unwrap()).requires_grad());
}
