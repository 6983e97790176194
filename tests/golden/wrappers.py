"""Records what Gymnasium's wrappers make of given observations, rewards and actions, for envs/tests/wrappers.rs.

    python3 -m venv /tmp/golden
    /tmp/golden/bin/pip install gymnasium==1.4.0 numpy==2.4.6 opencv-python-headless==5.0.0.93
    /tmp/golden/bin/python tests/golden/wrappers.py [FILE]

Writes envs/tests/golden/wrappers.json of this checkout if no file is given. What goes in is recorded too, but for images,
which are a formula that both sides know (`image`). Run again it writes the same bytes.
"""

import json
import pathlib
import sys

import cv2
import gymnasium
import numpy as np
from gymnasium import wrappers
from gymnasium.wrappers.utils import RunningMeanStd

PINNED = {"gymnasium": ["1.4.0"], "numpy": ["2.4.6", "2.2.6"], "opencv": ["5.0.0"]}
FOUND = {"gymnasium": gymnasium.__version__, "numpy": np.__version__, "opencv": cv2.__version__}


class Script(gymnasium.Env):
    """Plays given episodes: observations (the first one at reset), rewards, and how each episode ends."""

    def __init__(self, space, action_space, episodes):
        self.observation_space, self.action_space = space, action_space
        self.episodes, self.episode, self.t = episodes, -1, 0
        self.actions = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self.episodes[self.episode]["observations"][0], {}

    def step(self, action):
        self.actions.append(action)
        self.t += 1
        playing = self.episodes[self.episode]
        last = self.t == len(playing["rewards"])
        obs, reward = playing["observations"][self.t], playing["rewards"][self.t - 1]
        return obs, reward, last and playing["end"] == "t", last and playing["end"] == "u", {}


def number(value):
    value = np.asarray(value)[()]
    return float(str(value)) if isinstance(value, np.float32) else float(value)


def flat(array):
    array = np.asarray(array)
    if array.dtype == np.uint8:
        return array.ravel().tolist()
    return [number(v) for v in array.ravel()]


def script(generator, dtype):
    """Three episodes of three-element observations, the second one truncated."""
    episodes = []
    for end, steps in [("t", 7), ("u", 9), ("t", 12)]:
        if dtype == np.uint8:
            observations = generator.integers(0, 256, (steps + 1, 3), dtype=np.uint8)
        else:
            observations = (generator.normal([0, 50, -0.01], [1, 5, 0.002], (steps + 1, 3))).astype(np.float32)
        rewards = [float(v) for v in generator.normal(0.5, 3, steps)]
        episodes.append({"observations": observations, "rewards": rewards, "end": end})
    return episodes


def play(env, episodes):
    """All that is seen of `episodes`, reset observations first."""
    seen = []
    for _ in range(episodes):
        obs, _ = env.reset()
        steps = {"observations": [flat(obs)], "rewards": []}
        over = False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(env.action_space.sample() * 0)
            steps["observations"].append(flat(obs))
            steps["rewards"].append(float(reward))
            over = terminated or truncated
        seen.append(steps)
    return seen


def scripted():
    """Wrappers around a script, floats and bytes."""
    cases = []
    for dtype in (np.float32, np.uint8):
        episodes = script(np.random.default_rng(7), dtype)
        low, high = (0, 255) if dtype == np.uint8 else (-np.inf, np.inf)
        space = gymnasium.spaces.Box(low, high, (3,), dtype)
        new = lambda: Script(space, gymnasium.spaces.Discrete(2), episodes)
        made = {
            "frame_stack_first": wrappers.FrameStackObservation(new(), 4),
            "frame_stack_zero": wrappers.FrameStackObservation(new(), 4, padding_type="zero"),
            "normalize_observation": wrappers.NormalizeObservation(new()),
            "normalize_reward": wrappers.NormalizeReward(new()),
            "normalize_reward_half": wrappers.NormalizeReward(new(), gamma=0.5, epsilon=0.1),
            "clip_reward": wrappers.ClipReward(new(), -1, 1),
            "clip_reward_below": wrappers.ClipReward(new(), -0.5, None),
            "max_and_skip_3": wrappers.MaxAndSkipObservation(new(), 3),
        }
        statistics = wrappers.RecordEpisodeStatistics(new(), buffer_length=2)
        seen = {name: play(env, 3) for name, env in made.items()}
        play(statistics, 3)
        cases.append({
            "dtype": np.dtype(dtype).name,
            "script": [{**e, "observations": [flat(o) for o in e["observations"]]} for e in episodes],
            "seen": seen,
            "returns": list(statistics.return_queue),
            "lengths": list(statistics.length_queue),
        })
    return cases


def rescaled():
    """Actions as the environment inside gets them."""
    generator = np.random.default_rng(3)
    cases = []
    for low, high, new_low, new_high in [
        ([-2.0], [2.0], -1.0, 1.0),
        ([-0.3, 0.0, -7.5], [0.7, 10.0, -2.5], -1.0, 1.0),
        ([-0.4, 1e-3], [0.4, 1e3], 0.0, 0.3),
    ]:
        space = gymnasium.spaces.Box(np.float32(low), np.float32(high))
        episodes = [{"observations": np.zeros((41, 1), np.float32), "rewards": [0.0] * 40, "end": "u"}]
        inner = Script(gymnasium.spaces.Box(-1, 1, (1,)), space, episodes)
        env = wrappers.RescaleAction(inner, new_low, new_high)
        env.reset()
        given = generator.uniform(1.5 * new_low - 0.1, 1.5 * new_high, (40, len(low))).astype(np.float32)
        for action in given:
            env.step(action)
        cases.append({
            "low": [number(np.float32(v)) for v in low],
            "high": [number(np.float32(v)) for v in high],
            "new": [new_low, new_high],
            "given": [flat(a) for a in given],
            "mapped": [flat(np.float32(a)) for a in inner.actions],
        })
    return cases


def image(shape, flavor):
    """Bytes that look random, runs of extremes, or a slope; a formula without a generator."""
    i = np.arange(np.prod(shape), dtype=np.uint64)
    mixed = (i * np.uint64(2654435761) + np.uint64(flavor)) % np.uint64(2**32) >> np.uint64(13)
    if flavor == 1:
        values = np.where(mixed % np.uint64(3) == 0, 255, 0)
    elif flavor == 2:
        values = i * np.uint64(255) // np.uint64(max(np.prod(shape) - 1, 1))
    else:
        values = mixed % np.uint64(256)
    return values.astype(np.uint8).reshape(shape)


def images():
    cases = []
    for shape, size in [
        ((210, 160), (84, 84)),
        ((210, 160, 3), (84, 84)),
        ((210, 160), (105, 80)),
        ((90, 60), (30, 20)),
        ((90, 60, 3), (30, 12)),
        ((53, 37), (11, 7)),
        ((53, 37), (53, 20)),
        ((64, 64), (1, 1)),
        ((10, 10), (10, 10)),
    ]:
        for flavor in (0, 1, 2):
            if shape == (210, 160, 3) and flavor == 2:
                continue
            episodes = [{"observations": [image(shape, flavor)], "rewards": [], "end": "u"}]
            space = gymnasium.spaces.Box(0, 255, shape, np.uint8)
            env = wrappers.ResizeObservation(Script(space, gymnasium.spaces.Discrete(1), episodes), size)
            obs, _ = env.reset()
            cases.append({"shape": shape, "flavor": flavor, "size": size, "small": obs.tobytes().hex()})
    return cases


def grays():
    """Shades of an image of random colors, and of all grays."""
    cases = []
    for flavor, shape in [(0, (40, 50, 3)), (1, (20, 10, 3)), (2, (16, 16, 3))]:
        episodes = [{"observations": [image(shape, flavor)], "rewards": [], "end": "u"}]
        if flavor == 2:
            episodes[0]["observations"] = [np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(shape)]
        space = gymnasium.spaces.Box(0, 255, shape, np.uint8)
        env = wrappers.GrayscaleObservation(Script(space, gymnasium.spaces.Discrete(1), episodes))
        obs, _ = env.reset()
        cases.append({"shape": shape, "flavor": flavor, "gray": obs.tobytes().hex()})
    return cases


def moments():
    """Running moments of batches, as the vector wrappers keep them."""
    generator = np.random.default_rng(11)
    running = RunningMeanStd(shape=(2,))
    steps = []
    for rows in (1, 5, 1, 64, 3):
        batch = generator.normal([1e6, -2], [0.5, 3], (rows, 2))
        running.update(batch)
        steps.append({"batch": flat(batch), "mean": flat(running.mean), "variance": flat(running.var)})
    return steps


def main():
    if any(FOUND[name] not in versions for name, versions in PINNED.items()):
        sys.exit(f"the recordings are of {PINNED}; this Python has {FOUND}")
    ours = pathlib.Path(__file__).resolve().parents[2] / "envs" / "tests" / "golden" / "wrappers.json"
    path = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ours
    parts = {
        "versions": FOUND,
        "scripted": scripted(),
        "rescaled": rescaled(),
        "images": images(),
        "grays": grays(),
        "moments": moments(),
    }
    lines = ",\n".join(f"{json.dumps(k)}:{json.dumps(v, separators=(',', ':'))}" for k, v in parts.items())
    path.write_text("{" + lines + "}\n")
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
