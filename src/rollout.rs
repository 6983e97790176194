//! Environments that are being stepped, and the way of what they give into the buffer.

use crate::config::Config;
use crate::error::{CommandError, Result};
use crate::evaluation::{observations, step};
use rl_envs::{Obs, VecEnv};
use rl_learn::{Schema, StateError, StateVisitor, Tensor, scope, value};
use rl_replay::{NStep, Step, Writer};

/// Some environments, stepped by one thread: their episodes in progress, n-step windows and writer.
pub struct Rollout {
    envs: VecEnv,
    n_step: Vec<NStep>,
    writer: Writer,
    /// Observations acted on, kept while the environments overwrite theirs.
    acted_on: Vec<u8>,
    /// Return and length of each environment's episode in progress.
    open: Vec<(f64, u64)>,
    /// Environments that could not go on with a loaded episode, each with the last observation of it.
    interrupted: Vec<(usize, Vec<u8>)>,
}

impl Rollout {
    /// Of `envs`, which have been reset, into `writer`'s buffer of `schema`.
    ///
    /// # Errors
    /// [`CommandError::Usage`] when the n-step settings are refused.
    pub fn new(config: &Config, envs: VecEnv, schema: &Schema, writer: Writer) -> Result<Self> {
        let n_step = NStep::new(config.replay.n_step, config.replay.gamma, schema)
            .map_err(|e| CommandError::Usage(format!("replay: {e}")))?;
        Ok(Self {
            n_step: vec![n_step; envs.len()],
            writer,
            acted_on: Vec::new(),
            open: vec![(0.0, 0); envs.len()],
            interrupted: Vec::new(),
            envs,
        })
    }

    /// How many environments there are.
    #[expect(clippy::len_without_is_empty, reason = "there is always at least one")]
    pub fn len(&self) -> usize {
        self.envs.len()
    }

    /// What to act on, `[E, …]`, on the CPU.
    pub fn observations(&self) -> Tensor {
        observations(&self.envs)
    }

    /// Steps every environment with `actions`; gives the actions' bytes for [`insert`](Self::insert), which has to follow.
    ///
    /// # Errors
    /// When an environment refuses its action.
    pub fn step(&mut self, actions: &Tensor) -> Result<Vec<u8>> {
        self.acted_on.clear();
        self.acted_on.extend_from_slice(obs_bytes(self.envs.observations()));
        step(&mut self.envs, actions)
    }

    /// Folds the step that was just made into rows of the buffer. `ended` hears of each environment whose episode ended, with the episode's
    /// return and length. Gives how many environments were stepped: not all where some only began their next episode.
    ///
    /// # Errors
    /// When the buffer refuses a row, or is closed.
    pub fn insert(&mut self, actions: &[u8], mut ended: impl FnMut(usize, (f64, u64))) -> Result<u64> {
        let n = self.envs.len();
        let (obs_bytes_each, action_bytes) = (self.acted_on.len() / n, actions.len() / n);
        let refused = |env: usize| move |e| CommandError::Failed(format!("environment {env}: {e}"));
        for (env, last) in self.interrupted.drain(..) {
            self.n_step[env].cut(&last, &mut self.writer).map_err(refused(env))?;
        }
        let mut stepped = 0;
        for env in 0..n {
            if self.envs.skipped(env) {
                continue;
            }
            stepped += 1;
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
            self.n_step[env].push(transition, &mut self.writer).map_err(refused(env))?;
            self.open[env].0 += outcome.reward;
            self.open[env].1 += 1;
            if outcome.ended() {
                ended(env, std::mem::take(&mut self.open[env]));
            }
        }
        Ok(stepped)
    }

    /// Steps that were made and are no rows yet: they wait for their n-th successor.
    pub fn open_steps(&self) -> u64 {
        self.n_step.iter().map(|n_step| n_step.open_steps() as u64).sum()
    }

    /// Shows the n-step windows, as `n_step.0`, `n_step.1`, ….
    ///
    /// # Errors
    /// Those of the visitor.
    pub fn visit_windows(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        for (i, n_step) in self.n_step.iter_mut().enumerate() {
            scope(visitor, &format!("n_step.{i}"), |v| n_step.visit(v))?;
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
        value(visitor, "open", &mut self.open)?;
        if visitor.loading() {
            self.interrupted.clear();
            for env in 0..self.envs.len() {
                if let Some(last) = self.envs.interrupted(env) {
                    // Its n-step window is closed with the next step: here nothing can be inserted.
                    self.interrupted.push((env, obs_bytes(last).to_vec()));
                    self.open[env] = (0.0, 0);
                }
            }
        }
        Ok(())
    }
}

fn obs_bytes(obs: Obs<'_>) -> &[u8] {
    match obs {
        Obs::F32(values) => bytemuck::cast_slice(values),
        Obs::U8(values) => values,
    }
}
