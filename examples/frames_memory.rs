//! What a transition of Atari's takes in memory when each frame is stored once:
//! `cargo run --release -p rl-replay --example frames_memory [rows] [steps of an episode]`. Linux only.

use rl_replay::{Dtype, FrameReplay, FrameStep};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let capacity = arguments.next().transpose()?.unwrap_or(50_000);
    let length = arguments.next().transpose()?.unwrap_or(200);

    let before = resident_bytes()?;
    let replay =
        FrameReplay::builder((Dtype::U8, &[84, 84]), (Dtype::I64, &[])).capacity(capacity).build()?;
    let mut streams: Vec<_> = (0..8).map(|_| replay.stream()).collect();
    let mut frame = vec![0u8; 84 * 84];
    for t in 0..2 * capacity / streams.len() {
        for stream in &mut streams {
            frame[..8].copy_from_slice(&t.to_ne_bytes());
            if t % length == 0 {
                stream.begin(&frame)?;
            }
            let truncated = (t + 1) % length == 0;
            let (action, next_frame) = (&[0; 8], &frame[..]);
            stream.step(FrameStep { action, reward: 1.0, next_frame, terminated: false, truncated })?;
        }
    }
    let resident = resident_bytes()? - before;
    let rows = replay.len();
    println!("{rows} of {capacity} rows can be drawn, after episodes of {length} steps by 8 environments");
    println!("reserved {:.0} bytes a row", replay.memory_bytes() as f64 / rows as f64);
    println!("resident {:.0} bytes a row", resident as f64 / rows as f64);
    println!("stored whole, obs and next_obs: {} bytes a row", 2 * 4 * 84 * 84 + 8 + 4 + 4);
    Ok(())
}

/// VmRSS.
fn resident_bytes() -> Result<usize, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<usize>()? * 1024)
}
