//! Frames stored once, against direct evaluation over whole episodes.

mod frames_world;

use frames_world::{Case, World, cases, default_case, frame};
use proptest::prelude::*;
use rand::RngExt;
use rl_replay::{Dtype, FrameReplay, FrameStep, MemoryState, ReplayError};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_row_is_that_of_its_episode(
        case in cases(),
        steps in 1usize..900,
        lengths in 1usize..30,
        moves in prop::collection::vec(0usize..900, 0..3),
        quiet in 0.5f64..1.0,
    ) {
        let mut world = World::new(case);
        for step in 0..steps {
            // The first stream is often silent, and then for long.
            let from = usize::from(case.streams > 1 && world.rng.random_bool(quiet));
            let stream = world.rng.random_range(from..case.streams);
            world.step(stream, lengths);
            if step % 7 == 0 {
                world.draw();
            }
            if moves.contains(&step) {
                world.move_on(step % 2 == 0);
                world.draw();
            }
        }
        world.draw();
    }

    /// A load into a buffer while its own streams go on.
    #[test]
    fn streams_go_on_after_a_load(case in cases(), before in 0usize..200, after in 1usize..200) {
        let mut world = World::new(case);
        let empty = MemoryState::save(|v| world.replay.visit(v)).unwrap();
        let rows = before / 2;
        for step in 0..before {
            world.step(step % case.streams, 9);
        }
        empty.load(|v| world.replay.visit(v)).unwrap();
        prop_assert_eq!((world.replay.len(), world.replay.inserted_frames()), (0, 0));
        world.rows.clear();
        world.priorities.clear();
        world.largest = 1.0;
        for step in 0..after {
            world.step((step + rows) % case.streams, 9);
            world.draw();
        }
    }
}

#[test]
fn long_episodes_leave_every_row_drawable() {
    let replay = default_case().build();
    let mut streams: Vec<_> = (0..8).map(|_| replay.stream()).collect();
    for step in 0..16_000 {
        for (id, stream) in streams.iter_mut().enumerate() {
            let frame = frame(id, 0, step);
            // Episodes of 200 steps, not all at once.
            let t = step + 25 * id;
            if step == 0 || t % 200 == 0 {
                stream.begin(bytemuck::cast_slice(&frame)).unwrap();
            }
            let truncated = t % 200 == 199;
            let (action, next_frame) = (&[0; 8], bytemuck::cast_slice(&frame));
            stream.step(FrameStep { action, reward: 0.0, next_frame, terminated: false, truncated }).unwrap();
            assert_eq!(replay.len(), 50_000.min(replay.inserted() as usize));
        }
    }
    assert_eq!((replay.len(), replay.inserted()), (50_000, 128_000));
    // Each frame once: those of 16,000 steps of 8 streams, and the first ones of their 80 or 81 episodes.
    let firsts = replay.inserted_frames() - 128_000;
    assert!((8 * 80..=8 * 81).contains(&firsts), "{firsts}");
}

#[test]
fn short_episodes_leave_as_many_as_documented() {
    for prioritized in [false, true] {
        let case = Case { capacity: 4000, streams: 1, prioritized, ..default_case() };
        let mut world = World::new(case);
        for _ in 0..20_000 {
            world.step(0, 1);
        }
        // Two frames for each row: 4000 + 4000/128 + 20 of them, less a stack and a mark.
        let expected = (4000.0 + 31.0 + 20.0 - 5.0) / 2.0;
        let len = world.replay.len() as f64;
        assert!(len <= expected + 3.0 && len >= expected - 16.0, "{len} of {expected}");
        world.draw();
    }
}

#[test]
fn a_silence_costs_no_more_than_the_history() {
    let case = Case { capacity: 2000, extra: Some(100), history: Some(94), streams: 2, ..default_case() };
    let mut world = World::new(case);
    for round in 0..60 {
        world.places[0].length = usize::MAX;
        world.places[1].length = usize::MAX;
        if round == 0 {
            for stream in 0..2 {
                world.streams[stream].begin(bytemuck::cast_slice(&frame(stream, 0, 0))).unwrap();
            }
        }
        world.step(0, 1);
        for _ in 0..97 * (round % 3) + 1 {
            world.step(1, 1);
            if world.rows.len() >= 2200 {
                // 2100 frames, a history of 100, and a mark of 16; frames inserted anew are few.
                assert!(world.replay.len() >= 2000 - 100 - 16 - 5 * 21, "{}", world.replay.len());
            }
        }
        world.draw();
    }
    assert!(world.rows.len() > 4000);
    // Twenty rounds have a silence of 195 steps: the stack and no more goes in again.
    let anew = world.replay.inserted_frames() as usize - world.rows.len() - 2;
    assert!(anew > 0 && anew <= 4 * 40, "{anew}");
}

#[test]
fn what_is_refused_changes_nothing() {
    let f32s = || FrameReplay::builder((Dtype::F32, &[2]), (Dtype::F32, &[]));
    let replay = f32s().stack(2).n_step(2, 0.5).capacity(10).build().unwrap();
    let mut stream = replay.stream();
    let zero = [0u8; 8];
    let bytes = |x: f32| [x.to_ne_bytes(), x.to_ne_bytes()].concat();
    let good =
        FrameStep { action: &[0; 4], reward: 1.0, next_frame: &zero, terminated: false, truncated: false };
    let message = |result: Result<usize, ReplayError>| result.unwrap_err().to_string();
    assert!(message(stream.step(good)).contains("call `begin`"));
    assert!(matches!(stream.begin(&[0; 7]), Err(ReplayError::Bytes { .. })));
    assert!(matches!(stream.begin(&bytes(f32::NAN)), Err(ReplayError::NotFinite { .. })));
    assert!(message(stream.step(good)).contains("call `begin`"));
    stream.begin(&zero).unwrap();
    stream.step(good).unwrap();
    let state = MemoryState::save(|v| stream.visit(v)).unwrap();
    let buffer = MemoryState::save(|v| replay.visit(v)).unwrap();
    let infinite = bytes(f32::INFINITY);
    let bad = [
        FrameStep { action: &[0; 3], ..good },
        FrameStep { reward: f32::NAN, ..good },
        FrameStep { next_frame: &infinite, ..good },
        FrameStep { next_frame: &[], ..good },
        FrameStep { action: &infinite[..4], ..good },
    ];
    for step in bad {
        stream.step(step).unwrap_err();
        assert!(MemoryState::save(|v| stream.visit(v)).unwrap() == state);
        assert!(MemoryState::save(|v| replay.visit(v)).unwrap() == buffer);
    }
    // A return beyond f32.
    let largest = FrameStep { reward: f32::MAX, ..good };
    assert_eq!(stream.step(largest).unwrap(), 1);
    assert!(matches!(stream.step(largest), Err(ReplayError::NotFinite { .. })));
    assert_eq!((stream.open_steps(), replay.len()), (1, 1));
    assert_eq!(stream.step(FrameStep { terminated: true, ..good }).unwrap(), 2);
    assert!(message(stream.step(good)).contains("call `begin`"));

    for (builder, name) in [
        (f32s().capacity(0), "the capacity is 0"),
        (f32s().capacity(9).stack(0), "stack is 0"),
        (f32s().capacity(9).n_step(0, 0.9), "n_step is 0"),
        (f32s().capacity(9).n_step(1, 1.1), "gamma is 1.1"),
        (f32s().capacity(9).history(5), "history is 5"),
        (f32s().capacity(9).reserve(0), "reserve is 0"),
        (FrameReplay::builder((Dtype::U8, &[0]), (Dtype::U8, &[])).capacity(9), "stream of frames"),
        (f32s().capacity(1 << 40), "capacity is"),
    ] {
        let message = builder.build().unwrap_err().to_string();
        assert!(message.starts_with(name), "{message}");
    }
}

#[test]
fn states_that_do_not_fit_are_refused() {
    let case = Case { capacity: 60, streams: 2, n: 2, ..default_case() };
    let filled = |case: Case| {
        let mut world = World::new(case);
        for step in 0..100 {
            world.step(step % 2, 9);
        }
        world.replay
    };
    let saved = MemoryState::save(|v| filled(case).visit(v)).unwrap();
    for other in [
        Case { capacity: 20, ..case },
        Case { k: 3, ..case },
        Case { n: 1, ..case },
        Case { zero: true, ..case },
    ] {
        let other = filled(other);
        let before = MemoryState::save(|v| other.visit(v)).unwrap();
        saved.load(|v| other.visit(v)).unwrap_err();
        assert!(MemoryState::save(|v| other.visit(v)).unwrap() == before);
    }
    // More room is welcome.
    let larger = filled(Case { capacity: 200, ..case });
    saved.load(|v| larger.visit(v)).unwrap();
    assert_eq!(larger.live(), filled(case).live());
}
