//! A run's folder: what lies where, and what its summary says.

use crate::checkpoint::{self, Checkpoint, CheckpointError, Meta};
use crate::config::{Config, to_toml};
use crate::error::{CommandError, Result, io, usage};
use crate::evaluation::Evaluation;
use crate::training::Training;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Which of a run's checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Which {
    /// The last one written.
    Latest,
    /// The one with the best evaluation during training.
    Best,
}

/// The folder of one run.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// A new folder for a run of `config`: `out`, or the first free one of `runs/ALGO-ENV-seedN`, `…-2`, `…-3`. An `out` whose run ended
    /// before its first checkpoint is begun anew: there is nothing to go on with.
    ///
    /// # Errors
    /// [`CommandError::Usage`] when `out` already holds a run.
    pub fn create(out: Option<&Path>, config: &Config) -> Result<Self> {
        let path = match out {
            Some(out) if Self::open(out).checkpoint_path(Which::Latest).exists() => {
                let out = out.display();
                return usage(format!(
                    "{out} already holds a run; go on with --resume {out}, or name another --out"
                ));
            }
            Some(out) => out.to_path_buf(),
            // An id may have a namespace, a scheme and arguments: Mine/Corridor-v0, gym:CartPole-v1?gravity=3.
            None => {
                let plain = |c: char| c.is_alphanumeric() || ['-', '_', '.'].contains(&c);
                let env = config.env.replace(|c| !plain(c), "-");
                Self::first_free(&format!("{}-{env}-seed{}", config.algo, config.seed))?
            }
        };
        let run = Self { path };
        std::fs::create_dir_all(run.path.join("checkpoints")).map_err(|e| {
            use std::io::ErrorKind::{AlreadyExists, NotADirectory, PermissionDenied};
            let path = run.path.display();
            match e.kind() {
                AlreadyExists | NotADirectory | PermissionDenied => {
                    CommandError::Usage(format!("cannot make the folder {path}: {e}; name another --out"))
                }
                _ => io(format!("cannot make the folder {path}"))(e),
            }
        })?;
        run.write_config(config)?;
        Ok(run)
    }

    /// Makes and gives the first of `runs/NAME`, `runs/NAME-2`, … that nobody else has, also where several runs begin at once.
    fn first_free(name: &str) -> Result<PathBuf> {
        let failed = |e| io("cannot make a folder in runs")(e);
        std::fs::create_dir_all("runs").map_err(failed)?;
        for i in 1u32.. {
            let path =
                PathBuf::from("runs").join(if i == 1 { name.to_string() } else { format!("{name}-{i}") });
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(path),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed(e)),
            }
        }
        unreachable!("some number is free")
    }

    /// The folder of a run that there is already.
    pub fn open(path: &Path) -> Self {
        Self { path: path.to_path_buf() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes config.toml: everything resolved, enough to run it again.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_config(&self, config: &Config) -> Result<()> {
        self.write("config.toml", &to_toml(config))
    }

    /// Writes summary.json.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_summary(&self, summary: &Summary) -> Result<()> {
        let text = serde_json::to_string_pretty(summary).expect("a summary is plain data");
        self.write("summary.json", &(text + "\n"))
    }

    /// Whether the run has ended, with its summary written, after `env_steps`.
    pub fn has_ended_at(&self, env_steps: u64) -> bool {
        let summary = std::fs::read(self.path.join("summary.json")).unwrap_or_default();
        serde_json::from_slice::<Summary>(&summary).is_ok_and(|summary| summary.env_steps == env_steps)
    }

    /// Written aside, brought to the disk and renamed, so that nobody ever sees half a file.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path.join(name);
        checkpoint::write_to_disk(&path, |out| out.write_all(text.as_bytes()))
            .map_err(io(format!("cannot write {}", path.display())))
    }

    /// Removes the summary of an earlier end: the run goes on, and whoever reads it must not take it for finished.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn remove_summary(&self) -> Result<()> {
        match std::fs::remove_file(self.path.join("summary.json")) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io("cannot remove summary.json")(e)),
            _ => Ok(()),
        }
    }

    fn checkpoint_path(&self, which: Which) -> PathBuf {
        let name = match which {
            Which::Latest => "latest.safetensors",
            Which::Best => "best.safetensors",
        };
        self.path.join("checkpoints").join(name)
    }

    /// Saves all of `trainer`'s state; its threads are to be [held](Training::hold).
    ///
    /// # Errors
    /// [`CommandError::Failed`] when it cannot be written; the earlier checkpoint is then untouched.
    pub fn save(&self, which: Which, trainer: &mut dyn Training) -> Result<()> {
        let config = trainer.config();
        let meta = Meta { algo: config.algo.clone(), env: config.env.clone(), config: to_toml(config) };
        Ok(checkpoint::save(&self.checkpoint_path(which), &meta, |v| trainer.visit(v))?)
    }

    /// Opens and verifies a checkpoint of this run, which was made with `config`.
    ///
    /// # Errors
    /// [`CommandError::Usage`] when it is missing, damaged, or of another version, algorithm or environment.
    pub fn load(&self, which: Which, config: &Config) -> Result<Checkpoint> {
        if which == Which::Best && !self.checkpoint_path(which).exists() {
            let path = self.path.display();
            return usage(format!(
                "{path} has no best checkpoint: it was never evaluated; use --checkpoint latest"
            ));
        }
        let checkpoint = checkpoint::open(&self.checkpoint_path(which))?;
        checkpoint.expect(&config.algo, &config.env)?;
        Ok(checkpoint)
    }
}

impl From<CheckpointError> for CommandError {
    fn from(e: CheckpointError) -> Self {
        match e.is_users_mistake() {
            true => CommandError::Usage(e.to_string()),
            false => CommandError::Failed(e.to_string()),
        }
    }
}

/// summary.json.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// Algorithm.
    pub algo: String,
    /// Environment.
    pub env: String,
    /// Seed.
    pub seed: u64,
    /// Device that the learner computed on.
    pub device: String,
    /// Environment steps taken.
    pub env_steps: u64,
    /// Updates made.
    pub updates: u64,
    /// Training episodes ended.
    pub episodes: u64,
    /// Seconds of wall-clock time, without the final evaluation. Of the time before a resumption, what is up to its last line of metrics.
    pub wall_s: f64,
    /// env_steps / wall_s.
    pub env_steps_per_s: f64,
    /// updates / wall_s.
    pub updates_per_s: f64,
    /// The evaluation at the end.
    pub eval: Evaluation,
    /// Version of rl-train.
    pub version: String,
    /// Commit that it was built from.
    pub git: String,
}
