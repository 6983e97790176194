//! The environments that [`make`] knows by name: those of this crate, and those that a program [registers](register).

#[cfg(feature = "box2d")]
use crate::LunarLander;
use crate::batch::Batch;
use crate::lunar_lander::Control;
use crate::minatar::{ActionSet, Asterix, Breakout, Freeway, MinAtar, Seaquest, SpaceInvaders};
use crate::mujoco;
use crate::{
    Acrobot, CartPole, Env, EnvError, EnvSpec, MountainCar, MountainCarContinuous, Pendulum, TimeLimit,
};
use std::sync::{PoisonError, RwLock};

/// An environment's name and how to get at it.
struct Entry {
    id: &'static str,
    /// The feature of this crate that brings it; `None` for those that are always there.
    feature: Option<&'static str>,
    /// Known without the feature, too.
    spec: fn() -> EnvSpec,
    /// `None` when its feature is off.
    build: Option<Build>,
}

/// How one environment or several are made, time limit included.
#[derive(Clone, Copy)]
struct Build {
    one: fn() -> Result<Box<dyn Env>, EnvError>,
    many: fn(usize) -> Result<Box<dyn Batch>, EnvError>,
}

/// The entry of a type that has `ID`, `spec()` and `new()`; of one behind a feature, with the feature's name.
macro_rules! native {
    ($env:ty) => {
        Entry {
            id: <$env>::ID,
            feature: None,
            spec: <$env>::spec,
            build: Some(Build { one: || Ok(one(<$env>::new())), many: |n| Ok(many(n, <$env>::new)) }),
        }
    };
}

/// The entry of a game of MinAtar with one of its sets of actions.
macro_rules! minatar {
    ($game:ty, $set:ident) => {
        Entry {
            id: MinAtar::<$game>::id(ActionSet::$set),
            feature: None,
            spec: || MinAtar::<$game>::spec(ActionSet::$set),
            build: Some(Build {
                one: || Ok(one(MinAtar::<$game>::new(ActionSet::$set))),
                many: |n| Ok(many(n, || MinAtar::<$game>::new(ActionSet::$set))),
            }),
        }
    };
}

/// The entry of one of MuJoCo's environments.
macro_rules! mujoco {
    ($kind:ident, $task:ident) => {
        Entry {
            id: mujoco::kinds::$kind.id,
            feature: Some("mujoco"),
            spec: || mujoco::kinds::$kind.spec(),
            #[cfg(feature = "mujoco")]
            build: Some(Build {
                one: || mujoco::Mujoco::<mujoco::$task>::new().map(one),
                many: |n| try_many(n, mujoco::Mujoco::<mujoco::$task>::new),
            }),
            #[cfg(not(feature = "mujoco"))]
            build: None,
        }
    };
}

/// The entry of the lunar lander with one of its controls.
macro_rules! lunar_lander {
    ($control:ident, $new:ident) => {
        Entry {
            id: Control::$control.id(),
            feature: Some("box2d"),
            spec: || Control::$control.spec(),
            #[cfg(feature = "box2d")]
            build: Some(Build {
                one: || Ok(one(LunarLander::$new())),
                many: |n| Ok(many(n, LunarLander::$new)),
            }),
            #[cfg(not(feature = "box2d"))]
            build: None,
        }
    };
}

/// One line an environment, in the order in which they are listed.
const ENTRIES: &[Entry] = &[
    native!(CartPole),
    native!(MountainCar),
    native!(MountainCarContinuous),
    native!(Acrobot),
    native!(Pendulum),
    lunar_lander!(Discrete, new),
    lunar_lander!(Continuous, continuous),
    minatar!(Asterix, Full),
    minatar!(Asterix, Minimal),
    minatar!(Breakout, Full),
    minatar!(Breakout, Minimal),
    minatar!(Freeway, Full),
    minatar!(Freeway, Minimal),
    minatar!(Seaquest, Full),
    minatar!(Seaquest, Minimal),
    minatar!(SpaceInvaders, Full),
    minatar!(SpaceInvaders, Minimal),
    mujoco!(HOPPER, Hopper),
    mujoco!(HALF_CHEETAH, HalfCheetah),
    mujoco!(WALKER2D, Walker2d),
    mujoco!(ANT, Ant),
    mujoco!(HUMANOID, Humanoid),
    mujoco!(SWIMMER, Swimmer),
    mujoco!(REACHER, Reacher),
    mujoco!(PUSHER, Pusher),
    mujoco!(INVERTED_PENDULUM, InvertedPendulum),
    mujoco!(INVERTED_DOUBLE_PENDULUM, InvertedDoublePendulum),
];

fn one<E: Env + 'static>(env: E) -> Box<dyn Env> {
    match env.spec().max_episode_steps {
        Some(limit) => Box::new(TimeLimit::new(env, limit)),
        None => Box::new(env),
    }
}

fn many<E: Env + 'static>(n: usize, new: impl Fn() -> E) -> Box<dyn Batch> {
    batch((0..n).map(|_| new()).collect())
}

/// The same of environments that may lack something on this machine.
#[cfg(feature = "mujoco")]
fn try_many<E: Env + 'static>(
    n: usize,
    new: impl Fn() -> Result<E, EnvError>,
) -> Result<Box<dyn Batch>, EnvError> {
    Ok(batch((0..n).map(|_| new()).collect::<Result<_, _>>()?))
}

fn batch<E: Env + 'static>(envs: Vec<E>) -> Box<dyn Batch> {
    match envs.first().and_then(|env| env.spec().max_episode_steps) {
        Some(limit) => Box::new(envs.into_iter().map(|env| TimeLimit::new(env, limit)).collect::<Vec<_>>()),
        None => Box::new(envs),
    }
}

/// An environment of the program's own.
struct Registered {
    spec: EnvSpec,
    new: fn() -> Box<dyn Env>,
}

/// Of the whole process, in the order in which they came.
static REGISTERED: RwLock<Vec<Registered>> = RwLock::new(Vec::new());

/// Makes an environment of your own known to [`make`] and all that makes environments by id, in this process and for good.
///
/// `id` must be the id in the environment's own spec, and nobody else's; Gymnasium's custom is `Namespace/Name-v0`. `new` is
/// called once here, to learn the spec, and then for every environment that is made. If the spec has a time limit,
/// [`make`] applies it.
///
/// ```
/// # use rl_envs::{CartPole, Env, EnvError, EnvSpec, ObsMut, Action, Outcome, Scene};
/// # struct Pole(CartPole, EnvSpec);
/// # impl Pole { fn new() -> Self { Pole(CartPole::new(), EnvSpec { id: "Mine/Pole-v0".into(), ..CartPole::spec() }) } }
/// # impl Env for Pole {
/// #     fn spec(&self) -> &EnvSpec { &self.1 }
/// #     fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> { self.0.reset(seed, obs) }
/// #     fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> { self.0.step(action, obs) }
/// #     fn save(&self) -> Vec<u8> { self.0.save() }
/// #     fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> { self.0.load(bytes) }
/// #     fn scene(&self) -> Option<Scene> { self.0.scene() }
/// # }
/// rl_envs::register("Mine/Pole-v0", || Box::new(Pole::new()))?;
/// let envs = rl_envs::VecEnv::make("Mine/Pole-v0", 8)?;
/// # assert_eq!(envs.len(), 8);
/// # Ok::<(), EnvError>(())
/// ```
///
/// # Errors
/// [`EnvError::Taken`] when there is an environment with this id, [`EnvError::Named`] when its spec has another one.
pub fn register(id: &str, new: fn() -> Box<dyn Env>) -> Result<(), EnvError> {
    // Before the lock, for what a constructor does nobody knows; it may even make other environments.
    let spec = new().spec().clone();
    if spec.id != id {
        return Err(EnvError::Named { id: id.to_string(), spec: spec.id });
    }
    let mut registered = REGISTERED.write().unwrap_or_else(PoisonError::into_inner);
    if ENTRIES.iter().any(|entry| entry.id == id) || registered.iter().any(|other| other.spec.id == id) {
        return Err(EnvError::Taken { id: id.to_string() });
    }
    registered.push(Registered { spec, new });
    Ok(())
}

fn registered(id: &str) -> Option<fn() -> Box<dyn Env>> {
    let registered = REGISTERED.read().unwrap_or_else(PoisonError::into_inner);
    registered.iter().find(|env| env.spec.id == id).map(|env| env.new)
}

fn build(entry: &Entry) -> Result<Build, EnvError> {
    let feature = entry.feature.unwrap_or_default().to_string();
    entry.build.ok_or_else(|| EnvError::NotBuilt { env: entry.id.to_string(), feature })
}

/// The environment called `id`, with a [`TimeLimit`] around it if its spec has one. It waits for its first reset.
///
/// Ids that begin with `gym:`, `gym-vec:` or `atari:` are Python's, and need the feature `python`; `docs/environments.md`
/// says what stands after it.
///
/// # Errors
/// [`EnvError::Unknown`] when none has that id; it names the nearest one. [`EnvError::NotBuilt`] when it needs a feature
/// that is off, [`EnvError::Unavailable`] when something is missing on this machine, [`EnvError::Python`] with what Python says.
pub fn make(id: &str) -> Result<Box<dyn Env>, EnvError> {
    if let Some(entry) = ENTRIES.iter().find(|entry| entry.id == id) {
        return (build(entry)?.one)();
    }
    if let Some(result) = bridged(id, |id| python_env(id, false)) {
        return result;
    }
    registered(id).map(|new| one(new())).ok_or_else(|| unknown(id))
}

/// The environment called `id`, as [`make`] gives it, ready to be [drawn](Env::draw). Those of this crate always are; Python's
/// get the render mode that gives pictures, unless the id asks for another.
///
/// # Errors
/// Those of [`make`].
pub fn make_drawn(id: &str) -> Result<Box<dyn Env>, EnvError> {
    bridged(id, |id| python_env(id, true)).unwrap_or_else(|| make(id))
}

/// Whether environments of Python's can be made: the feature `python` is on.
pub const PYTHON: bool = cfg!(feature = "python");

/// What stands before the colon of ids of Python's environments.
const BRIDGES: [&str; 3] = ["gym", "gym-vec", "atari"];

/// What `make` makes of `id`, if it is one of Python's.
fn bridged<T>(id: &str, make: impl FnOnce(&str) -> Result<T, EnvError>) -> Option<Result<T, EnvError>> {
    let (scheme, _) = id.split_once(':')?;
    BRIDGES.contains(&scheme).then(|| make(id))
}

#[cfg(feature = "python")]
fn python_env(id: &str, draw: bool) -> Result<Box<dyn Env>, EnvError> {
    crate::python::make(id, draw)
}

#[cfg(feature = "python")]
fn python_batch(id: &str, n: usize) -> Result<Box<dyn Batch>, EnvError> {
    crate::python::make_batch(id, n)
}

#[cfg(not(feature = "python"))]
fn python_env(id: &str, _draw: bool) -> Result<Box<dyn Env>, EnvError> {
    Err(EnvError::NotBuilt { env: id.to_string(), feature: "python".to_string() })
}

#[cfg(not(feature = "python"))]
fn python_batch(id: &str, _n: usize) -> Result<Box<dyn Batch>, EnvError> {
    Err(EnvError::NotBuilt { env: id.to_string(), feature: "python".to_string() })
}

/// `n` environments called `id`, as [`make`] gives them.
pub(crate) fn make_batch(id: &str, n: usize) -> Result<Box<dyn Batch>, EnvError> {
    if let Some(entry) = ENTRIES.iter().find(|entry| entry.id == id) {
        return (build(entry)?.many)(n);
    }
    if let Some(result) = bridged(id, |id| python_batch(id, n)) {
        return result;
    }
    registered(id).map(|new| many(n, new)).ok_or_else(|| unknown(id))
}

/// An environment as a list shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing {
    /// Id, spaces and limits; known also when it is not built in.
    pub spec: EnvSpec,
    /// The feature of this crate that brings it; `None` for those that are always there and for registered ones.
    pub feature: Option<&'static str>,
    /// Whether [`make`] can make it.
    pub built_in: bool,
}

/// Every environment there is: first those of this crate, with those whose feature is off, then the
/// [registered](register) ones.
pub fn listings() -> Vec<Listing> {
    let own = ENTRIES.iter().map(|entry| Listing {
        spec: (entry.spec)(),
        feature: entry.feature,
        built_in: entry.build.is_some(),
    });
    let registered = REGISTERED.read().unwrap_or_else(PoisonError::into_inner);
    let others =
        registered.iter().map(|env| Listing { spec: env.spec.clone(), feature: None, built_in: true });
    own.chain(others).collect()
}

/// The specs of every environment that [`make`] can make.
pub fn specs() -> impl Iterator<Item = EnvSpec> {
    listings().into_iter().filter(|listing| listing.built_in).map(|listing| listing.spec)
}

#[cold]
fn unknown(id: &str) -> EnvError {
    // By spelling alone: 'cartpole' and 'CartPole-v0' are both meant for CartPole-v1.
    let likeness = |known: &str| strsim::jaro_winkler(&known.to_lowercase(), &id.to_lowercase());
    let known: Vec<String> = listings().into_iter().map(|listing| listing.spec.id).collect();
    let nearest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    EnvError::Unknown {
        id: id.to_string(),
        nearest: nearest.cloned().unwrap_or_default(),
        known: known.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_makes_what_it_says() {
        for (entry, spec) in ENTRIES.iter().filter(|entry| entry.build.is_some()).zip(specs()) {
            assert_eq!(entry.id, spec.id);
            assert_eq!(*make(entry.id).unwrap().spec(), spec);
            assert_eq!(*make_batch(entry.id, 2).unwrap().env(1).spec(), spec);
        }
    }

    #[test]
    fn what_is_not_built_in_says_what_brings_it() {
        let entry = Entry { feature: Some("box2d"), build: None, ..native!(CartPole) };
        let error = build(&entry).err().unwrap();
        assert_eq!(error.to_string(), "CartPole-v1 is not in this build; build with --features box2d");
    }

    #[test]
    fn an_unknown_name_gets_the_nearest_known_one() {
        for (id, expected) in [
            ("cartpole", CartPole::ID),
            ("CartPole-v0", CartPole::ID),
            ("pendulum_v1", Pendulum::ID),
            ("MountainCar-v1", MountainCar::ID),
            ("MountainCarContinous-v0", MountainCarContinuous::ID),
            ("akrobot", Acrobot::ID),
        ] {
            let Err(error) = make(id) else { panic!("{id} should be unknown") };
            let EnvError::Unknown { nearest, .. } = &error else { panic!("{error}") };
            assert_eq!(nearest, expected, "for {id}");
            assert!(error.to_string().contains("Acrobot-v1") && !error.to_string().contains('\n'));
        }
    }
}
