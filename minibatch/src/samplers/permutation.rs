//! A permutation that is computed and not stored.

use crate::Rng;
use rand::{Rng as _, SeedableRng};

/// Rounds of the network, of two halves each time. See [`Permutation`] for how many are needed.
const ROUNDS: usize = 8;

/// A permutation of `0..rows` that takes the same few bytes whatever `rows` is: where each place goes is computed from a
/// key.
///
/// It is a Feistel network over pairs (Black and Rogaway, *Ciphers with Arbitrary Finite Domains*, CT-RSA 2002, the
/// generalized Feistel cipher of §5): x = l·b + r with a = ⌈√rows⌉, b = ⌈rows/a⌉, and in turn l ← l + F(r) mod a and
/// r ← r + F(l) mod b. What comes out beyond `rows` goes in again (their cycle walking), which one place in √rows has to
/// do. Each step can be undone, so each row comes exactly once. F is two multiplications keyed for each round; this is
/// not for secrets. Mitchell et al. (*Bandwidth-Optimal Random Shuffling for GPUs*, ACM TOPC 2022) shuffle the same way.
///
/// How random: χ² of where rows come to lie, of the differences of neighbours and of places b apart, and the number of
/// fixed points and of neighbours that stay neighbours, tell 2 and 4 rounds from a random permutation and do not tell 6,
/// 8, 10 or 12, for 10³ to 10⁶ rows. There are 8. A key has 64 bits, so of few rows not every order comes equally often;
/// [`Shuffled`](crate::Shuffled) therefore shuffles small sets in memory.
#[derive(Clone, Debug)]
pub struct Permutation {
    rows: u64,
    /// Values of the left part.
    left: u64,
    /// Values of the right part.
    right: u64,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// The most rows there may be.
    pub const MOST_ROWS: u64 = 1 << 62;

    /// The permutation of `0..rows` that `key` names. O(1).
    ///
    /// # Panics
    /// When `rows` is 0 or more than [`MOST_ROWS`](Self::MOST_ROWS).
    pub fn new(rows: u64, key: u64) -> Self {
        assert!((1..=Self::MOST_ROWS).contains(&rows), "a permutation of {rows} rows");
        let root = rows.isqrt();
        let left = root + u64::from(root * root < rows);
        let mut rng = Rng::seed_from_u64(key);
        Self { rows, left, right: rows.div_ceil(left), keys: std::array::from_fn(|_| rng.next_u64()) }
    }

    /// What the permutation has at `place`. O(1), about 30 ns.
    ///
    /// # Panics
    /// When there is no such place.
    #[inline]
    pub fn at(&self, place: u64) -> u64 {
        assert!(place < self.rows, "place {place} of {}", self.rows);
        let mut at = place;
        // It comes to an end: the walk is part of a cycle of the larger permutation, and `place` itself is on it.
        loop {
            let (mut l, mut r) = (at / self.right, at % self.right);
            for keys in self.keys.as_chunks::<2>().0 {
                l = add(l, scaled(mixed(r ^ keys[0]), self.left), self.left);
                r = add(r, scaled(mixed(l ^ keys[1]), self.right), self.right);
            }
            at = l * self.right + r;
            if at < self.rows {
                return at;
            }
        }
    }
}

/// x + y mod `modulus`, of two numbers below it.
#[inline(always)]
fn add(x: u64, y: u64, modulus: u64) -> u64 {
    let sum = x + y;
    if sum >= modulus { sum - modulus } else { sum }
}

/// A 64-bit number brought to `0..below` (Lemire 2019, without the rejection).
#[inline(always)]
fn scaled(x: u64, below: u64) -> u64 {
    ((u128::from(x) * u128::from(below)) >> 64) as u64
}

/// Two steps of SplitMix64's finalizer (Steele, Lea and Flood 2014). Only the upper bits are used.
#[inline(always)]
fn mixed(x: u64) -> u64 {
    let x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x ^ (x >> 32)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_comes_once() {
        for rows in (1..200).chain([1_000, 4_095, 4_096, 4_097, 65_537, 99_991]) {
            for key in 0..3 {
                let permutation = Permutation::new(rows, key);
                let mut seen = vec![false; rows as usize];
                for place in 0..rows {
                    let row = permutation.at(place) as usize;
                    assert!(!std::mem::replace(&mut seen[row], true), "{rows} rows, key {key}: {row} twice");
                }
            }
        }
        let huge = Permutation::new(Permutation::MOST_ROWS, 1);
        assert!((0..1_000).all(|n| huge.at(Permutation::MOST_ROWS - 1 - n) < Permutation::MOST_ROWS));
    }

    /// χ² of a table of M×M cells from the second pair on, and the limit of a probability of 1e-6 for a random one.
    fn assert_even(counts: &[f64], degrees: f64, about: &str) {
        let expected = counts.iter().sum::<f64>() / counts.len() as f64;
        let chi2: f64 = counts.iter().map(|c| (c - expected).powi(2) / expected).sum();
        // Wilson and Hilferty 1931, on both sides: too even is as wrong as too uneven.
        let limit =
            |z: f64| degrees * (1.0 - 2.0 / (9.0 * degrees) + z * (2.0 / (9.0 * degrees)).sqrt()).powi(3);
        assert!((limit(-4.89)..limit(4.89)).contains(&chi2), "{about}: χ² = {chi2} of {degrees} degrees");
    }

    #[test]
    fn it_is_not_to_be_told_from_a_random_one() {
        // The cells divide the rows, so each expects the same.
        const CELLS: usize = 20;
        for (rows, keys) in [(4_000u64, 250u64), (100_000, 10), (1_000_000, 1)] {
            let cell = |row: u64| (row * CELLS as u64 / rows) as usize;
            let (mut places, mut neighbours, mut apart) = (vec![0.0; 400], vec![0.0; 400], vec![0.0; 400]);
            let (mut fixed, mut adjacent) = (0u64, 0u64);
            for key in 0..keys {
                let permutation = Permutation::new(rows, key);
                let order: Vec<u64> = (0..rows).map(|place| permutation.at(place)).collect();
                let difference = |a: u64, b: u64| cell((b + rows - a) % rows) + CELLS * cell(a);
                for (place, row) in (0..rows).zip(&order) {
                    places[cell(place) * CELLS + cell(*row)] += 1.0;
                    fixed += u64::from(place == *row);
                }
                for pair in order.windows(2) {
                    neighbours[difference(pair[0], pair[1])] += 1.0;
                    adjacent += u64::from(pair[0].abs_diff(pair[1]) == 1);
                }
                // Pairs with the same right part.
                let stride = permutation.right as usize;
                for (a, b) in order.iter().zip(&order[stride..]) {
                    apart[difference(*a, *b)] += 1.0;
                }
            }
            let about = format!("{rows} rows");
            // Each row has one place and each place one row, which takes degrees of freedom away.
            assert_even(&places, 361.0, &format!("{about}, places"));
            assert_even(&neighbours, 380.0, &format!("{about}, neighbours"));
            assert_even(&apart, 380.0, &format!("{about}, places of one right part"));
            // Poisson with mean 1 and 2 for each key: five standard deviations and one.
            let far = |count: u64, mean: f64| (count as f64 - mean).abs() > 5.0 * mean.sqrt() + 1.0;
            assert!(!far(fixed, keys as f64), "{about}: {fixed} fixed points of {keys} permutations");
            assert!(!far(adjacent, 2.0 * keys as f64), "{about}: {adjacent} neighbours stay neighbours");
        }
    }

    #[test]
    fn every_order_of_few_rows_comes() {
        let mut counts = std::collections::HashMap::<Vec<u64>, u64>::new();
        for key in 0..24_000 {
            let permutation = Permutation::new(4, key);
            *counts.entry((0..4).map(|place| permutation.at(place)).collect()).or_default() += 1;
        }
        assert_eq!(counts.len(), 24);
    }
}
