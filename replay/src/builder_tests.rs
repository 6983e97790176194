//! What a builder states, reserves and refuses.

use crate::{Builder, Prioritized, Proportional, Replay, ReplayError};
use rl_minibatch::{Dtype, Schema};

fn builders(capacity: usize) -> [Builder; 4] {
    let schema = Schema::transition((Dtype::F32, &[4]), (Dtype::I64, &[])).unwrap();
    let builder = || Replay::builder(schema.clone()).capacity(capacity);
    let settings = Prioritized::default();
    let own = Proportional::new(capacity as u64, settings).unwrap();
    [
        builder(),
        builder().prioritized(settings),
        builder().rank_based(0.7).reserve(5),
        builder().sampler(Box::new(own)),
    ]
}

#[test]
fn what_does_not_fit_is_refused_with_the_most_that_does() {
    for (number, builder) in builders(100_000).into_iter().enumerate() {
        let bytes = builder.memory_bytes();
        let bytes = u64::try_from(bytes).unwrap();
        builder.check_room(bytes).unwrap();
        for available in [bytes - 1, bytes / 2, 200_000, 1_000, 0] {
            let error = builder.check_room(available).unwrap_err();
            let ReplayError::TooLarge { rows: 100_000, bytes: needed, available: told, fits } = error else {
                panic!("{error}");
            };
            assert_eq!((needed, told), (bytes.into(), available));
            assert!(fits < 100_000 && (fits == 0 || builder.bytes_for(fits) <= available.into()));
            assert!(builder.bytes_for(fits + 1) > available.into(), "builder {number}: {fits} rows");
        }
    }
}

#[test]
fn what_was_stated_is_what_is_reserved() {
    let [uniform, prioritized, ranked, own] = builders(1 << 16);
    // 65,536 rows and twice 1,024 of 64 bytes, and 2,048 window places of 8.
    assert_eq!(uniform.memory_bytes(), (65_536 + 2_048) * 64 + 2_048 * 8);
    let leaves = (65_536 + 4_096 + 256 + 16) * 8;
    assert_eq!(prioritized.memory_bytes(), uniform.memory_bytes() + leaves);
    assert_eq!(own.memory_bytes(), prioritized.memory_bytes());
    assert_eq!(ranked.memory_bytes(), 65_546 * 64 + 16 * 8 + 65_536 * 24);
    assert_eq!(uniform.build().unwrap().memory_bytes(), (65_536 + 2_048) * 64);
    let [uniform, ..] = builders(1 << 16);
    let counting = uniform.count_draws();
    assert_eq!(counting.memory_bytes(), (65_536 + 2_048) * 68 + 2_048 * 8);
    assert_eq!(counting.build().unwrap().memory_bytes(), (65_536 + 2_048) * 68);
}

#[test]
fn statistics_wait_for_nobody() {
    let [_, prioritized, ..] = builders(10);
    let replay = prioritized.count_draws().build().unwrap();
    let columns = [16, 8, 4, 4, 16].map(|bytes| vec![0; 30 * bytes]);
    replay.writer().push_rows(30, &columns.each_ref().map(Vec::as_slice)).unwrap();
    let mut reader = replay.sampler();
    assert_eq!(reader.update_priorities(&[0, 25], &[1.0, 1.0]).unwrap().stale, 1);
    // A reader in the middle of a batch, a writer in the middle of a row, and somebody at the sampler: had they to be
    // waited for, it would be for ever.
    let pinned = reader.pin().unwrap();
    let claim = replay.shared.ring.claim(1);
    let keeper = replay.shared.keeper();
    let statistics = replay.statistics();
    assert_eq!((statistics.len, statistics.inserted, statistics.stale_priorities), (10, 30, 1));
    assert_eq!(replay.stale_priorities(), 1);
    drop((keeper, claim, pinned));
}

#[test]
fn what_is_rounded_is_stated_and_reserved_as_such() {
    let schema = Schema::transition((Dtype::F32, &[17]), (Dtype::F32, &[6])).unwrap();
    let builder = || {
        let builder = Replay::builder(schema.clone()).capacity(100_000);
        builder.store("obs", Dtype::F16).store("next_obs", Dtype::Bf16)
    };
    // 34 + 24 + 4 + 4 + 34 bytes, in two lines.
    let slots = (100_000 + 2_048) * 128;
    let bytes = builder().memory_bytes();
    assert_eq!(bytes, slots + 2_048 * 8);
    assert_eq!(builder().build().unwrap().memory_bytes() as u128, slots);
    let bytes = u64::try_from(bytes).unwrap();
    builder().check_room(bytes).unwrap();
    let error = builder().check_room(bytes - 1).unwrap_err();
    let ReplayError::TooLarge { bytes: needed, fits, .. } = error else { panic!("{error}") };
    assert_eq!((needed, fits), (bytes.into(), 99_999));
    // A type said twice, and one said in vain, which is told at the end.
    assert_eq!(builder().store("obs", Dtype::Bf16).memory_bytes(), bytes.into());
    assert_eq!(builder().store("observation", Dtype::F16).memory_bytes(), bytes.into());
}
