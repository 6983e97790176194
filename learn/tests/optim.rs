//! Optimizers without a golden value: LARS and LAMB against their formulas in plain f64, groups, state, clipping, and the average of weights.

use rand::{RngExt, SeedableRng};
use rl_learn::{
    Activation, BatchNorm1d, Device, Ema, Kind, MemoryState, Mlp, MlpConfig, Module, Optimizer,
    OptimizerConfig, OptimizerError, ParamGroup, ParamGroups, Phase, Rng, Role, Tensor, clip_value,
    gradients, no_decay_on_biases_and_norms, no_grad, parameters, visit_module,
};

const STEPS: usize = 50;

fn floats(tensor: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(tensor.detach().to_kind(Kind::Double).contiguous().reshape([-1])).unwrap()
}

fn rate(step: usize) -> f64 {
    0.5 / (1 << (step / 15)) as f64
}

/// Four tensors, the third all zeros, the fourth without adaptation and decay; in `kind`, with the first one's gradient scaled by 100 (so that
/// the trust ratio matters) and the second one's gradient zero at first.
struct Problem {
    start: Vec<Vec<f64>>,
    gradients: Vec<Vec<Vec<f64>>>,
}

const SHAPES: [&[i64]; 4] = [&[4, 3], &[2, 5], &[3, 2], &[7]];

impl Problem {
    fn new() -> Self {
        let mut rng = Rng::seed_from_u64(17);
        let mut draw = |i: usize| -> Vec<f64> {
            (0..SHAPES[i].iter().product::<i64>()).map(|_| rng.random_range(-1.0..1.0)).collect()
        };
        let mut start: Vec<_> = (0..4).map(&mut draw).collect();
        start[2].fill(0.0);
        let gradients = (0..STEPS).map(|step| {
            let mut all: Vec<Vec<f64>> = (0..4).map(&mut draw).collect();
            all[0].iter_mut().for_each(|g| *g *= 100.0);
            if step == 0 {
                all[1].fill(0.0);
            }
            all
        });
        let gradients = gradients.collect();
        Self { start, gradients }
    }

    fn tensors(values: &[Vec<f64>], kind: Kind) -> Vec<Tensor> {
        values.iter().zip(SHAPES).map(|(v, s)| Tensor::from_slice(v).reshape(s).to_kind(kind)).collect()
    }

    /// The parameters after 50 steps of ours.
    fn ours(&self, config: OptimizerConfig, kind: Kind) -> Vec<Vec<f64>> {
        let parameters = Self::tensors(&self.start, kind);
        let handles = |range: std::ops::Range<usize>| -> Vec<Tensor> {
            parameters[range].iter().map(Tensor::shallow_clone).collect()
        };
        let plain = ParamGroup { rate_factor: 0.5, weight_decay: Some(0.0), adapt: false };
        let groups = ParamGroups::one(handles(0..3)).with(plain, handles(3..4));
        let mut optimizer = Optimizer::with_groups(config, groups).unwrap();
        for (step, gradients) in self.gradients.iter().enumerate() {
            optimizer.set_learning_rate(rate(step));
            optimizer.step(&Self::tensors(gradients, kind)).unwrap();
        }
        parameters.iter().map(floats).collect()
    }

    /// The parameters after 50 steps of `formula(step, index, adapt, decay, lr, θ, g)`.
    fn plain(
        &self,
        decay: f64,
        mut formula: impl FnMut(usize, usize, bool, f64, f64, &mut [f64], &[f64]),
    ) -> Vec<Vec<f64>> {
        let mut theta = self.start.clone();
        for (step, gradients) in self.gradients.iter().enumerate() {
            for (i, (theta, g)) in theta.iter_mut().zip(gradients).enumerate() {
                match i {
                    3 => formula(step, i, false, 0.0, rate(step) * 0.5, theta, g),
                    _ => formula(step, i, true, decay, rate(step), theta, g),
                }
            }
        }
        theta
    }
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

fn assert_close(name: &str, found: &[Vec<f64>], expected: &[Vec<f64>], tolerance: f64) {
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let largest = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        for (f, e) in found.iter().zip(expected) {
            let error = (f - e).abs() / e.abs().max(largest * 1e-3);
            assert!(error <= tolerance, "{name}, tensor {i}: {f} is not {e}, relative error {error:e}");
        }
    }
}

#[test]
fn lars_is_its_formula() {
    let problem = Problem::new();
    for (momentum, nesterov, clip) in
        [(0.0, false, false), (0.9, false, false), (0.9, true, false), (0.9, false, true)]
    {
        let (decay, eta, eps) = (0.05, if clip { 0.5 } else { 0.02 }, 1e-6);
        let config = OptimizerConfig::Lars {
            momentum,
            weight_decay: decay,
            trust_coefficient: eta,
            eps,
            nesterov,
            clip,
        };
        let mut buffers: Vec<Vec<f64>> = problem.start.iter().map(|s| vec![0.0; s.len()]).collect();
        let mut clipped = 0;
        let expected = problem.plain(decay, |_, i, adapt, decay, lr, theta, g| {
            let (weight, gradient) = (norm(theta), norm(g));
            let mut ratio = 1.0;
            if adapt && weight > 0.0 && gradient > 0.0 {
                ratio = eta * weight / (gradient + decay * weight + eps);
                if clip {
                    clipped += usize::from(ratio > lr);
                    ratio = (ratio / lr).min(1.0);
                }
            }
            for ((t, g), b) in theta.iter_mut().zip(g).zip(&mut buffers[i]) {
                let d = ratio * (g + decay * *t);
                *b = momentum * *b + d;
                *t -= lr * if nesterov { d + momentum * *b } else { *b };
            }
        });
        assert!(!clip || (clipped > 5 && clipped < 145), "the bound binds sometimes: {clipped} of 150");
        let name = format!("LARS {momentum} {nesterov} {clip}");
        assert_close(&name, &problem.ours(config.clone(), Kind::Double), &expected, 1e-6);
        assert_close(&name, &problem.ours(config, Kind::Float), &expected, 1e-3);
    }
}

#[test]
fn lamb_is_its_formula() {
    let problem = Problem::new();
    for (bias_correction, max_trust_ratio) in [(true, None), (false, None), (true, Some(1.0))] {
        let (beta1, beta2, eps, decay) = (0.9, 0.999, 1e-6, 0.05);
        let config = OptimizerConfig::Lamb {
            beta1,
            beta2,
            eps,
            weight_decay: decay,
            bias_correction,
            max_trust_ratio,
        };
        let mut moments: Vec<Vec<(f64, f64)>> =
            problem.start.iter().map(|s| vec![(0.0, 0.0); s.len()]).collect();
        let mut clipped = 0;
        let expected = problem.plain(decay, |step, i, adapt, decay, lr, theta, g| {
            let t = step as i32 + 1;
            let (c1, c2) = match bias_correction {
                true => (1.0 - f64::powi(beta1, t), 1.0 - f64::powi(beta2, t)),
                false => (1.0, 1.0),
            };
            let update: Vec<f64> = theta
                .iter()
                .zip(g)
                .zip(&mut moments[i])
                .map(|((t, g), (m, v))| {
                    *m = beta1 * *m + (1.0 - beta1) * g;
                    *v = beta2 * *v + (1.0 - beta2) * g * g;
                    (*m / c1) / ((*v / c2).sqrt() + eps) + decay * *t
                })
                .collect();
            let (weight, length) = (norm(theta), norm(&update));
            let mut ratio = 1.0;
            if adapt && weight > 0.0 && length > 0.0 {
                ratio = weight / length;
                if let Some(bound) = max_trust_ratio {
                    clipped += usize::from(ratio > bound);
                    ratio = ratio.min(bound);
                }
            }
            theta.iter_mut().zip(&update).for_each(|(t, u)| *t -= lr * ratio * u);
        });
        assert!(
            max_trust_ratio.is_none() || (clipped > 5 && clipped < 145),
            "the bound binds sometimes: {clipped}"
        );
        let name = format!("LAMB {bias_correction} {max_trust_ratio:?}");
        assert_close(&name, &problem.ours(config.clone(), Kind::Double), &expected, 1e-6);
        assert_close(&name, &problem.ours(config, Kind::Float), &expected, 1e-2);
    }
}

struct Net(Mlp, BatchNorm1d);

impl Module for Net {
    fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
        rl_learn::walk_under(&self.0, "mlp", show);
        rl_learn::walk_under(&self.1, "norm", show);
    }
}

fn net(seed: u64) -> Net {
    let config = MlpConfig {
        inputs: 4,
        hidden: vec![8, 6],
        outputs: 3,
        activation: Activation::Tanh,
        batch_norm: false,
        output_bound: None,
    };
    Net(
        Mlp::new(&config, &mut Rng::seed_from_u64(seed), Device::Cpu),
        BatchNorm1d::new(3, Kind::Float, Device::Cpu),
    )
}

impl Net {
    fn train(&self, optimizer: &mut Optimizer, seed: u64, rate: f64) {
        let mut rng = Rng::seed_from_u64(seed);
        let x: Vec<f32> = (0..16 * 4).map(|_| rng.random_range(-2.0..2.0)).collect();
        let x = Tensor::from_slice(&x).reshape([16, 4]);
        let y = self.1.forward(&self.0.forward(&x, Phase::Train), Phase::Train);
        let gradients =
            gradients(&(y - x.narrow(1, 0, 3)).square().mean(Kind::Float), optimizer.parameters());
        optimizer.set_learning_rate(rate);
        optimizer.step(&gradients).unwrap();
    }

    fn state(&self) -> MemoryState {
        MemoryState::save(|v| visit_module(v, self)).unwrap()
    }
}

fn every_config() -> Vec<OptimizerConfig> {
    vec![
        OptimizerConfig::Sgd { momentum: 0.9, dampening: 0.1, weight_decay: 0.01, nesterov: false },
        OptimizerConfig::RmsProp { alpha: 0.9, eps: 1e-6, weight_decay: 0.01, momentum: 0.5, centered: true },
        OptimizerConfig::adam(),
        OptimizerConfig::AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1 },
        OptimizerConfig::lars(0.01),
        OptimizerConfig::lamb(0.01),
    ]
}

#[test]
fn groups_are_saved_and_resumed() {
    for config in every_config() {
        let groups = |net: &Net| {
            ParamGroups::split(net, |name, tensor| ParamGroup {
                rate_factor: if name.starts_with("mlp.layers.0") { 0.5 } else { 1.0 },
                ..no_decay_on_biases_and_norms(name, tensor)
            })
        };
        let whole = net(1);
        let mut optimizer = Optimizer::with_groups(config.clone(), groups(&whole)).unwrap();
        (0..3).for_each(|i| whole.train(&mut optimizer, i, 0.02));
        let changed = ParamGroup { rate_factor: 2.0, weight_decay: Some(0.25), adapt: false };
        optimizer.set_group(1, changed).unwrap();
        let saved = (whole.state(), MemoryState::save(|v| optimizer.visit(v)).unwrap());
        (3..6).for_each(|i| whole.train(&mut optimizer, i, 0.02));

        let resumed = net(9);
        let mut other = Optimizer::with_groups(config.clone(), groups(&resumed)).unwrap();
        saved.0.load(|v| visit_module(v, &resumed)).unwrap();
        saved.1.load(|v| other.visit(v)).unwrap();
        assert_eq!((other.groups()[1], other.updates(), other.learning_rate()), (changed, 3, 0.02));
        assert_eq!(MemoryState::save(|v| other.visit(v)).unwrap(), saved.1, "{config:?}");
        (3..6).for_each(|i| resumed.train(&mut other, i, 0.02));
        assert_eq!(whole.state(), resumed.state(), "{config:?}");
    }
}

/// Splitting into groups that are all alike in numbers changes nothing, bit for bit, and neither does the order of groups.
#[test]
fn equal_groups_are_one_group() {
    for config in every_config() {
        let (one, split) = (net(1), net(1));
        let mut first = Optimizer::new(config.clone(), parameters(&one));
        let groups = ParamGroups::split(&split, |name, _| ParamGroup {
            // Told apart by spelling the same decay out.
            weight_decay: name.contains("layers.1").then_some(config.weight_decay()),
            ..ParamGroup::default()
        });
        let mut second = Optimizer::with_groups(config.clone(), groups).unwrap();
        assert_eq!((first.groups().len(), second.groups().len()), (1, 2));
        for i in 0..5 {
            one.train(&mut first, i, 0.02);
            split.train(&mut second, i, 0.02);
        }
        assert_eq!(one.state(), split.state(), "{config:?}");
    }
}

#[test]
fn the_usual_rule_spares_biases_and_norms() {
    let net = net(1);
    let groups = ParamGroups::split(&net, no_decay_on_biases_and_norms);
    let mut names = Vec::new();
    net.walk(&mut |name, _, role| {
        if role == Role::Parameter {
            names.push(name.to_string());
        }
    });
    for (name, &group) in names.iter().zip(groups.group_of()) {
        let spared = name.ends_with("bias") || name.starts_with("norm.");
        let group = groups.groups()[group];
        assert_eq!((group.weight_decay == Some(0.0), group.adapt), (spared, !spared), "{name}");
    }
    // A zero gradient shows the decay alone.
    let before: Vec<_> = parameters(&net).iter().map(floats).collect();
    let config = OptimizerConfig::AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.5 };
    let mut optimizer = Optimizer::for_module(config, &net).unwrap();
    optimizer.set_learning_rate(0.5);
    let zeros: Vec<Tensor> = optimizer.parameters().iter().map(Tensor::zeros_like).collect();
    optimizer.step(&zeros).unwrap();
    for ((name, before), after) in names.iter().zip(&before).zip(parameters(&net)) {
        let factor = if name.ends_with("bias") || name.starts_with("norm.") { 1.0 } else { 0.75 };
        assert!(floats(&after).iter().zip(before).all(|(a, b)| (a - factor * b).abs() < 1e-7), "{name}");
    }
    // A rule may leave parameters out.
    let some = ParamGroups::split(&net, |name, _| name.starts_with("mlp.").then(ParamGroup::default));
    assert_eq!(Optimizer::with_groups(OptimizerConfig::adam(), some).unwrap().parameters().len(), 6);
}

#[test]
fn parameters_of_several_dtypes_step_together() {
    for config in every_config() {
        let make = |kind| Tensor::ones([3, 2], (kind, Device::Cpu));
        let mixed = [make(Kind::Float), make(Kind::Double), make(Kind::Float)];
        let mut optimizer = Optimizer::new(config, mixed.iter().map(Tensor::shallow_clone).collect());
        optimizer.set_learning_rate(0.125);
        let gradients: Vec<Tensor> = mixed.iter().map(|p| p.ones_like() * 0.5).collect();
        (0..3).for_each(|_| optimizer.step(&gradients).unwrap());
        let found: Vec<_> = mixed.iter().map(floats).collect();
        assert_ne!(found[0][0], 1.0);
        assert_eq!(found[0], found[2]);
        assert!(found[0].iter().zip(&found[1]).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}

/// The fused kernels walk over memory; a transposed or expanded gradient must be read as what it means.
#[test]
fn gradients_may_lie_in_memory_in_any_order() {
    for config in every_config() {
        let gradient = Tensor::from_slice(&[1.0f64, -2.0, 3.0, 4.0, 5.0, 6.0]).reshape([2, 3]);
        let transposed = gradient.tr().contiguous().tr();
        assert!(!transposed.is_contiguous());
        let step = |gradient: &Tensor| {
            let parameter = Tensor::ones([2, 3], (Kind::Double, Device::Cpu));
            let mut optimizer = Optimizer::new(config.clone(), vec![parameter.shallow_clone()]);
            optimizer.set_learning_rate(0.125);
            optimizer.step(&[gradient.shallow_clone()]).unwrap();
            optimizer.step(&[gradient.shallow_clone()]).unwrap();
            floats(&parameter)
        };
        assert_eq!(step(&gradient), step(&transposed), "{config:?}");
        let one = Tensor::from_slice(&[0.25f64]);
        assert_eq!(step(&one.expand([2, 3], false)), step(&one.expand([2, 3], false).contiguous()));
    }
}

#[test]
fn what_does_not_fit_is_refused_in_one_line() {
    let parameter = || vec![Tensor::ones([2, 3], (Kind::Float, Device::Cpu))];
    for config in every_config() {
        let mut optimizer = Optimizer::new(config, parameter());
        for wrong in [
            Tensor::ones([3, 2], (Kind::Float, Device::Cpu)),
            Tensor::ones([2, 3], (Kind::Double, Device::Cpu)),
        ] {
            let why = optimizer.step(&[wrong]).unwrap_err().to_string();
            assert!(why.contains("gradient 0 of a group should be a") && !why.contains('\n'), "{why}");
        }
        assert_eq!(optimizer.updates(), 0);
    }
    let group = ParamGroup { rate_factor: f64::NAN, ..ParamGroup::default() };
    let groups = ParamGroups::default().with(group, parameter());
    let why = Optimizer::with_groups(OptimizerConfig::adam(), groups).unwrap_err().to_string();
    assert_eq!(why, "rate_factor of parameter group 0 is NaN; it must be finite and at least 0");
    let none = Optimizer::with_groups(OptimizerConfig::adam(), ParamGroups::default());
    assert!(matches!(none, Err(OptimizerError::NoParameters)));
    let gaps = Tensor::ones([4, 4], (Kind::Float, Device::Cpu)).narrow(1, 0, 2);
    let why = Optimizer::with_groups(OptimizerConfig::adam(), ParamGroups::one(vec![gaps])).unwrap_err();
    assert!(why.to_string().contains("does not fill its memory"), "{why}");
    let mut optimizer = Optimizer::new(OptimizerConfig::adam(), parameter());
    let why = optimizer.set_group(1, ParamGroup::default()).unwrap_err();
    assert_eq!(why.to_string(), "there is no parameter group 1; the optimizer has 1, numbered from 0");
    let lamb = |max_trust_ratio| OptimizerConfig::Lamb {
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-6,
        weight_decay: 0.0,
        bias_correction: true,
        max_trust_ratio,
    };
    assert!(lamb(Some(0.0)).check("optimizer").unwrap_err().starts_with("optimizer.max_trust_ratio is 0"));
    assert!(lamb(None).check("optimizer").is_ok() && OptimizerConfig::lars(0.1).check("optimizer").is_ok());
    assert!(OptimizerConfig::lars(-0.1).check("optimizer").unwrap_err().contains("weight_decay is -0.1"));
}

#[test]
fn values_are_clipped_in_place_and_nan_stays() {
    let gradients =
        [Tensor::from_slice(&[3.0f32, -0.5, -7.0]), Tensor::from_slice(&[0.25f32, f32::INFINITY, f32::NAN])];
    clip_value(&gradients, 0.5).unwrap();
    assert_eq!(floats(&gradients[0]), [0.5, -0.5, -0.5]);
    assert_eq!(floats(&gradients[1])[..2], [0.25, 0.5]);
    assert!(floats(&gradients[1])[2].is_nan());
    clip_value(&[], 0.5).unwrap();
}

#[test]
fn an_average_goes_into_the_network_and_out_again() {
    let net = net(1);
    let mut optimizer = Optimizer::for_module(OptimizerConfig::adam(), &net).unwrap();
    let mut ema = Ema::new(&net, 0.75, false).unwrap();
    let first = net.state();
    let place = parameters(&net)[0].data_ptr();
    net.train(&mut optimizer, 1, 0.02);
    ema.update().unwrap();
    let trained = net.state();
    let start = self::net(1);
    let expected = floats(&(&parameters(&start)[0] * 0.75 + &parameters(&net)[0] * 0.25));
    let (average, statistics) = ema
        .evaluate(|| {
            assert_ne!(net.state(), trained);
            let mut buffers = Vec::new();
            net.walk(&mut |_, tensor, role| {
                if role == Role::Buffer {
                    buffers.push(floats(tensor));
                }
            });
            (floats(&parameters(&net)[0]), buffers)
        })
        .unwrap();
    assert!(average.iter().zip(&expected).all(|(a, e)| (a - e).abs() < 1e-7));
    assert_eq!(statistics[2], [1.0], "buffers are the network's own of the last update");
    assert_eq!(net.state(), trained);
    assert_eq!(parameters(&net)[0].data_ptr(), place, "memory stays where it is");

    // A panic in an evaluation does not leave the average behind.
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        ema.evaluate(|| panic!("on purpose")).unwrap()
    }));
    assert!(panicked.is_err() && !ema.swapped());
    assert_eq!(net.state(), trained);

    // Swapped in it neither averages nor saves.
    ema.swap().unwrap();
    assert!(ema.update().unwrap_err().to_string().contains("swap it out"));
    assert!(MemoryState::save(|v| ema.visit(v)).is_err() && ema.evaluate(|| ()).is_err());
    ema.swap().unwrap();
    assert_eq!(net.state(), trained);
    assert_ne!(first, trained);

    // Saved and resumed; the warm-up goes on too.
    let mut warm = Ema::new(&net, 0.9, true).unwrap();
    assert_eq!(warm.decay(), 0.1);
    warm.update().unwrap();
    let saved = MemoryState::save(|v| warm.visit(v)).unwrap();
    let other_net = self::net(5);
    let mut other = Ema::new(&other_net, 0.9, true).unwrap();
    saved.load(|v| other.visit(v)).unwrap();
    assert_eq!((other.updates(), other.decay()), (1, 2.0 / 11.0));
    assert_eq!(MemoryState::save(|v| other.visit(v)).unwrap(), saved);
    other.copy_to_network().unwrap();
    warm.copy_to_network().unwrap();
    no_grad(|| assert_eq!(net.state(), other_net.state()));
    assert!(Ema::new(&net, 1.5, false).unwrap_err().contains("1.5"));
}

/// f32 that is not centered has a kernel of its own, f64 goes through libtorch's; sizes around the width of vectors, and one that threads share.
#[test]
fn rmsprop_in_f32_follows_f64() {
    let sizes = [1, 7, 16, 17, 31, 33, 40_003];
    for flags in 0..4 {
        let [momentum, decay] = [1, 2].map(|bit| flags & bit != 0);
        for alpha in [0.95, 0.25] {
            let config = OptimizerConfig::RmsProp {
                alpha,
                eps: 1e-2,
                weight_decay: if decay { 0.05 } else { 0.0 },
                momentum: if momentum { 0.5 } else { 0.0 },
                centered: false,
            };
            let run = |kind| -> Vec<Tensor> {
                let wave = |size: i64, phase: i64| {
                    let x = Tensor::arange(size * 3, (Kind::Float, Device::Cpu)) * 0.37 + phase as f64;
                    x.sin().to_kind(kind).view([3, size])
                };
                let parameters: Vec<Tensor> = sizes.iter().zip(1..).map(|(&n, i)| wave(n, i)).collect();
                let handles = parameters.iter().map(Tensor::shallow_clone).collect();
                let mut optimizer = Optimizer::new(config.clone(), handles);
                optimizer.set_learning_rate(0.0625);
                for step in 0..4 {
                    // Transposed in memory: the kernel looks at no strides.
                    let gradient = |(&n, i): (&i64, i64)| wave(n, i * (step + 1)).tr().contiguous().tr();
                    optimizer.step(&sizes.iter().zip(10..).map(gradient).collect::<Vec<_>>()).unwrap();
                }
                parameters
            };
            for (narrow, wide) in run(Kind::Float).iter().zip(run(Kind::Double)) {
                let error = (narrow.to_kind(Kind::Double) - wide).abs().max().double_value(&[]);
                assert!(error < 2e-6, "{config:?}: {error}");
            }
        }
    }
}

/// What a step with a momentum of its own makes is what an optimizer configured with that momentum makes of the same state.
#[test]
fn a_momentum_that_is_set_counts_from_the_next_step_on_and_is_saved() {
    let value = || Tensor::from_slice(&[1.0f64, -2.0, 3.0]);
    let gradient = |step: i64| [Tensor::from_slice(&[0.5f64, 1.0, -1.0]) * (step as f64 + 1.0)];
    let (dampening, weight_decay, nesterov) = (0.0, 0.01, false);
    let sgd = |momentum| OptimizerConfig::Sgd { momentum, dampening, weight_decay, nesterov };
    let adam = |beta1| OptimizerConfig::Adam { beta1, beta2: 0.999, eps: 1e-8, weight_decay };
    let rms = |momentum| OptimizerConfig::RmsProp {
        alpha: 0.99,
        eps: 1e-8,
        weight_decay,
        momentum,
        centered: false,
    };
    let lamb = |beta1| OptimizerConfig::Lamb {
        beta1,
        beta2: 0.999,
        eps: 1e-6,
        weight_decay,
        bias_correction: true,
        max_trust_ratio: None,
    };
    let lars = |momentum| OptimizerConfig::Lars {
        momentum,
        weight_decay,
        trust_coefficient: 0.001,
        eps: 1e-8,
        nesterov: true,
        clip: false,
    };
    let rules: [&dyn Fn(f64) -> OptimizerConfig; 5] = [&sgd, &adam, &rms, &lamb, &lars];
    for rule in rules {
        let (cycled, fixed) = (value(), value());
        let mut optimizer = Optimizer::new(rule(0.9), vec![cycled.shallow_clone()]);
        let mut other = Optimizer::new(rule(0.9), vec![fixed.shallow_clone()]);
        assert_eq!(optimizer.momentum(), Some(0.9));
        for each in [&mut optimizer, &mut other] {
            each.set_learning_rate(0.1);
            no_grad(|| each.step(&gradient(0))).unwrap();
        }
        assert_eq!(cycled, fixed);
        optimizer.set_momentum(0.6).unwrap();
        let saved = MemoryState::save(|v| optimizer.visit(v)).unwrap();
        let configured = fixed.copy();
        let mut resumed = Optimizer::new(rule(0.3), vec![configured.shallow_clone()]);
        saved.load(|v| resumed.visit(v)).unwrap();
        assert_eq!(resumed.momentum(), Some(0.6));
        for each in [&mut optimizer, &mut other, &mut resumed] {
            no_grad(|| each.step(&gradient(1))).unwrap();
        }
        assert_eq!(cycled, configured, "{:?}", rule(0.9));
        assert_ne!(cycled, fixed, "{:?}", rule(0.9));
        for wrong in [0.0, 1.0, -0.5, f64::NAN] {
            assert!(matches!(optimizer.set_momentum(wrong), Err(OptimizerError::Momentum { .. })));
        }
    }
    let mut without = Optimizer::new(sgd(0.0), vec![value()]);
    assert_eq!(without.momentum(), None);
    assert!(matches!(without.set_momentum(0.9), Err(OptimizerError::NoMomentum)));
}
