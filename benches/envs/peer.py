"""Steps the environments of another library for compare.py, as `rl-train bench env --serve` steps ours.

    python peer.py --peer gymnasium-loop|gymnasium-sync|gymnasium-async|gymnasium-vector|envpool|minatar|ale --env ID --envs N --threads T

It says `ready VERSION`, or `cannot REASON` and ends. Each line `window SECONDS` makes it step that long under random actions,
drawn in advance, and answer with environment steps a second and the median duration of a step of all environments in µs. In
between it sleeps.
"""

import argparse
import statistics
import sys
import time
import warnings

import numpy as np

DRAWN = 64  # steps whose actions are drawn in advance


def draw(space, envs, generator):
    """Actions of one step for all environments."""
    if hasattr(space, "n"):
        return generator.integers(space.n, size=envs)
    return generator.uniform(space.low, space.high, (envs, *space.shape)).astype(np.float32)


def gymnasium_vector(mode):
    def make(args):
        import gymnasium

        if mode == "vector_entry_point" and gymnasium.spec(args.env).vector_entry_point is None:
            raise LookupError("it has no vectorized form")
        envs = gymnasium.make_vec(args.env, args.envs, mode)
        return envs, envs.single_action_space, gymnasium.__version__

    return make


class Loop:
    """Single environments, stepped by a plain loop and reset when their episode ends: what the Python bridge is compared with."""

    def __init__(self, env, count):
        import gymnasium

        self.envs = [gymnasium.make(env) for _ in range(count)]

    def reset(self):
        for env in self.envs:
            env.reset()

    def step(self, actions):
        for env, action in zip(self.envs, actions):
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    def close(self):
        for env in self.envs:
            env.close()


def gymnasium_loop(args):
    import gymnasium

    envs = Loop(args.env, args.envs)
    return envs, envs.envs[0].action_space, gymnasium.__version__


class MinAtar:
    """The games of the package as they are, without Gymnasium around them, observed after each step and reset when they end."""

    def __init__(self, game, actions, count):
        from minatar import Environment

        self.envs = [Environment(game) for _ in range(count)]
        self.actions = self.envs[0].minimal_action_set() if actions == "v1" else list(range(6))

    def reset(self):
        for env in self.envs:
            env.reset()

    def step(self, actions):
        for env, action in zip(self.envs, actions):
            _, ended = env.act(self.actions[action])
            env.state()
            if ended:
                env.reset()


class Numbers:
    """As many actions."""

    def __init__(self, n):
        self.n = n


def minatar(args):
    import importlib.metadata

    if not args.env.startswith("MinAtar/"):
        raise LookupError("MinAtar has no such environment")
    name, version = args.env.removeprefix("MinAtar/").split("-")
    game = "".join("_" * (c.isupper() and i > 0) + c.lower() for i, c in enumerate(name))
    envs = MinAtar(game, version, args.envs)
    return envs, Numbers(len(envs.actions)), importlib.metadata.version("minatar")


def ale(args):
    import ale_py
    from ale_py.vector_env import AtariVectorEnv

    if not args.env.startswith("atari:"):
        raise LookupError("ale-py has no such environment")
    envs = AtariVectorEnv(game=args.env.removeprefix("atari:").lower(), num_envs=args.envs, stack_num=1, num_threads=args.threads)
    return envs, envs.single_action_space, ale_py.__version__


def envpool(args):
    import envpool as library

    if args.env not in library.list_all_envs():
        raise LookupError("EnvPool has no such environment")
    envs = library.make_gymnasium(args.env, num_envs=args.envs, num_threads=args.threads, seed=1)
    return envs, envs.action_space, library.__version__


PEERS = {
    "gymnasium-loop": gymnasium_loop,
    "gymnasium-sync": gymnasium_vector("sync"),
    "gymnasium-async": gymnasium_vector("async"),
    "gymnasium-vector": gymnasium_vector("vector_entry_point"),
    "envpool": envpool,
    "minatar": minatar,
    "ale": ale,
}


def main():
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", choices=PEERS, required=True)
    parser.add_argument("--env", required=True)
    parser.add_argument("--envs", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    try:
        envs, space, version = PEERS[args.peer](args)
        envs.reset()
        generator = np.random.default_rng(0)
        actions = [draw(space, args.envs, generator) for _ in range(DRAWN)]
        if args.peer == "envpool":
            kind = np.int32 if hasattr(space, "n") else np.float32
            actions = [action.astype(kind) for action in actions]
        if args.peer in ("gymnasium-loop", "minatar") and hasattr(space, "n"):
            # Python's integers, which are the faster ones.
            actions = [action.tolist() for action in actions]
        for action in actions:
            envs.step(action)
    except Exception as e:  # Whatever keeps it from running is for the table to say.
        print(f"cannot {str(e).splitlines()[0] if str(e) else type(e).__name__}", flush=True)
        return
    print(f"ready {version}", flush=True)
    for line in sys.stdin:
        seconds = float(line.split()[1])
        begin, durations = time.perf_counter(), []
        last = begin
        while last - begin < seconds:
            for action in actions[:8]:
                envs.step(action)
                now = time.perf_counter()
                durations.append(now - last)
                last = now
            actions = actions[8:] + actions[:8]
        rate = len(durations) * args.envs / (last - begin)
        print(rate, 1e6 * statistics.median(durations), flush=True)
    envs.close()


if __name__ == "__main__":
    main()
