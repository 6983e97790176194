//! The order of batches: a sampler, cut into batches, shared out among ranks.

use crate::batch_size::Filled;
use crate::{
    BatchSize, BatchSizeError, Budget, Drawn, Epoch, Plan, Rng, SampleError, Sampler, StateError,
    StateVisitor, scalar, scope, value,
};
use rand::SeedableRng;

/// What becomes of the rows at an epoch's end that do not fill a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LastBatch {
    /// They are a smaller batch. Every row is seen once an epoch; give the small batch its share if gradients are accumulated,
    /// and mind that normalization over it is noisy.
    #[default]
    Keep,
    /// They are left out. All batches are of one size; with shuffled epochs other rows are left out each time.
    Drop,
    /// The batch is filled up with its own rows again, which are masked ([`Plan::real`], [`Plan::mask_into`]). All batches are
    /// of one size and every row counts once an epoch; for evaluation and for shapes that must not change.
    Pad,
    /// The batch goes on with the first rows of the next epoch. All batches are of one size and every row is seen once an
    /// epoch; epochs no longer begin where batches do.
    Wrap,
}

/// A row that was drawn and did not fit into the batch any more.
type Carried = (u64, f64, Option<(u64, u64, u64)>);

/// Batches of row numbers without end, epoch after epoch: drives a [`Sampler`] over the rows of a fixed data set. It is what
/// says which batch comes when; a [`Loader`](crate::Loader) fills them.
///
/// With several ranks each has a `Batches` of its own, the same in everything but its rank. All draw the same batch over all
/// ranks and take every world-th row of it, so no row comes to two of them, none is lost, and parts differ by at most one row.
/// What is saved on one rank resumes on any, in a world of any size.
///
/// ```
/// use rl_minibatch::{Batches, BatchSize, Plan, Uniform};
/// let mut batches = Batches::builder(Uniform, 1000, BatchSize::Fixed(64)).seed(7).build()?;
/// let mut plan = Plan::new();
/// batches.next(&mut plan)?;
/// assert_eq!((plan.rows.len(), plan.real, plan.step), (64, 64, 0));
/// # Ok::<(), rl_minibatch::BatchesError>(())
/// ```
pub struct Batches {
    sampler: Box<dyn Sampler>,
    rows: u64,
    size: BatchSize,
    last: LastBatch,
    rank: usize,
    world: usize,
    rng: Rng,
    /// The epoch of the row that comes next.
    epoch: u64,
    /// The number that a batch beginning with it gets.
    batch: u64,
    step: u64,
    carried: Option<Carried>,
    /// Scratch: what the sampler drew, and the batch over all ranks.
    drawn: Drawn,
    whole: Plan,
}

/// Settings of [`Batches`].
pub struct BatchesBuilder {
    batches: Batches,
}

impl BatchesBuilder {
    /// The seed of the draws; 0 if not given. The same on all ranks.
    pub fn seed(mut self, seed: u64) -> Self {
        self.batches.rng = Rng::seed_from_u64(seed);
        self
    }

    /// What becomes of the rows at an epoch's end that do not fill a batch; [`LastBatch::Keep`] if not given. Nothing to a
    /// sampler without epochs.
    pub fn last(mut self, last: LastBatch) -> Self {
        self.batches.last = last;
        self
    }

    /// This rank's part of the batches, `rank` from 0 out of `world`; the whole if not given.
    pub fn shard(mut self, rank: usize, world: usize) -> Self {
        (self.batches.rank, self.batches.world) = (rank, world);
        self
    }

    /// The batches.
    ///
    /// # Errors
    /// [`BatchesError::NoData`], [`BatchesError::Size`], [`BatchesError::Rank`] and [`BatchesError::LastOfBudget`].
    pub fn build(self) -> Result<Batches, BatchesError> {
        let batches = self.batches;
        if batches.rows == 0 {
            return Err(BatchesError::NoData);
        }
        batches.size.check(batches.rows)?;
        if batches.rank >= batches.world {
            return Err(BatchesError::Rank { rank: batches.rank, world: batches.world });
        }
        if matches!(batches.size, BatchSize::Budget(_))
            && matches!(batches.last, LastBatch::Drop | LastBatch::Pad)
        {
            return Err(BatchesError::LastOfBudget { last: batches.last });
        }
        Ok(batches)
    }
}

impl Batches {
    /// Batches of `size` that `sampler` draws from rows 0..`rows`.
    pub fn builder(sampler: impl Sampler + 'static, rows: u64, size: BatchSize) -> BatchesBuilder {
        Self::builder_of(Box::new(sampler), rows, size)
    }

    /// As [`builder`](Self::builder), for a sampler that was chosen at run time.
    pub fn builder_of(sampler: Box<dyn Sampler>, rows: u64, size: BatchSize) -> BatchesBuilder {
        let batches = Self {
            sampler,
            rows,
            size,
            last: LastBatch::default(),
            rank: 0,
            world: 1,
            rng: Rng::seed_from_u64(0),
            epoch: 0,
            batch: 0,
            step: 0,
            carried: None,
            drawn: Drawn::default(),
            whole: Plan::new(),
        };
        BatchesBuilder { batches }
    }

    /// Rows of the data set.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Batches there have been since training began.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The epoch of the row that comes next.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Writes the next batch over `plan`. O(rows of the batch over all ranks); allocates nothing in the steady state.
    ///
    /// A rank's part has no rows when the batch has fewer than there are ranks; it still steps with the others, with share 0.
    ///
    /// # Errors
    /// [`BatchesError::Sample`], and [`BatchesError::NeverFull`] when no epoch fills a batch and unfilled ones are dropped.
    pub fn next(&mut self, plan: &mut Plan) -> Result<(), BatchesError> {
        let mut whole = std::mem::take(&mut self.whole);
        whole.clear();
        whole.step = self.step;
        let filled = self.fill(&mut whole);
        if filled.is_ok() {
            self.step += 1;
            share_out(&whole, self.rank, self.world, plan);
        }
        self.whole = whole;
        filled
    }

    fn fill(&mut self, whole: &mut Plan) -> Result<(), BatchesError> {
        let ended = match self.size {
            BatchSize::Budget(_) => self.fill_budget(whole)?,
            _ => self.fill_counted(whole)?,
        };
        whole.batch = self.batch;
        whole.ends_epoch = ended;
        self.batch = if self.epoch == whole.epoch { self.batch + 1 } else { 0 };
        Ok(())
    }

    /// Fills a batch of a known number of rows. Returns whether it is the last that begins in its epoch.
    fn fill_counted(&mut self, whole: &mut Plan) -> Result<bool, BatchesError> {
        loop {
            let known = self.size.rows_at(self.step, self.epoch, self.rows);
            let size = known.expect("only a budget has none");
            let (mut place, full) = self.draw(size, whole)?;
            let mut ended = place.is_some_and(|at| at.drawn >= at.rows);
            let Some(at) = place else {
                return Ok(false);
            };
            whole.real = whole.rows.len();
            match self.last {
                LastBatch::Drop if !full => {
                    if at.rows < size as u64 {
                        return Err(BatchesError::NeverFull { size, rows: at.rows });
                    }
                    let step = whole.step;
                    whole.clear();
                    whole.step = step;
                    // What is dropped counts for nothing, so the batch that comes is the first of its epoch.
                    self.batch = 0;
                    continue;
                }
                LastBatch::Drop => {
                    let next = self.size.rows_at(self.step + 1, at.number, self.rows).expect("as above");
                    ended = at.rows - at.drawn < next as u64;
                }
                LastBatch::Pad => {
                    for i in 0..size - whole.real {
                        whole.rows.push(whole.rows[i]);
                        whole.probabilities.push(whole.probabilities[i]);
                        whole.passes.push(whole.passes[i]);
                    }
                }
                LastBatch::Wrap => {
                    let first = (whole.epoch_drawn, whole.epoch_rows);
                    while whole.rows.len() < size && place.is_some() {
                        (place, _) = self.draw(size - whole.rows.len(), whole)?;
                    }
                    whole.real = whole.rows.len();
                    (whole.epoch_drawn, whole.epoch_rows) = first;
                }
                LastBatch::Keep => {}
            }
            return Ok(ended);
        }
    }

    /// Fills a batch row by row until one does not fit; that one begins the next batch.
    fn fill_budget(&mut self, whole: &mut Plan) -> Result<bool, BatchesError> {
        // A clone counts a reference, and lets `self` draw meanwhile.
        let BatchSize::Budget(budget) = &self.size else { unreachable!("called for a budget") };
        let budget: Budget = budget.clone();
        let (mut filled, mut ended, mut first) = (Filled::default(), false, None);
        // Rows of length 0 always fit; no batch has more rows than the data.
        while (whole.rows.len() as u64) < self.rows {
            let (row, probability, place) = match self.carried.take() {
                Some(carried) => carried,
                None => self.draw_one()?,
            };
            if !filled.take(&budget, row) {
                self.epoch = place.map_or(0, |(number, ..)| number);
                self.carried = Some((row, probability, place));
                break;
            }
            whole.rows.push(row);
            whole.probabilities.push(probability);
            whole.passes.push(place.map_or(self.step, |(number, ..)| number));
            let Some((number, drawn, rows)) = place else { continue };
            let of_first = *first.get_or_insert(number) == number;
            if of_first {
                (whole.epoch, whole.epoch_drawn, whole.epoch_rows) = (number, drawn, Some(rows));
            }
            self.epoch = number + u64::from(drawn >= rows);
            if drawn >= rows {
                ended = true;
                if self.last == LastBatch::Keep {
                    break;
                }
            }
        }
        (whole.population, whole.real) = (self.rows, whole.rows.len());
        Ok(ended)
    }

    fn draw_one(&mut self) -> Result<Carried, BatchesError> {
        self.sampler.draw(&mut self.rng, 0..self.rows, 1, &mut self.drawn)?;
        let row = *self.drawn.rows.first().ok_or(SampleError::Empty)?;
        let probability = self.drawn.probabilities.first().copied().unwrap_or(1.0 / self.rows as f64);
        Ok((row, probability, self.sampler.epoch().map(|at| (at.number, at.drawn, at.rows))))
    }

    /// Appends up to `count` rows of one epoch to `whole`. Returns where the sampler then is, and whether they were `count`.
    fn draw(&mut self, count: usize, whole: &mut Plan) -> Result<(Option<Epoch>, bool), BatchesError> {
        self.sampler.draw(&mut self.rng, 0..self.rows, count, &mut self.drawn)?;
        let got = self.drawn.rows.len();
        if got == 0 {
            return Err(SampleError::Empty.into());
        }
        let place = self.sampler.epoch();
        if whole.rows.is_empty() {
            whole.epoch = place.map_or(0, |at| at.number);
        }
        whole.rows.extend_from_slice(&self.drawn.rows);
        whole.probabilities.extend_from_slice(&self.drawn.probabilities);
        whole.passes.resize(whole.rows.len(), place.map_or(self.step, |at| at.number));
        whole.population = self.drawn.population;
        whole.real = whole.rows.len();
        if let Some(at) = place {
            (whole.epoch_drawn, whole.epoch_rows) = (at.drawn, Some(at.rows));
            self.epoch = at.number + u64::from(at.drawn >= at.rows);
        }
        Ok((place, got == count))
    }

    /// Shows the position in training, and in the epoch, to `visitor`. What is loaded goes on with exactly the batches that
    /// would have come. The settings are the builder's and not in it; the number of rows is, to be compared.
    ///
    /// # Errors
    /// Those of the visitor; [`StateError::Invalid`] when the state is of a data set with another number of rows.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let mut rows = self.rows;
        scalar(visitor, "rows", &mut rows)?;
        if rows != self.rows {
            let why = format!("it is of a data set of {rows} rows, and this one has {}", self.rows);
            return Err(StateError::Invalid { path: "rows".into(), why });
        }
        value(visitor, "rng", &mut self.rng)?;
        scalar(visitor, "epoch", &mut self.epoch)?;
        scalar(visitor, "batch", &mut self.batch)?;
        scalar(visitor, "step", &mut self.step)?;
        let mut carried = self.carried;
        value(visitor, "carried", &mut carried)?;
        if let Some((row, ..)) = carried
            && row >= self.rows
        {
            let why = format!("row {row} is past the end of {} rows", self.rows);
            return Err(StateError::Invalid { path: "carried".into(), why });
        }
        self.carried = carried;
        scope(visitor, "sampler", |v| self.sampler.visit(0..self.rows, v))
    }
}

/// Writes every world-th row of `whole` from the rank-th on over `plan`.
fn share_out(whole: &Plan, rank: usize, world: usize, plan: &mut Plan) {
    plan.clear();
    if world == 1 {
        plan.rows.extend_from_slice(&whole.rows);
        plan.probabilities.extend_from_slice(&whole.probabilities);
        plan.passes.extend_from_slice(&whole.passes);
    } else {
        plan.rows.extend(whole.rows.iter().skip(rank).step_by(world));
        plan.probabilities.extend(whole.probabilities.iter().skip(rank).step_by(world));
        plan.passes.extend(whole.passes.iter().skip(rank).step_by(world));
    }
    plan.real = (whole.real + world - 1 - rank) / world;
    plan.total = whole.real;
    plan.population = whole.population;
    (plan.epoch, plan.batch, plan.step) = (whole.epoch, whole.batch, whole.step);
    (plan.ends_epoch, plan.epoch_drawn, plan.epoch_rows) =
        (whole.ends_epoch, whole.epoch_drawn, whole.epoch_rows);
}

impl std::fmt::Debug for Batches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batches")
            .field("rows", &self.rows)
            .field("size", &self.size)
            .field("last", &self.last)
            .field("rank", &self.rank)
            .field("world", &self.world)
            .field("epoch", &self.epoch)
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

/// Why there are no batches, or no next one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BatchesError {
    /// A data set of no rows.
    #[error("the data set has no rows, so there are no batches")]
    NoData,
    /// A batch size that gives none.
    #[error(transparent)]
    Size(#[from] BatchSizeError),
    /// A rank that the world has not.
    #[error("rank {rank} of {world} was asked for; ranks go from 0 to one below the size of the world")]
    Rank {
        /// The rank.
        rank: usize,
        /// The size of the world.
        world: usize,
    },
    /// A rule for sizes, where there is none.
    #[error(
        "a budget has no batch size that the last batch could lack, so it cannot be {last:?}; use Keep or Wrap"
    )]
    LastOfBudget {
        /// The rule.
        last: LastBatch,
    },
    /// Every batch would be dropped.
    #[error(
        "an epoch of {rows} rows does not fill one batch of {size}, and unfilled batches are dropped; \
         ask for smaller batches, or keep, pad or wrap the last"
    )]
    NeverFull {
        /// Rows of a batch.
        size: usize,
        /// Rows of an epoch.
        rows: u64,
    },
    /// The sampler drew nothing.
    #[error(transparent)]
    Sample(#[from] SampleError),
}
