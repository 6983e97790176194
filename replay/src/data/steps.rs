//! Steps of episodes, folded into rows by [`NStep`].

use super::rows::{Source, Wanted, refused};
use super::{Cast, Column, DataError};
use crate::{Dtype, NStep, Replay, ReplayError, Step, Writer};

/// What an import of steps did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// Steps read and used.
    pub steps: u64,
    /// Episodes that they belong to.
    pub episodes: u64,
    /// Rows that they made, one a step.
    pub rows: u64,
    /// Steps left out, because the observation that followed is not in the file.
    pub dropped: u64,
}

/// The columns in which a file keeps steps, one after the other, episode after episode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepNames {
    /// Observations that were acted on.
    pub obs: String,
    /// Actions.
    pub action: String,
    /// Rewards that followed; they are rounded to f32, which a buffer's rewards are.
    pub reward: String,
    /// Observations that followed. Without this column the next row's observation is taken, and of an episode that
    /// was cut short the last step is left out, since what followed it is not there.
    pub next_obs: Option<String>,
    /// Whether the episode ended in a terminal state.
    pub terminated: String,
    /// Whether it was cut short. Without this column, but with `next_obs`, an episode counts as cut where the next
    /// row's observation is not the one that followed.
    pub truncated: Option<String>,
}

impl StepNames {
    /// The names of D4RL and of what follows it: `observations`, `actions`, `rewards`, `terminals`, and of
    /// `next_observations` and `timeouts` those that are among `columns`. (Fu et al. 2020, *D4RL: Datasets for Deep
    /// Data-Driven Reinforcement Learning*.)
    pub fn d4rl(columns: &[Column]) -> Self {
        let there = |name: &str| columns.iter().any(|column| column.name == name).then(|| name.to_string());
        Self {
            obs: "observations".to_string(),
            action: "actions".to_string(),
            reward: "rewards".to_string(),
            next_obs: there("next_observations"),
            terminated: "terminals".to_string(),
            truncated: there("timeouts"),
        }
    }
}

/// Runs `pass` twice: with a buffer that is thrown away, then with the caller's.
pub(super) fn rehearsed(
    file: &str,
    n_step: &mut NStep,
    writer: &mut Writer,
    mut pass: impl FnMut(&mut NStep, &mut Writer) -> Result<Imported, DataError>,
) -> Result<Imported, DataError> {
    if n_step.open_steps() != 0 {
        return Err(DataError::OpenSteps { steps: n_step.open_steps() });
    }
    let scratch = Replay::builder(writer.schema().clone())
        .store_as(writer.replay())
        .capacity(1)
        .reserve(1)
        .build()
        .map_err(|source| DataError::Replay { file: file.to_string(), source })?;
    pass(&mut n_step.clone(), &mut scratch.writer())?;
    pass(n_step, writer).inspect_err(|_| n_step.clear())
}

/// Imports the steps of `source`.
pub(super) fn import(
    source: &dyn Source,
    names: &StepNames,
    n_step: &mut NStep,
    writer: &mut Writer,
    cast: Cast,
) -> Result<Imported, DataError> {
    let file = source.file();
    let schema = writer.schema().clone();
    // NStep itself refuses a schema that has not these.
    let [obs, action] = match (schema.position("obs"), schema.position("action")) {
        (Some(obs), Some(action)) => [obs, action].map(|position| &schema.fields()[position]),
        _ => {
            let source = ReplayError::NotTransition { why: "'obs' or 'action' is missing".to_string() };
            return Err(DataError::Replay { file, source });
        }
    };
    let mut wanted = vec![
        Wanted::new(&names.obs, obs.dtype, &obs.shape, cast),
        Wanted::new(&names.action, action.dtype, &action.shape, cast),
        Wanted::new(&names.reward, Dtype::F32, &[], Cast::Round),
        Wanted::new(&names.terminated, Dtype::Bool, &[], Cast::Round),
    ];
    let truncated = names.truncated.as_ref().map(|name| {
        wanted.push(Wanted::new(name, Dtype::Bool, &[], Cast::Round));
        wanted.len() - 1
    });
    let next_obs = names.next_obs.as_ref().map(|name| {
        wanted.push(Wanted::new(name, obs.dtype, &obs.shape, cast));
        wanted.len() - 1
    });
    rehearsed(&file, n_step, writer, |n_step, writer| {
        let mut folder = Folder::new(&file, n_step, writer, names, truncated.is_some());
        let (mut row, mut number) = (Row::default(), 0u64);
        source.blocks(&wanted, &mut |rows, columns| {
            for at in 0..rows {
                let cell = |position: usize| {
                    let bytes = wanted[position].row_bytes();
                    &columns[position][at * bytes..][..bytes]
                };
                row.number = number;
                row.obs.clear();
                row.obs.extend_from_slice(cell(0));
                row.action.clear();
                row.action.extend_from_slice(cell(1));
                row.reward = f32::from_ne_bytes(*columns[2].as_chunks().0.get(at).unwrap_or(&[0; 4]));
                row.terminated = cell(3)[0] != 0;
                row.truncated = truncated.is_some_and(|position| cell(position)[0] != 0);
                row.next_obs.clear();
                if let Some(position) = next_obs {
                    row.next_obs.extend_from_slice(cell(position));
                }
                number += 1;
                folder.take(&mut row, next_obs.is_some())?;
            }
            Ok(())
        })?;
        folder.finish(next_obs.is_some())
    })
}

/// One step of a file.
#[derive(Default)]
struct Row {
    number: u64,
    obs: Vec<u8>,
    action: Vec<u8>,
    reward: f32,
    next_obs: Vec<u8>,
    terminated: bool,
    truncated: bool,
}

/// Holds steps back until it is known what followed them and whether their episode goes on.
struct Folder<'a> {
    file: &'a str,
    n_step: &'a mut NStep,
    writer: &'a mut Writer,
    names: &'a StepNames,
    /// Whether the file says where episodes are cut.
    cuts_are_told: bool,
    imported: Imported,
    /// Complete, but for whether the step after it is left out, so that its episode ends with it.
    ready: Option<Row>,
    /// The newest step.
    last: Option<Row>,
    /// Used up, its memory to be used again.
    spare: Row,
}

impl<'a> Folder<'a> {
    fn new(
        file: &'a str,
        n_step: &'a mut NStep,
        writer: &'a mut Writer,
        names: &'a StepNames,
        cuts_are_told: bool,
    ) -> Self {
        let (imported, spare) = (Imported::default(), Row::default());
        Self { file, n_step, writer, names, cuts_are_told, imported, ready: None, last: None, spare }
    }

    /// Takes the next step out of `row`, and leaves memory in it.
    fn take(&mut self, row: &mut Row, has_next: bool) -> Result<(), DataError> {
        if let Some(mut last) = self.last.take() {
            if has_next {
                last.truncated |= !self.cuts_are_told && last.next_obs != row.obs;
                self.push(last)?;
            } else {
                last.next_obs.clear();
                last.next_obs.extend_from_slice(&row.obs);
                self.settle(last, false)?;
            }
        }
        self.last = Some(std::mem::replace(row, std::mem::take(&mut self.spare)));
        Ok(())
    }

    /// The data is over, and with it the last episode.
    fn finish(mut self, has_next: bool) -> Result<Imported, DataError> {
        if let Some(mut last) = self.last.take() {
            if has_next {
                last.truncated |= !last.terminated;
                self.push(last)?;
            } else {
                last.next_obs.clone_from(&last.obs);
                self.settle(last, true)?;
            }
        }
        Ok(self.imported)
    }

    /// Decides about `step`, after which comes the next row or the end, where files do not say what followed a step.
    fn settle(&mut self, mut step: Row, is_the_end: bool) -> Result<(), DataError> {
        let dropped = !step.terminated && (step.truncated || is_the_end);
        if let Some(mut ready) = self.ready.take() {
            ready.truncated |= dropped;
            self.push(ready)?;
        }
        if dropped {
            self.imported.dropped += 1;
            self.spare = step;
        } else if step.terminated {
            // Its discount is 0, so whatever follows counts for nothing. The next row is of another episode.
            step.next_obs.clone_from(&step.obs);
            self.push(step)?;
        } else {
            self.ready = Some(step);
        }
        Ok(())
    }

    fn push(&mut self, row: Row) -> Result<(), DataError> {
        let step = Step {
            obs: &row.obs,
            action: &row.action,
            reward: row.reward,
            next_obs: &row.next_obs,
            terminated: row.terminated,
            truncated: row.truncated,
        };
        let rows = self.n_step.push(step, self.writer).map_err(|error| {
            let error = refused(self.file.to_string(), row.number, error);
            renamed(error, self.names)
        })?;
        self.imported.rows += rows as u64;
        self.imported.steps += 1;
        self.imported.episodes += u64::from(row.terminated || row.truncated);
        self.spare = row;
        Ok(())
    }
}

/// An error in the file's names instead of the buffer's.
fn renamed(error: DataError, names: &StepNames) -> DataError {
    match error {
        DataError::NotFinite { file, column, row, element } => {
            let column = match column.as_str() {
                "obs" => names.obs.clone(),
                "action" => names.action.clone(),
                "reward" => names.reward.clone(),
                "next_obs" => names.next_obs.clone().unwrap_or_else(|| names.obs.clone()),
                _ => column,
            };
            DataError::NotFinite { file, column, row, element }
        }
        error => error,
    }
}
