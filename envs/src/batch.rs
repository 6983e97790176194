//! The loop over environments of one type.

use crate::{Action, Actions, Env, EnvError, ObsMut, Outcome, Scene};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Environments of one type, which need not be known to who steps them.
///
/// For a `Vec` of a concrete type the whole step is compiled into one loop, without a virtual call an environment, which
/// is a good part of the time that a cheap environment takes.
pub(crate) trait Batch: Send {
    /// How many there are.
    fn len(&self) -> usize;

    /// Number `index` of them.
    fn env(&self, index: usize) -> &dyn Env;

    /// Number `index` of them, to be changed.
    fn env_mut(&mut self, index: usize) -> &mut dyn Env;

    /// Steps each once and resets those whose episode ended with it. All are stepped, also after one that fails, so that
    /// the states do not depend on how environments are shared out. Returns the first failure.
    fn step(&mut self, actions: Actions<'_>, memory: Memory<'_>) -> Option<Failure>;

    /// Resets each from its seed. Returns the first failure.
    fn reset(&mut self, seeds: &mut dyn Iterator<Item = u64>, obs: ObsMut<'_>) -> Option<Failure>;

    /// Begins a new episode in each environment that could not go on with what it [loaded](Env::load) last, writes its first
    /// observation to its row of `obs`, and says so in `restarted`, which comes with nothing but false. Returns the first
    /// failure. Most can always go on.
    fn restart(&mut self, _obs: ObsMut<'_>, _restarted: &mut [bool]) -> Option<Failure> {
        None
    }

    /// Whether the last step of number `index` was none, but only began its next episode.
    fn skipped(&self, _index: usize) -> bool {
        false
    }

    /// A drawing of number `index`.
    fn draw(&self, index: usize) -> Result<Scene, EnvError> {
        self.env(index).draw()
    }

    /// Whether it can be cut into pieces for threads.
    fn splits(&self) -> bool {
        true
    }

    /// Cuts off the environments from `index` on.
    fn split_off(&mut self, index: usize) -> Box<dyn Batch>;

    /// These and then `later`, which were cut off from the same batch.
    fn join(self: Box<Self>, later: Box<dyn Batch>) -> Box<dyn Batch>;

    /// For [`join`](Batch::join).
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

/// Where a step is written, one row or item an environment.
pub(crate) struct Memory<'a> {
    /// What to act on next.
    pub(crate) obs: ObsMut<'a>,
    /// The last observations of episodes that ended; other rows are left as they are.
    pub(crate) ended: ObsMut<'a>,
    pub(crate) outcomes: &'a mut [Outcome],
}

/// Which environment failed, and how.
pub(crate) struct Failure {
    pub(crate) index: usize,
    pub(crate) error: EnvError,
}

/// An element type of observations.
trait Element: Copy {
    fn memory(row: &mut [Self]) -> ObsMut<'_>;
}

impl Element for f32 {
    #[inline]
    fn memory(row: &mut [f32]) -> ObsMut<'_> {
        ObsMut::F32(row)
    }
}

impl Element for u8 {
    #[inline]
    fn memory(row: &mut [u8]) -> ObsMut<'_> {
        ObsMut::U8(row)
    }
}

impl<E: Env + 'static> Batch for Vec<E> {
    fn len(&self) -> usize {
        self.len()
    }

    fn env(&self, index: usize) -> &dyn Env {
        &self[index]
    }

    fn env_mut(&mut self, index: usize) -> &mut dyn Env {
        &mut self[index]
    }

    fn step(&mut self, actions: Actions<'_>, memory: Memory<'_>) -> Option<Failure> {
        let outcomes = memory.outcomes;
        match (memory.obs, memory.ended) {
            (ObsMut::F32(obs), ObsMut::F32(ended)) => step(self, actions, obs, ended, outcomes),
            (ObsMut::U8(obs), ObsMut::U8(ended)) => step(self, actions, obs, ended, outcomes),
            _ => unreachable!("both blocks were made with the dtype of one spec"),
        }
    }

    fn reset(&mut self, seeds: &mut dyn Iterator<Item = u64>, obs: ObsMut<'_>) -> Option<Failure> {
        match obs {
            ObsMut::F32(obs) => reset(self, seeds, obs),
            ObsMut::U8(obs) => reset(self, seeds, obs),
        }
    }

    fn split_off(&mut self, index: usize) -> Box<dyn Batch> {
        Box::new(Vec::split_off(self, index))
    }

    fn join(mut self: Box<Self>, later: Box<dyn Batch>) -> Box<dyn Batch> {
        let later = later.into_any().downcast::<Self>().expect("both are of one batch");
        self.extend(*later);
        self
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[inline]
fn step<E: Env, T: Element>(
    envs: &mut [E],
    actions: Actions<'_>,
    obs: &mut [T],
    ended: &mut [T],
    outcomes: &mut [Outcome],
) -> Option<Failure> {
    let elements = obs.len() / envs.len();
    // One loop a kind of action, so that nothing is asked of each that holds for all.
    match actions {
        Actions::Discrete(actions) => each(envs, obs, |index, env, obs| {
            // Those that are negative or too large were refused before.
            let outcome = env.step(Action::Discrete(actions[index] as usize), T::memory(obs))?;
            outcomes[index] = outcome;
            if outcome.ended() {
                ended[index * elements..][..elements].copy_from_slice(obs);
                env.reset(None, T::memory(obs))?;
            }
            Ok(())
        }),
        Actions::Box(_) | Actions::MultiBinary(_) => {
            let width = actions.len() / envs.len();
            each(envs, obs, |index, env, obs| {
                let range = index * width..(index + 1) * width;
                let action = match actions {
                    Actions::Box(values) => Action::Box(&values[range]),
                    Actions::MultiBinary(switches) => Action::MultiBinary(&switches[range]),
                    Actions::Discrete(_) => unreachable!("matched above"),
                };
                let outcome = env.step(action, T::memory(obs))?;
                outcomes[index] = outcome;
                if outcome.ended() {
                    ended[index * elements..][..elements].copy_from_slice(obs);
                    env.reset(None, T::memory(obs))?;
                }
                Ok(())
            })
        }
    }
}

fn reset<E: Env, T: Element>(
    envs: &mut [E],
    seeds: &mut dyn Iterator<Item = u64>,
    obs: &mut [T],
) -> Option<Failure> {
    each(envs, obs, |_, env, obs| env.reset(seeds.next(), T::memory(obs)))
}

/// Does something to every environment and its row of `obs`; what fails or panics does not keep the others from it.
#[inline]
fn each<E: Env, T>(
    envs: &mut [E],
    obs: &mut [T],
    mut work: impl FnMut(usize, &mut E, &mut [T]) -> Result<(), EnvError>,
) -> Option<Failure> {
    let (mut next, mut failure) = (0, None);
    let elements = obs.len() / envs.len();
    while next < envs.len() {
        // Once a run and not once an environment. What a panic leaves half changed is an environment that is not used again.
        let run = catch_unwind(AssertUnwindSafe(|| {
            while let Some(env) = envs.get_mut(next) {
                let row = &mut obs[next * elements..][..elements];
                next += 1;
                work(next - 1, env, row)?;
            }
            Ok(())
        }));
        let error = match run {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error,
            Err(panic) => EnvError::Panicked { env: envs[next - 1].spec().id.clone(), message: said(panic) },
        };
        failure.get_or_insert(Failure { index: next - 1, error });
    }
    failure
}

/// The first line of a panic's message.
#[cold]
fn said(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it does not say why");
    let line = text.lines().next().unwrap_or_default().to_string();
    // A payload of the environment's own type may panic once more when it is dropped.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
    line
}
