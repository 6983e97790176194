#!/usr/bin/env python3
"""Measures one operation of one library's replay buffer, one window at a time, when it is told to.

    python peer.py --peer cpprb --workload small --op uniform --batch 256 [--capacity N]

fills the buffer to its capacity and prints "ready VERSION", or "cannot REASON" and ends. Then each line "window SECONDS"
on standard input measures that long and prints transitions a second. In between the process sleeps, so that several
can take turns on one core. rust/ speaks the same; `rl-train bench replay --peers` conducts. README.md has the rules.
"""

import argparse
import importlib.metadata
import os
import sys
import time

ALPHA, BETA = 0.6, 0.4
EPISODE = 256
# The name of each peer's distribution on PyPI.
PEERS = dict(
    cpprb="cpprb", tianshou="tianshou", flashbax="flashbax", torchrl="torchrl", sb3="stable-baselines3", reverb="dm-reverb"
)


class Cannot(Exception):
    """The library has no such operation."""


class Work:
    """Rows of a workload, in numpy arrays: a pool of whole episodes, which is used over and over."""

    def __init__(self, name, capacity):
        import numpy as np

        self.image = name == "atari"
        self.discrete = name != "mujoco"
        self.obs_shape = dict(small=(4,), mujoco=(17,), atari=(4, 84, 84))[name]
        self.obs_dtype = np.uint8 if self.image else np.float32
        self.act_shape = () if self.discrete else (6,)
        self.capacity = capacity or (50_000 if self.image else 1_000_000)
        self.pool = p = EPISODE * (4 if self.image else 16)
        rng = np.random.default_rng(0)
        if self.image:
            obs = rng.integers(0, 256, (p + 1, *self.obs_shape), np.uint8)
        else:
            obs = rng.standard_normal((p + 1, *self.obs_shape), np.float32)
        self.obs, self.next_obs = obs[:p], obs[1:].copy()
        self.act = rng.integers(0, 4, p) if self.discrete else rng.uniform(-1, 1, (p, 6)).astype(np.float32)
        self.rew = rng.standard_normal(p, np.float32)
        self.done = np.arange(p) % EPISODE == EPISODE - 1
        # |δ| of all stored rows; the first of them are written back after each draw.
        self.magnitudes = (rng.random(self.capacity) + 1e-3).astype(np.float32)
        self.at = 0

    def chunks(self, size):
        """Where to write, and how many rows of the pool to take, until the buffer is full."""
        return ((k, min(size, self.capacity - k)) for k in range(0, self.capacity, size))

    def turn(self, n):
        """The next n rows of the pool, never across its end."""
        start = self.at if self.at + n <= self.pool else 0
        self.at = start + n
        return slice(start, start + n)


# ------------------------------------------------------------------------------------------------------------------------
# Each of these makes and fills a buffer, and returns the step that is measured: insert n rows, or draw n.


def cpprb(w, op, n):
    import numpy as np
    from cpprb import PrioritizedReplayBuffer, ReplayBuffer

    obs = dict(shape=w.obs_shape, dtype=w.obs_dtype)
    act = dict(shape=w.act_shape or 1, dtype=w.act.dtype)
    number = dict(dtype=np.float32)
    fields = dict(obs=obs, act=act, rew=number, next_obs=obs, done=number)
    prioritized = op.startswith("prioritized")
    if prioritized:
        buffer = PrioritizedReplayBuffer(w.capacity, fields, alpha=ALPHA)
    else:
        buffer = ReplayBuffer(w.capacity, fields)

    def add(rows):
        last = rows if isinstance(rows, int) else rows.stop - 1
        done = w.done[rows].astype(np.float32)
        buffer.add(obs=w.obs[rows], act=w.act[rows], rew=w.rew[rows], next_obs=w.next_obs[rows], done=done)
        if w.done[last]:
            buffer.on_episode_end()

    for _, count in w.chunks(EPISODE):
        add(w.turn(count))
    if op == "add":
        return lambda: add(w.turn(1).start)
    if op == "add-batch":
        return lambda: add(w.turn(n))
    if op == "uniform":
        return lambda: buffer.sample(n)
    buffer.update_priorities(np.arange(w.capacity, dtype=np.uint64), w.magnitudes)
    magnitudes = w.magnitudes[:n].copy()

    def draw():
        batch = buffer.sample(n, beta=BETA)
        if op == "prioritized-update":
            buffer.update_priorities(batch["indexes"], magnitudes)

    return draw


def tianshou(w, op, n):
    import numpy as np
    from tianshou.data import Batch, PrioritizedReplayBuffer, ReplayBuffer, VectorReplayBuffer

    def row(i, obs=w.obs, ended=False):
        return Batch(
            obs=obs[i], act=w.act[i], rew=w.rew[i], terminated=w.done[i], truncated=ended, obs_next=w.next_obs[i], info={}
        )

    if op == "add-batch":  # many rows at once come from as many environments
        buffer, nowhere = VectorReplayBuffer(w.capacity, n), np.zeros(n, bool)
        for _ in range(w.capacity // n):
            buffer.add(row(w.turn(n), ended=nowhere))
        return lambda: buffer.add(row(w.turn(n), ended=nowhere))

    if op.startswith("prioritized"):
        buffer = PrioritizedReplayBuffer(w.capacity, alpha=ALPHA, beta=BETA)
    else:
        buffer = ReplayBuffer(w.capacity)
    # One insert makes the library's arrays; they are filled directly, because a million inserts take half a minute.
    buffer.add(row(0))
    meta = buffer._meta
    for k, count in w.chunks(w.pool):
        to = slice(k, k + count)
        meta.obs[to], meta.obs_next[to] = w.obs[:count], w.next_obs[:count]
        meta.act[to], meta.rew[to] = w.act[:count], w.rew[:count]
        meta.terminated[to] = meta.done[to] = w.done[:count]
    buffer._size, buffer._insertion_idx, buffer.last_index[0] = w.capacity, 0, w.capacity - 1
    if op == "add":
        return lambda: buffer.add(row(w.turn(1).start))
    if op == "uniform":
        return lambda: buffer.sample(n)
    buffer.update_weight(np.arange(w.capacity), w.magnitudes)
    magnitudes = w.magnitudes[:n].copy()

    def draw():
        _, rows = buffer.sample(n)
        if op == "prioritized-update":
            buffer.update_weight(rows, magnitudes)

    return draw


def flashbax(w, op, n):
    import flashbax as fbx
    import jax
    import jax.numpy as jnp
    import numpy as np

    prioritized = op.startswith("prioritized")
    if prioritized and w.image:
        raise Cannot("its prioritized buffer copies all frames when priorities are set")

    def make(batches):
        sizes = dict(max_length=w.capacity, min_length=1, sample_batch_size=n, add_batches=batches)
        if prioritized:
            return fbx.make_prioritised_item_buffer(**sizes, priority_exponent=ALPHA, device="cpu")
        return fbx.make_item_buffer(**sizes)

    act = w.act.astype(np.int32) if w.discrete else w.act
    pool = dict(obs=w.obs, act=act, rew=w.rew, next_obs=w.next_obs, done=w.done)
    # The state is donated: without that each insert copies the whole buffer.
    buffer = make(True)
    state = buffer.init({name: jnp.zeros(rows.shape[1:], rows.dtype) for name, rows in pool.items()})
    add = jax.jit(buffer.add, donate_argnums=0)
    for _, count in w.chunks(EPISODE):
        rows = w.turn(count)
        state = add(state, {name: column[rows] for name, column in pool.items()})
    jax.block_until_ready(state)

    if not op.startswith(("uniform", "prioritized")):
        one = jax.jit(make(False).add, donate_argnums=0)

        def insert():
            nonlocal state
            rows = w.turn(1).start if op == "add" else w.turn(n)
            state = (one if op == "add" else add)(state, {name: column[rows] for name, column in pool.items()})
            jax.block_until_ready(state)

        return insert

    key = jax.random.PRNGKey(0)
    split, sample = jax.jit(jax.random.split), jax.jit(buffer.sample)

    def draw():
        nonlocal key
        key, now = split(key)
        return sample(state, now)

    if op == "uniform":
        return lambda: jax.block_until_ready(draw())
    set_priorities = jax.jit(buffer.set_priorities, donate_argnums=0)
    for k, count in w.chunks(2048):
        state = set_priorities(state, jnp.arange(k, k + count), w.magnitudes[k : k + count])

    @jax.jit
    def weigh(probabilities):  # the library leaves it to its user
        weights = (1.0 / (w.capacity * jnp.maximum(probabilities, 1e-12))) ** BETA
        return weights / weights.max()

    magnitudes = w.magnitudes[:n].copy()

    def draw_prioritized():
        nonlocal state
        batch = draw()
        weights = weigh(batch.probabilities)
        if op == "prioritized-update":
            state = set_priorities(state, batch.indices, magnitudes)
        jax.block_until_ready((batch, weights, state))

    return draw_prioritized


def torchrl(w, op, n):
    import logging

    import torch
    from tensordict import TensorDict

    logging.getLogger("torchrl").setLevel(logging.ERROR)
    from torchrl.data import LazyTensorStorage, ReplayBuffer
    from torchrl.data.replay_buffers import PrioritizedSampler

    torch.set_num_threads(1)
    columns = dict(obs=w.obs, act=w.act, rew=w.rew, next_obs=w.next_obs, done=w.done)
    pool = {name: torch.from_numpy(column) for name, column in columns.items()}
    prioritized = op.startswith("prioritized")
    sampler = dict(sampler=PrioritizedSampler(w.capacity, ALPHA, BETA)) if prioritized else {}
    buffer = ReplayBuffer(storage=LazyTensorStorage(w.capacity), batch_size=n, **sampler)

    # An environment hands over tensors: making a TensorDict of them is part of the insert.
    def extend(rows, count):
        buffer.extend(TensorDict({name: column[rows] for name, column in pool.items()}, batch_size=[count]))

    def add():
        row = w.turn(1).start
        buffer.add(TensorDict({name: column[row] for name, column in pool.items()}, batch_size=[]))

    for _, count in w.chunks(w.pool):
        extend(w.turn(count), count)
    if op == "add":
        return add
    if op == "add-batch":
        return lambda: extend(w.turn(n), n)
    if op == "uniform":
        return lambda: buffer.sample(n)
    buffer.update_priority(torch.arange(w.capacity), torch.from_numpy(w.magnitudes))
    magnitudes = torch.from_numpy(w.magnitudes[:n].copy())

    def draw():
        _, info = buffer.sample(n, return_info=True)
        if op == "prioritized-update":
            buffer.update_priority(info["index"], magnitudes)

    return draw


def sb3(w, op, n):
    import gymnasium as gym
    import numpy as np
    import torch
    from stable_baselines3.common.buffers import ReplayBuffer

    if op.startswith("prioritized"):
        raise Cannot("it has no prioritized buffer")
    torch.set_num_threads(1)
    box, discrete = gym.spaces.Box, gym.spaces.Discrete
    obs_space = box(0, 255, w.obs_shape, np.uint8) if w.image else box(-10, 10, w.obs_shape, np.float32)
    act_space = discrete(4) if w.discrete else box(-1, 1, (6,), np.float32)
    envs = n if op == "add-batch" else 1  # many rows at once come from as many environments
    buffer = ReplayBuffer(w.capacity, obs_space, act_space, device="cpu", n_envs=envs)
    act = w.act.reshape(w.pool, -1)
    infos = [{} for _ in range(envs)]

    def add():
        rows = w.turn(envs)
        buffer.add(w.obs[rows], w.next_obs[rows], act[rows], w.rew[rows], w.done[rows], infos)

    for _ in range(w.capacity // envs):
        add()
    return add if op.startswith("add") else lambda: buffer.sample(n)


def reverb(w, op, n):
    import reverb
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if w.image:
        raise Cannot("rows of frames are stored compressed, which is another measurement")
    prioritized = op.startswith("prioritized")
    selectors = reverb.selectors
    table = reverb.Table(
        name="rows", sampler=selectors.Prioritized(ALPHA) if prioritized else selectors.Uniform(), remover=selectors.Fifo(),
        max_size=w.capacity, rate_limiter=reverb.rate_limiters.MinSize(1),
    )
    server = reverb.Server([table], port=None)
    client = reverb.Client(f"localhost:{server.port}")
    writer = client.trajectory_writer(num_keep_alive_refs=8)
    act = w.act.astype("int32") if w.discrete else w.act
    pool = dict(obs=w.obs, act=act, rew=w.rew, next_obs=w.next_obs, done=w.done.astype("float32"))

    def add(count):
        rows = w.turn(count)
        for i in range(rows.start, rows.stop):
            writer.append({name: column[i] for name, column in pool.items()})
            writer.create_item("rows", 1.0, {name: writer.history[name][-1] for name in pool})
        writer.flush(0 if count > 1 else 64)
        return server  # which has to live on

    for _ in range(20_000 // 64):  # a million items take it minutes
        add(64)
    if op.startswith("add"):
        return lambda: add(1 if op == "add" else n)
    batches = iter(
        reverb.TrajectoryDataset(
            f"localhost:{server.port}", "rows", max_in_flight_samples_per_worker=2 * n,
            dtypes={name: tf.as_dtype(column.dtype) for name, column in pool.items()},
            shapes={name: tf.TensorShape(column.shape[1:]) for name, column in pool.items()},
        ).batch(n).prefetch(1)
    )
    magnitudes = w.magnitudes[:n].tolist()

    def draw():
        batch = next(batches)
        if op == "prioritized-update":
            client.mutate_priorities("rows", updates=dict(zip(batch.info.key.numpy().tolist(), magnitudes)))
        return server

    return draw


# ------------------------------------------------------------------------------------------------------------------------


def window(step, rows, seconds):
    """Rows a second during a window. The clock is read only now and then: once per 2 ms or so."""
    clock = time.perf_counter
    step()
    start = clock()
    step()
    calls_between = max(1, min(1000, int(0.002 / max(clock() - start, 1e-9))))
    calls, start = 0, clock()
    while True:
        for _ in range(calls_between):
            step()
        calls += calls_between
        elapsed = clock() - start
        if elapsed >= seconds:
            return calls * rows / elapsed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", required=True, choices=PEERS)
    parser.add_argument("--workload", required=True, choices=["small", "mujoco", "atari"])
    parser.add_argument("--op", required=True, choices=["add", "add-batch", "uniform", "prioritized", "prioritized-update"])
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--capacity", type=int)
    a = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints by itself is no answer
    try:
        step = globals()[a.peer](Work(a.workload, a.capacity), a.op, a.batch)
        for _ in range(20):  # compilers at work in here do it before the clock runs
            step()
    except (Cannot, ImportError) as reason:
        print("cannot", " ".join(str(reason).split()), file=answers)
        return
    print("ready", importlib.metadata.version(PEERS[a.peer]), file=answers)
    for line in sys.stdin:
        print(window(step, 1 if a.op == "add" else a.batch, float(line.split()[1])), file=answers)
    answers.flush()
    os._exit(0)  # some libraries take seconds to go, or wait for threads of their own


if __name__ == "__main__":
    main()
