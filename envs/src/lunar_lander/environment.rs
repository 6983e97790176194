//! The environment around a flight: generator, settings, and how it is saved.

use super::engines::Order;
use super::flight::{Flight, Seen, Settings};
use super::wind::WindPower;
use super::{Control, scene};
use crate::episode::{Episode, decode, encode};
use crate::{Action, Env, EnvError, EnvSpec, ObsMut, Outcome, Scene};
use std::fmt;

/// A craft that is to be set down between two flags, by a main engine and two that turn it.
///
/// Observation, f32 `[8]`: position from the pad in x (10 m) and in y (6.7 m), velocity in x (5 m/s) and in y (7.5 m/s), angle
/// (rad), angular velocity (2.5 rad/s), and whether the left and the right leg touch the ground, 0 or 1. A craft that climbs
/// or spins for long leaves the bounds of the space, as in Gymnasium.
///
/// Action of `LunarLander-v3`: 0 nothing, 1 the left engine, 2 the main engine, 3 the right engine. Action of
/// `LunarLanderContinuous-v3`, f32 `[2]`, clipped to ±1: above 0 the main engine fires with 50 % to 100 % of its power; below −0.5 the
/// left engine fires and above 0.5 the right one, with 50 % to 100 % of its power.
///
/// Reward: the growth of −100·|position| − 100·|velocity| − 100·|angle| + 10 for each leg that touches the ground, less 0.3 for the
/// main and 0.03 for a side engine at full power. Terminates with −100 when the hull touches the ground or the craft is
/// 10 m from the pad in x, and with 100 when it has come to rest.
///
/// [`save`](Env::save) gives the generator as of the last reset and the actions since (2 bytes each, 9 in the continuous one), for
/// Box2D does not tell all that a world holds; [`load`](Env::load) flies them again, which takes as long as those steps did.
/// That is exact on the same machine. A Box2D world takes about 100 KiB.
///
/// The physics is in f32 and the compiler's: trajectories are Gymnasium's to the bit on x86-64 Linux.
pub struct LunarLander {
    spec: EnvSpec,
    settings: Settings,
    episode: Episode,
    /// `None` before the first reset.
    flight: Option<Flight>,
    /// The generator when this episode began.
    start: Episode,
    /// What was ordered since.
    orders: Vec<Order>,
}

impl LunarLander {
    /// The Gymnasium id of the one with four actions.
    pub const ID: &str = Control::Discrete.id();
    /// The Gymnasium id of the one with throttles.
    pub const CONTINUOUS_ID: &str = Control::Continuous.id();

    /// `LunarLander-v3`: a craft with four actions that waits for its first reset. Without a time limit of its own:
    /// [`make`](crate::make) adds that.
    pub fn new() -> Self {
        Self::with(Control::Discrete)
    }

    /// `LunarLanderContinuous-v3`: likewise, with throttles.
    pub fn continuous() -> Self {
        Self::with(Control::Continuous)
    }

    fn with(control: Control) -> Self {
        let episode = Episode::new();
        let start = episode.clone();
        let (spec, settings) = (control.spec(), Settings::new(control));
        Self { spec, settings, episode, flight: None, start, orders: Vec::new() }
    }

    /// With another gravity than −10 m/s², from the next reset on.
    ///
    /// # Errors
    /// [`EnvError::Setting`] unless it is between −12 and 0.
    pub fn with_gravity(self, gravity: f64) -> Result<Self, EnvError> {
        self.set("gravity", gravity, "a number between -12 and 0", |settings| settings.gravity = gravity)
    }

    /// With wind, from the next reset on: as long as no leg touches the ground, `wind` (N) is the greatest force sideways and
    /// `turbulence` (N·m) the greatest torque. Gymnasium's are 15 and 1.5 when it is turned on; it recommends up to 20 and 2.
    ///
    /// # Errors
    /// [`EnvError::Setting`] unless both are finite.
    pub fn with_wind(self, wind: f64, turbulence: f64) -> Result<Self, EnvError> {
        let wrong = if wind.is_finite() { turbulence } else { wind };
        let power = Some(WindPower { wind, turbulence });
        self.set("wind", wrong, "finite numbers", |settings| settings.wind = power)
    }

    fn set(
        mut self,
        setting: &'static str,
        got: f64,
        allowed: &'static str,
        change: impl FnOnce(&mut Settings),
    ) -> Result<Self, EnvError> {
        change(&mut self.settings);
        if self.settings.are_valid() {
            return Ok(self);
        }
        Err(EnvError::Setting { env: self.spec.id, setting, got: got.to_string(), allowed })
    }
}

impl Default for LunarLander {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for LunarLander {
    /// Without the physics, which Box2D keeps to itself.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LunarLander")
            .field("settings", &self.settings)
            .field("episode", &self.episode)
            .field("steps", &self.orders.len())
            .finish_non_exhaustive()
    }
}

fn write(seen: &Seen, obs: &mut [f32]) {
    for (out, value) in obs.iter_mut().zip(seen) {
        *out = *value as f32;
    }
}

impl Env for LunarLander {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        let obs = obs.f32(&self.spec)?;
        self.episode.begin(seed);
        self.start = self.episode.clone();
        self.orders.clear();
        let (flight, seen) = Flight::start(&self.settings, &mut self.episode);
        self.flight = Some(flight);
        write(&seen, obs);
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        self.episode.check(&self.spec)?;
        let order = Order::of(action, self.settings.control, &self.spec)?;
        let obs = obs.f32(&self.spec)?;
        let Some(flight) = &mut self.flight else {
            return Err(EnvError::NotReset { env: self.spec.id.clone() });
        };
        let (seen, outcome) = flight.step(order, &mut self.episode);
        self.orders.push(order);
        self.episode.advance(outcome.terminated);
        write(&seen, obs);
        Ok(outcome)
    }

    fn save(&self) -> Vec<u8> {
        encode(&self.spec, &(&self.settings, &self.start, &self.orders))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        let (settings, start, orders): (Settings, Episode, Vec<Order>) = decode(&self.spec, bytes)?;
        let invalid = |why: &str| {
            let why = why.to_string();
            Err(EnvError::Saved { env: self.spec.id.clone(), len: bytes.len(), why })
        };
        let control = self.settings.control;
        if settings.control != control || !settings.are_valid() {
            return invalid("its settings are not ones that the environment has");
        }
        let mut episode = start.clone();
        let flight = match episode.check(&self.spec) {
            Ok(()) => {
                let (mut flight, _) = Flight::start(&settings, &mut episode);
                for order in &orders {
                    if episode.check(&self.spec).is_err() || !order.is_for(control) {
                        return invalid("an action in it cannot be taken");
                    }
                    let (_, outcome) = flight.step(*order, &mut episode);
                    episode.advance(outcome.terminated);
                }
                Some(flight)
            }
            Err(EnvError::NotReset { .. }) if orders.is_empty() => None,
            Err(_) => return invalid("it has no beginning"),
        };
        (self.settings, self.episode, self.flight, self.start, self.orders) =
            (settings, episode, flight, start, orders);
        Ok(())
    }

    fn scene(&self) -> Option<Scene> {
        Some(scene::draw(self.flight.as_ref()))
    }
}
