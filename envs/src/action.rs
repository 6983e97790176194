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

    /// The first `count` values.
    pub(crate) fn first(self, count: usize) -> Self {
        match self {
            Actions::Discrete(actions) => Actions::Discrete(&actions[..count]),
            Actions::Box(values) => Actions::Box(&values[..count]),
            Actions::MultiBinary(switches) => Actions::MultiBinary(&switches[..count]),
        }
    }

    /// That these are actions for `envs` environments of `spec`, `elements` values each, which all of them would take.
    ///
    /// # Errors
    /// [`EnvError::Batch`] when there are more or less values, [`EnvError::At`] with the first one that is refused.
    pub(crate) fn check(self, envs: usize, elements: usize, spec: &EnvSpec) -> Result<(), EnvError> {
        if self.len() != envs * elements {
            return Err(EnvError::Batch {
                env: spec.id.clone(),
                envs,
                expected: envs * elements,
                got: self.len(),
            });
        }
        // All at once first, which for good actions is all.
        let fine = match (self, &spec.action) {
            (Actions::Discrete(actions), Space::Discrete { n }) => {
                // A negative number has no usize, and comes out as a huge one.
                actions.iter().fold(true, |fine, action| fine & ((*action as u64) < *n as u64))
            }
            (Actions::Box(values), Space::Box { .. }) => {
                values.iter().fold(true, |fine, value| fine & value.is_finite())
            }
            (Actions::MultiBinary(_), Space::MultiBinary { .. }) => true,
            _ => false,
        };
        if fine { Ok(()) } else { self.refused(envs, elements, spec) }
    }

    #[cold]
    fn refused(self, envs: usize, elements: usize, spec: &EnvSpec) -> Result<(), EnvError> {
        let row = |row: usize| {
            let range = row * elements..(row + 1) * elements;
            match self {
                Actions::Discrete(actions) => match usize::try_from(actions[row]) {
                    Ok(action) => Action::Discrete(action).check(spec),
                    Err(_) => Err(refusal(spec, actions[row].to_string())),
                },
                Actions::Box(values) => Action::Box(&values[range]).check(spec),
                Actions::MultiBinary(switches) => Action::MultiBinary(&switches[range]).check(spec),
            }
        };
        (0..envs)
            .try_for_each(|index| row(index).map_err(|error| EnvError::At { index, source: Box::new(error) }))
    }
}
