//! A snapshot and the ones that it adds to, as one source of state.

use super::disk;
use super::error::SnapshotError;
use super::open::Opened;
use super::read::Loader;
use crate::snapshot::{RowSet, Source, Take, visit_rows};
use rl_minibatch::{Batch, Schema, StateError, StateVisitor, scope};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// No series is as long as this; a loop would be.
const MAX_FILES: usize = 10_000;

/// A file to add to, and what it is known by.
struct Older {
    path: PathBuf,
    id: u64,
}

/// What the rows of a buffer are, and its frames if it has some.
#[derive(Clone, Copy)]
pub(super) struct Schemas<'a> {
    pub(super) rows: &'a Schema,
    pub(super) frames: Option<&'a Schema>,
}

/// The newest file, which has everything but the older rows and frames, and those it adds to, oldest first.
pub(super) struct Chain<'a> {
    schemas: Schemas<'a>,
    older: Vec<Older>,
    /// Rows of older files, which are read when their frames are wanted, so that each file is read once.
    held: Vec<(Range<u64>, Batch)>,
    newest: Loader,
    failure: Option<SnapshotError>,
}

impl<'a> Chain<'a> {
    /// Finds every file that `path` stands on, and makes sure that they fit together.
    pub(super) fn open(path: &Path, schemas: Schemas<'a>) -> Result<Self, SnapshotError> {
        let newest = Opened::open(path)?;
        let [found, expected] =
            [newest.meta.frames.is_some(), schemas.frames.is_some()].map(|frames| match frames {
                true => "FrameReplay",
                false => "Replay",
            });
        if found != expected {
            return Err(SnapshotError::Kind { path: path.to_path_buf(), found, expected });
        }
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
            if opened.meta.frames.is_some() != above.1.frames.is_some() {
                return Err(refuse("which is of another kind of buffer"));
            }
            let pairs = opened.meta.sections().zip(above.1.sections()).zip(newest.meta.sections());
            for ((below, above), newest) in pairs {
                // Frames may be live for longer than rows, or the other way round: those that are all there already
                // need none of what is below.
                let complete = above.here.start <= newest.live.start && below.live.end < above.here.start;
                if below.live.end != above.here.start && !complete {
                    return Err(refuse("whose rows do not end where its own begin"));
                }
            }
            older.push(Older { path: base_path, id: base.id });
            above = (older[older.len() - 1].path.clone(), opened.meta);
        }
        for (oldest, newest_section) in above.1.sections().zip(newest.meta.sections()) {
            let (live, here) = (&newest_section.live, &oldest.here);
            if here.start > live.start {
                let why = format!("it says rows {live:?}, and the first of its files begins at {here:?}");
                return Err(newest.damaged(super::SnapshotPart::Header, &why));
            }
        }
        older.reverse();
        Ok(Self { schemas, older, held: Vec::new(), newest: Loader::new(newest), failure: None })
    }

    /// The newest file.
    pub(super) fn newest(&self) -> &Opened {
        self.newest.opened()
    }

    /// What failed; `error` is what the buffer knows of it.
    pub(super) fn failure(&mut self, error: StateError) -> SnapshotError {
        self.failure.take().unwrap_or_else(|| self.newest.failure(error))
    }

    /// Loads the rows of an older file, or its frames and holds its rows. All of it is read and checked.
    fn older_rows(
        schemas: Schemas<'_>,
        older: &Older,
        live: &Range<u64>,
        held: &mut Vec<(Range<u64>, Batch)>,
        take: &mut Take<'_>,
    ) -> Result<(), SnapshotError> {
        let opened = Opened::open(&older.path)?;
        if opened.footer.id != older.id {
            return Err(opened.damaged(super::SnapshotPart::Header, "it was replaced while it was loaded"));
        }
        let (meta, block_bytes) = (opened.meta.clone(), opened.meta.block_bytes as usize);
        let rows = meta.rows.here;
        let mut loader = Loader::new(opened);
        let read = match schemas.frames.zip(meta.frames) {
            None => visit_rows(&mut loader, schemas.rows, rows, block_bytes, |keys, batch| take(keys, batch)),
            Some((schema, frames)) => scope(&mut loader, RowSet::Frames.scope(), |visitor| {
                visit_rows(visitor, schema, frames.here, block_bytes, |keys, batch| take(keys, batch))
            })
            .and_then(|()| {
                scope(&mut loader, RowSet::Rows.scope(), |visitor| {
                    visit_rows(visitor, schemas.rows, rows, block_bytes, |keys, batch| {
                        if keys.end > live.start {
                            held.push((keys, batch.clone()));
                        }
                    })
                })
            }),
        };
        read.and_then(|()| loader.finish()).map_err(|error| loader.failure(error))
    }
}

impl Source for Chain<'_> {
    fn visitor(&mut self) -> &mut dyn StateVisitor {
        &mut self.newest
    }

    fn rows(
        &mut self,
        set: RowSet,
        schema: &Schema,
        live: &Range<u64>,
        take: &mut Take<'_>,
    ) -> Result<(), StateError> {
        let meta = self.newest.opened().meta.clone();
        let section = match set {
            RowSet::Rows => meta.rows.clone(),
            RowSet::Frames => meta.frames.clone().expect("the kind of the file is that of the buffer"),
        };
        if *live != section.live {
            let why = format!("the state says rows {live:?}, and the file's header {:?}", section.live);
            return Err(StateError::Invalid { path: "inserted".into(), why });
        }
        if set == RowSet::Rows && meta.frames.is_some() {
            for (keys, batch) in std::mem::take(&mut self.held) {
                take(keys, &batch);
            }
        } else {
            for older in &self.older {
                Self::older_rows(self.schemas, older, &meta.rows.live, &mut self.held, take).map_err(
                    |error| {
                        let why = error.to_string();
                        self.failure = Some(error);
                        StateError::Invalid { path: "rows".into(), why }
                    },
                )?;
            }
        }
        visit_rows(&mut self.newest, schema, section.here, meta.block_bytes as usize, |keys, batch| {
            take(keys, batch);
        })
    }

    fn finish(&mut self) -> Result<Option<u64>, StateError> {
        self.newest.finish()?;
        Ok(Some(self.newest().footer.id))
    }
}
