//! Schedules in words, for logs and summaries.

use super::{Anneal, Curve, CyclicMode, ScalingRule, Schedule};
use std::fmt::{Display, Formatter, Result};

impl Display for Schedule {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Schedule::Constant(value) => write!(f, "{value}"),
            Schedule::Curve(curve) => write!(f, "{curve}"),
        }
    }
}

impl Display for Curve {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Curve::Linear { start, end, steps } => write!(f, "linear from {start} to {end} in {steps}"),
            Curve::Exponential { start, end, steps } => {
                write!(f, "exponential from {start} to {end} in {steps}")
            }
            Curve::Polynomial { start, end, steps, power } => {
                write!(f, "polynomial of power {power} from {start} to {end} in {steps}")
            }
            Curve::Cosine { start, end, steps } => write!(f, "cosine from {start} to {end} in {steps}"),
            Curve::CosineRestarts { start, end, steps, growth: 1 } => {
                write!(f, "cosine from {start} to {end} in {steps}, over and over")
            }
            Curve::CosineRestarts { start, end, steps, growth } => {
                write!(
                    f,
                    "cosine from {start} to {end} in {steps}, over and over, each time {growth} times as long"
                )
            }
            Curve::Step { start, factor, every } => write!(f, "{start}, times {factor} every {every}"),
            Curve::MultiStep { start, factor, at } => {
                let at: Vec<String> = at.iter().map(u64::to_string).collect();
                write!(f, "{start}, times {factor} at {}", at.join(", "))
            }
            Curve::OneCycle {
                peak,
                steps,
                warmup_fraction,
                start_divisor,
                end_divisor,
                anneal,
                three_phase,
            } => {
                let (first, form) = (
                    peak / start_divisor,
                    match anneal {
                        Anneal::Cosine => "cosine",
                        Anneal::Linear => "linear",
                    },
                );
                let phases = if *three_phase { " in three phases" } else { "" };
                let (up, last) = (100.0 * warmup_fraction, first / end_divisor);
                write!(f, "one {form} cycle of {steps}{phases}: {first} to {peak} in {up} %, down to {last}")
            }
            Curve::Cyclic { low, high, up, down, mode, decay } => {
                let down = down.unwrap_or(*up);
                write!(f, "cyclic from {low} to {high}, {up} up and {down} down")?;
                match mode {
                    CyclicMode::Triangular => Ok(()),
                    CyclicMode::Triangular2 => write!(f, ", each cycle half as high"),
                    CyclicMode::ExpRange => write!(f, ", height times {decay} a count"),
                }
            }
            Curve::Warmup { steps, from, prefix, then } => {
                let how = if *prefix { "then" } else { "of" };
                write!(f, "warm-up from {from} of it in {steps}, {how} {then}")
            }
            Curve::Sequence { parts, then } => {
                for part in parts {
                    write!(f, "({}) for {}, then ", part.of, part.steps)?;
                }
                write!(f, "({then})")
            }
            Curve::Product { of } => {
                for (i, factor) in of.iter().enumerate() {
                    write!(f, "{}({factor})", if i > 0 { " × " } else { "" })?;
                }
                Ok(())
            }
            Curve::Scaled { rule, base_batch, batch, of } => {
                let rule = match rule {
                    ScalingRule::Linear => "linearly",
                    ScalingRule::SquareRoot => "by the square root",
                };
                write!(f, "({of}) scaled {rule} from batch {base_batch} to {batch}")
            }
        }
    }
}
