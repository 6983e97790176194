//! Threads that are handed a piece of work each, over and over.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// What a worker does.
pub(crate) trait Job: Send + 'static {
    /// Does it. Must not panic; if it does nevertheless, the worker lives on and the job comes back as it was left.
    fn run(&mut self);
}

/// How long a thread that waits looks again and again before it sleeps: longer than a step of cheap environments takes,
/// so that between two of them nobody has to be woken.
const SPIN: Duration = Duration::from_micros(50);
/// Looks between two at the clock.
const LOOKS: u32 = 64;

/// The worker may take the job.
const GIVEN: u32 = 1;
/// The caller may take it back.
const FINISHED: u32 = 2;
/// The worker is to end.
const QUIT: u32 = 3;

/// Threads, each with one place for a job.
///
/// A job is moved to the worker, which owns it while it runs, and moved back. The state of a place says whose turn it is;
/// who writes it (Release) has put the job there before, and who reads it (Acquire) finds it there. The lock is only what
/// makes that safe code: never do two threads want it at once. Nothing is allocated after the start.
pub(crate) struct Workers<J: Job> {
    workers: Vec<Worker<J>>,
    spin: Duration,
}

struct Worker<J> {
    place: Arc<Place<J>>,
    thread: Option<JoinHandle<()>>,
}

struct Place<J> {
    state: AtomicU32,
    /// The job, and the thread to wake when it is finished.
    job: Mutex<Option<(J, Thread)>>,
}

impl<J> Place<J> {
    fn job(&self) -> MutexGuard<'_, Option<(J, Thread)>> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J: Job> Workers<J> {
    /// `count` threads that wait. Those that were started are ended again when the system gives no more.
    pub(crate) fn start(count: usize) -> std::io::Result<Self> {
        // With more threads than cores, who spins keeps another from the work that is waited for.
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let spin = if count < cores { SPIN } else { Duration::ZERO };
        let mut workers = Self { workers: Vec::with_capacity(count), spin };
        for index in 0..count {
            let place = Arc::new(Place { state: AtomicU32::new(FINISHED), job: Mutex::new(None) });
            let thread = thread::Builder::new().name(format!("envs-{}", index + 1)).spawn({
                let place = Arc::clone(&place);
                move || work(&place, spin)
            })?;
            workers.workers.push(Worker { place, thread: Some(thread) });
        }
        Ok(workers)
    }

    /// Lets worker `index`, which has no job, begin with `job`.
    pub(crate) fn give(&self, index: usize, job: J) {
        let Worker { place, thread } = &self.workers[index];
        *place.job() = Some((job, thread::current()));
        place.state.store(GIVEN, Release);
        if let Some(thread) = thread {
            thread.thread().unpark();
        }
    }

    /// Waits for worker `index` and takes back the job that it was [given](Workers::give).
    pub(crate) fn take(&self, index: usize) -> J {
        let place = &self.workers[index].place;
        wait(|| place.state.load(Acquire) == FINISHED, self.spin);
        place.job().take().expect("a worker puts back what it was given").0
    }
}

impl<J: Job> Drop for Workers<J> {
    fn drop(&mut self) {
        for Worker { place, thread } in &mut self.workers {
            if let Some(thread) = thread.take() {
                // Nobody has a job now, or it runs to its end first.
                wait(|| place.state.load(Acquire) == FINISHED, Duration::ZERO);
                place.state.store(QUIT, Release);
                thread.thread().unpark();
                // It catches all panics.
                let _ = thread.join();
            }
        }
    }
}

fn work<J: Job>(place: &Place<J>, spin: Duration) {
    loop {
        wait(|| matches!(place.state.load(Acquire), GIVEN | QUIT), spin);
        if place.state.load(Acquire) == QUIT {
            return;
        }
        let Some((mut job, caller)) = place.job().take() else { return };
        let _ = catch_unwind(AssertUnwindSafe(|| job.run()));
        *place.job() = Some((job, caller.clone()));
        place.state.store(FINISHED, Release);
        caller.unpark();
    }
}

/// Returns when `ready` says so: looks at it for the time of `spin`, lets other threads go first now and then, and at last
/// sleeps until somebody unparks this thread.
fn wait(ready: impl Fn() -> bool, spin: Duration) {
    let begin = (!spin.is_zero()).then(Instant::now);
    while begin.is_some_and(|begin| begin.elapsed() < spin) {
        for _ in 0..LOOKS {
            if ready() {
                return;
            }
            std::hint::spin_loop();
        }
        // On a busy machine the thread that is waited for may be next on this very core.
        thread::yield_now();
    }
    // An unpark before the park makes it return at once, so that none is missed; one for something else does no harm.
    while !ready() {
        thread::park();
    }
}
