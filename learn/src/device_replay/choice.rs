//! Which rows are drawn, and what their priorities become.

use super::intake::runs;
use super::sums::Sums;
use super::{DeviceReplay, DeviceReplayError};
use crate::staging::MiniBatch;
use rl_minibatch::SampleError;
use tch::{Device, Kind, Tensor, no_grad};

#[derive(Debug)]
pub(super) enum Choice {
    /// `[1]` each: the first drawable slot, i64, and how many there are, f64.
    Uniform {
        first: Tensor,
        count: Tensor,
        written: (u64, u64),
    },
    Proportional(Box<Proportional>),
}

#[derive(Debug)]
pub(super) struct Proportional {
    pub(super) sums: Sums,
    pub(super) alpha: f64,
    pub(super) epsilon: f64,
    /// The largest priority there has been, a scalar, f64.
    pub(super) largest: Tensor,
    /// −β, a scalar, f64, and what was written to it last.
    pub(super) exponent: Tensor,
    pub(super) written: f64,
}

/// Levels of the tree of priorities that measured fastest for so many rows on a CPU (`heights_measured` in `tests/device_replay.rs`; the table is in
/// `docs/gpu.md`). On a GPU, where a pass over many rows is cheap and an operation is dear, not measured yet.
pub(super) fn tree_height(capacity: usize, _device: Device) -> u32 {
    match capacity {
        0..=20_000 => 1,
        20_001..=5_000_000 => 2,
        _ => 3,
    }
}

impl DeviceReplay {
    /// The host's half of a draw, before [`sample`](Self::sample): takes rows in, writes what has changed to the device.
    pub(crate) fn begin(&mut self, beta: f64) -> Result<(), DeviceReplayError> {
        self.take_in()?;
        self.drawn_of = None;
        let live = self.live();
        if live.is_empty() {
            return Err(SampleError::Empty.into());
        }
        self.random.begin();
        let capacity = self.capacity;
        no_grad(|| match &mut self.choice {
            Choice::Uniform { first, count, written } => {
                let (number, oldest) = (live.end - live.start, live.start % capacity);
                // Of a ring of which every slot is drawn it does not matter which is the first.
                let now = (if number == capacity { 0 } else { oldest }, number);
                if *written != now {
                    *written = now;
                    let _ = first.fill_(now.0 as i64);
                    let _ = count.fill_(now.1 as f64);
                }
            }
            Choice::Proportional(p) => {
                if p.written != -beta {
                    p.written = -beta;
                    let _ = p.exponent.fill_(-beta);
                }
            }
        });
        Ok(())
    }

    /// The device's half: draws and gathers the batch. Reads nothing back and changes nothing on the host.
    pub(crate) fn sample(&self) -> Result<&MiniBatch, tch::TchError> {
        no_grad(|| {
            let shares = self.random.next();
            let mut slots = self.slots.shallow_clone();
            match &self.choice {
                Choice::Uniform { first, count, .. } => {
                    let offset = (shares * count).to_kind(Kind::Int64);
                    slots.f_copy_(&(offset + first).remainder(self.capacity as i64))?;
                }
                Choice::Proportional(p) => {
                    let found = p.sums.find(&shares);
                    // wᵢ = (N·P(i))^−β / maxⱼ wⱼ = (pᵢ / minⱼ pⱼ)^−β: N and Σp cancel.
                    let priorities = p.sums.get(&found);
                    let weights = (&priorities / priorities.amin([0i64].as_slice(), false)).pow(&p.exponent);
                    self.batch.weight().shallow_clone().f_copy_(&weights)?;
                    slots.f_copy_(&found)?;
                }
            }
            let _ = self.storage.f_index_select_out(&self.gathered, 0, &self.slots)?;
            if let Some(stacks) = &self.stacks {
                for (serials, out) in &stacks.columns {
                    stacks.store.gather(serials, out)?;
                }
            }
            Ok(&self.batch)
        })
    }

    /// Writes |δ| of the batch that was drawn last as its rows' priorities, p = (|δ| + ε)^α. Nothing where rows are drawn uniformly.
    pub(crate) fn write_back(&self, td_error: &Tensor) -> Result<(), tch::TchError> {
        let Choice::Proportional(p) = &self.choice else { return Ok(()) };
        no_grad(|| {
            let magnitudes = td_error.to_kind(Kind::Double).nan_to_num(0.0, 0.0, 0.0).abs();
            let priorities = magnitudes.g_add_scalar(p.epsilon).pow_tensor_scalar(p.alpha);
            p.sums.set(&self.slots, &priorities);
            let largest = priorities.amax([0i64].as_slice(), false);
            p.largest.shallow_clone().f_copy_(&p.largest.maximum(&largest))
        })
    }

    /// Draws a batch outside an update, and gives the keys of its rows: for tests and for looking at a buffer. Reads the keys back.
    ///
    /// # Errors
    /// Those of an update's draw.
    pub fn draw(&mut self, beta: f64) -> Result<(Vec<u64>, &MiniBatch), DeviceReplayError> {
        self.begin(beta)?;
        self.sample()?;
        self.drawn_of = Some((self.taken, self.from));
        let slots = Vec::<i64>::try_from(self.slots.to_device(Device::Cpu))?;
        let newest = self.taken - 1;
        // Of the keys of a slot, the newest one taken.
        let key = |slot: i64| newest - (newest % self.capacity + self.capacity - slot as u64) % self.capacity;
        Ok((slots.into_iter().map(key).collect(), &self.batch))
    }

    /// Writes |δ| of the batch that [`draw`](Self::draw) gave last.
    ///
    /// # Errors
    /// [`DeviceReplayError::Setting`] when rows came in or were forgotten since: their places would get others' priorities. libtorch's.
    ///
    /// # Panics
    /// When there are not as many as rows in a batch.
    pub fn update_priorities(&mut self, td_error: &Tensor) -> Result<(), DeviceReplayError> {
        assert_eq!(td_error.size(), [self.batch_rows as i64], "one |δ| for each row of the batch");
        if self.drawn_of != Some((self.taken, self.from)) {
            return Err(DeviceReplayError::Setting(
                "rows have come or gone since the batch was drawn; write its priorities before `take_in`"
                    .to_string(),
            ));
        }
        Ok(self.write_back(td_error)?)
    }

    /// The priorities of the live rows, oldest first; `None` where rows are drawn uniformly. Reads them back.
    pub fn priorities(&self) -> Option<Vec<f64>> {
        let Choice::Proportional(p) = &self.choice else { return None };
        let slots = runs(self.live(), self.capacity);
        let values = slots.map(|slots| p.sums.range(slots).to_device(Device::Cpu)).collect::<Vec<_>>();
        Some(values.iter().flat_map(|v| Vec::<f64>::try_from(v).expect("f64 on the CPU")).collect())
    }
}
