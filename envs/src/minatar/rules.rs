//! What the five games share: what a game does, the board it draws itself on, sets of cells, and where chance comes from.

use super::{Button, SIDE};
use crate::episode::Episode;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fmt::Debug;

/// A game without its environment. Public in name only, as the bound of [`Game`](super::Game).
pub trait Rules: Clone + Debug + Default + Send + Serialize + DeserializeOwned + 'static {
    /// The ids with the full and with the minimal action set.
    const IDS: [&'static str; 2];
    /// Channels of an observation.
    const CHANNELS: usize;
    /// The buttons that do something.
    const MINIMAL: &'static [Button];

    /// Starts an episode.
    fn reset(&mut self, random: &mut impl Random);

    /// One frame with `button` pressed. Not called again after the one that terminated until a reset.
    fn act(&mut self, button: Button, ramping: bool, random: &mut impl Random) -> Played;

    /// Turns on what is to be seen on `board`, which is all off.
    fn draw(&self, board: &mut Board<'_>);

    /// How many times the game has become harder; `None` if it never does.
    fn difficulty_ramp(&self) -> Option<u32>;

    /// Whether this is a state that `act` and `draw` can go on from: saved bytes may say anything.
    fn is_valid(&self) -> bool;
}

/// What a frame brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Played {
    /// Points.
    pub reward: u32,
    /// Whether it was the last one.
    pub terminated: bool,
}

/// Where chance comes from: the environment's generator, or NumPy's in the tests.
pub trait Random {
    /// A uniform number in [0, 1).
    fn unit(&mut self) -> f64;

    /// A uniform whole number below `n`, which is at least 1.
    fn below(&mut self, n: u32) -> u32;
}

impl Random for Episode {
    fn unit(&mut self) -> f64 {
        self.uniform(0.0, 1.0)
    }

    fn below(&mut self, n: u32) -> u32 {
        // 53 bits over a handful of numbers: none is likelier than another by more than n·2⁻⁵³.
        (self.uniform(0.0, 1.0) * f64::from(n)) as u32
    }
}

/// Whether a column is on the board.
pub fn is_inside(x: i8) -> bool {
    (0..SIDE as i8).contains(&x)
}

/// 1 to the right, −1 to the left.
pub fn sign(right: bool) -> i8 {
    if right { 1 } else { -1 }
}

/// An observation being written.
pub struct Board<'a> {
    cells: &'a mut [u8],
    channels: usize,
}

impl<'a> Board<'a> {
    /// The board whose cells are `[10, 10, channels]`.
    pub fn new(cells: &'a mut [u8], channels: usize) -> Self {
        Self { cells, channels }
    }

    /// Turns on `channel` in column `x` of row `y`. Beyond the left and the right edge there is nothing to turn on: a trail
    /// may lie there.
    #[inline]
    pub fn set(&mut self, x: i8, y: i8, channel: usize) {
        if is_inside(x) {
            self.cells[(y as usize * SIDE + x as usize) * self.channels + channel] = 1;
        }
    }

    /// Turns on `channel` in all of `cells` and off in all others.
    #[inline]
    pub fn set_all(&mut self, cells: &Cells, channel: usize) {
        let rows = self.cells.chunks_exact_mut(SIDE * self.channels);
        for (row, bits) in rows.zip(cells.0).filter(|(_, bits)| *bits != 0) {
            for (x, cell) in row.chunks_exact_mut(self.channels).enumerate() {
                cell[channel] = (bits >> x & 1) as u8;
            }
        }
    }
}

/// A set of cells: of each row from the top the columns, column x as bit x.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cells(pub [u16; SIDE]);

impl Cells {
    /// All columns of a row.
    pub const ROW: u16 = (1 << SIDE) - 1;

    /// Whether column `x` of row `y` is in it.
    pub fn has(&self, x: i8, y: i8) -> bool {
        self.0[y as usize] >> x & 1 == 1
    }

    /// Puts column `x` of row `y` in.
    pub fn insert(&mut self, x: i8, y: i8) {
        self.0[y as usize] |= 1 << x;
    }

    /// Takes column `x` of row `y` out.
    pub fn remove(&mut self, x: i8, y: i8) {
        self.0[y as usize] &= !(1 << x);
    }

    /// How many cells it has.
    pub fn count(&self) -> u32 {
        self.0.iter().map(|row| row.count_ones()).sum()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; SIDE]
    }

    /// The columns in which it has cells.
    pub fn columns(&self) -> u16 {
        self.0.iter().fold(0, |columns, row| columns | row)
    }

    /// Whether every cell is on the board.
    pub fn is_valid(&self) -> bool {
        self.columns() & !Self::ROW == 0
    }
}
