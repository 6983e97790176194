//! Acting and learning at once: actors on threads of their own insert, the learner on the caller's thread draws, and the buffer's rate
//! limiter holds the two together (Reverb's `SampleToInsertRatio`; Cassirer et al. 2021). The scheme of Ape-X (Horgan et al. 2018,
//! *Distributed Prioritized Experience Replay*) in one process.
//!
//! What comes first is up to the machine, so no two runs are the same, nor is a resumed run the same run as one that was never
//! stopped. What does hold, at every checkpoint and so after every resumption, a killed process's too:
//!
//! ```text
//! environment steps = rows inserted + steps in open n-step windows
//! rows drawn        = updates × batch size
//! |(rows inserted − min_size) × samples_per_insert − rows drawn| ≤ error_buffer      (once min_size rows were inserted)
//! ```
//!
//! so no step is lost and none counts twice. A checkpoint is taken with all threads at rest between two steps.

mod actor;
mod gate;

use crate::config::Config;
use crate::error::{CommandError, Result, io};
use crate::replay::{Buffer, rate_limiter};
use crate::rollout::Rollout;
use crate::training::{Account, Training, check_batch, diverged};
use crate::wiring::{Stream, build_agent_for, rng, spaces};
use actor::{Actor, Shared};
use gate::Ask;
use parking_lot::Mutex;
use rand::Rng as _;
use rl_envs::VecEnv;
use rl_learn::{
    Agent, Device, Learner, LearnerError, StateError, StateVisitor, WeightPublisher, publish_weights, scalar,
    scope,
};
use rl_replay::{RateLimiter, ReplayError, Transitions, WhenLimited};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// How long the learner waits for rows before it looks whether something else is to be done.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// A run's moving parts and counters. Dropping it stops and joins its threads.
pub struct AsyncTrainer {
    shared: Arc<Shared>,
    limiter: RateLimiter,
    buffer: Buffer,
    agent: Box<dyn Agent>,
    learner: Learner,
    publisher: WeightPublisher,
    account: Account,
    actors: Vec<Arc<Mutex<Actor>>>,
    /// Of the actors, in their order; empty until the first step.
    threads: Vec<JoinHandle<()>>,
    /// Whether all actors rest until they are released.
    held: bool,
}

impl AsyncTrainer {
    /// A run at its beginning, its environments split among the actors as evenly as can be. No thread runs before the first step.
    ///
    /// # Errors
    /// [`CommandError::Usage`] when the configuration is refused.
    pub fn new(config: Config, device: Device) -> Result<Self> {
        let (envs, actors) = (config.train.num_envs, config.train.actors);
        let share = |actor: usize| {
            let envs = envs / actors + usize::from(actor < envs % actors);
            VecEnv::make(&config.env, envs).map_err(|e| CommandError::Usage(e.to_string()))
        };
        let parts = (0..actors).map(share).collect::<Result<_>>()?;
        Self::with_envs(config, parts, device)
    }

    /// As [`new`](Self::new), with an actor for each of `parts`, which are environments such as the one that is configured. They are
    /// reset here.
    ///
    /// # Errors
    /// [`CommandError::Usage`] when the configuration is refused.
    pub fn with_envs(config: Config, parts: Vec<VecEnv>, device: Device) -> Result<Self> {
        let Some(first) = parts.first() else {
            return Err(CommandError::Usage("async mode needs an actor; raise train.actors".to_string()));
        };
        let spaces = spaces(first.spec())?;
        let agent = build_agent_for(&config, &spaces, device)?;
        check_batch(&config, &*agent)?;
        let buffer = Buffer::new(&config, &spaces)?;
        let learner = buffer.learner(&config, WhenLimited::Timeout(LOOK_AGAIN), device)?;
        // One number for each actor; a VecEnv makes a seed for each environment of it.
        let mut seeds = rng(config.seed, Stream::Envs);
        let mut rollouts = Vec::new();
        for mut envs in parts {
            envs.reset(seeds.next_u64())?;
            rollouts.push(Rollout::new(&config, envs, &buffer)?);
        }
        let exploring = |actor| agent.policy(rng(config.seed, Stream::Actor(actor as u32)));
        let policies = (0..rollouts.len()).map(exploring).collect::<Result<Vec<_>, _>>()?;
        let targets = policies.iter().map(|policy| policy.weights()).collect();
        let (publisher, weights) = publish_weights(agent.acting_weights(), targets, 0)
            .map_err(|e| CommandError::Failed(e.to_string()))?;
        let actors = rollouts
            .into_iter()
            .zip(policies)
            .zip(weights)
            .map(|((rollout, policy), weights)| Arc::new(Mutex::new(Actor { rollout, policy, weights })));
        Ok(Self {
            actors: actors.collect(),
            limiter: rate_limiter(&config),
            shared: Arc::new(Shared::new(config)),
            buffer,
            agent,
            learner,
            publisher,
            account: Account::default(),
            threads: Vec::new(),
            held: false,
        })
    }

    /// The buffer, to be looked at.
    pub fn replay(&self) -> &Transitions {
        self.buffer.transitions().expect("in async mode it is on the host")
    }

    /// Steps that were made and are no rows yet. Waits for actors that act.
    pub fn open_steps(&self) -> u64 {
        self.actors.iter().map(|actor| actor.lock().rollout.open_steps()).sum()
    }

    fn start(&mut self) -> Result<()> {
        // After a resumption the weights are others than those the run was made with.
        self.publish()?;
        for (index, actor) in self.actors.iter().enumerate() {
            let (actor, shared) = (Arc::clone(actor), Arc::clone(&self.shared));
            let thread = Builder::new().name(format!("actor-{index}"));
            let thread = thread.spawn(move || actor::run(index, &actor, &shared));
            self.threads.push(thread.map_err(io("cannot start an actor's thread"))?);
        }
        Ok(())
    }

    fn publish(&mut self) -> Result<()> {
        let published = self.publisher.publish(self.learner.updates());
        published.map(drop).map_err(|e| CommandError::Failed(e.to_string()))
    }

    /// One update, if the rate limiter allows it now or soon. Says whether it was made.
    fn learn(&mut self) -> Result<bool> {
        let beta = self.config().replay.beta.at(self.env_steps());
        match self.learner.update(&mut *self.agent, beta) {
            Ok(update) => self.account.updated(update),
            Err(LearnerError::Replay(ReplayError::TimedOut { .. })) => return Ok(false),
            Err(e @ LearnerError::Diverged { .. }) => return Err(diverged(&e.to_string(), self.env_steps())),
            Err(other) => return Err(CommandError::Failed(other.to_string())),
        }
        let updates = self.learner.updates();
        self.shared.updates.store(updates, Relaxed);
        if updates.is_multiple_of(self.config().train.publish_every) {
            self.publish()?;
        }
        Ok(true)
    }

    /// Passes an actor's failure on.
    fn check(&self) -> Result<()> {
        self.shared.gate.failure().map_or(Ok(()), Err)
    }

    /// Rows that the ratio asks to be drawn: what has been, and what is missing.
    fn due(&self) -> f64 {
        let inserts = self.buffer.inserted() as f64 - self.limiter.min_size as f64;
        inserts.max(0.0) * self.limiter.samples_per_insert
    }

    fn drawn(&self) -> f64 {
        self.learner.updates() as f64 * self.config().train.batch_size as f64
    }

    /// The account of steps, of which none may be lost or be there twice.
    fn check_account(&self) -> Result<(), StateError> {
        let (env_steps, inserted, open) = (self.env_steps(), self.buffer.inserted(), self.open_steps());
        if env_steps == inserted + open {
            return Ok(());
        }
        let why = format!("{env_steps} steps, but {inserted} rows inserted and {open} steps open");
        Err(StateError::Invalid { path: "env_steps".to_string(), why })
    }
}

impl Training for AsyncTrainer {
    fn config(&self) -> &Config {
        &self.shared.config
    }

    fn take_warning(&mut self) -> Option<String> {
        self.learner.take_warning()
    }

    fn step(&mut self) -> Result<()> {
        if self.threads.is_empty() {
            self.start()?;
        }
        self.check()?;
        self.learn()?;
        Ok(())
    }

    fn hold(&mut self) -> Result<()> {
        if self.held || self.threads.is_empty() {
            return Ok(());
        }
        self.shared.gate.ask(Ask::Rest);
        while !self.shared.gate.at_rest(self.threads.len()) {
            self.check()?;
            // An actor that waits to insert its step waits for rows to be drawn.
            self.learn()?;
        }
        self.check()?;
        self.held = true;
        Ok(())
    }

    fn release(&mut self) {
        if std::mem::take(&mut self.held) {
            self.shared.gate.ask(Ask::Go);
        }
    }

    fn finish(&mut self) -> Result<()> {
        self.hold()?;
        let batch = self.config().train.batch_size as f64;
        while self.env_steps() >= self.config().env_steps && self.due() - self.drawn() >= batch {
            if !self.learn()? {
                break;
            }
        }
        Ok(())
    }

    fn replay_bytes(&self) -> u128 {
        self.buffer.bytes()
    }

    fn env_steps(&self) -> u64 {
        self.shared.env_steps()
    }

    fn updates(&self) -> u64 {
        self.learner.updates()
    }

    fn episodes(&self) -> u64 {
        self.shared.episodes.lock().ended()
    }

    fn recent(&self) -> Option<(f64, f64)> {
        self.shared.episodes.lock().recent()
    }

    fn agent(&mut self) -> &mut dyn Agent {
        &mut *self.agent
    }

    fn is_best(&mut self, mean_return: f64) -> bool {
        self.account.is_best(mean_return)
    }

    fn scalars(&self) -> Vec<(String, f64)> {
        self.account.scalars(self.config(), &*self.agent, self.env_steps())
    }

    /// `async/staleness` and `async/staleness_max`: by how many updates the weights that were acted with were behind the learner's, mean
    /// and maximum over the steps that were not random; `async/samples_per_insert`: rows drawn for each one inserted after the first
    /// min_size, from the run's beginning on.
    fn metrics(&mut self) -> Vec<(String, f64)> {
        let mut metrics = Vec::new();
        if let Some((mean, most)) = self.shared.staleness.take() {
            metrics.push(("async/staleness".to_string(), mean));
            metrics.push(("async/staleness_max".to_string(), most));
        }
        let due = self.due();
        if due > 0.0 {
            let ratio = self.drawn() / due * self.limiter.samples_per_insert;
            metrics.push(("async/samples_per_insert".to_string(), ratio));
        }
        metrics
    }

    /// # Errors
    /// Also [`StateError::Invalid`] when actors act, or when steps are missing or there twice.
    fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        if !self.held && !self.threads.is_empty() {
            let why = "its actors are acting; they have to be held".to_string();
            return Err(StateError::Invalid { path: "actor".to_string(), why });
        }
        if !visitor.loading() {
            self.check_account()?;
        }
        scope(visitor, "agent", |v| self.agent.visit(v))?;
        scope(visitor, "learner", |v| self.learner.visit(v))?;
        scope(visitor, "replay", |v| self.buffer.visit(v))?;
        for (index, actor) in self.actors.iter().enumerate() {
            scope(visitor, &format!("actor.{index}"), |v| actor.lock().visit(v))?;
        }
        scope(visitor, "trainer", |v| {
            let mut env_steps = self.env_steps();
            scalar(v, "env_steps", &mut env_steps)?;
            for actor in &self.actors {
                env_steps -= actor.lock().rollout.take_forgotten().min(env_steps);
            }
            self.shared.set_env_steps(env_steps);
            self.shared.updates.store(self.learner.updates(), Relaxed);
            self.shared.episodes.lock().visit(v)?;
            self.account.visit(v)
        })?;
        self.check_account()
    }
}

impl Drop for AsyncTrainer {
    fn drop(&mut self) {
        self.shared.gate.ask(Ask::End);
        // Who waits to insert hears of it.
        self.buffer.close();
        for thread in self.threads.drain(..) {
            // It cannot have panicked: that is caught, and was passed on if it was before the end.
            let _ = thread.join();
        }
    }
}
