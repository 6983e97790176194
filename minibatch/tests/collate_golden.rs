//! Padding and packing against PyTorch 2.11's own values, made by `tests/golden/collate.py`.

use rl_minibatch::{
    Dtype, Element, Field, Packed, Packing, PadOptions, Padded, RaggedTable, SequenceLayout, Truncate,
};
use safetensors::SafeTensors;

const FILE: &[u8] = include_bytes!("golden/collate.safetensors");
const CASES: [&str; 6] = ["distinct", "ties", "one", "equal", "many", "many_ties"];
const LAYOUTS: [(&str, SequenceLayout); 2] =
    [("bt", SequenceLayout::BatchFirst), ("tb", SequenceLayout::SequenceFirst)];

fn golden<T: Element>(name: &str) -> (Vec<usize>, Vec<T>) {
    let file = SafeTensors::deserialize(FILE).expect("the golden file is whole");
    let view = file.tensor(name).unwrap_or_else(|_| panic!("the golden file has no '{name}'"));
    let dtype = match view.dtype() {
        safetensors::Dtype::F32 => Dtype::F32,
        safetensors::Dtype::I64 => Dtype::I64,
        other => panic!("unexpected dtype {other:?}"),
    };
    assert_eq!(dtype, T::DTYPE, "{name}");
    (
        view.shape().to_vec(),
        view.data().chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect(),
    )
}

fn values<T: Element>(name: &str) -> Vec<T> {
    golden(name).1
}

/// The case's sequences as a table, each column along the one axis.
fn table(case: &str) -> RaggedTable {
    let lengths: Vec<u64> = values::<i64>(&format!("{case}.lengths")).iter().map(|n| *n as u64).collect();
    let (x, tokens) = (values::<f32>(&format!("{case}.x")), values::<i64>(&format!("{case}.tokens")));
    RaggedTable::builder(lengths.len())
        .axis_of_lengths("time", &lengths)
        .ragged("time", Field::new("x", Dtype::F32, [3]), bytemuck::cast_slice(&x))
        .ragged("time", Field::new("tokens", Dtype::I64, []), bytemuck::cast_slice(&tokens))
        .build()
        .unwrap()
}

fn all(table: &RaggedTable) -> Vec<u64> {
    (0..table.rows()).collect()
}

#[test]
fn padding_is_pad_sequence() {
    for case in CASES {
        let table = table(case);
        for (layout_name, layout) in LAYOUTS {
            let options = PadOptions::new().layout(layout).value("x", -2.5f32).value("tokens", 7i64);
            let mut batch = Padded::new(&table, &options).unwrap();
            table.pad_into(&all(&table), &mut batch).unwrap();
            let (shape, x) = golden::<f32>(&format!("{case}.{layout_name}.x"));
            assert_eq!(batch.shape("x").unwrap(), shape, "{case} {layout_name}");
            assert_eq!(batch.typed::<f32>("x").unwrap(), x, "{case} {layout_name}");
            let (shape, tokens) = golden::<i64>(&format!("{case}.{layout_name}.tokens"));
            assert_eq!(batch.shape("tokens").unwrap(), shape, "{case} {layout_name}");
            assert_eq!(batch.typed::<i64>("tokens").unwrap(), tokens, "{case} {layout_name}");
            assert_eq!(batch.lengths("time").unwrap(), values::<i64>(&format!("{case}.lengths")));
        }
    }
}

fn check_packing(case: &str, packing: &Packing) {
    let list = |what: &str| values::<i64>(&format!("{case}.{what}"));
    assert_eq!(packing.batch_sizes(), list("batch_sizes"), "{case}");
    assert_eq!(packing.sorted_indices(), list("sorted_indices"), "{case}");
    assert_eq!(packing.unsorted_indices(), list("unsorted_indices"), "{case}");
    assert_eq!(packing.lengths(), list("lengths"), "{case}");
}

#[test]
fn packing_padded_data_is_pack_padded_sequence_and_back() {
    let (mut packing, mut data, mut back) = (Packing::new(), Vec::new(), Vec::new());
    for case in CASES {
        packing.plan(&values::<i64>(&format!("{case}.lengths"))).unwrap();
        check_packing(case, &packing);
        for (layout_name, layout) in LAYOUTS {
            let (shape, padded) = golden::<f32>(&format!("{case}.{layout_name}.x"));
            let steps = *shape[..2].iter().rev().nth(usize::from(layout_name == "tb")).unwrap();
            packing.pack_into(&padded, steps, 3, layout, &mut data).unwrap();
            assert_eq!(data, values::<f32>(&format!("{case}.packed.x")), "{case} {layout_name}");

            let longer = values::<f32>(&format!("{case}.{layout_name}.longer"));
            let steps = packing.unpack_into(&data, Some(steps + 3), 3, layout, 0.5, &mut back).unwrap();
            assert_eq!((steps, &back), (packing.batch_sizes().len() + 3, &longer), "{case} {layout_name}");
            packing.unpack_into(&data, None, 3, layout, -2.5, &mut back).unwrap();
            assert_eq!(back, padded, "{case} {layout_name}");
        }
    }
}

#[test]
fn packing_from_the_table_is_pack_padded_sequence() {
    for case in CASES {
        let table = table(case);
        let mut batch = Packed::new(&table, "time", Truncate::Whole).unwrap();
        table.pack_into(&all(&table), &mut batch).unwrap();
        check_packing(case, batch.packing());
        assert_eq!(batch.typed::<f32>("x").unwrap(), values::<f32>(&format!("{case}.packed.x")), "{case}");
        assert_eq!(batch.typed::<i64>("tokens").unwrap(), values::<i64>(&format!("{case}.packed.tokens")));
    }
}
