//! What is saved to a file is what is loaded from it, whatever the buffer.

mod snapshot_layout;

use proptest::prelude::*;
use rand::SeedableRng;
use rl_replay::{
    Batch, Compression, Drawn, Dtype, Field, Replay, Rng, Schema, Snapshot, SnapshotError, SnapshotOptions,
    SnapshotPart,
};
use snapshot_layout::{Parts, build, differences, insert, schema, state};

const DTYPES: [Dtype; 8] =
    [Dtype::Bool, Dtype::U8, Dtype::I32, Dtype::I64, Dtype::F16, Dtype::Bf16, Dtype::F32, Dtype::F64];

fn schemas() -> impl Strategy<Value = Schema> {
    let field = (0..DTYPES.len(), prop::collection::vec(1usize..5, 0..3));
    prop::collection::vec(field, 1..5).prop_map(|fields| {
        let named = fields
            .into_iter()
            .enumerate()
            .map(|(position, (dtype, shape))| Field::new(format!("field{position}"), DTYPES[dtype], shape));
        Schema::new(named.collect()).unwrap()
    })
}

fn compressions() -> Vec<Compression> {
    vec![
        Compression::None,
        #[cfg(feature = "lz4")]
        Compression::Lz4,
        #[cfg(feature = "zstd")]
        Compression::Zstd(1),
    ]
}

/// The next rows that both draw are the same.
fn draws_alike(a: &Replay, b: &Replay) {
    let draw = |replay: &Replay| {
        let (mut rng, mut drawn) = (Rng::seed_from_u64(4), Drawn::default());
        let mut batch = Batch::new(replay.schema(), 16);
        let done = replay.sampler().sample_into(&mut rng, 16, &mut batch.view_mut(), &mut drawn);
        (done.map_err(|e| e.to_string()), drawn.rows, drawn.probabilities, batch.column(0).to_vec())
    };
    assert_eq!(draw(a), draw(b));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_round_trip_gives_the_same(
        schema in schemas(),
        capacity in 1usize..60,
        rows in 0usize..200,
        room in 0usize..40,
        prioritized: bool,
        block_bytes in prop_oneof![64usize..600, Just(1 << 20)],
        compression in prop::sample::select(compressions()),
        seed: u64,
        used: bool,
    ) {
        let mut rng = Rng::seed_from_u64(seed);
        let folder = snapshot_layout::folder();
        let path = folder.path().join("it");
        let replay = build(&schema, capacity, prioritized);
        insert(&replay, rows, &mut rng);
        let before = state(&replay);
        let options = SnapshotOptions { compression, block_bytes };
        let saved = replay.save_with(&path, &options).unwrap();
        prop_assert_eq!(state(&replay), before.clone(), "saving changes nothing");
        prop_assert_eq!(&saved, &Snapshot::read(&path).unwrap());
        prop_assert_eq!(saved.file_bytes, std::fs::metadata(&path).unwrap().len());
        prop_assert_eq!((&saved.live, &saved.rows, saved.base), (&replay.live(), &replay.live(), None));
        Parts::of(&std::fs::read(&path).unwrap());

        // As large, larger, and down to the rows that there are; empty, and in use.
        for capacity in [capacity, capacity + room, replay.len().max(1)] {
            let other = build(&schema, capacity, prioritized);
            if used {
                insert(&other, rows % 77, &mut rng);
            }
            other.load(&path).unwrap();
            prop_assert_eq!(differences(&state(&other), &before), Vec::<String>::new());
            if other.capacity() == replay.capacity() {
                draws_alike(&replay, &other);
            }
            // It goes on: the next key follows, and the ring wraps where it should.
            let next = replay.inserted();
            insert(&other, 3, &mut rng);
            prop_assert_eq!(other.inserted(), next + 3);
            prop_assert_eq!(other.len(), capacity.min(replay.len() + 3));
        }

        // One row of room too few.
        if replay.len() > 1 {
            let small = build(&schema, replay.len() - 1, prioritized);
            let message = small.load(&path).unwrap_err().to_string();
            let needed = format!("build one for {} or more", replay.len());
            prop_assert!(message.contains(&needed), "{}", message);
            prop_assert!(small.is_empty());
        }
    }
}

#[test]
fn blocks_of_rows_larger_than_a_block() {
    let schema =
        Schema::new(vec![Field::new("frame", Dtype::U8, [3_000_000]), Field::new("number", Dtype::I64, [])])
            .unwrap();
    let folder = snapshot_layout::folder();
    for compression in compressions() {
        let path = folder.path().join("large");
        let replay = build(&schema, 5, true);
        insert(&replay, 8, &mut Rng::seed_from_u64(1));
        let options = SnapshotOptions { compression, ..Default::default() };
        let saved = replay.save_with(&path, &options).unwrap();
        assert_eq!(compression == Compression::None, saved.file_bytes > 15_000_000, "half of it are zeros");
        let other = build(&schema, 7, true);
        other.load(&path).unwrap();
        assert_eq!(differences(&state(&other), &state(&replay)), [""; 0]);
    }
}

#[test]
fn what_the_buffer_does_not_need_is_passed_over() {
    let folder = snapshot_layout::folder();
    let path = folder.path().join("it");
    let mut rng = Rng::seed_from_u64(2);
    let prioritized = build(&schema(), 10, true);
    insert(&prioritized, 15, &mut rng);
    prioritized.save(&path).unwrap();
    // Without priorities there is nothing to do with them.
    let uniform = build(&schema(), 10, false);
    uniform.load(&path).unwrap();
    assert_eq!(uniform.live(), 5..15);
    // But they do not come from nowhere.
    uniform.save(&path).unwrap();
    let before = state(&prioritized);
    let error = prioritized.load(&path).unwrap_err();
    assert!(matches!(&error, SnapshotError::State { part: SnapshotPart::Block { .. }, .. }), "{error}");
    assert!(error.to_string().contains("'sampler.largest' is missing"), "{error}");
    assert_eq!(state(&prioritized), before);
}

#[test]
fn another_schema_is_refused() {
    let folder = snapshot_layout::folder();
    let path = folder.path().join("it");
    build(&schema(), 10, true).save(&path).unwrap();
    let other = Schema::transition((Dtype::F64, &[3]), (Dtype::I64, &[])).unwrap();
    let error = build(&other, 10, true).load(&path).unwrap_err().to_string();
    assert!(error.contains("block 0 (at byte") && error.contains("should be obs: f64 [3]"), "{error}");
}

#[test]
fn settings_that_cannot_be() {
    let folder = snapshot_layout::folder();
    let path = folder.path().join("it");
    for block_bytes in [0, 63, (64 << 20) + 1] {
        let options = SnapshotOptions { block_bytes, ..Default::default() };
        let error = build(&schema(), 10, true).save_with(&path, &options).unwrap_err().to_string();
        assert!(error.contains(&format!("block_bytes is {block_bytes}; it must be in 64..")), "{error}");
    }
    assert!(!path.exists());
}
