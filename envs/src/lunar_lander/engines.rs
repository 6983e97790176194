//! The engines: what they are told, and how they kick.

use super::Control;
use super::craft::{Craft, SCALE};
use super::flight::Chance;
use crate::{Action, EnvError, EnvSpec};
use serde::{Deserialize, Serialize};

/// What the main engine's kick is multiplied with.
const MAIN_POWER: f64 = 13.0;
/// What a side engine's kick is multiplied with.
const SIDE_POWER: f64 = 0.6;
/// How far below the hull's origin the main engine kicks, drawing units.
const MAIN_AT: f64 = 4.0;
/// How far out and up from the hull's origin a side engine kicks, drawing units.
pub(super) const SIDE_AT: [f64; 2] = [12.0, 14.0];
/// The reference takes another height for the side engines in x, so that their torque depends on how the craft is turned.
const SIDE_HEIGHT_IN_X: f64 = 17.0;

/// An action as it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Order {
    /// One of the four.
    Engine(u8),
    /// Two throttles.
    Throttles([f32; 2]),
}

impl Order {
    /// What `action` orders.
    pub(super) fn of(action: Action<'_>, control: Control, spec: &EnvSpec) -> Result<Self, EnvError> {
        match control {
            Control::Discrete => Ok(Order::Engine(action.discrete(spec)? as u8)),
            Control::Continuous => {
                let values = action.values(spec)?;
                Ok(Order::Throttles([values[0], values[1]]))
            }
        }
    }

    /// That nothing is fired.
    pub(super) fn nothing(control: Control) -> Self {
        match control {
            Control::Discrete => Order::Engine(0),
            Control::Continuous => Order::Throttles([0.0; 2]),
        }
    }

    /// Whether it is one for `control`: saved bytes may say anything.
    pub(super) fn is_for(&self, control: Control) -> bool {
        match self {
            Order::Engine(engine) => control == Control::Discrete && *engine < 4,
            Order::Throttles(values) => {
                control == Control::Continuous && values.iter().all(|value| value.is_finite())
            }
        }
    }
}

/// What fires during a step.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Burn {
    /// Power of the main engine: 0, or 0.5 to 1.
    pub(super) main: f64,
    /// Power of a side engine, likewise.
    pub(super) side: f64,
    /// Which one: −1 for the left engine, which pushes to the left, 1 for the right one.
    pub(super) direction: f64,
}

impl From<Order> for Burn {
    fn from(order: Order) -> Self {
        match order {
            Order::Engine(0) => Burn::default(),
            Order::Engine(2) => Burn { main: 1.0, ..Burn::default() },
            Order::Engine(engine) => Burn { main: 0.0, side: 1.0, direction: f64::from(engine) - 2.0 },
            Order::Throttles(values) => {
                let [main, side] = values.map(|value| f64::from(value).clamp(-1.0, 1.0));
                Burn {
                    main: if main > 0.0 { (main + 1.0) * 0.5 } else { 0.0 },
                    side: if side.abs() > 0.5 { side.abs() } else { 0.0 },
                    direction: side.signum(),
                }
            }
        }
    }
}

impl Burn {
    /// Kicks `craft`, a little to the side of where it should.
    pub(super) fn fire(&self, craft: &mut Craft, chance: &mut impl Chance) {
        // Drawn whether or not anything fires.
        let [along, across] = [(); 2].map(|()| chance.uniform(-1.0, 1.0) / SCALE);
        if self.main == 0.0 && self.side == 0.0 {
            return;
        }
        let hull = craft.hull();
        let ([x, y], (sin, cos)) = (hull.position, (hull.angle.sin(), hull.angle.cos()));
        if self.main > 0.0 {
            let down = MAIN_AT / SCALE + 2.0 * along;
            let [dx, dy] = [sin * down - cos * across, -cos * down - sin * across];
            let impulse = [-dx * MAIN_POWER * self.main, -dy * MAIN_POWER * self.main];
            craft.kick(impulse, [x + dx, y + dy]);
        }
        if self.side > 0.0 {
            let out = 3.0 * across + self.direction * SIDE_AT[0] / SCALE;
            let [dx, dy] = [sin * along - cos * out, -cos * along - sin * out];
            let impulse = [-dx * SIDE_POWER * self.side, -dy * SIDE_POWER * self.side];
            let at = [x + dx - sin * SIDE_HEIGHT_IN_X / SCALE, y + dy + cos * SIDE_AT[1] / SCALE];
            craft.kick(impulse, at);
        }
    }

    /// What the fuel costs.
    pub(super) fn costs(&self) -> [f64; 2] {
        [self.main * 0.30, self.side * 0.03]
    }
}
