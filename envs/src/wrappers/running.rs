//! Mean and variance of a stream of numbers.

use serde::{Deserialize, Serialize};

/// The running mean and variance of vectors, an element each by itself, in f64.
///
/// Batches are merged with the parallel formula of Chan, Golub and LeVeque (1979), which for one vector is Welford's: no sum
/// of squares is kept, so nothing cancels however far the mean is from zero. As Gymnasium's `RunningMeanStd` it starts with
/// mean 0 and variance 1, which count as 10⁻⁴ observations, and the variance is that of the population (over n).
///
/// The wrappers here keep one an environment. Several environments share one where their batch is given to
/// [`update`](RunningMeanStd::update), as Gymnasium's vector wrapper does:
///
/// ```
/// use rl_envs::{Actions, RunningMeanStd, VecEnv};
///
/// let mut envs = VecEnv::make("CartPole-v1", 8)?;
/// let mut running = RunningMeanStd::new(envs.obs_elements());
/// let mut normalized = vec![0.0; 8 * envs.obs_elements()];
/// envs.reset(1)?;
/// for _ in 0..100 {
///     envs.step(Actions::Discrete(&[0, 1, 0, 1, 0, 1, 0, 1]))?;
///     running.update(envs.obs());
///     running.normalize(envs.obs(), 1e-8, &mut normalized);
/// }
/// # assert!(normalized.iter().any(|value| value.abs() > 0.5));
/// # Ok::<(), rl_envs::EnvError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunningMeanStd {
    mean: Vec<f64>,
    variance: Vec<f64>,
    count: f64,
}

impl RunningMeanStd {
    /// Of vectors with `elements` numbers.
    pub fn new(elements: usize) -> Self {
        Self { mean: vec![0.0; elements], variance: vec![1.0; elements], count: 1e-4 }
    }

    /// The mean of each element.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The variance of each element.
    pub fn variance(&self) -> &[f64] {
        &self.variance
    }

    /// Vectors seen, and 10⁻⁴.
    pub fn count(&self) -> f64 {
        self.count
    }

    /// Takes in a batch, `[N, elements]` row-major. Allocates nothing.
    ///
    /// # Panics
    /// When the batch is not whole vectors.
    pub fn update<T: Copy + Into<f64>>(&mut self, batch: &[T]) {
        let elements = self.mean.len();
        assert!(
            batch.len().is_multiple_of(elements.max(1)),
            "a batch of vectors with {elements} numbers cannot have {} numbers",
            batch.len()
        );
        let rows = (batch.len() / elements.max(1)) as f64;
        if rows == 0.0 {
            return;
        }
        let total = self.count + rows;
        for (element, (mean, variance)) in self.mean.iter_mut().zip(&mut self.variance).enumerate() {
            let column = || batch.iter().skip(element).step_by(elements).map(|value| (*value).into());
            let batch_mean = column().sum::<f64>() / rows;
            let squares: f64 = column().map(|value: f64| (value - batch_mean) * (value - batch_mean)).sum();
            let delta = batch_mean - *mean;
            *mean += delta * rows / total;
            *variance =
                (*variance * self.count + squares + delta * delta * self.count * rows / total) / total;
        }
        self.count = total;
    }

    /// Writes (value − mean) / √(variance + `epsilon`) of each number of `batch`, `[N, elements]`, to `out`.
    ///
    /// # Panics
    /// When `out` is not as long as `batch`, or either not whole vectors.
    pub fn normalize<T: Copy + Into<f64>>(&self, batch: &[T], epsilon: f64, out: &mut [f32]) {
        let elements = self.mean.len().max(1);
        assert_eq!(batch.len(), out.len(), "there must be room for as many numbers as are normalized");
        assert!(batch.len().is_multiple_of(elements), "only whole vectors can be normalized");
        for (from, to) in batch.chunks_exact(elements).zip(out.chunks_exact_mut(elements)) {
            let moments = self.mean.iter().zip(&self.variance);
            for ((from, to), (mean, variance)) in from.iter().zip(to).zip(moments) {
                let value: f64 = (*from).into();
                *to = ((value - mean) / (variance + epsilon).sqrt()) as f32;
            }
        }
    }
}
