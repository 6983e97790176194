#!/usr/bin/env python3
"""Measures learners in turn, each a process of its own that waits for its turns, and writes a table of the medians.

    python compare.py --ours BINARY --python PYTHON [--cases cpu|gpu|tiny] [--peers NAME,...] [--device D] [--cpu N]
                      [--rounds N] [--seconds S] [--lines FILE] [--document FILE]

A round is one window of each. On one core (--cpu) a rate is updates a second of that core's time, as the kernel accounts it to the
process: work of others that comes in between does not count. A ratio is the median over the rounds of our rate divided by the peer's in the same round: both
are measured within seconds, and machines that are shared differ from minute to minute. The table goes to standard output, and
into --document between its markers; --lines has each case and learner as a line of JSON. scripts/bench-learner and
scripts/bench-gpu call this; it needs nothing but Python's own library.
"""

import argparse
import json
import os
import pathlib
import queue
import statistics
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
BEGIN, END = "<!-- begin: written by scripts/{} -->", "<!-- end: {} -->"
START_SECONDS, WINDOW_SECONDS = 900, 300  # a compiler may be at work


def dqn(batch, hidden="256,256", **more):
    return dict(algo="dqn", batch=batch, hidden=hidden, obs=17, actions=6, **more)


def ddpg(batch, hidden="400,300"):
    return dict(algo="ddpg", batch=batch, hidden=hidden, obs=3, actions=1)


def cnn(batch, capacity=10_000):
    return dict(algo="dqn", batch=batch, network="nature-cnn", actions=6, capacity=capacity)


CASES = {
    "cpu": [dqn(64, "64,64"), dqn(64), dqn(256), ddpg(256)],
    "gpu": [dqn(256), dqn(4096), cnn(256), cnn(4096), ddpg(256), ddpg(4096)],
    "tiny": [dqn(8, "8,8", capacity=1000), ddpg(8, "8,8"), cnn(2, capacity=50)],
}
PEERS = {
    "cpu": ["torch", "torch-compile", "sb3", "sbx"],
    "gpu": ["torch", "torch-compile", "torch-reduce-overhead", "torch-graph"],
    "tiny": ["torch", "torch-compile", "torch-reduce-overhead", "torch-graph", "sb3", "sbx"],
}
WORDS = {
    "torch": "PyTorch {}, eager, fused Adam",
    "torch-compile": "PyTorch {}, torch.compile",
    "torch-reduce-overhead": "PyTorch {}, torch.compile with CUDA graphs (reduce-overhead)",
    "torch-graph": "PyTorch {}, the whole update as one CUDA graph",
    "sb3": "Stable-Baselines3 {}",
    "sbx": "sbx {} (JAX, jitted)",
}


def title(case):
    hidden = "Nature-CNN" if case.get("network") == "nature-cnn" else f"[{case['hidden'].replace(',', ', ')}]"
    return f"{case['algo'].upper()} {hidden}, batch {case['batch']:,}"


def flags(case, **more):
    return [part for key, value in {**case, **more}.items() for part in (f"--{key}", str(value))]


def variants(device):
    """Ours, as (name, more arguments). The ratios are of the first that can be measured."""
    if not (device or "").startswith("cuda"):
        return [("ours", [])]
    # What a binary or a learner does not offer says so, and is left out.
    ways = [("on", "device"), ("on", "host"), ("off", "device"), ("off", "host")]
    said = dict(on="graph", off="eager")
    return [
        (f"ours, {said[graph]}, rows on the {where}", ["--set", f"learner.cuda_graph={graph}", "--set", f"replay.device={where}"])
        for graph, where in ways
    ] + [("ours, as it comes", [])]


class Learner:
    """A process that measures one learner. `why` says why it cannot, once it cannot."""

    def __init__(self, name, command):
        self.name, self.version, self.why, self.report = name, "", None, None
        self.rates, self.ratios, self.shares, self.said = [], [], [], queue.Queue()
        one = {f"{pool}_NUM_THREADS": "1" for pool in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
        jax = dict(JAX_PLATFORMS="cpu", XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
        self.errors = []
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env={**os.environ, **one, **jax, "TF_CPP_MIN_LOG_LEVEL": "3"},
            )
        except OSError as e:
            self.process, self.why = None, str(e)
            return
        threading.Thread(target=self.read, daemon=True).start()
        threading.Thread(target=self.listen, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.said.put(line.strip())
        self.said.put(None)

    def listen(self):
        for line in self.process.stderr:
            if line.strip():
                self.errors[:] = [line.strip()]

    def answer(self, seconds):
        """A line of it, or None, and then `why` is set."""
        try:
            line = self.said.get(timeout=seconds)
        except queue.Empty:
            self.why = f"it said nothing for {seconds} s"
            self.process.kill()
            return None
        if line is None:
            self.process.wait()
            time.sleep(0.1)  # its last words may still be on their way
            self.why = self.errors[0] if self.errors else "it ended without a word"
        return line

    def ready(self):
        if self.why:
            return
        line = self.answer(START_SECONDS)
        if line is None:
            return
        word, _, rest = line.partition(" ")
        if word == "ready":
            self.version = rest
        else:
            self.why = rest if word == "cannot" else f"it said {line!r} instead of being ready"
            self.process.kill()

    def cpu_seconds(self):
        """Processor time that the process has used, all its threads together."""
        with open(f"/proc/{self.process.pid}/stat") as f:
            user, system = f.read().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def window(self, seconds, of_core):
        """Updates a second, or with `of_core` a second of processor time; or None."""
        if self.why:
            return None
        begin, used = time.monotonic(), self.cpu_seconds()
        try:
            self.process.stdin.write(f"window {seconds}\n")
            self.process.stdin.flush()
        except OSError:
            pass  # that it has gone shows when the answer is read
        line = self.answer(seconds + WINDOW_SECONDS)
        try:
            rate = float(line) if line is not None else None
        except ValueError:
            self.why, rate = f"it answered {line!r} instead of a rate", None
            self.process.kill()
        if rate:
            share = (self.cpu_seconds() - used) / (time.monotonic() - begin)
            self.shares.append(share)
            rate = rate / share if of_core and share > 0 else rate
            self.rates.append(rate)
        return rate

    def end(self):
        if self.process is None:
            return
        try:
            self.process.stdin.close()
        except OSError:
            pass
        # Ours says at the end what else it measured.
        if self.why is None and self.name.startswith("ours"):
            line = self.answer(60)
            self.report = json.loads(line) if line else None
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def measure(case, a):
    """All learners on one case: the list of them, ours first."""
    more = dict(device=a.device) if a.device else {}
    learners = []
    for name, extra in variants(a.device):
        # The peers have no double Q-learning, and n-step returns cost nothing here.
        extra = extra + (["--set", "agent.double=false"] if case["algo"] == "dqn" else [])
        learners.append(Learner(name, [a.ours, "bench", "learner", "--serve", "--json", *flags(case, **more), *extra]))
    for name in a.peers:
        learners.append(Learner(name, [a.python, str(HERE / "peer.py"), "--peer", name, *flags(case, **more)]))
    for learner in learners:
        learner.ready()
    for round in range(1, a.rounds + 1):
        print(f"{title(case)}: round {round} of {a.rounds}", file=sys.stderr)
        rates = [learner.window(a.seconds, a.cpu is not None) for learner in learners]
        ours = next((rate for learner, rate in zip(learners, rates) if rate and learner.name.startswith("ours")), None)
        for learner, rate in zip(learners, rates):
            if ours and rate:
                learner.ratios.append(ours / rate)
    for learner in learners:
        learner.end()
    return learners


def kernels(case, a):
    """Launches and their time in one update of PyTorch's eager learner: the floor that kernels set for the same arithmetic."""
    command = [a.python, str(HERE / "peer.py"), "--peer", "torch", "--kernels", *flags(case, device=a.device or "cpu")]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        print(f"{title(case)}: no kernel times: {(done.stderr.splitlines() or ['nothing said'])[-1]}", file=sys.stderr)
        return {}


def median(values):
    return statistics.median(values) if values else None


def lines(case, learners):
    for learner in learners:
        known = learner.why is None
        yield dict(
            case=title(case), **case, learner=learner.name, version=learner.version, not_measured=learner.why,
            updates_per_s=median(learner.rates) if known else None, ours_by_it=median(learner.ratios) if known else None,
            cpu_share=median(learner.shares) if known else None,
            report=learner.report,
        )


def number(value):
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def table(results, floors):
    heads = [title(case) for case, _ in results]
    rows = [["updates/s (ours by it)", *heads], ["---", *["---:"] * len(heads)]]
    names = list(dict.fromkeys(learner.name for _, learners in results for learner in learners))
    why = []

    def cells(name):
        for case, learners in results:
            learner = next((learner for learner in learners if learner.name == name), None)
            if learner is None or learner.why or not learner.rates:
                if learner is not None and learner.why:
                    why.append(f"* {name}, {title(case)}: {learner.why}")
                yield "–"
            else:
                ratio = median(learner.ratios)
                # Ours that the others are compared with is 1 by itself.
                ratio = f" ({ratio:.2f})" if ratio and not (learner.name.startswith("ours") and ratio == 1) else ""
                yield number(median(learner.rates)) + ratio

    for name in names:
        version = next((l.version for _, learners in results for l in learners if l.name == name and l.version), "")
        label = f"**{name}**" if name.startswith("ours") else WORDS.get(name, name + " {}").format(version)
        row = [label, *cells(name)]
        if any(cell != "–" for cell in row[1:]):
            rows.append(row)

    def ours(key, show):
        first = [next((l.report for l in learners if l.report), None) for _, learners in results]
        found = [show(report) if report and report.get(key) is not None else "–" for report in first]
        return found

    rows.append(["ours: one update, median and 99 %", *ours("update_us", lambda r: f"{number(r['update_us'])} and {number(r['p99_us'])} µs")])
    rows.append(["ours: acting on one observation", *ours("act_us", lambda r: f"{number(r['act_us'])} µs")])
    rows.append(["ours: matrix products", *ours("gflop_per_s", lambda r: f"{number(r['gflop_per_s'])} GFLOP/s")])
    rows.append(["a large matrix product", *ours("matmul_gflop_per_s", lambda r: f"{number(r['matmul_gflop_per_s'])} GFLOP/s")])
    rows.append(["our share of it", *ours("gflop_per_s", lambda r: f"{r['gflop_per_s'] / r['matmul_gflop_per_s']:.2f}")])
    rows.append(["ours: operator calls an update", *ours("kernel_calls", lambda r: f"{r['kernel_calls']}")])
    rows.append(["ours: waits of the host an update", *ours("host_syncs", lambda r: f"{r['host_syncs']}")])
    floor = lambda case: floors.get(title(case))
    rows.append([
        "PyTorch's kernels alone, eager",
        *[f"{number(floor(case)['kernel_us'])} µs, {number(floor(case)['launches'])} launches" if floor(case) else "–" for case, _ in results],
    ])
    rows = [row for row in rows if any(cell != "–" for cell in row[1:])]
    text = "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
    return text + ("\nNot measured:\n\n" + "\n".join(dict.fromkeys(why)) + "\n" if why else "")


def machine(device):
    with open("/proc/cpuinfo") as f:
        names = [line.split(":")[1].strip() for line in f if line.startswith("model name")]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    text = f"{names[0] if names else 'unknown processor'}, {os.cpu_count()} cores, {memory:.0f} GiB"
    if device and device != "cpu":
        asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        try:
            said = subprocess.run(asked, capture_output=True, text=True).stdout.splitlines()
        except OSError:
            said = []
        text += f"; {said[0]}" if said else ""
    return text


def load():
    with open("/proc/loadavg") as f:
        return float(f.read().split()[0])


def commit():
    try:
        asked = ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"]
        return subprocess.run(asked, capture_output=True, text=True).stdout.strip() or "unknown"
    except OSError:
        return "unknown"


def heading(said, before, device=None):
    """What is above a generated table."""
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    text = f"{machine(device)}. {when}, commit {commit()}. {said}; load average {before} before and {load()} after.\n"
    if before > 0.5:
        text += "\n**The machine was busy with other work**: rates are low and noisy; only the ratios say something.\n"
    return text


def write(document, name, text):
    """Puts `text` between the markers of `name` in `document`."""
    begin, end = BEGIN.format(name), END.format(name)
    with open(document) as f:
        whole = f.read()
    if begin not in whole or end not in whole:
        sys.exit(f"{document} has no markers '{begin}' and '{end}'")
    before, rest = whole.split(begin)
    after = rest.split(end)[1]
    with open(document, "w") as f:
        f.write(f"{before}{begin}\n\n{text}\n{end}{after}")
    print(f"{document} is written", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ours", required=True)
    parser.add_argument("--python", required=True)
    parser.add_argument("--cases", default="cpu", choices=CASES)
    parser.add_argument("--peers", type=lambda text: [name for name in text.split(",") if name])
    parser.add_argument("--device")
    parser.add_argument("--cpu", type=int)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--kernels", action="store_true", help="PyTorch's kernel times beside")
    parser.add_argument("--lines")
    parser.add_argument("--document")
    parser.add_argument("--name", default="bench-learner")
    a = parser.parse_args()
    a.peers = PEERS[a.cases] if a.peers is None else a.peers
    if a.cpu is not None:
        os.sched_setaffinity(0, [a.cpu])
    before, results, floors = load(), [], {}
    for case in CASES[a.cases]:
        results.append((case, measure(case, a)))
        if a.kernels:
            floors[title(case)] = kernels(case, a)
        if a.lines:
            with open(a.lines, "a") as f:
                for line in lines(*results[-1]):
                    f.write(json.dumps(line) + "\n")
    where = "" if a.cpu is None else ", all of them on one core"
    text = heading(f"{a.rounds} rounds, windows of {a.seconds:g} s{where}", before, a.device) + "\n" + table(results, floors)
    print(text)
    if a.document:
        write(a.document, a.name, text)
    if not any(learner.rates for _, learners in results for learner in learners if learner.name.startswith("ours")):
        sys.exit("nothing of ours was measured")


if __name__ == "__main__":
    main()
