//! Rows put together by class.

use super::SamplerError;
use crate::Rng;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use std::ops::Range;

/// The rows of each class, and an order of them that changes.
#[derive(Clone, Debug)]
pub(super) struct Classes {
    /// Where each class begins; one more for the end.
    starts: Vec<usize>,
    /// Rows by class, in the order of their numbers.
    rows: Vec<u32>,
    /// The same, each class in its present order.
    order: Vec<u32>,
}

impl Classes {
    /// Row i is of class `labels[i]`, below `classes`. O(N + classes).
    pub fn new(labels: &[u32], classes: usize) -> Result<Self, SamplerError> {
        if labels.is_empty() {
            return Err(SamplerError::Empty);
        }
        let (rows, most) = (labels.len() as u64, u64::from(u32::MAX));
        if rows > most {
            return Err(SamplerError::TooManyRows { rows, most });
        }
        if let Some(row) = labels.iter().position(|label| *label as usize >= classes) {
            return Err(SamplerError::Label { row: row as u64, label: labels[row], classes });
        }
        let mut starts = vec![0usize; classes + 1];
        for label in labels {
            starts[*label as usize + 1] += 1;
        }
        for class in 0..classes {
            starts[class + 1] += starts[class];
        }
        let (mut next, mut rows) = (starts.clone(), vec![0; labels.len()]);
        for (row, label) in (0..).zip(labels) {
            let next = &mut next[*label as usize];
            rows[*next] = row;
            *next += 1;
        }
        Ok(Self { starts, order: rows.clone(), rows })
    }

    /// The number of classes.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// The number of rows.
    pub fn rows(&self) -> u64 {
        self.rows.len() as u64
    }

    /// The number of rows of `class`.
    pub fn size(&self, class: usize) -> usize {
        self.range(class).len()
    }

    /// The rows of `class` in their present order.
    pub fn of(&self, class: usize) -> &[u32] {
        &self.order[self.range(class)]
    }

    /// Puts the rows of `class` into the order that follows from `rng`, whatever their order was. O(rows of it).
    pub fn shuffle(&mut self, class: usize, rng: &mut Rng) {
        let range = self.range(class);
        self.order[range.clone()].copy_from_slice(&self.rows[range.clone()]);
        self.order[range].shuffle(rng);
    }

    /// [`shuffle`](Self::shuffle) by a key.
    pub fn shuffle_by(&mut self, class: usize, key: u64) {
        self.shuffle(class, &mut Rng::seed_from_u64(key));
    }

    pub fn memory_bytes(&self) -> u64 {
        8 * (self.starts.len() + self.rows.len()) as u64
    }

    fn range(&self, class: usize) -> Range<usize> {
        self.starts[class]..self.starts[class + 1]
    }
}
