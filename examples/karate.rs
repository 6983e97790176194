//! Nodes of a graph told apart with GraphSAGE: which of the 34 members of Zachary's karate club went with Mr. Hi and which with the
//! officer, from who met whom and a few members whose choice is given.
//!
//! Batches are of labelled members; [`NeighborCollate`] draws the part of the graph that two layers need for them, on the loader's thread, as
//! it would from a graph of any size. Members whose choice was not given are scored with all their neighbours.
//!
//! `cargo run --release -p rl-learn --example karate -- --seed 0`

use clap::Parser;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rl_learn::{
    BlockTensors, Device, Kind, Linear, Module, NeighborhoodTensors, Optimizer, OptimizerConfig, Role,
    Schedule, Tensor, device, gradients, loss, no_grad, parameters, walk_under,
};
use rl_minibatch::{
    BatchSize, Batches, Csr, Dtype, EpochBar, Field, Loader, NeighborCollate, NeighborSampler, Rng, Schema,
    Sequential, Stratified, Table,
};
use std::error::Error;
use std::io::Write;
use std::sync::Arc;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/data/");
const CLUBS: usize = 2;
/// Members of each club whose choice is given.
const LABELLED: usize = 4;
const BATCH: usize = 4;
/// Neighbours drawn of each member: of the batch's, and of theirs.
const FANOUTS: [i64; 2] = [5, 5];
const HIDDEN: i64 = 16;
const PEAK_RATE: f64 = 1e-2;

/// Tells the two sides of the karate club apart with GraphSAGE.
#[derive(Parser)]
struct Args {
    /// Seed of the labelled members, of the network, of the order of batches and of the neighbours
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Passes over the labelled members
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    epochs: u64,
    /// Print the result as one line of JSON
    #[arg(long)]
    json: bool,
}

/// The lines of a CSV file after its header, as whole numbers.
fn read(name: &str) -> Result<Vec<Vec<i64>>, Box<dyn Error>> {
    let path = format!("{FOLDER}{name}");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let parse = |(number, line): (usize, &str)| {
        line.split(',')
            .map(str::parse)
            .collect::<Result<Vec<i64>, _>>()
            .map_err(|e| format!("{path}, line {}: {e}", number + 1).into())
    };
    text.lines().enumerate().skip(1).map(parse).collect()
}

/// The club: who met whom, both ways; features and choice of each member.
struct Club {
    graph: Arc<Csr>,
    /// `x` f32 `[members]`, all 0 but for the member's own place, and `club` i64.
    members: Arc<Table>,
    clubs: Vec<i64>,
}

impl Club {
    fn read() -> Result<Self, Box<dyn Error>> {
        let clubs: Vec<i64> = read("karate-nodes.csv")?.iter().map(|node| node[1]).collect();
        let edges = read("karate-edges.csv")?;
        let ends = |end: usize| edges.iter().map(move |edge| edge[end]);
        let index: Vec<i64> = ends(0).chain(ends(1)).chain(ends(1)).chain(ends(0)).collect();
        let members = clubs.len();
        // Nothing is known of a member but who it is.
        let mut x = vec![0f32; members * members];
        (0..members).for_each(|member| x[member * members + member] = 1.0);
        let schema =
            Schema::new(vec![Field::new("x", Dtype::F32, [members]), Field::new("club", Dtype::I64, [])])?;
        let columns = [bytemuck::cast_slice(&x), bytemuck::cast_slice(&clubs)];
        Ok(Self {
            graph: Arc::new(Csr::incoming(members, &index)?),
            members: Arc::new(Table::new(&schema, members, &columns)?),
            clubs,
        })
    }

    /// Draws the members whose choice is given, as many of each club; and the rest.
    fn split(&self, rng: &mut Rng) -> (Vec<u64>, Vec<u64>) {
        let mut order: Vec<u64> = (0..self.clubs.len() as u64).collect();
        order.shuffle(rng);
        let mut left = [LABELLED; CLUBS];
        order.into_iter().partition(|&member| {
            let left = &mut left[self.clubs[member as usize] as usize];
            let labelled = *left > 0;
            *left -= usize::from(labelled);
            labelled
        })
    }

    /// Neighbourhoods of `members`, with at most `fanouts` neighbours a member.
    fn neighborhoods(
        &self,
        members: &[u64],
        fanouts: &[i64],
        seed: u64,
    ) -> Result<NeighborCollate, Box<dyn Error>> {
        let collate = NeighborCollate::new(Arc::clone(&self.graph), NeighborSampler::new(fanouts)?, seed);
        Ok(collate.seeds(members)?.features(Arc::clone(&self.members))?)
    }
}

/// GraphSAGE's mean aggregator (Hamilton, Ying and Leskovec 2017, algorithm 2): h'ᵥ = W·[hᵥ ; mean over sampled neighbours u of hᵤ] + b.
struct Sage(Linear);

impl Sage {
    fn forward(&self, h: &Tensor, block: &BlockTensors) -> Tensor {
        self.0.forward(&Tensor::cat(&[h.narrow(0, 0, block.target_nodes), block.mean(h)], 1))
    }
}

/// Two layers, with a ReLU between them.
struct Network {
    layers: [Sage; 2],
}

impl Module for Network {
    fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
        for (number, layer) in self.layers.iter().enumerate() {
            walk_under(&layer.0, &format!("layers.{number}"), show);
        }
    }
}

impl Network {
    fn new(inputs: i64, rng: &mut Rng) -> Self {
        let mut layer = |from: i64, to: i64| Sage(Linear::new(2 * from, to, rng, Kind::Float, Device::Cpu));
        Self { layers: [layer(inputs, HIDDEN), layer(HIDDEN, CLUBS as i64)] }
    }

    /// Logits `[B, clubs]` of the batch's members, in their order, and their clubs `[B]`.
    fn forward(&self, part: &NeighborhoodTensors) -> (Tensor, Tensor) {
        let hidden = self.layers[0].forward(&part["x"], &part.blocks[0]).relu();
        let out = self.layers[1].forward(&hidden, &part.blocks[1]);
        (out.index_select(0, &part.seeds), part["club"].index_select(0, &part.seeds))
    }
}

/// The part of `members` whose club is found, from all neighbours of each.
fn accuracy(club: &Club, network: &Network, members: &[u64]) -> Result<f64, Box<dyn Error>> {
    let rows = members.len() as u64;
    let batches = Batches::builder(Sequential::new(rows)?, rows, BatchSize::Full).build()?;
    // With all neighbours nothing is drawn, so the seed is of no account.
    let mut loader = Loader::collating(club.neighborhoods(members, &[-1, -1], 0)?, batches).build()?;
    let part = NeighborhoodTensors::to(loader.next()?.host(), Device::Cpu)?;
    let (logits, clubs) = no_grad(|| network.forward(&part));
    Ok(logits.argmax(1, false).eq_tensor(&clubs).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]))
}

struct Score {
    labelled: usize,
    rest: usize,
    accuracy: f64,
}

/// Trains for `epochs`, shown on `bar`, and scores the members whose choice was not given.
fn train(club: &Club, seed: u64, epochs: u64, bar: &EpochBar) -> Result<Score, Box<dyn Error>> {
    let mut rng = Rng::seed_from_u64(seed);
    let (labelled, rest) = club.split(&mut rng);
    let classes: Vec<u32> = labelled.iter().map(|member| club.clubs[*member as usize] as u32).collect();
    let rows = labelled.len() as u64;
    let batches = Batches::builder(Stratified::new(&classes, CLUBS)?, rows, BatchSize::Fixed(BATCH));
    let collate = club.neighborhoods(&labelled, &FANOUTS, seed)?;
    let loader = Loader::collating(collate, batches.seed(seed).build()?);
    let mut loader = loader.workers(1).progress_bar(bar).build()?;

    let network = Network::new(club.clubs.len() as i64, &mut rng);
    let adam = OptimizerConfig::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };
    let mut optimizer = Optimizer::for_module(adam, &network)?;
    let weights = parameters(&network);
    let rate = Schedule::cosine(PEAK_RATE, 0.0, epochs * rows.div_ceil(BATCH as u64));
    for _ in 0..epochs {
        let mut sum = 0.0;
        for batch in loader.epoch() {
            let batch = batch?;
            let (logits, clubs) = network.forward(&NeighborhoodTensors::to(batch.host(), Device::Cpu)?);
            let loss = loss::cross_entropy(&logits, &clubs, 0.0)?.mean(Kind::Float);
            optimizer.set_learning_rate(rate.at(batch.plan().step));
            let gradients = gradients(&loss, &weights);
            no_grad(|| optimizer.step(&gradients))?;
            sum += loss.double_value(&[]) * batch.plan().real as f64;
        }
        bar.set_message(format_args!("loss {:.3}", sum / rows as f64));
    }
    Ok(Score { labelled: labelled.len(), rest: rest.len(), accuracy: accuracy(club, &network, &rest)? })
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    // The matrices are small: more threads would wait for each other.
    device::set_threads(1);
    let club = Club::read()?;
    let bar = EpochBar::new(Some(args.epochs));
    let Score { labelled, rest, accuracy } = train(&club, args.seed, args.epochs, &bar)?;
    bar.finish();
    let mut out = std::io::stdout().lock();
    if args.json {
        let result = serde_json::json!({
            "example": "karate", "seed": args.seed, "epochs": args.epochs,
            "labelled": labelled, "held_out": rest, "accuracy": accuracy,
        });
        writeln!(out, "{result}")?;
    } else {
        writeln!(
            out,
            "{labelled} members labelled; of the other {rest}, {:.1} % found right",
            100.0 * accuracy
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_seeds_find_nine_of_ten() {
        device::set_threads(1);
        let club = Club::read().unwrap();
        let bar = EpochBar::lines(None, std::io::sink());
        let found = |seed| train(&club, seed, 100, &bar).unwrap().accuracy;
        let each: Vec<f64> = (0..5).map(found).collect();
        assert!(each.iter().sum::<f64>() / 5.0 >= 0.9, "{each:?}");
        assert_eq!(found(0).to_bits(), each[0].to_bits());
    }

    #[test]
    fn a_layer_takes_the_mean_of_the_neighbours() {
        // 1 and 2 send to 0, twice one of them.
        let graph = Csr::incoming(3, &[1, 2, 2, 0, 0, 0]).unwrap();
        let (mut sampler, mut part) = (NeighborSampler::new(&[-1]).unwrap(), rl_minibatch::Subgraph::new());
        sampler.sample(&mut Rng::seed_from_u64(0), &graph, &[0], &mut part).unwrap();
        let layer = Sage(Linear::new(2, 1, &mut Rng::seed_from_u64(0), Kind::Float, Device::Cpu));
        let h = Tensor::from_slice(&[1.0f32, 4.0, 7.0]).reshape([3, 1]);
        let expected = layer.0.forward(&Tensor::from_slice(&[1.0f32, 6.0]).reshape([1, 2]));
        let apart = layer.forward(&h, &BlockTensors::to(part.block(0), Device::Cpu).unwrap()) - expected;
        assert!(apart.abs().max().double_value(&[]) < 1e-6);
    }

    #[test]
    fn no_labelled_member_is_scored() {
        let club = Club::read().unwrap();
        let (labelled, rest) = club.split(&mut Rng::seed_from_u64(3));
        assert_eq!((labelled.len(), rest.len()), (LABELLED * CLUBS, 34 - LABELLED * CLUBS));
        assert!(labelled.iter().all(|member| !rest.contains(member)));
        assert_eq!(labelled.iter().filter(|member| club.clubs[**member as usize] == 0).count(), LABELLED);
    }
}
