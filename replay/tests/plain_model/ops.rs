//! What is done to a buffer, at random.

use proptest::prelude::*;

/// Rows are named by how far they lie behind the newest, 1 being the newest; 0 is not there yet.
#[derive(Clone, Debug)]
pub enum Op {
    Push,
    PushRows(usize),
    PushBad(BadRow),
    Draw(usize),
    /// Target a batch that is too small.
    DrawTooMany(usize),
    Gather(Vec<u64>),
    /// Rows are pinned, as many are inserted, and the pinned ones drawn and read.
    Pin {
        rows: usize,
        count: usize,
    },
    Update(Vec<(u64, f32)>),
    UpdateBad(BadPriority),
    Phase(u64),
    /// Saved to memory and loaded into a new buffer, with more room by so much.
    Restart {
        more: u64,
        reserve: u64,
    },
    /// To a file; as an increment to an earlier one, if there is such a one.
    Save {
        increment: Option<prop::sample::Index>,
        zip: bool,
    },
    /// One of the files, into the buffer itself or a new one with more room.
    Load {
        file: prop::sample::Index,
        into: Target,
    },
    Mix(usize),
    UpdateMixed(f32),
}

#[derive(Clone, Copy, Debug)]
pub enum BadRow {
    Columns,
    Bytes,
    /// In one row of many, at the float with this number.
    NaN(usize),
    Struct,
}

#[derive(Clone, Copy, Debug)]
pub enum BadPriority {
    Length,
    Value(f32),
}

#[derive(Clone, Copy, Debug)]
pub enum Target {
    Itself,
    Larger(u64),
    Smaller,
}

pub fn ops() -> impl Strategy<Value = Vec<(bool, Op)>> {
    let magnitude = || prop_oneof![Just(0.0f32), Just(-0.0f32), Just(0.5f32), 0.0f32..10.0, Just(1e30f32)];
    let bad_row = prop_oneof![
        Just(BadRow::Columns),
        Just(BadRow::Bytes),
        (0usize..20).prop_map(BadRow::NaN),
        Just(BadRow::Struct)
    ];
    let bad_value = prop::sample::select(vec![f32::NAN, f32::INFINITY, -1.0, f32::NEG_INFINITY]);
    let bad_priority = prop_oneof![Just(BadPriority::Length), bad_value.prop_map(BadPriority::Value)];
    let into = prop_oneof![Just(Target::Itself), (0u64..20).prop_map(Target::Larger), Just(Target::Smaller)];
    let op = prop_oneof![
        6 => Just(Op::Push),
        5 => (0usize..40).prop_map(Op::PushRows),
        2 => bad_row.prop_map(Op::PushBad),
        6 => (0usize..20).prop_map(Op::Draw),
        1 => (0usize..20).prop_map(Op::DrawTooMany),
        2 => prop::collection::vec(0u64..60, 0..12).prop_map(Op::Gather),
        3 => (0usize..20, 0usize..20).prop_map(|(rows, count)| Op::Pin { rows, count }),
        6 => prop::collection::vec((0u64..60, magnitude()), 0..12).prop_map(Op::Update),
        1 => bad_priority.prop_map(Op::UpdateBad),
        1 => (0u64..20).prop_map(Op::Phase),
        1 => (0u64..8, 1u64..8).prop_map(|(more, reserve)| Op::Restart { more, reserve }),
        2 => (prop::option::weighted(0.7, any::<prop::sample::Index>()), any::<bool>())
            .prop_map(|(increment, zip)| Op::Save { increment, zip }),
        1 => (any::<prop::sample::Index>(), into).prop_map(|(file, into)| Op::Load { file, into }),
        3 => (0usize..20).prop_map(Op::Mix),
        1 => magnitude().prop_map(Op::UpdateMixed),
    ];
    prop::collection::vec((any::<bool>(), op), 1..60)
}
