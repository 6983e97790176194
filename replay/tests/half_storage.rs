//! Columns of f32 held as 16-bit floats: what goes in is rounded, and comes out as f32, whichever way it goes.

use half::{bf16, f16};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rl_replay::{
    Batch, BatchMut, Builder, Drawn, Dtype, Field, MemoryState, Prioritized, Replay, ReplayError, Rng, Schema,
};

/// Of each value what it is held as; `None` where that would be infinite. The numbers were worked out by hand from the
/// formats: f16 has 10 bits behind the point and exponents from −14 on, bf16 the upper half of an f32's bits.
const F16: &[(f32, Option<f32>)] = &[
    (0.0, Some(0.0)),
    (-0.0, Some(-0.0)),
    (1.0, Some(1.0)),
    // Ties go to the even neighbour, here down, up, and up, down.
    (1.000_488_3, Some(1.0)),
    (1.001_464_8, Some(1.001_953_1)),
    (2051.0, Some(2052.0)),
    (-2049.0, Some(-2048.0)),
    // One bit of f32 beyond a tie, and one below.
    (1.000_488_4, Some(1.000_976_6)),
    (1.001_464_7, Some(1.000_976_6)),
    // The largest, what is rounded to it, and what is not.
    (65_504.0, Some(65_504.0)),
    (65_519.996, Some(65_504.0)),
    (-65_519.996, Some(-65_504.0)),
    (65_520.0, None),
    (-65_520.0, None),
    (f32::MAX, None),
    // The least normal number, the subnormal one below it, and the tie between them.
    (6.103_515_6e-5, Some(6.103_515_6e-5)),
    (6.097_555e-5, Some(6.097_555e-5)),
    (6.100_535_4e-5, Some(6.103_515_6e-5)),
    // 2⁻²⁴, the least of all; 2⁻²⁵ ties with zero, and what is larger does not; 3·2⁻²⁵ ties with 2·2⁻²⁴.
    (5.960_464_5e-8, Some(5.960_464_5e-8)),
    (2.980_232_2e-8, Some(0.0)),
    (-2.980_232_2e-8, Some(-0.0)),
    (2.980_232_6e-8, Some(5.960_464_5e-8)),
    (8.940_697e-8, Some(1.192_092_9e-7)),
    (1e-40, Some(0.0)),
];

/// The same, as bits.
const BF16: &[(u32, Option<u32>)] = &[
    (0, Some(0)),
    (0x8000_0000, Some(0x8000_0000)),
    (0x3f80_0000, Some(0x3f80_0000)),
    (0x3f80_8000, Some(0x3f80_0000)),
    (0x3f81_8000, Some(0x3f82_0000)),
    (0x3f80_8001, Some(0x3f81_0000)),
    (0x3f81_7fff, Some(0x3f81_0000)),
    (0xbf81_8000, Some(0xbf82_0000)),
    (0x7f7f_0000, Some(0x7f7f_0000)),
    (0x7f7f_7fff, Some(0x7f7f_0000)),
    (0xff7f_7fff, Some(0xff7f_0000)),
    (0x7f7f_8000, None),
    (0xff7f_8000, None),
    (0x7f7f_ffff, None),
    (0x0080_0000, Some(0x0080_0000)),
    (0x007f_8000, Some(0x0080_0000)),
    (0x0001_0000, Some(0x0001_0000)),
    (0x0000_8000, Some(0)),
    (0x8000_8000, Some(0x8000_0000)),
    (0x0000_8001, Some(0x0001_0000)),
    (0x0001_8000, Some(0x0002_0000)),
    (0x0000_0001, Some(0)),
];

/// By half's functions for single values.
fn rounded(value: f32, dtype: Option<Dtype>) -> f32 {
    match dtype {
        None => value,
        Some(Dtype::F16) => f16::from_f32_const(value).to_f32_const(),
        Some(_) => bf16::from_f32_const(value).to_f32_const(),
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

/// One column of so many f32, held as `dtype`.
fn single(elements: usize, dtype: Dtype, capacity: usize) -> Builder {
    let schema = Schema::new(vec![Field::new("x", Dtype::F32, [elements])]).unwrap();
    Replay::builder(schema).capacity(capacity).store("x", dtype)
}

/// The only row of a buffer of one column.
fn only_row(replay: &Replay) -> Vec<f32> {
    let mut batch = Batch::new(replay.schema(), 1);
    replay.sampler().pin().unwrap().gather(&[replay.live().start], &mut batch.view_mut()).unwrap();
    batch.typed::<f32>("x").unwrap().to_vec()
}

/// Each value in every place of a row of each of these lengths, so that it goes through whatever there is for eight at
/// once, for four, and for the rest.
fn holds(dtype: Dtype, value: f32, expected: Option<f32>) {
    for elements in [1usize, 3, 4, 8, 13] {
        let replay = single(elements, dtype, 1).build().unwrap();
        for place in 0..elements {
            let mut row = vec![0.25; elements];
            row[place] = value;
            let result = replay.writer().push(&[&bytes(&row)]);
            let Some(expected) = expected else {
                let error = result.unwrap_err();
                let ReplayError::OutOfRange { row: 0, element, value: told, dtype: of, .. } = error else {
                    panic!("{error}")
                };
                assert_eq!((element, told.to_bits(), of), (place, value.to_bits(), dtype));
                assert!(replay.is_empty());
                continue;
            };
            result.unwrap();
            row[place] = expected;
            assert_eq!(bytes(&only_row(&replay)), bytes(&row), "{value:?} as {dtype}");
            assert_eq!(rounded(value, Some(dtype)).to_bits(), expected.to_bits(), "{value:?} as {dtype}");
        }
    }
}

#[test]
fn f16_as_by_hand() {
    F16.iter().for_each(|(value, expected)| holds(Dtype::F16, *value, *expected));
}

#[test]
fn bf16_as_by_hand() {
    let float = f32::from_bits;
    BF16.iter().for_each(|(value, expected)| holds(Dtype::Bf16, float(*value), expected.map(float)));
}

/// All 65,536 values of a type, and what lies around the ties between them, against half's single conversions.
#[test]
fn every_value_and_every_tie() {
    for dtype in [Dtype::F16, Dtype::Bf16] {
        let all = (0..=u16::MAX).map(|bits| match dtype {
            Dtype::F16 => f16::from_bits(bits).to_f32_const(),
            _ => bf16::from_bits(bits).to_f32_const(),
        });
        let ulp = if dtype == Dtype::F16 { 1 << 13 } else { 1 << 16 };
        let around = |value: f32| {
            [0, 1, ulp / 2 - 1, ulp / 2, ulp / 2 + 1].map(|more| f32::from_bits(value.to_bits() + more))
        };
        let values: Vec<f32> = all.filter(|value| value.is_finite()).flat_map(around).collect();
        let values: Vec<f32> =
            values.into_iter().filter(|value| rounded(*value, Some(dtype)).is_finite()).collect();
        assert!(values.len() > 310_000);
        let replay = single(values.len(), dtype, 1).build().unwrap();
        replay.writer().push(&[&bytes(&values)]).unwrap();
        let expected: Vec<f32> = values.iter().map(|value| rounded(*value, Some(dtype))).collect();
        assert!(bytes(&only_row(&replay)) == bytes(&expected), "{dtype}");
    }
}

/// A column of the property test.
#[derive(Clone, Debug)]
struct Column {
    dtype: Dtype,
    elements: usize,
    stored: Option<Dtype>,
}

fn column() -> impl Strategy<Value = Column> {
    let elements = prop_oneof![
        10 => 1usize..20,
        2 => prop::sample::select(vec![31usize, 32, 33, 64, 511]),
        1 => prop::sample::select(vec![1023usize, 1024, 1025, 2500]),
    ];
    let stored = prop::sample::select(vec![None, Some(Dtype::F16), Some(Dtype::Bf16)]);
    let float = (elements.clone(), stored).prop_map(|(elements, stored)| Column {
        dtype: Dtype::F32,
        elements,
        stored,
    });
    let other =
        (prop::sample::select(vec![Dtype::U8, Dtype::Bool, Dtype::F16, Dtype::I64, Dtype::F64]), 1..4usize)
            .prop_map(|(dtype, elements)| Column { dtype, elements, stored: None });
    prop_oneof![3 => float, 1 => other]
}

fn schema(columns: &[Column]) -> Schema {
    let field = |(number, column): (usize, &Column)| {
        Field::new(format!("x{number}"), column.dtype, [column.elements])
    };
    Schema::new(columns.iter().enumerate().map(field).collect()).unwrap()
}

fn build(columns: &[Column], stored: impl Fn(&Column) -> Option<Dtype>, capacity: usize) -> Replay {
    let builder = Replay::builder(schema(columns)).capacity(capacity).reserve(5);
    let builder =
        columns.iter().enumerate().fold(builder, |builder, (number, column)| match stored(column) {
            None => builder,
            Some(dtype) => builder.store(&format!("x{number}"), dtype),
        });
    builder.prioritized(Prioritized::default()).build().unwrap()
}

/// Bytes of a cell as they are given, and as they are to be got back.
fn cell(rng: &mut Rng, column: &Column) -> [Vec<u8>; 2] {
    let [mut given, mut expected] = [vec![], vec![]];
    for _ in 0..column.elements {
        if column.dtype == Dtype::F32 {
            // Any bits that can be held: subnormals, zeros of both signs and ties among them.
            let value = loop {
                let mask = [u32::MAX, 0xffff_8000, 0xffff_f000, 0x8000_ffff][rng.random_range(0..4usize)];
                let value = f32::from_bits(rng.random::<u32>() & mask);
                if value.is_finite() && rounded(value, column.stored).is_finite() {
                    break value;
                }
            };
            given.extend(value.to_ne_bytes());
            expected.extend(rounded(value, column.stored).to_ne_bytes());
        } else {
            let value: Vec<u8> = match column.dtype {
                Dtype::F16 => f16::from_f32_const(rng.random()).to_ne_bytes().to_vec(),
                Dtype::F64 => rng.random::<f64>().to_ne_bytes().to_vec(),
                Dtype::Bool => vec![rng.random::<bool>().into()],
                dtype => (0..dtype.size_bytes()).map(|_| rng.random()).collect(),
            };
            given.extend(&value);
            expected.extend(&value);
        }
    }
    [given, expected]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Against a `Vec` of rounded rows, with memory at any address on both sides.
    #[test]
    fn rows_come_back_rounded(
        columns in prop::collection::vec(column(), 1..8),
        capacity in 1usize..90,
        pushes in prop::collection::vec(0usize..70, 1..5),
        shift in 0usize..4,
        seed: u64,
    ) {
        let mut rng = Rng::seed_from_u64(seed);
        let replay = build(&columns, |column| column.stored, capacity);
        let row_bytes: Vec<usize> = schema(&columns).fields().iter().map(Field::row_bytes).collect();
        let mut model: Vec<Vec<Vec<u8>>> = vec![];
        for count in pushes {
            let mut given: Vec<Vec<u8>> = columns.iter().map(|_| vec![0; shift]).collect();
            for _ in 0..count {
                let cells: Vec<[Vec<u8>; 2]> = columns.iter().map(|column| cell(&mut rng, column)).collect();
                given.iter_mut().zip(&cells).for_each(|(column, [given, _])| column.extend(given));
                model.push(cells.into_iter().map(|[_, expected]| expected).collect());
            }
            let given: Vec<&[u8]> = given.iter().map(|column| &column[shift..]).collect();
            if count == 1 {
                replay.writer().push(&given).unwrap();
            } else {
                replay.writer().push_rows(count, &given).unwrap();
            }
        }
        prop_assert_eq!(replay.inserted(), model.len() as u64);
        if model.is_empty() {
            return Ok(());
        }
        // The same types again give the same state; the schema's own hold all that comes out of others.
        let saved = MemoryState::save(|v| replay.visit(v)).unwrap();
        let same = build(&columns, |column| column.stored, capacity + 3);
        saved.load(|v| same.visit(v)).unwrap();
        let plain = build(&columns, |_| None, capacity);
        saved.load(|v| plain.visit(v)).unwrap();
        prop_assert_eq!(&MemoryState::save(|v| plain.visit(v)).unwrap(), &saved);
        for replay in [replay, same, plain] {
            let mut reader = replay.sampler();
            let (mut drawn, rows) = (Drawn::default(), rng.random_range(0..100usize));
            let mut memory: Vec<Vec<u8>> = row_bytes.iter().map(|bytes| vec![0xaa; shift + bytes * rows]).collect();
            let lent = memory.iter_mut().map(|column| &mut column[shift..]);
            let mut batch = BatchMut::new(replay.schema(), rows, lent).unwrap();
            reader.sample_into(&mut rng, rows, &mut batch, &mut drawn).unwrap();
            drop(batch);
            for (place, key) in drawn.rows.iter().enumerate() {
                for ((column, bytes), expected) in memory.iter().zip(&row_bytes).zip(&model[*key as usize]) {
                    prop_assert_eq!(&column[shift + place * bytes..][..*bytes], expected.as_slice());
                }
            }
        }
    }
}
