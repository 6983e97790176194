//! Several environments of one kind, stepped together.

use crate::episode::{decode, encode};
use crate::{Actions, Dtype, Env, EnvError, EnvSpec, Obs, ObsMut, Outcome, make};
use rand::{Rng, SeedableRng};
use rand_xoshiro::SplitMix64;
use serde::{Deserialize, Serialize};

/// `E` environments of one spec, stepped in order on the caller's thread, that start their next episode by themselves.
///
/// When a step ends an episode, that environment is reset within the same step (Gymnasium calls it SAME_STEP). Two
/// observations are then of interest, and both are kept until the next step: [`obs`](VecEnv::obs) is what to act on, the
/// first observation of the new episode; [`next_obs`](VecEnv::next_obs) is what the step led to, the last observation of
/// the old one, and what belongs into the transition. No action is ever ignored and no transition is to be dropped.
///
/// A step allocates nothing.
pub struct VecEnv {
    envs: Vec<Box<dyn Env>>,
    spec: EnvSpec,
    obs_elements: usize,
    action_elements: usize,
    /// `[E, O]`: what to act on.
    obs: Rows,
    /// `[E, O]`: the last observation of the episode that ended with the last step; stale in rows where none did.
    ended: Rows,
    outcomes: Vec<Outcome>,
}

impl std::fmt::Debug for VecEnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VecEnv").field("spec", &self.spec).field("len", &self.len()).finish_non_exhaustive()
    }
}

/// One seed an environment, without end, from the one `seed` of the whole: the outputs of SplitMix64 started at it.
///
/// Environment i gets the same one however many there are.
pub fn env_seeds(seed: u64) -> impl Iterator<Item = u64> {
    let mut generator = SplitMix64::seed_from_u64(seed);
    std::iter::repeat_with(move || generator.next_u64())
}

impl VecEnv {
    /// `n` environments called `id`, each with the time limit of its spec. They wait for [`reset`](VecEnv::reset).
    ///
    /// # Errors
    /// [`EnvError::Unknown`] when none has that id, [`EnvError::NoEnvs`] when `n` is 0.
    pub fn make(id: &str, n: usize) -> Result<Self, EnvError> {
        make(id)?;
        Self::new((0..n).map(|_| make(id)).collect::<Result<_, _>>()?)
    }

    /// These environments, to be [reset](VecEnv::reset) before they are stepped: the observations of those that are under way
    /// are not known here.
    ///
    /// # Errors
    /// [`EnvError::NoEnvs`] when there is none, [`EnvError::Mixed`] when their specs differ.
    pub fn new(envs: Vec<Box<dyn Env>>) -> Result<Self, EnvError> {
        let spec = envs.first().ok_or(EnvError::NoEnvs)?.spec().clone();
        if let Some(index) = envs.iter().position(|env| *env.spec() != spec) {
            return Err(EnvError::Mixed { first: spec.id, index, other: envs[index].spec().id.clone() });
        }
        let rows = Rows::new(spec.observation.dtype(), envs.len() * spec.observation.elements());
        Ok(Self {
            obs_elements: spec.observation.elements(),
            action_elements: spec.action.elements(),
            obs: rows.clone(),
            ended: rows,
            outcomes: vec![Outcome::default(); envs.len()],
            envs,
            spec,
        })
    }

    /// What all of them are.
    pub fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    /// How many there are: `E`.
    #[expect(clippy::len_without_is_empty, reason = "there is always at least one")]
    pub fn len(&self) -> usize {
        self.envs.len()
    }

    /// Elements of one observation: `O`.
    pub fn obs_elements(&self) -> usize {
        self.obs_elements
    }

    /// Values of one action: `A`, which is 1 for discrete actions.
    pub fn action_elements(&self) -> usize {
        self.action_elements
    }

    /// Starts an episode in every environment, environment i from seed number i of [`env_seeds`]. The outcomes become those
    /// of no step.
    ///
    /// # Errors
    /// [`EnvError::At`] with what an environment says. The ones before it have been reset.
    pub fn reset(&mut self, seed: u64) -> Result<(), EnvError> {
        for (index, (env, seed)) in self.envs.iter_mut().zip(env_seeds(seed)).enumerate() {
            env.reset(Some(seed), self.obs.row_mut(index, self.obs_elements)).map_err(|e| at(index, e))?;
        }
        self.outcomes.fill(Outcome::default());
        Ok(())
    }

    /// Steps every environment once, and resets those whose episode ended with it, from their own generators.
    ///
    /// # Errors
    /// [`EnvError::Batch`] when the actions are not one an environment; [`EnvError::At`] with what an environment says.
    /// Actions are looked at before any of them is carried out, so that after an [`EnvError::Action`] nothing has moved.
    pub fn step(&mut self, actions: Actions<'_>) -> Result<(), EnvError> {
        let expected = self.envs.len() * self.action_elements;
        if actions.len() != expected {
            let (env, envs, got) = (self.spec.id.clone(), self.envs.len(), actions.len());
            return Err(EnvError::Batch { env, envs, expected, got });
        }
        for index in 0..self.envs.len() {
            let action = actions.row(index, self.action_elements, &self.spec);
            action.and_then(|action| action.check(&self.spec)).map_err(|e| at(index, e))?;
        }
        for index in 0..self.envs.len() {
            let action = actions.row(index, self.action_elements, &self.spec)?;
            self.step_one(index, |env, obs| env.step(action, obs)).map_err(|e| at(index, e))?;
        }
        Ok(())
    }

    fn step_one(
        &mut self,
        index: usize,
        step: impl FnOnce(&mut dyn Env, ObsMut<'_>) -> Result<Outcome, EnvError>,
    ) -> Result<(), EnvError> {
        let env = &mut *self.envs[index];
        let outcome = step(env, self.obs.row_mut(index, self.obs_elements))?;
        if outcome.ended() {
            self.ended.copy_row(&self.obs, index, self.obs_elements);
            env.reset(None, self.obs.row_mut(index, self.obs_elements))?;
        }
        self.outcomes[index] = outcome;
        Ok(())
    }

    /// What to act on next, `[E, O]` row-major: the observation of the last step, or the first one of the next episode
    /// where the last step ended one. Zeros before the first reset.
    ///
    /// # Panics
    /// When observations are bytes; [`observations`](VecEnv::observations) serves both types.
    pub fn obs(&self) -> &[f32] {
        self.f32(self.observations())
    }

    /// What the last step of environment `env` led to, `[O]`: at an episode's end its true last observation, otherwise the
    /// same as its row of [`obs`](VecEnv::obs). Kept until the next step.
    ///
    /// # Panics
    /// When there is no environment `env`, or observations are bytes; [`next_observation`](VecEnv::next_observation) serves
    /// both types.
    pub fn next_obs(&self, env: usize) -> &[f32] {
        self.f32(self.next_observation(env))
    }

    /// The last observation, `[O]`, of the episode that environment `env` ended with the last step; `None` when that step
    /// ended none.
    ///
    /// # Panics
    /// As [`next_obs`](VecEnv::next_obs).
    pub fn final_obs(&self, env: usize) -> Option<&[f32]> {
        self.outcomes[env].ended().then(|| self.next_obs(env))
    }

    /// [`obs`](VecEnv::obs) in either element type.
    pub fn observations(&self) -> Obs<'_> {
        self.obs.row(0, self.envs.len() * self.obs_elements)
    }

    /// [`next_obs`](VecEnv::next_obs) in either element type.
    ///
    /// # Panics
    /// When there is no environment `env`.
    pub fn next_observation(&self, env: usize) -> Obs<'_> {
        let rows = if self.outcomes[env].ended() { &self.ended } else { &self.obs };
        rows.row(env, self.obs_elements)
    }

    /// What the last step brought, one an environment. All zero and false after a reset.
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// The environments, for drawing them.
    pub fn envs(&self) -> &[Box<dyn Env>] {
        &self.envs
    }

    /// The whole state as bytes: that of every environment, and the observations and outcomes of the last step, so that
    /// what is [loaded](VecEnv::load) from it goes on exactly.
    pub fn save(&self) -> Vec<u8> {
        let envs: Vec<Vec<u8>> = self.envs.iter().map(|env| env.save()).collect();
        encode(&self.spec, &(envs, &self.obs, &self.ended, &self.outcomes))
    }

    /// Goes back to a saved state.
    ///
    /// # Errors
    /// [`EnvError::Saved`] when the bytes are not from [`save`](VecEnv::save) of as many environments of the same kind; if
    /// those of one environment are refused, [`EnvError::At`]. Nothing has changed then.
    pub fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        let (saved, obs, ended, outcomes): (Vec<Vec<u8>>, Rows, Rows, Vec<Outcome>) =
            decode(&self.spec, bytes)?;
        let fits = obs.same_kind(&self.obs) && ended.same_kind(&self.ended);
        if saved.len() != self.envs.len() || outcomes.len() != self.envs.len() || !fits {
            let why = format!(
                "they are of {} environments with {} observation values, and not of {} with {}",
                saved.len(),
                obs.len(),
                self.envs.len(),
                self.obs.len()
            );
            return Err(EnvError::Saved { env: self.spec.id.clone(), len: bytes.len(), why });
        }
        let before: Vec<Vec<u8>> = self.envs.iter().map(|env| env.save()).collect();
        for (index, bytes) in saved.iter().enumerate() {
            if let Err(error) = self.envs[index].load(bytes) {
                for (env, before) in self.envs[..index].iter_mut().zip(&before) {
                    env.load(before)?;
                }
                return Err(at(index, error));
            }
        }
        (self.obs, self.ended, self.outcomes) = (obs, ended, outcomes);
        Ok(())
    }

    fn f32<'a>(&self, obs: Obs<'a>) -> &'a [f32] {
        match obs {
            Obs::F32(values) => values,
            Obs::U8(_) => panic!("observations of {} are bytes; read them with observations()", self.spec.id),
        }
    }
}

#[cold]
fn at(index: usize, error: EnvError) -> EnvError {
    EnvError::At { index, source: Box::new(error) }
}

/// Observations of all environments in one block, one row an environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Rows {
    F32(Vec<f32>),
    U8(Vec<u8>),
}

impl Rows {
    fn new(dtype: Dtype, len: usize) -> Self {
        match dtype {
            Dtype::F32 => Rows::F32(vec![0.0; len]),
            Dtype::U8 => Rows::U8(vec![0; len]),
        }
    }

    /// Values in all rows together.
    fn len(&self) -> usize {
        match self {
            Rows::F32(values) => values.len(),
            Rows::U8(values) => values.len(),
        }
    }

    /// Whether `other` has the same element type and length.
    fn same_kind(&self, other: &Rows) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other) && self.len() == other.len()
    }

    fn row(&self, row: usize, elements: usize) -> Obs<'_> {
        let range = row * elements..(row + 1) * elements;
        match self {
            Rows::F32(values) => Obs::F32(&values[range]),
            Rows::U8(values) => Obs::U8(&values[range]),
        }
    }

    fn row_mut(&mut self, row: usize, elements: usize) -> ObsMut<'_> {
        let range = row * elements..(row + 1) * elements;
        match self {
            Rows::F32(values) => ObsMut::F32(&mut values[range]),
            Rows::U8(values) => ObsMut::U8(&mut values[range]),
        }
    }

    /// Copies one row of `from`, which is of the same kind.
    fn copy_row(&mut self, from: &Rows, row: usize, elements: usize) {
        match (self.row_mut(row, elements), from.row(row, elements)) {
            (ObsMut::F32(to), Obs::F32(from)) => to.copy_from_slice(from),
            (ObsMut::U8(to), Obs::U8(from)) => to.copy_from_slice(from),
            _ => unreachable!("both blocks were made with the dtype of one spec"),
        }
    }
}
