//! What measurements are made of: durations and their quantiles, the median of repeats, memory in use, and how fast
//! this machine copies memory right now.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// A histogram of durations, each power of two of nanoseconds in 32 parts: quantiles to 3 %, in constant memory.
#[derive(Clone)]
pub(super) struct Durations {
    counts: Vec<u64>,
}

/// Parts of a power of two.
const PARTS: u64 = 32;

impl Default for Durations {
    fn default() -> Self {
        Self { counts: vec![0; 64 * PARTS as usize] }
    }
}

impl Durations {
    pub(super) fn record(&mut self, duration: Duration) {
        // From 32 ns on the five bits after the leading one choose the part; below, each nanosecond has its own.
        let ns = (duration.as_nanos() as u64).max(1);
        let shift = ns.ilog2().saturating_sub(PARTS.ilog2());
        self.counts[(u64::from(shift) * PARTS + (ns >> shift)) as usize] += 1;
    }

    /// Takes in what another thread recorded.
    pub(super) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// The duration that the share `quantile` of all was no longer than, in microseconds; 0 if there were none.
    pub(super) fn quantile_us(&self, quantile: f64) -> f64 {
        let wanted = (quantile * self.counts.iter().sum::<u64>() as f64).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                // The inverse of `record`: indices from 2·PARTS on are shifted.
                let shift = (index as u64 / PARTS).saturating_sub(1);
                return ((index as u64 - shift * PARTS) << shift) as f64 / 1e3;
            }
        }
        0.0
    }
}

/// Measures how fast one thread copies memory that no cache holds.
pub(super) struct Copier {
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Copier {
    pub(super) fn new() -> Self {
        let bytes = 128 << 20;
        Self { from: vec![1; bytes], to: vec![0; bytes] }
    }

    /// Copies 128 MiB once.
    pub(super) fn gb_per_s(&mut self) -> f64 {
        let begin = Instant::now();
        self.to.copy_from_slice(black_box(&self.from));
        black_box(&self.to);
        self.from.len() as f64 / begin.elapsed().as_secs_f64() / 1e9
    }
}

/// The value in the middle, by `rank`; of two, the larger.
///
/// # Panics
/// When there is none.
pub(super) fn median_by<T>(mut values: Vec<T>, rank: impl Fn(&T) -> f64) -> T {
    values.sort_by(|a, b| rank(a).total_cmp(&rank(b)));
    let middle = values.len() / 2;
    values.swap_remove(middle)
}

/// Bytes of this process that are in memory; `None` where the system does not tell.
pub(super) fn resident_bytes() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Bytes that processes can still take without swapping; `None` where the system does not tell.
pub(super) fn available_bytes() -> Option<usize> {
    let memory = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_close() {
        let mut durations = Durations::default();
        for ns in 1..=10_000 {
            durations.record(Duration::from_nanos(ns));
        }
        assert!((durations.quantile_us(0.5) / 5.0 - 1.0).abs() < 0.04);
        assert!((durations.quantile_us(0.99) / 9.9 - 1.0).abs() < 0.04);
        let mut few = Durations::default();
        few.record(Duration::from_nanos(7));
        assert_eq!(few.quantile_us(0.5), 0.007);
    }
}
