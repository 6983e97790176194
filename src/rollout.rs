//! Environments that are being stepped, and the way of what they give into the buffer.

use crate::config::Config;
use crate::error::{CommandError, Result};
use crate::evaluation::step;
use crate::replay::{Buffer, Stream};
use crate::stacks::{Stacks, bytes, row};
use rl_envs::VecEnv;
use rl_learn::{StateError, StateVisitor, Tensor, scope, value};
use rl_replay::TransitionStep;

/// Some environments, stepped by one thread: their episodes in progress, what the agent sees of them, and their streams into the buffer.
pub struct Rollout {
    envs: VecEnv,
    stacks: Stacks,
    streams: Vec<Stream>,
    /// What rewards are cut to on their way into the buffer.
    clip: Option<f64>,
    /// Return and length of each environment's episode in progress.
    open: Vec<(f64, u64)>,
    /// See [`take_forgotten`](Self::take_forgotten).
    forgotten: u64,
}

impl Rollout {
    /// Of `envs`, which have been reset, into `buffer`.
    ///
    /// # Errors
    /// [`CommandError::Usage`] when the n-step settings are refused; [`CommandError::Failed`] when the buffer refuses an observation.
    pub fn new(config: &Config, envs: VecEnv, buffer: &Buffer) -> Result<Self> {
        let mut stacks = Stacks::new(envs.spec(), envs.len(), config.frame_stack);
        stacks.begin_all(&envs);
        let streams = (0..envs.len()).map(|_| buffer.stream(config)).collect::<Result<_>>()?;
        let mut rollout = Self {
            streams,
            stacks,
            clip: (config.train.clip_reward > 0.0).then_some(config.train.clip_reward),
            open: vec![(0.0, 0); envs.len()],
            forgotten: 0,
            envs,
        };
        (0..rollout.len()).try_for_each(|env| rollout.begin(env))?;
        Ok(rollout)
    }

    /// How many environments there are.
    #[expect(clippy::len_without_is_empty, reason = "there is always at least one")]
    pub fn len(&self) -> usize {
        self.envs.len()
    }

    /// What to act on, `[E, …]`, on the CPU.
    pub fn observations(&self) -> Tensor {
        self.stacks.observations(self.envs.observations())
    }

    /// Steps every environment with `actions`; gives the actions' bytes for [`insert`](Self::insert), which has to follow.
    ///
    /// # Errors
    /// When an environment refuses its action.
    pub fn step(&mut self, actions: &Tensor) -> Result<Vec<u8>> {
        let actions = step(&mut self.envs, actions)?;
        self.stacks.follow(&self.envs);
        Ok(actions)
    }

    /// Folds the step that was just made into rows of the buffer. `ended` hears of each environment whose episode ended, with the episode's
    /// return and length. Gives how many environments were stepped: not all, where some only began their next episode.
    ///
    /// # Errors
    /// When the buffer refuses a row, or is closed.
    pub fn insert(&mut self, actions: &[u8], mut ended: impl FnMut(usize, (f64, u64))) -> Result<u64> {
        let n = self.envs.len();
        let mut stepped = 0;
        let action_bytes = actions.len() / n;
        for env in 0..n {
            if self.envs.skipped(env) {
                // What the old episode ended with is no observation of the one that begins here.
                self.begin(env)?;
                continue;
            }
            stepped += 1;
            let outcome = self.envs.outcomes()[env];
            let reward = self.clip.map_or(outcome.reward, |clip| outcome.reward.clamp(-clip, clip));
            let transition = TransitionStep {
                action: &actions[env * action_bytes..][..action_bytes],
                reward: reward as f32,
                // The observation that the step itself led to, also where a new episode has begun since.
                next_obs: bytes(self.envs.next_observation(env)),
                terminated: outcome.terminated,
                truncated: outcome.truncated,
            };
            self.streams[env].step(transition).map_err(|e| at(env, &e))?;
            self.open[env].0 += outcome.reward;
            self.open[env].1 += 1;
            if outcome.ended() {
                self.begin(env)?;
                ended(env, std::mem::take(&mut self.open[env]));
            }
        }
        Ok(stepped)
    }

    /// Tells an environment's stream of the observation that its episode has begun with.
    fn begin(&mut self, env: usize) -> Result<()> {
        let shown = self.envs.observations();
        let each = bytes(shown).len() / self.envs.len();
        self.streams[env].begin(row(shown, env, each)).map_err(|e| at(env, &e))
    }

    /// Steps that were made and are no rows yet: they wait for their n-th successor.
    pub fn open_steps(&self) -> u64 {
        self.streams.iter().map(|stream| stream.open_steps() as u64).sum()
    }

    /// Shows the streams, as `stream.0`, `stream.1`, ….
    ///
    /// # Errors
    /// Those of the visitor.
    pub fn visit_streams(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        for (i, stream) in self.streams.iter_mut().enumerate() {
            scope(visitor, &format!("stream.{i}"), |v| stream.visit(v))?;
        }
        Ok(())
    }

    /// Shows the environments and their episodes in progress.
    ///
    /// # Errors
    /// Those of the visitor, and [`StateError::Invalid`] for the state of other environments.
    pub fn visit_envs(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let mut envs = self.envs.save();
        visitor.bytes("envs", &mut envs)?;
        if visitor.loading() {
            let invalid =
                |e: rl_envs::EnvError| StateError::Invalid { path: "envs".into(), why: e.to_string() };
            self.envs.load(&envs).map_err(invalid)?;
        }
        self.stacks.visit(visitor)?;
        value(visitor, "open", &mut self.open)?;
        if visitor.loading() {
            self.begin_restarted()
                .map_err(|e| StateError::Invalid { path: "envs".into(), why: e.to_string() })?;
        }
        Ok(())
    }

    /// Lets go of the episodes that environments could not go on with when they were loaded, and with them of steps that were still to become rows.
    fn begin_restarted(&mut self) -> Result<()> {
        for env in 0..self.envs.len() {
            if self.envs.restarted()[env] {
                self.forgotten += self.streams[env].open_steps() as u64;
                self.begin(env)?;
                let shown = self.envs.observations();
                self.stacks.begin(env, row(shown, env, bytes(shown).len() / self.envs.len()));
                self.open[env] = (0.0, 0);
            }
        }
        Ok(())
    }

    /// The environments whose episode could not be gone on with when they were loaded, and which have begun another.
    pub fn restarted(&self) -> impl Iterator<Item = usize> {
        self.envs.restarted().iter().enumerate().filter(|(_, restarted)| **restarted).map(|(env, _)| env)
    }

    /// Steps that became no rows because their episode could not be gone on with after loading, since this was asked last: as if they had not
    /// been made.
    pub fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.forgotten)
    }
}

fn at(env: usize, error: &dyn std::fmt::Display) -> CommandError {
    CommandError::Failed(format!("environment {env}: {error}"))
}
