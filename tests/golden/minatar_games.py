"""Records episodes of MinAtar's games for envs/src/minatar/golden.rs to replay.

    python3 -m venv /tmp/golden
    /tmp/golden/bin/pip install minatar==1.0.15 gymnasium==1.4.0 numpy==2.4.6
    /tmp/golden/bin/python tests/golden/minatar_games.py [FOLDER]

Writes one JSON file a game into FOLDER, envs/tests/golden of this checkout if none is given. Run again it writes the same
bytes. All that is random in a game comes from NumPy's RandomState, a Mersenne Twister, which the test has, too: a seed
is enough to replay chance, sticky actions included, and every observation is compared.

`runs` are of one environment each, seeded once and reset after every episode: the first with random actions, the last
ones with a rule that plays better, to see what random actions never live to see. Of every observation there are 16 bits
of a checksum that runs through its episode, so that the first one that differs is named, and of the last one all 32.
`long` has runs of random actions with one checksum over all of it.
"""

import copy
import json
import pathlib
import sys
import zlib

import gymnasium
import minatar.gym
import numpy as np
import seaborn
from importlib.metadata import version

# With the version of NumPy for Python before 3.11 second.
PINNED = {"minatar": ["1.0.15"], "gymnasium": ["1.4.0"], "numpy": ["2.4.6", "2.2.6"]}
FOUND = {name: version(name) for name in PINNED}

GAMES = ["Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders"]
LONG_STEPS = 100_000


def randomly(env, generator):
    """Uniform over the actions."""
    return int(generator.integers(env.action_space.n))


def upwards(env, generator):
    """Up, now and then anything."""
    if generator.random() < 0.1:
        return randomly(env, generator)
    return env.unwrapped.action_set.index(2)


def carefully(env, generator):
    """The action after which a few random ones go best, judged by `prospect`. Sees the future; that does not matter."""
    base = env.unwrapped
    best, chosen = None, 0
    for action, button in enumerate(base.action_set):
        value = generator.uniform(0, 0.001)
        for _ in range(2):
            game = copy.deepcopy(base.game)
            reward, terminated = game.act(button)
            # More than a point at once is what Seaquest gives for six divers.
            value += reward * (1 if reward == 1 else 20) - 20 * terminated + prospect(game.env)
            for _ in range(5):
                reward, terminated = game.act(int(generator.integers(6)))
                value += 0.5 * reward - 5 * terminated
            value += 0.5 * prospect(game.env)
        if best is None or value > best:
            best, chosen = value, action
    return chosen


def prospect(game):
    """How promising a state is, in points."""
    match type(game).__module__.rsplit(".", 1)[-1]:
        case "asterix":
            gold = [abs(x[0] - game.player_x) + abs(x[1] - game.player_y) for x in game.entities if x and x[3]]
            return -0.1 * min(gold, default=10)
        case "breakout":
            return -0.1 * abs(game.pos - game.ball_x)
        case "seaquest":
            value = 2 * game.diver_count + 0.03 * game.oxygen
            if game.diver_count == 6 or game.oxygen < 60 and game.diver_count > 0:
                return value - 0.3 * game.sub_y
            divers = [abs(x[0] - game.sub_x) + abs(x[1] - game.sub_y) for x in game.divers]
            return value - 0.1 * min(divers, default=10) - 0.5 * (game.sub_y == 0)
        case "space_invaders":
            aims = np.logical_and(game.f_bullet_map.any(axis=0), game.alien_map.any(axis=0)).sum()
            columns = np.flatnonzero(game.alien_map.any(axis=0))
            return 0.3 * aims - 0.05 * np.abs(columns - game.pos).min()


# Of each game: runs of a rule, an action set (v0 full, v1 minimal), the probability of sticky actions, ramping, the
# number of episodes, and the steps after which they are cut.
RANDOM = [
    (randomly, "v0", 0.1, True, 20, 400),
    (randomly, "v1", 0.0, True, 10, 400),
    (randomly, "v0", 0.5, False, 5, 400),
]
RUNS = {
    "Asterix": [*RANDOM, (carefully, "v0", 0.1, True, 3, 1500), (carefully, "v1", 0.0, False, 2, 600)],
    "Breakout": [*RANDOM, (carefully, "v0", 0.1, True, 5, 1500), (carefully, "v1", 0.0, False, 2, 600)],
    "Freeway": [
        (randomly, "v0", 0.1, True, 20, 150),
        (randomly, "v1", 0.0, True, 10, 150),
        (randomly, "v0", 0.5, False, 1, 3000),
        (upwards, "v0", 0.1, True, 2, 3000),
        (upwards, "v1", 0.0, True, 1, 3000),
    ],
    "Seaquest": [*RANDOM, (carefully, "v0", 0.1, True, 4, 3000), (carefully, "v1", 0.0, False, 2, 1000)],
    "SpaceInvaders": [*RANDOM, (carefully, "v0", 0.1, True, 3, 2000), (carefully, "v1", 0.0, False, 2, 1000)],
}


def packed(obs):
    return np.packbits(obs).tobytes()


def make(name, actions, sticky, ramping):
    kwargs = {"sticky_action_prob": sticky, "difficulty_ramping": ramping}
    return gymnasium.make(f"MinAtar/{name}-{actions}", disable_env_checker=True, **kwargs)


def episode(env, seed, rule, generator, cut):
    obs, _ = env.reset(seed=seed)
    ramp = env.unwrapped.game.env.difficulty_ramp()
    crc = zlib.crc32(packed(obs))
    actions, sums, rewards, ramps = "", f"{crc & 0xFFFF:04x}", [], []
    terminated = False
    while len(actions) < cut and not terminated:
        action = rule(env, generator)
        obs, reward, terminated, truncated, _ = env.step(action)
        assert not truncated and env.observation_space.contains(obs)
        crc = zlib.crc32(packed(obs), crc)
        if reward:
            rewards.append([len(actions), int(reward)])
        if env.unwrapped.game.env.difficulty_ramp() != ramp:
            ramp = env.unwrapped.game.env.difficulty_ramp()
            ramps.append(len(actions))
        actions += str(action)
        sums += f"{crc & 0xFFFF:04x}"
    return {
        "terminated": bool(terminated),
        # Step and reward, where there was one.
        "rewards": rewards,
        # Steps in which the difficulty ramp went up.
        "ramps": ramps,
        "crc": crc,
        "actions": actions,
        # Four digits an observation, that of the reset first.
        "observations": sums,
    }


def run(name, index, rule, actions, sticky, ramping, count, cut):
    env = make(name, actions, sticky, ramping)
    seed = 1_000_003 * (index + 1)
    generator = np.random.default_rng(seed)
    seeds = [seed, *[None] * (count - 1)]
    episodes = [episode(env, seed, rule, generator, cut) for seed in seeds]
    settings = {"actions": actions, "sticky": sticky, "ramping": ramping}
    return {"rule": rule.__name__, "seed": seed, **settings, "episodes": episodes}


def long_run(name, cut):
    """Random actions. With a cut, episodes go on beyond their end, and are reset after so many steps: so they come to
    what nobody lives to see."""
    env = make(name, "v0", 0.1, True)
    env.reset(seed=7)
    game = env.unwrapped.game
    actions = np.random.RandomState(8)
    crc, ends, total, length = 0, 0, 0, 0
    for _ in range(LONG_STEPS):
        reward, terminated = game.act(int(actions.randint(6)))
        crc, length, ends = zlib.crc32(packed(game.state()), crc), length + 1, ends + terminated
        # Beyond the end Seaquest pays for oxygen below 0.
        total += 0 if terminated else int(reward)
        if length == cut if cut else terminated:
            game.reset()
            crc, length = zlib.crc32(packed(game.state()), crc), 0
        game.env.terminal = False
    seeds = {"seed": 7, "action_seed": 8, "cut": cut}
    return {**seeds, "steps": LONG_STEPS, "ends": int(ends), "reward": total, "crc": crc}


def record(name):
    specs = []
    for actions in ["v0", "v1"]:
        env = gymnasium.make(f"MinAtar/{name}-{actions}", disable_env_checker=True)
        game = env.unwrapped.game
        space = env.observation_space
        specs.append({
            "id": env.spec.id,
            "dtype": str(space.dtype),
            "shape": list(space.shape),
            "n": int(env.action_space.n),
            "buttons": [int(button) for button in env.unwrapped.action_set],
            "max_episode_steps": env.spec.max_episode_steps,
            "reward_threshold": env.spec.reward_threshold,
            "sticky": game.sticky_action_prob,
        })
    palette = seaborn.color_palette("cubehelix", game.n_channels)
    return {
        "game": name,
        "versions": FOUND,
        "specs": specs,
        # Red, green and blue of each channel, 0 to 255.
        "palette": [[round(255 * float(part)) for part in color] for color in palette],
        # A ball that the paddle has missed cannot go on.
        "long": [long_run(name, cut) for cut in ([None] if name == "Breakout" else [None, 2000])],
        "runs": [run(name, index, *settings) for index, settings in enumerate(RUNS[name])],
    }


def main():
    if any(FOUND[name] not in versions for name, versions in PINNED.items()):
        sys.exit(f"the recordings are of {PINNED}; this Python has {FOUND}")
    minatar.gym.register_envs()
    ours = pathlib.Path(__file__).resolve().parents[2] / "envs" / "tests" / "golden"
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ours
    for name in GAMES:
        data = record(name)
        # One line an episode: a changed one is a changed line.
        dump = lambda value: json.dumps(value, separators=(",", ":"))
        runs = []
        for each in data.pop("runs"):
            episodes = ",\n".join(dump(e) for e in each.pop("episodes"))
            runs.append(f'{dump(each)[:-1]},"episodes":[\n{episodes}\n]}}')
        path = folder / f"MinAtar-{name}.json"
        runs = ",\n".join(runs)
        path.write_text(f'{dump(data)[:-1]},"runs":[\n{runs}\n]}}\n')
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
