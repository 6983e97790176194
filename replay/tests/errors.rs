//! Everything that can be refused is refused with a message that helps, and leaves the buffer as it was.

use rand::SeedableRng;
use rl_minibatch::{Priorities, Sampler};
use rl_replay::*;
use std::ops::Range;

fn schema() -> Schema {
    Schema::transition((Dtype::F32, &[2]), (Dtype::I64, &[])).unwrap()
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

fn filled() -> Replay {
    let replay = Replay::builder(schema()).capacity(4).prioritized(Prioritized::default()).build().unwrap();
    for i in 0..6u8 {
        let x = f32s(&[f32::from(i), 0.5]);
        replay.writer().push(&[&x, &[i; 8], &f32s(&[1.0]), &f32s(&[0.9]), &x]).unwrap();
    }
    replay
}

fn state(replay: &Replay) -> MemoryState {
    MemoryState::save(|v| replay.visit(v)).unwrap()
}

/// Runs `attempt`, wants it to fail with a message that has all of `parts`, and the buffer to be as before.
fn refused(replay: &Replay, parts: &[&str], attempt: impl FnOnce() -> Result<(), ReplayError>) {
    let before = state(replay);
    let message = attempt().expect_err("this should be refused").to_string();
    for part in parts {
        assert!(message.contains(part), "'{message}' lacks '{part}'");
    }
    assert_eq!(state(replay), before, "after '{message}'");
}

#[test]
fn rows_that_do_not_fit() {
    let replay = filled();
    let mut writer = replay.writer();
    let (x, a, one) = (f32s(&[1.0, 2.0]), [0u8; 8], f32s(&[1.0]));
    refused(&replay, &["4 columns", "5 fields"], || writer.push(&[&x, &a, &one, &one]).map(drop));
    refused(&replay, &["'action'", "7 bytes", "take 8"], || {
        writer.push(&[&x, &a[..7], &one, &one, &x]).map(drop)
    });
    refused(&replay, &["'next_obs'", "12 bytes", "take 8"], || {
        writer.push(&[&x, &a, &one, &one, &f32s(&[1.0; 3])]).map(drop)
    });
    refused(&replay, &["'obs'", "8 bytes", "2 row(s)", "take 16"], || {
        writer.push_rows(2, &[&x, &[0; 16], &f32s(&[1.0; 2]), &f32s(&[1.0; 2]), &f32s(&[1.0; 4])])
    });
}

#[test]
fn rows_that_are_no_numbers() {
    let replay = filled();
    let mut writer = replay.writer();
    let (x, a, one) = (f32s(&[1.0, 2.0]), [0u8; 8], f32s(&[1.0]));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        refused(&replay, &["row 0", "'reward'"], || {
            writer.push(&[&x, &a, &f32s(&[bad]), &one, &x]).map(drop)
        });
        refused(&replay, &["row 0", "'next_obs'", "element 1"], || {
            writer.push(&[&x, &a, &one, &one, &f32s(&[1.0, bad])]).map(drop)
        });
        let mut obs = vec![0.0; 200];
        obs[2 * 70 + 1] = bad;
        let (zeros, ones) = (vec![0; 800], f32s(&[1.0; 100]));
        refused(&replay, &["row 70", "'obs'", "element 1"], || {
            writer.push_rows(100, &[&f32s(&obs), &zeros, &ones, &ones, &f32s(&[0.0; 200])])
        });
    }
}

#[test]
fn priorities_that_are_none() {
    let replay = filled();
    let mut sampler = replay.sampler();
    for bad in [f32::NAN, f32::INFINITY, -1.0] {
        refused(&replay, &["row 5", "number 2", &bad.to_string()], || {
            sampler.update_priorities(&[2, 3, 5], &[1.0, 2.0, bad]).map(drop)
        });
    }
    refused(&replay, &["2 rows", "1 priorities"], || sampler.update_priorities(&[2, 3], &[1.0]).map(drop));
    let uniform = Replay::builder(schema()).capacity(4).uniform().build().unwrap();
    refused(&uniform, &["keeps no priorities"], || uniform.sampler().update_priorities(&[], &[]).map(drop));
}

#[test]
fn priorities_that_come_too_late_are_counted() {
    let replay = filled();
    let updated = replay.sampler().update_priorities(&[0, 1, 2, 5, 6, 2], &[9.0; 6]).unwrap();
    assert_eq!((updated.applied, updated.stale), (3, 3));
    assert_eq!(replay.stale_priorities(), 3);
}

#[test]
fn batches_that_do_not_fit() {
    let replay = filled();
    let mut sampler = replay.sampler();
    let (mut rng, mut drawn) = (Rng::seed_from_u64(0), Drawn::default());
    let mut batch = Batch::new(&schema(), 3);
    refused(&replay, &["4 rows", "batch of 3"], || {
        sampler.sample_into(&mut rng, 4, &mut batch.view_mut(), &mut drawn)
    });
    let other = Schema::transition((Dtype::F32, &[3]), (Dtype::I64, &[])).unwrap();
    let mut batch = Batch::new(&other, 3);
    refused(&replay, &["'obs'", "12 bytes", "8"], || {
        sampler.sample_into(&mut rng, 1, &mut batch.view_mut(), &mut drawn)
    });
    assert!(drawn.rows.is_empty());
}

#[test]
fn draws_of_rows_without_priority() {
    let settings = Prioritized { alpha: 0.5, epsilon: 0.0 };
    let replay = Replay::builder(schema()).capacity(2).prioritized(settings).build().unwrap();
    let x = f32s(&[0.0, 0.0]);
    replay.writer().push(&[&x, &[0; 8], &f32s(&[0.0]), &f32s(&[0.0]), &x]).unwrap();
    replay.sampler().update_priorities(&[0], &[0.0]).unwrap();
    let mut batch = Batch::new(&schema(), 1);
    refused(&replay, &["priority 0", "epsilon"], || {
        let (mut rng, mut drawn) = (Rng::seed_from_u64(0), Drawn::default());
        replay.sampler().sample_into(&mut rng, 1, &mut batch.view_mut(), &mut drawn)
    });
}

/// Draws whatever it is told to, or panics.
struct Rogue(Vec<u64>);

impl Sampler for Rogue {
    fn draw(&mut self, _: &mut Rng, _: Range<u64>, _: usize, drawn: &mut Drawn) -> Result<(), SampleError> {
        assert!(!self.0.is_empty(), "the sampler breaks down");
        drawn.rows.clone_from(&self.0);
        drawn.probabilities = vec![0.5; self.0.len()];
        Ok(())
    }

    fn priorities(&mut self) -> Option<&mut dyn Priorities> {
        None
    }

    fn visit(&mut self, _: Range<u64>, _: &mut dyn StateVisitor) -> Result<(), StateError> {
        Ok(())
    }
}

#[test]
fn samplers_of_ones_own_are_not_trusted() {
    let drawing = |rows: &[u64]| {
        let replay =
            Replay::builder(schema()).capacity(2).sampler(Box::new(Rogue(rows.to_vec()))).build().unwrap();
        let x = f32s(&[0.0, 0.0]);
        for _ in 0..3 {
            replay.writer().push(&[&x, &[0; 8], &f32s(&[0.0]), &f32s(&[0.0]), &x]).unwrap();
        }
        let mut batch = Batch::new(&schema(), 2);
        let (mut rng, mut drawn) = (Rng::seed_from_u64(0), Drawn::default());
        (replay.sampler().sample_into(&mut rng, 2, &mut batch.view_mut(), &mut drawn), replay)
    };
    drawing(&[1, 2]).0.unwrap();
    for (rows, part) in [(&[0, 1][..], "row 0"), (&[1, 3], "row 3"), (&[1], "1 rows"), (&[1, 2, 1], "3 rows")]
    {
        let message = drawing(rows).0.unwrap_err().to_string();
        assert!(message.contains(part) && message.contains("1..3"), "{message}");
    }
}

#[test]
fn a_panic_in_one_thread_stops_no_other() {
    let replay =
        Replay::builder(schema()).capacity(2).reserve(1).sampler(Box::new(Rogue(vec![]))).build().unwrap();
    let x = f32s(&[0.0, 0.0]);
    let push = || replay.writer().push(&[&x, &[0; 8], &f32s(&[0.0]), &f32s(&[0.0]), &x]).unwrap();
    push();
    let sampler = replay.sampler();
    let broken = std::thread::spawn(move || {
        let (mut rng, mut drawn) = (Rng::seed_from_u64(0), Drawn::default());
        let mut batch = Batch::new(&schema(), 1);
        sampler.clone().sample_into(&mut rng, 1, &mut batch.view_mut(), &mut drawn)
    });
    assert!(broken.join().is_err());
    // Twice around: a pin or a lock left behind would stop this for ever.
    let keys: Vec<u64> = (0..6).map(|_| push()).collect();
    assert_eq!(keys, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn buffers_that_cannot_be() {
    let build = |builder: Builder| builder.build().map(drop).unwrap_err().to_string();
    let builder = || Replay::builder(schema());
    assert!(build(builder()).contains("capacity is 0"));
    assert!(build(builder().capacity(1 << 50)).contains("lower the capacity"));
    assert!(build(builder().capacity(usize::MAX)).contains("lower the capacity"));
    assert!(
        build(builder().capacity(1 << 50).prioritized(Prioritized::default())).contains("lower the capacity")
    );
    assert!(
        build(builder().capacity(usize::MAX).prioritized(Prioritized::default()))
            .contains("lower the capacity")
    );
    assert!(build(builder().capacity(1).reserve(0)).contains("reserve is 0"));
    for alpha in [-0.1, 1.1, f64::NAN] {
        let settings = Prioritized { alpha, ..Default::default() };
        assert!(build(builder().capacity(1).prioritized(settings)).contains("alpha is"));
    }
    for epsilon in [-1e-9, f64::INFINITY, f64::NAN] {
        let settings = Prioritized { epsilon, ..Default::default() };
        assert!(build(builder().capacity(1).prioritized(settings)).contains("epsilon is"));
    }
}

#[test]
fn states_that_are_not_this_buffers() {
    let good = state(&filled());
    let replay = filled();
    replay.sampler().update_priorities(&[3, 4], &[0.1, 7.0]).unwrap();
    let load = |state: &MemoryState| state.load(|v| replay.visit(v)).map_err(|error| error.to_string());
    let before = state(&replay);
    let expect = |state: &MemoryState, part: &str| {
        let message = load(state).unwrap_err();
        assert!(message.contains(part), "'{message}' lacks '{part}'");
        assert_eq!(self::state(&replay).differences(&before), [""; 0], "after '{message}'");
    };
    // Each piece missing.
    let paths: Vec<String> = good.pieces().map(|(path, _)| path.to_string()).collect();
    assert!(paths.iter().any(|path| path == "rows.0.next_obs"), "{paths:?}");
    for path in &paths {
        let mut damaged = good.clone();
        damaged.remove(path);
        expect(&damaged, &format!("'{path}' is missing"));
    }
    // Another schema, a capacity too small, counters and priorities that make no sense.
    let other = Schema::transition((Dtype::F64, &[2]), (Dtype::I64, &[])).unwrap();
    expect(&state(&Replay::builder(other).capacity(4).build().unwrap()), "'schema' should be obs: f32 [2]");
    let larger = Replay::builder(schema()).capacity(5).prioritized(Prioritized::default()).build().unwrap();
    let x = f32s(&[0.0, 0.0]);
    for _ in 0..5 {
        larger.writer().push(&[&x, &[0; 8], &f32s(&[0.0]), &f32s(&[0.0]), &x]).unwrap();
    }
    expect(&state(&larger), "5 rows and this buffer room for 4; build one for 5 or more");
    let with = |path: &str, at: usize, value: [u8; 8]| {
        let mut damaged = good.clone();
        let Some(rl_minibatch::Piece::Array { bytes, .. }) = damaged.get_mut(path) else {
            panic!("no {path}")
        };
        bytes[at * 8..][..8].copy_from_slice(&value);
        damaged
    };
    expect(&with("inserted", 0, 1u64.to_ne_bytes()), "do not fit into a capacity of 4");
    expect(&with("inserted", 0, 100u64.to_ne_bytes()), "do not fit into a capacity of 4");
    expect(&with("inserted", 0, u64::MAX.to_ne_bytes()), "do not fit into a capacity of 4");
    for bad in [f64::NAN, -1.0, f64::INFINITY] {
        expect(&with("sampler.priorities", 1, bad.to_ne_bytes()), "cannot be a priority");
        expect(&with("sampler.largest", 0, bad.to_ne_bytes()), "cannot be a priority");
    }
    // And one that is.
    load(&good).unwrap();
    assert_eq!(state(&replay), good);
}

/// Nothing of it is allocated first: each of these asks for more than the machine has.
#[cfg(target_os = "linux")]
#[test]
fn a_buffer_that_does_not_fit_says_what_would() {
    let build = |builder: Builder| builder.build().map(drop).unwrap_err();
    let too_many = || Replay::builder(schema()).capacity(1 << 45);
    let own = Box::new(Recent::new(RecentSettings::default()).unwrap());
    for builder in [
        too_many(),
        too_many().prioritized(Prioritized::default()),
        too_many().rank_based(0.7),
        too_many().sampler(own),
        Replay::builder(schema()).capacity(10).reserve(1 << 45),
        Replay::builder(schema()).capacity(usize::MAX).reserve(usize::MAX),
    ] {
        let needed = builder.memory_bytes();
        let error = build(builder);
        let ReplayError::TooLarge { rows, bytes, available, fits } = error else { panic!("{error}") };
        assert_eq!(bytes, needed);
        assert!(u128::from(available) < bytes && fits < rows);
        assert_eq!(
            error.to_string(),
            format!(
                "a buffer of {rows} rows needs {bytes} bytes and {available} are available; \
                 lower the capacity to at most {fits} rows"
            )
        );
    }
    let error = build(too_many());
    let ReplayError::TooLarge { fits, .. } = error else { panic!("{error}") };
    // Half of it, for others run beside this test. It is not touched.
    Replay::builder(schema()).capacity(fits as usize / 2).build().unwrap();
}

row! {
    struct Plain {
        obs: [f32; 2],
        action: i64,
        reward: f32,
        discount: f32,
        next_obs: [f32; 2],
    }
}

row! {
    struct OtherAction {
        obs: [f32; 2],
        action: f64,
        reward: f32,
        discount: f32,
        next_obs: [f32; 2],
    }
}

row! {
    struct Short {
        obs: [f32; 2],
    }
}

#[test]
fn structs_that_are_other_rows() {
    let replay = filled();
    let mut writer = replay.writer();
    let (obs, next_obs) = ([1.0, 2.0], [3.0, 4.0]);
    let plain = Plain { obs, action: 5, reward: 6.0, discount: 7.0, next_obs };
    let bad = Plain { next_obs: [0.0, f32::NAN], ..plain };
    refused(&replay, &["row 0", "'next_obs'", "element 1"], || writer.push_row(&bad).map(drop));
    let other = OtherAction { obs, action: 5.0, reward: 6.0, discount: 7.0, next_obs };
    // Of the same size, so only the type tells.
    refused(&replay, &["field 1", "'action: f64 []'", "'action: i64 []'", "`schema()`"], || {
        writer.push_row(&other).map(drop)
    });
    refused(&replay, &["field 1 is missing", "'action: i64 []'"], || {
        writer.push_row(&Short { obs }).map(drop)
    });
    // Of a schema that is equal and not a clone.
    assert_eq!(writer.push_row(&plain).unwrap(), 6);
    let mut batch = Batch::new(replay.schema(), 1);
    replay.sampler().pin().unwrap().gather(&[6], &mut batch.view_mut()).unwrap();
    let back = Plain::get(&Plain::columns(&batch).unwrap(), 0);
    assert_eq!((back.obs, back.action, back.next_obs), (obs, 5, next_obs));
    assert_eq!((back.reward, back.discount), (6.0, 7.0));
    assert_eq!(Short::columns(&batch).unwrap().obs, [obs], "some of the columns");
}
