//! t
use rl_envs::*;
use std::time::Instant;
fn main() {
    let n = 64;
    for id in ["CartPole-v1", "Pendulum-v1"] {
        for threads in [1, 2] {
            let mut envs = VecEnv::make(id, n).unwrap().with_threads(threads).unwrap();
            envs.reset(1).unwrap();
            let disc: Vec<Vec<i64>> = (0..64).map(|t| (0..n).map(|i| ((t * 7919 + i * 104729) as f64 * 0.618034).fract().ge(&0.5) as i64).collect()).collect();
            let vals: Vec<Vec<f32>> = (0..64).map(|t| (0..n).map(|i| (((t * 7919 + i * 104729) as f64 * 0.618034).fract() * 4.0 - 2.0) as f32).collect()).collect();
            let mut best = 0.0f64;
            for _ in 0..60 {
                let begin = Instant::now();
                let mut steps = 0u64;
                while begin.elapsed().as_secs_f64() < 0.01 {
                    for t in 0..64 {
                        let a = if id.starts_with("Cart") { Actions::Discrete(&disc[t]) } else { Actions::Box(&vals[t]) };
                        envs.step(a).unwrap();
                    }
                    steps += 64 * n as u64;
                }
                best = best.max(steps as f64 / begin.elapsed().as_secs_f64());
            }
            println!("{id} {threads}: {:.2} M/s, {:.1} ns a step", best / 1e6, 1e9 / best);
        }
    }
}
