#!/usr/bin/env python3
"""Writes what `rl-train bench replay --peers --json` printed into the generated part of a document, as tables.

    python table.py LINES DOCUMENT WINDOWS LOAD

WINDOWS says in words what was measured, LOAD is the load average before it. scripts/bench-peers calls this.
"""

import json
import os
import subprocess
import sys
import time

BEGIN, END = "<!-- begin: written by scripts/bench-peers -->", "<!-- end -->"
TITLES = {
    "uniform": "Draw uniformly",
    "prioritized-update": "Draw by priority and write priorities back",
    "add": "Insert one by one",
    "add-batch": "Insert in batches",
}


def human(rate):
    """Three digits and a unit."""
    value, unit = (rate / 1e6, "M") if rate >= 1e6 else (rate / 1e3, "k")
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"


def times(ratio):
    """A ratio of two rates."""
    return f"{ratio:,.{0 if ratio >= 100 else 1 if ratio >= 10 else 2}f}"


def runs(lines):
    """Of each run our line, and the lines of the peers that follow it."""
    found = []
    for line in map(json.loads, lines):
        if "peer" in line:
            found[-1][1].append(line)
        else:
            found.append((line, []))
    return found


def table(op, measured):
    """A column for each run of one operation, a row for each buffer."""
    draws = op not in ("add", "add-batch")
    names = list(dict.fromkeys(peer["peer"] for _, peers in measured for peer in peers))
    heads = [run["workload"] + ("" if op == "add" else f", {run['batch']}") for run, _ in measured]
    rows = [["", *heads], ["---", *["---:"] * len(heads)]]
    rows.append(["**rl-replay**", *[f"**{human(run['transitions_per_s'])}**" for run, _ in measured]])
    best = [min((p["ratio"] for p in peers if p["ratio"]), default=None) for _, peers in measured]
    for name in names:
        cells, version = [], ""
        for (_, peers), least in zip(measured, best):
            peer = next((p for p in peers if p["peer"] == name), {})
            version = peer.get("version") or version
            cell = f"{human(peer['transitions_per_s'])} ({times(peer['ratio'])})" if peer.get("ratio") else "–"
            cells.append(f"*{cell}*" if least and peer.get("ratio") == least else cell)
        if any(cell != "–" for cell in cells):
            rows.append([f"{name} {version}", *cells])
    if draws:
        limits = [(run["gather_limit_per_s"], run["gather_row_bytes"]) for run, _ in measured]
        rows.append(["gather limit", *[f"{human(limit)} of {size:,} B" for limit, size in limits]])
        shares = [run["transitions_per_s"] / run["gather_limit_per_s"] for run, _ in measured]
        rows.append(["our share of it", *[f"{share:.2f}" for share in shares]])
    rows.append(["memory copied", *[f"{run['memcpy_gb_per_s']:.1f} GB/s" for run, _ in measured]])
    title = f"### {TITLES.get(op, op)}\n\n`rl-train bench replay --op {op} --peers`\n\n"
    return title + "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def machine():
    """The processor, cores and memory of this machine."""
    with open("/proc/cpuinfo") as f:
        names = [line.split(":")[1].strip() for line in f if line.startswith("model name")]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{names[0] if names else 'unknown processor'}, {os.cpu_count()} cores, {memory:.0f} GiB"


def generated(found, windows, load):
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    with open("/proc/loadavg") as f:
        after = f.read().split()[0]
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    head = f"{machine()}. {when}, commit {commit or 'unknown'}. {windows} for each figure; "
    head += f"load average {load} before and {after} after.\n"
    if float(load) > 0.5:
        head += "\n**The machine was busy with other work**: rates are low and noisy; only the ratios say something.\n"
    ops = dict.fromkeys(run["op"] for run, _ in found)
    tables = [table(op, [run for run in found if run[0]["op"] == op]) for op in ops]
    lacking = [p for _, peers in found for p in peers if "not_measured" in p]
    reasons = {(p["peer"], p["op"], p["workload"], p["not_measured"]) for p in lacking}
    missing = [f"* {peer}, {op}, {workload}: {reason}" for peer, op, workload, reason in sorted(reasons)]
    if missing:
        tables.append("### Not measured\n\n" + "\n".join(missing) + "\n")
    return "\n".join([head, *tables])


def main():
    lines, document, windows, load = sys.argv[1:]
    with open(lines) as f:
        text = generated(runs(f), windows, load)
    with open(document) as f:
        before, rest = f.read().split(BEGIN)
        after = rest.split(END)[1]
    with open(document, "w") as f:
        f.write(f"{before}{BEGIN}\n\n{text}\n{END}{after}")
    print(f"{document} is written")


if __name__ == "__main__":
    main()
