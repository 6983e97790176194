//! Space Invaders: shoot the aliens before they land.

use super::rules::{Board, Cells, Played, Random, Rules, is_inside};
use super::{Button, SIDE};
use serde::{Deserialize, Serialize};

/// The cannon's row, and the board's last column.
const LAST: i8 = SIDE as i8 - 1;
/// The columns of a new wave of aliens: 2 to 7.
const COLUMNS: u16 = 0b00_1111_1100;
/// A new wave of aliens: rows 0 to 3.
const WAVE: Cells = Cells([COLUMNS, COLUMNS, COLUMNS, COLUMNS, 0, 0, 0, 0, 0, 0]);
/// Frames between two moves of the first wave; one fewer for each wave that follows, down to `FASTEST`.
const MOVE_SPEED: u8 = 12;
const FASTEST: u8 = 6;
/// Frames from one shot of the player's to the next.
const SHOT_SPEED: u8 = 5;
/// Frames between two shots of the aliens'.
const ALIEN_SHOT_SPEED: u8 = 10;

/// The player moves a cannon along the bottom and shoots upwards. The aliens move sideways together, and at an edge a row
/// down and the other way; the one nearest to the cannon's column shoots.
///
/// Channels: 0 cannon, 1 alien, 2 alien that moves left, 3 alien that moves right, 4 the player's bullets, 5 the aliens'
/// bullets. Minimal actions: noop, left, right, fire. Reward: 1 for each alien. Terminates when an alien or one of their
/// bullets reaches the cannon, or an alien lands. Nothing is left to chance but sticky actions.
///
/// Aliens wait at most as many frames between two moves as there are aliens. With difficulty ramping, each wave that is
/// shot down makes the next wait one frame less at most, from 12 down to 6.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SpaceInvaders {
    x: i8,
    bullets: Cells,
    alien_bullets: Cells,
    aliens: Cells,
    right: bool,
    move_speed: u8,
    move_timer: u8,
    shot_timer: u8,
    alien_shot_timer: u8,
    ramps: u32,
}

impl SpaceInvaders {
    /// The lowest alien of the column nearest to the cannon's, of two the left one.
    fn nearest(&self) -> Option<[i8; 2]> {
        let columns = self.aliens.columns();
        let has = |x: &i8| is_inside(*x) && columns >> x & 1 == 1;
        let x = (0..=LAST).flat_map(|away| [self.x - away, self.x + away]).find(has)?;
        let y = (0..=LAST).rev().find(|y| self.aliens.has(x, *y))?;
        Some([x, y])
    }

    /// One move of all aliens; whether one has landed.
    fn march(&mut self) -> bool {
        let edge = if self.right { 1 << LAST } else { 1 };
        if self.aliens.columns() & edge == 0 {
            for row in &mut self.aliens.0 {
                *row = if self.right { *row << 1 } else { *row >> 1 };
            }
            return false;
        }
        self.right = !self.right;
        // Those that have landed come in again at the top, where the last observation shows them.
        self.aliens.0.rotate_right(1);
        self.aliens.0[0] != 0
    }
}

impl Rules for SpaceInvaders {
    const IDS: [&'static str; 2] = ["MinAtar/SpaceInvaders-v0", "MinAtar/SpaceInvaders-v1"];
    const CHANNELS: usize = 6;
    const MINIMAL: &'static [Button] = &[Button::Noop, Button::Left, Button::Right, Button::Fire];

    fn reset(&mut self, _random: &mut impl Random) {
        *self = Self {
            x: 5,
            bullets: Cells::default(),
            alien_bullets: Cells::default(),
            aliens: WAVE,
            right: false,
            move_speed: MOVE_SPEED,
            move_timer: MOVE_SPEED,
            shot_timer: 0,
            alien_shot_timer: ALIEN_SHOT_SPEED,
            ramps: 0,
        };
    }

    fn act(&mut self, button: Button, ramping: bool, _random: &mut impl Random) -> Played {
        let mut played = Played::default();
        match button {
            Button::Fire if self.shot_timer == 0 => {
                self.bullets.insert(self.x, LAST);
                self.shot_timer = SHOT_SPEED;
            }
            Button::Left => self.x = (self.x - 1).max(0),
            Button::Right => self.x = (self.x + 1).min(LAST),
            _ => {}
        }

        // What moves off the board is gone and leaves an empty row behind.
        self.bullets.0.rotate_left(1);
        self.bullets.0[SIDE - 1] = 0;
        self.alien_bullets.0.rotate_right(1);
        self.alien_bullets.0[0] = 0;
        played.terminated |= self.alien_bullets.has(self.x, LAST) || self.aliens.has(self.x, LAST);

        if self.move_timer == 0 {
            self.move_timer = (self.aliens.count() as u8).min(self.move_speed);
            played.terminated |= self.march();
            played.terminated |= self.aliens.has(self.x, LAST);
        }
        if self.alien_shot_timer == 0 {
            self.alien_shot_timer = ALIEN_SHOT_SPEED;
            if let Some([x, y]) = self.nearest() {
                self.alien_bullets.insert(x, y);
            }
        }

        for (aliens, bullets) in self.aliens.0.iter_mut().zip(&mut self.bullets.0) {
            let hit = *aliens & *bullets;
            played.reward += hit.count_ones();
            *aliens &= !hit;
            *bullets &= !hit;
        }

        self.shot_timer = self.shot_timer.saturating_sub(1);
        self.move_timer -= 1;
        self.alien_shot_timer -= 1;
        if self.aliens.is_empty() {
            if ramping && self.move_speed > FASTEST {
                self.move_speed -= 1;
                self.ramps += 1;
            }
            self.aliens.0[..4].copy_from_slice(&WAVE.0[..4]);
        }
        played
    }

    fn draw(&self, board: &mut Board<'_>) {
        board.set(self.x, LAST, 0);
        board.set_all(&self.aliens, 1);
        board.set_all(&self.aliens, if self.right { 3 } else { 2 });
        board.set_all(&self.bullets, 4);
        board.set_all(&self.alien_bullets, 5);
    }

    fn difficulty_ramp(&self) -> Option<u32> {
        Some(self.ramps)
    }

    fn is_valid(&self) -> bool {
        is_inside(self.x)
            && [&self.bullets, &self.alien_bullets, &self.aliens].into_iter().all(Cells::is_valid)
            // There is always one: the last one shot brings the next wave.
            && !self.aliens.is_empty()
            && (FASTEST..=MOVE_SPEED).contains(&self.move_speed)
            && self.move_timer <= MOVE_SPEED
            && self.shot_timer <= SHOT_SPEED
            && self.alien_shot_timer <= ALIEN_SHOT_SPEED
            && self.ramps <= u32::from(MOVE_SPEED - FASTEST)
    }
}
