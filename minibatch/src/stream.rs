//! Sources without a length: rows that come one after the other, shuffled in a buffer and put together in batches.
//!
//! They have no row numbers, so no [`Sampler`](crate::Sampler) draws from them. Both take items as they come (`push`), so
//! that the source may be anything: a socket, a file that is read once, a simulation.

use crate::{Batch, Rng, Row, SamplerError, StateError, StateVisitor, scalar, scope, value};
use rand::{RngExt, SeedableRng};
use serde::{Serialize, de::DeserializeOwned};

/// Shuffles a stream in a buffer of k items: `tf.data`'s `shuffle(k)`.
///
/// While the buffer fills, items only go in. Then each item that comes takes the place of one that is chosen at random, each
/// with probability 1/k, and that one goes out; when the source has ended, [`pop`](Self::pop) gives what is left, in
/// random order. So an item comes out less than k places early; it waits while k others come on average,
/// and may come out any number of places late. A buffer as large as the source shuffles it completely, all orders equally likely; a buffer of 1 leaves it
/// as it was.
///
/// Seeded, and with its items and its generator as its state ([`visit`](Self::visit)). Cost: O(1) an item; the memory of
/// k items, taken at once.
///
/// ```
/// use rl_minibatch::Shuffle;
/// let mut shuffle = Shuffle::new(100, 7)?;
/// let mut items: Vec<u32> = shuffle.over(0..1_000).collect();
/// assert_ne!(items, Vec::from_iter(0..1_000));
/// items.sort();
/// assert_eq!(items, Vec::from_iter(0..1_000));
/// # Ok::<(), rl_minibatch::SamplerError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Shuffle<T> {
    items: Vec<T>,
    capacity: usize,
    rng: Rng,
    pushed: u64,
}

impl<T> Shuffle<T> {
    /// A buffer of `capacity` items.
    ///
    /// # Errors
    /// [`SamplerError::Zero`].
    pub fn new(capacity: usize, seed: u64) -> Result<Self, SamplerError> {
        let items = with_capacity("the capacity of the shuffle buffer", capacity)?;
        Ok(Self { items, capacity, rng: Rng::seed_from_u64(seed), pushed: 0 })
    }

    /// Puts an item in, and takes one out when the buffer was full before.
    pub fn push(&mut self, item: T) -> Option<T> {
        self.pushed += 1;
        if self.items.len() < self.capacity {
            self.items.push(item);
            return None;
        }
        let place = self.rng.random_range(0..self.items.len());
        Some(std::mem::replace(&mut self.items[place], item))
    }

    /// Takes out one of the items left, each with the same probability: for the end of the source. `None` when there is none.
    pub fn pop(&mut self) -> Option<T> {
        if self.items.is_empty() {
            return None;
        }
        let place = self.rng.random_range(0..self.items.len());
        Some(self.items.swap_remove(place))
    }

    /// The items of `source`, shuffled: pushes each, and pops what is left when the source has ended. The buffer is only
    /// lent, so its state can be saved between two items; a source that is begun anew after a resume has to leave out the
    /// first [`pushed`](Self::pushed) items.
    pub fn over<I: IntoIterator<Item = T>>(&mut self, source: I) -> Over<'_, T, I::IntoIter> {
        Over { shuffle: self, source: source.into_iter() }
    }

    /// Items put in since the beginning.
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Items in the buffer.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether the buffer holds no item.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The generator and the items, which `items` visits: for items that are neither [rows](Self::visit) nor
    /// [serde's](Self::visit_values). `items` gets the items, to be replaced when loading.
    ///
    /// # Errors
    /// Those of the visitor and of `items`; [`StateError::Invalid`] when there are more items than the buffer has room for.
    /// The buffer is then as it was, as far as `items` leaves it so when it fails.
    pub fn visit_with(
        &mut self,
        visitor: &mut dyn StateVisitor,
        items: impl FnOnce(&mut dyn StateVisitor, &mut Vec<T>) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let (mut pushed, mut rng) = (self.pushed, self.rng.clone());
        scalar(visitor, "pushed", &mut pushed)?;
        value(visitor, "rng", &mut rng)?;
        if !visitor.loading() {
            return scope(visitor, "items", |v| items(v, &mut self.items));
        }
        let mut loaded = Vec::with_capacity(self.capacity);
        scope(visitor, "items", |v| items(v, &mut loaded))?;
        if loaded.len() > self.capacity || loaded.len() as u64 > pushed {
            let why = format!(
                "{} items after {pushed} were pushed do not fit into a buffer of {}",
                loaded.len(),
                self.capacity
            );
            return Err(StateError::Invalid { path: "items".into(), why });
        }
        loaded.reserve_exact(self.capacity - loaded.len());
        (self.items, self.pushed, self.rng) = (loaded, pushed, rng);
        Ok(())
    }

    /// The generator and the items, for items that serde knows; all items together are one opaque piece.
    ///
    /// # Errors
    /// Those of [`visit_with`](Self::visit_with).
    pub fn visit_values(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError>
    where
        T: Serialize + DeserializeOwned,
    {
        self.visit_with(visitor, |v, items| value(v, "values", items))
    }

    /// The generator and the items, for items that are rows of a schema (see [`row!`](crate::row)): an array for each field.
    ///
    /// # Errors
    /// Those of [`visit_with`](Self::visit_with).
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError>
    where
        T: Row,
    {
        let most = self.capacity;
        self.visit_with(visitor, |v, items| visit_rows(v, items, most))
    }
}

fn with_capacity<T>(name: &'static str, items: usize) -> Result<Vec<T>, SamplerError> {
    if items == 0 { Err(SamplerError::Zero { name }) } else { Ok(Vec::with_capacity(items)) }
}

/// Rows, at most `most`, as columns, which checkpoints store as they are.
fn visit_rows<T: Row>(
    visitor: &mut dyn StateVisitor,
    rows: &mut Vec<T>,
    most: usize,
) -> Result<(), StateError> {
    let mut count = rows.len() as u64;
    scalar(visitor, "rows", &mut count)?;
    let invalid = |path: &str, why: String| StateError::Invalid { path: path.into(), why };
    // Before memory is taken for them.
    if count > most as u64 {
        return Err(invalid("rows", format!("{count} rows were saved and there is room for {most}")));
    }
    let schema = T::schema();
    let count = count as usize;
    let mut columns = Batch::new(schema, count);
    for (number, row) in rows.iter().enumerate() {
        let mut view = columns.view_mut();
        row.with_columns(|cells| {
            for (position, cell) in cells.iter().enumerate() {
                view.cell_mut(position, number).copy_from_slice(cell);
            }
        });
    }
    for (position, field) in schema.fields().iter().enumerate() {
        let shape: Vec<usize> = std::iter::once(count).chain(field.shape.iter().copied()).collect();
        scope(visitor, "columns", |v| {
            v.array(&field.name, field.dtype, &shape, columns.column_mut(position))
        })?;
    }
    if visitor.loading() {
        let typed = T::columns(&columns).map_err(|error| invalid("columns", error.to_string()))?;
        rows.clear();
        rows.extend((0..count).map(|row| T::get(&typed, row)));
    }
    Ok(())
}

/// A shuffled stream. See [`Shuffle::over`].
#[derive(Debug)]
pub struct Over<'a, T, I> {
    shuffle: &'a mut Shuffle<T>,
    source: I,
}

impl<T, I: Iterator<Item = T>> Iterator for Over<'_, T, I> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        for item in self.source.by_ref() {
            if let Some(out) = self.shuffle.push(item) {
                return Some(out);
            }
        }
        self.shuffle.pop()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let (least, most) = self.source.size_hint();
        let held = self.shuffle.len();
        (least.saturating_add(held), most.and_then(|most| most.checked_add(held)))
    }
}

/// Batches of a stream, in its order, as its items come: of n items, or of 1 for online learning.
///
/// Nothing is allocated from batch to batch. The items that wait for a batch are its state.
///
/// ```
/// use rl_minibatch::Online;
/// let mut online = Online::new(2)?;
/// assert_eq!(online.push('a'), None);
/// assert_eq!(online.push('b'), Some(&['a', 'b'][..]));
/// assert_eq!(online.push('c'), None);
/// assert_eq!(online.flush(), Some(&['c'][..]));
/// assert_eq!(online.flush(), None);
/// # Ok::<(), rl_minibatch::SamplerError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Online<T> {
    items: Vec<T>,
    batch: usize,
    /// The items were given out as a batch, and are only kept so that they can be looked at.
    given: bool,
}

impl<T> Online<T> {
    /// Batches of `batch` items.
    ///
    /// # Errors
    /// [`SamplerError::Zero`].
    pub fn new(batch: usize) -> Result<Self, SamplerError> {
        Ok(Self { items: with_capacity("the batch size", batch)?, batch, given: false })
    }

    /// Takes an item, and gives the batch that it makes full.
    pub fn push(&mut self, item: T) -> Option<&[T]> {
        self.drop_given();
        self.items.push(item);
        if self.items.len() < self.batch {
            return None;
        }
        self.given = true;
        Some(&self.items)
    }

    /// The items that wait for a batch, as a smaller one: for the end of the source, or when it pauses. `None` without any.
    pub fn flush(&mut self) -> Option<&[T]> {
        self.drop_given();
        if self.items.is_empty() {
            return None;
        }
        self.given = true;
        Some(&self.items)
    }

    /// Items that wait for a batch.
    pub fn waiting(&self) -> usize {
        if self.given { 0 } else { self.items.len() }
    }

    /// The items that wait, for items that serde knows.
    ///
    /// # Errors
    /// Those of the visitor; [`StateError::Invalid`] when a batch or more waits. Nothing has changed then.
    pub fn visit_values(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError>
    where
        T: Serialize + DeserializeOwned,
    {
        self.visit_with(visitor, |v, items| value(v, "values", items))
    }

    /// The items that wait, for items that are rows of a schema (see [`row!`](crate::row)): an array for each field.
    ///
    /// # Errors
    /// As [`visit_values`](Self::visit_values).
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError>
    where
        T: Row,
    {
        let most = self.batch - 1;
        self.visit_with(visitor, |v, items| visit_rows(v, items, most))
    }

    fn visit_with(
        &mut self,
        visitor: &mut dyn StateVisitor,
        items: impl FnOnce(&mut dyn StateVisitor, &mut Vec<T>) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        self.drop_given();
        if !visitor.loading() {
            return scope(visitor, "waiting", |v| items(v, &mut self.items));
        }
        let mut loaded = Vec::with_capacity(self.batch);
        scope(visitor, "waiting", |v| items(v, &mut loaded))?;
        if loaded.len() >= self.batch {
            let why = format!("{} items cannot wait for a batch of {}", loaded.len(), self.batch);
            return Err(StateError::Invalid { path: "waiting".into(), why });
        }
        loaded.reserve_exact(self.batch - loaded.len());
        self.items = loaded;
        Ok(())
    }

    fn drop_given(&mut self) {
        if std::mem::take(&mut self.given) {
            self.items.clear();
        }
    }
}
