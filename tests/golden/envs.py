"""Records trajectories of Gymnasium's classic control environments for envs/tests/golden.rs to replay.

    python3 -m venv /tmp/golden
    /tmp/golden/bin/pip install gymnasium==1.4.0 numpy==2.4.6
    /tmp/golden/bin/python tests/golden/envs.py [FOLDER]

Writes one JSON file an environment into FOLDER, envs/tests/golden of this checkout if none is given: its spec, and
episodes with the internal state they start in, the actions, and each step's observation, reward and flags. float32
values are written in the shortest form that reads back to the same float32, float64 values likewise. Run again it
writes the same bytes.

Some episodes follow random actions and some a rule, so that each kind of end is among them. Long ones are cut short
(without a flag in their last step) to keep the files small, all but a few.
"""

import json
import math
import pathlib
import sys

import gymnasium
import numpy as np

# With the version of NumPy for Python before 3.11 second.
PINNED = {"gymnasium": ["1.4.0"], "numpy": ["2.4.6", "2.2.6"]}
FOUND = {"gymnasium": gymnasium.__version__, "numpy": np.__version__}


def random_action(env, generator):
    """Uniform over the action space; box actions reach 1.5 times as far, to show how they are clipped."""
    space = env.action_space
    if isinstance(space, gymnasium.spaces.Discrete):
        return lambda obs, t: int(generator.integers(space.n))
    return lambda obs, t: (1.5 * generator.uniform(space.low, space.high)).astype(np.float32)


def balance(env, generator):
    """Keeps the pole up until the time limit."""
    return lambda obs, t: int(obs[2] + 0.5 * obs[3] + 0.02 * obs[0] + 0.05 * obs[1] > 0)


def bang_bang(env, generator):
    """Pushes the way the car rolls, which takes it to the flag."""
    if isinstance(env.action_space, gymnasium.spaces.Discrete):
        return lambda obs, t: 2 if obs[1] >= 0 else 0
    force = generator.choice([0.9, 1.0, 1.25])
    return lambda obs, t: np.array([math.copysign(force, obs[1])], dtype=np.float32)


def coast(env, generator):
    """Stays in the valley until the time limit."""
    if isinstance(env.action_space, gymnasium.spaces.Discrete):
        return lambda obs, t: 1
    return lambda obs, t: np.array([0.3 * math.sin(t / 7)], dtype=np.float32)


def pump(env, generator):
    """Drives the elbow the way the upper link swings, which adds energy until the free end is above the line."""
    return lambda obs, t: 2 if obs[4] < 0 else 0


def swing_up(env, generator):
    """Pumps at full torque, then holds upright."""

    def action(obs, t):
        angle = math.atan2(obs[1], obs[0])
        torque = -10 * angle - 2 * obs[2] if abs(angle) < 0.5 else math.copysign(2.0, obs[2])
        return np.array([torque], dtype=np.float32)

    return action


def anywhere(env, generator):
    """Random actions from a state drawn from STATES, to meet limits that a start from rest does not."""
    low, high = STATES[env.spec.id]
    env.unwrapped.state = generator.uniform(low, high)
    return random_action(env, generator)


# Of each environment: bounds of the states in which `anywhere` starts.
STATES = {
    "CartPole-v1": ([-2.4, -3, -0.2, -3], [2.4, 3, 0.2, 3]),
    "MountainCar-v0": ([-1.2, -0.07], [0.6, 0.07]),
    "MountainCarContinuous-v0": ([-1.2, -0.07], [0.6, 0.07]),
    "Acrobot-v1": ([-3.14, -3.14, -12.5, -28], [3.14, 3.14, 12.5, 28]),
    "Pendulum-v1": ([-10, -8], [10, 8]),
}

# Of each environment: a rule, the number of episodes that follow it, and the steps after which they are cut.
EPISODES = {
    "CartPole-v1": [(random_action, 40, 500), (balance, 2, 500), (anywhere, 12, 15)],
    "MountainCar-v0": [
        (random_action, 14, 60),
        (random_action, 4, 200),
        (bang_bang, 8, 200),
        (coast, 1, 200),
        (anywhere, 20, 15),
    ],
    "MountainCarContinuous-v0": [
        (random_action, 16, 100),
        (random_action, 1, 999),
        (bang_bang, 9, 999),
        (coast, 1, 999),
        (anywhere, 20, 15),
    ],
    "Acrobot-v1": [
        (random_action, 18, 60),
        (random_action, 2, 500),
        (pump, 6, 500),
        (anywhere, 12, 15),
    ],
    "Pendulum-v1": [
        (random_action, 16, 80),
        (random_action, 4, 200),
        (swing_up, 6, 200),
        (anywhere, 12, 15),
    ],
}


def number(value):
    """The shortest decimal number that reads back to `value` in its own precision."""
    value = np.asarray(value)[()]
    return float(str(value)) if isinstance(value, np.float32) else float(value)


def numbers(values):
    return [number(value) for value in values]


def space(space):
    if isinstance(space, gymnasium.spaces.Discrete):
        return {"n": int(space.n)}
    bounds = {"low": numbers(space.low.ravel()), "high": numbers(space.high.ravel())}
    # JSON has no infinity.
    bounds = {key: [v if math.isfinite(v) else None for v in values] for key, values in bounds.items()}
    return {"dtype": str(space.dtype), "shape": list(space.shape), **bounds}


def episode(env, rule, seed, cut):
    generator = np.random.default_rng(seed)
    obs, _ = env.reset(seed=seed)
    act = rule(env, generator)
    # All digits: Acrobot holds float32 here, but the steps go on in float64 from exactly these values.
    state = [float(value) for value in env.unwrapped.state]
    actions, observations, rewards, flags = [], [], [], ""
    for t in range(cut):
        action = act(obs, t)
        obs, reward, terminated, truncated, _ = env.step(action)
        actions.append(action if isinstance(action, int) else number(action[0]))
        observations.append(numbers(obs))
        rewards.append(number(reward))
        flags += "-tub"[terminated + 2 * truncated]
        if terminated or truncated:
            break
    return {
        "rule": rule.__name__,
        "state": state,
        "actions": actions,
        "observations": observations,
        "rewards": rewards,
        # A letter a step: - neither, t terminated, u truncated, b both.
        "flags": flags,
    }


def record(env_id):
    env = gymnasium.make(env_id)
    spec = gymnasium.spec(env_id)
    runs = [(rule, cut) for rule, count, cut in EPISODES[env_id] for _ in range(count)]
    return {
        "id": env_id,
        "versions": FOUND,
        "observation": space(env.observation_space),
        "action": space(env.action_space),
        "max_episode_steps": spec.max_episode_steps,
        "reward_threshold": spec.reward_threshold,
        "episodes": [episode(env, rule, seed, cut) for seed, (rule, cut) in enumerate(runs)],
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
