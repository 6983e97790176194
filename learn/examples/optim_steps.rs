//! Measures optimizer steps; `scripts/bench-optim` alternates it with PyTorch. Reads lines `OPTIMIZER PARAMETERS SIDE THREADS STEPS` from
//! standard input (Adam over 10 square matrices of 256: `adam 10 256 1 200`) and answers each with one line of JSON. A case that was asked for
//! before goes on with its warm state.

use rl_learn::{
    Device, Kind, Optimizer, OptimizerConfig, ParamGroups, Tensor, device, keep_freed_memory, no_grad,
};
use std::collections::HashMap;
use std::io::BufRead;
use std::time::Instant;

fn config(name: &str) -> Result<OptimizerConfig, String> {
    let sgd =
        |momentum| OptimizerConfig::Sgd { momentum, dampening: 0.0, weight_decay: 0.0, nesterov: false };
    let rmsprop = |momentum, centered| OptimizerConfig::RmsProp {
        alpha: 0.99,
        eps: 1e-8,
        weight_decay: 0.0,
        momentum,
        centered,
    };
    let adamw = OptimizerConfig::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
    Ok(match name {
        "sgd" => sgd(0.9),
        "rmsprop" => rmsprop(0.0, false),
        "adam" => OptimizerConfig::adam(),
        "adamw" => adamw,
        "lars" => OptimizerConfig::lars(0.01),
        "lamb" => OptimizerConfig::lamb(0.01),
        _ => return Err(format!("unknown optimizer '{name}'")),
    })
}

/// An optimizer and the gradients that it steps along.
struct Case(Optimizer, Vec<Tensor>);

fn make(name: &str, count: i64, side: i64) -> Result<Case, String> {
    let options = (Kind::Float, Device::Cpu);
    let parameters: Vec<_> = (0..count).map(|_| Tensor::randn([side, side], options)).collect();
    let gradients = parameters.iter().map(Tensor::randn_like).collect();
    let mut optimizer =
        Optimizer::with_groups(config(name)?, ParamGroups::one(parameters)).map_err(|e| e.to_string())?;
    optimizer.set_learning_rate(1e-3);
    Ok(Case(optimizer, gradients))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    keep_freed_memory();
    let mut cases: HashMap<String, Case> = HashMap::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, count, side, threads, steps] = words[..] else {
            return Err(
                format!("a line is OPTIMIZER PARAMETERS SIDE THREADS STEPS; this one is '{line}'").into()
            );
        };
        device::set_threads(threads.parse()?);
        let (count, side, steps) = (count.parse()?, side.parse()?, steps.parse::<u32>()?);
        let key = format!("{name} {count} {side}");
        if !cases.contains_key(&key) {
            cases.insert(key.clone(), make(name, count, side)?);
        }
        let Some(Case(optimizer, gradients)) = cases.get_mut(&key) else { continue };
        let begin = Instant::now();
        for _ in 0..steps {
            no_grad(|| optimizer.step(gradients))?;
        }
        let us = begin.elapsed().as_secs_f64() * 1e6 / f64::from(steps);
        println!(
            "{{\"optimizer\":\"{name}\",\"parameters\":{count},\"side\":{side},\"threads\":{threads},\"steps\":{steps},\"us_per_step\":{us:.3}}}"
        );
    }
    Ok(())
}
