//! The perceptron that is one node of the graph against the same layers operator by operator.

use proptest::prelude::*;
use rand::SeedableRng;
use rl_learn::perceptron::{composed, perceptron};
use rl_learn::{
    Activation, Device, Kind, Linear, Mlp, MlpConfig, Module, Phase, Rng, Tensor, device, gradients, no_grad,
    parameters,
};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

fn randn(shape: &[i64], kind: Kind) -> Tensor {
    Tensor::randn(shape, (Kind::Double, Device::Cpu)).to_kind(kind)
}

/// The largest difference, in parts of the largest element expected.
fn difference(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    if expected.numel() == 0 {
        return 0.0;
    }
    let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let largest = expected.abs().max().double_value(&[]).max(1e-6);
    (found - expected).abs().max().double_value(&[]) / largest
}

#[derive(Clone, Debug)]
struct Shape {
    rows: i64,
    widths: Vec<i64>,
    joined: i64,
    hidden: Activation,
    last: Option<Activation>,
    of_x: bool,
    of_joined: bool,
    of_weights: bool,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let activation = prop_oneof![Just(Activation::Relu), Just(Activation::Tanh)];
    let rows = prop_oneof![0i64..6, 6i64..70, 250i64..300];
    let widths = prop::collection::vec(prop_oneof![1i64..40, 60i64..70, 250i64..300], 2..5);
    let last = prop::option::of(activation.clone());
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (rows, widths, 0i64..9, activation, last, flags).prop_map(
        |(rows, widths, joined, hidden, last, (of_x, of_joined, of_weights))| Shape {
            rows,
            joined: if widths.len() > 2 { joined } else { 0 },
            widths,
            hidden,
            last,
            of_x,
            of_joined,
            of_weights,
        },
    )
}

fn layers(shape: &Shape, kind: Kind) -> Vec<Linear> {
    let mut rng = Rng::seed_from_u64(7);
    let columns = |i: usize| shape.widths[i] + if i == 1 { shape.joined } else { 0 };
    (0..shape.widths.len() - 1)
        .map(|i| Linear::new(columns(i), shape.widths[i + 1], &mut rng, kind, Device::Cpu))
        .collect()
}

fn agrees(shape: &Shape, kind: Kind, tolerance: f64) -> Result<(), TestCaseError> {
    let layers = layers(shape, kind);
    let layers: Vec<&Linear> = layers.iter().collect();
    let x = randn(&[shape.rows, shape.widths[0]], kind).set_requires_grad(shape.of_x);
    let joined = (shape.joined > 0)
        .then(|| randn(&[shape.rows, shape.joined], kind).set_requires_grad(shape.of_joined));
    let mut wanted: Vec<Tensor> = Vec::new();
    if shape.of_x {
        wanted.push(x.shallow_clone());
    }
    if let (Some(joined), true) = (&joined, shape.of_joined) {
        wanted.push(joined.shallow_clone());
    }
    if shape.of_weights || wanted.is_empty() {
        wanted.extend(layers.iter().flat_map(|layer| parameters(*layer)));
    }
    let found = perceptron(&layers, shape.hidden, shape.last, &x, joined.as_ref()).unwrap();
    let expected = composed(&layers, shape.hidden, shape.last, &x, joined.as_ref()).unwrap();
    let off = difference(&found.detach(), &expected.detach());
    prop_assert!(off <= tolerance, "values off by {off:e}");
    prop_assert!(found.requires_grad());
    let by = randn(&found.size(), kind);
    let found = gradients(&(found * &by).sum(kind), &wanted);
    let expected = gradients(&(expected * &by).sum(kind), &wanted);
    let edge = on_the_edge(shape, &layers, &x, joined.as_ref());
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let size = wanted[i].size();
        if edge {
            let off = ((found - expected).norm() / expected.norm().clamp_min(1e-6)).double_value(&[]);
            prop_assert!(off <= 0.02, "gradient {i} of {size:?} off by {off:e} of its norm");
        } else {
            let off = difference(found, expected);
            prop_assert!(off <= tolerance, "gradient {i} of {size:?} off by {off:e}");
        }
    }
    Ok(())
}

/// Whether the input of some ReLU is so near to 0 that rounding decides whether a gradient passes: then two right answers differ by what passes
/// there.
fn on_the_edge(shape: &Shape, layers: &[&Linear], x: &Tensor, joined: Option<&Tensor>) -> bool {
    (1..=layers.len()).any(|n| {
        let activation = if n == layers.len() { shape.last } else { Some(shape.hidden) };
        let joined = if n > 1 { joined } else { None };
        let before = composed(&layers[..n], shape.hidden, None, x, joined).unwrap().detach();
        let there = before.numel() > 0 && activation == Some(Activation::Relu);
        there && before.abs().min().double_value(&[]) < 1e-5
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn f32_agrees_with_the_operators(shape in shapes()) {
        agrees(&shape, Kind::Float, 4e-6)?;
    }

    /// f64 goes through libtorch's operators, as CUDA tensors do.
    #[test]
    fn f64_agrees_with_the_operators(shape in shapes()) {
        agrees(&shape, Kind::Double, 1e-13)?;
    }
}

fn mlp(activation: Activation) -> Mlp {
    let config = MlpConfig {
        inputs: 17,
        hidden: vec![64, 48],
        outputs: 6,
        activation,
        batch_norm: false,
        output_bound: None,
    };
    Mlp::new(&config, &mut Rng::seed_from_u64(3), Device::Cpu)
}

fn close(found: &[Tensor], expected: &[Tensor]) {
    for (found, expected) in found.iter().zip(expected) {
        let off = difference(found, expected);
        assert!(off <= 4e-6, "off by {off:e}");
    }
}

#[test]
fn two_passes_in_one_graph_keep_their_values() {
    for activation in [Activation::Relu, Activation::Tanh] {
        let net = mlp(activation);
        let (x, y) = (randn(&[33, 17], Kind::Float), randn(&[33, 17], Kind::Float));
        let loss = |f: &dyn Fn(&Tensor) -> Tensor| {
            let (first, second) = (f(&x), f(&y));
            // A third pass whose result nobody needs must disturb nothing.
            drop(f(&(&x + &y)));
            (first * second).sum(Kind::Float)
        };
        let found = gradients(&loss(&|x| net.forward(x, Phase::Train)), &parameters(&net));
        let expected = gradients(&loss(&|x| net.composed(x, Phase::Train)), &parameters(&net));
        close(&found, &expected);
    }
}

/// One network's output is the other's input, as an actor's action is its critic's.
#[test]
fn chains_of_perceptrons_compose() {
    let (actor, critic) = (mlp(Activation::Tanh), mlp(Activation::Relu));
    let x = randn(&[20, 17], Kind::Float);
    let loss = |fused: bool| {
        let run = |net: &Mlp, x: &Tensor| match fused {
            true => net.forward(x, Phase::Train),
            false => net.composed(x, Phase::Train),
        };
        let action = Tensor::cat(&[&run(&actor, &x), &x.narrow(1, 0, 11)], 1);
        run(&critic, &action).mean(Kind::Float)
    };
    close(&gradients(&loss(true), &parameters(&actor)), &gradients(&loss(false), &parameters(&actor)));
}

#[test]
fn inputs_may_have_gaps_and_gradients_be_expanded() {
    let net = mlp(Activation::Relu);
    let wide = randn(&[30, 40], Kind::Float);
    for x in [
        wide.narrow(1, 3, 17),
        randn(&[17, 30], Kind::Float).transpose(0, 1),
        wide.narrow(1, 0, 1).expand([30, 17], false),
    ] {
        let (found, expected) = (net.forward(&x, Phase::Train), net.composed(&x, Phase::Train));
        close(&[found.detach()], &[expected.detach()]);
        // The gradient of a sum is one number, expanded.
        let wanted = parameters(&net);
        close(&gradients(&found.sum(Kind::Float), &wanted), &gradients(&expected.sum(Kind::Float), &wanted));
        let (found, expected) = (net.forward(&x, Phase::Train), net.composed(&x, Phase::Train));
        let part = |y: &Tensor| y.narrow(1, 2, 1).squeeze_dim(1).square().sum(Kind::Float);
        close(&gradients(&part(&found), &wanted), &gradients(&part(&expected), &wanted));
    }
}

#[test]
fn without_gradients_there_is_no_graph() {
    let net = mlp(Activation::Relu);
    let x = randn(&[5, 17], Kind::Float);
    let out = no_grad(|| net.forward(&x, Phase::Eval));
    assert!(!out.requires_grad());
    for parameter in parameters(&net) {
        let _ = no_grad(|| parameter.set_requires_grad(false));
    }
    assert!(!net.forward(&x, Phase::Eval).requires_grad());
}

#[test]
fn nan_and_infinity_go_through() {
    let net = mlp(Activation::Relu);
    for (rows, bad) in [(1i64, f64::NAN), (40, f64::NAN), (40, f64::INFINITY)] {
        let x = randn(&[rows, 17], Kind::Float);
        let _ = x.get(0).fill_(bad);
        let (found, expected) = (net.forward(&x, Phase::Eval), net.composed(&x, Phase::Eval));
        assert!(found.isnan().equal(&expected.isnan()), "{bad} in {rows} rows");
        let wanted = parameters(&net);
        let found = gradients(&found.sum(Kind::Float), &wanted);
        let expected = gradients(&expected.sum(Kind::Float), &wanted);
        for (found, expected) in found.iter().zip(&expected) {
            assert!(found.isnan().equal(&expected.isnan()), "{bad} in {rows} rows, gradients");
        }
    }
}

/// Rows are shared out among threads; each number is made in the same way.
#[test]
fn threads_change_no_bit() {
    let config = MlpConfig {
        inputs: 100,
        hidden: vec![512, 300],
        outputs: 64,
        activation: Activation::Relu,
        batch_norm: false,
        output_bound: None,
    };
    let net = Mlp::new(&config, &mut Rng::seed_from_u64(3), Device::Cpu);
    let x = randn(&[600, 100], Kind::Float);
    let run = |threads| {
        device::set_threads(threads);
        let out = net.forward(&x, Phase::Train);
        let mut all = gradients(&out.square().mean(Kind::Float), &parameters(&net));
        all.push(out.detach());
        all
    };
    let (one, three) = (run(1), run(3));
    device::set_threads(1);
    for (one, three) in one.iter().zip(&three) {
        // Bit for bit where this crate's kernels run; libtorch's own may sum in another order.
        assert!(difference(three, one) <= 1e-6);
    }
}

fn message(result: Result<Tensor, impl std::fmt::Display>) -> String {
    let text = result.err().map(|e| e.to_string()).unwrap_or_default();
    assert!(!text.contains('\n'), "one line: {text}");
    text
}

#[test]
fn mistakes_are_said_in_one_line() {
    let mut rng = Rng::seed_from_u64(1);
    let (first, second) =
        (Linear::new(4, 5, &mut rng, F32.0, F32.1), Linear::new(7, 2, &mut rng, F32.0, F32.1));
    let ones = |shape: &[i64]| Tensor::ones(shape, F32);
    let run = |layers: &[&Linear], x: &Tensor, joined: Option<&Tensor>| {
        message(perceptron(layers, Activation::Relu, None, x, joined))
    };
    assert_eq!(run(&[&first, &second], &ones(&[3, 4]), Some(&ones(&[3, 2]))), "");
    let cases = [
        (run(&[&first], &ones(&[3, 5]), None), "layer 0 of a perceptron takes 4 columns and is given 5"),
        (
            run(&[&first, &second], &ones(&[3, 4]), None),
            "layer 1 of a perceptron takes 7 columns and is given 5",
        ),
        (run(&[&first, &second], &ones(&[3, 4]), Some(&ones(&[2, 2]))), "what joins a perceptron of 3 rows"),
        (run(&[&first], &ones(&[3, 4]), Some(&ones(&[3, 1]))), "no second layer to join"),
        (run(&[&first], &ones(&[4]), None), "takes [B, inputs]"),
        (run(&[&first], &ones(&[3, 4]).to_kind(Kind::Double), None), "layer 0 of a perceptron has a weight"),
        (run(&[], &ones(&[3, 4]), None), "at least one layer"),
    ];
    for (found, expected) in cases {
        assert!(found.contains(expected), "'{found}' should say '{expected}'");
    }
}

#[test]
fn a_graph_is_used_once_and_as_it_was() {
    let net = mlp(Activation::Tanh);
    let weights = parameters(&net);
    let x = randn(&[5, 17], Kind::Float);
    let loss = || net.forward(&x, Phase::Train).square().sum(Kind::Float);
    let backward = |loss: &Tensor, create: bool| {
        let mut found = Tensor::f_run_backward(&[loss], &weights, false, create);
        message(found.as_mut().map(|found| found.remove(0)).map_err(|e| rl_learn::first_line(e)))
    };
    let twice = loss();
    assert_eq!(backward(&twice, false), "");
    assert_ne!(backward(&twice, false), "");
    assert!(backward(&loss(), true).contains("take Mlp::composed"));
    let stale = loss();
    let _ = no_grad(|| weights[2].shallow_clone().fill_(0.5));
    assert!(backward(&stale, false).contains("modified by an inplace operation"));
}

#[test]
fn every_parameter_is_reached() {
    let net = mlp(Activation::Relu);
    let mut names = Vec::new();
    net.walk(&mut |name, _, _| names.push(name.to_string()));
    assert_eq!(names.len(), 2 * net.layers().len());
}
