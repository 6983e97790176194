//! Combined experience replay: Zhang and Sutton, *A Deeper Look at Experience Replay*, 2017 (arXiv 1712.01275).

use crate::ReplayError;
use rl_minibatch::{Drawn, Priorities, Rng, SampleError, Sampler, StateError, StateVisitor, scope};
use std::ops::Range;

/// Puts the newest rows into every batch, and fills it up with what another sampler draws from the rows before them
/// (§5 of the paper, which takes one newest row and a uniform draw).
///
/// The newest rows have the last places of the batch, the newest of all the very last. A smaller batch holds as many of
/// them as it has room for. While a ring holds no other rows than these, batches go through them in turn. Otherwise the
/// newest rows do not come a second time: the other sampler is shown only the rows before them.
///
/// # Probabilities and weights
/// A newest row is in every batch, but the probability 1 would be of no use: weights made of it would not give the mean
/// over the buffer, for its place in the batch never holds another row. The stated probability is instead every row's
/// expected share of the batch of k: 1/k for each of m newest rows, and (k − m)/k · P(i) for a row that the other sampler
/// draws with probability P(i) from the rest. Weights made of these shares with β = 1 do give the mean over the buffer: it is
/// the balance heuristic of Veach and Guibas (*Optimally Combining Sampling Techniques for Monte Carlo Rendering*, 1995)
/// for two samplers of k − m and m places. But that also takes back the emphasis on the newest rows, which is the point:
/// the paper uses no weights, which is β = 0.
///
/// Cost: that of the other sampler, and with a prioritized one O(m · log capacity) for each batch beside it.
pub struct Combined {
    inner: Box<dyn Sampler>,
    newest: usize,
}

impl Combined {
    /// The `newest` newest rows, 1 in the paper, and the rest by `inner`.
    ///
    /// ```
    /// use rl_replay::{Combined, Dtype, Prioritized, Proportional, Replay, Schema, Uniform};
    /// let schema = || Schema::transition((Dtype::F32, &[4]), (Dtype::I64, &[]));
    /// let replay = Replay::builder(schema()?)
    ///     .capacity(100_000)
    ///     .sampler(Box::new(Combined::new(Box::new(Uniform), 1)?))
    ///     .build()?;
    /// let inner = Proportional::new(100_000, Prioritized::default())?;
    /// let prioritized = Replay::builder(schema()?)
    ///     .capacity(100_000)
    ///     .sampler(Box::new(Combined::new(Box::new(inner), 1)?))
    ///     .build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ReplayError::Setting`] when `newest` is 0.
    pub fn new(inner: Box<dyn Sampler>, newest: usize) -> Result<Self, ReplayError> {
        if newest == 0 {
            return Err(ReplayError::Setting { name: "newest", value: 0.0, expected: "at least 1" });
        }
        Ok(Self { inner, newest })
    }
}

impl std::fmt::Debug for Combined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Combined").field("newest", &self.newest).finish_non_exhaustive()
    }
}

impl Sampler for Combined {
    fn draw(
        &mut self,
        rng: &mut Rng,
        live: Range<u64>,
        count: usize,
        drawn: &mut Drawn,
    ) -> Result<(), SampleError> {
        if live.is_empty() {
            return Err(SampleError::Empty);
        }
        let newest = (self.newest as u64).min(count as u64);
        let rest = count - newest as usize;
        let rows = live.end - live.start;
        if newest > 0 && (rest == 0 || rows <= newest) {
            in_turn(live.end - newest.min(rows)..live.end, count, drawn);
            return Ok(());
        }
        self.inner.draw(rng, live.start..live.end - newest, rest, drawn)?;
        // Not all of the rest, from a sampler that draws from some of it.
        drawn.population += newest;
        if newest > 0 {
            let of_rest = rest as f64 / count as f64;
            drawn.probabilities.iter_mut().for_each(|probability| *probability *= of_rest);
            let of_one = 1.0 / count as f64;
            drawn.rows.extend(live.end - newest..live.end);
            drawn.probabilities.resize(count, of_one);
            drawn.lowest = drawn.lowest.map(|lowest| (lowest * of_rest).min(of_one));
        }
        Ok(())
    }

    fn priorities(&mut self) -> Option<&mut dyn Priorities> {
        self.inner.priorities()
    }

    fn memory_bytes(&self) -> u64 {
        self.inner.memory_bytes()
    }

    fn visit(&mut self, live: Range<u64>, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        scope(visitor, "inner", |visitor| self.inner.visit(live, visitor))
    }
}

/// A batch of nothing but `rows`, in turn, so that the last is the last: each comes as often as the others, or once more.
fn in_turn(rows: Range<u64>, count: usize, drawn: &mut Drawn) {
    let (places, population) = (count as u64, rows.end - rows.start);
    let times = |row: u64| places / population + u64::from(rows.end - 1 - row < places % population);
    let share = |row: &u64| times(*row) as f64 / count as f64;
    drawn.rows.clear();
    drawn.rows.extend((0..places).rev().map(|place| rows.end - 1 - place % population));
    drawn.probabilities.clear();
    drawn.probabilities.extend(drawn.rows.iter().map(share));
    drawn.lowest = Some(share(&rows.start));
    drawn.population = population;
}
