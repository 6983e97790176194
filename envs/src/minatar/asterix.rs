//! Asterix: gather gold and keep away from enemies.

use super::rules::{Board, Played, Random, Rules, is_inside, sign};
use super::{Button, SIDE};
use serde::{Deserialize, Serialize};

/// Rows that things come in: all but the first and the last.
const ROWS: usize = SIDE - 2;
/// Frames between two things at first; one fewer with each ramp, down to 1.
const SPAWN_SPEED: u8 = 10;
/// Frames between two moves of the things at first; one fewer with every other ramp, down to 1.
const MOVE_SPEED: u8 = 5;
/// What the ramp's timer starts at; a ramp comes in the frame after it has gone below 0, 102 frames later.
const RAMP_INTERVAL: i8 = 100;

/// The player moves in all four directions among enemies and gold, which come from both sides, at most one a row.
///
/// Channels: 0 player, 1 enemy, 2 trail (the cell behind each enemy or gold, which tells its direction), 3 gold. Minimal
/// actions: noop, left, up, right, down. Reward: 1 for each gold. Terminates when the player touches an enemy.
///
/// With difficulty ramping, every 102 frames things come one frame sooner after each other, and every other time they also
/// move one frame sooner. Gold is one thing in three.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Asterix {
    x: i8,
    y: i8,
    /// Row `i` + 1 of the board.
    rows: [Option<Thing>; ROWS],
    spawn_speed: u8,
    spawn_timer: u8,
    move_speed: u8,
    move_timer: u8,
    ramp_timer: i8,
    ramps: u32,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Thing {
    x: i8,
    right: bool,
    gold: bool,
}

impl Asterix {
    /// Something in a free row, if there is one.
    fn spawn(&mut self, random: &mut impl Random) {
        let right = random.unit() < 1.0 / 2.0;
        let gold = random.unit() < 1.0 / 3.0;
        let free = self.rows.iter().filter(|row| row.is_none()).count();
        if free == 0 {
            return;
        }
        let chosen = random.below(free as u32) as usize;
        if let Some(row) = self.rows.iter_mut().filter(|row| row.is_none()).nth(chosen) {
            *row = Some(Thing { x: if right { 0 } else { SIDE as i8 - 1 }, right, gold });
        }
    }

    /// What it brings that the player is where it is. Only the thing in its own row can be there, too.
    fn touch(&mut self, played: &mut Played) {
        let row = &mut self.rows[self.y as usize - 1];
        if let Some(thing) = row.filter(|thing| thing.x == self.x) {
            if thing.gold {
                *row = None;
                played.reward += 1;
            } else {
                played.terminated = true;
            }
        }
    }

    fn ramp(&mut self) {
        if self.spawn_speed == 1 && self.move_speed == 1 {
            return;
        }
        if self.ramp_timer >= 0 {
            self.ramp_timer -= 1;
            return;
        }
        if self.move_speed > 1 && self.ramps % 2 == 1 {
            self.move_speed -= 1;
        }
        if self.spawn_speed > 1 {
            self.spawn_speed -= 1;
        }
        self.ramps += 1;
        self.ramp_timer = RAMP_INTERVAL;
    }
}

impl Rules for Asterix {
    const IDS: [&'static str; 2] = ["MinAtar/Asterix-v0", "MinAtar/Asterix-v1"];
    const CHANNELS: usize = 4;
    const MINIMAL: &'static [Button] = &[Button::Noop, Button::Left, Button::Up, Button::Right, Button::Down];

    fn reset(&mut self, _random: &mut impl Random) {
        *self = Self {
            x: 5,
            y: 5,
            rows: [None; ROWS],
            spawn_speed: SPAWN_SPEED,
            spawn_timer: SPAWN_SPEED,
            move_speed: MOVE_SPEED,
            move_timer: MOVE_SPEED,
            ramp_timer: RAMP_INTERVAL,
            ramps: 0,
        };
    }

    fn act(&mut self, button: Button, ramping: bool, random: &mut impl Random) -> Played {
        let mut played = Played::default();
        if self.spawn_timer == 0 {
            self.spawn(random);
            self.spawn_timer = self.spawn_speed;
        }
        match button {
            Button::Left => self.x = (self.x - 1).max(0),
            Button::Right => self.x = (self.x + 1).min(SIDE as i8 - 1),
            Button::Up => self.y = (self.y - 1).max(1),
            Button::Down => self.y = (self.y + 1).min(ROWS as i8),
            Button::Noop | Button::Fire => {}
        }
        self.touch(&mut played);
        if self.move_timer == 0 {
            self.move_timer = self.move_speed;
            for row in &mut self.rows {
                if let Some(thing) = row {
                    thing.x += sign(thing.right);
                    *row = row.filter(|thing| is_inside(thing.x));
                }
            }
            self.touch(&mut played);
        }
        self.spawn_timer -= 1;
        self.move_timer -= 1;
        if ramping {
            self.ramp();
        }
        played
    }

    fn draw(&self, board: &mut Board<'_>) {
        board.set(self.x, self.y, 0);
        for (y, thing) in (1..).zip(&self.rows) {
            if let Some(thing) = thing {
                board.set(thing.x, y, if thing.gold { 3 } else { 1 });
                board.set(thing.x - sign(thing.right), y, 2);
            }
        }
    }

    fn difficulty_ramp(&self) -> Option<u32> {
        Some(self.ramps)
    }

    fn is_valid(&self) -> bool {
        is_inside(self.x)
            && (1..=ROWS as i8).contains(&self.y)
            && self.rows.iter().flatten().all(|thing| is_inside(thing.x))
            && (1..=SPAWN_SPEED).contains(&self.spawn_speed)
            && self.spawn_timer <= SPAWN_SPEED
            && (1..=MOVE_SPEED).contains(&self.move_speed)
            && self.move_timer <= MOVE_SPEED
            && (-1..=RAMP_INTERVAL).contains(&self.ramp_timer)
            && self.ramps <= u32::from(SPAWN_SPEED)
    }
}
