//! Actions that last several frames.

use super::{inner, pass_on, refused};
use crate::rows::Rows;
use crate::{Action, Env, EnvError, Obs, ObsMut, Outcome, Space};

/// Carries out each action for several frames, and shows the elementwise maximum of the last two.
///
/// Rewards add up. Atari draws some things only every other frame, which the maximum shows together (Mnih et al., 2015).
/// As Gymnasium's `MaxAndSkipObservation`, but for an episode that ends within the frames: the maximum is that of its own last
/// two, or its only one, and not of frames of the step before.
#[derive(Debug)]
pub struct MaxAndSkip<E> {
    env: E,
    skip: u32,
    /// The frame before the last.
    before: Rows,
}

impl<E: Env> MaxAndSkip<E> {
    /// `env` with actions of `skip` frames each.
    ///
    /// # Errors
    /// [`EnvError::Wrapper`] when `skip` is less than 2, or observations are not boxes.
    pub fn new(env: E, skip: u32) -> Result<Self, EnvError> {
        if skip < 2 {
            let why = format!("an action must last at least 2 frames; {skip} was given");
            return Err(refused("MaxAndSkip", env.spec(), why));
        }
        let Space::Box { dtype, .. } = env.spec().observation else {
            return Err(refused("MaxAndSkip", env.spec(), "observations must be boxes"));
        };
        let before = Rows::new(dtype, env.spec().observation.elements());
        Ok(Self { env, skip, before })
    }

    inner!("The environment inside.", "The environment inside, to be changed.");
}

impl<E: Env> Env for MaxAndSkip<E> {
    pass_on!(spec, reset, state, scene);

    fn step(&mut self, action: Action<'_>, mut obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        let mut all = self.env.step(action, obs.reborrow())?;
        for frame in 1..self.skip {
            if all.ended() {
                break;
            }
            match (self.before.view_mut(), obs.reborrow()) {
                (ObsMut::F32(before), ObsMut::F32(last)) => before.copy_from_slice(last),
                (ObsMut::U8(before), ObsMut::U8(last)) => before.copy_from_slice(last),
                _ => unreachable!("the environment took this memory for its observation"),
            }
            let outcome = self.env.step(action, obs.reborrow())?;
            all = Outcome { reward: all.reward + outcome.reward, ..outcome };
            if frame + 1 == self.skip || all.ended() {
                match (self.before.view(), obs.reborrow()) {
                    (Obs::F32(before), ObsMut::F32(last)) => maximum(before, last, f32::max),
                    (Obs::U8(before), ObsMut::U8(last)) => maximum(before, last, u8::max),
                    _ => unreachable!("the environment took this memory for its observation"),
                }
            }
        }
        Ok(all)
    }
}

fn maximum<T: Copy>(before: &[T], last: &mut [T], greater: impl Fn(T, T) -> T) {
    for (before, last) in before.iter().zip(last) {
        *last = greater(*before, *last);
    }
}
