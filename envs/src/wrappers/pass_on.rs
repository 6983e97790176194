//! What wrappers leave to the environment inside, written once. Each macro stands for methods of a wrapper with a field `env`.

/// In an `impl Env`: the methods that do what the environment inside does. What is not named is what the wrapper changes.
///
/// `state` is `save` and `load` of a wrapper that keeps nothing of its own, `state with field` of one that keeps that field.
/// The bytes are headed by the id of the wrapper's own spec.
macro_rules! pass_on {
    (spec) => {
        fn spec(&self) -> &$crate::EnvSpec {
            self.env.spec()
        }
    };
    (reset) => {
        fn reset(&mut self, seed: Option<u64>, obs: $crate::ObsMut<'_>) -> Result<(), $crate::EnvError> {
            self.env.reset(seed, obs)
        }
    };
    (step) => {
        fn step(
            &mut self,
            action: $crate::Action<'_>,
            obs: $crate::ObsMut<'_>,
        ) -> Result<$crate::Outcome, $crate::EnvError> {
            self.env.step(action, obs)
        }
    };
    (state) => {
        fn save(&self) -> Vec<u8> {
            $crate::episode::encode(self.spec(), &self.env.save())
        }

        fn load(&mut self, bytes: &[u8]) -> Result<(), $crate::EnvError> {
            let inner: Vec<u8> = $crate::episode::decode(self.spec(), bytes)?;
            self.env.load(&inner)
        }
    };
    (state with $kept:ident) => {
        fn save(&self) -> Vec<u8> {
            $crate::episode::encode(self.spec(), &(&self.$kept, self.env.save()))
        }

        fn load(&mut self, bytes: &[u8]) -> Result<(), $crate::EnvError> {
            let (kept, inner): (_, Vec<u8>) = $crate::episode::decode(self.spec(), bytes)?;
            self.env.load(&inner)?;
            self.$kept = kept;
            Ok(())
        }
    };
    (scene) => {
        fn scene(&self) -> Option<$crate::Scene> {
            self.env.scene()
        }
    };
    ($($method:ident),+) => {
        $($crate::wrappers::pass_on!($method);)+
    };
}

/// In the wrapper's own `impl`: `inner` and `inner_mut`, each with its documentation.
macro_rules! inner {
    ($what:literal, $to_be_changed:literal) => {
        #[doc = $what]
        pub fn inner(&self) -> &E {
            &self.env
        }

        #[doc = $to_be_changed]
        pub fn inner_mut(&mut self) -> &mut E {
            &mut self.env
        }
    };
}

pub(crate) use {inner, pass_on};
