//! The machinery around an algorithm: draw, stage, update, write priorities back.

use crate::agent::{Agent, AgentError, Update};
use crate::profile;
use crate::staging::Staging;
use rl_minibatch::{
    Drawn, Rng, StateError, StateVisitor, WeightNorm, importance_weights, scalar, scope, value,
};
use rl_replay::{Reader, ReplayError};
use tch::{Device, Kind, Tensor};

/// Draws mini-batches from a replay buffer and lets an [`Agent`] learn from them.
///
/// Priorities go back one update late: those of update k are read from the device after update k + 1 has been handed to it, so the
/// device never waits for the host, and always at that same point, so a run is reproducible.
#[derive(Debug)]
pub struct Learner {
    reader: Reader,
    staging: Staging,
    prioritized: bool,
    drawn: Drawn,
    /// Keys and |δ| of the last update, not yet written back.
    pending: Option<(Vec<u64>, Tensor)>,
    rng: Rng,
    updates: u64,
}

impl Learner {
    /// A learner of batches of `rows` rows from `reader`'s buffer, staged for `device`. `prioritized` says whether the buffer's sampler
    /// keeps priorities; `rng` decides the draws.
    pub fn new(reader: Reader, rows: usize, prioritized: bool, rng: Rng, device: Device) -> Self {
        let staging = Staging::new(reader.schema(), rows, device);
        Self { reader, staging, prioritized, drawn: Drawn::default(), pending: None, rng, updates: 0 }
    }

    /// Updates made.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// One update of `agent`, with importance weights of exponent `beta` if the buffer is prioritized.
    ///
    /// # Errors
    /// When there is nothing to draw from, when libtorch fails, and [`LearnerError::Diverged`] when a temporal-difference error
    /// that should become a priority is not finite.
    pub fn update(&mut self, agent: &mut dyn Agent, beta: f64) -> Result<Update, LearnerError> {
        let sampling = profile::span("sample");
        let rows = self.staging.rows();
        let (mut columns, weight) = self.staging.host_mut();
        self.reader.sample_into(&mut self.rng, rows, &mut columns, &mut self.drawn)?;
        drop(columns);
        if self.prioritized {
            importance_weights(&self.drawn, beta, WeightNorm::BatchMax, weight);
        }
        drop(sampling);
        let batch = profile::time("stage", || self.staging.upload());
        let update = profile::time("update", || agent.learn(batch))?;
        if self.prioritized {
            let _span = profile::span("write-back");
            let next = (self.drawn.rows.clone(), update.td_error.shallow_clone());
            if let Some((keys, td_error)) = self.pending.replace(next) {
                let magnitudes = to_host(&td_error)?;
                if let Some(value) = magnitudes.iter().copied().find(|value| !value.is_finite()) {
                    return Err(LearnerError::Diverged { value });
                }
                self.reader.update_priorities(&keys, &magnitudes)?;
            }
        }
        self.updates += 1;
        Ok(update)
    }

    /// Shows the generator, the count and the priorities on their way. The buffer and the agent are their owners' to show.
    ///
    /// # Errors
    /// Those of the visitor.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        scalar(visitor, "updates", &mut self.updates)?;
        value(visitor, "rng", &mut self.rng)?;
        scope(visitor, "pending", |v| {
            let invalid = |e: tch::TchError| StateError::Invalid {
                path: "pending".to_string(),
                why: crate::first_line(&e),
            };
            let mut pending: Option<(Vec<u64>, Vec<f32>)> = match &self.pending {
                Some((keys, td_error)) => Some((keys.clone(), to_host(td_error).map_err(invalid)?)),
                None => None,
            };
            value(v, "priorities", &mut pending)?;
            if v.loading() {
                self.pending = pending.map(|(keys, td_error)| (keys, Tensor::from_slice(&td_error)));
            }
            Ok(())
        })
    }
}

fn to_host(td_error: &Tensor) -> Result<Vec<f32>, tch::TchError> {
    Vec::<f32>::try_from(td_error.to_kind(Kind::Float).to_device(Device::Cpu))
}

/// Why an update failed.
#[derive(Debug, thiserror::Error)]
pub enum LearnerError {
    /// The buffer refused.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The algorithm failed.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The numbers have run away.
    #[error("a temporal-difference error is {value}")]
    Diverged {
        /// NaN or infinity.
        value: f32,
    },
    /// A read-back failed.
    #[error("libtorch: {}", crate::first_line(.0))]
    Tch(#[from] tch::TchError),
}
