//! Learning from data that somebody else has gathered, without an environment, a framework or libtorch.
//!
//! `cargo run --release -p rl-replay --features npz,minari --example offline` has a random walker gather steps in a
//! maze and writes them to an `.npz` file; then a learner that has only the file finds the way out, by Q-learning.
//!
//! `... --example offline -- D4RL/pointmaze/umaze-v2 desired_goal observation` reads a Minari data set (one that was
//! downloaded, or a folder; after it the entries to take if its observations are a dictionary) and tells the value of
//! the policy that gathered it, as a linear function of the observation, by least-squares temporal differences.

use rand::{RngExt, SeedableRng};
use rl_replay::data::minari::Minari;
use rl_replay::data::npz::{self, Compression, Npz};
use rl_replay::data::{Cast, DataError};
use rl_replay::{Batch, Drawn, Dtype, Key, NStep, Replay, Rng, Schema, Step};
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next() {
        Some(data) => value_of(&data, arguments.collect()),
        None => {
            let file = std::env::temp_dir().join(format!("maze-{}.npz", std::process::id()));
            let learned = gather(&file).and_then(|()| learn(&file));
            std::fs::remove_file(&file)?;
            learned
        }
    }
}

/// S is where an episode starts and G where it ends; # is a wall. Every step costs 1.
const MAZE: [&str; 5] = ["S..#...", ".#...#.", ".#.#.#.", "...#.#G", "#......"];
/// What an action adds to the row and the column.
const MOVES: [(i32, i32); 4] = [(-1, 0), (0, 1), (1, 0), (0, -1)];
const STEP_LIMIT: usize = 100;
const GAMMA: f64 = 0.95;
const BATCH: usize = 64;

/// The cell after a move, and whether it is the goal. Into a wall means staying.
fn go(state: usize, action: usize) -> (usize, bool) {
    let width = MAZE[0].len();
    let row = (state / width) as i32 + MOVES[action].0;
    let column = (state % width) as i32 + MOVES[action].1;
    let line = usize::try_from(row).ok().and_then(|row| MAZE.get(row));
    let cell = line.zip(usize::try_from(column).ok()).and_then(|(line, c)| line.as_bytes().get(c));
    match cell {
        None | Some(b'#') => (state, false),
        Some(kind) => (row as usize * width + column as usize, *kind == b'G'),
    }
}

/// Somebody else: walks at random, and leaves a file of transitions.
fn gather(file: &Path) -> Result<(), Box<dyn Error>> {
    let schema = Schema::transition((Dtype::I32, &[]), (Dtype::U8, &[]))?;
    let replay = Replay::builder(schema.clone()).capacity(30_000).build()?;
    let (mut writer, mut n_step) = (replay.writer(), NStep::new(2, GAMMA, &schema)?);
    let mut rng = Rng::seed_from_u64(1);
    while replay.inserted() < 30_000 {
        let mut state = 0;
        for time in 1..=STEP_LIMIT {
            let action = rng.random_range(0..4);
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
            if terminated {
                break;
            }
            state = next;
        }
    }
    let rows = npz::export(&replay, file, Compression::Deflate)?;
    println!("gathered {rows} transitions at random: {} bytes", std::fs::metadata(file)?.len());
    Ok(())
}

/// The learner: Q(s,a) += η·(reward + discount · max Q(s′,·) − Q(s,a)), of batches drawn from the file's rows.
fn learn(file: &Path) -> Result<(), Box<dyn Error>> {
    let data = Npz::open(file)?;
    let replay = Replay::builder(data.schema()?).capacity(30_000).build()?;
    let rows = data.import(&mut replay.writer(), Cast::Widen)?;

    let mut sampler = replay.sampler();
    let mut rng = Rng::seed_from_u64(2);
    let (mut batch, mut drawn) = (Batch::new(replay.schema(), BATCH), Drawn::default());
    let mut table = vec![[0f32; 4]; MAZE.len() * MAZE[0].len()];
    let best = |values: &[f32; 4]| values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for _ in 0..4_000 {
        sampler.sample_into(&mut rng, BATCH, &mut batch.view_mut(), &mut drawn)?;
        let (obs, action) = (batch.typed::<i32>("obs")?, batch.typed::<u8>("action")?);
        let (reward, discount) = (batch.typed::<f32>("reward")?, batch.typed::<f32>("discount")?);
        let next_obs = batch.typed::<i32>("next_obs")?;
        for row in 0..BATCH {
            let target = reward[row] + discount[row] * best(&table[next_obs[row] as usize]);
            let value = &mut table[obs[row] as usize][usize::from(action[row])];
            *value += 0.2 * (target - *value);
        }
    }

    let (mut state, mut steps, mut found) = (0, 0, false);
    while !found && steps < STEP_LIMIT {
        let action = (0..4).max_by(|a, b| table[state][*a].total_cmp(&table[state][*b])).unwrap_or(0);
        (state, found) = go(state, action);
        steps += 1;
    }
    println!("learned from {rows} of them a way of {steps} steps, to the goal: {found}");
    if found { Ok(()) } else { Err("the goal was not found".into()) }
}

/// V(s) = w·[s, 1] of the policy that gathered the data, where w solves
///
/// ```text
///   (ε·I + Σ φ(s)·(φ(s) − discount·φ(s′))ᵀ) w = Σ φ(s)·reward        φ(s) = [s, 1]
/// ```
///
/// (least-squares temporal differences: Bradtke and Barto 1996; Sutton and Barto 2018, §9.8).
fn value_of(name: &str, keys: Vec<String>) -> Result<(), Box<dyn Error>> {
    let data = if Path::new(name).is_dir() { Minari::open(name) } else { Minari::local(name) }?;
    let data = data.observations(keys);
    let schema = data.schema(Cast::Round)?;
    let replay = Replay::builder(schema.clone()).capacity(data.total_steps()?).build()?;
    let imported = data.import(&mut NStep::new(5, 0.99, &schema)?, &mut replay.writer(), Cast::Round)?;
    println!("{} steps of {} episodes", imported.steps, imported.episodes);
    if schema.fields()[0].dtype != Dtype::F32 {
        let what = format!("its observations are {} and not floats", schema.fields()[0].dtype);
        return Err(DataError::Unsupported { file: name.to_string(), what }.into());
    }

    let width = schema.fields()[0].elements();
    let features = |obs: &[f32]| obs.iter().map(|x| f64::from(*x)).chain([1.0]).collect::<Vec<f64>>();
    // The system of equations, its right side in the last column. A little on the diagonal, so that it can be solved.
    let size = width + 1;
    let mut system = vec![vec![0.0; size + 1]; size];
    (0..size).for_each(|i| system[i][i] = 1e-3);
    let mut reader = replay.sampler();
    let pinned = reader.pin()?;
    let mut batch = Batch::new(&schema, BATCH);
    let keys: Vec<Key> = pinned.live().collect();
    for keys in keys.chunks(BATCH) {
        pinned.gather(keys, &mut batch.view_mut())?;
        let (obs, next_obs) = (batch.typed::<f32>("obs")?, batch.typed::<f32>("next_obs")?);
        let (reward, discount) = (batch.typed::<f32>("reward")?, batch.typed::<f32>("discount")?);
        for row in 0..keys.len() {
            let now = features(&obs[row * width..][..width]);
            let next = features(&next_obs[row * width..][..width]);
            for (equation, feature) in system.iter_mut().zip(&now) {
                for column in 0..size {
                    equation[column] += feature * (now[column] - f64::from(discount[row]) * next[column]);
                }
                equation[size] += feature * f64::from(reward[row]);
            }
        }
    }
    println!("V(s) = {:.4?} · [s, 1]", solved(system));
    Ok(())
}

/// Gauss's elimination with the largest pivot.
fn solved(mut system: Vec<Vec<f64>>) -> Vec<f64> {
    let size = system.len();
    for column in 0..size {
        let pivot =
            (column..size).max_by(|a, b| system[*a][column].abs().total_cmp(&system[*b][column].abs()));
        system.swap(column, pivot.unwrap_or(column));
        let pivot = system[column].clone();
        for (_, equation) in system.iter_mut().enumerate().filter(|(row, _)| *row != column) {
            let factor = equation[column] / pivot[column];
            equation.iter_mut().zip(&pivot).for_each(|(value, pivot)| *value -= factor * pivot);
        }
    }
    (0..size).map(|row| system[row][size] / system[row][row]).collect()
}
