//! Numbers that change as training goes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A value as a function of a count: of updates for learning rates, of environment steps for exploration and β. Absolute
/// counts, not fractions of a run: a run that is made longer, or resumed, goes through the same values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "a number, or { kind = \"linear\"|\"exponential\", start = X, end = Y, steps = N }"
)]
pub enum Schedule {
    /// Always the same.
    Constant(f64),
    /// Changing.
    Decay(Decay),
}

/// A value that goes from `start` to `end` in `steps` counts and stays there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Decay {
    /// The way there.
    pub kind: DecayKind,
    /// Value at 0.
    pub start: f64,
    /// Value from `steps` on.
    pub end: f64,
    /// Counts until `end` is reached.
    pub steps: u64,
}

/// The curve between the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DecayKind {
    /// start + (end − start)·t/steps
    Linear,
    /// start·(end/start)^(t/steps); both ends positive
    Exponential,
}

impl Schedule {
    /// A straight line from `start` to `end`.
    pub fn linear(start: f64, end: f64, steps: u64) -> Self {
        Schedule::Decay(Decay { kind: DecayKind::Linear, start, end, steps })
    }

    /// A geometric way from `start` to `end`.
    pub fn exponential(start: f64, end: f64, steps: u64) -> Self {
        Schedule::Decay(Decay { kind: DecayKind::Exponential, start, end, steps })
    }

    /// The value at count `t`.
    pub fn at(&self, t: u64) -> f64 {
        match self {
            Schedule::Constant(value) => *value,
            Schedule::Decay(Decay { end, steps, .. }) if t >= *steps => *end,
            Schedule::Decay(Decay { kind, start, end, steps }) => {
                let fraction = t as f64 / *steps as f64;
                match kind {
                    DecayKind::Linear => start + (end - start) * fraction,
                    DecayKind::Exponential => start * (end / start).powf(fraction),
                }
            }
        }
    }

    /// Checks that every value lies in `low..=high`.
    ///
    /// # Errors
    /// One line naming `key`, what came and what is allowed.
    pub fn check(&self, key: &str, low: f64, high: f64) -> Result<(), String> {
        let (ends, positive) = match self {
            Schedule::Constant(value) => (vec![*value], false),
            Schedule::Decay(decay) => (vec![decay.start, decay.end], decay.kind == DecayKind::Exponential),
        };
        for end in ends {
            if !(low..=high).contains(&end) || (positive && end <= 0.0) {
                let positive = if positive { " and, being exponential, positive" } else { "" };
                let bounds = match high {
                    f64::MAX => format!("be finite and at least {low}"),
                    _ => format!("lie between {low} and {high}"),
                };
                return Err(format!("{key} is {end}; it must {bounds}{positive}"));
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Schedule::Constant(value) => write!(f, "{value}"),
            Schedule::Decay(Decay { kind, start, end, steps }) => {
                let kind = if *kind == DecayKind::Linear { "linear" } else { "exponential" };
                write!(f, "{kind} from {start} to {end} in {steps}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_from_start_to_end_and_stays() {
        let linear = Schedule::linear(1.0, 0.1, 10);
        assert_eq!([linear.at(0), linear.at(10), linear.at(11)], [1.0, 0.1, 0.1]);
        assert!((linear.at(5) - 0.55).abs() < 1e-12);
        let exponential = Schedule::exponential(1.0, 0.01, 2);
        assert!((exponential.at(1) - 0.1).abs() < 1e-12);
        assert_eq!(exponential.at(2), 0.01);
        assert_eq!(Schedule::linear(1.0, 0.5, 0).at(0), 0.5);
    }

    #[test]
    fn refuses_values_out_of_bounds() {
        assert!(
            Schedule::linear(1.0, -0.1, 10)
                .check("epsilon", 0.0, 1.0)
                .unwrap_err()
                .contains("epsilon is -0.1")
        );
        assert!(Schedule::exponential(1.0, 0.0, 10).check("lr", 0.0, 1.0).is_err());
        assert!(Schedule::Constant(0.0).check("lr", 0.0, 1.0).is_ok());
    }
}
