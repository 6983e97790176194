//! Every environment keeps to the rules, and the check tells those that do not.

use rl_envs::{
    Action, CartPole, ConformanceError, Env, EnvError, EnvSpec, FrameStack, NormalizeObservation, ObsMut,
    Outcome, Padding, Scene, Space, TimeLimit, check, listings, make,
};

#[test]
fn every_environment_here_conforms() {
    let own = listings().into_iter().filter(|listing| listing.built_in);
    for spec in own.map(|listing| listing.spec) {
        let mut env = make(&spec.id).unwrap();
        check(&mut *env, 100_000, 1).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn wrapped_ones_conform() {
    let stacked = FrameStack::new(make("Pendulum-v1").unwrap(), 3, Padding::First).unwrap();
    check(&mut { stacked }, 5_000, 2).unwrap_or_else(|e| panic!("{e}"));
    // Statistics go on over a seeded reset, so frozen ones.
    let mut normalized = NormalizeObservation::new(make("Acrobot-v1").unwrap(), 1e-8).unwrap();
    normalized.set_frozen(true);
    check(&mut normalized, 5_000, 3).unwrap_or_else(|e| panic!("{e}"));
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    Leaves,
    Nan,
    Infinite,
    Unseeded,
    Forgets,
    GoesOn,
    TakesAnyAction,
    MovesOnRefusal,
    TakesAnyMemory,
    TakesAnyBytes,
    Endless,
    BadSpec,
    Fails,
}

/// A cart-pole that breaks one rule.
struct Broken {
    env: TimeLimit<CartPole>,
    spec: EnvSpec,
    fault: Fault,
    steps: u64,
    /// What `Forgets` forgets.
    bias: f32,
    resets: u64,
}

impl Broken {
    fn new(fault: Fault) -> Self {
        let limit = if fault == Fault::Endless { 30 } else { 20 };
        let mut spec = EnvSpec { max_episode_steps: Some(20), ..CartPole::spec() };
        if fault == Fault::BadSpec {
            spec.observation = Space::vector([0.0, f32::NAN], [1.0, 2.0]);
        }
        let env = TimeLimit::new(CartPole::new(), limit);
        Self { env, spec, fault, steps: 0, bias: 0.0, resets: 0 }
    }
}

impl Env for Broken {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, mut obs: ObsMut<'_>) -> Result<(), EnvError> {
        self.resets += 1;
        let seed = if self.fault == Fault::Unseeded { seed.map(|seed| seed + self.resets) } else { seed };
        self.env.reset(seed, obs.reborrow())?;
        self.bias = 0.0;
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, mut obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        let mut long = [0.0; 4];
        let result = match self.fault {
            Fault::TakesAnyAction => self.env.step(Action::Discrete(0), obs.reborrow()),
            Fault::TakesAnyMemory => self.env.step(action, ObsMut::F32(&mut long)),
            _ => self.env.step(action, obs.reborrow()),
        };
        let mut outcome = match (result, self.fault) {
            (Err(EnvError::Ended { .. }), Fault::GoesOn) => return Ok(Outcome::default()),
            (Err(error @ EnvError::Action { .. }), Fault::MovesOnRefusal) => {
                self.env.step(Action::Discrete(0), obs)?;
                return Err(error);
            }
            (result, _) => result?,
        };
        self.steps += 1;
        self.bias += 0.001;
        if let (ObsMut::F32(obs), 700..) = (obs, self.steps) {
            match self.fault {
                Fault::Leaves => obs[2] = 5.0,
                Fault::Nan => obs[1] = f32::NAN,
                Fault::Infinite => outcome.reward = f64::INFINITY,
                Fault::Forgets => obs[3] += self.bias,
                Fault::Fails => return Err(EnvError::NotReset { env: self.spec.id.clone() }),
                _ => {}
            }
        }
        if self.fault == Fault::Endless {
            outcome.terminated = false;
            // A cart that never falls.
            self.env.inner_mut().set_state(&[0.0; 4])?;
        }
        Ok(outcome)
    }

    fn save(&self) -> Vec<u8> {
        self.env.save()
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        match (self.env.load(bytes), self.fault) {
            (Err(_), Fault::TakesAnyBytes) => Ok(()),
            (result, _) => result,
        }
    }

    fn scene(&self) -> Option<Scene> {
        None
    }
}

#[test]
fn what_breaks_a_rule_is_told() {
    for (fault, text) in [
        (Fault::None, ""),
        (Fault::Leaves, "with 5 at element 2 is not of Box"),
        (Fault::Nan, "with NaN at element 1"),
        (Fault::Infinite, "the reward is inf"),
        (Fault::Unseeded, "the same seed is given twice, and step 0 after it"),
        (Fault::Forgets, "a saved state is loaded, and step "),
        (Fault::GoesOn, "a step after the episode's end must be an error"),
        (Fault::TakesAnyAction, "the action 2 must be an error"),
        (Fault::MovesOnRefusal, "the action 2 must leave the state as it was"),
        (Fault::TakesAnyMemory, "memory for one element too many must be an error"),
        (Fault::TakesAnyBytes, "bytes that are no state must be an error"),
        (Fault::Endless, "an episode has not ended after 20 steps"),
        (Fault::BadSpec, "element 1 of its observation space is from NaN to 2"),
        (Fault::Fails, "a step failed: CartPole-v1 was stepped before any reset"),
    ] {
        let said = check(&mut Broken::new(fault), 2_000, 5).map_err(|e: ConformanceError| e.to_string());
        match said {
            Ok(()) => assert_eq!(fault, Fault::None, "{fault:?} is not noticed"),
            Err(said) => {
                assert!(fault != Fault::None && said.contains(text), "{fault:?}: {said}");
                assert!(said.starts_with("CartPole-v1") && !said.contains('\n'), "{said}");
            }
        }
    }
}
