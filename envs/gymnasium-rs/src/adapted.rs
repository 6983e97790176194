//! An environment of gymnasium-rs behind the trait of rl-envs.

use crate::convert::{FromAction, ToObs};
use crate::record::{Phase, Record};
use gymnasium_rs::core::{self, Options};
use rl_envs::{Action, Dtype, Env, EnvError, EnvSpec, ObsMut, Outcome, Scene, Space};
use std::cmp::Ordering::{Equal, Less};

/// An environment of gymnasium-rs, with observations of type `O` and actions of type `A`, as an [`rl_envs::Env`].
///
/// [`reset`](Env::reset) and [`step`](Env::step) cost what they cost there, and a few nanoseconds for the record of actions;
/// that record takes 4 bytes a number for as long as an episode lasts. [`save`](Env::save) and [`load`](Env::load) take as long
/// as the episode's steps so far: the module's documentation says why. Actions of boxes go in as they are, out of bounds too.
///
/// The environment's `close` is called when it is no longer needed, and its `render` never.
pub struct Adapted<O, A> {
    spec: EnvSpec,
    make: Box<dyn Fn() -> Theirs<O, A> + Send>,
    env: Theirs<O, A>,
    options: Options,
    record: Record,
    /// The last observation; `None` before the first reset.
    last: Option<O>,
}

impl<O: ToObs + 'static, A: FromAction + 'static> Adapted<O, A> {
    /// The environment that `make` makes, under an id of your choice; Gymnasium's custom is `Namespace/Name-v0`.
    ///
    /// `make` is called again by [`load`](Env::load), and must give the same kind of environment every time.
    ///
    /// # Errors
    /// [`EnvError::Wrapper`] when one of its spaces is empty or its bounds are no bounds, or its actions are not of its action
    /// space's kind.
    pub fn new<E>(id: &str, make: impl Fn() -> E + Send + 'static) -> Result<Self, EnvError>
    where
        E: core::Env<O, A> + Send + 'static,
    {
        let make = Box::new(move || Theirs(Box::new(make()) as Box<dyn core::Env<O, A> + Send>));
        let env = make();
        let spaces = [("observation", env.0.observation_space()), ("action", env.0.action_space())];
        let [observation, action] = spaces.map(|(name, space)| {
            space_of(&space).map_err(|why| refused(id, format!("its {name} space {why}")))
        });
        let (observation, action) = (observation?, action?);
        let zeros = vec![0.0; action.elements()];
        let any = match action {
            Space::Discrete { .. } => Action::Discrete(0),
            _ => Action::Box(&zeros),
        };
        if A::from_action(any).is_none() {
            let kind = std::any::type_name::<A>();
            return Err(refused(
                id,
                format!("its actions are of type {kind}, and its action space is {action}"),
            ));
        }
        let record = Record::new(&action);
        let spec = EnvSpec {
            id: id.to_string(),
            observation,
            action,
            max_episode_steps: None,
            reward_threshold: None,
        };
        Ok(Self { spec, make, env, options: Options::new(), record, last: None })
    }

    /// With the number of steps after which [`rl_envs::make`] truncates an episode.
    pub fn with_time_limit(mut self, steps: u32) -> Self {
        self.spec.max_episode_steps = Some(steps);
        self
    }

    /// With the average return at which the task counts as solved.
    pub fn with_reward_threshold(mut self, threshold: f64) -> Self {
        self.spec.reward_threshold = Some(threshold);
        self
    }

    /// With another observation space than it says itself: another shape or bytes, which gymnasium-rs has no words for, or
    /// bounds that hold. It must have as many elements as observations have.
    pub fn with_observation_space(mut self, space: Space) -> Self {
        self.spec.observation = space;
        self
    }

    /// With options for each of its resets. What an environment does with options that it does not understand is up to it;
    /// the one of gymnasium-rs itself panics.
    pub fn with_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// The environment inside.
    pub fn inner(&self) -> &dyn core::Env<O, A> {
        &*self.env.0
    }

    /// That `obs` is memory for an observation.
    fn check<'a>(&self, obs: ObsMut<'a>) -> Result<ObsMut<'a>, EnvError> {
        match self.spec.observation.dtype() {
            Dtype::F32 => obs.f32(&self.spec).map(ObsMut::F32),
            Dtype::U8 => obs.u8(&self.spec).map(ObsMut::U8),
        }
    }

    /// Plays what `record` says in an environment made anew; the last observation comes with it.
    fn replay(&self, record: &Record) -> Result<(Theirs<O, A>, Option<O>), String> {
        let mut env = (self.make)();
        if record.phase() == Phase::New {
            return Ok((env, None));
        }
        let (mut last, _) = env.0.reset(Some(record.seed()), self.options.clone());
        for (action, step) in record.actions().zip(1..) {
            let action = A::from_action(action).ok_or("an action is of another kind")?;
            let (observed, _, terminated, truncated, _) = env.0.step(action);
            let ends = step == record.steps() && record.phase() == Phase::Over;
            if (terminated || truncated) != ends {
                return Err(format!(
                    "the same actions from the same seed end the episode otherwise at step {step}"
                ));
            }
            last = observed;
        }
        Ok((env, Some(last)))
    }

    /// The error about an observation that does not fit its space, after going back to where the environment was before.
    #[cold]
    fn misfit(&mut self) -> EnvError {
        let why = match self.replay(&self.record) {
            Ok((env, last)) => {
                (self.env, self.last) = (env, last);
                format!(
                    "an observation is not of as many elements, or not of the type, as {}",
                    self.spec.observation
                )
            }
            Err(why) => format!("an observation is not of {}, and {why}", self.spec.observation),
        };
        refused(&self.spec.id, why)
    }

    /// FNV-1a of the last observation, to tell whether another one is the same.
    fn digest(&self, last: Option<&O>) -> u64 {
        let elements = self.spec.observation.elements();
        let hash = |bytes: &mut dyn Iterator<Item = u8>| {
            bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            })
        };
        let Some(last) = last else { return 0 };
        match self.spec.observation.dtype() {
            Dtype::F32 => {
                let mut values = vec![0.0; elements];
                let fits = last.write(ObsMut::F32(&mut values));
                if fits { hash(&mut values.into_iter().flat_map(f32::to_le_bytes)) } else { 0 }
            }
            Dtype::U8 => {
                let mut values = vec![0; elements];
                let fits = last.write(ObsMut::U8(&mut values));
                if fits { hash(&mut values.into_iter()) } else { 0 }
            }
        }
    }

    /// The record in `bytes`, and the digest of the last observation.
    fn decode(&self, bytes: &[u8]) -> Result<(Record, u64), String> {
        // The id first and by itself: the state of another kind may not even decode.
        let (id, rest) = postcard::take_from_bytes::<String>(bytes).map_err(|e| e.to_string())?;
        if id != self.spec.id {
            return Err(format!("they are of {id:?}"));
        }
        match postcard::take_from_bytes::<(Record, u64)>(rest).map_err(|e| e.to_string())? {
            (saved, []) if saved.0.fits(&self.spec) => Ok(saved),
            (_, []) => Err("its steps and actions do not go together".to_string()),
            (_, rest) => Err(format!("{} bytes are left over", rest.len())),
        }
    }
}

impl<O: ToObs + Send + 'static, A: FromAction + 'static> Env for Adapted<O, A> {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        let obs = self.check(obs)?;
        let start = self.record.start(seed);
        let (observed, _) = self.env.0.reset(Some(start.seed), self.options.clone());
        if !observed.write(obs) {
            return Err(self.misfit());
        }
        self.record.begin(start);
        self.last = Some(observed);
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        let env = || self.spec.id.clone();
        match self.record.phase() {
            Phase::New => return Err(EnvError::NotReset { env: env() }),
            Phase::Over => return Err(EnvError::Ended { env: env() }),
            Phase::Running => {}
        }
        action.check(&self.spec)?;
        let obs = self.check(obs)?;
        let Some(theirs) = A::from_action(action) else {
            return Err(refused(&self.spec.id, format!("it does not take the action {action}")));
        };
        let (observed, reward, terminated, truncated, _) = self.env.0.step(theirs);
        if !observed.write(obs) {
            return Err(self.misfit());
        }
        self.record.advance(action, terminated || truncated);
        self.last = Some(observed);
        Ok(Outcome { reward: f64::from(reward), terminated, truncated })
    }

    fn save(&self) -> Vec<u8> {
        postcard::to_stdvec(&(&self.spec.id, &self.record, self.digest(self.last.as_ref())))
            .expect("plain numbers and vectors always encode into memory")
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        let played = self.decode(bytes).and_then(|(record, digest)| {
            let (env, last) = self.replay(&record)?;
            match self.digest(last.as_ref()) == digest {
                true => Ok((record, env, last)),
                false => Err("the same actions from the same seed lead to another observation".to_string()),
            }
        });
        let (env, len) = (|| self.spec.id.clone(), bytes.len());
        (self.record, self.env, self.last) =
            played.map_err(|why| EnvError::Saved { env: env(), len, why })?;
        Ok(())
    }

    fn scene(&self) -> Option<Scene> {
        None
    }
}

/// One of theirs, closed when it goes.
struct Theirs<O, A>(Box<dyn core::Env<O, A> + Send>);

impl<O, A> Drop for Theirs<O, A> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Their space as ours; what is wrong with it, if something is.
fn space_of(space: &core::Space) -> Result<Space, String> {
    match space {
        core::Space::Discrete(n) => match usize::try_from(*n) {
            Ok(n @ 1..) => Ok(Space::Discrete { n }),
            _ => Err(format!("is Discrete({n}), which has nothing in it")),
        },
        core::Space::Box { low, high } => {
            let (low, high) = (low.to_vec(), high.to_vec());
            if low.is_empty() || low.len() != high.len() {
                return Err(format!("is a box with {} lower and {} upper bounds", low.len(), high.len()));
            }
            // NaN is neither less nor equal.
            let crossed = |(low, high): (&f32, &f32)| !matches!(low.partial_cmp(high), Some(Less | Equal));
            match low.iter().zip(&high).position(crossed) {
                Some(i) => Err(format!("is a box whose element {i} is from {} to {}", low[i], high[i])),
                None => Ok(Space::Box { dtype: Dtype::F32, shape: vec![low.len()], low, high }),
            }
        }
    }
}

#[cold]
fn refused(id: &str, why: String) -> EnvError {
    EnvError::Wrapper { wrapper: "rl_envs_gymnasium_rs::Adapted".to_string(), env: id.to_string(), why }
}
