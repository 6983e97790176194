//! The buffer alone, in an agent written by hand: two actor threads walk through a maze, and a learner draws what they
//! saw by priority and improves a table of action values. No framework, no libtorch.
//!
//! `cargo run --release -p rl-replay --example embed`

use rand::{RngExt, SeedableRng};
use rl_replay::{
    Batch, Drawn, Dtype, NStep, Prioritized, Replay, Rng, Schema, Step, WeightNorm, importance_weights,
};
use std::error::Error;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// S is where an episode starts and G where it ends; # is a wall. Every step costs 1.
const MAZE: [&str; 7] =
    ["S....#....", ".####.#.##", "......#...", ".##.#...#.", ".#..###.#.", ".#.#G...#.", "...####..."];
/// What an action adds to the row and the column.
const MOVES: [(i32, i32); 4] = [(-1, 0), (0, 1), (1, 0), (0, -1)];
const STEP_LIMIT: usize = 200;
const GAMMA: f64 = 0.97;
const UPDATES: usize = 20_000;
const BATCH: usize = 32;

/// The value of each action in each cell.
type Table = Vec<[f32; 4]>;

fn cell(row: i32, column: i32) -> Option<u8> {
    let line = MAZE.get(usize::try_from(row).ok()?)?.as_bytes();
    line.get(usize::try_from(column).ok()?).copied().filter(|cell| *cell != b'#')
}

/// The cell after a move, and whether it is the goal. Into a wall means staying.
fn go(state: usize, action: usize) -> (usize, bool) {
    let width = MAZE[0].len();
    let (row, column) = ((state / width) as i32, (state % width) as i32);
    let (row, column) = (row + MOVES[action].0, column + MOVES[action].1);
    match cell(row, column) {
        Some(kind) => (row as usize * width + column as usize, kind == b'G'),
        None => (state, false),
    }
}

fn best(values: &[f32; 4]) -> usize {
    (0..4).max_by(|a, b| values[*a].total_cmp(&values[*b])).expect("there are four")
}

/// Walks episodes, mostly greedily, and hands every step to the buffer. Each actor has a writer and a window of its own.
fn act(
    replay: &Replay,
    table: &RwLock<Table>,
    stop: &AtomicBool,
    seed: u64,
) -> Result<u64, rl_replay::ReplayError> {
    let mut writer = replay.writer();
    let mut n_step = NStep::new(2, GAMMA, replay.schema())?;
    let mut rng = Rng::seed_from_u64(seed);
    let mut steps = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut state = 0;
        for time in 1..=STEP_LIMIT {
            let greedy = best(&table.read().expect("the learner does not panic")[state]);
            let action = if rng.random_bool(0.3) { rng.random_range(0..4) } else { greedy };
            let (next, terminated) = go(state, action);
            let step = Step {
                obs: &(state as i32).to_ne_bytes(),
                action: &[action as u8],
                reward: -1.0,
                next_obs: &(next as i32).to_ne_bytes(),
                terminated,
                truncated: time == STEP_LIMIT,
            };
            n_step.push(step, &mut writer)?;
            steps += 1;
            if terminated {
                break;
            }
            state = next;
        }
    }
    Ok(steps)
}

/// Q-learning on batches drawn by priority: Q(s,a) += η·w·δ with δ = reward + discount · max Q(s′,·) − Q(s,a).
fn learn(replay: &Replay, table: &RwLock<Table>) -> Result<(), Box<dyn Error>> {
    let mut sampler = replay.sampler();
    let mut rng = Rng::seed_from_u64(0);
    let (mut batch, mut drawn) = (Batch::new(replay.schema(), BATCH), Drawn::default());
    let (mut weights, mut errors) = ([0f32; BATCH], [0f32; BATCH]);
    while replay.len() < 500 {
        std::thread::yield_now();
    }
    for update in 0..UPDATES {
        sampler.sample_into(&mut rng, BATCH, &mut batch.view_mut(), &mut drawn)?;
        let beta = 0.4 + 0.6 * update as f64 / UPDATES as f64;
        importance_weights(&drawn, beta, WeightNorm::BatchMax, &mut weights);
        let (obs, action) = (batch.typed::<i32>("obs")?, batch.typed::<u8>("action")?);
        let (reward, discount) = (batch.typed::<f32>("reward")?, batch.typed::<f32>("discount")?);
        let next_obs = batch.typed::<i32>("next_obs")?;
        {
            let mut table = table.write().expect("the actors do not panic");
            for row in 0..BATCH {
                let next = &table[next_obs[row] as usize];
                let target = reward[row] + discount[row] * next[best(next)];
                let value = &mut table[obs[row] as usize][usize::from(action[row])];
                let error = target - *value;
                *value += 0.2 * weights[row] * error;
                errors[row] = error.abs();
            }
        }
        sampler.update_priorities(&drawn.rows, &errors)?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let schema = Schema::transition((Dtype::I32, &[]), (Dtype::U8, &[]))?;
    let replay = Replay::builder(schema)
        .capacity(20_000)
        .prioritized(Prioritized { alpha: 0.6, epsilon: 1e-3 })
        .build()?;
    let table = RwLock::new(vec![[0.0; 4]; MAZE.len() * MAZE[0].len()]);
    let stop = AtomicBool::new(false);

    std::thread::scope(|scope| -> Result<(), Box<dyn Error>> {
        let actors = [1, 2].map(|seed| {
            let (replay, table, stop) = (&replay, &table, &stop);
            scope.spawn(move || act(replay, table, stop, seed))
        });
        let learned = learn(&replay, &table);
        stop.store(true, Ordering::Relaxed);
        for actor in actors {
            let steps = actor.join().expect("actors do not panic")?;
            println!("an actor took {steps} steps");
        }
        learned
    })?;

    let table = table.into_inner()?;
    let (mut state, mut path) = (0, vec![0]);
    while path.len() <= STEP_LIMIT {
        let (next, done) = go(state, best(&table[state]));
        path.push(next);
        state = next;
        if done {
            break;
        }
    }
    for (row, line) in MAZE.iter().enumerate() {
        let on_path = |column: usize| path[1..path.len() - 1].contains(&(row * line.len() + column));
        let shown: String =
            line.char_indices().map(|(column, c)| if on_path(column) { 'o' } else { c }).collect();
        println!("{shown}");
    }
    println!(
        "{} rows inserted, {} kept; learned a way of {} steps",
        replay.inserted(),
        replay.len(),
        path.len() - 1
    );
    Ok(())
}
