//! 50 steps with two parameter groups against PyTorch 2.11's own values, made by `tests/golden/optim.py`.

use rl_learn::{
    Device, Ema, Kind, Module, Optimizer, OptimizerConfig, ParamGroup, ParamGroups, Role, Tensor, clip_norm,
    clip_value, no_grad,
};
use safetensors::SafeTensors;

const FILE: &[u8] = include_bytes!("golden/optim.safetensors");
const STEPS: i64 = 50;
const GROUP_OF: [usize; 4] = [0, 1, 0, 1];

fn golden(name: &str) -> Tensor {
    let file = SafeTensors::deserialize(FILE).expect("the golden file is whole");
    let view = file.tensor(name).unwrap_or_else(|_| panic!("the golden file has no '{name}'"));
    let kind = match view.dtype() {
        safetensors::Dtype::F32 => Kind::Float,
        safetensors::Dtype::F64 => Kind::Double,
        other => panic!("unexpected dtype {other:?}"),
    };
    let shape: Vec<i64> = view.shape().iter().map(|&d| d as i64).collect();
    Tensor::from_data_size(view.data(), &shape, kind)
}

/// Every element within 1e-6 of the golden one, relative to it or, near zero, to a thousandth of the tensor's largest.
fn assert_close(name: &str, found: &Tensor) {
    let expected = golden(name).to_kind(Kind::Double);
    let found = found.detach().to_kind(Kind::Double);
    assert_eq!(found.size(), expected.size(), "{name}: shape");
    let floor = expected.abs().max().double_value(&[]) * 1e-3;
    let error =
        ((&found - &expected).abs() / expected.abs().clamp_min(floor.max(1e-12))).max().double_value(&[]);
    assert!(error <= 1e-6, "{name}: relative error {error:e}");
}

fn rate(step: i64) -> f64 {
    0.125 / f64::from(1 << (step / 15))
}

/// The script's run: the second group has a quarter of the learning rate, each group its own decay.
fn run(name: &str, config: OptimizerConfig, decays: [f64; 2], kind: Kind, clip: &str) {
    let parameters: Vec<Tensor> =
        (0..4).map(|i| golden(&format!("start.{i}")).to_kind(kind).set_requires_grad(true)).collect();
    let gradients: Vec<Tensor> = (0..4).map(|i| golden(&format!("gradients.{i}")).to_kind(kind)).collect();
    let group = |g: usize| ParamGroup {
        rate_factor: [1.0, 0.25][g],
        weight_decay: Some(decays[g]),
        ..ParamGroup::default()
    };
    let groups = parameters
        .iter()
        .zip(GROUP_OF)
        .fold(ParamGroups::default(), |groups, (p, g)| groups.with(group(g), vec![p.shallow_clone()]));
    let mut optimizer = Optimizer::with_groups(config, groups).unwrap();
    assert_eq!(optimizer.groups().len(), 2);
    for step in 0..STEPS {
        optimizer.set_learning_rate(rate(step));
        let now: Vec<Tensor> = gradients.iter().map(|g| g.get(step).copy()).collect();
        match clip {
            "norm" => assert_close(&format!("{name}.norm.{step}"), &clip_norm(&now, 2.0).unwrap()),
            "value" => clip_value(&now, 0.75).unwrap(),
            _ => {}
        }
        optimizer.step(&now).unwrap();
        if [0, 14, STEPS - 1].contains(&step) {
            for (i, parameter) in parameters.iter().enumerate() {
                assert_close(&format!("{name}.{step}.{i}"), parameter);
            }
        }
    }
}

fn sgd(momentum: f64, dampening: f64, nesterov: bool) -> OptimizerConfig {
    OptimizerConfig::Sgd { momentum, dampening, weight_decay: 0.3, nesterov }
}

fn rmsprop(alpha: f64, eps: f64, momentum: f64, centered: bool) -> OptimizerConfig {
    OptimizerConfig::RmsProp { alpha, eps, weight_decay: 0.3, momentum, centered }
}

fn adam(beta1: f64, beta2: f64, eps: f64) -> OptimizerConfig {
    OptimizerConfig::Adam { beta1, beta2, eps, weight_decay: 0.3 }
}

fn adamw() -> OptimizerConfig {
    OptimizerConfig::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.3 }
}

#[test]
fn fifty_steps_of_two_groups_with_every_optimizer() {
    let cases = [
        ("sgd", sgd(0.0, 0.0, false)),
        ("sgd_momentum", sgd(0.9, 0.3, false)),
        ("sgd_nesterov", sgd(0.9, 0.0, true)),
        ("rmsprop", rmsprop(0.99, 1e-8, 0.0, false)),
        ("rmsprop_momentum", rmsprop(0.9, 1e-8, 0.5, false)),
        ("rmsprop_centered", rmsprop(0.95, 1e-3, 0.9, true)),
        ("adam", adam(0.9, 0.999, 1e-8)),
        ("adam_betas", adam(0.8, 0.95, 1e-4)),
        ("adamw", adamw()),
    ];
    for (name, config) in cases {
        run(name, config, [0.05, 0.0], Kind::Double, "");
    }
    run("both_decayed", adamw(), [0.05, 0.2], Kind::Double, "");
}

#[test]
fn fifty_clipped_steps() {
    run("clip_norm", sgd(0.9, 0.3, false), [0.05, 0.0], Kind::Double, "norm");
    run("clip_value", sgd(0.9, 0.3, false), [0.05, 0.0], Kind::Double, "value");
}

#[test]
fn fifty_steps_in_f32() {
    run("sgd_f32", sgd(0.9, 0.0, false), [0.05, 0.0], Kind::Float, "");
    run("adam_f32", adam(0.9, 0.999, 1e-8), [0.05, 0.0], Kind::Float, "");
    run("adamw_f32", adamw(), [0.05, 0.0], Kind::Float, "");
}

struct Net {
    weight: Tensor,
    seen: Tensor,
}

impl Module for Net {
    fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
        show("weight", &self.weight, Role::Parameter);
        show("seen", &self.seen, Role::Buffer);
    }
}

#[test]
fn fifty_updates_of_an_average() {
    for (name, warm_up) in [("ema", false), ("ema_warm_up", true)] {
        let net = Net {
            weight: golden("start.0").set_requires_grad(true),
            seen: Tensor::zeros([3], (Kind::Double, Device::Cpu)),
        };
        let mut ema = Ema::new(&net, 0.9375, warm_up).unwrap();
        for step in 0..STEPS {
            no_grad(|| {
                let _ = net.weight.shallow_clone().g_sub_(&(0.125 * golden("gradients.0").get(step)));
                let _ = net.seen.shallow_clone().g_add_scalar_(1.0);
            });
            ema.update().unwrap();
        }
        let found = ema.evaluate(|| (net.weight.copy(), net.seen.copy())).unwrap();
        assert_close(&format!("{name}.weight"), &found.0);
        assert_close(&format!("{name}.seen"), &found.1);
    }
}
