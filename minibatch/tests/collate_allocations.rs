//! In the steady state collating allocates nothing, whatever the order in which batches come.

use allocation_counter::measure;
use rand::{RngExt, SeedableRng};
use rl_minibatch::{
    Csr, Dtype, Expand, Field, Graph, GraphBatch, NeighborSampler, Packed, PadOptions, Padded, Part,
    RaggedTable, Rng, Schema, SequenceLayout, Subgraph, Truncate,
};

/// Runs `step` for batches 0 to 9, then for the same again, in another order, of which none may allocate or free.
fn steady(what: &str, mut step: impl FnMut(u64)) {
    (0..10).for_each(&mut step);
    let info = measure(|| (0..10).rev().for_each(&mut step));
    assert_eq!((info.count_total, info.bytes_total), (0, 0), "{what} allocates in the steady state");
}

fn rows(batch: u64, below: u64) -> Vec<u64> {
    let mut rng = Rng::seed_from_u64(batch);
    let count = rng.random_range(1..30);
    (0..count).map(|_| rng.random_range(0..below)).collect()
}

#[test]
fn padding_and_packing() {
    let lengths: Vec<u64> = (0..100).map(|row| 1 + row * 7 % 23).collect();
    let total = lengths.iter().sum::<u64>() as usize;
    let (x, y) = (vec![0u8; total * 12], vec![0u8; 800]);
    let table = RaggedTable::builder(100)
        .axis_of_lengths("time", &lengths)
        .ragged("time", Field::new("x", Dtype::F32, [3]), &x)
        .fixed(Field::new("y", Dtype::I64, []), &y)
        .build()
        .unwrap();
    let batches: Vec<Vec<u64>> = (0..10).map(|batch| rows(batch, 100)).collect();
    for layout in [SequenceLayout::BatchFirst, SequenceLayout::SequenceFirst] {
        let options = PadOptions::new().layout(layout).value("x", 1.5f32).multiple_of(8);
        let mut out = Padded::new(&table, &options).unwrap();
        steady("pad_into", |batch| table.pad_into(&batches[batch as usize], &mut out).unwrap());
    }
    let mut out = Packed::new(&table, "time", Truncate::KeepLast(20)).unwrap();
    steady("pack_into", |batch| table.pack_into(&batches[batch as usize], &mut out).unwrap());
    let (mut data, mut back) = (Vec::new(), Vec::new());
    let mut padded = Padded::new(&table, &PadOptions::new().truncate(Truncate::KeepLast(20))).unwrap();
    steady("packing and unpacking", |batch| {
        table.pack_into(&batches[batch as usize], &mut out).unwrap();
        table.pad_into(&batches[batch as usize], &mut padded).unwrap();
        let (steps, x) = (padded.steps("time").unwrap(), padded.typed::<f32>("x").unwrap());
        out.packing().pack_into(x, steps, 3, SequenceLayout::BatchFirst, &mut data).unwrap();
        out.packing().unpack_into(&data, None, 3, SequenceLayout::BatchFirst, 0.0, &mut back).unwrap();
    });
}

#[test]
fn graphs() {
    let schema = Schema::new(vec![Field::new("x", Dtype::F32, [])]).unwrap();
    let graphs: Vec<Graph> = (1..40)
        .map(|nodes| {
            let ring: Vec<i64> = (0..nodes).chain((0..nodes).map(|node| (node + 1) % nodes)).collect();
            let x = vec![0u8; 4 * nodes as usize];
            Graph::new(nodes as usize, &ring).unwrap().with(Part::Node, &schema, &[&x]).unwrap()
        })
        .collect();
    let batches: Vec<Vec<u64>> = (0..10).map(|batch| rows(batch, 39)).collect();
    let mut out = GraphBatch::new();
    steady("union", |batch| {
        out.union(batches[batch as usize].iter().map(|row| &graphs[*row as usize])).unwrap();
    });
}

#[test]
fn neighbours() {
    let mut rng = Rng::seed_from_u64(0);
    let index: Vec<i64> = (0..2 * 60_000).map(|_| rng.random_range(0..1000)).collect();
    let graph = Csr::incoming(1000, &index).unwrap();
    let batches: Vec<Vec<u64>> = (0..10).map(|batch| rows(batch, 1000)).collect();
    for (replace, expand) in [(false, Expand::New), (true, Expand::New), (false, Expand::All)] {
        // 40 is above what is drawn with Floyd's sample.
        let mut sampler = NeighborSampler::new(&[40, 5]).unwrap().replace(replace).expand(expand);
        let mut out = Subgraph::new();
        steady("sample", |batch| {
            // The same generator for the same batch, so that the second round needs what the first did.
            let mut rng = Rng::seed_from_u64(batch);
            sampler.sample(&mut rng, &graph, &batches[batch as usize], &mut out).unwrap();
        });
    }
}
