//! What it costs to store next_obs whole or to derive it, by the size of an observation: the table in the documentation of
//! `NextObs`. `cargo run --release -p rl-replay --example next_obs [MiB of observations] [rounds]`.
//!
//! Both are filled by one stream with episodes of 1,000 steps, and take turns in drawing batches of 256; medians of the
//! rounds are told.

use rand::SeedableRng;
use rl_replay::{Batch, Drawn, Dtype, NextObs, Rng, TransitionStep, Transitions};
use std::error::Error;
use std::time::{Duration, Instant};

const BATCH: usize = 256;
const ROUND: Duration = Duration::from_millis(40);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let bytes = arguments.next().transpose()?.unwrap_or(256) << 20;
    let rounds = arguments.next().transpose()?.unwrap_or(21);
    println!(
        "| obs bytes | rows | stored: B/row | rows drawn/s | steps/s | derived: B/row | rows drawn/s | steps/s | drawn, derived : stored |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for obs in [64, 256, 512, 1024, 2048, 4096, 16_384, 28_224] {
        // Far more than a cache holds.
        let capacity = (bytes / obs).min(1_000_000);
        let mut sides =
            [Side::new(obs, capacity, NextObs::Stored)?, Side::new(obs, capacity, NextObs::Derived)?];
        let inserted = [sides[0].fill()?, sides[1].fill()?];
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (side, rates) in sides.iter_mut().zip(&mut rates) {
                rates.push(side.draw()?);
            }
        }
        let mut ratios: Vec<f64> =
            rates[0].iter().zip(&rates[1]).map(|(stored, derived)| derived / stored).collect();
        let ratio = median(&mut ratios);
        let [stored, derived] = [0, 1].map(|at| {
            let bytes = sides[at].transitions.memory_bytes() / sides[at].transitions.len();
            format!("{bytes} | {} | {}", millions(median(&mut rates[at].clone())), millions(inserted[at]))
        });
        println!("| {obs} | {capacity} | {stored} | {derived} | {ratio:.2} |");
    }
    Ok(())
}

struct Side {
    transitions: Transitions,
    obs: Vec<u8>,
    batch: Batch,
    drawn: Drawn,
    rng: Rng,
}

impl Side {
    fn new(obs: usize, capacity: usize, next_obs: NextObs) -> Result<Self, Box<dyn Error>> {
        let transitions = Transitions::builder((Dtype::U8, &[obs]), (Dtype::I64, &[]))
            .capacity(capacity)
            .next_obs(next_obs)
            .build()?;
        let batch = Batch::new(transitions.schema(), BATCH);
        Ok(Self {
            transitions,
            obs: vec![0; obs],
            batch,
            drawn: Drawn::default(),
            rng: Rng::seed_from_u64(0),
        })
    }

    /// Goes around twice, once for the pages to be there. Returns the steps inserted a second the second time.
    fn fill(&mut self) -> Result<f64, Box<dyn Error>> {
        let capacity = self.transitions.capacity();
        let mut stream = self.transitions.stream();
        let mut began = Instant::now();
        for t in 0..2 * capacity {
            if t == capacity {
                began = Instant::now();
            }
            self.obs[..8].copy_from_slice(&t.to_ne_bytes());
            if t % 1000 == 0 {
                stream.begin(&self.obs)?;
            }
            stream.step(TransitionStep {
                action: &[0; 8],
                reward: 1.0,
                next_obs: &self.obs,
                terminated: false,
                truncated: t % 1000 == 999,
            })?;
        }
        Ok(capacity as f64 / began.elapsed().as_secs_f64())
    }

    /// Rows drawn a second, over a round.
    fn draw(&mut self) -> Result<f64, Box<dyn Error>> {
        let mut reader = self.transitions.sampler();
        let (began, mut rows) = (Instant::now(), 0);
        while began.elapsed() < ROUND {
            for _ in 0..8 {
                reader.sample_into(&mut self.rng, BATCH, &mut self.batch.view_mut(), &mut self.drawn)?;
                rows += BATCH;
            }
        }
        Ok(rows as f64 / began.elapsed().as_secs_f64())
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn millions(rate: f64) -> String {
    format!("{:.2}M", rate / 1e6)
}
