//! Mixed precision: the gradient scaler against PyTorch 2.11's (`tests/golden/amp.py`), autocast's types, and training in bf16 and f16.

use rand::SeedableRng;
use rl_learn::amp::{GradScaler, GradScalerConfig, Precision, autocast};
use rl_learn::{
    Activation, Device, Kind, MemoryState, Mlp, MlpConfig, Optimizer, OptimizerConfig, Phase, Rng, Tensor,
    gradients, loss, no_grad, parameters,
};
use safetensors::SafeTensors;
use std::process::Command;

const UPDATES: i64 = 100;

fn golden(name: &str) -> Tensor {
    let file = SafeTensors::deserialize(include_bytes!("golden/amp.safetensors")).expect("the file is whole");
    let view = file.tensor(name).unwrap_or_else(|_| panic!("the golden file has no '{name}'"));
    let kind = match view.dtype() {
        safetensors::Dtype::F32 => Kind::Float,
        safetensors::Dtype::F64 => Kind::Double,
        _ => Kind::Int64,
    };
    let shape: Vec<i64> = view.shape().iter().map(|&d| d as i64).collect();
    Tensor::from_data_size(view.data(), &shape, kind)
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(tensor.detach().to_kind(Kind::Double).reshape([-1])).unwrap()
}

fn scalar_of(tensor: &Tensor) -> f64 {
    tensor.double_value(&[])
}

fn optimizers() -> Vec<(&'static str, OptimizerConfig)> {
    let sgd = |dampening, weight_decay| OptimizerConfig::Sgd {
        momentum: 0.9,
        dampening,
        weight_decay,
        nesterov: false,
    };
    vec![
        ("adam", OptimizerConfig::adam()),
        ("adamw", OptimizerConfig::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.05 }),
        ("sgd", sgd(0.0, 0.05)),
        ("sgd_dampened", sgd(0.3, 0.0)),
        (
            "rmsprop",
            OptimizerConfig::RmsProp {
                alpha: 0.99,
                eps: 1e-8,
                weight_decay: 0.05,
                momentum: 0.5,
                centered: true,
            },
        ),
    ]
}

fn golden_scaler() -> GradScaler {
    let config = GradScalerConfig { init_scale: 1024.0, growth_interval: 5, ..Default::default() };
    GradScaler::new(config, Device::Cpu)
}

/// The gradients of update `update`, multiplied by the scale as a scaled loss's are.
fn scaled_gradients(all: &[Tensor], update: i64, scaler: &GradScaler) -> Vec<Tensor> {
    all.iter().map(|g| g.get(update) * scaler.current_scale()).collect()
}

#[test]
fn a_hundred_updates_with_overflows_are_those_of_pytorchs_scaler() {
    for (name, config) in optimizers() {
        if name != "rmsprop" {
            follows_pytorchs_scaler(name, config);
        }
    }
    // Centered RMSprop takes the root of a small difference of large numbers in f32, and MKL's roots differ by processor. The golden values
    // were made with MKL as it is, which is for a whole process.
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "centered_rmsprop_follows_with_mkl_as_it_is", "--ignored"])
        .env("RL_MKL_AS_IS", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "the test above starts it, in a process of its own"]
fn centered_rmsprop_follows_with_mkl_as_it_is() {
    assert!(std::env::var_os("RL_MKL_AS_IS").is_some(), "run it with RL_MKL_AS_IS=1");
    let (name, config) = optimizers().pop().expect("it is the last");
    follows_pytorchs_scaler(name, config);
}

fn follows_pytorchs_scaler(name: &str, config: OptimizerConfig) {
    let all = [golden("gradients.0"), golden("gradients.1")];
    let parameters: Vec<Tensor> = (0..2).map(|i| golden(&format!("start.{i}"))).collect();
    let mut optimizer = Optimizer::new(config, parameters.iter().map(Tensor::shallow_clone).collect());
    optimizer.set_learning_rate(0.0625);
    let mut scaler = golden_scaler();
    let (scales, trackers) = (golden(&format!("{name}.scale")), golden(&format!("{name}.growth_tracker")));
    for update in 0..UPDATES {
        let gradients = scaled_gradients(&all, update, &scaler);
        scaler.step(&mut optimizer, &gradients).unwrap();
        scaler.update().unwrap();
        let expected = scales.double_value(&[update]);
        assert_eq!(scalar_of(scaler.current_scale()), expected, "{name}, update {update}");
        assert_eq!(tracker_of(&mut scaler), trackers.int64_value(&[update]), "{name}, update {update}");
    }
    assert_eq!(scaler.skipped().int64_value(&[]), golden("skipped").int64_value(&[]));
    for (i, parameter) in parameters.iter().enumerate() {
        let expected = floats(&golden(&format!("{name}.{i}")));
        for (found, expected) in floats(parameter).iter().zip(expected) {
            let error = (found - expected).abs() / expected.abs().max(1e-3);
            assert!(error <= 1e-6, "{name}.{i}: {found} and not {expected}");
        }
    }
}

/// The count towards growth, out of the scaler's state.
fn tracker_of(scaler: &mut GradScaler) -> i64 {
    use rl_learn::{Dtype, StateError, StateVisitor};
    struct Tracker(Option<i32>);
    impl StateVisitor for Tracker {
        fn loading(&self) -> bool {
            false
        }
        fn enter(&mut self, _: &str) {}
        fn leave(&mut self) {}
        fn bytes(&mut self, _: &str, _: &mut Vec<u8>) -> Result<(), StateError> {
            Ok(())
        }
        fn array(&mut self, name: &str, _: Dtype, _: &[usize], bytes: &mut [u8]) -> Result<(), StateError> {
            if name == "growth_tracker" {
                self.0 = Some(i32::from_le_bytes((&*bytes).try_into().expect("an i32")));
            }
            Ok(())
        }
    }
    let mut tracker = Tracker(None);
    scaler.visit(&mut tracker).unwrap();
    i64::from(tracker.0.expect("it is shown"))
}

/// A step with an overflow leaves no trace: nothing of parameters, moments and step counts changes, and what comes after is what would
/// have come without it. With the overflow first, in the middle, and many in a row.
#[test]
fn a_skipped_step_leaves_no_trace() {
    let all = [golden("gradients.0"), golden("gradients.1")];
    let finite: Vec<i64> = (0..UPDATES)
        .filter(|u| all.iter().all(|g| g.get(*u).isfinite().all().int64_value(&[]) == 1))
        .collect();
    let broken = (0..UPDATES).find(|u| !finite.contains(u)).expect("there are overflows");
    for (name, config) in optimizers() {
        let run = |updates: &[i64]| -> (Vec<Vec<f64>>, MemoryState) {
            let parameters: Vec<Tensor> = (0..2).map(|i| golden(&format!("start.{i}"))).collect();
            let mut optimizer =
                Optimizer::new(config.clone(), parameters.iter().map(Tensor::shallow_clone).collect());
            optimizer.set_learning_rate(0.125);
            // A scale that stays: what differs is the skipping.
            let mut scaler = GradScaler::new(GradScalerConfig::default(), Device::Cpu);
            for update in updates {
                let gradients = scaled_gradients(&all, *update, &scaler);
                let unscaled = scaler.unscale(&gradients).unwrap();
                optimizer.step_unscaled(&gradients, &unscaled).unwrap();
            }
            let state = MemoryState::save(|v| optimizer.visit(v)).unwrap();
            (parameters.iter().map(floats).collect(), state)
        };
        let (clean, clean_state) = run(&finite[..4]);
        for updates in [
            vec![broken, finite[0], finite[1], finite[2], finite[3]],
            vec![finite[0], finite[1], broken, finite[2], broken, broken, finite[3], broken],
        ] {
            let (found, state) = run(&updates);
            assert_eq!(found, clean, "{name}: {updates:?}");
            let differences = state.differences(&clean_state);
            assert!(differences.iter().all(|d| d == "updates"), "{name}: {differences:?}");
        }
        let (nothing, _) = run(&[broken, broken]);
        assert_eq!(nothing, [floats(&golden("start.0")), floats(&golden("start.1"))], "{name}");
    }
}

#[test]
fn an_update_is_skipped_when_one_of_two_optimizers_overflows() {
    let mut scaler = golden_scaler();
    let good = || vec![Tensor::from_slice(&[1024.0f32])];
    assert_eq!(scalar_of(scaler.unscale(&good()).unwrap().found_inf()), 0.0);
    let bad = scaler.unscale(&[Tensor::from_slice(&[1.0f32, f32::NEG_INFINITY])]).unwrap();
    assert_eq!(scalar_of(bad.found_inf()), 1.0);
    assert_eq!(scalar_of(scaler.unscale(&good()).unwrap().found_inf()), 0.0, "each has its own answer");
    scaler.update().unwrap();
    assert_eq!((scalar_of(scaler.current_scale()), scaler.skipped().int64_value(&[])), (512.0, 1));
    let unscaled = good();
    let _ = scaler.unscale(&unscaled).unwrap();
    assert_eq!(floats(&unscaled[0]), [2.0]);
    scaler.update().unwrap();
    assert_eq!((scalar_of(scaler.current_scale()), scaler.skipped().int64_value(&[])), (512.0, 1));
    assert_eq!(scalar_of(scaler.unscale(&[]).unwrap().found_inf()), 0.0, "no gradients, no overflow");
}

/// Saved between unscaling and the update, and gone on with, it ends in the same state.
#[test]
fn a_scaler_goes_on_where_its_state_was_saved() {
    let all = [golden("gradients.0"), golden("gradients.1")];
    let save = |scaler: &mut GradScaler| MemoryState::save(|v| scaler.visit(v)).unwrap();
    let unscale = |scaler: &mut GradScaler, update| {
        let _ = scaler.unscale(&scaled_gradients(&all, update, scaler)).unwrap();
    };
    let mut whole = golden_scaler();
    for update in 0..10 {
        unscale(&mut whole, update);
        if update < 9 {
            whole.update().unwrap();
        }
    }
    let mut resumed = golden_scaler();
    save(&mut whole).load(|v| resumed.visit(v)).unwrap();
    for scaler in [&mut whole, &mut resumed] {
        scaler.update().unwrap();
        for update in 10..30 {
            unscale(scaler, update);
            scaler.update().unwrap();
        }
    }
    assert_eq!(save(&mut whole), save(&mut resumed));
    assert_eq!(scalar_of(resumed.current_scale()), golden("adam.scale").double_value(&[29]));
}

#[test]
fn a_scalers_numbers_are_checked() {
    let with = |change: fn(&mut GradScalerConfig)| {
        let mut config = GradScalerConfig::default();
        change(&mut config);
        config.check("amp").unwrap_err()
    };
    assert_eq!(GradScalerConfig::default().check("amp"), Ok(()));
    assert_eq!(with(|c| c.init_scale = 0.0), "amp.init_scale is 0; it must lie above 0 and be finite in f32");
    assert!(with(|c| c.init_scale = 1e39).contains("finite in f32"));
    assert_eq!(with(|c| c.growth_factor = 1.0), "amp.growth_factor is 1; it must be finite and above 1");
    assert_eq!(with(|c| c.backoff_factor = 1.0), "amp.backoff_factor is 1; it must lie between 0 and 1");
    assert!(with(|c| c.growth_interval = 0).starts_with("amp.growth_interval is 0; it must be at least 1"));
}

fn net(seed: u64) -> Mlp {
    let config = MlpConfig {
        inputs: 8,
        hidden: vec![32, 32],
        outputs: 1,
        activation: Activation::Tanh,
        batch_norm: false,
        output_bound: None,
    };
    Mlp::new(&config, &mut Rng::seed_from_u64(seed), Device::Cpu)
}

/// 64 rows of 8 inputs in ±1 and a smooth function of them.
fn task() -> (Tensor, Tensor) {
    use rand::RngExt;
    let mut rng = Rng::seed_from_u64(3);
    let values: Vec<f32> = (0..64 * 8).map(|_| rng.random_range(-1.0..1.0)).collect();
    let x = Tensor::from_slice(&values).reshape([64, 8]);
    let y = (x.narrow(1, 0, 1) * x.narrow(1, 1, 1)) + (x.narrow(1, 2, 1) * 2.0).sin();
    (x, y)
}

fn loss_of(net: &Mlp, x: &Tensor, y: &Tensor) -> Tensor {
    loss::mse(&net.forward(x, Phase::Train).to_kind(Kind::Float), y).mean(Kind::Float)
}

#[test]
fn autocast_chooses_the_types_and_puts_back_what_was() {
    let net = net(1);
    let (x, y) = task();
    let kind = || net.forward(&x, Phase::Train).kind();
    for (precision, expected) in
        [(Precision::Bf16, Kind::BFloat16), (Precision::F16, Kind::Half), (Precision::F32, Kind::Float)]
    {
        assert_eq!(autocast(precision, Device::Cpu, kind), expected);
        assert_eq!(kind(), Kind::Float, "outside of {precision:?}");
    }
    // One in another.
    let kinds = autocast(Precision::Bf16, Device::Cpu, || {
        let inner = autocast(Precision::F32, Device::Cpu, kind);
        let other = autocast(Precision::F16, Device::Cpu, kind);
        (kind(), inner, other, kind())
    });
    assert_eq!(kinds, (Kind::BFloat16, Kind::Float, Kind::Half, Kind::BFloat16));
    // Another thread, another device.
    let elsewhere = autocast(Precision::Bf16, Device::Cpu, || {
        let x = x.shallow_clone();
        std::thread::spawn(move || x.matmul(&x.tr()).kind()).join().unwrap()
    });
    assert_eq!(elsewhere, Kind::Float);
    assert_eq!(
        autocast(Precision::Bf16, Device::Cuda(0), kind),
        Kind::Float,
        "a CPU tensor in a scope for CUDA"
    );
    // A panic on the way.
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        autocast(Precision::Bf16, Device::Cpu, || panic!("on the way"))
    }));
    assert!(panicked.is_err());
    assert_eq!(kind(), Kind::Float, "after a panic");
    // Parameters and their gradients are f32.
    let value = autocast(Precision::Bf16, Device::Cpu, || loss_of(&net, &x, &y));
    let parameters = parameters(&net);
    let gradients = gradients(&value, &parameters);
    assert!(parameters.iter().chain(&gradients).all(|t| t.kind() == Kind::Float));
}

/// Parameters may change within a scope: what torch.autocast's cache of casts hides. And a forward pass without gradients, such as a
/// bootstrap target's, takes none away from the next.
#[test]
fn a_scope_sees_parameters_as_they_are() {
    let net = net(1);
    let (x, y) = task();
    let (before, after) = autocast(Precision::Bf16, Device::Cpu, || {
        let _target = no_grad(|| net.forward(&x, Phase::Train));
        let value = loss_of(&net, &x, &y);
        let gradients = gradients(&value, &parameters(&net));
        assert!(gradients.iter().all(|g| scalar_of(&g.abs().max()) > 0.0));
        let mut sgd = Optimizer::new(
            OptimizerConfig::Sgd { momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false },
            parameters(&net),
        );
        sgd.set_learning_rate(0.125);
        sgd.step(&gradients).unwrap();
        (scalar_of(&value), scalar_of(&loss_of(&net, &x, &y)))
    });
    let outside = scalar_of(&autocast(Precision::Bf16, Device::Cpu, || loss_of(&net, &x, &y)));
    assert!(after < before && after == outside, "{before} before the step, {after} after, {outside} outside");
}

/// The loss after 250 steps of Adam over the whole task.
fn trained(precision: Precision, scaler: Option<&mut GradScaler>) -> f64 {
    let net = net(7);
    let (x, y) = task();
    let mut optimizer = Optimizer::new(OptimizerConfig::adam(), parameters(&net));
    optimizer.set_learning_rate(3e-3);
    let mut scaler = scaler;
    for _ in 0..250 {
        let value = autocast(precision, Device::Cpu, || loss_of(&net, &x, &y));
        match &mut scaler {
            Some(scaler) => {
                let gradients = gradients(&scaler.scale(&value), optimizer.parameters());
                scaler.step(&mut optimizer, &gradients).unwrap();
                scaler.update().unwrap();
            }
            None => optimizer.step(&gradients(&value, optimizer.parameters())).unwrap(),
        }
    }
    scalar_of(&no_grad(|| loss_of(&net, &x, &y)))
}

/// The loss falls to less than a fiftieth; in 16 bits it ends within a third of what f32 reaches (bf16 keeps 8 bits; f16 loses its first
/// steps to the scale).
#[test]
fn training_in_16_bits_ends_near_the_loss_of_f32() {
    let (x, y) = task();
    let before = scalar_of(&loss_of(&net(7), &x, &y));
    let full = trained(Precision::F32, None);
    let bf16 = trained(Precision::Bf16, None);
    // A scale far too high at first: every gradient overflows, and the scaler has to come down by itself.
    let config =
        GradScalerConfig { init_scale: f64::powi(2.0, 40), growth_interval: 100, ..Default::default() };
    let mut scaler = GradScaler::new(config, Device::Cpu);
    let f16 = trained(Precision::F16, Some(&mut scaler));
    println!("loss {before} before; after training {full} in f32, {bf16} in bf16, {f16} in f16");
    assert!(full < before / 50.0, "{before} to {full}");
    assert!((bf16 / full - 1.0).abs() < 1.0 / 3.0, "{bf16} in bf16, {full} in f32");
    assert!((f16 / full - 1.0).abs() < 1.0 / 3.0, "{f16} in f16, {full} in f32");
    let skipped = scaler.skipped().int64_value(&[]);
    let scale = scalar_of(scaler.current_scale());
    assert!((10..60).contains(&skipped), "{skipped} skipped, scale {scale}");
    assert!(scale < f64::powi(2.0, 30), "scale {scale}");
}
