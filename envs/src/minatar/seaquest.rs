//! Seaquest: rescue divers by submarine, shoot what comes in between, and come up for air.

use super::rules::{Board, Played, Random, Rules, is_inside, sign};
use super::{Button, SIDE};
use serde::{Deserialize, Serialize};

/// Oxygen of a full tank: one a frame below the surface.
const OXYGEN: i16 = 200;
/// Frames between two enemies at first; one fewer with each ramp, down to 1.
const ENEMY_SPAWN_SPEED: u8 = 20;
/// Frames between two divers.
const DIVER_SPAWN_SPEED: u8 = 30;
/// Frames an enemy waits between two moves at first; one fewer with every other ramp, down to `FASTEST`.
const MOVE_SPEED: u8 = 5;
const FASTEST: u8 = 2;
/// Frames a diver waits between two moves.
const DIVER_MOVE_SPEED: u8 = 5;
/// Frames from one shot of the player's to the next.
const SHOT_SPEED: u8 = 5;
/// Frames an enemy submarine waits between two shots.
const ENEMY_SHOT_SPEED: u8 = 10;
/// Divers on board that are worth coming up with.
const ALL_DIVERS: i32 = 6;
/// The lowest row of water; the gauges are below.
const DEEPEST: i8 = SIDE as i8 - 2;

/// The player moves a submarine in all four directions and shoots the way it faces. Fish and submarines come from both
/// sides, and the latter shoot; divers come to be picked up, six at most.
///
/// Channels: 0 front and 1 back of the submarine, 2 its bullets, 3 trail (the cell behind each enemy or diver, which tells
/// its direction), 4 enemy bullet, 5 enemy fish, 6 enemy submarine, 7 oxygen gauge and 8 diver gauge in the bottom row,
/// 9 diver. Minimal actions: all six. Reward: 1 for each enemy shot; on coming up with six divers, 1 for every 20 left of 200
/// frames of oxygen. Terminates when an enemy or its bullet touches the front, when the oxygen is used up, and on coming up
/// without a diver.
///
/// Coming up fills the tank and costs a diver. With six they are all delivered and then, as in the package, one more is
/// taken: the count goes to −1, so that the next diver to be picked up is not one to come up with, and, as only a count of 0
/// is fatal, coming up without any is not. With difficulty ramping, each coming up makes enemies come one frame sooner after
/// each other, and every other one makes them also move one frame sooner.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Seaquest {
    x: i8,
    y: i8,
    right: bool,
    oxygen: i16,
    divers_aboard: i32,
    /// Whether it has been up since it last dived.
    surfaced: bool,
    shot_timer: u8,
    enemy_spawn_speed: u8,
    enemy_spawn_timer: u8,
    diver_spawn_timer: u8,
    move_speed: u8,
    ramps: u32,
    bullets: Vec<Swimmer>,
    enemy_bullets: Vec<Swimmer>,
    fish: Vec<Swimmer>,
    subs: Vec<Sub>,
    divers: Vec<Swimmer>,
}

/// Whatever goes its way along a row.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Swimmer {
    x: i8,
    y: i8,
    right: bool,
    /// Frames until it moves; bullets, which always move, have 0.
    timer: u8,
}

/// An enemy submarine.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Sub {
    hull: Swimmer,
    /// Frames until it shoots.
    shot_timer: u8,
}

impl Swimmer {
    fn at(&self) -> [i8; 2] {
        [self.x, self.y]
    }

    fn advance(&mut self) {
        self.x += sign(self.right);
    }

    /// Counts down, and moves when the count had come to its end; whether it moved.
    fn wait(&mut self, speed: u8) -> bool {
        if self.timer > 0 {
            self.timer -= 1;
            return false;
        }
        self.timer = speed;
        self.advance();
        true
    }

    fn is_valid(&self, speed: u8) -> bool {
        is_inside(self.x) && (1..=DEEPEST).contains(&self.y) && self.timer <= speed
    }
}

impl Seaquest {
    fn at(&self) -> [i8; 2] {
        [self.x, self.y]
    }

    /// A fish or a submarine, unless something comes the other way in its row.
    fn spawn_enemy(&mut self, random: &mut impl Random) {
        let right = random.unit() < 1.0 / 2.0;
        let armed = random.unit() < 1.0 / 3.0;
        let hull = swimmer(right, random, self.move_speed);
        let mut others = self.fish.iter().chain(self.subs.iter().map(|sub| &sub.hull));
        if others.any(|other| other.y == hull.y && other.right != right) {
            return;
        }
        if armed {
            self.subs.push(Sub { hull, shot_timer: ENEMY_SHOT_SPEED });
        } else {
            self.fish.push(hull);
        }
    }

    fn spawn_diver(&mut self, random: &mut impl Random) {
        let right = random.unit() < 1.0 / 2.0;
        self.divers.push(swimmer(right, random, DIVER_MOVE_SPEED));
    }

    fn press(&mut self, button: Button) {
        match button {
            Button::Fire if self.shot_timer == 0 => {
                self.bullets.push(Swimmer { x: self.x, y: self.y, right: self.right, timer: 0 });
                self.shot_timer = SHOT_SPEED;
            }
            Button::Left => {
                self.x = (self.x - 1).max(0);
                self.right = false;
            }
            Button::Right => {
                self.x = (self.x + 1).min(SIDE as i8 - 1);
                self.right = true;
            }
            Button::Up => self.y = (self.y - 1).max(0),
            Button::Down => self.y = (self.y + 1).min(DEEPEST),
            Button::Fire | Button::Noop => {}
        }
    }

    // Each kind of thing moves in turn, the youngest first. What goes is taken out by its place; the package takes out the
    // first that is equal to it, which is the same for all that follows, since equal things do the same.

    fn move_bullets(&mut self, played: &mut Played) {
        for i in (0..self.bullets.len()).rev() {
            self.bullets[i].advance();
            let at = self.bullets[i].at();
            if !is_inside(at[0]) {
                self.bullets.remove(i);
            } else if let Some(fish) = self.fish.iter().position(|fish| fish.at() == at) {
                self.fish.remove(fish);
                self.bullets.remove(i);
                played.reward += 1;
            } else if let Some(sub) = self.subs.iter().position(|sub| sub.hull.at() == at) {
                self.subs.remove(sub);
                self.bullets.remove(i);
                played.reward += 1;
            }
        }
    }

    fn move_divers(&mut self) {
        let at = self.at();
        for i in (0..self.divers.len()).rev() {
            let diver = &mut self.divers[i];
            let has_room = self.divers_aboard < ALL_DIVERS;
            let mut aboard = diver.at() == at && has_room;
            if !aboard && diver.wait(DIVER_MOVE_SPEED) {
                aboard = diver.at() == at && has_room;
            }
            let gone = !is_inside(diver.x);
            if aboard || gone {
                self.divers.remove(i);
                self.divers_aboard += i32::from(aboard);
            }
        }
    }

    fn move_subs(&mut self, played: &mut Played) {
        let at = self.at();
        for i in (0..self.subs.len()).rev() {
            let sub = &mut self.subs[i];
            played.terminated |= sub.hull.at() == at;
            let moved = sub.hull.wait(self.move_speed);
            let mut sub = *sub;
            let gone = moved && self.is_gone(sub.hull, played);
            // One that has just been shot or left still shoots, if it was about to.
            if sub.shot_timer == 0 {
                sub.shot_timer = ENEMY_SHOT_SPEED;
                self.enemy_bullets.push(Swimmer { timer: 0, ..sub.hull });
            } else {
                sub.shot_timer -= 1;
            }
            if gone {
                self.subs.remove(i);
            } else {
                self.subs[i] = sub;
            }
        }
    }

    fn move_enemy_bullets(&mut self, played: &mut Played) {
        let at = self.at();
        for i in (0..self.enemy_bullets.len()).rev() {
            let bullet = &mut self.enemy_bullets[i];
            played.terminated |= bullet.at() == at;
            bullet.advance();
            played.terminated |= bullet.at() == at;
            if !is_inside(bullet.x) {
                self.enemy_bullets.remove(i);
            }
        }
    }

    fn move_fish(&mut self, played: &mut Played) {
        let at = self.at();
        for i in (0..self.fish.len()).rev() {
            let fish = &mut self.fish[i];
            played.terminated |= fish.at() == at;
            let moved = fish.wait(self.move_speed);
            let fish = *fish;
            if moved && self.is_gone(fish, played) {
                self.fish.remove(i);
            }
        }
    }

    /// Whether an enemy that has moved is gone: it may have left, or have run into a bullet, which then goes with it. Or it
    /// has run into the player.
    fn is_gone(&mut self, enemy: Swimmer, played: &mut Played) -> bool {
        if !is_inside(enemy.x) {
            return true;
        }
        if enemy.at() == self.at() {
            played.terminated = true;
            return false;
        }
        let Some(bullet) = self.bullets.iter().position(|bullet| bullet.at() == enemy.at()) else {
            return false;
        };
        self.bullets.remove(bullet);
        played.reward += 1;
        true
    }

    /// Comes up with at least one diver, or with fewer than none.
    fn surface(&mut self, ramping: bool, played: &mut Played) {
        self.surfaced = true;
        if self.divers_aboard == ALL_DIVERS {
            self.divers_aboard = 0;
            played.reward += self.gauge() as u32;
        }
        self.oxygen = OXYGEN;
        self.divers_aboard = self.divers_aboard.saturating_sub(1);
        if ramping && (self.enemy_spawn_speed > 1 || self.move_speed > FASTEST) {
            if self.move_speed > FASTEST && self.ramps % 2 == 1 {
                self.move_speed -= 1;
            }
            if self.enemy_spawn_speed > 1 {
                self.enemy_spawn_speed -= 1;
            }
            self.ramps += 1;
        }
    }

    /// Tenths of a full tank.
    fn gauge(&self) -> i16 {
        self.oxygen.max(0) * 10 / OXYGEN
    }
}

/// Something that comes in at the edge, in any row under water.
fn swimmer(right: bool, random: &mut impl Random, timer: u8) -> Swimmer {
    let y = 1 + random.below(DEEPEST as u32) as i8;
    Swimmer { x: if right { 0 } else { SIDE as i8 - 1 }, y, right, timer }
}

impl Rules for Seaquest {
    const IDS: [&'static str; 2] = ["MinAtar/Seaquest-v0", "MinAtar/Seaquest-v1"];
    const CHANNELS: usize = 10;
    const MINIMAL: &'static [Button] = &Button::ALL;

    fn reset(&mut self, _random: &mut impl Random) {
        // Lists keep their memory from one episode to the next.
        let empty = |list: &mut Vec<Swimmer>| {
            list.clear();
            std::mem::take(list)
        };
        self.subs.clear();
        *self = Self {
            x: 5,
            y: 0,
            right: false,
            oxygen: OXYGEN,
            divers_aboard: 0,
            surfaced: true,
            shot_timer: 0,
            enemy_spawn_speed: ENEMY_SPAWN_SPEED,
            enemy_spawn_timer: ENEMY_SPAWN_SPEED,
            diver_spawn_timer: DIVER_SPAWN_SPEED,
            move_speed: MOVE_SPEED,
            ramps: 0,
            bullets: empty(&mut self.bullets),
            enemy_bullets: empty(&mut self.enemy_bullets),
            fish: empty(&mut self.fish),
            subs: std::mem::take(&mut self.subs),
            divers: empty(&mut self.divers),
        };
    }

    fn act(&mut self, button: Button, ramping: bool, random: &mut impl Random) -> Played {
        let mut played = Played::default();
        if self.enemy_spawn_timer == 0 {
            self.spawn_enemy(random);
            self.enemy_spawn_timer = self.enemy_spawn_speed;
        }
        if self.diver_spawn_timer == 0 {
            self.spawn_diver(random);
            self.diver_spawn_timer = DIVER_SPAWN_SPEED;
        }
        self.press(button);
        self.move_bullets(&mut played);
        self.move_divers();
        self.move_subs(&mut played);
        self.move_enemy_bullets(&mut played);
        self.move_fish(&mut played);

        self.enemy_spawn_timer -= 1;
        self.diver_spawn_timer -= 1;
        self.shot_timer = self.shot_timer.saturating_sub(1);
        played.terminated |= self.oxygen <= 0;
        if self.y > 0 {
            self.oxygen -= 1;
            self.surfaced = false;
        } else if !self.surfaced {
            if self.divers_aboard == 0 {
                played.terminated = true;
            } else {
                self.surface(ramping, &mut played);
            }
        }
        played
    }

    fn draw(&self, board: &mut Board<'_>) {
        let gauges = SIDE as i8 - 1;
        board.set(self.x, self.y, 0);
        board.set(self.x - sign(self.right), self.y, 1);
        for x in 0..self.gauge() {
            board.set(x as i8, gauges, 7);
        }
        for i in 0..self.divers_aboard {
            board.set(gauges - 1 - i as i8, gauges, 8);
        }
        let mut draw = |thing: &Swimmer, channel: usize, trail: bool| {
            board.set(thing.x, thing.y, channel);
            if trail {
                board.set(thing.x - sign(thing.right), thing.y, 3);
            }
        };
        self.bullets.iter().for_each(|bullet| draw(bullet, 2, false));
        self.enemy_bullets.iter().for_each(|bullet| draw(bullet, 4, false));
        self.fish.iter().for_each(|fish| draw(fish, 5, true));
        self.subs.iter().for_each(|sub| draw(&sub.hull, 6, true));
        self.divers.iter().for_each(|diver| draw(diver, 9, true));
    }

    fn difficulty_ramp(&self) -> Option<u32> {
        Some(self.ramps)
    }

    fn is_valid(&self) -> bool {
        // The player can shoot from the surface.
        let bullet = |bullet: &Swimmer| is_inside(bullet.x) && (0..=DEEPEST).contains(&bullet.y);
        is_inside(self.x)
            && is_inside(self.x - sign(self.right))
            && (0..=DEEPEST).contains(&self.y)
            && (-1..=OXYGEN).contains(&self.oxygen)
            && self.divers_aboard <= ALL_DIVERS
            && self.shot_timer <= SHOT_SPEED
            && (1..=ENEMY_SPAWN_SPEED).contains(&self.enemy_spawn_speed)
            && self.diver_spawn_timer <= DIVER_SPAWN_SPEED
            && self.enemy_spawn_timer <= ENEMY_SPAWN_SPEED
            && (FASTEST..=MOVE_SPEED).contains(&self.move_speed)
            && self.ramps <= u32::from(ENEMY_SPAWN_SPEED)
            && self.bullets.iter().chain(&self.enemy_bullets).all(bullet)
            && self.fish.iter().all(|fish| fish.is_valid(MOVE_SPEED))
            && self.subs.iter().all(|sub| sub.hull.is_valid(MOVE_SPEED) && sub.shot_timer <= ENEMY_SHOT_SPEED)
            && self.divers.iter().all(|diver| diver.is_valid(DIVER_MOVE_SPEED))
    }
}
