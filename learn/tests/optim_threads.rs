//! Sharing a step out over threads and cutting it into parts changes no bit. Alone in its program: the number of threads is the process's.

use rl_learn::{Device, Kind, Optimizer, OptimizerConfig, Tensor, device};

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

/// Three steps over tensors of these sizes; `together` as one optimizer, otherwise one a tensor.
fn train(config: &OptimizerConfig, sizes: &[i64], threads: u32, together: bool) -> Vec<Vec<f32>> {
    device::set_threads(threads);
    let wave = |size: i64, phase: f64| -> Tensor {
        (Tensor::arange(size, (Kind::Float, Device::Cpu)) * 0.37 + phase).sin()
    };
    let parameters: Vec<Tensor> = sizes.iter().zip(1..).map(|(&n, i)| wave(n, f64::from(i))).collect();
    let handles = || parameters.iter().map(Tensor::shallow_clone);
    let mut optimizers: Vec<Optimizer> = match together {
        true => vec![Optimizer::new(config.clone(), handles().collect())],
        false => handles().map(|p| Optimizer::new(config.clone(), vec![p])).collect(),
    };
    for step in 0..3 {
        let gradients: Vec<Tensor> =
            sizes.iter().zip(10..).map(|(&n, i)| wave(n, f64::from(i * (step + 1)))).collect();
        for (i, optimizer) in optimizers.iter_mut().enumerate() {
            optimizer.set_learning_rate(0.0625);
            let mine = if together { &gradients[..] } else { &gradients[i..=i] };
            optimizer.step(mine).unwrap();
        }
    }
    parameters.iter().map(|p| Vec::try_from(p).unwrap()).collect()
}

#[test]
fn threads_and_parts_change_no_bit() {
    let even = [5000i64; 23]; // shared out, in several parts
    let uneven = [100, 90_000, 7, 3000, 1]; // one tensor is nearly all: operations are shared out
    let small = [64, 7, 4096, 64, 33]; // one thread takes all
    let two = [20_000, 20_000];
    for config in every_config() {
        for sizes in [&even[..], &uneven, &small, &two, &[40_000]] {
            let expected = train(&config, sizes, 1, false);
            for threads in [1, 2, 3] {
                let found = train(&config, sizes, threads, true);
                // The norm of one tensor is summed in another order when its sum is shared out over threads.
                let summed = matches!(config, OptimizerConfig::Lars { .. } | OptimizerConfig::Lamb { .. });
                let near = |a: f32, b: f32| a == b || (summed && (a - b).abs() <= 1e-6 * b.abs().max(1e-2));
                let same = found.iter().flatten().zip(expected.iter().flatten()).all(|(&a, &b)| near(a, b));
                assert!(same, "{config:?}, {threads} threads, {sizes:?}");
            }
        }
    }
}

#[test]
fn an_error_on_a_thread_is_the_callers() {
    device::set_threads(2);
    let parameters: Vec<Tensor> =
        (0..4).map(|_| Tensor::ones([20_000], (Kind::Int64, Device::Cpu))).collect();
    let gradients: Vec<Tensor> = parameters.iter().map(Tensor::ones_like).collect();
    let mut optimizer = Optimizer::new(OptimizerConfig::adam(), parameters);
    let why = optimizer.step(&gradients).unwrap_err().to_string();
    assert!(why.starts_with("libtorch: ") && optimizer.updates() == 0, "{why}");
}
