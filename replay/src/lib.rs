//! An experience-replay buffer that threads share, for agents of any make. It needs no libtorch and no framework.
//!
//! # Concept
//!
//! A [`Replay`] buffer holds the newest `capacity` rows of a [`Schema`] in a ring. A row is one transition, with all its
//! fields side by side in memory; it is known by its [`Key`], the serial number of its insertion. Actors insert through
//! [`Writer`]s, learners draw through [`Reader`]s, each thread with a handle of its own:
//!
//! * a row is copied in and out without holding a lock, and is never read half-written; inserting takes no lock at all;
//! * a reader keeps the rows that it copies from being overwritten, without holding up writers, which have a reserve of
//!   slots to go on into;
//! * readers do not wait for each other while they copy;
//! * no row that was acknowledged is lost before `capacity` newer ones are there;
//! * a priority that comes back for a row overwritten meanwhile is recognised by its key, dropped and counted.
//!
//! # Operations
//!
//! | to | call | cost |
//! |---|---|---|
//! | make a buffer | [`Replay::builder`] | memory is reserved, and taken as rows come |
//! | declare a row of your own | [`row!`] | |
//! | know what memory it takes | [`Schema::bytes_for`], [`Builder::memory_bytes`] | |
//! | keep f32 in half the memory | [`Builder::store`] | a conversion of each value, in and out |
//! | insert | [`Writer::push`], [`Writer::push_row`], [`Writer::push_rows`] | a copy, some atomic operations for each call; no lock |
//! | insert steps, and have it chosen how they are stored | [`Transitions`], [`TransitionStream::step`] | two copies, or three |
//! | fold n-step returns first | [`NStep::push`], one for each environment | O(n) |
//! | cut episodes into sequences first | [`Sequences::push`], one for each environment | a copy, twice |
//! | store each frame of stacked images once | [`FrameStream::step`], one for each environment | a copy, twice |
//! | keep episodes together | [`EpisodeWriter::push`], one for each environment | a copy, twice |
//! | draw | [`Reader::sample_into`] | a copy for each row, into memory of the caller's |
//! | draw whole episodes, or windows of them | [`EpisodeReader::sample_episodes`], [`EpisodeReader::sample_windows`] | a copy for each row |
//! | draw transitions with other goals | [`Hindsight::sample_into`] | up to two copies for each row |
//! | correct for priorities | [`importance_weights`] | a power for each row |
//! | hold inserting and drawing to a ratio | [`Builder::rate_limiter`], [`Replay::close`] | a lock for each call |
//! | send priorities back | [`Reader::update_priorities`] | O(log capacity) for each row |
//! | see how full it is, how old and how often used rows are | [`Replay::statistics`], [`Builder::count_draws`] | O(handles); O(capacity) with draws counted |
//! | keep the best rows, or use each a few times | [`SelectiveReplay::builder`] | an allocation and a lock for each row |
//! | save to a file and load from it | [`Replay::save`], [`Replay::load`], [`FrameReplay::save`], [`FrameReplay::load`], [`SnapshotSeries`] | a copy and a checksum of what is live, or of what is new |
//! | keep rows in a file, more than memory holds | [`Builder::in_file`], [`Replay::flush`] | the page cache's and the disk's |
//! | show the state to a visitor of your own | [`Replay::visit`], [`NStep::visit`] | a copy of what is live |
//! | bring offline data in, take rows out | the module `data`, with the features `npz`, `arrow`, `minari` | a file is read twice |
//!
//! Rows are drawn [uniformly](Uniform), [each at most once in a batch](WithoutReplacement), [in proportion to their
//! priorities](Proportional), [by the rank of their priorities](RankBased), [the newest more often](Recent), [the newest
//! always](Combined), or by a [`Sampler`] of your own; a [`Mixture`] makes batches of several buffers. Randomness comes from a generator that the caller passes in, so that a run on one thread can be repeated.
//!
//! A [`SelectiveReplay`] removes rows one by one, in any order: the least of their priorities first, or each after some
//! draws; it is a queue as well.
//!
//! What cannot be stored is refused with an error that names the row and the column, and the buffer stays as it was.
//!
//! # Example
//!
//! ```
//! use rand::SeedableRng;
//! use rl_replay::{
//!     Batch, Drawn, Dtype, NStep, Prioritized, Replay, Rng, Schema, Step, WeightNorm, importance_weights,
//! };
//!
//! // Transitions of four floats and a discrete action; the newest 10,000 are kept.
//! let schema = Schema::transition((Dtype::F32, &[4]), (Dtype::I64, &[]))?;
//! let replay = Replay::builder(schema.clone()).capacity(10_000).prioritized(Prioritized::default()).build()?;
//!
//! // An actor, on a thread of its own or not: three-step returns, discounted by 0.99.
//! let mut writer = replay.writer();
//! let mut n_step = NStep::new(3, 0.99, &schema)?;
//! for t in 0..100i64 {
//!     let (obs, next_obs) = ([t as f32; 4], [(t + 1) as f32; 4]);
//!     n_step.push(
//!         Step {
//!             obs: bytemuck::cast_slice(&obs),
//!             action: &(t % 2).to_ne_bytes(),
//!             reward: 1.0,
//!             next_obs: bytemuck::cast_slice(&next_obs),
//!             terminated: t == 99,
//!             truncated: false,
//!         },
//!         &mut writer,
//!     )?;
//! }
//!
//! // A learner: its batch and its lists are made once and used again and again.
//! let mut sampler = replay.sampler();
//! let mut rng = Rng::seed_from_u64(0);
//! let (mut batch, mut drawn) = (Batch::new(&schema, 32), Drawn::default());
//! let mut weights = [0f32; 32];
//!
//! sampler.sample_into(&mut rng, 32, &mut batch.view_mut(), &mut drawn)?;
//! importance_weights(&drawn, 0.4, WeightNorm::BatchMax, &mut weights);
//! let (reward, discount) = (batch.typed::<f32>("reward")?, batch.typed::<f32>("discount")?);
//! // Here the learner makes δ = reward + discount · V(next_obs) − Q(obs, action), and weighs its loss.
//! let magnitudes: Vec<f32> = reward.iter().zip(discount).map(|(r, d)| (r + d * 0.5).abs()).collect();
//! sampler.update_priorities(&drawn.rows, &magnitudes)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/embed.rs` is a whole agent: two actor threads, a learner, and a table of action values.
//!
//! # Inside
//!
//! `control.rs` is the protocol that says who may touch which slot; `ring.rs` is the memory under it, and with `copy.rs`
//! all of the crate's unsafe code. `tests/model.rs` runs these sources under a scheduler that explores interleavings.

mod buffer;
mod builder;
#[cfg(test)]
mod builder_tests;
mod combined;
mod control;
#[cfg(test)]
mod control_tests;
mod copy;
mod counters;
#[cfg(any(feature = "npz", feature = "arrow", feature = "minari"))]
pub mod data;
mod episode;
mod episode_index;
mod episode_reader;
mod error;
mod file;
mod frames;
mod half_float;
mod hindsight;
mod layout;
mod limiter;
mod mapped;
mod memory;
mod mixture;
mod narrow;
mod nstep;
mod power_sums;
mod proportional;
mod rank;
mod ranking;
mod reader;
mod recent;
mod recording;
mod ring;
mod selective;
mod sequence;
mod snapshot;
mod statistics;
mod sum_tree;
mod sync;
mod transitions;
mod writer;
mod zeroed;

pub use buffer::Replay;
pub use builder::Builder;
pub use combined::Combined;
pub use episode::{EPISODE_LEFT, EPISODE_STEP, EpisodeWriter};
pub use episode_reader::{DrawnEpisodes, EpisodeReader};
pub use error::ReplayError;
pub use file::{
    Compression, Durable, Snapshot, SnapshotError, SnapshotOptions, SnapshotPart, SnapshotSeries,
};
pub use frames::{FrameBuilder, FramePadding, FrameReader, FrameReplay, FrameStep, FrameStream};
pub use hindsight::{Goals, Hindsight, HindsightSpec, HindsightStrategy};
pub use limiter::{RateLimiter, WhenLimited};
pub use mapped::BufferFileError;
pub use mixture::{Mixed, MixedPart, Mixture};
pub use nstep::{NStep, Step};
pub use proportional::{Prioritized, Proportional};
pub use rank::RankBased;
pub use reader::{Pinned, Reader};
pub use recent::{Phases, Recent, RecentSettings};
pub use rl_minibatch::{
    Batch, BatchError, BatchMut, Drawn, Dtype, Element, Field, MemoryState, Piece, Priorities, Rng, Row,
    RowField, SampleError, Sampler, Schema, SchemaError, StateError, StateVisitor, Uniform, Updated,
    WeightNorm, WithoutReplacement, check_magnitudes, importance_weights, row, scalar, scope, slice, value,
};
pub use selective::{
    Removal, Selection, SelectiveBuilder, SelectiveReader, SelectiveReplay, SelectiveStatistics,
    SelectiveWriter,
};
pub use sequence::{SequenceEnd, SequenceSpec, Sequences, sequence_priority};
pub use statistics::{Histogram, Statistics, TimesSampled};
pub use transitions::{
    NextObs, ObsView, ObsViews, TransitionReader, TransitionStep, TransitionStream, Transitions,
    TransitionsBuilder,
};
pub use writer::Writer;

/// The key of a row: its insertion serial, counted from 0. Keys never repeat, so a priority that comes for a row that
/// has been overwritten is recognised.
pub type Key = u64;
