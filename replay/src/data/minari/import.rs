//! An episode's arrays, and the steps that they make.

use super::folder::Parts;
use super::hdf5::Arrays;
use super::metadata::Metadata;
use crate::data::rows::{Wanted, refused};
use crate::data::{Cast, Column, DataError, Imported, Stored};
use crate::{Dtype, Field, NStep, ReplayError, Schema, Step, Writer};

/// An episode of either flavour.
pub(super) enum Episode {
    Hdf5(Arrays),
    Arrow(Parts),
}

impl Episode {
    pub(super) fn file(&self) -> String {
        match self {
            Episode::Hdf5(arrays) => arrays.file.clone(),
            Episode::Arrow(parts) => parts.file(),
        }
    }

    pub(super) fn columns(&self) -> &[Column] {
        match self {
            Episode::Hdf5(arrays) => &arrays.columns,
            Episode::Arrow(parts) => parts.columns(),
        }
    }

    fn read(&self, wanted: &[Wanted]) -> Result<Vec<(u64, Vec<u8>)>, DataError> {
        match self {
            Episode::Hdf5(arrays) => arrays.read(wanted),
            Episode::Arrow(parts) => parts.read(wanted),
        }
    }
}

/// The columns that make up the observations, or the actions.
pub(super) struct Leaves {
    columns: Vec<Column>,
}

impl Leaves {
    /// The column `root`, or of the dictionary `root` the entries `keys`.
    pub(super) fn pick(
        episode: &Episode,
        root: &str,
        keys: &[String],
        metadata: &Metadata,
    ) -> Result<Self, DataError> {
        let file = episode.file();
        let inner = format!("{root}/");
        let there = episode.columns().iter().map(|column| column.name.as_str());
        let entries: Vec<&str> = there.clone().filter_map(|name| name.strip_prefix(&inner)).collect();
        let names = match (keys, entries.as_slice()) {
            ([], []) => vec![root.to_string()],
            ([], entries) => {
                let what = format!(
                    "its {root} are a dictionary of {entries:?}; pick what is wanted of it with `.{root}([…])`"
                );
                return Err(DataError::Unsupported { file, what });
            }
            (keys, _) => keys.iter().map(|key| format!("{inner}{key}")).collect(),
        };
        let mut columns = Vec::new();
        for name in names {
            if metadata.is_jpeg(&name) {
                let what = format!(
                    "'{name}' are images in JPEG, which is not read; record or convert the data set with `jpeg_encoding=False`"
                );
                return Err(DataError::Unsupported { file, what });
            }
            let Some(column) = episode.columns().iter().find(|column| column.name == name) else {
                let there = there.map(str::to_string).collect();
                return Err(DataError::NoColumn { file, name, there });
            };
            let mut column = column.clone();
            // Arrow's lists are flat; the space knows the shape.
            let elements = |shape: &[usize]| shape.iter().try_fold(1usize, |n, dim| n.checked_mul(*dim));
            let told = metadata.shape(&name).filter(|told| elements(told) == elements(&column.shape));
            if let (Episode::Arrow(_), Some(told)) = (episode, told) {
                column.shape = told;
            }
            columns.push(column);
        }
        Ok(Self { columns })
    }

    /// Type and shape of a field that takes the columns as they are, joined if they are several.
    pub(super) fn field(&self, file: &str) -> Result<(Dtype, Vec<usize>), DataError> {
        if let [column] = self.columns.as_slice() {
            return Ok((column.stored.dtype(), column.shape.clone()));
        }
        let elements = self.columns.iter().try_fold(0usize, |sum, column| {
            sum.checked_add(column.shape.iter().try_fold(1usize, |n, dim| n.checked_mul(*dim))?)
        });
        let stored: Vec<Stored> = self.columns.iter().map(|column| column.stored).collect();
        let candidates = stored.iter().map(|stored| stored.dtype()).chain([Dtype::I64, Dtype::F64]);
        let dtype = candidates
            .into_iter()
            .find(|dtype| stored.iter().all(|stored| Cast::Widen.allows(*stored, *dtype)));
        match (dtype, elements) {
            (Some(dtype), Some(elements)) => Ok((dtype, vec![elements])),
            _ => {
                let names: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
                let what = format!("{names:?} cannot be joined without loss; pick fewer");
                Err(DataError::Unsupported { file: file.to_string(), what })
            }
        }
    }

    /// The columns as the field wants them.
    fn wanted(&self, file: &str, root: &str, field: &Field, cast: Cast) -> Result<Vec<Wanted>, DataError> {
        let wanted: Vec<Wanted> = match self.columns.as_slice() {
            [column] => vec![Wanted::new(&column.name, field.dtype, &field.shape, cast)],
            columns => columns.iter().map(|c| Wanted::new(&c.name, field.dtype, &c.shape, cast)).collect(),
        };
        for (want, column) in wanted.iter().zip(&self.columns) {
            want.check(file, column)?;
        }
        let elements = self.columns.iter().try_fold(0usize, |sum, column| {
            sum.checked_add(column.shape.iter().try_fold(1usize, |n, dim| n.checked_mul(*dim))?)
        });
        if elements != Some(field.elements()) {
            return Err(DataError::Shape {
                file: file.to_string(),
                column: root.to_string(),
                expected: field.shape.clone(),
                found: elements.into_iter().collect(),
            });
        }
        Ok(wanted)
    }
}

/// The arrays of an episode, of the buffer's types.
pub(super) struct Steps {
    file: String,
    obs: Joined,
    action: Joined,
    rewards: Vec<u8>,
    terminations: Vec<u8>,
    truncations: Vec<u8>,
}

/// Columns whose rows are laid one behind the other.
struct Joined {
    parts: Vec<(usize, Vec<u8>)>,
}

impl Joined {
    fn row(&self, row: usize, into: &mut Vec<u8>) {
        into.clear();
        for (row_bytes, bytes) in &self.parts {
            into.extend_from_slice(&bytes[row * row_bytes..][..*row_bytes]);
        }
    }
}

/// Reads an episode for rows of `schema`.
pub(super) fn episode(
    episode: &Episode,
    obs: &Leaves,
    action: &Leaves,
    schema: &Schema,
    cast: Cast,
) -> Result<Steps, DataError> {
    let file = episode.file();
    let field = |name: &str| {
        schema.position(name).map(|position| &schema.fields()[position]).ok_or_else(|| {
            let source = ReplayError::NotTransition { why: format!("'{name}' is missing") };
            DataError::Replay { file: file.clone(), source }
        })
    };
    let obs = obs.wanted(&file, "observations", field("obs")?, cast)?;
    let action = action.wanted(&file, "actions", field("action")?, cast)?;
    let scalar = |name, dtype| Wanted::new(name, dtype, &[], Cast::Round);
    let wanted: Vec<Wanted> = obs
        .iter()
        .chain(&action)
        .cloned()
        .chain([
            scalar("rewards", Dtype::F32),
            scalar("terminations", Dtype::Bool),
            scalar("truncations", Dtype::Bool),
        ])
        .collect();
    let mut arrays = episode.read(&wanted)?;
    let steps = arrays[obs.len() + action.len()].0;
    for (position, ((rows, _), want)) in arrays.iter().zip(&wanted).enumerate() {
        let expected = if position < obs.len() { steps + 1 } else { steps };
        if *rows != expected {
            let column = want.name.clone();
            return Err(DataError::Rows { file, column, expected, found: *rows });
        }
    }
    let mut rest = arrays.split_off(obs.len() + action.len()).into_iter().map(|(_, bytes)| bytes);
    let mut next = || rest.next().unwrap_or_default();
    let (rewards, terminations, truncations) = (next(), next(), next());
    let mut parts = arrays.into_iter().zip(&wanted).map(|((_, bytes), want)| (want.row_bytes(), bytes));
    let obs = Joined { parts: parts.by_ref().take(obs.len()).collect() };
    let action = Joined { parts: parts.collect() };
    Ok(Steps { file, obs, action, rewards, terminations, truncations })
}

impl Steps {
    pub(super) fn push(
        &self,
        n_step: &mut NStep,
        writer: &mut Writer,
        imported: &mut Imported,
    ) -> Result<(), DataError> {
        let steps = self.terminations.len();
        let (mut obs, mut action, mut next_obs) = (Vec::new(), Vec::new(), Vec::new());
        let rewards = self.rewards.as_chunks::<4>().0;
        for (step, reward) in rewards.iter().enumerate() {
            self.obs.row(step, &mut obs);
            self.obs.row(step + 1, &mut next_obs);
            self.action.row(step, &mut action);
            let terminated = self.terminations[step] != 0;
            let is_last = step + 1 == steps;
            let truncated = self.truncations[step] != 0 || (is_last && !terminated);
            let rows = n_step
                .push(
                    Step {
                        obs: &obs,
                        action: &action,
                        reward: f32::from_ne_bytes(*reward),
                        next_obs: &next_obs,
                        terminated,
                        truncated,
                    },
                    writer,
                )
                .map_err(|error| self.refused(step, error))?;
            imported.rows += rows as u64;
            imported.steps += 1;
            imported.episodes += u64::from(terminated || truncated);
        }
        Ok(())
    }

    /// What the buffer says, in the file's names and rows.
    fn refused(&self, step: usize, error: ReplayError) -> DataError {
        match refused(self.file.clone(), step as u64, error) {
            DataError::NotFinite { file, row, column, element } => {
                let (column, row) = match column.as_str() {
                    "obs" => ("observations".to_string(), row),
                    "next_obs" => ("observations".to_string(), row + 1),
                    "action" => ("actions".to_string(), row),
                    "reward" => ("rewards".to_string(), row),
                    _ => (column, row),
                };
                DataError::NotFinite { file, column, row, element }
            }
            error => error,
        }
    }
}
