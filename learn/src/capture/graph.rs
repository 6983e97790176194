//! Steps as CUDA graphs.

use super::{Recorded, Recorder, Step, line};
use crate::agent::{AgentError, Update};
use crate::shim::cuda::{self, Event, Graph, Pool, Stream};
use crate::shim::{ShimError, panic_text};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// CUDA graphs. Steps are warmed up and captured on a stream of their own, which waits for the current one and is waited for by it.
#[derive(Debug)]
pub(super) struct CudaRecorder {
    device: usize,
    side: Stream,
    /// Shared by the graphs, which are replayed one after the other. A graph's outputs may lie where one that was captured before it has its
    /// intermediate values, and so hold until the next replay of any.
    pool: Pool,
    begins: Event,
    ends: Event,
}

impl CudaRecorder {
    pub(super) fn new(device: usize) -> Result<Self, ShimError> {
        cuda::available()?;
        Ok(Self {
            device,
            side: Stream::new(device)?,
            pool: Pool::new()?,
            begins: Event::new(false)?,
            ends: Event::new(false)?,
        })
    }

    /// Does `work` with the side stream as the current one, in order with what comes before and after.
    fn beside<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> Result<T, ShimError> {
        /// Back to the stream of before, also when `work` panics.
        struct Back(Stream);
        impl Drop for Back {
            fn drop(&mut self) {
                // There is nobody to tell; the next launch fails with CUDA's own message.
                let _ = self.0.set();
            }
        }
        let current = Stream::current(self.device)?;
        self.begins.record(&current)?;
        self.begins.hold(&self.side)?;
        self.side.set()?;
        let back = Back(current);
        let done = work(self);
        self.ends.record(&self.side)?;
        self.ends.hold(&back.0)?;
        Ok(done)
    }
}

impl Recorder for CudaRecorder {
    fn warm_up(&mut self, step: Step<'_>) -> Result<Update, AgentError> {
        self.beside(|_| step())?
    }

    fn record(&mut self, step: Step<'_>) -> Result<Box<dyn Recorded>, String> {
        let recorded = self.beside(|this| -> Result<CudaRecorded, String> {
            // What is still under way must not end in the middle of the capture.
            this.side.synchronize().map_err(|e| e.0)?;
            let mut graph = Graph::new(this.pool).map_err(|e| e.0)?;
            graph.begin().map_err(|e| e.0)?;
            let outputs = quietly(step);
            // Ends the capture whatever came of the step; its own error is the better one.
            let ended = graph.end().map_err(|e| e.0);
            let outputs = outputs?;
            ended?;
            Ok(CudaRecorded { graph, outputs })
        });
        Ok(Box::new(recorded.map_err(|e| e.0)??))
    }
}

#[derive(Debug)]
struct CudaRecorded {
    graph: Graph,
    outputs: Update,
}

impl Recorded for CudaRecorded {
    fn replay(&mut self, _: Step<'_>) -> Result<&Update, AgentError> {
        self.graph.replay()?;
        Ok(&self.outputs)
    }
}

/// Runs `step`, and gives an error or a panic (tch's operators panic where libtorch refuses) as text, without the panic's usual message.
pub(super) fn quietly(step: Step<'_>) -> Result<Update, String> {
    thread_local!(static QUIET: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
    QUIET.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(step));
    QUIET.set(false);
    match outcome {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(payload) => Err(line(&panic_text(&*payload)).to_string()),
    }
}
