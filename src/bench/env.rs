//! `rl-train bench env`: how many steps a second environments take.
//!
//! All environments are stepped together under random actions, drawn in advance, for a window of time; that is repeated,
//! and the window with the median rate is reported. Episodes that end are reset within the step, which belongs to the cost.

use super::measure::{Durations, median_by};
use super::replay::MIN_REPEATS;
use rand::{RngExt, SeedableRng};
use rl_envs::{Actions, EnvError, EnvSpec, Space, VecEnv};
use rl_replay::Rng;
use serde::Serialize;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

/// Steps whose actions are drawn in advance, and taken again and again.
const DRAWN: usize = 256;
/// Steps between two looks at the clock, as long as those are not noticed.
const MOST_AT_ONCE: u32 = 1 << 16;
/// How long what lies between two looks should take.
const LOOK: Duration = Duration::from_micros(200);

/// One measurement to be made.
#[derive(Clone, Debug)]
pub struct EnvBench {
    /// The environment's id.
    pub env: String,
    /// How many are stepped together.
    pub envs: usize,
    /// Threads that step them; 0 is one a core.
    pub threads: usize,
    /// Seconds of all windows together.
    pub seconds: f64,
    /// Windows measured, at least [`MIN_REPEATS`]; the one with the median rate is reported.
    pub repeats: usize,
}

/// What was measured: the line that `--json` prints, field by field.
#[derive(Clone, Debug, Serialize)]
pub struct EnvReport {
    /// The environment's id.
    pub env: String,
    /// How many were stepped together.
    pub envs: usize,
    /// Threads that stepped them, the calling one included.
    pub threads: usize,
    /// Environment steps a second, all environments together.
    pub steps_per_s: f64,
    /// Median duration of a step of all environments.
    pub p50_us: f64,
    /// 99th percentile of it.
    pub p99_us: f64,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum EnvBenchError {
    /// A setting makes no sense.
    #[error("--{name} is {value}; it must be {expected}")]
    Setting {
        /// The flag.
        name: &'static str,
        /// What came.
        value: f64,
        /// What it may be.
        expected: &'static str,
    },
    /// The environment could not be made or stepped.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// What was read is no window, or nobody reads the answer.
    #[error("bench env --serve: {0}")]
    Output(#[from] std::io::Error),
}

/// Actions of one step of all environments.
enum Chosen {
    Discrete(Vec<i64>),
    Box(Vec<f32>),
    MultiBinary(Vec<bool>),
}

impl Chosen {
    fn draw(spec: &EnvSpec, envs: usize, rng: &mut Rng) -> Self {
        match &spec.action {
            Space::Discrete { n } => {
                Chosen::Discrete((0..envs).map(|_| rng.random_range(0..*n as i64)).collect())
            }
            Space::Box { low, high, .. } => {
                let value = |(low, high): (&f32, &f32)| {
                    let (low, high) = (low.max(-1e3), high.min(1e3));
                    low + (high - low) * rng.random::<f32>()
                };
                let bounds = low.iter().zip(high).cycle().take(envs * low.len());
                Chosen::Box(bounds.map(value).collect())
            }
            Space::MultiBinary { n } => Chosen::MultiBinary((0..envs * n).map(|_| rng.random()).collect()),
        }
    }

    fn actions(&self) -> Actions<'_> {
        match self {
            Chosen::Discrete(actions) => Actions::Discrete(actions),
            Chosen::Box(values) => Actions::Box(values),
            Chosen::MultiBinary(switches) => Actions::MultiBinary(switches),
        }
    }
}

/// Environments under way, with their next actions.
struct Running {
    envs: VecEnv,
    chosen: Vec<Chosen>,
    next: usize,
    /// Steps between two looks at the clock.
    at_once: u32,
}

/// What a window came to.
struct Window {
    steps_per_s: f64,
    durations: Durations,
}

impl EnvBench {
    /// Measures.
    ///
    /// # Errors
    /// [`EnvBenchError::Setting`] for settings that make no sense, [`EnvBenchError::Env`] when the environment is unknown or fails.
    pub fn run(&self) -> Result<EnvReport, EnvBenchError> {
        let refuse = |name, value, expected| Err(EnvBenchError::Setting { name, value, expected });
        if !(self.seconds > 0.0 && self.seconds <= 1e6) {
            return refuse("seconds", self.seconds, "greater than 0 and at most a million");
        }
        if self.repeats < MIN_REPEATS {
            return refuse("repeats", self.repeats as f64, "at least 5");
        }
        let mut running = self.start()?;
        let window = Duration::from_secs_f64(self.seconds / self.repeats as f64);
        let windows: Result<Vec<Window>, EnvError> =
            (0..self.repeats).map(|_| running.window(window)).collect();
        let median = median_by(windows?, |window| window.steps_per_s);
        Ok(EnvReport {
            env: self.env.clone(),
            envs: self.envs,
            threads: running.envs.threads(),
            steps_per_s: median.steps_per_s,
            p50_us: median.durations.quantile_us(0.5),
            p99_us: median.durations.quantile_us(0.99),
        })
    }

    /// Says `ready VERSION`, and then answers each line `window SECONDS` of `input` with steps a second and the median duration
    /// of a step of all environments in µs, until it ends: how benches/envs takes turns with other libraries.
    ///
    /// # Errors
    /// As [`run`](EnvBench::run), and [`EnvBenchError::Output`] when a line is something else or an answer cannot be written.
    pub fn serve(&self, input: impl BufRead, mut output: impl Write) -> Result<(), EnvBenchError> {
        let mut running = self.start()?;
        writeln!(output, "ready {}", env!("CARGO_PKG_VERSION"))?;
        output.flush()?;
        for line in input.lines() {
            let line = line?;
            let seconds = line.strip_prefix("window ").and_then(|seconds| seconds.parse().ok());
            let Some(seconds) = seconds.filter(|seconds: &f64| *seconds > 0.0 && *seconds < 1e6) else {
                let why = format!("expected a line 'window SECONDS', got {line:?}");
                return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why).into());
            };
            let window = running.window(Duration::from_secs_f64(seconds))?;
            writeln!(output, "{} {}", window.steps_per_s, window.durations.quantile_us(0.5))?;
            output.flush()?;
        }
        Ok(())
    }

    /// Environments with a few steps behind them.
    fn start(&self) -> Result<Running, EnvBenchError> {
        let mut envs = VecEnv::make(&self.env, self.envs)?.with_threads(self.threads)?;
        envs.reset(0)?;
        let mut rng = Rng::seed_from_u64(0);
        let chosen = (0..DRAWN).map(|_| Chosen::draw(envs.spec(), self.envs, &mut rng)).collect();
        let mut running = Running { envs, chosen, next: 0, at_once: 1 };
        let begin = Instant::now();
        let mut steps = 0;
        while begin.elapsed() < LOOK * 20 {
            running.step()?;
            steps += 1;
        }
        let seconds_a_step = begin.elapsed().as_secs_f64() / f64::from(steps);
        running.at_once = ((LOOK.as_secs_f64() / seconds_a_step) as u32).clamp(1, MOST_AT_ONCE);
        Ok(running)
    }
}

impl Running {
    fn step(&mut self) -> Result<(), EnvError> {
        self.next = (self.next + 1) % self.chosen.len();
        self.envs.step(self.chosen[self.next].actions())?;
        black_box(self.envs.observations());
        Ok(())
    }

    /// Steps for the time of `window`. One step of each handful is timed by itself, since reading the clock takes as long as
    /// a cheap environment's step.
    fn window(&mut self, window: Duration) -> Result<Window, EnvError> {
        let (mut durations, mut steps) = (Durations::default(), 0u64);
        let begin = Instant::now();
        while begin.elapsed() < window {
            let step = Instant::now();
            self.step()?;
            durations.record(step.elapsed());
            for _ in 1..self.at_once {
                self.step()?;
            }
            steps += u64::from(self.at_once);
        }
        let steps_per_s = (steps * self.envs.len() as u64) as f64 / begin.elapsed().as_secs_f64();
        Ok(Window { steps_per_s, durations })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bench(env: &str, threads: usize) -> EnvBench {
        EnvBench { env: env.to_string(), envs: 8, threads, seconds: 0.02, repeats: MIN_REPEATS }
    }

    #[test]
    fn every_environment_is_measured() {
        for spec in rl_envs::specs() {
            let report = bench(&spec.id, 1).run().unwrap();
            assert!(report.steps_per_s > 0.0 && report.p50_us > 0.0 && report.p50_us <= report.p99_us);
        }
        assert_eq!(bench("CartPole-v1", 3).run().unwrap().threads, 3);
    }

    #[test]
    fn it_takes_turns() {
        let mut said = Vec::new();
        bench("Pendulum-v1", 1).serve(&b"window 0.01\nwindow 0.01\n"[..], &mut said).unwrap();
        let said = String::from_utf8(said).unwrap();
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines[0].starts_with("ready ") && lines.len() == 3, "{said}");
        let numbers =
            lines[1..].iter().flat_map(|line| line.split(' ')).map(|word| word.parse::<f64>().unwrap());
        assert_eq!(numbers.filter(|number| *number > 0.0).count(), 4, "{said}");
        let error = bench("Pendulum-v1", 1).serve(&b"windows\n"[..], Vec::new()).unwrap_err();
        assert!(error.to_string().contains("window SECONDS"), "{error}");
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        assert!(EnvBench { seconds: f64::NAN, ..bench("CartPole-v1", 1) }.run().is_err());
        assert!(EnvBench { repeats: 4, ..bench("CartPole-v1", 1) }.run().is_err());
        assert!(EnvBench { envs: 0, ..bench("CartPole-v1", 1) }.run().is_err());
        assert!(bench("CartPole", 1).run().unwrap_err().to_string().contains("did you mean"));
    }
}
