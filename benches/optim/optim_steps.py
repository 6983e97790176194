"""Optimizer steps of rl-learn beside PyTorch's own, in turn: each round runs ours and then every implementation of PyTorch's, the same
number of steps each. Prints a line of JSON a case, with medians and with the median of the rounds' ratios, and a table at the end. Started by
scripts/bench-optim.
"""

import argparse
import json
import statistics
import subprocess
import time

import torch

WORKLOADS = [(10, 256), (200, 64)]
MAKE = {
    "sgd": lambda p, **how: torch.optim.SGD(p, lr=1e-3, momentum=0.9, **how),
    "rmsprop": lambda p, **how: torch.optim.RMSprop(p, lr=1e-3, **how),
    "adam": lambda p, **how: torch.optim.Adam(p, lr=1e-3, **how),
    "adamw": lambda p, **how: torch.optim.AdamW(p, lr=1e-3, **how),
    "lars": None,  # PyTorch has neither
    "lamb": None,
}
# Steps before each measured round, not measured: threads that slept are awake again.
WARM = 10
HOW = {"default": {}, "foreach": {"foreach": True}, "fused": {"fused": True}}


def peers(name: str, count: int, side: int) -> dict[str, torch.optim.Optimizer]:
    out = {}
    for how, arguments in HOW.items() if MAKE[name] else ():
        parameters = [torch.randn(side, side, requires_grad=True) for _ in range(count)]
        for parameter in parameters:
            parameter.grad = torch.randn(side, side)
        try:
            out[how] = MAKE[name](parameters, **arguments)
        except (TypeError, RuntimeError):
            continue  # RMSprop has no fused kernel
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.05, help="of the fastest implementation in each round")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--optimizers", default=",".join(MAKE))
    args = parser.parse_args()
    ours = subprocess.Popen([args.binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def ask(name: str, count: int, side: int, threads: int, steps: int) -> float:
        ours.stdin.write(f"{name} {count} {side} {threads} {WARM}\n")
        ours.stdin.write(f"{name} {count} {side} {threads} {steps}\n")
        ours.stdin.flush()
        ours.stdout.readline()
        return json.loads(ours.stdout.readline())["us_per_step"]

    def time_of(optimizer: torch.optim.Optimizer, steps: int) -> float:
        for _ in range(WARM):
            optimizer.step()
        begin = time.perf_counter()
        for _ in range(steps):
            optimizer.step()
        return (time.perf_counter() - begin) * 1e6 / steps

    rows = []
    for threads in map(int, args.threads.split(",")):
        torch.set_num_threads(threads)
        for count, side in WORKLOADS:
            for name in args.optimizers.split(","):
                theirs = peers(name, count, side)
                calls = {"ours": lambda steps: ask(name, count, side, threads, steps)}
                calls |= {how: lambda steps, o=o: time_of(o, steps) for how, o in theirs.items()}
                # The number of steps in which the fastest takes the time wanted, from first runs that also warm up.
                steps = max(1, int(args.seconds * 1e6 / min(call(20) for call in calls.values())))
                rounds = {how: [] for how in calls}
                for turn in range(args.rounds):
                    order = list(calls) if turn % 2 == 0 else list(calls)[::-1]
                    for how in order:
                        rounds[how].append(calls[how](steps))
                medians = {how: statistics.median(values) for how, values in rounds.items()}
                # Of each the least disturbed round: on a machine with other work, the comparison that the other work falsifies least.
                least = {how: min(values) for how, values in rounds.items()}
                row = {"threads": threads, "parameters": count, "side": side, "optimizer": name, "us_per_step": medians, "least_us": least}
                if theirs:
                    fastest = min(theirs, key=medians.get)
                    ratios = [theirs_us / ours_us for theirs_us, ours_us in zip(rounds[fastest], rounds["ours"])]
                    row |= {"fastest": fastest, "times_faster": statistics.median(ratios)}
                    row |= {"times_faster_undisturbed": min(least[how] for how in theirs) / least["ours"]}
                print(json.dumps(row), flush=True)
                rows.append(row)
    print("\n| threads | parameters | optimizer | ours, µs | PyTorch's fastest, µs | times faster | same, undisturbed rounds |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        us, least, fastest = row["us_per_step"], row["least_us"], row.get("fastest")
        cells = [row["threads"], f"{row['parameters']} × {row['side']}×{row['side']}", row["optimizer"], f"{us['ours']:.0f}"]
        cells += [f"{us[fastest]:.0f} ({fastest})", f"{row['times_faster']:.2f}"] if fastest else ["–", "–"]
        cells += [f"{least['ours']:.0f} µs, {row['times_faster_undisturbed']:.2f}" if fastest else f"{least['ours']:.0f} µs"]
        print("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main()
