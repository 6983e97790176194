#!/usr/bin/env python3
"""Measures environments in turn, each library a process of its own that waits for its turns, and writes a table of the medians
into a document between its markers. scripts/bench-envs calls this.

    python compare.py RL_TRAIN DOCUMENT ROUNDS SECONDS PEERS_PYTHON ENV...

A round is one window of each variant of each library, seconds apart. A ratio is the median over the rounds of ours divided
by the peer's in the same round, ours being its best number of threads in that round. Of each window there is the rate, and the
median duration of a step of all environments, which says what a step takes also where other work interrupts the windows.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import time

BEGIN, END = "<!-- begin: written by scripts/bench-envs -->", "<!-- end: bench-envs -->"
HERE = pathlib.Path(__file__).parent
ENVS = 64  # environments stepped together
CORES = os.cpu_count() or 1


class Variant:
    """A process that steps the environments of one library in one way."""

    def __init__(self, name, command):
        self.name, self.version, self.why_not = name, "", None
        self.rates, self.durations = [], []
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        word, _, rest = self.process.stdout.readline().strip().partition(" ")
        if word == "ready":
            self.version = rest
        else:
            self.why_not = rest or "it ended without a word"

    def measure(self, seconds):
        self.process.stdin.write(f"window {seconds}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"bench-envs: {self.name} ended within a window")
        rate, duration = map(float, line.split())
        self.rates.append(rate)
        self.durations.append(duration)

    def end(self):
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


def variants(env, rl_train, python):
    """Ours first, and then the peers'."""
    ours = [rl_train, "bench", "env", "--env", env, "--envs", str(ENVS), "--serve"]
    peer = [python, str(HERE / "peer.py"), "--env", env, "--envs", str(ENVS)]
    threads = [1] if CORES == 1 else [1, CORES]
    made = [(f"rl-envs, {of(n)}", [*ours, "--threads", str(n)]) for n in threads]
    if env.startswith("MinAtar/"):
        made += [("MinAtar, plain loop", [*peer, "--peer", "minatar"])]
        return [Variant(name, command) for name, command in made]
    if env.startswith("atari:"):
        # Stepped by ale-py's threads: ours has one way.
        made = [("rl-envs, as ale-py has threads", ours)]
        made += [(f"ale-py, AtariVectorEnv, {of(n)}", [*peer, "--peer", "ale", "--threads", str(n)]) for n in threads]
        return [Variant(name, command) for name, command in made]
    made += [(f"EnvPool, {of(n)}", [*peer, "--peer", "envpool", "--threads", str(n)]) for n in threads]
    # The same Python environments from Rust and from a loop in Python; the first needs a binary built with the feature python.
    bridge = [rl_train, "bench", "env", "--env", f"gym:{env}", "--envs", str(ENVS), "--serve"]
    made += [("Python bridge, gym:ID", bridge), ("Gymnasium, plain loop", [*peer, "--peer", "gymnasium-loop"])]
    names = {"vector": "vectorized by hand", "sync": "SyncVectorEnv", "async": "AsyncVectorEnv"}
    made += [(f"Gymnasium, {names[m]}", [*peer, "--peer", f"gymnasium-{m}"]) for m in names]
    return [Variant(name, command) for name, command in made]


def of(threads):
    return "1 thread" if threads == 1 else f"{threads} threads"


def human(rate):
    """Three digits and a unit."""
    value, unit = (rate / 1e6, "M") if rate >= 1e6 else (rate / 1e3, "k")
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"


def machine():
    with open("/proc/cpuinfo") as f:
        names = [line.split(":")[1].strip() for line in f if line.startswith("model name")]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{names[0] if names else 'unknown processor'}, {CORES} cores, {memory:.0f} GiB"


def load():
    with open("/proc/loadavg") as f:
        return float(f.read().split()[0])


def ratio_of(ratio):
    return f"{ratio:,.{2 if ratio < 10 else 1 if ratio < 100 else 0}f}"


def table(measured, title, figures, best, show, ratio):
    """A row a variant, a column an environment: the median figure, and how many times as good ours is."""
    names = list(dict.fromkeys(v.name for found in measured.values() for v in found))
    lines = [f"| {title} | {' | '.join(measured)} |", "| --- " + "| ---: " * len(measured) + "|"]
    for name in names:
        cells, version = [], ""
        for found in measured.values():
            ours = [best(of) for of in zip(*(figures(v) for v in found if v.name.startswith("rl-envs")))]
            variant = next((v for v in found if v.name == name), None)
            if variant is None or not variant.rates:
                cells.append("–")
                continue
            version = variant.version
            figure = show(statistics.median(figures(variant)))
            times = ratio_of(statistics.median(map(ratio, ours, figures(variant))))
            cells.append(f"**{figure}**" if name.startswith("rl-envs") else f"{figure} ({times})")
        library, _, how = name.partition(", ")
        label = f"**{name}**" if library == "rl-envs" else f"{library} {version}, {how}"
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def missing(measured):
    found = {f"* {env}, {v.name}: {v.why_not}" for env, all in measured.items() for v in all if v.why_not}
    return "\n".join(["Not measured:", "", *sorted(found), ""]) if found else ""


def main():
    rl_train, document, rounds, seconds, python, *envs = sys.argv[1:]
    before, measured = load(), {}
    for env in envs:
        measured[env] = variants(env, rl_train, python)
        for number in range(int(rounds)):
            for variant in measured[env]:
                if variant.why_not is None:
                    variant.measure(seconds)
        for variant in measured[env]:
            variant.end()
            rate = human(statistics.median(variant.rates)) + " steps/s" if variant.rates else variant.why_not
            print(f"{env}: {variant.name}: {rate}", file=sys.stderr)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    head = f"{machine()}. {when}, commit {commit or 'unknown'}. {ENVS} environments; {rounds} rounds, windows of {seconds} s; "
    head += f"load average {before:.2f} before and {load():.2f} after.\n"
    if before > 0.5:
        head += "\n**The machine was busy with other work**: rates are low and noisy; only the ratios say something.\n"
    rates = ("steps/s (ours / theirs)", lambda v: v.rates, max, human, lambda ours, theirs: ours / theirs)
    steps = (
        "µs for a step of all (theirs / ours)",
        lambda v: v.durations,
        min,
        lambda us: f"{us:,.{2 if us < 10 else 1 if us < 100 else 0}f}",
        lambda ours, theirs: theirs / ours,
    )
    text = "\n".join([head, table(measured, *rates), table(measured, *steps), missing(measured)])
    old = pathlib.Path(document).read_text()
    if BEGIN not in old or END not in old:
        sys.exit(f"bench-envs: {document} lacks the markers '{BEGIN}' and '{END}'")
    start, rest = old.split(BEGIN)
    pathlib.Path(document).write_text(f"{start}{BEGIN}\n\n{text}\n{END}{rest.split(END)[1]}")
    print(text)


if __name__ == "__main__":
    main()
