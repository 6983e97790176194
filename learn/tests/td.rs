//! The loss of temporal-difference errors in one pass against the operators it stands for.

use proptest::prelude::*;
use rand::SeedableRng;
use rl_learn::loss::{Loss, argmax, bootstrap, td_loss, weighted_mean};
use rl_learn::target::TargetPair;
use rl_learn::{
    Device, Kind, Linear, Optimizer, OptimizerConfig, Rng, Tensor, clip_norm, gradients, no_grad, parameters,
};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

fn close(found: &Tensor, expected: &Tensor) {
    assert_eq!(found.size(), expected.size());
    let off = (found - expected).abs().max().double_value(&[]);
    // A mean is of terms of about 1, whatever it is itself.
    let largest = expected.abs().max().double_value(&[]).max(0.5);
    assert!(off <= 1e-6 * largest, "off by {off:e} of {largest:e}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_loss_and_its_gradient_agree(rows in 1i64..80, columns in 1i64..9, huber: bool, vector: bool, scale in 0.1f64..4.0) {
        let loss = if huber { Loss::Huber } else { Loss::Mse };
        let q = if vector { Tensor::randn([rows], F32) } else { Tensor::randn([rows, columns], F32) };
        let q = (q * scale).set_requires_grad(true);
        let action = Tensor::randint(columns, [rows], (Kind::Int64, Device::Cpu));
        let action = (!vector).then_some(&action);
        let (target, weight) = (Tensor::randn([rows], F32), Tensor::rand([rows], F32));
        let found = td_loss(loss, &q, action, &target, &weight).unwrap();

        let chosen = match action {
            Some(action) => q.gather(1, &action.unsqueeze(1), false).squeeze_dim(1),
            None => q.shallow_clone(),
        };
        let expected = weighted_mean(&loss.each(&chosen, &target), &weight);
        close(&found.loss.detach(), &expected.detach());
        let chosen = chosen.detach();
        prop_assert!(found.q.equal(&chosen));
        prop_assert!(found.td_error.equal(&(&target - &chosen).abs()));
        close(&found.q_mean, &chosen.mean(Kind::Float));
        prop_assert!(!found.q.requires_grad() && !found.td_error.requires_grad() && !found.q_mean.requires_grad());
        // Also where the loss is one term of another.
        let of = |loss: &Tensor| gradients(&(loss * 3.0), std::slice::from_ref(&q)).remove(0);
        close(&of(&found.loss), &of(&expected));
    }

    #[test]
    fn targets_agree(rows in 1i64..80, columns in 1i64..9) {
        let matrix = || Tensor::randn([rows, columns], F32);
        let (q, chooser) = (matrix(), matrix());
        let (reward, discount) = (Tensor::randn([rows], F32), Tensor::rand([rows], F32));
        let single = bootstrap(&reward, &discount, &q, None).unwrap();
        close(&single, &(&reward + &discount * q.amax([1i64].as_slice(), false)));
        let double = bootstrap(&reward, &discount, &q, Some(&chooser)).unwrap();
        let best = q.gather(1, &chooser.argmax(1, true), false).squeeze_dim(1);
        close(&double, &(&reward + &discount * best));
        // f64 takes the operators.
        let wide = |t: &Tensor| t.to_kind(Kind::Double);
        let slow = bootstrap(&wide(&reward), &wide(&discount), &wide(&q), Some(&wide(&chooser))).unwrap();
        close(&double, &slow.to_kind(Kind::Float));
        let greedy = argmax(&q).unwrap();
        prop_assert_eq!(Tensor::from_slice(&greedy), q.argmax(1, false));
        prop_assert_eq!(argmax(&wide(&q)).unwrap(), greedy);
    }
}

#[test]
fn other_dtypes_take_the_operators() {
    let q = Tensor::randn([9, 3], F32);
    let action = Tensor::randint(3, [9], (Kind::Int64, Device::Cpu));
    let (target, weight) = (Tensor::randn([9], F32), Tensor::rand([9], F32));
    let wide = |t: &Tensor| t.to_kind(Kind::Double);
    let fast = td_loss(Loss::Huber, &q, Some(&action), &target, &weight).unwrap();
    let slow = td_loss(Loss::Huber, &wide(&q), Some(&action), &wide(&target), &wide(&weight)).unwrap();
    for (fast, slow) in [
        (&fast.loss, &slow.loss),
        (&fast.q, &slow.q),
        (&fast.td_error, &slow.td_error),
        (&fast.q_mean, &slow.q_mean),
    ] {
        close(fast, &slow.to_kind(Kind::Float));
    }
}

#[test]
fn ties_and_nan_are_as_in_torch() {
    let rows = [[1.0f32, 3.0, 3.0], [f32::NAN, 5.0, 1.0], [2.0, f32::NAN, f32::NAN], [f32::NEG_INFINITY; 3]];
    let q = Tensor::from_slice(rows.as_flattened()).reshape([4, 3]);
    assert_eq!(argmax(&q).unwrap(), [1, 0, 1, 0]);
    assert_eq!(Tensor::from_slice(&argmax(&q).unwrap()), q.argmax(1, false));
    let ones = Tensor::ones([4], F32);
    let target = bootstrap(&ones, &ones, &q, None).unwrap();
    assert!(target.isnan().equal(&q.amax([1i64].as_slice(), false).isnan()));
    for loss in [Loss::Huber, Loss::Mse] {
        let q = Tensor::from_slice(&[f32::NAN, 1.0]).set_requires_grad(true);
        let found = td_loss(loss, &q, None, &Tensor::zeros([2], F32), &Tensor::ones([2], F32)).unwrap();
        assert!(found.loss.double_value(&[]).is_nan());
        let slope = gradients(&found.loss, std::slice::from_ref(&q)).remove(0);
        assert!(slope.double_value(&[0]).is_nan() && slope.double_value(&[1]).is_finite());
    }
}

#[test]
fn mistakes_are_said_in_one_line() {
    let q = Tensor::zeros([2, 3], F32);
    let vector = |n: i64| Tensor::zeros([n], F32);
    let actions = |values: &[i64]| Tensor::from_slice(values);
    let run = |action: Option<&Tensor>, target: &Tensor| {
        td_loss(Loss::Mse, &q, action, target, &vector(2)).err().map(|e| e.to_string()).unwrap_or_default()
    };
    let cases = [
        (run(Some(&actions(&[0, 3])), &vector(2)), "action 3 of row 1 is none of the 3"),
        (run(Some(&actions(&[0, -1])), &vector(2)), "action -1"),
        (run(None, &vector(2)), "actions have to choose"),
        (run(Some(&actions(&[0, 1])), &vector(3)), "target should be"),
        (run(Some(&vector(2)), &vector(2)), "action should be"),
    ];
    for (found, expected) in cases {
        assert!(found.contains(expected) && !found.contains('\n'), "'{found}' should say '{expected}'");
    }
}

/// The step that clips on the way is the step after clipping.
#[test]
fn descending_is_clipping_and_stepping() {
    for (max_norm, config) in [
        (0.05, OptimizerConfig::adam()),
        (1e6, OptimizerConfig::adam()),
        (0.0, OptimizerConfig::adam()),
        (0.05, OptimizerConfig::AdamW { beta1: 0.8, beta2: 0.9, eps: 1e-6, weight_decay: 0.1 }),
        (0.05, OptimizerConfig::Adam { beta1: 0.8, beta2: 0.9, eps: 1e-6, weight_decay: 0.1 }),
    ] {
        for kind in [Kind::Float, Kind::Double] {
            let net = || Linear::new(40, 70, &mut Rng::seed_from_u64(1), kind, Device::Cpu);
            let (one, other) = (net(), net());
            let mut first = Optimizer::new(config.clone(), parameters(&one));
            let mut second = Optimizer::new(config.clone(), parameters(&other));
            for step in 0..5 {
                let x = Tensor::randn([8, 40], (kind, Device::Cpu));
                let rate = 0.01 / (1.0 + f64::from(step));
                let loss = |net: &Linear| net.forward(&x).square().mean(kind);
                first.begin(rate);
                first.descend(&loss(&one), max_norm).unwrap();
                let slopes = gradients(&loss(&other), second.parameters());
                if max_norm > 0.0 {
                    let _ = clip_norm(&slopes, max_norm).unwrap();
                }
                second.set_learning_rate(rate);
                second.step(&slopes).unwrap();
            }
            for (found, expected) in parameters(&one).iter().zip(&parameters(&other)) {
                close(&found.detach(), &expected.detach());
            }
        }
    }
}

/// A graph that still needs the weights' old values can tell that a step or a target's update has changed them.
#[test]
fn writing_into_weights_is_noticed() {
    let net = || Linear::new(4, 3, &mut Rng::seed_from_u64(1), Kind::Float, Device::Cpu);
    let (online, target) = (net(), net());
    let pair = TargetPair::new(&online, &target).unwrap();
    let x = Tensor::randn([2, 4], F32).set_requires_grad(true);
    let changes: [&dyn Fn(); 3] = [
        &|| {
            let mut optimizer = Optimizer::new(OptimizerConfig::adam(), parameters(&online));
            optimizer.begin(0.1);
            optimizer.descend(&online.forward(&x).square().sum(Kind::Float), 1.0).unwrap();
        },
        &|| pair.hard_update().unwrap(),
        &|| pair.polyak_update(0.5).unwrap(),
    ];
    for (i, change) in changes.iter().enumerate() {
        let of = if i == 0 { &online } else { &target };
        let stale = of.forward(&x).square().sum(Kind::Float);
        change();
        assert!(Tensor::f_run_backward(&[&stale], &[&x], false, false).is_err(), "change {i}");
    }
    let before = parameters(&target)[0].copy();
    let _ = no_grad(|| parameters(&online)[0].shallow_clone().fill_(2.0));
    pair.polyak_update(0.25).unwrap();
    close(&parameters(&target)[0], &(before * 0.75 + 0.5));
}
