//! How many rows are drawn for each one inserted, kept within bounds.

use crate::ReplayError;
use crate::sync::{self, Condvar, Mutex, MutexGuard};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Keeps the number of rows drawn for each row inserted near a ratio, for
/// [`Builder::rate_limiter`](crate::Builder::rate_limiter). A call that would lead too far away from it waits; see
/// [`WhenLimited`].
///
/// These are the rules of Reverb's `SampleToInsertRatio` (Cassirer et al., *Reverb: A Framework for Experience Replay*,
/// 2021, section 3.3; `reverb/rate_limiters.py` and `reverb/cc/rate_limiter.cc`). With
/// `D = inserts · samples_per_insert − samples`, the bounds are
///
/// ```text
/// min_diff = min_size · samples_per_insert − error_buffer
/// max_diff = min_size · samples_per_insert + error_buffer
/// ```
///
/// * inserting n rows is allowed while there are at most `min_size` with them, or `D + n · samples_per_insert ≤ max_diff`;
/// * drawing n rows is allowed when `min_size` rows are live and `D − n ≥ min_diff`.
///
/// A call is allowed as a whole or not at all: a batch is one call, and so is a block of rows for
/// [`push_rows`](crate::Writer::push_rows). (Reverb draws the rows of a batch one by one.) Where one side draws batches of
/// b rows and the other inserts blocks of m, `error_buffer ≥ (b + m · samples_per_insert) / 2` makes sure that one of the
/// two can always go on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimiter {
    /// Rows that must be live before any is drawn; until then inserting is free. At least 1, at most the capacity.
    pub min_size: usize,
    /// Rows drawn for each row inserted, on average. Above 0.
    pub samples_per_insert: f64,
    /// How far D may be off on either side, in rows drawn. At least `max(1, samples_per_insert)`: with less, both sides
    /// could wait for each other for ever.
    pub error_buffer: f64,
}

/// What a call does that the [`RateLimiter`] does not allow now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenLimited {
    /// It waits until it is allowed.
    #[default]
    Block,
    /// It waits, but no longer than this, then gives [`ReplayError::TimedOut`].
    Timeout(Duration),
    /// It gives [`ReplayError::Limited`] at once.
    Refuse,
}

/// Which side of the buffer a call is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Insert,
    Draw,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Side::Insert => "inserting",
            Side::Draw => "drawing",
        }
    }
}

/// The limiter of one buffer.
///
/// Rows that are being inserted count already against more inserting, and not yet in favour of drawing; with those being
/// drawn it is the other way round. So the bounds hold at every moment, and what fails in between can be taken back.
pub(crate) struct Limiter {
    bounds: Bounds,
    state: Mutex<State>,
    moved: Condvar,
}

/// The rules in the terms of Reverb's `RateLimiter`.
#[derive(Clone, Copy)]
struct Bounds {
    min_size: u64,
    samples_per_insert: f64,
    min_diff: f64,
    max_diff: f64,
    /// max_diff − min_diff, without its rounding.
    range: f64,
}

/// What a limiter has to know of the buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stock {
    /// Rows that are live.
    pub(crate) size: u64,
    /// Rows inserted so far.
    pub(crate) inserted: u64,
    /// Draws that can be made before more is inserted.
    pub(crate) left: u64,
}

impl Stock {
    /// Of a buffer whose rows can be drawn as often as one likes.
    pub(crate) fn of_live(live: Range<u64>) -> Self {
        Self { size: live.end - live.start, inserted: live.end, left: u64::MAX }
    }
}

#[derive(Default)]
struct State {
    /// Rows drawn.
    sampled: u64,
    /// Rows inserted, those included that wait for earlier ones to come to life; 0 when that has to be looked up.
    inserted: u64,
    /// Rows of calls under way: allowed, and not yet inserted or drawn.
    inserting: u64,
    drawing: u64,
    closed: bool,
    /// All handles to the buffer, and how many of them are writers and readers.
    handles: usize,
    writers: usize,
    readers: usize,
    /// Counts everything that may let a waiting call go on.
    version: u64,
    /// Calls that wait without a time limit and found nothing to go on with at this version.
    stuck: usize,
}

impl Limiter {
    /// # Errors
    /// [`ReplayError::Setting`].
    pub(crate) fn new(settings: RateLimiter, capacity: u64) -> Result<Self, ReplayError> {
        let RateLimiter { min_size, samples_per_insert, error_buffer } = settings;
        let setting = |name, value, expected| Err(ReplayError::Setting { name, value, expected });
        if min_size == 0 || min_size as u64 > capacity {
            return setting("min_size", min_size as f64, "in 1..=capacity");
        }
        if !(samples_per_insert > 0.0 && samples_per_insert <= 1e9) {
            return setting("samples_per_insert", samples_per_insert, "above 0 and at most 1e9");
        }
        if !(error_buffer >= samples_per_insert.max(1.0) && error_buffer.is_finite()) {
            let expected =
                "finite and at least max(1, samples_per_insert), or both sides could wait for ever";
            return setting("error_buffer", error_buffer, expected);
        }
        let offset = min_size as f64 * samples_per_insert;
        Ok(Self::with(Bounds {
            min_size: min_size as u64,
            samples_per_insert,
            min_diff: offset - error_buffer,
            max_diff: offset + error_buffer,
            range: 2.0 * error_buffer,
        }))
    }

    /// Of a buffer from which every row is drawn once: inserting waits for room, and drawing for rows.
    pub(crate) fn queue(capacity: u64) -> Self {
        let (samples_per_insert, range) = (1.0, capacity as f64);
        Self::with(Bounds { min_size: 1, samples_per_insert, min_diff: 0.0, max_diff: range, range })
    }

    fn with(bounds: Bounds) -> Self {
        Self { bounds, state: Mutex::new(State::default()), moved: Condvar::new() }
    }

    /// Waits until a call for `rows` rows is allowed. Dropping what it returns ends the call: rows to be inserted have
    /// been, and those to be drawn have not, but for what [`done`](Admitted::done) was told.
    ///
    /// `stock` is looked at under the limiter's lock.
    #[cold]
    pub(crate) fn admit(
        &self,
        stock: impl Fn() -> Stock,
        side: Side,
        rows: usize,
        when: WhenLimited,
    ) -> Result<Admitted<'_>, ReplayError> {
        let call = side.name();
        let began = Instant::now();
        let mut state = self.state.lock();
        let mut looked = None;
        loop {
            if state.closed {
                return Err(ReplayError::Closed { call });
            }
            let stock = stock();
            if state.inserting == 0 {
                // Nobody is inserting, so all that were inserted can be drawn.
                state.inserted = stock.inserted;
            }
            let Err(why) = self.allowed(&state, stock, side, rows as u64) else { break };
            let most = self.most(side);
            if rows as f64 > most {
                return Err(ReplayError::LimiterRows { call, rows, most: most as u64 });
            }
            let limited = || why.to_string();
            match when {
                WhenLimited::Refuse => return Err(ReplayError::Limited { call, rows, why: limited() }),
                WhenLimited::Timeout(limit) => {
                    let left = limit.saturating_sub(began.elapsed());
                    if left.is_zero() {
                        return Err(ReplayError::TimedOut { call, rows, limit, why: limited() });
                    }
                    state = sync::wait_for(&self.moved, state, left);
                }
                WhenLimited::Block => {
                    if looked != Some(state.version) {
                        looked = Some(state.version);
                        state.stuck += 1;
                    }
                    if state.hopeless(side) {
                        state.stuck -= 1;
                        return Err(ReplayError::Abandoned { call, rows, why: limited() });
                    }
                    state = sync::wait(&self.moved, state);
                    // A change has set the count back; if there was none this call still counts.
                }
            }
        }
        if looked == Some(state.version) {
            state.stuck -= 1;
        }
        match side {
            Side::Insert => state.inserting += rows as u64,
            Side::Draw => state.drawing += rows as u64,
        }
        drop(state);
        Ok(Admitted { limiter: self, side, rows: rows as u64 })
    }

    /// The most rows that a call can ever be allowed: as many as lead from one bound to the other.
    fn most(&self, side: Side) -> f64 {
        let Bounds { samples_per_insert, range, .. } = self.bounds;
        match side {
            Side::Insert => range / samples_per_insert,
            Side::Draw => range,
        }
    }

    fn allowed(&self, state: &State, stock: Stock, side: Side, rows: u64) -> Result<(), Why> {
        let Bounds { min_size, samples_per_insert, min_diff, max_diff, .. } = self.bounds;
        let Stock { size, inserted, left } = stock;
        match side {
            _ if rows == 0 => Ok(()),
            Side::Insert => {
                // A row that waits for an earlier one to come to life counts too, though its call has ended.
                let inserts = inserted.max(state.inserted) + state.inserting + rows;
                let ahead = inserts as f64 * samples_per_insert - state.sampled as f64;
                if inserts - (inserted - size) <= min_size || ahead <= max_diff {
                    return Ok(());
                }
                Err(Why::Ahead { ahead, bound: max_diff })
            }
            Side::Draw => {
                if size < min_size {
                    return Err(Why::Few { size, min_size });
                }
                if left < state.drawing.saturating_add(rows) {
                    return Err(Why::Expiring { left: left.saturating_sub(state.drawing) });
                }
                let samples = state.sampled + state.drawing + rows;
                let ahead = inserted as f64 * samples_per_insert - samples as f64;
                if ahead >= min_diff { Ok(()) } else { Err(Why::Behind { ahead, bound: min_diff }) }
            }
        }
    }

    /// Something has changed that a waiting call may have waited for.
    fn changed(&self, mut state: MutexGuard<'_, State>) {
        state.version += 1;
        state.stuck = 0;
        drop(state);
        self.moved.notify_all();
    }

    /// The buffer has changed by other things than inserting and drawing.
    pub(crate) fn look_again(&self) {
        self.changed(self.state.lock());
    }

    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        self.changed(state);
    }

    /// Rows drawn, to be saved.
    pub(crate) fn sampled(&self) -> u64 {
        self.state.lock().sampled
    }

    /// The rows and counts are others now.
    pub(crate) fn loaded(&self, sampled: u64) {
        let mut state = self.state.lock();
        (state.sampled, state.inserted) = (sampled, 0);
        self.changed(state);
    }

    /// A handle more, or less. Every writer and reader has one of its own.
    pub(crate) fn handle(&self, come: bool) {
        let mut state = self.state.lock();
        state.handles = if come { state.handles + 1 } else { state.handles - 1 };
        self.changed(state);
    }

    /// A writer or reader more, or less: counted later than its handle, and discounted sooner.
    pub(crate) fn of_side(&self, side: Side, come: bool) {
        let mut state = self.state.lock();
        let count = match side {
            Side::Insert => &mut state.writers,
            Side::Draw => &mut state.readers,
        };
        *count = if come { *count + 1 } else { *count - 1 };
    }
}

impl State {
    /// Nobody is left who could let a call on this side go on: all handles are on this side, or wait as well.
    fn hopeless(&self, side: Side) -> bool {
        let same = match side {
            Side::Insert => self.writers,
            Side::Draw => self.readers,
        };
        self.handles == same || self.handles == self.stuck
    }
}

/// Why a call is not allowed.
#[derive(Clone, Copy)]
enum Why {
    Few { size: u64, min_size: u64 },
    Expiring { left: u64 },
    Ahead { ahead: f64, bound: f64 },
    Behind { ahead: f64, bound: f64 },
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Why::Few { size, min_size } => write!(f, "{size} rows are live and min_size is {min_size}"),
            Why::Expiring { left } => {
                write!(f, "the rows have {left} draws left until they expire; insert first")
            }
            Why::Ahead { ahead, bound } => {
                write!(
                    f,
                    "inserts × samples_per_insert − samples would be {ahead}, above {bound}; draw first"
                )
            }
            Why::Behind { ahead, bound } => {
                write!(
                    f,
                    "inserts × samples_per_insert − samples would be {ahead}, below {bound}; insert first"
                )
            }
        }
    }
}

/// A call that is allowed and not finished.
pub(crate) struct Admitted<'a> {
    limiter: &'a Limiter,
    side: Side,
    rows: u64,
}

impl Admitted<'_> {
    /// `rows` of the rows have been inserted or drawn.
    pub(crate) fn done(&mut self, rows: usize) {
        let rows = self.rows.min(rows as u64);
        self.rows -= rows;
        let mut state = self.limiter.state.lock();
        match self.side {
            Side::Insert => {
                state.inserting -= rows;
                state.inserted += rows;
            }
            Side::Draw => {
                state.drawing -= rows;
                state.sampled += rows;
            }
        }
        self.limiter.changed(state);
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if self.rows > 0 {
            let mut state = self.limiter.state.lock();
            match self.side {
                // Only drawing can fail once it is allowed.
                Side::Insert => {
                    state.inserting -= self.rows;
                    state.inserted += self.rows;
                }
                Side::Draw => state.drawing -= self.rows,
            }
            self.limiter.changed(state);
        }
    }
}
