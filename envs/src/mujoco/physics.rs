//! A simulation: MuJoCo's model, which all environments of a kind share, and the data of one.

use super::drawing::View;
use crate::EnvError;
use mujoco_rs::logging::set_log_handler;
use mujoco_rs::prelude::{MjData, MjModel, MjtState};
use mujoco_rs::wrappers::mj_logging::{MjLogMessage, MjtLogLevel};
use mujoco_rs::wrappers::mj_model::MjtObjBase;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The variable that names the folder of the models.
const ASSETS: &str = "RL_TRAIN_MUJOCO_ASSETS";

/// What a step starts from: everything that it depends on, the solver's warm start among it.
const STATE: u32 = MjtState::mjSTATE_INTEGRATION as u32;

/// The models in use. One that no environment uses any more is forgotten.
static MODELS: Mutex<Vec<(PathBuf, Weak<MjModel>)>> = Mutex::new(Vec::new());

/// What an environment has to do with its model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Requirements {
    /// The environment, for messages.
    pub(super) id: &'static str,
    /// The model's file.
    pub(super) file: &'static str,
    /// How many positions, velocities, bodies (the world's included) and actuators the environment reckons with.
    pub(super) sizes: [usize; 4],
    /// Names of the bodies that it asks for by number.
    pub(super) bodies: &'static [&'static str],
}

/// The model's file: in the folder that the environment variable names, or where `make setup-mujoco` put it.
fn path_of(requirements: &Requirements) -> Result<PathBuf, EnvError> {
    let named = std::env::var_os(ASSETS).filter(|folder| !folder.is_empty());
    let folder = named.map(PathBuf::from).or(option_env!("RL_ENVS_MUJOCO_ASSETS").map(PathBuf::from));
    let path = folder.unwrap_or_default().join(requirements.file);
    if path.is_file() {
        return Ok(path);
    }
    Err(unavailable(
        requirements,
        format!(
            "its model is not at {}; `make setup-mujoco` brings it, or set {ASSETS} to the folder that has {}",
            path.display(),
            requirements.file
        ),
    ))
}

fn unavailable(requirements: &Requirements, why: String) -> EnvError {
    EnvError::Unavailable { env: requirements.id.to_string(), why }
}

/// The model at `path`, read once for all environments that use it at a time.
fn shared_model(requirements: &Requirements) -> Result<Arc<MjModel>, EnvError> {
    let path = path_of(requirements)?;
    let mut models = MODELS.lock().unwrap_or_else(PoisonError::into_inner);
    models.retain(|(_, model)| model.strong_count() > 0);
    let known = models.iter().find(|(other, _)| *other == path);
    if let Some(model) = known.and_then(|(_, model)| model.upgrade()) {
        return Ok(model);
    }
    quiet();
    let refused = |e| unavailable(requirements, format!("MuJoCo does not take {}: {e}", path.display()));
    let model = Arc::new(MjModel::from_xml(&path).map_err(refused)?);
    check(&model, requirements, &path)?;
    models.push((path, Arc::downgrade(&model)));
    Ok(model)
}

/// That the model is the one that the environment is made for: what it reads is there.
fn check(model: &MjModel, requirements: &Requirements, path: &std::path::Path) -> Result<(), EnvError> {
    let found = [model.ffi().nq, model.ffi().nv, model.ffi().nbody, model.ffi().nu].map(|n| n as usize);
    if found == requirements.sizes {
        return Ok(());
    }
    Err(unavailable(
        requirements,
        format!(
            "{} has {found:?} positions, velocities, bodies and actuators where {:?} are needed; `make setup-mujoco` \
             brings the right one",
            path.display(),
            requirements.sizes
        ),
    ))
}

/// Keeps MuJoCo from writing its warnings to the console and to a file MUJOCO_LOG.TXT in the working folder; reading the half cheetah's
/// model would, each time. Called with MODELS locked, before the first model is read.
fn quiet() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    fn tell(message: &MjLogMessage) {
        // After an error MuJoCo ends the process, which should not happen without a word.
        if message.level() == MjtLogLevel::mjLOG_ERROR {
            eprintln!("error: MuJoCo: {}", message.subject());
        }
    }
    // SAFETY: nothing else may use MuJoCo meanwhile. No data exists before the first model does, and models are only read with
    // the lock that is held here; a program that uses MuJoCo by itself as well makes its first environment before that.
    ONCE.call_once(|| unsafe { set_log_handler(tell) });
}

/// A simulation and what an environment may see of it. Lengths are in m, angles in rad, all else in SI units.
///
/// Positions of bodies, forces and the like are those that the last step computed on its way, as Gymnasium reads them: they are of the
/// beginning of its last substep, while positions and velocities are of its end.
pub struct Physics {
    data: MjData<Arc<MjModel>>,
    /// Numbers of the bodies asked for by name.
    bodies: Vec<usize>,
}

impl Physics {
    /// The model at its first state.
    pub(super) fn new(requirements: &Requirements) -> Result<Self, EnvError> {
        let model = shared_model(requirements)?;
        let body = |name: &&str| {
            model
                .name_to_id(MjtObjBase::mjOBJ_BODY, name)
                .ok_or_else(|| unavailable(requirements, format!("its model has no body '{name}'")))
        };
        let bodies = requirements.bodies.iter().map(body).collect::<Result<_, _>>()?;
        let data = MjData::try_new(model).map_err(|e| unavailable(requirements, e.to_string()))?;
        Ok(Self { data, bodies })
    }

    /// Everything back to the model's first state.
    pub(super) fn restart(&mut self) {
        self.data.reset();
    }

    /// Positions and velocities, to be changed; then call [`settle`](Physics::settle).
    pub(super) fn start_mut(&mut self, change: impl FnOnce(&mut [f64], &mut [f64])) {
        // One after the other, for both are borrowed from the same data; a few dozen numbers at a reset.
        let mut qvel = [0.0; 64];
        let qvel = &mut qvel[..self.data.qvel().len()];
        qvel.copy_from_slice(self.data.qvel());
        change(self.data.qpos_mut(), qvel);
        self.data.qvel_mut().copy_from_slice(qvel);
    }

    /// Computes what follows from positions and velocities, without moving on.
    pub(super) fn settle(&mut self) {
        self.data.forward();
    }

    /// Sets the controls and takes `substeps`; with the external forces on bodies if they are asked for.
    #[inline]
    pub(super) fn advance(&mut self, action: &[f32], substeps: usize, contact_forces: bool) {
        self.data.ctrl_mut().iter_mut().zip(action).for_each(|(ctrl, value)| *ctrl = f64::from(*value));
        (0..substeps).for_each(|_| self.data.step());
        if contact_forces {
            self.data.rne_post_constraint();
        }
    }

    /// Seconds a substep.
    pub(super) fn timestep(&self) -> f64 {
        self.data.model().ffi().opt.timestep
    }

    /// The state as numbers.
    pub(super) fn state(&self) -> Vec<f64> {
        self.data.state(STATE).into_vec()
    }

    /// Goes back to a state, if it has as many numbers as one of this model.
    pub(super) fn set_state(&mut self, state: &[f64]) -> Result<(), String> {
        let needed = self.data.model().state_size(STATE);
        if state.len() != needed {
            return Err(format!("{} numbers of a simulation where {needed} are needed", state.len()));
        }
        self.data.set_state(state, STATE).map_err(|e| e.to_string())
    }

    /// The same simulation with all positions computed anew, for a drawing of the state as it is now.
    pub(super) fn copy(&self) -> Option<MjData<Arc<MjModel>>> {
        let mut copy = MjData::try_new(self.data.model_clone()).ok()?;
        copy.set_state(&self.state(), STATE).ok()?;
        copy.kinematics();
        Some(copy)
    }

    /// A drawing of it.
    pub(super) fn scene(&self, view: &View) -> Option<crate::Scene> {
        Some(super::drawing::scene(&self.copy()?, view))
    }

    /// Positions of the joints.
    pub(crate) fn qpos(&self) -> &[f64] {
        self.data.qpos()
    }

    /// Velocities of the joints.
    pub(crate) fn qvel(&self) -> &[f64] {
        self.data.qvel()
    }

    /// Where the body is that `Rules::BODIES` names at `index`.
    pub(crate) fn position(&self, index: usize) -> &[f64; 3] {
        &self.data.xpos()[self.bodies[index]]
    }

    /// Where the model's only marked point is.
    pub(crate) fn tip(&self) -> [f64; 3] {
        self.data.site_xpos()[0]
    }

    /// Forces of contacts, limits and the like on the joints.
    pub(crate) fn qfrc_constraint(&self) -> &[f64] {
        self.data.qfrc_constraint()
    }

    /// Forces of the actuators on the joints.
    pub(crate) fn qfrc_actuator(&self) -> &[f64] {
        self.data.qfrc_actuator()
    }

    /// External torques and forces on each body, the world first.
    pub(crate) fn contact_forces(&self) -> &[[f64; 6]] {
        self.data.cfrc_ext()
    }

    /// Inertia and mass of each body about the centre of mass of its tree.
    pub(crate) fn inertias(&self) -> &[[f64; 10]] {
        self.data.cinert()
    }

    /// Velocity of each body about the same.
    pub(crate) fn velocities(&self) -> &[[f64; 6]] {
        self.data.cvel()
    }

    /// Mass of each body.
    pub(crate) fn masses(&self) -> &[f64] {
        self.data.model().body_mass()
    }

    /// Centre of mass of each body.
    pub(crate) fn centers(&self) -> &[[f64; 3]] {
        self.data.xipos()
    }
}
