//! The machinery around an algorithm, driven by an agent whose temporal-difference errors are known.

use rand::SeedableRng;
use rl_learn::capture::{Recorded, Recorder, StandIn, Step};
use rl_learn::device_replay::{DeviceReplay, DeviceReplaySettings};
use rl_learn::{
    Agent, AgentError, Device, Dtype, Kind, Learner, LearnerError, LearnerSettings, MemoryState, MiniBatch,
    Mode, Rng, Schema, StateError, StateVisitor, Tensor, Update, Variant,
};
use rl_replay::{Prioritized, RateLimiter, Replay, TransitionReader, WhenLimited};
use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// |δ| of a row is its observation, and every third update is another step; remembers steps, the weights it was given, and where each batch
/// lay.
#[derive(Default)]
struct Known {
    begun: u64,
    steps: RefCell<Vec<u8>>,
    weights: RefCell<Vec<Vec<f32>>>,
    seen: RefCell<Vec<Vec<f32>>>,
    places: RefCell<Vec<usize>>,
}

impl Agent for Known {
    fn act(&mut self, obs: &Tensor, _: Mode) -> Result<Tensor, AgentError> {
        Ok(Tensor::zeros([obs.size()[0]], (Kind::Int64, Device::Cpu)))
    }

    fn begin_update(&mut self) -> Variant {
        self.begun += 1;
        Variant(u8::from(self.begun.is_multiple_of(3)))
    }

    fn update(&self, batch: &MiniBatch, variant: Variant) -> Result<Update, AgentError> {
        self.steps.borrow_mut().push(variant.0);
        self.weights.borrow_mut().push(Vec::try_from(batch.weight())?);
        self.seen.borrow_mut().push(Vec::try_from(batch["obs"].reshape([-1]))?);
        self.places.borrow_mut().push(batch["obs"].data_ptr() as usize);
        Ok(Update { td_error: batch["obs"].reshape([-1]).copy(), scalars: vec![] })
    }

    fn visit(&mut self, _: &mut dyn StateVisitor) -> Result<(), StateError> {
        Ok(())
    }

    fn schedules(&self, _: u64) -> Vec<(&'static str, f64)> {
        vec![]
    }
}

fn replay(prioritized: bool) -> Replay {
    let schema = Schema::transition((Dtype::F32, &[1]), (Dtype::I64, &[])).unwrap();
    let builder = Replay::builder(schema).capacity(64);
    let replay = match prioritized {
        true => builder.prioritized(Prioritized { alpha: 1.0, epsilon: 0.0 }),
        false => builder.uniform(),
    };
    let replay = replay.build().unwrap();
    let mut writer = replay.writer();
    for i in 0..64 {
        let (obs, action) = ((i as f32).to_ne_bytes(), 0i64.to_ne_bytes());
        writer.push(&[&obs, &action, &obs, &obs, &obs]).unwrap();
    }
    replay
}

fn learner(replay: &Replay, prioritized: bool) -> (Learner, Known) {
    let learner = Learner::new(
        TransitionReader::of_rows(replay.sampler()).unwrap(),
        16,
        prioritized,
        Rng::seed_from_u64(3),
        Device::Cpu,
    );
    (learner, Known::default())
}

fn ahead(learner: Learner) -> Learner {
    learner.with(&LearnerSettings { prefetch: Some(true), ..LearnerSettings::default() }).unwrap()
}

fn state(replay: &Replay) -> MemoryState {
    MemoryState::save(|v| replay.visit(v)).unwrap()
}

#[test]
fn priorities_go_back_one_update_late() {
    let replay = replay(true);
    let (mut learner, mut agent) = learner(&replay, true);
    let before = state(&replay);
    learner.update(&mut agent, 1.0).unwrap();
    assert!(state(&replay).differences(&before).is_empty(), "nothing is written back after the first update");
    learner.update(&mut agent, 1.0).unwrap();
    assert!(!state(&replay).differences(&before).is_empty(), "the first update's priorities are there now");
    assert!(
        agent.weights.borrow()[0].iter().all(|&w| w == 1.0),
        "new rows have one priority, so equal weights"
    );

    // After many updates rows are drawn in proportion to their observation, and weighted by its inverse (β = 1).
    for _ in 0..400 {
        learner.update(&mut agent, 1.0).unwrap();
    }
    let (seen, weights) = (agent.seen.borrow(), agent.weights.borrow());
    let (rows, weights) = (seen.last().unwrap(), weights.last().unwrap());
    let smallest = rows.iter().copied().fold(f32::INFINITY, f32::min);
    for (row, weight) in rows.iter().zip(weights) {
        assert!((weight - smallest / row).abs() < 1e-4, "row {row}: weight {weight}, smallest {smallest}");
    }
}

#[test]
fn uniform_batches_weigh_one() {
    let replay = replay(false);
    let (mut learner, mut agent) = learner(&replay, false);
    for _ in 0..3 {
        learner.update(&mut agent, 0.4).unwrap();
    }
    assert!(agent.weights.borrow().iter().flatten().all(|&w| w == 1.0));
    assert_eq!(learner.updates(), 3);
}

#[test]
fn a_saved_learner_goes_on_with_the_priorities_on_their_way() {
    for prefetch in [false, true] {
        let new = |replay: &Replay| {
            let (learner, agent) = learner(replay, true);
            (if prefetch { ahead(learner) } else { learner }, agent)
        };
        let whole = replay(true);
        let (mut learner_whole, mut agent) = new(&whole);
        (0..5).for_each(|_| drop(learner_whole.update(&mut agent, 0.5).unwrap()));
        let (saved_replay, saved) = (state(&whole), MemoryState::save(|v| learner_whole.visit(v)).unwrap());

        let resumed = replay(true);
        let (mut learner_resumed, mut other) = new(&resumed);
        saved_replay.load(|v| resumed.visit(v)).unwrap();
        saved.load(|v| learner_resumed.visit(v)).unwrap();
        for _ in 0..5 {
            learner_whole.update(&mut agent, 0.5).unwrap();
            learner_resumed.update(&mut other, 0.5).unwrap();
        }
        assert_eq!(agent.seen.borrow()[5..], other.seen.borrow()[..]);
        assert_eq!(agent.weights.borrow()[5..], other.weights.borrow()[..]);
        assert!(state(&whole).differences(&state(&resumed)).is_empty());
        assert_eq!((learner_whole.updates(), learner_resumed.updates()), (10, 10));
    }
}

/// With nothing inserted and β constant: the same rows, weights and priorities, in two memories by turns.
#[test]
fn batches_drawn_ahead_are_those_drawn_when_they_are_needed() {
    let run = |prefetch: bool| {
        let replay = replay(true);
        let (learner, mut agent) = learner(&replay, true);
        let mut learner = if prefetch { ahead(learner) } else { learner };
        (0..40).for_each(|_| drop(learner.update(&mut agent, 0.5).unwrap()));
        (agent, state(&replay))
    };
    let ((plain, state), (early, other)) = (run(false), run(true));
    assert_eq!(plain.seen, early.seen);
    assert_eq!(plain.weights, early.weights);
    assert_eq!(state.differences(&other), Vec::<String>::new());
    let places = |agent: &Known| agent.places.borrow().iter().copied().collect::<HashSet<_>>().len();
    assert_eq!((places(&plain), places(&early)), (1, 2));
    assert!(
        early.places.borrow().windows(2).all(|pair| pair[0] != pair[1]),
        "a batch in use was overwritten"
    );
}

#[derive(Debug, Default)]
struct Counting {
    inner: StandIn,
    records: Arc<AtomicUsize>,
}

impl Recorder for Counting {
    fn warm_up(&mut self, step: Step<'_>) -> Result<Update, AgentError> {
        self.inner.warm_up(step)
    }

    fn record(&mut self, step: Step<'_>) -> Result<Box<dyn Recorded>, String> {
        self.records.fetch_add(1, Relaxed);
        self.inner.record(step)
    }
}

/// A graph launches what was launched when it was captured, and reads the batch where it lay then.
#[test]
fn each_step_and_batch_memory_has_a_graph_of_its_own() {
    for (prefetch, expected) in [(false, 2), (true, 4)] {
        let replay = replay(true);
        let (learner, mut agent) = learner(&replay, true);
        let recorder = Counting::default();
        let records = Arc::clone(&recorder.records);
        let learner = if prefetch { ahead(learner) } else { learner };
        let mut learner = learner.with_recorder(Box::new(recorder));
        (0..60).for_each(|_| drop(learner.update(&mut agent, 0.5).unwrap()));
        assert_eq!(records.load(Relaxed), expected);
    }
}

/// Wherever the rows are. On the device priorities are written inside the update.
#[test]
fn an_update_is_the_step_that_was_begun() {
    let prioritized = Some(Prioritized { alpha: 1.0, epsilon: 0.5 });
    for on_device in [false, true] {
        let replay = replay(!on_device);
        let mut learner = if on_device {
            let settings = DeviceReplaySettings {
                capacity: 64,
                batch_rows: 16,
                block_rows: 1,
                prioritized,
                tree_height: None,
            };
            let mut rng = Rng::seed_from_u64(3);
            Learner::on_device(DeviceReplay::new(&settings, &replay, &mut rng, Device::Cpu).unwrap())
        } else {
            learner(&replay, true).0
        };
        let mut agent = Known::default();
        learner.update(&mut agent, 1.0).unwrap();
        if let Some(replay) = learner.device_replay() {
            let seen = agent.seen.borrow();
            let expected: Vec<f64> = (0..64)
                .map(|i| if seen[0].contains(&(i as f32)) { f64::from(i) + 0.5 } else { 1.0 })
                .collect();
            assert_eq!(replay.priorities().unwrap(), expected);
        }
        (0..5).for_each(|_| drop(learner.update(&mut agent, 1.0).unwrap()));
        assert_eq!(*agent.steps.borrow(), [0, 0, 1, 0, 0, 1]);
    }
}

#[test]
fn a_draw_ahead_that_fails_is_told_when_its_batch_is_needed() {
    let schema = Schema::transition((Dtype::F32, &[1]), (Dtype::I64, &[])).unwrap();
    let limiter = RateLimiter { min_size: 16, samples_per_insert: 1.0, error_buffer: 16.0 };
    let replay = Replay::builder(schema).capacity(64).rate_limiter(limiter).uniform().build().unwrap();
    let mut writer = replay.writer();
    let mut insert = |rows: usize| {
        let (zero, action) = (0f32.to_ne_bytes(), 0i64.to_ne_bytes());
        for _ in 0..rows {
            writer.push(&[&zero, &action, &zero, &zero, &zero]).unwrap();
        }
    };
    insert(32);
    let reader = TransitionReader::of_rows(replay.sampler().when_limited(WhenLimited::Refuse)).unwrap();
    let mut learner = ahead(Learner::new(reader, 16, false, Rng::seed_from_u64(3), Device::Cpu));
    let mut agent = Known::default();
    learner.update(&mut agent, 1.0).unwrap();
    learner.update(&mut agent, 1.0).unwrap();
    let error = learner.update(&mut agent, 1.0).unwrap_err().to_string();
    assert!(error.contains("insert first") && !error.contains('\n'), "{error}");
    insert(16);
    learner.update(&mut agent, 1.0).unwrap();
    assert_eq!((learner.updates(), agent.seen.borrow().len()), (3, 3));
}

#[test]
fn a_batch_of_another_size_is_refused() {
    let replay = replay(true);
    let (learner, mut agent) = learner(&replay, true);
    let mut learner = ahead(learner);
    learner.update(&mut agent, 1.0).unwrap();
    let saved = MemoryState::save(|v| learner.visit(v)).unwrap();
    let mut other = ahead(Learner::new(
        TransitionReader::of_rows(replay.sampler()).unwrap(),
        8,
        true,
        Rng::seed_from_u64(3),
        Device::Cpu,
    ));
    let error = saved.load(|v| other.visit(v)).unwrap_err().to_string();
    assert!(error.contains("another size") && !error.contains('\n'), "{error}");
}

#[test]
fn divergence_is_an_error_that_names_it() {
    struct Diverged;
    impl Agent for Diverged {
        fn act(&mut self, obs: &Tensor, _: Mode) -> Result<Tensor, AgentError> {
            Ok(obs.copy())
        }
        fn begin_update(&mut self) -> Variant {
            Variant::default()
        }
        fn update(&self, batch: &MiniBatch, _: Variant) -> Result<Update, AgentError> {
            Ok(Update { td_error: batch.weight() * f64::NAN, scalars: vec![] })
        }
        fn visit(&mut self, _: &mut dyn StateVisitor) -> Result<(), StateError> {
            Ok(())
        }
        fn schedules(&self, _: u64) -> Vec<(&'static str, f64)> {
            vec![]
        }
    }
    let replay = replay(true);
    let (mut learner, _) = learner(&replay, true);
    learner.update(&mut Diverged, 1.0).unwrap();
    let error = learner.update(&mut Diverged, 1.0).unwrap_err();
    // The sampler would refuse it too, but not say what it means.
    assert!(matches!(error, LearnerError::Diverged { value } if value.is_nan()), "{error}");
}
