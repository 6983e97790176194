//! A drawing of a simulation: the shapes of its bodies in parallel projection, without OpenGL.

use crate::{Rgb, Scene, Shape};
use mujoco_rs::prelude::{MjData, MjModel};
use mujoco_rs::wrappers::mj_model::MjtGeomBase;
use std::sync::Arc;

/// Width of a drawing in the scene's units.
const WIDTH: f32 = 640.0;
/// Half the side of the square of floor that is drawn around what is looked at (m).
const FLOOR: f64 = 12.0;
/// Between two lines on the floor (m).
const GRID: f64 = 1.0;

/// From where one looks: along +y, and down by an angle.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// What is seen in x (m).
    pub(super) width: f64,
    /// What is seen upwards (m).
    pub(super) height: f64,
    /// What is in the middle; relative to the followed body in x and y.
    pub(super) center: [f64; 3],
    /// How far one looks down (degrees): 0 from the side, 90 from above.
    pub(super) elevation: f64,
    /// The body that stays in the middle.
    pub(super) follows: Option<usize>,
}

impl View {
    /// From the side, with the first body in the middle.
    pub(super) const SIDE: View =
        View { width: 4.0, height: 2.4, center: [0.0; 3], elevation: 0.0, follows: Some(1) };
    /// The same from above.
    pub(super) const TOP: View = View { elevation: 90.0, ..View::SIDE };
}

/// Where things of the world come to lie in the drawing.
struct Camera {
    center: [f64; 3],
    sin: f64,
    cos: f64,
    scale: f64,
    middle: [f64; 2],
}

impl Camera {
    fn new(view: &View, follows: [f64; 3]) -> Self {
        let (sin, cos) = view.elevation.to_radians().sin_cos();
        let [x, y, z] = view.center;
        let scale = f64::from(WIDTH) / view.width;
        let middle = [view.width, view.height].map(|side| side / 2.0 * scale);
        Self { center: [x + follows[0], y + follows[1], z], sin, cos, scale, middle }
    }

    fn point(&self, place: [f64; 3]) -> [f32; 2] {
        let [x, y, z]: [f64; 3] = std::array::from_fn(|axis| place[axis] - self.center[axis]);
        let up = y * self.sin + z * self.cos;
        [(self.middle[0] + x * self.scale) as f32, (self.middle[1] + up * self.scale) as f32]
    }

    /// How far away something is, but for a constant.
    fn depth(&self, place: [f64; 3]) -> f64 {
        place[1] * self.cos - place[2] * self.sin
    }

    fn length(&self, length: f64) -> f32 {
        (length * self.scale) as f32
    }
}

/// The drawing.
pub(super) fn scene(data: &MjData<Arc<MjModel>>, view: &View) -> Scene {
    let follows = view.follows.map_or([0.0; 3], |body| data.xpos()[body]);
    let camera = Camera::new(view, follows);
    let model = data.model();
    let mut shapes = Vec::new();
    let mut parts: Vec<(f64, Shape)> = Vec::new();
    for (geom, kind) in model.geom_type().iter().enumerate() {
        let [red, green, blue, alpha] = model.geom_rgba()[geom];
        if alpha == 0.0 {
            continue;
        }
        let color = Rgb(byte(red), byte(green), byte(blue));
        let (at, turn) = (data.geom_xpos()[geom], &data.geom_xmat()[geom]);
        let [radius, half, height] = model.geom_size()[geom];
        let depth = camera.depth(at);
        // A point of the shape's own, with its axes turned as they are.
        let place = |local: [f64; 3]| -> [f64; 3] {
            std::array::from_fn(|row| {
                at[row] + (0..3).map(|axis| turn[3 * row + axis] * local[axis]).sum::<f64>()
            })
        };
        match kind {
            MjtGeomBase::mjGEOM_PLANE => floor(&camera, at[2], color, &mut shapes),
            MjtGeomBase::mjGEOM_SPHERE => parts.push((depth, disc(&camera, at, radius, color))),
            MjtGeomBase::mjGEOM_CAPSULE | MjtGeomBase::mjGEOM_CYLINDER => {
                let [low, high] = [place([0.0, 0.0, -half]), place([0.0, 0.0, half])];
                let points = vec![camera.point(low), camera.point(high)];
                let width = camera.length(2.0 * radius);
                // A line to where it starts is none: seen along its axis it is a disc.
                let [dx, dy] = [points[1][0] - points[0][0], points[1][1] - points[0][1]];
                let shape = if dx.hypot(dy) < 0.5 {
                    disc(&camera, at, radius, color)
                } else {
                    Shape::Line { points, width, color }
                };
                parts.push((depth, shape));
            }
            _ => {
                let corner = |i: usize| {
                    let sign = |bit: usize| if i >> bit & 1 == 0 { -1.0 } else { 1.0 };
                    camera.point(place([sign(0) * radius, sign(1) * half, sign(2) * height]))
                };
                let points = hull((0..8).map(corner).collect());
                parts.push((depth, Shape::Polygon { points, color }));
            }
        }
    }
    // What is far away first.
    parts.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    shapes.extend(parts.into_iter().map(|(_, shape)| shape));
    let height = (f64::from(WIDTH) * view.height / view.width) as f32;
    Scene { width: WIDTH, height: height.round(), background: Rgb(255, 255, 255), shapes }
}

fn disc(camera: &Camera, at: [f64; 3], radius: f64, color: Rgb) -> Shape {
    Shape::Circle { center: camera.point(at), radius: camera.length(radius), color }
}

/// The floor and marks on it, by which one sees how far a body gets.
fn floor(camera: &Camera, height: f64, color: Rgb, shapes: &mut Vec<Shape>) {
    let [x, y, _] = camera.center;
    let corner = |dx: f64, dy: f64| camera.point([x + dx * FLOOR, y + dy * FLOOR, height]);
    let (left, right) = (corner(-1.0, -1.0), corner(1.0, -1.0));
    // Lighter than it is, for bodies may have its color.
    let light = |channel: u8| 128 + channel / 2;
    let color = Rgb(light(color.0), light(color.1), light(color.2));
    // Down to the lower edge in front, which is all that is seen of it from the side.
    let bottom = left[1].min(0.0) - 1.0;
    let points = vec![[left[0], bottom], [right[0], bottom], corner(1.0, 1.0), corner(-1.0, 1.0)];
    shapes.push(Shape::Polygon { points, color });
    let dark = Rgb(color.0 / 4 * 3, color.1 / 4 * 3, color.2 / 4 * 3);
    let line = |points: Vec<[f32; 2]>| Shape::Line { points, width: 1.5, color: dark };
    let marks = (2.0 * FLOOR / GRID) as i32;
    for mark in 0..=marks {
        let across = ((x - FLOOR) / GRID).ceil() * GRID + f64::from(mark) * GRID;
        let from = camera.point([across, y - FLOOR, height]);
        let to = camera.point([across, y + FLOOR, height]);
        shapes.push(line(vec![[from[0], from[1].min(bottom)], to]));
        if camera.sin > 0.0 {
            let along = ((y - FLOOR) / GRID).ceil() * GRID + f64::from(mark) * GRID;
            let ends = [-FLOOR, FLOOR].map(|dx| camera.point([x + dx, along, height]));
            shapes.push(line(ends.to_vec()));
        }
    }
}

/// The corners of the smallest convex polygon around some points, counter-clockwise (Andrew's monotone chain).
fn hull(mut points: Vec<[f32; 2]>) -> Vec<[f32; 2]> {
    points.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
    let side = |points: &mut dyn Iterator<Item = [f32; 2]>| {
        let mut chain: Vec<[f32; 2]> = Vec::new();
        for point in points {
            while let [.., a, b] = chain[..] {
                if (b[0] - a[0]) * (point[1] - a[1]) - (b[1] - a[1]) * (point[0] - a[0]) > 0.0 {
                    break;
                }
                chain.pop();
            }
            chain.push(point);
        }
        chain.pop();
        chain
    };
    let mut lower = side(&mut points.iter().copied());
    lower.extend(side(&mut points.iter().rev().copied()));
    lower
}

fn byte(share: f32) -> u8 {
    (share.clamp(0.0, 1.0) * 255.0).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hull_has_the_outer_points_in_order() {
        let square = vec![[1.0, 1.0], [0.0, 0.0], [0.5, 0.5], [1.0, 0.0], [0.0, 1.0], [0.5, 0.0]];
        assert_eq!(hull(square), [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]);
    }

    #[test]
    fn the_side_shows_x_and_z_and_the_top_x_and_y() {
        let follows = [3.0, 0.0, 9.0];
        let side = Camera::new(&View::SIDE, follows);
        let (middle, right) = (side.point([3.0, 0.0, 0.0]), side.point([4.0, 5.0, 0.0]));
        assert_eq!((right[0] - middle[0], right[1]), (160.0, middle[1]), "160 units a metre; y is not seen");
        assert_eq!(side.point([3.0, 0.0, 1.0]), [middle[0], middle[1] + 160.0]);
        let top = Camera::new(&View::TOP, follows);
        let (middle, up) = (top.point([3.0, 0.0, 0.0]), top.point([3.0, 1.0, 7.0]));
        assert_eq!((up[0], (up[1] - middle[1]).round()), (middle[0], 160.0), "z is not seen");
    }
}
