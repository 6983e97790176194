//! Batches from a replay buffer in the host's memory.

use super::LearnerError;
use super::read_back::{Errors, ReadBack};
use crate::profile;
use crate::shim::ShimError;
use crate::shim::cuda::{Event, Stream};
use crate::staging::{MiniBatch, Staging};
use rl_minibatch::{Drawn, Rng, StateError, StateVisitor, WeightNorm, importance_weights, scope, value};
use rl_replay::TransitionReader;
use tch::{Device, Tensor};

/// Draws batches, brings them to the device, and brings priorities back.
///
/// With prefetching there are two lanes: while an update trains on one, the next batch is drawn, gathered into the other's pinned memory and copied on
/// a stream of its own. The order is the same each time: update k is launched, priorities of k − 1 are written, batch k + 1 is drawn. So a batch
/// is drawn by the priorities of two updates before, as without prefetching; only rows inserted between two updates, and β, are seen one
/// update later.
#[derive(Debug)]
pub(super) struct HostSource {
    reader: TransitionReader,
    lanes: Vec<Lane>,
    /// The lane that the next batch is in, or goes to.
    next: usize,
    /// Whether it is there; or why it could not be drawn ahead of need, told when it is needed.
    ready: Option<Result<(), LearnerError>>,
    prioritized: bool,
    rng: Rng,
    /// Keys and |δ| of the last update, not yet written back.
    pending: Option<(Vec<u64>, Errors)>,
    read_back: ReadBack,
    copies: Option<Copies>,
}

#[derive(Debug)]
struct Lane {
    staging: Staging,
    drawn: Drawn,
    /// The end of the copy to the device, and of the update that read it there.
    events: Option<(Event, Event)>,
}

/// The stream that copies run on.
#[derive(Debug)]
struct Copies {
    device: usize,
    stream: Stream,
}

impl HostSource {
    pub(super) fn new(
        reader: TransitionReader,
        rows: usize,
        prioritized: bool,
        rng: Rng,
        device: Device,
    ) -> Self {
        let lane = || Lane {
            staging: Staging::of_transitions(reader.schema(), reader.views(), rows, device),
            drawn: Drawn::default(),
            events: None,
        };
        let lanes = vec![lane()];
        let read_back = ReadBack::default();
        Self { reader, lanes, next: 0, ready: None, prioritized, rng, pending: None, read_back, copies: None }
    }

    /// Draws each batch while the update before it trains. On a GPU copies then run on a stream of their own.
    pub(super) fn prefetch(&mut self, device: Device) -> Result<(), ShimError> {
        let rows = self.lanes[0].staging.rows();
        while self.lanes.len() < 2 {
            let (schema, views) = (self.reader.schema(), self.reader.views());
            let staging = Staging::of_transitions(schema, views, rows, device);
            self.lanes.push(Lane { staging, drawn: Drawn::default(), events: None });
        }
        if let Device::Cuda(device) = device {
            self.copies = Some(Copies { device, stream: Stream::new(device)? });
            for lane in &mut self.lanes {
                lane.events = Some((Event::new(false)?, Event::new(false)?));
            }
        }
        Ok(())
    }

    fn prefetches(&self) -> bool {
        self.lanes.len() > 1
    }

    /// Has the next batch on its way to the device, and says in which lane.
    pub(super) fn next_batch(&mut self, beta: f64) -> Result<usize, LearnerError> {
        let at = self.next;
        match self.ready.take() {
            Some(ready) => ready?,
            None => self.draw(beta)?,
        }
        let lane = &mut self.lanes[at];
        match (&self.copies, &lane.events) {
            (Some(copies), Some((copied, _))) => copied.hold(&Stream::current(copies.device)?)?,
            _ => drop(profile::time("stage", || lane.staging.upload())),
        }
        self.next = (at + 1) % self.lanes.len();
        Ok(at)
    }

    /// The batch of a lane.
    pub(super) fn batch(&self, lane: usize) -> &MiniBatch {
        self.lanes[lane].staging.batch()
    }

    /// Draws a batch into the next lane's host memory and, where copies have a stream of their own, sends it on.
    fn draw(&mut self, beta: f64) -> Result<(), LearnerError> {
        let Self { reader, lanes, next, prioritized, rng, copies, .. } = self;
        let lane = &mut lanes[*next];
        if let Some((copied, _)) = &lane.events {
            // The batch before in this lane: long over.
            copied.synchronize()?;
        }
        let sampling = profile::span("sample");
        let rows = lane.staging.rows();
        let (mut columns, weight) = lane.staging.host_mut();
        reader.sample_into(rng, rows, &mut columns, &mut lane.drawn)?;
        drop(columns);
        if *prioritized {
            importance_weights(&lane.drawn, beta, WeightNorm::BatchMax, weight);
        }
        drop(sampling);
        if let Some(copies) = copies {
            let _span = profile::span("stage");
            lane.send(copies)?;
        }
        Ok(())
    }

    /// What follows the launch of the update on `lane`: priorities of the update before are written, and the next batch is drawn.
    /// `overwritten` says that the memory of `td_error` is written to by a later update.
    pub(super) fn updated(
        &mut self,
        lane: usize,
        td_error: &Tensor,
        overwritten: bool,
        beta: f64,
    ) -> Result<(), LearnerError> {
        if let (Some(copies), Some((_, used))) = (&self.copies, &mut self.lanes[lane].events) {
            used.record(&Stream::current(copies.device)?)?;
        }
        if self.prioritized {
            let _span = profile::span("write-back");
            let next = (self.lanes[lane].drawn.rows.clone(), self.read_back.send(td_error, overwritten)?);
            if let Some((keys, errors)) = self.pending.replace(next) {
                let magnitudes = self.read_back.read(&errors)?;
                if let Some(value) = magnitudes.iter().copied().find(|value| !value.is_finite()) {
                    return Err(LearnerError::Diverged { value });
                }
                self.reader.update_priorities(&keys, &magnitudes)?;
            }
        }
        if self.prefetches() {
            // A buffer that was closed, say, is no failure of this update.
            self.ready = Some(self.draw(beta));
        }
        Ok(())
    }

    pub(super) fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let invalid = |path: &str, why: String| StateError::Invalid { path: path.to_string(), why };
        value(visitor, "rng", &mut self.rng)?;
        scope(visitor, "pending", |v| {
            let mut pending: Option<(Vec<u64>, Vec<f32>)> = match &self.pending {
                Some((keys, errors)) => {
                    let values =
                        self.read_back.read(errors).map_err(|e| invalid("pending", e.to_string()))?;
                    Some((keys.clone(), values))
                }
                None => None,
            };
            value(v, "priorities", &mut pending)?;
            if v.loading() {
                self.pending =
                    pending.map(|(keys, values)| (keys, Errors::Here(Tensor::from_slice(&values))));
            }
            Ok(())
        })?;
        // The rows themselves and not their keys: the buffer may have let go of them since.
        let mut ahead: Option<Ahead> = match &self.ready {
            Some(Ok(())) => Some(self.lanes[self.next].show()),
            _ => None,
        };
        value(visitor, "prefetched", &mut ahead)?;
        if visitor.loading() {
            self.ready = None;
            if let Some(ahead) = ahead {
                let lane = &mut self.lanes[self.next];
                lane.take(ahead).map_err(|why| invalid("prefetched", why))?;
                if let Some(copies) = &self.copies {
                    lane.send(copies).map_err(|e| invalid("prefetched", e.to_string()))?;
                }
                self.ready = Some(Ok(()));
            }
        }
        Ok(())
    }
}

/// A batch drawn ahead of need: keys, the bytes of each column, weights.
type Ahead = (Vec<u64>, Vec<Vec<u8>>, Vec<f32>);

impl Lane {
    /// Copies the batch to the device on the stream for copies, after the update that read the one before there.
    fn send(&mut self, copies: &Copies) -> Result<(), ShimError> {
        let current = Stream::current(copies.device)?;
        let Some((copied, used)) = &mut self.events else { return Ok(()) };
        used.hold(&copies.stream)?;
        copies.stream.set()?;
        let sent = self.staging.upload_async();
        current.set()?;
        sent?;
        copied.record(&copies.stream)
    }

    fn show(&mut self) -> Ahead {
        let fields = self.staging.schema().fields().len();
        let (mut columns, weight) = self.staging.host_mut();
        let weight = weight.to_vec();
        let columns = (0..fields).map(|field| columns.column_mut(field).to_vec()).collect();
        (self.drawn.rows.clone(), columns, weight)
    }

    fn take(&mut self, (rows, saved, weights): Ahead) -> Result<(), String> {
        let fields = self.staging.schema().fields().len();
        let (mut columns, weight) = self.staging.host_mut();
        let fits = weights.len() == weight.len()
            && rows.len() == weight.len()
            && saved.len() == fields
            && saved.iter().enumerate().all(|(i, bytes)| bytes.len() == columns.column_mut(i).len());
        if !fits {
            return Err(
                "a batch of another size or schema; the state was made by another configuration".to_string()
            );
        }
        for (i, bytes) in saved.iter().enumerate() {
            columns.column_mut(i).copy_from_slice(bytes);
        }
        weight.copy_from_slice(&weights);
        self.drawn.rows = rows;
        Ok(())
    }
}
