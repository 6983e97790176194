//! Model parallel training: a sequential model in stages on devices of their own.

use crate::module::{Module, Role, buffers, parameters, walk_under};
use crate::norm::Phase;
use crate::shim::{self, ShimError};
use std::ops::Range;
use tch::{Device, Tensor, no_grad};

/// A part of a sequential model that lives on one device.
pub trait Stage: Module {
    /// The part's function of one tensor, on the stage's device. It is called once a micro-batch and must treat each by itself but for
    /// buffers, which it may move.
    fn forward(&self, x: &Tensor, phase: Phase) -> Tensor;
}

/// A stage of a module and a function of it.
///
/// ```
/// use rl_learn::{Device, Kind, Linear, Phase, Pipeline, Rng, StageOf, Tensor};
/// # use rand::SeedableRng;
/// let (rng, cpu) = (&mut Rng::seed_from_u64(0), Device::Cpu);
/// let first = StageOf::new(Linear::new(3, 8, rng, Kind::Float, cpu), |l, x, _| l.forward(x).relu());
/// let second = StageOf::new(Linear::new(8, 2, rng, Kind::Float, cpu), |l, x, _| l.forward(x));
/// let pipeline = Pipeline::new(vec![(Box::new(first), cpu), (Box::new(second), cpu)]);
/// let (x, target) = (Tensor::ones([5, 3], (Kind::Float, cpu)), Tensor::zeros([5, 2], (Kind::Float, cpu)));
/// // Two micro-batches, of three rows and of two.
/// let step = pipeline.gradients(&x, 2, Phase::Train, |y, rows| {
///     (y - target.narrow(0, rows.start, rows.end - rows.start)).square().mean(Kind::Float)
/// })?;
/// assert_eq!(step.gradients.len(), 4);
/// # Ok::<(), rl_learn::PipelineError>(())
/// ```
pub struct StageOf<M, F> {
    module: M,
    forward: F,
}

impl<M: Module, F: Fn(&M, &Tensor, Phase) -> Tensor> StageOf<M, F> {
    /// The stage that computes `forward` with `module`.
    pub fn new(module: M, forward: F) -> Self {
        Self { module, forward }
    }
}

impl<M: Module, F> Module for StageOf<M, F> {
    fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
        self.module.walk(show);
    }
}

impl<M: Module, F: Fn(&M, &Tensor, Phase) -> Tensor> Stage for StageOf<M, F> {
    fn forward(&self, x: &Tensor, phase: Phase) -> Tensor {
        (self.forward)(&self.module, x, phase)
    }
}

/// A step through a pipeline cannot be taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PipelineError {
    /// More micro-batches than rows, or none.
    #[error("{rows} rows cannot be cut into {micro_batches} micro-batches; use 1 to {rows}")]
    MicroBatches {
        /// Rows of the batch.
        rows: i64,
        /// What was asked for.
        micro_batches: usize,
    },
    /// The loss closure did not give one number, or one that does not depend on the model.
    #[error(
        "the loss of a micro-batch must be one number that depends on the output, not of shape {shape:?}"
    )]
    Loss {
        /// What came.
        shape: Vec<i64>,
    },
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] ShimError),
}

/// What one batch gave.
#[derive(Debug)]
pub struct PipelineStep {
    /// The mean loss over the batch's rows, a scalar on the last stage's device, outside autograd.
    pub loss: Tensor,
    /// Its gradients, one a parameter of [`parameters`]`(&pipeline)`, each on its stage's device.
    pub gradients: Vec<Tensor>,
}

/// A sequential model cut into stages, through which the micro-batches of a batch flow (GPipe: Huang et al. 2019, "GPipe: Efficient
/// Training of Giant Neural Networks using Pipeline Parallelism").
///
/// With K stages and M micro-batches, at tick t stage j goes forward with micro-batch t − j, so that all stages but for the first and last
/// K − 1 ticks have work; the backward passes run the same way in reverse. All is issued from one thread: stages overlap where devices
/// work on their own, GPUs beside each other and beside the CPU. Two stages on the CPU give the same numbers and no speed.
///
/// The gradients are those of the uncut model's mean loss over the batch: each micro-batch weighs its share of the rows, also when the rows do not
/// divide evenly. They differ by rounding alone, as sums in another order. With batch normalization a micro-batch is what gets
/// normalized, so the pipeline computes what [ghost batch normalization](crate::GhostBatchNorm) does, and running statistics move once
/// a micro-batch; the uncut model that equals it goes through the same micro-batches one by one.
///
/// As a [`Module`] it is the stages under their numbers, `0.weight`, as in PyTorch's `Sequential`.
pub struct Pipeline {
    stages: Vec<(Box<dyn Stage>, Device)>,
    recompute: bool,
}

impl Pipeline {
    /// The model that goes through `stages` in order, each with the device on which its parameters are.
    ///
    /// # Panics
    /// When there is no stage, or a tensor of a stage is not on its device.
    pub fn new(stages: Vec<(Box<dyn Stage>, Device)>) -> Self {
        assert!(!stages.is_empty(), "a pipeline needs a stage");
        for (i, (stage, device)) in stages.iter().enumerate() {
            stage.walk(&mut |name, tensor, _| {
                let found = tensor.device();
                assert!(
                    found == *device,
                    "'{name}' of stage {i} is on {found:?} and the stage on {device:?}"
                );
            });
        }
        Self { stages, recompute: false }
    }

    /// Whether a stage forgets what is between its input and output and computes it again in the backward pass (GPipe's
    /// re-materialization; Chen et al. 2016): memory for M inputs a stage instead of all activations, for a second forward pass. Off at first.
    /// The second pass sees the buffers as the first did, and leaves them alone, so that batch normalization counts nothing twice.
    #[must_use]
    pub fn recompute(self, recompute: bool) -> Self {
        Self { recompute, ..self }
    }

    /// The whole model's output of `x`, on the last stage's device; an ordinary function under autograd, without micro-batches.
    pub fn forward(&self, x: &Tensor, phase: Phase) -> Tensor {
        let through = |x: Tensor, (stage, device): &(Box<dyn Stage>, Device)| {
            stage.forward(&x.to_device(*device), phase)
        };
        self.stages.iter().fold(x.shallow_clone(), through)
    }

    /// Loss and gradients of the batch `x`, its rows cut into `micro_batches` runs that differ by one row at most.
    ///
    /// `loss` is given the output of a micro-batch, on the last stage's device, and which rows of the batch they are, and returns the *mean*
    /// loss over them. It has no parameters of its own; a trained loss is the last stage's.
    ///
    /// Between the calls all activations of the batch are kept, or with [`recompute`](Self::recompute) the stages' inputs.
    ///
    /// # Errors
    /// [`PipelineError`].
    ///
    /// # Panics
    /// When a stage does: its shapes do not fit.
    pub fn gradients(
        &self,
        x: &Tensor,
        micro_batches: usize,
        phase: Phase,
        mut loss: impl FnMut(&Tensor, Range<i64>) -> Tensor,
    ) -> Result<PipelineStep, PipelineError> {
        let rows = x.size()[0];
        if micro_batches == 0 || micro_batches as i64 > rows {
            return Err(PipelineError::MicroBatches { rows, micro_batches });
        }
        let (stages, cuts) = (self.stages.len(), cut(rows, micro_batches));
        let mut passes: Grid<Pass> = grid(stages, micro_batches);
        // What stands at the border before each stage going forward, and behind it going back.
        let (mut inputs, mut grads): (Grid<Tensor>, Grid<Tensor>) =
            (grid(stages, micro_batches), grid(stages, micro_batches));
        for (m, part) in cuts.iter().enumerate() {
            inputs[0][m] = Some(x.narrow(0, part.start, part.end - part.start).detach());
        }
        let mut total: Option<Tensor> = None;
        for tick in ticks(stages, micro_batches) {
            self.bring(&mut inputs, &tick);
            for &(j, m) in &tick {
                let Some(input) = inputs[j][m].take() else { continue };
                let (pass, output) = self.pass(j, &input, phase);
                passes[j][m] = Some(pass);
                if j + 1 < stages {
                    inputs[j + 1][m] = Some(output);
                } else {
                    let share = (cuts[m].end - cuts[m].start) as f64 / rows as f64;
                    let (part, grad) = loss_and_grad(&output, share, |y| loss(y, cuts[m].clone()))?;
                    total = Some(total.map_or_else(|| part.shallow_clone(), |sum| sum + &part));
                    grads[j][m] = Some(grad);
                }
            }
        }
        let mut sums: Vec<Option<Vec<Tensor>>> = (0..stages).map(|_| None).collect();
        for tick in ticks(stages, micro_batches).into_iter().rev() {
            self.bring(&mut grads, &tick);
            for &(j, m) in tick.iter().rev() {
                let (Some(pass), Some(grad)) = (passes[j][m].take(), grads[j][m].take()) else { continue };
                let (of_parameters, of_input) = self.pass_back(j, pass, &grad, phase)?;
                if j > 0 {
                    grads[j - 1][m] = of_input;
                }
                match &sums[j] {
                    Some(sum) => shim::foreach_add(sum, &of_parameters, 1.0)?,
                    // Copies, for two parameters' gradients may be one tensor.
                    None => sums[j] = Some(of_parameters.iter().map(Tensor::copy).collect()),
                }
            }
        }
        let zeros =
            |j: usize| parameters(&*self.stages[j].0).iter().map(|p| p.detach().zeros_like()).collect();
        let sums = sums.into_iter().enumerate().map(|(j, sum)| sum.unwrap_or_else(|| zeros(j)));
        let gradients = sums.flatten().collect();
        let loss = total.ok_or(PipelineError::MicroBatches { rows, micro_batches })?;
        Ok(PipelineStep { loss, gradients })
    }

    /// Copies what a tick works on to the devices of its stages. All copies come before the work: one to the host waits for its device, which
    /// has had the whole tick before to finish.
    fn bring(&self, tensors: &mut Grid<Tensor>, tick: &[(usize, usize)]) {
        for &(j, m) in tick {
            tensors[j][m] = tensors[j][m].take().map(|tensor| tensor.to_device(self.stages[j].1));
        }
    }

    /// Stage `j` goes forward. The output comes without its graph, which the pass keeps.
    fn pass(&self, j: usize, input: &Tensor, phase: Phase) -> (Pass, Tensor) {
        let stage = &self.stages[j].0;
        // The first stage's input is data, of which nobody wants the gradient.
        let input = input.detach().set_requires_grad(j > 0);
        if self.recompute {
            let before = buffers(&**stage).iter().map(Tensor::copy).collect();
            let output = no_grad(|| stage.forward(&input, phase));
            return (Pass { input, kept: Kept::BuffersBefore(before) }, output);
        }
        let output = stage.forward(&input, phase);
        let detached = output.detach();
        (Pass { input, kept: Kept::Output(output) }, detached)
    }

    /// Stage `j` goes back from the gradient of its output to those of its parameters and, behind the first stage, of its input.
    fn pass_back(
        &self,
        j: usize,
        pass: Pass,
        grad: &Tensor,
        phase: Phase,
    ) -> Result<(Vec<Tensor>, Option<Tensor>), PipelineError> {
        let stage = &self.stages[j].0;
        let input = pass.input;
        let (output, after) = match pass.kept {
            Kept::Output(output) => (output, None),
            Kept::BuffersBefore(before) => {
                let own = buffers(&**stage);
                let after: Vec<Tensor> = own.iter().map(Tensor::copy).collect();
                shim::foreach_copy(&own, &before)?;
                (stage.forward(&input, phase), Some((own, after)))
            }
        };
        let all = parameters(&**stage);
        let mut wanted: Vec<Tensor> =
            all.iter().chain([&input]).filter(|t| t.requires_grad()).map(Tensor::shallow_clone).collect();
        let mut found = match output.requires_grad() {
            true => shim::backward(&[output], std::slice::from_ref(grad), &wanted)?.into_iter(),
            false => {
                wanted.clear();
                Vec::new().into_iter()
            }
        };
        // Only now: the graph of the pass has seen the buffers as they were, and refuses any that were written to since.
        if let Some((own, after)) = after {
            shim::foreach_copy(&own, &after)?;
        }
        let any = !wanted.is_empty();
        let mut next = |tensor: &Tensor| {
            let gradient = if any && tensor.requires_grad() { found.next().flatten() } else { None };
            gradient.unwrap_or_else(|| tensor.detach().zeros_like())
        };
        let of_parameters = all.iter().map(&mut next).collect();
        let of_input = (j > 0).then(|| next(&input));
        Ok((of_parameters, of_input))
    }
}

impl Module for Pipeline {
    fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
        for (i, (stage, _)) in self.stages.iter().enumerate() {
            walk_under(&**stage, &i.to_string(), show);
        }
    }
}

/// One forward pass of a stage, as the backward pass needs it.
struct Pass {
    /// A leaf of its own graph.
    input: Tensor,
    kept: Kept,
}

enum Kept {
    /// The output with everything between.
    Output(Tensor),
    /// Nothing but the buffers as they were before.
    BuffersBefore(Vec<Tensor>),
}

/// Something for each stage and micro-batch.
type Grid<T> = Vec<Vec<Option<T>>>;

fn grid<T>(stages: usize, micro_batches: usize) -> Grid<T> {
    (0..stages).map(|_| (0..micro_batches).map(|_| None).collect()).collect()
}

/// `rows` in `parts` runs whose lengths differ by one at most, the longer ones first.
fn cut(rows: i64, parts: usize) -> Vec<Range<i64>> {
    let parts = parts as i64;
    let end = |part: i64| rows / parts * part + part.min(rows % parts);
    (0..parts).map(|part| end(part)..end(part + 1)).collect()
}

/// The (stage, micro-batch) pairs of each tick: stage j has micro-batch m at tick j + m.
fn ticks(stages: usize, micro_batches: usize) -> Vec<Vec<(usize, usize)>> {
    (0..stages + micro_batches - 1)
        .map(|tick| {
            let active = |&j: &usize| j <= tick && tick - j < micro_batches;
            (0..stages).filter(active).map(|j| (j, tick - j)).collect()
        })
        .collect()
}

/// A micro-batch's loss times its share, and the gradient of that with respect to the output.
fn loss_and_grad(
    output: &Tensor,
    share: f64,
    loss: impl FnOnce(&Tensor) -> Tensor,
) -> Result<(Tensor, Tensor), PipelineError> {
    let output = output.detach().set_requires_grad(true);
    let part = loss(&output) * share;
    if part.numel() != 1 || !part.requires_grad() {
        return Err(PipelineError::Loss { shape: part.size() });
    }
    let one = part.detach().ones_like();
    let found = shim::backward(&[part.shallow_clone()], &[one], std::slice::from_ref(&output))?;
    let grad = found.into_iter().next().flatten();
    let grad = grad.ok_or_else(|| PipelineError::Loss { shape: part.size() })?;
    Ok((part.detach(), grad))
}
