//! Acting and learning in step: act, insert, learn, always in that order and on one thread, so that a run is reproducible bit
//! for bit on a CPU and goes on exactly where a checkpoint left it.

use crate::config::Config;
use crate::error::{CommandError, Result};
use crate::replay::Buffer;
use crate::rollout::Rollout;
use crate::training::{Account, Episodes, Training, acting_mode, check_actions, check_batch, diverged};
use crate::wiring::{Stream, build_agent_for, make_envs, rng, spaces};
use rand::Rng as _;
use rl_learn::{Agent, Device, Learner, LearnerError, StateError, StateVisitor, profile, scalar, scope};
use rl_replay::WhenLimited;

/// A run's moving parts and counters.
pub struct Trainer {
    config: Config,
    rollout: Rollout,
    buffer: Buffer,
    agent: Box<dyn Agent>,
    learner: Learner,
    env_steps: u64,
    episodes: Episodes,
    account: Account,
}

impl Trainer {
    /// A run at its beginning.
    ///
    /// # Errors
    /// [`CommandError::Usage`] when the configuration is refused.
    pub fn new(config: Config, device: Device) -> Result<Self> {
        let mut envs = make_envs(&config, config.train.num_envs)?;
        let spaces = spaces(envs.spec())?;
        let agent = build_agent_for(&config, &spaces, device)?;
        check_batch(&config, &*agent)?;
        let buffer = Buffer::new(&config, &spaces)?;
        envs.reset(rng(config.seed, Stream::Envs).next_u64())?;
        let rollout = Rollout::new(&config, envs, &buffer)?;
        let learner = buffer.learner(&config, WhenLimited::Block, device)?;
        Ok(Self {
            rollout,
            buffer,
            agent,
            learner,
            env_steps: 0,
            episodes: Episodes::default(),
            account: Account::default(),
            config,
        })
    }
}

impl Training for Trainer {
    fn config(&self) -> &Config {
        &self.config
    }

    fn step(&mut self) -> Result<()> {
        let mode = acting_mode(&self.config, self.env_steps);
        let actions = profile::time("act", || self.agent.act(&self.rollout.observations(), mode))?;
        check_actions(&actions, self.env_steps)?;
        let actions = profile::time("env", || self.rollout.step(&actions))?;
        let (agent, episodes) = (&mut self.agent, &mut self.episodes);
        let inserting = profile::span("insert");
        let stepped = self.rollout.insert(&actions, |env, episode| {
            episodes.push(episode);
            agent.begin_episode(env);
        })?;
        drop(inserting);

        let before = self.env_steps;
        self.env_steps += stepped;
        let train = &self.config.train;
        let rounds = self.env_steps / train.train_every - before / train.train_every;
        let stored = match self.learner.device_replay() {
            None => self.buffer.len(),
            Some(replay) => {
                replay.take_in().map_err(|e| CommandError::Failed(e.to_string()))?;
                replay.len()
            }
        };
        if self.env_steps > train.random_steps && stored >= train.batch_size {
            let beta = self.config.replay.beta.at(self.env_steps);
            for _ in 0..rounds * train.updates_per_train {
                let update = self.learner.update(&mut *self.agent, beta);
                self.account.updated(update.map_err(|e| match e {
                    LearnerError::Diverged { .. } => diverged(&e.to_string(), self.env_steps),
                    other => CommandError::Failed(other.to_string()),
                })?);
            }
        }
        Ok(())
    }

    fn take_warning(&mut self) -> Option<String> {
        self.learner.take_warning()
    }

    fn replay_bytes(&self) -> u128 {
        self.buffer.bytes() + self.learner.device_bytes() as u128
    }

    fn env_steps(&self) -> u64 {
        self.env_steps
    }

    fn updates(&self) -> u64 {
        self.learner.updates()
    }

    fn episodes(&self) -> u64 {
        self.episodes.ended()
    }

    fn recent(&self) -> Option<(f64, f64)> {
        self.episodes.recent()
    }

    fn agent(&mut self) -> &mut dyn Agent {
        &mut *self.agent
    }

    fn is_best(&mut self, mean_return: f64) -> bool {
        self.account.is_best(mean_return)
    }

    fn scalars(&self) -> Vec<(String, f64)> {
        self.account.scalars(&self.config, &*self.agent, self.env_steps)
    }

    fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        scope(visitor, "agent", |v| self.agent.visit(v))?;
        scope(visitor, "learner", |v| self.learner.visit(v))?;
        scope(visitor, "replay", |v| self.buffer.visit(v))?;
        self.rollout.visit_streams(visitor)?;
        scope(visitor, "trainer", |v| {
            self.rollout.visit_envs(v)?;
            if v.loading() {
                self.rollout.restarted().for_each(|env| self.agent.begin_episode(env));
            }
            scalar(v, "env_steps", &mut self.env_steps)?;
            if v.loading() {
                self.env_steps -= self.rollout.take_forgotten().min(self.env_steps);
            }
            self.episodes.visit(v)?;
            self.account.visit(v)
        })
    }
}
