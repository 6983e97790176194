//! What an episode was made of.

use rand::{Rng as _, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rl_envs::{Action, EnvSpec, Space};
use serde::{Deserialize, Serialize};

/// The generator of episodes' seeds, and seed and actions of the episode under way: what makes it anew.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    generator: Xoshiro256PlusPlus,
    phase: Phase,
    seed: i32,
    steps: u64,
    actions: Actions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// Never reset.
    New,
    /// Between a reset and the episode's end.
    Running,
    /// After a terminal step.
    Over,
}

/// Actions one after the other; those of boxes have as many values each as the space has elements.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Actions {
    Discrete(Vec<u32>),
    Box(Vec<f32>),
}

/// An episode that is to begin.
pub(crate) struct Start {
    /// What the environment is reset with.
    pub seed: i32,
    generator: Xoshiro256PlusPlus,
}

impl Record {
    /// Of an environment that was never reset.
    pub fn new(actions: &Space) -> Self {
        let actions = match actions {
            Space::Discrete { .. } => Actions::Discrete(Vec::new()),
            _ => Actions::Box(Vec::new()),
        };
        Self { generator: rand::make_rng(), phase: Phase::New, seed: 0, steps: 0, actions }
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The seed of the episode under way.
    pub fn seed(&self) -> i32 {
        self.seed
    }

    /// Steps taken in it.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// How the next episode begins. Changes nothing.
    pub fn start(&self, seed: Option<u64>) -> Start {
        let mut generator = seed.map_or_else(|| self.generator.clone(), Xoshiro256PlusPlus::seed_from_u64);
        let drawn = (generator.next_u64() >> 33) as i32;
        // A seed that is one of theirs is taken as it is, for who knows it from there.
        let given = seed.and_then(|seed| i32::try_from(seed).ok());
        Start { seed: given.unwrap_or(drawn), generator }
    }

    /// Notes that the episode has begun.
    pub fn begin(&mut self, start: Start) {
        (self.generator, self.seed) = (start.generator, start.seed);
        (self.phase, self.steps) = (Phase::Running, 0);
        match &mut self.actions {
            Actions::Discrete(all) => all.clear(),
            Actions::Box(all) => all.clear(),
        }
    }

    /// Notes a step with `action`, which the space allows.
    pub fn advance(&mut self, action: Action<'_>, ended: bool) {
        self.steps += 1;
        match (&mut self.actions, action) {
            (Actions::Discrete(all), Action::Discrete(action)) => all.push(action as u32),
            (Actions::Box(all), Action::Box(values)) => all.extend_from_slice(values),
            _ => unreachable!("the action is of the space that this record was made for"),
        }
        if ended {
            self.phase = Phase::Over;
        }
    }

    /// The action of each step.
    pub fn actions(&self) -> impl Iterator<Item = Action<'_>> {
        (0..self.steps as usize).map(|step| match &self.actions {
            Actions::Discrete(all) => Action::Discrete(all[step] as usize),
            Actions::Box(all) => {
                let elements = all.len() / self.steps as usize;
                Action::Box(&all[step * elements..][..elements])
            }
        })
    }

    /// Whether an environment of `spec` can have made it.
    pub fn fits(&self, spec: &EnvSpec) -> bool {
        let values = match (&self.actions, &spec.action) {
            (Actions::Discrete(all), Space::Discrete { .. }) => all.len(),
            (Actions::Box(all), Space::Box { .. }) => all.len(),
            _ => return false,
        };
        let phase = match self.phase {
            Phase::New => self.steps == 0,
            Phase::Running => true,
            Phase::Over => self.steps > 0,
        };
        phase
            && self.steps.checked_mul(spec.action.elements() as u64) == Some(values as u64)
            && self.actions().all(|action| action.check(spec).is_ok())
    }
}
