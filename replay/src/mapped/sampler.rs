//! The sampler's state, in a file beside the buffer's.

use super::error::BufferFileError;
use crate::buffer::Keeper;
use crate::file::{load_state, save_state};
use crate::limiter::Limiter;
use crate::recording::Recording;
use crate::snapshot::load_sampled;
use rl_minibatch::{StateError, StateVisitor, scalar, scope};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Everything beside the rows, as it was when the rows `live` were.
pub(super) struct SamplerState {
    live: Range<u64>,
    stale: u64,
    sampler: Recording,
    sampled: Option<u64>,
}

impl SamplerState {
    pub(super) fn of(
        keeper: &mut Keeper,
        stale: u64,
        limiter: Option<&Limiter>,
        live: Range<u64>,
    ) -> Result<Self, StateError> {
        let mut sampler = Recording::default();
        keeper.sampler.visit(live.clone(), &mut sampler)?;
        Ok(Self { live, stale, sampler, sampled: limiter.map(Limiter::sampled) })
    }

    /// Saves it beside the buffer file `path`, whose rows have this mark.
    pub(super) fn save(self, path: &Path, mark: [u64; 2]) -> Result<(), BufferFileError> {
        let Self { live, stale, sampler, sampled } = self;
        let save = |visitor: &mut dyn StateVisitor| {
            let mut head = Head { mark, live, stale };
            head.visit(visitor)?;
            scope(visitor, "sampler", |visitor| sampler.show(visitor))?;
            match sampled {
                Some(mut sampled) => scope(visitor, "limiter", |v| scalar(v, "sampled", &mut sampled)),
                None => Ok(()),
            }
        };
        save_state(&path_beside(path), save)
            .map_err(|source| BufferFileError::Sampler { source: source.into() })
    }
}

/// Gives the sampler back what was saved beside `path`, if it is there and belongs to the rows that there are. Returns the
/// stale priorities that had come until then.
pub(crate) fn load(
    path: &Path,
    mark: [u64; 2],
    live: &Range<u64>,
    keeper: &mut Keeper,
    limiter: Option<&Limiter>,
) -> Result<u64, BufferFileError> {
    let path = path_beside(path);
    if !path.exists() {
        return Ok(0);
    }
    let load = |visitor: &mut dyn StateVisitor| {
        let mut head = Head { mark: [0; 2], live: 0..0, stale: 0 };
        head.visit(visitor)?;
        // Rows that came later get the priority of new ones. What knows of rows that are not there belongs to others.
        if head.mark != mark || head.live.end > live.end {
            return Ok(0);
        }
        scope(visitor, "sampler", |v| keeper.sampler.visit(head.live.clone(), v))?;
        if let Some(limiter) = limiter {
            let mut sampled = 0;
            scope(visitor, "limiter", |v| load_sampled(v, &mut sampled))?;
            limiter.loaded(sampled);
        }
        keeper.loaded(head.live.end);
        Ok(head.stale)
    };
    load_state(&path, load).map_err(|source| BufferFileError::Sampler { source: source.into() })
}

/// Where it lies.
fn path_beside(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_os_string();
    beside.push(".sampler");
    beside.into()
}

struct Head {
    mark: [u64; 2],
    live: Range<u64>,
    stale: u64,
}

impl Head {
    fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let [id, era] = &mut self.mark;
        scalar(visitor, "file", id)?;
        scalar(visitor, "era", era)?;
        scalar(visitor, "oldest", &mut self.live.start)?;
        scalar(visitor, "inserted", &mut self.live.end)?;
        if self.live.start > self.live.end {
            let why = format!("rows {:?} are not possible", self.live);
            return Err(StateError::Invalid { path: "inserted".into(), why });
        }
        scalar(visitor, "stale", &mut self.stale)
    }
}
