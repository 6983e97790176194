//! Data sets of Minari, Farama's library of offline reinforcement learning, in its HDF5 and its Arrow flavour.
//!
//! A data set is a folder with `data/metadata.json` beside `data/main_data.hdf5`, or beside a folder `data/0`,
//! `data/1`, … of Arrow files for each episode. An episode of T steps has T + 1 observations, so what followed each
//! step is known, that of a truncated episode's last one too.
//!
//! ```no_run
//! use rl_replay::{NStep, Replay, data::{Cast, minari::Minari}};
//!
//! // minari download D4RL/pen/human-v2
//! let data = Minari::local("D4RL/pen/human-v2")?;
//! let schema = data.schema(Cast::Round)?;                    // observations become f32
//! let replay = Replay::builder(schema.clone()).capacity(data.total_steps()?).build()?;
//! data.import(&mut NStep::new(1, 0.99, &schema)?, &mut replay.writer(), Cast::Round)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Dictionaries.** Where the observations (or the actions) are a dictionary or a tuple, say which of its entries to
//! take:
//! [`Minari::observations`], [`Minari::actions`]. Several are laid one behind the other, flattened.
//!
//! **Images** are stored as JPEG unless the data set was recorded with `jpeg_encoding=False`; JPEG is refused.

mod folder;
mod hdf5;
mod import;
mod metadata;

use super::steps::{self, Imported};
use super::{Cast, Column, DataError};
use crate::{Dtype, NStep, Schema, Writer};
use import::{Episode, Leaves};
use metadata::Metadata;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A data set whose metadata has been read.
#[derive(Debug)]
pub struct Minari {
    data: PathBuf,
    metadata: Metadata,
    storage: Storage,
    episodes: Range<u64>,
    observations: Vec<String>,
    actions: Vec<String>,
}

#[derive(Debug)]
enum Storage {
    Hdf5(hdf5::Main),
    Arrow(folder::Folder),
}

impl Minari {
    /// The data set in the folder `path`, which is the one that holds `data`, or `data` itself.
    ///
    /// # Errors
    /// [`DataError::Io`], [`DataError::Damaged`], and [`DataError::Unsupported`] for another storage format, or JPEG images.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DataError> {
        let path = path.as_ref();
        let inner = path.join("data");
        let data = if inner.is_dir() { inner } else { path.to_path_buf() };
        let mut metadata = Metadata::read(&data)?;
        let storage = match metadata.format.as_str() {
            "hdf5" => Storage::Hdf5(hdf5::Main::open(data.join("main_data.hdf5"))?),
            "arrow" => Storage::Arrow(folder::Folder::new(data.clone())),
            other => {
                let file = data.display().to_string();
                let what = format!(
                    "it is stored as '{other}', and 'hdf5' and 'arrow' are read; in Python make it again with `data_format=\"arrow\"`"
                );
                return Err(DataError::Unsupported { file, what });
            }
        };
        if let (None, Storage::Hdf5(main)) = (metadata.total_episodes, &storage) {
            metadata.total_episodes = Some(main.count());
        }
        let Some(total) = metadata.total_episodes else {
            let why = "metadata.json has no total_episodes".to_string();
            return Err(DataError::Damaged { file: data.display().to_string(), why });
        };
        let (observations, actions) = (Vec::new(), Vec::new());
        Ok(Self { data, metadata, storage, episodes: 0..total, observations, actions })
    }

    /// The data set `id`, such as `D4RL/door/human-v2`, from where Minari keeps those that it has downloaded: the
    /// folder in the environment variable `MINARI_DATASETS_PATH`, or else `~/.minari/datasets`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn local(id: &str) -> Result<Self, DataError> {
        let root = std::env::var_os("MINARI_DATASETS_PATH").map(PathBuf::from);
        let root = root.or_else(|| std::env::home_dir().map(|home| home.join(".minari/datasets")));
        Self::open(root.unwrap_or_default().join(id))
    }

    /// Takes these entries of a dictionary of observations, in this order; more than one are flattened and joined. An
    /// entry within another has the names of both, as in `camera/left`. Those of a tuple are called as they are
    /// stored, `_index_0` in HDF5 and `0` in Arrow. Which there are, [`columns`](Self::columns) tells.
    pub fn observations<S: Into<String>>(mut self, keys: impl IntoIterator<Item = S>) -> Self {
        self.observations = keys.into_iter().map(Into::into).collect();
        self
    }

    /// As [`observations`](Self::observations), for actions.
    pub fn actions<S: Into<String>>(mut self, keys: impl IntoIterator<Item = S>) -> Self {
        self.actions = keys.into_iter().map(Into::into).collect();
        self
    }

    /// Takes these episodes only, counted from 0, for instance to keep some for validation. What lies beyond the last
    /// is ignored.
    pub fn episodes(mut self, episodes: Range<u64>) -> Self {
        let total = self.total_episodes();
        self.episodes = episodes.start.min(total)..episodes.end.min(total);
        self
    }

    /// How many episodes there are.
    pub fn total_episodes(&self) -> u64 {
        self.metadata.total_episodes.unwrap_or(0)
    }

    /// How many steps there are in all episodes, as the metadata tell.
    ///
    /// # Errors
    /// [`DataError::Damaged`] when they do not.
    pub fn total_steps(&self) -> Result<usize, DataError> {
        self.metadata.total_steps.and_then(|steps| usize::try_from(steps).ok()).ok_or_else(|| {
            let why = "metadata.json has no total_steps".to_string();
            DataError::Damaged { file: self.data.display().to_string(), why }
        })
    }

    /// What the first of the episodes holds: `observations`, `actions` and `rewards` among others, or
    /// `observations/…` for the entries of a dictionary.
    ///
    /// # Errors
    /// [`DataError::Io`] and [`DataError::Damaged`].
    pub fn columns(&self) -> Result<Vec<Column>, DataError> {
        Ok(self.first()?.columns().to_vec())
    }

    /// The schema of transitions that these data fill. With [`Cast::Widen`] types are the stored ones; with
    /// [`Cast::Round`] f64 becomes f32, as learners want it. Entries that are joined become one list, of the type
    /// that all of them widen to.
    ///
    /// # Errors
    /// [`DataError::Unsupported`] when the observations or actions are a dictionary and nothing was picked, or have a type that is
    /// not numbers; [`DataError::NoColumn`] for a key that is not there.
    pub fn schema(&self, cast: Cast) -> Result<Schema, DataError> {
        let first = self.first()?;
        let of = |root: &str, keys: &[String]| {
            let leaves = Leaves::pick(&first, root, keys, &self.metadata)?;
            let (mut dtype, shape) = leaves.field(&first.file())?;
            if cast == Cast::Round && dtype == Dtype::F64 {
                dtype = Dtype::F32;
            }
            Ok::<_, DataError>((dtype, shape))
        };
        let (obs, action) = (of("observations", &self.observations)?, of("actions", &self.actions)?);
        Schema::transition((obs.0, &obs.1), (action.0, &action.1))
            .map_err(|why| DataError::Unsupported { file: first.file(), what: why.to_string() })
    }

    /// Inserts the steps of the episodes, folded by `n_step`, which must be between episodes. An episode that ends
    /// without saying how counts as truncated. The files are read twice; see the [module](crate::data). Memory: an
    /// episode.
    ///
    /// Rewards are rounded to f32, which a buffer's rewards are. Observations and actions become what the writer's
    /// schema says, as `cast` allows.
    ///
    /// # Errors
    /// A [`DataError`] that names the file, with the episode, and the column; the buffer is then as it was, and
    /// `n_step` without open steps.
    pub fn import(&self, n_step: &mut NStep, writer: &mut Writer, cast: Cast) -> Result<Imported, DataError> {
        let file = self.data.display().to_string();
        steps::rehearsed(&file, n_step, writer, |n_step, writer| {
            let mut imported = Imported::default();
            for number in self.episodes.clone() {
                let episode = self.episode(number)?;
                let schema = writer.schema().clone();
                let obs = Leaves::pick(&episode, "observations", &self.observations, &self.metadata)?;
                let action = Leaves::pick(&episode, "actions", &self.actions, &self.metadata)?;
                import::episode(&episode, &obs, &action, &schema, cast)?.push(
                    n_step,
                    writer,
                    &mut imported,
                )?;
            }
            Ok(imported)
        })
    }

    fn first(&self) -> Result<Episode, DataError> {
        if self.episodes.is_empty() {
            let what = "no episode is in the range that was asked for".to_string();
            return Err(DataError::Unsupported { file: self.data.display().to_string(), what });
        }
        self.episode(self.episodes.start)
    }

    fn episode(&self, number: u64) -> Result<Episode, DataError> {
        match &self.storage {
            Storage::Hdf5(main) => main.episode(number).map(Episode::Hdf5),
            Storage::Arrow(folder) => folder.episode(number).map(Episode::Arrow),
        }
    }
}
