//! Ranks as threads of one process: for tests, and for several GPUs without a network.

use crate::reduce::{ReduceError, Reducer};
use crate::shim::panic_text;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tch::{Tensor, no_grad};

/// A rank failed, and with it the group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rank {rank}: {why}")]
pub struct ThreadsError {
    /// The rank that failed first.
    pub rank: usize,
    /// Its error, or what its panic said.
    pub why: String,
}

/// A group of ranks, each on a thread of its own.
///
/// ```
/// use rl_learn::{Reducer, Tensor, Threads};
/// let sums = Threads::run(3, |rank| {
///     let x = Tensor::from_slice(&[rank.rank() as f64, 1.0]);
///     rank.sum(&[x.shallow_clone()])?;
///     Ok::<_, rl_learn::ReduceError>(Vec::<f64>::try_from(x).expect("a vector of f64"))
/// })?;
/// assert_eq!(sums, vec![vec![3.0, 3.0]; 3]);
/// # Ok::<(), rl_learn::ThreadsError>(())
/// ```
#[derive(Debug)]
pub struct Threads;

impl Threads {
    /// Runs `work` once for each of `world` ranks at the same time, and gives what they returned, in the order of the ranks.
    ///
    /// When a rank returns an error or panics, or returns while others wait for it in a sum, every sum of the others ends with a
    /// [`ReduceError`]; so all come to an end, as long as they do nothing else that waits.
    ///
    /// On the CPU any number of ranks may go through the backward pass at the same time. libtorch has one backward thread for each GPU: ranks
    /// that reduce inside their backward pass ([`SyncBatchNorm`](crate::SyncBatchNorm)) need a GPU each.
    ///
    /// # Errors
    /// The first failure.
    ///
    /// # Panics
    /// When `world` is 0.
    pub fn run<T, E>(
        world: usize,
        work: impl Fn(&Rank) -> Result<T, E> + Sync,
    ) -> Result<Vec<T>, ThreadsError>
    where
        T: Send,
        E: Display,
    {
        assert!(world > 0, "a group needs a rank");
        let group = Arc::new(Group {
            world,
            state: Mutex::new(State { given: (0..world).map(|_| None).collect(), ..State::default() }),
            changed: Condvar::new(),
        });
        let results: Vec<Option<T>> = std::thread::scope(|scope| {
            let start = |rank| {
                let (group, work) = (Arc::clone(&group), &work);
                scope.spawn(move || {
                    let handle = Rank { rank, group: Arc::clone(&group) };
                    match catch_unwind(AssertUnwindSafe(|| work(&handle))) {
                        Ok(Ok(value)) => {
                            group.leave(rank, None);
                            Some(value)
                        }
                        Ok(Err(error)) => {
                            group.leave(rank, Some(error.to_string()));
                            None
                        }
                        Err(payload) => {
                            group.leave(rank, Some(format!("panicked: {}", panic_text(&*payload))));
                            None
                        }
                    }
                })
            };
            let threads: Vec<_> = (0..world).map(start).collect();
            threads.into_iter().map(|thread| thread.join().ok().flatten()).collect()
        });
        let failed = group.lock().failed.take();
        match (failed, results.into_iter().collect::<Option<Vec<T>>>()) {
            (None, Some(values)) => Ok(values),
            (Some(first), _) => Err(first),
            (None, None) => Err(ThreadsError { rank: 0, why: "a rank ended without a result".to_string() }),
        }
    }
}

/// One rank of a group of [`Threads`]; clones are the same rank.
#[derive(Clone, Debug)]
pub struct Rank {
    rank: usize,
    group: Arc<Group>,
}

impl Rank {
    /// This rank as a layer or an optimizer keeps it.
    pub fn reducer(&self) -> Arc<dyn Reducer> {
        Arc::new(self.clone())
    }
}

impl Reducer for Rank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.group.world
    }

    fn sum(&self, tensors: &[Tensor]) -> Result<(), ReduceError> {
        no_grad(|| {
            let sums = self.group.meet(self.rank, tensors)?;
            for (tensor, sum) in tensors.iter().zip(&sums) {
                let copied = tensor.detach().f_copy_(sum);
                copied.map_err(|e| ReduceError(format!("libtorch: {e}")))?;
            }
            Ok(())
        })
    }
}

#[derive(Debug)]
struct Group {
    world: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What each rank brought to the meeting that is gathering.
    given: Vec<Option<Vec<Tensor>>>,
    /// The meetings that are over, and the sums of the last.
    meetings: u64,
    sums: Vec<Tensor>,
    /// Ranks whose work has returned.
    left: Vec<usize>,
    failed: Option<ThreadsError>,
}

impl Group {
    /// Nothing panics while the lock is held but libtorch; what it leaves is guarded by `failed`.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for all ranks; the last to come makes the sums for everyone. They are new tensors, so nobody writes into what another reads: the
    /// ranks' own tensors are read only while their owners wait.
    fn meet(&self, rank: usize, tensors: &[Tensor]) -> Result<Vec<Tensor>, ReduceError> {
        let mut state = self.lock();
        let meeting = state.meetings;
        state.given[rank] = Some(tensors.iter().map(Tensor::detach).collect());
        state.stop_if_someone_left();
        if state.failed.is_none() && state.given.iter().all(Option::is_some) {
            match sums(&state.given) {
                Ok(sums) => {
                    state.sums = sums;
                    state.meetings += 1;
                    state.given.fill_with(|| None);
                }
                Err(why) => state.failed = Some(ThreadsError { rank, why }),
            }
            self.changed.notify_all();
        }
        // A meeting that took place counts, whatever happened after it.
        while state.meetings == meeting {
            if let Some(failed) = &state.failed {
                return Err(ReduceError(failed.to_string()));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(state.sums.iter().map(Tensor::shallow_clone).collect())
    }

    fn leave(&self, rank: usize, failure: Option<String>) {
        let mut state = self.lock();
        state.left.push(rank);
        if let Some(why) = failure {
            state.failed.get_or_insert(ThreadsError { rank, why });
        }
        state.stop_if_someone_left();
        self.changed.notify_all();
    }
}

impl State {
    /// A rank that has left comes to no meeting any more, so one that is gathering cannot take place.
    fn stop_if_someone_left(&mut self) {
        if let Some(&rank) = self.left.first()
            && self.given.iter().any(Option::is_some)
        {
            let why = "it has returned, and others wait for it in a sum; all ranks must make the same calls";
            self.failed.get_or_insert(ThreadsError { rank, why: why.to_string() });
        }
    }
}

/// The sums in the order of the ranks, so that they come out the same whoever is last.
fn sums(given: &[Option<Vec<Tensor>>]) -> Result<Vec<Tensor>, String> {
    let lists: Vec<&Vec<Tensor>> = given.iter().flatten().collect();
    let (first, others) = lists.split_first().ok_or("a group needs a rank")?;
    let mut sums: Vec<Tensor> = first.iter().map(Tensor::copy).collect();
    for (i, list) in others.iter().enumerate() {
        let rank = i + 1;
        if list.len() != first.len() {
            let (found, expected) = (list.len(), first.len());
            return Err(format!("rank {rank} came to sum {found} tensors where rank 0 has {expected}"));
        }
        for (k, (sum, tensor)) in sums.iter_mut().zip(list.iter()).enumerate() {
            let (expected, found) = ((sum.kind(), sum.size()), (tensor.kind(), tensor.size()));
            if expected != found {
                return Err(format!(
                    "tensor {k} of rank {rank} is {found:?} and that of rank 0 {expected:?}; all ranks must sum the same shapes"
                ));
            }
            let _ = sum.f_add_(&tensor.to_device(sum.device())).map_err(|e| format!("libtorch: {e}"))?;
        }
    }
    Ok(sums)
}
