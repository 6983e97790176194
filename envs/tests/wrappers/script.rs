//! Episodes that are given, to be played in tests.

use rl_envs::{Action, Arcade, Dtype, Env, EnvError, EnvSpec, ObsMut, Outcome, Scene, Space};

#[derive(Clone, Debug, Default)]
pub struct Playing {
    pub observations: Vec<Vec<f64>>,
    pub rewards: Vec<f64>,
    pub terminates: bool,
    /// Lives left after each step; none are counted where it is empty.
    pub lives: Vec<u32>,
}

/// Plays given episodes, one after the other and round again. Its state is where it stands.
#[derive(Clone, Debug)]
pub struct Script {
    pub spec: EnvSpec,
    pub episodes: Vec<Playing>,
    pub meanings: Vec<&'static str>,
    pub episode: usize,
    pub t: Option<usize>,
    pub resets: usize,
    pub actions: Vec<Vec<f32>>,
}

impl Script {
    pub fn new(observation: Space, action: Space, episodes: Vec<Playing>) -> Self {
        let id = "Script-v0".to_string();
        let spec = EnvSpec { id, observation, action, max_episode_steps: None, reward_threshold: None };
        let meanings = vec!["NOOP", "FIRE", "UP"];
        Self { spec, episodes, meanings, episode: usize::MAX, t: None, resets: 0, actions: Vec::new() }
    }

    fn playing(&self) -> &Playing {
        &self.episodes[self.episode % self.episodes.len()]
    }

    fn observe(&self, obs: ObsMut<'_>) {
        let values = &self.playing().observations[self.t.unwrap()];
        match obs {
            ObsMut::F32(obs) => obs.iter_mut().zip(values).for_each(|(o, v)| *o = *v as f32),
            ObsMut::U8(obs) => obs.iter_mut().zip(values).for_each(|(o, v)| *o = *v as u8),
        }
    }
}

impl Env for Script {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        self.episode = if seed.is_some() { 0 } else { self.episode.wrapping_add(1) };
        self.t = Some(0);
        self.resets += 1;
        self.observe(obs);
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        let t = self.t.ok_or(EnvError::NotReset { env: self.spec.id.clone() })?;
        action.check(&self.spec)?;
        self.actions.push(match action {
            Action::Box(values) => values.to_vec(),
            Action::Discrete(action) => vec![action as f32],
            Action::MultiBinary(_) => unreachable!(),
        });
        let steps = self.playing().rewards.len();
        if t == steps {
            return Err(EnvError::Ended { env: self.spec.id.clone() });
        }
        self.t = Some(t + 1);
        self.observe(obs);
        let (reward, last, terminates) =
            (self.playing().rewards[t], t + 1 == steps, self.playing().terminates);
        Ok(Outcome { reward, terminated: last && terminates, truncated: last && !terminates })
    }

    fn save(&self) -> Vec<u8> {
        let t = self.t.map_or(255, |t| t as u8);
        vec![self.episode as u8, t]
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        let &[episode, t] = bytes else {
            return Err(EnvError::Saved { env: self.spec.id.clone(), len: bytes.len(), why: "two".into() });
        };
        self.episode = if episode == 255 { usize::MAX } else { episode.into() };
        self.t = (t != 255).then_some(t.into());
        Ok(())
    }

    fn scene(&self) -> Option<Scene> {
        None
    }
}

impl Arcade for Script {
    fn lives(&self) -> u32 {
        self.t.filter(|t| *t > 0).map_or(3, |t| self.playing().lives.get(t - 1).copied().unwrap_or(3))
    }

    fn action_meanings(&self) -> &[&str] {
        &self.meanings
    }
}

/// All that is seen of `episodes` episodes under action 0, reset observations first.
pub fn play(env: &mut dyn Env, episodes: usize) -> Vec<(Vec<Vec<f64>>, Vec<f64>)> {
    let spec = env.spec().clone();
    let (mut floats, mut small) =
        (vec![0f32; spec.observation.elements()], vec![0u8; spec.observation.elements()]);
    let mut call = |env: &mut dyn Env, reset: bool| {
        let obs = match spec.observation.dtype() {
            Dtype::F32 => ObsMut::F32(&mut floats),
            Dtype::U8 => ObsMut::U8(&mut small),
        };
        let outcome = match reset {
            true => env.reset(None, obs).map(|()| Outcome::default()),
            false => env.step(Action::Discrete(0), obs),
        };
        let seen: Vec<f64> = match spec.observation.dtype() {
            Dtype::F32 => floats.iter().map(|v| f64::from(*v)).collect(),
            Dtype::U8 => small.iter().map(|v| f64::from(*v)).collect(),
        };
        (seen, outcome.unwrap())
    };
    let mut all = Vec::new();
    for _ in 0..episodes {
        let (mut observations, mut rewards) = (vec![call(env, true).0], Vec::new());
        loop {
            let (seen, outcome) = call(env, false);
            observations.push(seen);
            rewards.push(outcome.reward);
            if outcome.ended() {
                break;
            }
        }
        all.push((observations, rewards));
    }
    all
}

pub fn boxed(dtype: Dtype, shape: &[usize]) -> Space {
    let n = shape.iter().product();
    let (low, high) = match dtype {
        Dtype::F32 => (f32::NEG_INFINITY, f32::INFINITY),
        Dtype::U8 => (0.0, 255.0),
    };
    Space::Box { dtype, low: vec![low; n], high: vec![high; n], shape: shape.to_vec() }
}
