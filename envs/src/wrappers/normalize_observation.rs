//! Observations with mean 0 and variance 1.

use super::{RunningMeanStd, inner, pass_on, refused};
use crate::episode::{decode, encode};
use crate::rows::Rows;
use crate::{Action, Dtype, Env, EnvError, EnvSpec, Obs, ObsMut, Outcome, Space};

/// Shifts and scales observations to mean 0 and variance 1, by what was seen so far.
///
/// As Gymnasium's `NormalizeObservation`: every observation, those of resets too, goes into the running mean and variance
/// first and is normalized by them then. Gymnasium keeps these in f32, here they are f64. Each wrapped environment has
/// statistics of its own; [`RunningMeanStd`] says how several share one, as in Gymnasium's vector wrapper.
///
/// The statistics are part of what is [saved](Env::save). For an evaluation hand them to its environment
/// ([`running`](Self::running), [`set_running`](Self::set_running)) and [freeze](Self::set_frozen) it. A replay buffer
/// should hold raw observations and normalize what it draws: those stored early were normalized by statistics that no longer
/// hold.
#[derive(Debug)]
pub struct NormalizeObservation<E> {
    env: E,
    spec: EnvSpec,
    raw: Rows,
    running: RunningMeanStd,
    epsilon: f64,
    frozen: bool,
}

impl<E: Env> NormalizeObservation<E> {
    /// `env` with normalized observations, f32 of the same shape. `epsilon`, Gymnasium's is 10⁻⁸, is added to the variance.
    ///
    /// # Errors
    /// [`EnvError::Wrapper`] when observations are not boxes, or `epsilon` is not greater than 0.
    pub fn new(env: E, epsilon: f64) -> Result<Self, EnvError> {
        let refused = |why: String| refused("NormalizeObservation", env.spec(), why);
        if epsilon.is_nan() || epsilon <= 0.0 {
            return Err(refused(format!("epsilon must be greater than 0; {epsilon} was given")));
        }
        let Space::Box { dtype, shape, low, .. } = &env.spec().observation else {
            return Err(refused(format!("it normalizes boxes, not {}", env.spec().observation)));
        };
        let elements = low.len();
        let observation = Space::Box {
            dtype: Dtype::F32,
            low: vec![f32::NEG_INFINITY; elements],
            high: vec![f32::INFINITY; elements],
            shape: shape.clone(),
        };
        let (raw, running) = (Rows::new(*dtype, elements), RunningMeanStd::new(elements));
        let spec = EnvSpec { observation, ..env.spec().clone() };
        Ok(Self { env, spec, raw, running, epsilon, frozen: false })
    }

    /// Whether the statistics stay as they are.
    pub fn frozen(&self) -> bool {
        self.frozen
    }

    /// Lets the statistics stay as they are, as an evaluation should, or go on.
    pub fn set_frozen(&mut self, frozen: bool) {
        self.frozen = frozen;
    }

    /// The statistics.
    pub fn running(&self) -> &RunningMeanStd {
        &self.running
    }

    /// Goes on with these statistics.
    ///
    /// # Panics
    /// When they are of vectors with another number of elements.
    pub fn set_running(&mut self, running: RunningMeanStd) {
        let expected = self.running.mean().len();
        assert_eq!(running.mean().len(), expected, "statistics of observations with {expected} elements");
        self.running = running;
    }

    inner!("The environment inside, whose observations are raw.", "The environment inside, to be changed.");

    fn normalize(&mut self, obs: &mut [f32]) {
        // A macro, for the two element types have no function in common.
        macro_rules! normalize {
            ($raw:expr) => {{
                if !self.frozen {
                    self.running.update($raw);
                }
                self.running.normalize($raw, self.epsilon, obs);
            }};
        }
        match self.raw.view() {
            Obs::F32(raw) => normalize!(raw),
            Obs::U8(raw) => normalize!(raw),
        }
    }
}

impl<E: Env> Env for NormalizeObservation<E> {
    pass_on!(scene);

    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        let obs = obs.f32(&self.spec)?;
        self.env.reset(seed, self.raw.view_mut())?;
        self.normalize(obs);
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        let obs = obs.f32(&self.spec)?;
        let outcome = self.env.step(action, self.raw.view_mut())?;
        self.normalize(obs);
        Ok(outcome)
    }

    fn save(&self) -> Vec<u8> {
        encode(&self.spec, &(&self.running, self.frozen, self.env.save()))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        let (running, frozen, inner): (RunningMeanStd, bool, Vec<u8>) = decode(&self.spec, bytes)?;
        if running.mean().len() != self.running.mean().len() {
            let why = "the statistics are of observations with another number of elements".to_string();
            return Err(EnvError::Saved { env: self.spec.id.clone(), len: bytes.len(), why });
        }
        self.env.load(&inner)?;
        (self.running, self.frozen) = (running, frozen);
        Ok(())
    }
}
