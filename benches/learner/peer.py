#!/usr/bin/env python3
"""Measures the learner of one library, one window at a time, when it is told to.

    python peer.py --peer torch --algo dqn --batch 64 --hidden 256,256 --obs 17 --actions 6 [--device cpu] [--network mlp]

fills a buffer with random rows, warms up, and prints "ready VERSION", or "cannot REASON" and ends. Then each line "window
SECONDS" on standard input measures that long and prints updates a second. In between the process sleeps, so that several
can take turns on one core. `rl-train bench learner --serve` speaks the same, and compare.py conducts. README.md says what
each of them computes.
"""

import argparse
import importlib.metadata
import os
import sys
import time

GAMMA, LEARNING_RATE, TAU, CLIP, TARGET_EVERY = 0.99, 1e-3, 0.005, 10.0, 500
EPISODE = 200
# Updates that Stable-Baselines3 and sbx make a call of `train`, as in the zoo's DQN on CartPole-v1: the more, the faster they are.
UPDATES_A_CALL = 128
# The distribution on PyPI of each peer.
PEERS = {
    "torch": "torch",
    "torch-compile": "torch",
    "torch-reduce-overhead": "torch",
    "torch-graph": "torch",
    "sb3": "stable-baselines3",
    "sbx": "sbx-rl",
}


class Cannot(Exception):
    """The library has no such thing."""


def rows(a):
    """Random transitions, as columns of numpy."""
    import numpy as np

    rng = np.random.default_rng(0)
    n = a.capacity
    if a.network == "nature-cnn":
        obs, next_obs = (rng.integers(0, 256, (n, 4, 84, 84), np.uint8) for _ in range(2))
    else:
        obs, next_obs = (rng.uniform(-1, 1, (n, a.obs)).astype(np.float32) for _ in range(2))
    if a.algo == "dqn":
        action = rng.integers(0, a.actions, n)
    else:
        action = rng.uniform(-1, 1, (n, a.actions)).astype(np.float32)
    reward = rng.uniform(-1, 1, n).astype(np.float32)
    terminated = rng.integers(0, EPISODE, n) == 0
    return dict(obs=obs, action=action, reward=reward, terminated=terminated, next_obs=next_obs)


# ------------------------------------------------------------------------------------------------------------------------
# PyTorch, as CleanRL and LeanRL write it.


def torch_learner(a):
    """A function that makes one update, whole: draw, gather, copy to the device, learn."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    device = torch.device(a.device)
    cuda = device.type == "cuda"
    if a.peer in ("torch-reduce-overhead", "torch-graph") and not cuda:
        raise Cannot("CUDA graphs need a GPU")
    compiled = a.peer in ("torch-compile", "torch-reduce-overhead")
    captured = a.peer == "torch-graph"

    def mlp(inputs, outputs, hidden):
        widths = [inputs, *hidden]
        layers = []
        for pair in zip(widths, widths[1:]):
            layers += [nn.Linear(*pair), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))

    class NatureCnn(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(
                nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(),
                nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, a.actions),
            )

        def forward(self, obs):
            return self.layers(obs.float() / 255.0)

    class Critic(nn.Module):
        """Sees the action from its second layer on, as ours and as Lillicrap et al. (2015) have it."""

        def __init__(self):
            super().__init__()
            self.first = nn.Linear(a.obs, a.hidden[0])
            self.rest = mlp(a.hidden[0] + a.actions, 1, a.hidden[1:])

        def forward(self, obs, action):
            return self.rest(torch.cat([F.relu(self.first(obs)), action], 1)).squeeze(1)

    class Actor(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = mlp(a.obs, a.actions, a.hidden)

        def forward(self, obs):
            return torch.tanh(self.layers(obs))

    def twins(make):
        online, target = make().to(device), make().to(device)
        target.load_state_dict(online.state_dict())
        return online, target, list(online.parameters()), list(target.parameters())

    def adam(parameters):
        # A captured step keeps its count on the device. Compiled, the whole optimizer becomes few kernels; else the fused one is
        # the fastest that there is.
        fused = not compiled or not cuda
        return torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=fused, capturable=cuda)

    table = {name: torch.from_numpy(column) for name, column in rows(a).items()}
    table["discount"] = GAMMA * (1 - table.pop("terminated").float())

    if a.algo == "dqn":
        online, target, parameters, target_parameters = twins(
            NatureCnn if a.network == "nature-cnn" else lambda: mlp(a.obs, a.actions, a.hidden)
        )
        optimizer = adam(parameters)

        def learn(b):
            with torch.no_grad():
                next_q = target(b["next_obs"])
                if a.double:
                    best = next_q.gather(1, online(b["next_obs"]).argmax(1, keepdim=True)).squeeze(1)
                else:
                    best = next_q.amax(1)
                wanted = b["reward"] + b["discount"] * best
            q = online(b["obs"]).gather(1, b["action"].unsqueeze(1)).squeeze(1)
            loss = F.smooth_l1_loss(q, wanted)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, CLIP, foreach=True)
            optimizer.step()

        def after(updates):
            if updates % TARGET_EVERY == 0:
                with torch.no_grad():
                    torch._foreach_copy_(target_parameters, parameters)

    else:
        if a.network != "mlp":
            raise Cannot("DDPG is measured on vectors")
        critic, target_critic, critic_parameters, target_critic_parameters = twins(Critic)
        actor, target_actor, actor_parameters, target_actor_parameters = twins(Actor)
        critic_optimizer, actor_optimizer = adam(critic_parameters), adam(actor_parameters)
        parameters = critic_parameters + actor_parameters
        target_parameters = target_critic_parameters + target_actor_parameters

        def learn(b):
            with torch.no_grad():
                next_q = target_critic(b["next_obs"], target_actor(b["next_obs"]))
                wanted = b["reward"] + b["discount"] * next_q
            loss = F.mse_loss(critic(b["obs"], b["action"]), wanted)
            critic_optimizer.zero_grad()
            loss.backward()
            critic_optimizer.step()
            loss = -critic(b["obs"], actor(b["obs"])).mean()
            actor_optimizer.zero_grad()
            # The critic's own gradients are not needed here, as DDPG has it.
            for parameter, gradient in zip(actor_parameters, torch.autograd.grad(loss, actor_parameters)):
                parameter.grad = gradient
            actor_optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(target_parameters, parameters, TAU)

        def after(updates):
            pass

    if compiled:
        mode = "reduce-overhead" if a.peer == "torch-reduce-overhead" else None
        learn = torch.compile(learn, mode=mode)

    def gather():
        drawn = torch.randint(a.capacity, (a.batch,))
        return {name: column[drawn] for name, column in table.items()}

    if cuda:
        # Fixed memory: pinned on the host, and on the device where a captured step reads it.
        host = {name: column.pin_memory() for name, column in gather().items()}
        batch = {name: column.to(device) for name, column in host.items()}

        def stage():
            torch.cuda.current_stream().synchronize()  # the copies of before have read the pinned memory
            drawn = torch.randint(a.capacity, (a.batch,))
            for name, column in table.items():
                torch.index_select(column, 0, drawn, out=host[name])
                batch[name].copy_(host[name], non_blocking=True)
            return batch

    else:
        stage = gather

    if captured:
        stage()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(5):
                learn(batch)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            learn(batch)

        def learn(_):
            graph.replay()

    updates = 0

    def update():
        nonlocal updates
        if a.peer == "torch-reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()
        learn(stage())
        updates += 1
        after(updates)

    return update, 1, (torch.cuda.synchronize if cuda else lambda: None)


# ------------------------------------------------------------------------------------------------------------------------
# Stable-Baselines3 and sbx: their own `train` on a buffer of their own.


def spaces(a):
    import gymnasium as gym
    import numpy as np

    class Nothing(gym.Env):
        """An environment that is never stepped."""

        observation_space = (
            gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)
            if a.network == "nature-cnn"
            else gym.spaces.Box(-1, 1, (a.obs,), np.float32)
        )
        action_space = gym.spaces.Discrete(a.actions) if a.algo == "dqn" else gym.spaces.Box(-1, 1, (a.actions,), np.float32)

        def reset(self, *, seed=None, options=None):
            return self.observation_space.sample(), {}

    return Nothing()


def baselines(a, library):
    """A function that makes UPDATES_A_CALL updates with `library`'s DQN or DDPG."""
    from stable_baselines3.common.logger import Logger

    if a.double:
        raise Cannot("it has no double Q-learning")
    keys = dict(
        learning_rate=LEARNING_RATE, buffer_size=a.capacity, batch_size=a.batch, gamma=GAMMA, seed=0, device=a.device,
        learning_starts=0,
    )
    policy = "CnnPolicy" if a.network == "nature-cnn" else "MlpPolicy"
    if a.network == "mlp":
        keys["policy_kwargs"] = dict(net_arch=a.hidden)
    if a.algo == "dqn":
        model = library.DQN(policy, spaces(a), tau=1.0, target_update_interval=TARGET_EVERY, **keys)
    else:
        model = library.DDPG(policy, spaces(a), tau=TAU, **keys)
    model.set_logger(Logger(folder=None, output_formats=[]))
    buffer, filled = model.replay_buffer, rows(a)
    buffer.observations[:, 0], buffer.next_observations[:, 0] = filled["obs"], filled["next_obs"]
    buffer.actions[:, 0] = filled["action"].reshape(a.capacity, -1)
    buffer.rewards[:, 0], buffer.dones[:, 0] = filled["reward"], filled["terminated"]
    buffer.pos, buffer.full = 0, True
    model._current_progress_remaining = 1.0

    def update():
        model.train(gradient_steps=UPDATES_A_CALL, batch_size=a.batch)
        # DQN copies its target as the environment steps; here that is done as often in updates, to the call.
        if a.algo == "dqn":
            due = model._n_updates // TARGET_EVERY - (model._n_updates - UPDATES_A_CALL) // TARGET_EVERY
            for _ in range(due):
                copy_target(model)

    return update, UPDATES_A_CALL


def sb3(a):
    import stable_baselines3
    import torch
    from stable_baselines3.common.utils import polyak_update

    global copy_target
    torch.set_num_threads(a.threads)

    def copy_target(model):
        polyak_update(model.q_net.parameters(), model.q_net_target.parameters(), 1.0)

    update, count = baselines(a, stable_baselines3)
    return update, count, (torch.cuda.synchronize if a.device.startswith("cuda") else lambda: None)


def sbx(a):
    import jax
    import sbx as library
    import torch

    global copy_target
    torch.set_num_threads(a.threads)
    if a.algo == "dqn" and len(set(a.hidden)) > 1:
        raise Cannot("its DQN has two hidden layers of one width")
    a.device = "cpu"

    def copy_target(model):
        model.policy.qf_state = type(model).soft_update(1.0, model.policy.qf_state)

    update, count = baselines(a, library)
    return update, count, lambda: jax.effects_barrier()


# ------------------------------------------------------------------------------------------------------------------------


def window(update, count, wait, seconds):
    """Updates a second during a window. On a GPU the host waits at its end, not after each update."""
    clock = time.perf_counter
    wait()
    calls, start = 0, clock()
    while clock() - start < seconds:
        update()
        calls += 1
    wait()
    return calls * count / (clock() - start)


def kernels(update, wait, cuda, updates=20):
    """Launches of one update and their time on the device; on a CPU operators take the kernels' place."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as recorded:
        for _ in range(updates):
            update()
        wait()
    kind = torch.autograd.DeviceType.CUDA if cuda else torch.autograd.DeviceType.CPU
    found = [event for event in recorded.events() if event.device_type == kind]
    time_of = (lambda event: event.self_device_time_total) if cuda else (lambda event: event.self_cpu_time_total)
    return dict(kernel_us=sum(map(time_of, found)) / updates, launches=len(found) / updates)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", required=True, choices=PEERS)
    parser.add_argument("--algo", required=True, choices=["dqn", "ddpg"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--hidden", default="256,256", type=lambda text: [int(width) for width in text.split(",")])
    parser.add_argument("--obs", type=int, default=17)
    parser.add_argument("--actions", type=int, default=6)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--network", default="mlp", choices=["mlp", "nature-cnn"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--double", action="store_true")
    parser.add_argument("--capacity", type=int, default=100_000)
    parser.add_argument("--kernels", action="store_true", help="print one update's launches and their time instead")
    a = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints by itself is no answer
    try:
        update, count, wait = {"sb3": sb3, "sbx": sbx}.get(a.peer, torch_learner)(a)
        # Compilers at work in here do it before the clock runs; two of the calls are after the first copy of the target.
        window(update, count, wait, 0.3)
        for _ in range(3):
            update()
    except (Cannot, ImportError) as reason:
        print("cannot", " ".join(str(reason).split()), file=answers)
        return
    if a.kernels:
        import json

        print(json.dumps(kernels(update, wait, a.device.startswith("cuda"))), file=answers)
        return
    print("ready", importlib.metadata.version(PEERS[a.peer]), file=answers)
    for line in sys.stdin:
        print(window(update, count, wait, float(line.split()[1])), file=answers)
    answers.flush()
    os._exit(0)  # some libraries take seconds to go, or wait for threads of their own


if __name__ == "__main__":
    main()
