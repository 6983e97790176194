//! The buffer's state, shown piece by piece: saved, and restored bit for bit.

use crate::buffer::Keeper;
use crate::layout::Layout;
use crate::ring::{Companion, Exclusive, Ring};
use crate::{Replay, ReplayError};
use rl_minibatch::{Batch, MemoryState, Schema, StateError, StateVisitor, scalar, scope, value};
use std::ops::Range;
use std::sync::atomic::Ordering;

/// Rows are shown in blocks of about this size, so that no second copy of the buffer is ever needed.
const BLOCK_BYTES: usize = 4 << 20;

impl Replay {
    /// Shows the visitor everything the buffer's future depends on: the counters, the sampler's state with its
    /// priorities, and the live rows, in blocks of some megabytes with an array for each field. Rows that have been
    /// overwritten are not shown. A buffer that was loaded draws what the saved one would have drawn.
    ///
    /// Saving sees the buffer as it was at one moment: others may go on meanwhile, but wait while the counters and the
    /// sampler's state are written, and a writer waits if it would overwrite a row not yet saved. Loading waits until
    /// nobody copies, and keeps everybody out. The visitor must not use the buffer.
    ///
    /// # Errors
    /// Those of the visitor. When loading also [`StateError::Mismatch`] for another schema or capacity, and
    /// [`StateError::Invalid`] for counters that make no sense; the buffer is then as it was.
    pub fn visit(&self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        if visitor.loading() { self.load(visitor) } else { self.save(visitor) }
    }

    fn save(&self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let mut locked = self.shared.ring.lock();
        let live = locked.live();
        let mut header =
            Header { schema: self.schema().clone(), capacity: self.shared.ring.capacity(), live };
        header.visit(visitor)?;
        let keeper = locked.companion();
        scalar(visitor, "stale", &mut keeper.stale)?;
        scope(visitor, "sampler", |v| keeper.sampler.visit(header.live.clone(), v))?;
        if header.live.is_empty() {
            return Ok(());
        }
        let pin = locked.pin(header.live.start);
        visit_rows(visitor, self.schema(), header.live, |keys, batch| {
            let mut batch = batch.view_mut();
            for (row, key) in keys.enumerate() {
                pin.read(key, row, &mut batch);
            }
        })
    }

    fn load(&self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let mut ring = self.shared.ring.exclusive();
        let mut header =
            Header { schema: self.schema().clone(), capacity: self.shared.ring.capacity(), live: 0..0 };
        header.visit(visitor)?;
        let live = header.live;
        let mut stale = 0u64;
        scalar(visitor, "stale", &mut stale)?;

        // The sampler loads in place. Should anything go wrong from here on, it gets its present state back.
        let present = ring.live();
        let before = MemoryState::save(|v| ring.companion().sampler.visit(present.clone(), v))?;
        let loaded = scope(visitor, "sampler", |v| ring.companion().sampler.visit(live.clone(), v))
            .and_then(|()| self.load_rows(visitor, &mut ring, live.clone()));
        if let Err(error) = loaded {
            before.load(|v| ring.companion().sampler.visit(present, v))?;
            return Err(error);
        }
        ring.companion().stale = stale;
        ring.restore(live);
        self.shared.loads.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Loads rows into their slots: at once if no row is there to be lost, else only when all of them have come.
    fn load_rows(
        &self,
        visitor: &mut dyn StateVisitor,
        ring: &mut Exclusive<'_, Keeper>,
        live: Range<u64>,
    ) -> Result<(), StateError> {
        if ring.live().is_empty() {
            return read_rows(visitor, self.schema(), ring, live);
        }
        let shared = &self.shared.ring;
        let aside =
            Ring::new(Layout::new(self.schema()), shared.capacity(), shared.reserve(), ()).map_err(|e| {
                let why = ReplayError::Memory {
                    rows: shared.capacity(),
                    bytes: shared.memory_bytes() as u128,
                    source: e,
                };
                StateError::Invalid {
                    path: "rows".into(),
                    why: format!("there is no memory to load them: {why}"),
                }
            })?;
        let mut aside = aside.exclusive();
        read_rows(visitor, self.schema(), &mut aside, live.clone())?;
        ring.copy_from(&aside, live);
        Ok(())
    }
}

impl Companion for () {
    fn came_alive(&mut self, _keys: Range<u64>) {}
}

/// What has to agree before rows are looked at.
struct Header {
    schema: Schema,
    capacity: u64,
    live: Range<u64>,
}

impl Header {
    fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let Self { schema, capacity, live } = self;
        let (expected_schema, expected_capacity) = (schema.clone(), *capacity);
        value(visitor, "schema", schema)?;
        if *schema != expected_schema {
            let [expected, found] = [&expected_schema, &*schema].map(describe);
            return Err(StateError::Mismatch { path: "schema".into(), expected, found });
        }
        scalar(visitor, "capacity", capacity)?;
        if *capacity != expected_capacity {
            let (expected, found) = (format!("{expected_capacity} rows"), format!("{capacity} rows"));
            return Err(StateError::Mismatch { path: "capacity".into(), expected, found });
        }
        scalar(visitor, "oldest", &mut live.start)?;
        scalar(visitor, "inserted", &mut live.end)?;
        // The upper bound leaves room for every row that a machine can still insert.
        if live.end > u64::MAX / 2 || live.start > live.end || live.end - live.start > *capacity {
            let why = format!("rows {} to {} do not fit into a capacity of {capacity}", live.start, live.end);
            return Err(StateError::Invalid { path: "inserted".into(), why });
        }
        Ok(())
    }
}

fn describe(schema: &Schema) -> String {
    let fields = schema.fields().iter().map(|f| format!("{}: {} {:?}", f.name, f.dtype, f.shape));
    fields.collect::<Vec<_>>().join(", ")
}

fn read_rows<S: Companion>(
    visitor: &mut dyn StateVisitor,
    schema: &Schema,
    ring: &mut Exclusive<'_, S>,
    live: Range<u64>,
) -> Result<(), StateError> {
    visit_rows(visitor, schema, live, |keys, batch| {
        let columns: Vec<&[u8]> = (0..schema.fields().len()).map(|position| batch.column(position)).collect();
        for (row, key) in keys.enumerate() {
            ring.write(key, row, &columns);
        }
    })
}

/// Walks over `rows.<block>.<field>`. `transfer` fills the block before it is saved, or takes it after it was loaded.
fn visit_rows(
    visitor: &mut dyn StateVisitor,
    schema: &Schema,
    live: Range<u64>,
    mut transfer: impl FnMut(Range<u64>, &mut Batch),
) -> Result<(), StateError> {
    let rows = live.end - live.start;
    let block_rows = (BLOCK_BYTES / schema.row_bytes()).max(1) as u64;
    let mut batch = Batch::new(schema, block_rows.min(rows) as usize);
    scope(visitor, "rows", |visitor| {
        for block in 0..rows.div_ceil(block_rows) {
            let start = live.start + block * block_rows;
            let keys = start..live.end.min(start + block_rows);
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
