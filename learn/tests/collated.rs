//! Collated batches as tensors: the same numbers in PyTorch's shapes, and networks that see no difference between forms of one batch.

use rand::SeedableRng;
use rl_learn::{
    BlockTensors, Device, GraphTensors, Kind, NeighborhoodTensors, PackedTensors, PaddedTensors, Rng, Rnn,
    RnnConfig, RnnKind, RnnState, Tensor,
};
use rl_minibatch::{
    BatchSize, Batches, Csr, Dtype, Field, Graph, GraphBatch, Loader, NeighborCollate, NeighborSampler,
    PackCollate, Packed, PadOptions, Padded, Part, RaggedTable, Schema, SequenceLayout, Sequential, Shuffled,
    Table, Truncate,
};

const CPU: Device = Device::Cpu;

/// Four series of 3, 1, 4 and 2 steps of two numbers, with a label each; and words along an axis of their own.
fn table() -> RaggedTable {
    let x: Vec<f32> = (0..20).map(|i| (i as f32 * 0.37).sin()).collect();
    let tags: Vec<u8> = (0..10).map(|i| i % 2).collect();
    RaggedTable::builder(4)
        .axis_of_lengths("time", &[3, 1, 4, 2])
        .axis_of_lengths("words", &[1, 0, 2, 1])
        .ragged("time", Field::new("x", Dtype::F32, [2]), bytemuck::cast_slice(&x))
        .ragged("time", Field::new("tag", Dtype::Bool, []), &tags)
        .ragged("words", Field::new("word", Dtype::I32, []), bytemuck::cast_slice(&[5i32, 6, 7, 8]))
        .fixed(Field::new("label", Dtype::I64, []), bytemuck::cast_slice(&[40i64, 41, 42, 43]))
        .build()
        .unwrap()
}

fn padded(layout: SequenceLayout, rows: &[u64]) -> PaddedTensors {
    let table = table();
    let mut batch = Padded::new(&table, &PadOptions::new().layout(layout).value("x", 9.0f32)).unwrap();
    table.pad_into(rows, &mut batch).unwrap();
    PaddedTensors::to(&batch, CPU).unwrap()
}

fn integers(tensor: &Tensor) -> Vec<i64> {
    Vec::try_from(tensor.to_kind(Kind::Int64).flatten(0, -1)).unwrap()
}

#[test]
fn padded_columns_masks_and_lengths_have_pytorchs_shapes() {
    let (rows, first) = ([2u64, 1, 0], padded(SequenceLayout::BatchFirst, &[2, 1, 0]));
    let second = padded(SequenceLayout::SequenceFirst, &rows);
    assert_eq!((first["x"].size(), second["x"].size()), (vec![3, 4, 2], vec![4, 3, 2]));
    assert_eq!((first["tag"].kind(), first["word"].size()), (Kind::Bool, vec![3, 2]));
    assert_eq!((first["label"].size(), integers(&first["label"])), (vec![3], vec![42, 41, 40]));
    assert_eq!((first.mask("time").kind(), first.mask("time").size()), (Kind::Bool, vec![3, 4]));
    assert_eq!(integers(first.mask("time")), [1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0]);
    assert_eq!(integers(first.mask("words")), [1, 1, 0, 0, 1, 0]);
    assert_eq!(integers(first.lengths("time")), [4, 1, 3]);
    // What is behind a row's end is the pad value, and nothing else is.
    let pads = first["x"].eq(9.0).all_dim(-1, false);
    assert_eq!(pads, first.mask("time").logical_not());
    for name in ["x", "tag", "word"] {
        assert_eq!(first[name].transpose(0, 1), second[name], "{name}");
    }
    assert_eq!(first.mask("time").transpose(0, 1), *second.mask("time"));
    assert_eq!((first.get("y").is_none(), second.layout()), (true, SequenceLayout::SequenceFirst));
}

#[test]
fn an_rnn_gives_the_same_for_padded_and_packed_batches_in_the_order_of_the_batch() {
    let rows = [1u64, 2, 3, 0];
    let (ragged, mut batch) = (table(), Packed::new(&table(), "time", Truncate::Whole).unwrap());
    ragged.pack_into(&rows, &mut batch).unwrap();
    let packed = PackedTensors::to(&batch, CPU).unwrap();
    assert_eq!((packed["x"].size(), packed["tag"].size()), (vec![10, 2], vec![10]));
    assert!(packed.get("word").is_none(), "it lies along another axis");
    assert_eq!(integers(&packed["label"]), [41, 42, 43, 40]);
    assert_eq!(integers(packed.batch_sizes()), [4, 3, 2, 1]);
    assert_eq!(
        (integers(packed.sorted_indices()), integers(packed.unsorted_indices())),
        (vec![1, 3, 2, 0], vec![3, 0, 2, 1])
    );
    for kind in [RnnKind::Gru, RnnKind::Lstm] {
        let config = RnnConfig { kind, inputs: 2, hidden: 3, layers: 2, bidirectional: true };
        let rnn = Rnn::new(config, &mut Rng::seed_from_u64(1), Kind::Float, CPU);
        let of_packed = packed.run(&rnn, "x", None).unwrap().state;
        for layout in [SequenceLayout::BatchFirst, SequenceLayout::SequenceFirst] {
            let of_padded = padded(layout, &rows).run(&rnn, "x", "time").unwrap().state;
            assert!(of_packed.hidden.allclose(&of_padded.hidden, 1e-6, 1e-6, false), "{kind:?} {layout:?}");
            if let (Some(a), Some(b)) = (&of_packed.cell, &of_padded.cell) {
                assert!(a.allclose(b, 1e-6, 1e-6, false));
            }
        }
        // A state of a row's own goes in at its row: alone each row gives the same.
        let begin =
            |rows: i64| -> Tensor { Tensor::arange(rows, (Kind::Float, CPU)).reshape([1, rows, 1]) * 0.1 };
        let state = |values: Tensor| {
            let values = values.expand([4, -1, 3], false).contiguous();
            RnnState { cell: (kind == RnnKind::Lstm).then(|| values.copy()), hidden: values }
        };
        let all = packed.run(&rnn, "x", Some(&state(begin(4)))).unwrap().state;
        for (place, row) in rows.iter().enumerate() {
            let mut one = Packed::new(&ragged, "time", Truncate::Whole).unwrap();
            ragged.pack_into(&[*row], &mut one).unwrap();
            let begun = state(begin(4).narrow(1, place as i64, 1));
            let alone = PackedTensors::to(&one, CPU).unwrap().run(&rnn, "x", Some(&begun)).unwrap().state;
            assert!(
                alone.hidden.allclose(&all.hidden.narrow(1, place as i64, 1), 1e-6, 1e-6, false),
                "{place}"
            );
        }
    }
}

#[test]
fn graphs_have_pytorch_geometrics_tensors() {
    let schema = |name, dtype| Schema::new(vec![Field::new(name, dtype, [])]).unwrap();
    let graph = |nodes: usize, edges: &[i64], y: i64| {
        let (x, w) = (vec![y as f32; nodes], vec![y as u8; edges.len() / 2]);
        Graph::new(nodes, edges)
            .unwrap()
            .with(Part::Node, &schema("x", Dtype::F32), &[bytemuck::cast_slice(&x)])
            .unwrap()
            .with(Part::Edge, &schema("w", Dtype::U8), &[&w])
            .unwrap()
            .with(Part::Graph, &schema("y", Dtype::I64), &[bytemuck::cast_slice(&[y])])
            .unwrap()
    };
    let graphs = [graph(2, &[0, 1], 3), graph(3, &[0, 1, 2, 1, 2, 0], 5)];
    let mut batch = GraphBatch::new();
    batch.union([&graphs[1], &graphs[0]]).unwrap();
    let tensors = GraphTensors::to(&batch, CPU).unwrap();
    assert_eq!(tensors.edge_index.size(), [2, 4]);
    assert_eq!(integers(&tensors.edge_index), [0, 1, 2, 3, 1, 2, 0, 4]);
    assert_eq!((integers(&tensors.batch), integers(&tensors.ptr)), (vec![0, 0, 0, 1, 1], vec![0, 3, 5]));
    let column = |part, name| integers(tensors.get(part, name).unwrap());
    assert_eq!(column(Part::Node, "x"), [5, 5, 5, 3, 3]);
    assert_eq!((column(Part::Edge, "w"), column(Part::Graph, "y")), (vec![5, 5, 5, 3], vec![5, 3]));
    assert!(tensors.get(Part::Edge, "x").is_none());
    batch.union(std::iter::empty()).unwrap();
    assert_eq!(GraphTensors::to(&batch, CPU).unwrap().edge_index.size(), [2, 0]);
}

#[test]
fn a_neighbourhood_is_its_blocks_features_and_seeds() {
    // 1 and 2 send to 0, 3 to 1, twice; 0 to 3.
    let graph = Csr::incoming(5, &[1, 2, 3, 3, 0, 0, 0, 1, 1, 3]).unwrap();
    let schema = Schema::new(vec![Field::new("x", Dtype::F32, [1])]).unwrap();
    let x = Table::new(&schema, 5, &[bytemuck::cast_slice(&[1.0f32, 2.0, 4.0, 8.0, 16.0])]).unwrap();
    let collate =
        NeighborCollate::new(graph, NeighborSampler::new(&[-1, -1]).unwrap(), 0).features(x).unwrap();
    let batches = Batches::builder(Sequential::new(5).unwrap(), 5, BatchSize::Fixed(2)).build().unwrap();
    let mut loader = Loader::collating(collate, batches).workers(1).build().unwrap();
    let batch = loader.next().unwrap();
    let part = NeighborhoodTensors::to(batch.host(), CPU).unwrap();
    assert_eq!((part.blocks.len(), integers(&part.seeds)), (2, vec![0, 1]));
    // Nodes 0 and 1, and what sends to them; there may be room for more features than that.
    assert_eq!(integers(&part["x"]), [1, 2, 4, 8]);
    let last = &part.blocks[1];
    assert_eq!((last.target_nodes, last.source_nodes), (2, 4));
    assert_eq!(integers(&last.sum(&part["x"])), [6, 16]);
    assert_eq!(integers(&last.mean(&part["x"])), [3, 8]);
    // The first layer is as wide: 3 gets from 0, and 2 from nobody.
    let means = part.blocks[0].mean(&part["x"]);
    assert_eq!(integers(&means), [3, 8, 0, 1]);
    assert_eq!(last.mean(&part["x"].to_kind(Kind::Double)).kind(), Kind::Double);
    let empty = BlockTensors::to(batch.host().subgraph().block(1), CPU).unwrap();
    assert_eq!(integers(&empty.sources), batch.host().subgraph().block(1).sources);
}

#[test]
fn a_loaders_packed_batches_become_tensors_batch_after_batch() {
    let batches =
        Batches::builder(Shuffled::new(4).unwrap(), 4, BatchSize::Fixed(3)).seed(2).build().unwrap();
    let collate = PackCollate::new(table(), "time", Truncate::KeepLast(2)).unwrap();
    let mut loader = Loader::collating(collate, batches).workers(2).build().unwrap();
    for _ in 0..8 {
        let batch = loader.next().unwrap();
        let tensors = PackedTensors::to(batch.host(), CPU).unwrap();
        let expected: Vec<i64> = batch.plan().rows.iter().map(|row| 40 + *row as i64).collect();
        assert_eq!(integers(&tensors["label"]), expected);
        assert_eq!(tensors["x"].size()[0], tensors.batch_sizes().sum(Kind::Int64).int64_value(&[]));
    }
}
