//! The order in which sequences of unequal lengths go through a recurrent network: PyTorch's `PackedSequence`.

use super::{CollateError, SequenceLayout};
use std::cmp::Reverse;

/// How the steps of a batch of sequences lie when they are packed: all first steps, then all second steps, and so on, the
/// longest sequence first among them. So step t of every sequence that has one lies together, without padding.
///
/// With the lengths ℓ of B sequences, `batch_sizes[t]` = |{b : ℓ_b > t}| for t below the longest, and `sorted_indices` are the
/// places 0..B by falling length; of equal lengths the one that came first is first. It is what
/// `torch.nn.utils.rnn.pack_padded_sequence(…, enforce_sorted=False)` makes, except that PyTorch 2.11 leaves the order of equal
/// lengths to `torch.sort`, which is stable for up to 16 sequences and not beyond; any order gives the same results.
///
/// [`pack_into`](Self::pack_into) and [`unpack_into`](Self::unpack_into) work on padded memory; where the sequences are still in
/// a table, [`RaggedTable::pack_into`](super::RaggedTable::pack_into) packs them without padding first.
///
/// ```
/// use rl_minibatch::{Packing, SequenceLayout};
/// let mut packing = Packing::new();
/// packing.plan(&[2, 3, 1])?;
/// assert_eq!(packing.batch_sizes(), [3, 2, 1]);
/// assert_eq!(packing.sorted_indices(), [1, 0, 2]);
///
/// let padded = [10, 11, 0, 20, 21, 22, 30, 0, 0];
/// let (mut data, mut back) = (Vec::new(), Vec::new());
/// packing.pack_into(&padded, 3, 1, SequenceLayout::BatchFirst, &mut data)?;
/// assert_eq!(data, [20, 10, 30, 21, 11, 22]);
/// packing.unpack_into(&data, None, 1, SequenceLayout::BatchFirst, 0, &mut back)?;
/// assert_eq!(back, padded);
/// # Ok::<(), rl_minibatch::CollateError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packing {
    lengths: Vec<i64>,
    batch_sizes: Vec<i64>,
    sorted: Vec<i64>,
    unsorted: Vec<i64>,
    total: usize,
}

impl Packing {
    /// A packing of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Plans for sequences of these lengths. O(B log B + longest); allocates only to grow.
    ///
    /// # Errors
    /// [`CollateError::NoSequences`], [`CollateError::EmptySequence`] for a length below 1, as PyTorch refuses them, and
    /// [`CollateError::TooLarge`] when there is no memory for as many batch sizes as the longest has steps; the plan is then as
    /// it was.
    pub fn plan(&mut self, lengths: &[i64]) -> Result<(), CollateError> {
        if lengths.is_empty() {
            return Err(CollateError::NoSequences);
        }
        if let Some(position) = lengths.iter().position(|length| *length < 1) {
            return Err(CollateError::EmptySequence { position, length: lengths[position] });
        }
        // Lengths are believed only as far as there is memory for them.
        let longest = lengths.iter().copied().max().unwrap_or(0) as usize;
        let total = lengths.iter().try_fold(0i64, |sum, length| sum.checked_add(*length));
        let room = self.batch_sizes.try_reserve(longest.saturating_sub(self.batch_sizes.len()));
        let (Some(total), Ok(())) = (total, room) else {
            let (name, rows) = ("packed data".to_string(), lengths.len());
            return Err(CollateError::TooLarge { name, rows, steps: longest });
        };
        self.total = total as usize;
        self.lengths.clear();
        self.lengths.extend_from_slice(lengths);
        self.sorted.clear();
        self.sorted.extend(0..lengths.len() as i64);
        // With the place in the key the order is that of a stable sort, and nothing is allocated.
        self.sorted.sort_unstable_by_key(|place| (Reverse(lengths[*place as usize]), *place));
        self.unsorted.clear();
        self.unsorted.resize(lengths.len(), 0);
        for (rank, place) in self.sorted.iter().enumerate() {
            self.unsorted[*place as usize] = rank as i64;
        }
        self.batch_sizes.clear();
        // From the shortest on: as long as it lasts, all that are at least as long take part.
        for (rank, place) in self.sorted.iter().enumerate().rev() {
            self.batch_sizes.resize(lengths[*place as usize] as usize, rank as i64 + 1);
        }
        Ok(())
    }

    /// The lengths planned for, in the order in which they came.
    pub fn lengths(&self) -> &[i64] {
        &self.lengths
    }

    /// How many sequences have a step t, for each t: i64 `[longest]`.
    pub fn batch_sizes(&self) -> &[i64] {
        &self.batch_sizes
    }

    /// The places of the sequences by falling length: i64 `[B]`. An initial hidden state is permuted by it.
    pub fn sorted_indices(&self) -> &[i64] {
        &self.sorted
    }

    /// The inverse permutation, by which a final hidden state is put back into the order of the batch: i64 `[B]`.
    pub fn unsorted_indices(&self) -> &[i64] {
        &self.unsorted
    }

    /// Steps of all sequences together, the rows of packed data.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Packs padded data of `steps` steps of `step` elements each into `data`, `[total, step]`. O(elements written).
    ///
    /// # Errors
    /// [`CollateError::Elements`] when `padded` has not B · `steps` · `step` elements, [`CollateError::Steps`] when the longest
    /// sequence has more than `steps`. `data` is then untouched.
    pub fn pack_into<T: Copy>(
        &self,
        padded: &[T],
        steps: usize,
        step: usize,
        layout: SequenceLayout,
        data: &mut Vec<T>,
    ) -> Result<(), CollateError> {
        let sequences = self.lengths.len();
        self.check_steps(steps)?;
        let expected = sequences.saturating_mul(steps).saturating_mul(step);
        if padded.len() != expected {
            let (what, got) = ("padded data", padded.len());
            return Err(CollateError::Elements { what, expected, got, sequences, steps, step });
        }
        data.clear();
        data.reserve(self.total * step);
        self.each_cell(steps, layout, |cell| data.extend_from_slice(&padded[cell * step..][..step]));
        Ok(())
    }

    /// Pads packed data again: the inverse of [`pack_into`](Self::pack_into), PyTorch's `pad_packed_sequence`. `steps` is its
    /// `total_length`, the longest sequence's length where it is `None`; returned is what it came to. Elements beyond a
    /// sequence's end are `pad`. O(elements written).
    ///
    /// # Errors
    /// [`CollateError::Elements`] when `data` has not [`total`](Self::total) · `step` elements, [`CollateError::Steps`] when
    /// `steps` is less than the longest sequence has. `padded` is then untouched.
    pub fn unpack_into<T: Copy>(
        &self,
        data: &[T],
        steps: Option<usize>,
        step: usize,
        layout: SequenceLayout,
        pad: T,
        padded: &mut Vec<T>,
    ) -> Result<usize, CollateError> {
        let sequences = self.lengths.len();
        let steps = steps.unwrap_or(self.batch_sizes.len());
        self.check_steps(steps)?;
        let expected = self.total.saturating_mul(step);
        if data.len() != expected {
            let (what, got) = ("packed data", data.len());
            return Err(CollateError::Elements { what, expected, got, sequences, steps: self.total, step });
        }
        padded.clear();
        padded.resize(sequences * steps * step, pad);
        let mut from = 0;
        self.each_cell(steps, layout, |cell| {
            padded[cell * step..][..step].copy_from_slice(&data[from..from + step]);
            from += step;
        });
        Ok(steps)
    }

    /// Names the cell of the padded rectangle from which each packed row comes, in the order of the packed rows.
    fn each_cell(&self, steps: usize, layout: SequenceLayout, mut visit: impl FnMut(usize)) {
        for (time, &size) in self.batch_sizes.iter().enumerate() {
            for &place in &self.sorted[..size as usize] {
                visit(match layout {
                    SequenceLayout::BatchFirst => place as usize * steps + time,
                    SequenceLayout::SequenceFirst => time * self.lengths.len() + place as usize,
                });
            }
        }
    }

    fn check_steps(&self, steps: usize) -> Result<(), CollateError> {
        let longest = self.batch_sizes.len();
        if steps < longest { Err(CollateError::Steps { steps, longest }) } else { Ok(()) }
    }
}
