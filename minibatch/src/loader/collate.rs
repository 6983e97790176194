//! What a worker makes of the rows of a batch: the one thing in which stacked, padded, packed and graph batches differ for a loader.

use super::error::{LoadError, RowCause};
use super::rows::At;
use crate::{Micro, Plan, Rng, micro_batches};
use std::ops::Range;
use std::sync::Arc;

/// How drawn rows become one batch on a [`Loader`](super::Loader)'s threads (`torch.utils.data`'s data set and `collate_fn` in one).
///
/// | rows | collated by | into |
/// |---|---|---|
/// | of one shape | [`StackCollate`](super::StackCollate), which [`Loader::builder`](super::Loader::builder) takes | [`Batch`](crate::Batch), or pinned memory |
/// | of unequal lengths | [`PadCollate`](super::PadCollate) | [`Padded`](crate::Padded) |
/// | the same, for an LSTM or GRU | [`PackCollate`](super::PackCollate) | [`Packed`](crate::Packed) |
/// | small graphs | [`UnionCollate`](super::UnionCollate) | [`GraphBatch`](crate::GraphBatch) |
/// | nodes of a large graph | [`NeighborCollate`](super::NeighborCollate) | [`Neighborhood`](super::Neighborhood) |
/// | any of these in micro-batches | [`in_pieces`](Self::in_pieces) | [`Pieces`] |
/// | anything else | [`FnCollate`] | what the function makes |
///
/// Several threads collate at once, each a batch. What comes out may depend on the [`Selection`] and on nothing that changes, so that
/// batches are the same however many workers there are.
pub trait Collate: Send + Sync {
    /// What a batch lies in. It goes to the caller and comes back to be filled anew.
    type Output: Send;

    /// Rows that can be drawn; numbers go from 0.
    fn rows(&self) -> u64;

    /// Makes `out` the batch of the rows `drawn`. It is `None` at first; then it holds an earlier batch, whose memory is there to be
    /// used again.
    ///
    /// # Errors
    /// [`LoadError`], of the first row that is at fault if it is one row's: [`LoadError::collate`] makes it.
    fn collate(&self, drawn: &Selection<'_>, out: &mut Option<Self::Output>) -> Result<(), LoadError>;

    /// These batches in micro-batches of at most `most` rows, each collated by itself: for gradient accumulation over rows that
    /// cannot be cut apart once they are padded or packed.
    ///
    /// # Panics
    /// When `most` is 0.
    fn in_pieces(self, most: usize) -> PiecesCollate<Self>
    where
        Self: Sized,
    {
        assert!(most > 0, "a micro-batch holds at least one row");
        PiecesCollate { collate: self, most }
    }
}

impl<C: Collate + ?Sized> Collate for Arc<C> {
    type Output = C::Output;

    fn rows(&self) -> u64 {
        (**self).rows()
    }

    fn collate(&self, drawn: &Selection<'_>, out: &mut Option<C::Output>) -> Result<(), LoadError> {
        (**self).collate(drawn, out)
    }
}

/// The rows that are to become a batch, as [`Plan`] has them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Selection<'a> {
    /// Row numbers in order; padding comes last.
    pub rows: &'a [u64],
    /// The pass of each row; see [`Plan::passes`].
    pub passes: &'a [u64],
    /// How many of the rows count. Those behind are padding, and collated like the others.
    pub real: usize,
    /// The batch's number since training began.
    pub step: u64,
}

impl<'a> Selection<'a> {
    /// The rows of `plan`.
    pub fn of(plan: &'a Plan) -> Self {
        Self { rows: &plan.rows, passes: &plan.passes, real: plan.real, step: plan.step }
    }

    /// The rows at these places.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn part(&self, places: Range<usize>) -> Self {
        let real = self.real.clamp(places.start, places.end) - places.start;
        Self { rows: &self.rows[places.clone()], passes: &self.passes[places], real, step: self.step }
    }

    /// A generator for what is random about the batch. It depends on `seed`, the batch's number and its first row and on nothing else:
    /// not on the worker; and ranks that share out a batch draw different numbers.
    pub fn rng(&self, seed: u64) -> Rng {
        At { row: self.rows.first().copied().unwrap_or(0), pass: self.step }.rng(seed)
    }
}

impl LoadError {
    /// A batch that cannot be collated, in the words of `cause`: [`LoadError::Row`] with the row's number where it is the fault of the
    /// row at `place` in the batch, and [`LoadError::Collate`] where it is nobody's.
    pub fn collate(drawn: &Selection<'_>, place: Option<usize>, cause: impl Into<RowCause>) -> Self {
        let cause = cause.into();
        match place.and_then(|place| drawn.rows.get(place)) {
            Some(&row) => Self::Row { row, cause },
            None => Self::Collate { step: drawn.step, cause },
        }
    }
}

/// Batches that a function collates.
///
/// ```
/// use rl_minibatch::{BatchSize, Batches, FnCollate, Loader, Sequential};
/// let words = ["a", "bc", "def"];
/// let batches = Batches::builder(Sequential::new(3)?, 3, BatchSize::Fixed(2)).build()?;
/// let collate = FnCollate::new(3, move |drawn, out: &mut Option<String>| {
///     let text = out.get_or_insert_default();
///     text.clear();
///     drawn.rows.iter().for_each(|row| text.push_str(words[*row as usize]));
///     Ok(())
/// });
/// let mut loader = Loader::collating(collate, batches).workers(1).build()?;
/// assert_eq!(loader.next()?.host(), "abc");
/// assert_eq!(loader.next()?.host(), "def");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FnCollate<O, F> {
    rows: u64,
    collate: F,
    output: std::marker::PhantomData<fn() -> O>,
}

impl<O, F> FnCollate<O, F>
where
    O: Send,
    F: Fn(&Selection<'_>, &mut Option<O>) -> Result<(), LoadError> + Send + Sync,
{
    /// Batches of `rows` rows, made by `collate` as [`Collate::collate`] is to make them.
    pub fn new(rows: u64, collate: F) -> Self {
        Self { rows, collate, output: std::marker::PhantomData }
    }
}

impl<O, F> Collate for FnCollate<O, F>
where
    O: Send,
    F: Fn(&Selection<'_>, &mut Option<O>) -> Result<(), LoadError> + Send + Sync,
{
    type Output = O;

    fn rows(&self) -> u64 {
        self.rows
    }

    fn collate(&self, drawn: &Selection<'_>, out: &mut Option<O>) -> Result<(), LoadError> {
        (self.collate)(drawn, out)
    }
}

impl<O, F> std::fmt::Debug for FnCollate<O, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FnCollate").field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// Batches in micro-batches; see [`Collate::in_pieces`].
#[derive(Clone, Debug)]
pub struct PiecesCollate<C> {
    collate: C,
    most: usize,
}

impl<C: Collate> Collate for PiecesCollate<C> {
    type Output = Pieces<C::Output>;

    fn rows(&self) -> u64 {
        self.collate.rows()
    }

    fn collate(&self, drawn: &Selection<'_>, out: &mut Option<Pieces<C::Output>>) -> Result<(), LoadError> {
        let pieces = out.get_or_insert_with(|| Pieces { micros: Vec::new(), outputs: Vec::new() });
        pieces.micros.clear();
        for (number, micro) in micro_batches(drawn.real, self.most).enumerate() {
            if pieces.outputs.len() == number {
                pieces.outputs.push(None);
            }
            self.collate.collate(&drawn.part(micro.rows.clone()), &mut pieces.outputs[number])?;
            pieces.micros.push(micro);
        }
        Ok(())
    }
}

/// A batch in micro-batches, padding left out.
#[derive(Clone, Debug)]
pub struct Pieces<O> {
    micros: Vec<Micro>,
    /// At least as many as `micros`; what an earlier batch of more pieces left is kept.
    outputs: Vec<Option<O>>,
}

impl<O> Pieces<O> {
    /// The micro-batches in order, each with its places in the batch and its share of it.
    pub fn iter(&self) -> impl Iterator<Item = (&Micro, &O)> {
        self.micros.iter().zip(self.outputs.iter().flatten())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.micros.len()
    }

    /// Whether there are none: a batch of no rows.
    pub fn is_empty(&self) -> bool {
        self.micros.is_empty()
    }
}
