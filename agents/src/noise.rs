//! Exploration noise for continuous actions.

use rand::RngExt;
use rand_distr::StandardNormal;
use rl_learn::{Rng, StateError, StateVisitor, value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Noise added to each action dimension, in units of half the action's range.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Noise {
    /// Independent normal noise.
    Gaussian {
        /// Standard deviation.
        sigma: f64,
    },
    /// The Ornstein-Uhlenbeck process (Uhlenbeck and Ornstein 1930), as Lillicrap et al. 2015 use it:
    /// xₜ₊₁ = xₜ − θ·xₜ + σ·N(0, 1), from 0 at an episode's start.
    OrnsteinUhlenbeck {
        /// Standard deviation of each increment; 0.2 in the paper.
        sigma: f64,
        /// Pull back to 0 in each step; 0.15 in the paper.
        theta: f64,
    },
}

impl Noise {
    /// Checks that the numbers are in their ranges.
    ///
    /// # Errors
    /// One line naming the key.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (sigma, theta) = match *self {
            Noise::Gaussian { sigma } => (sigma, 0.0),
            Noise::OrnsteinUhlenbeck { sigma, theta } => (sigma, theta),
        };
        if !(sigma >= 0.0 && sigma.is_finite()) {
            return Err(format!("agent.noise.sigma is {sigma}; it must be finite and at least 0"));
        }
        if !(0.0..=1.0).contains(&theta) {
            return Err(format!("agent.noise.theta is {theta}; it must lie between 0 and 1"));
        }
        Ok(())
    }
}

/// A noise going on: the process's state, one vector an environment.
#[derive(Debug)]
pub(crate) struct NoiseState {
    noise: Noise,
    dimensions: usize,
    /// `[environment][dimension]`, growing with the first action of each environment; empty vectors for Gaussian noise.
    state: Vec<Vec<f64>>,
}

impl NoiseState {
    pub fn new(noise: Noise, dimensions: usize) -> Self {
        Self { noise, dimensions, state: Vec::new() }
    }

    /// The next noise of environment `env`, one value a dimension.
    pub fn next(&mut self, env: usize, rng: &mut Rng) -> Vec<f64> {
        let normal = |rng: &mut Rng| -> f64 { rng.sample(StandardNormal) };
        match self.noise {
            Noise::Gaussian { sigma } => (0..self.dimensions).map(|_| sigma * normal(rng)).collect(),
            Noise::OrnsteinUhlenbeck { sigma, theta } => {
                if self.state.len() <= env {
                    self.state.resize(env + 1, vec![0.0; self.dimensions]);
                }
                for x in &mut self.state[env] {
                    *x += -theta * *x + sigma * normal(rng);
                }
                self.state[env].clone()
            }
        }
    }

    /// Starts anew for environment `env`.
    pub fn begin_episode(&mut self, env: usize) {
        if let Some(state) = self.state.get_mut(env) {
            state.fill(0.0);
        }
    }

    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        value(visitor, "noise", &mut self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    /// Stationary variance σ²/(1 − (1 − θ)²) and lag-1 correlation 1 − θ, each within 5 standard errors of 100,000 steps.
    #[test]
    fn ornstein_uhlenbeck_has_its_variance_and_correlation() {
        let (sigma, theta) = (0.2, 0.15);
        let mut noise = NoiseState::new(Noise::OrnsteinUhlenbeck { sigma, theta }, 1);
        let mut rng = Rng::seed_from_u64(7);
        let x: Vec<f64> = (0..100_000).map(|_| noise.next(0, &mut rng)[0]).skip(100).collect();
        let variance = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let correlation = x.windows(2).map(|w| w[0] * w[1]).sum::<f64>() / x.len() as f64 / variance;
        let expected = sigma * sigma / (1.0 - (1.0 - theta) * (1.0 - theta));
        // The samples are correlated: about n·(1 − ρ²)/(1 + ρ²) of them are independent.
        let effective = x.len() as f64 * (1.0 - 0.85f64.powi(2)) / (1.0 + 0.85f64.powi(2));
        assert!((variance / expected - 1.0).abs() < 5.0 * (2.0 / effective).sqrt(), "{variance} {expected}");
        assert!((correlation - 0.85).abs() < 5.0 * ((1.0 - 0.85f64.powi(2)) / x.len() as f64).sqrt());
        noise.begin_episode(0);
        assert_eq!(noise.state[0], [0.0]);
    }

    #[test]
    fn gaussian_has_its_deviation() {
        let mut noise = NoiseState::new(Noise::Gaussian { sigma: 0.1 }, 2);
        let mut rng = Rng::seed_from_u64(8);
        let x: Vec<f64> = (0..50_000).flat_map(|_| noise.next(0, &mut rng)).collect();
        let variance = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        assert!((variance / 0.01 - 1.0).abs() < 5.0 * (2.0 / x.len() as f64).sqrt());
    }
}
