//! The one environment that comes with gymnasium-rs.

use crate::Adapted;
use gymnasium_rs::core::Env as _;
use gymnasium_rs::envs::cartpole::CartPole;
use ndarray::Array1;
use rl_envs::{EnvError, Space};

/// The id of [`cart_pole`].
pub const CART_POLE: &str = "gymnasium-rs/CartPole-v0";

/// CartPole as gymnasium-rs 0.1.1 has it, with episodes of at most 500 steps.
///
/// It is **not** Gymnasium's `CartPole-v1`, which is [`rl_envs::CartPole`], and returns of the two do not compare:
///
/// * cart and pole together weigh 1.0 and not 1.1;
/// * the pole's recoil lacks the factor 0.1, its mass, so that a push makes the cart about 1.8 times as fast;
/// * the step that ends the episode is rewarded with 0 and not with 1;
/// * all is computed in f32.
///
/// Its own observation space ends at the angle at which episodes end, so that their last observation lies outside of it; here the
/// angle may be twice that, as in Gymnasium.
pub fn cart_pole() -> Adapted<Array1<f32>, i32> {
    let env = Adapted::new(CART_POLE, CartPole::new).expect("its spaces make sense");
    let gymnasium_rs::core::Space::Box { mut low, mut high } = CartPole::new().observation_space() else {
        unreachable!("its observations are a box");
    };
    low[2] *= 2.0;
    high[2] *= 2.0;
    let space = Space::vector::<4>(bounds(&low), bounds(&high));
    env.with_observation_space(space).with_time_limit(500)
}

fn bounds(bounds: &Array1<f32>) -> [f32; 4] {
    std::array::from_fn(|i| bounds[i])
}

/// Makes [`cart_pole`] known to [`rl_envs::make`] by its id.
///
/// # Errors
/// [`EnvError::Taken`] when it is known already.
pub fn register() -> Result<(), EnvError> {
    rl_envs::register(CART_POLE, || Box::new(cart_pole()))
}
