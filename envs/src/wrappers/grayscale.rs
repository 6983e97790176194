//! Color frames as shades of gray.

use super::image::{image_shape, image_space, remake_frames};
use super::{inner, pass_on, refused};
use crate::{Env, EnvError, EnvSpec};

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
        let Some(&[height, width, 3]) = image_shape(space) else {
            let why = format!("it takes bytes from 0 to 255 of shape (height, width, 3), not {space}");
            return Err(refused("Grayscale", env.spec(), why));
        };
        let spec = EnvSpec { observation: image_space(vec![height, width]), ..env.spec().clone() };
        Ok(Self { env, spec, colored: vec![0; height * width * 3] })
    }

    inner!("The environment inside, whose frames are colored.", "The environment inside, to be changed.");

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
    pass_on!(state, scene);
    remake_frames!(colored, shade);

    fn spec(&self) -> &EnvSpec {
        &self.spec
    }
}
