#!/usr/bin/env python3
"""Measures loaders in turn, each a process of its own that waits for its turns, and writes a table of the medians into a
document between its markers. scripts/bench-loader calls this.

    python compare.py OURS DOCUMENT ROUNDS SECONDS TORCH_PYTHON TF_PYTHON

A round is one window of each variant of each library. A ratio is the median over the rounds of ours divided by the
peer's in the same round, ours being its best number of workers in that round.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

BEGIN, END = "<!-- begin: written by scripts/bench-loader -->", "<!-- end: bench-loader -->"
HERE = pathlib.Path(__file__).parent
OURS, TORCH, TF = "rl-minibatch", "torch.utils.data", "tf.data"
VARIANTS = {OURS: ["0", "1", "2", "memcpy"], TORCH: ["0", "1", "2", "whole"], TF: ["rows", "whole"]}
WORKLOADS = {"small": "64 f32, batch 256", "image": "3×224×224 u8, batch 64"}


class Library:
    """A process that measures one library."""

    def __init__(self, name, command):
        self.name, self.version = name, ""
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.expect("ready")

    def expect(self, what):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"bench-loader: {self.name} ended while {what} was awaited; its message is above")
        return line

    def measure(self, workload, variant, seconds):
        self.process.stdin.write(f"{workload} {variant} {seconds}\n")
        self.process.stdin.flush()
        found = json.loads(self.expect("a figure"))
        self.version = found.get("version", "")
        return found["rows_per_s"]

    def end(self):
        self.process.stdin.close()
        self.process.wait(20)


def human(rate):
    """Three digits and a unit."""
    value, unit = (rate / 1e6, "M") if rate >= 1e6 else (rate / 1e3, "k")
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"


def machine():
    with open("/proc/cpuinfo") as f:
        names = [line.split(":")[1].strip() for line in f if line.startswith("model name")]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{names[0] if names else 'unknown processor'}, {os.cpu_count()} cores, {memory:.0f} GiB"


def load():
    with open("/proc/loadavg") as f:
        return float(f.read().split()[0])


def table(figures, versions):
    """A row a variant, a column a workload: median rate, and how many times as fast ours is."""
    names = {(OURS, w): f"**rl-minibatch, {w} workers**" for w in "012"}
    names[OURS, "memcpy"] = "memcpy of whole batches, one thread"
    names |= {(TORCH, w): f"DataLoader {versions[TORCH]}, {w} workers" for w in "012"}
    names[TORCH, "whole"] = f"DataLoader {versions[TORCH]}, the data set indexed once a batch"
    names[TF, "rows"] = f"tf.data {versions[TF]}"
    names[TF, "whole"] = f"tf.data {versions[TF]}, gathered once a batch"
    lines = ["| rows/s (ours / theirs) | " + " | ".join(WORKLOADS.values()) + " |", "| --- " + "| ---: " * len(WORKLOADS) + "|"]
    for key, name in names.items():
        cells = []
        for workload in WORKLOADS:
            rates = figures[workload, *key]
            best = [max(of) for of in zip(*(figures[workload, OURS, w] for w in "012"))]
            ratio = statistics.median(ours / theirs for ours, theirs in zip(best, rates))
            rate = human(statistics.median(rates))
            cells.append(rate if key[0] == OURS and key[1] != "memcpy" else f"{rate} ({ratio:.{2 if ratio < 10 else 1 if ratio < 100 else 0}f})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    ours, document, rounds, seconds, torch_python, tf_python = sys.argv[1:]
    before, peer = load(), str(HERE / "peer.py")
    libraries = [Library(OURS, [ours, "--serve"]), Library(TORCH, [torch_python, peer, TORCH]), Library(TF, [tf_python, peer, TF])]
    figures = {}
    for number in range(int(rounds)):
        for workload in WORKLOADS:
            for library in libraries:
                for variant in VARIANTS[library.name]:
                    rate = library.measure(workload, variant, seconds)
                    figures.setdefault((workload, library.name, variant), []).append(rate)
                    print(f"round {number + 1}: {workload} {library.name} {variant}: {human(rate)} rows/s", file=sys.stderr)
    for library in libraries:
        library.end()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    head = f"{machine()}. {when}, commit {commit or 'unknown'}. {rounds} rounds, windows of {seconds} s; "
    head += f"load average {before:.2f} before and {load():.2f} after.\n"
    if before > 0.5:
        head += "\n**The machine was busy with other work**: rates are low and noisy; only the ratios say something.\n"
    text = head + "\n" + table(figures, {library.name: library.version for library in libraries}) + "\n"
    old = pathlib.Path(document).read_text()
    if BEGIN not in old or END not in old:
        sys.exit(f"bench-loader: {document} lacks the markers '{BEGIN}' and '{END}'")
    start, rest = old.split(BEGIN)
    pathlib.Path(document).write_text(f"{start}{BEGIN}\n\n{text}\n{END}{rest.split(END)[1]}")
    print(text)


if __name__ == "__main__":
    main()
