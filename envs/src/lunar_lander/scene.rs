//! The drawing: the moon, the flags, the craft and its flames, in the reference's colors.

use super::craft::{HULL, LEG, Motion, SCALE};
use super::engines::{Burn, SIDE_AT};
use super::flight::Flight;
use super::terrain::{FLAGS, HEIGHT, PAD, WIDTH, abscissa};
use crate::{Rgb, Scene, Shape};

const SKY: Rgb = Rgb(0, 0, 0);
const MOON: Rgb = Rgb(255, 255, 255);
const FLAG: Rgb = Rgb(204, 204, 0);
const BODY: Rgb = Rgb(128, 102, 230);
const EDGE: Rgb = Rgb(77, 77, 128);
/// The reference draws its flames as sparks that fade from this.
const FLAME: Rgb = Rgb(242, 127, 51);

/// What is to be seen of `flight`; the empty sky before there is one. Units are those of the reference's drawing.
pub(super) fn draw(flight: Option<&Flight>) -> Scene {
    let mut shapes = Vec::new();
    if let Some(flight) = flight {
        let surface = flight.terrain.points();
        let corners = [[WIDTH, 0.0], [0.0, 0.0]];
        let points = surface.chain(corners).map(|point| point.map(|value| (value * SCALE) as f32)).collect();
        shapes.push(Shape::Polygon { points, color: MOON });
        let (hull, legs) = (flight.craft.hull(), flight.craft.legs());
        flames(&mut shapes, &hull, &flight.burn);
        let [w, h] = LEG;
        body(&mut shapes, &hull, &HULL);
        for leg in &legs {
            body(&mut shapes, leg, &[[-w, -h], [-w, h], [w, h], [w, -h]]);
        }
        for i in FLAGS {
            flag(&mut shapes, (abscissa(i) * SCALE) as f32, (PAD * SCALE) as f32);
        }
    }
    let [width, height] = [WIDTH, HEIGHT].map(|extent| (extent * SCALE) as f32);
    Scene { width, height, background: SKY, shapes }
}

/// Corners, drawing units from a body's origin, where that body is.
fn placed(at: &Motion, corners: &[[f64; 2]]) -> Vec<[f32; 2]> {
    let (sin, cos) = at.angle.sin_cos();
    let [ox, oy] = at.position.map(|value| value * SCALE);
    let place = |[x, y]: &[f64; 2]| [ox + x * cos - y * sin, oy + x * sin + y * cos];
    corners.iter().map(|corner| place(corner).map(|value| value as f32)).collect()
}

fn body(shapes: &mut Vec<Shape>, at: &Motion, corners: &[[f64; 2]]) {
    let points = placed(at, corners);
    let outline = points.iter().chain(points.first()).copied().collect();
    shapes.push(Shape::Polygon { points, color: BODY });
    shapes.push(Shape::Line { points: outline, width: 1.0, color: EDGE });
}

/// As long as the engines are strong.
fn flames(shapes: &mut Vec<Shape>, hull: &Motion, burn: &Burn) {
    let mut add = |corners: [[f64; 2]; 3]| {
        shapes.push(Shape::Polygon { points: placed(hull, &corners), color: FLAME });
    };
    if burn.main > 0.0 {
        add([[-6.0, -10.0], [6.0, -10.0], [0.0, -10.0 - 24.0 * burn.main]]);
    }
    if burn.side > 0.0 {
        // On the side from which it pushes.
        let (out, up) = (-burn.direction * SIDE_AT[0], SIDE_AT[1]);
        add([[out, up + 3.0], [out, up - 3.0], [out - burn.direction * (4.0 + 14.0 * burn.side), up]]);
    }
}

fn flag(shapes: &mut Vec<Shape>, x: f32, y: f32) {
    let top = y + 50.0;
    shapes.push(Shape::Line { points: vec![[x, y], [x, top]], width: 1.0, color: MOON });
    let points = vec![[x, top], [x, top - 10.0], [x + 25.0, top - 5.0]];
    shapes.push(Shape::Polygon { points, color: FLAG });
}
