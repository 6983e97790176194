//! A series forecast with a GRU: from the yearly mean numbers of sunspots of 11 to 60 years, that of the year after.
//!
//! The windows are of unequal lengths. [`LengthBucketed`] puts windows of like length into a batch, [`PackCollate`] lays them out for the
//! GRU without padding, on the loader's thread. The years from 1950 on are held out: no window that is trained on ends in one of them.
//!
//! `cargo run --release -p rl-learn --example sunspots -- --seed 0`

use clap::Parser;
use rand::{RngExt, SeedableRng};
use rl_learn::{
    Accumulator, Device, Kind, Linear, Module, Optimizer, OptimizerConfig, PackedTensors, PaddedTensors, Rnn,
    RnnConfig, RnnKind, Role, ScalingRule, Schedule, Tensor, clip_norm, device, loss, no_grad, parameters,
    walk_under,
};
use rl_minibatch::{
    BatchSize, Batches, Collate, Dtype, EpochBar, Field, LengthBucketed, Loader, NoiseEstimate, NoiseScale,
    PackCollate, PadOptions, Padded, RaggedTable, Rng, SequenceLayout, Truncate,
};
use std::error::Error;
use std::io::Write;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/data/sunspots.csv");
const HELD_OUT_FROM: i32 = 1950;
const SHORTEST: usize = 11;
const LONGEST: usize = 60;
/// Windows of random lengths that end before one and the same year.
const WINDOWS_A_YEAR: usize = 4;
/// The batch that the learning rate was found good for.
const BATCH: u64 = 32;
/// No batch above this is suggested.
const LARGEST_BATCH: usize = 1 << 20;
const HIDDEN: i64 = 32;
const PEAK_RATE: f64 = 5e-3;

/// Forecasts the number of sunspots of the next year with a GRU.
#[derive(Parser)]
struct Args {
    /// Seed of the windows, of the network and of the order of batches
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Passes over the training windows
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    epochs: u64,
    /// Windows a batch
    #[arg(long, default_value_t = BATCH, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    batch: u64,
    /// Windows a micro-batch, when a batch is to go through the network in pieces; the gradient noise scale is then measured
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    micro_batch: Option<u64>,
    /// Scale the learning rate with the square root of the batch
    #[arg(long)]
    scale_rate: bool,
    /// Print the result as one line of JSON
    #[arg(long)]
    json: bool,
}

/// The numbers of sunspots of successive years.
struct Series {
    first_year: i32,
    values: Vec<f32>,
}

impl Series {
    fn read(path: &str) -> Result<Self, Box<dyn Error>> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
        let (mut years, mut values) = (Vec::new(), Vec::new());
        for (number, line) in text.lines().enumerate().skip(1) {
            let cells = line
                .split_once(',')
                .and_then(|(year, value)| Some((year.parse().ok()?, value.parse().ok()?)));
            let (year, value): (i32, f32) = cells.ok_or_else(|| {
                format!("{path}, line {}: expected year,sunspots and got '{line}'", number + 1)
            })?;
            years.push(year);
            values.push(value);
        }
        let first_year = *years.first().ok_or_else(|| format!("{path}: no years"))?;
        Ok(Self { first_year, values })
    }

    fn place(&self, year: i32) -> usize {
        (year - self.first_year) as usize
    }
}

/// Windows as (place of the year to be forecast, years seen before it).
type Window = (usize, usize);

/// For each year before the held-out ones that has enough years before it, windows of random lengths.
fn training_windows(series: &Series, rng: &mut Rng) -> Vec<Window> {
    let mut windows = Vec::new();
    for target in SHORTEST..series.place(HELD_OUT_FROM) {
        for _ in 0..WINDOWS_A_YEAR {
            windows.push((target, rng.random_range(SHORTEST..=LONGEST.min(target))));
        }
    }
    windows
}

/// Each held-out year from 11, 12, …, 60 years before it. What is seen may lie in the held-out part, as it would in use.
fn held_out_windows(series: &Series) -> Vec<Window> {
    let targets = series.place(HELD_OUT_FROM)..series.values.len();
    targets.flat_map(|target| (SHORTEST..=LONGEST).map(move |length| (target, length))).collect()
}

/// A row a window: its years along the axis `time`, and the year after. Numbers are in hundreds of sunspots.
fn table(series: &Series, windows: &[Window]) -> Result<RaggedTable, Box<dyn Error>> {
    let scaled: Vec<f32> = series.values.iter().map(|value| value / 100.0).collect();
    let lengths: Vec<u64> = windows.iter().map(|(_, length)| *length as u64).collect();
    let seen: Vec<f32> = windows
        .iter()
        .flat_map(|(target, length)| scaled[target - length..*target].iter().copied())
        .collect();
    let last: Vec<f32> = windows.iter().map(|(target, _)| scaled[target - 1]).collect();
    let next: Vec<f32> = windows.iter().map(|(target, _)| scaled[*target]).collect();
    Ok(RaggedTable::builder(windows.len())
        .axis_of_lengths("time", &lengths)
        .ragged("time", Field::new("seen", Dtype::F32, [1]), bytemuck::cast_slice(&seen))
        .fixed(Field::new("last", Dtype::F32, []), bytemuck::cast_slice(&last))
        .fixed(Field::new("next", Dtype::F32, []), bytemuck::cast_slice(&next))
        .build()?)
}

/// A GRU, and a linear layer that makes the change from the last year of its final state.
struct Forecaster {
    rnn: Rnn,
    head: Linear,
}

impl Module for Forecaster {
    fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
        walk_under(&self.rnn, "rnn", show);
        walk_under(&self.head, "head", show);
    }
}

impl Forecaster {
    fn new(rng: &mut Rng) -> Self {
        let config =
            RnnConfig { kind: RnnKind::Gru, inputs: 1, hidden: HIDDEN, layers: 1, bidirectional: false };
        let rnn = Rnn::new(config, rng, Kind::Float, Device::Cpu);
        let head = Linear::new(rnn.outputs(), 1, rng, Kind::Float, Device::Cpu);
        Self { rnn, head }
    }

    fn change(&self, hidden: &Tensor) -> Tensor {
        self.head.forward(&hidden.get(-1)).squeeze_dim(1)
    }

    /// `[B]` of a packed batch, in the order of the batch.
    fn packed(&self, batch: &PackedTensors) -> Result<Tensor, Box<dyn Error>> {
        let out = batch.run(&self.rnn, "seen", None)?;
        Ok(&batch["last"] + self.change(&out.state.hidden))
    }

    /// `[B]` of a padded batch.
    fn padded(&self, batch: &PaddedTensors) -> Result<Tensor, Box<dyn Error>> {
        let out = batch.run(&self.rnn, "seen", "time")?;
        Ok(&batch["last"] + self.change(&out.state.hidden))
    }
}

/// √(mean squared error), in sunspots.
fn rmse(series: &Series, windows: &[Window], forecast: impl Fn(usize) -> f64) -> f64 {
    let squares = windows
        .iter()
        .enumerate()
        .map(|(row, (target, _))| (forecast(row) - f64::from(series.values[*target])).powi(2));
    (squares.sum::<f64>() / windows.len() as f64).sqrt()
}

struct Score {
    gru: f64,
    naive: f64,
}

fn score(series: &Series, model: &Forecaster) -> Result<Score, Box<dyn Error>> {
    let windows = held_out_windows(series);
    let table = table(series, &windows)?;
    let mut batch = Padded::new(&table, &PadOptions::new().layout(SequenceLayout::SequenceFirst))?;
    table.pad_into(&(0..table.rows()).collect::<Vec<_>>(), &mut batch)?;
    let batch = PaddedTensors::to(&batch, Device::Cpu)?;
    let forecast = Vec::<f32>::try_from(no_grad(|| model.padded(&batch))? * 100.0)?;
    let last = |row: usize| f64::from(series.values[windows[row].0 - 1]);
    Ok(Score {
        gru: rmse(series, &windows, |row| f64::from(forecast[row])),
        naive: rmse(series, &windows, last),
    })
}

/// Trains as `args` say, and shows it on `bar`. The noise scale comes with the model where it was measured.
fn train(
    series: &Series,
    args: &Args,
    bar: &EpochBar,
) -> Result<(Forecaster, Option<NoiseEstimate>), Box<dyn Error>> {
    let mut rng = Rng::seed_from_u64(args.seed);
    let table = table(series, &training_windows(series, &mut rng))?;
    let lengths = table.lengths("time")?.map(|length| length as u32).collect::<Vec<_>>();
    let size = args.batch as usize;
    let sampler = LengthBucketed::new(&lengths, size, 8 * size)?;
    let rows = table.rows();
    let batches = Batches::builder(sampler, rows, BatchSize::Fixed(size)).seed(rng.random()).build()?;

    let model = Forecaster::new(&mut rng);
    let mut optimizer = Optimizer::for_module(OptimizerConfig::adam(), &model)?;
    let steps = args.epochs * rows.div_ceil(args.batch);
    let mut rate = Schedule::cosine(PEAK_RATE, 0.0, steps).warmed_up(steps / 20, 0.1);
    if args.scale_rate {
        rate = rate.scaled(ScalingRule::SquareRoot, BATCH, args.batch);
    }
    let most = args.micro_batch.map_or(size, |rows| rows as usize);
    let mut accumulator = Accumulator::new(parameters(&model));
    if most < size {
        accumulator.measure_noise(Some(NoiseScale::new(0.99)?));
    }

    let collate = PackCollate::new(table, "time", Truncate::Whole)?.in_pieces(most);
    let mut loader = Loader::collating(collate, batches).workers(1).progress_bar(bar).build()?;
    for _ in 0..args.epochs {
        let mut sum = 0.0;
        for batch in loader.epoch() {
            let batch = batch?;
            for (micro, piece) in batch.host().iter() {
                let piece = PackedTensors::to(piece, Device::Cpu)?;
                let loss = loss::mse(&model.packed(&piece)?, &piece["next"]).mean(Kind::Float);
                accumulator.add(&loss, micro.weight)?;
                sum += loss.double_value(&[]) * micro.rows.len() as f64;
            }
            // Norms are measured before clipping: they are of the true gradients.
            let whole = accumulator.finish_batch(batch.plan().real as u64)?;
            // The norm stays on the device; nobody asks for it.
            let _norm = clip_norm(whole.gradients(), 1.0)?;
            optimizer.set_learning_rate(rate.at(batch.plan().step));
            no_grad(|| optimizer.step(whole.gradients()))?;
        }
        bar.set_message(format_args!("rmse {:.1}", 100.0 * (sum / rows as f64).sqrt()));
    }
    Ok((model, accumulator.noise_scale().and_then(NoiseScale::estimate)))
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    // The matrices are small: more threads would wait for each other.
    device::set_threads(1);
    let series = Series::read(DATA)?;
    let bar = EpochBar::new(Some(args.epochs));
    let (model, noise) = train(&series, &args, &bar)?;
    bar.finish();
    let Score { gru, naive } = score(&series, &model)?;
    let last_year = series.first_year + series.values.len() as i32 - 1;
    let mut out = std::io::stdout().lock();
    if args.json {
        let result = serde_json::json!({
            "example": "sunspots", "seed": args.seed, "epochs": args.epochs, "batch": args.batch,
            "held_out": [HELD_OUT_FROM, last_year], "rmse": gru, "naive_rmse": naive,
            "noise_scale": noise.map(|noise| noise.rows),
            "suggested_batch": noise.map(|noise| noise.batch_size(LARGEST_BATCH)),
        });
        writeln!(out, "{result}")?;
    } else {
        writeln!(
            out,
            "years {HELD_OUT_FROM} to {last_year}, held out: RMSE {gru:.1} sunspots; the last year's value: {naive:.1}"
        )?;
        if let Some(noise) = noise {
            let (rows, batch) = (noise.rows, noise.batch_size(LARGEST_BATCH));
            writeln!(
                out,
                "gradient noise scale at the end: {rows:.0} windows, which suggests batches of {batch}"
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_training_beats_the_last_value_and_comes_again() {
        device::set_threads(1);
        let series = Series::read(DATA).unwrap();
        let trained = |flags: &str| {
            let args = Args::parse_from(format!("sunspots --epochs 2 {flags}").split_whitespace());
            let bar = EpochBar::lines(None, std::io::sink());
            score(&series, &train(&series, &args, &bar).unwrap().0).unwrap()
        };
        let (once, again) = (trained(""), trained(""));
        assert!(once.gru < 0.9 * once.naive, "{} against {}", once.gru, once.naive);
        assert_eq!(once.gru.to_bits(), again.gru.to_bits());
        // In pieces of unequal sizes it is the same training, but for rounding.
        let in_pieces = trained("--micro-batch 20");
        assert!((once.gru - in_pieces.gru).abs() < 0.1, "{} against {}", once.gru, in_pieces.gru);
    }

    #[test]
    fn packed_and_padded_batches_are_forecast_alike() {
        let series = Series::read(DATA).unwrap();
        let mut rng = Rng::seed_from_u64(1);
        let windows = training_windows(&series, &mut rng);
        let (table, model) = (table(&series, &windows).unwrap(), Forecaster::new(&mut rng));
        let rows = [3, 500, 17, 800, 200];
        let mut packed = rl_minibatch::Packed::new(&table, "time", Truncate::Whole).unwrap();
        let mut padded =
            Padded::new(&table, &PadOptions::new().layout(SequenceLayout::SequenceFirst)).unwrap();
        table.pack_into(&rows, &mut packed).unwrap();
        table.pad_into(&rows, &mut padded).unwrap();
        let packed = PackedTensors::to(&packed, Device::Cpu).unwrap();
        let padded = PaddedTensors::to(&padded, Device::Cpu).unwrap();
        let apart = model.packed(&packed).unwrap() - model.padded(&padded).unwrap();
        assert!(apart.abs().max().double_value(&[]) < 1e-6);
    }

    #[test]
    fn no_window_of_the_training_sees_a_held_out_year() {
        let series = Series::read(DATA).unwrap();
        let windows = training_windows(&series, &mut Rng::seed_from_u64(0));
        assert!(windows.iter().all(|(target, _)| *target < series.place(HELD_OUT_FROM)));
        assert!(
            windows.iter().all(|(target, length)| length <= target && (SHORTEST..=LONGEST).contains(length))
        );
    }
}
