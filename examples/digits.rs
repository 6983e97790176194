//! Handwritten digits with LeNet-5 (LeCun, Bottou, Bengio and Haffner 1998, "Gradient-Based Learning Applied to Document Recognition").
//!
//! `cargo run --release -p rl-learn --example digits -- [OPTIONS]` trains on four fifths of the 1797 UCI digits and prints the accuracy on the
//! rest. The split is the same for every seed. `scripts/large-batch` makes docs/large-batch.md of it.
//!
//! The images are 8×8. They are drawn at 16×16 (bilinear) within a border of two zeros, so that LeNet-5's 5×5 kernels have as much
//! to see as its layers need; for training they are drawn anew in every epoch, a little shifted, resized and slanted at random, as the paper's authors
//! did to train on more digits than they had (section III-C, "distorted"). 20×20 → C1, 6 maps of 16×16 → S2, 8×8 → C3, 16 maps of 4×4 → S4, 2×2 → C5, 120 → F6, 84 → 10. As is usual
//! today, C3 sees all maps of S2, pooling takes the maximum and has no weights, the loss is the cross-entropy, and C1 and C3 are
//! batch-normalized.

use rand::{RngExt, SeedableRng};
use rl_learn::{
    BatchNormConfig, Conv2d, Conv2dConfig, Device, DeviceLoader, GhostBatchNorm, Kind, Linear, Module,
    Optimizer, OptimizerConfig, Phase, Rng, Role, ScalingRule, Schedule, Schema, Tensor, device, gradients,
    loss, no_grad, walk_under,
};
use rl_minibatch::{
    BatchSize, Batches, Dtype, EpochBar, Field, Loader, Permutation, Rows, Sequential, Shuffled, Table,
};
use std::error::Error;
use std::path::Path;

type Fallible<T> = Result<T, Box<dyn Error>>;

/// Batch size that learning rates are found for; [`Options::scale`] scales from it.
const BASE_BATCH: u64 = 32;

/// Height and width of an image as the network sees it.
const SIDE: usize = 20;

/// The split's key; it is not the run's seed, so that all runs have the same test rows.
const SPLIT: u64 = 1998;

const USAGE: &str = "digits [--seed N] [--epochs N] [--batch N] [--ghost N] [--optimizer sgd|lars|lamb] [--lr X] [--scale] [--warmup EPOCHS]
       [--undistorted] [--validate N] [--json] [--quiet]
  --ghost N     normalizes over parts of at most N rows of a batch (default: over the batch)
  --lr X        highest learning rate (default: 0.02 for sgd, 10 for lars, 0.02 for lamb); it falls to 0 along a cosine
  --scale       multiplies it by batch/32
  --warmup E    grows it linearly over E epochs
  --undistorted trains on the images as they are, the same in every epoch
  --validate N  leaves the test rows alone: trains on four fifths of the training rows and scores on the other fifth, number N from 0 to 4
  --json        prints one line of JSON
  --quiet       shows no progress";

#[derive(Clone, Debug)]
struct Options {
    seed: u64,
    epochs: u64,
    batch: usize,
    ghost: Option<i64>,
    optimizer: String,
    lr: Option<f64>,
    scale: bool,
    warmup: u64,
    undistorted: bool,
    validate: Option<usize>,
    json: bool,
    quiet: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            epochs: 40,
            batch: BASE_BATCH as usize,
            ghost: None,
            optimizer: "sgd".to_string(),
            lr: None,
            scale: false,
            warmup: 0,
            undistorted: false,
            validate: None,
            json: false,
            quiet: false,
        }
    }
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        fn number<T: std::str::FromStr>(name: &str, word: Option<String>) -> Result<T, String> {
            let word = word.ok_or_else(|| format!("{name} needs a value"))?;
            word.parse().map_err(|_| format!("{name} takes a number, not '{word}'"))
        }
        let mut options = Self::default();
        while let Some(name) = words.next() {
            match name.as_str() {
                "--seed" => options.seed = number(&name, words.next())?,
                "--epochs" => options.epochs = number(&name, words.next())?,
                "--batch" => options.batch = number(&name, words.next())?,
                "--ghost" => options.ghost = Some(number(&name, words.next())?),
                "--optimizer" => options.optimizer = words.next().unwrap_or_default(),
                "--lr" => options.lr = Some(number(&name, words.next())?),
                "--scale" => options.scale = true,
                "--warmup" => options.warmup = number(&name, words.next())?,
                "--undistorted" => options.undistorted = true,
                "--validate" => options.validate = Some(number(&name, words.next())?),
                "--json" => options.json = true,
                "--quiet" => options.quiet = true,
                _ => return Err(format!("unknown option '{name}'\n{USAGE}")),
            }
        }
        if options.ghost.is_some_and(|rows| rows < 2) {
            return Err("--ghost needs at least 2 rows: a single one has no variance".to_string());
        }
        if options.validate.is_some_and(|fifth| fifth > 4) {
            return Err("--validate takes the number of a fifth, 0 to 4".to_string());
        }
        Ok(options)
    }

    /// The optimizer with its usual learning rate.
    fn optimizer(&self) -> Result<(OptimizerConfig, f64), String> {
        let (dampening, nesterov) = (0.0, false);
        Ok(match self.optimizer.as_str() {
            "sgd" => (OptimizerConfig::Sgd { momentum: 0.9, dampening, weight_decay: 5e-4, nesterov }, 0.02),
            "lars" => (OptimizerConfig::lars(5e-4), 10.0),
            "lamb" => (OptimizerConfig::lamb(0.01), 0.02),
            other => return Err(format!("unknown optimizer '{other}'; it is sgd, lars or lamb")),
        })
    }

    /// The learning rate by steps, in a training of `steps` steps with `epoch` steps an epoch.
    fn schedule(&self, lr: f64, steps: u64, epoch: u64) -> Schedule {
        let (batch, mut first, mut rate) = (self.batch as u64, 0.0, Schedule::cosine(lr, 0.0, steps));
        if self.scale {
            // The warm-up of a scaled rate begins at the rate that was scaled (Goyal et al. 2017, section 2.2).
            first = 1.0 / ScalingRule::Linear.factor(BASE_BATCH, batch);
            rate = rate.scaled(ScalingRule::Linear, BASE_BATCH, batch);
        }
        if self.warmup > 0 { rate.warmed_up(self.warmup * epoch, first) } else { rate }
    }
}

/// LeNet-5 for images of 20×20.
struct LeNet {
    convolutions: [(Conv2d, GhostBatchNorm); 2],
    linear: [Linear; 3],
}

impl LeNet {
    fn new(ghost: i64, rng: &mut Rng, device: Device) -> Self {
        let kind = Kind::Float;
        let mut convolution = |inputs, outputs| {
            let config = Conv2dConfig { bias: false, ..Conv2dConfig::default() };
            let norm = GhostBatchNorm::new(outputs, ghost, BatchNormConfig::default(), kind, device);
            (Conv2d::new(inputs, outputs, [5, 5], config, rng, kind, device), norm)
        };
        let convolutions = [convolution(1, 6), convolution(6, 16)];
        let linear = [(64, 120), (120, 84), (84, 10)].map(|(i, o)| Linear::new(i, o, rng, kind, device));
        Self { convolutions, linear }
    }

    /// Ink `[B, 20, 20]`, from 0 to 1, → logits `[B, 10]`.
    fn forward(&self, images: &Tensor, phase: Phase) -> Tensor {
        let mut x = images.unsqueeze(1);
        for (convolution, norm) in &self.convolutions {
            x = norm.forward(&convolution.forward(&x), phase).tanh().max_pool2d(
                [2, 2],
                [2, 2],
                [0, 0],
                [1, 1],
                false,
            );
        }
        let [c5, f6, output] = &self.linear;
        let x = c5.forward(&x.flatten(1, -1)).tanh();
        output.forward(&f6.forward(&x).tanh())
    }
}

impl Module for LeNet {
    fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
        for ((convolution, norm), name) in self.convolutions.iter().zip(["c1", "c3"]) {
            walk_under(convolution, name, show);
            walk_under(norm, &format!("{name}.norm"), show);
        }
        for (linear, name) in self.linear.iter().zip(["c5", "f6", "output"]) {
            walk_under(linear, name, show);
        }
    }
}

/// The rows to train on and the rows to score on: the test rows, or that fifth of the training rows.
fn data(validate: Option<usize>) -> Fallible<(Table, Table)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/data/digits.npz");
    let arrays = Tensor::read_npz(&path)?;
    let bytes = |name: &str| -> Fallible<Vec<u8>> {
        let array = arrays.iter().find(|(n, _)| n == name);
        let (_, array) = array.ok_or_else(|| format!("{} has no array '{name}'", path.display()))?;
        Ok(Vec::try_from(array.flatten(0, -1))?)
    };
    let (images, labels) = (bytes("images")?, bytes("labels")?);
    let schema =
        Schema::new(vec![Field::new("image", Dtype::U8, [8, 8]), Field::new("label", Dtype::U8, [])])?;
    let table = |rows: &[u64]| -> Fallible<Table> {
        let image: Vec<u8> = rows.iter().flat_map(|&r| &images[r as usize * 64..][..64]).copied().collect();
        let label: Vec<u8> = rows.iter().map(|&r| labels[r as usize]).collect();
        Ok(Table::new(&schema, rows.len(), &[&image, &label])?)
    };
    let order = Permutation::new(labels.len() as u64, SPLIT);
    let order: Vec<u64> = (0..labels.len() as u64).map(|place| order.at(place)).collect();
    let (test, train) = order.split_at(order.len() / 5);
    let Some(fifth) = validate else { return Ok((table(train)?, table(test)?)) };
    let (begin, end) = (fifth * train.len() / 5, (fifth + 1) * train.len() / 5);
    Ok((table(&[&train[..begin], &train[end..]].concat())?, table(&train[begin..end])?))
}

/// How an image is drawn: pixel (x, y), counted from the middle, shows the place of the 8×8 image that `place` gives.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Distortion {
    /// Across and down, in pixels of the 8×8 image.
    shift: [f32; 2],
    /// Width and height of what is seen, by which the digit is narrower and lower.
    size: [f32; 2],
    /// Pixels across for each pixel down.
    slant: f32,
}

impl Distortion {
    const NONE: Self = Self { shift: [0.0; 2], size: [1.0; 2], slant: 0.0 };

    /// The kinds that LeCun et al. 1998 name: translation, scaling, squeezing (both are the two sizes here) and horizontal shearing. Up to
    /// half a pixel, 16 % and a fifth of a pixel a row, found on validation rows.
    fn random(rng: &mut Rng) -> Self {
        let mut up_to = |most: f32| rng.random_range(-most..most);
        Self {
            shift: [up_to(0.5), up_to(0.5)],
            size: [up_to(0.15).exp(), up_to(0.15).exp()],
            slant: up_to(0.2),
        }
    }

    fn place(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        [self.size[0] * (x + self.slant * y) + self.shift[0], self.size[1] * y + self.shift[1]]
    }

    /// Draws ink `[8, 8]` from 0 to 16 as `[SIDE, SIDE]` from 0 to 1, two pixels for each across and down, between pixels bilinearly. Around the
    /// image there is no ink.
    fn draw(&self, ink: &[u8]) -> [f32; SIDE * SIDE] {
        let at = |x: f32, y: f32| {
            let inside = (0.0..8.0).contains(&x) && (0.0..8.0).contains(&y);
            if inside { f32::from(ink[y as usize * 8 + x as usize]) / 16.0 } else { 0.0 }
        };
        let from_middle = |pixel: usize| (pixel as f32 + 0.5 - SIDE as f32 / 2.0) / 2.0;
        std::array::from_fn(|pixel| {
            // Pixel centres lie at whole numbers, the image's middle between 3 and 4.
            let [x, y] = self.place([from_middle(pixel % SIDE), from_middle(pixel / SIDE)]).map(|v| v + 3.5);
            let (left, top) = (x.floor(), y.floor());
            let across = |y: f32| at(left, y) + (x - left) * (at(left + 1.0, y) - at(left, y));
            across(top) + (y - top) * (across(top + 1.0) - across(top))
        })
    }
}

/// The rows of `table` drawn for the network, `distorted` or as they are. How a row is distorted follows from `seed`, the epoch and its number.
fn drawn(table: Table, distorted: bool, seed: u64) -> Fallible<impl Rows> {
    let image = Field::new("image", Dtype::F32, [SIDE, SIDE]);
    let schema = Schema::new(vec![image, Field::new("label", Dtype::U8, [])])?;
    Ok(table.map(schema, seed, move |row, rng, out| {
        let distortion = if distorted { Distortion::random(rng) } else { Distortion::NONE };
        out.write(0, &distortion.draw(row.cell(0)))?;
        out.write(1, row.cell(1))?;
        Ok(())
    }))
}

/// What a training came to.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Score {
    accuracy: f64,
    /// Mean cross-entropy of the rows held out.
    loss: f64,
    /// That of the last training batch.
    train_loss: f64,
    steps: u64,
}

fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Fallible<Tensor> {
    Ok(loss::cross_entropy(logits, labels, 0.0)?.mean(Kind::Float))
}

/// Accuracy and mean loss over all rows of `table`.
fn evaluate(net: &LeNet, table: Table, device: Device) -> Fallible<(f64, f64)> {
    let rows = table.rows();
    let table = drawn(table, false, 0)?;
    let batches = Batches::builder(Sequential::new(rows)?, rows, BatchSize::Fixed(256)).build()?;
    let mut loader = DeviceLoader::new(Loader::builder(table, batches), device)?;
    let (mut right, mut loss, mut epoch) = (0.0, 0.0, loader.epoch());
    while let Some(batch) = epoch.next() {
        let batch = batch?;
        let (logits, labels) = (net.forward(&batch["image"], Phase::Eval), &batch["label"]);
        right += logits.argmax(-1, false).eq_tensor(labels).sum(Kind::Double).double_value(&[]);
        loss += cross_entropy(&logits, labels)?.double_value(&[]) * batch.rows() as f64;
    }
    Ok((right / rows as f64, loss / rows as f64))
}

fn train(options: &Options) -> Fallible<Score> {
    let device = Device::Cpu;
    let (train, held_out) = data(options.validate)?;
    let rows = train.rows();
    let batches = Batches::builder(Shuffled::new(rows)?, rows, BatchSize::Fixed(options.batch));
    let train = drawn(train, !options.undistorted, options.seed)?;
    let mut loader = Loader::builder(train, batches.seed(options.seed).build()?);
    if !options.quiet {
        loader = loader.progress_bar(&EpochBar::new(Some(options.epochs)));
    }
    let mut loader = DeviceLoader::new(loader, device)?;

    let ghost = options.ghost.unwrap_or(i64::MAX / 2);
    let net = LeNet::new(ghost, &mut Rng::seed_from_u64(options.seed), device);
    let (config, lr) = options.optimizer()?;
    let mut optimizer = Optimizer::for_module(config, &net)?;
    let epoch = rows.div_ceil(options.batch as u64);
    let steps = epoch * options.epochs;
    let schedule = options.schedule(options.lr.unwrap_or(lr), steps, epoch);
    schedule.check("--lr", 0.0, f64::MAX)?;
    let mut loss = Tensor::zeros([], (Kind::Float, device));
    for step in 0..steps {
        let batch = loader.next()?;
        loss = cross_entropy(&net.forward(&batch["image"], Phase::Train), &batch["label"])?;
        let gradients = gradients(&loss, optimizer.parameters());
        optimizer.set_learning_rate(schedule.at(step));
        no_grad(|| optimizer.step(&gradients))?;
    }
    let (accuracy, held_out_loss) = no_grad(|| evaluate(&net, held_out, device))?;
    Ok(Score { accuracy, loss: held_out_loss, train_loss: loss.double_value(&[]), steps })
}

fn main() -> Fallible<()> {
    let options = Options::parse(std::env::args().skip(1)).unwrap_or_else(|why| {
        eprintln!("{why}");
        std::process::exit(2);
    });
    // Tensors this small lose more to the hand-over between threads than they gain.
    device::set_threads(1);
    let score = train(&options)?;
    let Score { accuracy, loss, train_loss, steps } = score;
    if options.json {
        let line = serde_json::json!({
            "seed": options.seed, "accuracy": accuracy, "loss": loss, "train_loss": train_loss, "steps": steps,
        });
        println!("{line}");
    } else {
        let rows = if options.validate.is_some() { "validation" } else { "test" };
        println!("{rows} accuracy {accuracy:.4}, {rows} loss {loss:.4}, after {steps} steps");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_epochs_learn_the_digits_and_repeat_to_the_bit() {
        device::set_threads(1);
        let options = Options { seed: 7, epochs: 4, quiet: true, ..Options::default() };
        let score = train(&options).unwrap();
        assert!(score.accuracy > 0.85, "{score:?}");
        assert_eq!(score, train(&options).unwrap());
        assert_ne!(score.loss, train(&Options { seed: 8, ..options }).unwrap().loss);
    }

    #[test]
    fn test_rows_are_the_same_for_every_run_and_are_not_trained_on() {
        let ((train, test), (smaller, validation)) = (data(None).unwrap(), data(Some(0)).unwrap());
        assert_eq!((train.rows(), test.rows()), (1438, 359));
        assert_eq!((smaller.rows(), validation.rows()), (1151, 287));
        let both = [validation.columns().column(0), smaller.columns().column(0)].concat();
        assert_eq!(train.columns().column(0), both, "validation rows are training rows");
        let fifths: u64 = (0..5).map(|fifth| data(Some(fifth)).unwrap().1.rows()).sum();
        assert_eq!(fifths, 1438);
        assert!(Options::parse(["--validate", "5"].map(String::from).into_iter()).is_err());
    }

    #[test]
    fn an_undistorted_image_is_libtorchs_enlargement_in_a_border() {
        let (train, _) = data(None).unwrap();
        let ink = &train.columns().column(0)[..64];
        let drawn = Tensor::from_slice(&Distortion::NONE.draw(ink)).view([20, 20]);
        let x = Tensor::from_slice(ink).to_kind(Kind::Float).view([1, 1, 8, 8]) / 16.0;
        // The border of zeros comes first, as it does in `draw`: at the edge the image fades into it.
        let enlarged = x.constant_pad_nd([1, 1, 1, 1]).upsample_bilinear2d([20, 20], false, None, None);
        assert!((drawn - enlarged.view([20, 20])).abs().max().double_value(&[]) < 1e-6);
    }

    #[test]
    fn distortions_move_the_ink_as_they_say() {
        let mut ink = [0; 64];
        ink[3 * 8 + 4] = 16;
        let middle = |distortion: Distortion| {
            let drawn = distortion.draw(&ink);
            let sum: f32 = drawn.iter().sum();
            let mean = |coordinate: fn(usize) -> usize| {
                drawn.iter().enumerate().map(|(pixel, v)| v * coordinate(pixel) as f32).sum::<f32>() / sum
            };
            [mean(|pixel| pixel % SIDE), mean(|pixel| pixel / SIDE)]
        };
        assert_eq!(middle(Distortion::NONE), [10.5, 8.5]);
        assert_eq!(middle(Distortion { shift: [0.5, -1.0], ..Distortion::NONE }), [9.5, 10.5]);
        let mut rng = Rng::seed_from_u64(3);
        let (first, second) = (Distortion::random(&mut rng), Distortion::random(&mut rng));
        assert_ne!(first, second);
        assert!(first.slant.abs() <= 0.2 && first.shift.iter().all(|s| s.abs() <= 0.5));
    }

    #[test]
    fn the_scaled_rate_is_warmed_up_from_the_rate_that_was_scaled() {
        let options = Options { batch: 512, scale: true, warmup: 4, ..Options::default() };
        let rate = options.schedule(0.05, 60, 3);
        assert!((rate.at(0) - 0.05).abs() < 1e-9 && rate.at(11) > 0.05 * 16.0 * 0.8 && rate.at(60) < 1e-9);
        assert!(Options::parse(["--ghost", "1"].map(String::from).into_iter()).is_err());
    }
}
