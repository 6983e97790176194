//! What a buffer tells of itself: how full it is, what came and went, how old and how often used its rows are.

use serde::Serialize;
use std::fmt;
use std::ops::RangeInclusive;

/// Buckets of a [`Histogram`]: one for 0, one for each power of two that is the largest number of its bucket, and one for
/// what lies above the last of these.
pub(crate) const BUCKETS: usize = 66;

/// The bucket that counts `value`.
#[inline]
pub(crate) fn bucket(value: u64) -> usize {
    match value {
        0 => 0,
        // ⌈log₂ value⌉ + 1.
        _ => 65 - (value - 1).leading_zeros() as usize,
    }
}

/// Counters of a buffer, read by [`Replay::statistics`](crate::Replay::statistics).
///
/// `len`, `inserted` and `overwritten` are of one moment. The others are read one after the other while writers and
/// readers go on, so each is right for some moment of the call, and together they are exact once nobody inserts or
/// draws.
///
/// Printed ([`Display`](fmt::Display)) it is a few lines for a log; serialized (serde) it has the names of the fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Statistics {
    /// The most rows that are kept.
    pub capacity: u64,
    /// Rows that can be drawn.
    pub len: u64,
    /// Rows inserted since the buffer was made, in the runs before a state was loaded too.
    pub inserted: u64,
    /// Rows that were inserted and can be drawn no more: `inserted − len`.
    pub overwritten: u64,
    /// Rows drawn, each as often as it was. Starts anew when a state is loaded. It is what [`ages`](Self::ages) counts.
    pub sampled: u64,
    /// Priorities that were dropped because their row had been overwritten. A part of the state that is saved.
    pub stale_priorities: u64,
    /// The age of rows when they were drawn: how many rows had been inserted after them, 0 for the newest one.
    ///
    /// Without [`Builder::count_draws`](crate::Builder::count_draws) it is an estimate without bias: one row of each batch
    /// is looked at, each with the same probability whatever the sampler, and stands for all rows of its batch. After b
    /// batches a share p is known to within about √(p·(1 − p)/b). With that option every row is counted.
    pub ages: Histogram,
    /// Whether [`ages`](Self::ages) counts every row.
    pub ages_exact: bool,
    /// How often rows were drawn; only with [`Builder::count_draws`](crate::Builder::count_draws).
    pub times_sampled: Option<TimesSampled>,
}

/// How often each row was drawn, since it was inserted or loaded. Up to 2³¹ times are counted for a row.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TimesSampled {
    /// Of the rows that can be drawn.
    pub live: Histogram,
    /// Of the rows that were overwritten, since the buffer was made or loaded: how much was made of a row in all its
    /// time. While writers go on, the few rows that are being overwritten may be missing or counted twice.
    pub overwritten: Histogram,
}

/// A histogram in powers of two: counts of the numbers 0, 1, 2, 3 to 4, 5 to 8, 9 to 16 and so on.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Histogram {
    /// Counts by bucket, up to the last that is not 0. Bucket 0 counts 0, and bucket i > 0 the numbers above 2^(i − 2) up to
    /// and including 2^(i − 1); see [`bucket`](Self::bucket).
    pub counts: Vec<u64>,
    /// The sum of all numbers counted; exact up to 2⁵³.
    pub sum: f64,
}

impl Histogram {
    /// The numbers that `counts[position]` counts.
    ///
    /// ```
    /// use rl_replay::Histogram;
    /// let buckets = [0, 1, 2, 3, 4].map(Histogram::bucket);
    /// assert_eq!(buckets, [0..=0, 1..=1, 2..=2, 3..=4, 5..=8]);
    /// ```
    ///
    /// # Panics
    /// When `position` is not below 66, which is above 2⁶⁴.
    pub fn bucket(position: usize) -> RangeInclusive<u64> {
        assert!(position < BUCKETS, "a histogram has {BUCKETS} buckets, and bucket {position} was asked for");
        let last = |position: usize| match position {
            0 => 0,
            65 => u64::MAX,
            _ => 1 << (position - 1),
        };
        match position {
            0 => 0..=0,
            _ => last(position - 1) + 1..=last(position),
        }
    }

    /// How many numbers were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The mean of the numbers counted; `None` when there are none.
    pub fn mean(&self) -> Option<f64> {
        let total = self.total();
        (total > 0).then(|| self.sum / total as f64)
    }

    /// The least bound of a bucket that at least this share (0 to 1) of the numbers do not exceed: the quantile, rounded up
    /// to a power of two. `None` when nothing was counted.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let total = self.total();
        let wanted = ((share * total as f64).ceil() as u64).clamp(1, total.max(1));
        let mut seen = 0;
        let position = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        position.map(|position| *Self::bucket(position).end())
    }

    pub(crate) fn from_buckets(buckets: &[u64; BUCKETS], sum: f64) -> Self {
        let used = buckets.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        Self { counts: buckets[..used].to_vec(), sum }
    }
}

impl fmt::Display for Histogram {
    /// The buckets that are not empty: `0: 12, 1: 5, 3-4: 1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let filled = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        for (number, (position, count)) in filled.enumerate() {
            let (first, last) = Self::bucket(position).into_inner();
            f.write_str(if number == 0 { "" } else { ", " })?;
            match first == last {
                true => write!(f, "{first}: {count}")?,
                false => write!(f, "{first}-{last}: {count}")?,
            }
        }
        if self.total() == 0 { f.write_str("none") } else { Ok(()) }
    }
}

impl fmt::Display for Statistics {
    /// Two lines, one more for ages when something was drawn, and two more for the times that rows were drawn if they are
    /// counted; no newline at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { capacity, len, inserted, overwritten, sampled, stale_priorities, ages, .. } = self;
        writeln!(f, "{len} of {capacity} rows, {inserted} inserted, {overwritten} overwritten")?;
        write!(f, "{sampled} drawn, {stale_priorities} stale priorities dropped")?;
        if let (Some(mean), Some(half), Some(most)) = (ages.mean(), ages.quantile(0.5), ages.quantile(0.9)) {
            let how = if self.ages_exact { "all rows" } else { "one row of each batch" };
            write!(
                f,
                "\nage when drawn ({how}): mean {mean:.1}, half up to {half}, nine in ten up to {most}"
            )?;
        }
        if let Some(TimesSampled { live, overwritten }) = &self.times_sampled {
            write!(
                f,
                "\ntimes drawn, of live rows: {live}\ntimes drawn, of overwritten rows: {overwritten}"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_in_its_bucket() {
        let near = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
        for value in near.chain([u64::MAX - 1, u64::MAX]) {
            assert!(Histogram::bucket(bucket(value)).contains(&value), "{value}");
        }
        for position in 1..BUCKETS {
            assert_eq!(*Histogram::bucket(position).start(), *Histogram::bucket(position - 1).end() + 1);
        }
        assert_eq!(*Histogram::bucket(BUCKETS - 1).end(), u64::MAX);
    }

    #[test]
    fn what_is_printed() {
        let mut buckets = [0; BUCKETS];
        (buckets[0], buckets[1], buckets[4]) = (5, 3, 2);
        let ages = Histogram::from_buckets(&buckets, 15.0);
        assert_eq!(ages.counts, [5, 3, 0, 0, 2]);
        assert_eq!((ages.total(), ages.mean()), (10, Some(1.5)));
        let quantiles = [0.0, 0.5, 0.51, 0.8, 0.81, 1.0].map(|share| ages.quantile(share).unwrap());
        assert_eq!(quantiles, [0, 0, 1, 1, 8, 8]);
        assert_eq!((Histogram::default().quantile(0.5), Histogram::default().mean()), (None, None));
        let mut statistics =
            Statistics { capacity: 9, len: 8, inserted: 12, overwritten: 4, ..Default::default() };
        assert_eq!(
            statistics.to_string(),
            "8 of 9 rows, 12 inserted, 4 overwritten\n0 drawn, 0 stale priorities dropped"
        );
        let times = TimesSampled { live: ages.clone(), overwritten: Histogram::default() };
        (statistics.ages, statistics.sampled, statistics.times_sampled) = (ages, 10, Some(times));
        assert_eq!(
            statistics.to_string().lines().skip(1).collect::<Vec<_>>(),
            [
                "10 drawn, 0 stale priorities dropped",
                "age when drawn (one row of each batch): mean 1.5, half up to 0, nine in ten up to 8",
                "times drawn, of live rows: 0: 5, 1: 3, 5-8: 2",
                "times drawn, of overwritten rows: none",
            ]
        );
    }
}
