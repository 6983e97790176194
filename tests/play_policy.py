"""Plays a DQN policy that rl-train trained on CartPole-v1, with numpy and Gymnasium alone.

    play_policy.py CHECKPOINT --episodes N   {"returns": [...]} of N greedy episodes, seeds 0 to N - 1, as JSON
    play_policy.py CHECKPOINT --values       {"values": [[Q(s, 0), Q(s, 1)], ...]} of the observations on standard input
"""

import argparse
import json
import sys

import gymnasium
import numpy as np
from safetensors.numpy import load_file

PREFIX = "agent.online.layers."


class Policy:
    """The Q-network: linear layers, as torch.nn.Linear stores them, with ReLU between them."""

    def __init__(self, path, actions):
        tensors = load_file(path)
        depth = sum(name.startswith(PREFIX) and name.endswith(".weight") for name in tensors)
        self.layers = [(tensors[f"{PREFIX}{i}.weight"].T, tensors[f"{PREFIX}{i}.bias"]) for i in range(depth)]
        # The dueling form has one column more, the first: V, beside the advantages.
        self.dueling = self.layers[-1][1].size == actions + 1

    def values(self, obs):
        x = np.asarray(obs, dtype=np.float32)
        for i, (weight, bias) in enumerate(self.layers):
            x = (np.maximum(x, 0) if i else x) @ weight + bias
        if self.dueling:
            value, advantage = x[..., :1], x[..., 1:]
            x = value + advantage - advantage.mean(axis=-1, keepdims=True)
        return x


def play(env, policy, seed):
    obs, _ = env.reset(seed=seed)
    total, over = 0.0, False
    while not over:
        obs, reward, terminated, truncated, _ = env.step(int(policy.values(obs).argmax()))
        total += float(reward)
        over = terminated or truncated
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--episodes", type=int)
    what.add_argument("--values", action="store_true")
    args = parser.parse_args()

    env = gymnasium.make("CartPole-v1")
    policy = Policy(args.checkpoint, int(env.action_space.n))
    if args.values:
        print(json.dumps({"values": policy.values(json.load(sys.stdin)).tolist()}))
    else:
        print(json.dumps({"returns": [play(env, policy, seed) for seed in range(args.episodes)]}))


main()
