//! The machinery around an algorithm, driven by an agent whose temporal-difference errors are known.

use rand::SeedableRng;
use rl_learn::{
    Agent, AgentError, Device, Dtype, Kind, Learner, MemoryState, MiniBatch, Mode, Rng, Schema, StateError,
    StateVisitor, Tensor, Update, Variant,
};
use rl_replay::{Prioritized, Replay, TransitionReader};
use std::cell::RefCell;

/// |δ| of a row is its observation; remembers the weights it was given.
struct Known {
    weights: RefCell<Vec<Vec<f32>>>,
    seen: RefCell<Vec<Vec<f32>>>,
}

impl Agent for Known {
    fn act(&mut self, obs: &Tensor, _: Mode) -> Result<Tensor, AgentError> {
        Ok(Tensor::zeros([obs.size()[0]], (Kind::Int64, Device::Cpu)))
    }

    fn begin_update(&mut self) -> Variant {
        Variant::default()
    }

    fn update(&self, batch: &MiniBatch, _: Variant) -> Result<Update, AgentError> {
        self.weights.borrow_mut().push(Vec::try_from(batch.weight())?);
        self.seen.borrow_mut().push(Vec::try_from(batch["obs"].reshape([-1]))?);
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
    (learner, Known { weights: RefCell::default(), seen: RefCell::default() })
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
    let whole = replay(true);
    let (mut learner_whole, mut agent) = learner(&whole, true);
    (0..5).for_each(|_| drop(learner_whole.update(&mut agent, 0.5).unwrap()));
    let (saved_replay, saved) = (state(&whole), MemoryState::save(|v| learner_whole.visit(v)).unwrap());

    let resumed = replay(true);
    let (mut learner_resumed, mut other) = learner(&resumed, true);
    saved_replay.load(|v| resumed.visit(v)).unwrap();
    saved.load(|v| learner_resumed.visit(v)).unwrap();
    for _ in 0..5 {
        learner_whole.update(&mut agent, 0.5).unwrap();
        learner_resumed.update(&mut other, 0.5).unwrap();
    }
    assert_eq!(agent.seen.borrow()[5..], other.seen.borrow()[..]);
    assert!(state(&whole).differences(&state(&resumed)).is_empty());
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
    let error = learner.update(&mut Diverged, 1.0).unwrap_err().to_string();
    assert!(error.contains("NaN"), "{error}");
}
