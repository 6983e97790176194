//! The environments that [`make`] knows by name.

use crate::minatar::{ActionSet, Asterix, Breakout, Freeway, Game, MinAtar, Seaquest, SpaceInvaders};
use crate::{
    Acrobot, CartPole, Env, EnvError, EnvSpec, MountainCar, MountainCarContinuous, Pendulum, TimeLimit,
};

/// An environment's name and how to get at it.
struct Entry {
    id: &'static str,
    spec: fn() -> EnvSpec,
    new: fn() -> Box<dyn Env>,
}

/// One line an environment, in the order in which they are listed.
const ENTRIES: &[Entry] = &[
    Entry { id: CartPole::ID, spec: CartPole::spec, new: || Box::new(CartPole::new()) },
    Entry { id: MountainCar::ID, spec: MountainCar::spec, new: || Box::new(MountainCar::new()) },
    Entry {
        id: MountainCarContinuous::ID,
        spec: MountainCarContinuous::spec,
        new: || Box::new(MountainCarContinuous::new()),
    },
    Entry { id: Acrobot::ID, spec: Acrobot::spec, new: || Box::new(Acrobot::new()) },
    Entry { id: Pendulum::ID, spec: Pendulum::spec, new: || Box::new(Pendulum::new()) },
    full::<Asterix>(),
    minimal::<Asterix>(),
    full::<Breakout>(),
    minimal::<Breakout>(),
    full::<Freeway>(),
    minimal::<Freeway>(),
    full::<Seaquest>(),
    minimal::<Seaquest>(),
    full::<SpaceInvaders>(),
    minimal::<SpaceInvaders>(),
];

/// A game of MinAtar with all six actions.
const fn full<G: Game>() -> Entry {
    Entry {
        id: MinAtar::<G>::id(ActionSet::Full),
        spec: || MinAtar::<G>::spec(ActionSet::Full),
        new: || Box::new(MinAtar::<G>::new(ActionSet::Full)),
    }
}

/// A game of MinAtar with those actions that do something.
const fn minimal<G: Game>() -> Entry {
    Entry {
        id: MinAtar::<G>::id(ActionSet::Minimal),
        spec: || MinAtar::<G>::spec(ActionSet::Minimal),
        new: || Box::new(MinAtar::<G>::new(ActionSet::Minimal)),
    }
}

/// The environment called `id`, with a [`TimeLimit`] around it if its spec has one. It waits for its first reset.
///
/// # Errors
/// [`EnvError::Unknown`] when none has that id; it names the nearest one.
pub fn make(id: &str) -> Result<Box<dyn Env>, EnvError> {
    let Some(entry) = ENTRIES.iter().find(|entry| entry.id == id) else { return Err(unknown(id)) };
    let env = (entry.new)();
    Ok(match env.spec().max_episode_steps {
        Some(limit) => Box::new(TimeLimit::new(env, limit)),
        None => env,
    })
}

/// The specs of every environment that [`make`] knows.
pub fn specs() -> impl Iterator<Item = EnvSpec> {
    ENTRIES.iter().map(|entry| (entry.spec)())
}

fn unknown(id: &str) -> EnvError {
    // By spelling alone: 'cartpole' and 'CartPole-v0' are both meant for CartPole-v1.
    let likeness = |known: &str| strsim::jaro_winkler(&known.to_lowercase(), &id.to_lowercase());
    let nearest = ENTRIES.iter().map(|entry| entry.id).max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    EnvError::Unknown {
        id: id.to_string(),
        nearest: nearest.unwrap_or_default().to_string(),
        known: ENTRIES.iter().map(|entry| entry.id).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_makes_what_it_says() {
        for (entry, spec) in ENTRIES.iter().zip(specs()) {
            assert_eq!(entry.id, spec.id);
            assert_eq!(*make(entry.id).unwrap().spec(), spec);
        }
    }

    #[test]
    fn an_unknown_name_gets_the_nearest_known_one() {
        for (id, expected) in [
            ("cartpole", CartPole::ID),
            ("CartPole-v0", CartPole::ID),
            ("pendulum_v1", Pendulum::ID),
            ("MountainCar-v1", MountainCar::ID),
            ("MountainCarContinous-v0", MountainCarContinuous::ID),
            ("akrobot", Acrobot::ID),
        ] {
            let Err(error) = make(id) else { panic!("{id} should be unknown") };
            let EnvError::Unknown { nearest, .. } = &error else { panic!("{error}") };
            assert_eq!(nearest, expected, "for {id}");
            assert!(error.to_string().contains("Acrobot-v1") && !error.to_string().contains('\n'));
        }
    }
}
