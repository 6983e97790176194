//! Schemas of any dtypes and sizes, and rows whose bytes all follow from one number.

use half::{bf16, f16};
use proptest::prelude::*;
use rl_replay::{Dtype, Field, Row, Schema, row};

row! {
    /// A struct with every dtype, to be inserted as a struct.
    pub struct Typed {
        pub a: u8,
        pub b: [i32; 3],
        pub c: i64,
        pub d: f16,
        pub e: [bf16; 2],
        pub f: [[f32; 2]; 3],
        pub g: f64,
        pub h: [bool; 5],
    }
}

impl Typed {
    /// The struct with the bytes of [`row`].
    pub fn of(content: u64) -> Self {
        let cells = row(Self::schema(), content);
        Self {
            a: cells[0][0],
            b: bytemuck::pod_read_unaligned(&cells[1]),
            c: bytemuck::pod_read_unaligned(&cells[2]),
            d: bytemuck::pod_read_unaligned(&cells[3]),
            e: bytemuck::pod_read_unaligned(&cells[4]),
            f: bytemuck::pod_read_unaligned(&cells[5]),
            g: bytemuck::pod_read_unaligned(&cells[6]),
            h: std::array::from_fn(|i| cells[7][i] == 1),
        }
    }
}

/// Rows below, at and above a cache line, at two lines, and long ones; now and then the struct's own.
pub fn schemas() -> impl Strategy<Value = Schema> {
    use Dtype::{Bf16, Bool, F16, F32, F64, I32, I64, U8};
    let bytes = prop_oneof![
        4 => 1usize..64,
        2 => Just(64usize),
        1 => Just(65usize),
        1 => Just(128usize),
        4 => 65usize..300,
        1 => 513usize..1200,
    ];
    let dtype = prop::sample::select(vec![Bool, U8, I32, I64, F16, Bf16, F32, F64]);
    let shape = prop_oneof![
        2 => Just(vec![]),
        3 => (1usize..8).prop_map(|n| vec![n]),
        1 => (1usize..4, 1usize..4).prop_map(|(m, n)| vec![m, n]),
    ];
    let made = (bytes, prop::collection::vec((dtype, shape), 0..6)).prop_map(|(bytes, picks)| {
        let (mut fields, mut left) = (Vec::new(), bytes);
        for (number, (dtype, shape)) in picks.into_iter().enumerate() {
            let field = Field::new(format!("f{number}"), dtype, shape);
            if field.row_bytes() <= left {
                left -= field.row_bytes();
                fields.push(field);
            }
        }
        if left > 0 {
            fields.push(Field::new("rest", U8, [left]));
        }
        let schema = Schema::new(fields).unwrap();
        assert_eq!(schema.row_bytes(), bytes);
        schema
    });
    prop_oneof![9 => made, 1 => Just(Typed::schema().clone())]
}

/// Sebastiano Vigna's SplitMix64, one step.
fn mixed(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The bytes of each field of a row. Floats have any finite value, signed zeros and subnormals among them.
pub fn row(schema: &Schema, content: u64) -> Vec<Vec<u8>> {
    let cell = |(position, field): (usize, &Field)| {
        let element = |index: usize| {
            let random = mixed(mixed(content) ^ (position as u64) << 32 ^ index as u64);
            // A float whose exponent is all ones is not finite: it loses one of them.
            let finite = |bits: u64, exponent: u64| {
                if bits & exponent == exponent { bits & !(exponent & exponent.wrapping_neg()) } else { bits }
            };
            match field.dtype {
                Dtype::Bool => vec![(random & 1) as u8],
                Dtype::U8 => vec![random as u8],
                Dtype::I32 => (random as i32).to_ne_bytes().to_vec(),
                Dtype::I64 => random.to_ne_bytes().to_vec(),
                Dtype::F16 => (finite(random & 0xffff, 0x7c00) as u16).to_ne_bytes().to_vec(),
                Dtype::Bf16 => (finite(random & 0xffff, 0x7f80) as u16).to_ne_bytes().to_vec(),
                Dtype::F32 => (finite(random & 0xffff_ffff, 0x7f80_0000) as u32).to_ne_bytes().to_vec(),
                Dtype::F64 => finite(random, 0x7ff0_0000_0000_0000).to_ne_bytes().to_vec(),
            }
        };
        (0..field.elements()).flat_map(element).collect()
    };
    schema.fields().iter().enumerate().map(cell).collect()
}

/// Such rows as columns.
pub fn columns(schema: &Schema, contents: &[u64]) -> Vec<Vec<u8>> {
    let mut columns = vec![Vec::new(); schema.fields().len()];
    for content in contents {
        for (column, cell) in columns.iter_mut().zip(row(schema, *content)) {
            column.extend(cell);
        }
    }
    columns
}

pub fn slices(columns: &[Vec<u8>]) -> Vec<&[u8]> {
    columns.iter().map(Vec::as_slice).collect()
}

/// NaN in a float's bytes.
pub fn nan(dtype: Dtype) -> Option<Vec<u8>> {
    match dtype {
        Dtype::F16 => Some(f16::NAN.to_ne_bytes().to_vec()),
        Dtype::Bf16 => Some(bf16::NAN.to_ne_bytes().to_vec()),
        Dtype::F32 => Some(f32::NAN.to_ne_bytes().to_vec()),
        Dtype::F64 => Some(f64::NAN.to_ne_bytes().to_vec()),
        Dtype::Bool | Dtype::U8 | Dtype::I32 | Dtype::I64 => None,
    }
}
