//! Running statistics of a finished network.

use crate::module::Module;
use crate::norm::Phase;
use tch::no_grad;

/// Sets every running statistic in `module` back to that of a new layer: mean 0, variance and standard deviation 1, no batches. They are found by
/// their names.
pub fn reset_statistics(module: &dyn Module) {
    no_grad(|| {
        module.walk(&mut |name, tensor, _| {
            let mut tensor = tensor.shallow_clone();
            let _ = match name.rsplit('.').next() {
                Some("running_mean" | "num_batches_tracked") => tensor.zero_(),
                Some("running_var" | "running_std") => tensor.fill_(1.0),
                _ => tensor,
            };
        });
    });
}

/// Computes the running statistics of a network anew from `batches`, its weights as they are: an exponential average lags behind weights that
/// moved, and averaged weights ([moving averages](crate::target), stochastic weight averaging) have never had statistics of their own.
///
/// `forward` is called for each batch, outside autograd, and hands the given [`Phase::Recompute`] to the network. Each layer's statistics come out as
/// the mean and the unbiased variance of all its inputs together, each row counting the same whatever the sizes of the batches
/// (Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", §3: precise statistics). PyTorch's `update_bn` averages the batches' statistics
/// instead, which weighs the rows of a smaller last batch more and leaves out the variance between batches' means. Layers behind the
/// first see inputs that were normalized by batch, as in training, so large batches are best.
///
/// ```
/// use rl_learn::{BatchNorm1d, Device, Kind, Phase, Tensor, buffers, recompute_statistics};
/// let norm = BatchNorm1d::new(1, Kind::Double, Device::Cpu);
/// let batches = [&[1.0, 2.0, 3.0][..], &[4.0, 10.0]].map(|rows| Tensor::from_slice(rows).reshape([-1, 1]));
/// recompute_statistics(&norm, batches, |x, phase| {
///     norm.forward(&x, phase);
///     Ok::<_, ()>(())
/// })?;
/// let (mean, var) = (buffers(&norm)[0].double_value(&[0]), buffers(&norm)[1].double_value(&[0]));
/// assert_eq!((mean, var), (4.0, 12.5));
/// # Ok::<(), ()>(())
/// ```
///
/// Costs a forward pass a batch. Without a batch nothing changes. Afterwards `num_batches_tracked` is the number of batches.
///
/// # Errors
/// Those of `forward`; the statistics are those of the batches before then.
pub fn recompute_statistics<B, E>(
    module: &dyn Module,
    batches: impl IntoIterator<Item = B>,
    mut forward: impl FnMut(B, Phase) -> Result<(), E>,
) -> Result<(), E> {
    for (i, batch) in batches.into_iter().enumerate() {
        if i == 0 {
            reset_statistics(module);
        }
        no_grad(|| forward(batch, Phase::Recompute))?;
    }
    Ok(())
}
