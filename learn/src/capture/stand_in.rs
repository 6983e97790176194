//! A recorder for machines without a GPU.

use super::{Recorded, Recorder, Step};
use crate::agent::{AgentError, Update};
use std::sync::{Arc, Mutex, PoisonError};
use tch::Tensor;

/// Stands in for CUDA where there is none: recording a step runs nothing, and a replay runs it and writes its outputs into the memory of the
/// first replay's, as a graph does; the outputs of all others are spoiled, as they may be where graphs share a pool. So all of a captured
/// step's flow can be run and tested on a CPU.
#[derive(Debug, Default)]
pub struct StandIn {
    /// What recording fails with, if it is to.
    pub refuses: Option<String>,
    /// Of all recorded steps.
    outputs: Arc<Mutex<Vec<Tensor>>>,
}

impl StandIn {
    /// One that cannot record, for this reason.
    pub fn refusing(why: impl Into<String>) -> Self {
        Self { refuses: Some(why.into()), ..Self::default() }
    }
}

impl Recorder for StandIn {
    fn warm_up(&mut self, step: Step<'_>) -> Result<Update, AgentError> {
        step()
    }

    fn record(&mut self, _: Step<'_>) -> Result<Box<dyn Recorded>, String> {
        match self.refuses.clone() {
            Some(why) => Err(why),
            None => Ok(Box::new(StandInRecorded { outputs: None, all: Arc::clone(&self.outputs) })),
        }
    }
}

#[derive(Debug)]
struct StandInRecorded {
    outputs: Option<Update>,
    all: Arc<Mutex<Vec<Tensor>>>,
}

impl Recorded for StandInRecorded {
    fn replay(&mut self, step: Step<'_>) -> Result<&Update, AgentError> {
        let fresh = step()?;
        let tensors = |update: &Update| -> Vec<Tensor> {
            let scalars = update.scalars.iter().map(|(_, tensor)| tensor.shallow_clone());
            std::iter::once(update.td_error.shallow_clone()).chain(scalars).collect()
        };
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        for output in all.iter_mut() {
            let _ = output.f_fill_(f64::NAN)?;
        }
        match &self.outputs {
            None => {
                // The step's own may be somebody else's memory.
                let own = Update {
                    td_error: fresh.td_error.copy(),
                    scalars: fresh.scalars.iter().map(|(name, tensor)| (*name, tensor.copy())).collect(),
                };
                all.extend(tensors(&own));
                self.outputs = Some(own);
            }
            Some(outputs) => {
                for (mut kept, fresh) in tensors(outputs).into_iter().zip(tensors(&fresh)) {
                    kept.f_copy_(&fresh)?;
                }
            }
        }
        Ok(self.outputs.as_ref().expect("set above"))
    }
}
