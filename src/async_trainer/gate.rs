//! Where actors come to rest, so that the state of a run can be looked at whole, and where they say how they ended.

use crate::error::CommandError;
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicBool, Ordering};

/// What actors are to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ask {
    /// Act.
    #[default]
    Go,
    /// Finish the step in hand and wait.
    Rest,
    /// Finish: the run is over or has failed.
    End,
}

#[derive(Debug, Default)]
struct State {
    ask: Ask,
    /// Actors that wait to be let go on.
    resting: usize,
    /// Actors whose thread does nothing any more.
    ended: usize,
    /// What the first of them that failed said.
    failure: Option<CommandError>,
}

/// One gate for all actors of a run. An actor looks at it between two steps.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
    /// Whether the ask is another one than to go on: what is looked at in every step.
    asked: AtomicBool,
    /// Whether an actor has failed.
    failed: AtomicBool,
}

impl Gate {
    /// Has the actors do something else.
    pub fn ask(&self, ask: Ask) {
        let mut state = self.state.lock();
        // Once the end was asked for there is nothing else.
        if state.ask != Ask::End {
            state.ask = ask;
        }
        // Only an early hint: what counts is read under the lock.
        self.asked.store(state.ask != Ask::Go, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// Whether all of so many actors rest or have ended.
    pub fn at_rest(&self, actors: usize) -> bool {
        let state = self.state.lock();
        state.resting + state.ended == actors
    }

    /// What the first actor that failed said, once.
    pub fn failure(&self) -> Option<CommandError> {
        if !self.failed.load(Ordering::Relaxed) {
            return None;
        }
        self.state.lock().failure.take()
    }

    /// For an actor: whether it is to stop acting.
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// For an actor that holds nothing: waits while all rest. Returns whether it is to go on.
    pub fn rest(&self) -> bool {
        let mut state = self.state.lock();
        state.resting += 1;
        while state.ask == Ask::Rest {
            self.changed.wait(&mut state);
        }
        state.resting -= 1;
        state.ask == Ask::Go
    }

    /// For an actor that holds nothing: its last word. What goes wrong after the end was asked for is of no interest: a closed buffer.
    pub fn leave(&self, result: Result<(), CommandError>) {
        let mut state = self.state.lock();
        state.ended += 1;
        if let Err(error) = result
            && state.ask != Ask::End
        {
            state.failure.get_or_insert(error);
            self.failed.store(true, Ordering::Relaxed);
        }
    }
}
