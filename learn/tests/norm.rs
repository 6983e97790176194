//! Normalization layers beside each other and beside plain formulas: ghost, renormalized and recomputed statistics.
//! All in f64; "close" is 1e-10 of the largest value unless it says otherwise.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rl_learn::{
    Alone, Average, BatchNorm1d, BatchNorm2d, BatchNormConfig, BatchRenorm, Device, GhostBatchNorm, Kind,
    MemoryState, Module, Moments, Phase, RenormConfig, Rng, SyncBatchNorm, Tensor, buffers, gradients,
    no_grad, parameters, recompute_statistics, reset_statistics, visit_module,
};
use std::sync::Arc;

const CPU: Device = Device::Cpu;

fn values(shape: &[i64], seed: u64) -> Tensor {
    let mut rng = Rng::seed_from_u64(seed);
    let numbers: Vec<f64> = (0..shape.iter().product::<i64>()).map(|_| rng.random_range(-1.0..3.0)).collect();
    Tensor::from_slice(&numbers).reshape(shape)
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(tensor.detach().to_kind(Kind::Double).contiguous().reshape([-1])).unwrap()
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

/// What agents have been trained with is one call of libtorch's, and stays so to the bit.
#[test]
fn plain_batch_norm_is_libtorchs_own() {
    let norm = BatchNorm1d::new(5, Kind::Float, CPU);
    let (mean, var) = (Tensor::zeros([5], (Kind::Float, CPU)), Tensor::ones([5], (Kind::Float, CPU)));
    set_affine(&norm);
    let affine = parameters(&norm);
    for step in 0..5 {
        let x = values(&[7, 5], step).to_kind(Kind::Float);
        for (phase, training) in [(Phase::Train, true), (Phase::Eval, false)] {
            let expected = x.batch_norm(
                Some(&affine[0]),
                Some(&affine[1]),
                Some(&mean),
                Some(&var),
                training,
                0.1,
                1e-5,
                true,
            );
            assert_eq!(floats(&norm.forward(&x, phase)), floats(&expected));
        }
    }
    assert_eq!((floats(&buffers(&norm)[0]), floats(&buffers(&norm)[1])), (floats(&mean), floats(&var)));
}

#[test]
fn ghost_batch_norm_with_one_group_is_batch_norm_to_the_bit() {
    let (x, out_weight) = (values(&[12, 5], 1), values(&[12, 5], 2));
    for average in [Average::Momentum(0.1), Average::Cumulative] {
        let config = BatchNormConfig { average, ..BatchNormConfig::default() };
        let plain = BatchNorm1d::with(5, config, Kind::Double, CPU);
        let ghost = GhostBatchNorm::new(5, 12, config, Kind::Double, CPU);
        set_affine(&plain);
        set_affine(&ghost);
        for phase in [Phase::Train, Phase::Train, Phase::Eval] {
            let expected = both_ways(&plain, &x, &out_weight, |x| plain.forward(x, phase));
            let found = both_ways(&ghost, &x, &out_weight, |x| ghost.forward(x, phase));
            assert_eq!(
                found.iter().map(floats).collect::<Vec<_>>(),
                expected.iter().map(floats).collect::<Vec<_>>()
            );
        }
        assert_eq!(saved(&plain), saved(&ghost));
    }
}

#[test]
fn ghost_batches_are_normalized_each_by_itself_and_tracked_in_turn() {
    // 11 rows in parts of at most 4: 4, 4 and 3.
    let (x, out_weight) = (values(&[11, 3], 3), values(&[11, 3], 4));
    let config = BatchNormConfig::default();
    let ghost = GhostBatchNorm::new(3, 4, config, Kind::Double, CPU);
    let plain = BatchNorm1d::with(3, config, Kind::Double, CPU);
    set_affine(&ghost);
    set_affine(&plain);
    let found = both_ways(&ghost, &x, &out_weight, |x| ghost.forward(x, Phase::Train));
    let parts = |x: &Tensor| [(0, 4), (4, 4), (8, 3)].map(|(first, count)| x.narrow(0, first, count));
    let expected = both_ways(&plain, &x, &out_weight, |x| {
        Tensor::cat(&parts(x).map(|part| plain.forward(&part, Phase::Train)), 0)
    });
    all_close(&found, &expected, "ghost");
    assert_eq!(saved(&ghost), saved(&plain));
    assert_eq!(buffers(&ghost)[2].int64_value(&[]), 3);
    // The statistics by the paper's sum, running ← (1 − η)^k·running + Σ (1 − η)^(k − i)·η·batch_i.
    let eta: f64 = 0.1;
    let mut mean = Tensor::zeros([3], (Kind::Double, CPU));
    for (i, part) in parts(&x).iter().enumerate() {
        mean += part.mean_dim(0, false, Kind::Double) * (eta * (1.0 - eta).powi(2 - i as i32));
    }
    close(&buffers(&ghost)[0], &mean, "running mean");
    // 9 rows in parts of at most 4 are three of three, and no part is left with one row.
    let _ = ghost.forward(&values(&[9, 3], 5), Phase::Train);
    assert_eq!(buffers(&ghost)[2].int64_value(&[]), 6);
}

/// Batch renormalization as the paper writes it, in plain numbers, for `[B, C]`.
struct PlainRenorm {
    config: RenormConfig,
    mean: Vec<f64>,
    std: Vec<f64>,
    batches: u64,
}

impl PlainRenorm {
    /// Output and the gradients of x, γ and β for the output's gradient `g`; r and d are constants.
    fn step(
        &mut self,
        x: &[f64],
        gamma: &[f64],
        beta: &[f64],
        g: &dyn Fn(f64, usize) -> f64,
    ) -> [Vec<f64>; 4] {
        let c = gamma.len();
        let rows = x.len() / c;
        let way = |until: u64| {
            let from = self.config.warmup_batches as f64;
            ((self.batches as f64 - from) / (until as f64 - from)).clamp(0.0, 1.0)
        };
        let r_max = 1.0 + way(self.config.r_max_at) * (self.config.r_max - 1.0);
        let d_max = way(self.config.d_max_at) * self.config.d_max;
        let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        let (mut d_gamma, mut d_beta) = (vec![0.0; c], vec![0.0; c]);
        let m = rows as f64;
        for k in 0..c {
            let column: Vec<f64> = (0..rows).map(|i| x[i * c + k]).collect();
            let mean = column.iter().sum::<f64>() / m;
            let std = (self.config.eps + column.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / m).sqrt();
            let r = (std / self.std[k]).clamp(1.0 / r_max, r_max);
            let d = ((mean - self.mean[k]) / self.std[k]).clamp(-d_max, d_max);
            let normal: Vec<f64> = column.iter().map(|v| (v - mean) / std).collect();
            let mut g_normal = vec![0.0; rows];
            for i in 0..rows {
                let at = i * c + k;
                y[at] = gamma[k] * (normal[i] * r + d) + beta[k];
                let g = g(y[at], at);
                d_gamma[k] += g * (normal[i] * r + d);
                d_beta[k] += g;
                g_normal[i] = g * gamma[k] * r;
            }
            // The paper's backward pass: through σ_B, through μ_B, and straight.
            let d_std: f64 = (0..rows).map(|i| -(g_normal[i] * (column[i] - mean)) / (std * std)).sum();
            let d_mean: f64 = g_normal.iter().map(|g| -g / std).sum();
            for i in 0..rows {
                dx[i * c + k] = g_normal[i] / std + d_std * (column[i] - mean) / (m * std) + d_mean / m;
            }
            self.mean[k] += self.config.momentum * (mean - self.mean[k]);
            self.std[k] += self.config.momentum * (std - self.std[k]);
        }
        self.batches += 1;
        [y, dx, d_gamma, d_beta]
    }
}

#[test]
fn batch_renorm_is_the_papers_formula_while_its_limits_widen() {
    let config = RenormConfig {
        momentum: 0.3,
        warmup_batches: 2,
        r_max_at: 8,
        d_max: 0.4,
        d_max_at: 5,
        ..RenormConfig::default()
    };
    let layer = BatchRenorm::new(3, config, Kind::Double, CPU);
    set_affine(&layer);
    let affine: Vec<Vec<f64>> = parameters(&layer).iter().map(floats).collect();
    let mut plain = PlainRenorm { config, mean: vec![0.0; 3], std: vec![1.0; 3], batches: 0 };
    let out_weight = values(&[4, 3], 1);
    let weights = floats(&out_weight);
    for step in 0..12 {
        let x = values(&[4, 3], 50 + step) * 0.7;
        let found = both_ways(&layer, &x, &out_weight, |x| layer.forward(x, Phase::Train));
        let expected =
            plain.step(&floats(&x), &affine[0], &affine[1], &|y, at| (1.0 - y.tanh().powi(2)) * weights[at]);
        for (k, (found, expected)) in found.iter().zip(&expected).enumerate() {
            close(&found.reshape([-1]), &Tensor::from_slice(expected), &format!("step {step}, {k}"));
        }
    }
    let statistics = buffers(&layer);
    close(&statistics[0], &Tensor::from_slice(&plain.mean), "μ");
    close(&statistics[1], &Tensor::from_slice(&plain.std), "σ");
    assert_eq!(statistics[2].int64_value(&[]), 12);
    let x = values(&[4, 3], 99);
    let expected = (&x - &statistics[0]) / &statistics[1] * &parameters(&layer)[0] + &parameters(&layer)[1];
    close(&layer.forward(&x, Phase::Eval), &expected, "evaluation");
    assert_eq!(buffers(&layer)[2].int64_value(&[]), 12);
}

#[test]
fn batch_renorm_begins_as_batch_norm_and_resumes_on_its_way() {
    let config = RenormConfig {
        warmup_batches: 2,
        r_max_at: 6,
        d_max_at: 6,
        momentum: 0.2,
        ..RenormConfig::default()
    };
    let make = || BatchRenorm::new(3, config, Kind::Double, CPU);
    let (layer, plain) = (make(), BatchNorm2d::new(3, Kind::Double, CPU));
    let (x, out_weight) = (values(&[4, 3, 2, 5], 1), values(&[4, 3, 2, 5], 2));
    let expected = both_ways(&plain, &x, &out_weight, |x| plain.forward(x, Phase::Train));
    let found = both_ways(&layer, &x, &out_weight, |x| layer.forward(x, Phase::Train));
    all_close(&found, &expected, "warm-up");
    for seed in 3..6 {
        let _ = layer.forward(&values(&[4, 3, 2, 5], seed), Phase::Train);
    }
    let resumed = make();
    saved(&layer).load(|v| visit_module(v, &resumed)).unwrap();
    let next = values(&[4, 3, 2, 5], 7);
    assert_eq!(
        floats(&layer.forward(&next, Phase::Train)),
        floats(&resumed.forward(&next, Phase::Train)),
        "the counter and the statistics are state"
    );
    assert_eq!(saved(&layer), saved(&resumed));
}

/// bf16 activations with f32 parameters, as under autocast: the statistics are summed in f32. bf16 has 8 bits, so 1e-2.
#[test]
fn half_precision_activations_are_normalized_in_single_precision() {
    let x = values(&[64, 3, 4], 1).to_kind(Kind::BFloat16);
    let w = values(&[64, 3, 4], 2).to_kind(Kind::BFloat16);
    let plain = BatchNorm1d::new(3, Kind::Float, CPU);
    let sync = SyncBatchNorm::new(3, BatchNormConfig::default(), Arc::new(Alone), Kind::Float, CPU);
    let renorm = BatchRenorm::new(3, RenormConfig::default(), Kind::Float, CPU);
    let run = |module: &dyn Module, forward: &dyn Fn(&Tensor) -> Tensor| {
        let input = x.copy().set_requires_grad(true);
        let y = forward(&input);
        assert_eq!(y.kind(), Kind::BFloat16);
        let mut wanted = vec![input];
        wanted.extend(parameters(module));
        let mut all = gradients(&(&y * &w).sum(Kind::Float), &wanted);
        assert_eq!((all[0].kind(), all[1].kind()), (Kind::BFloat16, Kind::Float));
        all.push(y);
        all
    };
    let expected = run(&plain, &|x| plain.forward(x, Phase::Train));
    for found in [
        run(&sync, &|x| sync.forward(x, Phase::Train).unwrap()),
        run(&renorm, &|x| renorm.forward(x, Phase::Train)),
    ] {
        for (found, expected) in found.iter().zip(&expected) {
            let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
            let scale = expected.abs().max().double_value(&[]);
            assert!((found - expected).abs().max().double_value(&[]) < 1e-2 * scale);
        }
    }
}

/// What a recomputation wants to hear; the output itself is of no use.
fn done(_: Tensor) -> Result<(), ()> {
    Ok(())
}

/// All rows at once, in f64: mean and unbiased variance.
fn statistics(x: &Tensor) -> (Tensor, Tensor) {
    let (var, mean) = x.var_mean_correction(0, 1, false);
    (mean, var)
}

#[test]
fn recomputed_statistics_are_those_of_all_rows_whatever_the_batches() {
    let x = values(&[23, 3], 1) * 3.0 + 1000.0;
    let batches = || [(0, 10), (10, 10), (20, 3)].map(|(first, count)| x.narrow(0, first, count));
    let (mean, var) = statistics(&x);
    let config = BatchNormConfig::default();
    let norm = BatchNorm1d::new(3, Kind::Double, CPU);
    let ghost = GhostBatchNorm::new(3, 4, config, Kind::Double, CPU);
    let sync = SyncBatchNorm::new(3, config, Arc::new(Alone), Kind::Double, CPU);
    let renorm = BatchRenorm::new(3, RenormConfig::default(), Kind::Double, CPU);
    for round in 0..2 {
        // A first round that is trained away, so that the second must not go on from it.
        recompute_statistics(&norm, batches(), |x, phase| done(norm.forward(&x, phase))).unwrap();
        recompute_statistics(&ghost, batches(), |x, phase| done(ghost.forward(&x, phase))).unwrap();
        recompute_statistics(&sync, batches(), |x, phase| sync.forward(&x, phase).map(drop)).unwrap();
        recompute_statistics(&renorm, batches(), |x, phase| done(renorm.forward(&x, phase))).unwrap();
        for (module, name) in [(&norm as &dyn Module, "plain"), (&ghost, "ghost"), (&sync, "synchronized")] {
            close(&buffers(module)[0], &mean, &format!("{name} mean, round {round}"));
            close(&buffers(module)[1], &var, &format!("{name} variance, round {round}"));
        }
        let std = (&var * (22.0 / 23.0) + 1e-5).sqrt();
        close(&buffers(&renorm)[0], &mean, "renorm mean");
        close(&buffers(&renorm)[1], &std, "renorm standard deviation");
        assert_eq!(buffers(&norm)[2].int64_value(&[]), 3);
        assert_eq!(buffers(&ghost)[2].int64_value(&[]), 3 + 3 + 1);
        let other = values(&[8, 3], 40 + round);
        let _ = norm.forward(&other, Phase::Train);
        let _ = ghost.forward(&other, Phase::Train);
        let _ = renorm.forward(&other, Phase::Train);
    }
    let before = saved(&norm);
    recompute_statistics(&norm, Vec::<Tensor>::new(), |_, _| Err("not called")).unwrap();
    assert_eq!(saved(&norm), before, "no batches, no change");
    reset_statistics(&norm);
    let new = BatchNorm1d::new(3, Kind::Double, CPU);
    assert_eq!(saved(&norm), saved(&new));
}

#[test]
fn layers_resume_from_what_their_walk_shows() {
    let config = BatchNormConfig { average: Average::Cumulative, ..BatchNormConfig::default() };
    let make = || GhostBatchNorm::new(3, 5, config, Kind::Double, CPU);
    let (whole, resumed) = (make(), make());
    for seed in 0..3 {
        let _ = whole.forward(&values(&[9, 3], seed), Phase::Train);
    }
    saved(&whole).load(|v| visit_module(v, &resumed)).unwrap();
    for layer in [&whole, &resumed] {
        let _ = layer.forward(&values(&[9, 3], 9), Phase::Train);
    }
    assert_eq!(saved(&whole), saved(&resumed));
    let mut names = Vec::new();
    whole.walk(&mut |name, _, _| names.push(name.to_string()));
    assert_eq!(names, ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]);
}

#[test]
fn wrong_shapes_and_single_values_are_refused() {
    let refused = |work: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err();
    let images = BatchNorm2d::new(3, Kind::Double, CPU);
    assert!(refused(&|| drop(images.forward(&values(&[4, 3], 1), Phase::Train))));
    assert!(refused(&|| drop(images.forward(&values(&[1, 3, 1, 1], 1), Phase::Train))));
    let _ = images.forward(&values(&[1, 3, 2, 1], 1), Phase::Train);
    let rows = BatchNorm1d::new(3, Kind::Double, CPU);
    assert!(refused(&|| drop(rows.forward(&values(&[4, 3, 2, 2], 1), Phase::Eval))));
    assert!(refused(&|| drop(GhostBatchNorm::new(3, 1, BatchNormConfig::default(), Kind::Double, CPU))));
    let renorm = BatchRenorm::new(3, RenormConfig::default(), Kind::Double, CPU);
    assert!(refused(&|| drop(renorm.forward(&values(&[1, 3], 1), Phase::Train))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Parts of any sizes, merged in any grouping, have the moments of the whole, also far from zero.
    #[test]
    fn merged_moments_are_those_of_the_whole(
        sizes in prop::collection::vec(0i64..9, 1..7), offset in -1e6f64..1e6, seed in 0u64..1000, left in any::<bool>(),
    ) {
        let rows: i64 = sizes.iter().sum();
        prop_assume!(rows > 0);
        let x = values(&[rows, 2], seed) + offset;
        let mut first = 0;
        let mut parts: Vec<Moments> = sizes.iter().map(|&size| {
            let part = Moments::of(&x.narrow(0, first, size));
            first += size;
            part
        }).collect();
        while parts.len() > 1 {
            let at = if left { 0 } else { parts.len() - 2 };
            let (a, b) = (parts.remove(at), parts.remove(at));
            parts.insert(at, a.merge(&b));
        }
        prop_assert_eq!(parts[0].count().double_value(&[]), rows as f64);
        let mean = x.mean_dim(0, false, Kind::Double);
        let deviations = (&x - &mean).square().sum_dim_intlist(0, false, Kind::Double);
        let apart = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
        prop_assert!(apart(parts[0].mean(), &mean) < 1e-9 * (1.0 + offset.abs() * 1e-3));
        prop_assert!(apart(&parts[0].variance(), &(deviations / rows as f64)) < 1e-8);
    }
}
