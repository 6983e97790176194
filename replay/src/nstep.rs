//! n-step returns, folded before rows are stored (Sutton and Barto 2018, §7.1; in deep Q-learning, Hessel et al. 2018,
//! *Rainbow*, equation 3).

use crate::{ReplayError, Writer};
use rl_minibatch::{Dtype, Schema, StateError, StateVisitor, scalar};

/// One step of an environment, as bytes in the element types and shapes of the schema.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The observation that was acted on.
    pub obs: &'a [u8],
    /// The action.
    pub action: &'a [u8],
    /// The reward that followed.
    pub reward: f32,
    /// The observation that followed; at the end of an episode its true last one, not the first of the next episode.
    pub next_obs: &'a [u8],
    /// The episode ended in a terminal state, whose value is 0.
    pub terminated: bool,
    /// The episode was cut short, by a time limit for instance; its last observation still has a value.
    pub truncated: bool,
}

/// Turns the steps of one environment into rows of n-step transitions.
///
/// A row for the step at time t spans k steps, k = n, or fewer where the episode ends sooner:
///
/// ```text
///   reward   = Σ γⁱ·r(t+i), i = 0..k        discount = γᵏ · (1 − terminated)        next_obs = obs(t+k)
/// ```
///
/// so that `reward + discount · V(next_obs)` is the target whatever n is and however the episode ended. A truncated
/// episode bootstraps from its true last observation. At an episode's end the shorter rows of its last steps are
/// emitted as well; nothing reaches from one episode into the next.
///
/// Use one for each environment. Pushing allocates nothing.
#[derive(Clone, Debug)]
pub struct NStep {
    schema: Schema,
    n: usize,
    gamma: f64,
    /// The steps that wait for their n-th successor, the oldest first: fewer than n between pushes.
    open: usize,
    /// Observations, actions and rewards of the open steps, with room for n.
    obs: Vec<u8>,
    actions: Vec<u8>,
    rewards: Vec<f32>,
    /// Scratch: the return of each row that a push emits.
    returns: Vec<f32>,
}

/// Positions in [`Schema::transition`].
const OBS: usize = 0;
const ACTION: usize = 1;
const REWARD: usize = 2;

impl NStep {
    /// Spans of `n` steps discounted by `gamma` a step, for rows of `schema`, which must have the fields of
    /// [`Schema::transition`].
    ///
    /// # Errors
    /// [`ReplayError::Setting`] when n is 0 or γ outside 0..=1, [`ReplayError::NotTransition`].
    pub fn new(n: usize, gamma: f64, schema: &Schema) -> Result<Self, ReplayError> {
        if n == 0 {
            return Err(ReplayError::Setting { name: "n_step", value: 0.0, expected: "at least 1" });
        }
        if !(0.0..=1.0).contains(&gamma) {
            return Err(ReplayError::Setting { name: "gamma", value: gamma, expected: "in 0..=1" });
        }
        check_transition(schema)?;
        let [obs, action] = [OBS, ACTION].map(|position| schema.fields()[position].row_bytes());
        Ok(Self {
            schema: schema.clone(),
            n,
            gamma,
            open: 0,
            obs: vec![0; n * obs],
            actions: vec![0; n * action],
            rewards: vec![0.0; n],
            returns: Vec::with_capacity(n),
        })
    }

    /// Takes one step and writes the rows that it completes: none while the span fills, one when it is full, and at an
    /// episode's end one for each step that is still open. Returns how many.
    ///
    /// # Errors
    /// [`ReplayError::NotTransition`] when the writer is for another schema, [`ReplayError::Bytes`] for a slice of the
    /// wrong size, [`ReplayError::NotFinite`] for a NaN or infinite observation, action or reward, or a return beyond
    /// f32, [`ReplayError::OutOfRange`] for what the buffer's types cannot hold, and those of a rate limiter (see
    /// [`Writer::push`]). Neither the buffer nor the open steps have changed then.
    pub fn push(&mut self, step: Step<'_>, writer: &mut Writer) -> Result<usize, ReplayError> {
        if *writer.schema() != self.schema {
            let why = "the writer's buffer has another schema".to_string();
            return Err(ReplayError::NotTransition { why });
        }
        let ended = step.terminated || step.truncated;
        let reward = step.reward.to_ne_bytes();
        let no_discount = 0f32.to_ne_bytes();
        writer.check(&self.schema, 1, &[step.obs, step.action, &reward, &no_discount, step.next_obs])?;
        self.take(&step);
        // Rows that this step completes: from the oldest open step on, each over all the steps from itself to this one.
        let rows = match (ended, self.open == self.n) {
            (true, _) => self.open,
            (false, true) => 1,
            (false, false) => 0,
        };
        self.returns.clear();
        let rewards = &self.rewards[..self.open];
        self.returns.extend((0..rows).map(|first| discounted(&rewards[first..], self.gamma)));
        if self.returns.iter().any(|value| !value.is_finite()) {
            self.open -= 1;
            let column = self.schema.fields()[REWARD].name.clone();
            return Err(ReplayError::NotFinite { row: 0, column, element: 0 });
        }
        if writer.rounds()
            && let Err(error) = self.check_range(rows, writer)
        {
            self.open -= 1;
            return Err(error);
        }
        let admitted = match writer.admit(rows) {
            Ok(admitted) => admitted,
            Err(error) => {
                self.open -= 1;
                return Err(error);
            }
        };
        for row in 0..rows {
            let span = self.open - row;
            let bootstrap = if step.terminated { 0.0 } else { power(self.gamma, span) };
            let reward = self.returns[row].to_ne_bytes();
            let discount = (bootstrap as f32).to_ne_bytes();
            let (obs, action) = (self.obs_of(row), self.action_of(row));
            // Everything that could be refused has been checked, so either all rows go in or none.
            writer.push_checked(&[obs, action, &reward, &discount, step.next_obs]);
        }
        drop(admitted);
        if ended {
            self.open = 0;
        } else if rows == 1 {
            self.forget_oldest();
        }
        Ok(rows)
    }

    /// Steps that wait for their n-th successor.
    pub fn open_steps(&self) -> usize {
        self.open
    }

    /// Forgets the open steps without writing them, for an environment that is reset in the middle of an episode.
    pub fn clear(&mut self) {
        self.open = 0;
    }

    /// Shows the open steps to `visitor`.
    ///
    /// # Errors
    /// Those of the visitor, and [`StateError::Invalid`] when there are more open steps than n allows.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        if !visitor.loading() {
            // What lies behind the open steps is left from earlier ones, and no part of the state.
            let (obs, action) = (self.obs.len() / self.n, self.actions.len() / self.n);
            self.obs[self.open * obs..].fill(0);
            self.actions[self.open * action..].fill(0);
            self.rewards[self.open..].fill(0.0);
        }
        let mut loaded = self.clone();
        loaded.visit_parts(visitor)?;
        if loaded.open >= loaded.n {
            let why = format!("{} open steps, where n is {}", loaded.open, loaded.n);
            return Err(StateError::Invalid { path: "open".into(), why });
        }
        *self = loaded;
        Ok(())
    }

    fn visit_parts(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let mut open = self.open as u64;
        scalar(visitor, "open", &mut open)?;
        self.open = usize::try_from(open).unwrap_or(usize::MAX);
        let n = self.n;
        let mut array = |position: usize, bytes: &mut [u8]| {
            let field = &self.schema.fields()[position];
            let shape: Vec<usize> = [n].into_iter().chain(field.shape.iter().copied()).collect();
            visitor.array(&field.name, field.dtype, &shape, bytes)
        };
        array(OBS, &mut self.obs)?;
        array(ACTION, &mut self.actions)?;
        array(REWARD, bytemuck::cast_slice_mut(&mut self.rewards))
    }

    fn take(&mut self, step: &Step<'_>) {
        let at = self.open;
        self.obs[at * step.obs.len()..][..step.obs.len()].copy_from_slice(step.obs);
        self.actions[at * step.action.len()..][..step.action.len()].copy_from_slice(step.action);
        self.rewards[at] = step.reward;
        self.open += 1;
    }

    /// Checks that the buffer takes the oldest `rows` open steps and their returns: a return may be larger than every
    /// reward, and steps may have come with another writer or from a state.
    fn check_range(&self, rows: usize, writer: &Writer) -> Result<(), ReplayError> {
        let (obs, action) = (self.obs.len() / self.n, self.actions.len() / self.n);
        writer.check_column(OBS, &self.obs[..rows * obs])?;
        writer.check_column(ACTION, &self.actions[..rows * action])?;
        writer.check_column(REWARD, bytemuck::cast_slice(&self.returns))
    }

    fn forget_oldest(&mut self) {
        // n is small, so moving the rest up is cheaper than keeping a ring here.
        let (obs, action) = (self.obs.len() / self.n, self.actions.len() / self.n);
        self.obs.copy_within(obs.., 0);
        self.actions.copy_within(action.., 0);
        self.rewards.copy_within(1.., 0);
        self.open -= 1;
    }

    fn obs_of(&self, row: usize) -> &[u8] {
        let bytes = self.obs.len() / self.n;
        &self.obs[row * bytes..][..bytes]
    }

    fn action_of(&self, row: usize) -> &[u8] {
        let bytes = self.actions.len() / self.n;
        &self.actions[row * bytes..][..bytes]
    }
}

/// Σ γⁱ rᵢ, in double precision.
pub(crate) fn discounted(rewards: &[f32], gamma: f64) -> f32 {
    rewards.iter().rev().fold(0.0, |sum, reward| f64::from(*reward) + gamma * sum) as f32
}

pub(crate) fn power(gamma: f64, steps: usize) -> f64 {
    gamma.powi(i32::try_from(steps).unwrap_or(i32::MAX))
}

fn check_transition(schema: &Schema) -> Result<(), ReplayError> {
    let refuse = |why: String| Err(ReplayError::NotTransition { why });
    let fields = schema.fields();
    let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
    if names != ["obs", "action", "reward", "discount", "next_obs"] {
        return refuse(format!("these are {names:?}"));
    }
    for field in &fields[REWARD..=REWARD + 1] {
        if field.dtype != Dtype::F32 || field.elements() != 1 {
            return refuse(format!("'{}' is {} {:?} and not one f32", field.name, field.dtype, field.shape));
        }
    }
    let (obs, next_obs) = (&fields[OBS], &fields[4]);
    if (obs.dtype, &obs.shape) != (next_obs.dtype, &next_obs.shape) {
        return refuse("'obs' and 'next_obs' differ".to_string());
    }
    Ok(())
}
