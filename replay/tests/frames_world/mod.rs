//! Environments whose observations are frames, a buffer of their rows, and what is in it by direct evaluation over whole
//! episodes.
#![allow(dead_code, reason = "each test uses a part of it")]

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rl_replay::{
    Batch, Drawn, Dtype, FramePadding, FrameReader, FrameReplay, FrameStep, FrameStream, MemoryState,
    Prioritized, ReplayError, Rng,
};

pub const GAMMA: f64 = 0.9;

/// A frame that says where it is from. No element of it is 0, as those of padding are.
pub type Frame = [i32; 3];

pub fn frame(stream: usize, episode: usize, t: usize) -> Frame {
    [stream, episode, t].map(|number| number as i32 + 1)
}

pub fn reward(stream: usize, episode: usize, t: usize) -> f32 {
    (stream * 100 + episode * 10 + t) as f32 / 7.0 - 3.0
}

/// A row as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub frames: Vec<Frame>,
    pub action: i64,
    pub reward: f32,
    pub discount: f32,
}

#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub k: usize,
    pub n: usize,
    pub capacity: usize,
    pub extra: Option<usize>,
    /// Beyond the least that there must be.
    pub history: Option<usize>,
    pub zero: bool,
    pub prioritized: bool,
    pub streams: usize,
    pub seed: u64,
}

impl Case {
    pub fn build(self) -> FrameReplay {
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
    pub fn stack(self, stream: usize, episode: usize, t: usize) -> impl Iterator<Item = Frame> {
        (0..self.k).map(move |place| match (t + 1 + place).checked_sub(self.k) {
            Some(t) => frame(stream, episode, t),
            None if self.zero => [0; 3],
            None => frame(stream, episode, 0),
        })
    }

    /// The row for the step at time t, of which `span` steps were made, by definition.
    pub fn row(self, stream: usize, episode: usize, t: usize, span: usize, terminated: bool) -> Row {
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
pub struct Place {
    pub episode: usize,
    pub t: usize,
    pub length: usize,
}

/// A buffer, its streams, and what should be in it.
pub struct World {
    pub case: Case,
    pub replay: FrameReplay,
    pub reader: FrameReader,
    pub streams: Vec<FrameStream>,
    pub places: Vec<Place>,
    /// All rows ever inserted, by key, and their priorities.
    pub rows: Vec<Row>,
    pub priorities: Vec<f64>,
    pub largest: f64,
    pub rng: Rng,
    pub batch: Batch,
}

impl World {
    pub fn new(case: Case) -> Self {
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

    pub fn step(&mut self, stream: usize, lengths: usize) {
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
    pub fn draw(&mut self) {
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

    /// Goes on in another buffer, which was loaded, with streams that begin new episodes.
    pub fn restart_in(&mut self, loaded: FrameReplay) {
        assert_eq!(loaded.live(), self.replay.live());
        self.streams = (0..self.case.streams).map(|_| loaded.stream()).collect();
        for place in &mut self.places {
            *place = Place { episode: place.episode, ..Place::default() };
        }
        self.reader = loaded.sampler();
        self.replay = loaded;
    }

    /// What the buffer shows, without its capacity.
    pub fn state(&self) -> MemoryState {
        state(&self.replay)
    }

    /// Goes on in another buffer, which was loaded, and which held something else if `used`.
    pub fn move_on(&mut self, used: bool) {
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

pub fn cases() -> impl Strategy<Value = Case> {
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

pub fn default_case() -> Case {
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

/// What a buffer shows, without its capacity.
pub fn state(replay: &FrameReplay) -> MemoryState {
    let mut state = MemoryState::save(|v| replay.visit(v)).unwrap();
    state.remove("transitions.capacity").unwrap();
    state
}
