//! An update step that is captured once and replayed.
//!
//! A small update on a GPU is bound by the launches of its kernels: a CUDA graph launches all of them at once. [`CapturedStep`] runs a step as
//! it is a few times, captures it, and replays it from then on, with the same results.
//!
//! What a step may do is what [`Agent::update`](crate::Agent::update) says: read and write tensors at fixed addresses, read nothing back, change
//! nothing on the host. What changes from update to update (learning rates, β, step counts, random numbers) is read from device tensors that the
//! host's half writes before. Steps that launch other operations (a hard target update) are other [`StepKey`]s, each with a graph of its own.

mod graph;
mod stand_in;

pub use stand_in::StandIn;

use crate::agent::{AgentError, Update, Variant};
use graph::CudaRecorder;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Device;

/// Runs of a step as it is before it is captured: libraries make their workspaces and choose their algorithms in the first.
pub const WARM_UPS: u32 = 3;

/// Whether updates on a GPU are captured as CUDA graphs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CudaGraph {
    /// On a GPU, where it is possible.
    #[default]
    Auto,
    /// On a GPU; everywhere else it is an error.
    On,
    /// Never.
    Off,
}

/// Which graph: a step's variant, and which of the learner's batch memories it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepKey {
    /// The agent's.
    pub variant: Variant,
    /// The batch memory, 0 where there is one.
    pub lane: u8,
}

/// The work of an update: everything between its host's half and its outputs.
pub type Step<'a> = &'a mut dyn FnMut() -> Result<Update, AgentError>;

/// What records steps: CUDA, or a stand-in for it.
pub trait Recorder: Send + std::fmt::Debug {
    /// Runs `step` as it will be recorded.
    ///
    /// # Errors
    /// Those of `step` and of the device.
    fn warm_up(&mut self, step: Step<'_>) -> Result<Update, AgentError>;

    /// Records `step`, which has no effect yet.
    ///
    /// # Errors
    /// Why it cannot be recorded, in one line; nothing has changed then.
    fn record(&mut self, step: Step<'_>) -> Result<Box<dyn Recorded>, String>;
}

/// A recorded step.
pub trait Recorded: Send + std::fmt::Debug {
    /// Runs what was recorded. Its outputs are the same memory each time, and hold until another recorded step runs. `step` is for a stand-in, which has to do the work itself.
    ///
    /// # Errors
    /// Those of the device.
    fn replay(&mut self, step: Step<'_>) -> Result<&Update, AgentError>;
}

/// Runs a step, and captures and replays it where that is possible. See the [module](self).
#[derive(Debug)]
pub struct CapturedStep {
    recorder: Option<Box<dyn Recorder>>,
    graphs: Vec<(StepKey, Stage)>,
    replays: u64,
    /// Why steps are not captured, not yet told.
    warning: Option<String>,
}

#[derive(Debug)]
enum Stage {
    Warming(u32),
    Recorded(Box<dyn Recorded>),
}

impl CapturedStep {
    /// Steps on `device`, captured as `choice` says.
    ///
    /// # Errors
    /// One line, when `choice` is [`CudaGraph::On`] and there can be none: on a CPU, or without the CUDA half of the shim.
    pub fn new(choice: CudaGraph, device: Device) -> Result<Self, String> {
        let Device::Cuda(index) = device else {
            return match choice {
                CudaGraph::On => Err(
                    "learner.cuda_graph is \"on\" and the learner's device is the CPU, which has no CUDA graphs; use \"auto\" or \"off\", or a CUDA device"
                        .to_string(),
                ),
                _ => Ok(Self::eager()),
            };
        };
        if choice == CudaGraph::Off {
            return Ok(Self::eager());
        }
        match CudaRecorder::new(index) {
            Ok(recorder) => Ok(Self::with_recorder(Box::new(recorder))),
            Err(why) if choice == CudaGraph::On => Err(format!(
                "learner.cuda_graph is \"on\" and CUDA graphs cannot be had: {}; use \"auto\" or \"off\"",
                line(&why.0)
            )),
            Err(why) => {
                let mut eager = Self::eager();
                eager.give_up(&why.0);
                Ok(eager)
            }
        }
    }

    /// Steps that run as they are.
    pub fn eager() -> Self {
        Self { recorder: None, graphs: Vec::new(), replays: 0, warning: None }
    }

    /// Steps that `recorder` records.
    pub fn with_recorder(recorder: Box<dyn Recorder>) -> Self {
        Self { recorder: Some(recorder), ..Self::eager() }
    }

    /// Whether steps are captured, or will be after their warm-up.
    pub fn captures(&self) -> bool {
        self.recorder.is_some()
    }

    /// Steps that were replayed.
    pub fn replays(&self) -> u64 {
        self.replays
    }

    /// Why steps run as they are although they were to be captured, told once.
    pub fn take_warning(&mut self) -> Option<String> {
        self.warning.take()
    }

    fn give_up(&mut self, why: &str) {
        self.recorder = None;
        // Graphs hold memory; what they wrote has its own handles.
        self.graphs.clear();
        self.warning = Some(format!("updates run without a CUDA graph: {}", line(why)));
    }

    /// Runs `step`, which is always the same work for one `key`: the first [`WARM_UPS`] times as it is, then from its graph. Each call is
    /// one step, whichever way. When the capture fails, the step and all to come run as they are, and [`take_warning`](Self::take_warning)
    /// says why.
    ///
    /// The outputs of a replayed step are overwritten by the next one, of whichever key: who keeps them copies them.
    ///
    /// # Errors
    /// Those of `step` and of the device.
    pub fn run(&mut self, key: StepKey, step: Step<'_>) -> Result<Update, AgentError> {
        let Some(recorder) = &mut self.recorder else { return step() };
        let at = self.graphs.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
            self.graphs.push((key, Stage::Warming(0)));
            self.graphs.len() - 1
        });
        let stage = &mut self.graphs[at].1;
        if let Stage::Warming(runs) = stage {
            if *runs < WARM_UPS {
                *runs += 1;
                return recorder.warm_up(step);
            }
            match recorder.record(step) {
                Ok(recorded) => *stage = Stage::Recorded(recorded),
                Err(why) => {
                    self.give_up(&why);
                    return step();
                }
            }
        }
        let Stage::Recorded(recorded) = stage else { unreachable!("it was recorded just now") };
        self.replays += 1;
        let outputs = recorded.replay(step)?;
        Ok(handles(outputs))
    }
}

/// Handles to the same tensors.
fn handles(update: &Update) -> Update {
    Update {
        td_error: update.td_error.shallow_clone(),
        scalars: update.scalars.iter().map(|(name, tensor)| (*name, tensor.shallow_clone())).collect(),
    }
}

fn line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::graph::quietly;
    use super::*;
    use tch::{Kind, Tensor};

    const KEY: StepKey = StepKey { variant: Variant(0), lane: 0 };
    const OTHER: StepKey = StepKey { variant: Variant(1), lane: 0 };

    /// A step that adds to a counter and gives it.
    fn counting(count: &Tensor) -> impl FnMut() -> Result<Update, AgentError> {
        let mut count = count.shallow_clone();
        move || {
            let _ = count.g_add_scalar_(1);
            Ok(Update { td_error: count.copy(), scalars: vec![("count", count.sum(Kind::Float))] })
        }
    }

    #[test]
    fn every_call_is_one_step_and_variants_have_their_own_graphs() {
        let mut captured = CapturedStep::with_recorder(Box::new(StandIn::default()));
        let count = Tensor::zeros([2], (Kind::Float, Device::Cpu));
        for i in 1..=10i64 {
            let key = if i % 5 == 0 { OTHER } else { KEY };
            let update = captured.run(key, &mut counting(&count)).unwrap();
            assert_eq!(update.td_error, Tensor::from_slice(&[i as f32; 2]), "step {i}");
        }
        // Eight of one key, three of which were warm-ups; two of the other.
        assert_eq!(captured.replays(), 5);
        assert!(captured.captures() && captured.take_warning().is_none());
    }

    #[test]
    fn outputs_of_a_replay_are_the_same_memory_each_time() {
        let mut captured = CapturedStep::with_recorder(Box::new(StandIn::default()));
        let count = Tensor::zeros([1], (Kind::Float, Device::Cpu));
        (0..WARM_UPS).for_each(|_| drop(captured.run(KEY, &mut counting(&count)).unwrap()));
        let first = captured.run(KEY, &mut counting(&count)).unwrap();
        let second = captured.run(KEY, &mut counting(&count)).unwrap();
        assert_eq!(first.td_error.data_ptr(), second.td_error.data_ptr());
        assert_eq!(first.scalars[0].1.double_value(&[]), 5.0);
    }

    #[test]
    fn a_capture_that_fails_warns_once_and_goes_on() {
        let refusing = StandIn::refusing("operation not permitted when stream is capturing\nbacktrace");
        let mut captured = CapturedStep::with_recorder(Box::new(refusing));
        let count = Tensor::zeros([1], (Kind::Float, Device::Cpu));
        for i in 1..=10 {
            let update = captured.run(KEY, &mut counting(&count)).unwrap();
            assert_eq!(update.td_error.double_value(&[0]), f64::from(i));
        }
        let warning = captured.take_warning().unwrap();
        assert!(warning.contains("not permitted") && !warning.contains('\n'), "{warning}");
        assert!(captured.take_warning().is_none() && !captured.captures());
        assert_eq!(captured.replays(), 0);
    }

    #[test]
    fn panics_and_errors_of_a_step_become_text() {
        let text = quietly(&mut || panic!("first\nsecond")).unwrap_err();
        assert_eq!(text, "first");
        assert_eq!(quietly(&mut || Err(AgentError::Config("no".to_string()))).unwrap_err(), "no");
    }

    #[test]
    fn the_switch_is_refused_where_there_is_no_gpu() {
        let why = CapturedStep::new(CudaGraph::On, Device::Cpu).unwrap_err();
        assert!(why.contains("learner.cuda_graph") && !why.contains('\n'), "{why}");
        for choice in [CudaGraph::Auto, CudaGraph::Off] {
            let mut step = CapturedStep::new(choice, Device::Cpu).unwrap();
            assert!(!step.captures() && step.take_warning().is_none());
        }
    }
}
