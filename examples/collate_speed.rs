//! How fast rows become batches: `cargo run --release -p rl-minibatch --example collate_speed`.
//!
//! Sequences of 10 to 200 steps of 16 f32, 64 a batch, padded and packed; graphs of 10 to 40 nodes, 128 a batch; a random
//! graph of a million nodes with 20 incoming edges each, 1024 seeds a batch with fanouts 10 and 5. Each line has the median and
//! the best of 200 batches on one thread; the best is what is left on a machine that has other things to do.

use rand::{RngExt, SeedableRng};
use rl_minibatch::{
    Csr, Dtype, Expand, Field, Graph, GraphBatch, NeighborSampler, Packed, PadOptions, Padded, Part,
    RaggedTable, Rng, Schema, SequenceLayout, Subgraph, Truncate,
};
use std::error::Error;
use std::time::Instant;

const BATCHES: usize = 200;

/// Runs `step`, which says how much it did, and prints the median rate.
fn measure(
    what: &str,
    unit: &str,
    mut step: impl FnMut() -> Result<usize, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let mut rates = Vec::with_capacity(BATCHES);
    let mut times = Vec::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        let start = Instant::now();
        let done = step()?;
        let seconds = start.elapsed().as_secs_f64();
        times.push(seconds);
        rates.push(done as f64 / seconds);
    }
    rates.sort_by(f64::total_cmp);
    times.sort_by(f64::total_cmp);
    let (median, best) = (times[BATCHES / 2] * 1e6, times[0] * 1e6);
    let (middle, most) = (rates[BATCHES / 2] / 1e6, rates[BATCHES - 1] / 1e6);
    println!(
        "{what:<32} {median:>9.1} µs {middle:>9.1} M{unit}/s   best {best:>9.1} µs {most:>9.1} M{unit}/s"
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut rng = Rng::seed_from_u64(0);
    sequences(&mut rng)?;
    graphs(&mut rng)?;
    neighbours(&mut rng)
}

fn sequences(rng: &mut Rng) -> Result<(), Box<dyn Error>> {
    let lengths: Vec<u64> = (0..5_000).map(|_| rng.random_range(10..=200)).collect();
    let values: Vec<f32> = (0..lengths.iter().sum::<u64>() * 16).map(|i| i as f32).collect();
    let table = RaggedTable::builder(lengths.len())
        .axis_of_lengths("time", &lengths)
        .ragged("time", Field::new("x", Dtype::F32, [16]), bytemuck::cast_slice(&values))
        .build()?;
    let mut rows = vec![0u64; 64];
    for layout in [SequenceLayout::BatchFirst, SequenceLayout::SequenceFirst] {
        let mut batch = Padded::new(&table, &PadOptions::new().layout(layout))?;
        measure(&format!("pad, {layout:?}"), "B", || {
            rows.fill_with(|| rng.random_range(0..table.rows()));
            table.pad_into(&rows, &mut batch)?;
            Ok(batch.column(0).len())
        })?;
    }
    let mut batch = Packed::new(&table, "time", Truncate::Whole)?;
    measure("pack", "B", || {
        rows.fill_with(|| rng.random_range(0..table.rows()));
        table.pack_into(&rows, &mut batch)?;
        Ok(batch.column(0).map_or(0, <[u8]>::len))
    })
}

fn graphs(rng: &mut Rng) -> Result<(), Box<dyn Error>> {
    let schema = Schema::new(vec![Field::new("x", Dtype::F32, [16])])?;
    let mut graphs = Vec::new();
    for _ in 0..2_000 {
        let nodes = rng.random_range(10..=40usize);
        let ends: Vec<i64> = (0..4 * nodes).map(|_| rng.random_range(0..nodes as i64)).collect();
        let x = vec![0u8; nodes * schema.row_bytes()];
        graphs.push(Graph::new(nodes, &ends)?.with(Part::Node, &schema, &[&x])?);
    }
    let (mut batch, mut rows) = (GraphBatch::new(), vec![0usize; 128]);
    measure("union of 128 graphs", "edges", || {
        rows.fill_with(|| rng.random_range(0..graphs.len()));
        batch.union(rows.iter().map(|row| &graphs[*row]))?;
        Ok(batch.edges())
    })
}

fn neighbours(rng: &mut Rng) -> Result<(), Box<dyn Error>> {
    const NODES: usize = 1_000_000;
    const DEGREE: usize = 20;
    let offsets: Vec<u64> = (0..=NODES).map(|node| (node * DEGREE) as u64).collect();
    let neighbours = (0..NODES * DEGREE).map(|_| rng.random_range(0..NODES as u32)).collect();
    let graph = Csr::new(offsets, neighbours)?;
    let (mut part, mut seeds) = (Subgraph::new(), vec![0u64; 1024]);
    for (replace, expand) in [(false, Expand::New), (true, Expand::New), (false, Expand::All)] {
        let mut sampler = NeighborSampler::new(&[10, 5])?.replace(replace).expand(expand);
        let how = if replace { "with" } else { "without" };
        measure(&format!("sample {how} replacement, {expand:?}"), "edges", || {
            seeds.fill_with(|| rng.random_range(0..NODES as u64));
            sampler.sample(rng, &graph, &seeds, &mut part)?;
            Ok(part.all().edges.len())
        })?;
    }
    Ok(())
}
