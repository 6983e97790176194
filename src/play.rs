//! `rl-train play`: one greedy episode of a trained policy, drawn.

use crate::error::{CommandError, Result, io, usage};
use crate::evaluation::{observations, step};
use crate::render::{GifWriter, RenderError, braille};
use rl_envs::{Scene, VecEnv};
use rl_learn::{Agent, Mode};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the drawing goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Screen {
    /// A GIF file.
    Gif(PathBuf),
    /// The terminal.
    Terminal,
}

/// Frames a second: Gymnasium's classic-control environments are drawn at 15 to 50.
const FPS: u32 = 30;

/// Plays one episode of `env` with `agent`; gives its return and length.
///
/// # Errors
/// [`CommandError::Usage`] when the environment has no drawing or the file's folder is missing; [`CommandError::Failed`] otherwise.
pub fn play(agent: &mut dyn Agent, env: &str, seed: u64, screen: &Screen) -> Result<(f64, u64)> {
    let mut envs = VecEnv::make(env, 1)?;
    envs.reset(seed)?;
    let mut view = View::new(screen, &scene(&envs)?)?;
    let (mut total, mut length) = (0.0, 0);
    loop {
        // Drawn before the step: after the last one the environment already shows the next episode's start.
        view.show(&scene(&envs)?, total, length)?;
        let actions = agent.act(&observations(&envs), Mode::Greedy)?;
        step(&mut envs, &actions)?;
        let outcome = envs.outcomes()[0];
        total += outcome.reward;
        length += 1;
        if outcome.ended() {
            view.finish()?;
            return Ok((total, length));
        }
    }
}

fn scene(envs: &VecEnv) -> Result<Scene> {
    match envs.envs()[0].scene() {
        Some(scene) => Ok(scene),
        None => usage(format!("{} has no drawing", envs.spec().id)),
    }
}

enum View {
    Gif(GifWriter<std::io::BufWriter<std::fs::File>>),
    Terminal { next_frame: Instant },
}

impl View {
    fn new(screen: &Screen, scene: &Scene) -> Result<Self> {
        match screen {
            Screen::Gif(path) => {
                let folder = path.parent().unwrap_or(Path::new(""));
                if !folder.as_os_str().is_empty() && !folder.is_dir() {
                    return usage(format!("there is no folder {} for the GIF", folder.display()));
                }
                let (width, height) = (scene.width as u16, scene.height as u16);
                Ok(View::Gif(GifWriter::create(path, width, height, FPS).map_err(failed)?))
            }
            Screen::Terminal => {
                // Clears the screen and hides the cursor; `finish` shows it again.
                write!(std::io::stdout(), "\x1b[2J\x1b[?25l").map_err(io("cannot draw"))?;
                Ok(View::Terminal { next_frame: Instant::now() })
            }
        }
    }

    fn show(&mut self, scene: &Scene, total: f64, length: u64) -> Result<()> {
        match self {
            View::Gif(gif) => gif.frame(scene).map_err(failed),
            View::Terminal { next_frame } => {
                let mut out = std::io::stdout().lock();
                write!(out, "\x1b[H{}\nstep {length}  return {total:.1}\x1b[K\n", braille(scene, 78, 22))
                    .and_then(|()| out.flush())
                    .map_err(io("cannot draw"))?;
                std::thread::sleep(next_frame.saturating_duration_since(Instant::now()));
                *next_frame = Instant::now() + Duration::from_secs(1) / FPS;
                Ok(())
            }
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            View::Gif(gif) => gif.finish().map(drop).map_err(failed),
            View::Terminal { .. } => write!(std::io::stdout(), "\x1b[?25h").map_err(io("cannot draw")),
        }
    }
}

fn failed(e: RenderError) -> CommandError {
    CommandError::Failed(e.to_string())
}
