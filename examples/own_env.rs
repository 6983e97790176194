//! An environment of one's own, with the whole of rl-train around it:
//!
//!     cargo run --release --example own_env -- train --algo dqn --env Mine/Corridor-v0 --env-steps 10000
//!     cargo run --release --example own_env -- list envs
//!
//! docs/environments.md tells how this becomes a crate outside of this repository.

use rl_train::rl_envs::{self, Action, Env, EnvError, EnvSpec, ObsMut, Outcome, Rgb, Scene, Shape, Space};
use std::process::ExitCode;

fn main() -> ExitCode {
    rl_envs::register("Mine/Corridor-v0", || Box::new(Corridor::new())).expect("the id is free");
    rl_train::main()
}

/// Cells of the corridor; the last one is the exit.
const CELLS: u8 = 12;

/// A dark corridor: find the exit at its right end, from a cell in the left half.
///
/// Observation, f32 `[2]`: the cell, as a share of the corridor, and 1 where the wall on the left can be felt. Action: 0 goes left, 1 right.
/// Reward: −0.05 a step, and 1 at the exit, which terminates.
struct Corridor {
    spec: EnvSpec,
    cell: u8,
    phase: Phase,
    /// The state of a SplitMix64 generator.
    random: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    New,
    Running,
    Over,
}

impl Corridor {
    fn new() -> Self {
        let spec = EnvSpec {
            id: "Mine/Corridor-v0".to_string(),
            observation: Space::vector([0.0, 0.0], [1.0, 1.0]),
            action: Space::Discrete { n: 2 },
            max_episode_steps: Some(60),
            reward_threshold: Some(0.5),
        };
        Self { spec, cell: 0, phase: Phase::New, random: std::process::id().into() }
    }

    fn observe(&self, obs: &mut [f32]) {
        obs.copy_from_slice(&[
            f32::from(self.cell) / f32::from(CELLS - 1),
            f32::from(u8::from(self.cell == 0)),
        ]);
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014). Any generator will do whose state can be saved.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Env for Corridor {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        // What can fail comes first, so that a call that fails changes nothing.
        let obs = obs.f32(&self.spec)?;
        if let Some(seed) = seed {
            self.random = seed;
        }
        self.cell = (self.next_random() % u64::from(CELLS / 2)) as u8;
        self.phase = Phase::Running;
        self.observe(obs);
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        let env = || self.spec.id.clone();
        match self.phase {
            Phase::New => return Err(EnvError::NotReset { env: env() }),
            Phase::Over => return Err(EnvError::Ended { env: env() }),
            Phase::Running => {}
        }
        let right = action.discrete(&self.spec)? == 1;
        let obs = obs.f32(&self.spec)?;
        self.cell = if right { self.cell + 1 } else { self.cell.saturating_sub(1) };
        let terminated = self.cell == CELLS - 1;
        if terminated {
            self.phase = Phase::Over;
        }
        self.observe(obs);
        Ok(Outcome { reward: if terminated { 1.0 } else { -0.05 }, terminated, truncated: false })
    }

    fn save(&self) -> Vec<u8> {
        let mut bytes = self.random.to_le_bytes().to_vec();
        bytes.extend([self.cell, self.phase as u8]);
        bytes
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        let refused = || EnvError::Saved {
            env: self.spec.id.clone(),
            len: bytes.len(),
            why: "a generator, a cell and a phase are ten bytes".to_string(),
        };
        let &[ref random @ .., cell, phase] = bytes else { return Err(refused()) };
        let random = random.try_into().map_err(|_| refused())?;
        let phase = match phase {
            0 => Phase::New,
            1 => Phase::Running,
            2 => Phase::Over,
            _ => return Err(refused()),
        };
        (self.random, self.cell, self.phase) = (u64::from_le_bytes(random), cell.min(CELLS - 1), phase);
        Ok(())
    }

    fn scene(&self) -> Option<Scene> {
        let cell = |cell: u8, color| Shape::bar([f32::from(cell) * 10.0, 10.0], 0.0, 1.0, 9.0, 8.0, color);
        Some(Scene {
            width: f32::from(CELLS) * 10.0,
            height: 20.0,
            background: Rgb(40, 40, 40),
            shapes: vec![cell(CELLS - 1, Rgb(80, 160, 80)), cell(self.cell, Rgb(220, 200, 80))],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corridor_keeps_to_the_rules() {
        let mut env = rl_envs::TimeLimit::new(Corridor::new(), 60);
        rl_envs::check(&mut env, 10_000, 0).unwrap();
    }
}
