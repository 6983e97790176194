//! A snapshot and the ones that it adds to, as one source of state.

use super::disk;
use super::error::SnapshotError;
use super::open::Opened;
use super::read::Loader;
use crate::snapshot::{Source, Take, visit_rows};
use rl_minibatch::{Schema, StateError, StateVisitor};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// No series is as long as this; a loop would be.
const MAX_FILES: usize = 10_000;

/// A file to add to, and what it is known by.
struct Older {
    path: PathBuf,
    id: u64,
}

/// The newest file, which has everything but the older rows, and those it adds to, oldest first.
pub(super) struct Chain {
    older: Vec<Older>,
    newest: Loader,
    failure: Option<SnapshotError>,
}

impl Chain {
    /// Finds every file that `path` stands on, and makes sure that they fit together.
    pub(super) fn open(path: &Path) -> Result<Self, SnapshotError> {
        let newest = Opened::open(path)?;
        let live = newest.meta.live.clone();
        let mut older: Vec<Older> = Vec::new();
        let mut above = (path.to_path_buf(), newest.meta.clone());
        while let Some(base) = above.1.base.take() {
            let base_path = disk::folder(path).join(&base.name);
            let refuse = |why: &str| {
                let (path, base) = (above.0.clone(), base_path.clone());
                SnapshotError::Base { path, base, why: why.to_string() }
            };
            if older.len() == MAX_FILES {
                return Err(refuse("and so on without an end"));
            }
            let opened = Opened::open(&base_path)
                .map_err(|error| refuse(&format!("which cannot be used: {error}; put that file back")))?;
            if opened.footer.id != base.id {
                return Err(refuse("and that is not the file it was; put the right one back"));
            }
            if opened.meta.live.end != above.1.rows.start {
                return Err(refuse("whose rows do not end where its own begin"));
            }
            older.push(Older { path: base_path, id: base.id });
            above = (older[older.len() - 1].path.clone(), opened.meta);
        }
        if above.1.rows.start > live.start {
            let why =
                format!("it says rows {live:?}, and the first of its files begins at {:?}", above.1.rows);
            return Err(newest.damaged(super::SnapshotPart::Header, &why));
        }
        older.reverse();
        Ok(Self { older, newest: Loader::new(newest), failure: None })
    }

    /// The newest file.
    pub(super) fn newest(&self) -> &Opened {
        self.newest.opened()
    }

    /// What failed; `error` is what the buffer knows of it.
    pub(super) fn failure(&mut self, error: StateError) -> SnapshotError {
        self.failure.take().unwrap_or_else(|| self.newest.failure(error))
    }

    /// Loads the rows of an older file, all of which is read and checked.
    fn older_rows(older: &Older, schema: &Schema, take: &mut Take<'_>) -> Result<(), SnapshotError> {
        let opened = Opened::open(&older.path)?;
        if opened.footer.id != older.id {
            return Err(opened.damaged(super::SnapshotPart::Header, "it was replaced while it was loaded"));
        }
        let (rows, block_bytes) = (opened.meta.rows.clone(), opened.meta.block_bytes as usize);
        let mut loader = Loader::new(opened);
        visit_rows(&mut loader, schema, rows, block_bytes, |keys, batch| take(keys, batch))
            .and_then(|()| loader.finish())
            .map_err(|error| loader.failure(error))
    }
}

impl Source for Chain {
    fn visitor(&mut self) -> &mut dyn StateVisitor {
        &mut self.newest
    }

    fn rows(&mut self, schema: &Schema, live: &Range<u64>, take: &mut Take<'_>) -> Result<(), StateError> {
        let meta = self.newest.opened().meta.clone();
        if *live != meta.live {
            let why = format!("the state says rows {live:?}, and the file's header {:?}", meta.live);
            return Err(StateError::Invalid { path: "inserted".into(), why });
        }
        for older in &self.older {
            Self::older_rows(older, schema, take).map_err(|error| {
                let why = error.to_string();
                self.failure = Some(error);
                StateError::Invalid { path: "rows".into(), why }
            })?;
        }
        visit_rows(&mut self.newest, schema, meta.rows, meta.block_bytes as usize, |keys, batch| {
            take(keys, batch);
        })
    }

    fn finish(&mut self) -> Result<Option<u64>, StateError> {
        self.newest.finish()?;
        Ok(Some(self.newest().footer.id))
    }
}
