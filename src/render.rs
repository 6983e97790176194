//! Drawings of environments as pixels, as GIF animations, and as text for a terminal.

use rl_envs::{Rgb, Scene, Shape};
use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use tiny_skia::{
    Color, ColorU8, FillRule, FilterQuality, LineCap, LineJoin, Paint, PathBuilder, Pixmap, PixmapPaint,
    Stroke, Transform,
};

/// Why a picture was not made.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A picture without pixels, or with more than memory can hold.
    #[error(
        "a picture of {width} x {height} pixels cannot be made; give at least 1 x 1, and at most 65535 x 65535 for a GIF"
    )]
    Size {
        /// Width asked for.
        width: u32,
        /// Height asked for.
        height: u32,
    },
    /// A frame rate that GIF viewers do not play.
    #[error(
        "a GIF cannot show {fps} frames a second: its frames last whole hundredths of a second, and viewers slow down those of less than two; give 1 to 50"
    )]
    FrameRate {
        /// What came.
        fps: u32,
    },
    /// The file could not be created.
    #[error("cannot create '{path}': {source}")]
    Create {
        /// Its path.
        path: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A frame could not be written.
    #[error("cannot write the GIF: {0}")]
    Write(#[from] gif::EncodingError),
}

/// `scene` as opaque RGBA pixels, scaled to fit `width` × `height` and centered; the rest gets the scene's background.
///
/// # Errors
/// [`RenderError::Size`] when a side is 0 or the picture is too large for memory.
pub fn pixels(scene: &Scene, width: u32, height: u32) -> Result<Pixmap, RenderError> {
    let mut canvas = Pixmap::new(width, height).ok_or(RenderError::Size { width, height })?;
    draw(scene, &mut canvas);
    Ok(canvas)
}

/// Draws `scene` over all of `canvas`.
fn draw(scene: &Scene, canvas: &mut Pixmap) {
    canvas.fill(color(scene.background));
    let (width, height) = (canvas.width() as f32, canvas.height() as f32);
    let scale = (width / scene.width).min(height / scene.height);
    // Pixels count downwards, scenes upwards.
    let (left, bottom) = ((width - scale * scene.width) / 2.0, (height + scale * scene.height) / 2.0);
    let place = Transform::from_row(scale, 0.0, 0.0, -scale, left, bottom);
    for shape in &scene.shapes {
        let mut path = PathBuilder::new();
        let fill = match shape {
            Shape::Polygon { color, .. } | Shape::Line { color, .. } | Shape::Circle { color, .. } => color,
            Shape::Picture { width, height, rgb } => {
                show(rgb, *width, *height, scene, place, canvas);
                continue;
            }
        };
        let mut paint = Paint::default();
        paint.set_color(color(*fill));
        match shape {
            Shape::Polygon { points, .. } => {
                trace(&mut path, points);
                path.close();
            }
            Shape::Line { points, .. } => trace(&mut path, points),
            Shape::Circle { center, radius, .. } => path.push_circle(center[0], center[1], *radius),
            Shape::Picture { .. } => {}
        }
        // No path comes of less than two points or of numbers that are not finite: then there is nothing to see.
        let Some(path) = path.finish() else { continue };
        if let Shape::Line { width, .. } = shape {
            // At least a pixel, or thin lines fade in small pictures.
            let width = width.max(1.0 / scale);
            let stroke =
                Stroke { width, line_cap: LineCap::Round, line_join: LineJoin::Round, ..Stroke::default() };
            canvas.stroke_path(&path, &paint, &stroke, place, None);
        } else {
            canvas.fill_path(&path, &paint, FillRule::Winding, place, None);
        }
    }
}

/// Draws a picture over the whole of `scene`. One without pixels, or with others than it says, is not seen.
fn show(rgb: &[u8], width: usize, height: usize, scene: &Scene, place: Transform, canvas: &mut Pixmap) {
    let size = (u32::try_from(width), u32::try_from(height));
    let (Ok(w), Ok(h)) = size else { return };
    let Some(mut picture) = Pixmap::new(w, h).filter(|_| rgb.len() == width * height * 3) else { return };
    for (pixel, rgb) in picture.pixels_mut().iter_mut().zip(rgb.chunks_exact(3)) {
        *pixel = ColorU8::from_rgba(rgb[0], rgb[1], rgb[2], 255).premultiply();
    }
    // From pixels, which count downwards, to the scene's units.
    let (across, up) = (scene.width / width as f32, scene.height / height as f32);
    let to_scene = Transform::from_row(across, 0.0, 0.0, -up, 0.0, scene.height);
    let place = place.pre_concat(to_scene);
    // Pixel for pixel as it is; otherwise smoothed, or thin lines come and go.
    let exact = place.sx == 1.0 && place.sy == 1.0;
    let quality = if exact { FilterQuality::Nearest } else { FilterQuality::Bilinear };
    let paint = PixmapPaint { quality, ..PixmapPaint::default() };
    canvas.draw_pixmap(0, 0, picture.as_ref(), &paint, place, None);
}

fn trace(path: &mut PathBuilder, points: &[[f32; 2]]) {
    for (i, [x, y]) in points.iter().enumerate() {
        if i == 0 { path.move_to(*x, *y) } else { path.line_to(*x, *y) }
    }
}

fn color(Rgb(red, green, blue): Rgb) -> Color {
    Color::from_rgba8(red, green, blue, 255)
}

/// Writes scenes as the frames of an endless GIF.
///
/// A frame holds only the rectangle in which it differs from the one before, with a palette of its own: the scene's colors
/// exactly, and the shades of smoothed edges to 5 bits a channel, which is all that such drawings have.
pub struct GifWriter<W: Write> {
    encoder: gif::Encoder<W>,
    fps: u32,
    frames: u64,
    canvas: Pixmap,
    shown: Pixmap,
    palette: Palette,
}

impl GifWriter<BufWriter<File>> {
    /// A GIF in a new file at `path`; a file that is there already is replaced. Otherwise as [`GifWriter::new`].
    ///
    /// # Errors
    /// [`RenderError::Create`] when the file cannot be created, and those of [`GifWriter::new`].
    pub fn create(path: &Path, width: u16, height: u16, fps: u32) -> Result<Self, RenderError> {
        // What can be refused without touching a file that may be there is refused first.
        check(width, height, fps)?;
        let file = File::create(path)
            .map_err(|source| RenderError::Create { path: path.display().to_string(), source })?;
        Self::new(BufWriter::new(file), width, height, fps)
    }
}

impl<W: Write> GifWriter<W> {
    /// A GIF of `width` × `height` pixels written to `out`, at `fps` frames a second (kept on average where a frame is no
    /// whole number of hundredths of a second).
    ///
    /// # Errors
    /// [`RenderError::Size`] when a side is 0, [`RenderError::FrameRate`] when `fps` is not 1 to 50, and
    /// [`RenderError::Write`] when `out` refuses.
    pub fn new(out: W, width: u16, height: u16, fps: u32) -> Result<Self, RenderError> {
        check(width, height, fps)?;
        let (w, h) = (u32::from(width), u32::from(height));
        let canvas = Pixmap::new(w, h).ok_or(RenderError::Size { width: w, height: h })?;
        let mut encoder = gif::Encoder::new(out, width, height, &[])?;
        encoder.set_repeat(gif::Repeat::Infinite)?;
        // Transparent, so that the whole first frame differs from it.
        let shown = canvas.clone();
        Ok(Self { encoder, fps, frames: 0, canvas, shown, palette: Palette::new() })
    }

    /// Adds `scene` as the next frame, fitted as [`pixels`] does.
    ///
    /// # Errors
    /// [`RenderError::Write`] when it cannot be written.
    pub fn frame(&mut self, scene: &Scene) -> Result<(), RenderError> {
        draw(scene, &mut self.canvas);
        let Area { left, top, width, height } = changed(&self.shown, &self.canvas);
        self.palette.restart(scene);
        let row_pixels = self.canvas.width() as usize;
        let mut buffer = Vec::with_capacity(width * height);
        for row in self.canvas.pixels().chunks_exact(row_pixels).skip(top).take(height) {
            let pixels = &row[left..left + width];
            buffer.extend(pixels.iter().map(|p| self.palette.index([p.red(), p.green(), p.blue()])));
        }
        // From the ends of the frame before and of this one, so that rounding does not add up.
        let end = |frames: u64| (frames * 100 + u64::from(self.fps) / 2) / u64::from(self.fps);
        self.encoder.write_frame(&gif::Frame {
            delay: (end(self.frames + 1) - end(self.frames)) as u16,
            dispose: gif::DisposalMethod::Keep,
            // Within the canvas, whose sides came as u16.
            left: left as u16,
            top: top as u16,
            width: width as u16,
            height: height as u16,
            palette: Some(self.palette.colors.concat()),
            buffer: Cow::Owned(buffer),
            ..gif::Frame::default()
        })?;
        std::mem::swap(&mut self.canvas, &mut self.shown);
        self.frames += 1;
        Ok(())
    }

    /// Ends the GIF and gives back where it was written. Dropping the writer ends it, too, but tells of no error.
    ///
    /// # Errors
    /// [`RenderError::Write`] when the end cannot be written.
    pub fn finish(self) -> Result<W, RenderError> {
        let mut out = self.encoder.into_inner()?;
        out.flush().map_err(gif::EncodingError::from)?;
        Ok(out)
    }
}

fn check(width: u16, height: u16, fps: u32) -> Result<(), RenderError> {
    if width == 0 || height == 0 {
        return Err(RenderError::Size { width: width.into(), height: height.into() });
    }
    if !(1..=50).contains(&fps) {
        return Err(RenderError::FrameRate { fps });
    }
    Ok(())
}

/// A rectangle of pixels.
struct Area {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
}

/// The smallest rectangle that holds every pixel in which the two differ; one pixel when they are the same, because a
/// frame has to have one.
fn changed(before: &Pixmap, after: &Pixmap) -> Area {
    let row_pixels = after.width() as usize;
    let (mut left, mut right, mut top, mut bottom) = (row_pixels, 0, None, 0);
    let rows = before.pixels().chunks_exact(row_pixels).zip(after.pixels().chunks_exact(row_pixels));
    for (y, (old, new)) in rows.enumerate() {
        let differs = |(old, new)| old != new;
        if let Some(first) = old.iter().zip(new).position(differs) {
            let last = old.iter().zip(new).rposition(differs).unwrap_or(first);
            (left, right) = (left.min(first), right.max(last));
            (top, bottom) = (top.or(Some(y)), y);
        }
    }
    match top {
        Some(top) => Area { left, top, width: right + 1 - left, height: bottom + 1 - top },
        None => Area { left: 0, top: 0, width: 1, height: 1 },
    }
}

/// The colors of one frame, at most 256, found by the upper 5 bits of each channel.
struct Palette {
    colors: Vec<[u8; 3]>,
    cells: Vec<u16>,
}

impl Palette {
    const FREE: u16 = u16::MAX;

    fn new() -> Self {
        Self { colors: Vec::with_capacity(256), cells: vec![Self::FREE; 1 << 15] }
    }

    /// Forgets all colors but those of `scene`, which come in exactly before any shade takes their cell.
    fn restart(&mut self, scene: &Scene) {
        self.colors.clear();
        self.cells.fill(Self::FREE);
        let Rgb(red, green, blue) = scene.background;
        self.index([red, green, blue]);
        for shape in &scene.shapes {
            // A picture may have more colors than there is room for: they come as they are seen.
            if let Shape::Polygon { color, .. } | Shape::Line { color, .. } | Shape::Circle { color, .. } =
                shape
            {
                self.index([color.0, color.1, color.2]);
            }
        }
    }

    /// The place of `color`: of the one that has its cell, of itself if there is room, or else of the nearest.
    fn index(&mut self, color: [u8; 3]) -> u8 {
        let [red, green, blue] = color.map(|channel| usize::from(channel >> 3));
        let cell = &mut self.cells[red << 10 | green << 5 | blue];
        if *cell == Self::FREE {
            let distance = |other: &[u8; 3]| -> u32 {
                color.iter().zip(other).map(|(a, b)| u32::from(a.abs_diff(*b)).pow(2)).sum()
            };
            *cell = if self.colors.len() < 256 {
                self.colors.push(color);
                self.colors.len() as u16 - 1
            } else {
                (0..256).min_by_key(|i| distance(&self.colors[usize::from(*i)])).unwrap_or(0)
            };
        }
        *cell as u8
    }
}

/// `scene` as `rows` lines of `cols` braille characters, fitted and centered. A character is 2 × 4 dots; a dot is set where
/// the picture differs visibly from its background. Lines are separated by line feeds; without columns or rows there are
/// none.
pub fn braille(scene: &Scene, cols: usize, rows: usize) -> String {
    /// The bits of the dots of a character, by row and column: Unicode counts the lowest row last.
    const BITS: [[u32; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
    /// The difference of one channel from which on a dot is set.
    const VISIBLE: u8 = 64;
    let size = (u32::try_from(cols * 2), u32::try_from(rows * 4));
    let (Ok(width), Ok(height)) = size else { return String::new() };
    let Ok(canvas) = pixels(scene, width, height) else { return String::new() };
    let Rgb(red, green, blue) = scene.background;
    let is_set = |x: usize, y: usize| {
        let pixel = canvas.pixels()[y * cols * 2 + x];
        let differences =
            [pixel.red().abs_diff(red), pixel.green().abs_diff(green), pixel.blue().abs_diff(blue)];
        differences.iter().any(|difference| *difference >= VISIBLE)
    };
    let mut text = String::with_capacity(rows * (cols * 3 + 1));
    for row in 0..rows {
        if row > 0 {
            text.push('\n');
        }
        for col in 0..cols {
            let mut bits = 0;
            for (y, bits_of_row) in BITS.iter().enumerate() {
                for (x, bit) in bits_of_row.iter().enumerate() {
                    if is_set(col * 2 + x, row * 4 + y) {
                        bits |= bit;
                    }
                }
            }
            text.extend(char::from_u32(0x2800 + bits));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: Rgb = Rgb(200, 10, 10);
    const WHITE: Rgb = Rgb(255, 255, 255);

    /// A red square of a fourth of the scene, whose lower left corner is at `x`, `y`.
    fn square(x: f32, y: f32) -> Scene {
        let points = vec![[x, y], [x + 5.0, y], [x + 5.0, y + 5.0], [x, y + 5.0]];
        Scene {
            width: 10.0,
            height: 10.0,
            background: WHITE,
            shapes: vec![Shape::Polygon { points, color: RED }],
        }
    }

    fn rgb(canvas: &Pixmap, x: u32, y: u32) -> [u8; 3] {
        let pixel = canvas.pixel(x, y).unwrap();
        [pixel.red(), pixel.green(), pixel.blue()]
    }

    #[test]
    fn a_scene_stands_upright_and_is_centered() {
        let canvas = pixels(&square(0.0, 0.0), 40, 20).unwrap();
        assert_eq!(rgb(&canvas, 12, 17), [200, 10, 10], "lower left of the scene");
        assert_eq!(rgb(&canvas, 12, 2), [255; 3], "upper left");
        assert_eq!(rgb(&canvas, 27, 17), [255; 3], "lower right");
        assert_eq!(rgb(&canvas, 5, 17), [255; 3], "beside the scene");
        assert!(matches!(pixels(&square(0.0, 0.0), 0, 5), Err(RenderError::Size { width: 0, height: 5 })));
    }

    #[test]
    fn a_picture_is_shown_pixel_for_pixel() {
        let (width, height) = (3, 2);
        let rgb: Vec<u8> = (0..18).map(|i| i * 14).collect();
        let picture = Shape::Picture { width, height, rgb: rgb.clone() };
        let scene = Scene { width: 3.0, height: 2.0, background: WHITE, shapes: vec![picture] };
        let canvas = pixels(&scene, 3, 2).unwrap();
        for (i, expected) in rgb.chunks(3).enumerate() {
            assert_eq!(rgb_of(&canvas, i as u32 % 3, i as u32 / 3), expected);
        }
        // Twice as large, and beside it what is behind.
        let canvas = pixels(&scene, 10, 4).unwrap();
        assert_eq!(rgb_of(&canvas, 2, 0), rgb[..3]);
        assert_eq!(rgb_of(&canvas, 7, 3), rgb[15..]);
        assert_eq!(rgb_of(&canvas, 0, 0), [255; 3]);
        // One that is shorter than it says is not drawn.
        let broken = Shape::Picture { width, height, rgb: vec![0; 5] };
        let canvas = pixels(&Scene { shapes: vec![broken], ..scene }, 3, 2).unwrap();
        assert_eq!(rgb_of(&canvas, 1, 1), [255; 3]);
    }

    fn rgb_of(canvas: &Pixmap, x: u32, y: u32) -> [u8; 3] {
        rgb(canvas, x, y)
    }

    #[test]
    fn thin_lines_stay_visible_in_small_pictures() {
        let line = Shape::Line { points: vec![[0.0, 50.0], [100.0, 50.0]], width: 0.01, color: Rgb(0, 0, 0) };
        let scene = Scene { width: 100.0, height: 100.0, background: WHITE, shapes: vec![line] };
        let canvas = pixels(&scene, 9, 9).unwrap();
        assert_eq!(rgb(&canvas, 4, 4), [0; 3]);
    }

    #[test]
    fn a_gif_reads_back_as_what_was_drawn() {
        let scenes = [square(0.0, 0.0), square(0.0, 0.0), square(5.0, 5.0)];
        let mut writer = GifWriter::new(Vec::new(), 20, 20, 30).unwrap();
        for scene in &scenes {
            writer.frame(scene).unwrap();
        }
        let bytes = writer.finish().unwrap();

        let mut options = gif::DecodeOptions::new();
        options.set_color_output(gif::ColorOutput::RGBA);
        let mut decoder = options.read_info(&bytes[..]).unwrap();
        let mut screen = vec![0u8; 20 * 20 * 4];
        let mut delays = Vec::new();
        for scene in &scenes {
            let frame = decoder.read_next_frame().unwrap().unwrap();
            delays.push(frame.delay);
            let (left, top) = (usize::from(frame.left), usize::from(frame.top));
            for (y, row) in frame.buffer.chunks_exact(usize::from(frame.width) * 4).enumerate() {
                screen[((top + y) * 20 + left) * 4..][..row.len()].copy_from_slice(row);
            }
            assert_eq!(screen, pixels(scene, 20, 20).unwrap().data());
        }
        assert!(decoder.read_next_frame().unwrap().is_none());
        assert_eq!(delays.iter().sum::<u16>(), 10, "three frames at 30 a second: {delays:?}");
    }

    #[test]
    fn what_a_gif_cannot_be_is_refused_before_a_file_is_touched() {
        assert!(matches!(GifWriter::new(Vec::new(), 20, 0, 30), Err(RenderError::Size { .. })));
        for fps in [0, 51] {
            assert!(matches!(GifWriter::new(Vec::new(), 20, 20, fps), Err(RenderError::FrameRate { .. })));
        }
        let nowhere = Path::new("/no/such/folder/a.gif");
        let Err(error) = GifWriter::create(nowhere, 20, 20, 30) else { panic!("there is no such folder") };
        assert!(error.to_string().contains("/no/such/folder/a.gif"), "{error}");
    }

    #[test]
    fn a_full_palette_gives_the_nearest_color() {
        let mut palette = Palette::new();
        for i in 0..256usize {
            palette.index([(i % 32 * 8) as u8, (i / 32 * 8) as u8, 0]);
        }
        assert_eq!(palette.colors.len(), 256);
        let index = palette.index([8, 16, 255]);
        assert_eq!(palette.colors[usize::from(index)], [8, 16, 0]);
        assert_eq!(palette.colors.len(), 256);
    }

    #[test]
    fn braille_sets_the_dots_of_what_is_drawn() {
        assert_eq!(braille(&square(0.0, 0.0), 4, 2), "⠀⠀⠀⠀\n⣿⣿⠀⠀");
        assert_eq!(braille(&square(5.0, 5.0), 4, 2), "⠀⠀⣿⣿\n⠀⠀⠀⠀");
        assert_eq!(
            braille(&square(0.0, 5.0), 1, 1),
            "⠂",
            "two dots wide, the scene fills the middle two rows"
        );
        // Each dot by itself, column by column from the upper left.
        let dots = ["⠁", "⠂", "⠄", "⡀", "⠈", "⠐", "⠠", "⢀"];
        for (i, expected) in dots.into_iter().enumerate() {
            let (x, y) = ((i / 4) as f32, 3.0 - (i % 4) as f32);
            let dot = Shape::bar([x, y + 0.5], 0.0, 0.0, 1.0, 0.5, RED);
            let scene = Scene { width: 2.0, height: 4.0, background: WHITE, shapes: vec![dot] };
            assert_eq!(braille(&scene, 1, 1), expected);
        }
        assert_eq!(braille(&square(0.0, 0.0), 0, 2), "");
    }
}
