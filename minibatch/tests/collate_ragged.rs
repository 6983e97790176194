//! Ragged rows padded and packed, against a plain model; and what is refused.

use proptest::prelude::*;
use rl_minibatch::{
    BatchError, CollateError, Dtype, Field, Packed, Packing, PadOptions, Padded, RaggedBuilder, RaggedTable,
    SequenceLayout, Truncate,
};

/// Rows as anyone would hold them.
#[derive(Clone, Debug)]
struct Plain {
    words: Vec<Vec<i32>>,
    notes: Vec<Vec<u8>>,
}

/// `word` and `pair` along "source", `note` along "target", `number` fixed; pair, number are made of word and row.
fn table(plain: &Plain) -> RaggedTable {
    let words = plain.words.concat();
    let pairs: Vec<f64> = words.iter().flat_map(|word| [f64::from(*word), f64::from(*word) + 0.5]).collect();
    let notes = plain.notes.concat();
    let numbers: Vec<i64> = (0..plain.words.len() as i64).collect();
    let source: Vec<u64> = plain.words.iter().map(|row| row.len() as u64).collect();
    let target: Vec<u64> = plain.notes.iter().map(|row| row.len() as u64).collect();
    RaggedTable::builder(plain.words.len())
        .axis_of_lengths("source", &source)
        .axis_of_lengths("target", &target)
        .ragged("source", Field::new("word", Dtype::I32, []), bytemuck::cast_slice(&words))
        .ragged("source", Field::new("pair", Dtype::F64, [2]), bytemuck::cast_slice(&pairs))
        .ragged("target", Field::new("note", Dtype::Bool, []), &notes)
        .fixed(Field::new("number", Dtype::I64, []), bytemuck::cast_slice(&numbers))
        .build()
        .unwrap()
}

fn plain() -> impl Strategy<Value = Plain> {
    let word = prop::collection::vec(any::<i32>(), 0..12);
    let note = prop::collection::vec(0u8..2, 0..5);
    prop::collection::vec((word, note), 1..10)
        .prop_map(|rows| rows.into_iter().unzip())
        .prop_map(|(words, notes)| Plain { words, notes })
}

fn rule() -> impl Strategy<Value = Truncate> {
    prop_oneof![
        Just(Truncate::Whole),
        (0usize..14).prop_map(Truncate::KeepFirst),
        (0usize..14).prop_map(Truncate::KeepLast),
        Just(Truncate::Refuse(11)),
    ]
}

fn cut<T: Clone>(row: &[T], rule: Truncate) -> Vec<T> {
    match rule {
        Truncate::KeepFirst(n) => row.iter().take(n).cloned().collect(),
        Truncate::KeepLast(n) => row[row.len() - row.len().min(n)..].to_vec(),
        _ => row.to_vec(),
    }
}

/// `rows` padded to `steps` by the definition.
fn padded<T: Copy>(rows: &[Vec<T>], steps: usize, layout: SequenceLayout, pad: T) -> Vec<T> {
    let cell = |row: usize, step: usize| rows[row].get(step).copied().unwrap_or(pad);
    match layout {
        SequenceLayout::BatchFirst => (0..rows.len())
            .flat_map(|row| (0..steps).map(move |step| (row, step)))
            .map(|(r, s)| cell(r, s))
            .collect(),
        SequenceLayout::SequenceFirst => (0..steps)
            .flat_map(|step| (0..rows.len()).map(move |row| (row, step)))
            .map(|(r, s)| cell(r, s))
            .collect(),
    }
}

/// `rows` packed by the definition.
fn packed<T: Copy>(rows: &[Vec<T>]) -> Vec<T> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|row| std::cmp::Reverse(rows[*row].len()));
    let longest = rows.iter().map(Vec::len).max().unwrap();
    (0..longest).flat_map(|t| order.iter().filter_map(move |row| rows[*row].get(t).copied())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Several batches into one output, so that nothing of one is left in the next.
    #[test]
    fn padding_follows_its_definition(
        plain in plain(),
        batches in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..9), 1..4),
        source in rule(), target in rule(),
        first in any::<bool>(), multiple in 1usize..9, at_least in 0usize..10, pad in any::<i32>(),
    ) {
        let table = table(&plain);
        let layout = if first { SequenceLayout::BatchFirst } else { SequenceLayout::SequenceFirst };
        let options = PadOptions::new().layout(layout).multiple_of(multiple).at_least(at_least)
            .truncate(source).truncate_axis("target", target)
            .value("word", pad).value("pair", f64::from(pad)).value("note", 1u8);
        let lengths: Vec<u64> = plain.words.iter().map(|row| row.len() as u64).collect();
        prop_assert_eq!(table.lengths("source").unwrap().collect::<Vec<_>>(), lengths);
        for (row, notes) in plain.notes.iter().enumerate() {
            prop_assert_eq!(table.row::<u8>("note", row as u64).unwrap(), &notes[..]);
            prop_assert_eq!(table.row::<i64>("number", row as u64).unwrap(), &[row as i64][..]);
        }
        let mut batch = Padded::new(&table, &options).unwrap();
        for rows in &batches {
            let rows: Vec<usize> = rows.iter().map(|index| index.index(plain.words.len())).collect();
            let keys: Vec<u64> = rows.iter().map(|row| *row as u64).collect();
            table.pad_into(&keys, &mut batch).unwrap();
            let words: Vec<Vec<i32>> = rows.iter().map(|row| cut(&plain.words[*row], source)).collect();
            let notes: Vec<Vec<u8>> = rows.iter().map(|row| cut(&plain.notes[*row], target)).collect();
            let round = |n: usize| n.max(at_least).div_ceil(multiple) * multiple;
            let longest = words.iter().map(Vec::len).max().unwrap_or(0);
            let steps = round(longest);
            let shape = if first { [rows.len(), steps] } else { [steps, rows.len()] };
            prop_assert_eq!(batch.rows(), rows.len());
            prop_assert_eq!(batch.steps("source").unwrap(), steps);
            prop_assert_eq!(batch.shape("word").unwrap(), &shape[..]);
            prop_assert_eq!(batch.shape("pair").unwrap(), &[shape[0], shape[1], 2][..]);
            prop_assert_eq!(batch.typed::<i32>("word").unwrap(), padded(&words, steps, layout, pad));
            let pairs: Vec<Vec<[f64; 2]>> = words.iter()
                .map(|row| row.iter().map(|w| [f64::from(*w), f64::from(*w) + 0.5]).collect()).collect();
            let expected = padded(&pairs, steps, layout, [f64::from(pad); 2]);
            prop_assert_eq!(batch.typed::<f64>("pair").unwrap(), expected.concat());
            let ones: Vec<Vec<u8>> = words.iter().map(|row| vec![1; row.len()]).collect();
            prop_assert_eq!(batch.mask("source").unwrap(), padded(&ones, steps, layout, 0));
            let lengths: Vec<i64> = words.iter().map(|row| row.len() as i64).collect();
            prop_assert_eq!(batch.lengths("source").unwrap(), lengths);
            let shortened = rows.iter().zip(&words).filter(|(row, words)| plain.words[**row].len() > words.len());
            prop_assert_eq!(batch.truncated("source").unwrap(), shortened.count());
            let steps = round(notes.iter().map(Vec::len).max().unwrap_or(0));
            prop_assert_eq!(batch.typed::<u8>("note").unwrap(), padded(&notes, steps, layout, 1));
            let numbers: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
            prop_assert_eq!(batch.typed::<i64>("number").unwrap(), numbers);
            prop_assert_eq!(batch.shape("number").unwrap(), &[rows.len()][..]);
        }
    }

    #[test]
    fn packing_follows_its_definition_and_comes_back(
        plain in plain(),
        rows in prop::collection::vec(any::<prop::sample::Index>(), 1..9),
        rule in rule(), first in any::<bool>(),
    ) {
        let table = table(&plain);
        let layout = if first { SequenceLayout::BatchFirst } else { SequenceLayout::SequenceFirst };
        let rows: Vec<u64> = rows.iter().map(|index| index.index(plain.words.len()) as u64).collect();
        let words: Vec<Vec<i32>> = rows.iter().map(|row| cut(&plain.words[*row as usize], rule)).collect();
        let mut batch = Packed::new(&table, "source", rule).unwrap();
        let result = table.pack_into(&rows, &mut batch);
        if let Some(position) = words.iter().position(Vec::is_empty) {
            prop_assert_eq!(result, Err(CollateError::EmptySequence { position, length: 0 }));
            prop_assert_eq!(batch.rows(), 0);
            return Ok(());
        }
        prop_assert_eq!(result, Ok(()));
        let data = packed(&words);
        prop_assert_eq!(batch.typed::<i32>("word").unwrap(), &data[..]);
        let pairs: Vec<f64> = data.iter().flat_map(|word| [f64::from(*word), f64::from(*word) + 0.5]).collect();
        prop_assert_eq!(batch.typed::<f64>("pair").unwrap(), pairs);
        let numbers: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
        prop_assert_eq!(batch.typed::<i64>("number").unwrap(), numbers);
        let other = BatchError::NoColumn { name: "note".into() };
        prop_assert_eq!(batch.typed::<u8>("note"), Err(other.into()));
        prop_assert!(batch.column(2).is_none() && batch.column(3).is_some());

        // The two ways are one: pack from the table, or pad and pack that; and back.
        let packing = batch.packing();
        let options = PadOptions::new().layout(layout).truncate(rule).multiple_of(4).value("word", 9i32);
        let mut rectangle = Padded::new(&table, &options).unwrap();
        table.pad_into(&rows, &mut rectangle).unwrap();
        let (steps, from) = (rectangle.steps("source").unwrap(), rectangle.typed::<i32>("word").unwrap());
        let (mut again, mut back) = (vec![1, 2], vec![3, 4, 5]);
        packing.pack_into(from, steps, 1, layout, &mut again).unwrap();
        prop_assert_eq!(&again, &data);
        prop_assert_eq!(packing.unpack_into(&data, Some(steps), 1, layout, 9, &mut back).unwrap(), steps);
        prop_assert_eq!(&back[..], from);
        for (rank, place) in packing.sorted_indices().iter().enumerate() {
            prop_assert_eq!(packing.unsorted_indices()[*place as usize], rank as i64);
        }
    }
}

fn small<'a>(offsets: &[u64], values: &'a [u8]) -> RaggedBuilder<'a> {
    RaggedTable::builder(3).axis("t", offsets).ragged("t", Field::new("x", Dtype::U8, [2]), values)
}

#[test]
fn tables_that_do_not_fit_together_are_refused_with_the_position() {
    let refused = |builder: RaggedBuilder| builder.build().unwrap_err();
    let t = || "t".to_string();
    let fall = CollateError::Offsets { axis: t(), position: 2, previous: 3, got: 2 };
    assert_eq!(refused(small(&[0, 3, 2, 4], &[0; 8])), fall);
    assert_eq!(
        fall.to_string(),
        "the offsets of axis 't' fall from 3 to 2 at position 2; each must be at least the one before"
    );
    assert_eq!(refused(small(&[1, 3, 3, 4], &[0; 8])), CollateError::OffsetsStart { axis: t(), got: 1 });
    assert_eq!(
        refused(small(&[0, 3, 4], &[0; 8])),
        CollateError::OffsetsCount { axis: t(), rows: 3, got: 3 }
    );
    assert_eq!(refused(small(&[], &[])), CollateError::OffsetsCount { axis: t(), rows: 3, got: 0 });
    let values = |got| CollateError::Values { column: "x".into(), steps: 4, step_bytes: 2, expected: 8, got };
    assert_eq!(refused(small(&[0, 3, 3, 4], &[0; 7])), values(7));
    assert_eq!(refused(small(&[0, 3, 3, 4], &[0; 9])), values(9));
    let fixed = small(&[0, 3, 3, 4], &[0; 8]).fixed(Field::new("y", Dtype::F32, []), &[0; 8]);
    let short = CollateError::Values { column: "y".into(), steps: 3, step_bytes: 4, expected: 12, got: 8 };
    assert_eq!(refused(fixed), short);
    let lengths = RaggedTable::builder(2).axis_of_lengths("t", &[u64::MAX, 5]).ragged(
        "t",
        Field::new("x", Dtype::U8, []),
        &[0; 5],
    );
    assert!(matches!(refused(lengths), CollateError::Values { .. }));
    let twice = small(&[0, 3, 3, 4], &[0; 8]).axis("t", &[0, 0, 0, 0]);
    assert_eq!(refused(twice), CollateError::RepeatedAxis { axis: t() });
    let nowhere = small(&[0, 3, 3, 4], &[0; 8]).ragged("u", Field::new("y", Dtype::U8, []), &[]);
    assert_eq!(refused(nowhere), CollateError::NoAxis { axis: "u".into(), known: vec![t()] });
    let same = small(&[0, 3, 3, 4], &[0; 8]).fixed(Field::new("x", Dtype::U8, []), &[0; 3]);
    assert!(matches!(refused(same), CollateError::Schema(_)));
}

#[test]
fn batches_that_cannot_be_made_are_refused_and_leave_the_output() {
    let table = small(&[0, 3, 3, 4], &[1, 2, 3, 4, 5, 6, 7, 8]).build().unwrap();
    let options = PadOptions::new().truncate(Truncate::Refuse(2));
    let mut batch = Padded::new(&table, &options).unwrap();
    table.pad_into(&[2, 1], &mut batch).unwrap();
    let before = (batch.typed::<u8>("x").unwrap().to_vec(), batch.lengths("t").unwrap().to_vec());
    assert_eq!(before, (vec![7, 8, 0, 0], vec![1, 0]));
    let long = CollateError::TooLong { axis: "t".into(), position: 1, row: 0, length: 3, limit: 2 };
    assert_eq!(table.pad_into(&[1, 0], &mut batch), Err(long.clone()));
    assert_eq!(
        table.pad_into(&[1, 3], &mut batch),
        Err(CollateError::NoRow { position: 1, row: 3, rows: 3 })
    );
    let other = small(&[0, 1, 1, 1], &[0; 2]).fixed(Field::new("y", Dtype::U8, []), &[0; 3]).build().unwrap();
    assert_eq!(other.pad_into(&[0], &mut batch), Err(CollateError::OtherTable));
    assert_eq!((batch.typed::<u8>("x").unwrap().to_vec(), batch.lengths("t").unwrap().to_vec()), before);
    // Another table with the same columns will do.
    small(&[0, 1, 1, 1], &[9; 2]).build().unwrap().pad_into(&[0], &mut batch).unwrap();
    assert_eq!(batch.typed::<u8>("x").unwrap(), [9, 9]);
    let mut huge = Padded::new(&table, &PadOptions::new().at_least(usize::MAX / 2)).unwrap();
    assert!(matches!(table.pad_into(&[0, 1, 2], &mut huge), Err(CollateError::TooLarge { .. })));
    let mut huge = Padded::new(&table, &PadOptions::new().at_least(usize::MAX).multiple_of(2)).unwrap();
    assert!(matches!(table.pad_into(&[0], &mut huge), Err(CollateError::TooLarge { .. })));

    let mut packed = Packed::new(&table, "t", Truncate::Refuse(2)).unwrap();
    assert_eq!(table.pack_into(&[2, 0], &mut packed), Err(long));
    assert_eq!(table.pack_into(&[], &mut packed), Err(CollateError::NoSequences));
    assert_eq!(table.row::<u8>("x", 3), Err(CollateError::NoRow { position: 0, row: 3, rows: 3 }));
    assert_eq!(table.row::<u8>("x", 0).unwrap(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn options_that_do_not_fit_the_table_are_refused() {
    let numbers = bytemuck::cast_slice(&[1.0f32, 2.0]);
    let table = RaggedTable::builder(2)
        .axis("t", &[0, 1, 2])
        .ragged("t", Field::new("x", Dtype::F32, []), numbers)
        .ragged("t", Field::new("b", Dtype::Bool, []), &[0, 1])
        .fixed(Field::new("y", Dtype::F32, []), numbers)
        .build()
        .unwrap();
    let refused = |options: PadOptions| Padded::new(&table, &options).unwrap_err();
    assert_eq!(refused(PadOptions::new().multiple_of(0)), CollateError::Multiple);
    let dtype = CollateError::PadDtype { column: "x".into(), expected: Dtype::F32, got: Dtype::F64 };
    assert_eq!(refused(PadOptions::new().value("x", 0.0f64)), dtype);
    assert_eq!(
        refused(PadOptions::new().value("b", 2u8)),
        CollateError::PadBool { column: "b".into(), got: 2 }
    );
    assert_eq!(refused(PadOptions::new().value("y", 0f32)), CollateError::NotRagged { column: "y".into() });
    let none = BatchError::NoColumn { name: "z".into() };
    assert_eq!(refused(PadOptions::new().value("z", 0f32)), none.into());
    let axis = CollateError::NoAxis { axis: "u".into(), known: vec!["t".into()] };
    assert_eq!(refused(PadOptions::new().truncate_axis("u", Truncate::Whole)), axis);
    assert_eq!(Packed::new(&table, "u", Truncate::Whole).unwrap_err(), axis);
}

#[test]
fn packings_that_make_no_sense_are_refused() {
    let mut packing = Packing::new();
    packing.plan(&[2, 1]).unwrap();
    let before = packing.clone();
    assert_eq!(packing.plan(&[]), Err(CollateError::NoSequences));
    assert_eq!(packing.plan(&[3, -1]), Err(CollateError::EmptySequence { position: 1, length: -1 }));
    assert!(matches!(packing.plan(&[i64::MAX, 1]), Err(CollateError::TooLarge { .. })));
    assert!(matches!(packing.plan(&[i64::MAX]), Err(CollateError::TooLarge { .. })));
    assert_eq!(packing, before);
    let (mut out, layout) = (vec![5], SequenceLayout::BatchFirst);
    let wrong =
        CollateError::Elements { what: "padded data", expected: 8, got: 7, sequences: 2, steps: 2, step: 2 };
    assert_eq!(packing.pack_into(&[0; 7], 2, 2, layout, &mut out), Err(wrong));
    let short = CollateError::Steps { steps: 1, longest: 2 };
    assert_eq!(packing.pack_into(&[0; 2], 1, 1, layout, &mut out), Err(short.clone()));
    assert_eq!(packing.unpack_into(&[0; 3], Some(1), 1, layout, 0, &mut out), Err(short));
    assert!(matches!(
        packing.unpack_into(&[0; 4], None, 1, layout, 0, &mut out),
        Err(CollateError::Elements { what: "packed data", expected: 3, got: 4, .. })
    ));
    assert_eq!(out, [5]);
}
