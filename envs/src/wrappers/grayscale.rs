//! Color frames as shades of gray.

use super::{Arcade, refused};
use crate::episode::{decode, encode};
use crate::{Action, Dtype, Env, EnvError, EnvSpec, ObsMut, Outcome, Scene, Space};

/// Shares of red, green and blue in a shade: ITU-R BT.709's, to four digits.
const SHARES: [f64; 3] = [0.2125, 0.7154, 0.0721];

/// Color frames `[height, width, 3]` as shades of gray, `[height, width]`.
///
/// As Gymnasium's `GrayscaleObservation`: 0.2125 red + 0.7154 green + 0.0721 blue in f64, cut to a whole number.
#[derive(Clone, Debug)]
pub struct Grayscale<E> {
    env: E,
    spec: EnvSpec,
    colored: Vec<u8>,
}

impl<E: Env> Grayscale<E> {
    /// `env` with gray frames.
    ///
    /// # Errors
    /// [`EnvError::Wrapper`] unless observations are bytes from 0 to 255 of shape `[height, width, 3]`.
    pub fn new(env: E) -> Result<Self, EnvError> {
        let space = &env.spec().observation;
        let size = match space {
            Space::Box { dtype: Dtype::U8, low, high, shape } => match shape[..] {
                [height, width, 3] if low.iter().all(|v| *v == 0.0) && high.iter().all(|v| *v == 255.0) => {
                    Some([height, width])
                }
                _ => None,
            },
            _ => None,
        };
        let Some([height, width]) = size else {
            let why = format!("it takes bytes from 0 to 255 of shape (height, width, 3), not {space}");
            return Err(refused("Grayscale", env.spec(), why));
        };
        let observation = Space::Box {
            dtype: Dtype::U8,
            low: vec![0.0; height * width],
            high: vec![255.0; height * width],
            shape: vec![height, width],
        };
        let spec = EnvSpec { observation, ..env.spec().clone() };
        Ok(Self { env, spec, colored: vec![0; height * width * 3] })
    }

    /// The environment inside, whose frames are colored.
    pub fn inner(&self) -> &E {
        &self.env
    }

    /// The environment inside, to be changed.
    pub fn inner_mut(&mut self) -> &mut E {
        &mut self.env
    }

    fn shade(&self, obs: &mut [u8]) {
        for (shade, color) in obs.iter_mut().zip(self.colored.as_chunks().0) {
            *shade = gray(*color);
        }
    }
}

/// The shade of a color.
fn gray(color: [u8; 3]) -> u8 {
    let [red, green, blue]: [f64; 3] = std::array::from_fn(|i| f64::from(color[i]) * SHARES[i]);
    (red + green + blue) as u8
}

impl<E: Env> Env for Grayscale<E> {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        let obs = obs.u8(&self.spec)?;
        self.env.reset(seed, ObsMut::U8(&mut self.colored))?;
        self.shade(obs);
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        let obs = obs.u8(&self.spec)?;
        let outcome = self.env.step(action, ObsMut::U8(&mut self.colored))?;
        self.shade(obs);
        Ok(outcome)
    }

    fn save(&self) -> Vec<u8> {
        encode(&self.spec, &self.env.save())
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        let inner: Vec<u8> = decode(&self.spec, bytes)?;
        self.env.load(&inner)
    }

    fn scene(&self) -> Option<Scene> {
        self.env.scene()
    }
}

impl<E: Arcade> Arcade for Grayscale<E> {
    fn lives(&self) -> u32 {
        self.env.lives()
    }

    fn action_meanings(&self) -> &[&str] {
        self.env.action_meanings()
    }
}
