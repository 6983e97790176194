//! |δ| on its way back to the host.

use crate::shim::ShimError;
use crate::shim::cuda::{self, Event, Stream};
use tch::{Device, Kind, TchError, Tensor};

/// Brings |δ| of one update at a time to the host while the device goes on.
///
/// From a GPU it is copied into pinned memory right behind the update that made it, so reading it later waits for that update alone and not for the
/// one that was launched since.
#[derive(Debug, Default)]
pub(super) struct ReadBack {
    /// Pinned memory and the end of the copy into it, by turns.
    slots: Vec<(Tensor, Event)>,
    next: usize,
}

/// |δ| of an update, to be read by [`ReadBack::read`].
#[derive(Debug)]
pub(super) enum Errors {
    /// In this tensor.
    Here(Tensor),
    /// In this slot, once its copy is over.
    Coming(usize),
}

impl ReadBack {
    /// Sends `td_error` on its way. `overwritten` says that its memory is written to by a later update.
    pub(super) fn send(&mut self, td_error: &Tensor, overwritten: bool) -> Result<Errors, ShimError> {
        let index = match td_error.device() {
            // A program without the CUDA half has no events, and reads when it is asked to.
            Device::Cuda(index) if cuda::available().is_ok() => index,
            _ => {
                return Ok(Errors::Here(if overwritten {
                    td_error.copy()
                } else {
                    td_error.shallow_clone()
                }));
            }
        };
        if self.slots.is_empty() {
            for _ in 0..2 {
                let memory = Tensor::zeros(td_error.size(), (Kind::Float, Device::Cpu));
                self.slots.push((memory.pin_memory(td_error.device()), Event::new(false)?));
            }
        }
        let at = self.next;
        self.next = (at + 1) % self.slots.len();
        let (memory, copied) = &mut self.slots[at];
        cuda::copy_async(memory, &td_error.to_kind(Kind::Float))?;
        copied.record(&Stream::current(index)?)?;
        Ok(Errors::Coming(at))
    }

    /// The values; waits for the update that made them.
    pub(super) fn read(&self, errors: &Errors) -> Result<Vec<f32>, super::LearnerError> {
        let values = match errors {
            Errors::Here(tensor) => tensor,
            Errors::Coming(at) => {
                let (memory, copied) = &self.slots[*at];
                copied.synchronize()?;
                memory
            }
        };
        Ok(to_host(values)?)
    }
}

fn to_host(values: &Tensor) -> Result<Vec<f32>, TchError> {
    Vec::<f32>::try_from(values.to_kind(Kind::Float).to_device(Device::Cpu))
}
