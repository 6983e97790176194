//! `rl-train play`: one greedy episode of a trained policy, drawn.

use crate::config::Config;
use crate::error::{CommandError, Result, io, usage};
use crate::render::{GifWriter, RenderError, braille};
use crate::signals::StopRequest;
use crate::stacks::{Stacks, bytes};
use rl_envs::{Action, Dtype, Env, Obs, ObsMut, Scene, Space};
use rl_learn::{Agent, Kind, Mode};
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

/// An episode that was played, to its end or until Ctrl-C.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Played {
    /// Sum of the rewards.
    pub total: f64,
    /// Steps.
    pub length: u64,
    /// The exit code where Ctrl-C ended it.
    pub stopped: Option<i32>,
}

/// Frames a second: Gymnasium's classic-control environments are drawn at 15 to 50.
const FPS: u32 = 30;

/// Plays one episode of the configured environment, seeded with `seed`, with `agent`, and draws every state from the first to the last.
///
/// # Errors
/// [`CommandError::Usage`] when the environment has no drawing or the file cannot be made; [`CommandError::Failed`] otherwise.
pub fn play(agent: &mut dyn Agent, config: &Config, seed: u64, screen: &Screen) -> Result<Played> {
    let mut env = rl_envs::make_drawn(&config.env)?;
    let mut shown = Shown::new(&env.spec().observation);
    let mut stacks = Stacks::new(env.spec(), 1, config.frame_stack);
    env.reset(Some(seed), shown.memory())?;
    stacks.begin(0, bytes(shown.obs()));
    let stop = StopRequest::listen().map_err(io("cannot watch for Ctrl-C"))?;
    let mut view = View::new(screen, &scene(&*env)?)?;
    let mut played = Played { total: 0.0, length: 0, stopped: None };
    loop {
        view.show(&scene(&*env)?, &played)?;
        let action = agent.act(&stacks.observations(shown.obs()), Mode::Greedy)?;
        let outcome = if action.kind() == Kind::Int64 {
            env.step(Action::Discrete(action.int64_value(&[0]) as usize), shown.memory())?
        } else {
            let values: Vec<f32> =
                (0..action.size()[1]).map(|i| action.double_value(&[0, i]) as f32).collect();
            env.step(Action::Box(&values), shown.memory())?
        };
        stacks.push(0, bytes(shown.obs()));
        played.total += outcome.reward;
        played.length += 1;
        played.stopped = stop.exit_code();
        if outcome.ended() || played.stopped.is_some() {
            view.show(&scene(&*env)?, &played)?;
            view.finish()?;
            return Ok(played);
        }
    }
}

/// What the environment shows.
enum Shown {
    F32(Vec<f32>),
    U8(Vec<u8>),
}

impl Shown {
    fn new(space: &Space) -> Self {
        match space.dtype() {
            Dtype::F32 => Shown::F32(vec![0.0; space.elements()]),
            Dtype::U8 => Shown::U8(vec![0; space.elements()]),
        }
    }

    fn memory(&mut self) -> ObsMut<'_> {
        match self {
            Shown::F32(values) => ObsMut::F32(values),
            Shown::U8(values) => ObsMut::U8(values),
        }
    }

    fn obs(&self) -> Obs<'_> {
        match self {
            Shown::F32(values) => Obs::F32(values),
            Shown::U8(values) => Obs::U8(values),
        }
    }
}

fn scene(env: &dyn Env) -> Result<Scene> {
    env.draw().or_else(|e| usage(e.to_string()))
}

enum View {
    Gif(GifWriter<std::io::BufWriter<std::fs::File>>),
    Terminal(Terminal),
}

/// The terminal while it is drawn on: its cursor is hidden, and comes back however this ends.
struct Terminal {
    next_frame: Instant,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = write!(std::io::stdout(), "\x1b[?25h");
    }
}

impl View {
    fn new(screen: &Screen, scene: &Scene) -> Result<Self> {
        match screen {
            Screen::Gif(path) => {
                let folder = path.parent().unwrap_or(Path::new(""));
                if !folder.as_os_str().is_empty() && !folder.is_dir() {
                    return usage(format!("there is no folder {} for the GIF", folder.display()));
                }
                if path.is_dir() {
                    return usage(format!("{} is a folder; name a file for the GIF", path.display()));
                }
                let (width, height) = (scene.width as u16, scene.height as u16);
                Ok(View::Gif(GifWriter::create(path, width, height, FPS).map_err(failed)?))
            }
            Screen::Terminal => {
                // Clears the screen and hides the cursor.
                write!(std::io::stdout(), "\x1b[2J\x1b[?25l").map_err(io("cannot draw"))?;
                Ok(View::Terminal(Terminal { next_frame: Instant::now() }))
            }
        }
    }

    fn show(&mut self, scene: &Scene, played: &Played) -> Result<()> {
        match self {
            View::Gif(gif) => gif.frame(scene).map_err(failed),
            View::Terminal(Terminal { next_frame }) => {
                let (picture, Played { total, length, .. }) = (braille(scene, 78, 22), played);
                let mut out = std::io::stdout().lock();
                write!(out, "\x1b[H{picture}\nstep {length}  return {total:.1}\x1b[K\n")
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
            View::Terminal(_) => Ok(()),
        }
    }
}

fn failed(e: RenderError) -> CommandError {
    CommandError::Failed(e.to_string())
}
