//! Breakout: bounce a ball against bricks.

use super::rules::{Board, Cells, Played, Random, Rules, is_inside, sign};
use super::{Button, SIDE};
use serde::{Deserialize, Serialize};

/// The paddle's row.
const BOTTOM: i8 = SIDE as i8 - 1;
/// The bricks of a new wall: rows 1 to 3.
const WALL: Cells = Cells([0, Cells::ROW, Cells::ROW, Cells::ROW, 0, 0, 0, 0, 0, 0]);

/// The player moves a paddle of one cell along the bottom and bounces a ball, which moves diagonally, one cell a frame.
///
/// Channels: 0 paddle, 1 ball, 2 trail (where the ball was), 3 brick. Minimal actions: noop, left, right. Reward: 1 for each
/// brick. When none is left, three new rows come with the ball's next arrival at the bottom. Terminates when the ball
/// passes the paddle. The ball starts at the left or at the right edge; nothing else is left to chance, and the difficulty
/// does not ramp.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Breakout {
    paddle: i8,
    ball: [i8; 2],
    /// Where the ball was a frame ago.
    last: [i8; 2],
    right: bool,
    down: bool,
    bricks: Cells,
    /// Whether the ball was at a brick in the frame before: it then passes through the next.
    strike: bool,
}

impl Rules for Breakout {
    const IDS: [&'static str; 2] = ["MinAtar/Breakout-v0", "MinAtar/Breakout-v1"];
    const CHANNELS: usize = 4;
    const MINIMAL: &'static [Button] = &[Button::Noop, Button::Left, Button::Right];

    fn reset(&mut self, random: &mut impl Random) {
        let right = random.below(2) == 0;
        let ball = [if right { 0 } else { SIDE as i8 - 1 }, 3];
        *self = Self { paddle: 4, ball, last: ball, right, down: true, bricks: WALL, strike: false };
    }

    fn act(&mut self, button: Button, _ramping: bool, _random: &mut impl Random) -> Played {
        let mut played = Played::default();
        match button {
            Button::Left => self.paddle = (self.paddle - 1).max(0),
            Button::Right => self.paddle = (self.paddle + 1).min(BOTTOM),
            _ => {}
        }

        self.last = self.ball;
        let [last_x, last_y] = self.last;
        // A ball that has passed the paddle would stay at the bottom.
        let (mut x, mut y) = (last_x + sign(self.right), (last_y + sign(self.down)).min(BOTTOM));
        if !is_inside(x) {
            x = last_x;
            self.right = !self.right;
        }
        let mut strike = false;
        if y < 0 {
            y = 0;
            self.down = true;
        } else if self.bricks.has(x, y) {
            strike = true;
            if !self.strike {
                played.reward = 1;
                self.bricks.remove(x, y);
                y = last_y;
                self.down = !self.down;
            }
        } else if y == BOTTOM {
            if self.bricks.is_empty() {
                self.bricks = WALL;
            }
            // Straight onto the paddle it bounces as from a wall; onto its edge, back where it came from.
            if last_x == self.paddle || x == self.paddle {
                if last_x != self.paddle {
                    self.right = !self.right;
                }
                self.down = false;
                y = last_y;
            } else {
                played.terminated = true;
            }
        }
        self.strike = strike;
        self.ball = [x, y];
        played
    }

    fn draw(&self, board: &mut Board<'_>) {
        board.set(self.paddle, BOTTOM, 0);
        board.set(self.ball[0], self.ball[1], 1);
        board.set(self.last[0], self.last[1], 2);
        board.set_all(&self.bricks, 3);
    }

    fn difficulty_ramp(&self) -> Option<u32> {
        None
    }

    fn is_valid(&self) -> bool {
        // Rows are as many as columns.
        [[self.paddle, 0], self.ball, self.last].as_flattened().iter().all(|place| is_inside(*place))
            && self.bricks.0.iter().zip(WALL.0).all(|(row, wall)| row & !wall == 0)
    }
}
