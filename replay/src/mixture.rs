//! Batches of several buffers by ratio, as for learning from online and offline data at once.

use crate::{Reader, ReplayError};
use rl_minibatch::{
    BatchMut, Drawn, Field, Rng, SampleError, Schema, StateError, StateVisitor, Updated, check_magnitudes,
    slice,
};
use std::ops::Range;

/// Ratios are kept in units of this, so that what is owed adds up exactly for ever.
const WHOLE: u64 = 1 << 52;

/// Draws batches from several buffers of one schema, a fixed share from each: half from what the agent does now and half
/// from data of others, for instance (Ball, Smith, Kostrikov and Levine, *Efficient Online Reinforcement Learning with
/// Offline Data*, 2023).
///
/// The rows of a buffer come one after the other, in the order of the buffers; [`Mixed`] tells which they are. Where a
/// buffer's share of a batch is no whole number, it is rounded and the difference carried over, so after any number of
/// batches each buffer has given its ratio of all rows to within as many rows as there are buffers.
///
/// # Probabilities and weights
/// Row i of buffer j, which has the ratio r_j, is stated with the probability `r_j · P_j(i)`, its share of the mixture in
/// the long run, and the population is N = Σ N_j. [`importance_weights`](crate::importance_weights) of [`Mixed::drawn`] then
/// gives `(N · r_j · P_j(i))^−β`, which with β = 1 takes the mean over all rows of all buffers, and so undoes the ratios
/// too. To keep the ratios and correct only for priorities within each buffer, make the weights of each
/// [`MixedPart::drawn`] alone: `(N_j · P_j(i))^−β`.
///
/// ```
/// use rand::SeedableRng;
/// use rl_replay::{Batch, Dtype, Mixed, Mixture, Replay, Rng, Schema};
/// let schema = Schema::transition((Dtype::F32, &[1]), (Dtype::I64, &[]))?;
/// let [online, offline] = [(); 2].map(|()| Replay::builder(schema.clone()).capacity(100).build());
/// let (online, offline) = (online?, offline?);
/// for (buffer, x) in [(&online, 0.0f32), (&offline, 1.0)] {
///     let x = x.to_ne_bytes();
///     buffer.writer().push(&[&x, &[0; 8], &x, &x, &x])?;
/// }
/// let mut mixture = Mixture::new([(online.sampler(), 0.25), (offline.sampler(), 0.75)])?;
/// let (mut batch, mut mixed) = (Batch::new(&schema, 8), Mixed::default());
/// mixture.sample_into(&mut Rng::seed_from_u64(0), 8, &mut batch.view_mut(), &mut mixed)?;
/// assert_eq!(batch.typed::<f32>("obs")?, [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
/// assert_eq!(mixed.parts()[1].places(), 2..8);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Mixture {
    sources: Vec<Source>,
    /// Rows that each buffer should have given beyond those it has, in units of 1/[`WHOLE`]; they add up to 0.
    owed: Vec<i64>,
    /// Parts of the batch being made, so that one that fails leaves the caller's as they are.
    making: Vec<MixedPart>,
    making_owed: Vec<i64>,
}

#[derive(Debug)]
struct Source {
    reader: Reader,
    /// In units of 1/[`WHOLE`]; together they are 1.
    ratio: u64,
}

/// What a [`Mixture`] drew. Reused from batch to batch, so that drawing allocates nothing in the steady state.
#[derive(Clone, Debug, Default)]
pub struct Mixed {
    drawn: Drawn,
    parts: Vec<MixedPart>,
}

/// The rows of a batch that came from one buffer.
#[derive(Clone, Debug, Default)]
pub struct MixedPart {
    places: Range<usize>,
    drawn: Drawn,
}

impl Mixed {
    /// All rows of the batch as one draw from all buffers; see [`Mixture`] for its probabilities. A key says nothing about
    /// the buffer that it belongs to: two buffers may both have a row with this key.
    pub fn drawn(&self) -> &Drawn {
        &self.drawn
    }

    /// For each buffer, in the order given to [`Mixture::new`], the rows that came from it, of which there may be none.
    pub fn parts(&self) -> &[MixedPart] {
        &self.parts
    }
}

impl MixedPart {
    /// The places that these rows have in the batch.
    pub fn places(&self) -> Range<usize> {
        self.places.clone()
    }

    /// Keys, probabilities and population in this buffer alone.
    pub fn drawn(&self) -> &Drawn {
        &self.drawn
    }
}

impl Mixture {
    /// Batches from the buffers of `readers`, in the ratio of the numbers beside them, which need not add up to 1.
    ///
    /// # Errors
    /// [`ReplayError::Setting`] when there is no reader, or a ratio is not finite, not above 0, or vanishes beside the others;
    /// [`ReplayError::Schemas`] when the buffers do not hold the same fields.
    pub fn new(readers: impl IntoIterator<Item = (Reader, f64)>) -> Result<Self, ReplayError> {
        let (readers, ratios): (Vec<Reader>, Vec<f64>) = readers.into_iter().unzip();
        let setting = |name, value, expected| Err(ReplayError::Setting { name, value, expected });
        if readers.is_empty() {
            return setting("the number of buffers in a mixture", 0.0, "at least 1");
        }
        if let Some(&bad) = ratios.iter().find(|ratio| !(ratio.is_finite() && **ratio > 0.0)) {
            return setting("the ratio of a buffer", bad, "finite and above 0");
        }
        for (position, reader) in readers.iter().enumerate() {
            if let Some(why) = difference(reader.schema(), readers[0].schema()) {
                return Err(ReplayError::Schemas { position, why });
            }
        }
        // Scaled down first, so that the sum is finite.
        let largest = ratios.iter().copied().fold(0.0, f64::max);
        let sum: f64 = ratios.iter().map(|ratio| ratio / largest).sum();
        let mut units: Vec<u64> =
            ratios.iter().map(|ratio| (ratio / largest / sum * WHOLE as f64) as u64).collect();
        if let Some(position) = units.iter().position(|units| *units == 0) {
            return setting(
                "the ratio of a buffer",
                ratios[position],
                "at least 1e-15 of all ratios together",
            );
        }
        // What rounding left over goes to the largest, where it is least.
        let most = (0..units.len()).max_by_key(|i| units[*i]).expect("there is a buffer");
        units[most] = units[most] + WHOLE - units.iter().sum::<u64>();
        let parts = readers.len();
        let sources =
            readers.into_iter().zip(units).map(|(reader, ratio)| Source { reader, ratio }).collect();
        Ok(Self {
            sources,
            owed: vec![0; parts],
            making: vec![MixedPart::default(); parts],
            making_owed: vec![0; parts],
        })
    }

    /// What a row holds, in all of the buffers.
    pub fn schema(&self) -> &Schema {
        self.sources[0].reader.schema()
    }

    /// Draws `count` rows, from each buffer its share by that buffer's own sampler, and copies them into the first rows of
    /// `batch`. `mixed` tells which came from where. A buffer that
    /// has no row in this batch is asked for none, and may be empty.
    ///
    /// Allocates nothing once `mixed` has grown to `count`. Cost: as drawing from each buffer on its own.
    ///
    /// # Errors
    /// [`ReplayError::Batch`] when the batch is for another schema or too small; [`ReplayError::InMixture`] with the buffer's
    /// position and its error when nothing can be drawn from it. The batch, `mixed`, `rng` and what is carried over are then
    /// as they were; a buffer before it may have counted the draw, if its sampler counts draws.
    pub fn sample_into(
        &mut self,
        rng: &mut Rng,
        count: usize,
        batch: &mut BatchMut<'_>,
        mixed: &mut Mixed,
    ) -> Result<(), ReplayError> {
        batch.check(self.schema(), count)?;
        self.allot(count);
        let before = rng.clone();
        if let Err(error) = draw_parts(&mut self.sources, &mut self.making, 0, rng, batch) {
            *rng = before;
            return Err(error);
        }
        self.owed.copy_from_slice(&self.making_owed);
        std::mem::swap(&mut self.making, &mut mixed.parts);

        let all = &mut mixed.drawn;
        all.rows.clear();
        all.probabilities.clear();
        all.population = 0;
        all.lowest = Some(1.0);
        for (source, MixedPart { drawn, .. }) in self.sources.iter().zip(&mixed.parts) {
            if drawn.population == 0 {
                continue;
            }
            let ratio = source.ratio as f64 / WHOLE as f64;
            all.rows.extend_from_slice(&drawn.rows);
            all.probabilities.extend(drawn.probabilities.iter().map(|probability| ratio * probability));
            all.population += drawn.population;
            all.lowest = all.lowest.zip(drawn.lowest).map(|(all, part)| all.min(ratio * part));
        }
        Ok(())
    }

    /// Sends magnitudes such as |δ|, one for each row of the batch that `mixed` tells of, back to the buffers that the rows
    /// came from; see [`Reader::update_priorities`]. Buffers that keep no priorities are left out, and what came for
    /// them is counted neither as applied nor as stale.
    ///
    /// # Errors
    /// [`ReplayError::Sample`] when no buffer keeps priorities, when there are not as many magnitudes as rows, or when one is
    /// negative, NaN or infinite; [`ReplayError::Setting`] when `mixed` comes from a mixture of another number of
    /// buffers. No priority has changed then. [`ReplayError::InMixture`] when a sampler of your own refuses them.
    pub fn update_priorities(&mut self, mixed: &Mixed, magnitudes: &[f32]) -> Result<Updated, ReplayError> {
        check_magnitudes(&mixed.drawn.rows, magnitudes)?;
        if mixed.parts.len() != self.sources.len() {
            return Err(ReplayError::Setting {
                name: "the number of buffers that were drawn from",
                value: mixed.parts.len() as f64,
                expected: "that of the mixture which sends priorities back",
            });
        }
        let (mut updated, mut kept) = (Updated::default(), false);
        for (position, (source, part)) in self.sources.iter_mut().zip(&mixed.parts).enumerate() {
            match source.reader.update_priorities(&part.drawn.rows, &magnitudes[part.places()]) {
                Ok(Updated { applied, stale }) => {
                    kept = true;
                    updated.applied += applied;
                    updated.stale += stale;
                }
                Err(ReplayError::Sample(SampleError::NoPriorities)) => {}
                Err(source) => return Err(ReplayError::InMixture { position, source: Box::new(source) }),
            }
        }
        if kept { Ok(updated) } else { Err(SampleError::NoPriorities.into()) }
    }

    /// Shows what is carried over between batches. The buffers are not shown; each has a
    /// [`visit`](crate::Replay::visit) of its own.
    ///
    /// # Errors
    /// Those of the visitor, and [`StateError::Invalid`] for numbers that do not come from a mixture; nothing has
    /// changed then.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let mut owed = self.owed.clone();
        slice(visitor, "owed", &mut owed)?;
        let limit = i128::from(WHOLE) * owed.len() as i128;
        let sum: i128 = owed.iter().copied().map(i128::from).sum();
        if sum != 0 || owed.iter().any(|owed| i128::from(*owed).abs() > limit) {
            let why = "what the buffers owe does not add up to nothing".to_string();
            return Err(StateError::Invalid { path: "owed".into(), why });
        }
        self.owed = owed;
        Ok(())
    }

    /// Decides the places of each buffer in a batch of `count`, and what is owed after it.
    fn allot(&mut self, count: usize) {
        self.making.resize_with(self.sources.len(), MixedPart::default);
        self.making_owed.copy_from_slice(&self.owed);
        let mut left = count;
        for ((part, owed), source) in self.making.iter_mut().zip(&mut self.making_owed).zip(&self.sources) {
            let due = count as u128 * u128::from(source.ratio);
            part.places = 0..(due / u128::from(WHOLE)) as usize;
            *owed += (due % u128::from(WHOLE)) as i64;
            left -= part.places.end;
        }
        // The whole rows are given. The others, fewer than there are buffers, go to whom most is owed.
        for _ in 0..left {
            let owed = &self.making_owed;
            let most = (1..owed.len()).fold(0, |most, i| if owed[i] > owed[most] { i } else { most });
            self.making_owed[most] -= WHOLE as i64;
            self.making[most].places.end += 1;
        }
        let mut start = 0;
        for part in &mut self.making {
            part.places = start..start + part.places.end;
            start = part.places.end;
        }
    }
}

/// Draws the parts one after the other, and copies the rows when all are drawn: until then the earlier ones stay pinned,
/// each by one call of this function, so that no list of pins is needed.
fn draw_parts(
    sources: &mut [Source],
    parts: &mut [MixedPart],
    position: usize,
    rng: &mut Rng,
    batch: &mut BatchMut<'_>,
) -> Result<(), ReplayError> {
    let (Some((source, sources)), Some((part, parts))) = (sources.split_first_mut(), parts.split_first_mut())
    else {
        return Ok(());
    };
    let in_mixture = |source| ReplayError::InMixture { position, source: Box::new(source) };
    let drawn = &mut part.drawn;
    let pinned = source.reader.pin().and_then(|mut pinned| {
        pinned.draw(rng, part.places.len(), drawn)?;
        Ok(pinned)
    });
    match pinned {
        Ok(pinned) => {
            draw_parts(sources, parts, position + 1, rng, batch)?;
            pinned.gather(&drawn.rows, &mut batch.rows_mut(part.places.clone())).map_err(in_mixture)
        }
        // A buffer that gives nothing to this batch may as well be empty.
        Err(_) if part.places.is_empty() => {
            *drawn = Drawn::default();
            draw_parts(sources, parts, position + 1, rng, batch)
        }
        Err(error) => Err(in_mixture(error)),
    }
}

/// What the schema of a buffer has that the first one's has not.
fn difference(schema: &Schema, first: &Schema) -> Option<String> {
    let describe = |field: Option<&Field>| match field {
        Some(Field { name, dtype, shape }) => format!("'{name}: {dtype} {shape:?}'"),
        None => "missing".to_string(),
    };
    let fields = schema.fields().len().max(first.fields().len());
    (0..fields).find_map(|position| {
        let [here, there] = [schema, first].map(|schema| schema.fields().get(position));
        let (found, expected) = (describe(here), describe(there));
        (here != there)
            .then(|| format!("its field {position} is {found}, and that of buffer 0 is {expected}"))
    })
}
