//! What wrappers of image frames have in common.

use crate::{Dtype, Space};

/// The shape of frames of `space`, if its observations are images: bytes from 0 to 255, `[height, width]` or
/// `[height, width, channels]`.
pub(super) fn image_shape(space: &Space) -> Option<&[usize]> {
    match space {
        Space::Box { dtype: Dtype::U8, low, high, shape }
            if matches!(shape.len(), 2 | 3)
                && low.iter().all(|v| *v == 0.0)
                && high.iter().all(|v| *v == 255.0) =>
        {
            Some(shape)
        }
        _ => None,
    }
}

/// Images of `shape`.
pub(super) fn image_space(shape: Vec<usize>) -> Space {
    let elements = shape.iter().product();
    Space::Box { dtype: Dtype::U8, low: vec![0.0; elements], high: vec![255.0; elements], shape }
}

/// In an `impl Env`: `reset` and `step` of a wrapper that has the environment inside observe into its field `$frame`, a
/// `Vec<u8>`, and makes a frame of its own from it with its method `$make`.
macro_rules! remake_frames {
    ($frame:ident, $make:ident) => {
        fn reset(&mut self, seed: Option<u64>, obs: $crate::ObsMut<'_>) -> Result<(), $crate::EnvError> {
            let obs = obs.u8(&self.spec)?;
            self.env.reset(seed, $crate::ObsMut::U8(&mut self.$frame))?;
            self.$make(obs);
            Ok(())
        }

        fn step(
            &mut self,
            action: $crate::Action<'_>,
            obs: $crate::ObsMut<'_>,
        ) -> Result<$crate::Outcome, $crate::EnvError> {
            let obs = obs.u8(&self.spec)?;
            let outcome = self.env.step(action, $crate::ObsMut::U8(&mut self.$frame))?;
            self.$make(obs);
            Ok(outcome)
        }
    };
}

pub(super) use remake_frames;
