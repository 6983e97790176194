//! The moon's surface.

use super::flight::Chance;

/// Extent of the world in x, m.
pub(super) const WIDTH: f64 = 600.0 / super::craft::SCALE;
/// Extent of the world in y, m.
pub(super) const HEIGHT: f64 = 400.0 / super::craft::SCALE;
/// Points of the surface, from edge to edge at equal distances.
pub(super) const POINTS: usize = 11;
/// Where the landing pad is, m: as high as this, between the two points beside the middle.
pub(super) const PAD: f64 = HEIGHT / 4.0;
/// The points between which the flags stand.
pub(super) const FLAGS: [usize; 2] = [POINTS / 2 - 1, POINTS / 2 + 1];

/// Heights of the surface at its points, m.
#[derive(Clone, Debug)]
pub(super) struct Terrain([f64; POINTS]);

impl Terrain {
    /// Hills from anew: uniform heights up to half the world's, flat around the pad, each then averaged with its neighbours.
    pub(super) fn draw(chance: &mut impl Chance) -> Self {
        // The last one has no place of its own: it is the left neighbour of the first.
        let mut rough: [f64; POINTS + 1] = std::array::from_fn(|_| chance.uniform(0.0, HEIGHT / 2.0));
        rough[POINTS / 2 - 2..=POINTS / 2 + 2].fill(PAD);
        Self(std::array::from_fn(|i| {
            0.33 * (rough[i.checked_sub(1).unwrap_or(POINTS)] + rough[i] + rough[i + 1])
        }))
    }

    /// Where point number `i` is, m.
    pub(super) fn point(&self, i: usize) -> [f64; 2] {
        [abscissa(i), self.0[i]]
    }

    /// All points from left to right.
    pub(super) fn points(&self) -> impl Iterator<Item = [f64; 2]> {
        (0..POINTS).map(|i| self.point(i))
    }
}

/// Where point number `i` is in x, m.
pub(super) fn abscissa(i: usize) -> f64 {
    WIDTH / (POINTS - 1) as f64 * i as f64
}
