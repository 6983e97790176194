//! Actions of one environment and of several.

use crate::{EnvError, EnvSpec, Space};
use std::fmt;

/// What an environment is told to do in one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action<'a> {
    /// For [`Space::Discrete`]: one of the whole numbers from 0.
    Discrete(usize),
    /// For [`Space::Box`]: its elements in row-major order.
    Box(&'a [f32]),
    /// For [`Space::MultiBinary`]: one switch an element.
    MultiBinary(&'a [bool]),
}

impl<'a> Action<'a> {
    /// The number, if this action is one that `spec` allows.
    ///
    /// # Errors
    /// [`EnvError::Action`] when `spec` has no discrete actions, or not this one.
    pub fn discrete(self, spec: &EnvSpec) -> Result<usize, EnvError> {
        match (self, &spec.action) {
            (Action::Discrete(action), Space::Discrete { n }) if action < *n => Ok(action),
            _ => Err(self.refused(spec)),
        }
    }

    /// The numbers, if they are as many as `spec` wants and all finite. They may lie outside the bounds: an environment
    /// says itself whether it clips them.
    ///
    /// # Errors
    /// [`EnvError::Action`] when `spec` has no box of actions, the length differs, or a value is NaN or infinite.
    pub fn values(self, spec: &EnvSpec) -> Result<&'a [f32], EnvError> {
        match (self, &spec.action) {
            (Action::Box(values), Space::Box { low, .. })
                if values.len() == low.len() && values.iter().all(|value| value.is_finite()) =>
            {
                Ok(values)
            }
            _ => Err(self.refused(spec)),
        }
    }

    /// The switches, if they are as many as `spec` wants.
    ///
    /// # Errors
    /// [`EnvError::Action`] when `spec` has no multi-binary actions, or the length differs.
    pub fn switches(self, spec: &EnvSpec) -> Result<&'a [bool], EnvError> {
        match (self, &spec.action) {
            (Action::MultiBinary(switches), Space::MultiBinary { n }) if switches.len() == *n => Ok(switches),
            _ => Err(self.refused(spec)),
        }
    }

    /// Whether an environment of `spec` would take this action.
    ///
    /// # Errors
    /// Those of [`discrete`](Action::discrete), [`values`](Action::values) and [`switches`](Action::switches), by kind.
    pub fn check(self, spec: &EnvSpec) -> Result<(), EnvError> {
        match spec.action {
            Space::Discrete { .. } => self.discrete(spec).map(drop),
            Space::Box { .. } => self.values(spec).map(drop),
            Space::MultiBinary { .. } => self.switches(spec).map(drop),
        }
    }

    #[cold]
    fn refused(self, spec: &EnvSpec) -> EnvError {
        refusal(spec, self.to_string())
    }
}

/// The error about an action, or what came in the place of one, that `spec` does not allow.
#[cold]
fn refusal(spec: &EnvSpec, got: String) -> EnvError {
    let allowed = match &spec.action {
        Space::Discrete { n } => format!("a whole number from 0 to {}", n.saturating_sub(1)),
        Space::Box { low, .. } => format!("{} finite f32 of {}", low.len(), spec.action),
        Space::MultiBinary { n } => format!("{n} booleans"),
    };
    EnvError::Action { env: spec.id.clone(), got, allowed }
}

impl fmt::Display for Action<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Enough to recognize what came; an action may have thousands of elements.
        const SHOWN: usize = 8;
        fn list<T: fmt::Debug>(f: &mut fmt::Formatter<'_>, values: &[T]) -> fmt::Result {
            match values.get(..SHOWN) {
                Some(start) if values.len() > SHOWN => {
                    write!(f, "{start:?} and {} more", values.len() - SHOWN)
                }
                _ => write!(f, "{values:?}"),
            }
        }
        match self {
            Action::Discrete(action) => write!(f, "{action}"),
            Action::Box(values) => list(f, values),
            Action::MultiBinary(switches) => list(f, switches),
        }
    }
}

/// What `E` environments are told to do in one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Actions<'a> {
    /// One number an environment, `[E]`; i64 as tensor libraries give them.
    Discrete(&'a [i64]),
    /// Boxes of `A` elements, `[E, A]` row-major.
    Box(&'a [f32]),
    /// `A` switches an environment, `[E, A]` row-major.
    MultiBinary(&'a [bool]),
}

impl<'a> Actions<'a> {
    /// Values in all rows together.
    pub(crate) fn len(&self) -> usize {
        match self {
            Actions::Discrete(actions) => actions.len(),
            Actions::Box(values) => values.len(),
            Actions::MultiBinary(switches) => switches.len(),
        }
    }

    /// The action of environment `row`, when each has `elements` values.
    pub(crate) fn row(&self, row: usize, elements: usize, spec: &EnvSpec) -> Result<Action<'a>, EnvError> {
        let range = row * elements..(row + 1) * elements;
        Ok(match *self {
            // A negative number has no usize, and must not come out as a huge one.
            Actions::Discrete(actions) => Action::Discrete(
                usize::try_from(actions[row]).map_err(|_| refusal(spec, actions[row].to_string()))?,
            ),
            Actions::Box(values) => Action::Box(&values[range]),
            Actions::MultiBinary(switches) => Action::MultiBinary(&switches[range]),
        })
    }
}
