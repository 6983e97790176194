"""Small environments for envs/tests/python.rs, registered when this is imported."""

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space


class Any(gymnasium.Env):
    """Observations of a space of one's choice; an episode of `length` steps, and errors on demand."""

    SPACES = {
        "float64": spaces.Box(-1e300, 1e300, (2, 2), np.float64),
        "float32": spaces.Box(-1, 1, (3,), np.float32),
        "uint8": spaces.Box(0, 255, (2, 3, 1), np.uint8),
        "int16": spaces.Box(-5, 5, (2,), np.int16),
        "discrete": spaces.Discrete(5, start=-2),
        "multibinary": spaces.MultiBinary(4),
        "dict": spaces.Dict({"a": spaces.Box(0, 1, (2,), np.float32), "b": spaces.Discrete(2)}),
    }
    ACTIONS = {
        "discrete": spaces.Discrete(3, start=7),
        "box": spaces.Box(-2, 2, (2, 1), np.float64),
        "multidiscrete": spaces.MultiDiscrete([2, 3]),
        "integers": spaces.Box(0, 5, (2,), np.int64),
    }

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, obs="float32", action="discrete", length=4, fails="", render_mode=None, strided=False):
        self.observation_space = self.SPACES[obs]
        self.action_space = self.ACTIONS[action]
        self.length, self.fails, self.strided, self.render_mode = length, fails, strided, render_mode
        if fails == "init":
            raise ValueError("no such thing\nand a second line")

    def obs(self):
        if isinstance(self.observation_space, spaces.Discrete):
            return np.int64(self.t % 5 - 2)
        if not isinstance(self.observation_space, spaces.Box):
            return self.observation_space.sample()
        shape, dtype = self.observation_space.shape, self.observation_space.dtype
        values = (np.arange(np.prod(shape)).reshape(shape) + self.t) / (1 if dtype.kind != "f" else 10)
        values = values.astype(dtype)
        if self.strided:
            values = np.asfortranarray(values)
        return values

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.seed = 0, seed
        if self.fails == "reset":
            raise KeyError("reset")
        return self.obs(), {}

    def step(self, action):
        self.t += 1
        if self.fails == "step" and self.t == 2:
            raise RuntimeError("the second step")
        if self.fails == "exit":
            raise KeyboardInterrupt
        if self.fails == "shape":
            return np.zeros(7, np.float32), 0.0, False, False, {}
        if self.fails == "tuple":
            return self.obs(), 0.0, False, {}
        if isinstance(self.action_space, spaces.Box):
            assert action.shape == self.action_space.shape and action.dtype == self.action_space.dtype
            reward = float(action.sum())
        else:
            reward = np.float32(action)
        return self.obs(), reward, self.t >= self.length, np.bool_(False), {}

    def render(self):
        if self.fails == "render":
            raise OSError("no screen")
        frame = np.full((4, 6, 3), 200, np.uint8)
        frame[1, 2] = (255, 0, 9)
        return frame


class Random(gymnasium.Env):
    """Its state is drawn at every step: from the seed, or, if `seeded` is false, from nowhere."""

    observation_space = spaces.Box(0, 1, (1,), np.float64)
    action_space = spaces.Discrete(2)

    def __init__(self, seeded=True):
        self.generator = None if seeded else np.random.default_rng()

    def draw(self):
        generator = self.generator or self.np_random
        return generator.random(1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.draw(), {}

    def step(self, action):
        obs = self.draw()
        return obs, action * obs[0], bool(obs[0] < 0.05), False, {}


class Counting(VectorEnv):
    """Environment i counts to i + 2 and ends; observations are (episode, count). All three ways of starting the next episode."""

    def __init__(self, num_envs, mode="NextStep"):
        self.num_envs, self.mode = num_envs, AutoresetMode(mode)
        self.metadata = {"autoreset_mode": self.mode}
        self.single_observation_space = spaces.Box(0, np.inf, (2,), np.float32)
        self.single_action_space = spaces.Discrete(2)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.limits = np.arange(num_envs) + 2

    def obs(self):
        return np.stack([self.episode, self.count], 1).astype(np.float32)

    def reset(self, *, seed=None, options=None):
        mask = (options or {}).get("reset_mask")
        if mask is None:
            self.episode, self.count = np.zeros(self.num_envs, int), np.zeros(self.num_envs, int)
            self.over = np.zeros(self.num_envs, bool)
        else:
            assert (mask == self.over).all()
            self.start(mask)
        return self.obs(), {}

    def start(self, mask):
        self.episode[mask] += 1
        self.count[mask] = 0
        self.over[mask] = False

    def step(self, actions):
        info, reset = {}, self.over.copy()
        if self.mode == AutoresetMode.DISABLED:
            assert not reset.any()
        self.start(reset)
        self.count[~reset] += 1
        rewards = np.where(reset, 99.0, 10.0 * self.count + actions)
        ended = (self.count == self.limits) & ~reset
        self.over = ended.copy()
        if self.mode == AutoresetMode.SAME_STEP:
            final = np.empty(self.num_envs, object)
            for i in np.flatnonzero(ended):
                final[i] = self.obs()[i]
            if ended.any():
                info = {"final_obs": final, "_final_obs": ended}
            self.start(ended)
        even = np.arange(self.num_envs) % 2 == 0
        return self.obs(), rewards, ended & even, ended & ~even, info


gymnasium.register("Test/Any-v0", entry_point=Any)
gymnasium.register("Test/Random-v0", entry_point=Random, max_episode_steps=200, reward_threshold=9.5)
gymnasium.register("Test/Counting-v0", vector_entry_point=Counting)
