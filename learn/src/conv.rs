//! Convolutions. Pooling has no state: `Tensor::max_pool2d`, `avg_pool2d` and `adaptive_avg_pool2d` are it.

use crate::init;
use crate::module::{Module, Role};
use rl_minibatch::Rng;
use tch::{Device, Kind, Tensor};

/// The numbers of a convolution beside its channels; the default is PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dConfig {
    /// Steps of the kernel, down and across.
    pub stride: [i64; 2],
    /// Zeros around the image, above and below, left and right.
    pub padding: [i64; 2],
    /// Distance between the kernel's elements.
    pub dilation: [i64; 2],
    /// Groups of channels that do not see each other.
    pub groups: i64,
    /// Whether a trained bias is added.
    pub bias: bool,
}

impl Default for Conv2dConfig {
    fn default() -> Self {
        Self { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1, bias: true }
    }
}

/// A convolution of images as PyTorch's `Conv2d`: `[B, inputs, H, W]` → `[B, outputs, H', W']` with weight
/// `[outputs, inputs/groups, kernel]`, H' = ⌊(H + 2·padding − dilation·(kernel − 1) − 1)/stride⌋ + 1.
#[derive(Debug)]
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    config: Conv2dConfig,
}

impl Conv2d {
    /// A convolution with a `kernel` of height and width and PyTorch's initialisation: weights and biases uniform in ±1/√fan_in, where
    /// fan_in = inputs/groups · height · width (He et al. 2015 with a = √5, as PyTorch has it). The numbers come from `rng`.
    ///
    /// # Panics
    /// When a number is below 1, or `groups` does not divide both numbers of channels.
    pub fn new(
        inputs: i64,
        outputs: i64,
        kernel: [i64; 2],
        config: Conv2dConfig,
        rng: &mut Rng,
        kind: Kind,
        device: Device,
    ) -> Self {
        let groups = config.groups;
        assert!(
            inputs > 0 && outputs > 0 && kernel.iter().all(|&k| k > 0),
            "a convolution needs channels and a kernel"
        );
        assert!(
            groups > 0 && inputs % groups == 0 && outputs % groups == 0,
            "{groups} groups do not divide {inputs} and {outputs} channels"
        );
        let shape = [outputs, inputs / groups, kernel[0], kernel[1]];
        let bound = 1.0 / (shape[1..].iter().product::<i64>() as f64).sqrt();
        let mut draw = |shape: &[i64]| init::uniform(shape, bound, rng, kind, device);
        let weight = draw(&shape);
        let bias = config.bias.then(|| draw(&[outputs]));
        Self { weight, bias, config }
    }

    /// `[B, inputs, H, W]` → `[B, outputs, H', W']`.
    ///
    /// # Panics
    /// When `x` has another number of channels, dtype or device, or is smaller than the kernel.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let Conv2dConfig { stride, padding, dilation, groups, .. } = self.config;
        x.conv2d(&self.weight, self.bias.as_ref(), stride, padding, dilation, groups)
    }
}

impl Module for Conv2d {
    fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
        show("weight", &self.weight, Role::Parameter);
        if let Some(bias) = &self.bias {
            show("bias", bias, Role::Parameter);
        }
    }
}
