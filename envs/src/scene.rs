//! Drawings of environments, free of any resolution.

/// A drawing: shapes on a plane, later ones over earlier ones.
///
/// Lengths are in the scene's own units. The origin is the lower left corner, x goes right and y goes up, as in the
/// environments' own coordinates; a renderer scales the whole and turns it the way its pixels go.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// Extent in x.
    pub width: f32,
    /// Extent in y.
    pub height: f32,
    /// The color behind everything.
    pub background: Rgb,
    /// What is drawn, from back to front. Parts outside the extent are not seen.
    pub shapes: Vec<Shape>,
}

/// Red, green and blue, 0 to 255 each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rgb(pub u8, pub u8, pub u8);

/// Something that is drawn.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// A filled polygon; the last corner joins the first.
    Polygon {
        /// Corners, x and y.
        points: Vec<[f32; 2]>,
        /// Fill.
        color: Rgb,
    },
    /// A line from point to point, open at its ends.
    Line {
        /// Points, x and y.
        points: Vec<[f32; 2]>,
        /// Thickness in the scene's units; a renderer draws at least one pixel.
        width: f32,
        /// Stroke.
        color: Rgb,
    },
    /// A filled circle.
    Circle {
        /// Center, x and y.
        center: [f32; 2],
        /// Radius in the scene's units.
        radius: f32,
        /// Fill.
        color: Rgb,
    },
    /// Pixels over the whole of the scene.
    Picture {
        /// Pixels in a row.
        width: usize,
        /// Rows.
        height: usize,
        /// Red, green and blue of each pixel, row after row from the top: `height` · `width` · 3 bytes.
        rgb: Vec<u8>,
    },
}

impl Shape {
    /// A filled rectangle: from `start` on the local x axis to `end`, `half` to either side of it, turned by `angle`
    /// radians counter-clockwise about the local origin, which comes to lie at `at`.
    pub fn bar(at: [f32; 2], angle: f32, start: f32, end: f32, half: f32, color: Rgb) -> Self {
        let (sin, cos) = angle.sin_cos();
        let corners = [[start, -half], [start, half], [end, half], [end, -half]];
        let points = corners.map(|[x, y]| [at[0] + x * cos - y * sin, at[1] + x * sin + y * cos]).to_vec();
        Shape::Polygon { points, color }
    }
}
