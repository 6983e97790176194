//! What every environment here keeps beside its physics: the random generator and where the episode stands.

use crate::{EnvError, EnvSpec};
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The random generator of one environment and the phase of its episode.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Episode {
    generator: Xoshiro256PlusPlus,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// Never reset.
    New,
    /// Between a reset and the episode's end.
    Running,
    /// After a terminal step.
    Over,
}

impl Episode {
    /// Not yet begun, with a generator that the operating system seeded.
    pub(crate) fn new() -> Self {
        Self { generator: rand::make_rng(), phase: Phase::New }
    }

    /// Begins the next episode, from a generator started anew if there is a seed.
    pub(crate) fn begin(&mut self, seed: Option<u64>) {
        if let Some(seed) = seed {
            self.generator = Xoshiro256PlusPlus::seed_from_u64(seed);
        }
        self.phase = Phase::Running;
    }

    /// That a step may be taken.
    pub(crate) fn check(&self, spec: &EnvSpec) -> Result<(), EnvError> {
        match self.phase {
            Phase::Running => Ok(()),
            Phase::New => Err(EnvError::NotReset { env: spec.id.clone() }),
            Phase::Over => Err(EnvError::Ended { env: spec.id.clone() }),
        }
    }

    /// Notes that a step was taken and whether it was terminal.
    pub(crate) fn advance(&mut self, terminated: bool) {
        if terminated {
            self.phase = Phase::Over;
        }
    }

    /// A uniform number in [low, high), with 53 random bits: NumPy's formula, and one that no release of a crate changes.
    pub(crate) fn uniform(&mut self, low: f64, high: f64) -> f64 {
        const STEP: f64 = 1.0 / (1u64 << 53) as f64;
        low + (high - low) * ((self.generator.next_u64() >> 11) as f64 * STEP)
    }

    /// A number of the normal distribution with mean 0 and deviation 1, from two uniform ones (Box and Muller, 1958).
    #[cfg(feature = "mujoco")]
    pub(crate) fn normal(&mut self) -> f64 {
        // 1 less a number in [0, 1) is none whose logarithm is infinite.
        let radius = (-2.0 * (1.0 - self.uniform(0.0, 1.0)).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform(0.0, 1.0)).cos()
    }
}

/// `state` as bytes, headed by the environment's id so that no other kind reads them.
pub(crate) fn encode<T: Serialize>(spec: &EnvSpec, state: &T) -> Vec<u8> {
    postcard::to_stdvec(&(&spec.id, state)).expect("plain numbers and vectors always encode into memory")
}

/// The state in `bytes`.
pub(crate) fn decode<T: DeserializeOwned>(spec: &EnvSpec, bytes: &[u8]) -> Result<T, EnvError> {
    let invalid = |why: String| EnvError::Saved { env: spec.id.clone(), len: bytes.len(), why };
    // The id first and by itself: the state of another kind may not even decode.
    let (id, rest) = postcard::take_from_bytes::<String>(bytes).map_err(|e| invalid(e.to_string()))?;
    if id != spec.id {
        return Err(invalid(format!("they are of {id:?}")));
    }
    match postcard::take_from_bytes::<T>(rest).map_err(|e| invalid(e.to_string()))? {
        (state, []) => Ok(state),
        (_, rest) => Err(invalid(format!("{} bytes are left over", rest.len()))),
    }
}

/// `state` as an array, if it is `N` finite numbers.
pub(crate) fn state_of<const N: usize>(spec: &EnvSpec, state: &[f64]) -> Result<[f64; N], EnvError> {
    let refused = || EnvError::State {
        env: spec.id.clone(),
        got: format!("{state:?}"),
        expected: format!("{N} finite numbers"),
    };
    let state: [f64; N] = state.try_into().map_err(|_| refused())?;
    if state.iter().all(|value| value.is_finite()) { Ok(state) } else { Err(refused()) }
}
