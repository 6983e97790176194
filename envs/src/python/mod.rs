//! Environments of Python's Gymnasium: `gym:ID` is `gymnasium.make`, `gym-vec:ID` is `gymnasium.make_vec`, and `atari:GAME` is
//! ale-py's `AtariVectorEnv`. `docs/environments.md` says how they are used.
//!
//! Python is attached to for the time of a call alone, so that other threads can use it while a learner learns.

mod env;
mod interpreter;
mod spaces;
mod vector;

use crate::batch::Batch;
use crate::{Env, EnvError, EnvSpec, Rgb, Scene, Shape, Space};
use env::{GymEnv, GymEnvs};
use numpy::{PyArray1, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyModule;
use std::collections::HashMap;
use vector::{GymOne, GymVec};

/// One environment; one that `draw`s, if it can.
pub(crate) fn make(id: &str, draw: bool) -> Result<Box<dyn Env>, EnvError> {
    match id.starts_with("gym:") {
        true => Ok(Box::new(GymEnv::make(id, draw)?)),
        false => Ok(Box::new(GymOne::make(id)?)),
    }
}

/// `count` environments, stepped together.
pub(crate) fn make_batch(id: &str, count: usize) -> Result<Box<dyn Batch>, EnvError> {
    match id.starts_with("gym:") {
        true => {
            let envs = (0..count).map(|_| GymEnv::make(id, false));
            Ok(Box::new(GymEnvs(envs.collect::<Result<_, _>>()?)))
        }
        false => Ok(Box::new(GymVec::make(id, count)?)),
    }
}

/// The spec of the environment that `id` asks for; `limits` are of bridge.py.
fn spec_of(id: &str, observation: Space, action: Space, limits: &Bound<'_, PyAny>) -> PyResult<EnvSpec> {
    // The limit is applied in Python.
    let (max_episode_steps, reward_threshold) = limits.extract()?;
    Ok(EnvSpec { id: id.to_string(), observation, action, max_episode_steps, reward_threshold })
}

/// What `env` renders; an observation that is an image, where it renders nothing.
fn picture(
    bridge: &Bound<'_, PyModule>,
    env: &Bound<'_, PyAny>,
    seen: Option<&Bound<'_, PyAny>>,
    index: usize,
) -> PyResult<Scene> {
    let frame = bridge.call_method1("picture", (env, seen, index))?;
    let (height, width, rgb): (usize, usize, Bound<'_, PyArray1<u8>>) = frame.extract()?;
    let rgb = rgb.to_vec()?;
    let mut counts: HashMap<&[u8], usize> = HashMap::new();
    for pixel in rgb.chunks_exact(3) {
        *counts.entry(pixel).or_default() += 1;
    }
    // What there is most of counts as background; of two that are as frequent the smaller, for a fixed answer.
    let most = counts.into_iter().max_by(|a, b| a.1.cmp(&b.1).then(b.0.cmp(a.0)));
    let background = most.map_or(Rgb(0, 0, 0), |(pixel, _)| Rgb(pixel[0], pixel[1], pixel[2]));
    Ok(Scene {
        width: width as f32,
        height: height as f32,
        background,
        shapes: vec![Shape::Picture { width, height, rgb }],
    })
}
