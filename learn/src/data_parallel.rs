//! Data parallel training: one place where gradients of micro-batches and of ranks become one.

use crate::reduce::{ReduceError, Reducer};
use crate::shim;
use std::fmt;
use std::sync::Arc;
use tch::{Device, Kind, Tensor, no_grad};

/// The size of a bucket that PyTorch's DDP uses too: 25 MiB.
pub const BUCKET_BYTES: usize = 25 << 20;

/// Gradients could not be gathered or reduced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BucketError {
    /// The gradients are not those of the parameters.
    #[error("{0}")]
    Gradients(String),
    /// The ranks did not meet.
    #[error(transparent)]
    Reduce(#[from] ReduceError),
}

/// Where gradients are accumulated over micro-batches and reduced over ranks: flat buckets of memory, in the reverse order of the
/// parameters, which is about the order in which a backward pass finishes them (Li et al. 2020, "PyTorch Distributed", §3.2).
///
/// Each rank adds its micro-batches, and reduces once, after the last:
///
/// ```
/// use rl_learn::{Alone, BUCKET_BYTES, GradientBuckets, Kind, Tensor, gradients};
/// # use std::sync::Arc;
/// let w = Tensor::from_slice(&[2.0f64]).set_requires_grad(true);
/// let mut buckets = GradientBuckets::new(std::slice::from_ref(&w), BUCKET_BYTES, Arc::new(Alone));
/// for rows in [vec![1.0f64, 2.0, 3.0], vec![10.0]] {
///     let loss = (&w * Tensor::from_slice(&rows)).mean(Kind::Double);
///     buckets.add(&gradients(&loss, &[&w].map(Tensor::shallow_clone)), rows.len() as f64)?;
/// }
/// // The gradient of the mean over the four rows, not the mean of the two means.
/// assert_eq!(buckets.average()?[0].double_value(&[0]), 4.0);
/// # Ok::<(), rl_learn::BucketError>(())
/// ```
///
/// A bucket is one meeting of the ranks, whatever the number of parameters in it. Memory: one copy of the parameters, made once; the gradients
/// that come out are views into it.
pub struct GradientBuckets {
    reducer: Arc<dyn Reducer>,
    /// Flat, one dtype and device each.
    buckets: Vec<Tensor>,
    /// One a parameter, in the parameters' order: views into the buckets.
    views: Vec<Tensor>,
    /// The sum of the weights since the last reduction; none for nothing added.
    weight: Option<f64>,
    device: Device,
}

impl GradientBuckets {
    /// Buckets of about `bucket_bytes` ([`BUCKET_BYTES`]) for gradients of `parameters`; one that is larger gets a bucket of its own. Each
    /// bucket is of one dtype and device.
    ///
    /// # Panics
    /// When `parameters` is empty, or the memory cannot be had.
    pub fn new(parameters: &[Tensor], bucket_bytes: usize, reducer: Arc<dyn Reducer>) -> Self {
        assert!(!parameters.is_empty(), "gradients need a parameter");
        // Buckets that may still grow, one a dtype and device, and what each holds: (offset, parameter).
        struct Plan {
            of: (Kind, Device),
            elements: i64,
            open: bool,
            members: Vec<(i64, usize)>,
        }
        let mut plans: Vec<Plan> = Vec::new();
        for (i, parameter) in parameters.iter().enumerate().rev() {
            let of = (parameter.kind(), parameter.device());
            let elements = parameter.numel() as i64;
            let limit = (bucket_bytes / of.0.elt_size_in_bytes()) as i64;
            let fits = plans.iter_mut().find(|plan| plan.open && plan.of == of);
            match fits {
                Some(plan) if plan.elements + elements <= limit => {
                    plan.members.push((plan.elements, i));
                    plan.elements += elements;
                }
                full => {
                    if let Some(plan) = full {
                        plan.open = false;
                    }
                    plans.push(Plan { of, elements, open: true, members: vec![(0, i)] });
                }
            }
        }
        let buckets: Vec<Tensor> = plans.iter().map(|plan| Tensor::zeros([plan.elements], plan.of)).collect();
        let mut views: Vec<Option<Tensor>> = parameters.iter().map(|_| None).collect();
        for (plan, bucket) in plans.iter().zip(&buckets) {
            for &(offset, i) in &plan.members {
                let flat = bucket.narrow(0, offset, parameters[i].numel() as i64);
                views[i] = Some(flat.reshape(parameters[i].size()));
            }
        }
        let device = parameters[0].device();
        Self { reducer, buckets, views: views.into_iter().flatten().collect(), weight: None, device }
    }

    /// The number of buckets, which is that of meetings in one reduction.
    pub fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// Adds `weight` times the gradients of one micro-batch, one a parameter in their order; nothing is sent to other ranks. For
    /// gradients of a *mean* loss the weight is the number of rows, for those of a sum it is 1. The first call after a reduction
    /// begins anew. Of weight 0 (a rank without rows) the gradients are not looked at, so that those of an empty mean may be NaN.
    ///
    /// # Errors
    /// [`BucketError::Gradients`] for another number of gradients or other shapes, or a gradient that is undefined.
    pub fn add(&mut self, gradients: &[Tensor], weight: f64) -> Result<(), BucketError> {
        if gradients.len() != self.views.len() {
            let (found, expected) = (gradients.len(), self.views.len());
            return Err(BucketError::Gradients(format!("{found} gradients came for {expected} parameters")));
        }
        for (i, (gradient, view)) in gradients.iter().zip(&self.views).enumerate() {
            let found = gradient.defined().then(|| (gradient.kind(), gradient.size()));
            let expected = (view.kind(), view.size());
            if weight != 0.0 && found.as_ref() != Some(&expected) {
                let found = found.map_or("undefined".to_string(), |found| format!("{found:?}"));
                return Err(BucketError::Gradients(format!(
                    "the gradient of parameter {i} is {found} and should be {expected:?}"
                )));
            }
        }
        self.begin();
        self.weight = self.weight.map(|sum| sum + weight);
        if weight == 0.0 {
            return Ok(());
        }
        shim::foreach_add(&self.views, gradients, weight).map_err(|e| BucketError::Gradients(e.to_string()))
    }

    fn begin(&mut self) {
        if self.weight.is_none() {
            self.weight = Some(0.0);
            no_grad(|| self.buckets.iter_mut().for_each(|bucket| drop(bucket.zero_())));
        }
    }

    /// The sum of everything that all ranks added, one tensor a parameter, valid until the next call of [`add`](Self::add): for losses
    /// that are sums, or means multiplied by their [`row_share`]. A rank that has added nothing takes part with zeros.
    ///
    /// # Errors
    /// Those of the reducer.
    pub fn sum(&mut self) -> Result<&[Tensor], BucketError> {
        self.begin();
        for bucket in &self.buckets {
            self.reducer.sum(std::slice::from_ref(bucket))?;
        }
        self.weight = None;
        Ok(&self.views)
    }

    /// The sum of everything that all ranks added over the sum of all weights: with rows as weights, the gradient of the mean loss
    /// over all ranks' and micro-batches' rows, however they are shared out. Zeros when all weights are 0. Valid as with [`sum`](Self::sum).
    ///
    /// # Errors
    /// Those of the reducer.
    pub fn average(&mut self) -> Result<&[Tensor], BucketError> {
        self.begin();
        let total = Tensor::full([], self.weight.unwrap_or(0.0), (Kind::Double, self.device));
        self.reducer.sum(std::slice::from_ref(&total))?;
        self.sum()?;
        no_grad(|| {
            let divisor = total.where_self(&total.ne(0.0), &total.ones_like());
            for bucket in &mut self.buckets {
                let _ = bucket.g_div_(&divisor.to_device(bucket.device()).to_kind(bucket.kind()));
            }
        });
        Ok(&self.views)
    }
}

impl fmt::Debug for GradientBuckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GradientBuckets")
            .field("parameters", &self.views.len())
            .field("buckets", &self.buckets.iter().map(Tensor::numel).collect::<Vec<_>>())
            .field("rank_of_world", &(self.reducer.rank(), self.reducer.world()))
            .field("weight", &self.weight)
            .finish()
    }
}

/// This rank's share of all ranks' rows, a scalar of f64 on `device`: what a rank multiplies its mean loss by, so that the sum over ranks is the mean
/// over all rows. [`SyncBatchNorm`](crate::SyncBatchNorm) needs it before the backward pass when shares are unequal; without such layers
/// [`GradientBuckets::average`] does the same with a number. 0 when no rank has rows. One meeting of the ranks, nothing is read back.
///
/// # Errors
/// Those of the reducer.
pub fn row_share(reducer: &dyn Reducer, rows: u64, device: Device) -> Result<Tensor, ReduceError> {
    let own = Tensor::full([], rows as f64, (Kind::Double, device));
    let total = own.copy();
    reducer.sum(std::slice::from_ref(&total))?;
    Ok(own / total.clamp_min(1.0))
}
