//! One environment of Python's Gymnasium.

use super::interpreter::{attach, failed};
use super::spaces::{Giver, Layout, copy_obs, parts};
use super::{picture, spec_of};
use crate::batch::{Batch, Failure, Memory};
use crate::episode::{decode, encode};
use crate::rows::{Rows, SavedRows};
use crate::{Action, Actions, Env, EnvError, EnvSpec, ObsMut, Outcome, Scene, Space};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyModule};
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};
use std::any::Any;

/// An environment that `gymnasium.make` made.
///
/// Python environments cannot be saved, so each episode is begun from a seed of this one's own generator, and what is saved
/// is that seed and the actions since: [`load`](Env::load) takes them again. That is the same state bit for bit if the
/// environment is a function of seed and actions, and costs the time of the steps of the episode in progress.
pub(super) struct GymEnv {
    spec: EnvSpec,
    env: Py<PyAny>,
    /// `env.step`, looked up once.
    step: Py<PyAny>,
    giver: Giver,
    /// Of a discrete observation: its first number.
    obs_start: i64,
    state: State,
    /// The last observation as Python gave it, to tell whether a loaded episode is the same.
    seen: Option<Py<PyAny>>,
    /// Whether what was loaded last could not be gone on with.
    lost: bool,
}

/// What is saved.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    /// Of the seeds of episodes.
    generator: Xoshiro256PlusPlus,
    phase: Phase,
    /// That the episode was begun with.
    seed: u32,
    taken: Taken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// Not reset, or in the midst of a step that failed.
    New,
    Running,
    Over,
}

/// The actions of an episode.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Taken {
    Discrete(Vec<u32>),
    /// One after the other.
    Box(Vec<f32>),
}

impl Taken {
    fn clear(&mut self) {
        match self {
            Taken::Discrete(actions) => actions.clear(),
            Taken::Box(values) => values.clear(),
        }
    }

    fn push(&mut self, action: Action<'_>) {
        match (self, action) {
            (Taken::Discrete(actions), Action::Discrete(action)) => actions.push(action as u32),
            (Taken::Box(values), Action::Box(action)) => values.extend_from_slice(action),
            _ => unreachable!("actions are checked before they are taken"),
        }
    }
}

impl GymEnv {
    /// `gymnasium.make` of what stands behind `gym:` in `id`; able to be drawn if `draw` says so.
    pub(super) fn make(id: &str, draw: bool) -> Result<Self, EnvError> {
        attach(id, |bridge| Self::from_python(id, bridge, draw).map_err(|e| failed(bridge.py(), id, &e)))
    }

    fn from_python(id: &str, bridge: &Bound<'_, PyModule>, draw: bool) -> PyResult<Self> {
        let py = bridge.py();
        let name = id.split_once(':').map_or(id, |(_, name)| name);
        let env = bridge.call_method1("make", (name, draw))?;
        let about = bridge.call_method1("about", (&env,))?;
        let (observation, action) = (Layout::read(&about.get_item(0)?)?, Layout::read(&about.get_item(1)?)?);
        let taken = match action.space {
            Space::Discrete { .. } => Taken::Discrete(Vec::new()),
            _ => Taken::Box(Vec::new()),
        };
        Ok(Self {
            giver: Giver::new(py, &action)?,
            obs_start: observation.start,
            spec: spec_of(id, observation.space, action.space, &about.get_item(2)?)?,
            step: env.getattr("step")?.unbind(),
            env: env.unbind(),
            state: State { generator: rand::make_rng(), phase: Phase::New, seed: 0, taken },
            seen: None,
            lost: false,
        })
    }

    fn failed(&self, py: Python<'_>, error: &PyErr) -> EnvError {
        failed(py, &self.spec.id, error)
    }

    /// `env.reset(seed=...)` with the seed of the state.
    fn reset_python(&mut self, bridge: &Bound<'_, PyModule>, obs: ObsMut<'_>) -> PyResult<()> {
        let py = bridge.py();
        let kwargs = PyDict::new(py);
        kwargs.set_item(intern!(py, "seed"), self.state.seed)?;
        let result = self.env.bind(py).call_method(intern!(py, "reset"), (), Some(&kwargs))?;
        let seen = result.get_item(0)?;
        copy_obs(bridge, &seen, self.obs_start, obs)?;
        self.seen = Some(seen.unbind());
        Ok(())
    }

    fn step_python(
        &mut self,
        bridge: &Bound<'_, PyModule>,
        action: Action<'_>,
        obs: ObsMut<'_>,
    ) -> PyResult<Outcome> {
        let py = bridge.py();
        let action = match action {
            Action::Discrete(action) => self.giver.discrete(py, action)?,
            Action::Box(values) => self.giver.values(py, values, None)?,
            Action::MultiBinary(_) => unreachable!("no such space is made of Python's"),
        };
        let [seen, reward, terminated, truncated, _info] = parts(&self.step.bind(py).call1((action,))?)?;
        copy_obs(bridge, &seen, self.obs_start, obs)?;
        self.seen = Some(seen.unbind());
        Ok(Outcome {
            reward: reward.extract()?,
            terminated: terminated.is_truthy()?,
            truncated: truncated.is_truthy()?,
        })
    }

    fn begin(
        &mut self,
        bridge: &Bound<'_, PyModule>,
        seed: Option<u64>,
        obs: ObsMut<'_>,
    ) -> Result<(), EnvError> {
        self.state.seed = match seed {
            Some(seed) => {
                self.state.generator = Xoshiro256PlusPlus::seed_from_u64(seed);
                episode_seed(seed)
            }
            None => (self.state.generator.next_u64() >> 33) as u32,
        };
        self.state.taken.clear();
        self.state.phase = Phase::New;
        self.lost = false;
        self.reset_python(bridge, obs).map_err(|e| self.failed(bridge.py(), &e))?;
        self.state.phase = Phase::Running;
        Ok(())
    }

    fn advance(
        &mut self,
        bridge: &Bound<'_, PyModule>,
        action: Action<'_>,
        obs: ObsMut<'_>,
    ) -> Result<Outcome, EnvError> {
        action.check(&self.spec)?;
        match self.state.phase {
            Phase::New => return Err(EnvError::NotReset { env: self.spec.id.clone() }),
            Phase::Over => return Err(EnvError::Ended { env: self.spec.id.clone() }),
            Phase::Running => {}
        }
        let obs = fitting(obs, &self.spec)?;
        // Where a step that fails leaves the environment nobody knows.
        self.state.phase = Phase::New;
        let outcome = self.step_python(bridge, action, obs).map_err(|e| self.failed(bridge.py(), &e))?;
        self.state.taken.push(action);
        self.state.phase = if outcome.ended() { Phase::Over } else { Phase::Running };
        Ok(outcome)
    }

    /// The last observation, as it is written into the batch.
    fn last(&self, bridge: &Bound<'_, PyModule>) -> PyResult<Rows> {
        let mut rows = Rows::new(self.spec.observation.dtype(), self.spec.observation.elements());
        if let Some(seen) = &self.seen {
            copy_obs(bridge, seen.bind(bridge.py()), self.obs_start, rows.view_mut())?;
        }
        Ok(rows)
    }

    /// Takes the actions of a saved episode again. Whether the environment is where it was.
    fn replay(&mut self, bridge: &Bound<'_, PyModule>, phase: Phase, last: &SavedRows) -> PyResult<bool> {
        let mut rows = Rows::new(self.spec.observation.dtype(), self.spec.observation.elements());
        let width = self.spec.action.elements();
        let taken = self.state.taken.clone();
        self.reset_python(bridge, rows.view_mut())?;
        let mut ended = false;
        let mut take = |env: &mut Self, action: Action<'_>| -> PyResult<bool> {
            // An episode that ends sooner than it did is another one.
            if ended {
                return Ok(false);
            }
            ended = env.step_python(bridge, action, rows.view_mut())?.ended();
            Ok(true)
        };
        match &taken {
            Taken::Discrete(actions) => {
                for action in actions {
                    if !take(self, Action::Discrete(*action as usize))? {
                        return Ok(false);
                    }
                }
            }
            Taken::Box(values) => {
                for action in values.chunks_exact(width.max(1)) {
                    if !take(self, Action::Box(action))? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(ended == (phase == Phase::Over) && SavedRows::from(self.last(bridge)?.view()).same(last))
    }
}

/// The seed that Python gets: the same one where it is an i32, which every environment takes.
pub(super) fn episode_seed(seed: u64) -> u32 {
    match u32::try_from(seed) {
        Ok(seed) if seed < 1 << 31 => seed,
        _ => ((seed ^ seed >> 32) as u32) >> 1,
    }
}

/// `obs`, if it fits an observation of `spec`.
pub(super) fn fitting<'a>(obs: ObsMut<'a>, spec: &EnvSpec) -> Result<ObsMut<'a>, EnvError> {
    match spec.observation.dtype() {
        crate::Dtype::F32 => obs.f32(spec).map(ObsMut::F32),
        crate::Dtype::U8 => obs.u8(spec).map(ObsMut::U8),
    }
}

impl Env for GymEnv {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        let obs = fitting(obs, &self.spec)?;
        attach("", |bridge| self.begin(bridge, seed, obs))
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        attach("", |bridge| self.advance(bridge, action, obs))
    }

    fn save(&self) -> Vec<u8> {
        // What cannot be read is no observation that a loaded episode could be compared with: then it is lost.
        let last = attach("", |bridge| Ok(self.last(bridge).ok()));
        let last = last.ok().flatten().map(|rows| SavedRows::from(rows.view()));
        encode(&self.spec, &(&self.state, last))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        let (state, last): (State, Option<SavedRows>) = decode(&self.spec, bytes)?;
        let invalid =
            |why: &str| EnvError::Saved { env: self.spec.id.clone(), len: bytes.len(), why: why.to_string() };
        let fits = match (&state.taken, &self.spec.action) {
            (Taken::Discrete(actions), Space::Discrete { n }) => {
                actions.iter().all(|action| (*action as usize) < *n)
            }
            (Taken::Box(values), Space::Box { low, .. }) => values.len().is_multiple_of(low.len().max(1)),
            _ => false,
        };
        if !fits {
            return Err(invalid("the actions are not of its space"));
        }
        let phase = state.phase;
        (self.state, self.lost) = (state, false);
        if phase == Phase::New {
            self.seen = None;
            return Ok(());
        }
        self.state.phase = Phase::New;
        // One that fails under the same actions is as lost as one that shows something else.
        let same = attach("", |bridge| {
            Ok(last.is_some_and(|last| self.replay(bridge, phase, &last).unwrap_or(false)))
        })?;
        self.lost = !same;
        if same {
            self.state.phase = phase;
        }
        Ok(())
    }

    fn scene(&self) -> Option<Scene> {
        self.draw().ok()
    }

    fn draw(&self) -> Result<Scene, EnvError> {
        attach("", |bridge| {
            let seen = self.seen.as_ref().map(|seen| seen.bind(bridge.py()));
            picture(bridge, self.env.bind(bridge.py()), seen, 0).map_err(|e| self.failed(bridge.py(), &e))
        })
    }
}

impl Drop for GymEnv {
    fn drop(&mut self) {
        // What closing has to say nobody can hear.
        let _ = Python::try_attach(|py| self.env.bind(py).call_method0(intern!(py, "close")).map(drop));
    }
}

/// Environments that are stepped within one attachment to Python.
pub(super) struct GymEnvs(pub(super) Vec<GymEnv>);

impl Batch for GymEnvs {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn env(&self, index: usize) -> &dyn Env {
        &self.0[index]
    }

    fn env_mut(&mut self, index: usize) -> &mut dyn Env {
        &mut self.0[index]
    }

    fn step(&mut self, actions: Actions<'_>, memory: Memory<'_>) -> Option<Failure> {
        // Each attaches again, which then costs next to nothing.
        Python::attach(|_| Batch::step(&mut self.0, actions, memory))
    }

    fn reset(&mut self, seeds: &mut dyn Iterator<Item = u64>, obs: ObsMut<'_>) -> Option<Failure> {
        Python::attach(|_| Batch::reset(&mut self.0, seeds, obs))
    }

    fn restart(&mut self, obs: ObsMut<'_>, restarted: &mut [bool]) -> Option<Failure> {
        let elements = self.0.first().map_or(0, |env| env.spec.observation.elements());
        let mut obs = obs;
        for (index, env) in self.0.iter_mut().enumerate().filter(|(_, env)| env.lost) {
            restarted[index] = true;
            let row = obs.row(index, elements);
            if let Err(error) = env.reset(None, row) {
                return Some(Failure { index, error });
            }
        }
        None
    }

    fn split_off(&mut self, index: usize) -> Box<dyn Batch> {
        Box::new(GymEnvs(self.0.split_off(index)))
    }

    fn join(mut self: Box<Self>, later: Box<dyn Batch>) -> Box<dyn Batch> {
        let later = later.into_any().downcast::<Self>().expect("both are of one batch");
        self.0.extend(later.0);
        self
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
