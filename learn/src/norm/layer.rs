//! Layer normalization.

use crate::module::{Module, Role};
use tch::{Device, Kind, Tensor};

/// Layer normalization over the last dimensions of a tensor (Ba, Kiros and Hinton 2016), as PyTorch's `LayerNorm`:
///
/// y = γ·(x − μ)/√(σ² + ε) + β, with mean and biased variance of each row by itself. The same in training and in use.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    shape: Vec<i64>,
    eps: f64,
}

impl LayerNorm {
    /// A layer over trailing dimensions of `shape` with γ = 1, β = 0 and ε = 1e-5, all of `kind` on `device`.
    pub fn new(shape: &[i64], kind: Kind, device: Device) -> Self {
        let mut layer = Self::without_affine(shape, 1e-5);
        layer.weight = Some(Tensor::ones(shape, (kind, device)).set_requires_grad(true));
        layer.bias = Some(Tensor::zeros(shape, (kind, device)).set_requires_grad(true));
        layer
    }

    /// A layer without γ and β, which has no state at all.
    ///
    /// # Panics
    /// When `shape` is empty.
    pub fn without_affine(shape: &[i64], eps: f64) -> Self {
        assert!(!shape.is_empty(), "layer normalization needs a dimension to normalize");
        Self { weight: None, bias: None, shape: shape.to_vec(), eps }
    }

    /// The same layer with another ε.
    #[must_use]
    pub fn eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    /// Normalizes `x`, `[…, shape]`.
    ///
    /// # Panics
    /// When its last dimensions are others.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(&self.shape, self.weight.as_ref(), self.bias.as_ref(), self.eps, true)
    }
}

impl Module for LayerNorm {
    fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
        if let (Some(weight), Some(bias)) = (&self.weight, &self.bias) {
            show("weight", weight, Role::Parameter);
            show("bias", bias, Role::Parameter);
        }
    }
}
