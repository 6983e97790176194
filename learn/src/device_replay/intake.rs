//! Rows on their way from the inlet to the device.

use super::choice::Choice;
use super::{DeviceReplay, DeviceReplayError};
use crate::shim::ShimError;
use crate::shim::cuda::{self, Event, Stream};
use crate::staging::HostWords;
use rl_minibatch::Batch;
use rl_replay::ReplayError;
use std::ops::Range;
use tch::{Device, Kind, Tensor, no_grad};

/// Host memory through which rows go, and the end of the copy out of it.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) columns: Batch,
    pub(super) packed: HostWords,
    pub(super) copied: Option<Event>,
}

impl DeviceReplay {
    /// Has rows before `key` not be drawn any more: of a [`FrameStore`](super::FrameStore), those whose frames are gone.
    pub fn forget_before(&mut self, key: u64) {
        let live = self.live();
        let key = key.min(live.end);
        if key <= live.start {
            return;
        }
        if let Choice::Proportional(p) = &self.choice {
            let zero = Tensor::zeros([], (Kind::Double, self.device));
            no_grad(|| runs(live.start..key, self.capacity).for_each(|slots| p.sums.fill(slots, &zero)));
        }
        self.from = key;
    }

    /// Takes whole blocks of rows from the inlet, as many as there are. To be called before the inlet comes around: it has to hold a block and
    /// what is inserted between two calls. Between updates only; the learner calls it before each.
    ///
    /// # Errors
    /// [`DeviceReplayError::Overrun`] when it was called too late; libtorch's.
    pub fn take_in(&mut self) -> Result<(), DeviceReplayError> {
        // Before frames are taken: a row that is in its inlet has its frames in theirs.
        let inserted = self.inlet_handle.inserted();
        let taken = self.taken;
        if inserted < taken {
            return Err(DeviceReplayError::Setting(format!(
                "{taken} rows were taken from the inlet, and {inserted} were ever inserted there; load the inlet's state along with the buffer's"
            )));
        }
        let frames = self.stacks.as_mut().map(|stacks| stacks.store.take_in()).transpose()?;
        while inserted - self.taken >= self.block_rows as u64 {
            self.take_block()?;
        }
        if let (Some(first), Some(stacks)) = (frames, &mut self.stacks)
            && let Some(from) = stacks.store.drawable_from(first)
        {
            self.forget_before(from);
        }
        Ok(())
    }

    fn take_block(&mut self) -> Result<(), DeviceReplayError> {
        let n = self.block_rows;
        let keys: Vec<u64> = (self.taken..self.taken + n as u64).collect();
        self.inlet.pin()?.gather(&keys, &mut self.block.columns.view_mut()).map_err(|e| match e {
            ReplayError::NotLive { end, .. } => DeviceReplayError::Overrun {
                inserted: end,
                taken: self.taken,
                capacity: self.inlet_handle.capacity(),
            },
            other => other.into(),
        })?;
        if let Some(copied) = &self.block.copied {
            copied.synchronize()?; // the block before: long over
        }
        if let Some(stacks) = &mut self.stacks {
            let serials = |name: &str| self.block.columns.typed::<i64>(name).expect("checked by with_frames");
            let (obs, next_obs) = (serials("obs"), serials("next_obs"));
            for (row, &key) in keys.iter().enumerate() {
                let stack = |serials: &[i64]| {
                    serials.chunks_exact(serials.len() / n).nth(row).unwrap_or_default().to_vec()
                };
                stacks.store.note(key, stack(obs).into_iter().chain(stack(next_obs)));
            }
        }
        let columns: Vec<&[u8]> =
            (0..self.schema.fields().len()).map(|i| self.block.columns.column(i)).collect();
        self.words.pack(&columns, n, self.block.packed.bytes_mut());
        let keys = self.taken..self.taken + n as u64;
        let mut done = 0;
        no_grad(|| {
            for slots in runs(keys, self.capacity) {
                let (rows, to) = (slots.end - slots.start, slots.start);
                let from = self.block.packed.tensor().narrow(0, done, rows);
                cuda::copy_async(&self.storage.narrow(0, to, rows), &from)?;
                if let Choice::Proportional(p) = &self.choice {
                    p.sums.fill(slots, &p.largest);
                }
                done += rows;
            }
            Ok::<_, ShimError>(())
        })?;
        if let (Some(copied), Device::Cuda(device)) = (&mut self.block.copied, self.device) {
            copied.record(&Stream::current(device)?)?;
        }
        self.taken += n as u64;
        Ok(())
    }
}

/// The slots of keys that follow each other, at most once around the ring: one run or two.
pub(super) fn runs(keys: Range<u64>, capacity: u64) -> impl Iterator<Item = Range<i64>> {
    let (first, count) = (keys.start % capacity, keys.end - keys.start);
    debug_assert!(count <= capacity);
    let before = count.min(capacity - first);
    let run = |from: u64, n: u64| from as i64..(from + n) as i64;
    [run(first, before), run(0, count - before)].into_iter().filter(|run| !run.is_empty())
}
