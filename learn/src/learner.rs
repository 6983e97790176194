//! The machinery around an algorithm: draw, stage, update, write priorities back.

mod host;
mod read_back;

use crate::agent::{Agent, AgentError, Update};
use crate::amp::{self, autocast};
use crate::capture::{CapturedStep, CudaGraph, Recorder, StepKey};
use crate::device_replay::{DeviceReplay, DeviceReplayError};
use crate::profile;
use crate::shim::{ShimError, cuda};
use host::HostSource;
use rl_minibatch::{Rng, StateError, StateVisitor, scalar, scope};
use rl_replay::{ReplayError, TransitionReader};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Device;

/// The type in which networks compute during an update. Parameters, moments and losses are f32 in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32 throughout.
    #[default]
    F32,
    /// f32, but matrix products and convolutions round their inputs to TF32, 10 bits of mantissa: NVIDIA GPUs since Ampere alone.
    Tf32,
    /// Matrix products and convolutions in bfloat16 (autocast), 7 bits of mantissa.
    Bf16,
}

/// How a learner runs its updates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LearnerSettings {
    /// Whether updates are captured as CUDA graphs.
    pub cuda_graph: CudaGraph,
    /// The type in which networks compute.
    pub precision: Precision,
    /// Whether the next batch is drawn and copied while an update trains: `None` does so on a GPU, where there is something to overlap.
    /// Of no meaning where the replay buffer is on the device.
    pub prefetch: Option<bool>,
}

/// Draws mini-batches from a replay buffer and lets an [`Agent`] learn from them.
///
/// From a buffer in the host's memory priorities go back one update late: those of update k are read from the device after update k + 1 has been handed
/// to it, so the device never waits for the host, and always at that same point, so a run is reproducible. With a [`DeviceReplay`] they are
/// written inside the update.
#[derive(Debug)]
pub struct Learner {
    source: Source,
    step: CapturedStep,
    device: Device,
    precision: Precision,
    updates: u64,
}

#[derive(Debug)]
enum Source {
    Host(Box<HostSource>),
    Device(Box<DeviceReplay>),
}

impl Learner {
    /// A learner of batches of `rows` transitions from `reader`'s buffer, staged for `device`, each drawn when it is needed. `prioritized` says
    /// whether the buffer's sampler keeps priorities; `rng` decides the draws.
    pub fn new(reader: TransitionReader, rows: usize, prioritized: bool, rng: Rng, device: Device) -> Self {
        Self::of(Source::Host(Box::new(HostSource::new(reader, rows, prioritized, rng, device))), device)
    }

    /// A learner of batches from a buffer on the learner's device.
    pub fn on_device(replay: DeviceReplay) -> Self {
        let device = replay.device();
        Self::of(Source::Device(Box::new(replay)), device)
    }

    fn of(source: Source, device: Device) -> Self {
        Self { source, step: CapturedStep::eager(), device, precision: Precision::F32, updates: 0 }
    }

    /// The learner with these settings.
    ///
    /// # Errors
    /// One line naming the key of the configuration that cannot be had on this device.
    pub fn with(mut self, settings: &LearnerSettings) -> Result<Self, String> {
        self.step = CapturedStep::new(settings.cuda_graph, self.device)?;
        self.precision = settings.precision;
        let gpu = matches!(self.device, Device::Cuda(_));
        if settings.precision == Precision::Tf32 && !gpu {
            return Err(
                "learner.precision is \"tf32\", which is a format of NVIDIA GPUs, and the learner's device is the CPU; use \"f32\" or \"bf16\""
                    .to_string(),
            );
        }
        if gpu {
            cuda::allow_tf32(settings.precision == Precision::Tf32).map_err(|e| e.to_string())?;
        }
        // Without the CUDA half there is no stream to copy on; `auto` has told of that.
        let prefetch = settings.prefetch.unwrap_or(gpu && cuda::available().is_ok());
        if let (true, Source::Host(host)) = (prefetch, &mut self.source) {
            host.prefetch(self.device).map_err(|e| e.to_string())?;
        }
        Ok(self)
    }

    /// The learner with steps that `recorder` records, in CUDA's stead.
    pub fn with_recorder(mut self, recorder: Box<dyn Recorder>) -> Self {
        self.step = CapturedStep::with_recorder(recorder);
        self
    }

    /// Updates made.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// How updates are run.
    pub fn step(&self) -> &CapturedStep {
        &self.step
    }

    /// Why updates are not captured although they were to be, told once.
    pub fn take_warning(&mut self) -> Option<String> {
        self.step.take_warning()
    }

    /// The buffer, where it is on the learner's device.
    pub fn device_replay(&mut self) -> Option<&mut DeviceReplay> {
        match &mut self.source {
            Source::Host(_) => None,
            Source::Device(replay) => Some(replay),
        }
    }

    /// Bytes of the buffer that is on the learner's device; 0 where it is on the host.
    pub fn device_bytes(&self) -> usize {
        match &self.source {
            Source::Host(_) => 0,
            Source::Device(replay) => replay.memory_bytes(),
        }
    }

    /// One update of `agent`, with importance weights of exponent `beta` if the buffer is prioritized.
    ///
    /// The scalars of a captured update are overwritten by the next one.
    ///
    /// # Errors
    /// When there is nothing to draw from, when libtorch fails, and [`LearnerError::Diverged`] when a temporal-difference error
    /// that should become a priority is not finite (a buffer on the device takes it for 0).
    pub fn update(&mut self, agent: &mut dyn Agent, beta: f64) -> Result<Update, LearnerError> {
        let Self { source, step, device, precision, .. } = self;
        let precision = match precision {
            Precision::Bf16 => amp::Precision::Bf16,
            _ => amp::Precision::F32,
        };
        let update = match source {
            Source::Host(host) => {
                let lane = host.next_batch(beta)?;
                let variant = agent.begin_update();
                let (batch, agent) = (host.batch(lane), &*agent);
                let updating = profile::span("update");
                let update = step.run(StepKey { variant, lane: lane as u8 }, &mut || {
                    in_precision(precision, *device, || agent.update(batch, variant))
                })?;
                drop(updating);
                host.updated(lane, &update.td_error, step.captures(), beta)?;
                update
            }
            Source::Device(replay) => {
                replay.begin(beta)?;
                let variant = agent.begin_update();
                let (replay, agent) = (&*replay, &*agent);
                // Drawing and writing back are parts of the step.
                let _span = profile::span("update");
                step.run(StepKey { variant, lane: 0 }, &mut || {
                    let batch = replay.sample()?;
                    let update = in_precision(precision, *device, || agent.update(batch, variant))?;
                    replay.write_back(&update.td_error)?;
                    Ok(update)
                })?
            }
        };
        self.updates += 1;
        Ok(update)
    }

    /// Shows the generator, the count, the priorities on their way and a batch drawn ahead; and a buffer on the device. A buffer on the
    /// host and the agent are their owners' to show.
    ///
    /// # Errors
    /// Those of the visitor.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        scalar(visitor, "updates", &mut self.updates)?;
        match &mut self.source {
            Source::Host(host) => host.visit(visitor),
            Source::Device(replay) => scope(visitor, "replay", |v| replay.visit(v)),
        }
    }
}

/// f32 is what everything is in anyway, and needs no scope.
fn in_precision<T>(precision: amp::Precision, device: Device, body: impl FnOnce() -> T) -> T {
    match precision {
        amp::Precision::F32 => body(),
        other => autocast(other, device, body),
    }
}

/// Why an update failed.
#[derive(Debug, thiserror::Error)]
pub enum LearnerError {
    /// The buffer refused.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The buffer on the device refused.
    #[error(transparent)]
    DeviceReplay(#[from] DeviceReplayError),
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
    /// A kernel or a copy failed.
    #[error(transparent)]
    Kernel(#[from] ShimError),
}
