//! The Arrow flavour: a folder of Arrow files for each episode.

use crate::data::arrow::Arrow;
use crate::data::rows::{Source, Wanted};
use crate::data::{Column, DataError};
use std::path::PathBuf;

#[derive(Debug)]
pub(super) struct Folder {
    data: PathBuf,
}

impl Folder {
    pub(super) fn new(data: PathBuf) -> Self {
        Self { data }
    }

    /// The files of an episode, one unless it is very long.
    pub(super) fn episode(&self, number: u64) -> Result<Parts, DataError> {
        let path = self.data.join(number.to_string());
        let refused = |source| DataError::Io { file: path.display().to_string(), source };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(refused)? {
            let file = entry.map_err(refused)?.path();
            if file.extension().is_some_and(|extension| extension == "arrow") {
                files.push(file);
            }
        }
        // part-2 comes before part-10.
        files.sort_by_key(|file| {
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let number = name.rsplit('-').next().and_then(|number| number.parse::<u64>().ok());
            (number, name)
        });
        let files = files.into_iter().map(Arrow::open).collect::<Result<Vec<_>, _>>()?;
        if files.is_empty() {
            let why = "there is no .arrow file in it".to_string();
            return Err(DataError::Damaged { file: path.display().to_string(), why });
        }
        Ok(Parts { files })
    }
}

/// An episode.
pub(super) struct Parts {
    files: Vec<Arrow>,
}

impl Parts {
    pub(super) fn file(&self) -> String {
        self.files[0].file()
    }

    pub(super) fn columns(&self) -> &[Column] {
        self.files[0].columns()
    }

    /// The whole of each column, and its rows. All but the observations end with a row that only fills up.
    pub(super) fn read(&self, wanted: &[Wanted]) -> Result<Vec<(u64, Vec<u8>)>, DataError> {
        let mut whole = vec![(0, Vec::new()); wanted.len()];
        for file in &self.files {
            file.blocks(wanted, &mut |rows, columns| {
                for ((count, bytes), column) in whole.iter_mut().zip(columns) {
                    *count += rows as u64;
                    bytes.extend_from_slice(column);
                }
                Ok(())
            })?;
        }
        for ((count, bytes), want) in whole.iter_mut().zip(wanted) {
            if !want.name.starts_with("observations") {
                *count = count.saturating_sub(1);
                bytes.truncate(*count as usize * want.row_bytes());
            }
        }
        Ok(whole)
    }
}
