//! Frames stored once, against direct evaluation over whole episodes.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rl_replay::{
    Batch, Drawn, Dtype, FramePadding, FrameReader, FrameReplay, FrameStep, FrameStream, MemoryState,
    Prioritized, ReplayError, Rng,
};

const GAMMA: f64 = 0.9;

/// A frame that says where it is from. No element of it is 0, as those of padding are.
type Frame = [i32; 3];

fn frame(stream: usize, episode: usize, t: usize) -> Frame {
    [stream, episode, t].map(|number| number as i32 + 1)
}

fn reward(stream: usize, episode: usize, t: usize) -> f32 {
    (stream * 100 + episode * 10 + t) as f32 / 7.0 - 3.0
}

/// A row as it should be.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    frames: Vec<Frame>,
    action: i64,
    reward: f32,
    discount: f32,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    k: usize,
    n: usize,
    capacity: usize,
    extra: Option<usize>,
    /// Beyond the least that there must be.
    history: Option<usize>,
    zero: bool,
    prioritized: bool,
    streams: usize,
    seed: u64,
}

impl Case {
    fn build(self) -> FrameReplay {
        let mut builder = FrameReplay::builder((Dtype::I32, &[3]), (Dtype::I64, &[]))
            .stack(self.k)
            .n_step(self.n, GAMMA)
            .capacity(self.capacity)
            .reserve(1);
        if self.zero {
            builder = builder.padding(FramePadding::Zero);
        }
        if let Some(extra) = self.extra {
            builder = builder.extra_frames(extra);
        }
        if let Some(history) = self.history {
            builder = builder.history(self.k + self.n + 1 + history);
        }
        if self.prioritized {
            builder = builder.prioritized(Prioritized { alpha: 1.0, epsilon: 0.0 });
        }
        builder.build().unwrap()
    }

    /// The stack at time t, by definition.
    fn stack(self, stream: usize, episode: usize, t: usize) -> impl Iterator<Item = Frame> {
        (0..self.k).map(move |place| match (t + 1 + place).checked_sub(self.k) {
            Some(t) => frame(stream, episode, t),
            None if self.zero => [0; 3],
            None => frame(stream, episode, 0),
        })
    }

    /// The row for the step at time t, of which `span` steps were made, by definition.
    fn row(self, stream: usize, episode: usize, t: usize, span: usize, terminated: bool) -> Row {
        let skip = if self.n == 1 { self.k - 1 } else { 0 };
        let next = self.stack(stream, episode, t + span).skip(skip);
        let rewards = (0..span).map(|i| GAMMA.powi(i as i32) * f64::from(reward(stream, episode, t + i)));
        Row {
            frames: self.stack(stream, episode, t).chain(next).collect(),
            action: (stream * 1_000_000 + episode * 1000 + t) as i64,
            reward: rewards.sum::<f64>() as f32,
            discount: if terminated { 0.0 } else { GAMMA.powi(span as i32) as f32 },
        }
    }
}

/// Where an environment is.
#[derive(Clone, Copy, Default)]
struct Place {
    episode: usize,
    t: usize,
    length: usize,
}

/// A buffer, its streams, and what should be in it.
struct World {
    case: Case,
    replay: FrameReplay,
    reader: FrameReader,
    streams: Vec<FrameStream>,
    places: Vec<Place>,
    /// All rows ever inserted, by key, and their priorities.
    rows: Vec<Row>,
    priorities: Vec<f64>,
    largest: f64,
    rng: Rng,
    batch: Batch,
}

impl World {
    fn new(case: Case) -> Self {
        let replay = case.build();
        Self {
            reader: replay.sampler(),
            streams: (0..case.streams).map(|_| replay.stream()).collect(),
            places: vec![Place::default(); case.streams],
            rows: Vec::new(),
            priorities: Vec::new(),
            largest: 1.0,
            rng: Rng::seed_from_u64(case.seed),
            batch: Batch::new(replay.schema(), 20),
            replay,
            case,
        }
    }

    fn step(&mut self, stream: usize, lengths: usize) {
        let place = &mut self.places[stream];
        if place.t == place.length {
            *place = Place { episode: place.episode + 1, t: 0, length: self.rng.random_range(1..=lengths) };
            let first = frame(stream, place.episode, 0);
            self.streams[stream].begin(bytemuck::cast_slice(&first)).unwrap();
        }
        let Place { episode, t, length } = *place;
        place.t += 1;
        let ended = t + 1 == length;
        let terminated = ended && self.rng.random_bool(0.5);
        let truncated = ended && (!terminated || self.rng.random_bool(0.2));
        let next = frame(stream, episode, t + 1);
        let action = self.case.row(stream, episode, t, 0, false).action.to_ne_bytes();
        let rows = self.streams[stream]
            .step(FrameStep {
                action: &action,
                reward: reward(stream, episode, t),
                next_frame: bytemuck::cast_slice(&next),
                terminated,
                truncated,
            })
            .unwrap();
        let before = self.rows.len();
        let oldest = (t + 1).saturating_sub(self.case.n);
        if ended {
            self.rows
                .extend((oldest..=t).map(|at| self.case.row(stream, episode, at, t + 1 - at, terminated)));
        } else if t + 1 >= self.case.n {
            self.rows.push(self.case.row(stream, episode, oldest, self.case.n, false));
        }
        assert_eq!(rows, self.rows.len() - before);
        assert_eq!(self.replay.inserted(), self.rows.len() as u64);
    }

    /// Draws, and compares what came.
    fn draw(&mut self) {
        let mut drawn = Drawn::default();
        let live = self.replay.live();
        let result = self.reader.sample_into(&mut self.rng, 20, &mut self.batch.view_mut(), &mut drawn);
        if live.is_empty() {
            assert!(matches!(result, Err(ReplayError::Sample(_))));
            return;
        }
        result.unwrap();
        self.priorities.resize(self.rows.len(), self.largest);
        let (start, end) = (live.start as usize, live.end as usize);
        let mass: f64 = self.priorities[start..end].iter().sum();
        let window = self.replay.window();
        let frames: &[Frame] = bytemuck::cast_slice(self.batch.typed::<i32>("frames").unwrap());
        for (at, &key) in drawn.rows.iter().enumerate() {
            assert!(live.contains(&key));
            let one = |name: &str| self.batch.typed::<f32>(name).unwrap()[at];
            let row = Row {
                frames: frames[at * window..][..window].to_vec(),
                action: self.batch.typed::<i64>("action").unwrap()[at],
                reward: one("reward"),
                discount: one("discount"),
            };
            let expected = &self.rows[key as usize];
            assert!((row.reward - expected.reward).abs() < 1e-4);
            assert_eq!(row, Row { reward: row.reward, ..expected.clone() });
            let p = if self.case.prioritized {
                self.priorities[key as usize] / mass
            } else {
                1.0 / (end - start) as f64
            };
            assert!((drawn.probabilities[at] / p - 1.0).abs() < 1e-5);
        }
        if self.case.prioritized {
            let magnitudes: Vec<f32> = drawn.rows.iter().map(|_| self.rng.random_range(0.1..9.0)).collect();
            self.reader.update_priorities(&drawn.rows, &magnitudes).unwrap();
            for (key, magnitude) in drawn.rows.iter().zip(&magnitudes) {
                self.priorities[*key as usize] = f64::from(*magnitude);
                self.largest = self.largest.max(f64::from(*magnitude));
            }
        }
    }

    /// Goes on in another buffer, which was loaded, and which held something else if `used`.
    fn move_on(&mut self, used: bool) {
        let saved = MemoryState::save(|v| self.replay.visit(v)).unwrap();
        let streams: Vec<_> =
            self.streams.iter_mut().map(|s| MemoryState::save(|v| s.visit(v)).unwrap()).collect();
        let other = if used {
            let mut other = World::new(Case { seed: 99, ..self.case });
            for _ in 0..50 {
                other.step(0, 5);
            }
            self.streams = (0..self.case.streams).map(|_| other.replay.stream()).collect();
            self.reader = other.reader;
            other.replay
        } else {
            let other = self.case.build();
            self.streams = (0..self.case.streams).map(|_| other.stream()).collect();
            self.reader = other.sampler();
            other
        };
        saved.load(|v| other.visit(v)).unwrap();
        assert!(MemoryState::save(|v| other.visit(v)).unwrap() == saved);
        assert_eq!(other.live(), self.replay.live());
        for (stream, state) in self.streams.iter_mut().zip(&streams) {
            state.load(|v| stream.visit(v)).unwrap();
            assert!(MemoryState::save(|v| stream.visit(v)).unwrap() == *state);
        }
        self.replay = other;
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let sizes = (1usize..6, 1usize..6, 1usize..90);
    let rings = (prop::option::of(0usize..40), prop::option::of(0usize..30));
    (sizes, rings, any::<[bool; 2]>(), 1usize..5, any::<u64>()).prop_map(
        |((k, n, capacity), (extra, history), [zero, prioritized], streams, seed)| Case {
            k,
            n,
            capacity,
            extra,
            history,
            zero,
            prioritized,
            streams,
            seed,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_row_is_that_of_its_episode(
        case in cases(),
        steps in 1usize..900,
        lengths in 1usize..30,
        moves in prop::collection::vec(0usize..900, 0..3),
        quiet in 0.5f64..1.0,
    ) {
        let mut world = World::new(case);
        for step in 0..steps {
            // The first stream is often silent, and then for long.
            let from = usize::from(case.streams > 1 && world.rng.random_bool(quiet));
            let stream = world.rng.random_range(from..case.streams);
            world.step(stream, lengths);
            if step % 7 == 0 {
                world.draw();
            }
            if moves.contains(&step) {
                world.move_on(step % 2 == 0);
                world.draw();
            }
        }
        world.draw();
    }

    /// A load into a buffer while its own streams go on.
    #[test]
    fn streams_go_on_after_a_load(case in cases(), before in 0usize..200, after in 1usize..200) {
        let mut world = World::new(case);
        let empty = MemoryState::save(|v| world.replay.visit(v)).unwrap();
        let rows = before / 2;
        for step in 0..before {
            world.step(step % case.streams, 9);
        }
        empty.load(|v| world.replay.visit(v)).unwrap();
        prop_assert_eq!((world.replay.len(), world.replay.inserted_frames()), (0, 0));
        world.rows.clear();
        world.priorities.clear();
        world.largest = 1.0;
        for step in 0..after {
            world.step((step + rows) % case.streams, 9);
            world.draw();
        }
    }
}

fn default_case() -> Case {
    Case {
        k: 4,
        n: 1,
        capacity: 50_000,
        extra: None,
        history: None,
        zero: false,
        prioritized: false,
        streams: 8,
        seed: 0,
    }
}

#[test]
fn long_episodes_leave_every_row_drawable() {
    let replay = default_case().build();
    let mut streams: Vec<_> = (0..8).map(|_| replay.stream()).collect();
    for step in 0..16_000 {
        for (id, stream) in streams.iter_mut().enumerate() {
            let frame = frame(id, 0, step);
            // Episodes of 200 steps, not all at once.
            let t = step + 25 * id;
            if step == 0 || t % 200 == 0 {
                stream.begin(bytemuck::cast_slice(&frame)).unwrap();
            }
            let truncated = t % 200 == 199;
            let (action, next_frame) = (&[0; 8], bytemuck::cast_slice(&frame));
            stream.step(FrameStep { action, reward: 0.0, next_frame, terminated: false, truncated }).unwrap();
            assert_eq!(replay.len(), 50_000.min(replay.inserted() as usize));
        }
    }
    assert_eq!((replay.len(), replay.inserted()), (50_000, 128_000));
    // Each frame once: those of 16,000 steps of 8 streams, and the first ones of their 80 or 81 episodes.
    let firsts = replay.inserted_frames() - 128_000;
    assert!((8 * 80..=8 * 81).contains(&firsts), "{firsts}");
}

#[test]
fn short_episodes_leave_as_many_as_documented() {
    for prioritized in [false, true] {
        let case = Case { capacity: 4000, streams: 1, prioritized, ..default_case() };
        let mut world = World::new(case);
        for _ in 0..20_000 {
            world.step(0, 1);
        }
        // Two frames for each row: 4000 + 4000/128 + 20 of them, less a stack and a mark.
        let expected = (4000.0 + 31.0 + 20.0 - 5.0) / 2.0;
        let len = world.replay.len() as f64;
        assert!(len <= expected + 3.0 && len >= expected - 16.0, "{len} of {expected}");
        world.draw();
    }
}

#[test]
fn a_silence_costs_no_more_than_the_history() {
    let case = Case { capacity: 2000, extra: Some(100), history: Some(94), streams: 2, ..default_case() };
    let mut world = World::new(case);
    for round in 0..60 {
        world.places[0].length = usize::MAX;
        world.places[1].length = usize::MAX;
        if round == 0 {
            for stream in 0..2 {
                world.streams[stream].begin(bytemuck::cast_slice(&frame(stream, 0, 0))).unwrap();
            }
        }
        world.step(0, 1);
        for _ in 0..97 * (round % 3) + 1 {
            world.step(1, 1);
            if world.rows.len() >= 2200 {
                // 2100 frames, a history of 100, and a mark of 16; frames inserted anew are few.
                assert!(world.replay.len() >= 2000 - 100 - 16 - 5 * 21, "{}", world.replay.len());
            }
        }
        world.draw();
    }
    assert!(world.rows.len() > 4000);
    // Twenty rounds have a silence of 195 steps: the stack and no more goes in again.
    let anew = world.replay.inserted_frames() as usize - world.rows.len() - 2;
    assert!(anew > 0 && anew <= 4 * 40, "{anew}");
}

#[test]
fn what_is_refused_changes_nothing() {
    let f32s = || FrameReplay::builder((Dtype::F32, &[2]), (Dtype::F32, &[]));
    let replay = f32s().stack(2).n_step(2, 0.5).capacity(10).build().unwrap();
    let mut stream = replay.stream();
    let zero = [0u8; 8];
    let bytes = |x: f32| [x.to_ne_bytes(), x.to_ne_bytes()].concat();
    let good =
        FrameStep { action: &[0; 4], reward: 1.0, next_frame: &zero, terminated: false, truncated: false };
    let message = |result: Result<usize, ReplayError>| result.unwrap_err().to_string();
    assert!(message(stream.step(good)).contains("call `begin`"));
    assert!(matches!(stream.begin(&[0; 7]), Err(ReplayError::Bytes { .. })));
    assert!(matches!(stream.begin(&bytes(f32::NAN)), Err(ReplayError::NotFinite { .. })));
    assert!(message(stream.step(good)).contains("call `begin`"));
    stream.begin(&zero).unwrap();
    stream.step(good).unwrap();
    let state = MemoryState::save(|v| stream.visit(v)).unwrap();
    let buffer = MemoryState::save(|v| replay.visit(v)).unwrap();
    let infinite = bytes(f32::INFINITY);
    let bad = [
        FrameStep { action: &[0; 3], ..good },
        FrameStep { reward: f32::NAN, ..good },
        FrameStep { next_frame: &infinite, ..good },
        FrameStep { next_frame: &[], ..good },
        FrameStep { action: &infinite[..4], ..good },
    ];
    for step in bad {
        stream.step(step).unwrap_err();
        assert!(MemoryState::save(|v| stream.visit(v)).unwrap() == state);
        assert!(MemoryState::save(|v| replay.visit(v)).unwrap() == buffer);
    }
    // A return beyond f32.
    let largest = FrameStep { reward: f32::MAX, ..good };
    assert_eq!(stream.step(largest).unwrap(), 1);
    assert!(matches!(stream.step(largest), Err(ReplayError::NotFinite { .. })));
    assert_eq!((stream.open_steps(), replay.len()), (1, 1));
    assert_eq!(stream.step(FrameStep { terminated: true, ..good }).unwrap(), 2);
    assert!(message(stream.step(good)).contains("call `begin`"));

    for (builder, name) in [
        (f32s().capacity(0), "the capacity is 0"),
        (f32s().capacity(9).stack(0), "stack is 0"),
        (f32s().capacity(9).n_step(0, 0.9), "n_step is 0"),
        (f32s().capacity(9).n_step(1, 1.1), "gamma is 1.1"),
        (f32s().capacity(9).history(5), "history is 5"),
        (f32s().capacity(9).reserve(0), "reserve is 0"),
        (FrameReplay::builder((Dtype::U8, &[0]), (Dtype::U8, &[])).capacity(9), "stream of frames"),
        (f32s().capacity(1 << 40), "capacity is"),
    ] {
        let message = builder.build().unwrap_err().to_string();
        assert!(message.starts_with(name), "{message}");
    }
}

#[test]
fn states_that_do_not_fit_are_refused() {
    let case = Case { capacity: 60, streams: 2, n: 2, ..default_case() };
    let filled = |case: Case| {
        let mut world = World::new(case);
        for step in 0..100 {
            world.step(step % 2, 9);
        }
        world.replay
    };
    let saved = MemoryState::save(|v| filled(case).visit(v)).unwrap();
    for other in [
        Case { capacity: 20, ..case },
        Case { k: 3, ..case },
        Case { n: 1, ..case },
        Case { zero: true, ..case },
    ] {
        let other = filled(other);
        let before = MemoryState::save(|v| other.visit(v)).unwrap();
        saved.load(|v| other.visit(v)).unwrap_err();
        assert!(MemoryState::save(|v| other.visit(v)).unwrap() == before);
    }
    // More room is welcome.
    let larger = filled(Case { capacity: 200, ..case });
    saved.load(|v| larger.visit(v)).unwrap();
    assert_eq!(larger.live(), filled(case).live());
}
