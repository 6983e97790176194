//! A plain sampler in epochs, sequential or shuffled, as the tests' model.
#![allow(dead_code, reason = "each test binary uses its part")]

use rand::seq::SliceRandom;
use rl_minibatch::{
    Drawn, Epoch, Priorities, Rng, SampleError, Sampler, StateError, StateVisitor, scalar, value,
};
use std::ops::Range;

#[derive(Clone, Debug, Default)]
pub struct Epochs {
    pub shuffle: bool,
    order: Vec<u64>,
    number: u64,
    drawn: u64,
}

impl Epochs {
    pub fn sequential() -> Self {
        Self::default()
    }

    pub fn shuffled() -> Self {
        Self { shuffle: true, ..Self::default() }
    }
}

impl Sampler for Epochs {
    fn draw(
        &mut self,
        rng: &mut Rng,
        live: Range<u64>,
        count: usize,
        drawn: &mut Drawn,
    ) -> Result<(), SampleError> {
        let rows = live.end - live.start;
        if rows == 0 {
            return Err(SampleError::Empty);
        }
        if self.order.len() as u64 == self.drawn {
            if !self.order.is_empty() {
                self.number += 1;
            }
            self.drawn = 0;
            self.order.clear();
            self.order.extend(live);
            if self.shuffle {
                self.order.shuffle(rng);
            }
        }
        let from = self.drawn as usize;
        let to = (from + count).min(rows as usize);
        drawn.rows.clear();
        drawn.rows.extend_from_slice(&self.order[from..to]);
        drawn.probabilities.clear();
        drawn.probabilities.resize(to - from, 1.0 / rows as f64);
        drawn.population = rows;
        drawn.lowest = Some(1.0 / rows as f64);
        self.drawn = to as u64;
        Ok(())
    }

    fn priorities(&mut self) -> Option<&mut dyn Priorities> {
        None
    }

    fn epoch(&self) -> Option<Epoch> {
        Some(Epoch { number: self.number, drawn: self.drawn, rows: self.order.len() as u64 })
    }

    fn visit(&mut self, _live: Range<u64>, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        value(visitor, "order", &mut self.order)?;
        scalar(visitor, "number", &mut self.number)?;
        scalar(visitor, "drawn", &mut self.drawn)
    }
}
