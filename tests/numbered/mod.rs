//! Environments whose observations number their steps, so that a row tells which step it is of.

use rl_envs::{Action, Env, EnvError, EnvSpec, ObsMut, Outcome, Scene, VecEnv, make};
use rl_replay::{Batch, Replay};

/// Looks like CartPole-v1. An observation is (the environment's number, steps it has made, 0, 0); episodes have odd lengths, and every
/// third one ends in a terminal state.
pub struct Numbered {
    spec: EnvSpec,
    number: u32,
    steps: u32,
    episodes: u32,
    /// Steps of the episode in progress that are left.
    left: u32,
    /// What happens at this step, if anything.
    trouble: Option<(u32, Trouble)>,
}

/// How an environment breaks.
#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    /// It gives an error.
    Error,
    /// It panics.
    Panic,
}

impl Numbered {
    fn new(number: u32, trouble: Option<(u32, Trouble)>) -> Self {
        let spec = make("CartPole-v1").unwrap().spec().clone();
        Self { spec, number, steps: 0, episodes: 0, left: 0, trouble }
    }

    fn write(&self, obs: ObsMut<'_>) {
        let ObsMut::F32(obs) = obs else { panic!("observations are f32") };
        obs.copy_from_slice(&[self.number as f32, self.steps as f32, 0.0, 0.0]);
    }
}

impl Env for Numbered {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, _: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        self.episodes += 1;
        self.left = 1 + (self.episodes * 7 + self.number * 3) % 23;
        self.write(obs);
        Ok(())
    }

    fn step(&mut self, _: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        match self.trouble {
            Some((at, Trouble::Error)) if at == self.steps => {
                return Err(EnvError::NotReset { env: "the broken one".to_string() });
            }
            Some((at, Trouble::Panic)) if at == self.steps => panic!("the broken one\nwith a backtrace"),
            _ => {}
        }
        self.steps += 1;
        self.left -= 1;
        self.write(obs);
        let ended = self.left == 0;
        let terminated = ended && self.episodes.is_multiple_of(3);
        Ok(Outcome { reward: 1.0, terminated, truncated: ended && !terminated })
    }

    fn save(&self) -> Vec<u8> {
        [self.steps, self.episodes, self.left].iter().flat_map(|n| n.to_ne_bytes()).collect()
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        let mut numbers = bytes.chunks_exact(4).map(|n| u32::from_ne_bytes(n.try_into().unwrap()));
        [self.steps, self.episodes, self.left] = [(); 3].map(|()| numbers.next().unwrap());
        Ok(())
    }

    fn scene(&self) -> Option<Scene> {
        None
    }
}

/// For each actor as many of them as `shares` says, all with numbers of their own. `trouble` meets the last one.
pub fn parts(shares: &[usize], trouble: Option<(u32, Trouble)>) -> Vec<VecEnv> {
    let all: usize = shares.iter().sum();
    let mut numbers = 0..all;
    let mut env = || -> Box<dyn Env> {
        let number = numbers.next().unwrap();
        Box::new(Numbered::new(number as u32, trouble.filter(|_| number + 1 == all)))
    };
    shares.iter().map(|share| VecEnv::new((0..*share).map(|_| env()).collect()).unwrap()).collect()
}

/// How many steps of each environment have rows in `replay`, which has never been full. Fails unless each of them has exactly one: step
/// k's row is of the observation k, and they are in order.
pub fn steps_in(replay: &Replay, envs: usize) -> Vec<u64> {
    let mut next = vec![0u64; envs];
    let mut reader = replay.sampler();
    let Ok(pinned) = reader.pin() else { return next };
    let live = pinned.live();
    assert_eq!(live.start, 0, "the buffer has room for all");
    for key in live {
        let mut batch = Batch::new(replay.schema(), 1);
        pinned.gather(&[key], &mut batch.view_mut()).unwrap();
        let obs: &[f32] = bytemuck::cast_slice(batch.column(0));
        let next_obs: &[f32] = bytemuck::cast_slice(batch.column(4));
        let (env, step) = (obs[0] as usize, obs[1] as u64);
        assert_eq!(step, next[env], "environment {env}: after step {} came {step}", next[env]);
        assert!(next_obs[0] == obs[0] && next_obs[1] > obs[1], "{obs:?} led to {next_obs:?}");
        next[env] += 1;
    }
    next
}
