//! Linear layers and the multi-layer perceptron.

use crate::init;
use crate::module::{Module, Role, walk_under};
use crate::norm::{BatchNorm1d, Phase};
use crate::perceptron::perceptron;
use rl_minibatch::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// The function between two linear layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// max(0, x)
    Relu,
    /// tanh x
    Tanh,
}

impl Activation {
    /// Applies the function elementwise.
    pub fn apply(self, x: &Tensor) -> Tensor {
        match self {
            Activation::Relu => x.relu(),
            Activation::Tanh => x.tanh(),
        }
    }
}

/// y = x·Wᵀ + b, with W `[outputs, inputs]` and b `[outputs]` as in PyTorch.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// A layer with PyTorch's initialisation: weights and biases uniform in ±1/√inputs.
    pub fn new(inputs: i64, outputs: i64, rng: &mut Rng, kind: Kind, device: Device) -> Self {
        Self::uniform(inputs, outputs, 1.0 / (inputs as f64).sqrt(), rng, kind, device)
    }

    /// A layer with weights and biases uniform in ±`bound`.
    ///
    /// The numbers come from `rng` and not from libtorch's generator, so that they are the same on every device.
    pub fn uniform(inputs: i64, outputs: i64, bound: f64, rng: &mut Rng, kind: Kind, device: Device) -> Self {
        let weight = init::uniform(&[outputs, inputs], bound, rng, kind, device);
        let bias = init::uniform(&[outputs], bound, rng, kind, device);
        Self { weight, bias }
    }

    /// `[B, inputs]` → `[B, outputs]`.
    ///
    /// # Panics
    /// When `x` has another number of columns, dtype or device.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, Some(&self.bias))
    }

    /// W and b.
    pub(crate) fn tensors(&self) -> (&Tensor, &Tensor) {
        (&self.weight, &self.bias)
    }
}

impl Module for Linear {
    fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
        show("weight", &self.weight, Role::Parameter);
        show("bias", &self.bias, Role::Parameter);
    }
}

/// The shape of a multi-layer perceptron.
#[derive(Clone, Debug)]
pub struct MlpConfig {
    /// Columns of the input.
    pub inputs: i64,
    /// Width of each hidden layer.
    pub hidden: Vec<i64>,
    /// Columns of the output.
    pub outputs: i64,
    /// Function after each hidden layer.
    pub activation: Activation,
    /// Whether the input and each hidden layer's output, before its activation, are batch-normalized.
    pub batch_norm: bool,
    /// Bound of the output layer's uniform initialisation; `None` for PyTorch's.
    pub output_bound: Option<f64>,
}

/// A multi-layer perceptron: linear → (batch norm) → activation for each hidden layer, and a linear output.
#[derive(Debug)]
pub struct Mlp {
    input_norm: Option<BatchNorm1d>,
    layers: Vec<Linear>,
    norms: Vec<BatchNorm1d>,
    activation: Activation,
}

impl Mlp {
    /// A perceptron of f32 on `device`, its initial values drawn from `rng`.
    ///
    /// # Panics
    /// When a width is below 1, or the memory cannot be had.
    pub fn new(config: &MlpConfig, rng: &mut Rng, device: Device) -> Self {
        let kind = Kind::Float;
        let mut widths = vec![config.inputs];
        widths.extend(&config.hidden);
        let mut layers: Vec<Linear> =
            widths.windows(2).map(|w| Linear::new(w[0], w[1], rng, kind, device)).collect();
        let last = widths[widths.len() - 1];
        layers.push(match config.output_bound {
            Some(bound) => Linear::uniform(last, config.outputs, bound, rng, kind, device),
            None => Linear::new(last, config.outputs, rng, kind, device),
        });
        let norm = |features: &i64| BatchNorm1d::new(*features, kind, device);
        Self {
            input_norm: config.batch_norm.then(|| norm(&config.inputs)),
            layers,
            norms: if config.batch_norm { config.hidden.iter().map(norm).collect() } else { Vec::new() },
            activation: config.activation,
        }
    }

    /// The linear layers, the output's last.
    pub fn layers(&self) -> Vec<&Linear> {
        self.layers.iter().collect()
    }

    /// `[B, inputs]` → `[B, outputs]`. Without batch normalization both phases are the same, and it is one place in the autograd graph
    /// ([`perceptron`](crate::perceptron::perceptron)).
    ///
    /// # Panics
    /// When `x` has another number of columns, dtype or device; with batch normalization in [`Phase::Train`] also when it has a single row.
    pub fn forward(&self, x: &Tensor, phase: Phase) -> Tensor {
        if self.input_norm.is_none() && self.norms.is_empty() && x.dim() == 2 {
            return match perceptron(&self.layers(), self.activation, None, x, None) {
                Ok(out) => out,
                Err(why) => panic!("{why}"),
            };
        }
        self.composed(x, phase)
    }

    /// The same, operator by operator as autograd knows them: for second derivatives.
    ///
    /// # Panics
    /// Those of [`forward`](Self::forward).
    pub fn composed(&self, x: &Tensor, phase: Phase) -> Tensor {
        let mut x = match &self.input_norm {
            Some(norm) => norm.forward(x, phase),
            None => x.shallow_clone(),
        };
        let (output, hidden) = self.layers.split_last().expect("a perceptron has an output layer");
        for (i, layer) in hidden.iter().enumerate() {
            x = layer.forward(&x);
            if let Some(norm) = self.norms.get(i) {
                x = norm.forward(&x, phase);
            }
            x = self.activation.apply(&x);
        }
        output.forward(&x)
    }
}

impl Module for Mlp {
    fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
        if let Some(norm) = &self.input_norm {
            walk_under(norm, "input_norm", show);
        }
        for (i, layer) in self.layers.iter().enumerate() {
            walk_under(layer, &format!("layers.{i}"), show);
        }
        for (i, norm) in self.norms.iter().enumerate() {
            walk_under(norm, &format!("norms.{i}"), show);
        }
    }
}
