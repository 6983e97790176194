//! Sums of k^−α over ranks k, and the rank at which a sum is reached.

/// Up to so many ranks are simply searched; beyond them the search begins at a guess.
const FEW: usize = 1024;

/// The sums of k^−α over k = 1..=r for every r up to the most ranks asked for so far; 8 bytes each.
#[derive(Clone, Debug)]
pub(crate) struct PowerSums {
    alpha: f64,
    sums: Vec<f64>,
    /// What the sums have beyond the integral of the powers, as it is at `FEW` ranks; after them it hardly changes.
    beyond: f64,
}

impl PowerSums {
    /// Room for `ranks` ranks; `None` when there is no memory for them. Memory is taken as ranks are asked for.
    pub(crate) fn new(alpha: f64, ranks: usize) -> Option<Self> {
        let mut sums = Vec::new();
        sums.try_reserve_exact(ranks.checked_add(1)?).ok()?;
        sums.push(0.0);
        Some(Self { alpha, sums, beyond: 0.0 })
    }

    /// Makes the sums for up to `ranks` ranks.
    pub(crate) fn grow(&mut self, ranks: usize) {
        while self.sums.len() <= ranks {
            let rank = self.sums.len();
            let sum = self.sums[rank - 1] + (rank as f64).powf(-self.alpha);
            self.sums.push(sum);
            if rank == FEW {
                self.beyond = sum - self.integral(rank as f64 + 0.5);
            }
        }
    }

    /// The sum over the ranks 1..=`ranks`.
    pub(crate) fn to(&self, ranks: usize) -> f64 {
        self.sums[ranks]
    }

    /// The first of `ranks` ranks, at least 1, up to which the sum exceeds `mass`; the last if there is none.
    pub(crate) fn rank_at(&self, ranks: usize, mass: f64) -> usize {
        let sums = &self.sums[..=ranks];
        let search = |sums: &[f64]| sums.partition_point(|sum| *sum <= mass);
        if ranks > FEW {
            // The sum to rank r is nearly the integral to r + ½ (the midpoint rule), and the integral can be inverted.
            let guess = (self.inverse(mass - self.beyond) as usize).clamp(4, ranks - 4);
            let near = &sums[guess - 4..guess + 4];
            if near[0] <= mass && mass < near[7] {
                return guess - 4 + search(near);
            }
        }
        search(sums).clamp(1, ranks)
    }

    /// The integral of x^−α from 1 to `to`, (to^(1 − α) − 1) / (1 − α), also where 1 − α is next to nothing.
    fn integral(&self, to: f64) -> f64 {
        let power = 1.0 - self.alpha;
        if power == 0.0 { to.ln() } else { (power * to.ln()).exp_m1() / power }
    }

    /// Where the integral has this value.
    fn inverse(&self, integral: f64) -> f64 {
        let power = 1.0 - self.alpha;
        if power == 0.0 { integral.exp() } else { ((power * integral).ln_1p() / power).exp() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rank_is_the_one_that_searching_finds() {
        for alpha in [0.0, 0.3, 0.7, 0.999, 1.0 - 1e-13, 1.0] {
            let mut powers = PowerSums::new(alpha, 200_000).unwrap();
            for ranks in [1, 2, 1024, 1025, 1100, 200_000] {
                powers.grow(ranks);
                let total = powers.to(ranks);
                for i in 0..=5_000 {
                    let mass = total * f64::from(i) / 5_000.0;
                    for mass in [mass, mass.next_down(), powers.to(ranks * i as usize / 5_000)] {
                        let sum = |rank: usize| powers.to(rank);
                        let rank = powers.rank_at(ranks, mass);
                        assert!(rank == 1 || sum(rank - 1) <= mass, "{rank} of {ranks}, α = {alpha}");
                        assert!(rank == ranks || mass < sum(rank), "{rank} of {ranks}, α = {alpha}");
                        assert!((1..=ranks).contains(&rank));
                    }
                }
            }
        }
    }

    /// The guess is worth its name: searching is left out from the FEW-th rank on, nearly always.
    #[test]
    fn the_guess_is_near() {
        for alpha in [0.0, 0.5, 0.7, 1.0] {
            let mut powers = PowerSums::new(alpha, 3_000_000).unwrap();
            powers.grow(3_000_000);
            for rank in (5..2_999_990).step_by(7919) {
                let mass = (powers.to(rank - 1) + powers.to(rank)) / 2.0;
                let guess = powers.inverse(mass - powers.beyond);
                assert!((guess - rank as f64).abs() < 3.0, "{guess} for {rank}, α = {alpha}");
            }
        }
    }
}
