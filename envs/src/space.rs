//! Sets that actions and observations are from.

use crate::{Action, Obs};
use std::fmt;

/// The element type of an observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// Single precision.
    F32,
    /// One unsigned byte: image frames.
    U8,
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dtype::F32 => "float32",
            Dtype::U8 => "uint8",
        })
    }
}

/// A set of actions or observations. Its `Display` is Gymnasium's way of writing it, with long bounds shortened.
#[derive(Clone, Debug, PartialEq)]
pub enum Space {
    /// The whole numbers from 0 to `n` − 1.
    Discrete {
        /// How many there are, at least 1.
        n: usize,
    },
    /// Arrays whose elements each lie between two bounds, which may be infinite.
    Box {
        /// Element type.
        dtype: Dtype,
        /// Lower bounds, one an element in row-major order; the bound itself belongs to the space.
        low: Vec<f32>,
        /// Upper bounds, likewise.
        high: Vec<f32>,
        /// The array's shape; its product is the length of `low` and `high`.
        shape: Vec<usize>,
    },
    /// `n` switches, each on or off.
    MultiBinary {
        /// How many there are.
        n: usize,
    },
}

impl Space {
    /// A [`Space::Box`] of f32 vectors, one bound pair an element; its shape is `[N]`.
    pub fn vector<const N: usize>(low: [f32; N], high: [f32; N]) -> Self {
        Space::Box { dtype: Dtype::F32, low: low.to_vec(), high: high.to_vec(), shape: vec![N] }
    }

    /// Numbers in one element of the space: 1 for `Discrete`, the product of the shape for `Box`, `n` for `MultiBinary`.
    pub fn elements(&self) -> usize {
        match self {
            Space::Discrete { .. } => 1,
            Space::Box { shape, .. } => shape.iter().product(),
            Space::MultiBinary { n } => *n,
        }
    }

    /// The element type in which observations of this space are written: a box's own; bytes for `MultiBinary` (0 or 1), f32
    /// for `Discrete` (the number itself).
    pub fn dtype(&self) -> Dtype {
        match self {
            Space::Discrete { .. } => Dtype::F32,
            Space::Box { dtype, .. } => *dtype,
            Space::MultiBinary { .. } => Dtype::U8,
        }
    }

    /// Whether `action` is of this space: the same kind and length, and within the bounds. NaN is in no box.
    ///
    /// Environments may take more than their space: those here clip a finite box action that is out of bounds, as
    /// Gymnasium's do.
    pub fn contains(&self, action: Action<'_>) -> bool {
        match (self, action) {
            (Space::Discrete { n }, Action::Discrete(action)) => action < *n,
            (Space::Box { .. }, Action::Box(values)) => self.contains_obs(Obs::F32(values)),
            (Space::MultiBinary { n }, Action::MultiBinary(switches)) => switches.len() == *n,
            _ => false,
        }
    }

    /// Whether an observation, written in [`dtype`](Space::dtype), is of this space. NaN is in no space.
    pub fn contains_obs(&self, obs: Obs<'_>) -> bool {
        let within = |low: &f32, high: &f32, value: f32| *low <= value && value <= *high;
        match (self, obs) {
            (Space::Discrete { n }, Obs::F32(&[value])) => {
                value >= 0.0 && value.fract() == 0.0 && (value as usize) < *n
            }
            (Space::Box { dtype: Dtype::F32, low, high, .. }, Obs::F32(values)) => {
                values.len() == low.len()
                    && low.iter().zip(high).zip(values).all(|((l, h), v)| within(l, h, *v))
            }
            (Space::Box { dtype: Dtype::U8, low, high, .. }, Obs::U8(values)) => {
                values.len() == low.len()
                    && low.iter().zip(high).zip(values).all(|((l, h), v)| within(l, h, f32::from(*v)))
            }
            (Space::MultiBinary { n }, Obs::U8(values)) => {
                values.len() == *n && values.iter().all(|v| *v <= 1)
            }
            _ => false,
        }
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Space::Discrete { n } => write!(f, "Discrete({n})"),
            Space::MultiBinary { n } => write!(f, "MultiBinary({n})"),
            Space::Box { dtype, low, high, shape } => {
                write!(f, "Box({}, {}, ", Bounds(low, *dtype), Bounds(high, *dtype))?;
                match shape[..] {
                    // Python's way of writing a tuple of one.
                    [one] => write!(f, "({one},)")?,
                    _ => {
                        write!(f, "({})", shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", "))?
                    }
                }
                write!(f, ", {dtype})")
            }
        }
    }
}

/// Bounds of one side: a single number where all are equal, else a list that leaves out its middle when it is long.
struct Bounds<'a>(&'a [f32], Dtype);

impl fmt::Display for Bounds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let Bounds(bounds, dtype) = *self;
        let number = |value: &f32| match dtype {
            Dtype::F32 => format!("{value:?}"),
            Dtype::U8 => format!("{value}"),
        };
        match bounds {
            [] => f.write_str("[]"),
            [first, rest @ ..] if rest.iter().all(|bound| bound == first) => f.write_str(&number(first)),
            _ if bounds.len() <= SHOWN => {
                write!(f, "[{}]", bounds.iter().map(number).collect::<Vec<_>>().join(" "))
            }
            _ => {
                let ends = |part: &[f32]| part.iter().map(number).collect::<Vec<_>>().join(" ");
                write!(f, "[{} ... {}]", ends(&bounds[..3]), ends(&bounds[bounds.len() - 3..]))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Space {
        Space::Box { dtype: Dtype::U8, low: vec![0.0; 12], high: vec![255.0; 12], shape: vec![2, 2, 3] }
    }

    #[test]
    fn a_box_holds_its_bounds_and_nothing_beyond_them() {
        let space = Space::vector([-1.0, f32::NEG_INFINITY], [1.0, 2.0]);
        for (values, inside) in [
            (&[-1.0, 2.0][..], true),
            (&[1.0, f32::NEG_INFINITY], true),
            (&[1.0000001, 0.0], false),
            (&[0.0, f32::NAN], false),
            (&[0.0], false),
            (&[0.0, 0.0, 0.0], false),
        ] {
            assert_eq!(space.contains(Action::Box(values)), inside, "{values:?}");
            assert_eq!(space.contains_obs(Obs::F32(values)), inside, "{values:?}");
        }
        assert!(!space.contains(Action::Discrete(0)), "another kind of action");
        assert!(!space.contains_obs(Obs::U8(&[0, 0])), "another element type");
        assert!(image().contains_obs(Obs::U8(&[255; 12])) && !image().contains_obs(Obs::U8(&[255; 11])));
    }

    #[test]
    fn discrete_and_multi_binary_know_their_own() {
        let space = Space::Discrete { n: 3 };
        assert!(space.contains(Action::Discrete(2)) && !space.contains(Action::Discrete(3)));
        assert!(space.contains_obs(Obs::F32(&[2.0])));
        assert!(!space.contains_obs(Obs::F32(&[1.5])) && !space.contains_obs(Obs::F32(&[-1.0])));
        assert!(!space.contains_obs(Obs::F32(&[f32::NAN])) && !space.contains_obs(Obs::F32(&[3.0])));
        let switches = Space::MultiBinary { n: 2 };
        assert!(switches.contains(Action::MultiBinary(&[true, false])));
        assert!(!switches.contains(Action::MultiBinary(&[true])));
        assert!(switches.contains_obs(Obs::U8(&[0, 1])) && !switches.contains_obs(Obs::U8(&[0, 2])));
        assert_eq!((space.elements(), switches.elements(), image().elements()), (1, 2, 12));
    }

    #[test]
    fn spaces_print_as_in_gymnasium() {
        assert_eq!(Space::Discrete { n: 2 }.to_string(), "Discrete(2)");
        assert_eq!(Space::MultiBinary { n: 4 }.to_string(), "MultiBinary(4)");
        assert_eq!(image().to_string(), "Box(0, 255, (2, 2, 3), uint8)");
        assert_eq!(Space::vector([-2.0], [2.0]).to_string(), "Box(-2.0, 2.0, (1,), float32)");
        let car = Space::vector([-1.2, -0.07], [0.6, 0.07]);
        assert_eq!(car.to_string(), "Box([-1.2 -0.07], [0.6 0.07], (2,), float32)");
        let long: [f32; 10] = std::array::from_fn(|i| i as f32);
        let long = Space::vector(long, [f32::INFINITY; 10]);
        assert_eq!(long.to_string(), "Box([0.0 1.0 2.0 ... 7.0 8.0 9.0], inf, (10,), float32)");
    }
}
