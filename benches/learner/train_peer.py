#!/usr/bin/env python3
"""One whole training with Stable-Baselines3 or sbx, as benches/learner/train.py asks for it.

    python train_peer.py --library sb3|sbx --case cartpole|threshold|pendulum --seed N --steps N [--every N]

prints "begin" when everything is imported and the first step is about to be taken, and at the end one line of JSON with the
updates made and, for `threshold`, the environment steps after which a greedy evaluation reached 475 (null if none did).
"""

import argparse
import json


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--library", required=True, choices=["sb3", "sbx"])
    parser.add_argument("--case", required=True, choices=["cartpole", "threshold", "pendulum"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--every", type=int, default=2500)
    a = parser.parse_args()

    import gymnasium as gym
    import torch

    torch.set_num_threads(1)
    if a.library == "sb3":
        from stable_baselines3 import DDPG, DQN
    else:
        from sbx import DDPG, DQN
    from stable_baselines3.common.callbacks import EvalCallback, StopTrainingOnRewardThreshold
    from stable_baselines3.common.noise import NormalActionNoise

    where = dict(device="cpu") if a.library == "sb3" else {}
    if a.case == "pendulum":
        import numpy as np

        # rl-baselines3-zoo's values for DDPG on Pendulum-v1, learning from the 1,000th step on as ours does.
        noise = NormalActionNoise(np.zeros(1), 0.1 * np.ones(1))
        model = DDPG(
            "MlpPolicy", "Pendulum-v1", learning_rate=1e-3, buffer_size=200_000, learning_starts=1_000, batch_size=256,
            gamma=0.98, train_freq=1, gradient_steps=1, action_noise=noise, policy_kwargs=dict(net_arch=[400, 300]),
            seed=a.seed, **where,
        )
    else:
        # rl-baselines3-zoo's values for DQN on CartPole-v1 (hyperparams/dqn.yml).
        model = DQN(
            "MlpPolicy", "CartPole-v1", learning_rate=2.3e-3, buffer_size=100_000, learning_starts=1_000, batch_size=64,
            gamma=0.99, target_update_interval=10, train_freq=256, gradient_steps=128, exploration_fraction=0.16,
            exploration_final_eps=0.04, policy_kwargs=dict(net_arch=[256, 256]), seed=a.seed, **where,
        )
    callback, steps = None, None
    if a.case == "threshold":
        stop = StopTrainingOnRewardThreshold(475)
        callback = EvalCallback(
            gym.make("CartPole-v1"), callback_on_new_best=stop, n_eval_episodes=10, eval_freq=a.every, deterministic=True,
            verbose=0, warn=False,
        )
    print("begin", flush=True)
    model.learn(a.steps, callback=callback)
    if callback is not None and callback.best_mean_reward >= 475:
        steps = model.num_timesteps
    print(json.dumps(dict(updates=model._n_updates, env_steps=model.num_timesteps, reached=steps)), flush=True)


if __name__ == "__main__":
    main()
