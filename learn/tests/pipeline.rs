//! Models in stages against uncut ones. In f64 to 1e-10 relative at most, in f32 to 1e-5.

use rand::{RngExt, SeedableRng};
use rl_learn::{
    Activation, Device, Kind, Linear, MemoryState, Mlp, MlpConfig, Module, Optimizer, OptimizerConfig, Phase,
    Pipeline, PipelineError, Rng, Role, Stage, StageOf, Tensor, gradients, no_grad, parameters, visit_module,
    walk_under,
};
use std::cell::Cell;
use std::rc::Rc;

const CPU: Device = Device::Cpu;

fn values(shape: &[i64], seed: u64) -> Tensor {
    let mut rng = Rng::seed_from_u64(seed);
    let numbers: Vec<f64> = (0..shape.iter().product::<i64>()).map(|_| rng.random_range(-2.0..2.0)).collect();
    Tensor::from_slice(&numbers).reshape(shape)
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(tensor.detach().to_kind(Kind::Double).contiguous().reshape([-1])).unwrap()
}

fn apart(found: &[Tensor], expected: &[Tensor]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let worst = found.iter().zip(expected).map(|(found, expected)| {
        assert_eq!(found.size(), expected.size());
        let (found, expected) = (found.detach(), expected.detach());
        let scale = expected.abs().max().double_value(&[]).max(1e-6);
        (&found - &expected).abs().max().double_value(&[]) / scale
    });
    worst.fold(0.0, f64::max)
}

fn saved(module: &dyn Module) -> MemoryState {
    MemoryState::save(|v| visit_module(v, module)).unwrap()
}

fn mean_loss(y: &Tensor, target: &Tensor) -> Tensor {
    (y - target).square().mean(Kind::Double)
}

/// Stands where a layer could.
struct Nothing;

impl Module for Nothing {
    fn walk(&self, _: &mut dyn FnMut(&str, &Tensor, Role)) {}
}

fn stage(module: Mlp) -> Box<dyn Stage> {
    Box::new(StageOf::new(module, |mlp, x, phase| mlp.forward(x, phase).tanh()))
}

fn linear_stage(inputs: i64, outputs: i64, seed: u64, device: Device) -> (Box<dyn Stage>, Device) {
    let linear = Linear::new(inputs, outputs, &mut Rng::seed_from_u64(seed), Kind::Double, device);
    (Box::new(StageOf::new(linear, |linear, x, _| linear.forward(x).tanh())), device)
}

fn three_stages(recompute: bool) -> Pipeline {
    let stages = vec![linear_stage(3, 8, 1, CPU), linear_stage(8, 5, 2, CPU), linear_stage(5, 2, 3, CPU)];
    Pipeline::new(stages).recompute(recompute)
}

#[test]
fn a_model_in_stages_has_the_gradients_of_the_uncut_one() {
    let (x, target) = (values(&[10, 3], 1), values(&[10, 2], 2));
    for recompute in [false, true] {
        let pipeline = three_stages(recompute);
        let loss = mean_loss(&pipeline.forward(&x, Phase::Train), &target);
        let expected = gradients(&loss, &parameters(&pipeline));
        // Dividing and not dividing the rows, more and fewer than stages, and one a row.
        for micro_batches in [1, 2, 3, 4, 5, 7, 10] {
            let step = pipeline
                .gradients(&x, micro_batches, Phase::Train, |y, rows| {
                    mean_loss(y, &target.narrow(0, rows.start, rows.end - rows.start))
                })
                .unwrap();
            assert!(apart(&step.gradients, &expected) < 1e-12, "{micro_batches} micro-batches");
            assert!(apart(&[step.loss], &[loss.detach()]) < 1e-12);
        }
    }
}

#[test]
fn two_cpu_stages_train_as_one_stage_does() {
    let batch = |step: u64| (values(&[9, 3], 10 + step), values(&[9, 2], 30 + step));
    let train = |pipeline: &Pipeline, micro_batches: usize| {
        let mut adam = Optimizer::new(OptimizerConfig::adam(), parameters(pipeline));
        adam.set_learning_rate(0.01);
        for step in 0..10 {
            let (x, target) = batch(step);
            let found = pipeline.gradients(&x, micro_batches, Phase::Train, |y, rows| {
                mean_loss(y, &target.narrow(0, rows.start, rows.end - rows.start))
            });
            adam.step(&found.unwrap().gradients).unwrap();
        }
        parameters(pipeline)
    };
    struct Both(Linear, Linear);
    impl Module for Both {
        fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
            walk_under(&self.0, "0", show);
            walk_under(&self.1, "1", show);
        }
    }
    let linear = |inputs, outputs, seed| {
        Linear::new(inputs, outputs, &mut Rng::seed_from_u64(seed), Kind::Double, CPU)
    };
    let both = StageOf::new(Both(linear(3, 8, 1), linear(8, 2, 2)), |both, x, _| {
        both.1.forward(&both.0.forward(x).tanh()).tanh()
    });
    let one = Pipeline::new(vec![(Box::new(both), CPU)]);
    let two = Pipeline::new(vec![linear_stage(3, 8, 1, CPU), linear_stage(8, 2, 2, CPU)]);
    let error = apart(&train(&two, 4), &train(&one, 1));
    assert!(error < 1e-10, "{error:e}");
    let mut names = Vec::new();
    two.walk(&mut |name, _, _| names.push(name.to_string()));
    assert_eq!(names, ["0.weight", "0.bias", "1.weight", "1.bias"]);
}

/// With batch normalization a micro-batch is what is normalized; the uncut model that equals the pipeline goes through them one by one.
#[test]
fn batch_norm_in_a_pipeline_is_that_of_the_micro_batches() {
    let make = || {
        let config = |inputs, outputs| MlpConfig {
            inputs,
            hidden: vec![6],
            outputs,
            activation: Activation::Relu,
            batch_norm: true,
            output_bound: None,
        };
        let mlp =
            |inputs, outputs, seed| Mlp::new(&config(inputs, outputs), &mut Rng::seed_from_u64(seed), CPU);
        Pipeline::new(vec![(stage(mlp(3, 4, 1)), CPU), (stage(mlp(4, 2, 2)), CPU)])
    };
    let (x, target) = (values(&[7, 3], 1).to_kind(Kind::Float), values(&[7, 2], 2).to_kind(Kind::Float));
    let uncut = make();
    let parts = [(0, 3), (3, 2), (5, 2)];
    let losses = parts.map(|(first, count)| {
        let y = uncut.forward(&x.narrow(0, first, count), Phase::Train);
        (y - target.narrow(0, first, count)).square().mean(Kind::Float) * (count as f64 / 7.0)
    });
    let expected = gradients(&losses.iter().sum::<Tensor>(), &parameters(&uncut));
    for recompute in [false, true] {
        let pipeline = make().recompute(recompute);
        let step = pipeline.gradients(&x, 3, Phase::Train, |y, rows| {
            (y - target.narrow(0, rows.start, rows.end - rows.start)).square().mean(Kind::Float)
        });
        assert!(apart(&step.unwrap().gradients, &expected) < 1e-5, "f32");
        assert_eq!(
            saved(&pipeline),
            saved(&uncut),
            "statistics moved once a micro-batch, recompute {recompute}"
        );
    }
}

#[test]
fn recomputing_runs_each_stage_twice_and_frozen_or_plain_stages_are_fine() {
    let runs = Rc::new(Cell::new(0));
    let counted = Rc::clone(&runs);
    let frozen = Linear::new(3, 4, &mut Rng::seed_from_u64(1), Kind::Double, CPU);
    for parameter in parameters(&frozen) {
        let _ = no_grad(|| parameter.set_requires_grad(false));
    }
    let stages: Vec<(Box<dyn Stage>, Device)> = vec![
        (Box::new(StageOf::new(frozen, |linear: &Linear, x: &Tensor, _| linear.forward(x))), CPU),
        (
            Box::new(StageOf::new(Nothing, move |_: &Nothing, x: &Tensor, _| {
                counted.set(counted.get() + 1);
                x.relu()
            })),
            CPU,
        ),
        linear_stage(4, 2, 2, CPU),
    ];
    let pipeline = Pipeline::new(stages).recompute(true);
    let x = values(&[6, 3], 1);
    let step = pipeline.gradients(&x, 2, Phase::Train, |y, _| y.square().mean(Kind::Double)).unwrap();
    assert_eq!(runs.get(), 4);
    assert!(step.gradients[..2].iter().all(|g| floats(g).iter().all(|&v| v == 0.0)), "frozen");
    let trained = &parameters(&pipeline)[2..];
    let expected = gradients(&pipeline.forward(&x, Phase::Train).square().mean(Kind::Double), trained);
    assert!(apart(&step.gradients[2..], &expected) < 1e-12);
}

#[test]
fn a_pipeline_says_what_it_cannot_do() {
    let pipeline = three_stages(false);
    let x = values(&[4, 3], 1);
    let message = |result: Result<rl_learn::PipelineStep, PipelineError>| result.unwrap_err().to_string();
    let loss = |y: &Tensor, _| y.square().mean(Kind::Double);
    for micro_batches in [0, 5] {
        let error = message(pipeline.gradients(&x, micro_batches, Phase::Train, loss));
        assert!(
            error.contains(&format!("4 rows cannot be cut into {micro_batches} micro-batches")),
            "{error}"
        );
    }
    let each = message(pipeline.gradients(&x, 2, Phase::Train, |y, _| y.square()));
    assert!(each.contains("must be one number") && each.contains("[2, 2]"), "{each}");
    let constant = |_: &Tensor, _| Tensor::zeros([], (Kind::Double, CPU));
    assert!(message(pipeline.gradients(&x, 2, Phase::Train, constant)).contains("depends on the output"));
}

/// Only where a GPU is at hand; elsewhere it passes without looking.
#[test]
fn a_stage_on_a_gpu_and_one_on_the_cpu() {
    let Ok(gpu @ Device::Cuda(_)) = rl_learn::device::choose("auto") else { return };
    let (x, target) = (values(&[10, 3], 1), values(&[10, 2], 2));
    let cpu = Pipeline::new(vec![linear_stage(3, 8, 1, CPU), linear_stage(8, 2, 2, CPU)]);
    let loss = mean_loss(&cpu.forward(&x, Phase::Train), &target);
    let expected = gradients(&loss, &parameters(&cpu));
    for (first, second) in [(gpu, CPU), (CPU, gpu)] {
        let mixed = Pipeline::new(vec![linear_stage(3, 8, 1, first), linear_stage(8, 2, 2, second)]);
        let target = target.to_device(second);
        let step = mixed.gradients(&x, 3, Phase::Train, |y, rows| {
            mean_loss(y, &target.narrow(0, rows.start, rows.end - rows.start))
        });
        let found: Vec<Tensor> = step.unwrap().gradients.iter().map(|g| g.to_device(CPU)).collect();
        assert!(apart(&found, &expected) < 1e-10);
    }
}
