//! Forward, backward, losses, clipping, optimizers and batch normalization against PyTorch 2.11's own values, made by
//! `tests/golden/learn.py`.

use rand::SeedableRng;
use rl_learn::{
    Activation, BatchNorm1d, Device, Kind, Mlp, MlpConfig, Module, Optimizer, OptimizerConfig, Phase, Rng,
    Role, Tensor, clip_norm, gradients, loss, no_grad, parameters,
};
use safetensors::SafeTensors;

const FILE: &[u8] = include_bytes!("golden/learn.safetensors");
const STEPS: i64 = 20;

fn golden(name: &str) -> Tensor {
    let file = SafeTensors::deserialize(FILE).expect("the golden file is whole");
    let view = file.tensor(name).unwrap_or_else(|_| panic!("the golden file has no '{name}'"));
    let kind = match view.dtype() {
        safetensors::Dtype::F32 => Kind::Float,
        safetensors::Dtype::F64 => Kind::Double,
        safetensors::Dtype::I64 => Kind::Int64,
        other => panic!("unexpected dtype {other:?}"),
    };
    let shape: Vec<i64> = view.shape().iter().map(|&d| d as i64).collect();
    Tensor::from_data_size(view.data(), &shape, kind)
}

/// Every element within 1e-6 of the golden one, relative to it or, near zero, to a thousandth of the tensor's largest. What has come through
/// a perceptron's sums, which are taken in another order than PyTorch's, is compared with the largest itself: terms that cancel leave
/// their rounding behind.
fn assert_close(name: &str, found: &Tensor) {
    let expected = golden(name).to_kind(Kind::Double);
    let found = found.detach().to_kind(Kind::Double);
    assert_eq!(found.size(), expected.size(), "{name}: shape");
    let part = if name.starts_with("mlp.") { 1.0 } else { 1e-3 };
    let floor = expected.abs().max().double_value(&[]) * part;
    let error =
        ((&found - &expected).abs() / expected.abs().clamp_min(floor.max(1e-12))).max().double_value(&[]);
    assert!(error <= 1e-6, "{name}: relative error {error:e}\nfound {found:?}\nexpected {expected:?}");
}

fn load(module: &dyn Module, prefix: &str) {
    module.walk(&mut |name, tensor, role| {
        if role == Role::Parameter {
            no_grad(|| tensor.shallow_clone().copy_(&golden(&format!("{prefix}.{name}"))));
        }
    });
}

fn perceptron() -> Mlp {
    let config = MlpConfig {
        inputs: 5,
        hidden: vec![16, 12],
        outputs: 3,
        activation: Activation::Relu,
        batch_norm: false,
        output_bound: None,
    };
    let net = Mlp::new(&config, &mut Rng::seed_from_u64(0), Device::Cpu);
    load(&net, "mlp");
    net
}

fn names(module: &dyn Module) -> Vec<String> {
    let mut names = Vec::new();
    module.walk(&mut |name, _, role| {
        if role == Role::Parameter {
            names.push(name.to_string());
        }
    });
    names
}

#[test]
fn perceptron_losses_gradients_and_clipping() {
    let net = perceptron();
    let (x, target) = (golden("mlp.x"), golden("mlp.target"));
    assert_close("mlp.y", &net.forward(&x, Phase::Train));
    let names = names(&net);
    let mut last = Vec::new();
    for (name, each) in [("mse", loss::mse as fn(&Tensor, &Tensor) -> Tensor), ("huber", loss::huber)] {
        let value = each(&(3.0 * net.forward(&x, Phase::Train)), &target).mean(Kind::Float);
        assert_close(&format!("mlp.{name}"), &value);
        last = gradients(&value, &parameters(&net));
        for (gradient, parameter) in last.iter().zip(&names) {
            assert_close(&format!("mlp.{name}.grad.{parameter}"), gradient);
        }
    }
    assert_close("mlp.clip.norm", &clip_norm(&last, 0.5).unwrap());
    for (gradient, parameter) in last.iter().zip(&names) {
        assert_close(&format!("mlp.clip.grad.{parameter}"), gradient);
    }
}

#[test]
fn twenty_adam_steps_of_a_whole_network() {
    let net = perceptron();
    let (x, target) = (golden("mlp.x"), golden("mlp.target"));
    let mut adam = Optimizer::new(OptimizerConfig::adam(), parameters(&net));
    adam.set_learning_rate(0.0078125);
    for _ in 0..STEPS {
        let value = loss::mse(&net.forward(&x, Phase::Train), &target).mean(Kind::Float);
        let step = gradients(&value, adam.parameters());
        adam.step(&step).unwrap();
    }
    net.walk(&mut |name, tensor, _| assert_close(&format!("mlp.trained.{name}"), tensor));
}

#[test]
fn twenty_steps_of_every_optimizer() {
    let sgd = |momentum, dampening, weight_decay, nesterov| OptimizerConfig::Sgd {
        momentum,
        dampening,
        weight_decay,
        nesterov,
    };
    let cases = [
        ("sgd", sgd(0.0, 0.0, 0.0, false)),
        ("sgd_momentum", sgd(0.9, 0.3, 0.05, false)),
        ("sgd_nesterov", sgd(0.9, 0.0, 0.05, true)),
        (
            "rmsprop",
            OptimizerConfig::RmsProp {
                alpha: 0.99,
                eps: 1e-8,
                weight_decay: 0.0,
                momentum: 0.0,
                centered: false,
            },
        ),
        (
            "rmsprop_centered",
            OptimizerConfig::RmsProp {
                alpha: 0.95,
                eps: 1e-3,
                weight_decay: 0.05,
                momentum: 0.9,
                centered: true,
            },
        ),
        ("adam", OptimizerConfig::adam()),
        ("adam_decay", OptimizerConfig::Adam { beta1: 0.8, beta2: 0.95, eps: 1e-4, weight_decay: 0.05 }),
        ("adamw", OptimizerConfig::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.05 }),
    ];
    let gradients = [golden("optim.gradients.0"), golden("optim.gradients.1")];
    for (name, config) in cases {
        let parameters: Vec<Tensor> = (0..2).map(|i| golden(&format!("optim.start.{i}"))).collect();
        let handles = parameters.iter().map(Tensor::shallow_clone).collect();
        let mut optimizer = Optimizer::new(config, handles);
        for step in 0..STEPS {
            optimizer.set_learning_rate(if step < 10 { 0.125 } else { 0.0625 });
            optimizer.step(&[gradients[0].get(step), gradients[1].get(step)]).unwrap();
        }
        for (i, parameter) in parameters.iter().enumerate() {
            assert_close(&format!("optim.{name}.{i}"), parameter);
        }
    }
}

#[test]
fn twenty_steps_of_batch_normalization() {
    let norm = BatchNorm1d::new(6, Kind::Double, Device::Cpu);
    let (x, out_weight) = (golden("bn.x"), golden("bn.out_weight"));
    let config = OptimizerConfig::Sgd { momentum: 0.5, dampening: 0.0, weight_decay: 0.0, nesterov: false };
    let mut sgd = Optimizer::new(config, parameters(&norm));
    sgd.set_learning_rate(0.125);
    for step in 0..STEPS {
        let input = x.get(step).copy().set_requires_grad(true);
        let y = norm.forward(&input, Phase::Train);
        let mut wanted = vec![input.shallow_clone()];
        wanted.extend(parameters(&norm));
        let mut found = gradients(&(y.tanh() * &out_weight).sum(Kind::Double), &wanted);
        let grad_x = found.remove(0);
        if step == 0 || step == STEPS - 1 {
            assert_close(&format!("bn.y.{step}"), &y);
            assert_close(&format!("bn.grad_x.{step}"), &grad_x);
        }
        sgd.step(&found).unwrap();
    }
    norm.walk(&mut |name, tensor, _| assert_close(&format!("bn.{name}"), tensor));
    assert_close("bn.eval", &norm.forward(&x.get(0), Phase::Eval));
    // Evaluation changed nothing.
    norm.walk(&mut |name, tensor, _| assert_close(&format!("bn.{name}"), tensor));
}
