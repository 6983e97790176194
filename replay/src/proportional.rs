//! Proportional prioritized replay: Schaul, Quan, Antonoglou and Silver, *Prioritized Experience Replay*, ICLR 2016.

use crate::ReplayError;
use crate::narrow::Narrow;
use crate::sum_tree::SumTree;
use rand::RngExt;
use rl_minibatch::{
    Drawn, Priorities, Rng, SampleError, Sampler, StateError, StateVisitor, Updated, powers, scalar, slice,
};
use std::ops::Range;

/// Settings of proportional prioritization, for [`Builder::prioritized`](crate::Builder::prioritized).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prioritized {
    /// α, how much priorities matter: 0 draws uniformly, 1 in proportion to the error. In 0..=1; the paper uses 0.6.
    pub alpha: f64,
    /// ε, added to every |δ| so that rows without error are still drawn now and then. In 0..=1e6.
    pub epsilon: f64,
}

impl Default for Prioritized {
    /// α = 0.6 as in the paper, ε = 1e-6.
    fn default() -> Self {
        Self { alpha: 0.6, epsilon: 1e-6 }
    }
}

/// Draws row i with probability `P(i) = pᵢ / Σₖ pₖ`, where `pᵢ = (|δᵢ| + ε)^α` (equation 1 of the paper, α folded into
/// the stored priority).
///
/// A batch of k is drawn as in the paper's Algorithm 1: the mass Σp is cut into k equal strata and one row drawn from
/// each, which keeps every row's expected share and lessens its variance. [`independent`](Self::independent) draws
/// without strata.
///
/// A new row gets the largest priority there has been (1 at first), so that it is drawn soon. A row of priority 0,
/// which only ε = 0 makes, is not drawn again.
///
/// Keys are mapped to the leaves of a sum tree by key mod capacity, so a row that enters a full ring takes the leaf of
/// the one that leaves it. Cost: O(log₁₆ capacity) for each row drawn, inserted or updated; 8.5 bytes a row.
#[derive(Clone, Debug)]
pub struct Proportional {
    alpha: f64,
    epsilon: f64,
    stratified: bool,
    tree: SumTree,
    /// The largest priority there has been, (|δ| + ε)^α, and 1 at first.
    largest: f64,
    /// The rows told of that have a leaf.
    known: Range<u64>,
    /// Scratch of a batch: masses to be found, or priorities to be set.
    masses: Vec<f64>,
}

impl Proportional {
    /// For a ring of `capacity` rows.
    ///
    /// # Errors
    /// [`ReplayError::Setting`] for an α outside 0..=1 or an ε outside 0..=1e6, [`ReplayError::NoCapacity`] and
    /// [`ReplayError::Memory`].
    pub fn new(capacity: u64, settings: Prioritized) -> Result<Self, ReplayError> {
        let Prioritized { alpha, epsilon } = settings;
        if !(0.0..=1.0).contains(&alpha) {
            return Err(ReplayError::Setting { name: "alpha", value: alpha, expected: "in 0..=1" });
        }
        if !(0.0..=1e6).contains(&epsilon) {
            return Err(ReplayError::Setting { name: "epsilon", value: epsilon, expected: "in 0..=1e6" });
        }
        if capacity == 0 {
            return Err(ReplayError::NoCapacity);
        }
        let leaves = usize::try_from(capacity).unwrap_or(usize::MAX);
        Ok(Self {
            alpha,
            epsilon,
            stratified: true,
            tree: SumTree::new(leaves)?,
            largest: 1.0,
            known: 0..0,
            masses: Vec::new(),
        })
    }

    /// Draws the rows of a batch independently of each other instead of one from each stratum.
    pub fn independent(mut self) -> Self {
        self.stratified = false;
        self
    }

    /// The priority of the row with this key, (|δ| + ε)^α, while it is live.
    pub fn priority(&self, key: u64) -> f64 {
        self.tree.get(self.leaf(key))
    }

    /// Bytes of a sampler for so many rows.
    pub(crate) fn bytes_for(capacity: u64) -> u64 {
        SumTree::bytes_for(capacity)
    }

    fn capacity(&self) -> u64 {
        self.tree.leaves() as u64
    }

    fn leaf(&self, key: u64) -> usize {
        (key % self.capacity()) as usize
    }
}

impl Sampler for Proportional {
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
        let total = self.tree.total();
        if total <= 0.0 {
            return Err(SampleError::NoMass);
        }
        let mut masses = std::mem::take(&mut self.masses);
        let probability = |key: u64| self.priority(key) / total;
        let narrow = Narrow::new(self.known.clone(), live.clone(), self.capacity(), probability)?;
        drawn.population = live.end - live.start;
        drawn.lowest = None;
        drawn.rows.clear();
        drawn.probabilities.clear();
        let (capacity, first_leaf) = (self.capacity(), self.leaf(live.start) as u64);
        // Of the keys that share a leaf, the one within `capacity` of the oldest live one.
        let key_of = |leaf: usize| {
            let leaf = leaf as u64;
            live.start + if leaf >= first_leaf { leaf - first_leaf } else { leaf + capacity - first_leaf }
        };
        // A share may round up to 1; the tree takes that.
        masses.clear();
        masses.extend((0..count).map(|row| {
            let share = rng.random::<f64>();
            total * if self.stratified { (row as f64 + share) / count as f64 } else { share }
        }));
        let per_mass = 1.0 / total;
        self.tree.find_all(&mut masses, |_, leaf| {
            drawn.rows.push(key_of(leaf));
            drawn.probabilities.push(self.tree.get(leaf) * per_mass);
        });
        if let Some(narrow) = narrow {
            let again = |share: f64| {
                let leaf = self.tree.find(share * total);
                (key_of(leaf), self.tree.get(leaf) / total)
            };
            narrow.settle(drawn, probability, || rng.random(), again);
        }
        self.masses = masses;
        Ok(())
    }

    fn priorities(&mut self) -> Option<&mut dyn Priorities> {
        Some(self)
    }

    fn memory_bytes(&self) -> u64 {
        Self::bytes_for(self.capacity())
    }

    fn visit(&mut self, live: Range<u64>, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        scalar(visitor, "largest", &mut self.largest)?;
        let known = live.clone();
        let mut priorities: Vec<f64> = live.clone().map(|key| self.priority(key)).collect();
        slice(visitor, "priorities", &mut priorities)?;
        if visitor.loading() {
            let invalid = |path: &str, value: f64| {
                let why = format!("{value} cannot be a priority");
                Err(StateError::Invalid { path: path.to_string(), why })
            };
            if !(self.largest.is_finite() && self.largest > 0.0) {
                return invalid("largest", self.largest);
            }
            if let Some(&bad) = priorities.iter().find(|p| !(p.is_finite() && **p >= 0.0)) {
                return invalid("priorities", bad);
            }
            self.tree.leaves_mut().fill(0.0);
            for (key, priority) in live.zip(priorities) {
                let leaf = self.leaf(key);
                self.tree.leaves_mut()[leaf] = priority;
            }
            self.tree.rebuild();
            self.known = known;
        }
        Ok(())
    }
}

impl Priorities for Proportional {
    fn inserted(&mut self, rows: Range<u64>) {
        let rows = rows.start.max(rows.end.saturating_sub(self.capacity()))..rows.end;
        if !rows.is_empty() {
            // At most once around the ring, so in one or two runs.
            let (first, last) = (self.leaf(rows.start), self.leaf(rows.end - 1));
            if first <= last {
                self.tree.fill(first..last + 1, self.largest);
            } else {
                self.tree.fill(first..self.tree.leaves(), self.largest);
                self.tree.fill(0..last + 1, self.largest);
            }
        }
        let first = if self.known.is_empty() { rows.start } else { self.known.start };
        self.known = first.max(rows.end.saturating_sub(self.capacity()))..rows.end;
    }

    fn update(&mut self, live: Range<u64>, rows: &[u64], magnitudes: &[f32]) -> Result<Updated, SampleError> {
        if rows.len() != magnitudes.len() {
            return Err(SampleError::Lengths { rows: rows.len(), magnitudes: magnitudes.len() });
        }
        let bad = |value: &f32| !(value.is_finite() && *value >= 0.0);
        if let Some(position) = magnitudes.iter().position(bad) {
            return Err(SampleError::Priority { row: rows[position], position, value: magnitudes[position] });
        }
        self.masses.clear();
        self.masses.extend(magnitudes.iter().map(|magnitude| f64::from(*magnitude) + self.epsilon));
        powers(&mut self.masses, self.alpha);
        let (capacity, largest) = (self.capacity(), &mut self.largest);
        let mut applied = 0;
        let live_ones = rows.iter().zip(&self.masses).filter(|(key, _)| live.contains(key));
        self.tree.set_all(live_ones.map(|(key, priority)| {
            applied += 1;
            *largest = largest.max(*priority);
            ((key % capacity) as usize, *priority)
        }));
        let updated = Updated { applied, stale: rows.len() - applied };
        Ok(updated)
    }
}
