//! Many actor threads and one learner around one buffer, no framework: what each of them gets done in a second.
//!
//! Sixteen actors walk along a line and insert three-step transitions; the learner draws batches by priority, learns the
//! value of each place by TD(0), and sends its errors back as priorities. Rates are printed every second.
//!
//! `cargo run --release -p rl-replay --example actors -- [actors] [seconds]`

use rand::{RngExt, SeedableRng};
use rl_replay::{
    Batch, Drawn, Dtype, NStep, Prioritized, Replay, ReplayError, Rng, Schema, Step, WeightNorm,
    importance_weights,
};
use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Places of the line. Left of it a walk ends with reward 0, right of it with reward 1 (Sutton and Barto 2018, example
/// 6.2), so that the value of place i is (i + 1) / (PLACES + 1) without discounting.
const PLACES: i32 = 19;
const BATCH: usize = 128;

/// Inserts the steps of random walks until it is told to stop. Each actor has a writer and an n-step window of its own.
fn act(replay: &Replay, seed: u64, stop: &AtomicBool) -> Result<u64, ReplayError> {
    let (mut writer, mut rng) = (replay.writer(), Rng::seed_from_u64(seed));
    let mut n_step = NStep::new(3, 1.0, replay.schema())?;
    let (mut place, mut steps) = (PLACES / 2, 0);
    while !stop.load(Relaxed) {
        let right = rng.random::<bool>();
        let next = if right { place + 1 } else { place - 1 };
        let terminated = !(0..PLACES).contains(&next);
        n_step.push(
            Step {
                obs: &place.to_ne_bytes(),
                action: &[u8::from(right)],
                reward: f32::from(u8::from(next == PLACES)),
                next_obs: &next.clamp(0, PLACES - 1).to_ne_bytes(),
                terminated,
                truncated: false,
            },
            &mut writer,
        )?;
        place = if terminated { PLACES / 2 } else { next };
        steps += 1;
    }
    Ok(steps)
}

/// V(s) += η·w·(reward + discount·V(s′) − V(s)) on batches drawn by priority, until it is told to stop.
fn learn(
    replay: &Replay,
    stop: &AtomicBool,
    learned: &AtomicU64,
) -> Result<[f32; PLACES as usize], Box<dyn Error + Send + Sync>> {
    let (mut sampler, mut rng) = (replay.sampler(), Rng::seed_from_u64(0));
    let (mut batch, mut drawn) = (Batch::new(replay.schema(), BATCH), Drawn::default());
    let (mut weights, mut errors) = ([0f32; BATCH], [0f32; BATCH]);
    let mut values = [0f32; PLACES as usize];
    while replay.len() < 10 * BATCH {
        std::thread::yield_now();
    }
    while !stop.load(Relaxed) {
        sampler.sample_into(&mut rng, BATCH, &mut batch.view_mut(), &mut drawn)?;
        importance_weights(&drawn, 1.0, WeightNorm::BatchMax, &mut weights);
        let (obs, next_obs) = (batch.typed::<i32>("obs")?, batch.typed::<i32>("next_obs")?);
        let (reward, discount) = (batch.typed::<f32>("reward")?, batch.typed::<f32>("discount")?);
        for row in 0..BATCH {
            let target = reward[row] + discount[row] * values[next_obs[row] as usize];
            let value = &mut values[obs[row] as usize];
            errors[row] = target - *value;
            *value += 0.002 * weights[row] * errors[row];
            errors[row] = errors[row].abs();
        }
        sampler.update_priorities(&drawn.rows, &errors)?;
        learned.fetch_add(BATCH as u64, Relaxed);
    }
    Ok(values)
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let actors: u64 = arguments.next().map_or(Ok(16), |text| text.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let schema = Schema::transition((Dtype::I32, &[]), (Dtype::U8, &[]))?;
    let settings = Prioritized { alpha: 0.6, epsilon: 0.01 };
    let builder = Replay::builder(schema).capacity(200_000).prioritized(settings);
    println!("{actors} actors and a learner share a buffer of {} MiB", builder.memory_bytes() >> 20);
    let replay = builder.build()?;
    let (stop, learned) = (AtomicBool::new(false), AtomicU64::new(0));

    let values = std::thread::scope(|scope| {
        let (replay, stop, learned) = (&replay, &stop, &learned);
        let actors: Vec<_> = (1..=actors).map(|seed| scope.spawn(move || act(replay, seed, stop))).collect();
        let learner = scope.spawn(move || learn(replay, stop, learned));
        let (mut inserted, mut drawn, mut then) = (0, 0, Instant::now());
        for _ in 0..seconds {
            std::thread::sleep(Duration::from_secs(1));
            let (rows, of_learner, now) = (replay.inserted(), learned.load(Relaxed), Instant::now());
            let rate = |count: u64| count as f64 / (now - then).as_secs_f64() / 1e6;
            println!(
                "inserted {:6.2} M rows/s    drawn and written back {:6.2} M rows/s    {} priorities came too late",
                rate(rows - inserted),
                rate(of_learner - drawn),
                replay.stale_priorities(),
            );
            (inserted, drawn, then) = (rows, of_learner, now);
        }
        stop.store(true, Relaxed);
        let steps = actors.into_iter().map(|actor| actor.join().expect("actors do not panic"));
        let steps: Vec<u64> = steps.collect::<Result<_, _>>()?;
        let (fewest, most) = (steps.iter().min(), steps.iter().max());
        println!("an actor took {} to {} steps", fewest.unwrap_or(&0), most.unwrap_or(&0));
        learner.join().expect("the learner does not panic")
    })?;
    let off = |place: usize| (values[place] - (place + 1) as f32 / (PLACES + 1) as f32).abs();
    println!("values are right to within {:.3}", (0..PLACES as usize).map(off).fold(0.0, f32::max));
    Ok(())
}
