//! How many rows of each class a batch gets, so that neither the batch nor the epoch up to there is off by a row.

use std::cmp::Ordering;

/// Shares out rows to classes, batch after batch, in the ratio of the classes' sizes.
///
/// Class c of n of the N rows is due k·n/N rows in a batch of k, and t·n/N in the first t rows of the epoch. It gets a
/// whole number that is off by less than 1 from both. That this can be done for all classes at once, without looking
/// ahead, is the theorem of proportionate fairness: Baruah, Cohen, Plaxton and Varvel, *Proportionate Progress: A Notion
/// of Fairness in Resource Allocation*, Algorithmica 15, 1996. Their tasks are our classes and their time slots our
/// batches: beyond ⌊k·n/N⌋, each class gets one row more or none, and there are as many rows more as their processors.
/// Theirs is also the rule which classes come first, where rounding leaves a choice.
///
/// The theorem wants batches of one size; the last may be smaller. Where the size changes on the way both bounds are
/// kept if they can be, and else the classes are brought as near to what they are due as whole rows allow.
#[derive(Clone, Debug)]
pub(super) struct Fair {
    /// Rows of each class.
    sizes: Vec<u64>,
    /// Rows of all of them.
    total: i128,
    /// Rows that each class got in this epoch.
    taken: Vec<u64>,
    /// Rows that all of them got.
    drawn: u64,
    /// Which class comes first where nothing else decides.
    rank: Vec<u32>,
    /// What each class gets in this batch.
    share: Vec<u64>,
    /// Classes that may get a row more.
    open: Vec<Open>,
}

/// A class that may get a row more in this batch.
#[derive(Clone, Copy, Debug)]
struct Open {
    class: usize,
    /// After this batch, the part of a row that the class is due beyond whole rows, times N.
    phase: u64,
    /// The part of a row that it becomes due in each batch beyond whole rows, times N; above 0.
    step: u64,
    /// Batches after this one until it is due a whole row more.
    wait: u64,
}

impl Fair {
    pub fn new(sizes: Vec<u64>) -> Self {
        let (classes, total) = (sizes.len(), sizes.iter().map(|n| i128::from(*n)).sum());
        Self {
            sizes,
            total,
            taken: vec![0; classes],
            drawn: 0,
            rank: (0..classes as u32).collect(),
            share: vec![0; classes],
            open: Vec::with_capacity(classes),
        }
    }

    /// Rows that each class got in this epoch.
    pub fn taken(&self) -> &[u64] {
        &self.taken
    }

    /// As [`taken`](Self::taken), to be filled from a state; [`resume`](Self::resume) then takes it over.
    pub fn taken_mut(&mut self) -> &mut [u64] {
        &mut self.taken
    }

    /// Begins an epoch, in which the classes come in the order of `rank` where nothing else decides.
    pub fn begin(&mut self) {
        self.taken.fill(0);
        self.drawn = 0;
    }

    /// The order of the classes where nothing else decides.
    pub fn rank_mut(&mut self) -> &mut [u32] {
        &mut self.rank
    }

    /// Goes on after `drawn` rows; what is wrong with `taken`, if something is.
    pub fn resume(&mut self, drawn: u64) -> Result<(), String> {
        let sum: u128 = self.taken.iter().map(|n| u128::from(*n)).sum();
        if let Some(class) = (0..self.sizes.len()).find(|class| self.taken[*class] > self.sizes[*class]) {
            let (taken, size) = (self.taken[class], self.sizes[class]);
            return Err(format!("{taken} rows of class {class} cannot have been drawn, which has {size}"));
        }
        if sum != u128::from(drawn) {
            return Err(format!(
                "{sum} rows of all classes and {drawn} of the epoch cannot both have been drawn"
            ));
        }
        self.drawn = drawn;
        Ok(())
    }

    /// What each class got in the last batch.
    pub fn share(&self) -> &[u64] {
        &self.share
    }

    /// Shares out the next batch, of `count` rows, which must be left. O(classes), and for each class
    /// that may get a row more the time to compare it with others.
    pub fn split(&mut self, count: u64) {
        let rest = self.total as u64 - self.drawn;
        debug_assert!(count <= rest);
        if count == rest {
            for (share, (size, taken)) in self.share.iter_mut().zip(self.sizes.iter().zip(&self.taken)) {
                *share = size - taken;
            }
        } else if !self.split_within_bounds(count) {
            self.split_nearest(count);
        }
        for (taken, share) in self.taken.iter_mut().zip(&self.share) {
            *taken += share;
        }
        self.drawn += count;
    }

    /// What class c is due in a batch of `count`, and how far it is ahead, both times N.
    fn due(&self, class: usize, count: u64) -> (i128, i128) {
        let size = i128::from(self.sizes[class]);
        let ahead = self.total * i128::from(self.taken[class]) - i128::from(self.drawn) * size;
        (i128::from(count) * size, ahead)
    }

    /// Keeps both bounds; false if that cannot be done.
    fn split_within_bounds(&mut self, count: u64) -> bool {
        let total = self.total;
        self.open.clear();
        let mut left = i128::from(count);
        for class in 0..self.sizes.len() {
            let (due, ahead) = self.due(class, count);
            // The whole numbers within 1 of both, of which there is one or are two unless the class is a row away already.
            let least = due.max(due - ahead).div_euclid(total);
            let most = -(-due.min(due - ahead)).div_euclid(total);
            if least < 0 || least > most {
                return false;
            }
            self.share[class] = least as u64;
            left -= least;
            if most > least {
                let size = i128::from(self.sizes[class]);
                let phase = ((i128::from(self.drawn) + i128::from(count)) * size % total) as u64;
                let step = (due % total) as u64;
                let wait = (total as u64 - phase).div_ceil(step.max(1)) - 1;
                self.open.push(Open { class, phase, step, wait });
            }
        }
        if left < 0 || left > self.open.len() as i128 {
            return false;
        }
        let more = left as usize;
        if more > 0 && more < self.open.len() {
            let batches = (total as u64 - self.drawn).div_ceil(count);
            let (rank, total) = (&self.rank, total as u64);
            self.open.select_nth_unstable_by(more, |a, b| {
                b.urgency(a, total, batches).then_with(|| rank[a.class].cmp(&rank[b.class]))
            });
        }
        for open in &self.open[..more] {
            self.share[open.class] += 1;
        }
        true
    }

    /// Gives each class what it is due less what it is ahead, rounded down, and the rows left to those that lack most.
    fn split_nearest(&mut self, count: u64) {
        let mut left = i128::from(count);
        for class in 0..self.sizes.len() {
            let (due, ahead) = self.due(class, count);
            let rest = i128::from(self.sizes[class] - self.taken[class]);
            let share = (due - ahead).div_euclid(self.total).clamp(0, rest);
            self.share[class] = share as u64;
            left -= share;
        }
        while left != 0 {
            let lack = |class: &usize| {
                let (due, ahead) = self.due(*class, count);
                due - ahead - self.total * i128::from(self.share[*class])
            };
            let classes = 0..self.sizes.len();
            if left > 0 {
                let can = |class: &usize| self.taken[*class] + self.share[*class] < self.sizes[*class];
                let Some(class) = classes.filter(can).max_by_key(lack) else { break };
                self.share[class] += 1;
                left -= 1;
            } else {
                let Some(class) = classes.filter(|c| self.share[*c] > 0).min_by_key(lack) else { break };
                self.share[class] -= 1;
                left += 1;
            }
        }
    }
}

impl Open {
    /// Which of two classes is to come first, the greater one: the order of their strings of symbols, one for each batch to
    /// come (Baruah et al., §3.2). A symbol says whether the class is due a whole row more within that batch (greatest),
    /// exactly at its end, or not (least). The strings end where a class is due whole rows exactly.
    fn urgency(&self, other: &Self, total: u64, batches: u64) -> Ordering {
        // The symbols up to the first row due are all the least.
        if self.wait != other.wait {
            return other.wait.cmp(&self.wait);
        }
        if (self.phase, self.step) == (other.phase, other.step) {
            return Ordering::Equal;
        }
        let at = |open: &Self| {
            let phase = u128::from(open.phase) + u128::from(open.wait) * u128::from(open.step);
            (phase % u128::from(total)) as u64
        };
        let (mut a, mut b) = (at(self), at(other));
        for _ in self.wait..batches {
            (a, b) = (a + self.step, b + other.step);
            let symbols = a.cmp(&total).cmp(&b.cmp(&total));
            if symbols.is_ne() || a == total {
                return symbols;
            }
            (a, b) = (if a > total { a - total } else { a }, if b > total { b - total } else { b });
        }
        Ordering::Equal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The most that a batch, and an epoch up to its end, is off by, over all classes and batches.
    fn worst(sizes: &[u64], mut batch: impl FnMut() -> u64) -> (f64, f64) {
        let total: u64 = sizes.iter().sum();
        let (mut fair, mut drawn) = (Fair::new(sizes.to_vec()), 0);
        let (mut of_batch, mut of_epoch) = (0f64, 0f64);
        while drawn < total {
            let count = batch().min(total - drawn);
            fair.split(count);
            let shares = fair.share().to_vec();
            assert_eq!(shares.iter().sum::<u64>(), count);
            drawn += count;
            for ((share, taken), size) in shares.iter().zip(fair.taken()).zip(sizes) {
                // Exact in f64 for these sizes.
                let off = |got: u64, of: u64| (got * total).abs_diff(of * size) as f64 / total as f64;
                of_batch = of_batch.max(off(*share, count));
                of_epoch = of_epoch.max(off(*taken, drawn));
            }
        }
        assert_eq!(fair.taken(), sizes);
        (of_batch, of_epoch)
    }

    fn sizes() -> impl Strategy<Value = Vec<u64>> {
        prop_oneof![
            prop::collection::vec(0u64..40, 1..40),
            prop::collection::vec(1u64..4, 20..60),
            prop::collection::vec(prop_oneof![1u64..10, 100u64..2_000], 1..12),
        ]
        .prop_filter("rows", |sizes| sizes.iter().sum::<u64>() > 0)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn batches_of_one_size_and_the_epoch_are_off_by_less_than_a_row(sizes in sizes(), batch in 1u64..300) {
            let (of_batch, of_epoch) = worst(&sizes, || batch);
            prop_assert!(of_batch < 1.0, "a batch is off by {}", of_batch);
            prop_assert!(of_epoch < 1.0, "the epoch is off by {}", of_epoch);
        }

        #[test]
        fn batches_of_changing_sizes_are_off_by_less_than_two(sizes in sizes(), batches in prop::collection::vec(1u64..100, 1..20)) {
            let mut next = batches.iter().cycle();
            let (of_batch, of_epoch) = worst(&sizes, || *next.next().unwrap());
            prop_assert!(of_batch < 2.0, "a batch is off by {}", of_batch);
            prop_assert!(of_epoch < 2.0, "the epoch is off by {}", of_epoch);
        }
    }
}
