//! An environment written for gymnasium-rs, played by its id like any of rl-envs:
//!
//!     cargo run --release --example gymnasium_rs

use rl_envs::{Actions, EnvError, VecEnv};
use rl_envs_gymnasium_rs::CART_POLE;

fn main() -> Result<(), EnvError> {
    rl_envs_gymnasium_rs::register()?;
    let mut envs = VecEnv::make(CART_POLE, 16)?;
    envs.reset(1)?;
    let mut returns = [0.0; 16];
    let (mut total, mut episodes) = (0.0, 0);
    while episodes < 100 {
        // Push to the side to which the pole falls.
        let actions: Vec<i64> = envs.obs().chunks(4).map(|o| i64::from(o[2] + o[3] > 0.0)).collect();
        envs.step(Actions::Discrete(&actions))?;
        for (so_far, outcome) in returns.iter_mut().zip(envs.outcomes()) {
            *so_far += outcome.reward;
            if outcome.ended() {
                total += std::mem::take(so_far);
                episodes += 1;
            }
        }
    }
    println!("{}", envs.spec().id);
    println!("observations {}, actions {}", envs.spec().observation, envs.spec().action);
    println!("{episodes} episodes, {:.1} of 500 on average", total / f64::from(episodes));
    Ok(())
}
