//! What a schedule must satisfy before it is used. Errors name the key, what came and what is allowed.

use super::{Curve, CyclicMode, Schedule};

/// Levels that schedules may be nested; far more than anyone writes by hand.
const DEEPEST: usize = 32;

impl Schedule {
    /// Checks that the schedule's numbers make sense and that all its values lie in `low..=high`, at every count.
    ///
    /// # Errors
    /// One line naming `key` with the path below it, what came and what is allowed.
    pub fn check(&self, key: &str, low: f64, high: f64) -> Result<(), String> {
        self.structure(key, 0)?;
        for (path, value) in self.extremes(key) {
            if !(low..=high).contains(&value) {
                let bounds = match high {
                    f64::MAX => format!("be finite and at least {low}"),
                    _ => format!("lie between {low} and {high}"),
                };
                return Err(format!("{path} is {value}; it must {bounds}"));
            }
        }
        Ok(())
    }

    /// Checks each number by itself.
    fn structure(&self, key: &str, depth: usize) -> Result<(), String> {
        if depth > DEEPEST {
            return Err(format!(
                "{key} lies deeper than {DEEPEST} schedules in one another; write it flatter"
            ));
        }
        let Schedule::Curve(curve) = self else { return Ok(()) };
        let must = |holds: bool, name: &str, value: &dyn std::fmt::Display, what: &str| match holds {
            true => Ok(()),
            false => Err(format!("{key}.{name} is {value}; it must {what}")),
        };
        let at_least_one = |name: &str, count: u64| must(count >= 1, name, &count, "be at least 1");
        match &**curve {
            Curve::Linear { .. } | Curve::Cosine { .. } => Ok(()),
            Curve::Exponential { start, end, .. } => {
                let what = "be finite and, the schedule being exponential, above 0";
                must(*start > 0.0 && start.is_finite(), "start", start, what)?;
                must(*end > 0.0 && end.is_finite(), "end", end, what)
            }
            Curve::Polynomial { power, .. } => {
                must(*power > 0.0 && power.is_finite(), "power", power, "be finite and above 0")
            }
            Curve::CosineRestarts { steps, growth, .. } => {
                at_least_one("steps", *steps)?;
                at_least_one("growth", *growth)
            }
            Curve::Step { factor, every, .. } => {
                let what = "lie between 0 and 1; to grow without an end, give one: kind = \"exponential\"";
                must((0.0..=1.0).contains(factor), "factor", factor, what)?;
                at_least_one("every", *every)
            }
            Curve::MultiStep { factor, at, .. } => {
                must(*factor >= 0.0 && factor.is_finite(), "factor", factor, "be finite and at least 0")?;
                match at.windows(2).find(|pair| pair[0] >= pair[1]) {
                    Some(pair) => Err(format!(
                        "{key}.at has {} before {}; its counts must ascend, each once",
                        pair[0], pair[1]
                    )),
                    None => Ok(()),
                }
            }
            Curve::OneCycle { steps, warmup_fraction, start_divisor, end_divisor, three_phase, .. } => {
                at_least_one("steps", *steps)?;
                let (most, what) = match three_phase {
                    true => (0.5, "lie above 0 and, with three_phase, be at most 0.5"),
                    false => (1.0, "lie above 0 and be at most 1"),
                };
                let inside = *warmup_fraction > 0.0 && *warmup_fraction <= most;
                must(inside, "warmup_fraction", warmup_fraction, what)?;
                for (name, divisor) in [("start_divisor", start_divisor), ("end_divisor", end_divisor)] {
                    must(*divisor > 0.0 && divisor.is_finite(), name, divisor, "be finite and above 0")?;
                }
                Ok(())
            }
            Curve::Cyclic { up, down, mode, decay, .. } => {
                at_least_one("up", *up)?;
                at_least_one("down", down.unwrap_or(1))?;
                must(*decay > 0.0 && *decay <= 1.0, "decay", decay, "lie above 0 and be at most 1")?;
                let used = *decay == 1.0 || *mode == CyclicMode::ExpRange;
                must(used, "decay", decay, "be left out, or be given with mode = \"exp_range\"")
            }
            Curve::Warmup { from, then, .. } => {
                must((0.0..=1.0).contains(from), "from", from, "lie between 0 and 1")?;
                then.structure(&format!("{key}.then"), depth + 1)
            }
            Curve::Sequence { parts, then } => {
                for (i, part) in parts.iter().enumerate() {
                    part.of.structure(&format!("{key}.parts[{i}].of"), depth + 1)?;
                }
                then.structure(&format!("{key}.then"), depth + 1)
            }
            Curve::Product { of } => {
                for (i, factor) in of.iter().enumerate() {
                    factor.structure(&format!("{key}.of[{i}]"), depth + 1)?;
                }
                must(!of.is_empty(), "of", &"empty", "have a factor")
            }
            Curve::Scaled { base_batch, batch, of, .. } => {
                at_least_one("base_batch", *base_batch)?;
                at_least_one("batch", *batch)?;
                of.structure(&format!("{key}.of"), depth + 1)
            }
        }
    }

    /// Values between which all others lie, each with the key it comes from.
    fn extremes(&self, key: &str) -> Vec<(String, f64)> {
        let Schedule::Curve(curve) = self else {
            let Schedule::Constant(value) = self else { return Vec::new() };
            return vec![(key.to_string(), *value)];
        };
        let under = |name: &str| format!("{key}.{name}");
        match &**curve {
            Curve::Linear { start, end, .. }
            | Curve::Exponential { start, end, .. }
            | Curve::Polynomial { start, end, .. }
            | Curve::Cosine { start, end, .. }
            | Curve::CosineRestarts { start, end, .. } => {
                vec![(under("start"), *start), (under("end"), *end)]
            }
            Curve::Step { start, factor, .. } => {
                // It comes as near to 0 as one likes.
                let last = if *factor < 1.0 { 0.0 } else { *start };
                vec![(under("start"), *start), (key.to_string(), last)]
            }
            Curve::MultiStep { start, at, .. } => {
                let last = at.last().map_or(*start, |t| self.at(*t));
                vec![(under("start"), *start), (key.to_string(), last)]
            }
            Curve::OneCycle { peak, start_divisor, end_divisor, .. } => {
                let first = peak / start_divisor;
                vec![(under("peak"), *peak), (key.to_string(), first), (key.to_string(), first / end_divisor)]
            }
            Curve::Cyclic { low, high, .. } => vec![(under("low"), *low), (under("high"), *high)],
            Curve::Warmup { from, then, .. } => {
                let then = then.extremes(&under("then"));
                let begun: Vec<_> = then.iter().map(|(_, value)| (key.to_string(), value * from)).collect();
                then.into_iter().chain(begun).collect()
            }
            Curve::Sequence { parts, then } => {
                let parts = parts.iter().enumerate();
                let parts = parts.flat_map(|(i, part)| part.of.extremes(&under(&format!("parts[{i}].of"))));
                parts.chain(then.extremes(&under("then"))).collect()
            }
            Curve::Product { of } => {
                let (low, high) = of.iter().fold((1.0, 1.0), |(low, high): (f64, f64), factor| {
                    let values = factor.extremes(key).into_iter().map(|(_, value)| value);
                    let ends = values.flat_map(|value| [low * value, high * value]);
                    range(ends)
                });
                vec![(key.to_string(), low), (key.to_string(), high)]
            }
            Curve::Scaled { rule, base_batch, batch, of } => {
                let factor = rule.factor(*base_batch, *batch);
                of.extremes(key).into_iter().map(|(_, value)| (key.to_string(), value * factor)).collect()
            }
        }
    }
}

/// Least and greatest; NaN stays NaN, so that no bound holds for it.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| match value.is_nan() {
        true => (f64::NAN, f64::NAN),
        false if low.is_nan() => (low, high),
        false => (low.min(value), high.max(value)),
    })
}
