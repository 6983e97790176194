//! The two rings of a buffer of frames under a scheduler that tries one interleaving after the other (shuttle): the very
//! sources of the store, the streams and the reader. What they stand on, the buffer of rows, is put together here from the
//! ring as `src/buffer.rs`, `src/writer.rs` and `src/reader.rs` do it, with a sampler that draws the rows that
//! are nearest to losing their frames.
//!
//! Frames hold numbers that tell of their stream and step, and a row's action the number of its frame. A row that is
//! drawn without its frames gives other numbers, or the reader's own error.

#![allow(dead_code, reason = "the included sources offer more than the models use")]

#[path = "../src/control.rs"]
mod control;
#[path = "../src/copy.rs"]
mod copy;
#[path = "../src/half_float.rs"]
mod half_float;
#[path = "../src/layout.rs"]
mod layout;
#[path = "../src/frames/reader.rs"]
mod reader;
#[path = "../src/ring.rs"]
mod ring;
#[path = "../src/frames/store.rs"]
mod store;
#[path = "../src/frames/stream.rs"]
mod stream;
#[path = "model_sync/mod.rs"]
mod sync;
#[path = "../src/zeroed.rs"]
mod zeroed;

use control::PinCell;
use layout::Layout;
use limiter::Side;
use rand::SeedableRng;
use reader::FrameReader;
use ring::{Pin, Ring};
use rl_minibatch::{Batch, BatchMut, Drawn, Dtype, Field, Rng, SampleError, Schema, Updated};
use rl_replay::{FramePadding, Key, ReplayError, WhenLimited};
use shuttle::thread;
use std::ops::Range;
use std::sync::Arc;
use store::{PER_MARK, Store};
use stream::{FrameStep, FrameStream};
use sync::explore;

/// Schedules of each model and kind of scheduler: they are long.
const SCHEDULES: usize = 1_000;

/// Frames of a row of stacks of so many, as `src/frames/mod.rs` has it.
fn window(stack: usize, n: usize) -> usize {
    if n == 1 { stack + 1 } else { 2 * stack }
}

mod nstep {
    pub(crate) fn discounted(rewards: &[f32], _: f64) -> f32 {
        rewards.iter().sum()
    }

    pub(crate) fn power(_: f64, _: usize) -> f64 {
        1.0
    }
}

mod limiter {
    pub(crate) enum Side {
        Insert,
    }
}

mod writer {
    pub(crate) fn check_rows(_: &crate::Schema, _: usize, _: &[&[u8]]) -> Result<(), crate::ReplayError> {
        Ok(())
    }
}

/// The buffer of rows.
#[derive(Clone, Debug)]
struct Replay {
    ring: Arc<RowRing>,
    shared: Unlimited,
}

/// No rate limiter.
#[derive(Clone, Debug)]
struct Unlimited;

struct Admitted;

impl Drop for Admitted {
    fn drop(&mut self) {}
}

impl Unlimited {
    fn admit(&self, _: Side, _: usize, _: WhenLimited) -> Result<Option<Admitted>, ReplayError> {
        Ok(None)
    }
}

struct RowRing(Ring, Schema);

impl std::fmt::Debug for RowRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RowRing")
    }
}

impl Replay {
    fn schema(&self) -> &Schema {
        &self.ring.1
    }

    fn writer(&self) -> Writer {
        Writer(self.clone())
    }

    fn sampler(&self) -> Reader {
        Reader { replay: self.clone(), cell: self.ring.0.cell() }
    }

    fn uncounted(&self, _: bool) {}
}

#[derive(Debug)]
struct Writer(Replay);

impl Writer {
    fn push_checked(&self, row: &[&[u8]]) -> Key {
        let mut claim = self.0.ring.0.claim(1);
        let key = claim.keys().start;
        claim.write(0, row);
        claim.publish();
        key
    }
}

#[derive(Debug)]
struct Reader {
    replay: Replay,
    cell: PinCell,
}

impl Clone for Reader {
    fn clone(&self) -> Self {
        self.replay.sampler()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.replay.ring.0.withdraw(&self.cell);
    }
}

impl Reader {
    fn when_limited(self, _: WhenLimited) -> Self {
        self
    }

    fn pin_for_after<T>(
        &mut self,
        _: usize,
        first: impl FnOnce() -> Option<T>,
    ) -> Result<(T, Pinned<'_>), ReplayError> {
        let first = first().ok_or(SampleError::Empty)?;
        let pin = self.replay.ring.0.pin(&self.cell).ok_or(SampleError::Empty)?;
        // Held up with both pins: the streams go as far as they can.
        thread::yield_now();
        Ok((first, Pinned { live: pin.live(), pin }))
    }

    fn update_priorities(&mut self, _: &[Key], _: &[f32]) -> Result<Updated, ReplayError> {
        Ok(Updated::default())
    }
}

struct Pinned<'a> {
    pin: Pin<'a>,
    live: Range<Key>,
}

impl Pinned<'_> {
    fn narrow(&mut self, from: Key) {
        self.live.start = self.live.start.max(from).min(self.live.end);
    }

    /// The oldest rows that may be drawn.
    fn draw(&mut self, _: &mut Rng, count: usize, drawn: &mut Drawn) -> Result<(), ReplayError> {
        if self.live.is_empty() {
            return Err(SampleError::Empty.into());
        }
        drawn.rows = self.live.clone().cycle().take(count).collect();
        Ok(())
    }

    fn gather(&self, keys: &[Key], batch: &mut BatchMut<'_>) -> Result<(), ReplayError> {
        self.pin.gather(keys.iter().copied(), batch);
        Ok(())
    }
}

#[derive(Clone, Debug)]
struct FrameReplay {
    store: Arc<Store>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl FrameReplay {
    /// Stacks of `stack` frames, one step a row, and so much history: the smallest ring of frames that goes with it, which
    /// lets so many more be written while it is read, and room for more rows than have frames.
    fn new(stack: usize, history: u64, ahead: u64) -> Self {
        let scalar = |name: &str, dtype| Field::new(name, dtype, []);
        let fields = || {
            vec![scalar("action", Dtype::I64), scalar("reward", Dtype::F32), scalar("discount", Dtype::F32)]
        };
        let references = Field::new("references", Dtype::U8, [4 * (stack + 1)]);
        let row_schema = Schema::new([fields(), vec![references]].concat()).unwrap();
        let frame = Field::new("frames", Dtype::I64, [stack + 1]);
        let batch_schema = Schema::new([vec![frame], fields()].concat()).unwrap();
        let frame_schema = Schema::new(vec![scalar("frame", Dtype::I64)]).unwrap();
        let rows = Ring::new(Layout::packed(&row_schema), 64, ahead).unwrap();
        let frames = Ring::new(Layout::packed(&frame_schema), history + 2 * PER_MARK, ahead).unwrap();
        let rows = Replay { ring: Arc::new(RowRing(rows, row_schema)), shared: Unlimited };
        let settings = (stack, 1, 1.0, FramePadding::Repeat);
        Self { store: Arc::new(Store::new(rows, frames, frame_schema, batch_schema, settings, history)) }
    }

    fn schema(&self) -> &Schema {
        &self.store.batch_schema
    }

    fn live(&self) -> Range<Key> {
        let (from, live) = (self.store.drawable_from(), self.store.rows.ring.0.live());
        live.start.max(from).min(live.end)..live.end
    }
}

/// An environment whose episode goes on and on.
struct Environment {
    stream: FrameStream,
    frame: i64,
}

impl Environment {
    fn new(replay: &FrameReplay, number: i64) -> Self {
        let (mut stream, frame) = (FrameStream::new(replay.store.clone()), number * 1000);
        stream.begin(&frame.to_ne_bytes()).unwrap();
        Self { stream, frame }
    }

    fn step(&mut self) {
        let action = self.frame.to_ne_bytes();
        self.frame += 1;
        let next_frame = &self.frame.to_ne_bytes();
        let step =
            FrameStep { action: &action, reward: 1.0, next_frame, terminated: false, truncated: false };
        assert_eq!(self.stream.step(step).unwrap(), 1);
    }
}

/// Draws some of the oldest rows, and checks that there are such and that each has its frames.
fn read(replay: &FrameReplay, reader: &mut FrameReader, batch: &mut Batch) {
    let (mut rng, mut drawn) = (Rng::seed_from_u64(0), Drawn::default());
    let stack = replay.store.stack as i64;
    reader.sample_into(&mut rng, batch.rows(), &mut batch.view_mut(), &mut drawn).unwrap();
    let (frames, actions) = (batch.typed::<i64>("frames").unwrap(), batch.typed::<i64>("action").unwrap());
    for (frames, action) in frames.chunks_exact(stack as usize + 1).zip(actions) {
        let first = action / 1000 * 1000;
        let expected: Vec<i64> = (action + 1 - stack..=action + 1).map(|frame| frame.max(first)).collect();
        assert_eq!(frames, expected, "the row for the action at frame {action}");
    }
}

/// Fills the ring of frames with `before` steps, the streams' turn by turn, then lets streams and a reader go on at once.
fn streams_and_readers(
    (stack, history, ahead): (usize, u64, u64),
    before: usize,
    steps: [usize; 2],
    reads: usize,
) {
    explore(SCHEDULES, move || {
        let replay = FrameReplay::new(stack, history, ahead);
        let mut environments = [0, 1].map(|number| Environment::new(&replay, number));
        for step in 0..before {
            environments[step % 2].step();
        }
        let mut threads = Vec::new();
        for (mut environment, steps) in environments.into_iter().zip(steps) {
            threads.push(thread::spawn(move || (0..steps).for_each(|_| environment.step())));
        }
        let drawn_from = replay.clone();
        threads.push(thread::spawn(move || {
            let mut reader = FrameReader::new(drawn_from.store.clone());
            let mut batch = Batch::new(drawn_from.schema(), 2);
            (0..reads).for_each(|_| read(&drawn_from, &mut reader, &mut batch));
        }));
        for thread in threads {
            thread.join().unwrap();
        }
        // Now that nobody goes on: every row that is said to be drawable has its frames.
        let live = replay.live();
        let mut batch = Batch::new(replay.schema(), live.count());
        read(&replay, &mut FrameReader::new(replay.store.clone()), &mut batch);
    });
}

/// The frames that leave are those around the end of a block with one mark.
#[test]
fn rows_go_before_their_frames_do() {
    // 4 + 32 frames; each stream inserts its first one with its first step.
    let leave = |frames: usize| 4 + 32 + frames - 2;
    for before in [leave(15), leave(16)] {
        streams_and_readers((1, 4, 1), before, [2, 2], 2);
    }
}

/// Streams that wait for each other longer than the history insert their stacks anew.
#[test]
fn a_silent_stream_comes_back() {
    streams_and_readers((2, 4, 1), 4 + 32 + 8, [1, 6], 1);
}

/// While a reader is held up, a whole lap of frames may leave, and the rows with them: it still finds rows to draw.
#[test]
fn a_reader_that_is_held_up_finds_rows() {
    streams_and_readers((1, 4, 64), 4 + 32, [0, 48], 1);
}
