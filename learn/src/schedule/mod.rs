//! Numbers that change as training goes: values that compose, print, and are written and read as plain data.
//!
//! A [`Schedule`] is a function of a count and nothing else, so it has no state of its own to save: a resumed run asks at the
//! count it had reached. `curve.rs` has the kinds and their formulas, `check.rs` what is refused, `display.rs` how they print.

mod check;
mod curve;
mod display;

pub use curve::{Anneal, Curve, CyclicMode, Part, ScalingRule};

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A value as a function of a count: of updates for learning rates, of environment steps for exploration and β, of epochs where
/// the caller counts those. Absolute counts, not fractions of a run: a run that is made longer, or resumed, goes through the same
/// values.
///
/// In a configuration it is a number, or a table whose `kind` names one of [`Curve`]'s:
///
/// ```toml
/// learning_rate = 1e-3
/// learning_rate = { kind = "linear", start = 1e-3, end = 5e-5, steps = 24_000 }
/// learning_rate = { kind = "warmup", steps = 500, then = { kind = "cosine", start = 0.1, end = 0.0, steps = 10_000 } }
/// ```
///
/// In code it is put together:
///
/// ```
/// use rl_learn::{ScalingRule, Schedule};
/// // Goyal et al. 2017: 0.1 for 256 rows, scaled to 8192, divided by ten at epochs 30, 60 and 80, warmed up over 5.
/// let rate = Schedule::multi_step(0.1, 0.1, [30, 60, 80]).scaled(ScalingRule::Linear, 256, 8192).warmed_up(5, 1.0 / 32.0);
/// rate.check("learning_rate", 0.0, f64::MAX)?;
/// assert!((rate.at(0) - 0.1).abs() < 1e-12 && (rate.at(5) - 3.2).abs() < 1e-12 && (rate.at(30) - 0.32).abs() < 1e-12);
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Schedule {
    /// Always the same.
    Constant(f64),
    /// Changing.
    Curve(Box<Curve>),
}

impl Schedule {
    /// A straight line from `start` at 0 to `end` at `steps`; `end` from there on.
    pub fn linear(start: f64, end: f64, steps: u64) -> Self {
        Curve::Linear { start, end, steps }.into()
    }

    /// A geometric way from `start` to `end`, both positive, in `steps`.
    pub fn exponential(start: f64, end: f64, steps: u64) -> Self {
        Curve::Exponential { start, end, steps }.into()
    }

    /// end + (start − end)·(1 − t/steps)^power.
    pub fn polynomial(start: f64, end: f64, steps: u64, power: f64) -> Self {
        Curve::Polynomial { start, end, steps, power }.into()
    }

    /// Half a cosine from `start` to `end` in `steps` (Loshchilov and Hutter 2017, without restarts).
    pub fn cosine(start: f64, end: f64, steps: u64) -> Self {
        Curve::Cosine { start, end, steps }.into()
    }

    /// Half cosines from `start` to `end`, the first `steps` long and each `growth` times as long as the one before.
    pub fn cosine_restarts(start: f64, end: f64, steps: u64, growth: u64) -> Self {
        Curve::CosineRestarts { start, end, steps, growth }.into()
    }

    /// `start`, multiplied by `factor` after every `every` counts.
    pub fn step(start: f64, factor: f64, every: u64) -> Self {
        Curve::Step { start, factor, every }.into()
    }

    /// `start`, multiplied by `factor` at each count in `at`, which ascends.
    pub fn multi_step(start: f64, factor: f64, at: impl Into<Vec<u64>>) -> Self {
        Curve::MultiStep { start, factor, at: at.into() }.into()
    }

    /// One cycle of `steps` counts up to `peak` and down again, with PyTorch's numbers: 30 % of the way up, from peak/25, down to
    /// peak/250,000, along cosines. [`Curve::OneCycle`] has them all.
    pub fn one_cycle(peak: f64, steps: u64) -> Self {
        Curve::one_cycle(peak, steps).into()
    }

    /// The momentum that goes with this cycle of the learning rate; see [`Curve::cycled_momentum`].
    pub fn cycled_momentum(&self, low: f64, high: f64) -> Option<Schedule> {
        match self {
            Schedule::Constant(_) => None,
            Schedule::Curve(curve) => curve.cycled_momentum(low, high),
        }
    }

    /// Triangles between `low` and `high`, `up` counts up and as many down ([`Curve::Cyclic`] has the other modes).
    pub fn triangular(low: f64, high: f64, up: u64) -> Self {
        Curve::Cyclic { low, high, up, down: None, mode: CyclicMode::Triangular, decay: 1.0 }.into()
    }

    /// This schedule with a linear warm-up over its first `steps` counts, from `from` times its value to all of it (Goyal et al. 2017).
    /// Its own count begins at 0 together with the warm-up's; [`after_warm_up`](Self::after_warm_up) begins it afterwards.
    pub fn warmed_up(self, steps: u64, from: f64) -> Self {
        Curve::Warmup { steps, from, prefix: false, then: self }.into()
    }

    /// This schedule begun after a linear warm-up of `steps` counts from `from` times its first value to all of it.
    pub fn after_warm_up(self, steps: u64, from: f64) -> Self {
        Curve::Warmup { steps, from, prefix: true, then: self }.into()
    }

    /// This schedule for `steps` counts, and then `next`, which begins at 0 there. Torch's `SequentialLR`.
    pub fn then(self, steps: u64, next: Schedule) -> Self {
        match self {
            Schedule::Curve(curve) => match *curve {
                // What follows follows the last part: a sequence grows at its end and does not nest.
                Curve::Sequence { mut parts, then } => {
                    parts.push(Part { steps, of: then });
                    Curve::Sequence { parts, then: next }
                }
                other => Curve::Sequence { parts: vec![Part { steps, of: other.into() }], then: next },
            },
            constant => Curve::Sequence { parts: vec![Part { steps, of: constant }], then: next },
        }
        .into()
    }

    /// The product of this schedule and `other`, both at the same count.
    pub fn times(self, other: Schedule) -> Self {
        Curve::Product { of: vec![self, other] }.into()
    }

    /// This schedule, found good for batches of `base_batch` rows, for batches of `batch` rows.
    pub fn scaled(self, rule: ScalingRule, base_batch: u64, batch: u64) -> Self {
        Curve::Scaled { rule, base_batch, batch, of: self }.into()
    }

    /// The value at count `t`. Costs a few operations a level of composition, whatever `t` is.
    ///
    /// A schedule that [`check`](Self::check) refuses gives some number, or NaN, and does not panic.
    pub fn at(&self, t: u64) -> f64 {
        match self {
            Schedule::Constant(value) => *value,
            Schedule::Curve(curve) => curve.at(t),
        }
    }
}

impl From<Curve> for Schedule {
    fn from(curve: Curve) -> Self {
        Schedule::Curve(Box::new(curve))
    }
}

impl From<f64> for Schedule {
    fn from(value: f64) -> Self {
        Schedule::Constant(value)
    }
}

/// By hand and not derived: an untagged enum's own errors say that nothing matched, and not which key is wrong.
impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrTable;
        impl<'de> Visitor<'de> for NumberOrTable {
            type Value = Schedule;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(
                    "a number, or a table such as { kind = \"linear\", start = X, end = Y, steps = N }; kinds are ",
                )?;
                f.write_str(&Curve::KINDS.join(", "))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Schedule, E> {
                Ok(Schedule::Constant(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Schedule, E> {
                Ok(Schedule::Constant(value as f64))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Schedule, E> {
                Ok(Schedule::Constant(value as f64))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Schedule, A::Error> {
                Curve::deserialize(MapAccessDeserializer::new(map)).map(Schedule::from)
            }
        }
        deserializer.deserialize_any(NumberOrTable)
    }
}
