//! What a thread that acts owns and does.

use super::gate::Gate;
use crate::config::Config;
use crate::error::{CommandError, Result, panic_text};
use crate::rollout::Rollout;
use crate::training::{Episodes, acting_mode, check_actions};
use parking_lot::Mutex;
use rl_learn::{Mode, Policy, StateError, StateVisitor, WeightReader, scope};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What actors and the learner's thread share. The counters hand nothing else over, so their order does not matter; when all rest the gate
/// has made every change known.
pub(super) struct Shared {
    pub config: Config,
    pub gate: Gate,
    /// Environment steps that an actor has begun.
    claimed: AtomicU64,
    /// Environment steps that were made and are in the buffer, or in an n-step window.
    env_steps: AtomicU64,
    /// Updates that the learner has made.
    pub updates: AtomicU64,
    pub episodes: Mutex<Episodes>,
    pub staleness: Staleness,
}

impl Shared {
    pub fn new(config: Config) -> Self {
        Self {
            config,
            gate: Gate::default(),
            claimed: AtomicU64::new(0),
            env_steps: AtomicU64::new(0),
            updates: AtomicU64::new(0),
            episodes: Mutex::default(),
            staleness: Staleness::default(),
        }
    }

    pub fn env_steps(&self) -> u64 {
        self.env_steps.load(Relaxed)
    }

    /// Goes on from so many environment steps.
    pub fn set_env_steps(&self, env_steps: u64) {
        self.claimed.store(env_steps, Relaxed);
        self.env_steps.store(env_steps, Relaxed);
    }

    /// Lays claim to a step of each of `envs` environments: the count before it, or `None` when the run has all its steps.
    fn claim(&self, envs: u64) -> Option<u64> {
        let env_steps = self.config.env_steps;
        self.claimed
            .fetch_update(Relaxed, Relaxed, |claimed| (claimed < env_steps).then_some(claimed + envs))
            .ok()
    }
}

/// How many updates older than the learner's the weights are that actions were chosen with.
#[derive(Debug, Default)]
pub(super) struct Staleness {
    sum: AtomicU64,
    count: AtomicU64,
    most: AtomicU64,
}

impl Staleness {
    fn note(&self, updates: u64) {
        self.sum.fetch_add(updates, Relaxed);
        self.count.fetch_add(1, Relaxed);
        self.most.fetch_max(updates, Relaxed);
    }

    /// Mean and maximum since this was asked last; `None` when nobody acted.
    pub fn take(&self) -> Option<(f64, f64)> {
        // One after the other, while actors go on: a step may be missing from one of them.
        let [sum, count, most] = [&self.sum, &self.count, &self.most].map(|value| value.swap(0, Relaxed));
        (count > 0).then(|| (sum as f64 / count as f64, most as f64))
    }
}

/// One actor: environments of its own, and a policy with weights of its own.
pub(super) struct Actor {
    pub rollout: Rollout,
    pub policy: Box<dyn Policy>,
    pub weights: WeightReader,
}

/// Why an actor stopped acting.
enum Stopped {
    /// It was asked to.
    Asked,
    /// The run has all its steps.
    Done,
}

impl Actor {
    /// Acts until it is asked to stop, or until no step is left.
    fn act(&mut self, shared: &Shared) -> Result<Stopped> {
        while !shared.gate.asked() {
            let Some(env_steps) = shared.claim(self.rollout.len() as u64) else { return Ok(Stopped::Done) };
            let stepped = self.step(shared, env_steps)?;
            // Steps that were none are given back.
            shared.claimed.fetch_sub(self.rollout.len() as u64 - stepped, Relaxed);
            shared.env_steps.fetch_add(stepped, Relaxed);
        }
        Ok(Stopped::Asked)
    }

    /// One step of each environment, from acting on its observation to its rows. Gives how many were stepped.
    fn step(&mut self, shared: &Shared, env_steps: u64) -> Result<u64> {
        let failed = |e: &dyn std::fmt::Display| CommandError::Failed(e.to_string());
        let mode = acting_mode(&shared.config, env_steps);
        if mode != Mode::Random {
            let updates = self.weights.refresh().map_err(|e| failed(&e))?.updates;
            shared.staleness.note(shared.updates.load(Relaxed).saturating_sub(updates));
        }
        let actions = self.policy.act(&self.rollout.observations(), mode)?;
        check_actions(&actions, env_steps)?;
        let actions = self.rollout.step(&actions)?;
        let policy = &mut self.policy;
        // Waits where the buffer's rate limiter says so.
        self.rollout.insert(&actions, |env, episode| {
            shared.episodes.lock().push(episode);
            policy.begin_episode(env);
        })
    }

    /// Shows streams, environments and exploration. Not the weights: whoever goes on takes the newest there are.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        self.rollout.visit_streams(visitor)?;
        self.rollout.visit_envs(visitor)?;
        scope(visitor, "policy", |v| self.policy.visit(v))?;
        if visitor.loading() {
            self.rollout.restarted().for_each(|env| self.policy.begin_episode(env));
        }
        Ok(())
    }
}

/// What the thread of actor number `index` does: acts, and rests when asked to, with nobody holding the actor meanwhile.
pub(super) fn run(index: usize, actor: &Mutex<Actor>, shared: &Shared) {
    let acting = || -> Result<()> {
        loop {
            match actor.lock().act(shared)? {
                Stopped::Done => return Ok(()),
                Stopped::Asked => {}
            }
            if !shared.gate.rest() {
                return Ok(());
            }
        }
    };
    let result = catch_unwind(AssertUnwindSafe(acting))
        .unwrap_or_else(|panic| Err(CommandError::Failed(panic_text(&*panic))));
    shared.gate.leave(result.map_err(|error| match error {
        CommandError::Usage(text) => CommandError::Usage(format!("actor {index}: {text}")),
        CommandError::Failed(text) => CommandError::Failed(format!("actor {index}: {text}")),
    }));
}
