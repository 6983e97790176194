//! A vector environment of Python's, which steps all its environments in one call.

use super::env::{episode_seed, fitting};
use super::interpreter::{attach, failed};
use super::spaces::{Giver, Layout, copy_obs, parts};
use super::{picture, spec_of};
use crate::batch::{Batch, Failure, Memory};
use crate::episode::{decode, encode};
use crate::{Action, Actions, Env, EnvError, EnvSpec, Obs, ObsMut, Outcome, Scene, Space, VecEnv};
use numpy::{PyArray1, PyArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyModule;
use rand::{Rng, SeedableRng};
use rand_xoshiro::SplitMix64;
use std::any::Any;
use std::sync::Arc;

/// When a vector environment starts the next episode of one of its environments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Autoreset {
    /// With the step that ended the episode; the last observation is in `info["final_obs"]`.
    SameStep,
    /// Instead of the step after it, whose action is ignored.
    NextStep,
    /// When it is told to, which is here done within the step.
    Disabled,
}

/// The environments of one Python vector environment.
pub(super) struct GymVec {
    spec: Arc<EnvSpec>,
    env: Py<PyAny>,
    step: Py<PyAny>,
    giver: Giver,
    obs_start: i64,
    autoreset: Autoreset,
    /// Those whose episode ended with the last step, and which start the next one with the step to come.
    ended: Vec<bool>,
    /// Those that the last step only started an episode in.
    skipped: Vec<bool>,
    members: Vec<Member>,
    /// The observations of all, as Python gave them last.
    seen: Option<Py<PyAny>>,
}

/// One of the environments, which does nothing alone.
struct Member {
    spec: Arc<EnvSpec>,
    /// Of its episodes.
    seed: u64,
    /// Steps since that was set.
    steps: u64,
}

impl GymVec {
    /// `count` environments as `id`, whose part before the colon is `gym-vec` or `atari`, asks for.
    pub(super) fn make(id: &str, count: usize) -> Result<Self, EnvError> {
        if count == 0 {
            return Err(EnvError::NoEnvs);
        }
        attach(id, |bridge| Self::from_python(id, bridge, count).map_err(|e| failed(bridge.py(), id, &e)))
    }

    fn from_python(id: &str, bridge: &Bound<'_, PyModule>, count: usize) -> PyResult<Self> {
        let (scheme, name) = id.split_once(':').unwrap_or(("gym-vec", id));
        let env = bridge.call_method1("make_many", (scheme, name, count))?;
        let about = bridge.call_method1("about_many", (&env,))?;
        let (observation, action) = (Layout::read(&about.get_item(0)?)?, Layout::read(&about.get_item(1)?)?);
        let autoreset = match about.get_item(3)?.extract::<String>()?.as_str() {
            "SAME_STEP" => Autoreset::SameStep,
            "NEXT_STEP" => Autoreset::NextStep,
            _ => Autoreset::Disabled,
        };
        let giver = Giver::new(bridge.py(), &action)?;
        let obs_start = observation.start;
        let spec = Arc::new(spec_of(id, observation.space, action.space, &about.get_item(2)?)?);
        let member =
            |_| Member { spec: Arc::clone(&spec), seed: rand::make_rng::<SplitMix64>().next_u64(), steps: 0 };
        Ok(Self {
            giver,
            obs_start,
            autoreset,
            ended: vec![false; count],
            skipped: vec![false; count],
            members: (0..count).map(member).collect(),
            step: env.getattr("step")?.unbind(),
            env: env.unbind(),
            seen: None,
            spec,
        })
    }

    /// Resets all from the members' seeds.
    fn reset_python(&mut self, bridge: &Bound<'_, PyModule>, obs: ObsMut<'_>) -> PyResult<()> {
        let seeds: Vec<u32> = self.members.iter().map(|member| episode_seed(member.seed)).collect();
        let seen = bridge.call_method1("reset_many", (self.env.bind(bridge.py()), seeds))?;
        self.ended.fill(false);
        self.skipped.fill(false);
        copy_obs(bridge, &seen, self.obs_start, obs)?;
        self.seen = Some(seen.unbind());
        Ok(())
    }

    fn step_python(
        &mut self,
        bridge: &Bound<'_, PyModule>,
        actions: Actions<'_>,
        memory: Memory<'_>,
    ) -> PyResult<()> {
        let py = bridge.py();
        let Memory { mut obs, ended: mut last, outcomes } = memory;
        let actions = match actions {
            Actions::Discrete(actions) => self.giver.numbers(py, actions)?,
            Actions::Box(values) => self.giver.values(py, values, Some(self.members.len()))?,
            Actions::MultiBinary(_) => unreachable!("no such space is made of Python's"),
        };
        let [seen, rewards, terminated, truncated, info] = parts(&self.step.bind(py).call1((actions,))?)?;
        copy_obs(bridge, &seen, self.obs_start, obs.reborrow())?;
        let rewards = array::<f64>(bridge, "doubles", &rewards, self.members.len())?;
        let terminated = array::<bool>(bridge, "flags", &terminated, self.members.len())?;
        let truncated = array::<bool>(bridge, "flags", &truncated, self.members.len())?;
        let (rewards, terminated, truncated) =
            (rewards.try_readonly()?, terminated.try_readonly()?, truncated.try_readonly()?);
        let (rewards, terminated, truncated) =
            (rewards.as_slice()?, terminated.as_slice()?, truncated.as_slice()?);
        let mut any = false;
        for (index, outcome) in outcomes.iter_mut().enumerate() {
            // The step after an end is no step: it started the next episode.
            self.skipped[index] = self.autoreset == Autoreset::NextStep && self.ended[index];
            *outcome = match self.skipped[index] {
                true => Outcome::default(),
                false => Outcome {
                    reward: rewards[index],
                    terminated: terminated[index],
                    truncated: truncated[index],
                },
            };
            self.ended[index] = outcome.ended();
            self.members[index].steps += 1;
            any |= outcome.ended();
        }
        if any {
            self.after_ends(bridge, &info, obs, last.reborrow())?;
        }
        self.seen = Some(seen.unbind());
        Ok(())
    }

    /// Writes the last observations of episodes that ended, and starts the next ones where that is for us to do.
    fn after_ends(
        &mut self,
        bridge: &Bound<'_, PyModule>,
        info: &Bound<'_, PyAny>,
        mut obs: ObsMut<'_>,
        mut last: ObsMut<'_>,
    ) -> PyResult<()> {
        let elements = self.spec.observation.elements();
        let ended = (0..self.members.len()).filter(|index| self.ended[*index]);
        if self.autoreset == Autoreset::SameStep {
            let finals = bridge.call_method1("final_obs", (info,))?;
            for index in ended {
                copy_obs(bridge, &finals.get_item(index)?, self.obs_start, last.row(index, elements))?;
            }
            return Ok(());
        }
        for index in ended {
            match (obs.row(index, elements), last.row(index, elements)) {
                (ObsMut::F32(obs), ObsMut::F32(last)) => last.copy_from_slice(obs),
                (ObsMut::U8(obs), ObsMut::U8(last)) => last.copy_from_slice(obs),
                _ => unreachable!("both blocks were made with the dtype of one spec"),
            }
        }
        if self.autoreset == Autoreset::Disabled {
            let mask = (self.env.bind(bridge.py()), self.ended.clone());
            let seen = bridge.call_method1("reset_some", mask)?;
            copy_obs(bridge, &seen, self.obs_start, obs)?;
            self.ended.fill(false);
        }
        Ok(())
    }
}

/// `values` as an array of one number an environment; `how` of bridge.py makes one of what is something else.
fn array<'py, T: numpy::Element>(
    bridge: &Bound<'py, PyModule>,
    how: &str,
    values: &Bound<'py, PyAny>,
    count: usize,
) -> PyResult<Bound<'py, PyArray1<T>>> {
    let array = match values.cast::<PyArray1<T>>() {
        Ok(array) => array.clone(),
        Err(_) => bridge.call_method1(how, (values,))?.cast_into::<PyArray1<T>>()?,
    };
    match array.len()? == count {
        true => Ok(array),
        false => Err(PyValueError::new_err(format!(
            "a step gave {} rewards or ends for {count} environments",
            array.len()?
        ))),
    }
}

impl Batch for GymVec {
    fn len(&self) -> usize {
        self.members.len()
    }

    fn env(&self, index: usize) -> &dyn Env {
        &self.members[index]
    }

    fn env_mut(&mut self, index: usize) -> &mut dyn Env {
        &mut self.members[index]
    }

    fn step(&mut self, actions: Actions<'_>, memory: Memory<'_>) -> Option<Failure> {
        let id = self.spec.id.clone();
        let result = attach("", |bridge| {
            self.step_python(bridge, actions, memory).map_err(|e| failed(bridge.py(), &id, &e))
        });
        // Whose fault it was Python does not say.
        result.err().map(|error| Failure { index: 0, error })
    }

    fn reset(&mut self, seeds: &mut dyn Iterator<Item = u64>, obs: ObsMut<'_>) -> Option<Failure> {
        for member in &mut self.members {
            (member.seed, member.steps) = (seeds.next().unwrap_or_default(), 0);
        }
        let result = attach("", |bridge| {
            self.reset_python(bridge, obs).map_err(|e| failed(bridge.py(), &self.spec.id, &e))
        });
        result.err().map(|error| Failure { index: 0, error })
    }

    fn splits(&self) -> bool {
        false
    }

    fn skipped(&self, index: usize) -> bool {
        self.skipped[index]
    }

    fn restart(&mut self, obs: ObsMut<'_>, restarted: &mut [bool]) -> Option<Failure> {
        restarted.fill(true);
        let seeds: Vec<u64> = self.members.iter().map(|member| member.seed).collect();
        self.reset(&mut seeds.into_iter(), obs)
    }

    fn draw(&self, index: usize) -> Result<Scene, EnvError> {
        attach("", |bridge| {
            let seen = self.seen.as_ref().and_then(|seen| seen.bind(bridge.py()).get_item(index).ok());
            picture(bridge, self.env.bind(bridge.py()), seen.as_ref(), index)
                .map_err(|e| failed(bridge.py(), &self.spec.id, &e))
        })
    }

    fn split_off(&mut self, _index: usize) -> Box<dyn Batch> {
        unreachable!("it does not split")
    }

    fn join(self: Box<Self>, _later: Box<dyn Batch>) -> Box<dyn Batch> {
        unreachable!("it does not split")
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl Drop for GymVec {
    fn drop(&mut self) {
        // What closing has to say nobody can hear.
        let _ = Python::try_attach(|py| self.env.bind(py).call_method0(intern!(py, "close")).map(drop));
    }
}

impl Member {
    fn not_alone<T>(&self) -> Result<T, EnvError> {
        let message = "it is one of several that Python steps together; step them all".to_string();
        Err(EnvError::Python { env: self.spec.id.clone(), message })
    }
}

impl Env for Member {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, _seed: Option<u64>, _obs: ObsMut<'_>) -> Result<(), EnvError> {
        self.not_alone()
    }

    fn step(&mut self, _action: Action<'_>, _obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        self.not_alone()
    }

    /// A seed for the episodes after loading: another one at each step.
    fn save(&self) -> Vec<u8> {
        encode(&self.spec, &SplitMix64::seed_from_u64(self.seed.wrapping_add(self.steps)).next_u64())
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        (self.seed, self.steps) = (decode(&self.spec, bytes)?, 0);
        Ok(())
    }

    fn scene(&self) -> Option<Scene> {
        None
    }
}

/// A vector environment of one as an environment: what asks for a single one of these ids gets this.
pub(super) struct GymOne {
    envs: VecEnv,
    /// Whether the step after an episode's end starts the next one.
    late: bool,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    New,
    Running,
    Over,
}

impl GymOne {
    pub(super) fn make(id: &str) -> Result<Self, EnvError> {
        let batch = GymVec::make(id, 1)?;
        let late = batch.autoreset == Autoreset::NextStep;
        Ok(Self { envs: VecEnv::of(Box::new(batch))?, late, phase: Phase::New })
    }

    fn give(seen: Obs<'_>, obs: ObsMut<'_>, spec: &EnvSpec) -> Result<(), EnvError> {
        match seen {
            Obs::F32(seen) => obs.f32(spec)?.copy_from_slice(seen),
            Obs::U8(seen) => obs.u8(spec)?.copy_from_slice(seen),
        }
        Ok(())
    }
}

/// The error of the only one, without its number.
fn only(error: EnvError) -> EnvError {
    match error {
        EnvError::At { source, .. } => *source,
        other => other,
    }
}

impl Env for GymOne {
    fn spec(&self) -> &EnvSpec {
        self.envs.spec()
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        let obs = fitting(obs, self.spec())?;
        match (seed, self.phase) {
            (None, Phase::Over) if self.late => {
                // The step that starts the next episode; its action is ignored.
                let result = match &self.spec().action {
                    Space::Box { low, .. } => {
                        let zeros = vec![0.0; low.len()];
                        self.envs.step(Actions::Box(&zeros))
                    }
                    _ => self.envs.step(Actions::Discrete(&[0])),
                };
                result.map_err(only)?;
            }
            (None, Phase::Over) => {}
            _ => {
                let seed = seed.unwrap_or_else(|| rand::make_rng::<SplitMix64>().next_u64());
                self.envs.reset(seed).map_err(only)?;
            }
        }
        self.phase = Phase::Running;
        Self::give(self.envs.observations(), obs, self.envs.spec())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        action.check(self.spec())?;
        let obs = fitting(obs, self.spec())?;
        match self.phase {
            Phase::New => return Err(EnvError::NotReset { env: self.spec().id.clone() }),
            Phase::Over => return Err(EnvError::Ended { env: self.spec().id.clone() }),
            Phase::Running => {}
        }
        let result = match action {
            Action::Discrete(action) => self.envs.step(Actions::Discrete(&[action as i64])),
            Action::Box(values) => self.envs.step(Actions::Box(values)),
            Action::MultiBinary(switches) => self.envs.step(Actions::MultiBinary(switches)),
        };
        result.map_err(only)?;
        let outcome = self.envs.outcomes()[0];
        if outcome.ended() {
            self.phase = Phase::Over;
        }
        Self::give(self.envs.next_observation(0), obs, self.envs.spec())?;
        Ok(outcome)
    }

    fn save(&self) -> Vec<u8> {
        self.envs.save()
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        self.envs.load(bytes)?;
        // It has begun a new episode, which nobody was shown: a reset comes first.
        self.phase = if self.envs.restarted()[0] { Phase::New } else { Phase::Running };
        Ok(())
    }

    fn scene(&self) -> Option<Scene> {
        self.draw().ok()
    }

    fn draw(&self) -> Result<Scene, EnvError> {
        self.envs.draw(0)
    }
}
