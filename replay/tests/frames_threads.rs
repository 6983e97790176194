//! Real threads over small rings of frames: no frame torn, none of another row's, nothing held up.

use rand::SeedableRng;
use rl_replay::{
    Batch, Drawn, Dtype, FrameReader, FrameReplay, FrameStep, MemoryState, Prioritized, ReplayError, Rng,
    SampleError, SnapshotOptions, SnapshotSeries,
};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const WORDS: usize = 40;
const STACK: usize = 3;

/// Words that depend on the episode, the time, and their place (splitmix64); the first two tell which.
fn frame(episode: u64, t: u64) -> [u64; WORDS] {
    std::array::from_fn(|place| match place {
        0 => episode,
        1 => t,
        _ => {
            let mut x = (episode << 40) ^ (t << 16) ^ place as u64;
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        }
    })
}

fn build(n: usize, capacity: usize) -> FrameReplay {
    FrameReplay::builder((Dtype::I64, &[WORDS]), (Dtype::I64, &[]))
        .capacity(capacity)
        .stack(STACK)
        .n_step(n, 1.0)
        .history(60)
        .reserve(1)
        .prioritized(Prioritized::default())
        .build()
        .unwrap()
}

fn draw_and_check(reader: &mut FrameReader, n: usize, rng: &mut Rng, batch: &mut Batch, drawn: &mut Drawn) {
    let window = if n == 1 { STACK + 1 } else { 2 * STACK };
    match reader.sample_into(rng, 32, &mut batch.view_mut(), drawn) {
        Err(ReplayError::Sample(SampleError::Empty)) => return std::thread::yield_now(),
        result => result.unwrap(),
    }
    for row in 0..32 {
        let words = &batch.typed::<u64>("frames").unwrap()[row * window * WORDS..][..window * WORDS];
        let time = batch.typed::<u64>("action").unwrap()[row];
        // With γ = 1 and rewards of 1 the reward is the number of steps.
        let span = batch.typed::<f32>("reward").unwrap()[row] as u64;
        let stack = |t: u64| (0..STACK as u64).map(move |back| (t + 1 + back).saturating_sub(STACK as u64));
        let next = stack(time + span).skip(if n == 1 { STACK - 1 } else { 0 });
        for (got, t) in words.chunks(WORDS).zip(stack(time).chain(next)) {
            assert_eq!(got, frame(words[0], t));
        }
    }
    reader.update_priorities(&drawn.rows, &[0.5; 32]).unwrap();
}

/// Stops the other threads, also when this one fails: they would go on for ever.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A copy is taken through memory or through a series of files, again and again, and now and then loaded.
fn stress(n: usize, files: bool, for_how_long: Duration) {
    let replay = build(n, 300);
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let (mut saves, mut increments) = (0u64, 0u64);
    let (stop, episodes) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for id in 0..3u64 {
            let (replay, stop, episodes) = (&replay, &stop, &episodes);
            scope.spawn(move || {
                let mut stream = replay.stream();
                while !stop.load(Ordering::Relaxed) {
                    let episode = episodes.fetch_add(1, Ordering::Relaxed);
                    let length = 1 + (episode * 7) % 40;
                    stream.begin(bytemuck::cast_slice(&frame(episode, 0))).unwrap();
                    for t in 0..length {
                        if id == 0 && t % 5 == 0 {
                            // Others go around the ring meanwhile.
                            std::thread::sleep(Duration::from_millis(1));
                        }
                        stream
                            .step(FrameStep {
                                action: &t.to_ne_bytes(),
                                reward: 1.0,
                                next_frame: bytemuck::cast_slice(&frame(episode, t + 1)),
                                terminated: false,
                                truncated: t + 1 == length,
                            })
                            .unwrap();
                    }
                }
            });
        }
        for id in 0..2 {
            let (mut reader, stop) = (replay.sampler(), &stop);
            let schema = replay.schema();
            scope.spawn(move || {
                let mut rng = Rng::seed_from_u64(id);
                let (mut batch, mut drawn) = (Batch::new(schema, 32), Drawn::default());
                while !stop.load(Ordering::Relaxed) {
                    draw_and_check(&mut reader, n, &mut rng, &mut batch, &mut drawn);
                }
            });
        }
        let stopper = Stop(&stop);
        let options = SnapshotOptions { block_bytes: 3_000, ..Default::default() };
        let mut series = SnapshotSeries::open(folder.path(), options).unwrap();
        let end = Instant::now() + for_how_long;
        let (mut batch, mut drawn) = (Batch::new(replay.schema(), 32), Drawn::default());
        let mut rng = Rng::seed_from_u64(7);
        for round in 0.. {
            if Instant::now() > end {
                break;
            }
            // Saved in the midst of it, and whole; now and then the buffer itself goes back to it.
            if files {
                let saved = series.save(&replay).unwrap();
                let copy = build(n, 400);
                assert_eq!(copy.load(&saved.path).unwrap(), saved);
                assert!(copy.len() > 100 || round < 20, "{} can be drawn", copy.len());
                for _ in 0..10 {
                    draw_and_check(&mut copy.sampler(), n, &mut rng, &mut batch, &mut drawn);
                }
                saves += 1;
                increments += u64::from(saved.base.is_some());
                if round % 50 == 49 {
                    series.load(&replay).unwrap();
                }
                continue;
            }
            let saved = MemoryState::save(|v| replay.visit(v)).unwrap();
            let copy = build(n, 300);
            saved.load(|v| copy.visit(v)).unwrap();
            draw_and_check(&mut copy.sampler(), n, &mut rng, &mut batch, &mut drawn);
            if round % 5 == 0 {
                saved.load(|v| replay.visit(v)).unwrap();
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        drop(stopper);
    });
    assert!(!files || (saves > 20 && increments > 0), "{saves} files, {increments} of them increments");
    assert!(replay.inserted_frames() > 3000, "the writers lapped the ring: {}", replay.inserted_frames());
}

#[test]
fn one_step() {
    stress(1, false, Duration::from_secs(3));
}

#[test]
fn three_steps() {
    stress(3, false, Duration::from_secs(3));
}

#[test]
fn one_step_to_files() {
    stress(1, true, Duration::from_secs(3));
}

#[test]
fn three_steps_to_files() {
    stress(3, true, Duration::from_secs(3));
}
