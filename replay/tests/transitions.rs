//! Transitions with next_obs stored and derived: the same rows, those of direct evaluation over whole episodes.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rl_replay::{
    Batch, Drawn, Dtype, FramePadding, MemoryState, NextObs, Prioritized, RateLimiter, ReplayError, Rng,
    Schema, TransitionReader, TransitionStep, TransitionStream, Transitions, TransitionsBuilder, WhenLimited,
};

const GAMMA: f64 = 0.9;
const BATCH: usize = 16;

/// An observation that says where it is from; a frame, where they are stacked.
type Obs = [i32; 3];

fn obs(stream: usize, episode: usize, t: usize) -> Obs {
    [stream, episode, t].map(|number| number as i32 + 1)
}

/// In sevenths, so that sums are rounded.
fn reward(stream: usize, episode: usize, t: usize) -> f32 {
    (stream * 100 + episode * 10 + t) as f32 / 7.0 - 3.0
}

fn action(stream: usize, episode: usize, t: usize) -> i64 {
    (stream * 1_000_000 + episode * 1000 + t) as i64
}

/// A row, as drawn or as it should be.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    obs: Vec<Obs>,
    next_obs: Vec<Obs>,
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
    prioritized: bool,
    streams: usize,
    seed: u64,
}

impl Case {
    fn builder(self) -> TransitionsBuilder {
        let builder = Transitions::builder((Dtype::I32, &[3]), (Dtype::I64, &[]))
            .capacity(self.capacity)
            .stack(self.k)
            .n_step(self.n, GAMMA);
        let builder = match self.extra {
            Some(frames) => builder.extra_frames(frames),
            None => builder,
        };
        let settings = Prioritized { alpha: 1.0, epsilon: 0.0 };
        if self.prioritized { builder.prioritized(settings) } else { builder }
    }

    fn stack(self, stream: usize, episode: usize, t: usize) -> Vec<Obs> {
        (0..self.k).map(|place| obs(stream, episode, (t + 1 + place).saturating_sub(self.k))).collect()
    }

    /// The row for the step at time t of an episode that has `length` steps so far, by definition; `None` when it is not
    /// there yet, or never.
    fn row(self, stream: usize, episode: &Episode, t: usize) -> Option<Row> {
        let Episode { number, length, end } = *episode;
        let span = self.n.min(length - t);
        if span < self.n && !matches!(end, End::Terminated | End::Truncated) {
            return None;
        }
        let terminated = t + span == length && end == End::Terminated;
        let rewards = (0..span).map(|i| GAMMA.powi(i as i32) * f64::from(reward(stream, number, t + i)));
        Some(Row {
            obs: self.stack(stream, number, t),
            next_obs: self.stack(stream, number, t + span),
            action: action(stream, number, t),
            reward: rewards.sum::<f64>() as f32,
            discount: if terminated { 0.0 } else { GAMMA.powi(span as i32) as f32 },
        })
    }
}

/// How far an episode has gone.
#[derive(Clone, Copy, Debug)]
struct Episode {
    number: usize,
    length: usize,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    GoesOn,
    Terminated,
    Truncated,
    /// Left without an end, by `discontinue` or another `begin`.
    Left,
}

/// What the environments do, made beforehand so that both storages see the same.
#[derive(Clone, Copy, Debug)]
enum Act {
    Begin(usize),
    Step(usize, End),
    Discontinue(usize),
    Draw,
    Priorities,
}

fn script(case: Case, steps: usize, lengths: usize) -> Vec<Act> {
    let mut rng = Rng::seed_from_u64(case.seed);
    let mut left = vec![0usize; case.streams];
    let mut acts = Vec::new();
    for step in 0..steps {
        let stream = rng.random_range(0..case.streams);
        if left[stream] == 0 || rng.random_bool(0.02) {
            // Some are begun anew in the middle.
            if left[stream] > 0 && rng.random_bool(0.5) {
                acts.push(Act::Discontinue(stream));
            }
            left[stream] = rng.random_range(1..=lengths);
            acts.push(Act::Begin(stream));
        }
        left[stream] -= 1;
        let end = match (left[stream], rng.random_bool(0.5)) {
            (0, true) => End::Terminated,
            (0, false) => End::Truncated,
            _ => End::GoesOn,
        };
        acts.push(Act::Step(stream, end));
        if step % 5 == 0 {
            acts.extend([Act::Draw, Act::Priorities]);
        }
    }
    acts.push(Act::Draw);
    acts
}

struct World {
    case: Case,
    transitions: Transitions,
    streams: Vec<TransitionStream>,
    reader: TransitionReader,
    /// All episodes of each stream.
    episodes: Vec<Vec<Episode>>,
    /// Of each row that was inserted, by key: the stream, the episode's place, and the time.
    keys: Vec<(usize, usize, usize)>,
    rng: Rng,
    batch: Batch,
    drawn: Drawn,
}

impl World {
    fn new(case: Case, next_obs: NextObs) -> Self {
        Self::of(case, case.builder().next_obs(next_obs).build().unwrap())
    }

    fn of(case: Case, transitions: Transitions) -> Self {
        Self {
            streams: (0..case.streams).map(|_| transitions.stream()).collect(),
            reader: transitions.sampler(),
            episodes: vec![Vec::new(); case.streams],
            keys: Vec::new(),
            rng: Rng::seed_from_u64(case.seed),
            batch: Batch::new(transitions.schema(), BATCH),
            drawn: Drawn::default(),
            transitions,
            case,
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Begin(stream) => {
                if let Some(last) = self.episodes[stream].last_mut()
                    && last.end == End::GoesOn
                {
                    last.end = End::Left;
                }
                let number = self.episodes[stream].len();
                self.episodes[stream].push(Episode { number, length: 0, end: End::GoesOn });
                self.streams[stream].begin(bytemuck::cast_slice(&obs(stream, number, 0))).unwrap();
            }
            Act::Discontinue(stream) => {
                self.streams[stream].discontinue();
                assert!(!self.streams[stream].in_episode() && self.streams[stream].open_steps() == 0);
            }
            Act::Step(stream, end) => self.step(stream, end),
            Act::Draw => self.draw(),
            Act::Priorities if self.case.prioritized && !self.drawn.rows.is_empty() => {
                let magnitudes: Vec<f32> = self.drawn.rows.iter().map(|key| (key % 7) as f32 + 0.5).collect();
                self.reader.update_priorities(&self.drawn.rows, &magnitudes).unwrap();
            }
            Act::Priorities => {}
        }
    }

    fn step(&mut self, stream: usize, end: End) {
        let place = self.episodes[stream].len() - 1;
        let episode = &mut self.episodes[stream][place];
        let (number, t) = (episode.number, episode.length);
        (episode.length, episode.end) = (t + 1, end);
        let next_obs = obs(stream, number, t + 1);
        let rows = self.streams[stream]
            .step(TransitionStep {
                action: &action(stream, number, t).to_ne_bytes(),
                reward: reward(stream, number, t),
                next_obs: bytemuck::cast_slice(&next_obs),
                terminated: end == End::Terminated,
                truncated: end == End::Truncated,
            })
            .unwrap();
        let oldest = (t + 1).saturating_sub(self.case.n);
        let new = match (end, t + 1 >= self.case.n) {
            (End::GoesOn, false) => oldest..oldest,
            (End::GoesOn, true) => oldest..oldest + 1,
            _ => oldest..t + 1,
        };
        assert_eq!(rows, new.len());
        self.keys.extend(new.map(|t| (stream, place, t)));
        assert_eq!(self.transitions.inserted(), self.keys.len() as u64);
        assert_eq!(self.streams[stream].in_episode(), end == End::GoesOn);
    }

    fn draw(&mut self) {
        let live = self.transitions.live();
        let result =
            self.reader.sample_into(&mut self.rng, BATCH, &mut self.batch.view_mut(), &mut self.drawn);
        if live.is_empty() {
            assert!(matches!(result, Err(ReplayError::Sample(_))));
            self.drawn = Drawn::default();
            return;
        }
        result.unwrap();
        let rows = rows(&self.transitions, &self.batch);
        for (key, row) in self.drawn.rows.iter().zip(rows) {
            assert!(live.contains(key));
            let (stream, place, t) = self.keys[*key as usize];
            // As the episode was when the row came; it may have been left since.
            let episode = self.episodes[stream][place];
            let expected = self.case.row(stream, &episode, t).unwrap();
            assert!((row.reward - expected.reward).abs() < 1e-4);
            assert_eq!(row, Row { reward: row.reward, ..expected });
        }
    }

    /// Everything that is to be saved.
    fn save(&mut self) -> (MemoryState, Vec<MemoryState>) {
        let buffer = MemoryState::save(|v| self.transitions.visit(v)).unwrap();
        let streams = self.streams.iter_mut().map(|stream| MemoryState::save(|v| stream.visit(v)).unwrap());
        (buffer, streams.collect())
    }

    /// Another one that was loaded from this one, and held something else before if `used`.
    fn resumed(&mut self, used: bool) -> World {
        let mut other = World::new(Case { seed: 99, ..self.case }, self.transitions.next_obs());
        if used {
            script(other.case, 60, 7).into_iter().for_each(|act| other.act(act));
        }
        let (buffer, streams) = self.save();
        // Streams before the buffer or after it.
        if used {
            buffer.load(|v| other.transitions.visit(v)).unwrap();
        }
        for (stream, state) in other.streams.iter_mut().zip(&streams) {
            state.load(|v| stream.visit(v)).unwrap();
        }
        if !used {
            buffer.load(|v| other.transitions.visit(v)).unwrap();
        }
        (other.episodes, other.keys) = (self.episodes.clone(), self.keys.clone());
        (other.rng, other.drawn) = (self.rng.clone(), self.drawn.clone());
        other
    }
}

/// The rows of a batch, in the one way that goes for both storages.
fn rows(transitions: &Transitions, batch: &Batch) -> Vec<Row> {
    let views = transitions.views();
    let of = |row: &[i32]| row.as_chunks::<3>().0.to_vec();
    let obs = views.obs.rows::<i32>(batch).unwrap().map(of);
    let next_obs = views.next_obs.rows::<i32>(batch).unwrap().map(of);
    let action = batch.typed::<i64>("action").unwrap();
    let reward = batch.typed::<f32>("reward").unwrap();
    let discount = batch.typed::<f32>("discount").unwrap();
    assert_eq!((obs.len(), next_obs.len()), (batch.rows(), batch.rows()));
    let both = obs.zip(next_obs).enumerate();
    both.map(|(at, (obs, next_obs))| Row {
        obs,
        next_obs,
        action: action[at],
        reward: reward[at],
        discount: discount[at],
    })
    .collect()
}

fn cases() -> impl Strategy<Value = Case> {
    let sizes = (1usize..6, 1usize..90, prop::option::of(0usize..60));
    (sizes, any::<bool>(), 1usize..5, any::<u64>()).prop_map(
        |((n, capacity, extra), prioritized, streams, seed)| Case {
            k: 1,
            n,
            capacity,
            extra,
            prioritized,
            streams,
            seed,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Each draw is compared with direct evaluation in `draw`; here the two storages with each other.
    #[test]
    fn stored_and_derived_are_the_same(case in cases(), steps in 1usize..700, lengths in 1usize..40) {
        let mut stored = World::new(case, NextObs::Stored);
        let mut derived = World::new(case, NextObs::Derived);
        let mut together = true;
        for act in script(case, steps, lengths) {
            stored.act(act);
            derived.act(act);
            prop_assert_eq!(&stored.keys, &derived.keys);
            let (all, some) = (stored.transitions.live(), derived.transitions.live());
            // Derived, the newest of them: less with short episodes.
            prop_assert!(some.start >= all.start && some.end == all.end);
            // Priorities are sent back for what was drawn, so once draws differ they differ for good.
            together &= some == all;
            if together {
                prop_assert_eq!(&stored.drawn.rows, &derived.drawn.rows);
                prop_assert_eq!(&stored.drawn.probabilities, &derived.drawn.probabilities);
                let [a, b] = [&stored, &derived].map(|world| rows(&world.transitions, &world.batch));
                prop_assert!(stored.drawn.rows.is_empty() || a == b);
            }
        }
        // With room for all observations that are no row's own, and a mark's, nothing is missing. They are the first ones of
        // episodes, and those of steps that were left open.
        let surplus = derived.transitions.as_derived().unwrap().inserted_frames() - derived.transitions.inserted();
        let room = case.extra.is_some_and(|extra| extra as u64 >= surplus + 16);
        // With several streams the rows of one that was silent need older ones.
        if room && case.streams == 1 {
            prop_assert!(together);
        }
    }

    #[test]
    fn stacks_are_those_of_their_episodes(
        case in cases(), k in 2usize..6, steps in 1usize..400, lengths in 1usize..30,
    ) {
        let mut world = World::new(Case { k, ..case }, NextObs::Auto);
        prop_assert_eq!((world.transitions.next_obs(), world.transitions.stack()), (NextObs::Derived, k));
        script(world.case, steps, lengths).into_iter().for_each(|act| world.act(act));
    }

    /// In the middle of episodes, with a ring that has gone around or not.
    #[test]
    fn a_resumed_run_is_the_same_run(
        case in cases(), k in 1usize..4, derived in any::<bool>(), used in any::<bool>(),
        steps in 2usize..500, lengths in 1usize..40, at in 0.0f64..1.0,
    ) {
        let case = Case { k: if derived { k } else { 1 }, ..case };
        let next_obs = if derived { NextObs::Derived } else { NextObs::Stored };
        let mut world = World::new(case, next_obs);
        let acts = script(case, steps, lengths);
        let (before, after) = acts.split_at((acts.len() as f64 * at) as usize);
        before.iter().for_each(|act| world.act(*act));
        let mut resumed = world.resumed(used);
        prop_assert!(world.save() == resumed.save());
        for act in after {
            world.act(*act);
            resumed.act(*act);
            prop_assert_eq!(world.transitions.live(), resumed.transitions.live());
            prop_assert_eq!(&world.drawn.rows, &resumed.drawn.rows);
            prop_assert_eq!(&world.drawn.probabilities, &resumed.drawn.probabilities);
        }
        let [(a, streams), (b, resumed)] = [world.save(), resumed.save()];
        prop_assert_eq!(a.differences(&b), [""; 0]);
        prop_assert!(streams == resumed);
    }
}

#[test]
fn long_episodes_keep_every_row_and_go_around() {
    for n in [1, 3] {
        let case = Case { k: 1, n, capacity: 5000, extra: None, prioritized: false, streams: 1, seed: 0 };
        let mut worlds = [NextObs::Stored, NextObs::Derived].map(|next_obs| World::new(case, next_obs));
        for world in &mut worlds {
            world.act(Act::Begin(0));
            for t in 1..=12_200 {
                let end = if t % 200 == 0 { End::Truncated } else { End::GoesOn };
                world.act(Act::Step(0, end));
                if end == End::Truncated {
                    world.act(Act::Begin(0));
                }
                let rows = world.transitions.inserted();
                assert_eq!(world.transitions.live(), rows.saturating_sub(5000)..rows);
                assert!(!world.transitions.is_empty() || t < n);
            }
            world.act(Act::Draw);
            assert_eq!((world.transitions.len(), world.transitions.capacity()), (5000, 5000));
        }
        let [stored, derived] = &worlds;
        assert_eq!(stored.drawn.rows, derived.drawn.rows);
    }
}

fn sized(dtype: Dtype, shape: &[usize]) -> TransitionsBuilder {
    Transitions::builder((dtype, shape), (Dtype::I64, &[])).capacity(100)
}

#[test]
fn the_size_decides() {
    let of = |builder: TransitionsBuilder| builder.build().unwrap().next_obs();
    let least = NextObs::DERIVED_FROM_BYTES;
    assert_eq!(of(sized(Dtype::U8, &[least - 1])), NextObs::Stored);
    assert_eq!(of(sized(Dtype::U8, &[least])), NextObs::Derived);
    // Bytes, not elements.
    assert_eq!(of(sized(Dtype::F64, &[least / 8])), NextObs::Derived);
    assert_eq!(of(sized(Dtype::F64, &[least / 8 - 1])), NextObs::Stored);
    assert_eq!(of(sized(Dtype::F32, &[])), NextObs::Stored);
    assert_eq!(of(sized(Dtype::U8, &[2]).stack(2)), NextObs::Derived);
    // Asked for.
    assert_eq!(of(sized(Dtype::U8, &[2 * least]).next_obs(NextObs::Stored)), NextObs::Stored);
    assert_eq!(of(sized(Dtype::U8, &[2]).next_obs(NextObs::Derived)), NextObs::Derived);
    let stored = sized(Dtype::U8, &[2]).build().unwrap();
    assert!(stored.as_stored().is_some() && stored.as_derived().is_none());
    let plain = Schema::transition((Dtype::U8, &[2]), (Dtype::I64, &[])).unwrap();
    assert_eq!(*stored.as_stored().unwrap().schema(), plain);
}

#[test]
fn views_are_where_they_are_said_to_be() {
    let views = |builder: TransitionsBuilder| {
        let transitions = builder.build().unwrap();
        let views = transitions.views();
        for view in [views.obs, views.next_obs] {
            assert_eq!(transitions.schema().fields()[view.field].shape[0], view.of);
            assert!(view.start + view.len <= view.of);
            assert_eq!(view.len, transitions.stack());
        }
        [views.obs, views.next_obs].map(|view| (view.field, view.of, view.start..view.start + view.len))
    };
    let image = || sized(Dtype::U8, &[64, 64]);
    assert_eq!(views(sized(Dtype::F32, &[4])), [(0, 1, 0..1), (4, 1, 0..1)]);
    assert_eq!(views(image()), [(0, 2, 0..1), (0, 2, 1..2)]);
    assert_eq!(views(image().n_step(3, 0.9)), [(0, 2, 0..1), (0, 2, 1..2)]);
    assert_eq!(views(image().stack(4)), [(0, 5, 0..4), (0, 5, 1..5)]);
    assert_eq!(views(image().stack(4).n_step(3, 0.9)), [(0, 8, 0..4), (0, 8, 4..8)]);

    // Batches of something else.
    let transitions = sized(Dtype::F32, &[4]).build().unwrap();
    let (obs, next_obs) = (transitions.views().obs, transitions.views().next_obs);
    let message = |schema: &Schema| obs.rows::<f32>(&Batch::new(schema, 2)).err().map(|e| e.to_string());
    let plain = Schema::transition((Dtype::F32, &[4]), (Dtype::I64, &[])).unwrap();
    assert_eq!(message(transitions.schema()), None);
    assert!(message(&plain).unwrap().contains("[4]"));
    let scalar = Schema::transition((Dtype::F32, &[]), (Dtype::I64, &[])).unwrap();
    assert!(message(&scalar).is_some());
    let frames = image().build().unwrap();
    assert!(message(frames.schema()).is_some());
    let short = Batch::new(frames.schema(), 2);
    assert!(next_obs.rows::<f32>(&short).is_err());
    assert!(obs.rows::<u8>(&Batch::new(transitions.schema(), 2)).is_err());
}

#[test]
fn memory_is_stated_before_it_is_taken() {
    let image = || sized(Dtype::U8, &[64, 64]).capacity(10_000);
    for next_obs in [NextObs::Stored, NextObs::Derived] {
        let builder = || image().next_obs(next_obs);
        let stated = builder().memory_bytes().unwrap();
        let transitions = builder().build().unwrap();
        // Beside the rows there is some bookkeeping.
        let reserved = transitions.memory_bytes() as u128;
        assert!(stated > reserved && stated < reserved + 100_000, "{stated} of {reserved}");
        // And a tree of priorities.
        let prioritized = builder().prioritized(Prioritized::default()).memory_bytes().unwrap();
        assert!((80_000..100_000).contains(&(prioritized - stated)));
        assert!(builder().rank_based(0.7).memory_bytes().unwrap() > prioritized);
    }
    let huge = || sized(Dtype::U8, &[1 << 20]).capacity(1 << 30);
    for next_obs in [NextObs::Stored, NextObs::Derived] {
        assert!(huge().next_obs(next_obs).memory_bytes().unwrap() > 1 << 50);
        if cfg!(target_os = "linux") {
            let error = huge().next_obs(next_obs).build().unwrap_err();
            let ReplayError::TooLarge { rows, bytes, available, fits } = error else { panic!("{error}") };
            let least = huge().capacity(fits as usize).next_obs(next_obs).memory_bytes().unwrap();
            assert!(rows == 1 << 30 && bytes > 1 << 50 && least <= available.into());
            let more = huge().capacity(fits as usize + 1).next_obs(next_obs).memory_bytes().unwrap();
            assert!(more > available.into());
        }
    }
}

#[test]
fn what_is_refused_changes_nothing() {
    for next_obs in [NextObs::Stored, NextObs::Derived] {
        let transitions = Transitions::builder((Dtype::F32, &[2]), (Dtype::F32, &[]))
            .n_step(2, 0.5)
            .capacity(10)
            .next_obs(next_obs)
            .build()
            .unwrap();
        let mut stream = transitions.stream();
        let bytes = |x: f32| [x.to_ne_bytes(), x.to_ne_bytes()].concat();
        let (zero, nan) = (bytes(0.0), bytes(f32::NAN));
        let good = TransitionStep {
            action: &[0; 4],
            reward: 1.0,
            next_obs: &zero,
            terminated: false,
            truncated: false,
        };
        assert!(matches!(stream.step(good), Err(ReplayError::NotBegun)));
        let message = stream.begin(&[0; 7]).unwrap_err().to_string();
        assert!(message.starts_with("column 'obs' was given 7 bytes"), "{message}");
        assert!(stream.begin(&nan).unwrap_err().to_string().contains("column 'obs', element 0"));
        assert!(!stream.in_episode());
        stream.begin(&zero).unwrap();
        stream.step(good).unwrap();
        let state = MemoryState::save(|v| stream.visit(v)).unwrap();
        let buffer = MemoryState::save(|v| transitions.visit(v)).unwrap();
        let bad = [
            (TransitionStep { action: &[0; 3], ..good }, "column 'action' was given 3"),
            (TransitionStep { reward: f32::NAN, ..good }, "row 0, column 'reward'"),
            (TransitionStep { next_obs: &nan, ..good }, "row 0, column 'next_obs', element 0"),
            (TransitionStep { next_obs: &[], ..good }, "column 'next_obs' was given 0"),
            (TransitionStep { action: &nan[..4], ..good }, "row 0, column 'action'"),
        ];
        for (step, expected) in bad {
            let message = stream.step(step).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
            assert!(MemoryState::save(|v| stream.visit(v)).unwrap() == state);
            assert!(MemoryState::save(|v| transitions.visit(v)).unwrap() == buffer);
        }
        // A return beyond f32.
        let largest = TransitionStep { reward: f32::MAX, ..good };
        assert_eq!(stream.step(largest).unwrap(), 1);
        assert!(matches!(stream.step(largest), Err(ReplayError::NotFinite { .. })));
        assert_eq!((stream.open_steps(), transitions.len()), (1, 1));
        assert_eq!(stream.step(TransitionStep { truncated: true, ..good }).unwrap(), 2);
        assert!(matches!(stream.step(good), Err(ReplayError::NotBegun)));
        assert!(stream.begin(&nan).is_err() && !stream.in_episode());
    }
}

#[test]
fn settings_out_of_range_are_refused() {
    let f32s = || sized(Dtype::F32, &[2]);
    for (builder, begins) in [
        (f32s().capacity(0), "the capacity is 0"),
        (f32s().stack(0), "stack is 0; it must be at least 1"),
        (f32s().stack(2).next_obs(NextObs::Stored), "stack is 2; it must be 1 where next_obs is stored"),
        (f32s().stack(5000), "stack is 5000"),
        (f32s().n_step(0, 0.9), "n_step is 0"),
        (f32s().n_step(5000, 0.9), "n_step is 5000"),
        (f32s().next_obs(NextObs::Derived).n_step(0, 0.9), "n_step is 0"),
        (f32s().next_obs(NextObs::Derived).n_step(5000, 0.9), "n_step is 5000"),
        (f32s().n_step(1, 1.5), "gamma is 1.5"),
        (f32s().next_obs(NextObs::Derived).n_step(1, -0.5), "gamma is -0.5"),
        (f32s().reserve(0), "reserve is 0"),
        (f32s().next_obs(NextObs::Derived).reserve(0), "reserve is 0"),
        (f32s().prioritized(Prioritized { alpha: -1.0, epsilon: 0.0 }), "alpha is -1"),
        (sized(Dtype::F32, &[0]), "field 'obs' of shape [0] holds no element"),
        (sized(Dtype::F32, &[usize::MAX, 9]), "with field 'obs' of shape"),
        (sized(Dtype::F32, &[0]).stack(4), "field 'obs' of shape [0] holds no element"),
    ] {
        // What is stated is refused as well, but for settings of the sampler.
        assert!(
            builder.memory_bytes().is_err() || begins.starts_with("alpha") || begins.starts_with("reserve")
        );
        let message = builder.build().unwrap_err().to_string();
        assert!(message.starts_with(begins), "{message}");
    }
}

#[test]
fn states_of_the_other_storage_are_refused() {
    let case = Case { k: 1, n: 2, capacity: 50, extra: None, prioritized: true, streams: 2, seed: 3 };
    let filled = |next_obs| {
        let mut world = World::new(case, next_obs);
        script(case, 80, 9).into_iter().for_each(|act| world.act(act));
        world
    };
    let mut worlds = [filled(NextObs::Stored), filled(NextObs::Derived)];
    let saved = [worlds[0].save(), worlds[1].save()];
    for (world, (buffer, streams)) in worlds.iter_mut().zip([&saved[1], &saved[0]]) {
        let before = world.save();
        let message = buffer.load(|v| world.transitions.visit(v)).unwrap_err().to_string();
        assert!(message.contains("next_obs stored") && message.contains("next_obs derived"), "{message}");
        for (stream, state) in world.streams.iter_mut().zip(streams) {
            state.load(|v| stream.visit(v)).unwrap_err();
        }
        assert!(world.save() == before);
    }
    // A stream's state that makes no sense.
    for (world, (_, streams)) in worlds.iter_mut().zip(&saved) {
        let kind = if world.transitions.next_obs() == NextObs::Stored { "stored" } else { "derived" };
        let before = world.save();
        for (path, value) in [("begun", 7u64), (if kind == "stored" { "n_step.open" } else { "open" }, 2)] {
            let mut damaged = streams[0].clone();
            let piece = damaged.get_mut(&format!("{kind}.{path}"));
            let Some(rl_replay::Piece::Array { bytes, .. }) = piece else { panic!("{kind}.{path}") };
            bytes.copy_from_slice(&value.to_ne_bytes());
            damaged.load(|v| world.streams[0].visit(v)).unwrap_err();
            assert!(world.save() == before);
        }
    }
}

/// A stream whose state is loaded beside another buffer, whose frames are not its own.
#[test]
fn a_stream_that_is_loaded_alone_brings_its_frames() {
    for (k, n) in [(1, 1), (1, 3), (3, 2)] {
        let case = Case { k, n, capacity: 200, extra: None, prioritized: false, streams: 1, seed: 0 };
        let mut world = World::new(case, NextObs::Derived);
        let mut other = World::new(case, NextObs::Derived);
        world.act(Act::Begin(0));
        (0..5).for_each(|_| world.act(Act::Step(0, End::GoesOn)));
        // The other buffer has as many frames at the same serials, of another episode.
        other.episodes[0].push(Episode { number: 0, length: 0, end: End::Left });
        other.act(Act::Begin(0));
        (0..5).for_each(|_| other.act(Act::Step(0, End::GoesOn)));
        let mut stream = other.transitions.stream();
        let state = MemoryState::save(|v| world.streams[0].visit(v)).unwrap();
        state.load(|v| stream.visit(v)).unwrap();
        other.streams = vec![stream];
        // Its rows are those of the episode that it is in.
        other.episodes[0].push(Episode { number: 0, length: 5, end: End::GoesOn });
        for _ in 0..40 {
            other.act(Act::Step(0, End::GoesOn));
            other.act(Act::Draw);
        }
    }
}

#[test]
fn padding_with_zeros() {
    let transitions = Transitions::builder((Dtype::I32, &[3]), (Dtype::I64, &[]))
        .capacity(10)
        .stack(3)
        .padding(FramePadding::Zero)
        .build()
        .unwrap();
    let mut stream = transitions.stream();
    stream.begin(bytemuck::cast_slice(&[5i32; 3])).unwrap();
    let next = [6i32; 3];
    let step = TransitionStep {
        action: &[0; 8],
        reward: 0.0,
        next_obs: bytemuck::cast_slice(&next),
        terminated: true,
        truncated: false,
    };
    stream.step(step).unwrap();
    let (mut batch, mut drawn) = (Batch::new(transitions.schema(), 1), Drawn::default());
    transitions
        .sampler()
        .sample_into(&mut Rng::seed_from_u64(0), 1, &mut batch.view_mut(), &mut drawn)
        .unwrap();
    let [row] = &rows(&transitions, &batch)[..] else { panic!() };
    assert_eq!(row.obs, [[0; 3], [0; 3], [5; 3]]);
    assert_eq!(row.next_obs, [[0; 3], [5; 3], [6; 3]]);
}

/// Both storages obey a rate limiter alike, and go on when they may.
#[test]
fn a_rate_limiter_holds_both() {
    let limiter = RateLimiter { min_size: 4, samples_per_insert: 2.0, error_buffer: 4.0 };
    for next_obs in [NextObs::Stored, NextObs::Derived] {
        let transitions = sized(Dtype::U8, &[3]).rate_limiter(limiter).next_obs(next_obs).build().unwrap();
        let mut reader = transitions.sampler().when_limited(WhenLimited::Refuse);
        let (mut batch, mut drawn) = (Batch::new(transitions.schema(), 8), Drawn::default());
        let mut rng = Rng::seed_from_u64(0);
        let mut draw = |count| reader.sample_into(&mut rng, count, &mut batch.view_mut(), &mut drawn);
        let mut stream = transitions.stream().when_limited(WhenLimited::Refuse);
        let step = TransitionStep {
            action: &[0; 8],
            reward: 0.0,
            next_obs: &[1; 3],
            terminated: false,
            truncated: false,
        };
        stream.begin(&[0; 3]).unwrap();
        for _ in 0..3 {
            stream.step(step).unwrap();
        }
        assert!(matches!(draw(1), Err(ReplayError::Limited { .. })));
        // D ≤ 4 · 2 + 4.
        for _ in 3..6 {
            stream.step(step).unwrap();
        }
        let before = MemoryState::save(|v| stream.visit(v)).unwrap();
        assert!(matches!(stream.step(step), Err(ReplayError::Limited { .. })));
        assert_eq!(MemoryState::save(|v| stream.visit(v)).unwrap().differences(&before), [""; 0]);
        assert_eq!(transitions.inserted(), 6);
        // D ≥ 4 · 2 − 4.
        assert!(matches!(draw(9), Err(ReplayError::Batch(_))));
        draw(8).unwrap();
        assert!(matches!(draw(1), Err(ReplayError::Limited { .. })));
        stream.step(step).unwrap();
        draw(2).unwrap();
        // With the counts in the state.
        let state = MemoryState::save(|v| transitions.visit(v)).unwrap();
        let other = sized(Dtype::U8, &[3]).rate_limiter(limiter).next_obs(next_obs).build().unwrap();
        state.load(|v| other.visit(v)).unwrap();
        assert!(MemoryState::save(|v| other.visit(v)).unwrap() == state);
        transitions.close();
        assert!(matches!(stream.step(step), Err(ReplayError::Closed { .. })));
        assert!(matches!(draw(1), Err(ReplayError::Closed { .. })));
    }
}

/// Who would wait for nobody is told so; who waits for somebody gets on, on another thread.
#[test]
fn waiting_ends() {
    let limiter = RateLimiter { min_size: 1, samples_per_insert: 1.0, error_buffer: 8.0 };
    for next_obs in [NextObs::Stored, NextObs::Derived] {
        let build = || sized(Dtype::U8, &[3]).rate_limiter(limiter).next_obs(next_obs).build().unwrap();
        let step = TransitionStep {
            action: &[0; 8],
            reward: 0.0,
            next_obs: &[1; 3],
            terminated: false,
            truncated: false,
        };
        let transitions = build();
        let mut streams = [transitions.stream(), transitions.stream()];
        drop(transitions);
        streams.iter_mut().for_each(|stream| stream.begin(&[0; 3]).unwrap());
        let error = (0..100).find_map(|t| streams[t % 2].step(step).err()).unwrap();
        assert!(matches!(error, ReplayError::Abandoned { .. }), "{error}");

        let transitions = build();
        let mut reader = transitions.sampler();
        let schema = transitions.schema().clone();
        std::thread::scope(|threads| {
            for _ in 0..2 {
                let mut stream = transitions.stream();
                threads.spawn(move || {
                    stream.begin(&[0; 3]).unwrap();
                    (0..400).for_each(|_| assert_eq!(stream.step(step).unwrap(), 1));
                });
            }
            let (mut batch, mut drawn) = (Batch::new(&schema, 8), Drawn::default());
            let mut rng = Rng::seed_from_u64(0);
            for _ in 0..99 {
                reader.sample_into(&mut rng, 8, &mut batch.view_mut(), &mut drawn).unwrap();
            }
        });
        assert_eq!(transitions.inserted(), 800);
        let clones = (reader.clone(), transitions.clone());
        assert!(format!("{:?} {:?} {:?}", clones.0, clones.1, transitions.stream()).contains("Transitions"));
    }
}

#[test]
fn nothing_is_allocated_in_the_steady_state() {
    for next_obs in [NextObs::Stored, NextObs::Derived] {
        let builder = sized(Dtype::U8, &[40]).n_step(3, 0.9).prioritized(Prioritized::default());
        let transitions = builder.next_obs(next_obs).build().unwrap();
        let (mut stream, mut reader) = (transitions.stream(), transitions.sampler());
        let (mut batch, mut drawn) = (Batch::new(transitions.schema(), 8), Drawn::default());
        let mut rng = Rng::seed_from_u64(0);
        let mut go_on = |steps: usize| {
            for t in 0..steps {
                if t % 10 == 0 {
                    stream.begin(&[1; 40]).unwrap();
                }
                let (action, truncated) = (&[0; 8], t % 10 == 9);
                let step =
                    TransitionStep { action, reward: 1.0, next_obs: &[2; 40], terminated: false, truncated };
                stream.step(step).unwrap();
                if t >= 10 {
                    reader.sample_into(&mut rng, 8, &mut batch.view_mut(), &mut drawn).unwrap();
                    reader.update_priorities(&drawn.rows, &[1.0; 8]).unwrap();
                    let views = reader.views();
                    assert_eq!(views.obs.rows::<u8>(&batch).unwrap().len(), 8);
                }
            }
        };
        go_on(300);
        let counted = allocation_counter::measure(|| go_on(300));
        assert_eq!(counted.count_total, 0, "{next_obs:?}");
    }
}
