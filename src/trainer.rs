//! Acting and learning in step: act, insert, learn, always in that order and on one thread, so that a run is reproducible bit
//! for bit on a CPU and goes on exactly where a checkpoint left it.

use crate::config::Config;
use crate::error::{CommandError, Result, usage};
use crate::evaluation::{observations, step};
use crate::wiring::{Stream, build_agent, build_replay, rng, schema, spaces};
use rand::Rng as _;
use rl_envs::{Obs, VecEnv};
use rl_learn::{
    Agent, Device, Learner, LearnerError, Mode, StateError, StateVisitor, Update, scalar, scope, value,
};
use rl_replay::{NStep, Replay, Step, Writer};
use std::collections::VecDeque;

/// Episodes over which the training return is averaged.
const RECENT: usize = 100;

/// A run's moving parts and counters.
pub struct Trainer {
    config: Config,
    envs: VecEnv,
    n_step: Vec<NStep>,
    replay: Replay,
    writer: Writer,
    agent: Box<dyn Agent>,
    learner: Learner,
    /// Observations acted on, kept while the environments overwrite theirs.
    acted_on: Vec<u8>,
    env_steps: u64,
    episodes: u64,
    /// Return and length of each environment's episode in progress.
    open: Vec<(f64, u64)>,
    /// Returns and lengths of the last episodes that ended.
    recent: VecDeque<(f64, u64)>,
    /// The best mean return of an evaluation so far.
    best_return: Option<f64>,
    /// What the last update gave, if it was since the run began or was resumed.
    last_update: Option<Update>,
    /// The scalars of the last update before a resumption.
    resumed_scalars: Vec<(String, f64)>,
}

impl Trainer {
    /// A run at its beginning.
    ///
    /// # Errors
    /// [`CommandError::Usage`] when the configuration is refused.
    pub fn new(config: Config, device: Device) -> Result<Self> {
        let mut envs = VecEnv::make(&config.env, config.train.num_envs)
            .and_then(|envs| envs.with_threads(config.train.env_threads))
            .map_err(|e| CommandError::Usage(e.to_string()))?;
        let spaces = spaces(envs.spec())?;
        let schema = schema(&spaces)?;
        let agent = build_agent(&config, device)?;
        let (batch, smallest) = (config.train.batch_size, agent.smallest_batch());
        if batch < smallest {
            return usage(format!(
                "train.batch_size is {batch}; with this agent it must be at least {smallest}"
            ));
        }
        let replay = build_replay(&config, schema.clone())?;
        envs.reset(rng(config.seed, Stream::Envs).next_u64())?;
        let n_step = NStep::new(config.replay.n_step, config.replay.gamma, &schema)
            .map_err(|e| CommandError::Usage(format!("replay: {e}")))?;
        let learner = Learner::new(
            replay.sampler(),
            config.train.batch_size,
            config.replay.prioritized,
            rng(config.seed, Stream::Sampling),
            device,
        );
        Ok(Self {
            n_step: vec![n_step; envs.len()],
            writer: replay.writer(),
            replay,
            agent,
            learner,
            acted_on: Vec::new(),
            env_steps: 0,
            episodes: 0,
            open: vec![(0.0, 0); envs.len()],
            recent: VecDeque::with_capacity(RECENT),
            best_return: None,
            last_update: None,
            resumed_scalars: Vec::new(),
            envs,
            config,
        })
    }

    /// One step of every environment, and the updates that are due after it.
    ///
    /// # Errors
    /// When an environment, the buffer or libtorch fails.
    pub fn step(&mut self) -> Result<()> {
        let mode = match self.env_steps < self.config.train.random_steps {
            true => Mode::Random,
            false => Mode::Explore { env_steps: self.env_steps },
        };
        let actions = self.agent.act(&observations(&self.envs), mode)?;
        if actions.is_floating_point() && actions.isfinite().all().int64_value(&[]) == 0 {
            return Err(self.diverged("an action is not finite"));
        }
        self.acted_on.clear();
        self.acted_on.extend_from_slice(obs_bytes(self.envs.observations()));
        let actions = step(&mut self.envs, &actions)?;
        self.insert(&actions)?;

        let before = self.env_steps;
        self.env_steps += self.envs.len() as u64;
        let train = &self.config.train;
        let rounds = self.env_steps / train.train_every - before / train.train_every;
        if self.env_steps > train.random_steps && self.replay.len() >= train.batch_size {
            let beta = self.config.replay.beta.at(self.env_steps);
            for _ in 0..rounds * train.updates_per_train {
                let update = self.learner.update(&mut *self.agent, beta);
                self.last_update = Some(update.map_err(|e| match e {
                    LearnerError::Diverged { .. } => self.diverged(&e.to_string()),
                    other => CommandError::Failed(other.to_string()),
                })?);
            }
        }
        Ok(())
    }

    /// The error of a run whose numbers have run away; `sign` is what showed it.
    pub fn diverged(&self, sign: &str) -> CommandError {
        CommandError::Failed(format!(
            "training has diverged: {sign} at {} env steps; try a lower learning rate or agent.max_grad_norm",
            self.env_steps
        ))
    }

    /// Folds the step that was just made into rows of the buffer, and counts its episodes.
    fn insert(&mut self, actions: &[u8]) -> Result<()> {
        let n = self.envs.len();
        let (obs_bytes_each, action_bytes) = (self.acted_on.len() / n, actions.len() / n);
        for env in 0..n {
            let outcome = self.envs.outcomes()[env];
            let transition = Step {
                obs: &self.acted_on[env * obs_bytes_each..][..obs_bytes_each],
                action: &actions[env * action_bytes..][..action_bytes],
                reward: outcome.reward as f32,
                // The observation that the step itself led to, also where a new episode has begun since.
                next_obs: obs_bytes(self.envs.next_observation(env)),
                terminated: outcome.terminated,
                truncated: outcome.truncated,
            };
            self.n_step[env]
                .push(transition, &mut self.writer)
                .map_err(|e| CommandError::Failed(format!("environment {env}: {e}")))?;
            self.open[env].0 += outcome.reward;
            self.open[env].1 += 1;
            if outcome.ended() {
                self.episodes += 1;
                if self.recent.len() == RECENT {
                    self.recent.pop_front();
                }
                self.recent.push_back(std::mem::take(&mut self.open[env]));
                self.agent.begin_episode(env);
            }
        }
        Ok(())
    }

    /// Environment steps taken, all environments together.
    pub fn env_steps(&self) -> u64 {
        self.env_steps
    }

    /// Updates made.
    pub fn updates(&self) -> u64 {
        self.learner.updates()
    }

    /// Episodes ended.
    pub fn episodes(&self) -> u64 {
        self.episodes
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The agent, for evaluation between steps. Greedy acting changes no state.
    pub fn agent(&mut self) -> &mut dyn Agent {
        &mut *self.agent
    }

    /// Mean return and length of the last episodes, 100 at most; `None` before the first has ended.
    pub fn recent(&self) -> Option<(f64, f64)> {
        let n = self.recent.len() as f64;
        (n > 0.0).then(|| {
            let (returns, lengths) = self.recent.iter().fold((0.0, 0), |(r, l), e| (r + e.0, l + e.1));
            (returns / n, lengths as f64 / n)
        })
    }

    /// Notes an evaluation's mean return, and says whether it is the best so far.
    pub fn is_best(&mut self, mean_return: f64) -> bool {
        let best = self.best_return.is_none_or(|best| mean_return > best);
        if best {
            self.best_return = Some(mean_return);
        }
        best
    }

    /// The scalars of the last update, read from the device now, and the current values of what anneals.
    pub fn scalars(&self) -> Vec<(String, f64)> {
        let mut scalars: Vec<(String, f64)> = self
            .agent
            .schedules(self.env_steps)
            .into_iter()
            .map(|(name, now)| (name.to_string(), now))
            .collect();
        if self.config.replay.prioritized {
            scalars.push(("beta".to_string(), self.config.replay.beta.at(self.env_steps)));
        }
        scalars.extend(self.update_scalars());
        scalars
    }

    /// The scalars of the last update alone.
    fn update_scalars(&self) -> Vec<(String, f64)> {
        let Some(update) = &self.last_update else { return self.resumed_scalars.clone() };
        update.scalars.iter().map(|(name, tensor)| (name.to_string(), tensor.double_value(&[]))).collect()
    }

    /// Shows everything that the rest of the run depends on.
    ///
    /// # Errors
    /// Those of the visitor.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        scope(visitor, "agent", |v| self.agent.visit(v))?;
        scope(visitor, "learner", |v| self.learner.visit(v))?;
        scope(visitor, "replay", |v| self.replay.visit(v))?;
        for (i, n_step) in self.n_step.iter_mut().enumerate() {
            scope(visitor, &format!("n_step.{i}"), |v| n_step.visit(v))?;
        }
        scope(visitor, "trainer", |v| {
            let mut envs = self.envs.save();
            v.bytes("envs", &mut envs)?;
            if v.loading() {
                let invalid =
                    |e: rl_envs::EnvError| StateError::Invalid { path: "envs".into(), why: e.to_string() };
                self.envs.load(&envs).map_err(invalid)?;
            }
            scalar(v, "env_steps", &mut self.env_steps)?;
            scalar(v, "episodes", &mut self.episodes)?;
            value(v, "open", &mut self.open)?;
            value(v, "recent", &mut self.recent)?;
            value(v, "best_return", &mut self.best_return)?;
            // So that a line of metrics that falls due before the next update has them.
            let mut scalars = self.update_scalars();
            value(v, "last_update", &mut scalars)?;
            if v.loading() {
                (self.last_update, self.resumed_scalars) = (None, scalars);
            }
            Ok(())
        })
    }
}

fn obs_bytes(obs: Obs<'_>) -> &[u8] {
    match obs {
        Obs::F32(values) => bytemuck::cast_slice(values),
        Obs::U8(values) => values,
    }
}
