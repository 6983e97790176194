//! What the workers and the caller share: who loads which batch, and the order in which batches come out.

use super::error::message;
use super::memory::{Pool, Slot};
use super::{Collate, LoadError, Selection};
use crate::{Batches, MemoryState, Plan, StateError, StateVisitor};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

type Outcome<H> = Result<Slot<H>, LoadError>;

/// A worker takes the next plan under the lock, so plans are handed out in order, fills it without the lock, and puts it into
/// the place that it reserved when it took the plan. The caller takes from the front only.
///
/// A whole batch to a worker, and not a part of each to all of them: those would meet twice a batch, which takes as long as a
/// small batch itself (measured with two threads: 64 f32 × 256 rows came 1.2 to 6 times as fast by whole batches; for images the
/// figures of a busy machine lie on both sides).
pub(super) struct Shared<C: Collate> {
    collate: C,
    pool: Arc<Pool<C::Output>>,
    queue: Mutex<Queue<C::Output>>,
    /// There is room for another batch, or the end.
    room: Condvar,
    /// The batch at the front is done.
    done: Condvar,
}

struct Queue<H> {
    batches: Batches,
    /// Batches ahead of the caller at most.
    prefetch: usize,
    /// The batches ahead of the caller in their order; `None` while one is being loaded.
    ahead: VecDeque<Option<Outcome<H>>>,
    /// Batches that the caller took since `base`.
    taken: u64,
    /// The state of `batches` that many batches before the caller's position; none while nothing is ahead of the caller.
    base: Option<MemoryState>,
    /// Counts the times that a position was loaded. What a worker began before is of no use any more.
    generation: u64,
    /// The number of the batch at the front of `ahead`, over all that was ever there.
    front: u64,
    stop: bool,
}

impl<C: Collate> Shared<C> {
    pub(super) fn new(collate: C, batches: Batches, prefetch: usize) -> Self {
        let queue = Queue {
            batches,
            prefetch,
            ahead: VecDeque::with_capacity(prefetch.min(1024)),
            taken: 0,
            base: None,
            generation: 0,
            front: 0,
            stop: false,
        };
        let (room, done) = (Condvar::new(), Condvar::new());
        Self { collate, pool: Pool::new(prefetch), queue: Mutex::new(queue), room, done }
    }

    pub(super) fn collate(&self) -> &C {
        &self.collate
    }

    pub(super) fn pool(&self) -> &Arc<Pool<C::Output>> {
        &self.pool
    }

    /// Loads batches until there is an end; what a worker thread does.
    pub(super) fn work(&self) {
        let mut queue = self.queue.lock();
        loop {
            while !queue.stop && queue.ahead.len() >= queue.prefetch {
                self.room.wait(&mut queue);
            }
            if queue.stop {
                return;
            }
            if queue.base.is_none() {
                // Before anything is drawn ahead for the first time. Batches that cannot be saved are still loaded.
                queue.base = MemoryState::save(|v| queue.batches.visit(v)).ok();
                queue.taken = 0;
            }
            let mut slot = self.pool.take();
            let planned = queue.plan(&mut slot.plan);
            let (number, generation) = (queue.front + queue.ahead.len() as u64, queue.generation);
            queue.ahead.push_back(None);
            drop(queue);
            let outcome = self.filled(planned, slot);
            queue = self.queue.lock();
            if queue.generation == generation {
                let place = (number - queue.front) as usize;
                queue.ahead[place] = Some(outcome);
                if place == 0 {
                    self.done.notify_one();
                }
            } else if let Ok(slot) = outcome {
                self.pool.give(slot);
            }
        }
    }

    /// The next batch, which a worker loads.
    pub(super) fn take(&self) -> Outcome<C::Output> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(Some(_)) = queue.ahead.front() {
                let outcome = queue.ahead.pop_front().flatten().expect("it was looked at");
                queue.front += 1;
                queue.taken += 1;
                // Workers that sleep are woken when half is used up: one waking for some batches and not for each.
                if queue.ahead.len() <= queue.prefetch / 2 {
                    self.room.notify_all();
                }
                return outcome;
            }
            self.done.wait(&mut queue);
        }
    }

    /// The next batch, loaded on this thread; for a loader without workers.
    pub(super) fn load_here(&self) -> Outcome<C::Output> {
        let mut slot = self.pool.take();
        let planned = self.queue.lock().plan(&mut slot.plan);
        self.filled(planned, slot)
    }

    fn filled(&self, planned: Result<(), LoadError>, mut slot: Slot<C::Output>) -> Outcome<C::Output> {
        match planned.and_then(|()| self.fill(&mut slot)) {
            Ok(()) => Ok(slot),
            Err(error) => {
                self.pool.give(slot);
                Err(error)
            }
        }
    }

    fn fill(&self, slot: &mut Slot<C::Output>) -> Result<(), LoadError> {
        let Slot { plan, host } = slot;
        let fill = AssertUnwindSafe(|| self.collate.collate(&Selection::of(plan), host));
        match catch_unwind(fill) {
            Ok(Ok(())) if host.is_some() => Ok(()),
            Ok(Ok(())) => {
                let cause = "its collate function gave no batch and no error".into();
                Err(LoadError::Collate { step: plan.step, cause })
            }
            Ok(Err(error)) => Err(error),
            Err(panic) => {
                // Nobody knows in what state it was left.
                *host = None;
                Err(LoadError::BatchPanicked { step: plan.step, message: message(&*panic) })
            }
        }
    }

    /// Shows the caller's position.
    pub(super) fn save(&self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let mut queue = self.queue.lock();
        let queue = &mut *queue;
        let (Some(base), false) = (&queue.base, queue.ahead.is_empty()) else {
            return queue.batches.visit(visitor);
        };
        // Back to the base, on to the caller's position, and then forth again to where the workers are.
        let ahead = MemoryState::save(|v| queue.batches.visit(v))?;
        base.load(|v| queue.batches.visit(v))?;
        let mut plan = self.pool.take();
        for _ in 0..queue.taken {
            // A batch that could not be drawn then cannot be drawn now; it took its place all the same.
            let _ = queue.plan(&mut plan.plan);
        }
        self.pool.give(plan);
        let shown = queue.batches.visit(visitor);
        let position = MemoryState::save(|v| queue.batches.visit(v));
        ahead.load(|v| queue.batches.visit(v))?;
        (queue.base, queue.taken) = (Some(position?), 0);
        shown
    }

    /// Goes to another position.
    pub(super) fn restore(&self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let mut queue = self.queue.lock();
        queue.generation += 1;
        queue.front += queue.ahead.len() as u64;
        for slot in std::mem::take(&mut queue.ahead).into_iter().flatten().flatten() {
            self.pool.give(slot);
        }
        let loaded = queue.batches.visit(visitor);
        (queue.base, queue.taken) = (None, 0);
        self.room.notify_all();
        loaded
    }

    /// Sends the workers home.
    pub(super) fn stop(&self) {
        self.queue.lock().stop = true;
        self.room.notify_all();
    }
}

impl<H> Queue<H> {
    /// Draws the next batch.
    fn plan(&mut self, plan: &mut Plan) -> Result<(), LoadError> {
        let step = self.batches.step();
        match catch_unwind(AssertUnwindSafe(|| self.batches.next(plan))) {
            Ok(drawn) => Ok(drawn?),
            Err(panic) => Err(LoadError::BatchPanicked { step, message: message(&*panic) }),
        }
    }
}
