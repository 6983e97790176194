//! Networks, normalization, optimizers, schedules and the learner, on libtorch: the only crate that names `tch`.
//!
//! The pieces, in the order in which an update meets them:
//!
//! * [`Staging`] holds one batch in fixed memory, on the host and on the device, and hands it out as a [`MiniBatch`];
//! * [`Agent`] is what an algorithm implements: act, update, visit; it builds on [`Mlp`], [`BatchNorm1d`], the losses in
//!   [`loss`], the [`Optimizer`]s, [`Schedule`]s and the target-network updates in [`target`];
//! * [`Learner`] is the machinery around it: sample, stage, update, write priorities back.
//!
//! To act while learning goes on, an agent gives a [`Policy`] to each thread that acts, and [`publish_weights`] keeps them up to date.
//!
//! Beside them, for training that is spread out: a [`Reducer`] sums over ranks, [`GradientBuckets`] are the one place where gradients go
//! through it, and a [`Pipeline`] cuts a model into stages on several devices.
//!
//! Nothing on that path is read back from the device but |δ| of the update before, for the priorities; scalars are tensors until
//! somebody logs them.

mod accumulate;
mod agent;
pub mod amp;
mod calls;
pub mod capture;
mod collated;
mod conv;
mod conv_net;
mod data_parallel;
pub mod device;
pub mod device_replay;
mod init;
mod learner;
mod loader;
pub mod loss;
mod mlp;
mod module;
mod newest;
#[cfg(test)]
mod newest_tests;
mod norm;
mod optim;
pub mod perceptron;
mod pipeline;
pub mod profile;
mod reduce;
mod rnn;
mod schedule;
mod shim;
mod staging;
mod state;
mod sync;
pub mod target;
mod weights;

/// CUDA's streams, events and graphs, where the shim's CUDA half is there ([`available`](cuda::available)).
pub mod cuda {
    pub use crate::shim::cuda::{Event, Graph, Pool, Stream, available};
}

pub use accumulate::{AccumulateError, Accumulated, Accumulator, SquaredNorms};
pub use agent::{ActionSpace, Agent, AgentError, Mode, Policy, Spaces, Update, Variant, first_line};
pub use calls::{CallCounts, count_calls};
pub use collated::{
    BlockTensors, GraphTensors, NeighborhoodTensors, PackedTensors, PaddedTensors, TensorsError,
};
pub use conv::{Conv2d, Conv2dConfig};
pub use conv_net::{ConvLayer, ConvNet, ConvNetConfig, ImageLayout};
pub use data_parallel::{BUCKET_BYTES, BucketError, GradientBuckets, row_share};
pub use learner::{Learner, LearnerError, LearnerSettings, Precision};
pub use loader::{DeviceEpoch, DeviceLoader, PinnedBatch, PinnedMemory};
pub use mlp::{Activation, Linear, Mlp, MlpConfig};
pub use module::{Module, Role, buffers, gradients, parameters, try_gradients, visit_module, walk_under};
pub use norm::{
    Average, BatchNorm1d, BatchNorm2d, BatchNormConfig, BatchRenorm, GhostBatchNorm, LayerNorm, Moments,
    Phase, RenormConfig, SyncBatchNorm, recompute_statistics, reset_statistics,
};
pub use optim::{
    Ema, Optimizer, OptimizerConfig, OptimizerError, ParamGroup, ParamGroups, clip_norm, clip_value,
    no_decay_on_biases_and_norms,
};
pub use pipeline::{Pipeline, PipelineError, PipelineStep, Stage, StageOf};
pub use reduce::{Alone, Rank, ReduceError, Reducer, Threads, ThreadsError, broadcast_module};
pub use rnn::{Rnn, RnnConfig, RnnError, RnnKind, RnnOutput, RnnState};
pub use schedule::{Anneal, Curve, CyclicMode, Part, ScalingRule, Schedule};
pub use shim::{ShimError, keep_freed_memory};
pub use staging::{MiniBatch, Staging};
pub use state::visit_tensor;
pub use weights::{WeightPublisher, WeightReader, WeightVersion, publish_weights};

// The crates above name what they need of the crates below through here, so that one arrow is enough.
pub use rl_minibatch::{
    Dtype, MemoryState, Piece, Rng, Schema, SchemaError, StateError, StateVisitor, scalar, scope, value,
};
pub use tch::{Device, Kind, TchError, Tensor, no_grad};
