//! Rows by given weights, none twice in an epoch.

use super::SamplerError;
use super::course::Course;
use super::weighted::relative;
use crate::power::log2;
use crate::{Drawn, Epoch, Priorities, Rng, SampleError, Sampler, StateError, StateVisitor, scalar};
use rand::{Rng as _, RngExt, SeedableRng};
use std::ops::Range;

/// Draws M different rows an epoch, of which the heavier ones are more likely:
/// `torch.utils.data.WeightedRandomSampler` without replacement.
///
/// The M rows are those of M draws by weight out of the rows left at each. By Efraimidis and Spirakis (*Weighted Random
/// Sampling with a Reservoir*, 2006) they are the M rows with the smallest keys −log₂(u)/w, of one uniform u a row. They
/// come in random order, so that batches at the beginning of an epoch are no different from those at its end.
///
/// # Probabilities
/// How often a row is among the M has no closed form. But given the smallest key τ of the rows left out, row i is among
/// them with πᵢ = 1 − 2^(−wᵢ·τ), whatever the others do, and the stated probability is πᵢ/M: the row's expected share of
/// each batch, given τ. The weights 1/(N·P) made of it (β = 1) give the mean over all rows, on average over epochs and
/// exactly (Duffield, Lund and Thorup, *Priority Sampling for Estimation of Arbitrary Subset Sums*, 2007, theorem 1,
/// which holds for such keys too: Cohen and Kaplan, *Summarizing Data Using Bottom-k Sketches*, 2007). With M = N, each row
/// comes once and has 1/N. Such weights spread widely where M is 1 or 2; for single rows there is [`Weighted`](crate::Weighted). N is the number of rows with a weight above 0; others never come.
///
/// Cost: O(N + M·log M) for an epoch to begin, about 10 ns for each of the N rows, and O(1) a row; memory for N weights, M
/// rows and up to 2M keys. Loading a state costs what beginning an epoch does.
#[derive(Clone, Debug)]
pub struct WeightedWithoutReplacement {
    course: Course,
    /// What this epoch's rows follow from.
    key: u64,
    /// Relative weights.
    weights: Vec<f64>,
    /// Rows with a weight above 0.
    population: u64,
    /// The smallest weight above 0.
    lightest: f64,
    /// The M rows of the epoch.
    order: Vec<u64>,
    /// τ.
    threshold: f64,
    /// Keys and their rows, of which the smallest are sought.
    keys: Vec<(f64, u64)>,
    /// When there are so many, all but the smallest are dropped.
    most_keys: usize,
}

impl WeightedWithoutReplacement {
    /// Epochs of `rows_per_epoch` different rows, drawn by `weights`, which need not sum to 1.
    ///
    /// # Errors
    /// [`SamplerError::Empty`]; [`SamplerError::Weight`] for the first that is negative, NaN or infinite;
    /// [`SamplerError::NoWeight`] when all are 0; [`SamplerError::Zero`] and [`SamplerError::TooFew`] for a
    /// `rows_per_epoch` of 0 or above the number of rows with a weight above 0.
    pub fn new(weights: &[f64], rows_per_epoch: usize) -> Result<Self, SamplerError> {
        let weights = relative(weights)?;
        let positive = || weights.iter().copied().filter(|w| *w > 0.0);
        let (population, asked) = (positive().count(), rows_per_epoch as u64);
        if rows_per_epoch == 0 {
            return Err(SamplerError::Zero { name: "rows_per_epoch" });
        }
        if rows_per_epoch > population {
            return Err(SamplerError::TooFew { asked, rows: population as u64 });
        }
        let most_keys = population.min(rows_per_epoch.saturating_mul(2).saturating_add(2));
        Ok(Self {
            course: Course::of_part(asked, weights.len() as u64),
            key: 0,
            population: population as u64,
            lightest: positive().fold(1.0, f64::min),
            order: Vec::with_capacity(rows_per_epoch),
            threshold: f64::INFINITY,
            keys: Vec::with_capacity(most_keys),
            most_keys,
            weights,
        })
    }

    /// Chooses the rows of the epoch that `key` names.
    fn choose(&mut self, key: u64) {
        let mut rng = Rng::seed_from_u64(key);
        let wanted = self.course.epoch().rows as usize;
        // No row with a key from here on can be among the smallest.
        let mut bound = f64::INFINITY;
        self.keys.clear();
        for (row, weight) in (0..).zip(&self.weights) {
            if *weight == 0.0 {
                continue;
            }
            // u in (0, 1]; the same bits on every machine, as log₂ is our own.
            let u = ((rng.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
            let key = -log2(u) / weight;
            if key <= bound {
                if self.keys.len() == self.most_keys {
                    bound = cut(&mut self.keys, wanted);
                    self.keys.truncate(wanted + 1);
                    if key > bound {
                        continue;
                    }
                }
                self.keys.push((key, row));
            }
        }
        let all = self.keys.len() == wanted;
        self.threshold = if all { f64::INFINITY } else { cut(&mut self.keys, wanted) };
        self.order.clear();
        self.order.extend(self.keys[..wanted].iter().map(|(_, row)| *row));
        // The order that the search leaves is the standard library's affair; a saved epoch must not depend on it.
        self.order.sort_unstable();
        for place in (1..wanted).rev() {
            self.order.swap(place, rng.random_range(0..place as u64 + 1) as usize);
        }
    }

    /// πᵢ/M of a row of this relative weight.
    fn share(&self, weight: f64) -> f64 {
        let exponent = weight * self.threshold * std::f64::consts::LN_2;
        -(-exponent).exp_m1() / self.course.epoch().rows as f64
    }
}

/// Brings the `wanted` smallest keys to the front, and gives the next.
fn cut(keys: &mut [(f64, u64)], wanted: usize) -> f64 {
    let (_, next, _) = keys.select_nth_unstable_by(wanted, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    next.0
}

impl Sampler for WeightedWithoutReplacement {
    fn draw(
        &mut self,
        rng: &mut Rng,
        live: Range<u64>,
        count: usize,
        drawn: &mut Drawn,
    ) -> Result<(), SampleError> {
        self.course.check(&live)?;
        if count > 0 && self.course.is_at_end() {
            self.key = rng.next_u64();
            self.choose(self.key);
            self.course.begin();
        }
        drawn.rows.clear();
        drawn.probabilities.clear();
        for place in self.course.take(count) {
            let row = self.order[place as usize];
            drawn.rows.push(live.start + row);
            drawn.probabilities.push(self.share(self.weights[row as usize]));
        }
        drawn.population = self.population;
        drawn.lowest = Some(self.share(self.lightest));
        Ok(())
    }

    fn priorities(&mut self) -> Option<&mut dyn Priorities> {
        None
    }

    fn epoch(&self) -> Option<Epoch> {
        Some(self.course.epoch())
    }

    fn memory_bytes(&self) -> u64 {
        8 * (self.weights.len() + self.order.capacity() + 2 * self.most_keys) as u64
    }

    fn visit(&mut self, _live: Range<u64>, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let course = self.course.visited(visitor)?;
        let mut key = self.key;
        scalar(visitor, "key", &mut key)?;
        if visitor.loading() {
            (self.course, self.key) = (course, key);
            if self.course.epoch().drawn > 0 {
                self.choose(key);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The probability that each of `weights` is among `wanted` draws by weight out of what is left.
    fn inclusion(weights: &[f64], left: &mut Vec<usize>, wanted: usize, mass: f64, out: &mut [f64]) {
        if wanted == 0 {
            return;
        }
        let sum: f64 = left.iter().map(|row| weights[*row]).sum();
        for place in 0..left.len() {
            let row = left.remove(place);
            let mass = mass * weights[row] / sum;
            out[row] += mass;
            inclusion(weights, left, wanted - 1, mass, out);
            left.insert(place, row);
        }
    }

    #[test]
    fn rows_come_as_often_as_successive_draws_have_them() {
        let weights = [1.0, 2.0, 0.5, 4.0, 8.0, 1.0, 0.1];
        for wanted in [1, 2, 3, 5] {
            let mut exact = [0.0; 7];
            inclusion(&weights, &mut (0..7).collect(), wanted, 1.0, &mut exact);
            assert!((exact.iter().sum::<f64>() - wanted as f64).abs() < 1e-12);
            let mut sampler = WeightedWithoutReplacement::new(&weights, wanted).unwrap();
            let (mut rng, mut drawn) = (Rng::seed_from_u64(8), Drawn::default());
            let (epochs, mut counts, mut inverse) = (100_000, [0f64; 7], [0f64; 7]);
            for _ in 0..epochs {
                sampler.draw(&mut rng, 0..7, wanted, &mut drawn).unwrap();
                for (row, share) in drawn.rows.iter().zip(&drawn.probabilities) {
                    counts[*row as usize] += 1.0;
                    inverse[*row as usize] += 1.0 / (share * wanted as f64);
                }
            }
            for row in 0..7 {
                // Five standard deviations: 6e-7 a row.
                let spread = (f64::from(epochs) * exact[row] * (1.0 - exact[row])).sqrt();
                let away = (counts[row] - f64::from(epochs) * exact[row]).abs() / spread;
                assert!(away < 5.0, "{wanted} of 7: row {row} came {} times, {away} deviations", counts[row]);
                // 1/π over the draws of a row is 1 an epoch on average. Heavy rows show it within a percent.
                let mean = inverse[row] / f64::from(epochs);
                let wide = wanted == 1 || weights[row] < 1.0;
                assert!(wide || (mean - 1.0).abs() < 0.05, "{wanted} of 7, row {row}: {mean}");
            }
        }
    }

    #[test]
    fn a_small_reservoir_finds_the_same_rows_as_sorting() {
        let mut rng = Rng::seed_from_u64(9);
        let weights: Vec<f64> = (0..1_000).map(|_| rng.random::<f64>().powi(4)).collect();
        for wanted in [1, 7, 400, 999, 1_000] {
            let mut sampler = WeightedWithoutReplacement::new(&weights, wanted).unwrap();
            sampler.choose(5);
            let mut generator = Rng::seed_from_u64(5);
            let mut key =
                |w: &f64| -log2(((generator.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64) / w;
            let mut keys: Vec<(f64, u64)> = sampler.weights.iter().map(&mut key).zip(0..).collect();
            keys.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mut expected: Vec<u64> = keys[..wanted].iter().map(|(_, row)| *row).collect();
            expected.sort_unstable();
            let next = keys.get(wanted).map_or(f64::INFINITY, |next| next.0);
            assert!(wanted < 3 || sampler.order != expected, "{wanted}: in random order");
            sampler.order.sort_unstable();
            assert_eq!((sampler.order, sampler.threshold), (expected, next), "{wanted} of 1000");
        }
    }
}
