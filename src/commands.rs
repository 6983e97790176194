//! The commands of `rl-train`: each in a few calls into the library.

use crate::bench::env::{EnvBench, EnvBenchError};
use crate::bench::learner::LearnerBench;
use crate::bench::peers;
use crate::bench::replay::{BenchError, ReplayBench};
use crate::cli::{
    self, Bench, BenchEnv, BenchLearner, BenchReplay, Command, Eval, Keys, Listed, Play, Train,
};
use crate::config::{Layers, from_run, resolve, to_toml, without_env};
use crate::error::{CommandError, Result, io, panic_text, usage};
use crate::evaluation::evaluate;
use crate::play::{Screen, play};
use crate::run::{RunFolder, Which};
use crate::train::{Ended, TrainArgs, train};
use crate::{report, wiring};
use rl_learn::device;
use rl_replay::ReplayError;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// The `rl-train` program: reads the command line, does what it asks for, and says in the exit code how it went.
///
/// A program of your own that [registers](rl_envs::register) environments first and then returns this is `rl-train` with
/// these environments: every command takes them by id. `docs/environments.md` shows one whole.
///
/// ```no_run
/// # fn new() -> Box<dyn rl_envs::Env> { Box::new(rl_envs::CartPole::new()) }
/// fn main() -> std::process::ExitCode {
///     rl_envs::register("Mine/Corridor-v0", new).expect("the id is free");
///     rl_train::main()
/// }
/// ```
pub fn main() -> ExitCode {
    rl_learn::keep_freed_memory();
    // What a panic says is printed once, below.
    std::panic::set_hook(Box::new(|_| {}));
    let result =
        std::panic::catch_unwind(run).unwrap_or_else(|panic| Err(CommandError::Failed(panic_text(&*panic))));
    result.unwrap_or_else(|error| {
        // Where this cannot be said, the exit code still tells.
        let _ = writeln!(std::io::stderr(), "error: {error}");
        ExitCode::from(error.exit_code())
    })
}

/// Does what the command line asks for.
fn run() -> Result<ExitCode> {
    cli::parse().and_then(|cli| match cli.command {
        Command::Train(args) => run_train(args),
        Command::Eval(args) => run_eval(&args),
        Command::Play(args) => run_play(&args),
        Command::Bench(Bench::Replay(args)) => bench_replay(&args),
        Command::Bench(Bench::Learner(args)) => bench_learner(&args),
        Command::Bench(Bench::Env(args)) => bench_env(&args),
        Command::List { what } => list(what),
        Command::Config { keys } => print_config(&keys),
        Command::Report { runs, svg } => print_report(&runs, svg.as_deref()),
    })
}

/// Prints to standard output. A full disk or a reader that has gone is an error there and no panic.
fn print(text: std::fmt::Arguments<'_>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_fmt(text).and_then(|()| out.flush()).map_err(io("cannot write to standard output"))
}

fn run_train(args: Train) -> Result<ExitCode> {
    let flags = args.keys.flags();
    let Keys { config: file, set, .. } = args.keys;
    let (out, resume, quiet, profile) = (args.out, args.resume, args.quiet, args.profile);
    match train(&TrainArgs { file, set, flags, out, resume, quiet, profile })? {
        Ended::Done(folder, summary) => {
            print(format_args!("{summary}\nrun: {}\n", folder.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Ended::Interrupted(folder, code) => {
            let folder = folder.display();
            let _ = writeln!(
                std::io::stderr(),
                "stopped; a checkpoint is saved, go on with: rl-train train --resume {folder}"
            );
            Ok(ExitCode::from(code))
        }
    }
}

/// The agent of a run, as `which` of its checkpoints has it.
fn trained_agent(
    run: &std::path::Path,
    which: Which,
) -> Result<(crate::config::Config, Box<dyn rl_learn::Agent>)> {
    let config = from_run(run, Vec::new())?;
    // A policy is small and is asked for one observation, or a few, at a time.
    let device = device::choose("cpu")?;
    device::set_threads(config.intra_op_threads());
    let mut agent = wiring::build_agent(&config, device)?;
    let checkpoint = RunFolder::open(run).load(which, &config)?;
    checkpoint.load_part(|visitor| rl_learn::scope(visitor, "agent", |v| agent.visit(v)))?;
    Ok((config, agent))
}

fn run_eval(args: &Eval) -> Result<ExitCode> {
    let (config, mut agent) = trained_agent(&args.run, args.checkpoint)?;
    // The best checkpoint was chosen by its luck on the run's own seed, so it is judged on another.
    let seed = args.seed.unwrap_or(config.eval.seed + u64::from(args.checkpoint == Which::Best));
    let result =
        evaluate(&mut *agent, &config, args.episodes as usize, seed, &|| false)?.expect("nobody stops it");
    if args.json {
        print(format_args!("{}\n", serde_json::to_string(&result).expect("plain data")))?;
    } else {
        print(format_args!(
            "{} episodes: return {:.1} ± {:.1} (from {:.1} to {:.1}), length {:.1}\n",
            result.episodes,
            result.mean_return,
            result.std_return,
            result.min_return,
            result.max_return,
            result.mean_length
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn run_play(args: &Play) -> Result<ExitCode> {
    let (config, mut agent) = trained_agent(&args.run, args.checkpoint)?;
    let screen = match &args.gif {
        Some(path) => Screen::Gif(path.clone()),
        None => Screen::Terminal,
    };
    let seed = args.seed.unwrap_or(config.eval.seed);
    let played = play(&mut *agent, &config, seed, &screen)?;
    let part = if played.stopped.is_some() { "part of an episode" } else { "one episode" };
    print(format_args!("{part}: {} steps, return {:.1}\n", played.length, played.total))?;
    Ok(ExitCode::from(played.stopped.unwrap_or(0) as u8))
}

fn bench_replay(args: &BenchReplay) -> Result<ExitCode> {
    let bench = ReplayBench {
        workload: args.workload,
        op: args.op,
        batch: args.batch as usize,
        writers: args.writers.into(),
        samplers: args.samplers.into(),
        capacity: args.capacity,
        n_step: args.n_step.into(),
        seconds: args.seconds,
        repeats: args.repeats as usize,
    };
    let progress = |line: &str| drop(writeln!(std::io::stderr(), "{line}"));
    let chosen = |names: &Vec<String>| peers::choose(&peers::folder(args.peers_dir.as_deref())?, names);
    let measured = args
        .peers
        .as_ref()
        .map_or(Ok(Vec::new()), chosen)
        .map_err(BenchError::from)
        .and_then(|peers| bench.run(&peers, progress));
    let (report, others) = measured.map_err(|e| match e {
        BenchError::Replay(
            ReplayError::NoCapacity | ReplayError::Memory { .. } | ReplayError::TooLarge { .. },
        )
        | BenchError::Setting { .. }
        | BenchError::Memory(_)
        | BenchError::Peers(_) => CommandError::Usage(e.to_string()),
        BenchError::Replay(_) => CommandError::Failed(e.to_string()),
    })?;
    if args.json {
        print(format_args!("{}\n", serde_json::to_string(&report).expect("plain data")))?;
        for other in &others {
            print(format_args!("{}\n", serde_json::to_string(other).expect("plain data")))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    print(format_args!(
        "{:.2} M transitions/s, {:.2} M inserted/s; a call {:.1} µs (median), {:.1} µs (99th percentile); {:.0} bytes a transition\n",
        report.transitions_per_s / 1e6,
        report.inserted_per_s / 1e6,
        report.p50_us,
        report.p99_us,
        report.bytes_per_transition
    ))?;
    print(format_args!(
        "beside it: {:.2} M rows/s of {} bytes gathered at random, {:.1} GB/s copied\n",
        report.gather_limit_per_s / 1e6,
        report.gather_row_bytes,
        report.memcpy_gb_per_s
    ))?;
    if !others.is_empty() {
        print(format_args!("\n{}", peers::table(report.transitions_per_s, &others)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn bench_learner(args: &BenchLearner) -> Result<ExitCode> {
    let bench = LearnerBench {
        config: without_env(&args.algo, &args.set, args.flags())?,
        network: args.network,
        obs: args.obs,
        actions: args.actions,
        seconds: args.seconds,
        repeats: args.repeats as usize,
    };
    let report = if args.serve {
        bench.serve(std::io::stdin().lock(), std::io::stdout().lock())?
    } else {
        Some(bench.run(|line| drop(writeln!(std::io::stderr(), "{line}")))?)
    };
    let Some(report) = report else { return Ok(ExitCode::SUCCESS) };
    if args.json {
        print(format_args!("{}\n", serde_json::to_string(&report).expect("plain data")))?;
        return Ok(ExitCode::SUCCESS);
    }
    print(format_args!(
        "{:.0} updates/s; an update {:.1} µs (median), {:.1} µs (99th percentile); acting {:.1} µs\n",
        report.updates_per_s, report.update_us, report.p99_us, report.act_us
    ))?;
    print(format_args!(
        "matrix products: {:.2} MFLOP an update, {:.1} GFLOP/s; beside it, one large product: {:.1} GFLOP/s\n",
        report.gflop_per_update * 1e3,
        report.gflop_per_s,
        report.matmul_gflop_per_s
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn bench_env(args: &BenchEnv) -> Result<ExitCode> {
    let bench = EnvBench {
        env: args.env.clone(),
        envs: args.envs as usize,
        threads: args.threads.into(),
        seconds: args.seconds,
        repeats: args.repeats as usize,
    };
    let failed = |e: EnvBenchError| match e {
        EnvBenchError::Output(_) => CommandError::Failed(e.to_string()),
        EnvBenchError::Env(rl_envs::EnvError::At { .. }) => CommandError::Failed(e.to_string()),
        _ => CommandError::Usage(e.to_string()),
    };
    if args.serve {
        bench.serve(std::io::stdin().lock(), std::io::stdout().lock()).map_err(failed)?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = bench.run().map_err(failed)?;
    if args.json {
        print(format_args!("{}\n", serde_json::to_string(&report).expect("plain data")))?;
    } else {
        print(format_args!(
            "{:.3} M steps/s of {} ({} environments on {}); a step of all {:.2} µs (median)\n",
            report.steps_per_s / 1e6,
            report.env,
            report.envs,
            if report.threads == 1 { "1 thread".to_string() } else { format!("{} threads", report.threads) },
            report.p50_us
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn list(what: Option<Listed>) -> Result<ExitCode> {
    if what != Some(Listed::Envs) {
        for algo in rl_agents::ALGOS {
            print(format_args!("{:<26} {}\n", algo.name, algo.summary))?;
        }
    }
    if what != Some(Listed::Algos) {
        let listings = rl_envs::listings();
        let obs = |spec: &rl_envs::EnvSpec| format!("obs {}", spec.observation);
        let width = listings.iter().map(|listing| obs(&listing.spec).len()).max().unwrap_or(0).min(100);
        for listing in listings {
            let spec = listing.spec;
            let limit = spec.max_episode_steps.map_or("no limit".to_string(), |n| format!("{n} steps"));
            let built = match (listing.feature, listing.built_in) {
                (None, _) => "built in".to_string(),
                (Some(feature), true) => format!("built in, feature {feature}"),
                (Some(feature), false) => format!("not built in, needs feature {feature}"),
            };
            let action = format!("action {}", spec.action);
            print(format_args!(
                "{:<26} {limit:<11} {:<width$}  {action:<44}  {built}\n",
                spec.id,
                obs(&spec)
            ))?;
        }
        let built = match rl_envs::PYTHON {
            true => "built in, feature python",
            false => "not built in, needs feature python",
        };
        print(format_args!(
            "\nand those of Python: gym:ID (gymnasium.make), gym-vec:ID (gymnasium.make_vec), atari:GAME (ale-py); {built}\n"
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_config(keys: &Keys) -> Result<ExitCode> {
    let layers = Layers { file: keys.config.as_deref(), set: &keys.set, flags: keys.flags() };
    let config = resolve(&layers)?;
    // What the types cannot check, the agent does when it is built.
    wiring::build_agent(&config, rl_learn::Device::Cpu)?;
    print(format_args!("{}", to_toml(&config)))?;
    Ok(ExitCode::SUCCESS)
}

fn print_report(runs: &[PathBuf], svg: Option<&std::path::Path>) -> Result<ExitCode> {
    if let Some(folder) =
        svg.and_then(std::path::Path::parent).filter(|p| !p.as_os_str().is_empty() && !p.is_dir())
    {
        return usage(format!("there is no folder {} for the picture", folder.display()));
    }
    let mut returns = Vec::new();
    let mut curves = Vec::new();
    let mut table = "| run | seed | env steps | mean return | std | min | max | wall s |\n".to_string();
    table += "|---|---:|---:|---:|---:|---:|---:|---:|\n";
    for run in runs {
        let text = std::fs::read_to_string(run.join("summary.json")).map_err(|e| {
            CommandError::Usage(format!("{} is no run that has ended: summary.json: {e}", run.display()))
        })?;
        let summary: crate::run::Summary = serde_json::from_str(&text)
            .map_err(|e| CommandError::Usage(format!("{}/summary.json: {e}", run.display())))?;
        let eval = &summary.eval;
        table += &format!(
            "| {} on {} | {} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} |\n",
            summary.algo,
            summary.env,
            summary.seed,
            summary.env_steps,
            eval.mean_return,
            eval.std_return,
            eval.min_return,
            eval.max_return,
            summary.wall_s
        );
        returns.push(eval.mean_return);
        if svg.is_some() {
            let metrics = run.join("metrics.jsonl");
            let curve = report::read_curve(&metrics, "eval/return")
                .map_err(|e| CommandError::Failed(format!("{}: {e}", metrics.display())))?;
            curves.push((format!("{} on {}", summary.algo, summary.env), curve));
        }
    }
    if curves.iter().any(|(_, curve)| curve.is_empty()) {
        return usage(
            "one of these runs was never evaluated on its way (eval.every = 0): it has no curve to draw",
        );
    }
    let all = report::aggregate(&returns);
    print(format_args!(
        "{table}\ninterquartile mean of {} runs: {:.1}, 95 % bootstrap interval {:.1} to {:.1}\n",
        returns.len(),
        all.mean,
        all.low,
        all.high
    ))?;
    let Some(svg) = svg else { return Ok(ExitCode::SUCCESS) };
    let mut series: Vec<(String, Vec<report::Curve>)> = Vec::new();
    for (label, curve) in curves {
        match series.iter_mut().find(|(l, _)| *l == label) {
            Some((_, curves)) => curves.push(curve),
            None => series.push((label, vec![curve])),
        }
    }
    let series: Vec<(&str, Vec<report::Curve>)> =
        series.iter().map(|(l, c)| (l.as_str(), c.clone())).collect();
    report::learning_curve_svg("Greedy evaluation while training", &series, svg)
        .map_err(|e| CommandError::Failed(e.to_string()))?;
    Ok(ExitCode::SUCCESS)
}
