//! Behaviour of the pieces that golden values do not show: initialisation, state, phases, target updates, staging.

use rand::SeedableRng;
use rl_learn::target::TargetPair;
use rl_learn::{
    Activation, BatchNorm1d, Device, Dtype, Kind, MemoryState, Mlp, MlpConfig, Optimizer, OptimizerConfig,
    Phase, Rng, Schema, Staging, Tensor, buffers, clip_norm, gradients, loss, no_grad, parameters,
    visit_module,
};

fn net(batch_norm: bool, seed: u64) -> Mlp {
    let config = MlpConfig {
        inputs: 4,
        hidden: vec![8, 8],
        outputs: 2,
        activation: Activation::Tanh,
        batch_norm,
        output_bound: None,
    };
    Mlp::new(&config, &mut Rng::seed_from_u64(seed), Device::Cpu)
}

fn saved(net: &Mlp) -> MemoryState {
    MemoryState::save(|v| visit_module(v, net)).unwrap()
}

fn batch(seed: u64) -> Tensor {
    use rand::RngExt;
    let mut rng = Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..16 * 4).map(|_| rng.random_range(-2.0..2.0)).collect();
    Tensor::from_slice(&values).reshape([16, 4])
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(tensor.detach().to_kind(Kind::Double).reshape([-1])).unwrap()
}

/// PyTorch's layers are uniform in ±1/√inputs: mean 0 and variance bound²/3. With 40,000 draws the mean of a uniform has a standard error of
/// bound/√(3n), the variance one of bound²·√(4/45/n); 5 of them are exceeded once in 1.7 million tries.
#[test]
fn initial_weights_are_uniform_within_pytorchs_bound() {
    let config = MlpConfig {
        inputs: 100,
        hidden: vec![400],
        outputs: 3,
        activation: Activation::Relu,
        batch_norm: false,
        output_bound: Some(3e-3),
    };
    let net = Mlp::new(&config, &mut Rng::seed_from_u64(5), Device::Cpu);
    let [weight, bias, out_weight, out_bias] = &parameters(&net)[..] else { panic!("two layers") };
    for (tensor, bound) in [(weight, 0.1), (bias, 0.1), (out_weight, 3e-3), (out_bias, 3e-3)] {
        let values = floats(tensor);
        assert!(values.iter().all(|v| v.abs() <= bound));
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| v * v).sum::<f64>() / n;
        assert!(mean.abs() < 5.0 * bound / (3.0 * n).sqrt(), "mean {mean}");
        assert!((variance - bound * bound / 3.0).abs() < 5.0 * bound * bound * (4.0 / 45.0 / n).sqrt());
    }
    // The same seed gives the same network, another one another.
    assert_eq!(saved(&net_of(1)), saved(&net_of(1)));
    assert_ne!(saved(&net_of(1)), saved(&net_of(2)));
}

fn net_of(seed: u64) -> Mlp {
    net(false, seed)
}

#[test]
fn a_perceptron_with_batch_norm_moves_its_statistics_in_training_only() {
    let net = net(true, 1);
    let x = batch(1);
    let before = saved(&net);
    let _ = net.forward(&x, Phase::Eval);
    let one_row = net.forward(&x.narrow(0, 0, 1), Phase::Eval);
    assert_eq!(one_row.size(), [1, 2]);
    assert!(saved(&net).differences(&before).is_empty(), "evaluation changed something");
    let train = no_grad(|| net.forward(&x, Phase::Train));
    let changed = saved(&net).differences(&before);
    let expected: Vec<String> = ["input_norm", "norms.0", "norms.1"]
        .iter()
        .flat_map(|norm| {
            ["num_batches_tracked", "running_mean", "running_var"].map(|s| format!("{norm}.{s}"))
        })
        .collect();
    assert_eq!(changed, expected);
    assert_ne!(floats(&train), floats(&net.forward(&x, Phase::Eval)), "batch and running statistics differ");
}

#[test]
fn target_updates_average_parameters_and_running_statistics_alike() {
    let (online, target) = (net(true, 1), net(true, 2));
    let pair = TargetPair::new(&online, &target).unwrap();
    assert_eq!(saved(&online), saved(&target));
    assert!(parameters(&target).iter().all(|p| !p.requires_grad()));
    let before = parameters(&target)[0].copy();
    let statistics = |net: &Mlp| floats(&buffers(net)[0]);
    let old = statistics(&target);
    no_grad(|| {
        let _ = net_forward_train(&online);
        for parameter in parameters(&online) {
            let _ = parameter.shallow_clone().g_add_scalar_(1.0);
        }
    });
    pair.polyak_update(0.25).unwrap();
    let moved = floats(&(&parameters(&target)[0] - before));
    assert!(moved.iter().all(|m| (m - 0.25).abs() < 1e-6), "{moved:?}");
    for ((old, new), found) in old.iter().zip(statistics(&online)).zip(statistics(&target)) {
        assert!(*old != new && (found - (old + 0.25 * (new - old))).abs() < 1e-6);
    }
    let counter = |net: &Mlp| floats(&buffers(net)[2]);
    assert_eq!((counter(&target), counter(&online)), (vec![1.0], vec![1.0]));
    pair.hard_update().unwrap();
    assert_eq!(saved(&online), saved(&target));
}

fn net_forward_train(net: &Mlp) -> Tensor {
    net.forward(&batch(3), Phase::Train)
}

#[test]
fn an_optimizer_goes_on_where_its_state_was_saved() {
    let configs = [
        OptimizerConfig::Sgd { momentum: 0.9, dampening: 0.1, weight_decay: 0.01, nesterov: false },
        OptimizerConfig::RmsProp { alpha: 0.9, eps: 1e-6, weight_decay: 0.0, momentum: 0.5, centered: true },
        OptimizerConfig::adam(),
        OptimizerConfig::AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1 },
    ];
    for config in configs {
        let step = |net: &Mlp, optimizer: &mut Optimizer, seed: u64, rate: f64| {
            let x = batch(seed);
            let value = loss::mse(&net.forward(&x, Phase::Train), &x.narrow(1, 0, 2)).mean(Kind::Float);
            let gradients = gradients(&value, optimizer.parameters());
            optimizer.set_learning_rate(rate);
            optimizer.step(&gradients).unwrap();
        };
        let whole = net(false, 1);
        let mut optimizer = Optimizer::new(config.clone(), parameters(&whole));
        (0..3).for_each(|i| step(&whole, &mut optimizer, i, 0.02));
        let (saved_net, saved_optimizer) =
            (saved(&whole), MemoryState::save(|v| optimizer.visit(v)).unwrap());
        step(&whole, &mut optimizer, 3, 0.02);
        step(&whole, &mut optimizer, 4, 0.01);

        let resumed = net(false, 9);
        let mut other = Optimizer::new(config.clone(), parameters(&resumed));
        saved_net.load(|v| visit_module(v, &resumed)).unwrap();
        saved_optimizer.load(|v| other.visit(v)).unwrap();
        step(&resumed, &mut other, 3, 0.02);
        step(&resumed, &mut other, 4, 0.01);
        assert_eq!(saved(&whole), saved(&resumed), "{config:?}");
        assert_eq!(other.updates(), 5);
    }
}

#[test]
fn a_batch_norm_layer_refuses_a_single_row_to_train_on() {
    let norm = BatchNorm1d::new(4, Kind::Float, Device::Cpu);
    let one = batch(1).narrow(0, 0, 1);
    assert!(
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| norm.forward(&one, Phase::Train))).is_err()
    );
}

#[test]
fn clipping_leaves_small_gradients_and_shortens_large_ones() {
    let norm_of = |tensors: &[Tensor]| tensors.iter().flat_map(floats).map(|v| v * v).sum::<f64>().sqrt();
    let make = || vec![Tensor::from_slice(&[3.0f32, 0.0]), Tensor::from_slice(&[0.0f32, 4.0])];
    let small = make();
    assert_eq!(clip_norm(&small, 10.0).unwrap().double_value(&[]), 5.0);
    assert_eq!(floats(&small[0]), [3.0, 0.0]);
    let large = make();
    assert_eq!(clip_norm(&large, 0.5).unwrap().double_value(&[]), 5.0);
    assert!((norm_of(&large) - 0.5).abs() < 1e-6);
}

#[test]
fn weights_multiply_the_loss_outside_the_huber_function() {
    let (prediction, target) = (Tensor::from_slice(&[0.0f32, 0.0]), Tensor::from_slice(&[0.5f32, 3.0]));
    let each = loss::huber(&prediction, &target);
    assert_eq!(floats(&each), [0.125, 2.5]);
    let weighted = loss::weighted_mean(&each, &Tensor::from_slice(&[1.0f32, 0.1]));
    assert!((weighted.double_value(&[]) - (0.125 + 0.25) / 2.0).abs() < 1e-7);
}

#[test]
fn staging_hands_out_what_was_gathered() {
    let schema = Schema::transition((Dtype::F32, &[3]), (Dtype::I64, &[])).unwrap();
    let mut staging = Staging::new(&schema, 2, Device::Cpu);
    let address = staging.upload()["obs"].data_ptr();
    let (mut columns, weight) = staging.host_mut();
    columns.column_mut(0).copy_from_slice(bytemuck::cast_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]));
    columns.column_mut(1).copy_from_slice(bytemuck::cast_slice(&[7i64, 8]));
    weight.copy_from_slice(&[0.5, 0.25]);
    drop(columns);
    let batch = staging.upload();
    assert_eq!(batch["obs"].size(), [2, 3]);
    assert_eq!(floats(&batch["obs"]), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!((batch["action"].kind(), floats(&batch["action"])), (Kind::Int64, vec![7.0, 8.0]));
    assert_eq!(batch["reward"].size(), [2]);
    assert_eq!(floats(batch.weight()), [0.5, 0.25]);
    assert_eq!((batch.rows(), batch.get("nothing").is_none()), (2, true));
    assert_eq!(batch["obs"].data_ptr(), address, "the memory stays where it is");
}
