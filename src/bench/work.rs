//! Threads that do one thing again and again during a window, and what they did.

use super::measure::Durations;
use rl_replay::ReplayError;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

/// What threads did during a window.
#[derive(Default)]
pub(super) struct Work {
    pub(super) rows_per_s: f64,
    pub(super) durations: Durations,
}

impl Work {
    fn add(&mut self, other: &Self) {
        self.rows_per_s += other.rows_per_s;
        self.durations.add(&other.durations);
    }
}

/// When a thread begins to work and when it ends.
#[derive(Clone, Copy)]
pub(super) struct Shift<'a> {
    start: &'a Barrier,
    stop: &'a AtomicBool,
}

impl Shift<'_> {
    /// Waits until all threads are ready, then calls `operation`, which handles `rows` rows, until told to stop, and times
    /// one call in `timed`.
    pub(super) fn work(
        self,
        rows: usize,
        timed: u64,
        mut operation: impl FnMut() -> Result<(), ReplayError>,
    ) -> Result<Work, ReplayError> {
        let mut durations = Durations::default();
        let mut calls = 0u64;
        self.start.wait();
        let begin = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            let call = Instant::now();
            operation()?;
            durations.record(call.elapsed());
            for _ in 1..timed {
                operation()?;
            }
            calls += timed;
        }
        let rows_per_s = (calls * rows as u64) as f64 / begin.elapsed().as_secs_f64();
        Ok(Work { rows_per_s, durations })
    }
}

/// Lets `writers` threads insert and `samplers` threads draw for `window`; each closure hears which thread it is, prepares,
/// and works its shift. Returns what was inserted and what was drawn.
pub(super) fn window(
    (writers, samplers): (usize, usize),
    window: Duration,
    insert: impl Fn(usize, Shift<'_>) -> Result<Work, ReplayError> + Sync,
    draw: impl Fn(usize, Shift<'_>) -> Result<Work, ReplayError> + Sync,
) -> Result<(Work, Work), ReplayError> {
    let (start, stop) = (Barrier::new(writers + samplers + 1), AtomicBool::new(false));
    let shift = Shift { start: &start, stop: &stop };
    let (insert, draw) = (&insert, &draw);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..writers).map(|thread| scope.spawn(move || insert(thread, shift))).collect();
        let samplers: Vec<_> = (0..samplers).map(|thread| scope.spawn(move || draw(thread, shift))).collect();
        start.wait();
        std::thread::sleep(window);
        stop.store(true, Ordering::Relaxed);
        Ok((join(writers)?, join(samplers)?))
    })
}

fn join(threads: Vec<ScopedJoinHandle<'_, Result<Work, ReplayError>>>) -> Result<Work, ReplayError> {
    let mut sum = Work::default();
    for thread in threads {
        sum.add(&thread.join().expect("a thread of the bench panicked")?);
    }
    Ok(sum)
}
