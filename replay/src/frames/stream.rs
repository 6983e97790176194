//! Inserting the frames and steps of one environment.

use super::FramePadding;
use super::store::Store;
use crate::limiter::Side;
use crate::nstep::{discounted, power};
use crate::writer::check_rows;
use crate::{ReplayError, WhenLimited, Writer};
use rl_minibatch::{Batch, StateError, StateVisitor, scalar, slice};
use std::ops::Range;
use std::sync::Arc;

/// One step of an environment whose observations are frames, as bytes in native byte order.
#[derive(Clone, Copy, Debug)]
pub struct FrameStep<'a> {
    /// The action.
    pub action: &'a [u8],
    /// The reward that followed.
    pub reward: f32,
    /// The frame that followed; at the end of an episode its true last one, not the first of the next episode.
    pub next_frame: &'a [u8],
    /// The episode ended in a terminal state, whose value is 0.
    pub terminated: bool,
    /// The episode was cut short, by a time limit for instance; its last observation still has a value.
    pub truncated: bool,
}

/// Inserts the episodes of one environment into a [`FrameReplay`](crate::FrameReplay). `Send`; use one for each environment.
///
/// [`begin`](Self::begin) with an episode's first frame, then [`step`](Self::step) until it ends. Rows are folded over n
/// steps as by [`NStep`](crate::NStep), the shorter ones of an episode's last steps included; a truncated episode
/// bootstraps from its true last frame, and no stack reaches from one episode into the next.
///
/// Memory: a copy of the k + n newest frames, so that they can be inserted anew after a long silence.
pub struct FrameStream {
    store: Arc<Store>,
    writer: Writer,
    when_limited: WhenLimited,
    /// Whether there is an episode.
    begun: bool,
    /// The newest frame of the episode, counted from 0.
    newest: u64,
    /// Frame i of the episode lies at i mod (k + n), with its serial; `NOWHERE` if it is not in the buffer.
    frames: Vec<u8>,
    serials: Vec<u64>,
    /// As in the buffer when the serials were had.
    loads: u64,
    /// The serials are a loaded state's, and the buffer may hold other frames there.
    unproven: bool,
    /// Actions and rewards of the steps that wait for their n-th successor, the oldest first, with room for n.
    open: usize,
    actions: Vec<u8>,
    rewards: Vec<f32>,
    /// Scratch: the return of each row that a step emits, and a row's references.
    returns: Vec<f32>,
    references: Vec<u8>,
}

const NOWHERE: u64 = u64::MAX;

impl FrameStream {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        let (kept, n) = (store.stack + store.n, store.n);
        Self {
            begun: false,
            newest: 0,
            frames: vec![0; kept * store.frame_schema.row_bytes()],
            serials: vec![NOWHERE; kept],
            loads: 0,
            unproven: false,
            open: 0,
            actions: vec![0; n * store.rows.schema().fields()[0].row_bytes()],
            rewards: vec![0.0; n],
            returns: Vec::with_capacity(n),
            references: Vec::with_capacity(4 * store.window()),
            writer: store.rows.writer(),
            when_limited: WhenLimited::Block,
            store,
        }
    }

    /// What a step does that the buffer's rate limiter does not allow: wait, unless this says otherwise.
    pub fn when_limited(mut self, when: WhenLimited) -> Self {
        self.when_limited = when;
        self
    }

    /// Begins an episode with its first frame. Steps that were still open are forgotten, as for an environment that is
    /// reset in the middle of an episode. Nothing is inserted before the first step.
    ///
    /// # Errors
    /// [`ReplayError::Bytes`] for a frame of the wrong size, [`ReplayError::NotFinite`]; nothing has changed then.
    pub fn begin(&mut self, first_frame: &[u8]) -> Result<(), ReplayError> {
        check_rows(&self.store.frame_schema, 1, &[first_frame])?;
        (self.begun, self.newest, self.open) = (true, 0, 0);
        self.keep(0, first_frame);
        Ok(())
    }

    /// Takes one step, and inserts its frame and the rows that it completes: none while the first n steps fill, then one,
    /// and at an episode's end one for each step that is still open. Returns how many rows. After an episode's end
    /// [`begin`](Self::begin) has to come next.
    ///
    /// Cost: two copies of the frame, one of them under the lock that streams share. Waits as
    /// [`Writer::push`](crate::Writer::push) does.
    ///
    /// # Errors
    /// [`ReplayError::NotFrames`] when no episode was begun, [`ReplayError::Bytes`] for a slice of the wrong size,
    /// [`ReplayError::NotFinite`] for a NaN or infinite frame, action or reward, or a return beyond f32. Neither the buffer
    /// nor the stream has changed then. Those of a rate limiter as well (see [`Writer::push`]); the same step may be given
    /// again then.
    pub fn step(&mut self, step: FrameStep<'_>) -> Result<usize, ReplayError> {
        let shared = self.store.clone();
        let store = &*shared;
        if !self.begun {
            let why =
                "a step came where an episode has to begin; call `begin` with its first frame".to_string();
            return Err(ReplayError::NotFrames { why });
        }
        check_rows(&store.frame_schema, 1, &[step.next_frame])?;
        let reward = step.reward.to_ne_bytes();
        self.references.clear();
        self.references.resize(4 * store.window(), 0);
        check_rows(store.rows.schema(), 1, &[step.action, &reward, &0f32.to_ne_bytes(), &self.references])?;

        let ended = step.terminated || step.truncated;
        self.rewards[self.open] = step.reward;
        let open = self.open + 1;
        let rows = match (ended, open == store.n) {
            (true, _) => open,
            (false, true) => 1,
            (false, false) => 0,
        };
        self.returns.clear();
        self.returns.extend((0..rows).map(|row| discounted(&self.rewards[row..open], store.gamma)));
        if self.returns.iter().any(|value| !value.is_finite()) {
            let column = "reward".to_string();
            return Err(ReplayError::NotFinite { row: 0, column, element: 0 });
        }
        let admitted = store.rows.shared.admit(Side::Insert, rows, self.when_limited)?;
        // Nothing is refused from here on.
        let action = step.action.len();
        self.actions[self.open * action..][..action].copy_from_slice(step.action);
        self.open = open;
        self.insert(&step, rows);
        drop(admitted);
        if ended {
            (self.begun, self.open) = (false, 0);
        } else if rows == 1 {
            self.actions.copy_within(action.., 0);
            self.rewards.copy_within(1.., 0);
            self.open -= 1;
        }
        Ok(rows)
    }

    /// Inserts the step's frame, and the rows from the oldest open step on.
    fn insert(&mut self, step: &FrameStep<'_>, rows: usize) {
        let shared = self.store.clone();
        let store = &*shared;
        let last = self.newest + 1;
        // The step of the oldest open row, and the first frame of its stack.
        let first_step = last - self.open as u64;
        let first_frame = (first_step + 1).saturating_sub(store.stack as u64);
        let mut turn = store.turn();
        if std::mem::take(&mut self.unproven) && self.are_there(first_frame..last) {
            self.loads = turn.ledger.loads;
        }
        // Frames that are too old, or that a load has replaced, are inserted anew, all of them: so a later frame of the
        // episode has a larger serial, and what is the oldest of a row is known.
        let soon = turn.head() + self.serials.len() as u64 + 1;
        let lost = |serial: u64| serial == NOWHERE || serial + store.history < soon;
        let anew = self.loads != turn.ledger.loads || lost(self.serials[self.place(first_frame)]);
        if anew {
            self.loads = turn.ledger.loads;
            for frame in first_frame..last {
                let place = self.place(frame);
                self.serials[place] = turn.insert_frame(self.frame(place));
            }
        }
        self.keep(last, step.next_frame);
        let place = self.place(last);
        self.serials[place] = turn.insert_frame(step.next_frame);
        self.newest = last;

        for row in 0..rows {
            let acted = first_step + row as u64;
            let oldest = self.refer(acted);
            let bootstrap = if step.terminated { 0.0 } else { power(store.gamma, self.open - row) };
            let reward = self.returns[row].to_ne_bytes();
            let discount = (bootstrap as f32).to_ne_bytes();
            let bytes = step.action.len();
            let action = &self.actions[row * bytes..][..bytes];
            turn.insert_row(&self.writer, oldest, &[action, &reward, &discount, &self.references]);
        }
    }

    /// Whether the buffer holds these frames of the episode at their serials. Their bytes are compared, so it does not
    /// matter how they came there.
    fn are_there(&self, frames: Range<u64>) -> bool {
        let store = &*self.store;
        let places: Vec<usize> = frames.map(|frame| self.place(frame)).collect();
        let serials = || places.iter().map(|place| self.serials[*place]);
        let Some(pin) = store.frames.pin_alone() else { return false };
        let live = pin.oldest()..pin.live().end;
        if !serials().is_sorted_by(|a, b| a < b) || !serials().all(|serial| live.contains(&serial)) {
            return false;
        }
        let mut there = Batch::new(&store.frame_schema, places.len());
        pin.gather(serials(), &mut there.view_mut());
        let bytes = store.frame_schema.row_bytes();
        places
            .iter()
            .zip(there.column(0).chunks_exact(bytes))
            .all(|(place, there)| self.frame(*place) == there)
    }

    /// Writes the references of the row for the action at frame `acted` up to the newest frame, and returns the oldest
    /// serial among them.
    ///
    /// A reference is the low half of a serial. Zeros are the one after the row's newest frame, which no frame of the row
    /// can be.
    fn refer(&mut self, acted: u64) -> u64 {
        let store = &self.store;
        let (k, newest) = (store.stack as u64, self.newest);
        let mut oldest = u64::MAX;
        let zeros = (self.serials[self.place(newest)] as u32).wrapping_add(1);
        self.references.clear();
        // Frames before the first one are counted down from it.
        let obs = (0..k).map(|back| (acted + 1 + back).checked_sub(k));
        // The next stack: with one step all but its last frame are there.
        let from = if store.n == 1 { k - 1 } else { 0 };
        let next = (from..k).map(|back| (newest + 1 + back).checked_sub(k));
        for frame in obs.chain(next) {
            let frame = match (frame, store.padding) {
                (Some(frame), _) => Some(frame),
                (None, FramePadding::Repeat) => Some(0),
                (None, FramePadding::Zero) => None,
            };
            let reference = frame.map_or(zeros, |frame| {
                let serial = self.serials[(frame % self.serials.len() as u64) as usize];
                oldest = oldest.min(serial);
                serial as u32
            });
            self.references.extend(reference.to_ne_bytes());
        }
        oldest
    }

    /// Ends the episode where it is without a row for the steps that are still open, for an environment that broke off.
    /// [`begin`](Self::begin) has to come next. An episode that was cut short and has a true last frame ends with a step
    /// that is `truncated` instead.
    pub fn discontinue(&mut self) {
        (self.begun, self.open) = (false, 0);
    }

    /// Whether an episode was begun and has not ended.
    pub fn in_episode(&self) -> bool {
        self.begun
    }

    /// Steps that wait for their n-th successor.
    pub fn open_steps(&self) -> usize {
        self.open
    }

    /// Shows the visitor the episode in progress: its newest k + n frames and its open steps. It goes with any buffer of the
    /// same shapes, k and n: when the buffer's own state is loaded too, which holds the same frames, the run goes on bit
    /// for bit as it would have; else the frames are inserted anew with the next step.
    ///
    /// # Errors
    /// Those of the visitor, and [`StateError::Invalid`] when there are more open steps than n or the episode allows; the
    /// stream is then as it was.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let shared = self.store.clone();
        let store = &*shared;
        let (mut begun, mut newest, mut open) = (u64::from(self.begun), self.newest, self.open as u64);
        let (mut frames, mut actions) = (self.frames.clone(), self.actions.clone());
        let (mut rewards, mut serials) = (self.rewards.clone(), self.serials.clone());
        if !visitor.loading() {
            // What lies behind the open steps and the newest frame is left from earlier ones, and no part of the state.
            if self.begun {
                let kept = self.serials.len() as u64;
                let frame = frames.len() / self.serials.len();
                for unused in newest + 1..kept {
                    frames[unused as usize * frame..][..frame].fill(0);
                    serials[unused as usize] = NOWHERE;
                }
                if !self.unproven && self.loads != store.turn().ledger.loads {
                    serials.fill(NOWHERE);
                }
            } else {
                (newest, open) = (0, 0);
                frames.fill(0);
                serials.fill(NOWHERE);
            }
            let action = actions.len() / store.n;
            actions[open as usize * action..].fill(0);
            rewards[open as usize..].fill(0.0);
        }
        scalar(visitor, "begun", &mut begun)?;
        scalar(visitor, "newest", &mut newest)?;
        scalar(visitor, "open", &mut open)?;
        let mut array = |name: &str, field: &rl_minibatch::Field, rows: usize, bytes: &mut [u8]| {
            let shape: Vec<usize> = [rows].into_iter().chain(field.shape.iter().copied()).collect();
            visitor.array(name, field.dtype, &shape, bytes)
        };
        let fields = store.rows.schema().fields();
        array("frames", &store.frame_schema.fields()[0], self.serials.len(), &mut frames)?;
        array("action", &fields[0], store.n, &mut actions)?;
        array("reward", &fields[1], store.n, bytemuck::cast_slice_mut(&mut rewards))?;
        slice(visitor, "serials", &mut serials)?;
        if visitor.loading() {
            if begun > 1 || open >= store.n as u64 || open > newest || newest > u64::MAX / 2 {
                let why = format!("{open} open steps after {newest} steps, where n is {}", store.n);
                return Err(StateError::Invalid { path: "open".into(), why });
            }
            if rewards.iter().any(|reward| !reward.is_finite()) {
                let why = "a reward is NaN or infinite".to_string();
                return Err(StateError::Invalid { path: "reward".into(), why });
            }
            (self.begun, self.newest, self.open) = (begun == 1, newest, open as usize);
            (self.frames, self.actions, self.rewards) = (frames, actions, rewards);
            // Until they are proven they go with no state of the buffer.
            (self.serials, self.loads, self.unproven) = (serials, u64::MAX, true);
        }
        Ok(())
    }

    fn keep(&mut self, frame: u64, bytes: &[u8]) {
        let place = self.place(frame);
        self.frames[place * bytes.len()..][..bytes.len()].copy_from_slice(bytes);
        self.serials[place] = NOWHERE;
    }

    fn place(&self, frame: u64) -> usize {
        (frame % self.serials.len() as u64) as usize
    }

    fn frame(&self, place: usize) -> &[u8] {
        let bytes = self.frames.len() / self.serials.len();
        &self.frames[place * bytes..][..bytes]
    }
}

impl std::fmt::Debug for FrameStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameStream")
            .field("writer", &self.writer)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}
