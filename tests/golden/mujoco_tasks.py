"""Records trajectories of Gymnasium's MuJoCo environments for envs/tests/mujoco.rs to replay.

    python3 -m venv /tmp/golden
    /tmp/golden/bin/pip install "gymnasium[mujoco]==1.4.0" mujoco==3.17.0 numpy==2.4.6
    /tmp/golden/bin/python tests/golden/mujoco_tasks.py [FOLDER]

Writes one JSON file an environment into FOLDER, envs/tests/golden of this checkout if none is given: its spec, and episodes with
the positions and velocities they start from. An observation has up to 348 numbers, so there is a checksum of each step and only
now and then the step itself; and actions come from a generator, of which there is the seed. Run again it writes the same bytes.

The generator is SplitMix64, begun at the seed: of each number the upper 24 bits n make the float32 n / 2^23 - 1, which times 1.25 and the
upper bound is the value of one actuator. So a fifth of them is out of bounds.

The checksum is FNV-1a (32 bits) over 32-bit words: the observation, rounded to float32, word by word; the reward in float64, its lower and
then its upper half; and 1 where the step terminated, else 0.
"""

import json
import math
import pathlib
import struct
import sys

import gymnasium
import mujoco
import numpy as np

# With the version of NumPy for Python before 3.11 second.
PINNED = {"gymnasium": ["1.4.0"], "mujoco": ["3.17.0"], "numpy": ["2.4.6", "2.2.6"]}
FOUND = {"gymnasium": gymnasium.__version__, "mujoco": mujoco.__version__, "numpy": np.__version__}

# Of each environment: pairs of a number of episodes and the steps after which they are cut.
EPISODES = {
    "Hopper-v5": [(24, 1000)],
    "HalfCheetah-v5": [(20, 150), (1, 1000)],
    "Walker2d-v5": [(24, 1000)],
    "Ant-v5": [(20, 100), (1, 1000)],
    "Humanoid-v5": [(24, 1000)],
    "Swimmer-v5": [(20, 150), (1, 1000)],
    "Reacher-v5": [(24, 50)],
    "Pusher-v5": [(22, 100)],
    "InvertedPendulum-v5": [(24, 1000)],
    "InvertedDoublePendulum-v5": [(24, 1000)],
}
SHOWN = 50  # steps from one that is written out to the next
MASK = (1 << 64) - 1


class SplitMix64:
    """Steele, Lea and Flood (2014)."""

    def __init__(self, seed):
        self.state = seed

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def action(self, space):
        shares = [np.float32((self.next() >> 40) / 2**23 - 1) for _ in range(space.shape[0])]
        return np.array(shares, dtype=np.float32) * np.float32(1.25) * space.high


def checksum(obs, reward, terminated):
    words = obs.astype(np.float32).view(np.uint32).tolist()
    words += struct.unpack("<II", struct.pack("<d", reward)) + (int(terminated),)
    total = 0x811C9DC5
    for word in words:
        total = ((total ^ word) * 0x01000193) & 0xFFFFFFFF
    return total


def numbers(values):
    return [float(value) for value in values]


def shortest(values):
    """float32 values as the shortest decimals that read back to them."""
    return [float(str(value)) for value in np.asarray(values, dtype=np.float32)]


def episode(env, seed, cut):
    plain = env.unwrapped
    starts = []
    # What a reset draws, before MuJoCo has touched it.
    set_state = type(plain).set_state
    plain.set_state = lambda qpos, qvel: (starts.append((qpos.copy(), qvel.copy())), set_state(plain, qpos, qvel))
    first, _ = env.reset(seed=seed)
    [(qpos, qvel)] = starts
    generator = SplitMix64(seed)
    sums, shown, steps = "", [], 0
    terminated = truncated = False
    while steps < cut and not (terminated or truncated):
        obs, reward, terminated, truncated, _ = env.step(generator.action(env.action_space))
        sums += f"{checksum(obs, float(reward), terminated):08x}"
        if steps % SHOWN == 0 or terminated:
            shown.append([steps, float(reward), shortest(obs)])
        steps += 1
    return {
        "seed": seed,
        "qpos": numbers(qpos),
        "qvel": numbers(qvel),
        "first": shortest(first),
        "sums": sums,
        "terminated": bool(terminated),
        "truncated": bool(truncated),
        "shown": shown,
        "last": [numbers(plain.data.qpos), numbers(plain.data.qvel)],
    }


def bounds(values):
    values = sorted(set(numbers(values)))
    return [value if math.isfinite(value) else None for value in values]


def record(env_id):
    env = gymnasium.make(env_id)
    cuts = [cut for count, cut in EPISODES[env_id] for _ in range(count)]
    return {
        "id": env_id,
        "versions": FOUND,
        "observation": list(env.observation_space.shape),
        "observation_bounds": [bounds(env.observation_space.low), bounds(env.observation_space.high)],
        "action": list(env.action_space.shape),
        "action_bounds": [bounds(env.action_space.low), bounds(env.action_space.high)],
        "max_episode_steps": env.spec.max_episode_steps,
        "reward_threshold": env.spec.reward_threshold,
        "episodes": [episode(env, seed, cut) for seed, cut in enumerate(cuts)],
    }


def main():
    if any(FOUND[name] not in versions for name, versions in PINNED.items()):
        sys.exit(f"the recordings are of {PINNED}; this Python has {FOUND}")
    ours = pathlib.Path(__file__).resolve().parents[2] / "envs" / "tests" / "golden"
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ours
    for env_id in EPISODES:
        data = record(env_id)
        # One line an episode: a changed one is a changed line.
        episodes = ",\n".join(json.dumps(e, separators=(",", ":")) for e in data.pop("episodes"))
        head = json.dumps(data, separators=(",", ":"))
        path = folder / f"{env_id}.json"
        path.write_text(f'{head[:-1]},"episodes":[\n{episodes}\n]}}\n')
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
