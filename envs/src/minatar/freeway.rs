//! Freeway: cross a road between the cars.

use super::rules::{Board, Played, Random, Rules, is_inside, sign};
use super::{Button, SIDE};
use serde::{Deserialize, Serialize};

/// Rows with a car: all but the first and the last.
const LANES: usize = SIDE - 2;
/// Frames from one step of the chicken's to the next.
const CHICKEN_SPEED: u8 = 3;
/// What the timer starts at; the episode terminates when it goes below 0.
const TIME_LIMIT: i16 = 2500;
/// The chicken's column.
const COLUMN: i8 = 4;
/// The chicken's first row.
const START: i8 = SIDE as i8 - 1;
/// Frames of the slowest car in a cell.
const SLOWEST: i8 = 5;

/// The player leads a chicken up or down a column, at most one step in three frames, across eight lanes with a car each. A
/// car that touches it sends it back to the bottom.
///
/// Channels: 0 chicken, 1 car, 2 to 6 the cell behind a car that moves every 1 to 5 frames (it tells the direction, too).
/// Minimal actions: noop, up, down. Reward: 1 for each crossing, after which the chicken starts again at the bottom and
/// every car gets a new speed and direction. Terminates after 2501 frames, always. The difficulty does not ramp.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Freeway {
    y: i8,
    /// Frames until the chicken may step.
    move_timer: u8,
    time_left: i16,
    /// Row `i` + 1 of the board.
    cars: [Car; LANES],
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Car {
    x: i8,
    /// Frames until it moves.
    timer: i8,
    /// Frames from move to move.
    interval: i8,
    right: bool,
}

impl Car {
    /// The column `by` farther on a road that is a circle.
    fn around(self, by: i8) -> i8 {
        (self.x + by).rem_euclid(SIDE as i8)
    }
}

impl Freeway {
    /// Gives every car a speed and a direction.
    fn randomize(&mut self, random: &mut impl Random) {
        for car in &mut self.cars {
            car.interval = 1 + random.below(SLOWEST as u32) as i8;
            car.timer = car.interval;
        }
        for car in &mut self.cars {
            car.right = random.unit() >= 0.5;
        }
    }
}

impl Rules for Freeway {
    const IDS: [&'static str; 2] = ["MinAtar/Freeway-v0", "MinAtar/Freeway-v1"];
    const CHANNELS: usize = 7;
    const MINIMAL: &'static [Button] = &[Button::Noop, Button::Up, Button::Down];

    fn reset(&mut self, random: &mut impl Random) {
        *self = Self {
            y: START,
            move_timer: CHICKEN_SPEED,
            time_left: TIME_LIMIT,
            cars: [Car::default(); LANES],
        };
        self.randomize(random);
    }

    fn act(&mut self, button: Button, _ramping: bool, random: &mut impl Random) -> Played {
        let mut played = Played::default();
        if self.move_timer == 0 && matches!(button, Button::Up | Button::Down) {
            self.move_timer = CHICKEN_SPEED;
            self.y = if button == Button::Up { self.y - 1 } else { (self.y + 1).min(START) };
        }
        if self.y == 0 {
            played.reward = 1;
            self.randomize(random);
            self.y = START;
        }
        for (y, car) in (1..).zip(&mut self.cars) {
            // Before it moves and after: the chicken may have walked into it.
            let mut hit = (car.x, y) == (COLUMN, self.y);
            if car.timer == 0 {
                car.timer = car.interval;
                car.x = car.around(sign(car.right));
                hit |= (car.x, y) == (COLUMN, self.y);
            } else {
                car.timer -= 1;
            }
            if hit {
                self.y = START;
            }
        }
        self.move_timer = self.move_timer.saturating_sub(1);
        self.time_left -= 1;
        played.terminated = self.time_left < 0;
        played
    }

    fn draw(&self, board: &mut Board<'_>) {
        board.set(COLUMN, self.y, 0);
        for (y, car) in (1..).zip(&self.cars) {
            board.set(car.x, y, 1);
            board.set(car.around(-sign(car.right)), y, 1 + car.interval as usize);
        }
    }

    fn difficulty_ramp(&self) -> Option<u32> {
        None
    }

    fn is_valid(&self) -> bool {
        let car = |car: &Car| {
            is_inside(car.x) && (1..=SLOWEST).contains(&car.interval) && (0..=SLOWEST).contains(&car.timer)
        };
        (1..=START).contains(&self.y)
            && self.move_timer <= CHICKEN_SPEED
            && (-1..=TIME_LIMIT).contains(&self.time_left)
            && self.cars.iter().all(car)
    }
}
