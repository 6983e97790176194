//! The kinds of schedules and their formulas.

use super::Schedule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// A changing value. `t` in the formulas is the count.
///
/// Where PyTorch has the same schedule its name is given; there the base learning rate is a number of the optimizer's, here it is the
/// schedule's own first number. Every kind stays at its last value when it is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Curve {
    /// start + (end − start)·t/steps. `LinearLR`.
    Linear {
        /// Value at 0.
        start: f64,
        /// Value from `steps` on.
        end: f64,
        /// Counts until `end` is reached.
        steps: u64,
    },
    /// start·(end/start)^(t/steps), both ends positive. `ExponentialLR(γ)` is end = start·γ^steps.
    Exponential {
        /// Value at 0.
        start: f64,
        /// Value from `steps` on.
        end: f64,
        /// Counts until `end` is reached.
        steps: u64,
    },
    /// end + (start − end)·(1 − t/steps)^power. `PolynomialLR`, which ends at 0.
    Polynomial {
        /// Value at 0.
        start: f64,
        /// Value from `steps` on.
        end: f64,
        /// Counts until `end` is reached.
        steps: u64,
        /// The exponent, above 0; 1 is a straight line.
        #[serde(default = "defaults::one")]
        power: f64,
    },
    /// end + (start − end)·(1 + cos(π·t/steps))/2. `CosineAnnealingLR`, which goes up again after `T_max`; this stays at `end`.
    Cosine {
        /// Value at 0.
        start: f64,
        /// Value from `steps` on.
        end: f64,
        /// Counts until `end` is reached.
        steps: u64,
    },
    /// [`Cosine`](Self::Cosine) over and over, period i lasting steps·growthⁱ (SGDR: Loshchilov and Hutter 2017, equation 5).
    /// `CosineAnnealingWarmRestarts`.
    CosineRestarts {
        /// Value at the beginning of a period.
        start: f64,
        /// Value towards which each period goes; the next begins at the count at which it would be reached.
        end: f64,
        /// Counts of the first period.
        steps: u64,
        /// How many times as long each period is as the one before.
        #[serde(default = "defaults::one_count")]
        growth: u64,
    },
    /// start·factor^⌊t/every⌋. `StepLR`; with `every` = 1 `ExponentialLR`.
    Step {
        /// Value at 0.
        start: f64,
        /// What it is multiplied by, from 0 to 1.
        factor: f64,
        /// Counts between two changes.
        every: u64,
    },
    /// start·factor^(how many of `at` are at most t). `MultiStepLR`.
    MultiStep {
        /// Value at 0.
        start: f64,
        /// What it is multiplied by.
        factor: f64,
        /// The counts at which it is, ascending.
        at: Vec<u64>,
    },
    /// From peak/start_divisor up to the peak, and down to peak/(start_divisor·end_divisor) (Smith and Topin 2019). `OneCycleLR`;
    /// [`cycled_momentum`](Self::cycled_momentum) is its second cycle. With divisors below 1 it goes down and up again.
    OneCycle {
        /// The highest value.
        peak: f64,
        /// Counts of the cycle; the last value is that of count `steps` − 1, as in PyTorch.
        steps: u64,
        /// Part of the cycle that goes up, above 0 and below 1.
        #[serde(default = "defaults::warmup_fraction")]
        warmup_fraction: f64,
        /// The peak over the first value.
        #[serde(default = "defaults::start_divisor")]
        start_divisor: f64,
        /// The first value over the last.
        #[serde(default = "defaults::end_divisor")]
        end_divisor: f64,
        /// The form of each leg.
        #[serde(default)]
        anneal: Anneal,
        /// Whether it goes down as long as it went up, to the first value, and only then to the last.
        #[serde(default)]
        three_phase: bool,
    },
    /// Triangles from `low` to `high` and back (Smith 2017). `CyclicLR`; [`cycled_momentum`](Self::cycled_momentum) is its cycle of
    /// the momentum. With `high` below `low` the triangles hang down.
    Cyclic {
        /// Value at 0 and between two triangles.
        low: f64,
        /// Value at the top of the first triangle.
        high: f64,
        /// Counts up.
        up: u64,
        /// Counts down; as many as up where none are given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        down: Option<u64>,
        /// What becomes of the triangles' height.
        #[serde(default)]
        mode: CyclicMode,
        /// γ of [`CyclicMode::ExpRange`], above 0 and at most 1.
        #[serde(default = "defaults::one")]
        decay: f64,
    },
    /// (from + (1 − from)·t/steps)·then(t) for t below `steps`, then(t) afterwards: the gradual warm-up of Goyal et al. (2017, section
    /// 2.2), whose counts are those of the whole run. With `prefix`, `then` waits for it: (…)·then(0), and then(t − steps) afterwards,
    /// which is `SequentialLR` of `LinearLR` and `then`.
    Warmup {
        /// Counts until all of `then` is reached.
        steps: u64,
        /// Part of `then` at count 0, from 0 to 1.
        #[serde(default)]
        from: f64,
        /// Whether `then` begins its own count only when the warm-up is over.
        #[serde(default)]
        prefix: bool,
        /// What is warmed up.
        then: Schedule,
    },
    /// One schedule after the other, each counting from 0 where it begins. `SequentialLR`.
    Sequence {
        /// All but the last.
        parts: Vec<Part>,
        /// What goes on for ever.
        then: Schedule,
    },
    /// The product of schedules at the same count. `ChainedScheduler`, and `ConstantLR` as a factor.
    Product {
        /// The factors.
        of: Vec<Schedule>,
    },
    /// A schedule times the factor by which `rule` goes from one batch size to another.
    Scaled {
        /// How the value grows with the batch.
        rule: ScalingRule,
        /// Rows of the batch for which `of` was found.
        base_batch: u64,
        /// Rows of the batch it is now for.
        batch: u64,
        /// What is scaled.
        of: Schedule,
    },
}

/// A schedule for so many counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Counts for which it holds.
    pub steps: u64,
    /// What holds.
    pub of: Schedule,
}

/// The way between two values of a [`Curve::OneCycle`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Anneal {
    /// Half a cosine.
    #[default]
    Cosine,
    /// A straight line.
    Linear,
}

/// What becomes of the triangles of a [`Curve::Cyclic`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CyclicMode {
    /// All of one height.
    #[default]
    Triangular,
    /// Each half as high as the one before.
    Triangular2,
    /// The height at count t is `decay`^t of the first.
    ExpRange,
}

/// How a learning rate that was found for one batch size is carried over to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScalingRule {
    /// batch/base_batch: k times the batch is k times the rate (Goyal et al. 2017, section 2.1, for SGD).
    Linear,
    /// √(batch/base_batch): what keeps the variance of a step (Krizhevsky 2014); the usual rule of Adam and LAMB (You et al. 2020).
    SquareRoot,
}

impl ScalingRule {
    /// The factor for going from batches of `base_batch` rows to batches of `batch`.
    pub fn factor(self, base_batch: u64, batch: u64) -> f64 {
        let ratio = batch as f64 / base_batch as f64;
        match self {
            ScalingRule::Linear => ratio,
            ScalingRule::SquareRoot => ratio.sqrt(),
        }
    }
}

mod defaults {
    pub fn one() -> f64 {
        1.0
    }
    pub fn one_count() -> u64 {
        1
    }
    pub fn warmup_fraction() -> f64 {
        0.3
    }
    pub fn start_divisor() -> f64 {
        25.0
    }
    pub fn end_divisor() -> f64 {
        1e4
    }
}

/// 1 → 0 along half a cosine, for a `fraction` of the way.
fn half_cosine(fraction: f64) -> f64 {
    (1.0 + (PI * fraction).cos()) / 2.0
}

/// Place in a cosine with restarts: (counts since the period began, its length). Lengths that overflow last for ever.
fn restart(t: u64, steps: u64, growth: u64) -> (f64, f64) {
    if growth <= 1 {
        return ((t % steps) as f64, steps as f64);
    }
    let (mut since, mut length) = (t, steps);
    while since >= length {
        since -= length;
        length = length.saturating_mul(growth);
        if length == u64::MAX {
            break;
        }
    }
    (since as f64, length as f64)
}

impl Curve {
    /// The names of the kinds in a configuration.
    pub(super) const KINDS: [&str; 13] = [
        "linear",
        "exponential",
        "polynomial",
        "cosine",
        "cosine_restarts",
        "step",
        "multi_step",
        "one_cycle",
        "cyclic",
        "warmup",
        "sequence",
        "product",
        "scaled",
    ];

    /// [`Curve::OneCycle`] with PyTorch's numbers.
    pub fn one_cycle(peak: f64, steps: u64) -> Self {
        Curve::OneCycle {
            peak,
            steps,
            warmup_fraction: defaults::warmup_fraction(),
            start_divisor: defaults::start_divisor(),
            end_divisor: defaults::end_divisor(),
            anneal: Anneal::Cosine,
            three_phase: false,
        }
    }

    /// The momentum, or β₁, that goes with this cycle of the learning rate: `high` where the rate is lowest, `low` where it is highest, at the same
    /// counts and in the same form (Smith 2018, "A disciplined approach to neural network hyper-parameters", section 4.3). It is
    /// what `OneCycleLR` (0.85 and 0.95 unless told otherwise) and `CyclicLR` (0.8 and 0.9) do with `cycle_momentum=True`. `None` for other
    /// kinds, which have no cycle.
    ///
    /// [`Optimizer::set_momentum`](crate::Optimizer::set_momentum) takes its values.
    ///
    /// ```
    /// use rl_learn::Curve;
    /// let rate = Curve::one_cycle(0.1, 100);
    /// let momentum = rate.cycled_momentum(0.85, 0.95).expect("it is a cycle");
    /// assert!((momentum.at(0) - 0.95).abs() < 1e-12 && (momentum.at(29) - 0.85).abs() < 1e-12);
    /// ```
    pub fn cycled_momentum(&self, low: f64, high: f64) -> Option<Schedule> {
        let mut momentum = self.clone();
        match &mut momentum {
            Curve::OneCycle { peak, start_divisor, end_divisor, .. } => {
                (*peak, *start_divisor, *end_divisor) = (low, low / high, 1.0);
            }
            Curve::Cyclic { low: from, high: to, .. } => (*from, *to) = (high, low),
            // The momentum does not depend on the batch.
            Curve::Scaled { of: Schedule::Curve(of), .. } => return of.cycled_momentum(low, high),
            _ => return None,
        }
        Some(momentum.into())
    }

    /// The value at count `t`.
    pub fn at(&self, t: u64) -> f64 {
        // How much of `steps` counts is over; a schedule of no steps is over at once.
        let fraction = |steps: u64| if t >= steps { 1.0 } else { t as f64 / steps as f64 };
        match self {
            Curve::Linear { end, steps, .. }
            | Curve::Exponential { end, steps, .. }
            | Curve::Polynomial { end, steps, .. }
            | Curve::Cosine { end, steps, .. }
                if t >= *steps =>
            {
                *end
            }
            Curve::Linear { start, end, steps } => start + (end - start) * fraction(*steps),
            Curve::Exponential { start, end, steps } => start * (end / start).powf(fraction(*steps)),
            Curve::Polynomial { start, end, steps, power } => {
                end + (start - end) * (1.0 - fraction(*steps)).powf(*power)
            }
            Curve::Cosine { start, end, steps } => end + (start - end) * half_cosine(fraction(*steps)),
            Curve::CosineRestarts { end, steps: 0, .. } => *end,
            Curve::CosineRestarts { start, end, steps, growth } => {
                let (since, length) = restart(t, *steps, *growth);
                end + (start - end) * half_cosine(since / length)
            }
            Curve::Step { start, factor, every } => start * factor.powf((t / (*every).max(1)) as f64),
            Curve::MultiStep { start, factor, at } => {
                start * factor.powf(at.iter().filter(|milestone| **milestone <= t).count() as f64)
            }
            Curve::OneCycle { .. } => self.one_cycle_at(t),
            Curve::Cyclic { low, high, up, down, mode, decay } => {
                let (up, down) = (*up, down.unwrap_or(*up));
                let length = up.saturating_add(down).max(1);
                let (cycle, since) = (t / length, t % length);
                let height = match since <= up {
                    true => since as f64 / up.max(1) as f64,
                    false => (length - since) as f64 / down as f64,
                };
                let shrink = match mode {
                    CyclicMode::Triangular => 1.0,
                    CyclicMode::Triangular2 => 0.5f64.powf(cycle as f64),
                    CyclicMode::ExpRange => decay.powf(t as f64),
                };
                low + (high - low) * height * shrink
            }
            Curve::Warmup { steps, from, prefix, then } => {
                let part = from + (1.0 - from) * fraction(*steps);
                let count = if *prefix { t.saturating_sub(*steps) } else { t };
                if t < *steps { part * then.at(count) } else { then.at(count) }
            }
            Curve::Sequence { parts, then } => {
                let mut since = t;
                for part in parts {
                    if since < part.steps {
                        return part.of.at(since);
                    }
                    since -= part.steps;
                }
                then.at(since)
            }
            Curve::Product { of } => of.iter().map(|factor| factor.at(t)).product(),
            Curve::Scaled { rule, base_batch, batch, of } => rule.factor(*base_batch, *batch) * of.at(t),
        }
    }

    /// [`Curve::OneCycle`]'s legs, which end at broken counts: PyTorch's ends are fraction·steps − 1 and so on.
    fn one_cycle_at(&self, t: u64) -> f64 {
        let Curve::OneCycle { peak, steps, warmup_fraction, start_divisor, end_divisor, anneal, three_phase } =
            self
        else {
            return f64::NAN;
        };
        let (first, steps) = (peak / start_divisor, *steps as f64);
        let last = first / end_divisor;
        let top = (warmup_fraction * steps - 1.0, *peak);
        let end = (steps - 1.0, last);
        let mut legs = vec![top];
        if *three_phase {
            legs.push((2.0 * warmup_fraction * steps - 2.0, first));
        }
        legs.push(end);
        let t = t as f64;
        let mut from = (0.0, first);
        for to in legs {
            if t <= to.0 {
                // A leg that ends where it begins is over.
                let fraction = if to.0 > from.0 { (t - from.0) / (to.0 - from.0) } else { 1.0 };
                return match anneal {
                    Anneal::Cosine => to.1 + (from.1 - to.1) * half_cosine(fraction),
                    Anneal::Linear => from.1 + (to.1 - from.1) * fraction,
                };
            }
            from = to;
        }
        last
    }
}
