//! Weights on their way from the learner to those who act: snapshots, published without waiting for anybody.

use crate::newest::{Publisher, Subscriber, newest};
use crate::shim::{self, ShimError};
use tch::{Device, Tensor, no_grad};

/// Which snapshot of the weights somebody acts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WeightVersion {
    /// The number of the snapshot, counted from 0.
    pub version: u64,
    /// Updates that the learner had made when it was taken.
    pub updates: u64,
}

struct Snapshot {
    tensors: Vec<Tensor>,
    updates: u64,
}

/// The learner's end: publishes the weights of the network that it trains. `Send`.
///
/// Snapshots are copies on the CPU, two more than there are [`WeightReader`]s, made once and recycled. Publishing copies into one that
/// nobody reads and there is always one, so the learner never waits for who acts. Cost: one copy of the weights, in one kernel call on a
/// CPU (35 µs for 70,000 f32). From a GPU it is a copy a tensor, each of which waits for the device: publish every few updates and not after
/// each. (The way from a GPU is not measured yet.)
pub struct WeightPublisher {
    source: Vec<Tensor>,
    publisher: Publisher<Snapshot>,
}

/// An actor's end: brings the newest weights into a network of its own. `Send`; each thread has its own.
pub struct WeightReader {
    target: Vec<Tensor>,
    subscriber: Subscriber<Snapshot>,
    have: WeightVersion,
}

/// The two ends. `source` are handles to the learner's tensors: parameters, and buffers such as running statistics (what
/// [`Agent::acting_weights`](crate::Agent::acting_weights) gives); `targets` those of each actor's network, of the same shapes and in the same
/// order, on the CPU. What `source` holds now is version 0, after `updates` updates; no target has it yet.
///
/// # Errors
/// When libtorch fails, or when the shapes differ.
///
/// # Panics
/// When there is no target, or one has another number of tensors.
pub fn publish_weights(
    source: Vec<Tensor>,
    targets: Vec<Vec<Tensor>>,
    updates: u64,
) -> Result<(WeightPublisher, Vec<WeightReader>), ShimError> {
    assert!(!targets.is_empty(), "somebody has to read the weights");
    let snapshot = |_| {
        let empty = |tensor: &Tensor| Tensor::zeros(tensor.size(), (tensor.kind(), Device::Cpu));
        Snapshot { tensors: source.iter().map(empty).collect(), updates }
    };
    let mut snapshots: Vec<Snapshot> = (0..targets.len() + 2).map(snapshot).collect();
    copy(&mut snapshots[0].tensors, &source)?;
    let (publisher, subscribers) = newest(snapshots);
    let reader = |(target, subscriber): (Vec<Tensor>, _)| {
        assert_eq!(target.len(), source.len(), "the networks have different numbers of tensors");
        WeightReader { target, subscriber, have: WeightVersion::default() }
    };
    let readers = targets.into_iter().zip(subscribers).map(reader).collect();
    Ok((WeightPublisher { source, publisher }, readers))
}

impl WeightPublisher {
    /// Publishes the weights as they are now, after `updates` updates. Returns the version.
    ///
    /// # Errors
    /// When libtorch fails; the version before stays the newest then.
    pub fn publish(&mut self, updates: u64) -> Result<u64, ShimError> {
        let Self { source, publisher } = self;
        publisher.publish(|snapshot| {
            snapshot.updates = updates;
            copy(&mut snapshot.tensors, source)
        })
    }
}

impl WeightReader {
    /// Copies the newest weights into the target unless they are there already, and says which they are. Costs one atomic load when
    /// nothing was published since.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn refresh(&mut self) -> Result<WeightVersion, ShimError> {
        let Self { target, subscriber, have } = self;
        let copied = subscriber.newer(|version, snapshot| {
            copy(target, &snapshot.tensors)?;
            *have = WeightVersion { version, updates: snapshot.updates };
            Ok::<(), ShimError>(())
        });
        copied.transpose()?;
        Ok(*have)
    }
}

/// Copies each of `sources` into its target, whatever devices they are on.
fn copy(targets: &mut [Tensor], sources: &[Tensor]) -> Result<(), ShimError> {
    if sources.is_empty() {
        return Ok(());
    }
    no_grad(|| shim::foreach_copy(targets, sources))
}
