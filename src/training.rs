//! What a run is to those who conduct it, whether it acts and learns in step or at once, and the accounts that both ways keep.

use crate::async_trainer::AsyncTrainer;
use crate::config::{Config, TrainMode};
use crate::error::{CommandError, Result, usage};
use crate::trainer::Trainer;
use rl_learn::{Agent, Device, Mode, StateError, StateVisitor, Tensor, Update, scalar, value};
use std::collections::VecDeque;

/// Episodes over which the training return is averaged.
const RECENT: usize = 100;

/// A run going on: [`Trainer`] in step, [`AsyncTrainer`] at once.
pub trait Training {
    /// The configuration.
    fn config(&self) -> &Config;

    /// Goes on a little: in step by one step of every environment and the updates that are due after it, at once by one update of the
    /// learner, or a moment of waiting for it, while actors go on.
    ///
    /// # Errors
    /// When an environment, the buffer or libtorch fails, on whichever thread.
    fn step(&mut self) -> Result<()>;

    /// Brings every thread to rest between two steps, so that nothing changes but by this handle, until [`release`](Self::release).
    /// Where there are no threads it does nothing.
    ///
    /// # Errors
    /// Those of [`step`](Self::step), which goes on meanwhile.
    fn hold(&mut self) -> Result<()> {
        Ok(())
    }

    /// Lets them go on.
    fn release(&mut self) {}

    /// Ends: everything rests, and where all environment steps were taken, updates that are still due are made.
    ///
    /// # Errors
    /// Those of [`step`](Self::step).
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }

    /// Something the user should know of how updates are run, told once.
    fn take_warning(&mut self) -> Option<String>;

    /// Bytes that the replay buffer takes once it is full, wherever it is.
    fn replay_bytes(&self) -> u128;

    /// Environment steps taken, all environments together.
    fn env_steps(&self) -> u64;

    /// Updates made.
    fn updates(&self) -> u64;

    /// Episodes ended.
    fn episodes(&self) -> u64;

    /// Mean return and length of the last episodes, 100 at most; `None` before the first has ended.
    fn recent(&self) -> Option<(f64, f64)>;

    /// The agent, for evaluation. Greedy acting changes no state.
    fn agent(&mut self) -> &mut dyn Agent;

    /// Notes an evaluation's mean return, and says whether it is the best so far.
    fn is_best(&mut self, mean_return: f64) -> bool;

    /// The scalars of the last update, read from the device now, and the current values of what anneals.
    fn scalars(&self) -> Vec<(String, f64)>;

    /// What only this way of training has to tell, each with its whole name, since this was asked last.
    fn metrics(&mut self) -> Vec<(String, f64)> {
        Vec::new()
    }

    /// Shows everything that the rest of the run depends on. Threads have to be [held](Self::hold).
    ///
    /// # Errors
    /// Those of the visitor.
    fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError>;
}

/// A run at its beginning, of the mode that is configured.
///
/// # Errors
/// [`CommandError::Usage`] when the configuration is refused.
pub fn begin(config: Config, device: Device) -> Result<Box<dyn Training>> {
    Ok(match config.train.mode {
        TrainMode::InStep => Box::new(Trainer::new(config, device)?),
        TrainMode::Async => Box::new(AsyncTrainer::new(config, device)?),
    })
}

/// The error of a run whose numbers have run away; `sign` is what showed it.
pub fn diverged(sign: &str, env_steps: u64) -> CommandError {
    CommandError::Failed(format!(
        "training has diverged: {sign} at {env_steps} env steps; try a lower learning rate or agent.max_grad_norm"
    ))
}

/// Refuses actions that are not finite.
pub(crate) fn check_actions(actions: &Tensor, env_steps: u64) -> Result<()> {
    if actions.is_floating_point() && actions.isfinite().all().int64_value(&[]) == 0 {
        return Err(diverged("an action is not finite", env_steps));
    }
    Ok(())
}

/// Refuses batches that `agent` cannot learn from.
pub(crate) fn check_batch(config: &Config, agent: &dyn Agent) -> Result<()> {
    let (batch, smallest) = (config.train.batch_size, agent.smallest_batch());
    if batch < smallest {
        return usage(format!("train.batch_size is {batch}; with this agent it must be at least {smallest}"));
    }
    Ok(())
}

/// How to act after so many environment steps.
pub(crate) fn acting_mode(config: &Config, env_steps: u64) -> Mode {
    match env_steps < config.train.random_steps {
        true => Mode::Random,
        false => Mode::Explore { env_steps },
    }
}

/// The episodes that have ended.
#[derive(Debug, Default)]
pub(crate) struct Episodes {
    ended: u64,
    /// Returns and lengths of the last ones.
    recent: VecDeque<(f64, u64)>,
}

impl Episodes {
    pub fn push(&mut self, episode: (f64, u64)) {
        self.ended += 1;
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(episode);
    }

    pub fn ended(&self) -> u64 {
        self.ended
    }

    /// See [`Training::recent`].
    pub fn recent(&self) -> Option<(f64, f64)> {
        let n = self.recent.len() as f64;
        (n > 0.0).then(|| {
            let (returns, lengths) = self.recent.iter().fold((0.0, 0), |(r, l), e| (r + e.0, l + e.1));
            (returns / n, lengths as f64 / n)
        })
    }

    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        scalar(visitor, "episodes", &mut self.ended)?;
        value(visitor, "recent", &mut self.recent)
    }
}

/// What is kept of evaluations and updates.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// The best mean return of an evaluation so far.
    best_return: Option<f64>,
    /// What the last update gave, if it was since the run began or was resumed.
    last_update: Option<Update>,
    /// The scalars of the last update before a resumption.
    resumed_scalars: Vec<(String, f64)>,
}

impl Account {
    pub fn updated(&mut self, update: Update) {
        self.last_update = Some(update);
    }

    /// See [`Training::is_best`].
    pub fn is_best(&mut self, mean_return: f64) -> bool {
        let best = self.best_return.is_none_or(|best| mean_return > best);
        if best {
            self.best_return = Some(mean_return);
        }
        best
    }

    /// See [`Training::scalars`].
    pub fn scalars(&self, config: &Config, agent: &dyn Agent, env_steps: u64) -> Vec<(String, f64)> {
        let schedules = agent.schedules(env_steps).into_iter();
        let mut scalars: Vec<(String, f64)> = schedules.map(|(name, now)| (name.to_string(), now)).collect();
        if config.replay.prioritized {
            scalars.push(("beta".to_string(), config.replay.beta.at(env_steps)));
        }
        scalars.extend(self.update_scalars());
        scalars
    }

    /// The scalars of the last update alone.
    fn update_scalars(&self) -> Vec<(String, f64)> {
        let Some(update) = &self.last_update else { return self.resumed_scalars.clone() };
        update.scalars.iter().map(|(name, tensor)| (name.to_string(), tensor.double_value(&[]))).collect()
    }

    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        value(visitor, "best_return", &mut self.best_return)?;
        // So that a line of metrics that falls due before the next update has them.
        let mut scalars = self.update_scalars();
        value(visitor, "last_update", &mut scalars)?;
        if visitor.loading() {
            (self.last_update, self.resumed_scalars) = (None, scalars);
        }
        Ok(())
    }
}
