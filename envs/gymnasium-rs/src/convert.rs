//! Actions and observations there and here.

use ndarray::{Array, Array1, Dimension};
use rl_envs::{Action, ObsMut};

/// A type of observations of gymnasium-rs.
pub trait ToObs {
    /// Writes the elements in row-major order. `false`, with nothing written, when they are not as many or not of this
    /// element type.
    #[must_use]
    fn write(&self, obs: ObsMut<'_>) -> bool;
}

/// One of some whole numbers, for a discrete space. Exact up to 2²⁴.
impl ToObs for i32 {
    fn write(&self, obs: ObsMut<'_>) -> bool {
        let ObsMut::F32([out]) = obs else { return false };
        *out = *self as f32;
        true
    }
}

impl<D: Dimension> ToObs for Array<f32, D> {
    fn write(&self, obs: ObsMut<'_>) -> bool {
        match obs {
            ObsMut::F32(out) => copy(self, out),
            ObsMut::U8(_) => false,
        }
    }
}

/// Image frames, for a space of bytes given with [`with_observation_space`](crate::Adapted::with_observation_space).
impl<D: Dimension> ToObs for Array<u8, D> {
    fn write(&self, obs: ObsMut<'_>) -> bool {
        match obs {
            ObsMut::U8(out) => copy(self, out),
            ObsMut::F32(_) => false,
        }
    }
}

fn copy<T: Copy, D: Dimension>(from: &Array<T, D>, out: &mut [T]) -> bool {
    if from.len() != out.len() {
        return false;
    }
    // In the order of the indices, however the array lies in memory.
    out.iter_mut().zip(from).for_each(|(out, value)| *out = *value);
    true
}

/// A type of actions of gymnasium-rs.
pub trait FromAction: Sized {
    /// The action; `None` for another kind of action than this type has.
    fn from_action(action: Action<'_>) -> Option<Self>;
}

/// For discrete spaces.
impl FromAction for i32 {
    fn from_action(action: Action<'_>) -> Option<Self> {
        let Action::Discrete(action) = action else { return None };
        action.try_into().ok()
    }
}

/// For boxes.
impl FromAction for Array1<f32> {
    fn from_action(action: Action<'_>) -> Option<Self> {
        let Action::Box(values) = action else { return None };
        Some(values.to_vec().into())
    }
}
