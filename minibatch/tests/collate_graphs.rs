//! Disjoint unions of graphs and neighbour lists, against plain models; and what is refused.

use proptest::prelude::*;
use rl_minibatch::{BatchError, Csr, Dtype, Field, Graph, GraphBatch, GraphError, Part, Schema};

fn schemas() -> [Schema; 3] {
    [
        Schema::new(vec![Field::new("x", Dtype::F32, [2]), Field::new("kind", Dtype::U8, [])]).unwrap(),
        Schema::new(vec![Field::new("weight", Dtype::F64, [])]).unwrap(),
        Schema::new(vec![Field::new("y", Dtype::I64, [])]).unwrap(),
    ]
}

/// A graph whose every value is made of `seed`, so that no two graphs' rows are alike.
fn graph(nodes: usize, ends: &[(i64, i64)], seed: u32, parts: [bool; 3]) -> Graph {
    let edge_index: Vec<i64> = ends.iter().map(|ends| ends.0).chain(ends.iter().map(|ends| ends.1)).collect();
    let x: Vec<f32> = (0..2 * nodes).map(|i| (seed * 1000) as f32 + i as f32).collect();
    let kind: Vec<u8> = (0..nodes).map(|i| (seed as usize + i) as u8).collect();
    let weight: Vec<f64> = (0..ends.len()).map(|i| f64::from(seed) + i as f64 / 64.0).collect();
    let y = [i64::from(seed)];
    let columns: [Vec<&[u8]>; 3] = [
        vec![bytemuck::cast_slice(&x), &kind],
        vec![bytemuck::cast_slice(&weight)],
        vec![bytemuck::cast_slice(&y)],
    ];
    let mut graph = Graph::new(nodes, &edge_index).unwrap();
    for (part, (schema, columns)) in
        [Part::Node, Part::Edge, Part::Graph].into_iter().zip(schemas().iter().zip(columns))
    {
        if parts[part as usize] {
            graph = graph.with(part, schema, &columns).unwrap();
        }
    }
    graph
}

fn assert_same(found: &Graph, expected: &Graph) {
    assert_eq!(found.nodes(), expected.nodes());
    assert_eq!(found.edge_index(), expected.edge_index());
    for part in [Part::Node, Part::Edge, Part::Graph] {
        assert_eq!(found.table(part).map(|t| t.schema()), expected.table(part).map(|t| t.schema()));
        if let (Some(found), Some(expected)) = (found.table(part), expected.table(part)) {
            for position in 0..expected.schema().fields().len() {
                assert_eq!(found.columns().column(position), expected.columns().column(position));
            }
        }
    }
}

/// Nodes and edges; a graph without nodes has no edges.
fn shape() -> impl Strategy<Value = (usize, Vec<(i64, i64)>)> {
    (0usize..8).prop_flat_map(|nodes| {
        let node = 0..(nodes.max(1) as i64);
        let edges = prop::collection::vec((node.clone(), node), 0..if nodes == 0 { 1 } else { 15 });
        (Just(nodes), edges)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_graphs_come_out_of_their_union_again(
        shapes in prop::collection::vec(shape(), 1..6),
        batches in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..8), 1..4),
        parts in any::<[bool; 3]>(),
    ) {
        let graphs: Vec<Graph> = shapes.iter().enumerate()
            .map(|(seed, (nodes, edges))| graph(*nodes, edges, seed as u32, parts)).collect();
        let mut batch = GraphBatch::new();
        for rows in &batches {
            let rows: Vec<usize> = rows.iter().map(|row| row.index(graphs.len())).collect();
            batch.union(rows.iter().map(|row| &graphs[*row])).unwrap();
            prop_assert_eq!(batch.graphs(), rows.len());
            prop_assert_eq!(batch.nodes(), rows.iter().map(|row| graphs[*row].nodes()).sum::<usize>());
            prop_assert_eq!(batch.edges(), rows.iter().map(|row| graphs[*row].edges()).sum::<usize>());
            prop_assert_eq!(batch.ptr().len(), rows.len() + 1);
            prop_assert_eq!(batch.edge_index().len(), 2 * batch.edges());
            for (place, row) in rows.iter().enumerate() {
                assert_same(&batch.graph(place).unwrap(), &graphs[*row]);
                let range = batch.ptr()[place] as usize..batch.ptr()[place + 1] as usize;
                prop_assert!(batch.batch()[range].iter().all(|graph| *graph == place as i64));
                let edges = batch.edge_ptr()[place] as usize..batch.edge_ptr()[place + 1] as usize;
                prop_assert_eq!(edges.len(), graphs[*row].edges());
            }
            prop_assert!(batch.graph(rows.len()).is_none());
            // No edge joins two graphs.
            let (sources, targets) = batch.edge_index().split_at(batch.edges());
            for (source, target) in sources.iter().zip(targets) {
                prop_assert_eq!(batch.batch()[*source as usize], batch.batch()[*target as usize]);
            }
            if parts[0] && !rows.is_empty() {
                let x: Vec<f32> = rows.iter()
                    .flat_map(|row| (0..2 * graphs[*row].nodes()).map(move |i| (row * 1000 + i) as f32)).collect();
                prop_assert_eq!(batch.typed::<f32>(Part::Node, "x").unwrap(), x);
            }
            if parts[2] && !rows.is_empty() {
                let y: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
                prop_assert_eq!(batch.typed::<i64>(Part::Graph, "y").unwrap(), y);
            }
        }
    }

    #[test]
    fn neighbour_lists_hold_every_edge_at_its_target((nodes, edges) in shape()) {
        let graph = graph(nodes, &edges, 0, [false; 3]);
        let csr = Csr::incoming(nodes, graph.edge_index()).unwrap();
        prop_assert_eq!((csr.nodes(), csr.edges()), (nodes, edges.len()));
        for node in 0..nodes {
            let numbers: Vec<u64> = csr.slots(node).map(|slot| csr.edge_number(slot)).collect();
            let into = |(number, _): &(usize, &(i64, i64))| edges[*number].1 == node as i64;
            let expected: Vec<u64> =
                edges.iter().enumerate().filter(into).map(|(number, _)| number as u64).collect();
            prop_assert_eq!(&numbers, &expected);
            let sources: Vec<u32> = expected.iter().map(|edge| edges[*edge as usize].0 as u32).collect();
            prop_assert_eq!(csr.neighbors(node), sources);
            prop_assert_eq!(csr.degree(node), expected.len());
        }
        // Through lists and back: the same lists, whose edges are numbered anew.
        let again = Csr::incoming(nodes, &csr.edge_index()).unwrap();
        let from_lists = Graph::from_csr(&csr);
        prop_assert_eq!(from_lists.edge_index(), csr.edge_index());
        for node in 0..nodes {
            prop_assert_eq!(again.neighbors(node), csr.neighbors(node));
            prop_assert!(again.slots(node).all(|slot| again.edge_number(slot) == slot as u64));
        }
    }
}

#[test]
fn graphs_that_do_not_fit_are_refused_with_the_position() {
    assert_eq!(Graph::new(3, &[0, 1, 2]).unwrap_err(), GraphError::EdgeIndex { got: 3 });
    let endpoint = |edge, end, node| GraphError::Endpoint { edge, end, node, nodes: 3 };
    assert_eq!(Graph::new(3, &[0, 3, 1, 1]).unwrap_err(), endpoint(1, "source", 3));
    assert_eq!(Graph::new(3, &[0, 2, 1, -1]).unwrap_err(), endpoint(1, "target", -1));
    assert_eq!(
        endpoint(1, "target", -1).to_string(),
        "the target of edge 1 is node -1; the graph has nodes 0 to 3 (exclusive)"
    );
    assert_eq!(Csr::incoming(3, &[0, 1, 1, 7]).unwrap_err(), endpoint(1, "target", 7));
    assert_eq!(
        Csr::incoming(0, &[0, 0]).unwrap_err(),
        GraphError::Endpoint { edge: 0, end: "source", node: 0, nodes: 0 }
    );
    let why = BatchError::Bytes { column: "weight".into(), expected: 16, got: 8 };
    let short = Graph::new(3, &[0, 1, 1, 2]).unwrap().with(Part::Edge, &schemas()[1], &[&[0; 8]]);
    assert_eq!(short.unwrap_err(), GraphError::Columns { part: Part::Edge, why });

    assert_eq!(Csr::new(vec![], vec![]).unwrap_err(), GraphError::NoOffsets);
    assert_eq!(Csr::new(vec![1, 1], vec![0]).unwrap_err(), GraphError::OffsetsStart { got: 1 });
    let fall = GraphError::Offsets { position: 2, previous: 2, got: 1 };
    assert_eq!(Csr::new(vec![0, 2, 1, 3], vec![0; 3]).unwrap_err(), fall);
    let count = GraphError::Neighbors { expected: 3, got: 2 };
    assert_eq!(Csr::new(vec![0, 2, 2, 3], vec![0; 2]).unwrap_err(), count);
    assert_eq!(Csr::new(vec![0, 2, 2, 3], vec![0, 1, 3]).unwrap_err(), endpoint(2, "source", 3));
    assert_eq!(Csr::new(vec![0], vec![]).unwrap().nodes(), 0);
}

#[test]
fn graphs_of_different_columns_are_refused_and_leave_the_batch() {
    let (with, without) = (graph(2, &[(0, 1)], 1, [true; 3]), graph(2, &[(0, 1)], 2, [true, true, false]));
    let mut batch = GraphBatch::new();
    batch.union([&with, &with]).unwrap();
    let differs = GraphError::Differs { position: 1, part: Part::Graph };
    assert_eq!(batch.union([&without, &with]), Err(differs.clone()));
    assert_eq!(batch.union([&with, &without]), Err(differs));
    assert_eq!((batch.graphs(), batch.typed::<i64>(Part::Graph, "y").unwrap()), (2, &[1, 1][..]));
    let why = BatchError::NoColumn { name: "z".into() };
    assert_eq!(batch.typed::<f32>(Part::Node, "z"), Err(GraphError::Columns { part: Part::Node, why }));
    // Columns of the batch before are gone when the next has none.
    batch.union([&without]).unwrap();
    assert_eq!(batch.typed::<i64>(Part::Graph, "y"), Err(GraphError::NoColumns { part: Part::Graph }));
    batch.union(std::iter::empty()).unwrap();
    assert_eq!((batch.graphs(), batch.nodes(), batch.edges()), (0, 0, 0));
    assert_eq!(batch.ptr(), [0]);
}
