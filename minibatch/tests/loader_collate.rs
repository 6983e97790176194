//! Batches that are not stacked, through the loader: what the collation gives by itself, with any number of workers, in memory that is used
//! again, and rows at fault named.

use proptest::prelude::*;
use rl_minibatch::{
    BatchSize, Batches, Collate, Csr, Dtype, Field, FnCollate, Graph, GraphBatch, LastBatch, LengthBucketed,
    LoadError, Loader, MemoryState, NeighborCollate, NeighborSampler, Neighborhood, PackCollate, Packed,
    PadCollate, PadOptions, Padded, Part, Plan, RaggedTable, Rng, Schema, Selection, Sequential, Shuffled,
    Subgraph, Table, Truncate, UnionCollate,
};
use std::collections::BTreeSet;
use std::sync::Arc;

const ROWS: u64 = 37;

fn lengths() -> Vec<u64> {
    (0..ROWS).map(|row| 1 + row * 7 % 11).collect()
}

fn ragged() -> Arc<RaggedTable> {
    let steps: u64 = lengths().iter().sum();
    let x: Vec<f32> = (0..2 * steps).map(|i| i as f32).collect();
    let labels: Vec<i64> = (0..ROWS as i64).collect();
    let table = RaggedTable::builder(ROWS as usize)
        .axis_of_lengths("time", &lengths())
        .ragged("time", Field::new("x", Dtype::F32, [2]), bytemuck::cast_slice(&x))
        .fixed(Field::new("label", Dtype::I64, []), bytemuck::cast_slice(&labels));
    Arc::new(table.build().unwrap())
}

/// Row r has r % 4 + 1 nodes on a path, and a number of its own at each.
fn graphs() -> Arc<[Graph]> {
    let schema = Schema::new(vec![Field::new("x", Dtype::F32, [])]).unwrap();
    let graph = |row: u64| {
        let nodes = row as i64 % 4 + 1;
        let edges: Vec<i64> = (0..nodes - 1).chain(1..nodes).collect();
        let x: Vec<f32> = (0..nodes).map(|node| (10 * row as i64 + node) as f32).collect();
        Graph::new(nodes as usize, &edges)
            .unwrap()
            .with(Part::Node, &schema, &[bytemuck::cast_slice(&x)])
            .unwrap()
    };
    (0..ROWS).map(graph).collect()
}

const NODES: usize = 60;

fn large_graph() -> Arc<Csr> {
    let ends = |stride: usize| (0..NODES * 5).map(move |edge| (edge * stride % NODES) as i64);
    Arc::new(Csr::incoming(NODES, &ends(7).chain(ends(13)).collect::<Vec<_>>()).unwrap())
}

fn features() -> Table {
    let schema = Schema::new(vec![Field::new("x", Dtype::F32, [2])]).unwrap();
    let x: Vec<f32> = (0..2 * NODES).map(|i| i as f32).collect();
    Table::new(&schema, NODES, &[bytemuck::cast_slice(&x)]).unwrap()
}

fn batches(last: LastBatch) -> Batches {
    let sampler =
        LengthBucketed::new(&lengths().iter().map(|l| *l as u32).collect::<Vec<_>>(), 8, 16).unwrap();
    Batches::builder(sampler, ROWS, BatchSize::Fixed(8)).seed(3).last(last).build().unwrap()
}

/// What `see` says of 30 batches, with the plan of each.
fn run<C: Collate + 'static, T>(collate: C, workers: usize, see: impl Fn(&C::Output) -> T) -> Vec<(Plan, T)> {
    let builder = Loader::collating(collate, batches(LastBatch::Keep)).workers(workers).prefetch(workers + 1);
    let mut loader = builder.build().unwrap();
    (0..30)
        .map(|_| {
            let batch = loader.next().unwrap();
            (batch.plan().clone(), see(batch.host()))
        })
        .collect()
}

/// Shape, elements, mask, lengths and labels.
type Seen = (Vec<usize>, Vec<f32>, Vec<u8>, Vec<i64>, Vec<i64>);

fn padded(batch: &Padded) -> Seen {
    let x = batch.typed("x").unwrap().to_vec();
    let (mask, lengths) = (batch.mask("time").unwrap().to_vec(), batch.lengths("time").unwrap().to_vec());
    (batch.shape("x").unwrap().to_vec(), x, mask, lengths, batch.typed("label").unwrap().to_vec())
}

fn packed(batch: &Packed) -> (Vec<f32>, Vec<i64>, Vec<i64>) {
    let (x, labels) = (batch.typed("x").unwrap().to_vec(), batch.typed("label").unwrap().to_vec());
    (x, batch.packing().batch_sizes().to_vec(), labels)
}

fn union(batch: &GraphBatch) -> (Vec<i64>, Vec<i64>, Vec<f32>) {
    let x = batch.typed(Part::Node, "x").unwrap().to_vec();
    (batch.edge_index().to_vec(), batch.batch().to_vec(), x)
}

fn neighborhood(batch: &Neighborhood) -> (Vec<u64>, Vec<u64>, Vec<i64>, Vec<f32>) {
    let (nodes, sources) = (batch.subgraph().nodes().to_vec(), batch.subgraph().all().sources.to_vec());
    (batch.seed_nodes().to_vec(), nodes, sources, batch.typed("x").unwrap().to_vec())
}

fn neighbor_collate() -> NeighborCollate {
    let sampler = NeighborSampler::new(&[3, 2]).unwrap();
    let seeds: Vec<u64> = (0..ROWS).map(|row| 59 - row).collect();
    NeighborCollate::new(large_graph(), sampler, 5).seeds(seeds).unwrap().features(features()).unwrap()
}

#[test]
fn sequences_come_padded_and_packed_as_by_hand_with_any_number_of_workers() {
    let table = ragged();
    let (mut by_hand, options) = (Padded::new(&table, &PadOptions::new()).unwrap(), PadOptions::new());
    let mut packed_by_hand = Packed::new(&table, "time", Truncate::KeepLast(6)).unwrap();
    for workers in [0, 1, 3] {
        for (plan, found) in run(PadCollate::new(ragged(), &options).unwrap(), workers, padded) {
            table.pad_into(&plan.rows, &mut by_hand).unwrap();
            assert_eq!(found, padded(&by_hand), "{workers} workers");
        }
        let collate = PackCollate::new(Arc::clone(&table), "time", Truncate::KeepLast(6)).unwrap();
        for (plan, found) in run(collate, workers, packed) {
            table.pack_into(&plan.rows, &mut packed_by_hand).unwrap();
            assert_eq!(found, packed(&packed_by_hand), "{workers} workers");
        }
    }
}

#[test]
fn graphs_come_united_as_by_hand_with_any_number_of_workers() {
    let (graphs, mut by_hand) = (graphs(), GraphBatch::new());
    for workers in [0, 1, 3] {
        for (plan, found) in run(UnionCollate::new(Arc::clone(&graphs)), workers, union) {
            by_hand.union(plan.rows.iter().map(|row| &graphs[*row as usize])).unwrap();
            assert_eq!(found, union(&by_hand));
        }
    }
}

#[test]
fn neighbourhoods_are_the_batchs_own_whoever_samples_them_and_new_in_every_epoch() {
    let expected = run(neighbor_collate(), 0, neighborhood);
    for workers in [1, 2, 4] {
        assert_eq!(run(neighbor_collate(), workers, neighborhood), expected, "{workers} workers");
    }
    for (plan, (seeds, nodes, _, x)) in &expected {
        assert!(plan.rows.iter().zip(seeds).all(|(row, seed)| *seed == 59 - row));
        assert!(seeds.iter().zip(nodes).all(|(seed, node)| seed == node), "seeds first");
        assert_eq!(x.len(), 2 * nodes.len());
        assert!(x.chunks(2).zip(nodes).all(|(x, node)| x == [2.0 * *node as f32, 2.0 * *node as f32 + 1.0]));
    }
    // The same as by hand with the batch's own generator.
    let (mut sampler, mut part) = (NeighborSampler::new(&[3, 2]).unwrap(), Subgraph::new());
    for (plan, (seeds, nodes, sources, _)) in &expected {
        let mut rng: Rng = Selection::of(plan).rng(5);
        sampler.sample(&mut rng, &large_graph(), seeds, &mut part).unwrap();
        assert_eq!((part.nodes(), part.all().sources), (&nodes[..], &sources[..]));
    }
    // One node's neighbours, epoch after epoch.
    let alone =
        NeighborCollate::new(large_graph(), NeighborSampler::new(&[2]).unwrap(), 5).seeds([0]).unwrap();
    let one = Batches::builder(Sequential::new(1).unwrap(), 1, BatchSize::Fixed(1)).build().unwrap();
    let mut loader = Loader::collating(alone, one).build().unwrap();
    let drawn = |_| loader.next().unwrap().host().subgraph().all().edges.to_vec();
    let different: BTreeSet<Vec<u64>> = (0..20).map(drawn).collect();
    // Two of five edges: 20 draws that are all one of ten pairs happen with probability 1e-18.
    assert!(different.len() > 1);
    let plan = Plan { rows: vec![3, 4], passes: vec![0, 0], real: 2, ..Plan::new() };
    let whole = Selection::of(&plan);
    use rand::RngExt;
    let first = |selection: Selection<'_>| selection.rng(1).random::<u64>();
    assert_ne!(first(whole), first(whole.part(1..2)), "ranks that share out a batch draw different numbers");
}

#[test]
fn a_batch_comes_in_pieces_each_with_its_share() {
    let table = ragged();
    let mut by_hand = Packed::new(&table, "time", Truncate::Whole).unwrap();
    for (workers, last) in [(0, LastBatch::Keep), (2, LastBatch::Pad)] {
        let collate = PackCollate::new(Arc::clone(&table), "time", Truncate::Whole).unwrap().in_pieces(3);
        let mut loader = Loader::collating(collate, batches(last)).workers(workers).build().unwrap();
        for _ in 0..20 {
            let batch = loader.next().unwrap();
            let (plan, pieces) = (batch.plan(), batch.host());
            let expected: Vec<_> = plan.micro_batches(3).collect();
            // The last batch of an epoch has 5 rows: of the three pieces of the one before, one is left over.
            assert_eq!((pieces.len(), pieces.is_empty()), (plan.real.div_ceil(3), false));
            assert_eq!(pieces.iter().map(|(micro, _)| micro.clone()).collect::<Vec<_>>(), expected);
            for (micro, piece) in pieces.iter() {
                table.pack_into(&plan.rows[micro.rows.clone()], &mut by_hand).unwrap();
                assert_eq!(packed(piece), packed(&by_hand));
            }
        }
    }
    let plan = Plan { rows: vec![5, 6, 7, 8], passes: vec![0, 1, 2, 3], real: 2, ..Plan::new() };
    let real = |places| Selection::of(&plan).part(places).real;
    assert_eq!((real(0..1), real(0..3), real(1..4), real(2..4)), (1, 2, 1, 0));
    assert_eq!(Selection::of(&plan).part(1..3).passes, [1, 2]);
}

#[test]
fn the_row_at_fault_is_named_and_the_next_batch_comes() {
    let sequential =
        || Batches::builder(Sequential::new(ROWS).unwrap(), ROWS, BatchSize::Fixed(8)).build().unwrap();
    for workers in [0, 2] {
        // Rows 3, 14, 25 and 36 have 11 steps, in the batches 0, 1, 3 and 4.
        let options = PadOptions::new().truncate(Truncate::Refuse(10));
        let collate = PadCollate::new(ragged(), &options).unwrap();
        let mut loader = Loader::collating(collate, sequential()).workers(workers).build().unwrap();
        let rows: Vec<_> = (0..5).map(|_| loader.next()).collect();
        let at_fault = |result: &Result<_, LoadError>| match result {
            Ok(_) => None,
            Err(LoadError::Row { row, cause }) => Some((*row, cause.to_string())),
            Err(other) => panic!("{other}"),
        };
        let found: Vec<_> = rows.iter().map(at_fault).collect();
        let numbers: Vec<_> = found.iter().map(|fault| fault.as_ref().map(|(row, _)| *row)).collect();
        let first_longer =
            |batch: u64| (8 * batch..(8 * batch + 8).min(ROWS)).find(|row| 1 + row * 7 % 11 > 10);
        assert_eq!(numbers, (0..5).map(first_longer).collect::<Vec<_>>());
        assert!(numbers.contains(&None) && numbers.iter().flatten().count() > 1, "{numbers:?}");
        let (row, cause) = found.iter().flatten().next().unwrap();
        assert!(
            cause.contains(&format!("row {row} (number {} of the batch) has 11 steps", row % 8)),
            "{cause}"
        );

        // Graph 10 has no columns.
        let mut without = graphs().to_vec();
        without[10] = Graph::new(2, &[0, 1]).unwrap();
        let mut loader =
            Loader::collating(UnionCollate::new(without), sequential()).workers(workers).build().unwrap();
        let errors: Vec<_> =
            (0..5).filter_map(|_| loader.next().err()).map(|error| error.to_string()).collect();
        let expected = "row 10 cannot be read: graph 2 of the batch has other node columns than the first; give all \
                        graphs the same";
        assert_eq!(errors, [expected]);

        // A function's own words, its panic, and memory that it forgot.
        let collate = FnCollate::new(ROWS, |drawn: &Selection<'_>, out: &mut Option<u64>| match drawn.step {
            1 => Err(LoadError::collate(drawn, Some(2), "it is torn")),
            2 => Err(LoadError::collate(drawn, None, "the moon is full")),
            3 => panic!("not today"),
            4 => {
                *out = None;
                Ok(())
            }
            step => {
                *out.get_or_insert_default() = step;
                Ok(())
            }
        });
        let mut loader = Loader::collating(collate, sequential()).workers(workers).build().unwrap();
        let said: Vec<_> = (0..7)
            .map(|_| loader.next().map_or_else(|error| error.to_string(), |batch| batch.host().to_string()))
            .collect();
        let expected = [
            "0",
            "row 10 cannot be read: it is torn",
            "batch 2 cannot be collated: the moon is full",
            "loading batch 3 panicked: not today",
            "batch 4 cannot be collated: its collate function gave no batch and no error",
            "5",
            "6",
        ];
        assert_eq!(said, expected);
    }
    assert!(neighbor_collate().seeds([60]).unwrap_err().to_string().contains("node 60"));
    let few = Table::new(&Schema::new(vec![Field::new("x", Dtype::U8, [])]).unwrap(), 2, &[&[0, 1]]).unwrap();
    let error = neighbor_collate().features(few).unwrap_err().to_string();
    assert_eq!(error, "the node features have 2 rows and the graph has 60 nodes; give one row a node");
    let other = Loader::collating(UnionCollate::new(graphs()), {
        Batches::builder(Sequential::new(9).unwrap(), 9, BatchSize::Fixed(2)).build().unwrap()
    });
    assert!(matches!(other.build(), Err(LoadError::Rows { batches: 9, source_rows: ROWS })));
}

#[test]
fn memory_is_used_again_and_a_warm_loader_allocates_nothing() {
    fn check<C: Collate + 'static>(name: &str, make: impl Fn() -> C) {
        for workers in [0, 1, 2] {
            let builder = Loader::collating(make(), batches(LastBatch::Keep)).workers(workers);
            let mut loader = builder.build().unwrap();
            (0..300).for_each(|_| drop(loader.next().unwrap()));
            let info = allocation_counter::measure(|| (0..100).for_each(|_| drop(loader.next().unwrap())));
            // With no worker this counts the collation, otherwise only what the caller does.
            assert_eq!((info.count_total, info.bytes_total), (0, 0), "{name} with {workers} workers");
        }
    }
    check("padded", || PadCollate::new(ragged(), &PadOptions::new()).unwrap());
    check("packed", || PackCollate::new(ragged(), "time", Truncate::Whole).unwrap());
    check("packed in pieces", || PackCollate::new(ragged(), "time", Truncate::Whole).unwrap().in_pieces(3));
    check("united", || UnionCollate::new(graphs()));
    check("neighbourhoods", neighbor_collate);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]
    #[test]
    fn neighbourhoods_resume_behind_the_last_one_taken(taken in 0usize..12, workers in 0usize..3, batch in 1usize..9) {
        let build = |workers| {
            let shuffled = Batches::builder(Shuffled::new(ROWS).unwrap(), ROWS, BatchSize::Fixed(batch));
            Loader::collating(neighbor_collate(), shuffled.seed(8).build().unwrap()).workers(workers).build().unwrap()
        };
        let (mut loader, mut resumed) = (build(workers), build(2));
        (0..taken).for_each(|_| drop(loader.next().unwrap()));
        let saved = MemoryState::save(|v| loader.visit(v)).unwrap();
        saved.load(|v| resumed.visit(v)).unwrap();
        for _ in 0..10 {
            let (here, there) = (loader.next().unwrap(), resumed.next().unwrap());
            prop_assert_eq!(neighborhood(here.host()), neighborhood(there.host()));
        }
    }
}
