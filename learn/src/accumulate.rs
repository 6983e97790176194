//! Gradient accumulation: a batch that goes through the network in pieces and steps once.

use crate::shim::{self, ShimError};
use rl_minibatch::{NoiseScale, StateError, StateVisitor};
use tch::Tensor;

/// Sums the gradients of micro-batches into the gradient of the batch they make up.
///
/// A batch's loss is Σₖ shareₖ·lossₖ over its micro-batches, where shareₖ is the part of the batch's rows in micro-batch k when a loss is
/// a mean over rows, or the part of its loss weights when it is divided by their sum; `rl_minibatch`'s micro-batches come with
/// their share. So is its gradient, also when the last micro-batch is smaller, up to the rounding of the sums. What depends on
/// the batch as a whole does not add up like this: batch normalization in training sees micro-batches.
///
/// A batch of one micro-batch is the same code and costs nothing more than [`gradients`](crate::gradients): its gradients are handed
/// on as they come. From the second micro-batch on they are added up in memory that is kept from batch to batch.
///
/// ```
/// use rl_learn::{Accumulator, Device, Kind, Optimizer, OptimizerConfig, Tensor};
///
/// let weight = Tensor::ones([3], (Kind::Double, Device::Cpu)).set_requires_grad(true);
/// let mut accumulator = Accumulator::new(vec![weight.shallow_clone()]);
/// let rows = Tensor::from_slice(&[1.0, 2.0, 3.0, 4.0, 5.0]);
/// for (first, count) in [(0, 2), (2, 2), (4, 1)] {
///     let loss = (rows.narrow(0, first, count).unsqueeze(1) * &weight).sum_dim_intlist(1, false, Kind::Double).mean(Kind::Double);
///     accumulator.add(&loss, count as f64 / 5.0)?;
/// }
/// let whole = accumulator.finish()?;
/// assert!((whole.gradients()[0].double_value(&[0]) - 3.0).abs() < 1e-12);
/// # Ok::<(), rl_learn::AccumulateError>(())
/// ```
#[derive(Debug)]
pub struct Accumulator {
    parameters: Vec<Tensor>,
    /// One tensor a parameter, made by the first batch of two micro-batches.
    sums: Vec<Tensor>,
    pending: Pending,
    /// Sum of the shares so far.
    share: f64,
    micro_batches: usize,
    /// Whether norms are measured, and Σ shareₖ·|gₖ|² so far.
    measuring: bool,
    micro_norm2: Option<Tensor>,
    noise: Option<NoiseScale>,
    /// The norms of the batch before, and its rows: they are read when another batch is done, and nobody waits for them.
    unread: Option<(SquaredNorms, u64)>,
}

/// Where the gradients of the batch in hand are.
#[derive(Debug)]
enum Pending {
    Nothing,
    /// As the only micro-batch so far gave them.
    One(Vec<Tensor>),
    /// In `sums`.
    Summed,
}

/// The gradient of a whole batch.
#[derive(Debug)]
pub struct Accumulated<'a> {
    gradients: GradientsOf<'a>,
    norms: Option<SquaredNorms>,
}

#[derive(Debug)]
enum GradientsOf<'a> {
    One(Vec<Tensor>),
    Summed(&'a [Tensor]),
}

impl Accumulated<'_> {
    /// ∂loss/∂parameter of the batch, one a parameter. They may be clipped and unscaled in place.
    pub fn gradients(&self) -> &[Tensor] {
        match &self.gradients {
            GradientsOf::One(gradients) => gradients,
            GradientsOf::Summed(sums) => sums,
        }
    }

    /// What the gradient noise scale is estimated from, when it is [measured](Accumulator::measure) and there was more than one
    /// micro-batch. [`Accumulator::measure_noise`] does the estimating.
    pub fn norms(&self) -> Option<&SquaredNorms> {
        self.norms.as_ref()
    }
}

/// Squared 2-norms of gradients at the same parameters, scalars on the device (McCandlish et al. 2018, appendix A.1).
#[derive(Debug)]
pub struct SquaredNorms {
    /// Σₖ shareₖ·|gₖ|² over the micro-batches' own gradients. Its expectation is that of |g|² over rows/[`micro_batches`](Self::micro_batches)
    /// rows, also when the micro-batches are unequal: E|gₖ|² = |G|² + tr(Σ)/nₖ, so the shares nₖ/n leave |G|² + K·tr(Σ)/n.
    pub micro: Tensor,
    /// |g|² of the whole batch's gradient.
    pub whole: Tensor,
    /// K.
    pub micro_batches: usize,
}

impl SquaredNorms {
    fn shallow_clone(&self) -> Self {
        let Self { micro, whole, micro_batches } = self;
        Self { micro: micro.shallow_clone(), whole: whole.shallow_clone(), micro_batches: *micro_batches }
    }
}

impl Accumulator {
    /// An accumulator of gradients with respect to `parameters` (handles: they share the network's memory).
    ///
    /// # Panics
    /// When `parameters` is empty.
    pub fn new(parameters: Vec<Tensor>) -> Self {
        assert!(!parameters.is_empty(), "an accumulator needs a parameter");
        Self {
            parameters,
            sums: Vec::new(),
            pending: Pending::Nothing,
            share: 0.0,
            micro_batches: 0,
            measuring: false,
            micro_norm2: None,
            noise: None,
            unread: None,
        }
    }

    /// Whether squared norms are measured, from the next batch on; off at first. They cost a pass over the gradients a micro-batch.
    pub fn measure(&mut self, on: bool) {
        self.measuring = on;
    }

    /// Feeds `noise` with the norms of the batches to come that are ended with [`finish_batch`](Self::finish_batch), or feeds none any more.
    /// It costs what [`measure`](Self::measure) does, and two numbers a batch read from the device, one batch late.
    ///
    /// The noise scale is that of losses that are means over rows, shares being parts of the rows. With a
    /// [`GradScaler`](crate::amp::GradScaler) the norms are those of the scaled gradients: [`rows`](rl_minibatch::NoiseEstimate::rows) is their
    /// ratio and does not depend on the scale, but a change of the scale is forgotten only in the course of the average. The norms of
    /// a batch that overflowed are left out.
    ///
    /// ```
    /// use rl_learn::{Accumulator, Device, Kind, Tensor};
    /// use rl_minibatch::{NoiseScale, micro_batches};
    ///
    /// let weight = Tensor::zeros([1], (Kind::Double, Device::Cpu)).set_requires_grad(true);
    /// let mut accumulator = Accumulator::new(vec![weight.shallow_clone()]);
    /// accumulator.measure_noise(Some(NoiseScale::new(0.99)?));
    /// let rows = Tensor::from_slice(&[1.0, 2.0, 3.0, 4.0, 5.0]);
    /// for _ in 0..3 {
    ///     for micro in micro_batches(5, 2) {
    ///         let (first, count) = (micro.rows.start as i64, micro.rows.len() as i64);
    ///         accumulator.add(&(rows.narrow(0, first, count) * &weight).mean(Kind::Double), micro.weight)?;
    ///     }
    ///     let whole = accumulator.finish_batch(5)?;
    ///     assert_eq!(whole.gradients()[0].double_value(&[0]), 3.0);
    /// }
    /// let found = accumulator.noise_scale().and_then(|noise| noise.estimate()).expect("three batches");
    /// assert_eq!(found.batch_size(1024), 1, "rows that agree so well need no large batch");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn measure_noise(&mut self, noise: Option<NoiseScale>) {
        (self.noise, self.unread) = (noise, None);
    }

    /// The noise scale that is fed, the latest batch included; waits for that batch's norms.
    pub fn noise_scale(&mut self) -> Option<&NoiseScale> {
        self.read();
        self.noise.as_ref()
    }

    /// Takes in what has not been read yet.
    fn read(&mut self) {
        if let (Some(noise), Some((norms, rows))) = (&mut self.noise, self.unread.take()) {
            let rows = rows as f64;
            let (micro, whole) = (norms.micro.double_value(&[]), norms.whole.double_value(&[]));
            // Refused is a norm that is not finite, of a batch that overflowed: it tells nothing.
            let _ = noise.observe((rows / norms.micro_batches as f64, micro), (rows, whole));
        }
    }

    /// Shows the noise scale, if one is fed, to `visitor`; to be called between batches, whose gradients are not shown.
    ///
    /// # Errors
    /// Those of the visitor.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        self.read();
        self.noise.as_mut().map_or(Ok(()), |noise| noise.visit(visitor))
    }

    /// Takes in a micro-batch with its share of the batch, above 0 and at most 1: differentiates `loss`, a scalar, frees its graph, and
    /// adds share · gradient. With a [`GradScaler`](crate::amp::GradScaler) `loss` is scaled, with one scale for the batch.
    ///
    /// # Errors
    /// When the share is none, the loss no scalar, or independent of one of the parameters; the batch in hand is then given up.
    pub fn add(&mut self, loss: &Tensor, share: f64) -> Result<(), AccumulateError> {
        self.take_in(loss, share).inspect_err(|_| self.discard())
    }

    fn take_in(&mut self, loss: &Tensor, share: f64) -> Result<(), AccumulateError> {
        if !(share > 0.0 && share <= 1.0) {
            return Err(AccumulateError::Share { share });
        }
        if loss.numel() != 1 {
            return Err(AccumulateError::NotScalar { shape: loss.size() });
        }
        // Autograd does not ask: it would follow a null pointer.
        if !loss.requires_grad() {
            return Err(AccumulateError::Independent { parameter: 0 });
        }
        // The factor goes into the loss: a scalar operation, where scaling the gradients would pass over all of them.
        let shared = if share == 1.0 { loss.shallow_clone() } else { loss * share };
        let gradients = Tensor::f_run_backward(&[shared], &self.parameters, false, false)?;
        if let Some(parameter) = gradients.iter().position(|gradient| !gradient.defined()) {
            return Err(AccumulateError::Independent { parameter });
        }
        if self.measuring || self.noise.is_some() {
            // |share·g|²/share = share·|g|²
            let norm2 = shim::squared_norm(&gradients)? / share;
            self.micro_norm2 = Some(match self.micro_norm2.take() {
                Some(sum) => sum + norm2,
                None => norm2,
            });
        }
        self.pending = match std::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Nothing => Pending::One(gradients),
            Pending::One(first) => {
                if self.sums.is_empty() {
                    self.sums = self.parameters.iter().map(|p| p.detach().empty_like()).collect();
                }
                // Autograd's own tensors may share memory with one another, so they are copied before anything is added.
                shim::foreach_copy(&self.sums, &first)?;
                shim::accumulate(&self.sums, &gradients)?;
                Pending::Summed
            }
            Pending::Summed => {
                shim::accumulate(&self.sums, &gradients)?;
                Pending::Summed
            }
        };
        self.share += share;
        self.micro_batches += 1;
        Ok(())
    }

    /// Ends the batch and gives its gradient; the next [`add`](Self::add) begins another. Gradients of several micro-batches lie in the
    /// accumulator's own memory, at the same place batch after batch.
    ///
    /// # Errors
    /// [`AccumulateError::Incomplete`] when the shares do not make up a whole within 1e-6; the batch is given up.
    pub fn finish(&mut self) -> Result<Accumulated<'_>, AccumulateError> {
        self.end(None)
    }

    /// As [`finish`](Self::finish), of a batch of `rows` rows over all micro-batches, which [`measure_noise`](Self::measure_noise) needs to know. A
    /// batch of one micro-batch tells nothing of noise and is passed over.
    ///
    /// # Errors
    /// Those of [`finish`](Self::finish), and [`AccumulateError::Rows`] when there were more micro-batches than rows.
    pub fn finish_batch(&mut self, rows: u64) -> Result<Accumulated<'_>, AccumulateError> {
        let micro_batches = self.micro_batches;
        if rows < micro_batches as u64 {
            self.discard();
            return Err(AccumulateError::Rows { rows, micro_batches });
        }
        self.read();
        self.end(Some(rows))
    }

    fn end(&mut self, rows: Option<u64>) -> Result<Accumulated<'_>, AccumulateError> {
        let (share, micro_batches) = (self.share, self.micro_batches);
        let (pending, micro) =
            (std::mem::replace(&mut self.pending, Pending::Nothing), self.micro_norm2.take());
        self.discard();
        if (share - 1.0).abs() > 1e-6 {
            return Err(AccumulateError::Incomplete { share, micro_batches });
        }
        let gradients = match pending {
            Pending::One(gradients) => GradientsOf::One(gradients),
            _ => GradientsOf::Summed(&self.sums),
        };
        let mut accumulated = Accumulated { gradients, norms: None };
        if let (Some(micro), 2..) = (micro, micro_batches) {
            let whole = shim::squared_norm(accumulated.gradients())?;
            let norms = SquaredNorms { micro, whole, micro_batches };
            if let (Some(rows), Some(_)) = (rows, &self.noise) {
                self.unread = Some((norms.shallow_clone(), rows));
            }
            accumulated.norms = Some(norms);
        }
        Ok(accumulated)
    }

    /// A whole batch: `pieces` gives each micro-batch with its share, `loss` its loss, a scalar. One piece of share 1 is a batch that
    /// goes through at once.
    ///
    /// # Errors
    /// Those of `loss`, which end the batch, and those of [`add`](Self::add) and [`finish`](Self::finish).
    pub fn batch<P, E: From<AccumulateError>>(
        &mut self,
        pieces: impl IntoIterator<Item = (P, f64)>,
        mut loss: impl FnMut(P) -> Result<Tensor, E>,
    ) -> Result<Accumulated<'_>, E> {
        self.discard();
        for (piece, share) in pieces {
            let loss = loss(piece)?;
            self.add(&loss, share)?;
        }
        Ok(self.finish()?)
    }

    /// Gives up the batch in hand.
    pub fn discard(&mut self) {
        (self.pending, self.micro_norm2) = (Pending::Nothing, None);
        (self.share, self.micro_batches) = (0.0, 0);
    }
}

/// Why gradients could not be accumulated.
#[derive(Debug, thiserror::Error)]
pub enum AccumulateError {
    /// A share that is none.
    #[error(
        "a micro-batch's share of its batch is {share}; it must lie above 0 and be at most 1: its rows (or loss weights) over \
         those of the whole batch. Leave a micro-batch of no weight out"
    )]
    Share {
        /// What came.
        share: f64,
    },
    /// More micro-batches than rows.
    #[error(
        "a batch of {rows} rows came in {micro_batches} micro-batches; each has a row at least: give the rows of all of them"
    )]
    Rows {
        /// Rows said.
        rows: u64,
        /// How many micro-batches there were.
        micro_batches: usize,
    },
    /// Micro-batches that are not the whole batch, or more than it.
    #[error("{micro_batches} micro-batches make up {share} of their batch; their shares must add up to 1")]
    Incomplete {
        /// Sum of the shares.
        share: f64,
        /// How many there were.
        micro_batches: usize,
    },
    /// A kernel failed.
    #[error(transparent)]
    Kernel(#[from] ShimError),
    /// A loss of more than one number.
    #[error(
        "the loss of a micro-batch has shape {shape:?}; it must be a scalar: take the mean over its rows"
    )]
    NotScalar {
        /// Its shape.
        shape: Vec<i64>,
    },
    /// A loss that says nothing of a parameter.
    #[error(
        "the loss of a micro-batch does not depend on parameter {parameter} of the accumulator's (counted from 0, in their \
         order); leave that parameter out, and call this outside of no_grad"
    )]
    Independent {
        /// Its place.
        parameter: usize,
    },
    /// Autograd refused.
    #[error("the gradient of a micro-batch: {}", crate::first_line(.0))]
    Gradient(#[from] tch::TchError),
}
