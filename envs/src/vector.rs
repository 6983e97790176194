//! Several environments of one kind, stepped together.

use crate::batch::{Batch, Failure, Memory};
use crate::episode::{decode, encode};
use crate::rows::{Rows, SavedRows};
use crate::workers::{Job, Workers};
use crate::{Actions, Env, EnvError, EnvSpec, Obs, Outcome, Scene, Space, registry};
use rand::{Rng, SeedableRng};
use rand_xoshiro::SplitMix64;

/// `E` environments of one spec, stepped together, that start their next episode by themselves.
///
/// When a step ends an episode, that environment is reset within the same step (Gymnasium calls it SAME_STEP). Two
/// observations are then of interest, and both are kept until the next step: [`obs`](VecEnv::obs) is what to act on, the
/// first observation of the new episode; [`next_obs`](VecEnv::next_obs) is what the step led to, the last observation of
/// the old one, and what belongs into the transition. No action is ever ignored and no transition is to be dropped.
///
/// # Threads
/// Environments are stepped on the caller's thread, which is best for cheap ones: a step of CartPole takes less time than
/// waking a thread. [`with_threads`](VecEnv::with_threads) shares them out to threads for good, each as many as the others
/// or one more; the caller's thread has a share, too. Every environment writes its observation where it belongs in the one
/// block that [`obs`](VecEnv::obs) shows. What comes out is bit for bit the same with any number of threads.
///
/// # Errors and panics
/// What goes wrong in one environment is an [`EnvError::At`] with its position; a panic in it is
/// [`EnvError::Panicked`] inside of one. The others have then finished their step. Every further step gives the same error,
/// until a reset succeeds, or, after a panic, for good: nobody knows what state a panic leaves. The threads end when
/// this is dropped.
///
/// # Cost
/// A step allocates nothing. Environments made by [`make`](VecEnv::make) from an id of this crate, or given in a `Vec` of their own
/// type, are stepped by one compiled loop; those given as `Box<dyn Env>` cost a virtual call each. A thread is handed its
/// share and hands it back, which took some 7 µs a step on a busy machine of two cores: threads pay when a step of all
/// environments takes several times as long. A thread that has nothing to do looks for work for 50 µs and then
/// sleeps, and waking it takes longer.
pub struct VecEnv {
    /// Shares of the environments, in order. `None` only within a step, for those that a worker has.
    parts: Vec<Option<Box<Part>>>,
    /// One for each part but the first.
    workers: Option<Workers<Box<Part>>>,
    len: usize,
    spec: EnvSpec,
    obs_elements: usize,
    action_elements: usize,
    /// `[E, O]`: what to act on.
    obs: Rows,
    /// `[E, O]`: the last observation of the episode that ended with the last step; stale in rows where none did.
    ended: Rows,
    outcomes: Vec<Outcome>,
    /// Why it must not be stepped.
    failure: Option<EnvError>,
    /// Those that could not go on with what was loaded last.
    restarted: Vec<bool>,
}

/// The environments of one thread.
struct Part {
    /// Position of its first environment.
    first: usize,
    envs: Box<dyn Batch>,
    task: Task,
    failure: Option<Failure>,
    /// What a worker needs to have for itself while it works: its pieces of the batch, its actions, its outcomes.
    obs: Rows,
    ended: Rows,
    actions: Kept,
    outcomes: Vec<Outcome>,
}

#[derive(Clone, Copy)]
enum Task {
    Step,
    Reset { seed: u64 },
}

/// A copy of some environments' actions. Of the kinds only one is ever used.
enum Kept {
    Discrete(Vec<i64>),
    Box(Vec<f32>),
    MultiBinary(Vec<bool>),
}

impl Kept {
    /// Room for `count` values of actions of `space`.
    fn new(space: &Space, count: usize) -> Self {
        match space {
            Space::Discrete { .. } => Kept::Discrete(vec![0; count]),
            Space::Box { .. } => Kept::Box(vec![0.0; count]),
            Space::MultiBinary { .. } => Kept::MultiBinary(vec![false; count]),
        }
    }

    /// Keeps `actions` from value `first` on, as many as there is room for.
    fn keep(&mut self, actions: Actions<'_>, first: usize) {
        fn copy<T: Copy>(kept: &mut [T], from: &[T]) {
            kept.copy_from_slice(&from[..kept.len()]);
        }
        match (self, actions) {
            (Kept::Discrete(kept), Actions::Discrete(from)) => copy(kept, &from[first..]),
            (Kept::Box(kept), Actions::Box(from)) => copy(kept, &from[first..]),
            (Kept::MultiBinary(kept), Actions::MultiBinary(from)) => copy(kept, &from[first..]),
            _ => unreachable!("actions are checked before they are shared out"),
        }
    }

    fn actions(&self) -> Actions<'_> {
        match self {
            Kept::Discrete(actions) => Actions::Discrete(actions),
            Kept::Box(values) => Actions::Box(values),
            Kept::MultiBinary(switches) => Actions::MultiBinary(switches),
        }
    }
}

impl Job for Box<Part> {
    fn run(&mut self) {
        let Part { first, envs, task, failure, obs, ended, outcomes, actions } = &mut **self;
        let outcomes = &mut outcomes[..];
        *failure = match *task {
            Task::Step => {
                let memory = Memory { obs: obs.view_mut(), ended: ended.view_mut(), outcomes };
                envs.step(actions.actions(), memory)
            }
            Task::Reset { seed } => {
                outcomes.fill(Outcome::default());
                envs.reset(&mut env_seeds(seed).skip(*first), obs.view_mut())
            }
        };
    }
}

impl std::fmt::Debug for VecEnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let threads = self.threads();
        f.debug_struct("VecEnv")
            .field("spec", &self.spec)
            .field("len", &self.len)
            .field("threads", &threads)
            .finish_non_exhaustive()
    }
}

/// One seed an environment, without end, from the one `seed` of the whole: the outputs of SplitMix64 started at it.
///
/// Environment i gets the same one however many there are.
pub fn env_seeds(seed: u64) -> impl Iterator<Item = u64> {
    let mut generator = SplitMix64::seed_from_u64(seed);
    std::iter::repeat_with(move || generator.next_u64())
}

impl VecEnv {
    /// `n` environments called `id`, each with the time limit of its spec. They wait for [`reset`](VecEnv::reset).
    ///
    /// # Errors
    /// [`EnvError::Unknown`] when none has that id, [`EnvError::NoEnvs`] when `n` is 0.
    pub fn make(id: &str, n: usize) -> Result<Self, EnvError> {
        Self::of(registry::make_batch(id, n)?)
    }

    /// These environments, to be [reset](VecEnv::reset) before they are stepped: the observations of those that are under way
    /// are not known here. Of one type, as in `vec![CartPole::new(), …]`, they are stepped without virtual calls; boxed ones
    /// may be of several types.
    ///
    /// # Errors
    /// [`EnvError::NoEnvs`] when there is none, [`EnvError::Mixed`] when their specs differ.
    pub fn new<E: Env + 'static>(envs: Vec<E>) -> Result<Self, EnvError> {
        Self::of(Box::new(envs))
    }

    pub(crate) fn of(envs: Box<dyn Batch>) -> Result<Self, EnvError> {
        let len = envs.len();
        if len == 0 {
            return Err(EnvError::NoEnvs);
        }
        let spec = envs.env(0).spec().clone();
        if let Some(index) = (1..len).find(|index| *envs.env(*index).spec() != spec) {
            return Err(EnvError::Mixed { first: spec.id, index, other: envs.env(index).spec().id.clone() });
        }
        let (dtype, obs_elements) = (spec.observation.dtype(), spec.observation.elements());
        Ok(Self {
            parts: vec![Some(Box::new(Part::new(0, envs)))],
            workers: None,
            len,
            obs_elements,
            action_elements: spec.action.elements(),
            obs: Rows::new(dtype, len * obs_elements),
            ended: Rows::new(dtype, len * obs_elements),
            outcomes: vec![Outcome::default(); len],
            failure: None,
            restarted: vec![false; len],
            spec,
        })
    }

    /// The same environments, stepped on `threads` threads, the caller's one of them; 0 means as many as the machine has
    /// cores. More than there are environments are not started, and none for environments that are stepped by one call into
    /// Python. States, observations and what is saved are the same as without.
    ///
    /// # Errors
    /// [`EnvError::Threads`] when the system gives none; the environments are gone then.
    pub fn with_threads(mut self, threads: usize) -> Result<Self, EnvError> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { cores() } else { threads }.min(self.len);
        // Joined again from the last one on, whatever they were shared out to before.
        self.workers = None;
        let mut rest: Option<Box<dyn Batch>> = None;
        for part in self.parts.drain(..).flatten().rev() {
            rest = Some(match rest {
                None => part.envs,
                Some(later) => part.envs.join(later),
            });
        }
        let mut rest = rest.expect("there is always a part");
        let threads = if rest.splits() { threads } else { 1 };
        for index in (1..threads).rev() {
            let first = self.len * index / threads;
            self.parts.push(Some(Box::new(Part::new(first, rest.split_off(first)))));
        }
        self.parts.push(Some(Box::new(Part::new(0, rest))));
        self.parts.reverse();
        if threads > 1 {
            let refused = |e: std::io::Error| EnvError::Threads { threads, why: e.to_string() };
            self.workers = Some(Workers::start(threads - 1).map_err(refused)?);
        }
        Ok(self)
    }

    /// What all of them are.
    pub fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    /// How many there are: `E`.
    #[expect(clippy::len_without_is_empty, reason = "there is always at least one")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Threads that step them, the caller's included.
    pub fn threads(&self) -> usize {
        self.parts.len()
    }

    /// Elements of one observation: `O`.
    pub fn obs_elements(&self) -> usize {
        self.obs_elements
    }

    /// Values of one action: `A`, which is 1 for discrete actions.
    pub fn action_elements(&self) -> usize {
        self.action_elements
    }

    /// Starts an episode in every environment, environment i from seed number i of [`env_seeds`]. The outcomes become those
    /// of no step.
    ///
    /// # Errors
    /// [`EnvError::At`] with what an environment says; the others have been reset.
    pub fn reset(&mut self, seed: u64) -> Result<(), EnvError> {
        if let Some(error) = &self.failure
            && panicked(error)
        {
            return Err(error.clone());
        }
        self.failure = None;
        self.round(Task::Reset { seed }, Actions::Discrete(&[]))
    }

    /// Steps every environment once, and resets those whose episode ended with it, from their own generators.
    ///
    /// # Errors
    /// [`EnvError::Batch`] when the actions are not one an environment; [`EnvError::At`] with what an environment says, that
    /// of the first if there are several. Actions are looked at before any of them is carried out, so that after an
    /// [`EnvError::Action`] nothing has moved; after another error see [above](VecEnv#errors-and-panics).
    pub fn step(&mut self, actions: Actions<'_>) -> Result<(), EnvError> {
        if let Some(error) = &self.failure {
            return Err(error.clone());
        }
        actions.check(self.len, self.action_elements, &self.spec)?;
        self.round(Task::Step, actions)
    }

    /// Has every part do `task`, each on its thread, and gathers what comes of it.
    fn round(&mut self, task: Task, actions: Actions<'_>) -> Result<(), EnvError> {
        let width = self.action_elements;
        if let Some(workers) = &self.workers {
            for (worker, slot) in self.parts[1..].iter_mut().enumerate().rev() {
                let mut part = slot.take().expect("every part is here between steps");
                part.task = task;
                part.obs = self.obs.split_off(part.first * self.obs_elements);
                part.ended = self.ended.split_off(part.first * self.obs_elements);
                if let Task::Step = task {
                    part.actions.keep(actions, part.first * width);
                }
                workers.give(worker, part);
            }
        }
        // Nothing in here panics, so that what was given away is always taken back.
        let own = self.parts[0].as_mut().expect("the caller keeps its own part");
        let outcomes = &mut self.outcomes[..own.envs.len()];
        let failure = match task {
            Task::Step => {
                let actions = actions.first(own.envs.len() * width);
                let (obs, ended) = (self.obs.view_mut(), self.ended.view_mut());
                own.envs.step(actions, Memory { obs, ended, outcomes })
            }
            Task::Reset { seed } => {
                outcomes.fill(Outcome::default());
                own.envs.reset(&mut env_seeds(seed), self.obs.view_mut())
            }
        };
        let mut failure = failure.map(|failure| at(failure.index, failure.error));
        if let Some(workers) = &self.workers {
            for (worker, slot) in self.parts[1..].iter_mut().enumerate() {
                let part = slot.insert(workers.take(worker));
                let dtype = self.spec.observation.dtype();
                self.obs.unsplit(std::mem::replace(&mut part.obs, Rows::empty(dtype)));
                self.ended.unsplit(std::mem::replace(&mut part.ended, Rows::empty(dtype)));
                self.outcomes[part.first..][..part.outcomes.len()].copy_from_slice(&part.outcomes);
                if let Some(Failure { index, error }) = part.failure.take() {
                    failure.get_or_insert(at(part.first + index, error));
                }
            }
        }
        self.failure = failure.clone();
        failure.map_or(Ok(()), Err)
    }

    /// What to act on next, `[E, O]` row-major: the observation of the last step, or the first one of the next episode
    /// where the last step ended one. Zeros before the first reset.
    ///
    /// # Panics
    /// When observations are bytes; [`observations`](VecEnv::observations) serves both types.
    pub fn obs(&self) -> &[f32] {
        self.f32(self.observations())
    }

    /// What the last step of environment `env` led to, `[O]`: at an episode's end its true last observation, otherwise the
    /// same as its row of [`obs`](VecEnv::obs). Kept until the next step.
    ///
    /// # Panics
    /// When there is no environment `env`, or observations are bytes; [`next_observation`](VecEnv::next_observation) serves
    /// both types.
    pub fn next_obs(&self, env: usize) -> &[f32] {
        self.f32(self.next_observation(env))
    }

    /// The last observation, `[O]`, of the episode that environment `env` ended with the last step; `None` when that step
    /// ended none.
    ///
    /// # Panics
    /// As [`next_obs`](VecEnv::next_obs).
    pub fn final_obs(&self, env: usize) -> Option<&[f32]> {
        self.outcomes[env].ended().then(|| self.next_obs(env))
    }

    /// [`obs`](VecEnv::obs) in either element type.
    pub fn observations(&self) -> Obs<'_> {
        self.obs.view()
    }

    /// [`next_obs`](VecEnv::next_obs) in either element type.
    ///
    /// # Panics
    /// When there is no environment `env`.
    pub fn next_observation(&self, env: usize) -> Obs<'_> {
        let rows = if self.outcomes[env].ended() { &self.ended } else { &self.obs };
        rows.row(env, self.obs_elements)
    }

    /// What the last step brought, one an environment. All zero and false after a reset.
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// Whether the last step of environment `env` was none: it ignored its action and began the next episode, as some of Python's vector
    /// environments do (Gymnasium calls it NEXT_STEP). Its outcome is that of no step, [`obs`](VecEnv::obs) has the first
    /// observation of the new episode, and no transition leads there: none may be stored. Environments of this crate never do that.
    ///
    /// # Panics
    /// When there is no environment `env`.
    pub fn skipped(&self, env: usize) -> bool {
        let part = self.part(env);
        part.envs.skipped(env - part.first)
    }

    /// Which environments could not go on with the episode that was [loaded](VecEnv::load) last and have begun a new one: those of Python
    /// that cannot be saved. [`obs`](VecEnv::obs) has the first observation of that, and no transition leads to it from what was seen of the
    /// old episode.
    pub fn restarted(&self) -> &[bool] {
        &self.restarted
    }

    /// A drawing of environment `index`.
    ///
    /// # Errors
    /// [`EnvError::NoDrawing`] when it has none; of a Python environment what it says.
    ///
    /// # Panics
    /// When there is no environment `index`.
    pub fn draw(&self, index: usize) -> Result<Scene, EnvError> {
        let part = self.part(index);
        part.envs.draw(index - part.first)
    }

    /// Environment `index`, to look at it.
    ///
    /// # Panics
    /// When there is none.
    pub fn env(&self, index: usize) -> &dyn Env {
        let part = self.part(index);
        part.envs.env(index - part.first)
    }

    /// The part that environment `index` is in.
    fn part(&self, index: usize) -> &Part {
        assert!(index < self.len, "there are {} environments; number {index} was asked for", self.len);
        self.parts().take_while(|part| part.first <= index).last().expect("the first part starts at 0")
    }

    fn env_mut(&mut self, index: usize) -> &mut dyn Env {
        let part = self.parts.iter_mut().flatten().take_while(|part| part.first <= index).last();
        let part = part.expect("the first part starts at 0");
        part.envs.env_mut(index - part.first)
    }

    fn parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().flatten().map(|part| &**part)
    }

    /// The whole state as bytes: that of every environment, and the observations and outcomes of the last step, so that
    /// what is [loaded](VecEnv::load) from it goes on exactly. The number of threads is no part of it.
    pub fn save(&self) -> Vec<u8> {
        let envs: Vec<Vec<u8>> = (0..self.len).map(|index| self.env(index).save()).collect();
        let rows = |rows: &Rows| SavedRows::from(rows.view());
        encode(&self.spec, &(envs, rows(&self.obs), rows(&self.ended), &self.outcomes))
    }

    /// Goes back to a saved state. What failed before may then be stepped again, unless it panicked. Python's environments
    /// cannot all go back; [`restarted`](VecEnv::restarted) says which.
    ///
    /// # Errors
    /// [`EnvError::Saved`] when the bytes are not from [`save`](VecEnv::save) of as many environments of the same kind; if
    /// those of one environment are refused, [`EnvError::At`]. Nothing has changed then.
    pub fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        let (saved, obs, ended, outcomes): (Vec<Vec<u8>>, SavedRows, SavedRows, Vec<Outcome>) =
            decode(&self.spec, bytes)?;
        let fits = obs.fits(self.obs.view()) && ended.fits(self.ended.view());
        if saved.len() != self.len || outcomes.len() != self.len || !fits {
            let why = format!(
                "they are of {} environments with {} observation values, and not of {} with {}",
                saved.len(),
                obs.len(),
                self.len,
                self.obs.len()
            );
            return Err(EnvError::Saved { env: self.spec.id.clone(), len: bytes.len(), why });
        }
        let before: Vec<Vec<u8>> = (0..self.len).map(|index| self.env(index).save()).collect();
        for (index, bytes) in saved.iter().enumerate() {
            if let Err(error) = self.env_mut(index).load(bytes) {
                for (index, before) in before.iter().enumerate().take(index) {
                    self.env_mut(index).load(before)?;
                }
                return Err(at(index, error));
            }
        }
        obs.copy_to(self.obs.view_mut());
        ended.copy_to(self.ended.view_mut());
        self.outcomes = outcomes;
        self.failure = self.failure.take().filter(panicked);
        self.restart()
    }

    /// Begins a new episode where the loaded one cannot be gone on with.
    fn restart(&mut self) -> Result<(), EnvError> {
        self.restarted.fill(false);
        for part in self.parts.iter_mut().flatten() {
            let mut obs = self.obs.split_off(part.first * self.obs_elements);
            let rest = obs.split_off(part.envs.len() * self.obs_elements);
            let restarted = &mut self.restarted[part.first..][..part.envs.len()];
            let failure = part.envs.restart(obs.view_mut(), restarted);
            obs.unsplit(rest);
            self.obs.unsplit(obs);
            if let Some(Failure { index, error }) = failure {
                self.failure = Some(at(part.first + index, error));
            }
        }
        for (outcome, _) in self.outcomes.iter_mut().zip(&self.restarted).filter(|(_, restarted)| **restarted)
        {
            *outcome = Outcome::default();
        }
        self.failure.clone().filter(|error| !panicked(error)).map_or(Ok(()), Err)
    }

    fn f32<'a>(&self, obs: Obs<'a>) -> &'a [f32] {
        match obs {
            Obs::F32(values) => values,
            Obs::U8(_) => panic!("observations of {} are bytes; read them with observations()", self.spec.id),
        }
    }
}

impl Part {
    fn new(first: usize, envs: Box<dyn Batch>) -> Self {
        let EnvSpec { observation, action, .. } = envs.env(0).spec();
        let dtype = observation.dtype();
        Self {
            first,
            task: Task::Step,
            failure: None,
            obs: Rows::empty(dtype),
            ended: Rows::empty(dtype),
            actions: Kept::new(action, envs.len() * action.elements()),
            outcomes: vec![Outcome::default(); envs.len()],
            envs,
        }
    }
}

#[cold]
fn at(index: usize, error: EnvError) -> EnvError {
    EnvError::At { index, source: Box::new(error) }
}

fn panicked(error: &EnvError) -> bool {
    matches!(error, EnvError::At { source, .. } if matches!(**source, EnvError::Panicked { .. }))
}
