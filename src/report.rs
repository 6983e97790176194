//! What several runs reached: statistics over seeds, and a picture of how they got there.
//!
//! A single run says little of an algorithm, and the best of several says less. Results are given as the interquartile
//! mean over seeds with a bootstrap interval, as in Agarwal et al., "Deep Reinforcement Learning at the Edge of the
//! Statistical Precipice" (2021), <https://arxiv.org/abs/2108.13264>.

use plotters::prelude::*;
use rand::{RngExt, SeedableRng};
use std::path::Path;

/// The interquartile mean: the mean of what is left of `scores` when a quarter of them is cut off at each end.
///
/// As in rliable, and in SciPy's `trim_mean(scores, 0.25)`, ⌊n/4⌋ whole scores are cut at each end: of five the lowest and the
/// highest, of three or fewer none.
///
/// # Panics
/// When `scores` is empty or holds a NaN.
pub fn interquartile_mean(scores: &[f64]) -> f64 {
    let mut sorted = scores.to_vec();
    mean_of_middle(&mut sorted)
}

/// The interquartile mean of `scores`, which it sorts.
fn mean_of_middle(scores: &mut [f64]) -> f64 {
    assert!(!scores.is_empty(), "there are no scores to take a mean of");
    assert!(!scores.iter().any(|score| score.is_nan()), "a score is NaN");
    scores.sort_by(f64::total_cmp);
    let cut = scores.len() / 4;
    let middle = &scores[cut..scores.len() - cut];
    middle.iter().sum::<f64>() / middle.len() as f64
}

/// An interquartile mean, and how far it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Aggregate {
    /// The interquartile mean.
    pub mean: f64,
    /// Lower end of its 95 % interval.
    pub low: f64,
    /// Upper end of its 95 % interval.
    pub high: f64,
}

/// The interquartile mean of `scores`, one a seed, with its 95 % percentile-bootstrap interval.
///
/// The interval comes from 10,000 resamples made with a fixed seed, so the same scores always give the same interval. With
/// few seeds it is too narrow (with one it is a point): five say more than nothing, ten are better.
///
/// # Panics
/// When `scores` is empty or holds a NaN.
pub fn aggregate(scores: &[f64]) -> Aggregate {
    const RESAMPLES: usize = 10_000;
    let mean = interquartile_mean(scores);
    let mut rng = rl_minibatch::Rng::seed_from_u64(0);
    let mut resample = vec![0.0; scores.len()];
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            resample.fill_with(|| scores[rng.random_range(0..scores.len())]);
            mean_of_middle(&mut resample)
        })
        .collect();
    means.sort_by(f64::total_cmp);
    Aggregate { mean, low: percentile(&means, 0.025), high: percentile(&means, 0.975) }
}

/// The value below which the fraction `q` of `sorted` lies, between two values in proportion.
fn percentile(sorted: &[f64], q: f64) -> f64 {
    let position = q * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    below + (above - below) * position.fract()
}

/// The course of one run: its return at each number of environment steps, in increasing order of these.
pub type Curve = Vec<(f64, f64)>;

/// Reads the course of `metric` from the lines of a `metrics.jsonl`. Lines without it, or where it is `null`, are passed over.
///
/// # Errors
/// When the file cannot be read, or a line is not a log point (it says which).
pub fn read_curve(metrics: &Path, metric: &str) -> std::io::Result<Curve> {
    let mut curve = Curve::new();
    for (number, line) in std::fs::read_to_string(metrics)?.lines().enumerate() {
        let value: Option<serde_json::Value> = serde_json::from_str(line).ok();
        let Some((point, env_steps)) = value.and_then(|v| v["env_steps"].as_f64().map(|steps| (v, steps)))
        else {
            let why = format!("line {} of {} is no log point", number + 1, metrics.display());
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, why));
        };
        curve.extend(point[metric].as_f64().map(|value| (env_steps, value)));
    }
    Ok(curve)
}

/// Draws learning curves as an SVG file: for each of `series`, a label with one curve a seed, every seed as a thin line and the
/// interquartile mean over the seeds as a thick one. That mean is drawn where all seeds have values; between two log points a
/// seed's return is taken on the straight line.
///
/// # Errors
/// When there is nothing to draw, or the file cannot be written; with the file's name.
pub fn learning_curve_svg(
    title: &str,
    series: &[(&str, Vec<Curve>)],
    path: &Path,
) -> Result<(), ReportError> {
    let mut svg = String::new();
    draw(title, series, &mut svg).map_err(|why| ReportError::Draw { path: path.to_path_buf(), why })?;
    std::fs::write(path, svg).map_err(|source| ReportError::Write { path: path.to_path_buf(), source })
}

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Nothing could be drawn.
    #[error("cannot draw {}: {why}", path.display())]
    Draw {
        /// The file that was to be written.
        path: std::path::PathBuf,
        /// What was in the way.
        why: String,
    },
    /// The file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: std::path::PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
}

/// Okabe and Ito's colours, which colour-blind people tell apart as well.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

fn draw(title: &str, series: &[(&str, Vec<Curve>)], svg: &mut String) -> Result<(), String> {
    let points = || series.iter().flat_map(|(_, curves)| curves.iter().flatten());
    if points().next().is_none() {
        return Err("no run has logged a return yet".to_string());
    }
    if let Some((steps, _)) = points().find(|(steps, value)| !steps.is_finite() || !value.is_finite()) {
        return Err(format!("a value at {steps} environment steps is not finite"));
    }
    let (x_low, x_high) = range(points().map(|point| point.0));
    let (y_low, y_high) = range(points().map(|point| point.1));
    let margin = 0.05 * (y_high - y_low);

    let words = |e: DrawingAreaErrorKind<_>| e.to_string();
    let area = SVGBackend::with_string(svg, (800, 480)).into_drawing_area();
    area.fill(&WHITE).map_err(words)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 22))
        .margin(12)
        .margin_right(30)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d(x_low..x_high, y_low - margin..y_high + margin)
        .map_err(words)?;
    chart
        .configure_mesh()
        .x_desc("environment steps")
        .y_desc("return")
        .x_label_formatter(&|steps| thousands(*steps))
        .y_label_formatter(&|value| format!("{value}"))
        .label_style(("sans-serif", 14))
        .bold_line_style(BLACK.mix(0.12))
        .light_line_style(TRANSPARENT)
        .draw()
        .map_err(words)?;
    for ((label, curves), colour) in series.iter().zip(COLOURS.iter().cycle()) {
        for curve in curves {
            let thin = colour.mix(0.35).stroke_width(1);
            chart.draw_series(LineSeries::new(curve.iter().copied(), thin)).map_err(words)?;
        }
        let mean = LineSeries::new(mean_curve(curves), colour.stroke_width(3));
        chart
            .draw_series(mean)
            .map_err(words)?
            .label(*label)
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 14))
        .draw()
        .map_err(words)?;
    area.present().map_err(words)
}

/// The least and the greatest, a little apart where they are the same.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low < high { (low, high) } else { (low - 1.0, high + 1.0) }
}

/// The interquartile mean over the seeds, at evenly spaced steps where all of them have values.
fn mean_curve(curves: &[Curve]) -> Curve {
    const POINTS: usize = 200;
    let curves: Vec<&Curve> = curves.iter().filter(|curve| !curve.is_empty()).collect();
    let start = curves.iter().map(|curve| curve[0].0).fold(f64::NEG_INFINITY, f64::max);
    let end = curves.iter().map(|curve| curve[curve.len() - 1].0).fold(f64::INFINITY, f64::min);
    if curves.is_empty() || start > end {
        return Curve::new();
    }
    (0..=POINTS)
        .map(|i| {
            let steps = start + (end - start) * i as f64 / POINTS as f64;
            let returns: Vec<f64> = curves.iter().map(|curve| value_at(curve, steps)).collect();
            (steps, interquartile_mean(&returns))
        })
        .collect()
}

/// A curve's value at `steps`, on the straight line between the log points around it.
fn value_at(curve: &Curve, steps: f64) -> f64 {
    let after = curve.partition_point(|point| point.0 < steps);
    if after == 0 {
        return curve[0].1;
    }
    let (x0, y0) = curve[after - 1];
    match curve.get(after) {
        Some((x1, y1)) => y0 + (y1 - y0) * (steps - x0) / (x1 - x0),
        None => y0,
    }
}

/// A number of steps for an axis: 20000 is `20k`, 1500000 is `1.5M`.
fn thousands(steps: f64) -> String {
    if steps.abs() >= 1e6 {
        format!("{}M", steps / 1e6)
    } else if steps.abs() >= 1e3 {
        format!("{}k", steps / 1e3)
    } else {
        format!("{steps}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interquartile_means_are_those_of_scipy() {
        // scipy.stats.trim_mean(scores, 0.25), which is what rliable takes.
        for (scores, expected) in [
            (&[3.0][..], 3.0),
            (&[1.0, 2.0], 1.5),
            (&[9.0, 1.0, 2.0], 4.0),
            (&[100.0, 2.0, 1.0, 4.0], 3.0),
            (&[500.0, 350.0, 480.0, 499.0, 20.0], 443.0),
            (&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 60.0], 3.0),
            (&[8.0, 1.0, 2.0, 3.0, 40.0, 5.0, 6.0, -7.0], 4.0),
            (&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 100.0], 5.5),
        ] {
            assert_eq!(interquartile_mean(scores), expected, "{scores:?}");
        }
    }

    #[test]
    #[should_panic(expected = "no scores")]
    fn no_scores_have_no_mean() {
        interquartile_mean(&[]);
    }

    #[test]
    fn intervals_hold_the_mean_and_are_the_same_each_time() {
        let scores = [500.0, 350.0, 480.0, 499.0, 420.0];
        let found = aggregate(&scores);
        assert_eq!(found, aggregate(&scores));
        assert_eq!(found.mean, interquartile_mean(&scores));
        assert!(
            350.0 <= found.low && found.low < found.mean && found.mean < found.high && found.high <= 500.0
        );
        // Hand-checked: of two scores a resample is (a, a), (a, b) or (b, b) in the ratio 1 : 2 : 1.
        assert_eq!(aggregate(&[1.0, 2.0]), Aggregate { mean: 1.5, low: 1.0, high: 2.0 });
        assert_eq!(aggregate(&[7.0]), Aggregate { mean: 7.0, low: 7.0, high: 7.0 });
    }

    #[test]
    fn intervals_cover_what_they_should() {
        // Of 20 scores from the standard normal distribution, whose interquartile mean is 0: about 95 % of the intervals
        // hold it. 200 trials have a standard deviation of 1.6 %; the bootstrap of 20 is a little too narrow.
        use rand_distr::{Distribution, StandardNormal};
        let mut rng = rl_minibatch::Rng::seed_from_u64(1);
        let covered = (0..200)
            .filter(|_| {
                let scores: Vec<f64> = (0..20).map(|_| StandardNormal.sample(&mut rng)).collect();
                let found = aggregate(&scores);
                found.low <= 0.0 && 0.0 <= found.high
            })
            .count();
        assert!((176..=198).contains(&covered), "{covered} of 200 intervals hold the truth");
    }

    #[test]
    fn the_mean_of_curves_is_taken_where_all_have_values() {
        let curves = vec![
            vec![(0.0, 0.0), (10.0, 10.0)],
            vec![(5.0, 0.0), (20.0, 0.0)],
            vec![(0.0, 8.0), (30.0, 8.0)],
        ];
        let mean = mean_curve(&curves);
        assert_eq!(mean[0], (5.0, (5.0 + 0.0 + 8.0) / 3.0));
        assert_eq!(mean[200], (10.0, 6.0));
        assert!(mean_curve(&[vec![(0.0, 1.0)], vec![(5.0, 1.0)]]).is_empty());
        assert!(mean_curve(&[]).is_empty());
    }

    #[test]
    fn curves_come_from_metrics() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("metrics.jsonl");
        let lines = "{\"env_steps\":10,\"r\":1.5}\n{\"env_steps\":20,\"r\":null}\n{\"env_steps\":30,\"s\":2}\n\
                     {\"env_steps\":40,\"r\":-3}\n";
        std::fs::write(&path, lines).expect("writes");
        assert_eq!(read_curve(&path, "r").expect("reads"), [(10.0, 1.5), (40.0, -3.0)]);
        std::fs::write(&path, format!("{lines}{{\"env_st")).expect("writes");
        assert!(read_curve(&path, "r").expect_err("a broken line").to_string().contains("line 5"));
    }

    fn drawn_again(series: &[(&str, Vec<Curve>)]) -> String {
        let mut svg = String::new();
        draw("CartPole-v1 & co", series, &mut svg).expect("draws");
        svg
    }

    #[test]
    fn the_picture_has_what_it_should() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("curve.svg");
        let curve = |rise: f64| (0..50).map(|i| (i as f64 * 1000.0, rise * i as f64)).collect::<Curve>();
        let series = [("DQN <1>", vec![curve(8.0), curve(9.0), curve(10.0)]), ("DDPG", vec![curve(3.0)])];
        learning_curve_svg("CartPole-v1 & co", &series, &path).expect("draws");
        let svg = std::fs::read_to_string(&path).expect("reads");
        for part in ["CartPole-v1 &amp; co", "DQN &lt;1&gt;", "DDPG", "environment steps", "20k"] {
            assert!(svg.contains(part), "{part} is not in the picture");
        }
        // Two means, and the same two in the legend.
        assert_eq!(svg.matches("stroke-width=\"3\"").count(), 4);
        assert_eq!(svg, drawn_again(&series));
        let error = learning_curve_svg("nothing", &[("DQN", vec![])], &path).expect_err("nothing to draw");
        assert!(error.to_string().contains("no run has logged"));
        let error =
            learning_curve_svg("here", &series, &folder.path().join("no/where")).expect_err("no folder");
        assert!(matches!(error, ReportError::Write { .. }));
    }
}
