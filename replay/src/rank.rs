//! Rank-based prioritized replay: Schaul, Quan, Antonoglou and Silver, *Prioritized Experience Replay*, ICLR 2016.

use crate::ReplayError;
use crate::narrow::{Narrow, in_ring_from};
use crate::power_sums::PowerSums;
use crate::ranking::Ranking;
use rand::RngExt;
use rl_minibatch::{
    Drawn, Priorities, Rng, SampleError, Sampler, StateError, StateVisitor, Updated, check_magnitudes,
    scalar, slice,
};
use std::ops::Range;

/// Bits of a key in a [`Ranking`]'s number; those of the magnitude lie above.
const KEY_BITS: u32 = 33;

/// Memory of a row: its magnitude, a sum of powers, and its number in blocks that are three quarters full, commonly.
const ROW_BYTES: u64 = 24;

/// Stands for the magnitude of a row that the sampler was not told of.
const UNKNOWN: f32 = -1.0;

/// Draws row i with probability `P(i) = rank(i)^−α / Σₖ k^−α`, where rank 1 is the row with the largest |δ| (equation 1 of
/// the paper with `pᵢ = 1/rank(i)`, its second variant, §3.3). Only the order of the magnitudes matters, so outliers do
/// no harm.
///
/// The ranks are exact at every draw; the paper's heap is only nearly in order. Rows of equal magnitude share the
/// probabilities of their ranks equally. A row of magnitude 0 has the last rank and is still drawn, so there is no ε.
///
/// A batch of k is drawn as in the paper: the probability is cut into k equal strata and one row drawn from each, which
/// keeps every row's expected share and lessens its variance. The strata are exact too, where the paper takes a piecewise
/// linear distribution. [`independent`](Self::independent) draws without strata.
///
/// A new row gets the largest magnitude there has been (1 at first). The smallest probability is known, so
/// [`WeightNorm::PopulationMax`](crate::WeightNorm::PopulationMax) works.
///
/// Cost: O(log capacity) for each row drawn, inserted or updated, and for a change a move of at most 4 KiB beside it;
/// about 24 bytes a row.
#[derive(Clone, Debug)]
pub struct RankBased {
    stratified: bool,
    /// By key mod capacity.
    magnitudes: Vec<f32>,
    /// The magnitude's bits, whose order is the magnitudes' own, then the key's lowest bits.
    ranking: Ranking,
    /// Of k^−α over the ranks.
    powers: PowerSums,
    /// The largest magnitude there has been, and 1 at first.
    largest: f32,
    /// The rows told of that have a slot, and any that were left out between them.
    known: Range<u64>,
}

impl RankBased {
    /// For a ring of `capacity` rows. The paper uses α = 0.7.
    ///
    /// # Errors
    /// [`ReplayError::Setting`] for an α outside 0..=1, [`ReplayError::NoCapacity`] and [`ReplayError::Memory`], the latter
    /// for more than 2³³ rows too.
    pub fn new(capacity: u64, alpha: f64) -> Result<Self, ReplayError> {
        if !(0.0..=1.0).contains(&alpha) {
            return Err(ReplayError::Setting { name: "alpha", value: alpha, expected: "in 0..=1" });
        }
        if capacity == 0 {
            return Err(ReplayError::NoCapacity);
        }
        let memory = || ReplayError::Memory {
            rows: capacity,
            bytes: u128::from(capacity) * u128::from(ROW_BYTES),
            source: std::io::ErrorKind::OutOfMemory.into(),
        };
        let slots = usize::try_from(capacity).map_err(|_| memory())?;
        let mut magnitudes = Vec::new();
        if capacity > 1 << KEY_BITS || magnitudes.try_reserve_exact(slots).is_err() {
            return Err(memory());
        }
        magnitudes.resize(slots, UNKNOWN);
        let powers = PowerSums::new(alpha, slots).ok_or_else(memory)?;
        let ranking = Ranking::default();
        Ok(Self { stratified: true, magnitudes, ranking, powers, largest: 1.0, known: 0..0 })
    }

    /// Draws the rows of a batch independently of each other instead of one from each stratum.
    pub fn independent(mut self) -> Self {
        self.stratified = false;
        self
    }

    /// The magnitude of the row with this key, while it is live. O(1).
    pub fn magnitude(&self, key: u64) -> Option<f32> {
        let magnitude = self.magnitudes[self.slot(key)];
        (self.known.contains(&key) && magnitude != UNKNOWN).then_some(magnitude)
    }

    /// The probability of the row with this key among all live ones; 0 for one that is not live. O(log capacity).
    pub fn probability(&self, key: u64) -> f64 {
        if self.known.contains(&key) { self.probability_of_slot(key) } else { 0.0 }
    }

    /// The probability of the row that has the slot of this key.
    fn probability_of_slot(&self, key: u64) -> f64 {
        let key = in_ring_from(self.known.start, key, self.capacity());
        self.magnitude(key).map_or(0.0, |magnitude| self.ties(number(magnitude, key)).2)
    }

    /// Bytes of a sampler for so many rows, commonly.
    pub(crate) fn bytes_for(capacity: u64) -> u64 {
        capacity.saturating_mul(ROW_BYTES)
    }

    fn capacity(&self) -> u64 {
        self.magnitudes.len() as u64
    }

    fn slot(&self, key: u64) -> usize {
        (key % self.capacity()) as usize
    }

    /// The key of a number in the ranking: the one among those known with these lowest bits.
    fn key(&self, number: u64) -> u64 {
        let oldest = self.known.start;
        oldest + (number.wrapping_sub(oldest) & ((1 << KEY_BITS) - 1))
    }

    fn total(&self) -> f64 {
        self.powers.to(self.ranking.len())
    }

    /// The places, from the smallest magnitude up, of all rows with the magnitude that `number` has, and the probability
    /// of each of these rows.
    fn ties(&self, number: u64) -> (usize, usize, f64) {
        let bits = number >> KEY_BITS;
        let low = self.ranking.below(bits << KEY_BITS);
        let high = self.ranking.below((bits + 1) << KEY_BITS);
        let rows = self.ranking.len();
        let mass = self.powers.to(rows - low) - self.powers.to(rows - high);
        (low, high, mass / (high - low) as f64 / self.total())
    }

    /// The known row at `share` (in 0..=1) of the probability, and its own probability.
    fn find(&self, share: f64) -> (u64, f64) {
        let (rows, mass) = (self.ranking.len(), share * self.total());
        let rank = self.powers.rank_at(rows, mass);
        let (before, number, after) = self.ranking.get(rows - rank);
        let alone = |other: Option<u64>| other.is_some_and(|other| other >> KEY_BITS != number >> KEY_BITS);
        if alone(before) && alone(after) {
            let probability = (self.powers.to(rank) - self.powers.to(rank - 1)) / self.total();
            return (self.key(number), probability);
        }
        // Where among the ties the mass lies decides between them, so that they share it.
        let (low, high, probability) = self.ties(number);
        let (from, to) = (self.powers.to(rows - high), self.powers.to(rows - low));
        let ties = high - low;
        let chosen = (((mass - from) / (to - from) * ties as f64) as usize).min(ties - 1);
        (self.key(self.ranking.get(high - 1 - chosen).1), probability)
    }

    /// Forgets the row with this key, which is known or was not told of.
    fn forget(&mut self, key: u64) {
        let slot = self.slot(key);
        let magnitude = std::mem::replace(&mut self.magnitudes[slot], UNKNOWN);
        if magnitude != UNKNOWN {
            self.ranking.remove(number(magnitude, key));
        }
    }

    fn set(&mut self, key: u64, magnitude: f32) {
        self.forget(key);
        let slot = self.slot(key);
        self.magnitudes[slot] = magnitude;
        self.ranking.insert(number(magnitude, key));
        self.powers.grow(self.ranking.len());
    }
}

/// Magnitudes are finite and at least 0, and the bits of such floats are in the order of the floats.
fn number(magnitude: f32, key: u64) -> u64 {
    u64::from(magnitude.to_bits()) << KEY_BITS | key & ((1 << KEY_BITS) - 1)
}

impl Sampler for RankBased {
    fn draw(
        &mut self,
        rng: &mut Rng,
        live: Range<u64>,
        count: usize,
        drawn: &mut Drawn,
    ) -> Result<(), SampleError> {
        if live.is_empty() {
            return Err(SampleError::Empty);
        }
        if self.ranking.len() == 0 {
            return Err(SampleError::NoMass);
        }
        let probability = |key| self.probability_of_slot(key);
        let narrow = Narrow::new(self.known.clone(), live.clone(), self.capacity(), probability)?;
        let to_live = |key| in_ring_from(live.start, key, self.capacity());
        let find = |share| {
            let (key, probability) = self.find(share);
            (to_live(key), probability)
        };
        drawn.population = live.end - live.start;
        drawn.rows.clear();
        drawn.probabilities.clear();
        for row in 0..count {
            let share = rng.random::<f64>();
            let share = if self.stratified { (row as f64 + share) / count as f64 } else { share };
            let (key, probability) = find(share);
            drawn.rows.push(key);
            drawn.probabilities.push(probability);
        }
        // The live row of the last rank. What is not live is skipped, and that is little.
        let mut numbers = (0..self.ranking.len()).map(|place| self.ranking.get(place).1);
        let rarest = numbers.find(|number| live.contains(&to_live(self.key(*number))));
        drawn.lowest = rarest.map(|number| self.ties(number).2);
        if let Some(narrow) = narrow {
            narrow.settle(drawn, probability, || rng.random(), find);
        }
        Ok(())
    }

    fn priorities(&mut self) -> Option<&mut dyn Priorities> {
        Some(self)
    }

    fn memory_bytes(&self) -> u64 {
        Self::bytes_for(self.capacity())
    }

    fn visit(&mut self, live: Range<u64>, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let invalid = |path: &str, why: String| Err(StateError::Invalid { path: path.to_string(), why });
        if live.end - live.start > self.capacity() {
            let (rows, capacity) = (live.end - live.start, self.capacity());
            return invalid("magnitudes", format!("{rows} rows do not fit into a capacity of {capacity}"));
        }
        let mut largest = self.largest;
        scalar(visitor, "largest", &mut largest)?;
        let mut magnitudes: Vec<f32> =
            live.clone().map(|key| self.magnitude(key).unwrap_or(UNKNOWN)).collect();
        slice(visitor, "magnitudes", &mut magnitudes)?;
        if !visitor.loading() {
            return Ok(());
        }
        if !(largest.is_finite() && largest > 0.0) {
            return invalid("largest", format!("{largest} cannot be the largest magnitude"));
        }
        let fits = |m: f32| m == UNKNOWN || (m.is_finite() && m.is_sign_positive());
        if let Some(&bad) = magnitudes.iter().find(|m| !fits(**m)) {
            return invalid("magnitudes", format!("{bad} cannot be a magnitude"));
        }
        let known = live.clone().zip(&magnitudes).filter(|(_, magnitude)| **magnitude != UNKNOWN);
        let mut numbers: Vec<u64> = known.map(|(key, magnitude)| number(*magnitude, key)).collect();
        numbers.sort_unstable();
        if let Err(error) = self.ranking.fill(&numbers) {
            return invalid("magnitudes", format!("there is no memory to load them: {error}"));
        }
        self.largest = largest;
        self.known = live.clone();
        self.magnitudes.fill(UNKNOWN);
        for (key, magnitude) in live.zip(magnitudes) {
            let slot = self.slot(key);
            self.magnitudes[slot] = magnitude;
        }
        self.powers.grow(self.ranking.len());
        Ok(())
    }
}

impl Priorities for RankBased {
    fn inserted(&mut self, rows: Range<u64>) {
        let capacity = self.capacity();
        let first = rows.start.max(rows.end.saturating_sub(capacity));
        if first >= rows.end {
            return;
        }
        if self.known.is_empty() || first >= self.known.end.saturating_add(capacity) {
            // Nothing known is left.
            self.magnitudes.fill(UNKNOWN);
            self.ranking.clear();
            self.known = first..first;
        }
        for key in self.known.end.min(first)..rows.end {
            if key >= self.known.end {
                // It takes the slot of the oldest, which has left the ring, also if this row itself was never told of.
                if key - self.known.start == capacity {
                    self.forget(self.known.start);
                    self.known.start += 1;
                }
                self.known.end = key + 1;
            }
            if key >= first && self.known.contains(&key) {
                self.set(key, self.largest);
            }
        }
    }

    fn update(&mut self, live: Range<u64>, rows: &[u64], magnitudes: &[f32]) -> Result<Updated, SampleError> {
        check_magnitudes(rows, magnitudes)?;
        let mut updated = Updated::default();
        for (&key, &magnitude) in rows.iter().zip(magnitudes) {
            if !live.contains(&key) || self.magnitude(key).is_none() {
                updated.stale += 1;
                continue;
            }
            // Without the sign that −0 has.
            let magnitude = magnitude.abs();
            self.set(key, magnitude);
            self.largest = self.largest.max(magnitude);
            updated.applied += 1;
        }
        Ok(updated)
    }
}
