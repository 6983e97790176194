"""Records episodes of Gymnasium's LunarLander for envs/src/lunar_lander/golden.rs to replay.

    python3 -m venv /tmp/golden
    /tmp/golden/bin/pip install gymnasium==1.4.0 box2d==2.3.10 numpy==2.4.6
    /tmp/golden/bin/python tests/golden/lunar_lander.py [FOLDER]

Writes one JSON file an environment into FOLDER, envs/tests/golden of this checkout if none is given: its spec; episodes with the
state of NumPy's generator in which they start, and each step's observation, reward and flags; and what Gymnasium's
own heuristic controller reaches. Random actions are told by the state of their generator. float32 values are written in the
shortest form that reads back to the same float32, float64 values likewise. Run again it writes the same bytes.

Some episodes follow random actions, some the heuristic, so that each kind of end is among them, and some have wind.
"""

import json
import pathlib
import sys
import zlib

import Box2D
import gymnasium
import numpy as np
from envs import FOUND, PINNED, number, numbers, space
from gymnasium.envs.box2d.lunar_lander import heuristic

BOX2D = "2.3.10"
IDS = ["LunarLander-v3", "LunarLanderContinuous-v3"]
WIND = {"enable_wind": True, "wind_power": 15.0, "turbulence_power": 1.5}
OTHER = {"gravity": -3.0, "enable_wind": True, "wind_power": 20.0, "turbulence_power": 2.0}
# A rule, the number of episodes that follow it, the arguments of the environment, and whether each step is written down; else
# checksums over them are, to keep the files small.
EPISODES = [
    ("random", 20, {}, True),
    ("idle", 1, {}, True),
    ("heuristic", 2, {}, True),
    ("random", 3, WIND, True),
    ("heuristic", 1, OTHER, True),
    ("heuristic", 2, WIND, False),
    ("random", 150, {}, False),
    ("heuristic", 50, {}, False),
]
JUDGED = 200  # episodes of the heuristic, with seeds of their own


def rule_of(name, env, generator):
    if name == "heuristic":
        return lambda obs: heuristic(env, obs)
    continuous = isinstance(env.action_space, gymnasium.spaces.Box)
    if name == "idle":
        # Drifts until it hits something.
        return lambda obs: np.zeros(2, dtype=np.float32) if continuous else 0
    if continuous:
        # 1.5 times as far as the space reaches, to show how actions are clipped.
        return lambda obs: (1.5 * generator.uniform(-1, 1, 2)).astype(np.float32)
    return lambda obs: int(generator.integers(4))


def state_of(generator):
    state = generator.bit_generator.state
    assert not state["has_uint32"]
    return [format(state["state"][key], "032x") for key in ("state", "inc")]


def crc(observations, rewards):
    """Of every bit of the observations (f32) and rewards (f64)."""
    sum = 0
    for obs, reward in zip(observations, rewards):
        sum = zlib.crc32(np.asarray(obs, "<f4").tobytes() + np.asarray(reward, "<f8").tobytes(), sum)
    return sum


def episode(env, rule, seed, written):
    generator = np.random.default_rng(seed)
    env.reset(seed=seed)
    states = {"generator": state_of(env.unwrapped.np_random)}
    if rule == "random":
        states["actions"] = state_of(generator)
    # Without a seed this time: what the generator draws from here on is the episode.
    obs, _ = env.reset()
    act = rule_of(rule, env, generator)
    observations, rewards, flags, air = [obs], [], "", None
    while not flags or flags[-1] == "-":
        obs, reward, terminated, truncated, _ = env.step(act(obs))
        if air is None and (env.unwrapped.game_over or obs[6] or obs[7]):
            air = len(flags)
        observations.append(obs)
        rewards.append(reward)
        flags += "-tub"[terminated + 2 * truncated]
    air = len(flags) if air is None else air
    result = {
        "rule": rule,
        **states,
        "steps": len(flags),
        # - none, t terminated, u truncated, b both.
        "end": flags[-1],
        "crc": crc(observations[1:], rewards),
        # Steps before the one in which something first touched the ground, and the checksum over them.
        "air": air,
        "air_crc": crc(observations[1 : air + 1], rewards[:air]),
    }
    if written:
        result |= {"observations": [numbers(obs) for obs in observations], "rewards": numbers(rewards)}
    return result


def judged(env_id):
    """What the heuristic reaches."""
    env = gymnasium.make(env_id)
    returns = []
    for seed in range(JUDGED):
        obs, _ = env.reset(seed=100_000 + seed)
        total, over = 0.0, False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(heuristic(env, obs))
            total, over = total + reward, terminated or truncated
        returns.append(total)
    return {"episodes": JUDGED, "mean": float(np.mean(returns)), "sd": float(np.std(returns, ddof=1))}


def record(env_id):
    spec, plain = gymnasium.spec(env_id), gymnasium.make(env_id)
    runs = [(rule, arguments, written) for rule, count, arguments, written in EPISODES for _ in range(count)]
    episodes = []
    for seed, (rule, arguments, written) in enumerate(runs):
        env = gymnasium.make(env_id, **arguments)
        episodes.append({"arguments": arguments, **episode(env, rule, seed, written)})
    return {
        "id": env_id,
        "versions": {**FOUND, "box2d": Box2D.__version__},
        "observation": space(plain.observation_space),
        "action": space(plain.action_space),
        "max_episode_steps": spec.max_episode_steps,
        "reward_threshold": spec.reward_threshold,
        "heuristic": judged(env_id),
        "episodes": episodes,
    }


def main():
    if any(FOUND[name] not in versions for name, versions in PINNED.items()) or Box2D.__version__ != BOX2D:
        sys.exit(f"the recordings are of {PINNED} and box2d {BOX2D}; this Python has {FOUND} and {Box2D.__version__}")
    ours = pathlib.Path(__file__).resolve().parents[2] / "envs" / "tests" / "golden"
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ours
    for env_id in IDS:
        data = record(env_id)
        # One line an episode: a changed one is a changed line.
        episodes = ",\n".join(json.dumps(e, separators=(",", ":")) for e in data.pop("episodes"))
        head = json.dumps(data, separators=(",", ":"))
        path = folder / f"{env_id}.json"
        path.write_text(f'{head[:-1]},"episodes":[\n{episodes}\n]}}\n')
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
