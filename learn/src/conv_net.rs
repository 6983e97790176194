//! Stacks of convolutions that make features of images.

use crate::conv::{Conv2d, Conv2dConfig};
use crate::module::{Module, Role, walk_under};
use rl_minibatch::Rng;
use tch::{Device, Kind, Tensor};

/// Where an image has its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageLayout {
    /// `[C, H, W]`: stacks of frames, and what PyTorch's convolutions take.
    ChannelsFirst,
    /// `[H, W, C]`: what most renderers and MinAtar give.
    ChannelsLast,
}

/// One convolution without padding, with a square kernel, followed by ReLU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvLayer {
    /// Channels that come out.
    pub channels: i64,
    /// Height and width of the kernel.
    pub kernel: i64,
    /// Steps of the kernel, down and across.
    pub stride: i64,
}

/// The shape of a stack of convolutions.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvNetConfig {
    /// One image, as `layout` says.
    pub image: [i64; 3],
    /// Images that are seen at once, as more channels: k for inputs of `[B, k, …]`; 1 for inputs of `[B, …]`.
    pub stack: i64,
    /// Where an image has its channels.
    pub layout: ImageLayout,
    /// What every value is multiplied by on the way in.
    pub scale: f64,
    /// The convolutions, in order.
    pub layers: Vec<ConvLayer>,
}

impl ConvNetConfig {
    /// The convolutions of Mnih et al. 2015, "Human-level control through deep reinforcement learning" (methods, model architecture):
    /// 32 of 8 × 8 with stride 4, 64 of 4 × 4 with stride 2, 64 of 3 × 3, over `image` `[C, H, W]` of bytes, taken as 0 to 1.
    pub fn nature(image: [i64; 3]) -> Self {
        let layers = [(32, 8, 4), (64, 4, 2), (64, 3, 1)];
        Self {
            image,
            stack: 1,
            layout: ImageLayout::ChannelsFirst,
            scale: 1.0 / 255.0,
            layers: layers.map(|(channels, kernel, stride)| ConvLayer { channels, kernel, stride }).to_vec(),
        }
    }

    /// The convolution of Young and Tian 2019, "MinAtar" (section 3): 16 of 3 × 3, over `image` `[H, W, C]` of zeros and ones.
    pub fn minatar(image: [i64; 3]) -> Self {
        let layers = vec![ConvLayer { channels: 16, kernel: 3, stride: 1 }];
        Self { image, stack: 1, layout: ImageLayout::ChannelsLast, scale: 1.0, layers }
    }

    /// The same over stacks of `stack` images.
    pub fn stacked(self, stack: i64) -> Self {
        Self { stack, ..self }
    }

    fn channels_height_width(&self) -> [i64; 3] {
        let [a, b, c] = self.image;
        match self.layout {
            ImageLayout::ChannelsFirst => [self.stack * a, b, c],
            ImageLayout::ChannelsLast => [self.stack * c, a, b],
        }
    }

    /// Features that come out of an image.
    ///
    /// # Errors
    /// One line when a number is below 1 or the image is too small for a kernel.
    pub fn features(&self) -> Result<i64, String> {
        let [mut channels, mut height, mut width] = self.channels_height_width();
        if [channels, height, width].iter().any(|&n| n < 1) {
            return Err(format!("an image of {:?} has nothing to see", self.image));
        }
        for (i, layer) in self.layers.iter().enumerate() {
            if layer.channels < 1 || layer.kernel < 1 || layer.stride < 1 {
                return Err(format!("convolution {i} is {layer:?}; every number must be at least 1"));
            }
            if height < layer.kernel || width < layer.kernel {
                return Err(format!(
                    "an image of {:?} is too small: convolution {i} gets {height} x {width} and its kernel is {k} x {k}",
                    self.image,
                    k = layer.kernel
                ));
            }
            let after = |size: i64| (size - layer.kernel) / layer.stride + 1;
            (channels, height, width) = (layer.channels, after(height), after(width));
        }
        Ok(channels * height * width)
    }
}

/// Convolutions with ReLU, from images to rows of features.
#[derive(Debug)]
pub struct ConvNet {
    config: ConvNetConfig,
    layers: Vec<Conv2d>,
}

impl ConvNet {
    /// A stack of f32 on `device` with PyTorch's initialisation, its numbers drawn from `rng`.
    ///
    /// # Errors
    /// Those of [`ConvNetConfig::features`].
    pub fn new(config: ConvNetConfig, rng: &mut Rng, device: Device) -> Result<Self, String> {
        config.features()?;
        let mut channels = config.channels_height_width()[0];
        let mut layer = |layer: &ConvLayer| {
            let settings = Conv2dConfig { stride: [layer.stride; 2], ..Conv2dConfig::default() };
            let inputs = std::mem::replace(&mut channels, layer.channels);
            Conv2d::new(inputs, layer.channels, [layer.kernel; 2], settings, rng, Kind::Float, device)
        };
        let layers = config.layers.iter().map(&mut layer).collect();
        Ok(Self { config, layers })
    }

    /// `[B, …]` images of any dtype, `[B, k, …]` of stacks → `[B, features]`, f32.
    ///
    /// # Panics
    /// When `images` has another shape or device.
    pub fn forward(&self, images: &Tensor) -> Tensor {
        self.features(&self.images(images))
    }

    /// What [`features`](Self::features) takes of `images`: `[B, k · C, H, W]`, f32, scaled. For several networks that look at the same.
    ///
    /// # Panics
    /// When `images` has another shape.
    pub fn images(&self, images: &Tensor) -> Tensor {
        let images = match (self.config.layout, self.config.stack) {
            (ImageLayout::ChannelsFirst, 1) => images.shallow_clone(),
            // A view, also of a part of a longer stack.
            (ImageLayout::ChannelsFirst, _) => images.flatten(1, 2),
            (ImageLayout::ChannelsLast, 1) => images.permute([0, 3, 1, 2]),
            (ImageLayout::ChannelsLast, _) => images.permute([0, 1, 4, 2, 3]).flatten(1, 2),
        };
        let mut x = images.to_kind(Kind::Float);
        if self.config.scale != 1.0 {
            // What was f32 before is the caller's.
            x = if images.kind() == Kind::Float {
                x * self.config.scale
            } else {
                x.g_mul_scalar_(self.config.scale)
            };
        }
        x
    }

    /// The features of [`images`](Self::images).
    ///
    /// # Panics
    /// When they have another shape, dtype or device.
    pub fn features(&self, images: &Tensor) -> Tensor {
        let mut x = images.shallow_clone();
        for layer in &self.layers {
            x = layer.forward(&x).relu();
        }
        x.flatten(1, -1)
    }
}

impl Module for ConvNet {
    fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
        for (i, layer) in self.layers.iter().enumerate() {
            walk_under(layer, &i.to_string(), show);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::parameters;
    use rand::SeedableRng;

    #[test]
    fn an_atari_stack_gives_3136_features() {
        let config = ConvNetConfig::nature([4, 84, 84]);
        assert_eq!(config.features(), Ok(3136));
        let net = ConvNet::new(config, &mut Rng::seed_from_u64(1), Device::Cpu).unwrap();
        let images = Tensor::arange(2 * 4 * 84 * 84, (Kind::Int64, Device::Cpu)).remainder(256);
        let images = images.to_kind(Kind::Uint8).reshape([2, 4, 84, 84]);
        let p = parameters(&net);
        let x = images.to_kind(Kind::Float) / 255.0;
        let conv = |x: &Tensor, i: usize, stride: i64| {
            x.conv2d(&p[2 * i], Some(&p[2 * i + 1]), [stride; 2], [0, 0], [1, 1], 1).relu()
        };
        let expected = conv(&conv(&conv(&x, 0, 4), 1, 2), 2, 1).reshape([2, 3136]);
        assert!(net.forward(&images).allclose(&expected, 1e-5, 1e-6, false));
        assert!(expected.abs().max().double_value(&[]) > 0.0);
    }

    #[test]
    fn channels_may_come_last() {
        let config = ConvNetConfig::minatar([10, 10, 6]);
        assert_eq!(config.features(), Ok(1024));
        let last = ConvNet::new(config.clone(), &mut Rng::seed_from_u64(1), Device::Cpu).unwrap();
        let first = ConvNetConfig { image: [6, 10, 10], layout: ImageLayout::ChannelsFirst, ..config };
        let first = ConvNet::new(first, &mut Rng::seed_from_u64(1), Device::Cpu).unwrap();
        let images =
            Tensor::arange(3 * 600, (Kind::Float, Device::Cpu)).remainder(2.0).reshape([3, 10, 10, 6]);
        let moved = images.permute([0, 3, 1, 2]);
        assert!(last.forward(&images).allclose(&first.forward(&moved), 1e-6, 1e-7, false));
    }

    /// k images of C channels are one of k · C, the oldest image's channels first.
    #[test]
    fn a_stack_is_more_channels() {
        for (config, image) in [
            (ConvNetConfig::nature([2, 36, 40]), [2, 36, 40]),
            (ConvNetConfig::minatar([10, 12, 2]), [10, 12, 2]),
        ] {
            let stacked =
                ConvNet::new(config.clone().stacked(3), &mut Rng::seed_from_u64(1), Device::Cpu).unwrap();
            let channels: i64 = config.channels_height_width()[0] * 3;
            let [_, height, width] = config.channels_height_width();
            let flat = ConvNetConfig {
                image: [channels, height, width],
                layout: ImageLayout::ChannelsFirst,
                ..config.clone()
            };
            let flat = ConvNet::new(flat, &mut Rng::seed_from_u64(1), Device::Cpu).unwrap();
            let count: i64 = image.iter().product::<i64>() * 5 * 4;
            // Of stacks that overlap in a window of four images, as the replay buffer gives them.
            let window =
                Tensor::arange(count, (Kind::Int64, Device::Cpu)).remainder(251).to_kind(Kind::Uint8);
            let window = window.reshape([&[5, 4][..], &image].concat());
            for start in 0..2 {
                let images = window.narrow(1, start, 3);
                let moved = match config.layout {
                    ImageLayout::ChannelsFirst => images.copy(),
                    ImageLayout::ChannelsLast => images.permute([0, 1, 4, 2, 3]),
                };
                let moved = moved.contiguous().view([5, channels, height, width]);
                assert!(stacked.forward(&images).allclose(&flat.forward(&moved), 1e-5, 1e-5, false));
            }
        }
    }

    /// Images that are f32 already are read and not written.
    #[test]
    fn what_is_looked_at_stays_as_it_is() {
        let net = ConvNet::new(ConvNetConfig::nature([1, 36, 36]), &mut Rng::seed_from_u64(1), Device::Cpu)
            .unwrap();
        let images = Tensor::ones([2, 1, 36, 36], (Kind::Float, Device::Cpu));
        let _ = net.forward(&images);
        assert_eq!(images.min().double_value(&[]), 1.0);
    }

    #[test]
    fn what_does_not_fit_is_one_line() {
        let error = ConvNetConfig::nature([4, 20, 84]).features().unwrap_err();
        assert_eq!(
            error,
            "an image of [4, 20, 84] is too small: convolution 2 gets 1 x 9 and its kernel is 3 x 3"
        );
        assert!(ConvNetConfig::nature([0, 84, 84]).features().is_err());
    }
}
