//! Whether an environment keeps to the rules of [`Env`].

use crate::rows::{Rows, SavedRows};
use crate::{Action, Env, EnvError, EnvSpec, Obs, ObsMut, Outcome, Space};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// A rule that an environment breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConformanceError {
    /// Its spec says something that cannot be.
    #[error("{env}: {why}")]
    Spec {
        /// The environment's id.
        env: String,
        /// What is wrong.
        why: String,
    },
    /// A call failed that must not.
    #[error("{env}, step {step}: {doing} failed: {source}")]
    Failed {
        /// The environment's id.
        env: String,
        /// Steps taken before.
        step: u64,
        /// The call.
        doing: &'static str,
        /// Its error.
        source: Box<EnvError>,
    },
    /// An observation is not of its space; NaN is in none.
    #[error("{env}, step {step}: the observation {why} is not of {space}")]
    Observation {
        /// The environment's id.
        env: String,
        /// Steps taken before.
        step: u64,
        /// The first element that is not.
        why: String,
        /// The space.
        space: String,
    },
    /// A reward is NaN or infinite.
    #[error("{env}, step {step}: the reward is {reward}")]
    Reward {
        /// The environment's id.
        env: String,
        /// Steps taken before.
        step: u64,
        /// The reward.
        reward: String,
    },
    /// Twice the same does not give the same.
    #[error("{env}: {what}, and step {step} after it is another: {first} and then {second}")]
    Irreproducible {
        /// The environment's id.
        env: String,
        /// What was done twice.
        what: &'static str,
        /// Steps after it; 0 is the first observation.
        step: u64,
        /// What came the first time.
        first: String,
        /// What came the second time.
        second: String,
    },
    /// Something was taken that must be refused.
    #[error("{env}, step {step}: {what} must be an error, and is taken")]
    Accepted {
        /// The environment's id.
        env: String,
        /// Steps taken before.
        step: u64,
        /// What was given.
        what: String,
    },
    /// A call changed the state that must leave it as it is.
    #[error("{env}, step {step}: {what} must leave the state as it was, and changes it")]
    Moved {
        /// The environment's id.
        env: String,
        /// Steps taken before.
        step: u64,
        /// The call.
        what: String,
    },
    /// An episode is longer than its spec allows.
    #[error(
        "{env}: an episode has not ended after {limit} steps, the limit of its spec; wrap it in TimeLimit"
    )]
    TooLong {
        /// The environment's id.
        env: String,
        /// The limit.
        limit: u32,
    },
}

/// Steps after which a part is run again, and how many of them.
const AGAIN: u64 = 64;
/// How often in all a state is saved, gone on from, and loaded again.
const SAVES: u64 = 20;

/// Takes `steps` random steps in `env` and reports the first rule of [`Env`] that it breaks. What Gymnasium's `check_env` is
/// to Gymnasium's environments.
///
/// * Every observation is of its space, those of resets included; no reward is NaN or infinite.
/// * A seed gives the same episode every time, observations, rewards and ends to the last bit.
/// * What is saved goes on exactly, random numbers included; saving and drawing change nothing; bytes that are no state are
///   refused.
/// * A step after an episode's end is an error, and so are actions outside of the space's kind and length, NaN, and memory
///   that does not fit; none of these changes the state.
/// * Episodes are no longer than the spec says. For an environment that is not from [`make`](crate::make) that
///   takes a [`TimeLimit`](crate::TimeLimit).
///
/// A wrapper whose statistics go on over seeded resets, such as [`NormalizeObservation`](crate::NormalizeObservation), is to be
/// frozen, or a seed does not give the same twice.
///
/// `seed` is for the actions and for resets. Takes about as long as twice the steps.
///
/// ```
/// let mut env = rl_envs::make("CartPole-v1")?;
/// rl_envs::check(&mut *env, 1000, 0)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The first rule that is broken.
pub fn check(env: &mut dyn Env, steps: u64, seed: u64) -> Result<(), ConformanceError> {
    let spec = env.spec().clone();
    check_spec(&spec)?;
    let generator = Xoshiro256PlusPlus::seed_from_u64(seed);
    let obs = Rows::new(spec.observation.dtype(), spec.observation.elements());
    Check { env, spec, generator, obs, step: 0, length: 0 }.run(steps, seed)
}

/// That the spec makes sense.
fn check_spec(spec: &EnvSpec) -> Result<(), ConformanceError> {
    let wrong = |why: String| Err(ConformanceError::Spec { env: spec.id.clone(), why });
    if spec.id.is_empty() {
        return wrong("its id is empty".to_string());
    }
    if spec.max_episode_steps == Some(0) {
        return wrong("its time limit is 0; None is no limit".to_string());
    }
    for (name, space) in [("observation", &spec.observation), ("action", &spec.action)] {
        match space {
            Space::Discrete { n: 0 } | Space::MultiBinary { n: 0 } => {
                return wrong(format!("its {name} space {space} is empty"));
            }
            Space::Box { low, high, shape, .. } => {
                let elements: usize = shape.iter().product();
                if low.len() != elements || high.len() != elements || elements == 0 {
                    let (low, high) = (low.len(), high.len());
                    return wrong(format!(
                        "its {name} space has the shape {shape:?} with {low} lower and {high} upper bounds"
                    ));
                }
                // NaN is neither less nor equal.
                if let Some(i) = low.iter().zip(high).position(|(low, high)| {
                    !matches!(
                        low.partial_cmp(high),
                        Some(std::cmp::Ordering::Less | std::cmp::Ordering::Equal)
                    )
                }) {
                    return wrong(format!(
                        "element {i} of its {name} space is from {} to {}",
                        low[i], high[i]
                    ));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// An action that owns its values.
#[derive(Clone)]
enum Chosen {
    Discrete(usize),
    Box(Vec<f32>),
    MultiBinary(Vec<bool>),
}

impl Chosen {
    fn action(&self) -> Action<'_> {
        match self {
            Chosen::Discrete(action) => Action::Discrete(*action),
            Chosen::Box(values) => Action::Box(values),
            Chosen::MultiBinary(switches) => Action::MultiBinary(switches),
        }
    }
}

struct Check<'a> {
    env: &'a mut dyn Env,
    spec: EnvSpec,
    generator: Xoshiro256PlusPlus,
    obs: Rows,
    /// Steps taken, but those that are taken again.
    step: u64,
    /// Steps of this episode.
    length: u32,
}

/// An observation and what the step to it brought, to the bit.
type Seen = (SavedRows, Outcome);

impl Check<'_> {
    fn run(&mut self, steps: u64, seed: u64) -> Result<(), ConformanceError> {
        self.same_seed(seed)?;
        self.reset(Some(seed))?;
        let every = (steps / SAVES).max(AGAIN);
        while self.step < steps {
            if self.step.is_multiple_of(every) {
                self.refusals()?;
                self.same_after_load()?;
            }
            let action = self.choose();
            let outcome = self.take(&action)?;
            self.step += 1;
            if outcome.ended() {
                self.after_the_end(&action)?;
                self.reset(None)?;
            }
        }
        Ok(())
    }

    fn choose(&mut self) -> Chosen {
        match &self.spec.action {
            Space::Discrete { n } => Chosen::Discrete(self.generator.random_range(0..*n)),
            Space::MultiBinary { n } => {
                Chosen::MultiBinary((0..*n).map(|_| self.generator.random()).collect())
            }
            Space::Box { low, high, .. } => {
                // Without bounds it is up to the environment what is much; one in eight lies on a bound.
                let bound = |bound: f32, other: f32| if bound.is_finite() { bound } else { other };
                let value = |(low, high): (&f32, &f32)| {
                    let (low, high) = (bound(*low, high.min(1.0) - 2.0), bound(*high, low.max(-1.0) + 2.0));
                    match self.generator.random_range(0..16) {
                        0 => low,
                        1 => high,
                        _ => (low + (high - low) * self.generator.random::<f32>()).clamp(low, high),
                    }
                };
                Chosen::Box(low.iter().zip(high).map(value).collect())
            }
        }
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(EnvError) -> ConformanceError {
        let (env, step) = (self.spec.id.clone(), self.step);
        move |source| ConformanceError::Failed { env, step, doing, source: Box::new(source) }
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<(), ConformanceError> {
        let result = self.env.reset(seed, self.obs.view_mut());
        result.map_err(self.failed("a reset"))?;
        self.length = 0;
        self.check_obs()
    }

    fn take(&mut self, action: &Chosen) -> Result<Outcome, ConformanceError> {
        let result = self.env.step(action.action(), self.obs.view_mut());
        let outcome = result.map_err(self.failed("a step"))?;
        self.check_obs()?;
        if !outcome.reward.is_finite() {
            let (env, reward) = (self.spec.id.clone(), outcome.reward.to_string());
            return Err(ConformanceError::Reward { env, step: self.step, reward });
        }
        self.length += 1;
        match self.spec.max_episode_steps {
            Some(limit) if self.length >= limit && !outcome.ended() => {
                Err(ConformanceError::TooLong { env: self.spec.id.clone(), limit })
            }
            _ => Ok(outcome),
        }
    }

    fn check_obs(&self) -> Result<(), ConformanceError> {
        let space = &self.spec.observation;
        if space.contains_obs(self.obs.view()) {
            return Ok(());
        }
        let outside = |i: usize, value: f32| match space {
            Space::Box { low, high, .. } => !(low[i]..=high[i]).contains(&value),
            Space::Discrete { .. } => true,
            Space::MultiBinary { .. } => value > 1.0,
        };
        let values: Vec<f32> = match self.obs.view() {
            Obs::F32(values) => values.to_vec(),
            Obs::U8(values) => values.iter().copied().map(f32::from).collect(),
        };
        let first = values.iter().enumerate().find(|(i, value)| outside(*i, **value));
        let why = first.map_or("as a whole".to_string(), |(i, value)| format!("with {value} at element {i}"));
        Err(ConformanceError::Observation {
            env: self.spec.id.clone(),
            step: self.step,
            why,
            space: space.to_string(),
        })
    }

    /// What `actions` lead to, over the ends of episodes; the observation that is there now comes first.
    fn see(&mut self, actions: &[Chosen]) -> Result<Vec<Seen>, ConformanceError> {
        let mut seen = vec![(SavedRows::from(self.obs.view()), Outcome::default())];
        for action in actions {
            let outcome = self.take(action)?;
            seen.push((SavedRows::from(self.obs.view()), outcome));
            if outcome.ended() {
                self.reset(None)?;
                seen.push((SavedRows::from(self.obs.view()), Outcome::default()));
            }
        }
        Ok(seen)
    }

    fn compare(&self, what: &'static str, first: &[Seen], second: &[Seen]) -> Result<(), ConformanceError> {
        let Some(step) = first.iter().zip(second).position(|(first, second)| !same(first, second)) else {
            return Ok(());
        };
        let show = |(obs, outcome): &Seen| format!("{} with {outcome:?}", obs.start());
        let (first, second) = (show(&first[step]), show(&second[step]));
        let (env, step) = (self.spec.id.clone(), step as u64);
        Err(ConformanceError::Irreproducible { env, what, step, first, second })
    }

    fn same_seed(&mut self, seed: u64) -> Result<(), ConformanceError> {
        let actions: Vec<Chosen> = (0..AGAIN).map(|_| self.choose()).collect();
        self.reset(Some(seed))?;
        let first = self.see(&actions)?;
        self.reset(Some(seed))?;
        let second = self.see(&actions)?;
        self.compare("the same seed is given twice", &first, &second)
    }

    fn same_after_load(&mut self) -> Result<(), ConformanceError> {
        let (saved, length) = (self.env.save(), self.length);
        // Looking does not touch.
        let _ = self.env.scene();
        self.unmoved(&saved, "saving or drawing")?;
        let actions: Vec<Chosen> = (0..AGAIN).map(|_| self.choose()).collect();
        let first = self.see(&actions)?;
        let result = self.env.load(&saved);
        result.map_err(self.failed("loading what was saved"))?;
        self.unmoved(&saved, "loading")?;
        self.length = length;
        // The observation is no part of the state: the caller has it.
        if let Some((obs, _)) = first.first() {
            obs.copy_to(self.obs.view_mut());
        }
        let second = self.see(&actions)?;
        self.compare("a saved state is loaded", &first, &second)
    }

    /// That the state is still `saved`.
    fn unmoved(&self, saved: &[u8], what: impl Into<String>) -> Result<(), ConformanceError> {
        if self.env.save() == saved {
            return Ok(());
        }
        Err(ConformanceError::Moved { env: self.spec.id.clone(), step: self.step, what: what.into() })
    }

    fn accepted(&self, what: impl Into<String>) -> ConformanceError {
        ConformanceError::Accepted { env: self.spec.id.clone(), step: self.step, what: what.into() }
    }

    fn after_the_end(&mut self, action: &Chosen) -> Result<(), ConformanceError> {
        let saved = self.env.save();
        match self.env.step(action.action(), self.obs.view_mut()) {
            Err(EnvError::Ended { .. }) => self.unmoved(&saved, "a refused step after the end"),
            Err(other) => {
                Err(self.failed("a step after the end, which must say so with EnvError::Ended,")(other))
            }
            Ok(_) => Err(self.accepted("a step after the episode's end")),
        }
    }

    /// Things that must be refused, in the middle of an episode.
    fn refusals(&mut self) -> Result<(), ConformanceError> {
        let saved = self.env.save();
        let mut wrong = match &self.spec.action {
            Space::Discrete { n } => vec![Chosen::Discrete(*n), Chosen::Box(vec![0.0])],
            Space::Box { low, .. } => {
                let mut values = vec![0.0; low.len()];
                let longer = vec![0.0; low.len() + 1];
                values[low.len() - 1] = f32::NAN;
                vec![Chosen::Box(values), Chosen::Box(longer), Chosen::Discrete(0)]
            }
            Space::MultiBinary { n } => vec![Chosen::MultiBinary(vec![false; n + 1]), Chosen::Discrete(0)],
        };
        for action in wrong.drain(..) {
            let what = format!("the action {}", action.action());
            if self.env.step(action.action(), self.obs.view_mut()).is_ok() {
                return Err(self.accepted(what));
            }
            self.unmoved(&saved, what)?;
        }
        let elements = self.spec.observation.elements();
        let action = self.choose();
        let (mut floats, mut bytes) = (vec![0.0; elements + 1], vec![0; elements + 1]);
        for obs in [ObsMut::F32(&mut floats), ObsMut::U8(&mut bytes)] {
            if self.env.step(action.action(), obs).is_ok() {
                return Err(self.accepted("memory for one element too many"));
            }
            self.unmoved(&saved, "memory that does not fit")?;
        }
        for bytes in [&b"no state"[..], &[]] {
            if self.env.load(bytes).is_ok() {
                return Err(self.accepted("bytes that are no state"));
            }
            self.unmoved(&saved, "bytes that are no state")?;
        }
        Ok(())
    }
}

fn same((obs, outcome): &Seen, (other_obs, other): &Seen) -> bool {
    let ends = (outcome.terminated, outcome.truncated) == (other.terminated, other.truncated);
    ends && outcome.reward.to_bits() == other.reward.to_bits() && obs.same(other_obs)
}
