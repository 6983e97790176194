//! What the ten environments have in common: [`Mujoco`], and what a file of one has to say.

use super::kinds::Kind;
use super::physics::{Physics, Requirements};
use crate::episode::{Episode, decode, encode};
use crate::{Action, Env, EnvError, EnvSpec, ObsMut, Outcome, Scene};

pub(super) use super::drawing::View;

/// To what several environments clip velocities.
pub(super) const MAX_SPEED: f64 = 10.0;

/// What sets one environment apart from the others. Not for implementing outside of this crate.
pub trait Rules: Clone + Default + Send + 'static {
    /// Id, spaces and limits.
    const KIND: Kind;
    /// Substeps a step.
    const FRAME_SKIP: usize;
    /// How many positions, velocities and bodies the model has, the world included.
    const SIZES: [usize; 3];
    /// Whether external forces on bodies are read; computing them takes time.
    const CONTACT_FORCES: bool = false;
    /// The bodies that are read by their place in this list.
    const BODIES: &'static [&'static str] = &[];
    /// From where it is drawn.
    const VIEW: View;

    /// Changes the model's first positions and velocities to those of an episode.
    fn start(&self, draws: &mut Draws<'_>, qpos: &mut [f64], qvel: &mut [f64]);

    /// The number whose change over time is the velocity that [`judge`](Rules::judge) gets.
    fn place(&self, _: &Physics) -> f64 {
        0.0
    }

    /// Writes the observation.
    fn observe(&self, physics: &Physics, obs: &mut Writer<'_>);

    /// The reward of the step that led here, and whether the episode terminates.
    fn judge(&self, physics: &Physics, velocity: f64, action: &[f32]) -> (f64, bool);
}

/// One of the ten environments: `Mujoco<HalfCheetah>`, for example.
///
/// Observations are of f32, the learners' type, where Gymnasium's are of f64: everything is computed in f64 and rounded once, when it is
/// written. Actions are not clipped here, as in Gymnasium; the actuators of the models clip them, and a control cost is of what was given.
///
/// All environments of a kind share one model. A step allocates nothing.
pub struct Mujoco<T: Rules> {
    spec: EnvSpec,
    episode: Episode,
    task: T,
    physics: Physics,
    /// Seconds a step.
    dt: f64,
    /// [`Rules::place`] after the last step or reset. Kept, and not computed before a step, because what it is computed from lags
    /// behind the state by a substep and is no part of a saved one.
    place: f64,
}

impl<T: Task> Mujoco<T> {
    /// Its Gymnasium id.
    pub const ID: &str = T::KIND.id;

    /// An environment with Gymnasium's default settings, that waits for its first reset. Without a time limit of its own:
    /// [`make`](crate::make) adds that.
    ///
    /// # Errors
    /// [`EnvError::Unavailable`] when the model is not found or is not the one needed.
    pub fn new() -> Result<Self, EnvError> {
        Self::with(T::default())
    }

    /// The same with settings of one's own.
    ///
    /// ```no_run
    /// use rl_envs::mujoco::{HalfCheetah, Mujoco};
    ///
    /// let cheap = Mujoco::with(HalfCheetah { ctrl_cost_weight: 0.05, ..HalfCheetah::default() })?;
    /// # Ok::<(), rl_envs::EnvError>(())
    /// ```
    ///
    /// # Errors
    /// [`EnvError::Unavailable`] when the model is not found or is not the one needed.
    pub fn with(task: T) -> Result<Self, EnvError> {
        let [nq, nv, nbody] = T::SIZES;
        let requirements = Requirements {
            id: T::KIND.id,
            file: T::KIND.model,
            sizes: [nq, nv, nbody, T::KIND.actuators],
            bodies: T::BODIES,
        };
        let physics = Physics::new(&requirements)?;
        let dt = physics.timestep() * T::FRAME_SKIP as f64;
        Ok(Self { spec: Self::spec(), episode: Episode::new(), task, physics, dt, place: 0.0 })
    }

    /// What is known of it.
    pub fn spec() -> EnvSpec {
        T::KIND.spec()
    }

    /// Its settings.
    pub fn task(&self) -> &T {
        &self.task
    }

    /// Positions and velocities of the joints, in f64: MuJoCo's `qpos` and `qvel`.
    pub fn state(&self) -> (&[f64], &[f64]) {
        (self.physics.qpos(), self.physics.qvel())
    }

    /// Begins an episode with these positions and velocities, as a reset with them would.
    ///
    /// # Errors
    /// [`EnvError::State`] unless they are finite and as many as the model has.
    pub fn set_state(&mut self, qpos: &[f64], qvel: &[f64]) -> Result<(), EnvError> {
        let [nq, nv, _] = T::SIZES;
        if (qpos.len(), qvel.len()) != (nq, nv) || qpos.iter().chain(qvel).any(|value| !value.is_finite()) {
            return Err(EnvError::State {
                env: self.spec.id.clone(),
                got: format!("{qpos:?}, {qvel:?}"),
                expected: format!("{nq} and {nv} finite numbers"),
            });
        }
        self.episode.begin(None);
        self.begin(|_, _, positions, velocities| {
            positions.copy_from_slice(qpos);
            velocities.copy_from_slice(qvel);
        });
        Ok(())
    }

    /// Starts the simulation anew from what `start` makes of the model's first state.
    fn begin(&mut self, start: impl FnOnce(&T, &mut Draws<'_>, &mut [f64], &mut [f64])) {
        self.physics.restart();
        let (task, mut draws) = (&self.task, Draws(&mut self.episode));
        self.physics.start_mut(|qpos, qvel| start(task, &mut draws, qpos, qvel));
        self.physics.settle();
        self.place = self.task.place(&self.physics);
    }
}

impl<T: Task> Env for Mujoco<T> {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        let obs = obs.f32(&self.spec)?;
        self.episode.begin(seed);
        self.begin(|task, draws, qpos, qvel| task.start(draws, qpos, qvel));
        self.task.observe(&self.physics, &mut Writer::new(obs));
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        self.episode.check(&self.spec)?;
        let action = action.values(&self.spec)?;
        let obs = obs.f32(&self.spec)?;

        let before = self.place;
        self.physics.advance(action, T::FRAME_SKIP, T::CONTACT_FORCES);
        self.place = self.task.place(&self.physics);
        let velocity = (self.place - before) / self.dt;

        self.task.observe(&self.physics, &mut Writer::new(obs));
        let (reward, terminated) = self.task.judge(&self.physics, velocity, action);
        self.episode.advance(terminated);
        Ok(Outcome { reward, terminated, truncated: false })
    }

    fn save(&self) -> Vec<u8> {
        encode(&self.spec, &(&self.episode, self.place, self.physics.state()))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        let (episode, place, state): (Episode, f64, Vec<f64>) = decode(&self.spec, bytes)?;
        self.physics.set_state(&state).map_err(|why| EnvError::Saved {
            env: self.spec.id.clone(),
            len: bytes.len(),
            why,
        })?;
        (self.episode, self.place) = (episode, place);
        Ok(())
    }

    fn scene(&self) -> Option<Scene> {
        self.physics.scene(&T::VIEW)
    }
}

/// One of the ten. Nothing else can be: what an environment has to say is not public.
pub trait Task: Rules {}

impl<T: Rules> Task for T {}

/// An observation that is being written, from front to back.
pub struct Writer<'a> {
    rest: std::slice::IterMut<'a, f32>,
}

impl<'a> Writer<'a> {
    fn new(obs: &'a mut [f32]) -> Self {
        Self { rest: obs.iter_mut() }
    }

    /// The next values.
    #[inline]
    pub(super) fn put(&mut self, values: &[f64]) {
        self.put_with(values, |value| value);
    }

    /// The next values, kept within ±`bound`.
    pub(super) fn put_clipped(&mut self, values: &[f64], bound: f64) {
        self.put_with(values, |value| value.clamp(-bound, bound));
    }

    /// The next values, each changed.
    #[inline]
    pub(super) fn put_with(&mut self, values: &[f64], change: impl Fn(f64) -> f64) {
        debug_assert!(values.len() <= self.rest.len(), "more numbers than the space has");
        // The values first: a zip that ends on its first side has taken nothing from the second.
        values.iter().zip(&mut self.rest).for_each(|(value, out)| *out = change(*value) as f32);
    }
}

/// Random numbers for the start of an episode.
pub struct Draws<'a>(&'a mut Episode);

impl Draws<'_> {
    /// One number of [low, high).
    pub(super) fn uniform(&mut self, low: f64, high: f64) -> f64 {
        self.0.uniform(low, high)
    }

    /// Adds uniform noise within ±`scale`.
    pub(super) fn add_uniform(&mut self, scale: f64, values: &mut [f64]) {
        values.iter_mut().for_each(|value| *value += self.0.uniform(-scale, scale));
    }

    /// Adds normal noise of deviation `scale`.
    pub(super) fn add_normal(&mut self, scale: f64, values: &mut [f64]) {
        values.iter_mut().for_each(|value| *value += scale * self.0.normal());
    }
}

/// Whether `value` lies between the bounds, which are out.
pub(super) fn inside(value: f64, [low, high]: [f64; 2]) -> bool {
    low < value && value < high
}
