//! Environments of a program's own, known by id. Apart from other tests, for what is registered is known to the whole process.

use rl_envs::{
    Action, CartPole, Env, EnvError, EnvSpec, ObsMut, Outcome, Scene, VecEnv, check, listings, make,
    register, specs,
};

/// A cart-pole under another name.
struct Mine(CartPole, EnvSpec);

impl Mine {
    fn boxed() -> Box<dyn Env> {
        let spec = EnvSpec { id: "Mine/Pole-v0".into(), max_episode_steps: Some(50), ..CartPole::spec() };
        Box::new(Mine(CartPole::new(), spec))
    }
}

impl Env for Mine {
    fn spec(&self) -> &EnvSpec {
        &self.1
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        self.0.reset(seed, obs)
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        self.0.step(action, obs)
    }

    fn save(&self) -> Vec<u8> {
        self.0.save()
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        self.0.load(bytes)
    }

    fn scene(&self) -> Option<Scene> {
        self.0.scene()
    }
}

#[test]
fn a_registered_environment_is_one_like_the_others() {
    let unknown = make("Mine/Pole-v0").err().unwrap().to_string();
    assert!(unknown.starts_with("there is no environment 'Mine/Pole-v0'"), "{unknown}");
    let other = register("Mine/Pole-v1", Mine::boxed).unwrap_err();
    assert_eq!(other, EnvError::Named { id: "Mine/Pole-v1".into(), spec: "Mine/Pole-v0".into() });

    register("Mine/Pole-v0", Mine::boxed).unwrap();
    assert_eq!(register("Mine/Pole-v0", Mine::boxed), Err(EnvError::Taken { id: "Mine/Pole-v0".into() }));
    let taken = register(CartPole::ID, || Box::new(CartPole::new())).unwrap_err();
    assert_eq!(taken, EnvError::Taken { id: CartPole::ID.into() });

    // With the time limit of its spec, by itself and several at once.
    check(&mut *make("Mine/Pole-v0").unwrap(), 2_000, 0).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(VecEnv::make("Mine/Pole-v0", 3).unwrap().spec().max_episode_steps, Some(50));
    assert_eq!(specs().last().unwrap().id, "Mine/Pole-v0");
    let last = listings().pop().unwrap();
    assert!(last.built_in && last.feature.is_none() && last.spec.id == "Mine/Pole-v0");
    let Err(EnvError::Unknown { nearest, .. }) = make("mine/pole") else { panic!("it should be unknown") };
    assert_eq!(nearest, "Mine/Pole-v0");
}
