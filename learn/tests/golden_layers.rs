//! Batch and layer normalization, convolutions and recurrent networks against PyTorch 2.11's own values, made by `tests/golden/norm.py`.
//! All in f64, 1e-6 relative.

use rand::SeedableRng;
use rl_learn::{
    Average, BatchNorm1d, BatchNorm2d, BatchNormConfig, Conv2d, Conv2dConfig, Device, Kind, LayerNorm,
    Module, Phase, Rng, Rnn, RnnConfig, RnnKind, RnnState, Role, Tensor, gradients, no_grad, parameters,
};
use safetensors::SafeTensors;

const FILE: &[u8] = include_bytes!("golden/norm.safetensors");
const STEPS: i64 = 5;
const CPU: Device = Device::Cpu;

fn golden(name: &str) -> Tensor {
    let file = SafeTensors::deserialize(FILE).expect("the golden file is whole");
    let view = file.tensor(name).unwrap_or_else(|_| panic!("the golden file has no '{name}'"));
    let kind = match view.dtype() {
        safetensors::Dtype::F64 => Kind::Double,
        safetensors::Dtype::I64 => Kind::Int64,
        other => panic!("unexpected dtype {other:?}"),
    };
    let shape: Vec<i64> = view.shape().iter().map(|&d| d as i64).collect();
    Tensor::from_data_size(view.data(), &shape, kind)
}

/// Every element within 1e-6 of the golden one, relative to it or, near zero, to a thousandth of the tensor's largest.
fn assert_close(name: &str, found: &Tensor) {
    let expected = golden(name).to_kind(Kind::Double);
    assert_eq!(found.size(), expected.size(), "{name}: shape");
    let found = found.detach().to_kind(Kind::Double);
    let floor = (expected.abs().max().double_value(&[]) * 1e-3).max(1e-12);
    let error = ((&found - &expected).abs() / expected.abs().clamp_min(floor)).max().double_value(&[]);
    assert!(error <= 1e-6, "{name}: relative error {error:e}\nfound {found:?}\nexpected {expected:?}");
}

/// Gives `module` the golden parameters; each has to be there.
fn load(module: &dyn Module, prefix: &str) {
    module.walk(&mut |name, tensor, role| {
        if role == Role::Parameter {
            no_grad(|| tensor.shallow_clone().copy_(&golden(&format!("{prefix}.{name}"))));
        }
    });
}

fn parameter_names(module: &dyn Module) -> Vec<String> {
    let mut names = Vec::new();
    module.walk(&mut |name, _, role| {
        if role == Role::Parameter {
            names.push(name.to_string());
        }
    });
    names
}

fn batch_norm_case(name: &str, norm: &dyn Module, forward: &dyn Fn(&Tensor, Phase) -> Tensor) {
    load(norm, name);
    let (x, out_weight) = (golden(&format!("{name}.x")), golden(&format!("{name}.out_weight")));
    let names = parameter_names(norm);
    for step in 0..STEPS {
        let input = x.get(step).copy().set_requires_grad(true);
        let y = forward(&input, Phase::Train);
        let mut wanted = vec![input.shallow_clone()];
        wanted.extend(parameters(norm));
        let found = gradients(&(y.tanh() * &out_weight).sum(Kind::Double), &wanted);
        if step == 0 || step == STEPS - 1 {
            assert_close(&format!("{name}.y.{step}"), &y);
            assert_close(&format!("{name}.grad.x.{step}"), &found[0]);
            for (gradient, parameter) in found[1..].iter().zip(&names) {
                assert_close(&format!("{name}.grad.{parameter}.{step}"), gradient);
            }
        }
    }
    norm.walk(&mut |tensor_name, tensor, _| assert_close(&format!("{name}.{tensor_name}"), tensor));
    assert_close(&format!("{name}.eval"), &forward(&x.get(0), Phase::Eval));
    // Evaluation changed nothing.
    norm.walk(&mut |tensor_name, tensor, _| assert_close(&format!("{name}.{tensor_name}"), tensor));
}

#[test]
fn batch_norm_1d() {
    let plain = BatchNormConfig::default();
    for (name, config) in [
        ("bn1d", plain),
        ("bn1d_positions", BatchNormConfig { eps: 1e-3, average: Average::Momentum(0.3), ..plain }),
        ("bn1d_cumulative", BatchNormConfig { average: Average::Cumulative, ..plain }),
    ] {
        let norm = BatchNorm1d::with(6, config, Kind::Double, CPU);
        batch_norm_case(name, &norm, &|x, phase| norm.forward(x, phase));
    }
}

#[test]
fn batch_norm_2d() {
    let plain = BatchNormConfig::default();
    for (name, config) in [
        ("bn2d", plain),
        ("bn2d_cumulative", BatchNormConfig { average: Average::Cumulative, ..plain }),
        ("bn2d_plain", BatchNormConfig { affine: false, ..plain }),
    ] {
        let norm = BatchNorm2d::with(3, config, Kind::Double, CPU);
        batch_norm_case(name, &norm, &|x, phase| norm.forward(x, phase));
    }
}

#[test]
fn layer_norm() {
    for (name, norm) in [
        ("ln", LayerNorm::new(&[4, 3], Kind::Double, CPU)),
        ("ln_eps", LayerNorm::new(&[3], Kind::Double, CPU).eps(0.1)),
        ("ln_plain", LayerNorm::without_affine(&[3], 1e-5)),
    ] {
        load(&norm, name);
        let input = golden(&format!("{name}.x")).set_requires_grad(true);
        let y = norm.forward(&input);
        assert_close(&format!("{name}.y"), &y);
        let mut wanted = vec![input];
        wanted.extend(parameters(&norm));
        let loss = (y.tanh() * golden(&format!("{name}.out_weight"))).sum(Kind::Double);
        let found = gradients(&loss, &wanted);
        assert_close(&format!("{name}.grad.x"), &found[0]);
        for (gradient, parameter) in found[1..].iter().zip(parameter_names(&norm)) {
            assert_close(&format!("{name}.grad.{parameter}"), gradient);
        }
    }
}

#[test]
fn convolutions() {
    let rng = &mut Rng::seed_from_u64(0);
    let plain = Conv2dConfig::default();
    let strided = Conv2dConfig { stride: [2, 1], padding: [1, 2], dilation: [1, 2], groups: 2, bias: false };
    for (name, conv) in [
        ("conv", Conv2d::new(2, 6, [5, 3], plain, rng, Kind::Double, CPU)),
        ("conv_strided", Conv2d::new(2, 4, [3, 3], strided, rng, Kind::Double, CPU)),
    ] {
        load(&conv, name);
        assert_close(&format!("{name}.y"), &conv.forward(&golden(&format!("{name}.x"))));
    }
}

/// PyTorch's initialisation is uniform in ±1/√fan_in (±1/√hidden for recurrent networks): all within, and of 4,800 draws (5,040 of the
/// network) one beyond 99 % of the bound, which fails with probability 0.99^4800 < 1e-20.
#[test]
fn initial_values_fill_pytorchs_bounds() {
    let rng = &mut Rng::seed_from_u64(7);
    let config = Conv2dConfig { groups: 2, ..Conv2dConfig::default() };
    let conv = Conv2d::new(12, 32, [5, 5], config, rng, Kind::Double, CPU);
    let rnn = RnnConfig { kind: RnnKind::Gru, inputs: 36, hidden: 30, layers: 1, bidirectional: false };
    let rnn = Rnn::new(rnn, rng, Kind::Double, CPU);
    for (module, bound) in [(&conv as &dyn Module, 1.0 / 150f64.sqrt()), (&rnn, 1.0 / 30f64.sqrt())] {
        let all: Vec<Tensor> = parameters(module).iter().map(|p| p.detach().reshape([-1])).collect();
        let all = Tensor::cat(&all, 0);
        assert!(all.numel() > 4_800);
        assert!(all.max().double_value(&[]) <= bound && all.min().double_value(&[]) >= -bound);
        assert!(all.max().double_value(&[]) > 0.99 * bound && all.min().double_value(&[]) < -0.99 * bound);
    }
}

#[test]
fn recurrent_networks_over_padded_and_packed_sequences() {
    let (x, data, batch_sizes) = (golden("rnn.x"), golden("rnn.data"), golden("rnn.batch_sizes"));
    let lengths = Vec::<i64>::try_from(golden("rnn.lengths")).unwrap();
    for (cell, kind) in [("lstm", RnnKind::Lstm), ("gru", RnnKind::Gru)] {
        for (layers, bidirectional) in [(1, false), (2, true)] {
            let name = format!("{cell}{layers}");
            let config = RnnConfig { kind, inputs: 5, hidden: 7, layers, bidirectional };
            let net = Rnn::new(config, &mut Rng::seed_from_u64(0), Kind::Double, CPU);
            load(&net, &name);
            let given = RnnState {
                hidden: golden(&format!("{name}.h0")),
                cell: (kind == RnnKind::Lstm).then(|| golden(&format!("{name}.c0"))),
            };
            for (case, state) in [("full", None), ("packed", None), ("state", Some(&given))] {
                let found = match case {
                    "full" => net.forward(&x, None),
                    _ => net.forward_padded(&x, &lengths, state),
                }
                .unwrap();
                let name = format!("{name}.{case}");
                assert_close(&format!("{name}.y"), &found.output);
                assert_close(&format!("{name}.h"), &found.state.hidden);
                if let Some(cell) = &found.state.cell {
                    assert_close(&format!("{name}.c"), cell);
                }
                let grads = gradients(&found.output.square().sum(Kind::Double), &parameters(&net));
                for (gradient, parameter) in grads.iter().zip(parameter_names(&net)) {
                    assert_close(&format!("{name}.grad.{parameter}"), gradient);
                }
            }
            let packed = net.forward_packed(&data, &batch_sizes, None).unwrap();
            assert_close(&format!("{name}.packed.data"), &packed.output);
            assert_eq!(packed.output.size()[1], net.outputs());
        }
    }
}

#[test]
fn a_recurrent_network_refuses_sequences_that_do_not_fit() {
    let config = RnnConfig { kind: RnnKind::Gru, inputs: 5, hidden: 7, layers: 1, bidirectional: false };
    let net = Rnn::new(config, &mut Rng::seed_from_u64(0), Kind::Double, CPU);
    let x = golden("rnn.x");
    let message = |result: Result<rl_learn::RnnOutput, rl_learn::RnnError>| result.unwrap_err().to_string();
    assert!(
        message(net.forward_padded(&x, &[3, 6, 1], None)).contains("3 lengths came for a padded batch of 4")
    );
    assert!(message(net.forward_padded(&x, &[3, 7, 1, 1], None)).contains("sequence 1 has 7 steps"));
    assert!(message(net.forward_padded(&x, &[3, 6, 0, 1], None)).contains("sequence 2 has 0 steps"));
    let narrow = x.narrow(2, 0, 4);
    let one_line = message(net.forward(&narrow, None));
    assert!(one_line.starts_with("the recurrent network cannot take this input") && !one_line.contains('\n'));
    let state = RnnState { cell: Some(golden("rnn.x")), ..net.zero_state(4) };
    assert!(message(net.forward(&x, Some(&state))).contains("a GRU has none"));
}
