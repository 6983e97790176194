//! Schedules against PyTorch 2.11's own rates, made by `tests/golden/schedules.py`, and what composing, saving, checking and
//! printing them promises.

use proptest::prelude::*;
use rl_learn::{
    Anneal, Curve, CyclicMode, Device, Kind, Optimizer, OptimizerConfig, ScalingRule, Schedule, Tensor,
    no_grad,
};
use safetensors::SafeTensors;

const BASE: f64 = 0.4;

fn golden(name: &str) -> Vec<f64> {
    let file =
        SafeTensors::deserialize(include_bytes!("golden/schedules.safetensors")).expect("the file is whole");
    let view = file.tensor(name).unwrap_or_else(|_| panic!("the golden file has no '{name}'"));
    view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().expect("8 bytes"))).collect()
}

/// Every rate of PyTorch's, within 1e-6 of it.
fn agrees(name: &str, schedule: &Schedule) {
    let rates = golden(name);
    assert!(rates.len() >= 20, "{name}: {} steps", rates.len());
    for (t, expected) in rates.iter().enumerate() {
        let found = schedule.at(t as u64);
        // Where a rate ends at 0, rounding leaves some 1e-18 of it in PyTorch.
        let error = (found - expected).abs() / expected.abs().max(1e-9);
        assert!(error <= 1e-6, "{name} at {t}: {found} and not {expected}, off by {error:e}");
    }
    schedule.check(name, 0.0, f64::MAX).unwrap();
}

fn cyclic(up: u64, down: Option<u64>, mode: CyclicMode, decay: f64) -> Schedule {
    Curve::Cyclic { low: 0.05, high: BASE, up, down, mode, decay }.into()
}

#[test]
fn every_schedule_of_pytorch() {
    agrees("step", &Schedule::step(BASE, 0.3, 7));
    agrees("multi_step", &Schedule::multi_step(BASE, 0.2, [3, 10, 31]));
    agrees("exponential", &Schedule::step(BASE, 0.9, 1));
    agrees("exponential", &Schedule::exponential(BASE, BASE * 0.9f64.powi(29), 29));
    agrees("linear", &Schedule::linear(0.25 * BASE, 0.75 * BASE, 20));
    agrees("constant_factor", &Schedule::from(0.5 * BASE).then(8, BASE.into()));
    agrees("polynomial", &Schedule::polynomial(BASE, 0.0, 20, 1.7));
    agrees("cosine", &Schedule::cosine(BASE, 0.05, 25));
    agrees("cosine_restarts", &Schedule::cosine_restarts(BASE, 0.05, 9, 1));
    agrees("cosine_restarts_growing", &Schedule::cosine_restarts(BASE, 0.05, 5, 3));
    agrees("triangular", &cyclic(8, Some(5), CyclicMode::Triangular, 1.0));
    agrees("triangular2", &cyclic(7, None, CyclicMode::Triangular2, 1.0));
    agrees("exp_range", &cyclic(6, Some(9), CyclicMode::ExpRange, 0.97));
}

#[test]
fn every_form_of_one_cycle() {
    agrees("one_cycle", &Schedule::one_cycle(BASE, 50));
    let one_cycle = |steps, warmup_fraction, start_divisor, end_divisor, anneal, three_phase| {
        let peak = BASE;
        Curve::OneCycle { peak, steps, warmup_fraction, start_divisor, end_divisor, anneal, three_phase }
            .into()
    };
    agrees("one_cycle_linear", &one_cycle(37, 0.45, 10.0, 50.0, Anneal::Linear, false));
    agrees("one_cycle_three_phase", &one_cycle(41, 0.35, 20.0, 100.0, Anneal::Cosine, true));
    // PyTorch refuses to go on after the last step; here the last value stays.
    let end = BASE / 25.0 / 1e4;
    assert!(
        [49, 50, u64::MAX].iter().all(|t| (Schedule::one_cycle(BASE, 50).at(*t) / end - 1.0).abs() < 1e-9)
    );
}

#[test]
fn the_momentum_that_goes_with_a_cycle() {
    let one_cycle = |steps, warmup_fraction, anneal, three_phase| -> Schedule {
        let (peak, start_divisor, end_divisor) = (BASE, 25.0, 1e4);
        Curve::OneCycle { peak, steps, warmup_fraction, start_divisor, end_divisor, anneal, three_phase }
            .into()
    };
    let cycles = [
        ("one_cycle", Schedule::one_cycle(BASE, 50), 0.85, 0.95),
        ("one_cycle_linear", one_cycle(37, 0.45, Anneal::Linear, false), 0.7, 0.9),
        ("one_cycle_three_phase", one_cycle(41, 0.35, Anneal::Cosine, true), 0.85, 0.95),
        ("triangular", cyclic(8, Some(5), CyclicMode::Triangular, 1.0), 0.8, 0.9),
        ("triangular2", cyclic(7, None, CyclicMode::Triangular2, 1.0), 0.7, 0.95),
        ("exp_range", cyclic(6, Some(9), CyclicMode::ExpRange, 0.97), 0.8, 0.9),
    ];
    for (name, rate, low, high) in cycles {
        let momentum = rate.cycled_momentum(low, high).unwrap();
        agrees(&format!("momentum_{name}"), &momentum);
        momentum.check("momentum", low, high + 1e-12).unwrap();
        assert!(
            momentum.check("momentum", low + 0.001, 1.0).is_err()
                && momentum.check("momentum", 0.0, high - 0.001).is_err()
        );
        // The batch is nothing to it.
        assert_eq!(rate.scaled(ScalingRule::Linear, 32, 512).cycled_momentum(low, high).unwrap(), momentum);
    }
    assert_eq!(Schedule::from(0.1).cycled_momentum(0.85, 0.95), None);
    assert_eq!(Schedule::cosine(0.1, 0.0, 9).cycled_momentum(0.85, 0.95), None);
}

/// 30 steps of PyTorch's optimizers whose `OneCycleLR` moves the rate and the momentum, or β₁.
#[test]
fn optimizers_trained_through_a_cycle_of_rate_and_momentum() {
    let configs = [
        (
            "cycled_sgd",
            OptimizerConfig::Sgd { momentum: 0.9, dampening: 0.0, weight_decay: 0.01, nesterov: false },
        ),
        ("cycled_adamw", OptimizerConfig::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }),
        (
            "cycled_rmsprop",
            OptimizerConfig::RmsProp {
                alpha: 0.99,
                eps: 1e-8,
                weight_decay: 0.0,
                momentum: 0.9,
                centered: false,
            },
        ),
    ];
    let rate = Schedule::one_cycle(0.1, 30);
    let momentum = rate.cycled_momentum(0.85, 0.95).unwrap();
    for (name, config) in configs {
        let expected = golden(name);
        let parameter = Tensor::from_slice(&[1.0f64, -2.0, 0.5, 3.0]);
        let mut optimizer = Optimizer::new(config, vec![parameter.shallow_clone()]);
        for step in 0..30u64 {
            let place = Tensor::arange(4, (Kind::Double, Device::Cpu));
            let gradient = &parameter * 0.5 + (place + 0.7 * step as f64).sin();
            optimizer.set_learning_rate(rate.at(step));
            optimizer.set_momentum(momentum.at(step)).unwrap();
            no_grad(|| optimizer.step(&[gradient])).unwrap();
            let found: Vec<f64> = Vec::try_from(&parameter).unwrap();
            for (found, expected) in found.iter().zip(&expected[4 * step as usize..]) {
                // The rate is a single float on the device, as PyTorch's is when it is a tensor; here PyTorch's is a double.
                let apart = (found - expected).abs() / expected.abs().max(0.1);
                assert!(apart <= 1e-6, "{name} at {step}: {found} and not {expected}");
            }
        }
    }
}

#[test]
fn compositions_of_pytorch() {
    let cosine = Schedule::cosine(BASE, 0.0, 30);
    agrees("warmup_then_cosine", &Schedule::linear(0.1 * BASE, BASE, 5).then(5, cosine.clone()));
    agrees("warmup_then_cosine", &cosine.after_warm_up(5, 0.1));
    let three = Schedule::linear(0.01 * BASE, BASE, 4).then(4, Schedule::step(BASE, 0.5, 6));
    let three = three.then(26, Schedule::step(BASE, 0.8, 1));
    agrees("sequence_of_three", &three);
    let half = Schedule::from(0.5).then(8, 1.0.into());
    agrees("chained", &half.times(Schedule::step(BASE, 0.5, 10)));
}

/// Goyal et al. 2017, section 5.1: 0.1 · 8192/256, reached from 0.1 in 5 epochs; divided by 10 at 30, 60 and 80 of the whole run.
#[test]
fn the_recipe_of_goyal_et_al() {
    let rate = Schedule::multi_step(0.1, 0.1, [30, 60, 80]).scaled(ScalingRule::Linear, 256, 8192);
    let rate = rate.warmed_up(5, 256.0 / 8192.0);
    let expected =
        [(0, 0.1), (1, 0.72), (4, 2.58), (5, 3.2), (29, 3.2), (30, 0.32), (60, 0.032), (80, 0.0032)];
    for (epoch, expected) in expected {
        assert!((rate.at(epoch) / expected - 1.0).abs() < 1e-12, "epoch {epoch}: {}", rate.at(epoch));
    }
    assert_eq!(ScalingRule::SquareRoot.factor(256, 1024), 2.0);
    assert_eq!(ScalingRule::Linear.factor(256, 64), 0.25);
}

#[test]
fn old_and_new_forms_of_a_configuration_are_read() {
    #[derive(serde::Deserialize)]
    struct Section {
        rate: Schedule,
    }
    let read = |text: &str| toml::from_str::<Section>(text).map(|section| section.rate);
    let cases = [
        ("rate = 1", Schedule::Constant(1.0)),
        ("rate = 1e-3", Schedule::Constant(1e-3)),
        (
            "rate = { kind = \"linear\", start = 1e-3, end = 5e-5, steps = 24_000 }",
            Schedule::linear(1e-3, 5e-5, 24_000),
        ),
        (
            "rate = { kind = \"exponential\", start = 1, end = 0.1, steps = 10 }",
            Schedule::exponential(1.0, 0.1, 10),
        ),
        (
            "rate = { kind = \"warmup\", steps = 5, then = { kind = \"one_cycle\", peak = 2, steps = 9 } }",
            Schedule::one_cycle(2.0, 9).warmed_up(5, 0.0),
        ),
        (
            "rate = { kind = \"sequence\", parts = [{ steps = 3, of = 0.5 }], then = { kind = \"scaled\", rule = \
             \"square_root\", base_batch = 32, batch = 512, of = 1e-3 } }",
            Schedule::from(0.5).then(3, Schedule::from(1e-3).scaled(ScalingRule::SquareRoot, 32, 512)),
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(read(text).unwrap(), expected, "{text}");
    }
    let refused = [
        ("rate = \"fast\"", "a number, or a table such as { kind = \"linear\""),
        ("rate = { kind = \"lineal\", start = 1.0 }", "unknown variant `lineal`"),
        ("rate = { kind = \"linear\", start = 1.0, end = 0.0 }", "missing field `steps`"),
        ("rate = { kind = \"linear\", start = 1.0, end = 0.0, step = 3 }", "unknown field `step`"),
        ("rate = { kind = \"warmup\", steps = 5, then = { kind = \"step\" } }", "missing field `start`"),
    ];
    for (text, expected) in refused {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

/// A configuration's keys are read from its schema with everything written in place; a schedule within a schedule must not go on for
/// ever there, and a key keeps its own description.
#[test]
fn a_schedule_within_a_schedule_has_a_finite_schema() {
    #[derive(schemars::JsonSchema)]
    #[expect(dead_code, reason = "only its schema is asked for")]
    struct Section {
        /// Learning rate over updates.
        rate: Schedule,
    }
    let settings = schemars::generate::SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<Section>().to_value();
    let rate = &schema["properties"]["rate"];
    assert_eq!(rate["description"], "Learning rate over updates.");
    assert!(rate["properties"].is_null(), "a schedule is one key, not a section");
    assert!(schema.to_string().contains("cosine_restarts"));
    // On one line, as configurations print it.
    let nested = Schedule::from(0.5).then(3, Schedule::cosine(1.0, 0.0, 9).warmed_up(2, 0.0));
    let toml::Value::Table(table) = toml::Value::try_from(&nested).unwrap() else { panic!("a table") };
    let line = format!("parts = {}", table["parts"]);
    assert_eq!(line.parse::<toml::Table>().unwrap()["parts"], table["parts"], "{line}");
}

#[test]
fn what_makes_no_sense_is_refused_by_the_key_it_stands_under() {
    let one_cycle = |warmup_fraction, three_phase| match Curve::one_cycle(1.0, 10) {
        Curve::OneCycle { peak, steps, start_divisor, end_divisor, anneal, .. } => {
            Curve::OneCycle { peak, steps, warmup_fraction, start_divisor, end_divisor, anneal, three_phase }
                .into()
        }
        _ => unreachable!(),
    };
    let deep = (0..40).fold(Schedule::from(1.0), |inner, _| inner.warmed_up(1, 0.0));
    let cases: Vec<(Schedule, &str)> = vec![
        (Schedule::from(-1.0), "lr is -1; it must be finite and at least 0"),
        (Schedule::from(f64::NAN), "lr is NaN; it must be finite and at least 0"),
        (Schedule::linear(1.0, -0.1, 10), "lr.end is -0.1; it must be finite and at least 0"),
        (Schedule::cosine(f64::INFINITY, 0.0, 10), "lr.start is inf; it must be finite and at least 0"),
        (
            Schedule::exponential(1.0, 0.0, 10),
            "lr.end is 0; it must be finite and, the schedule being exponential, above 0",
        ),
        (Schedule::polynomial(1.0, 0.0, 10, 0.0), "lr.power is 0; it must be finite and above 0"),
        (Schedule::cosine_restarts(1.0, 0.0, 0, 2), "lr.steps is 0; it must be at least 1"),
        (Schedule::cosine_restarts(1.0, 0.0, 1, 0), "lr.growth is 0; it must be at least 1"),
        (
            Schedule::step(1.0, 1.1, 5),
            "lr.factor is 1.1; it must lie between 0 and 1; to grow without an end, give one: kind = \"exponential\"",
        ),
        (Schedule::step(1.0, 0.5, 0), "lr.every is 0; it must be at least 1"),
        (Schedule::multi_step(1.0, 0.1, [5, 3]), "lr.at has 5 before 3; its counts must ascend, each once"),
        (Schedule::multi_step(1.0, 1e200, [5, 6]), "lr is inf; it must be finite and at least 0"),
        (one_cycle(0.0, false), "lr.warmup_fraction is 0; it must lie above 0 and be at most 1"),
        (
            one_cycle(0.6, true),
            "lr.warmup_fraction is 0.6; it must lie above 0 and, with three_phase, be at most 0.5",
        ),
        (cyclic(0, None, CyclicMode::Triangular, 1.0), "lr.up is 0; it must be at least 1"),
        (cyclic(1, Some(0), CyclicMode::Triangular, 1.0), "lr.down is 0; it must be at least 1"),
        (
            cyclic(1, None, CyclicMode::Triangular2, 0.9),
            "lr.decay is 0.9; it must be left out, or be given with mode = \"exp_range\"",
        ),
        (
            Schedule::from(0.1).then(3, Schedule::linear(0.1, -2.0, 3).warmed_up(2, 0.0)),
            "lr.then.then.end is -2; it must be finite and at least 0",
        ),
        (
            Schedule::from(-0.5).then(3, 0.1.into()),
            "lr.parts[0].of is -0.5; it must be finite and at least 0",
        ),
        (Schedule::from(1.0).warmed_up(3, 1.5), "lr.from is 1.5; it must lie between 0 and 1"),
        (Schedule::from(1.0).scaled(ScalingRule::Linear, 0, 8), "lr.base_batch is 0; it must be at least 1"),
        (Curve::Product { of: vec![] }.into(), "lr.of is empty; it must have a factor"),
    ];
    for (schedule, expected) in cases {
        assert_eq!(schedule.check("lr", 0.0, f64::MAX).unwrap_err(), expected);
    }
    assert!(deep.check("lr", 0.0, 1.0).unwrap_err().ends_with("write it flatter"));
    let above = Schedule::from(0.5).scaled(ScalingRule::Linear, 10, 30).check("epsilon", 0.0, 1.0);
    assert_eq!(above.unwrap_err(), "epsilon is 1.5; it must lie between 0 and 1");
    let product = Schedule::linear(0.5, 2.0, 3).times(Schedule::linear(1.0, 0.1, 3));
    assert_eq!(product.check("epsilon", 0.0, 1.0).unwrap_err(), "epsilon is 2; it must lie between 0 and 1");
    assert!(Schedule::Constant(0.0).check("lr", 0.0, 1.0).is_ok());
}

#[test]
fn schedules_print_what_they_do() {
    let printed = [
        (Schedule::from(0.1), "0.1"),
        (Schedule::linear(1.0, 0.1, 10), "linear from 1 to 0.1 in 10"),
        (Schedule::multi_step(0.1, 0.5, [3, 7]), "0.1, times 0.5 at 3, 7"),
        (
            Schedule::cosine(0.1, 0.0, 90).scaled(ScalingRule::Linear, 256, 1024).after_warm_up(5, 0.25),
            "warm-up from 0.25 of it in 5, then (cosine from 0.1 to 0 in 90) scaled linearly from batch 256 to 1024",
        ),
        (Schedule::from(0.5).then(8, 1.0.into()), "(0.5) for 8, then (1)"),
        (Schedule::one_cycle(1.0, 10), "one cosine cycle of 10: 0.04 to 1 in 30 %, down to 0.000004"),
    ];
    for (schedule, expected) in printed {
        assert_eq!(schedule.to_string(), expected);
    }
}

fn leaf() -> impl Strategy<Value = Schedule> {
    let value = || 0.001f64..1.0;
    let mode = prop_oneof![Just(CyclicMode::Triangular), Just(CyclicMode::Triangular2)];
    prop_oneof![
        value().prop_map(Schedule::from),
        (value(), value(), 0u64..50).prop_map(|(a, b, n)| Schedule::linear(a, b, n)),
        (value(), value(), 0u64..50).prop_map(|(a, b, n)| Schedule::exponential(a, b, n)),
        (value(), value(), 0u64..50, 0.1f64..4.0).prop_map(|(a, b, n, p)| Schedule::polynomial(a, b, n, p)),
        (value(), value(), 0u64..50).prop_map(|(a, b, n)| Schedule::cosine(a, b, n)),
        (value(), value(), 1u64..50, 1u64..4).prop_map(|(a, b, n, g)| Schedule::cosine_restarts(a, b, n, g)),
        (value(), 0.0f64..=1.0, 1u64..50).prop_map(|(a, f, n)| Schedule::step(a, f, n)),
        (value(), 0.1f64..3.0, prop::collection::btree_set(0u64..90, 0..4))
            .prop_map(|(a, f, at)| Schedule::multi_step(a, f, Vec::from_iter(at))),
        (value(), 1u64..90).prop_map(|(peak, n)| Schedule::one_cycle(peak, n)),
        (value(), value(), 1u64..20, prop::option::of(1u64..20), mode).prop_map(
            |(low, high, up, down, mode)| { Curve::Cyclic { low, high, up, down, mode, decay: 1.0 }.into() }
        ),
    ]
}

fn any_schedule() -> impl Strategy<Value = Schedule> {
    leaf().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), 0u64..30, 0.0f64..=1.0).prop_map(|(s, n, from)| s.warmed_up(n, from)),
            (inner.clone(), 0u64..30, 0.0f64..=1.0).prop_map(|(s, n, from)| s.after_warm_up(n, from)),
            (inner.clone(), 0u64..30, inner.clone()).prop_map(|(a, n, b)| a.then(n, b)),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a.times(b)),
            (inner, 1u64..100, 1u64..100).prop_map(|(s, a, b)| s.scaled(ScalingRule::SquareRoot, a, b)),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// What is saved is read as the same schedule, as a JSON value and as TOML text. (JSON text loses a last digit in serde_json.)
    #[test]
    fn saved_and_read_back(schedule in any_schedule()) {
        let json = serde_json::to_value(&schedule).unwrap();
        prop_assert_eq!(&serde_json::from_value::<Schedule>(json).unwrap(), &schedule);
        let table = toml::Table::from_iter([("rate".to_string(), toml::Value::try_from(&schedule).unwrap())]);
        let read: toml::Table = table.to_string().parse().unwrap();
        prop_assert_eq!(&read["rate"].clone().try_into::<Schedule>().unwrap(), &schedule);
    }

    /// Bounds that `check` accepts hold at every count: the tightest ones it accepts are searched for, and looked through.
    #[test]
    fn no_value_leaves_the_bounds_that_were_checked(schedule in any_schedule(), far in any::<u64>()) {
        schedule.check("rate", 0.0, f64::MAX).unwrap();
        let mut high = 1e9;
        while schedule.check("rate", 0.0, high / 1.01).is_ok() && high > 1e-9 {
            high /= 1.01;
        }
        for t in (0..200).chain([far, u64::MAX]) {
            let value = schedule.at(t);
            prop_assert!(value >= 0.0 && value <= high * (1.0 + 1e-12), "{value} at {t}, above {high}: {schedule}");
        }
    }

    /// A sequence is its parts, each at its own count; a warm-up is over when it says.
    #[test]
    fn compositions_are_their_parts(a in leaf(), b in leaf(), n in 0u64..40, t in 0u64..100) {
        let at = if t < n { a.at(t) } else { b.at(t - n) };
        prop_assert_eq!(a.clone().then(n, b.clone()).at(t), at);
        prop_assert_eq!(a.clone().times(b.clone()).at(t), a.at(t) * b.at(t));
        prop_assert_eq!(a.clone().warmed_up(n, 0.1).at(n + t), a.at(n + t));
        prop_assert_eq!(a.clone().after_warm_up(n, 0.1).at(n + t), a.at(t));
        let ramp = if t < n { 0.1 + 0.9 * t as f64 / n as f64 } else { 1.0 };
        prop_assert!((a.clone().warmed_up(n, 0.1).at(t) - ramp * a.at(t)).abs() < 1e-12);
    }
}
