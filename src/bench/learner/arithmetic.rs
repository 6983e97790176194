//! How much arithmetic an update is, and how fast this machine does arithmetic.

use super::{LearnerBench, NetworkKind, timed};
use crate::error::{Result, usage};
use rl_learn::{Device, Kind, Tensor, device, no_grad};
use std::hint::black_box;

/// Rows and columns of the large product: 23 ms or so on one core, and on a GPU.
const SIDE: i64 = 1_024;
const SIDE_GPU: i64 = 8_192;

/// Measures one large f32 matrix product.
pub(super) struct MatMul {
    left: Tensor,
    right: Tensor,
    device: Device,
}

impl MatMul {
    pub(super) fn new(device: Device) -> Self {
        let side = if device == Device::Cpu { SIDE } else { SIDE_GPU };
        // Not all ones: a GPU draws less power for those, and clocks higher.
        let values = Tensor::linspace(-1.0, 1.0, side * side, (Kind::Float, device)).sin();
        let left = values.reshape([side, side]);
        Self { right: left.transpose(0, 1).contiguous(), left, device }
    }

    pub(super) fn gflop_per_s(&self) -> f64 {
        // The first brings caches, clocks and a kernel's choice into place.
        let product = || drop(no_grad(|| black_box(self.left.matmul(&self.right))));
        product();
        device::synchronize(self.device);
        let ((), took) = timed(|| {
            product();
            device::synchronize(self.device);
        });
        let side = self.left.size()[0] as f64;
        2.0 * side.powi(3) / took.as_secs_f64() / 1e9
    }
}

/// A layer that multiplies: `rows × inputs` by `inputs × outputs`, the rows of one element of a batch.
#[derive(Clone, Copy, Debug)]
struct Layer {
    rows: f64,
    inputs: f64,
    outputs: f64,
}

impl Layer {
    fn linear(inputs: f64, outputs: f64) -> Self {
        Self { rows: 1.0, inputs, outputs }
    }

    /// Operations of one of its products: forward, by its weights, and by its inputs backward cost the same.
    fn flop(self) -> f64 {
        2.0 * self.rows * self.inputs * self.outputs
    }
}

/// What is multiplied in an update.
pub(super) struct Network<'a> {
    bench: &'a LearnerBench,
    hidden: Vec<f64>,
}

impl<'a> Network<'a> {
    pub(super) fn new(bench: &'a LearnerBench, hidden: &[i64]) -> Self {
        Self { bench, hidden: hidden.iter().map(|&width| width as f64).collect() }
    }

    /// Operations of the products that no implementation can leave out, in 10⁹.
    ///
    /// # Errors
    /// When the algorithm is not known here.
    pub(super) fn gflop_per_update(&self) -> Result<f64> {
        let config = &self.bench.config;
        let (obs, actions) = (self.bench.obs as f64, self.bench.actions as f64);
        let flag = |key: &str| config.agent[key].as_bool() == Some(true);
        let per_row = match (config.algo.as_str(), self.bench.network) {
            ("dqn", network) => {
                let outputs = actions + f64::from(u8::from(flag("dueling")));
                let layers = match network {
                    NetworkKind::Mlp => chain(obs, &self.hidden, outputs),
                    NetworkKind::NatureCnn => nature_cnn(outputs),
                };
                // Online and target network, and the online one at the next observations if it chooses there.
                let forwards = if flag("double") { 3.0 } else { 2.0 };
                forwards * forward(&layers) + by_weights(&layers) + by_inputs(&layers[1..])
            }
            ("ddpg", NetworkKind::Mlp) => {
                let actor = chain(obs, &self.hidden, actions);
                let critic = critic(obs, &self.hidden, actions);
                // The first layer of the critic that sees the action; below it the actor's gradient does not go.
                let from_action = &critic[1..];
                let critic_step =
                    2.0 * forward(&critic) + forward(&actor) + by_weights(&critic) + by_inputs(&critic[1..]);
                let actor_step = forward(&actor)
                    + forward(&critic)
                    + by_inputs(&from_action[1..])
                    + Layer { inputs: actions, ..from_action[0] }.flop()
                    + by_weights(&actor)
                    + by_inputs(&actor[1..]);
                critic_step + actor_step
            }
            (other, _) => {
                return usage(format!("bench learner does not know how much arithmetic '{other}' is"));
            }
        };
        Ok(per_row * config.train.batch_size as f64 / 1e9)
    }
}

/// A perceptron.
fn chain(inputs: f64, hidden: &[f64], outputs: f64) -> Vec<Layer> {
    let widths: Vec<f64> = [inputs].iter().chain(hidden).chain(&[outputs]).copied().collect();
    widths.windows(2).map(|pair| Layer::linear(pair[0], pair[1])).collect()
}

/// DDPG's critic, which sees the action from its second layer on (section 7 of Lillicrap et al. 2015).
fn critic(obs: f64, hidden: &[f64], actions: f64) -> Vec<Layer> {
    let mut layers = chain(obs, hidden, 1.0);
    layers[1].inputs += actions;
    layers
}

/// The network of Mnih et al. (2015) on 4 × 84 × 84: three convolutions without padding and a hidden layer of 512.
fn nature_cnn(outputs: f64) -> Vec<Layer> {
    let conv = |side: f64, kernel: f64, channels: f64, outputs: f64| Layer {
        rows: side * side,
        inputs: kernel * kernel * channels,
        outputs,
    };
    vec![
        conv(20.0, 8.0, 4.0, 32.0),
        conv(9.0, 4.0, 32.0, 64.0),
        conv(7.0, 3.0, 64.0, 64.0),
        Layer::linear(7.0 * 7.0 * 64.0, 512.0),
        Layer::linear(512.0, outputs),
    ]
}

fn forward(layers: &[Layer]) -> f64 {
    layers.iter().map(|layer| layer.flop()).sum()
}

/// The gradient of the weights costs what the forward pass costs.
fn by_weights(layers: &[Layer]) -> f64 {
    forward(layers)
}

/// So does the gradient of the inputs of these layers.
fn by_inputs(layers: &[Layer]) -> f64 {
    forward(layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_is_counted() {
        // 17·256 + 256·256 + 256·6 multiplications and as many additions a row and pass.
        let layers = chain(17.0, &[256.0, 256.0], 6.0);
        assert_eq!(forward(&layers), 2.0 * (17.0 * 256.0 + 256.0 * 256.0 + 256.0 * 6.0));
        assert_eq!(forward(&critic(3.0, &[400.0, 300.0], 1.0)), 2.0 * (3.0 * 400.0 + 401.0 * 300.0 + 300.0));
        // Known sizes of the Nature network: 1,687,206 weights with 6 actions, of which these are no biases.
        let weights: f64 = nature_cnn(6.0).iter().map(|layer| layer.inputs * layer.outputs).sum();
        assert_eq!(weights, 1_687_206.0 - (32.0 + 64.0 + 64.0 + 512.0 + 6.0));
    }

    #[test]
    fn a_product_is_timed() {
        assert!(MatMul::new(Device::Cpu).gflop_per_s() > 0.1);
    }
}
