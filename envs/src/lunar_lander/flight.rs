//! One episode: what a step does, what is seen of it and what it is worth.

use super::Control;
use super::craft::{Craft, FPS, LEG_AT, SCALE};
use super::engines::{Burn, Order};
use super::terrain::{HEIGHT, PAD, Terrain, WIDTH};
use super::wind::{Wind, WindPower};
use crate::Outcome;
use crate::episode::Episode;
use serde::{Deserialize, Serialize};

/// The initial push is up to this in x and in y, N, for one step.
const PUSH: f64 = 1000.0;

/// Where chance comes from: the environment's generator, or NumPy's in the tests.
pub(super) trait Chance {
    /// A uniform number in [low, high).
    fn uniform(&mut self, low: f64, high: f64) -> f64;

    /// A uniform whole number in [low, high).
    fn whole(&mut self, low: i64, high: i64) -> i64;
}

impl Chance for Episode {
    fn uniform(&mut self, low: f64, high: f64) -> f64 {
        Episode::uniform(self, low, high)
    }

    fn whole(&mut self, low: i64, high: i64) -> i64 {
        // 53 bits over some thousands of numbers: none is noticeably likelier than another.
        Episode::uniform(self, low as f64, high as f64).floor() as i64
    }
}

/// What Gymnasium takes as arguments.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Settings {
    pub(super) control: Control,
    /// m/s², downwards if negative.
    pub(super) gravity: f64,
    pub(super) wind: Option<WindPower>,
}

impl Settings {
    pub(super) fn new(control: Control) -> Self {
        Self { control, gravity: -10.0, wind: None }
    }

    /// Whether they are in Gymnasium's bounds: saved bytes may say anything.
    pub(super) fn are_valid(&self) -> bool {
        let finite = |power: WindPower| power.wind.is_finite() && power.turbulence.is_finite();
        self.gravity > -12.0 && self.gravity < 0.0 && self.wind.is_none_or(finite)
    }
}

/// A craft on its way down.
pub(super) struct Flight {
    pub(super) terrain: Terrain,
    pub(super) craft: Craft,
    wind: Option<Wind>,
    /// What fired in the last step.
    pub(super) burn: Burn,
    /// The potential whose growth is rewarded, as of the last step.
    potential: f64,
}

/// What an agent sees: position from the pad, velocity, angle, angular velocity and the two legs' contacts, each in a unit
/// of its own.
pub(super) type Seen = [f64; 8];

impl Flight {
    /// Draws an episode and takes its first step, in which no engine fires and the push acts.
    pub(super) fn start(settings: &Settings, chance: &mut impl Chance) -> (Self, Seen) {
        let terrain = Terrain::draw(chance);
        let mut craft = Craft::new(&terrain, settings.gravity);
        craft.push([(); 2].map(|()| chance.uniform(-PUSH, PUSH)));
        let wind = settings.wind.map(|power| Wind::draw(power, chance));
        let mut flight = Self { terrain, craft, wind, burn: Burn::default(), potential: 0.0 };
        let (seen, _) = flight.step(Order::nothing(settings.control), chance);
        (flight, seen)
    }

    /// A step under `order`.
    pub(super) fn step(&mut self, order: Order, chance: &mut impl Chance) -> (Seen, Outcome) {
        if let Some(wind) = &mut self.wind
            && self.craft.legs_down() == [false; 2]
        {
            wind.blow(&mut self.craft);
        }
        self.burn = Burn::from(order);
        self.burn.fire(&mut self.craft, chance);
        self.craft.step();

        let seen = self.look();
        let potential = potential(&seen);
        let [main, side] = self.burn.costs();
        let mut outcome = Outcome { reward: potential - self.potential - main - side, ..Outcome::default() };
        self.potential = potential;
        if self.craft.crashed() || seen[0].abs() >= 1.0 {
            outcome = Outcome { reward: -100.0, terminated: true, truncated: false };
        }
        if self.craft.sleeps() {
            outcome = Outcome { reward: 100.0, terminated: true, truncated: false };
        }
        (seen, outcome)
    }

    fn look(&self) -> Seen {
        let hull = self.craft.hull();
        let ([x, y], [vx, vy]) = (hull.position, hull.velocity);
        let [left, right] = self.craft.legs_down().map(|down| f64::from(u8::from(down)));
        let (half_width, half_height) = (WIDTH / 2.0, HEIGHT / 2.0);
        [
            (x - half_width) / half_width,
            (y - (PAD + LEG_AT[1] / SCALE)) / half_height,
            vx * half_width / FPS,
            vy * half_height / FPS,
            hull.angle,
            20.0 * hull.angular_velocity / FPS,
            left,
            right,
        ]
    }
}

/// Nearer to the pad, slower, more upright and with a leg on the ground is better.
fn potential(seen: &Seen) -> f64 {
    let [x, y, vx, vy, angle, _, left, right] = *seen;
    -100.0 * (x * x + y * y).sqrt() - 100.0 * (vx * vx + vy * vy).sqrt() - 100.0 * angle.abs()
        + 10.0 * left
        + 10.0 * right
}
