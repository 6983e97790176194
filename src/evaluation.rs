//! Judging a policy: greedy, on environments and seeds of its own.

use crate::config::Config;
use crate::error::{CommandError, Result};
use crate::stacks::Stacks;
use crate::wiring::make_envs;
use rl_envs::{Actions, VecEnv};
use rl_learn::{Agent, Kind, Mode, TchError, Tensor, first_line};
use serde::{Deserialize, Serialize};

/// Environments stepped side by side in an evaluation, at most.
const SIDE_BY_SIDE: usize = 100;

/// What an evaluation gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Episodes played.
    pub episodes: usize,
    /// Mean of the episodes' returns (undiscounted sums of rewards).
    pub mean_return: f64,
    /// Their standard deviation (of the population: over n).
    pub std_return: f64,
    /// The smallest.
    pub min_return: f64,
    /// The largest.
    pub max_return: f64,
    /// Mean length in environment steps.
    pub mean_length: f64,
}

impl Evaluation {
    /// The statistics of episodes given as (return, length).
    fn of(episodes: &[(f64, u64)]) -> Self {
        let n = episodes.len() as f64;
        let mean_return = episodes.iter().map(|(r, _)| r).sum::<f64>() / n;
        let variance = episodes.iter().map(|(r, _)| (r - mean_return).powi(2)).sum::<f64>() / n;
        Self {
            episodes: episodes.len(),
            mean_return,
            std_return: variance.sqrt(),
            min_return: episodes.iter().map(|(r, _)| *r).fold(f64::INFINITY, f64::min),
            max_return: episodes.iter().map(|(r, _)| *r).fold(f64::NEG_INFINITY, f64::max),
            mean_length: episodes.iter().map(|(_, l)| *l as f64).sum::<f64>() / n,
        }
    }
}

/// Plays `episodes` whole episodes of the configured environment greedily, on environments seeded with `seed`. `None` when `stop` said so on the way; it is asked
/// at every step.
///
/// Each environment plays one episode and then waits for the others: counting whichever ends first would favour short episodes.
///
/// # Errors
/// When the environment or libtorch fails.
pub fn evaluate(
    agent: &mut dyn Agent,
    config: &Config,
    episodes: usize,
    seed: u64,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Evaluation>> {
    let mut played = Vec::new();
    let mut round = 0;
    while played.len() < episodes {
        let n = (episodes - played.len()).min(SIDE_BY_SIDE);
        let mut envs = make_envs(config, n)?;
        envs.reset(seed.wrapping_add(round))?;
        let Some(round_played) = play_round(agent, config, &mut envs, stop)? else { return Ok(None) };
        played.extend(round_played);
        round += 1;
    }
    Ok(Some(Evaluation::of(&played)))
}

/// One episode in each environment, as (return, length).
fn play_round(
    agent: &mut dyn Agent,
    config: &Config,
    envs: &mut VecEnv,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Vec<(f64, u64)>>> {
    let mut episodes = vec![(0.0, 0); envs.len()];
    let mut over = vec![false; envs.len()];
    let mut stacks = Stacks::new(envs.spec(), envs.len(), config.frame_stack);
    stacks.begin_all(envs);
    while over.contains(&false) {
        if stop() {
            return Ok(None);
        }
        let actions = agent.act(&stacks.observations(envs.observations()), Mode::Greedy)?;
        step(envs, &actions)?;
        stacks.follow(envs);
        for (i, outcome) in envs.outcomes().iter().enumerate() {
            if !over[i] {
                episodes[i].0 += outcome.reward;
                episodes[i].1 += 1;
                over[i] = outcome.ended();
            }
        }
    }
    Ok(Some(episodes))
}

/// Steps all environments with an agent's actions: i64 `[E]`, or f32 `[E, A]`. Returns the actions' bytes, row after row, as they are
/// stored.
///
/// # Errors
/// When an environment refuses its action.
pub fn step(envs: &mut VecEnv, actions: &Tensor) -> Result<Vec<u8>> {
    let failed = |e: TchError| CommandError::Failed(format!("libtorch: {}", first_line(&e)));
    if actions.kind() == Kind::Int64 {
        let actions = Vec::<i64>::try_from(actions).map_err(failed)?;
        envs.step(Actions::Discrete(&actions))?;
        Ok(bytemuck::cast_slice(&actions).to_vec())
    } else {
        let actions = Vec::<f32>::try_from(actions.reshape([-1])).map_err(failed)?;
        envs.step(Actions::Box(&actions))?;
        Ok(bytemuck::cast_slice(&actions).to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_those_of_the_episodes() {
        let evaluation = Evaluation::of(&[(1.0, 10), (3.0, 20)]);
        assert_eq!(
            evaluation,
            Evaluation {
                episodes: 2,
                mean_return: 2.0,
                std_return: 1.0,
                min_return: 1.0,
                max_return: 3.0,
                mean_length: 15.0
            }
        );
    }
}
