//! `rl-train train`: the loop around a [`Training`], with everything a person watching it wants.

use crate::config::{Config, Layers, from_run, resolve};
use crate::error::{Result, io, usage};
use crate::evaluation::{Evaluation, evaluate};
use crate::metrics::{LogPoint, Metrics};
use crate::progress::{Progress, Snapshot};
use crate::report::read_curve;
use crate::run::{RunFolder, Summary, Which};
use crate::signals::StopRequest;
use crate::training::{Training, begin, diverged};
use rl_learn::device;
use rl_learn::profile::{self, Profile};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What `rl-train train` was asked to do.
#[derive(Debug, Default)]
pub struct TrainArgs {
    /// `--config`
    pub file: Option<PathBuf>,
    /// `--set`, in order
    pub set: Vec<String>,
    /// Flags that stand for configuration keys.
    pub flags: Vec<(&'static str, toml::Value)>,
    /// `--out`
    pub out: Option<PathBuf>,
    /// `--resume`
    pub resume: Option<PathBuf>,
    /// `--quiet`
    pub quiet: bool,
    /// `--profile`
    pub profile: Option<PathBuf>,
}

/// How training ended.
#[derive(Clone, Debug)]
pub enum Ended {
    /// All environment steps were taken; the run's folder and what the policy reached.
    Done(PathBuf, Box<Summary>),
    /// Asked to stop by a signal: a checkpoint was written, and `--resume` of this folder goes on. With the exit code.
    Interrupted(PathBuf, u8),
}

/// Trains a new run, or goes on with one.
///
/// # Errors
/// A usage error for the user's mistakes, a failure when something broke; checkpoints written before stay.
pub fn train(args: &TrainArgs) -> Result<Ended> {
    let (config, run) = match &args.resume {
        Some(path) => (resumed_config(path, args)?, Some(RunFolder::open(path))),
        None => {
            let layers = Layers { file: args.file.as_deref(), set: &args.set, flags: args.flags.clone() };
            (resolve(&layers)?, None)
        }
    };
    let device = device::choose(&config.device)?;
    device::set_threads(config.intra_op_threads());
    // Written to its end however training ends.
    let profile = args.profile.as_deref().map(start_profile).transpose()?;
    let mut trainer = begin(config.clone(), device)?;
    let (run, metrics, wall_before) = match run {
        Some(run) => {
            run.load(Which::Latest, &config)?.load(|v| trainer.visit(v))?;
            // One that was stopped between its last step and its summary has only that left to do.
            if trainer.env_steps() >= config.env_steps && run.has_ended_at(trainer.env_steps()) {
                let (path, steps) = (run.path().display(), trainer.env_steps());
                return usage(format!(
                    "{path} already has its {steps} env steps; give --env-steps a larger number"
                ));
            }
            let metrics = Metrics::resume(run.path(), trainer.env_steps());
            // Wall-clock time is no part of a checkpoint, which would make equal runs' checkpoints differ.
            let clock = read_curve(&run.path().join("metrics.jsonl"), "wall_s").unwrap_or_default();
            let wall_before = clock.last().map_or(0.0, |(_, wall_s)| *wall_s);
            run.write_config(&config)?;
            (run, metrics, wall_before)
        }
        None => {
            let run = RunFolder::create(args.out.as_deref(), &config)?;
            let metrics = Metrics::create(run.path());
            (run, metrics, 0.0)
        }
    };
    let metrics = metrics.map_err(io(format!("cannot write metrics into {}", run.path().display())))?;
    let stop = StopRequest::listen().map_err(io("cannot watch for Ctrl-C"))?;
    let progress = Progress::new(config.env_steps, trainer.env_steps(), trainer.updates(), args.quiet);
    progress.println(&format!(
        "{} on {}, seed {}, {}; replay of {} transitions in {}; {}",
        config.algo,
        config.env,
        config.seed,
        device::name(device),
        config.replay.capacity,
        in_bytes(trainer.replay_bytes()),
        run.path().display()
    ));
    let started = Instant::now();
    let mut session = Session { trainer, run, metrics, progress, started, wall_before, scalars: Vec::new() };
    session.run.remove_summary()?;
    if session.trainer.env_steps() == 0 {
        // However early the run is killed, there is something to go on with.
        session.save(Which::Latest)?;
    }
    session.until_done(&stop)?;
    session.check_finite(&session.trainer.scalars())?;
    session.save(Which::Latest)?;
    let folder = session.run.path().to_path_buf();
    let summary = session.finish(&device::name(device), &stop)?;
    profile.map_or(Ok(()), Profile::finish).map_err(io("cannot write the profile"))?;
    Ok(match (summary, stop.exit_code()) {
        (Some(summary), _) => Ended::Done(folder, Box::new(summary)),
        (None, code) => Ended::Interrupted(folder, code.unwrap_or(1) as u8),
    })
}

/// A number of bytes with three digits.
fn in_bytes(bytes: u128) -> String {
    let units = ["kB", "MB", "GB", "TB"];
    let mut value = bytes as f64 / 1e3;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1e3;
        unit += 1;
    }
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$} {}", units[unit])
}

fn start_profile(path: &Path) -> Result<Profile> {
    Profile::start(path).or_else(|e| usage(format!("cannot write the profile {}: {e}", path.display())))
}

/// The configuration of the run to go on with. What would make it another run is refused.
fn resumed_config(path: &Path, args: &TrainArgs) -> Result<Config> {
    if args.out.is_some() || args.file.is_some() || !args.set.is_empty() {
        return usage(
            "--resume goes on with the run as it is configured: leave out --out, --config and --set",
        );
    }
    const FREE: [&str; 2] = ["env_steps", "device"];
    let before = from_run(path, Vec::new())?;
    for (key, value) in &args.flags {
        let same = match *key {
            "algo" => value.as_str() == Some(&before.algo),
            "env" => value.as_str() == Some(&before.env),
            "seed" => value.as_integer() == Some(before.seed as i64),
            other => FREE.contains(&other),
        };
        if !same {
            let path = path.display();
            return usage(format!(
                "{path} was begun with another {key}; leave --{key} out, or start a new run"
            ));
        }
    }
    from_run(path, args.flags.clone())
}

/// A run going on.
struct Session {
    trainer: Box<dyn Training>,
    run: RunFolder,
    metrics: Metrics,
    progress: Progress,
    started: Instant,
    /// Seconds of the run's time before this process.
    wall_before: f64,
    /// What the last line of metrics said of the learner, for the progress bar.
    scalars: Vec<(String, f64)>,
}

impl Session {
    /// Steps until all environment steps are taken, or until asked to stop.
    fn until_done(&mut self, stop: &StopRequest) -> Result<()> {
        let config = self.trainer.config().clone();
        let mut before = self.trainer.env_steps();
        while before < config.env_steps && !stop.requested() {
            self.trainer.step()?;
            if let Some(warning) = self.trainer.take_warning() {
                self.progress.println(&format!("warning: {warning}"));
            }
            let now = self.trainer.env_steps();
            // With several environments side by side, or actors that go on meanwhile, a multiple may be passed without being hit.
            let due = |every: u64| every > 0 && now / every > before / every;
            if due(config.train.log_every) {
                profile::time("log", || self.log())?;
            }
            if due(config.eval.every) {
                profile::time("evaluate", || self.evaluate(config.eval.episodes))?;
            }
            if due(config.train.checkpoint_every) {
                profile::time("checkpoint", || self.save(Which::Latest))?;
            }
            self.trainer.release();
            let (trainer, scalars) = (&*self.trainer, &self.scalars);
            self.progress.update(now, || snapshot(trainer, scalars));
            before = now;
        }
        self.trainer.finish()
    }

    /// Writes a checkpoint of one moment; who is held for it stays so.
    fn save(&mut self, which: Which) -> Result<()> {
        self.trainer.hold()?;
        self.run.save(which, &mut *self.trainer)
    }

    /// The evaluation at the end and the summary; `None` when asked to stop before they were there.
    fn finish(mut self, device: &str, stop: &StopRequest) -> Result<Option<Summary>> {
        let wall_s = self.wall_s();
        let last = snapshot(&*self.trainer, &self.scalars);
        self.progress.finish(self.trainer.env_steps(), last);
        let config = self.trainer.config().clone();
        let (episodes, seed) = (config.eval.final_episodes, config.eval.seed);
        let stopped = || stop.requested();
        let Some(eval) = evaluate(self.trainer.agent(), &config, episodes, seed, &stopped)? else {
            return Ok(None);
        };
        let (env_steps, updates) = (self.trainer.env_steps(), self.trainer.updates());
        let summary = Summary {
            algo: config.algo,
            env: config.env,
            seed: config.seed,
            device: device.to_string(),
            env_steps,
            updates,
            episodes: self.trainer.episodes(),
            wall_s,
            env_steps_per_s: env_steps as f64 / wall_s,
            updates_per_s: updates as f64 / wall_s,
            eval,
            version: env!("CARGO_PKG_VERSION").to_string(),
            git: option_env!("RL_TRAIN_GIT").unwrap_or("unknown").to_string(),
        };
        self.run.write_summary(&summary)?;
        Ok(Some(summary))
    }

    fn wall_s(&self) -> f64 {
        self.wall_before + self.started.elapsed().as_secs_f64()
    }

    fn write(&mut self, values: &[(&str, f64)]) -> Result<()> {
        let at = LogPoint {
            env_steps: self.trainer.env_steps(),
            updates: self.trainer.updates(),
            wall_s: self.wall_s(),
        };
        let path = self.run.path().display();
        self.metrics.log(at, values).map_err(io(format!("cannot write metrics into {path}")))
    }

    /// One line of metrics. Only here are scalars read back from the device.
    fn log(&mut self) -> Result<()> {
        let wall_s = self.wall_s();
        let mut values: Vec<(String, f64)> = Vec::new();
        if let Some((mean_return, length)) = self.trainer.recent() {
            values.push(("train/return".into(), mean_return));
            values.push(("train/length".into(), length));
        }
        values.push(("train/episodes".into(), self.trainer.episodes() as f64));
        self.scalars = self.trainer.scalars();
        values.extend(self.scalars.iter().map(|(name, value)| (format!("learn/{name}"), *value)));
        values.extend(self.trainer.metrics());
        values.push(("speed/env_steps_per_s".into(), self.trainer.env_steps() as f64 / wall_s));
        values.push(("speed/updates_per_s".into(), self.trainer.updates() as f64 / wall_s));
        let values: Vec<(&str, f64)> = values.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        self.write(&values)?;
        self.check_finite(&self.scalars)
    }

    /// Nothing on the way of an update looks at its numbers; here somebody does.
    fn check_finite(&self, scalars: &[(String, f64)]) -> Result<()> {
        match scalars.iter().find(|(_, value)| !value.is_finite()) {
            None => Ok(()),
            Some((name, value)) => Err(diverged(&format!("{name} is {value}"), self.trainer.env_steps())),
        }
    }

    /// Evaluates the policy of one moment, which is the one that is saved should it be the best; who is held for it stays so.
    fn evaluate(&mut self, episodes: usize) -> Result<()> {
        self.trainer.hold()?;
        let config = self.trainer.config().clone();
        let evaluation = evaluate(self.trainer.agent(), &config, episodes, config.eval.seed, &|| false)?
            .expect("nobody stops it");
        let Evaluation { mean_return, std_return, mean_length, .. } = evaluation;
        self.write(&[
            ("eval/return", mean_return),
            ("eval/return_std", std_return),
            ("eval/length", mean_length),
        ])?;
        let best = self.trainer.is_best(mean_return);
        if best {
            self.save(Which::Best)?;
        }
        let note = if best { " (best)" } else { "" };
        let steps = self.trainer.env_steps();
        self.progress
            .println(&format!("{steps} env steps: evaluation {mean_return:.1} ± {std_return:.1}{note}"));
        Ok(())
    }
}

/// What the progress bar shows.
fn snapshot(trainer: &dyn Training, scalars: &[(String, f64)]) -> Snapshot {
    let find = |name: &str| scalars.iter().find(|(n, _)| n == name).map(|(_, value)| *value);
    Snapshot {
        updates: trainer.updates(),
        mean_return: trainer.recent().map(|(mean_return, _)| mean_return),
        loss: find("loss"),
        epsilon: find("epsilon"),
    }
}

impl std::fmt::Display for Summary {
    /// The last lines of `rl-train train`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Evaluation { episodes, mean_return, std_return, min_return, max_return, .. } = &self.eval;
        writeln!(
            f,
            "trained {} env steps, {} updates in {:.1} s ({:.0} env steps/s)",
            self.env_steps, self.updates, self.wall_s, self.env_steps_per_s
        )?;
        write!(
            f,
            "greedy evaluation over {episodes} episodes: {mean_return:.1} ± {std_return:.1} (from {min_return:.1} to {max_return:.1})"
        )
    }
}
