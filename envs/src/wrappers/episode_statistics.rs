//! Returns and lengths of the episodes that ended.

use super::{inner, pass_on};
use crate::episode::{decode, encode};
use crate::{Action, Env, EnvError, ObsMut, Outcome};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// What an episode came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpisodeRecord {
    /// The undiscounted sum of its rewards, as this wrapper saw them: those of wrappers inside, not of wrappers outside.
    pub total: f64,
    /// Its steps.
    pub length: u64,
}

/// Keeps the returns and lengths of the last episodes.
///
/// As Gymnasium's `RecordEpisodeStatistics`, without the seconds that an episode took: wall-clock time is in no state
/// here, so that a resumed run is the same run.
#[derive(Clone, Debug)]
pub struct EpisodeStatistics<E> {
    env: E,
    kept: usize,
    state: State,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    open: EpisodeRecord,
    episodes: u64,
    last: VecDeque<EpisodeRecord>,
}

impl<E: Env> EpisodeStatistics<E> {
    /// `env`, with the statistics of its last 100 episodes.
    pub fn new(env: E) -> Self {
        Self::with_room(env, 100)
    }

    /// `env`, with the statistics of its last `episodes` episodes.
    pub fn with_room(env: E, episodes: usize) -> Self {
        let last = VecDeque::with_capacity(episodes);
        Self { env, kept: episodes, state: State { last, ..State::default() } }
    }

    /// The last episodes that ended, the oldest first.
    pub fn episodes(&self) -> impl ExactSizeIterator<Item = EpisodeRecord> {
        self.state.last.iter().copied()
    }

    /// How many episodes have ended.
    pub fn count(&self) -> u64 {
        self.state.episodes
    }

    /// The episode under way, or the one that ended with the last step.
    pub fn current(&self) -> EpisodeRecord {
        self.state.open
    }

    inner!(
        "The environment inside.",
        "The environment inside, to be changed. Steps taken there are not counted."
    );
}

impl<E: Env> Env for EpisodeStatistics<E> {
    pass_on!(spec, scene);

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        self.env.reset(seed, obs)?;
        self.state.open = EpisodeRecord::default();
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        let outcome = self.env.step(action, obs)?;
        let State { open, episodes, last } = &mut self.state;
        open.total += outcome.reward;
        open.length += 1;
        if outcome.ended() {
            *episodes += 1;
            if last.len() == self.kept {
                last.pop_front();
            }
            if self.kept > 0 {
                last.push_back(*open);
            }
        }
        Ok(outcome)
    }

    fn save(&self) -> Vec<u8> {
        encode(self.spec(), &(&self.state, self.env.save()))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        let (mut state, inner): (State, Vec<u8>) = decode(self.spec(), bytes)?;
        self.env.load(&inner)?;
        // Another wrapper may have kept more.
        state.last.drain(..state.last.len().saturating_sub(self.kept));
        state.last.reserve(self.kept - state.last.len());
        self.state = state;
        Ok(())
    }
}
