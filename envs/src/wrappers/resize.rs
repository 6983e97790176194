//! Frames made smaller.

use super::image::{image_shape, image_space, remake_frames};
use super::{inner, pass_on, refused};
use crate::{Env, EnvError, EnvSpec};

/// Frames scaled down, each pixel being the mean of the area that it covers.
///
/// Frames are `[height, width]` or `[height, width, channels]`. As Gymnasium's `ResizeObservation`, that is OpenCV's
/// `INTER_AREA`, to the last bit also for 210 × 160 to 84 × 84: means are taken row by row with f32 weights, then over rows in
/// f32, and rounded to the nearest whole number, halves to even. Scaling up, which OpenCV does by another rule, is refused.
#[derive(Clone, Debug)]
pub struct Resize<E> {
    env: E,
    spec: EnvSpec,
    large: Vec<u8>,
    /// Of each row and of each column of the result.
    rows: Vec<Span>,
    columns: Vec<Span>,
    channels: usize,
    /// Whether both sides shrink by whole factors.
    whole: bool,
    /// One row of the frame, its columns already averaged; and their sum over the rows that a pixel covers.
    row: Vec<f32>,
    sum: Vec<f32>,
}

/// What a pixel covers along one side.
#[derive(Clone, Debug)]
struct Span {
    first: usize,
    /// The share of the first and each following one; together 1.
    weights: Vec<f32>,
}

/// Shares below this are left out, as OpenCV has it.
const NEGLIGIBLE: f64 = 1e-3;

/// What each of `to` pixels covers of `from`.
fn spans(from: usize, to: usize) -> Vec<Span> {
    let scale = from as f64 / to as f64;
    let span = |pixel: usize| {
        let start = pixel as f64 * scale;
        let end = start + scale;
        let covered = scale.min(from as f64 - start);
        let last = (end.floor() as usize).min(from - 1);
        let whole = (start.ceil() as usize).min(last);
        let mut weights = Vec::new();
        let mut first = whole;
        if whole as f64 - start > NEGLIGIBLE {
            first = whole - 1;
            weights.push(((whole as f64 - start) / covered) as f32);
        }
        weights.extend((whole..last).map(|_| (1.0 / covered) as f32));
        if end - last as f64 > NEGLIGIBLE {
            weights.push(((end - last as f64).min(1.0).min(covered) / covered) as f32);
        }
        Span { first, weights }
    };
    (0..to).map(span).collect()
}

impl<E: Env> Resize<E> {
    /// `env` with frames of `height` × `width`.
    ///
    /// # Errors
    /// [`EnvError::Wrapper`] unless observations are bytes from 0 to 255 of shape `[h, w]` or `[h, w, channels]`, and
    /// `height` and `width` are at least 1 and no larger than theirs.
    pub fn new(env: E, height: usize, width: usize) -> Result<Self, EnvError> {
        let space = &env.spec().observation;
        let Some(shape) = image_shape(space) else {
            let why =
                format!("it takes bytes from 0 to 255 of shape (h, w) or (h, w, channels), not {space}");
            return Err(refused("Resize", env.spec(), why));
        };
        let (h, w, channels) = (shape[0], shape[1], shape.get(2).copied().unwrap_or(1));
        if !(1..=h).contains(&height) || !(1..=w).contains(&width) {
            let why = format!(
                "frames of {h} x {w} are made smaller, to at least 1 x 1, and not {height} x {width}"
            );
            return Err(refused("Resize", env.spec(), why));
        }
        let mut small = shape.to_vec();
        small[..2].copy_from_slice(&[height, width]);
        let large = vec![0; h * w * channels];
        let spec = EnvSpec { observation: image_space(small), ..env.spec().clone() };
        Ok(Self {
            env,
            spec,
            large,
            rows: spans(h, height),
            columns: spans(w, width),
            channels,
            whole: h.is_multiple_of(height) && w.is_multiple_of(width),
            row: vec![0.0; width * channels],
            sum: vec![0.0; width * channels],
        })
    }

    inner!("The environment inside, whose frames are large.", "The environment inside, to be changed.");

    fn shrink(&mut self, obs: &mut [u8]) {
        if self.whole {
            return self.shrink_whole(obs);
        }
        let large_row =
            self.large.len() / (self.rows.last().map_or(1, |span| span.first + span.weights.len()));
        for (out, span) in obs.chunks_exact_mut(self.row.len()).zip(&self.rows) {
            self.sum.fill(0.0);
            for (i, weight) in span.weights.iter().enumerate() {
                let from = &self.large[(span.first + i) * large_row..][..large_row];
                average(from, &self.columns, self.channels, &mut self.row);
                for (sum, value) in self.sum.iter_mut().zip(&self.row) {
                    *sum += weight * value;
                }
            }
            for (out, sum) in out.iter_mut().zip(&self.sum) {
                *out = sum.round_ties_even() as u8;
            }
        }
    }

    /// Whole factors: sums of whole numbers, divided once.
    fn shrink_whole(&self, obs: &mut [u8]) {
        let (channels, width) = (self.channels, self.columns.len());
        let (down, across) = (self.rows[0].weights.len(), self.columns[0].weights.len());
        let large_row = width * across * channels;
        let share = 1.0 / (down * across) as f32;
        for (y, out) in obs.chunks_exact_mut(width * channels).enumerate() {
            for (i, out) in out.iter_mut().enumerate() {
                let (x, channel) = (i / channels, i % channels);
                let mut sum = 0u32;
                for row in y * down..(y + 1) * down {
                    for column in x * across..(x + 1) * across {
                        sum += u32::from(self.large[row * large_row + column * channels + channel]);
                    }
                }
                // OpenCV has a shortcut for halves, which rounds up.
                *out = match (down, across) {
                    (2, 2) => ((sum + 2) >> 2) as u8,
                    _ => (sum as f32 * share).round_ties_even() as u8,
                };
            }
        }
    }
}

/// The means of one row of a frame over what each column covers.
fn average(from: &[u8], columns: &[Span], channels: usize, to: &mut [f32]) {
    for (to, span) in to.chunks_exact_mut(channels).zip(columns) {
        for (channel, to) in to.iter_mut().enumerate() {
            let values = from[span.first * channels + channel..].iter().step_by(channels);
            *to = span
                .weights
                .iter()
                .zip(values)
                .fold(0.0, |sum, (weight, value)| sum + f32::from(*value) * weight);
        }
    }
}

impl<E: Env> Env for Resize<E> {
    pass_on!(state, scene);
    remake_frames!(large, shrink);

    fn spec(&self) -> &EnvSpec {
        &self.spec
    }
}
