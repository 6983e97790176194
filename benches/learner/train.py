#!/usr/bin/env python3
"""Whole trainings, a process each from its start to its end, ours and the peers' in turn on one core, and a table of them.

    python train.py --ours BINARY --python PYTHON [--peers sb3,sbx] [--cpu N] [--rounds N] [--cases NAME,...] [--short]
                    [--lines FILE] [--document FILE]

Seconds are processor time of the process with all its threads, as the kernel accounts it; on one core of a machine without other
work that is how long it takes. Each round has another seed. scripts/bench-learner --train calls this.

* cartpole: DQN on CartPole-v1 with rl-baselines3-zoo's settings (configs/dqn-cartpole-zoo.toml), 50,000 steps
* threshold: from process start to the first greedy evaluation of at least 475, of 10 episodes every 2,500 steps: ours with its
  default configuration, the peers with the zoo's
* pendulum: DDPG on Pendulum-v1, [400, 300], batch 256; per update, from the first step on
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from compare import HERE, heading, load, median, number, write

ROOT = HERE.parent.parent
OURS, NAMES = "ours", {"ours": "**rl-train**", "sb3": "Stable-Baselines3", "sbx": "sbx"}
GOAL = 475
TITLES = dict(
    cartpole="DQN, CartPole-v1, the zoo's settings: s",
    threshold=f"to a greedy evaluation of {GOAL}: s",
    pendulum="DDPG, Pendulum-v1: ms an update",
)


class Run:
    """A training that has ended, or that could not be made (`why`)."""

    def __init__(self, learner, case, seed, a):
        self.learner, self.case, self.seed = learner, case, seed
        self.cpu_s = self.wall_s = self.begin_s = self.updates = self.reached = self.why = None
        with tempfile.TemporaryDirectory(prefix="bench-learner-") as folder:
            command = self.ours(folder, a) if learner == OURS else self.peer(a)
            self.measure(command, folder, a)

    def steps(self, a):
        full = dict(cartpole=50_176, threshold=50_000, pendulum=3_000)[self.case]
        return full if not a.short else dict(cartpole=1_792, threshold=2_000, pendulum=1_100)[self.case]

    def ours(self, folder, a):
        more = ["--set", "eval.final_episodes=1", "--set", "eval.every=0"]
        if self.case == "threshold":
            # Our default configuration: the preset of DQN on CartPole-v1, evaluated as often as the peers are.
            more = ["--algo", "dqn", "--env", "CartPole-v1", "--set", f"eval.every={self.every(a)}", "--set", "eval.final_episodes=1"]
        elif self.case == "cartpole":
            more += ["--config", str(ROOT / "configs/dqn-cartpole-zoo.toml")]
        else:
            more += ["--algo", "ddpg", "--env", "Pendulum-v1", "--set", "train.batch_size=256", "--set", "agent.hidden=[400,300]"]
        run = ["--out", f"{folder}/run", "--quiet", "--device", "cpu", "--env-steps", str(self.steps(a)), "--seed", str(self.seed)]
        return [a.ours, "train", *run, *more]

    def peer(self, a):
        task = ["--library", self.learner, "--case", self.case, "--seed", str(self.seed), "--steps", str(self.steps(a))]
        return [a.python, str(HERE / "train_peer.py"), *task, "--every", str(self.every(a))]

    def every(self, a):
        return 500 if a.short else 2_500

    def measure(self, command, folder, a):
        one = {f"{pool}_NUM_THREADS": "1" for pool in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
        jax = dict(JAX_PLATFORMS="cpu", XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
        started = time.monotonic()
        with open(f"{folder}/errors", "w+") as errors:
            try:
                process = subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, **one, **jax, "CUDA_VISIBLE_DEVICES": ""},
                    preexec_fn=lambda: os.sched_setaffinity(0, [a.cpu]),
                )
            except OSError as e:
                self.why = str(e)
                return
            said = {}
            if self.learner == OURS and self.case == "threshold":
                said = self.until_goal(process, pathlib.Path(folder, "run/metrics.jsonl"))
            for line in process.stdout:
                if line.startswith("begin"):
                    self.begin_s = used(process.pid)
                elif line.startswith("{"):
                    said = json.loads(line)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.wall_s = time.monotonic() - started
            self.cpu_s = said.get("cpu_s") or usage.ru_utime + usage.ru_stime
            # 130 is how ours ends when it was told to, after it reached the goal.
            if process.returncode not in (0, 130):
                errors.seek(0)
                lines = [line.strip() for line in errors if line.strip()]
                self.why = lines[-1] if lines else f"exit code {process.returncode}"
                return
        self.reached = said.get("reached")
        self.updates = said.get("updates")
        if self.learner == OURS and self.case != "threshold":
            # The folder is still there: its summary says how many updates there were.
            summary = json.loads(pathlib.Path(folder, "run/summary.json").read_text())
            self.updates, self.begin_s = summary["updates"], 0.0

    def until_goal(self, process, metrics):
        """Looks at our run's metrics from outside until an evaluation reaches the goal, and ends it there."""
        # Looked at without being reaped: its processor time is asked for at the end.
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            try:
                lines = [json.loads(line) for line in metrics.read_text().splitlines() if line.endswith("}")]
            except OSError:
                lines = []
            reached = next((line["env_steps"] for line in lines if line.get("eval/return", 0) >= GOAL), None)
            if reached is not None:
                cpu_s = used(process.pid)
                process.send_signal(2)
                return dict(reached=reached, cpu_s=cpu_s)
            time.sleep(0.01)
        return {}

    def figure(self):
        """What the table shows, and whether it is only a lower bound."""
        if self.why:
            return None
        if self.case == "pendulum":
            return 1e3 * (self.cpu_s - (self.begin_s or 0.0)) / self.updates if self.updates else None
        return self.cpu_s


def used(pid):
    """Processor time of a process."""
    with open(f"/proc/{pid}/stat") as f:
        user, system = f.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def table(runs, cases):
    learners = list(dict.fromkeys(run.learner for run in runs))
    rows = [["(its time by ours)", *[TITLES[case] for case in cases]], ["---", *["---:"] * len(cases)]]
    notes = []
    for learner in learners:
        row = [NAMES.get(learner, learner)]
        for case in cases:
            mine = {run.seed: run for run in runs if run.learner == learner and run.case == case}
            # Of ours that did not get there a ratio says nothing.
            there = [run for run in runs if run.learner == OURS and run.case == case and (case != "threshold" or run.reached)]
            ours = {run.seed: run.figure() for run in there}
            figures = {seed: run.figure() for seed, run in mine.items() if run.figure()}
            whys = {run.why for run in mine.values() if run.why}
            notes += [f"* {NAMES.get(learner, learner)}, {TITLES[case]}: {why}" for why in sorted(whys)]
            if not figures:
                row.append("–")
                continue
            ratios = [figure / ours[seed] for seed, figure in figures.items() if ours.get(seed)]
            missed = [seed for seed, run in mine.items() if case == "threshold" and run.reached is None]
            least = "≥ " if 2 * len(missed) >= len(figures) and missed else ""
            text = f"{least}{number(median(list(figures.values())))}"
            row.append(text + (f" ({least}{median(ratios):.2f})" if ratios and learner != OURS else ""))
            if missed:
                notes.append(f"* {NAMES.get(learner, learner)} did not reach {GOAL} in {len(missed)} of {len(mine)} seeds; all its steps are counted.")
        rows.append(row)
    text = "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
    return text + ("\n" + "\n".join(notes) + "\n" if notes else "")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ours", required=True, type=os.path.abspath)
    parser.add_argument("--python", required=True, type=os.path.abspath)
    parser.add_argument("--peers", default="sb3,sbx", type=lambda text: [name for name in text.split(",") if name])
    parser.add_argument("--cases", default=",".join(TITLES), type=lambda text: text.split(","))
    parser.add_argument("--cpu", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="few steps, to see whether everything works")
    parser.add_argument("--lines")
    parser.add_argument("--document")
    a = parser.parse_args()
    unknown = [case for case in a.cases if case not in TITLES]
    if unknown:
        parser.error(f"--cases are of {', '.join(TITLES)}")
    before, runs = load(), []
    for seed in range(1, a.rounds + 1):
        for case in a.cases:
            for learner in [OURS, *a.peers]:
                # What sbx's default settings reach is not asked for: its settings are Stable-Baselines3's.
                if case == "threshold" and learner == "sbx":
                    continue
                run = Run(learner, case, seed, a)
                runs.append(run)
                print(f"{case}, seed {seed}, {learner}: {run.why or run.figure()}", file=sys.stderr)
                if a.lines:
                    with open(a.lines, "a") as f:
                        f.write(json.dumps({**vars(run), "figure": run.figure()}) + "\n")
    head = heading(f"{a.rounds} seeds, medians; processor time of whole processes on one core", before)
    text = head + "\n" + table(runs, a.cases)
    print(text)
    if a.document:
        write(a.document, "bench-learner --train", text)
    if all(run.why for run in runs if run.learner == OURS):
        sys.exit("nothing of ours was measured")


if __name__ == "__main__":
    main()
