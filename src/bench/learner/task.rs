//! The learner that is measured: an agent, a full buffer and what draws from it, without an environment.

use super::{Durations, LearnerBench, NetworkKind, UPDATES_BETWEEN_WAITS, failed, timed};
use crate::bench::measure::median_by;
use crate::config::Config;
use crate::error::{CommandError, Result, usage};
use crate::replay::Buffer;
use crate::wiring::{Stream, rng, seen};
use rand::RngExt;
use rl_learn::{ActionSpace, Agent, Device, Dtype, Kind, Learner, Mode, Spaces, Tensor, count_calls, device};
use rl_replay::{TransitionStep, WhenLimited};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// β of the importance weights, where Schaul et al. (2016) begin.
const BETA: f64 = 0.4;
/// What an Atari agent sees, of one image and how many of them.
const IMAGE: [usize; 2] = [84, 84];
const STACK: usize = 4;
/// Of so many rows one ends an episode.
const EPISODE: usize = 200;

/// What one update costs in calls of libtorch's operators and in numbers read from the device.
pub(super) struct Counts {
    pub(super) kernel_calls: u64,
    pub(super) host_syncs: u64,
}

/// A learner with nothing to wait for.
pub(super) struct Task {
    agent: Box<dyn Agent>,
    learner: Learner,
    observation: Tensor,
    hidden: Vec<i64>,
    obs_elements: usize,
    device: Device,
}

impl Task {
    pub(super) fn new(bench: &LearnerBench, device: Device) -> Result<Self> {
        let stack = if bench.network == NetworkKind::NatureCnn { STACK } else { 1 };
        let config = &Config { frame_stack: stack, ..bench.config.clone() };
        let single = spaces(bench)?;
        let spaces = seen(config, &single);
        let algo = rl_agents::algo(&config.algo)
            .ok_or_else(|| CommandError::Usage(format!("unknown algorithm '{}'", config.algo)))?;
        let mut keys = config.agent.clone();
        if bench.network == NetworkKind::NatureCnn {
            // The key by which an algorithm offers a choice of networks.
            let offered = keys.get_mut("network").ok_or_else(|| {
                CommandError::Usage(format!("{} has no nature-cnn here; use --network mlp", config.algo))
            })?;
            *offered = "nature-cnn".into();
        }
        let hidden = keys["hidden"].as_array().into_iter().flatten().filter_map(|width| width.as_i64());
        let hidden: Vec<i64> = hidden.collect();
        let agent = algo.build(keys, &spaces, rng(config.seed, Stream::Agent), device)?;
        let (batch, smallest) = (config.train.batch_size, agent.smallest_batch());
        if batch < smallest {
            return usage(format!("--batch is {batch}; with this agent it must be at least {smallest}"));
        }
        let buffer = Buffer::new(config, &single)?;
        let mut learner = buffer.learner(config, WhenLimited::Block, device)?;
        fill(&buffer, &mut learner, &single, config)?;
        let shape: Vec<i64> = std::iter::once(1).chain(spaces.obs_shape.iter().map(|&d| d as i64)).collect();
        let kind = if spaces.obs_dtype == Dtype::U8 { Kind::Uint8 } else { Kind::Float };
        let observation = Tensor::ones(shape, (kind, Device::Cpu));
        Ok(Self { agent, learner, observation, hidden, obs_elements: spaces.obs_elements(), device })
    }

    /// One whole update.
    fn update(&mut self) -> Result<()> {
        self.learner.update(&mut *self.agent, BETA).map(drop).map_err(failed)
    }

    /// Updates during `window`, notes how long each took, and returns how many there were a second.
    pub(super) fn update_for(&mut self, window: Duration, durations: &mut Durations) -> Result<f64> {
        let together = if self.device == Device::Cpu { 1 } else { UPDATES_BETWEEN_WAITS };
        device::synchronize(self.device);
        let (mut updates, begin) = (0, Instant::now());
        while begin.elapsed() < window {
            let (done, took) = timed(|| {
                (0..together).try_for_each(|_| self.update())?;
                device::synchronize(self.device);
                Ok::<(), CommandError>(())
            });
            done?;
            durations.record(took / together as u32);
            updates += together;
        }
        Ok(updates as f64 / begin.elapsed().as_secs_f64())
    }

    /// The median duration of acting greedily on one observation, of `acts`.
    pub(super) fn act_us(&mut self, acts: usize) -> Result<f64> {
        let mut times = Vec::with_capacity(acts);
        for _ in 0..acts {
            let (action, took) = timed(|| self.agent.act(&self.observation, Mode::Greedy));
            drop(black_box(action?));
            times.push(took.as_secs_f64() * 1e6);
        }
        Ok(median_by(times, |us| *us))
    }

    /// Operator calls and waits of one update.
    pub(super) fn counts(&mut self) -> Result<Counts> {
        let (updated, counts) = count_calls(|| self.update()).map_err(failed)?;
        updated?;
        Ok(Counts { kernel_calls: counts.calls, host_syncs: counts.host_syncs })
    }

    pub(super) fn hidden(&self) -> &[i64] {
        &self.hidden
    }

    pub(super) fn obs_elements(&self) -> usize {
        self.obs_elements
    }

    pub(super) fn device(&self) -> Device {
        self.device
    }

    /// Whether updates are replayed from a captured graph.
    pub(super) fn replays_graph(&self) -> bool {
        self.learner.step().replays() > 0
    }

    /// Where the rows are.
    pub(super) fn replay_device(&mut self) -> String {
        match self.learner.device_replay() {
            Some(_) => device::name(self.device),
            None => "host".to_string(),
        }
    }
}

fn spaces(bench: &LearnerBench) -> Result<Spaces> {
    for (name, value) in [("obs", bench.obs), ("actions", bench.actions)] {
        if !(1..=1 << 20).contains(&value) {
            return usage(format!("--{name} is {value}; it must lie between 1 and 1048576"));
        }
    }
    let (obs_dtype, obs_shape) = match bench.network {
        NetworkKind::Mlp => (Dtype::F32, vec![bench.obs]),
        NetworkKind::NatureCnn => (Dtype::U8, IMAGE.to_vec()),
    };
    let action = match bench.config.algo.as_str() {
        "ddpg" => ActionSpace::Continuous { low: vec![-1.0; bench.actions], high: vec![1.0; bench.actions] },
        _ => ActionSpace::Discrete { n: bench.actions },
    };
    Ok(Spaces { obs_dtype, obs_shape, action })
}

/// Fills the buffer with random transitions of single observations of `spaces`, with random priorities where it keeps any; or the learner's
/// own, whose inlet `buffer` then is.
fn fill(buffer: &Buffer, learner: &mut Learner, spaces: &Spaces, config: &Config) -> Result<()> {
    let mut rng = rng(0, Stream::Envs);
    let mut stream = buffer.stream(config)?;
    let mut ended = true;
    while buffer.inserted() < config.replay.capacity as u64 {
        let mut draw = |dtype: Dtype, elements: usize| -> Vec<u8> {
            match (dtype, &spaces.action) {
                (Dtype::I64, ActionSpace::Discrete { n }) => {
                    rng.random_range(0..*n as i64).to_ne_bytes().to_vec()
                }
                (Dtype::U8, _) => (0..elements).map(|_| rng.random()).collect(),
                _ => (0..elements).flat_map(|_| rng.random_range(-1f32..1.0).to_ne_bytes()).collect(),
            }
        };
        let mut observation = || draw(spaces.obs_dtype, spaces.obs_elements());
        if ended {
            stream.begin(&observation()).map_err(failed)?;
        }
        let next_obs = observation();
        let (dtype, shape) = spaces.action_layout();
        let action = draw(dtype, shape.iter().product());
        ended = rng.random_range(0..EPISODE) == 0;
        let (reward, terminated) = (rng.random_range(-1f32..1.0), ended);
        let step =
            TransitionStep { action: &action, reward, next_obs: &next_obs, terminated, truncated: false };
        stream.step(step).map_err(failed)?;
        if let Some(replay) = learner.device_replay() {
            replay.take_in().map_err(failed)?;
        }
    }
    if let (None, true, Some(transitions)) =
        (learner.device_replay(), config.replay.prioritized, buffer.transitions())
    {
        let keys: Vec<u64> = transitions.live().collect();
        let magnitudes: Vec<f32> = keys.iter().map(|_| rng.random()).collect();
        transitions.sampler().update_priorities(&keys, &magnitudes).map_err(failed)?;
    }
    Ok(())
}
