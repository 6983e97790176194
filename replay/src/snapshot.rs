//! The buffer's state, shown piece by piece: saved, and restored bit for bit.
//!
//! One walk serves every medium. To save, a [`Moment`] is taken under the lock and then shown to a visitor; to load, a
//! [`Source`] gives back what was shown. `crate::file` is the visitor and the source that stand on a file.

use crate::file::{Lineage, Section};
use crate::layout::Layout;
use crate::limiter::Limiter;
use crate::recording::Recording;
use crate::ring::{Exclusive, Pin, Ring};
use crate::writer::check_range;
use crate::{Replay, ReplayError};
use rl_minibatch::{Batch, MemoryState, Schema, StateError, StateVisitor, scalar, scope, value};
use std::ops::Range;
use std::sync::atomic::Ordering;

/// Rows are shown in blocks of about this size, so that no second copy of the buffer is ever needed.
pub(crate) const BLOCK_BYTES: usize = 4 << 20;

/// Takes the rows of a block, which are the first ones of the batch.
pub(crate) type Take<'a> = dyn FnMut(Range<u64>, &Batch) + 'a;

impl Replay {
    /// Shows the visitor everything the buffer's future depends on: the counters, the live rows, in blocks of some
    /// megabytes with an array for each field, and the sampler's state with its priorities. Rows that have been
    /// overwritten are not shown. A buffer that was loaded draws what the saved one would have drawn.
    /// Rows are shown as the schema has them, whatever they are [stored](crate::Builder::store) as.
    ///
    /// Saving sees the buffer as it was at one moment, and others go on meanwhile. They wait while the sampler's state
    /// is copied (8 bytes a row for priorities). Rows are shown oldest first and let go of block by block, so a writer
    /// that goes around the ring waits only where it catches up with the visitor.
    ///
    /// Loading waits until nobody copies, and keeps everybody out. The capacity need not be the one that was saved: a
    /// buffer takes every state whose live rows it has room for. Rows keep their keys. Loading into a buffer that holds
    /// rows takes memory for the new ones beside them, for the old ones stay until all of the state has come.
    ///
    /// Of the [statistics](Replay::statistics), `inserted` and `stale_priorities` are a part of the state; what was drawn
    /// is not, and is counted anew from a load on.
    ///
    /// The visitor must not use the buffer.
    ///
    /// # Errors
    /// Those of the visitor. When loading also [`StateError::Mismatch`] for another schema, and
    /// [`StateError::Invalid`] for more live rows than the capacity, for counters that make no sense, and for values that
    /// the types the columns are stored as cannot hold; the buffer is then as it was.
    pub fn visit(&self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        if visitor.loading() {
            self.load_from(&mut Plain(visitor))
        } else {
            self.moment(|_, live| Ok::<_, StateError>(live.start))?.show(visitor, BLOCK_BYTES)
        }
    }

    /// Takes hold of the present state. `first` says from which row on rows are going to be shown.
    pub(crate) fn moment<E: From<StateError>>(
        &self,
        first: impl FnOnce(&Lineage, Range<u64>) -> Result<u64, E>,
    ) -> Result<Moment<'_>, E> {
        // Pinned first: what is live under the lock a moment later is kept, too.
        let pin = self.shared.ring.pin_alone();
        let (mut keeper, mut live) = self.shared.keeper();
        match &pin {
            Some(pin) => live.start = live.start.max(pin.oldest()),
            // Nothing was live when the pin was to be made; that is the moment.
            None => live.end = live.start,
        }
        let first = first(&keeper.lineage, live.clone())?.clamp(live.start, live.end);
        let mut sampler = Recording::default();
        keeper.sampler.visit(live.clone(), &mut sampler)?;
        let (stale, lineage) = (self.shared.counters.stale(), keeper.lineage.own());
        let sampled = self.shared.limiter.as_ref().map(Limiter::sampled);
        let rows = first..live.end;
        drop(keeper);
        Ok(Moment { replay: self, live, rows, stale, lineage, sampler, sampled, pin })
    }

    /// Replaces the state by what `source` gives.
    pub(crate) fn load_from(&self, source: &mut dyn Source) -> Result<(), StateError> {
        // Before anybody is kept out, for a flush waits for those who copy.
        let stored = self.shared.stored.as_ref();
        let _no_flush = stored.map(|stored| stored.alone());
        let rewrite = || stored.map_or(Ok(()), |stored| stored.begin_rewrite());
        let mut ring = self.shared.ring.exclusive();
        let mut keeper = self.shared.keeper_untold();
        let mut header = Header::new(self);
        header.visit(source.visitor())?;
        let live = header.live;
        let mut stale = 0u64;
        scalar(source.visitor(), "stale", &mut stale)?;

        // Rows go into their slots at once if there is no row to be lost, else aside until everything has come.
        let present = ring.live();
        let aside = if present.is_empty() { None } else { Some(room_for(&self.shared.ring, &live)?) };
        let mut aside = aside.as_ref().map(Ring::exclusive);
        let schema = self.schema();
        let mut put = Put { layout: self.shared.ring.layout(), live: &live, refused: None };
        match &mut aside {
            None => {
                rewrite()?;
                source
                    .rows(RowSet::Rows, schema, &live, &mut |keys, batch| put.rows(&mut ring, keys, batch))?;
            }
            Some(aside) => {
                source.rows(RowSet::Rows, schema, &live, &mut |keys, batch| put.rows(aside, keys, batch))?;
            }
        }
        if let Some(why) = put.refused {
            return Err(StateError::Invalid { path: "rows".into(), why });
        }

        // The sampler loads in place. Should anything go wrong from here on, it gets its present state back.
        let before = MemoryState::save(|v| keeper.sampler.visit(present.clone(), v))?;
        let limiter = self.shared.limiter.as_ref();
        let mut sampled = 0u64;
        let loaded = scope(source.visitor(), "sampler", |v| keeper.sampler.visit(live.clone(), v))
            .and_then(|()| match limiter {
                Some(_) => scope(source.visitor(), "limiter", |v| load_sampled(v, &mut sampled)),
                None => Ok(()),
            })
            .and_then(|()| source.finish())
            .and_then(|origin| if aside.is_some() { rewrite().map(|()| origin) } else { Ok(origin) });
        let origin = match loaded {
            Ok(origin) => origin,
            Err(error) => {
                before.load(|v| keeper.sampler.visit(present, v))?;
                return Err(error);
            }
        };
        if let Some(aside) = &aside {
            ring.copy_from(aside, live.clone());
        }
        keeper.lineage = Lineage::new(origin);
        keeper.loaded(live.end);
        self.shared.counters.loaded(live.start, stale);
        ring.restore(live);
        if let Some(limiter) = limiter {
            limiter.loaded(sampled);
        }
        self.shared.loads.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

/// A ring beside `ring` for the rows `live` and no more.
pub(crate) fn room_for(ring: &Ring, live: &Range<u64>) -> Result<Ring, StateError> {
    let (layout, rows) = (ring.layout().clone(), (live.end - live.start).max(1));
    let bytes = (u128::from(rows) + 1) * layout.stride as u128;
    Ring::new(layout, rows, 1).map_err(|source| {
        let why = ReplayError::Memory { rows, bytes, source };
        let why = format!("there is no memory to load them beside those that are there: {why}");
        StateError::Invalid { path: "rows".into(), why }
    })
}

/// Rows drawn, as a rate limiter counts them.
pub(crate) fn load_sampled(visitor: &mut dyn StateVisitor, sampled: &mut u64) -> Result<(), StateError> {
    scalar(visitor, "sampled", sampled)?;
    if *sampled > u64::MAX / 2 {
        let why = format!("{sampled} rows cannot have been drawn");
        return Err(StateError::Invalid { path: "limiter.sampled".into(), why });
    }
    Ok(())
}

/// The buffer as it was at one moment, while others go on.
pub(crate) struct Moment<'a> {
    replay: &'a Replay,
    live: Range<u64>,
    rows: Range<u64>,
    stale: u64,
    lineage: u64,
    sampler: Recording,
    /// Rows drawn, if a rate limiter counts them.
    sampled: Option<u64>,
    pin: Option<Pin<'a>>,
}

impl Moment<'_> {
    /// The rows that were live, and those of them that are shown, the newest.
    pub(crate) fn section(&self) -> Section {
        Section { live: self.live.clone(), here: self.rows.clone() }
    }

    /// See [`Lineage::own`].
    pub(crate) fn lineage(&self) -> u64 {
        self.lineage
    }

    /// Shows it, with rows in blocks of about `block_bytes`. Rows are let go of as soon as they are copied.
    pub(crate) fn show(self, visitor: &mut dyn StateVisitor, block_bytes: usize) -> Result<(), StateError> {
        let Self { replay, live, rows, mut stale, sampler, sampled, pin, .. } = self;
        let mut header = Header { live, ..Header::new(replay) };
        header.visit(visitor)?;
        scalar(visitor, "stale", &mut stale)?;
        show_rows(visitor, replay.schema(), rows, block_bytes, pin)?;
        scope(visitor, "sampler", |visitor| sampler.show(visitor))?;
        match sampled {
            Some(mut sampled) => scope(visitor, "limiter", |v| scalar(v, "sampled", &mut sampled)),
            None => Ok(()),
        }
    }
}

/// Shows the rows of a ring that are pinned, and lets go of them as soon as they are copied.
pub(crate) fn show_rows(
    visitor: &mut dyn StateVisitor,
    schema: &Schema,
    rows: Range<u64>,
    block_bytes: usize,
    mut pin: Option<Pin<'_>>,
) -> Result<(), StateError> {
    visit_rows(visitor, schema, rows.clone(), block_bytes, |keys, batch| {
        let pinned = pin.as_mut().expect("there are rows, so they are pinned");
        pinned.gather(keys.clone(), &mut batch.view_mut());
        if keys.end < rows.end {
            pinned.release_before(keys.end);
        } else {
            pin = None;
        }
    })
}

/// Of a buffer of frames there are two sets of rows, of others one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowSet {
    Rows,
    Frames,
}

impl RowSet {
    /// Where it stands in the state of a buffer of frames.
    pub(crate) fn scope(self) -> &'static str {
        match self {
            Self::Rows => "transitions",
            Self::Frames => "frames",
        }
    }
}

/// What a state is loaded from.
pub(crate) trait Source {
    /// Gives all of it but the rows.
    fn visitor(&mut self) -> &mut dyn StateVisitor;

    /// Hands over at least the rows `live` of a set, each of them once. Frames are asked for before rows.
    fn rows(
        &mut self,
        set: RowSet,
        schema: &Schema,
        live: &Range<u64>,
        take: &mut Take<'_>,
    ) -> Result<(), StateError>;

    /// Called when everything has been asked for: the last chance to refuse. Returns the id of the snapshot file that
    /// the buffer holds from now on, if it is one.
    fn finish(&mut self) -> Result<Option<u64>, StateError>;
}

/// A visitor that has the rows in blocks of [`BLOCK_BYTES`].
pub(crate) struct Plain<'a>(pub(crate) &'a mut dyn StateVisitor);

impl Source for Plain<'_> {
    fn visitor(&mut self) -> &mut dyn StateVisitor {
        self.0
    }

    fn rows(
        &mut self,
        _: RowSet,
        schema: &Schema,
        live: &Range<u64>,
        take: &mut Take<'_>,
    ) -> Result<(), StateError> {
        visit_rows(self.0, schema, live.clone(), BLOCK_BYTES, |keys, batch| take(keys, batch))
    }

    fn finish(&mut self) -> Result<Option<u64>, StateError> {
        Ok(None)
    }
}

/// What has to agree before rows are looked at.
struct Header<'a> {
    schema: &'a Schema,
    capacity: u64,
    live: Range<u64>,
}

impl<'a> Header<'a> {
    fn new(replay: &'a Replay) -> Self {
        Self { schema: replay.schema(), capacity: replay.shared.ring.capacity(), live: 0..0 }
    }

    fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        check_schema(visitor, self.schema)?;
        let mut capacity = self.capacity;
        scalar(visitor, "capacity", &mut capacity)?;
        let live = &mut self.live;
        scalar(visitor, "oldest", &mut live.start)?;
        scalar(visitor, "inserted", &mut live.end)?;
        // The upper bound leaves room for every row that a machine can still insert.
        if live.end > u64::MAX / 2 || live.start > live.end || live.end - live.start > capacity {
            let why = format!("rows {} to {} do not fit into a capacity of {capacity}", live.start, live.end);
            return Err(StateError::Invalid { path: "inserted".into(), why });
        }
        let (rows, room) = (live.end - live.start, self.capacity);
        if rows > room {
            let why =
                format!("it has {rows} rows and this buffer room for {room}; build one for {rows} or more");
            return Err(StateError::Invalid { path: "capacity".into(), why });
        }
        Ok(())
    }
}

/// Shows the schema, and refuses another one.
pub(crate) fn check_schema(visitor: &mut dyn StateVisitor, present: &Schema) -> Result<(), StateError> {
    let mut schema = present.clone();
    value(visitor, "schema", &mut schema)?;
    if schema != *present {
        let [expected, found] = [present, &schema].map(describe);
        return Err(StateError::Mismatch { path: "schema".into(), expected, found });
    }
    Ok(())
}

fn describe(schema: &Schema) -> String {
    let fields = schema.fields().iter().map(|f| format!("{}: {} {:?}", f.name, f.dtype, f.shape));
    fields.collect::<Vec<_>>().join(", ")
}

/// Puts loaded rows into their slots.
pub(crate) struct Put<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) live: &'a Range<u64>,
    /// What slots could not hold; nothing is written from then on.
    pub(crate) refused: Option<String>,
}

impl Put<'_> {
    /// Writes those of the rows `keys` that are live.
    pub(crate) fn rows(&mut self, ring: &mut Exclusive<'_>, keys: Range<u64>, batch: &Batch) {
        let wanted = keys.start.max(self.live.start)..keys.end.min(self.live.end);
        if wanted.is_empty() || self.refused.is_some() {
            return;
        }
        let schema = batch.schema();
        let columns: Vec<&[u8]> = (0..schema.fields().len()).map(|position| batch.column(position)).collect();
        let first = (wanted.start - keys.start) as usize;
        if self.layout.rounds {
            // Behind the rows that are wanted there may be those of an earlier block.
            let rows = first..(wanted.end - keys.start) as usize;
            let given = schema.fields().iter().zip(&columns).map(|(field, column)| {
                let bytes = field.row_bytes();
                &column[rows.start * bytes..rows.end * bytes]
            });
            let given: Vec<&[u8]> = given.collect();
            if let Err(error) = check_range(self.layout, schema, &given) {
                self.refused = Some(format!("counted from row {}: {error}", wanted.start));
                return;
            }
        }
        ring.write(wanted, first, &columns);
    }
}

/// Walks over `rows.<block>.<field>`. `transfer` fills the block before it is saved, or takes it after it was loaded.
pub(crate) fn visit_rows(
    visitor: &mut dyn StateVisitor,
    schema: &Schema,
    rows: Range<u64>,
    block_bytes: usize,
    mut transfer: impl FnMut(Range<u64>, &mut Batch),
) -> Result<(), StateError> {
    let count = rows.end - rows.start;
    let block_rows = (block_bytes / schema.row_bytes()).max(1) as u64;
    let mut batch = Batch::new(schema, block_rows.min(count) as usize);
    scope(visitor, "rows", |visitor| {
        for block in 0..count.div_ceil(block_rows) {
            let start = rows.start + block * block_rows;
            let keys = start..rows.end.min(start + block_rows);
            let block_len = (keys.end - keys.start) as usize;
            if !visitor.loading() {
                transfer(keys.clone(), &mut batch);
            }
            scope(visitor, &block.to_string(), |visitor| {
                for (position, field) in schema.fields().iter().enumerate() {
                    let shape: Vec<usize> =
                        [block_len].into_iter().chain(field.shape.iter().copied()).collect();
                    let bytes = &mut batch.column_mut(position)[..block_len * field.row_bytes()];
                    visitor.array(&field.name, field.dtype, &shape, bytes)?;
                }
                Ok(())
            })?;
            if visitor.loading() {
                transfer(keys, &mut batch);
            }
        }
        Ok(())
    })
}
